/* SPDX-License-Identifier: MIT */
/* What the process tier knows of one row; lists of rows. */
#include <stdio.h>

#include "base/alloc.h"
#include "unit/load.h"
#include "unit/outage.h"

int rg__rows_add(void *rows, rg_block *row) {
    rg__rows *r = rows;
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 16;
        rg_block **p = rg__reallocarray(r->items, cap, sizeof *p);
        if (!p) {
            rg_block_unref(row);
            return RG_ENO_MEMORY;
        }
        r->items = p;
        r->cap = cap;
    }
    r->items[r->n++] = row;
    return RG_OK;
}

void rg__rows_deinit(rg__rows *r) {
    for (size_t i = 0; i < r->n; i++) rg_block_unref(r->items[i]);
    rg__free(r->items);
    *r = (rg__rows){0};
}

void rg__store_cohere(rg__store *s, const rg_type *t) {
    if (t->cache_process && t->redis_pool >= 0)
        (void)rg__coherence_start(s->coherence[t->redis_pool], NULL);
}

/* Takes the reference. */
static inline int found(rg_block *b, rg_block **out) {
    if (!b) return RG_GET_MISS;
    *out = b;
    if (rg_block_len(b) > 0) return RG_GET_HIT;
    rg_block_unref(b);
    *out = NULL;
    return RG_GET_ABSENT;
}

static void tell(const rg__ctx *ctx, const rg_type *t, uint64_t id, const rg_block *b, int64_t started) {
    char text[64];
    int len = snprintf(text, sizeof text, "%u:%llu", t->space, (unsigned long long)id);
    rg__trace_add(ctx, RG__SOURCE_PROCESS, b ? "hit" : "miss", "process", text, (size_t)len, started,
                  rg__wall_us() - started, b && rg_block_len(b), NULL);
}

/* last: nobody looks again, so that it is a miss when it is not there. */
static inline int look(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t id, bool last,
                       rg_block **out) {
    if (!t->cache_process || !rg__trusted(s, t)) return RG_GET_MISS;
    bool traced = ctx && rg__traced(ctx, RG__SOURCE_PROCESS);
    int64_t started = traced ? rg__wall_us() : 0;
    rg_block *b = last ? rg__process_get(s->process, t->space, id) : rg__process_try(s->process, t->space, id);
    if (traced && (b || last)) tell(ctx, t, id, b, started);
    return found(b, out);
}

int rg__load_peek(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t id, rg_block **out) {
    return look(s, ctx, t, id, true, out);
}

int rg__load_try(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t id, rg_block **out) {
    return look(s, ctx, t, id, false, out);
}
