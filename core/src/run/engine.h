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
    rg__schema schema;
    rg__mysql_pool **mysql;
    uint32_t n_mysql;
    rg__redis_pool **redis;
    uint32_t n_redis;
    rg__values **caches;
    uint32_t n_caches;
};

struct rg_engine {
    atomic_uint refs;      /* handles, sessions, operations, leases, consumers, notifiers */
    atomic_bool closed;
    rg__store store;
    rg__redis_pool **redis; /* by redis_pool number */
    rg__keeper **keepers;   /* by the same */
    uint32_t n_redis;
    rg__workers *workers;
    uint32_t timeout_ms;
    bool has_replicas;      /* some MySQL pool has */
    atomic_int log_mask, log_values;
    rg_engine *next;        /* all open engines, for the exit handler; under its lock */
};

void rg__caches_free(rg__values **caches, uint32_t n);
/* A context for work on the caller's thread. trace may be NULL. */
rg__ctx rg__engine_ctx(rg_engine *e, rg__trace *trace, uint32_t timeout_ms);
/* Number of the MySQL pool of that name (NULL: "default"), or EINVALID naming the known ones. */
int rg__engine_mysql(const rg_engine *e, const char *name, rg_err *err);
/* The type, or NULL and EINVALID. */
const rg_type *rg__engine_type(const rg_engine *e, uint32_t type, rg_err *err);

#endif
