/* SPDX-License-Identifier: MIT */
/* Columns of entities to and from prepared statements: rows to parameters, results to rows. */
#ifndef RG_MYSQL_COLUMNS_H
#define RG_MYSQL_COLUMNS_H

#include "mysql/conn.h"

/* Storage behind a bound value. */
typedef union rg__bound {
    int64_t i;
    uint64_t u;
    float f;
    double d;
    MYSQL_TIME time;
} rg__bound;

/* ---- rows to parameters ---- */

/* Is the text of such a column made when it is bound? */
static inline bool rg__param_is_made(const rg__column *col) { return col->kind == RG_REFS || col->kind == RG_SET; }
/* Bytes that rg__param_bind may need of scratch for this value. */
size_t rg__param_scratch(const rg__column *col, const rg__value *v);
/* Points b at the value: fixed ones are copied to *at, VAR ones stay where they are (in the row),
 * REFS and sets become text in scratch, which must have room already. Returns the bytes it takes to send. */
size_t rg__param_bind(const rg__column *col, const rg__value *v, MYSQL_BIND *b, rg__bound *at,
                      rg__buf *scratch);
void rg__param_bind_u64(MYSQL_BIND *b, uint64_t *at);
/* The same for a user's parameter. */
size_t rg__param_bind_value(const rg__param *p, MYSQL_BIND *b, rg__bound *at);

/* ---- results to rows ---- */

typedef struct rg__reader_column rg__reader_column;
/* Reads rows of a statement that selects the type's columns in order; owned by the statement. */
typedef struct rg__row_reader {
    const rg_type *t; /* may be gone by the time of deinit */
    uint32_t n_columns;
    rg_builder *b;
    MYSQL_BIND *binds;
    rg__reader_column *columns;
    rg__buf large;   /* a value too long for its buffer, until it is put */
    rg__buf scratch; /* a value in another form, until it is put */
    bool truncated;  /* this row's error flags mean something */
    bool rebind;     /* a buffer grew: to be told to the library before the next row */
} rg__row_reader;
int rg__row_reader_init(rg__row_reader *r, const rg_type *t, rg_err *err);
void rg__row_reader_deinit(rg__row_reader *r);
/* The row that mysql_stmt_fetch has just delivered (rc: what it returned); NULL with *err. ESCHEMA
 * when the table holds what the type cannot: NULL where the field is not nullable, a number out of
 * range, a word that is not listed. A zero date is NULL, or in a field that is not nullable the first day of the year 1000. */
rg_block *rg__row_read(rg__row_reader *r, MYSQL_STMT *st, int rc, rg_err *err);

#endif
