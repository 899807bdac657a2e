/* SPDX-License-Identifier: MIT */
/* The inside of a transaction, for the files of this room. */
#ifndef RG_TX_SCOPE_H
#define RG_TX_SCOPE_H

#include "base/map.h"
#include "tx/tx.h"

/* One write, in order. */
typedef struct rg__tx_write {
    const rg_type *type;
    rg__shared *shared;  /* borrowed; NULL: no cache hears of it */
    uint64_t id;
    uint32_t n;          /* its place in the log, for a stable sort */
    rg_block *before, *after; /* owned references */
} rg__tx_write;

/* A savepoint. */
typedef struct rg__tx_frame {
    size_t start;    /* of its writes in the log */
    uint32_t name;   /* number of the savepoint on the server; 0: not sent yet */
} rg__tx_frame;

struct rg__tx {
    rg__mysql_pool *pool;
    const rg__tx *outer;
    rg__tx_opts opts;
    rg__tx_phase phase;
    rg_err cause;
    rg__mysql *conn;         /* OPEN and DOOMED only */
    unsigned long thread_id; /* of conn, to settle an unknown outcome */
    int64_t begun_ms;
    rg__tx_write *writes;
    size_t n_writes, writes_cap;
    rg__tx_frame *frames;
    uint32_t depth, frames_cap;
    rg__map *touched;        /* rows and types written at any time: undone writes stay */
    bool raw;                /* statements of unknown effect were run */
    bool beside;             /* rows were written that no cache knows */
    rg__txid id;             /* drawn at the end, when it marks rows or leaves evidence */
};

void rg__tx_move(rg__tx *tx, rg__tx_phase to);
/* DOOMED for that reason; the first one stays. */
void rg__tx_doom(rg__tx *tx, const rg_err *why);
/* Sets the savepoints that are not set yet, as one. */
int rg__tx_send_savepoints(rg__tx *tx, const rg__ctx *ctx, rg_err *err);

/* Evidence of a commit (tx/outcome.c): a row of the transaction's own. */
int rg__tx_leave_evidence(rg__tx *tx, const rg__ctx *ctx, rg_err *err);
/* After the commit, on its connection: now and then drops such rows that are old. */
void rg__tx_tidy(rg__tx *tx, const rg__ctx *ctx);
/* What became of a COMMIT without an answer: COMMITTED, ROLLED_BACK or UNKNOWN. */
rg__tx_phase rg__tx_resolve(rg__tx *tx, const rg__ctx *ctx);

#endif
