/* SPDX-License-Identifier: MIT */
/* How the shared memory is laid out; for arena.c and arena_table.c only. */
#ifndef RG_CACHE_ARENA_INSIDE_H
#define RG_CACHE_ARENA_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include "cache/arena.h"

enum {
    RG__ARENA_LAYOUT = 1,
    RG__ARENA_STAMPS = 4096,
    RG__ARENA_SHARDS = 32,   /* at most; a power of two */
    RG__ARENA_SLOTS = 8,     /* in a bucket: one cache line */
    RG__ARENA_UNIT = 32,     /* bytes */
    RG__ARENA_GHOSTS = 2,    /* fingerprints a bucket */
};

/* In a ring, followed by the data; whole units. */
typedef struct rg__record {
    uint64_t key;
    uint32_t space;      /* RG__RECORD_PAD: nothing, up to the ring's end */
    uint32_t generation;
    uint32_t len;        /* of the data */
    uint32_t expires_s;  /* monotonic; 0: never */
    uint32_t units;      /* with the data */
    uint32_t unused;
} rg__record;
#define RG__RECORD_PAD UINT32_MAX

/* Positions count units and only rise; the place is the position modulo the ring's units. */
typedef struct rg__ring {
    uint64_t at;         /* of its first byte, in the file; constant, as is units */
    uint64_t units;
    atomic_ullong head, tail; /* written under the shard's lock */
} rg__ring;

typedef struct rg__pen {
    pthread_mutex_t lock; /* robust and process-shared: the rings, and EMPTY -> TENTATIVE */
    rg__ring ring[2];     /* small, main */
    uint64_t slots_at;    /* of its slots, in the file; constant, as the next two */
    uint64_t ghosts_at;
    uint64_t mask;        /* buckets - 1 */
} __attribute__((aligned(64))) rg__pen;

typedef struct rg__arena_head {
    uint64_t magic;       /* written last */
    uint32_t layout, n_shards;
    uint64_t bytes;       /* of the file */
    uint64_t seed, key_seed;
    atomic_uint needed;   /* channels, one bit each */
    atomic_uint generation;
    atomic_ullong channel[RG__ARENA_CHANNELS] __attribute__((aligned(64)));
    rg__told told[RG__ARENA_CHANNELS];
    atomic_uint stamps[RG__ARENA_STAMPS] __attribute__((aligned(64)));
    rg__pen pens[RG__ARENA_SHARDS];
} rg__arena_head;

struct rg__arena {
    rg__arena_head *head;
    uint8_t *base;        /* the same */
    size_t bytes;
    int fd;               /* holds the lock */
    uint64_t seed;
    uint32_t shard_mask;
};

enum { RG__SMALL = 0, RG__MAIN = 1 };

/* True with the lock; a shard whose holder died has been emptied. False: somebody is at it. */
bool rg__arena_lock(rg__arena *a, rg__pen *p);
static inline atomic_ullong *rg__arena_slots(const rg__arena *a, const rg__pen *p) {
    return (atomic_ullong *)(void *)(a->base + p->slots_at);
}
static inline atomic_ushort *rg__arena_ghosts(const rg__arena *a, const rg__pen *p) {
    return (atomic_ushort *)(void *)(a->base + p->ghosts_at);
}
static inline rg__record *rg__arena_record(const rg__arena *a, const rg__ring *r, uint64_t position) {
    return (rg__record *)(void *)(a->base + r->at + position % r->units * RG__ARENA_UNIT);
}

#endif
