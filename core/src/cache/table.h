/* SPDX-License-Identifier: MIT */
/* The table of one shard of the process tier: blocks by type (space) and key, for shard.c and process.c only.
 *
 * Open addressing with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithms L and R: what
 * is taken out is filled by what follows, so there are no tombstones). A slot holds the block's address and,
 * in the 16 bits above it, those of the hash: a block is looked at only when they agree, so that a hit waits
 * for memory twice, for its slot and its block, and what was not asked for is hardly ever touched.
 *
 * Invariants: n < cap, so every walk ends at an empty slot; from a block's home to its slot none is empty.
 * The table grows by an eighth and is at most 7/8 full: 9 to 10.5 bytes a block. */
#ifndef RG_CACHE_TABLE_H
#define RG_CACHE_TABLE_H

#include <stdbool.h>
#include "base/block.h"

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

typedef struct rg__table {
    uint64_t *slots; /* 0: empty, else address and tag; owned */
    uint32_t cap, n; /* slots, and those that are taken */
    uint64_t seed;   /* of the hash; constant */
} rg__table;

enum { RG__TAG_SHIFT = 48 }; /* addresses have no more bits; a block whose has is not taken */
#define RG__NOWHERE UINT32_MAX

/* The two halves of the product. */
static inline void rg__mul(uint64_t *a, uint64_t *b) {
    unsigned __int128 product = (unsigned __int128)*a * *b;
    *a = (uint64_t)product;
    *b = (uint64_t)(product >> 64);
}

/* Multiplied twice to 128 bits and folded, as wyhash64 of Wang Yi's wyhash does (public domain): a
 * tenth of XXH3's instructions for two words. */
static inline uint64_t rg__table_hash(uint64_t seed, uint32_t space, uint64_t key) {
    uint64_t a = key ^ seed, b = space ^ UINT64_C(0xa0761d6478bd642f);
    rg__mul(&a, &b);
    a ^= seed ^ UINT64_C(0xe7037ed1a0b428db);
    b ^= UINT64_C(0x8ebc6af09c88c6e3);
    rg__mul(&a, &b);
    return a ^ b;
}

/* Bits 12..43 of the hash as a fraction of the table (Lemire, Fast Random Integer Generation in an Interval):
 * the lower ones choose the shard and the stamp, the upper ones are the tag. */
static inline uint32_t rg__table_home(const rg__table *t, uint64_t hash) {
    return (uint32_t)(((hash >> 12 & UINT32_MAX) * t->cap) >> 32);
}
static inline uint32_t rg__table_next(const rg__table *t, uint32_t at) {
    return at + 1 == t->cap ? 0 : at + 1;
}
static inline rg_block *rg__table_block(const rg__table *t, uint32_t at) {
    return (rg_block *)(uintptr_t)(t->slots[at] & ((UINT64_C(1) << RG__TAG_SHIFT) - 1));
}

/* Who finds a block reads its row next: all lines of one of usual length come at the same time as the first,
 * which is compared. */
static inline void rg__table_fetch(const rg_block *b) {
    enum { LINE = 64, LINES = 4 };
    for (int i = 0; i < LINES; i++) __builtin_prefetch((const char *)b + i * LINE);
}

/* The slot of the block with that key; RG__NOWHERE when there is none. */
static inline uint32_t rg__table_find(const rg__table *t, uint64_t hash, uint32_t space, uint64_t key) {
    for (uint32_t at = rg__table_home(t, hash); t->slots[at]; at = rg__table_next(t, at)) {
        if ((t->slots[at] ^ hash) >> RG__TAG_SHIFT) continue;
        const rg_block *b = rg__table_block(t, at);
        rg__table_fetch(b);
        if (b->key == key && rg__block_space(b) == space) return at;
    }
    return RG__NOWHERE;
}

/* RG_OK, or RG_ENO_MEMORY: the table is empty then and takes nothing. */
int rg__table_init(rg__table *t, uint64_t seed);
void rg__table_deinit(rg__table *t);
/* Makes room for one more; false: there is none, and no memory for it. */
bool rg__table_reserve(rg__table *t);
/* Takes a block whose key is not there, after rg__table_reserve. */
void rg__table_insert(rg__table *t, uint64_t hash, rg_block *b);
/* The slot of this very block, which is there. */
uint32_t rg__table_slot_of(const rg__table *t, uint64_t hash, const rg_block *b);
void rg__table_remove(rg__table *t, uint32_t at);
void rg__table_clear(rg__table *t);

#endif
