/* SPDX-License-Identifier: MIT */
/* Units of the builder's setters: what they take, as what it is stored, what they say when not. */
#include "rows.h"

#include <float.h>

typedef struct given {
    char how; /* s text, n number, i int64, u uint64, b boolean, 0 null */
    const char *s;
    double n;
    int64_t i;
} given;
#define S(x)                                                                                       \
    { .how = 's', .s = (x) }
#define N(x)                                                                                       \
    { .how = 'n', .n = (x) }
#define I(x)                                                                                       \
    { .how = 'i', .i = (x) }
#define U(x)                                                                                       \
    { .how = 'u', .i = (int64_t)(x) }
#define B(x)                                                                                       \
    { .how = 'b', .i = (x) }
#define NIL                                                                                        \
    { .how = 0 }

static int give(rg_builder *b, uint32_t col, given g) {
    switch (g.how) {
    case 's': return set(b, col, g.s);
    case 'n': return rg_builder_number(b, col, g.n, &err);
    case 'i': return rg_builder_i64(b, col, g.i, &err);
    case 'u': return rg_builder_u64(b, col, (uint64_t)g.i, &err);
    case 'b': return rg_builder_bool(b, col, (int)g.i, &err);
    default: return rg_builder_null(b, col, &err);
    }
}

typedef struct setting {
    rg_column_opts o;
    given g;
    const char *stored;  /* text of the value; NULL: NULL */
    const char *refused; /* message, when not stored */
} setting;

static void try_setting(const setting *c) {
    rg_type *t = type_of(c->o);
    rg_builder *b = rg_builder_new(t, &err);
    rg_builder_u64(b, 0, 1, &err);
    rg__err_clear(&err);
    int rc = give(b, 1, c->g);
    rg_block *row = rc == RG_OK ? rg__builder_finish(b, true, 0, &err) : NULL;
    if (c->refused) {
        CHECK(row == NULL && err.code == RG_EINVALID);
        CHECK_STR(err.field, "f");
        CHECK_STR(err.entity, "user");
        CHECK(strncmp(err.message, "user.f: ", 8) == 0);
        CHECK_STR(err.message + 8, c->refused);
    } else if (CHECK(row != NULL)) {
        text_is(t, row, 1, c->stored);
        CHECK_EQ_INT(rg__row_check(t, row->data, row->len, &err), RG_OK);
    } else {
        printf("# %s\n", err.message);
    }
    rg_block_unref(row);
    rg_builder_free(b);
    rg_type_free(t);
}

static void try_settings(const setting *list, size_t n) {
    for (size_t i = 0; i < n; i++) try_setting(&list[i]);
}
#define TRY(...)                                                                                   \
    do {                                                                                           \
        const setting list[] = {__VA_ARGS__};                                                      \
        try_settings(list, sizeof list / sizeof *list);                                            \
    } while (0)
#define OK(kind_, g_, stored_)                                                                     \
    { .o = {.kind = kind_}, .g = g_, .stored = stored_ }
#define NO(kind_, g_, refused_)                                                                    \
    { .o = {.kind = kind_}, .g = g_, .refused = refused_ }

TEST(integers_hold_their_range) {
    TRY(OK(RG_U8, N(255), "255"), OK(RG_U8, N(-0.0), "0"), OK(RG_U8, S("-0"), "0"),
        OK(RG_U8, S("+7"), "7"), OK(RG_U8, S("007"), "7"), OK(RG_I8, N(-128), "-128"),
        OK(RG_I8, N(127), "127"), OK(RG_I24, N(-8388608), "-8388608"),
        OK(RG_U24, N(16777215), "16777215"),
        OK(RG_I64, S("-9223372036854775808"), "-9223372036854775808"),
        OK(RG_I64, I(INT64_MIN), "-9223372036854775808"),
        OK(RG_U64, U(UINT64_MAX), "18446744073709551615"),
        OK(RG_U64, S("18446744073709551615"), "18446744073709551615"),
        OK(RG_U64, N(9007199254740992), "9007199254740992"),
        OK(RG_I64, N(-9007199254740992), "-9007199254740992"));
    TRY(NO(RG_U16, N(70000), "value 70000 exceeds max 65535"),
        NO(RG_U8, N(-14), "negative number -14 not allowed"),
        NO(RG_U8, S("-14"), "negative number -14 not allowed"),
        NO(RG_I8, N(-129), "value -129 is below min -128"),
        NO(RG_I8, N(128), "value 128 exceeds max 127"),
        NO(RG_I24, I(8388608), "value 8388608 exceeds max 8388607"),
        NO(RG_I64, U(UINT64_MAX), "value 18446744073709551615 exceeds max 9223372036854775807"),
        NO(RG_U8, N(1.5), "not a whole number: 1.5"), NO(RG_U8, N(INFINITY), "not a finite number"),
        NO(RG_U8, N(NAN), "not a finite number"), NO(RG_U8, N(1e300), "out of range: 1e+300"),
        NO(RG_U64, N(9007199254740994),
           "too large to be exact as a number, pass text or 64 bits: 9007199254740994"),
        NO(RG_U64, S("18446744073709551616"), "out of range: 18446744073709551616"),
        NO(RG_U8, S(""), "invalid number "), NO(RG_U8, S("1.0"), "invalid number 1.0"),
        NO(RG_U8, S("-"), "invalid number -"), NO(RG_U8, S(" 1"), "invalid number  1"),
        NO(RG_U8, S("x\n\x01"), "invalid number x??"),
        NO(RG_U8, B(1), "uint8 expected, got a boolean"));
}

TEST(secrets_stay_out_of_messages) {
    uint32_t f = RG_COL_SENSITIVE;
    TRY({.o = {.kind = RG_U8, .flags = f}, .g = N(300), .refused = "value *** exceeds max 255"},
        {.o = {.kind = RG_U8, .flags = f}, .g = N(1.5), .refused = "not a whole number: ***"},
        {.o = {.kind = RG_ENUM, .flags = f}, .g = S("pin"), .refused = "invalid value: ***"},
        {.o = {.kind = RG_DATE, .flags = f, .def = "2000-01-01"},
         .g = S("pin"),
         .refused = "invalid date ***"});
}

TEST(booleans) {
    TRY(OK(RG_BOOL, B(5), "1"), OK(RG_BOOL, B(0), "0"), OK(RG_BOOL, N(1), "1"),
        OK(RG_BOOL, S("true"), "1"), OK(RG_BOOL, S("false"), "0"), OK(RG_BOOL, S("1"), "1"),
        OK(RG_BOOL, U(0), "0"), OK(RG_BOOL, NIL, "0"));
    TRY(NO(RG_BOOL, N(2), "invalid value: 2"), NO(RG_BOOL, N(-1), "invalid value: -1"),
        NO(RG_BOOL, N(0.5), "not a whole number: 0.5"), NO(RG_BOOL, S("yes"), "invalid value: yes"),
        NO(RG_BOOL, S(""), "invalid value: "));
}

TEST(floats) {
    TRY(OK(RG_DOUBLE, N(1.5), "1.5"), OK(RG_DOUBLE, N(-0.0), "0"), OK(RG_DOUBLE, N(0.1), "0.1"),
        OK(RG_DOUBLE, N(1e300), "1e+300"), OK(RG_DOUBLE, S("-1.25e-3"), "-0.00125"),
        OK(RG_DOUBLE, S("5e-324"), "5e-324"), OK(RG_DOUBLE, N(DBL_MAX), "1.7976931348623157e+308"),
        OK(RG_DOUBLE, I(-5), "-5"), OK(RG_FLOAT, N(0.1), "0.1"), OK(RG_FLOAT, N(3.4e38), "3.4e+38"),
        OK(RG_FLOAT, N(-1e-60), "0"), OK(RG_DOUBLE, S(".5"), "0.5"), OK(RG_DOUBLE, S("5."), "5"));
    TRY(NO(RG_DOUBLE, N(NAN), "not a finite number"),
        NO(RG_DOUBLE, N(-INFINITY), "not a finite number"),
        NO(RG_FLOAT, N(1e39), "out of range for a float: 1e+39"),
        NO(RG_DOUBLE, S("1e400"), "out of range: 1e400"),
        NO(RG_DOUBLE, S("inf"), "invalid number inf"),
        NO(RG_DOUBLE, S("nan"), "invalid number nan"),
        NO(RG_DOUBLE, S("0x10"), "invalid number 0x10"),
        NO(RG_DOUBLE, S("1,5"), "invalid number 1,5"), NO(RG_DOUBLE, S("."), "invalid number ."),
        NO(RG_DOUBLE, U(UINT64_MAX), "integer too large to be exact"),
        NO(RG_DOUBLE, I(9007199254740993), "integer too large to be exact"));
}

TEST(decimals_are_exact_as_text_and_rounded_as_numbers) {
    const char *many = "decimal has too many digits, max (10,2)";
    TRY(OK(RG_DECIMAL, S("1"), "1.00"), OK(RG_DECIMAL, S("-1.5"), "-1.50"),
        OK(RG_DECIMAL, S("1.500"), "1.50"), OK(RG_DECIMAL, S("0001.5"), "1.50"),
        OK(RG_DECIMAL, S("-0.00"), "0.00"), OK(RG_DECIMAL, S("1e3"), "1000.00"),
        OK(RG_DECIMAL, S("12345678.99"), "12345678.99"), OK(RG_DECIMAL, S("0.05"), "0.05"),
        OK(RG_DECIMAL, S("5e-2"), "0.05"), OK(RG_DECIMAL, N(0.1 + 0.2), "0.30"),
        OK(RG_DECIMAL, N(0.005), "0.01"), OK(RG_DECIMAL, N(-0.004), "0.00"),
        OK(RG_DECIMAL, N(-0.005), "-0.01"), OK(RG_DECIMAL, N(0.995), "1.00"),
        OK(RG_DECIMAL, N(9.995), "10.00"), OK(RG_DECIMAL, N(99999999.99), "99999999.99"),
        OK(RG_DECIMAL, N(1e-300), "0.00"), OK(RG_DECIMAL, I(-7), "-7.00"),
        OK(RG_DECIMAL, U(7), "7.00"), OK(RG_DECIMAL, NIL, "0.00"),
        OK(RG_DECIMAL, N(0.0049999), "0.00"));
    TRY(NO(RG_DECIMAL, S("1.001"), many), NO(RG_DECIMAL, S("123456789"), many),
        NO(RG_DECIMAL, N(1e8), many), NO(RG_DECIMAL, N(99999999.995), many),
        NO(RG_DECIMAL, S("1e400"), many), NO(RG_DECIMAL, S("1e-400"), many),
        NO(RG_DECIMAL, U(UINT64_MAX), many), NO(RG_DECIMAL, S("abc"), "invalid number abc"),
        NO(RG_DECIMAL, S("1e"), "invalid number 1e"),
        NO(RG_DECIMAL, S("--1"), "invalid number --1"), NO(RG_DECIMAL, S(""), "invalid number "),
        NO(RG_DECIMAL, N(NAN), "not a finite number"));
    TRY({.o = {.kind = RG_DECIMAL, .precision = 3}, .g = S("999.0"), .stored = "999"},
        {.o = {.kind = RG_DECIMAL, .precision = 3}, .g = N(0.5), .stored = "1"},
        {.o = {.kind = RG_DECIMAL, .precision = 3, .scale = 3}, .g = S(".999"), .stored = "0.999"},
        {.o = {.kind = RG_DECIMAL, .precision = 3, .scale = 3},
         .g = S("1"),
         .refused = "decimal has too many digits, max (3,3)"},
        {.o = {.kind = RG_DECIMAL, .precision = 65, .scale = 30},
         .g = S("-99999999999999999999999999999999999.999999999999999999999999999999"),
         .stored = "-99999999999999999999999999999999999.999999999999999999999999999999"});
}

TEST(text_is_measured_in_characters_and_bytes) {
    TRY({.o = {.kind = RG_STRING, .length = 3},
         .g = S("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),
         .stored = "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
        {.o = {.kind = RG_STRING, .length = 3},
         .g = S("abcd"),
         .refused = "text too long, max 3 allowed"},
        {.o = {.kind = RG_TEXT, .length = 3},
         .g = S("\xC3\xA9\xC3\xA9"),
         .refused = "text too long, max 3 bytes allowed"},
        {.o = {.kind = RG_TEXT, .length = 4},
         .g = S("\xC3\xA9\xC3\xA9"),
         .stored = "\xC3\xA9\xC3\xA9"},
        {.o = {.kind = RG_BINARY, .length = 2}, .g = S("\xFF\xFE"), .stored = "\xFF\xFE"},
        {.o = {.kind = RG_BLOB, .length = 2},
         .g = S("abc"),
         .refused = "value too long, max 2 bytes allowed"});
    TRY(OK(RG_STRING, S(""), ""), OK(RG_STRING, NIL, ""), NO(RG_STRING, S("\xFF"), "invalid UTF-8"),
        NO(RG_STRING, N(5), "string expected, got a number"),
        NO(RG_TEXT, N(5.5), "text expected, got a number"),
        NO(RG_STRING, U(5), "string expected, got a number"),
        NO(RG_STRING, B(1), "string expected, got a boolean"));
}

TEST(nul_bytes_are_data_in_text_and_bytes_only) {
    rg_type *t = type_of_all(0);
    rg_builder *b = rg_builder_new(t, &err);
    CHECK_EQ_INT(rg_builder_string(b, STRING, "a\0b", 3, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_string(b, TEXT, "a\0b", 3, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_string(b, BINARY, "a\0b", 3, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_string(b, ENUM, "new\0", 4, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, SET, "new\0", 4, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, JSON, "\"a\0\"", 4, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, REFS, "[1\0]", 4, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, U8, "1\0", 2, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, DOUBLE, "1\0", 2, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, DATE, "2020-01-01\0", 11, &err), RG_EINVALID);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(enums_and_sets) {
    TRY(OK(RG_ENUM, S("active"), "active"), OK(RG_ENUM, NIL, "new"), OK(RG_SET, S(""), ""),
        OK(RG_SET, S("ban'd,new"), "new,ban'd"), OK(RG_SET, S("new,new"), "new"),
        OK(RG_SET, NIL, ""));
    TRY(NO(RG_ENUM, S("Active"), "invalid value: Active"),
        NO(RG_ENUM, S(""), "empty value not allowed"),
        NO(RG_ENUM, S("activ"), "invalid value: activ"),
        NO(RG_ENUM, S("activee"), "invalid value: activee"),
        NO(RG_ENUM, N(1), "enum expected, got a number"),
        NO(RG_SET, S("new,old"), "invalid value: old"),
        NO(RG_SET, S("new,"), "empty value not allowed"),
        NO(RG_SET, S(","), "empty value not allowed"));
    rg_type *t = type_of_all(0);
    rg_builder *b = rg_builder_new(t, &err);
    rg_builder_u64(b, ID, 1, &err);
    CHECK_EQ_INT(set(b, DATE, "2020-01-01") + set(b, DATETIME, "2020-01-01"), 0);
    CHECK_EQ_INT(rg_builder_set_add(b, SET, "ban'd", 5, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_set_add(b, SET, "new", 3, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_set_add(b, SET, "old", 3, &err), RG_EINVALID);
    rg_block *row = finish(b);
    text_is(t, row, SET, "new,ban'd");
    rg_block_unref(row);
    CHECK_EQ_INT(rg_builder_set_begin(b, SET, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_set_add(b, SET, "active", 6, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_set_begin(b, ENUM, &err), RG_EINVALID);
    CHECK_STR(err.message, "all.enum: enum expected, got a list");
    row = finish(b);
    text_is(t, row, SET, "active");
    rg_block_unref(row);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(references) {
    TRY(OK(RG_REF, N(5), "5"), OK(RG_REF, N(0), NULL), OK(RG_REF, NIL, NULL),
        OK(RG_REF, S("12"), "12"), OK(RG_REF, U(0), NULL), OK(RG_REFS, S("[]"), "[]"),
        OK(RG_REFS, S(" [ 1 , 2,3 ] "), "[1,2,3]"), OK(RG_REFS, NIL, "[]"),
        OK(RG_REFS, S("[9007199254740992]"), "[9007199254740992]"));
    TRY(NO(RG_REF, N(-5), "negative number -5 not allowed"),
        NO(RG_REF, N(1.5), "not a whole number: 1.5"),
        NO(RG_REF, U(9007199254740993), "value 9007199254740993 exceeds max 9007199254740992"),
        NO(RG_REFS, S("[0]"), "invalid list of ids: [0]"),
        NO(RG_REFS, S("[1,]"), "invalid list of ids: [1,]"),
        NO(RG_REFS, S("[1"), "invalid list of ids: [1"),
        NO(RG_REFS, S("1"), "invalid list of ids: 1"),
        NO(RG_REFS, S("[1]x"), "invalid list of ids: [1]x"),
        NO(RG_REFS, S("[-1]"), "invalid list of ids: [-1]"),
        NO(RG_REFS, S("[9007199254740993]"), "invalid list of ids: [9007199254740993]"),
        NO(RG_REFS, N(1), "refs expected, got a number"));
    TRY({.o = {.kind = RG_REF, .flags = RG_COL_REQUIRED},
         .g = N(0),
         .refused = "empty value not allowed"},
        {.o = {.kind = RG_REFS, .flags = RG_COL_REQUIRED},
         .g = S("[]"),
         .refused = "empty value not allowed"});
}

TEST(lists_of_references_grow_one_by_one) {
    rg_type *t = new_type("user");
    CHECK_EQ_INT(add(t, (rg_column_opts){.name = "a", .kind = RG_REFS}), RG_OK);
    CHECK_EQ_INT(add(t, (rg_column_opts){.name = "b", .kind = RG_REFS, .flags = RG_COL_NULLABLE}),
                 RG_OK);
    CHECK_EQ_INT(add(t, (rg_column_opts){.name = "s", .kind = RG_STRING, .def = "dflt"}), RG_OK);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    rg_builder *b = rg_builder_new(t, &err);
    for (int round = 0; round < 3; round++) {
        rg_builder_u64(b, 0, 1, &err);
        for (int i = 1; i <= 20; i++) {
            CHECK_EQ_INT(rg_builder_refs_add(b, 1, i, &err), RG_OK);
            CHECK_EQ_INT(rg_builder_refs_add(b, 2, 100 - i, &err), RG_OK);
        }
        rg_block *row = finish(b);
        text_is(t, row, 1, "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]");
        text_is(t, row, 2, "[99,98,97,96,95,94,93,92,91,90,89,88,87,86,85,84,83,82,81,80]");
        text_is(t, row, 3, "dflt");
        rg_block_unref(row);
        rg_builder_null(b, 2, &err);
        row = finish(b);
        text_is(t, row, 2, NULL);
        rg_block_unref(row);
        CHECK_EQ_INT(rg_builder_refs_add(b, 2, 7, &err), RG_OK);
        row = finish(b);
        text_is(t, row, 2, "[7]");
        rg_block_unref(row);
        CHECK_EQ_INT(rg_builder_refs_begin(b, 1, &err), RG_OK);
        row = finish(b);
        text_is(t, row, 1, "[]");
        rg_block_unref(row);
        rg_builder_reset(b);
    }
    const double bad[] = {0, -1, 1.5, 9007199254740994.0, NAN, INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ_INT(rg_builder_refs_add(b, 1, bad[i], &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_refs_add(b, 3, 1, &err), RG_EINVALID);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(dates_and_times) {
    const char *utc = "time must be in UTC: 2026-01-31T12:00:00+02:00";
    TRY(OK(RG_DATE, S("2026-01-31"), "2026-01-31"), OK(RG_DATE, N(0), "1970-01-01"),
        OK(RG_DATE, N(-1), "1969-12-31"), OK(RG_DATE, N(86399.9), "1970-01-01"),
        OK(RG_DATE, S("1000-01-01"), "1000-01-01"), OK(RG_DATE, S("9999-12-31"), "9999-12-31"),
        OK(RG_DATE, S("2024-02-29"), "2024-02-29"),
        OK(RG_DATETIME, S("2026-01-31"), "2026-01-31 00:00:00"),
        OK(RG_DATETIME, S("2026-01-31 12:34"), "2026-01-31 12:34:00"),
        OK(RG_DATETIME, S("2026-01-31T12:34:56.5Z"), "2026-01-31 12:34:56.500000"),
        OK(RG_DATETIME, S("2026-01-31 12:34:56.123456000"), "2026-01-31 12:34:56.123456"),
        OK(RG_DATETIME, S("2026-01-31T12:34:56+00:00"), "2026-01-31 12:34:56"),
        OK(RG_DATETIME, S("2026-01-31T12:34:56-0000"), "2026-01-31 12:34:56"),
        OK(RG_DATETIME, N(1.25), "1970-01-01 00:00:01.250000"),
        OK(RG_DATETIME, N(-0.5), "1969-12-31 23:59:59.500000"),
        OK(RG_DATETIME, N(0.9999999), "1970-01-01 00:00:01"),
        OK(RG_DATETIME, I(-30610224000), "1000-01-01 00:00:00"),
        OK(RG_DATETIME, N(253402300799), "9999-12-31 23:59:59"),
        OK(RG_DATETIME, S("9999-12-31 23:59:59.999999"), "9999-12-31 23:59:59.999999"),
        OK(RG_TIME, S("-12:30:00"), "-12:30:00"),
        OK(RG_TIME, S("838:59:59.999999"), "838:59:59.999999"),
        OK(RG_TIME, S("-838:59:59.999999"), "-838:59:59.999999"),
        OK(RG_TIME, S("5:07"), "05:07:00"), OK(RG_TIME, N(3661.5), "01:01:01.500000"),
        OK(RG_TIME, N(-1.5), "-00:00:01.500000"), OK(RG_TIME, NIL, "00:00:00"),
        OK(RG_TIME, I(-3020399), "-838:59:59"));
    TRY(NO(RG_DATE, S("2026-02-29"), "invalid date 2026-02-29"),
        NO(RG_DATE, S("0999-12-31"), "invalid date 0999-12-31"),
        NO(RG_DATE, S("2026-1-31"), "invalid date 2026-1-31"),
        NO(RG_DATE, S("2026-13-01"), "invalid date 2026-13-01"),
        NO(RG_DATE, S("2026-01-31 00:00:00"), "invalid date 2026-01-31 00:00:00"),
        NO(RG_DATE, S(""), "invalid date "), NO(RG_DATE, N(1e12), "date out of range"),
        NO(RG_DATE, N(-30610224001), "date out of range"),
        NO(RG_DATE, NIL, "empty value not allowed"),
        NO(RG_DATETIME, N(253402300800), "date out of range"),
        NO(RG_DATETIME, U(UINT64_MAX), "date out of range"),
        NO(RG_DATETIME, N(NAN), "not a finite number"),
        NO(RG_DATETIME, S("2026-01-31T12:00:00+02:00"), utc),
        NO(RG_DATETIME, S("2026-01-31 12:00:00-00:30"),
           "time must be in UTC: 2026-01-31 12:00:00-00:30"),
        NO(RG_DATETIME, S("2026-01-31 12:00:00.1234567"),
           "more than 6 decimals of a second: 2026-01-31 12:00:00.1234567"),
        NO(RG_DATETIME, S("2026-01-31 24:00:00"), "invalid date 2026-01-31 24:00:00"),
        NO(RG_DATETIME, S("2026-01-31 12:60"), "invalid date 2026-01-31 12:60"),
        NO(RG_DATETIME, S("2026-01-31 12:00:60"), "invalid date 2026-01-31 12:00:60"),
        NO(RG_DATETIME, S("2026-01-31 12:00:00."), "invalid date 2026-01-31 12:00:00."),
        NO(RG_DATETIME, S("2026-01-31 12"), "invalid date 2026-01-31 12"),
        NO(RG_DATETIME, S("2026-01-31 12:00:00 UTC"), "invalid date 2026-01-31 12:00:00 UTC"),
        NO(RG_DATETIME, S("2026-01-31 12:00:00+0"), "invalid date 2026-01-31 12:00:00+0"),
        NO(RG_TIME, S("839:00:00"), "invalid time 839:00:00"),
        NO(RG_TIME, S("12"), "invalid time 12"), NO(RG_TIME, S("1234:00"), "invalid time 1234:00"),
        NO(RG_TIME, S("12:00:00.0000001"), "invalid time 12:00:00.0000001"),
        NO(RG_TIME, N(3020400), "time out of range"), NO(RG_TIME, N(-3020400), "time out of range"),
        NO(RG_TIME, B(1), "time expected, got a boolean"));
}

TEST(required_values_are_asked_for) {
    uint32_t f = RG_COL_REQUIRED;
    TRY({.o = {.kind = RG_STRING, .flags = f}, .g = S(""), .refused = "empty string not allowed"},
        {.o = {.kind = RG_STRING, .flags = f}, .g = NIL, .refused = "empty value not allowed"},
        {.o = {.kind = RG_SET, .flags = f}, .g = S(""), .refused = "empty value not allowed"},
        {.o = {.kind = RG_BINARY, .flags = f}, .g = S(""), .refused = "empty value not allowed"},
        {.o = {.kind = RG_JSON, .flags = f}, .g = NIL, .refused = "empty value not allowed"},
        {.o = {.kind = RG_U8, .flags = f}, .g = N(0), .stored = "0"},
        {.o = {.kind = RG_BOOL, .flags = f}, .g = B(0), .stored = "0"},
        {.o = {.kind = RG_ENUM, .flags = f}, .g = NIL, .refused = "empty value not allowed"},
        {.o = {.kind = RG_STRING, .flags = f, .def = "x"},
         .g = NIL,
         .refused = "empty value not allowed"},
        {.o = {.kind = RG_STRING, .flags = RG_COL_NULLABLE, .def = "x"}, .g = NIL, .stored = NULL},
        {.o = {.kind = RG_STRING, .def = "x"}, .g = NIL, .stored = "x"});
    rg_type *t = type_of((rg_column_opts){.kind = RG_U8});
    rg_builder *b = rg_builder_new(t, &err);
    CHECK(rg__builder_finish(b, true, 0, &err) == NULL);
    CHECK_STR(err.message, "user.id: empty value not allowed");
    CHECK_EQ_INT(rg_builder_number(b, 0, 0, &err), RG_OK);
    CHECK(rg__builder_finish(b, true, 0, &err) == NULL);
    CHECK_EQ_INT(rg_builder_u64(b, 0, 9007199254740993, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_number(b, 7, 0, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_null(b, 7, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, 7, "", 0, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_bool(b, UINT32_MAX, 1, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_i64(b, 2, 1, NULL), RG_EINVALID);
    rg_block *row = rg__builder_partial(b);
    CHECK(row != NULL);
    rg_block_unref(row);
    rg_builder_free(b);
    rg_type_free(t);
    rg_type_opts o = {.size = sizeof o, .name = "auto", .ids = RG_IDS_DATABASE};
    t = rg_type_new(&o, &err);
    CHECK(rg_builder_new(t, &err) == NULL);
    CHECK_EQ_INT(err.code, RG_EMISUSE);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    b = rg_builder_new(t, &err);
    row = finish(b);
    CHECK_EQ_INT(rg__row_id(t, row->data), 0);
    rg_block_unref(row);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(json) {
    TRY(OK(RG_JSON, S("{\"a\": 1}"), "{\"a\": 1}"), OK(RG_JSON, NIL, NULL),
        NO(RG_JSON, S("{"), "invalid JSON at byte 2"),
        NO(RG_JSON, N(1), "json expected, got a number"));
}

UNIT_MAIN
