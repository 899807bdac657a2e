/* SPDX-License-Identifier: MIT */
/* The flush planner: which statements, in which order. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/map.h"
#include "unit/flush.h"

enum { MAX_LEVEL = 1000 };

/* Order of stages within a flush. */
typedef enum stage {
    STAGE_EARLY_DELETE,
    STAGE_EARLY_UPDATE,
    STAGE_INSERT,
    STAGE_UPDATE,
    STAGE_DELETE
} stage;

void rg__terms_free(rg__terms *t) {
    if (!t) return;
    rg_block_unref(t->expected);
    rg_block_unref(t->current);
    rg__free(t->exprs);
    rg__free(t->params);
    rg__free(t->differs);
    rg__free(t->fault);
    rg__buf_deinit(&t->bytes);
    if (!t->lent) rg__free(t);
}

void rg__terms_blame(rg__terms *t, const rg_err *fault, const char *entity) {
    if (!t->fault) t->fault = rg__malloc(sizeof *t->fault);
    if (!t->fault) return;
    *t->fault = *fault;
    rg__err_set_entity(t->fault, entity);
}

void rg__item_deinit(rg__item *it) {
    rg_block_unref(it->before);
    rg_block_unref(it->after);
    if (!it->mask_lent) rg__free(it->mask);
    rg__terms_free(it->terms);
    *it = (rg__item){0};
}

void rg__items_deinit(rg__items *items) {
    for (size_t i = 0; i < items->n; i++) rg__item_deinit(&items->items[i]);
    rg__free(items->items);
    *items = (rg__items){0};
}

rg__item *rg__items_add(rg__items *items) {
    if (items->n == items->cap) {
        size_t cap = items->cap == 0 ? 8 : items->cap == 8 ? 32 : items->cap * 2;
        rg__item *p = rg__reallocarray(items->items, cap, sizeof *p);
        if (!p) return NULL;
        items->items = p;
        items->cap = cap;
    }
    rg__item *it = &items->items[items->n++];
    *it = (rg__item){0};
    return it;
}

void rg__plan_deinit(rg__plan *plan) {
    rg__free(plan->steps);
    rg__free(plan->order);
    *plan = (rg__plan){0};
}

/* ---- unique values that change hands inside the flush ---- */

static void unique_key(const rg__item *it, uint32_t index, const void *row, rg__buf *key, bool *some) {
    rg__buf_clear(key);
    rg__buf_le32(key, it->type->number);
    rg__buf_le32(key, index);
    *some = rg__key_encode(it->type, &it->type->indexes[index], row, key);
}

static bool touches(const rg__item *it, const rg__index *x) {
    if (it->write != RG_UPDATE) return true;
    for (uint32_t c = 0; c < x->n_columns; c++)
        if (it->mask[x->columns[c]]) return true;
    return false;
}

static bool is_unique(const rg__index *x) { return (x->flags & RG_INDEX_UNIQUE) != 0; }

/* Records which item frees which unique value. */
static int collect_freed(const rg__items *items, rg__map *freed) {
    rg__buf key = {0};
    int rc = RG_OK;
    for (size_t i = 0; i < items->n && rc == RG_OK; i++) {
        rg__item *it = &items->items[i];
        if (it->write == RG_INSERT || !it->before) continue;
        for (uint32_t x = 0; x < it->type->n_indexes && rc == RG_OK; x++) {
            bool some = false;
            if (!is_unique(&it->type->indexes[x]) || !touches(it, &it->type->indexes[x])) continue;
            unique_key(it, x, rg_block_data(it->before), &key, &some);
            if (some) rc = rg__map_put(freed, key.p, key.len, it, NULL);
        }
    }
    if (key.failed) rc = RG_ENO_MEMORY;
    rg__buf_deinit(&key);
    return rc;
}

static void wait_for(rg__item *taker, rg__item *freer) {
    if (freer == taker) return;
    if (taker->write == RG_INSERT || taker->early || freer->write == RG_DELETE) freer->early = true;
    if (taker->write == RG_UPDATE && freer->write == RG_UPDATE && taker->level <= freer->level &&
        freer->level < MAX_LEVEL)
        taker->level = freer->level + 1;
}

/* Lets takers wait for freers; repeated so that chains of updates get rising levels. */
static void order_takers(const rg__items *items, const rg__map *freed) {
    rg__buf key = {0};
    for (int round = 0; round < 8; round++) {
        for (size_t i = 0; i < items->n; i++) {
            rg__item *it = &items->items[i];
            if (it->write == RG_DELETE) continue;
            for (uint32_t x = 0; x < it->type->n_indexes; x++) {
                bool some = false;
                if (!is_unique(&it->type->indexes[x]) || !touches(it, &it->type->indexes[x]))
                    continue;
                unique_key(it, x, rg_block_data(it->after), &key, &some);
                rg__item *freer = some ? rg__map_get(freed, key.p, key.len) : NULL;
                if (freer) wait_for(it, freer);
            }
        }
    }
    rg__buf_deinit(&key);
}

static int find_clashes(const rg__items *items) {
    bool any = false;
    for (size_t i = 0; i < items->n && !any; i++)
        for (uint32_t x = 0; x < items->items[i].type->n_indexes; x++)
            any |= items->items[i].write != RG_INSERT &&
                   is_unique(&items->items[i].type->indexes[x]);
    if (!any) return RG_OK;
    rg__map *freed = rg__map_new();
    if (!freed) return RG_ENO_MEMORY;
    int rc = collect_freed(items, freed);
    if (rc == RG_OK && rg__map_count(freed) > 0) order_takers(items, freed);
    rg__map_free(freed);
    return rc;
}

/* ---- order and steps ---- */

static stage stage_of(const rg__item *it) {
    if (it->write == RG_DELETE) return it->early ? STAGE_EARLY_DELETE : STAGE_DELETE;
    if (it->write == RG_UPDATE) return it->early ? STAGE_EARLY_UPDATE : STAGE_UPDATE;
    return STAGE_INSERT;
}

static int sign(int64_t a, int64_t b) { return (a > b) - (a < b); }

static int compare_types(const rg__item *a, const rg__item *b) {
    int d = sign(a->type->rank, b->type->rank);
    if (d == 0) d = sign(a->type->number, b->type->number);
    return a->write == RG_DELETE ? -d : d;
}

static int compare_masks(const rg__item *a, const rg__item *b) {
    return a->mask && b->mask ? memcmp(a->mask, b->mask, a->type->n_columns) : 0;
}

/* Those with terms go apart from those without, and compare the same columns. */
static int compare_terms(const rg__item *a, const rg__item *b) {
    int d = sign(a->terms != NULL, b->terms != NULL);
    if (d == 0 && a->terms) d = sign(a->terms->check, b->terms->check);
    return d || !a->terms ? d : memcmp(a->terms->expect, b->terms->expect, a->type->n_columns);
}

static int compare(const rg__item *a, const rg__item *b) {
    int d = sign(stage_of(a), stage_of(b));
    if (d == 0) d = sign(a->level, b->level);
    if (d == 0) d = compare_types(a, b);
    if (d == 0) d = compare_masks(a, b);
    if (d == 0) d = compare_terms(a, b);
    if (d == 0) d = (a->id > b->id) - (a->id < b->id);
    return d;
}

static int compare_pointers(const void *a, const void *b) {
    const rg__item *x = *(const rg__item *const *)a;
    const rg__item *y = *(const rg__item *const *)b;
    int d = compare(x, y);
    return d ? d : (x > y) - (x < y);
}

/* New rows with ids from blocks come in order. */
static bool is_sorted(const rg__item *const *sorted, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (compare(sorted[i - 1], sorted[i]) >= 0) return false;
    return true;
}

static bool same_step(const rg__item *a, const rg__item *b) {
    return stage_of(a) == stage_of(b) && a->level == b->level && a->type == b->type &&
           compare_masks(a, b) == 0 && compare_terms(a, b) == 0;
}

static int refuse_twins(const rg__item *const *sorted, size_t n, rg_err *err) {
    for (size_t i = 1; i < n; i++) {
        const rg__item *a = sorted[i - 1];
        const rg__item *b = sorted[i];
        if (a->type == b->type && a->id == b->id && a->id != 0 && a->write == b->write)
            return rg__fail(err, RG_EMISUSE, "%s %llu is written twice in one flush", a->type->name,
                            (unsigned long long)a->id);
    }
    return RG_OK;
}

static int add_step(rg__plan *plan, const rg__item *first, uint32_t *items) {
    if (plan->n == plan->cap) {
        size_t cap = plan->cap ? plan->cap * 2 : 8;
        rg__step *p = rg__reallocarray(plan->steps, cap, sizeof *p);
        if (!p) return RG_ENO_MEMORY;
        plan->steps = p;
        plan->cap = cap;
    }
    plan->steps[plan->n++] =
        (rg__step){.write = first->write, .type = first->type, .mask = first->mask, .items = items};
    return RG_OK;
}

static int cut_steps(const rg__items *items, rg__item *const *sorted, size_t n, rg__plan *plan) {
    plan->order = rg__reallocarray(NULL, n + 1, sizeof *plan->order);
    if (!plan->order) return RG_ENO_MEMORY;
    for (size_t i = 0; i < n; i++) {
        plan->order[i] = (uint32_t)(sorted[i] - items->items);
        if (i == 0 || !same_step(sorted[i - 1], sorted[i])) {
            int rc = add_step(plan, sorted[i], &plan->order[i]);
            if (rc < 0) return rc;
        }
        plan->steps[plan->n - 1].n++;
    }
    return RG_OK;
}

int rg__plan_make(const rg__items *items, int mysql_pool, rg__plan *plan, rg_err *err) {
    *plan = (rg__plan){0};
    rg__item **sorted = rg__reallocarray(NULL, items->n + 1, sizeof *sorted);
    if (!sorted) return rg__fail_memory(err);
    int rc = find_clashes(items);
    size_t n = 0;
    for (size_t i = 0; i < items->n; i++)
        if (items->items[i].type->mysql_pool == mysql_pool) sorted[n++] = &items->items[i];
    if (!is_sorted((const rg__item *const *)sorted, n))
        qsort(sorted, n, sizeof *sorted, compare_pointers);
    if (rc == RG_OK) rc = refuse_twins((const rg__item *const *)sorted, n, err);
    if (rc == RG_OK) rc = cut_steps(items, sorted, n, plan);
    rg__free(sorted);
    if (rc == RG_ENO_MEMORY) rg__fail_memory(err);
    if (rc < 0) rg__plan_deinit(plan);
    return rc;
}
