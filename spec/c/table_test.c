/* SPDX-License-Identifier: MIT */
/* The table of a shard against a plain list: putting in, finding, taking out; without memory. */
#include "unit.h"

#include "base/alloc.h"
#include "cache/table.h"

enum { KEYS = 3000, SPACES = 2, STEPS = 60000, CHECK_EVERY = 500 };

static rg__table table;
static rg_block *blocks[SPACES][KEYS];
static bool is_in[SPACES][KEYS];

static uint64_t hash_of(uint32_t space, uint64_t key) { return rg__table_hash(table.seed, space, key); }

static rg_block *found(uint32_t space, uint64_t key) {
    uint32_t at = rg__table_find(&table, hash_of(space, key), space, key);
    return at == RG__NOWHERE ? NULL : rg__table_block(&table, at);
}

static void make_blocks(void) {
    for (uint32_t s = 0; s < SPACES; s++) {
        for (uint64_t k = 0; k < KEYS; k++) {
            rg_block *b = rg__block_new(8);
            if (!b) abort();
            b->key = k;
            rg__block_set_word(b, s | RG__OWNED);
            blocks[s][k] = b;
            is_in[s][k] = false;
        }
    }
}

static void free_blocks(void) {
    for (uint32_t s = 0; s < SPACES; s++)
        for (uint64_t k = 0; k < KEYS; k++) rg_block_unref(blocks[s][k]);
    rg__table_deinit(&table);
}

static bool put(uint32_t space, uint64_t key) {
    if (!rg__table_reserve(&table)) return false;
    rg__table_insert(&table, hash_of(space, key), blocks[space][key]);
    is_in[space][key] = true;
    return true;
}

static void take(uint32_t space, uint64_t key) {
    uint32_t at = rg__table_slot_of(&table, hash_of(space, key), blocks[space][key]);
    CHECK(rg__table_block(&table, at) == blocks[space][key]);
    rg__table_remove(&table, at);
    is_in[space][key] = false;
}

/* How many of the table's answers differ from the list's. */
static int differences(void) {
    int wrong = 0;
    uint32_t n = 0;
    for (uint32_t s = 0; s < SPACES; s++) {
        for (uint64_t k = 0; k < KEYS; k++) {
            wrong += found(s, k) != (is_in[s][k] ? blocks[s][k] : NULL);
            n += is_in[s][k];
        }
    }
    return wrong + (n != table.n);
}

TEST(answers_as_a_list_does) {
    REQUIRE(rg__table_init(&table, 42) == RG_OK);
    make_blocks();
    srand(1);
    for (int i = 0; i < STEPS; i++) {
        uint32_t space = (uint32_t)rand() % SPACES;
        uint64_t key = (uint64_t)rand() % KEYS;
        if (is_in[space][key]) take(space, key);
        else CHECK(put(space, key));
        if (i % CHECK_EVERY == 0) CHECK_EQ_INT(differences(), 0);
    }
    CHECK_EQ_INT(differences(), 0);
    for (uint32_t s = 0; s < SPACES; s++)
        for (uint64_t k = 0; k < KEYS; k++)
            if (is_in[s][k]) take(s, k);
    CHECK_EQ_INT(table.n, 0);
    for (uint32_t i = 0; i < table.cap; i++) CHECK(table.slots[i] == 0);
    free_blocks();
}

TEST(a_block_takes_at_most_11_bytes) {
    REQUIRE(rg__table_init(&table, 7) == RG_OK);
    make_blocks();
    for (uint32_t s = 0; s < SPACES; s++) {
        for (uint64_t k = 0; k < KEYS; k++) {
            CHECK(put(s, k));
            CHECK(table.n <= table.cap / 8 * 7 + 1);
            if (table.n > 60) CHECK(table.cap * sizeof *table.slots <= 11 * table.n);
        }
    }
    CHECK_EQ_INT(differences(), 0);
    rg__table_clear(&table);
    memset(is_in, 0, sizeof is_in);
    CHECK_EQ_INT(differences(), 0);
    free_blocks();
}

/* All homes in the last slots: the walk goes on at the first. */
TEST(walks_around_the_end) {
    REQUIRE(rg__table_init(&table, 3) == RG_OK);
    make_blocks();
    uint64_t keys[12];
    int n = 0;
    for (uint64_t k = 0; k < KEYS && n < 12; k++)
        if (rg__table_home(&table, hash_of(1, k)) + 2 >= table.cap) keys[n++] = k;
    REQUIRE(n == 12);
    for (int i = 0; i < n; i++) CHECK(put(1, keys[i]));
    CHECK(table.slots[0] && table.slots[8]);
    for (int i = 0; i < n; i++) {
        take(1, keys[i]);
        CHECK_EQ_INT(differences(), 0);
    }
    free_blocks();
}

TEST(without_memory_it_fills_up_and_then_refuses) {
    REQUIRE(rg__table_init(&table, 5) == RG_OK);
    make_blocks();
    uint32_t cap = table.cap;
    rg__alloc_fail_at(1, 1);
    uint64_t k = 0;
    while (k < KEYS && put(0, k)) k++;
    rg__alloc_fail_at(0, 0);
    CHECK_EQ_INT(table.cap, cap);
    CHECK_EQ_INT(k, cap - 1);
    CHECK_EQ_INT(differences(), 0);
    CHECK(put(0, k));
    CHECK_EQ_INT(differences(), 0);
    free_blocks();
}

TEST(one_that_could_not_be_had_is_empty_and_takes_nothing) {
    rg__alloc_fail_at(1, 1);
    CHECK_EQ_INT(rg__table_init(&table, 5), RG_ENO_MEMORY);
    rg__alloc_fail_at(0, 0);
    CHECK(!found(0, 1));
    CHECK(!rg__table_reserve(&table));
    rg__table_clear(&table);
    rg__table_deinit(&table);
}

UNIT_MAIN
