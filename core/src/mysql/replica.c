/* SPDX-License-Identifier: MIT */
/* Reads that a replica may answer. */
#include "mysql/replica.h"

#include "base/alloc.h"
#include "mysql/pool.h"

enum { DOWN_MIN_MS = 200, DOWN_MAX_MS = 10000, ASK_MIN_MS = 2, ASK_MAX_MS = 50 };

rg__replicas *rg__pool_replicas(const rg__mysql_pool *pool) { return pool->replicas; }

/* ---- making and freeing ---- */

int rg__mysql_pool_replica(rg__mysql_pool *pool, const rg_pool_opts *opts, rg_err *err) {
    rg__replicas *rs = pool->replicas ? pool->replicas : rg__calloc(1, sizeof *rs);
    if (!rs) return rg__fail_memory(err);
    pool->replicas = rs;
    rg__replica *p = rg__reallocarray(rs->items, rs->n + 1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    rs->items = p;
    memset(&p[rs->n], 0, sizeof *p);
    p[rs->n].pool = rg__mysql_pool_new(opts, err);
    if (!p[rs->n].pool) return err && err->code ? err->code : RG_EINVALID;
    rs->n++;
    return RG_OK;
}

void rg__replicas_shutdown(rg__replicas *rs) {
    for (uint32_t i = 0; rs && i < rs->n; i++) rg__mysql_pool_shutdown(rs->items[i].pool);
}

void rg__replicas_free(rg__replicas *rs) {
    if (!rs) return;
    for (uint32_t i = 0; i < rs->n; i++) rg__mysql_pool_free(rs->items[i].pool);
    for (uint32_t i = 0; i < RG__SAMPLES; i++) rg__buf_deinit(&rs->samples[i].position);
    rg__free(rs->items);
    rg__free(rs);
}

uint32_t rg__mysql_pool_replicas(const rg__mysql_pool *pool) {
    return pool->replicas ? pool->replicas->n : 0;
}

rg__mysql_pool *rg__mysql_pool_replica_at(const rg__mysql_pool *pool, uint32_t i, bool *lagging) {
    *lagging = atomic_load(&pool->replicas->items[i].lagging);
    return pool->replicas->items[i].pool;
}

/* ---- who is passed over ---- */

static int doubled(int ms, int least, int most) {
    if (ms < least) return least;
    return ms > most / 2 ? most : ms * 2;
}

void rg__replica_failed(rg__replica *r) {
    int ms = doubled(atomic_load(&r->backoff_ms), DOWN_MIN_MS, DOWN_MAX_MS);
    atomic_store(&r->backoff_ms, ms);
    atomic_store(&r->down_until_ms, rg__now_ms() + ms);
}

static void was_behind(rg__replica *r) {
    int ms = doubled(atomic_load(&r->ask_backoff_ms), ASK_MIN_MS, ASK_MAX_MS);
    atomic_store(&r->ask_backoff_ms, ms);
    atomic_store(&r->ask_after_ms, rg__now_ms() + ms);
}

static bool passed_over(const rg__replica *r) {
    return rg__now_ms() < atomic_load(&r->down_until_ms) || atomic_load(&r->lagging);
}

/* Half of the time left: the primary may have to answer after all. */
static rg__ctx half(const rg__mysql_pool *pool, const rg__ctx *ctx) {
    rg__ctx within = *ctx;
    int64_t deadline = rg__deadline_within(ctx->deadline_ms, rg__pool_opts(pool)->timeout_ms);
    within.deadline_ms = rg__now_ms() + rg__left_ms(deadline) / 2;
    return within;
}

/* ---- choosing ---- */

/* What was written and nobody said where: from now on, where the primary is. */
static void clarify(rg__mysql_pool *pool, const rg__ctx *ctx, const rg_type *type, rg__need *need) {
    rg__mysql *c = NULL;
    rg__buf position = {0};
    if (rg__mysql_acquire(pool, ctx, &c, NULL) < 0) return;
    if (rg__position_ask(c, ctx, false, &position, NULL) >= 0)
        rg__timeline_clarify(ctx->timeline, pool, (rg__slice){position.p, position.len});
    rg__mysql_release(c);
    rg__buf_deinit(&position);
    rg__timeline_need(ctx->timeline, pool, type, need);
}

static rg__mysql *try_one(rg__mysql_pool *primary, rg__replica *r, const rg__ctx *ctx,
                          const rg__need *need) {
    rg__mysql *c = NULL;
    if (rg__mysql_acquire(r->pool, ctx, &c, NULL) < 0) {
        rg__replica_failed(r);
        return NULL;
    }
    bool ask = rg__now_ms() >= atomic_load(&r->ask_after_ms);
    if (rg__position_covers(c, ctx, primary->opts.name, need, ask)) {
        if (ask) atomic_store(&r->ask_backoff_ms, 0);
        return c;
    }
    if (c->broken)
        rg__replica_failed(r);
    else if (ask)
        was_behind(r);
    rg__mysql_release(c);
    return NULL;
}

static rg__mysql *choose(rg__mysql_pool *pool, const rg__ctx *ctx, const rg_type *type,
                         rg__replica **chosen) {
    rg__replicas *rs = pool->replicas;
    rg__need need;
    rg__timeline_need(ctx->timeline, pool, type, &need);
    if (!need.lost && need.vague) clarify(pool, ctx, type, &need);
    if (!need.lost && !need.vague) rg__replicas_check(pool, rs, ctx);
    uint32_t turn = atomic_fetch_add(&rs->turn, 1);
    uint32_t tried = 0;
    for (uint32_t i = 0; !need.lost && !need.vague && i < rs->n; i++) {
        rg__replica *r = &rs->items[(turn + i) % rs->n];
        if (passed_over(r)) continue;
        tried++;
        rg__mysql *c = try_one(pool, r, ctx, &need);
        *chosen = r;
        if (c) return c;
    }
    bool behind = tried > 0 || need.lost || need.vague;
    rg__count(ctx->metrics, behind ? RG__C_REPLICA_BEHIND : RG__C_REPLICA_SKIPPED, 1);
    return NULL;
}

/* ---- reading ---- */

static int read_primary(rg__mysql_pool *pool, const rg__ctx *ctx, rg__read_fn fn, void *arg,
                        rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(pool, ctx, &c, err);
    if (rc < 0) return rc;
    rc = fn(c, ctx, arg, err);
    rg__mysql_release(c);
    return rc;
}

/* True when the read is done with. Whatever failed, the primary decides: the table may not be there
 * yet, the replica may have gone, its statement may have been killed by what it applies. */
static bool read_replica(rg__mysql_pool *pool, const rg__ctx *ctx, const rg_type *type,
                         rg__read_fn fn, void *arg) {
    rg__replica *r = NULL;
    rg__ctx within = half(pool, ctx);
    rg__mysql *c = choose(pool, &within, type, &r);
    if (!c) return false;
    int rc = fn(c, &within, arg, NULL);
    bool broken = c->broken;
    rg__mysql_release(c);
    if (rc >= 0) {
        atomic_store(&r->backoff_ms, 0);
        rg__count(ctx->metrics, RG__C_REPLICA_READS, 1);
        return true;
    }
    if (broken) rg__replica_failed(r);
    rg__count(ctx->metrics, RG__C_REPLICA_FAILED, 1);
    return false;
}

int rg__mysql_read(rg__mysql_pool *pool, const rg__ctx *ctx, const rg_type *type, bool may_lag,
                   rg__read_fn fn, void *arg, rg_err *err) {
    if (may_lag && pool->replicas && ctx->timeline && read_replica(pool, ctx, type, fn, arg))
        return RG_OK;
    return read_primary(pool, ctx, fn, arg, err);
}
