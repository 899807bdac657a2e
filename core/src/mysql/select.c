/* SPDX-License-Identifier: MIT */
/* Statements that yield rows of a type: prepared with a reader, run row by row. */
#include "mysql/select.h"

#include "base/alloc.h"

static void free_select(void *p) {
    rg__selection *s = p;
    rg__row_reader_deinit(&s->reader);
    rg__buf_deinit(&s->scratch);
    rg__free(s->bounds);
    rg__free(s);
}

/* ---- rows out of a statement ---- */

static int make_select(rg__mysql *c, const rg__call *call, rg__stmt *s, const rg_type *t,
                       rg_err *err) {
    rg__selection *x = rg__calloc(1, sizeof *x);
    if (!x) return rg__fail_memory(err);
    s->extra = x;
    s->extra_free = free_select;
    x->bounds = rg__calloc(s->n_params ? s->n_params : 1, sizeof *x->bounds);
    if (!x->bounds) return rg__fail_memory(err);
    int code = rg__row_reader_init(&x->reader, t, err);
    s->results = x->reader.binds;
    return code ? code : rg__stmt_bind_results(c, call, s, err);
}

int rg__select_prepare(rg__mysql *c, const rg__call *call, const rg_type *t, const rg__buf *key,
                       const rg__buf *sql, rg__stmt **out, rg_err *err) {
    if (sql->failed || key->failed) return rg__fail_memory(err);
    int code = rg__stmt_new(c, call, key->p, key->len, sql->p, sql->len, out, err);
    if (code) return code;
    code = make_select(c, call, *out, t, err);
    if (code) rg__stmt_drop(c, *out);
    return code;
}

int rg__select_run(rg__mysql *c, rg__call *call, rg__stmt *s, rg__row_fn fn, void *arg,
                   rg_err *err) {
    int code = rg__stmt_run(c, call, s, err);
    return code ? code : rg__select_rows(c, call, s, fn, arg, err);
}

int rg__select_rows(rg__mysql *c, rg__call *call, rg__stmt *s, rg__row_fn fn, void *arg, rg_err *err) {
    rg__selection *x = s->extra;
    int code = 0;
    for (call->rows = 0; code == 0; call->rows++) {
        int rc = mysql_stmt_fetch(s->st);
        if (rc == MYSQL_NO_DATA) break;
        if (rc != 0 && rc != MYSQL_DATA_TRUNCATED) return rg__call_fail(c, call, s->st, err);
        rg_block *row = rg__row_read(&x->reader, s->st, rc, err);
        if (row)
            code = fn(arg, row);
        else
            code = err ? err->code : RG_ESCHEMA;
        if (call->rows % 256 == 255) rg__call_overdue(c);
    }
    if (code) rg__stmt_drain(c, s);
    rg__count(call->ctx->metrics, RG__C_DB_ROWS_READ, (uint64_t)call->rows);
    return code;
}

/* Only MySQL has FOR SHARE, and only there may it be followed by how to wait. Servers older than NOWAIT
 * wait for the lock. */
void rg__select_lock(const rg__mysql *c, rg__buf *sql, rg__lock lock) {
    bool maria = c->flavour == RG__MARIADB;
    bool knows = c->version >= (maria ? 100300 : 80001);
    bool special = (lock & (RG__LOCK_NOWAIT | RG__LOCK_SKIP)) && knows && !maria;
    if (lock & RG__LOCK_SHARE) rg__buf_str(sql, special ? " FOR SHARE" : " LOCK IN SHARE MODE");
    if (lock & RG__LOCK_UPDATE) rg__buf_str(sql, " FOR UPDATE");
    if ((lock & RG__LOCK_NOWAIT) && knows) rg__buf_str(sql, " NOWAIT");
    if (lock & RG__LOCK_SKIP) rg__buf_str(sql, " SKIP LOCKED");
}

void rg__select_begin(rg__buf *sql, const rg_type *t) {
    rg__buf_str(sql, "SELECT ");
    rg__buf_str(sql, t->select_list);
    rg__buf_fmt(sql, " FROM %s", t->quoted);
}

int rg__select_end(rg__mysql *c, rg__call *call, int code, const rg__stmt *s, const rg_type *t,
                   rg_err *err) {
    code = rg__call_end(c, call, code, s ? s->sql : t->quoted, s ? s->sql_len : strlen(t->quoted),
                        err);
    if (code && err && err->domain == RG_DOMAIN_MYSQL) rg__sql_fail_entity(err, t);
    return code;
}
