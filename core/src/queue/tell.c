/* SPDX-License-Identifier: MIT */
/* Telling the caches what became of a batch's pending entries. */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/batch.h"

/* The keys of a batch, each once, with its last entry: the caches settle earlier ones as well. */
typedef struct telling {
    rg__applied *items; /* keys borrowed from changes, or from named */
    rg__pos *at;        /* of each, its entry */
    size_t n, cap;
    rg__map *known;     /* key -> number + 1 in items */
    rg__key *named;     /* of what this process does not cache; owned */
    size_t n_named, cap_named;
} telling;

static rg__applied *add(telling *t) {
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        rg__applied *p = rg__reallocarray(t->items, cap, sizeof *p);
        if (p) t->items = p;
        rg__pos *at = p ? rg__reallocarray(t->at, cap, sizeof *at) : NULL;
        if (!at) return NULL;
        t->at = at;
        t->cap = cap;
    }
    t->items[t->n] = (rg__applied){0};
    return &t->items[t->n++];
}

static size_t number_of(const telling *t, const rg__key *key) {
    return (size_t)(uintptr_t)rg__map_get(t->known, key->text, key->len);
}

static int tell_key(telling *t, const rg__change *ch, uint32_t part, rg__pos at, bool drop) {
    size_t number = number_of(t, &ch->key);
    rg__applied *a = number ? &t->items[number - 1] : add(t);
    if (!a) return RG_ENO_MEMORY;
    if (!number) number = t->n;
    if (number == t->n &&
        rg__map_put(t->known, ch->key.text, ch->key.len, (void *)(uintptr_t)number, NULL) < 0)
        return RG_ENO_MEMORY;
    a->key = ch->key;
    a->type = ch->type;
    a->is_row = ch->is_row;
    a->part = part;
    a->drop |= drop;
    t->at[number - 1] = at;
    rg__pos_format(at, a->id);
    return RG_OK;
}

/* ---- what other programs cache ----
 * A producer may have other definitions than this consumer, as while a program is replaced by its next
 * version: entities that are cached there, indexes that are unknown or of other columns here. What waits
 * there is dropped, as what it would become is not known. */

static rg__key *add_named(telling *t, const rg__buf *name) {
    if (t->n_named == t->cap_named) {
        size_t cap = t->cap_named ? t->cap_named * 2 : 8;
        rg__key *p = rg__reallocarray(t->named, cap, sizeof *p);
        if (!p) return NULL;
        t->named = p;
        t->cap_named = cap;
    }
    rg__key *key = &t->named[t->n_named];
    *key = (rg__key){.text = rg__malloc(name->len), .len = (uint32_t)name->len};
    if (!key->text) return NULL;
    memcpy(key->text, name->p, name->len);
    t->n_named++;
    return key;
}

/* Mostly it is told as this process' own, by then or later. */
static int tell_name(telling *t, const rg__queue *q, const rg__buf *name, rg__pos at) {
    if (name->failed) return RG_ENO_MEMORY;
    const rg__key wanted = {.text = name->p, .len = (uint32_t)name->len};
    size_t number = number_of(t, &wanted);
    if (number && rg__pos_compare(t->at[number - 1], at) >= 0) return RG_OK;
    rg__change ch = {0};
    if (number) {
        const rg__applied *own = &t->items[number - 1];
        ch = (rg__change){.key = own->key, .type = own->type, .is_row = own->is_row};
    } else {
        const rg__key *key = add_named(t, name);
        if (!key) return RG_ENO_MEMORY;
        ch.key = *key;
    }
    return tell_key(t, &ch, q->part, at, true);
}

static void begin_name(const rg__queue *q, rg__buf *name) {
    rg__buf_clear(name);
    rg__buf_fmt(name, "{%s}:", rg__shared_prefix(q->shared));
}

static int tell_waiting(telling *t, const rg__queue *q, const rg__waiting *w) {
    rg__reader r = {(const uint8_t *)w->names.p, w->names.len, 0, false};
    rg__buf name = {0};
    int rc = RG_OK;
    while (rc == RG_OK && r.at < r.len) {
        rg__slice rest = rg__read_bytes(&r, rg__read_le16(&r));
        if (r.bad) break;
        begin_name(q, &name);
        rg__buf_add(&name, rest.p, rest.len);
        rc = tell_name(t, q, &name, w->id);
    }
    rg__buf_deinit(&name);
    return rc;
}

/* The SQL name in an operation's part of the dictionary (payload.h), which was read before. */
static rg__slice table_of(const rg__qdecoded *op) {
    rg__reader r = {(const uint8_t *)op->table.p, op->table.len, 0, false};
    rg__read_bytes(&r, rg__read_le16(&r));
    return rg__read_bytes(&r, rg__read_le16(&r));
}

static int tell_row(telling *t, const rg__queue *q, const rg__task *task) {
    rg__buf name = {0}, table = {0};
    rg__slice sql = table_of(task->op);
    begin_name(q, &name);
    rg__buf_add(&table, sql.p, sql.len);
    rg__buf_cstr(&table);
    if (!table.failed) rg__key_name_row(q->name, table.p, task->op->id, &name);
    int rc = table.failed ? RG_ENO_MEMORY : tell_name(t, q, &name, task->id);
    rg__buf_deinit(&table);
    rg__buf_deinit(&name);
    return rc;
}

static int collect_others(const rg__batch *b, const rg__queue *q, telling *t, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc == RG_OK && i < b->n; i++) {
        const rg__qdecoded *op = b->tasks[i].op;
        if (op && (!op->type || !rg__type_shared(op->type))) rc = tell_row(t, q, &b->tasks[i]);
    }
    for (size_t i = 0; rc == RG_OK && i < b->n_entries; i++) rc = tell_waiting(t, q, &b->waiting[i]);
    return rc == RG_OK ? rc : rg__fail_memory(err);
}

/* ---- the batch ---- */

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
    if (rc >= 0) rc = collect_others(b, q, &t, err);
    if (rc >= 0 && t.n) rc = rg__shared_applied(q->shared, ctx, t.items, t.n, err);
    rg__changes_deinit(&keys);
    if (t.known) rg__map_free(t.known);
    for (size_t i = 0; i < t.n_named; i++) rg__key_deinit(&t.named[i]);
    rg__free(t.named);
    rg__free(t.at);
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
