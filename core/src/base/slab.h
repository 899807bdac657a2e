/* SPDX-License-Identifier: MIT */
/* Memory that goes all at once: small pieces out of few allocations. */
#ifndef RG_BASE_SLAB_H
#define RG_BASE_SLAB_H

#include <stddef.h>

typedef struct rg__slab_part rg__slab_part;

/* Zero-initialised is empty. */
typedef struct rg__slab {
    rg__slab_part *parts; /* the one that is taken from first */
} rg__slab;

/* `size` bytes of undefined content, aligned for anything, until rg__slab_deinit; NULL when out of memory. */
void *rg__slab_take(rg__slab *s, size_t size);
void rg__slab_deinit(rg__slab *s);

#endif
