/* SPDX-License-Identifier: MIT */
/* Ranks: who must be inserted before whom. */
#include "base/alloc.h"
#include "base/err.h"
#include "schema/define.h"

/* A relation over the types: row i has a bit for each type that i reaches. */
typedef struct reach {
    uint64_t *bits;
    size_t words; /* a row */
} reach;

static bool reaches(const reach *r, uint32_t from, uint32_t to) {
    return r->bits[from * r->words + to / 64] >> (to % 64) & 1;
}

static void connect(reach *r, uint32_t from, uint32_t to) {
    r->bits[from * r->words + to / 64] |= UINT64_C(1) << (to % 64);
}

/* Which references count. */
typedef enum which { SINGLE, LISTS_TOO } which;

static bool counted(const rg__column *c, which w) {
    return c->kind == RG_REF || (c->kind == RG_REFS && w == LISTS_TOO);
}

static void connect_type(reach *r, const rg_type *t, which w) {
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (counted(&t->columns[i], w))
            connect(r, t->number, (uint32_t)t->columns[i].target_space);
}

/* Warshall: whoever reaches `via` reaches all that it reaches. */
static void close_over(reach *r, uint32_t n) {
    for (uint32_t via = 0; via < n; via++)
        for (uint32_t from = 0; from < n; from++)
            if (reaches(r, from, via))
                for (size_t w = 0; w < r->words; w++)
                    r->bits[from * r->words + w] |= r->bits[via * r->words + w];
}

static bool build(reach *r, const rg__schema *s, which w) {
    r->words = (s->n + 63) / 64;
    r->bits = rg__calloc((size_t)s->n * r->words, sizeof *r->bits);
    if (!r->bits) return false;
    for (uint32_t i = 0; i < s->n; i++) connect_type(r, s->types[i], w);
    close_over(r, s->n);
    return true;
}

static bool raise_to(rg_type *t, int rank) {
    if (t->rank >= rank) return false;
    t->rank = rank;
    return true;
}

/* An edge orders two types unless it lies on a cycle. A list of references gives way to a single
 * one: when only lists close the cycle, the single references in it still order. */
static bool orders(const reach *all, const reach *single, const rg__column *c, uint32_t from) {
    uint32_t to = (uint32_t)c->target_space;
    if (!reaches(all, to, from)) return true;
    return c->kind == RG_REF && !reaches(single, to, from);
}

static bool lift(const rg__schema *s, const reach *all, const reach *single, rg_type *t) {
    bool changed = false;
    for (uint32_t i = 0; i < t->n_columns; i++) {
        const rg__column *c = &t->columns[i];
        if (counted(c, LISTS_TOO) && orders(all, single, c, t->number))
            changed |= raise_to(t, s->types[c->target_space]->rank + 1);
    }
    for (uint32_t k = 0; k < s->n; k++)
        if (reaches(single, t->number, k) && reaches(single, k, t->number))
            changed |= raise_to(t, s->types[k]->rank);
    return changed;
}

/* Terminates: the edges that order, with cycles taken as one point, have no cycle. */
static void rank_all(const rg__schema *s, const reach *all, const reach *single) {
    for (uint32_t i = 0; i < s->n; i++) s->types[i]->rank = 0;
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t i = 0; i < s->n; i++) changed |= lift(s, all, single, s->types[i]);
    }
}

/* The least of the types that refer to each other in a circle with this one; or itself. */
static uint32_t circle_of(const reach *single, uint32_t i) {
    for (uint32_t k = 0; k < i; k++)
        if (reaches(single, i, k) && reaches(single, k, i)) return k;
    return i;
}

static void note_foreign(const rg__schema *s, const reach *single, rg_type *t) {
    uint32_t own = circle_of(single, t->number);
    for (uint32_t i = 0; i < t->n_columns; i++) {
        uint32_t target = (uint32_t)t->columns[i].target_space;
        if (!t->columns[i].foreign_key) continue;
        t->has_foreign = true;
        if (reaches(single, target, t->number)) s->types[own]->cyclic = true;
    }
}

/* A circle without foreign keys orders nothing. */
static void find_cycles(const rg__schema *s, const reach *single) {
    for (uint32_t i = 0; i < s->n; i++) note_foreign(s, single, s->types[i]);
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t circle = circle_of(single, i);
        s->types[i]->cyclic = s->types[circle]->cyclic;
        s->types[i]->cycle = s->types[i]->cyclic ? circle : i;
    }
}

int rg__schema_rank(rg__schema *s, rg_err *err) {
    reach all = {0}, single = {0};
    bool ok = build(&all, s, LISTS_TOO) && build(&single, s, SINGLE);
    if (ok) rank_all(s, &all, &single);
    if (ok) find_cycles(s, &single);
    rg__free(all.bits);
    rg__free(single.bits);
    return ok ? RG_OK : rg__fail_memory(err);
}
