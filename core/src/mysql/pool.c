/* SPDX-License-Identifier: MIT */
/* The pool: a bounded number of connections, lent last in first out, waited for in order. */
#include "mysql/conn.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>
#include "base/alloc.h"

enum {
    PROBE_AFTER_MS = 1000,  /* idle this long: ask the server before lending */
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
    STOP_BUDGET_MS = 40,    /* to stop a statement whose caller is late already */
    TIDY_MS = 1000          /* to roll back or reset a connection that comes back */
};

/* A connection is in exactly one list, idle or busy; move() alone changes that. The lock is a leaf;
 * nothing that may wait for the network happens under it. */
struct rg__mysql_pool {
    rg_pool_opts opts; /* strings owned */
    pthread_mutex_t lock;
    atomic_int pid;    /* process that the lists belong to; -1 while they are being taken over */
    rg__node idle;     /* head: used last */
    rg__node busy;
    rg__node waiters;  /* head: waits longest; not empty only when all of max_connections are lent */
    uint32_t n_idle;
    uint32_t n_busy;   /* lent, and being connected */
    bool closed;
    rg_err refused;    /* why the last connect failed */
    int64_t retry_at_ms, backoff_ms; /* circuit breaker; 0: closed */
};

typedef struct waiter {
    rg__node node;
    pthread_cond_t cond;
    rg__mysql *c;  /* handed over */
    bool granted;  /* may go on: with c, or with the right to connect */
} waiter;

/* ---- making and freeing ---- */

static bool copy_text(const char **field) {
    if (!*field) return true;
    *field = rg__strdup(*field);
    return *field != NULL;
}

static bool copy_opts(rg_pool_opts *to, const rg_pool_opts *from) {
    bool ok = true;
    *to = *from;
    const char **texts[] = {&to->name, &to->host, &to->unix_path, &to->user, &to->password,
                            &to->database, &to->tls_ca, &to->tls_cert, &to->tls_key};
    if (!to->name) to->name = "default";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (ok) ok = copy_text(texts[i]);
        else *texts[i] = NULL;
    }
    if (!to->port) to->port = 3306;
    if (!to->max_connections) to->max_connections = 8;
    if (!to->connect_timeout_ms) to->connect_timeout_ms = 3000;
    if (!to->timeout_ms) to->timeout_ms = 30000;
    if (!to->idle_timeout_ms) to->idle_timeout_ms = 60000;
    if (!to->max_statements) to->max_statements = 256;
    return ok;
}

static void free_opts(rg_pool_opts *o) {
    if (o->password) explicit_bzero((char *)o->password, strlen(o->password));
    const char *texts[] = {o->name, o->host, o->unix_path, o->user, o->password, o->database,
                           o->tls_ca, o->tls_cert, o->tls_key};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) rg__free((char *)texts[i]);
}

static void init_lists(rg__mysql_pool *pool) {
    pthread_mutex_init(&pool->lock, NULL);
    rg__list_init(&pool->idle);
    rg__list_init(&pool->busy);
    rg__list_init(&pool->waiters);
    pool->n_idle = pool->n_busy = 0;
}

rg__mysql_pool *rg__mysql_pool_new(const rg_pool_opts *opts, rg_err *err) {
    if ((!opts->host && !opts->unix_path) || !opts->database) {
        rg__fail(err, RG_ECONFIG, "a MySQL pool needs a host or a socket, and a database");
        return NULL;
    }
    rg__mysql_pool *pool = rg__calloc(1, sizeof *pool);
    if (!pool || !copy_opts(&pool->opts, opts)) {
        if (pool) free_opts(&pool->opts);
        rg__free(pool);
        rg__fail_memory(err);
        return NULL;
    }
    init_lists(pool);
    atomic_init(&pool->pid, (int)getpid());
    return pool;
}

const rg_pool_opts *rg__pool_opts(const rg__mysql_pool *pool) { return &pool->opts; }
const char *rg__mysql_pool_name(const rg__mysql_pool *pool) { return pool->opts.name; }
const char *rg__mysql_pool_database(const rg__mysql_pool *pool) { return pool->opts.database; }

/* ---- lists; under the lock ---- */

static void move(rg__mysql *c, rg__node *to) {
    rg__mysql_pool *pool = c->pool;
    rg__list_remove(&c->node);
    if (!to) return;
    rg__list_add_head(to, &c->node);
    if (to == &pool->idle) c->idle_since_ms = rg__now_ms();
}

static rg__mysql *of_node(rg__node *n) { return rg__container(n, rg__mysql, node); }

/* The idle connection used last, now busy. */
static rg__mysql *take_idle(rg__mysql_pool *pool) {
    if (rg__list_empty(&pool->idle)) return NULL;
    rg__mysql *c = of_node(pool->idle.next);
    move(c, &pool->busy);
    pool->n_idle--;
    pool->n_busy++;
    return c;
}

/* The one idle longest when its time is over; no longer in a list. */
static rg__mysql *take_expired(rg__mysql_pool *pool) {
    if (rg__list_empty(&pool->idle)) return NULL;
    rg__mysql *c = of_node(pool->idle.prev);
    if (rg__now_ms() - c->idle_since_ms < (int64_t)pool->opts.idle_timeout_ms) return NULL;
    move(c, NULL);
    pool->n_idle--;
    return c;
}

static bool may_connect(const rg__mysql_pool *pool) {
    return pool->n_busy + pool->n_idle < pool->opts.max_connections;
}

/* Lets the first waiter go on with c, or with the right to connect (c NULL, counted as busy). */
static bool grant(rg__mysql_pool *pool, rg__mysql *c) {
    if (rg__list_empty(&pool->waiters)) return false;
    waiter *w = rg__container(pool->waiters.next, waiter, node);
    rg__list_remove(&w->node);
    w->c = c;
    w->granted = true;
    pthread_cond_signal(&w->cond);
    return true;
}

/* A busy place becomes free. */
static void give_place(rg__mysql_pool *pool) {
    if (!grant(pool, NULL)) pool->n_busy--;
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
    if (next < BACKOFF_MIN_MS) next = BACKOFF_MIN_MS;
    if (next > BACKOFF_MAX_MS) next = BACKOFF_MAX_MS;
    pool->refused = *err;
    pool->backoff_ms = next;
    pool->retry_at_ms = rg__now_ms() + next;
}

/* ---- connecting ---- */

static void say_where(const rg__mysql_pool *pool, rg_err *err) {
    const rg_pool_opts *o = &pool->opts;
    if (o->unix_path) rg__err_prefix(err, "pool '%s' (%s): ", o->name, o->unix_path);
    else rg__err_prefix(err, "pool '%s' (%s:%u): ", o->name, o->host, o->port);
}

/* Fills the place that the caller holds; gives it back on failure. */
static int connect_place(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, rg_err *err) {
    rg_err why = {0};
    pthread_mutex_lock(&pool->lock);
    bool refused = breaker_open(pool, &why);
    pthread_mutex_unlock(&pool->lock);
    rg__mysql *c = refused ? NULL : rg__conn_open(pool, ctx, &why);
    if (!c && !refused) say_where(pool, &why);
    /* A caller in a hurry says nothing about the server. */
    bool hasty = !c && rg__now_ms() >= ctx->deadline_ms;
    pthread_mutex_lock(&pool->lock);
    bool closed = pool->closed;
    if (c && !closed) {
        pool->backoff_ms = 0;
        move(c, &pool->busy);
    } else {
        give_place(pool);
        if (!c && !refused && !hasty) note_refused(pool, &why);
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

static int fail_full(const rg__mysql_pool *pool, int64_t waited_ms, rg_err *err) {
    rg__fail(err, RG_ETIMEOUT, "pool '%s': all %u connections are busy (waited %lld ms)",
             pool->opts.name, pool->opts.max_connections, (long long)waited_ms);
    if (err) err->cls = RG_CLASS_WAIT;
    return RG_ETIMEOUT;
}

/* Under the lock, which it gives up while it waits. Then the caller holds a place. */
static int wait_turn(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, rg_err *err) {
    int64_t started = rg__now_ms();
    int64_t deadline = ctx->deadline_ms;
    if (deadline == RG__NO_DEADLINE) deadline = started + pool->opts.timeout_ms;
    waiter w = {0};
    rg__cond_init(&w.cond);
    rg__list_add_tail(&pool->waiters, &w.node);
    while (!w.granted && !pool->closed && rg__cond_wait(&w.cond, &pool->lock, deadline)) {}
    if (!w.granted) rg__list_remove(&w.node);
    pthread_cond_destroy(&w.cond);
    *out = w.c;
    if (w.granted) return 0;
    if (pool->closed) return rg__fail(err, RG_ECLOSED, "pool '%s' is closed", pool->opts.name);
    return fail_full(pool, rg__now_ms() - started, err);
}

/* A place, with a connection or (*out NULL) with the right to make one. */
static int take_place(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, rg_err *err) {
    int code = 0;
    *out = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->closed) {
        code = rg__fail(err, RG_ECLOSED, "pool '%s' is closed", pool->opts.name);
    } else if ((*out = take_idle(pool)) == NULL) {
        if (may_connect(pool)) pool->n_busy++;
        else code = wait_turn(pool, ctx, out, err);
    }
    pthread_mutex_unlock(&pool->lock);
    return code;
}

static bool healthy(rg__mysql *c, const rg__ctx *ctx) {
    if (!rg__conn_quiet(c)) return false;
    if (c->idle_since_ms == 0 || rg__now_ms() - c->idle_since_ms < PROBE_AFTER_MS) return true;
    return rg__conn_ping(c, ctx) == 0;
}

static void take_over(rg__mysql_pool *pool);

int rg__mysql_acquire(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, rg_err *err) {
    rg__mysql *c = NULL;
    rg__mysql_thread_begin();
    take_over(pool);
    *out = NULL;
    int code = take_place(pool, ctx, &c, err);
    if (code) return code;
    if (c && !healthy(c, ctx)) {
        pthread_mutex_lock(&pool->lock);
        move(c, NULL); /* keeps its place */
        pthread_mutex_unlock(&pool->lock);
        c->broken = true;
        rg__conn_close(c);
        c = NULL;
    }
    if (!c) return connect_place(pool, ctx, out, err);
    *out = c;
    return 0;
}

/* ---- giving back ---- */

static void tidy(rg__mysql *c) {
    rg__ctx ctx = {.deadline_ms = rg__now_ms() + TIDY_MS};
    if (c->broken || c->poisoned) return;
    if (c->tainted) rg__conn_reset(c, &ctx, NULL);
    else if (c->tx != RG__TXS_NONE) rg__mysql_rollback(c, &ctx);
}

static bool reusable(const rg__mysql *c) {
    return !c->broken && !c->poisoned && !c->extra && c->tx == RG__TXS_NONE;
}

void rg__mysql_release(rg__mysql *c) {
    rg__mysql_pool *pool = c->pool;
    rg__mysql *expired = NULL;
    if (c->pid != (pid_t)getpid()) { /* lent before a fork; no longer counted */
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
            move(c, &pool->idle);
            pool->n_idle++;
            pool->n_busy--;
        }
        expired = take_expired(pool);
    } else {
        move(c, NULL);
        if (!c->extra) give_place(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    if (!keep) rg__conn_close(c);
    if (expired) rg__conn_close(expired);
}

/* ---- killing ---- */

/* An idle connection, or one beside the pool's count, so that a full pool can still settle things. */
static rg__mysql *borrow_extra(rg__mysql_pool *pool, const rg__ctx *ctx, rg_err *err) {
    pthread_mutex_lock(&pool->lock);
    rg__mysql *c = pool->closed ? NULL : take_idle(pool);
    pthread_mutex_unlock(&pool->lock);
    if (c && rg__conn_quiet(c)) return c;
    if (c) {
        c->broken = true;
        rg__mysql_release(c);
    }
    c = rg__conn_open(pool, ctx, err);
    if (!c) say_where(pool, err);
    if (c) c->extra = true;
    return c;
}

int rg__mysql_kill(rg__mysql_pool *pool, const rg__ctx *ctx, unsigned long thread_id, rg_err *err) {
    char sql[64];
    rg_err why = {0};
    rg__mysql_thread_begin();
    take_over(pool);
    rg__mysql *c = borrow_extra(pool, ctx, err);
    if (!c) return err ? err->code : RG_EUNAVAILABLE;
    int len = snprintf(sql, sizeof sql, "KILL %sCONNECTION %lu",
                       c->flavour == RG__MARIADB ? "HARD " : "", thread_id);
    int code = rg__mysql_exec(c, ctx, sql, (size_t)len, NULL, &why);
    rg__mysql_release(c);
    if (why.sql_errno == 1094) return 0; /* no such thread: it is over */
    if (code && err) *err = why;
    return code;
}

void rg__pool_stop_statement(rg__mysql_pool *pool, unsigned long thread_id) {
    static __thread bool stopping; /* the kill may be late, too; it is not killed in turn */
    if (stopping) return;
    rg__ctx ctx = {.deadline_ms = rg__now_ms() + STOP_BUDGET_MS};
    stopping = true;
    rg__mysql_kill(pool, &ctx, thread_id, NULL);
    stopping = false;
}

/* ---- fork, shutdown, end ---- */

static void abandon_list(rg__node *list) {
    for (rg__node *n = list->next; n != list; n = n->next) rg__conn_abandon(of_node(n));
}

/* The lock may have been held by a thread that does not exist here: it is made anew. What was lent
 * is closed by whoever has it; what was idle is closed now. */
void rg__mysql_pool_abandon(rg__mysql_pool *pool) {
    if (atomic_load(&pool->pid) == (int)getpid()) return;
    abandon_list(&pool->busy);
    abandon_list(&pool->idle);
    while (!rg__list_empty(&pool->busy)) rg__list_remove(pool->busy.next);
    while (!rg__list_empty(&pool->idle)) {
        rg__mysql *c = of_node(pool->idle.next);
        rg__list_remove(&c->node);
        rg__conn_close(c);
    }
    init_lists(pool);
    pool->backoff_ms = 0;
    atomic_store(&pool->pid, (int)getpid());
}

/* The first thread of a forked child makes the pool its own, others wait for it. */
static void take_over(rg__mysql_pool *pool) {
    int mine = (int)getpid(), owner = atomic_load(&pool->pid);
    while (owner != mine) {
        if (owner != -1 && atomic_compare_exchange_strong(&pool->pid, &owner, -1))
            rg__mysql_pool_abandon(pool);
        else sched_yield();
        owner = atomic_load(&pool->pid);
    }
}

void rg__mysql_pool_shutdown(rg__mysql_pool *pool) {
    take_over(pool);
    pthread_mutex_lock(&pool->lock);
    pool->closed = true;
    for (rg__node *n = pool->busy.next; n != &pool->busy; n = n->next) rg__conn_cut(of_node(n));
    for (rg__node *n = pool->waiters.next; n != &pool->waiters; n = n->next)
        pthread_cond_signal(&rg__container(n, waiter, node)->cond);
    pthread_mutex_unlock(&pool->lock);
}

void rg__mysql_pool_free(rg__mysql_pool *pool) {
    if (!pool) return;
    take_over(pool);
    while (!rg__list_empty(&pool->idle)) {
        rg__mysql *c = of_node(pool->idle.next);
        move(c, NULL);
        rg__conn_close(c);
    }
    pthread_mutex_destroy(&pool->lock);
    free_opts(&pool->opts);
    rg__free(pool);
}

void rg__mysql_pool_stats(rg__mysql_pool *pool, uint32_t *busy, uint32_t *idle) {
    take_over(pool);
    pthread_mutex_lock(&pool->lock);
    *busy = pool->n_busy;
    *idle = pool->n_idle;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- the client library ---- */

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_failed;
static void init_library(void) { library_failed = mysql_library_init(0, NULL, NULL); }

int rg__mysql_library(rg_err *err) {
    pthread_once(&library_once, init_library);
    return library_failed ? rg__fail(err, RG_EINTERNAL, "mysql_library_init failed") : 0;
}

static __thread bool thread_begun;

void rg__mysql_thread_begin(void) {
    if (thread_begun) return;
    rg__mysql_library(NULL);
    thread_begun = mysql_thread_init() == 0;
}

void rg__mysql_thread_end(void) {
    if (!thread_begun) return;
    mysql_thread_end();
    thread_begun = false;
}
