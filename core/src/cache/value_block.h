/* SPDX-License-Identifier: MIT */
/* How the process tier keeps a value; for the files of value caches only. */
#ifndef RG_CACHE_VALUE_BLOCK_H
#define RG_CACHE_VALUE_BLOCK_H

#include "cache/shared.h"
#include "cache/value.h"

/* A block: this, what it depends on (24 bytes each), the key, the value. The key is that of the Redis
 * key after the prefix: itself, or its digest. */
typedef struct rg__value_head {
    int64_t expires_ms; /* monotonic: end of its life */
    uint32_t took_ms;
    uint32_t n_deps;
    uint32_t key_len;
    uint32_t absent;
} rg__value_head;

rg__value_head rg__value_head_of(const rg_block *b);
rg_block *rg__value_block(const rg__value_head *h, const uint8_t *deps, rg__slice key,
                          rg__slice value);
/* How long the process may keep a value that has left_ms to live: of sliding ones Redis must hear now
 * and then that they are asked for. */
int64_t rg__value_life(const rg__values *v, int64_t left_ms);
uint64_t rg__value_hash(const rg__values *v, rg__slice tail);
/* Keeps the block of an item, and the generations it depends on. dropped: what rg__value_dropped
 * said before Redis was asked; generations dropped since are not kept. */
void rg__value_keep(const rg__values *v, const rg__value_item *it, rg_block *b, uint64_t dropped);
uint64_t rg__value_dropped(const rg__values *v);
/* The key as it stands in Redis after the prefix. */
rg__slice rg__value_tail(const rg__values *v, const rg__value_item *it);

/* A script of value caches with what all begin with. */
#define RG__VALUE_SCRIPT(var)                                                                      \
    static const char *const var##_parts[] = {rg__script_text_prelude, rg__script_text_marks,      \
                                              rg__script_text_value, rg__script_text_value_##var,  \
                                              NULL};                                               \
    static rg__script var = {.name = "value_" #var, .parts = var##_parts}

/* epoch, marked, counter, then the items' keys. */
void rg__value_args(rg__args *a, const rg__values *v, const rg__value_item *items, size_t n);
uint64_t rg__value_sum(rg__slice key, rg__slice value);

#endif
