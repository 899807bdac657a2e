/* SPDX-License-Identifier: MIT */
/* A batch: the operations of one or more whole entries, which are applied in one transaction. */
#ifndef RG_QUEUE_BATCH_H
#define RG_QUEUE_BATCH_H

#include "queue/apply.h"
#include "queue/letters.h"
#include "queue/stream.h"

/* The lookups that wait for an entry. */
typedef struct rg__waiting {
    rg__pos id;
    rg__slice names;
} rg__waiting;

typedef struct rg__batch {
    rg__payload *payloads; /* by entry */
    rg__waiting *waiting;  /* by entry */
    size_t n_entries, cap_entries;
    rg__task *tasks;       /* in order of the stream */
    size_t n, cap;
    size_t n_dead;         /* tasks that are not GOOD */
    rg__pos last;          /* id of the last entry */
    bool careful;          /* one entry, as somebody died of some like it */
    bool singly;           /* some operation is bad: apply them one by one */
    bool resolved;         /* its COMMIT was found in the ledger, and may have been a rival's */
    rg__changes tables;    /* generations of the tables that it writes, when searches of them are cached */
    rg__txid tx;           /* under which they are marked */
    bool marked;
} rg__batch;

/* Decodes entries of the window from w->at on: one at least, more while all of them together stay
 * within max_ops and max_bytes. Operations that cannot be read are DEAD from the start. The bytes
 * stay the window's. */
int rg__batch_make(rg__batch *b, const rg__queue *q, const rg__window *w, size_t max_ops,
                   size_t max_bytes, rg_err *err);
void rg__batch_deinit(rg__batch *b);
/* Makes every good operation a dead one. */
int rg__batch_condemn(rg__batch *b, const rg_err *why, rg_err *err);

/* ---- within the transaction that has locked the ledger ---- */
/* Parks what may not overtake a dead letter of the same row. */
int rg__batch_park(rg__batch *b, rg__dead *dead, const rg__queue *q, rg__mysql *c,
                   const rg__ctx *ctx, rg_err *err);
/* Applies the good ones one by one; those that fail for good become DEAD. 1 when such a failure has
 * ended the transaction, so that it must be begun again. */
int rg__batch_apply_singly(rg__batch *b, rg__mysql *c, const rg__ctx *ctx, rg_err *err);
int rg__batch_write_letters(const rg__batch *b, const rg__queue *q, rg__mysql *c,
                            const rg__ctx *ctx, rg_err *err);

/* ---- cached searches: around the COMMIT ---- */
/* Marks the tables that it writes: no search of them is served from now on. Costs nothing when none is
 * cached. */
int rg__batch_mark(rg__batch *b, const rg__queue *q, const rg__ctx *ctx, rg_err *err);
/* The outcome is known. Repeated it does nothing. */
void rg__batch_unmark(rg__batch *b, const rg__queue *q, const rg__ctx *ctx, bool committed);
/* Writes the events of what was applied, and announces its dead letters. After the letters. */
int rg__batch_write_events(const rg__batch *b, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx,
                           rg_err *err);

/* ---- after its COMMIT ---- */
/* Takes note of the dead ones. */
int rg__batch_note(const rg__batch *b, rg__dead *dead, rg_err *err);
/* Tells the caches that pending entries are in the database: what was applied becomes valid, what
 * was not is dropped; of what was queued later on top of it, they take care. drop: drops all, as it
 * is not known what became of which. */
int rg__batch_tell(const rg__batch *b, bool drop, const rg__queue *q, const rg__ctx *ctx,
                   rg_err *err);

/* Drops what the caches hold of a batch's rows: they knew nothing of its being applied again. */
int rg__batch_forget(const rg__batch *b, const rg__queue *q, const rg__ctx *ctx, rg_err *err);

/* True for what would fail the same way for ever. */
static inline bool rg__is_permanent(const rg_err *err) { return err->cls == RG_CLASS_PERMANENT; }

#endif
