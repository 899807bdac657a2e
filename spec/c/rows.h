/* SPDX-License-Identifier: MIT */
/* What the units of rows share: a type with a column of every kind, builders filled from a seed. */
#ifndef RG_SPEC_ROWS_H
#define RG_SPEC_ROWS_H

#include "base/alloc.h"
#include "base/err.h"
#include "row/pack.h"
#include "unit.h"

#include <math.h>

static rg_err err;

enum {
    ID,
    BOOL,
    I8,
    I16,
    I24,
    I32,
    I64,
    U8,
    U16,
    U24,
    U32,
    U64,
    FLOAT,
    DOUBLE,
    DECIMAL,
    STRING,
    TEXT,
    BINARY,
    BLOB,
    ENUM,
    SET,
    DATE,
    DATETIME,
    TIME,
    JSON,
    REF,
    REFS,
    COLUMNS
};

__attribute__((unused)) static const char *const names[COLUMNS] = {
    "id",   "bool", "i8",  "i16",   "i24",      "i32",     "i64",    "u8",   "u16",
    "u24",  "u32",  "u64", "float", "double",   "decimal", "string", "text", "binary",
    "blob", "enum", "set", "date",  "datetime", "time",    "json",   "ref",  "refs"};
static const char *const words[] = {"new", "active", "ban'd"};

static inline int add(rg_type *t, rg_column_opts o) {
    bool list = o.kind == RG_ENUM || o.kind == RG_SET;
    o.size = sizeof o;
    if (list && !o.values) o.values = words, o.n_values = 3;
    if (o.kind == RG_REF || o.kind == RG_REFS) o.target = "team";
    return rg_type_column(t, &o, &err);
}

static inline rg_type *new_type(const char *name) {
    rg_type_opts o = {.size = sizeof o, .name = name};
    return rg_type_new(&o, &err);
}

/* One column of every kind, in order of the kinds. */
static inline rg_type *type_of_all(uint32_t flags) {
    rg_type *t = new_type("all");
    for (int i = 1; i < COLUMNS; i++)
        CHECK_EQ_INT(
            add(t, (rg_column_opts){.name = names[i], .kind = RG_BOOL + i - 1, .flags = flags}), 0);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    return t;
}

/* A type with one column besides the id. */
static inline rg_type *type_of(rg_column_opts o) {
    rg_type *t = new_type("user");
    o.name = "f";
    CHECK_EQ_INT(add(t, o), RG_OK);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    return t;
}

static inline int set(rg_builder *b, uint32_t col, const char *text) {
    return rg_builder_string(b, col, text, strlen(text), &err);
}

static inline rg_block *finish(rg_builder *b) {
    rg_block *row = rg__builder_finish(b, true, 0, &err);
    if (!CHECK(row != NULL)) printf("# %s\n", err.message);
    if (row) CHECK_EQ_INT(rg__row_check(rg__builder_type(b), row->data, row->len, &err), RG_OK);
    return row;
}

static inline void text_is(const rg_type *t, const rg_block *row, uint32_t col, const char *want) {
    char text[512];
    int n = rg_row_text(t, row->data, col, text, sizeof text);
    if (!want)
        CHECK_EQ_INT(n, RG_EINVALID);
    else
        unit_bytes(text, n < 0 ? 0 : (size_t)n, want, strlen(want), __FILE__, __LINE__,
                   t->columns[col].name);
}

static inline void fill(rg_builder *b, unsigned seed) {
    char text[64];
    rg_builder_u64(b, ID, seed + 1, &err);
    for (uint32_t i = I8; i <= U64; i++) rg_builder_number(b, i, (seed * 7 + i) % 100, &err);
    rg_builder_bool(b, BOOL, seed & 1, &err);
    rg_builder_number(b, FLOAT, seed * 0.5, &err);
    rg_builder_number(b, DOUBLE, seed * -0.25, &err);
    rg_builder_number(b, DECIMAL, seed * 1.01, &err);
    for (uint32_t i = STRING; i <= BLOB; i++)
        rg_builder_string(b, i, text, (size_t)snprintf(text, sizeof text, "%u-%u", i, seed * 997),
                          &err);
    set(b, ENUM, words[seed % 3]);
    set(b, SET, seed % 2 ? "new,ban'd" : "");
    rg_builder_number(b, DATE, seed * 86400.0, &err);
    rg_builder_number(b, DATETIME, seed * 1000.5, &err);
    rg_builder_number(b, TIME, -1.0 * seed, &err);
    set(b, JSON, "{\"a\":[1,2]}");
    rg_builder_number(b, REF, seed + 3, &err);
    for (unsigned i = 0; i < seed % 4; i++) rg_builder_refs_add(b, REFS, i + 1, &err);
    if (seed % 4 == 0) rg_builder_refs_begin(b, REFS, &err);
}

static inline rg_block *make(rg_builder *b, unsigned seed) {
    rg_builder_reset(b);
    fill(b, seed);
    return finish(b);
}

#endif
