/* SPDX-License-Identifier: MIT */
/* One shard: the table, the two queues and the ghost. */
#include "cache/shard.h"

#include <string.h>

#include "base/alloc.h"

enum {
    MIN_BUCKETS = 64,
    PER_BUCKET = 2, /* blocks, before the table grows */
    OVERHEAD = 10,  /* bytes of bucket and ghosts, per block */
    MALLOC_UNIT = 16,
};

static uint64_t hash_of(const rg__shard *s, const rg_block *b) {
    return rg__shard_hash(s->seed, rg__block_space(b), b->key);
}

size_t rg__shard_cost(const rg_block *b) {
    size_t size = sizeof *b + b->len + sizeof(size_t);
    return (size + MALLOC_UNIT - 1) / MALLOC_UNIT * MALLOC_UNIT + OVERHEAD;
}

/* ---- what is let go after the lock ---- */

void rg__shard_let_go(rg_block *garbage) {
    while (garbage) {
        rg_block *next = garbage->hash_next;
        garbage->hash_next = NULL;
        rg__block_disown(garbage);
        garbage = next;
    }
}

static void discard(rg__shard *s, rg_block *b) {
    b->queue_next = NULL;
    b->hash_next = s->garbage;
    s->garbage = b;
}

/* ---- queues ---- */

static void push(rg__queue_of_blocks *q, rg_block *b) {
    b->queue_next = NULL;
    if (q->tail) q->tail->queue_next = b;
    else q->head = b;
    q->tail = b;
    q->bytes += rg__shard_cost(b);
}

static rg_block *pop(rg__queue_of_blocks *q) {
    rg_block *b = q->head;
    if (!b) return NULL;
    q->head = b->queue_next;
    if (!q->head) q->tail = NULL;
    q->bytes -= rg__shard_cost(b);
    return b;
}

static void push_main(rg__shard *s, rg_block *b) {
    rg__block_set_word(b, (rg__block_word(b) & ~(uint32_t)RG__FREQ_MAX) | RG__IN_MAIN);
    push(&s->main, b);
}

/* ---- the table ---- */

void rg__shard_kill(rg__shard *s, rg_block **at) {
    rg_block *b = *at;
    *at = b->hash_next;
    b->hash_next = NULL;
    rg__block_set_word(b, rg__block_word(b) | RG__DEAD);
    s->entries--;
    s->dead_bytes += rg__shard_cost(b);
}

static void unlink_live(rg__shard *s, rg_block *b) {
    rg_block **at = rg__shard_slot(s, hash_of(s, b), rg__block_space(b), b->key);
    *at = b->hash_next;
    s->entries--;
}

static void rehash(rg__shard *s, rg_block **to, size_t mask) {
    for (size_t i = 0; i <= s->mask; i++) {
        for (rg_block *b = s->buckets[i], *next; b; b = next) {
            next = b->hash_next;
            size_t at = (hash_of(s, b) >> 12) & mask;
            b->hash_next = to[at];
            to[at] = b;
        }
    }
}

/* Without memory the chains grow instead. */
static void grow(rg__shard *s) {
    size_t n = s->mask + 1;
    if (s->entries < n * PER_BUCKET) return;
    rg_block **buckets = rg__calloc(n * 2, sizeof *buckets);
    uint16_t *ghosts = rg__calloc(n * 4, sizeof *ghosts);
    if (!buckets || !ghosts) {
        rg__free(buckets);
        rg__free(ghosts);
        return;
    }
    rehash(s, buckets, n * 2 - 1);
    memcpy(ghosts, s->ghosts, n * 2 * sizeof *ghosts);
    memcpy(ghosts + n * 2, s->ghosts, n * 2 * sizeof *ghosts);
    rg__free(s->buckets);
    rg__free(s->ghosts);
    s->buckets = buckets;
    s->ghosts = ghosts;
    s->mask = n * 2 - 1;
}

/* ---- the ghost ---- */

static uint16_t *ghost_at(rg__shard *s, uint64_t hash) {
    return &s->ghosts[(hash >> 12) & (s->mask * 2 + 1)];
}

static uint16_t fingerprint(uint64_t hash) {
    return (uint16_t)(hash >> 48 | 1);
}

static bool came_back(rg__shard *s, uint64_t hash) {
    uint16_t *ghost = ghost_at(s, hash);
    if (*ghost != fingerprint(hash)) return false;
    *ghost = 0;
    return true;
}

/* ---- eviction ---- */

static bool bury(rg__shard *s, rg_block *b) {
    if (!(rg__block_word(b) & RG__DEAD)) return false;
    s->dead_bytes -= rg__shard_cost(b);
    discard(s, b);
    return true;
}

static void evict(rg__shard *s, rg_block *b) {
    unlink_live(s, b);
    discard(s, b);
    rg__count(s->metrics, RG__C_PROCESS_EVICTED, 1);
}

static void evict_small(rg__shard *s) {
    rg_block *b = pop(&s->small);
    if (bury(s, b)) return;
    if (rg__block_word(b) & RG__FREQ_MAX) {
        push_main(s, b);
        return;
    }
    uint64_t hash = hash_of(s, b);
    *ghost_at(s, hash) = fingerprint(hash);
    evict(s, b);
}

static void evict_main(rg__shard *s) {
    rg_block *b = pop(&s->main);
    if (bury(s, b)) return;
    if (rg__block_word(b) & RG__FREQ_MAX) {
        rg__block_set_word(b, rg__block_word(b) - RG__FREQ_ONE);
        push(&s->main, b);
        return;
    }
    evict(s, b);
}

/* Each step lets a block go, moves one from small to main, or takes one from a frequency, so this
 * ends. */
static void make_room(rg__shard *s, size_t need) {
    while (s->small.bytes + s->main.bytes + need > s->max_bytes) {
        bool small = s->small.head && (s->small.bytes > s->max_bytes / 10 || !s->main.head);
        if (small) evict_small(s);
        else if (s->main.head) evict_main(s);
        else break;
    }
}

static void sweep_queue(rg__shard *s, rg__queue_of_blocks *q) {
    rg__queue_of_blocks kept = {0};
    for (rg_block *b; (b = pop(q));)
        if (!bury(s, b)) push(&kept, b);
    *q = kept;
}

/* Dropped blocks may take an eighth of the room. */
void rg__shard_sweep(rg__shard *s) {
    if (s->dead_bytes <= s->max_bytes / 8) return;
    sweep_queue(s, &s->small);
    sweep_queue(s, &s->main);
}

/* ---- insertion ---- */

/* True when the block belongs in main: one was there under its key, or it came back soon. */
static bool replace(rg__shard *s, uint64_t hash, rg_block **at) {
    if (!*at) return came_back(s, hash);
    bool main = rg__block_word(*at) & RG__IN_MAIN;
    rg__shard_kill(s, at);
    return main;
}

void rg__shard_insert(rg__shard *s, uint64_t hash, rg_block *b) {
    bool main = replace(s, hash, rg__shard_slot(s, hash, rg__block_space(b), b->key));
    rg__shard_sweep(s);
    make_room(s, rg__shard_cost(b));
    rg_block **bucket = &s->buckets[(hash >> 12) & s->mask];
    b->hash_next = *bucket;
    *bucket = b;
    s->entries++;
    if (main) push_main(s, b);
    else push(&s->small, b);
    grow(s);
}

/* ---- life ---- */

bool rg__shard_init(rg__shard *s, size_t max_bytes, uint64_t seed, rg__metrics *m) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
    pthread_mutex_init(&s->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    s->max_bytes = max_bytes;
    s->seed = seed;
    s->metrics = m;
    s->mask = MIN_BUCKETS - 1;
    s->buckets = rg__calloc(MIN_BUCKETS, sizeof *s->buckets);
    s->ghosts = rg__calloc(MIN_BUCKETS * 2, sizeof *s->ghosts);
    return s->buckets && s->ghosts;
}

static void empty_queue(rg__shard *s, rg__queue_of_blocks *q) {
    for (rg_block *b; (b = pop(q));) discard(s, b);
}

void rg__shard_empty(rg__shard *s) {
    if (s->entries) memset(s->buckets, 0, (s->mask + 1) * sizeof *s->buckets);
    s->entries = s->dead_bytes = 0;
    empty_queue(s, &s->small);
    empty_queue(s, &s->main);
}

void rg__shard_deinit(rg__shard *s) {
    rg__shard_lock(s);
    rg__shard_empty(s);
    rg__shard_unlock(s);
    rg__free(s->buckets);
    rg__free(s->ghosts);
    pthread_mutex_destroy(&s->lock);
}
