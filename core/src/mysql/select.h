/* SPDX-License-Identifier: MIT */
/* Statements that yield rows of a type: what reading by ids, by index and by condition share. */
#ifndef RG_MYSQL_SELECT_H
#define RG_MYSQL_SELECT_H

#include "mysql/columns.h"

/* What is kept with such a statement (rg__stmt's extra). */
typedef struct rg__selection {
    rg__row_reader reader;
    rg__bound *bounds; /* one a parameter */
    rg__buf scratch;
} rg__selection;

/* Appends "SELECT columns FROM table". */
void rg__select_begin(rg__buf *sql, const rg_type *t);
int rg__select_prepare(rg__mysql *c, const rg__call *call, const rg_type *t, const rg__buf *key,
                       const rg__buf *sql, rg__stmt **out, rg_err *err);
/* Executes and hands over each row. A callee's or a row's fault leaves the connection usable. */
int rg__select_run(rg__mysql *c, rg__call *call, rg__stmt *s, rg__row_fn fn, void *arg,
                   rg_err *err);
/* The same once it was executed. */
int rg__select_rows(rg__mysql *c, rg__call *call, rg__stmt *s, rg__row_fn fn, void *arg, rg_err *err);
/* Ends the call; s may be NULL. */
int rg__select_end(rg__mysql *c, rg__call *call, int code, const rg__stmt *s, const rg_type *t,
                   rg_err *err);

/* The statement for n ids, rounded up to a power of two, when it is prepared; its key. The ids, and NULLs for
 * the rest. */
rg__buf *rg__select_ids_key(rg__mysql *c, const rg_type *t, size_t n, rg__lock lock);
void rg__select_set_ids(rg__stmt *s, const uint64_t *ids, size_t n);

/* Appends the clause of a lock. */
void rg__select_lock(const rg__mysql *c, rg__buf *sql, rg__lock lock);

#endif
