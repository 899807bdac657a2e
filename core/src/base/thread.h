/* SPDX-License-Identifier: MIT */
/* Threads that block all signals, condition variables on the monotonic clock, and the watchdog. */
#ifndef RG_BASE_THREAD_H
#define RG_BASE_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

int rg__thread_start(pthread_t *t, const char *name, void *(*fn)(void *), void *arg);
void rg__cond_init(pthread_cond_t *c); /* CLOCK_MONOTONIC */
/* Waits until signalled or past the monotonic deadline; false on time-out. */
bool rg__cond_wait(pthread_cond_t *c, pthread_mutex_t *m, int64_t deadline_ms);

/* getpid without the call: a forked child is told. */
int rg__pid(void);

/* The watchdog bounds calls of client libraries that cannot be bounded otherwise: when a deadline
 * passes before disarm, or nobody wants the call any more, it shuts the socket down, so that the blocked
 * call returns with a lost connection. One lazily started thread per process id, shared. arm/disarm cost one short lock.
 * The entry is the caller's storage and must be disarmed before it goes away. */
typedef struct rg__watch {
    int fd;
    int64_t deadline_ms;
    struct rg__watch *prev, *next;
    const atomic_bool *cancelled; /* borrowed while armed; NULL, or: fires soon once it is true */
    bool armed;
    bool fired;
} rg__watch;

/* Without a deadline and a word that cancels: does nothing. */
void rg__watch_arm(rg__watch *w, int fd, int64_t deadline_ms, const atomic_bool *cancelled);
bool rg__watch_disarm(rg__watch *w);                           /* true when it had fired */
/* Stops the thread (process exit). Idempotent. */
void rg__watch_stop(void);

#endif
