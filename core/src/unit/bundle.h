/* SPDX-License-Identifier: MIT */
/* One queue's part of an asynchronous flush. Its stages, in this order:
 *
 *   empty    nothing of the flush belongs to this queue: n is 0, and what follows does nothing
 *   ready    planned, and all was looked at that can be before anything is queued; rows that others have
 *            written since they were read are rebased (rebase.c): `before` and `after` of the items change
 *   asked    the queue would take it, as far as it can tell now; only when the flush is in several queues
 *   queued   it is in the stream, and cached reads see it
 *
 * A stage that fails ends the flush; none is gone back to. */
#ifndef RG_UNIT_BUNDLE_H
#define RG_UNIT_BUNDLE_H

#include "unit/flush.h"

typedef struct rg__bundle {
    rg__store *store;
    const rg__ctx *ctx;
    rg__items *items;       /* of the whole flush, borrowed */
    const rg__queue *queue; /* the partition of it that the bundle belongs to */
    int durability;         /* rg_durability; FAST when nothing has to be waited for */
    uint32_t wait_ms;       /* for that */
    const char *name;       /* of a producer that queues once, or NULL */
    rg__plan plan;
    uint32_t *numbers;      /* item behind each operation, in order */
    size_t n;
    rg__changes changes;    /* of cached keys, as the items are now */
    uint32_t *owner;        /* item behind each change */
    rg__buf payload;        /* the operations, encoded */
} rg__bundle;

/* store to name are set, the rest is 0. pool: of the queue. */
int rg__bundle_make_ready(rg__bundle *b, int pool, rg_err *err);
int rg__bundle_ask(rg__bundle *b, rg_err *err);
/* stream_id (48 bytes). EDURABILITY: queued, but not as safely as was asked for. */
int rg__bundle_queue(rg__bundle *b, char *stream_id, rg_err *err);
void rg__bundle_deinit(rg__bundle *b);

/* ---- rebase.c: rows that are not as they were believed to be ---- */

/* stale: RG__STALE_* by number of change; current: what is there instead, or NULL. Rebases every stale item, or
 * fails with what was met; true in *wait when some row is in an open transaction. */
int rg__bundle_mend(rg__bundle *b, const uint8_t *stale, rg_block *const *current, bool *wait, rg_err *err);
/* What can be known without the script: rows of which something else is expected than what was read, and rows
 * that Redis does not know. */
int rg__bundle_check_rows(rg__bundle *b, rg_err *err);

#endif
