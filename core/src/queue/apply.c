/* SPDX-License-Identifier: MIT */
/* Operations to statements: waves of inserts, updates and deletes, each in as few as possible. */
#include "queue/apply.h"

#include "base/alloc.h"
#include "base/err.h"
#include "mysql/cas.h"

#include <stdlib.h>

/* A row that the wave has touched; the table is open-addressed, a new generation empties it. */
typedef struct touched {
    const rg_type *type;
    uint64_t id;
    uint32_t generation;
    int write; /* the last one */
} touched;

/* One task of the wave. */
typedef struct member {
    rg__qdecoded *op;
    uint32_t order;
    bool grouped; /* updates: may share a statement with others, in any order */
} member;

typedef struct wave {
    rg__mysql *c;
    const rg__ctx *ctx;
    member *members; /* inserts from the front; updates and deletes behind them, see kinds */
    member *kinds[RG_DELETE + 1];
    size_t n[RG_DELETE + 1];
    bool bound;      /* holds a delete, or an update that an insert may not overtake */
    touched *rows;
    size_t mask;     /* of the table */
    uint32_t generation;
    const void **pointers; /* scratch of statements */
    uint64_t *ids, *expected;
} wave;

static int wave_init(wave *w, rg__mysql *c, const rg__ctx *ctx, size_t n) {
    size_t slots = 16;
    while (slots < 2 * n) slots *= 2;
    *w = (wave){.c = c, .ctx = ctx, .mask = slots - 1, .generation = 1};
    w->members = rg__reallocarray(NULL, 3 * n + 1, sizeof *w->members);
    w->rows = rg__calloc(slots, sizeof *w->rows);
    w->pointers = rg__reallocarray(NULL, n + 1, sizeof *w->pointers);
    w->ids = rg__reallocarray(NULL, 2 * n + 1, sizeof *w->ids);
    if (!w->members || !w->rows || !w->pointers || !w->ids) return RG_ENO_MEMORY;
    w->expected = w->ids + n;
    for (int k = RG_INSERT; k <= RG_DELETE; k++) w->kinds[k] = w->members + (size_t)(k - 1) * n;
    return RG_OK;
}

static void wave_deinit(wave *w) {
    rg__free(w->members);
    rg__free(w->rows);
    rg__free(w->pointers);
    rg__free(w->ids);
}

/* ---- who may join ---- */

static touched *find_row(const wave *w, const rg_type *t, uint64_t id) {
    uint64_t key = id + t->number * UINT64_C(0x9E3779B97F4A7C15);
    size_t at = (size_t)(key * UINT64_C(0xBF58476D1CE4E5B9) >> 20);
    for (;; at++) {
        touched *r = &w->rows[at & w->mask];
        if (r->generation != w->generation || (r->type == t && r->id == id)) return r;
    }
}

/* Touches no unique value: whether it comes before or after another row's update is the same. */
static bool commutes(const rg_type *t, const uint8_t *mask) {
    for (uint32_t i = 0; i < t->n_indexes; i++) {
        const rg__index *x = &t->indexes[i];
        for (uint32_t k = 0; (x->flags & RG_INDEX_UNIQUE) && k < x->n_columns; k++)
            if (mask[x->columns[k]]) return false;
    }
    return true;
}

static bool refers(const rg_type *t, const uint8_t *mask) {
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (mask[i] && t->columns[i].kind == RG_REF) return true;
    return false;
}

/* Neither a unique value nor a reference changes: inserts and deletes of other rows may pass by. */
static bool is_free(const rg__qdecoded *op) {
    return commutes(op->type, op->mask) && !refers(op->type, op->mask);
}

/* Each row is written at most once a kind, and kinds of one row keep their order. An insert comes
 * before everything else of the wave, so it must not need what that does: no delete (which may free
 * a value or cascade) and only free updates so far. An update that is not free must not come before
 * a delete. */
static bool joins(const wave *w, const rg__qdecoded *op) {
    const touched *row = find_row(w, op->type, op->id);
    if (row->generation == w->generation && row->write >= op->write) return false;
    if (op->write == RG_INSERT) return !w->bound;
    return op->write == RG_DELETE || w->n[RG_DELETE] == 0 || is_free(op);
}

static void join(wave *w, rg__qdecoded *op, uint32_t order) {
    *find_row(w, op->type, op->id) = (touched){op->type, op->id, w->generation, op->write};
    bool update = op->write == RG_UPDATE;
    w->kinds[op->write][w->n[op->write]++] =
        (member){op, order, update && commutes(op->type, op->mask)};
    w->bound |= op->write == RG_DELETE || (update && !is_free(op));
}

/* ---- order within a kind ---- */

static int sign(int64_t a, int64_t b) { return (a > b) - (a < b); }

/* Types on one cycle of foreign keys are taken as one: there the order of the queue stands. */
static int compare_types(const rg_type *a, const rg_type *b) {
    int d = sign(a->rank, b->rank);
    return d ? d : sign(a->cycle, b->cycle);
}

/* Those that compare the same columns go together. */
static int compare_expectations(const rg__qdecoded *a, const rg__qdecoded *b) {
    int d = sign(a->has_expected, b->has_expected);
    if (d == 0) d = sign(a->expect != NULL, b->expect != NULL);
    if (d == 0 && a->expect) d = memcmp(a->expect, b->expect, a->type->n_columns);
    return d;
}

static int compare_ids(const rg__qdecoded *a, const rg__qdecoded *b) {
    return (a->id > b->id) - (a->id < b->id);
}

static int compare_inserts(const void *p, const void *q) {
    const member *a = p, *b = q;
    int d = compare_types(a->op->type, b->op->type);
    return d ? d : sign(a->order, b->order);
}

/* Those that keep their order come first; groups are sorted by id, which spares deadlocks. */
static int compare_updates(const void *p, const void *q) {
    const member *a = p, *b = q;
    int d = sign(a->grouped, b->grouped);
    if (d == 0 && !a->grouped) return sign(a->order, b->order);
    if (d == 0) d = compare_types(a->op->type, b->op->type);
    if (d == 0) d = sign(a->op->type->number, b->op->type->number);
    if (d == 0) d = memcmp(a->op->mask, b->op->mask, a->op->type->n_columns);
    if (d == 0) d = compare_expectations(a->op, b->op);
    return d ? d : compare_ids(a->op, b->op);
}

static int compare_deletes(const void *p, const void *q) {
    const member *a = p, *b = q;
    int d = compare_types(b->op->type, a->op->type);
    if (d == 0 && a->op->type->cyclic) return sign(a->order, b->order);
    if (d == 0) d = compare_expectations(a->op, b->op);
    return d ? d : compare_ids(a->op, b->op);
}

static bool same_statement(const member *a, const member *b) {
    const rg__qdecoded *x = a->op, *y = b->op;
    if (x->type != y->type || (x->write == RG_DELETE && x->type->cyclic)) return false;
    if (x->write != RG_INSERT && compare_expectations(x, y) != 0) return false;
    if (x->write != RG_UPDATE) return true;
    return a->grouped && b->grouped && memcmp(x->mask, y->mask, x->type->n_columns) == 0;
}

/* ---- statements ---- */

static int fewer(const rg_type *t, rg_err *err) {
    return rg__fail(err, RG_ECONFLICT, "rows of %s changed or vanished", t->name);
}

static bool is_empty(const rg__qdecoded *op) {
    return !memchr(op->mask, 1, op->type->n_columns);
}

static int take_current(void *arg, rg_block *row) {
    rg__qdecoded *op = arg;
    rg_block_unref(op->current);
    op->current = row;
    return RG_OK;
}

static bool as_expected(const rg__qdecoded *op) {
    return op->current && rg__cas_holds(op->type, op->expect, op->expected_row->data,
                                        op->current->data, NULL);
}

/* Nothing is written: the row is compared only. */
static int compare_one(rg__mysql *c, const rg__ctx *ctx, rg__qdecoded *op, rg_err *err) {
    int rc = rg__sql_select_ids(c, ctx, op->type, &op->id, 1, RG__LOCK_UPDATE, take_current, op, err);
    return rc >= 0 && !as_expected(op) ? fewer(op->type, err) : rc;
}

/* Rows that have to hold expected values; all of them, or the batch is applied one by one. */
static int run_expecting(wave *w, const member *m, size_t n, rg_err *err) {
    rg__qdecoded *first = m->op;
    const rg__cas cas = {.t = first->type, .write = first->write, .expect = first->expect,
                         .mask = first->write == RG_UPDATE ? first->mask : NULL};
    const void *expected[RG__CAS_ROWS];
    int rc = RG_OK;
    if (first->write == RG_UPDATE && is_empty(first)) {
        for (size_t i = 0; rc >= 0 && i < n; i++) rc = compare_one(w->c, w->ctx, m[i].op, err);
        return rc;
    }
    for (size_t at = 0, k; rc >= 0 && at < n; at += k) {
        uint64_t marks = 0;
        k = n - at < RG__CAS_ROWS ? n - at : RG__CAS_ROWS;
        for (size_t i = 0; i < k; i++) expected[i] = m[at + i].op->expected_row->data;
        if (first->write == RG_UPDATE)
            k = rg__sql_cas_fits(w->c, &cas, w->pointers + at, expected, k);
        rc = rg__sql_cas(w->c, w->ctx, &cas, w->ids + at, w->pointers + at, expected, k, &marks,
                         err);
        if (rc >= 0 && (size_t)__builtin_popcountll(marks) < k) rc = fewer(first->type, err);
    }
    return rc;
}

static int run_update(wave *w, const rg__qdecoded *first, size_t n, rg_err *err) {
    uint64_t matched = 0;
    const uint64_t *expected = first->has_expected ? w->expected : NULL;
    if (is_empty(first)) return RG_OK;
    int rc = rg__sql_update(w->c, w->ctx, first->type, first->mask, w->pointers, expected, n,
                            &matched, err);
    return rc >= 0 && matched < n ? fewer(first->type, err) : rc;
}

static int run_delete(wave *w, const rg__qdecoded *first, size_t n, rg_err *err) {
    uint64_t matched = 0;
    const uint64_t *expected = first->has_expected ? w->expected : NULL;
    int rc = rg__sql_delete(w->c, w->ctx, first->type, w->ids, expected, n, &matched, err);
    return rc >= 0 && expected && matched < n ? fewer(first->type, err) : rc;
}

static int run_statement(wave *w, const member *m, size_t n, rg_err *err) {
    const rg__qdecoded *first = m->op;
    for (size_t i = 0; i < n; i++) {
        w->pointers[i] = m[i].op->row ? m[i].op->row->data : NULL;
        w->ids[i] = m[i].op->id;
        rg__kill_row(m[i].op->id);
        w->expected[i] = m[i].op->expected;
    }
    rg__kill_point(RG__KILL_STATEMENT);
    if (first->expect) return run_expecting(w, m, n, err);
    if (first->write == RG_UPDATE) return run_update(w, first, n, err);
    if (first->write == RG_DELETE) return run_delete(w, first, n, err);
    return rg__sql_insert(w->c, w->ctx, first->type, w->pointers, n, NULL, err);
}

static int run_kind(wave *w, int kind, rg_err *err) {
    static int (*const orders[])(const void *, const void *) = {
        [RG_INSERT] = compare_inserts, [RG_UPDATE] = compare_updates, [RG_DELETE] =
            compare_deletes};
    member *m = w->kinds[kind];
    size_t n = w->n[kind];
    int rc = RG_OK;
    if (n > 1) qsort(m, n, sizeof *m, orders[kind]);
    for (size_t i = 0, k; rc >= 0 && i < n; i = k) {
        for (k = i + 1; k < n && same_statement(&m[i], &m[k]);) k++;
        rc = run_statement(w, &m[i], k - i, err);
    }
    w->n[kind] = 0;
    return rc;
}

static int run_wave(wave *w, rg_err *err) {
    int rc = RG_OK;
    for (int kind = RG_INSERT; rc >= 0 && kind <= RG_DELETE; kind++) rc = run_kind(w, kind, err);
    w->generation++;
    w->bound = false;
    return rc;
}

int rg__apply_waves(rg__mysql *c, const rg__ctx *ctx, const rg__task *tasks, size_t n,
                    rg_err *err) {
    wave w;
    int rc = wave_init(&w, c, ctx, n) < 0 ? rg__fail_memory(err) : RG_OK;
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        if (tasks[i].fate != RG__FATE_GOOD) continue;
        if (!joins(&w, tasks[i].op)) rc = run_wave(&w, err);
        join(&w, tasks[i].op, (uint32_t)i);
    }
    if (rc >= 0) rc = run_wave(&w, err);
    wave_deinit(&w);
    return rc;
}

/* ---- one by one ---- */

static int conflict(const rg__qdecoded *op, rg_err *err) {
    const char *what = op->current ? "changed"
                       : op->has_expected && !op->expect ? "changed or vanished"
                                                         : "vanished";
    int rc = rg__fail(err, RG_ECONFLICT, "%s %llu: the row %s before the queued %s was applied",
                      op->type->name, (unsigned long long)op->id, what,
                      op->write == RG_UPDATE ? "update" : "delete");
    rg__err_set_entity(err, op->type->name);
    return rc;
}

/* A row that is as expected after all cannot be, as it is locked. */
static int expect_one(rg__mysql *c, const rg__ctx *ctx, rg__qdecoded *op, rg_err *err) {
    const rg__cas cas = {.t = op->type, .write = op->write, .expect = op->expect,
                         .mask = op->write == RG_UPDATE ? op->mask : NULL};
    const void *row = op->row ? op->row->data : NULL;
    const void *expected = op->expected_row->data;
    uint64_t marks = 0;
    int rc = RG_OK;
    if (op->write == RG_DELETE || !is_empty(op))
        rc = rg__sql_cas(c, ctx, &cas, &op->id, &row, &expected, 1, &marks, err);
    if (rc < 0 || marks) return rc;
    rg_block_unref(op->current);
    op->current = NULL;
    rc = rg__sql_select_ids(c, ctx, op->type, &op->id, 1, RG__LOCK_UPDATE, take_current, op, err);
    bool fine = op->write == RG_DELETE ? !op->current : is_empty(op) && as_expected(op);
    return rc >= 0 && !fine ? conflict(op, err) : rc;
}

static int note_row(void *arg, rg_block *row) {
    *(bool *)arg = true;
    rg_block_unref(row);
    return RG_OK;
}

static int delete_one(rg__mysql *c, const rg__ctx *ctx, const rg__qdecoded *op, rg_err *err) {
    uint64_t matched = 0;
    bool there = false;
    int rc = rg__sql_delete(c, ctx, op->type, &op->id, op->has_expected ? &op->expected : NULL, 1,
                            &matched, err);
    if (rc < 0 || matched || !op->has_expected) return rc;
    rc = rg__sql_select_ids(c, ctx, op->type, &op->id, 1, RG__LOCK_UPDATE, note_row, &there, err);
    return rc >= 0 && there ? conflict(op, err) : rc;
}

static int update_one(rg__mysql *c, const rg__ctx *ctx, const rg__qdecoded *op, rg_err *err) {
    uint64_t matched = 0;
    const void *row = op->row->data;
    if (is_empty(op)) return RG_OK;
    int rc = rg__sql_update(c, ctx, op->type, op->mask, &row, op->has_expected ? &op->expected :
                            NULL,
                            1, &matched, err);
    return rc >= 0 && matched == 0 ? conflict(op, err) : rc;
}

int rg__apply_one(rg__mysql *c, const rg__ctx *ctx, rg__qdecoded *op, rg_err *err) {
    rg__kill_row(op->id);
    rg__kill_point(RG__KILL_STATEMENT);
    if (op->expect && op->write != RG_INSERT) return expect_one(c, ctx, op, err);
    if (op->write == RG_UPDATE) return update_one(c, ctx, op, err);
    if (op->write == RG_DELETE) return delete_one(c, ctx, op, err);
    const void *row = op->row->data;
    return rg__sql_insert(c, ctx, op->type, &row, 1, NULL, err);
}
