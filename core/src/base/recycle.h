/* SPDX-License-Identifier: MIT */
/* Blocks of rows come and go by the hundred, more than the allocator keeps at hand: each thread keeps
 * what it frees, by size in steps of 16 bytes, up to a bound. Any thread may free what another has
 * allocated. Off under sanitizers, which then see each use after a free. */
#ifndef RG_BASE_RECYCLE_H
#define RG_BASE_RECYCLE_H

#include <stddef.h>

enum {
    RG__RECYCLE_SIZE = 512,       /* larger ones go to the allocator */
    RG__RECYCLE_BYTES = 256 * 1024 /* a thread keeps at most so much */
};

/* As rg__malloc and rg__free; size is the one that it was allocated with. */
void *rg__recycle_malloc(size_t size);
void rg__recycle_free(void *p, size_t size);

#endif
