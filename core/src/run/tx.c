/* SPDX-License-Identifier: MIT */
/* Handles of transactions, and which of them a session is in. */
#include "run/tx.h"

#include "base/alloc.h"

/* ---- claims ---- */

enum { SEALED = 1 << 30 };

/* Ends one whose request has ended, unless an operation runs on it: that one comes by here. */
static void end_orphan(rg_tx *tx) {
    unsigned none = 0;
    if (!atomic_load(&tx->orphan) || !atomic_compare_exchange_strong(&tx->claims, &none, SEALED)) return;
    rg__tx_abandon(tx->tx);
}

static void end_tx(rg__tenant *t) {
    rg_tx *tx = rg__container(t, rg_tx, tenant);
    atomic_store(&tx->orphan, true);
    end_orphan(tx);
}

rg__tenant *rg__tx_tenant(rg_tx *tx) { return &tx->tenant; }

static bool claim_one(rg_tx *tx) {
    unsigned n = atomic_load(&tx->claims);
    do {
        if (n == SEALED || atomic_load(&tx->orphan)) return false;
    } while (!atomic_compare_exchange_weak(&tx->claims, &n, n + 1));
    return true;
}

/* From one up to, and not with, an outer one. */
static void unclaim_until(rg_tx *tx, const rg_tx *end) {
    for (; tx != end; tx = tx->outer) {
        atomic_fetch_sub(&tx->claims, 1);
        end_orphan(tx);
    }
}

int rg__tx_claim(rg_tx *tx, rg_err *err) {
    for (rg_tx *t = tx; t; t = t->outer) {
        if (claim_one(t)) continue;
        unclaim_until(tx, t);
        return rg__fail(err, RG_ECLOSED, "the request that the transaction was of has ended");
    }
    return RG_OK;
}

void rg__tx_unclaim(rg_tx *tx) { unclaim_until(tx, NULL); }

bool rg__tx_has_connection(rg_tx *tx) {
    if (rg__tx_claim(tx, NULL) < 0) return false;
    bool has = rg__tx_holds(tx->tx);
    rg__tx_unclaim(tx);
    return has;
}

/* ---- handles ---- */

static int check_opts(const rg_tx_opts *o, rg_err *err) {
    if (o->size != sizeof *o) return rg__fail(err, RG_EINVALID, "rg_tx_opts of another size");
    if (o->isolation >= 0 && o->isolation <= RG__SNAPSHOT) return RG_OK;
    return rg__fail(err, RG_EINVALID, "unknown isolation %d", (int)o->isolation);
}

static rg_tx *fail_new(rg_tx *tx) {
    if (tx) rg_engine_unref(tx->engine);
    rg__free(tx);
    return NULL;
}

rg_tx *rg_tx_new(rg_engine *engine, const rg_tx_opts *opts, rg_tx *outer, rg_err *err) {
    int pool = check_opts(opts, err) < 0 ? -1 : rg__engine_mysql(engine, opts->pool, err);
    if (pool < 0) return NULL;
    if (atomic_load(&engine->closed)) {
        rg__fail(err, RG_ECLOSED, "the engine is closed");
        return NULL;
    }
    rg_tx *tx = rg__calloc(1, sizeof *tx);
    if (!tx) {
        rg__fail_memory(err);
        return NULL;
    }
    rg__tx_opts o = {.isolation = (rg__isolation)opts->isolation,
                     .read_only = opts->read_only != 0,
                     .deadline_ms = rg__deadline_within(RG__NO_DEADLINE, opts->timeout_ms)};
    tx->engine = rg_engine_ref(engine);
    tx->pool = pool;
    atomic_init(&tx->refs, 1);
    rg__tenant_init(&tx->tenant, end_tx);
    tx->tx = rg__tx_new(engine->store.mysql[pool], &o, outer ? outer->tx : NULL, err);
    if (!tx->tx) return fail_new(tx);
    tx->outer = outer ? rg__tx_ref(outer) : NULL;
    return tx;
}

rg_tx *rg__tx_ref(rg_tx *tx) {
    atomic_fetch_add(&tx->refs, 1);
    return tx;
}

void rg__tx_unref(rg_tx *tx) {
    while (tx && atomic_fetch_sub(&tx->refs, 1) == 1) {
        bool leaked = false;
        rg_tx *outer = tx->outer;
        rg__tx_free(tx->tx, &leaked);
        if (leaked) rg__count(&tx->engine->store.metrics, RG__C_LEAKED, 1);
        rg_engine_unref(tx->engine);
        rg__free(tx);
        tx = outer;
    }
}

void rg_tx_free(rg_tx *tx) {
    if (tx) rg__tenant_leave(&tx->tenant);
    rg__tx_unref(tx);
}


int rg_tx_phase_of(const rg_tx *tx) { return (int)rg__tx_phase_of(tx->tx); }
const rg_err *rg_tx_cause(const rg_tx *tx) { return rg__tx_cause(tx->tx); }
int rg_tx_push(rg_tx *tx, rg_err *err) { return rg__tx_push(tx->tx, err); }
int rg_tx_merge(rg_tx *tx, rg_err *err) { return rg__tx_merge(tx->tx, err); }

int rg_engine_pool(const rg_engine *engine, const char *name, rg_err *err) {
    return rg__engine_mysql(engine, name, err);
}

int rg_engine_type_pool(const rg_engine *engine, uint32_t type) {
    return type < engine->store.schema.n ? engine->store.schema.types[type]->mysql_pool : RG_EINVALID;
}

/* ---- the transactions of a session ---- */

static int make_room(rg__txs *s, uint32_t n) {
    if (s->handles) return RG_OK;
    s->handles = rg__calloc((size_t)n * 2, sizeof(rg_tx *));
    s->txs = rg__calloc((size_t)n * 2, sizeof(rg__tx *));
    s->n = n;
    if (s->handles && s->txs) return RG_OK;
    rg__txs_deinit(s);
    return RG_ENO_MEMORY;
}

static void put(rg__txs *s, uint32_t at, rg_tx *tx, uint32_t *count) {
    rg_tx *old = s->handles[at];
    s->handles[at] = tx ? rg__tx_ref(tx) : NULL;
    s->txs[at] = tx ? tx->tx : NULL;
    *count = *count + (tx != NULL) - (old != NULL);
    rg__tx_unref(old);
}

int rg__txs_set(rg__txs *s, uint32_t n_pools, int pool, rg_tx *tx, rg_tx *suspended) {
    if (!tx && !suspended && !s->handles) return RG_OK;
    if (make_room(s, n_pools) < 0) return RG_ENO_MEMORY;
    put(s, (uint32_t)pool, tx, &s->used);
    put(s, s->n + (uint32_t)pool, suspended, &s->suspended);
    return RG_OK;
}

int rg__txs_copy(rg__txs *to, const rg__txs *from) {
    if (from->used + from->suspended == 0) return RG_OK;
    for (uint32_t i = 0; i < from->n; i++)
        if (rg__txs_set(to, from->n, (int)i, from->handles[i], from->handles[from->n + i]) < 0)
            return RG_ENO_MEMORY;
    return RG_OK;
}

void rg__txs_deinit(rg__txs *s) {
    for (uint32_t i = 0; s->handles && i < s->n * 2; i++) rg__tx_unref(s->handles[i]);
    rg__free(s->handles);
    rg__free(s->txs);
    *s = (rg__txs){0};
}

static uint32_t n_handles(const rg__txs *s) { return s->used + s->suspended ? s->n * 2 : 0; }

static void unclaim_first(const rg__txs *s, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (s->handles[i]) rg__tx_unclaim(s->handles[i]);
}

int rg__txs_claim(const rg__txs *s, rg_err *err) {
    for (uint32_t i = 0; i < n_handles(s); i++) {
        if (!s->handles[i] || rg__tx_claim(s->handles[i], err) >= 0) continue;
        unclaim_first(s, i);
        return RG_ECLOSED;
    }
    return RG_OK;
}

void rg__txs_unclaim(const rg__txs *s) { unclaim_first(s, n_handles(s)); }

void rg__txs_bound(const rg__txs *s, rg__ctx *ctx) {
    if (s->suspended) ctx->outers = s->txs + s->n;
    ctx->nested = s->suspended > 0;
    if (!s->used) return;
    ctx->txs = s->txs;
    for (uint32_t i = 0; i < s->n; i++) {
        if (!s->txs[i]) continue;
        int64_t deadline_ms = rg__tx_opts_of(s->txs[i])->deadline_ms;
        if (deadline_ms < ctx->deadline_ms) ctx->deadline_ms = deadline_ms;
        ctx->nested |= rg__tx_holds(s->txs[i]);
    }
}

/* ---- connections of operations ---- */

int rg__op_connect(rg_engine *e, const rg__ctx *ctx, int pool, rg__tx_need need, rg__mysql **c,
                   rg_err *err) {
    rg__tx *tx = rg__tx_of(ctx, pool);
    return tx ? rg__tx_use(tx, ctx, need, c, err) : rg__mysql_acquire(e->store.mysql[pool], ctx, c, err);
}

int rg__op_disconnect(const rg__ctx *ctx, int pool, rg__mysql *c, int rc, const rg_err *err) {
    rg__tx *tx = rg__tx_of(ctx, pool);
    if (tx) return rg__tx_after(tx, rc, err);
    rg__mysql_release(c);
    return rc;
}
