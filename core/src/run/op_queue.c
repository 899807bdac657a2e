/* SPDX-License-Identifier: MIT */
/* Operations of queues: consuming, status, dead letters. */
#include <regolith/queue.h>

#include "base/alloc.h"
#include "base/err.h"
#include "run/op.h"

struct rg_consumer {
    rg_engine *engine;  /* a reference */
    atomic_uint refs;   /* the handle, and each operation on it */
    atomic_bool busy;
    rg__consumer *consumer;
    rg__shared *shared; /* of its queue, borrowed */
    uint32_t pool;      /* number of its MySQL pool */
    int64_t swept_ms;   /* when it last swept; only the step touches it */
};

static int run_consume(rg_op *op, const rg__ctx *ctx, rg_err *err);

static void consumer_unref(rg_consumer *c) {
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
    rg__consumer_free(c->consumer);
    rg_engine_unref(c->engine);
    rg__free(c);
}

static const rg__queue *find_queue(rg_engine *e, const char *name, rg_err *err) {
    int i = rg__engine_mysql(e, name, err);
    if (i < 0) return NULL;
    const rg__queue *q = &e->store.queues[i];
    if (q->shared) return q;
    rg__fail(err, RG_EMISUSE, "queue %s needs a Redis pool, and none is defined", q->name);
    return NULL;
}

static rg__consumer_config config_of(const rg_consumer_opts *o) {
    rg__consumer_config cfg = {.max_batch = 256, .max_hold_ms = 50, .max_tries = 5};
    if (o && o->max_batch) cfg.max_batch = o->max_batch;
    if (o && o->max_hold_ms) cfg.max_hold_ms = o->max_hold_ms;
    if (o && o->max_tries) cfg.max_tries = o->max_tries;
    return cfg;
}

rg_consumer *rg_consumer_new(rg_engine *engine, const rg_consumer_opts *opts, rg_err *err) {
    const rg__queue *q = find_queue(engine, opts ? opts->queue : NULL, err);
    if (!q) return NULL;
    rg__consumer_config cfg = config_of(opts);
    rg_consumer *c = rg__calloc(1, sizeof *c);
    if (!c) {
        rg__fail_memory(err);
        return NULL;
    }
    c->engine = rg_engine_ref(engine);
    atomic_init(&c->refs, 1);
    c->shared = q->shared;
    c->pool = (uint32_t)(q - engine->store.queues);
    c->swept_ms = rg__now_ms();
    c->consumer = rg__consumer_new(q, &cfg, err);
    if (c->consumer) return c;
    consumer_unref(c);
    return NULL;
}

void rg_consumer_free(rg_consumer *c) { consumer_unref(c); }

enum { SWEEP_EVERY_MS = 10000, SWEEP_KEYS = 256 };

/* A consumer with nothing to do keeps the caches' house: marks that outlived their writers. */
static void sweep(rg_consumer *c, const rg__ctx *ctx) {
    if (rg__now_ms() - c->swept_ms < SWEEP_EVERY_MS) return;
    c->swept_ms = rg__now_ms();
    (void)rg__shared_sweep(c->shared, ctx, SWEEP_KEYS, NULL);
}

enum { RELAY_EVERY_MS = 100 };

/* Waits for entries in slices, between which events are moved: these come from flushes of any kind.
 * What keeps events from being moved does not keep operations from being applied. */
static int step_and_relay(rg_consumer *c, const rg__ctx *ctx, uint32_t wait_ms, uint64_t *done,
                          rg_err *err) {
    int64_t until_ms = rg__now_ms() + wait_ms;
    rg_err fault;
    for (;;) {
        uint64_t moved = 0;
        rg__err_clear(&fault);
        int left = rg__left_ms(until_ms);
        int relayed = rg__engine_relay(c->engine, c->pool, ctx, &moved, &fault);
        uint32_t slice = (uint32_t)(left > RELAY_EVERY_MS ? RELAY_EVERY_MS : left);
        int rc = rg__consumer_step(c->consumer, ctx, moved ? 0 : slice, done, err);
        if (rc < 0) return rc;
        if (*done) relayed = rg__engine_relay(c->engine, c->pool, ctx, &moved, &fault);
        if (*done) return RG_OK;
        if (relayed < 0) {
            if (err) *err = fault;
            return relayed;
        }
        if (rg__left_ms(until_ms) == 0) return RG_OK;
    }
}

uint32_t rg_op_letters(const rg_op *op) { return op->run == run_consume ? (uint32_t)op->n_ids : 0; }

static int keep_letters(rg_op *op, rg_err *err) {
    const rg_consumer *c = op->own;
    size_t n = 0;
    const uint64_t *numbers = rg__consumer_letters(c->consumer, &n);
    for (size_t i = 0; i < n; i++)
        if (rg__op_add_u64(op, numbers[i]) < 0) return rg__fail_memory(err);
    return RG_OK;
}

static int run_consume(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_consumer *c = op->own;
    if (atomic_exchange(&c->busy, true))
        return rg__fail(err, RG_EMISUSE, "the consumer is in the middle of a step");
    uint64_t done = 0;
    int rc = step_and_relay(c, ctx, (uint32_t)op->number_in, &done, err);
    op->number = (double)done;
    if (rc >= 0) rc = keep_letters(op, err);
    if (rc >= 0 && done == 0) sweep(c, ctx);
    atomic_store(&c->busy, false);
    return rc;
}

static void drop_consumer(rg_op *op) { consumer_unref(op->own); }

rg_op *rg_op_consume(rg_consumer *c, uint32_t max_wait_ms, rg_err *err) {
    rg_op *op = rg__op_new(c->engine, run_consume, err);
    if (!op) return NULL;
    atomic_fetch_add(&c->refs, 1);
    op->own = c;
    op->cleanup = drop_consumer;
    op->number_in = max_wait_ms;
    return op;
}

void rg_consumer_stats_get(const rg_consumer *c, rg_consumer_stats *out) {
    rg__consumer_totals t = rg__consumer_totals_get(c->consumer);
    *out = (rg_consumer_stats){.applied = (double)t.applied,
                               .dead = (double)t.dead,
                               .batches = (double)t.batches,
                               .retries = (double)t.retries,
                               .lag = (double)t.lag};
}

/* ---- administration: the queue is `own`, borrowed from the engine ---- */

static rg_op *on_queue(rg_engine *e, const char *name, rg__op_fn run, double number, rg_err *err) {
    const rg__queue *q = find_queue(e, name, err);
    if (q && !(number >= 0 && number <= 9007199254740992.0)) {
        rg__fail(err, RG_EINVALID, "the number of a dead letter is a whole number from 1");
        return NULL;
    }
    rg_op *op = q ? rg__op_new(e, run, err) : NULL;
    if (!op) return NULL;
    op->own = (void *)(uintptr_t)q;
    op->number_in = number;
    return op;
}

static int run_status(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    const rg__store *s = &op->engine->store;
    return rg__queue_status(s->queues, s->n_mysql, ctx, &op->result, err);
}

rg_op *rg_op_queue_status(rg_engine *e, rg_err *err) { return rg__op_new(e, run_status, err); }

static int run_list(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__dead_list(op->own, ctx, (uint32_t)op->number_in, &op->result, err);
}

rg_op *rg_op_dead_list(rg_engine *e, const char *queue, uint32_t limit, rg_err *err) {
    return on_queue(e, queue, run_list, limit ? limit : 100, err);
}

static int run_show(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__dead_show(op->own, ctx, (uint64_t)op->number_in, &op->result, err);
}

rg_op *rg_op_dead_show(rg_engine *e, const char *queue, double number, rg_err *err) {
    return on_queue(e, queue, run_show, number, err);
}

static int run_retry(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    uint64_t left = 0;
    int rc = rg__dead_retry(op->own, ctx, (uint64_t)op->number_in, &left, err);
    op->number = (double)left;
    return rc;
}

rg_op *rg_op_dead_retry(rg_engine *e, const char *queue, double number, rg_err *err) {
    return on_queue(e, queue, run_retry, number, err);
}

static int run_drop(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    uint64_t left = 0;
    int rc = rg__dead_drop(op->own, ctx, (uint64_t)op->number_in, &left, err);
    op->number = (double)left;
    return rc;
}

rg_op *rg_op_dead_drop(rg_engine *e, const char *queue, double number, rg_err *err) {
    return on_queue(e, queue, run_drop, number, err);
}

static int run_drained(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__queue_drained(op->own, ctx, err);
}

rg_op *rg_op_drained(rg_engine *e, const char *queue, rg_err *err) {
    return on_queue(e, queue, run_drained, 0, err);
}
