/* SPDX-License-Identifier: MIT */
/* Operations of events: moving them from the outbox, and any one command of Redis. */
#include <regolith/queue.h>
#include <stdio.h>

#include "base/alloc.h"
#include "queue/outbox.h"
#include "run/op.h"

enum { LOOK_MS = 100 };

struct rg__pool_relay {
    atomic_bool busy;
    rg__relay *relay; /* only who has set busy touches what follows */
    int64_t look_ms;  /* when to look again what is due */
};

struct rg__pool_relay *rg__engine_relays_new(uint32_t n) {
    return rg__calloc(n + 1, sizeof(struct rg__pool_relay));
}

void rg__engine_relays_free(struct rg__pool_relay *relays, uint32_t n) {
    for (uint32_t i = 0; relays && i < n; i++) rg__relay_free(relays[i].relay);
    rg__free(relays);
}

/* Delayed flushes whose time has come. */
static int queue_due(rg_engine *e, uint32_t pool, struct rg__pool_relay *r, const rg__ctx *ctx,
                     rg_err *err) {
    uint64_t due = 0;
    if (rg__now_ms() < r->look_ms) return RG_OK;
    r->look_ms = rg__now_ms() + LOOK_MS;
    rg__store_own(&e->store); /* its name is who this is to others that queue what is due */
    return rg__later_step(&e->store, pool, e->store.producers[0].name, ctx, &due, err);
}

int rg__engine_relay(rg_engine *e, uint32_t pool, const rg__ctx *ctx, uint64_t *moved, rg_err *err) {
    struct rg__pool_relay *r = &e->relays[pool];
    const rg__queue *q = &e->store.queues[pool];
    *moved = 0;
    if (!q->shared || atomic_exchange(&r->busy, true)) return RG_OK;
    if (!r->relay) r->relay = rg__relay_new(q, err);
    int rc = r->relay ? rg__relay_step(r->relay, ctx, moved, err) : RG_ENO_MEMORY;
    if (rc >= 0) rc = queue_due(e, pool, r, ctx, err);
    atomic_store(&r->busy, false);
    return rc;
}

static int run_relay(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    uint64_t moved = 0;
    int rc = rg__engine_relay(op->engine, (uint32_t)op->pool, ctx, &moved, err);
    op->number = (double)moved;
    return rc;
}

rg_op *rg_op_relay(rg_engine *e, const char *queue, rg_err *err) {
    int pool = rg__engine_mysql(e, queue, err);
    if (pool >= 0 && !e->store.queues[pool].shared) {
        rg__fail(err, RG_EMISUSE, "events of pool %s need a Redis pool, and none is defined",
                 e->store.queues[pool].name);
        return NULL;
    }
    rg_op *op = pool < 0 ? NULL : rg__op_new(e, run_relay, err);
    if (op) op->pool = pool;
    return op;
}

double rg_clock_s(void) { return (double)rg__now_us() / 1e6; }

/* ---- a command, and its reply as a table: kind and value of each part, in the order of reading ---- */

static int add_part(rg__result *out, const char *kind, const char *p, size_t len) {
    rg__slice cells[] = {rg__slice_of(kind), {p, len}};
    return rg__result_add(out, cells) < 0 ? RG_ENO_MEMORY : RG_OK;
}

static int flatten(rg__result *out, const redisReply *r);

static int flatten_array(rg__result *out, const redisReply *r) {
    char count[24];
    int n = snprintf(count, sizeof count, "%zu", r->elements);
    int rc = add_part(out, "a", count, (size_t)n);
    for (size_t i = 0; rc >= 0 && i < r->elements; i++) rc = flatten(out, r->element[i]);
    return rc;
}

/* The reader bounds the depth of replies. */
static int flatten(rg__result *out, const redisReply *r) { // NOLINT(misc-no-recursion)
    char digits[24];
    switch (r->type) {
    case REDIS_REPLY_ARRAY: return flatten_array(out, r);
    case REDIS_REPLY_INTEGER:
        return add_part(out, "i", digits, (size_t)snprintf(digits, sizeof digits, "%lld", r->integer));
    case REDIS_REPLY_NIL: return add_part(out, "n", NULL, 0);
    case REDIS_REPLY_ERROR: return add_part(out, "e", r->str, (size_t)r->len);
    default: return add_part(out, "s", r->str, (size_t)r->len);
    }
}

static int take_reply(rg_op *op, const redisReply *r, rg_err *err) {
    static const char *const names[] = {"kind", "value"};
    op->result = rg__result_new(names, 2);
    int rc = op->result ? flatten(op->result, r) : RG_ENO_MEMORY;
    return rc < 0 ? rg__fail_memory(err) : rc;
}

static int send_command(rg_op *op, rg__redis_pool *pool, const rg__ctx *ctx, redisReply **reply,
                        rg_err *err) {
    rg__redis *c = NULL;
    const char **argv = rg__calloc(op->n_params + 1, sizeof *argv);
    size_t *lens = rg__calloc(op->n_params + 1, sizeof *lens);
    int rc = argv && lens ? rg__redis_acquire(pool, ctx, &c, err) : rg__fail_memory(err);
    for (size_t i = 0; argv && lens && i < op->n_params; i++) {
        argv[i] = op->params[i].s.p;
        lens[i] = op->params[i].s.len;
    }
    if (rc >= 0) rc = rg__redis_command(c, ctx, reply, err, (int)op->n_params, argv, lens);
    if (c) rg__redis_release(c);
    rg__free(argv);
    rg__free(lens);
    return rc;
}

static int run_redis(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    redisReply *reply = NULL;
    rg__op_place_params(op);
    for (size_t i = 0; i < op->n_params; i++)
        if (op->params[i].kind != RG__P_STRING && op->params[i].kind != RG__P_BYTES)
            return rg__fail(err, RG_EMISUSE, "a command of Redis is made of strings");
    if (op->n_params == 0) return rg__fail(err, RG_EMISUSE, "a command of Redis has a name");
    const rg__queue *q = &op->engine->store.queues[op->pool];
    int rc = send_command(op, rg__shared_pool(q->shared), ctx, &reply, err);
    if (rc >= 0) rc = take_reply(op, reply, err);
    if (reply) freeReplyObject(reply);
    return rc;
}

rg_op *rg_op_redis(rg_engine *e, const char *queue, rg_err *err) {
    rg_op *op = rg_op_relay(e, queue, err);
    if (op) op->run = run_redis;
    return op;
}
