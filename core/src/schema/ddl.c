/* SPDX-License-Identifier: MIT */
/* The diff of one table: lists of changes, and the order of its steps. */
#include "schema/ddl.h"

#include "base/alloc.h"
#include "schema/ddl_job.h"

#include <strings.h>

/* ---- what it reads and makes ---- */

static void free_columns(rg__live_table *t) {
    for (uint32_t i = 0; i < t->n_columns; i++) {
        rg__free(t->columns[i].name);
        rg__free(t->columns[i].type);
        rg__free(t->columns[i].def);
        rg__free(t->columns[i].collation);
    }
    rg__free(t->columns);
}

static void free_indexes(rg__live_table *t) {
    for (uint32_t i = 0; i < t->n_indexes; i++) {
        rg__live_index *x = &t->indexes[i];
        for (uint32_t k = 0; k < x->n_columns; k++) rg__free(x->columns[k]);
        rg__free(x->columns);
        rg__free(x->name);
    }
    rg__free(t->indexes);
}

static void free_fks(rg__live_table *t) {
    for (uint32_t i = 0; i < t->n_fks; i++) {
        rg__free(t->fks[i].name);
        rg__free(t->fks[i].column);
        rg__free(t->fks[i].target_table);
        rg__free(t->fks[i].target_column);
        rg__free(t->fks[i].on_delete);
    }
    rg__free(t->fks);
}

void rg__live_table_deinit(rg__live_table *t) {
    free_columns(t);
    free_indexes(t);
    free_fks(t);
    rg__free(t->name);
    rg__free(t->engine);
    *t = (rg__live_table){0};
}

static void free_change(rg__ddl_change *c) {
    rg__free(c->table);
    rg__free(c->sql);
    rg__free(c->reason);
}

static void cut(rg__ddl *d, size_t n) {
    while (d->n > n) free_change(&d->items[--d->n]);
}

void rg__ddl_deinit(rg__ddl *d) {
    cut(d, 0);
    rg__free(d->items);
    *d = (rg__ddl){0};
}

/* Insertion: lists are short and mostly in order. */
static void sort_from(rg__ddl *d, size_t first) {
    for (size_t i = first + 1; i < d->n; i++) {
        rg__ddl_change c = d->items[i];
        size_t k = i;
        for (; k > first && d->items[k - 1].order > c.order; k--) d->items[k] = d->items[k - 1];
        d->items[k] = c;
    }
}

void rg__ddl_sort(rg__ddl *d) { sort_from(d, 0); }

/* ---- what the steps share ---- */

void rg__ddl_note(rg__ddl_job *job, int rc) {
    if (rc < 0 && job->rc == RG_OK)
        job->rc = rc == RG_ENO_MEMORY ? rg__fail_memory(job->err) : rc;
}

rg__buf rg__ddl_alter(const rg__ddl_job *job) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql, "ALTER TABLE %s ", job->t->quoted);
    return sql;
}

static rg__ddl_change *new_change(rg__ddl *d) {
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 8;
        rg__ddl_change *items = rg__reallocarray(d->items, cap, sizeof *items);
        if (!items) return NULL;
        d->items = items;
        d->cap = cap;
    }
    return &d->items[d->n];
}

void rg__ddl_add(rg__ddl_job *job, const char *kind, rg__ddl_order order, bool safe, rg__buf *sql,
                 rg__buf *reason) {
    rg__buf_cstr(sql);
    rg__buf_cstr(reason);
    char *table = rg__strdup(job->t->table);
    rg__ddl_change *c = new_change(job->out);
    bool ok = table && c && !sql->failed && !reason->failed && job->rc == RG_OK;
    if (ok) {
        *c = (rg__ddl_change){table, kind, safe || job->empty, (int)order, sql->p, reason->p};
        job->out->n++;
        return;
    }
    rg__ddl_note(job, RG_ENO_MEMORY);
    rg__free(table);
    rg__buf_deinit(sql);
    rg__buf_deinit(reason);
}

int rg__ddl_live_column(const rg__live_table *live, const char *name) {
    for (uint32_t i = 0; i < live->n_columns; i++)
        if (strcasecmp(live->columns[i].name, name) == 0) return (int)i;
    return -1;
}

bool rg__ddl_is_fk(const rg__column *c) { return c->kind == RG_REF && c->foreign_key; }

const rg_type *rg__ddl_target(const rg__ddl_job *job, const rg__column *c) {
    return rg__schema_find(job->schema, c->target, strlen(c->target));
}

/* ---- the steps ---- */

static void create_table(rg__ddl_job *job) {
    rg__buf sql = {0}, reason = {0};
    rg__ddl_write_create(&sql, job->t, job->mariadb);
    rg__buf_str(&reason, "the table is missing");
    rg__ddl_add(job, "create table", RG__ORDER_CREATE, true, &sql, &reason);
}

static void change_engine(rg__ddl_job *job) {
    const char *engine = job->live->engine ? job->live->engine : "";
    if (strcasecmp(engine, "InnoDB") == 0) return;
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    rg__buf_str(&sql, "ENGINE=InnoDB");
    rg__buf_fmt(&reason, "engine %s becomes InnoDB, which has transactions; the table is rebuilt",
                engine);
    rg__ddl_add(job, "table", RG__ORDER_TABLE, true, &sql, &reason);
}

static void run_steps(rg__ddl_job *job) {
    if (job->live->exists) {
        change_engine(job);
        rg__ddl_columns(job);
    } else {
        create_table(job);
    }
    rg__ddl_fks(job);
    if (job->live->exists) rg__ddl_indexes(job);
}

static bool prepare(rg__ddl_job *job) {
    job->fates = rg__calloc(job->live->n_columns, sizeof *job->fates);
    job->waits = rg__calloc(job->t->n_columns, sizeof *job->waits);
    job->fk_kept = rg__calloc(job->live->n_fks, sizeof *job->fk_kept);
    job->staying = rg__calloc(job->live->n_indexes, sizeof *job->staying);
    job->fk_indexed = rg__calloc(job->t->n_columns, sizeof *job->fk_indexed);
    return job->fates && job->waits && job->fk_kept && job->staying && job->fk_indexed;
}

int rg__ddl_diff(const rg__schema *schema, const rg_type *t, const rg__live_table *live,
                 bool mariadb, rg__ddl *out, rg_err *err) {
    rg__ddl_job job = {.schema = schema, .t = t, .live = live, .mariadb = mariadb, .out = out};
    size_t first = out->n;
    job.err = err;
    job.empty = live->empty || !live->exists;
    if (prepare(&job)) run_steps(&job);
    else rg__ddl_note(&job, RG_ENO_MEMORY);
    if (job.rc == RG_OK) sort_from(out, first);
    else cut(out, first);
    rg__free(job.fates);
    rg__free(job.waits);
    rg__free(job.fk_kept);
    rg__free(job.staying);
    rg__free(job.fk_indexed);
    return job.rc;
}
