/* SPDX-License-Identifier: MIT */
/* A queue's row in _regolith_ledger: up to where its stream has been applied. */
#ifndef RG_QUEUE_LEDGER_H
#define RG_QUEUE_LEDGER_H

#include "queue/queue.h"

/* The id of a stream entry. */
typedef struct rg__pos {
    uint64_t ms, seq;
} rg__pos;

enum { RG__POS_TEXT = 48 };

static inline int rg__pos_compare(rg__pos a, rg__pos b) {
    if (a.ms != b.ms) return a.ms < b.ms ? -1 : 1;
    return (a.seq > b.seq) - (a.seq < b.seq);
}
/* "ms-seq"; false when it is not that. */
bool rg__pos_parse(rg__slice text, rg__pos *out);
void rg__pos_format(rg__pos p, char out[RG__POS_TEXT]);

/* What a ledger's row says. */
typedef struct rg__ledger {
    rg__pos at;
    uint64_t applied;
    bool paused;    /* nothing is applied until it is resumed */
    uint64_t fence; /* of the consumer that holds the partition; rises with each new holder */
    uint64_t epoch; /* of Redis, of the latest entries applied: those of a later one were not */
} rg__ledger;

/* BEGIN, then the ledger's row FOR UPDATE: waits until a rival's transaction, or one of an
 * unresolved COMMIT, has ended. The tables and the row are made when they are missing. On failure
 * no transaction is open. */
int rg__ledger_lock(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__ledger *row,
                    rg_err *err);
/* Whether some transaction has locked the ledger's row now. */
int rg__ledger_is_locked(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, bool *locked,
                         rg_err *err);
/* Pauses or resumes: when it returns, no batch that began before is under way. */
int rg__ledger_pause(const rg__queue *q, const rg__ctx *ctx, bool paused, rg_err *err);
/* Locks, counts the fence up, commits: who had an earlier one applies nothing from then on. */
int rg__ledger_fence(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t *fence,
                     rg_err *err);
/* Moves to another epoch of Redis, and to a position that may be an earlier one, in the open
 * transaction. */
int rg__ledger_turn(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t epoch, rg__pos to,
                    rg_err *err);
/* The whole row by a plain read. */
int rg__ledger_look(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__ledger *row,
                    rg_err *err);
/* Only locks. */
int rg__ledger_begin(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__pos *at,
                     rg_err *err);
/* Moves the ledger, in the open transaction; applied: operations done since. */
int rg__ledger_advance(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__pos to,
                       uint64_t applied, rg_err *err);
/* A plain read: what has been committed. 0-0 and 0 when there is no ledger yet; applied may be
 * NULL. */
int rg__ledger_read(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__pos *at,
                    uint64_t *applied, rg_err *err);

/* ---- for the statements of this folder ---- */
/* Appends a string as an SQL literal that no sql_mode can change. */
void rg__sql_text(rg__buf *out, const char *s, size_t len);
/* Runs a query without parameters that the caller has built; frees nothing. *out may be NULL. */
int rg__queue_query(rg__mysql *c, const rg__ctx *ctx, rg__buf *sql, rg__result **out, rg_err *err);
/* Digits of a cell; 0 for NULL. */
uint64_t rg__cell_u64(const rg__result *r, size_t row, uint32_t col);
/* True for "no such table", which means that nothing was ever written here. */
static inline bool rg__is_missing_table(const rg_err *err) { return err->sql_errno == 1146; }

#endif
