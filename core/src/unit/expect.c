/* SPDX-License-Identifier: MIT */
/* A step of a flush whose rows have to hold expected values: all of them, or the flush fails. */
#include "base/alloc.h"
#include "unit/flush.h"

/* Some of a step's items: one statement's worth. */
typedef struct some {
    const rg__items *items;
    const uint32_t *numbers;
    size_t n;
    const rg_type *type;
    uint64_t ids[RG__CAS_ROWS];
    const void *rows[RG__CAS_ROWS], *expected[RG__CAS_ROWS];
    rg_block *found[RG__CAS_ROWS];
} some;

static rg__item *item_of(const some *s, size_t i) { return &s->items->items[s->numbers[i]]; }

static void take(some *s, const rg__items *items, const rg__step *step, size_t at) {
    *s = (some){.items = items, .numbers = step->items + at, .n = step->n - at, .type = step->type};
    if (s->n > RG__CAS_ROWS) s->n = RG__CAS_ROWS;
    for (size_t i = 0; i < s->n; i++) {
        const rg__item *it = item_of(s, i);
        s->ids[i] = it->id;
        s->rows[i] = it->after ? rg_block_data(it->after) : NULL;
        s->expected[i] = rg_block_data(it->terms->expected);
    }
}

static int find(void *arg, rg_block *row) {
    some *s = arg;
    for (size_t i = 0; i < s->n; i++)
        if (s->ids[i] == rg__row_id(s->type, rg_block_data(row)) && !s->found[i])
            s->found[i] = rg_block_ref(row);
    rg_block_unref(row);
    return RG_OK;
}

static int fail(rg__item *it, uint32_t number, rg_block *row, rg_err *err) {
    rg__terms *t = it->terms;
    rg__free(t->differs);
    t->differs = rg__calloc(it->type->n_columns, 1);
    if (!t->differs) return rg__fail_memory(err);
    t->outcome = row ? RG_OUTCOME_CONFLICT : RG_OUTCOME_MISSING;
    if (row) rg__cas_holds(it->type, t->expect, rg_block_data(t->expected), rg_block_data(row), t->differs);
    rg_block_unref(t->current);
    t->current = row ? rg_block_ref(row) : NULL;
    rg__fail(err, RG_ECONFLICT, "%s %llu %s since it was read", it->type->name,
             (unsigned long long)it->id, row ? "changed" : "vanished");
    if (err) err->item = (int32_t)number;
    return RG_ECONFLICT;
}

/* The first row that is not as expected, by a locking read: it is what the write has met. */
static int compare(some *s, const rg__ctx *ctx, rg__mysql *conn, rg__lock lock, uint64_t known,
                   rg_err *err) {
    int rc = rg__sql_select_ids(conn, ctx, s->type, s->ids, s->n, lock, find, s, err);
    for (size_t i = 0; i < s->n; i++) {
        rg__item *it = item_of(s, i);
        bool holds = known >> i & 1 ||
                     (s->found[i] && rg__cas_holds(s->type, it->terms->expect, s->expected[i],
                                                   rg_block_data(s->found[i]), NULL));
        if (rc >= 0 && !holds) rc = fail(it, s->numbers[i], s->found[i], err);
        rg_block_unref(s->found[i]);
    }
    return rc;
}

static int write(some *s, const rg__ctx *ctx, rg__mysql *conn, const rg__step *step, size_t *done,
                 rg_err *err) {
    const rg__terms *t = item_of(s, 0)->terms;
    const rg__cas cas = {.t = s->type, .write = step->write, .expect = t->expect,
                         .mask = step->write == RG_UPDATE ? step->mask : NULL};
    uint64_t marks = 0;
    if (step->write == RG_UPDATE) s->n = rg__sql_cas_fits(conn, &cas, s->rows, s->expected, s->n);
    *done = s->n;
    int rc = rg__sql_cas(conn, ctx, &cas, s->ids, s->rows, s->expected, s->n, &marks, err);
    uint64_t all = s->n == 64 ? UINT64_MAX : (UINT64_C(1) << s->n) - 1;
    if (rc < 0 || marks == all) return rc;
    rc = compare(s, ctx, conn, RG__LOCK_UPDATE, marks, err);
    if (rc < 0) return rc;
    rg__fail(err, RG_EDEADLOCK, "rows of %s were changed and changed back meanwhile", s->type->name);
    if (err) err->cls = RG_CLASS_RETRY;
    return RG_EDEADLOCK;
}

int rg__step_run_expecting(const rg__items *items, const rg__ctx *ctx, rg__mysql *conn,
                           const rg__step *step, rg_err *err) {
    int rc = RG_OK;
    for (size_t at = 0, done = 0; rc >= 0 && at < step->n; at += done) {
        some s;
        take(&s, items, step, at);
        done = s.n;
        if (item_of(&s, 0)->terms->check)
            rc = compare(&s, ctx, conn, RG__LOCK_SHARE, 0, err);
        else
            rc = write(&s, ctx, conn, step, &done, err);
    }
    return rc;
}
