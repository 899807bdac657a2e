/* SPDX-License-Identifier: MIT */
/* Value caches: asking Redis, and being given leases. */
#include <math.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"
#include "cache/value_block.h"
#include "row/scalar.h"

RG__VALUE_SCRIPT(take);
RG__VALUE_SCRIPT(unlease);

enum {
    AT_TOOK = 17,
    AT_N_DEPS = 53,
    AT_DEPS = 54,
    SUM = 8,
    PAUSE_MIN_MS = 2,
    PAUSE_MAX_MS = 50,
};

void rg__value_args(rg__args *a, const rg__values *v, const rg__value_item *items, size_t n) {
    rg__args_keys(a, v->shared, NULL, 0);
    rg__args_name(a, &v->shared->counter_key);
    for (size_t i = 0; i < n; i++) rg__args_add(a, items[i].text, items[i].len);
}

uint64_t rg__value_sum(rg__slice key, rg__slice value) {
    return XXH3_64bits_withSeed(value.p, value.len, XXH3_64bits(key.p, key.len));
}

/* ---- entries ---- */

/* The entry as the process tier keeps it; NULL when it is damaged. */
static rg_block *read_entry(const rg__values *v, const rg__value_item *it, rg__slice e,
                            int64_t redis_ms, int64_t before_ms) {
    if (e.len < AT_DEPS) return NULL;
    size_t n_deps = (uint8_t)e.p[AT_N_DEPS], at = AT_DEPS + n_deps * RG__DEP_BYTES;
    bool absent = e.p[0] == 'N';
    if (e.len < at + (absent ? 0 : SUM)) return NULL;
    rg__slice key = rg__value_tail(v, it), value = {NULL, 0};
    if (!absent) {
        value = (rg__slice){e.p + at + SUM, e.len - at - SUM};
        uint64_t sum = rg__value_sum(key, value);
        if (memcmp(&sum, e.p + at, SUM) != 0) return NULL;
    }
    uint64_t fresh;
    memcpy(&fresh, e.p + RG__AT_VALUE, sizeof fresh);
    rg__value_head h = {.expires_ms = before_ms + rg__value_life(v, (int64_t)fresh - redis_ms),
                        .n_deps = (uint32_t)n_deps,
                        .key_len = (uint32_t)key.len,
                        .absent = absent};
    memcpy(&h.took_ms, e.p + AT_TOOK, sizeof h.took_ms);
    return rg__value_block(&h, (const uint8_t *)e.p + AT_DEPS, key, value);
}

/* ---- one script ---- */

typedef struct asking {
    const rg__values *v;
    rg__value_take *t;
    rg__value_item *items;
    size_t *open;          /* numbers of items that are asked for */
    size_t n;
    rg__value_item *asked; /* these, one after the other: keys only */
    bool failed;
} asking;

static int found_of(char status) {
    switch (status) {
    case 'v': return RG_CACHED_VALUE;
    case 's': return RG_CACHED_REFRESH;
    case 'o': return RG_CACHED_STALE;
    case 'g': return RG_CACHED_LEASED;
    case 'w': return RG_CACHED_WAIT;
    case 'b': return RG_CACHED_BYPASS;
    default: return RG_CACHED_NONE;
    }
}

/* A damaged value is as good as none: whoever leases it may write over it. */
static bool take_one(asking *k, rg__value_item *it, char status, rg__slice e, int64_t redis_ms,
                     int64_t before_ms, uint64_t dropped) {
    const rg__values *v = k->v;
    it->found = found_of(status);
    if (status != 'v' && status != 's' && status != 'o') return true;
    it->block = read_entry(v, it, e, redis_ms, before_ms);
    if (!it->block) return false;
    it->absent = rg__value_head_of(it->block).absent;
    if (status == 'v') rg__value_keep(v, it, it->block, dropped);
    if (status == 'v' && it->absent) it->found = RG_CACHED_ABSENT;
    return true;
}

static void count(rg__metrics *m, int found) {
    static const rg__counter of[] = {
        [RG_CACHED_NONE] = RG__C_VALUE_MISS,         [RG_CACHED_VALUE] = RG__C_VALUE_REDIS_HIT,
        [RG_CACHED_ABSENT] = RG__C_VALUE_REDIS_HIT,  [RG_CACHED_STALE] = RG__C_VALUE_STALE,
        [RG_CACHED_REFRESH] = RG__C_VALUE_STALE,     [RG_CACHED_LEASED] = RG__C_VALUE_MISS,
        [RG_CACHED_WAIT] = RG__C_VALUE_WAIT,         [RG_CACHED_BYPASS] = RG__C_VALUE_BYPASS,
    };
    rg__count(m, of[found], 1);
}

static int call(asking *k, const rg__ctx *ctx, redisReply **reply) {
    const rg__values *v = k->v;
    char early[RG__NUMBER_MAX];
    rg__args a;
    rg__args_init(&a);
    rg__value_args(&a, v, k->asked, k->n);
    rg__args_add(&a, k->t->lease ? "l" : "p", 1);
    rg__args_add(&a, k->t->token, sizeof k->t->token);
    rg__args_u64(&a, v->lease_ms);
    rg__args_add(&a, early, rg__number_format(k->t->early, false, early));
    rg__args_u64(&a, v->sliding ? v->ttl_ms : 0);
    rg__args_name(&a, &v->shared->deps);
    rg__args_add(&a, k->t->ids.p ? k->t->ids.p : "", k->t->ids.len);
    rg__args_u64(&a, rg__value_mark_ms(v->shared));
    int rc = rg__shared_run(v->shared, ctx, &take, (int)k->n + 3, &a, reply, NULL);
    rg__args_deinit(&a);
    if (rc == RG_OK && ((*reply)->type != REDIS_REPLY_ARRAY ||
                        (*reply)->elements != 2 + 2 * k->n ||
                        (*reply)->element[0]->type != REDIS_REPLY_INTEGER))
        rc = RG_ECORRUPT;
    return rc;
}

static void take_generations(asking *k, const redisReply *r) {
    size_t want = k->t->ids.len / RG__DEP_ID * 9;
    if (want && r->type == REDIS_REPLY_STRING && (size_t)r->len == want)
        memcpy(k->t->generations, r->str, want);
    else if (want) k->failed = true;
}

/* Asks for the open items; those that others load, and damaged ones, stay open. Negative: Redis
 * cannot be asked. */
static int ask(asking *k, const rg__ctx *ctx, bool *damaged) {
    redisReply *r = NULL;
    int64_t before_ms = rg__now_ms();
    uint64_t dropped = rg__value_dropped(k->v);
    for (size_t i = 0; i < k->n; i++) k->asked[i] = k->items[k->open[i]];
    int rc = call(k, ctx, &r);
    size_t kept = 0;
    if (rc == RG_OK) take_generations(k, r->element[1]);
    for (size_t i = 0; rc == RG_OK && i < k->n; i++) {
        const redisReply *s = r->element[2 + 2 * i], *e = r->element[3 + 2 * i];
        bool sound = s->type == REDIS_REPLY_STRING && s->len && e->type == REDIS_REPLY_STRING;
        rg__value_item *it = &k->items[k->open[i]];
        if (!sound || !take_one(k, it, s->str[0], (rg__slice){e->str, (size_t)e->len},
                                r->element[0]->integer, before_ms, dropped)) {
            it->found = RG_CACHED_NONE;
            *damaged = true;
        } else if (it->found != RG_CACHED_WAIT) {
            continue;
        }
        k->open[kept++] = k->open[i];
    }
    freeReplyObject(r);
    if (rc == RG_OK) k->n = kept;
    return rc;
}

/* ---- damaged values ---- */

static void drop_damaged(asking *k, const rg__ctx *ctx) {
    for (size_t i = 0; i < k->n; i++) {
        rg__value_item *it = &k->items[k->open[i]];
        if (it->found != RG_CACHED_NONE) continue;
        rg__count(k->v->shared->metrics, RG__C_CORRUPT_ENTRY, 1);
        rg__value_delete(k->v, ctx, it, 1, NULL);
        if (k->v->process) it->stamp = rg__process_stamp(k->v->process, k->v->space, it->hash);
    }
}

/* Some of the open ones were damaged, and have been dropped: asked again once. */
static int mend(asking *k, const rg__ctx *ctx, bool *mended) {
    bool damaged = false;
    if (*mended) return RG_OK;
    *mended = true;
    drop_damaged(k, ctx);
    return ask(k, ctx, &damaged);
}

static bool granted(const asking *k, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (k->items[i].found == RG_CACHED_LEASED) return true;
    return false;
}

/* Who holds a lease does not wait for others. */
static int ask_until(asking *k, const rg__ctx *ctx, size_t n, int64_t until_ms) {
    bool mended = false;
    for (int64_t pause = PAUSE_MIN_MS;; pause = pause * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause * 2) {
        bool damaged = false;
        rg__ctx within = rg__ctx_within(ctx, RG__READ_BOUND_MS);
        int rc = ask(k, &within, &damaged);
        if (rc == RG_OK && damaged) rc = mend(k, &within, &mended);
        int left = rg__left_ms(until_ms);
        if (rc < 0 || k->n == 0 || left == 0 || granted(k, n)) return rc;
        rg__sleep_ms(pause < left ? pause : left);
    }
}

static void settle(asking *k, size_t n, bool failed) {
    for (size_t i = 0; i < n; i++) {
        rg__value_item *it = &k->items[i];
        if (failed && (it->found == RG_CACHED_NONE || it->found == RG_CACHED_WAIT))
            it->found = RG_CACHED_BYPASS;
        count(k->v->shared->metrics, it->found);
    }
}

static bool open_all(asking *k, size_t n) {
    k->open = rg__reallocarray(NULL, n, sizeof *k->open);
    k->asked = rg__reallocarray(NULL, n, sizeof *k->asked);
    if (!k->open || !k->asked) return false;
    for (size_t i = 0; i < n; i++)
        if (k->items[i].found == RG_CACHED_NONE && k->items[i].text) k->open[k->n++] = i;
    return true;
}

void rg__value_ask(const rg__values *v, const rg__ctx *ctx, rg__value_take *t, rg__value_item *items,
                   size_t n, uint32_t wait_ms) {
    asking k = {.v = v, .t = t, .items = items};
    int64_t until_ms = wait_ms ? rg__deadline_within(ctx->deadline_ms, wait_ms) : rg__now_ms();
    bool ok = open_all(&k, n);
    if (ok && k.n > 0) ok = ask_until(&k, ctx, n, until_ms) == RG_OK && !k.failed;
    settle(&k, n, !ok);
    rg__free(k.open);
    rg__free(k.asked);
}

void rg__value_unlease(const rg__values *v, const rg__ctx *ctx, const uint8_t *token,
                       rg__value_item *items, size_t n) {
    rg__ctx within = rg__ctx_finish(ctx);
    rg__args a;
    redisReply *r = NULL;
    if (!v->shared) return;
    rg__args_init(&a);
    rg__value_args(&a, v, items, n);
    rg__args_add(&a, token, RG__DEP_ID);
    rg__shared_run(v->shared, &within, &unlease, (int)n + 3, &a, &r, NULL);
    freeReplyObject(r);
    rg__args_deinit(&a);
}
