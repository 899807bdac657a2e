/* SPDX-License-Identifier: MIT */
/* A consumer of a whole queue: which partitions it holds, and whose turn it is. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"
#include "base/thread.h"
#include "queue/stream.h"

enum {
    LEASE_MS = 4000,
    RENEW_MS = 500,        /* at most; a third of short leases */
    CLAIM_MS = 200,        /* between two tries of who holds nothing */
    COUNT_MS = 1000,       /* between two looks at the number of partitions */
    SHIFT_MS = 200,        /* one partition is worked on for so long, then it is others' turn; */
    LONG_SHIFT_MS = 600,   /* where each has a thread of its own: the end of a pass has all but one wait */
    FIRST_PAUSE_MS = 50,   /* of a partition that fails */
    LONGEST_PAUSE_MS = 2000,
    MAX_THREADS = 64
};

/* One partition. */
typedef struct post {
    rg__crew *crew;
    rg__queue part;
    rg__consumer *consumer;
    bool held;
    bool unfenced;            /* held since just now: the ledger does not know yet */
    unsigned long before;     /* connection of who held it, to be ended first; 0 none */
    unsigned long connection; /* ours; under the crew's lock */
    uint32_t failures;        /* in a row */
    int64_t paused_until_ms;
} post;

struct rg__crew {
    const rg__queue *q;
    rg__crew_config cfg;
    char owner[33];
    pthread_mutex_t lock;     /* guards what a share changes: held, unfenced, before, connection */
    post *posts[RG__PARTS];   /* made when they are first held */
    uint32_t n;               /* partitions of the queue */
    bool leased;
    bool member;              /* has leases, or may have some */
    int64_t asked_ms;         /* when the leases were renewed, or the partitions counted; 0 never */
    uint32_t turn;            /* who comes first in the next pass */
};

/* ---- life ---- */

static void name_owner(char out[33]) {
    uint8_t bytes[16];
    rg__random(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

rg__crew *rg__crew_new(const rg__queue *q, const rg__crew_config *cfg, rg_err *err) {
    if (!q->shared) {
        rg__fail(err, RG_EMISUSE, "queue %s has no Redis pool, so nothing is ever queued in it",
                 q->name);
        return NULL;
    }
    rg__crew *c = rg__calloc(1, sizeof *c);
    if (!c) {
        rg__fail_memory(err);
        return NULL;
    }
    c->q = q;
    if (cfg) c->cfg = *cfg;
    if (!c->cfg.lease_ms) c->cfg.lease_ms = LEASE_MS;
    if (!c->cfg.parallel) c->cfg.parallel = 1;
    if (c->cfg.parallel > MAX_THREADS) c->cfg.parallel = MAX_THREADS;
    name_owner(c->owner);
    pthread_mutex_init(&c->lock, NULL);
    c->n = q->n_parts;
    return c;
}

static void free_post(post *p) {
    if (!p) return;
    rg__consumer_free(p->consumer);
    rg__queue_deinit(&p->part);
    rg__free(p);
}

void rg__crew_free(rg__crew *c) {
    if (!c) return;
    for (uint32_t i = 0; i < RG__PARTS; i++) free_post(c->posts[i]);
    pthread_mutex_destroy(&c->lock);
    rg__free(c);
}

/* ---- who holds what ---- */

static void on_connection(void *arg, unsigned long id);

static int make_post(rg__crew *c, uint32_t part, rg_err *err) {
    if (c->posts[part]) return RG_OK;
    post *p = rg__calloc(1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    p->crew = c;
    int rc = rg__queue_part(c->q, part, &p->part, err);
    if (rc >= 0) p->consumer = rg__consumer_new(&p->part, &c->cfg.consumer, err);
    if (!p->consumer) {
        free_post(p);
        return RG_ENO_MEMORY;
    }
    rg__consumer_on_connection(p->consumer, on_connection, p);
    c->posts[part] = p;
    return RG_OK;
}

/* Under the lock. A partition that is taken is worked on once its fence is up. */
static int hold(rg__crew *c, uint32_t part, bool fresh, unsigned long before, rg_err *err) {
    int rc = make_post(c, part, err);
    if (rc < 0) return rc;
    post *p = c->posts[part];
    if (fresh || (c->leased && !p->held)) {
        p->unfenced = true;
        if (before) p->before = before;
    }
    if (!p->held) p->held = true; /* who works on it may be reading */
    if (p->part.n_parts != c->n) p->part.n_parts = c->n;
    return RG_OK;
}

static int absorb(rg__crew *c, const rg__share *s, rg_err *err) {
    int rc = RG_OK;
    c->n = s->n_parts;
    for (uint32_t i = 0; rc >= 0 && i < RG__PARTS; i++) {
        bool held = i < c->n && s->held[i];
        if (held) rc = hold(c, i, s->fresh[i], s->connection[i], err);
        else if (c->posts[i]) c->posts[i]->held = false;
    }
    return rc;
}

/* Under the lock. */
static int renew(rg__crew *c, const rg__ctx *ctx, uint32_t lease_ms, rg_err *err) {
    rg__share *s = rg__calloc(1, sizeof *s);
    unsigned long *connections = rg__calloc(RG__PARTS, sizeof *connections);
    int rc = s && connections ? RG_OK : rg__fail_memory(err);
    for (uint32_t i = 0; rc >= 0 && i < RG__PARTS; i++)
        if (c->posts[i] && c->posts[i]->held) connections[i] = c->posts[i]->connection;
    if (rc >= 0)
        rc = rg__shared_share(c->q->shared, ctx, c->q->name, c->owner, lease_ms, c->q->n_parts,
                              connections, s, err);
    if (rc >= 0) rc = absorb(c, s, err);
    rg__kill_point(RG__KILL_SHARED);
    rg__free(s);
    rg__free(connections);
    return rc;
}

/* Who takes the partition over ends this connection first: what it left open locks the ledger. */
static void on_connection(void *arg, unsigned long id) {
    post *p = arg;
    rg__crew *c = p->crew;
    rg__ctx ctx = {.deadline_ms = rg__now_ms() + RENEW_MS};
    pthread_mutex_lock(&c->lock);
    p->connection = id;
    if (c->leased && p->held) (void)renew(c, &ctx, c->cfg.lease_ms, NULL);
    pthread_mutex_unlock(&c->lock);
}

static int hold_all(rg__crew *c, rg_err *err) {
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < RG__PARTS; i++) {
        if (i < c->n) rc = hold(c, i, false, 0, err);
        else if (c->posts[i]) c->posts[i]->held = false;
    }
    return rc;
}

static void let_go(rg__crew *c) {
    for (uint32_t i = 0; i < RG__PARTS; i++)
        if (c->posts[i]) c->posts[i]->held = false;
}

static bool holds_any(const rg__crew *c) {
    for (uint32_t i = 0; i < c->n; i++)
        if (c->posts[i] && c->posts[i]->held) return true;
    return false;
}

static int64_t ask_every(const rg__crew *c) {
    if (!c->leased) return COUNT_MS;
    int64_t third = c->cfg.lease_ms / 3;
    int64_t most = holds_any(c) ? RENEW_MS : CLAIM_MS;
    return third < most ? third : most;
}

/* The number of partitions decides whether they are leased. */
static int ask(rg__crew *c, const rg__ctx *ctx, rg_err *err) {
    int rc = RG_OK;
    if (c->cfg.leasing != RG__LEASE_ALWAYS) {
        rc = rg__shared_parts(c->q->shared, ctx, c->q->name, c->q->n_parts, &c->n, err);
        bool leased = c->cfg.leasing == RG__LEASE_SEVERAL && c->n > 1;
        if (rc >= 0 && leased != c->leased) let_go(c);
        if (rc >= 0) c->leased = leased;
    } else {
        c->leased = true;
    }
    if (rc < 0) return rc;
    if (!c->leased) return hold_all(c, err);
    c->member = true;
    return renew(c, ctx, c->cfg.lease_ms, err);
}

/* Half a lease without renewal is as good as none. */
static int refresh(rg__crew *c, const rg__ctx *ctx, rg_err *err) {
    int64_t now = rg__now_ms();
    if (c->asked_ms && now - c->asked_ms < ask_every(c)) return RG_OK;
    pthread_mutex_lock(&c->lock);
    int rc = ask(c, ctx, err);
    if (rc < 0 && c->leased && now - c->asked_ms > c->cfg.lease_ms / 2) let_go(c);
    pthread_mutex_unlock(&c->lock);
    if (rc >= 0) c->asked_ms = now;
    return rc;
}

int rg__crew_leave(rg__crew *c, const rg__ctx *ctx, rg_err *err) {
    if (!c->member) return RG_OK;
    pthread_mutex_lock(&c->lock);
    let_go(c);
    int rc = renew(c, ctx, 0, err);
    pthread_mutex_unlock(&c->lock);
    c->member = rc < 0;
    c->asked_ms = 0;
    return rc;
}

/* ---- one partition's turn ---- */

/* The connection is somebody's, who may need it for something else by now: it is ended only when the
 * ledger is in fact locked. */
static int end_former(const post *p, unsigned long before, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *m = NULL;
    bool locked = false;
    if (!before) return RG_OK;
    int rc = rg__mysql_acquire(p->part.mysql, ctx, &m, err);
    if (rc < 0) return rc;
    rc = rg__ledger_is_locked(&p->part, m, ctx, &locked, err);
    rg__mysql_release(m);
    if (rc < 0) return rc;
    if (locked) rg__mysql_kill(p->part.mysql, ctx, before, NULL);
    return RG_OK;
}

/* Whether it has to be fenced, and whose connection goes first; who asks does so. A lease that is got anew
 * meanwhile asks for another fence. */
static bool take_order(post *p, unsigned long *before) {
    pthread_mutex_lock(&p->crew->lock);
    bool due = p->unfenced;
    *before = p->before;
    p->unfenced = false;
    p->before = 0;
    pthread_mutex_unlock(&p->crew->lock);
    return due;
}

static void order_fence(post *p, unsigned long before) {
    pthread_mutex_lock(&p->crew->lock);
    p->unfenced = true;
    if (!p->before) p->before = before;
    pthread_mutex_unlock(&p->crew->lock);
}

static int fence(post *p, const rg__ctx *ctx, rg_err *err) {
    unsigned long before;
    if (!take_order(p, &before)) return RG_OK;
    int rc = end_former(p, before, ctx, err);
    if (rc >= 0) rc = rg__consumer_fence(p->consumer, ctx, err);
    if (rc < 0) order_fence(p, before);
    return rc;
}

static void pause_post(post *p) {
    int64_t ms = FIRST_PAUSE_MS << (p->failures > 6 ? 6 : p->failures);
    p->failures++;
    p->paused_until_ms = rg__now_ms() + (ms < LONGEST_PAUSE_MS ? ms : LONGEST_PAUSE_MS);
}

static int work_on(post *p, const rg__ctx *ctx, int64_t until_ms, uint64_t *done, rg_err *err) {
    uint64_t n = 0;
    int rc = fence(p, ctx, err);
    do {
        n = 0;
        if (rc >= 0) rc = rg__consumer_step(p->consumer, ctx, 0, &n, err);
        *done += n;
    } while (rc >= 0 && n && rg__now_ms() < until_ms);
    if (rc >= 0 && p->crew->leased && rg__consumer_lost(p->consumer)) order_fence(p, 0);
    if (rc < 0) pause_post(p);
    else p->failures = 0;
    return rc;
}

/* ---- a pass over those that are held ---- */

typedef struct pass {
    post *posts[RG__PARTS];
    uint32_t n;
    atomic_uint next;
    atomic_ullong done;
    const rg__ctx *ctx;
    int64_t until_ms;     /* 0: one batch each */
    pthread_mutex_t lock; /* of what follows */
    int rc;
    rg_err fault;         /* the first one */
} pass;

static void take_turns(pass *w, const rg__ctx *ctx) {
    for (uint32_t i = atomic_fetch_add(&w->next, 1); i < w->n; i = atomic_fetch_add(&w->next, 1)) {
        rg_err err = {0};
        uint64_t done = 0;
        int rc = work_on(w->posts[i], ctx, w->until_ms, &done, &err);
        atomic_fetch_add(&w->done, done);
        if (rc >= 0) continue;
        pthread_mutex_lock(&w->lock);
        if (w->rc >= 0) w->fault = err;
        if (w->rc >= 0) w->rc = rc;
        pthread_mutex_unlock(&w->lock);
    }
}

static void *help(void *arg) {
    pass *w = arg;
    rg__ctx ctx = *w->ctx;
    ctx.trace = NULL; /* the log is the caller's */
    rg__mysql_thread_begin();
    take_turns(w, &ctx);
    rg__mysql_thread_end();
    return NULL;
}

static void choose(rg__crew *c, pass *w) {
    int64_t now = rg__now_ms();
    for (uint32_t k = 0; k < c->n; k++) {
        post *p = c->posts[(c->turn + k) % c->n];
        if (!p || !p->held || p->paused_until_ms > now) continue;
        if (rg__consumer_held_until(p->consumer) > now) continue;
        w->posts[w->n++] = p;
    }
    c->turn++;
}

static int64_t shift_ms(const rg__crew *c, const pass *w) {
    int64_t ms = w->n <= c->cfg.parallel ? LONG_SHIFT_MS : SHIFT_MS;
    int64_t most = c->leased ? c->cfg.lease_ms / 4 : ms; /* leases are renewed between passes */
    return ms < most ? ms : most;
}

static int run_pass(rg__crew *c, const rg__ctx *ctx, uint64_t *done, rg_err *err) {
    pass w = {.ctx = ctx};
    pthread_t threads[MAX_THREADS];
    uint32_t started = 0;
    choose(c, &w);
    if (c->cfg.parallel > 1 && w.n > 1) w.until_ms = rg__now_ms() + shift_ms(c, &w);
    pthread_mutex_init(&w.lock, NULL);
    while (started + 1 < c->cfg.parallel && started + 1 < w.n &&
           rg__thread_start(&threads[started], "regolith-apply", help, &w) == 0)
        started++;
    take_turns(&w, ctx);
    for (uint32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&w.lock);
    *done = atomic_load(&w.done);
    if (w.rc < 0 && err) *err = w.fault;
    return w.rc;
}

/* ---- waiting ---- */

/* When something is due besides entries. */
static int64_t next_due(const rg__crew *c, int64_t until_ms) {
    int64_t due = c->asked_ms + ask_every(c);
    int64_t now = rg__now_ms();
    if (until_ms < due) due = until_ms;
    for (uint32_t i = 0; i < c->n; i++) {
        const post *p = c->posts[i];
        if (!p || !p->held) continue;
        int64_t held = rg__consumer_held_until(p->consumer);
        if (p->paused_until_ms > now && p->paused_until_ms < due) due = p->paused_until_ms;
        if (held > now && held < due) due = held;
    }
    return due;
}

static int await(rg__crew *c, const rg__ctx *ctx, int64_t until_ms, rg_err *err) {
    const rg__queue *queues[RG__PARTS];
    rg__pos after[RG__PARTS];
    uint32_t n = 0;
    int64_t now = rg__now_ms();
    int64_t ms = next_due(c, until_ms) - now;
    for (uint32_t i = 0; i < c->n; i++) {
        const post *p = c->posts[i];
        if (!p || !p->held || p->paused_until_ms > now) continue;
        if (rg__consumer_held_until(p->consumer) > now) continue;
        if (!rg__consumer_at(p->consumer, &after[n].ms, &after[n].seq)) continue;
        queues[n++] = &p->part;
    }
    if (ms <= 0) return RG_OK;
    if (n) return rg__streams_wait(queues, after, n, ctx, (int)ms, err);
    rg__sleep_ms(ms);
    return RG_OK;
}

/* ---- the step ---- */

static bool is_plain(const rg__crew *c) { return !c->leased && c->n == 1; }

static int step(rg__crew *c, const rg__ctx *ctx, int64_t until_ms, uint64_t *done, rg_err *err) {
    for (;;) {
        int rc = rg__queue_fit(c->q, ctx, err);
        if (rc >= 0) rc = refresh(c, ctx, err);
        if (rc < 0) return rc;
        if (is_plain(c)) {
            int64_t left = next_due(c, until_ms) - rg__now_ms();
            rc = rg__consumer_step(c->posts[0]->consumer, ctx, left > 0 ? (uint32_t)left : 0, done, err);
        } else {
            rc = run_pass(c, ctx, done, err);
            if (rc >= 0 && !*done && rg__left_ms(until_ms) > 0) rc = await(c, ctx, until_ms, err);
        }
        if (rc < 0 || *done || rg__left_ms(until_ms) == 0) return rc;
    }
}

enum { ANSWER_MS = 150 }; /* left of the deadline: Redis is not exact when it waits */

int rg__crew_step(rg__crew *c, const rg__ctx *ctx, uint32_t max_wait_ms, uint64_t *done,
                  rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    int64_t until_ms = rg__now_ms() + max_wait_ms;
    if (until_ms > ctx->deadline_ms - ANSWER_MS) until_ms = ctx->deadline_ms - ANSWER_MS;
    *done = 0;
    int rc = step(c, ctx, until_ms, done, &fault);
    if (rc < 0 && err) *err = fault;
    return rc < 0 ? rc : RG_OK;
}

/* ---- figures ---- */

int rg__crew_letters(rg__crew *c, int (*take)(void *arg, uint64_t number), void *arg) {
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < RG__PARTS; i++)
        if (c->posts[i]) rc = rg__consumer_letters(c->posts[i]->consumer, take, arg);
    return rc;
}

rg__consumer_totals rg__crew_totals_get(rg__crew *c) {
    rg__consumer_totals sum = {0};
    for (uint32_t i = 0; i < RG__PARTS; i++) {
        if (!c->posts[i]) continue;
        rg__consumer_totals t = rg__consumer_totals_get(c->posts[i]->consumer);
        sum.applied += t.applied;
        sum.dead += t.dead;
        sum.batches += t.batches;
        sum.retries += t.retries;
        if (c->posts[i]->held) sum.lag += t.lag;
    }
    return sum;
}

uint32_t rg__crew_held(rg__crew *c, uint32_t *n_parts) {
    uint32_t n = 0;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->n; i++) n += c->posts[i] && c->posts[i]->held;
    *n_parts = c->n;
    pthread_mutex_unlock(&c->lock);
    return n;
}
