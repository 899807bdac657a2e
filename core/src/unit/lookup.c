/* SPDX-License-Identifier: MIT */
/* Rows by the values of an index: ids from the cached lookup, rows through the tiers, and every row
 * checked against the values asked for. */
#include "unit/lookup.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "unit/outage.h"

static bool unique(const rg__lookup *l) { return (l->index->flags & RG_INDEX_UNIQUE) != 0; }

/* Lists may be kept in the process only when the Redis tier tells about their changes. */
static bool in_process(const rg__lookup *l) { return l->shared && l->type->cache_process; }

static int set_ids(rg__lookup *l, const uint8_t *p, size_t len) {
    rg__free(l->ids);
    l->n = len / 8;
    l->ids = rg__malloc(len + 8);
    if (!l->ids) return RG_ENO_MEMORY;
    memcpy(l->ids, p, len);
    return RG_OK;
}

static void keep_ids(rg__lookup *l) {
    if (!in_process(l) || l->pending) return;
    rg_block *b = rg__block_dup(l->ids, (uint32_t)(l->n * 8));
    if (!b) return;
    rg__process_put(l->store->process, l->key.space, l->key.hash, b,
                    l->n ? l->type->ttl_s : l->type->absent_ttl_s, l->stamp);
    rg_block_unref(b);
}

static bool from_process(rg__lookup *l) {
    if (!in_process(l)) return false;
    rg__store_cohere(l->store, l->type);
    l->stamp = rg__process_stamp(l->store->process, l->key.space, l->key.hash);
    rg_block *b = rg__process_get(l->store->process, l->key.space, l->key.hash);
    if (!b) return false;
    int rc = set_ids(l, rg_block_data(b), rg_block_len(b));
    rg_block_unref(b);
    return rc == RG_OK;
}

/* Values by other collations than bytes: only a found id may be believed (and is checked). */
static bool believable(const rg__lookup *l) {
    return l->index->exact || (unique(l) && l->entry.block && rg_block_len(l->entry.block) > 0);
}

/* Takes what Redis has said of the key. */
static bool from_redis(rg__lookup *l) {
    if (!l->shared) return false;
    l->pending = l->entry.pending || l->entry.found == RG__DELTAS;
    if (l->entry.found != RG__VALUE || !believable(l)) return false;
    if (set_ids(l, rg_block_data(l->entry.block), rg_block_len(l->entry.block)) < 0) return false;
    keep_ids(l);
    return true;
}

static bool ask_redis(rg__lookup *l) {
    if (l->shared) rg__load_entries(l->store, l->ctx, l->type, false, &l->key, 1, true, NULL, &l->entry);
    return from_redis(l);
}

static bool has_id(const rg__lookup *l, uint64_t id, size_t *at) {
    for (size_t i = 0; i < l->n; i++)
        if (l->ids[i] == id) {
            *at = i;
            return true;
        }
    return false;
}

/* What the queue will do to the list, applied to what MySQL holds: a set, so order is no matter. */
static int apply_deltas(rg__lookup *l) {
    uint64_t *ids = rg__reallocarray(l->ids, l->n + l->entry.n_deltas + 1, sizeof *ids);
    if (!ids) return RG_ENO_MEMORY;
    l->ids = ids;
    for (uint32_t i = 0; i < l->entry.n_deltas; i++) {
        size_t at = 0;
        bool has = has_id(l, l->entry.deltas[i].id, &at);
        if (l->entry.deltas[i].add && !has) l->ids[l->n++] = l->entry.deltas[i].id;
        if (!l->entry.deltas[i].add && has) l->ids[at] = l->ids[--l->n];
    }
    rg__ids_sort(l->ids, l->n);
    return RG_OK;
}

static int ids_of(rg__lookup *l, const rg__rows *rows) {
    rg__free(l->ids);
    l->ids = rg__malloc((rows->n + 1) * sizeof *l->ids);
    if (!l->ids) return RG_ENO_MEMORY;
    l->n = rows->n;
    for (size_t i = 0; i < rows->n; i++)
        l->ids[i] = rg__row_id(l->type, rg_block_data(rows->items[i]));
    return RG_OK;
}

static void fill(rg__lookup *l) {
    if (!l->shared || !l->entry.lease.held) return;
    rg__witness(l->store, l->ctx, l->type);
    if (!l->index->exact && l->n == 0) {
        rg__shared_unlease(l->shared, l->ctx, &l->key, 1, &l->entry);
        return;
    }
    rg_block *b = rg__block_dup(l->ids, (uint32_t)(l->n * 8));
    if (!b) return;
    rg__shared_fill(l->shared, l->ctx, l->type, false, &l->key, 1, &b, &l->entry,
                    l->entry.lease.heal);
    rg_block_unref(b);
    keep_ids(l);
}

typedef struct selection {
    rg__lookup *lookup;
    rg__rows *rows;
} selection;

static int select_with(rg__mysql *c, const rg__ctx *ctx, const selection *s, rg__lock lock,
                       rg_err *err) {
    const rg__lookup *l = s->lookup;
    rg__rows_deinit(s->rows);
    return rg__sql_select_index(c, ctx, l->type, l->index, rg_block_data(l->key_row), lock, 0,
                                rg__rows_add, s->rows, err);
}

static int select_here(rg__mysql *c, const rg__ctx *ctx, void *arg, rg_err *err) {
    selection *s = arg;
    rg__lookup *l = s->lookup;
    bool heal = l->entry.lease.held && l->entry.lease.heal;
    rg_err why = {0};
    int rc = select_with(c, ctx, s, heal ? RG__LOCK_TRY : l->lock, &why);
    if (rc == RG_EDEADLOCK && heal) { /* a transaction holds one: what is committed, for now */
        rg__shared_unlease(l->shared, l->ctx, &l->key, 1, &l->entry);
        l->entry.lease.held = false;
        l->entry.found = RG__BYPASS;
        return select_with(c, ctx, s, RG__LOCK_NONE, err);
    }
    if (rc < 0 && err) *err = why;
    return rc;
}

static int select_inside(const rg__lookup *l, selection *s, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__tx_use(l->tx, l->ctx, RG__TX_READS, &c, err);
    return rc < 0 ? rc : rg__tx_after(l->tx, select_here(c, l->ctx, s, err), err);
}

/* What may fill a cache comes from the primary. */
static int select_rows(rg__lookup *l, rg__rows *rows, rg_err *err) {
    selection s = {l, rows};
    if (l->given) {
        *rows = *l->given;
        *l->given = (rg__rows){0};
        l->given = NULL;
        return RG_OK;
    }
    if (l->tx) return select_inside(l, &s, err);
    return rg__mysql_read(rg__store_mysql(l->store, l->type), l->ctx, l->type, l->may_lag,
                          select_here, &s, err);
}

/* Does it stand for the row that was found? What nothing tells of as queued may have been made of a row that
 * was read long ago. */
static bool stands(const rg__lookup *l, const rg__entry *e) {
    rg__slice key = {l->encoded.p, l->encoded.len};
    if (l->type->cache_redis) return e->found == RG__VALUE || e->pending;
    if (!e->pending) return false;
    return l->pending || !e->block || rg__key_matches(l->type, l->index, rg_block_data(e->block), key);
}

/* Queued writes of rows that Redis does not cache otherwise show through their pending entries. */
static void overlay(rg__lookup *l, rg__rows *rows) {
    rg__shared *shared = rg__store_shared(l->store, l->type);
    rg__key *keys = rg__calloc(rows->n + 1, sizeof *keys);
    rg__entry *entries = rg__calloc(rows->n + 1, sizeof *entries);
    if (keys && entries && rows->n > 0) {
        for (size_t i = 0; i < rows->n; i++) rg__key_row(shared, l->type, l->ids[i], &keys[i]);
        rg__load_entries(l->store, l->ctx, l->type, true, keys, rows->n, false, NULL, entries);
        for (size_t i = 0; i < rows->n; i++) {
            bool told = entries[i].found != RG__BYPASS; /* void: only MySQL knows */
            if (told && stands(l, &entries[i])) {
                rg_block_unref(rows->items[i]);
                rows->items[i] = entries[i].block;
                entries[i].block = NULL;
            }
            rg__key_deinit(&keys[i]);
            rg__entry_deinit(&entries[i]);
        }
    }
    rg__free(keys);
    rg__free(entries);
}

/* Rows of the ids, in order; slots without a row stay NULL. */
static int load_ids(rg__lookup *l, rg__rows *rows, rg_err *err) {
    rows->items = rg__calloc(l->n + 1, sizeof *rows->items);
    if (!rows->items) return rg__fail_memory(err);
    rows->n = rows->cap = l->n;
    return rg__load_rows(l->store, l->ctx, l->type, l->ids, l->n, 0, rows->items, err);
}

/* Drops rows that are not there or do not have the values; how many were dropped. */
static size_t check(rg__lookup *l, rg__rows *rows) {
    rg__slice key = {l->encoded.p, l->encoded.len};
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        rg_block *row = rows->items[i];
        if (row && rg__key_matches(l->type, l->index, rg_block_data(row), key))
            rows->items[n++] = row;
        else
            rg_block_unref(row);
    }
    size_t dropped = rows->n - n;
    rows->n = n;
    return dropped;
}

/* What MySQL says may be newer than what the process cache has still to be told: nobody here is to read
 * the older one after the newer one. */
static void outdate(const rg__lookup *l, const rg__rows *rows) {
    for (size_t i = 0; l->type->cache_process && i < rows->n; i++) {
        if (!rows->items[i]) continue;
        const void *row = rg_block_data(rows->items[i]);
        uint64_t id = rg__row_id(l->type, row);
        rg_block *held = rg__process_get(l->store->process, l->type->space, id);
        bool same = held && rg_block_len(held) && rg__row_sum(rg_block_data(held)) == rg__row_sum(row);
        if (held && !same) rg__process_drop(l->store->process, l->type->space, id);
        rg_block_unref(held);
    }
}

/* Straight from MySQL; for cached types the row tiers may know newer (queued) values. */
static int from_mysql(rg__lookup *l, rg__rows *rows, rg_err *err) {
    int rc = select_rows(l, rows, err);
    if (rc < 0 || l->tx) return rc;
    if (ids_of(l, rows) < 0) return rg__fail_memory(err);
    fill(l);
    if (l->entry.found == RG__DELTAS) {
        rg__rows_deinit(rows);
        if (apply_deltas(l) < 0) return rg__fail_memory(err);
        rc = load_ids(l, rows, err);
        if (rc >= 0 && !l->type->cache_redis) overlay(l, rows);
        if (rc >= 0) check(l, rows);
    } else if (l->type->cache_redis ? rg__store_shared(l->store, l->type) && rg__trusted(l->store, l->type)
                                    : l->shared != NULL) {
        overlay(l, rows);
        if (l->index->exact) check(l, rows);
    }
    if (rc >= 0) outdate(l, rows);
    return rc;
}

bool rg__lookup_judge(rg__lookup *l, rg__rows *rows) {
    bool kept = l->type->cache_redis || l->type->cache_process; /* rows come with what is queued of them */
    if (l->shared && (l->pending ? !l->type->cache_redis : !kept)) overlay(l, rows);
    if (check(l, rows) == 0) return true;
    /* the list said more than the rows: it is being changed; MySQL decides */
    rg__count(l->ctx->metrics, RG__C_LOOKUP_MISMATCH, 1);
    if (l->pending) return true;
    rg__process_drop(l->store->process, l->key.space, l->key.hash);
    rg__rows_deinit(rows);
    return false;
}

void rg__lookup_fail(rg__lookup *l) {
    if (l->shared) rg__shared_unlease(l->shared, l->ctx, &l->key, 1, &l->entry);
}

int rg__lookup_finish(rg__lookup *l, rg__rows *rows, rg_err *err) {
    int rc = from_mysql(l, rows, err);
    if (rc < 0) rg__lookup_fail(l);
    return rc;
}

bool rg__lookup_process(rg__lookup *l) { return from_process(l); }
bool rg__lookup_redis(rg__lookup *l) { return from_redis(l); }

static int answer(rg__lookup *l, rg__rows *rows, rg_err *err) {
    if (from_process(l) || ask_redis(l)) {
        int rc = load_ids(l, rows, err);
        if (rc < 0 || rg__lookup_judge(l, rows)) return rc;
    }
    return rg__lookup_finish(l, rows, err);
}

void rg__lookup_deinit(rg__lookup *l) {
    rg__buf_deinit(&l->encoded);
    rg_block_unref(l->key_row);
    if (l->shared) rg__key_deinit(&l->key);
    rg__entry_deinit(&l->entry);
    rg__free(l->ids);
}

/* Until the transaction has begun, cached lists are read as outside; then only on its connection. */
static void enter(rg__lookup *l, const rg__ctx *outside) {
    l->tx = rg__tx_of(l->ctx, l->type->mysql_pool);
    if (!l->tx) return;
    bool cached = l->shared && !l->lock && !rg__tx_past_caches(l->tx, l->type, 0);
    if (cached && rg__tx_phase_of(l->tx) == RG__TX_IDLE) {
        l->tx = NULL;
        l->ctx = outside;
    } else {
        l->shared = NULL;
    }
}

int rg__lookup_init(rg__lookup *l, rg_builder *key, const rg__ctx *outside, rg_err *err) {
    const rg_type *t = l->type;
    bool has_null = false;
    int rc = rg__key_encode_builder(t, l->index, key, &l->encoded, &has_null, err);
    if (rc >= 0 && has_null && unique(l))
        rc = rg__fail(err, RG_EINVALID, "%s.%s: NULL is no unique value; search instead", t->name,
                      l->index->name);
    if (rc >= 0 && !(l->key_row = rg__builder_partial(key))) rc = rg__fail_memory(err);
    bool cached = rc >= 0 && rg__index_cached(l->index) && (l->index->exact || unique(l)) &&
                  rg__store_shared(l->store, t);
    l->may_lag = !cached;
    if (cached && rg__trust(l->store, l->ctx, t)) l->shared = rg__store_shared(l->store, t);
    enter(l, outside);
    if (l->shared)
        rg__key_lookup(l->shared, t, l->number, (rg__slice){l->encoded.p, l->encoded.len}, &l->key);
    return rc;
}

int rg__load_lookup(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint32_t index,
                    rg_builder *key, rg__lock lock, rg__rows *out, rg_err *err) {
    if (index >= t->n_indexes) return rg__fail(err, RG_EINVALID, "%s has no such index", t->name);
    rg__lookup l = {.store = s, .ctx = ctx, .type = t, .index = &t->indexes[index], .number = index,
                    .lock = lock};
    rg__ctx outside = *ctx;
    outside.txs = NULL;
    int rc = rg__lookup_init(&l, key, &outside, err);
    if (rc >= 0) rc = answer(&l, out, err);
    rg__lookup_deinit(&l);
    if (rc < 0) rg__err_about(err, "looking up", t->name);
    return rc < 0 ? rc : RG_OK;
}
