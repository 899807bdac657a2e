/* SPDX-License-Identifier: MIT */
/* Introspection and DDL on a real server (REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB): every kind comes
 * back as it was made, and random pairs of types become each other (REGOLITH_PAIRS: how many). */
#include "unit.h"

#include "base/alloc.h"
#include "mysql/introspect.h"

enum { PAIRS = 160, MAX_VALUES = 6 };

static rg__mysql_pool *pool;
static rg__mysql *conn;
static rg__ctx ctx = {.deadline_ms = RG__NO_DEADLINE};

/* ---- the server ---- */

static bool connect_server(const char *path, const char *database) {
    rg_pool_opts o = {.size = sizeof o, .unix_path = path, .user = "root", .database = database};
    rg_err err = {0};
    rg__mysql_library(&err);
    pool = rg__mysql_pool_new(&o, &err);
    ctx.deadline_ms = RG__NO_DEADLINE;
    if (pool && rg__mysql_acquire(pool, &ctx, &conn, &err) == RG_OK) return true;
    printf("# %s\n", err.message);
    return false;
}

static bool run(const char *sql) {
    rg_err err = {0};
    if (rg__mysql_exec(conn, &ctx, sql, strlen(sql), NULL, &err) == RG_OK) return true;
    printf("# %s\n#   %s\n", sql, err.message);
    return false;
}

static bool is_mariadb(void) { return rg__mysql_flavour(conn) == RG__MARIADB; }

static void drop_tables(void) {
    CHECK(run("SET foreign_key_checks = 0"));
    CHECK(run("DROP TABLE IF EXISTS rgt_item, rgt_team, rgt_town, rgt_other, RGT_ITEM"));
    CHECK(run("DROP VIEW IF EXISTS rgt_view"));
    CHECK(run("SET foreign_key_checks = 1"));
}

/* ---- schemas ---- */

static rg_type *make_type(const char *name, int ids) {
    rg_type_opts o = {.size = sizeof o, .name = name, .ids = ids};
    return rg_type_new(&o, NULL);
}

static void add(rg_type *t, rg_column_opts o) {
    rg_err err = {0};
    o.size = sizeof o;
    if (!CHECK(rg_type_column(t, &o, &err) == RG_OK)) printf("# %s\n", err.message);
}

/* Takes the type; with it come the tables that it refers to. */
static rg__schema schema_of(rg_type *item) {
    rg__schema s = {0};
    rg_err err = {0};
    rg_type *types[3] = {item, make_type("rgt_team", RG_IDS_BLOCK), make_type("rgt_town", RG_IDS_DATABASE)};
    for (int i = 0; i < 3; i++) {
        if (!CHECK(rg_type_freeze(types[i], &err) == RG_OK)) printf("# %s\n", err.message);
        types[i]->mysql_pool = 0;
        CHECK(rg__schema_add(&s, types[i], &err) == RG_OK);
    }
    CHECK(rg__schema_resolve(&s, &err) == RG_OK);
    return s;
}

static rg__ddl diff(const rg__schema *s) {
    rg__ddl d = {0};
    rg_err err = {0};
    if (!CHECK(rg__introspect_diff(conn, &ctx, s, 0, &d, &err) == RG_OK)) printf("# %s\n", err.message);
    return d;
}

static void print_changes(const rg__ddl *d) {
    for (size_t i = 0; i < d->n; i++)
        printf("#   %s %s -- %s\n", d->items[i].safe ? "safe  " : "unsafe", d->items[i].sql,
               d->items[i].reason);
}

/* Runs the changes, or only the safe ones; false when one fails. */
static bool apply(const rg__ddl *d, bool safe_only) {
    for (size_t i = 0; i < d->n; i++) {
        if (safe_only && !d->items[i].safe) continue;
        if (run(d->items[i].sql)) continue;
        print_changes(d);
        return false;
    }
    return true;
}

static bool check_none(const rg__schema *s) {
    rg__ddl d = diff(s);
    bool none = CHECK_EQ_INT(d.n, 0);
    print_changes(&d);
    rg__ddl_deinit(&d);
    return none;
}

static bool bring(const rg__schema *s) {
    rg__ddl d = diff(s);
    bool ok = CHECK(apply(&d, false));
    rg__ddl_deinit(&d);
    return check_none(s) && ok;
}

/* ---- every kind ---- */

static const char *const words[] = {"it's", "a\\b", "say \"x\"", "\xC3\xA9", "\xF0\x9F\x98\x80", "new\nline"};

static const char *const defaults[RG_KIND_END][3] = {
    [RG_BOOL] = {"1", "false", "true"},
    [RG_I8] = {"-128", "7", "+5"},
    [RG_I16] = {"-32768", "0", "12"},
    [RG_I24] = {"-8388608", "+5", "8388607"},
    [RG_I32] = {"-2147483648", "7", "0"},
    [RG_I64] = {"-9223372036854775808", "9223372036854775807", "3"},
    [RG_U8] = {"255", "0", "9"},
    [RG_U16] = {"65535", "0", "9"},
    [RG_U24] = {"16777215", "0", "9"},
    [RG_U32] = {"4294967295", "0", "9"},
    [RG_U64] = {"18446744073709551615", "9007199254740993", "0"},
    [RG_FLOAT] = {"0.1", "16777217", "-1.5e10"},
    [RG_DOUBLE] = {"0.1", "1e308", "-123456789.123456789"},
    [RG_DECIMAL] = {"1.5", "-0", "0.05"},
    [RG_STRING] = {"it's \\ \"x\"\n%", "\xF0\x9F\x98\x80 \xC3\xA9", " NULL "},
    [RG_TEXT] = {"ignored", "x", "y"},
    [RG_BINARY] = {"ab'\\", "\xFF\xFE", "0x41"},
    [RG_BLOB] = {"ignored", "x", "y"},
    [RG_DATE] = {"2026-01-31", "1970-01-01", "9999-12-31"},
    [RG_DATETIME] = {"2026-01-31T12:00:00.5Z", "2026-01-31", "1999-12-31 23:59:59.999999"},
    [RG_TIME] = {"-12:30:00", "1:02:03.25", "838:59:59"},
    [RG_JSON] = {"{}", "[]", "1"},
};

static rg_column_opts kind_opts(int kind) {
    rg_column_opts o = {.kind = kind};
    if (kind == RG_ENUM || kind == RG_SET) {
        o.values = words;
        o.n_values = MAX_VALUES;
    }
    if (kind == RG_REF || kind == RG_REFS) o.target = "rgt_team";
    if (kind == RG_STRING || kind == RG_BINARY) o.length = 40;
    return o;
}

static void add_kind(rg_type *t, int kind, uint32_t flags, const char *def) {
    char name[32];
    rg_column_opts o = kind_opts(kind);
    snprintf(name, sizeof name, "c%u", t->n_columns);
    o.name = name;
    o.flags = flags;
    o.def = def;
    add(t, o);
}

TEST(every_kind_comes_back_as_it_was_made) {
    drop_tables();
    rg_type *t = make_type("rgt_item", RG_IDS_DATABASE);
    for (int kind = 1; kind < RG_KIND_END; kind++) {
        add_kind(t, kind, 0, NULL);
        add_kind(t, kind, RG_COL_NULLABLE, NULL);
        add_kind(t, kind, RG_COL_REQUIRED, NULL);
        for (int i = 0; i < 3 && defaults[kind][i]; i++)
            add_kind(t, kind, i == 1 ? RG_COL_NULLABLE : 0, defaults[kind][i]);
    }
    add_kind(t, RG_ENUM, 0, words[4]);
    add_kind(t, RG_ENUM, RG_COL_NULLABLE, words[1]);
    add_kind(t, RG_SET, 0, "say \"x\",it's,a\\b");
    add_kind(t, RG_DATETIME, RG_COL_CREATED, NULL);
    rg__schema s = schema_of(t);
    bring(&s);
    rg__schema_deinit(&s);
}

TEST(sizes_and_collations_come_back_as_they_were_made) {
    drop_tables();
    rg_type *t = make_type("rgt_item", RG_IDS_BLOCK);
    static const uint32_t lengths[] = {1, 65535, 65536, 16777215, 16777216};
    char name[32];
    for (uint32_t i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "t%u", i);
        add(t, (rg_column_opts){.name = name, .kind = RG_TEXT, .length = lengths[i]});
        name[0] = 'b';
        add(t, (rg_column_opts){.name = name, .kind = RG_BLOB, .length = lengths[i]});
    }
    add(t, (rg_column_opts){.name = "d1", .kind = RG_DECIMAL, .precision = 65, .scale = 30});
    add(t, (rg_column_opts){.name = "d2", .kind = RG_DECIMAL, .precision = 1});
    add(t, (rg_column_opts){.name = "s1", .kind = RG_STRING, .collation = "utf8mb4_general_ci"});
    add(t, (rg_column_opts){.name = "s2", .kind = RG_TEXT, .collation = "utf8mb4_unicode_ci"});
    add(t, (rg_column_opts){.name = "we`ird [x]", .column = "we`ird x", .kind = RG_JSON});
    rg__schema s = schema_of(t);
    bring(&s);
    rg__schema_deinit(&s);
}

/* ---- what a table of others looks like ---- */

TEST(other_tables_are_left_alone) {
    drop_tables();
    CHECK(run("CREATE TABLE rgt_other (a INT, b TEXT, FULLTEXT (b)) ENGINE=InnoDB"));
    rg__schema s = schema_of(make_type("rgt_item", RG_IDS_BLOCK));
    rg__ddl d = diff(&s);
    CHECK_EQ_INT(d.n, 3);
    CHECK_STR(d.items[0].table, "rgt_item");
    rg__ddl_deinit(&d);
    d = (rg__ddl){0};
    CHECK(rg__introspect_diff(conn, &ctx, &s, 1, &d, NULL) == RG_OK && d.n == 0);
    rg__schema_deinit(&s);
}

TEST(a_table_whose_name_differs_in_case_is_another_one) {
    drop_tables();
    CHECK(run("CREATE TABLE RGT_ITEM (x INT, y INT, KEY (x))"));
    rg__live_table live;
    CHECK(rg__introspect_table(conn, &ctx, "rgt_item", &live, NULL) == RG_OK);
    CHECK(!live.exists && live.n_columns == 0);
    rg__live_table_deinit(&live);
    CHECK(run("CREATE TABLE rgt_item (id INT PRIMARY KEY)"));
    CHECK(rg__introspect_table(conn, &ctx, "rgt_item", &live, NULL) == RG_OK);
    CHECK(live.exists && live.n_columns == 1 && live.n_indexes == 1 && live.empty);
    rg__live_table_deinit(&live);
}

TEST(a_view_is_no_table) {
    drop_tables();
    CHECK(run("CREATE VIEW rgt_view AS SELECT 1 AS id"));
    rg__live_table live;
    rg_err err = {0};
    CHECK_EQ_INT(rg__introspect_table(conn, &ctx, "rgt_view", &live, &err), RG_ESCHEMA);
    CHECK(strstr(err.message, "rgt_view") != NULL);
}

/* Whatever a person made becomes what the entity says. */
TEST(a_table_made_by_hand_is_brought_over) {
    drop_tables();
    CHECK(run("CREATE TABLE rgt_team (id INT UNSIGNED PRIMARY KEY, q INT)"));
    CHECK(run("CREATE TABLE rgt_item (num INT AUTO_INCREMENT, team INT UNSIGNED, t2 INT UNSIGNED, "
              "name CHAR(20) CHARACTER SET latin1, note TEXT, at TIMESTAMP NOT NULL DEFAULT "
              "CURRENT_TIMESTAMP, n INT ZEROFILL, pos POINT NOT NULL, word VARCHAR(20) DEFAULT 'x', "
              "PRIMARY KEY (num), KEY part (name(4)), FULLTEXT KEY words (note), "
              "UNIQUE KEY pair (team, n), KEY by_t2 (t2, n), "
              "CONSTRAINT odd FOREIGN KEY (team) REFERENCES rgt_team (id) ON DELETE CASCADE, "
              "CONSTRAINT even FOREIGN KEY (t2) REFERENCES rgt_team (id))"));
    rg_type *t = make_type("rgt_item", RG_IDS_DATABASE);
    add(t, (rg_column_opts){.name = "team", .kind = RG_REF, .target = "rgt_team", .foreign_key = 1});
    add(t, (rg_column_opts){.name = "t2", .kind = RG_REF, .target = "rgt_team", .foreign_key = 1});
    add(t, (rg_column_opts){.name = "name", .kind = RG_STRING, .length = 20});
    add(t, (rg_column_opts){.name = "note", .kind = RG_JSON});
    add(t, (rg_column_opts){.name = "at", .kind = RG_DATETIME, .flags = RG_COL_CREATED});
    add(t, (rg_column_opts){.name = "n", .kind = RG_U32});
    const char *columns[] = {"name"};
    rg_index_opts x = {.size = sizeof x, .name = "part", .columns = columns, .n_columns = 1};
    CHECK(rg_type_index(t, &x, NULL) == RG_OK);
    rg__schema s = schema_of(t);
    bring(&s);
    rg__schema_deinit(&s);
}

TEST(tables_that_refer_to_each_other_are_made) {
    drop_tables();
    rg__schema s = {0};
    static const char *const names[] = {"rgt_item", "rgt_team"};
    for (int i = 0; i < 2; i++) {
        rg_type *t = make_type(names[i], RG_IDS_BLOCK);
        add(t, (rg_column_opts){.name = "other", .kind = RG_REF, .target = names[!i], .foreign_key = 1});
        add(t, (rg_column_opts){.name = "own", .kind = RG_REF, .target = names[i], .foreign_key = 1});
        CHECK(rg_type_freeze(t, NULL) == RG_OK && rg__schema_add(&s, t, NULL) == RG_OK);
        t->mysql_pool = 0;
    }
    CHECK(rg__schema_resolve(&s, NULL) == RG_OK);
    bring(&s);
    rg__schema_deinit(&s);
}

/* Running out of memory may cost the connection too. */
static void renew_connection(void) {
    rg__mysql_poison(conn);
    rg__mysql_release(conn);
    if (rg__mysql_acquire(pool, &ctx, &conn, NULL) != RG_OK) abort();
}

TEST(running_out_of_memory_is_told) {
    drop_tables();
    CHECK(run("CREATE TABLE rgt_item (id INT PRIMARY KEY, a INT, j JSON, KEY (a), "
              "FOREIGN KEY (a) REFERENCES rgt_item (id))"));
    int rc = RG_ENO_MEMORY;
    for (long n = 1; rc != RG_OK && n < 5000; n++) {
        rg__live_table live;
        rg__alloc_fail_at(n, 0);
        rc = rg__introspect_table(conn, &ctx, "rgt_item", &live, NULL);
        rg__alloc_fail_at(0, 0);
        if (rc == RG_OK) rg__live_table_deinit(&live);
        else CHECK_EQ_INT(rc, RG_ENO_MEMORY);
        renew_connection();
    }
    CHECK_EQ_INT(rc, RG_OK);
}

/* ---- random pairs ---- */

static uint64_t seed;

static uint32_t pick(uint32_t n) {
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % n;
}

static void random_values(rg_column_opts *o, const char **values) {
    uint32_t n = 1 + pick(MAX_VALUES), first = pick(3) ? 0 : pick(MAX_VALUES);
    for (uint32_t i = 0; i < n; i++) values[i] = words[(first + i) % MAX_VALUES];
    o->values = values;
    o->n_values = n;
}

static void random_size(rg_column_opts *o) {
    static const uint32_t text[] = {100, 65535, 70000, 17000000};
    if (o->kind == RG_STRING || o->kind == RG_BINARY) o->length = 10 + pick(60);
    if (o->kind == RG_TEXT || o->kind == RG_BLOB) o->length = text[pick(4)];
    if (o->kind == RG_DECIMAL) {
        o->precision = 6 + pick(20);
        o->scale = 2 + pick(4);
    }
    bool text_like = o->kind == RG_STRING || o->kind == RG_TEXT || o->kind == RG_ENUM;
    if (text_like && pick(4) == 0) o->collation = "utf8mb4_general_ci";
}

/* Neighbours in a family are likely, so that columns grow and shrink and not only change. */
static int random_kind(uint32_t column) {
    static const uint8_t families[][6] = {
        {RG_I8, RG_I16, RG_I24, RG_I32, RG_I64, RG_BOOL},
        {RG_U8, RG_U16, RG_U24, RG_U32, RG_U64, RG_U32},
        {RG_STRING, RG_STRING, RG_STRING, RG_TEXT, RG_ENUM, RG_JSON},
        {RG_ENUM, RG_ENUM, RG_ENUM, RG_SET, RG_SET, RG_STRING},
        {RG_DECIMAL, RG_DECIMAL, RG_DECIMAL, RG_DECIMAL, RG_DOUBLE, RG_FLOAT},
        {RG_TEXT, RG_TEXT, RG_TEXT, RG_JSON, RG_REFS, RG_BLOB},
        {RG_BINARY, RG_BINARY, RG_BLOB, RG_BLOB, RG_DATE, RG_TIME},
        {RG_DATETIME, RG_DATETIME, RG_DATE, RG_TIME, RG_REF, RG_REF},
    };
    return pick(8) == 0 ? 1 + (int)pick(RG_KIND_END - 1) : families[column % 8][pick(6)];
}

static void random_column(rg_type *t, uint32_t i) {
    char name[16];
    const char *values[MAX_VALUES];
    rg_column_opts o = {.kind = random_kind(i), .name = name};
    snprintf(name, sizeof name, "c%u", i);
    static const uint32_t flags[] = {0, RG_COL_NULLABLE, RG_COL_NULLABLE, RG_COL_REQUIRED};
    o.flags = flags[pick(4)];
    random_size(&o);
    if (o.kind == RG_ENUM || o.kind == RG_SET) random_values(&o, values);
    if (o.kind == RG_REF || o.kind == RG_REFS) o.target = pick(2) ? "rgt_team" : "rgt_town";
    if (o.kind == RG_REF) o.foreign_key = (int)pick(3) > 0;
    if (pick(3) == 0) o.def = defaults[o.kind][pick(3)];
    if (o.kind == RG_STRING && o.def && strlen(o.def) > 9) o.def = NULL;
    if (o.kind == RG_ENUM && pick(2)) o.def = values[0];
    if (o.kind == RG_SET && pick(2)) o.def = values[0];
    add(t, o);
}

static bool can_index(const rg__column *c) {
    return c->kind != RG_TEXT && c->kind != RG_BLOB && c->kind != RG_JSON && c->kind != RG_REFS;
}

static void random_index(rg_type *t, uint32_t i) {
    static const uint32_t flags[] = {0, 0, RG_INDEX_UNIQUE, RG_INDEX_CACHED};
    char name[16];
    const char *columns[3];
    rg_index_opts o = {.size = sizeof o, .name = name, .columns = columns, .flags = flags[pick(4)]};
    snprintf(name, sizeof name, "x%u", i);
    for (uint32_t n = 1 + pick(3), tries = 0; o.n_columns < n && tries < 20; tries++) {
        const rg__column *c = &t->columns[pick(t->n_columns)];
        bool twin = !can_index(c);
        for (uint32_t k = 0; k < o.n_columns; k++) twin |= strcmp(columns[k], c->name) == 0;
        if (!twin) columns[o.n_columns++] = c->name;
    }
    if (o.n_columns) CHECK(rg_type_index(t, &o, NULL) == RG_OK);
}

static rg__schema random_schema(void) {
    rg_type_opts o = {.size = sizeof o, .name = "rgt_item", .ids = pick(4) ? RG_IDS_BLOCK : RG_IDS_DATABASE};
    if (pick(10) == 0) o.id_column = "number";
    rg_type *t = rg_type_new(&o, NULL);
    uint32_t order = pick(2);
    for (uint32_t i = 0; i < 8; i++)
        if (pick(4)) random_column(t, order ? i : 7 - i);
    for (uint32_t i = 0; i < 4; i++)
        if (pick(2)) random_index(t, i);
    return schema_of(t);
}

/* A value that each kind can hold. */
static void write_value(rg__buf *sql, const rg__column *c) {
    switch (c->kind) {
    case RG_REF: rg__buf_str(sql, c->foreign_key ? "NULL" : "1"); break;
    case RG_JSON:
    case RG_REFS: rg__buf_str(sql, "'[1]'"); break;
    case RG_DATE: rg__buf_str(sql, "'2026-01-31'"); break;
    case RG_DATETIME: rg__buf_str(sql, "'2026-01-31 12:00:00.5'"); break;
    case RG_TIME: rg__buf_str(sql, "'01:02:03'"); break;
    default: rg__buf_char(sql, '1');
    }
}

/* One row, when the type allows one: it does not where a foreign key must not be NULL. */
static void insert_row(const rg_type *t) {
    rg__buf sql = {0};
    bool possible = true;
    rg__buf_fmt(&sql, "INSERT INTO rgt_item (%s) VALUES (1", t->select_list);
    for (uint32_t i = 1; i < t->n_columns; i++) {
        rg__buf_char(&sql, ',');
        write_value(&sql, &t->columns[i]);
        possible &= !t->columns[i].foreign_key || (t->columns[i].flags & RG_COL_NULLABLE);
    }
    rg__buf_char(&sql, ')');
    if (possible) CHECK(run(rg__buf_cstr(&sql)));
    rg__buf_deinit(&sql);
}

/* With rows there: what is called safe works, and afterwards nothing safe is left to do. */
static void check_safe_changes(const rg__schema *s) {
    rg__ddl d = diff(s);
    bool ok = CHECK(apply(&d, true));
    rg__ddl left = diff(s);
    for (size_t i = 0; i < left.n; i++) ok &= CHECK(!left.items[i].safe);
    if (!ok) print_changes(&d);
    if (!ok) print_changes(&left);
    rg__ddl_deinit(&d);
    rg__ddl_deinit(&left);
}

/* From one to the other in two steps: what is safe while a row is there, the rest without. */
static void check_with_rows(const rg__schema *from, const rg__schema *to) {
    insert_row(from->types[0]);
    check_safe_changes(to);
    CHECK(run("DELETE FROM rgt_item"));
    bring(to);
}

/* A chain, so that each type but the first is an end and a start. */
TEST(random_types_become_each_other) {
    const char *pairs = getenv("REGOLITH_PAIRS");
    uint64_t n = pairs ? strtoull(pairs, NULL, 10) : PAIRS;
    drop_tables();
    rg__schema from = random_schema();
    bring(&from);
    for (uint64_t i = 1; i <= n; i++) {
        unsigned long faults = unit_faults;
        seed = i;
        rg__schema to = random_schema();
        if (i % 2) check_with_rows(&from, &to);
        else bring(&to);
        if (faults != unit_faults) printf("# of pair %d\n", (int)i);
        rg__schema_deinit(&from);
        from = to;
    }
    rg__schema_deinit(&from);
}

TEST(nothing_is_left_behind) {
    drop_tables();
    CHECK(is_mariadb() || rg__mysql_version(conn) >= 80000);
}

int main(int argc, char **argv) {
    const char *path = getenv("REGOLITH_MYSQL_SOCKET"), *database = getenv("REGOLITH_MYSQL_DB");
    if (!path || !database) {
        printf("0 passed, 0 failed\n");
        return 0;
    }
    if (!connect_server(path, database)) return 1;
    int rc = unit_main(argc, argv);
    rg__mysql_release(conn);
    rg__mysql_pool_free(pool);
    return rc;
}
