/* SPDX-License-Identifier: MIT */
/* What became of a COMMIT that nobody answered: a row that the transaction wrote about itself tells. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "tx/scope.h"

enum {
    RESOLVE_MS = 5000,   /* to find out, beyond the operation's own time */
    PAUSE_MS = 50,
    TIDY_ONE_IN = 256,   /* commits with evidence, of this process; one of them drops what is old */
    TIDY_MS = 1000       /* at most, of the one that does */
};

static const char make_table[] = "CREATE TABLE IF NOT EXISTS `_regolith_tx` ("
                                 "`txid` BINARY(16) NOT NULL PRIMARY KEY,"
                                 "`at` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (`at`)) "
                                 "ENGINE=InnoDB";

static int run(rg__mysql *c, const rg__ctx *ctx, const char *sql, rg__result **out, rg_err *err) {
    return rg__mysql_query(c, ctx, sql, strlen(sql), NULL, 0, false, out, err);
}

/* A statement on a connection beside the transaction's own. */
static int run_beside(const rg__tx *tx, const rg__ctx *ctx, const char *sql, rg__result **out,
                      rg_err *err) {
    rg__mysql *c = NULL;
    rg__ctx own = *ctx;
    own.nested = true;
    int rc = rg__mysql_acquire(tx->pool, &own, &c, err);
    if (rc < 0) return rc;
    rc = run(c, &own, sql, out, err);
    rg__mysql_release(c);
    return rc;
}

static void hex_of(const rg__txid *id, char hex[33]) {
    for (int i = 0; i < 16; i++) snprintf(hex + 2 * i, 3, "%02x", id->bytes[i]);
}

/* ---- leaving it ---- */

/* Making a table would commit the transaction: another connection does it. */
int rg__tx_leave_evidence(rg__tx *tx, const rg__ctx *ctx, rg_err *err) {
    char sql[128], hex[33];
    rg_err why = {0};
    hex_of(&tx->id, hex);
    snprintf(sql, sizeof sql, "INSERT INTO `_regolith_tx` (`txid`) VALUES (X'%s')", hex);
    int rc = run(tx->conn, ctx, sql, NULL, &why);
    if (why.sql_errno == 1146) {
        rc = run_beside(tx, ctx, make_table, NULL, &why);
        if (rc >= 0) rc = run(tx->conn, ctx, sql, NULL, &why);
    }
    if (rc < 0 && err) *err = why;
    return rc;
}

/* ---- dropping what is old ---- */

/* By key: a DELETE by age would lock the first row that is not old enough, and wait for a transaction
 * that has just written it. */
static void drop(rg__mysql *c, const rg__ctx *ctx, const rg__result *old) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "DELETE FROM `_regolith_tx` WHERE `txid` IN (");
    for (size_t i = 0; i < old->n_rows; i++)
        rg__buf_fmt(&sql, "%sX'%.*s'", i ? "," : "", (int)old->cells[i].len, old->cells[i].p);
    rg__buf_str(&sql, ")");
    if (!sql.failed) rg__mysql_exec(c, ctx, sql.p, sql.len, NULL, NULL);
    rg__buf_deinit(&sql);
}

void rg__tx_tidy(rg__tx *tx, const rg__ctx *ctx) {
    static atomic_uint commits;
    if (atomic_fetch_add(&commits, 1) % TIDY_ONE_IN) return;
    rg__ctx own = *ctx;
    if (rg__left_ms(own.deadline_ms) > TIDY_MS) own.deadline_ms = rg__now_ms() + TIDY_MS;
    rg__result *old = NULL;
    int rc = run(tx->conn, &own,
                 "SELECT HEX(`txid`) FROM `_regolith_tx` WHERE `at`<NOW()-INTERVAL 1 DAY LIMIT 1000", &old,
                 NULL);
    if (rc >= 0 && old && old->n_rows > 0) drop(tx->conn, &own, old);
    rg__result_free(old);
}

/* ---- finding it ---- */

/* Has the server been up for longer than the transaction is old? Then its thread's number is still
 * its own; after a restart it could be anybody's. */
static bool same_server(const rg__tx *tx, const rg__ctx *ctx) {
    rg__result *r = NULL;
    bool same = false;
    if (run_beside(tx, ctx, "SHOW GLOBAL STATUS LIKE 'Uptime'", &r, NULL) >= 0 && r->n_rows == 1) {
        int64_t up_s = strtoll(r->cells[1].p, NULL, 10);
        same = up_s * 1000 > rg__now_ms() - tx->begun_ms;
    }
    rg__result_free(r);
    return same;
}

/* Waits for the transaction's lock on its row, should it still be at work: then the answer is final. */
static int look(const rg__tx *tx, const rg__ctx *ctx, bool *there) {
    char sql[128], hex[33];
    rg__result *r = NULL;
    hex_of(&tx->id, hex);
    snprintf(sql, sizeof sql, "SELECT 1 FROM `_regolith_tx` WHERE `txid`=X'%s' LOCK IN SHARE MODE", hex);
    int rc = run_beside(tx, ctx, sql, &r, NULL);
    *there = rc >= 0 && r->n_rows > 0;
    rg__result_free(r);
    return rc;
}

rg__tx_phase rg__tx_resolve(rg__tx *tx, const rg__ctx *ctx) {
    rg__ctx own = *ctx;
    own.deadline_ms = rg__now_ms() + RESOLVE_MS;
    bool there = false;
    do {
        if (same_server(tx, &own)) rg__mysql_kill(tx->pool, &own, tx->thread_id, NULL);
        if (look(tx, &own, &there) >= 0) return there ? RG__TX_COMMITTED : RG__TX_ROLLED_BACK;
        rg__sleep_ms(PAUSE_MS);
    } while (rg__left_ms(own.deadline_ms) > 0);
    return RG__TX_UNKNOWN;
}
