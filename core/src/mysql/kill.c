/* SPDX-License-Identifier: MIT */
/* Ending what a server still does for a connection that nobody waits for. */
#include "mysql/pool.h"

#include <stdio.h>
#include "base/thread.h"

enum {
    STOP_BUDGET_MS = 40,  /* to stop a statement whose caller is late already */
    STOP_WITHIN_MS = 5000 /* later the number might be another connection's, after a restart */
};

static int kill_by(rg__mysql *c, const rg__ctx *ctx, unsigned long thread_id, rg_err *err) {
    char sql[64];
    rg_err why = {0};
    int len = snprintf(sql, sizeof sql, "KILL %sCONNECTION %lu",
                       c->flavour == RG__MARIADB ? "HARD " : "", thread_id);
    int code = rg__mysql_exec(c, ctx, sql, (size_t)len, NULL, &why);
    if (why.sql_errno == 1094) return 0; /* no such thread: it is over */
    if (code && err) *err = why;
    return code;
}

static unsigned long take_stop(rg__mysql_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    unsigned long id = rg__now_ms() < pool->stop_until_ms ? pool->stop_id : 0;
    pool->stop_id = 0;
    pthread_mutex_unlock(&pool->lock);
    return id;
}

/* A connection that has just served stops what another one left running. */
void rg__pool_stop_left(rg__mysql *c) {
    rg__ctx ctx = {.deadline_ms = rg__now_ms() + STOP_BUDGET_MS};
    unsigned long id = c->pool->stop_id ? take_stop(c->pool) : 0;
    if (id) kill_by(c, &ctx, id, NULL);
}

/* An idle connection, or one beside the pool's count, so that a full pool can still settle things.
 * idle_only: where connecting cannot be bounded to the milliseconds that there are. */
static rg__mysql *borrow_extra(rg__mysql_pool *pool, const rg__ctx *ctx, bool idle_only,
                               rg_err *err) {
    pthread_mutex_lock(&pool->lock);
    rg__mysql *c = pool->closed ? NULL : rg__pool_take_idle(pool);
    pthread_mutex_unlock(&pool->lock);
    if (c && rg__conn_quiet(c)) return c;
    if (c) {
        c->broken = true;
        rg__mysql_release(c);
    }
    if (idle_only) return NULL;
    c = rg__conn_open(pool, ctx, err);
    if (!c) rg__pool_say_where(pool, err);
    if (c) c->extra = true;
    return c;
}

int rg__mysql_kill(rg__mysql_pool *pool, const rg__ctx *ctx, unsigned long thread_id, rg_err *err) {
    rg_err why = {.code = RG_EUNAVAILABLE};
    rg__mysql_thread_begin();
    rg__pool_take_over(pool);
    rg__mysql *c = borrow_extra(pool, ctx, false, &why);
    if (!c) {
        if (err) *err = why;
        return why.code;
    }
    int code = kill_by(c, ctx, thread_id, err);
    rg__mysql_release(c);
    return code;
}

static void stop_later(rg__mysql_pool *pool, unsigned long thread_id) {
    pthread_mutex_lock(&pool->lock);
    pool->stop_id = thread_id;
    pool->stop_until_ms = rg__now_ms() + STOP_WITHIN_MS;
    pthread_mutex_unlock(&pool->lock);
}

/* Stops what was left until there is nothing more. */
static void *stop_apart(void *arg) {
    rg__mysql_pool *pool = arg;
    rg__mysql_thread_begin();
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        unsigned long id = !pool->closed && rg__now_ms() < pool->stop_until_ms ? pool->stop_id : 0;
        pool->stop_id = 0;
        pool->stopping = id != 0;
        if (!id) pthread_cond_broadcast(&pool->stopped);
        pthread_mutex_unlock(&pool->lock);
        if (!id) break;
        rg__ctx ctx = {.deadline_ms = rg__now_ms() + STOP_WITHIN_MS};
        rg__mysql_kill(pool, &ctx, id, NULL);
    }
    rg__mysql_thread_end();
    return NULL;
}

/* On a thread of its own, one a pool, that may take its time to connect. */
static void stop_by_thread(rg__mysql_pool *pool) {
    pthread_t thread;
    pthread_mutex_lock(&pool->lock);
    bool mine = !pool->stopping && !pool->closed;
    if (mine) pool->stopping = rg__thread_start(&thread, "rg-stop", stop_apart, pool) == RG_OK;
    if (mine && pool->stopping) pthread_detach(thread);
    pthread_mutex_unlock(&pool->lock);
}

void rg__pool_stop_wait(rg__mysql_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    while (pool->stopping) rg__cond_wait(&pool->stopped, &pool->lock, RG__NO_DEADLINE);
    pthread_mutex_unlock(&pool->lock);
}

void rg__pool_stop_statement(rg__mysql_pool *pool, unsigned long thread_id) {
    static __thread bool stopping; /* the kill may be late, too; it is not killed in turn */
    if (stopping) return;
    rg__ctx ctx = {.deadline_ms = rg__now_ms() + STOP_BUDGET_MS};
    stopping = true;
    rg__mysql *c = borrow_extra(pool, &ctx, !RG__WAIT_HOOK, NULL);
    bool stopped = c && kill_by(c, &ctx, thread_id, NULL) == 0;
    if (c) rg__mysql_release(c);
    if (!stopped) stop_later(pool, thread_id);
    if (!stopped && !RG__WAIT_HOOK) stop_by_thread(pool);
    stopping = false;
}
