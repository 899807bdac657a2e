/* SPDX-License-Identifier: MIT */
/* Blocks: allocation and the reference count. */
#include "base/block.h"

#include "base/recycle.h"

#include <string.h>

rg_block *rg__block_new(uint32_t len) {
    size_t size;
    if (__builtin_add_overflow(sizeof(rg_block), (size_t)len, &size)) return NULL;
    rg_block *b = rg__recycle_malloc(size);
    if (!b) return NULL;
    memset(b, 0, sizeof *b);
    atomic_init(&b->refs, 1);
    b->len = len;
    return b;
}

rg_block *rg__block_dup(const void *p, uint32_t len) {
    rg_block *b = rg__block_new(len);
    if (b && len) memcpy(b->data, p, len);
    return b;
}

rg_block *rg_block_ref(rg_block *b) {
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

/* Release, so that what a holder read happened before the free; acquire by the one who frees. */
void rg_block_unref(rg_block *b) {
    if (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
        rg__recycle_free(b, sizeof *b + b->len);
}

const uint8_t *rg_block_data(const rg_block *b) { return b->data; }
uint32_t rg_block_len(const rg_block *b) { return b->len; }
