/* SPDX-License-Identifier: MIT */
/* Threads and condition variables. */
#include "base/thread.h"

#include "base/clock.h"
#include "base/err.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static void name_thread(pthread_t t, const char *name) {
    char shortened[16]; /* the kernel's limit */
    snprintf(shortened, sizeof shortened, "%s", name);
    pthread_setname_np(t, shortened);
}

/* A new thread inherits the mask, so it never has a moment in which a signal could reach it. */
int rg__thread_start(pthread_t *t, const char *name, void *(*fn)(void *), void *arg) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(t, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) return rc == ENOMEM ? RG_ENO_MEMORY : RG_ELIMIT;
    if (name) name_thread(*t, name);
    return RG_OK;
}

void rg__cond_init(pthread_cond_t *c) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

bool rg__cond_wait(pthread_cond_t *c, pthread_mutex_t *m, int64_t deadline_ms) {
    if (deadline_ms == RG__NO_DEADLINE) return pthread_cond_wait(c, m) == 0;
    if (deadline_ms < 0) deadline_ms = 0;
    struct timespec until = {.tv_sec = deadline_ms / 1000, .tv_nsec = deadline_ms % 1000 * 1000000};
    return pthread_cond_timedwait(c, m, &until) != ETIMEDOUT;
}

/* ---- this process ---- */

static atomic_int this_pid;
static pthread_once_t pid_once = PTHREAD_ONCE_INIT;

static void note_pid(void) { atomic_store_explicit(&this_pid, (int)getpid(), memory_order_relaxed); }

static void watch_pid(void) {
    note_pid();
    pthread_atfork(NULL, NULL, note_pid);
}

int rg__pid(void) {
    pthread_once(&pid_once, watch_pid);
    return atomic_load_explicit(&this_pid, memory_order_relaxed);
}
