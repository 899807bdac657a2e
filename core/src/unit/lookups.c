/* SPDX-License-Identifier: MIT */
/* Several lookups of one unique index: one question to Redis, one statement. */
#include "base/alloc.h"
#include "unit/lookup.h"

enum { MOST = 64 };

/* Those of one call; MySQL is asked for those that are still open. */
typedef struct lookups {
    rg__lookup all[MOST];
    size_t n;
    bool done[MOST];
    rg__rows given[MOST]; /* what the statement has found of each */
    rg__rows *out;
    rg__rows rows;        /* of the statement */
} lookups;

static const rg__lookup *first_of(const lookups *g) { return &g->all[0]; }

/* Its share of the rows; the references are its own then. */
static int take_rows(rg__rows *out, rg_block **from, size_t n, rg_err *err) {
    out->items = rg__calloc(n + 1, sizeof *out->items);
    if (!out->items) return rg__fail_memory(err);
    out->n = out->cap = n;
    for (size_t i = 0; i < n; i++) {
        out->items[i] = from[i];
        from[i] = NULL;
    }
    return RG_OK;
}

/* Rows of the ids that a cache has given for some, in one load. */
static int load_listed(lookups *g, const bool *listed, rg_err *err) {
    const rg__lookup *l = first_of(g);
    size_t n = 0;
    size_t at = 0;
    for (size_t i = 0; i < g->n; i++) n += listed[i] ? g->all[i].n : 0;
    uint64_t *ids = rg__reallocarray(NULL, n + 1, sizeof *ids);
    rg_block **rows = rg__calloc(n + 1, sizeof *rows);
    for (size_t i = 0; ids && rows && i < g->n; i++)
        for (size_t k = 0; listed[i] && k < g->all[i].n; k++) ids[at++] = g->all[i].ids[k];
    int rc = ids && rows ? rg__load_rows(l->store, l->ctx, l->type, ids, n, 0, rows, err)
                         : rg__fail_memory(err);
    at = 0;
    for (size_t i = 0; rc >= 0 && i < g->n; i++) {
        if (!listed[i]) continue;
        rc = take_rows(&g->out[i], rows + at, g->all[i].n, err);
        at += g->all[i].n;
        g->done[i] = rc >= 0 && rg__lookup_judge(&g->all[i], &g->out[i]);
    }
    for (size_t i = 0; rows && i < n; i++) rg_block_unref(rows[i]);
    rg__free(ids);
    rg__free(rows);
    return rc;
}

static int ask_process(lookups *g, rg_err *err) {
    bool listed[MOST] = {false};
    size_t n = 0;
    for (size_t i = 0; i < g->n; i++) n += listed[i] = rg__lookup_process(&g->all[i]);
    return n ? load_listed(g, listed, err) : RG_OK;
}

/* Keys stay their lookups' own. */
static int ask_redis(lookups *g, rg_err *err) {
    rg__key keys[MOST];
    rg__entry entries[MOST] = {0};
    size_t at[MOST];
    bool listed[MOST] = {false};
    size_t n = 0;
    size_t n_listed = 0;
    for (size_t i = 0; i < g->n; i++)
        if (!g->done[i] && g->all[i].shared) {
            keys[n] = g->all[i].key;
            at[n++] = i;
        }
    const rg__lookup *l = first_of(g);
    if (n) rg__load_entries(l->store, l->ctx, l->type, false, keys, n, true, NULL, entries);
    for (size_t k = 0; k < n; k++) {
        g->all[at[k]].entry = entries[k];
        n_listed += listed[at[k]] = rg__lookup_redis(&g->all[at[k]]);
    }
    return n_listed ? load_listed(g, listed, err) : RG_OK;
}

/* Only a locking read may fill it. */
static bool heals(const lookups *g, size_t i) {
    const rg__lease *lease = &g->all[i].entry.lease;
    return lease->held && lease->heal;
}

static int select_some(lookups *g, rg__mysql *c, const rg__ctx *ctx, bool healing, rg__lock lock,
                       rg_err *err) {
    const void *keys[MOST];
    size_t n = 0;
    const rg__lookup *l = first_of(g);
    for (size_t i = 0; i < g->n; i++)
        if (!g->done[i] && heals(g, i) == healing) keys[n++] = rg_block_data(g->all[i].key_row);
    if (n == 0) return RG_OK;
    return rg__sql_select_keys(c, ctx, l->type, l->index, keys, n, lock, rg__rows_add, &g->rows, err);
}

static void give_up_healing(lookups *g) {
    for (size_t i = 0; i < g->n; i++) {
        if (g->done[i] || !heals(g, i)) continue;
        rg__lookup_fail(&g->all[i]);
        g->all[i].entry.lease.held = false;
        g->all[i].entry.found = RG__BYPASS;
    }
}

/* When a transaction holds one of those that are to be healed, what is committed answers at once. */
static int select_here(rg__mysql *c, const rg__ctx *ctx, void *arg, rg_err *err) {
    lookups *g = arg;
    rg_err why = {0};
    rg__rows_deinit(&g->rows); /* of a replica that has failed in the middle */
    int rc = select_some(g, c, ctx, true, RG__LOCK_TRY, &why);
    if (rc == RG_EDEADLOCK) {
        rg__rows_deinit(&g->rows);
        give_up_healing(g);
        rc = RG_OK;
    }
    if (rc < 0 && err) *err = why;
    return rc < 0 ? rc : select_some(g, c, ctx, false, RG__LOCK_NONE, err);
}

/* Whose rows they are tell the bytes of their values. By other collations than bytes a row may be one's
 * whose values differ from it: who finds none among them asks alone. */
static int hand_out(lookups *g, size_t i, rg_err *err) {
    rg__lookup *l = &g->all[i];
    rg__slice key = {l->encoded.p, l->encoded.len};
    for (size_t k = 0; k < g->rows.n; k++) {
        rg_block *row = g->rows.items[k];
        if (!rg__key_matches(l->type, l->index, rg_block_data(row), key)) continue;
        if (rg__rows_add(&g->given[i], rg_block_ref(row)) < 0) return rg__fail_memory(err);
    }
    if (l->index->exact || g->given[i].n) l->given = &g->given[i];
    return RG_OK;
}

static int ask_mysql(lookups *g, rg_err *err) {
    const rg__lookup *l = first_of(g);
    size_t n = 0;
    int rc = RG_OK;
    for (size_t i = 0; i < g->n; i++) n += !g->done[i];
    if (n > 1)
        rc = rg__mysql_read(rg__store_mysql(l->store, l->type), l->ctx, l->type, l->may_lag, select_here,
                            g, err);
    for (size_t i = 0; n > 1 && rc >= 0 && i < g->n; i++)
        if (!g->done[i]) rc = hand_out(g, i, err);
    for (size_t i = 0; rc >= 0 && i < g->n; i++) {
        if (g->done[i]) continue;
        rc = rg__lookup_finish(&g->all[i], &g->out[i], err);
        g->done[i] = true;
    }
    return rc;
}

static void deinit(lookups *g, int rc) {
    for (size_t i = 0; i < g->n; i++) {
        if (rc < 0 && !g->done[i]) rg__lookup_fail(&g->all[i]);
        rg__lookup_deinit(&g->all[i]);
        rg__rows_deinit(&g->given[i]);
    }
    rg__rows_deinit(&g->rows);
    rg__free(g);
}

int rg__load_lookups(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint32_t index,
                     rg_builder *const *keys, size_t n, rg__rows *out, rg_err *err) {
    if (n > MOST) return rg__fail(err, RG_ELIMIT, "at most %d lookups go together", MOST);
    lookups *g = rg__calloc(1, sizeof *g);
    int rc = g ? RG_OK : rg__fail_memory(err);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        g->all[i] = (rg__lookup){.store = s, .ctx = ctx, .type = t, .index = &t->indexes[index],
                                 .number = index};
        g->n = i + 1;
        rc = rg__lookup_init(&g->all[i], keys[i], ctx, err);
    }
    if (!g) return rc;
    g->out = out;
    if (rc >= 0) rc = ask_process(g, err);
    if (rc >= 0) rc = ask_redis(g, err);
    if (rc >= 0) rc = ask_mysql(g, err);
    deinit(g, rc);
    if (rc < 0) rg__err_about(err, "looking up", t->name);
    return rc < 0 ? rc : RG_OK;
}
