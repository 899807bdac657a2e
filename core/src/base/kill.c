/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/kill.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int wanted; /* step; 0: none */
static atomic_long left;
static uint64_t wanted_row; /* 0: none */

static void read_environment(void) {
    const char *text = getenv("REGOLITH_KILL_POINT"), *row = getenv("REGOLITH_KILL_ROW");
    if (row) wanted_row = strtoull(row, NULL, 10);
    char *colon = NULL;
    long step = text ? strtol(text, &colon, 10) : 0;
    long count = colon && *colon == ':' ? strtol(colon + 1, NULL, 10) : 0;
    if (step <= 0 || step > RG__KILL_LAST || count <= 0) return;
    atomic_store(&left, count);
    wanted = (int)step;
}

void rg__kill_point(rg__kill step) {
    pthread_once(&once, read_environment);
    if (wanted == (int)step && atomic_fetch_sub(&left, 1) == 1) kill(getpid(), SIGKILL);
}

void rg__kill_row(uint64_t id) {
    pthread_once(&once, read_environment);
    if (wanted_row && wanted_row == id) kill(getpid(), SIGKILL);
}
