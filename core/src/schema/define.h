/* SPDX-License-Identifier: MIT */
/* What the files that define types share: limits, option structs, columns. */
#ifndef RG_SCHEMA_DEFINE_H
#define RG_SCHEMA_DEFINE_H

#include "schema/entity.h"

enum {
    RG__MAX_COLUMNS = 1000,     /* InnoDB: 1017 */
    RG__MAX_INDEXES = 64,       /* InnoDB */
    RG__MAX_INDEX_COLUMNS = 16, /* InnoDB */
    RG__MAX_INDEX_BYTES = 3072, /* InnoDB, DYNAMIC rows */
    RG__MAX_ENUM = 65535,
    RG__MAX_SET = 64,
    RG__MAX_VALUE_CHARS = 255 /* of one ENUM or SET value */
};

/* Copies an options struct whose first member is its size as the caller knows it, onto a zeroed one:
 * members that the caller does not know stay zero. EMISUSE when the size is not set. */
int rg__opts_take(void *to, size_t size, const void *from, const char *what, rg_err *err);
/* Name of an entity, field or index: 1 to 64 characters, UTF-8, no control characters. field NULL:
 * the fault is the entity's. */
int rg__name_check(const rg_type *t, const char *field, const char *what, const char *name,
                   rg_err *err);
/* *out: a new string, the identifier in backticks. */
int rg__ident_dup_quoted(const rg_type *t, const char *field, const char *name, char **out,
                         rg_err *err);
/* Room for one element more in an array that grows in powers of two and keeps no capacity. */
void *rg__array_grow(void *array, size_t n, size_t size);
/* Frees what the column owns. */
void rg__column_deinit(rg__column *c);
/* Adds a column to a type that is not frozen; rg_type_column without the check of opts->size. */
int rg__column_add(rg_type *t, const rg_column_opts *opts, rg_err *err);
/* True when the server compares values of this collation byte by byte (trailing spaces aside). */
bool rg__collation_exact(const char *collation);
/* Sets the rank of every type; numbers and targets are resolved. */
int rg__schema_rank(rg__schema *s, rg_err *err);

#endif
