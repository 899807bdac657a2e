/* SPDX-License-Identifier: MIT */
/* A consumer's state, and finding out where it stands. */
#ifndef RG_QUEUE_STANDING_H
#define RG_QUEUE_STANDING_H

#include "queue/batch.h"
#include "queue/deaths.h"

struct rg__consumer {
    const rg__queue *q;
    rg__consumer_config cfg;
    rg__window window;
    rg__dead dead;
    rg__pos at;           /* the ledger, as far as it is known; everything up to it has been told */
    uint64_t window_epoch; /* of Redis, when the window was read */
    bool trusted;         /* nothing has happened since that may have moved the ledger */
    size_t limit;         /* operations aimed at in one transaction */
    int64_t applying_us;  /* time of the last batch's statements */
    size_t max_bytes;     /* payload bytes in one transaction: half of a packet */
    size_t entry_bytes;   /* running mean */
    unsigned untrimmed;   /* batches */
    bool again;           /* applies kept entries again: MySQL went back */
    uint64_t epoch;       /* the ledger's: entries of a later one need a turn first */
    uint64_t redis_epoch; /* when things were found out: another Redis changes everything */
    uint64_t fence;       /* under which the partition is leased; 0: it is not */
    bool lost;            /* a later fence was met */
    bool paused;          /* when last looked at; until held_until_ms */
    int64_t held_since_ms, held_until_ms; /* waits for a row of another partition; 0: not */
    unsigned long connection; /* the last one's number */
    void (*on_connection)(void *arg, unsigned long id);
    void *on_connection_arg;
    rg__consumer_totals totals;
    rg__deaths deaths;
    bool killer;          /* the batch is what others died of, and is not applied */
    bool deaths_known;    /* read since it was last in doubt where things stand */
    uint64_t *letters;    /* that the step has written */
    size_t n_letters, letters_cap;
};

/* At the start, after errors, and when a rival was at work: reads the ledger and the unresolved letters,
 * notices gaps and entries that would be skipped, and tells the caches of what was applied but not told.
 * It is trusted afterwards. */
int rg__consumer_find_out(rg__consumer *c, const rg__ctx *ctx, rg_err *err);
/* Nothing has happened since then that may have moved the ledger. */
bool rg__consumer_is_trusted(const rg__consumer *c);
/* The ledger goes on to a later epoch of Redis. An unknown COMMIT is a failure: the next step reads what
 * became of it. */
int rg__consumer_turn(rg__consumer *c, const rg__ctx *ctx, uint64_t epoch, rg_err *err);
/* Fills the window when it is used up; it may still be empty at until_ms. */
int rg__consumer_wait_for_entries(rg__consumer *c, const rg__ctx *ctx, int64_t until_ms, rg_err *err);

#endif
