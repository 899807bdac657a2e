/* SPDX-License-Identifier: MIT */
/* The events of a flush: written into the outbox by the transaction that writes the rows. */
#include "base/alloc.h"
#include "queue/outbox.h"
#include "unit/flush.h"

static bool writes(const rg__item *it) { return !it->terms || !it->terms->check; }

/* Columns that the server computes count as changed, though only it knows how. */
static bool computes(const rg__item *it) {
    return it->write == RG_UPDATE && it->terms && (it->terms->n_exprs || it->terms->bump);
}

bool rg__item_tells(const rg__item *it) {
    return writes(it) && rg__type_tells(it->type, it->write, computes(it) ? NULL : it->mask);
}

bool rg__items_tell(const rg__items *items, int pool) {
    for (size_t i = 0; i < items->n; i++)
        if (items->items[i].type->mysql_pool == pool && rg__item_tells(&items->items[i])) return true;
    return false;
}

static int tell_computed(const rg__item *it, rg__outbox *o, const rg__ctx *ctx, rg_err *err) {
    const rg_type *t = it->type;
    uint8_t *mask = rg__calloc(t->n_columns, 1);
    if (!mask) return rg__fail_memory(err);
    if (it->mask) memcpy(mask, it->mask, t->n_columns);
    for (size_t i = 0; i < it->terms->n_exprs; i++) mask[it->terms->exprs[i].column] = 1;
    if (it->terms->bump && t->version_column) mask[t->version_column] = 1;
    int rc = rg__outbox_tell(o, ctx, t, it->write, it->id, it->after ? rg_block_data(it->after) : NULL,
                             mask, err);
    rg__free(mask);
    return rc;
}

int rg__item_publish(const rg__item *it, rg__outbox *o, const rg__ctx *ctx, rg_err *err) {
    if (!writes(it) || it->type->n_feeds == 0) return RG_OK;
    if (computes(it)) return tell_computed(it, o, ctx, err);
    return rg__outbox_tell(o, ctx, it->type, it->write, it->id,
                           it->after ? rg_block_data(it->after) : NULL, it->mask, err);
}

int rg__items_publish(const rg__items *items, int pool, const rg__queue *q, rg__mysql *c,
                      const rg__ctx *ctx, rg_err *err) {
    rg__outbox o = {.q = q, .c = c};
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < items->n; i++)
        if (items->items[i].type->mysql_pool == pool)
            rc = rg__item_publish(&items->items[i], &o, ctx, err);
    if (rc >= 0) rc = rg__outbox_write(&o, ctx, err);
    rg__outbox_deinit(&o);
    return rc;
}
