/* SPDX-License-Identifier: MIT */
/* Texts of DDL: columns, indexes, foreign keys, tables. */
#include "schema/ddl_job.h"

enum { MAX_NAME_CHARS = 64, CUT_NAME_CHARS = 55 };

/* Live names were accepted by a server, wanted ones by the type: all there is to do is quote. */
void rg__ddl_write_ident(rg__buf *out, const char *name) {
    rg__buf_char(out, '`');
    for (; *name; name++) {
        if (*name == '`') rg__buf_char(out, '`');
        rg__buf_char(out, *name);
    }
    rg__buf_char(out, '`');
}

/* ---- columns ---- */

void rg__ddl_write_type(rg__buf *out, const rg__column *c, bool mariadb) {
    if (c->kind == RG_JSON || c->kind == RG_REFS) rg__buf_str(out, "json");
    else rg__column_sql_type(c, mariadb, out);
}

static void write_default(rg__buf *out, const rg_type *t, uint32_t column, bool mariadb) {
    rg__buf text = {0};
    rg__sql_type type;
    rg__sql_default def;
    rg__ddl_write_type(&text, &t->columns[column], mariadb);
    int rc = rg__sql_type_parse(&type, rg__buf_cstr(&text), NULL, false);
    rg__sql_default_wanted(t, column, &def);
    if (def.present) {
        rg__buf_str(out, " DEFAULT ");
        rg__sql_default_write(&def, &type, out);
    }
    out->failed |= text.failed || rc < 0;
    rg__sql_default_deinit(&def);
    rg__sql_type_deinit(&type);
    rg__buf_deinit(&text);
}

void rg__ddl_write_column(rg__buf *out, const rg_type *t, uint32_t column, bool mariadb,
                          bool null) {
    const rg__column *c = &t->columns[column];
    rg__buf_str(out, c->quoted);
    rg__buf_char(out, ' ');
    rg__ddl_write_type(out, c, mariadb);
    rg__buf_str(out, null || (c->flags & RG_COL_NULLABLE) ? " NULL" : " NOT NULL");
    write_default(out, t, column, mariadb);
    if (column == 0 && t->ids == RG_IDS_DATABASE) rg__buf_str(out, " AUTO_INCREMENT");
}

/* ---- indexes ---- */

void rg__ddl_write_index(rg__buf *out, const rg_type *t, const rg__index *x) {
    rg__buf_str(out, x->flags & RG_INDEX_UNIQUE ? "UNIQUE INDEX " : "INDEX ");
    rg__ddl_write_ident(out, x->name);
    for (uint32_t i = 0; i < x->n_columns; i++) {
        rg__buf_str(out, i ? "," : " (");
        rg__buf_str(out, t->columns[x->columns[i]].quoted);
    }
    rg__buf_char(out, ')');
}

/* ---- foreign keys ---- */

static uint32_t hash_name(const char *p, size_t len) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++) h = (h ^ (unsigned char)p[i]) * 16777619u;
    return h;
}

static size_t bytes_of_chars(const char *p, size_t len, size_t chars) {
    size_t at = 0;
    for (; at < len; at++) {
        bool first = ((unsigned char)p[at] & 0xC0) != 0x80;
        if (first && chars-- == 0) break;
    }
    return at;
}

void rg__ddl_write_fk_name(rg__buf *out, const rg_type *t, const rg__column *c) {
    size_t start = out->len;
    rg__buf_fmt(out, "fk_%s_%s", t->table, c->column);
    if (out->failed) return;
    const char *name = out->p + start;
    size_t len = out->len - start;
    if (bytes_of_chars(name, len, MAX_NAME_CHARS) == len) return;
    uint32_t hash = hash_name(name, len);
    out->len = start + bytes_of_chars(name, len, CUT_NAME_CHARS);
    rg__buf_fmt(out, "_%08x", hash);
}

void rg__ddl_write_fk(rg__buf *out, const rg_type *t, const rg__column *c, const rg_type *target) {
    rg__buf name = {0};
    rg__ddl_write_fk_name(&name, t, c);
    rg__buf_str(out, "CONSTRAINT ");
    rg__ddl_write_ident(out, rg__buf_cstr(&name));
    rg__buf_fmt(out, " FOREIGN KEY (%s) REFERENCES %s (%s) ON DELETE RESTRICT", c->quoted,
                target->quoted, target->columns[0].quoted);
    out->failed |= name.failed;
    rg__buf_deinit(&name);
}

/* ---- tables ---- */

void rg__ddl_write_create(rg__buf *out, const rg_type *t, bool mariadb) {
    rg__buf_fmt(out, "CREATE TABLE %s (\n", t->quoted);
    for (uint32_t i = 0; i < t->n_columns; i++) {
        rg__buf_str(out, "  ");
        rg__ddl_write_column(out, t, i, mariadb, false);
        rg__buf_str(out, ",\n");
    }
    rg__buf_fmt(out, "  PRIMARY KEY (%s)", t->columns[0].quoted);
    for (uint32_t i = 0; i < t->n_indexes; i++) {
        if (t->indexes[i].flags & RG_INDEX_VIRTUAL) continue;
        rg__buf_str(out, ",\n  ");
        rg__ddl_write_index(out, t, &t->indexes[i]);
    }
    rg__buf_str(out, "\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin");
}
