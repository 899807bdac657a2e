/* SPDX-License-Identifier: MIT */
/* Deaths: entries that end the process which applies them. Before a transaction begins, Redis is told
 * where the consumer is and how often somebody has died there; whoever comes back from it, well or not,
 * takes that back or has moved on. So a count that is left behind is one of deaths.
 *
 * Redis: "<stream>:deaths" = "<ledger> <deaths> <last entry of the batch>". */
#ifndef RG_QUEUE_DEATHS_H
#define RG_QUEUE_DEATHS_H

#include "queue/ledger.h"

typedef struct rg__deaths {
    rg__pos at, upto; /* entries after `at`, up to and with `upto`, are what somebody died of */
    uint32_t n;       /* how often */
    rg__redis *wire;  /* the note is on its way; released by rg__deaths_settle */
} rg__deaths;

/* Reads what was left behind; failing is as if there were nothing. */
void rg__deaths_load(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx);
/* How often somebody has died of what comes after `at`. */
uint32_t rg__deaths_at(const rg__deaths *d, rg__pos at);
/* Sends the note that entries after `at`, up to `upto`, are about to be applied; does not wait. */
void rg__deaths_note(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx, rg__pos at, rg__pos upto);
/* Nobody died: the note was sent, and when the entries are not applied it is taken back. */
void rg__deaths_settle(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx, bool applied);
/* What was died of is a dead letter now. */
void rg__deaths_forget(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx);

#endif
