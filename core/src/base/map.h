/* SPDX-License-Identifier: MIT */
/* Open-addressing hash map from byte strings to pointers; keys are copied. Hash-flood-safe (seeded
 * per process). Confined. */
#ifndef RG_BASE_MAP_H
#define RG_BASE_MAP_H

#include "base/slice.h"

typedef struct rg__map rg__map;

rg__map *rg__map_new(void);
void rg__map_free(rg__map *m); /* values are the caller's */
/* Adds or replaces; returns 0, or RG_ENO_MEMORY. *old (may be NULL) gets the former value. */
int rg__map_put(rg__map *m, const void *key, size_t len, void *value, void **old);
void *rg__map_get(const rg__map *m, const void *key, size_t len);
void *rg__map_take(rg__map *m, const void *key, size_t len); /* removes */
size_t rg__map_count(const rg__map *m);
/* Walks: *at starts at 0; false at the end. No changes while walking. */
bool rg__map_next(const rg__map *m, size_t *at, rg__slice *key, void **value);

#endif
