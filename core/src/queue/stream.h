/* SPDX-License-Identifier: MIT */
/* A queue's stream in Redis, as its consumer sees it. */
#ifndef RG_QUEUE_STREAM_H
#define RG_QUEUE_STREAM_H

#include "queue/ledger.h"

typedef struct rg__stream_entry {
    rg__pos id;
    rg__slice payload; /* field d; empty when there is none */
    uint64_t epoch;    /* field e: of Redis when it was queued; 0 when there is none */
    rg__slice names;   /* field k: Redis keys of the lookups that wait for it, each u16 length and bytes, without
                        * "{P}:". A consumer that has other indexes could not tell them otherwise. */
} rg__stream_entry;

/* Entries that were read ahead, in order; `at` is the next one to be applied. */
typedef struct rg__window {
    redisReply *reply; /* owns the bytes */
    rg__stream_entry *entries;
    size_t n, at;
} rg__window;

void rg__window_clear(rg__window *w);
/* Replaces the window by at most `count` entries after `after`; waits for them up to wait_ms when
 * there are none. */
int rg__window_fetch(rg__window *w, const rg__queue *q, const rg__ctx *ctx, rg__pos after,
                     uint32_t count, int wait_ms, rg_err *err);
/* The first entries, up to and with `upto`. */
int rg__window_fetch_first(rg__window *w, const rg__queue *q, const rg__ctx *ctx, rg__pos upto,
                           uint32_t count, rg_err *err);
/* Waits until one of the streams has an entry after its position, wait_ms at most. */
int rg__streams_wait(const rg__queue *const *queues, const rg__pos *after, uint32_t n,
                     const rg__ctx *ctx, int wait_ms, rg_err *err);
/* Removes entries up to and with `upto` (0-0: none), tells how many are left. */
int rg__stream_trim(const rg__queue *q, const rg__ctx *ctx, rg__pos upto, uint64_t *len,
                    rg_err *err);
/* Of the entries up to and with `upto`, the first one of those at the end whose epoch is later than
 * `epoch`; 0-0 when the last one's is not. */
int rg__stream_first_later(const rg__queue *q, const rg__ctx *ctx, rg__pos upto, uint64_t epoch,
                           rg__pos *first, rg_err *err);
/* ---- kept entries: with retain_ms, what is trimmed goes to "<stream>:applied" for so long ---- */
/* Name of the stream of kept entries. */
const char *rg__stream_kept(const rg__queue *q, char name[320]);
/* Up to where entries have been removed, 0-0 when none. */
int rg__stream_trimmed(const rg__queue *q, const rg__ctx *ctx, rg__pos *upto, rg_err *err);
/* Bytes of memory that the stream takes, about. */
int rg__stream_bytes(const rg__queue *q, const rg__ctx *ctx, uint64_t *bytes, rg_err *err);
/* Id of the newest entry, 0-0 when there is none. */
int rg__stream_last(const rg__queue *q, const rg__ctx *ctx, rg__pos *last, rg_err *err);
/* Entries, and the age of the oldest one after `after` (0: there is none). */
int rg__stream_age(const rg__queue *q, const rg__ctx *ctx, rg__pos after, uint64_t *len,
                   uint64_t *age_ms, rg_err *err);
/* Sees to it that the next entry's id is above the ledger's: a Redis that lost its memory and whose
 * clock is behind would give ids that pass for applied. */
int rg__stream_raise(const rg__queue *q, const rg__ctx *ctx, rg__pos ledger, rg_err *err);

#endif
