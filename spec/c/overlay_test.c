/* SPDX-License-Identifier: MIT */
/* The queue's side of the cache: enqueue with its overlay, and settling what was applied. */
#include "cache_support.h"

static fixture f;

/* Each spec runs with small rows and with large ones, which the script reads in another way. */
#define SPEC(name)                                                                                 \
    static void spec_##name(void);                                                                 \
    TEST(name) {                                                                                   \
        for (big_len = 0; big_len < 2000; big_len += 1000) {                                       \
            fixture_init(&f, given_socket());                                                      \
            spec_##name();                                                                         \
            fixture_deinit(&f);                                                                    \
        }                                                                                          \
        big_len = 0;                                                                               \
    }                                                                                              \
    static void spec_##name(void)

enum { MAX = 16 };

/* One enqueue and what it answered. */
typedef struct call {
    rg__change changes[MAX];
    size_t n;
    uint8_t stale[MAX];
    rg_block *current[MAX];
    char id[48];
} call;

static uint64_t sequence;

static int enqueue_as(call *q, const char *producer, uint64_t seq, uint64_t max_len) {
    rg__ctx ctx = ctx_ms(2000);
    rg_err err = {0};
    rg__enqueue e = {.stream = f.stream, .payload = {"payload", 7}, .max_len = max_len,
                     .producer = producer, .seq = seq, .changes = q->changes, .n_changes = q->n};
    int rc = rg__shared_enqueue(f.shared, &ctx, &e, q->stale, q->current, q->id, &err);
    if (rc < 0 && rc != RG_ECONFLICT && rc != RG_EBACKPRESSURE) printf("# %s\n", err.message);
    return rc;
}

static int enqueue(call *q) { return enqueue_as(q, "spec", ++sequence, 1000); }

static call call_of(size_t n, const rg__change *changes) {
    call q = {.n = n};
    memcpy(q.changes, changes, n * sizeof *changes);
    return q;
}
#define CALL(...)                                                                                  \
    call_of(sizeof((rg__change[]){__VA_ARGS__}) / sizeof(rg__change), (rg__change[]){__VA_ARGS__})

static int apply(const rg__key *k, const rg_type *t, bool is_row, const char *id, bool drop) {
    rg__applied a = {.key = *k, .type = t, .is_row = is_row, .drop = drop};
    memcpy(a.id, id, sizeof a.id);
    rg__ctx ctx = ctx_ms(2000);
    rg_err err = {0};
    int rc = rg__shared_applied(f.shared, &ctx, &a, 1, &err);
    if (rc < 0) printf("# %s\n", err.message);
    return rc;
}

/* A row of n = 1, 2, 3 ... and its key. */
typedef struct row {
    const rg_type *type;
    rg__key key;
    rg_block *v[4]; /* v[0] is none, v[n] has n */
} row;

static row row_of(const rg_type *t, uint64_t id, bool cached) {
    row r = {.type = t, .key = row_key(&f, t, id)};
    for (uint64_t n = 1; n < 4; n++) r.v[n] = make_row(t, id, "a", n);
    if (cached) cache_row(&f, t, &r.key, r.v[1]);
    return r;
}

static void forget(row *r) {
    for (int n = 1; n < 4; n++) rg_block_unref(r->v[n]);
    rg__key_deinit(&r->key);
}

static rg__change turn(const row *r, int from, int to) {
    return row_change(r->type, r->key, r->v[from], r->v[to]);
}

/* n of what readers see; 0: absent, -1: nothing known. */
static int seen(const row *r, bool pending) {
    rg__entry e = get_entry(&f, r->type, true, &r->key);
    CHECK_EQ_INT(e.pending, pending);
    int n = e.found == RG__VALUE ? (int)n_of(r->type, e.block) : e.found == RG__ABSENT ? 0 : -1;
    rg__entry_deinit(&e);
    return n;
}

static int marked(const row *r, char pending[48]) {
    rg__change c = turn(r, 1, 2);
    rg__txid id = new_tx();
    int rc = mark_changes(&f, id, &c, 1, pending);
    if (rc == RG_OK) unmark_changes(&f, id, &c, 1);
    return rc;
}

/* ---- rows ---- */

SPEC(an_update_is_seen_at_once_and_valid_later) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK(strchr(q.id, '-') != NULL);
    CHECK_EQ_INT(ASK(f.pool, "XLEN", f.stream), 1);
    CHECK_EQ_INT(seen(&r, true), 2);
    CHECK_EQ_INT(ttl_of(&f, &r.key), -1);
    rg__entry e = lease_entry(&f, f.both, true, &r.key);
    CHECK(e.found == RG__VALUE && e.pending);
    rg__entry_deinit(&e);
    CHECK_EQ_INT(apply(&r.key, f.both, true, q.id, false), RG_OK);
    CHECK_EQ_INT(seen(&r, false), 2);
    CHECK(ttl_of(&f, &r.key) > 0);
    CHECK_EQ_INT(apply(&r.key, f.both, true, q.id, false), RG_OK);
    CHECK_EQ_INT(seen(&r, false), 2);
    forget(&r);
}

SPEC(inserts_and_deletes) {
    row r = row_of(f.both, 1, false);
    call q = CALL(turn(&r, 0, 1));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(seen(&r, true), 1);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(seen(&r, false), 1);
    q = CALL(turn(&r, 1, 0));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(seen(&r, true), 0);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(seen(&r, false), 0);
    CHECK(ttl_of(&f, &r.key) <= 20000);
    q = CALL(turn(&r, 0, 2)); /* over a known absence */
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(seen(&r, true), 2);
    forget(&r);
}

SPEC(writes_build_on_pending_ones) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2)), p = CALL(turn(&r, 2, 3));
    enqueue(&q);
    CHECK_EQ_INT(enqueue(&p), RG_OK);
    CHECK_EQ_INT(seen(&r, true), 3);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(seen(&r, true), 3);
    apply(&r.key, f.both, true, p.id, false);
    CHECK_EQ_INT(seen(&r, false), 3);
    forget(&r);
}

SPEC(the_last_of_a_batch_settles_the_earlier_ones) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2)), p = CALL(turn(&r, 2, 3));
    enqueue(&q);
    enqueue(&p);
    apply(&r.key, f.both, true, p.id, false);
    CHECK_EQ_INT(seen(&r, false), 3);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(seen(&r, false), 3);
    forget(&r);
}

SPEC(one_call_may_write_a_row_twice) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2), turn(&r, 2, 3));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(seen(&r, true), 3);
    q = CALL(turn(&r, 3, 1), turn(&r, 1, 0));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(seen(&r, true), 0);
    forget(&r);
}

/* ---- refusals ---- */

static void check_refused(call *q, int stale, int n) {
    CHECK_EQ_INT(enqueue(q), RG_ECONFLICT);
    CHECK_EQ_INT(q->stale[0], stale);
    CHECK_EQ_INT(q->current[0] ? (int)n_of(f.both, q->current[0]) : 0, n);
    rg_block_unref(q->current[0]);
    CHECK_EQ_INT(ASK(f.pool, "EXISTS", f.stream), 0);
}

SPEC(another_row_is_told) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 2, 3));
    check_refused(&q, 1, 1);
    q = CALL(turn(&r, 3, 0));
    check_refused(&q, 1, 1);
    q = CALL(turn(&r, 0, 2)); /* an insert of what is there */
    check_refused(&q, 1, 1);
    CHECK_EQ_INT(seen(&r, false), 1);
    forget(&r);
}

SPEC(a_missing_row_is_told) {
    row r = row_of(f.both, 1, false);
    call q = CALL(turn(&r, 1, 2));
    check_refused(&q, 2, 0);
    rg__entry e = lease_entry(&f, f.both, true, &r.key);
    q = CALL(turn(&r, 1, 2));
    check_refused(&q, 2, 0);
    fill_entry(&f, f.both, true, &r.key, NULL, &e, false);
    q = CALL(turn(&r, 1, 2));
    check_refused(&q, 1, 0); /* known to be absent */
    forget(&r);
}

SPEC(a_marked_row_is_told) {
    row r = row_of(f.both, 1, true);
    rg__change c = turn(&r, 1, 2);
    rg__txid id = new_tx();
    mark_changes(&f, id, &c, 1, NULL);
    call q = CALL(turn(&r, 1, 2));
    check_refused(&q, 3, 0);
    q = CALL(turn(&r, 0, 2));
    check_refused(&q, 3, 0);
    unmark_changes(&f, id, &c, 1);
    CHECK_EQ_INT(enqueue(&q), RG_ECONFLICT); /* the insert */
    rg_block_unref(q.current[0]);
    q = CALL(turn(&r, 1, 2));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    forget(&r);
}

SPEC(an_expired_mark_asks_for_a_load) {
    rg__shared_timing(f.shared, 0, 20);
    row r = row_of(f.both, 1, true);
    rg__change c = turn(&r, 1, 2);
    mark_changes(&f, new_tx(), &c, 1, NULL);
    rg__sleep_ms(30);
    call q = CALL(turn(&r, 1, 2));
    check_refused(&q, 2, 0);
    q = CALL(
        turn(&r, 0, 3)); /* an insert needs no load: the row's lock ends whoever still commits */
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(seen(&r, true), 3);
    forget(&r);
}

SPEC(one_refusal_refuses_all) {
    row r = row_of(f.both, 1, true), s = row_of(f.both, 2, true), t = row_of(f.both, 3, false);
    call q = CALL(turn(&r, 1, 2), turn(&s, 2, 3), turn(&t, 1, 2));
    CHECK_EQ_INT(enqueue(&q), RG_ECONFLICT);
    CHECK_EQ_INT(q.stale[0], 0);
    CHECK_EQ_INT(q.stale[1], 1);
    CHECK_EQ_INT(q.stale[2], 2);
    CHECK(!q.current[0] && q.current[1] && !q.current[2]);
    rg_block_unref(q.current[1]);
    CHECK_EQ_INT(seen(&r, false), 1);
    CHECK_EQ_INT(ASK(f.pool, "EXISTS", f.stream), 0);
    forget(&r);
    forget(&s);
    forget(&t);
}

SPEC(an_unreadable_row_asks_for_a_load) {
    row r = row_of(f.both, 1, true);
    char bytes[2000];
    size_t n = raw_get(&f, &r.key, bytes, sizeof bytes);
    bytes[n - 1] ^= 1;
    bytes[27] ^= 1; /* of the checksum */
    raw_set(&f, &r.key, bytes, n);
    call q = CALL(turn(&r, 1, 2));
    check_refused(&q, 2, 0);
    forget(&r);
}

SPEC(a_full_queue_is_told) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2)), p = CALL(turn(&r, 2, 3));
    CHECK_EQ_INT(enqueue_as(&q, "spec", ++sequence, 1), RG_OK);
    CHECK_EQ_INT(enqueue_as(&p, "spec", ++sequence, 1), RG_EBACKPRESSURE);
    CHECK_EQ_INT(seen(&r, true), 2);
    forget(&r);
}

SPEC(a_row_of_another_type_asks_for_a_load) {
    row r = row_of(f.both, 1, false);
    ASK(f.pool, "LPUSH", r.key.text, "x");
    call q = CALL(turn(&r, 1, 2));
    check_refused(&q, 2, 0);
    forget(&r);
}

/* Others queue as well: ids that this process made ready may come too late. */
SPEC(ids_of_other_producers_come_between) {
    row r = row_of(f.both, 1, true);
    int from = 1;
    for (int i = 0; i < 20; i++) {
        if (i % 3 == 1) ASK(f.pool, "XADD", f.stream, "*", "d", "other");
        if (i == 10) { /* far ahead: now all ids must follow it */
            char far_off[32];
            snprintf(far_off, sizeof far_off, "%lld-7", (long long)(rg__wall_us() / 1000 + 100000));
            ASK(f.pool, "XADD", f.stream, far_off, "d", "other");
        }
        call q = CALL(turn(&r, from, 3 - from));
        CHECK_EQ_INT(enqueue(&q), RG_OK);
        from = 3 - from;
        CHECK_EQ_INT(seen(&r, true), from);
        char pending[48];
        CHECK_EQ_INT(marked(&r, pending), RG_EPENDING);
        CHECK_STR(pending, q.id);
        if (i % 2) continue;
        apply(&r.key, f.both, true, q.id, false);
        CHECK_EQ_INT(seen(&r, false), from);
    }
    forget(&r);
}

SPEC(a_stream_of_another_type_is_an_error) {
    row r = row_of(f.both, 1, true);
    ASK(f.pool, "SET", f.stream, "x");
    call q = CALL(turn(&r, 1, 2));
    CHECK_EQ_INT(enqueue(&q), RG_EREDIS);
    CHECK_EQ_INT(seen(&r, false), 1);
    forget(&r);
}

/* ---- the same call again ---- */

SPEC(a_repeated_call_is_not_queued_twice) {
    row r = row_of(f.both, 1, true), s = row_of(f.both, 2, true);
    call q = CALL(turn(&r, 1, 2)), again = q, later = CALL(turn(&s, 1, 2));
    CHECK_EQ_INT(enqueue_as(&q, "me", 5, 1000), RG_OK);
    CHECK_EQ_INT(enqueue_as(&again, "me", 5, 1000), RG_OK);
    CHECK_STR(again.id, q.id);
    CHECK_EQ_INT(ASK(f.pool, "XLEN", f.stream), 1);
    /* calls overtake each other */
    CHECK_EQ_INT(enqueue_as(&later, "me", 4, 1000), RG_OK);
    CHECK_EQ_INT(ASK(f.pool, "XLEN", f.stream), 2);
    forget(&r);
    forget(&s);
}

SPEC(answered_calls_are_forgotten) {
    char name[64];
    snprintf(name, sizeof name, "{%s}:ps", f.prefix);
    call q = {.n = 0};
    for (uint64_t i = 1; i <= 300; i++) CHECK_EQ_INT(enqueue_as(&q, "me", i, 1000), RG_OK);
    CHECK(ASK(f.pool, "HLEN", name) <= 2);
    CHECK_EQ_INT(ASK(f.pool, "XLEN", f.stream), 300);
    ASK(f.pool, "HSET", name, "dead:1", "1700000000000-0");
    rg__ctx ctx = ctx_ms(1000);
    CHECK_EQ_INT(rg__shared_sweep(f.shared, &ctx, 10, NULL), 0);
    CHECK_EQ_INT(ASK(f.pool, "HEXISTS", name, "dead:1"), 0);
    CHECK(ASK(f.pool, "HLEN", name) >= 1);
}

/* The connection dies before the answer, after the script ran. */
typedef struct cutter {
    char dir[64], path[96];
    int listener;
    pthread_t thread;
    int cuts; /* answers of scripts still to be swallowed */
    atomic_bool stop;
} cutter;

static void relay(cutter *c, int client) {
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", given_socket());
    if (connect(server, (struct sockaddr *)&a, sizeof a) < 0) abort();
    static char bytes[1 << 16];
    bool script = false;
    while (!atomic_load(&c->stop)) {
        ssize_t n = recv(client, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n == 0) break;
        if (n > 0) {
            script = memmem(bytes, (size_t)n, "payload", 7) != NULL;
            if (send(server, bytes, (size_t)n, MSG_NOSIGNAL) < 0) break;
        }
        n = recv(server, bytes, sizeof bytes, MSG_DONTWAIT);
        bool missing = n > 0 && memmem(bytes, (size_t)n, "NOSCRIPT", 8) != NULL;
        if (n > 0 && script && !missing && c->cuts > 0 && c->cuts--) break;
        if (n > 0 && send(client, bytes, (size_t)n, MSG_NOSIGNAL) < 0) break;
        usleep(100);
    }
    close(server);
}

static void *cutter_run(void *arg) {
    cutter *c = arg;
    for (;;) {
        int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) return NULL;
        relay(c, fd);
        close(fd);
    }
}

SPEC(a_lost_answer_is_asked_for_again) {
    for (int cuts = 1; cuts <= 3; cuts++) {
        row r = row_of(f.both, (uint64_t)cuts, true);
        cutter c = {.cuts = cuts};
        snprintf(c.dir, sizeof c.dir, "/tmp/rg-spec-XXXXXX");
        REQUIRE(mkdtemp(c.dir));
        snprintf(c.path, sizeof c.path, "%s/c.sock", c.dir);
        c.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        snprintf(a.sun_path, sizeof a.sun_path, "%s", c.path);
        REQUIRE(bind(c.listener, (struct sockaddr *)&a, sizeof a) == 0 &&
                listen(c.listener, 9) == 0);
        pthread_create(&c.thread, NULL, cutter_run, &c);
        rg__redis_pool *pool = pool_on(c.path);
        rg__shared *through = rg__shared_new(pool, NULL, &f.schema, f.prefix, NULL, NULL);
        rg__shared *direct = f.shared;
        long long before = ASK(f.pool, "XLEN", f.stream);
        f.shared = through;
        call q = CALL(turn(&r, 1, 2));
        CHECK_EQ_INT(enqueue(&q), RG_OK);
        f.shared = direct;
        CHECK_EQ_INT(ASK(f.pool, "XLEN", f.stream), before + 1);
        CHECK_EQ_INT(seen(&r, true), 2);
        rg__shared_free(through);
        rg__redis_pool_free(pool);
        atomic_store(&c.stop, true);
        shutdown(c.listener, SHUT_RDWR);
        pthread_join(c.thread, NULL);
        CHECK_EQ_INT(c.cuts, 0);
        close(c.listener);
        unlink(c.path);
        rmdir(c.dir);
        forget(&r);
    }
}

SPEC(a_call_without_any_answer_is_ambiguous) {
    /* answers to CLIENT SETNAME, to LIFE and to AGREE */
    peer p = {.say = "+OK\r\n$8\r\n12345678\r\n:1\r\n", .len = 23};
    REQUIRE(peer_start(&p));
    rg__redis_pool *pool = pool_on(p.path);
    rg__shared *s = rg__shared_new(pool, NULL, &f.schema, "x", NULL, NULL);
    rg__enqueue e = {.stream = "s", .payload = {"p", 1}, .max_len = 9, .producer = "me", .seq = 1};
    uint8_t stale[1];
    rg_block *current[1];
    char id[48];
    rg_err err = {0};
    rg__ctx ctx = ctx_ms(1000); /* enough to have sent it */
    int64_t start = rg__now_ms();
    CHECK_EQ_INT(rg__shared_enqueue(s, &ctx, &e, stale, current, id, &err), RG_EUNAVAILABLE);
    CHECK_EQ_INT(err.cls, RG_CLASS_AMBIGUOUS);
    CHECK(rg__now_ms() - start < 1000 + BUSY_MS);
    rg__shared_free(s);
    rg__redis_pool_free(pool);
    peer_stop(&p);
    pool = pool_on("/tmp/rg-spec-no-such-socket"); /* nothing was sent: nothing is unknown */
    s = rg__shared_new(pool, NULL, &f.schema, "x", NULL, NULL);
    ctx = ctx_ms(1000);
    CHECK_EQ_INT(rg__shared_enqueue(s, &ctx, &e, stale, current, id, &err), RG_EUNAVAILABLE);
    CHECK_EQ_INT(err.cls, RG_CLASS_RECONNECT);
    rg__shared_free(s);
    rg__redis_pool_free(pool);
}

/* ---- transactions and queued writes ---- */

SPEC(a_mark_meets_queued_writes) {
    row r = row_of(f.both, 1, true), s = row_of(f.both, 2, true);
    call q = CALL(turn(&r, 1, 2));
    enqueue(&q);
    char pending[48];
    CHECK_EQ_INT(marked(&r, pending), RG_EPENDING);
    CHECK_STR(pending, q.id);
    call p = CALL(turn(&s, 1, 0));
    enqueue(&p);
    rg__change both[] = {turn(&s, 1, 2), turn(&r, 1, 2)};
    CHECK_EQ_INT(mark_changes(&f, new_tx(), both, 2, pending), RG_EPENDING);
    CHECK_STR(pending, p.id);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(marked(&r, NULL), RG_OK);
    forget(&r);
    forget(&s);
}

SPEC(a_refused_mark_writes_nothing) {
    row r = row_of(f.both, 1, true), s = row_of(f.both, 2, true);
    call q = CALL(turn(&r, 1, 2));
    enqueue(&q);
    rg__change both[] = {turn(&s, 1, 2), turn(&r, 1, 2)};
    CHECK_EQ_INT(mark_changes(&f, new_tx(), both, 2, NULL), RG_EPENDING);
    CHECK_EQ_INT(state_of(&f, &s.key), 'V');
    forget(&r);
    forget(&s);
}

/* A commit whose mark expired: what was queued since was built on what a locking read found, which waited
 * for it; it is not kept, all the same. */
SPEC(a_late_publish_distrusts_queued_writes) {
    rg__shared_timing(f.shared, 0, 20);
    row r = row_of(f.both, 1, true);
    rg__change c = turn(&r, 1, 2);
    rg__txid id = new_tx();
    mark_changes(&f, id, &c, 1, NULL);
    rg__sleep_ms(30);
    rg__entry e = lease_entry(&f, f.both, true, &r.key);
    fill_entry(&f, f.both, true, &r.key, r.v[1], &e, true);
    call q = CALL(turn(&r, 1, 3));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    publish_changes(&f, id, &c, 1);
    CHECK_EQ_INT(seen(&r, true), 3);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(state_of(&f, &r.key), '-');
    forget(&r);
}

/* The database was written past a queued write: only it knows what will be. */
SPEC(an_invalidation_voids_queued_writes) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    rg__ctx ctx = ctx_ms(1000);
    CHECK_EQ_INT(rg__shared_drop(f.shared, &ctx, &r.key, 1, NULL), 1);
    rg__entry now = get_entry(&f, f.both, true, &r.key);
    CHECK(now.found == RG__BYPASS && now.pending);
    rg__entry_deinit(&now);
    call p = CALL(turn(&r, 2, 1));
    CHECK_EQ_INT(enqueue(&p), RG_ECONFLICT);
    CHECK_EQ_INT(p.stale[0], 3);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(state_of(&f, &r.key), '-');
    forget(&r);
}

/* ---- dead letters ---- */

SPEC(a_dead_write_is_dropped) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2));
    enqueue(&q);
    apply(&r.key, f.both, true, q.id, true);
    CHECK_EQ_INT(state_of(&f, &r.key), '-');
    forget(&r);
}

SPEC(what_was_built_on_a_dead_write_is_not_kept) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2)), p = CALL(turn(&r, 2, 3));
    enqueue(&q);
    enqueue(&p);
    apply(&r.key, f.both, true, q.id, true);
    CHECK_EQ_INT(seen(&r, true), 3);
    apply(&r.key, f.both, true, p.id, false);
    CHECK_EQ_INT(state_of(&f, &r.key), '-');
    forget(&r);
}

SPEC(a_new_epoch_keeps_queued_writes_until_applied) {
    row r = row_of(f.both, 1, true);
    call q = CALL(turn(&r, 1, 2));
    enqueue(&q);
    rg__ctx ctx = ctx_ms(1000);
    rg__shared_renew(f.shared, &ctx, NULL);
    CHECK_EQ_INT(seen(&r, true), 2);
    apply(&r.key, f.both, true, q.id, false);
    CHECK_EQ_INT(state_of(&f, &r.key), '-');
    forget(&r);
}

/* ---- types that Redis does not cache ---- */

SPEC(rows_nobody_caches_are_seen_while_queued) {
    const rg_type *types[] = {f.none, f.local};
    for (int i = 0; i < 2; i++) {
        row r = row_of(types[i], 1, false);
        call q = CALL(turn(&r, 1, 2));
        CHECK_EQ_INT(enqueue(&q), RG_OK);
        CHECK_EQ_INT(seen(&r, true), 2);
        CHECK_EQ_INT(marked(&r, NULL), RG_EPENDING);
        call p = CALL(turn(&r, 2, 0));
        CHECK_EQ_INT(enqueue(&p), RG_OK);
        CHECK_EQ_INT(seen(&r, true), 0);
        apply(&r.key, types[i], true, q.id, false);
        CHECK_EQ_INT(seen(&r, true), 0);
        apply(&r.key, types[i], true, p.id, false);
        CHECK_EQ_INT(state_of(&f, &r.key), '-');
        forget(&r);
    }
}

/* ---- lookups ---- */

/* A list of ids by n, with changes of it. */
static void check_list(const rg__key *k, bool pending, size_t n, const uint64_t *ids) {
    rg__entry e = get_entry(&f, f.both, false, k);
    CHECK_EQ_INT(e.found, RG__VALUE);
    CHECK_EQ_INT(e.pending, pending);
    CHECK(e.block && e.block->len == n * 8 && memcmp(e.block->data, ids, n * 8) == 0);
    rg__entry_deinit(&e);
}

SPEC(lists_are_kept_up_to_date) {
    const uint64_t big = 1ull << 63;
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg_block *ids = make_ids(3, (uint64_t[]){3, 9, big});
    cache_ids(&f, f.both, &k, ids);
    call q = CALL(lookup_change(f.both, k, 5, true), lookup_change(f.both, k, 9, false),
                  lookup_change(f.both, k, big + 1, true), lookup_change(f.both, k, 1, true),
                  lookup_change(f.both, k, 5, true), lookup_change(f.both, k, 4, false));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    check_list(&k, true, 5, (uint64_t[]){1, 3, 5, big, big + 1});
    call p = CALL(lookup_change(f.both, k, big, false));
    CHECK_EQ_INT(enqueue(&p), RG_OK);
    check_list(&k, true, 4, (uint64_t[]){1, 3, 5, big + 1});
    apply(&k, f.both, false, q.id, false);
    check_list(&k, true, 4, (uint64_t[]){1, 3, 5, big + 1});
    apply(&k, f.both, false, p.id, false);
    check_list(&k, false, 4, (uint64_t[]){1, 3, 5, big + 1});
    CHECK(ttl_of(&f, &k) > 0);
    rg_block_unref(ids);
    rg__key_deinit(&k);
}

SPEC(unknown_lists_gather_changes) {
    rg__key k = lookup_key(&f, f.both, 1, "7");
    call q = CALL(lookup_change(f.both, k, 5, true), lookup_change(f.both, k, 9, false));
    call p = CALL(lookup_change(f.both, k, 5, false));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(enqueue(&p), RG_OK);
    CHECK_EQ_INT(ttl_of(&f, &k), -1);
    rg__entry e = get_entry(&f, f.both, false, &k);
    CHECK(e.found == RG__DELTAS && e.pending && e.n_deltas == 3);
    CHECK(e.deltas[0].id == 5 && e.deltas[0].add && e.deltas[1].id == 9 && !e.deltas[1].add);
    CHECK(e.deltas[2].id == 5 && !e.deltas[2].add);
    rg__entry_deinit(&e);
    e = lease_entry(&f, f.both, false, &k);
    CHECK_EQ_INT(e.found, RG__DELTAS);
    rg__entry_deinit(&e);
    rg__change c = lookup_change(f.both, k, 3, true);
    char pending[48];
    CHECK_EQ_INT(mark_changes(&f, new_tx(), &c, 1, pending), RG_EPENDING);
    CHECK_STR(pending, p.id);
    apply(&k, f.both, false, q.id, false);
    e = get_entry(&f, f.both, false, &k);
    CHECK(e.found == RG__DELTAS && e.n_deltas == 1);
    rg__entry_deinit(&e);
    apply(&k, f.both, false, p.id, false);
    CHECK_EQ_INT(state_of(&f, &k), '-');
    rg__key_deinit(&k);
}

SPEC(a_leased_list_gathers_changes_and_refuses_the_fill) {
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg__entry e = lease_entry(&f, f.both, false, &k);
    call q = CALL(lookup_change(f.both, k, 5, true));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    rg_block *ids = make_ids(0, NULL);
    fill_entry(&f, f.both, false, &k, ids, &e, true);
    CHECK_EQ_INT(state_of(&f, &k), 'D');
    rg_block_unref(ids);
    rg__key_deinit(&k);
}

SPEC(an_exposed_list_stays_exposed) {
    rg__shared_timing(f.shared, 0, 20);
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg__change c = lookup_change(f.both, k, 3, true);
    mark_changes(&f, new_tx(), &c, 1, NULL);
    rg__sleep_ms(30);
    call q = CALL(lookup_change(f.both, k, 5, true));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(state_of(&f, &k), 'D');
    apply(&k, f.both, false, q.id, false);
    CHECK_EQ_INT(state_of(&f, &k), 'X');
    rg__key_deinit(&k);
}

SPEC(a_marked_list_refuses) {
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg__change c = lookup_change(f.both, k, 3, true);
    rg__txid id = new_tx();
    mark_changes(&f, id, &c, 1, NULL);
    call q = CALL(lookup_change(f.both, k, 5, true));
    CHECK_EQ_INT(enqueue(&q), RG_ECONFLICT);
    CHECK_EQ_INT(q.stale[0], 3);
    publish_changes(&f, id, &c, 1);
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    rg__key_deinit(&k);
}

SPEC(long_lists_become_changes) {
    enum { N = 2000 };
    rg__key k = lookup_key(&f, f.both, 1, "7");
    uint64_t ids[N];
    for (uint64_t i = 0; i < N; i++) ids[i] = i * 2;
    rg_block *b = make_ids(N, ids);
    cache_ids(&f, f.both, &k, b);
    call q = CALL(lookup_change(f.both, k, 5, true));
    CHECK_EQ_INT(enqueue(&q), RG_OK);
    CHECK_EQ_INT(state_of(&f, &k), 'D');
    apply(&k, f.both, false, q.id, false);
    CHECK_EQ_INT(state_of(&f, &k), '-');
    rg_block_unref(b);
    rg__key_deinit(&k);
}

SPEC(a_dead_write_drops_the_list) {
    rg__key k = lookup_key(&f, f.both, 1, "7");
    rg_block *ids = make_ids(1, (uint64_t[]){3});
    cache_ids(&f, f.both, &k, ids);
    call q = CALL(lookup_change(f.both, k, 5, true)), p = CALL(lookup_change(f.both, k, 6, true));
    enqueue(&q);
    enqueue(&p);
    apply(&k, f.both, false, q.id, true);
    check_list(&k, true, 3, (uint64_t[]){3, 5, 6});
    apply(&k, f.both, false, p.id, false);
    CHECK_EQ_INT(state_of(&f, &k), '-');
    rg_block_unref(ids);
    rg__key_deinit(&k);
}

/* ---- many at once ---- */

SPEC(thousands_of_keys_in_one_call) {
    enum { N = 2500 };
    rg__change *c = rg__calloc(N * 2, sizeof *c);
    uint8_t *stale = rg__calloc(N * 2, 1);
    rg_block **current = rg__calloc(N * 2, sizeof *current);
    rg__key list = lookup_key(&f, f.both, 1, "7");
    for (uint64_t i = 0; i < N; i++) {
        rg_block *row = make_row(f.both, i + 1, "x", 7);
        c[i * 2] = row_change(f.both, row_key(&f, f.both, i + 1), NULL, row);
        c[i * 2 + 1] = lookup_change(f.both, list, i + 1, true);
    }
    rg__enqueue e = {.stream = f.stream, .payload = {"p", 1}, .max_len = 9, .producer = "me",
                     .seq = 1, .changes = c, .n_changes = N * 2};
    char id[48];
    rg_err err = {0};
    rg__ctx ctx = ctx_ms(5000);
    CHECK_EQ_INT(rg__shared_enqueue(f.shared, &ctx, &e, stale, current, id, &err), RG_OK);
    rg__applied *a = rg__calloc(N + 1, sizeof *a);
    for (size_t i = 0; i <= N; i++) {
        a[i] = (rg__applied){.key = i < N ? c[i * 2].key : list, .type = f.both, .is_row = i < N};
        memcpy(a[i].id, id, sizeof id);
    }
    int pending = 0, valid = 0;
    for (size_t i = 0; i < N; i += 50) pending += state_of(&f, &a[i].key) == 'P';
    CHECK_EQ_INT(rg__shared_applied(f.shared, &ctx, a, N + 1, &err), RG_OK);
    for (size_t i = 0; i < N; i += 50) valid += state_of(&f, &a[i].key) == 'V';
    CHECK_EQ_INT(pending, N / 50);
    CHECK_EQ_INT(valid, N / 50);
    CHECK_EQ_INT(state_of(&f, &list), '-');
    for (size_t i = 0; i < N; i++) {
        rg__key_deinit(&c[i * 2].key);
        rg_block_unref(c[i * 2].after);
    }
    rg__key_deinit(&list);
    rg__free(a);
    rg__free(c);
    rg__free(stale);
    rg__free(current);
}

SPEC(lives_without_memory) {
    row r = row_of(f.both, 1, true);
    for (long n = 1; n < 60; n++) {
        call q = CALL(turn(&r, 1, 2));
        rg__alloc_fail_at(n, 0);
        int rc = enqueue(&q);
        if (rc == RG_OK) apply(&r.key, f.both, true, q.id, false);
        rg__alloc_fail_at(0, 0);
        rg_block_unref(q.current[0]);
        raw_del(&f, &r.key);
        cache_row(&f, f.both, &r.key, r.v[1]);
    }
    forget(&r);
}

REDIS_MAIN
