/* SPDX-License-Identifier: MIT */
/* INSERT: one row by parameters, many rows as literals of one statement. */
#include "mysql/due.h"
#include "mysql/write.h"

/* ---- ids ---- */

/* The database gives the id of such a row: the column is left out. */
static bool wants_id(const rg_type *t, const void *row) {
    return t->ids == RG_IDS_DATABASE && rg__row_id(t, row) == 0;
}

static void set_ids(uint64_t *ids, const rg_type *t, const void *const *rows, size_t n,
                    uint64_t first) {
    if (!ids) return;
    for (size_t i = 0; i < n; i++)
        ids[i] = wants_id(t, rows[i]) ? first + i : rg__row_id(t, rows[i]);
}

/* ---- which rows go together ---- */

/* How many rows from rows[0] on go into one statement. A statement knows the number of its rows
 * beforehand, so the ids that the database gives are in sequence; with a step other than one
 * (Galera) they might change their step meanwhile, so each row goes alone. */
static size_t chunk_rows(const rg__mysql *c, const rg_type *t, const void *const *rows, size_t n) {
    size_t limit = c->max_packet / 2, bytes = 0, i = 0;
    bool wants = wants_id(t, rows[0]);
    if (wants && c->id_step != 1) return 1;
    for (; i < n && i < RG__WRITE_ROWS; i++) {
        bytes += rg__row_sql_bound(t, rows[i]);
        if (i > 0 && (bytes > limit || wants_id(t, rows[i]) != wants)) break;
    }
    return i;
}

size_t rg__sql_insert_statements(const rg__mysql *c, const rg_type *t, const void *const *rows,
                                 size_t n) {
    size_t statements = 0;
    for (size_t at = 0; at < n; statements++)
        at += chunk_rows(c, t, rows + at, n - at);
    return statements;
}

/* ---- text ---- */

static void add_columns(rg__buf *sql, const rg_type *t, uint32_t first) {
    rg__buf_fmt(sql, "INSERT INTO %s (", t->quoted);
    for (uint32_t i = first; i < t->n_columns; i++) {
        if (i > first) rg__buf_char(sql, ',');
        rg__buf_str(sql, t->columns[i].quoted);
    }
    rg__buf_str(sql, ") VALUES ");
}

static void add_row(rg__mysql *c, rg__buf *sql, const rg_type *t, const void *row, uint32_t first) {
    rg__buf_char(sql, '(');
    for (uint32_t i = first; i < t->n_columns; i++) {
        if (i > first) rg__buf_char(sql, ',');
        rg__sql_literal(c, sql, t, row, i);
    }
    rg__buf_char(sql, ')');
}

static void one_row_text(rg__mysql *c, rg__buf *sql, const rg__row_write *w) {
    (void)c;
    add_columns(sql, w->t, w->first);
    for (uint32_t i = w->first; i < w->t->n_columns; i++)
        rg__buf_str(sql, i > w->first ? ",?" : "(?");
    rg__buf_str(sql, w->first < w->t->n_columns ? ")" : "()");
}

/* ---- statements ---- */

static int insert_one(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const void *row,
                      uint64_t *first_id, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "inserting", .op = "INSERT", .write = true};
    rg__row_write w = {.t = t, .row = row, .first = wants_id(t, row) ? 1 : 0};
    rg__stmt *s = NULL;
    int code = rg__call_begin(c, &call, err);
    if (code) return code;
    code = rg__write_prepare(c, &call, rg__stmt_key(c, t, w.first ? 'N' : 'n', 0, NULL), &w,
                             one_row_text, &s, err);
    if (code == 0) code = rg__row_write_run(c, &call, s, &w, err);
    if (code == 0) *first_id = mysql_stmt_insert_id(s->st);
    return rg__write_end(c, &call, code, t,
                         s ? (rg__slice){s->sql, s->sql_len} : rg__slice_of("INSERT"), err);
}

static int insert_many(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const void *const *rows,
                       size_t n, uint64_t *first_id, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "inserting", .op = "INSERT", .write = true};
    uint32_t first = wants_id(t, rows[0]) ? 1 : 0;
    rg__buf *sql = rg__conn_text(c);
    add_columns(sql, t, first);
    size_t shown = sql->len;
    for (size_t i = 0; i < n; i++) {
        if (i) rg__buf_char(sql, ',');
        add_row(c, sql, t, rows[i], first);
    }
    if (sql->failed) return rg__fail_memory(err);
    call.bytes = sql->len;
    int code = rg__call_fits(c, sql->len, call.what, err);
    if (code == 0) code = rg__call_begin(c, &call, err);
    if (code) return code;
    code = rg__due_query(c, &call, sql->p, sql->len, err);
    if (code == 0) call.rows = (int64_t)mysql_affected_rows(c->my);
    if (code == 0) *first_id = mysql_insert_id(c->my);
    code = rg__write_end(c, &call, code, t, (rg__slice){sql->p, shown}, err);
    rg__conn_text_done(c);
    return code;
}

int rg__sql_insert(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const void *const *rows,
                   size_t n, uint64_t *insert_ids, rg_err *err) {
    int code = 0;
    for (size_t at = 0, k; code == 0 && at < n; at += k) {
        uint64_t first = 0;
        k = chunk_rows(c, t, rows + at, n - at);
        if (k == 1)
            code = insert_one(c, ctx, t, rows[at], &first, err);
        else
            code = insert_many(c, ctx, t, rows + at, k, &first, err);
        if (code == 0) set_ids(insert_ids ? insert_ids + at : NULL, t, rows + at, k, first);
    }
    return code;
}
