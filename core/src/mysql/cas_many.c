/* SPDX-License-Identifier: MIT */
/* Conditional writes of many rows in one statement, which tells of each whether it matched.
 *
 * The rows travel as one JSON array that the server joins with the table. Each row that matches sets
 * its bit in LAST_INSERT_ID(), and the answer's packet brings that number back, so that neither
 * another statement nor another exchange is needed. `z` empties it at the start of each execution. */
#include "mysql/castext.h"

#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "row/scalar.h"

#define MARK "LAST_INSERT_ID(LAST_INSERT_ID()|(1<<(r.k-1)))"

/* ---- the statement ---- */

/* Expected floats are compared as doubles; everything else as it is assigned. */
static const char *expected_type(const rg__column *col) {
    bool is_float = col->kind == RG_FLOAT || col->kind == RG_DOUBLE;
    return is_float ? "DOUBLE" : rg__json_type(col);
}

static void add_columns(rg__buf *sql, const rg__cas *cas) {
    const rg_type *t = cas->t;
    unsigned at = 1;
    rg__buf_str(sql, "k FOR ORDINALITY,id BIGINT UNSIGNED PATH '$[0]' ERROR ON ERROR");
    for (uint32_t i = 0; cas->mask && i < t->n_columns; i++)
        if (cas->mask[i])
            rg__buf_fmt(sql, ",c%u %s PATH '$[%u]' ERROR ON ERROR", i, rg__json_type(&t->columns[i]),
                        at++);
    for (uint32_t i = 0; cas->expect && i < t->n_columns; i++)
        if (cas->expect[i])
            rg__buf_fmt(sql, ",e%u %s PATH '$[%u]' ERROR ON ERROR", i,
                        expected_type(&t->columns[i]), at++);
}

static void add_conditions(rg__buf *sql, const rg__mysql *c, const rg__cas *cas) {
    const rg_type *t = cas->t;
    for (uint32_t i = 0; cas->expect && i < t->n_columns; i++) {
        char value[32];
        bool hex = t->columns[i].kind == RG_BINARY || t->columns[i].kind == RG_BLOB;
        if (!cas->expect[i]) continue;
        snprintf(value, sizeof value, hex ? "UNHEX(r.e%u)" : "r.e%u", i);
        rg__buf_str(sql, " AND ");
        rg__cas_condition(sql, c, &t->columns[i], "t.", value);
    }
}

/* The first assignment sets the bit: it is made for rows that matched only. */
static void add_assignments(rg__buf *sql, const rg__mysql *c, const rg__cas *cas) {
    const rg_type *t = cas->t;
    bool marked = cas->bump;
    if (cas->bump)
        rg__buf_fmt(sql, " SET t.%s=t.%s+(" MARK "<>0)", t->columns[t->version_column].quoted,
                    t->columns[t->version_column].quoted);
    for (uint32_t i = 0; cas->mask && i < t->n_columns; i++) {
        if (!cas->mask[i]) continue;
        rg__buf_fmt(sql, "%st.%s=", marked ? "," : " SET ", t->columns[i].quoted);
        if (!marked) rg__buf_str(sql, "IF(" MARK "=0,NULL,");
        rg__json_value(sql, c, &t->columns[i], i);
        if (!marked) rg__buf_char(sql, ')');
        marked = true;
    }
}

void rg__cas_text_many(rg__buf *sql, const rg__mysql *c, const rg__cas *cas) {
    const rg_type *t = cas->t;
    if (cas->brief && rg__mysql_flavour(c) == RG__MARIADB)
        rg__buf_fmt(sql, "SET STATEMENT innodb_lock_wait_timeout=%d FOR ", RG__CAS_LOCK_WAIT_S);
    rg__buf_str(sql, "UPDATE (SELECT LAST_INSERT_ID(0) i) z STRAIGHT_JOIN "
                     "JSON_TABLE(?,'$[*]' COLUMNS(");
    add_columns(sql, cas);
    rg__buf_fmt(sql, ")) r STRAIGHT_JOIN %s t ON t.%s=r.id", t->quoted, t->columns[0].quoted);
    add_conditions(sql, c, cas);
    add_assignments(sql, c, cas);
}

/* ---- the rows ---- */

/* All digits, so that the server reads the very same number. */
static void add_expected(rg__buf *json, const rg__column *col, const rg__value *v) {
    char text[RG__NUMBER_MAX];
    bool is_float = col->kind == RG_FLOAT || col->kind == RG_DOUBLE;
    if (v->is_null || !is_float || !isfinite(v->d)) {
        rg__json_element(json, col, v);
        return;
    }
    rg__buf_char(json, '"');
    rg__buf_add(json, text, rg__number_digits(v->d, 17, text));
    rg__buf_char(json, '"');
}

/* Where the columns of a set begin and end. */
typedef struct span {
    const uint8_t *set;
    uint32_t from, to;
} span;

static span span_of(const uint8_t *set, uint32_t n) {
    const uint8_t *first = set ? memchr(set, 1, n) : NULL;
    if (!first) return (span){0};
    const uint8_t *last = memrchr(set, 1, n);
    return (span){set, (uint32_t)(first - set), (uint32_t)(last - set) + 1};
}

/* Numbers without a sign are most of what is written and compared. */
static void add_cell(rg__buf *json, const rg_type *t, const void *row, uint32_t i, bool is_expected) {
    const rg__column *col = &t->columns[i];
    rg__value v = rg__row_value(t, row, i);
    rg__buf_char(json, ',');
    if (!v.is_null && col->kind >= RG_U8 && col->kind <= RG_U64)
        rg__buf_u64(json, v.u);
    else if (is_expected)
        add_expected(json, col, &v);
    else
        rg__json_element(json, col, &v);
}

static void add_cells(rg__buf *json, const rg_type *t, const void *row, const span *s, bool is_expected) {
    for (uint32_t i = s->from; i < s->to; i++)
        if (s->set[i]) add_cell(json, t, row, i, is_expected);
}

size_t rg__sql_cas_fits(const rg__mysql *c, const rg__cas *cas, const void *const *rows,
                        const void *const *expected, size_t n) {
    size_t limit = rg__mysql_max_packet(c) / 4;
    size_t bytes = 0;
    size_t i = 0;
    if (!c->json_table || cas->n_exprs) return 1;
    for (; i < n && i < RG__CAS_ROWS; i++) {
        if (cas->mask) bytes += rg__row_json_bound(cas->t, rows[i]);
        if (cas->expect) bytes += rg__row_json_bound(cas->t, expected[i]);
        if (i > 0 && bytes > limit) break;
    }
    return i;
}

/* ---- updates ---- */

int rg__cas_add_rows(rg__mysql *c, const rg__cas *cas, const uint64_t *ids, const void *const *rows,
                     const void *const *expected, size_t n, rg_err *err) {
    rg__buf *json = rg__conn_text(c);
    span set = span_of(cas->mask, cas->t->n_columns);
    span compared = span_of(cas->expect, cas->t->n_columns);
    for (size_t i = 0; i < n; i++) {
        rg__buf_str(json, i ? ",[" : "[[");
        rg__buf_u64(json, ids[i]);
        add_cells(json, cas->t, rows[i], &set, false);
        add_cells(json, cas->t, expected[i], &compared, true);
        rg__buf_char(json, ']');
    }
    rg__buf_char(json, ']');
    return json->failed ? rg__fail_memory(err) : RG_OK;
}

int rg__cas_bind_rows(rg__mysql *c, rg__call *call, rg__stmt *s, rg_err *err) {
    rg__param p = {.kind = RG__P_STRING, .s = {c->text.p, c->text.len}};
    rg__bound unused;
    call->bytes = rg__param_bind_value(&p, &s->params[0], &unused);
    s->params_bound = false;
    return rg__call_fits(c, call->bytes, call->what, err);
}

/* All or none need no bits; else there must be as many as rows that were found. */
int rg__cas_read_marks(rg__stmt *s, size_t n, uint64_t *marks, rg_err *err) {
    uint64_t all = n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
    uint64_t matched = mysql_stmt_affected_rows(s->st);
    *marks = 0;
    if (matched == 0) return RG_OK;
    *marks = matched == n ? all : mysql_stmt_insert_id(s->st);
    if ((*marks & ~all) == 0 && (uint64_t)__builtin_popcountll(*marks) == matched) return RG_OK;
    return rg__fail(err, RG_EINTERNAL, "the server does not tell which of %zu rows matched", n);
}

static int update_many(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, const uint64_t *ids,
                       const void *const *rows, const void *const *expected, size_t n,
                       uint64_t *marks, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "updating", .op = "UPDATE", .write = true};
    rg__stmt *s = NULL;
    int code = rg__cas_add_rows(c, cas, ids, rows, expected, n, err);
    if (code == 0) code = rg__call_begin(c, &call, err);
    if (code) return code;
    code = rg__cas_prepare(c, &call, cas, 'C', rg__cas_text_many, &s, err);
    if (code == 0) code = rg__cas_bind_rows(c, &call, s, err);
    if (code == 0) code = rg__stmt_run(c, &call, s, err);
    if (code == 0) call.rows = (int64_t)mysql_stmt_affected_rows(s->st);
    if (code == 0) code = rg__cas_read_marks(s, n, marks, err);
    code = rg__write_end(c, &call, code, cas->t,
                         s ? (rg__slice){s->sql, s->sql_len} : rg__slice_of("UPDATE"), err);
    rg__conn_text_done(c);
    return code;
}

/* ---- deletes ---- */

typedef struct finding {
    const rg__cas *cas;
    const uint64_t *ids;
    const void *const *expected;
    size_t n;
    uint64_t marks;
} finding;

static int find(void *arg, rg_block *row) {
    finding *f = arg;
    const void *data = rg_block_data(row);
    for (size_t i = 0; i < f->n; i++)
        if (f->ids[i] == rg__row_id(f->cas->t, data) &&
            rg__cas_holds(f->cas->t, f->cas->expect, f->expected[i], data, NULL))
            f->marks |= UINT64_C(1) << i;
    rg_block_unref(row);
    return RG_OK;
}

/* An answer to DELETE brings no number back: the rows are locked, compared here, and go. */
static int delete_many(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, const uint64_t *ids,
                       const void *const *expected, size_t n, uint64_t *marks, rg_err *err) {
    finding f = {.cas = cas, .ids = ids, .expected = expected, .n = n};
    uint64_t found[RG__CAS_ROWS];
    size_t k = 0;
    int code = rg__sql_select_ids(c, ctx, cas->t, ids, n, RG__LOCK_UPDATE, find, &f, err);
    for (size_t i = 0; i < n; i++)
        if (f.marks >> i & 1) found[k++] = ids[i];
    *marks = f.marks;
    return code || k == 0 ? code : rg__sql_delete(c, ctx, cas->t, found, NULL, k, NULL, err);
}

int rg__sql_cas(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, const uint64_t *ids,
                const void *const *rows, const void *const *expected, size_t n, uint64_t *marks,
                rg_err *err) {
    *marks = 0;
    if (n == 1) return rg__cas_one(c, ctx, cas, ids[0], rows[0], expected[0], marks, err);
    if (cas->write == RG_DELETE) return delete_many(c, ctx, cas, ids, expected, n, marks, err);
    return update_many(c, ctx, cas, ids, rows, expected, n, marks, err);
}
