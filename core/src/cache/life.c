/* SPDX-License-Identifier: MIT */
/* Whose data it is: the check that the server behind a connection is the one that the epoch's entries
 * were written on (scripts/life.lua), and what is known of the epoch. */
#include "base/err.h"
#include "cache/shared.h"

/* A connection that breaks while it is asked is no answer. */
enum { TRIES = 5 };

RG__SCRIPT(life, life);
RG__SCRIPT(renew, renew);
RG__SCRIPT(witness, witness);

/* A tolerant reader of the 8 bytes. */
static bool is_epoch(const redisReply *r) {
    return r && r->type == REDIS_REPLY_STRING && r->len == 8;
}

/* Another epoch than the one that was asked for: ask again, soon. */
void rg__shared_learn(rg__shared *s, uint64_t epoch) {
    uint64_t before = atomic_exchange_explicit(&s->epoch, epoch, memory_order_relaxed);
    if (before != epoch) atomic_store_explicit(&s->epoch_at_ms, 0, memory_order_relaxed);
}

static int settle(rg__shared *s, rg__redis *c, const rg__ctx *ctx, const redisReply *r, rg_err *err) {
    if (!is_epoch(r)) return rg__fail(err, RG_ECORRUPT, "LIFE told no epoch");
    int rc = rg__agree(s, c, ctx, rg__epoch_of(r->str), err);
    if (rc < 0) return rc;
    atomic_store_explicit(&s->epoch, rg__epoch_of(r->str), memory_order_relaxed);
    atomic_store_explicit(&s->epochs_seen, atomic_load(&s->told->epochs), memory_order_relaxed);
    atomic_store_explicit(&s->epoch_at_ms, rg__now_ms(), memory_order_relaxed);
    *rg__redis_note(c) = true;
    return RG_OK;
}

static void add_names(rg__args *a, const rg__shared *s) {
    rg__args_name(a, &s->epoch_key);
    rg__args_name(a, &s->life_key);
}

static int name_pool(const rg__shared *s, int rc, rg_err *err) {
    if (rc < 0) rg__err_prefix(err, "Redis pool %s: ", rg__redis_pool_name(s->pool));
    return rc;
}

int rg__life_ask(rg__shared *s, rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    rg__args a;
    redisReply *r = NULL;
    rg__args_init(&a);
    add_names(&a, s);
    int rc = a.failed ? rg__fail_memory(err)
                      : rg__script_call(c, ctx, &life, 2, a.n, a.argv, a.lens, &r, err);
    if (rc == RG_OK) rc = settle(s, c, ctx, r, err);
    freeReplyObject(r);
    rg__args_deinit(&a);
    return rc;
}

int rg__shared_acquire(rg__shared *s, const rg__ctx *ctx, rg__redis **out, rg_err *err) {
    rg_err why = {0};
    int rc = RG_OK;
    for (int tries = 0; tries < TRIES; tries++) {
        rc = rg__redis_acquire(s->pool, ctx, out, err);
        if (rc < 0 || *rg__redis_note(*out)) return rc;
        rc = rg__life_ask(s, *out, ctx, &why);
        if (rc == RG_OK) return rc;
        rg__redis_release(*out);
        *out = NULL;
        if (why.cls != RG_CLASS_RECONNECT || rg__left_ms(ctx->deadline_ms) == 0) break;
    }
    if (err) *err = why;
    return name_pool(s, rc, err);
}

/* ---- along with a read ---- */

bool rg__life_due(rg__shared *s, rg__redis *c) {
    int64_t at = atomic_load_explicit(&s->epoch_at_ms, memory_order_relaxed);
    bool told = atomic_load_explicit(&s->told->epochs, memory_order_relaxed) !=
                atomic_load_explicit(&s->epochs_seen, memory_order_relaxed);
    return !*rg__redis_note(c) || at == 0 || told || rg__now_ms() - at > RG__EPOCH_AGE_MS;
}

int rg__life_append(rg__shared *s, rg__redis *c, rg_err *err) {
    rg__args a;
    int rc = rg__script_init(&life, err);
    if (rc < 0) return rc;
    rg__args_init(&a);
    rg__args_add(&a, "EVALSHA", 7);
    rg__args_add(&a, life.sha, sizeof life.sha - 1);
    rg__args_u64(&a, 2);
    add_names(&a, s);
    rc = a.failed ? rg__fail_memory(err) : rg__redis_append(c, a.n, a.argv, a.lens, err);
    rg__args_deinit(&a);
    return rc;
}

int rg__life_take(rg__shared *s, rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    redisReply *r = NULL;
    int rc = rg__redis_reply(c, ctx, &r, err);
    bool missing = rc == RG_OK && r->type == REDIS_REPLY_ERROR && !strncmp(r->str, "NOSCRIPT", 8);
    if (missing) rc = rg__life_ask(s, c, ctx, err);
    else if (rc == RG_OK && r->type == REDIS_REPLY_ERROR) rc = rg__redis_error(r, err);
    else if (rc == RG_OK) rc = settle(s, c, ctx, r, err);
    freeReplyObject(r);
    return name_pool(s, rc, err);
}

/* ---- a new epoch by order ---- */

/* Runs a script that answers with the epoch, which may be a new one. */
static int run_for_epoch(rg__shared *s, const rg__ctx *ctx, rg__script *script, int nkeys, rg__args *a,
                         rg_err *err) {
    redisReply *r = NULL;
    uint64_t before = rg__shared_epoch(s);
    int rc = rg__shared_run(s, ctx, script, nkeys, a, &r, err);
    if (rc == RG_OK && is_epoch(r)) rg__shared_learn(s, rg__epoch_of(r->str));
    freeReplyObject(r);
    if (s->process && rg__shared_epoch(s) != before) rg__process_clear(s->process);
    return rc;
}

int rg__shared_renew(rg__shared *s, const rg__ctx *ctx, rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_name(&a, &s->epoch_key);
    int rc = run_for_epoch(s, ctx, &renew, 1, &a, err);
    rg__args_deinit(&a);
    if (s->process) rg__process_clear(s->process);
    return rc;
}

int rg__shared_witness(rg__shared *s, const rg__ctx *ctx, const char *mysql_pool, uint64_t identity,
                       rg_err *err) {
    rg__args a;
    rg__buf name = {0};
    rg__args_init(&a);
    rg__buf_fmt(&name, "{%s}:my:%s", s->prefix, mysql_pool);
    rg__args_name(&a, &s->epoch_key);
    rg__args_buf(&a, &name);
    rg__args_add(&a, &identity, sizeof identity);
    int rc = run_for_epoch(s, ctx, &witness, 2, &a, err);
    rg__args_deinit(&a);
    rg__buf_deinit(&name);
    return rc;
}

int rg__shared_confirm(rg__shared *s, const rg__ctx *ctx, uint64_t epoch, bool *same, rg_err *err) {
    const char *argv[] = {"GET", s->epoch_key.text};
    rg__redis *c = NULL;
    redisReply *r = NULL;
    *same = false;
    int rc = rg__shared_acquire(s, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__redis_command(c, ctx, &r, err, 2, argv, NULL);
    if (rc == RG_OK) *same = is_epoch(r) && rg__epoch_of(r->str) == epoch;
    freeReplyObject(r);
    rg__redis_release(c);
    return rc;
}
