/* SPDX-License-Identifier: MIT */
/* The synchronous flush: SQL, MARK, COMMIT, PUBLISH (consistency.md 2.2). */
#include "unit/flush.h"

#include "base/alloc.h"
#include "unit/load.h"
#include "unit/outage.h"
#include "queue/outbox.h"
#include "unit/load.h"
#include "unit/outage.h"

enum { TRIES = 5, RECONNECTS = 2, PENDING_WAIT_MS = 5, ASK_MS = 100 };

/* One MySQL pool's part of a flush. */
typedef struct part {
    rg__mysql *conn;
    rg__plan plan;
    bool begun;
    rg__tx *tx;     /* the caller's transaction that it is a step of; NULL: one of its own */
    size_t noted;   /* writes that were noted before */
    bool guarded;   /* a savepoint stands before its first statement */
} part;

/* One flush attempt. */
typedef struct flush {
    rg__store *store;
    const rg__ctx *ctx;
    rg__items *items;
    part *parts;          /* by MySQL pool */
    rg__changes *changes; /* by Redis pool */
    bool *marked;         /* by Redis pool */
    rg__txid tx;          /* drawn when it marks something */
    bool named;           /* it was */
    bool asking;          /* MARK only to learn what is pending */
} flush;

/* ---- parts: one transaction a pool ---- */

static bool tells_redis(const flush *f, int pool) {
    for (size_t i = 0; i < f->items->n; i++) {
        const rg_type *t = f->items->items[i].type;
        if (t->mysql_pool == pool && rg__type_shared(t) && rg__store_shared(f->store, t)) return true;
    }
    return false;
}

/* A single statement without caches needs no transaction of its own. */
static bool needs_transaction(const flush *f, int pool, const rg__mysql *c, const rg__plan *plan) {
    if (rg__items_tell(f->items, pool)) return true;
    if (plan->n != 1 || tells_redis(f, pool) || plan->steps[0].type->version_column) return true;
    for (uint32_t i = 0; i < f->store->n_mysql; i++)
        if ((int)i != pool && f->parts[i].plan.n) return true;
    return !rg__step_is_atomic(f->items, c, &plan->steps[0]);
}

/* ---- as a step of the caller's transaction ---- */

static bool inside(const flush *f, const rg__item *it) { return f->parts[it->type->mysql_pool].tx; }

/* The suspended transaction that has written the row waits for this one: nobody would ever wake up. */
static int refuse_own_locks(const flush *f, int pool, rg_err *err) {
    for (size_t i = 0; i < f->items->n; i++) {
        const rg__item *it = &f->items->items[i];
        if (it->type->mysql_pool != pool || !rg__tx_suspended_wrote(f->ctx, it->type, it->id)) continue;
        rg__fail(err, RG_ESELF_DEADLOCK,
                 "%s %llu was written by the transaction that is suspended for this one", it->type->name,
                 (unsigned long long)it->id);
        if (err) err->item = (int32_t)i;
        return RG_ESELF_DEADLOCK;
    }
    return RG_OK;
}

static int note_writes(const flush *f, const part *p, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < f->items->n; i++) {
        const rg__item *it = &f->items->items[i];
        if (f->parts[it->type->mysql_pool].tx != p->tx) continue;
        rg__shared *shared = rg__type_shared(it->type) ? rg__store_shared(f->store, it->type) : NULL;
        rc = rg__tx_note(p->tx, it->type, shared, it->id, it->write == RG_INSERT ? NULL : it->before,
                         it->write == RG_DELETE ? NULL : it->after, err);
    }
    return rc;
}

/* One statement does all or nothing by itself; several are undone together, and with those of other
 * pools. */
static bool needs_guard(const flush *f, const part *p, const rg__mysql *c) {
    for (uint32_t i = 0; i < f->store->n_mysql; i++)
        if (&f->parts[i] != p && f->parts[i].plan.n) return true;
    if (rg__items_tell(f->items, (int)(p - f->parts))) return true;
    return p->plan.n > 1 || !rg__step_is_atomic(f->items, c, &p->plan.steps[0]);
}

static int run_inside(flush *f, part *p, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__tx_use(p->tx, f->ctx, RG__TX_WRITES, &c, err);
    if (rc < 0) return rc;
    p->noted = rg__tx_noted(p->tx);
    if (needs_guard(f, p, c)) {
        if ((rc = rg__tx_guard(p->tx, f->ctx, err)) < 0) return rc;
        p->guarded = true;
    }
    for (size_t i = 0; rc >= 0 && i < p->plan.n; i++)
        rc = rg__step_run(f->items, f->ctx, c, &p->plan.steps[i], err);
    int pool = (int)(p - f->parts);
    if (rc >= 0 && rg__items_tell(f->items, pool))
        rc = rg__items_publish(f->items, pool, &f->store->queues[pool], c, f->ctx, err);
    bool ran = rc >= 0;
    if (ran) rc = note_writes(f, p, err);
    if (ran && rc < 0 && !p->guarded) rg__tx_give_up(p->tx, err);
    return rg__tx_after(p->tx, rc, err);
}

/* The flush failed: what it did in the caller's transactions goes, what they did before stays. */
static void undo_inside(const flush *f) {
    for (uint32_t i = 0; i < f->store->n_mysql; i++) {
        const part *p = &f->parts[i];
        if (!p->guarded) continue;
        rg__tx_unguard(p->tx, f->ctx);
        rg__tx_forget(p->tx, p->noted);
    }
}

/* ---- as a transaction of its own ---- */

static int run_part(flush *f, int pool, rg_err *err) {
    part *p = &f->parts[pool];
    if (p->plan.n == 0) return RG_OK;
    int rc = f->ctx->nested ? refuse_own_locks(f, pool, err) : RG_OK;
    bool tells = rg__items_tell(f->items, pool);
    if (rc >= 0 && tells) rc = rg__outbox_ready(&f->store->queues[pool], f->ctx, err);
    if (rc < 0) return rc;
    if (p->tx) return run_inside(f, p, err);
    rc = rg__mysql_acquire(f->store->mysql[pool], f->ctx, &p->conn, err);
    if (rc < 0) return rc;
    if (needs_transaction(f, pool, p->conn, &p->plan)) {
        rc = rg__mysql_start(p->conn, f->ctx, RG__ISOLATION_DEFAULT, false, err);
        if (rc < 0) return rc;
        p->begun = true;
    }
    for (size_t i = 0; rc >= 0 && i < p->plan.n; i++)
        rc = rg__step_run(f->items, f->ctx, p->conn, &p->plan.steps[i], err);
    if (rc >= 0 && tells)
        rc = rg__items_publish(f->items, pool, &f->store->queues[pool], p->conn, f->ctx, err);
    return rc;
}

/* ---- the cache protocol around it ---- */

static int collect_changes(flush *f, rg_err *err) {
    for (size_t i = 0; i < f->items->n; i++) {
        rg__item *it = &f->items->items[i];
        rg__shared *shared = rg__store_shared(f->store, it->type);
        if (!shared || !rg__type_shared(it->type) || (inside(f, it) && !f->asking)) continue;
        const void *before = it->write == RG_INSERT ? NULL : rg_block_data(it->before);
        int rc = rg__changes_add(&f->changes[it->type->redis_pool], shared, it->type, before,
                                 it->write == RG_DELETE ? NULL : it->after, err);
        if (rc < 0) return rc;
    }
    return RG_OK;
}

/* Redis is away: the changes are told later, if their policy has it so. */
static int cover(flush *f, uint32_t redis_pool, int rc, rg_err *err) {
    const rg__changes *c = &f->changes[redis_pool];
    const char *name = rg__redis_pool_name(rg__shared_pool(f->store->shared[redis_pool]));
    if (f->asking || !rg__outage_may_cover(c, rc)) {
        rg__err_prefix(err, "the caches in Redis pool %s cannot be told, so that nothing is written: ",
                       name);
        return rc;
    }
    rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < f->store->n_mysql; i++)
        if (f->parts[i].conn)
            rc = rg__outage_cover(f->store, f->ctx, (int)i, (int)redis_pool, f->parts[i].conn, c, err);
    f->marked[redis_pool] = false;
    if (rc >= 0) rg__kill_point(RG__KILL_FLUSH_COVERED);
    return rc;
}

/* Under which its marks are known; many flushes set none. */
static void name_it(flush *f) {
    if (!f->named) rg__random(f->tx.bytes, sizeof f->tx.bytes);
    f->named = true;
}

static int mark(flush *f, rg_err *err) {
    int rc = collect_changes(f, err);
    for (size_t i = 0; i < f->items->n; i++) rg__witness(f->store, f->ctx, f->items->items[i].type);
    for (uint32_t i = 0; rc >= 0 && i < f->store->n_redis; i++) {
        rg__changes *c = &f->changes[i];
        if (c->n == 0) continue;
        char pending[48];
        name_it(f);
        rc = rg__changes_once(c, err);
        if (rc < 0) return rc;
        if (!f->asking && rg__shared_away(f->store->shared[i]) && rg__outage_may_cover(c, RG_EUNAVAILABLE)) {
            rc = cover(f, i, RG_EUNAVAILABLE, err);
            continue;
        }
        f->marked[i] = true;
        rc = rg__shared_mark(f->store->shared[i], f->ctx, f->tx, c->items, c->n, pending, err);
        if (rc == RG_EPENDING && strchr(pending, '?') &&
            rg__adopt_changes(f->store, f->ctx, c, NULL) >= 0)
            rc = rg__shared_mark(f->store->shared[i], f->ctx, f->tx, c->items, c->n, pending, err);
        if (rc < 0 && rc != RG_EPENDING) rc = cover(f, i, rc, err);
    }
    return rc;
}

static void unmark(flush *f) {
    for (uint32_t i = 0; i < f->store->n_redis; i++)
        if (f->marked[i])
            rg__shared_unmark(f->store->shared[i], f->ctx, f->tx, f->changes[i].items,
                              f->changes[i].n);
}

static void publish(flush *f) {
    for (uint32_t i = 0; i < f->store->n_redis; i++)
        if (f->marked[i])
            rg__shared_publish(f->store->shared[i], f->ctx, f->tx, f->changes[i].items,
                               f->changes[i].n);
}

/* Half of the flush is done: it must not run again. */
static void fail_between(const char *pool, rg_err *err) {
    rg__err_prefix(err, "an earlier pool of the same flush has committed, but pool %s: ", pool);
    if (!err || err->cls == RG_CLASS_AMBIGUOUS) return;
    err->cls = RG_CLASS_PERMANENT;
    err->retriable = 0;
}

static int commit(flush *f, bool *some, rg_err *err) {
    for (uint32_t i = 0; i < f->store->n_mysql; i++) {
        part *p = &f->parts[i];
        if (!p->begun) continue;
        int rc = rg__mysql_commit(p->conn, f->ctx, err);
        if (rc < 0 && *some) fail_between(rg__mysql_pool_name(f->store->mysql[i]), err);
        if (rc < 0) return rc;
        p->begun = false;
        *some = true;
    }
    return RG_OK;
}

static void rollback(flush *f) {
    for (uint32_t i = 0; i < f->store->n_mysql; i++)
        if (f->parts[i].begun) rg__mysql_rollback(f->parts[i].conn, f->ctx);
}

/* Rows that are not as they were read, and unique values that are taken, may be so only because the
 * queue still holds what was done to them: then that is to be waited for. */
static int or_pending(flush *f, int rc, rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    if (rc != RG_ECONFLICT && rc != RG_EDUPLICATE_KEY) return rc;
    const rg__ctx *ctx = f->ctx;
    rg__ctx within = *ctx; /* asked in any case, so that the last try tells what it was */
    if (rg__left_ms(within.deadline_ms) < ASK_MS) within.deadline_ms = rg__now_ms() + ASK_MS;
    f->ctx = &within;
    f->asking = true;
    int marked = mark(f, &fault);
    f->ctx = ctx;
    if (marked != RG_EPENDING) return rc;
    if (err) *err = fault;
    return RG_EPENDING;
}

static int attempt(flush *f, rg_err *err) {
    int rc = RG_OK;
    bool some = false;
    for (uint32_t i = 0; rc >= 0 && i < f->store->n_mysql; i++) rc = run_part(f, (int)i, err);
    if (rc >= 0) rg__kill_point(RG__KILL_FLUSH_WRITTEN);
    if (rc >= 0) rc = mark(f, err);
    if (rc >= 0) rg__kill_point(RG__KILL_FLUSH_MARKED);
    if (rc >= 0) rc = commit(f, &some, err);
    if (rc >= 0) {
        rg__kill_point(RG__KILL_FLUSH_COMMITTED);
        publish(f);
        rg__kill_point(RG__KILL_FLUSH_PUBLISHED);
        return rc;
    }
    /* an unknown outcome leaves the marks: they expire and are healed by a locking read */
    bool unknown = rc == RG_ECOMMIT_UNKNOWN || (err && err->cls == RG_CLASS_AMBIGUOUS);
    undo_inside(f);
    rollback(f);
    rg__kill_point(RG__KILL_FLUSH_UNDONE);
    if (!unknown && !some) rc = or_pending(f, rc, err);
    if (!unknown && !some) unmark(f);
    return rc;
}

/* ---- attempts ---- */

static int flush_init(flush *f, rg_err *err) {
    f->parts = rg__calloc(f->store->n_mysql + 1, sizeof *f->parts);
    f->changes = rg__calloc(f->store->n_redis + 1, sizeof *f->changes);
    f->marked = rg__calloc(f->store->n_redis + 1, sizeof *f->marked);
    if (!f->parts || !f->changes || !f->marked) return rg__fail_memory(err);
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < f->store->n_mysql; i++) {
        f->parts[i].tx = rg__tx_of(f->ctx, (int)i);
        rc = rg__plan_make(f->items, (int)i, &f->parts[i].plan, err);
    }
    return rc;
}

static void flush_deinit(flush *f) {
    for (uint32_t i = 0; f->parts && i < f->store->n_mysql; i++) {
        rg__plan_deinit(&f->parts[i].plan);
        if (f->parts[i].conn) rg__mysql_release(f->parts[i].conn);
    }
    for (uint32_t i = 0; f->changes && i < f->store->n_redis; i++) rg__changes_deinit(&f->changes[i]);
    rg__free(f->parts);
    rg__free(f->changes);
    rg__free(f->marked);
}

static int flush_once(rg__store *s, const rg__ctx *ctx, rg__items *items, rg_err *err) {
    flush f = {.store = s, .ctx = ctx, .items = items};
    rg__err_clear(err);
    if (err) err->item = -1;
    int rc = flush_init(&f, err);
    if (rc >= 0) rc = attempt(&f, err);
    flush_deinit(&f);
    return rc;
}

/* Nothing was applied, so the same statements may run again: deadlocks at once with jitter, lost
 * connections on others; rows with queued writes when the consumer had time, as often as it takes. */
static bool again(const rg__ctx *ctx, int rc, const rg_err *err, int *tries) {
    if (rc == RG_EPENDING) {
        if (rg__left_ms(ctx->deadline_ms) == 0) return false;
        rg__sleep_ms(PENDING_WAIT_MS);
        return rg__left_ms(ctx->deadline_ms) > 0;
    }
    bool lost = err->cls == RG_CLASS_RECONNECT && rc != RG_ETIMEOUT;
    if (!lost && err->cls != RG_CLASS_RETRY) return false;
    if (++*tries >= (lost ? RECONNECTS : TRIES)) return false;
    uint32_t jitter = 0;
    rg__random(&jitter, sizeof jitter);
    rg__sleep_ms((int64_t)(jitter % (uint32_t)(2 << *tries)));
    return rg__left_ms(ctx->deadline_ms) > 0;
}

/* A step of the caller's transaction is not tried again by itself. */
static bool is_step(const rg__ctx *ctx, const rg__items *items) {
    for (size_t i = 0; ctx->txs && i < items->n; i++)
        if (rg__tx_of(ctx, items->items[i].type->mysql_pool)) return true;
    return false;
}

int rg__flush(rg__store *s, const rg__ctx *ctx, rg__items *items, rg_err *err) {
    if (items->n == 0) return RG_OK;
    int64_t started = rg__now_us();
    int rc = RG_OK;
    int tries = 0;
    rg_err pending = {0}; /* what the time went by with */
    do {
        rc = flush_once(s, ctx, items, err);
        if (rc == RG_EPENDING) pending = *err;
    } while (rc < 0 && !is_step(ctx, items) && again(ctx, rc, err, &tries));
    if (rc == RG_ETIMEOUT && pending.code) {
        *err = pending;
        rc = RG_EPENDING;
    }
    rg__observe(ctx->metrics, RG__H_FLUSH_SECONDS, rg__now_us() - started);
    rg__count(ctx->metrics, rc < 0 ? RG__C_FLUSHES_FAILED : RG__C_FLUSHES, 1);
    if (rc >= 0) rg__count(ctx->metrics, RG__C_FLUSHED_OPS, items->n);
    return rc;
}
