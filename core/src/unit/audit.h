/* SPDX-License-Identifier: MIT */
/* Comparing what the process cache and Redis say with what MySQL holds, while everything runs. */
#ifndef RG_UNIT_AUDIT_H
#define RG_UNIT_AUDIT_H

#include "unit/store.h"

/* One thing that is wrong, and has been for as long as was asked: columns of out: entity, id, tier
 * (process or redis), what (the row, or an index), problem. */
typedef struct rg__audit {
    uint32_t older_ms;   /* what differs for a shorter time is not reported */
    uint64_t compared;   /* answers of caches that were compared */
    rg__result *out;
} rg__audit;

extern const char *const rg__audit_columns[5];

/* Rows of these ids (at most RG__AUDIT_PAGE) and the lists of cached indexes that they are in. Entries that
 * are marked, leased or pending are no answers. Takes older_ms when something looks wrong. */
enum { RG__AUDIT_PAGE = 256 };
int rg__audit_rows(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n,
                   rg__audit *a, rg_err *err);
/* Ids of rows that Redis holds: a page of a SCAN. cursor: "0" at first and at the end (24 bytes). */
int rg__audit_scan(rg__store *s, const rg__ctx *ctx, const rg_type *t, char cursor[24],
                   uint64_t **ids, size_t *n, rg_err *err);

#endif
