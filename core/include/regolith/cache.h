/* SPDX-License-Identifier: MIT */
/* Caches of the application's own values: named, in the process and in Redis. Keys and values are
 * bytes; what they mean is the host language's. A loader runs in the host: it takes a lease, loads,
 * and fills under it, so that a set or a deletion meanwhile wins. */
#ifndef REGOLITH_CACHE_H
#define REGOLITH_CACHE_H

#ifndef __RG_CDEF__
#include <regolith/op.h>
#endif

typedef struct rg_cache_opts {
    uint32_t size;         /* sizeof(rg_cache_opts) */
    const char *name;      /* letters, digits, underscores; unique per engine */
    const char *redis;     /* pool; NULL: "default" */
    int32_t in_process;    /* 1: values are kept in the process cache */
    int32_t in_redis;      /* 1: values are kept in Redis */
    uint64_t ttl_ms;       /* life of a value; 0: an hour */
    uint64_t absent_ttl_ms; /* life of a known absence; 0: 10 s */
    uint64_t stale_ms;     /* how much longer a value may be served while it is loaded anew */
    uint32_t lease_ms;     /* how long a loader may take; 0: 10 s */
    uint32_t max_bytes;    /* of a value; 0: 1 MiB */
    int32_t sliding;       /* 1: a hit gives a value its whole life again */
} rg_cache_opts;

/* Adds a cache; its number, in order of addition, or negative. */
RG_API int rg_config_cache(rg_config *config, const rg_cache_opts *opts, rg_err *err);

enum { RG_CACHE_KEY_MAX = 65535, RG_CACHE_TAGS_MAX = 16 };

/* What a key was found to be. */
typedef enum rg_cached {
    RG_CACHED_NONE = 0,    /* not there */
    RG_CACHED_VALUE,
    RG_CACHED_ABSENT,      /* known not to exist */
    RG_CACHED_STALE,       /* value (or absence) past its life, which somebody else loads */
    RG_CACHED_REFRESH,     /* the same, and the caller has the lease to load it */
    RG_CACHED_LEASED,      /* not there; the caller has the lease to load it */
    RG_CACHED_WAIT,        /* not there; somebody else loads it */
    RG_CACHED_BYPASS       /* load it, fill nothing: Redis cannot be asked */
} rg_cached;

typedef struct rg_cache_view {
    const uint8_t *data;
    uint32_t len;
    int32_t absent;        /* STALE, REFRESH: 1 when it is an absence */
    rg_block *block;       /* holds the bytes; of rg_cache_peek: a reference, the caller's */
} rg_cache_view;

/* What the process cache knows: RG_CACHED_VALUE (with a reference), ABSENT or NONE; never waits. early:
 * how many load times before the end of its life a value counts as none. Shared. */
RG_API int rg_cache_peek(rg_engine *engine, uint32_t cache, const char *key, size_t len, double early,
                         rg_cache_view *out);

/* Tells, as long as it holds, that what a peek has found is what another one would find: who keeps what
 * it has made of the bytes need not look again. */
typedef struct rg_cache_hold {
    uint64_t hash, stamp, deps; /* the engine's */
    int64_t until_ms;
    uint32_t cache;
} rg_cache_hold;
/* The same with early 0; for RG_CACHED_VALUE fills the hold as well. */
RG_API int rg_cache_peek_hold(rg_engine *engine, uint32_t cache, const char *key, size_t len,
                              rg_cache_view *out, rg_cache_hold *hold);
/* 1, and counts a hit; 0: look again. Waits for nothing. */
RG_API int rg_cache_holds(rg_engine *engine, const rg_cache_hold *hold);

/* ---- operations; keys are added by rg_op_cache_key, in order ---- */
/* lease: 1 to be given leases on what is missing or stale. wait_ms: how long to wait for others who
 * load. Redis being away is no failure: everything is BYPASS. */
RG_API rg_op *rg_op_cache_take(rg_engine *engine, uint32_t cache, int lease, double early,
                               uint32_t wait_ms, rg_err *err);
/* Fills key i of a DONE take under its lease (RG_CACHED_LEASED, REFRESH). ttl_ms 0: the cache's;
 * took_ms: what loading took. With no rg_op_cache_value: an absence. rg_op_number: 1, or 0 when it
 * was refused. Copies what it needs of take. */
RG_API rg_op *rg_op_cache_fill(rg_op *take, uint32_t i, double ttl_ms, double took_ms, rg_err *err);
/* Gives the leases of a DONE take back: the load failed. */
RG_API rg_op *rg_op_cache_unlease(rg_op *take, rg_err *err);
/* Sets keys to values, one rg_op_cache_value for each rg_op_cache_key; ttl_ms 0: the cache's. */
RG_API rg_op *rg_op_cache_set(rg_engine *engine, uint32_t cache, double ttl_ms, rg_err *err);
/* Deletes keys; rg_op_number: how many values Redis had. */
RG_API rg_op *rg_op_cache_delete(rg_engine *engine, uint32_t cache, rg_err *err);
/* Deletes all that carries one of the tags (rg_op_cache_tag). */
RG_API rg_op *rg_op_cache_delete_tags(rg_engine *engine, uint32_t cache, rg_err *err);

RG_API int rg_op_cache_key(rg_op *op, const char *key, size_t len, rg_err *err);
/* EINVALID when it is larger than the cache takes. */
RG_API int rg_op_cache_value(rg_op *op, const char *p, size_t len, rg_err *err);
RG_API int rg_op_cache_tag(rg_op *op, const char *tag, size_t len, rg_err *err);
/* Key i of a DONE take: rg_cached; out borrows from the operation. */
RG_API int rg_op_cache_found(const rg_op *op, uint32_t i, rg_cache_view *out);
/* Has a search answered from the cache, or fill it, for ttl_ms. Its type and the tables that it reads
 * besides must have cache_queries. Answers are those of MySQL, as if it had been asked. */
RG_API int rg_op_search_cached(rg_op *op, double ttl_ms, rg_err *err);
RG_API int rg_op_search_reads(rg_op *op, uint32_t type, rg_err *err); /* one more table */
/* Milliseconds of a clock that only goes forward; loads are measured with it. */
RG_API double rg_clock_ms(void);
/* Counts a value that the host could not decode. */
RG_API void rg_cache_corrupt(rg_engine *engine);

#endif
