/* SPDX-License-Identifier: MIT */
/* Units of the schema: what definitions may say, names, fingerprints, references, ranks, SQL types.
 */
#include "base/alloc.h"
#include "base/err.h"
#include "schema/type.h"
#include "unit.h"

static rg_err err;

static rg_type *new_type(const char *name) {
    rg_type_opts o = {.size = sizeof o, .name = name};
    rg_type *t = rg_type_new(&o, &err);
    CHECK(t != NULL);
    return t;
}

static int add(rg_type *t, rg_column_opts o) {
    o.size = sizeof o;
    return rg_type_column(t, &o, &err);
}

/* Adds a column of the kind that is fine otherwise; target for references, values for lists. */
static int add_kind(rg_type *t, const char *name, int kind, uint32_t flags) {
    static const char *const values[] = {"a", "b"};
    bool list = kind == RG_ENUM || kind == RG_SET, ref = kind == RG_REF || kind == RG_REFS;
    return add(t, (rg_column_opts){.name = name,
                                   .kind = kind,
                                   .flags = flags,
                                   .values = list ? values : NULL,
                                   .n_values = list ? 2 : 0,
                                   .target = ref ? "team" : NULL});
}

static int add_index(rg_type *t, const char *name, uint32_t flags, uint32_t n,
                     const char *const *columns) {
    rg_index_opts o = {
        .size = sizeof o, .name = name, .flags = flags, .columns = columns, .n_columns = n};
    return rg_type_index(t, &o, &err);
}

/* ---- types ---- */

TEST(type_takes_its_defaults) {
    rg_type *t = new_type("user");
    REQUIRE(t);
    CHECK_STR(t->table, "user");
    CHECK_STR(t->quoted, "`user`");
    CHECK_STR(t->mysql, "default");
    CHECK_STR(t->redis, "default");
    CHECK_EQ_INT(t->ttl_s, 3600);
    CHECK_EQ_INT(t->absent_ttl_s, 10);
    CHECK_EQ_INT(t->redis_pool, -1);
    CHECK_EQ_INT(rg_type_columns(t), 1);
    CHECK_STR(t->columns[0].name, "id");
    CHECK_STR(t->columns[0].quoted, "`id`");
    CHECK_EQ_INT(t->columns[0].kind, RG_U64);
    CHECK_EQ_INT(t->columns[0].flags, RG_COL_REQUIRED);
    rg_column_info info;
    CHECK_EQ_INT(rg_type_column_info(t, 0, &info), RG_EMISUSE);
    rg_type_free(t);
    rg_type_free(NULL);
}

TEST(type_refuses_what_it_cannot_be) {
    rg_type_opts o = {.size = sizeof o, .name = ""};
    CHECK(rg_type_new(&o, &err) == NULL);
    CHECK_EQ_INT(err.code, RG_EINVALID);
    o.name = NULL;
    CHECK(rg_type_new(&o, &err) == NULL);
    o.name = "user";
    o.ids = 9;
    CHECK(rg_type_new(&o, &err) == NULL);
    CHECK_STR(err.entity, "user");
    CHECK_STR(err.message, "user: unknown way to make ids: 9");
    o.ids = RG_IDS_BLOCK;
    o.table = "a\x01";
    CHECK(rg_type_new(&o, &err) == NULL);
    o.table = "t ";
    CHECK(rg_type_new(&o, &err) == NULL);
    CHECK_STR(err.message, "user: SQL name \"t \" ends with a space");
    o.table = NULL;
    o.id_column = "";
    CHECK(rg_type_new(&o, &err) == NULL);
    CHECK_STR(err.field, "id");
    o.size = 0;
    CHECK(rg_type_new(&o, &err) == NULL);
    CHECK_EQ_INT(err.code, RG_EMISUSE);
    CHECK(rg_type_new(NULL, &err) == NULL);
    CHECK(rg_type_new(NULL, NULL) == NULL);
}

TEST(options_of_an_older_caller_are_zero_beyond_its_size) {
    rg_type_opts o = {.size = offsetof(rg_type_opts, ttl_s), .name = "user", .ttl_s = 99};
    rg_type *t = rg_type_new(&o, &err);
    REQUIRE(t);
    CHECK_EQ_INT(t->ttl_s, 3600);
    rg_type_free(t);
}

/* ---- columns ---- */

TEST(column_names_are_checked) {
    rg_type *t = new_type("user");
    char name[80];
    memset(name, 'a', 65);
    name[65] = '\0';
    CHECK_EQ_INT(add_kind(t, name, RG_U8, 0), RG_EINVALID);
    CHECK_STR(err.message, "user: field name is longer than 64 characters");
    name[64] = '\0';
    CHECK_EQ_INT(add_kind(t, name, RG_U8, 0), RG_OK);
    CHECK_EQ_INT(add_kind(t, "", RG_U8, 0), RG_EINVALID);
    CHECK_EQ_INT(add_kind(t, NULL, RG_U8, 0), RG_EINVALID);
    CHECK_EQ_INT(add_kind(t, "\xFF", RG_U8, 0), RG_EINVALID);
    CHECK_EQ_INT(add_kind(t, "a\nb", RG_U8, 0), RG_EINVALID);
    CHECK_EQ_INT(add_kind(t, "\xF0\x9F\x98\x80", RG_U8, 0), RG_EINVALID);
    CHECK_EQ_INT(add_kind(t, "id", RG_U8, 0), RG_EINVALID);
    CHECK_STR(err.message, "user.id: there is a field of that name already");
    CHECK_STR(err.entity, "user");
    CHECK_STR(err.field, "id");
    CHECK_EQ_INT(add_kind(t, "ID", RG_U8, 0), RG_EINVALID);
    CHECK_STR(err.message, "user.ID: its SQL name \"ID\" is that of field \"id\"");
    CHECK_EQ_INT(add(t, (rg_column_opts){.name = "x", .column = "bad ", .kind = RG_U8}),
                 RG_EINVALID);
    CHECK_EQ_INT(add_kind(t, "address.city", RG_U8, 0), RG_OK);
    CHECK_STR(t->columns[2].column, "address_city");
    CHECK_EQ_INT(add_kind(t, "score[1]", RG_U8, 0), RG_OK);
    CHECK_STR(t->columns[3].column, "score_1_");
    CHECK_EQ_INT(add(t, (rg_column_opts){.name = "q", .column = "a`b", .kind = RG_U8}), RG_OK);
    CHECK_STR(t->columns[4].quoted, "`a``b`");
    CHECK_EQ_INT(rg__type_column_find(t, "address.city", 12), 2);
    CHECK_EQ_INT(rg__type_column_find(t, "address_city", 12), 2);
    CHECK_EQ_INT(rg__type_column_find(t, "address", 7), -1);
    rg_type_free(t);
}

static void refuses(rg_column_opts o, const char *message) {
    rg_type *t = new_type("user");
    o.name = "f";
    CHECK_EQ_INT(add(t, o), RG_EINVALID);
    CHECK_STR(err.message, message);
    CHECK_STR(err.field, "f");
    CHECK_EQ_INT(rg_type_columns(t), 1);
    rg_type_free(t);
}

TEST(columns_refuse_contradictions) {
    const char *values[70];
    for (int i = 0; i < 70; i++) values[i] = i % 2 ? "b" : "a";
    refuses((rg_column_opts){.kind = 0}, "user.f: unknown kind 0");
    refuses((rg_column_opts){.kind = RG_KIND_END}, "user.f: unknown kind 27");
    refuses((rg_column_opts){.kind = RG_U8, .flags = 64}, "user.f: unknown flags");
    refuses((rg_column_opts){.kind = RG_U8, .flags = RG_COL_NULLABLE | RG_COL_REQUIRED},
            "user.f: nullable and required contradict each other");
    refuses((rg_column_opts){.kind = RG_U8, .flags = RG_COL_CREATED},
            "user.f: only a date or datetime can be set at insert or update");
    refuses((rg_column_opts){.kind = RG_TIME, .flags = RG_COL_UPDATED},
            "user.f: only a date or datetime can be set at insert or update");
    refuses((rg_column_opts){.kind = RG_STRING, .flags = RG_COL_VERSION},
            "user.f: a version must be an integer");
    refuses((rg_column_opts){.kind = RG_REF, .flags = RG_COL_VERSION, .target = "team"},
            "user.f: a version must be an integer");
    refuses((rg_column_opts){.kind = RG_U32, .flags = RG_COL_VERSION | RG_COL_NULLABLE},
            "user.f: a version cannot be nullable");
    refuses((rg_column_opts){.kind = RG_STRING, .length = 16384},
            "user.f: length 16384 exceeds max 16383");
    refuses((rg_column_opts){.kind = RG_BINARY, .length = 65536},
            "user.f: length 65536 exceeds max 65535");
    refuses((rg_column_opts){.kind = RG_DECIMAL, .precision = 66},
            "user.f: precision exceeds max 65");
    refuses((rg_column_opts){.kind = RG_DECIMAL, .precision = 40, .scale = 31},
            "user.f: scale exceeds max 30");
    refuses((rg_column_opts){.kind = RG_DECIMAL, .precision = 5, .scale = 6},
            "user.f: scale 6 exceeds precision 5");
    refuses((rg_column_opts){.kind = RG_ENUM}, "user.f: no values given");
    refuses((rg_column_opts){.kind = RG_SET, .values = values, .n_values = 65},
            "user.f: more than 64 values");
    refuses((rg_column_opts){.kind = RG_ENUM, .values = values, .n_values = 3},
            "user.f: value \"a\" is given twice");
    refuses((rg_column_opts){.kind = RG_ENUM, .n_values = 2, .values = (const char *[]){"a", ""}},
            "user.f: value \"\" is empty");
    refuses((rg_column_opts){.kind = RG_ENUM, .n_values = 1, .values = (const char *[]){"a "}},
            "user.f: value \"a \" ends with a space");
    refuses((rg_column_opts){.kind = RG_SET, .n_values = 1, .values = (const char *[]){"a,b"}},
            "user.f: value \"a,b\" holds a comma");
    refuses((rg_column_opts){.kind = RG_ENUM,
                             .n_values = 2,
                             .values = (const char *[]){"a", "A"},
                             .collation = "utf8mb4_general_ci"},
            "user.f: value \"A\" is given twice");
    refuses((rg_column_opts){.kind = RG_U8, .values = values, .n_values = 2},
            "user.f: only an enum or a set has values");
    refuses((rg_column_opts){.kind = RG_U8, .target = "team"},
            "user.f: only a reference has a target");
    refuses((rg_column_opts){.kind = RG_REF}, "user.f: a reference needs a target");
    refuses((rg_column_opts){.kind = RG_REFS, .target = "team", .foreign_key = 1},
            "user.f: only a reference can be a foreign key");
    refuses((rg_column_opts){.kind = RG_U8, .collation = "utf8mb4_bin"},
            "user.f: only text has a collation");
    refuses((rg_column_opts){.kind = RG_STRING, .collation = "latin1_bin"},
            "user.f: not a utf8mb4 collation");
    refuses((rg_column_opts){.kind = RG_STRING, .collation = "utf8mb4_bin;x"},
            "user.f: not a utf8mb4 collation");
}

TEST(columns_take_their_defaults) {
    rg_type *t = new_type("user");
    const struct {
        int kind;
        uint32_t flags, length;
    } want[] = {
        {RG_STRING, 0, 255},
        {RG_BINARY, 0, 255},
        {RG_TEXT, 0, 65535},
        {RG_BLOB, 0, 65535},
        {RG_U8, 0, 0},
        {RG_REF, RG_COL_NULLABLE, 0},
        {RG_REFS, 0, 0},
        {RG_JSON, RG_COL_NULLABLE, 0},
        {RG_DATE, RG_COL_REQUIRED, 0},
        {RG_DATETIME, RG_COL_REQUIRED, 0},
        {RG_TIME, 0, 0},
    };
    for (uint32_t i = 0; i < sizeof want / sizeof *want; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%u", i);
        CHECK_EQ_INT(add_kind(t, name, want[i].kind, 0), RG_OK);
        CHECK_EQ_INT(t->columns[i + 1].flags, want[i].flags);
        CHECK_EQ_INT(t->columns[i + 1].length, want[i].length);
    }
    CHECK_EQ_INT(add_kind(t, "created", RG_DATETIME, RG_COL_CREATED), RG_OK);
    CHECK_EQ_INT(t->columns[12].flags, RG_COL_CREATED);
    CHECK_EQ_INT(add_kind(t, "ref", RG_REF, RG_COL_REQUIRED), RG_OK);
    CHECK_EQ_INT(t->columns[13].flags, RG_COL_REQUIRED);
    CHECK_EQ_INT(add_kind(t, "d", RG_DECIMAL, 0), RG_OK);
    CHECK(t->columns[14].precision == 10 && t->columns[14].scale == 2);
    CHECK_EQ_INT(add(t, (rg_column_opts){.name = "e", .kind = RG_DECIMAL, .precision = 7}), RG_OK);
    CHECK(t->columns[15].precision == 7 && t->columns[15].scale == 0);
    CHECK_EQ_INT(add_kind(t, "v", RG_U32, RG_COL_VERSION), RG_OK);
    CHECK_EQ_INT(t->version_column, 16);
    CHECK_EQ_INT(add_kind(t, "w", RG_U32, RG_COL_VERSION), RG_EINVALID);
    CHECK_STR(err.message, "user.w: there is a version column already");
    rg_type_free(t);
}

TEST(there_are_at_most_a_thousand_columns) {
    rg_type *t = new_type("user");
    char name[16];
    int rc = RG_OK;
    for (int i = 1; i < 1000 && rc == RG_OK; i++) {
        snprintf(name, sizeof name, "c%d", i);
        rc = add_kind(t, name, i % 3 ? RG_U8 : RG_STRING, i % 7 ? 0 : RG_COL_NULLABLE);
    }
    CHECK_EQ_INT(rc, RG_OK);
    CHECK_EQ_INT(rg_type_columns(t), 1000);
    CHECK_EQ_INT(add_kind(t, "one_more", RG_U8, 0), RG_EINVALID);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    rg_type_free(t);
}

TEST(an_enum_may_be_large) {
    static char text[65536][16];
    static const char *values[65536];
    for (int i = 0; i < 65536; i++) {
        snprintf(text[i], sizeof text[i], "v%d", i);
        values[i] = text[i];
    }
    rg_type *t = new_type("user");
    rg_column_opts o = {.name = "f", .kind = RG_ENUM, .values = values, .n_values = 65536};
    CHECK_EQ_INT(add(t, o), RG_EINVALID);
    CHECK_STR(err.message, "user.f: more than 65535 values");
    o.n_values--;
    CHECK_EQ_INT(add(t, o), RG_OK);
    rg_type_free(t);
}

/* ---- indexes ---- */

TEST(indexes_are_checked) {
    rg_type *t = new_type("user");
    add_kind(t, "email", RG_STRING, 0);
    add_kind(t, "bio", RG_TEXT, 0);
    add(t, (rg_column_opts){.name = "team", .column = "team_id", .kind = RG_REF, .target = "team"});
    add(t, (rg_column_opts){.name = "nick", .kind = RG_STRING, .collation = "utf8mb4_general_ci"});
    add(t, (rg_column_opts){.name = "long", .kind = RG_STRING, .length = 769});
    add(t, (rg_column_opts){.name = "raw", .kind = RG_BINARY, .length = 3072});
    CHECK_EQ_INT(add_index(t, "email", RG_INDEX_UNIQUE, 1, (const char *[]){"email"}), RG_OK);
    CHECK(t->indexes[0].exact && rg__index_cached(&t->indexes[0]));
    CHECK_EQ_INT(add_index(t, "team", 0, 2, (const char *[]){"team_id", "nick"}), RG_OK);
    CHECK(!t->indexes[1].exact && !rg__index_cached(&t->indexes[1]));
    CHECK_EQ_INT(t->indexes[1].columns[0], 3);
    CHECK_EQ_INT(add_index(t, "all", RG_INDEX_VIRTUAL, 0, NULL), RG_OK);
    CHECK(rg__index_cached(&t->indexes[2]));
    CHECK_EQ_INT(add_index(t, "raw", 0, 1, (const char *[]){"raw"}), RG_OK);
    CHECK_EQ_INT(rg_type_index_find(t, "team"), 1);
    CHECK_EQ_INT(rg_type_index_find(t, "nope"), -1);
    const struct {
        const char *name;
        uint32_t flags, n;
        const char *columns[2];
        const char *message;
    } bad[] = {
        {"", 0, 1, {"email"}, "user: index name is empty"},
        {"PRIMARY", 0, 1, {"email"}, "user: index \"PRIMARY\": the name is the server's"},
        {"EMAIL", 0, 1, {"email"}, "user: index \"EMAIL\" is defined twice"},
        {"a", 8, 1, {"email"}, "user: index \"a\": unknown flags"},
        {"a", 0, 0, {NULL}, "user: index \"a\": no columns given"},
        {"a",
         RG_INDEX_VIRTUAL,
         1,
         {"email"},
         "user: index \"a\": a virtual one lists all ids and has no columns"},
        {"a",
         RG_INDEX_VIRTUAL | RG_INDEX_UNIQUE,
         0,
         {NULL},
         "user: index \"a\": virtual contradicts unique"},
        {"a", 0, 1, {"nope"}, "user: index \"a\": there is no field \"nope\""},
        {"a", 0, 1, {NULL}, "user: index \"a\": there is no field \"\""},
        {"a", 0, 1, {"bio"}, "user.bio: index \"a\": a text cannot be indexed"},
        {"a", 0, 2, {"team", "team_id"}, "user.team: index \"a\" has this field twice"},
        {"a", 0, 1, {"long"}, "user: index \"a\": 3076 bytes exceed max 3072"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_EQ_INT(add_index(t, bad[i].name, bad[i].flags, bad[i].n, bad[i].columns),
                     RG_EINVALID);
        CHECK_STR(err.message, bad[i].message);
        CHECK_STR(err.entity, "user");
    }
    CHECK_EQ_INT(t->n_indexes, 4);
    rg_type_free(t);
}

/* ---- freezing ---- */

TEST(freezing_lays_the_row_out_widest_first) {
    rg_type *t = new_type("user");
    add_kind(t, "a", RG_U8, 0);
    add_kind(t, "b", RG_STRING, RG_COL_NULLABLE);
    add_kind(t, "c", RG_I16, 0);
    add_kind(t, "d", RG_FLOAT, 0);
    add_kind(t, "e", RG_BOOL, 0);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    const uint32_t want[] = {32, 54, 40, 52, 48, 55};
    for (uint32_t i = 0; i < 6; i++) {
        rg_column_info info;
        CHECK_EQ_INT(rg_type_column_info(t, i, &info), RG_OK);
        CHECK_EQ_INT(info.offset, want[i]);
        CHECK_EQ_INT(info.null_at, i == 2 ? 24 : 0);
        CHECK_EQ_INT(info.null_bit, i == 2 ? 4 : 0);
    }
    CHECK_EQ_INT(t->fixed_end, 56);
    CHECK_STR(t->select_list, "`id`,`a`,`b`,`c`,`d`,`e`");
    rg_column_info info;
    CHECK_EQ_INT(rg_type_column_info(t, 6, &info), RG_EINVALID);
    CHECK_EQ_INT(add_kind(t, "late", RG_U8, 0), RG_EMISUSE);
    CHECK_EQ_INT(add_index(t, "late", 0, 1, (const char *[]){"a"}), RG_EMISUSE);
    rg_type_free(t);
}

static int freeze_with(rg_column_opts o) {
    rg_type *t = new_type("user");
    o.name = "f";
    CHECK_EQ_INT(add(t, o), RG_OK);
    int rc = rg_type_freeze(t, &err);
    CHECK_EQ_INT(t->frozen, rc == RG_OK);
    rg_type_free(t);
    return rc;
}

TEST(freezing_checks_defaults) {
    CHECK_EQ_INT(freeze_with((rg_column_opts){.kind = RG_U8, .def = "255"}), RG_OK);
    CHECK_EQ_INT(freeze_with((rg_column_opts){.kind = RG_U8, .def = "256"}), RG_EINVALID);
    CHECK_STR(err.message, "default of user.f: value 256 exceeds max 255");
    CHECK_STR(err.field, "f");
    CHECK_STR(err.entity, "user");
    CHECK_EQ_INT(freeze_with((rg_column_opts){.kind = RG_DATETIME, .def = "soon"}), RG_EINVALID);
    CHECK_EQ_INT(
        freeze_with((rg_column_opts){.kind = RG_STRING, .flags = RG_COL_REQUIRED, .def = ""}),
        RG_EINVALID);
    CHECK_EQ_INT(freeze_with((rg_column_opts){.kind = RG_JSON, .def = "{"}), RG_EINVALID);
    CHECK_STR(err.message, "default of user.f: invalid JSON at byte 2");
    CHECK_EQ_INT(freeze_with((rg_column_opts){.kind = RG_JSON, .def = "{}"}), RG_OK);
}

static uint64_t fingerprint(rg_column_opts o) {
    rg_type *t = new_type("user");
    if (!o.name) o.name = "f";
    CHECK_EQ_INT(add(t, o), RG_OK);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    uint64_t v = t->fingerprint;
    rg_type_free(t);
    return v;
}

TEST(fingerprints_tell_column_lists_apart) {
    const char *const ab[] = {"a", "b"}, *const ac[] = {"a", "c"};
    const rg_column_opts lists[] = {
        {.kind = RG_STRING},
        {.kind = RG_STRING, .length = 80},
        {.kind = RG_STRING, .flags = RG_COL_NULLABLE},
        {.kind = RG_STRING, .column = "g"},
        {.kind = RG_TEXT, .length = 255},
        {.kind = RG_DECIMAL},
        {.kind = RG_DECIMAL, .precision = 12, .scale = 2},
        {.kind = RG_DECIMAL, .precision = 10, .scale = 3},
        {.kind = RG_ENUM, .values = ab, .n_values = 2},
        {.kind = RG_ENUM, .values = ac, .n_values = 2},
        {.kind = RG_SET, .values = ab, .n_values = 2},
    };
    size_t n = sizeof lists / sizeof *lists;
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++) CHECK(fingerprint(lists[i]) != fingerprint(lists[k]));
    CHECK(fingerprint(lists[0]) == fingerprint((rg_column_opts){.kind = RG_STRING, .length = 255}));
    CHECK(fingerprint(lists[0]) ==
          fingerprint((rg_column_opts){.kind = RG_STRING, .flags = RG_COL_REQUIRED}));
    CHECK(fingerprint(lists[0]) ==
          fingerprint((rg_column_opts){.name = "path", .column = "f", .kind = RG_STRING}));
}

/* ---- identifiers ---- */

TEST(identifiers_are_quoted_or_refused) {
    rg__buf b = {0};
    CHECK_EQ_INT(rg__ident_quote(&b, "a`b", 3, &err), RG_OK);
    CHECK_STR(rg__buf_cstr(&b), "`a``b`");
    CHECK_EQ_INT(rg__ident_quote(&b, "", 0, &err), RG_EINVALID);
    CHECK_EQ_INT(rg__ident_quote(&b, "a\0b", 3, &err), RG_EINVALID);
    CHECK_EQ_INT(rg__ident_quote(&b, "\xC3", 1, &err), RG_EINVALID);
    char name[66 * 2];
    for (int i = 0; i < 66; i++) memcpy(name + 2 * i, "\xC3\xA9", 2);
    CHECK_EQ_INT(rg__ident_quote(&b, name, 130, &err), RG_EINVALID);
    CHECK_EQ_INT(rg__ident_quote(&b, name, 128, &err), RG_OK);
    rg__buf_deinit(&b);
}

/* ---- SQL types ---- */

static void sql_is(rg_column_opts o, const char *mysql, const char *mariadb) {
    rg_type *t = new_type("user");
    o.name = "f";
    CHECK_EQ_INT(add(t, o), RG_OK);
    rg__buf b = {0};
    rg__column_sql_type(&t->columns[1], false, &b);
    CHECK_STR(rg__buf_cstr(&b), mysql);
    rg__buf_clear(&b);
    rg__column_sql_type(&t->columns[1], true, &b);
    CHECK_STR(rg__buf_cstr(&b), mariadb ? mariadb : mysql);
    rg__buf_deinit(&b);
    rg_type_free(t);
}

TEST(sql_types_are_complete) {
    sql_is((rg_column_opts){.kind = RG_BOOL}, "tinyint(1)", NULL);
    sql_is((rg_column_opts){.kind = RG_U24}, "mediumint unsigned", NULL);
    sql_is((rg_column_opts){.kind = RG_REF, .target = "x"}, "bigint unsigned", NULL);
    sql_is((rg_column_opts){.kind = RG_DECIMAL, .precision = 12, .scale = 2}, "decimal(12,2)",
           NULL);
    sql_is((rg_column_opts){.kind = RG_STRING, .length = 80},
           "varchar(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", NULL);
    sql_is((rg_column_opts){.kind = RG_TEXT, .length = 65536, .collation = "utf8mb4_general_ci"},
           "mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", NULL);
    sql_is((rg_column_opts){.kind = RG_TEXT, .length = 16777216},
           "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", NULL);
    sql_is((rg_column_opts){.kind = RG_BINARY, .length = 16}, "varbinary(16)", NULL);
    sql_is((rg_column_opts){.kind = RG_BLOB}, "blob", NULL);
    sql_is((rg_column_opts){.kind = RG_BLOB, .length = 16777215}, "mediumblob", NULL);
    sql_is((rg_column_opts){.kind = RG_ENUM,
                            .n_values = 2,
                            .values = (const char *[]){"it's", "a\\b"}},
           "enum('it''s','a\\\\b') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", NULL);
    sql_is((rg_column_opts){.kind = RG_SET, .n_values = 1, .values = (const char *[]){"a"}},
           "set('a') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", NULL);
    sql_is((rg_column_opts){.kind = RG_DATETIME}, "datetime(6)", NULL);
    sql_is((rg_column_opts){.kind = RG_JSON}, "json",
           "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
}

TEST(kinds_are_complete) {
    CHECK(rg__kind(0) == NULL && rg__kind(RG_KIND_END) == NULL && rg__kind(-1) == NULL);
    for (int k = 1; k < RG_KIND_END; k++) {
        REQUIRE(rg__kind(k) && rg__kind(k)->name && rg__kind(k)->sql);
        CHECK(rg__kind(k)->store >= RG_STORE_I8 && rg__kind(k)->store <= RG_STORE_VAR);
        CHECK(rg__kind(k)->width == 1 || rg__kind(k)->width == 2 || rg__kind(k)->width == 4 ||
              rg__kind(k)->width == 8);
    }
    CHECK_EQ_INT(rg__kind(RG_I24)->min, -8388608);
    CHECK_EQ_INT(rg__kind(RG_I24)->max, 8388607);
    CHECK(rg__kind(RG_U64)->max == UINT64_MAX && rg__kind(RG_I64)->min == INT64_MIN);
}

/* ---- schemas ---- */

static void refer(rg_type *t, const char *name, int kind, const char *target) {
    CHECK_EQ_INT(add(t, (rg_column_opts){.name = name, .kind = kind, .target = target}), RG_OK);
}

TEST(schema_finds_and_refuses_twins) {
    rg__schema s = {0};
    rg_type *a = new_type("a"), *twin = new_type("a");
    rg_type_opts o = {.size = sizeof o, .name = "b", .table = "a", .mysql = "other"};
    rg_type *same_table = rg_type_new(&o, &err);
    CHECK_EQ_INT(rg__schema_add(&s, a, &err), RG_OK);
    CHECK_EQ_INT(rg__schema_add(&s, twin, &err), RG_EINVALID);
    CHECK_EQ_INT(rg__schema_add(&s, same_table, &err), RG_EINVALID);
    CHECK_STR(err.message, "b: its table \"a\" is that of entity \"a\"");
    rg_type_free(twin);
    rg_type_free(same_table);
    CHECK(rg__schema_find(&s, "a", 1) == a && rg__schema_find(&s, "ab", 2) == NULL);
    CHECK(rg__schema_find_table(&s, "a", 1) == a && rg__schema_find_table(&s, "b", 1) == NULL);
    rg__schema_deinit(&s);
}

TEST(schema_numbers_and_ranks) {
    const char *names[] = {"user", "team", "org", "post", "chain_a", "chain_b", "self"};
    rg__schema s = {0};
    rg_type *t[7];
    for (int i = 0; i < 7; i++) {
        t[i] = new_type(names[i]);
        if (i == 1) add_index(t[i], "all", RG_INDEX_VIRTUAL, 0, NULL);
        CHECK_EQ_INT(rg__schema_add(&s, t[i], &err), RG_OK);
    }
    refer(t[0], "team", RG_REF, "team"); /* user -> team -> org; team lists its users */
    refer(t[1], "members", RG_REFS, "user");
    refer(t[1], "org", RG_REF, "org");
    refer(t[3], "by", RG_REF, "user");
    refer(t[3], "chain", RG_REF, "chain_a");
    refer(t[4], "b", RG_REF, "chain_b"); /* a cycle of single references, which needs org */
    refer(t[5], "a", RG_REF, "chain_a");
    refer(t[5], "org", RG_REF, "org");
    refer(t[6], "parent", RG_REF, "self");
    CHECK_EQ_INT(rg__schema_resolve(&s, &err), RG_OK);
    const int ranks[] = {2, 1, 0, 3, 1, 1, 0};
    for (int i = 0; i < 7; i++) {
        CHECK_EQ_INT(t[i]->rank, ranks[i]);
        CHECK_EQ_INT(t[i]->number, i);
        CHECK_EQ_INT(t[i]->space, i > 1 ? i + 1 : i);
    }
    CHECK_EQ_INT(t[0]->columns[1].target_space, 1);
    CHECK_EQ_INT(rg__schema_resolve(&s, &err), RG_OK);
    rg__schema_deinit(&s);
}

TEST(schema_reports_all_faults_at_once) {
    rg__schema s = {0};
    rg_type *user = new_type("user");
    refer(user, "team", RG_REF, "team");
    CHECK_EQ_INT(rg__schema_add(&s, user, &err), RG_OK);
    CHECK_EQ_INT(rg__schema_resolve(&s, &err), RG_EINVALID);
    CHECK_STR(err.message, "user.team: refers to entity \"team\", which is not registered");
    CHECK_STR(err.field, "team");
    CHECK_EQ_INT(rg__schema_resolve(&s, NULL), RG_EINVALID);
    refer(user, "org", RG_REFS, "org");
    rg_type_opts o = {.size = sizeof o, .name = "team", .mysql = "other"};
    rg_type *team = rg_type_new(&o, &err);
    CHECK_EQ_INT(rg__schema_add(&s, team, &err), RG_OK);
    CHECK_EQ_INT(rg__schema_resolve(&s, &err), RG_EINVALID);
    CHECK_EQ_INT(
        add(user,
            (rg_column_opts){.name = "fk", .kind = RG_REF, .target = "team", .foreign_key = 1}),
        RG_OK);
    CHECK_EQ_INT(rg__schema_resolve(&s, &err), RG_ECONFIG);
    CHECK_STR(err.message,
              "user.org: refers to entity \"org\", which is not registered\n"
              "user.fk: a foreign key cannot reach from pool \"default\" to \"other\"");
    rg__schema_deinit(&s);
}

TEST(schema_is_empty_or_large) {
    rg__schema s = {0};
    CHECK_EQ_INT(rg__schema_resolve(&s, &err), RG_OK);
    char name[16], before[16];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "t%d", i);
        rg_type *t = new_type(name);
        if (i > 0) refer(t, "before", RG_REF, before);
        CHECK_EQ_INT(rg__schema_add(&s, t, &err), RG_OK);
        memcpy(before, name, sizeof before);
    }
    CHECK_EQ_INT(rg__schema_resolve(&s, &err), RG_OK);
    CHECK_EQ_INT(s.types[299]->rank, 299);
    rg__schema_deinit(&s);
}

TEST(shared_types_are_those_that_redis_knows) {
    rg_type *t = new_type("user");
    t->cache_redis = true;
    CHECK(!rg__type_shared(t));
    t->redis_pool = 0;
    CHECK(rg__type_shared(t));
    t->cache_redis = false;
    CHECK(!rg__type_shared(t));
    add_index(t, "all", RG_INDEX_VIRTUAL, 0, NULL);
    CHECK(rg__type_shared(t));
    rg_type_free(t);
}

/* ---- out of memory ---- */

static int define_all(rg__schema *s) {
    rg_type_opts o = {.size = sizeof o, .name = "user"};
    rg_type *t = rg_type_new(&o, &err);
    if (!t) return err.code;
    int rc = rg__schema_add(s, t, &err);
    if (rc < 0) rg_type_free(t);
    for (int k = 1; rc == RG_OK && k < RG_KIND_END; k++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", k);
        rc = add_kind(t, name, k, 0);
        if (rc == RG_OK && (k == RG_REF || k == RG_REFS)) t->columns[k].target[0] = 'u';
    }
    if (rc == RG_OK) rc = add_index(t, "i", 0, 2, (const char *[]){"c1", "c2"});
    if (rc == RG_OK) rc = rg_type_freeze(t, &err);
    if (rc == RG_OK) rc = rg__schema_resolve(s, &err);
    return rc;
}

TEST(definitions_survive_out_of_memory) {
    int rc = RG_ENO_MEMORY;
    for (long fail = 1; fail < 2000 && rc == RG_ENO_MEMORY; fail++) {
        rg__schema s = {0};
        rg__err_clear(&err);
        rg__alloc_fail_at(fail, 0);
        rc = define_all(&s);
        rg__alloc_fail_at(0, 0);
        CHECK_EQ_INT(rc, err.code);
        rg__schema_deinit(&s);
    }
    CHECK_EQ_INT(rc, RG_ECONFIG); /* all memory there: the targets are what remains */
}

UNIT_MAIN
