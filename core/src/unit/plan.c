/* SPDX-License-Identifier: MIT */
/* The flush planner: which statements, in which order. */
#include <stdlib.h>

#include "base/alloc.h"
#include "unit/flush.h"

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

rg__qop rg__item_op(const rg__item *it) {
    rg__qop op = {.write = (uint8_t)it->write, .type = it->type, .id = it->id, .mask = it->mask};
    if (it->after) op.row = rg_block_data(it->after);
    if (it->before) op.before = rg_block_data(it->before);
    if (it->before && it->type->version_column) op.expected = rg__row_version(it->type, op.before);
    return op;
}

void rg__plan_deinit(rg__plan *plan) {
    rg__free(plan->steps);
    rg__free(plan->order);
    *plan = (rg__plan){0};
}

/* ---- order and steps ---- */

static int sign(int64_t a, int64_t b) { return (a > b) - (a < b); }

/* Types on one cycle of foreign keys are taken as one, within which the level decides. */
static int compare_types(const rg__item *a, const rg__item *b) {
    int up = a->write == RG_DELETE ? -1 : 1;
    int d = up * sign(a->type->rank, b->type->rank);
    if (d == 0) d = up * sign(a->type->cycle, b->type->cycle);
    if (d == 0) d = sign(a->level, b->level);
    return d ? d : up * sign(a->type->number, b->type->number);
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
    int d = sign(a->round, b->round);
    if (d == 0) d = sign(a->write, b->write);
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

/* An INSERT keeps the order of its rows, so it may have several levels. */
static bool same_step(const rg__item *a, const rg__item *b) {
    return a->round == b->round && a->write == b->write && (a->level == b->level || a->write == RG_INSERT) &&
           a->type == b->type && compare_masks(a, b) == 0 && compare_terms(a, b) == 0;
}

static int refuse_twins(const rg__item *const *sorted, size_t n, rg_err *err) {
    for (size_t i = 1; i < n; i++) {
        const rg__item *a = sorted[i - 1];
        const rg__item *b = sorted[i];
        if (a->type == b->type && a->id == b->id && a->id != 0 && a->write == b->write)
            return rg__item_refuse_twin(a, err);
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
    int rc = rg__items_order(items, err);
    if (rc < 0) return rc;
    rg__item **sorted = rg__reallocarray(NULL, items->n + 1, sizeof *sorted);
    if (!sorted) return rg__fail_memory(err);
    size_t n = 0;
    for (size_t i = 0; i < items->n; i++)
        if (items->items[i].type->mysql_pool == mysql_pool) sorted[n++] = &items->items[i];
    if (!is_sorted((const rg__item *const *)sorted, n))
        qsort(sorted, n, sizeof *sorted, compare_pointers);
    rc = refuse_twins((const rg__item *const *)sorted, n, err);
    if (rc == RG_OK) rc = cut_steps(items, sorted, n, plan);
    rg__free(sorted);
    if (rc == RG_ENO_MEMORY) rg__fail_memory(err);
    if (rc < 0) rg__plan_deinit(plan);
    return rc;
}
