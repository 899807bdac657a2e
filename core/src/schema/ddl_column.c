/* SPDX-License-Identifier: MIT */
/* The diff of columns and of the primary key. */
#include "schema/ddl_job.h"

#include <strings.h>

/* ---- one column against the live one ---- */

typedef struct facets {
    rg__sql_type was_type, type;
    rg__sql_default was_def, def;
    rg__type_step step;
    bool def_differs;
    bool to_null, to_not_null;
    bool auto_on, auto_off;
    bool computed;
} facets;

static void deinit_facets(facets *f) {
    rg__sql_type_deinit(&f->was_type);
    rg__sql_type_deinit(&f->type);
    rg__sql_default_deinit(&f->was_def);
    rg__sql_default_deinit(&f->def);
}

static int read_types(const rg__ddl_job *job, const rg__column *c, const rg__live_column *l,
                      facets *f) {
    rg__buf text = {0};
    rg__ddl_write_type(&text, c, job->mariadb);
    int rc = rg__sql_type_parse(&f->type, rg__buf_cstr(&text), NULL, false);
    if (text.failed) rc = RG_ENO_MEMORY;
    rg__buf_deinit(&text);
    return rc < 0 ? rc : rg__sql_type_parse(&f->was_type, l->type, l->collation, l->json_check);
}

/* The live default is read as one of the live type, and compared as one of the wanted type, because
 * the server will convert it when the type changes. */
static int read_defaults(const rg__ddl_job *job, uint32_t i, const rg__live_column *l, facets *f) {
    rg__sql_default_wanted(job->t, i, &f->def);
    rg__sql_default_parse(l->def, &f->was_type, &f->was_def);
    int equal = rg__sql_default_equal(&f->type, &f->was_def, &f->def);
    f->def_differs = !equal;
    return equal < 0 ? equal : RG_OK;
}

static int compare(const rg__ddl_job *job, uint32_t i, const rg__live_column *l, facets *f) {
    const rg__column *c = &job->t->columns[i];
    bool null = c->flags & RG_COL_NULLABLE, counts = i == 0 && job->t->ids == RG_IDS_DATABASE;
    *f = (facets){0};
    int rc = read_types(job, c, l, f);
    if (rc == RG_OK) rc = read_defaults(job, i, l, f);
    if (rc < 0) return rc;
    f->step = rg__sql_type_step(&f->was_type, &f->type);
    f->to_null = null && !l->nullable;
    f->to_not_null = !null && l->nullable;
    f->auto_on = counts && !l->auto_increment;
    f->auto_off = !counts && l->auto_increment;
    f->computed = l->computed;
    return RG_OK;
}

static bool differs_beside_null(const facets *f) {
    return f->step || f->def_differs || f->to_null || f->auto_on || f->auto_off || f->computed;
}

/* ---- reasons ---- */

static const struct {
    bool safe;
    const char *why;
} steps[] = {
    [RG__TYPE_SAME] = {true, ""},
    [RG__TYPE_WIDER] = {true, ""},
    [RG__TYPE_NARROWER] = {false, ": values may not fit"},
    [RG__TYPE_VALUES] = {false, ": values of the list are removed or reordered"},
    [RG__TYPE_COLLATION] = {false, ": the order and equality of values change"},
    [RG__TYPE_OTHER] = {false, ": values are converted"},
};

/* Starts another part of a reason. */
static void part(rg__buf *reason) {
    if (reason->len) rg__buf_str(reason, "; ");
}

/* The type as a person says it: without its character set. */
static void tell_type(rg__buf *reason, const rg__column *c, bool mariadb) {
    size_t start = reason->len;
    rg__ddl_write_type(reason, c, mariadb);
    rg__buf_cstr(reason);
    if (reason->failed) return;
    const char *set = strstr(reason->p + start, " CHARACTER SET ");
    if (set) reason->len = (size_t)(set - reason->p);
}

static void explain_step(const rg__ddl_job *job, const rg__column *c, const rg__live_column *l,
                         const facets *f, rg__buf *reason) {
    if (f->step == RG__TYPE_SAME) return;
    part(reason);
    if (f->step == RG__TYPE_COLLATION) {
        rg__buf_fmt(reason, "collation %s becomes %s", f->was_type.collation, f->type.collation);
    } else {
        rg__buf_fmt(reason, "%s becomes ", l->type);
        tell_type(reason, c, job->mariadb);
    }
    rg__buf_str(reason, steps[f->step].why);
}

static void explain_default(const facets *f, rg__buf *reason) {
    if (!f->def_differs) return;
    part(reason);
    rg__buf_str(reason, "default ");
    rg__sql_default_write(&f->was_def, &f->was_type, reason);
    rg__buf_str(reason, " becomes ");
    if (f->def.present) rg__sql_default_write(&f->def, &f->type, reason);
    else rg__buf_str(reason, "none");
}

static void explain(const rg__ddl_job *job, const rg__column *c, const rg__live_column *l,
                    const facets *f, rg__buf *reason) {
    explain_step(job, c, l, f, reason);
    explain_default(f, reason);
    if (f->to_null) {
        part(reason);
        rg__buf_str(reason, "NULL is allowed");
    }
    if (f->auto_on || f->auto_off) {
        part(reason);
        rg__buf_str(reason, f->auto_on ? "the server makes ids"
                                       : "the server makes no ids: inserts without one fail");
    }
    if (f->computed) {
        part(reason);
        rg__buf_str(reason, "the server gives it no values of its own any more, which caches do not see");
    }
}

/* ---- changes ---- */

static void modify(rg__ddl_job *job, uint32_t i, bool null, bool safe, rg__buf *reason) {
    rg__buf sql = rg__ddl_alter(job);
    rg__buf_str(&sql, "MODIFY COLUMN ");
    rg__ddl_write_column(&sql, job->t, i, job->mariadb, null);
    rg__ddl_add(job, "change column", RG__ORDER_CHANGE_COLUMN, safe, &sql, reason);
}

/* NOT NULL is a statement of its own: what is safe beside it need not wait for it. */
static void change_column(rg__ddl_job *job, uint32_t i, const rg__live_column *l, const facets *f) {
    if (differs_beside_null(f)) {
        bool safe = steps[f->step].safe && !f->auto_off && !f->computed;
        rg__buf reason = {0};
        explain(job, &job->t->columns[i], l, f, &reason);
        modify(job, i, f->to_not_null, safe, &reason);
        job->waits[i] = !safe;
    }
    if (f->to_not_null) {
        rg__buf reason = {0};
        rg__buf_str(&reason, "NULL becomes NOT NULL: rows without a value are refused");
        modify(job, i, false, false, &reason);
    }
}

static rg__fate fate_of(const facets *f) {
    if (f->step) return RG__FATE_RETYPED;
    return differs_beside_null(f) || f->to_not_null ? RG__FATE_CHANGED : RG__FATE_KEPT;
}

static void compare_column(rg__ddl_job *job, uint32_t i, int at) {
    const rg__live_column *l = &job->live->columns[at];
    facets f;
    int rc = compare(job, i, l, &f);
    rg__ddl_note(job, rc);
    if (rc == RG_OK) {
        change_column(job, i, l, &f);
        job->fates[at] = (uint8_t)fate_of(&f);
    }
    deinit_facets(&f);
}

static bool fills_rows(const rg_type *t, uint32_t column) {
    rg__sql_default def;
    rg__sql_default_wanted(t, column, &def);
    bool fills = def.present || (t->columns[column].flags & RG_COL_NULLABLE);
    rg__sql_default_deinit(&def);
    return fills;
}

static void add_column(rg__ddl_job *job, uint32_t i) {
    bool safe = fills_rows(job->t, i);
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    rg__buf_str(&sql, "ADD COLUMN ");
    rg__ddl_write_column(&sql, job->t, i, job->mariadb, false);
    rg__buf_str(&reason, "the column is missing");
    if (!safe) rg__buf_str(&reason, ": NOT NULL without a default, which rows cannot fill");
    rg__ddl_add(job, "add column", RG__ORDER_ADD_COLUMN, safe, &sql, &reason);
    job->waits[i] = !safe;
}

static void drop_column(rg__ddl_job *job, uint32_t at) {
    const rg__live_column *l = &job->live->columns[at];
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    rg__buf_str(&sql, "DROP COLUMN ");
    rg__ddl_write_ident(&sql, l->name);
    rg__buf_str(&reason, "no field has this column: its values are lost");
    if (!l->nullable && !l->def)
        rg__buf_str(&reason, "; while it is there, inserts fail: NOT NULL without a default");
    rg__ddl_add(job, "drop column", RG__ORDER_DROP_COLUMN, false, &sql, &reason);
    job->fates[at] = RG__FATE_DROPPED;
}

/* ---- the primary key ---- */

static const rg__live_index *live_primary(const rg__live_table *live) {
    for (uint32_t i = 0; i < live->n_indexes; i++)
        if (strcasecmp(live->indexes[i].name, "PRIMARY") == 0) return &live->indexes[i];
    return NULL;
}

static bool primary_is_id(const rg__ddl_job *job) {
    const rg__live_index *x = live_primary(job->live);
    return x && x->n_columns == 1 && strcasecmp(x->columns[0], job->t->columns[0].column) == 0;
}

static int wanted_column(const rg_type *t, const char *name) {
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (strcasecmp(t->columns[i].column, name) == 0) return (int)i;
    return -1;
}

/* A column with AUTO_INCREMENT cannot lose its key: what becomes of it is part of the statement. */
static void release_auto_increment(rg__ddl_job *job, rg__buf *sql) {
    for (uint32_t i = 0; i < job->live->n_columns; i++) {
        const rg__live_column *l = &job->live->columns[i];
        int wanted = wanted_column(job->t, l->name);
        if (!l->auto_increment || wanted == 0) continue;
        rg__buf_str(sql, wanted < 0 ? "DROP COLUMN " : "MODIFY COLUMN ");
        if (wanted < 0) rg__ddl_write_ident(sql, l->name);
        else rg__ddl_write_column(sql, job->t, (uint32_t)wanted, job->mariadb, false);
        rg__buf_str(sql, ", ");
        job->fates[i] = wanted < 0 ? RG__FATE_DROPPED : RG__FATE_RETYPED;
        if (wanted >= 0) job->waits[wanted] = true;
    }
}

static void change_primary(rg__ddl_job *job, int id) {
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    if (live_primary(job->live)) rg__buf_str(&sql, "DROP PRIMARY KEY, ");
    release_auto_increment(job, &sql);
    rg__buf_str(&sql, id < 0 ? "ADD COLUMN " : "MODIFY COLUMN ");
    rg__ddl_write_column(&sql, job->t, 0, job->mariadb, false);
    rg__buf_fmt(&sql, ", ADD PRIMARY KEY (%s)", job->t->columns[0].quoted);
    rg__buf_fmt(&reason, "%s becomes the primary key: rows that are there may have no distinct ids",
                job->t->columns[0].quoted);
    rg__ddl_add(job, id < 0 ? "add column" : "change column", RG__ORDER_ADD_COLUMN, false, &sql,
                &reason);
    if (id >= 0) job->fates[id] = RG__FATE_RETYPED;
    job->waits[0] = true;
}

/* ---- all ---- */

void rg__ddl_columns(rg__ddl_job *job) {
    int id = rg__ddl_live_column(job->live, job->t->columns[0].column);
    bool right = id >= 0 && primary_is_id(job);
    if (!right) change_primary(job, id);
    for (uint32_t i = right ? 0 : 1; i < job->t->n_columns; i++) {
        int at = rg__ddl_live_column(job->live, job->t->columns[i].column);
        if (at < 0) add_column(job, i);
        else if (job->fates[at] == RG__FATE_KEPT) compare_column(job, i, at);
    }
    for (uint32_t i = 0; i < job->live->n_columns; i++)
        if (job->fates[i] == RG__FATE_KEPT && wanted_column(job->t, job->live->columns[i].name) < 0)
            drop_column(job, i);
}
