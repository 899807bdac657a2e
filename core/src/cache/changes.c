/* SPDX-License-Identifier: MIT */
/* Which cache keys one write touches: the row, and the lookups that it enters or leaves. */
#include "base/alloc.h"
#include "base/broken.h"
#include "base/err.h"
#include "base/map.h"
#include "cache/value.h"
#include "row/row.h"

enum { MANY = 64 }; /* changes; fewer are not worth looking for twins */

static rg__change *add(rg__changes *c) {
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 8;
        rg__change *p = rg__reallocarray(c->items, cap, sizeof *p);
        if (!p) return NULL;
        c->items = p;
        c->cap = cap;
    }
    c->items[c->n] = (rg__change){0};
    return &c->items[c->n++];
}

static int add_row(rg__changes *c, const rg__shared *s, const rg_type *t, const void *before,
                   rg_block *after, uint64_t id) {
    rg__change *ch = add(c);
    if (!ch) return RG_ENO_MEMORY;
    rg__key_row(s, t, id, &ch->key);
    ch->type = t;
    ch->is_row = true;
    ch->id = id;
    ch->after = after;
    ch->before = before;
    return ch->key.text ? RG_OK : RG_ENO_MEMORY;
}

static int add_lookup(rg__changes *c, const rg__shared *s, const rg_type *t, uint32_t index,
                      const rg__buf *key, uint64_t id, bool enters) {
    rg__change *ch = add(c);
    if (!ch) return RG_ENO_MEMORY;
    rg__key_lookup(s, t, index, (rg__slice){key->p, key->len}, &ch->key);
    ch->type = t;
    ch->id = id;
    ch->add = enters;
    return ch->key.text ? RG_OK : RG_ENO_MEMORY;
}

/* True when the row is in a cached lookup of the index, whose key is then in *key. A unique index
 * does not know rows with NULL; a list does. */
static bool find_key(const rg_type *t, const rg__index *x, const void *row, rg__buf *key) {
    rg__buf_clear(key);
    if (!row) return false;
    bool whole = rg__key_encode(t, x, row, key);
    return whole || !(x->flags & RG_INDEX_UNIQUE);
}

static bool same_key(const rg__buf *a, const rg__buf *b) {
    return a->len == b->len && (a->len == 0 || memcmp(a->p, b->p, a->len) == 0);
}

/* Scratch of rg__changes_add. */
typedef struct keys {
    rg__buf old, new;
} keys;

static int add_index(rg__changes *c, const rg__shared *s, const rg_type *t, uint32_t index,
                     const void *before, const void *after, uint64_t id, keys *k) {
    const rg__index *x = &t->indexes[index];
    bool was = find_key(t, x, before, &k->old);
    bool is = find_key(t, x, after, &k->new);
    if (k->old.failed || k->new.failed) return RG_ENO_MEMORY;
    if (was && is && same_key(&k->old, &k->new)) return RG_OK;
    int rc = was ? add_lookup(c, s, t, index, &k->old, id, false) : RG_OK;
    return rc == RG_OK && is ? add_lookup(c, s, t, index, &k->new, id, true) : rc;
}

int rg__changes_add_generation(rg__changes *c, const rg__shared *s, const rg_type *t, rg_err *err) {
    if (!t->cache_queries || c->told == t) return RG_OK;
    rg__change *ch = add(c);
    if (!ch || rg__key_generation(s, t, &ch->key) < 0) return rg__fail_memory(err);
    ch->type = t;
    ch->generation = true;
    c->told = t;
    return RG_OK;
}

int rg__changes_add(rg__changes *c, const rg__shared *s, const rg_type *t, const void *before,
                    rg_block *after, rg_err *err) {
    if (!s || !rg__type_shared(t) || (!before && !after)) return RG_OK;
    const void *now = after ? after->data : NULL;
    uint64_t id = rg__row_id(t, now ? now : before);
    keys k = {0};
    int rc = add_row(c, s, t, before, after, id);
    for (uint32_t i = 0; rc == RG_OK && i < t->n_indexes && !rg__broken("lists"); i++)
        if (rg__index_cached(&t->indexes[i])) rc = add_index(c, s, t, i, before, now, id, &k);
    rg__buf_deinit(&k.old);
    rg__buf_deinit(&k.new);
    return rc < 0 ? rg__fail_memory(err) : rg__changes_add_generation(c, s, t, err);
}

/* Whether the map had the key; it has it then. */
static int seen_before(rg__map *m, const rg__key *k, bool *seen) {
    void *old = NULL;
    static char present;
    int rc = rg__map_put(m, k->text, k->len, &present, &old);
    *seen = old != NULL;
    return rc;
}

int rg__changes_once(rg__changes *c, rg_err *err) {
    if (c->n < MANY) return RG_OK;
    rg__map *m = rg__map_new();
    int rc = m ? RG_OK : RG_ENO_MEMORY;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        bool seen = false;
        if (rc >= 0 && !c->items[i].is_row) rc = seen_before(m, &c->items[i].key, &seen);
        if (seen) rg__key_deinit(&c->items[i].key);
        else c->items[n++] = c->items[i];
    }
    c->n = n;
    rg__map_free(m);
    return rc < 0 ? rg__fail_memory(err) : RG_OK;
}

void rg__changes_deinit(rg__changes *c) {
    for (size_t i = 0; i < c->n; i++) rg__key_deinit(&c->items[i].key);
    rg__free(c->items);
    *c = (rg__changes){0};
}
