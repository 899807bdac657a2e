/* SPDX-License-Identifier: MIT */
/* Saving and restoring the rows that a session has pinned. */
#include "run/save.h"

#include <string.h>

#include "base/alloc.h"

static void drop_rows(rg__save *save) {
    for (uint32_t i = 0; i < save->n; i++) rg_block_unref(save->rows[i]);
    rg__free(save->rows);
    *save = (rg__save){0};
}

static void drop_first(rg__saves *s) {
    for (uint32_t i = 0; i < s->first_end; i++) {
        rg_block_unref(s->first[i]);
        s->first[i] = NULL;
    }
    s->first_end = 0;
}

int rg__saves_push(rg__saves *s, rg_block *const *slots, uint32_t n) {
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        rg__save *p = rg__reallocarray(s->items, cap, sizeof *p);
        if (!p) return RG_ENO_MEMORY;
        s->items = p;
        s->cap = cap;
    }
    rg__save save = {.rows = rg__calloc(n + 1, sizeof(rg_block *)), .n = n, .number = s->last + 1};
    if (!save.rows) return RG_ENO_MEMORY;
    for (uint32_t i = 0; i < n; i++) save.rows[i] = slots[i] ? rg_block_ref(slots[i]) : NULL;
    s->items[s->n++] = save;
    return ++s->last;
}

/* The last ones first: most are. */
static rg__save *find(const rg__saves *s, int number) {
    for (uint32_t i = s->n; i > 0; i--)
        if (s->items[i - 1].number == number) return &s->items[i - 1];
    return NULL;
}

void rg__saves_drop(rg__saves *s, int number) {
    rg__save *save = find(s, number);
    if (!save) return;
    drop_rows(save);
    s->n--;
    memmove(save, save + 1, (size_t)(&s->items[s->n] - save) * sizeof *save);
    if (s->n == 0) drop_first(s);
}

/* The first row of a slot, unless it was pinned before the outermost save. */
static rg_block *first_of(const rg__saves *s, uint32_t slot) {
    rg_block *row = slot < s->first_cap ? s->first[slot] : NULL;
    return row ? rg_block_ref(row) : NULL;
}

void rg__saves_restore(rg__saves *s, int number, rg_block **slots, uint32_t n) {
    rg__save *save = find(s, number);
    if (!save) return;
    for (uint32_t i = 0; i < n; i++) {
        rg_block *row = i < save->n ? save->rows[i] : first_of(s, i);
        if (i < save->n) save->rows[i] = NULL;
        rg_block_unref(slots[i]);
        slots[i] = row;
    }
    rg__saves_drop(s, number);
}

int rg__saves_first(rg__saves *s, uint32_t slot, rg_block *row) {
    if (s->n == 0) return RG_OK;
    if (slot >= s->first_cap) {
        uint32_t cap = s->first_cap ? s->first_cap : 64;
        while (cap <= slot) cap *= 2;
        rg_block **p = rg__reallocarray(s->first, cap, sizeof *p);
        if (!p) return RG_ENO_MEMORY;
        memset(p + s->first_cap, 0, (cap - s->first_cap) * sizeof *p);
        s->first = p;
        s->first_cap = cap;
    }
    if (row) rg_block_ref(row);
    rg_block_unref(s->first[slot]);
    s->first[slot] = row;
    if (slot >= s->first_end) s->first_end = slot + 1;
    return RG_OK;
}

int rg__saves_keep(rg__saves *s, int number, uint32_t slot, rg_block *row) {
    rg__save *save = find(s, number);
    if (!save) return RG_OK;
    if (slot >= save->n) return rg__saves_first(s, slot, row);
    if (row) rg_block_ref(row);
    rg_block_unref(save->rows[slot]);
    save->rows[slot] = row;
    return RG_OK;
}

void rg__saves_own(rg__saves *s, uint32_t slot) {
    if (slot >= s->first_cap) return;
    rg_block_unref(s->first[slot]);
    s->first[slot] = NULL;
}

void rg__saves_clear(rg__saves *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        for (uint32_t k = 0; k < s->items[i].n; k++) rg_block_unref(s->items[i].rows[k]);
        s->items[i].n = 0;
    }
    drop_first(s);
}

void rg__saves_deinit(rg__saves *s) {
    for (uint32_t i = 0; i < s->n; i++) drop_rows(&s->items[i]);
    drop_first(s);
    rg__free(s->first);
    rg__free(s->items);
    *s = (rg__saves){0};
}
