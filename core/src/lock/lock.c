/* SPDX-License-Identifier: MIT */
/* One lock: taking, renewing, giving back, and what its owner may believe. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "lock/keeper.h"
#include "rg_scripts.h"

#define SCRIPT(var)                                                                                \
    static const char *const var##_parts[] = {rg__script_text_##var, NULL};                        \
    static rg__script var = {.name = #var, .parts = var##_parts}
SCRIPT(lock_take);
SCRIPT(lock_renew);
SCRIPT(lock_free);

enum { MARGIN_MS = 2, MARGIN_PART = 100 }; /* of the ttl: clocks do not run alike */

int64_t rg__dlock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- life ---- */

static void name_owner(char owner[33]) {
    uint8_t bytes[16];
    rg__random(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(owner + 2 * i, 3, "%02x", bytes[i]);
}

rg__dlock *rg__dlock_new(rg__keeper *k, const char *name, size_t len, const rg__dlock_opts *opts,
                       rg_err *err) {
    rg__dlock *l = rg__calloc(1, sizeof *l);
    rg__buf key = {0};
    rg__buf_str(&key, k->prefix);
    rg__buf_add(&key, name, len);
    rg__buf_cstr(&key);
    if (!l || key.failed) {
        rg__buf_deinit(&key);
        rg__free(l);
        rg__fail_memory(err);
        return NULL;
    }
    l->keeper = k;
    atomic_init(&l->refs, 1);
    l->pid = getpid();
    l->key = key.p;
    l->key_len = key.len;
    l->opts = *opts;
    rg__list_init(&l->node);
    name_owner(l->owner);
    return l;
}

void rg__dlock_ref(rg__dlock *l) { atomic_fetch_add(&l->refs, 1); }

void rg__dlock_unref(rg__dlock *l) {
    if (atomic_fetch_sub(&l->refs, 1) != 1) return;
    rg__free(l->key);
    rg__free(l);
}

/* Under the lock. To the list of what the keeper gives back; the list takes a reference. */
static void to_dropped(rg__dlock *l) {
    rg__keeper *k = l->keeper;
    if (k->closed) return; /* it ends by itself */
    l->forget_at = rg__dlock_now() + l->opts.ttl_ms;
    rg__dlock_ref(l);
    rg__list_add_tail(&k->dropped, &l->node);
    k->drop_at = 0;
    rg__keeper_wake(k);
}

/* Under the lock. HELD to another state: out of the list, whose reference is the caller's now. */
static bool leave_held(rg__dlock *l, rg__dlock_state to) {
    if (l->state != RG__DLOCK_HELD) return false;
    rg__list_remove(&l->node);
    l->state = to;
    return true;
}

void rg__dlock_abandon(rg__dlock *l) {
    rg__keeper *k = l->keeper;
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    l->told = NULL;
    bool was_held = leave_held(l, RG__DLOCK_RELEASED);
    if (l->pid == getpid() && (was_held || (l->unsure && rg__list_empty(&l->node)))) {
        rg__count(k->metrics, RG__C_LEAKED, was_held);
        to_dropped(l);
    }
    pthread_mutex_unlock(&k->lock);
    if (was_held) rg__dlock_unref(l); /* the list's */
}

void rg__dlock_drop(rg__dlock *l) {
    if (!l) return;
    rg__dlock_abandon(l);
    rg__dlock_unref(l);
}

/* ---- belief; under the lock ---- */

static int64_t belief_ms(uint32_t ttl_ms) {
    return (int64_t)ttl_ms - ttl_ms / MARGIN_PART - MARGIN_MS;
}

void rg__dlock_renewed(rg__dlock *l, int64_t asked_at) {
    l->valid_until = asked_at + belief_ms(l->opts.ttl_ms);
    l->renew_at = asked_at + l->opts.ttl_ms / 3;
}

void rg__dlock_lose(rg__dlock *l) {
    if (!leave_held(l, RG__DLOCK_LOST)) return;
    if (l->told) l->told(l->told_arg);
    l->told = NULL;
    rg__dlock_unref(l); /* the list's; the caller has one */
}

static bool holds(rg__dlock *l) {
    if (l->state == RG__DLOCK_HELD && rg__dlock_now() >= l->valid_until) rg__dlock_lose(l);
    return l->state == RG__DLOCK_HELD;
}

int64_t rg__dlock_left_ms(rg__dlock *l) {
    rg__keeper *k = l->keeper;
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    int64_t left = holds(l) ? l->valid_until - rg__dlock_now() : 0;
    pthread_mutex_unlock(&k->lock);
    return left > 0 ? left : 0;
}

bool rg__dlock_lost(rg__dlock *l) {
    rg__keeper *k = l->keeper;
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    bool lost = !holds(l) && l->state == RG__DLOCK_LOST;
    pthread_mutex_unlock(&k->lock);
    return lost;
}

uint64_t rg__dlock_token(const rg__dlock *l) { return l->token; }

bool rg__dlock_on_lost(rg__dlock *l, void (*told)(void *arg), void *arg) {
    rg__keeper *k = l->keeper;
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    bool ok = holds(l);
    l->told = ok ? told : NULL;
    l->told_arg = arg;
    pthread_mutex_unlock(&k->lock);
    return ok;
}

/* ---- scripts ---- */

/* Keys, then what the script wants of each. */
typedef struct words {
    const char *argv[3 * RG__KEEPER_BATCH];
    size_t lens[3 * RG__KEEPER_BATCH];
    char ttls[RG__KEEPER_BATCH][12];
    int n;
} words;

static void say(words *w, const char *text, size_t len) {
    w->argv[w->n] = text;
    w->lens[w->n++] = len;
}

static int take_answers(redisReply *r, size_t n, char *answers, rg_err *err) {
    bool fits = r->type == REDIS_REPLY_ARRAY && r->elements == n;
    for (size_t i = 0; fits && i < n; i++) answers[i] = r->element[i]->integer == 1;
    freeReplyObject(r);
    return fits ? RG_OK : rg__fail(err, RG_ECORRUPT, "Redis' answer about locks makes no sense");
}

static int run_all(rg__redis *c, const rg__ctx *ctx, rg__script *script, rg__dlock *const *locks,
                   size_t n, char *answers, rg_err *err) {
    words w = {.n = 0};
    redisReply *r = NULL;
    for (size_t i = 0; i < n; i++) say(&w, locks[i]->key, locks[i]->key_len);
    for (size_t i = 0; i < n; i++) {
        say(&w, locks[i]->owner, 32);
        if (script != &lock_renew) continue;
        int len = snprintf(w.ttls[i], sizeof w.ttls[i], "%u", locks[i]->opts.ttl_ms);
        say(&w, w.ttls[i], (size_t)len);
    }
    int rc = rg__script_call(c, ctx, script, (int)n, w.n, w.argv, w.lens, &r, err);
    return rc < 0 ? rc : take_answers(r, n, answers, err);
}

int rg__dlock_renew_all(rg__redis *c, const rg__ctx *ctx, rg__dlock *const *locks, size_t n,
                       char *answers, rg_err *err) {
    return run_all(c, ctx, &lock_renew, locks, n, answers, err);
}

int rg__dlock_free_all(rg__redis *c, const rg__ctx *ctx, rg__dlock *const *locks, size_t n,
                      char *answers, rg_err *err) {
    return run_all(c, ctx, &lock_free, locks, n, answers, err);
}

/* One script on a connection of the pool. */
typedef int (*call_fn)(rg__redis *c, const rg__ctx *ctx, rg__dlock *l, void *out, rg_err *err);

static int run_once(rg__dlock *l, const rg__ctx *ctx, call_fn call, void *out, rg_err *err) {
    rg__redis *c = NULL;
    int rc = rg__redis_acquire(l->keeper->pool, ctx, &c, err);
    if (rc < 0) return rc;
    rc = call(c, ctx, l, out, err);
    rg__redis_release(c);
    return rc;
}

/* Each of the scripts may be run twice. */
static int run_one(rg__dlock *l, const rg__ctx *ctx, call_fn call, void *out, rg_err *err) {
    rg_err why = {0};
    int rc = RG_EUNAVAILABLE;
    for (int tries = 0;; tries++) {
        rc = run_once(l, ctx, call, out, &why);
        if (!rg__redis_worth_another(&why, rc, tries, ctx)) break;
    }
    if (rc < 0 && err) *err = why;
    return rc;
}

static int call_renew(rg__redis *c, const rg__ctx *ctx, rg__dlock *l, void *ours, rg_err *err) {
    return run_all(c, ctx, &lock_renew, &l, 1, ours, err);
}

static int call_free(rg__redis *c, const rg__ctx *ctx, rg__dlock *l, void *ours, rg_err *err) {
    return run_all(c, ctx, &lock_free, &l, 1, ours, err);
}

static int call_take(rg__redis *c, const rg__ctx *ctx, rg__dlock *l, void *reply, rg_err *err) {
    char ttl[12];
    snprintf(ttl, sizeof ttl, "%u", l->opts.ttl_ms);
    const char *argv[] = {l->key, l->keeper->fence, l->owner, ttl};
    const size_t lens[] = {l->key_len, strlen(l->keeper->fence), 32, strlen(ttl)};
    l->unsure = true;
    return rg__script_call(c, ctx, &lock_take, 2, 4, argv, lens, reply, err);
}

/* ---- taking ---- */

static int become_held(rg__dlock *l, const char *token, int64_t asked_at, rg_err *err) {
    rg__keeper *k = l->keeper;
    int rc = 1;
    pthread_mutex_lock(&k->lock);
    l->token = strtoull(token, NULL, 10);
    rg__dlock_renewed(l, asked_at);
    l->renew_until = l->opts.max_ms ? asked_at + l->opts.max_ms : INT64_MAX;
    if (k->closed || l->valid_until <= rg__dlock_now()) {
        rc = rg__fail(err, k->closed ? RG_ECLOSED : RG_ETIMEOUT, "%s",
                      k->closed ? "the engine is closed" : "the lock was taken too late to be held");
    } else {
        l->unsure = false;
        l->state = RG__DLOCK_HELD;
        rg__dlock_ref(l);
        rg__list_add_tail(&k->held, &l->node);
        rg__keeper_wake(k);
    }
    pthread_mutex_unlock(&k->lock);
    return rc;
}

int rg__dlock_take(rg__dlock *l, const rg__ctx *ctx, int64_t *left_ms, rg_err *err) {
    int rc = rg__keeper_start(l->keeper, err);
    if (rc < 0) return rc;
    redisReply *r = NULL;
    int64_t asked_at = rg__dlock_now();
    rc = run_one(l, ctx, call_take, &r, err);
    if (rc < 0) return rc;
    bool fits = r->type == REDIS_REPLY_ARRAY && r->elements == 2 &&
                r->element[1]->type == REDIS_REPLY_STRING;
    if (!fits) {
        rc = rg__fail(err, RG_ECORRUPT, "Redis' answer about a lock makes no sense");
    } else if (r->element[0]->integer == 1) {
        rc = become_held(l, r->element[1]->str, asked_at, err);
    } else {
        l->unsure = false;
        *left_ms = strtoll(r->element[1]->str, NULL, 10);
    }
    freeReplyObject(r);
    return rc;
}

/* ---- renewing and giving back ---- */

static int fail_lost(rg_err *err) {
    return rg__fail(err, RG_ELOCK_LOST, "the lock is not held any more: its lease ended, or Redis lost it");
}

static int fail_not_held(const rg__dlock *l, rg_err *err) {
    if (l->state == RG__DLOCK_LOST) return fail_lost(err);
    return rg__fail(err, RG_EMISUSE, "the lock has been given back");
}

int rg__dlock_extend(rg__dlock *l, const rg__ctx *ctx, uint32_t ttl_ms, rg_err *err) {
    rg__keeper *k = l->keeper;
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    int rc = holds(l) ? RG_OK : fail_not_held(l, err);
    if (rc == RG_OK && ttl_ms) l->opts.ttl_ms = ttl_ms;
    pthread_mutex_unlock(&k->lock);
    if (rc < 0) return rc;
    char ours = 0;
    int64_t asked_at = rg__dlock_now();
    rc = run_one(l, ctx, call_renew, &ours, err);
    if (rc < 0) return rc;
    pthread_mutex_lock(&k->lock);
    if (!ours) rg__dlock_lose(l);
    else if (l->state == RG__DLOCK_HELD) rg__dlock_renewed(l, asked_at);
    if (l->state != RG__DLOCK_HELD) rc = fail_not_held(l, err);
    pthread_mutex_unlock(&k->lock);
    return rc;
}

int rg__dlock_release(rg__dlock *l, const rg__ctx *ctx, rg_err *err) {
    rg__keeper *k = l->keeper;
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    bool again = l->state == RG__DLOCK_LEAVING; /* it was held until the first time, and Redis may know */
    int rc = again || holds(l) ? RG_OK : fail_not_held(l, err);
    bool was_held = leave_held(l, RG__DLOCK_LEAVING);
    pthread_mutex_unlock(&k->lock);
    if (rc < 0) return rc;
    if (was_held) rg__dlock_unref(l); /* the list's */
    char ours = 0;
    rc = run_one(l, ctx, call_free, &ours, err);
    pthread_mutex_lock(&k->lock);
    if (rc >= 0) l->state = RG__DLOCK_RELEASED;
    else if (rg__list_empty(&l->node)) to_dropped(l);
    pthread_mutex_unlock(&k->lock);
    return rc < 0 || ours || again ? rc : fail_lost(err);
}
