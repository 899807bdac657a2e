/* SPDX-License-Identifier: MIT */
/* Operations on transactions: begin, commit, roll back, undo to a savepoint. */
#include "run/op.h"
#include "run/session.h"
#include "unit/marker.h"

static void drop_tx(rg_op *op) { rg__tx_unref(op->own); }

static rg_op *on_tx(rg_tx *tx, rg__op_fn run, rg_err *err) {
    rg_op *op = rg__op_new(tx->engine, run, err);
    if (!op) return NULL;
    op->own = rg__tx_ref(tx);
    op->holds = rg__tx_holds(tx->tx);
    op->cleanup = drop_tx;
    return op;
}

static rg__tx *tx_of(const rg_op *op) { return ((rg_tx *)op->own)->tx; }

static rg__ctx within_deadline(const rg_op *op, const rg__ctx *ctx) {
    rg__ctx own = *ctx;
    int64_t deadline_ms = rg__tx_opts_of(tx_of(op))->deadline_ms;
    if (deadline_ms < own.deadline_ms) own.deadline_ms = deadline_ms;
    return own;
}

static int run_begin(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__ctx own = within_deadline(op, ctx);
    return rg__tx_begin(tx_of(op), &own, err);
}

static int run_commit(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__ctx own = within_deadline(op, ctx);
    rg__marker marker = {&op->engine->store, ((rg_tx *)op->own)->pool};
    return rg__tx_commit(tx_of(op), &own, op->mode != 0, rg__mark_for_tx, &marker, err);
}

static int run_rollback(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    (void)err;
    rg__tx_rollback(tx_of(op), ctx);
    return RG_OK;
}

static int run_undo(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__tx_undo(tx_of(op), ctx, err);
}

rg_op *rg_op_tx_begin(rg_tx *tx, rg_err *err) { return on_tx(tx, run_begin, err); }
rg_op *rg_op_tx_rollback(rg_tx *tx, rg_err *err) { return on_tx(tx, run_rollback, err); }
rg_op *rg_op_tx_undo(rg_tx *tx, rg_err *err) { return on_tx(tx, run_undo, err); }

rg_op *rg_op_tx_commit(rg_tx *tx, int resolve, rg_err *err) {
    rg_op *op = on_tx(tx, run_commit, err);
    if (op) op->mode = resolve;
    return op;
}

int rg_op_within(rg_op *op, rg_session *s, rg_err *err) {
    return rg__txs_copy(&op->txs, rg__session_txs(s)) < 0 ? rg__fail_memory(err) : RG_OK;
}
