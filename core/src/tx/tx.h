/* SPDX-License-Identifier: MIT */
/* Transactions that live longer than one operation: propagation, the connection, savepoints and what
 * each of them has written, and the end with the cache protocol around it (consistency.md 2.2).
 *
 * A transaction begins when the first statement needs it. Reads of cached types go past it to the
 * caches until something was written or locked. Confined: one operation at a time, whose thread may
 * change. */
#ifndef RG_TX_TX_H
#define RG_TX_TX_H

#include <regolith/tx.h>
#include "cache/value.h"
#include "mysql/mysql.h"

typedef struct rg__tx rg__tx;

/* What may be done next; changed by rg__tx_move alone (tx/tx.c has the table). */
typedef enum rg__tx_phase {
    RG__TX_IDLE = RG_TX_IDLE,         /* no statement was sent yet: no connection */
    RG__TX_OPEN = RG_TX_OPEN,         /* begun on `conn` */
    RG__TX_DOOMED = RG_TX_DOOMED,     /* rolled back by the server, lost, or late: only an end is left */
    RG__TX_COMMITTED = RG_TX_COMMITTED,
    RG__TX_ROLLED_BACK = RG_TX_ROLLED_BACK,
    RG__TX_UNKNOWN = RG_TX_UNKNOWN    /* COMMIT was sent and nobody knows what became of it */
} rg__tx_phase;

typedef struct rg__tx_opts {
    rg__isolation isolation;
    bool read_only;
    int64_t deadline_ms; /* RG__NO_DEADLINE: none */
} rg__tx_opts;

/* pool is borrowed. outer: the suspended transaction on the same pool of the same caller, borrowed for
 * as long as this one lives; NULL when there is none. */
rg__tx *rg__tx_new(rg__mysql_pool *pool, const rg__tx_opts *opts, const rg__tx *outer, rg_err *err);
/* Drops it in any phase: a connection that it still has is closed, never given back. *leaked (may be
 * NULL): there was one. */
void rg__tx_free(rg__tx *tx, bool *leaked);

rg__tx_phase rg__tx_phase_of(const rg__tx *tx);
/* Why it is doomed, rolled back or unknown; code 0 when it is not. */
const rg_err *rg__tx_cause(const rg__tx *tx);
const rg__tx_opts *rg__tx_opts_of(const rg__tx *tx);
bool rg__tx_holds(const rg__tx *tx); /* a connection; by an outer one, too */
/* Ends one that nobody will go on with, unless it has ended: ROLLED_BACK, by closing its connection. Never
 * waits. */
void rg__tx_abandon(rg__tx *tx);

/* The transaction of a pool in a context, or NULL. */
static inline rg__tx *rg__tx_of(const rg__ctx *ctx, int mysql_pool) {
    return ctx->txs && mysql_pool >= 0 ? ctx->txs[mysql_pool] : NULL;
}

/* ---- statements (tx/tx.c) ---- */
typedef enum rg__tx_need {
    RG__TX_READS = 0,
    RG__TX_WRITES /* or locks: pending savepoints are set first */
} rg__tx_need;
/* The connection for one or more statements of this operation, borrowed; begins the transaction when
 * it has not. Fails in phases without statements. */
int rg__tx_use(rg__tx *tx, const rg__ctx *ctx, rg__tx_need need, rg__mysql **c, rg_err *err);
/* After statements: notes what their failure did to the transaction. Returns rc. */
int rg__tx_after(rg__tx *tx, int rc, const rg_err *err);
/* Before several statements that are one step for the caller, and when they are to be undone. */
int rg__tx_guard(rg__tx *tx, const rg__ctx *ctx, rg_err *err);
void rg__tx_unguard(rg__tx *tx, const rg__ctx *ctx);
/* Half a step was done and cannot be undone: nothing may be committed. */
void rg__tx_give_up(rg__tx *tx, const rg_err *why);
/* Has it begun now. */
int rg__tx_begin(rg__tx *tx, const rg__ctx *ctx, rg_err *err);

/* ---- frames: what each savepoint has written (tx/frame.c) ---- */
/* Sets a savepoint, in effect; it is sent with the first statement that needs it. Its depth, from 1. */
int rg__tx_push(rg__tx *tx, rg_err *err);
/* Leaves the innermost savepoint; what it has written is its parent's now. */
int rg__tx_merge(rg__tx *tx, rg_err *err);
/* Rolls back to the innermost savepoint and leaves it. */
int rg__tx_undo(rg__tx *tx, const rg__ctx *ctx, rg_err *err);

/* How many writes were noted; those from a number on are forgotten. */
size_t rg__tx_noted(const rg__tx *tx);
void rg__tx_forget(rg__tx *tx, size_t from);
/* A row was written: before NULL inserted, after NULL deleted (references are taken). shared: where
 * its type is cached, or NULL. */
int rg__tx_note(rg__tx *tx, const rg_type *t, rg__shared *shared, uint64_t id, rg_block *before,
                rg_block *after, rg_err *err);
/* Statements of unknown effect were run: no cache tells what this transaction would see. */
void rg__tx_note_raw(rg__tx *tx);
/* Rows of no entity were written: there is something to commit, and nothing to be told. */
void rg__tx_note_beside(rg__tx *tx);
/* Must reads of this row (id 0: of lists of rows of this type) go past the caches? */
bool rg__tx_past_caches(const rg__tx *tx, const rg_type *t, uint64_t id);
/* Was the row written or deleted by it; by one that is suspended while the context's runs, so that
 * waiting for its lock would never end? */
bool rg__tx_wrote(const rg__tx *tx, const rg_type *t, uint64_t id);
bool rg__tx_suspended_wrote(const rg__ctx *ctx, const rg_type *t, uint64_t id);

/* ---- the end (tx/commit.c) ---- */
/* How changes of one Redis pool are marked on behalf of a transaction whose connection it is: what to
 * do when Redis is away is for who knows the policies. *marked false: nothing to unmark or publish. */
typedef int (*rg__tx_mark_fn)(void *arg, const rg__ctx *ctx, rg__shared *shared, rg__txid tx,
                              rg__changes *changes, rg__mysql *conn, bool *marked, rg_err *err);
/* MARK, COMMIT, PUBLISH; the connection goes back. values: what is set and deleted in caches of values
 * with it, or NULL. resolve: leaves evidence, so that a lost COMMIT can
 * be told from a rolled back one. Whatever it returns, the transaction has ended: 0 committed,
 * ECOMMIT_UNKNOWN, or rolled back with that error. */
int rg__tx_commit(rg__tx *tx, const rg__ctx *ctx, bool resolve, rg__value_changes *values,
                  rg__tx_mark_fn mark, void *arg, rg_err *err);
/* ROLLBACK. Never fails: a connection that cannot be rolled back is closed, which does it. */
void rg__tx_rollback(rg__tx *tx, const rg__ctx *ctx);

#endif
