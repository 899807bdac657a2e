/* SPDX-License-Identifier: MIT */
/* Reads that wait for a worker at the same time go down together: by id as one load, the same lookup
 * as one. Who waits alone loses nothing. */
#include "run/gather.h"

#include "base/alloc.h"
#include "run/notifier.h"
#include "run/worker.h"

enum { MOST = 64, MOST_IDS = 4096 };

/* What is being gathered. */
typedef struct gathering {
    rg_op *ops[MOST]; /* the first one leads */
    size_t n;
    size_t n_ids;
    rg_block *key;    /* lookups: the leader's values */
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

static bool same_key(const gathering *g, const rg_op *op) {
    rg_block *key = rg__builder_partial(op->key);
    bool same = key && rg_block_len(key) == rg_block_len(g->key) &&
                memcmp(rg_block_data(key), rg_block_data(g->key), rg_block_len(key)) == 0;
    rg_block_unref(key);
    return same;
}

/* Takes a waiting job out of the queue when it reads what the leader reads. */
static bool join(rg__job *job, void *arg) {
    gathering *g = arg;
    rg_op *op = op_of(job);
    if (g->n == MOST || !rg__job_is_op(job) || !same_read(g->ops[0], op)) return false;
    if (g->key && !same_key(g, op)) return false;
    if (!g->key && g->n_ids + op->n_ids > MOST_IDS) return false;
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

static int look_up(gathering *g, const rg__ctx *ctx, rg_err *err) {
    int rc = g->ops[0]->run(g->ops[0], ctx, err);
    const rg__rows *found = &g->ops[0]->rows;
    for (size_t i = 1; rc >= 0 && i < g->n; i++)
        rc = share_out(g->ops[i], found->items, found->n, err);
    return rc;
}

static int64_t earliest(const gathering *g) {
    int64_t deadline = g->ops[0]->deadline_ms;
    for (size_t i = 1; i < g->n; i++)
        if (g->ops[i]->deadline_ms < deadline) deadline = g->ops[i]->deadline_ms;
    return deadline;
}

static void forget(rg_op *op) {
    rg__rows_deinit(&op->rows);
    op->rows = (rg__rows){0};
}

static bool run_together(gathering *g) {
    rg_op *leader = g->ops[0];
    rg_err err;
    rg__err_clear(&err);
    rg__ctx ctx = rg__engine_ctx(leader->engine, &leader->trace, 0);
    ctx.deadline_ms = earliest(g);
    ctx.timeline = leader->timeline;
    for (size_t i = 0; i < g->n; i++) atomic_store(&g->ops[i]->phase, RG_OP_RUNNING);
    int rc = g->key ? look_up(g, &ctx, &err) : load_all(g, &ctx, &err);
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
    gathering g = {.ops = {op}, .n = 1, .n_ids = op->n_ids};
    if (!rg__op_is_get(op) && !rg__op_is_lookup(op)) return false;
    if (rg__op_is_lookup(op) && !(g.key = rg__builder_partial(op->key))) return false;
    rg__workers_take(op->engine->workers, join, &g);
    bool done = g.n > 1 && run_together(&g);
    rg_block_unref(g.key);
    if (g.n == 1) return false;
    if (done) finish_together(&g);
    else run_alone(&g);
    return true;
}
