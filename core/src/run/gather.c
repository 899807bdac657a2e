/* SPDX-License-Identifier: MIT */
/* Reads that wait for a worker at the same time go down together: by id as one load, by the values of a
 * unique index as one statement, the same lookup or search as one. Who waits alone loses nothing. */
#include "run/gather.h"

#include "base/alloc.h"
#include "run/notifier.h"
#include "run/worker.h"

enum { MOST = 64, MOST_IDS = 4096 };

/* What is being gathered. */
typedef struct gathering {
    rg_op *ops[MOST];     /* the first one leads */
    size_t n;
    size_t n_ids;
    rg_block *keys[MOST]; /* lookups: the distinct values, the leader's first */
    size_t n_keys;
    size_t which[MOST];   /* the number of each one's values */
    rg_op *asks[MOST];    /* who has brought them */
} gathering;

static rg_op *op_of(rg__job *job) { return rg__container(job, rg_op, job); }

/* What a transaction reads depends on what it has written, and it may lock. */
static bool is_step(const rg_op *op) { return op->txs.used || op->txs.suspended || op->lock; }

static bool same_read(const rg_op *a, const rg_op *b) {
    if (is_step(a) || is_step(b)) return false;
    if (a->spread || b->spread) return false; /* over several shards */
    return a->run == b->run && a->engine == b->engine && a->type == b->type && a->mode == b->mode &&
           a->index == b->index && a->timeline == b->timeline;
}

static rg__slice bytes_of(const rg_block *b) {
    return (rg__slice){(const char *)rg_block_data(b), rg_block_len(b)};
}

static bool is_unique(const rg_op *op) {
    return (op->type->indexes[op->index].flags & RG_INDEX_UNIQUE) != 0;
}

/* Lookups: the leader's values, or of a unique index any. */
static bool join_key(gathering *g, rg_op *op) {
    rg_block *key = rg__builder_partial(op->key);
    size_t at = 0;
    while (key && at < g->n_keys && !rg__slice_eq(bytes_of(key), bytes_of(g->keys[at]))) at++;
    if (!key || (at == g->n_keys && at > 0 && !is_unique(op))) {
        rg_block_unref(key);
        return false;
    }
    g->which[g->n] = at;
    if (at < g->n_keys) {
        rg_block_unref(key);
        return true;
    }
    g->keys[at] = key;
    g->asks[at] = op;
    g->n_keys++;
    return true;
}

static rg__slice text_of(const rg__buf *b) { return (rg__slice){b->p, b->len}; }

/* Strings are compared with the buffer that they are places in. */
static bool same_param(const rg__param *a, const rg__param *b) {
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case RG__P_NULL: return true;
    case RG__P_I64: return a->i == b->i;
    case RG__P_U64: return a->u == b->u;
    case RG__P_DOUBLE: return a->d == b->d;
    default: return a->s.p == b->s.p && a->s.len == b->s.len;
    }
}

static bool same_search(const rg_op *a, const rg_op *b) {
    if (a->offset != b->offset || a->limit != b->limit || a->n_params != b->n_params) return false;
    if (!rg__slice_eq(text_of(&a->text), text_of(&b->text))) return false;
    if (!rg__slice_eq(text_of(&a->param_bytes), text_of(&b->param_bytes))) return false;
    for (size_t i = 0; i < a->n_params; i++)
        if (!same_param(&a->params[i], &b->params[i])) return false;
    return true;
}

/* Takes a waiting job out of the queue when it reads what the leader reads. */
static bool join(rg__job *job, void *arg) {
    gathering *g = arg;
    rg_op *op = op_of(job);
    if (g->n == MOST || !rg__job_is_op(job) || !same_read(g->ops[0], op)) return false;
    if (rg__op_is_search(op) && !same_search(g->ops[0], op)) return false;
    if (rg__op_is_get(op) && g->n_ids + op->n_ids > MOST_IDS) return false;
    if (rg__op_is_lookup(op) && !join_key(g, op)) return false;
    g->n_ids += op->n_ids;
    g->ops[g->n++] = op;
    return true;
}

/* ---- the one read for all ---- */

static int share_out(rg_op *op, rg_block *const *rows, size_t n, rg_err *err) {
    op->rows.items = rg__calloc(n + 1, sizeof *op->rows.items);
    if (!op->rows.items) return rg__fail_memory(err);
    op->rows.n = op->rows.cap = n;
    for (size_t i = 0; i < n; i++) op->rows.items[i] = rows[i] ? rg_block_ref(rows[i]) : NULL;
    return RG_OK;
}

/* The leader asks for all ids, then gives each its own. */
static int load_all(gathering *g, const rg__ctx *ctx, rg_err *err) {
    rg_op *leader = g->ops[0];
    uint64_t *ids = rg__reallocarray(NULL, g->n_ids + 1, sizeof *ids);
    rg_block **rows = rg__calloc(g->n_ids + 1, sizeof *rows);
    size_t at = 0;
    for (size_t i = 0; ids && rows && i < g->n; at += g->ops[i++]->n_ids)
        if (g->ops[i]->n_ids) memcpy(ids + at, g->ops[i]->ids, g->ops[i]->n_ids * sizeof *ids);
    int rc = ids && rows ? rg__load_rows(&leader->engine->store, ctx, leader->type, ids, g->n_ids, 0,
                                         rows, err)
                         : rg__fail_memory(err);
    at = 0;
    for (size_t i = 0; rc >= 0 && i < g->n; at += g->ops[i++]->n_ids)
        rc = share_out(g->ops[i], rows + at, g->ops[i]->n_ids, err);
    for (size_t i = 0; rows && i < g->n_ids; i++) rg_block_unref(rows[i]);
    rg__free(ids);
    rg__free(rows);
    return rc;
}

/* Each one's values have an answer of their own. */
static int look_up_all(gathering *g, const rg__ctx *ctx, rg_err *err) {
    const rg_op *leader = g->ops[0];
    rg_builder *keys[MOST];
    rg__rows found[MOST] = {0};
    for (size_t i = 0; i < g->n_keys; i++) keys[i] = g->asks[i]->key;
    int rc = rg__load_lookups(&leader->engine->store, ctx, leader->type, leader->index, keys, g->n_keys,
                              found, err);
    for (size_t i = 0; rc >= 0 && i < g->n; i++) {
        const rg__rows *own = &found[g->which[i]];
        rc = share_out(g->ops[i], own->items, own->n, err);
    }
    for (size_t i = 0; i < g->n_keys; i++) rg__rows_deinit(&found[i]);
    return rc;
}

static int share_ids(rg_op *op, const rg_op *leader, rg_err *err) {
    if (!leader->ids) return RG_OK;
    op->ids = (uint64_t *)(void *)rg__memdup0(leader->ids, leader->n_ids * sizeof *leader->ids);
    if (!op->ids) return rg__fail_memory(err);
    op->n_ids = op->ids_cap = leader->n_ids;
    return RG_OK;
}

/* What the leader finds is everybody's. */
static int read_once(gathering *g, const rg__ctx *ctx, rg_err *err) {
    rg_op *leader = g->ops[0];
    int rc = leader->run(leader, ctx, err);
    for (size_t i = 1; rc >= 0 && i < g->n; i++) {
        rc = share_out(g->ops[i], leader->rows.items, leader->rows.n, err);
        if (rc >= 0) rc = share_ids(g->ops[i], leader, err);
        g->ops[i]->number = leader->number;
    }
    return rc;
}

static int read_all(gathering *g, const rg__ctx *ctx, rg_err *err) {
    if (rg__op_is_get(g->ops[0])) return load_all(g, ctx, err);
    return g->n_keys > 1 ? look_up_all(g, ctx, err) : read_once(g, ctx, err);
}

static int64_t earliest(const gathering *g) {
    int64_t deadline = g->ops[0]->deadline_ms;
    for (size_t i = 1; i < g->n; i++)
        if (g->ops[i]->deadline_ms < deadline) deadline = g->ops[i]->deadline_ms;
    return deadline;
}

/* For another try. Only searches have found ids; those of others say what is wanted. */
static void forget(rg_op *op) {
    rg__rows_deinit(&op->rows);
    op->rows = (rg__rows){0};
    if (!rg__op_is_search(op)) return;
    rg__free(op->ids);
    op->ids = NULL;
    op->n_ids = op->ids_cap = 0;
}

static bool run_together(gathering *g) {
    rg_op *leader = g->ops[0];
    rg_err err;
    rg__err_clear(&err);
    rg__ctx ctx = rg__engine_ctx(leader->engine, &leader->trace, 0);
    ctx.deadline_ms = earliest(g);
    ctx.timeline = leader->timeline;
    for (size_t i = 0; i < g->n; i++) atomic_store(&g->ops[i]->phase, RG_OP_RUNNING);
    int rc = read_all(g, &ctx, &err);
    for (size_t i = 0; rc < 0 && i < g->n; i++) forget(g->ops[i]);
    return rc >= 0;
}

/* What failed for all is asked for one by one. */
static void run_alone(gathering *g) {
    for (size_t i = 0; i < g->n; i++) {
        rg__op_execute(g->ops[i], 0);
        rg__op_finish(g->ops[i]);
    }
}

/* Who waits for them wakes once. */
static void finish_together(gathering *g) {
    rg_notifier *n = rg__notifier_hold(g->ops[0]);
    for (size_t i = 0; i < g->n; i++) rg__op_finish(g->ops[i]);
    rg__notifier_let_go(n);
}

bool rg__gather(rg_op *op) {
    gathering g = {.ops = {op}, .n_ids = op->n_ids};
    if (!rg__op_is_get(op) && !rg__op_is_lookup(op) && !rg__op_is_search(op)) return false;
    if (rg__op_is_lookup(op) && !join_key(&g, op)) return false;
    g.n = 1;
    rg__workers_take(op->engine->workers, join, &g);
    bool done = g.n > 1 && run_together(&g);
    for (size_t i = 0; i < g.n_keys; i++) rg_block_unref(g.keys[i]);
    if (g.n == 1) return false;
    if (done) finish_together(&g);
    else run_alone(&g);
    return true;
}
