/* SPDX-License-Identifier: MIT */
/* The engine in figures: gauges, and what took long. */
#include <regolith/slow.h>

#include "run/engine.h"

/* ---- gauges ---- */

static void head(rg__buf *out, const char *name, const char *help, const char *type) {
    rg__buf_fmt(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(rg__buf *out, const char *name, const char *help, uint64_t v) {
    head(out, name, help, "gauge");
    rg__buf_fmt(out, "%s %llu\n", name, (unsigned long long)v);
}

/* Calls fn with the figures of each pool: first MySQL's, each with its replicas, then those of Redis. */
static void each_pool(rg_engine *e, rg__buf *out,
                      void (*fn)(rg__buf *, const char *kind, const char *name, const rg__pool_figures *)) {
    rg__pool_figures f;
    for (uint32_t i = 0; i < e->store.n_mysql; i++) {
        rg__mysql_pool *pool = e->store.mysql[i];
        rg__mysql_pool_figures(pool, &f);
        fn(out, "mysql", rg__mysql_pool_name(pool), &f);
        for (uint32_t k = 0; k < rg__mysql_pool_replicas(pool); k++) {
            bool lagging;
            rg__mysql_pool *replica = rg__mysql_pool_replica_at(pool, k, &lagging);
            rg__mysql_pool_figures(replica, &f);
            fn(out, "replica", rg__mysql_pool_name(replica), &f);
        }
    }
    for (uint32_t i = 0; i < e->store.n_redis; i++) {
        rg__redis_pool_figures(e->redis[i], &f);
        fn(out, "redis", rg__redis_pool_name(e->redis[i]), &f);
    }
}

static void put_connections(rg__buf *out, const char *kind, const char *name, const rg__pool_figures *f) {
    const char *line = "regolith_pool_connections{kind=\"%s\",pool=\"%s\",state=\"%s\"} %u\n";
    rg__buf_fmt(out, line, kind, name, "busy", f->busy);
    rg__buf_fmt(out, line, kind, name, "idle", f->idle);
}

static void put_waiting(rg__buf *out, const char *kind, const char *name, const rg__pool_figures *f) {
    rg__buf_fmt(out, "regolith_pool_waiting{kind=\"%s\",pool=\"%s\"} %u\n", kind, name, f->waiting);
}

static void put_limit(rg__buf *out, const char *kind, const char *name, const rg__pool_figures *f) {
    rg__buf_fmt(out, "regolith_pool_limit{kind=\"%s\",pool=\"%s\"} %u\n", kind, name, f->limit);
}

static void put_errors(rg__buf *out, const char *kind, const char *name, const rg__pool_figures *f) {
    rg__buf_fmt(out, "regolith_pool_errors_total{kind=\"%s\",pool=\"%s\"} %llu\n", kind, name,
                (unsigned long long)f->errors);
}

static void pool_gauges(rg_engine *e, rg__buf *out) {
    head(out, "regolith_pool_connections", "connections of a pool", "gauge");
    each_pool(e, out, put_connections);
    head(out, "regolith_pool_waiting", "callers who wait for a connection", "gauge");
    each_pool(e, out, put_waiting);
    head(out, "regolith_pool_limit", "connections that a pool may have", "gauge");
    each_pool(e, out, put_limit);
    head(out, "regolith_pool_errors_total", "calls and connects of a pool that failed", "counter");
    each_pool(e, out, put_errors);
}

void rg__engine_gauges(rg_engine *e, rg__buf *out) {
    uint64_t bytes = 0;
    uint64_t entries = 0;
    rg__process_stats(e->store.process, &bytes, &entries);
    gauge(out, "regolith_process_cache_bytes", "bytes held by the process cache", bytes);
    gauge(out, "regolith_process_cache_entries", "entries of the process cache", entries);
    uint32_t threads = 0;
    uint32_t queued = 0;
    rg__workers_stats(e->workers, &threads, &queued);
    gauge(out, "regolith_worker_threads", "threads that run operations of event loops", threads);
    gauge(out, "regolith_operations_queued", "operations that wait for a thread", queued);
    pool_gauges(e, out);
}

/* ---- what took long ---- */

int rg_engine_slow(rg_engine *e, double before, rg_slow_event *out) {
    rg__slow *s = e->store.metrics.slow;
    return s && before >= 0 && rg__slow_get(s, (uint64_t)before, out);
}

void rg_engine_set_slow(rg_engine *e, uint32_t ms) {
    if (e->store.metrics.slow) rg__slow_bound(e->store.metrics.slow, ms);
}
