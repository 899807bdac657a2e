/* SPDX-License-Identifier: MIT */
/* The reference-counted block of bytes behind rows and lookups. The cache fields belong to the
 * process cache while it holds the block (one cache at a time) and to nobody else: 51 to 54 bytes with
 * the malloc header, the cache's slot and ghosts. */
#ifndef RG_BASE_BLOCK_H
#define RG_BASE_BLOCK_H

#include <regolith/row.h>
#include <stdatomic.h>

struct rg_block {
    struct rg_block *queue_next; /* process cache: its queue, or what is let go; under the shard's lock */
    uint64_t key;               /* process cache: id, or keyed hash of a lookup */
    atomic_uint refs;           /* holders: sessions, operations, the cache */
    uint32_t len;               /* bytes in data */
    uint32_t space;             /* process cache: which type or index (low 24 bits), freq (high 8) */
    uint32_t expires_s;         /* process cache: monotonic second after which it is gone; 0 never */
    uint8_t data[];
};

/* New block with one reference and len bytes of undefined content; NULL when out of memory. */
rg_block *rg__block_new(uint32_t len);
rg_block *rg__block_dup(const void *p, uint32_t len);

#endif
