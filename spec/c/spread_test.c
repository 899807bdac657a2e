/* SPDX-License-Identifier: MIT */
/* Reads over three shards from several threads at once, with fewer workers than are wanted. The
 * servers come by REGOLITH_MYSQL_SOCKET and REGOLITH_MYSQL_DB; without them nothing is tested. */
#include "unit.h"

#include <poll.h>
#include <pthread.h>
#include <regolith/regolith.h>

enum { SHARDS = 3, ROWS = 40, THREADS = 4, ROUNDS = 15 };
#define FIRST(k) ((uint64_t)(k) << 43)

static const char *socket_path, *base;
static char names[SHARDS][80], pools[SHARDS][16];

static rg_type *shard_type(uint32_t k) {
    char name[16];
    snprintf(name, sizeof name, "row@%u", k);
    rg_type_opts o = {.size = sizeof o, .name = name, .table = "row", .mysql = pools[k],
                      .ids = RG_IDS_APPLICATION, .sharded = 1, .shard_in_id = 1, .shard = k};
    rg_type *t = rg_type_new(&o, NULL);
    rg_column_opts n = {.size = sizeof n, .name = "n", .kind = RG_U32};
    rg_column_opts s = {.size = sizeof s, .name = "s", .kind = RG_STRING, .length = 20,
                        .flags = RG_COL_NULLABLE};
    rg_type_column(t, &n, NULL);
    rg_type_column(t, &s, NULL);
    return t;
}

static rg_engine *open_engine(bool with_shards) {
    rg_engine_opts opts = {.size = sizeof opts, .workers = 2, .prefix = "spread"};
    rg_err err;
    rg_config *c = rg_config_new(&opts, &err);
    rg_pool_opts pool = {.size = sizeof pool, .name = "default", .unix_path = socket_path, .user = "root",
                         .database = base};
    rg_config_mysql(c, &pool, &err);
    for (uint32_t k = 0; with_shards && k < SHARDS; k++) {
        pool.name = pools[k];
        pool.database = names[k];
        rg_config_mysql(c, &pool, &err);
        rg_config_type(c, shard_type(k), &err);
    }
    rg_engine *e = rg_engine_new(c, &err);
    if (!e) printf("# %s\n", err.message);
    return e;
}

static void run(rg_engine *e, const char *pool, const char *sql) {
    rg_op *op = rg_op_schema_apply(e, pool, sql, strlen(sql), NULL);
    int rc = op ? rg_op_run(op, 0) : -1;
    if (rc < 0 && op) printf("# %s: %s\n", sql, rg_op_error(op)->message);
    CHECK(rc >= 0);
    rg_op_free(op);
}

static void make(rg_engine *e) {
    for (int k = 0; k < SHARDS; k++) {
        run(e, pools[k], "CREATE TABLE `row` (id BIGINT UNSIGNED PRIMARY KEY, n INT UNSIGNED NOT NULL, "
                         "s VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)");
        for (int i = 0; i < ROWS; i++) {
            char sql[160];
            snprintf(sql, sizeof sql, "INSERT INTO `row` VALUES (%llu, %d, 's%d')",
                     (unsigned long long)(FIRST(k) + (uint64_t)i + 1), i * SHARDS + k, i);
            run(e, pools[k], sql);
        }
    }
}

static rg_engine *engine; /* of all threads */

/* What n of row i must be, as its id tells. */
static double n_of(rg_op *op, rg_session *s, uint32_t i) {
    rg_view v;
    rg_column_info info;
    uint64_t id = 0;
    if (rg_op_row(op, i, s, &v) != RG_GET_HIT) return -1;
    rg_type_column_info(rg_engine_type(engine, 0), 0, &info);
    memcpy(&id, (const char *)v.data + info.offset, sizeof id);
    return (double)(((id & (FIRST(1) - 1)) - 1) * SHARDS + (id >> 43));
}

static rg_op *search(const char *where, int mode, double offset, double limit, int desc) {
    rg_err err;
    rg_op *op = rg_op_search(engine, 0, where, strlen(where), mode, offset, limit, &err);
    for (uint32_t k = 1; k < SHARDS; k++) rg_op_also(op, k, &err);
    if (mode != 2) rg_op_order(op, 1, desc, &err);
    return op;
}

/* Faults of one thread: checks are not for several. */
static void *read_all(void *arg) {
    intptr_t faults = 0;
    (void)arg;
    for (int round = 0; round < ROUNDS; round++) {
        rg_session *s = rg_session_new(engine, NULL);
        rg_op *op = search("1 = 1 ORDER BY n", 0, 5, 50, 0);
        faults += rg_op_run(op, 0) < 0 || rg_op_rows(op) != 50;
        for (uint32_t i = 0; i < rg_op_rows(op); i++) faults += n_of(op, s, i) != (double)(i + 5);
        rg_op_free(op);
        op = search("n < 60", 2, 0, 0, 0);
        faults += rg_op_run(op, 0) < 0 || rg_op_number(op) != 60;
        rg_op_free(op);
        op = search("1 = 1 ORDER BY n DESC", 1, 0, 3, 1);
        faults += rg_op_run(op, 0) < 0 || rg_op_rows(op) != 3 ||
                  rg_op_id(op, 0) != (double)(FIRST(2) + ROWS);
        rg_op_free(op);
        op = rg_op_get(engine, 1, 0, NULL);
        for (uint32_t k = 0; k < SHARDS; k++) rg_op_add_id_of(op, k, (double)(FIRST(k) + 7), NULL);
        faults += rg_op_run(op, 0) < 0 || rg_op_rows(op) != SHARDS;
        for (uint32_t k = 0; k < SHARDS; k++) faults += n_of(op, s, k) != 6 * SHARDS + k;
        rg_op_free(op);
        rg_session_free(s);
    }
    return (void *)faults;
}

static void check_threads(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, read_all, NULL);
    for (int i = 0; i < THREADS; i++) {
        void *faults = NULL;
        pthread_join(threads[i], &faults);
        CHECK(faults == NULL);
    }
}

/* One after the other on workers that are all busy with such operations: none waits for another. */
static void check_workers(void) {
    rg_err err;
    rg_op *ops[12];
    uint32_t tags[12];
    int done = 0;
    rg_notifier *n = rg_notifier_new(engine, 0, &err);
    for (uint32_t i = 0; i < 12; i++) {
        ops[i] = search("1 = 1 ORDER BY n", 0, 0, 10, 0);
        CHECK(rg_op_submit(ops[i], n, i, 0, &err) >= 0);
    }
    struct pollfd p = {.fd = rg_notifier_fd(n), .events = POLLIN};
    for (int tries = 0; done < 12 && tries < 100; tries++) {
        poll(&p, 1, 200);
        for (int got = rg_notifier_drain(n, tags, 12); got > 0; got = rg_notifier_drain(n, tags, 12))
            done += got;
    }
    CHECK_EQ_INT(done, 12);
    for (uint32_t i = 0; i < 12; i++) {
        CHECK_EQ_INT(rg_op_rows(ops[i]), 10);
        rg_op_free(ops[i]);
    }
    rg_notifier_free(n);
}

/* The shards of one search fail and succeed side by side: the error is the operation's. */
static void check_failure(rg_engine *e) {
    run(e, pools[2], "DROP TABLE `row`");
    rg_op *op = search("1 = 1", 0, 0, 0, 0);
    CHECK(rg_op_run(op, 0) == RG_ESCHEMA);
    CHECK(rg_op_rows(op) == 0);
    rg_op_free(op);
}

static void check_refusals(void) {
    rg_err err;
    rg_op *op = search("1 = 1", 0, 0, 0, 0);
    CHECK(rg_op_order(op, 99, 0, &err) < 0);
    CHECK(rg_op_also(op, 99, &err) < 0);
    rg_op_free(op);
    rg_session *s = rg_session_new(engine, NULL);
    rg_op *flush = rg_op_flush(engine, s, 0, &err);
    rg_builder *b = rg_builder_new(rg_engine_type(engine, 0), &err);
    rg_builder_u64(b, 0, FIRST(1) + 1, &err);
    rg_builder_u64(b, 1, 5, &err);
    CHECK(rg_op_flush_add(flush, RG_INSERT, 0, b, -1, &err) == RG_EINVALID);
    CHECK(strstr(err.message, "an id of another shard") != NULL);
    rg_builder_free(b);
    rg_op_free(flush);
    rg_session_free(s);
}

static void with_servers(void) {
    char sql[320];
    rg_engine *admin = open_engine(false);
    for (int k = 0; k < SHARDS; k++) {
        snprintf(pools[k], sizeof pools[k], "s%d", k % 10);
        snprintf(names[k], sizeof names[k], "%s_spread%d", base, k);
        snprintf(sql, sizeof sql, "DROP DATABASE IF EXISTS `%s`", names[k]);
        run(admin, "default", sql);
        snprintf(sql, sizeof sql, "CREATE DATABASE `%s`", names[k]);
        run(admin, "default", sql);
    }
    engine = open_engine(true);
    make(engine);
    check_threads();
    check_workers();
    check_refusals();
    check_failure(engine);
    rg_engine_unref(engine);
    for (int k = 0; k < SHARDS; k++) {
        snprintf(sql, sizeof sql, "DROP DATABASE `%s`", names[k]);
        run(admin, "default", sql);
    }
    rg_engine_unref(admin);
}

TEST(reads_over_shards) {
    socket_path = getenv("REGOLITH_MYSQL_SOCKET");
    base = getenv("REGOLITH_MYSQL_DB");
    CHECK(true);
    if (socket_path && base) with_servers();
}

UNIT_MAIN
