/* SPDX-License-Identifier: MIT */
/* A link: what it answers by itself, and that everything else ends as if there were none. The servers come by
 * REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB and REGOLITH_REDIS_SOCKET; without them only what needs none is tested. */
#include "redis_support.h"

#include <poll.h>
#include <regolith/regolith.h>

#include "run/engine.h"

enum { ROWS = 30, CACHED = 20, WAIT_MS = 20000 };

static char prefix[32];
static rg_engine *engine;

/* A connection to Redis, and who waits for completions. */
typedef struct carrier {
    rg_link *link;
    rg_notifier *n;
    int fd;
    bool seen[64]; /* tags that came */
} carrier;

/* ---- engines ---- */

static rg_type *item_type(const char *name, int process) {
    rg_type_opts o = {.size = sizeof o, .name = name, .table = "link_item", .ids = RG_IDS_APPLICATION,
                      .cache_redis = 1, .cache_process = process};
    rg_type *t = rg_type_new(&o, NULL);
    rg_column_opts n = {.size = sizeof n, .name = "n", .kind = RG_U32};
    rg_type_column(t, &n, NULL);
    return t;
}

static rg_engine *open_engine(const rg_pool_opts *redis, int process) {
    rg_engine_opts opts = {.size = sizeof opts, .workers = 2, .prefix = prefix};
    rg_err err = {0};
    const char *socket_path = getenv("REGOLITH_MYSQL_SOCKET");
    const rg_pool_opts mysql = {.size = sizeof mysql, .unix_path = socket_path ? socket_path : "/nowhere",
                                .user = "root", .database = getenv("REGOLITH_MYSQL_DB")};
    rg_config *c = rg_config_new(&opts, &err);
    rg_config_mysql(c, &mysql, &err);
    rg_config_redis(c, redis, &err);
    rg_config_type(c, item_type("item", process), &err);
    rg_engine *e = rg_engine_new(c, &err);
    if (!e) printf("# %s\n", err.message);
    return e;
}

static rg_engine *engine_here(int process) {
    const rg_pool_opts redis = {.size = sizeof redis, .unix_path = given_socket()};
    return open_engine(&redis, process);
}

static void run_sql(const char *sql) {
    rg_op *op = rg_op_schema_apply(engine, "default", sql, strlen(sql), NULL);
    int rc = op ? rg_op_run(op, 0) : -1;
    if (rc < 0 && op) printf("# %s: %s\n", sql, rg_op_error(op)->message);
    CHECK(rc >= 0);
    rg_op_free(op);
}

static rg_op *get(double first, int n) {
    rg_op *op = rg_op_get(engine, 0, RG_OP_GET_CACHED, NULL);
    for (int i = 0; i < n; i++) CHECK(rg_op_add_id(op, first + i, NULL) >= 0);
    return op;
}

/* The ordinary way, here: the epoch is known afterwards, and the rows are in Redis. */
static void read_here(double first, int n) {
    rg_op *op = get(first, n);
    CHECK_EQ_INT(rg_op_run(op, 0), 0);
    rg_op_free(op);
}

/* n of row i; -1: there is none. */
static long long n_of(rg_op *op, uint32_t i) {
    rg_view v;
    rg_column_info info;
    uint32_t n = 0;
    rg_session *s = rg_session_new(engine, NULL);
    int rc = rg_op_row(op, i, s, &v);
    rg_type_column_info(rg_engine_type(engine, 0), 1, &info);
    if (rc == RG_GET_HIT) memcpy(&n, (const char *)v.data + info.offset, sizeof n);
    rg_session_free(s);
    return rc == RG_GET_HIT ? (long long)n : -1;
}

static void poke(const char *key, const char *value) {
    const rg_pool_opts o = {.size = sizeof o, .unix_path = given_socket()};
    rg__redis_pool *p = rg__redis_pool_new(&o, NULL);
    char name[80];
    snprintf(name, sizeof name, "{%s}:e:link_item:%s", prefix, key);
    CHECK(ASK(p, "SET", name, value) >= 0);
    rg__redis_pool_free(p);
}

/* ---- carrying ---- */

static int dial(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

static void send_all(carrier *c) {
    size_t len = 0;
    for (const char *p = rg_link_out(c->link, &len); p; p = rg_link_out(c->link, &len))
        CHECK(write(c->fd, p, len) == (ssize_t)len);
}

static void drain(carrier *c) {
    uint32_t tags[16];
    for (int n = rg_notifier_drain(c->n, tags, 16); n > 0; n = rg_notifier_drain(c->n, tags, 16))
        for (int i = 0; i < n; i++) {
            CHECK(!c->seen[tags[i]]); /* once */
            c->seen[tags[i]] = true;
        }
}

/* What came, in pieces of so many bytes. */
static int receive(carrier *c, size_t piece) {
    char bytes[65536];
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    CHECK_EQ_INT(poll(&p, 1, WAIT_MS), 1);
    ssize_t n = read(c->fd, bytes, sizeof bytes);
    int rc = n > 0 ? 0 : -1;
    for (size_t at = 0; rc >= 0 && at < (size_t)n; at += piece)
        rc = rg_link_in(c->link, bytes + at, (size_t)n - at < piece ? (size_t)n - at : piece);
    drain(c);
    return rc;
}

static bool open_link(carrier *c) {
    rg_err err = {0};
    CHECK_EQ_INT(rg_link_begin(c->link, &err), 0);
    c->fd = dial(given_socket());
    send_all(c);
    int rc = 0;
    while (rc == 0) rc = receive(c, 65536);
    return rc == 1;
}

static bool carrier_start(carrier *c) {
    rg_err err = {0};
    *c = (carrier){.fd = -1};
    c->n = rg_notifier_new(engine, 0, &err);
    c->link = c->n ? rg_link_new(engine, c->n, 0, &err) : NULL;
    if (!c->link) return false;
    read_here(1, CACHED);
    return open_link(c);
}

static void carrier_end(carrier *c) {
    CHECK_EQ_INT(rg_notifier_in_flight(c->n), 0);
    rg_link_free(c->link);
    rg_notifier_free(c->n);
    if (c->fd >= 0) close(c->fd);
}

/* Submits what it is to take: on a busy machine the epoch may have to be asked for again. Its patience. */
static int take(carrier *c, rg_op *op, uint32_t tag, uint32_t timeout_ms) {
    int ms = rg_link_submit(c->link, op, tag, timeout_ms, NULL);
    for (int i = 0; i < 50 && ms == 0; i++) {
        read_here(1, 1);
        ms = rg_link_submit(c->link, op, tag, timeout_ms, NULL);
    }
    CHECK(ms > 0);
    return ms;
}

/* Until the workers have told of it. */
static void await_tag(carrier *c, uint32_t tag) {
    for (int i = 0; i < WAIT_MS / 10 && !c->seen[tag]; i++) {
        struct pollfd p = {.fd = rg_notifier_fd(c->n), .events = POLLIN};
        poll(&p, 1, 10);
        drain(c);
    }
    CHECK(c->seen[tag]);
}

static bool ready(void) {
    if (!given_socket() || !getenv("REGOLITH_MYSQL_SOCKET") || !getenv("REGOLITH_MYSQL_DB")) return false;
    if (engine) return true;
    snprintf(prefix, sizeof prefix, "link%d", (int)getpid());
    engine = engine_here(0);
    if (!engine) return false;
    run_sql("CREATE TABLE IF NOT EXISTS link_item (id BIGINT UNSIGNED PRIMARY KEY, n INT UNSIGNED NOT NULL)");
    run_sql("DELETE FROM link_item");
    for (int i = 1; i <= ROWS; i++) {
        char sql[80];
        snprintf(sql, sizeof sql, "INSERT INTO link_item VALUES (%d, %d)", i, i * 10);
        run_sql(sql);
    }
    read_here(1, CACHED);
    return true;
}

static double counter(const char *name) { return rg_engine_counter(engine, name); }

/* ---- what it answers ---- */

TEST(hits_of_a_turn_are_one_question_and_need_no_worker) {
    carrier c;
    if (!ready()) return;
    REQUIRE(carrier_start(&c));
    rg_op *ops[3] = {get(1, 1), get(2, 3), get(7, 1)};
    double asked = counter("regolith_redis_commands_total"), hits = counter("regolith_redis_cache_hits_total");
    for (uint32_t i = 0; i < 3; i++) take(&c, ops[i], i, 0);
    CHECK_EQ_INT(rg_notifier_in_flight(c.n), 3);
    send_all(&c);
    int rc = 0;
    while (rc == 0) rc = receive(&c, 65536);
    CHECK_EQ_INT(rc, 1);
    CHECK(c.seen[0] && c.seen[1] && c.seen[2]); /* at once */
    CHECK_EQ_INT(n_of(ops[0], 0), 10);
    for (uint32_t i = 0; i < 3; i++) CHECK_EQ_INT(n_of(ops[1], i), 20 + 10 * (int)i);
    CHECK_EQ_INT(n_of(ops[2], 0), 70);
    CHECK_EQ_INT((int)(counter("regolith_redis_commands_total") - asked), 1);
    CHECK_EQ_INT((int)(counter("regolith_redis_cache_hits_total") - hits), 5);
    for (int i = 0; i < 3; i++) rg_op_free(ops[i]);
    carrier_end(&c);
}

TEST(an_answer_may_come_byte_by_byte) {
    carrier c;
    if (!ready()) return;
    REQUIRE(carrier_start(&c));
    rg_op *op = get(1, CACHED);
    take(&c, op, 1, 0);
    send_all(&c);
    for (int rc = 0; rc == 0;) rc = receive(&c, 1);
    CHECK(c.seen[1]);
    for (uint32_t i = 0; i < CACHED; i++) CHECK_EQ_INT(n_of(op, i), 10 * ((int)i + 1));
    rg_op_free(op);
    carrier_end(&c);
}

/* One operation, whose answer a worker has to give. */
static void check_passed_on(const char *what, double id, long long wanted) {
    carrier c;
    REQUIRE(carrier_start(&c));
    rg_op *op = get(id, 1), *hit = get(3, 1);
    take(&c, op, 1, 0);
    take(&c, hit, 2, 0);
    send_all(&c);
    for (int rc = 0; rc == 0;) rc = receive(&c, 65536);
    CHECK(c.seen[2]); /* its neighbour is not kept */
    await_tag(&c, 1);
    CHECK_EQ_INT(rg_op_code(op), 0);
    if (n_of(op, 0) != wanted) printf("# %s\n", what);
    CHECK_EQ_INT(n_of(op, 0), wanted);
    CHECK_EQ_INT(n_of(hit, 0), 30);
    rg_op_free(op);
    rg_op_free(hit);
    carrier_end(&c);
}

TEST(what_is_no_clean_hit_goes_on_to_a_worker) {
    if (!ready()) return;
    check_passed_on("not there", 25, 250);
    check_passed_on("there by now", 25, 250);
    poke("5", "garbage");
    check_passed_on("garbage", 5, 50);
    poke("6", "V12345678 of another epoch");
    check_passed_on("another epoch", 6, 60);
    poke("8", "T12345678");
    check_passed_on("told", 8, 80);
    poke("9", "");
    check_passed_on("empty", 9, 90);
}

TEST(absence_that_is_known_is_an_answer) {
    carrier c;
    if (!ready()) return;
    read_here(1000, 1);
    REQUIRE(carrier_start(&c));
    rg_op *op = get(1000, 1);
    take(&c, op, 1, 0);
    send_all(&c);
    for (int rc = 0; rc == 0;) rc = receive(&c, 65536);
    CHECK(c.seen[1]);
    CHECK_EQ_INT(n_of(op, 0), -1);
    rg_op_free(op);
    carrier_end(&c);
}

/* ---- what it does not take ---- */

TEST(it_takes_nothing_that_an_ordinary_read_has_to_go_before) {
    carrier c;
    if (!ready()) return;
    REQUIRE(carrier_start(&c));
    rg__sleep_ms(1100); /* whose data it is has to be asked again */
    rg_op *op = get(1, 1);
    CHECK_EQ_INT(rg_link_submit(c.link, op, 1, 0, NULL), 0);
    CHECK_EQ_INT(rg_op_phase_of(op), RG_OP_NEW);
    read_here(1, 1);
    take(&c, op, 1, 0);
    rg_op *other = get(2, 1);
    rg_engine_set_log(engine, 2, 0); /* the log is the workers' */
    CHECK_EQ_INT(rg_link_submit(c.link, other, 2, 0, NULL), 0);
    rg_engine_set_log(engine, 0, 0);
    rg_op *strict = rg_op_get(engine, 0, RG_OP_GET_STRICT, NULL);
    rg_op_add_id(strict, 1, NULL);
    CHECK_EQ_INT(rg_op_link(strict), -1);
    CHECK_EQ_INT(rg_op_link(other), 0);
    rg_op *many = get(1, 65);
    CHECK_EQ_INT(rg_op_link(many), -1);
    rg_link_lost(c.link);
    await_tag(&c, 1);
    CHECK_EQ_INT(rg_link_submit(c.link, other, 2, 0, NULL), 0);
    rg_op_free(op);
    rg_op_free(other);
    rg_op_free(strict);
    rg_op_free(many);
    carrier_end(&c);
}

TEST(it_needs_a_place_that_a_plain_socket_reaches) {
    rg_err err = {0};
    uint32_t port = 0;
    const rg_pool_opts refused[] = {{.size = sizeof refused[0], .host = "localhost"},
                                    {.size = sizeof refused[0], .host = "127.0.0.1", .tls = RG_TLS_VERIFY},
                                    {.size = sizeof refused[0], .unix_path = "relative.sock"}};
    snprintf(prefix, sizeof prefix, "link%d", (int)getpid());
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        rg_engine *e = open_engine(&refused[i], 0);
        rg_notifier *n = rg_notifier_new(e, 0, &err);
        CHECK(rg_link_new(e, n, 0, &err) == NULL);
        CHECK_EQ_INT(err.code, RG_ECONFIG);
        CHECK(rg_link_new(e, n, 7, &err) == NULL);
        rg_notifier_free(n);
        rg_engine_unref(e);
    }
    const rg_pool_opts fine = {.size = sizeof fine, .host = "127.0.0.1", .port = 7000};
    rg_engine *e = open_engine(&fine, 0);
    rg_notifier *n = rg_notifier_new(e, 0, &err);
    rg_link *l = rg_link_new(e, n, 0, &err);
    REQUIRE(l);
    CHECK_STR(rg_link_place(l, &port), "127.0.0.1");
    CHECK_EQ_INT(port, 7000);
    CHECK_EQ_INT(rg_link_worthwhile(l), 0); /* nobody has asked it anything */
    rg_link_free(l);
    rg_notifier_free(n);
    rg_engine_unref(e);
}

/* ---- ends ---- */

/* Asked, with another one that waits; then says `answer`, or the end. */
static void check_end(const char *answer) {
    carrier c;
    REQUIRE(carrier_start(&c));
    rg_op *asked = get(1, 2), *waits = get(3, 1);
    take(&c, asked, 1, 0);
    size_t len = 0;
    CHECK(rg_link_out(c.link, &len) != NULL); /* and is not sent */
    take(&c, waits, 2, 0);
    CHECK(rg_link_out(c.link, &len) == NULL);
    CHECK(len > 0); /* an answer is to come */
    if (answer) CHECK(rg_link_in(c.link, answer, strlen(answer)) < 0);
    rg_link_lost(c.link);
    await_tag(&c, 1);
    await_tag(&c, 2);
    CHECK_EQ_INT(n_of(asked, 0), 10);
    CHECK_EQ_INT(n_of(asked, 1), 20);
    CHECK_EQ_INT(n_of(waits, 0), 30);
    rg_op_free(asked);
    rg_op_free(waits);
    close(c.fd);
    read_here(1, 1);
    CHECK(open_link(&c)); /* again */
    carrier_end(&c);
}

TEST(what_it_has_when_it_is_lost_goes_on_to_a_worker) {
    if (!ready()) return;
    check_end(NULL);
    check_end("-LOADING Redis is loading the dataset in memory\r\n");
    check_end("*1\r\n$-1\r\n");
    check_end("*2\r\n:1\r\n:2\r\n");
    check_end("*2\r\n$-1\r\n$-1\r\n+and this\r\n");
    check_end("$3\r\nabc\r\n");
    check_end("nonsense\r\n");
}

TEST(who_waits_in_vain_leaves_and_the_late_answer_harms_nobody) {
    carrier c;
    if (!ready()) return;
    REQUIRE(carrier_start(&c));
    rg_op *op = get(1, 1), *in_a_hurry = get(2, 1), *next = get(4, 1);
    CHECK_EQ_INT(take(&c, op, 1, 0), 250);
    CHECK(take(&c, in_a_hurry, 2, 20) <= 20);
    int64_t began_ms = rg__now_ms();
    send_all(&c);
    rg_link_leave(c.link, in_a_hurry); /* its own deadline says nothing about Redis */
    bool late = rg_link_late(c.link) > 0;
    CHECK(!late || rg__now_ms() - began_ms >= 125);
    await_tag(&c, 2);
    rg__sleep_ms(130);
    rg_link_leave(c.link, op);
    int64_t left_ms = rg__now_ms();
    CHECK(rg_link_late(c.link) >= 130);
    int taken = rg_link_submit(c.link, next, 3, 0, NULL); /* past Redis, for 100 ms */
    CHECK(taken == 0 || rg__now_ms() - left_ms >= 100);
    await_tag(&c, 1);
    CHECK_EQ_INT(n_of(op, 0), 10);
    for (int rc = 0; rc == 0;) rc = receive(&c, 65536);
    CHECK_EQ_INT(rg_link_late(c.link), 0);
    rg__sleep_ms(110);
    read_here(1, 1); /* Redis answers: reads no more go past it */
    if (taken == 0) take(&c, next, 3, 0);
    rg_link_leave(c.link, op); /* long gone */
    send_all(&c);
    for (int rc = 0; rc == 0;) rc = receive(&c, 65536);
    CHECK(c.seen[3]);
    CHECK_EQ_INT(n_of(next, 0), 40);
    rg_op_free(op);
    rg_op_free(in_a_hurry);
    rg_op_free(next);
    carrier_end(&c);
}

TEST(operations_that_are_gone_leave_nothing) {
    carrier c;
    if (!ready()) return;
    REQUIRE(carrier_start(&c));
    rg_op *asked = get(1, 1), *stays = get(2, 1), *waits = get(3, 1);
    take(&c, asked, 1, 0);
    take(&c, stays, 2, 0);
    send_all(&c);
    take(&c, waits, 3, 0);
    rg_op_free(asked);
    rg_op_free(waits);
    for (int rc = 0; rc == 0;) rc = receive(&c, 65536);
    CHECK(c.seen[2] && !c.seen[1]);
    send_all(&c);
    for (int rc = 0; rc == 0;) rc = receive(&c, 65536);
    CHECK(!c.seen[3]);
    rg_op_free(stays);
    rg_op *never = get(4, 1);
    size_t len = 1;
    take(&c, never, 4, 0);
    rg_link_leave(c.link, never);
    CHECK(rg_link_out(c.link, &len) == NULL); /* nothing to ask, and nothing to come */
    CHECK_EQ_INT(len, 0);
    await_tag(&c, 4);
    rg_op_free(never);
    carrier_end(&c);
}

TEST(a_link_that_is_freed_passes_on_what_it_has) {
    carrier c;
    if (!ready()) return;
    REQUIRE(carrier_start(&c));
    rg_op *op = get(1, 1), *gone = get(2, 1);
    take(&c, op, 1, 0);
    take(&c, gone, 2, 0);
    rg_op_free(gone);
    rg_link_free(c.link);
    c.link = NULL;
    await_tag(&c, 1);
    CHECK_EQ_INT(n_of(op, 0), 10);
    rg_op_free(op);
    carrier_end(&c);
}

/* What Redis says is kept in the process, unless it was replaced since the question. */
TEST(the_process_cache_takes_what_was_not_replaced_meanwhile) {
    carrier c;
    if (!ready()) return;
    rg_engine *plain = engine;
    engine = engine_here(1);
    REQUIRE(engine);
    for (int i = 0; i < WAIT_MS / 10 && !rg_engine_coherent(engine); i++) {
        read_here(1, 1);
        rg__sleep_ms(10);
    }
    REQUIRE(carrier_start(&c));
    rg_session *s = rg_session_new(engine, NULL);
    rg_view v;
    rg__process *p = engine->store.process;
    const rg_type *t = rg_engine_type(engine, 0);
    rg_op *kept = get(2, 1), *replaced = get(3, 1);
    rg__process_drop(p, t->space, 2);
    rg__process_drop(p, t->space, 3);
    take(&c, kept, 1, 0);
    take(&c, replaced, 2, 0);
    send_all(&c);
    rg__process_drop(p, t->space, 3);
    for (int rc = 0; rc == 0;) rc = receive(&c, 65536);
    CHECK(c.seen[1] && c.seen[2]);
    CHECK_EQ_INT(rg_session_peek(s, 0, 2, &v), RG_GET_HIT);
    CHECK_EQ_INT(rg_session_peek(s, 0, 3, &v), RG_GET_MISS);
    rg_session_free(s);
    rg_op_free(kept);
    rg_op_free(replaced);
    carrier_end(&c);
    rg_engine_unref(engine);
    engine = plain;
}

TEST(nothing_is_left) {
    if (!ready()) return;
    run_sql("DROP TABLE link_item");
    const rg_pool_opts o = {.size = sizeof o, .unix_path = given_socket()};
    rg__redis_pool *p = rg__redis_pool_new(&o, NULL);
    char script[160];
    snprintf(script, sizeof script, "for _, k in ipairs(redis.call('KEYS', '{%s}:*')) do redis.call('DEL', k) end", prefix);
    CHECK(ASK(p, "EVAL", script, "0") >= -1);
    rg__redis_pool_free(p);
    rg_engine_unref(engine);
    engine = NULL;
}

UNIT_MAIN
