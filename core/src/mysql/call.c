/* SPDX-License-Identifier: MIT */
/* Calls with a deadline: what goes around each exchange with a server. */
#include "mysql/conn.h"
#include "mysql/pool.h"
#include "mysql/sql.h"

enum { SLOW_READ = 4096 }; /* bytes of a slow statement that are looked at */

bool rg__call_overdue(rg__mysql *c) {
    if (rg__now_ms() < c->deadline_ms) return false;
    rg__conn_cut(c);
    c->broken = c->late = true;
    return true;
}

/* ---- begin and end ---- */

static int refuse(const rg__mysql *c, const rg__call *call, rg_err *err) {
    if (c->broken)
        return rg__fail(err, RG_EUNAVAILABLE, "%s: the connection was lost before", call->what);
    if (c->tx != RG__TXS_DOOMED || call->rollback) return 0;
    return rg__fail(err, RG_EDEADLOCK, "%s: the server has rolled this transaction back",
                    call->what);
}

int64_t rg__call_deadline(const rg__mysql *c, const rg__call *call, int64_t now_ms) {
    int64_t deadline = call->ctx->deadline_ms;
    return deadline == RG__NO_DEADLINE ? now_ms + rg__pool_opts(c->pool)->timeout_ms : deadline;
}

int rg__call_begin(rg__mysql *c, rg__call *call, rg_err *err) {
    int code = refuse(c, call, err);
    if (code) return code;
    call->started_us = rg__now_us();
    call->autocommit = c->tx == RG__TXS_NONE;
    call->rows = -1;
    int64_t now = call->started_us / 1000;
    int64_t deadline = rg__call_deadline(c, call, now);
    if (now >= deadline)
        return rg__fail(err, RG_ETIMEOUT, "%s: the deadline passed before anything was sent",
                        call->what);
    c->late = false;
    c->cancelled = call->autocommit && !call->write ? call->ctx->cancelled : NULL;
    rg__wait_begin(c, deadline);
    return 0;
}

/* Literals are in what users write, and in statements of many rows. */
static void trace(const rg__mysql *c, const rg__call *call, int code, const char *text, size_t len,
                  int64_t took_us, const rg_err *err) {
    const char *failed = code ? (err ? err->message : rg_code_name(code)) : NULL;
    rg__buf shown = {0};
    if (call->ctx->trace->values)
        rg__buf_add(&shown, text, len);
    else
        rg__sql_redact(text, len, &shown);
    rg__trace_add(call->ctx, RG__SOURCE_MYSQL, call->op, rg__mysql_pool_name(c->pool), shown.p,
                  shown.len, rg__wall_us() - took_us, took_us, call->rows, failed);
    rg__buf_deinit(&shown);
}

/* Cut first: what is sent in bulk may be megabytes. */
static void remember(const rg__mysql *c, const rg__call *call, int code, const char *text, size_t len,
                     int64_t took_us) {
    rg__buf shown = {0};
    rg__sql_redact(text, len < SLOW_READ ? len : SLOW_READ, &shown);
    rg_slow_event e = {.started = (double)(rg__wall_us() - took_us) / 1e6,
                       .duration = (double)took_us / 1e6, .rows = (double)call->rows,
                       .source = RG__SOURCE_MYSQL, .code = code};
    rg__slow_add(call->ctx->metrics->slow, &e, call->op, rg__mysql_pool_name(c->pool),
                 (rg__slice){shown.p, shown.len});
    rg__buf_deinit(&shown);
}

/* The status flags came with the answer's last packet; errors have none. */
static void note_state(rg__mysql *c) {
    c->warnings = mysql_warning_count(c->my);
    if (c->my->server_status & SERVER_STATUS_IN_TRANS) {
        if (c->tx == RG__TXS_NONE) c->tx = RG__TXS_OPEN;
    } else if (c->tx != RG__TXS_DOOMED) {
        c->tx = RG__TXS_NONE;
    }
}

static void note_failure(const rg__mysql *c, const rg__call *call) {
    rg__count(call->ctx->metrics, RG__C_MYSQL_ERRORS, 1);
    atomic_fetch_add_explicit(&c->pool->errors, 1, memory_order_relaxed);
}

void rg__call_tell(const rg__mysql *c, const rg__call *call, int code, const char *text, size_t len,
                   const rg_err *err) {
    int64_t took_us = rg__now_us() - call->started_us;
    rg__count(call->ctx->metrics, RG__C_MYSQL_QUERIES, 1);
    rg__observe(call->ctx->metrics, RG__H_MYSQL_SECONDS, took_us);
    if (code) note_failure(c, call);
    if (rg__is_slow(call->ctx->metrics, took_us)) remember(c, call, code, text, len, took_us);
    if (rg__traced(call->ctx, RG__SOURCE_MYSQL)) trace(c, call, code, text, len, took_us, err);
}

int rg__call_end(rg__mysql *c, rg__call *call, int code, const char *text, size_t len,
                 rg_err *err) {
    if (rg__wait_end(c)) c->broken = true;
    if (code == 0 && call->rollback) c->tx = RG__TXS_NONE;
    if (code == 0) note_state(c);
    rg__track_end(c, call, code);
    rg__call_tell(c, call, code, text, len, err);
    return code;
}

/* ---- failures ---- */

/* What was in flight may have been done although no answer came. */
static bool may_be_done(const rg__call *call) {
    return call->commit || (call->write && call->autocommit);
}

static int fail_unknown(const rg__call *call, const char *how, rg_err *err) {
    unsigned number = err ? err->sql_errno : 0;
    rg__fail(err, RG_ECOMMIT_UNKNOWN, "%s: %s before the answer; it may have been done", call->what,
             how);
    if (!err) return RG_ECOMMIT_UNKNOWN;
    err->domain = RG_DOMAIN_MYSQL;
    err->cls = RG_CLASS_AMBIGUOUS;
    err->sql_errno = number;
    return err->code;
}

/* The server goes on with a statement whose client hung up, until it has something to send. */
static int fail_overdue(rg__mysql *c, const rg__call *call, rg_err *err) {
    unsigned long id = c->my->thread_id;
    c->broken = true;
    rg__conn_cut(c);
    rg__wait_end(c);
    rg__pool_stop_statement(c->pool, id);
    if (may_be_done(call)) return fail_unknown(call, "the deadline passed", err);
    rg__fail(err, RG_ETIMEOUT, "%s: the deadline passed", call->what);
    if (err) {
        err->domain = RG_DOMAIN_MYSQL;
        err->cls = RG_CLASS_RECONNECT;
    }
    return RG_ETIMEOUT;
}

static int fail_too_large(const rg__mysql *c, const char *what, rg_err *err) {
    rg__fail(err, RG_ELIMIT, "%s: larger than the server's max_allowed_packet of %zu bytes", what,
             c->max_packet);
    if (err) {
        err->domain = RG_DOMAIN_MYSQL;
        err->cls = RG_CLASS_PERMANENT;
    }
    return RG_ELIMIT;
}

static void note_effect(rg__mysql *c, const rg__sql_class *k) {
    if (k->tx == RG__TX_LOST) c->broken = true;
    if (c->tx == RG__TXS_NONE) return;
    if (k->tx == RG__TX_GONE) c->tx = RG__TXS_DOOMED;
    if (k->tx == RG__TX_OPEN_ROLLBACK && c->tx == RG__TXS_OPEN) c->tx = RG__TXS_MUST_ROLLBACK;
}

int rg__call_fail(rg__mysql *c, const rg__call *call, MYSQL_STMT *st, rg_err *err) {
    unsigned number = st && mysql_stmt_errno(st) ? mysql_stmt_errno(st) : mysql_errno(c->my);
    const char *state = st ? mysql_stmt_sqlstate(st) : mysql_sqlstate(c->my);
    const char *text = st ? mysql_stmt_error(st) : mysql_error(c->my);
    const rg__sql_class *k = rg__sql_classify(c->flavour, number, state);
    rg__conn_forget_closed(c);
    note_effect(c, k);
    if (c->late || (k->tx == RG__TX_LOST && rg__wait_fired(c))) return fail_overdue(c, call, err);
    if ((number == RG__CR_GONE || number == RG__CR_LOST) && call->bytes > c->max_packet)
        return fail_too_large(c, call->what, err);
    int code = rg__sql_fail(c->flavour, number, state, text, call->what, err);
    if (k->cls == RG_CLASS_RECONNECT && k->tx == RG__TX_LOST && may_be_done(call))
        return fail_unknown(call, "the connection was lost", err);
    return code;
}

int rg__call_fits(const rg__mysql *c, size_t bytes, const char *what, rg_err *err) {
    return bytes > c->max_packet ? fail_too_large(c, what, err) : 0;
}
