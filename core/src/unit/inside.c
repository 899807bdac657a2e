/* SPDX-License-Identifier: MIT */
/* Reading inside a transaction: from the caches what it has not touched, the rest on its connection.
 * Nothing is filled from there: what it sees may be its own, or older than what is committed. */
#include "unit/load.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "unit/outage.h"

/* One place of the answer. */
typedef struct want {
    uint64_t id;
    size_t at; /* in `out` */
    bool done;
} want;

typedef struct inside {
    rg__store *store;
    const rg__ctx *ctx;
    rg__tx *tx;
    const rg_type *type;
    want *wants; /* by id */
    size_t n;
    rg_block **out;
} inside;

static int by_id(const void *a, const void *b) {
    const want *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Takes the reference. */
static void answer(inside *l, size_t i, rg_block *row) {
    l->out[l->wants[i].at] = row;
    l->wants[i].done = true;
}

static bool may_ask(const inside *l, size_t i) {
    return !l->wants[i].done && !rg__tx_past_caches(l->tx, l->type, l->wants[i].id);
}

/* ---- before it has begun: as outside ---- */

static int read_outside(inside *l, rg_err *err) {
    rg__ctx ctx = *l->ctx;
    ctx.txs = NULL;
    uint64_t *ids = rg__reallocarray(NULL, l->n, sizeof *ids);
    rg_block **rows = rg__calloc(l->n, sizeof(rg_block *));
    size_t n = 0;
    for (size_t i = 0; ids && i < l->n; i++)
        if (may_ask(l, i)) ids[n++] = l->wants[i].id;
    int rc = ids && rows ? rg__load_rows(l->store, &ctx, l->type, ids, n, 0, rows, err)
                         : rg__fail_memory(err);
    for (size_t i = 0, k = 0; rc >= 0 && i < l->n; i++)
        if (may_ask(l, i)) answer(l, i, rows[k++]);
    rg__free(ids);
    rg__free(rows);
    return rc;
}

/* ---- once it has: what the caches have ---- */

static void ask_process(inside *l) {
    for (size_t i = 0; l->type->cache_process && i < l->n; i++) {
        rg_block *row = NULL;
        if (may_ask(l, i) &&
            rg__load_peek(l->store, l->ctx, l->type, l->wants[i].id, &row) != RG_GET_MISS)
            answer(l, i, row);
    }
}

static void ask_redis(inside *l, rg__shared *shared) {
    rg__key *keys = rg__calloc(l->n, sizeof *keys);
    rg__entry *entries = rg__calloc(l->n, sizeof *entries);
    size_t *at = rg__calloc(l->n, sizeof *at);
    size_t n = 0;
    for (size_t i = 0; keys && entries && at && i < l->n; i++) {
        if (!may_ask(l, i)) continue;
        at[n] = i;
        rg__key_row(shared, l->type, l->wants[i].id, &keys[n++]);
    }
    if (n) rg__shared_get(shared, l->ctx, l->type, true, keys, n, entries);
    for (size_t i = 0; i < n; i++) {
        if (entries[i].found == RG__VALUE || entries[i].found == RG__ABSENT) {
            answer(l, at[i], entries[i].block);
            entries[i].block = NULL;
        }
        rg__key_deinit(&keys[i]);
        rg__entry_deinit(&entries[i]);
    }
    rg__free(keys);
    rg__free(entries);
    rg__free(at);
}

/* ---- MySQL ---- */

static int take_row(void *arg, rg_block *row) {
    inside *l = arg;
    const want key = {.id = rg__row_id(l->type, rg_block_data(row))};
    const want *found = bsearch(&key, l->wants, l->n, sizeof *l->wants, by_id);
    size_t i = found ? (size_t)(found - l->wants) : l->n;
    while (i > 0 && i < l->n && l->wants[i - 1].id == key.id) i--;
    for (; i < l->n && l->wants[i].id == key.id; i++)
        if (!l->wants[i].done) answer(l, i, rg_block_ref(row));
    rg_block_unref(row);
    return RG_OK;
}

static int ask_mysql(inside *l, int flags, rg_err *err) {
    uint64_t *ids = rg__reallocarray(NULL, l->n, sizeof *ids);
    rg__lock lock = (rg__lock)(flags / RG__LOAD_LOCK);
    rg__mysql *c = NULL;
    size_t n = 0;
    for (size_t i = 0; ids && i < l->n; i++)
        if (!l->wants[i].done && (n == 0 || ids[n - 1] != l->wants[i].id)) ids[n++] = l->wants[i].id;
    int rc = ids ? RG_OK : rg__fail_memory(err);
    if (rc >= 0 && n) rc = rg__tx_use(l->tx, l->ctx, RG__TX_READS, &c, err);
    if (rc >= 0 && n) {
        rc = rg__sql_select_ids(c, l->ctx, l->type, ids, n, lock, take_row, l, err);
        rc = rg__tx_after(l->tx, rc, err);
    }
    rg__free(ids);
    return rc;
}

/* The suspended transaction would have to end first, and it waits for this one. */
static int refuse_own_locks(const inside *l, rg__lock lock, rg_err *err) {
    if (lock & (RG__LOCK_NOWAIT | RG__LOCK_SKIP)) return RG_OK;
    for (size_t i = 0; i < l->n; i++)
        if (rg__tx_suspended_wrote(l->ctx, l->type, l->wants[i].id))
            return rg__fail(err, RG_ESELF_DEADLOCK,
                            "%s %llu was written by the transaction that is suspended for this one",
                            l->type->name, (unsigned long long)l->wants[i].id);
    return RG_OK;
}

static int read_all(inside *l, int flags, rg_err *err) {
    bool asks = l->type->cache_redis || l->type->cache_process; /* of the latter it knows what is queued */
    rg__shared *shared = asks ? rg__store_shared(l->store, l->type) : NULL;
    int rc = RG_OK;
    if (flags >= RG__LOAD_LOCK) rc = refuse_own_locks(l, (rg__lock)(flags / RG__LOAD_LOCK), err);
    if (rc < 0) return rc;
    if (flags == 0 && (l->type->cache_process || shared)) {
        if (rg__tx_phase_of(l->tx) == RG__TX_IDLE) {
            rc = read_outside(l, err);
        } else if (rg__trusted(l->store, l->type)) {
            ask_process(l);
            if (shared) ask_redis(l, shared);
        }
    }
    return rc < 0 ? rc : ask_mysql(l, flags, err);
}

int rg__load_inside(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n,
                    int flags, rg_block **out, rg_err *err) {
    inside l = {.store = s, .ctx = ctx, .tx = rg__tx_of(ctx, t->mysql_pool), .type = t, .n = n, .out = out};
    l.wants = rg__reallocarray(NULL, n, sizeof *l.wants);
    if (!l.wants) return rg__fail_memory(err);
    for (size_t i = 0; i < n; i++) l.wants[i] = (want){.id = ids[i], .at = i};
    qsort(l.wants, n, sizeof *l.wants, by_id);
    int rc = read_all(&l, flags, err);
    for (size_t i = 0; rc < 0 && i < n; i++) {
        rg_block_unref(out[i]);
        out[i] = NULL;
    }
    rg__free(l.wants);
    return rc;
}
