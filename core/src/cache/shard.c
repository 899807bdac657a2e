/* SPDX-License-Identifier: MIT */
/* One shard: the table, the two queues and the ghost. */
#include "cache/shard.h"

#include <string.h>

#include "base/alloc.h"

enum {
    MIN_GHOSTS = 128,
    OVERHEAD = 13, /* bytes of slot and ghosts, per block */
    MALLOC_UNIT = 16,
};

static uint64_t hash_of(const rg__shard *s, const rg_block *b) {
    return rg__table_hash(s->table.seed, rg__block_space(b), b->key);
}

size_t rg__shard_cost(const rg_block *b) {
    size_t size = sizeof *b + b->len + sizeof(size_t);
    return (size + MALLOC_UNIT - 1) / MALLOC_UNIT * MALLOC_UNIT + OVERHEAD;
}

/* ---- what is let go after the lock ---- */

void rg__shard_let_go(rg_block *garbage) {
    while (garbage) {
        rg_block *next = garbage->queue_next;
        rg__block_disown(garbage);
        garbage = next;
    }
}

static void discard(rg__shard *s, rg_block *b) {
    b->queue_next = s->garbage;
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

void rg__shard_kill(rg__shard *s, uint32_t at) {
    rg_block *b = rg__table_block(&s->table, at);
    rg__table_remove(&s->table, at);
    rg__block_set_word(b, rg__block_word(b) | RG__DEAD);
    s->dead_bytes += rg__shard_cost(b);
}

/* ---- the ghost ---- */

/* As many as blocks, and up to twice that. Without memory there are fewer. */
static void grow_ghosts(rg__shard *s) {
    size_t n = (size_t)s->ghost_mask + 1;
    if (s->table.n < n) return;
    uint16_t *ghosts = rg__reallocarray(s->ghosts, n * 2, sizeof *ghosts);
    if (!ghosts) return;
    memcpy(ghosts + n, ghosts, n * sizeof *ghosts);
    s->ghosts = ghosts;
    s->ghost_mask = (uint32_t)(n * 2 - 1);
}

static uint16_t *ghost_at(rg__shard *s, uint64_t hash) {
    return &s->ghosts[(hash >> 12) & s->ghost_mask];
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

static void evict(rg__shard *s, rg_block *b, uint64_t hash) {
    rg__table_remove(&s->table, rg__table_slot_of(&s->table, hash, b));
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
    evict(s, b, hash);
}

static void evict_main(rg__shard *s) {
    rg_block *b = pop(&s->main);
    if (bury(s, b)) return;
    if (rg__block_word(b) & RG__FREQ_MAX) {
        rg__block_set_word(b, rg__block_word(b) - RG__FREQ_ONE);
        push(&s->main, b);
        return;
    }
    evict(s, b, hash_of(s, b));
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
static bool replace(rg__shard *s, uint64_t hash, const rg_block *b) {
    uint32_t at = rg__table_find(&s->table, hash, rg__block_space(b), b->key);
    if (at == RG__NOWHERE) return came_back(s, hash);
    bool main = rg__block_word(rg__table_block(&s->table, at)) & RG__IN_MAIN;
    rg__shard_kill(s, at);
    return main;
}

bool rg__shard_insert(rg__shard *s, uint64_t hash, rg_block *b) {
    if (!s->ghosts) return false;
    bool main = replace(s, hash, b);
    if ((uintptr_t)b >> RG__TAG_SHIFT || !rg__table_reserve(&s->table)) return false;
    rg__shard_sweep(s);
    make_room(s, rg__shard_cost(b));
    rg__table_insert(&s->table, hash, b);
    if (main) push_main(s, b);
    else push(&s->small, b);
    grow_ghosts(s);
    return true;
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
    s->metrics = m;
    s->ghost_mask = MIN_GHOSTS - 1;
    s->ghosts = rg__calloc(MIN_GHOSTS, sizeof *s->ghosts);
    return (rg__table_init(&s->table, seed) == RG_OK) && s->ghosts;
}

static void empty_queue(rg__shard *s, rg__queue_of_blocks *q) {
    for (rg_block *b; (b = pop(q));) discard(s, b);
}

void rg__shard_empty(rg__shard *s) {
    rg__table_clear(&s->table);
    s->dead_bytes = 0;
    empty_queue(s, &s->small);
    empty_queue(s, &s->main);
}

void rg__shard_deinit(rg__shard *s) {
    rg__shard_lock(s);
    rg__shard_empty(s);
    rg__shard_unlock(s);
    rg__table_deinit(&s->table);
    rg__free(s->ghosts);
    pthread_mutex_destroy(&s->lock);
}
