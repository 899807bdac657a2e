/* SPDX-License-Identifier: MIT */
/* A network between a benchmark and MySQL: runs a command whose REGOLITH_MYSQL_SOCKET leads through a relay
 * that holds back whatever passes.
 *   raw_delay MICROSECONDS COMMAND...   each way; an exchange takes twice as long, and what the relay needs */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_un server = {.sun_family = AF_UNIX}, own = {.sun_family = AF_UNIX};
static long delay_us;
static char folder[] = "/tmp/rgdelay-XXXXXX";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void hold_back(void) {
    struct timespec t = {delay_us / 1000000, delay_us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

/* Passes on what has come; 0 at the end. */
static int pass(int from, int to) {
    static _Thread_local char bytes[65536];
    ssize_t n = read(from, bytes, sizeof bytes);
    if (n <= 0) return 0;
    hold_back();
    for (ssize_t at = 0, k; at < n; at += k) {
        k = write(to, bytes + at, (size_t)(n - at));
        if (k <= 0) return 0;
    }
    return 1;
}

static void *relay(void *arg) {
    int client = (int)(intptr_t)arg, there = socket(AF_UNIX, SOCK_STREAM, 0);
    struct pollfd fds[2] = {{client, POLLIN, 0}, {there, POLLIN, 0}};
    prctl(PR_SET_TIMERSLACK, 1);
    int going = there >= 0 && connect(there, (struct sockaddr *)&server, sizeof server) == 0;
    while (going && poll(fds, 2, -1) > 0) {
        if (fds[0].revents) going = pass(client, there);
        if (going && fds[1].revents) going = pass(there, client);
    }
    close(client);
    close(there);
    return NULL;
}

static void *serve(void *arg) {
    int listening = (int)(intptr_t)arg;
    for (;;) {
        pthread_t thread;
        int client = accept(listening, NULL, NULL);
        if (client < 0) continue;
        if (pthread_create(&thread, NULL, relay, (void *)(intptr_t)client) == 0) pthread_detach(thread);
        else close(client);
    }
    return NULL;
}

static void set_path(struct sockaddr_un *a, const char *path) {
    if (strlen(path) >= sizeof a->sun_path) {
        fprintf(stderr, "raw_delay: the path of a socket is too long: %s\n", path);
        exit(1);
    }
    strcpy(a->sun_path, path);
}

static void clean_up(void) {
    unlink(own.sun_path);
    rmdir(folder);
}

int main(int argc, char **argv) {
    char path[64];
    pthread_t thread;
    int status = 0;
    const char *target = getenv("REGOLITH_MYSQL_SOCKET");
    if (argc < 3 || !target || (delay_us = atol(argv[1])) < 0) {
        fprintf(stderr, "usage: raw_delay MICROSECONDS COMMAND... (within scripts/bench/run)\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    set_path(&server, target);
    if (!mkdtemp(folder)) die("mkdtemp");
    snprintf(path, sizeof path, "%s/mysql", folder);
    set_path(&own, path);
    atexit(clean_up);
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listening < 0 || bind(listening, (struct sockaddr *)&own, sizeof own) || listen(listening, 16)) die("listen");
    setenv("REGOLITH_MYSQL_SOCKET", own.sun_path, 1);
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    if (child < 0 || pthread_create(&thread, NULL, serve, (void *)(intptr_t)listening)) die("start");
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
