/* SPDX-License-Identifier: MIT */
/* The physical transaction: its phases, its connection, statements on it. */
#include "tx/scope.h"

#include <assert.h>
#include <stdio.h>

#include "base/alloc.h"

/* From which phases (bits) each may be entered; what asserts are for. */
__attribute__((unused)) static const uint8_t entered_from[] = {
    [RG__TX_IDLE] = 0,
    [RG__TX_OPEN] = 1 << RG__TX_IDLE,
    [RG__TX_DOOMED] = 1 << RG__TX_IDLE | 1 << RG__TX_OPEN,
    [RG__TX_COMMITTED] = 1 << RG__TX_IDLE | 1 << RG__TX_OPEN,
    [RG__TX_ROLLED_BACK] = 1 << RG__TX_IDLE | 1 << RG__TX_OPEN | 1 << RG__TX_DOOMED,
    [RG__TX_UNKNOWN] = 1 << RG__TX_OPEN,
};

void rg__tx_move(rg__tx *tx, rg__tx_phase to) {
    assert(entered_from[to] & 1 << tx->phase);
    tx->phase = to;
}

void rg__tx_doom(rg__tx *tx, const rg_err *why) {
    if (tx->phase != RG__TX_IDLE && tx->phase != RG__TX_OPEN) return;
    tx->cause = *why;
    rg__tx_move(tx, RG__TX_DOOMED);
}

/* ---- life ---- */

rg__tx *rg__tx_new(rg__mysql_pool *pool, const rg__tx_opts *opts, const rg__tx *outer, rg_err *err) {
    rg__tx *tx = rg__calloc(1, sizeof *tx);
    if (!tx) {
        rg__fail_memory(err);
        return NULL;
    }
    tx->pool = pool;
    tx->opts = *opts;
    tx->outer = outer;
    return tx;
}

void rg__tx_free(rg__tx *tx, bool *leaked) {
    if (leaked) *leaked = tx && tx->conn;
    if (!tx) return;
    if (tx->conn) {
        rg__mysql_poison(tx->conn);
        rg__mysql_release(tx->conn);
    }
    rg__tx_forget(tx, 0);
    rg__map_free(tx->touched);
    rg__free(tx->writes);
    rg__free(tx->frames);
    rg__free(tx);
}

rg__tx_phase rg__tx_phase_of(const rg__tx *tx) { return tx->phase; }
const rg_err *rg__tx_cause(const rg__tx *tx) { return &tx->cause; }
const rg__tx_opts *rg__tx_opts_of(const rg__tx *tx) { return &tx->opts; }

bool rg__tx_holds(const rg__tx *tx) {
    for (; tx; tx = tx->outer)
        if (tx->conn) return true;
    return false;
}

/* ---- beginning ---- */

static int start(rg__tx *tx, const rg__ctx *ctx, rg_err *err) {
    rg__ctx within = *ctx;
    rg__mysql *c = NULL;
    within.nested |= rg__tx_holds(tx->outer);
    int rc = rg__mysql_acquire(tx->pool, &within, &c, err);
    if (rc < 0) return rc;
    rc = rg__mysql_start(c, ctx, tx->opts.isolation, tx->opts.read_only, err);
    if (rc < 0) {
        rg__mysql_release(c);
        return rc;
    }
    tx->conn = c;
    tx->thread_id = rg__mysql_thread_id(c);
    tx->begun_ms = rg__now_ms();
    rg__tx_move(tx, RG__TX_OPEN);
    return RG_OK;
}

/* The server may end a transaction without a word (innodb_rollback_on_timeout); what follows would be
 * committed by itself. */
static int check_open(rg__tx *tx, rg_err *err) {
    if (rg__mysql_in_transaction(tx->conn) && !rg__mysql_broken(tx->conn)) return RG_OK;
    rg_err why = {0};
    rg__fail(&why, RG_EUNAVAILABLE, "the server has ended the transaction");
    rg__tx_doom(tx, &why);
    if (err) *err = why;
    return why.code;
}

static int check_deadline(rg__tx *tx, rg_err *err) {
    if (rg__left_ms(tx->opts.deadline_ms) > 0) return RG_OK;
    rg_err why = {0};
    rg__fail(&why, RG_ETIMEOUT, "the transaction's deadline has passed");
    rg__tx_doom(tx, &why);
    if (err) *err = why;
    return why.code;
}

static int refuse(const rg__tx *tx, rg_err *err) {
    if (tx->phase != RG__TX_DOOMED) return rg__fail(err, RG_ECLOSED, "the transaction has ended");
    if (!err) return tx->cause.code;
    *err = tx->cause;
    err->item = -1;
    return rg__err_prefix(err, "the transaction can only be rolled back: ");
}

int rg__tx_use(rg__tx *tx, const rg__ctx *ctx, rg__tx_need need, rg__mysql **c, rg_err *err) {
    *c = NULL;
    if (tx->phase != RG__TX_IDLE && tx->phase != RG__TX_OPEN) return refuse(tx, err);
    int rc = check_deadline(tx, err);
    if (rc >= 0) rc = tx->phase == RG__TX_IDLE ? start(tx, ctx, err) : check_open(tx, err);
    if (rc >= 0 && need == RG__TX_WRITES) rc = rg__tx_send_savepoints(tx, ctx, err);
    if (rc >= 0) *c = tx->conn;
    return rc;
}

int rg__tx_begin(rg__tx *tx, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *c = NULL;
    return rg__tx_use(tx, ctx, RG__TX_READS, &c, err);
}

int rg__tx_after(rg__tx *tx, int rc, const rg_err *err) {
    if (rc >= 0 || tx->phase != RG__TX_OPEN) return rc;
    if (!rg__mysql_broken(tx->conn) && !rg__mysql_doomed(tx->conn)) return rc;
    rg_err why = {.code = rc, .item = -1};
    rg__tx_doom(tx, err ? err : &why);
    return rc;
}

/* ---- several statements as one ---- */

#define GUARD "rg_step"

int rg__tx_guard(rg__tx *tx, const rg__ctx *ctx, rg_err *err) {
    return rg__tx_after(tx, rg__mysql_savepoint(tx->conn, ctx, GUARD, err), err);
}

void rg__tx_give_up(rg__tx *tx, const rg_err *why) { rg__tx_doom(tx, why); }

/* A guard that cannot be undone leaves half a step behind: then nothing may be committed. */
void rg__tx_unguard(rg__tx *tx, const rg__ctx *ctx) {
    rg_err why = {0};
    if (tx->phase != RG__TX_OPEN) return;
    rg__ctx own = *ctx;
    if (rg__left_ms(own.deadline_ms) < 1000) own.deadline_ms = rg__now_ms() + 1000;
    if (rg__mysql_rollback_to(tx->conn, &own, GUARD, &why) < 0) rg__tx_doom(tx, &why);
}
