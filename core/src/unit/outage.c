/* SPDX-License-Identifier: MIT */
/* Trust in caches that writes may have gone past: looks, the wait of who opens an outage, healing. */
#include "unit/outage.h"

#include "base/alloc.h"

enum {
    HEAL_EVERY_MS = 100,
    HEAL_MS = 2000,
    LOOK_MS = 2000,
    ROUNDS = 3 /* somebody may heal between the wait and the lock */
};

/* ---- life ---- */

static rg__outage *outage_of(const rg__store *s, int mysql_pool, int redis_pool) {
    return &s->outages[(size_t)mysql_pool * s->n_redis + (size_t)redis_pool];
}

static bool is_watched(const rg_type *t) {
    return t->outage == RG_OUTAGE_AVAILABLE && t->redis_pool >= 0 && rg__type_shared(t);
}

int rg__outages_new(rg__store *s, rg_err *err) {
    size_t n = (size_t)s->n_mysql * s->n_redis;
    s->outages = rg__calloc(n + 1, sizeof *s->outages);
    if (!s->outages) return rg__fail_memory(err);
    for (size_t i = 0; i < n; i++) pthread_mutex_init(&s->outages[i].lock, NULL);
    for (uint32_t i = 0; i < s->schema.n; i++) {
        const rg_type *t = s->schema.types[i];
        if (is_watched(t)) outage_of(s, t->mysql_pool, t->redis_pool)->watched = true;
    }
    return RG_OK;
}

void rg__outages_free(rg__store *s) {
    for (size_t i = 0; s->outages && i < (size_t)s->n_mysql * s->n_redis; i++)
        pthread_mutex_destroy(&s->outages[i].lock);
    rg__free(s->outages);
}

/* ---- healing ---- */

static int drop_names(rg__shared *shared, const rg__ctx *ctx, const rg__result *r, rg_err *err) {
    rg__key *keys = rg__calloc(r->n_rows + 1, sizeof *keys);
    if (!keys) return rg__fail_memory(err);
    for (size_t i = 0; i < r->n_rows; i++) {
        rg__slice name = r->cells[i * r->n_columns];
        keys[i] = (rg__key){.text = (char *)(uintptr_t)name.p, .len = (uint32_t)name.len};
    }
    int rc = rg__shared_drop_names(shared, ctx, keys, r->n_rows, err);
    rg__free(keys);
    return rc;
}

static int drop_all(rg__mysql *c, const rg__ctx *ctx, rg__shared *shared, const char *redis,
                    rg_err *err) {
    uint64_t number = 0;
    for (;;) {
        rg__result *r = NULL;
        int rc = rg__inval_next(c, ctx, redis, &number, &r, err);
        size_t n = rc >= 0 ? r->n_rows : 0;
        if (n) rc = drop_names(shared, ctx, r, err);
        rg__result_free(r);
        if (rc < 0 || n == 0) return rc;
    }
}

static int heal_on(rg__mysql *c, const rg__ctx *ctx, rg__shared *shared, rg_err *err) {
    const char *redis = rg__redis_pool_name(rg__shared_pool(shared));
    rg__outage_row row;
    int rc = rg__mysql_begin(c, ctx, err);
    if (rc < 0) return rc;
    rc = rg__outage_read(c, ctx, redis, " FOR UPDATE", &row, err);
    if (rc >= 0 && row.open) {
        rc = drop_all(c, ctx, shared, redis, err);
        if (rc >= 0) rc = rg__inval_clear(c, ctx, redis, err);
        if (rc >= 0) rc = rg__outage_close(c, ctx, redis, err);
    }
    rg__kill_point(RG__KILL_HEALED);
    if (rc >= 0) rc = rg__mysql_commit(c, ctx, err);
    else rg__mysql_rollback(c, ctx);
    return rc;
}

/* Redis first: without it nothing is locked. */
static int heal(rg__store *s, const rg__ctx *ctx, const rg_type *t) {
    rg__shared *shared = s->shared[t->redis_pool];
    rg__ctx within = *ctx;
    rg__mysql *c = NULL;
    within.deadline_ms = rg__deadline_within(ctx->deadline_ms, HEAL_MS);
    int rc = rg__shared_ping(shared, &within, NULL);
    if (rc >= 0) rc = rg__mysql_acquire(rg__store_mysql(s, t), &within, &c, NULL);
    if (rc < 0) return rc;
    rc = heal_on(c, &within, shared, NULL);
    rg__mysql_release(c);
    return rc;
}

/* ---- looking ---- */

static int look(rg__store *s, const rg__ctx *ctx, const rg_type *t, rg__outage_row *row) {
    rg__mysql *c = NULL;
    rg__ctx within = *ctx;
    within.deadline_ms = rg__deadline_within(ctx->deadline_ms, LOOK_MS);
    int rc = rg__mysql_acquire(rg__store_mysql(s, t), &within, &c, NULL);
    if (rc < 0) return rc;
    const char *redis = rg__redis_pool_name(rg__shared_pool(s->shared[t->redis_pool]));
    rc = rg__outage_read(c, &within, redis, "", row, NULL);
    rg__mysql_release(c);
    return rc;
}

/* Under the lock. What was cached before an outage that is over may have been replaced in it. */
static void learn(rg__store *s, rg__outage *o, const rg__outage_row *row, int64_t began_ms) {
    if (o->known && o->number != row->number) rg__process_clear(s->process);
    o->known = true;
    o->number = row->number;
    atomic_store(&o->seen_ms, row->open ? 0 : began_ms);
}

static bool may_heal(rg__outage *o) {
    int64_t now = rg__now_ms();
    if (now - atomic_load(&o->tried_ms) < HEAL_EVERY_MS) return false;
    atomic_store(&o->tried_ms, now);
    return true;
}

/* Under the lock. */
static void look_and_heal(rg__store *s, const rg__ctx *ctx, const rg_type *t, rg__outage *o) {
    rg__outage_row row = {0};
    int64_t began_ms = rg__now_ms();
    if (look(s, ctx, t, &row) < 0) return;
    learn(s, o, &row, began_ms);
    if (!row.open || !may_heal(o) || heal(s, ctx, t) < 0) return;
    began_ms = rg__now_ms();
    if (look(s, ctx, t, &row) >= 0) learn(s, o, &row, began_ms);
}

static int64_t age(const rg__outage *o) {
    int64_t at = atomic_load_explicit(&o->seen_ms, memory_order_acquire);
    return at ? rg__now_ms() - at : INT64_MAX;
}

bool rg__trusted(const rg__store *s, const rg_type *t) {
    return !is_watched(t) || age(outage_of(s, t->mysql_pool, t->redis_pool)) < RG__TRUST_MS;
}

bool rg__trust(rg__store *s, const rg__ctx *ctx, const rg_type *t) {
    if (!is_watched(t)) return true;
    rg__outage *o = outage_of(s, t->mysql_pool, t->redis_pool);
    if (age(o) < RG__TRUST_MS / 2) return true;
    if (pthread_mutex_trylock(&o->lock) != 0) {
        if (age(o) < RG__TRUST_MS) return true; /* somebody looks already */
        pthread_mutex_lock(&o->lock);
    }
    if (age(o) >= RG__TRUST_MS / 2) look_and_heal(s, ctx, t, o);
    pthread_mutex_unlock(&o->lock);
    return age(o) < RG__TRUST_MS;
}

/* ---- writing ---- */

bool rg__outage_may_cover(const rg__changes *c, int rc) {
    if (rc != RG_EUNAVAILABLE && rc != RG_ETIMEOUT && rc != RG_EREAD_ONLY) return false;
    for (size_t i = 0; i < c->n; i++)
        if (!is_watched(c->items[i].type)) return false;
    return true;
}

/* On another connection: the outage has to stand before the transaction may rely on it. */
static int open_and_wait(rg__store *s, const rg__ctx *ctx, rg__outage *o, int mysql_pool,
                         const char *redis, rg_err *err) {
    rg__mysql *c = NULL;
    rg__outage_row row = {0};
    int rc = rg__mysql_acquire(s->mysql[mysql_pool], ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__outage_read(c, ctx, redis, "", &row, err);
    if (rc >= 0 && !row.open) rc = rg__outage_open(c, ctx, redis, err);
    if (rc >= 0 && !row.open) rc = rg__outage_read(c, ctx, redis, "", &row, err);
    rg__mysql_release(c);
    if (rc < 0 || !row.open) return rc;
    pthread_mutex_lock(&o->lock);
    bool waited = o->waited == row.number;
    atomic_store(&o->seen_ms, 0);
    pthread_mutex_unlock(&o->lock);
    if (waited) return RG_OK;
    if (rg__left_ms(ctx->deadline_ms) <= RG__TRUST_MS + RG__TRUST_MARGIN_MS)
        return rg__fail(err, RG_ETIMEOUT, "the deadline leaves no time for the caches' trust to end");
    rg__sleep_ms(RG__TRUST_MS + RG__TRUST_MARGIN_MS);
    pthread_mutex_lock(&o->lock);
    o->waited = row.number;
    pthread_mutex_unlock(&o->lock);
    return RG_OK;
}

static bool touches(const rg__changes *c, int mysql_pool) {
    for (size_t i = 0; i < c->n; i++)
        if (c->items[i].type->mysql_pool == mysql_pool) return true;
    return false;
}

int rg__outage_cover(rg__store *s, const rg__ctx *ctx, int mysql_pool, int redis_pool,
                     rg__mysql *conn, const rg__changes *c, rg_err *err) {
    if (!touches(c, mysql_pool)) return RG_OK;
    rg__outage *o = outage_of(s, mysql_pool, redis_pool);
    const char *redis = rg__redis_pool_name(rg__shared_pool(s->shared[redis_pool]));
    for (int round = 0; round < ROUNDS; round++) {
        rg__outage_row row = {0};
        int rc = open_and_wait(s, ctx, o, mysql_pool, redis, err);
        if (rc >= 0) rc = rg__outage_read(conn, ctx, redis, " LOCK IN SHARE MODE", &row, err);
        if (rc < 0) return rc;
        if (row.open && row.number == o->waited)
            return rg__inval_add(conn, ctx, redis, c, mysql_pool, err);
    }
    return rg__fail(err, RG_EUNAVAILABLE, "Redis pool %s comes and goes", redis);
}

/* ---- which server it is ---- */

void rg__witness(rg__store *s, const rg__ctx *ctx, const rg_type *t) {
    if (t->redis_pool < 0) return;
    rg__outage *o = outage_of(s, t->mysql_pool, t->redis_pool);
    rg__mysql_pool *pool = rg__store_mysql(s, t);
    uint64_t now = rg__mysql_identity(pool);
    if (!now || now == atomic_load_explicit(&o->server, memory_order_relaxed)) return;
    rg__ctx within = *ctx;
    within.deadline_ms = rg__deadline_within(ctx->deadline_ms, LOOK_MS);
    if (rg__shared_witness(s->shared[t->redis_pool], &within, rg__mysql_pool_name(pool), now, NULL) >= 0)
        atomic_store(&o->server, now);
}
