/* SPDX-License-Identifier: MIT */
/* What opens a transaction waits for the first statement in it and travels with it: all are written before
 * any answer is read, which saves a round trip. Until then nothing was sent.
 *
 * Only to servers that read one statement after the other, whoever waits, and that take such a beginning as
 * soon as they take anything: not to nodes of a cluster, which refuse everything now and then, nor to what
 * may be a proxy. Where the statement is a prepared one the client library must be able to send it without
 * reading its answer. */
#include "mysql/conn.h"
#include "mysql/due.h"

#if RG__PIPELINES

/* ---- the opening ---- */

static int send_due(const rg__mysql *c) {
    int failed = 0;
    for (unsigned i = 0; !failed && i < c->n_due; i++)
        failed = mysql_send_query(c->my, c->due[i], strlen(c->due[i]));
    return failed;
}

/* Numbers of the client library: no answer came. */
static bool is_clients_own(unsigned number) {
    return number == 0 || (number >= 2000 && number < 3000) || number >= 5000;
}

/* The statement after it was sent: when the server has refused the opening, that may have been done by
 * itself; when the connection was lost, nothing was, as the opening came first. */
static int fail_opening(rg__mysql *c, const rg__call *call, int code, rg_err *err) {
    bool lost = is_clients_own(mysql_errno(c->my));
    rg__mysql_hang_up(c);
    if (lost || !call->write) return code;
    rg__fail(err, RG_ECOMMIT_UNKNOWN,
             "%s: the server did not begin the transaction; it may have been done outside of one",
             call->what);
    if (err) err->cls = RG_CLASS_AMBIGUOUS;
    return RG_ECOMMIT_UNKNOWN;
}

static int read_due(rg__mysql *c, const rg__call *call, bool alone, rg_err *err) {
    unsigned n = c->n_due;
    int code = 0;
    c->n_due = 0;
    for (unsigned i = 0; code == 0 && i < n; i++) {
        const char *text = c->due[i] ? c->due[i] : "";
        rg__call own = {.ctx = call->ctx, .what = "beginning a transaction",
                        .op = i + 1 < n ? "SET" : "BEGIN", .started_us = call->started_us, .rows = -1};
        if (mysql_read_query_result(c->my)) code = rg__call_fail(c, &own, NULL, err);
        rg__call_tell(c, &own, code, text, strlen(text), err);
    }
    if (code && !alone) return fail_opening(c, call, code, err);
    if (code) rg__mysql_hang_up(c);
    return code;
}

int rg__due_settle(rg__mysql *c, const rg__call *call, rg_err *err) {
    if (c->n_due == 0) return 0;
    if (send_due(c)) return rg__call_fail(c, call, NULL, err);
    return read_due(c, call, true, err);
}

/* ---- with a statement ---- */

int rg__due_query(rg__mysql *c, const rg__call *call, const char *sql, size_t len, rg_err *err) {
    if (c->n_due == 0) return mysql_real_query(c->my, sql, len) ? rg__call_fail(c, call, NULL, err) : 0;
    if (send_due(c) || mysql_send_query(c->my, sql, len)) return rg__call_fail(c, call, NULL, err);
    int code = read_due(c, call, false, err);
    if (code) return code;
    return mysql_read_query_result(c->my) ? rg__call_fail(c, call, NULL, err) : 0;
}

/* False: the library that is there knows nothing of it. */
static bool skip_answers(MYSQL *my, bool skip) {
    rg__flag flag = skip;
    return mysql_optionsv(my, MARIADB_OPT_SKIP_READ_RESPONSE, &flag) == 0;
}

bool rg__due_possible(rg__mysql *c) {
    return skip_answers(c->my, false) && c->my->methods->db_read_execute_response;
}

int rg__due_execute(rg__mysql *c, const rg__call *call, MYSQL_STMT *st, int *failed, rg_err *err) {
    if (c->n_due == 0) {
        *failed = mysql_stmt_execute(st);
        return 0;
    }
    if (send_due(c)) return rg__call_fail(c, call, NULL, err);
    *failed = rg__due_send(c, st);
    int code = read_due(c, call, *failed != 0, err);
    if (code == 0 && !*failed) *failed = rg__due_receive(c, st);
    return code;
}

int rg__due_send(const rg__mysql *c, MYSQL_STMT *st) {
    skip_answers(c->my, true);
    int failed = mysql_stmt_execute(st);
    skip_answers(c->my, false);
    return failed;
}

int rg__due_receive(const rg__mysql *c, MYSQL_STMT *st) { return c->my->methods->db_read_execute_response(st); }

#else

bool rg__due_possible(rg__mysql *c) {
    (void)c;
    return false;
}

int rg__due_settle(rg__mysql *c, const rg__call *call, rg_err *err) {
    (void)c, (void)call, (void)err;
    return 0;
}

int rg__due_query(rg__mysql *c, const rg__call *call, const char *sql, size_t len, rg_err *err) {
    return mysql_real_query(c->my, sql, len) ? rg__call_fail(c, call, NULL, err) : 0;
}

int rg__due_execute(rg__mysql *c, const rg__call *call, MYSQL_STMT *st, int *failed, rg_err *err) {
    (void)c, (void)call, (void)err;
    *failed = mysql_stmt_execute(st);
    return 0;
}

int rg__due_send(const rg__mysql *c, MYSQL_STMT *st) {
    (void)c;
    return mysql_stmt_execute(st);
}

int rg__due_receive(const rg__mysql *c, MYSQL_STMT *st) {
    (void)c, (void)st;
    return 0;
}

#endif
