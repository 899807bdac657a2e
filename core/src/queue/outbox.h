/* SPDX-License-Identifier: MIT */
/* The outbox: events written as rows of _regolith_outbox in the transaction whose outcome they
 * follow, and the relay that moves them to Redis streams.
 *
 * MySQL (made on first use, in the pool's database):
 *   _regolith_outbox(number AUTO_INCREMENT PK, uid BINARY(16), stream, body, at)
 *   _regolith_relay(name PK, fence, holder, held_until)   one row, "outbox"
 * Redis: stream "{P}:ev:<stream>", fields id (uid in hex) and body; "{P}:rf:<pool>" the highest fence;
 * "{P}:rs:<pool>" the uids that are in a stream while their rows may still be in the outbox.
 *
 * An event appears once. A relay takes the fence in MySQL, makes it known in Redis, and only then reads;
 * its script publishes what is not among the uids and refuses a fence that is not the highest. Rows are
 * deleted after that, and their uids forgotten after that. Who is replaced can at most delete rows that
 * its own script published. A crash between any two steps is made good by who takes over: what the
 * uids hold is not published again, and uids without a row are dropped.
 *
 * Events of one row appear in the order of its commits: their numbers are given while the row is
 * locked. */
#ifndef RG_QUEUE_OUTBOX_H
#define RG_QUEUE_OUTBOX_H

#include "queue/ledger.h"

/* ---- event.c ---- */
void rg__json_text(rg__buf *out, const char *p, size_t len);
/* {"entity":, "id":, "kind":, "changed":[..], "values":{..}}. row may be NULL; mask: of updates. */
void rg__event_text(const rg_type *t, int write, uint64_t id, const void *row, const uint8_t *mask,
                    rg__buf *out);

/* ---- outbox.c ---- */
/* Rows to be written in one transaction. */
typedef struct rg__outbox {
    const rg__queue *q;
    rg__mysql *c;      /* in the transaction; borrowed */
    rg__buf sql;       /* the INSERT so far */
    rg__buf body;      /* scratch */
    size_t n;          /* rows in it */
} rg__outbox;
/* Makes the tables when this process has not seen them yet, on another connection of the pool: a
 * CREATE TABLE would commit. To be called before the transaction's connection is taken. */
int rg__outbox_ready(const rg__queue *q, const rg__ctx *ctx, rg_err *err);
/* The event of a write, on every stream of its type that wants it. */
int rg__outbox_tell(rg__outbox *o, const rg__ctx *ctx, const rg_type *t, int write, uint64_t id,
                    const void *row, const uint8_t *mask, rg_err *err);
/* The event of a queued operation that was applied. */
int rg__qop_tell(rg__outbox *o, const rg__ctx *ctx, const rg__qdecoded *op, rg_err *err);
/* Any text on any stream. */
int rg__outbox_add(rg__outbox *o, const rg__ctx *ctx, rg__slice stream, rg__slice body, rg_err *err);
/* Runs what is not run yet; to be called before COMMIT. */
int rg__outbox_write(rg__outbox *o, const rg__ctx *ctx, rg_err *err);
void rg__outbox_deinit(rg__outbox *o);
/* Name of the stream on which a queue's dead letters are announced: "dead-letters.<queue>". */
void rg__dead_stream(const rg__queue *q, rg__buf *out);

/* ---- relay.c ---- */
/* Moves events of one pool; one thread at a time. */
typedef struct rg__relay rg__relay;
rg__relay *rg__relay_new(const rg__queue *q, rg_err *err);
void rg__relay_free(rg__relay *r);
/* Moves a few hundred rows at most; *moved: how many. Another relay at work is no error: 0. */
int rg__relay_step(rg__relay *r, const rg__ctx *ctx, uint64_t *moved, rg_err *err);

#endif
