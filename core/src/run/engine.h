/* SPDX-License-Identifier: MIT */
/* The engine object: the store, its workers, its lifecycle. */
#ifndef RG_RUN_ENGINE_H
#define RG_RUN_ENGINE_H

#include <regolith/engine.h>
#include "lock/lock.h"
#include "run/worker.h"
#include "unit/store.h"

struct rg_config {
    rg_engine_opts opts; /* prefix owned */
    char *prefix;
    char *place;               /* of opts.process_cache_place, owned */
    rg__schema schema;
    rg__mysql_pool **mysql;
    uint32_t n_mysql;
    rg__redis_pool **redis;
    uint32_t n_redis;
    rg_queue_opts *queues; /* names owned */
    uint32_t n_queues;
    rg__values **caches;
    uint32_t n_caches;
};

struct rg_engine {
    atomic_uint refs;      /* handles, sessions, operations, leases, consumers, notifiers */
    atomic_bool closed;
    rg__store store;
    struct rg__home *home;     /* the process cache and its channels, shared with equal engines */
    rg__redis_pool **redis; /* by redis_pool number */
    rg__keeper **keepers;   /* by the same */
    uint32_t n_redis;
    rg__workers *workers;
    struct rg__pool_relay *relays; /* by MySQL pool; op_events.c */
    uint32_t timeout_ms;
    bool has_replicas;      /* some MySQL pool has */
    atomic_int loop_pid;    /* the process whose event loop uses it; 0: none yet */
    atomic_int log_mask, log_values;
    rg_engine *next;        /* all open engines, for the exit handler; under its lock */
};

void rg__caches_free(rg__values **caches, uint32_t n);
/* Of an orphan (see rg_engine_orphan) nothing is touched: locks may be held by threads that are not here. */
int rg__engine_fail_orphan(rg_err *err);
/* A context for work on the caller's thread. trace may be NULL. */
rg__ctx rg__engine_ctx(rg_engine *e, rg__trace *trace, uint32_t timeout_ms);
/* Number of the MySQL pool of that name (NULL: "default"), or EINVALID naming the known ones. */
int rg__engine_mysql(const rg_engine *e, const char *name, rg_err *err);
/* Appends what is so now: pools, caches, threads (figures.c). */
void rg__engine_gauges(rg_engine *e, rg__buf *out);
/* Moves events of a MySQL pool's outbox, unless another thread of the process is at it. */
int rg__engine_relay(rg_engine *e, uint32_t pool, const rg__ctx *ctx, uint64_t *moved, rg_err *err);
/* Room for relays, which are made on first use. */
struct rg__pool_relay *rg__engine_relays_new(uint32_t n);
void rg__engine_relays_free(struct rg__pool_relay *relays, uint32_t n);
/* The type, or NULL and EINVALID. */
const rg_type *rg__engine_type(const rg_engine *e, uint32_t type, rg_err *err);

#endif
