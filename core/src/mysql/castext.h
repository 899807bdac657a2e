/* SPDX-License-Identifier: MIT */
/* What conditional writes of one row and of many share; for the files of this folder only. */
#ifndef RG_MYSQL_CASTEXT_H
#define RG_MYSQL_CASTEXT_H

#include "mysql/cas.h"
#include "mysql/write.h"

typedef void (*rg__cas_text_fn)(rg__buf *sql, const rg__mysql *c, const rg__cas *cas);

/* Appends "column equals value" as exactly as the column's kind allows. prefix: "" or "t."; value: an
 * expression that holds the value. */
void rg__cas_condition(rg__buf *sql, const rg__mysql *c, const rg__column *col, const char *prefix,
                       const char *value);
/* The statement of one row, and that of many, whose only parameter is their JSON array. */
void rg__cas_text(rg__buf *sql, const rg__mysql *c, const rg__cas *cas);
void rg__cas_text_many(rg__buf *sql, const rg__mysql *c, const rg__cas *cas);
/* The key of its statement, in the connection's key buffer. */
rg__buf *rg__cas_key(rg__mysql *c, const rg__cas *cas, char what);
/* The cached statement, or a new one of the text that `text` writes. */
int rg__cas_prepare(rg__mysql *c, const rg__call *call, const rg__cas *cas, char what,
                    rg__cas_text_fn text, rg__stmt **out, rg_err *err);
/* Statements of many: their rows in the connection's text buffer; that as the parameter, when it fits; of an
 * answer, which rows it tells of. */
int rg__cas_add_rows(rg__mysql *c, const rg__cas *cas, const uint64_t *ids, const void *const *rows,
                     const void *const *expected, size_t n, rg_err *err);
int rg__cas_bind_rows(rg__mysql *c, rg__call *call, rg__stmt *s, rg_err *err);
int rg__cas_read_marks(rg__stmt *s, size_t n, uint64_t *marks, rg_err *err);
int rg__cas_one(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, uint64_t id, const void *row,
                const void *expected, uint64_t *marks, rg_err *err);

#endif
