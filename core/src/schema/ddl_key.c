/* SPDX-License-Identifier: MIT */
/* The diff of foreign keys and indexes. A foreign key needs an index that starts with its column;
 * the server makes one when there is none, and refuses to drop the last one. */
#include "schema/ddl_job.h"

#include "base/alloc.h"

#include <strings.h>

/* ---- foreign keys ---- */

static int fk_column(const rg_type *t, const char *name) {
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (rg__ddl_is_fk(&t->columns[i]) && strcasecmp(t->columns[i].column, name) == 0)
            return (int)i;
    return -1;
}

static bool restricts(const char *rule) {
    return !rule || strcasecmp(rule, "RESTRICT") == 0 || strcasecmp(rule, "NO ACTION") == 0;
}

static bool is_composite(const rg__live_table *live, const rg__live_fk *k) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < live->n_fks; i++) n += strcmp(live->fks[i].name, k->name) == 0;
    return n > 1;
}

/* The column whose foreign key this live one is, or -1. */
static int wanted_by(const rg__ddl_job *job, const rg__live_fk *k) {
    int i = fk_column(job->t, k->column);
    if (i < 0 || !restricts(k->on_delete) || is_composite(job->live, k)) return -1;
    const rg_type *target = rg__ddl_target(job, &job->t->columns[i]);
    bool same = target && strcasecmp(target->table, k->target_table) == 0 &&
                strcasecmp(target->columns[0].column, k->target_column) == 0;
    return same ? i : -1;
}

static bool has_kept_fk(const rg__ddl_job *job, const char *column) {
    for (uint32_t i = 0; i < job->live->n_fks; i++)
        if (job->fk_kept[i] && strcasecmp(job->live->fks[i].column, column) == 0) return true;
    return false;
}

static bool is_retyped(const rg__ddl_job *job, const char *column) {
    int at = rg__ddl_live_column(job->live, column);
    return at >= 0 && job->fates[at] == RG__FATE_RETYPED;
}

static void drop_fk(rg__ddl_job *job, const rg__live_fk *k, bool again, bool safe) {
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    rg__buf_str(&sql, "DROP FOREIGN KEY ");
    rg__ddl_write_ident(&sql, k->name);
    if (again) rg__buf_str(&reason, "its column changes type; it is made again after that");
    else rg__buf_fmt(&reason, "no field asks for it (%s to %s)", k->column, k->target_table);
    rg__ddl_add(job, "drop foreign key", RG__ORDER_DROP_FK, safe, &sql, &reason);
}

/* again[column]: one was there, so that the rows satisfy it. */
static void compare_fk(rg__ddl_job *job, uint32_t i, bool *again) {
    const rg__live_fk *k = &job->live->fks[i];
    int column = wanted_by(job, k);
    bool twin = column >= 0 && (again[column] || has_kept_fk(job, k->column));
    bool wanted = column >= 0 && !twin, retyped = is_retyped(job, k->column);
    job->fk_kept[i] = wanted && !retyped;
    if (job->fk_kept[i]) return;
    if (wanted) again[column] = true;
    bool told = i > 0 && strcmp(job->live->fks[i - 1].name, k->name) == 0;
    if (!told) drop_fk(job, k, wanted, !(wanted && job->waits[column]));
}

static void add_fk(rg__ddl_job *job, const rg__column *c, bool safe) {
    const rg_type *target = rg__ddl_target(job, c);
    if (!target) {
        rg__ddl_note(job, rg__fail_field(job->err, c->name, "%s.%s refers to an unknown entity",
                                         job->t->name, c->name));
        return;
    }
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    rg__buf_str(&sql, "ADD ");
    rg__ddl_write_fk(&sql, job->t, c, target);
    rg__buf_fmt(&reason, "the foreign key of %s to %s is missing", c->quoted, target->quoted);
    if (!safe) rg__buf_str(&reason, ": rows may refer to what is not there");
    rg__ddl_add(job, "add foreign key", RG__ORDER_ADD_FK, safe, &sql, &reason);
}

void rg__ddl_fks(rg__ddl_job *job) {
    bool *again = rg__calloc(job->t->n_columns, sizeof *again);
    if (!again) {
        rg__ddl_note(job, RG_ENO_MEMORY);
        return;
    }
    for (uint32_t i = 0; i < job->live->n_fks; i++) compare_fk(job, i, again);
    for (uint32_t i = 0; i < job->t->n_columns; i++) {
        const rg__column *c = &job->t->columns[i];
        if (!rg__ddl_is_fk(c) || has_kept_fk(job, c->column)) continue;
        add_fk(job, c, again[i] && !job->waits[i]);
    }
    rg__free(again);
}

/* ---- indexes ---- */

static const rg__index *wanted_index(const rg_type *t, const char *name) {
    for (uint32_t i = 0; i < t->n_indexes; i++)
        if (!(t->indexes[i].flags & RG_INDEX_VIRTUAL) && strcasecmp(t->indexes[i].name, name) == 0)
            return &t->indexes[i];
    return NULL;
}

static const char *column_at(const rg_type *t, const rg__index *x, uint32_t i) {
    return t->columns[x->columns[i]].column;
}

static bool same_index(const rg_type *t, const rg__index *x, const rg__live_index *l) {
    if (l->unique != !!(x->flags & RG_INDEX_UNIQUE) || l->n_columns != x->n_columns) return false;
    for (uint32_t i = 0; i < x->n_columns; i++)
        if (strcasecmp(column_at(t, x, i), l->columns[i]) != 0) return false;
    return true;
}

static bool is_plain_on(const rg__live_index *l, const char *column) {
    return !l->unique && l->n_columns == 1 && strcasecmp(l->columns[0], column) == 0;
}

static bool leads(const rg__live_index *l, const char *column) {
    return l->n_columns > 0 && strcasecmp(l->columns[0], column) == 0;
}

/* Name of the index that the server makes for the foreign key of this column: the key's own. */
static void write_fk_index_name(const rg__ddl_job *job, uint32_t column, rg__buf *out) {
    const rg__column *c = &job->t->columns[column];
    for (uint32_t i = 0; i < job->live->n_fks; i++) {
        const rg__live_fk *k = &job->live->fks[i];
        if (!job->fk_kept[i] || strcasecmp(k->column, c->column) != 0) continue;
        rg__buf_str(out, k->name);
        return;
    }
    rg__ddl_write_fk_name(out, job->t, c);
}

/* The column of a foreign key that this index was made for by the server, or -1. */
static int made_for_fk(rg__ddl_job *job, const rg__live_index *l) {
    int column = l->n_columns == 1 ? fk_column(job->t, l->columns[0]) : -1;
    if (column < 0 || l->unique) return -1;
    rg__buf name = {0};
    write_fk_index_name(job, (uint32_t)column, &name);
    bool same = strcasecmp(rg__buf_cstr(&name), l->name) == 0;
    if (name.failed) rg__ddl_note(job, RG_ENO_MEMORY);
    rg__buf_deinit(&name);
    return same ? column : -1;
}

static bool is_primary(const rg__live_index *l) { return strcasecmp(l->name, "PRIMARY") == 0; }

static void find_staying(rg__ddl_job *job) {
    for (uint32_t i = 0; i < job->live->n_indexes; i++) {
        const rg__live_index *l = &job->live->indexes[i];
        const rg__index *x = wanted_index(job->t, l->name);
        job->staying[i] = x ? same_index(job->t, x, l) : made_for_fk(job, l) >= 0;
    }
}

/* The column whose kept foreign key has no index but this one (and others that go too), or -1. */
static int needed_by(const rg__ddl_job *job, const rg__live_index *l) {
    int column = l->n_columns ? fk_column(job->t, l->columns[0]) : -1;
    if (column < 0 || job->fk_indexed[column] || !has_kept_fk(job, l->columns[0])) return -1;
    for (uint32_t i = 0; i < job->live->n_indexes; i++)
        if (job->staying[i] && leads(&job->live->indexes[i], l->columns[0])) return -1;
    return column;
}

static bool waits_for_column(const rg__ddl_job *job, const rg__index *x) {
    for (uint32_t i = 0; i < x->n_columns; i++)
        if (job->waits[x->columns[i]]) return true;
    return false;
}

static bool safe_to_add(const rg__ddl_job *job, const rg__index *x) {
    return !(x->flags & RG_INDEX_UNIQUE) && !waits_for_column(job, x);
}

/* How many indexes of the entity start with the column; all, or those that are safe to add. */
static uint32_t count_leading(const rg__ddl_job *job, uint32_t column, bool safe_only) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < job->t->n_indexes; i++) {
        const rg__index *x = &job->t->indexes[i];
        if (x->n_columns == 0 || x->columns[0] != column) continue;
        n += !safe_only || safe_to_add(job, x);
    }
    return n;
}

/* True when a column of the index changes or goes, so that the index has to go before. */
static bool is_touched(const rg__ddl_job *job, const rg__live_index *l) {
    for (uint32_t i = 0; i < l->n_columns; i++) {
        int at = rg__ddl_live_column(job->live, l->columns[i]);
        if (at < 0 || job->fates[at] != RG__FATE_KEPT) return true;
    }
    return false;
}

static void write_drop(rg__buf *sql, const rg__live_index *l) {
    rg__buf_str(sql, "DROP INDEX ");
    rg__ddl_write_ident(sql, l->name);
}

/* Adds to an ALTER the index that a foreign key needs when this statement has run. */
static void write_fk_index(rg__ddl_job *job, uint32_t column, rg__buf *sql) {
    rg__buf name = {0};
    write_fk_index_name(job, column, &name);
    rg__buf_str(sql, ", ADD INDEX ");
    rg__ddl_write_ident(sql, rg__buf_cstr(&name));
    rg__buf_fmt(sql, " (%s)", job->t->columns[column].quoted);
    sql->failed |= name.failed;
    rg__buf_deinit(&name);
    job->fk_indexed[column] = true;
}

static void tell_columns(rg__buf *out, const rg__live_index *l) {
    rg__buf_str(out, l->unique ? "unique (" : "(");
    for (uint32_t i = 0; i < l->n_columns; i++)
        rg__buf_fmt(out, "%s%s", i ? "," : "", l->columns[i]);
    rg__buf_char(out, ')');
}

/* Queries with MATCH fail without it. */
static bool is_fulltext(const rg__live_index *l) {
    return l->n_columns > 0 && strncmp(l->columns[0], "FULLTEXT ", 9) == 0;
}

static void tell_drop(rg__buf *reason, const rg__live_index *l) {
    tell_columns(reason, l);
    rg__buf_str(reason, ": the entity has no such index; no data is lost, but ");
    if (is_fulltext(l)) rg__buf_str(reason, "queries with MATCH fail");
    else if (l->unique) rg__buf_str(reason, "equal values are refused no longer");
    else rg__buf_str(reason, "queries may become slow");
}

static void drop_index(rg__ddl_job *job, const rg__live_index *l, rg__ddl_order order, bool safe) {
    int column = order == RG__ORDER_DROP_INDEX ? needed_by(job, l) : -1;
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    write_drop(&sql, l);
    if (column >= 0) write_fk_index(job, (uint32_t)column, &sql);
    tell_drop(&reason, l);
    rg__ddl_add(job, "drop index", order, safe && !is_fulltext(l), &sql, &reason);
}

/* A live index that the entity does not have. */
static void extra_index(rg__ddl_job *job, uint32_t i) {
    const rg__live_index *l = &job->live->indexes[i];
    int column = needed_by(job, l);
    bool later = column >= 0 && count_leading(job, (uint32_t)column, false) > 0;
    if (column >= 0 && !later && is_plain_on(l, l->columns[0]))
        job->staying[i] = true;
    else if (later && !is_touched(job, l))
        drop_index(job, l, RG__ORDER_DROP_REPLACED_INDEX,
                   count_leading(job, (uint32_t)column, true) > 0);
    else
        drop_index(job, l, RG__ORDER_DROP_INDEX, true);
}

static void tell_danger(rg__buf *reason, const rg__ddl_job *job, const rg__index *x) {
    if (x->flags & RG_INDEX_UNIQUE) rg__buf_str(reason, ": fails when rows have equal values");
    else if (waits_for_column(job, x)) rg__buf_str(reason, ": its columns must be changed before");
}

static void add_index(rg__ddl_job *job, const rg__index *x) {
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    rg__buf_str(&sql, "ADD ");
    rg__ddl_write_index(&sql, job->t, x);
    rg__buf_str(&reason, "the index is missing");
    tell_danger(&reason, job, x);
    rg__ddl_add(job, "add index", RG__ORDER_ADD_INDEX, safe_to_add(job, x), &sql, &reason);
}

/* In one statement, so that there is never none. */
static void swap_index(rg__ddl_job *job, const rg__live_index *l, const rg__index *x) {
    int column = needed_by(job, l);
    rg__buf sql = rg__ddl_alter(job), reason = {0};
    write_drop(&sql, l);
    rg__buf_str(&sql, ", ADD ");
    rg__ddl_write_index(&sql, job->t, x);
    if (column >= 0 && x->columns[0] != (uint32_t)column)
        write_fk_index(job, (uint32_t)column, &sql);
    tell_columns(&reason, l);
    rg__buf_str(&reason, " is not what the entity says");
    tell_danger(&reason, job, x);
    bool safe = safe_to_add(job, x) && !is_fulltext(l);
    rg__ddl_add(job, "add index", RG__ORDER_ADD_INDEX, safe, &sql, &reason);
}

static void change_index(rg__ddl_job *job, const rg__live_index *l, const rg__index *x) {
    if (!is_touched(job, l)) {
        swap_index(job, l, x);
        return;
    }
    drop_index(job, l, RG__ORDER_DROP_INDEX, safe_to_add(job, x));
    add_index(job, x);
}

static bool is_live(const rg__live_table *live, const char *name) {
    for (uint32_t i = 0; i < live->n_indexes; i++)
        if (strcasecmp(live->indexes[i].name, name) == 0) return true;
    return false;
}

void rg__ddl_indexes(rg__ddl_job *job) {
    const rg_type *t = job->t;
    find_staying(job);
    for (uint32_t i = 0; i < job->live->n_indexes; i++) {
        const rg__live_index *l = &job->live->indexes[i];
        if (is_primary(l) || job->staying[i]) continue;
        const rg__index *x = wanted_index(t, l->name);
        if (x) change_index(job, l, x);
        else extra_index(job, i);
    }
    for (uint32_t i = 0; i < t->n_indexes; i++)
        if (!(t->indexes[i].flags & RG_INDEX_VIRTUAL) && !is_live(job->live, t->indexes[i].name))
            add_index(job, &t->indexes[i]);
}
