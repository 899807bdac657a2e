/* SPDX-License-Identifier: MIT */
/* Writing entities: values as SQL or JSON text, bounds of their sizes, statements of one row. */
#ifndef RG_MYSQL_WRITE_H
#define RG_MYSQL_WRITE_H

#include "mysql/columns.h"

enum { RG__WRITE_ROWS = 1000 }; /* rows a statement at most */

/* Appends a value as an element of a JSON array, for JSON_TABLE to read (update.c says how). */
void rg__json_element(rg__buf *out, const rg__column *col, const rg__value *v);
/* The SQL type that JSON_TABLE reads such an element with, and the value of column c<i> of `r` so
 * read, as it is assigned. */
const char *rg__json_type(const rg__column *col);
void rg__json_value(rg__buf *sql, const rg__mysql *c, const rg__column *col, uint32_t i);
/* What all values of a row take at most, as SQL or JSON text; mask: columns that count, NULL: all.
 */
size_t rg__row_sql_bound(const rg_type *t, const void *row);
size_t rg__row_json_bound(const rg_type *t, const void *row);

/* A statement of one row: a value per column of the mask (NULL: all from `first` on), then the
 * numbers in `more`. Bound, sent, counted; *s stays for what the caller asks of it. */
typedef struct rg__row_write {
    const rg_type *t;
    const uint8_t *mask;
    uint32_t first;
    const void *row;
    uint64_t more[2];
    unsigned n_more;
} rg__row_write;
int rg__row_write_run(rg__mysql *c, rg__call *call, rg__stmt *s, const rg__row_write *w,
                      rg_err *err);
static inline bool rg__row_writes(const rg__row_write *w, uint32_t col) {
    return w->mask ? w->mask[col] != 0 : col >= w->first;
}

/* The cached statement, or a new one of the text that `text` writes. */
int rg__write_prepare(rg__mysql *c, const rg__call *call, const rg__buf *key,
                      const rg__row_write *w,
                      void (*text)(rg__mysql *c, rg__buf *sql, const rg__row_write *w),
                      rg__stmt **out, rg_err *err);
/* Ends a call that wrote rows of t; shown: the statement for the log. */
int rg__write_end(rg__mysql *c, rg__call *call, int code, const rg_type *t, rg__slice shown,
                  rg_err *err);

#endif
