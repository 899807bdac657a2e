/* SPDX-License-Identifier: MIT */
/* The inside of the pool, for the three files that work on it. */
#ifndef RG_MYSQL_POOL_H
#define RG_MYSQL_POOL_H

#include <pthread.h>
#include "mysql/conn.h"

/* A connection is in exactly one list, idle or busy; rg__pool_move alone changes that. The lock is
 * a leaf; nothing that may wait for the network happens under it. */
struct rg__mysql_pool {
    rg_pool_opts opts; /* strings owned */
    pthread_mutex_t lock;
    atomic_int pid; /* process that the lists belong to; -1 while they are being taken over */
    rg__node idle;  /* head: used last */
    rg__node busy;
    rg__node waiters; /* head: waits longest; not empty only when all of max_connections are lent */
    uint32_t n_idle;
    uint32_t n_busy; /* lent, and being connected */
    uint32_t n_reserved; /* the same, beyond max_connections: for callers who hold one already */
    bool closed;
    rg_err refused;                  /* why the last connect failed */
    int64_t retry_at_ms, backoff_ms; /* circuit breaker; 0: closed */
    bool mute;                       /* the last attempt to connect was not answered in time: one at a time */
    uint32_t n_connecting;
    pthread_cond_t connected;        /* an attempt is over */
    atomic_ulong stop_id;            /* a late statement that nobody could stop yet; 0: none */
    int64_t stop_until_ms;
    bool stopping;                   /* a thread is about it; only where connecting cannot be bounded */
    pthread_cond_t stopped;
    struct rg__replicas *replicas;   /* owned; NULL: none (replica.c) */
    atomic_ullong identity;          /* of the server, hashed (identity.c); 0: not known */
    atomic_ullong errors;            /* see rg__pool_figures */
    atomic_size_t max_packet;        /* as the last connection was told; 0: there was none */
};

/* Who waits for a connection; on its own stack. */
typedef struct rg__waiter {
    rg__node node;
    pthread_cond_t cond;
    rg__mysql *c; /* handed over */
    bool granted; /* may go on: with c, or with the right to connect */
} rg__waiter;

static inline rg__mysql *rg__pool_conn(rg__node *n) {
    return rg__container(n, rg__mysql, node);
}
/* To the head of a list of its pool, or (NULL) out of all. Under the lock. */
void rg__pool_move(rg__mysql *c, rg__node *to);
/* The idle connection used last, now busy; NULL when none is idle. Under the lock. */
rg__mysql *rg__pool_take_idle(rg__mysql_pool *pool);
/* After a fork, the first thread of the child makes the pool its own, others wait for it. */
void rg__pool_take_over(rg__mysql_pool *pool);
/* The pools of replicas go with their primary's. NULL is fine. */
void rg__replicas_shutdown(struct rg__replicas *rs);
void rg__replicas_free(struct rg__replicas *rs);
/* Until no thread of rg__pool_stop_statement has to do with the pool. */
void rg__pool_stop_wait(rg__mysql_pool *pool);
/* Puts the pool and its address in front of a message. */
void rg__pool_say_where(const rg__mysql_pool *pool, rg_err *err);
/* A connection that has just served stops what another one left running (kill.c). */
void rg__pool_stop_left(rg__mysql *c);

#endif
