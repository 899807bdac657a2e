/* SPDX-License-Identifier: MIT */
/* Memory that goes all at once. */
#include "base/slab.h"

#include "base/alloc.h"

#include <stdalign.h>
#include <stdint.h>

/* Each part is twice as large as the one before: what is small stays so. */
enum { FIRST_PART = 960, LARGEST_PART = 16384 };

struct rg__slab_part {
    rg__slab_part *next;
    size_t used, cap; /* bytes of data */
    alignas(max_align_t) char data[];
};

static rg__slab_part *add_part(rg__slab *s, size_t least) {
    size_t cap = s->parts ? s->parts->cap * 2 : FIRST_PART;
    if (cap > LARGEST_PART) cap = LARGEST_PART;
    if (cap < least) cap = least;
    if (cap > SIZE_MAX - sizeof(rg__slab_part)) return NULL;
    rg__slab_part *part = rg__malloc(sizeof *part + cap);
    if (!part) return NULL;
    part->next = s->parts;
    part->used = 0;
    part->cap = cap;
    s->parts = part;
    return part;
}

void *rg__slab_take(rg__slab *s, size_t size) {
    size_t whole = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    rg__slab_part *part = s->parts;
    if (whole < size) return NULL;
    if (!part || part->cap - part->used < whole) part = add_part(s, whole);
    if (!part) return NULL;
    void *p = part->data + part->used;
    part->used += whole;
    return p;
}

void rg__slab_deinit(rg__slab *s) {
    for (rg__slab_part *part = s->parts, *next; part; part = next) {
        next = part->next;
        rg__free(part);
    }
    s->parts = NULL;
}
