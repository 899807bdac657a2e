/* SPDX-License-Identifier: MIT */
/* Value caches in transactions: marks before COMMIT, values after it. */
#include "base/alloc.h"
#include "base/err.h"
#include "cache/value_block.h"

RG__VALUE_SCRIPT(mark);
RG__VALUE_SCRIPT(publish);
RG__VALUE_SCRIPT(unmark);

enum { MARKS_TIMES = 2, META = 17 };

/* Twice as long as those of rows, a minute as a rule. */
uint64_t rg__value_mark_ms(const rg__shared *s) { return (uint64_t)s->mark_ms * MARKS_TIMES; }

/* ---- the list ---- */

static int name_tag(rg__value_change *ch, rg__slice tag) {
    const rg__shared *s = ch->v->shared;
    uint8_t id[RG__DEP_ID];
    rg__dep_id(ch->v->name, tag, id);
    ch->item.text = rg__malloc(s->deps.len + sizeof id + 1);
    if (!ch->item.text) return RG_ENO_MEMORY;
    memcpy(ch->item.text, s->deps.text, s->deps.len);
    memcpy(ch->item.text + s->deps.len, id, sizeof id);
    ch->item.len = s->deps.len + RG__DEP_ID;
    ch->item.hash = rg__dep_hash(id);
    return RG_OK;
}

static int name_key(rg__value_change *ch, rg__slice key) {
    rg__buf_add(&ch->key, key.p, key.len);
    if (ch->key.failed) return RG_ENO_MEMORY;
    ch->item.key = (rg__slice){ch->key.p, ch->key.len};
    return rg__value_name(ch->v, &ch->item);
}

static void deinit(rg__value_change *ch) {
    rg__value_item_deinit(&ch->item);
    rg__buf_deinit(&ch->key);
    rg__buf_deinit(&ch->value);
    rg__buf_deinit(&ch->tags);
}

rg__value_change *rg__value_change_add(rg__value_changes *c, const rg__values *v, rg__value_do what,
                                       rg__slice key_or_tag) {
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 4;
        rg__value_change *p = rg__reallocarray(c->items, cap, sizeof *p);
        if (!p) return NULL;
        c->items = p;
        c->cap = cap;
    }
    rg__value_change *ch = &c->items[c->n];
    *ch = (rg__value_change){.v = v, .what = what, .ttl_ms = v->ttl_ms};
    int rc = what == RG__VALUE_DELETE_TAG ? name_tag(ch, key_or_tag) : name_key(ch, key_or_tag);
    if (rc < 0) {
        deinit(ch);
        return NULL;
    }
    c->n++;
    return ch;
}

void rg__value_changes_deinit(rg__value_changes *c) {
    for (size_t i = 0; i < c->n; i++) deinit(&c->items[i]);
    rg__free(c->items);
    *c = (rg__value_changes){0};
}

/* ---- calls: some changes of one Redis pool ---- */

/* Which ones a call is about. */
typedef enum some { TO_MARK, MARKED_TAGS, MARKED_VALUES, MARKED } some;

typedef struct batch {
    rg__shared *shared;
    rg__value_change **items;
    size_t n, bytes;
} batch;

static bool is_wanted(const rg__value_change *ch, const rg__shared *s, some which) {
    if (ch->v->shared != s) return false;
    switch (which) {
    case TO_MARK: return true;
    case MARKED: return ch->marked && ch->v->in_redis;
    case MARKED_TAGS: return ch->marked && ch->what == RG__VALUE_DELETE_TAG;
    case MARKED_VALUES: return ch->marked && ch->v->in_redis && ch->what != RG__VALUE_DELETE_TAG;
    }
    return false;
}

/* The next ones from *at on, no more than one script takes. */
static bool gather(const rg__value_changes *c, some which, batch *b, size_t *at) {
    b->n = b->bytes = 0;
    for (; *at < c->n && b->n < RG__READ_CHUNK && b->bytes < RG__CHUNK_BYTES; (*at)++) {
        rg__value_change *ch = &c->items[*at];
        if (!is_wanted(ch, b->shared, which)) continue;
        b->items[b->n++] = ch;
        b->bytes += ch->value.len;
    }
    return b->n > 0;
}

static void begin_args(rg__args *a, const batch *b) {
    rg__args_init(a);
    rg__args_keys(a, b->shared, NULL, 0);
    rg__args_name(a, &b->shared->counter_key);
    for (size_t i = 0; i < b->n; i++) rg__args_add(a, b->items[i]->item.text, b->items[i]->item.len);
}

/* What this process has of them; of tags, all that carries them. */
static void drop_here(const batch *b) {
    for (size_t i = 0; i < b->n; i++) {
        const rg__value_change *ch = b->items[i];
        bool tag = ch->what == RG__VALUE_DELETE_TAG;
        if (tag) atomic_fetch_add(&b->shared->told->deps, 1);
        if (ch->v->process) rg__process_drop(ch->v->process, tag ? RG__SPACE_DEPS : ch->v->space, ch->item.hash);
    }
}

static int call_mark(const batch *b, const rg__ctx *ctx, const rg__txid *tx, rg_err *err) {
    rg__args a;
    rg__buf kinds = {0};
    redisReply *r = NULL;
    begin_args(&a, b);
    for (size_t i = 0; i < b->n; i++) rg__buf_char(&kinds, b->items[i]->v->in_redis ? 'm' : 't');
    rg__args_add(&a, tx->bytes, sizeof tx->bytes);
    rg__args_u64(&a, rg__value_mark_ms(b->shared));
    rg__args_buf(&a, &kinds);
    int rc = rg__shared_run(b->shared, ctx, &mark, (int)b->n + 3, &a, &r, err);
    freeReplyObject(r);
    rg__args_deinit(&a);
    rg__buf_deinit(&kinds);
    return rc;
}

static void add_meta(rg__buf *meta, const rg__value_change *ch, const rg__shared *s) {
    static const char kinds[] = {[RG__VALUE_SET] = 's', [RG__VALUE_DELETE] = 'd', [RG__VALUE_DELETE_TAG] = 'g'};
    bool tag = ch->what == RG__VALUE_DELETE_TAG;
    rg__buf_char(meta, kinds[ch->what]);
    rg__buf_le64(meta, tag ? rg__value_mark_ms(s) + 2 * (uint64_t)ch->v->lease_ms : ch->ttl_ms);
    rg__buf_le64(meta, ch->v->stale_ms);
    rg__buf_add(meta, ch->tags.p, ch->tags.len);
}

static void add_value(rg__buf *out, const rg__value_change *ch) {
    rg__slice value = {ch->value.p, ch->value.len};
    rg__buf_le64(out, rg__value_sum(rg__value_tail(ch->v, &ch->item), value));
    rg__buf_add(out, value.p, value.len);
}

/* Bytes of all first, as they may move while they are added. */
static void call_publish(const batch *b, const rg__ctx *ctx, const rg__txid *tx) {
    rg__args a;
    rg__buf bytes = {0};
    redisReply *r = NULL;
    for (size_t i = 0; i < b->n; i++) {
        add_meta(&bytes, b->items[i], b->shared);
        if (b->items[i]->what == RG__VALUE_SET) add_value(&bytes, b->items[i]);
    }
    begin_args(&a, b);
    rg__args_add(&a, tx->bytes, sizeof tx->bytes);
    rg__args_name(&a, &b->shared->deps);
    for (size_t i = 0, at = 0; !bytes.failed && i < b->n; i++) {
        const rg__value_change *ch = b->items[i];
        size_t meta = META + ch->tags.len, value = sizeof(uint64_t) + ch->value.len;
        rg__args_add(&a, bytes.p + at, meta);
        at += meta;
        if (ch->what != RG__VALUE_SET) continue;
        rg__args_add(&a, bytes.p + at, value);
        at += value;
    }
    a.failed |= bytes.failed;
    rg__shared_insist(b->shared, ctx, &publish, (int)b->n + 3, &a, &r);
    freeReplyObject(r);
    rg__args_deinit(&a);
    rg__buf_deinit(&bytes);
}

static void call_unmark(const batch *b, const rg__ctx *ctx, const rg__txid *tx) {
    rg__args a;
    redisReply *r = NULL;
    begin_args(&a, b);
    rg__args_add(&a, tx->bytes, sizeof tx->bytes);
    rg__shared_run(b->shared, ctx, &unmark, (int)b->n + 3, &a, &r, NULL);
    freeReplyObject(r);
    rg__args_deinit(&a);
}

/* ---- all of them ---- */

/* The next Redis pool by address, NULL at the end. */
static rg__shared *pool_after(const rg__value_changes *c, const rg__shared *last) {
    rg__shared *next = NULL;
    for (size_t i = 0; i < c->n; i++) {
        rg__shared *s = c->items[i].v->shared;
        if (s && (uintptr_t)s > (uintptr_t)last && (!next || (uintptr_t)s < (uintptr_t)next)) next = s;
    }
    return next;
}

static int mark_pool(rg__value_changes *c, const rg__ctx *ctx, const rg__txid *tx, batch *b, rg_err *err) {
    rg__ctx within = rg__ctx_within(ctx, RG__MARK_BOUND_MS);
    int rc = RG_OK;
    for (size_t at = 0; rc >= 0 && gather(c, TO_MARK, b, &at);) {
        for (size_t i = 0; i < b->n; i++) b->items[i]->marked = true;
        rc = call_mark(b, &within, tx, err);
        drop_here(b);
    }
    if (rc < 0)
        rg__err_prefix(err, "the values in Redis pool %s cannot be told, so that nothing is written: ",
                       rg__redis_pool_name(rg__shared_pool(b->shared)));
    return rc;
}

int rg__value_changes_mark(rg__value_changes *c, const rg__ctx *ctx, rg__txid tx, rg_err *err) {
    if (!c || c->n == 0) return RG_OK;
    batch b = {.items = rg__reallocarray(NULL, RG__READ_CHUNK, sizeof(rg__value_change *))};
    if (!b.items) return rg__fail_memory(err);
    int rc = RG_OK;
    while (rc >= 0 && (b.shared = pool_after(c, b.shared))) rc = mark_pool(c, ctx, &tx, &b, err);
    rg__free(b.items);
    if (rc < 0) rg__value_changes_unmark(c, ctx, tx);
    return rc;
}

/* Those that live in processes alone are kept or dropped here, and the others are told. */
static void publish_here(rg__value_change *ch, const rg__ctx *ctx) {
    rg__slice value = {ch->value.p ? ch->value.p : "", ch->value.len};
    if (ch->v->in_redis) return;
    if (ch->what == RG__VALUE_SET)
        rg__value_set(ch->v, ctx, &ch->item, &value, 1, ch->ttl_ms, (rg__slice){"", 0}, NULL);
    else
        rg__value_delete(ch->v, ctx, &ch->item, 1, NULL);
}

/* Generations first: what the transaction has set after it deleted a tag carries the new one. */
void rg__value_changes_publish(rg__value_changes *c, const rg__ctx *ctx, rg__txid tx) {
    static const some order[] = {MARKED_TAGS, MARKED_VALUES};
    if (!c || c->n == 0) return;
    rg__ctx within = rg__ctx_finish(ctx);
    batch b = {.items = rg__reallocarray(NULL, RG__READ_CHUNK, sizeof(rg__value_change *))};
    while (b.items && (b.shared = pool_after(c, b.shared)))
        for (int k = 0; k < 2; k++)
            for (size_t at = 0; gather(c, order[k], &b, &at);) {
                call_publish(&b, &within, &tx);
                drop_here(&b);
            }
    for (size_t i = 0; i < c->n; i++) publish_here(&c->items[i], &within);
    rg__free(b.items);
}

void rg__value_changes_unmark(rg__value_changes *c, const rg__ctx *ctx, rg__txid tx) {
    if (!c || c->n == 0) return;
    rg__ctx within = rg__ctx_finish(ctx);
    batch b = {.items = rg__reallocarray(NULL, RG__READ_CHUNK, sizeof(rg__value_change *))};
    while (b.items && (b.shared = pool_after(c, b.shared)))
        for (size_t at = 0; gather(c, MARKED, &b, &at);) call_unmark(&b, &within, &tx);
    rg__free(b.items);
}
