/* SPDX-License-Identifier: MIT */
/* Reading entities by ids and by the values of an index. */
#include "mysql/select.h"

enum { CHUNK = RG__ASK_ROWS };

/* ---- by ids ---- */

static uint32_t padded(size_t n) {
    uint32_t to = 1;
    while (to < n)
        to *= 2;
    return to;
}

static int prepare_ids(rg__mysql *c, const rg__call *call, const rg_type *t, uint32_t n,
                       rg__lock lock, const rg__buf *key, rg__stmt **out, rg_err *err) {
    rg__buf *sql = rg__conn_text(c);
    rg__select_begin(sql, t);
    rg__buf_fmt(sql, " WHERE %s", t->columns[0].quoted);
    rg__buf_str(sql, n == 1 ? "=?" : " IN (?");
    for (uint32_t i = 1; i < n; i++)
        rg__buf_str(sql, ",?");
    if (n > 1) rg__buf_char(sql, ')');
    rg__select_lock(c, sql, lock);
    int code = rg__select_prepare(c, call, t, key, sql, out, err);
    if (code) return code;
    rg__selection *x = (*out)->extra;
    for (uint32_t i = 0; i < n; i++)
        rg__param_bind_u64(&(*out)->params[i], &x->bounds[i].u);
    return 0;
}

rg__buf *rg__select_ids_key(rg__mysql *c, const rg_type *t, size_t n, rg__lock lock) {
    return rg__stmt_key(c, t, 'i', padded(n) << 4 | (uint32_t)lock, NULL);
}

void rg__select_set_ids(rg__stmt *s, const uint64_t *ids, size_t n) {
    rg__selection *x = s->extra;
    for (uint32_t i = 0; i < s->n_params; i++) {
        s->nulls[i] = i >= n;
        x->bounds[i].u = i < n ? ids[i] : 0;
    }
}

static int select_chunk(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids,
                        size_t n, rg__lock lock, rg__row_fn fn, void *arg, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "loading", .op = "SELECT"};
    int code = rg__call_begin(c, &call, err);
    if (code) return code;
    const rg__buf *key = rg__select_ids_key(c, t, n, lock);
    rg__stmt *s = rg__stmt_find(c, key->p, key->len);
    if (!s) code = prepare_ids(c, &call, t, padded(n), lock, key, &s, err);
    if (code == 0) rg__select_set_ids(s, ids, n);
    if (code == 0) code = rg__select_run(c, &call, s, fn, arg, err);
    return rg__select_end(c, &call, code, code ? NULL : s, t, err);
}

int rg__sql_select_ids(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids,
                       size_t n, rg__lock lock, rg__row_fn fn, void *arg, rg_err *err) {
    int code = 0;
    for (size_t at = 0; code == 0 && at < n; at += CHUNK)
        code =
            select_chunk(c, ctx, t, ids + at, n - at < CHUNK ? n - at : CHUNK, lock, fn, arg, err);
    return code;
}

/* ---- by an index ---- */

static int prepare_index(rg__mysql *c, const rg__call *call, const rg_type *t, const rg__index *x,
                         const rg__buf *key, rg__lock lock, bool limited, rg__stmt **out,
                         rg_err *err) {
    rg__buf *sql = rg__conn_text(c);
    rg__select_begin(sql, t);
    for (uint32_t i = 0; i < x->n_columns; i++) {
        rg__buf_str(sql, i ? " AND " : " WHERE ");
        rg__buf_str(sql, t->columns[x->columns[i]].quoted);
        rg__buf_str(sql, "<=>?");
    }
    rg__buf_fmt(sql, " ORDER BY %s", t->columns[0].quoted);
    if (limited) rg__buf_str(sql, " LIMIT ?");
    rg__select_lock(c, sql, lock);
    return rg__select_prepare(c, call, t, key, sql, out, err);
}

static size_t key_room(const rg_type *t, const rg__index *x, const void *row) {
    size_t room = 0;
    for (uint32_t i = 0; i < x->n_columns; i++) {
        rg__value v = rg__row_value(t, row, x->columns[i]);
        room += rg__param_scratch(&t->columns[x->columns[i]], &v);
    }
    return room;
}

/* The parameters from the given one on. */
static void bind_key(rg__stmt *s, const rg_type *t, const rg__index *x, const void *row, size_t from) {
    rg__selection *q = s->extra;
    for (uint32_t i = 0; i < x->n_columns; i++) {
        rg__value v = rg__row_value(t, row, x->columns[i]);
        rg__param_bind(&t->columns[x->columns[i]], &v, &s->params[from + i], &q->bounds[from + i],
                       &q->scratch);
    }
}

static int make_room(rg__stmt *s, size_t room, rg_err *err) {
    rg__selection *q = s->extra;
    rg__buf_clear(&q->scratch);
    s->params_bound = false;
    return room && !rg__buf_reserve(&q->scratch, room) ? rg__fail_memory(err) : 0;
}

static int bind_index(rg__stmt *s, const rg_type *t, const rg__index *x, const void *row,
                      uint64_t limit, rg_err *err) {
    rg__selection *q = s->extra;
    int code = make_room(s, key_room(t, x, row), err);
    if (code) return code;
    bind_key(s, t, x, row, 0);
    if (limit) {
        q->bounds[x->n_columns].u = limit;
        rg__param_bind_u64(&s->params[x->n_columns], &q->bounds[x->n_columns].u);
    }
    return 0;
}

int rg__sql_select_index(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const rg__index *x,
                         const void *key_row, rg__lock lock, uint64_t limit, rg__row_fn fn,
                         void *arg, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "looking up", .op = "SELECT"};
    int code = rg__call_begin(c, &call, err);
    if (code) return code;
    uint32_t number = (uint32_t)(x - t->indexes);
    const rg__buf *key = rg__stmt_key(c, t, limit ? 'x' : 'X', number << 4 | (uint32_t)lock, NULL);
    rg__stmt *s = rg__stmt_find(c, key->p, key->len);
    if (!s) code = prepare_index(c, &call, t, x, key, lock, limit != 0, &s, err);
    if (code == 0) code = bind_index(s, t, x, key_row, limit, err);
    if (code == 0) code = rg__select_run(c, &call, s, fn, arg, err);
    return rg__select_end(c, &call, code, code ? NULL : s, t, err);
}

/* ---- by many values of a unique index ---- */

/* Each compared as one alone is. */
static int prepare_keys(rg__mysql *c, const rg__call *call, const rg_type *t, const rg__index *x,
                        uint32_t n, rg__lock lock, const rg__buf *key, rg__stmt **out,
                        rg_err *err) {
    rg__buf *sql = rg__conn_text(c);
    rg__select_begin(sql, t);
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < x->n_columns; i++) {
            rg__buf_str(sql, i ? " AND " : k ? " OR " : " WHERE ");
            rg__buf_str(sql, t->columns[x->columns[i]].quoted);
            rg__buf_str(sql, "<=>?");
        }
    rg__select_lock(c, sql, lock);
    return rg__select_prepare(c, call, t, key, sql, out, err);
}

/* The last one fills up what the statement takes. */
static int bind_keys(rg__stmt *s, const rg_type *t, const rg__index *x, const void *const *rows,
                     size_t n, size_t padded_n, rg_err *err) {
    size_t room = 0;
    for (size_t k = 0; k < padded_n; k++) room += key_room(t, x, rows[k < n ? k : n - 1]);
    int code = make_room(s, room, err);
    for (size_t k = 0; code == 0 && k < padded_n; k++)
        bind_key(s, t, x, rows[k < n ? k : n - 1], k * x->n_columns);
    return code;
}

int rg__sql_select_keys(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const rg__index *x,
                        const void *const *key_rows, size_t n, rg__lock lock, rg__row_fn fn, void *arg,
                        rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "looking up", .op = "SELECT"};
    int code = rg__call_begin(c, &call, err);
    if (code) return code;
    uint32_t to = padded(n);
    uint32_t number = (uint32_t)(x - t->indexes);
    const rg__buf *key = rg__stmt_key(c, t, 'K', number << 12 | to << 4 | (uint32_t)lock, NULL);
    rg__stmt *s = rg__stmt_find(c, key->p, key->len);
    if (!s) code = prepare_keys(c, &call, t, x, to, lock, key, &s, err);
    if (code == 0) code = bind_keys(s, t, x, key_rows, n, to, err);
    if (code == 0) code = rg__select_run(c, &call, s, fn, arg, err);
    return rg__select_end(c, &call, code, code ? NULL : s, t, err);
}
