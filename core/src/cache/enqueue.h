/* SPDX-License-Identifier: MIT */
/* One call of the enqueue script: what it is told (enqueue.c), for who calls it (overlay.c). */
#ifndef RG_CACHE_ENQUEUE_H
#define RG_CACHE_ENQUEUE_H

#include "cache/shared.h"

enum { RG__NONE = -1 };

/* All changes of one key: the script sees each key once. */
typedef struct rg__key_group {
    int32_t first, last;
    uint32_t n;
} rg__key_group;

/* One rg__shared_enqueue. */
typedef struct rg__enqueueing {
    rg__shared *s;
    rg__enqueue *q;
    rg__key_group *groups;
    size_t n;
    int32_t *next;  /* by change: the next one of the same key, or RG__NONE */
    rg__args args;
    rg__buf field, seq, kinds, sums, count;
    rg__buf names;   /* of the lookups, for a consumer that does not know them (stream.h) */
    char part[8];    /* four hex digits */
    rg__buf values;  /* entries and changes; arguments point into it, so it never grows */
    rg_err unsafe;   /* code is not 0: queued, but what was waited for did not come */
    char wish[48];   /* the stream id that entries are made for; "" none */
    char head[RG__AT_PENDING]; /* of these entries */
    rg__name forget[RG__FORGET];
    uint32_t n_forget;
    int nkeys;
} rg__enqueueing;

/* First the changes are grouped, and it is seen what each entry is; then the arguments are made, which point
 * into it. Both: 0 or RG_ENO_MEMORY, without words. s and q are set, the rest is 0. */
int rg__enqueueing_describe(rg__enqueueing *e);
int rg__enqueueing_prepare(rg__enqueueing *e);
void rg__enqueueing_deinit(rg__enqueueing *e); /* also after a failure, and after describe alone */

/* Of a change of a lookup. */
const rg__index *rg__change_index(const rg__change *c);
/* What an answer tells of stream ids and of Redis' clock (us; 0: nothing): the next wish comes after this id. */
void rg__stream_id_learn(rg__shared *s, const char *id, int64_t redis_us);

#endif
