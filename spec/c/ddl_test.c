/* SPDX-License-Identifier: MIT */
/* DDL: types and defaults in every spelling, what is safe, foreign keys and their indexes, order. */
#include "unit.h"

#include "base/alloc.h"
#include "schema/ddl.h"
#include "schema/ddl_type.h"

/* ---- makers ---- */

static rg_type *make_type(const char *name) {
    rg_type_opts o = {.size = sizeof o, .name = name};
    return rg_type_new(&o, NULL);
}

static void add(rg_type *t, rg_column_opts o) {
    rg_err err = {0};
    o.size = sizeof o;
    if (!o.name) o.name = "a";
    if (!CHECK(rg_type_column(t, &o, &err) == RG_OK)) printf("# %s\n", err.message);
}

static void add_index(rg_type *t, const char *name, const char *list, uint32_t flags) {
    const char *columns[4];
    char copy[128];
    rg_index_opts o = {.size = sizeof o, .name = name, .columns = columns, .flags = flags};
    snprintf(copy, sizeof copy, "%s", list);
    for (char *p = strtok(copy, ","); p; p = strtok(NULL, ",")) columns[o.n_columns++] = p;
    CHECK(rg_type_index(t, &o, NULL) == RG_OK);
}

static void *grow(void *array, uint32_t n, size_t size) {
    char *p = rg__reallocarray(array, n + 1, size);
    memset(p + n * size, 0, size);
    return p;
}

static rg__live_column *live_column(rg__live_table *l, const char *name, const char *type) {
    l->columns = grow(l->columns, l->n_columns, sizeof *l->columns);
    rg__live_column *c = &l->columns[l->n_columns++];
    c->name = rg__strdup(name);
    c->type = rg__strdup(type);
    return c;
}

static void live_index(rg__live_table *l, const char *name, const char *list, bool unique) {
    char copy[128];
    l->indexes = grow(l->indexes, l->n_indexes, sizeof *l->indexes);
    rg__live_index *x = &l->indexes[l->n_indexes++];
    x->name = rg__strdup(name);
    x->unique = unique;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *p = strtok(copy, ","); p; p = strtok(NULL, ",")) {
        x->columns = grow(x->columns, x->n_columns, sizeof *x->columns);
        x->columns[x->n_columns++] = rg__strdup(p);
    }
}

static void live_fk(rg__live_table *l, const char *name, const char *column, const char *target,
                    const char *on_delete) {
    l->fks = grow(l->fks, l->n_fks, sizeof *l->fks);
    rg__live_fk k = {rg__strdup(name), rg__strdup(column), rg__strdup(target), rg__strdup("id"),
                     rg__strdup(on_delete)};
    l->fks[l->n_fks++] = k;
}

/* A table with rows, an id and nothing else. */
static rg__live_table live_table(const char *name) {
    rg__live_table l = {.name = rg__strdup(name), .engine = rg__strdup("InnoDB"), .exists = true};
    live_column(&l, "id", "bigint(20) unsigned");
    live_index(&l, "PRIMARY", "id", true);
    return l;
}

/* Diffs one type (taken) against a table (taken). */
static rg__ddl diff_with(rg_type *t, rg_type *other, rg__live_table *l, bool mariadb) {
    rg_type *types[2] = {t, other};
    rg__schema schema = {types, other ? 2 : 1};
    rg__ddl d = {0};
    rg_err err = {0};
    if (!CHECK(rg__ddl_diff(&schema, t, l, mariadb, &d, &err) == RG_OK)) printf("# %s\n", err.message);
    rg_type_free(t);
    rg_type_free(other);
    rg__live_table_deinit(l);
    return d;
}

static rg__ddl diff(rg_type *t, rg__live_table *l) { return diff_with(t, NULL, l, true); }

static void check_change(const rg__ddl *d, size_t i, bool safe, const char *sql) {
    REQUIRE(i < d->n);
    CHECK_STR(d->items[i].sql, sql);
    if (!CHECK_EQ_INT(d->items[i].safe, safe)) printf("# %s (%s)\n", sql, d->items[i].reason);
    CHECK(d->items[i].reason && *d->items[i].reason);
}

static void check_only(rg__ddl d, bool safe, const char *sql) {
    if (!CHECK_EQ_INT(d.n, 1))
        for (size_t i = 0; i < d.n; i++) printf("# %s -- %s\n", d.items[i].sql, d.items[i].reason);
    check_change(&d, 0, safe, sql);
    rg__ddl_deinit(&d);
}

static void check_none(rg__ddl d, const char *of) {
    if (!CHECK(d.n == 0)) printf("# %s: %s -- %s\n", of, d.items[0].sql, d.items[0].reason);
    rg__ddl_deinit(&d);
}

/* ---- tables ---- */

TEST(a_missing_table_is_created) {
    static const char *const states[] = {"it's", "a\\b"};
    rg_type *t = make_type("user");
    add(t, (rg_column_opts){.name = "email", .kind = RG_STRING, .length = 80,
                            .flags = RG_COL_REQUIRED});
    add(t, (rg_column_opts){.name = "note", .kind = RG_TEXT, .flags = RG_COL_NULLABLE});
    add(t, (rg_column_opts){.name = "state", .kind = RG_ENUM, .values = states, .n_values = 2});
    add(t, (rg_column_opts){.name = "tags", .kind = RG_JSON});
    add(t, (rg_column_opts){.name = "credit", .kind = RG_DECIMAL, .def = "1.5"});
    add(t, (rg_column_opts){.name = "raw", .kind = RG_BINARY, .length = 4, .def = "a'"});
    add_index(t, "email", "email", RG_INDEX_UNIQUE);
    add_index(t, "by`state", "state,email", 0);
    add_index(t, "all", "", RG_INDEX_VIRTUAL);
    rg__live_table l = {0};
    check_only(diff(t, &l), true,
               "CREATE TABLE `user` (\n"
               "  `id` bigint unsigned NOT NULL,\n"
               "  `email` varchar(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,\n"
               "  `note` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,\n"
               "  `state` enum('it''s','a\\\\b') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
               " DEFAULT 'it''s',\n"
               "  `tags` json NULL,\n"
               "  `credit` decimal(10,2) NOT NULL DEFAULT '1.5',\n"
               "  `raw` varbinary(4) NOT NULL DEFAULT X'6127',\n"
               "  PRIMARY KEY (`id`),\n"
               "  UNIQUE INDEX `email` (`email`),\n"
               "  INDEX `by``state` (`state`,`email`)\n"
               ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin");
}

TEST(ids_of_the_database_count_by_themselves) {
    rg_type_opts o = {.size = sizeof o, .name = "user", .ids = RG_IDS_DATABASE};
    rg__live_table l = live_table("user");
    check_only(diff(rg_type_new(&o, NULL), &l), true,
               "ALTER TABLE `user` MODIFY COLUMN `id` bigint unsigned NOT NULL AUTO_INCREMENT");
    l = live_table("user");
    l.columns[0].auto_increment = true;
    check_none(diff(rg_type_new(&o, NULL), &l), "same");
    l = live_table("user");
    l.columns[0].auto_increment = true;
    check_only(diff(make_type("user"), &l), false,
               "ALTER TABLE `user` MODIFY COLUMN `id` bigint unsigned NOT NULL");
}

TEST(the_engine_becomes_innodb) {
    rg__live_table l = live_table("user");
    rg__free(l.engine);
    l.engine = rg__strdup("Aria");
    check_only(diff(make_type("user"), &l), true, "ALTER TABLE `user` ENGINE=InnoDB");
}

TEST(the_primary_key_becomes_the_id) {
    rg__live_table l = {.name = rg__strdup("user"), .engine = rg__strdup("innodb"), .exists = true};
    live_column(&l, "number", "int(11)")->auto_increment = true;
    live_index(&l, "PRIMARY", "number", true);
    check_only(diff(make_type("user"), &l), false,
               "ALTER TABLE `user` DROP PRIMARY KEY, DROP COLUMN `number`, ADD COLUMN `id`"
               " bigint unsigned NOT NULL, ADD PRIMARY KEY (`id`)");
}

/* ---- spellings ---- */

static const char *const two[] = {"it's", "b"};
static const char *const wide[] = {"\xF0\x9F\x98\x80", "b"};
#define VALUES(v) .values = v, .n_values = 2

typedef struct spelling {
    rg_column_opts wanted;
    const char *type, *def;
    bool nullable;
    const char *collation;
    bool json_check;
    bool mysql;
} spelling;

/* clang-format off */
static const spelling spellings[] = {
    {{.kind = RG_BOOL}, .type = "tinyint(1)", .def = "0"},
    {{.kind = RG_BOOL, .def = "true"}, .type = "tinyint(1)", .def = "'1'", .mysql = true},
    {{.kind = RG_I8}, .type = "tinyint(4)", .def = "0"},
    {{.kind = RG_I8}, .type = "tinyint", .def = "'0'", .mysql = true},
    {{.kind = RG_U8}, .type = "tinyint(3) unsigned", .def = "0"},
    {{.kind = RG_U8}, .type = "tinyint unsigned", .def = "0"},
    {{.kind = RG_U8}, .type = "TINYINT(1) UNSIGNED", .def = "0"},
    {{.kind = RG_I16}, .type = "smallint(6)", .def = "0"},
    {{.kind = RG_I24}, .type = "mediumint", .def = "0"},
    {{.kind = RG_I32}, .type = "int(11)", .def = "0"},
    {{.kind = RG_I32}, .type = "integer", .def = "0"},
    {{.kind = RG_U32}, .type = "int(10) unsigned zerofill", .def = "0000000000"},
    {{.kind = RG_U32, .def = "+007"}, .type = "int unsigned", .def = "7"},
    {{.kind = RG_I64, .def = "-9"}, .type = "bigint(20)", .def = "-9"},
    {{.kind = RG_U64, .def = "18446744073709551615"}, .type = "bigint unsigned", .def = "18446744073709551615"},
    {{.kind = RG_U32, .flags = RG_COL_REQUIRED}, .type = "int(10) unsigned"},
    {{.kind = RG_U32, .flags = RG_COL_NULLABLE}, .type = "int(10) unsigned", .def = "NULL", .nullable = true},
    {{.kind = RG_U32, .flags = RG_COL_NULLABLE}, .type = "int(10) unsigned", .nullable = true},
    {{.kind = RG_U32, .flags = RG_COL_VERSION}, .type = "int(10) unsigned", .def = "0"},
    {{.kind = RG_FLOAT, .def = "16777217"}, .type = "float", .def = "16777200"},
    {{.kind = RG_FLOAT, .def = "-0"}, .type = "float", .def = "0"},
    {{.kind = RG_DOUBLE, .def = "0.1000000000000000055"}, .type = "double", .def = "0.1"},
    {{.kind = RG_DOUBLE, .def = "1e3"}, .type = "double", .def = "'1000'", .mysql = true},
    {{.kind = RG_DECIMAL, .precision = 12, .scale = 2}, .type = "decimal(12,2)", .def = "0.00"},
    {{.kind = RG_DECIMAL, .precision = 12}, .type = "decimal(12)", .def = "0"},
    {{.kind = RG_DECIMAL, .def = "-.5"}, .type = "decimal(10,2)", .def = "-0.50"},
    {{.kind = RG_DECIMAL, .def = "1.005"}, .type = "decimal(10,2)", .def = "1.01"},
    {{.kind = RG_DECIMAL, .def = "9.995e1"}, .type = "decimal(10,2)", .def = "99.95"},
    {{.kind = RG_I32, .def = "1e3"}, .type = "int(11)", .def = "1000"},
    {{.kind = RG_STRING, .length = 80}, .type = "varchar(80)", .def = "''", .collation = "utf8mb4_bin"},
    {{.kind = RG_STRING, .length = 80, .def = "it's \\"}, .type = "varchar(80)", .def = "'it''s \\\\'", .collation = "utf8mb4_bin"},
    {{.kind = RG_STRING, .length = 80, .def = "NULL"}, .type = "varchar(80)", .def = "'NULL'", .collation = "utf8mb4_bin"},
    {{.kind = RG_STRING, .length = 80, .def = "\xF0\x9F\x98\x80"}, .type = "varchar(80)", .def = "'?'", .collation = "utf8mb4_bin"},
    {{.kind = RG_STRING, .length = 80, .collation = "utf8mb4_general_ci"}, .type = "varchar(80)", .def = "''", .collation = "UTF8MB4_GENERAL_CI"},
    {{.kind = RG_TEXT}, .type = "text", .collation = "utf8mb4_bin"},
    {{.kind = RG_TEXT, .length = 65536}, .type = "mediumtext", .collation = "utf8mb4_bin"},
    {{.kind = RG_TEXT, .length = 16777216, .def = "x"}, .type = "longtext", .collation = "utf8mb4_bin"},
    {{.kind = RG_BINARY, .length = 9, .def = "ab"}, .type = "varbinary(9)", .def = "'ab'"},
    {{.kind = RG_BINARY, .length = 9, .def = "ab"}, .type = "varbinary(9)", .def = "x'6162'"},
    {{.kind = RG_BINARY, .length = 9, .def = "\xFF"}, .type = "varbinary(9)", .def = "0xFF", .mysql = true},
    {{.kind = RG_BINARY, .length = 9, .def = "\xFF"}, .type = "varbinary(9)", .def = "'?'"},
    {{.kind = RG_BLOB}, .type = "blob"},
    {{.kind = RG_BLOB, .flags = RG_COL_NULLABLE}, .type = "blob", .def = "NULL", .nullable = true},
    {{.kind = RG_ENUM, VALUES(two)}, .type = "enum('it''s','b')", .def = "'it''s'", .collation = "utf8mb4_bin"},
    {{.kind = RG_ENUM, VALUES(wide)}, .type = "enum('?','b')", .def = "'?'", .collation = "utf8mb4_bin"},
    {{.kind = RG_SET, VALUES(two), .def = "b,it's"}, .type = "set('it\\'s','b')", .def = "'it''s,b'", .collation = "utf8mb4_bin"},
    {{.kind = RG_DATE, .flags = RG_COL_CREATED}, .type = "date", .def = "'1970-01-01'"},
    {{.kind = RG_DATETIME, .def = "2026-01-31T12:00:00.5Z"}, .type = "datetime(6)", .def = "'2026-01-31 12:00:00.500000'"},
    {{.kind = RG_DATETIME, .def = "2026-01-31"}, .type = "datetime(6)", .def = "'2026-01-31 00:00:00.000000'"},
    {{.kind = RG_DATETIME}, .type = "datetime(6)"},
    {{.kind = RG_DATETIME, .def = "2026-01-31t12:00+0000"}, .type = "datetime(6)", .def = "'2026-01-31 12:00:00.000000'"},
    {{.kind = RG_TIME, .def = "-00:00"}, .type = "time(6)", .def = "'00:00:00.000000'"},
    {{.kind = RG_TIME, .def = "001:02:03.50"}, .type = "time(6)", .def = "'01:02:03.500000'"},
    {{.kind = RG_TIME, .def = "-1:02:03"}, .type = "time(6)", .def = "'-01:02:03.000000'"},
    {{.kind = RG_JSON}, .type = "json", .nullable = true, .mysql = true},
    {{.kind = RG_JSON}, .type = "longtext", .def = "NULL", .nullable = true, .collation = "utf8mb4_bin", .json_check = true},
    {{.kind = RG_REFS, .target = "user"}, .type = "longtext", .collation = "utf8mb4_bin", .json_check = true},
    {{.kind = RG_REF, .target = "user"}, .type = "bigint(20) unsigned", .def = "NULL", .nullable = true},
};
/* clang-format on */

static rg__live_table live_of(const spelling *s) {
    rg__live_table l = live_table("user");
    rg__live_column *c = live_column(&l, "a", s->type);
    c->nullable = s->nullable;
    c->def = rg__strdup(s->def);
    c->collation = rg__strdup(s->collation);
    c->json_check = s->json_check;
    return l;
}

TEST(every_spelling_of_the_same_is_the_same) {
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        const spelling *s = &spellings[i];
        rg_type *t = make_type("user");
        add(t, s->wanted);
        rg__live_table l = live_of(s);
        check_none(diff_with(t, NULL, &l, !s->mysql), s->type);
    }
}

TEST(numbers_have_one_form) {
    static const struct {
        const char *text, *form;
        uint32_t decimals;
    } cases[] = {
        {"0", "0", 2},         {"-0.00", "0", 2},   {"+007.50", "7.5", 2}, {".5", "0.5", 2},
        {"0.005", "0.01", 2},  {"0.5", "1", 0},     {"0.4", "0", 0},       {"9.999", "10", 2},
        {"-99.995", "-100", 2}, {"1e3", "1000", 0}, {"12e-3", "0.012", 5}, {"0.0001", "0", 2},
        {"100", "100", 0},     {"1.20e1", "12", 2}, {"x", "x", 2},         {"1x", "1x", 2},
        {"", "", 0},           {"-", "-", 0},       {"5e", "5e", 0},       {"1e99999", "1e99999", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rg__buf out = {0};
        rg__sql_write_number(&out, cases[i].text, cases[i].decimals);
        CHECK_STR(rg__buf_cstr(&out), cases[i].form);
        rg__buf_deinit(&out);
    }
}

TEST(names_know_no_case_and_columns_no_order) {
    rg_type *t = make_type("user");
    add(t, (rg_column_opts){.name = "a", .kind = RG_U8});
    add(t, (rg_column_opts){.name = "b", .kind = RG_U8});
    add_index(t, "ByA", "a", 0);
    rg__live_table l = live_table("user");
    live_column(&l, "B", "tinyint(3) unsigned")->def = rg__strdup("0");
    live_column(&l, "a", "tinyint(3) unsigned")->def = rg__strdup("0");
    live_index(&l, "bya", "A", false);
    check_none(diff(t, &l), "same");
}

/* ---- changes of a column ---- */

static const char *const abc[] = {"a", "b", "c"};

typedef struct step_case {
    spelling s;
    bool safe;
    const char *sql; /* behind MODIFY COLUMN `a` */
} step_case;

#define BIN " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
#define REQ .flags = RG_COL_REQUIRED
/* clang-format off */
static const step_case step_cases[] = {
    {{{.kind = RG_I64, REQ}, .type = "int(11)"}, true, "bigint NOT NULL"},
    {{{.kind = RG_I16, REQ}, .type = "int(11)"}, false, "smallint NOT NULL"},
    {{{.kind = RG_U64, REQ}, .type = "int(11)"}, false, "bigint unsigned NOT NULL"},
    {{{.kind = RG_I64, REQ}, .type = "int(10) unsigned"}, false, "bigint NOT NULL"},
    {{{.kind = RG_I8, REQ}, .type = "tinyint(1)"}, true, "tinyint NOT NULL"},
    {{{.kind = RG_BOOL, REQ}, .type = "tinyint(4)"}, false, "tinyint(1) NOT NULL"},
    {{{.kind = RG_DOUBLE, REQ}, .type = "float"}, false, "double NOT NULL"},
    {{{.kind = RG_DECIMAL, .precision = 12, .scale = 3, REQ}, .type = "decimal(10,2)"}, true, "decimal(12,3) NOT NULL"},
    {{{.kind = RG_DECIMAL, .precision = 12, .scale = 5, REQ}, .type = "decimal(10,2)"}, false, "decimal(12,5) NOT NULL"},
    {{{.kind = RG_DECIMAL, .precision = 10, .scale = 2, REQ}, .type = "decimal(10,2) unsigned"}, false, "decimal(10,2) NOT NULL"},
    {{{.kind = RG_STRING, .length = 90, REQ}, .type = "varchar(80)", .collation = "utf8mb4_bin"}, true, "varchar(90)" BIN " NOT NULL"},
    {{{.kind = RG_STRING, .length = 70, REQ}, .type = "varchar(80)", .collation = "utf8mb4_bin"}, false, "varchar(70)" BIN " NOT NULL"},
    {{{.kind = RG_STRING, .length = 90, REQ}, .type = "varchar(80)", .collation = "latin1_swedish_ci"}, false, "varchar(90)" BIN " NOT NULL"},
    {{{.kind = RG_STRING, .length = 80, REQ}, .type = "char(80)", .collation = "utf8mb4_bin"}, false, "varchar(80)" BIN " NOT NULL"},
    {{{.kind = RG_TEXT, .length = 70000}, .type = "text", .collation = "utf8mb4_bin"}, true, "mediumtext" BIN " NOT NULL"},
    {{{.kind = RG_TEXT}, .type = "mediumtext", .collation = "utf8mb4_bin"}, false, "text" BIN " NOT NULL"},
    {{{.kind = RG_TEXT}, .type = "blob"}, false, "text" BIN " NOT NULL"},
    {{{.kind = RG_BLOB, .length = 70000}, .type = "blob"}, true, "mediumblob NOT NULL"},
    {{{.kind = RG_BINARY, .length = 8, REQ}, .type = "varbinary(4)"}, true, "varbinary(8) NOT NULL"},
    {{{.kind = RG_ENUM, .values = abc, .n_values = 3, REQ}, .type = "enum('a','b')", .collation = "utf8mb4_bin"}, true, "enum('a','b','c')" BIN " NOT NULL"},
    {{{.kind = RG_ENUM, .values = abc, .n_values = 2, REQ}, .type = "enum('a','b','c')", .collation = "utf8mb4_bin"}, false, "enum('a','b')" BIN " NOT NULL"},
    {{{.kind = RG_ENUM, .values = abc, .n_values = 2, REQ}, .type = "enum('b','a')", .collation = "utf8mb4_bin"}, false, "enum('a','b')" BIN " NOT NULL"},
    {{{.kind = RG_SET, .values = abc, .n_values = 3, REQ}, .type = "set('a','b')", .collation = "utf8mb4_bin"}, true, "set('a','b','c')" BIN " NOT NULL"},
    {{{.kind = RG_DATETIME, REQ}, .type = "datetime"}, true, "datetime(6) NOT NULL"},
    {{{.kind = RG_DATETIME, REQ}, .type = "timestamp"}, false, "datetime(6) NOT NULL"},
    {{{.kind = RG_JSON}, .type = "longtext", .nullable = true, .collation = "utf8mb4_bin"}, false, "json NULL"},
    {{{.kind = RG_U8}, .type = "tinyint(3) unsigned", .def = "1"}, true, "tinyint unsigned NOT NULL DEFAULT '0'"},
    {{{.kind = RG_U8, REQ}, .type = "tinyint(3) unsigned", .def = "0"}, true, "tinyint unsigned NOT NULL"},
    {{{.kind = RG_U8, .flags = RG_COL_NULLABLE}, .type = "tinyint(3) unsigned"}, true, "tinyint unsigned NULL"},
    {{{.kind = RG_U8, REQ}, .type = "tinyint(3) unsigned", .nullable = true}, false, "tinyint unsigned NOT NULL"},
    {{{.kind = RG_DATETIME, .def = "2026-01-31"}, .type = "datetime(6)", .def = "current_timestamp(6)"}, true, "datetime(6) NOT NULL DEFAULT '2026-01-31 00:00:00'"},
    {{{.kind = RG_STRING, .length = 40, .def = "uuid()"}, .type = "varchar(40)", .def = "uuid()", .collation = "utf8mb4_bin"}, true, "varchar(40)" BIN " NOT NULL DEFAULT 'uuid()'"},
    {{{.kind = RG_BINARY, .length = 4, .def = "\xFE"}, .type = "varbinary(4)", .def = "0xFF"}, true, "varbinary(4) NOT NULL DEFAULT X'FE'"},
    {{{.kind = RG_U8, REQ}, .type = "uuid"}, false, "tinyint unsigned NOT NULL"},
};
/* clang-format on */

TEST(what_keeps_every_value_is_safe) {
    for (size_t i = 0; i < sizeof step_cases / sizeof *step_cases; i++) {
        const step_case *s = &step_cases[i];
        for (int empty = 0; empty < 2; empty++) {
            char sql[256];
            rg_type *t = make_type("user");
            add(t, s->s.wanted);
            rg__live_table l = live_of(&s->s);
            l.empty = empty;
            snprintf(sql, sizeof sql, "ALTER TABLE `user` MODIFY COLUMN `a` %s", s->sql);
            check_only(diff(t, &l), s->safe || empty, sql);
        }
    }
}

TEST(not_null_is_a_change_of_its_own) {
    rg_type *t = make_type("user");
    add(t, (rg_column_opts){.name = "a", .kind = RG_U16});
    rg__live_table l = live_table("user");
    live_column(&l, "a", "tinyint(3) unsigned")->nullable = true;
    rg__ddl d = diff(t, &l);
    CHECK_EQ_INT(d.n, 2);
    check_change(&d, 0, true, "ALTER TABLE `user` MODIFY COLUMN `a` smallint unsigned NULL DEFAULT '0'");
    check_change(&d, 1, false,
                 "ALTER TABLE `user` MODIFY COLUMN `a` smallint unsigned NOT NULL DEFAULT '0'");
    rg__ddl_deinit(&d);
}

TEST(columns_are_added_and_dropped) {
    rg_type *t = make_type("user");
    add(t, (rg_column_opts){.name = "a", .kind = RG_U8, .flags = RG_COL_REQUIRED});
    add(t, (rg_column_opts){.name = "b", .kind = RG_U8});
    add(t, (rg_column_opts){.name = "c", .kind = RG_JSON});
    add(t, (rg_column_opts){.name = "d", .kind = RG_TEXT});
    rg__live_table l = live_table("user");
    live_column(&l, "o`ld", "int");
    rg__ddl d = diff(t, &l);
    CHECK_EQ_INT(d.n, 5);
    check_change(&d, 0, false, "ALTER TABLE `user` ADD COLUMN `a` tinyint unsigned NOT NULL");
    check_change(&d, 1, true, "ALTER TABLE `user` ADD COLUMN `b` tinyint unsigned NOT NULL DEFAULT '0'");
    check_change(&d, 2, true, "ALTER TABLE `user` ADD COLUMN `c` json NULL");
    check_change(&d, 3, false, "ALTER TABLE `user` ADD COLUMN `d` text" BIN " NOT NULL");
    check_change(&d, 4, false, "ALTER TABLE `user` DROP COLUMN `o``ld`");
    CHECK_STR(d.items[4].kind, "drop column");
    CHECK_STR(d.items[4].table, "user");
    rg__ddl_deinit(&d);
}

/* ---- indexes ---- */

static rg_type *type_ab(void) {
    rg_type *t = make_type("user");
    add(t, (rg_column_opts){.name = "a", .kind = RG_U8});
    add(t, (rg_column_opts){.name = "b", .kind = RG_U8});
    return t;
}

static rg__live_table live_ab(void) {
    rg__live_table l = live_table("user");
    live_column(&l, "a", "tinyint unsigned")->def = rg__strdup("0");
    live_column(&l, "b", "tinyint unsigned")->def = rg__strdup("0");
    return l;
}

TEST(indexes_are_added_swapped_and_dropped) {
    rg_type *t = type_ab();
    add_index(t, "plain", "a", 0);
    add_index(t, "once", "b", RG_INDEX_UNIQUE);
    add_index(t, "same", "a,b", 0);
    add_index(t, "wider", "b,a", 0);
    add_index(t, "sharp", "a", RG_INDEX_UNIQUE);
    add_index(t, "list", "", RG_INDEX_VIRTUAL);
    rg__live_table l = live_ab();
    live_index(&l, "same", "a,b", false);
    live_index(&l, "wider", "b", false);
    live_index(&l, "sharp", "a", false);
    live_index(&l, "list", "a", false);
    live_index(&l, "old", "b", true);
    rg__ddl d = diff(t, &l);
    CHECK_EQ_INT(d.n, 6);
    check_change(&d, 0, true, "ALTER TABLE `user` DROP INDEX `list`");
    check_change(&d, 1, true, "ALTER TABLE `user` DROP INDEX `old`");
    CHECK(strstr(d.items[1].reason, "unique") != NULL);
    check_change(&d, 2, true, "ALTER TABLE `user` DROP INDEX `wider`, ADD INDEX `wider` (`b`,`a`)");
    check_change(&d, 3, false, "ALTER TABLE `user` DROP INDEX `sharp`, ADD UNIQUE INDEX `sharp` (`a`)");
    check_change(&d, 4, true, "ALTER TABLE `user` ADD INDEX `plain` (`a`)");
    check_change(&d, 5, false, "ALTER TABLE `user` ADD UNIQUE INDEX `once` (`b`)");
    rg__ddl_deinit(&d);
}

TEST(an_index_that_is_not_on_whole_columns_differs) {
    rg_type *t = type_ab();
    add_index(t, "x", "a", 0);
    rg__live_table l = live_ab();
    live_index(&l, "x", "a(1)", false);
    rg__ddl d = diff(t, &l);
    CHECK_EQ_INT(d.n, 2);
    rg__ddl_deinit(&d);
}

TEST(an_index_goes_before_its_columns_change) {
    rg_type *t = make_type("user");
    add(t, (rg_column_opts){.name = "a", .kind = RG_U16});
    add_index(t, "x", "a", 0);
    rg__live_table l = live_ab();
    live_index(&l, "x", "a,b", false);
    rg__ddl d = diff(t, &l);
    CHECK_EQ_INT(d.n, 4);
    check_change(&d, 0, true, "ALTER TABLE `user` DROP INDEX `x`");
    check_change(&d, 1, true,
                 "ALTER TABLE `user` MODIFY COLUMN `a` smallint unsigned NOT NULL DEFAULT '0'");
    check_change(&d, 2, false, "ALTER TABLE `user` DROP COLUMN `b`");
    check_change(&d, 3, true, "ALTER TABLE `user` ADD INDEX `x` (`a`)");
    rg__ddl_deinit(&d);
}

TEST(what_builds_on_an_unsafe_change_is_unsafe) {
    rg_type *t = type_ab();
    add(t, (rg_column_opts){.name = "c", .kind = RG_U8, .flags = RG_COL_REQUIRED});
    add_index(t, "x", "c", 0);
    rg__live_table l = live_ab();
    rg__ddl d = diff(t, &l);
    CHECK_EQ_INT(d.n, 2);
    check_change(&d, 0, false, "ALTER TABLE `user` ADD COLUMN `c` tinyint unsigned NOT NULL");
    check_change(&d, 1, false, "ALTER TABLE `user` ADD INDEX `x` (`c`)");
    rg__ddl_deinit(&d);
}

/* ---- foreign keys ---- */

static rg_type *type_with_team(const char *name, int foreign_key) {
    rg_type *t = make_type(name);
    add(t, (rg_column_opts){.name = "team", .kind = RG_REF, .target = "team",
                            .foreign_key = foreign_key});
    add(t, (rg_column_opts){.name = "b", .kind = RG_U8});
    return t;
}

static rg__live_table live_with_team(const char *type) {
    rg__live_table l = live_table("user");
    live_column(&l, "team", type)->nullable = true;
    live_column(&l, "b", "tinyint unsigned")->def = rg__strdup("0");
    return l;
}

static rg__ddl diff_team(rg_type *t, rg__live_table *l) {
    return diff_with(t, make_type("team"), l, true);
}

#define ADD_FK "ALTER TABLE `user` ADD CONSTRAINT `fk_user_team` FOREIGN KEY (`team`) REFERENCES" \
               " `team` (`id`) ON DELETE RESTRICT"

TEST(a_new_table_gets_its_foreign_keys_after_all_tables) {
    rg__live_table l = {0};
    rg__ddl d = diff_team(type_with_team("user", 1), &l);
    CHECK_EQ_INT(d.n, 2);
    CHECK_STR(d.items[0].kind, "create table");
    check_change(&d, 1, true, ADD_FK);
    rg__ddl_deinit(&d);
    l = (rg__live_table){0};
    d = diff_team(type_with_team("user", 0), &l);
    CHECK_EQ_INT(d.n, 1);
    rg__ddl_deinit(&d);
}

TEST(foreign_keys_are_added_kept_and_dropped) {
    rg__live_table l = live_with_team("bigint unsigned");
    check_only(diff_team(type_with_team("user", 1), &l), false, ADD_FK);
    l = live_with_team("bigint unsigned");
    live_fk(&l, "user_ibfk_1", "team", "Team", "NO ACTION");
    live_index(&l, "user_ibfk_1", "team", false);
    check_none(diff_team(type_with_team("user", 1), &l), "kept");
    l = live_with_team("bigint unsigned");
    live_fk(&l, "fk_user_team", "team", "team", "RESTRICT");
    live_index(&l, "fk_user_team", "team", false);
    rg__ddl d = diff_team(type_with_team("user", 0), &l);
    CHECK_EQ_INT(d.n, 2);
    check_change(&d, 0, true, "ALTER TABLE `user` DROP FOREIGN KEY `fk_user_team`");
    check_change(&d, 1, true, "ALTER TABLE `user` DROP INDEX `fk_user_team`");
    rg__ddl_deinit(&d);
}

TEST(another_foreign_key_is_replaced) {
    rg__live_table l = live_with_team("bigint unsigned");
    live_fk(&l, "pair", "team", "team", "RESTRICT");
    live_fk(&l, "pair", "b", "team", "RESTRICT");
    live_fk(&l, "z", "team", "team", "CASCADE");
    rg__ddl d = diff_team(type_with_team("user", 1), &l);
    CHECK_EQ_INT(d.n, 3);
    check_change(&d, 0, true, "ALTER TABLE `user` DROP FOREIGN KEY `pair`");
    check_change(&d, 1, true, "ALTER TABLE `user` DROP FOREIGN KEY `z`");
    check_change(&d, 2, false, ADD_FK);
    rg__ddl_deinit(&d);
}

TEST(a_foreign_key_steps_aside_while_its_column_changes_type) {
    rg__live_table l = live_with_team("int unsigned");
    live_fk(&l, "fk_user_team", "team", "team", "RESTRICT");
    live_index(&l, "fk_user_team", "team", false);
    rg__ddl d = diff_team(type_with_team("user", 1), &l);
    CHECK_EQ_INT(d.n, 3);
    check_change(&d, 0, true, "ALTER TABLE `user` DROP FOREIGN KEY `fk_user_team`");
    check_change(&d, 1, true, "ALTER TABLE `user` MODIFY COLUMN `team` bigint unsigned NULL");
    check_change(&d, 2, true, ADD_FK);
    rg__ddl_deinit(&d);
    l = live_with_team("int");
    live_fk(&l, "fk_user_team", "team", "team", "RESTRICT");
    d = diff_team(type_with_team("user", 1), &l);
    CHECK_EQ_INT(d.n, 3);
    for (size_t i = 0; i < d.n; i++) CHECK(!d.items[i].safe);
    rg__ddl_deinit(&d);
}

TEST(a_foreign_key_never_loses_its_index) {
    rg__live_table l = live_with_team("bigint unsigned");
    live_fk(&l, "fk_user_team", "team", "team", "RESTRICT");
    live_index(&l, "by_team", "team", false);
    check_none(diff_team(type_with_team("user", 1), &l), "the only one stays");
    l = live_with_team("bigint unsigned");
    live_fk(&l, "fk_user_team", "team", "team", "RESTRICT");
    live_index(&l, "by_team", "team,b", false);
    live_index(&l, "by_team2", "team,b", false);
    rg__ddl d = diff_team(type_with_team("user", 1), &l);
    CHECK_EQ_INT(d.n, 2);
    check_change(&d, 0, true, "ALTER TABLE `user` DROP INDEX `by_team`, ADD INDEX `fk_user_team` (`team`)");
    check_change(&d, 1, true, "ALTER TABLE `user` DROP INDEX `by_team2`");
    rg__ddl_deinit(&d);
    l = live_with_team("bigint unsigned");
    live_fk(&l, "fk_user_team", "team", "team", "RESTRICT");
    live_index(&l, "by_team", "team", false);
    rg_type *t = type_with_team("user", 1);
    add_index(t, "pair", "team,b", 0);
    d = diff_team(t, &l);
    CHECK_EQ_INT(d.n, 2);
    check_change(&d, 0, true, "ALTER TABLE `user` ADD INDEX `pair` (`team`,`b`)");
    check_change(&d, 1, true, "ALTER TABLE `user` DROP INDEX `by_team`");
    rg__ddl_deinit(&d);
}

TEST(long_names_of_foreign_keys_are_cut_and_stay_distinct) {
    static const char table[] = "a_table_with_a_name_that_is_really_rather_long_indeed_yes";
    char name[2][128];
    for (int i = 0; i < 2; i++) {
        rg_type *t = make_type(table);
        add(t, (rg_column_opts){.name = i ? "team_of_home" : "team_of_hosts", .kind = RG_REF,
                                .target = "team", .foreign_key = 1});
        rg__live_table l = {0};
        rg__ddl d = diff_team(t, &l);
        REQUIRE(d.n == 2);
        const char *at = strstr(d.items[1].sql, "CONSTRAINT `");
        REQUIRE(at && sscanf(at, "CONSTRAINT `%127[^`]", name[i]) == 1);
        CHECK_EQ_INT(strlen(name[i]), 64);
        rg__ddl_deinit(&d);
    }
    CHECK(strcmp(name[0], name[1]) != 0);
}

/* ---- many tables, bad input, no memory ---- */

TEST(sorting_keeps_the_order_of_equals) {
    rg__ddl_change items[5] = {{.order = 2, .safe = true}, {.order = 0}, {.order = 2}, {.order = 1},
                               {.order = 0, .safe = true}};
    rg__ddl d = {items, 5, 5};
    rg__ddl_sort(&d);
    int orders[5] = {0, 0, 1, 2, 2};
    for (size_t i = 0; i < 5; i++) CHECK_EQ_INT(items[i].order, orders[i]);
    CHECK(!items[0].safe && items[1].safe && items[3].safe && !items[4].safe);
}

TEST(types_that_make_no_sense_are_read_to_their_end) {
    static const char *const texts[] = {"", "(", "enum(", "enum('", "enum('a", "enum('a'", "enum('a',",
                                        "enum('a\\", "set()", "decimal(", "decimal(1,", "int(x)",
                                        "varchar(99999999999999999999)", "a b c collate", "((((", "'",
                                        "point", "int unsigned unsigned /* x */"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        rg__sql_type a, b;
        CHECK(rg__sql_type_parse(&a, texts[i], NULL, false) == RG_OK);
        CHECK(rg__sql_type_parse(&b, texts[i], NULL, false) == RG_OK);
        CHECK(rg__sql_type_step(&a, &b) == RG__TYPE_SAME);
        rg__sql_type_deinit(&a);
        rg__sql_type_deinit(&b);
    }
}

TEST(running_out_of_memory_leaves_the_list_alone) {
    rg__live_table l = live_with_team("int unsigned");
    live_column(&l, "old", "enum('a','b')")->def = rg__strdup("'a'");
    live_fk(&l, "fk_user_team", "team", "team", "RESTRICT");
    live_index(&l, "by_team", "team,old", false);
    rg_type *t = type_with_team("user", 1), *team = make_type("team");
    add(t, (rg_column_opts){.name = "f", .kind = RG_FLOAT, .def = "1.5"});
    add(t, (rg_column_opts){.name = "s", .kind = RG_STRING, .def = "x"});
    add_index(t, "by_team", "team", RG_INDEX_UNIQUE);
    rg_type *types[2] = {t, team};
    rg__schema schema = {types, 2};
    int rc = RG_ENO_MEMORY;
    for (long n = 1; rc != RG_OK && n < 10000; n++) {
        rg__ddl d = {0};
        rg__alloc_fail_at(n, 0);
        rc = rg__ddl_diff(&schema, t, &l, true, &d, NULL);
        rg__alloc_fail_at(0, 0);
        CHECK(rc == RG_OK || (rc == RG_ENO_MEMORY && d.n == 0));
        rg__ddl_deinit(&d);
    }
    CHECK(rc == RG_OK);
    rg__live_table_deinit(&l);
    rg_type_free(t);
    rg_type_free(team);
}

UNIT_MAIN
