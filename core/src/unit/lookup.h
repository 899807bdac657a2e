/* SPDX-License-Identifier: MIT */
/* One lookup by the values of an index on its way through the caches; for lookup.c and lookups.c only. */
#ifndef RG_UNIT_LOOKUP_H
#define RG_UNIT_LOOKUP_H

#include "unit/load.h"

typedef struct rg__lookup {
    rg__store *store;
    const rg__ctx *ctx;
    rg__tx *tx;          /* NULL: as outside of any */
    rg__lock lock;
    const rg_type *type;
    const rg__index *index;
    uint32_t number;
    rg__buf encoded;     /* the key, normalised */
    rg_block *key_row;   /* the key's values as a row, for SQL */
    rg__shared *shared;  /* NULL: lookups of this index are not cached */
    rg__key key;
    rg__entry entry;
    uint64_t stamp;
    uint64_t *ids;
    size_t n;
    bool pending;        /* some ids come from queued writes */
    bool may_lag;        /* not cached: a replica may answer */
    rg__rows *given;     /* what MySQL has said already; NULL: it is asked */
} rg__lookup;

/* type, index, store and ctx are set; outside: the context without transactions, which has to stay. */
int rg__lookup_init(rg__lookup *l, rg_builder *key, const rg__ctx *outside, rg_err *err);
void rg__lookup_deinit(rg__lookup *l);
/* Has the process cache (Redis, whose entry is there) its list of ids? */
bool rg__lookup_process(rg__lookup *l);
bool rg__lookup_redis(rg__lookup *l);
/* rows: of these ids, NULL where there is none. True when those that are left are the answer. */
bool rg__lookup_judge(rg__lookup *l, rg__rows *rows);
/* From MySQL, and into the caches. */
int rg__lookup_finish(rg__lookup *l, rg__rows *rows, rg_err *err);
/* Gives the lease back, if there is one. */
void rg__lookup_fail(rg__lookup *l);

#endif
