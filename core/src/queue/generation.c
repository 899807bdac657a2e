/* SPDX-License-Identifier: MIT */
/* A batch and cached searches of the tables that it writes. Searches see rows when they are applied, so
 * it is the consumer's COMMIT that ends them, under marks like any other. */
#include "base/err.h"
#include "queue/batch.h"

static int collect(rg__batch *b, const rg__queue *q, rg_err *err) {
    int rc = RG_OK;
    if (b->tables.n) return RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++) {
        const rg__task *t = &b->tasks[i];
        if (t->op && t->op->type) rc = rg__changes_add_generation(&b->tables, q->shared, t->op->type, err);
    }
    return rc < 0 ? rc : rg__changes_once(&b->tables, err);
}

int rg__batch_mark(rg__batch *b, const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    int rc = collect(b, q, err);
    if (rc < 0 || b->tables.n == 0) return rc;
    rg__random(b->tx.bytes, sizeof b->tx.bytes);
    b->marked = true;
    return rg__shared_mark(q->shared, ctx, b->tx, b->tables.items, b->tables.n, NULL, err);
}

void rg__batch_unmark(rg__batch *b, const rg__queue *q, const rg__ctx *ctx, bool committed) {
    if (!b->marked) return;
    b->marked = false;
    if (committed) rg__shared_publish(q->shared, ctx, b->tx, b->tables.items, b->tables.n);
    else rg__shared_unmark(q->shared, ctx, b->tx, b->tables.items, b->tables.n);
}
