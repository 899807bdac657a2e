/* SPDX-License-Identifier: MIT */
/* The pool: a bound, a queue of waiters, a circuit breaker, and forks. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/err.h"
#include "base/thread.h"
#include "redis/conn.h"

enum {
    PROBE_IDLE_MS = 1000,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
};

/* Somebody who waits for a connection; on his stack. */
typedef struct waiter {
    rg__node node;
    pthread_cond_t cond;
    rg__redis *given; /* a connection, or */
    bool turn;        /* a place to connect one himself */
} waiter;

/* ---- options ---- */

static uint32_t or_default(uint32_t v, uint32_t def) { return v ? v : def; }

static void free_secret(const char *s) {
    if (s) explicit_bzero((void *)(uintptr_t)s, strlen(s));
    rg__free((void *)(uintptr_t)s);
}

static void free_opts(rg_pool_opts *o) {
    free_secret(o->password);
    const char *const rest[] = {o->name, o->host, o->unix_path, o->user, o->tls_ca, o->tls_cert,
                                o->tls_key};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) rg__free((void *)(uintptr_t)rest[i]);
}

static bool copy(const char **to, const char *from) {
    *to = rg__strdup(from);
    return *to || !from;
}

static bool copy_opts(rg_pool_opts *to, const rg_pool_opts *o) {
    *to = (rg_pool_opts){.size = sizeof *to, .db = o->db, .tls = o->tls};
    to->port = or_default(o->port, 6379);
    to->max_connections = or_default(o->max_connections, 8);
    to->connect_timeout_ms = or_default(o->connect_timeout_ms, 3000);
    to->timeout_ms = or_default(o->timeout_ms, 30000);
    to->idle_timeout_ms = or_default(o->idle_timeout_ms, 60000);
    bool names = copy(&to->name, o->name ? o->name : "default") && copy(&to->host, o->host);
    bool access = copy(&to->unix_path, o->unix_path) && copy(&to->user, o->user) &&
                  copy(&to->password, o->password);
    bool tls = copy(&to->tls_ca, o->tls_ca) && copy(&to->tls_cert, o->tls_cert) &&
               copy(&to->tls_key, o->tls_key);
    return names && access && tls;
}

static char *describe(const rg_pool_opts *o) {
    char text[320];
    if (o->unix_path) snprintf(text, sizeof text, "unix:%s", o->unix_path);
    else snprintf(text, sizeof text, "%s:%u", o->host, o->port);
    return rg__strdup(text);
}

static int check_opts(const rg_pool_opts *o, rg_err *err) {
    if (o->size != sizeof *o) return rg__fail(err, RG_EINVALID, "rg_pool_opts of another version");
    if (!o->host && !o->unix_path)
        return rg__fail_field(err, "host", "a Redis pool needs a host or a unix_path");
    if (o->tls < RG_TLS_OFF || o->tls > RG_TLS_ENCRYPT)
        return rg__fail_field(err, "tls", "not a TLS mode");
    if (o->port > 65535) return rg__fail_field(err, "port", "a port is at most 65535");
    return RG_OK;
}

/* ---- life ---- */

static void init_lists(rg__redis_pool *pool) {
    pthread_mutex_init(&pool->lock, NULL);
    rg__list_init(&pool->idle);
    rg__list_init(&pool->busy);
    rg__list_init(&pool->waiters);
    pool->n_idle = pool->n_counted = 0;
    pool->pid = rg__pid();
}

rg__redis_pool *rg__redis_pool_new(const rg_pool_opts *opts, rg_err *err) {
    if (check_opts(opts, err) < 0) return NULL;
    rg__redis_pool *pool = rg__calloc(1, sizeof *pool);
    if (!pool) {
        rg__fail_memory(err);
        return NULL;
    }
    init_lists(pool);
    if (copy_opts(&pool->opts, opts) && (pool->where = describe(&pool->opts))) return pool;
    rg__fail_memory(err);
    rg__redis_pool_free(pool);
    return NULL;
}

const char *rg__redis_pool_name(const rg__redis_pool *pool) { return pool->opts.name; }
const rg_pool_opts *rg__redis_pool_opts(const rg__redis_pool *pool) { return &pool->opts; }

static rg__redis *of_node(rg__node *n) { return rg__container(n, rg__redis, node); }

/* Under the lock: the list's first connection, unlinked. */
static rg__redis *pop(rg__node *list) {
    if (rg__list_empty(list)) return NULL;
    rg__redis *c = of_node(list->next);
    rg__list_remove(&c->node);
    return c;
}

static void forget_fork(rg__redis_pool *pool);

void rg__redis_pool_free(rg__redis_pool *pool) {
    if (!pool) return;
    if (pool->pid != rg__pid()) forget_fork(pool);
    for (rg__redis *c; (c = pop(&pool->idle));) rg__redis_close(c);
    rg__redis_tls_pool_free(pool);
    free_opts(&pool->opts);
    rg__free(pool->where);
    pthread_mutex_destroy(&pool->lock);
    rg__free(pool);
}

/* ---- forks ----
 * The child has one thread, and whoever held the lock is not in it. Idle connections go; acquired
 * ones lose their descriptor and stay with whom they were given to. Nothing is sent. */

static void forget_fork(rg__redis_pool *pool) {
    rg__node idle = pool->idle, busy = pool->busy;
    bool has_idle = !rg__list_empty(&pool->idle), has_busy = !rg__list_empty(&pool->busy);
    if (has_idle) idle.next->prev = idle.prev->next = &idle;
    if (has_busy) busy.next->prev = busy.prev->next = &busy;
    init_lists(pool);
    pool->retry_at_ms = 0;
    for (rg__redis *c; has_idle && (c = pop(&idle));) rg__redis_close(c);
    for (rg__redis *c; has_busy && (c = pop(&busy));) {
        if (c->fd >= 0) close(c->fd);
        c->fd = -1;
        c->broken = true;
    }
}

void rg__redis_pool_abandon(rg__redis_pool *pool) {
    if (pool->pid != rg__pid()) forget_fork(pool);
}

/* ---- shutdown ---- */

static void wake_all(rg__redis_pool *pool) {
    for (rg__node *n = pool->waiters.next; n != &pool->waiters; n = n->next)
        pthread_cond_signal(&rg__container(n, waiter, node)->cond);
}

static void shut_all(rg__node *list) {
    for (rg__node *n = list->next; n != list; n = n->next)
        if (of_node(n)->fd >= 0) shutdown(of_node(n)->fd, SHUT_RDWR);
}

void rg__redis_pool_shutdown(rg__redis_pool *pool) {
    rg__redis_pool_abandon(pool);
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->closing, true);
    shut_all(&pool->idle);
    shut_all(&pool->busy);
    wake_all(pool);
    pthread_mutex_unlock(&pool->lock);
}

void rg__redis_pool_stats(rg__redis_pool *pool, uint32_t *busy, uint32_t *idle) {
    pthread_mutex_lock(&pool->lock);
    *busy = pool->n_counted - pool->n_idle;
    *idle = pool->n_idle;
    pthread_mutex_unlock(&pool->lock);
}

void rg__redis_pool_figures(rg__redis_pool *pool, rg__pool_figures *out) {
    rg__redis_pool_abandon(pool);
    *out = (rg__pool_figures){.limit = pool->opts.max_connections, .errors = atomic_load(&pool->errors)};
    pthread_mutex_lock(&pool->lock);
    out->busy = pool->n_counted - pool->n_idle;
    out->idle = pool->n_idle;
    for (rg__node *n = pool->waiters.next; n != &pool->waiters; n = n->next) out->waiting++;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- acquire ---- */

/* What an acquire does next. */
typedef enum step { STEP_CHECK, STEP_CONNECT, STEP_WAIT, STEP_FAIL } step;

static bool breaker_open(const rg__redis_pool *pool) {
    return pool->retry_at_ms && rg__now_ms() < pool->retry_at_ms;
}

/* After a failure one caller tries at a time: the others go on failing at once meanwhile. */
static void guard_retry(rg__redis_pool *pool) {
    if (pool->retry_at_ms)
        pool->retry_at_ms = rg__now_ms() + pool->backoff_ms + pool->opts.connect_timeout_ms;
}

/* Under the lock. With the breaker open others' connections are waited for, if there are any. */
static step choose(rg__redis_pool *pool, rg__redis **out) {
    *out = pop(&pool->idle);
    if (*out) {
        pool->n_idle--;
        rg__list_add_tail(&pool->busy, &(*out)->node);
        return STEP_CHECK;
    }
    if (pool->n_counted >= pool->opts.max_connections) return STEP_WAIT;
    if (breaker_open(pool)) return pool->n_counted ? STEP_WAIT : STEP_FAIL;
    guard_retry(pool);
    pool->n_counted++;
    return STEP_CONNECT;
}

/* Under the lock: a place came free; who waits longest connects. */
static void free_place(rg__redis_pool *pool) {
    if (rg__list_empty(&pool->waiters)) {
        pool->n_counted--;
        return;
    }
    waiter *w = rg__container(pool->waiters.next, waiter, node);
    rg__list_remove(&w->node);
    w->turn = true;
    pthread_cond_signal(&w->cond);
}

static void trip(rg__redis_pool *pool, const rg_err *why) {
    uint32_t ms = pool->backoff_ms ? pool->backoff_ms * 2 : BACKOFF_MIN_MS;
    pool->backoff_ms = ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms;
    pool->retry_at_ms = rg__now_ms() + pool->backoff_ms;
    pool->failure = *why;
    atomic_fetch_add_explicit(&pool->errors, 1, memory_order_relaxed);
}

static int connect_place(rg__redis_pool *pool, const rg__ctx *ctx, rg__redis **out, rg_err *err) {
    rg_err why = {0};
    int rc = rg__redis_open(pool, ctx, NULL, out, &why);
    pthread_mutex_lock(&pool->lock);
    if (rc < 0) {
        trip(pool, &why);
        free_place(pool);
    } else {
        pool->retry_at_ms = 0;
        pool->backoff_ms = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    if (rc < 0 && err) *err = why;
    return rc;
}

/* Under the lock; gives up its place in the queue when the time is over. */
static int wait_turn(rg__redis_pool *pool, waiter *w, int64_t deadline_ms, rg_err *err) {
    rg__cond_init(&w->cond);
    rg__list_add_tail(&pool->waiters, &w->node);
    while (!w->given && !w->turn && !atomic_load(&pool->closing))
        if (!rg__cond_wait(&w->cond, &pool->lock, deadline_ms)) break;
    rg__list_remove(&w->node);
    pthread_cond_destroy(&w->cond);
    if (w->given || w->turn) return RG_OK;
    if (atomic_load(&pool->closing)) return rg__fail(err, RG_ECLOSED, "the engine is closing");
    atomic_fetch_add_explicit(&pool->errors, 1, memory_order_relaxed);
    return rg__fail(err, RG_ETIMEOUT, "Redis pool %s: all %u connections are busy", pool->opts.name,
                    pool->opts.max_connections);
}

/* Under the lock: whether what was waited for is of any use; gives it back if not. */
static int take_turn(rg__redis_pool *pool, const waiter *w, rg_err *err) {
    if (!w->turn) return RG_OK;
    bool closing = atomic_load(&pool->closing);
    if (!closing && !breaker_open(pool)) return RG_OK;
    free_place(pool);
    if (closing) return rg__fail(err, RG_ECLOSED, "the engine is closing");
    if (err) *err = pool->failure;
    return pool->failure.code;
}

static int wait_for_one(rg__redis_pool *pool, const rg__ctx *ctx, rg__redis **out, rg_err *err) {
    waiter w = {0};
    int rc = wait_turn(pool, &w, rg__redis_deadline(pool, ctx), err);
    if (rc == RG_OK) rc = take_turn(pool, &w, err);
    pthread_mutex_unlock(&pool->lock);
    if (rc < 0) return rc;
    *out = w.given;
    return w.given ? RG_OK : connect_place(pool, ctx, out, err);
}

static bool usable(rg__redis *c, int64_t suspect_ms) {
    int64_t now = rg__now_ms();
    if (now - c->idle_since_ms > c->pool->opts.idle_timeout_ms) return false;
    bool probe = now - c->idle_since_ms > PROBE_IDLE_MS || c->idle_since_ms <= suspect_ms;
    return !probe || rg__redis_alive(c);
}

static void discard(rg__redis *c) {
    rg__redis_pool *pool = c->pool;
    rg__redis_close(c);
    pthread_mutex_lock(&pool->lock);
    free_place(pool);
    pthread_mutex_unlock(&pool->lock);
}

static int fail_open(rg__redis_pool *pool, rg_err *err) {
    if (err) *err = pool->failure;
    int code = pool->failure.code;
    pthread_mutex_unlock(&pool->lock);
    return code;
}

int rg__redis_acquire(rg__redis_pool *pool, const rg__ctx *ctx, rg__redis **out, rg_err *err) {
    *out = NULL;
    rg__redis_pool_abandon(pool);
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        if (atomic_load(&pool->closing)) {
            pthread_mutex_unlock(&pool->lock);
            return rg__fail(err, RG_ECLOSED, "the engine is closing");
        }
        int64_t suspect_ms = pool->suspect_ms;
        step next = choose(pool, out);
        if (next == STEP_WAIT) return wait_for_one(pool, ctx, out, err);
        if (next == STEP_FAIL) return fail_open(pool, err);
        pthread_mutex_unlock(&pool->lock);
        if (next == STEP_CONNECT) return connect_place(pool, ctx, out, err);
        if (usable(*out, suspect_ms)) return RG_OK;
        discard(*out);
    }
}

rg__redis *rg__redis_acquire_idle(rg__redis_pool *pool) {
    rg__redis *c = NULL;
    rg__redis_pool_abandon(pool);
    pthread_mutex_lock(&pool->lock);
    int64_t suspect_ms = pool->suspect_ms;
    bool any = !atomic_load(&pool->closing) && !rg__list_empty(&pool->idle);
    if (any) (void)choose(pool, &c);
    pthread_mutex_unlock(&pool->lock);
    if (!c || usable(c, suspect_ms)) return c;
    discard(c);
    return NULL;
}

bool rg__redis_aside(rg__redis_pool *pool) {
    unsigned n = atomic_load(&pool->n_aside);
    while (n + 1 < pool->opts.max_connections)
        if (atomic_compare_exchange_weak(&pool->n_aside, &n, n + 1)) return true;
    return false;
}

void rg__redis_aside_end(rg__redis_pool *pool) { atomic_fetch_sub(&pool->n_aside, 1); }

int rg__redis_dedicated_until(rg__redis_pool *pool, const rg__ctx *ctx, const atomic_bool *stop,
                              rg__redis **out, rg_err *err) {
    static const atomic_bool never;
    rg__redis_pool_abandon(pool);
    if (atomic_load(&pool->closing)) return rg__fail(err, RG_ECLOSED, "the engine is closing");
    return rg__redis_open(pool, ctx, stop ? stop : &never, out, err);
}

int rg__redis_dedicated(rg__redis_pool *pool, const rg__ctx *ctx, rg__redis **out, rg_err *err) {
    return rg__redis_dedicated_until(pool, ctx, NULL, out, err);
}

/* ---- release ---- */

static bool reusable(const rg__redis *c) {
    return !c->broken && !c->subscribed && c->pending == 0 && c->out.len == 0 &&
           c->reader->pos == c->reader->len;
}

/* Under the lock: to who waits longest, or to the idle ones. */
static void hand_over(rg__redis_pool *pool, rg__redis *c) {
    if (!rg__list_empty(&pool->waiters)) {
        waiter *w = rg__container(pool->waiters.next, waiter, node);
        rg__list_remove(&w->node);
        w->given = c;
        pthread_cond_signal(&w->cond);
        return;
    }
    c->idle_since_ms = rg__now_ms();
    rg__list_remove(&c->node);
    rg__list_add_head(&pool->idle, &c->node);
    pool->n_idle++;
}

/* Under the lock: the idle one that was not needed for longest, when it is too old. */
static rg__redis *take_expired(rg__redis_pool *pool) {
    if (rg__list_empty(&pool->idle)) return NULL;
    rg__redis *c = of_node(pool->idle.prev);
    if (rg__now_ms() - c->idle_since_ms <= pool->opts.idle_timeout_ms) return NULL;
    rg__list_remove(&c->node);
    pool->n_idle--;
    pool->n_counted--;
    return c;
}

static void return_healthy(rg__redis_pool *pool, rg__redis *c) {
    pthread_mutex_lock(&pool->lock);
    hand_over(pool, c);
    rg__redis *expired = take_expired(pool);
    pthread_mutex_unlock(&pool->lock);
    if (expired) rg__redis_close(expired);
}

/* When one connection broke, the server may be gone for all of them. */
static void suspect(rg__redis_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->suspect_ms = rg__now_ms();
    pthread_mutex_unlock(&pool->lock);
}

void rg__redis_release(rg__redis *c) {
    if (!c) return;
    rg__redis_pool *pool = c->pool;
    if (c->dedicated || c->pid != rg__pid()) {
        rg__redis_close(c);
        return;
    }
    if (reusable(c) && !atomic_load(&pool->closing)) {
        return_healthy(pool, c);
        return;
    }
    if (c->broken) suspect(pool);
    discard(c);
}
