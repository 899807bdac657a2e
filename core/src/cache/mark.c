/* SPDX-License-Identifier: MIT */
/* Transactions and the cache: MARK before COMMIT, PUBLISH after it, UNMARK after ROLLBACK. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/broken.h"
#include "base/err.h"
#include "cache/shared.h"
#include "row/row.h"

RG__SCRIPT(mark, mark);
RG__SCRIPT(publish, publish);
RG__SCRIPT(unmark, unmark);

enum { MARKED_BYTES = 5 }; /* of MARK's answer for each key */

/* ---- what the scripts call a change ---- */

static char row_kind(const rg__change *c) {
    if (!c->type->cache_redis) return c->type->cache_process ? 't' : 'c';
    return c->before ? 'u' : 'i';
}

static char mark_kind(const rg__change *c) { return c->is_row ? row_kind(c) : 'l'; }

static char publish_kind(const rg__change *c) {
    char kind = mark_kind(c);
    if (kind == 't' || kind == 'c') return kind;
    if (kind == 'l' || !c->verified) return 'd';
    return c->after ? 'v' : 'n';
}

static void drop_from_process(rg__shared *s, const rg__change *changes, size_t n) {
    for (size_t i = 0; i < n; i++) rg__shared_drop_process(s, &changes[i].key);
}

static void add_keys(rg__args *a, const rg__shared *s, const rg__change *changes, size_t n) {
    rg__args_keys(a, s, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        a->failed |= changes[i].key.text == NULL;
        rg__args_add(a, changes[i].key.text, changes[i].key.len);
    }
}

/* ---- mark ---- */

static void add_sums(rg__buf *kinds, rg__buf *sums, const rg__change *changes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool row = changes[i].is_row && changes[i].before;
        rg__buf_char(kinds, mark_kind(&changes[i]));
        rg__buf_le64(sums, row ? rg__row_sum(changes[i].before) : 0);
    }
}

static int mark_call(rg__shared *s, const rg__ctx *ctx, const rg__txid *tx,
                     const rg__change *changes, size_t n, redisReply **reply, rg_err *err) {
    rg__args a;
    rg__buf kinds = {0}, sums = {0};
    rg__args_init(&a);
    add_sums(&kinds, &sums, changes, n);
    add_keys(&a, s, changes, n);
    rg__args_add(&a, tx->bytes, sizeof tx->bytes);
    rg__args_u64(&a, s->mark_ms);
    rg__args_buf(&a, &kinds);
    rg__args_buf(&a, &sums);
    int rc = rg__shared_run(s, ctx, &mark, (int)n + 2, &a, reply, err);
    rg__args_deinit(&a);
    rg__buf_deinit(&kinds);
    rg__buf_deinit(&sums);
    return rc;
}

/* The last of the ids: hex digits compare as bytes. */
static int fail_pending(const redisReply *r, char pending[48], rg_err *err) {
    const char *last = NULL;
    bool suspect = false;
    for (size_t i = 0; i < r->elements; i++) {
        const redisReply *id = r->element[i];
        bool sound = id->type == REDIS_REPLY_STRING && id->len >= RG__ID_HEX;
        if (sound && (!last || memcmp(id->str, last, RG__ID_HEX) > 0)) last = id->str;
        suspect |= sound && id->len > RG__ID_HEX;
    }
    char text[48];
    if (!last || !rg__id_from_hex(last, text)) memcpy(text, "0-0", 4);
    if (pending) snprintf(pending, 48, "%.46s%s", text, suspect ? "?" : "");
    rg__fail(err, RG_EPENDING, "queued writes of the same rows are not applied yet (up to %s)",
             text);
    if (err) err->retriable = 1;
    return RG_EPENDING;
}

static int mark_chunk(rg__shared *s, const rg__ctx *ctx, const rg__txid *tx, rg__change *changes,
                      size_t n, char pending[48], rg_err *err) {
    redisReply *r = NULL;
    int rc = mark_call(s, ctx, tx, changes, n, &r, err);
    if (rc == RG_OK && r->type == REDIS_REPLY_ARRAY) rc = fail_pending(r, pending, err);
    else if (rc == RG_OK && (r->type != REDIS_REPLY_STRING || (size_t)r->len != n * MARKED_BYTES))
        rc = rg__fail(err, RG_ECORRUPT, "MARK did not answer for each key");
    for (size_t i = 0; rc == RG_OK && i < n; i++) {
        changes[i].verified = r->str[i] == '1';
        memcpy(&changes[i].left_ms, r->str + n + i * sizeof(uint32_t), sizeof(uint32_t));
    }
    freeReplyObject(r);
    return rc;
}

int rg__shared_mark(rg__shared *s, const rg__ctx *ctx, rg__txid tx, rg__change *changes, size_t n,
                    char pending[48], rg_err *err) {
    rg__ctx within = rg__ctx_within(ctx, RG__MARK_BOUND_MS);
    for (size_t i = 0; i < n; i++) {
        changes[i].verified = false;
        changes[i].left_ms = 0;
    }
    if (rg__broken("mark")) return RG_OK;
    int rc = RG_OK;
    size_t at = 0;
    for (; rc == RG_OK && at < n; at += RG__WRITE_CHUNK) {
        size_t some = n - at < RG__WRITE_CHUNK ? n - at : RG__WRITE_CHUNK;
        rc = mark_chunk(s, &within, &tx, changes + at, some, pending, err);
    }
    /* a lost answer may have left marks as well: they go with those of earlier chunks */
    if (rc < 0 && (at > RG__WRITE_CHUNK || rc != RG_EPENDING))
        rg__shared_unmark(s, ctx, tx, changes, at < n ? at : n);
    drop_from_process(s, changes, n);
    return rc;
}

/* ---- publish ---- */

static size_t value_len(const rg__change *c) {
    return publish_kind(c) == 'v' ? c->after->len : 0;
}

static void publish_awaited(rg__shared *s, const rg__ctx *ctx, int nkeys, const rg__args *a) {
    redisReply *r = NULL;
    if (rg__shared_insist(s, ctx, &publish, nkeys, a, &r) == RG_OK)
        atomic_store(&s->published, rg__script_misses() + 1);
    freeReplyObject(r);
}

/* The COMMIT stands, and marks that nobody takes away expire: so the answer is not waited for where there
 * is no reason to expect any but one. Who uses the connection next comes after it. */
static bool publish_unawaited(rg__shared *s, const rg__ctx *ctx, int nkeys, const rg__args *a) {
    rg__redis *c = NULL;
    if (a->failed || atomic_load(&s->published) != rg__script_misses() + 1) return false;
    if (rg__shared_acquire(s, ctx, &c, NULL) < 0) return false;
    bool has_it = atomic_load(&s->published) == rg__script_misses() + 1; /* a new connection has asked */
    int rc = has_it ? rg__script_leave(c, ctx, &publish, nkeys, a->n, a->argv, a->lens, NULL) : -1;
    rg__redis_release(c);
    return rc == RG_OK;
}

static size_t publish_chunk(rg__shared *s, const rg__ctx *ctx, const rg__txid *tx,
                            const rg__change *changes, size_t n) {
    size_t bytes = 0, some = 0;
    while (some < n && some < RG__WRITE_CHUNK && bytes < RG__CHUNK_BYTES)
        bytes += value_len(&changes[some++]);
    rg__args a;
    rg__buf meta = {0};
    rg__args_init(&a);
    add_keys(&a, s, changes, some);
    for (size_t i = 0; i < some; i++) {
        char kind = publish_kind(&changes[i]);
        rg__buf_char(&meta, kind);
        rg__buf_le32(&meta, kind == 'n' ? changes[i].type->absent_ttl_s : changes[i].type->ttl_s);
        rg__buf_le32(&meta, kind == 'v' ? changes[i].left_ms : 0);
    }
    rg__args_add(&a, tx->bytes, sizeof tx->bytes);
    rg__args_buf(&a, &meta);
    for (size_t i = 0; i < some; i++)
        if (publish_kind(&changes[i]) == 'v')
            rg__args_add(&a, changes[i].after->data, changes[i].after->len);
    bool small = some == n && n <= RG__LEAVE_KEYS && bytes <= RG__LEAVE_BYTES;
    if (!small || !publish_unawaited(s, ctx, (int)some + 2, &a)) publish_awaited(s, ctx, (int)some + 2, &a);
    rg__args_deinit(&a);
    rg__buf_deinit(&meta);
    return some;
}

void rg__shared_publish(rg__shared *s, const rg__ctx *ctx, rg__txid tx, const rg__change *changes,
                        size_t n) {
    rg__ctx within = rg__ctx_finish(ctx);
    for (size_t at = 0; at < n;) at += publish_chunk(s, &within, &tx, changes + at, n - at);
    drop_from_process(s, changes, n);
}

/* ---- unmark ---- */

static void unmark_chunk(rg__shared *s, const rg__ctx *ctx, const rg__txid *tx,
                         const rg__change *changes, size_t n) {
    rg__args a;
    rg__buf ttls = {0};
    rg__args_init(&a);
    add_keys(&a, s, changes, n);
    for (size_t i = 0; i < n; i++) {
        rg__buf_le32(&ttls, changes[i].type->ttl_s);
        rg__buf_le32(&ttls, changes[i].type->absent_ttl_s);
        rg__buf_le32(&ttls, changes[i].left_ms);
    }
    rg__args_add(&a, tx->bytes, sizeof tx->bytes);
    rg__args_buf(&a, &ttls);
    redisReply *r = NULL;
    rg__shared_run(s, ctx, &unmark, (int)n + 2, &a, &r, NULL);
    freeReplyObject(r);
    rg__args_deinit(&a);
    rg__buf_deinit(&ttls);
}

void rg__shared_unmark(rg__shared *s, const rg__ctx *ctx, rg__txid tx, const rg__change *changes,
                       size_t n) {
    rg__ctx within = rg__ctx_finish(ctx);
    for (size_t at = 0; at < n; at += RG__WRITE_CHUNK) {
        size_t some = n - at < RG__WRITE_CHUNK ? n - at : RG__WRITE_CHUNK;
        unmark_chunk(s, &within, &tx, changes + at, some);
    }
}
