/* SPDX-License-Identifier: MIT */
/* The shared cache at work: getting, putting, dropping, letting go. The rules are in arena.h. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "cache/arena_inside.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { EMPTY = 0, TENTATIVE = 1, LIVE = 2 };
enum {
    ASKED_MAX = 3,
    ROUNDS = 32,         /* records of the main ring that go round again for one put */
    LOCK_TRIES = 64,
};
#define POSITION_MAX ((UINT64_C(1) << 44) - 1)

/* ---- slots ---- */

static uint64_t slot_of(uint64_t position, uint64_t tag, uint64_t ring, uint64_t state, uint64_t asked) {
    return position << 20 | tag << 5 | ring << 4 | state << 2 | asked;
}
static uint64_t position_of(uint64_t slot) { return slot >> 20; }
static uint64_t tag_of(uint64_t slot) { return slot >> 5 & 0x7fff; }
static uint64_t ring_of(uint64_t slot) { return slot >> 4 & 1; }
static uint64_t state_of(uint64_t slot) { return slot >> 2 & 3; }
static uint64_t asked_of(uint64_t slot) { return slot & 3; }
static uint64_t but_asked(uint64_t slot) { return slot & ~(uint64_t)3; }

/* Where a key belongs. */
typedef struct place {
    rg__pen *pen;
    atomic_ullong *slots; /* its bucket */
    atomic_ushort *ghost;
    atomic_uint *stamp;
    uint64_t tag;
    uint16_t fingerprint;
} place;

static place place_of(const rg__arena *a, uint32_t space, uint64_t key) {
    const uint64_t input[2] = {key, space};
    uint64_t hash = XXH3_64bits_withSeed(input, sizeof input, a->seed);
    rg__pen *p = &a->head->pens[hash & a->shard_mask];
    uint64_t bucket = hash >> 12 & p->mask;
    return (place){.pen = p,
                   .slots = rg__arena_slots(a, p) + bucket * RG__ARENA_SLOTS,
                   .ghost = rg__arena_ghosts(a, p) + bucket * RG__ARENA_GHOSTS + (hash >> 45 & 1),
                   .stamp = &a->head->stamps[hash & (RG__ARENA_STAMPS - 1)],
                   .tag = hash >> 49,
                   .fingerprint = (uint16_t)(hash >> 46 | 1)};
}

static uint32_t now_s(void) {
    struct timespec t;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (uint32_t)t.tv_sec;
}

/* ---- bytes that others may be changing: word by word, checked afterwards. Loads acquire and stores release, so
 * that the look at the slot comes after the loads, and its emptying before the stores ---- */

static void copy_out(void *to, const void *from, size_t units) {
    const uint64_t *in = from;
    for (size_t i = 0; i < units * (RG__ARENA_UNIT / 8); i++) {
        uint64_t word = __atomic_load_n(&in[i], __ATOMIC_ACQUIRE);
        memcpy((uint8_t *)to + i * 8, &word, 8);
    }
}

static void store_words(uint64_t *out, const uint8_t *from, size_t len) {
    for (size_t i = 0; i < len / 8; i++) {
        uint64_t word;
        memcpy(&word, from + i * 8, 8);
        __atomic_store_n(&out[i], word, __ATOMIC_RELEASE);
    }
    if (from && len % 8) {
        uint64_t word = 0;
        memcpy(&word, from + len / 8 * 8, len % 8);
        __atomic_store_n(&out[len / 8], word, __ATOMIC_RELEASE);
    }
}

static void store_record(rg__record *to, const rg__record *r, const uint8_t *data) {
    uint64_t head[sizeof *r / 8];
    memcpy(head, r, sizeof *r);
    store_words((uint64_t *)(void *)to, (const uint8_t *)head, sizeof head);
    store_words((uint64_t *)(void *)(to + 1), data, r->len);
}

/* ---- reading ---- */

/* Is the record still where the slot said? What was copied before was read with acquire. */
static bool unmoved(atomic_ullong *slot, uint64_t seen) {
    return but_asked(atomic_load_explicit(slot, memory_order_relaxed)) == but_asked(seen);
}

static bool counts(const rg__arena *a, const rg__record *r, uint32_t space, uint64_t key) {
    return r->key == key && r->space == space && (!r->expires_s || r->expires_s > now_s()) &&
           r->generation == atomic_load_explicit(&a->head->generation, memory_order_acquire);
}

static void note_asked(atomic_ullong *slot, uint64_t seen) {
    unsigned long long expected = seen;
    if (asked_of(seen) < ASKED_MAX)
        atomic_compare_exchange_weak_explicit(slot, &expected, seen + 1, memory_order_relaxed,
                                              memory_order_relaxed);
}

/* A copy of what the slot stands for, NULL when it is another key's, or changed meanwhile. */
static rg_block *read_slot(const rg__arena *a, const place *at, atomic_ullong *slot, uint64_t seen,
                           uint32_t space, uint64_t key) {
    const rg__ring *ring = &at->pen->ring[ring_of(seen)];
    const rg__record *from = rg__arena_record(a, ring, position_of(seen));
    rg__record r;
    copy_out(&r, from, 1);
    if (!unmoved(slot, seen) || !counts(a, &r, space, key)) return NULL;
    /* A whole number of units, so that the copy may end beyond the data. */
    uint32_t room = (r.units - 1) * RG__ARENA_UNIT;
    rg_block *b = rg__block_new(room);
    if (!b) return NULL;
    copy_out(b->data, from + 1, r.units - 1);
    b->len = r.len;
    if (unmoved(slot, seen)) return b;
    rg_block_unref(b);
    return NULL;
}

rg_block *rg__arena_get(rg__arena *a, uint32_t space, uint64_t key) {
    if (!rg__arena_alive(a)) return NULL;
    place at = place_of(a, space, key);
    for (int i = 0; i < RG__ARENA_SLOTS; i++) {
        uint64_t seen = atomic_load_explicit(&at.slots[i], memory_order_acquire);
        if (state_of(seen) != LIVE || tag_of(seen) != at.tag) continue;
        rg_block *b = read_slot(a, &at, &at.slots[i], seen, space, key);
        if (b) note_asked(&at.slots[i], seen);
        if (b) return b;
    }
    return NULL;
}

/* ---- stamps ---- */

static uint64_t stamp_at(const rg__arena *a, const place *at) {
    uint64_t high = atomic_load(&a->head->generation);
    return high << 32 | atomic_load(at->stamp);
}

uint64_t rg__arena_stamp(rg__arena *a, uint32_t space, uint64_t key) {
    place at = place_of(a, space, key);
    return stamp_at(a, &at);
}

/* ---- dropping ---- */

static bool empty_slot(atomic_ullong *slot, uint64_t tag) {
    unsigned long long seen = atomic_load(slot);
    while (state_of(seen) != EMPTY && tag_of(seen) == tag)
        if (atomic_compare_exchange_weak(slot, &seen, 0)) return true;
    return false;
}

bool rg__arena_drop(rg__arena *a, uint32_t space, uint64_t key) {
    place at = place_of(a, space, key);
    bool found = false;
    atomic_fetch_add(at.stamp, 1);
    for (int i = 0; i < RG__ARENA_SLOTS; i++) found |= empty_slot(&at.slots[i], at.tag);
    return found;
}

void rg__arena_clear(rg__arena *a) { atomic_fetch_add(&a->head->generation, 1); }

/* ---- the lock of a shard ---- */

/* Everything of it goes; positions go on, so that nobody takes a new record for an old one. */
static void renew(rg__arena *a, rg__pen *p) {
    atomic_ullong *slots = rg__arena_slots(a, p);
    for (uint64_t i = 0; i < (p->mask + 1) * RG__ARENA_SLOTS; i++) atomic_store(&slots[i], 0);
    for (int i = 0; i < 2; i++) {
        rg__ring *r = &p->ring[i];
        uint64_t head = atomic_load(&r->head);
        uint64_t tail = atomic_load(&r->tail);
        uint64_t next = ((head > tail ? head : tail) / r->units + 2) * r->units;
        if (next > POSITION_MAX / 2) next = 0;
        atomic_store(&r->head, next);
        atomic_store(&r->tail, next);
    }
}

bool rg__arena_lock(rg__arena *a, rg__pen *p) {
    int rc = EBUSY;
    for (int i = 0; rc == EBUSY && i < LOCK_TRIES; i++) rc = pthread_mutex_trylock(&p->lock);
    if (rc == EOWNERDEAD) {
        renew(a, p);
        rc = pthread_mutex_consistent(&p->lock);
    }
    return rc == 0;
}

/* ---- putting; all under the lock ---- */

/* A record that is on its way to another place: its slot is TENTATIVE meanwhile, so that drops find it. */
typedef struct victim {
    rg__record r;
    uint8_t *data;       /* owned; NULL: nothing is kept */
    atomic_ullong *slot;
    unsigned long long tentative; /* what the slot then holds */
    atomic_ushort *ghost;
    uint16_t fingerprint;
    uint32_t asked;
} victim;

/* The slot that stands for the record at this position, NULL when none does. */
static atomic_ullong *slot_for(const place *at, uint64_t position, uint64_t ring, uint64_t *seen) {
    for (int i = 0; i < RG__ARENA_SLOTS; i++) {
        *seen = atomic_load(&at->slots[i]);
        if (state_of(*seen) == LIVE && position_of(*seen) == position && ring_of(*seen) == ring)
            return &at->slots[i];
    }
    return NULL;
}

/* Readers leave the slot alone from now on; false: it was dropped meanwhile. */
static bool suspend(victim *v, atomic_ullong *slot, uint64_t seen) {
    unsigned long long now = seen;
    v->slot = slot;
    v->tentative = slot_of(position_of(seen), tag_of(seen), ring_of(seen), TENTATIVE, 0);
    while (!atomic_compare_exchange_weak(slot, &now, v->tentative))
        if (but_asked(now) != but_asked(seen)) return false;
    v->asked = (uint32_t)asked_of(now);
    return true;
}

static void forget(victim *v, rg__metrics *m) {
    rg__free(v->data);
    v->data = NULL;
    if (!atomic_compare_exchange_strong(v->slot, &v->tentative, 0)) return;
    rg__count(m, RG__C_PROCESS_EVICTED, 1);
    if (ring_of(v->tentative) == RG__SMALL) atomic_store(v->ghost, v->fingerprint);
}

/* The oldest record of a ring goes; one that was asked for as often as `worth` is given to v. */
static void let_go(rg__arena *a, rg__pen *p, uint64_t ring, uint32_t worth, victim *v, rg__metrics *m) {
    rg__ring *r = &p->ring[ring];
    uint64_t tail = atomic_load(&r->tail);
    const rg__record *old = rg__arena_record(a, r, tail);
    *v = (victim){.data = NULL};
    copy_out(&v->r, old, 1);
    uint64_t seen = 0;
    place at = place_of(a, v->r.space, v->r.key);
    bool pad = v->r.space == RG__RECORD_PAD;
    atomic_ullong *slot = pad ? NULL : slot_for(&at, tail & POSITION_MAX, ring, &seen);
    if (slot && suspend(v, slot, seen)) {
        v->ghost = at.ghost;
        v->fingerprint = at.fingerprint;
        bool wanted = v->asked >= worth && counts(a, &v->r, v->r.space, v->r.key);
        if (wanted && (v->data = rg__malloc((size_t)v->r.len + 1)) != NULL) memcpy(v->data, old + 1, v->r.len);
        if (!v->data) forget(v, m);
    }
    atomic_store(&r->tail, tail + v->r.units);
}

/* Units that a record of that many takes at the head, with what is left unused at the ring's end. */
static uint64_t units_at(const rg__ring *r, uint64_t head, uint64_t units) {
    uint64_t left = r->units - head % r->units;
    return left < units ? left + units : units;
}

static bool fits(const rg__ring *r, uint64_t units) {
    uint64_t head = atomic_load(&r->head);
    return head + units_at(r, head, units) - atomic_load(&r->tail) <= r->units;
}

/* Writes at the head, where there is room; its position. */
static uint64_t append(rg__arena *a, rg__ring *r, const rg__record *record, const uint8_t *data) {
    uint64_t head = atomic_load(&r->head);
    uint64_t left = r->units - head % r->units;
    if (left < record->units) {
        const rg__record pad = {.space = RG__RECORD_PAD, .units = (uint32_t)left};
        store_record(rg__arena_record(a, r, head), &pad, NULL);
        head += left;
    }
    store_record(rg__arena_record(a, r, head), record, data);
    atomic_store(&r->head, head + record->units);
    return head;
}

/* An empty slot of the bucket, or the one asked for least, whose record then counts no more. */
static atomic_ullong *take_slot(const place *at, rg__metrics *m) {
    atomic_ullong *least = &at->slots[0];
    uint64_t least_seen = atomic_load(least);
    for (int i = 0; i < RG__ARENA_SLOTS; i++) {
        uint64_t seen = atomic_load(&at->slots[i]);
        if (state_of(seen) == EMPTY) return &at->slots[i];
        if (asked_of(seen) < asked_of(least_seen)) {
            least = &at->slots[i];
            least_seen = seen;
        }
    }
    atomic_store(least, 0);
    rg__count(m, RG__C_PROCESS_EVICTED, 1);
    return least;
}

/* The record is written: seen by drops first, by readers when the stamp is still the same (I1). */
static bool show(rg__arena *a, const place *at, uint64_t position, uint64_t ring, uint64_t asked,
                 uint64_t stamp, rg__metrics *m) {
    atomic_ullong *slot = take_slot(at, m);
    unsigned long long tentative = slot_of(position & POSITION_MAX, at->tag, ring, TENTATIVE, 0);
    atomic_store(slot, tentative);
    if (stamp_at(a, at) != stamp) {
        atomic_compare_exchange_strong(slot, &tentative, 0);
        return false;
    }
    return atomic_compare_exchange_strong(slot, &tentative,
                                          slot_of(position & POSITION_MAX, at->tag, ring, LIVE, asked));
}

/* Into the main ring: again, or from the small one. */
static void put_back(rg__arena *a, rg__pen *p, victim *v, uint32_t asked, rg__metrics *m) {
    rg__ring *r = &p->ring[RG__MAIN];
    if (!v->data) return;
    if (!fits(r, v->r.units)) {
        forget(v, m);
        return;
    }
    uint64_t position = append(a, r, &v->r, v->data) & POSITION_MAX;
    atomic_compare_exchange_strong(v->slot, &v->tentative,
                                   slot_of(position, tag_of(v->tentative), RG__MAIN, LIVE, asked));
    rg__free(v->data);
    v->data = NULL;
}

static void room_in_main(rg__arena *a, rg__pen *p, uint64_t units, rg__metrics *m) {
    victim v;
    for (int i = 0; !fits(&p->ring[RG__MAIN], units); i++) {
        let_go(a, p, RG__MAIN, i < ROUNDS ? 1 : ASKED_MAX + 1, &v, m);
        put_back(a, p, &v, v.asked ? v.asked - 1 : 0, m);
    }
}

/* While the main ring is not full it takes what was never asked for, too. */
static void room_in_small(rg__arena *a, rg__pen *p, uint64_t units, rg__metrics *m) {
    const rg__ring *small = &p->ring[RG__SMALL];
    victim v;
    while (!fits(small, units)) {
        let_go(a, p, RG__SMALL, fits(&p->ring[RG__MAIN], small->units / 2) ? 0 : 1, &v, m);
        if (v.data) room_in_main(a, p, v.r.units, m);
        put_back(a, p, &v, 0, m);
    }
}

/* Empties the slots of the key; did it have a record in the main ring? */
static bool replace(rg__arena *a, const place *at, uint32_t space, uint64_t key) {
    bool main = false;
    for (int i = 0; i < RG__ARENA_SLOTS; i++) {
        unsigned long long seen = atomic_load(&at->slots[i]);
        if (state_of(seen) == EMPTY || tag_of(seen) != at->tag) continue;
        rg__record r;
        copy_out(&r, rg__arena_record(a, &at->pen->ring[ring_of(seen)], position_of(seen)), 1);
        if (r.key != key || r.space != space) continue;
        main |= ring_of(seen) == RG__MAIN;
        empty_slot(&at->slots[i], at->tag);
    }
    return main;
}

static bool came_back(const place *at) {
    if (atomic_load(at->ghost) != at->fingerprint) return false;
    atomic_store(at->ghost, 0);
    return true;
}

static bool insert(rg__arena *a, const place *at, const rg__record *r, const uint8_t *data, uint64_t stamp,
                   rg__metrics *m) {
    rg__pen *p = at->pen;
    bool main = replace(a, at, r->space, r->key);
    main |= came_back(at) || r->units > p->ring[RG__SMALL].units / 2;
    if (main) room_in_main(a, p, r->units, m);
    else room_in_small(a, p, r->units, m);
    uint64_t ring = main ? RG__MAIN : RG__SMALL;
    uint64_t position = append(a, &p->ring[ring], r, data);
    if (position > POSITION_MAX - p->ring[ring].units) {
        renew(a, p);
        return false;
    }
    return show(a, at, position, ring, 0, stamp, m);
}

bool rg__arena_put(rg__arena *a, uint32_t space, uint64_t key, const rg_block *b, uint32_t ttl_s,
                   uint64_t stamp, rg__metrics *m) {
    place at = place_of(a, space, key);
    uint64_t units = 1 + ((uint64_t)b->len + RG__ARENA_UNIT - 1) / RG__ARENA_UNIT;
    if (units > at.pen->ring[RG__MAIN].units / 4 || !rg__arena_alive(a) || stamp_at(a, &at) != stamp)
        return false;
    const rg__record r = {.key = key, .space = space, .generation = (uint32_t)(stamp >> 32), .len = b->len,
                          .expires_s = rg__end_of_life(now_s(), ttl_s), .units = (uint32_t)units};
    if (!rg__arena_lock(a, at.pen)) return false;
    bool ok = insert(a, &at, &r, b->data, stamp, m);
    pthread_mutex_unlock(&at.pen->lock);
    return ok;
}

/* ---- figures ---- */

static uint64_t live_in(const rg__arena *a, const rg__pen *p) {
    uint64_t n = 0;
    atomic_ullong *slots = rg__arena_slots(a, p);
    uint32_t generation = atomic_load(&a->head->generation);
    for (uint64_t i = 0; i < (p->mask + 1) * RG__ARENA_SLOTS; i++) {
        uint64_t seen = atomic_load_explicit(&slots[i], memory_order_relaxed);
        if (state_of(seen) != LIVE) continue;
        rg__record r;
        copy_out(&r, rg__arena_record(a, &p->ring[ring_of(seen)], position_of(seen)), 1);
        n += r.generation == generation;
    }
    return n;
}

void rg__arena_stats(rg__arena *a, uint64_t *bytes, uint64_t *entries) {
    *bytes = *entries = 0;
    for (uint32_t i = 0; i <= a->shard_mask; i++) {
        rg__pen *p = &a->head->pens[i];
        for (int k = 0; k < 2; k++)
            *bytes += (atomic_load(&p->ring[k].head) - atomic_load(&p->ring[k].tail)) * RG__ARENA_UNIT;
        *entries += live_in(a, p);
    }
}
