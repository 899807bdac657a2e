/* SPDX-License-Identifier: MIT */
/* Requests: a list of what ends with them. */
#include <regolith/request.h>

#include "base/alloc.h"
#include "run/op.h"
#include "run/tx.h"

struct rg_request {
    uint32_t refs;
    bool ended;
    rg__node tenants;
};

rg_request *rg_request_new(void) {
    rg_request *r = rg__calloc(1, sizeof *r);
    if (!r) return NULL;
    r->refs = 2;
    rg__list_init(&r->tenants);
    return r;
}

void rg_request_free(rg_request *r) {
    if (r && --r->refs == 0) rg__free(r);
}

void rg_request_end(void *request) {
    rg_request *r = request;
    r->ended = true;
    while (!rg__list_empty(&r->tenants)) {
        rg__tenant *t = rg__container(r->tenants.next, rg__tenant, node);
        rg__tenant_leave(t);
        t->end(t);
    }
    rg_request_free(r);
}

int rg_request_ended(const rg_request *r) { return r->ended; }

static void add(rg_request *r, rg__tenant *t) {
    rg__tenant_leave(t);
    rg__list_add_tail(&r->tenants, &t->node);
}

void rg_request_add_op(rg_request *r, rg_op *op) { add(r, &op->tenant); }
void rg_request_add_lease(rg_request *r, rg_lease *l) { add(r, rg__lease_tenant(l)); }
void rg_request_add_tx(rg_request *r, rg_tx *tx) { add(r, rg__tx_tenant(tx)); }
void rg_request_add_lock(rg_request *r, rg_lock *l) { add(r, rg__lock_tenant(l)); }
void rg_op_leave(rg_op *op) { rg__tenant_leave(&op->tenant); }
