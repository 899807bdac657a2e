/* SPDX-License-Identifier: MIT */
/* Operations of administration: connecting, health, schema, invalidation. */
#include <stdio.h>

#include "base/alloc.h"
#include "mysql/introspect.h"
#include "run/op.h"

static int try_mysql(rg_engine *e, uint32_t i, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(e->store.mysql[i], ctx, &c, err);
    if (rc >= 0) rg__mysql_release(c);
    return rc;
}

/* As caches and queues use it: a server that evicts what they stand on is refused. */
static int try_redis(rg_engine *e, uint32_t i, const rg__ctx *ctx, rg_err *err) {
    return rg__shared_ping(e->store.shared[i], ctx, err);
}

static int run_connect(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_engine *e = op->engine;
    int rc = RG_OK; /* the pools name themselves in their errors */
    for (uint32_t i = 0; rc >= 0 && i < e->store.n_mysql; i++) rc = try_mysql(e, i, ctx, err);
    for (uint32_t i = 0; rc >= 0 && i < e->store.n_redis; i++) rc = try_redis(e, i, ctx, err);
    return rc;
}

rg_op *rg_op_connect(rg_engine *engine, rg_err *err) { return rg__op_new(engine, run_connect, err); }

/* ---- health ---- */

static const char *const health_columns[] = {"kind", "name", "ok", "busy", "idle", "error"};

static int add_health(rg__result *r, const char *kind, const char *name, int rc, uint32_t busy,
                      uint32_t idle, const rg_err *why) {
    char busy_text[16];
    char idle_text[16];
    snprintf(busy_text, sizeof busy_text, "%u", busy);
    snprintf(idle_text, sizeof idle_text, "%u", idle);
    const char *cells[] = {kind,      name,      rc < 0 ? "0" : "1",
                           busy_text, idle_text, rc < 0 ? why->message : NULL};
    return rg__result_add_strings(r, cells);
}

static int replica_health(rg_op *op, uint32_t pool, const rg__ctx *ctx) {
    const rg__mysql_pool *primary = op->engine->store.mysql[pool];
    int ok = RG_OK;
    for (uint32_t i = 0; ok == RG_OK && i < rg__mysql_pool_replicas(primary); i++) {
        bool lagging = false;
        uint32_t busy = 0;
        uint32_t idle = 0;
        rg_err why = {0};
        rg__mysql *c = NULL;
        rg__mysql_pool *replica = rg__mysql_pool_replica_at(primary, i, &lagging);
        int rc = rg__mysql_acquire(replica, ctx, &c, &why);
        if (rc >= 0) rg__mysql_release(c);
        if (rc >= 0 && lagging)
            rc = rg__fail(&why, RG_EUNAVAILABLE, "lags behind its primary and is not read");
        rg__mysql_pool_stats(replica, &busy, &idle);
        ok = add_health(op->result, "replica", rg__mysql_pool_name(replica), rc, busy, idle, &why);
    }
    return ok;
}

static int run_health(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_engine *e = op->engine;
    op->result = rg__result_new(health_columns, 6);
    int ok = op->result ? RG_OK : RG_ENO_MEMORY;
    for (int i = 2; ok == RG_OK && i < 5; i++) op->result->kinds[i] = RG__CELL_I64;
    uint32_t busy = 0;
    uint32_t idle = 0;
    for (uint32_t i = 0; ok == RG_OK && i < e->store.n_mysql; i++) {
        rg_err why = {0};
        int rc = try_mysql(e, i, ctx, &why);
        rg__mysql_pool_stats(e->store.mysql[i], &busy, &idle);
        ok = add_health(op->result, "mysql", rg__mysql_pool_name(e->store.mysql[i]), rc, busy, idle,
                        &why);
        if (ok == RG_OK) ok = replica_health(op, i, ctx);
    }
    for (uint32_t i = 0; ok == RG_OK && i < e->store.n_redis; i++) {
        rg_err why = {0};
        int rc = try_redis(e, i, ctx, &why);
        rg__redis_pool_stats(e->redis[i], &busy, &idle);
        ok = add_health(op->result, "redis", rg__redis_pool_name(e->redis[i]), rc, busy, idle, &why);
    }
    return ok < 0 ? rg__fail_memory(err) : RG_OK;
}

rg_op *rg_op_health(rg_engine *engine, rg_err *err) { return rg__op_new(engine, run_health, err); }

/* ---- schema ---- */

static const char *const diff_columns[] = {"pool", "table", "kind", "safe", "sql", "reason"};

static int add_diff(rg__result *r, const char *pool, const rg__ddl *d) {
    int rc = RG_OK;
    for (size_t i = 0; rc == RG_OK && i < d->n; i++) {
        const rg__ddl_change *c = &d->items[i];
        const char *cells[] = {pool, c->table, c->kind, c->safe ? "1" : "0", c->sql, c->reason};
        rc = rg__result_add_strings(r, cells);
    }
    return rc;
}

static int diff_pool(rg_op *op, uint32_t i, const rg__ctx *ctx, rg_err *err) {
    rg__store *s = &op->engine->store;
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(s->mysql[i], ctx, &c, err);
    if (rc < 0) return rc;
    rg__ddl diff = {0};
    rc = rg__introspect_diff(c, ctx, &s->schema, (int)i, &diff, err);
    if (rc >= 0 && add_diff(op->result, rg__mysql_pool_name(s->mysql[i]), &diff) < 0)
        rc = rg__fail_memory(err);
    rg__ddl_deinit(&diff);
    rg__mysql_release(c);
    return rc;
}

static int run_diff(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    op->result = rg__result_new(diff_columns, 6);
    if (!op->result) return rg__fail_memory(err);
    op->result->kinds[3] = RG__CELL_I64;
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < op->engine->store.n_mysql; i++)
        if (op->pool < 0 || op->pool == (int)i) rc = diff_pool(op, i, ctx, err);
    return rc;
}

rg_op *rg_op_schema_diff(rg_engine *engine, rg_err *err) {
    rg_op *op = rg__op_new(engine, run_diff, err);
    if (op) op->pool = -1;
    return op;
}

rg_op *rg_op_schema_diff_of(rg_engine *engine, const char *pool, rg_err *err) {
    int number = rg__engine_mysql(engine, pool, err);
    rg_op *op = number < 0 ? NULL : rg__op_new(engine, run_diff, err);
    if (op) op->pool = number;
    return op;
}

static int run_apply(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(op->engine->store.mysql[op->pool], ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__mysql_exec(c, ctx, op->text.p, op->text.len, NULL, err);
    rg__mysql_release(c);
    return rc;
}

rg_op *rg_op_schema_apply(rg_engine *engine, const char *pool, const char *sql, size_t len,
                          rg_err *err) {
    int number = rg__engine_mysql(engine, pool, err);
    rg_op *op = number < 0 ? NULL : rg__op_new(engine, run_apply, err);
    if (!op) return NULL;
    op->pool = number;
    rg__buf_add(&op->text, sql, len);
    rg__buf_cstr(&op->text);
    return op;
}

/* ---- invalidation ---- */

static int drop_ids(rg_op *op, rg__shared *shared, const rg__ctx *ctx, rg_err *err) {
    rg__key *keys = rg__calloc(op->n_ids + 1, sizeof *keys);
    if (!keys) return rg__fail_memory(err);
    for (size_t i = 0; i < op->n_ids; i++) {
        rg__key_row(shared, op->type, op->ids[i], &keys[i]);
        rg__process_drop(op->engine->store.process, keys[i].space, keys[i].hash);
    }
    int rc = rg__shared_drop(shared, ctx, keys, op->n_ids, err);
    for (size_t i = 0; i < op->n_ids; i++) rg__key_deinit(&keys[i]);
    rg__free(keys);
    op->number = rc;
    return rc;
}

/* Searches of the table are void as well: who wrote it past the library told of rows only. */
static int drop_searches(rg_op *op, rg__shared *shared, const rg__ctx *ctx, rg_err *err) {
    rg__key key = {0};
    if (!op->type->cache_queries) return RG_OK;
    int rc = rg__key_generation(shared, op->type, &key) < 0
                 ? rg__fail_memory(err)
                 : rg__shared_drop(shared, ctx, &key, 1, err);
    rg__process_drop(op->engine->store.process, key.space, key.hash);
    rg__key_deinit(&key);
    return rc < 0 ? rc : RG_OK;
}

static int run_invalidate(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__shared *shared = rg__store_shared(&op->engine->store, op->type);
    if (!shared) {
        rg__process_clear(op->engine->store.process);
        return RG_OK;
    }
    int rc = drop_searches(op, shared, ctx, err);
    if (rc < 0) return rc;
    if (op->n_ids) return drop_ids(op, shared, ctx, err);
    uint64_t dropped = 0;
    rc = rg__shared_drop_type(shared, ctx, op->type, &dropped, err);
    rg__process_clear(op->engine->store.process);
    op->number = (double)dropped;
    return rc;
}

rg_op *rg_op_invalidate(rg_engine *engine, uint32_t type, rg_err *err) {
    const rg_type *t = rg__engine_type(engine, type, err);
    rg_op *op = t ? rg__op_new(engine, run_invalidate, err) : NULL;
    if (op) op->type = t;
    return op;
}
