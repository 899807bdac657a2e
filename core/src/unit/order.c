/* SPDX-License-Identifier: MIT */
/* What has to come before what within a flush, beyond the order of its types: unique values that change
 * hands, rows whose foreign keys refer to rows of their own type or of one that refers back. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/map.h"
#include "unit/flush.h"

/* That `then` waits for `first`. */
typedef struct edge {
    uint32_t first, then; /* numbers of items */
    uint32_t index;       /* a value of this unique index changes hands; NO_INDEX: a foreign key */
} edge;
enum { NO_INDEX = UINT32_MAX };

typedef struct order {
    rg__item *items;
    size_t n;
    rg__map *freed; /* unique value -> the item that frees it */
    rg__map *rows;  /* write, type and id -> the item that inserts or deletes that row */
    rg__buf key;
    edge *edges;
    size_t n_edges, cap;
} order;

static int connect(order *o, const rg__item *first, const rg__item *then, uint32_t index) {
    if (o->n_edges == o->cap) {
        size_t cap = o->cap ? o->cap * 2 : 32;
        edge *p = rg__reallocarray(o->edges, cap, sizeof *p);
        if (!p) return RG_ENO_MEMORY;
        o->edges = p;
        o->cap = cap;
    }
    o->edges[o->n_edges++] =
        (edge){(uint32_t)(first - o->items), (uint32_t)(then - o->items), index};
    return RG_OK;
}

/* ---- unique values that change hands ---- */

static bool is_unique(const rg__index *x) { return (x->flags & RG_INDEX_UNIQUE) != 0; }

static bool touches(const rg__item *it, const rg__index *x) {
    if (!is_unique(x)) return false;
    if (it->write != RG_UPDATE) return true;
    for (uint32_t c = 0; c < x->n_columns; c++)
        if (it->mask[x->columns[c]]) return true;
    return false;
}

static bool unique_key(order *o, const rg__item *it, uint32_t index, const rg_block *row) {
    rg__buf_clear(&o->key);
    rg__buf_le32(&o->key, it->type->number);
    rg__buf_le32(&o->key, index);
    return rg__key_encode(it->type, &it->type->indexes[index], rg_block_data(row), &o->key);
}

static int note_freed(order *o, rg__item *it) {
    int rc = RG_OK;
    if (it->write == RG_INSERT || !it->before) return rc;
    for (uint32_t x = 0; x < it->type->n_indexes && rc == RG_OK; x++)
        if (touches(it, &it->type->indexes[x]) && unique_key(o, it, x, it->before))
            rc = rg__map_put(o->freed, o->key.p, o->key.len, it, NULL);
    return rc;
}

static int take_values(order *o, rg__item *it) {
    int rc = RG_OK;
    if (it->write == RG_DELETE) return rc;
    for (uint32_t x = 0; x < it->type->n_indexes && rc == RG_OK; x++) {
        if (!touches(it, &it->type->indexes[x]) || !unique_key(o, it, x, it->after)) continue;
        rg__item *freer = rg__map_get(o->freed, o->key.p, o->key.len);
        if (freer && freer != it) rc = connect(o, freer, it, x);
    }
    return rc;
}

static int order_values(order *o) {
    int rc = RG_OK;
    for (size_t i = 0; i < o->n && rc == RG_OK; i++) rc = note_freed(o, &o->items[i]);
    if (rg__map_count(o->freed) == 0) return rc;
    for (size_t i = 0; i < o->n && rc == RG_OK; i++) rc = take_values(o, &o->items[i]);
    return rc;
}

/* ---- rows ---- */

static void row_key(order *o, int write, uint32_t type, uint64_t id) {
    rg__buf_clear(&o->key);
    rg__buf_le32(&o->key, (uint32_t)write);
    rg__buf_le32(&o->key, type);
    rg__buf_le64(&o->key, id);
}

static rg__item *find_row(order *o, int write, uint32_t type, uint64_t id) {
    row_key(o, write, type, id);
    return rg__map_get(o->rows, o->key.p, o->key.len);
}

int rg__item_refuse_twin(const rg__item *it, rg_err *err) {
    return rg__fail(err, RG_EMISUSE, "%s %llu is written twice in one flush", it->type->name,
                    (unsigned long long)it->id);
}

static int note_row(order *o, rg__item *it, rg_err *err) {
    void *twin = NULL;
    if (it->write == RG_UPDATE || it->id == 0) return RG_OK;
    row_key(o, it->write, it->type->number, it->id);
    int rc = rg__map_put(o->rows, o->key.p, o->key.len, it, &twin);
    return twin ? rg__item_refuse_twin(it, err) : rc;
}

static bool changes(const rg__item *it, uint32_t column) {
    return it->write != RG_UPDATE || it->mask[column];
}

/* The row of that write that a reference leads to, or NULL. */
static rg__item *follow(order *o, const rg__item *it, uint32_t column, const rg_block *row, int write) {
    rg__value v = rg__row_value(it->type, rg_block_data(row), column);
    if (v.is_null) return NULL;
    rg__item *to = find_row(o, write, (uint32_t)it->type->columns[column].target_space, v.u);
    return to == it ? NULL : to;
}

/* A row is there before others refer to it, and goes after they have ceased to. */
static int follow_both(order *o, rg__item *it, uint32_t column) {
    rg__item *to = it->write != RG_DELETE ? follow(o, it, column, it->after, RG_INSERT) : NULL;
    int rc = to ? connect(o, to, it, NO_INDEX) : RG_OK;
    if (rc < 0 || it->write == RG_INSERT || !it->before) return rc;
    to = follow(o, it, column, it->before, RG_DELETE);
    return to ? connect(o, it, to, NO_INDEX) : rc;
}

static int follow_all(order *o, rg__item *it) {
    int rc = RG_OK;
    if (!it->type->has_foreign) return rc;
    for (uint32_t i = 0; i < it->type->n_columns && rc == RG_OK; i++)
        if (it->type->columns[i].foreign_key && changes(it, i)) rc = follow_both(o, it, i);
    return rc;
}

/* The caches could not tell the row that goes from the one that comes. */
static int refuse_replacement(order *o, const rg__item *it, rg_err *err) {
    if (it->write != RG_INSERT || !find_row(o, RG_DELETE, it->type->number, it->id)) return RG_OK;
    rg__fail(err, RG_EMISUSE, "%s %llu is deleted and inserted in one flush; flush the deletion first",
             it->type->name, (unsigned long long)it->id);
    rg__err_set_entity(err, it->type->name);
    if (err) err->item = (int32_t)(it - o->items);
    return RG_EMISUSE;
}

static int order_rows(order *o, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; i < o->n && rc == RG_OK; i++) rc = note_row(o, &o->items[i], err);
    for (size_t i = 0; i < o->n && rc == RG_OK; i++) {
        rc = refuse_replacement(o, &o->items[i], err);
        if (rc == RG_OK) rc = follow_all(o, &o->items[i]);
    }
    return rc;
}

/* ---- rounds and levels ---- */

typedef struct walk {
    uint32_t *start; /* where the edges from an item begin in `edges` */
    uint32_t *edges; /* by their first */
    uint32_t *waiting; /* of an item: those that it waits for and that have no place yet */
    uint32_t *ready;
} walk;

static bool walk_init(walk *w, const order *o) {
    w->start = rg__calloc(o->n + 2, sizeof *w->start);
    w->edges = rg__calloc(o->n_edges, sizeof *w->edges);
    w->waiting = rg__calloc(o->n, sizeof *w->waiting);
    w->ready = rg__calloc(o->n, sizeof *w->ready);
    if (!w->start || !w->edges || !w->waiting || !w->ready) return false;
    for (size_t i = 0; i < o->n_edges; i++) {
        w->start[o->edges[i].first + 2]++;
        w->waiting[o->edges[i].then]++;
    }
    for (size_t i = 2; i < o->n + 2; i++) w->start[i] += w->start[i - 1];
    for (size_t i = 0; i < o->n_edges; i++)
        w->edges[w->start[o->edges[i].first + 1]++] = (uint32_t)i;
    return true;
}

static void walk_deinit(walk *w) {
    rg__free(w->start);
    rg__free(w->edges);
    rg__free(w->waiting);
    rg__free(w->ready);
}

/* Inserts come before updates, and those before deletes: what is to be the other way round takes another
 * round. Within one kind the rank decides between types that are not on one cycle. */
static void go_after(const rg__item *first, rg__item *then) {
    uint32_t round = first->round + (first->write > then->write);
    bool alike = first->write == then->write && first->type->cycle == then->type->cycle;
    uint32_t level = alike ? first->level + 1 : 0;
    if (round < then->round || (round == then->round && level <= then->level)) return;
    then->round = round;
    then->level = level;
}

/* From the first to the last; how many have a place then: all but those that wait for each other, and
 * those that wait for them. */
static size_t go_through(const order *o, walk *w) {
    size_t n = 0;
    for (uint32_t i = 0; i < o->n; i++)
        if (!w->waiting[i]) w->ready[n++] = i;
    for (size_t k = 0; k < n; k++) {
        uint32_t first = w->ready[k];
        for (uint32_t i = w->start[first]; i < w->start[first + 1]; i++) {
            uint32_t then = o->edges[w->edges[i]].then;
            go_after(&o->items[first], &o->items[then]);
            if (--w->waiting[then] == 0) w->ready[n++] = then;
        }
    }
    return n;
}

/* ---- what no order can do ---- */

/* One of the edges of a cycle, of a unique value if there is any: whoever waits does so for somebody that
 * waits, so that a walk back from one to the next ends up in a cycle. `ready` says where it goes on. */
static const edge *find_cycle(const order *o, walk *w) {
    uint32_t at = 0;
    for (size_t i = 0; i < o->n_edges; i++) {
        if (!w->waiting[o->edges[i].first] || !w->waiting[o->edges[i].then]) continue;
        at = o->edges[i].then;
        w->ready[at] = (uint32_t)i;
    }
    for (size_t i = 0; i < o->n; i++) at = o->edges[w->ready[at]].first;
    const edge *found = &o->edges[w->ready[at]];
    for (const edge *e = found; e->first != found->then;) {
        e = &o->edges[w->ready[e->first]];
        if (e->index != NO_INDEX) return e;
    }
    return found;
}

static int refuse_cycle(const order *o, const edge *e, rg_err *err) {
    const rg__item *it = &o->items[e->then];
    int rc;
    if (e->index == NO_INDEX) {
        rc = rg__fail(err, RG_EFOREIGN_KEY,
                      "%s %llu: rows of one flush refer to each other in a circle of foreign keys; write "
                      "one of them without its reference first",
                      it->type->name, (unsigned long long)it->id);
    } else {
        const char *index = it->type->indexes[e->index].name;
        rc = rg__fail(err, RG_EDUPLICATE_KEY,
                      "%s %llu: it gets a value of the unique index '%s' from a row of the same flush that "
                      "cannot give it up before; give one of them another value first",
                      it->type->name, (unsigned long long)it->id, index);
        if (err) snprintf(err->index, sizeof err->index, "%s", index);
    }
    rg__err_set_entity(err, it->type->name);
    if (err) err->item = (int32_t)e->then;
    return rc;
}

static int set_levels(const order *o, rg_err *err) {
    walk w = {0};
    if (o->n_edges == 0) return RG_OK;
    int rc = walk_init(&w, o) ? RG_OK : RG_ENO_MEMORY;
    if (rc == RG_OK && go_through(o, &w) < o->n) rc = refuse_cycle(o, find_cycle(o, &w), err);
    walk_deinit(&w);
    return rc;
}

/* ---- what there is to look at ---- */

typedef struct kinds {
    bool values;  /* some unique value may be given free */
    bool foreign; /* some type has foreign keys */
    bool seen[RG_DELETE + 1];
} kinds;

static kinds look(const rg__items *items) {
    kinds k = {0};
    for (size_t i = 0; i < items->n; i++) {
        const rg__item *it = &items->items[i];
        k.seen[it->write] = true;
        k.foreign |= it->type->has_foreign;
        for (uint32_t x = 0; it->write != RG_INSERT && x < it->type->n_indexes && !k.values; x++)
            k.values = is_unique(&it->type->indexes[x]);
    }
    return k;
}

int rg__items_order(const rg__items *items, rg_err *err) {
    kinds k = look(items);
    bool rows = k.foreign || (k.seen[RG_INSERT] && k.seen[RG_DELETE]);
    if (items->n < 2 || (!k.values && !rows)) return RG_OK;
    order o = {.items = items->items, .n = items->n};
    for (size_t i = 0; i < o.n; i++) o.items[i].round = o.items[i].level = 0;
    o.freed = rg__map_new();
    o.rows = rg__map_new();
    int rc = o.freed && o.rows ? RG_OK : RG_ENO_MEMORY;
    if (rc == RG_OK && k.values) rc = order_values(&o);
    if (rc == RG_OK && rows) rc = order_rows(&o, err);
    if (o.key.failed) rc = RG_ENO_MEMORY;
    if (rc == RG_OK) rc = set_levels(&o, err);
    rg__map_free(o.freed);
    rg__map_free(o.rows);
    rg__buf_deinit(&o.key);
    rg__free(o.edges);
    return rc == RG_ENO_MEMORY ? rg__fail_memory(err) : rc;
}
