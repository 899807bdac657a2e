/* SPDX-License-Identifier: MIT */
/* Operations of locks in Redis, and names of locks in MySQL. */
#include <openssl/sha.h>
#include <regolith/lock.h>
#include <stdio.h>

#include "base/alloc.h"
#include "run/notifier.h"
#include "run/op.h"

enum {
    TTL_MIN_MS = 50,
    TTL_MAX_MS = 86400000,
    NAME_MAX_LEN = 512,
    RETRY_MS = 200,     /* after a failure while there is time to wait */
    SQL_NAME_LEN = 64,
    SQL_DIGEST_LEN = 24 /* hex digits: 96 bits */
};

struct rg_lock {
    rg_engine *engine; /* a reference */
    atomic_uint refs;  /* the handle, and each operation on it */
    rg__dlock *lock;
    rg_notifier *notifier; /* a reference; NULL: nobody is to be told */
    rg__ready ready;
    rg__tenant tenant;
};

/* Taking one. */
typedef struct taking {
    rg_lock *handle; /* NULL once it was given out */
    rg__dlock_waiter waiter;
    rg_op *op;
    uint32_t wait_ms, try_ms;
    int64_t until_ms; /* monotonic; 0: not begun */
} taking;

static void lock_unref(rg_lock *l) {
    if (!l || atomic_fetch_sub(&l->refs, 1) != 1) return;
    rg__dlock_on_lost(l->lock, NULL, NULL);
    if (l->notifier) rg__notifier_withdraw(l->notifier, &l->ready);
    rg__dlock_drop(l->lock);
    rg_engine_unref(l->engine);
    rg__free(l);
}

static void end_lock(rg__tenant *t) {
    rg__dlock_abandon(rg__container(t, rg_lock, tenant)->lock);
}

rg__tenant *rg__lock_tenant(rg_lock *l) { return &l->tenant; }

static rg_lock *lock_new(rg_engine *e, rg__keeper *k, const char *name, size_t len,
                         const rg_lock_opts *o, rg_err *err) {
    const rg__dlock_opts opts = {.ttl_ms = o->ttl_ms, .renew = o->renew != 0, .max_ms = o->max_ms};
    rg_lock *l = rg__calloc(1, sizeof *l);
    if (l) l->lock = rg__dlock_new(k, name, len, &opts, err);
    if (!l || !l->lock) {
        rg__free(l);
        rg__fail_memory(err);
        return NULL;
    }
    l->engine = rg_engine_ref(e);
    atomic_init(&l->refs, 1);
    rg__list_init(&l->ready.node);
    rg__tenant_init(&l->tenant, end_lock);
    return l;
}

/* ---- taking ---- */

static bool may_try_again(const taking *t, int rc, const rg_err *err) {
    if (rg__now_ms() >= t->until_ms) return false;
    return rc == 0 || ((rc == RG_EUNAVAILABLE || rc == RG_ETIMEOUT) && err->retriable);
}

static int run_lock(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    taking *t = op->own;
    rg__dlock *lock = t->handle->lock;
    if (!t->until_ms) t->until_ms = rg__now_ms() + t->wait_ms;
    if (t->waiter.topic) rg__dlock_seen(lock, &t->waiter);
    int64_t left_ms = 0;
    rg__ctx try = *ctx; /* an answer that comes after the ttl is worth nothing */
    try.deadline_ms = rg__deadline_within(ctx->deadline_ms, t->try_ms);
    int rc = rg__dlock_take(lock, &try, &left_ms, err);
    op->number = rc == 1;
    if (rc == 1) return RG_OK;
    if (!may_try_again(t, rc, err)) return rc;
    if (!t->waiter.topic && rg__dlock_listen(lock, &t->waiter, err) < 0) return RG_ENO_MEMORY;
    int64_t at = rg__now_ms() + (rc < 0 || left_ms <= 0 ? RETRY_MS : left_ms + 1);
    t->waiter.deadline_ms = at < t->until_ms ? at : t->until_ms;
    return RG__PARK;
}

static void park_lock(rg_op *op) {
    taking *t = op->own;
    rg__dlock_wait(t->handle->lock, &t->waiter);
}

static void unpark_lock(rg_op *op) {
    taking *t = op->own;
    if (t && t->handle) rg__dlock_wake(t->handle->lock, &t->waiter);
}

static void fire(rg__dlock_waiter *w) { rg__op_resume(rg__container(w, taking, waiter)->op); }

static void drop_taking(rg_op *op) {
    taking *t = op->own;
    if (!t) return;
    if (t->handle) rg__dlock_unlisten(t->handle->lock, &t->waiter);
    lock_unref(t->handle);
    rg__free(t);
}

static int check(const char *name, size_t len, const rg_lock_opts *o, rg_err *err) {
    if (o->size != sizeof *o) return rg__fail(err, RG_EINVALID, "rg_lock_opts of another version");
    if (len < 1 || len > NAME_MAX_LEN || !name)
        return rg__fail_field(err, "name", "a lock's name has 1 to %d bytes", NAME_MAX_LEN);
    if (o->ttl_ms < TTL_MIN_MS || o->ttl_ms > TTL_MAX_MS)
        return rg__fail_field(err, "ttl_ms", "ttl_ms is %d to %d", TTL_MIN_MS, TTL_MAX_MS);
    return RG_OK;
}

static rg__keeper *find_keeper(const rg_engine *e, const char *name, rg_err *err) {
    if (!name) name = "default";
    for (uint32_t i = 0; i < e->n_redis; i++)
        if (!strcmp(rg__redis_pool_name(e->redis[i]), name)) return e->keepers[i];
    rg__fail_field(err, "redis", "there is no Redis pool \"%s\"", name);
    return NULL;
}

static taking *taking_new(rg_op *op, rg_lock *handle, const rg_lock_opts *o) {
    taking *t = rg__calloc(1, sizeof *t);
    if (!t) return NULL;
    *t = (taking){.handle = handle, .waiter.fire = fire, .op = op, .wait_ms = o->wait_ms};
    t->try_ms = o->ttl_ms < op->engine->timeout_ms ? o->ttl_ms : op->engine->timeout_ms;
    return t;
}

rg_op *rg_op_lock(rg_engine *e, const char *name, size_t len, const rg_lock_opts *o, rg_err *err) {
    if (check(name, len, o, err) < 0) return NULL;
    rg__keeper *k = find_keeper(e, o->redis, err);
    rg_op *op = k ? rg__op_new(e, run_lock, err) : NULL;
    if (!op) return NULL;
    rg_lock *l = lock_new(e, k, name, len, o, err);
    op->own = l ? taking_new(op, l, o) : NULL;
    if (!op->own) {
        lock_unref(l);
        rg__fail_memory(err);
        rg_op_free(op);
        return NULL;
    }
    op->cleanup = drop_taking;
    op->park = park_lock;
    op->unpark = unpark_lock;
    return op;
}

rg_lock *rg_op_lock_take(rg_op *op) {
    if (op->run != run_lock || rg_op_phase_of(op) != RG_OP_DONE || op->number != 1) return NULL;
    taking *t = op->own;
    rg_lock *l = t ? t->handle : NULL;
    if (!l) return NULL;
    rg__dlock_unlisten(l->lock, &t->waiter);
    t->handle = NULL;
    return l;
}

/* ---- what is held ---- */

double rg_lock_token(const rg_lock *l) { return (double)rg__dlock_token(l->lock); }
double rg_lock_left_ms(rg_lock *l) { return (double)rg__dlock_left_ms(l->lock); }
int rg_lock_lost(rg_lock *l) { return rg__dlock_lost(l->lock); }

static void drop_lock(rg_op *op) { lock_unref(op->own); }

static rg_op *on_lock(rg_lock *l, rg__op_fn run, rg_err *err) {
    rg_op *op = rg__op_new(l->engine, run, err);
    if (!op) return NULL;
    atomic_fetch_add(&l->refs, 1);
    op->own = l;
    op->holds = true;
    op->cleanup = drop_lock;
    return op;
}

static int run_extend(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_lock *l = op->own;
    return rg__dlock_extend(l->lock, ctx, (uint32_t)op->limit, err);
}

rg_op *rg_op_lock_extend(rg_lock *l, uint32_t ttl_ms, rg_err *err) {
    if (ttl_ms && (ttl_ms < TTL_MIN_MS || ttl_ms > TTL_MAX_MS)) {
        rg__fail_field(err, "ttl_ms", "ttl_ms is %d to %d", TTL_MIN_MS, TTL_MAX_MS);
        return NULL;
    }
    rg_op *op = on_lock(l, run_extend, err);
    if (op) op->limit = ttl_ms;
    return op;
}

static int run_release(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_lock *l = op->own;
    return rg__dlock_release(l->lock, ctx, err);
}

rg_op *rg_op_lock_release(rg_lock *l, rg_err *err) { return on_lock(l, run_release, err); }

static void told(void *arg) {
    rg_lock *l = arg;
    rg__notifier_post(l->notifier, &l->ready);
}

int rg_lock_tell(rg_lock *l, rg_notifier *n, uint32_t tag) {
    if (l->notifier) return 0;
    l->notifier = rg__notifier_ref(n);
    l->ready.tag = tag;
    return rg__dlock_on_lost(l->lock, told, l);
}

void rg_lock_free(rg_lock *l) {
    if (l && rg_engine_orphan(l->engine)) return;
    if (l) rg__tenant_leave(&l->tenant);
    lock_unref(l);
}

/* ---- MySQL ---- */

/* Bytes of the beginning, cut between characters. */
static size_t cut(const char *name, size_t len) {
    while (len > 0 && ((unsigned char)name[len] & 0xC0) == 0x80) len--;
    return len;
}

void rg_lock_sql_name(const char *name, size_t len, char out[65]) {
    size_t kept = len;
    if (len > SQL_NAME_LEN) kept = cut(name, SQL_NAME_LEN - SQL_DIGEST_LEN - 1);
    if (kept) memcpy(out, name, kept);
    out[kept] = 0;
    if (len <= SQL_NAME_LEN) return;
    unsigned char sum[SHA_DIGEST_LENGTH];
    SHA1((const unsigned char *)name, len, sum);
    out[kept++] = '~';
    for (size_t i = 0; i < SQL_DIGEST_LEN / 2; i++) snprintf(out + kept + 2 * i, 3, "%02x", sum[i]);
}
