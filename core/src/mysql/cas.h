/* SPDX-License-Identifier: MIT */
/* Conditional writes: rows change only while they hold the values that are expected of them. */
#ifndef RG_MYSQL_CAS_H
#define RG_MYSQL_CAS_H

#include "mysql/mysql.h"

enum {
    RG__CAS_ROWS = 64,      /* rows a statement at most: each has a bit of the answer */
    RG__CAS_LOCK_WAIT_S = 1 /* of statements that are `brief` */
};

/* What an expression of the server makes of a column. */
typedef struct rg__expr {
    uint32_t column;
    rg__slice sql;         /* a ? for each parameter */
    rg__slice guard;       /* a condition that has to hold as well; len 0: none */
    const rg__param *params; /* those of sql, then those of guard */
    size_t n_sql, n_guard;
} rg__expr;

/* What a number of conditional writes have in common. */
typedef struct rg__cas {
    const rg_type *t;
    int write;             /* RG_UPDATE or RG_DELETE */
    const uint8_t *mask;   /* update: columns that take their row's values (n_columns bytes) */
    const uint8_t *expect; /* columns compared (n_columns bytes), by their values' bytes, NULL equal
                            * to NULL; NULL: none, the row has to be there */
    bool bump;             /* update: counts the version column up, whatever it holds */
    bool brief;            /* update of many: waits for locks RG__CAS_LOCK_WAIT_S only, where the server can
                            * be told by the statement */
    const rg__expr *exprs; /* update; then of one row only */
    size_t n_exprs;
} rg__cas;

/* How many of the rows go into one statement: at least 1, at most RG__CAS_ROWS. */
size_t rg__sql_cas_fits(const rg__mysql *c, const rg__cas *cas, const void *const *rows,
                        const void *const *expected, size_t n);
/* Does this number of rows need a transaction around it? */
static inline bool rg__sql_cas_needs_transaction(const rg__cas *cas, size_t n) {
    return cas->write == RG_DELETE && n > 1;
}
/* Writes rows with distinct ids, ascending; as many as fit. Bit i of *marks: row i matched and was
 * written. rows: with the new values (update); expected: rows that hold the values of the columns
 * in `expect`. */
int rg__sql_cas(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, const uint64_t *ids,
                const void *const *rows, const void *const *expected, size_t n, uint64_t *marks,
                rg_err *err);
/* The same in two halves, so that the next statement is made, and waits at the server, while that works on the
 * one before; up to RG__CAS_AHEAD are under way. Updates of more than one row, outside of transactions.
 * RG_OK: it was sent, and rg__sql_cas_take is to follow. *sent false without a fault: not this way, or not
 * before the others are taken. With a fault that is not AMBIGUOUS nothing was done. */
enum { RG__CAS_AHEAD = 2 };
int rg__sql_cas_send(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, const uint64_t *ids,
                     const void *const *rows, const void *const *expected, size_t n, bool *sent, rg_err *err);
/* The answer to the one that was sent first, of n rows. */
int rg__sql_cas_take(rg__mysql *c, size_t n, uint64_t *marks, rg_err *err);
/* True when the row holds the expected values. differs (n_columns bytes, may be NULL): where not. */
bool rg__cas_holds(const rg_type *t, const uint8_t *expect, const void *expected, const void *row,
                   uint8_t *differs);

#endif
