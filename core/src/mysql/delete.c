/* SPDX-License-Identifier: MIT */
/* DELETE: one row by parameters, many by their ids (and versions) in the text. */
#include "mysql/due.h"
#include "mysql/write.h"

#include <stdlib.h>
#include "base/alloc.h"

typedef struct victim {
    uint64_t id, version;
} victim;

static int by_id(const void *a, const void *b) {
    uint64_t x = ((const victim *)a)->id, y = ((const victim *)b)->id;
    return x < y ? -1 : x > y;
}

size_t rg__sql_delete_statements(size_t n) {
    return (n + RG__WRITE_ROWS - 1) / RG__WRITE_ROWS;
}

/* ---- one row ---- */

static void one_row_text(rg__mysql *c, rg__buf *sql, const rg__row_write *w) {
    (void)c;
    rg__buf_fmt(sql, "DELETE FROM %s WHERE %s=?", w->t->quoted, w->t->columns[0].quoted);
    if (w->n_more == 2) rg__buf_fmt(sql, " AND %s=?", w->t->columns[w->t->version_column].quoted);
}

static int delete_one(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const victim *v,
                      bool versioned, uint64_t *matched, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "deleting", .op = "DELETE", .write = true};
    rg__row_write w = {
        .t = t, .first = t->n_columns, .more = {v->id, v->version}, .n_more = versioned ? 2 : 1};
    rg__stmt *s = NULL;
    int code = rg__call_begin(c, &call, err);
    if (code) return code;
    code = rg__write_prepare(c, &call, rg__stmt_key(c, t, versioned ? 'D' : 'd', 0, NULL), &w,
                             one_row_text, &s, err);
    if (code == 0) code = rg__row_write_run(c, &call, s, &w, err);
    if (code == 0) *matched += (uint64_t)call.rows;
    return rg__write_end(c, &call, code, t,
                         s ? (rg__slice){s->sql, s->sql_len} : rg__slice_of("DELETE"), err);
}

/* ---- many rows ---- */

static void add_ids(rg__buf *sql, const victim *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        rg__buf_char(sql, i ? ',' : '(');
        rg__buf_u64(sql, v[i].id);
    }
    rg__buf_char(sql, ')');
}

static void add_pairs(rg__buf *sql, const victim *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        rg__buf_str(sql, i ? ",(" : "((");
        rg__buf_u64(sql, v[i].id);
        rg__buf_char(sql, ',');
        rg__buf_u64(sql, v[i].version);
        rg__buf_char(sql, ')');
    }
    rg__buf_char(sql, ')');
}

/* The ids alone come first: they make a range of the primary key, so that no other row is locked.
 */
static void many_rows_text(rg__buf *sql, const rg_type *t, const victim *v, size_t n,
                           bool versioned) {
    const char *id = t->columns[0].quoted;
    rg__buf_fmt(sql, "DELETE FROM %s WHERE %s IN ", t->quoted, id);
    add_ids(sql, v, n);
    if (!versioned) return;
    rg__buf_fmt(sql, " AND (%s,%s) IN ", id, t->columns[t->version_column].quoted);
    add_pairs(sql, v, n);
}

static int delete_many(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const victim *v,
                       size_t n, bool versioned, uint64_t *matched, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "deleting", .op = "DELETE", .write = true};
    rg__buf *sql = rg__conn_text(c);
    many_rows_text(sql, t, v, n, versioned);
    int code = sql->failed ? rg__fail_memory(err) : rg__call_fits(c, sql->len, call.what, err);
    if (code == 0) code = rg__call_begin(c, &call, err);
    if (code) return code;
    code = rg__due_query(c, &call, sql->p, sql->len, err);
    if (code == 0) call.rows = (int64_t)mysql_affected_rows(c->my);
    if (code == 0) *matched += (uint64_t)call.rows;
    return rg__write_end(c, &call, code, t, (rg__slice){sql->p, sql->len}, err);
}

int rg__sql_delete(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids,
                   const uint64_t *expected, size_t n, uint64_t *matched, rg_err *err) {
    uint64_t found = 0;
    int code = 0;
    victim *v = rg__reallocarray(NULL, n ? n : 1, sizeof *v);
    if (!v) return rg__fail_memory(err);
    for (size_t i = 0; i < n; i++)
        v[i] = (victim){ids[i], expected ? expected[i] : 0};
    qsort(v, n, sizeof *v, by_id);
    for (size_t at = 0, k; code == 0 && at < n; at += k) {
        k = n - at < RG__WRITE_ROWS ? n - at : RG__WRITE_ROWS;
        if (k == 1)
            code = delete_one(c, ctx, t, &v[at], expected != NULL, &found, err);
        else
            code = delete_many(c, ctx, t, &v[at], k, expected != NULL, &found, err);
    }
    rg__free(v);
    if (matched) *matched = found;
    return code;
}
