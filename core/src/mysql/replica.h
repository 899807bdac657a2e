/* SPDX-License-Identifier: MIT */
/* The replicas of a pool: which of them may answer a read, and which are passed over.
 *
 * A replica's connection remembers the position that its server was last known to have reached; a
 * read that needs more asks once. A replica that fails is passed over for a while that doubles; one
 * that has not reached where the primary was max_replica_lag_ms ago, until it has. */
#ifndef RG_MYSQL_REPLICA_H
#define RG_MYSQL_REPLICA_H

#include "mysql/conn.h"
#include "mysql/timeline.h"

enum { RG__SAMPLES = 8 };

typedef struct rg__replica {
    rg__mysql_pool *pool;        /* owned */
    atomic_llong down_until_ms;  /* failed: passed over until then */
    atomic_int backoff_ms;
    atomic_bool lagging;
    atomic_llong ask_after_ms;   /* was behind: not asked before */
    atomic_int ask_backoff_ms;
} rg__replica;

/* Where the primary was. */
typedef struct rg__sample {
    int64_t at_ms;
    rg__buf position;
} rg__sample;

typedef struct rg__replicas {
    rg__replica *items;
    uint32_t n;
    atomic_uint turn;
    atomic_int checker;          /* process id of the thread that checks; only it touches samples */
    atomic_llong check_at_ms;
    rg__sample samples[RG__SAMPLES];
    uint32_t n_samples;          /* taken in all; the newest is (n - 1) % RG__SAMPLES */
} rg__replicas;

/* Of a pool; NULL when it has none. */
rg__replicas *rg__pool_replicas(const rg__mysql_pool *pool);

/* ---- positions (position.c) ---- */
/* Asks the server of a connection where it is: a primary, or (replica) what it has applied. */
int rg__position_ask(rg__mysql *c, const rg__ctx *ctx, bool replica, rg__buf *out, rg_err *err);
/* What the connection knows already, and (ask) what its server says. */
bool rg__position_covers(rg__mysql *c, const rg__ctx *ctx, const char *queue, const rg__need *need,
                         bool ask);
/* When it is time, by one thread at a time: notes where the primary is, and looks which replicas
 * have reached where it was. */
void rg__replicas_check(rg__mysql_pool *primary, rg__replicas *rs, const rg__ctx *ctx);
/* Passed over for a while. */
void rg__replica_failed(rg__replica *r);

#endif
