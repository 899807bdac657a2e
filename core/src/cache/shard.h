/* SPDX-License-Identifier: MIT */
/* One shard of the process tier: S3-FIFO over blocks, for process.c and shard.c only.
 *
 * A block enters the small queue (a tenth of the room); asked for again while there, it moves to
 * the main queue, else it leaves and only its fingerprint is remembered (the ghost): when it comes
 * back soon it enters the main queue at once. Main is a clock: asked-for blocks go round again. So
 * a scan washes through the small queue and leaves the rest alone.
 *
 * The queues are singly linked, so a block dropped from the middle is only marked and stays counted
 * until its turn comes or the shard is swept. */
#ifndef RG_CACHE_SHARD_H
#define RG_CACHE_SHARD_H

#include <pthread.h>
#include "base/metrics.h"
#include "cache/table.h"

/* A block that is in no cache any more; drops the cache's reference. */
static inline void rg__block_disown(rg_block *b) {
    __atomic_store_n(&b->space, 0, __ATOMIC_RELEASE);
    rg_block_unref(b);
}

typedef struct rg__queue_of_blocks {
    rg_block *head, *tail;
    size_t bytes; /* dead ones included */
} rg__queue_of_blocks;

typedef struct rg__shard {
    pthread_mutex_t lock; /* innermost but for the allocator's; guards all that follows */
    rg__table table;      /* those that live */
    uint16_t *ghosts;     /* fingerprints of evicted ones */
    uint32_t ghost_mask;  /* places for them - 1 */
    size_t dead_bytes;
    size_t max_bytes;
    rg__queue_of_blocks small, main;
    rg_block *garbage;    /* to be let go once the lock is; linked by queue_next */
    rg__metrics *metrics; /* constant */
} __attribute__((aligned(64))) rg__shard;

/* False: there is no memory, and the shard takes nothing. */
bool rg__shard_init(rg__shard *s, size_t max_bytes, uint64_t seed, rg__metrics *m);
void rg__shard_deinit(rg__shard *s);
/* What a block costs: itself, malloc's word and rounding, its part of the tables. */
size_t rg__shard_cost(const rg_block *b);

static inline void rg__shard_lock(rg__shard *s) {
    pthread_mutex_lock(&s->lock);
}
void rg__shard_let_go(rg_block *garbage);
static inline void rg__shard_unlock(rg__shard *s) {
    rg_block *garbage = s->garbage;
    s->garbage = NULL;
    pthread_mutex_unlock(&s->lock);
    if (garbage) rg__shard_let_go(garbage);
}

/* ---- under the lock ---- */
/* Takes the block (owned, with key and space) instead of the one under its key; makes room. False: there is
 * no memory for its slot; it is the caller's still, and the other one has gone. */
bool rg__shard_insert(rg__shard *s, uint64_t hash, rg_block *b);
/* Takes the block in a slot out of the table; its queue lets it go later. */
void rg__shard_kill(rg__shard *s, uint32_t at);
/* Lets dropped blocks go when they take much of the room. */
void rg__shard_sweep(rg__shard *s);
void rg__shard_empty(rg__shard *s);

#endif
