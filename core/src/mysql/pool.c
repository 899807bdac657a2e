/* SPDX-License-Identifier: MIT */
/* The pool as a whole: its options, its end, forks; and the client library's own life. */
#include "mysql/pool.h"

#include <sched.h>
#include <unistd.h>
#include "base/alloc.h"

enum { USUAL_MAX_PACKET = 16 << 20 };

/* ---- making and freeing ---- */

static bool copy_text(const char **field) {
    if (!*field) return true;
    *field = rg__strdup(*field);
    return *field != NULL;
}

static bool copy_opts(rg_pool_opts *to, const rg_pool_opts *from) {
    bool ok = true;
    *to = *from;
    const char **texts[] = {&to->name,     &to->host,   &to->unix_path, &to->user,   &to->password,
                            &to->database, &to->tls_ca, &to->tls_cert,  &to->tls_key};
    if (!to->name) to->name = "default";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (ok)
            ok = copy_text(texts[i]);
        else
            *texts[i] = NULL;
    }
    if (!to->port) to->port = 3306;
    if (!to->max_connections) to->max_connections = 8;
    if (!to->connect_timeout_ms) to->connect_timeout_ms = 3000;
    if (!to->timeout_ms) to->timeout_ms = 30000;
    if (!to->idle_timeout_ms) to->idle_timeout_ms = 60000;
    if (!to->max_statements) to->max_statements = 256;
    if (!to->max_replica_lag_ms) to->max_replica_lag_ms = 10000;
    return ok;
}

static void free_opts(rg_pool_opts *o) {
    if (o->password) explicit_bzero((char *)o->password, strlen(o->password));
    const char *texts[] = {o->name,     o->host,   o->unix_path, o->user,   o->password,
                           o->database, o->tls_ca, o->tls_cert,  o->tls_key};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        rg__free((char *)texts[i]);
}

static void init_lists(rg__mysql_pool *pool) {
    pthread_mutex_init(&pool->lock, NULL);
    rg__list_init(&pool->idle);
    rg__list_init(&pool->busy);
    rg__list_init(&pool->waiters);
    pool->n_idle = pool->n_busy = pool->n_reserved = 0;
    rg__cond_init(&pool->connected);
    pool->n_connecting = 0;
    rg__cond_init(&pool->stopped);
    pool->stopping = false;
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
    atomic_init(&pool->pid, (int)rg__pid());
    return pool;
}

const rg_pool_opts *rg__pool_opts(const rg__mysql_pool *pool) {
    return &pool->opts;
}
const char *rg__mysql_pool_name(const rg__mysql_pool *pool) {
    return pool->opts.name;
}
const char *rg__mysql_pool_database(const rg__mysql_pool *pool) {
    return pool->opts.database;
}

size_t rg__mysql_pool_max_packet(const rg__mysql_pool *pool) {
    size_t known = atomic_load(&pool->max_packet);
    return known ? known : USUAL_MAX_PACKET;
}

/* ---- fork, shutdown, end ---- */

static void abandon_list(rg__node *list) {
    for (rg__node *n = list->next; n != list; n = n->next)
        rg__conn_abandon(rg__pool_conn(n));
}

/* The lock may have been held by a thread that does not exist here: it is made anew. What was lent
 * is closed by whoever has it; what was idle is closed now. */
void rg__mysql_pool_abandon(rg__mysql_pool *pool) {
    if (atomic_load(&pool->pid) == (int)rg__pid()) return;
    abandon_list(&pool->busy);
    abandon_list(&pool->idle);
    while (!rg__list_empty(&pool->busy))
        rg__list_remove(pool->busy.next);
    while (!rg__list_empty(&pool->idle)) {
        rg__mysql *c = rg__pool_conn(pool->idle.next);
        rg__list_remove(&c->node);
        rg__conn_close(c);
    }
    init_lists(pool);
    pool->backoff_ms = 0;
    atomic_store(&pool->pid, (int)rg__pid());
}

/* The first thread of a forked child makes the pool its own, others wait for it. */
void rg__pool_take_over(rg__mysql_pool *pool) {
    int mine = (int)rg__pid(), owner = atomic_load(&pool->pid);
    while (owner != mine) {
        if (owner != -1 && atomic_compare_exchange_strong(&pool->pid, &owner, -1))
            rg__mysql_pool_abandon(pool);
        else
            sched_yield();
        owner = atomic_load(&pool->pid);
    }
}

/* One idle connection, no longer in a list; NULL when there is none. */
static rg__mysql *remove_idle(rg__mysql_pool *pool) {
    rg__mysql *c = NULL;
    pthread_mutex_lock(&pool->lock);
    if (!rg__list_empty(&pool->idle)) {
        c = rg__pool_conn(pool->idle.next);
        rg__pool_move(c, NULL);
        pool->n_idle--;
    }
    pthread_mutex_unlock(&pool->lock);
    return c;
}

static void close_idle(rg__mysql_pool *pool) {
    for (rg__mysql *c = remove_idle(pool); c; c = remove_idle(pool))
        rg__conn_close(c);
}

/* Idle ones are closed here: handles that somebody forgot may keep the pool for long. */
void rg__mysql_pool_shutdown(rg__mysql_pool *pool) {
    rg__pool_take_over(pool);
    pthread_mutex_lock(&pool->lock);
    pool->closed = true;
    for (rg__node *n = pool->busy.next; n != &pool->busy; n = n->next)
        rg__conn_cut(rg__pool_conn(n));
    for (rg__node *n = pool->waiters.next; n != &pool->waiters; n = n->next)
        pthread_cond_signal(&rg__container(n, rg__waiter, node)->cond);
    pthread_cond_broadcast(&pool->connected);
    pthread_mutex_unlock(&pool->lock);
    close_idle(pool);
    rg__replicas_shutdown(pool->replicas);
}

void rg__mysql_pool_free(rg__mysql_pool *pool) {
    if (!pool) return;
    rg__pool_take_over(pool);
    rg__pool_stop_wait(pool);
    close_idle(pool);
    rg__replicas_free(pool->replicas);
    pthread_cond_destroy(&pool->stopped);
    pthread_mutex_destroy(&pool->lock);
    free_opts(&pool->opts);
    rg__free(pool);
}

void rg__mysql_pool_stats(rg__mysql_pool *pool, uint32_t *busy, uint32_t *idle) {
    rg__pool_take_over(pool);
    pthread_mutex_lock(&pool->lock);
    *busy = pool->n_busy + pool->n_reserved;
    *idle = pool->n_idle;
    pthread_mutex_unlock(&pool->lock);
}

void rg__mysql_pool_figures(rg__mysql_pool *pool, rg__pool_figures *out) {
    *out = (rg__pool_figures){.limit = pool->opts.max_connections, .errors = atomic_load(&pool->errors)};
    rg__pool_take_over(pool);
    pthread_mutex_lock(&pool->lock);
    out->busy = pool->n_busy + pool->n_reserved;
    out->idle = pool->n_idle;
    for (rg__node *n = pool->waiters.next; n != &pool->waiters; n = n->next) out->waiting++;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- the client library ---- */

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_failed;
static void init_library(void) {
    library_failed = mysql_library_init(0, NULL, NULL);
}

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
