/* SPDX-License-Identifier: MIT */
/* Columns: what a definition may say, and the descriptor made from it. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/map.h"
#include "schema/define.h"
#include "schema/type.h"

#include <strings.h>

enum {
    ALL_FLAGS = RG_COL_NULLABLE | RG_COL_REQUIRED | RG_COL_CREATED | RG_COL_UPDATED |
                RG_COL_VERSION | RG_COL_SENSITIVE
};

static bool is_text(int kind) {
    return kind == RG_STRING || kind == RG_TEXT || kind == RG_ENUM || kind == RG_SET;
}
static bool is_day(int kind) { return kind == RG_DATE || kind == RG_DATETIME; }
static bool is_integer(int kind) { return kind >= RG_I8 && kind <= RG_U64; }
static bool is_list(int kind) { return kind == RG_ENUM || kind == RG_SET; }
static bool is_reference(int kind) { return kind == RG_REF || kind == RG_REFS; }

/* ---- flags ---- */

static const char *fault_of_flags(const rg_type *t, const rg_column_opts *o) {
    uint32_t f = o->flags;
    bool nullable = f & RG_COL_NULLABLE, version = f & RG_COL_VERSION;
    if (f & ~(uint32_t)ALL_FLAGS) return "unknown flags";
    if (nullable && (f & RG_COL_REQUIRED)) return "nullable and required contradict each other";
    if ((f & (RG_COL_CREATED | RG_COL_UPDATED)) && !is_day(o->kind))
        return "only a date or datetime can be set at insert or update";
    if (version && !is_integer(o->kind)) return "a version must be an integer";
    if (version && nullable) return "a version cannot be nullable";
    if (version && t->version_column) return "there is a version column already";
    return NULL;
}

/* What has no sensible value of its own when nothing is given: NULL for references and JSON, and
 * for days nothing at all, so that they must be given. */
static uint32_t implied_flags(const rg_column_opts *o) {
    uint32_t f = o->flags;
    if (f & RG_COL_VERSION) return f & ~(uint32_t)RG_COL_REQUIRED; /* the engine gives it */
    if (f & (RG_COL_NULLABLE | RG_COL_REQUIRED)) return f;
    if (o->kind == RG_REF || o->kind == RG_JSON) return f | RG_COL_NULLABLE;
    bool filled = o->def || (f & (RG_COL_CREATED | RG_COL_UPDATED));
    return is_day(o->kind) && !filled ? f | RG_COL_REQUIRED : f;
}

/* ---- sizes ---- */

static const struct {
    uint32_t def, max;
} lengths[RG_KIND_END] = {
    [RG_STRING] = {255, 16383}, /* four bytes a character in a row of 65,535 */
    [RG_BINARY] = {255, 65535},
    [RG_TEXT] = {65535, UINT32_MAX},
    [RG_BLOB] = {65535, UINT32_MAX},
};

static int size_column(const rg_type *t, rg__column *c, const rg_column_opts *o, rg_err *err) {
    c->length = lengths[o->kind].max == 0 ? 0 : o->length ? o->length : lengths[o->kind].def;
    if (c->length > lengths[o->kind].max)
        return rg__type_fail(t, o->name, err, "length %u exceeds max %u", c->length,
                             lengths[o->kind].max);
    if (o->kind != RG_DECIMAL) return RG_OK;
    c->precision = o->precision ? o->precision : 10;
    c->scale = o->precision || o->scale ? o->scale : 2;
    if (c->precision > 65) return rg__type_fail(t, o->name, err, "precision exceeds max 65");
    if (c->scale > 30) return rg__type_fail(t, o->name, err, "scale exceeds max 30");
    if (c->scale > c->precision)
        return rg__type_fail(t, o->name, err, "scale %u exceeds precision %u", c->scale,
                             c->precision);
    return RG_OK;
}

/* ---- allowed values ---- */

static const char *fault_of_value(const char *v, bool in_set) {
    size_t chars, len = v ? strlen(v) : 0;
    if (len == 0) return "is empty";
    if (!rg__utf8_valid(v, len, &chars)) return "is not valid UTF-8";
    if (chars > RG__MAX_VALUE_CHARS) return "is longer than 255 characters";
    if (v[len - 1] == ' ') return "ends with a space";
    if (in_set && strchr(v, ',')) return "holds a comma";
    return NULL;
}

static void lower_ascii(char *s) {
    for (; *s; s++)
        if (*s >= 'A' && *s <= 'Z') *s = (char)(*s | 0x20);
}

/* Copies value i and notes it as seen; the server would refuse two values equal to it. */
static int take_value(const rg_type *t, rg__column *c, const char *v, rg__map *seen, rg_err *err) {
    const char *fault = fault_of_value(v, c->kind == RG_SET);
    if (fault) return rg__type_fail(t, c->name, err, "value \"%s\" %s", v ? v : "", fault);
    char *copy = rg__strdup(v);
    if (!copy) return rg__fail_memory(err);
    c->values[c->n_values++] = rg__slice_of(copy);
    char *key = rg__strdup(v);
    void *twin = NULL;
    if (key && !rg__collation_exact(c->collation)) lower_ascii(key);
    int rc = key ? rg__map_put(seen, key, strlen(key), copy, &twin) : RG_ENO_MEMORY;
    rg__free(key);
    if (rc < 0) return rg__fail_memory(err);
    return twin ? rg__type_fail(t, c->name, err, "value \"%s\" is given twice", v) : RG_OK;
}

static int take_values(const rg_type *t, rg__column *c, const rg_column_opts *o, rg_err *err) {
    uint32_t max = c->kind == RG_SET ? RG__MAX_SET : RG__MAX_ENUM;
    if (o->n_values == 0 || !o->values) return rg__type_fail(t, o->name, err, "no values given");
    if (o->n_values > max) return rg__type_fail(t, o->name, err, "more than %u values", max);
    rg__map *seen = rg__map_new();
    c->values = rg__calloc(o->n_values, sizeof *c->values);
    int rc = seen && c->values ? RG_OK : rg__fail_memory(err);
    for (uint32_t i = 0; rc == RG_OK && i < o->n_values; i++)
        rc = take_value(t, c, o->values[i], seen, err);
    rg__map_free(seen);
    return rc;
}

/* ---- collations ---- */

bool rg__collation_exact(const char *collation) {
    size_t len = collation ? strlen(collation) : 0;
    return len == 0 || (len > 4 && strcmp(collation + len - 4, "_bin") == 0);
}

/* It goes into statements unquoted. */
static bool collation_valid(const char *s) {
    size_t len = strlen(s);
    return len <= 64 && strncmp(s, "utf8mb4_", 8) == 0 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

/* ---- the definition as a whole ---- */

static const char *fault_of_opts(const rg_column_opts *o) {
    if (o->n_values && !is_list(o->kind)) return "only an enum or a set has values";
    if (o->target && !is_reference(o->kind)) return "only a reference has a target";
    if (is_reference(o->kind) && (!o->target || !*o->target)) return "a reference needs a target";
    if (o->foreign_key && o->kind != RG_REF) return "only a reference can be a foreign key";
    if (o->collation && !is_text(o->kind)) return "only text has a collation";
    if (o->collation && !collation_valid(o->collation)) return "not a utf8mb4 collation";
    return NULL;
}

static int check_names(const rg_type *t, const rg__column *c, rg_err *err) {
    if (t->n_columns >= RG__MAX_COLUMNS)
        return rg__type_fail(t, c->name, err, "more than %d columns", RG__MAX_COLUMNS);
    for (uint32_t i = 0; i < t->n_columns; i++) {
        if (strcmp(t->columns[i].name, c->name) == 0)
            return rg__type_fail(t, c->name, err, "there is a field of that name already");
        if (strcasecmp(t->columns[i].column, c->column) == 0)
            return rg__type_fail(t, c->name, err, "its SQL name \"%s\" is that of field \"%s\"",
                                 c->column, t->columns[i].name);
    }
    return RG_OK;
}

/* "score[1].x" is a field path; its column is score_1__x. */
static void flatten(char *path) {
    for (; *path; path++)
        if (strchr("[].", *path)) *path = '_';
}

static int copy_strings(rg__column *c, const rg_column_opts *o, rg_err *err) {
    c->name = rg__strdup(o->name);
    c->column = rg__strdup(o->column ? o->column : o->name);
    c->target = rg__strdup(o->target);
    c->collation = rg__strdup(o->collation);
    c->def = rg__strdup(o->def);
    if (!c->name || !c->column || (o->target && !c->target) || (o->collation && !c->collation) ||
        (o->def && !c->def))
        return rg__fail_memory(err);
    if (!o->column) flatten(c->column);
    return RG_OK;
}

static int describe(const rg_type *t, rg__column *c, const rg_column_opts *o, rg_err *err) {
    c->kind = o->kind;
    c->store = rg__kind(o->kind)->store;
    c->flags = implied_flags(o);
    c->foreign_key = o->foreign_key != 0;
    c->target_space = -1;
    c->exact = is_list(o->kind) || rg__collation_exact(o->collation);
    int rc = copy_strings(c, o, err);
    if (rc == RG_OK) rc = check_names(t, c, err);
    if (rc == RG_OK) rc = size_column(t, c, o, err);
    if (rc == RG_OK && is_list(o->kind)) rc = take_values(t, c, o, err);
    if (rc == RG_OK) rc = rg__ident_dup_quoted(t, c->name, c->column, &c->quoted, err);
    return rc;
}

static int append(rg_type *t, rg__column *c, rg_err *err) {
    rg__column *columns = rg__array_grow(t->columns, t->n_columns, sizeof *columns);
    if (!columns) return rg__fail_memory(err);
    t->columns = columns;
    if (c->flags & RG_COL_VERSION) t->version_column = t->n_columns;
    columns[t->n_columns++] = *c;
    return RG_OK;
}

int rg__column_add(rg_type *t, const rg_column_opts *o, rg_err *err) {
    int rc = rg__name_check(t, NULL, "field", o->name, err);
    if (rc < 0) return rc;
    if (!rg__kind(o->kind)) return rg__type_fail(t, o->name, err, "unknown kind %d", o->kind);
    const char *fault = fault_of_flags(t, o);
    if (!fault) fault = fault_of_opts(o);
    if (fault) return rg__type_fail(t, o->name, err, "%s", fault);
    rg__column c = {0};
    rc = describe(t, &c, o, err);
    if (rc == RG_OK) rc = append(t, &c, err);
    if (rc < 0) rg__column_deinit(&c);
    return rc;
}

int rg_type_column(rg_type *t, const rg_column_opts *opts, rg_err *err) {
    rg_column_opts o = {0};
    int rc = rg__opts_take(&o, sizeof o, opts, "rg_column_opts", err);
    if (rc < 0) return rc;
    if (t->frozen) return rg__fail(err, RG_EMISUSE, "%s: the type is in use", t->name);
    return rg__column_add(t, &o, err);
}

void rg__column_deinit(rg__column *c) {
    for (uint32_t i = 0; i < c->n_values; i++) rg__free((char *)(uintptr_t)c->values[i].p);
    rg__free(c->values);
    rg__free(c->name);
    rg__free(c->column);
    rg__free(c->quoted);
    rg__free(c->target);
    rg__free(c->collation);
    rg__free(c->def);
    *c = (rg__column){0};
}
