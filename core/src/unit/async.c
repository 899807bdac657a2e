/* SPDX-License-Identifier: MIT */
/* The asynchronous flush: which queues it belongs to, and whether it goes to MySQL at once after all. */
#include "base/alloc.h"
#include "unit/bundle.h"

/* ---- partitions ---- */

/* Marks the partitions that a write belongs to: one that changes what decides is in two. */
static void mark_parts(const rg__item *it, uint32_t n_parts, uint8_t *parts) {
    if (it->after && it->write != RG_DELETE)
        parts[rg__part_of(it->type, rg_block_data(it->after), n_parts)] = 1;
    if (it->before) parts[rg__part_of(it->type, rg_block_data(it->before), n_parts)] = 1;
}

/* How many partitions of the pool's queue the items are in; *first is one of them. */
static uint32_t find_parts(const rg__items *items, int pool, uint32_t n_parts, uint8_t *parts,
                           uint32_t *first) {
    uint32_t n = 0;
    *first = 0;
    memset(parts, 0, RG__PARTS);
    for (size_t i = 0; i < items->n; i++)
        if (items->items[i].type->mysql_pool == pool) mark_parts(&items->items[i], n_parts, parts);
    for (uint32_t p = n_parts; p-- > 0;) {
        n += parts[p];
        if (parts[p]) *first = p;
    }
    return n;
}

static int refuse_split(const rg__queue *q, uint32_t n, rg_err *err) {
    return rg__fail(err, RG_ESPLIT,
                    "the flush is in %u partitions of queue %s, so it cannot be applied as one: flush "
                    "less at a time, give its entities one queue group or aggregate, or use on_split "
                    "= \"sync\"", n, q->name);
}

/* Whether the flush has to go to MySQL at once: 1, or 0, or that it may not. */
static int check_split(rg__store *s, const rg__items *items, const rg__async_how *how, rg_err *err) {
    uint8_t parts[RG__PARTS];
    uint32_t first;
    int sync = 0;
    for (uint32_t i = 0; i < s->n_mysql; i++) {
        const rg__queue *q = &s->queues[i];
        int on_split = how->on_split ? how->on_split : q->rules.on_split;
        uint32_t n = find_parts(items, (int)i, q->n_parts, parts, &first);
        if (n <= 1) continue;
        if (on_split != RG_SPLIT_SYNC) return refuse_split(q, n, err);
        sync = 1;
    }
    return sync;
}

/* What is queued in these partitions comes first. */
static int drain(rg__store *s, const rg__ctx *ctx, const rg__items *items, rg_err *err) {
    uint8_t parts[RG__PARTS];
    uint32_t first;
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < s->n_mysql; i++) {
        uint32_t n = s->queues[i].n_parts;
        if (!find_parts(items, (int)i, n, parts, &first)) continue;
        for (uint32_t p = 0; rc >= 0 && p < n; p++)
            if (parts[p]) rc = rg__queue_drained(&s->parts[i][p], ctx, err);
    }
    return rc;
}

static int flush_now(rg__store *s, const rg__ctx *ctx, rg__items *items, rg_err *err) {
    int rc = drain(s, ctx, items, err);
    return rc < 0 ? rc : rg__flush(s, ctx, items, err);
}

static bool wants_sync(const rg__store *s, const rg__items *items, const rg__async_how *how) {
    if (how->durability) return how->durability == RG_DURABLE_SYNC;
    for (size_t i = 0; i < items->n; i++)
        if (s->queues[items->items[i].type->mysql_pool].rules.durability == RG_DURABLE_SYNC) return true;
    return false;
}

/* The bundle of one pool, which stays empty when the flush has nothing there. */
static int prepare_part(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__async_how *how,
                        uint32_t pool, rg__bundle *b, rg_err *err) {
    uint8_t parts[RG__PARTS];
    uint32_t part;
    if (!find_parts(items, (int)pool, s->queues[pool].n_parts, parts, &part)) return RG_OK;
    const rg__queue *q = &s->parts[pool][part];
    *b = (rg__bundle){.store = s, .ctx = ctx, .items = items, .queue = q, .wait_ms = q->rules.replica_ms,
                 .name = how->producer};
    b->durability = how->durability ? how->durability : q->rules.durability;
    return rg__bundle_make_ready(b, (int)pool, err);
}

static bool is_of_several(const rg__items *items) {
    for (size_t i = 1; i < items->n; i++)
        if (items->items[i].type->mysql_pool != items->items[0].type->mysql_pool) return true;
    return false;
}

/* What one queue would refuse is not to be in another one already. *pool: whose queue refused. */
static int prepare_all(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__async_how *how,
                       rg__bundle *bundles, uint32_t *pool, rg_err *err) {
    bool asks = is_of_several(items);
    int rc = RG_OK;
    for (*pool = 0; *pool < s->n_mysql; ++*pool) {
        rg__bundle *b = &bundles[*pool];
        rc = prepare_part(s, ctx, items, how, *pool, b, err);
        if (rc >= 0 && asks) rc = rg__bundle_ask(b, err);
        if (rc < 0) return rc;
    }
    return rc;
}

/* EDURABILITY: all is queued, but not as safely as was asked for. */
static int queue_all(rg__bundle *bundles, uint32_t n, char *stream_id, uint32_t *pool, rg_err *err) {
    rg_err unsafe = {0};
    for (*pool = 0; *pool < n; ++*pool) {
        int rc = rg__bundle_queue(&bundles[*pool], stream_id, err);
        if (rc < 0 && rc != RG_EDURABILITY) return rc;
        if (rc >= 0) continue;
        if (err) unsafe = *err;
        unsafe.code = rc;
    }
    if (!unsafe.code) return RG_OK;
    if (err) *err = unsafe;
    return RG_EDURABILITY;
}

/* A queue without room may have the flush go to MySQL, while nothing is queued. */
static bool may_go_sync(const rg__store *s, uint32_t pool, int rc, const char *stream_id) {
    return rc == RG_EBACKPRESSURE && !stream_id[0] &&
           s->queues[pool].rules.when_full == RG_FULL_SYNC;
}

static int flush_queued(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__async_how *how,
                        char *stream_id, rg_err *err) {
    uint32_t pool = 0;
    rg__bundle *bundles = rg__calloc(s->n_mysql, sizeof *bundles);
    if (!bundles) return rg__fail_memory(err);
    int rc = prepare_all(s, ctx, items, how, bundles, &pool, err);
    if (rc >= 0) rc = queue_all(bundles, s->n_mysql, stream_id, &pool, err);
    for (uint32_t i = 0; i < s->n_mysql; i++) rg__bundle_deinit(&bundles[i]);
    rg__free(bundles);
    bool goes_sync = !how->producer && may_go_sync(s, pool, rc, stream_id);
    return goes_sync ? rg__flush(s, ctx, items, err) : rc;
}

int rg__flush_async(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__async_how *how,
                    char *stream_id, rg_err *err) {
    if (err) err->item = -1;
    if (!how->producer && wants_sync(s, items, how)) return rg__flush(s, ctx, items, err);
    int rc = check_split(s, items, how, err);
    if (rc > 0 && how->producer) rc = RG_ESPLIT; /* it could not be told whether it was written already */
    if (rc > 0) return flush_now(s, ctx, items, err);
    return rc < 0 ? rc : flush_queued(s, ctx, items, how, stream_id, err);
}
