/* SPDX-License-Identifier: MIT */
/* Kill points: where a test may have the process end without a word. */
#ifndef RG_BASE_KILL_H
#define RG_BASE_KILL_H

#include <stdint.h>

/* Kills the process (SIGKILL) when REGOLITH_KILL_POINT was "<step>:<count>" at its start and this
 * is the count-th time that it comes by; for tests of what a crash leaves behind. */
typedef enum rg__kill {
    RG__KILL_FETCHED = 1,  /* entries were read from the stream */
    RG__KILL_BEGUN,        /* the ledger is locked */
    RG__KILL_STATEMENT,    /* before each statement of the batch */
    RG__KILL_SINGLY,       /* before the batch is run again one by one */
    RG__KILL_APPLIED,      /* before dead letters are written */
    RG__KILL_LETTERS,      /* before the ledger advances */
    RG__KILL_ADVANCED,     /* before COMMIT */
    RG__KILL_COMMITTED,    /* before the caches are told */
    RG__KILL_TOLD,         /* before applied entries are trimmed */
    RG__KILL_TRIMMED,      /* after that */
    RG__KILL_SETTLING,     /* while a start tells the caches what an earlier run did not */
    RG__KILL_END,          /* of the steps that every consumer goes through */
    RG__KILL_FLUSH_WRITTEN = 12, /* a flush, from here on: before MARK */
    RG__KILL_FLUSH_MARKED,    /* before COMMIT */
    RG__KILL_FLUSH_COMMITTED, /* before PUBLISH */
    RG__KILL_FLUSH_PUBLISHED, /* before it is told to be done */
    RG__KILL_FLUSH_UNDONE,    /* after ROLLBACK, before UNMARK */
    RG__KILL_FLUSH_COVERED,   /* Redis is away: the keys are in the transaction, before COMMIT */
    RG__KILL_LOADED,          /* a read: before it fills Redis */
    RG__KILL_HEALED,          /* Redis knows what was written without it, before that is committed */
    RG__KILL_CLAIMED,      /* a partition is leased, its fence not yet committed */
    RG__KILL_SHARED,       /* after the leases were renewed */
    RG__KILL_RELAY_READ = 30, /* events were read from the outbox */
    RG__KILL_RELAY_PUBLISHED, /* they are in their streams */
    RG__KILL_RELAY_DELETED,   /* they are no longer in the outbox */
    RG__KILL_LATER_QUEUED,    /* a delayed flush is queued, and still put aside */
    RG__KILL_TX_MARKED,       /* a transaction: before COMMIT */
    RG__KILL_TX_COMMITTED,    /* before PUBLISH */
    RG__KILL_LATER_CLAIMED,   /* a delayed flush is cancelled, its dead letters are not written yet */
    RG__KILL_LAST = RG__KILL_LATER_CLAIMED
} rg__kill;
void rg__kill_point(rg__kill step);
/* The same before a statement that writes the row whose id is REGOLITH_KILL_ROW, each time. */
void rg__kill_row(uint64_t id);

#endif
