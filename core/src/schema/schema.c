/* SPDX-License-Identifier: MIT */
/* The types of an engine: registered, resolved against each other, numbered and ranked. */
#include "base/alloc.h"
#include "base/err.h"
#include "schema/define.h"

/* ---- registering and finding ---- */

rg_type *rg__schema_find(const rg__schema *s, const char *name, size_t len) {
    for (uint32_t i = 0; i < s->n; i++)
        if (rg__slice_eq(rg__slice_of(s->types[i]->name), (rg__slice){name, len}))
            return s->types[i];
    return NULL;
}

rg_type *rg__schema_find_table(const rg__schema *s, const char *table, size_t len) {
    for (uint32_t i = 0; i < s->n; i++)
        if (rg__slice_eq(rg__slice_of(s->types[i]->table), (rg__slice){table, len}))
            return s->types[i];
    return NULL;
}

/* Tables are unique over all pools, but for shards: cache keys are named by pool and table, so an
 * entity may move to another pool without meeting the keys of another one. */
int rg__schema_add(rg__schema *s, rg_type *t, rg_err *err) {
    if (rg__schema_find(s, t->name, strlen(t->name)))
        return rg__type_fail(t, NULL, err, "there is an entity of that name already");
    const rg_type *twin = rg__schema_find_table(s, t->table, strlen(t->table));
    if (twin && !(twin->sharded && t->sharded && strcmp(twin->mysql, t->mysql) != 0))
        return rg__type_fail(t, NULL, err, "its table \"%s\" is that of entity \"%s\"", t->table,
                             twin->name);
    rg_type **types = rg__array_grow(s->types, s->n, sizeof *types);
    if (!types) return rg__fail_memory(err);
    s->types = types;
    types[s->n++] = t;
    return RG_OK;
}

void rg__schema_deinit(rg__schema *s) {
    for (uint32_t i = 0; i < s->n; i++) rg_type_free(s->types[i]);
    rg__free(s->types);
    *s = (rg__schema){0};
}

/* ---- references ---- */

/* All faults of a schema: the first as an error, all as lines. */
typedef struct faults {
    uint32_t n;
    rg_err first;
    rg__buf lines;
} faults;

static void note(faults *f, const rg_err *fault) {
    if (f->n++ == 0) f->first = *fault;
    else rg__buf_char(&f->lines, '\n');
    rg__buf_str(&f->lines, fault->message);
}

static void resolve_column(const rg__schema *s, const rg_type *t, rg__column *c, faults *f) {
    rg_err fault;
    const rg_type *target = rg__schema_find(s, c->target, strlen(c->target));
    if (!target) {
        rg__type_fail(t, c->name, &fault, "refers to entity \"%s\", which is not registered",
                      c->target);
        note(f, &fault);
        return;
    }
    c->target_space = (int32_t)target->number;
    if (!c->foreign_key || strcmp(t->mysql, target->mysql) == 0) return;
    rg__type_fail(t, c->name, &fault, "a foreign key cannot reach from pool \"%s\" to \"%s\"",
                  t->mysql, target->mysql);
    note(f, &fault);
}

static void resolve_targets(rg__schema *s, faults *f) {
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t k = 0; k < s->types[i]->n_columns; k++)
            if (s->types[i]->columns[k].target)
                resolve_column(s, s->types[i], &s->types[i]->columns[k], f);
}

static int report(faults *f, rg_err *err) {
    int rc = RG_OK;
    if (f->lines.failed) rc = rg__fail_memory(err);
    else if (f->n == 1 && err) *err = f->first;
    else if (f->n > 1) rc = rg__fail(err, RG_ECONFIG, "%s", rg__buf_cstr(&f->lines));
    if (f->n == 1 && rc == RG_OK) rc = RG_EINVALID;
    rg__buf_deinit(&f->lines);
    return rc;
}

static void number(rg__schema *s) {
    uint32_t space = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        s->types[i]->number = i;
        s->types[i]->space = space;
        space += 1 + s->types[i]->n_indexes;
    }
}

int rg__schema_resolve(rg__schema *s, rg_err *err) {
    faults f = {0};
    number(s);
    resolve_targets(s, &f);
    int rc = report(&f, err);
    return rc == RG_OK ? rg__schema_rank(s, err) : rc;
}
