/* SPDX-License-Identifier: MIT */
/* Operations on transactions: begin, commit, roll back, undo to a savepoint. */
#include <regolith/cache.h>

#include "base/alloc.h"
#include "run/op.h"
#include "run/session.h"
#include "unit/marker.h"

typedef struct work {
    rg_tx *tx;                /* a reference */
    rg__op_fn run;            /* while it is claimed */
    rg__value_changes values; /* commit: what goes with it */
} work;

static void drop_work(rg_op *op) {
    work *w = op->own;
    rg__value_changes_deinit(&w->values);
    rg__tx_unref(w->tx);
    rg__free(w);
}

static int run_claimed(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    const work *w = op->own;
    int rc = rg__tx_claim(w->tx, err);
    if (rc < 0) return rc;
    rc = w->run(op, ctx, err);
    rg__tx_unclaim(w->tx);
    return rc;
}

static rg_op *on_tx(rg_tx *tx, rg__op_fn run, rg_err *err) {
    rg_op *op = rg__op_new(tx->engine, run_claimed, err);
    if (!op) return NULL;
    work *w = rg__calloc(1, sizeof *w);
    if (!w) {
        rg_op_free(op);
        rg__fail_memory(err);
        return NULL;
    }
    w->tx = rg__tx_ref(tx);
    w->run = run;
    op->own = w;
    op->holds = rg__tx_has_connection(tx);
    op->cleanup = drop_work;
    return op;
}

static rg__tx *tx_of(const rg_op *op) { return ((work *)op->own)->tx->tx; }

static rg__ctx within_deadline(const rg_op *op, const rg__ctx *ctx) {
    rg__ctx own = *ctx;
    int64_t deadline_ms = rg__tx_opts_of(tx_of(op))->deadline_ms;
    if (deadline_ms < own.deadline_ms) own.deadline_ms = deadline_ms;
    return own;
}

static int run_begin(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__ctx own = within_deadline(op, ctx);
    return rg__tx_begin(tx_of(op), &own, err);
}

static int run_commit(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__ctx own = within_deadline(op, ctx);
    work *w = op->own;
    rg__marker marker = {&op->engine->store, w->tx->pool};
    return rg__tx_commit(tx_of(op), &own, op->mode != 0, &w->values, rg__mark_for_tx, &marker, err);
}

static int run_rollback(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    (void)err;
    rg__tx_rollback(tx_of(op), ctx);
    return RG_OK;
}

static int run_undo(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__tx_undo(tx_of(op), ctx, err);
}

rg_op *rg_op_tx_begin(rg_tx *tx, rg_err *err) { return on_tx(tx, run_begin, err); }
rg_op *rg_op_tx_rollback(rg_tx *tx, rg_err *err) { return on_tx(tx, run_rollback, err); }
rg_op *rg_op_tx_undo(rg_tx *tx, rg_err *err) { return on_tx(tx, run_undo, err); }

rg_op *rg_op_tx_commit(rg_tx *tx, int resolve, rg_err *err) {
    rg_op *op = on_tx(tx, run_commit, err);
    if (op) op->mode = resolve;
    return op;
}

/* ---- caches of values ---- */

static const rg__values *cache_of(const rg_op *op, uint32_t cache, rg_err *err) {
    const rg__store *store = &op->engine->store;
    if (cache < store->n_caches) return store->caches[cache];
    rg__fail(err, RG_EINVALID, "there is no cache number %u", cache);
    return NULL;
}

static int check_change(const rg__values *v, rg__value_do what, rg__slice key, rg_err *err) {
    if (!v) return RG_EINVALID;
    if (what != RG__VALUE_DELETE_TAG && (key.len == 0 || key.len > RG_CACHE_KEY_MAX))
        return rg__fail_field(err, "key", "cache %s: a key has 1 to %d bytes", v->name, RG_CACHE_KEY_MAX);
    if (what == RG__VALUE_DELETE_TAG && !v->in_redis)
        return rg__fail(err, RG_EMISUSE, "cache %s: tags need Redis", v->name);
    return RG_OK;
}

/* NULL with the error filled. */
static rg__value_change *add_change(rg_op *op, uint32_t cache, rg__value_do what, rg__slice key, rg_err *err) {
    const rg__values *v = cache_of(op, cache, err);
    if (check_change(v, what, key, err) < 0) return NULL;
    work *w = op->own;
    rg__value_change *ch = rg__value_change_add(&w->values, v, what, key);
    if (!ch) rg__fail_memory(err);
    return ch;
}

int rg_op_tx_set(rg_op *commit, uint32_t cache, const char *key, size_t key_len, const char *value,
                 size_t len, double ttl_ms, rg_err *err) {
    const rg__values *v = cache_of(commit, cache, err);
    if (v && len > v->max_bytes)
        return rg__fail_field(err, "value", "cache %s: a value of %zu bytes exceeds max_bytes, %u",
                              v->name, len, v->max_bytes);
    rg__value_change *ch = add_change(commit, cache, RG__VALUE_SET, (rg__slice){key, key_len}, err);
    if (!ch) return RG_EINVALID;
    rg__buf_add(&ch->value, value, len);
    if (ttl_ms >= 1) ch->ttl_ms = (uint64_t)(ttl_ms < 1e14 ? ttl_ms : 1e14);
    return ch->value.failed ? rg__fail_memory(err) : RG_OK;
}

int rg_op_tx_tag(rg_op *commit, const char *tag, size_t len, rg_err *err) {
    const work *w = commit->own;
    uint8_t id[RG__DEP_ID];
    if (w->values.n == 0) return rg__fail(err, RG_EMISUSE, "there is no value to tag");
    rg__value_change *ch = &w->values.items[w->values.n - 1];
    if (ch->tags.len / RG__DEP_ID >= RG_CACHE_TAGS_MAX)
        return rg__fail_field(err, "tags", "cache %s: more than %d tags", ch->v->name, RG_CACHE_TAGS_MAX);
    rg__dep_id(ch->v->name, (rg__slice){tag, len}, id);
    rg__buf_add(&ch->tags, id, sizeof id);
    return ch->tags.failed ? rg__fail_memory(err) : RG_OK;
}

int rg_op_tx_delete(rg_op *commit, uint32_t cache, const char *key, size_t len, rg_err *err) {
    return add_change(commit, cache, RG__VALUE_DELETE, (rg__slice){key, len}, err) ? RG_OK : RG_EINVALID;
}

int rg_op_tx_delete_tag(rg_op *commit, uint32_t cache, const char *tag, size_t len, rg_err *err) {
    return add_change(commit, cache, RG__VALUE_DELETE_TAG, (rg__slice){tag, len}, err) ? RG_OK : RG_EINVALID;
}

int rg_op_within(rg_op *op, rg_session *s, rg_err *err) {
    return rg__txs_copy(&op->txs, rg__session_txs(s)) < 0 ? rg__fail_memory(err) : RG_OK;
}
