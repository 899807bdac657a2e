/* SPDX-License-Identifier: MIT */
/* The Redis tier: its names, and plain reads. */
#include "cache/shared.h"

#include <stdio.h>

#include "cache/value.h"

#include "base/alloc.h"
#include "base/err.h"

/* ---- life ---- */

static int check_prefix(const char *prefix, rg_err *err) {
    size_t len = prefix ? strlen(prefix) : 0;
    if (len == 0 || len > 64) return rg__fail_field(err, "prefix", "a prefix has 1 to 64 bytes");
    for (const char *p = prefix; *p; p++)
        if (*p <= ' ' || *p > '~' || strchr("{}", *p))
            return rg__fail_field(err, "prefix",
                                  "a prefix is printable ASCII without { } and spaces");
    return RG_OK;
}

static bool make_name(rg__name *out, const char *prefix, const char *rest) {
    rg__buf b = {0};
    rg__buf_fmt(&b, "{%s}%s", prefix, rest);
    rg__buf_cstr(&b);
    out->text = b.failed ? NULL : b.p;
    out->len = (uint32_t)b.len;
    if (b.failed) rg__buf_deinit(&b);
    return out->text != NULL;
}

static bool make_names(rg__shared *s, const char *prefix) {
    s->prefix = rg__strdup(prefix);
    return s->prefix && make_name(&s->epoch_key, prefix, ":ep") &&
           make_name(&s->life_key, prefix, ":life") && make_name(&s->marked_key, prefix, ":mz") &&
           make_name(&s->producers_key, prefix, ":ps") && make_name(&s->rows, prefix, ":e:") &&
           make_name(&s->lookups, prefix, ":l:") && make_name(&s->deps, prefix, ":d:") &&
           make_name(&s->counter_key, prefix, ":uc") && make_name(&s->agreed_key, prefix, ":out");
}

rg__shared *rg__shared_new(rg__redis_pool *pool, rg__process *process, const rg__schema *schema,
                           const char *prefix, rg__metrics *m, rg_err *err) {
    if (check_prefix(prefix, err) < 0) return NULL;
    rg__shared *s = rg__calloc(1, sizeof *s);
    if (!s) {
        rg__fail_memory(err);
        return NULL;
    }
    s->pool = pool;
    s->process = process;
    s->schema = schema;
    s->metrics = m;
    rg__random(&s->seed, sizeof s->seed);
    s->told = &s->own_told;
    rg__shared_timing(s, 0, 0);
    pthread_mutex_init(&s->forget_lock, NULL);
    if (make_names(s, prefix) && rg__key_prefixes(s) == RG_OK && rg__agree_init(s)) return s;
    rg__fail_memory(err);
    rg__shared_free(s);
    return NULL;
}

void rg__shared_free(rg__shared *s) {
    if (!s) return;
    for (uint32_t i = 0; i < s->n_forget; i++) rg__free(s->forget[i].text);
    for (uint32_t i = 0; i < s->n_types; i++) rg__free(s->row_prefixes[i].text);
    rg__free(s->row_prefixes);
    rg__free(s->values);
    rg__buf_deinit(&s->policies);
    char *const names[] = {s->prefix,          s->epoch_key.text,     s->life_key.text,
                           s->marked_key.text, s->producers_key.text, s->rows.text,
                           s->lookups.text,    s->deps.text,          s->counter_key.text,
                           s->agreed_key.text};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) rg__free(names[i]);
    pthread_mutex_destroy(&s->forget_lock);
    rg__free(s);
}

void rg__shared_join(rg__shared *s, uint64_t seed, rg__told *told) {
    s->seed = seed;
    s->told = told;
}

rg__redis_pool *rg__shared_pool(const rg__shared *s) { return s->pool; }
const char *rg__shared_prefix(const rg__shared *s) { return s->prefix; }

void rg__shared_timing(rg__shared *s, uint32_t lease_ms, uint32_t mark_ms) {
    s->lease_ms = lease_ms ? lease_ms : RG__LEASE_MS;
    s->mark_ms = mark_ms ? mark_ms : RG__MARK_MS;
}

/* ---- what all calls share ---- */

rg__ctx rg__ctx_within(const rg__ctx *ctx, int64_t ms) {
    rg__ctx c = *ctx;
    c.deadline_ms = rg__deadline_within(ctx->deadline_ms, ms);
    return c;
}

rg__ctx rg__ctx_finish(const rg__ctx *ctx) {
    rg__ctx c = *ctx;
    int64_t now = rg__now_ms();
    if (c.deadline_ms < now + RG__FINISH_MS) c.deadline_ms = now + RG__FINISH_MS;
    if (c.deadline_ms > now + RG__WRITE_BOUND_MS) c.deadline_ms = now + RG__WRITE_BOUND_MS;
    return c;
}

void rg__shared_drop_process(rg__shared *s, const rg__key *key) {
    if (!s->process) return;
    if (key->space == RG__SPACE_DEPS) atomic_fetch_add(&s->told->deps, 1);
    rg__process_drop(s->process, key->space, key->hash);
}

static void add_key(rg__args *a, const rg__key *key) {
    a->failed |= key->text == NULL;
    rg__args_add(a, key->text, key->len);
}

void rg__args_keys(rg__args *a, const rg__shared *s, const rg__key *keys, size_t n) {
    rg__args_name(a, &s->epoch_key);
    rg__args_name(a, &s->marked_key);
    for (size_t i = 0; i < n; i++) add_key(a, &keys[i]);
}

/* script NULL: a command. */
static int run_once(rg__shared *s, const rg__ctx *ctx, rg__script *script, int nkeys,
                    const rg__args *a, redisReply **reply, rg_err *err) {
    rg__redis *c = NULL;
    int rc = rg__shared_acquire(s, ctx, &c, err);
    if (rc < 0) return rc;
    rc = script ? rg__script_call(c, ctx, script, nkeys, a->n, a->argv, a->lens, reply, err)
                : rg__redis_command(c, ctx, reply, err, a->n, a->argv, a->lens);
    rg__redis_release(c);
    return rc;
}

int rg__shared_run(rg__shared *s, const rg__ctx *ctx, rg__script *script, int nkeys,
                   const rg__args *a, redisReply **reply, rg_err *err) {
    rg_err why = {0};
    int rc = RG_ENO_MEMORY;
    *reply = NULL;
    if (a->failed) return rg__fail_memory(err);
    for (int tries = 0;; tries++) {
        rc = run_once(s, ctx, script, nkeys, a, reply, &why);
        if (!rg__redis_worth_another(&why, rc, tries, ctx)) break;
    }
    if (rc < 0 && err) *err = why;
    return rc;
}

int rg__shared_command(rg__shared *s, const rg__ctx *ctx, const rg__args *a, redisReply **reply,
                       rg_err *err) {
    return rg__shared_run(s, ctx, NULL, 0, a, reply, err);
}

int rg__shared_insist(rg__shared *s, const rg__ctx *ctx, rg__script *script, int nkeys,
                      const rg__args *a, redisReply **reply) {
    for (int64_t pause = 2;; pause = pause < 32 ? pause * 2 : pause) {
        int rc = rg__shared_run(s, ctx, script, nkeys, a, reply, NULL);
        bool away = rc == RG_EUNAVAILABLE || rc == RG_ETIMEOUT;
        if (!away || rg__left_ms(ctx->deadline_ms) <= pause) return rc;
        rg__sleep_ms(pause);
    }
}

/* ---- plain reads ---- */

typedef struct reading {
    rg__shared *s;
    const rg_type *type;
    bool is_row;
    const rg__key *keys;
    size_t n;
    rg__entry *out;
    rg__redis *asked; /* owned; NULL: nothing was asked yet */
} reading;

static void take(const reading *g, size_t i, rg__slice bytes) {
    uint64_t epoch = atomic_load_explicit(&g->s->epoch, memory_order_relaxed);
    if (!rg__entry_read(g->type, g->is_row, &g->keys[i], bytes, epoch, &g->out[i]))
        rg__count(g->s->metrics, RG__C_CORRUPT_ENTRY, 1);
}

static void take_reply(const reading *g, size_t i, const redisReply *r) {
    if (r->type == REDIS_REPLY_NIL) return;
    take(g, i, (rg__slice){r->str, r->type == REDIS_REPLY_STRING ? (size_t)r->len : 0});
}

static int append_read(const reading *g, rg__redis *c, rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_add(&a, g->n == 1 ? "GET" : "MGET", g->n == 1 ? 3 : 4);
    for (size_t i = 0; i < g->n; i++) add_key(&a, &g->keys[i]);
    int rc = a.failed ? rg__fail_memory(err) : rg__redis_append(c, a.n, a.argv, a.lens, err);
    rg__args_deinit(&a);
    return rc;
}

/* WRONGTYPE: something else stands there, which is not well-formed. */
static int check_reply(const reading *g, const redisReply *r, rg_err *err) {
    if (r->type == REDIS_REPLY_ERROR) return rg__redis_error(r, err) == RG_EREDIS && g->n == 1 ? RG_OK : err->code;
    if (g->n > 1 && (r->type != REDIS_REPLY_ARRAY || r->elements != g->n))
        return rg__fail(err, RG_ECORRUPT, "MGET did not answer for each key");
    return RG_OK;
}

static void take_element(void *arg, size_t i, const char *p, size_t len) {
    const reading *g = arg;
    if (p && i < g->n) take(g, i, (rg__slice){p, len});
}

static void forget(const reading *g) {
    for (size_t i = 0; i < g->n; i++) rg__entry_deinit(&g->out[i]);
    memset(g->out, 0, g->n * sizeof *g->out);
}

static int ask(rg__redis *c, const rg__ctx *ctx, const rg__key *keys, size_t n, rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_add(&a, "MGET", 4);
    for (size_t i = 0; i < n; i++) add_key(&a, &keys[i]);
    int rc = a.failed ? rg__fail_memory(err) : rg__redis_ask(c, ctx, err, a.n, a.argv, a.lens);
    rg__args_deinit(&a);
    return rc;
}

/* An MGET whose elements are taken as they are parsed: the epoch is known. */
static int gather(const reading *g, rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    reading to = *g;
    const rg__redis_sink sink = {take_element, &to};
    int rc = g->asked ? RG_OK : ask(c, ctx, g->keys, g->n, err);
    if (rc >= 0) rc = rg__redis_gather_asked(c, ctx, &sink, g->n, err);
    if (rc < 0) forget(g);
    return rc;
}

/* One exchange. The epoch is known before anything is taken. */
static int exchange(const reading *g, rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    bool due = !g->asked && rg__life_due(g->s, c);
    if (!due && g->n > 1) return gather(g, c, ctx, err);
    redisReply *r = NULL;
    int rc = append_read(g, c, err);
    if (rc == RG_OK && due) rc = rg__life_append(g->s, c, err);
    if (rc == RG_OK) rc = rg__redis_reply(c, ctx, &r, err);
    if (rc == RG_OK && due) rc = rg__life_take(g->s, c, ctx, err);
    if (rc == RG_OK) rc = check_reply(g, r, err);
    for (size_t i = 0; rc == RG_OK && i < g->n; i++) take_reply(g, i, g->n == 1 ? r : r->element[i]);
    freeReplyObject(r);
    return rc;
}

/* Where it was asked already, else on a connection of the pool. */
static int read_once(reading *g, const rg__ctx *ctx, rg_err *err) {
    rg__redis *c = g->asked;
    int rc = c ? RG_OK : rg__redis_acquire(g->s->pool, ctx, &c, err);
    if (rc < 0) return rc;
    rc = exchange(g, c, ctx, err);
    rg__redis_release(c);
    g->asked = NULL;
    return rc;
}

static void read_chunk(reading *g, const rg__ctx *ctx) {
    rg_err err = {0};
    bool patient = rg__left_ms(ctx->deadline_ms) > RG__READ_BOUND_MS / 2;
    bool away = !g->asked && rg__breaker_open(g->s);
    int rc = away ? RG_EUNAVAILABLE : read_once(g, ctx, &err);
    for (int tries = 0; rg__redis_worth_another(&err, rc, tries, ctx); tries++)
        rc = read_once(g, ctx, &err);
    if (rc >= 0 || (rc == RG_ETIMEOUT && patient)) rg__breaker_note(g->s, rc < 0);
    for (size_t i = 0; rc < 0 && i < g->n; i++) {
        rg__entry_deinit(&g->out[i]);
        g->out[i].found = RG__BYPASS;
    }
}

static void count_found(rg__shared *s, const rg__entry *out, size_t n) {
    size_t missed = 0, bypassed = 0;
    for (size_t i = 0; i < n; i++) {
        missed += out[i].found == RG__MISS;
        bypassed += out[i].found == RG__BYPASS;
    }
    if (missed) rg__count(s->metrics, RG__C_REDIS_MISS, missed);
    if (bypassed) rg__count(s->metrics, RG__C_REDIS_BYPASS, bypassed);
    if (n > missed + bypassed) rg__count(s->metrics, RG__C_REDIS_HIT, n - missed - bypassed);
}

void rg__shared_get_asked(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                          const rg__key *keys, size_t n, rg__entry *out, rg__redis *asked) {
    rg__ctx within = rg__ctx_within(ctx, RG__READ_BOUND_MS);
    memset(out, 0, n * sizeof *out);
    for (size_t at = 0; at < n; at += RG__READ_CHUNK) {
        size_t some = n - at < RG__READ_CHUNK ? n - at : RG__READ_CHUNK;
        reading g = {s, t, is_row, keys + at, some, out + at, at ? NULL : asked};
        read_chunk(&g, &within);
    }
    count_found(s, out, n);
}

void rg__shared_get(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                    const rg__key *keys, size_t n, rg__entry *out) {
    rg__shared_get_asked(s, ctx, t, is_row, keys, n, out, NULL);
}

_Static_assert((int)RG__ASK_MOST == (int)RG__READ_CHUNK, "what is asked ahead is one command");

rg__redis *rg__shared_ask(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n) {
    if (n < 2 || n > RG__ASK_MOST || rg__breaker_open(s)) return NULL;
    rg__redis *c = rg__redis_acquire_idle(s->pool);
    if (!c) return NULL;
    if (!rg__life_due(s, c) && ask(c, ctx, keys, n, NULL) == RG_OK) return c;
    rg__redis_release(c);
    return NULL;
}

void rg__shared_leave(rg__redis *asked, const rg__ctx *ctx) {
    (void)rg__redis_leave(asked, ctx, NULL);
    rg__redis_release(asked);
}
