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

/* The server's thread of the call's connection; 0: there is none. */
static inline unsigned long rg__each_thread(const rg__each_run *e) {
    return e->conn ? rg__mysql_thread_id(e->conn) : 0;
}

/* How many of the items, all of one shape, go into one statement. */
size_t rg__chunk_fits(const rg__each_run *e, const uint32_t *items, size_t n);
/* Runs the items once. RG_OK: each has an outcome, but those for which it is worth to try again (not
 * when `last`). Else nothing was done, unless the fault is AMBIGUOUS. */
int rg__chunk_run(rg__each_run *e, const uint32_t *items, size_t n, bool last, rg_err *err);
/* How a statement has failed, and on which thread of the server; code RG_OK: it has not. */
typedef struct rg__failure {
    int code;
    unsigned long thread;
    rg_err fault;
} rg__failure;

/* Sees to items of such a statement that have no outcome yet. */
typedef void (*rg__rest_fn)(rg__each_run *e, uint32_t *items, size_t n, const rg__failure *f);

/* Runs the first of the items, all of one shape, in statements of which one is made while the server works on
 * another, where that can be: how many were run. */
size_t rg__ahead_run(rg__each_run *e, uint32_t *items, size_t n, rg__rest_fn rest);
/* Moves items whose rows have queued writes behind the others; how many others there are. */
size_t rg__chunk_part_pending(rg__each_run *e, uint32_t *items, size_t n);
/* The same for items whose rows somebody else has locked. */
size_t rg__chunk_part_locked(rg__each_run *e, uint32_t *items, size_t n);
/* After a loss of the connection to that thread of the server which leaves the outcome open: finds out by the
 * versions what was certainly not done. True when something is to be tried again; *err becomes the fault of the
 * rest, which are UNKNOWN. */
bool rg__chunk_settle(rg__each_run *e, const uint32_t *items, size_t n, unsigned long thread, const rg_err *err);

#endif
