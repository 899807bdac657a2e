/* SPDX-License-Identifier: MIT */
/* The process tier: bounds, scan resistance, stamps, sharing of blocks, threads. */
#include "unit.h"

#include <pthread.h>

#include "base/alloc.h"
#include "base/block.h"
#include "base/clock.h"
#include "cache/cache.h"

static rg__metrics metrics;

static bool put(rg__process *p, uint32_t space, uint64_t key, uint32_t len) {
    rg_block *b = rg__block_new(len);
    if (!b) return false;
    memset(b->data, (int)key, len);
    bool ok = rg__process_put(p, space, key, b, 0, rg__process_stamp(p, space, key));
    rg_block_unref(b);
    return ok;
}

static bool has(rg__process *p, uint32_t space, uint64_t key) {
    rg_block *b = rg__process_get(p, space, key);
    rg_block_unref(b);
    return b != NULL;
}

TEST(keeps_and_gives) {
    rg__process *p = rg__process_new(1 << 20, &metrics);
    CHECK(!has(p, 1, 7));
    CHECK(put(p, 1, 7, 100));
    CHECK(has(p, 1, 7));
    CHECK(!has(p, 2, 7));
    rg_block *b = rg__process_get(p, 1, 7);
    REQUIRE(b);
    CHECK_EQ_INT(rg_block_len(b), 100);
    CHECK_EQ_INT(rg_block_data(b)[99], 7);
    rg_block_unref(b);
    rg__process_drop(p, 1, 7);
    CHECK(!has(p, 1, 7));
    rg__process_free(p);
}

TEST(replaces_under_the_same_key) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    CHECK(put(p, 1, 7, 100));
    CHECK(put(p, 1, 7, 10));
    rg_block *b = rg__process_get(p, 1, 7);
    REQUIRE(b);
    CHECK_EQ_INT(rg_block_len(b), 10);
    rg_block_unref(b);
    uint64_t bytes, entries;
    rg__process_stats(p, &bytes, &entries);
    CHECK_EQ_INT(entries, 1);
    rg__process_free(p);
}

TEST(empty_blocks_are_answers) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    CHECK(put(p, 1, 7, 0));
    CHECK(has(p, 1, 7));
    rg__process_free(p);
}

TEST(no_room_caches_nothing) {
    rg__process *p = rg__process_new(0, NULL);
    CHECK(!put(p, 1, 7, 0));
    CHECK(!has(p, 1, 7));
    rg__process_free(p);
}

TEST(refuses_what_is_too_large) {
    rg__process *p = rg__process_new(100 * 1000, NULL);
    CHECK(!put(p, 1, 7, 90 * 1000));
    CHECK(put(p, 1, 8, 40 * 1000));
    CHECK(!put(p, 1, 9, UINT32_MAX / 1024 * 100));
    rg__process_free(p);
}

TEST(stays_in_its_bytes) {
    const size_t max = 1 << 20;
    rg__process *p = rg__process_new(max, &metrics);
    uint64_t bytes, entries;
    for (uint64_t i = 0; i < 100000; i++) {
        put(p, 1, i, (uint32_t)(i % 500));
        if (i % 3 == 0) rg__process_drop(p, 1, i / 2);
        if (i % 1000 != 0) continue;
        rg__process_stats(p, &bytes, &entries);
        CHECK(bytes <= max);
    }
    rg__process_stats(p, &bytes, &entries);
    CHECK(bytes > max / 2);
    rg__process_free(p);
}

TEST(a_block_costs_at_most_64_bytes_more) {
    rg__process *p = rg__process_new(64 << 20, NULL);
    for (uint64_t i = 0; i < 100000; i++) put(p, 1, i, 200);
    uint64_t bytes, entries;
    rg__process_stats(p, &bytes, &entries);
    CHECK_EQ_INT(entries, 100000);
    CHECK(bytes / entries <= 200 + 64);
    rg__process_free(p);
}

TEST(a_scan_does_not_wash_out_what_is_used) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    for (uint64_t i = 0; i < 1000; i++) put(p, 1, i, 200);
    for (int round = 0; round < 3; round++)
        for (uint64_t i = 0; i < 1000; i++) has(p, 1, i);
    for (uint64_t i = 0; i < 100000; i++) put(p, 2, i, 200);
    int left = 0;
    for (uint64_t i = 0; i < 1000; i++) left += has(p, 1, i);
    CHECK(left > 900);
    rg__process_free(p);
}

TEST(what_comes_back_soon_is_kept) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    for (uint64_t i = 0; i < 20; i++) put(p, 1, i, 200);
    for (uint64_t i = 0; i < 4900; i++) put(p, 2, i, 200); /* out of each shard, but remembered */
    int left = 0;
    for (uint64_t i = 0; i < 20; i++) left += has(p, 1, i);
    CHECK_EQ_INT(left, 0);
    for (uint64_t i = 0; i < 20; i++) put(p, 1, i, 200);
    for (uint64_t i = 0; i < 4000; i++) put(p, 3, i, 200);
    for (uint64_t i = 0; i < 20; i++) left += has(p, 1, i);
    CHECK(left > 10);
    rg__process_free(p);
}

TEST(a_drop_forbids_older_puts) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    rg_block *b = rg__block_new(10);
    uint64_t stamp = rg__process_stamp(p, 1, 7);
    rg__process_drop(p, 1, 7);
    CHECK(!rg__process_put(p, 1, 7, b, 0, stamp));
    stamp = rg__process_stamp(p, 1, 7);
    CHECK(rg__process_put(p, 1, 7, b, 0, stamp));
    stamp = rg__process_stamp(p, 1, 8);
    rg__process_clear(p);
    CHECK(!has(p, 1, 7));
    CHECK(!rg__process_put(p, 1, 8, b, 0, stamp));
    rg_block_unref(b);
    rg__process_free(p);
}

TEST(off_answers_and_takes_nothing) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    put(p, 1, 7, 10);
    uint64_t stamp = rg__process_stamp(p, 1, 9);
    rg__process_enable(p, false);
    CHECK(!has(p, 1, 7));
    CHECK(!put(p, 1, 8, 10));
    rg__process_enable(p, false);
    rg__process_enable(p, true);
    CHECK(!put(p, 1, 8, 10)); /* two wanted it off */
    rg__process_enable(p, true);
    CHECK(!has(p, 1, 7));
    rg_block *b = rg__block_new(1);
    CHECK(!rg__process_put(p, 1, 9, b, 0, stamp));
    CHECK(put(p, 1, 8, 10));
    rg_block_unref(b);
    rg__process_free(p);
}

TEST(nothing_is_answered_that_nobody_vouches_for) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    CHECK_EQ_INT(rg__process_channels(p, 2), 0);
    put(p, 1, 7, 10);
    CHECK(has(p, 1, 7)); /* no channel has begun */
    rg__process_vouch(p, 0, rg__now_ms() + 60000);
    CHECK(has(p, 1, 7) && rg__process_is_on(p));
    rg__process_vouch(p, 1, rg__now_ms() - 100);
    CHECK(!has(p, 1, 7) && !rg__process_is_on(p));
    rg__process_vouch(p, 0, rg__now_ms() + 70000);
    CHECK(!has(p, 1, 7)); /* the other one is overdue still */
    rg__process_vouch(p, 1, rg__now_ms() + 60000);
    CHECK(has(p, 1, 7)); /* what was told meanwhile has been dropped by now */
    rg__process_vouch(p, 2, 0);
    CHECK(has(p, 1, 7));
    rg__process_free(p);
}

TEST(entries_expire) {
    rg__process *p = rg__process_new(1 << 20, NULL);
    rg_block *b = rg__block_new(10);
    CHECK(rg__process_put(p, 1, 7, b, 1, rg__process_stamp(p, 1, 7)));
    rg_block_unref(b);
    CHECK(has(p, 1, 7));
    rg__sleep_ms(2100);
    CHECK(!has(p, 1, 7));
    CHECK(put(p, 1, 7, 10));
    CHECK(has(p, 1, 7));
    rg__process_free(p);
}

TEST(a_block_may_be_put_in_many_places) {
    rg__process *p = rg__process_new(1 << 20, NULL), *q = rg__process_new(1 << 20, NULL);
    rg_block *b = rg__block_new(10);
    memset(b->data, 42, 10);
    CHECK(rg__process_put(p, 1, 7, b, 0, rg__process_stamp(p, 1, 7)));
    CHECK(rg__process_put(p, 1, 8, b, 0, rg__process_stamp(p, 1, 8)));
    CHECK(rg__process_put(q, 1, 7, b, 0, rg__process_stamp(q, 1, 7)));
    CHECK(rg__process_put(p, 1, 7, b, 0, rg__process_stamp(p, 1, 7)));
    CHECK(has(p, 1, 7) && has(p, 1, 8) && has(q, 1, 7));
    rg__process_clear(p);
    CHECK(has(q, 1, 7));
    CHECK_EQ_INT(b->data[9], 42);
    rg__process_free(p);
    CHECK(rg__process_put(q, 2, 7, b, 0, rg__process_stamp(q, 2, 7)));
    rg__process_free(q);
    CHECK_EQ_INT(atomic_load(&b->refs), 1);
    rg_block_unref(b);
}

TEST(lives_without_memory) {
    for (long n = 1; n < 40; n++) {
        rg__alloc_fail_at(n, 0);
        rg__process *p = rg__process_new(1 << 20, NULL);
        for (uint64_t i = 0; p && i < 300; i++) put(p, 1, i, 20);
        rg__alloc_fail_at(0, 0);
        if (p) CHECK(put(p, 1, 1000, 20) && has(p, 1, 1000));
        rg__process_free(p);
    }
}

/* ---- threads ---- */

enum { THREADS = 4, KEYS = 64, ROUNDS = 30000 };

/* A source of truth: each key's value only rises; who raises it drops the entry afterwards. */
static rg__process *shared;
static atomic_uint truth[KEYS];
static atomic_ulong stale, hits;

static void store(uint64_t key, uint32_t value, uint64_t stamp) {
    rg_block *b = rg__block_dup(&value, sizeof value);
    rg__process_put(shared, 1, key, b, 0, stamp);
    rg_block_unref(b);
}

static void look(uint64_t key) {
    uint32_t least = atomic_load(&truth[key]);
    rg_block *b = rg__process_get(shared, 1, key);
    if (b) {
        uint32_t value;
        memcpy(&value, b->data, sizeof value);
        /* the writer may be between its change and its drop: one behind at most */
        if (value + 1 < least) atomic_fetch_add(&stale, 1);
        atomic_fetch_add(&hits, 1);
        rg_block_unref(b);
        return;
    }
    uint64_t stamp = rg__process_stamp(shared, 1, key);
    store(key, atomic_load(&truth[key]), stamp);
}

static void *work(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg + 1;
    bool writer = (uintptr_t)arg == 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t key = (unsigned)rand_r(&seed) % KEYS;
        if (writer && i % 4 == 0) {
            atomic_fetch_add(&truth[key], 1);
            rg__process_drop(shared, 1, key);
        } else {
            look(key);
        }
        if (writer && i % 5000 == 4999) rg__process_clear(shared);
        if (writer && i % 7000 == 6999) {
            rg__process_enable(shared, false);
            rg__process_enable(shared, true);
        }
        if (i % 16 == 0) put(shared, 2, (unsigned)rand_r(&seed) % 4000, 300); /* evictions */
    }
    return NULL;
}

TEST(threads_never_see_what_was_dropped) {
    shared = rg__process_new(300 * 1000, &metrics);
    pthread_t t[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, work, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    CHECK_EQ_INT(atomic_load(&stale), 0);
    CHECK(atomic_load(&hits) > 0);
    rg__process_free(shared);
}

/* The same few blocks are put into two caches by several threads at once. */
static rg__process *two[2];
static rg_block *common[8];

static void *share(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg + 7;
    for (int i = 0; i < ROUNDS; i++) {
        unsigned r = (unsigned)rand_r(&seed);
        rg__process *p = two[r & 1];
        uint64_t key = r >> 1 & 15;
        rg_block *b = common[r >> 5 & 7];
        if (r >> 8 & 1) rg__process_put(p, 1, key, b, 0, rg__process_stamp(p, 1, key));
        else if (r >> 9 & 1) rg__process_drop(p, 1, key);
        else has(p, 1, key);
    }
    return NULL;
}

TEST(threads_share_blocks_between_caches) {
    for (int i = 0; i < 2; i++) two[i] = rg__process_new(300 * 1000, NULL);
    for (int i = 0; i < 8; i++) common[i] = rg__block_new(100);
    pthread_t t[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, share, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 2; i++) rg__process_free(two[i]);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ_INT(atomic_load(&common[i]->refs), 1);
        rg_block_unref(common[i]);
    }
}

UNIT_MAIN
