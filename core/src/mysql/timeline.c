/* SPDX-License-Identifier: MIT */
/* Timelines: entries by pool and table, merged by the later position. */
#include "mysql/timeline.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"

typedef struct entry {
    const rg__mysql_pool *pool;
    const rg_type *type; /* NULL: every table of the pool */
    rg__need need;
} entry;

struct rg__timeline {
    atomic_uint refs;
    pthread_mutex_t lock; /* a leaf */
    bool distrusts;
    entry *entries;
    size_t n, cap;
};

rg__timeline *rg__timeline_new(void) {
    rg__timeline *t = rg__calloc(1, sizeof *t);
    if (!t) return NULL;
    atomic_init(&t->refs, 1);
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

rg__timeline *rg__timeline_ref(rg__timeline *t) {
    if (t) atomic_fetch_add(&t->refs, 1);
    return t;
}

void rg__timeline_unref(rg__timeline *t) {
    if (!t || atomic_fetch_sub(&t->refs, 1) != 1) return;
    pthread_mutex_destroy(&t->lock);
    rg__free(t->entries);
    rg__free(t);
}

void rg__timeline_distrust(rg__timeline *t) {
    pthread_mutex_lock(&t->lock);
    t->distrusts = true;
    pthread_mutex_unlock(&t->lock);
}

/* ---- needs ---- */

static void add_gtid(rg__need *to, const rg__gtid *g) {
    for (int i = 0; i < to->n; i++) {
        if (strcmp(to->gtids[i].source, g->source) != 0) continue;
        if (g->n > to->gtids[i].n) to->gtids[i].n = g->n;
        return;
    }
    if (to->n == RG__NEED_GTIDS)
        to->lost = true; /* more histories than anybody has: let the primary answer */
    else
        to->gtids[to->n++] = *g;
}

static void merge(rg__need *to, const rg__need *more) {
    for (int i = 0; i < more->n; i++) add_gtid(to, &more->gtids[i]);
    to->lost |= more->lost;
    to->vague |= more->vague;
    bool later = more->queued_ms != to->queued_ms ? more->queued_ms > to->queued_ms
                                                  : more->queued_seq > to->queued_seq;
    if (!later) return;
    to->queued_ms = more->queued_ms;
    to->queued_seq = more->queued_seq;
}

/* ---- entries; under the lock ---- */

static entry *find(rg__timeline *t, const rg__mysql_pool *pool, const rg_type *type) {
    for (size_t i = 0; i < t->n; i++)
        if (t->entries[i].pool == pool && t->entries[i].type == type) return &t->entries[i];
    return NULL;
}

static entry *add(rg__timeline *t, const rg__mysql_pool *pool, const rg_type *type) {
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 4;
        entry *p = rg__reallocarray(t->entries, cap, sizeof *p);
        if (!p) return NULL;
        t->entries = p;
        t->cap = cap;
    }
    t->entries[t->n] = (entry){.pool = pool, .type = type};
    return &t->entries[t->n++];
}

void rg__timeline_add(rg__timeline *t, const rg__mysql_pool *pool, const rg_type *type,
                      const rg__need *more) {
    if (rg__need_none(more)) return;
    pthread_mutex_lock(&t->lock);
    entry *e = find(t, pool, type);
    if (!e) e = add(t, pool, type);
    if (e)
        merge(&e->need, more);
    else
        t->distrusts = true;
    pthread_mutex_unlock(&t->lock);
}

void rg__timeline_need(rg__timeline *t, const rg__mysql_pool *pool, const rg_type *type,
                       rg__need *out) {
    *out = (rg__need){0};
    pthread_mutex_lock(&t->lock);
    out->lost = t->distrusts;
    for (size_t i = 0; i < t->n; i++) {
        const entry *e = &t->entries[i];
        if (e->pool == pool && (!type || !e->type || e->type == type)) merge(out, &e->need);
    }
    pthread_mutex_unlock(&t->lock);
}

void rg__timeline_clarify(rg__timeline *t, const rg__mysql_pool *pool, rg__slice position) {
    rg__need known = {0};
    known.n = rg__gtid_read(position, known.gtids, RG__NEED_GTIDS);
    if (known.n <= 0) return;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++) {
        entry *e = &t->entries[i];
        if (e->pool != pool || !e->need.vague) continue;
        e->need.vague = false;
        merge(&e->need, &known);
    }
    pthread_mutex_unlock(&t->lock);
}

bool rg__timeline_each(rg__timeline *t, rg__timeline_fn fn, void *arg) {
    pthread_mutex_lock(&t->lock);
    bool trusts = !t->distrusts;
    for (size_t i = 0; i < t->n; i++)
        fn(arg, t->entries[i].pool, t->entries[i].type, &t->entries[i].need);
    pthread_mutex_unlock(&t->lock);
    return trusts;
}
