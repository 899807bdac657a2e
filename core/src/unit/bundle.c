/* SPDX-License-Identifier: MIT */
/* Queueing one queue's part of a flush: operations and what caches see of them, in one script. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "mysql/timeline.h"
#include "unit/bundle.h"
#include "unit/load.h"
#include "unit/outage.h"

enum {
    WAIT_MS = 2,
    LAST_MS = 50, /* a call in what is left might get no answer, and nobody would know what became of it */
    MAX_REBASES = 100,
    PACKET_SLACK = 4096
};

static int number_items(rg__bundle *b) {
    b->numbers = rg__reallocarray(NULL, b->items->n + 1, sizeof *b->numbers);
    if (!b->numbers) return RG_ENO_MEMORY;
    for (size_t i = 0; i < b->plan.n; i++)
        for (size_t k = 0; k < b->plan.steps[i].n; k++)
            b->numbers[b->n++] = b->plan.steps[i].items[k];
    return RG_OK;
}

/* With what is expected of its row. */
static rg__qop op_of(const rg__item *it) {
    rg__qop op = rg__item_op(it);
    if (it->terms && it->terms->expect) {
        op.expect = it->terms->expect;
        op.expected_row = rg_block_data(it->terms->expected);
    }
    return op;
}

static int encode(rg__bundle *b, rg_err *err) {
    rg__qop *ops = rg__reallocarray(NULL, b->n, sizeof *ops);
    if (!ops) return rg__fail_memory(err);
    for (size_t i = 0; i < b->n; i++) ops[i] = op_of(&b->items->items[b->numbers[i]]);
    rg__buf_clear(&b->payload);
    int rc = rg__qop_encode(ops, b->n, &b->payload, err);
    rg__free(ops);
    return rc;
}

static int own(rg__bundle *b, size_t from, uint32_t number) {
    if (b->changes.n == from) return RG_OK;
    uint32_t *p = rg__reallocarray(b->owner, b->changes.cap, sizeof *p);
    if (!p) return RG_ENO_MEMORY;
    b->owner = p;
    for (size_t i = from; i < b->changes.n; i++) p[i] = number;
    return RG_OK;
}

static int collect(rg__bundle *b, rg_err *err) {
    rg__changes_deinit(&b->changes);
    for (size_t i = 0; i < b->n; i++) {
        const rg__item *it = &b->items->items[b->numbers[i]];
        size_t from = b->changes.n;
        int rc = rg__changes_add(&b->changes, b->queue->shared, it->type,
                                 it->before ? rg_block_data(it->before) : NULL,
                                 it->write == RG_DELETE ? NULL : it->after, err);
        if (rc < 0) return rc;
        if (own(b, from, b->numbers[i]) < 0) return rg__fail_memory(err);
    }
    return RG_OK;
}

/* ---- the script ---- */

/* Under which name and number it is called. The same serve all tries, as only the last one can have been queued. */
typedef struct sender {
    const char *name;
    uint64_t seq;
    bool asks; /* only whether all of it would be queued */
} sender;

static int enqueue_once(rg__bundle *b, const sender *as, char id[48], bool *again, bool *wait, rg_err *err) {
    int rc = as->asks ? RG_OK : encode(b, err);
    if (rc >= 0) rc = collect(b, err);
    if (rc < 0) return rc;
    uint8_t *stale = rg__calloc(b->changes.n + 1, 1);
    rg_block **current = rg__calloc(b->changes.n + 1, sizeof *current);
    rg__enqueue q = {.stream = b->queue->stream,
                     .payload = {b->payload.p, b->payload.len},
                     .max_len = b->queue->rules.max_len,
                     .producer = as->name,
                     .seq = as->seq,
                     .keep = b->name != NULL,
                     .part = b->queue->part,
                     .n_parts = b->queue->n_parts,
                     .queue = b->queue->name,
                     .replica_ms = b->durability > RG_DURABLE_FAST && !as->asks ? b->wait_ms : 0,
                     .fsync = b->durability == RG_DURABLE_FSYNC,
                     .changes = b->changes.items,
                     .n_changes = b->changes.n};
    rc = stale && current ? rg__shared_enqueue(b->queue->shared, b->ctx, &q, stale, current, id, err)
                          : rg__fail_memory(err);
    if (rc == RG_ECONFLICT) {
        *again = true;
        rc = rg__bundle_mend(b, stale, current, wait, err);
    }
    if (rc == RG_EPENDING) {
        *again = true;
        rc = rg__adopt_changes(b->store, b->ctx, &b->changes, err);
    }
    for (size_t i = 0; rc == RG_EDUPLICATE_KEY && !*again && err && i < b->changes.n; i++)
        if (stale[i]) err->item = (int32_t)b->owner[i];
    for (size_t i = 0; current && i < b->changes.n; i++) rg_block_unref(current[i]);
    rg__free(current);
    rg__free(stale);
    return rc;
}

static int full(const rg__bundle *b, int64_t give_up_ms) {
    bool wait = b->queue->rules.when_full == RG_FULL_WAIT;
    if (!wait || rg__left_ms(give_up_ms) == 0 || rg__left_ms(b->ctx->deadline_ms) == 0) {
        rg__count(b->ctx->metrics, RG__C_BACKPRESSURE, 1);
        return RG_EBACKPRESSURE;
    }
    rg__sleep_ms(WAIT_MS);
    return RG_OK;
}

/* Until it is queued, or would be: a queue at its bound and rows in open transactions are waited for. */
static int enqueue(rg__bundle *b, const sender *as, char id[48], rg_err *err) {
    int64_t give_up_ms = rg__now_ms() + b->queue->rules.wait_ms;
    for (int i = 0; i < MAX_REBASES;) {
        bool again = false;
        bool wait = false;
        int rc = rg__queue_room(b->queue, b->ctx, err);
        if (rc >= 0) rc = enqueue_once(b, as, id, &again, &wait, err);
        if (rc == RG_EBACKPRESSURE) {
            if (full(b, give_up_ms) < 0) return rc;
            continue;
        }
        if (rc < 0 || !again) return rc;
        i += !wait;
        if (wait && rg__left_ms(b->ctx->deadline_ms) < LAST_MS)
            return rg__fail(err, RG_ETIMEOUT, "a row is held by an open transaction, or is queued by a program "
                                              "that has other columns");
        if (wait) rg__sleep_ms(WAIT_MS);
    }
    return rg__fail(err, RG_ECONFLICT, "the rows are being changed by others all the time");
}

/* One of the process' producers, until its busy is taken back; NULL when there was none in time. */
static rg__producer *take_producer(const rg__bundle *b, rg_err *err) {
    rg__store_own(b->store);
    do {
        for (int i = 0; i < RG__PRODUCERS; i++) {
            rg__producer *p = &b->store->producers[i];
            if (!atomic_exchange(&p->busy, true)) return p;
        }
        rg__sleep_ms(1);
    } while (rg__left_ms(b->ctx->deadline_ms) > 0);
    rg__fail(err, RG_ETIMEOUT, "too many flushes are being queued at once");
    return NULL;
}

static int refuse_unknown_id(const rg__item *it, uint32_t number, rg_err *err) {
    int rc = rg__fail_field(err, "id", "%s: flush_async needs ids that are known before the INSERT; "
                                       "ids = \"database\" is for flush", it->type->name);
    if (err) err->item = (int32_t)number;
    rg__err_set_entity(err, it->type->name);
    return rc;
}

static int check_types(const rg__bundle *b, rg_err *err) {
    if (!b->queue->shared)
        return rg__fail(err, RG_EMISUSE, "flush_async needs a Redis pool for MySQL pool %s",
                        b->queue->name);
    for (size_t i = 0; i < b->n; i++) {
        const rg__item *it = &b->items->items[b->numbers[i]];
        if (it->id == 0) return refuse_unknown_id(it, b->numbers[i], err);
        if (rg__store_shared(b->store, it->type) != b->queue->shared)
            return rg__fail(err, RG_EMISUSE,
                            "flush_async: %s is in another Redis pool than other entities of MySQL "
                            "pool %s", it->type->name, b->queue->name);
    }
    return RG_OK;
}

static int encoded_size(const rg__item *it, size_t *size, rg_err *err) {
    rg__buf alone = {0};
    rg__qop op = op_of(it);
    int rc = rg__qop_encode(&op, 1, &alone, err);
    *size = alone.len;
    rg__buf_deinit(&alone);
    return rc;
}

/* What MySQL takes neither as a statement nor as a dead letter would block the queue for ever. */
static int check_sizes(const rg__bundle *b, rg_err *err) {
    size_t packet = rg__mysql_pool_max_packet(b->queue->mysql);
    size_t most = packet > 2 * PACKET_SLACK ? packet - PACKET_SLACK : PACKET_SLACK;
    for (size_t i = 0; i < b->n; i++) {
        const rg__item *it = &b->items->items[b->numbers[i]];
        size_t size = it->after ? rg_block_len(it->after) : 0;
        if (size > most && encoded_size(it, &size, err) < 0) return rg__fail_memory(err);
        if (size <= most) continue;
        rg__fail(err, RG_ELIMIT, "%s %llu: %zu bytes to be queued are too many for the server's "
                                 "max_allowed_packet of %zu bytes",
                 it->type->name, (unsigned long long)it->id, size, packet);
        if (err) err->item = (int32_t)b->numbers[i];
        rg__err_set_entity(err, it->type->name);
        return RG_ELIMIT;
    }
    return RG_OK;
}

/* Who has queued a write reads its table on a replica once that has been applied there. */
static void tell_timeline(const rg__bundle *b, const char *stream_id) {
    rg__need need = {0};
    char *at = NULL;
    if (!b->ctx->timeline || rg__mysql_pool_replicas(b->queue->mysql) == 0) return;
    need.queued_ms = strtoull(stream_id, &at, 10);
    if (*at == '-') need.queued_seq = strtoull(at + 1, NULL, 10);
    if (b->queue->n_parts > 1) need = (rg__need){.lost = true}; /* of which partition, is not told */
    for (size_t i = 0; i < b->n; i++)
        rg__timeline_add(b->ctx->timeline, b->queue->mysql, b->items->items[b->numbers[i]].type, &need);
}

/* What was built on a cached row must not go over what was committed past the cache. */
static int check_trust(const rg__bundle *b, rg_err *err) {
    for (size_t i = 0; i < b->n; i++)
        if (!rg__trust(b->store, b->ctx, b->items->items[b->numbers[i]].type))
            return rg__fail(err, RG_EUNAVAILABLE, "writes went past Redis while it was away, and what they "
                                                  "replaced is not dropped yet: nothing can be queued");
    return RG_OK;
}

/* fsync: a server that syncs before it answers need not be asked to. */
static int prepare(rg__bundle *b, rg_err *err) {
    rg__fitness f = {0};
    int rc = rg__queue_fit(b->queue, b->ctx, err);
    if (rc < 0 || b->durability != RG_DURABLE_FSYNC) return rc;
    rc = rg__shared_fitness(b->queue->shared, b->ctx, &f, err);
    if (rc >= 0 && !f.syncs && !f.waitaof)
        rc = rg__fail(err, RG_ECONFIG, "durability fsync needs a Redis with appendonly yes that has "
                                       "appendfsync always (and lets CONFIG GET tell), or is 7.2 or later");
    if (rc >= 0 && f.syncs) b->durability = RG_DURABLE_FAST;
    return rc;
}

/* All that is looked at before anything of the flush is queued anywhere. Rows that are not as they were read are
 * rebased, or fail. */
int rg__bundle_make_ready(rg__bundle *b, int pool, rg_err *err) {
    int rc = rg__plan_make(b->items, pool, &b->plan, err);
    if (rc < 0 || b->plan.n == 0) return rc;
    if (number_items(b) < 0) return rg__fail_memory(err);
    rc = check_trust(b, err);
    if (rc >= 0) rc = check_types(b, err);
    if (rc >= 0) rc = check_sizes(b, err);
    if (rc >= 0) rc = prepare(b, err);
    if (rc >= 0) rc = rg__bundle_check_rows(b, err);
    return rc;
}

/* Would it be queued? The script remembers nothing of this, so it needs no producer; but one that queued it
 * already did. */
int rg__bundle_ask(rg__bundle *b, rg_err *err) {
    char none[48];
    const sender as = {.name = b->name ? b->name : "", .seq = 1, .asks = true};
    return b->n ? enqueue(b, &as, none, err) : RG_OK;
}

static int send(rg__bundle *b, char *stream_id, rg_err *err) {
    if (b->name) return enqueue(b, &(sender){.name = b->name, .seq = 1}, stream_id, err);
    rg__producer *p = take_producer(b, err);
    if (!p) return RG_ETIMEOUT;
    p->seq++;
    int rc = enqueue(b, &(sender){.name = p->name, .seq = p->seq}, stream_id, err);
    atomic_store(&p->busy, false);
    return rc;
}

int rg__bundle_queue(rg__bundle *b, char *stream_id, rg_err *err) {
    int rc = b->n ? send(b, stream_id, err) : RG_OK;
    if (b->n == 0 || (rc < 0 && rc != RG_EDURABILITY)) return rc;
    rg__count(b->ctx->metrics, RG__C_ENQUEUED_OPS, b->n);
    tell_timeline(b, stream_id);
    rg__queue_told(b->queue, b->ctx, stream_id);
    return rc;
}

void rg__bundle_deinit(rg__bundle *b) {
    rg__plan_deinit(&b->plan);
    rg__changes_deinit(&b->changes);
    rg__buf_deinit(&b->payload);
    rg__free(b->numbers);
    rg__free(b->owner);
}
