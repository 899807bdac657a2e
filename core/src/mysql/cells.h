/* SPDX-License-Identifier: MIT */
/* Results from the wire, filled row by row from either protocol. */
#ifndef RG_MYSQL_CELLS_H
#define RG_MYSQL_CELLS_H

#include <mysql.h>
#include "mysql/mysql.h"

enum { RG__MAX_ROWS = 1000000 };
#define RG__MAX_BYTES ((size_t)256 << 20)

/* A result being filled. */
typedef struct rg__filling {
    rg__result *r;
    size_t bytes; /* over the whole chain */
    size_t rows;  /* over the whole chain */
} rg__filling;

/* A new result with the columns of the metadata (NULL: none). */
rg__result *rg__cells_result(MYSQL_RES *meta);
/* Begins another row, all NULL; ELIMIT beyond the bounds. */
int rg__cells_row(rg__filling *f, rg_err *err);
/* Room for len bytes of the current row's cell, a NUL behind it; NULL when out of memory or bounds.
 */
char *rg__cells_room(rg__filling *f, uint32_t col, size_t len);
/* Copies a value as it came by the text protocol. */
bool rg__cells_text(rg__filling *f, uint32_t col, const MYSQL_FIELD *field, const char *p,
                    size_t len);

/* Text of a value; out has room for 40 bytes. Returns the length. */
size_t rg__time_text(const MYSQL_TIME *v, enum enum_field_types type, unsigned decimals, char *out);

#endif
