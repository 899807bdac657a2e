/* SPDX-License-Identifier: MIT */
/* The asynchronous flush: the plan as structured operations, queued with the cache in one script. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "mysql/timeline.h"
#include "unit/flush.h"
#include "unit/load.h"
#include "unit/outage.h"

enum {
    WAIT_MS = 2,
    LAST_MS = 50, /* a call in what is left might get no answer, and nobody would know what became of it */
    MAX_REBASES = 100,
    PACKET_SLACK = 4096
};

/* What the enqueue script says of a row that is not as it was believed to be. */
enum { STALE_OTHER = 1, STALE_ABSENT = 2, STALE_MARKED = 3 };

/* One queue's part of an asynchronous flush: made ready, asked about when there are several, then queued. */
typedef struct batch {
    rg__store *store;
    const rg__ctx *ctx;
    rg__items *items;
    const rg__queue *queue;
    int durability;         /* rg_durability; FAST when nothing has to be waited for */
    uint32_t wait_ms;       /* for that */
    const char *name;       /* of a producer that queues once, or NULL */
    rg__plan plan;
    uint32_t *numbers; /* item behind each operation, in order */
    size_t n;          /* 0: nothing of the flush belongs to this queue */
    rg__changes changes;
    uint32_t *owner;   /* item behind each change */
    rg__buf payload;
} batch;

static int number_items(batch *b) {
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

static int encode(batch *b, rg_err *err) {
    rg__qop *ops = rg__reallocarray(NULL, b->n, sizeof *ops);
    if (!ops) return rg__fail_memory(err);
    for (size_t i = 0; i < b->n; i++) ops[i] = op_of(&b->items->items[b->numbers[i]]);
    rg__buf_clear(&b->payload);
    int rc = rg__qop_encode(ops, b->n, &b->payload, err);
    rg__free(ops);
    return rc;
}

static int own(batch *b, size_t from, uint32_t number) {
    if (b->changes.n == from) return RG_OK;
    uint32_t *p = rg__reallocarray(b->owner, b->changes.cap, sizeof *p);
    if (!p) return RG_ENO_MEMORY;
    b->owner = p;
    for (size_t i = from; i < b->changes.n; i++) p[i] = number;
    return RG_OK;
}

static int collect(batch *b, rg_err *err) {
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

/* ---- somebody else wrote the row meanwhile ---- */

static int vanished(const rg__item *it, uint32_t number, rg_err *err, const char *what) {
    int rc = rg__fail(err, RG_ECONFLICT, "%s %llu %s since it was read", it->type->name,
                      (unsigned long long)it->id, what);
    if (err) err->item = (int32_t)number;
    rg__err_set_entity(err, it->type->name);
    return rc;
}

static bool as_expected(const rg__item *it, const rg_block *row) {
    const rg__terms *t = it->terms;
    if (!t || !t->expect) return true;
    return rg__cas_holds(it->type, t->expect, rg_block_data(t->expected), rg_block_data(row), NULL);
}

static int conflict(rg__item *it, uint32_t number, rg_block *current, rg_err *err) {
    rg__terms *t = it->terms;
    rg__free(t->differs);
    t->differs = rg__calloc(it->type->n_columns, 1);
    if (!t->differs) return rg__fail_memory(err);
    rg__cas_holds(it->type, t->expect, rg_block_data(t->expected), rg_block_data(current), t->differs);
    rg_block_unref(t->current);
    t->current = rg_block_ref(current);
    t->outcome = RG_OUTCOME_CONFLICT;
    return vanished(it, number, err, "changed");
}

/* MySQL would refuse it long after the caller has gone. */
static int taken(const rg__item *it, uint32_t number, rg_err *err) {
    rg__fail(err, RG_EDUPLICATE_KEY, "%s %llu: another row has this id, or is queued to get it",
             it->type->name, (unsigned long long)it->id);
    rg__err_set_entity(err, it->type->name);
    if (!err) return RG_EDUPLICATE_KEY;
    snprintf(err->index, sizeof err->index, "PRIMARY");
    err->item = (int32_t)number;
    err->cls = RG_CLASS_PERMANENT;
    return RG_EDUPLICATE_KEY;
}

static bool same_version(const rg_type *t, const rg_block *a, const rg_block *b) {
    return !t->version_column || rg__row_version(t, rg_block_data(a)) == rg__row_version(t, rg_block_data(b));
}

/* Puts this item's columns over the row as it is now. Takes nothing. */
static int rebase(batch *b, uint32_t number, rg_block *current, rg_err *err) {
    rg__item *it = &b->items->items[number];
    if (it->write == RG_INSERT) return taken(it, number, err);
    if (!current) return vanished(it, number, err, "vanished");
    if (!as_expected(it, current)) return conflict(it, number, current, err);
    if (!same_version(it->type, current, it->before)) return vanished(it, number, err, "changed");
    if (it->write == RG_UPDATE) {
        rg_block *merged = rg__row_merge(it->type, rg_block_data(current), rg_block_data(it->after),
                                         it->mask, err);
        if (!merged) return RG_ENO_MEMORY;
        rg_block_unref(it->after);
        it->after = merged;
    }
    rg_block_unref(it->before);
    it->before = rg_block_ref(current);
    return RG_OK;
}

static int reload(batch *b, uint32_t number, rg_err *err) {
    const rg__item *it = &b->items->items[number];
    if (it->write == RG_INSERT) return taken(it, number, err);
    rg_block *current = NULL;
    int rc = rg__load_rows(b->store, b->ctx, it->type, &it->id, 1, RG__LOAD_FILL_ONLY, &current, err);
    if (rc >= 0) rc = rebase(b, number, current, err);
    rg_block_unref(current);
    return rc;
}

/* Rebases every stale item; true in *wait when some row is in an open transaction. */
static int mend(batch *b, const uint8_t *stale, rg_block *const *current, bool *wait, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->changes.n; i++) {
        if (stale[i] == STALE_MARKED) *wait = true;
        if (stale[i] == STALE_OTHER) rc = rebase(b, b->owner[i], current[i], err);
        if (stale[i] == STALE_ABSENT) rc = reload(b, b->owner[i], err);
    }
    return rc;
}

/* ---- the script ---- */

/* Under which name and number it is called. The same serve all tries, as only the last one can have been queued. */
typedef struct sender {
    const char *name;
    uint64_t seq;
    bool asks; /* only whether all of it would be queued */
} sender;

static int enqueue_once(batch *b, const sender *as, char id[48], bool *again, bool *wait, rg_err *err) {
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
        rc = mend(b, stale, current, wait, err);
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

static int full(const batch *b, int64_t give_up_ms) {
    bool wait = b->queue->rules.when_full == RG_FULL_WAIT;
    if (!wait || rg__left_ms(give_up_ms) == 0 || rg__left_ms(b->ctx->deadline_ms) == 0) {
        rg__count(b->ctx->metrics, RG__C_BACKPRESSURE, 1);
        return RG_EBACKPRESSURE;
    }
    rg__sleep_ms(WAIT_MS);
    return RG_OK;
}

/* Until it is queued, or would be: a queue at its bound and rows in open transactions are waited for. */
static int enqueue(batch *b, const sender *as, char id[48], rg_err *err) {
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

/* What is expected may be another thing than what was read: then the row is looked at now. */
static int check_expected(batch *b, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++) {
        const rg__item *it = &b->items->items[b->numbers[i]];
        if (it->before && !as_expected(it, it->before)) rc = reload(b, b->numbers[i], err);
    }
    return rc;
}

/* What only processes cache Redis does not know, so it cannot compare: what was read of such a row is compared
 * here with what is there now, as what is queued of it will be read by others. */
static bool unproved(const rg__item *it) {
    return it->before && it->type->cache_process && !it->type->cache_redis;
}

static int check_base(batch *b, uint32_t number, rg_err *err) {
    const rg__item *it = &b->items->items[number];
    rg_block *current = NULL;
    int rc = rg__load_one(b->store, b->ctx, it->type, it->id, &current, err);
    bool same = current && rg__row_sum(rg_block_data(current)) == rg__row_sum(rg_block_data(it->before));
    if (rc >= 0 && !same) rc = rebase(b, number, current, err);
    rg_block_unref(current);
    return rc;
}

static int check_bases(batch *b, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++)
        if (unproved(&b->items->items[b->numbers[i]])) rc = check_base(b, b->numbers[i], err);
    return rc;
}

/* One of the process' producers, until its busy is taken back; NULL when there was none in time. */
static rg__producer *take_producer(const batch *b, rg_err *err) {
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

static int check_types(const batch *b, rg_err *err) {
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
static int check_sizes(const batch *b, rg_err *err) {
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
static void tell_timeline(const batch *b, const char *stream_id) {
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
static int check_trust(const batch *b, rg_err *err) {
    for (size_t i = 0; i < b->n; i++)
        if (!rg__trust(b->store, b->ctx, b->items->items[b->numbers[i]].type))
            return rg__fail(err, RG_EUNAVAILABLE, "writes went past Redis while it was away, and what they "
                                                  "replaced is not dropped yet: nothing can be queued");
    return RG_OK;
}

/* fsync: a server that syncs before it answers need not be asked to. */
static int prepare(batch *b, rg_err *err) {
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
static int make_ready(batch *b, int pool, rg_err *err) {
    int rc = rg__plan_make(b->items, pool, &b->plan, err);
    if (rc < 0 || b->plan.n == 0) return rc;
    if (number_items(b) < 0) return rg__fail_memory(err);
    rc = check_trust(b, err);
    if (rc >= 0) rc = check_types(b, err);
    if (rc >= 0) rc = check_sizes(b, err);
    if (rc >= 0) rc = prepare(b, err);
    if (rc >= 0) rc = check_expected(b, err);
    if (rc >= 0) rc = check_bases(b, err);
    return rc;
}

/* Would it be queued? The script remembers nothing of this, so it needs no producer; but one that queued it
 * already did. */
static int ask(batch *b, rg_err *err) {
    char none[48];
    const sender as = {.name = b->name ? b->name : "", .seq = 1, .asks = true};
    return b->n ? enqueue(b, &as, none, err) : RG_OK;
}

static int send(batch *b, char *stream_id, rg_err *err) {
    if (b->name) return enqueue(b, &(sender){.name = b->name, .seq = 1}, stream_id, err);
    rg__producer *p = take_producer(b, err);
    if (!p) return RG_ETIMEOUT;
    p->seq++;
    int rc = enqueue(b, &(sender){.name = p->name, .seq = p->seq}, stream_id, err);
    atomic_store(&p->busy, false);
    return rc;
}

static int queue(batch *b, char *stream_id, rg_err *err) {
    int rc = b->n ? send(b, stream_id, err) : RG_OK;
    if (b->n == 0 || (rc < 0 && rc != RG_EDURABILITY)) return rc;
    rg__count(b->ctx->metrics, RG__C_ENQUEUED_OPS, b->n);
    tell_timeline(b, stream_id);
    rg__queue_told(b->queue, b->ctx, stream_id);
    return rc;
}

static void batch_deinit(batch *b) {
    rg__plan_deinit(&b->plan);
    rg__changes_deinit(&b->changes);
    rg__buf_deinit(&b->payload);
    rg__free(b->numbers);
    rg__free(b->owner);
}

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

/* The batch of one pool, which stays empty when the flush has nothing there. */
static int prepare_part(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__async_how *how,
                        uint32_t pool, batch *b, rg_err *err) {
    uint8_t parts[RG__PARTS];
    uint32_t part;
    if (!find_parts(items, (int)pool, s->queues[pool].n_parts, parts, &part)) return RG_OK;
    const rg__queue *q = &s->parts[pool][part];
    *b = (batch){.store = s, .ctx = ctx, .items = items, .queue = q, .wait_ms = q->rules.replica_ms,
                 .name = how->producer};
    b->durability = how->durability ? how->durability : q->rules.durability;
    return make_ready(b, (int)pool, err);
}

static bool is_of_several(const rg__items *items) {
    for (size_t i = 1; i < items->n; i++)
        if (items->items[i].type->mysql_pool != items->items[0].type->mysql_pool) return true;
    return false;
}

/* What one queue would refuse is not to be in another one already. *pool: whose queue refused. */
static int prepare_all(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__async_how *how,
                       batch *batches, uint32_t *pool, rg_err *err) {
    bool asks = is_of_several(items);
    int rc = RG_OK;
    for (*pool = 0; *pool < s->n_mysql; ++*pool) {
        batch *b = &batches[*pool];
        rc = prepare_part(s, ctx, items, how, *pool, b, err);
        if (rc >= 0 && asks) rc = ask(b, err);
        if (rc < 0) return rc;
    }
    return rc;
}

/* EDURABILITY: all is queued, but not as safely as was asked for. */
static int queue_all(batch *batches, uint32_t n, char *stream_id, uint32_t *pool, rg_err *err) {
    rg_err unsafe = {0};
    for (*pool = 0; *pool < n; ++*pool) {
        int rc = queue(&batches[*pool], stream_id, err);
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
    batch *batches = rg__calloc(s->n_mysql, sizeof *batches);
    if (!batches) return rg__fail_memory(err);
    int rc = prepare_all(s, ctx, items, how, batches, &pool, err);
    if (rc >= 0) rc = queue_all(batches, s->n_mysql, stream_id, &pool, err);
    for (uint32_t i = 0; i < s->n_mysql; i++) batch_deinit(&batches[i]);
    rg__free(batches);
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
