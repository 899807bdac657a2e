/* SPDX-License-Identifier: MIT */
/* Writes that stand and fall apart from each other: few statements, an outcome for each.
 *
 * Items are sorted into waves (the second write of a row is in the second wave), within a wave into
 * groups of one statement's shape, and run in chunks, each in a transaction of its own where caches
 * are to be told. A chunk that fails is cut in halves until only the bad item is left. */
#include "unit/cas.h"

#include <stdlib.h>

#include "base/alloc.h"

enum { TRIES = 5, RACES = 3, PENDING_WAIT_MS = 5, LOCK_WAIT_TIMEOUT = 1205, FEW = 16 };

/* ---- groups ---- */

static int sign(int64_t a, int64_t b) { return (a > b) - (a < b); }

/* What goes in one statement: column by column. */
static int compare_shapes(const rg__item *a, const rg__item *b) {
    size_t n = a->type->n_columns;
    int d = sign(a->write, b->write);
    if (d == 0) d = sign(a->terms->bump, b->terms->bump);
    if (d == 0) d = sign(a->terms->check, b->terms->check);
    if (d == 0) d = sign(a->terms->n_exprs != 0, b->terms->n_exprs != 0);
    if (d == 0 && a->mask && b->mask) d = memcmp(a->mask, b->mask, n);
    if (d == 0) d = sign(a->terms->expect != NULL, b->terms->expect != NULL);
    if (d == 0 && a->terms->expect) d = memcmp(a->terms->expect, b->terms->expect, n);
    return d;
}

static int compare_places(const rg__place *x, const rg__place *y, const rg__item *items) {
    const rg__item *a = &items[x->item];
    const rg__item *b = &items[y->item];
    int d = sign(x->wave, y->wave);
    if (d == 0 && a->type == b->type) return compare_shapes(a, b);
    if (d == 0) d = sign(a->type->mysql_pool, b->type->mysql_pool);
    if (d == 0) d = sign(a->type->rank, b->type->rank);
    if (d == 0) d = sign(a->type->number, b->type->number);
    return d ? d : compare_shapes(a, b);
}

static int compare(const void *p, const void *q, void *arg) {
    const rg__place *x = p, *y = q;
    const rg__item *items = arg;
    int d = compare_places(x, y, items);
    if (d == 0) d = (items[x->item].id > items[y->item].id) - (items[x->item].id < items[y->item].id);
    return d ? d : sign(x->item, y->item);
}

/* One row after another of one type, as most lists are: nobody writes a row twice. */
static bool is_ascending(const rg__each_run *e) {
    const rg__item *items = e->items->items;
    for (size_t i = 1; i < e->items->n; i++)
        if (items[i].type != items[i - 1].type || items[i].id <= items[i - 1].id) return false;
    return true;
}

/* The wave of each item, and who wrote its row before. */
static int number_waves(rg__each_run *e) {
    for (uint32_t i = 0; i < e->items->n; i++) {
        e->places[i] = (rg__place){.item = i};
        e->earlier[i] = RG__NOBODY;
    }
    if (is_ascending(e)) return RG_OK;
    rg__map *last = rg__map_new();
    int rc = last ? RG_OK : RG_ENO_MEMORY;
    for (uint32_t i = 0; rc >= 0 && i < e->items->n; i++) {
        const rg__item *it = &e->items->items[i];
        const uint64_t key[2] = {it->type->number, it->id};
        void *old = NULL;
        if (it->id) rc = rg__map_put(last, key, sizeof key, &e->places[i], &old);
        if (!old) continue;
        const rg__place *before = old;
        e->places[i].wave = before->wave + 1;
        e->earlier[i] = before->item;
    }
    rg__map_free(last);
    return rc;
}

/* Sorts them, and marks where a statement ends. Most lists are sorted, and all of one shape. */
static void sort(rg__each_run *e) {
    rg__item *items = e->items->items;
    size_t n = e->items->n;
    bool sorted = true;
    for (size_t i = 1; sorted && i < n; i++) {
        int d = compare_places(&e->places[i - 1], &e->places[i], items);
        e->places[i].joins = d == 0;
        sorted = d < 0 || (d == 0 && items[e->places[i - 1].item].id <= items[e->places[i].item].id);
    }
    if (sorted) return;
    qsort_r(e->places, n, sizeof *e->places, compare, items);
    for (size_t i = 1; i < n; i++)
        e->places[i].joins = compare_places(&e->places[i - 1], &e->places[i], items) == 0;
}

/* ---- a row that an earlier item of the same call has written ---- */

/* The version that an earlier item left is what this one finds; it is the server that counts on. */
static void follow_version(rg__item *it) {
    uint32_t v = it->type->version_column;
    if (!v || !it->terms->own_version) return;
    it->terms->expect[v] = 0;
    it->terms->bump = it->write == RG_UPDATE && !it->terms->check;
    if (it->mask) it->mask[v] = 0;
}

static const rg__item *find_earlier(const rg__each_run *e, uint32_t item) {
    for (uint32_t i = e->earlier[item]; i != RG__NOBODY; i = e->earlier[i])
        if (e->items->items[i].terms->outcome == RG_OUTCOME_APPLIED) return &e->items->items[i];
    return NULL;
}

static int rebase(rg__each_run *e, const rg__place *p, rg_err *err) {
    rg__item *it = &e->items->items[p->item];
    const rg__item *earlier = find_earlier(e, p->item);
    if (!earlier || !earlier->after) return RG_OK;
    if (it->before) {
        rg_block_unref(it->before);
        it->before = rg_block_ref(earlier->after);
    }
    if (it->write == RG_UPDATE) {
        rg_block *merged = rg__row_merge(it->type, rg_block_data(earlier->after),
                                         rg_block_data(it->after), it->mask, err);
        if (!merged) return RG_ENO_MEMORY;
        rg_block_unref(it->after);
        it->after = merged;
    }
    it->terms->rebased = true;
    follow_version(it);
    return RG_OK;
}

/* ---- chunks until all have an outcome ---- */

static void all_fail(rg__each_run *e, const uint32_t *items, size_t n, int outcome,
                     const rg_err *fault) {
    for (size_t i = 0; i < n; i++) {
        const rg__item *it = &e->items->items[items[i]];
        it->terms->outcome = outcome;
        rg__terms_blame(it->terms, fault, it->type->name);
    }
}

/* Those without an outcome move to the front. */
static size_t keep_open(const rg__each_run *e, uint32_t *items, size_t n) {
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        if (e->items->items[items[i]].terms->outcome == RG_OUTCOME_NONE) items[left++] = items[i];
    return left;
}

static bool wait_a_little(const rg__ctx *ctx, int64_t ms) {
    if (rg__left_ms(ctx->deadline_ms) <= ms) return false;
    rg__sleep_ms(ms);
    return true;
}

/* May the same statements run once more? */
static bool again(const rg__ctx *ctx, int rc, const rg_err *fault, int *tries) {
    uint32_t jitter = 0;
    if (rc == RG_EPENDING) return wait_a_little(ctx, PENDING_WAIT_MS);
    bool lost = fault->cls == RG_CLASS_RECONNECT && rc != RG_ETIMEOUT;
    if ((!lost && fault->cls != RG_CLASS_RETRY) || ++*tries >= TRIES) return false;
    rg__random(&jitter, sizeof jitter);
    return wait_a_little(ctx, jitter % (2U << *tries));
}

/* Neighbours do not wait for the queue, or for a lock, with those that have to. How many of the items are to
 * be run now; the rest come later. */
static size_t put_off(rg__each_run *e, int rc, uint32_t *items, size_t n) {
    if (!e->defer) return n;
    if (n == 1) return rc == RG_EPENDING ? 0 : 1;
    size_t some = rc == RG_EPENDING ? rg__chunk_part_pending(e, items, n)
                                    : rg__chunk_part_locked(e, items, n);
    return some;
}

/* Somebody has kept a row locked for longer than a statement of many waits. */
static bool waited(const rg__each_run *e, const rg_err *fault) {
    return fault->sql_errno == LOCK_WAIT_TIMEOUT && !e->lent;
}

static int run_once(rg__each_run *e, const uint32_t *items, size_t n, bool last, rg__failure *f) {
    rg__err_clear(&f->fault);
    f->code = rg__chunk_run(e, items, n, last, &f->fault);
    f->thread = rg__each_thread(e);
    return f->code;
}

/* One chunk to its end: 1 when it failed for what is in it and is to be cut. before: what it has failed with
 * already, or NULL. */
static int run_chunk(rg__each_run *e, uint32_t *items, size_t n, const rg__failure *before) {
    rg__failure f;
    rg_err pending; /* what the time went by with */
    int tries = 0;
    int races = 0;
    pending.code = RG_OK;
    if (before) f = *before;
    while ((n = keep_open(e, items, n)) > 0) {
        int rc = before && before->code < 0 ? before->code : run_once(e, items, n, races >= RACES, &f);
        before = NULL;
        if (rc >= 0) {
            races++;
            continue;
        }
        if (rc == RG_EPENDING || waited(e, &f.fault)) {
            size_t now = put_off(e, rc, items, keep_open(e, items, n));
            if (now == 0) return RG_OK;
            if (now < n) {
                n = now;
                continue;
            }
            if (rc == RG_EPENDING) pending = f.fault;
        }
        bool unknown = f.fault.cls == RG_CLASS_AMBIGUOUS;
        if (unknown && rg__chunk_settle(e, items, n, f.thread, &f.fault)) continue;
        if (!unknown && !e->lent && again(e->ctx, rc, &f.fault, &tries)) continue;
        if (f.fault.cls == RG_CLASS_PERMANENT && n > 1) return 1;
        if (rc == RG_ETIMEOUT && pending.code) f.fault = pending;
        n = keep_open(e, items, n);
        all_fail(e, items, n, unknown ? RG_OUTCOME_UNKNOWN : RG_OUTCOME_FAILED, &f.fault);
    }
    return RG_OK;
}

static void run_rest(rg__each_run *e, uint32_t *items, size_t n, const rg__failure *before) {
    if (run_chunk(e, items, n, before) == 0) return;
    n = keep_open(e, items, n);
    run_rest(e, items, n / 2, NULL);
    run_rest(e, items + n / 2, n - n / 2, NULL);
}

static void run_group(rg__each_run *e, const rg__place *places, size_t n, uint32_t *scratch) {
    for (size_t i = 0; i < n; i++) scratch[i] = places[i].item;
    for (size_t at = n > RG__CAS_ROWS ? rg__ahead_run(e, scratch, n, run_rest) : 0; at < n;) {
        size_t k = rg__chunk_fits(e, scratch + at, n - at);
        run_rest(e, scratch + at, k, NULL);
        at += k;
    }
}

/* Those of a wave that were put off, now with the patience that it takes. */
static void finish_wave(rg__each_run *e, size_t from, size_t to) {
    e->defer = false;
    for (size_t i = from; i < to; i++) {
        uint32_t item = e->places[i].item;
        if (e->items->items[item].terms->outcome == RG_OUTCOME_NONE) run_rest(e, &item, 1, NULL);
    }
}

static int run_waves(rg__each_run *e, uint32_t *scratch, rg_err *err) {
    const rg__item *items = e->items->items;
    size_t n = e->items->n;
    for (size_t i = 0, k, from = 0; i < n; i = k) {
        e->defer = true;
        for (k = i + 1; k < n && e->places[k].joins;) k++;
        if (items[e->places[i].item].terms->n_exprs) k = i + 1;
        for (size_t j = i; j < k; j++)
            if (rebase(e, &e->places[j], err) < 0) return RG_ENO_MEMORY;
        /* what was rebased may have another shape now */
        if (e->places[i].wave > 0 && items[e->places[i].item].type->version_column) k = i + 1;
        run_group(e, &e->places[i], k - i, scratch);
        if (k < n && e->places[k].wave == e->places[from].wave) continue;
        finish_wave(e, from, k);
        from = k;
    }
    return RG_OK;
}

/* One allocation, which begins with the places. */
static uint32_t *make_room(rg__each_run *e) {
    size_t n = e->items->n;
    e->places = rg__reallocarray(NULL, n, sizeof *e->places + 2 * sizeof *e->earlier);
    e->earlier = e->places ? (uint32_t *)(e->places + n) : NULL;
    return e->earlier ? e->earlier + n : NULL;
}

int rg__each(rg__store *s, const rg__ctx *ctx, rg__items *items, rg_err *err) {
    int64_t started = rg__now_us();
    rg__place places[FEW];
    uint32_t earlier[FEW], few[FEW];
    rg__each_run e = {.store = s, .ctx = ctx, .items = items, .pool = -1, .places = places, .earlier = earlier};
    uint32_t *scratch = few;
    int rc = items->n <= FEW || (scratch = make_room(&e)) ? number_waves(&e) : RG_ENO_MEMORY;
    if (rc >= 0) sort(&e);
    if (rc >= 0) rc = run_waves(&e, scratch, err);
    rg__each_let_go(&e);
    if (scratch != few) rg__free(e.places);
    rg__observe(ctx->metrics, RG__H_FLUSH_SECONDS, rg__now_us() - started);
    rg__count(ctx->metrics, RG__C_FLUSHED_OPS, items->n);
    return rc < 0 ? rg__fail_memory(err) : RG_OK;
}
