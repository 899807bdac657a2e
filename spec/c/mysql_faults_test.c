/* SPDX-License-Identifier: MIT */
/* What a connection makes of a network that fails: a relay stands before a real server
 * (REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB) and cuts, freezes or garbles what passes. */
#include "unit.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/err.h"
#include "mysql/mysql.h"

static const char *path, *database;
static rg_err err;

/* ---- the relay ---- */

typedef enum relay_mode {
    PASS = 0,
    FREEZE,     /* takes and gives nothing more */
    CUT,        /* closes both sides */
    CUT_ANSWER, /* passes requests, closes when the answer comes */
    GARBLE      /* answers are noise */
} relay_mode;

static atomic_int mode;
static atomic_bool stopping;
static char relay_path[64];
static pthread_t relay_thread;
static int listener;

static int connect_to(const char *to) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", to);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

/* One direction's turn; false when the pair is over. */
static bool pass(int from, int to, bool answer) {
    static __thread char bytes[65536];
    ssize_t n = read(from, bytes, sizeof bytes);
    int now = atomic_load(&mode);
    if (n <= 0 || now == CUT || (answer && now == CUT_ANSWER)) return false;
    if (answer && now == GARBLE)
        for (ssize_t i = 0; i < n; i++)
            bytes[i] = (char)(i * 37 + 11);
    return write(to, bytes, (size_t)n) == n;
}

static void *serve(void *arg) {
    int client = (int)(intptr_t)arg, server = connect_to(path);
    struct pollfd fds[2] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
    bool open = server >= 0;
    while (open && !atomic_load(&stopping)) {
        if (atomic_load(&mode) == CUT) break;
        if (poll(fds, 2, 5) <= 0 || atomic_load(&mode) == FREEZE) continue;
        if (fds[0].revents) open = pass(client, server, false);
        if (open && fds[1].revents) open = pass(server, client, true);
    }
    close(client);
    if (server >= 0) close(server);
    return NULL;
}

static void *listen_on(void *arg) {
    (void)arg;
    while (!atomic_load(&stopping)) {
        struct pollfd p = {.fd = listener, .events = POLLIN};
        pthread_t t;
        if (poll(&p, 1, 5) <= 0) continue;
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0 && pthread_create(&t, NULL, serve, (void *)(intptr_t)client) == 0)
            pthread_detach(t);
    }
    return NULL;
}

static void start_relay(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(relay_path, sizeof relay_path, "/tmp/rg-relay-%d", (int)getpid());
    snprintf(a.sun_path, sizeof a.sun_path, "%s", relay_path);
    unlink(relay_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(listener, 64) == 0);
    pthread_create(&relay_thread, NULL, listen_on, NULL);
}

static void stop_relay(void) {
    atomic_store(&stopping, true);
    pthread_join(relay_thread, NULL);
    close(listener);
    unlink(relay_path);
    usleep(30000); /* the detached ones see it, too */
}

/* ---- what the tests share ---- */

static rg__mysql_pool *direct, *relayed;

static rg__ctx within(int64_t ms) {
    return (rg__ctx){.deadline_ms = rg__now_ms() + ms};
}

static rg__mysql_pool *pool_at(const char *socket_path) {
    rg_pool_opts o = {
        .size = sizeof o, .unix_path = socket_path, .user = "root", .database = database};
    return rg__mysql_pool_new(&o, &err);
}

static bool ok(int code) {
    if (code) printf("# %s: %s\n", rg_code_name(code), err.message);
    return CHECK(code == 0);
}

static rg__mysql *acquire(rg__mysql_pool *p) {
    rg__ctx ctx = within(2000);
    rg__mysql *c = NULL;
    atomic_store(&mode, PASS);
    ok(rg__mysql_acquire(p, &ctx, &c, &err));
    return c;
}

static int run_on(rg__mysql *c, const char *sql, int64_t ms) {
    rg__ctx ctx = within(ms);
    memset(&err, 0, sizeof err);
    return rg__mysql_exec(c, &ctx, sql, strlen(sql), NULL, &err);
}

/* Not before its deadline, and not long after it. */
static void check_took_about(int64_t started, int64_t ms, int64_t slack) {
    int64_t took = rg__now_ms() - started;
    if (!CHECK(took >= ms - 1 && took < ms + slack)) printf("# %lld ms\n", (long long)took);
}
static void check_took(int64_t started, int64_t ms) {
    check_took_about(started, ms, BUSY_MS);
}

/* Oracle's library bounds a connect in whole seconds. */
#ifdef RG_CLIENT_MYSQL
enum { CONNECT_SLACK_MS = 1000 + BUSY_MS };
#else
enum { CONNECT_SLACK_MS = BUSY_MS };
#endif

static int64_t count_rows(void) {
    rg__mysql *c = acquire(direct);
    rg__ctx ctx = within(2000);
    rg__result *r = NULL;
    ok(rg__mysql_query(c, &ctx, "SELECT COUNT(*) FROM rg_fault", 29, NULL, 0, false, &r, &err));
    int64_t n = r ? strtoll(r->cells[0].p, NULL, 10) : -1;
    rg__result_free(r);
    rg__mysql_release(c);
    return n;
}

static void direct_run(const char *sql) {
    rg__mysql *c = acquire(direct);
    ok(run_on(c, sql, 5000));
    rg__mysql_release(c);
}

/* ---- connecting ---- */

TEST(a_silent_server_is_given_up_at_the_deadline) {
    rg__mysql_pool *p = pool_at(relay_path);
    rg__mysql *c = NULL;
    atomic_store(&mode, FREEZE);
    int64_t started = rg__now_ms();
    rg__ctx ctx = within(150);
    CHECK_EQ_INT(rg__mysql_acquire(p, &ctx, &c, &err), RG_ETIMEOUT);
    check_took_about(started, 150, CONNECT_SLACK_MS);
    atomic_store(&mode, PASS);
    c = acquire(p); /* a hurried caller has not opened the breaker */
    rg__mysql_release(c);
    rg__mysql_pool_free(p);
}

TEST(a_server_that_talks_nonsense) {
    rg__mysql_pool *p = pool_at(relay_path);
    rg__mysql *c = NULL;
    rg__ctx ctx = within(1000);
    atomic_store(&mode, GARBLE);
    CHECK(rg__mysql_acquire(p, &ctx, &c, &err) != 0 && c == NULL);
    rg__mysql_pool_free(p);
    c = acquire(relayed);
    atomic_store(&mode, GARBLE);
    int code = run_on(c, "SELECT 1", 300);
    CHECK(code == RG_EUNAVAILABLE || code == RG_ETIMEOUT || code == RG_ESQL);
    CHECK(rg__mysql_broken(c) || code == RG_ESQL);
    rg__mysql_poison(c);
    rg__mysql_release(c);
}

TEST(a_server_that_hangs_up) {
    rg__mysql_pool *p = pool_at(relay_path);
    rg__mysql *c = NULL;
    rg__ctx ctx = within(1000);
    atomic_store(&mode, CUT);
    CHECK_EQ_INT(rg__mysql_acquire(p, &ctx, &c, &err), RG_EUNAVAILABLE);
    rg__mysql_pool_free(p);
}

/* ---- statements ---- */

TEST(a_read_that_loses_its_server) {
    static const relay_mode modes[] = {CUT, CUT_ANSWER};
    for (int i = 0; i < 2; i++) {
        rg__mysql *c = acquire(relayed);
        atomic_store(&mode, modes[i]);
        CHECK_EQ_INT(run_on(c, "SELECT 1", 1000), RG_EUNAVAILABLE);
        CHECK_EQ_INT(err.cls, RG_CLASS_RECONNECT);
        CHECK_EQ_INT(err.retriable, 1);
        CHECK(err.sql_errno == 2006 || err.sql_errno == 2013);
        CHECK(rg__mysql_broken(c));
        CHECK_EQ_INT(run_on(c, "SELECT 1", 1000), RG_EUNAVAILABLE);
        rg__mysql_release(c);
    }
}

TEST(a_write_that_loses_its_server) {
    rg__mysql *c = acquire(relayed);
    atomic_store(&mode, CUT_ANSWER); /* done, but nobody says so */
    CHECK_EQ_INT(run_on(c, "INSERT INTO rg_fault VALUES (1)", 1000), RG_ECOMMIT_UNKNOWN);
    CHECK_EQ_INT(err.cls, RG_CLASS_AMBIGUOUS);
    CHECK_EQ_INT(err.retriable, 0);
    rg__mysql_release(c);
    usleep(20000);
    CHECK_EQ_INT(count_rows(), 1);
    c = acquire(relayed); /* in a transaction it is gone with it */
    rg__ctx ctx = within(1000);
    ok(rg__mysql_begin(c, &ctx, &err));
    atomic_store(&mode, CUT_ANSWER);
    CHECK_EQ_INT(run_on(c, "INSERT INTO rg_fault VALUES (2)", 1000), RG_EUNAVAILABLE);
    CHECK(!rg__mysql_in_transaction(c));
    rg__mysql_release(c);
    usleep(20000);
    CHECK_EQ_INT(count_rows(), 1);
}

/* Begins, writes, then commits under the fault; the row of that id tells what became of it. */
static int commit_under(relay_mode fault, int id, int64_t ms) {
    char sql[64];
    rg__mysql *c = acquire(relayed);
    rg__ctx ctx = within(1000);
    ok(rg__mysql_begin(c, &ctx, &err));
    snprintf(sql, sizeof sql, "INSERT INTO rg_fault VALUES (%d)", id);
    ok(run_on(c, sql, 1000));
    atomic_store(&mode, fault);
    ctx = within(ms);
    int code = rg__mysql_commit(c, &ctx, &err);
    CHECK(rg__mysql_broken(c));
    rg__mysql_release(c);
    atomic_store(&mode, PASS);
    usleep(20000);
    return code;
}

TEST(a_commit_without_an_answer) {
    CHECK_EQ_INT(commit_under(CUT_ANSWER, 10, 1000), RG_ECOMMIT_UNKNOWN); /* done */
    CHECK_EQ_INT(err.cls, RG_CLASS_AMBIGUOUS);
    CHECK_EQ_INT(count_rows(), 2);
    CHECK_EQ_INT(commit_under(CUT, 11, 1000), RG_ECOMMIT_UNKNOWN); /* never arrived */
    CHECK_EQ_INT(count_rows(), 2);
    int64_t started = rg__now_ms();
    CHECK_EQ_INT(commit_under(FREEZE, 12, 150), RG_ECOMMIT_UNKNOWN);
    check_took(started, 170);
}

TEST(every_call_ends_at_its_deadline) {
    rg__mysql *c = acquire(relayed);
    atomic_store(&mode, FREEZE);
    int64_t started = rg__now_ms();
    CHECK_EQ_INT(run_on(c, "SELECT 1", 150), RG_ETIMEOUT);
    check_took(started, 150);
    rg__mysql_release(c);
    c = acquire(relayed);
    rg__ctx ctx = within(1000);
    ok(rg__mysql_begin(c, &ctx, &err));
    atomic_store(&mode, FREEZE);
    started = rg__now_ms();
    rg__mysql_release(c); /* wants to roll back */
    CHECK(rg__now_ms() - started < 1000 + BUSY_MS);
    atomic_store(&mode, PASS);
}

/* A long answer that comes without a pause is looked at on the way. */
TEST(a_stream_without_end_ends_at_its_deadline) {
    static const char sql[] =
        "WITH d AS (SELECT 0 x UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION "
        "SELECT 5 UNION "
        "SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) SELECT a.x FROM d a, d b, d c, d "
        "e, d f, d g, d h, d i";
    rg__mysql *c = acquire(direct);
    int64_t started = rg__now_ms();
    rg__ctx ctx = within(100);
    CHECK_EQ_INT(rg__mysql_query(c, &ctx, sql, sizeof sql - 1, NULL, 0, false, NULL, &err),
                 RG_ETIMEOUT);
    check_took(started, 100);
    rg__mysql_release(c);
}

TEST(an_idle_connection_whose_server_went_away) {
    rg__mysql *c = acquire(relayed);
    rg__mysql_release(c);
    atomic_store(&mode, CUT);
    usleep(150000);
    c = acquire(relayed); /* another one */
    ok(run_on(c, "SELECT 1", 1000));
    rg__mysql_release(c);
}

TEST(nothing_is_left_open) {
    uint32_t busy, idle;
    rg__mysql_pool_stats(relayed, &busy, &idle);
    CHECK_EQ_INT(busy, 0);
    rg__mysql_pool_stats(direct, &busy, &idle);
    CHECK_EQ_INT(busy, 0);
}

int main(int argc, char **argv) {
    path = getenv("REGOLITH_MYSQL_SOCKET");
    database = getenv("REGOLITH_MYSQL_DB");
    if (!path || !database) {
        printf("0 passed, 0 failed\n");
        return 0;
    }
    rg__mysql_library(&err);
    start_relay();
    direct = pool_at(path);
    relayed = pool_at(relay_path);
    direct_run("DROP TABLE IF EXISTS rg_fault");
    direct_run("CREATE TABLE rg_fault (id INT PRIMARY KEY) ENGINE=InnoDB");
    int rc = unit_main(argc, argv);
    atomic_store(&mode, PASS);
    direct_run("DROP TABLE rg_fault");
    rg__mysql_pool_free(relayed);
    rg__mysql_pool_free(direct);
    stop_relay();
    return rc;
}
