/* SPDX-License-Identifier: MIT */
/* Applying operations inside an open transaction. */
#ifndef RG_QUEUE_APPLY_H
#define RG_QUEUE_APPLY_H

#include "queue/ledger.h"

/* What becomes of an operation of a batch. */
typedef enum rg__fate {
    RG__FATE_GOOD = 0, /* is applied */
    RG__FATE_DEAD,     /* cannot be applied: a dead letter */
    RG__FATE_PARKED    /* may not overtake an earlier dead letter of its row */
} rg__fate;

typedef struct rg__task {
    rg__qdecoded *op;           /* NULL: a whole entry that cannot be read */
    const rg__payload *payload; /* where op is number `index` */
    rg__slice bytes;            /* of the whole entry */
    rg__pos id;                 /* of the entry */
    uint32_t index;
    rg__fate fate;
    rg_err *error;              /* DEAD, PARKED: why; owned */
    uint64_t letter;            /* number of its dead letter, once written */
} rg__task;

/* Applies the good ones among n tasks with as few statements as possible. Any failure is the whole
 * batch's: which operation was to blame is for rg__apply_one to find out.
 *
 * Tasks go in waves. Within a wave inserts come first, referenced types first, then updates, then
 * deletes, referencing types first; a task opens a new wave when running at its turn there would
 * change what it or an earlier one does (see joins). */
int rg__apply_waves(rg__mysql *c, const rg__ctx *ctx, const rg__task *tasks, size_t n, rg_err *err);
/* Applies one. RG_ECONFLICT when an update finds no row, or the row is not as expected, which is then
 * in op->current; deleting a row that is not there is fine. */
int rg__apply_one(rg__mysql *c, const rg__ctx *ctx, rg__qdecoded *op, rg_err *err);

#endif
