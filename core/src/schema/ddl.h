/* SPDX-License-Identifier: MIT */
/* DDL: the statements that bring a live table to what the type says. Pure: the live side comes in
 * as plain data. Nothing depends on the order of columns. */
#ifndef RG_SCHEMA_DDL_H
#define RG_SCHEMA_DDL_H

#include "schema/entity.h"
#include "schema/type.h"

typedef struct rg__live_column {
    char *name;
    char *type;       /* COLUMN_TYPE as the server shows it, lower case */
    bool nullable;
    char *def;        /* default as SQL text ('a''b', 0, NULL, current_timestamp(6)), NULL none */
    bool auto_increment;
    bool computed;    /* the server gives it values of its own: it is generated, or ON UPDATE sets it */
    char *collation;  /* or NULL */
    bool json_check;  /* MariaDB: longtext with json_valid check */
} rg__live_column;

typedef struct rg__live_index {
    char *name;
    bool unique;
    char **columns;   /* "name", or what no column is called: "name(10)", "fulltext name" */
    uint32_t n_columns;
} rg__live_index;

typedef struct rg__live_fk {
    char *name, *column, *target_table, *target_column;
    char *on_delete;  /* "RESTRICT", "CASCADE", ... */
} rg__live_fk; /* one of several columns is several of one name */

typedef struct rg__live_table {
    char *name;
    char *engine;
    rg__live_column *columns;
    uint32_t n_columns;
    rg__live_index *indexes;
    uint32_t n_indexes;
    rg__live_fk *fks;
    uint32_t n_fks;
    bool empty;   /* has no rows */
    bool exists;
} rg__live_table;
void rg__live_table_deinit(rg__live_table *t);

/* One change: one statement. Unsafe (destructive) ones may lose data, fail on data, or stop the
 * previous version of the application from running. */
typedef struct rg__ddl_change {
    char *table;
    const char *kind;  /* static: "create table", "add column", "change column", "drop column",
                          "add index", "drop index", "add foreign key", "drop foreign key",
                          "table" */
    bool safe;
    int order;         /* changes of many tables run by it, lowest first */
    char *sql;
    char *reason;      /* in words: what differs, and why it is destructive */
} rg__ddl_change;
typedef struct rg__ddl {
    rg__ddl_change *items;
    size_t n, cap;
} rg__ddl;
void rg__ddl_deinit(rg__ddl *d);

/* Appends the changes for one type, in an order that can be run. live->exists false: CREATE TABLE
 * (its foreign keys are changes of their own, as tables may refer to each other in a circle).
 * targets: schema, for foreign keys. Nothing is appended when it fails. */
int rg__ddl_diff(const rg__schema *schema, const rg_type *t, const rg__live_table *live,
                 bool mariadb, rg__ddl *out, rg_err *err);
/* Puts the changes of many tables in an order that can be run; keeps the order of equal ones. */
void rg__ddl_sort(rg__ddl *d);

#endif
