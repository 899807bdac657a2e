/* SPDX-License-Identifier: MIT */
/* Reading entities: tier by tier, one step a tier for however many, fills under leases. */
#ifndef RG_UNIT_LOAD_H
#define RG_UNIT_LOAD_H

#include "tx/tx.h"
#include "unit/store.h"

enum {
    RG__LOAD_FRESH = 1,  /* past all caches, from MySQL; fills nothing */
    RG__LOAD_FILL_ONLY = 2, /* past the process cache only */
    RG__LOAD_STRICT = 1024, /* past the process cache; what Redis has is as MySQL has it, now */
    RG__LOAD_LOCK = 4       /* times an rg__lock: locked on the way, inside a transaction only */
};

/* What the process tier knows of one row: RG_GET_HIT (*out has a reference), ABSENT or MISS. */
int rg__load_peek(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t id, rg_block **out);
/* The same before a load that looks again, and tells of what is not there. ctx may be NULL: nobody listens. */
int rg__load_try(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t id, rg_block **out);
/* May Redis be asked for rows of this type by itself, with nothing to be looked up first? */
bool rg__load_plainly(rg__store *s, const rg_type *t);
/* The process tier, around such a question: before it, and what came of it (row NULL: there is none). */
uint64_t rg__load_stamp(rg__store *s, const rg_type *t, uint64_t id);
void rg__load_keep(rg__store *s, const rg_type *t, uint64_t id, rg_block *row, uint64_t stamp);
/* One row; *out NULL when there is none. */
int rg__load_one(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t id, rg_block **out,
                 rg_err *err);
/* Rows by id, in order, duplicates allowed; out[i] NULL when there is none, else a reference. */
int rg__load_rows(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n,
                  int flags, rg_block **out, rg_err *err);

/* The same in two steps, for who has something to do while Redis answers. The first asks, when that needs no
 * waiting, else NULL; in no transaction. The second is given the same ids, takes the answers, does what is
 * left as rg__load_rows does it, and frees the load. Who does not want it any more drops it. */
typedef struct rg__load rg__load;
rg__load *rg__load_ask(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n);
int rg__load_take(rg__load *l, const rg__ctx *ctx, const uint64_t *ids, size_t n, rg_block **out,
                  rg_err *err);
void rg__load_drop(rg__load *l, const rg__ctx *ctx);

/* What Redis knows of keys: a plain read; queued writes of an earlier epoch are adopted; with lease,
 * those that miss ask for one (rg__shared_get, rg__shared_adopt, rg__shared_lease). asked: where
 * rg__shared_ask has asked for the plain read already, taken over; or NULL. */
void rg__load_entries(rg__store *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                      const rg__key *keys, size_t n, bool lease, rg__redis *asked, rg__entry *entries);
/* The same for what a flush could not mark: such writes would be waited for in vain. */
int rg__adopt_changes(rg__store *s, const rg__ctx *ctx, const rg__changes *c, rg_err *err);
/* The same within the transaction that the context has for the type's pool (unit/inside.c). */
int rg__load_inside(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n,
                    int flags, rg_block **out, rg_err *err);

/* A growing list of rows (one reference each). */
typedef struct rg__rows {
    rg_block **items;
    size_t n, cap;
} rg__rows;
int rg__rows_add(void *rows, rg_block *row); /* an rg__row_fn; takes the reference */
void rg__rows_deinit(rg__rows *r);

/* Rows by the values of an index, ordered by id; key holds the index's columns. */
int rg__load_lookup(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint32_t index,
                    rg_builder *key, rg__lock lock, rg__rows *out, rg_err *err);

/* The same of up to 64 keys of a unique index, outside of any transaction; out: as many lists, empty. What
 * was found is the caller's, also after a failure. */
int rg__load_lookups(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint32_t index,
                     rg_builder *const *keys, size_t n, rg__rows *out, rg_err *err);

/* ---- loads in flight (unit/flight.c) ---- */
/* One load of a row at a time in this process: the second asker waits for the first one's answer,
 * but only when the row was not written since the first one started (same stamp), so that nobody
 * reads what was replaced before he asked. Only a process cache that hears of writes has such stamps. */
rg__flights *rg__flights_new(void);
void rg__flights_free(rg__flights *f);
typedef struct rg__flight rg__flight;
/* The flight of that key: *mine says whether the caller must load and land it. */
rg__flight *rg__flight_join(rg__flights *f, uint32_t space, uint64_t key, uint64_t stamp, bool *mine);
/* The leader's answer (row NULL: absent; ok false: the load failed, waiters load themselves). */
void rg__flight_land(rg__flights *f, rg__flight *flight, bool ok, rg_block *row);
/* A waiter's turn: true when an answer came (*row has a reference or is NULL). Drops the flight. */
bool rg__flight_wait(rg__flights *f, rg__flight *flight, int64_t deadline_ms, rg_block **row);

/* ---- ids (unit/ids.c) ---- */
/* Ascending. */
void rg__ids_sort(uint64_t *ids, size_t n);
/* 1 and *id, 0 when the block is used up, negative when the engine allots none for this type. */
int rg__ids_next(rg__store *s, const rg_type *t, uint64_t *id, rg_err *err);
int rg__ids_reserve(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t n, rg_err *err);

#endif
