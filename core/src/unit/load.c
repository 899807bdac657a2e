/* SPDX-License-Identifier: MIT */
/* Rows by id through the tiers: process cache, Redis, MySQL, and the fills on the way back. */
#include "unit/load.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/thread.h"
#include "unit/outage.h"

/* One distinct id on its way down. `row` NULL with done: known absent. */
typedef struct item {
    uint64_t id, stamp;
    uint32_t entry;    /* number of its key and entry, when asked of Redis */
    bool done, leads;
    bool unsure;       /* Redis did not tell whether a write of it is queued: MySQL answers, and nothing is kept */
    rg_block *row;
    rg__flight *flight;
} item;

/* What Redis is asked of rows: keys, and what it has of them, side by side. */
typedef struct question {
    rg__key *keys;
    char *texts;         /* of all keys */
    rg__entry *entries;
    size_t n;
} question;

/* A load of many: items sorted by id, and what Redis has of those that the process does not know. */
struct rg__load {
    rg__store *store;
    const rg__ctx *ctx;
    const rg_type *type;
    item *items;
    size_t n;
    rg__shared *shared;  /* NULL: no Redis tier */
    bool process;
    bool may_lag;        /* a replica may answer: nothing is filled, and nobody asked for the newest */
    bool patient;        /* waits for locks rather than leave Redis unfilled */
    bool queued;         /* only processes cache the rows: Redis knows those of which writes are queued */
    question redis;      /* n 0: not asked */
    size_t next;         /* the item after the one that was found last: answers come in order */
    rg__redis *asked;    /* Redis was asked for all keys already; owned */
    rg__asked *selecting; /* or MySQL for all rows; owned */
};
typedef struct rg__load load;

bool rg__load_plainly(rg__store *s, const rg_type *t) {
    return t->cache_redis && t->redis_pool >= 0 && rg__trusted(s, t);
}

uint64_t rg__load_stamp(rg__store *s, const rg_type *t, uint64_t id) {
    if (!t->cache_process) return 0;
    rg__store_cohere(s, t);
    return rg__process_stamp(s->process, t->space, id);
}

void rg__load_keep(rg__store *s, const rg_type *t, uint64_t id, rg_block *row, uint64_t stamp) {
    if (!t->cache_process) return;
    rg_block *b = row ? rg_block_ref(row) : rg__block_new(0);
    if (!b) return;
    rg__process_put(s->process, t->space, id, b, row ? t->ttl_s : t->absent_ttl_s, stamp);
    rg_block_unref(b);
}

static void keep(load *l, const item *it) {
    if (l->process) rg__load_keep(l->store, l->type, it->id, it->row, it->stamp);
}

static void ask_process(load *l) {
    if (!l->process) return;
    rg__store_cohere(l->store, l->type);
    for (size_t i = 0; i < l->n; i++) {
        item *it = &l->items[i];
        it->stamp = rg__process_stamp(l->store->process, l->type->space, it->id);
        it->done = rg__load_peek(l->store, l->ctx, l->type, it->id, &it->row) != RG_GET_MISS;
    }
}

static size_t undone(const load *l) {
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) n += !l->items[i].done;
    return n;
}

/* Takes what Redis answered. */
static void settle(load *l, const question *q) {
    for (size_t i = 0; i < l->n; i++) {
        item *it = &l->items[i];
        if (it->done) continue;
        rg__entry *e = &q->entries[it->entry];
        if (e->found != RG__VALUE && e->found != RG__ABSENT) continue;
        it->row = e->block;
        e->block = NULL;
        it->done = true;
        keep(l, it);
    }
}

/* Of those that are not done. */
static int name_keys(load *l, const rg__shared *shared, question *q) {
    size_t room = rg__key_row_room(shared, l->type);
    q->keys = rg__calloc(l->n, sizeof *q->keys);
    q->entries = rg__calloc(l->n, sizeof *q->entries);
    q->texts = rg__malloc(l->n * room);
    if (!q->keys || !q->entries || !q->texts) return RG_ENO_MEMORY;
    for (size_t i = 0; i < l->n; i++) {
        if (l->items[i].done) continue;
        l->items[i].entry = (uint32_t)q->n;
        rg__key_row_in(shared, l->type, l->items[i].id, q->texts + q->n * room, &q->keys[q->n]);
        q->n++;
    }
    return RG_OK;
}

static void question_deinit(question *q) {
    for (size_t i = 0; i < q->n; i++) rg__entry_deinit(&q->entries[i]);
    rg__free(q->keys);
    rg__free(q->texts);
    rg__free(q->entries);
}

static int ask_redis(load *l) {
    question *q = &l->redis;
    if (!l->shared) return RG_OK;
    int rc = l->asked ? RG_OK : name_keys(l, l->shared, q);
    if (rc < 0 || q->n == 0) return rc;
    rg__load_entries(l->store, l->ctx, l->type, true, q->keys, q->n, true, l->asked, q->entries);
    l->asked = NULL;
    settle(l, q);
    return RG_OK;
}

/* Takes the rows of which writes are queued: nothing else of them is in Redis, and nothing is filled. */
static int ask_queue(load *l) {
    question q = {0};
    const rg__shared *shared = l->queued ? rg__store_shared(l->store, l->type) : NULL;
    if (!shared || undone(l) == 0) return RG_OK;
    int rc = name_keys(l, shared, &q);
    if (rc >= 0) {
        rg__load_entries(l->store, l->ctx, l->type, true, q.keys, q.n, false, NULL, q.entries);
        settle(l, &q);
    }
    for (size_t i = 0; rc >= 0 && i < l->n; i++)
        l->items[i].unsure = !l->items[i].done && q.entries[l->items[i].entry].found != RG__MISS;
    question_deinit(&q);
    return rc;
}

static const rg__entry *entry_of(const load *l, const item *it) {
    return l->redis.n ? &l->redis.entries[it->entry] : NULL;
}

static bool leased(const load *l, const item *it) {
    const rg__entry *e = entry_of(l, it);
    return e && e->found == RG__MISS && e->lease.held;
}

static bool heals(const load *l, const item *it) {
    return leased(l, it) && entry_of(l, it)->lease.heal;
}

/* Without a Redis tier the stamp decides, unless a queued write may be there that nobody would tell of again. */
static bool may_keep(const load *l, const item *it) {
    return l->shared ? leased(l, it) : !it->unsure;
}

static item *find_item(load *l, uint64_t id) {
    if (l->next < l->n && l->items[l->next].id == id) return &l->items[l->next++];
    size_t lo = 0;
    size_t hi = l->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (l->items[mid].id < id) lo = mid + 1;
        else hi = mid;
    }
    if (lo == l->n || l->items[lo].id != id) return NULL;
    l->next = lo + 1;
    return &l->items[lo];
}

static int take_row(void *arg, rg_block *row) {
    load *l = arg;
    item *it = find_item(l, rg__row_id(l->type, rg_block_data(row)));
    if (!it || it->row) {
        rg_block_unref(row);
        return RG_OK;
    }
    it->row = row;
    return RG_OK;
}

/* Who of those left this thread loads: leads its flight, or has none to join. */
static void board(load *l) {
    bool may_join = l->process && rg__process_is_on(l->store->process);
    for (size_t i = 0; i < l->n; i++) {
        item *it = &l->items[i];
        if (it->done) continue;
        it->leads = true;
        if (!may_join || leased(l, it)) continue;
        it->flight =
            rg__flight_join(l->store->flights, l->type->space, it->id, it->stamp, &it->leads);
    }
}

static size_t pick(const load *l, bool healing, uint64_t *ids) {
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        if (!l->items[i].done && l->items[i].leads && heals(l, &l->items[i]) == healing)
            ids[n++] = l->items[i].id;
    return n;
}

static void give_up_healing(load *l) {
    for (size_t i = 0; i < l->n; i++) {
        item *it = &l->items[i];
        if (it->done || !it->leads || !heals(l, it)) continue;
        rg__entry *e = &l->redis.entries[it->entry];
        rg__shared_unlease(l->shared, l->ctx, &l->redis.keys[it->entry], 1, e);
        e->found = RG__BYPASS;
    }
}

/* Rows that only a locking read may fill. When a transaction holds one, what is committed answers at
 * once, and fills nothing; who needs them filled waits. */
static int select_healing(load *l, rg__mysql *c, uint64_t *ids, rg_err *err) {
    size_t n = pick(l, true, ids);
    if (n == 0) return RG_OK;
    rg__lock lock = l->patient ? RG__LOCK_SHARE : RG__LOCK_TRY;
    rg_err why = {0};
    int rc = rg__sql_select_ids(c, l->ctx, l->type, ids, n, lock, take_row, l, &why);
    if (rc == RG_EDEADLOCK && lock == RG__LOCK_TRY) {
        give_up_healing(l);
        return rg__sql_select_ids(c, l->ctx, l->type, ids, n, RG__LOCK_NONE, take_row, l, err);
    }
    if (rc < 0 && err) *err = why;
    return rc;
}

/* On this connection; a replica may have failed before it had sent all. */
static int select_here(rg__mysql *c, const rg__ctx *ctx, void *arg, rg_err *err) {
    load *l = arg;
    const rg__ctx *whole = l->ctx;
    uint64_t *ids = rg__reallocarray(NULL, l->n, sizeof *ids);
    if (!ids) return rg__fail_memory(err);
    for (size_t i = 0; i < l->n; i++) {
        if (l->items[i].done) continue;
        rg_block_unref(l->items[i].row);
        l->items[i].row = NULL;
    }
    l->ctx = ctx;
    size_t n = pick(l, false, ids);
    int rc = n ? rg__sql_select_ids(c, ctx, l->type, ids, n, RG__LOCK_NONE, take_row, l, err) : RG_OK;
    if (rc >= 0) rc = select_healing(l, c, ids, err);
    l->ctx = whole;
    rg__free(ids);
    return rc;
}

/* What was asked for before; if that failed, all anew. */
static bool select_asked(load *l) {
    rg__asked *asked = l->selecting;
    l->selecting = NULL;
    return asked && rg__sql_take_ids(asked, l->ctx, take_row, l) >= 0;
}

static int select_all(load *l, rg_err *err) {
    if (select_asked(l)) return RG_OK;
    return rg__mysql_read(rg__store_mysql(l->store, l->type), l->ctx, l->type, l->may_lag, select_here,
                          l, err);
}

/* The rows to fill with, by number of key, and which kinds of leases they have: plain ones, and those that heal. */
static void gather_values(const load *l, rg_block **values, bool any[2]) {
    for (size_t i = 0; i < l->n; i++) {
        const item *it = &l->items[i];
        if (it->done || !it->leads || !leased(l, it)) continue;
        values[it->entry] = it->row;
        any[heals(l, it)] = true;
    }
}

/* Fills Redis for those whose lease is held; the row, or its absence. */
static void fill(load *l) {
    const question *q = &l->redis;
    bool any[2] = {false, false};
    if (!q->n) return;
    rg__kill_point(RG__KILL_LOADED);
    rg__witness(l->store, l->ctx, l->type);
    rg_block **values = rg__calloc(q->n, sizeof *values);
    if (values) gather_values(l, values, any);
    else rg__shared_unlease(l->shared, l->ctx, q->keys, q->n, q->entries);
    for (int heal = 0; heal < 2; heal++)
        if (any[heal])
            rg__shared_fill(l->shared, l->ctx, l->type, true, q->keys, q->n, values, q->entries, heal);
    rg__free(values);
}

static void land(load *l, bool ok) {
    for (size_t i = 0; i < l->n; i++) {
        item *it = &l->items[i];
        if (it->done || !it->leads) continue;
        rg__flight_land(l->store->flights, it->flight, ok, it->row);
        it->flight = NULL;
        if (!ok) continue;
        if (may_keep(l, it)) keep(l, it);
        it->done = true;
    }
}

/* Waits for the others' answers; those that failed are loaded here. */
static bool wait_for_others(load *l) {
    bool again = false;
    for (size_t i = 0; i < l->n; i++) {
        item *it = &l->items[i];
        if (it->done) continue;
        it->done = rg__flight_wait(l->store->flights, it->flight, l->ctx->deadline_ms, &it->row);
        it->flight = NULL;
        it->leads = !it->done;
        again |= !it->done;
    }
    return again;
}

static size_t leading(const load *l) {
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) n += !l->items[i].done && l->items[i].leads;
    return n;
}

static int ask_mysql(load *l, rg_err *err) {
    if (undone(l) == 0) return RG_OK;
    board(l);
    int rc = leading(l) ? select_all(l, err) : RG_OK;
    if (rc >= 0) {
        fill(l);
    } else if (l->redis.n) {
        rg__shared_unlease(l->shared, l->ctx, l->redis.keys, l->redis.n, l->redis.entries);
    }
    land(l, rc >= 0);
    if (rc >= 0 && undone(l) && wait_for_others(l)) {
        rc = select_all(l, err);
        if (rc >= 0) land(l, true);
    }
    for (size_t i = 0; rc < 0 && i < l->n; i++) { /* leave flights that were joined */
        rg_block *row = NULL;
        if (l->items[i].flight && !l->items[i].leads &&
            rg__flight_wait(l->store->flights, l->items[i].flight, 0, &row))
            rg_block_unref(row);
    }
    return rc;
}

/* Distinct ids, ascending: batches touch rows in the order of the primary key. */
static int sort_ids(load *l, const uint64_t *ids, size_t n, rg_err *err) {
    uint64_t *sorted = (uint64_t *)(void *)rg__memdup0(ids, n * sizeof *ids);
    l->items = rg__calloc(n, sizeof *l->items);
    if (!sorted || !l->items) {
        rg__free(sorted);
        return rg__fail_memory(err);
    }
    rg__ids_sort(sorted, n);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || sorted[i] != sorted[i - 1]) l->items[l->n++].id = sorted[i];
    rg__free(sorted);
    return RG_OK;
}

static void load_deinit(load *l) {
    question_deinit(&l->redis);
    for (size_t i = 0; i < l->n; i++) rg_block_unref(l->items[i].row);
    rg__free(l->items);
}

static void hand_out(load *l, const uint64_t *ids, size_t n, rg_block **out) {
    l->next = 0;
    for (size_t i = 0; i < n; i++) {
        const item *it = find_item(l, ids[i]);
        out[i] = it && it->row ? rg_block_ref(it->row) : NULL;
    }
}

/* ---- all of it ---- */

static int finish(load *l, const uint64_t *ids, size_t n, rg_block **out, rg_err *err) {
    int rc = ask_redis(l);
    if (rc >= 0) rc = ask_queue(l);
    if (rc >= 0) rc = ask_mysql(l, err);
    if (rc >= 0) hand_out(l, ids, n, out);
    if (rc < 0) rg__err_about(err, "loading", l->type->name);
    return rc < 0 ? rc : RG_OK;
}

int rg__load_rows(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n,
                  int flags, rg_block **out, rg_err *err) {
    if (n == 0) return RG_OK;
    if (rg__tx_of(ctx, t->mysql_pool)) {
        int inside = rg__load_inside(s, ctx, t, ids, n, flags, out, err);
        if (inside < 0) rg__err_about(err, "loading", t->name);
        return inside;
    }
    bool fresh = (flags & RG__LOAD_FRESH) != 0;
    load l = {.store = s, .ctx = ctx, .type = t};
    fresh = fresh || !rg__trust(s, ctx, t);
    l.process = t->cache_process && !flags && !fresh;
    l.patient = (flags & RG__LOAD_FILL_ONLY) != 0;
    l.shared = t->cache_redis && !fresh ? rg__store_shared(s, t) : NULL;
    l.queued = t->cache_process && !t->cache_redis && !fresh;
    l.may_lag = !flags && !t->cache_process && !t->cache_redis;
    int rc = sort_ids(&l, ids, n, err);
    if (rc >= 0) ask_process(&l);
    if (rc >= 0) rc = finish(&l, ids, n, out, err);
    load_deinit(&l);
    return rc;
}

int rg__load_one(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t id, rg_block **out,
                 rg_err *err) {
    *out = NULL;
    return rg__load_rows(s, ctx, t, &id, 1, 0, out, err);
}

/* ---- in two steps ---- */

static rg__asked *ask_for_rows(const load *l) {
    uint64_t ids[RG__ASK_MOST];
    for (size_t i = 0; i < l->n; i++) ids[i] = l->items[i].id;
    return rg__sql_ask_ids(rg__store_mysql(l->store, l->type), l->ctx, l->type, ids, l->n);
}

static bool ask(load *l, const uint64_t *ids, size_t n) {
    if (sort_ids(l, ids, n, NULL) < 0) return false;
    if (!l->shared) {
        l->selecting = ask_for_rows(l);
        return l->selecting != NULL;
    }
    ask_process(l);
    if (name_keys(l, l->shared, &l->redis) >= 0)
        l->asked = rg__shared_ask(l->shared, l->ctx, l->redis.keys, l->redis.n);
    return l->asked != NULL;
}

/* The query log tells how long a server took: with one all is done at once. */
static bool may_ask(rg__store *s, const rg__ctx *ctx, const rg_type *t) {
    if (rg__tx_of(ctx, t->mysql_pool)) return false;
    if (t->cache_redis) return rg__load_plainly(s, t) && !rg__traced(ctx, RG__SOURCE_REDIS);
    return !t->cache_process && !rg__traced(ctx, RG__SOURCE_MYSQL) &&
           rg__mysql_pool_replicas(rg__store_mysql(s, t)) == 0;
}

rg__load *rg__load_ask(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n) {
    load *l = n > 0 && n <= RG__ASK_MOST && may_ask(s, ctx, t) ? rg__calloc(1, sizeof *l) : NULL;
    if (!l) return NULL;
    *l = (load){.store = s, .ctx = ctx, .type = t, .process = t->cache_process};
    if (t->cache_redis) l->shared = rg__store_shared(s, t);
    if (ask(l, ids, n)) return l;
    rg__load_drop(l, ctx);
    return NULL;
}

void rg__load_drop(rg__load *l, const rg__ctx *ctx) {
    if (l->asked) rg__shared_leave(l->asked, ctx);
    if (l->selecting) rg__sql_drop_ids(l->selecting);
    load_deinit(l);
    rg__free(l);
}

int rg__load_take(rg__load *l, const rg__ctx *ctx, const uint64_t *ids, size_t n, rg_block **out,
                  rg_err *err) {
    rg__store *s = l->store;
    const rg_type *t = l->type;
    l->ctx = ctx;
    bool trusted = rg__trust(s, ctx, t);
    int rc = trusted ? finish(l, ids, n, out, err) : RG_OK;
    rg__load_drop(l, ctx);
    return trusted ? rc : rg__load_rows(s, ctx, t, ids, n, 0, out, err);
}
