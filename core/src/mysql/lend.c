/* SPDX-License-Identifier: MIT */
/* Lending connections: a bounded number, last in first out, waited for in order. */
#include "mysql/pool.h"

#include <unistd.h>

enum {
    PROBE_AFTER_MS = 1000, /* idle this long: ask the server before lending */
    LOOK_AFTER_MS = 1,     /* idle this long: look at the socket, which is cheap */
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
    TIDY_MS = 1000 /* to roll back or reset a connection that comes back */
};

/* ---- lists; under the lock ---- */

void rg__pool_move(rg__mysql *c, rg__node *to) {
    rg__mysql_pool *pool = c->pool;
    rg__list_remove(&c->node);
    if (!to) return;
    rg__list_add_head(to, &c->node);
    if (to == &pool->idle) c->idle_since_ms = rg__now_ms();
}

/* The idle connection used last, now busy. */
rg__mysql *rg__pool_take_idle(rg__mysql_pool *pool) {
    if (rg__list_empty(&pool->idle)) return NULL;
    rg__mysql *c = rg__pool_conn(pool->idle.next);
    rg__pool_move(c, &pool->busy);
    pool->n_idle--;
    pool->n_busy++;
    return c;
}

/* The one idle longest when its time is over; no longer in a list. */
static rg__mysql *take_expired(rg__mysql_pool *pool) {
    if (rg__list_empty(&pool->idle)) return NULL;
    rg__mysql *c = rg__pool_conn(pool->idle.prev);
    if (rg__now_ms() - c->idle_since_ms < (int64_t)pool->opts.idle_timeout_ms) return NULL;
    rg__pool_move(c, NULL);
    pool->n_idle--;
    return c;
}

static bool may_connect(const rg__mysql_pool *pool) {
    return pool->n_busy + pool->n_idle < pool->opts.max_connections;
}

/* Lets the first waiter go on with c, or with the right to connect (c NULL, counted as busy). */
static bool grant(rg__mysql_pool *pool, rg__mysql *c) {
    if (rg__list_empty(&pool->waiters)) return false;
    rg__waiter *w = rg__container(pool->waiters.next, rg__waiter, node);
    rg__list_remove(&w->node);
    w->c = c;
    w->granted = true;
    pthread_cond_signal(&w->cond);
    return true;
}

/* A busy place becomes free. */
static void give_place(rg__mysql_pool *pool, bool reserved) {
    if (reserved)
        pool->n_reserved--;
    else if (!grant(pool, NULL))
        pool->n_busy--;
}

/* Half as many again: who holds a connection would otherwise wait for one that only he, or another like
 * him, can give back. */
static bool may_reserve(const rg__mysql_pool *pool) {
    return pool->n_reserved < (pool->opts.max_connections + 1) / 2;
}

/* ---- the circuit breaker; under the lock ---- */

static bool breaker_open(rg__mysql_pool *pool, rg_err *err) {
    int64_t now = rg__now_ms();
    if (pool->backoff_ms == 0) return false;
    if (now < pool->retry_at_ms) {
        if (err) *err = pool->refused;
        return true;
    }
    pool->retry_at_ms = now + pool->backoff_ms; /* this caller tries; others go on failing */
    return false;
}

static void note_refused(rg__mysql_pool *pool, const rg_err *err) {
    int64_t next = pool->backoff_ms * 2;
    atomic_fetch_add_explicit(&pool->errors, 1, memory_order_relaxed);
    if (next < BACKOFF_MIN_MS) next = BACKOFF_MIN_MS;
    if (next > BACKOFF_MAX_MS) next = BACKOFF_MAX_MS;
    pool->refused = *err;
    pool->stop_id = 0; /* the server may be another one when it is back */
    pool->backoff_ms = next;
    pool->retry_at_ms = rg__now_ms() + next;
}

/* ---- connecting ---- */

void rg__pool_say_where(const rg__mysql_pool *pool, rg_err *err) {
    const rg_pool_opts *o = &pool->opts;
    if (o->unix_path)
        rg__err_prefix(err, "pool '%s' (%s): ", o->name, o->unix_path);
    else
        rg__err_prefix(err, "pool '%s' (%s:%u): ", o->name, o->host, o->port);
}

/* A server that stands still takes connections until its backlog is full, then the client library tries again
 * and again without a pause, beyond any deadline. Under the lock, which it gives up while it waits. */
static int begin_connecting(rg__mysql_pool *pool, const rg__ctx *ctx, rg_err *err) {
    int64_t deadline = rg__deadline_within(ctx->deadline_ms, pool->opts.connect_timeout_ms);
    while (pool->mute && pool->n_connecting > 0 && !pool->closed)
        if (!rg__cond_wait(&pool->connected, &pool->lock, deadline))
            return rg__fail(err, RG_ETIMEOUT, "connecting: the server does not answer");
    pool->n_connecting++;
    return RG_OK;
}

/* Under the lock. */
static void end_connecting(rg__mysql_pool *pool, bool connected, const rg_err *why) {
    pool->n_connecting--;
    pool->mute = !connected && why->code == RG_ETIMEOUT;
    pthread_cond_broadcast(&pool->connected);
}

/* Fills the place that the caller holds; gives it back on failure. */
static int connect_place(rg__mysql_pool *pool, const rg__ctx *ctx, bool reserved, rg__mysql **out,
                         rg_err *err) {
    rg_err why = {0};
    pthread_mutex_lock(&pool->lock);
    bool refused = breaker_open(pool, &why);
    bool tries = !refused && begin_connecting(pool, ctx, &why) == RG_OK;
    pthread_mutex_unlock(&pool->lock);
    rg__mysql *c = tries ? rg__conn_open(pool, ctx, &why) : NULL;
    if (!c && !refused) rg__pool_say_where(pool, &why);
    /* A caller in a hurry says nothing about the server. */
    bool hasty = !c && rg__now_ms() >= ctx->deadline_ms;
    pthread_mutex_lock(&pool->lock);
    bool closed = pool->closed;
    if (tries) end_connecting(pool, c != NULL, &why);
    if (c && !closed) {
        pool->backoff_ms = 0;
        atomic_store(&pool->max_packet, c->max_packet);
        c->extra = c->reserved = reserved;
        rg__pool_move(c, &pool->busy);
    } else {
        give_place(pool, reserved);
        if (!c && !refused && !hasty && why.code != RG_ENO_MEMORY) note_refused(pool, &why);
    }
    pthread_mutex_unlock(&pool->lock);
    if (c && closed) {
        rg__conn_close(c);
        return rg__fail(err, RG_ECLOSED, "pool '%s' is closed", pool->opts.name);
    }
    *out = c;
    if (!c && err) *err = why;
    return c ? 0 : why.code;
}

/* ---- borrowing ---- */

static int fail_full(rg__mysql_pool *pool, int64_t waited_ms, rg_err *err) {
    atomic_fetch_add_explicit(&pool->errors, 1, memory_order_relaxed);
    rg__fail(err, RG_ETIMEOUT, "pool '%s': all %u connections are busy (waited %lld ms)",
             pool->opts.name, pool->opts.max_connections, (long long)waited_ms);
    if (err) err->cls = RG_CLASS_WAIT;
    return RG_ETIMEOUT;
}

static int fail_reserved(const rg__mysql_pool *pool, rg_err *err) {
    rg__fail(err, RG_ELIMIT, "pool '%s': all %u connections are busy, and the %u kept for work beside a "
             "transaction, too", pool->opts.name, pool->opts.max_connections, pool->n_reserved);
    if (!err) return RG_ELIMIT;
    err->cls = RG_CLASS_WAIT;
    err->retriable = 1;
    return RG_ELIMIT;
}

/* Under the lock, which it gives up while it waits. Then the caller holds a place. */
static int wait_turn(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, rg_err *err) {
    int64_t started = rg__now_ms();
    int64_t deadline = ctx->deadline_ms;
    if (deadline == RG__NO_DEADLINE) deadline = started + pool->opts.timeout_ms;
    rg__waiter w = {0};
    rg__cond_init(&w.cond);
    rg__list_add_tail(&pool->waiters, &w.node);
    while (!w.granted && !pool->closed && rg__cond_wait(&w.cond, &pool->lock, deadline)) {
    }
    if (!w.granted) rg__list_remove(&w.node);
    pthread_cond_destroy(&w.cond);
    *out = w.c;
    if (w.granted) return 0;
    if (pool->closed) return rg__fail(err, RG_ECLOSED, "pool '%s' is closed", pool->opts.name);
    return fail_full(pool, rg__now_ms() - started, err);
}

/* A place, with a connection or (*out NULL) with the right to make one. */
static int take_place(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, bool *reserved,
                      rg_err *err) {
    int code = 0;
    *out = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->closed) {
        code = rg__fail(err, RG_ECLOSED, "pool '%s' is closed", pool->opts.name);
    } else if ((*out = rg__pool_take_idle(pool)) == NULL) {
        *reserved = ctx->nested && !may_connect(pool);
        if (may_connect(pool))
            pool->n_busy++;
        else if (*reserved && may_reserve(pool))
            pool->n_reserved++;
        else if (*reserved)
            code = fail_reserved(pool, err);
        else
            code = wait_turn(pool, ctx, out, err);
    }
    pthread_mutex_unlock(&pool->lock);
    return code;
}

static bool healthy(rg__mysql *c, const rg__ctx *ctx) {
    int64_t idle_ms = c->idle_since_ms ? rg__now_ms() - c->idle_since_ms : 0;
    if (idle_ms >= LOOK_AFTER_MS && !rg__conn_quiet(c)) return false;
    return idle_ms < PROBE_AFTER_MS || rg__conn_ping(c, ctx) == 0;
}

int rg__mysql_acquire(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, rg_err *err) {
    rg__mysql *c = NULL;
    rg__mysql_thread_begin();
    rg__pool_take_over(pool);
    *out = NULL;
    bool reserved = false;
    int code = take_place(pool, ctx, &c, &reserved, err);
    if (code) return code;
    if (c && !healthy(c, ctx)) {
        pthread_mutex_lock(&pool->lock);
        rg__pool_move(c, NULL); /* keeps its place */
        pthread_mutex_unlock(&pool->lock);
        c->broken = true;
        rg__conn_close(c);
        c = NULL;
    }
    if (!c) return connect_place(pool, ctx, reserved, out, err);
    *out = c;
    return 0;
}

rg__mysql *rg__mysql_acquire_idle(rg__mysql_pool *pool) {
    rg__mysql *c = NULL;
    rg__mysql_thread_begin();
    rg__pool_take_over(pool);
    pthread_mutex_lock(&pool->lock);
    bool any = !pool->closed && !rg__list_empty(&pool->idle);
    if (any && rg__now_ms() - rg__pool_conn(pool->idle.next)->idle_since_ms < PROBE_AFTER_MS)
        c = rg__pool_take_idle(pool);
    pthread_mutex_unlock(&pool->lock);
    if (!c || rg__conn_quiet(c)) return c;
    c->broken = true;
    rg__mysql_release(c);
    return NULL;
}

/* ---- giving back ---- */

static void tidy(rg__mysql *c) {
    if (c->n_ahead) c->broken = true; /* answers are on their way */
    bool clean = !c->tainted && c->tx == RG__TXS_NONE;
    if (c->broken || c->poisoned) return;
    rg__ctx ctx = {.deadline_ms = clean ? 0 : rg__now_ms() + TIDY_MS};
    if (c->tainted)
        rg__conn_reset(c, &ctx, NULL);
    else if (c->tx != RG__TXS_NONE)
        rg__mysql_rollback(c, &ctx);
    if (!c->broken && !c->poisoned) rg__pool_stop_left(c);
}

static bool reusable(const rg__mysql *c) {
    return !c->broken && !c->poisoned && !c->extra && c->tx == RG__TXS_NONE;
}

void rg__mysql_release(rg__mysql *c) {
    rg__mysql_pool *pool = c->pool;
    rg__mysql *expired = NULL;
    if (c->pid != rg__pid()) { /* lent before a fork; no longer counted */
        rg__list_remove(&c->node);
        rg__conn_close(c);
        return;
    }
    tidy(c);
    pthread_mutex_lock(&pool->lock);
    bool keep = reusable(c) && !pool->closed;
    if (keep) {
        c->idle_since_ms = rg__now_ms();
        if (!grant(pool, c)) {
            rg__pool_move(c, &pool->idle);
            pool->n_idle++;
            pool->n_busy--;
        }
        expired = take_expired(pool);
    } else {
        rg__pool_move(c, NULL);
        if (!c->extra || c->reserved) give_place(pool, c->reserved);
    }
    pthread_mutex_unlock(&pool->lock);
    if (!keep) rg__conn_close(c);
    if (expired) rg__conn_close(expired);
}
