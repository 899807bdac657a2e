/* SPDX-License-Identifier: MIT */
/* Changed rows, random bytes and random text: refused, or readable in every way. */
#include "rows.h"

static uint64_t state = 88172645463325252u;
static uint32_t random32(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

/* Reads every column in every way; what the sanitizers do not see is no fault. */
static size_t read_all(const rg_type *t, const uint8_t *row, uint32_t len, rg_builder *b) {
    static char text[8192];
    size_t sum = 0;
    uint8_t mask[COLUMNS];
    for (uint32_t i = 0; i < t->n_columns; i++) {
        rg__value v = rg__row_value(t, row, i);
        for (size_t k = 0; !v.is_null && v.store == RG_STORE_VAR && k < v.s.len; k++)
            sum += (uint8_t)v.s.p[k];
        int n = rg_row_text(t, row, i, text, sizeof text);
        if (n > 0) sum += (uint8_t)text[(n < (int)sizeof text ? n : (int)sizeof text) - 1];
    }
    sum += rg__row_diff(t, row, row, mask);
    rg__buf key = {0};
    rg__key_encode(t, &t->indexes[0], row, &key);
    CHECK(rg__key_matches(t, &t->indexes[0], row, (rg__slice){key.p, key.len}));
    rg__buf_deinit(&key);
    if (rg_builder_load(b, row, len, NULL) != RG_OK) CHECK(false);
    rg_block *again = rg__builder_finish(b, false, 0, &err);
    CHECK(again && again->len == len && memcmp(again->data, row, len) == 0);
    rg_block_unref(again);
    return sum;
}

/* Changes a few bytes, mostly where lengths and small numbers live. */
static uint32_t mutate(const rg_type *t, uint8_t *row, uint32_t len) {
    for (uint32_t n = 1 + random32() % 4; n > 0; n--) {
        uint32_t span = random32() % 3 ? t->fixed_end : len;
        uint32_t at = random32() % (span < len ? span : len);
        static const uint8_t often[] = {0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF};
        row[at] = random32() % 2 ? often[random32() % sizeof often] : (uint8_t)random32();
    }
    if (random32() % 8 == 0) len = random32() % (len + 1);
    return len;
}

static rg_type *fuzzed_type(int round) {
    rg_type *t = new_type("all");
    const uint32_t flags[] = {RG_COL_NULLABLE, 0, 0};
    for (int i = 1; i < COLUMNS; i++)
        add(t, (rg_column_opts){.name = names[i],
                                .kind = RG_BOOL + i - 1,
                                .flags = round == 2 && i % 2 ? RG_COL_NULLABLE : flags[round % 3]});
    rg_index_opts x = {.size = sizeof x,
                       .name = "x",
                       .n_columns = 5,
                       .columns = (const char *[]){"string", "i32", "float", "decimal", "set"}};
    CHECK_EQ_INT(rg_type_index(t, &x, &err), RG_OK);
    CHECK_EQ_INT(rg_type_freeze(t, &err), RG_OK);
    return t;
}

TEST(fuzzed_rows_are_refused_or_readable) {
    unsigned long accepted = 0, refused = 0;
    for (int round = 0; round < 3; round++) {
        rg_type *t = fuzzed_type(round);
        rg_builder *b = rg_builder_new(t, &err);
        for (unsigned i = 0; i < 70000; i++) {
            rg_builder_reset(b);
            fill(b, i % 40);
            for (int k = 0; k < 3; k++) rg_builder_null(b, 1 + random32() % (COLUMNS - 1), &err);
            rg_block *row = rg__builder_partial(b);
            uint32_t len = mutate(t, row->data, row->len);
            uint8_t *exact = malloc(len ? len : 1); /* so that a read past the end is seen */
            memcpy(exact, row->data, len);
            if (random32() % 16 && len >= RG_ROW_HEADER) {
                uint16_t magic = RG_ROW_MAGIC;
                memcpy(exact, &magic, 2);
                exact[2] = RG_ROW_FORMAT;
                exact[3] = 0;
                memcpy(exact + 8, &t->fingerprint, 8);
                rg__row_seal(exact, len);
            }
            if (rg__row_check(t, exact, len, &err) == RG_OK) {
                accepted++;
                read_all(t, exact, len, b);
            } else {
                refused++;
            }
            free(exact);
            rg_block_unref(row);
        }
        rg_builder_free(b);
        rg_type_free(t);
    }
    printf("# %lu accepted, %lu refused\n", accepted, refused);
    CHECK(accepted > 1000 && refused > 1000);
}

TEST(random_bytes_are_refused) {
    rg_type *t = type_of_all(0);
    for (int i = 0; i < 20000; i++) {
        uint32_t len = random32() % 400;
        uint8_t *bytes = malloc(len ? len : 1);
        for (uint32_t k = 0; k < len; k++) bytes[k] = (uint8_t)random32();
        CHECK(rg__row_check(t, bytes, len, &err) < 0);
        free(bytes);
    }
    rg_type_free(t);
}

TEST(random_text_never_breaks_a_setter) {
    rg_type *t = type_of_all(RG_COL_NULLABLE);
    rg_builder *b = rg_builder_new(t, &err);
    static const char alphabet[] = "0123456789-+.:eETZ ,[]{}\"\\utnwa\x00\xC3\xA9\xFF\x01";
    for (int i = 0; i < 100000; i++) {
        char text[40];
        size_t len = random32() % sizeof text;
        for (size_t k = 0; k < len; k++) text[k] = alphabet[random32() % (sizeof alphabet - 1)];
        char *exact = malloc(len ? len : 1);
        memcpy(exact, text, len);
        uint32_t col = random32() % COLUMNS;
        int rc = rg_builder_string(b, col, exact, len, &err);
        if (rc != RG_OK && rc != RG_EINVALID) CHECK(false);
        if (rc == RG_EINVALID && !rg__utf8_valid(err.message, strlen(err.message), NULL))
            CHECK(false);
        free(exact);
        if (i % 50) continue;
        rg_block *row = rg__builder_partial(b);
        CHECK(row && rg__row_check(t, row->data, row->len, &err) == RG_OK);
        rg_block_unref(row);
        rg_builder_reset(b);
    }
    rg_builder_free(b);
    rg_type_free(t);
}

UNIT_MAIN
