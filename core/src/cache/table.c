/* SPDX-License-Identifier: MIT */
/* Growing, putting in and taking out; finding is in the header. */
#include "cache/table.h"

#include <string.h>

#include "base/alloc.h"

enum {
    MIN_SLOTS = 64,
    AHEAD = 8, /* slots whose blocks are fetched while the table grows */
};

static uint64_t hash_of(const rg__table *t, const rg_block *b) {
    return rg__table_hash(t->seed, rg__block_space(b), b->key);
}

static uint64_t slot_of(uint64_t hash, const rg_block *b) {
    return hash >> RG__TAG_SHIFT << RG__TAG_SHIFT | (uintptr_t)b;
}

static uint64_t no_slot[1]; /* of tables without memory; never written */

int rg__table_init(rg__table *t, uint64_t seed) {
    uint64_t *slots = rg__calloc(MIN_SLOTS, sizeof *slots);
    *t = (rg__table){slots ? slots : no_slot, slots ? MIN_SLOTS : 1, 0, seed};
    return slots ? RG_OK : RG_ENO_MEMORY;
}

void rg__table_deinit(rg__table *t) {
    if (t->slots != no_slot) rg__free(t->slots);
    *t = (rg__table){0};
}

void rg__table_clear(rg__table *t) {
    if (t->n) memset(t->slots, 0, t->cap * sizeof *t->slots);
    t->n = 0;
}

void rg__table_insert(rg__table *t, uint64_t hash, rg_block *b) {
    uint32_t at = rg__table_home(t, hash);
    while (t->slots[at]) at = rg__table_next(t, at);
    t->slots[at] = slot_of(hash, b);
    t->n++;
}

static bool grow(rg__table *t) {
    rg__table larger = {.cap = t->cap + t->cap / 8, .seed = t->seed};
    if (larger.cap <= t->cap) return false;
    larger.slots = rg__calloc(larger.cap, sizeof *larger.slots);
    if (!larger.slots) return false;
    for (uint32_t i = 0; i < t->cap; i++) {
        if (i + AHEAD < t->cap) __builtin_prefetch(rg__table_block(t, i + AHEAD));
        if (!t->slots[i]) continue;
        rg_block *b = rg__table_block(t, i);
        rg__table_insert(&larger, hash_of(t, b), b);
    }
    rg__free(t->slots);
    *t = larger;
    return true;
}

/* Without memory it fills up until one slot is left. */
bool rg__table_reserve(rg__table *t) {
    return t->n < t->cap / 8 * 7 || grow(t) || t->n + 1 < t->cap;
}

uint32_t rg__table_slot_of(const rg__table *t, uint64_t hash, const rg_block *b) {
    uint32_t at = rg__table_home(t, hash);
    while (t->slots[at] != slot_of(hash, b)) at = rg__table_next(t, at);
    return at;
}

/* How far a slot lies behind another, around the end. */
static uint32_t distance(const rg__table *t, uint32_t from, uint32_t to) {
    return to >= from ? to - from : to + t->cap - from;
}

/* Each that follows moves into the hole, unless its home lies behind it. */
void rg__table_remove(rg__table *t, uint32_t at) {
    uint32_t hole = at;
    for (at = rg__table_next(t, at); t->slots[at]; at = rg__table_next(t, at)) {
        uint32_t home = rg__table_home(t, hash_of(t, rg__table_block(t, at)));
        if (distance(t, home, at) < distance(t, hole, at)) continue;
        t->slots[hole] = t->slots[at];
        hole = at;
    }
    t->slots[hole] = 0;
    t->n--;
}
