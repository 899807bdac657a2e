/* SPDX-License-Identifier: MIT */
/* Transactions from several threads at once, their operations inline and on workers: what is committed is
 * there, nothing else is, and handles may go at any time. The servers come by REGOLITH_MYSQL_SOCKET and
 * REGOLITH_MYSQL_DB; without them nothing is tested. */
#include "unit.h"

#include <poll.h>
#include <pthread.h>
#include <regolith/regolith.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 24, WAITS = 200 };

typedef struct user {
    pthread_t thread;
    int number, faults;
    long rows;          /* that it has committed */
    rg_session *session;
    rg_notifier *notifier;
    bool on_worker;     /* changes from step to step */
} user;

static const char *socket_path, *base;
static rg_engine *engine; /* of all threads */

static rg_engine *open_engine(void) {
    rg_engine_opts opts = {.size = sizeof opts, .workers = 2, .prefix = "tx"};
    rg_err err;
    rg_config *c = rg_config_new(&opts, &err);
    rg_pool_opts pool = {.size = sizeof pool, .name = "default", .unix_path = socket_path, .user = "root",
                         .database = base};
    rg_config_mysql(c, &pool, &err);
    rg_engine *e = rg_engine_new(c, &err);
    if (!e) printf("# %s\n", err.message);
    return e;
}

static void administer(const char *sql) {
    rg_op *op = rg_op_schema_apply(engine, "default", sql, strlen(sql), NULL);
    int rc = op ? rg_op_run(op, 0) : -1;
    if (rc < 0 && op) printf("# %s: %s\n", sql, rg_op_error(op)->message);
    CHECK(rc >= 0);
    rg_op_free(op);
}

/* ---- one operation ---- */

static int await(user *u, rg_op *op) {
    rg_err err;
    uint32_t tag;
    if (rg_op_submit(op, u->notifier, 1, 0, &err) < 0) return err.code;
    struct pollfd p = {.fd = rg_notifier_fd(u->notifier), .events = POLLIN};
    for (int i = 0; i < WAITS; i++) {
        poll(&p, 1, 100);
        if (rg_notifier_drain(u->notifier, &tag, 1) > 0) return rg_op_code(op);
    }
    return RG_ETIMEOUT;
}

/* Here, or on a worker, in turns; frees it. */
static int run(user *u, rg_op *op) {
    if (!op) return RG_ENO_MEMORY;
    u->on_worker = !u->on_worker;
    int rc = u->on_worker ? await(u, op) : rg_op_run(op, 0);
    if (rc < 0) printf("# %s\n", rg_op_error(op)->message);
    rg_op_free(op);
    return rc;
}

static rg_op *statement(const user *u, const char *sql) {
    rg_op *op = rg_op_query(engine, "default", sql, strlen(sql), NULL);
    if (op && rg_op_within(op, u->session, NULL) < 0) return rg_op_free(op), NULL;
    return op;
}

static int insert(user *u, int round, int k) {
    char sql[96];
    snprintf(sql, sizeof sql, "INSERT INTO rg_tx_rows VALUES (%d)", (u->number * ROUNDS + round) * 4 + k);
    return run(u, statement(u, sql));
}

/* ---- rounds ---- */

/* A row, another under a savepoint, a third after it; how many would be committed. */
static int fill(user *u, rg_tx *tx, int round) {
    u->faults += insert(u, round, 0) < 0;
    u->faults += rg_tx_push(tx, NULL) < 0;
    u->faults += insert(u, round, 1) < 0;
    bool undo = round % 3 == 0;
    if (undo) u->faults += run(u, rg_op_tx_undo(tx, NULL)) < 0;
    else u->faults += rg_tx_merge(tx, NULL) < 0;
    u->faults += insert(u, round, 2) < 0;
    return undo ? 2 : 3;
}

/* Its handles go while a statement of it is under way. */
static void walk_away(const user *u, rg_tx *tx) {
    rg_err err;
    rg_op *op = statement(u, "SELECT SLEEP(0.02)");
    rg_op_submit(op, u->notifier, 2, 0, &err);
    rg_op_free(op);
    rg_tx_free(tx);
}

static void end(user *u, rg_tx *tx, int round, int rows) {
    int rc = 0;
    if (round % 4 < 2) rc = run(u, rg_op_tx_commit(tx, round % 4, NULL));
    if (round % 4 == 2) rc = run(u, rg_op_tx_rollback(tx, NULL));
    u->faults += rc < 0;
    u->rows += round % 4 < 2 ? rows : 0;
    if (round % 4 == 3) walk_away(u, tx);
    rg_session_enter(u->session, 0, NULL, NULL, NULL);
    if (round % 4 == 3) return;
    u->faults += rg_tx_phase_of(tx) != (round % 4 == 2 ? RG_TX_ROLLED_BACK : RG_TX_COMMITTED);
    rg_tx_free(tx);
}

static void *use(void *arg) {
    user *u = arg;
    rg_tx_opts opts = {.size = sizeof opts};
    u->session = rg_session_new(engine, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        opts.isolation = round % 5;
        rg_tx *tx = rg_tx_new(engine, &opts, NULL, NULL);
        u->faults += !tx || rg_session_enter(u->session, 0, tx, NULL, NULL) < 0;
        end(u, tx, round, fill(u, tx, round));
    }
    rg_session_free(u->session);
    return NULL;
}

static long number(const char *sql) {
    rg_op *op = rg_op_query(engine, "default", sql, strlen(sql), NULL);
    const char *p = NULL;
    size_t len = 0;
    long n = -1;
    if (rg_op_run(op, 0) >= 0 && rg_op_cell(op, 0, 0, 0, &p, &len) > 0) n = strtol(p, NULL, 10);
    rg_op_free(op);
    return n;
}

static void check_threads(void) {
    user users[THREADS];
    long rows = 0;
    memset(users, 0, sizeof users);
    for (int i = 0; i < THREADS; i++) {
        users[i].number = i;
        users[i].notifier = rg_notifier_new(engine, 0, NULL);
        pthread_create(&users[i].thread, NULL, use, &users[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(users[i].thread, NULL);
        CHECK_EQ_INT(users[i].faults, 0);
        rows += users[i].rows;
        rg_notifier_free(users[i].notifier);
    }
    CHECK_EQ_INT(number("SELECT COUNT(*) FROM rg_tx_rows"), rows);
    CHECK_EQ_INT(number("SELECT COUNT(*) FROM rg_tx_rows WHERE id % 4 = 3"), 0);
}

/* Whoever was left open is rolled back by the server when it has seen the end of its connection. */
static void check_leaks(void) {
    long open = -1;
    for (int i = 0; i < WAITS && open != 0; i++) {
        open = number("SELECT COUNT(*) FROM information_schema.innodb_trx t "
                      "JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id "
                      "WHERE p.db = DATABASE()");
        if (open != 0) poll(NULL, 0, 50);
    }
    CHECK_EQ_INT(open, 0);
}

/* A request ends at any time of a statement or a COMMIT of an inner transaction whose outer one is suspended: both have
 * ended then, by the time that nothing runs on them, with their handles still there. */
static void end_request(user *u, int round) {
    static const int pauses_us[] = {0, 5, 20, 50, 500, 5000, 30000};
    rg_tx_opts opts = {.size = sizeof opts};
    rg_request *request = rg_request_new();
    rg_tx *outer = rg_tx_new(engine, &opts, NULL, NULL), *tx = rg_tx_new(engine, &opts, outer, NULL);
    rg_request_add_tx(request, outer);
    rg_request_add_tx(request, tx);
    u->faults += run(u, rg_op_tx_begin(outer, NULL)) < 0;
    rg_session_enter(u->session, 0, tx, outer, NULL);
    u->faults += insert(u, round, 0) < 0;
    rg_op *op = round % 2 ? statement(u, "SELECT SLEEP(0.02)") : rg_op_tx_commit(tx, round & 2, NULL);
    rg_request_add_op(request, op);
    u->faults += rg_op_submit(op, u->notifier, 3, 0, NULL) < 0;
    usleep((useconds_t)pauses_us[round % 7]);
    rg_request_end(request);
    for (int i = 0; i < WAITS && rg_op_phase_of(op) != RG_OP_DONE; i++) poll(NULL, 0, 20);
    rg_op_free(op);
    u->faults += run(u, rg_op_tx_begin(outer, NULL)) != RG_ECLOSED;
    u->faults += rg_tx_phase_of(outer) != RG_TX_ROLLED_BACK || rg_tx_phase_of(tx) < RG_TX_COMMITTED;
    rg_session_enter(u->session, 0, NULL, NULL, NULL);
    rg_tx_free(tx);
    rg_tx_free(outer);
    rg_request_free(request);
}

static void check_requests(void) {
    user u = {.number = THREADS};
    u.notifier = rg_notifier_new(engine, 0, NULL);
    u.session = rg_session_new(engine, NULL);
    for (int round = 0; round < 6 * ROUNDS; round++) end_request(&u, round);
    CHECK_EQ_INT(u.faults, 0);
    rg_session_free(u.session);
    rg_notifier_free(u.notifier);
    check_leaks();
}

static void check_refusals(void) {
    rg_err err;
    rg_tx_opts opts = {.size = sizeof opts, .isolation = 6};
    CHECK(!rg_tx_new(engine, &opts, NULL, &err) && err.code == RG_EINVALID);
    opts = (rg_tx_opts){.size = sizeof opts, .pool = "nowhere"};
    CHECK(!rg_tx_new(engine, &opts, NULL, &err) && err.code == RG_EINVALID);
    opts.pool = NULL;
    rg_tx *tx = rg_tx_new(engine, &opts, NULL, &err);
    CHECK(rg_tx_merge(tx, &err) < 0);
    CHECK_EQ_INT(rg_tx_phase_of(tx), RG_TX_IDLE);
    rg_op *op = rg_op_tx_commit(tx, 1, &err);
    CHECK(rg_op_run(op, 0) >= 0);
    CHECK_EQ_INT(rg_tx_phase_of(tx), RG_TX_COMMITTED);
    rg_op_free(op);
    op = rg_op_tx_begin(tx, &err);
    CHECK(rg_op_run(op, 0) < 0);
    rg_op_free(op);
    rg_tx_free(tx);
}

TEST(actions_are_those_of_the_table) {
    static const int expected[][2] = {
        [RG_PROPAGATION_REQUIRED] = {RG_TX_CREATE, RG_TX_JOIN},
        [RG_PROPAGATION_SUPPORTS] = {RG_TX_RUN_WITHOUT, RG_TX_JOIN},
        [RG_PROPAGATION_MANDATORY] = {RG_TX_REFUSE, RG_TX_JOIN},
        [RG_PROPAGATION_REQUIRES_NEW] = {RG_TX_CREATE, RG_TX_SUSPEND_AND_CREATE},
        [RG_PROPAGATION_NOT_SUPPORTED] = {RG_TX_RUN_WITHOUT, RG_TX_SUSPEND},
        [RG_PROPAGATION_NEVER] = {RG_TX_RUN_WITHOUT, RG_TX_REFUSE},
        [RG_PROPAGATION_NESTED] = {RG_TX_CREATE, RG_TX_SAVEPOINT},
    };
    for (int mode = 0; mode < 7; mode++)
        for (int exists = 0; exists < 2; exists++)
            CHECK_EQ_INT(rg_tx_action_of(mode, exists), expected[mode][exists]);
    CHECK_EQ_INT(rg_tx_action_of(7, 0), RG_EINVALID);
    CHECK_EQ_INT(rg_tx_action_of(-1, 1), RG_EINVALID);
}

TEST(threads_use_transactions_side_by_side) {
    socket_path = getenv("REGOLITH_MYSQL_SOCKET");
    base = getenv("REGOLITH_MYSQL_DB");
    if (!socket_path || !base) {
        puts("# no server: skipped");
        return;
    }
    engine = open_engine();
    REQUIRE(engine != NULL);
    administer("DROP TABLE IF EXISTS rg_tx_rows");
    administer("CREATE TABLE rg_tx_rows (id BIGINT PRIMARY KEY)");
    check_threads();
    check_refusals();
    check_leaks();
    check_requests();
    administer("DROP TABLE rg_tx_rows");
    rg_engine_unref(engine);
}

UNIT_MAIN
