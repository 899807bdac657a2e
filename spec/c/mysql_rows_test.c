/* SPDX-License-Identifier: MIT */
/* Entities on a real server (REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB): every kind with its
 * extremes comes back as it was written, by every way of writing and reading. */
#include "unit.h"

#include "base/alloc.h"
#include "base/err.h"
#include "mysql/conn.h"
#include "schema/type.h"

static rg__mysql_pool *pool;
static rg__mysql *conn;
static rg__ctx ctx = {.deadline_ms = RG__NO_DEADLINE};
static rg_err err;

/* ---- the server ---- */

static bool ok(int code) {
    if (code) printf("# %s: %s\n", rg_code_name(code), err.message);
    return CHECK(code == 0);
}

static bool run(const char *sql) {
    return ok(rg__mysql_exec(conn, &ctx, sql, strlen(sql), NULL, &err));
}

/* ---- a type with every kind, and its table ---- */

static const char *const states[] = {"new", "active", "it's"};
#define TEN(d)                                                                                     \
    "f" #d "0", "f" #d "1", "f" #d "2", "f" #d "3", "f" #d "4", "f" #d "5", "f" #d "6",            \
        "f" #d "7", "f" #d "8", "f" #d "9"
static const char *const flags[] = {TEN(0), TEN(1), TEN(2), TEN(3), TEN(4),
                                    TEN(5), "f60",  "f61",  "f62",  "f63"};

enum { N_KINDS = 24 };
/* clang-format off */
static const rg_column_opts columns[N_KINDS] = {
    {.name = "b", .kind = RG_BOOL},       {.name = "i8", .kind = RG_I8},     {.name = "i16", .kind = RG_I16},
    {.name = "i24", .kind = RG_I24},      {.name = "i32", .kind = RG_I32},   {.name = "i64", .kind = RG_I64},
    {.name = "u8", .kind = RG_U8},        {.name = "u16", .kind = RG_U16},   {.name = "u24", .kind = RG_U24},
    {.name = "u32", .kind = RG_U32},      {.name = "u64", .kind = RG_U64},   {.name = "f", .kind = RG_FLOAT},
    {.name = "d", .kind = RG_DOUBLE},     {.name = "money", .kind = RG_DECIMAL, .precision = 30, .scale = 6},
    {.name = "name", .kind = RG_STRING, .length = 100},
    {.name = "text", .kind = RG_TEXT, .length = 1 << 20},
    {.name = "bin", .kind = RG_BINARY, .length = 300},
    {.name = "blob", .kind = RG_BLOB, .length = 1 << 28},
    {.name = "state", .kind = RG_ENUM, .values = states, .n_values = 3},
    {.name = "flags", .kind = RG_SET, .values = flags, .n_values = 64},
    {.name = "day", .kind = RG_DATE},     {.name = "at", .kind = RG_DATETIME},
    {.name = "took", .kind = RG_TIME},
    {.name = "doc", .kind = RG_JSON},
};
/* clang-format on */
enum { REF = N_KINDS + 1, REFS, VERSION, N_COLUMNS };

static void add(rg_type *t, rg_column_opts o) {
    o.size = sizeof o;
    ok(rg_type_column(t, &o, &err));
}

static rg_type *make_type(const char *name, int ids, uint32_t more) {
    rg_type_opts o = {.size = sizeof o, .name = name, .ids = ids};
    rg_type *t = rg_type_new(&o, &err);
    for (int i = 0; i < N_KINDS; i++) {
        rg_column_opts col = columns[i];
        col.flags = more;
        add(t, col);
    }
    add(t,
        (rg_column_opts){.name = "team", .kind = RG_REF, .target = name, .flags = RG_COL_NULLABLE});
    add(t, (rg_column_opts){.name = "friends", .kind = RG_REFS, .target = name, .flags = more});
    add(t, (rg_column_opts){.name = "version", .kind = RG_U32, .flags = RG_COL_VERSION});
    static const char *const by_name[] = {"name", "state", "money", "f", "at"};
    rg_index_opts x = {.size = sizeof x, .name = "by_name", .columns = by_name, .n_columns = 5};
    ok(rg_type_index(t, &x, &err));
    ok(rg_type_freeze(t, &err));
    return t;
}

static void make_table(const rg_type *t) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql, "DROP TABLE IF EXISTS %s", t->quoted);
    run(rg__buf_cstr(&sql));
    rg__buf_clear(&sql);
    rg__buf_fmt(&sql, "CREATE TABLE %s (%s BIGINT UNSIGNED NOT NULL%s PRIMARY KEY", t->quoted,
                t->columns[0].quoted, t->ids == RG_IDS_DATABASE ? " AUTO_INCREMENT" : "");
    for (uint32_t i = t->n_columns - 1; i > 0; i--) { /* another order than the type's */
        rg__buf_fmt(&sql, ",%s ", t->columns[i].quoted);
        rg__column_sql_type(&t->columns[i], rg__mysql_flavour(conn) == RG__MARIADB, &sql);
        rg__buf_str(&sql, t->columns[i].flags & RG_COL_NULLABLE ? " NULL" : " NOT NULL");
    }
    rg__buf_str(&sql, ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4");
    run(rg__buf_cstr(&sql));
    rg__buf_deinit(&sql);
}

static void drop_table(const rg_type *t) {
    char sql[128];
    snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS %s", t->quoted);
    run(sql);
}

/* ---- rows ---- */

static rg_builder *builder;

static void put(const char *name, const char *text, size_t len) {
    int col = rg__type_column_find(rg__builder_type(builder), name, strlen(name));
    ok(rg_builder_string(builder, (uint32_t)col, text, len, &err));
}
#define PUT(name, text) put(name, "" text, sizeof(text) - 1)

static void put_refs(const uint64_t *ids, size_t n) {
    ok(rg_builder_refs_begin(builder, REFS, &err));
    for (size_t i = 0; i < n; i++)
        ok(rg_builder_refs_add(builder, REFS, (double)ids[i], &err));
}

static rg_block *finish(uint64_t id, uint32_t version) {
    ok(rg_builder_u64(builder, 0, id, &err));
    ok(rg_builder_u64(builder, VERSION, version, &err));
    rg_block *row = rg__builder_finish(builder, false, 0, &err);
    if (!row) printf("# %s\n", err.message);
    rg_builder_reset(builder);
    return row;
}

static rg_block *lowest(uint64_t id, uint32_t version) {
    PUT("b", "0");
    PUT("i8", "-128");
    PUT("i16", "-32768");
    PUT("i24", "-8388608");
    PUT("i32", "-2147483648");
    PUT("i64", "-9223372036854775808");
    PUT("u8", "0");
    PUT("u16", "0");
    PUT("u24", "0");
    PUT("u32", "0");
    PUT("u64", "0");
    PUT("f", "-3.40282347e38");
    PUT("d", "-1.7976931348623157e308");
    PUT("money", "-999999999999999999999999.999999");
    PUT("name", "");
    PUT("text", "");
    PUT("bin", "");
    PUT("blob", "");
    PUT("state", "new");
    PUT("flags", "");
    PUT("day", "1000-01-01");
    PUT("at", "1000-01-01 00:00:00");
    PUT("took", "-838:59:59");
    PUT("doc", "{}");
    put_refs(NULL, 0);
    return finish(id, version);
}

static rg_block *highest(uint64_t id, uint32_t version) {
    static const uint64_t ids[] = {1, 42, UINT64_C(9007199254740991)};
    PUT("b", "1");
    PUT("i8", "127");
    PUT("i16", "32767");
    PUT("i24", "8388607");
    PUT("i32", "2147483647");
    PUT("i64", "9223372036854775807");
    PUT("u8", "255");
    PUT("u16", "65535");
    PUT("u24", "16777215");
    PUT("u32", "4294967295");
    PUT("u64", "18446744073709551615");
    PUT("f", "3.40282347e38");
    PUT("d", "1.7976931348623157e308");
    PUT("money", "999999999999999999999999.999999");
    PUT("name", "it's \\ \"q\" \x01\x1a\x1f\r\n\t%_\xf0\x9f\x98\x80\xc3\xa9\0end");
    PUT("text", "\xf0\x9f\x98\x80 '\\' \0 \x7f");
    PUT("bin", "\0\xff\x27\x5c\x22\x80\n");
    PUT("blob", "\xf0\x9f\0\0'\\");
    PUT("state", "it's");
    PUT("flags", "f00,f31,f53,f63");
    PUT("day", "9999-12-31");
    PUT("at", "9999-12-31 23:59:59.999999");
    PUT("took", "838:59:59");
    PUT("doc", "{\"a\": \"it's \\\\ \\u0000 \xf0\x9f\x98\x80\"}");
    ok(rg_builder_number(builder, REF, 7, &err));
    put_refs(ids, 3);
    return finish(id, version);
}

static rg_block *middle(uint64_t id, uint32_t version) {
    static const uint64_t ids[] = {3, 2, 1};
    PUT("b", "1");
    PUT("i8", "-1");
    PUT("i16", "-1");
    PUT("i24", "-1");
    PUT("i32", "-1");
    PUT("i64", "-1");
    PUT("u8", "1");
    PUT("u16", "1");
    PUT("u24", "1");
    PUT("u32", "1");
    PUT("u64", "9007199254740993");
    PUT("f", "0.1");
    PUT("d", "0.1");
    PUT("money", "-0.000001");
    PUT("name", "Ann");
    PUT("text", "x");
    PUT("bin", "b");
    PUT("blob", "b");
    PUT("state", "active");
    PUT("flags", "f63");
    PUT("day", "1969-12-31");
    PUT("at", "1969-12-31 23:59:59.000001");
    PUT("took", "-00:00:00.000001");
    PUT("doc", "[1, 2.5, null]");
    put_refs(ids, 3);
    return finish(id, version);
}

/* All NULL that may be. */
static rg_block *nothing(uint64_t id, uint32_t version) {
    const rg_type *t = rg__builder_type(builder);
    bool nullable = t->columns[1].flags & RG_COL_NULLABLE;
    for (uint32_t i = 1; i < t->n_columns; i++)
        if (t->columns[i].flags & RG_COL_NULLABLE) ok(rg_builder_null(builder, i, &err));
    if (!nullable) { /* dates have no empty value */
        PUT("day", "2026-01-31");
        PUT("at", "2026-01-31 12:00:00.5");
        PUT("took", "0:00:00");
    }
    return finish(id, version);
}

typedef rg_block *(*maker)(uint64_t id, uint32_t version);
static const maker makers[] = {lowest, highest, middle, nothing};
enum { N_MAKERS = 4 };

/* ---- reading and comparing ---- */

enum { MAX_ROWS = 4096 };
typedef struct found {
    rg_block *rows[MAX_ROWS];
    size_t n;
} found;
static found got;

static int keep(void *arg, rg_block *row) {
    found *f = arg;
    if (f->n == MAX_ROWS) return RG_ELIMIT;
    f->rows[f->n++] = row;
    return 0;
}

static void forget(void) {
    for (size_t i = 0; i < got.n; i++)
        rg_block_unref(got.rows[i]);
    got.n = 0;
}

static rg_block *row_of(const rg_type *t, uint64_t id) {
    for (size_t i = 0; i < got.n; i++)
        if (rg__row_id(t, rg_block_data(got.rows[i])) == id) return got.rows[i];
    return NULL;
}

static void check_same(const rg_type *t, const rg_block *row, const rg_block *want) {
    if (!CHECK(row && want)) return;
    if (rg_block_len(row) == rg_block_len(want) &&
        memcmp(rg_block_data(row), rg_block_data(want), rg_block_len(row)) == 0) {
        unit_checks++;
        return;
    }
    for (uint32_t i = 0; i < t->n_columns; i++) {
        char a[200] = "", b[200] = "";
        if (rg__row_column_eq(t, rg_block_data(row), rg_block_data(want), i)) continue;
        rg_row_text(t, rg_block_data(row), i, a, sizeof a - 1);
        rg_row_text(t, rg_block_data(want), i, b, sizeof b - 1);
        printf("# %s of row %llu: %s, not %s\n", t->columns[i].name,
               (unsigned long long)rg__row_id(t, rg_block_data(want)), a, b);
    }
    CHECK(!"rows are the same");
}

/* The table holds these rows, read by their ids. */
static void check_table(const rg_type *t, rg_block *const *rows, size_t n) {
    uint64_t *ids = rg__calloc(n, sizeof *ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = rg__row_id(t, rg_block_data(rows[i]));
    forget();
    ok(rg__sql_select_ids(conn, &ctx, t, ids, n, RG__LOCK_NONE, keep, &got, &err));
    CHECK_EQ_INT(got.n, n);
    for (size_t i = 0; i < n; i++)
        check_same(t, row_of(t, ids[i]), rows[i]);
    forget();
    rg__free(ids);
}

static const void **data_of(rg_block *const *rows, size_t n) {
    const void **data = rg__calloc(n, sizeof *data);
    for (size_t i = 0; i < n; i++)
        data[i] = rg_block_data(rows[i]);
    return data;
}

static void insert(const rg_type *t, rg_block *const *rows, size_t n) {
    const void **data = data_of(rows, n);
    ok(rg__sql_insert(conn, &ctx, t, data, n, NULL, &err));
    rg__free(data);
}

static uint64_t update(const rg_type *t, rg_block *const *rows, size_t n,
                       const uint64_t *expected) {
    uint8_t mask[N_COLUMNS];
    uint64_t matched = 0;
    const void **data = data_of(rows, n);
    memset(mask, 1, sizeof mask);
    mask[0] = 0;
    ok(rg__sql_update(conn, &ctx, t, mask, data, expected, n, &matched, &err));
    rg__free(data);
    return matched;
}

static void make_rows(rg_block **rows, size_t n, size_t shift, uint32_t version) {
    for (size_t i = 0; i < n; i++)
        rows[i] = makers[(i + shift) % N_MAKERS](i + 1, version);
}

static void free_rows(rg_block **rows, size_t n) {
    for (size_t i = 0; i < n; i++)
        rg_block_unref(rows[i]);
}

static rg_type *begin(const char *name, int ids, uint32_t more) {
    rg_type *t = make_type(name, ids, more);
    make_table(t);
    builder = rg_builder_new(t, &err);
    CHECK(builder != NULL);
    return t;
}

static void end(rg_type *t) {
    rg_builder_free(builder);
    drop_table(t);
    rg_type_free(t);
}

/* ---- every kind, every way ---- */

static void round_trip(uint32_t more) {
    rg_type *t = begin("rg_kinds", RG_IDS_BLOCK, more);
    rg_block *rows[N_MAKERS];
    make_rows(rows, N_MAKERS, 0, 1);
    for (int i = 0; i < N_MAKERS; i++)
        insert(t, &rows[i], 1); /* by parameters */
    check_table(t, rows, N_MAKERS);
    run("DELETE FROM rg_kinds");
    insert(t, rows, N_MAKERS); /* as literals */
    check_table(t, rows, N_MAKERS);
    for (size_t shift = 1; shift < 2 * N_MAKERS; shift++) { /* each into each */
        free_rows(rows, N_MAKERS);
        make_rows(rows, N_MAKERS, shift, (uint32_t)shift);
        if (shift % 2)
            CHECK_EQ_INT(update(t, rows, N_MAKERS, NULL), N_MAKERS);
        else
            for (int i = 0; i < N_MAKERS; i++)
                CHECK_EQ_INT(update(t, &rows[i], 1, NULL), 1);
        check_table(t, rows, N_MAKERS);
    }
    free_rows(rows, N_MAKERS);
    end(t);
}

TEST(kinds_that_may_be_null) {
    round_trip(RG_COL_NULLABLE);
}
TEST(kinds_that_may_not) {
    round_trip(0);
}

TEST(many_rows_in_chunks) {
    enum { N = 2500 };
    static rg_block *rows[N];
    rg_type *t = begin("rg_many", RG_IDS_BLOCK, RG_COL_NULLABLE);
    make_rows(rows, N, 0, 1);
    const void **data = data_of(rows, N);
    CHECK_EQ_INT(rg__sql_insert_statements(conn, t, data, N), 3);
    rg__free(data);
    insert(t, rows, N);
    check_table(t, rows, N);
    free_rows(rows, N);
    make_rows(rows, N, 1, 2);
    for (size_t i = 0; i < N / 2; i++) { /* the other way round: they are sorted on the way */
        rg_block *swap = rows[i];
        rows[i] = rows[N - 1 - i];
        rows[N - 1 - i] = swap;
    }
    CHECK_EQ_INT(update(t, rows, N, NULL), N);
    check_table(t, rows, N);
    free_rows(rows, N);
    end(t);
}

/* Values longer than a bound buffer, than what is kept of it, and than a share of the packet. */
TEST(long_values) {
    static const size_t sizes[] = {255, 256, 257, 1000, 65535, 65536, 65537, 1000000, 9000000};
    rg_type *t = begin("rg_long", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[9];
    char *bytes = malloc(9000000);
    for (size_t i = 0; i < 9000000; i++)
        bytes[i] = (char)(i * 31 + (i >> 8));
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < 9; i++) {
            put("blob", bytes + round, sizes[i] - round);
            if (sizes[i] <= 1000000) {
                for (size_t k = 0; k < sizes[i]; k++)
                    bytes[k] = (char)('a' + (k + round) % 26);
                put("text", bytes, sizes[i]);
                for (size_t k = 0; k < sizes[i]; k++)
                    bytes[k] = (char)(k * 31 + (k >> 8));
            }
            rows[i] = finish(i + 1, (uint32_t)round);
        }
        if (round == 0)
            insert(t, rows, 9);
        else
            CHECK_EQ_INT(update(t, rows, 9, NULL), 9);
        check_table(t, rows, 9);
        free_rows(rows, 9);
    }
    free(bytes);
    end(t);
}

TEST(a_row_beyond_the_packet_is_refused) {
    rg_type *t = begin("rg_large", RG_IDS_BLOCK, RG_COL_NULLABLE);
    size_t len = rg__mysql_max_packet(conn) + 1;
    char *bytes = calloc(1, len);
    put("blob", bytes, len);
    rg_block *row = finish(1, 1);
    const void *data = rg_block_data(row);
    CHECK_EQ_INT(rg__sql_insert(conn, &ctx, t, &data, 1, NULL, &err), RG_ELIMIT);
    CHECK_EQ_INT(err.cls, RG_CLASS_PERMANENT);
    CHECK(!rg__mysql_broken(conn));
    free(bytes);
    rg_block_unref(row);
    end(t);
}

/* ---- versions ---- */

TEST(updates_and_deletes_with_expected_versions) {
    enum { N = 50 };
    rg_block *rows[N];
    uint64_t expected[N], ids[N], matched = 0;
    rg_type *t = begin("rg_cas", RG_IDS_BLOCK, RG_COL_NULLABLE);
    make_rows(rows, N, 0, 1);
    insert(t, rows, N);
    free_rows(rows, N);
    make_rows(rows, N, 1, 2);
    for (int i = 0; i < N; i++)
        expected[i] = i % 10 ? 1 : 7; /* five misses */
    for (int i = 0; i < N; i++)
        ids[i] = (uint64_t)i + 1;
    CHECK_EQ_INT(update(t, rows, N, expected), N - 5);
    CHECK_EQ_INT(update(t, &rows[0], 1, &expected[0]), 0);
    expected[0] = 1;
    CHECK_EQ_INT(update(t, &rows[0], 1, &expected[0]), 1);
    CHECK_EQ_INT(update(t, &rows[1], 1, NULL), 1); /* found, although nothing changes */
    for (int i = 0; i < N; i++)
        expected[i] = i % 10 ? 2 : 1;
    expected[0] = 2;
    ok(rg__sql_delete(conn, &ctx, t, ids, expected, 1, &matched, &err));
    CHECK_EQ_INT(matched, 1);
    expected[1] = 9;
    ok(rg__sql_delete(conn, &ctx, t, ids, expected, N, &matched, &err));
    CHECK_EQ_INT(matched, N - 2);
    ok(rg__sql_delete(conn, &ctx, t, ids, NULL, N, &matched, &err));
    CHECK_EQ_INT(matched, 1);
    free_rows(rows, N);
    end(t);
}

TEST(some_columns_only) {
    rg_type *t = begin("rg_some", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[4], *was[4];
    uint8_t mask[N_COLUMNS] = {0};
    uint64_t matched;
    make_rows(was, 4, 0, 1);
    insert(t, was, 4);
    make_rows(rows, 4, 2, 2);
    const void **data = data_of(rows, 4);
    mask[15] = mask[23] = mask[VERSION] = 1;
    ok(rg__sql_update(conn, &ctx, t, mask, data, NULL, 2, &matched, &err));
    ok(rg__sql_update(conn, &ctx, t, mask, data + 2, NULL, 1, &matched, &err));
    for (int i = 0; i < 3; i++) {
        rg_block *both = rg__row_merge(t, rg_block_data(was[i]), data[i], mask, &err);
        rg_block_unref(was[i]);
        was[i] = both;
    }
    check_table(t, was, 4);
    rg__free(data);
    free_rows(rows, 4);
    free_rows(was, 4);
    end(t);
}

/* ---- ids of the database ---- */

TEST(database_ids) {
    rg_type *t = begin("rg_auto", RG_IDS_DATABASE, RG_COL_NULLABLE);
    rg_block *rows[6];
    uint64_t ids[6];
    for (int i = 0; i < 6; i++)
        rows[i] = makers[i % N_MAKERS](i == 3 ? 100 : 0, 1);
    const void **data = data_of(rows, 6);
    CHECK_EQ_INT(rg__sql_insert_statements(conn, t, data, 6), 3);
    ok(rg__sql_insert(conn, &ctx, t, data, 6, ids, &err));
    static const uint64_t want[] = {1, 2, 3, 100, 101, 102};
    for (int i = 0; i < 6; i++)
        CHECK_EQ_INT(ids[i], want[i]);
    ok(rg__sql_insert(conn, &ctx, t, data, 1, ids, &err));
    CHECK_EQ_INT(ids[0], 103);
    rg__free(data);
    free_rows(rows, 6);
    end(t);
}

/* ---- reading ---- */

TEST(by_index_with_any_value) {
    rg_type *t = begin("rg_index", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[12];
    make_rows(rows, 12, 0, 1);
    insert(t, rows, 12);
    for (int i = 0; i < N_MAKERS; i++) {
        forget();
        ok(rg__sql_select_index(conn, &ctx, t, &t->indexes[0], rg_block_data(rows[i]),
                                RG__LOCK_NONE, 0, keep, &got, &err));
        if (!CHECK_EQ_INT(got.n, 3)) printf("# maker %d\n", i);
        for (size_t k = 0; k < got.n; k++)
            check_same(t, got.rows[k], rows[i + 4 * (int)k]);
        forget();
        ok(rg__sql_select_index(conn, &ctx, t, &t->indexes[0], rg_block_data(rows[i]),
                                RG__LOCK_UPDATE, 2, keep, &got, &err));
        CHECK_EQ_INT(got.n, 2);
    }
    forget();
    free_rows(rows, 12);
    end(t);
}

static size_t search(const rg_type *t, const char *where, const rg__param *params, size_t n,
                     uint64_t offset, uint64_t limit) {
    forget();
    ok(rg__sql_search(conn, &ctx, t, where, strlen(where), params, n, offset, limit, keep, &got,
                      &err));
    return got.n;
}

TEST(search_ids_and_count) {
    rg_type *t = begin("rg_search", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[40];
    uint64_t *ids = NULL, count = 0;
    size_t n = 0;
    const rg__param p[] = {{.kind = RG__P_I64, .i = -1}, {.kind = RG__P_STRING, .s = {"Ann", 3}}};
    make_rows(rows, 40, 0, 1);
    insert(t, rows, 40);
    CHECK_EQ_INT(search(t, "", NULL, 0, 0, 0), 40);
    CHECK_EQ_INT(search(t, "i32 = ? and name = ?", p, 2, 0, 0), 10);
    CHECK_EQ_INT(search(t, "i32 = ? or name = ? -- or 1", p, 2, 0, 3), 3);
    CHECK_EQ_INT(search(t, "i32 = ? order by id desc", p, 1, 2, 3), 3);
    CHECK_EQ_INT(rg__row_id(t, rg_block_data(got.rows[0])), 31);
    CHECK_EQ_INT(search(t, "order by id desc", NULL, 0, 38, 0), 2);
    CHECK_EQ_INT(search(t, "1 order by (select ?) limit 7", p, 1, 0, 0), 7);
    const char *where = "i32 = ? order by name = ?, id";
    ok(rg__sql_search_ids(conn, &ctx, t, where, strlen(where), p, 2, 0, 4, &ids, &n, &err));
    CHECK_EQ_INT(n, 4);
    CHECK_EQ_INT(ids[0], 3);
    rg__free(ids);
    ok(rg__sql_count(conn, &ctx, t, where, strlen(where), p, 2, &count, &err));
    CHECK_EQ_INT(count, 10);
    ok(rg__sql_count(conn, &ctx, t, "", 0, NULL, 0, &count, &err));
    CHECK_EQ_INT(count, 40);
    forget();
    free_rows(rows, 40);
    end(t);
}

TEST(conditions_that_are_refused) {
    static const struct {
        const char *where, *says;
        size_t n;
    } rows[] = {
        {"id = ? and u8 = ?", "2 placeholders, 1 value", 1},
        {"id = '?'", "0 placeholders, 1 value", 1},
        {"id = 1; drop table x", "';'", 0},
        {"id = (1", "'('", 0},
        {"id = 1) or (1", "')'", 0},
        {"name = 'x", "quote", 0},
        {"id = 1 /* x", "comment", 0},
        {"id = 1 /*!50000 or 1 */", "/*!", 0},
        {"id = 1 group by id", "GROUP", 0},
        {"id = 1 union select 1", "UNION", 0},
        {"1 limit 3", "LIMIT", 0},
        {"1 for update", "FOR", 0},
        {"1 into outfile 'x'", "INTO", 0},
    };
    rg_type *t = begin("rg_refused", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg__param p = {.kind = RG__P_I64, .i = 1};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_EQ_INT(rg__sql_search(conn, &ctx, t, rows[i].where, strlen(rows[i].where), &p,
                                    rows[i].n, 0, 1, keep, &got, &err),
                     RG_EINVALID);
        if (!CHECK(strstr(err.message, rows[i].says)))
            printf("# %s: %s\n", rows[i].where, err.message);
    }
    CHECK_EQ_INT(rg__sql_search(conn, &ctx, t, "nope = 1", 8, NULL, 0, 0, 0, keep, &got, &err),
                 RG_ESCHEMA);
    CHECK_STR(err.field, "nope");
    CHECK_STR(err.entity, "rg_refused");
    CHECK_EQ_INT(
        search(t, "rg_refused.name is null or 'a;b' = \"c)d\" /* ; ( */ # '", NULL, 0, 0, 1), 0);
    end(t);
}

/* ---- tables that are not as the type says ---- */

static bool reading_fails(const rg_type *t, const char *names) {
    uint64_t id = 1;
    forget();
    int code = rg__sql_select_ids(conn, &ctx, t, &id, 1, RG__LOCK_NONE, keep, &got, &err);
    bool right = CHECK_EQ_INT(code, RG_ESCHEMA) && CHECK_STR(err.field, names);
    if (!right) printf("# %s\n", err.message);
    return right && CHECK(!rg__mysql_broken(conn));
}

TEST(what_a_type_cannot_hold) {
    rg_type *t = begin("rg_drift", RG_IDS_BLOCK, 0);
    rg_block *row = middle(1, 1);
    insert(t, &row, 1);
    rg_block_unref(row);
    run("ALTER TABLE rg_drift MODIFY i8 INT NULL, MODIFY state ENUM('new','active','it''s','more') "
        "NOT NULL,"
        " MODIFY money DECIMAL(40,8) NOT NULL, MODIFY friends TEXT NOT NULL");
    run("UPDATE rg_drift SET i8=300");
    reading_fails(t, "i8");
    run("UPDATE rg_drift SET i8=NULL");
    reading_fails(t, "i8");
    run("UPDATE rg_drift SET i8=1, state='more'");
    reading_fails(t, "state");
    run("UPDATE rg_drift SET state='new', friends='{}'");
    reading_fails(t, "friends");
    run("UPDATE rg_drift SET friends='[ 1, \"2\" ]', money=123456789012345678901234567890");
    reading_fails(t, "money");
    run("UPDATE rg_drift SET money=1.5");
    uint64_t id = 1;
    forget();
    ok(rg__sql_select_ids(conn, &ctx, t, &id, 1, RG__LOCK_NONE, keep, &got, &err));
    REQUIRE(got.n == 1);
    char text[64];
    int len = rg_row_text(t, rg_block_data(got.rows[0]), 14, text, sizeof text);
    CHECK(len == 8 && memcmp(text, "1.500000", 8) == 0);
    rg__value v = rg__row_value(t, rg_block_data(got.rows[0]), REFS);
    CHECK_EQ_INT(v.s.len, 16);
    forget();
    end(t);
}

TEST(zero_dates) {
    rg_type *t = begin("rg_zero", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_type *strict = make_type("rg_zero", RG_IDS_BLOCK, 0);
    rg_block *row = middle(1, 1);
    uint64_t id = 1;
    insert(t, &row, 1);
    rg_block_unref(row);
    run("SET sql_mode=''");
    run("UPDATE rg_zero SET day='0000-00-00', at='0000-00-00'");
    rg__mysql_taint(conn);
    forget();
    ok(rg__sql_select_ids(conn, &ctx, t, &id, 1, RG__LOCK_NONE, keep, &got, &err));
    ok(rg__sql_select_ids(conn, &ctx, strict, &id, 1, RG__LOCK_NONE, keep, &got, &err));
    REQUIRE(got.n == 2);
    CHECK(rg__row_value(t, rg_block_data(got.rows[0]), 21).is_null);
    CHECK(rg__row_value(t, rg_block_data(got.rows[0]), 22).is_null);
    char text[64] = "";
    rg_row_text(strict, rg_block_data(got.rows[1]), 21, text, sizeof text);
    CHECK(memcmp(text, "1000-01-01", 10) == 0);
    forget();
    rg_type_free(strict);
    end(t);
    rg__mysql_release(conn);
    ok(rg__mysql_acquire(pool, &ctx, &conn, &err));
}

/* ---- a callee that has enough, duplicates, locks ---- */

static int stop_at_two(void *arg, rg_block *row) {
    rg_block_unref(row);
    return ++*(int *)arg == 2 ? RG_ECANCELLED : 0;
}

TEST(a_callee_may_stop) {
    rg_type *t = begin("rg_stop", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[9];
    uint64_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    int calls = 0;
    make_rows(rows, 9, 0, 1);
    insert(t, rows, 9);
    CHECK_EQ_INT(
        rg__sql_select_ids(conn, &ctx, t, ids, 9, RG__LOCK_NONE, stop_at_two, &calls, &err),
        RG_ECANCELLED);
    CHECK_EQ_INT(calls, 2);
    check_table(t, rows, 9);
    free_rows(rows, 9);
    end(t);
}

/* Where the client library can send without reading: MariaDB's, to a MariaDB. */
TEST(asked_now_and_taken_later) {
    rg_type *t = begin("rg_asked", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[9];
    const uint64_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    make_rows(rows, 9, 0, 1);
    insert(t, rows, 9);
    CHECK(rg__sql_ask_ids(pool, &ctx, t, ids, 9) == NULL); /* no connection is idle */
    check_table(t, rows, 9);
    bool can = conn->pipelines;
    rg__mysql_release(conn);
    for (int round = 0; can && round < 6; round++) {
        int calls = 0;
        rg__asked *a = rg__sql_ask_ids(pool, &ctx, t, ids, 9);
        REQUIRE(a);
        if (round % 2) {
            CHECK_EQ_INT(rg__sql_take_ids(a, &ctx, stop_at_two, &calls), RG_ECANCELLED);
            continue;
        }
        CHECK_EQ_INT(rg__sql_take_ids(a, &ctx, keep, &got), RG_OK);
        CHECK_EQ_INT(got.n, 9);
        for (int i = 0; i < 9; i++) check_same(t, row_of(t, ids[i]), rows[i]);
        forget();
    }
    uint32_t busy, idle, before;
    rg__mysql_pool_stats(pool, &busy, &before);
    rg__asked *a = can ? rg__sql_ask_ids(pool, &ctx, t, ids, 9) : NULL;
    if (a) rg__sql_drop_ids(a);
    rg__mysql_pool_stats(pool, &busy, &idle);
    CHECK_EQ_INT(busy, 0);
    CHECK_EQ_INT(idle, before - (a != NULL));
    ok(rg__mysql_acquire(pool, &ctx, &conn, &err));
    check_table(t, rows, 9);
    free_rows(rows, 9);
    end(t);
}

TEST(failures_name_entity_and_index) {
    rg_type *t = begin("rg_dup", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[4];
    make_rows(rows, 4, 0, 1);
    const void **data = data_of(rows, 4);
    run("ALTER TABLE rg_dup ADD UNIQUE KEY only_one (u8)");
    CHECK_EQ_INT(rg__sql_insert(conn, &ctx, t, data, 1, NULL, &err), 0);
    CHECK_EQ_INT(rg__sql_insert(conn, &ctx, t, data, 1, NULL, &err), RG_EDUPLICATE_KEY);
    CHECK_STR(err.index, "PRIMARY");
    CHECK_STR(err.entity, "rg_dup");
    CHECK_EQ_INT(rg__sql_insert(conn, &ctx, t, data + 1, 3, NULL, &err), 0);
    run("DELETE FROM rg_dup WHERE id=1");
    run("UPDATE rg_dup SET u8=0 WHERE id=3");
    CHECK_EQ_INT(rg__sql_insert(conn, &ctx, t, data, 1, NULL, &err), RG_EDUPLICATE_KEY);
    CHECK_STR(err.index, "only_one");
    CHECK(strncmp(err.message, "rg_dup: inserting: duplicate key 'only_one'", 42) == 0);
    CHECK_EQ_INT(err.domain, RG_DOMAIN_MYSQL);
    CHECK_EQ_INT(err.sql_errno, 1062);
    rg__free(data);
    free_rows(rows, 4);
    end(t);
}

/* ---- out of memory ---- */

typedef int (*deed)(rg__mysql *c, const rg_type *t, const void *const *rows);
static const uint64_t three[] = {1, 2, 3};

static int do_insert(rg__mysql *c, const rg_type *t, const void *const *rows) {
    uint64_t ids[4];
    int code = rg__sql_insert(c, &ctx, t, rows, 3, ids, &err);
    return code ? code : rg__sql_insert(c, &ctx, t, rows + 3, 1, ids, &err);
}
static int do_update(rg__mysql *c, const rg_type *t, const void *const *rows) {
    uint8_t mask[N_COLUMNS] = {[5] = 1, [15] = 1, [REFS] = 1};
    uint64_t n;
    int code = rg__sql_update(c, &ctx, t, mask, rows, three, 3, &n, &err);
    return code ? code : rg__sql_update(c, &ctx, t, mask, rows, NULL, 1, &n, &err);
}
static int do_delete(rg__mysql *c, const rg_type *t, const void *const *rows) {
    uint64_t n;
    (void)rows;
    int code = rg__sql_delete(c, &ctx, t, three, three, 3, &n, &err);
    return code ? code : rg__sql_delete(c, &ctx, t, three, NULL, 1, &n, &err);
}
static int do_select(rg__mysql *c, const rg_type *t, const void *const *rows) {
    forget();
    int code = rg__sql_select_ids(c, &ctx, t, three, 3, RG__LOCK_NONE, keep, &got, &err);
    if (code == 0)
        code = rg__sql_select_index(c, &ctx, t, &t->indexes[0], rows[1], RG__LOCK_NONE, 1, keep,
                                    &got, &err);
    forget();
    return code;
}
static int do_search(rg__mysql *c, const rg_type *t, const void *const *rows) {
    const rg__param p = {.kind = RG__P_STRING, .s = {"x", 1}};
    uint64_t *ids = NULL, count;
    size_t n;
    (void)rows;
    forget();
    int code = rg__sql_search(c, &ctx, t, "name<>?", 7, &p, 1, 0, 2, keep, &got, &err);
    if (code == 0) code = rg__sql_search_ids(c, &ctx, t, "name<>?", 7, &p, 1, 1, 2, &ids, &n, &err);
    rg__free(ids);
    if (code == 0) code = rg__sql_count(c, &ctx, t, "name<>?", 7, &p, 1, &count, &err);
    forget();
    return code;
}
static int do_query(rg__mysql *c, const rg_type *t, const void *const *rows) {
    const rg__param p = {.kind = RG__P_BYTES, .s = {"x", 1}};
    uint64_t first;
    rg__result *r = NULL;
    (void)rows;
    int code =
        rg__mysql_query(c, &ctx, "SELECT ?, REPEAT('x', 300), 1.5", 31, &p, 1, true, &r, &err);
    rg__result_free(r);
    if (code == 0) code = rg__mysql_query(c, &ctx, "SELECT 1, 'x'", 13, NULL, 0, true, &r, &err);
    if (code == 0) rg__result_free(r);
    return code ? code : rg__sql_reserve_ids(c, &ctx, t, 1, &first, &err);
}

TEST(out_of_memory_anywhere_is_an_error) {
    static const deed deeds[] = {do_insert, do_select, do_search, do_update, do_query, do_delete};
    rg_type *t = begin("rg_memory", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *rows[4];
    make_rows(rows, 4, 0, 1);
    const void **data = data_of(rows, 4);
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        int code = RG_ENO_MEMORY;
        for (long n = 1; code == RG_ENO_MEMORY && n < 500; n++) {
            rg__mysql *c = NULL;
            if (deeds[i] == do_insert) run("DELETE FROM rg_memory");
            rg__alloc_fail_at(n, 0);
            code = rg__mysql_acquire(pool, &ctx, &c, &err);
            if (code == 0) code = deeds[i](c, t, data);
            rg__alloc_fail_at(0, 0);
            if (c) rg__mysql_poison(c); /* the next one prepares everything again */
            if (c) rg__mysql_release(c);
        }
        if (!CHECK_EQ_INT(code, 0)) printf("# deed %zu: %s\n", i, err.message);
    }
    run("DELETE FROM _regolith_ids WHERE name='rg_memory'");
    rg__free(data);
    free_rows(rows, 4);
    end(t);
}

/* ---- blocks of ids ---- */

TEST(blocks_of_ids) {
    rg_type *t = begin("rg_ids", RG_IDS_BLOCK, RG_COL_NULLABLE);
    rg_block *row = middle(41, 1);
    uint64_t first = 0;
    run("DROP TABLE IF EXISTS _regolith_ids");
    insert(t, &row, 1);
    rg_block_unref(row);
    ok(rg__sql_reserve_ids(conn, &ctx, t, 100, &first, &err));
    CHECK_EQ_INT(first, 42);
    ok(rg__sql_reserve_ids(conn, &ctx, t, 1, &first, &err));
    CHECK_EQ_INT(first, 142);
    ok(rg__mysql_begin(conn, &ctx, &err));
    CHECK_EQ_INT(rg__sql_reserve_ids(conn, &ctx, t, 1, &first, &err), RG_EMISUSE);
    rg__mysql_rollback(conn, &ctx);
    run("UPDATE _regolith_ids SET next=9007199254740990 WHERE name='rg_ids'");
    CHECK_EQ_INT(rg__sql_reserve_ids(conn, &ctx, t, 4, &first, &err), RG_ELIMIT);
    ok(rg__sql_reserve_ids(conn, &ctx, t, 3, &first, &err));
    CHECK_EQ_INT(first, 9007199254740990);
    CHECK_EQ_INT(rg__sql_reserve_ids(conn, &ctx, t, 1, &first, &err), RG_ELIMIT);
    run("DELETE FROM _regolith_ids WHERE name='rg_ids'");
    end(t);
}

int main(int argc, char **argv) {
    const char *path = getenv("REGOLITH_MYSQL_SOCKET"), *database = getenv("REGOLITH_MYSQL_DB");
    if (!path || !database) {
        printf("0 passed, 0 failed\n");
        return 0;
    }
    rg_pool_opts o = {.size = sizeof o, .unix_path = path, .user = "root", .database = database};
    rg__mysql_library(&err);
    pool = rg__mysql_pool_new(&o, &err);
    if (!pool || rg__mysql_acquire(pool, &ctx, &conn, &err)) {
        printf("# %s\n0 passed, 1 failed\n", err.message);
        return 1;
    }
    int rc = unit_main(argc, argv);
    rg__mysql_release(conn);
    rg__mysql_pool_free(pool);
    return rc;
}
