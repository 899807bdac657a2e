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
    rg__crew *crew;
    rg__shared *shared; /* of its queue, borrowed */
    uint32_t pool;      /* number of its MySQL pool */
    int64_t swept_ms;   /* when it last swept; only the step touches it */
};

static int run_consume(rg_op *op, const rg__ctx *ctx, rg_err *err);

static void consumer_unref(rg_consumer *c) {
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
    rg__crew_free(c->crew);
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

static rg__crew_config config_of(const rg_consumer_opts *o) {
    rg__crew_config cfg = {{.max_batch = 256, .max_hold_ms = 50, .max_tries = 5, .max_deaths = 3}, 0, 0, 0};
    if (o && o->max_batch) cfg.consumer.max_batch = o->max_batch;
    if (o && o->max_hold_ms) cfg.consumer.max_hold_ms = o->max_hold_ms;
    if (o && o->max_tries) cfg.consumer.max_tries = o->max_tries;
    if (o && o->max_deaths) cfg.consumer.max_deaths = o->max_deaths < 0 ? 0 : (uint32_t)o->max_deaths;
    if (!o) return cfg;
    cfg.leasing = o->lease == RG_LEASE_ALWAYS  ? RG__LEASE_ALWAYS
                  : o->lease == RG_LEASE_NEVER ? RG__LEASE_NEVER
                                               : RG__LEASE_SEVERAL;
    cfg.lease_ms = o->lease_ms;
    cfg.parallel = o->parallel;
    return cfg;
}

rg_consumer *rg_consumer_new(rg_engine *engine, const rg_consumer_opts *given, rg_err *err) {
    rg_consumer_opts known = {0};
    const rg_consumer_opts *opts = given ? &known : NULL;
    if (given) memcpy(&known, given, given->size < sizeof known ? given->size : sizeof known);
    const rg__queue *q = find_queue(engine, opts ? opts->queue : NULL, err);
    if (!q) return NULL;
    rg__crew_config cfg = config_of(opts);
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
    c->crew = rg__crew_new(q, &cfg, err);
    if (c->crew) return c;
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
        int rc = rg__crew_step(c->crew, ctx, moved ? 0 : slice, done, err);
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

static int keep_letter(void *op, uint64_t number) { return rg__op_add_u64(op, number); }

static int run_consume(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_consumer *c = op->own;
    if (atomic_exchange(&c->busy, true))
        return rg__fail(err, RG_EMISUSE, "the consumer is in the middle of a step");
    uint64_t done = 0;
    int rc = step_and_relay(c, ctx, (uint32_t)op->number_in, &done, err);
    op->number = (double)done;
    if (rc >= 0 && rg__crew_letters(c->crew, keep_letter, op) < 0) rc = rg__fail_memory(err);
    if (rc >= 0 && done == 0) sweep(c, ctx);
    atomic_store(&c->busy, false);
    return rc;
}

static int run_leave(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_consumer *c = op->own;
    if (atomic_exchange(&c->busy, true))
        return rg__fail(err, RG_EMISUSE, "the consumer is in the middle of a step");
    int rc = rg__crew_leave(c->crew, ctx, err);
    atomic_store(&c->busy, false);
    return rc;
}

static void drop_consumer(rg_op *op) { consumer_unref(op->own); }

static rg_op *on_consumer(rg_consumer *c, rg__op_fn run, double number, rg_err *err) {
    rg_op *op = rg__op_new(c->engine, run, err);
    if (!op) return NULL;
    atomic_fetch_add(&c->refs, 1);
    op->own = c;
    op->cleanup = drop_consumer;
    op->number_in = number;
    return op;
}

rg_op *rg_op_consume(rg_consumer *c, uint32_t max_wait_ms, rg_err *err) {
    return on_consumer(c, run_consume, max_wait_ms, err);
}

rg_op *rg_op_consumer_leave(rg_consumer *c, rg_err *err) {
    return on_consumer(c, run_leave, 0, err);
}

void rg_consumer_stats_get(const rg_consumer *c, rg_consumer_stats *out) {
    rg__consumer_totals t = rg__crew_totals_get(c->crew);
    uint32_t n_parts = 0;
    uint32_t held = rg__crew_held(c->crew, &n_parts);
    *out = (rg_consumer_stats){.applied = (double)t.applied,
                               .dead = (double)t.dead,
                               .batches = (double)t.batches,
                               .retries = (double)t.retries,
                               .lag = (double)t.lag,
                               .held = held,
                               .partitions = n_parts};
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

static int run_pause(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__queue_pause(op->own, ctx, op->number_in != 0, err);
}

rg_op *rg_op_queue_pause(rg_engine *e, const char *queue, int paused, rg_err *err) {
    return on_queue(e, queue, run_pause, paused != 0, err);
}

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

/* An edit: the queue, and what is wished. */
typedef struct editing {
    const rg__queue *q;
    rg__edit wish;
    rg_block *values;
    uint8_t *mask;
} editing;

static void free_editing(rg_op *op) {
    editing *e = op->own;
    if (!e) return;
    rg_block_unref(e->values);
    rg__free(e->mask);
    rg__free(e);
}

static int run_edit(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    editing *e = op->own;
    return rg__dead_edit(e->q, ctx, (uint64_t)op->number_in, &e->wish, err);
}

static int take_values(editing *e, rg_builder *b, rg_err *err) {
    const rg_type *t = rg__builder_type(b);
    int rc = rg__builder_check_given(b, err);
    if (rc < 0) return rc;
    e->mask = rg__calloc(t->n_columns, 1);
    e->values = rg__builder_partial(b);
    if (!e->mask || !e->values) return rg__fail_memory(err);
    for (uint32_t i = 1; i < t->n_columns; i++) e->mask[i] = rg__builder_has(b, i);
    e->wish.type = t;
    e->wish.mask = e->mask;
    e->wish.values = e->values;
    return RG_OK;
}

rg_op *rg_op_dead_edit(rg_engine *e, const char *queue, double number, int write, rg_builder *b,
                       int force, rg_err *err) {
    rg_op *op = on_queue(e, queue, run_edit, number, err);
    if (!op) return NULL;
    editing *own = rg__calloc(1, sizeof *own);
    if (own) *own = (editing){.q = op->own, .wish = {.write = write, .force = force != 0}};
    op->own = own;
    op->cleanup = free_editing;
    int rc = own ? RG_OK : rg__fail_memory(err);
    if (rc >= 0 && b) rc = take_values(own, b, err);
    if (rc >= 0) return op;
    rg_op_free(op);
    return NULL;
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

static int run_warnings(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    const rg__store *s = &op->engine->store;
    return rg__queue_warnings(s->queues, s->parts, s->n_mysql, ctx, &op->result, err);
}

rg_op *rg_op_queue_warnings(rg_engine *e, rg_err *err) { return rg__op_new(e, run_warnings, err); }

static int run_accept_gap(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    uint64_t n = 0;
    int rc = rg__queue_accept_gap(op->own, ctx, &n, err);
    op->number = (double)n;
    return rc;
}

static int run_later_list(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__later_list(op->own, ctx, (uint32_t)op->number_in, &op->result, err);
}

rg_op *rg_op_later_list(rg_engine *e, const char *queue, uint32_t limit, rg_err *err) {
    return on_queue(e, queue, run_later_list, limit, err);
}

static int run_later_cancel(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    uint64_t n = 0;
    int rc = rg__later_cancel(op->own, ctx, op->text.p, &n, err);
    op->number = (double)n;
    return rc;
}

static int run_replay(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    uint64_t n = 0;
    int rc = rg__queue_replay(op->own, ctx, op->text.p, &n, err);
    op->number = (double)n;
    return rc;
}

static rg_op *on_queue_with(rg_engine *e, const char *queue, rg__op_fn run, const char *text,
                            rg_err *err) {
    rg_op *op = on_queue(e, queue, run, 0, err);
    if (!op) return NULL;
    rg__buf_str(&op->text, text);
    rg__buf_cstr(&op->text);
    if (!op->text.failed) return op;
    rg__fail_memory(err);
    rg_op_free(op);
    return NULL;
}

rg_op *rg_op_queue_replay(rg_engine *e, const char *queue, const char *from, rg_err *err) {
    return on_queue_with(e, queue, run_replay, from, err);
}

rg_op *rg_op_later_cancel(rg_engine *e, const char *queue, const char *id, rg_err *err) {
    return on_queue_with(e, queue, run_later_cancel, id, err);
}

rg_op *rg_op_accept_gap(rg_engine *e, const char *queue, rg_err *err) {
    return on_queue(e, queue, run_accept_gap, 0, err);
}

static int run_drained(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__queue_drained_all(op->own, ctx, err);
}

rg_op *rg_op_drained(rg_engine *e, const char *queue, rg_err *err) {
    return on_queue(e, queue, run_drained, 0, err);
}
