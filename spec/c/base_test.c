/* SPDX-License-Identifier: MIT */
/* Units of the ground floor: errors, memory, bytes, clocks, containers, threads, the watchdog. */
#include <pthread.h>
#include "base/alloc.h"
#include "base/block.h"
#include "base/ctx.h"
#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/recycle.h"
#include "base/slab.h"
#include "base/thread.h"
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- err ---- */

TEST(err_names_follow_the_map) {
    CHECK_STR(rg_code_name(RG_OK), "OK");
    CHECK_STR(rg_code_name(RG_EDUPLICATE_KEY), "DUPLICATE_KEY");
    CHECK_STR(rg_code_name(RG_EINTERNAL), "INTERNAL");
    CHECK_STR(rg_code_name(-1000), "UNKNOWN");
    CHECK_STR(rg_code_name(1), "UNKNOWN");
    CHECK_STR(rg_code_name(INT32_MIN), "UNKNOWN");
}

TEST(err_fail_fills_and_returns_the_code) {
    rg_err e;
    memset(&e, 0xAA, sizeof e);
    CHECK_EQ_INT(rg__fail(&e, RG_ETIMEOUT, "waited %d ms", 5), RG_ETIMEOUT);
    CHECK_EQ_INT(e.code, RG_ETIMEOUT);
    CHECK_EQ_INT(e.domain, RG_DOMAIN_ENGINE);
    CHECK_EQ_INT(e.item, -1);
    CHECK_EQ_INT(e.retriable, 1);
    CHECK_STR(e.message, "waited 5 ms");
    CHECK_STR(e.field, "");
    CHECK_EQ_INT(rg__fail_field(&e, "email", "bad"), RG_EINVALID);
    CHECK_STR(e.field, "email");
    CHECK_EQ_INT(e.cls, RG_CLASS_PERMANENT);
    CHECK_EQ_INT(rg__fail(NULL, RG_ESQL, "x"), RG_ESQL);
    CHECK_EQ_INT(rg__err_prefix(NULL, "x"), RG_OK);
    rg__err_clear(&e);
    CHECK_EQ_INT(e.code, RG_OK);
    rg__err_clear(NULL);
}

TEST(err_prefix_goes_in_front_and_may_name_the_old_message) {
    rg_err e;
    rg__fail(&e, RG_ESQL, "gone");
    CHECK_EQ_INT(rg__err_prefix(&e, "loading %s %d: ", "user", 42), RG_ESQL);
    CHECK_STR(e.message, "loading user 42: gone");
    rg__fail(&e, RG_EINTERNAL, "again: %s", e.message);
    CHECK_STR(e.message, "again: loading user 42: gone");
    rg__err_set_entity(&e, "user");
    CHECK_STR(e.entity, "user");
}

TEST(err_texts_are_cut_between_characters) {
    rg_err e;
    char text[1200];
    for (size_t lead = 0; lead < 4; lead++) {
        memset(text, 'x', lead);
        for (size_t i = lead; i + 3 < sizeof text; i += 3) memcpy(text + i, "\xE2\x82\xAC", 3);
        text[lead + (sizeof text - lead - 1) / 3 * 3] = '\0';
        rg__fail_field(&e, text, "%s", text);
        CHECK(rg__utf8_valid(e.message, strlen(e.message), NULL));
        CHECK(strlen(e.message) > sizeof e.message - 4);
        CHECK(rg__utf8_valid(e.field, strlen(e.field), NULL));
        CHECK(strlen(e.field) > sizeof e.field - 4);
        rg__err_prefix(&e, "p");
        CHECK(rg__utf8_valid(e.message, strlen(e.message), NULL));
    }
}

/* ---- alloc ---- */

TEST(alloc_refuses_overflow) {
    CHECK(rg__malloc(SIZE_MAX) == NULL);
    CHECK(rg__calloc(SIZE_MAX / 2, 3) == NULL);
    CHECK(rg__reallocarray(NULL, SIZE_MAX / 2, 3) == NULL);
    void *p = rg__malloc(0);
    CHECK(p != NULL);
    p = rg__realloc(p, 100);
    CHECK(p != NULL);
    rg__free(p);
    CHECK(rg__strdup(NULL) == NULL);
    char *s = rg__memdup0("a\0b", 3);
    REQUIRE(s);
    CHECK(memcmp(s, "a\0b", 4) == 0);
    rg__free(s);
}

TEST(alloc_fails_where_told) {
    void *p[4];
    rg__alloc_fail_at(2, 0);
    for (int i = 0; i < 4; i++) p[i] = rg__malloc(8);
    CHECK(p[0] && !p[1] && p[2] && p[3]);
    for (int i = 0; i < 4; i++) rg__free(p[i]);
    rg__alloc_fail_at(2, 1);
    for (int i = 0; i < 4; i++) p[i] = rg__calloc(1, 8);
    CHECK(p[0] && !p[1] && !p[2] && !p[3]);
    rg__alloc_fail_at(0, 0);
    rg__free(p[0]);
    p[0] = rg__malloc(1);
    CHECK(p[0] != NULL);
    rg__free(p[0]);
}

/* ---- recycle ---- */

static bool holds(const unsigned char *p, size_t size, int byte) {
    for (size_t i = 0; i < size; i++)
        if (p[i] != byte) return false;
    return true;
}

TEST(recycled_memory_has_the_size_that_was_asked_for) {
    enum { MOST = RG__RECYCLE_SIZE + 40 };
    unsigned char *p[MOST];
    for (int round = 0; round < 3; round++) {
        for (size_t size = 1; size < MOST; size++) {
            p[size] = rg__recycle_malloc(size);
            REQUIRE(p[size]);
            memset(p[size], (int)(size & 0xff), size);
        }
        for (size_t size = 1; size < MOST; size++) {
            CHECK(holds(p[size], size, (int)(size & 0xff)));
            rg__recycle_free(p[size], size);
        }
    }
}

/* What one thread has allocated another frees; its end frees what it kept. */
static void *free_them(void *arg) {
    void **p = arg;
    for (size_t i = 0; i < 1000; i++) rg__recycle_free(p[i], 100);
    void *again = rg__recycle_malloc(100);
    rg__recycle_free(again, 100);
    return again;
}

TEST(recycled_memory_may_be_freed_by_another_thread) {
    void *p[1000];
    for (size_t i = 0; i < 1000; i++) REQUIRE((p[i] = rg__recycle_malloc(100)) != NULL);
    pthread_t t;
    void *again = NULL;
    REQUIRE(pthread_create(&t, NULL, free_them, p) == 0);
    REQUIRE(pthread_join(t, &again) == 0);
    CHECK(again != NULL);
}

TEST(recycled_memory_runs_out_where_told) {
    rg__recycle_free(rg__recycle_malloc(64), 64); /* there is one at hand */
    rg__alloc_fail_at(1, 0);
    CHECK(rg__recycle_malloc(64) == NULL);
    rg__alloc_fail_at(0, 0);
    void *p = rg__recycle_malloc(64);
    CHECK(p != NULL);
    rg__recycle_free(p, 64);
}

/* ---- slab ---- */

TEST(slab_gives_pieces_that_do_not_touch) {
    enum { PIECES = 200 };
    rg__slab s = {0};
    unsigned char *p[PIECES];
    size_t size[PIECES];
    for (int i = 0; i < PIECES; i++) {
        size[i] = (size_t)(i * 37 % 500) + (i == 50 ? 100000 : 0);
        p[i] = rg__slab_take(&s, size[i]);
        REQUIRE(p[i] && (uintptr_t)p[i] % 16 == 0);
        memset(p[i], i, size[i]);
    }
    for (int i = 0; i < PIECES; i++)
        for (size_t k = 0; k < size[i]; k++)
            if (p[i][k] != (unsigned char)i) CHECK(false);
    CHECK(rg__slab_take(&s, SIZE_MAX) == NULL);
    CHECK(rg__slab_take(&s, SIZE_MAX - 64) == NULL);
    rg__slab_deinit(&s);
    rg__alloc_fail_at(1, 0);
    CHECK(rg__slab_take(&s, 8) == NULL);
    CHECK(rg__slab_take(&s, 8) != NULL);
    rg__slab_deinit(&s);
    rg__slab_deinit(&s);
}

/* ---- slice ---- */

TEST(buf_writes_numbers_of_any_length) {
    uint64_t bound = 1;
    for (unsigned digits = 1; digits <= 20; digits++, bound *= 10) {
        const uint64_t near[] = {bound, bound - 1, bound + 1, bound * 5 + 37, bound | 0x55};
        for (size_t i = 0; i < sizeof near / sizeof *near; i++) {
            char want[32];
            rg__buf b = {0};
            snprintf(want, sizeof want, "%llu", (unsigned long long)near[i]);
            rg__buf_u64(&b, near[i]);
            CHECK_STR(rg__buf_cstr(&b), want);
            rg__buf_deinit(&b);
        }
    }
}

TEST(buf_appends_everything) {
    rg__buf b = {0};
    CHECK_STR(rg__buf_cstr(&b), "");
    rg__buf_str(&b, "ab");
    rg__buf_char(&b, '-');
    rg__buf_fmt(&b, "%s%03d", "z", 7);
    rg__buf_u64(&b, UINT64_MAX);
    rg__buf_char(&b, ' ');
    rg__buf_i64(&b, INT64_MIN);
    rg__buf_char(&b, ' ');
    rg__buf_u64(&b, 0);
    CHECK_STR(rg__buf_cstr(&b), "ab-z00718446744073709551615 -9223372036854775808 0");
    rg__buf_clear(&b);
    rg__buf_le16(&b, 0x0102);
    rg__buf_le32(&b, 0x03040506);
    rg__buf_le64(&b, 0x0708090A0B0C0D0E);
    CHECK_BYTES(b.p, b.len, "\2\1\6\5\4\3\x0E\x0D\x0C\x0B\x0A\x09\x08\x07");
    rg__buf_add(&b, NULL, 0);
    CHECK_EQ_INT(b.len, 14);
    rg__buf_deinit(&b);
}

TEST(buf_failure_sticks_until_cleared) {
    rg__buf b = {0};
    CHECK(rg__buf_reserve(&b, SIZE_MAX) == NULL);
    CHECK(b.failed);
    rg__buf_str(&b, "x");
    CHECK_EQ_INT(b.len, 0);
    CHECK_STR(rg__buf_cstr(&b), "");
    rg__buf_clear(&b);
    rg__buf_str(&b, "x");
    CHECK_STR(rg__buf_cstr(&b), "x");
    rg__alloc_fail_at(1, 1);
    for (int i = 0; i < 100; i++) rg__buf_fmt(&b, "%d", i);
    rg__alloc_fail_at(0, 0);
    CHECK(b.failed);
    rg__buf_deinit(&b);
}

TEST(reader_never_passes_the_end) {
    rg__reader r = {.p = (const uint8_t *)"\1\2\3\4\5\6\7\10\11\12", .len = 10};
    CHECK_EQ_INT(rg__read_u8(&r), 1);
    CHECK_EQ_INT(rg__read_le16(&r), 0x0302);
    CHECK_EQ_INT(rg__read_le32(&r), 0x07060504);
    rg__slice s = rg__read_bytes(&r, 2);
    CHECK_BYTES(s.p, s.len, "\10\11");
    CHECK(!r.bad);
    CHECK_EQ_INT(rg__read_le64(&r), 0);
    CHECK(r.bad);
    CHECK_EQ_INT(rg__read_u8(&r), 0);
    rg__reader big = {.p = (const uint8_t *)"ab", .len = 2, .at = 1};
    CHECK(rg__read_bytes(&big, SIZE_MAX).p == NULL && big.bad);
}

static bool utf8(const char *s, size_t *n) { return rg__utf8_valid(s, strlen(s), n); }

TEST(utf8_accepts_the_well_formed_only) {
    size_t n;
    CHECK(utf8("", &n) && n == 0);
    CHECK(utf8("plain ascii that is longer", &n) && n == 26);
    CHECK(utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z", &n) && n == 5);
    CHECK(utf8("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF", NULL));
    CHECK(rg__utf8_valid("a\0b", 3, &n) && n == 3);
    const char *bad[] = {
        "\x80",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x80\x80",     "\xE0\x9F\xBF",
        "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",
        "\xC3",         "\xE2\x82",         "\xF0\x9F\x98",     "abcdefgh\xC3",     "\xC3(",
        "\xE2\x28\xA1", "\xF0\x9F(\x80",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!utf8(bad[i], NULL));
}

/* Several bytes are looked at together: whatever the length, and wherever the odd one is. */
TEST(utf8_finds_what_is_odd_anywhere) {
    char text[40];
    for (size_t len = 1; len < sizeof text; len++) {
        size_t n;
        memset(text, 'a', sizeof text);
        CHECK(rg__utf8_valid(text, len, &n) && n == len);
        for (size_t at = 0; at < len; at++) {
            memset(text, 'a', sizeof text);
            text[at] = '\xFF';
            CHECK(!rg__utf8_valid(text, len, NULL));
            if (at + 1 == len) continue;
            memcpy(text + at, "\xC3\xA9", 2);
            CHECK(rg__utf8_valid(text, len, &n) && n == len - 1);
            CHECK(!rg__utf8_valid(text, at + 1, NULL));
        }
    }
}

/* ---- clock ---- */

TEST(clock_counts_down) {
    int64_t now = rg__now_ms();
    CHECK_EQ_INT(rg__left_ms(RG__NO_DEADLINE), INT32_MAX);
    CHECK_EQ_INT(rg__left_ms(now - 5), 0);
    CHECK(rg__left_ms(now + 100000) > 90000 && rg__left_ms(now + 100000) <= 100000);
    CHECK_EQ_INT(rg__left_ms(RG__NO_DEADLINE - 1), INT32_MAX);
    CHECK_EQ_INT(rg__deadline_within(now + 10, 0), now + 10);
    CHECK_EQ_INT(rg__deadline_within(now + 10, 100000), now + 10);
    CHECK(rg__deadline_within(RG__NO_DEADLINE, 50) <= rg__now_ms() + 50);
    CHECK_EQ_INT(rg__deadline_within(7, INT64_MAX), 7);
    int64_t before = rg__now_us();
    rg__sleep_ms(5);
    CHECK(rg__now_us() - before >= 5000);
    CHECK(rg__wall_us() > INT64_C(1600000000) * 1000000);
}

TEST(random_is_random) {
    uint8_t a[64] = {0}, b[64] = {0};
    rg__random(a, sizeof a);
    rg__random(b, sizeof b);
    CHECK(memcmp(a, b, sizeof a) != 0);
}

/* ---- block ---- */

TEST(block_lives_as_long_as_its_references) {
    rg_block *b = rg__block_dup("hello", 5);
    REQUIRE(b);
    CHECK(((uintptr_t)rg_block_data(b) & 7) == 0);
    CHECK_BYTES(rg_block_data(b), rg_block_len(b), "hello");
    CHECK(rg_block_ref(b) == b);
    rg_block_unref(b);
    CHECK_BYTES(rg_block_data(b), rg_block_len(b), "hello");
    rg_block_unref(b);
    rg_block_unref(NULL);
    b = rg__block_dup(NULL, 0);
    CHECK(b && rg_block_len(b) == 0);
    rg_block_unref(b);
}

/* ---- list ---- */

TEST(list_links_and_unlinks) {
    rg__node list, a, b;
    rg__list_init(&list);
    CHECK(rg__list_empty(&list));
    rg__list_add_tail(&list, &a);
    rg__list_add_head(&list, &b);
    CHECK(list.next == &b && b.next == &a && list.prev == &a);
    rg__list_remove(&b);
    rg__list_remove(&b);
    CHECK(list.next == &a && list.prev == &a);
    rg__list_remove(&a);
    CHECK(rg__list_empty(&list));
}

/* ---- map ---- */

TEST(map_keeps_binary_keys) {
    rg__map *m = rg__map_new();
    REQUIRE(m);
    int one, two;
    void *old = &two;
    CHECK_EQ_INT(rg__map_put(m, "a\0b", 3, &one, &old), 0);
    CHECK(old == NULL);
    CHECK(rg__map_get(m, "a\0b", 3) == &one);
    CHECK(rg__map_get(m, "a\0c", 3) == NULL);
    CHECK(rg__map_get(m, "a", 1) == NULL);
    CHECK_EQ_INT(rg__map_put(m, "a\0b", 3, &two, &old), 0);
    CHECK(old == &one);
    CHECK_EQ_INT(rg__map_put(m, "", 0, &one, NULL), 0);
    CHECK(rg__map_get(m, "", 0) == &one);
    CHECK_EQ_INT(rg__map_count(m), 2);
    CHECK(rg__map_take(m, "a\0b", 3) == &two);
    CHECK(rg__map_take(m, "a\0b", 3) == NULL);
    CHECK_EQ_INT(rg__map_count(m), 1);
    rg__map_free(m);
    rg__map_free(NULL);
}

enum { MAP_N = 3000 };
static char map_values[MAP_N];

static size_t map_key(char *out, unsigned i) {
    return (size_t)sprintf(out, "key-%u", i * 2654435761u);
}

/* Random puts and takes against an array that says what should be there. */
TEST(map_agrees_with_a_model) {
    rg__map *m = rg__map_new();
    REQUIRE(m);
    char key[32], there[MAP_N] = {0};
    size_t count = 0;
    srand(1);
    for (int step = 0; step < 60000; step++) {
        unsigned i = (unsigned)rand() % MAP_N;
        size_t len = map_key(key, i);
        if (rand() % 5 < 3) {
            count += !there[i];
            if (rg__map_put(m, key, len, &map_values[i], NULL) < 0) CHECK(false);
            there[i] = 1;
        } else {
            void *had = rg__map_take(m, key, len);
            if (had != (there[i] ? &map_values[i] : NULL)) CHECK(false);
            count -= (size_t)there[i];
            there[i] = 0;
        }
        if (rg__map_count(m) != count) CHECK(false);
    }
    for (unsigned i = 0; i < MAP_N; i++) {
        void *want = there[i] ? &map_values[i] : NULL;
        if (rg__map_get(m, key, map_key(key, i)) != want) CHECK(false);
    }
    size_t at = 0, seen = 0;
    rg__slice k;
    void *v;
    while (rg__map_next(m, &at, &k, &v)) {
        unsigned i = (unsigned)((char *)v - map_values);
        CHECK(there[i] && k.len == map_key(key, i) && memcmp(k.p, key, k.len) == 0);
        seen++;
    }
    CHECK_EQ_INT(seen, count);
    rg__map_free(m);
}

TEST(map_survives_out_of_memory) {
    char key[32];
    for (long fail = 1; fail < 60; fail++) {
        rg__alloc_fail_at(fail, 0);
        rg__map *m = rg__map_new();
        size_t put = 0;
        for (unsigned i = 0; m && i < 40; i++)
            put += rg__map_put(m, key, map_key(key, i), &fail, NULL) == 0;
        rg__alloc_fail_at(0, 0);
        if (!m) continue;
        CHECK_EQ_INT(rg__map_count(m), put);
        CHECK(put >= 39);
        rg__map_free(m);
    }
}

/* ---- what took long ---- */

static void add_slow(rg__slow *s, unsigned i) {
    char text[2000];
    memset(text, 'x', sizeof text);
    snprintf(text, 16, "statement %u", i);
    rg_slow_event e = {.started = i, .duration = 0.5, .rows = -1, .source = 1};
    rg__slow_add(s, &e, "SELECT", "default", (rg__slice){text, i % 2 ? strlen(text) : sizeof text});
}

TEST(slow_keeps_the_latest) {
    rg__slow *s = rg__slow_new();
    rg_slow_event e;
    CHECK(!rg__slow_get(s, 0, &e));
    for (unsigned i = 1; i <= RG__SLOW_KEPT + 10; i++) add_slow(s, i);
    unsigned n = 0;
    double last = RG__SLOW_KEPT + 11;
    for (uint64_t before = 0; rg__slow_get(s, before, &e); before = (uint64_t)e.number, n++) {
        CHECK(e.number == last - 1 && e.started == e.number && e.rows == -1);
        CHECK(strcmp(e.op, "SELECT") == 0 && strcmp(e.pool, "default") == 0);
        CHECK(strncmp(e.text, "statement ", 10) == 0 && strlen(e.text) < sizeof e.text);
        last = e.number;
    }
    CHECK_EQ_INT(n, RG__SLOW_KEPT);
    CHECK(!rg__slow_get(s, 1, &e));
    rg__slow_free(s);
}

TEST(slow_is_what_is_above_the_bound) {
    rg__slow *s = rg__slow_new();
    CHECK(!rg__slow_is(NULL, 1000000000));
    CHECK(rg__slow_is(s, RG__SLOW_MS * 1000) && !rg__slow_is(s, RG__SLOW_MS * 1000 - 1));
    rg__slow_bound(s, 5);
    CHECK(rg__slow_is(s, 5000) && !rg__slow_is(s, 4999));
    rg__slow_bound(s, 0);
    CHECK(!rg__slow_is(s, INT64_MAX));
    rg__slow_free(s);
}

TEST(slow_cuts_text_between_characters) {
    rg__slow *s = rg__slow_new();
    rg_slow_event e = {.duration = 1};
    char text[1500];
    for (size_t i = 0; i + 1 < sizeof text; i += 2) memcpy(text + i, "\xc3\xa4", 2);
    rg__slow_add(s, &e, "SELECT", NULL, (rg__slice){text, sizeof text});
    CHECK(rg__slow_get(s, 0, &e));
    CHECK_EQ_INT(strlen(e.text), sizeof e.text - 2);
    CHECK(e.pool[0] == '\0');
    rg__slow_free(s);
}

static rg__slow *shared_slow;

static void *add_many(void *arg) {
    (void)arg;
    for (unsigned i = 1; i <= 2000; i++) add_slow(shared_slow, i);
    return NULL;
}

TEST(slow_is_shared) {
    shared_slow = rg__slow_new();
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, add_many, NULL);
    for (unsigned k = 0; k < 200; k++) {
        rg_slow_event e;
        for (uint64_t before = 0; rg__slow_get(shared_slow, before, &e); before = (uint64_t)e.number) {
            CHECK(before == 0 || e.number < (double)before);
            CHECK(strncmp(e.text, "statement ", 10) == 0);
        }
    }
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    rg_slow_event e;
    CHECK(rg__slow_get(shared_slow, 0, &e) && e.number > 6000 - RG__SLOW_KEPT);
    rg__slow_free(shared_slow);
}

/* ---- metrics ---- */

TEST(metrics_render_as_prometheus_text) {
    rg__metrics m;
    memset(&m, 0, sizeof m);
    rg__count(&m, RG__C_FLUSHES, 3);
    rg__count(NULL, RG__C_FLUSHES, 3);
    rg__observe(&m, RG__H_MYSQL_SECONDS, 25);
    rg__observe(&m, RG__H_MYSQL_SECONDS, 26);
    rg__observe(&m, RG__H_MYSQL_SECONDS, INT64_C(3000000));
    rg__observe(&m, RG__H_MYSQL_SECONDS, -1);
    rg__observe(NULL, RG__H_MYSQL_SECONDS, 1);
    rg__buf out = {0};
    rg__metrics_render(&m, &out);
    const char *text = rg__buf_cstr(&out);
    CHECK(strstr(text, "# TYPE regolith_flushes_total counter\nregolith_flushes_total 3\n") !=
          NULL);
    CHECK(strstr(text, "regolith_mysql_seconds_bucket{le=\"0.000025\"} 2\n") != NULL);
    CHECK(strstr(text, "regolith_mysql_seconds_bucket{le=\"0.000050\"} 3\n") != NULL);
    CHECK(strstr(text, "regolith_mysql_seconds_bucket{le=\"0.409600\"} 3\n") != NULL);
    CHECK(strstr(text, "regolith_mysql_seconds_bucket{le=\"+Inf\"} 4\n") != NULL);
    CHECK(strstr(text, "regolith_mysql_seconds_count 4\n") != NULL);
    CHECK(strstr(text, "regolith_mysql_seconds_sum 3.000051\n") != NULL);
    CHECK(strstr(text, "(null)") == NULL);
    rg__buf_deinit(&out);
}

/* ---- trace ---- */

TEST(trace_keeps_what_is_wanted) {
    rg__trace t = {.mask = RG__SOURCE_MYSQL};
    rg__ctx ctx = {.trace = &t}, off = {0};
    rg__trace_add(&off, RG__SOURCE_MYSQL, "SELECT", "default", "x", 1, 0, 0, 0, NULL);
    rg__trace_add(&ctx, RG__SOURCE_REDIS, "GET", "default", "x", 1, 0, 0, 0, NULL);
    CHECK_EQ_INT(t.n, 0);
    for (int i = 0; i < 20; i++)
        rg__trace_add(&ctx, RG__SOURCE_MYSQL, "SELECT", "default", "abcdef", 3, 1, 2, i,
                      i % 2 ? "failed" : NULL);
    CHECK_EQ_INT(t.n, 20);
    CHECK_STR(t.events[19].text, "abc");
    CHECK_STR(t.events[19].error, "failed");
    CHECK(t.events[18].error == NULL);
    CHECK_EQ_INT(t.events[19].rows, 19);
    rg__trace_deinit(&t);
    for (long fail = 1; fail < 4; fail++) {
        rg__alloc_fail_at(fail, 0);
        rg__trace_add(&ctx, RG__SOURCE_MYSQL, "SELECT", "default", "x", 1, 0, 0, 0, "e");
        rg__alloc_fail_at(0, 0);
        CHECK_EQ_INT(t.n, 0);
        rg__trace_deinit(&t);
    }
}

/* ---- threads ---- */

static void *read_mask(void *arg) {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    *(int *)arg = sigismember(&now, SIGTERM) && sigismember(&now, SIGINT);
    return NULL;
}

TEST(threads_block_all_signals) {
    pthread_t t;
    int blocked = 0;
    REQUIRE(rg__thread_start(&t, "a name longer than fifteen", read_mask, &blocked) == 0);
    pthread_join(t, NULL);
    CHECK(blocked);
    sigset_t mine;
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    CHECK(!sigismember(&mine, SIGTERM));
}

TEST(cond_wait_times_out_on_the_monotonic_clock) {
    pthread_cond_t c;
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    rg__cond_init(&c);
    pthread_mutex_lock(&m);
    int64_t before = rg__now_ms();
    while (rg__cond_wait(&c, &m, before + 20)) {
    }
    CHECK(rg__now_ms() - before >= 19);
    CHECK(!rg__cond_wait(&c, &m, -5));
    pthread_mutex_unlock(&m);
    pthread_cond_destroy(&c);
}

/* ---- watchdog ---- */

static ssize_t blocked_read(int fd) {
    char c;
    return read(fd, &c, 1);
}

TEST(watchdog_ends_a_blocked_read) {
    int fd[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    rg__watch w;
    int64_t before = rg__now_ms();
    rg__watch_arm(&w, fd[0], before + 40, NULL);
    CHECK_EQ_INT(blocked_read(fd[0]), 0);
    CHECK(rg__now_ms() - before >= 39);
    CHECK(rg__watch_disarm(&w));
    close(fd[0]);
    close(fd[1]);
}

TEST(watchdog_leaves_a_disarmed_socket_alone) {
    int fd[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    rg__watch w, never;
    rg__watch_arm(&never, fd[0], RG__NO_DEADLINE, NULL);
    CHECK(!rg__watch_disarm(&never));
    for (int i = 0; i < 2000; i++) {
        rg__watch_arm(&w, fd[0], rg__now_ms() + 30, NULL);
        CHECK(!rg__watch_disarm(&w));
    }
    CHECK(!rg__watch_disarm(&w));
    rg__sleep_ms(60);
    CHECK_EQ_INT(write(fd[0], "x", 1), 1);
    CHECK_EQ_INT(blocked_read(fd[1]), 1);
    close(fd[0]);
    close(fd[1]);
}

TEST(watchdog_fires_soon_when_its_call_is_cancelled) {
    int fd[2];
    char byte;
    atomic_bool cancelled = false;
    rg__watch w, other;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    rg__watch_arm(&other, fd[1], rg__now_ms() + 60000, NULL);
    rg__watch_arm(&w, fd[0], RG__NO_DEADLINE, &cancelled);
    rg__sleep_ms(120);
    CHECK_EQ_INT(recv(fd[0], &byte, 1, MSG_DONTWAIT), -1); /* not yet */
    int64_t before = rg__now_ms();
    atomic_store(&cancelled, true);
    CHECK_EQ_INT(read(fd[0], &byte, 1), 0); /* shut down */
    CHECK(rg__now_ms() - before < 100 + BUSY_MS);
    CHECK(rg__watch_disarm(&w));
    CHECK(!rg__watch_disarm(&other));
    close(fd[0]);
    close(fd[1]);
}

TEST(watchdog_takes_the_nearest_deadline_first) {
    int a[2], b[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, a) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, b) == 0);
    rg__watch late, soon;
    int64_t now = rg__now_ms();
    rg__watch_arm(&late, a[0], now + 60000, NULL);
    rg__watch_arm(&soon, b[0], now + 30, NULL);
    CHECK_EQ_INT(blocked_read(b[0]), 0);
    CHECK(rg__now_ms() - now < 5000);
    CHECK(rg__watch_disarm(&soon));
    CHECK(!rg__watch_disarm(&late));
    for (int i = 0; i < 2; i++) close(a[i]), close(b[i]);
}

static void *arm_often(void *arg) {
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0) return arg;
    for (int i = 0; i < 3000; i++) {
        rg__watch w;
        rg__watch_arm(&w, fd[0], rg__now_ms() + 1 + i % 3, NULL);
        if (i % 300 == 0) rg__sleep_ms(4);
        rg__watch_disarm(&w);
    }
    close(fd[0]);
    close(fd[1]);
    return NULL;
}

TEST(watchdog_serves_many_threads_and_stops) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++) REQUIRE(rg__thread_start(&t[i], "armer", arm_often, t) == 0);
    for (int i = 0; i < 10; i++) {
        rg__sleep_ms(1);
        rg__watch_stop(); /* the next arm starts another */
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        CHECK(failed == NULL);
    }
    rg__watch_stop();
    rg__watch_stop();
}

#ifndef __SANITIZE_THREAD__ /* it refuses threads in a child of a threaded process */
static int in_child(rg__watch *inherited) {
    int fd[2];
    if (rg__watch_disarm(inherited) || socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0) return 1;
    rg__watch w;
    rg__watch_arm(&w, fd[0], rg__now_ms() + 20, NULL);
    if (blocked_read(fd[0]) != 0 || !rg__watch_disarm(&w)) return 2;
    rg__watch_stop();
    return 0;
}

TEST(watchdog_starts_anew_after_fork) {
    int fd[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    rg__watch w;
    rg__watch_arm(&w, fd[0], rg__now_ms() + 60000, NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        _exit(in_child(&w));
    }
    int status = -1;
    CHECK_EQ_INT(waitpid(child, &status, 0), child);
    CHECK_EQ_INT(status, 0);
    CHECK(!rg__watch_disarm(&w));
    close(fd[0]);
    close(fd[1]);
    rg__watch_stop();
}
#endif

UNIT_MAIN
