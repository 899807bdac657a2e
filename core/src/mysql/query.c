/* SPDX-License-Identifier: MIT */
/* Statements of any kind: text without parameters, prepared with them, results of either. */
#include "mysql/cells.h"
#include "mysql/columns.h"
#include "mysql/due.h"
#include "mysql/sql.h"

#include <stdio.h>
#include "base/alloc.h"
#include "row/scalar.h"

/* ---- what is common ---- */

typedef struct query {
    rg__mysql *c;
    rg__call *call;
    rg__filling fill;
    rg__result *head, *tail; /* the chain so far */
    bool keep;               /* rows are wanted */
} query;

static int fail_last(query *q, rg_err *err) {
    return rg__call_fail(q->c, q->call, NULL, err);
}

/* What can no longer be read is in the way of whatever comes next. */
static int give_up(query *q, int code) {
    q->c->broken = true;
    rg__conn_cut(q->c);
    return code;
}

static int add_result(query *q, MYSQL_RES *meta, rg_err *err) {
    rg__result *r = rg__cells_result(meta);
    if (!r) return rg__fail_memory(err);
    if (q->tail)
        q->tail->next = r;
    else
        q->head = r;
    q->tail = q->fill.r = r;
    return 0;
}

/* The answer without rows: of the statement itself, or (after sets of rows) of a CALL's end. */
static int add_answer(query *q, uint64_t affected, uint64_t insert_id, rg_err *err) {
    const char *info = mysql_info(q->c->my);
    if (q->head) return 0;
    int code = add_result(q, NULL, err);
    if (code || !q->head) return code;
    q->head->affected = affected;
    q->head->insert_id = insert_id;
    q->call->rows = (int64_t)affected;
    if (info && !(q->head->info = rg__strdup(info))) return rg__fail_memory(err);
    return 0;
}

/* ---- text protocol ---- */

static int add_text_row(query *q, const MYSQL_FIELD *fields, char **row, const unsigned long *lens,
                        rg_err *err) {
    int code = rg__cells_row(&q->fill, err);
    for (uint32_t i = 0; code == 0 && i < q->fill.r->n_columns; i++)
        if (row[i] && !rg__cells_text(&q->fill, i, &fields[i], row[i], lens[i]))
            code = rg__fail_memory(err);
    return code;
}

static int read_text_rows(query *q, MYSQL_RES *res, rg_err *err) {
    int code = add_result(q, res, err);
    MYSQL_FIELD *fields = mysql_fetch_fields(res);
    MYSQL_ROW row = NULL;
    while (code == 0 && (row = mysql_fetch_row(res)) != NULL) {
        if (q->keep) code = add_text_row(q, fields, row, mysql_fetch_lengths(res), err);
        if (q->fill.rows % 1024 == 1023 && rg__call_overdue(q->c)) break;
    }
    if (code) return give_up(q, code);
    q->call->rows = (int64_t)q->fill.r->n_rows;
    return mysql_errno(q->c->my) || row ? fail_last(q, err) : 0;
}

static int read_text_result(query *q, rg_err *err) {
    MYSQL *my = q->c->my;
    MYSQL_RES *res = mysql_use_result(my);
    if (!res) {
        if (mysql_field_count(my)) return fail_last(q, err);
        return add_answer(q, mysql_affected_rows(my), mysql_insert_id(my), err);
    }
    int code = read_text_rows(q, res, err);
    mysql_free_result(res);
    return code;
}

static int run_text(query *q, const char *sql, size_t len, rg_err *err) {
    MYSQL *my = q->c->my;
    int code = rg__due_query(q->c, q->call, sql, len, err);
    if (code) return code;
    for (;;) {
        code = read_text_result(q, err);
        if (code) return q->c->broken ? code : give_up(q, code);
        int more = mysql_next_result(my);
        if (more < 0) return 0;
        if (more > 0) return fail_last(q, err);
    }
}

/* ---- parameters ---- */

static size_t bind_params(rg__stmt *s, const rg__param *params) {
    size_t bytes = s->sql_len;
    for (unsigned i = 0; i < s->n_params; i++)
        bytes += rg__param_bind_value(&params[i], &s->params[i], (rg__bound *)s->extra + i) + 3;
    s->params_bound = false;
    return bytes;
}

/* ---- binary protocol: results of unknown columns ---- */

/* A column's buffer for one row. Texts longer than it are fetched again, straight to their place.
 */
typedef struct slot {
    union {
        int64_t i;
        uint64_t u;
        double d;
        float f;
        MYSQL_TIME time;
        char text[256];
    } v;
    unsigned long len;
    rg__flag null, error;
} slot;

static void bind_slot(MYSQL_BIND *b, slot *s, const MYSQL_FIELD *f, int kind) {
    *b = (MYSQL_BIND){.buffer = &s->v,
                      .buffer_length = sizeof s->v,
                      .length = &s->len,
                      .is_null = &s->null,
                      .error = &s->error};
    switch (kind) {
    case RG__CELL_I64:
    case RG__CELL_U64:
        b->buffer_type = f->type == MYSQL_TYPE_BIT ? MYSQL_TYPE_STRING : MYSQL_TYPE_LONGLONG;
        b->is_unsigned = kind == RG__CELL_U64;
        break;
    case RG__CELL_DOUBLE:
        b->buffer_type = f->type == MYSQL_TYPE_FLOAT ? MYSQL_TYPE_FLOAT : MYSQL_TYPE_DOUBLE;
        break;
    case RG__CELL_TIME:
        b->buffer_type = f->type;
        break;
    default:
        b->buffer_type = kind == RG__CELL_BYTES ? MYSQL_TYPE_BLOB : MYSQL_TYPE_STRING;
        b->buffer_length = sizeof s->v.text;
    }
}

static size_t slot_text(const slot *s, const MYSQL_FIELD *f, int kind, char *out) {
    switch (kind) {
    case RG__CELL_I64:
        return (size_t)sprintf(out, "%lld", (long long)s->v.i);
    case RG__CELL_U64:
        return (size_t)sprintf(out, "%llu", (unsigned long long)s->v.u);
    case RG__CELL_DOUBLE:
        return f->type == MYSQL_TYPE_FLOAT ? rg__number_format((double)s->v.f, true, out)
                                           : rg__number_format(s->v.d, false, out);
    default:
        return rg__time_text(&s->v.time, f->type, f->decimals, out);
    }
}

static bool is_bytes(const MYSQL_FIELD *f, int kind) {
    return f->type == MYSQL_TYPE_BIT || (kind != RG__CELL_I64 && kind != RG__CELL_U64 &&
                                         kind != RG__CELL_DOUBLE && kind != RG__CELL_TIME);
}

static int fetch_long(query *q, MYSQL_STMT *st, uint32_t col, size_t len, rg_err *err) {
    unsigned long got = 0;
    rg__flag null = 0, error = 0;
    char *to = rg__cells_room(&q->fill, col, len);
    if (!to) return rg__fail(err, RG_ELIMIT, "a value of %zu bytes", len);
    MYSQL_BIND b = {.buffer = to,
                    .buffer_length = len,
                    .length = &got,
                    .is_null = &null,
                    .error = &error,
                    .buffer_type = MYSQL_TYPE_BLOB};
    return mysql_stmt_fetch_column(st, &b, col, 0) ? rg__call_fail(q->c, q->call, st, err) : 0;
}

static int add_binary_cell(query *q, MYSQL_STMT *st, uint32_t i, const slot *s,
                           const MYSQL_FIELD *f, rg_err *err) {
    char text[64];
    int kind = q->fill.r->kinds[i];
    if (s->null) return 0;
    if (!is_bytes(f, kind)) {
        size_t len = slot_text(s, f, kind, text);
        char *to = rg__cells_room(&q->fill, i, len);
        if (to) memcpy(to, text, len);
        return to ? 0 : rg__fail_memory(err);
    }
    if (s->len > sizeof s->v.text) return fetch_long(q, st, i, s->len, err);
    return rg__cells_text(&q->fill, i, f, s->v.text, s->len) ? 0 : rg__fail_memory(err);
}

static int add_binary_row(query *q, MYSQL_STMT *st, const slot *slots, const MYSQL_FIELD *fields,
                          rg_err *err) {
    int code = rg__cells_row(&q->fill, err);
    for (uint32_t i = 0; code == 0 && i < q->fill.r->n_columns; i++)
        code = add_binary_cell(q, st, i, &slots[i], &fields[i], err);
    return code;
}

static int fetch_binary_rows(query *q, MYSQL_STMT *st, const slot *slots, const MYSQL_FIELD *fields,
                             rg_err *err) {
    for (;;) {
        int rc = mysql_stmt_fetch(st), code = 0;
        if (rc == MYSQL_NO_DATA) return 0;
        if (rc != 0 && rc != MYSQL_DATA_TRUNCATED) return rg__call_fail(q->c, q->call, st, err);
        if (q->keep) code = add_binary_row(q, st, slots, fields, err);
        if (code) return give_up(q, code);
        if (q->fill.rows % 1024 == 1023) rg__call_overdue(q->c);
    }
}

/* Oracle's library writes to bound places when the statement runs the next time: none of ours may
 * stay. */
static void unbind_slots(MYSQL_STMT *st, MYSQL_BIND *binds, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        binds[i] = (MYSQL_BIND){.buffer_type = MYSQL_TYPE_NULL};
    mysql_stmt_bind_result(st, binds);
}

static int read_binary_rows(query *q, MYSQL_STMT *st, MYSQL_RES *meta, rg_err *err) {
    uint32_t n = mysql_num_fields(meta);
    MYSQL_FIELD *fields = mysql_fetch_fields(meta);
    int code = add_result(q, meta, err);
    if (code) return give_up(q, code);
    slot *slots = rg__calloc(n, sizeof *slots);
    MYSQL_BIND *binds = rg__calloc(n, sizeof *binds);
    if (!slots || !binds) code = give_up(q, rg__fail_memory(err));
    for (uint32_t i = 0; code == 0 && i < n; i++)
        bind_slot(&binds[i], &slots[i], &fields[i], q->fill.r->kinds[i]);
    if (code == 0 && mysql_stmt_bind_result(st, binds))
        code = rg__call_fail(q->c, q->call, st, err);
    if (code == 0) code = fetch_binary_rows(q, st, slots, fields, err);
    if (code == 0) q->call->rows = (int64_t)q->fill.r->n_rows;
    if (slots && binds) unbind_slots(st, binds, n);
    rg__free(slots);
    rg__free(binds);
    return code;
}

static int read_binary_result(query *q, MYSQL_STMT *st, rg_err *err) {
    if (mysql_stmt_field_count(st) == 0)
        return add_answer(q, mysql_stmt_affected_rows(st), mysql_stmt_insert_id(st), err);
    MYSQL_RES *meta = mysql_stmt_result_metadata(st);
    if (!meta) return rg__call_fail(q->c, q->call, st, err);
    int code = read_binary_rows(q, st, meta, err);
    mysql_free_result(meta);
    mysql_stmt_free_result(st);
    return code;
}

static int read_binary_results(query *q, MYSQL_STMT *st, rg_err *err) {
    for (;;) {
        int code = read_binary_result(q, st, err);
        if (code) return q->c->broken ? code : give_up(q, code);
        int more = mysql_stmt_next_result(st);
        if (more < 0) return 0;
        if (more > 0) return rg__call_fail(q->c, q->call, st, err);
    }
}

static int run_prepared(query *q, const char *sql, size_t len, const rg__param *params, size_t n,
                        rg_err *err) {
    rg__stmt *s = rg__stmt_find(q->c, sql, len);
    int code = s ? 0 : rg__stmt_new(q->c, q->call, sql, len, sql, len, &s, err);
    if (code) return code;
    if (s->n_params != n)
        return rg__fail(err, RG_EINVALID, "%u placeholder%s, %zu value%s", s->n_params,
                        s->n_params == 1 ? "" : "s", n, n == 1 ? "" : "s");
    if (!s->extra) {
        s->extra = rg__calloc(n, sizeof(rg__bound));
        s->extra_free = rg__free;
        if (!s->extra) return rg__fail_memory(err);
    }
    q->call->bytes = bind_params(s, params);
    code = rg__call_fits(q->c, q->call->bytes, q->call->what, err);
    if (code == 0) code = rg__stmt_run(q->c, q->call, s, err);
    return code ? code : read_binary_results(q, s->st, err);
}

/* ---- a statement ---- */

static const char *op_of(rg__sql_kind kind) {
    static const char *const names[] = {
        [RG__SQL_READ] = "READ", [RG__SQL_WRITE] = "WRITE", [RG__SQL_DDL] = "DDL",
        [RG__SQL_TX] = "TX",     [RG__SQL_SET] = "SET",     [RG__SQL_CALL] = "CALL",
        [RG__SQL_OTHER] = "SQL",
    };
    return names[kind];
}

static bool is_commit(const char *sql, size_t len) {
    const char *p = sql;
    return rg__token_is(rg__sql_token(&p, sql + len), "COMMIT");
}

static rg__call call_of(const rg__ctx *ctx, const char *sql, size_t len) {
    rg__sql_kind kind = rg__sql_statement_kind(sql, len);
    bool changes = kind != RG__SQL_READ && kind != RG__SQL_SET && kind != RG__SQL_TX;
    return (rg__call){.ctx = ctx,
                      .what = "running a statement",
                      .op = op_of(kind),
                      .write = changes,
                      .commit = kind == RG__SQL_TX && is_commit(sql, len),
                      .bytes = len};
}

static int check(rg__mysql *c, const char *sql, size_t len, bool guarded, rg_err *err) {
    if (!guarded) return 0;
    rg__sql_kind kind = rg__sql_statement_kind(sql, len);
    int code = rg__sql_check_guarded(sql, len, err);
    if (code == 0 && kind != RG__SQL_READ && kind != RG__SQL_WRITE) c->tainted = true;
    return code;
}

int rg__mysql_query(rg__mysql *c, const rg__ctx *ctx, const char *sql, size_t len,
                    const rg__param *params, size_t n_params, bool guarded, rg__result **out,
                    rg_err *err) {
    rg__call call = call_of(ctx, sql, len);
    query q = {.c = c, .call = &call, .keep = out != NULL};
    int code = check(c, sql, len, guarded, err);
    if (code == 0) code = rg__call_fits(c, len, call.what, err);
    if (code == 0) code = rg__call_begin(c, &call, err);
    if (code) return code;
    if (n_params)
        code = run_prepared(&q, sql, len, params, n_params, err);
    else
        code = run_text(&q, sql, len, err);
    code = rg__call_end(c, &call, code, sql, len, err);
    if (code == 0 && q.head) q.head->warnings = c->warnings;
    if (code == 0 && out)
        *out = q.head;
    else
        rg__result_free(q.head);
    return code;
}

int rg__mysql_exec(rg__mysql *c, const rg__ctx *ctx, const char *sql, size_t len,
                   uint64_t *affected, rg_err *err) {
    rg__result *r = NULL;
    int code = rg__mysql_query(c, ctx, sql, len, NULL, 0, false, &r, err);
    if (code == 0 && affected) *affected = r ? r->affected : 0;
    rg__result_free(r);
    return code;
}
