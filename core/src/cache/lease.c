/* SPDX-License-Identifier: MIT */
/* Leases: who may fill after a miss, the fill, and giving them back. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/shared.h"

RG__SCRIPT(lease, lease);
RG__SCRIPT(fill, fill);
RG__SCRIPT(unlease, unlease);

/* ---- asking ---- */

/* One rg__shared_lease. */
typedef struct asking {
    rg__shared *s;
    const rg_type *type;
    bool is_row;
    const rg__key *keys;
    rg__entry *out;
    uint8_t token[16];
    size_t *open;    /* numbers of the keys without an answer yet */
    size_t n_open;
    char *replace;   /* by number of key: '1' when its value failed the check */
    bool granted;    /* something was granted to us */
} asking;

static bool grant(asking *k, rg__entry *e, bool heal) {
    e->found = RG__MISS;
    e->lease = (rg__lease){.held = true, .heal = heal};
    memcpy(e->lease.token, k->token, sizeof k->token);
    k->granted = true;
    return true;
}

/* A value that fails its check is asked for again, to be replaced. */
static bool take_value(asking *k, size_t i, const redisReply *r, uint64_t epoch) {
    rg__slice bytes = {r->str, (size_t)r->len};
    if (rg__entry_read(k->type, k->is_row, &k->keys[i], bytes, epoch, &k->out[i])) return true;
    bool first = k->replace[i] == '0';
    k->replace[i] = '1';
    if (k->out[i].found == RG__MISS && first) return false;
    rg__count(k->s->metrics, RG__C_CORRUPT_ENTRY, 1);
    k->out[i].found = RG__BYPASS;
    return true;
}

/* True when the key has its answer. */
static bool take(asking *k, size_t i, const redisReply *r, uint64_t epoch) {
    if (r->type != REDIS_REPLY_STRING || r->len == 0) return false;
    switch (r->str[0]) {
    case 'g': return grant(k, &k->out[i], false);
    case 'h': return grant(k, &k->out[i], true);
    case 'w': return false;
    case 'b': k->out[i].found = RG__BYPASS; return true;
    default: return take_value(k, i, r, epoch);
    }
}

static int ask_chunk(asking *k, const rg__ctx *ctx, const size_t *numbers, size_t n,
                     redisReply **reply) {
    rg__args a;
    char replace[RG__READ_CHUNK];
    rg__args_init(&a);
    rg__args_keys(&a, k->s, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        const rg__key *key = &k->keys[numbers[i]];
        a.failed |= key->text == NULL;
        rg__args_add(&a, key->text, key->len);
        replace[i] = k->replace[numbers[i]];
    }
    rg__args_add(&a, k->token, sizeof k->token);
    rg__args_u64(&a, k->s->lease_ms);
    rg__args_add(&a, replace, n);
    int rc = rg__shared_run(k->s, ctx, &lease, (int)n + 2, &a, reply, NULL);
    rg__args_deinit(&a);
    return rc;
}

static bool is_answer(const redisReply *r, size_t n) {
    return r->type == REDIS_REPLY_ARRAY && r->elements == n + 1 &&
           r->element[0]->type == REDIS_REPLY_STRING && r->element[0]->len == 8;
}

/* Asks for open[from, from+n); keeps those without an answer at open[kept]. Negative: Redis fails.
 */
static int ask_some(asking *k, const rg__ctx *ctx, size_t from, size_t n, size_t *kept) {
    redisReply *r = NULL;
    int rc = ask_chunk(k, ctx, k->open + from, n, &r);
    if (rc == RG_OK && !is_answer(r, n)) rc = RG_ECORRUPT;
    if (rc == RG_OK) {
        uint64_t epoch = rg__epoch_of(r->element[0]->str);
        rg__shared_learn(k->s, epoch);
        for (size_t i = 0; i < n; i++) {
            size_t number = k->open[from + i];
            if (!take(k, number, r->element[i + 1], epoch)) k->open[(*kept)++] = number;
        }
    }
    freeReplyObject(r);
    return rc;
}

static int ask(asking *k, const rg__ctx *ctx) {
    size_t kept = 0, n = k->n_open;
    for (size_t at = 0; at < n; at += RG__READ_CHUNK) {
        size_t some = n - at < RG__READ_CHUNK ? n - at : RG__READ_CHUNK;
        int rc = ask_some(k, ctx, at, some, &kept);
        if (rc < 0) return rc;
    }
    k->n_open = kept;
    return RG_OK;
}

static bool replacing(const asking *k) {
    for (size_t i = 0; i < k->n_open; i++)
        if (k->replace[k->open[i]] == '1') return true;
    return false;
}

/* Values that failed their check are asked for again at once; then others' leases are waited for,
 * unless we hold some ourselves. */
static void ask_until(asking *k, const rg__ctx *ctx) {
    int64_t until = rg__deadline_within(ctx->deadline_ms, RG__LEASE_WAIT_MS);
    int64_t pause = 1;
    bool replaced = false;
    while (ask(k, ctx) == RG_OK && k->n_open > 0) {
        if (!replaced && replacing(k)) {
            replaced = true;
            continue;
        }
        if (k->granted || rg__left_ms(until) == 0) return;
        rg__sleep_ms(pause < rg__left_ms(until) ? pause : rg__left_ms(until));
        pause = pause < 8 ? pause * 2 : 10;
    }
}

static bool asking_init(asking *k, size_t n) {
    k->open = rg__reallocarray(NULL, n, sizeof *k->open);
    k->replace = rg__malloc(n);
    if (!k->open || !k->replace) return false;
    memset(k->replace, '0', n);
    rg__random(k->token, sizeof k->token);
    for (size_t i = 0; i < n; i++)
        if (k->out[i].found == RG__MISS && !k->out[i].lease.held) k->open[k->n_open++] = i;
    return true;
}

static void bypass_open(rg__shared *s, rg__entry *out, size_t n) {
    size_t bypassed = 0;
    for (size_t i = 0; i < n; i++) {
        if (out[i].found == RG__MISS && !out[i].lease.held) out[i].found = RG__BYPASS;
        bypassed += out[i].found == RG__BYPASS;
    }
    if (bypassed) rg__count(s->metrics, RG__C_REDIS_BYPASS, bypassed);
}

void rg__shared_lease(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                      const rg__key *keys, size_t n, rg__entry *out) {
    rg__ctx within = rg__ctx_within(ctx, RG__READ_BOUND_MS);
    asking k = {.s = s, .type = t, .is_row = is_row, .keys = keys, .out = out};
    if (asking_init(&k, n) && k.n_open > 0) ask_until(&k, &within);
    rg__free(k.open);
    rg__free(k.replace);
    bypass_open(s, out, n);
}

/* ---- filling ---- */

/* Which of the entries go into one script call. */
typedef struct filling {
    bool is_row, unique;
    rg__args args;
    rg__buf kinds, tokens;
    size_t numbers[RG__READ_CHUNK];
    size_t n, bytes;
} filling;

static bool fillable(const rg__entry *e, bool locking) {
    return e->found == RG__MISS && e->lease.held && (locking || !e->lease.heal);
}

/* That nobody has a unique value is an absence, though a list without ids: it lives as shortly. */
static char kind_of(const filling *f, const rg_block *b) {
    if (f->is_row) return b ? 'v' : 'n';
    return f->unique && (!b || b->len == 0) ? 'e' : 'v';
}

/* Gathers from *at on, at most a chunk. */
static void gather(filling *f, rg_block *const *values, const rg__entry *leases, size_t n,
                   bool locking, size_t *at) {
    f->n = f->bytes = 0;
    rg__buf_clear(&f->kinds);
    rg__buf_clear(&f->tokens);
    for (; *at < n && f->n < RG__READ_CHUNK && f->bytes < RG__CHUNK_BYTES; ++*at) {
        const rg__entry *e = &leases[*at];
        if (!fillable(e, locking)) continue;
        const rg_block *b = values[*at]; /* a lookup without a list is an empty one */
        rg__buf_char(&f->kinds, kind_of(f, b));
        rg__buf_add(&f->tokens, e->lease.token, sizeof e->lease.token);
        f->bytes += b ? b->len : 0;
        f->numbers[f->n++] = *at;
    }
}

static void fill_args(filling *f, const rg__shared *s, const rg_type *t, const rg__key *keys,
                      rg_block *const *values, bool locking) {
    rg__args *a = &f->args;
    rg__args_keys(a, s, NULL, 0);
    for (size_t i = 0; i < f->n; i++) {
        a->failed |= keys[f->numbers[i]].text == NULL;
        rg__args_add(a, keys[f->numbers[i]].text, keys[f->numbers[i]].len);
    }
    rg__args_add(a, locking ? "1" : "0", 1);
    rg__args_u64(a, (uint64_t)t->ttl_s * 1000);
    rg__args_u64(a, (uint64_t)t->absent_ttl_s * 1000);
    rg__args_buf(a, &f->kinds);
    rg__args_buf(a, &f->tokens);
    for (size_t i = 0; i < f->n; i++) {
        const rg_block *b = values[f->numbers[i]];
        if (b) rg__args_add(a, b->data, b->len);
        else if (!f->is_row) rg__args_add(a, "", 0);
    }
}

void rg__shared_fill(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                     const rg__key *keys, size_t n, rg_block *const *values,
                     const rg__entry *leases, bool locking) {
    rg__ctx within = rg__ctx_finish(ctx);
    filling *f = rg__calloc(1, sizeof *f);
    if (f) f->is_row = is_row;
    if (f && !is_row && n) f->unique = t->indexes[keys[0].space - t->space - 1].flags & RG_INDEX_UNIQUE;
    for (size_t at = 0; f && at < n;) {
        gather(f, values, leases, n, locking, &at);
        if (f->n == 0) break;
        rg__args_init(&f->args);
        fill_args(f, s, t, keys, values, locking);
        redisReply *r = NULL;
        int rc = rg__shared_run(s, &within, &fill, (int)f->n + 2, &f->args, &r, NULL);
        size_t refused = rc < 0 ? f->n : (size_t)r->integer;
        if (refused) rg__count(s->metrics, RG__C_FILL_REFUSED, refused);
        freeReplyObject(r);
        rg__args_deinit(&f->args);
        if (rc < 0) break;
    }
    if (!f) return;
    rg__buf_deinit(&f->kinds);
    rg__buf_deinit(&f->tokens);
    rg__free(f);
}

/* ---- giving back ---- */

static size_t unlease_some(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                           const rg__entry *leases) {
    rg__args a;
    rg__buf tokens = {0};
    size_t at = 0;
    int held = 0;
    rg__args_init(&a);
    rg__args_keys(&a, s, NULL, 0);
    for (; at < n && held < RG__READ_CHUNK; at++) {
        if (leases[at].found != RG__MISS || !leases[at].lease.held || !keys[at].text) continue;
        rg__args_add(&a, keys[at].text, keys[at].len);
        rg__buf_add(&tokens, leases[at].lease.token, sizeof leases[at].lease.token);
        held++;
    }
    rg__args_buf(&a, &tokens);
    redisReply *r = NULL;
    if (held) rg__shared_run(s, ctx, &unlease, held + 2, &a, &r, NULL);
    freeReplyObject(r);
    rg__args_deinit(&a);
    rg__buf_deinit(&tokens);
    return at;
}

void rg__shared_unlease(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                        const rg__entry *leases) {
    rg__ctx within = rg__ctx_finish(ctx);
    for (size_t at = 0; at < n;) at += unlease_some(s, &within, keys + at, n - at, leases + at);
}
