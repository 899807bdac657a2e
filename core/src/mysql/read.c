/* SPDX-License-Identifier: MIT */
/* Reading entities by ids and by the values of an index. */
#include "mysql/select.h"

enum { CHUNK = 1024 };

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

static void set_ids(rg__stmt *s, const uint64_t *ids, size_t n) {
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
    uint32_t params = padded(n);
    const rg__buf *key = rg__stmt_key(c, t, 'i', params << 4 | (uint32_t)lock, NULL);
    rg__stmt *s = rg__stmt_find(c, key->p, key->len);
    if (!s) code = prepare_ids(c, &call, t, params, lock, key, &s, err);
    if (code == 0) set_ids(s, ids, n);
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
    for (uint32_t i = 0; i < x->n_columns; i++)
        rg__buf_fmt(sql, " %s %s<=>?", i ? "AND" : "WHERE", t->columns[x->columns[i]].quoted);
    rg__buf_fmt(sql, " ORDER BY %s", t->columns[0].quoted);
    if (limited) rg__buf_str(sql, " LIMIT ?");
    rg__select_lock(c, sql, lock);
    return rg__select_prepare(c, call, t, key, sql, out, err);
}

static int bind_index(rg__stmt *s, const rg_type *t, const rg__index *x, const void *row,
                      uint64_t limit, rg_err *err) {
    rg__selection *q = s->extra;
    size_t room = 0;
    for (uint32_t i = 0; i < x->n_columns; i++) {
        rg__value v = rg__row_value(t, row, x->columns[i]);
        room += rg__param_scratch(&t->columns[x->columns[i]], &v);
    }
    rg__buf_clear(&q->scratch);
    if (room && !rg__buf_reserve(&q->scratch, room)) return rg__fail_memory(err);
    for (uint32_t i = 0; i < x->n_columns; i++) {
        rg__value v = rg__row_value(t, row, x->columns[i]);
        rg__param_bind(&t->columns[x->columns[i]], &v, &s->params[i], &q->bounds[i], &q->scratch);
    }
    if (limit) {
        q->bounds[x->n_columns].u = limit;
        rg__param_bind_u64(&s->params[x->n_columns], &q->bounds[x->n_columns].u);
    }
    s->params_bound = false;
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
