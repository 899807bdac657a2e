/* SPDX-License-Identifier: MIT */
/* What the two halves of writes with outcomes of their own share: order and retries (cas.c), and one
 * chunk's statement, caches and answers (chunk.c, verdict.c). */
#ifndef RG_UNIT_CAS_H
#define RG_UNIT_CAS_H

#include "base/map.h"
#include "unit/flush.h"

#define RG__NOBODY UINT32_MAX

/* Where an item comes in the order. */
typedef struct rg__place {
    uint32_t item;
    uint32_t wave; /* how many items before it write the same row */
    bool joins;    /* it may go in the same statement as the one before it */
} rg__place;

/* A call under way. */
typedef struct rg__each_run {
    rg__store *store;
    const rg__ctx *ctx;
    rg__items *items;
    rg__place *places;
    uint32_t *earlier; /* by item: the last one before it that writes the same row, or RG__NOBODY */
    bool defer;       /* what waits for the queue is left for the end of the wave */
    rg__mysql *conn;  /* NULL: none acquired */
    int pool;         /* whose connection it is */
    bool lent;        /* by the caller's transaction, that the writes are part of */
} rg__each_run;

/* Gives the connection back, unless it is lent. */
void rg__each_let_go(rg__each_run *e);

/* How many of the items, all of one shape, go into one statement. */
size_t rg__chunk_fits(const rg__each_run *e, const uint32_t *items, size_t n);
/* Runs the items once. RG_OK: each has an outcome, but those for which it is worth to try again (not
 * when `last`). Else nothing was done, unless the fault is AMBIGUOUS. */
int rg__chunk_run(rg__each_run *e, const uint32_t *items, size_t n, bool last, rg_err *err);
/* Moves items whose rows have queued writes behind the others; how many others there are. */
size_t rg__chunk_part_pending(rg__each_run *e, uint32_t *items, size_t n);
/* The same for items whose rows somebody else has locked. */
size_t rg__chunk_part_locked(rg__each_run *e, uint32_t *items, size_t n);
/* After a loss of the connection that leaves the outcome open: finds out by the versions what was
 * certainly not done. True when something is to be tried again; *err becomes the fault of the rest,
 * which are UNKNOWN. */
bool rg__chunk_settle(rg__each_run *e, const uint32_t *items, size_t n, const rg_err *err);

#endif
