/* SPDX-License-Identifier: MIT */
/* The engine: made from a configuration, shared by handles, closed in bounded time. */
#include "run/engine.h"

#include <regolith/regolith.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/thread.h"
#include "cache/home.h"
#include "run/meaning.h"
#include "unit/load.h"
#include "unit/outage.h"

/* Open engines; the exit handler closes them so that no thread outlives the libraries it uses. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static rg_engine *open_engines;
static bool handler_set;

static rg_engine *first_open(void) {
    pthread_mutex_lock(&open_lock);
    rg_engine *e = open_engines;
    while (e && atomic_load(&e->closed)) e = e->next;
    if (e) rg_engine_ref(e); /* never given back: the process ends */
    pthread_mutex_unlock(&open_lock);
    return e;
}

/* Closes without freeing: other threads may still look at an engine while the process ends. */
static void close_all(void) {
    for (rg_engine *e = first_open(); e; e = first_open()) rg_engine_close(e);
    rg__watch_stop();
}

static void enlist(rg_engine *e) {
    pthread_mutex_lock(&open_lock);
    e->next = open_engines;
    open_engines = e;
    if (!handler_set) handler_set = atexit(close_all) == 0;
    pthread_mutex_unlock(&open_lock);
}

static void delist(rg_engine *e) {
    pthread_mutex_lock(&open_lock);
    for (rg_engine **p = &open_engines; *p; p = &(*p)->next)
        if (*p == e) {
            *p = e->next;
            break;
        }
    pthread_mutex_unlock(&open_lock);
}

/* ---- wiring: pools of the types, caches, queues ---- */

static int find_pool(uint32_t n, const char *name, const char *(*name_of)(const rg_config *, uint32_t),
                     const rg_config *c) {
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(name_of(c, i), name)) return (int)i;
    return -1;
}
static const char *mysql_name(const rg_config *c, uint32_t i) {
    return rg__mysql_pool_name(c->mysql[i]);
}
static const char *redis_name(const rg_config *c, uint32_t i) {
    return rg__redis_pool_name(c->redis[i]);
}

static void add_fault(rg__buf *faults, const char *fmt, const char *a, const char *b) {
    if (faults->len) rg__buf_char(faults, '\n');
    rg__buf_fmt(faults, fmt, a, b);
}

/* Without any Redis pool the default one is simply not there; a named one must exist. */
static void resolve_pools(const rg_config *c, rg_type *t, rg__buf *faults) {
    t->mysql_pool = find_pool(c->n_mysql, t->mysql, mysql_name, c);
    t->redis_pool = find_pool(c->n_redis, t->redis, redis_name, c);
    if (!t->outage) t->outage = c->opts.outage;
    if (t->mysql_pool < 0) add_fault(faults, "%s: there is no MySQL pool \"%s\"", t->name, t->mysql);
    if (t->redis_pool >= 0) return;
    if (t->cache_redis || t->cache_process)
        add_fault(faults, "%s: its cache needs Redis pool \"%s\", which is not defined", t->name,
                  t->redis);
    else if (t->n_feeds && c->n_redis == 0)
        add_fault(faults, "%s: its events need a Redis pool, and none is defined%s", t->name, "");
    else if (strcmp(t->redis, "default") != 0)
        add_fault(faults, "%s: there is no Redis pool \"%s\"", t->name, t->redis);
}

/* The queue tells one Redis of what it writes. */
static void check_queries(const rg_config *c, const rg_type *t, rg__buf *faults) {
    if (!t->cache_queries) return;
    if (t->redis_pool < 0)
        add_fault(faults, "%s: cached searches need Redis pool \"%s\", which is not defined", t->name,
                  t->redis);
    for (uint32_t i = 0; i < c->schema.n; i++) {
        const rg_type *u = c->schema.types[i];
        if (u->mysql_pool == t->mysql_pool && u->redis_pool != t->redis_pool)
            add_fault(faults, "%s: with cached searches, %s of the same MySQL pool must have its Redis pool",
                      t->name, u->name);
    }
}

static void resolve_cache(const rg_config *c, rg__values *v, rg__buf *faults) {
    v->redis_pool = find_pool(c->n_redis, v->redis, redis_name, c);
    if (v->redis_pool < 0 && (v->in_redis || strcmp(v->redis, "default") != 0))
        add_fault(faults, "cache %s: it needs Redis pool \"%s\", which is not defined", v->name,
                  v->redis);
}

static int resolve(rg_config *c, rg_err *err) {
    rg__buf faults = {0};
    rg_err schema = {0};
    if (rg__schema_resolve(&c->schema, &schema) < 0) add_fault(&faults, "%s%s", schema.message, "");
    if (c->n_mysql == 0) add_fault(&faults, "%s%s", "no MySQL pool is defined", "");
    for (uint32_t i = 0; i < c->n_queues; i++)
        if (find_pool(c->n_mysql, c->queues[i].queue, mysql_name, c) < 0)
            add_fault(&faults, "queues: there is no MySQL pool \"%s\"%s", c->queues[i].queue, "");
    for (uint32_t i = 0; i < c->schema.n; i++) resolve_pools(c, c->schema.types[i], &faults);
    for (uint32_t i = 0; i < c->schema.n; i++) check_queries(c, c->schema.types[i], &faults);
    for (uint32_t i = 0; i < c->n_caches; i++) resolve_cache(c, c->caches[i], &faults);
    int rc = RG_OK;
    if (faults.len) rc = rg__fail(err, RG_ECONFIG, "%s", rg__buf_cstr(&faults));
    rg__buf_deinit(&faults);
    return rc;
}

static int make_shared(rg_engine *e, const rg_config *c, rg_err *err) {
    rg__store *s = &e->store;
    for (uint32_t i = 0; i < s->n_redis; i++) {
        s->shared[i] = rg__shared_new(e->redis[i], s->process, &s->schema, c->prefix, &s->metrics, err);
        if (!s->shared[i]) return RG_ENO_MEMORY;
        rg__shared_timing(s->shared[i], 0, c->opts.mark_ms);
        s->coherence[i] = rg__home_channel(e->home, i);
        e->keepers[i] = rg__keeper_new(e->redis[i], c->prefix, &s->metrics, err);
        if (!e->keepers[i]) return RG_ENO_MEMORY;
    }
    return RG_OK;
}

/* Searches of a Redis pool: those that processes keep, and those that they do not. */
static int make_searches(rg__store *s, rg_err *err) {
    static const char *const keys[] = {"z:", "s:"};
    int rc = RG_OK;
    s->searches = rg__calloc(2 * (size_t)s->n_redis + 1, sizeof *s->searches);
    if (!s->searches) return rg__fail_memory(err);
    for (uint32_t i = 0; rc >= 0 && i < 2 * s->n_redis; i++) {
        rg__values *v = &s->searches[i];
        *v = (rg__values){.in_redis = true, .in_process = i % 2 == 1, .lease_ms = 10000,
                          .max_bytes = 4 << 20};
        rc = rg__values_init(v, s->shared[i / 2], s->process, s->n_caches + i, keys[i % 2], err);
    }
    return rc;
}

static int make_caches(rg__store *s, rg_err *err) {
    int rc = make_searches(s, err);
    for (uint32_t i = 0; rc >= 0 && i < s->n_caches; i++) {
        rg__values *v = s->caches[i];
        rg__buf key = {0};
        rg__buf_fmt(&key, "u:%s:", v->name);
        rc = rg__values_init(v, v->redis_pool >= 0 ? s->shared[v->redis_pool] : NULL, s->process, i,
                             rg__buf_cstr(&key), err);
        rg__buf_deinit(&key);
    }
    return rc;
}

/* The Redis pool of a queue is the one that the MySQL pool's entities use; the first decides. */
static rg__shared *queue_shared(const rg__store *s, uint32_t pool) {
    for (uint32_t i = 0; i < s->schema.n; i++) {
        const rg_type *t = s->schema.types[i];
        if (t->mysql_pool == (int)pool && t->redis_pool >= 0) return s->shared[t->redis_pool];
    }
    return s->n_redis ? s->shared[0] : NULL;
}

enum { REPLICA_MS = 1000, EVENTS = 1000000, EVENTS_MS = 7 * 86400 * 1000 };

/* What was configured of a queue, over what holds for all. */
static rg__queue_rules rules_of(const rg_config *c, const char *name, uint32_t *n_parts) {
    rg_queue_opts o = {0};
    for (uint32_t i = 0; i < c->n_queues; i++)
        if (!strcmp(c->queues[i].queue, name)) o = c->queues[i];
    *n_parts = o.partitions ? o.partitions : 1;
    rg__queue_rules r = {.on_split = o.on_split ? o.on_split : RG_SPLIT_REFUSE,
                         .durability = o.durability ? o.durability : RG_DURABLE_FAST,
                         .when_full = o.when_full,
                         .max_len = o.max_len ? o.max_len : c->opts.queue_max_len,
                         .max_age_ms = o.max_age_ms,
                         .max_bytes = o.max_bytes,
                         .wait_ms = o.wait_ms ? o.wait_ms : c->opts.backpressure_wait_ms,
                         .retain_ms = o.retain_ms,
                         .events_max_len = o.events_max_len ? o.events_max_len : EVENTS,
                         .events_keep_ms = o.events_keep_ms ? o.events_keep_ms : EVENTS_MS,
                         .replica_ms = o.replica_ms ? o.replica_ms : REPLICA_MS,
                         .persistence = o.persistence ? o.persistence : RG_UNFIT_WARN};
    if (!r.when_full) r.when_full = r.wait_ms ? RG_FULL_WAIT : RG_FULL_REFUSE;
    return r;
}

static int make_queue(rg__store *s, const rg_config *c, uint32_t i, rg_err *err) {
    rg__buf stream = {0};
    rg__queue *q = &s->queues[i];
    const char *name = rg__mysql_pool_name(s->mysql[i]);
    rg__buf_fmt(&stream, "{%s}:q:%s", c->prefix, name);
    *q = (rg__queue){.name = name,
                     .stream = rg__strdup(rg__buf_cstr(&stream)),
                     .ledger = rg__strdup(name),
                     .mysql = s->mysql[i],
                     .shared = queue_shared(s, i),
                     .schema = &s->schema};
    rg__buf_deinit(&stream);
    q->rules = rules_of(c, name, &q->n_parts);
    s->parts[i] = rg__calloc(q->n_parts, sizeof *s->parts[i]);
    s->gauges[i] = rg__calloc(q->n_parts, sizeof *s->gauges[i]);
    if (!q->stream || !q->ledger || !s->parts[i] || !s->gauges[i]) return rg__fail_memory(err);
    int rc = RG_OK;
    for (uint32_t p = 0; rc >= 0 && p < q->n_parts; p++) {
        rc = rg__queue_part(q, p, &s->parts[i][p], err);
        s->parts[i][p].gauge = &s->gauges[i][p];
        pthread_mutex_init(&s->gauges[i][p].lock, NULL);
    }
    return rc;
}

static int make_queues(rg_engine *e, const rg_config *c, rg_err *err) {
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < e->store.n_mysql; i++)
        rc = make_queue(&e->store, c, i, err);
    return rc;
}

static void free_queue(rg__store *s, uint32_t i) {
    for (uint32_t p = 0; s->parts && s->parts[i] && p < s->queues[i].n_parts; p++) {
        if (s->parts[i][p].gauge) pthread_mutex_destroy(&s->parts[i][p].gauge->lock);
        rg__queue_deinit(&s->parts[i][p]);
    }
    if (s->parts) rg__free(s->parts[i]);
    if (s->gauges) rg__free(s->gauges[i]);
    rg__queue_deinit(&s->queues[i]);
}

/* The process cache that engines with the same meaning share. */
static int join_home(rg_engine *e, const rg_config *c, rg_err *err) {
    rg__store *s = &e->store;
    rg__buf meaning = {0};
    rg__buf secrets = {0};
    rg__meaning_write(s, e->redis, c->prefix, &meaning);
    rg__secrets_write(e->redis, e->n_redis, &secrets);
    const rg__home_opts o = {.meaning = {meaning.p, meaning.len},
                             .secrets = {secrets.p, secrets.len},
                             .prefix = c->prefix,
                             .schema = &s->schema,
                             .redis = e->redis,
                             .n_redis = e->n_redis,
                             .max_bytes = c->opts.process_cache_bytes,
                             .apart = c->opts.process_cache_apart != 0,
                             .place = c->place};
    if (!meaning.failed && !secrets.failed) e->home = rg__home_join(&o, err);
    else rg__fail_memory(err);
    if (secrets.p) explicit_bzero(secrets.p, secrets.len);
    rg__buf_deinit(&meaning);
    rg__buf_deinit(&secrets);
    if (!e->home) return err && err->code ? err->code : RG_ENO_MEMORY;
    s->process = rg__home_process(e->home);
    return RG_OK;
}

static int make_store(rg_engine *e, rg_config *c, rg_err *err) {
    rg__store *s = &e->store;
    s->schema = c->schema;
    s->mysql = c->mysql;
    s->n_mysql = c->n_mysql;
    for (uint32_t i = 0; i < s->n_mysql; i++)
        e->has_replicas |= rg__mysql_pool_replicas(s->mysql[i]) > 0;
    e->redis = c->redis;
    s->n_redis = e->n_redis = c->n_redis;
    e->keepers = rg__calloc(e->n_redis + 1, sizeof(rg__keeper *));
    c->schema = (rg__schema){0};
    c->mysql = NULL;
    c->redis = NULL;
    c->n_mysql = c->n_redis = 0;
    s->caches = c->caches;
    s->n_caches = c->n_caches;
    c->caches = NULL;
    c->n_caches = 0;
    s->id_block = c->opts.id_block;
    s->node = c->opts.node;
    s->flights = rg__flights_new();
    s->shared = rg__calloc(s->n_redis + 1, sizeof(rg__shared *));
    s->coherence = rg__calloc(s->n_redis + 1, sizeof(rg__coherence *));
    s->queues = rg__calloc(s->n_mysql + 1, sizeof *s->queues);
    s->parts = rg__calloc(s->n_mysql + 1, sizeof *s->parts);
    s->gauges = rg__calloc(s->n_mysql + 1, sizeof *s->gauges);
    s->ids = rg__calloc(s->schema.n + 1, sizeof *s->ids);
    e->relays = rg__engine_relays_new(s->n_mysql);
    if (!e->relays) return rg__fail_memory(err);
    if (!s->flights || !s->shared || !s->coherence || !s->queues || !s->parts || !e->keepers ||
        !s->gauges || !s->ids)
        return rg__fail_memory(err);
    rg__store_open(s);
    int rc = join_home(e, c, err);
    if (rc >= 0) rc = make_shared(e, c, err);
    if (rc >= 0) rc = rg__outages_new(s, err);
    if (rc >= 0) rc = make_caches(s, err);
    if (rc >= 0) rc = rg__home_settle(e->home, s->shared, err);
    return rc < 0 ? rc : make_queues(e, c, err);
}

static void destroy(rg_engine *e) {
    rg__store *s = &e->store;
    for (uint32_t i = 0; e->keepers && i < e->n_redis; i++) rg__keeper_free(e->keepers[i]);
    rg__free(e->keepers);
    if (e->home && !atomic_load(&e->closed)) rg__home_retire(e->home);
    for (uint32_t i = 0; s->shared && i < s->n_redis; i++) rg__shared_free(s->shared[i]);
    rg__caches_free(s->caches, s->n_caches);
    for (uint32_t i = 0; s->searches && i < 2 * s->n_redis; i++) rg__values_deinit(&s->searches[i]);
    rg__free(s->searches);
    rg__engine_relays_free(e->relays, s->n_mysql);
    for (uint32_t i = 0; s->queues && i < s->n_mysql; i++) free_queue(s, i);
    rg__workers_free(e->workers);
    for (uint32_t i = 0; i < s->n_mysql; i++) rg__mysql_pool_free(s->mysql[i]);
    for (uint32_t i = 0; i < s->n_redis; i++) rg__redis_pool_free(e->redis[i]);
    rg__home_unref(e->home);
    rg__flights_free(s->flights);
    rg__outages_free(s);
    rg__store_close(s);
    rg__schema_deinit(&s->schema);
    rg__free(s->shared);
    rg__free(s->coherence);
    rg__free(s->queues);
    rg__free(s->parts);
    rg__free(s->gauges);
    rg__free(s->ids);
    rg__free(s->mysql);
    rg__free(e->redis);
    rg__slow_free(s->metrics.slow);
    rg__free(e);
}

rg_engine *rg_engine_new(rg_config *c, rg_err *err) {
    rg_engine *e = NULL;
    int rc = rg__mysql_library(err);
    if (rc >= 0) rc = resolve(c, err);
    if (rc >= 0 && !(e = rg__calloc(1, sizeof *e))) rc = rg__fail_memory(err);
    if (rc >= 0) {
        atomic_init(&e->refs, 1);
        e->timeout_ms = c->opts.operation_timeout_ms;
        atomic_init(&e->log_mask, c->opts.log_mask);
        atomic_init(&e->log_values, c->opts.log_values);
        e->store.metrics.slow = rg__slow_new(); /* without memory none are kept */
        e->workers = rg__workers_new(c->opts.workers, c->opts.max_workers, c->opts.max_queued);
        rc = e->workers ? make_store(e, c, err) : rg__fail_memory(err);
    }
    rg_config_free(c);
    if (rc < 0) {
        if (e) destroy(e);
        return NULL;
    }
    enlist(e);
    return e;
}

rg_engine *rg_engine_ref(rg_engine *e) {
    atomic_fetch_add(&e->refs, 1);
    return e;
}

void rg_engine_unref(rg_engine *e) {
    if (!e || atomic_fetch_sub(&e->refs, 1) != 1) return;
    delist(e);
    rg_engine_close(e);
    if (!rg_engine_orphan(e)) destroy(e);
}

/* ---- forks ---- */

int rg_engine_orphan(const rg_engine *e) {
    int pid = atomic_load_explicit(&e->loop_pid, memory_order_relaxed);
    return pid && pid != rg__pid();
}

int rg__engine_fail_orphan(rg_err *err) {
    return rg__fail(err, RG_EMISUSE, "this process was forked off from one whose event loop uses the orm: open another "
                                     "one here (with host = \"blocking\", unless a loop of its own runs here)");
}

void rg_engine_close(rg_engine *e) {
    if (atomic_exchange(&e->closed, true) || rg_engine_orphan(e)) return;
    for (uint32_t i = 0; i < e->n_redis; i++) rg__keeper_stop(e->keepers[i]); /* gives locks back */
    for (uint32_t i = 0; i < e->store.n_mysql; i++) rg__mysql_pool_shutdown(e->store.mysql[i]);
    for (uint32_t i = 0; i < e->store.n_redis; i++) {
        rg__redis_pool_shutdown(e->redis[i]);
    }
    rg__home_retire(e->home);
    rg__workers_stop(e->workers);
}

/* ---- what is asked of it ---- */

rg__ctx rg__engine_ctx(rg_engine *e, rg__trace *trace, uint32_t timeout_ms) {
    int mask = atomic_load_explicit(&e->log_mask, memory_order_relaxed);
    if (trace && mask) {
        trace->mask = mask;
        trace->values = atomic_load(&e->log_values) != 0;
    }
    return (rg__ctx){.deadline_ms = rg__now_ms() + (timeout_ms ? timeout_ms : e->timeout_ms),
                     .metrics = &e->store.metrics,
                     .trace = mask ? trace : NULL};
}

int rg__engine_mysql(const rg_engine *e, const char *name, rg_err *err) {
    if (!name) name = "default";
    for (uint32_t i = 0; i < e->store.n_mysql; i++)
        if (!strcmp(rg__mysql_pool_name(e->store.mysql[i]), name)) return (int)i;
    return rg__fail_field(err, "pool", "there is no MySQL pool \"%s\"", name);
}

const rg_type *rg__engine_type(const rg_engine *e, uint32_t type, rg_err *err) {
    if (type < e->store.schema.n) return e->store.schema.types[type];
    rg__fail(err, RG_EINVALID, "there is no entity number %u", type);
    return NULL;
}

const rg_type *rg_engine_type(const rg_engine *e, uint32_t type) {
    return rg__engine_type(e, type, NULL);
}

int rg_engine_type_find(const rg_engine *e, const char *name) {
    const rg_type *t = rg__schema_find(&e->store.schema, name, strlen(name));
    return t ? (int)t->number : -1;
}

int rg_engine_next_id(rg_engine *e, uint32_t type, double *id, rg_err *err) {
    const rg_type *t = rg__engine_type(e, type, err);
    if (!t) return RG_EINVALID;
    uint64_t v = 0;
    int rc = rg__ids_next(&e->store, t, &v, err);
    if (rc == 1) *id = (double)v;
    return rc;
}

void rg_engine_set_log(rg_engine *e, int mask, int values) {
    atomic_store(&e->log_mask, mask);
    atomic_store(&e->log_values, values);
}

/* Those of the process cache are counted where it is. */
static void take_process_counters(rg_engine *e) {
    static const rg__counter of_process[] = {RG__C_PROCESS_HIT, RG__C_PROCESS_MISS, RG__C_PROCESS_EVICTED,
                                             RG__C_PROCESS_INVALIDATED, RG__C_PROCESS_CLEARED};
    const rg__metrics *m = rg__home_metrics(e->home);
    for (size_t i = 0; i < sizeof of_process / sizeof *of_process; i++)
        atomic_store(&e->store.metrics.counter[of_process[i]], atomic_load(&m->counter[of_process[i]]));
}

char *rg_engine_metrics(rg_engine *e, size_t *len) {
    rg__buf out = {0};
    take_process_counters(e);
    rg__metrics_render(&e->store.metrics, &out);
    rg__engine_gauges(e, &out);
    rg__buf_cstr(&out);
    if (out.failed) {
        rg__buf_deinit(&out);
        return NULL;
    }
    *len = out.len;
    return out.p;
}

double rg_engine_counter(rg_engine *e, const char *name) {
    static const char *const names[] = {
#define X(id, prometheus, help) prometheus,
        RG__COUNTERS(X)
#undef X
    };
    take_process_counters(e);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name)) return (double)atomic_load(&e->store.metrics.counter[i]);
    return -1;
}

void rg_engine_cache_stats(rg_engine *e, double *bytes, double *entries) {
    uint64_t b = 0;
    uint64_t n = 0;
    rg__process_stats(e->store.process, &b, &n);
    *bytes = (double)b;
    *entries = (double)n;
}

int rg_engine_has_replicas(const rg_engine *e) { return e->has_replicas; }

int rg_engine_coherent(rg_engine *e) {
    for (uint32_t i = 0; i < e->store.n_redis; i++)
        if (!rg__coherence_ok(e->store.coherence[i])) return 0;
    return 1;
}

void rg_free(void *p) { rg__free(p); }
int rg_abi(void) { return RG_ABI; }
const char *rg_version(void) { return RG_VERSION; }
uint32_t rg_sizeof_err(void) { return sizeof(rg_err); }
uint32_t rg_sizeof_pool_opts(void) { return sizeof(rg_pool_opts); }
