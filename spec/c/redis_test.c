/* SPDX-License-Identifier: MIT */
/* Redis connections and pools: commands, pipelines, deadlines, errors, hostile answers, TLS, forks.
 */
#include "redis_support.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/alloc.h"

static rg__redis *get(rg__redis_pool *pool) {
    rg__ctx ctx = ctx_ms(2000);
    rg__redis *c = NULL;
    rg_err err = {0};
    if (rg__redis_acquire(pool, &ctx, &c, &err) < 0) printf("# %s\n", err.message);
    return c;
}

static uint32_t busy_of(rg__redis_pool *pool) {
    uint32_t busy, idle;
    rg__redis_pool_stats(pool, &busy, &idle);
    return busy;
}

static uint32_t idle_of(rg__redis_pool *pool) {
    uint32_t busy, idle;
    rg__redis_pool_stats(pool, &busy, &idle);
    return idle;
}

/* ---- commands ---- */

TEST(commands_and_values) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__ctx ctx = ctx_ms(2000);
    rg__redis *c = get(pool);
    REQUIRE(c);
    redisReply *r = NULL;
    rg_err err = {0};
    const char binary[] = "a\0b\r\n$5\r\n";
    const char *set[] = {"SET", "rg-spec:k", binary};
    const size_t lens[] = {3, 9, sizeof binary};
    CHECK_EQ_INT(rg__redis_command(c, &ctx, &r, &err, 3, set, lens), RG_OK);
    freeReplyObject(r);
    const char *get_it[] = {"GET", "rg-spec:k"};
    CHECK_EQ_INT(rg__redis_command(c, &ctx, &r, &err, 2, get_it, NULL), RG_OK);
    REQUIRE(r && r->type == REDIS_REPLY_STRING);
    CHECK(r->len == sizeof binary && memcmp(r->str, binary, sizeof binary) == 0);
    freeReplyObject(r);
    rg__redis_release(c);
    CHECK_EQ_INT(ASK(pool, "DEL", "rg-spec:k"), 1);
    CHECK_EQ_INT(idle_of(pool), 1);
    rg__redis_pool_free(pool);
}

TEST(names_itself) {
    rg__redis_pool *pool = pool_on(given_socket());
    CHECK_EQ_INT(ASK(pool, "CLIENT", "GETNAME"), (int)strlen("regolith"));
    rg__redis_pool_free(pool);
}

TEST(large_values_both_ways) {
    rg__redis_pool *pool = pool_on(given_socket());
    const size_t n = 20 << 20;
    char *big = rg__malloc(n);
    memset(big, 'x', n);
    rg__ctx ctx = ctx_ms(10000);
    rg__redis *c = get(pool);
    REQUIRE(c);
    redisReply *r = NULL;
    const char *argv[] = {"ECHO", big};
    const size_t lens[] = {4, n};
    CHECK_EQ_INT(rg__redis_command(c, &ctx, &r, NULL, 2, argv, lens), RG_OK);
    CHECK(r && (size_t)r->len == n && memcmp(r->str, big, n) == 0);
    freeReplyObject(r);
    rg__redis_release(c);
    rg__free(big);
    rg__redis_pool_free(pool);
}

/* More than both sockets' buffers hold, each way, before the first reply is read. */
TEST(pipelines_do_not_lock_up) {
    rg__redis_pool *pool = pool_on(given_socket());
    enum { N = 300, BYTES = 50000 };
    char *text = rg__malloc(BYTES);
    memset(text, 'y', BYTES);
    rg__ctx ctx = ctx_ms(10000);
    rg__redis *c = get(pool);
    REQUIRE(c);
    const char *argv[] = {"ECHO", text};
    const size_t lens[] = {4, BYTES};
    for (int i = 0; i < N; i++) CHECK_EQ_INT(rg__redis_append(c, 2, argv, lens, NULL), RG_OK);
    int good = 0;
    for (int i = 0; i < N; i++) {
        redisReply *r = NULL;
        if (rg__redis_reply(c, &ctx, &r, NULL) == RG_OK) good += r->len == BYTES;
        freeReplyObject(r);
    }
    CHECK_EQ_INT(good, N);
    rg__redis_release(c);
    CHECK_EQ_INT(idle_of(pool), 1);
    rg__free(text);
    rg__redis_pool_free(pool);
}

TEST(errors_in_a_pipeline_are_replies) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__ctx ctx = ctx_ms(2000);
    rg__redis *c = get(pool);
    REQUIRE(c);
    const char *bad[] = {"NOSUCHCOMMAND"}, *good[] = {"PING"};
    rg__redis_append(c, 1, bad, NULL, NULL);
    rg__redis_append(c, 1, good, NULL, NULL);
    redisReply *r = NULL;
    CHECK_EQ_INT(rg__redis_reply(c, &ctx, &r, NULL), RG_OK);
    CHECK(r && r->type == REDIS_REPLY_ERROR);
    freeReplyObject(r);
    CHECK_EQ_INT(rg__redis_reply(c, &ctx, &r, NULL), RG_OK);
    CHECK(r && r->type == REDIS_REPLY_STATUS);
    freeReplyObject(r);
    rg_err err = {0};
    CHECK_EQ_INT(rg__redis_reply(c, &ctx, &r, &err), RG_EINTERNAL);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
}

TEST(unread_replies_close_the_connection) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__ctx ctx = ctx_ms(2000);
    rg__redis *c = get(pool);
    REQUIRE(c);
    const char *argv[] = {"PING"};
    rg__redis_append(c, 1, argv, NULL, NULL);
    rg__redis_append(c, 1, argv, NULL, NULL);
    redisReply *r = NULL;
    CHECK_EQ_INT(rg__redis_reply(c, &ctx, &r, NULL), RG_OK);
    freeReplyObject(r);
    rg__redis_release(c);
    CHECK_EQ_INT(idle_of(pool), 0);
    CHECK_EQ_INT(busy_of(pool), 0);
    rg__redis_pool_free(pool);
}

/* ---- asking now, taking later ---- */

static void count_told(void *arg, size_t i, const char *p, size_t len) {
    (void)i;
    if (p && len) ++*(int *)arg;
}

TEST(asks_now_and_takes_later) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__ctx ctx = ctx_ms(2000);
    CHECK(rg__redis_acquire_idle(pool) == NULL);
    CHECK_EQ_INT(ASK(pool, "MSET", "rg-spec:1", "one", "rg-spec:2", "two"), 2);
    const char *argv[] = {"MGET", "rg-spec:1", "rg-spec:none", "rg-spec:2"};
    for (int round = 0; round < 4; round++) {
        rg__redis *c = rg__redis_acquire_idle(pool);
        REQUIRE(c);
        CHECK(rg__redis_acquire_idle(pool) == NULL);
        CHECK_EQ_INT(rg__redis_ask(c, &ctx, NULL, 4, argv, NULL), RG_OK);
        int told = 0;
        const rg__redis_sink sink = {count_told, &told};
        if (round % 2) { /* nobody wants it any more */
            CHECK_EQ_INT(rg__redis_leave(c, &ctx, NULL), RG_OK);
        } else {
            CHECK_EQ_INT(rg__redis_gather_asked(c, &ctx, &sink, 3, NULL), RG_OK);
            CHECK_EQ_INT(told, 2);
        }
        rg__redis_release(c);
        CHECK_EQ_INT(idle_of(pool), 1);
        CHECK_EQ_INT(ASK(pool, "GET", "rg-spec:2"), 3);
    }
    CHECK_EQ_INT(ASK(pool, "DEL", "rg-spec:1", "rg-spec:2"), 2);
    rg__redis_pool_free(pool);
}

/* ---- errors ---- */

TEST(error_classes) {
    static const struct {
        const char *text;
        int code, cls;
    } table[] = {
        {"NOSCRIPT No matching script.", RG_EREDIS, RG_CLASS_RETRY},
        {"MOVED 1 127.0.0.1:1", RG_EREDIS, RG_CLASS_RETRY},
        {"ASK 1 127.0.0.1:1", RG_EREDIS, RG_CLASS_RETRY},
        {"TRYAGAIN x", RG_EREDIS, RG_CLASS_RETRY},
        {"ERR Function not found", RG_EREDIS, RG_CLASS_RETRY},
        {"READONLY You can't write against a read only replica.", RG_EREAD_ONLY,
         RG_CLASS_RECONNECT},
        {"UNBLOCKED force unblock", RG_EUNAVAILABLE, RG_CLASS_RECONNECT},
        {"ERR max number of clients reached", RG_EUNAVAILABLE, RG_CLASS_RECONNECT},
        {"LOADING Redis is loading the dataset in memory", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"MASTERDOWN Link with MASTER is down", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"CLUSTERDOWN Hash slot not served", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"BUSY Redis is busy running a script.", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"UNKILLABLE Sorry", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"OOM command not allowed when used memory > 'maxmemory'.", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"MISCONF Redis is configured to save RDB snapshots", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"NOREPLICAS Not enough good replicas to write.", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"NOAUTH Authentication required.", RG_EACCESS, RG_CLASS_WAIT},
        {"WRONGPASS invalid username-password pair", RG_EACCESS, RG_CLASS_WAIT},
        {"NOPERM this user has no permissions", RG_EACCESS, RG_CLASS_WAIT},
        {"WRONGTYPE Operation against a key", RG_EREDIS, RG_CLASS_PERMANENT},
        {"CROSSSLOT Keys in request don't hash to the same slot", RG_EREDIS, RG_CLASS_PERMANENT},
        {"EXECABORT Transaction discarded", RG_EREDIS, RG_CLASS_PERMANENT},
        {"ERR syntax error", RG_EREDIS, RG_CLASS_PERMANENT},
        {"BUSYGROUP Consumer Group name already exists", RG_EREDIS, RG_CLASS_PERMANENT},
        {"ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation", RG_EREDIS,
         RG_CLASS_PERMANENT},
        {"ERR Error running script (call to f_1): @user_script:12: @user_script: 12: -OOM command",
         RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"OOM command not allowed script: 6a, on @user_script:12.", RG_EUNAVAILABLE, RG_CLASS_WAIT},
        {"ERR invalid password", RG_EACCESS, RG_CLASS_WAIT},
        {"ERR DB index is out of range", RG_ECONFIG, RG_CLASS_PERMANENT},
        {"", RG_EREDIS, RG_CLASS_PERMANENT},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        redisReply r = {.type = REDIS_REPLY_ERROR};
        r.str = (char *)(uintptr_t)table[i].text;
        r.len = (int)strlen(table[i].text);
        rg_err err = {0};
        CHECK_EQ_INT(rg__redis_error(&r, &err), table[i].code);
        if (err.cls != table[i].cls) printf("# %s\n", table[i].text);
        CHECK_EQ_INT(err.cls, table[i].cls);
        CHECK_EQ_INT(err.domain, RG_DOMAIN_REDIS);
    }
}

/* ---- pools ---- */

typedef struct waiting {
    rg__redis_pool *pool;
    int number, *order;
    atomic_int *arrived;
    int64_t deadline_ms;
    int rc;
} waiting;

static void *wait_for_one(void *arg) {
    waiting *w = arg;
    rg__ctx ctx = {.deadline_ms = w->deadline_ms, .metrics = &metrics};
    rg__redis *c = NULL;
    w->rc = rg__redis_acquire(w->pool, &ctx, &c, NULL);
    if (w->rc < 0) return NULL;
    w->order[atomic_fetch_add(w->arrived, 1)] = w->number;
    rg__sleep_ms(5);
    rg__redis_release(c);
    return NULL;
}

static rg__redis_pool *small_pool(const char *path, uint32_t max) {
    const rg_pool_opts o = {.size = sizeof o, .unix_path = path, .max_connections = max};
    return rg__redis_pool_new(&o, NULL);
}

/* Until so many wait. */
static void await_waiters(rg__redis_pool *pool, uint32_t n) {
    rg__pool_figures f = {0};
    for (int i = 0; i < 2000 && f.waiting < n; i++) {
        rg__sleep_ms(1);
        rg__redis_pool_figures(pool, &f);
    }
    CHECK_EQ_INT(f.waiting, n);
}

TEST(waiters_are_served_in_order) {
    rg__redis_pool *pool = small_pool(given_socket(), 1);
    rg__redis *c = get(pool);
    REQUIRE(c);
    enum { N = 6 };
    int order[N];
    atomic_int arrived = 0;
    waiting w[N];
    pthread_t t[N];
    for (int i = 0; i < N; i++) {
        w[i] = (waiting){pool, i, order, &arrived, rg__now_ms() + 15000, 0};
        pthread_create(&t[i], NULL, wait_for_one, &w[i]);
        await_waiters(pool, (uint32_t)i + 1);
    }
    CHECK_EQ_INT(busy_of(pool), 1);
    rg__redis_release(c);
    for (int i = 0; i < N; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < N; i++) CHECK_EQ_INT(order[i], i);
    CHECK_EQ_INT(idle_of(pool), 1);
    rg__redis_pool_free(pool);
}

TEST(a_full_pool_times_out) {
    rg__redis_pool *pool = small_pool(given_socket(), 1);
    rg__redis *c = get(pool), *d = NULL;
    rg__ctx ctx = ctx_ms(60);
    rg_err err = {0};
    int64_t start = rg__now_ms();
    CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &d, &err), RG_ETIMEOUT);
    CHECK(rg__now_ms() - start >= 55 && rg__now_ms() - start < 60 + BUSY_MS);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
}

TEST(a_broken_connection_makes_room_for_who_waits) {
    rg__redis_pool *pool = small_pool(given_socket(), 1);
    rg__redis *c = get(pool);
    REQUIRE(c);
    int order[1];
    atomic_int arrived = 0;
    waiting w = {pool, 0, order, &arrived, rg__now_ms() + 2000, 0};
    pthread_t t;
    pthread_create(&t, NULL, wait_for_one, &w);
    rg__sleep_ms(20);
    shutdown(rg__redis_fd(c), SHUT_RDWR);
    rg__ctx ctx = ctx_ms(1000);
    redisReply *r = NULL;
    rg_err err = {0};
    const char *argv[] = {"PING"};
    CHECK_EQ_INT(rg__redis_command(c, &ctx, &r, &err, 1, argv, NULL), RG_EUNAVAILABLE);
    CHECK_EQ_INT(err.cls, RG_CLASS_RECONNECT);
    rg__redis_release(c);
    pthread_join(t, NULL);
    CHECK_EQ_INT(w.rc, RG_OK);
    rg__redis_pool_free(pool);
}

TEST(last_used_first) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__redis *a = get(pool), *b = get(pool);
    REQUIRE(a && b);
    uint64_t id = rg__redis_connection_id(b);
    rg__redis_release(a);
    rg__redis_release(b);
    rg__redis *c = get(pool);
    CHECK_EQ_INT(rg__redis_connection_id(c), id);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
}

TEST(idle_connections_are_closed) {
    const rg_pool_opts o = {.size = sizeof o, .unix_path = given_socket(), .idle_timeout_ms = 30};
    rg__redis_pool *pool = rg__redis_pool_new(&o, NULL);
    rg__redis *a = get(pool), *b = get(pool);
    uint64_t id = rg__redis_connection_id(a);
    rg__redis_release(a);
    rg__sleep_ms(60);
    rg__redis_release(b);
    CHECK_EQ_INT(idle_of(pool), 1); /* a went when b came back */
    rg__sleep_ms(60);
    rg__redis *c = get(pool);
    CHECK(rg__redis_connection_id(c) > id + 1);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
}

TEST(dedicated_connections_are_not_counted) {
    rg__redis_pool *pool = small_pool(given_socket(), 1);
    rg__redis *c = get(pool), *d = NULL;
    rg__ctx ctx = ctx_ms(1000);
    CHECK_EQ_INT(rg__redis_dedicated(pool, &ctx, &d, NULL), RG_OK);
    CHECK_EQ_INT(busy_of(pool), 1);
    rg__redis_release(d);
    rg__redis_release(c);
    CHECK_EQ_INT(idle_of(pool), 1);
    rg__redis_pool_free(pool);
}

TEST(options_are_checked) {
    rg_err err = {0};
    rg_pool_opts o = {.size = sizeof o};
    CHECK(!rg__redis_pool_new(&o, &err));
    CHECK_EQ_INT(err.code, RG_EINVALID);
    o.host = "localhost";
    o.port = 70000;
    CHECK(!rg__redis_pool_new(&o, &err));
    CHECK_STR(err.field, "port");
    o.port = 0;
    o.tls = 9;
    CHECK(!rg__redis_pool_new(&o, &err));
    CHECK_STR(err.field, "tls");
}

/* ---- servers that are not there ---- */

static uint64_t errors_of(rg__redis_pool *pool) {
    rg__pool_figures f;
    rg__redis_pool_figures(pool, &f);
    return f.errors;
}

TEST(the_breaker_fails_at_once) {
    rg__redis_pool *pool = pool_on("/tmp/rg-spec-no-such-socket");
    rg__ctx ctx = ctx_ms(5000);
    rg__redis *c = NULL;
    rg_err err = {0};
    int64_t start = rg__now_ms();
    CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &c, &err), RG_EUNAVAILABLE);
    CHECK_EQ_INT(err.cls, RG_CLASS_RECONNECT);
    CHECK(strstr(err.message, "default") && strstr(err.message, "no-such-socket"));
    uint64_t before = errors_of(pool);
    for (int i = 0; i < 10000; i++) CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &c, NULL), RG_EUNAVAILABLE);
    /* no wait, and another connect only when the back-off is over */
    CHECK(errors_of(pool) - before <= (uint64_t)(rg__now_ms() - start) / 100);
    rg__redis_pool_free(pool);
}

TEST(comes_back_when_the_server_does) {
    server s = {0};
    if (!server_start(&s)) return;
    rg__redis_pool *pool = pool_on(s.path);
    CHECK_EQ_INT(ASK(pool, "SET", "k", "v"), 2);
    rg__redis *held[3];
    for (int i = 0; i < 3; i++) held[i] = get(pool);
    for (int i = 0; i < 3; i++) rg__redis_release(held[i]);
    server_kill(&s);
    rg__ctx ctx = ctx_ms(2000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    const char *argv[] = {"PING"};
    rg_err err = {0};
    int rc = rg__redis_acquire(pool, &ctx, &c, &err);
    if (rc == RG_OK) rc = rg__redis_command(c, &ctx, &r, &err, 1, argv, NULL);
    CHECK_EQ_INT(rc, RG_EUNAVAILABLE);
    rg__redis_release(c);
    REQUIRE(server_run(&s));
    int64_t back = rg__now_ms();
    do {
        rg__ctx again = ctx_ms(1000);
        rc = rg__redis_acquire(pool, &again, &c, &err);
        rg__sleep_ms(5);
    } while (rc < 0 && rg__now_ms() - back < 2000 + BUSY_MS);
    CHECK_EQ_INT(rc, RG_OK);
    CHECK(rg__now_ms() - back < 2000 + BUSY_MS);
    rc = rg__redis_command(c, &ctx, &r, &err, 1, argv, NULL);
    CHECK_EQ_INT(rc, RG_OK); /* the left-overs of the old server were not handed out */
    freeReplyObject(r);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
    server_remove(&s);
}

/* ---- deadlines ---- */

static int command_on(const char *path, int64_t ms, rg_err *err) {
    rg__redis_pool *pool = pool_on(path);
    rg__ctx ctx = ctx_ms(ms);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    const char *argv[] = {"GET", "x"};
    int rc = rg__redis_acquire(pool, &ctx, &c, err);
    if (rc == RG_OK) rc = rg__redis_command(c, &ctx, &r, err, 2, argv, NULL);
    freeReplyObject(r);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
    return rc;
}

TEST(a_silent_peer_costs_the_deadline) {
    peer p = {0};
    REQUIRE(peer_start(&p));
    rg_err err = {0};
    int64_t start = rg__now_ms();
    CHECK_EQ_INT(command_on(p.path, 100, &err), RG_ETIMEOUT);
    int64_t took = rg__now_ms() - start;
    CHECK(took >= 95 && took < 100 + BUSY_MS);
    peer_stop(&p);
}

TEST(a_slow_server_costs_the_deadline) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__redis *c = get(pool);
    rg__ctx ctx = ctx_ms(80);
    redisReply *r = NULL;
    const char *argv[] = {"BLPOP", "rg-spec:never", "4"};
    int64_t start = rg__now_ms();
    rg_err err = {0};
    CHECK_EQ_INT(rg__redis_command(c, &ctx, &r, &err, 3, argv, NULL), RG_ETIMEOUT);
    CHECK(rg__now_ms() - start < 80 + BUSY_MS);
    rg__redis_release(c);
    CHECK_EQ_INT(idle_of(pool), 0);
    rg__redis_pool_free(pool);
}

TEST(names_are_looked_up_within_the_deadline) {
    const rg_pool_opts o = {
        .size = sizeof o, .host = "no-such-host.invalid", .connect_timeout_ms = 300};
    rg__redis_pool *pool = rg__redis_pool_new(&o, NULL);
    rg__ctx ctx = ctx_ms(5000);
    rg__redis *c = NULL;
    rg_err err = {0};
    int64_t start = rg__now_ms();
    CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &c, &err), RG_EUNAVAILABLE);
    CHECK(rg__now_ms() - start < 300 + BUSY_MS);
    rg__redis_pool_free(pool);
}

static void *shut_later(void *pool) {
    rg__sleep_ms(50);
    rg__redis_pool_shutdown(pool);
    return NULL;
}

TEST(shutdown_wakes_everybody) {
    rg__redis_pool *pool = small_pool(given_socket(), 1);
    rg__redis *c = get(pool);
    int order[1];
    atomic_int arrived = 0;
    waiting w = {pool, 0, order, &arrived, rg__now_ms() + 5000, 0};
    pthread_t t, u;
    pthread_create(&u, NULL, wait_for_one, &w);
    pthread_create(&t, NULL, shut_later, pool);
    rg__ctx ctx = ctx_ms(5000);
    redisReply *r = NULL;
    rg_err err = {0};
    const char *argv[] = {"BLPOP", "rg-spec:never", "4"};
    int64_t start = rg__now_ms();
    CHECK_EQ_INT(rg__redis_command(c, &ctx, &r, &err, 3, argv, NULL), RG_ECLOSED);
    CHECK(rg__now_ms() - start < 50 + BUSY_MS);
    rg__redis_release(c);
    pthread_join(t, NULL);
    pthread_join(u, NULL);
    CHECK_EQ_INT(w.rc, RG_ECLOSED);
    CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &c, &err), RG_ECLOSED);
    rg__redis_pool_free(pool);
}

static atomic_bool stop_now;

static void *stop_later(void *arg) {
    (void)arg;
    rg__sleep_ms(30);
    atomic_store(&stop_now, true);
    return NULL;
}

TEST(a_dedicated_connection_can_be_stopped) {
    peer p = {0};
    REQUIRE(peer_start(&p));
    rg__redis_pool *pool = pool_on(p.path);
    rg__ctx ctx = ctx_ms(5000);
    rg__redis *c = NULL;
    rg_err err = {0};
    pthread_t t;
    atomic_store(&stop_now, false);
    pthread_create(&t, NULL, stop_later, NULL);
    int64_t start = rg__now_ms();
    CHECK_EQ_INT(rg__redis_dedicated_until(pool, &ctx, &stop_now, &c, &err), RG_ECANCELLED);
    CHECK(rg__now_ms() - start < 30 + BUSY_MS);
    pthread_join(t, NULL);
    rg__redis_pool_free(pool);
    peer_stop(&p);
}

/* ---- hostile and broken answers ---- */

#define HELLO "+OK\r\n"

/* The first answer is CLIENT SETNAME's; what follows is the command's, early. */
static int answer_with(const char *say, size_t len, size_t piece, bool hang_up) {
    peer p = {.say = say, .len = len, .piece = piece, .hang_up = hang_up};
    if (!peer_start(&p)) return 1;
    rg_err err = {0};
    int rc = command_on(p.path, BUSY_MS, &err);
    peer_stop(&p);
    return rc;
}
#define ANSWER(text) answer_with(HELLO text, sizeof(HELLO text) - 1, 0, false)

TEST(answers_that_make_no_sense) {
    CHECK_EQ_INT(ANSWER("$3\r\nabc\r\n"), RG_OK);
    CHECK_EQ_INT(ANSWER("hello\r\n"), RG_ECORRUPT);
    CHECK_EQ_INT(ANSWER("$-5\r\n"), RG_ECORRUPT);
    CHECK_EQ_INT(ANSWER("$99999999999999999999\r\n"), RG_ECORRUPT);
    CHECK_EQ_INT(ANSWER("*2147483647\r\n"), RG_ECORRUPT);
    CHECK_EQ_INT(ANSWER("*-7\r\n"), RG_ECORRUPT);
    CHECK_EQ_INT(ANSWER(":12x\r\n"), RG_ECORRUPT);
    CHECK_EQ_INT(ANSWER("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"),
                 RG_ECORRUPT);
    CHECK_EQ_INT(ANSWER("$1000000000\r\nabc"), RG_ETIMEOUT);
    CHECK_EQ_INT(ANSWER("-LOADING Redis is loading\r\n"), RG_EUNAVAILABLE);
}

/* A connection that answered more than was asked is not used again. */
TEST(surplus_answers_close_the_connection) {
    static const char say[] = HELLO "$1\r\na\r\n$1\r\nb\r\n";
    peer p = {.say = say, .len = sizeof say - 1};
    REQUIRE(peer_start(&p));
    rg__redis_pool *pool = pool_on(p.path);
    CHECK_EQ_INT(ASK(pool, "GET", "x"), 1);
    rg__sleep_ms(10);
    CHECK_EQ_INT(idle_of(pool), 0);
    rg__redis_pool_free(pool);
    peer_stop(&p);
}

TEST(answers_in_pieces) {
    static const char say[] = HELLO "*3\r\n$3\r\nabc\r\n:1\r\n*2\r\n+x\r\n$-1\r\n";
    for (size_t piece = 1; piece < sizeof say; piece++)
        CHECK_EQ_INT(answer_with(say, sizeof say - 1, piece, false), RG_OK);
}

TEST(answers_cut_at_every_byte) {
    static const char say[] = HELLO "*3\r\n$3\r\nabc\r\n:1\r\n*2\r\n+x\r\n$-1\r\n";
    for (size_t n = 0; n + 1 < sizeof say; n++)
        CHECK_EQ_INT(answer_with(say, n, 0, true), RG_EUNAVAILABLE);
}

/* ---- scripts ---- */

TEST(scripts_are_loaded_when_they_are_missing) {
    static const char *const parts[] = {"local a = KEYS[1] ", "return {a, ARGV[1], #ARGV}", NULL};
    static rg__script script = {.name = "spec", .parts = parts};
    rg__redis_pool *pool = pool_on(given_socket());
    for (int round = 0; round < 2; round++) {
        ASK(pool, "SCRIPT", "FLUSH");
        for (int i = 0; i < 2; i++) {
            rg__ctx ctx = ctx_ms(1000);
            rg__redis *c = get(pool);
            redisReply *r = NULL;
            const char *argv[] = {"the-key", "x", "y"};
            CHECK_EQ_INT(rg__script_call(c, &ctx, &script, 1, 3, argv, NULL, &r, NULL), RG_OK);
            CHECK(r && r->elements == 3 && strcmp(r->element[0]->str, "the-key") == 0);
            CHECK(r && r->element[2]->integer == 2);
            freeReplyObject(r);
            rg__redis_release(c);
        }
    }
    rg__redis_pool_free(pool);
}

TEST(a_script_that_fails_says_which) {
    static const char *const parts[] = {"return redis.call('LPUSH', KEYS[1])", NULL};
    static rg__script script = {.name = "faulty", .parts = parts};
    rg__redis_pool *pool = pool_on(given_socket());
    rg__ctx ctx = ctx_ms(1000);
    rg__redis *c = get(pool);
    redisReply *r = NULL;
    rg_err err = {0};
    const char *argv[] = {"k"};
    CHECK_EQ_INT(rg__script_call(c, &ctx, &script, 1, 1, argv, NULL, &r, &err), RG_EREDIS);
    CHECK(strstr(err.message, "faulty") != NULL);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
}

/* ---- access ---- */

static rg__redis_pool *pool_as(const char *path, const char *user, const char *password,
                               uint32_t db) {
    const rg_pool_opts o = {.size = sizeof o, .unix_path = path, .user = user,
                            .password = password, .db = db, .name = "p"};
    return rg__redis_pool_new(&o, NULL);
}

static int connect_as(const char *path, const char *user, const char *password, uint32_t db,
                      rg_err *err) {
    rg__redis_pool *pool = pool_as(path, user, password, db);
    rg__ctx ctx = ctx_ms(1000);
    rg__redis *c = NULL;
    *err = (rg_err){0};
    int rc = rg__redis_acquire(pool, &ctx, &c, err);
    rg__redis_release(c);
    rg__redis_pool_free(pool);
    return rc;
}

TEST(passwords_users_and_databases) {
    server s = {.args = {"--requirepass", "canary-secret", "--databases", "4"}};
    if (!server_start(&s)) return;
    rg_err err;
    CHECK_EQ_INT(connect_as(s.path, NULL, "canary-secret", 3, &err), RG_OK);
    CHECK_EQ_INT(connect_as(s.path, "default", "canary-secret", 0, &err), RG_OK);
    CHECK_EQ_INT(connect_as(s.path, NULL, "canary-wrong", 0, &err), RG_EACCESS);
    CHECK(!strstr(err.message, "canary"));
    CHECK_EQ_INT(connect_as(s.path, NULL, NULL, 0, &err), RG_EACCESS);
    CHECK_EQ_INT(connect_as(s.path, NULL, "canary-secret", 4, &err), RG_ECONFIG);
    rg__redis_pool *pool = pool_as(s.path, NULL, "canary-secret", 0);
    CHECK_EQ_INT(ASK(pool, "ACL", "SETUSER", "app", "on", ">canary-app", "~app:*", "+get"), 2);
    rg__redis_pool_free(pool);
    CHECK_EQ_INT(connect_as(s.path, "app", "canary-app", 0, &err), RG_OK); /* SETNAME is refused */
    CHECK_EQ_INT(connect_as(s.path, "app", "canary-other", 0, &err), RG_EACCESS);
    pool = pool_as(s.path, "app", "canary-app", 0);
    CHECK_EQ_INT(ASK(pool, "GET", "other:1"), RG_EACCESS);
    CHECK_EQ_INT(ASK(pool, "GET", "app:1"), -1);
    rg__redis_pool_free(pool);
    server_remove(&s);
}

TEST(too_many_clients) {
    server s = {.args = {"--maxclients", "2"}};
    if (!server_start(&s)) return;
    rg__redis_pool *pool = pool_on(s.path);
    rg__redis *a = get(pool), *b = get(pool), *c = NULL;
    REQUIRE(a && b);
    rg__ctx ctx = ctx_ms(150);
    rg_err err = {0};
    CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &c, &err), RG_EUNAVAILABLE);
    int64_t start = rg__now_ms();
    ctx = ctx_ms(80); /* the others' connections are waited for while none can be made */
    CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &c, &err), RG_ETIMEOUT);
    CHECK(rg__now_ms() - start >= 75);
    rg__redis_release(a);
    CHECK_EQ_INT(rg__redis_acquire(pool, &ctx, &c, &err), RG_OK);
    rg__redis_release(c);
    rg__redis_release(b);
    rg__redis_pool_free(pool);
    server_remove(&s);
}

/* ---- the query log ---- */

TEST(the_log_shows_commands_and_hides_values) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__trace trace = {.mask = RG__SOURCE_REDIS};
    rg__ctx ctx = ctx_ms(1000);
    ctx.trace = &trace;
    rg__redis *c = get(pool);
    redisReply *r = NULL;
    const char *set[] = {"SET", "rg-spec:k", "the-value"},
               *many[] = {"MGET", "rg-spec:k", "k\x01secret"};
    for (int i = 0; i < 2; i++) {
        rg__redis_command(c, &ctx, &r, NULL, 3, set, NULL);
        freeReplyObject(r);
        trace.values = true;
    }
    rg__redis_command(c, &ctx, &r, NULL, 3, many, NULL);
    freeReplyObject(r);
    rg__redis_release(c);
    REQUIRE(trace.n == 3);
    CHECK_STR(trace.events[0].op, "SET");
    CHECK_STR(trace.events[0].text, "SET rg-spec:k ?");
    CHECK_STR(trace.events[1].text, "SET rg-spec:k the-value");
    CHECK_STR(trace.events[2].text, "MGET rg-spec:k k?");
    CHECK_STR(trace.events[0].pool, "default");
    rg__trace_deinit(&trace);
    ASK(pool, "DEL", "rg-spec:k");
    rg__redis_pool_free(pool);
}

/* ---- forks ---- */

TEST(a_child_makes_its_own_connections) {
    rg__redis_pool *pool = pool_on(given_socket());
    rg__redis *idle = get(pool), *held = get(pool);
    uint64_t id = rg__redis_connection_id(idle);
    rg__redis_release(idle);
    pid_t child = fork();
    if (child == 0) {
        rg__redis *c = get(pool);
        bool fresh = c && rg__redis_connection_id(c) > id + 1;
        rg__redis_release(c);
        rg__redis_release(held);
        bool right = busy_of(pool) == 0 && idle_of(pool) == 1 && ASK(pool, "PING") == 4;
        rg__redis_pool_free(pool);
        _exit(fresh && right ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK_EQ_INT(status, 0);
    rg__ctx ctx = ctx_ms(1000);
    redisReply *r = NULL;
    const char *argv[] = {"PING"};
    CHECK_EQ_INT(rg__redis_command(held, &ctx, &r, NULL, 1, argv, NULL), RG_OK);
    freeReplyObject(r);
    rg__redis_release(held);
    CHECK_EQ_INT(idle_of(pool), 2);
    CHECK_EQ_INT(ASK(pool, "PING"), 4);
    rg__redis_pool_free(pool);
}

/* ---- TCP and TLS ---- */

static int free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int port = bind(fd, (struct sockaddr *)&a, len) == 0 &&
                       getsockname(fd, (struct sockaddr *)&a, &len) == 0
                   ? ntohs(a.sin_port)
                   : 0;
    close(fd);
    return port;
}

static bool make_certificates(const char *dir) {
    char command[1200];
    snprintf(
        command, sizeof command,
        "cd '%s' && exec >/dev/null 2>&1 && "
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj "
        "/CN=spec-ca && "
        "openssl req -newkey rsa:2048 -nodes -keyout key.pem -out req.pem -subj /CN=localhost && "
        "printf 'subjectAltName=DNS:localhost' > ext && "
        "openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 "
        "-extfile ext -out cert.pem",
        dir);
    return system(command) == 0;
}

static int connect_tls(const char *host, int port, int mode, const char *ca, rg_err *err) {
    const rg_pool_opts o = {.size = sizeof o, .host = host, .port = (uint32_t)port, .tls = mode,
                            .tls_ca = ca, .connect_timeout_ms = 10 * BUSY_MS};
    rg__redis_pool *pool = rg__redis_pool_new(&o, NULL);
    rg__ctx ctx = ctx_ms(20 * BUSY_MS);
    rg__redis *c = NULL;
    *err = (rg_err){0};
    int rc = rg__redis_acquire(pool, &ctx, &c, err);
    rg__redis_release(c);
    if (rc == RG_OK) {
        CHECK_EQ_INT(ASK(pool, "SET", "k", "v"), 2);
        CHECK_EQ_INT(ASK(pool, "GET", "k"), 1);
        rg__sleep_ms(1100); /* idle long enough to be probed */
        CHECK_EQ_INT(ASK(pool, "GET", "k"), 1);
        CHECK_EQ_INT(idle_of(pool), 1);
    }
    rg__redis_pool_free(pool);
    return rc;
}

TEST(tcp_by_name_and_address) {
    char port[8];
    snprintf(port, sizeof port, "%d", free_port());
    server s = {.args = {"--port", port, "--bind", "127.0.0.1"}};
    if (!server_start(&s)) return;
    rg_err err;
    CHECK_EQ_INT(connect_tls("127.0.0.1", atoi(port), RG_TLS_OFF, NULL, &err), RG_OK);
    CHECK_EQ_INT(connect_tls("localhost", atoi(port), RG_TLS_OFF, NULL, &err), RG_OK);
    /* a server without TLS is refused by both modes */
    CHECK(connect_tls("127.0.0.1", atoi(port), RG_TLS_ENCRYPT, NULL, &err) < 0);
    CHECK(connect_tls("127.0.0.1", atoi(port), RG_TLS_VERIFY, NULL, &err) < 0);
    server_remove(&s);
}

TEST(tls_verifies_certificate_and_name) {
    char port[8], ca[96];
    snprintf(port, sizeof port, "%d", free_port());
    server s = {0};
    snprintf(s.dir, sizeof s.dir, "/tmp/rg-spec-XXXXXX");
    REQUIRE(mkdtemp(s.dir));
    if (!make_certificates(s.dir)) return server_remove(&s);
    snprintf(s.path, sizeof s.path, "%s/redis.sock", s.dir);
    snprintf(ca, sizeof ca, "%s/ca.pem", s.dir);
    char *args[] = {"--tls-port", port, "--bind", "127.0.0.1", "--tls-cert-file", "cert.pem",
                    "--tls-key-file", "key.pem", "--tls-ca-cert-file", "ca.pem",
                    "--tls-auth-clients", "no", NULL};
    memcpy(s.args, args, sizeof args);
    if (!server_run(&s)) {
        printf("# this redis-server has no TLS\n");
        return server_remove(&s);
    }
    rg_err err;
    CHECK_EQ_INT(connect_tls("localhost", atoi(port), RG_TLS_VERIFY, ca, &err), RG_OK);
    CHECK_EQ_INT(connect_tls("localhost", atoi(port), RG_TLS_ENCRYPT, NULL, &err), RG_OK);
    CHECK_EQ_INT(connect_tls("127.0.0.1", atoi(port), RG_TLS_VERIFY, ca, &err), RG_EACCESS);
    CHECK(strstr(err.message, "certificate") != NULL);
    CHECK_EQ_INT(connect_tls("localhost", atoi(port), RG_TLS_VERIFY, NULL, &err), RG_EACCESS);
    CHECK_EQ_INT(connect_tls("localhost", atoi(port), RG_TLS_VERIFY, "/no/such/ca.pem", &err),
                 RG_ECONFIG);
    server_remove(&s);
}

/* ---- memory ---- */

TEST(lives_without_memory) {
    for (long n = 1; n < 60; n++) {
        rg__alloc_fail_at(n, 0);
        const rg_pool_opts o = {.size = sizeof o, .unix_path = given_socket()};
        rg__redis_pool *pool = rg__redis_pool_new(&o, NULL);
        rg__ctx ctx = ctx_ms(1000);
        rg__redis *c = NULL;
        redisReply *r = NULL;
        rg_err err = {0};
        const char *argv[] = {"PING"};
        int rc = pool ? rg__redis_acquire(pool, &ctx, &c, &err) : RG_ENO_MEMORY;
        if (rc == RG_OK) rc = rg__redis_command(c, &ctx, &r, &err, 1, argv, NULL);
        rg__alloc_fail_at(0, 0);
        CHECK(rc == RG_OK || rc == RG_ENO_MEMORY);
        freeReplyObject(r);
        rg__redis_release(c);
        if (pool) rg__redis_pool_free(pool);
    }
}

REDIS_MAIN
