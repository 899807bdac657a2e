/* SPDX-License-Identifier: MIT */
/* All that decides what a byte of the process cache means, as text: engines with the same one may share it. */
#ifndef RG_RUN_MEANING_H
#define RG_RUN_MEANING_H

#include "run/engine.h"

/* The servers, the prefix, every entity and cache in order. The store's pools, schema and caches are there. */
void rg__meaning_write(const rg__store *s, rg__redis_pool *const *redis, const char *prefix, rg__buf *out);
/* Passwords and the like of who listens to Redis; never written anywhere. */
void rg__secrets_write(rg__redis_pool *const *redis, uint32_t n, rg__buf *out);

#endif
