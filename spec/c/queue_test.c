/* SPDX-License-Identifier: MIT */
/* The write-behind queue: payload bytes, changes; with servers the consumer, dead letters, crashes.
 * Servers come by REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB and REGOLITH_REDIS_SOCKET; without them
 * only what needs none is tested. REGOLITH_LONG=1: 10,000 kills. `queue_test bench` measures. */
#include "queue/batch.h"
#include "queue/payload.h"
#include "base/alloc.h"
#include "base/err.h"
#include "row/row.h"
#include "unit.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- types ---- */

typedef struct field {
    const char *name;
    int kind;
    uint32_t flags, length, precision, scale;
    const char *values[4];
    const char *target, *def, *collation;
} field;

typedef struct index_def {
    const char *name, *columns[3];
    uint32_t flags;
} index_def;

static rg_type *new_type(const char *name, const char *table, const field *fields, size_t n,
                         const index_def *indexes, size_t n_indexes, int cached) {
    rg_err err;
    rg_type_opts o = {.size = sizeof o, .name = name, .table = table, .ids = RG_IDS_APPLICATION,
                      .cache_redis = cached};
    rg_type *t = rg_type_new(&o, &err);
    for (size_t i = 0; t && i < n; i++) {
        const field *f = &fields[i];
        rg_column_opts c = {.size = sizeof c, .name = f->name, .kind = f->kind, .flags = f->flags,
                            .length = f->length, .precision = f->precision, .scale = f->scale,
                            .values = f->values, .target = f->target, .def = f->def,
                            .collation = f->collation};
        while (c.n_values < 4 && f->values[c.n_values]) c.n_values++;
        if (rg_type_column(t, &c, &err) < 0) {
            printf("# %s\n", err.message);
            abort();
        }
    }
    for (size_t i = 0; t && i < n_indexes; i++) {
        rg_index_opts x = {.size = sizeof x, .name = indexes[i].name, .columns = indexes[i].columns,
                           .flags = indexes[i].flags};
        while (x.n_columns < 3 && indexes[i].columns[x.n_columns]) x.n_columns++;
        if (rg_type_index(t, &x, &err) < 0) {
            printf("# %s\n", err.message);
            abort();
        }
    }
    if (!t || rg_type_freeze(t, &err) < 0) {
        printf("# %s\n", err.message);
        abort();
    }
    t->redis_pool = 0;
    return t;
}

static void add_type(rg__schema *s, rg_type *t) {
    rg_err err;
    if (rg__schema_add(s, t, &err) < 0) abort();
}

static void resolve(rg__schema *s) {
    rg_err err;
    if (rg__schema_resolve(s, &err) < 0) {
        printf("# %s\n", err.message);
        abort();
    }
}

static const field item_fields[] = {
    {"name", RG_STRING, .length = 40},
    {"qty", RG_I32, .flags = RG_COL_NULLABLE},
    {.name = "big", .kind = RG_U64},
    {.name = "flag", .kind = RG_BOOL},
    {"price", RG_DECIMAL, .precision = 10, .scale = 2},
    {"state", RG_ENUM, .values = {"new", "old", "gone"}},
    {"tags", RG_SET, .values = {"red", "green", "blue"}},
    {"born", RG_DATE, .flags = RG_COL_NULLABLE},
    {"seen", RG_DATETIME, .flags = RG_COL_NULLABLE},
    {"took", RG_TIME, .flags = RG_COL_NULLABLE},
    {"note", RG_TEXT, .flags = RG_COL_NULLABLE},
    {"data", RG_BLOB, .flags = RG_COL_NULLABLE},
    {"parent", RG_REF, .flags = RG_COL_NULLABLE, .target = "item"},
    {"friends", RG_REFS, .target = "item"},
    {"doc", RG_JSON, .flags = RG_COL_NULLABLE},
    {.name = "ratio", .kind = RG_DOUBLE},
    {.name = "part", .kind = RG_FLOAT},
    {.name = "tiny", .kind = RG_I8},
    {.name = "small", .kind = RG_U16},
    {.name = "medium", .kind = RG_I24},
};
static const index_def item_indexes[] = {
    {"name", {"name"}, RG_INDEX_UNIQUE},
    {"qty", {"qty", "state"}, RG_INDEX_CACHED},
    {"all", {NULL}, RG_INDEX_VIRTUAL},
};
enum { ITEM_FIELDS = sizeof item_fields / sizeof *item_fields };
enum { NAME = 1, QTY, BIG, FLAG, PRICE, STATE, TAGS, BORN, SEEN, TOOK, NOTE, DATA, PARENT, FRIENDS, DOC,
       RATIO, PART, TINY, SMALL, MEDIUM };

static const field tick_fields[] = {
    {"version", RG_U32, .flags = RG_COL_VERSION},
    {"text", RG_STRING, .length = 20},
};

static void make_schema(rg__schema *s) {
    *s = (rg__schema){0};
    add_type(s, new_type("item", "items", item_fields, ITEM_FIELDS, item_indexes, 3, 1));
    add_type(s, new_type("tick", "ticks", tick_fields, 2, NULL, 0, 0));
    resolve(s);
}

static rg_block *finish(rg_builder *b) {
    rg_err err;
    rg_block *row = rg__builder_finish(b, true, 0, &err);
    if (!row) printf("# %s\n", err.message);
    rg_builder_free(b);
    return row;
}

static rg_block *item(const rg_type *t, uint64_t id, const char *name, int qty) {
    rg_err err;
    rg_builder *b = rg_builder_new(t, &err);
    rg_builder_u64(b, 0, id, &err);
    rg_builder_string(b, NAME, name, strlen(name), &err);
    if (qty >= 0) rg_builder_i64(b, QTY, qty, &err);
    rg_builder_u64(b, BIG, UINT64_MAX - id, &err);
    rg_builder_bool(b, FLAG, 1, &err);
    rg_builder_string(b, PRICE, "12.50", 5, &err);
    rg_builder_string(b, STATE, "old", 3, &err);
    rg_builder_string(b, TAGS, "red,blue", 8, &err);
    rg_builder_string(b, BORN, "2024-02-29", 10, &err);
    rg_builder_string(b, SEEN, "2024-02-29 12:34:56.000007", 26, &err);
    rg_builder_string(b, TOOK, "-12:30:00", 9, &err);
    rg_builder_string(b, NOTE, "", 0, &err);
    rg_builder_refs_begin(b, FRIENDS, &err);
    rg_builder_refs_add(b, FRIENDS, 7, &err);
    rg_builder_refs_add(b, FRIENDS, 9, &err);
    rg_builder_string(b, DOC, "{\"a\":1}", 7, &err);
    rg_builder_number(b, RATIO, 0.1, &err);
    rg_builder_number(b, PART, 0.5, &err);
    rg_builder_i64(b, TINY, -128, &err);
    rg_builder_u64(b, SMALL, 65535, &err);
    rg_builder_i64(b, MEDIUM, -8388608, &err);
    return finish(b);
}

static rg_block *tick(const rg_type *t, uint64_t id, uint32_t version, const char *text) {
    rg_err err;
    rg_builder *b = rg_builder_new(t, &err);
    rg_builder_u64(b, 0, id, &err);
    rg_builder_u64(b, 1, version, &err);
    rg_builder_string(b, 2, text, strlen(text), &err);
    return finish(b);
}

static rg__slice slice_of(const rg__buf *b) { return (rg__slice){b->p, b->len}; }

/* ---- payloads ---- */

static void free_blocks(rg_block **blocks, size_t n) {
    for (size_t i = 0; i < n; i++) rg_block_unref(blocks[i]);
}

TEST(codec_gives_back_what_it_got) {
    rg__schema s;
    rg_err err;
    make_schema(&s);
    const rg_type *t = s.types[0];
    rg_block *a = item(t, 1, "one", 5), *b = item(t, 1, "uno", -1), *k = tick(s.types[1], 3, 8, "tock");
    uint8_t mask[32] = {0}, version[3] = {0, 1, 1};
    uint32_t changed = rg__row_diff(t, a->data, b->data, mask);
    CHECK_EQ_INT(changed, 2);
    rg__qop ops[] = {{RG_INSERT, t, 1, NULL, a->data, NULL, 0},
                     {RG_UPDATE, t, 1, mask, b->data, a->data, 0},
                     {RG_UPDATE, s.types[1], 3, version, k->data, NULL, 7},
                     {RG_DELETE, t, 1, NULL, NULL, b->data, 0},
                     {RG_DELETE, s.types[1], 3, NULL, NULL, NULL, 8}};
    rg__buf out = {0};
    REQUIRE(rg__qop_encode(ops, 5, &out, &err) == 0);
    CHECK_EQ_INT(rg__payload_count(slice_of(&out)), 5);
    rg__payload p;
    REQUIRE(rg__payload_decode(&s, slice_of(&out), &p, &err) == 0);
    CHECK_EQ_INT(p.n, 5);
    CHECK(p.ops[0].type == t && p.ops[0].write == RG_INSERT && p.ops[0].id == 1);
    CHECK(p.ops[0].row->len == a->len && memcmp(p.ops[0].row->data, a->data, a->len) == 0);
    CHECK(rg__row_check(t, p.ops[0].row->data, p.ops[0].row->len, &err) == 0);
    CHECK(memcmp(p.ops[1].mask, mask, t->n_columns) == 0);
    CHECK(rg__row_column_eq(t, p.ops[1].row->data, b->data, NAME));
    CHECK(rg__row_column_eq(t, p.ops[1].row->data, b->data, QTY));
    CHECK(rg__row_id(t, p.ops[1].row->data) == 1);
    for (uint32_t i = 0; i < t->n_columns; i++) {
        bool indexed = i == 0 || i == NAME || i == QTY || i == STATE;
        CHECK(!indexed || rg__row_column_eq(t, p.ops[1].before->data, a->data, i));
    }
    CHECK(p.ops[2].has_expected && p.ops[2].expected == 7);
    CHECK(p.ops[3].write == RG_DELETE && p.ops[3].before && !p.ops[3].row);
    CHECK(p.ops[4].has_expected && p.ops[4].expected == 8 && !p.ops[4].before);
    CHECK_STR(p.ops[4].entity, "tick");
    for (size_t i = 0; i < p.n; i++) CHECK(!p.ops[i].error);
    rg__payload_deinit(&p);
    rg__buf_deinit(&out);
    free_blocks((rg_block *[]){a, b, k}, 3);
    rg__schema_deinit(&s);
}

TEST(codec_alone_makes_a_payload_of_one_operation) {
    rg__schema s;
    rg_err err;
    make_schema(&s);
    rg_block *a = item(s.types[0], 1, "one", 5), *k = tick(s.types[1], 3, 8, "tock");
    rg__qop ops[] = {{RG_INSERT, s.types[0], 1, NULL, a->data, NULL, 0},
                     {RG_INSERT, s.types[1], 3, NULL, k->data, NULL, 0}};
    rg__buf out = {0}, alone = {0};
    REQUIRE(rg__qop_encode(ops, 2, &out, &err) == 0);
    rg__payload p, one;
    REQUIRE(rg__payload_decode(&s, slice_of(&out), &p, &err) == 0);
    rg__payload_alone(&p, 1, &alone);
    REQUIRE(rg__payload_decode(&s, slice_of(&alone), &one, &err) == 0);
    CHECK_EQ_INT(one.n, 1);
    CHECK(one.ops[0].type == s.types[1] && one.ops[0].row->len == k->len);
    CHECK(memcmp(one.ops[0].row->data, k->data, k->len) == 0);
    rg__payload_deinit(&one);
    rg__payload_deinit(&p);
    rg__buf_deinit(&out);
    rg__buf_deinit(&alone);
    free_blocks((rg_block *[]){a, k}, 2);
    rg__schema_deinit(&s);
}

/* The same entity as a later version of a program has it. */
static const field later_fields[] = {
    {.name = "big", .kind = RG_I64},
    {"state", RG_ENUM, .values = {"gone", "old", "fresh"}},
    {"name", RG_STRING, .length = 3},
    {"qty", RG_DECIMAL, .flags = RG_COL_NULLABLE, .precision = 12, .scale = 1},
    {.name = "flag", .kind = RG_I8},
    {"price", RG_DECIMAL, .precision = 12, .scale = 3},
    {"tags", RG_SET, .values = {"blue", "red"}},
    {"born", RG_DATETIME, .flags = RG_COL_NULLABLE},
    {"extra", RG_STRING, .length = 10, .def = "none"},
    {"note", RG_STRING, .flags = RG_COL_NULLABLE, .length = 100},
};

static rg__qdecoded *only(rg__payload *p, const rg__schema *s, const rg__qop *op) {
    rg_err err;
    rg__buf out = {0};
    if (rg__qop_encode(op, 1, &out, &err) < 0 ||
        rg__payload_decode(s, slice_of(&out), p, &err) < 0) abort();
    p->arena.failed = false;
    rg__buf_deinit(&out);
    return &p->ops[0];
}

/* Types where one field is of another kind. */
static rg__schema with(const field *f) {
    rg__schema s = {0};
    add_type(&s, new_type("v", "v", f, 1, NULL, 0, 0));
    resolve(&s);
    return s;
}

static int convert(field from, const char *text, field to, char *out, size_t cap) {
    rg_err err;
    rg__schema a = with(&from), b = with(&to);
    rg_builder *build = rg_builder_new(a.types[0], &err);
    rg_builder_u64(build, 0, 1, &err);
    if (text && rg_builder_string(build, 1, text, strlen(text), &err) < 0) abort();
    rg_block *row = finish(build);
    rg__payload p;
    rg__qdecoded *op = only(&p, &b, &(rg__qop){RG_INSERT, a.types[0], 1, NULL, row->data, NULL, 0});
    int code = op->error ? op->error->code : 0;
    int n = op->row ? rg_row_text(b.types[0], op->row->data, 1, out, cap - 1) : -1;
    out[n > 0 ? n : 0] = 0;
    CHECK(code == 0 || strcmp(op->error->field, "x") == 0 || code == RG_ESCHEMA);
    rg__payload_deinit(&p);
    rg_block_unref(row);
    rg__schema_deinit(&a);
    rg__schema_deinit(&b);
    return code;
}

#define CONVERTS(from, text, to, want)                                                             \
    do {                                                                                           \
        char got[128];                                                                             \
        CHECK_EQ_INT(convert((field)from, text, (field)to, got, sizeof got), 0);                   \
        CHECK_STR(got, want);                                                                      \
    } while (0)
#define REFUSES(from, text, to)                                                                    \
    do {                                                                                           \
        char got[128];                                                                             \
        CHECK_EQ_INT(convert((field)from, text, (field)to, got, sizeof got), RG_EINVALID);         \
    } while (0)
#define F(...) {.name = "x", .kind = __VA_ARGS__}

TEST(codec_converts_what_fits) {
    CONVERTS(F(RG_I32), "-5", F(RG_I8), "-5");
    CONVERTS(F(RG_U64), "200", F(RG_I16), "200");
    CONVERTS(F(RG_U8), "200", F(RG_DOUBLE), "200");
    CONVERTS(F(RG_I64), "-42", F(RG_DECIMAL, .precision = 6, .scale = 2), "-42.00");
    CONVERTS(F(RG_DECIMAL, .precision = 6, .scale = 2), "1.50", F(RG_DECIMAL, .precision = 8, .scale = 3), "1.500");
    CONVERTS(F(RG_ENUM, .values = {"a", "b"}), "b", F(RG_ENUM, .values = {"c", "b"}), "b");
    CONVERTS(F(RG_ENUM, .values = {"a", "b"}), "b", F(RG_STRING, .length = 1), "b");
    CONVERTS(F(RG_SET, .values = {"a", "b", "c"}), "a,c", F(RG_SET, .values = {"c", "a"}), "c,a");
    CONVERTS(F(RG_STRING, .length = 9), "b", F(RG_ENUM, .values = {"c", "b"}), "b");
    CONVERTS(F(RG_STRING, .length = 9), "h\xc3\xa9", F(RG_TEXT), "h\xc3\xa9");
    CONVERTS(F(RG_DATE), "2024-02-29", F(RG_DATETIME), "2024-02-29 00:00:00");
    CONVERTS(F(RG_FLOAT), "0.5", F(RG_DOUBLE), "0.5");
    CONVERTS(F(RG_BOOL), "1", F(RG_U32), "1");
}

TEST(codec_refuses_what_does_not_fit) {
    REFUSES(F(RG_I32), "-5", F(RG_U8));
    REFUSES(F(RG_I32), "300", F(RG_U8));
    REFUSES(F(RG_U64), "18446744073709551615", F(RG_I64));
    REFUSES(F(RG_U8), "2", F(RG_BOOL));
    REFUSES(F(RG_DOUBLE), "1e300", F(RG_FLOAT));
    REFUSES(F(RG_DOUBLE), "1", F(RG_I32));
    REFUSES(F(RG_DECIMAL, .precision = 6, .scale = 2), "1.55", F(RG_DECIMAL, .precision = 6, .scale = 1));
    REFUSES(F(RG_ENUM, .values = {"a", "b"}), "b", F(RG_ENUM, .values = {"a", "c"}));
    REFUSES(F(RG_SET, .values = {"a", "b"}), "b", F(RG_SET, .values = {"a", "c"}));
    REFUSES(F(RG_STRING, .length = 9), "long", F(RG_STRING, .length = 3));
    REFUSES(F(RG_DATETIME), "2024-02-29 00:00:00", F(RG_DATE));
    REFUSES(F(RG_STRING, .flags = RG_COL_NULLABLE, .length = 9), NULL, F(RG_STRING, .length = 9));
    REFUSES(F(RG_JSON), "1", F(RG_REFS, .target = "v"));
}

TEST(codec_reads_across_versions_of_an_entity) {
    rg__schema s, later = {0};
    rg_err err;
    make_schema(&s);
    add_type(&later, new_type("item", "things", later_fields, 10, NULL, 0, 0));
    resolve(&later);
    const rg_type *t = s.types[0], *u = later.types[0];
    rg_block *a = item(t, 1, "one", 5);
    uint8_t mask[32] = {[NAME] = 1, [QTY] = 1, [PRICE] = 1, [STATE] = 1, [TAGS] = 1, [BORN] = 1};
    rg__payload p;
    rg__qdecoded *op = only(&p, &later, &(rg__qop){RG_UPDATE, t, 1, mask, a->data, a->data, 0});
    CHECK(!op->error);
    char text[64] = {0};
    int q = rg__type_column_find(u, "qty", 3), pr = rg__type_column_find(u, "price", 5);
    rg_row_text(u, op->row->data, (uint32_t)q, text, sizeof text);
    CHECK_STR(text, "5.0");
    memset(text, 0, sizeof text);
    rg_row_text(u, op->row->data, (uint32_t)pr, text, sizeof text);
    CHECK_STR(text, "12.500");
    CHECK(op->mask[q] && op->mask[pr] && !op->mask[0]);
    rg__payload_deinit(&p);

    mask[RATIO] = 1; /* a column that the later version does not have */
    op = only(&p, &later, &(rg__qop){RG_UPDATE, t, 1, mask, a->data, NULL, 0});
    CHECK(op->error && op->error->code == RG_ESCHEMA && op->error->cls == RG_CLASS_PERMANENT);
    CHECK(!op->row);
    CHECK(op->error && strstr(op->error->message, "\"ratio\""));
    rg__payload_deinit(&p);

    rg__schema none = {0};
    op = only(&p, &none, &(rg__qop){RG_DELETE, t, 1, NULL, NULL, a->data, 0});
    CHECK(!op->type && op->error && op->error->code == RG_ESCHEMA);
    CHECK_STR(op->entity, "item");
    rg__payload_deinit(&p);
    rg_block_unref(a);
    rg__schema_deinit(&s);
    rg__schema_deinit(&later);
    (void)err;
}

TEST(codec_finds_renamed_entities_by_table_and_fills_new_columns) {
    static const field old[] = {{.name = "a", .kind = RG_I32}};
    static const field new[] = {{"b", RG_STRING, .length = 5, .def = "hi"}, {.name = "a", .kind = RG_I64},
                                {"c", RG_I32, .flags = RG_COL_NULLABLE}};
    rg__schema s = {0}, later = {0};
    rg_err err;
    add_type(&s, new_type("old", "t", old, 1, NULL, 0, 0));
    add_type(&later, new_type("new", "t", new, 3, NULL, 0, 0));
    resolve(&s);
    resolve(&later);
    rg_builder *b = rg_builder_new(s.types[0], &err);
    rg_builder_u64(b, 0, 4, &err);
    rg_builder_i64(b, 1, -6, &err);
    rg_block *row = finish(b);
    rg__payload p;
    rg__qdecoded *op = only(&p, &later, &(rg__qop){RG_INSERT, s.types[0], 4, NULL, row->data, NULL, 0});
    CHECK(!op->error && op->type == later.types[0]);
    CHECK_EQ_INT(rg__row_value(op->type, op->row->data, 2).i, -6);
    CHECK(rg__row_value(op->type, op->row->data, 3).is_null);
    rg__value v = rg__row_value(op->type, op->row->data, 1);
    CHECK_BYTES(v.s.p, v.s.len, "hi");
    rg__payload_deinit(&p);
    rg_block_unref(row);
    rg__schema_deinit(&s);
    rg__schema_deinit(&later);
}

static void reseal(rg__buf *b) {
    if (b->len < RG__PAYLOAD_HEADER) return;
    uint64_t sum = rg__payload_sum(b->p, b->len);
    memcpy(b->p + RG__PAYLOAD_SUM, &sum, 8);
}

static uint64_t seed = 88172645463325252u;
static uint64_t random_u64(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

/* Arbitrary changes: bytes flipped, cut, doubled; the checksum set right again, or it would be all
 * that is tested. */
static void mutate(rg__buf *b) {
    for (uint64_t n = 1 + random_u64() % 4; n; n--) {
        size_t at = b->len ? random_u64() % b->len : 0;
        switch (random_u64() % 5) {
        case 0: case 1: if (b->len) b->p[at] = (char)random_u64(); break;
        case 2: if (b->len) b->p[at] ^= (char)(1 << random_u64() % 8); break;
        case 3: b->len = b->len > RG__PAYLOAD_HEADER && random_u64() % 8 == 0 ? at : b->len; break;
        case 4: if (at + 4 < b->len) memset(b->p + at, random_u64() & 1 ? 0xff : 0, 4); break;
        }
    }
    reseal(b);
}

TEST(codec_survives_arbitrary_bytes) {
    rg__schema s, later = {0};
    rg_err err;
    make_schema(&s);
    add_type(&later, new_type("item", "things", later_fields, 10, NULL, 0, 0));
    resolve(&later);
    const rg_type *t = s.types[0];
    rg_block *a = item(t, 1, "one", 5), *b = item(t, 1, "uno", -1), *k = tick(s.types[1], 3, 8, "tock");
    uint8_t mask[32] = {0}, version[3] = {0, 1, 1};
    rg__row_diff(t, a->data, b->data, mask);
    rg__qop ops[] = {{RG_INSERT, t, 1, NULL, a->data, NULL, 0},
                     {RG_UPDATE, t, 1, mask, b->data, a->data, 0},
                     {RG_UPDATE, s.types[1], 3, version, k->data, NULL, 7},
                     {RG_DELETE, t, 1, NULL, NULL, b->data, 0}};
    rg__buf whole = {0}, copy = {0};
    REQUIRE(rg__qop_encode(ops, 4, &whole, &err) == 0);
    long good = 0, n = getenv("REGOLITH_LONG") ? 10000000 : 200000;
    for (long i = 0; i < n; i++) {
        rg__payload p;
        rg__buf_clear(&copy);
        rg__buf_add(&copy, whole.p, whole.len);
        mutate(&copy);
        if (rg__payload_decode(i & 1 ? &s : &later, slice_of(&copy), &p, NULL) == 0) {
            good++;
            for (size_t j = 0; j < p.n; j++)
                if (p.ops[j].row && p.ops[j].write == RG_INSERT)
                    CHECK(rg__row_check(p.ops[j].type, p.ops[j].row->data, p.ops[j].row->len, NULL) == 0);
            rg__payload_deinit(&p);
        }
    }
    CHECK(good > n / 20);
    rg__buf_deinit(&whole);
    rg__buf_deinit(&copy);
    free_blocks((rg_block *[]){a, b, k}, 3);
    rg__schema_deinit(&s);
    rg__schema_deinit(&later);
}

TEST(codec_cut_anywhere_is_corrupt) {
    rg__schema s;
    rg_err err;
    make_schema(&s);
    rg_block *a = item(s.types[0], 1, "one", 5);
    rg__qop op = {RG_INSERT, s.types[0], 1, NULL, a->data, NULL, 0};
    rg__buf whole = {0}, copy = {0};
    REQUIRE(rg__qop_encode(&op, 1, &whole, &err) == 0);
    for (size_t n = 0; n < whole.len; n++) {
        rg__payload p;
        rg__buf_clear(&copy);
        rg__buf_add(&copy, whole.p, n);
        CHECK_EQ_INT(rg__payload_decode(&s, slice_of(&copy), &p, &err), RG_ECORRUPT);
        reseal(&copy);
        CHECK_EQ_INT(rg__payload_decode(&s, slice_of(&copy), &p, &err), RG_ECORRUPT);
    }
    rg__buf_deinit(&whole);
    rg__buf_deinit(&copy);
    rg_block_unref(a);
    rg__schema_deinit(&s);
}

TEST(codec_survives_failing_allocations) {
    rg__schema s;
    rg_err err;
    make_schema(&s);
    rg_block *a = item(s.types[0], 1, "one", 5);
    rg__qop op = {RG_INSERT, s.types[0], 1, NULL, a->data, NULL, 0};
    rg__buf whole = {0};
    REQUIRE(rg__qop_encode(&op, 1, &whole, &err) == 0);
    int failures = 0;
    for (long n = 1; n < 60; n++) {
        rg__payload p;
        rg__buf out = {0};
        rg__alloc_fail_at(n, 1);
        int rc = rg__payload_decode(&s, slice_of(&whole), &p, &err);
        rg__alloc_fail_at(n, 0);
        int rc2 = rg__qop_encode(&op, 1, &out, &err);
        rg__alloc_fail_at(0, 0);
        CHECK(rc == 0 || rc == RG_ENO_MEMORY);
        CHECK(rc2 == 0 || rc2 == RG_ENO_MEMORY);
        failures += rc < 0;
        if (rc == 0) rg__payload_deinit(&p);
        rg__buf_deinit(&out);
    }
    CHECK(failures > 3);
    rg__buf_deinit(&whole);
    rg_block_unref(a);
    rg__schema_deinit(&s);
}

TEST(positions_are_parsed_and_ordered) {
    rg__pos a, b;
    char text[RG__POS_TEXT];
    CHECK(rg__pos_parse(rg__slice_of("12-0"), &a) && rg__pos_parse(rg__slice_of("12-3"), &b));
    CHECK(rg__pos_compare(a, b) < 0 && rg__pos_compare(b, a) > 0 && rg__pos_compare(a, a) == 0);
    CHECK(rg__pos_parse(rg__slice_of("18446744073709551615-18446744073709551615"), &a));
    rg__pos_format(a, text);
    CHECK_STR(text, "18446744073709551615-18446744073709551615");
    const char *bad[] = {"", "1", "-", "1-", "-1", "1-2-3", "a-1", "18446744073709551616-0", "1-2 "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!rg__pos_parse(rg__slice_of(bad[i]), &a));
}

UNIT_MAIN
