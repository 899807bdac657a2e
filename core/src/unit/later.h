/* SPDX-License-Identifier: MIT */
/* Flushes that are to be queued at a later time. Until then they are bytes that nobody reads: no cached
 * read shows them, no unique value is taken. When their time has come they are queued like any flush,
 * laid over what their rows are by then.
 *
 * Redis: "{P}:lz:<pool>" a sorted set of members by time in ms; "{P}:lp:<pool>" their payloads by id, and
 * the members by "#<id>"; "{P}:lc:<pool>" counts them; "{P}:ll:<pool>" who moves them, for a second. A
 * member is "<count>:<id>", so that those of one time keep their order. The id is the producer under
 * which the queue remembers the flush, so that moving it twice queues it once; in the place of the
 * entry's id there stands what else became of it, so that it cannot be queued any more. */
#ifndef RG_UNIT_LATER_H
#define RG_UNIT_LATER_H

#include "unit/flush.h"

#define RG__LATER_CANCELLED "-cancelled"
#define RG__LATER_DEAD "-dead" /* its dead letters are being written, or are there */

typedef struct rg__later_keys {
    char set[192], payloads[192], third[192], sent[192];
} rg__later_keys;

rg__later_keys rg__later_keys_of(const rg__queue *q, const char *third);
int rg__later_call(const rg__queue *q, const rg__ctx *ctx, rg__script *s, int nkeys, int argc,
                   const char **argv, const size_t *lens, redisReply **reply, rg_err *err);

#endif
