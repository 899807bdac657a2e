/* SPDX-License-Identifier: MIT */
/* The process tier: shards chosen by a hash of the key, and stamps that refuse what is out of date.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cache/arena.h"
#include "cache/cache.h"
#include "cache/shard.h"

enum {
    MAX_SHARDS = 16,
    MIN_SHARD_BYTES = 256 * 1024,
    STAMPS = 4096, /* a multiple of MAX_SHARDS: one lock per stamp */
};

struct rg__process {
    rg__shard *shards;
    uint32_t n_shards;       /* power of two */
    atomic_uint holds;       /* who wants it off; 0: on. With an arena never 0: no time is lost on asking twice */
    rg__arena *arena;        /* all is there, nothing here; owned, NULL: none */
    atomic_uint generation;  /* rises when everything goes */
    atomic_llong until_ms;   /* nothing is answered past it: the earliest of what is vouched for */
    pthread_mutex_t lock;    /* guards the two that follow */
    int64_t *vouched;        /* by channel; INT64_MAX: it has not begun */
    uint32_t n_channels;
    uint64_t seed;
    rg__metrics *metrics;
    atomic_uint stamps[STAMPS]; /* by hash of the key; written under the shard's lock */
};

static inline uint64_t hash_of(const rg__process *p, uint32_t space, uint64_t key) {
    return rg__table_hash(p->seed, space, key);
}

static inline uint32_t stamp_at(uint64_t hash) {
    return hash & (STAMPS - 1);
}

static inline rg__shard *shard_of(const rg__process *p, uint64_t hash) {
    return &p->shards[hash & (p->n_shards - 1)];
}

static inline bool is_on(const rg__process *p) {
    return atomic_load_explicit(&p->holds, memory_order_acquire) == 0;
}

static inline uint32_t seconds(int64_t ms) { return (uint32_t)(ms / 1000); }

static inline bool is_vouched(const rg__process *p, int64_t now_ms) {
    return now_ms < atomic_load_explicit(&p->until_ms, memory_order_relaxed);
}

/* ---- life ---- */

static uint32_t shards_for(size_t max_bytes) {
    uint32_t n = 1;
    while (n < MAX_SHARDS && max_bytes / (n * 2) >= MIN_SHARD_BYTES) n *= 2;
    return n;
}

/* malloc aligns to 16 bytes, shards want a cache line each. */
static rg__shard *new_shards(uint32_t n) {
    rg__shard *s = aligned_alloc(_Alignof(rg__shard), n * sizeof *s);
    if (s) memset(s, 0, n * sizeof *s);
    return s;
}

static void init_vouching(rg__process *p) {
    pthread_mutex_init(&p->lock, NULL);
    atomic_init(&p->until_ms, INT64_MAX);
}

rg__process *rg__process_new(size_t max_bytes, rg__metrics *m) {
    rg__process *p = rg__calloc(1, sizeof *p);
    if (!p) return NULL;
    uint32_t n = shards_for(max_bytes);
    p->metrics = m;
    init_vouching(p);
    rg__random(&p->seed, sizeof p->seed);
    p->shards = new_shards(n);
    bool ok = p->shards != NULL;
    for (; ok && p->n_shards < n; p->n_shards++)
        ok = rg__shard_init(&p->shards[p->n_shards], max_bytes / n, p->seed, m);
    if (ok) return p;
    rg__process_free(p);
    return NULL;
}

rg__process *rg__process_over(rg__arena *arena, rg__metrics *m) {
    rg__process *p = rg__calloc(1, sizeof *p);
    if (!p) return NULL;
    p->metrics = m;
    init_vouching(p);
    p->arena = arena;
    atomic_init(&p->holds, 1);
    return p;
}

rg__arena *rg__process_arena(const rg__process *p) { return p->arena; }

void rg__process_grow(rg__process *p, size_t max_bytes) {
    for (uint32_t i = 0; i < p->n_shards; i++) {
        rg__shard *s = &p->shards[i];
        rg__shard_lock(s);
        if (s->max_bytes < max_bytes / p->n_shards) s->max_bytes = max_bytes / p->n_shards;
        rg__shard_unlock(s);
    }
}

void rg__process_free(rg__process *p) {
    if (!p) return;
    rg__arena_close(p->arena);
    for (uint32_t i = 0; i < p->n_shards; i++) rg__shard_deinit(&p->shards[i]);
    free(p->shards);
    pthread_mutex_destroy(&p->lock);
    rg__free(p->vouched);
    rg__free(p);
}

/* ---- vouching ---- */

static void forget_vouched(rg__process *p) {
    for (uint32_t i = 0; i < p->n_channels; i++) p->vouched[i] = INT64_MAX;
    atomic_store(&p->until_ms, INT64_MAX);
}

int rg__process_channels(rg__process *p, uint32_t n) {
    p->vouched = rg__calloc(n + 1, sizeof *p->vouched);
    if (!p->vouched) return RG_ENO_MEMORY;
    p->n_channels = n;
    forget_vouched(p);
    return RG_OK;
}

void rg__process_vouch(rg__process *p, uint32_t channel, int64_t until_ms) {
    if (channel >= p->n_channels) return;
    pthread_mutex_lock(&p->lock);
    int64_t least = INT64_MAX;
    p->vouched[channel] = until_ms;
    for (uint32_t i = 0; i < p->n_channels; i++)
        if (p->vouched[i] < least) least = p->vouched[i];
    atomic_store(&p->until_ms, least);
    pthread_mutex_unlock(&p->lock);
}

/* ---- reading ---- */

static rg_block *find(rg__shard *s, uint64_t hash, uint32_t space, uint64_t key, uint32_t now_s) {
    uint32_t at = rg__table_find(&s->table, hash, space, key);
    if (at == RG__NOWHERE) return NULL;
    rg_block *b = rg__table_block(&s->table, at);
    if (b->expires_s && b->expires_s <= now_s) {
        rg__shard_kill(s, at);
        return NULL;
    }
    uint32_t word = rg__block_word(b);
    if ((word & RG__FREQ_MAX) != RG__FREQ_MAX) rg__block_set_word(b, word + RG__FREQ_ONE);
    return rg_block_ref(b);
}

static rg_block *get_from_arena(rg__process *p, uint32_t space, uint64_t key, bool misses) {
    rg_block *b = rg__arena_get(p->arena, space, key);
    if (b) rg__count(p->metrics, RG__C_PROCESS_HIT, 1);
    else if (misses && rg__arena_alive(p->arena)) rg__count(p->metrics, RG__C_PROCESS_MISS, 1);
    return b;
}

static inline rg_block *get(rg__process *p, uint32_t space, uint64_t key, bool misses) {
    if (!is_on(p)) return p->arena ? get_from_arena(p, space, key, misses) : NULL;
    int64_t now_ms = rg__coarse_ms();
    if (!is_vouched(p, now_ms)) return NULL;
    uint64_t hash = hash_of(p, space, key);
    rg__shard *s = shard_of(p, hash);
    rg__shard_lock(s);
    rg_block *b = find(s, hash, space, key, seconds(now_ms));
    rg__shard_unlock(s);
    if (b || misses) rg__count(p->metrics, b ? RG__C_PROCESS_HIT : RG__C_PROCESS_MISS, 1);
    return b;
}

rg_block *rg__process_get(rg__process *p, uint32_t space, uint64_t key) { return get(p, space, key, true); }

rg_block *rg__process_try(rg__process *p, uint32_t space, uint64_t key) { return get(p, space, key, false); }

void rg__process_missed(rg__process *p) {
    bool counts = is_on(p) ? is_vouched(p, rg__coarse_ms()) : p->arena && rg__arena_alive(p->arena);
    if (counts) rg__count(p->metrics, RG__C_PROCESS_MISS, 1);
}

uint64_t rg__process_stamp(rg__process *p, uint32_t space, uint64_t key) {
    if (p->arena) return rg__arena_stamp(p->arena, space, key);
    uint64_t high = atomic_load_explicit(&p->generation, memory_order_acquire);
    uint32_t at = stamp_at(hash_of(p, space, key));
    return high << 32 | atomic_load_explicit(&p->stamps[at], memory_order_acquire);
}

/* ---- writing ---- */

/* Another cache, or this one under another key, may hold the block: then a copy goes in. */
static rg_block *adopt(rg_block *b) {
    bool owned = rg__block_word(b) & RG__OWNED;
    if (!owned && !(__atomic_fetch_or(&b->space, RG__OWNED, __ATOMIC_ACQ_REL) & RG__OWNED))
        return rg_block_ref(b);
    rg_block *copy = rg__block_dup(b->data, b->len);
    if (copy) rg__block_set_word(copy, RG__OWNED);
    return copy;
}

static bool current(rg__process *p, uint32_t space, uint64_t key, uint64_t stamp) {
    return is_on(p) && rg__process_stamp(p, space, key) == stamp;
}

static bool try_insert(rg__process *p, rg__shard *s, uint64_t hash, rg_block *b, uint64_t stamp) {
    rg__shard_lock(s);
    bool ok = current(p, rg__block_space(b), b->key, stamp) && rg__shard_insert(s, hash, b);
    rg__shard_unlock(s);
    return ok;
}

bool rg__process_put(rg__process *p, uint32_t space, uint64_t key, rg_block *b, uint32_t ttl_s,
                     uint64_t stamp) {
    if (p->arena) return rg__arena_put(p->arena, space, key, b, ttl_s, stamp, p->metrics);
    uint64_t hash = hash_of(p, space, key);
    rg__shard *s = shard_of(p, hash);
    if (rg__shard_cost(b) > s->max_bytes / 2 || !current(p, space, key, stamp)) return false;
    rg_block *mine = adopt(b);
    if (!mine) return false;
    rg__block_set_word(mine, RG__OWNED | space);
    mine->key = key;
    mine->expires_s = rg__end_of_life(seconds(rg__coarse_ms()), ttl_s);
    if (try_insert(p, s, hash, mine, stamp)) return true;
    rg__block_disown(mine);
    return false;
}

void rg__process_drop(rg__process *p, uint32_t space, uint64_t key) {
    if (p->arena) {
        if (rg__arena_drop(p->arena, space, key)) rg__count(p->metrics, RG__C_PROCESS_INVALIDATED, 1);
        return;
    }
    uint64_t hash = hash_of(p, space, key);
    rg__shard *s = shard_of(p, hash);
    rg__shard_lock(s);
    atomic_fetch_add_explicit(&p->stamps[stamp_at(hash)], 1, memory_order_acq_rel);
    uint32_t at = rg__table_find(&s->table, hash, space, key);
    bool found = at != RG__NOWHERE;
    if (found) rg__shard_kill(s, at);
    rg__shard_sweep(s);
    rg__shard_unlock(s);
    if (found) rg__count(p->metrics, RG__C_PROCESS_INVALIDATED, 1);
}

void rg__process_clear(rg__process *p) {
    if (p->arena) rg__arena_clear(p->arena);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_acq_rel);
    for (uint32_t i = 0; i < p->n_shards; i++) {
        rg__shard_lock(&p->shards[i]);
        rg__shard_empty(&p->shards[i]);
        rg__shard_unlock(&p->shards[i]);
    }
}

bool rg__process_is_on(rg__process *p) {
    return p->arena ? rg__arena_alive(p->arena) : is_on(p) && is_vouched(p, rg__coarse_ms());
}

void rg__process_enable(rg__process *p, bool on) {
    if (!on) atomic_fetch_add_explicit(&p->holds, 1, memory_order_acq_rel);
    rg__process_clear(p);
    if (on) atomic_fetch_sub_explicit(&p->holds, 1, memory_order_acq_rel);
}

void rg__process_stats(rg__process *p, uint64_t *bytes, uint64_t *entries) {
    *bytes = *entries = 0;
    if (p->arena) rg__arena_stats(p->arena, bytes, entries);
    for (uint32_t i = 0; i < p->n_shards; i++) {
        rg__shard *s = &p->shards[i];
        rg__shard_lock(s);
        *bytes += s->small.bytes + s->main.bytes;
        *entries += s->table.n;
        rg__shard_unlock(s);
    }
}

/* ---- forks ---- */

/* A shard whose lock somebody held at the fork may be half-changed: its blocks are forgotten, not
 * freed. Without memory for new tables it takes nothing any more. */
static void renew_shard(rg__process *p, rg__shard *s) {
    size_t max_bytes = s->max_bytes;
    memset(s, 0, sizeof *s);
    (void)rg__shard_init(s, max_bytes, p->seed, p->metrics);
}

static void abandon_shard(rg__process *p, rg__shard *s) {
    if (pthread_mutex_trylock(&s->lock) != 0) {
        renew_shard(p, s);
        return;
    }
    rg__shard_empty(s);
    rg__shard_unlock(s);
}

void rg__process_abandon(rg__process *p) {
    atomic_fetch_add(&p->generation, 1);
    pthread_mutex_init(&p->lock, NULL);
    forget_vouched(p);
    for (uint32_t i = 0; i < p->n_shards; i++) abandon_shard(p, &p->shards[i]);
}
