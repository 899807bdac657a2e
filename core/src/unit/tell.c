/* SPDX-License-Identifier: MIT */
/* The events of a flush: written into the outbox by the transaction that writes the rows. */
#include "queue/outbox.h"
#include "unit/flush.h"

bool rg__items_tell(const rg__items *items, int pool) {
    for (size_t i = 0; i < items->n; i++) {
        const rg__item *it = &items->items[i];
        if (it->type->mysql_pool == pool && rg__type_tells(it->type, it->write, it->mask)) return true;
    }
    return false;
}

int rg__items_publish(const rg__items *items, int pool, const rg__queue *q, rg__mysql *c,
                      const rg__ctx *ctx, rg_err *err) {
    rg__outbox o = {.q = q, .c = c};
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < items->n; i++) {
        const rg__item *it = &items->items[i];
        if (it->type->mysql_pool != pool) continue;
        rc = rg__outbox_tell(&o, ctx, it->type, it->write, it->id,
                             it->after ? rg_block_data(it->after) : NULL, it->mask, err);
    }
    if (rc >= 0) rc = rg__outbox_write(&o, ctx, err);
    rg__outbox_deinit(&o);
    return rc;
}
