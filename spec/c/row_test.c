/* SPDX-License-Identifier: MIT */
/* Units of the packed row: its bytes, values, differences, merges, the check, lookup keys. */
#include "rows.h"

TEST(rows_are_canonical) {
    rg_type *t = type_of_all(RG_COL_NULLABLE);
    rg_builder *b = rg_builder_new(t, &err), *c = rg_builder_new(t, &err);
    for (unsigned seed = 0; seed < 50; seed++) {
        rg_block *one = make(b, seed);
        /* The same values in another order, over other ones, with nulls on the way. */
        rg_builder_reset(c);
        fill(c, seed + 1);
        for (uint32_t i = COLUMNS; i-- > 1;) {
            char text[256];
            int n = rg_row_text(t, one->data, i, text, sizeof text);
            rg_builder_null(c, i, &err);
            if (n >= 0) CHECK_EQ_INT(rg_builder_string(c, i, text, (size_t)n, &err), RG_OK);
        }
        rg_builder_u64(c, ID, seed + 1, &err);
        rg_block *two = finish(c);
        CHECK(one->len == two->len && memcmp(one->data, two->data, one->len) == 0);
        CHECK_EQ_INT(rg_builder_load(c, one->data, one->len, &err), RG_OK);
        rg_block *three = finish(c);
        CHECK(one->len == three->len && memcmp(one->data, three->data, one->len) == 0);
        rg_block_unref(one);
        rg_block_unref(two);
        rg_block_unref(three);
    }
    rg_builder_free(b);
    rg_builder_free(c);
    rg_type_free(t);
}

TEST(the_bytes_of_a_row_are_these) {
    rg_type *t = new_type("user");
    add(t, (rg_column_opts){.name = "n", .kind = RG_U16, .flags = RG_COL_NULLABLE});
    add(t, (rg_column_opts){.name = "s", .kind = RG_STRING});
    add(t, (rg_column_opts){.name = "e", .kind = RG_STRING});
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    rg_builder *b = rg_builder_new(t, &err);
    rg_builder_u64(b, 0, 0x0102, &err);
    set(b, 2, "hey");
    rg_block *row = finish(b);
    REQUIRE(row && row->len == 61);
    CHECK_BYTES(row->data, 8, "\x47\x52\x01\x00\x3D\x00\x00\x00");
    CHECK(memcmp(row->data + 8, &t->fingerprint, 8) == 0);
    CHECK_BYTES(row->data + 24, 8, "\x02\0\0\0\0\0\0\0");
    CHECK_BYTES(row->data + 32, 8, "\x02\x01\0\0\0\0\0\0");
    CHECK_BYTES(row->data + 40, 8, "\x3A\0\0\0\x03\0\0\0");
    CHECK_BYTES(row->data + 48, 8, "\x3D\0\0\0\0\0\0\0");
    CHECK_BYTES(row->data + 56, 2, "\0\0");
    CHECK_BYTES(row->data + 58, 3, "hey");
    rg_block_unref(row);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(the_checksum_is_the_same_however_long_the_row) {
    rg_type *t = type_of((rg_column_opts){.kind = RG_TEXT, .length = 100000});
    rg_builder *b = rg_builder_new(t, &err);
    static char text[5000];
    memset(text, 'x', sizeof text);
    rg_builder_u64(b, 0, 1, &err);
    for (size_t n = 0; n < sizeof text; n += 37) {
        CHECK_EQ_INT(rg_builder_string(b, 1, text, n, &err), RG_OK);
        rg_block *row = finish(b);
        CHECK(rg__row_hash(row->data, row->len) == rg__row_sum(row->data));
        rg_block_unref(row);
    }
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(values_come_back) {
    rg_type *t = type_of_all(0);
    rg_builder *b = rg_builder_new(t, &err);
    rg_block *row = make(b, 5);
    CHECK_EQ_INT(rg__row_id(t, row->data), 6);
    CHECK_EQ_INT(rg__row_value(t, row->data, I24).i, 39);
    CHECK_EQ_INT(rg__row_value(t, row->data, U8).u, 42);
    CHECK(rg__row_value(t, row->data, FLOAT).d == 2.5);
    CHECK(rg__row_value(t, row->data, DOUBLE).d == -1.25);
    rg__value v = rg__row_value(t, row->data, STRING);
    CHECK_BYTES(v.s.p, v.s.len, "15-4985");
    CHECK_EQ_INT(rg__row_value(t, row->data, TIME).i, -5000000);
    CHECK_EQ_INT(rg__row_value(t, row->data, DATE).i, 5);
    rg_builder_number(b, I8, -100, &err);
    rg_builder_number(b, I24, -8388608, &err);
    rg_block *other = finish(b);
    CHECK_EQ_INT(rg__row_value(t, other->data, I8).i, -100);
    CHECK_EQ_INT(rg__row_value(t, other->data, I24).i, -8388608);
    char out[4] = {'z', 'z', 'z', 'z'};
    CHECK_EQ_INT(rg_row_text(t, row->data, STRING, out, 3), 7);
    CHECK_BYTES(out, 4, "15-z");
    CHECK_EQ_INT(rg_row_text(t, row->data, COLUMNS, out, 3), RG_EMISUSE);
    CHECK_EQ_INT(rg_row_text(t, row->data, STRING, NULL, 0), 7);
    rg_block_unref(row);
    rg_block_unref(other);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(trusted_values_are_not_asked_for_emptiness) {
    rg_type *t = new_type("user");
    add(t, (rg_column_opts){.name = "s", .kind = RG_STRING, .flags = RG_COL_REQUIRED});
    add(t, (rg_column_opts){.name = "r", .kind = RG_REF});
    add(t, (rg_column_opts){.name = "d", .kind = RG_DOUBLE});
    add(t, (rg_column_opts){.name = "e", .kind = RG_ENUM});
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    rg_builder *b = rg_builder_new(t, &err);
    rg__value id = {.u = 9}, empty = {.s = {"", 0}}, zero = {.d = -0.0}, null = {.is_null = true};
    rg__builder_put(b, 0, &id);
    rg__builder_put(b, 1, &empty);
    rg__builder_put(b, 2, &zero);
    rg__builder_put(b, 3, &zero);
    rg__builder_put(b, 4, &null);
    CHECK(rg__builder_has(b, 1) && rg__builder_has(b, 4));
    rg_block *row = finish(b);
    text_is(t, row, 1, "");
    text_is(t, row, 2, NULL);
    text_is(t, row, 3, "0");
    text_is(t, row, 4, "new");
    CHECK_EQ_INT(rg_builder_load(b, row->data, row->len, &err), RG_OK);
    rg_block *again = finish(b);
    CHECK(again->len == row->len && memcmp(again->data, row->data, row->len) == 0);
    CHECK_EQ_INT(rg_builder_load(b, row->data, 40, &err), RG_ECORRUPT);
    rg_block_unref(row);
    rg_block_unref(again);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(stamps_are_set_when_they_should_be) {
    rg_type *t = new_type("user");
    add(t, (rg_column_opts){.name = "c", .kind = RG_DATETIME, .flags = RG_COL_CREATED});
    add(t, (rg_column_opts){
               .name = "u", .kind = RG_DATETIME, .flags = RG_COL_UPDATED | RG_COL_NULLABLE});
    add(t,
        (rg_column_opts){.name = "d", .kind = RG_DATE, .flags = RG_COL_CREATED | RG_COL_REQUIRED});
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    rg_builder *b = rg_builder_new(t, &err);
    const int64_t now = INT64_C(1000000) * 90000 + 5;
    rg_builder_u64(b, 0, 1, &err);
    CHECK(rg__builder_finish(b, true, 0, &err) == NULL);
    CHECK_STR(err.message, "user.d: empty value not allowed");
    rg_block *row = rg__builder_finish(b, true, now, &err);
    REQUIRE(row);
    text_is(t, row, 1, "1970-01-02 01:00:00.000005");
    text_is(t, row, 2, "1970-01-02 01:00:00.000005");
    text_is(t, row, 3, "1970-01-02");
    CHECK_EQ_INT(rg__row_check(t, row->data, row->len, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_load(b, row->data, row->len, &err), RG_OK);
    rg_block_unref(row);
    row = rg__builder_finish(b, false, now + 1, &err);
    text_is(t, row, 1, "1970-01-02 01:00:00.000005");
    text_is(t, row, 2, "1970-01-02 01:00:00.000006");
    const uint8_t none[4] = {0}, changed[4] = {[2] = 1};
    rg_block *kept[2];
    set(b, 2, "2001-02-03");
    rg__builder_keep_stamps(b, none);
    kept[0] = rg__builder_finish(b, false, now + 2, &err);
    rg__builder_keep_stamps(b, changed);
    kept[1] = rg__builder_finish(b, false, now + 2, &err);
    text_is(t, kept[0], 2, "1970-01-02 01:00:00.000007");
    text_is(t, kept[1], 2, "2001-02-03 00:00:00");
    rg_block_unref(kept[0]);
    rg_block_unref(kept[1]);
    rg_block_unref(row);
    rg_builder_reset(b);
    rg_builder_u64(b, 0, 1, &err);
    set(b, 1, "2000-01-01");
    rg_builder_null(b, 2, &err);
    rg_builder_null(b, 3, &err);
    row = rg__builder_finish(b, true, now, &err);
    text_is(t, row, 1, "2000-01-01 00:00:00");
    text_is(t, row, 2, NULL);
    text_is(t, row, 3, "1970-01-02");
    rg_block_unref(row);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(what_a_row_holds_is_kept_though_no_setter_would_take_it) {
    rg_type *t = new_type("user");
    add(t, (rg_column_opts){.name = "s", .kind = RG_STRING, .length = 2, .flags = RG_COL_REQUIRED});
    add(t, (rg_column_opts){.name = "d", .kind = RG_DATE, .flags = RG_COL_NULLABLE});
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    rg_builder *b = rg_builder_new(t, &err);
    rg__value id = {.store = RG_STORE_U64, .u = 1}, day = {.store = RG_STORE_I32, .i = -719528};
    rg__value text = {.store = RG_STORE_VAR, .s = {"long", 4}};
    rg__builder_put(b, 0, &id);
    rg__builder_put(b, 1, &text);
    rg__builder_put(b, 2, &day);
    rg_block *row = finish(b);
    rg_builder_reset(b);
    CHECK_EQ_INT(rg_builder_u64(b, 0, 1, &err), RG_OK);
    CHECK_EQ_INT(set(b, 1, "long"), RG_EINVALID);
    CHECK_EQ_INT(set(b, 2, "0000-01-01"), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_keep(b, 1, row->data, &err), RG_OK);
    CHECK_EQ_INT(rg_builder_keep(b, 2, row->data, &err), RG_OK);
    CHECK(rg_builder_keep(b, 3, row->data, &err) < 0);
    rg_block *after = finish(b);
    CHECK(row->len == after->len && memcmp(row->data, after->data, row->len) == 0);
    rg_block_unref(row);
    rg_block_unref(after);
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(a_refused_value_leaves_the_former_one) {
    rg_type *t = type_of_all(0);
    rg_builder *b = rg_builder_new(t, &err);
    rg_block *before = make(b, 3);
    const char *bad[COLUMNS] = {"x",  "x", "x", "x", "x", "x", "x",    "x",    "x",
                                "x",  "x", "x", "x", "x", "x", "\xFF", "\xFF", NULL,
                                NULL, "x", "x", "x", "x", "x", "x",    "x",    "x"};
    for (uint32_t i = 0; i < COLUMNS; i++)
        if (bad[i]) CHECK_EQ_INT(set(b, i, bad[i]), RG_EINVALID);
    static char big[65536];
    CHECK_EQ_INT(rg_builder_string(b, BINARY, big, 256, &err), RG_EINVALID);
    CHECK_EQ_INT(rg_builder_string(b, BLOB, big, sizeof big, &err), RG_EINVALID);
    rg_block *after = finish(b);
    CHECK(before->len == after->len && memcmp(before->data, after->data, after->len) == 0);
    rg_block_unref(before);
    rg_block_unref(after);
    rg_builder_free(b);
    rg_type_free(t);
}

/* ---- differences and merges ---- */

TEST(diff_and_merge_agree) {
    rg_type *t = type_of_all(RG_COL_NULLABLE);
    rg_builder *b = rg_builder_new(t, &err);
    uint8_t mask[COLUMNS], none[COLUMNS] = {0}, all[COLUMNS];
    memset(all, 1, sizeof all);
    srand(7);
    for (unsigned round = 0; round < 300; round++) {
        rg_block *one = make(b, (unsigned)rand() % 30);
        rg_builder_reset(b);
        fill(b, (unsigned)rand() % 30);
        for (int i = 0; i < 6; i++) rg_builder_null(b, 1 + (uint32_t)rand() % (COLUMNS - 1), &err);
        rg_block *two = finish(b);
        uint32_t n = rg__row_diff(t, one->data, two->data, mask), seen = 0;
        for (uint32_t i = 0; i < COLUMNS; i++) {
            CHECK_EQ_INT(mask[i], !rg__row_column_eq(t, one->data, two->data, i));
            seen += mask[i];
        }
        CHECK_EQ_INT(n, seen);
        const uint8_t *masks[] = {mask, all, none};
        for (int m = 0; m < 3; m++) {
            rg_block *merged = rg__row_merge(t, one->data, two->data, masks[m], &err);
            const rg_block *want = m == 2 ? one : two;
            REQUIRE(merged);
            CHECK(merged->len == want->len && memcmp(merged->data, want->data, want->len) == 0);
            CHECK_EQ_INT(rg__row_check(t, merged->data, merged->len, &err), RG_OK);
            rg_block_unref(merged);
        }
        CHECK_EQ_INT(rg__row_diff(t, one->data, one->data, mask), 0);
        CHECK(memcmp(mask, none, sizeof mask) == 0);
        for (uint32_t i = 0; i < COLUMNS; i++) mask[i] = (uint8_t)(rand() & 1);
        rg_block *mixed = rg__row_merge(t, one->data, two->data, mask, &err);
        CHECK_EQ_INT(rg__row_check(t, mixed->data, mixed->len, &err), RG_OK);
        for (uint32_t i = 0; i < COLUMNS; i++)
            CHECK(rg__row_column_eq(t, mixed->data, (mask[i] ? two : one)->data, i));
        rg_block_unref(mixed);
        rg_block_unref(one);
        rg_block_unref(two);
    }
    rg_builder_free(b);
    rg_type_free(t);
}

/* Sets some columns of a builder to what another row holds, in a random order; some to NULL. */
static void set_some(rg_builder *b, const rg_type *t, const rg_block *from) {
    for (int n = rand() % 6; n > 0; n--) {
        uint32_t col = 1 + (uint32_t)rand() % (COLUMNS - 1);
        char text[256];
        int len = rg_row_text(t, from->data, col, text, sizeof text);
        if (len < 0 || rand() % 4 == 0) rg_builder_null(b, col, &err);
        else CHECK_EQ_INT(rg_builder_string(b, col, text, (size_t)len, &err), RG_OK);
    }
}

TEST(whole_numbers_are_replaced_as_a_builder_would) {
    static const double values[] = {0, 1, -1, 127, 128, -128, 255, 65536, 2147483648.0, 4294967295.0, 4294967296.0,
                                    9007199254740992.0, 9007199254740994.0, 0.5, -0.0, 1e300};
    rg_type *t = type_of_all(RG_COL_NULLABLE);
    rg_builder *b = rg_builder_new(t, &err);
    uint8_t mask[COLUMNS];
    srand(12);
    for (unsigned round = 0; round < 300; round++) {
        rg_block *row = make(b, round % 50);
        double v = values[round % (sizeof values / sizeof *values)];
        for (uint32_t col = 0; col < t->n_columns; col++) {
            bool takes = rg__row_takes_whole(t, row->data, col, v);
            CHECK_EQ_INT(rg_builder_load(b, row->data, row->len, &err), RG_OK);
            if (takes) CHECK_EQ_INT(rg_builder_number(b, col, v, &err), RG_OK);
            if (!takes) continue;
            CHECK(col != 0 && t->columns[col].kind >= RG_I8 && t->columns[col].kind <= RG_U64);
            rg_block *want = finish(b), *got = rg__row_with_whole(t, row, col, v);
            CHECK(got->len == want->len && memcmp(got->data, want->data, want->len) == 0);
            CHECK(rg__row_is_whole(t, got->data, col, v) && !rg__row_is_whole(t, got->data, col, v + 2));
            uint32_t differs = rg__row_diff(t, row->data, got->data, mask);
            CHECK(differs <= 1 && rg__row_is_whole(t, row->data, col, v) == (differs == 0));
            rg_block_unref(want);
            rg_block_unref(got);
        }
        rg_block_unref(row);
    }
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(what_became_of_a_loaded_row_differs_from_it_as_rows_do) {
    rg_type *t = type_of_all(RG_COL_NULLABLE);
    rg_builder *b = rg_builder_new(t, &err);
    uint8_t mask[COLUMNS], want[COLUMNS];
    srand(11);
    for (unsigned round = 0; round < 500; round++) {
        rg_block *one = make(b, (unsigned)rand() % 50), *two = make(b, (unsigned)rand() % 50);
        CHECK_EQ_INT(rg_builder_load(b, one->data, one->len, &err), RG_OK);
        set_some(b, t, two);
        rg_block *after = finish(b);
        uint32_t n = rg__row_diff(t, one->data, after->data, want);
        CHECK_EQ_INT(rg__builder_diff(b, one->data, after->data, mask), n);
        CHECK(memcmp(mask, want, COLUMNS) == 0);
        rg_block *merged = rg__row_merge(t, one->data, after->data, mask, &err);
        CHECK(merged->len == after->len && memcmp(merged->data, after->data, after->len) == 0);
        /* the row that was loaded is not the one that it is compared with */
        n = rg__row_diff(t, two->data, after->data, want);
        CHECK_EQ_INT(rg__builder_diff(b, two->data, after->data, mask), n);
        CHECK(memcmp(mask, want, COLUMNS) == 0);
        rg_block_unref(one);
        rg_block_unref(two);
        rg_block_unref(after);
        rg_block_unref(merged);
    }
    rg_builder_free(b);
    rg_type_free(t);
}

TEST(values_that_were_given_are_read_where_they_lie) {
    rg_type *t = type_of_all(RG_COL_NULLABLE);
    rg_builder *b = rg_builder_new(t, &err);
    srand(13);
    for (unsigned round = 0; round < 300; round++) {
        uint8_t mask[COLUMNS] = {0};
        rg_block *from = make(b, (unsigned)rand() % 50);
        rg_builder_reset(b);
        set_some(b, t, from);
        rg_block *want = rg__builder_partial(b);
        size_t len = rg__builder_size(b);
        uint8_t *row = malloc(len); /* so that a read past the end is seen */
        rg__builder_values(b, len, row);
        rg__builder_given(b, mask);
        for (uint32_t i = 0; i < COLUMNS; i++) {
            CHECK(rg__row_column_eq(t, row, want->data, i));
            CHECK_EQ_INT(mask[i], rg__builder_has(b, i));
        }
        free(row);
        rg_block_unref(from);
        rg_block_unref(want);
    }
    rg_builder_free(b);
    rg_type_free(t);
}

/* ---- foreign bytes ---- */

static int check_changed(const rg_type *t, const rg_block *row, uint32_t at, uint8_t value,
                         bool seal) {
    uint8_t copy[1024];
    memcpy(copy, row->data, row->len);
    copy[at] = value;
    if (seal) rg__row_seal(copy, row->len);
    return rg__row_check(t, copy, row->len, &err);
}

TEST(check_tells_what_is_wrong) {
    rg_type *t = type_of_all(0), *other = type_of((rg_column_opts){.kind = RG_U8});
    rg_builder *b = rg_builder_new(t, &err);
    rg_block *row = make(b, 5);
    CHECK_EQ_INT(rg__row_check(other, row->data, row->len, &err), RG_ESCHEMA);
    CHECK_EQ_INT(rg__row_check(t, "", 0, &err), RG_ECORRUPT);
    CHECK_EQ_INT(rg__row_check(t, row->data, 23, &err), RG_ECORRUPT);
    CHECK_EQ_INT(rg__row_check(t, row->data, row->len - 1, &err), RG_ECORRUPT);
    CHECK_STR(err.message, "row of all: wrong length");
    CHECK_STR(err.entity, "all");
    CHECK_EQ_INT(rg__row_check(t, row->data, row->len - 1, NULL), RG_ECORRUPT);
    for (uint32_t i = 0; i < row->len; i++)
        CHECK_EQ_INT(check_changed(t, row, i, row->data[i] ^ 0x40, false), RG_ECORRUPT);
    const struct {
        uint32_t col, at;
        uint8_t value;
    } bad[] = {{BOOL, 0, 2},   {I24, 3, 1},    {U24, 3, 1},        {ENUM, 0, 0},   {ENUM, 0, 4},
               {SET, 0, 8},    {DATE, 3, 127}, {DATETIME, 7, 127}, {TIME, 6, 0},   {STRING, 0, 0},
               {STRING, 4, 1}, {STRING, 7, 1}, {REFS, 4, 9},       {REFS, 7, 255}, {DECIMAL, 4, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!CHECK_EQ_INT(check_changed(t, row, t->columns[bad[i].col].offset + bad[i].at,
                                        bad[i].value, true),
                          RG_ECORRUPT))
            printf("# %s\n", names[bad[i].col]);
    CHECK_EQ_INT(check_changed(t, row, 24, 2, true), RG_ECORRUPT); /* NULL where none may be */
    CHECK_EQ_INT(check_changed(t, row, 24 + 3, 0x08, true),
                 RG_ECORRUPT); /* bit 27: no such column */
    CHECK_EQ_INT(check_changed(t, row, 31, 0x80, true), RG_ECORRUPT);
    rg__value v = rg__row_value(t, row->data, DECIMAL);
    uint32_t at = (uint32_t)((const uint8_t *)v.s.p - row->data);
    CHECK_EQ_INT(check_changed(t, row, at, ';', true), RG_ECORRUPT);
    CHECK_EQ_INT(check_changed(t, row, at, '.', true), RG_ECORRUPT);
    CHECK_EQ_INT(check_changed(t, row, at, '-', true), RG_ECORRUPT);
    CHECK_EQ_INT(check_changed(t, row, at, '9', true), RG_OK);
    rg_block_unref(row);
    rg_builder_free(b);
    rg_type_free(t);
    rg_type_free(other);
}

/* ---- lookup keys ---- */

static rg_type *keyed_type(const char *collation) {
    rg_type *t = new_type("user");
    add(t, (rg_column_opts){
               .name = "s", .kind = RG_STRING, .collation = collation, .flags = RG_COL_NULLABLE});
    add(t, (rg_column_opts){.name = "n", .kind = RG_I32, .flags = RG_COL_NULLABLE});
    add(t, (rg_column_opts){.name = "b", .kind = RG_BINARY, .flags = RG_COL_NULLABLE});
    rg_index_opts x = {
        .size = sizeof x, .name = "x", .n_columns = 3, .columns = (const char *[]){"s", "n", "b"}};
    CHECK_EQ_INT(rg_type_index(t, &x, &err), RG_OK);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    return t;
}

static bool key_of(const rg_type *t, const char *s, double n, const char *bytes, rg__buf *out) {
    rg_builder *b = rg_builder_new(t, &err);
    if (s)
        set(b, 1, s);
    else
        rg_builder_null(b, 1, &err);
    rg_builder_number(b, 2, n, &err);
    set(b, 3, bytes);
    bool has_null;
    rg__buf_clear(out);
    CHECK_EQ_INT(rg__key_encode_builder(t, &t->indexes[0], b, out, &has_null, &err), RG_OK);
    CHECK_EQ_INT(has_null, s == NULL);
    rg_block *row = rg__builder_partial(b);
    rg__buf from_row = {0};
    CHECK_EQ_INT(rg__key_encode(t, &t->indexes[0], row->data, &from_row), s != NULL);
    bool same = rg__slice_eq((rg__slice){out->p, out->len}, (rg__slice){from_row.p, from_row.len});
    same = same && rg__key_matches(t, &t->indexes[0], row->data, (rg__slice){out->p, out->len});
    rg__buf_deinit(&from_row);
    rg_block_unref(row);
    rg_builder_free(b);
    return same;
}

static bool keys_equal(const char *collation, const char *a, const char *b) {
    rg_type *t = keyed_type(collation);
    rg__buf one = {0}, two = {0};
    CHECK(key_of(t, a, 5, "x", &one));
    CHECK(key_of(t, b, 5, "x", &two));
    bool equal = rg__slice_eq((rg__slice){one.p, one.len}, (rg__slice){two.p, two.len});
    rg__buf_deinit(&one);
    rg__buf_deinit(&two);
    rg_type_free(t);
    return equal;
}

TEST(keys_follow_the_collation) {
    CHECK(keys_equal(NULL, "a", "a  "));
    CHECK(!keys_equal(NULL, "a", "A"));
    CHECK(!keys_equal(NULL, "a", " a"));
    CHECK(keys_equal("utf8mb4_bin", "", "   "));
    CHECK(!keys_equal("utf8mb4_0900_bin", "a", "a "));
    CHECK(!keys_equal("utf8mb4_nopad_bin", "a", "a "));
    CHECK(keys_equal("utf8mb4_general_ci", "Ann ", "aNN"));
    CHECK(!keys_equal("utf8mb4_general_ci", "\xC3\x89", "\xC3\xA9"));
    CHECK(keys_equal("utf8mb4_0900_ai_ci", "Ann", "aNN"));
    CHECK(!keys_equal("utf8mb4_0900_ai_ci", "a", "a "));
    CHECK(!keys_equal("utf8mb4_turkish_ci", "I", "i"));
    CHECK(!keys_equal("utf8mb4_0900_as_cs", "A", "a"));
    CHECK(!keys_equal(NULL, NULL, ""));
    CHECK(keys_equal(NULL, NULL, NULL));
}

TEST(keys_delimit_their_values) {
    rg_type *t = keyed_type(NULL);
    rg__buf a = {0}, b = {0};
    CHECK(key_of(t, "ab", 1, "c", &a) && key_of(t, "a", 1, "bc", &b));
    CHECK(!rg__slice_eq((rg__slice){a.p, a.len}, (rg__slice){b.p, b.len}));
    CHECK(key_of(t, "a", -1, "", &a) && key_of(t, "a", 1, "", &b));
    CHECK(!rg__slice_eq((rg__slice){a.p, a.len}, (rg__slice){b.p, b.len}));
    CHECK(key_of(t, "a", 1, "x ", &a) && key_of(t, "a", 1, "x", &b));
    CHECK(!rg__slice_eq((rg__slice){a.p, a.len}, (rg__slice){b.p, b.len}));
    CHECK(key_of(t, "a", 0, "x", &a));
    CHECK_BYTES(a.p, a.len, "s\1ai\0s\1x");
    char text[201];
    memset(text, 'q', 200);
    text[200] = '\0';
    CHECK(key_of(t, text, 0, "x", &a));
    CHECK_EQ_INT(a.len, 1 + 2 + 200 + 2 + 3);
    rg_builder *builder = rg_builder_new(t, &err);
    set(builder, 1, "a");
    bool has_null;
    CHECK_EQ_INT(rg__key_encode_builder(t, &t->indexes[0], builder, &a, &has_null, &err),
                 RG_EINVALID);
    CHECK_STR(err.message, "user.n: index \"x\" needs a value");
    rg_builder_free(builder);
    rg__buf_deinit(&a);
    rg__buf_deinit(&b);
    rg_type_free(t);
}

/* ---- out of memory ---- */

static int build_all(const rg_type *t) {
    rg__err_clear(&err);
    rg_builder *b = rg_builder_new(t, &err);
    if (!b) return err.code;
    fill(b, 5);
    rg_block *row = rg__builder_finish(b, true, 0, &err);
    int rc = row ? RG_OK : err.code;
    uint8_t mask[COLUMNS] = {[STRING] = 1};
    rg_block *merged = row ? rg__row_merge(t, row->data, row->data, mask, &err) : NULL;
    if (row && !merged) rc = err.code;
    rg_block_unref(merged);
    rg_block_unref(row);
    rg_builder_free(b);
    return rc;
}

TEST(rows_survive_out_of_memory) {
    rg_type *t = type_of_all(RG_COL_NULLABLE);
    int rc = RG_ENO_MEMORY;
    long fail = 1;
    for (; fail < 200 && rc == RG_ENO_MEMORY; fail++) {
        rg__alloc_fail_at(fail, 1);
        rc = build_all(t);
        rg__alloc_fail_at(0, 0);
        if (rc != RG_OK) CHECK_EQ_INT(rc, RG_ENO_MEMORY);
    }
    CHECK_EQ_INT(rc, RG_OK);
    CHECK(fail > 4);
    rg_type_free(t);
}

TEST(a_builder_is_usable_after_out_of_memory) {
    rg_type *t = type_of((rg_column_opts){.kind = RG_TEXT});
    rg_builder *b = rg_builder_new(t, &err);
    static char text[60000];
    memset(text, 'a', sizeof text);
    rg_builder_u64(b, 0, 1, &err);
    rg__alloc_fail_at(1, 0);
    CHECK_EQ_INT(rg_builder_string(b, 1, text, sizeof text, &err), RG_ENO_MEMORY);
    rg__alloc_fail_at(0, 0);
    CHECK(rg__builder_finish(b, true, 0, &err) == NULL);
    CHECK_EQ_INT(err.code, RG_ENO_MEMORY);
    rg_builder_reset(b);
    rg_builder_u64(b, 0, 1, &err);
    CHECK_EQ_INT(rg_builder_string(b, 1, text, sizeof text, &err), RG_OK);
    rg_block_unref(finish(b));
    rg_builder_free(b);
    rg_type_free(t);
}

UNIT_MAIN
