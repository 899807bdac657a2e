/* SPDX-License-Identifier: MIT */
/* One step of a plan: its rows, its statements, and which row was not as it was read. */
#include "base/alloc.h"
#include "unit/flush.h"

/* A step under way. */
typedef struct run {
    const rg__items *items;
    const rg__ctx *ctx;
    rg__mysql *conn;
    const rg__step *step;
} run;

static rg__item *item_of(const run *r, size_t i) { return &r->items->items[r->step->items[i]]; }

static const void **rows_of(const run *r) {
    const void **rows = rg__reallocarray(NULL, r->step->n, sizeof *rows);
    for (size_t i = 0; rows && i < r->step->n; i++) rows[i] = rg_block_data(item_of(r, i)->after);
    return rows;
}

static uint64_t *ids_of(const run *r) {
    uint64_t *ids = rg__reallocarray(NULL, r->step->n, sizeof *ids);
    for (size_t i = 0; ids && i < r->step->n; i++) ids[i] = item_of(r, i)->id;
    return ids;
}

/* The version column's value as it was read, for each item; NULL when there is none. */
static int expected_of(const run *r, uint64_t **expected) {
    const rg_type *t = r->step->type;
    *expected = NULL;
    if (!t->version_column) return RG_OK;
    *expected = rg__reallocarray(NULL, r->step->n, sizeof **expected);
    if (!*expected) return RG_ENO_MEMORY;
    for (size_t i = 0; i < r->step->n; i++)
        (*expected)[i] = rg__row_version(t, rg_block_data(item_of(r, i)->before));
    return RG_OK;
}

/* ---- inserts ---- */

rg_block *rg__row_with_id(const rg_type *t, const rg_block *row, uint64_t id, rg_err *err) {
    rg_builder *b = rg_builder_new(t, err);
    if (!b) return NULL;
    int rc = rg_builder_load(b, rg_block_data(row), rg_block_len(row), err);
    if (rc >= 0) rc = rg_builder_u64(b, 0, id, err);
    rg_block *with = rc >= 0 ? rg__builder_finish(b, false, 0, err) : NULL;
    rg_builder_free(b);
    return with;
}

static int adopt_ids(const run *r, const uint64_t *ids, rg_err *err) {
    for (size_t i = 0; i < r->step->n; i++) {
        rg__item *it = item_of(r, i);
        if (it->id) continue;
        rg_block *row = rg__row_with_id(r->step->type, it->after, ids[i], err);
        if (!row) return RG_ENO_MEMORY;
        rg_block_unref(it->after);
        it->after = row;
        it->id = ids[i];
    }
    return RG_OK;
}

static int run_insert(const run *r, rg_err *err) {
    const rg__step *s = r->step;
    const void **rows = rows_of(r);
    bool database = s->type->ids == RG_IDS_DATABASE;
    uint64_t *ids = database ? rg__calloc(s->n, sizeof *ids) : NULL;
    int rc = rows && (!database || ids)
                 ? rg__sql_insert(r->conn, r->ctx, s->type, rows, s->n, ids, err)
                 : rg__fail_memory(err);
    if (rc >= 0 && database) rc = adopt_ids(r, ids, err);
    rg__free(rows);
    rg__free(ids);
    return rc;
}

/* ---- rows that are not as they were read ---- */

typedef struct seen {
    const run *run;
    bool *there; /* by item of the step: the row is there, in the version that was read */
} seen;

static int see(void *arg, rg_block *row) {
    seen *s = arg;
    const rg_type *t = s->run->step->type;
    const void *data = rg_block_data(row);
    for (size_t i = 0; i < s->run->step->n; i++) {
        const rg__item *it = item_of(s->run, i);
        if (it->id != rg__row_id(t, data)) continue;
        uint32_t v = t->version_column;
        s->there[i] = !v || rg__row_column_eq(t, data, rg_block_data(it->before), v);
    }
    rg_block_unref(row);
    return RG_OK;
}

/* The first item that met no row, or another version: found by reading again after the rollback,
 * for the message only. SIZE_MAX: none any more. */
static size_t find_culprit(const run *r) {
    const rg__step *s = r->step;
    if (s->n == 1) return 0;
    uint64_t *ids = ids_of(r);
    bool *there = rg__calloc(s->n, sizeof *there);
    size_t culprit = SIZE_MAX;
    if (ids && there) {
        seen arg = {r, there};
        if (!rg__tx_of(r->ctx, s->type->mysql_pool)) rg__mysql_rollback(r->conn, r->ctx);
        if (rg__sql_select_ids(r->conn, r->ctx, s->type, ids, s->n, RG__LOCK_NONE, see, &arg,
                               NULL) >= 0)
            for (size_t i = s->n; i-- > 0;)
                if (!there[i]) culprit = i;
    }
    rg__free(ids);
    rg__free(there);
    return culprit;
}

static int conflict(const run *r, rg_err *err) {
    const rg_type *t = r->step->type;
    size_t culprit = find_culprit(r);
    const char *what = t->version_column ? "changed or vanished" : "vanished";
    if (culprit == SIZE_MAX)
        return rg__fail(err, RG_ECONFLICT, "a row of %s %s since it was read", t->name, what);
    int rc = rg__fail(err, RG_ECONFLICT, "%s %llu %s since it was read", t->name,
                      (unsigned long long)item_of(r, culprit)->id, what);
    err->item = (int32_t)r->step->items[culprit];
    return rc;
}

/* ---- updates and deletes ---- */

static int run_update(const run *r, rg_err *err) {
    const rg__step *s = r->step;
    const void **rows = rows_of(r);
    uint64_t *expected = NULL;
    uint64_t matched = 0;
    int rc = rows && expected_of(r, &expected) >= 0
                 ? rg__sql_update(r->conn, r->ctx, s->type, s->mask, rows, expected, s->n, &matched,
                                  err)
                 : rg__fail_memory(err);
    rg__free(rows);
    rg__free(expected);
    return rc >= 0 && matched < s->n ? conflict(r, err) : rc;
}

static int run_delete(const run *r, rg_err *err) {
    const rg__step *s = r->step;
    uint64_t *ids = ids_of(r);
    uint64_t *expected = NULL;
    uint64_t matched = 0;
    int rc = ids && expected_of(r, &expected) >= 0
                 ? rg__sql_delete(r->conn, r->ctx, s->type, ids, expected, s->n, &matched, err)
                 : rg__fail_memory(err);
    rg__free(ids);
    bool checked = expected != NULL;
    rg__free(expected);
    return rc >= 0 && checked && matched < s->n ? conflict(r, err) : rc;
}

int rg__step_run(const rg__items *items, const rg__ctx *ctx, rg__mysql *conn, const rg__step *step,
                 rg_err *err) {
    const run r = {items, ctx, conn, step};
    bool expecting = step->write != RG_INSERT && items->items[step->items[0]].terms;
    int rc = expecting                  ? rg__step_run_expecting(items, ctx, conn, step, err)
             : step->write == RG_INSERT ? run_insert(&r, err)
             : step->write == RG_UPDATE ? run_update(&r, err)
                                        : run_delete(&r, err);
    if (rc >= 0) return rc;
    rg__err_set_entity(err, step->type->name);
    if (err && err->item < 0 && step->n == 1) err->item = (int32_t)step->items[0];
    return rc;
}

bool rg__step_is_atomic(const rg__items *items, const rg__mysql *conn, const rg__step *step) {
    const rg__terms *terms = items->items[step->items[0]].terms;
    if (terms && terms->check) return false;
    if (step->write == RG_UPDATE || terms) return step->n == 1;
    if (step->write == RG_DELETE) return rg__sql_delete_statements(step->n) == 1;
    const run r = {.items = items, .step = step};
    const void **rows = step->n > 1 ? rows_of(&r) : NULL;
    bool atomic = step->n == 1 ||
                  (rows && rg__sql_insert_statements(conn, step->type, rows, step->n) == 1);
    rg__free(rows);
    return atomic;
}
