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
#include "base/block.h"
#include "base/metrics.h"

/* The high byte of block->space belongs to the cache that holds the block. The word is read and
 * written atomically (relaxed), as another cache may look whether it is owned. */
enum {
    RG__FREQ_SHIFT = 24,
    RG__FREQ_ONE = 1 << RG__FREQ_SHIFT,
    RG__FREQ_MAX = 3 << RG__FREQ_SHIFT, /* also the mask */
    RG__IN_MAIN = 1 << 26,
    RG__DEAD = 1 << 27,  /* dropped: only its queue knows it */
    RG__OWNED = 1 << 28, /* set with an atomic or: two caches may want the same block */
};

static inline uint32_t rg__block_word(const rg_block *b) {
    return __atomic_load_n(&b->space, __ATOMIC_RELAXED);
}
static inline void rg__block_set_word(rg_block *b, uint32_t v) {
    __atomic_store_n(&b->space, v, __ATOMIC_RELAXED);
}
static inline uint32_t rg__block_space(const rg_block *b) {
    return rg__block_word(b) & 0xffffffu;
}
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
    rg_block **buckets;
    uint16_t *ghosts;     /* fingerprints of evicted ones, two slots a bucket */
    size_t mask;          /* buckets - 1 */
    size_t entries;       /* live */
    size_t dead_bytes;
    size_t max_bytes;
    rg__queue_of_blocks small, main;
    rg_block *garbage;    /* to be let go once the lock is; linked by hash_next */
    uint64_t seed;        /* constant, as is metrics */
    rg__metrics *metrics;
} __attribute__((aligned(64))) rg__shard;

/* The two halves of the product. */
static inline void rg__mul(uint64_t *a, uint64_t *b) {
    unsigned __int128 product = (unsigned __int128)*a * *b;
    *a = (uint64_t)product;
    *b = (uint64_t)(product >> 64);
}

/* Multiplied twice to 128 bits and folded, as wyhash64 of Wang Yi's wyhash does (public domain): a
 * tenth of XXH3's instructions for two words. */
static inline uint64_t rg__shard_hash(uint64_t seed, uint32_t space, uint64_t key) {
    uint64_t a = key ^ seed, b = space ^ UINT64_C(0xa0761d6478bd642f);
    rg__mul(&a, &b);
    a ^= seed ^ UINT64_C(0xe7037ed1a0b428db);
    b ^= UINT64_C(0x8ebc6af09c88c6e3);
    rg__mul(&a, &b);
    return a ^ b;
}

/* Under the lock: where the block's pointer is, or would be (NULL in it). */
static inline rg_block **rg__shard_slot(rg__shard *s, uint64_t hash, uint32_t space, uint64_t key) {
    rg_block **at = &s->buckets[(hash >> 12) & s->mask];
    while (*at && ((*at)->key != key || rg__block_space(*at) != space)) at = &(*at)->hash_next;
    return at;
}

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
/* Takes the block (owned, with key and space) instead of the one under its key; makes room. */
void rg__shard_insert(rg__shard *s, uint64_t hash, rg_block *b);
/* Takes a live block out of the table; its queue lets it go later. */
void rg__shard_kill(rg__shard *s, rg_block **at);
/* Lets dropped blocks go when they take much of the room. */
void rg__shard_sweep(rg__shard *s);
void rg__shard_empty(rg__shard *s);

#endif
