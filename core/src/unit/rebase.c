/* SPDX-License-Identifier: MIT */
/* What others wrote of a bundle's rows since they were read: it is written over, column by column, or refused. */
#include <stdio.h>

#include "base/alloc.h"
#include "unit/bundle.h"
#include "unit/load.h"

static int vanished(const rg__item *it, uint32_t number, rg_err *err, const char *what) {
    int rc = rg__fail(err, RG_ECONFLICT, "%s %llu %s since it was read", it->type->name,
                      (unsigned long long)it->id, what);
    if (err) err->item = (int32_t)number;
    rg__err_set_entity(err, it->type->name);
    return rc;
}

static bool as_expected(const rg__item *it, const rg_block *row) {
    const rg__terms *t = it->terms;
    if (!t || !t->expect) return true;
    return rg__cas_holds(it->type, t->expect, rg_block_data(t->expected), rg_block_data(row), NULL);
}

static int conflict(rg__item *it, uint32_t number, rg_block *current, rg_err *err) {
    rg__terms *t = it->terms;
    rg__free(t->differs);
    t->differs = rg__calloc(it->type->n_columns, 1);
    if (!t->differs) return rg__fail_memory(err);
    rg__cas_holds(it->type, t->expect, rg_block_data(t->expected), rg_block_data(current), t->differs);
    rg_block_unref(t->current);
    t->current = rg_block_ref(current);
    t->outcome = RG_OUTCOME_CONFLICT;
    return vanished(it, number, err, "changed");
}

/* MySQL would refuse it long after the caller has gone. */
static int taken(const rg__item *it, uint32_t number, rg_err *err) {
    rg__fail(err, RG_EDUPLICATE_KEY, "%s %llu: another row has this id, or is queued to get it",
             it->type->name, (unsigned long long)it->id);
    rg__err_set_entity(err, it->type->name);
    if (!err) return RG_EDUPLICATE_KEY;
    snprintf(err->index, sizeof err->index, "PRIMARY");
    err->item = (int32_t)number;
    err->cls = RG_CLASS_PERMANENT;
    return RG_EDUPLICATE_KEY;
}

static bool same_version(const rg_type *t, const rg_block *a, const rg_block *b) {
    return !t->version_column || rg__row_version(t, rg_block_data(a)) == rg__row_version(t, rg_block_data(b));
}

/* Puts this item's columns over the row as it is now. Takes nothing. */
static int rebase(rg__bundle *b, uint32_t number, rg_block *current, rg_err *err) {
    rg__item *it = &b->items->items[number];
    if (it->write == RG_INSERT) return taken(it, number, err);
    if (!current) return vanished(it, number, err, "vanished");
    if (!as_expected(it, current)) return conflict(it, number, current, err);
    if (!same_version(it->type, current, it->before)) return vanished(it, number, err, "changed");
    if (it->write == RG_UPDATE) {
        rg_block *merged = rg__row_merge(it->type, rg_block_data(current), rg_block_data(it->after),
                                         it->mask, err);
        if (!merged) return RG_ENO_MEMORY;
        rg_block_unref(it->after);
        it->after = merged;
    }
    rg_block_unref(it->before);
    it->before = rg_block_ref(current);
    return RG_OK;
}

static int reload(rg__bundle *b, uint32_t number, rg_err *err) {
    const rg__item *it = &b->items->items[number];
    if (it->write == RG_INSERT) return taken(it, number, err);
    rg_block *current = NULL;
    int rc = rg__load_rows(b->store, b->ctx, it->type, &it->id, 1, RG__LOAD_FILL_ONLY, &current, err);
    if (rc >= 0) rc = rebase(b, number, current, err);
    rg_block_unref(current);
    return rc;
}

/* Rebases every stale item; true in *wait when some row is in an open transaction. */
int rg__bundle_mend(rg__bundle *b, const uint8_t *stale, rg_block *const *current, bool *wait, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->changes.n; i++) {
        if (stale[i] == RG__STALE_MARKED) *wait = true;
        if (stale[i] == RG__STALE_OTHER) rc = rebase(b, b->owner[i], current[i], err);
        if (stale[i] == RG__STALE_ABSENT) rc = reload(b, b->owner[i], err);
    }
    return rc;
}

/* ---- before the script is asked ---- */

/* What is expected may be another thing than what was read: then the row is looked at now. */
static int check_expected(rg__bundle *b, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++) {
        const rg__item *it = &b->items->items[b->numbers[i]];
        if (it->before && !as_expected(it, it->before)) rc = reload(b, b->numbers[i], err);
    }
    return rc;
}

/* What only processes cache Redis does not know, so it cannot compare: what was read of such a row is compared
 * here with what is there now, as what is queued of it will be read by others. */
static bool unproved(const rg__item *it) {
    return it->before && it->type->cache_process && !it->type->cache_redis;
}

static int check_base(rg__bundle *b, uint32_t number, rg_err *err) {
    const rg__item *it = &b->items->items[number];
    rg_block *current = NULL;
    int rc = rg__load_one(b->store, b->ctx, it->type, it->id, &current, err);
    bool same = current && rg__row_sum(rg_block_data(current)) == rg__row_sum(rg_block_data(it->before));
    if (rc >= 0 && !same) rc = rebase(b, number, current, err);
    rg_block_unref(current);
    return rc;
}

static int check_bases(rg__bundle *b, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++)
        if (unproved(&b->items->items[b->numbers[i]])) rc = check_base(b, b->numbers[i], err);
    return rc;
}

int rg__bundle_check_rows(rg__bundle *b, rg_err *err) {
    int rc = check_expected(b, err);
    return rc < 0 ? rc : check_bases(b, err);
}
