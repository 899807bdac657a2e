/* SPDX-License-Identifier: MIT */
/* UPDATE: one row by parameters, many rows as one JSON array that the server joins with the table.
 */
#include "mysql/write.h"

#include <stdlib.h>
#include "base/alloc.h"

/* One call's work. order: rows by id, so that rivals lock rows in the same order; NULL: as they
 * are. */
typedef struct update {
    rg__mysql *c;
    const rg__ctx *ctx;
    const rg_type *t;
    const uint8_t *mask;
    const void *const *rows;
    const uint64_t *expected;
    uint32_t *order;
    size_t n;
} update;

static size_t nth(const update *u, size_t i) {
    return u->order ? u->order[i] : i;
}

/* ---- order ---- */

static int by_id(const void *a, const void *b, void *arg) {
    const update *u = arg;
    uint64_t x = rg__row_id(u->t, u->rows[*(const uint32_t *)a]);
    uint64_t y = rg__row_id(u->t, u->rows[*(const uint32_t *)b]);
    return x < y ? -1 : x > y;
}

static bool in_order(const update *u) {
    for (size_t i = 1; i < u->n; i++)
        if (rg__row_id(u->t, u->rows[i - 1]) > rg__row_id(u->t, u->rows[i])) return false;
    return true;
}

static int sort_rows(update *u, rg_err *err) {
    if (in_order(u)) return 0;
    u->order = rg__reallocarray(NULL, u->n, sizeof *u->order);
    if (!u->order) return rg__fail_memory(err);
    for (size_t i = 0; i < u->n; i++)
        u->order[i] = (uint32_t)i;
    qsort_r(u->order, u->n, sizeof *u->order, by_id, u);
    return 0;
}

/* ---- which rows go together ---- */

static size_t chunk_rows(const update *u, size_t at) {
    size_t limit = u->c->max_packet / 4, bytes = 0, i = 0;
    if (!u->c->json_table) return 1;
    for (; at + i < u->n && i < RG__WRITE_ROWS; i++) {
        bytes += rg__row_json_bound(u->t, u->rows[nth(u, at + i)]);
        if (i > 0 && bytes > limit) break;
    }
    return i;
}

size_t rg__sql_update_statements(const rg__mysql *c, const rg_type *t, const uint8_t *mask,
                                 const void *const *rows, size_t n) {
    update u = {.c = (rg__mysql *)c, .t = t, .mask = mask, .rows = rows, .n = n};
    size_t statements = 0;
    if (sort_rows(&u, NULL)) return n;
    for (size_t at = 0; at < n; statements++)
        at += chunk_rows(&u, at);
    rg__free(u.order);
    return statements;
}

/* ---- one row ---- */

static void one_row_text(rg__mysql *c, rg__buf *sql, const rg__row_write *w) {
    const char *separator = " SET ";
    (void)c;
    rg__buf_fmt(sql, "UPDATE %s", w->t->quoted);
    for (uint32_t i = 0; i < w->t->n_columns; i++) {
        if (!w->mask[i]) continue;
        rg__buf_fmt(sql, "%s%s=?", separator, w->t->columns[i].quoted);
        separator = ",";
    }
    rg__buf_fmt(sql, " WHERE %s=?", w->t->columns[0].quoted);
    if (w->n_more == 2) rg__buf_fmt(sql, " AND %s=?", w->t->columns[w->t->version_column].quoted);
}

static int update_one(const update *u, size_t i, uint64_t *matched, rg_err *err) {
    rg__call call = {.ctx = u->ctx, .what = "updating", .op = "UPDATE", .write = true};
    rg__row_write w = {
        .t = u->t, .mask = u->mask, .row = u->rows[i], .n_more = u->expected ? 2 : 1};
    rg__stmt *s = NULL;
    w.more[0] = rg__row_id(u->t, w.row);
    w.more[1] = u->expected ? u->expected[i] : 0;
    int code = rg__call_begin(u->c, &call, err);
    if (code) return code;
    code = rg__write_prepare(u->c, &call,
                             rg__stmt_key(u->c, u->t, u->expected ? 'U' : 'u', 0, u->mask), &w,
                             one_row_text, &s, err);
    if (code == 0) code = rg__row_write_run(u->c, &call, s, &w, err);
    if (code == 0) *matched += mysql_stmt_affected_rows(s->st);
    return rg__write_end(u->c, &call, code, u->t,
                         s ? (rg__slice){s->sql, s->sql_len} : rg__slice_of("UPDATE"), err);
}

/* ---- many rows ---- */

/* What JSON_TABLE turns an element into. It converts in silence and stores NULL or a cut value for
 * what does not fit, so it is given types that take anything; the assignment, which obeys the
 * strict mode, does the rest. */
const char *rg__json_type(const rg__column *col) {
    switch (col->kind) {
    case RG_BOOL:
    case RG_I8:
    case RG_I16:
    case RG_I24:
    case RG_I32:
    case RG_I64:
        return "BIGINT";
    case RG_FLOAT:
    case RG_DOUBLE:
    case RG_DECIMAL:
    case RG_DATE:
    case RG_DATETIME:
    case RG_TIME:
        return "VARCHAR(80) CHARACTER SET latin1";
    case RG_ENUM:
        return "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
    case RG_SET:
    case RG_STRING:
    case RG_TEXT:
    case RG_JSON:
    case RG_REFS:
        return "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
    case RG_BINARY:
    case RG_BLOB:
        return "LONGTEXT CHARACTER SET latin1";
    default:
        return "BIGINT UNSIGNED";
    }
}

void rg__json_value(rg__buf *sql, const rg__mysql *c, const rg__column *col, uint32_t i) {
    bool hex = col->kind == RG_BINARY || col->kind == RG_BLOB;
    bool json = (col->kind == RG_JSON || col->kind == RG_REFS) && c->flavour == RG__MYSQL;
    rg__buf_fmt(sql, hex ? "UNHEX(r.c%u)" : json ? "CAST(r.c%u AS JSON)" : "r.c%u", i);
}

static void add_json_columns(rg__buf *sql, const rg__row_write *w) {
    unsigned at = w->n_more;
    rg__buf_str(sql, "id BIGINT UNSIGNED PATH '$[0]' ERROR ON ERROR");
    if (w->n_more == 2) rg__buf_str(sql, ",v BIGINT UNSIGNED PATH '$[1]' ERROR ON ERROR");
    for (uint32_t i = 0; i < w->t->n_columns; i++) {
        if (!w->mask[i]) continue;
        rg__buf_fmt(sql, ",c%u %s PATH '$[%u]' ERROR ON ERROR", i, rg__json_type(&w->t->columns[i]),
                    at++);
    }
}

static void many_rows_text(rg__mysql *c, rg__buf *sql, const rg__row_write *w) {
    const rg_type *t = w->t;
    const char *separator = " SET ";
    rg__buf_str(sql, "UPDATE JSON_TABLE(?,'$[*]' COLUMNS(");
    add_json_columns(sql, w);
    rg__buf_fmt(sql, ")) r STRAIGHT_JOIN %s t ON t.%s=r.id", t->quoted, t->columns[0].quoted);
    if (w->n_more == 2) rg__buf_fmt(sql, " AND t.%s=r.v", t->columns[t->version_column].quoted);
    for (uint32_t i = 0; i < t->n_columns; i++) {
        if (!w->mask[i]) continue;
        rg__buf_fmt(sql, "%st.%s=", separator, t->columns[i].quoted);
        rg__json_value(sql, c, &t->columns[i], i);
        separator = ",";
    }
}

static void add_json_row(const update *u, rg__buf *json, size_t i) {
    rg__buf_char(json, '[');
    rg__buf_u64(json, rg__row_id(u->t, u->rows[i]));
    if (u->expected) {
        rg__buf_char(json, ',');
        rg__buf_u64(json, u->expected[i]);
    }
    for (uint32_t col = 0; col < u->t->n_columns; col++) {
        if (!u->mask[col]) continue;
        rg__value v = rg__row_value(u->t, u->rows[i], col);
        rg__buf_char(json, ',');
        rg__json_element(json, &u->t->columns[col], &v);
    }
    rg__buf_char(json, ']');
}

static void add_json(const update *u, rg__buf *json, size_t at, size_t n) {
    for (size_t i = 0; i < n; i++) {
        rg__buf_char(json, i ? ',' : '[');
        add_json_row(u, json, nth(u, at + i));
    }
    rg__buf_char(json, ']');
}

static int send_json(const update *u, rg__call *call, rg__stmt *s, const rg__buf *json,
                     rg_err *err) {
    rg__param p = {.kind = RG__P_STRING, .s = {json->p, json->len}};
    rg__bound unused;
    call->bytes = rg__param_bind_value(&p, &s->params[0], &unused);
    s->params_bound = false;
    int code = rg__call_fits(u->c, call->bytes, call->what, err);
    return code ? code : rg__stmt_run(u->c, call, s, err);
}

static int update_many(const update *u, size_t at, size_t n, uint64_t *matched, rg_err *err) {
    rg__call call = {.ctx = u->ctx, .what = "updating", .op = "UPDATE", .write = true};
    rg__row_write w = {.t = u->t, .mask = u->mask, .n_more = u->expected ? 2 : 1};
    rg__stmt *s = NULL;
    rg__buf *json = rg__conn_text(u->c);
    add_json(u, json, at, n);
    int code = json->failed ? rg__fail_memory(err) : rg__call_begin(u->c, &call, err);
    if (code) return code;
    code = rg__write_prepare(u->c, &call,
                             rg__stmt_key(u->c, u->t, u->expected ? 'J' : 'j', 0, u->mask), &w,
                             many_rows_text, &s, err);
    if (code == 0) code = send_json(u, &call, s, json, err);
    if (code == 0) call.rows = (int64_t)mysql_stmt_affected_rows(s->st);
    if (code == 0) *matched += (uint64_t)call.rows;
    code = rg__write_end(u->c, &call, code, u->t,
                         s ? (rg__slice){s->sql, s->sql_len} : rg__slice_of("UPDATE"), err);
    rg__conn_text_done(u->c);
    return code;
}

/* ---- all ---- */

int rg__sql_update(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const uint8_t *mask,
                   const void *const *rows, const uint64_t *expected, size_t n, uint64_t *matched,
                   rg_err *err) {
    update u = {
        .c = c, .ctx = ctx, .t = t, .mask = mask, .rows = rows, .expected = expected, .n = n};
    uint64_t found = 0;
    int code = sort_rows(&u, err);
    for (size_t at = 0, k; code == 0 && at < n; at += k) {
        k = chunk_rows(&u, at);
        if (k == 1)
            code = update_one(&u, nth(&u, at), &found, err);
        else
            code = update_many(&u, at, k, &found, err);
    }
    rg__free(u.order);
    if (matched) *matched = found;
    return code;
}
