/* SPDX-License-Identifier: MIT */
/* The engine: what one process opens once and shares between its threads and Lua states. */
#ifndef REGOLITH_ENGINE_H
#define REGOLITH_ENGINE_H

#ifndef __RG_CDEF__
#include <regolith/pool.h>
#include <regolith/row.h>
#include <regolith/schema.h>
#endif

typedef struct rg_config rg_config; /* what an engine will be made of; confined */
typedef struct rg_engine rg_engine; /* shared; reference-counted */

/* Zero takes the default in brackets. */
typedef struct rg_engine_opts {
    uint32_t size;                /* sizeof(rg_engine_opts) */
    const char *prefix;           /* of all Redis keys ["rg"]; letters, digits, _ - . only */
    uint64_t process_cache_bytes; /* bound of the process cache [64 MiB]; 1 byte: as good as none */
    uint32_t operation_timeout_ms; /* default deadline of an operation [30000] */
    uint32_t id_block;            /* ids reserved at a time [1000] */
    uint32_t node;                /* snowflake node, 0-63 */
    uint64_t queue_max_len;       /* stream entries before back-pressure [1,000,000] */
    uint32_t backpressure_wait_ms; /* how long a flush waits for room before BACKPRESSURE [0] */
    uint32_t workers;             /* threads for evented hosts [4] */
    uint32_t max_workers;         /* with those that step in where operations take long [64] */
    uint32_t max_queued;          /* operations waiting for a worker before LIMIT [10000] */
    int32_t log_mask;             /* query log: 1 mysql, 2 redis, 4 process cache [0] */
    int32_t log_values;           /* 1: values are shown in the query log */
    int32_t outage;               /* rg_outage of types that do not say [strict] */
    uint32_t mark_ms;             /* how long a flush's marks last: longer than a COMMIT takes [30000] */
    int32_t process_cache_apart;  /* 1: no other engine of the process shares the process cache */
    const char *process_cache_place; /* of a process cache that all processes of the machine share that say the
                                   * same: a name (of a folder in /dev/shm), or an absolute path of a folder */
} rg_engine_opts;

/* What a flush does that cannot be one unit of one partition. */
typedef enum rg_on_split {
    RG_SPLIT_DEFAULT = 0,
    RG_SPLIT_REFUSE,  /* it fails with SPLIT [the default] */
    RG_SPLIT_SYNC     /* it waits for what is queued there, then writes to MySQL itself */
} rg_on_split;

/* How safe a queued flush is when the call returns. */
typedef enum rg_durability {
    RG_DURABLE_DEFAULT = 0,
    RG_DURABLE_FAST,    /* Redis has it [the default] */
    RG_DURABLE_REPLICA, /* one replica of Redis has it too */
    RG_DURABLE_FSYNC,   /* it is on Redis' disk */
    RG_DURABLE_SYNC     /* it is in MySQL: not queued at all */
} rg_durability;

/* What a flush does that meets a queue at its bound. */
typedef enum rg_when_full {
    RG_FULL_DEFAULT = 0,
    RG_FULL_REFUSE, /* it fails with BACKPRESSURE [the default when wait_ms is 0] */
    RG_FULL_WAIT,   /* it waits wait_ms for room, then fails */
    RG_FULL_SYNC    /* it writes to MySQL itself */
} rg_when_full;

/* What is done about a Redis that is unfit for a queue. */
typedef enum rg_unfit {
    RG_UNFIT_DEFAULT = 0,
    RG_UNFIT_REFUSE, /* flush_async and consumers fail with CONFIG */
    RG_UNFIT_WARN    /* it is only told, by rg_op_queue_warnings */
} rg_unfit;

/* Settings of the queue of one MySQL pool. Zero takes the default in brackets. */
typedef struct rg_queue_opts {
    uint32_t size;            /* sizeof(rg_queue_opts) */
    const char *queue;        /* MySQL pool name ["default"] */
    uint32_t partitions;      /* streams; operations of one are applied in order [1, at most 256] */
    int32_t on_split;         /* rg_on_split */
    int32_t durability;       /* rg_durability, of flushes that do not say */
    int32_t when_full;        /* rg_when_full */
    uint64_t max_len;         /* bounds of a stream: entries [rg_engine_opts.queue_max_len], */
    uint64_t max_age_ms;      /* age of the oldest [none], */
    uint64_t max_bytes;       /* memory [none] */
    uint32_t wait_ms;         /* [rg_engine_opts.backpressure_wait_ms] */
    uint64_t retain_ms;       /* how long applied entries are kept, to be applied again [0] */
    uint32_t replica_ms;      /* how long a replica is waited for [1000] */
    int32_t persistence;      /* rg_unfit: Redis keeps no append-only file [WARN] */
    uint64_t events_max_len;  /* of its streams of events those that no group reads hold about so many, */
    uint64_t events_keep_ms;  /* and none older than this [1,000,000 of 7 days] */
} rg_queue_opts;

RG_API rg_config *rg_config_new(const rg_engine_opts *opts, rg_err *err);
RG_API void rg_config_free(rg_config *config); /* with everything it took; not after rg_engine_new */
/* Adds a pool. EINVALID names the option. */
RG_API int rg_config_mysql(rg_config *config, const rg_pool_opts *opts, rg_err *err);
/* Adds a replica of a MySQL pool that was added before; sessions read from it what it has already. */
RG_API int rg_config_replica(rg_config *config, const char *pool, const rg_pool_opts *opts,
                             rg_err *err);
RG_API int rg_config_redis(rg_config *config, const rg_pool_opts *opts, rg_err *err);
/* Settings of a queue; EINVALID names the option. */
RG_API int rg_config_queue(rg_config *config, const rg_queue_opts *opts, rg_err *err);
/* Takes the type, whatever it returns. */
RG_API int rg_config_type(rg_config *config, rg_type *type, rg_err *err);

/* Takes the config, whatever it returns. Resolves references and pools; connects nothing (see
 * rg_op_connect). ECONFIG lists every fault, one a line. */
RG_API rg_engine *rg_engine_new(rg_config *config, rg_err *err);
RG_API rg_engine *rg_engine_ref(rg_engine *engine);
RG_API void rg_engine_unref(rg_engine *engine);
/* Shuts connections down and stops threads, in bounded time; later operations fail with CLOSED.
 * Idempotent; the memory goes with the last reference. */
RG_API void rg_engine_close(rg_engine *engine);
/* Was this process forked off from one whose event loop uses the engine (has a notifier)? Then its operations
 * fail with MISUSE here, whatever is freed stays in memory, and the parent is not disturbed. */
RG_API int rg_engine_orphan(const rg_engine *engine);

/* Types are addressed by number, in order of rg_config_type. */
RG_API const rg_type *rg_engine_type(const rg_engine *engine, uint32_t type);
RG_API int rg_engine_type_find(const rg_engine *engine, const char *name); /* number or -1 */

/* The next id from the block in memory: 1 and *id, or 0 when the block is used up (run
 * rg_op_reserve), or negative when ids of this type are not allotted by the engine. Shared. */
RG_API int rg_engine_next_id(rg_engine *engine, uint32_t type, double *id, rg_err *err);

/* 1 when a MySQL pool has replicas. */
RG_API int rg_engine_has_replicas(const rg_engine *engine);

/* Prometheus text of counters, histograms and gauges; the string is the caller's (rg_free). */
RG_API char *rg_engine_metrics(rg_engine *engine, size_t *len);
/* A counter by its Prometheus name, e.g. "regolith_redis_cache_hits_total"; -1 when unknown. */
RG_API double rg_engine_counter(rg_engine *engine, const char *name);
RG_API void rg_engine_cache_stats(rg_engine *engine, double *bytes, double *entries);
RG_API int rg_engine_coherent(rg_engine *engine); /* 1: process caches are in use and coherent */
RG_API void rg_free(void *p);
/* ABI of this library; compare with RG_ABI of the header. */
RG_API int rg_abi(void);
RG_API const char *rg_version(void);
RG_API uint32_t rg_sizeof_err(void);
RG_API uint32_t rg_sizeof_pool_opts(void);

#endif
