/* SPDX-License-Identifier: MIT */
/* Coherence of the process tier: what others change in Redis leaves it, and it is off while nobody
 * can tell. */
#include "cache_support.h"

static fixture f;
static rg__coherence *channel;

/* Redis ends what expires when it comes to it; a connection is tried again after a pause. */
enum { PATIENCE_MS = 10 * BUSY_MS };

static bool becomes(bool ok, int64_t ms) {
    int64_t until = rg__now_ms() + ms;
    while (rg__coherence_ok(channel) != ok && rg__now_ms() < until) rg__sleep_ms(1);
    return rg__coherence_ok(channel) == ok;
}

static void close_all(void) {
    rg__coherence_free(channel);
    fixture_deinit(&f);
}

#define SPEC(name)                                                                                 \
    static void spec_##name(void);                                                                 \
    TEST(name) {                                                                                   \
        open_on(given_socket());                                                                   \
        spec_##name();                                                                             \
        close_all();                                                                               \
    }                                                                                              \
    static void spec_##name(void)

static bool keep(const rg__key *k) {
    rg_block *b = rg__block_new(8);
    bool ok = rg__process_put(f.process, k->space, k->hash, b, 0,
                              rg__process_stamp(f.process, k->space, k->hash));
    rg_block_unref(b);
    return ok;
}

static bool kept(const rg__key *k) {
    rg_block *b = rg__process_get(f.process, k->space, k->hash);
    rg_block_unref(b);
    return b != NULL;
}

static bool goes(const rg__key *k) {
    int64_t until = rg__now_ms() + PATIENCE_MS;
    while (kept(k) && rg__now_ms() < until) rg__sleep_ms(1);
    return !kept(k);
}

/* What was changed so far has been told: news come in order. */
static void hear_all(void) {
    rg__key k = row_key(&f, f.both, 424242);
    for (int i = 0; i < 2; i++) { /* what empties the tier may be told between */
        keep(&k);
        raw_set(&f, &k, "T", 1);
        CHECK(goes(&k));
    }
    rg__key_deinit(&k);
}

static void open_on(const char *path) {
    fixture_init(&f, path);
    rg_err err = {0};
    channel = rg__coherence_new(f.shared, f.process, &err);
    CHECK(channel && rg__coherence_start(channel, &err) == RG_OK);
    CHECK(becomes(true, PATIENCE_MS));
    hear_all(); /* of the epoch's creation, if any */
}

SPEC(changes_drop_rows_and_lookups) {
    rg__key row = row_key(&f, f.both, 7), other = row_key(&f, f.both, 8),
            local = row_key(&f, f.local, 7);
    rg__key name = lookup_key(&f, f.both, 0, "a:b"), list = lookup_key(&f, f.both, 1, "a:b");
    rg__key *all[] = {&row, &other, &local, &name, &list};
    for (int i = 0; i < 5; i++) {
        CHECK(keep(all[i]));
        raw_set(&f, all[i], "T", 1);
        CHECK(goes(all[i]));
    }
    CHECK(keep(&row) && keep(&other));
    raw_set(&f, &other, "T", 1);
    CHECK(goes(&other));
    CHECK(kept(&row));
    raw_del(&f, &row);
    CHECK(goes(&row));
    for (int i = 0; i < 5; i++) rg__key_deinit(all[i]);
}

SPEC(expiry_drops) {
    rg__key k = row_key(&f, f.both, 7);
    raw_set(&f, &k, "T", 1);
    hear_all();
    CHECK(keep(&k));
    ASK(f.pool, "PEXPIRE", k.text, "500");
    CHECK(goes(&k));
    keep(&k);
    CHECK(goes(&k));
    rg__key_deinit(&k);
}

SPEC(marks_and_commits_are_announced) {
    rg__key k = row_key(&f, f.local, 1);
    rg_block *row = make_row(f.local, 1, "a", 1);
    rg__change c = row_change(f.local, k, row, row);
    rg__txid tx = new_tx();
    fixture mine = f; /* another process marks: this one's own drops must not help */
    rg__shared *other = rg__shared_new(f.pool, NULL, &f.schema, f.prefix, NULL, NULL);
    mine.shared = other;
    CHECK(keep(&k));
    mark_changes(&mine, tx, &c, 1, NULL);
    CHECK(goes(&k));
    CHECK(keep(&k));
    publish_changes(&mine, tx, &c, 1);
    CHECK(goes(&k));
    rg__shared_free(other);
    rg_block_unref(row);
    rg__key_deinit(&k);
}

SPEC(names_that_mean_nothing_are_ignored) {
    static const char *const rest[] = {
        "e:",          "e:both",   "e:both:",      "e:both:x", "e:both:99999999999999999999999",
        "e:nothing:1", "l:both:1", "l:both:name:", "l::::",    "e::",
        "epx"};
    rg__key k = row_key(&f, f.both, 7);
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        char name[128];
        snprintf(name, sizeof name, "{%s}:%s", f.prefix, rest[i]);
        ASK(f.pool, "SET", name, "x");
    }
    hear_all();
    CHECK(keep(&k));
    CHECK(kept(&k));
    CHECK(rg__coherence_ok(channel));
    rg__key_deinit(&k);
}

SPEC(a_new_epoch_clears) {
    rg__key k = row_key(&f, f.both, 7);
    rg__shared *other = rg__shared_new(f.pool, NULL, &f.schema, f.prefix, NULL, NULL);
    rg_block *row = make_row(f.both, 7, "a", 1);
    cache_row(&f, f.both, &k, row);
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__VALUE);
    hear_all();
    CHECK(keep(&k));
    rg__ctx ctx = ctx_ms(1000);
    rg__shared_renew(other, &ctx, NULL);
    CHECK(goes(&k));
    CHECK_EQ_INT(found_of(&f, f.both, &k, NULL), RG__MISS); /* without waiting for a second */
    rg__shared_free(other);
    rg_block_unref(row);
    rg__key_deinit(&k);
}

/* ---- the channel breaks ---- */

/* The client's id by its part in the channel: who is subscribed, or who tracks for it. */
static long long client_id(bool listener) {
    rg__ctx ctx = ctx_ms(1000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    const char *argv[] = {"CLIENT", "LIST"};
    long long id = 0;
    if (rg__redis_acquire(f.pool, &ctx, &c, NULL) == RG_OK &&
        rg__redis_command(c, &ctx, &r, NULL, 2, argv, NULL) == RG_OK)
        for (char *line = strtok(r->str, "\n"); line; line = strtok(NULL, "\n")) {
            const char *flags = strstr(line, " flags=") + 7;
            bool tracks = memchr(flags, 'B', strcspn(flags, " ")) != NULL;
            bool subscribed = strstr(line, " sub=1 ") != NULL;
            if (listener ? subscribed : tracks) id = atoll(line + 3);
        }
    freeReplyObject(r);
    rg__redis_release(c);
    return id;
}

static void kill_client(long long id) {
    char text[24];
    snprintf(text, sizeof text, "%lld", id);
    CHECK_EQ_INT(ASK(f.pool, "CLIENT", "KILL", "ID", text), 1);
}

/* It may be back before anybody has seen that it was off: what was kept has gone. */
static void check_recovers(const rg__key *k) {
    CHECK(goes(k));
    for (int64_t until = rg__now_ms() + PATIENCE_MS; !keep(k) && rg__now_ms() < until;) rg__sleep_ms(1);
    CHECK(keep(k));
    raw_set(&f, k, "T", 1);
    CHECK(goes(k));
}

TEST(either_connection_is_killed) {
    server s = {0};
    if (!server_start(&s)) return;
    open_on(s.path);
    rg__key k = row_key(&f, f.both, 7);
    for (int listener = 0; listener < 2; listener++) {
        CHECK(keep(&k));
        long long id = client_id(listener);
        CHECK(id > 0);
        kill_client(id);
        check_recovers(&k);
    }
    rg__key_deinit(&k);
    close_all();
    server_remove(&s);
}

TEST(everything_is_flushed) {
    server s = {0};
    if (!server_start(&s)) return;
    open_on(s.path);
    rg__key k = row_key(&f, f.both, 7);
    CHECK(keep(&k));
    ASK(f.pool, "FLUSHALL");
    CHECK(goes(&k));
    CHECK(rg__coherence_ok(channel));
    rg__key_deinit(&k);
    close_all();
    server_remove(&s);
}

TEST(the_server_restarts) {
    server s = {0};
    if (!server_start(&s)) return;
    open_on(s.path);
    rg__key k = row_key(&f, f.both, 7);
    CHECK(keep(&k));
    server_kill(&s);
    CHECK(becomes(false, BUSY_MS));
    CHECK(!kept(&k) && !keep(&k));
    REQUIRE(server_run(&s));
    CHECK(becomes(true, PATIENCE_MS));
    CHECK(keep(&k));
    raw_set(&f, &k, "T", 1);
    CHECK(goes(&k));
    rg__key_deinit(&k);
    close_all();
    server_remove(&s);
}

TEST(the_server_hangs) {
    server s = {0};
    if (!server_start(&s)) return;
    open_on(s.path);
    rg__key k = row_key(&f, f.both, 7);
    CHECK(keep(&k));
    kill(s.pid, SIGSTOP);
    CHECK(becomes(false, 1500 + BUSY_MS)); /* a second to the ping, half a second for its answer */
    CHECK(!kept(&k));
    kill(s.pid, SIGCONT);
    CHECK(becomes(true, PATIENCE_MS));
    rg__key_deinit(&k);
    close_all();
    server_remove(&s);
}

/* ---- its life ---- */

TEST(without_a_server_the_tier_is_off_and_the_end_is_quick) {
    fixture_init(&f, "/tmp/rg-spec-no-such-socket");
    channel = rg__coherence_new(f.shared, f.process, NULL);
    rg__key k = row_key(&f, f.both, 7);
    CHECK(keep(&k));
    CHECK_EQ_INT(rg__coherence_start(channel, NULL), RG_OK);
    CHECK_EQ_INT(rg__coherence_start(channel, NULL), RG_OK);
    CHECK(!kept(&k) && !keep(&k));
    rg__sleep_ms(100);
    int64_t start = rg__now_ms();
    rg__coherence_stop(channel);
    rg__coherence_stop(channel);
    CHECK(rg__now_ms() - start < BUSY_MS);
    CHECK_EQ_INT(rg__coherence_start(channel, NULL), RG_ECLOSED);
    CHECK(!keep(&k));
    rg__key_deinit(&k);
    rg__coherence_free(channel);
    rg__redis_pool_shutdown(f.pool);
    rg__shared_free(f.shared);
    rg__process_free(f.process);
    rg__redis_pool_free(f.pool);
    rg__schema_deinit(&f.schema);
}

TEST(a_silent_server_does_not_delay_the_end) {
    peer p = {0};
    REQUIRE(peer_start(&p));
    fixture_init(&f, p.path);
    channel = rg__coherence_new(f.shared, f.process, NULL);
    rg__coherence_start(channel, NULL);
    rg__sleep_ms(50);
    int64_t start = rg__now_ms();
    rg__coherence_free(channel);
    CHECK(rg__now_ms() - start < BUSY_MS);
    rg__shared_free(f.shared);
    rg__process_free(f.process);
    rg__redis_pool_free(f.pool);
    rg__schema_deinit(&f.schema);
    peer_stop(&p);
}

#ifndef __SANITIZE_THREAD__ /* which does not let a child start threads */
SPEC(a_child_starts_its_own) {
    rg__key k = row_key(&f, f.both, 7);
    CHECK(keep(&k));
    pid_t child = fork();
    if (child == 0) {
        bool cold = !rg__coherence_ok(channel);
        bool started = rg__coherence_start(channel, NULL) == RG_OK;
        bool emptied = !kept(&k);
        bool works = becomes(true, PATIENCE_MS) && keep(&k);
        raw_set(&f, &k, "T", 1);
        bool gone = goes(&k);
        rg__coherence_free(channel);
        _exit(cold && started && emptied && works && gone ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK_EQ_INT(status, 0);
    CHECK(rg__coherence_ok(channel));
    CHECK(keep(&k));
    raw_set(&f, &k, "T", 1);
    CHECK(goes(&k));
    rg__key_deinit(&k);
}
#endif

/* Two pools serve one process tier: it is on only while both channels work. */
TEST(two_channels_share_a_tier) {
    server s = {0};
    if (!server_start(&s)) return;
    open_on(given_socket());
    rg__redis_pool *pool = pool_on(s.path);
    rg__shared *shared = rg__shared_new(pool, f.process, &f.schema, "other", NULL, NULL);
    rg__coherence *first = channel, *second = rg__coherence_new(shared, f.process, NULL);
    rg__key k = row_key(&f, f.both, 7);
    CHECK(keep(&k));
    rg__coherence_start(second, NULL);
    channel = second;
    CHECK(becomes(true, PATIENCE_MS));
    CHECK(keep(&k));
    server_kill(&s);
    CHECK(becomes(false, BUSY_MS));
    CHECK(!kept(&k) && !keep(&k) && rg__coherence_ok(first));
    REQUIRE(server_run(&s));
    CHECK(becomes(true, PATIENCE_MS));
    CHECK(keep(&k));
    channel = first;
    rg__coherence_free(second);
    rg__shared_free(shared);
    rg__redis_pool_free(pool);
    rg__key_deinit(&k);
    close_all();
    server_remove(&s);
}

REDIS_MAIN
