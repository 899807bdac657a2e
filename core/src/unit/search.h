/* SPDX-License-Identifier: MIT */
/* Searches by a condition whose answers are cached. */
#ifndef RG_UNIT_SEARCH_H
#define RG_UNIT_SEARCH_H

#include "unit/load.h"

enum { RG__SEARCH_ROWS = 0, RG__SEARCH_IDS, RG__SEARCH_COUNT };

typedef struct rg__searching {
    const rg_type *type;
    rg__slice where;
    int mode;
    const rg__param *params;
    size_t n_params;
    uint64_t offset, limit;
    uint64_t ttl_ms;            /* of the cached answer */
    const rg_type *const *tables; /* all that it reads, its own first */
    uint32_t n_tables;
} rg__searching;

typedef struct rg__found_rows {
    rg__rows rows;
    uint64_t *ids;              /* owned */
    size_t n_ids;
    uint64_t count;
} rg__found_rows;
/* From the cache where it can answer, else from MySQL's primary, which fills it. What was found is the
 * caller's, also after a failure. */
int rg__search_cached(rg__store *s, const rg__ctx *ctx, const rg__searching *q,
                      rg__found_rows *out, rg_err *err);

#endif
