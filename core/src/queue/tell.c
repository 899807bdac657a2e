/* SPDX-License-Identifier: MIT */
/* Telling the caches what became of a batch's pending entries. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"
#include "queue/batch.h"

/* The keys of a batch: a row's once, with its last entry; a lookup's once an entry, because each
 * entry has left its own delta there. */
typedef struct telling {
    rg__applied *items; /* keys borrowed from changes */
    size_t n, cap;
    rg__map *known;     /* key, for lookups with the entry's id -> number + 1 in items */
    rg__buf name;       /* scratch */
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

static rg__slice name_of(telling *t, const rg__change *ch, const char *id) {
    if (ch->is_row) return (rg__slice){ch->key.text, ch->key.len};
    rg__buf_clear(&t->name);
    rg__buf_add(&t->name, ch->key.text, ch->key.len);
    rg__buf_char(&t->name, '\0');
    rg__buf_str(&t->name, id);
    return (rg__slice){t->name.p, t->name.len};
}

static int tell_key(telling *t, const rg__change *ch, rg__pos at, bool drop) {
    char id[RG__POS_TEXT];
    rg__pos_format(at, id);
    rg__slice name = name_of(t, ch, id);
    if (t->name.failed) return RG_ENO_MEMORY;
    uintptr_t number = (uintptr_t)rg__map_get(t->known, name.p, name.len);
    rg__applied *a = number ? &t->items[number - 1] : add(t);
    if (!a) return RG_ENO_MEMORY;
    if (!number && rg__map_put(t->known, name.p, name.len, (void *)(uintptr_t)t->n, NULL) < 0)
        return RG_ENO_MEMORY;
    a->key = ch->key;
    a->type = ch->type;
    a->is_row = ch->is_row;
    a->drop |= drop;
    memcpy(a->id, id, sizeof id);
    return RG_OK;
}

/* The pending entry shows something that was not applied. */
static bool is_false(const rg__task *task, const rg__change *ch, const rg__dead *dead) {
    if (!dead || task->fate != RG__FATE_GOOD) return true;
    return ch->is_row ? rg__dead_had(dead, rg__qop_entity(task->op), task->op->id)
                      : rg__dead_taints(dead, &ch->key);
}

static int tell_task(telling *t, const rg__task *task, const rg__changes *keys, size_t from,
                     const rg__dead *dead) {
    int rc = RG_OK;
    for (size_t i = from; rc == RG_OK && i < keys->n; i++)
        rc = tell_key(t, &keys->items[i], task->id, is_false(task, &keys->items[i], dead));
    return rc;
}

/* The changes' keys must stay where they are until the caches are told. */
static int collect(const rg__batch *b, const rg__dead *dead, const rg__queue *q, rg__changes *keys,
                   telling *t, rg_err *err) {
    for (size_t i = 0; i < b->n; i++) {
        size_t from = keys->n;
        if (!b->tasks[i].op) continue;
        int rc = rg__qop_keys(q, b->tasks[i].op, keys, err);
        if (rc < 0) return rc;
        if (tell_task(t, &b->tasks[i], keys, from, dead) < 0) return rg__fail_memory(err);
    }
    return RG_OK;
}

int rg__batch_tell(const rg__batch *b, const rg__dead *dead, const rg__queue *q, const rg__ctx *ctx,
                   rg_err *err) {
    rg__changes keys = {0};
    telling t = {.known = rg__map_new()};
    int rc = t.known ? collect(b, dead, q, &keys, &t, err) : rg__fail_memory(err);
    if (rc >= 0 && t.n) rc = rg__shared_applied(q->shared, ctx, t.items, t.n, err);
    rg__changes_deinit(&keys);
    if (t.known) rg__map_free(t.known);
    rg__buf_deinit(&t.name);
    rg__free(t.items);
    return rc;
}
