/* SPDX-License-Identifier: MIT */
/* Conditional writes of many rows whose answers are read later: the next statement is made, and sent, while the
 * server works on the one before it. Each is a transaction of its own, as it would be without. */
#include "mysql/castext.h"
#include "mysql/due.h"

/* A statement that the server has still to be told of would wait for the answers. */
static int find(rg__mysql *c, const rg__call *call, const rg__cas *cas, rg__stmt **out, rg_err *err) {
    if (c->n_ahead == 0) return rg__cas_prepare(c, call, cas, 'C', rg__cas_text_many, out, err);
    const rg__buf *key = rg__cas_key(c, cas, 'C');
    *out = key->failed ? NULL : rg__stmt_find(c, key->p, key->len);
    return RG_OK;
}

static int send(rg__mysql *c, rg__ahead *a, bool *sent, rg_err *err) {
    int code = rg__cas_bind_rows(c, &a->call, a->s, err);
    if (code) return code;
    if (mysql_stmt_bind_param(a->s->st, a->s->params) || rg__due_send(c, a->s->st))
        return rg__call_fail(c, &a->call, a->s->st, err);
    *sent = true;
    return RG_OK;
}

static int end(rg__mysql *c, rg__ahead *a, int code, rg_err *err) {
    rg__slice shown = a->s ? (rg__slice){a->s->sql, a->s->sql_len} : rg__slice_of(a->call.op);
    return rg__write_end(c, &a->call, code, a->type, shown, err);
}

int rg__sql_cas_send(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, const uint64_t *ids,
                     const void *const *rows, const void *const *expected, size_t n, bool *sent, rg_err *err) {
    rg__ahead a = {.call = {.ctx = ctx, .what = "updating", .op = "UPDATE", .write = true}, .type = cas->t};
    *sent = false;
    if (!c->pipelines || c->broken || c->tx != RG__TXS_NONE || c->n_ahead == RG__CAS_AHEAD) return RG_OK;
    int code = rg__cas_add_rows(c, cas, ids, rows, expected, n, err);
    if (code == 0) code = rg__call_begin(c, &a.call, err);
    if (code) return code;
    code = find(c, &a.call, cas, &a.s, err);
    bool possible = a.s && a.s->st;
    if (code == 0 && possible) code = send(c, &a, sent, err);
    rg__conn_text_done(c);
    if (code) return end(c, &a, code, err);
    if (rg__wait_end(c)) c->broken = true;
    if (*sent) c->ahead[c->n_ahead++] = a;
    return RG_OK;
}

/* With the connection that its answer would have come by. */
static int fail_lost(const rg__call *call, rg_err *err) {
    rg__fail(err, RG_ECOMMIT_UNKNOWN, "%s: the connection was lost before the answer; it may have been done",
             call->what);
    if (!err) return RG_ECOMMIT_UNKNOWN;
    err->domain = RG_DOMAIN_MYSQL;
    err->cls = RG_CLASS_AMBIGUOUS;
    return RG_ECOMMIT_UNKNOWN;
}

/* What the server has forgotten is prepared once more when it runs again. */
static int fail(rg__mysql *c, const rg__ahead *a, rg_err *err) {
    bool forgotten = rg__stmt_forgotten(a->s->st);
    int code = rg__call_fail(c, &a->call, a->s->st, err);
    if (forgotten && err) err->cls = RG_CLASS_RETRY;
    return code;
}

/* The server has begun with it when it was done with the one before. */
static int64_t start_waiting(const rg__mysql *c, rg__ahead *a, int64_t since_us) {
    if (a->call.started_us < since_us) a->call.started_us = since_us;
    return rg__call_deadline(c, &a->call, a->call.started_us / 1000);
}

int rg__sql_cas_take(rg__mysql *c, size_t n, uint64_t *marks, rg_err *err) {
    rg__ahead a = c->ahead[0];
    int code = RG_OK;
    *marks = 0;
    memmove(c->ahead, c->ahead + 1, --c->n_ahead * sizeof *c->ahead);
    rg__wait_begin(c, start_waiting(c, &a, c->answered_us));
    if (c->broken)
        code = fail_lost(&a.call, err);
    else if (rg__due_receive(c, a.s->st))
        code = fail(c, &a, err);
    if (code == 0) a.call.rows = (int64_t)mysql_stmt_affected_rows(a.s->st);
    if (code == 0) code = rg__cas_read_marks(a.s, n, marks, err);
    c->answered_us = rg__now_us();
    return end(c, &a, code, err);
}
