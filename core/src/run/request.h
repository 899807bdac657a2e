/* SPDX-License-Identifier: MIT */
/* What a request's end ends: embedded in operations, transactions, leases and locks. */
#ifndef RG_RUN_REQUEST_H
#define RG_RUN_REQUEST_H

#include "base/list.h"

/* end() is called once, out of the list, on the request's thread. */
typedef struct rg__tenant {
    rg__node node;
    void (*end)(struct rg__tenant *t);
} rg__tenant;

static inline void rg__tenant_init(rg__tenant *t, void (*end)(rg__tenant *t)) {
    rg__list_init(&t->node);
    t->end = end;
}
static inline void rg__tenant_leave(rg__tenant *t) { rg__list_remove(&t->node); }

#endif
