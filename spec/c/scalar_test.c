/* SPDX-License-Identifier: MIT */
/* Units of the text of dates, decimals, doubles and JSON. */
#include "row/row.h"
#include "row/scalar.h"
#include "unit.h"

#include <locale.h>
#include <math.h>
#include <time.h>

static uint64_t state = 88172645463325252u;
static uint32_t random32(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

TEST(json_text_is_scanned) {
    const char *good[] = {"null",
                          "true",
                          " false ",
                          "0",
                          "-0",
                          "1.5e+10",
                          "\"\"",
                          "\"a\\u00e9\\n\\\"\\/\"",
                          "[]",
                          "{}",
                          "[1,[2,{}],{\"a\":null}]",
                          "{\"a\":1,\"b\":[true]}",
                          "\"\\ud83d\\ude00\"",
                          "\"\xC3\xA9\xF0\x9F\x98\x80\"",
                          "\t[\r\n1 , 2 ]\n"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_EQ_INT(rg__json_fault(good[i], strlen(good[i])), 0);
    const struct {
        const char *text;
        size_t at;
    } bad[] = {{"", 1},
               {" ", 2},
               {"nul", 4},
               {"nulL", 4},
               {"01", 2},
               {"-", 2},
               {"1.", 3},
               {".5", 1},
               {"1e", 3},
               {"+1", 1},
               {"\"", 2},
               {"\"\n\"", 2},
               {"\"\\x\"", 3},
               {"\"\\u12g4\"", 6},
               {"\"\\ud800\"", 4},
               {"\"\\udc00\"", 4},
               {"\"\\ud800\\u0041\"", 4},
               {"[", 2},
               {"[1", 3},
               {"[1,]", 4},
               {"[,1]", 2},
               {"{", 2},
               {"{1:2}", 2},
               {"{\"a\"}", 5},
               {"{\"a\":}", 6},
               {"{\"a\":1,}", 8},
               {"[1}", 3},
               {"1 2", 3},
               {"'a'", 1},
               {"\"\xFF\"", 2},
               {"\xEF\xBB\xBF[]", 1},
               {"tru\xC3", 4},
               {"[\"a\" \"b\"]", 6},
               {"NaN", 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!CHECK_EQ_INT(rg__json_fault(bad[i].text, strlen(bad[i].text)), bad[i].at))
            printf("# %s\n", bad[i].text);
    CHECK_EQ_INT(rg__json_fault("\"a\0\"", 4), 3);
    CHECK_EQ_INT(rg__json_fault("1\0", 2), 2);
    char deep[202];
    memset(deep, '[', 101);
    memset(deep + 101, ']', 101);
    CHECK_EQ_INT(rg__json_fault(deep + 1, 200), 0);
    CHECK_EQ_INT(rg__json_fault(deep, 202), 101);
}

TEST(the_calendar_agrees_with_the_c_library) {
    for (int32_t day = -719528; day <= 2932896; day += 1 + (day & 7)) {
        int y;
        unsigned m, d;
        char text[32], want[64];
        struct tm tm;
        time_t at = (time_t)day * 86400;
        rg__civil_from_days(day, &y, &m, &d);
        if (rg__days_from_civil(y, m, d) != day) CHECK(false);
        gmtime_r(&at, &tm);
        snprintf(want, sizeof want, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
        size_t n = rg__date_format(day, text);
        int32_t back;
        if (n != 10 || memcmp(text, want, 10) != 0) CHECK_STR(text, want);
        if (y >= 1000 && (rg__date_parse(text, n, &back) != 0 || back != day)) CHECK(false);
    }
    CHECK_EQ_INT(rg__days_from_civil(1970, 1, 1), 0);
    CHECK_EQ_INT(rg__days_from_civil(2000, 2, 29), 11016);
}

TEST(formatting_never_overflows) {
    char text[40];
    const int64_t wild[] = {INT64_MIN, INT64_MAX, 0, -1, 1, INT64_MIN + 1};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        memset(text, '#', sizeof text);
        CHECK(rg__datetime_format(wild[i], text) <= 26 && text[26] == '#');
        CHECK_EQ_INT(rg__datetime_format6(wild[i], text), 26);
        CHECK(text[26] == '#');
        memset(text, '#', sizeof text);
        CHECK(rg__time_format(wild[i], text) <= 17 && text[17] == '#');
        memset(text, '#', sizeof text);
        CHECK(rg__date_format((int32_t)wild[i], text) == 10 && text[10] == '#');
    }
    CHECK_BYTES(text, rg__datetime_format6(0, text), "1970-01-01 00:00:00.000000");
    CHECK_BYTES(text, rg__datetime_format(-1, text), "1969-12-31 23:59:59.999999");
    CHECK_BYTES(text, rg__time_format(INT64_MIN, text), "-838:59:59.999999");
}

TEST(datetimes_survive_their_text) {
    for (int i = 0; i < 50000; i++) {
        int64_t us =
            (int64_t)(((uint64_t)random32() << 32 | random32()) % UINT64_C(284012524800000000)) -
            INT64_C(30610224000000000);
        if (i % 3 == 0) us -= us % 1000000;
        char text[32];
        int64_t back = 0;
        const char *why = "";
        size_t n = i % 2 ? rg__datetime_format(us, text) : rg__datetime_format6(us, text);
        if (rg__datetime_parse(text, n, &back, &why) != 0 || back != us) CHECK_EQ_INT(back, us);
        int64_t span = us % INT64_C(3020400000000);
        n = rg__time_format(span, text);
        if (rg__time_parse(text, n, &back) != 0 || back != span) CHECK_EQ_INT(back, span);
    }
    CHECK_EQ_INT(rg__datetime_parse("x", 1, NULL, NULL), RG_EINVALID);
}

TEST(decimal_text_is_canonical_or_refused) {
    rg__buf b = {0};
    const struct {
        const char *text;
        uint32_t p, s;
        const char *want;
    } cases[] = {
        {"0", 1, 0, "0"},
        {"+0.0", 2, 1, "0.0"},
        {"12.340", 4, 2, "12.34"},
        {"1e-2", 4, 2, "0.01"},
        {"1E2", 4, 1, "100.0"},
        {"0.00000000000000000000000000000000001", 65, 30, NULL},
        {"000000000000000000000000000000000000000000000000000000000000000000000000000000001", 1, 0,
         "1"},
        {"1.00000000000000000000000000000000000000000000000000000000000000000000000000000000000", 3,
         2, "1.00"},
        {"999", 2, 0, NULL},
        {"1e5001", 65, 0, NULL},
        {"0e99999999999999999999", 5, 2, "0.00"},
        {"1 ", 5, 2, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rg__buf_clear(&b);
        int rc =
            rg__decimal_canonical(cases[i].text, strlen(cases[i].text), cases[i].p, cases[i].s, &b);
        CHECK_EQ_INT(rc, cases[i].want ? RG_OK : RG_EINVALID);
        CHECK_STR(rg__buf_cstr(&b), cases[i].want ? cases[i].want : "");
    }
    static char longest[600];
    memset(longest, '0', sizeof longest);
    CHECK_EQ_INT(rg__decimal_canonical(longest, sizeof longest, 5, 2, &b), RG_EINVALID);
    CHECK_EQ_INT(rg__decimal_canonical(longest, 500, 5, 2, &b), RG_OK);
    rg__buf_deinit(&b);
}

static void doubles_survive(void) {
    for (int i = 0; i < 100000; i++) {
        uint64_t bits = (uint64_t)random32() << 32 | random32();
        double v, back = 0;
        memcpy(&v, &bits, sizeof v);
        if (i % 2) v = (double)((int64_t)bits >> (random32() % 50)) / 100;
        if (!isfinite(v)) continue;
        char text[RG__NUMBER_MAX];
        size_t n = rg__number_format(v, false, text);
        if (n >= sizeof text || !rg__number_parse(text, n, &back) || back != v) CHECK_STR(text, "");
        float f = (float)v;
        if (!isfinite(f)) continue;
        n = rg__number_format((double)f, true, text);
        if (n >= sizeof text || !rg__number_parse(text, n, &back) || (float)back != f)
            CHECK_STR(text, "");
    }
}

static void number_is(double v, const char *want) {
    char text[RG__NUMBER_MAX];
    size_t n = rg__number_format(v, false, text);
    unit_bytes(text, n, want, strlen(want), __FILE__, __LINE__, want);
}

/* The short way and the long way say the same. */
static void few_decimals_are_exact(void) {
    for (int i = 0; i < 200000; i++) {
        static const double units[] = {1, 10, 100, 1000, 10000, 100000};
        int64_t whole = (int64_t)((uint64_t)random32() << 32 | random32()) >> (8 + random32() % 54);
        double v = (double)whole / units[random32() % 6], back = 0;
        char text[RG__NUMBER_MAX], again[RG__NUMBER_MAX], want[64];
        size_t n = rg__number_format(v, false, text);
        if (rg__number_digits(v, 17, again) >= sizeof again || strlen(text) != n) CHECK_STR(text, "");
        if (!rg__number_parse(again, strlen(again), &back) || back != v) CHECK_STR(again, "");
        if (!rg__number_parse(text, n, &back) || back != v) CHECK_STR(text, "");
        snprintf(want, sizeof want, "%.15g", v);
        if (strtod(want, NULL) == v && !strchr(want, 'e') && strcmp(want, "-0") != 0) CHECK_STR(text, want);
    }
}

TEST(numbers_of_few_decimals) {
    number_is(0, "0");
    number_is(-0.0, "0");
    number_is(0.25, "0.25");
    number_is(-0.0625, "-0.0625");
    number_is(-7, "-7");
    number_is(0.57, "0.57");
    number_is(1000.0001, "1000.0001");
    number_is(99999999999.9999, "99999999999.9999");
    number_is(123456789012345.0, "123456789012345");
    number_is(0.00005, "0.00005");
    number_is(0.1 + 0.2, "0.30000000000000004");
    few_decimals_are_exact();
    char text[RG__NUMBER_MAX];
    CHECK_EQ_INT(rg__number_digits(0.1, 17, text), 3);
    CHECK_STR(text, "0.1");
    rg__number_digits(0.1 + 0.2, 17, text);
    CHECK_STR(text, "0.30000000000000004");
    rg__number_digits((double)3.14159274f, 9, text);
    CHECK_STR(text, "3.14159274");
    rg__number_digits(3.4028234663852886e38, 17, text);
    CHECK_STR(text, "3.4028234663852886e+38");
    rg__number_digits(INFINITY, 17, text);
    CHECK_STR(text, "inf");
}

TEST(numbers_have_their_shortest_text_in_any_locale) {
    const char *locales[] = {"C", "de_DE.UTF-8", "fr_FR.UTF-8", "ps_AF.UTF-8"};
    for (size_t i = 0; i < sizeof locales / sizeof *locales; i++) {
        if (!setlocale(LC_ALL, locales[i])) continue;
        number_is(0.1, "0.1");
        number_is(-1234.5, "-1234.5");
        number_is(1e21, "1e+21");
        number_is(1.5e-7, "1.5e-7");
        number_is(0.0001, "0.0001");
        number_is(123456789012345680.0, "1.2345678901234568e+17");
        number_is(9007199254740993.0, "9007199254740992");
        number_is(NAN, "nan");
        number_is(-INFINITY, "-inf");
        doubles_survive();
    }
    setlocale(LC_ALL, "C");
    double v;
    CHECK(rg__number_parse("1e999999999999", 14, &v) && isinf(v));
    CHECK(rg__number_parse("-0", 2, &v) && v == 0);
    CHECK(rg__number_parse("0.1", 3, &v) && v == 0.1);
}

UNIT_MAIN
