/* SPDX-License-Identifier: MIT */
/* Indexes: what a definition may say, and the descriptor made from it. */
#include "base/alloc.h"
#include "base/err.h"
#include "schema/define.h"
#include "schema/type.h"

#include <strings.h>

enum { ALL_FLAGS = RG_INDEX_UNIQUE | RG_INDEX_CACHED | RG_INDEX_VIRTUAL };

static int check_name(const rg_type *t, const char *name, rg_err *err) {
    int rc = rg__name_check(t, NULL, "index", name, err);
    if (rc < 0) return rc;
    char *quoted = NULL;
    rc = rg__ident_dup_quoted(t, NULL, name, &quoted, err);
    if (rc < 0) return rc;
    rg__free(quoted);
    if (strcasecmp(name, "PRIMARY") == 0 || strcasecmp(name, "GEN_CLUST_INDEX") == 0)
        return rg__type_fail(t, NULL, err, "index \"%s\": the name is the server's", name);
    for (uint32_t i = 0; i < t->n_indexes; i++)
        if (strcasecmp(t->indexes[i].name, name) == 0)
            return rg__type_fail(t, NULL, err, "index \"%s\" is defined twice", name);
    return RG_OK;
}

static const char *fault_of_opts(const rg_type *t, const rg_index_opts *o) {
    bool is_virtual = o->flags & RG_INDEX_VIRTUAL;
    if (o->flags & ~(uint32_t)ALL_FLAGS) return "unknown flags";
    if (is_virtual && (o->flags & RG_INDEX_UNIQUE)) return "virtual contradicts unique";
    if (is_virtual && o->n_columns) return "a virtual one lists all ids and has no columns";
    if (!is_virtual && (o->n_columns == 0 || !o->columns)) return "no columns given";
    if (o->n_columns > RG__MAX_INDEX_COLUMNS) return "more than 16 columns";
    if (t->n_indexes >= RG__MAX_INDEXES) return "more than 64 indexes";
    return NULL;
}

static bool indexable(int kind) {
    return kind != RG_TEXT && kind != RG_BLOB && kind != RG_JSON && kind != RG_REFS;
}

/* An upper bound of what the column takes in the server's index. */
static uint32_t index_bytes(const rg__column *c) {
    if (c->kind == RG_STRING) return c->length * 4;
    if (c->kind == RG_BINARY) return c->length;
    return c->kind == RG_DECIMAL ? c->precision / 2 + 2 : rg__kind(c->kind)->width;
}

static bool has_column(const rg__index *x, uint32_t column) {
    for (uint32_t i = 0; i < x->n_columns; i++)
        if (x->columns[i] == column) return true;
    return false;
}

static int take_column(const rg_type *t, rg__index *x, const char *name, rg_err *err) {
    int found = name ? rg__type_column_find(t, name, strlen(name)) : -1;
    if (found < 0)
        return rg__type_fail(t, NULL, err, "index \"%s\": there is no field \"%s\"", x->name,
                             name ? name : "");
    const rg__column *c = &t->columns[found];
    if (!indexable(c->kind))
        return rg__type_fail(t, c->name, err, "index \"%s\": a %s cannot be indexed", x->name,
                             rg__kind(c->kind)->name);
    if (has_column(x, (uint32_t)found))
        return rg__type_fail(t, c->name, err, "index \"%s\" has this field twice", x->name);
    x->columns[x->n_columns++] = (uint32_t)found;
    x->exact = x->exact && c->exact;
    return RG_OK;
}

static int check_bytes(const rg_type *t, const rg__index *x, rg_err *err) {
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < x->n_columns; i++) bytes += index_bytes(&t->columns[x->columns[i]]);
    if (bytes <= RG__MAX_INDEX_BYTES) return RG_OK;
    return rg__type_fail(t, NULL, err, "index \"%s\": %u bytes exceed max %d", x->name, bytes,
                         RG__MAX_INDEX_BYTES);
}

static int describe(const rg_type *t, rg__index *x, const rg_index_opts *o, rg_err *err) {
    x->name = rg__strdup(o->name);
    x->columns = rg__calloc(o->n_columns, sizeof *x->columns);
    if (!x->name || !x->columns) return rg__fail_memory(err);
    x->flags = o->flags & RG_INDEX_VIRTUAL ? o->flags | RG_INDEX_CACHED : o->flags;
    x->exact = true;
    int rc = RG_OK;
    for (uint32_t i = 0; rc == RG_OK && i < o->n_columns; i++)
        rc = take_column(t, x, o->columns[i], err);
    return rc == RG_OK ? check_bytes(t, x, err) : rc;
}

static int append(rg_type *t, const rg__index *x, rg_err *err) {
    rg__index *indexes = rg__array_grow(t->indexes, t->n_indexes, sizeof *indexes);
    if (!indexes) return rg__fail_memory(err);
    t->indexes = indexes;
    indexes[t->n_indexes++] = *x;
    return RG_OK;
}

int rg_type_index(rg_type *t, const rg_index_opts *opts, rg_err *err) {
    rg_index_opts o = {0};
    int rc = rg__opts_take(&o, sizeof o, opts, "rg_index_opts", err);
    if (rc < 0) return rc;
    if (t->frozen) return rg__fail(err, RG_EMISUSE, "%s: the type is in use", t->name);
    rc = check_name(t, o.name, err);
    if (rc < 0) return rc;
    const char *fault = fault_of_opts(t, &o);
    if (fault) return rg__type_fail(t, NULL, err, "index \"%s\": %s", o.name, fault);
    rg__index x = {0};
    rc = describe(t, &x, &o, err);
    if (rc == RG_OK) rc = append(t, &x, err);
    if (rc == RG_OK) return RG_OK;
    rg__free(x.name);
    rg__free(x.columns);
    return rc;
}
