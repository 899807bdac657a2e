/* SPDX-License-Identifier: MIT */
/* The table of kinds: names, stores, limits, SQL types. Data, not code. */
#ifndef RG_SCHEMA_TYPE_H
#define RG_SCHEMA_TYPE_H

#include "schema/entity.h"

typedef struct rg__kind_info {
    const char *name;    /* as the Lua module calls it: "uint32" */
    const char *sql;     /* base SQL type */
    int store;           /* rg_store */
    uint8_t width;       /* bytes in the fixed area */
    bool is_unsigned, is_integer;
    int64_t min;         /* integers */
    uint64_t max;
} rg__kind_info;

const rg__kind_info *rg__kind(int kind); /* NULL when unknown */
/* Full SQL type of a column, without NULL/DEFAULT: "varchar(80) CHARACTER SET utf8mb4 COLLATE ..." */
void rg__column_sql_type(const rg__column *c, bool mariadb, rg__buf *out);

#endif
