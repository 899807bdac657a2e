/* SPDX-License-Identifier: MIT */
/* A bounded memory of what took long. Slots are taken by whoever gets them and nobody waits for one: an
 * event that meets another at its slot is dropped. So a fork in the middle costs a slot at most. */
#ifndef RG_BASE_SLOW_H
#define RG_BASE_SLOW_H

#include <regolith/slow.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/slice.h"

enum { RG__SLOW_KEPT = 128, RG__SLOW_MS = 100 };

typedef struct rg__slow rg__slow; /* shared */

/* NULL when there is no memory. */
rg__slow *rg__slow_new(void);
void rg__slow_free(rg__slow *s); /* NULL is fine */
void rg__slow_bound(rg__slow *s, uint32_t ms); /* 0: nothing is slow */
/* Is this long enough to be kept? NULL never is. */
bool rg__slow_is(const rg__slow *s, int64_t us);
/* What is to be kept: number, op, pool and text of *e are filled in here. */
void rg__slow_add(rg__slow *s, rg_slow_event *e, const char *op, const char *pool, rg__slice text);
bool rg__slow_get(rg__slow *s, uint64_t before, rg_slow_event *out);

#endif
