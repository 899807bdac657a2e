/* SPDX-License-Identifier: MIT */
/* BEGIN, COMMIT, ROLLBACK. */
#include "mysql/conn.h"

enum { ROLLBACK_MS = 1000 }; /* when the operation has no time left, its locks still have to go */

static int send(rg__mysql *c, rg__call *call, const char *sql, rg_err *err) {
    size_t len = strlen(sql);
    int code = rg__call_begin(c, call, err);
    if (code) return code;
    if (mysql_real_query(c->my, sql, len)) code = rg__call_fail(c, call, NULL, err);
    return rg__call_end(c, call, code, sql, len, err);
}

int rg__mysql_begin(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "beginning a transaction", .op = "BEGIN"};
    if (c->tx != RG__TXS_NONE) return rg__fail(err, RG_EMISUSE, "a transaction is open already");
    return send(c, &call, "BEGIN", err);
}

int rg__mysql_commit(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "committing", .op = "COMMIT", .commit = true};
    return send(c, &call, "COMMIT", err);
}

void rg__mysql_rollback(rg__mysql *c, const rg__ctx *ctx) {
    rg__ctx own = *ctx;
    rg__call call = {.ctx = &own, .what = "rolling back", .op = "ROLLBACK", .rollback = true};
    if (c->broken) return;
    if (rg__left_ms(own.deadline_ms) < ROLLBACK_MS) own.deadline_ms = rg__now_ms() + ROLLBACK_MS;
    if (send(c, &call, "ROLLBACK", NULL)) rg__mysql_poison(c);
}
