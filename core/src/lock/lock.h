/* SPDX-License-Identifier: MIT */
/* Locks in Redis: leases with fencing tokens, kept alive and watched over by one thread a pool.
 *
 * A lock is a key "{prefix}:lock:<name>" that holds its owner and its token and ends by itself after
 * the ttl. Tokens only grow, over all locks of a prefix: each is one more than the last, and at least
 * the microseconds of Redis' clock, which stands in for the last one where Redis has lost it.
 *
 * What the owner believes is reckoned from before it asked, on a clock that also runs while the machine
 * sleeps: it ends its belief before Redis ends the lease. */
#ifndef RG_LOCK_LOCK_H
#define RG_LOCK_LOCK_H

#include "base/list.h"
#include "redis/redis.h"

typedef struct rg__keeper rg__keeper; /* shared; one a Redis pool */
typedef struct rg__dlock rg__dlock;     /* shared; references: its handle, and the keeper */
typedef struct rg__topic rg__topic;   /* a lock that somebody of this process waits for */

/* ---- the keeper ---- */
/* Starts nothing. The pool is borrowed. */
rg__keeper *rg__keeper_new(rg__redis_pool *pool, const char *prefix, rg__metrics *metrics, rg_err *err);
/* Gives back what is held, in bounded time, and ends the thread. Idempotent. */
void rg__keeper_stop(rg__keeper *k);
void rg__keeper_free(rg__keeper *k);

/* ---- a lock ---- */
typedef struct rg__dlock_opts {
    uint32_t ttl_ms;
    bool renew;      /* by the keeper, until */
    uint32_t max_ms; /* so long after it was taken; 0: for as long as there is a handle */
} rg__dlock_opts;

/* max_ms, ttl_ms: checked by the caller. NULL: out of memory. */
rg__dlock *rg__dlock_new(rg__keeper *k, const char *name, size_t len, const rg__dlock_opts *opts,
                       rg_err *err);
/* The handle goes; what it still holds is given back by the keeper. Never waits. */
void rg__dlock_drop(rg__dlock *l);
/* The same, though the handle stays: it is given back. */
void rg__dlock_abandon(rg__dlock *l);
/* 1: taken; 0: another has it, its lease lasts *left_ms; or negative. May be called again until it is
 * taken, also after a failure. */
int rg__dlock_take(rg__dlock *l, const rg__ctx *ctx, int64_t *left_ms, rg_err *err);
/* Renews now, with another ttl if not 0. ELOCK_LOST. */
int rg__dlock_extend(rg__dlock *l, const rg__ctx *ctx, uint32_t ttl_ms, rg_err *err);
/* ELOCK_LOST when it was not ours any more. After a failure the keeper goes on trying, and so may the caller:
 * then it is given back as soon as Redis answers. */
int rg__dlock_release(rg__dlock *l, const rg__ctx *ctx, rg_err *err);
/* How long it is surely held; 0: lost, or released, or never taken. Once 0, for ever. */
int64_t rg__dlock_left_ms(rg__dlock *l);
bool rg__dlock_lost(rg__dlock *l);
uint64_t rg__dlock_token(const rg__dlock *l);
/* told(arg) is called once, on the keeper's thread with its lock held, when the lock is lost; not when
 * it is lost already (false). NULL takes it back: afterwards nothing is called. */
bool rg__dlock_on_lost(rg__dlock *l, void (*told)(void *arg), void *arg);

/* ---- waiting for one ---- */
/* One that waits: the caller's storage. fire() is called once for each rg__dlock_wait that returned
 * true, on any thread and maybe before it returns, and may free the storage. */
typedef struct rg__dlock_waiter {
    rg__node node;
    rg__topic *topic;
    uint64_t seen;        /* news of the topic that the last try came after */
    int64_t deadline_ms;  /* monotonic */
    void (*fire)(struct rg__dlock_waiter *w);
} rg__dlock_waiter;

/* Listens for the lock from now on. ENO_MEMORY. */
int rg__dlock_listen(rg__dlock *l, rg__dlock_waiter *w, rg_err *err);
/* Before each try: what is heard from here on ends the wait that follows it. */
void rg__dlock_seen(rg__dlock *l, rg__dlock_waiter *w);
/* Waits until the lock is heard to be free, or until the deadline. */
void rg__dlock_wait(rg__dlock *l, rg__dlock_waiter *w);
/* Fires it now if it waits. */
void rg__dlock_wake(rg__dlock *l, rg__dlock_waiter *w);
void rg__dlock_unlisten(rg__dlock *l, rg__dlock_waiter *w); /* not while it waits */

#endif
