/* SPDX-License-Identifier: MIT */
/* What the live database looks like, from information_schema, and the diff over a whole schema. */
#ifndef RG_MYSQL_INTROSPECT_H
#define RG_MYSQL_INTROSPECT_H

#include "mysql/mysql.h"
#include "schema/ddl.h"

int rg__introspect_table(rg__mysql *c, const rg__ctx *ctx, const char *table, rg__live_table *out,
                         rg_err *err);
/* Diffs every type of the schema whose mysql_pool is `pool_index`, referenced tables first. */
int rg__introspect_diff(rg__mysql *c, const rg__ctx *ctx, const rg__schema *schema, int pool_index,
                        rg__ddl *out, rg_err *err);

#endif
