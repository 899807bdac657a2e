/* SPDX-License-Identifier: MIT */
/* The keeper: renews leases, tells of lost ones, gives back what handles left behind. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/thread.h"
#include "lock/keeper.h"

enum { IDLE_MS = 10000 }; /* connections that nothing needs are closed when nothing happens so long */

/* ---- a batch: locks of a list that are due, with a reference each ---- */

typedef struct batch {
    rg__dlock *locks[RG__KEEPER_BATCH];
    size_t n;
    char answers[RG__KEEPER_BATCH];
} batch;

static rg__dlock *of_node(rg__node *n) { return rg__container(n, rg__dlock, node); }

static bool due_for_renewal(const rg__dlock *l, int64_t now) {
    return l->opts.renew && l->renew_at <= now && now < l->renew_until;
}

static void collect(rg__keeper *k, rg__node *list, int64_t now, batch *b) {
    pthread_mutex_lock(&k->lock);
    for (rg__node *n = list->next; n != list && b->n < RG__KEEPER_BATCH; n = n->next) {
        rg__dlock *l = of_node(n);
        if (list == &k->held && !due_for_renewal(l, now)) continue;
        rg__dlock_ref(l);
        b->locks[b->n++] = l;
    }
    pthread_mutex_unlock(&k->lock);
}

static void put_back(batch *b) {
    for (size_t i = 0; i < b->n; i++) rg__dlock_unref(b->locks[i]);
    b->n = 0;
}

/* ---- its own connection ---- */

static rg__ctx own_ctx(const rg__keeper *k) {
    return (rg__ctx){.deadline_ms = rg__now_ms() + RG__KEEPER_CALL_MS, .metrics = k->metrics};
}

static bool has_voice(rg__keeper *k, const rg__ctx *ctx) {
    if (k->voice) return true;
    if (rg__now_ms() < k->voice_at) return false;
    if (rg__redis_dedicated(k->pool, ctx, &k->voice, NULL) == RG_OK) return true;
    k->voice = NULL;
    k->voice_at = rg__now_ms() + RG__KEEPER_RETRY_MS;
    return false;
}

/* After a failure the connection is made anew. */
static int call(rg__keeper *k, bool renew, batch *b) {
    const rg__ctx ctx = own_ctx(k);
    if (!has_voice(k, &ctx)) return RG_EUNAVAILABLE;
    int rc = renew ? rg__dlock_renew_all(k->voice, &ctx, b->locks, b->n, b->answers, NULL)
                   : rg__dlock_free_all(k->voice, &ctx, b->locks, b->n, b->answers, NULL);
    if (rc == RG_OK) return rc;
    rg__redis_release(k->voice);
    k->voice = NULL;
    k->voice_at = rg__now_ms() + RG__KEEPER_RETRY_MS;
    return rc;
}

/* ---- its work ---- */

static void expire(rg__keeper *k) {
    int64_t now = rg__dlock_now();
    pthread_mutex_lock(&k->lock);
    for (rg__node *n = k->held.next, *next; n != &k->held; n = next) {
        next = n->next;
        rg__dlock *l = of_node(n);
        if (l->valid_until <= now) rg__dlock_lose(l);
    }
    pthread_mutex_unlock(&k->lock);
}

/* One that was given back meanwhile, or renewed by its owner, is left alone. */
static void settle_renewal(rg__dlock *l, int rc, bool ours, int64_t asked_at) {
    if (l->state != RG__DLOCK_HELD) return;
    if (rc < 0) l->renew_at = rg__dlock_now() + RG__KEEPER_RETRY_MS;
    else if (!ours) rg__dlock_lose(l);
    else rg__dlock_renewed(l, asked_at);
}

static void renew(rg__keeper *k) {
    batch b = {.n = 0};
    int64_t asked_at = rg__dlock_now();
    collect(k, &k->held, asked_at, &b);
    if (b.n == 0) return;
    int rc = call(k, true, &b);
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < b.n; i++) settle_renewal(b.locks[i], rc, b.answers[i], asked_at);
    pthread_mutex_unlock(&k->lock);
    put_back(&b);
}

static void give_back(rg__keeper *k) {
    batch b = {.n = 0};
    int64_t now = rg__dlock_now();
    if (now < k->drop_at) return;
    collect(k, &k->dropped, now, &b);
    if (b.n == 0) return;
    int rc = call(k, false, &b);
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < b.n; i++) {
        rg__dlock *l = b.locks[i];
        if (rc < 0 && rg__dlock_now() < l->forget_at) continue;
        rg__list_remove(&l->node);
        rg__dlock_unref(l); /* the list's */
    }
    if (rc < 0) k->drop_at = rg__dlock_now() + RG__KEEPER_RETRY_MS;
    pthread_mutex_unlock(&k->lock);
    put_back(&b);
}

/* ---- when to look again ---- */

static int64_t next_of_held(const rg__keeper *k) {
    int64_t at = INT64_MAX;
    for (const rg__node *n = k->held.next; n != &k->held; n = n->next) {
        const rg__dlock *l = of_node((rg__node *)(uintptr_t)n);
        if (l->valid_until < at) at = l->valid_until;
        if (l->opts.renew && l->renew_at < l->renew_until && l->renew_at < at) at = l->renew_at;
    }
    return at;
}

/* Milliseconds, at most IDLE_MS. */
static int pause_ms(rg__keeper *k, int64_t waiters_at) {
    int64_t now = rg__dlock_now();
    pthread_mutex_lock(&k->lock);
    int64_t left = next_of_held(k) - now;
    if (!rg__list_empty(&k->dropped) && k->drop_at - now < left) left = k->drop_at - now;
    bool deaf = !rg__list_empty(&k->topics) && !k->ears;
    pthread_mutex_unlock(&k->lock);
    if (waiters_at != INT64_MAX && waiters_at - rg__now_ms() < left) left = waiters_at - rg__now_ms();
    if (deaf && left > RG__KEEPER_RETRY_MS) left = RG__KEEPER_RETRY_MS;
    if (left > IDLE_MS) left = IDLE_MS;
    return left > 0 ? (int)left : 0;
}

static void close_idle(rg__keeper *k) {
    pthread_mutex_lock(&k->lock);
    bool quiet = rg__list_empty(&k->held) && rg__list_empty(&k->dropped);
    bool alone = rg__list_empty(&k->topics);
    pthread_mutex_unlock(&k->lock);
    if (quiet && k->voice) {
        rg__redis_release(k->voice);
        k->voice = NULL;
    }
    if (alone && k->ears) {
        rg__redis_release(k->ears);
        k->ears = NULL;
    }
}

static void wait_some(rg__keeper *k) {
    int ms = pause_ms(k, rg__ears_fire_due(k));
    struct pollfd p[] = {{.fd = k->wake, .events = POLLIN},
                         {.fd = k->ears ? rg__redis_fd(k->ears) : -1, .events = POLLIN}};
    int n = poll(p, 2, ms);
    uint64_t count;
    if (n > 0 && p[0].revents && read(k->wake, &count, sizeof count) < 0) return;
    if (n > 0 && p[1].revents) rg__ears_hear(k);
    if (n == 0 && ms == IDLE_MS) close_idle(k);
}

/* What is held when the engine closes is given back, once. */
static void drop_held(rg__keeper *k) {
    pthread_mutex_lock(&k->lock);
    while (!rg__list_empty(&k->held)) {
        rg__dlock *l = of_node(k->held.next);
        rg__list_remove(&l->node);
        l->state = RG__DLOCK_RELEASED;
        l->told = NULL;
        rg__list_add_tail(&k->dropped, &l->node);
    }
    k->drop_at = 0;
    pthread_mutex_unlock(&k->lock);
}

static void forget_dropped(rg__keeper *k) {
    pthread_mutex_lock(&k->lock);
    while (!rg__list_empty(&k->dropped)) {
        rg__dlock *l = of_node(k->dropped.next);
        rg__list_remove(&l->node);
        rg__dlock_unref(l);
    }
    pthread_mutex_unlock(&k->lock);
}

static bool has_dropped(rg__keeper *k) {
    pthread_mutex_lock(&k->lock);
    bool some = !rg__list_empty(&k->dropped) && rg__dlock_now() >= k->drop_at;
    pthread_mutex_unlock(&k->lock);
    return some;
}

static void *run(void *arg) {
    rg__keeper *k = arg;
    while (!atomic_load(&k->stop)) {
        expire(k);
        renew(k);
        give_back(k);
        rg__ears_tend(k);
        wait_some(k);
    }
    rg__ears_fire_all(k);
    drop_held(k);
    while (has_dropped(k)) give_back(k); /* a failure ends it: then drop_at is not reached */
    forget_dropped(k);
    rg__redis_release(k->voice);
    rg__redis_release(k->ears);
    k->voice = k->ears = NULL;
    return NULL;
}

/* ---- life ---- */

rg__keeper *rg__keeper_new(rg__redis_pool *pool, const char *prefix, rg__metrics *metrics, rg_err *err) {
    rg__keeper *k = rg__calloc(1, sizeof *k);
    rg__buf locks = {0};
    rg__buf fence = {0};
    rg__buf_fmt(&locks, "{%s}:lock:", prefix);
    rg__buf_fmt(&fence, "{%s}:fence", prefix);
    rg__buf_cstr(&locks);
    rg__buf_cstr(&fence);
    if (!k || locks.failed || fence.failed) {
        rg__buf_deinit(&locks);
        rg__buf_deinit(&fence);
        rg__free(k);
        rg__fail_memory(err);
        return NULL;
    }
    *k = (rg__keeper){.pool = pool, .metrics = metrics, .prefix = locks.p, .fence = fence.p, .wake = -1};
    pthread_mutex_init(&k->lock, NULL);
    rg__list_init(&k->held);
    rg__list_init(&k->dropped);
    rg__list_init(&k->topics);
    return k;
}

void rg__keeper_wake(rg__keeper *k) {
    uint64_t one = 1;
    if (k->wake >= 0 && write(k->wake, &one, sizeof one) < 0) return; /* full: it will look */
}

/* The parent goes on with them; here they are lost from the start. */
static void abandon_list(rg__node *list) {
    while (!rg__list_empty(list)) {
        rg__dlock *l = of_node(list->next);
        rg__list_remove(&l->node);
        l->state = RG__DLOCK_LOST;
        l->told = NULL;
        rg__dlock_unref(l);
    }
}

void rg__keeper_check_process(rg__keeper *k) {
    int pid = atomic_load_explicit(&k->pid, memory_order_relaxed);
    if (pid == 0 || pid == (int)getpid()) return;
    pthread_mutex_init(&k->lock, NULL);
    abandon_list(&k->held);
    abandon_list(&k->dropped);
    rg__redis_pool_abandon(k->pool);
    if (k->wake >= 0) close(k->wake);
    k->wake = -1;
    k->voice = k->ears = NULL;
    while (!rg__list_empty(&k->topics)) /* their waiters' threads are the parent's */
        rg__list_remove(k->topics.next);
    atomic_store(&k->pid, 0);
}

/* Under the lock. */
static int start(rg__keeper *k, rg_err *err) {
    if (k->closed) return rg__fail(err, RG_ECLOSED, "the engine is closed");
    k->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (k->wake < 0) return rg__fail(err, RG_ELIMIT, "eventfd: %m");
    int rc = rg__thread_start(&k->thread, "rg-keeper", run, k);
    if (rc == RG_OK) {
        atomic_store(&k->pid, (int)getpid());
        return RG_OK;
    }
    close(k->wake);
    k->wake = -1;
    return rg__fail(err, rc, "no thread to keep locks alive");
}

int rg__keeper_start(rg__keeper *k, rg_err *err) {
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    int rc = k->pid && !k->closed ? RG_OK : start(k, err);
    pthread_mutex_unlock(&k->lock);
    return rc;
}

void rg__keeper_stop(rg__keeper *k) {
    if (!k) return;
    rg__keeper_check_process(k);
    pthread_mutex_lock(&k->lock);
    bool mine = k->pid != 0 && !k->closed;
    k->closed = true;
    atomic_store(&k->stop, true);
    rg__keeper_wake(k);
    pthread_mutex_unlock(&k->lock);
    if (!mine) return;
    pthread_join(k->thread, NULL);
    close(k->wake);
    k->wake = -1;
}

void rg__keeper_free(rg__keeper *k) {
    if (!k) return;
    rg__keeper_stop(k);
    while (!rg__list_empty(&k->topics)) rg__topic_free(rg__container(k->topics.next, rg__topic, node));
    pthread_mutex_destroy(&k->lock);
    rg__free(k->prefix);
    rg__free(k->fence);
    rg__free(k);
}
