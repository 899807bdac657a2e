/* SPDX-License-Identifier: MIT */
/* Caches of the application's values: their configuration, and operations on them. */
#include <regolith/cache.h>

#include "base/alloc.h"
#include "run/op.h"

enum {
    TTL_MS = 3600 * 1000,
    ABSENT_TTL_MS = 10 * 1000,
    LEASE_MS = 10 * 1000,
    VALUE_BYTES = 1 << 20,
};

/* ---- configuration ---- */

void rg__caches_free(rg__values **caches, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        rg__values_deinit(caches[i]);
        rg__free(caches[i]);
    }
    rg__free(caches);
}

static int check_opts(const rg_config *c, const rg_cache_opts *o, rg_err *err) {
    if (!o->name || !*o->name) return rg__fail_field(err, "name", "a cache needs a name");
    for (uint32_t i = 0; i < c->n_caches; i++)
        if (!strcmp(c->caches[i]->name, o->name))
            return rg__fail_field(err, "name", "cache %s is defined twice", o->name);
    if (!o->in_process && !o->in_redis)
        return rg__fail_field(err, "process", "cache %s: neither in the process nor in Redis",
                              o->name);
    return RG_OK;
}

static rg__values *new_cache(const rg_cache_opts *o) {
    rg__values *v = rg__calloc(1, sizeof *v);
    if (!v) return NULL;
    *v = (rg__values){.name = rg__strdup(o->name),
                      .redis = rg__strdup(o->redis ? o->redis : "default"),
                      .in_process = o->in_process != 0,
                      .in_redis = o->in_redis != 0,
                      .sliding = o->sliding != 0,
                      .ttl_ms = o->ttl_ms ? o->ttl_ms : TTL_MS,
                      .absent_ttl_ms = o->absent_ttl_ms ? o->absent_ttl_ms : ABSENT_TTL_MS,
                      .stale_ms = o->stale_ms,
                      .lease_ms = o->lease_ms ? o->lease_ms : LEASE_MS,
                      .max_bytes = o->max_bytes ? o->max_bytes : VALUE_BYTES};
    if (v->name && v->redis) return v;
    rg__values_deinit(v);
    rg__free(v);
    return NULL;
}

int rg_config_cache(rg_config *c, const rg_cache_opts *opts, rg_err *err) {
    rg_cache_opts o = {0};
    memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    int rc = check_opts(c, &o, err);
    if (rc < 0) return rc;
    rg__values **list = rg__reallocarray(c->caches, c->n_caches + 1, sizeof(rg__values *));
    if (!list) return rg__fail_memory(err);
    c->caches = list;
    list[c->n_caches] = new_cache(&o);
    if (!list[c->n_caches]) return rg__fail_memory(err);
    return (int)c->n_caches++;
}

/* ---- looking in the process ---- */

/* A hot value is asked for far more often than the channel needs to be started. */
static void cohere(rg_engine *e, const rg__values *v) {
    if (v->process && v->redis_pool >= 0)
        (void)rg__coherence_start(e->store.coherence[v->redis_pool], NULL);
}

static void show(const rg_block *b, rg_cache_view *out) {
    rg__slice value = rg__value_of(b);
    out->data = (const uint8_t *)value.p;
    out->len = (uint32_t)value.len;
}

int rg_cache_peek(rg_engine *e, uint32_t cache, const char *key, size_t len, double early,
                  rg_cache_view *out) {
    if (cache >= e->store.n_caches || atomic_load_explicit(&e->closed, memory_order_relaxed))
        return RG_CACHED_NONE;
    const rg__values *v = e->store.caches[cache];
    cohere(e, v);
    rg_block *b = NULL;
    int found = rg__value_peek(v, (rg__slice){key, len}, early, &e->store.metrics, &b);
    if (found == RG_CACHED_VALUE) {
        show(b, out);
        out->block = b;
    } else {
        rg_block_unref(b);
    }
    return found;
}

int rg_cache_peek_hold(rg_engine *e, uint32_t cache, const char *key, size_t len, rg_cache_view *out,
                       rg_cache_hold *hold) {
    if (cache >= e->store.n_caches || atomic_load_explicit(&e->closed, memory_order_relaxed))
        return RG_CACHED_NONE;
    const rg__values *v = e->store.caches[cache];
    cohere(e, v);
    rg_block *b = NULL;
    int found = rg__value_peek_hold(v, (rg__slice){key, len}, &e->store.metrics, &b, hold);
    hold->cache = cache;
    if (found != RG_CACHED_VALUE) {
        rg_block_unref(b);
        return found;
    }
    show(b, out);
    out->block = b;
    return found;
}

int rg_cache_holds(rg_engine *e, const rg_cache_hold *hold) {
    if (hold->cache >= e->store.n_caches || atomic_load_explicit(&e->closed, memory_order_relaxed)) return 0;
    const rg__values *v = e->store.caches[hold->cache];
    cohere(e, v); /* in a forked child nothing that the parent knew holds */
    if (!rg__value_holds(v, hold)) return 0;
    rg__count(&e->store.metrics, RG__C_VALUE_PROCESS_HIT, 1);
    return 1;
}

double rg_clock_ms(void) { return (double)rg__now_us() / 1000; }

void rg_cache_corrupt(rg_engine *e) { rg__count(&e->store.metrics, RG__C_CORRUPT_ENTRY, 1); }

/* ---- operations: what they keep ---- */

typedef struct place {
    size_t at, len; /* in the bytes */
} place;

typedef struct places {
    place *items;
    size_t n, cap;
} places;

typedef struct work {
    const rg__values *v;
    rg__buf bytes;           /* keys and values */
    places keys, values;
    rg__buf tags;            /* ids */
    rg__value_item *items;   /* once it runs: one a key */
    rg__value_take take;
    uint32_t wait_ms;
    uint64_t ttl_ms;
    uint32_t took_ms;
    uint64_t stamp;          /* fill: of the item that was taken */
} work;

static void cleanup(rg_op *op) {
    work *w = op->own;
    for (size_t i = 0; w->items && i < w->keys.n; i++) rg__value_item_deinit(&w->items[i]);
    rg__free(w->items);
    rg__free(w->keys.items);
    rg__free(w->values.items);
    rg__buf_deinit(&w->bytes);
    rg__buf_deinit(&w->tags);
    rg__free(w);
}

static rg_op *new_op(rg_engine *e, const rg__values *v, rg__op_fn run, rg_err *err) {
    rg_op *op = rg__op_new(e, run, err);
    if (!op) return NULL;
    work *w = rg__calloc(1, sizeof *w);
    if (!w) {
        rg_op_free(op);
        rg__fail_memory(err);
        return NULL;
    }
    w->v = v;
    op->own = w;
    op->cleanup = cleanup;
    return op;
}

static rg_op *on_cache(rg_engine *e, uint32_t cache, rg__op_fn run, rg_err *err) {
    if (cache < e->store.n_caches) return new_op(e, e->store.caches[cache], run, err);
    rg__fail(err, RG_EINVALID, "there is no cache number %u", cache);
    return NULL;
}

static int keep(work *w, places *p, const char *bytes, size_t len, rg_err *err) {
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 4;
        place *items = rg__reallocarray(p->items, cap, sizeof *items);
        if (!items) return rg__fail_memory(err);
        p->items = items;
        p->cap = cap;
    }
    p->items[p->n++] = (place){w->bytes.len, len};
    rg__buf_add(&w->bytes, bytes, len);
    return w->bytes.failed ? rg__fail_memory(err) : RG_OK;
}

int rg_op_cache_key(rg_op *op, const char *key, size_t len, rg_err *err) {
    work *w = op->own;
    if (len == 0 || len > RG_CACHE_KEY_MAX)
        return rg__fail_field(err, "key", "cache %s: a key has 1 to %d bytes", w->v->name,
                              RG_CACHE_KEY_MAX);
    return keep(w, &w->keys, key, len, err);
}

int rg_op_cache_value(rg_op *op, const char *p, size_t len, rg_err *err) {
    work *w = op->own;
    if (len > w->v->max_bytes)
        return rg__fail_field(err, "value", "cache %s: a value of %zu bytes exceeds max_bytes, %u",
                              w->v->name, len, w->v->max_bytes);
    return keep(w, &w->values, p, len, err);
}

int rg_op_cache_tag(rg_op *op, const char *tag, size_t len, rg_err *err) {
    work *w = op->own;
    uint8_t id[RG__DEP_ID];
    if (w->tags.len / RG__DEP_ID >= RG_CACHE_TAGS_MAX)
        return rg__fail_field(err, "tags", "cache %s: more than %d tags", w->v->name,
                              RG_CACHE_TAGS_MAX);
    rg__dep_id(w->v->name, (rg__slice){tag, len}, id);
    rg__buf_add(&w->tags, id, sizeof id);
    return w->tags.failed ? rg__fail_memory(err) : RG_OK;
}

static rg__slice slice_at(const work *w, place p) { return (rg__slice){w->bytes.p + p.at, p.len}; }

static int name_items(work *w, rg_err *err) {
    w->items = rg__calloc(w->keys.n + 1, sizeof *w->items);
    if (!w->items) return rg__fail_memory(err);
    for (size_t i = 0; i < w->keys.n; i++) {
        w->items[i].key = slice_at(w, w->keys.items[i]);
        if (rg__value_name(w->v, &w->items[i]) < 0) return rg__fail_memory(err);
    }
    return RG_OK;
}

static rg__slice tags_of(const work *w) {
    return (rg__slice){w->tags.p ? w->tags.p : "", w->tags.len};
}

/* ---- taking ---- */

/* What the process tier knows; without Redis the caller loads what it does not. */
static void peek_items(work *w, rg__metrics *m) {
    const rg__values *v = w->v;
    for (size_t i = 0; i < w->keys.n; i++) {
        rg__value_item *it = &w->items[i];
        it->found = rg__value_peek(v, it->key, w->take.early, m, &it->block);
        it->absent = it->found == RG_CACHED_ABSENT;
        if (it->found == RG_CACHED_NONE && !v->in_redis && w->take.lease)
            it->found = RG_CACHED_LEASED;
    }
}

static int run_take(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    work *w = op->own;
    cohere(op->engine, w->v);
    int rc = name_items(w, err);
    if (rc < 0) return rc;
    peek_items(w, ctx->metrics);
    if (w->v->in_redis) rg__value_ask(w->v, ctx, &w->take, w->items, w->keys.n, w->wait_ms);
    return RG_OK;
}

rg_op *rg_op_cache_take(rg_engine *e, uint32_t cache, int lease, double early, uint32_t wait_ms,
                        rg_err *err) {
    rg_op *op = on_cache(e, cache, run_take, err);
    if (!op) return NULL;
    work *w = op->own;
    w->take.lease = lease != 0;
    w->take.early = early > 0 ? early : 0;
    w->wait_ms = wait_ms;
    rg__random(w->take.token, sizeof w->take.token);
    return op;
}

static const rg__value_item *item_at(const rg_op *op, uint32_t i) {
    const work *w = op->own;
    return w->items && i < w->keys.n ? &w->items[i] : NULL;
}

int rg_op_cache_found(const rg_op *op, uint32_t i, rg_cache_view *out) {
    const rg__value_item *it = item_at(op, i);
    if (!it) return RG_CACHED_NONE;
    out->absent = it->absent;
    out->block = it->block;
    if (it->block && !it->absent) show(it->block, out);
    return it->found;
}

/* ---- filling ---- */

static int run_fill(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    work *w = op->own;
    const rg__values *v = w->v;
    bool absent = w->values.n == 0;
    rg__value_fill f = {.token = w->take.token,
                        .absent = absent,
                        .ttl_ms = w->ttl_ms ? w->ttl_ms : absent ? v->absent_ttl_ms : v->ttl_ms,
                        .stale_ms = absent ? 0 : v->stale_ms,
                        .took_ms = w->took_ms,
                        .tags = tags_of(w)};
    if (!absent) f.value = slice_at(w, w->values.items[0]);
    int rc = name_items(w, err);
    if (rc < 0) return rc;
    w->items[0].stamp = w->stamp;
    rc = rg__value_put(v, ctx, &w->items[0], &f, err);
    op->number = rc;
    return rc < 0 ? rc : RG_OK;
}

/* Milliseconds of life that are neither negative nor beyond what Redis takes; 0: the cache's. */
static uint64_t life(double ms) { return ms >= 1 ? (uint64_t)(ms < 1e14 ? ms : 1e14) : 0; }

rg_op *rg_op_cache_fill(rg_op *take, uint32_t i, double ttl_ms, double took_ms, rg_err *err) {
    const work *from = take->own;
    const rg__value_item *it = item_at(take, i);
    rg_op *op = it ? new_op(take->engine, from->v, run_fill, err) : NULL;
    if (!op) return NULL;
    work *w = op->own;
    w->take = from->take;
    w->stamp = it->stamp;
    w->ttl_ms = life(ttl_ms);
    w->took_ms = took_ms < 1 ? 1 : took_ms > 1e9 ? 1000000000 : (uint32_t)took_ms;
    if (keep(w, &w->keys, it->key.p, it->key.len, err) >= 0) return op;
    rg_op_free(op);
    return NULL;
}

static int run_unlease(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    work *w = op->own;
    int rc = name_items(w, err);
    if (rc >= 0 && w->v->in_redis)
        rg__value_unlease(w->v, ctx, w->take.token, w->items, w->keys.n);
    return rc;
}

rg_op *rg_op_cache_unlease(rg_op *take, rg_err *err) {
    const work *from = take->own;
    rg_op *op = new_op(take->engine, from->v, run_unlease, err);
    if (!op) return NULL;
    work *w = op->own;
    w->take = from->take;
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < from->keys.n; i++) {
        rg__slice key = slice_at(from, from->keys.items[i]);
        rc = keep(w, &w->keys, key.p, key.len, err);
    }
    if (rc >= 0) return op;
    rg_op_free(op);
    return NULL;
}

/* ---- setting and deleting ---- */

static int run_set(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    work *w = op->own;
    const rg__values *v = w->v;
    if (w->values.n != w->keys.n)
        return rg__fail(err, RG_EMISUSE, "each key needs a value");
    cohere(op->engine, v);
    int rc = name_items(w, err);
    rg__slice *values = rg__calloc(w->keys.n + 1, sizeof *values);
    if (!values) return rg__fail_memory(err);
    for (size_t i = 0; i < w->values.n; i++) values[i] = slice_at(w, w->values.items[i]);
    if (rc >= 0)
        rc = rg__value_set(v, ctx, w->items, values, w->keys.n, w->ttl_ms ? w->ttl_ms : v->ttl_ms,
                           tags_of(w), err);
    rg__free(values);
    return rc;
}

rg_op *rg_op_cache_set(rg_engine *e, uint32_t cache, double ttl_ms, rg_err *err) {
    rg_op *op = on_cache(e, cache, run_set, err);
    if (op) ((work *)op->own)->ttl_ms = life(ttl_ms);
    return op;
}

static int run_delete(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    work *w = op->own;
    cohere(op->engine, w->v);
    int rc = name_items(w, err);
    if (rc >= 0) rc = rg__value_delete(w->v, ctx, w->items, w->keys.n, err);
    op->number = rc;
    return rc < 0 ? rc : RG_OK;
}

rg_op *rg_op_cache_delete(rg_engine *e, uint32_t cache, rg_err *err) {
    return on_cache(e, cache, run_delete, err);
}

static int run_delete_tags(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    work *w = op->own;
    if (!w->v->shared) return rg__fail(err, RG_EMISUSE, "cache %s: tags need Redis", w->v->name);
    cohere(op->engine, w->v);
    return rg__value_delete_tags(w->v, ctx, tags_of(w), err);
}

rg_op *rg_op_cache_delete_tags(rg_engine *e, uint32_t cache, rg_err *err) {
    return on_cache(e, cache, run_delete_tags, err);
}
