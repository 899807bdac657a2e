/* SPDX-License-Identifier: MIT */
/* Reads a live table from information_schema, and diffs a whole schema against what is there. */
#include "mysql/introspect.h"

#include "base/alloc.h"
#include "base/err.h"

#include <stdlib.h>
#include <strings.h>

#define HERE " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?"

static const char SELECT_TABLE[] = "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES" HERE;
static const char SELECT_COLUMNS[] =
    "SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, COLLATION_NAME"
    " FROM information_schema.COLUMNS" HERE " ORDER BY ORDINAL_POSITION";
static const char SELECT_INDEXES[] =
    "SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, INDEX_TYPE"
    " FROM information_schema.STATISTICS" HERE " ORDER BY INDEX_NAME, SEQ_IN_INDEX";
/* Both sides are told schema and table by themselves: joined by them, MariaDB opens every table of
 * the database to answer. */
static const char SELECT_FKS[] =
    "SELECT k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME,"
    " r.DELETE_RULE, k.REFERENCED_TABLE_SCHEMA = k.TABLE_SCHEMA"
    " FROM information_schema.KEY_COLUMN_USAGE k"
    " JOIN information_schema.REFERENTIAL_CONSTRAINTS r"
    " ON r.CONSTRAINT_NAME = k.CONSTRAINT_NAME"
    " WHERE k.TABLE_SCHEMA = DATABASE() AND k.TABLE_NAME = ?"
    " AND r.CONSTRAINT_SCHEMA = DATABASE() AND r.TABLE_NAME = ?"
    " AND k.REFERENCED_TABLE_NAME IS NOT NULL"
    " ORDER BY k.CONSTRAINT_NAME, k.ORDINAL_POSITION";
static const char SELECT_CHECKS[] = /* MariaDB's form; MySQL has a type JSON */
    "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS"
    " WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ?";

/* Reading of one table. */
typedef struct reading {
    rg__mysql *c;
    const rg__ctx *ctx;
    const char *table;
    rg__live_table *out;
    rg_err *err;
} reading;

/* ---- cells ---- */

/* Runs a statement whose n parameters are all the table's name. */
static int ask(reading *r, const char *sql, size_t n, rg__result **out) {
    rg__param name = {.kind = RG__P_STRING, .s = rg__slice_of(r->table)};
    rg__param params[2] = {name, name};
    *out = NULL;
    return rg__mysql_query(r->c, r->ctx, sql, strlen(sql), params, n, false, out, r->err);
}

static rg__slice cell(const rg__result *r, size_t row, uint32_t column) {
    return r->cells[row * r->n_columns + column];
}

/* A copy, NULL for NULL; running out of memory shows in *ok. */
static char *dup_cell(const rg__result *r, size_t row, uint32_t column, bool *ok) {
    rg__slice s = cell(r, row, column);
    char *copy = s.p ? rg__memdup0(s.p, s.len) : NULL;
    if (s.p && !copy) *ok = false;
    return copy;
}

static bool cell_is(const rg__result *r, size_t row, uint32_t column, const char *text) {
    rg__slice s = cell(r, row, column);
    return s.p && s.len == strlen(text) && strncasecmp(s.p, text, s.len) == 0;
}

static bool cell_has(const rg__result *r, size_t row, uint32_t column, const char *text) {
    rg__slice s = cell(r, row, column);
    size_t n = strlen(text);
    for (size_t i = 0; s.p && i + n <= s.len; i++)
        if (strncasecmp(s.p + i, text, n) == 0) return true;
    return false;
}

/* ---- the table ---- */

static int check_kind(const reading *r, const rg__result *rows) {
    if (cell_is(rows, 0, 0, "BASE TABLE") || cell_is(rows, 0, 0, "SYSTEM VERSIONED")) return RG_OK;
    rg__slice kind = cell(rows, 0, 0);
    return rg__fail(r->err, RG_ESCHEMA, "it is a %.*s, not a table", (int)kind.len,
                    kind.p ? kind.p : "");
}

static int read_table(reading *r) {
    rg__result *rows;
    int rc = ask(r, SELECT_TABLE, 1, &rows);
    if (rc < 0) return rc;
    bool ok = true;
    if (rows->n_rows > 0) {
        r->out->exists = true;
        r->out->engine = dup_cell(rows, 0, 1, &ok);
        rc = ok ? check_kind(r, rows) : rg__fail_memory(r->err);
    }
    rg__result_free(rows);
    return rc;
}

static int read_empty(reading *r) {
    rg__buf sql = {0};
    rg__result *rows = NULL;
    rg__buf_str(&sql, "SELECT EXISTS(SELECT 1 FROM ");
    int rc = rg__ident_quote(&sql, r->table, strlen(r->table), r->err);
    rg__buf_str(&sql, " LIMIT 1)");
    if (rc == RG_OK && sql.failed) rc = rg__fail_memory(r->err);
    if (rc == RG_OK)
        rc = rg__mysql_query(r->c, r->ctx, sql.p, sql.len, NULL, 0, false, &rows, r->err);
    if (rc == RG_OK) r->out->empty = cell_is(rows, 0, 0, "0");
    rg__result_free(rows);
    rg__buf_deinit(&sql);
    return rc;
}

/* ---- columns ---- */

static void add_quoted(rg__buf *out, rg__slice s) {
    rg__buf_char(out, '\'');
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] == '\'' || s.p[i] == '\\') rg__buf_char(out, s.p[i]);
        rg__buf_char(out, s.p[i]);
    }
    rg__buf_char(out, '\'');
}

/* MySQL shows a literal without quotes, bytes as 0x61, and tells an expression in EXTRA. */
static char *mysql_default(const rg__result *rows, size_t i, bool *ok) {
    rg__slice s = cell(rows, i, 3);
    bool bytes = cell_has(rows, i, 1, "binary(") && s.len > 2 && strncmp(s.p, "0x", 2) == 0;
    if (!s.p || bytes || cell_has(rows, i, 4, "DEFAULT_GENERATED")) return dup_cell(rows, i, 3, ok);
    rg__buf text = {0};
    add_quoted(&text, s);
    rg__buf_cstr(&text);
    if (!text.failed) return text.p;
    rg__buf_deinit(&text);
    *ok = false;
    return NULL;
}

static bool read_column(const reading *r, const rg__result *rows, size_t i, rg__live_column *c) {
    bool ok = true, mariadb = rg__mysql_flavour(r->c) == RG__MARIADB;
    c->name = dup_cell(rows, i, 0, &ok);
    c->type = dup_cell(rows, i, 1, &ok);
    c->nullable = cell_is(rows, i, 2, "YES");
    c->def = mariadb ? dup_cell(rows, i, 3, &ok) : mysql_default(rows, i, &ok);
    c->auto_increment = cell_has(rows, i, 4, "auto_increment");
    c->computed = cell_has(rows, i, 4, " GENERATED") || cell_has(rows, i, 4, "on update");
    c->collation = dup_cell(rows, i, 5, &ok);
    return ok && c->name && c->type;
}

static int read_columns(reading *r) {
    rg__result *rows;
    int rc = ask(r, SELECT_COLUMNS, 1, &rows);
    if (rc < 0) return rc;
    r->out->columns = rg__calloc(rows->n_rows, sizeof *r->out->columns);
    bool ok = r->out->columns != NULL;
    for (size_t i = 0; ok && i < rows->n_rows; i++)
        ok = read_column(r, rows, i, &r->out->columns[r->out->n_columns++]);
    rg__result_free(rows);
    return ok ? RG_OK : rg__fail_memory(r->err);
}

/* json_valid(`name`) is what MariaDB makes of the type JSON. */
static int mark_json(reading *r, rg__slice clause) {
    rg__buf wanted = {0};
    bool failed = false;
    for (uint32_t i = 0; i < r->out->n_columns && !failed; i++) {
        rg__live_column *c = &r->out->columns[i];
        rg__buf_clear(&wanted);
        rg__buf_str(&wanted, "json_valid(");
        rg__ident_quote(&wanted, c->name, strlen(c->name), NULL);
        rg__buf_char(&wanted, ')');
        failed = wanted.failed;
        if (rg__slice_eq((rg__slice){wanted.p, wanted.len}, clause)) c->json_check = true;
    }
    rg__buf_deinit(&wanted);
    return failed ? rg__fail_memory(r->err) : RG_OK;
}

static int read_checks(reading *r) {
    if (rg__mysql_flavour(r->c) != RG__MARIADB) return RG_OK;
    rg__result *rows;
    int rc = ask(r, SELECT_CHECKS, 1, &rows);
    if (rc < 0) return rc;
    for (size_t i = 0; rc == RG_OK && i < rows->n_rows; i++) rc = mark_json(r, cell(rows, i, 0));
    rg__result_free(rows);
    return rc;
}

/* ---- indexes ---- */

/* A column, or a text that no column is called, for what an entity's index cannot be: part of a
 * column, an expression, FULLTEXT, SPATIAL. */
static char *index_column(const rg__result *rows, size_t i, bool *ok) {
    rg__slice name = cell(rows, i, 2), part = cell(rows, i, 3), type = cell(rows, i, 4);
    bool tree = cell_is(rows, i, 4, "BTREE") || cell_is(rows, i, 4, "HASH");
    rg__buf text = {0};
    if (!name.p) name = rg__slice_of("(expression)");
    if (!tree) rg__buf_fmt(&text, "%.*s ", (int)type.len, type.p ? type.p : "");
    rg__buf_add(&text, name.p, name.len);
    if (part.p) rg__buf_fmt(&text, "(%.*s)", (int)part.len, part.p);
    rg__buf_cstr(&text);
    if (!text.failed) return text.p;
    rg__buf_deinit(&text);
    *ok = false;
    return NULL;
}

static size_t rows_of_index(const rg__result *rows, size_t first) {
    size_t n = 1;
    while (first + n < rows->n_rows && rg__slice_eq(cell(rows, first, 0), cell(rows, first + n, 0)))
        n++;
    return n;
}

static bool read_index(const rg__result *rows, size_t first, size_t n, rg__live_index *x) {
    bool ok = true;
    x->name = dup_cell(rows, first, 0, &ok);
    x->unique = cell_is(rows, first, 1, "0");
    x->columns = rg__calloc(n, sizeof *x->columns);
    ok = ok && x->name && x->columns;
    for (size_t i = 0; ok && i < n; i++)
        x->columns[x->n_columns++] = index_column(rows, first + i, &ok);
    return ok;
}

static int read_indexes(reading *r) {
    rg__result *rows;
    int rc = ask(r, SELECT_INDEXES, 1, &rows);
    if (rc < 0) return rc;
    r->out->indexes = rg__calloc(rows->n_rows, sizeof *r->out->indexes);
    bool ok = r->out->indexes != NULL;
    for (size_t i = 0, n; ok && i < rows->n_rows; i += n) {
        n = rows_of_index(rows, i);
        ok = read_index(rows, i, n, &r->out->indexes[r->out->n_indexes++]);
    }
    rg__result_free(rows);
    return ok ? RG_OK : rg__fail_memory(r->err);
}

/* ---- foreign keys ---- */

/* A key into another database is none that an entity has: it gets a target that is no name. */
static bool read_fk(const rg__result *rows, size_t i, rg__live_fk *k) {
    bool ok = true, here = cell_is(rows, i, 5, "1");
    k->name = dup_cell(rows, i, 0, &ok);
    k->column = dup_cell(rows, i, 1, &ok);
    k->target_table = here ? dup_cell(rows, i, 2, &ok) : rg__strdup("another database");
    k->target_column = here ? dup_cell(rows, i, 3, &ok) : rg__strdup("");
    k->on_delete = dup_cell(rows, i, 4, &ok);
    return ok && k->name && k->column && k->target_table && k->target_column;
}

static int read_fks(reading *r) {
    rg__result *rows;
    int rc = ask(r, SELECT_FKS, 2, &rows);
    if (rc < 0) return rc;
    r->out->fks = rg__calloc(rows->n_rows, sizeof *r->out->fks);
    bool ok = r->out->fks != NULL;
    for (size_t i = 0; ok && i < rows->n_rows; i++)
        ok = read_fk(rows, i, &r->out->fks[r->out->n_fks++]);
    rg__result_free(rows);
    return ok ? RG_OK : rg__fail_memory(r->err);
}

/* ---- all of a table, all tables ---- */

int rg__introspect_table(rg__mysql *c, const rg__ctx *ctx, const char *table, rg__live_table *out,
                         rg_err *err) {
    reading r = {c, ctx, table, out, err};
    *out = (rg__live_table){.name = rg__strdup(table)};
    int rc = out->name ? read_table(&r) : rg__fail_memory(err);
    if (rc == RG_OK && out->exists) {
        rc = read_columns(&r);
        if (rc == RG_OK) rc = read_checks(&r);
        if (rc == RG_OK) rc = read_indexes(&r);
        if (rc == RG_OK) rc = read_fks(&r);
        if (rc == RG_OK) rc = read_empty(&r);
    }
    if (rc == RG_OK) return RG_OK;
    rg__live_table_deinit(out);
    rg__err_prefix(err, "table %s: ", table);
    return rc;
}

static int diff_type(rg__mysql *c, const rg__ctx *ctx, const rg__schema *schema, const rg_type *t,
                     rg__ddl *out, rg_err *err) {
    rg__live_table live;
    int rc = rg__introspect_table(c, ctx, t->table, &live, err);
    if (rc == RG_OK) {
        rc = rg__ddl_diff(schema, t, &live, rg__mysql_flavour(c) == RG__MARIADB, out, err);
        rg__live_table_deinit(&live);
    }
    if (rc < 0) rg__err_set_entity(err, t->name);
    return rc;
}

static int by_rank(const void *a, const void *b) {
    const rg_type *s = *(const rg_type *const *)a, *t = *(const rg_type *const *)b;
    if (s->rank != t->rank) return s->rank < t->rank ? -1 : 1;
    return s->number < t->number ? -1 : s->number > t->number;
}

int rg__introspect_diff(rg__mysql *c, const rg__ctx *ctx, const rg__schema *schema, int pool_index,
                        rg__ddl *out, rg_err *err) {
    const rg_type **types = rg__calloc(schema->n, sizeof *types);
    if (!types) return rg__fail_memory(err);
    uint32_t n = 0;
    for (uint32_t i = 0; i < schema->n; i++)
        if (schema->types[i]->mysql_pool == pool_index) types[n++] = schema->types[i];
    qsort(types, n, sizeof *types, by_rank);
    int rc = RG_OK;
    for (uint32_t i = 0; rc == RG_OK && i < n; i++)
        rc = diff_type(c, ctx, schema, types[i], out, err);
    if (rc == RG_OK) rg__ddl_sort(out);
    rg__free(types);
    return rc;
}
