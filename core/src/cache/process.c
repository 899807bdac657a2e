/* SPDX-License-Identifier: MIT */
/* The process tier: S3-FIFO in shards, bounded in bytes, intrusive in the blocks.
 *
 * A block enters the small queue (a tenth of the room); asked for again while there, it moves to
 * the main queue, else it leaves and only its fingerprint is remembered (the ghost): when it comes
 * back soon it enters the main queue at once. Main is a clock: asked-for blocks go round again. So
 * a scan washes through the small queue and leaves the rest alone.
 *
 * The queues are singly linked, so a block dropped from the middle is only marked and stays counted
 * until its turn comes or the shard is swept. */
#include <pthread.h>
#include <time.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"
#include "cache/cache.h"

enum {
    MAX_SHARDS = 16,
    MIN_SHARD_BYTES = 256 * 1024,
    MIN_BUCKETS = 64,
    STAMPS = 4096,  /* a multiple of MAX_SHARDS: one lock per stamp */
    MAX_FREQ = 3,
    OVERHEAD = 10,  /* bucket and ghosts, per block */
    MALLOC_UNIT = 16,
};

/* The high byte of block->space belongs to the cache that holds the block. The word is read and
 * written atomically (relaxed), as another cache may look whether it is owned. */
#define FREQ_SHIFT 24
#define FREQ_MASK (3u << FREQ_SHIFT)
#define IN_MAIN (1u << 26)
#define DEAD (1u << 27)  /* dropped: only its queue knows it */
#define OWNED (1u << 28) /* set with an atomic or: two caches may want the same block */

static inline uint32_t word(const rg_block *b) {
    return __atomic_load_n(&b->space, __ATOMIC_RELAXED);
}
static inline void set_word(rg_block *b, uint32_t v) {
    __atomic_store_n(&b->space, v, __ATOMIC_RELAXED);
}
static inline uint32_t space_of(const rg_block *b) { return word(b) & 0xffffffu; }

typedef struct queue {
    rg_block *head, *tail;
    size_t bytes; /* dead ones included */
} queue;

typedef struct shard {
    pthread_mutex_t lock; /* innermost but for the allocator's */
    rg_block **buckets;
    uint16_t *ghosts;     /* fingerprints of evicted ones, two slots a bucket */
    size_t mask;          /* buckets - 1 */
    size_t entries;       /* live */
    size_t dead_bytes;
    size_t max_bytes;
    queue small, main;
    rg_block *garbage;    /* to be released once the lock is; linked by hash_next */
} __attribute__((aligned(64))) shard;

struct rg__process {
    shard *shards;
    uint32_t n_shards;       /* power of two */
    atomic_uint holds;       /* who wants it off; 0: on */
    atomic_uint generation;  /* rises when everything goes */
    uint64_t seed;
    rg__metrics *metrics;
    atomic_uint stamps[STAMPS]; /* by hash of the key; written under the shard's lock */
};

/* ---- keys ---- */

static inline uint64_t hash_of(const rg__process *p, uint32_t space, uint64_t key) {
    const uint64_t input[2] = {key, space};
    return XXH3_64bits_withSeed(input, sizeof input, p->seed);
}

static inline uint32_t stamp_at(uint64_t hash) { return hash & (STAMPS - 1); }
static inline shard *shard_of(const rg__process *p, uint64_t hash) {
    return &p->shards[hash & (p->n_shards - 1)];
}
static inline size_t bucket_at(const shard *s, uint64_t hash) { return (hash >> 12) & s->mask; }
static inline uint16_t *ghost_at(shard *s, uint64_t hash) {
    return &s->ghosts[(hash >> 12) & (s->mask * 2 + 1)];
}
static inline uint16_t fingerprint(uint64_t hash) { return (uint16_t)(hash >> 48 | 1); }

/* What a block costs: itself, malloc's word and rounding, its part of the tables. */
static inline size_t cost(const rg_block *b) {
    size_t size = sizeof *b + b->len + sizeof(size_t);
    return (size + MALLOC_UNIT - 1) / MALLOC_UNIT * MALLOC_UNIT + OVERHEAD;
}

static inline bool is_dead(const rg_block *b) { return word(b) & DEAD; }

static uint32_t now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint32_t)t.tv_sec;
}

static inline bool is_expired(const rg_block *b) { return b->expires_s && b->expires_s <= now_s(); }

/* ---- the lock, and what is let go after it ---- */

static inline void lock_shard(shard *s) { pthread_mutex_lock(&s->lock); }

static void release_all(rg_block *b) {
    while (b) {
        rg_block *next = b->hash_next;
        b->hash_next = NULL;
        __atomic_store_n(&b->space, 0, __ATOMIC_RELEASE);
        rg_block_unref(b);
        b = next;
    }
}

static inline void unlock_shard(shard *s) {
    rg_block *garbage = s->garbage;
    s->garbage = NULL;
    pthread_mutex_unlock(&s->lock);
    if (garbage) release_all(garbage);
}

static void let_go(shard *s, rg_block *b) {
    b->queue_next = NULL;
    b->hash_next = s->garbage;
    s->garbage = b;
}

/* ---- queues ---- */

static void push(queue *q, rg_block *b) {
    b->queue_next = NULL;
    if (q->tail) q->tail->queue_next = b;
    else q->head = b;
    q->tail = b;
    q->bytes += cost(b);
}

static rg_block *pop(queue *q) {
    rg_block *b = q->head;
    if (!b) return NULL;
    q->head = b->queue_next;
    if (!q->head) q->tail = NULL;
    q->bytes -= cost(b);
    return b;
}

static void push_main(shard *s, rg_block *b) {
    set_word(b, (word(b) & ~FREQ_MASK) | IN_MAIN);
    push(&s->main, b);
}

/* ---- the table ---- */

static rg_block **slot_of(shard *s, uint64_t hash, uint32_t space, uint64_t key) {
    rg_block **at = &s->buckets[bucket_at(s, hash)];
    while (*at && ((*at)->key != key || space_of(*at) != space)) at = &(*at)->hash_next;
    return at;
}

/* Takes a live block out of the table; its queue lets it go later. */
static void kill_at(shard *s, rg_block **at) {
    rg_block *b = *at;
    *at = b->hash_next;
    b->hash_next = NULL;
    set_word(b, word(b) | DEAD);
    s->entries--;
    s->dead_bytes += cost(b);
}

static void unlink_live(rg__process *p, shard *s, rg_block *b) {
    rg_block **at = slot_of(s, hash_of(p, space_of(b), b->key), space_of(b), b->key);
    *at = b->hash_next;
    s->entries--;
}

static void rehash(rg__process *p, shard *s, rg_block **to, size_t mask) {
    for (size_t i = 0; i <= s->mask; i++) {
        for (rg_block *b = s->buckets[i], *next; b; b = next) {
            next = b->hash_next;
            size_t at = (hash_of(p, space_of(b), b->key) >> 12) & mask;
            b->hash_next = to[at];
            to[at] = b;
        }
    }
}

/* Two blocks to a bucket at most. Without memory the chains grow instead. */
static void grow(rg__process *p, shard *s) {
    size_t n = s->mask + 1;
    if (s->entries < n * 2) return;
    rg_block **buckets = rg__calloc(n * 2, sizeof *buckets);
    uint16_t *ghosts = rg__calloc(n * 4, sizeof *ghosts);
    if (!buckets || !ghosts) {
        rg__free(buckets);
        rg__free(ghosts);
        return;
    }
    rehash(p, s, buckets, n * 2 - 1);
    for (size_t i = 0; i < n * 2; i++) ghosts[i] = ghosts[i + n * 2] = s->ghosts[i];
    rg__free(s->buckets);
    rg__free(s->ghosts);
    s->buckets = buckets;
    s->ghosts = ghosts;
    s->mask = n * 2 - 1;
}

/* ---- eviction ---- */

static bool bury(shard *s, rg_block *b) {
    if (!is_dead(b)) return false;
    s->dead_bytes -= cost(b);
    let_go(s, b);
    return true;
}

static void evict(rg__process *p, shard *s, rg_block *b) {
    unlink_live(p, s, b);
    let_go(s, b);
    rg__count(p->metrics, RG__C_PROCESS_EVICTED, 1);
}

static void evict_small(rg__process *p, shard *s) {
    rg_block *b = pop(&s->small);
    if (bury(s, b)) return;
    if (word(b) & FREQ_MASK) {
        push_main(s, b);
        return;
    }
    uint64_t hash = hash_of(p, space_of(b), b->key);
    *ghost_at(s, hash) = fingerprint(hash);
    evict(p, s, b);
}

static void evict_main(rg__process *p, shard *s) {
    rg_block *b = pop(&s->main);
    if (bury(s, b)) return;
    if (word(b) & FREQ_MASK) {
        set_word(b, word(b) - (1u << FREQ_SHIFT));
        push(&s->main, b);
        return;
    }
    evict(p, s, b);
}

/* Each step lets a block go, moves one from small to main, or takes one from a frequency, so this
 * ends. */
static void make_room(rg__process *p, shard *s, size_t need) {
    while (s->small.bytes + s->main.bytes + need > s->max_bytes) {
        bool small = s->small.head && (s->small.bytes > s->max_bytes / 10 || !s->main.head);
        if (small) evict_small(p, s);
        else if (s->main.head) evict_main(p, s);
        else break;
    }
}

static void sweep_queue(shard *s, queue *q) {
    queue kept = {0};
    for (rg_block *b; (b = pop(q));)
        if (!bury(s, b)) push(&kept, b);
    *q = kept;
}

/* Dropped blocks may take an eighth of the room. */
static void sweep(shard *s) {
    if (s->dead_bytes <= s->max_bytes / 8) return;
    sweep_queue(s, &s->small);
    sweep_queue(s, &s->main);
}

static inline bool is_on(const rg__process *p) {
    return atomic_load_explicit(&p->holds, memory_order_acquire) == 0;
}

/* ---- life ---- */

static bool init_shard(shard *s, size_t max_bytes) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&s->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    s->max_bytes = max_bytes;
    s->mask = MIN_BUCKETS - 1;
    s->buckets = rg__calloc(MIN_BUCKETS, sizeof *s->buckets);
    s->ghosts = rg__calloc(MIN_BUCKETS * 2, sizeof *s->ghosts);
    return s->buckets && s->ghosts;
}

static uint32_t shards_for(size_t max_bytes) {
    uint32_t n = 1;
    while (n < MAX_SHARDS && max_bytes / (n * 2) >= MIN_SHARD_BYTES) n *= 2;
    return n;
}

/* malloc aligns to 16 bytes, shards want a cache line each. */
static shard *new_shards(uint32_t n) {
    shard *s = aligned_alloc(64, n * sizeof *s);
    if (s) memset(s, 0, n * sizeof *s);
    return s;
}

rg__process *rg__process_new(size_t max_bytes, rg__metrics *m) {
    rg__process *p = rg__calloc(1, sizeof *p);
    if (!p) return NULL;
    p->n_shards = shards_for(max_bytes);
    p->shards = new_shards(p->n_shards);
    p->metrics = m;
    rg__random(&p->seed, sizeof p->seed);
    bool ok = p->shards != NULL;
    for (uint32_t i = 0; p->shards && i < p->n_shards; i++)
        ok &= init_shard(&p->shards[i], max_bytes / p->n_shards);
    if (ok) return p;
    rg__process_free(p);
    return NULL;
}

static void empty_queue(shard *s, queue *q) {
    for (rg_block *b; (b = pop(q));) let_go(s, b);
}

/* Under the lock. */
static void empty_shard(shard *s) {
    if (s->entries) memset(s->buckets, 0, (s->mask + 1) * sizeof *s->buckets);
    s->entries = s->dead_bytes = 0;
    empty_queue(s, &s->small);
    empty_queue(s, &s->main);
}

static void deinit_shard(shard *s) {
    lock_shard(s);
    empty_shard(s);
    unlock_shard(s);
    rg__free(s->buckets);
    rg__free(s->ghosts);
    pthread_mutex_destroy(&s->lock);
}

void rg__process_free(rg__process *p) {
    if (!p) return;
    for (uint32_t i = 0; p->shards && i < p->n_shards; i++) deinit_shard(&p->shards[i]);
    free(p->shards);
    rg__free(p);
}

/* ---- reading ---- */

static rg_block *find(shard *s, uint64_t hash, uint32_t space, uint64_t key) {
    rg_block **at = slot_of(s, hash, space, key);
    rg_block *b = *at;
    if (!b) return NULL;
    if (is_expired(b)) {
        kill_at(s, at);
        return NULL;
    }
    uint32_t w = word(b);
    if ((w & FREQ_MASK) != MAX_FREQ << FREQ_SHIFT) set_word(b, w + (1u << FREQ_SHIFT));
    return rg_block_ref(b);
}

rg_block *rg__process_get(rg__process *p, uint32_t space, uint64_t key) {
    if (!is_on(p)) return NULL;
    uint64_t hash = hash_of(p, space, key);
    shard *s = shard_of(p, hash);
    lock_shard(s);
    rg_block *b = find(s, hash, space, key);
    unlock_shard(s);
    rg__count(p->metrics, b ? RG__C_PROCESS_HIT : RG__C_PROCESS_MISS, 1);
    return b;
}

uint64_t rg__process_stamp(rg__process *p, uint32_t space, uint64_t key) {
    uint64_t high = atomic_load_explicit(&p->generation, memory_order_acquire);
    uint32_t at = stamp_at(hash_of(p, space, key));
    return high << 32 | atomic_load_explicit(&p->stamps[at], memory_order_acquire);
}

/* ---- writing ---- */

/* Another cache, or this one under another key, may hold the block: then a copy goes in. */
static rg_block *adopt(rg_block *b) {
    if (!(word(b) & OWNED) && !(__atomic_fetch_or(&b->space, OWNED, __ATOMIC_ACQ_REL) & OWNED))
        return rg_block_ref(b);
    rg_block *copy = rg__block_dup(b->data, b->len);
    if (copy) set_word(copy, OWNED);
    return copy;
}

static void disown(rg_block *b) {
    __atomic_store_n(&b->space, 0, __ATOMIC_RELEASE);
    rg_block_unref(b);
}

/* True when the block belongs in main: it was there under that key, or came back soon. */
static bool belongs_in_main(shard *s, uint64_t hash, rg_block **at) {
    if (*at) {
        bool main = word(*at) & IN_MAIN;
        kill_at(s, at);
        return main;
    }
    uint16_t *ghost = ghost_at(s, hash);
    if (*ghost != fingerprint(hash)) return false;
    *ghost = 0;
    return true;
}

static void insert(rg__process *p, shard *s, uint64_t hash, rg_block *b) {
    bool main = belongs_in_main(s, hash, slot_of(s, hash, space_of(b), b->key));
    sweep(s);
    make_room(p, s, cost(b));
    rg_block **bucket = &s->buckets[bucket_at(s, hash)];
    b->hash_next = *bucket;
    *bucket = b;
    s->entries++;
    if (main) push_main(s, b);
    else push(&s->small, b);
    grow(p, s);
}

static bool current(rg__process *p, uint32_t space, uint64_t key, uint64_t stamp) {
    return is_on(p) && rg__process_stamp(p, space, key) == stamp;
}

static bool try_insert(rg__process *p, shard *s, uint64_t hash, rg_block *b, uint64_t stamp) {
    lock_shard(s);
    bool ok = current(p, space_of(b), b->key, stamp);
    if (ok) insert(p, s, hash, b);
    unlock_shard(s);
    return ok;
}

bool rg__process_put(rg__process *p, uint32_t space, uint64_t key, rg_block *b, uint32_t ttl_s,
                     uint64_t stamp) {
    uint64_t hash = hash_of(p, space, key);
    shard *s = shard_of(p, hash);
    if (cost(b) > s->max_bytes / 2 || !current(p, space, key, stamp)) return false;
    rg_block *mine = adopt(b);
    if (!mine) return false;
    set_word(mine, OWNED | space);
    mine->key = key;
    mine->expires_s = ttl_s ? now_s() + ttl_s : 0;
    if (try_insert(p, s, hash, mine, stamp)) return true;
    disown(mine);
    return false;
}

void rg__process_drop(rg__process *p, uint32_t space, uint64_t key) {
    uint64_t hash = hash_of(p, space, key);
    shard *s = shard_of(p, hash);
    lock_shard(s);
    atomic_fetch_add_explicit(&p->stamps[stamp_at(hash)], 1, memory_order_acq_rel);
    rg_block **at = slot_of(s, hash, space, key);
    bool found = *at != NULL;
    if (found) kill_at(s, at);
    sweep(s);
    unlock_shard(s);
    if (found) rg__count(p->metrics, RG__C_PROCESS_INVALIDATED, 1);
}

void rg__process_clear(rg__process *p) {
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_acq_rel);
    for (uint32_t i = 0; i < p->n_shards; i++) {
        lock_shard(&p->shards[i]);
        empty_shard(&p->shards[i]);
        unlock_shard(&p->shards[i]);
    }
}

void rg__process_enable(rg__process *p, bool on) {
    if (!on) atomic_fetch_add_explicit(&p->holds, 1, memory_order_acq_rel);
    rg__process_clear(p);
    if (on) atomic_fetch_sub_explicit(&p->holds, 1, memory_order_acq_rel);
}

void rg__process_stats(rg__process *p, uint64_t *bytes, uint64_t *entries) {
    *bytes = *entries = 0;
    for (uint32_t i = 0; i < p->n_shards; i++) {
        shard *s = &p->shards[i];
        lock_shard(s);
        *bytes += s->small.bytes + s->main.bytes;
        *entries += s->entries;
        unlock_shard(s);
    }
}

/* ---- forks ---- */

/* A shard whose lock somebody held at the fork may be half-changed: it is forgotten, not freed. */
static void abandon_shard(shard *s) {
    size_t max_bytes = s->max_bytes;
    if (pthread_mutex_trylock(&s->lock) == 0) {
        empty_shard(s);
        unlock_shard(s);
        return;
    }
    shard fresh = {0};
    if (!init_shard(&fresh, max_bytes)) fresh.max_bytes = 0;
    *s = fresh;
}

void rg__process_abandon(rg__process *p) {
    atomic_fetch_add(&p->generation, 1);
    for (uint32_t i = 0; i < p->n_shards; i++) abandon_shard(&p->shards[i]);
}
