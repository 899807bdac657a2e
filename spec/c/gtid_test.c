/* SPDX-License-Identifier: MIT */
/* Units of positions in both flavours' words, and of timelines as tokens. */
#include "unit.h"

#include "mysql/timeline.h"

#define UUID "3e11fa47-71ca-11e1-9e33-c80aa9429562"
#define OTHER "726757ad-4455-11e8-ae04-0242ac110002"

static bool reached(const char *position, const char *source, uint64_t n) {
    rg__gtid g = {.n = n};
    snprintf(g.source, sizeof g.source, "%s", source);
    return rg__gtid_reached(rg__slice_of(position), &g);
}

TEST(mariadb_positions) {
    CHECK(reached("0-1-42", "0", 42));
    CHECK(reached("0-1-42", "0", 1));
    CHECK(!reached("0-1-42", "0", 43));
    CHECK(!reached("0-1-42", "1", 1));
    CHECK(reached("0-1-42,1-3-7", "1", 7));
    CHECK(!reached("0-1-42,1-3-7", "1", 8));
    CHECK(reached("0-1-42,0-2-50", "0", 50)); /* two words of one server: the later counts */
    CHECK(!reached("", "0", 1));
    CHECK(!reached("0-1", "0", 1));
    CHECK(!reached("0-1-", "0", 0));
    CHECK(!reached("0-1-99999999999999999999", "0", 1));
}

TEST(mysql_positions) {
    CHECK(reached(UUID ":1-42", UUID, 42));
    CHECK(!reached(UUID ":1-42", UUID, 43));
    CHECK(reached(UUID ":1-42:45", UUID, 45));
    CHECK(!reached(UUID ":1-42:45", UUID, 44)); /* a gap */
    CHECK(!reached(UUID ":5-42", UUID, 4));
    CHECK(reached(UUID ":1-3,\n" OTHER ":1-9", OTHER, 9));
    CHECK(!reached(UUID ":1-3,\n" OTHER ":1-9", UUID, 9));
    CHECK(reached(UUID ":1-3:tag:1-7", UUID ":tag", 7));
    CHECK(!reached(UUID ":1-3:tag:1-7", UUID, 7));
    CHECK(reached(UUID ":1-3:tag:1-7", UUID, 3));
    CHECK(!reached(UUID "::1", UUID, 1));
    CHECK(!reached(":1", "", 1));
}

TEST(last_of_each_source) {
    rg__gtid out[2];
    CHECK_EQ_INT(rg__gtid_read(rg__slice_of("0-1-5, 1-1-6"), out, 2), 2);
    CHECK_EQ_INT((int64_t)out[0].n, 5);
    CHECK_EQ_INT((int64_t)out[1].n, 6);
    CHECK_EQ_INT(rg__gtid_read(rg__slice_of("0-1-5,1-1-6,2-1-7"), out, 2), -1);
    CHECK_EQ_INT(rg__gtid_read(rg__slice_of(UUID ":1-4:9:6"), out, 2), 1);
    CHECK_EQ_INT((int64_t)out[0].n, 9);
    CHECK_EQ_INT(rg__gtid_read(rg__slice_of(UUID ":tag:4"), out, 2), 1);
    CHECK(!strcmp(out[0].source, UUID ":tag"));
    CHECK_EQ_INT(rg__gtid_read(rg__slice_of(""), out, 2), 0);
    CHECK_EQ_INT(rg__gtid_read(rg__slice_of("nonsense"), out, 2), -1);
}

/* ---- timelines ---- */

static rg_pool_opts pool_opts(const char *name) {
    return (rg_pool_opts){.size = sizeof(rg_pool_opts), .name = name, .unix_path = "/x", .database = "d"};
}

static const rg__mysql_pool *pool_named(void *arg, rg__slice name) {
    return rg__slice_eq(name, rg__slice_of("default")) ? arg : NULL;
}
static const rg_type *no_type(void *arg, rg__slice name) {
    (void)arg;
    (void)name;
    return NULL;
}

static bool follow(rg__timeline *t, const char *token, rg__mysql_pool *pool) {
    rg__timeline_names names = {pool_named, no_type, pool};
    return rg__timeline_read(t, rg__slice_of(token), &names);
}

TEST(a_token_says_again_what_it_was_made_of) {
    rg_pool_opts opts = pool_opts("default");
    rg__mysql_pool *pool = rg__mysql_pool_new(&opts, NULL);
    rg__timeline *t = rg__timeline_new();
    rg__buf out = {0};
    rg__timeline_write(t, &out);
    CHECK_EQ_INT((int64_t)out.len, 0);
    const char *token = "rg1;default|*|0=5," UUID ":tag=9,q17-2,!,?";
    CHECK(follow(t, token, pool));
    rg__timeline_write(t, &out);
    CHECK(!strcmp(rg__buf_cstr(&out), token));
    rg__need need;
    rg__timeline_need(t, pool, NULL, &need);
    CHECK(need.lost && need.vague && need.n == 2 && need.queued_ms == 17 && need.queued_seq == 2);
    rg__timeline_clarify(t, pool, rg__slice_of("0-1-8"));
    rg__timeline_need(t, pool, NULL, &need);
    CHECK(!need.vague && need.n == 2 && need.gtids[0].n == 8);
    rg__timeline_unref(t);
    rg__mysql_pool_free(pool);
    rg__buf_deinit(&out);
}

TEST(a_token_that_is_cut_or_changed_adds_nothing) {
    rg_pool_opts opts = pool_opts("default");
    rg__mysql_pool *pool = rg__mysql_pool_new(&opts, NULL);
    const char *token = "rg1;default|*|0=5,q17-2;default|user|!";
    rg__timeline *t = rg__timeline_new();
    rg__need need;
    for (size_t len = 0; len < strlen(token); len++) {
        char cut[64] = {0};
        memcpy(cut, token, len);
        bool whole = !strcmp(cut, "rg1;default|*|0=5") || !strcmp(cut, "rg1;default|*|0=5,q17-2");
        if (!whole) CHECK(!follow(t, cut, pool));
    }
    rg__timeline_need(t, pool, NULL, &need);
    CHECK(rg__need_none(&need));
    for (size_t i = 0; i < strlen(token); i++) { /* never reads past the end, whatever it says */
        char bent[64] = {0};
        memcpy(bent, token, strlen(token));
        bent[i] = ';';
        (void)follow(t, bent, pool);
    }
    rg__timeline_unref(t);
    rg__mysql_pool_free(pool);
}

UNIT_MAIN
