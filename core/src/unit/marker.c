/* SPDX-License-Identifier: MIT */
/* MARK before the COMMIT of a transaction: at once, or as a note in MySQL while Redis is away. */
#include "unit/marker.h"

#include <string.h>

#include "base/err.h"
#include "unit/load.h"
#include "unit/outage.h"

static int pool_of(const rg__store *s, const rg__shared *shared) {
    for (uint32_t i = 0; i < s->n_redis; i++)
        if (s->shared[i] == shared) return (int)i;
    return -1;
}

/* Queued writes of an earlier epoch would be waited for in vain. */
static int mark(const rg__marker *m, const rg__ctx *ctx, rg__shared *shared, rg__txid tx,
                rg__changes *c, rg_err *err) {
    char pending[48];
    int rc = rg__shared_mark(shared, ctx, tx, c->items, c->n, pending, err);
    if (rc != RG_EPENDING || !strchr(pending, '?') || rg__adopt_changes(m->store, ctx, c, NULL) < 0)
        return rc;
    return rg__shared_mark(shared, ctx, tx, c->items, c->n, pending, err);
}

int rg__mark_for_tx(void *marker, const rg__ctx *ctx, rg__shared *shared, rg__txid tx,
                    rg__changes *changes, rg__mysql *conn, bool *marked, rg_err *err) {
    const rg__marker *m = marker;
    bool away = rg__shared_away(shared) && rg__outage_may_cover(changes, RG_EUNAVAILABLE);
    int rc = away ? RG_EUNAVAILABLE : mark(m, ctx, shared, tx, changes, err);
    if (rc >= 0 || rc == RG_EPENDING) return rc;
    if (!rg__outage_may_cover(changes, rc)) {
        rg__err_prefix(err, "the caches in Redis pool %s cannot be told, so that nothing is written: ",
                       rg__redis_pool_name(rg__shared_pool(shared)));
        return rc;
    }
    *marked = false;
    return rg__outage_cover(m->store, ctx, m->mysql_pool, pool_of(m->store, shared), conn, changes, err);
}
