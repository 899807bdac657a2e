/* SPDX-License-Identifier: MIT */
/* Links: reads by id of an event loop, gathered by turn, asked as one MGET over a wire that the loop carries. */
#include <regolith/link.h>

#include "base/alloc.h"
#include "run/notifier.h"

enum { MOST_IDS = 64 }; /* of one operation: larger ones are worth a worker */

typedef enum link_state {
    LINK_CLOSED,   /* no connection */
    LINK_NEW,      /* the introduction is to be sent, with the question whose data it is */
    LINK_GREETING, /* it was sent */
    LINK_OPEN,
} link_state;

/* One row of an operation. Those of one operation stand together, in order. */
typedef struct want {
    rg_op *op;      /* NULL: it was given up */
    uint32_t at;    /* which of its ids */
    bool got;
    uint64_t stamp; /* of the process tier, before it was asked for */
} want;

typedef struct batch {
    want wants[RG__WIRE_KEYS];
    size_t n;
} batch;

struct rg_link {
    rg_engine *engine;     /* a reference, as the next one */
    rg_notifier *notifier;
    rg__shared *shared;    /* borrowed of the engine */
    uint32_t pool;
    link_state state;
    rg__redis *wire;       /* NULL: closed */
    uint32_t hello;        /* replies to the introduction still to come, the last one about whose data it is */
    batch waiting, asked;  /* one question at a time is under way: what comes meanwhile is the next one */
    int64_t asked_ms;
    bool late;             /* somebody has waited for its answer in vain */
    rg__wire_key keys[RG__WIRE_KEYS];
    rg__buf names;
};

/* ---- life ---- */

rg_link *rg_link_new(rg_engine *engine, rg_notifier *n, uint32_t pool, rg_err *err) {
    if (rg_engine_orphan(engine) || pool >= engine->n_redis || !rg__redis_wirable(engine->redis[pool])) {
        rg__fail(err, RG_ECONFIG, "a plain socket would not do for this Redis pool");
        return NULL;
    }
    rg_link *l = rg__calloc(1, sizeof *l);
    if (!l) {
        rg__fail_memory(err);
        return NULL;
    }
    l->engine = rg_engine_ref(engine);
    l->notifier = rg__notifier_ref(n);
    l->shared = engine->store.shared[pool];
    l->pool = pool;
    return l;
}

const char *rg_link_place(const rg_link *l, uint32_t *port) {
    const rg_pool_opts *o = rg__redis_pool_opts(l->engine->redis[l->pool]);
    *port = o->unix_path ? 0 : o->port;
    return o->unix_path ? o->unix_path : o->host;
}

int rg_link_worthwhile(const rg_link *l) {
    return !atomic_load(&l->engine->closed) && rg__wire_worthwhile(l->shared);
}

int rg_link_begin(rg_link *l, rg_err *err) {
    if (l->state != LINK_CLOSED) return rg__fail(err, RG_EMISUSE, "the link has a connection");
    l->wire = rg__redis_wire(l->engine->redis[l->pool], &l->hello, err);
    if (!l->wire) return RG_ENO_MEMORY;
    int rc = rg__wire_greet(l->shared, l->wire, err);
    if (rc < 0) {
        rg_link_lost(l);
        return rc;
    }
    l->hello++;
    l->state = LINK_NEW;
    rg__count(&l->engine->store.metrics, RG__C_REDIS_CONNECTS, 1);
    return RG_OK;
}

/* ---- operations ---- */

/* As if it had been submitted there at first. */
static void pass_on(rg_op *op) {
    rg__rows_deinit(&op->rows);
    if (atomic_load(&op->abandoned) || rg__op_hand_over(op, &op->err) < 0) rg__op_finish(op);
}

static void pass_all_on(batch *b) {
    rg_op *before = NULL;
    for (size_t i = 0; i < b->n; i++) {
        rg_op *op = b->wants[i].op;
        if (op && op != before) pass_on(op);
        before = op;
    }
    b->n = 0;
}

void rg_link_lost(rg_link *l) {
    if (rg_engine_orphan(l->engine)) return;
    if (l->state != LINK_CLOSED) rg__wire_lost(l->shared);
    l->state = LINK_CLOSED;
    l->late = false;
    rg__redis_release(l->wire);
    l->wire = NULL;
    pass_all_on(&l->asked);
    pass_all_on(&l->waiting);
}

void rg_link_free(rg_link *l) {
    if (!l || rg_engine_orphan(l->engine)) return;
    rg_link_lost(l);
    rg__buf_deinit(&l->names);
    rg__notifier_unref(l->notifier);
    rg_engine_unref(l->engine);
    rg__free(l);
}

int rg_op_link(const rg_op *op) {
    bool plain = rg__op_is_get(op) && !op->txs.used && !op->txs.suspended && !op->lock && !op->spread;
    return plain && op->type->cache_redis && op->n_ids > 0 && op->n_ids <= MOST_IDS ? op->type->redis_pool : -1;
}

static bool may_take(const rg_link *l, const rg_op *op) {
    const rg_engine *e = l->engine;
    if (l->state != LINK_OPEN || l->late || op->engine != e || atomic_load(&op->phase) != RG_OP_NEW) return false;
    if (rg_op_link(op) != (int)l->pool || l->waiting.n + op->n_ids > RG__WIRE_KEYS) return false;
    if (atomic_load(&e->closed) || atomic_load_explicit(&e->log_mask, memory_order_relaxed)) return false;
    return rg__wire_ready(l->shared, l->wire) && rg__load_plainly(&l->engine->store, op->type);
}

static int patience_ms(const rg_op *op) {
    int left = rg__left_ms(op->deadline_ms);
    return left < 1 ? 1 : left < RG__WIRE_BOUND_MS ? left : RG__WIRE_BOUND_MS;
}

int rg_link_submit(rg_link *l, rg_op *op, uint32_t tag, uint32_t timeout_ms, rg_err *err) {
    if (rg_engine_orphan(l->engine) || !may_take(l, op)) return 0;
    op->rows.items = rg__calloc(op->n_ids, sizeof *op->rows.items);
    if (!op->rows.items) return 0;
    op->rows.n = op->rows.cap = op->n_ids;
    int rc = rg__op_expect(op, l->notifier, tag, timeout_ms, err);
    if (rc < 0) return rc;
    for (uint32_t i = 0; i < op->n_ids; i++)
        l->waiting.wants[l->waiting.n++] =
            (want){.op = op, .at = i, .stamp = rg__load_stamp(&l->engine->store, op->type, op->ids[i])};
    return patience_ms(op);
}

static bool take_out(batch *b, const rg_op *op) {
    bool found = false;
    for (size_t i = 0; i < b->n; i++) {
        if (b->wants[i].op != op) continue;
        b->wants[i].op = NULL;
        found = true;
    }
    return found;
}

/* Who had little time has not shown that Redis is slow. */
void rg_link_leave(rg_link *l, rg_op *op) {
    if (rg_engine_orphan(l->engine)) return;
    bool asked = take_out(&l->asked, op);
    if (!asked && !take_out(&l->waiting, op)) return;
    if (l->asked.n && rg__now_ms() - l->asked_ms >= RG__WIRE_BOUND_MS / 2) {
        if (!l->late) rg__wire_late(l->shared);
        l->late = true;
    }
    pass_on(op);
}

uint32_t rg_link_late(const rg_link *l) {
    return l->late ? (uint32_t)(rg__now_ms() - l->asked_ms) : 0;
}

/* ---- asking ---- */

/* Those that were given up before they were asked for are left out. */
static void next_question(rg_link *l) {
    l->asked.n = 0;
    for (size_t i = 0; i < l->waiting.n; i++) {
        const want *w = &l->waiting.wants[i];
        if (!w->op) continue;
        l->keys[l->asked.n] = (rg__wire_key){w->op->type, w->op->ids[w->at]};
        l->asked.wants[l->asked.n++] = *w;
    }
    l->waiting.n = 0;
}

static bool ask(rg_link *l) {
    rg_err ignored = {0};
    next_question(l);
    if (l->asked.n == 0) return false;
    if (rg__wire_ask(l->shared, l->wire, l->keys, l->asked.n, &l->names, &ignored) == RG_OK) {
        l->asked_ms = rg__now_ms();
        return true;
    }
    pass_all_on(&l->asked);
    return false;
}

const char *rg_link_out(rg_link *l, size_t *len) {
    *len = 0;
    if (rg_engine_orphan(l->engine)) return NULL;
    if (l->state == LINK_NEW) {
        l->state = LINK_GREETING;
    } else {
        *len = l->asked.n;
        if (l->state != LINK_OPEN || l->asked.n > 0 || l->waiting.n == 0) return NULL;
        rg__redis_carried(l->wire);
        if (!ask(l)) return NULL;
    }
    rg__slice s = rg__redis_outgoing(l->wire);
    *len = s.len;
    return s.p;
}

/* ---- answers ---- */

static void take_row(void *arg, size_t i, const char *p, size_t len) {
    rg_link *l = arg;
    if (i >= l->asked.n || !p) return;
    want *w = &l->asked.wants[i];
    if (!w->op) return;
    rg_block *row = NULL;
    w->got = rg__wire_read(l->shared, &l->keys[i], (rg__slice){p, len}, &row) != RG__MISS;
    w->op->rows.items[w->at] = row;
}

/* All of one operation's, or none. The number of its rows. */
static size_t settle(rg_link *l, want *first, size_t most, size_t *hits) {
    rg_op *op = first->op;
    size_t n = 0;
    bool all = true;
    for (; n < most && first[n].op == op; n++) all &= first[n].got;
    if (!op) return n;
    if (!all) {
        pass_on(op);
        return n;
    }
    for (size_t i = 0; i < n; i++) {
        if (op->type->cache_process) rg__process_missed(l->engine->store.process);
        rg__load_keep(&l->engine->store, op->type, op->ids[i], op->rows.items[i], first[i].stamp);
    }
    *hits += n;
    rg__op_finish(op);
    return n;
}

static int settle_all(rg_link *l, const redisReply *r) {
    size_t n = l->asked.n, hits = 0;
    bool all = r->type == REDIS_REPLY_ARRAY && r->elements == n;
    for (size_t i = 0; all && i < n; i++) all = r->element[i] == NULL; /* told */
    const rg__ctx ctx = {.metrics = &l->engine->store.metrics};
    rg__redis_answered(l->wire, &ctx, all ? NULL : "no answer to each key");
    l->late = false;
    if (!all) {
        pass_all_on(&l->asked);
        return RG_ECORRUPT;
    }
    for (size_t i = 0; i < n;) i += settle(l, &l->asked.wants[i], n - i, &hits);
    l->asked.n = 0;
    rg__wire_answered(l->shared, hits);
    return RG_OK;
}

static int hear_hello(rg_link *l, const redisReply *r) {
    rg_err ignored = {0};
    bool last = --l->hello == 0;
    if (!last) return rg__redis_judge_hello(r, l->hello > 1, &ignored);
    const rg__ctx ctx = {.metrics = &l->engine->store.metrics, .waits = true};
    rg__redis_carried(l->wire);
    rg__redis_answered(l->wire, &ctx, NULL);
    if (!rg__wire_greeted(l->shared, l->wire, r)) return RG_EUNAVAILABLE;
    l->state = LINK_OPEN;
    return RG_OK;
}

static int hear_all(rg_link *l) {
    rg_err ignored = {0};
    const rg__redis_sink sink = {take_row, l};
    for (;;) {
        redisReply *r = NULL;
        int rc = rg__redis_take(l->wire, l->state == LINK_OPEN ? &sink : NULL, &r, &ignored);
        if (rc <= 0) return rc;
        rc = l->state == LINK_OPEN ? settle_all(l, r) : hear_hello(l, r);
        freeReplyObject(r);
        if (rc < 0) return rc;
    }
}

int rg_link_in(rg_link *l, const char *p, size_t n) {
    rg_err ignored = {0};
    if (rg_engine_orphan(l->engine) || l->state == LINK_CLOSED) return RG_EMISUSE;
    int rc = rg__redis_incoming(l->wire, p, n, &ignored);
    if (rc < 0) return rc;
    rg__notifier_hush(l->notifier);
    rc = hear_all(l);
    rg__notifier_unhush(l->notifier);
    if (rc < 0) return rc;
    return l->asked.n == 0;
}
