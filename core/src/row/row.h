/* SPDX-License-Identifier: MIT */
/* Reading packed rows: accessors for checked rows, the check for untrusted ones, keys. */
#ifndef RG_ROW_ROW_H
#define RG_ROW_ROW_H

#include <regolith/row.h>
#include "base/block.h"
#include "base/slice.h"
#include "schema/entity.h"

/* A value out of a row. */
typedef struct rg__value {
    bool is_null;
    int store;    /* rg_store; tells which member holds */
    int64_t i;    /* signed stores */
    uint64_t u;   /* unsigned stores */
    double d;     /* floats */
    rg__slice s;  /* VAR: borrowed from the row */
} rg__value;

/* Checks bytes from outside: magic, format, length, fingerprint, checksum, bounds of every VAR.
 * 0, or RG_ECORRUPT with the reason; RG_ESCHEMA when only the fingerprint differs. */
int rg__row_check(const rg_type *t, const void *p, size_t len, rg_err *err);
/* The same of bytes that nobody else sees yet: they are touched meanwhile, which saves a copy. */
int rg__row_check_own(const rg_type *t, void *p, size_t len, rg_err *err);
static inline uint64_t rg__row_sum(const void *row) {
    uint64_t v;
    memcpy(&v, (const char *)row + 16, 8);
    return v;
}
static inline uint64_t rg__row_id(const rg_type *t, const void *row) {
    uint64_t v;
    memcpy(&v, (const char *)row + t->columns[0].offset, 8);
    return v;
}
rg__value rg__row_value(const rg_type *t, const void *row, uint32_t col);
/* Of a type that has a version. */
uint64_t rg__row_version(const rg_type *t, const void *row);
/* True when both rows hold the same bytes (or NULL) in the column. */
bool rg__row_column_eq(const rg_type *t, const void *a, const void *b, uint32_t col);
/* Which columns differ: mask[col] (n_columns bytes) becomes 1, else 0; returns how many. */
uint32_t rg__row_diff(const rg_type *t, const void *a, const void *b, uint8_t *mask);

/* ---- building, internal side of rg_builder ---- */

/* Absent columns (never set since reset) get the default: def, else NULL when nullable, else zero or
 * empty (ENUM: first value; dates: an error when required, else NULL must be allowed or 1970-01-01).
 * Checks REQUIRED. now_us != 0 fills CREATED (when absent, inserts) and UPDATED columns (of updates: those that
 * rg__builder_keep_stamps has not kept). */
rg_block *rg__builder_finish(rg_builder *b, bool insert, int64_t now_us, rg_err *err);
/* The values set so far as a row, absent columns by default, nothing required: for keys. NULL when
 * out of memory. */
rg_block *rg__builder_partial(rg_builder *b);
/* The same as a row to be read here only (no checksum, and gaps): how many bytes it has (0: there is no such
 * row), and into room for them. */
size_t rg__builder_size(const rg_builder *b);
void rg__builder_values(const rg_builder *b, size_t len, uint8_t *row);
/* Sets mask[col] for each column that has a value. */
void rg__builder_given(const rg_builder *b, uint8_t *mask);
/* rg__row_diff of a row and what the builder has made of it (nothing stamped): only what was set is looked at
 * when it is that row which was loaded. */
uint32_t rg__builder_diff(const rg_builder *b, const void *before, const void *after, uint8_t *mask);
/* Whole numbers of a row, as doubles tell them exactly. Is that what the column holds? False for columns of another
 * kind, and for NULL. */
bool rg__row_is_whole(const rg_type *t, const void *row, uint32_t col, double v);
/* May the column hold it, where the row has a whole number now? The id may not. */
bool rg__row_takes_whole(const rg_type *t, const void *row, uint32_t col, double v);
/* The row with that number, which it may hold; NULL when out of memory. */
rg_block *rg__row_with_whole(const rg_type *t, const rg_block *row, uint32_t col, double v);
/* EINVALID when a value that was given is empty where that is refused. */
int rg__builder_check_given(const rg_builder *b, rg_err *err);
bool rg__builder_has(const rg_builder *b, uint32_t col);
/* An update changes nothing about a REQUIRED value that was empty in the row before: it stays. */
void rg__builder_keep_empty(rg_builder *b, const void *before);
/* The times of an update that were set to something else than the row had stand: they are not stamped. */
void rg__builder_keep_stamps(rg_builder *b, const uint8_t *changed);
/* Raw setters for trusted values (from MySQL's binary protocol or another row): nothing is checked,
 * REQUIRED neither. The column's store says which member holds. NULL in a column that is not
 * nullable stores its default. Out of memory is told by finish. */
void rg__builder_put(rg_builder *b, uint32_t col, const rg__value *v);
const rg_type *rg__builder_type(const rg_builder *b);

/* A copy of base with the columns in mask (bytes, n_columns) taken from changes. */
rg_block *rg__row_merge(const rg_type *t, const void *base, const void *changes, const uint8_t *mask,
                        rg_err *err);

/* ---- keys of lookups ---- */

/* Appends the typed, normalised values of an index's columns, each self-delimiting (kind of value,
 * length, bytes): NULL is a value of its own; text with trailing spaces removed (PAD SPACE) and,
 * where the column's collation is not by bytes, ASCII letters lowered. Two equal keys are equal to
 * the server; when index->exact, two values equal to the server have equal keys as well.
 * Returns false when a column is NULL (a unique index then says nothing). */
bool rg__key_encode(const rg_type *t, const rg__index *x, const void *row, rg__buf *out);
/* The same from a builder where only the key columns were set. EINVALID names the missing one. */
int rg__key_encode_builder(const rg_type *t, const rg__index *x, rg_builder *b, rg__buf *out,
                           bool *has_null, rg_err *err);
/* True when the row's key equals key. */
bool rg__key_matches(const rg_type *t, const rg__index *x, const void *row, rg__slice key);

/* ---- text of values ---- */
/* A JSON array of ids (1 to 2^53) to what a REFS column stores; 0 or RG_EINVALID. */
int rg__refs_parse(const char *p, size_t len, rg__buf *out);
int rg__date_parse(const char *p, size_t len, int32_t *days);             /* 0 or RG_EINVALID */
int rg__datetime_parse(const char *p, size_t len, int64_t *us, const char **why);
int rg__time_parse(const char *p, size_t len, int64_t *us);
size_t rg__date_format(int32_t days, char *out);      /* 10 bytes */
size_t rg__datetime_format(int64_t us, char *out);    /* up to 26, fraction only when not zero */
size_t rg__datetime_format6(int64_t us, char *out);   /* always six decimals */
size_t rg__time_format(int64_t us, char *out);        /* up to 17 */
int32_t rg__days_from_civil(int64_t y, unsigned m, unsigned d);
void rg__civil_from_days(int32_t days, int *y, unsigned *m, unsigned *d);
/* Canonical decimal text with exactly `scale` decimals. EINVALID when it does not fit. */
int rg__decimal_canonical(const char *p, size_t len, uint32_t precision, uint32_t scale, rg__buf *out);

#endif
