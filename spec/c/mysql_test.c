/* SPDX-License-Identifier: MIT */
/* Connections, pool, statements and errors on a real server (REGOLITH_MYSQL_SOCKET,
 * REGOLITH_MYSQL_DB). */
#include "unit.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/err.h"
#include "mysql/sql.h"

static const char *path, *database;
static rg__metrics metrics;
static rg__ctx ctx = {.deadline_ms = RG__NO_DEADLINE, .metrics = &metrics};
static rg__mysql_pool *pool;
static rg__mysql *conn;
static rg_err err;

/* ---- short words for what each test does ---- */

static bool ok(int code) {
    if (code) printf("# %s: %s\n", rg_code_name(code), err.message);
    return CHECK(code == 0);
}

static rg__ctx within(int64_t ms) {
    return (rg__ctx){.deadline_ms = rg__now_ms() + ms, .metrics = &metrics};
}

static rg_pool_opts options(void) {
    return (rg_pool_opts){
        .size = sizeof(rg_pool_opts), .unix_path = path, .user = "root", .database = database};
}

static int run_on(rg__mysql *c, const char *sql) {
    memset(&err, 0, sizeof err);
    return rg__mysql_exec(c, &ctx, sql, strlen(sql), NULL, &err);
}
static bool run(const char *sql) {
    return ok(run_on(conn, sql));
}

static rg__result *query(const char *sql, const rg__param *params, size_t n) {
    rg__result *r = NULL;
    ok(rg__mysql_query(conn, &ctx, sql, strlen(sql), params, n, false, &r, &err));
    return r;
}

/* The first cell of a statement. */
static const char *one(const char *sql) {
    static char text[8][256];
    static int turn;
    rg__result *r = query(sql, NULL, 0);
    char *to = text[turn++ % 8];
    *to = '\0';
    if (r && r->n_rows && r->cells[0].p)
        snprintf(to, 256, "%.*s", (int)r->cells[0].len, r->cells[0].p);
    rg__result_free(r);
    return to;
}

static rg__mysql *acquire(rg__mysql_pool *from) {
    rg__mysql *c = NULL;
    ok(rg__mysql_acquire(from, &ctx, &c, &err));
    return c;
}

static rg__mysql_pool *pool_of(uint32_t connections) {
    rg_pool_opts o = options();
    o.max_connections = connections;
    return rg__mysql_pool_new(&o, &err);
}

/* ---- sessions ---- */

TEST(sessions_are_pinned) {
    CHECK_STR(one("SELECT @@sql_mode"),
              "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
              "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION");
    CHECK_STR(one("SELECT @@time_zone"), "+00:00");
    CHECK_STR(one("SELECT @@character_set_client"), "utf8mb4");
    CHECK_STR(one("SELECT @@autocommit"), "1");
    CHECK_STR(one("SELECT DATABASE()"), database);
    CHECK(rg__mysql_version(conn) > 80000);
    CHECK(rg__mysql_max_packet(conn) == strtoull(one("SELECT @@max_allowed_packet"), NULL, 10));
    CHECK_EQ_INT(rg__mysql_thread_id(conn), strtoll(one("SELECT CONNECTION_ID()"), NULL, 10));
}

TEST(files_of_the_client_cannot_be_asked_for) {
    run("CREATE TEMPORARY TABLE rg_file (x TEXT)");
    CHECK(run_on(conn, "LOAD DATA LOCAL INFILE '/dev/null' INTO TABLE rg_file") != 0);
    run("DROP TEMPORARY TABLE rg_file");
}

TEST(a_tainted_connection_comes_back_clean) {
    rg__mysql_pool *p = pool_of(1);
    rg__mysql *c = acquire(p);
    unsigned long id = rg__mysql_thread_id(c);
    CHECK_EQ_INT(run_on(c, "SET sql_mode='', time_zone='+05:00', autocommit=0"), 0);
    CHECK_EQ_INT(run_on(c, "CREATE TEMPORARY TABLE rg_temp (x INT)"), 0);
    rg__mysql_taint(c);
    rg__mysql_release(c);
    c = acquire(p);
    CHECK_EQ_INT(rg__mysql_thread_id(c), id);
    rg__mysql *was = conn;
    conn = c;
    CHECK_STR(one("SELECT @@time_zone"), "+00:00");
    CHECK_STR(one("SELECT @@sql_mode='' OR @@autocommit=0"), "0");
    CHECK_EQ_INT(run_on(c, "SELECT * FROM rg_temp"), RG_ESCHEMA);
    conn = was;
    rg__mysql_release(c);
    rg__mysql_pool_free(p);
}

TEST(an_open_transaction_is_rolled_back_on_release) {
    rg__mysql_pool *p = pool_of(1);
    rg__mysql *c = acquire(p);
    run("CREATE TABLE rg_open (id INT PRIMARY KEY) ENGINE=InnoDB");
    ok(rg__mysql_begin(c, &ctx, &err));
    CHECK(rg__mysql_in_transaction(c));
    CHECK_EQ_INT(rg__mysql_begin(c, &ctx, &err), RG_EMISUSE);
    run_on(c, "INSERT INTO rg_open VALUES (1)");
    rg__mysql_release(c);
    c = acquire(p);
    CHECK(!rg__mysql_in_transaction(c));
    CHECK_STR(one("SELECT COUNT(*) FROM rg_open"), "0");
    rg__mysql_release(c);
    rg__mysql_pool_free(p);
    run("DROP TABLE rg_open");
}

/* ---- results ---- */

static void check_cell(const rg__result *r, size_t row, uint32_t col, int kind, const char *text) {
    rg__slice cell = r->cells[row * r->n_columns + col];
    unit_int(r->kinds[col], kind, __FILE__, __LINE__, r->names[col]);
    if (!text)
        CHECK(cell.p == NULL);
    else if (CHECK(cell.p != NULL))
        unit_bytes(cell.p, cell.len, text, strlen(text), __FILE__, __LINE__, r->names[col]);
}

static void check_kinds(const rg__param *params, size_t n) {
    static const char sql[] =
        "SELECT i, u, f, d, m, s, b, dt, da, ti, y, bi, e, j, n, ts FROM rg_cells WHERE 1=1";
    char text[256];
    snprintf(text, sizeof text, "%s%s", sql, n ? " AND i=?" : "");
    rg__result *r = query(text, params, n);
    if (!r) return;
    CHECK_EQ_INT(r->n_rows, 1);
    CHECK_EQ_INT(r->n_columns, 16);
    check_cell(r, 0, 0, RG__CELL_I64, "-9223372036854775808");
    check_cell(r, 0, 1, RG__CELL_U64, "18446744073709551615");
    check_cell(r, 0, 2, RG__CELL_DOUBLE, "0.1");
    check_cell(r, 0, 3, RG__CELL_DOUBLE,
               n ? "1e+300" : "1e300"); /* each side writes its own digits */
    check_cell(r, 0, 4, RG__CELL_DECIMAL, "-12345678901234567890.10");
    check_cell(r, 0, 5, RG__CELL_TEXT, "it's \xf0\x9f\x98\x80");
    check_cell(r, 0, 6, RG__CELL_BYTES, "\xff\x01");
    check_cell(r, 0, 7, RG__CELL_TIME, "2024-02-29 23:59:59.120");
    check_cell(r, 0, 8, RG__CELL_TIME, "2024-02-29");
    check_cell(r, 0, 9, RG__CELL_TIME, "-838:59:59");
    check_cell(r, 0, 10, RG__CELL_U64, "2024");
    check_cell(r, 0, 11, RG__CELL_U64, "513");
    check_cell(r, 0, 12, RG__CELL_TEXT, "b");
    check_cell(r, 0, 13, RG__CELL_JSON, "{\"a\": 1}");
    check_cell(r, 0, 14, RG__CELL_I64, NULL);
    check_cell(r, 0, 15, RG__CELL_TIME, "2024-02-29 23:59:59");
    CHECK_STR(r->names[0], "i");
    rg__result_free(r);
}

TEST(cells_have_kinds_in_both_protocols) {
    const rg__param p = {.kind = RG__P_I64, .i = INT64_MIN};
    run("CREATE TABLE rg_cells (i BIGINT, u BIGINT UNSIGNED, f FLOAT, d DOUBLE, m DECIMAL(22,2), s "
        "VARCHAR(20), "
        "b VARBINARY(9), dt DATETIME(3), da DATE, ti TIME, y YEAR, bi BIT(10), e ENUM('a','b'), j "
        "JSON, n INT, "
        "ts TIMESTAMP NULL) CHARSET utf8mb4");
    run("INSERT INTO rg_cells VALUES (-9223372036854775808, 18446744073709551615, 0.1, 1e300, "
        "-12345678901234567890.1, 'it''s \xf0\x9f\x98\x80', X'ff01', '2024-02-29 23:59:59.12', "
        "'2024-02-29', "
        "'-838:59:59', 2024, 513, 'b', '{\"a\": 1}', NULL, '2024-02-29 23:59:59')");
    check_kinds(NULL, 0);
    check_kinds(&p, 1);
    run("DROP TABLE rg_cells");
}

TEST(parameters_arrive_as_they_are) {
    static const char bytes[] = "\0\xff'\\";
    const rg__param p[] = {
        {.kind = RG__P_NULL},
        {.kind = RG__P_I64, .i = INT64_MIN},
        {.kind = RG__P_U64, .u = UINT64_MAX},
        {.kind = RG__P_DOUBLE, .d = 0.1},
        {.kind = RG__P_STRING, .s = {"it's \\ \xf0\x9f\x98\x80", 11}},
        {.kind = RG__P_BYTES, .s = {bytes, 4}},
        {.kind = RG__P_STRING, .s = {NULL, 0}},
    };
    rg__result *r = query("SELECT ? IS NULL, ?, ?, ?, ?, HEX(?), ?", p, 7);
    REQUIRE(r && r->n_rows == 1);
    static const char *const want[] = {"1",   "-9223372036854775808",     "18446744073709551615",
                                       "0.1", "it's \\ \xf0\x9f\x98\x80", "00FF275C",
                                       ""};
    for (int i = 0; i < 7; i++)
        unit_bytes(r->cells[i].p, r->cells[i].len, want[i], strlen(want[i]), __FILE__, __LINE__,
                   r->names[i]);
    rg__result_free(r);
    CHECK_EQ_INT(rg__mysql_query(conn, &ctx, "SELECT ?", 8, p, 2, false, NULL, &err), RG_EINVALID);
    CHECK_STR(err.message, "1 placeholder, 2 values");
}

TEST(long_cells_are_whole) {
    const rg__param p = {.kind = RG__P_I64, .i = 300000};
    rg__result *r = query("SELECT REPEAT('x', ?), REPEAT('y', 257), 'z'", &p, 1);
    REQUIRE(r && r->n_rows == 1);
    CHECK_EQ_INT(r->cells[0].len, 300000);
    CHECK(r->cells[0].p[299999] == 'x');
    CHECK_EQ_INT(r->cells[1].len, 257);
    CHECK_EQ_INT(r->cells[2].len, 1);
    rg__result_free(r);
}

TEST(answers_tell_what_was_done) {
    run("CREATE TABLE rg_done (id INT AUTO_INCREMENT PRIMARY KEY, v INT) ENGINE=InnoDB");
    rg__result *r = query("INSERT INTO rg_done (v) VALUES (1),(2),(3)", NULL, 0);
    REQUIRE(r);
    CHECK_EQ_INT(r->affected, 3);
    CHECK_EQ_INT(r->insert_id, 1);
    CHECK_EQ_INT(r->n_columns, 0);
    rg__result_free(r);
    rg__param p = {.kind = RG__P_I64, .i = 2};
    r = query("UPDATE rg_done SET v=? WHERE v>=2", &p, 1);
    REQUIRE(r);
    CHECK_EQ_INT(r->affected, 2); /* found, not changed */
    CHECK_STR(r->info, "Rows matched: 2  Changed: 1  Warnings: 0");
    rg__result_free(r);
    r = query("SELECT REPEAT('x', 1 << 40)", NULL, 0);
    REQUIRE(r);
    CHECK(r->warnings > 0 && r->cells[0].p == NULL);
    rg__result_free(r);
    run("DROP TABLE rg_done");
}

TEST(procedures_yield_several_results) {
    run("CREATE PROCEDURE rg_proc(n INT) BEGIN SELECT n, 'a'; SELECT n+1; SELECT 1 FROM DUAL WHERE "
        "0; END");
    const rg__param p = {.kind = RG__P_I64, .i = 41};
    for (int prepared = 0; prepared < 2; prepared++) {
        rg__result *r =
            prepared ? query("CALL rg_proc(?)", &p, 1) : query("CALL rg_proc(41)", NULL, 0);
        REQUIRE(r && r->next && r->next->next);
        CHECK_EQ_INT(r->n_columns, 2);
        CHECK_BYTES(r->next->cells[0].p, r->next->cells[0].len, "42");
        CHECK_EQ_INT(r->next->next->n_rows, 0);
        CHECK(r->next->next->next == NULL);
        rg__result_free(r);
        CHECK_STR(one("SELECT 7"), "7");
    }
    run("DROP PROCEDURE rg_proc");
}

TEST(results_are_bounded) {
    rg__mysql_pool *p = pool_of(1);
    rg__mysql *c = acquire(p);
    static const char sql[] =
        "WITH d AS (SELECT 0 x UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION "
        "SELECT 5 UNION "
        "SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9 UNION SELECT 10) "
        "SELECT 1 FROM d a, d b, d c, d e, d f, d g";
    rg__result *r = NULL;
    CHECK_EQ_INT(rg__mysql_query(c, &ctx, sql, sizeof sql - 1, NULL, 0, false, &r, &err),
                 RG_ELIMIT);
    CHECK(r == NULL && rg__mysql_broken(c));
    rg__mysql_release(c);
    c = acquire(p);
    CHECK_EQ_INT(run_on(c, "SELECT 1"), 0);
    rg__mysql_release(c);
    rg__mysql_pool_free(p);
}

/* ---- statements by kind; what is refused ---- */

TEST(kinds_of_statements) {
    static const struct {
        const char *sql;
        rg__sql_kind kind;
    } rows[] = {
        {"select 1", RG__SQL_READ},
        {"  /* x */ -- y\n # z\n (((SELECT 1)))", RG__SQL_READ},
        {"/*!50000 INSERT */ INTO t VALUES (1)", RG__SQL_WRITE},
        {"WITH a AS (SELECT 1) SELECT * FROM a", RG__SQL_READ},
        {"WITH a AS (SELECT 1), b AS (SELECT 2) DELETE FROM t", RG__SQL_WRITE},
        {"show tables", RG__SQL_READ},
        {"Replace into t values (1)", RG__SQL_WRITE},
        {"truncate t", RG__SQL_DDL},
        {"START TRANSACTION READ ONLY", RG__SQL_TX},
        {"start slave", RG__SQL_OTHER},
        {"begin", RG__SQL_TX},
        {"BEGIN NOT ATOMIC SELECT 1; END", RG__SQL_OTHER},
        {"savepoint a", RG__SQL_TX},
        {"set @a = 1", RG__SQL_SET},
        {"call p()", RG__SQL_CALL},
        {"do sleep(1)", RG__SQL_OTHER},
        {"", RG__SQL_OTHER},
        {"/* never ends", RG__SQL_OTHER},
        {"selection", RG__SQL_OTHER},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        unit_int(rg__sql_statement_kind(rows[i].sql, strlen(rows[i].sql)), rows[i].kind, __FILE__,
                 __LINE__, rows[i].sql);
}

TEST(guarded_statements) {
    static const char *const refused[] = {
        "SET NAMES latin1",
        "set session sql_mode = ''",
        "SET @@sql_mode=''",
        "SET @@session.sql_mode=''",
        "SET `sql_mode`=''",
        "set global time_zone='+00:00'",
        "SET @x=1, autocommit=0",
        "SET CHARACTER SET latin1",
        "SET CHARSET latin1",
        "SET collation_connection=utf8mb4_bin",
        "SET character_set_results=latin1",
        "/*!50000 SET */ NAMES latin1",
        "/* a */ SET /* b */ NAMES /* c */ latin1",
        "LOAD DATA LOCAL INFILE 'x' INTO "
        "TABLE t",
        "load data concurrent local infile 'x' into table t",
        "LOAD XML LOCAL INFILE 'x' INTO TABLE t",
        "USE mysql",
        "BEGIN",
        "COMMIT",
        "DROP TABLE t",
        "SET STATEMENT sql_mode='' FOR SELECT 1",
    };
    static const char *const fine[] = {
        "SELECT 'SET NAMES latin1'",
        "UPDATE t SET names=1, time_zone='x'",
        "SET @a='sql_mode'",
        "SELECT @@sql_mode",
        "INSERT INTO t SET autocommit=1",
        "LOAD DATA INFILE 'local' INTO TABLE t",
        "CALL p()",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        unit_int(rg__sql_check_guarded(refused[i], strlen(refused[i]), &err), RG_EINVALID, __FILE__,
                 __LINE__, refused[i]);
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        unit_int(rg__sql_check_guarded(fine[i], strlen(fine[i]), &err), 0, __FILE__, __LINE__,
                 fine[i]);
    CHECK_EQ_INT(rg__mysql_query(conn, &ctx, "SET NAMES latin1", 16, NULL, 0, true, NULL, &err),
                 RG_EINVALID);
}

TEST(logs_hold_no_literals) {
    static const struct {
        const char *sql, *shown;
    } rows[] = {
        {"SELECT 'secret', 42, x'FF', `col1` FROM t2 WHERE a=\"secret\" -- secret",
         "SELECT ?, ?, x?, `col1` FROM t2 WHERE a=? -- secret"},
        {"SELECT 1.5e-10, .5, 0x1F, 'it''s \\' x'", "SELECT ?, ?, ?, ?"},
        {"SELECT 'never ends", "SELECT?"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rg__buf out = {0};
        rg__sql_redact(rows[i].sql, strlen(rows[i].sql), &out);
        CHECK_STR(rg__buf_cstr(&out), rows[i].shown);
        rg__buf_deinit(&out);
    }
}

TEST(the_query_log_and_the_counters) {
    rg__trace trace = {.mask = RG__SOURCE_MYSQL};
    rg__ctx traced = {.deadline_ms = RG__NO_DEADLINE, .metrics = &metrics, .trace = &trace};
    unsigned long long before = metrics.counter[RG__C_MYSQL_QUERIES],
                       failed = metrics.counter[RG__C_MYSQL_ERRORS];
    rg__mysql_exec(conn, &traced, "SELECT 'secret'", 15, NULL, &err);
    rg__mysql_exec(conn, &traced, "SELECT nope", 11, NULL, &err);
    trace.values = true;
    rg__mysql_exec(conn, &traced, "SELECT 'shown'", 14, NULL, &err);
    REQUIRE(trace.n == 3);
    CHECK_STR(trace.events[0].text, "SELECT ?");
    CHECK_STR(trace.events[0].op, "READ");
    CHECK_STR(trace.events[0].pool, "default");
    CHECK_EQ_INT(trace.events[0].rows, 1);
    CHECK(trace.events[0].error == NULL && trace.events[0].duration_us >= 0);
    CHECK(trace.events[1].error && strstr(trace.events[1].error, "nope"));
    CHECK_STR(trace.events[2].text, "SELECT 'shown'");
    CHECK_EQ_INT(metrics.counter[RG__C_MYSQL_QUERIES] - before, 3);
    CHECK_EQ_INT(metrics.counter[RG__C_MYSQL_ERRORS] - failed, 1);
    rg__trace_deinit(&trace);
}

/* ---- errors and transactions ---- */

static void make_tables(void) {
    run("CREATE TABLE rg_a (id INT PRIMARY KEY, n INT NOT NULL, s VARCHAR(4), e ENUM('x','y'), d "
        "DATE, "
        "u BIGINT UNSIGNED, ti TINYINT, v INT, CONSTRAINT rg_ck CHECK (v < 100)) ENGINE=InnoDB");
    run("INSERT INTO rg_a VALUES (1,1,'a','x','2020-01-01',0,1,1), "
        "(2,2,'b','y','2020-01-01',5,1,1)");
    run("CREATE TABLE rg_p (id INT PRIMARY KEY) ENGINE=InnoDB");
    run("CREATE TABLE rg_c (id INT PRIMARY KEY, pid INT, CONSTRAINT rg_fk FOREIGN KEY (pid) "
        "REFERENCES rg_p (id)) "
        "ENGINE=InnoDB");
    run("INSERT INTO rg_p VALUES (1)");
    run("INSERT INTO rg_c VALUES (1,1)");
}

static void drop_tables(void) {
    run("DROP TABLE IF EXISTS rg_c, rg_p, rg_a");
}

TEST(provoked_errors_keep_the_transaction) {
    static const struct {
        const char *sql;
        unsigned number;
        int code;
        const char *field, *index;
    } rows[] = {
        {"INSERT INTO rg_a (id,n) VALUES (1,1)", 1062, RG_EDUPLICATE_KEY, "", "PRIMARY"},
        {"INSERT INTO rg_a (id,n) VALUES (9,NULL)", 1048, RG_ECONSTRAINT, "n", ""},
        {"INSERT INTO rg_a (id) VALUES (9)", 1364, RG_ECONSTRAINT, "n", ""},
        {"UPDATE rg_a SET zz=1", 1054, RG_ESCHEMA, "zz", ""},
        {"UPDAT rg_a SET n=1", 1064, RG_ESQL, "", ""},
        {"INSERT INTO rg_nope VALUES (1)", 1146, RG_ESCHEMA, "", ""},
        {"INSERT INTO rg_a VALUES (1)", 1136, RG_ESQL, "", ""},
        {"INSERT INTO rg_c VALUES (2,77)", 1452, RG_EFOREIGN_KEY, "pid", "rg_fk"},
        {"DELETE FROM rg_p WHERE id=1", 1451, RG_EFOREIGN_KEY, "pid", "rg_fk"},
        {"INSERT INTO rg_a (id,n,ti) VALUES (3,1,999)", 1264, RG_ECONSTRAINT, "ti", ""},
        {"INSERT INTO rg_a (id,n,s) VALUES (3,1,'abcdefg')", 1406, RG_ECONSTRAINT, "s", ""},
        {"INSERT INTO rg_a (id,n,e) VALUES (3,1,'q')", 1265, RG_ECONSTRAINT, "e", ""},
        {"INSERT INTO rg_a (id,n,d) VALUES (3,1,'2020-13-45')", 1292, RG_ECONSTRAINT, "d", ""},
        {"INSERT INTO rg_a (id,n) VALUES (3,'secret')", 1366, RG_ECONSTRAINT, "n", ""},
        {"UPDATE rg_a SET u=u-1 WHERE id=1", 1690, RG_ECONSTRAINT, "", ""},
        {"INSERT INTO rg_a (id,n) VALUES (3,1/0)", 1365, RG_ECONSTRAINT, "", ""},
        {"INSERT INTO rg_a (id,n,v) VALUES (3,1,500)", 0, RG_ECONSTRAINT, "", "rg_ck"},
        {"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='x'", 1644, RG_ECONSTRAINT, "", ""},
        {"ROLLBACK TO SAVEPOINT zz", 1305, RG_ESQL, "", ""},
    };
    make_tables();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ok(rg__mysql_begin(conn, &ctx, &err));
        int code = run_on(conn, rows[i].sql);
        unit_int(code, rows[i].code, __FILE__, __LINE__, rows[i].sql);
        if (rows[i].number)
            unit_int(err.sql_errno, rows[i].number, __FILE__, __LINE__, rows[i].sql);
        CHECK_STR(err.field, rows[i].field);
        CHECK_STR(err.index, rows[i].index);
        CHECK_EQ_INT(err.cls, RG_CLASS_PERMANENT);
        CHECK_EQ_INT(strlen(err.sqlstate), 5);
        CHECK(!strstr(err.message, "secret"));
        CHECK(rg__mysql_in_transaction(conn) && !rg__mysql_doomed(conn));
        ok(rg__mysql_commit(conn, &ctx, &err));
        CHECK(!rg__mysql_in_transaction(conn));
    }
    drop_tables();
}

typedef struct rival {
    pthread_t thread;
    rg__mysql *c;
    const char *sql;
    int code;
} rival;

static void *run_rival(void *arg) {
    rival *r = arg;
    rg_err mine;
    rg__mysql_thread_begin();
    r->code = rg__mysql_exec(r->c, &ctx, r->sql, strlen(r->sql), NULL, &mine);
    rg__mysql_thread_end();
    return NULL;
}

TEST(a_deadlock_dooms_the_transaction) {
    rival r = {.c = acquire(pool), .sql = "UPDATE rg_a SET n=n+1 WHERE id=2"};
    make_tables();
    ok(rg__mysql_begin(r.c, &ctx, &err));
    run_on(r.c, "UPDATE rg_a SET n=n+1 WHERE id=1");
    run_on(
        r.c,
        "INSERT INTO rg_p VALUES (51),(52),(53)"); /* more to undo: the other one is the victim */
    ok(rg__mysql_begin(conn, &ctx, &err));
    run("INSERT INTO rg_p VALUES (50)");
    run("UPDATE rg_a SET n=n+1 WHERE id=2");
    pthread_create(&r.thread, NULL, run_rival, &r);
    usleep(200000);
    CHECK_EQ_INT(run_on(conn, "UPDATE rg_a SET n=n+1 WHERE id=1"), RG_EDEADLOCK);
    CHECK_EQ_INT(err.cls, RG_CLASS_RETRY);
    CHECK_EQ_INT(err.retriable, 1);
    pthread_join(r.thread, NULL);
    CHECK_EQ_INT(r.code, 0);
    CHECK(rg__mysql_doomed(conn) && !rg__mysql_in_transaction(conn));
    CHECK_EQ_INT(run_on(conn, "INSERT INTO rg_p VALUES (60)"),
                 RG_EDEADLOCK); /* would be autocommitted */
    CHECK_EQ_INT(rg__mysql_commit(conn, &ctx, &err), RG_EDEADLOCK);
    rg__mysql_rollback(conn, &ctx);
    CHECK(!rg__mysql_doomed(conn));
    rg__mysql_rollback(r.c, &ctx);
    CHECK_STR(one("SELECT COUNT(*) FROM rg_p WHERE id>=50"), "0");
    rg__mysql_release(r.c);
    drop_tables();
}

TEST(a_lock_wait_leaves_the_transaction_open) {
    rg__mysql *other = acquire(pool);
    make_tables();
    ok(rg__mysql_begin(other, &ctx, &err));
    run_on(other, "UPDATE rg_a SET n=n+1 WHERE id=1");
    run("SET innodb_lock_wait_timeout=1");
    ok(rg__mysql_begin(conn, &ctx, &err));
    run("INSERT INTO rg_p VALUES (70)");
    CHECK_EQ_INT(run_on(conn, "UPDATE rg_a SET n=n+1 WHERE id=1"), RG_EDEADLOCK);
    CHECK_EQ_INT(err.sql_errno, 1205);
    CHECK(rg__mysql_in_transaction(conn) && !rg__mysql_doomed(conn));
    rg__mysql_rollback(conn, &ctx);
    rg__mysql_rollback(other, &ctx);
    rg__mysql_release(other);
    run("SET innodb_lock_wait_timeout=50");
    drop_tables();
}

/* ---- deadlines ---- */

static int64_t count_of(const char *sql) {
    return strtoll(one(sql), NULL, 10);
}

TEST(a_late_statement_is_given_up_and_stopped) {
    rg__mysql *c = acquire(pool);
    rg__ctx soon = within(150);
    int64_t started = rg__now_ms();
    CHECK_EQ_INT(rg__mysql_exec(c, &soon, "SELECT SLEEP(20) AS rg_late", 27, NULL, &err),
                 RG_ETIMEOUT);
    int64_t took = rg__now_ms() - started;
    if (!CHECK(took >= 149 && took < 150 + BUSY_MS)) printf("# %lld ms\n", (long long)took);
    CHECK_EQ_INT(err.cls, RG_CLASS_RECONNECT);
    CHECK(rg__mysql_broken(c));
    CHECK_EQ_INT(run_on(c, "SELECT 1"), RG_EUNAVAILABLE);
    rg__mysql_release(c);
    rg__mysql_release(acquire(pool)); /* at the latest this one stops it */
    usleep(50000);
    CHECK_EQ_INT(count_of("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE "
                          "'SELECT SLEEP(20) AS "
                          "rg_l%'"),
                 0);
}

TEST(a_late_write_may_have_been_done) {
    rg__mysql *c = acquire(pool);
    make_tables();
    rg__ctx soon = within(100);
    static const char sql[] = "UPDATE rg_a SET n=n+SLEEP(5) WHERE id=1";
    CHECK_EQ_INT(rg__mysql_exec(c, &soon, sql, sizeof sql - 1, NULL, &err), RG_ECOMMIT_UNKNOWN);
    CHECK_EQ_INT(err.cls, RG_CLASS_AMBIGUOUS);
    rg__mysql_release(c);
    c = acquire(pool);
    ok(rg__mysql_begin(c, &ctx, &err));
    soon = within(100); /* inside a transaction nothing stays */
    CHECK_EQ_INT(rg__mysql_exec(c, &soon, sql, sizeof sql - 1, NULL, &err), RG_ETIMEOUT);
    rg__mysql_release(c);
    drop_tables();
}

TEST(nothing_is_sent_past_the_deadline) {
    rg__ctx past = {.deadline_ms = rg__now_ms() - 1};
    rg__mysql *c = NULL;
    CHECK_EQ_INT(rg__mysql_exec(conn, &past, "SELECT 1", 8, NULL, &err), RG_ETIMEOUT);
    CHECK(!rg__mysql_broken(conn));
    CHECK_STR(one("SELECT 1"), "1");
    rg_pool_opts o = options();
    o.unix_path = "/nonexistent/socket";
    rg__mysql_pool *p = rg__mysql_pool_new(&o, &err);
    CHECK(rg__mysql_acquire(p, &past, &c, &err) != 0 && c == NULL);
    rg__mysql_pool_free(p);
}

/* ---- the pool ---- */

typedef struct borrower {
    pthread_t thread;
    rg__mysql_pool *pool;
    int rounds, done, late;
} borrower;

static atomic_int lent, most_lent;

static void *borrow(void *arg) {
    borrower *b = arg;
    rg_err mine;
    for (int i = 0; i < b->rounds; i++) {
        rg__ctx c = within(5000);
        rg__mysql *x = NULL;
        if (rg__mysql_acquire(b->pool, &c, &x, &mine)) {
            b->late++;
            continue;
        }
        int now = atomic_fetch_add(&lent, 1) + 1, most = atomic_load(&most_lent);
        while (now > most && !atomic_compare_exchange_weak(&most_lent, &most, now)) {
        }
        b->done += rg__mysql_exec(x, &c, "DO 1", 4, NULL, &mine) == 0;
        atomic_fetch_sub(&lent, 1);
        rg__mysql_release(x);
    }
    rg__mysql_thread_end();
    return NULL;
}

TEST(four_threads_share_two_connections) {
    borrower b[4];
    uint32_t busy, idle;
    rg__mysql_pool *p = pool_of(2);
    unsigned long long connects = metrics.counter[RG__C_MYSQL_CONNECTS];
    for (int i = 0; i < 4; i++) {
        b[i] = (borrower){.pool = p, .rounds = 500};
        pthread_create(&b[i].thread, NULL, borrow, &b[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(b[i].thread, NULL);
        CHECK_EQ_INT(b[i].done, 500);
        CHECK_EQ_INT(b[i].late, 0);
    }
    CHECK_EQ_INT(most_lent, 2);
    CHECK_EQ_INT(metrics.counter[RG__C_MYSQL_CONNECTS] - connects, 2);
    rg__mysql_pool_stats(p, &busy, &idle);
    CHECK_EQ_INT(busy, 0);
    CHECK_EQ_INT(idle, 2);
    rg__mysql_pool_free(p);
}

TEST(a_full_pool_is_waited_for_until_the_deadline) {
    rg__mysql_pool *p = pool_of(1);
    rg__mysql *c = acquire(p), *second = NULL;
    rg__ctx soon = within(120);
    int64_t started = rg__now_ms();
    CHECK_EQ_INT(rg__mysql_acquire(p, &soon, &second, &err), RG_ETIMEOUT);
    int64_t took = rg__now_ms() - started;
    CHECK(took >= 119 && took < 120 + BUSY_MS);
    CHECK(strncmp(err.message, "pool 'default': all 1 connections are busy", 42) == 0);
    rg__mysql_poison(c);
    rg__mysql_release(c); /* a place becomes free, though no connection */
    CHECK_EQ_INT(rg__mysql_acquire(p, &soon, &second, &err),
                 RG_ETIMEOUT); /* connecting is past it, too */
    second = acquire(p);
    rg__mysql_release(second);
    rg__mysql_pool_free(p);
}

typedef struct waiting {
    pthread_t thread;
    rg__mysql_pool *pool;
    int number, code;
} waiting;
static atomic_int served;

static void *wait_for_one(void *arg) {
    waiting *w = arg;
    rg__mysql *c = NULL;
    rg_err mine;
    w->code = rg__mysql_acquire(w->pool, &ctx, &c, &mine);
    if (w->code == 0) {
        w->number = atomic_fetch_add(&served, 1);
        usleep(20000);
        rg__mysql_release(c);
    }
    rg__mysql_thread_end();
    return NULL;
}

/* Until so many wait. */
static void await_waiters(rg__mysql_pool *p, uint32_t n) {
    rg__pool_figures f = {0};
    for (int i = 0; i < 2000 && f.waiting < n; i++) {
        usleep(1000);
        rg__mysql_pool_figures(p, &f);
    }
    CHECK_EQ_INT(f.waiting, n);
}

/* Until the server counts so many. */
static void await_count(const char *sql, const char *n) {
    for (int i = 0; i < 2000 && strcmp(one(sql), n) != 0; i++) usleep(1000);
    CHECK_STR(one(sql), n);
}

TEST(waiters_are_served_in_order_and_sent_off_at_shutdown) {
    rg__mysql_pool *p = pool_of(1);
    rg__mysql *c = acquire(p);
    waiting w[4];
    for (int i = 0; i < 4; i++) {
        w[i] = (waiting){.pool = p};
        pthread_create(&w[i].thread, NULL, wait_for_one, &w[i]);
        await_waiters(p, (uint32_t)i + 1);
    }
    rg__mysql_release(c);
    for (int i = 0; i < 4; i++) {
        pthread_join(w[i].thread, NULL);
        CHECK_EQ_INT(w[i].number, i);
    }
    c = acquire(p);
    w[0] = (waiting){.pool = p};
    pthread_create(&w[0].thread, NULL, wait_for_one, &w[0]);
    rival r = {.c = c, .sql = "SELECT SLEEP(20)"};
    pthread_create(&r.thread, NULL, run_rival, &r);
    await_waiters(p, 1);
    await_count("SELECT COUNT(*) FROM information_schema.processlist WHERE info='SELECT SLEEP(20)'", "1");
    int64_t started = rg__now_ms();
    rg__mysql_pool_shutdown(p);
    pthread_join(w[0].thread, NULL);
    pthread_join(r.thread, NULL);
    CHECK(rg__now_ms() - started < 500 + BUSY_MS);
    CHECK_EQ_INT(w[0].code, RG_ECLOSED);
    CHECK_EQ_INT(r.code, RG_EUNAVAILABLE);
    CHECK_EQ_INT(rg__mysql_acquire(p, &ctx, &c, &err), RG_ECLOSED);
    rg__mysql_release(r.c);
    rg__mysql_pool_free(p);
}

TEST(dead_idle_connections_are_noticed) {
    char sql[128];
    rg__mysql_pool *p = pool_of(2);
    rg__mysql *a = acquire(p);
    unsigned long id = rg__mysql_thread_id(a);
    rg__mysql_release(a);
    ok(rg__mysql_kill(pool, &ctx, id, &err));
    snprintf(sql, sizeof sql, "SELECT COUNT(*) FROM information_schema.processlist WHERE id=%lu", id);
    await_count(sql, "0");
    a = acquire(p);
    CHECK(rg__mysql_thread_id(a) != id);
    CHECK_EQ_INT(run_on(a, "SELECT 1"), 0);
    rg__mysql_release(a);
    usleep(1100000); /* idle long enough to be asked */
    id = rg__mysql_thread_id(a = acquire(p));
    CHECK_EQ_INT(run_on(a, "SELECT 1"), 0);
    rg__mysql_release(a);
    ok(rg__mysql_kill(pool, &ctx, id + 100000, &err)); /* no such thread: it is over */
    rg__mysql_pool_free(p);
}

TEST(idle_connections_are_closed_after_a_while) {
    rg_pool_opts o = options();
    uint32_t busy, idle;
    o.idle_timeout_ms = 50;
    rg__mysql_pool *p = rg__mysql_pool_new(&o, &err);
    rg__mysql *a = acquire(p), *b = acquire(p);
    rg__mysql_release(a);
    usleep(80000);
    rg__mysql_release(b);
    rg__mysql_pool_stats(p, &busy, &idle);
    CHECK_EQ_INT(idle, 1);
    rg__mysql_pool_free(p);
}

TEST(a_refused_connect_is_not_tried_again_at_once) {
    rg_pool_opts o = options();
    rg__mysql *c = NULL;
    o.unix_path = "/nonexistent/socket";
    rg__mysql_pool *p = rg__mysql_pool_new(&o, &err);
    unsigned long long before = metrics.counter[RG__C_MYSQL_CONNECTS];
    for (int i = 0; i < 10; i++) {
        CHECK_EQ_INT(rg__mysql_acquire(p, &ctx, &c, &err), RG_EUNAVAILABLE);
        CHECK_EQ_INT(err.sql_errno, 2002);
    }
    CHECK(strstr(err.message, "pool 'default' (/nonexistent/socket): ") == err.message);
    CHECK_EQ_INT(metrics.counter[RG__C_MYSQL_CONNECTS] - before, 1);
    usleep(120000);
    rg__mysql_acquire(p, &ctx, &c, &err);
    CHECK_EQ_INT(metrics.counter[RG__C_MYSQL_CONNECTS] - before, 2);
    rg__mysql_pool_free(p);
}

TEST(a_wrong_password_is_not_repeated_in_the_message) {
    rg_pool_opts o = options();
    rg__mysql *c = NULL;
    o.user = "rg_nobody";
    o.password = "s3cr3t-canary";
    rg__mysql_pool *p = rg__mysql_pool_new(&o, &err);
    CHECK_EQ_INT(rg__mysql_acquire(p, &ctx, &c, &err), RG_EACCESS);
    CHECK_EQ_INT(err.cls, RG_CLASS_WAIT);
    CHECK(!strstr(err.message, "canary"));
    rg__mysql_pool_free(p);
    o = options();
    o.tls = RG_TLS_ENCRYPT; /* whatever the server offers: encrypted or refused */
    p = rg__mysql_pool_new(&o, &err);
    int code = rg__mysql_acquire(p, &ctx, &c, &err);
    CHECK(code == 0 || code == RG_EACCESS);
    if (code == 0) rg__mysql_release(c);
    rg__mysql_pool_free(p);
    o.unix_path = NULL;
    CHECK(rg__mysql_pool_new(&o, &err) == NULL);
    CHECK_EQ_INT(err.code, RG_ECONFIG);
}

/* ---- fork ---- */

static int child(rg__mysql_pool *p, rg__mysql *held) {
    rg__mysql *c = NULL;
    uint32_t busy, idle;
    unsigned long id = rg__mysql_thread_id(held);
    rg__mysql_pool_stats(p, &busy, &idle);
    if (busy || idle) return 2;
    if (rg__mysql_acquire(p, &ctx, &c, &err)) return 3;
    if (rg__mysql_thread_id(c) == id || run_on(c, "SELECT 1")) return 4;
    rg__mysql_release(c);
    rg__mysql_release(held);
    rg__mysql_pool_free(p);
    return 0;
}

TEST(a_forked_child_leaves_the_connections_alone) {
    rg__mysql_pool *p = pool_of(4);
    rg__mysql *held = acquire(p), *idle = acquire(p);
    unsigned long id = rg__mysql_thread_id(idle);
    int status = 0;
    rg__mysql_release(idle);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) _exit(child(p, held));
    waitpid(pid, &status, 0);
    CHECK_EQ_INT(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    CHECK_EQ_INT(run_on(held, "SELECT 1"), 0);
    idle = acquire(p);
    CHECK_EQ_INT(rg__mysql_thread_id(idle), id);
    CHECK_EQ_INT(run_on(idle, "SELECT 1"), 0);
    rg__mysql_release(held);
    rg__mysql_release(idle);
    rg__mysql_pool_free(p);
}

/* ---- prepared statements ---- */

static int64_t server_statements(void) {
    rg__result *r = query("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'", NULL, 0);
    int64_t n = r && r->n_rows ? strtoll(r->cells[1].p, NULL, 10) : -1;
    rg__result_free(r);
    return n;
}

/* Prepared on this connection and not closed. */
static int64_t statements_of(rg__mysql *c) {
    static const char sql[] = "SHOW SESSION STATUS WHERE Variable_name IN ('Com_stmt_prepare', 'Com_stmt_close')";
    rg__result *r = NULL;
    ok(rg__mysql_query(c, &ctx, sql, sizeof sql - 1, NULL, 0, false, &r, &err));
    int64_t n = -1;
    if (r && r->n_rows == 2) /* in order of their names */
        n = strtoll(r->cells[3].p, NULL, 10) - strtoll(r->cells[1].p, NULL, 10);
    rg__result_free(r);
    return n;
}

TEST(statements_are_kept_and_the_oldest_dropped) {
    rg_pool_opts o = options();
    const rg__param p = {.kind = RG__P_I64, .i = 1};
    o.max_statements = 4;
    rg__mysql_pool *few = rg__mysql_pool_new(&o, &err);
    rg__mysql *c = acquire(few);
    CHECK_EQ_INT(statements_of(c), 0);
    for (int i = 0; i < 40; i++) {
        char sql[64];
        int len = snprintf(sql, sizeof sql, "SELECT ? + %d", i % 8);
        ok(rg__mysql_query(c, &ctx, sql, (size_t)len, &p, 1, false, NULL, &err));
    }
    CHECK_EQ_INT(statements_of(c), 4);
    rg__mysql_release(c);
    rg__mysql_pool_free(few);
}

TEST(statements_survive_a_change_of_their_table) {
    const rg__param p = {.kind = RG__P_I64, .i = 1};
    run("CREATE TABLE rg_alter (id INT PRIMARY KEY, v INT)");
    run("INSERT INTO rg_alter VALUES (1, 2)");
    static const char *const changes[] = {"ALTER TABLE rg_alter ADD w DATE",
                                          "ALTER TABLE rg_alter MODIFY v BIGINT",
                                          "ALTER TABLE rg_alter DROP w, MODIFY v VARCHAR(300)"};
    static const int columns[] = {2, 3, 3, 2};
    for (int i = 0; i < 4; i++) {
        rg__result *r = query("SELECT * FROM rg_alter WHERE id=?", &p, 1);
        REQUIRE(r);
        CHECK_EQ_INT(r->n_columns, columns[i]);
        CHECK_BYTES(r->cells[1].p, r->cells[1].len, "2");
        rg__result_free(r);
        if (i < 3) run(changes[i]);
    }
    run("DROP TABLE rg_alter");
}

TEST(a_server_out_of_statements) {
    const rg__param p = {.kind = RG__P_I64, .i = 1};
    rg__result_free(query("SELECT ? /* kept */", &p, 1));
    char back[80];
    snprintf(back, sizeof back, "SET GLOBAL max_prepared_stmt_count=%s",
             one("SELECT @@max_prepared_stmt_count"));
    char sql[80];
    snprintf(sql, sizeof sql, "SET GLOBAL max_prepared_stmt_count=%lld",
             (long long)server_statements());
    run(sql);
    rg__result *r = query("SELECT ? /* ours are given up for it */", &p, 1);
    CHECK(r && r->n_rows == 1);
    rg__result_free(r);
    run("SET GLOBAL max_prepared_stmt_count=0");
    CHECK_EQ_INT(rg__mysql_query(conn, &ctx, "SELECT ? + 7", 12, &p, 1, false, NULL, &err),
                 RG_EUNAVAILABLE);
    CHECK_EQ_INT(err.sql_errno, 1461);
    run(back);
}

TEST(packets_too_large_are_not_sent) {
    size_t len = rg__mysql_max_packet(conn) + 10;
    char *sql = malloc(len);
    memset(sql, ' ', len);
    memcpy(sql, "SELECT 1", 8);
    CHECK_EQ_INT(rg__mysql_query(conn, &ctx, sql, len, NULL, 0, false, NULL, &err), RG_ELIMIT);
    CHECK_EQ_INT(err.cls, RG_CLASS_PERMANENT);
    const rg__param p = {.kind = RG__P_STRING, .s = {sql, len}};
    CHECK_EQ_INT(rg__mysql_query(conn, &ctx, "SELECT ?", 8, &p, 1, false, NULL, &err), RG_ELIMIT);
    CHECK_STR(one("SELECT 1"), "1");
    free(sql);
}

int main(int argc, char **argv) {
    path = getenv("REGOLITH_MYSQL_SOCKET");
    database = getenv("REGOLITH_MYSQL_DB");
    if (!path || !database) {
        printf("0 passed, 0 failed\n");
        return 0;
    }
    rg__mysql_library(&err);
    pool = pool_of(8);
    if (!pool || rg__mysql_acquire(pool, &ctx, &conn, &err)) {
        printf("# %s\n0 passed, 1 failed\n", err.message);
        return 1;
    }
    int rc = unit_main(argc, argv);
    rg__mysql_release(conn);
    rg__mysql_pool_free(pool);
    rg__mysql_thread_end();
    return rc;
}
