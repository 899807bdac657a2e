/* SPDX-License-Identifier: MIT */
/* BEGIN, COMMIT, ROLLBACK, savepoints. */
#include "mysql/conn.h"
#include "mysql/due.h"

#include <stdio.h>

enum { ROLLBACK_MS = 1000 }; /* when the operation has no time left, its locks still have to go */

static int send(rg__mysql *c, rg__call *call, const char *sql, rg_err *err) {
    size_t len = strlen(sql);
    int code = rg__call_begin(c, call, err);
    if (code) return code;
    code = rg__due_query(c, call, sql, len, err);
    return rg__call_end(c, call, code, sql, len, err);
}

int rg__mysql_begin(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "beginning a transaction", .op = "BEGIN"};
    if (c->tx != RG__TXS_NONE) return rg__fail(err, RG_EMISUSE, "a transaction is open already");
    return send(c, &call, "BEGIN", err);
}

static const char *const level_texts[] = {
    [RG__ISOLATION_DEFAULT] = NULL,
    [RG__READ_UNCOMMITTED] = "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
    [RG__READ_COMMITTED] = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    [RG__REPEATABLE_READ] = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    [RG__SERIALIZABLE] = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    [RG__SNAPSHOT] = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
};

/* Both are for the next transaction only; should that not begin, they would stay. */
static int set_isolation(rg__mysql *c, const rg__ctx *ctx, rg__isolation level, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "setting the isolation", .op = "SET"};
    c->tainted = true;
    return send(c, &call, level_texts[level], err);
}

/* Without it a snapshot would let lost updates through: nothing is begun then. */
static int refuse_stale_writes(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "asking for snapshots", .op = "SET"};
    rg_err why = {0};
    int code = send(c, &call, "SET SESSION innodb_snapshot_isolation=ON", &why);
    if (why.sql_errno == 1193)
        return rg__fail(err, RG_EINVALID, "this server has no isolation SNAPSHOT");
    if (code && err) *err = why;
    return code;
}

static const char *opening(rg__isolation level, bool read_only) {
    if (level == RG__SNAPSHOT)
        return read_only ? "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
                         : "START TRANSACTION WITH CONSISTENT SNAPSHOT";
    return read_only ? "START TRANSACTION READ ONLY" : "BEGIN";
}

/* A snapshot is of now: the others wait for the first statement where they can. */
int rg__mysql_start(rg__mysql *c, const rg__ctx *ctx, rg__isolation level, bool read_only,
                    rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "beginning a transaction", .op = "BEGIN"};
    if (c->tx != RG__TXS_NONE) return rg__fail(err, RG_EMISUSE, "a transaction is open already");
    if (c->pipelines && level != RG__SNAPSHOT) {
        rg__due_open(c, level_texts[level], opening(level, read_only));
        return 0;
    }
    bool was_tainted = c->tainted;
    int code = level == RG__SNAPSHOT ? refuse_stale_writes(c, ctx, err) : 0;
    if (code == 0 && level != RG__ISOLATION_DEFAULT) code = set_isolation(c, ctx, level, err);
    if (code) return code;
    code = send(c, &call, opening(level, read_only), err);
    if (code == 0) c->tainted = was_tainted || level == RG__SNAPSHOT;
    return code;
}

int rg__mysql_savepoint(rg__mysql *c, const rg__ctx *ctx, const char *name, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "setting a savepoint", .op = "SAVEPOINT"};
    char sql[64];
    snprintf(sql, sizeof sql, "SAVEPOINT %s", name);
    return send(c, &call, sql, err);
}

int rg__mysql_rollback_to(rg__mysql *c, const rg__ctx *ctx, const char *name, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "rolling back to a savepoint", .op = "ROLLBACK"};
    char sql[64];
    snprintf(sql, sizeof sql, "ROLLBACK TO %s", name);
    return send(c, &call, sql, err);
}

/* A connection that was lost before COMMIT is sent has committed nothing: that much is certain. */
static int check_alive(rg__mysql *c, rg_err *err) {
    if (c->broken || rg__conn_quiet(c)) return 0;
    c->broken = true;
    rg__fail(err, RG_EUNAVAILABLE, "committing: the connection was lost before COMMIT was sent");
    if (err) {
        err->domain = RG_DOMAIN_MYSQL;
        err->cls = RG_CLASS_RECONNECT;
    }
    return RG_EUNAVAILABLE;
}

int rg__mysql_commit(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "committing", .op = "COMMIT", .commit = true};
    if (rg__due_forget(c)) return 0;
    int code = check_alive(c, err);
    return code ? code : send(c, &call, "COMMIT", err);
}

void rg__mysql_rollback(rg__mysql *c, const rg__ctx *ctx) {
    rg__ctx own = *ctx;
    rg__call call = {.ctx = &own, .what = "rolling back", .op = "ROLLBACK", .rollback = true};
    if (c->broken || rg__due_forget(c)) return;
    if (rg__left_ms(own.deadline_ms) < ROLLBACK_MS) own.deadline_ms = rg__now_ms() + ROLLBACK_MS;
    if (send(c, &call, "ROLLBACK", NULL)) rg__mysql_poison(c);
}
