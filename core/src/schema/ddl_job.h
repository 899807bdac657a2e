/* SPDX-License-Identifier: MIT */
/* What the parts of a table's diff share: the job, texts of statements, the order of changes. */
#ifndef RG_SCHEMA_DDL_JOB_H
#define RG_SCHEMA_DDL_JOB_H

#include "base/err.h"
#include "schema/ddl.h"
#include "schema/ddl_type.h"

/* What must be out of the way goes first, what must be there goes before what needs it. */
typedef enum rg__ddl_order {
    RG__ORDER_CREATE = 0,
    RG__ORDER_DROP_FK,
    RG__ORDER_DROP_INDEX,
    RG__ORDER_TABLE,
    RG__ORDER_ADD_COLUMN,
    RG__ORDER_CHANGE_COLUMN,
    RG__ORDER_DROP_COLUMN,
    RG__ORDER_ADD_INDEX,
    RG__ORDER_DROP_REPLACED_INDEX, /* one that a foreign key needs until another is there */
    RG__ORDER_ADD_FK
} rg__ddl_order;

/* What the diff does to a live column. */
typedef enum rg__fate {
    RG__FATE_KEPT = 0,
    RG__FATE_CHANGED, /* NULL, default, AUTO_INCREMENT */
    RG__FATE_RETYPED, /* its type */
    RG__FATE_DROPPED
} rg__fate;

typedef struct rg__ddl_job {
    const rg__schema *schema;
    const rg_type *t;
    const rg__live_table *live;
    bool mariadb;
    bool empty;       /* nothing to lose: every change is safe */
    rg__ddl *out;
    rg_err *err;
    int rc;           /* of the first step that failed; later changes are not appended */
    uint8_t *fates;   /* of live columns: rg__fate; set by rg__ddl_columns */
    bool *waits;      /* of columns: it is there as wanted only after an unsafe change, so that what
                         builds on it is unsafe too; set by rg__ddl_columns */
    bool *fk_kept;    /* of live foreign keys: stays; set by rg__ddl_fks */
    bool *staying;    /* of live indexes: stays as it is; set by rg__ddl_indexes */
    bool *fk_indexed; /* of columns: an index was made for the foreign key */
} rg__ddl_job;

/* The steps, in this order. */
void rg__ddl_columns(rg__ddl_job *job);
void rg__ddl_fks(rg__ddl_job *job);
void rg__ddl_indexes(rg__ddl_job *job);

/* Starts "ALTER TABLE `t` ". */
rg__buf rg__ddl_alter(const rg__ddl_job *job);
/* Appends a change; takes both buffers. */
void rg__ddl_add(rg__ddl_job *job, const char *kind, rg__ddl_order order, bool safe, rg__buf *sql,
                 rg__buf *reason);
/* Notes the first failure. */
void rg__ddl_note(rg__ddl_job *job, int rc);

/* Number of the live column, -1. Names of columns and indexes know no case. */
int rg__ddl_live_column(const rg__live_table *live, const char *name);
/* True when a column of an entity is a foreign key of the server. */
bool rg__ddl_is_fk(const rg__column *c);
const rg_type *rg__ddl_target(const rg__ddl_job *job, const rg__column *c); /* NULL: not there */

/* ---- texts ---- */
void rg__ddl_write_ident(rg__buf *out, const char *name);
/* "`name` varchar(80) ... NOT NULL DEFAULT ''". null: NULL is allowed whatever the column says. */
void rg__ddl_write_column(rg__buf *out, const rg_type *t, uint32_t column, bool mariadb, bool null);
/* The type alone, where DDL says JSON for what MariaDB turns into text with a check. */
void rg__ddl_write_type(rg__buf *out, const rg__column *c, bool mariadb);
/* "UNIQUE INDEX `name` (`a`,`b`)". */
void rg__ddl_write_index(rg__buf *out, const rg_type *t, const rg__index *x);
/* fk_<table>_<column>; when that is too long for a name, cut and told apart by a hash. */
void rg__ddl_write_fk_name(rg__buf *out, const rg_type *t, const rg__column *c);
/* "CONSTRAINT `name` FOREIGN KEY (`c`) REFERENCES `target` (`id`) ON DELETE RESTRICT". */
void rg__ddl_write_fk(rg__buf *out, const rg_type *t, const rg__column *c, const rg_type *target);
void rg__ddl_write_create(rg__buf *out, const rg_type *t, bool mariadb);

#endif
