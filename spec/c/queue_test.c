/* SPDX-License-Identifier: MIT */
/* The write-behind queue: payload bytes, changes; with servers the consumer, dead letters, crashes.
 * Servers come by REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB and REGOLITH_REDIS_SOCKET; without them
 * only what needs none is tested. REGOLITH_LONG=1: 10,000 kills, 3,000 cut COMMITs, ten million
 * changed payloads. */
#define DATABASE "regolith_queue_test"
#define PREFIX "qtest"
#include "queue_support.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

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
enum { NAME = 1, QTY, BIG, FLAG, PRICE, STATE, TAGS, BORN, SEEN, TOOK, NOTE, DATA, PARENT, FRIENDS,
      JSON_DOC,
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
    rg_builder_string(b, JSON_DOC, "{\"a\":1}", 7, &err);
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

/* ---- payloads ---- */

TEST(codec_gives_back_what_it_got) {
    rg__schema s;
    rg_err err;
    make_schema(&s);
    const rg_type *t = s.types[0];
    rg_block *a = item(t, 1, "one", 5), *b = item(t, 1, "uno", -1), *k = tick(s.types[1], 3, 8, "tock");
    uint8_t mask[32] = {0}, version[3] = {0, 1, 1};
    uint32_t changed = rg__row_diff(t, a->data, b->data, mask);
    CHECK_EQ_INT(changed, 2);
    rg__qop ops[] = {{RG_INSERT, t, 1, NULL, a->data, NULL, 0, NULL, NULL, NULL},
                     {RG_UPDATE, t, 1, mask, b->data, a->data, 0, NULL, NULL, NULL},
                     {RG_UPDATE, s.types[1], 3, version, k->data, NULL, 7, NULL, NULL, NULL},
                     {RG_DELETE, t, 1, NULL, NULL, b->data, 0, NULL, NULL, NULL},
                     {RG_DELETE, s.types[1], 3, NULL, NULL, NULL, 8, NULL, NULL, NULL}};
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
    rg__qop ops[] = {{RG_INSERT, s.types[0], 1, NULL, a->data, NULL, 0, NULL, NULL, NULL},
                     {RG_INSERT, s.types[1], 3, NULL, k->data, NULL, 0, NULL, NULL, NULL}};
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
    rg__qdecoded *op = only(&p, &b, &(rg__qop){RG_INSERT, a.types[0], 1, NULL, row->data, NULL, 0, NULL, NULL, NULL});
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
    rg__qdecoded *op = only(&p, &later, &(rg__qop){RG_UPDATE, t, 1, mask, a->data, a->data, 0, NULL, NULL, NULL});
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
    op = only(&p, &later, &(rg__qop){RG_UPDATE, t, 1, mask, a->data, NULL, 0, NULL, NULL, NULL});
    CHECK(op->error && op->error->code == RG_ESCHEMA && op->error->cls == RG_CLASS_PERMANENT);
    CHECK(!op->row);
    CHECK(op->error && strstr(op->error->message, "\"ratio\""));
    rg__payload_deinit(&p);

    rg__schema none = {0};
    op = only(&p, &none, &(rg__qop){RG_DELETE, t, 1, NULL, NULL, a->data, 0, NULL, NULL, NULL});
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
    rg__qdecoded *op = only(&p, &later, &(rg__qop){RG_INSERT, s.types[0], 4, NULL, row->data, NULL,
                                                   0, NULL, NULL, NULL});
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
    rg__qop ops[] = {{RG_INSERT, t, 1, NULL, a->data, NULL, 0, NULL, NULL, NULL},
                     {RG_UPDATE, t, 1, mask, b->data, a->data, 0, NULL, NULL, NULL},
                     {RG_UPDATE, s.types[1], 3, version, k->data, NULL, 7, NULL, NULL, NULL},
                     {RG_DELETE, t, 1, NULL, NULL, b->data, 0, NULL, NULL, NULL}};
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
                    CHECK(rg__row_check(p.ops[j].type, p.ops[j].row->data, p.ops[j].row->len,
                                        NULL) == 0);
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
    rg__qop op = {RG_INSERT, s.types[0], 1, NULL, a->data, NULL, 0, NULL, NULL, NULL};
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
    rg__qop op = {RG_INSERT, s.types[0], 1, NULL, a->data, NULL, 0, NULL, NULL, NULL};
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


TEST(operations_of_another_database_are_refused) {
    rg__schema s;
    rg_err err;
    make_schema(&s);
    rg__queue q = {.name = "queue_test", .schema = &s};
    rg__qdecoded op = {.write = RG_DELETE, .type = s.types[0], .id = 1, .entity = "item"};
    CHECK_EQ_INT(rg__qop_check(&q, &op, &err), 0);
    q.name = "elsewhere";
    CHECK_EQ_INT(rg__qop_check(&q, &op, &err), RG_ESCHEMA);
    CHECK_EQ_INT(err.cls, RG_CLASS_PERMANENT);
    rg__schema_deinit(&s);
}

TEST(consumer_applies_and_tells_the_caches) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    for (uint64_t i = 1; i <= 300; i++) {
        char name[24];
        snprintf(name, sizeof name, "doc %d", (int)i);
        put(&p, &w, DOC, RG_INSERT, doc(&w, i, name, i % 2 ? "1" : NULL, "text"), NULL);
    }
    enqueue(&w, &p);
    for (uint64_t i = 1; i <= 10; i++) {
        char name[24], other[24];
        snprintf(name, sizeof name, "doc %d", (int)i);
        snprintf(other, sizeof other, "other %d", (int)i);
        rg_block *before = doc(&w, i, name, i % 2 ? "1" : NULL, "text");
        if (i <= 5) put(&p, &w, DOC, RG_UPDATE, doc(&w, i, other, "2", "text"), before);
        else put(&p, &w, DOC, RG_DELETE, NULL, before);
        enqueue(&w, &p);
    }
    CHECK(pending(&w) > 300);
    rg__consumer *c = consumer(&w, 256);
    CHECK_EQ_INT(drain(&w, c), 310);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_doc"), 295);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_doc WHERE grp=2 AND name LIKE 'other%%'"), 5);
    CHECK_EQ_INT(pending(&w), 0);
    rg__consumer_totals t = rg__consumer_totals_get(c);
    CHECK_EQ_INT(t.applied, 310);
    CHECK_EQ_INT(t.dead, 0);
    CHECK_EQ_INT(t.lag, 0);
    CHECK_EQ_INT(sql(&w, "SELECT applied_ops FROM _regolith_ledger WHERE queue='queue_test'"), 310);
    /* rows that were verified stay as hits */
    rg__key key;
    rg__entry e;
    rg__key_row(w.shared, w.schema.types[DOC], 3, &key);
    rg__shared_get(w.shared, &w.ctx, w.schema.types[DOC], true, &key, 1, &e);
    CHECK(e.found == RG__VALUE && !e.pending);
    rg_block *want = doc(&w, 3, "other 3", "2", "text");
    CHECK(e.block && e.block->len == want->len && memcmp(e.block->data, want->data, want->len) ==
          0);
    rg_block_unref(want);
    rg__entry_deinit(&e);
    rg__key_deinit(&key);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(consumer_keeps_the_order_of_a_row) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    for (int i = 0; i < 40; i++) {
        put(&p, &w, ACCOUNT, RG_INSERT, account(&w, 1, 1, "a"), NULL);
        put(&p, &w, LOG, RG_INSERT, log_row(&w, 1 + (uint64_t)i, 1, (uint64_t)i), NULL);
        enqueue(&w, &p);
        put(&p, &w, ACCOUNT, RG_UPDATE, account(&w, 1, 2, "b"), account(&w, 1, 1, "a"));
        enqueue(&w, &p);
        put(&p, &w, ACCOUNT, RG_UPDATE, account(&w, 1, 3, "a"), account(&w, 1, 2, "b"));
        enqueue(&w, &p);
        put(&p, &w, ACCOUNT, RG_DELETE, NULL, account(&w, 1, 3, "a"));
        enqueue(&w, &p);
        put(&p, &w, ACCOUNT, RG_INSERT, account(&w, 2, 1, "a"), NULL);
        put(&p, &w, ACCOUNT, RG_INSERT, account(&w, 3, 1, "b"), NULL);
        enqueue(&w, &p);
        put(&p, &w, ACCOUNT, RG_DELETE, NULL, account(&w, 2, 1, "a"));
        put(&p, &w, ACCOUNT, RG_DELETE, NULL, account(&w, 3, 1, "b"));
        enqueue(&w, &p);
    }
    put(&p, &w, ACCOUNT, RG_INSERT, account(&w, 9, 1, "a"), NULL);
    put(&p, &w, ACCOUNT, RG_INSERT, account(&w, 8, 1, "b"), NULL);
    enqueue(&w, &p);
    /* values change hands: in this order only */
    put(&p, &w, ACCOUNT, RG_UPDATE, account(&w, 9, 2, "c"), account(&w, 9, 1, "a"));
    enqueue(&w, &p);
    put(&p, &w, ACCOUNT, RG_UPDATE, account(&w, 8, 2, "a"), account(&w, 8, 1, "b"));
    enqueue(&w, &p);
    rg__consumer *c = consumer(&w, 256);
    drain(&w, c);
    CHECK_EQ_INT(rg__consumer_totals_get(c).dead, 0);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_account"), 2);
    CHECK_EQ_INT(sql(&w, "SELECT id FROM qt_account WHERE code='a' AND version=2"), 8);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), 40);
    CHECK_EQ_INT(pending(&w), 0);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(consumer_groups_what_may_go_together) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    for (uint64_t i = 1; i <= 100; i++) put(&p, &w, DOC, RG_INSERT, doc(&w, i,
                                                                        (char[]){(char)('A' + i % 50), (char)('A' + i / 50), 0}, NULL, NULL), NULL);
    enqueue(&w, &p);
    drain_once(&w);
    /* updates of free columns, inserts elsewhere and deletes, mixed up */
    for (uint64_t i = 1; i <= 100; i++) {
        char name[3] = {(char)('A' + i % 50), (char)('A' + i / 50), 0};
        rg_block *before = doc(&w, i, name, NULL, NULL);
        if (i % 10 == 0) put(&p, &w, DOC, RG_DELETE, NULL, before);
        else put(&p, &w, DOC, RG_UPDATE, doc(&w, i, name, "7", NULL), before);
    }
    for (uint64_t i = 1; i <= 100; i++) put(&p, &w, LOG, RG_INSERT, log_row(&w, i, 1, i), NULL);
    enqueue(&w, &p);
    rg__metrics m = {0};
    w.ctx.metrics = &m;
    CHECK_EQ_INT(drain_once(&w), 200);
    w.ctx.metrics = NULL;
    CHECK(m.counter[RG__C_MYSQL_QUERIES] < 30);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_doc WHERE grp=7"), 90);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), 100);
    end_world(&w);
}

TEST(consumer_makes_dead_letters_of_bad_operations_alone) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    rg_err err = {0};
    rg__result *r = NULL;
    begin_world(&w);
    sql(&w, "INSERT INTO qt_log VALUES (50, 5, 5, NULL)");
    put(&p, &w, LOG, RG_INSERT, log_row(&w, 1, 1, 1), NULL);
    put(&p, &w, LOG, RG_INSERT, log_row(&w, 2, 5, 5), NULL); /* the pair is taken */
    put(&p, &w, LOG, RG_INSERT, log_row(&w, 3, 1, 3), NULL);
    enqueue(&w, &p);
    put(&p, &w, LOG, RG_UPDATE, log_row(&w, 2, 5, 6), log_row(&w, 2, 5, 5));
    put(&p, &w, LOG, RG_UPDATE, log_row(&w, 1, 1, 2), log_row(&w, 1, 1, 1));
    enqueue(&w, &p);
    rg__consumer *c = consumer(&w, 256);
    CHECK_EQ_INT(drain(&w, c), 5);
    CHECK_EQ_INT(rg__consumer_totals_get(c).dead, 2);
    put(&p, &w, LOG, RG_UPDATE, log_row(&w, 2, 5, 7), log_row(&w, 2, 5, 6));
    enqueue(&w, &p);
    CHECK_EQ_INT(drain(&w, c), 1); /* a later batch: parked as well */
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), 3);
    CHECK_EQ_INT(sql(&w, "SELECT number FROM qt_log WHERE id=1"), 2);
    REQUIRE(rg__dead_list(&w.queue, &w.ctx, 0, &r, &err) == 0);
    CHECK_EQ_INT(r->n_rows, 3);
    CHECK_EQ_INT(r->n_columns, 11);
    CHECK_STR(r->names[0], "number");
    CHECK_STR(r->names[10], "state");
    if (r->n_rows == 3) {
        CHECK(cell_is(r, 2, "log"));
        CHECK(cell_is(r, 4, "insert"));
        CHECK(cell_is(r, 5, "1062"));
        CHECK(cell_is(r, 10, "dead"));
        CHECK(cell_is(r, 11 + 10, "parked"));
        CHECK(cell_is(r, 22 + 10, "parked"));
        CHECK(!memmem(r->cells[7].p, r->cells[7].len, "hush", 4));
        CHECK(!memmem(r->cells[7].p, r->cells[7].len, "5-5", 3));
    }
    uint64_t first = r->n_rows ? rg__cell_u64(r, 0, 0) : 0;
    uint64_t second = r->n_rows > 1 ? rg__cell_u64(r, 1, 0) : 0;
    rg__result_free(r);

    REQUIRE(rg__dead_show(&w.queue, &w.ctx, first, &r, &err) == 0);
    CHECK(r->next && r->next->n_rows == 4);
    if (r->next && r->next->n_rows == 4) {
        CHECK(cell_is(r->next, 2, "account"));
        CHECK(cell_is(r->next, 3, "5"));
        CHECK(cell_is(r->next, 6, "secret"));
        CHECK_STR(r->next->cells[7].p, "(hidden)");
    }
    rg__result_free(r);
    CHECK_EQ_INT(rg__dead_show(&w.queue, &w.ctx, 999999, &r, &err), RG_EINVALID);

    uint64_t left = 0;
    CHECK_EQ_INT(rg__dead_retry(&w.queue, &w.ctx, second, &left, &err), RG_ECONFLICT);
    CHECK(strstr(err.message, "comes first"));
    CHECK_EQ_INT(rg__dead_retry(&w.queue, &w.ctx, 999999, &left, &err), RG_EINVALID);
    REQUIRE(rg__dead_retry(&w.queue, &w.ctx, 0, &left, &err) == 0);
    CHECK_EQ_INT(left, 3); /* still in the way */
    CHECK_EQ_INT(sql(&w, "SELECT tries FROM _regolith_dead WHERE number=%llu", (unsigned long long)first), 1);
    CHECK_EQ_INT(sql(&w, "SELECT tries FROM _regolith_dead WHERE number=%llu", (unsigned long long)second), 0);
    sql(&w, "DELETE FROM qt_log WHERE id=50");
    REQUIRE(rg__dead_retry(&w.queue, &w.ctx, 0, &left, &err) == 0);
    CHECK_EQ_INT(left, 0);
    CHECK_EQ_INT(sql(&w, "SELECT number FROM qt_log WHERE id=2"), 7);

    put(&p, &w, LOG, RG_UPDATE, log_row(&w, 2, 5, 8), log_row(&w, 2, 5, 7));
    enqueue(&w, &p);
    drain(&w, c); /* the row is free again, also for a consumer that remembers its letters */
    CHECK_EQ_INT(sql(&w, "SELECT number FROM qt_log WHERE id=2"), 8);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(consumer_drops_what_the_caches_show_of_dead_letters) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    rg_err err = {0};
    begin_world(&w);
    sql(&w, "INSERT INTO qt_doc VALUES (50, 'taken', 1, NULL)");
    put(&p, &w, DOC, RG_INSERT, doc(&w, 1, "taken", "1", NULL), NULL);
    enqueue(&w, &p);
    rg__consumer *c = consumer(&w, 1);
    uint64_t done = 0, left = 0;
    /* another flush is built on what the caches show of the first one */
    put(&p, &w, DOC, RG_UPDATE, doc(&w, 1, "taken", "3", "later"), doc(&w, 1, "taken", "1", NULL));
    enqueue(&w, &p);
    CHECK(rg__consumer_step(c, &w.ctx, 0, &done, &err) == 0 && done == 1);
    REQUIRE(rg__dead_drop(&w.queue, &w.ctx, 0, &left, &err) == 0); /* before the second one is met */
    CHECK_EQ_INT(left, 0);
    CHECK_EQ_INT(drain(&w, c), 1);
    CHECK_EQ_INT(pending(&w), 0);
    rg__key key;
    rg__entry e;
    rg__key_row(w.shared, w.schema.types[DOC], 1, &key);
    rg__shared_get(w.shared, &w.ctx, w.schema.types[DOC], true, &key, 1, &e);
    CHECK(e.found == RG__MISS);
    rg__entry_deinit(&e);
    rg__key_deinit(&key);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE queue='queue_test'"), 1); /* vanished */
    CHECK_EQ_INT(rg__dead_drop(&w.queue, &w.ctx, 12345678, &left, &err), RG_EINVALID);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(dead_retry_tells_the_caches) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    rg_err err = {0};
    uint64_t left = 9;
    begin_world(&w);
    sql(&w, "INSERT INTO qt_doc VALUES (50, 'taken', 1, NULL), (1, 'mine', 1, NULL)");
    /* row 1 and its lookups are cached as the database has them */
    const rg_type *t = w.schema.types[DOC];
    rg__key key;
    rg__entry e;
    rg__key_row(w.shared, t, 1, &key);
    rg__shared_get(w.shared, &w.ctx, t, true, &key, 1, &e);
    rg__shared_lease(w.shared, &w.ctx, t, true, &key, 1, &e);
    CHECK(e.lease.held);
    rg_block *mine = doc(&w, 1, "mine", "1", NULL);
    rg__shared_fill(w.shared, &w.ctx, t, true, &key, 1, &mine, &e, e.lease.heal);
    rg__entry_deinit(&e);
    put(&p, &w, DOC, RG_UPDATE, doc(&w, 1, "taken", "1", NULL), rg_block_ref(mine));
    enqueue(&w, &p);
    drain_once(&w);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE queue='queue_test'"), 1);
    rg__shared_get(w.shared, &w.ctx, t, true, &key, 1, &e);
    CHECK(e.found == RG__MISS);
    rg__shared_lease(w.shared, &w.ctx, t, true, &key, 1, &e);
    rg__shared_fill(w.shared, &w.ctx, t, true, &key, 1, &mine, &e, true);
    rg__entry_deinit(&e);
    sql(&w, "DELETE FROM qt_doc WHERE id=50");
    REQUIRE(rg__dead_retry(&w.queue, &w.ctx, 0, &left, &err) == 0);
    CHECK_EQ_INT(left, 0);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_doc WHERE id=1 AND name='taken'"), 1);
    rg__shared_get(w.shared, &w.ctx, t, true, &key, 1, &e);
    CHECK(e.found == RG__MISS); /* not the row of before */
    rg__entry_deinit(&e);
    rg__key_deinit(&key);
    rg_block_unref(mine);
    end_world(&w);
}

TEST(consumer_compares_versions_and_misses_rows) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    sql(&w, "INSERT INTO qt_account VALUES (1,5,5,'one'),(2,5,5,'two'),(3,5,5,'three')");
    for (uint64_t i = 1; i <= 3; i++)
        put(&p, &w, ACCOUNT, RG_UPDATE, account(&w, i, i == 2 ? 5 : 6, (char[]){(char)('a' + i),
                                                                                0}),
            account(&w, i, i == 2 ? 4 : 5, (char[]){(char)('k' + i), 0}));
    put(&p, &w, ACCOUNT, RG_DELETE, NULL, account(&w, 3, 5, "x")); /* has version 6 by then */
    put(&p, &w, ACCOUNT, RG_DELETE, NULL, account(&w, 77, 5, "y")); /* was never there: fine */
    put(&p, &w, LOG, RG_UPDATE, log_row(&w, 5, 1, 2), log_row(&w, 5, 1, 1));
    put(&p, &w, LOG, RG_DELETE, NULL, log_row(&w, 6, 1, 1));
    enqueue(&w, &p);
    rg__consumer *c = consumer(&w, 256);
    CHECK_EQ_INT(drain(&w, c), 7);
    CHECK_EQ_INT(rg__consumer_totals_get(c).dead, 3);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_account WHERE version=6"), 2);
    CHECK_EQ_INT(sql(&w, "SELECT version FROM qt_account WHERE id=2"), 5);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE queue='queue_test' AND error LIKE '%%vanished%%'"), 3);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(consumer_orders_by_reference) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    for (uint64_t i = 1; i <= 50; i++) {
        char d[24], name[24];
        snprintf(d, sizeof d, "%d", (int)i);
        snprintf(name, sizeof name, "n%d", (int)i);
        put(&p, &w, DOC, RG_INSERT, doc(&w, i, name, NULL, NULL), NULL);
        put(&p, &w, CHILD, RG_INSERT, row_of(w.schema.types[CHILD], i, (const char *[]){d}), NULL);
    }
    enqueue(&w, &p);
    put(&p, &w, CHILD, RG_INSERT, row_of(w.schema.types[CHILD], 99, (const char *[]){"777"}), NULL);
    enqueue(&w, &p);
    for (uint64_t i = 1; i <= 50; i++) {
        char d[24], name[24];
        snprintf(d, sizeof d, "%d", (int)i);
        snprintf(name, sizeof name, "n%d", (int)i);
        put(&p, &w, CHILD, RG_DELETE, NULL, row_of(w.schema.types[CHILD], i, (const char *[]){d}));
        put(&p, &w, DOC, RG_DELETE, NULL, doc(&w, i, name, NULL, NULL));
    }
    enqueue(&w, &p);
    rg__consumer *c = consumer(&w, 1000);
    CHECK_EQ_INT(drain(&w, c), 201);
    CHECK_EQ_INT(rg__consumer_totals_get(c).dead, 1);
    CHECK_EQ_INT(sql(&w, "SELECT errno FROM _regolith_dead WHERE queue='queue_test'"), 1452);
    CHECK_EQ_INT(sql(&w, "SELECT (SELECT COUNT(*) FROM qt_doc)+(SELECT COUNT(*) FROM qt_child)"), 0);
    CHECK_EQ_INT(pending(&w), 0);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(consumer_parks_entries_that_cannot_be_read) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    rg_err err = {0};
    rg__result *r = NULL;
    uint64_t left = 0;
    begin_world(&w);
    enqueue_bytes(&w, "gibberish");
    freeReplyObject(redis(&w, 5, (const char *[]){"XADD", stream_name, "*", "x", "y"}));
    put(&p, &w, LOG, RG_INSERT, log_row(&w, 1, 1, 1), NULL);
    enqueue(&w, &p);
    rg__schema older = w.schema; /* a program that knows accounts only */
    older.n = 1;
    rg__queue q = w.queue;
    q.schema = &older;
    rg__consumer *c = rg__consumer_new(&q, NULL, &err);
    CHECK_EQ_INT(drain(&w, c), 3);
    rg__consumer_free(c);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE queue='queue_test' AND operation='entry'"), 2);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE entity='log' AND entity_id=1 AND operation='insert'"), 1);
    REQUIRE(rg__dead_list(&w.queue, &w.ctx, 10, &r, &err) == 0);
    uint64_t first = rg__cell_u64(r, 0, 0);
    rg__result_free(r);
    REQUIRE(rg__dead_show(&w.queue, &w.ctx, first, &r, &err) == 0);
    CHECK(r->next && r->next->n_rows == 0);
    rg__result_free(r);
    REQUIRE(rg__dead_retry(&w.queue, &w.ctx, 0, &left, &err) == 0);
    CHECK_EQ_INT(left, 2); /* with the schema of now the insert works */
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log WHERE id=1"), 1);
    end_world(&w);
}

TEST(consumer_gives_up_at_the_deadline_and_loses_nothing) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    rg_err err = {0};
    uint64_t done = 7;
    begin_world(&w);
    sql(&w, "INSERT INTO qt_log VALUES (1, 1, 1, NULL)");
    rg__mysql *h;
    must(rg__mysql_acquire(w.mysql, &w.ctx, &h, &err), &err, "holder");
    must(rg__mysql_begin(h, &w.ctx, &err), &err, "begin");
    must(rg__mysql_exec(h, &w.ctx, "UPDATE qt_log SET number=9 WHERE id=1", 37, NULL, &err), &err, "lock");
    rg__consumer *c = consumer(&w, 256);
    CHECK_EQ_INT(drain(&w, c), 0); /* the ledger is made, so that nothing but the lock is waited for */
    put(&p, &w, LOG, RG_UPDATE, log_row(&w, 1, 1, 2), log_row(&w, 1, 1, 1));
    enqueue(&w, &p);
    rg__ctx soon = {.deadline_ms = rg__now_ms() + 600};
    int64_t started = rg__now_ms();
    CHECK_EQ_INT(rg__consumer_step(c, &soon, 0, &done, &err), RG_ETIMEOUT);
    CHECK(rg__now_ms() - started < 600 + BUSY_MS);
    CHECK(err.retriable == 1 && done == 0);
    rg__mysql_rollback(h, &w.ctx);
    rg__mysql_release(h);
    CHECK_EQ_INT(drain(&w, c), 1);
    CHECK_EQ_INT(sql(&w, "SELECT number FROM qt_log WHERE id=1"), 2);
    rg__consumer_free(c);
    end_world(&w);
}

/* Every insert into qt_log fails with this error, `times` times a connection. */
static void break_inserts(world *w, int number, int times) {
    sql(w, "CREATE TRIGGER qt_break BEFORE INSERT ON qt_log FOR EACH ROW BEGIN"
           " SET @broken = IFNULL(@broken, 0) + 1;"
           " IF @broken <= %d THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO=%d; END IF; END", times, number);
}

TEST(consumer_waits_out_temporary_errors) {
    WITH_SERVERS;
    static const struct { int number, times, code, retries; } cases[] = {
        {1213, 2, 0, 2},                 /* a deadlock: tried again at once */
        {1205, 1, 0, 1},
        {1213, 1000, RG_EDEADLOCK, 3},   /* max_tries */
        {1114, 1, RG_EUNAVAILABLE, 0},   /* the disk is full: somebody has to do something */
        {1040, 1, RG_EUNAVAILABLE, 0},
        {1021, 1, RG_EUNAVAILABLE, 0},
        {1045, 1, RG_EACCESS, 0},
        {1142, 1, RG_EACCESS, 0},
    };
    world w;
    producing p = {0};
    begin_world(&w);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rg_err err = {0};
        uint64_t done = 7;
        rg__consumer_config cfg = {.max_tries = 3};
        break_inserts(&w, cases[i].number, cases[i].times);
        put(&p, &w, LOG, RG_INSERT, log_row(&w, i + 1, 1, i + 1), NULL);
        enqueue(&w, &p);
        world fresh; /* connections that have not failed yet */
        open_world(&fresh);
        rg__consumer *c = rg__consumer_new(&fresh.queue, &cfg, &err);
        CHECK_EQ_INT(rg__consumer_step(c, &w.ctx, 0, &done, &err), cases[i].code);
        CHECK_EQ_INT(done, cases[i].code == 0);
        CHECK(cases[i].code == 0 || (err.retriable == 1 && err.sql_errno ==
                                     (unsigned)cases[i].number));
        CHECK_EQ_INT(rg__consumer_totals_get(c).retries, cases[i].retries);
        sql(&w, "DROP TRIGGER qt_break");
        CHECK_EQ_INT(drain(&fresh, c), cases[i].code != 0);
        CHECK_EQ_INT(rg__consumer_totals_get(c).dead, 0);
        rg__consumer_free(c);
        close_world(&fresh);
    }
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), sizeof cases / sizeof *cases);
    end_world(&w);
}

/* The number of a violated CHECK, which is each flavour's own. */
static int check_violated(world *w) {
    rg__mysql *c;
    rg_err err = {0};
    must(rg__mysql_acquire(w->mysql, &w->ctx, &c, &err), &err, "connection");
    int number = rg__mysql_flavour(c) == RG__MARIADB ? 4025 : 3819;
    rg__mysql_release(c);
    return number;
}

TEST(consumer_makes_dead_letters_by_class) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    const int permanent[] = {1022, 1049, 1051, 1054, 1064, 1146, 1062, 1048, 1264, 1406, 1366,
                             1451, 1452, 1644, check_violated(&w)};
    enum { N = sizeof permanent / sizeof *permanent };
    for (uint64_t i = 0; i < N; i++) {
        break_inserts(&w, permanent[i], 1000);
        put(&p, &w, LOG, RG_INSERT, log_row(&w, i + 1, 1, i + 1), NULL);
        put(&p, &w, DOC, RG_INSERT, doc(&w, i + 1, (char[]){(char)('a' + i), 0}, NULL, NULL), NULL);
        enqueue(&w, &p);
        CHECK_EQ_INT(drain_once(&w), 2);
        CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE errno=%d", permanent[i]), 1);
        sql(&w, "DROP TRIGGER qt_break");
    }
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_doc"), N);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), 0);
    rg_err err = {0};
    uint64_t left = 0;
    CHECK_EQ_INT(rg__dead_retry(&w.queue, &w.ctx, 0, &left, &err), 0);
    CHECK_EQ_INT(left, 0);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), N);
    end_world(&w);
}

TEST(consumer_rivals_share_a_stream) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    rg__consumer *a = consumer(&w, 3), *b = consumer(&w, 2);
    uint64_t number = 0, all = 0;
    for (int round = 0; round < 30; round++) {
        for (int i = 0; i < 7; i++, number++) {
            put(&p, &w, LOG, RG_INSERT, log_row(&w, number + 1, 1, number), NULL);
            enqueue(&w, &p);
        }
        uint64_t done = 0;
        rg_err err = {0};
        must(rg__consumer_step(a, &w.ctx, 0, &done, &err), &err, "a");
        all += done;
        must(rg__consumer_step(b, &w.ctx, 0, &done, &err), &err, "b");
        all += done;
    }
    all += drain(&w, a) + drain(&w, b);
    CHECK_EQ_INT(all, number);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), number);
    CHECK(rg__consumer_totals_get(a).applied > 20 && rg__consumer_totals_get(b).applied > 20);
    CHECK_EQ_INT(rg__consumer_totals_get(a).dead + rg__consumer_totals_get(b).dead, 0);
    rg__consumer_free(a);
    rg__consumer_free(b);
    end_world(&w);
}

TEST(consumer_waits_for_entries) {
    WITH_SERVERS;
    world w;
    rg_err err = {0};
    uint64_t done = 5;
    begin_world(&w);
    rg__consumer *c = consumer(&w, 256);
    int64_t started = rg__now_ms();
    CHECK_EQ_INT(rg__consumer_step(c, &w.ctx, 120, &done, &err), 0);
    int64_t took = rg__now_ms() - started;
    CHECK(done == 0 && took >= 119 && took < 120 + BUSY_MS);
    rg__ctx soon = {.deadline_ms = rg__now_ms() + 50};
    started = rg__now_ms();
    CHECK_EQ_INT(rg__consumer_step(c, &soon, 5000, &done, &err), 0);
    CHECK(rg__now_ms() - started < 50 + BUSY_MS);
    pid_t pid = fork();
    if (pid == 0) {
        world child;
        producing p = {0};
        usleep(50000);
        open_world(&child);
        put(&p, &child, LOG, RG_INSERT, log_row(&child, 1, 1, 1), NULL);
        enqueue(&child, &p);
        _exit(0);
    }
    started = rg__now_ms();
    CHECK_EQ_INT(rg__consumer_step(c, &w.ctx, 5000, &done, &err), 0);
    CHECK(done == 1 && rg__now_ms() - started < 4000);
    waitpid(pid, NULL, 0);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(consumer_survives_failing_allocations) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    uint64_t done = 0;
    long failures = 0;
    begin_world(&w);
    rg__consumer *c = consumer(&w, 256);
    for (uint64_t n = 1; n <= 150; n++) {
        char name[24];
        snprintf(name, sizeof name, "doc %d", (int)n);
        put(&p, &w, DOC, RG_INSERT, doc(&w, n, name, "1", NULL), NULL);
        put(&p, &w, LOG, RG_INSERT, log_row(&w, n, 1, n), NULL);
        put(&p, &w, LOG, RG_INSERT, log_row(&w, n, 1, n), NULL); /* a dead letter each time */
        enqueue(&w, &p);
        rg_err err = {0};
        rg__alloc_fail_at((long)n, n % 2);
        int rc = rg__consumer_step(c, &w.ctx, 0, &done, &err);
        rg__alloc_fail_at(0, 0);
        failures += rc < 0;
        if (rc < 0) CHECK(err.code == RG_ENO_MEMORY || err.retriable);
        drain(&w, c);
    }
    CHECK(failures > 50);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_doc"), 150);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), 150);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE queue='queue_test'"), 150);
    CHECK_EQ_INT(pending(&w), 0);
    rg__consumer_free(c);
    end_world(&w);
}

TEST(admin_status_and_drained) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    rg_err err = {0};
    rg__result *r = NULL;
    begin_world(&w);
    REQUIRE(rg__queue_status(&w.queue, 1, &w.ctx, &r, &err) == 0);
    CHECK(cell_is(r, 0, "queue_test"));
    CHECK(cell_is(r, 2, "0"));
    CHECK(cell_is(r, 4, "0-0"));
    rg__result_free(r);
    CHECK_EQ_INT(rg__queue_drained(&w.queue, &w.ctx, &err), 0);
    for (uint64_t i = 1; i <= 5; i++) {
        put(&p, &w, LOG, RG_INSERT, log_row(&w, i, 1, i), NULL);
        enqueue(&w, &p);
    }
    usleep(20000);
    REQUIRE(rg__queue_status(&w.queue, 1, &w.ctx, &r, &err) == 0);
    CHECK(cell_is(r, 2, "5"));
    CHECK(rg__cell_u64(r, 0, 3) >= 20 && rg__cell_u64(r, 0, 3) < 60000);
    rg__result_free(r);
    rg__ctx soon = {.deadline_ms = rg__now_ms() + 60};
    CHECK_EQ_INT(rg__queue_drained(&w.queue, &soon, &err), RG_ETIMEOUT);
    CHECK(strstr(err.message, "0-0"));
    drain_once(&w);
    char at[48];
    CHECK_EQ_INT(rg__queue_drained(&w.queue, &w.ctx, &err), 0);
    CHECK_EQ_INT(rg__ledger_position(&w.queue, &w.ctx, at, &err), 0);
    CHECK(strlen(at) > 10 && strchr(at, '-'));
    REQUIRE(rg__queue_status(&w.queue, 1, &w.ctx, &r, &err) == 0);
    CHECK(cell_is(r, 2, "0"));
    CHECK(cell_is(r, 3, "0"));
    CHECK(cell_is(r, 4, at));
    CHECK(cell_is(r, 5, "5"));
    CHECK(cell_is(r, 6, "0"));
    rg__result_free(r);
    end_world(&w);
}

TEST(consumer_makes_its_tables_when_they_are_missing) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    rg_err err = {0};
    rg__result *r = NULL;
    uint64_t left = 1;
    begin_world(&w);
    REQUIRE(rg__dead_list(&w.queue, &w.ctx, 0, &r, &err) == 0);
    CHECK(r->n_rows == 0 && r->n_columns == 11);
    rg__result_free(r);
    CHECK_EQ_INT(rg__dead_drop(&w.queue, &w.ctx, 0, &left, &err), 0);
    CHECK_EQ_INT(left, 0);
    REQUIRE(rg__queue_status(&w.queue, 1, &w.ctx, &r, &err) == 0);
    CHECK(cell_is(r, 6, "0"));
    rg__result_free(r);
    put(&p, &w, LOG, RG_INSERT, log_row(&w, 1, 1, 1), NULL);
    enqueue(&w, &p);
    CHECK_EQ_INT(drain_once(&w), 1);
    end_world(&w);
}

/* A Redis that lost everything and whose clock is behind gives ids that pass for applied. */
TEST(consumer_never_takes_new_entries_for_old_ones) {
    WITH_SERVERS;
    world w;
    producing p = {0};
    begin_world(&w);
    put(&p, &w, LOG, RG_INSERT, log_row(&w, 1, 1, 1), NULL);
    enqueue(&w, &p);
    drain_once(&w);
    sql(&w, "UPDATE _regolith_ledger SET id_ms=id_ms+3600000 WHERE queue='queue_test'");
    for (int lost = 0; lost < 2; lost++) {
        if (lost) freeReplyObject(redis(&w, 2, (const char *[]){"DEL", stream_name}));
        rg__consumer *c = consumer(&w, 256);
        CHECK_EQ_INT(drain(&w, c), 0);
        put(&p, &w, LOG, RG_INSERT, log_row(&w, 2 + (uint64_t)lost, 1, 2 + (uint64_t)lost), NULL);
        enqueue(&w, &p);
        CHECK_EQ_INT(drain(&w, c), 1);
        rg__consumer_free(c);
    }
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), 3);
    end_world(&w);
}

/* ---- a COMMIT whose answer does not come ---- */

/* What the proxy does to the next COMMIT. */
enum { PASS, CUT_BEFORE, CUT_AFTER, CUT_AND_DELIVER_LATE };

typedef struct proxy {
    char folder[32], path[64];
    int fd;
    pthread_t thread;
    atomic_int mode, open;
} proxy;

typedef struct relay {
    proxy *p;
    int client, server;
} relay;

static int connect_to(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static bool forward(int from, int to, const char *first, size_t n) {
    char buf[65536];
    ssize_t got = first ? (ssize_t)n : read(from, buf, sizeof buf);
    const char *p = first ? first : buf;
    for (ssize_t at = 0, w; at < got; at += w)
        if ((w = send(to, p + at, (size_t)(got - at), MSG_NOSIGNAL)) <= 0) return false;
    return got > 0;
}

/* True when the connection is over. */
static bool on_commit(relay *r, const char *bytes, size_t n) {
    char answer[64];
    switch (atomic_exchange(&r->p->mode, PASS)) {
    case CUT_BEFORE: return true;
    case CUT_AFTER:
        forward(-1, r->server, bytes, n);
        return read(r->server, answer, sizeof answer) >= 0;
    case CUT_AND_DELIVER_LATE:
        shutdown(r->client, SHUT_RDWR);
        usleep(100000);
        forward(-1, r->server, bytes, n);
        return read(r->server, answer, sizeof answer) >= -1;
    default: return !forward(-1, r->server, bytes, n);
    }
}

/* A packet of COM_QUERY; to a server of its own kind, Oracle's library also sends that the query has
 * no attributes. */
static bool is_commit(const char *p, size_t n) {
    static const char plain[] = "\x07\0\0\0\x03" "COMMIT", attributed[] = "\x09\0\0\0\x03\0\x01" "COMMIT";
    return (n == sizeof plain - 1 && memcmp(p, plain, n) == 0) ||
           (n == sizeof attributed - 1 && memcmp(p, attributed, n) == 0);
}

static bool from_client(relay *r) {
    char buf[65536];
    ssize_t n = read(r->client, buf, sizeof buf);
    if (n <= 0) return true;
    if (is_commit(buf, (size_t)n)) return on_commit(r, buf, (size_t)n);
    return !forward(-1, r->server, buf, (size_t)n);
}

static void *run_relay(void *arg) {
    relay *r = arg;
    struct pollfd fds[] = {{r->client, POLLIN, 0}, {r->server, POLLIN, 0}};
    while (poll(fds, 2, -1) > 0) {
        if (fds[0].revents && from_client(r)) break;
        if (fds[1].revents && !forward(r->server, r->client, NULL, 0)) break;
    }
    close(r->client);
    close(r->server);
    atomic_fetch_sub(&r->p->open, 1);
    free(r);
    return NULL;
}

static void *run_proxy(void *arg) {
    proxy *p = arg;
    for (;;) {
        int fd = accept(p->fd, NULL, NULL);
        if (fd < 0) return NULL;
        relay *r = malloc(sizeof *r);
        *r = (relay){p, fd, connect_to(getenv("REGOLITH_MYSQL_SOCKET"))};
        pthread_t t;
        atomic_fetch_add(&p->open, 1);
        pthread_create(&t, NULL, run_relay, r);
        pthread_detach(t);
    }
}

static void start_proxy(proxy *p) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memset(p, 0, sizeof *p);
    strcpy(p->folder, "/tmp/rgqXXXXXX");
    if (!mkdtemp(p->folder)) abort();
    snprintf(p->path, sizeof p->path, "%s/s", p->folder);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", p->path);
    p->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(p->fd, (struct sockaddr *)&a, sizeof a) || listen(p->fd, 16)) abort();
    pthread_create(&p->thread, NULL, run_proxy, p);
}

static void stop_proxy(proxy *p) {
    shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->fd);
    while (atomic_load(&p->open)) usleep(1000);
    unlink(p->path);
    rmdir(p->folder);
}

TEST(consumer_resolves_commits_whose_answer_is_lost) {
    WITH_SERVERS;
    world w, through;
    producing p = {0};
    proxy x;
    begin_world(&w);
    start_proxy(&x);
    open_world_at(&through, x.path);
    put(&p, &w, ACCOUNT, RG_INSERT, account(&w, 1, 1, "a"), NULL);
    enqueue(&w, &p);
    rg__consumer *c = consumer(&through, 256);
    uint64_t rounds = getenv("REGOLITH_LONG") ? 3000 : 30, all = drain(&through, c);
    for (uint64_t i = 1; i <= rounds; i++) {
        put(&p, &w, ACCOUNT, RG_UPDATE, account(&w, 1, i + 1, "a"), account(&w, 1, i, "a"));
        put(&p, &w, LOG, RG_INSERT, log_row(&w, i, 1, i), NULL);
        enqueue(&w, &p);
        atomic_store(&x.mode, (int)(i % 3) + 1);
        all += drain(&through, c);
        CHECK_EQ_INT(atomic_load(&x.mode), PASS);
    }
    CHECK_EQ_INT(sql(&w, "SELECT version FROM qt_account"), rounds + 1);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), rounds);
    CHECK_EQ_INT(rg__consumer_totals_get(c).dead, 0);
    CHECK_EQ_INT(all, 2 * rounds + 1);
    CHECK_EQ_INT(pending(&w), 0);
    printf("# %llu COMMITs cut, a third each way; %llu operations applied, %llu expected\n",
           (unsigned long long)rounds, (unsigned long long)all, (unsigned long long)(2 * rounds + 1));
    rg__consumer_free(c);
    close_world(&through);
    stop_proxy(&x);
    end_world(&w);
}

/* ---- crashes ---- */

enum { ACCOUNTS = 40 };

/* A process that consumes until it has nothing to do, or its kill point comes. */
static int consume(void) {
    world w;
    uint64_t done = 1;
    open_world(&w);
    rg__consumer *c = consumer(&w, 10);
    for (int i = 0; i < 12 && done; i++) {
        rg_err err = {0};
        if (rg__consumer_step(c, &w.ctx, 0, &done, &err) < 0) {
            fprintf(stderr, "# consumer: %s\n", err.message);
            return 1;
        }
    }
    rg__consumer_free(c);
    close_world(&w);
    return 0;
}

static pid_t spawn_consumer(int step, int count) {
    pid_t pid = fork();
    if (pid) return pid;
    char point[32];
    snprintf(point, sizeof point, "%d:%d", step, count);
    setenv("REGOLITH_KILL_POINT", point, 1);
    execl("/proc/self/exe", "queue_test", "consume", (char *)NULL);
    _exit(127);
}

typedef struct crashes {
    uint64_t version[ACCOUNTS + 1]; /* of each account; 0: not there */
    uint64_t logs, ops, dead;
    long kills, kills_at[RG__KILL_END];
} crashes;

static rg_block *account_now(const world *w, uint64_t id, uint64_t version) {
    char code[40];
    snprintf(code, sizeof code, "a%d.%llu", (int)id, (unsigned long long)version);
    return account(w, id, version, code);
}

/* One flush: some accounts move on by one version (and a new unique code), a log line for each. */
static void produce(world *w, crashes *x) {
    producing *p = calloc(1, sizeof *p);
    uint64_t first = random_u64() % ACCOUNTS, n = 1 + random_u64() % 3;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t id = 1 + (first + i) % ACCOUNTS, *v = &x->version[id];
        if (*v == 0) put(p, w, ACCOUNT, RG_INSERT, account_now(w, id, 1), NULL);
        else if (random_u64() % 16 == 0) put(p, w, ACCOUNT, RG_DELETE, NULL, account_now(w, id,
                                                                                         *v));
        else put(p, w, ACCOUNT, RG_UPDATE, account_now(w, id, *v + 1), account_now(w, id, *v));
        *v = p->ops[p->n - 1].write == RG_DELETE ? 0 : *v + 1;
        x->logs++;
        put(p, w, LOG, RG_INSERT, log_row(w, x->logs, id, x->logs), NULL);
        x->ops += 2;
        if (random_u64() % 16) continue;
        put(p, w, LOG, RG_INSERT, log_row(w, x->logs, id, x->logs), NULL); /* the same again */
        x->dead++;
    }
    enqueue(w, p);
    free(p);
}

static int random_step(void) { return 1 + (int)(random_u64() % (RG__KILL_SETTLING)); }

static int random_count(int step) { return 1 + (int)(random_u64() % (step == RG__KILL_STATEMENT ?
                                                                     12 : 4)); }

static void await_consumer(crashes *x, pid_t pid, int step) {
    int status;
    waitpid(pid, &status, 0);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    CHECK(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    x->kills += killed;
    x->kills_at[step] += killed;
}

static void crash_round(world *w, crashes *x, int rivals) {
    int steps[2];
    pid_t pids[2];
    for (uint64_t n = 3 + random_u64() % 12; n; n--) produce(w, x);
    for (int i = 0; i < rivals; i++) {
        steps[i] = random_step();
        pids[i] = spawn_consumer(steps[i], random_count(steps[i]));
    }
    for (int i = 0; i < rivals; i++) await_consumer(x, pids[i], steps[i]);
}

static void crash(long kills, int rivals) {
    world w;
    static crashes x;
    memset(&x, 0, sizeof x);
    begin_world(&w);
    for (long rounds = 0; x.kills < kills && rounds < kills * 4; rounds++) crash_round(&w, &x,
                                                                                       rivals);
    CHECK(x.kills >= kills);
    drain_once(&w);
    uint64_t wrong = 0, there = 0;
    for (uint64_t id = 1; id <= ACCOUNTS; id++) {
        there += x.version[id] > 0;
        if (x.version[id])
            wrong += sql(&w, "SELECT COUNT(*) FROM qt_account WHERE id=%llu AND version=%llu AND n=%llu AND code='a%d.%llu'",
                         (unsigned long long)id, (unsigned long long)x.version[id],
                         (unsigned long long)x.version[id], (int)id,
                             (unsigned long long)x.version[id]) != 1;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_account"), there);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM qt_log"), x.logs);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE queue='queue_test' AND errno=1062 AND state='dead'"), x.dead);
    CHECK_EQ_INT(sql(&w, "SELECT COUNT(*) FROM _regolith_dead WHERE queue='queue_test'"), x.dead);
    CHECK_EQ_INT(sql(&w, "SELECT applied_ops FROM _regolith_ledger WHERE queue='queue_test'"), x.ops);
    CHECK_EQ_INT(pending(&w), 0);
    redisReply *r = redis(&w, 2, (const char *[]){"XLEN", stream_name});
    CHECK_EQ_INT(r->integer, 0);
    freeReplyObject(r);
    printf("# %d consumers: %ld kills, %llu operations, %llu dead; by step:", rivals, x.kills,
           (unsigned long long)x.ops, (unsigned long long)x.dead);
    for (int i = 1; i < RG__KILL_END; i++) printf(" %ld", x.kills_at[i]);
    printf("\n");
    end_world(&w);
}

TEST(crashes_of_a_consumer_lose_and_repeat_nothing) {
    WITH_SERVERS;
    crash(getenv("REGOLITH_LONG") ? 5000 : 150, 1);
}

TEST(crashes_of_two_rivals_lose_and_repeat_nothing) {
    WITH_SERVERS;
    crash(getenv("REGOLITH_LONG") ? 5000 : 150, 2);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "consume") == 0) return consume();
    return unit_main(argc, argv);
}
