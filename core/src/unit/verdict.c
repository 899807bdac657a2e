/* SPDX-License-Identifier: MIT */
/* Rows of a chunk that were not written, or not for certain: why a row did not match, and what a lost
 * connection leaves. */
#include "base/alloc.h"
#include "unit/chunk.h"

/* ---- why a row did not match ---- */

/* Rows with queued writes are not in MySQL yet as the caches show them. */
static int find_pending(rg__chunk *k, rg_err *err) {
    rg__key keys[RG__CAS_ROWS];
    rg__entry entries[RG__CAS_ROWS];
    size_t at[RG__CAS_ROWS];
    size_t n = 0;
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    for (size_t i = 0; rg__chunk_shared(k) && i < k->n; i++) {
        if (rg__chunk_marked(k->marks, i)) continue;
        rg__key_row(shared, k->type, k->ids[i], &keys[n]);
        entries[n] = (rg__entry){0};
        at[n++] = i;
    }
    if (n == 0) return RG_OK;
    rg__shared_get(shared, k->e->ctx, k->type, true, keys, n, entries);
    for (size_t i = 0; i < n; i++) {
        if (entries[i].pending) k->pending |= UINT64_C(1) << at[i];
        rg__key_deinit(&keys[i]);
        rg__entry_deinit(&entries[i]);
    }
    if (!k->pending) return RG_OK;
    rg__fail(err, RG_EPENDING, "queued writes of the same rows are not applied yet");
    if (err) err->retriable = 1;
    return RG_EPENDING;
}

/* Items in the set move behind the others; how many others there are. */
static size_t put_behind(uint32_t *items, size_t n, uint64_t set) {
    uint32_t later[RG__CAS_ROWS] = {0};
    size_t some = 0, rest = 0;
    for (size_t i = 0; i < n; i++) {
        if (rg__chunk_marked(set, i)) later[rest++] = items[i];
        else items[some++] = items[i];
    }
    memcpy(items + some, later, rest * sizeof *items);
    return some;
}

size_t rg__chunk_part_pending(rg__each_run *e, uint32_t *items, size_t n) {
    rg__chunk k;
    rg__chunk_init(&k, e, items, n);
    find_pending(&k, NULL);
    return put_behind(items, n, k.pending);
}

static int note_free(void *arg, rg_block *row) {
    rg__chunk *k = arg;
    for (size_t i = 0; i < k->n; i++)
        if (k->ids[i] == rg__row_id(k->type, rg_block_data(row))) k->marks |= UINT64_C(1) << i;
    rg_block_unref(row);
    return RG_OK;
}

size_t rg__chunk_part_locked(rg__each_run *e, uint32_t *items, size_t n) {
    rg__chunk k;
    rg__chunk_init(&k, e, items, n);
    if (rg__each_connect(e, k.type, NULL) < 0) return n;
    int rc = rg__sql_select_ids(e->conn, e->ctx, k.type, k.ids, n, RG__LOCK_UPDATE | RG__LOCK_SKIP,
                                note_free, &k, NULL);
    return rc < 0 ? n : put_behind(items, n, ~k.marks);
}

typedef struct looking {
    rg__chunk *k;
    rg_block *rows[RG__CAS_ROWS];
} looking;

static int look(void *arg, rg_block *row) {
    looking *l = arg;
    for (size_t i = 0; i < l->k->n; i++)
        if (l->k->ids[i] == rg__row_id(l->k->type, rg_block_data(row)) && !l->rows[i])
            l->rows[i] = rg_block_ref(row);
    rg_block_unref(row);
    return RG_OK;
}

static int conflict(rg__item *it, rg_block *row, rg_err *err) {
    rg__terms *t = it->terms;
    uint32_t n = it->type->n_columns;
    rg__free(t->differs);
    t->differs = rg__calloc(n, 1);
    if (!t->differs) return rg__fail_memory(err);
    if (rg__cas_holds(it->type, t->expect, rg_block_data(t->expected), rg_block_data(row), t->differs))
        memcpy(t->differs, t->expect, n);
    rg_block_unref(t->current);
    t->current = rg_block_ref(row);
    t->outcome = RG_OUTCOME_CONFLICT;
    return RG_OK;
}

/* A bound that an expression would pass: the row is there and as expected. */
static int beyond_bounds(rg__item *it, rg_block *row, rg_err *err) {
    rg__terms *t = it->terms;
    rg__free(t->differs);
    t->differs = rg__calloc(it->type->n_columns, 1);
    if (!t->differs) return rg__fail_memory(err);
    for (size_t i = 0; i < t->n_exprs; i++)
        if (t->exprs[i].guard.len) t->differs[t->exprs[i].column] = 1;
    rg_block_unref(t->current);
    t->current = rg_block_ref(row);
    t->outcome = RG_OUTCOME_CONFLICT;
    return RG_OK;
}

static bool has_guard(const rg__terms *t) {
    for (size_t i = 0; i < t->n_exprs; i++)
        if (t->exprs[i].guard.len) return true;
    return false;
}

/* A row that is as expected after all has changed twice meanwhile: it is tried again. */
static int judge(rg__item *it, rg_block *row, bool last, rg_err *err) {
    rg__terms *t = it->terms;
    if (!row) {
        t->outcome = RG_OUTCOME_MISSING;
        return RG_OK;
    }
    bool holds = !t->expect || rg__cas_holds(it->type, t->expect, rg_block_data(t->expected),
                                             rg_block_data(row), NULL);
    if (!holds) return conflict(it, row, err);
    if (t->check) t->outcome = RG_OUTCOME_UNCHANGED;
    else if (has_guard(t)) return beyond_bounds(it, row, err);
    else if (last && t->expect) return conflict(it, row, err);
    else if (last) t->outcome = RG_OUTCOME_MISSING;
    return RG_OK;
}

int rg__chunk_explain(rg__chunk *k, bool last, rg_err *err) {
    uint64_t ids[RG__CAS_ROWS];
    looking l = {.k = k};
    size_t n = 0;
    int pending = find_pending(k, err);
    uint64_t known = k->marks | k->pending;
    for (size_t i = 0; i < k->n; i++)
        if (!rg__chunk_marked(known, i)) ids[n++] = k->ids[i];
    /* inside a transaction what the write met, not what was there when the transaction looked first */
    rg__lock lock = k->e->lent ? RG__LOCK_SHARE : RG__LOCK_NONE;
    int rc = n ? rg__sql_select_ids(k->e->conn, k->e->ctx, k->type, ids, n, lock, look, &l, err) : RG_OK;
    for (size_t i = 0; i < k->n; i++) {
        if (rc >= 0 && !rg__chunk_marked(known, i)) rc = judge(rg__chunk_item(k, i), l.rows[i], last, err);
        rg_block_unref(l.rows[i]);
    }
    return rc < 0 ? rc : pending;
}

/* ---- an unknown outcome ---- */

/* An id that the engine has allotted is nobody else's, and a version is passed once: these two tell
 * for certain. */
static bool may_settle(const rg__chunk *k) {
    if (k->write == RG_INSERT)
        return k->type->ids == RG_IDS_BLOCK || k->type->ids == RG_IDS_SNOWFLAKE;
    return k->type->version_column && k->cas.expect && k->cas.expect[k->type->version_column];
}

static bool settle_item(const rg__chunk *k, size_t i, const rg_block *row, const rg_err *fault) {
    const rg__item *it = rg__chunk_item(k, i);
    uint32_t v = k->type->version_column;
    if (k->write == RG_INSERT) {
        if (row) it->terms->outcome = RG_OUTCOME_APPLIED;
        return !row;
    }
    if (row && rg__row_column_eq(k->type, rg_block_data(row), k->expected[i], v)) return true;
    it->terms->outcome = RG_OUTCOME_UNKNOWN;
    rg__terms_blame(it->terms, fault, it->type->name);
    return false;
}

bool rg__chunk_settle(rg__each_run *e, const uint32_t *items, size_t n, unsigned long thread, const rg_err *fault) {
    rg__chunk k;
    looking l = {.k = &k};
    bool left = false;
    rg__chunk_init(&k, e, items, n);
    if (rg__each_thread(e) == thread) rg__each_let_go(e);
    if (!thread || !may_settle(&k)) return false;
    if (rg__mysql_kill(rg__store_mysql(e->store, k.type), e->ctx, thread, NULL) < 0) return false;
    if (rg__each_connect(e, k.type, NULL) < 0) return false;
    int rc = rg__sql_select_ids(e->conn, e->ctx, k.type, k.ids, n, RG__LOCK_SHARE, look, &l, NULL);
    for (size_t i = 0; i < n; i++) {
        if (rc >= 0) left |= settle_item(&k, i, l.rows[i], fault);
        rg_block_unref(l.rows[i]);
    }
    return left || rc >= 0;
}
