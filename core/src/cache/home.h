/* SPDX-License-Identifier: MIT */
/* What the engines of a process share: a process tier and its channels of coherence.
 *
 * Engines that say the same in everything that decides what a cached byte means (servers, prefix, every entity
 * and cache, in order) live in one home: what one has read the others find, in whatever Lua state or thread.
 * Anything else is another home, so that no two definitions ever meet. The first engine makes it; it ends with
 * the last one. Its channels have connections of their own, so no engine's end takes them away.
 *
 * The registry's lock is held over fork, so a child finds it free. Lock order: registry, then what channels
 * lock. */
#ifndef RG_CACHE_HOME_H
#define RG_CACHE_HOME_H

#include "cache/cache.h"
#include "cache/value.h"

typedef struct rg__home rg__home; /* shared */

typedef struct rg__home_opts {
    rg__slice meaning;      /* all that decides what a cached byte means */
    rg__slice secrets;      /* and who may connect */
    const char *prefix;
    const rg__schema *schema;
    rg__redis_pool *const *redis;
    uint32_t n_redis;
    uint64_t max_bytes;     /* of several engines' the largest */
    bool apart;             /* shared with nobody */
    const char *place;      /* of memory that processes share (cache/arena.h); NULL: none */
} rg__home_opts;

/* An engine more, with a reference. ECONFIG, ELIMIT: the place. */
rg__home *rg__home_join(const rg__home_opts *o, rg_err *err);
/* After the engine's Redis tiers and value caches were made, before first use: it takes part. */
int rg__home_settle(rg__home *h, rg__shared *const *shared, rg_err *err);
/* An engine closes: with the last one the channels stop, in bounded time. */
void rg__home_retire(rg__home *h);
void rg__home_unref(rg__home *h);

rg__process *rg__home_process(const rg__home *h);
rg__metrics *rg__home_metrics(rg__home *h); /* those of the process tier */
rg__coherence *rg__home_channel(const rg__home *h, uint32_t redis);

#endif
