/* SPDX-License-Identifier: MIT */
/* Telling the caches what became of a batch's pending entries. */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/batch.h"

/* The keys of a batch, each once, with its last entry: the caches settle earlier ones as well. */
typedef struct telling {
    rg__applied *items; /* keys borrowed from changes */
    size_t n, cap;
    rg__map *known;     /* key -> number + 1 in items */
} telling;

static rg__applied *add(telling *t) {
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        rg__applied *p = rg__reallocarray(t->items, cap, sizeof *p);
        if (!p) return NULL;
        t->items = p;
        t->cap = cap;
    }
    t->items[t->n] = (rg__applied){0};
    return &t->items[t->n++];
}

static int tell_key(telling *t, const rg__change *ch, uint32_t part, rg__pos at, bool drop) {
    uintptr_t number = (uintptr_t)rg__map_get(t->known, ch->key.text, ch->key.len);
    rg__applied *a = number ? &t->items[number - 1] : add(t);
    if (!a) return RG_ENO_MEMORY;
    if (!number &&
        rg__map_put(t->known, ch->key.text, ch->key.len, (void *)(uintptr_t)t->n, NULL) < 0)
        return RG_ENO_MEMORY;
    a->key = ch->key;
    a->type = ch->type;
    a->is_row = ch->is_row;
    a->part = part;
    a->drop |= drop;
    rg__pos_format(at, a->id);
    return RG_OK;
}

/* The changes' keys must stay where they are until the caches are told. */
static int collect(const rg__batch *b, bool drop, const rg__queue *q, rg__changes *keys, telling *t,
                   rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++) {
        const rg__task *task = &b->tasks[i];
        size_t from = keys->n;
        if (task->op) rc = rg__qop_keys(q, task->op, keys, err);
        for (; rc >= 0 && from < keys->n; from++) {
            const rg__change *ch = &keys->items[from];
            if (ch->generation) continue; /* of tables: batch_mark and batch_publish */
            if (tell_key(t, ch, q->part, task->id, drop || task->fate != RG__FATE_GOOD) < 0)
                rc = rg__fail_memory(err);
        }
    }
    return rc;
}

int rg__batch_tell(const rg__batch *b, bool drop, const rg__queue *q, const rg__ctx *ctx,
                   rg_err *err) {
    rg__changes keys = {0};
    telling t = {.known = rg__map_new()};
    int rc = t.known ? collect(b, drop, q, &keys, &t, err) : rg__fail_memory(err);
    if (rc >= 0 && t.n) rc = rg__shared_applied(q->shared, ctx, t.items, t.n, err);
    rg__changes_deinit(&keys);
    if (t.known) rg__map_free(t.known);
    rg__free(t.items);
    return rc;
}

int rg__batch_forget(const rg__batch *b, const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    rg__changes changes = {0};
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++)
        if (b->tasks[i].op) rc = rg__qop_keys(q, b->tasks[i].op, &changes, err);
    rg__key *keys = rg__calloc(changes.n + 1, sizeof *keys);
    if (!keys) rc = rg__fail_memory(err);
    for (size_t i = 0; rc >= 0 && i < changes.n; i++) keys[i] = changes.items[i].key;
    if (rc >= 0 && changes.n) rc = rg__shared_drop(q->shared, ctx, keys, changes.n, err);
    rg__free(keys);
    rg__changes_deinit(&changes);
    return rc;
}
