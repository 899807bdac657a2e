/* SPDX-License-Identifier: MIT */
/* Value caches: filling under a lease, setting, deleting. */
#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/value_block.h"

RG__VALUE_SCRIPT(fill);
RG__VALUE_SCRIPT(set);
RG__VALUE_SCRIPT(delete);
RG__VALUE_SCRIPT(tag);

enum { SUM = 8, TAG_MS = 60000, ECHO_MS = 300 };

static void drop_own(const rg__values *v, const rg__value_item *it) {
    if (v->process) rg__process_drop(v->process, v->space, it->hash);
}

/* What the process tier keeps of a value just written; NULL when out of memory. */
static rg_block *own_block(const rg__values *v, const rg__value_item *it, rg__slice value, bool absent,
                           uint64_t ttl_ms, uint32_t took_ms, rg__slice deps, int64_t before_ms) {
    rg__slice key = rg__value_tail(v, it);
    int64_t life = ttl_ms > (uint64_t)INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)ttl_ms;
    rg__value_head h = {.expires_ms = before_ms + rg__value_life(v, life),
                        .took_ms = took_ms,
                        .n_deps = (uint32_t)(deps.len / RG__DEP_BYTES),
                        .key_len = (uint32_t)key.len,
                        .absent = absent};
    return rg__value_block(&h, (const uint8_t *)deps.p, key, value);
}

/* A value with its sum in front. */
static void put_value(rg__buf *out, const rg__values *v, const rg__value_item *it, rg__slice value) {
    rg__buf_le64(out, rg__value_sum(rg__value_tail(v, it), value));
    rg__buf_add(out, value.p, value.len);
}

/* ---- filling ---- */

static int call_fill(const rg__values *v, const rg__ctx *ctx, const rg__value_item *it,
                     const rg__value_fill *f, redisReply **reply, rg_err *err) {
    rg__args a;
    rg__buf value = {0};
    rg__slice deps = f->tags.len ? f->tags : f->deps;
    if (!f->absent) put_value(&value, v, it, f->value);
    rg__args_init(&a);
    rg__value_args(&a, v, it, 1);
    rg__args_add(&a, f->token, 16);
    rg__args_add(&a, f->absent ? "N" : "V", 1);
    rg__args_u64(&a, f->ttl_ms);
    rg__args_u64(&a, f->stale_ms);
    rg__args_u64(&a, f->took_ms);
    rg__args_add(&a, f->tags.len ? "t" : "r", 1);
    rg__args_add(&a, deps.p ? deps.p : "", deps.len);
    rg__args_name(&a, &v->shared->deps);
    rg__args_buf(&a, &value);
    int rc = rg__shared_run(v->shared, ctx, &fill, 4, &a, reply, err);
    rg__args_deinit(&a);
    rg__buf_deinit(&value);
    if (rc == RG_OK && ((*reply)->type != REDIS_REPLY_ARRAY || (*reply)->elements != 3 ||
                        (*reply)->element[2]->type != REDIS_REPLY_STRING))
        rc = rg__fail(err, RG_ECORRUPT, "VALUE FILL answered something else");
    return rc;
}

static void keep_filled(const rg__values *v, const rg__value_item *it, const rg__value_fill *f,
                        rg__slice deps, int64_t before_ms, uint64_t dropped) {
    rg_block *b = v->process ? own_block(v, it, f->value, f->absent, f->ttl_ms, f->took_ms, deps,
                                         before_ms)
                             : NULL;
    rg__value_keep(v, it, b, dropped);
    rg_block_unref(b);
}

int rg__value_put(const rg__values *v, const rg__ctx *ctx, rg__value_item *it,
                  const rg__value_fill *f, rg_err *err) {
    int64_t before_ms = rg__now_ms();
    uint64_t dropped = rg__value_dropped(v);
    if (!v->in_redis) {
        keep_filled(v, it, f, (rg__slice){NULL, 0}, before_ms, dropped);
        return 1;
    }
    rg__ctx within = rg__ctx_finish(ctx);
    redisReply *r = NULL;
    int rc = call_fill(v, &within, it, f, &r, err);
    if (rc == RG_OK && r->element[0]->integer == 1) {
        rg__slice deps = {r->element[2]->str, (size_t)r->element[2]->len};
        keep_filled(v, it, f, deps, before_ms, dropped);
        rc = 1;
    }
    if (rc == 0) rg__count(v->shared->metrics, RG__C_VALUE_REFUSED, 1);
    freeReplyObject(r);
    return rc;
}

/* ---- deleting ---- */

int rg__value_delete(const rg__values *v, const rg__ctx *ctx, rg__value_item *items, size_t n,
                     rg_err *err) {
    int rc = 0, gone = 0;
    for (size_t at = 0; rc >= 0 && v->shared && at < n; at += RG__READ_CHUNK) {
        size_t some = n - at < RG__READ_CHUNK ? n - at : RG__READ_CHUNK;
        rg__args a;
        redisReply *r = NULL;
        rg__args_init(&a);
        rg__value_args(&a, v, items + at, some);
        rc = rg__shared_run(v->shared, ctx, &delete, (int)some + 3, &a, &r, err);
        if (rc == RG_OK) gone += (int)r->integer;
        freeReplyObject(r);
        rg__args_deinit(&a);
    }
    for (size_t i = 0; i < n; i++) drop_own(v, &items[i]);
    return rc < 0 ? rc : gone;
}

int rg__value_delete_tags(const rg__values *v, const rg__ctx *ctx, rg__slice tags, rg_err *err) {
    rg__args a;
    rg__buf keys = {0};
    redisReply *r = NULL;
    size_t n = tags.len / RG__DEP_ID, len = v->shared->deps.len + RG__DEP_ID;
    for (size_t i = 0; i < n; i++) {
        rg__buf_add(&keys, v->shared->deps.text, v->shared->deps.len);
        rg__buf_add(&keys, tags.p + i * RG__DEP_ID, RG__DEP_ID);
    }
    rg__args_init(&a);
    rg__value_args(&a, v, NULL, 0);
    for (size_t i = 0; !keys.failed && i < n; i++) rg__args_add(&a, keys.p + i * len, len);
    a.failed |= keys.failed;
    rg__args_u64(&a, TAG_MS + 2 * (uint64_t)v->lease_ms);
    int rc = rg__shared_run(v->shared, ctx, &tag, (int)n + 3, &a, &r, err);
    freeReplyObject(r);
    rg__args_deinit(&a);
    rg__buf_deinit(&keys);
    atomic_fetch_add(&v->shared->told->deps, 1);
    for (size_t i = 0; v->process && i < n; i++)
        rg__process_drop(v->process, RG__SPACE_DEPS,
                         rg__dep_hash((const uint8_t *)tags.p + i * RG__DEP_ID));
    return rc;
}

/* ---- setting ---- */

/* How many items go into one script. */
static size_t chunk_of(const rg__slice *values, size_t n) {
    size_t bytes = 0, some = 0;
    while (some < n && some < RG__READ_CHUNK && bytes < RG__CHUNK_BYTES) bytes += values[some++].len;
    return some;
}

static int call_set(const rg__values *v, const rg__ctx *ctx, const rg__value_item *items,
                    const rg__slice *values, size_t n, uint64_t ttl_ms, rg__slice tags,
                    redisReply **reply, rg_err *err) {
    rg__args a;
    rg__buf bytes = {0};
    size_t at = 0;
    for (size_t i = 0; i < n; i++) put_value(&bytes, v, &items[i], values[i]);
    rg__args_init(&a);
    rg__value_args(&a, v, items, n);
    rg__args_u64(&a, ttl_ms);
    rg__args_u64(&a, v->stale_ms);
    rg__args_add(&a, tags.p ? tags.p : "", tags.len);
    rg__args_name(&a, &v->shared->deps);
    for (size_t i = 0; !bytes.failed && i < n; at += SUM + values[i++].len)
        rg__args_add(&a, bytes.p + at, SUM + values[i].len);
    a.failed |= bytes.failed;
    int rc = rg__shared_run(v->shared, ctx, &set, (int)n + 3, &a, reply, err);
    rg__args_deinit(&a);
    rg__buf_deinit(&bytes);
    return rc;
}

/* Keeps what was set, unless somebody else has written it since the stamp. */
static void keep_set(const rg__values *v, rg__value_item *it, rg__slice value, uint64_t ttl_ms) {
    if (!v->process) return;
    rg_block *b = own_block(v, it, value, false, ttl_ms, 0, (rg__slice){NULL, 0}, rg__now_ms());
    rg__value_keep(v, it, b, 0);
    rg_block_unref(b);
}

/* The process is told of its own deletions as well, which must not drop what is kept afterwards. */
static void await_echo(const rg__values *v, uint64_t before, size_t n) {
    int64_t until_ms = rg__now_ms() + ECHO_MS;
    while (atomic_load(&v->shared->told->values) - before < n && rg__left_ms(until_ms) > 0)
        rg__sleep_ms(1);
}

/* Others are told; the values are kept here alone. */
static int set_in_process(const rg__values *v, const rg__ctx *ctx, rg__value_item *items,
                          const rg__slice *values, size_t n, uint64_t ttl_ms, rg_err *err) {
    uint64_t before = v->shared ? atomic_load(&v->shared->told->values) : 0;
    int rc = rg__value_delete(v, ctx, items, n, err);
    if (rc < 0 || !v->process) return rc;
    if (v->shared) await_echo(v, before, n);
    for (size_t i = 0; i < n; i++) {
        items[i].stamp = rg__process_stamp(v->process, v->space, items[i].hash);
        keep_set(v, &items[i], values[i], ttl_ms);
    }
    return RG_OK;
}

int rg__value_set(const rg__values *v, const rg__ctx *ctx, rg__value_item *items, const rg__slice *values,
                  size_t n, uint64_t ttl_ms, rg__slice tags, rg_err *err) {
    if (!v->in_redis) return set_in_process(v, ctx, items, values, n, ttl_ms, err);
    int rc = RG_OK;
    for (size_t at = 0; rc == RG_OK && at < n;) {
        size_t some = chunk_of(values + at, n - at);
        redisReply *r = NULL;
        rc = call_set(v, ctx, items + at, values + at, some, ttl_ms, tags, &r, err);
        freeReplyObject(r);
        at += some;
    }
    for (size_t i = 0; i < n; i++) drop_own(v, &items[i]);
    return rc < 0 ? rc : RG_OK;
}
