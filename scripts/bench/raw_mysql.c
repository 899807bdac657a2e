/* SPDX-License-Identifier: MIT */
/* Raw sides on MySQL with its client library:
 *   raw_mysql get|get_many SECONDS ROWS TABLE
 *   raw_mysql fill 0 ROWS TABLE                TABLE is emptied first
 *   raw_mysql insert SECONDS 0 TABLE            TABLE is emptied first
 *   raw_mysql update SECONDS ROWS TABLE BATCH   BATCH rows a statement, RAW_FLUSH a transaction */
#include "raw.h"

enum { N_COLUMNS = 11, CELL = 256 };

static MYSQL_STMT *prepare_get(MYSQL *my, const char *table) {
    MYSQL_STMT *stmt = mysql_stmt_init(my);
    char sql[256];
    int len = snprintf(sql, sizeof sql, "SELECT " RAW_COLUMNS " FROM %s WHERE id = ?", table);
    if (!stmt || mysql_stmt_prepare(stmt, sql, (unsigned long)len))
        die("mysql: %s", mysql_error(my));
    return stmt;
}

/* All columns into buffers, each as its own type. */
static void bind_cells(MYSQL_STMT *stmt) {
    static const enum enum_field_types kinds[N_COLUMNS] = {
        MYSQL_TYPE_LONGLONG, MYSQL_TYPE_STRING, MYSQL_TYPE_STRING,   MYSQL_TYPE_STRING,
        MYSQL_TYPE_STRING,   MYSQL_TYPE_LONG,   MYSQL_TYPE_LONGLONG, MYSQL_TYPE_DOUBLE,
        MYSQL_TYPE_TINY,     MYSQL_TYPE_STRING, MYSQL_TYPE_DATETIME};
    static char cells[N_COLUMNS][CELL];
    static unsigned long lens[N_COLUMNS];
    MYSQL_BIND out[N_COLUMNS];
    memset(out, 0, sizeof out);
    for (int i = 0; i < N_COLUMNS; i++) {
        out[i].buffer_type = kinds[i];
        out[i].buffer = cells[i];
        out[i].buffer_length = CELL;
        out[i].length = &lens[i];
    }
    if (mysql_stmt_bind_result(stmt, out)) die("mysql: %s", mysql_stmt_error(stmt));
}

static void fetch_one(MYSQL_STMT *stmt) {
    if (mysql_stmt_execute(stmt) || mysql_stmt_store_result(stmt) || mysql_stmt_fetch(stmt))
        die("mysql: a row is missing: %s", mysql_stmt_error(stmt));
    mysql_stmt_free_result(stmt);
}

/* One execution of a prepared statement at a time. */
static void get(bench b, uint32_t rows, const char *table) {
    MYSQL *my = mysql_open();
    MYSQL_STMT *stmt = prepare_get(my, table);
    uint64_t id;
    MYSQL_BIND in = {.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &id, .is_unsigned = 1};
    if (mysql_stmt_bind_param(stmt, &in)) die("mysql: %s", mysql_stmt_error(stmt));
    bind_cells(stmt);
    uint32_t state = 1, ids[RAW_MANY];
    do {
        many_ids(&state, rows, ids);
        for (int i = 0; i < RAW_MANY; i++) {
            id = ids[i];
            fetch_one(stmt);
        }
    } while (bench_more(&b, RAW_MANY));
    bench_print(&b);
    mysql_stmt_close(stmt);
    mysql_close(my);
}

static void read_rows(MYSQL *my) {
    MYSQL_RES *res = mysql_store_result(my);
    if (!res) die("mysql: %s", mysql_error(my));
    int n = 0;
    while (mysql_fetch_row(res)) {
        if (!mysql_fetch_lengths(res)) die("mysql: no lengths");
        n++;
    }
    if (n != RAW_MANY) die("mysql: %d rows of %d", n, RAW_MANY);
    mysql_free_result(res);
}

/* One IN query of RAW_MANY ids at a time, in text. */
static void get_many(bench b, uint32_t rows, const char *table) {
    MYSQL *my = mysql_open();
    uint32_t state = 1, ids[RAW_MANY];
    text sql = {0};
    do {
        many_ids(&state, rows, ids);
        sql.len = 0;
        text_add(&sql, "SELECT " RAW_COLUMNS " FROM %s WHERE id IN (", table);
        for (int i = 0; i < RAW_MANY; i++)
            text_add(&sql, "%s%u", i ? "," : "", ids[i]);
        text_add(&sql, ")");
        run_sql(my, sql.p, sql.len);
        read_rows(my);
    } while (bench_more(&b, RAW_MANY));
    bench_print(&b);
    free(sql.p);
    mysql_close(my);
}

/* One INSERT of RAW_FLUSH rows in one transaction at a time. */
static void insert(bench b, const char *table) {
    MYSQL *my = mysql_open();
    uint64_t id = 1;
    text sql = {0};
    text_add(&sql, "TRUNCATE TABLE %s", table);
    run_sql(my, sql.p, sql.len);
    b = bench_start(b.seconds);
    do {
        run_text(my, "START TRANSACTION");
        text_insert(&sql, my, table, id, RAW_FLUSH);
        run_sql(my, sql.p, sql.len);
        run_text(my, "COMMIT");
        id += RAW_FLUSH;
    } while (bench_more(&b, RAW_FLUSH));
    bench_print(&b);
    free(sql.p);
    mysql_close(my);
}

/* Makes rows 1..ROWS: what both sides of the other benchmarks work on. */
static void fill(uint32_t rows, const char *table) {
    MYSQL *my = mysql_open();
    text sql = {0};
    text_add(&sql, "TRUNCATE TABLE %s", table);
    run_sql(my, sql.p, sql.len);
    for (uint32_t id = 1; id <= rows; id += RAW_FLUSH) {
        uint32_t left = rows - id + 1;
        text_insert(&sql, my, table, id, left < RAW_FLUSH ? left : RAW_FLUSH);
        run_sql(my, sql.p, sql.len);
    }
    printf("rows=%u\n", rows);
    free(sql.p);
    mysql_close(my);
}

/* RAW_FLUSH rows in one transaction at a time, two columns of each; see prepare_update. */
static void update(bench b, uint32_t rows, const char *table, unsigned batch) {
    MYSQL *my = mysql_open();
    MYSQL_STMT *stmt = prepare_update(my, table);
    text changes = {0};
    uint32_t window = 0, windows = rows / RAW_FLUSH;
    do {
        run_text(my, "START TRANSACTION");
        for (unsigned done = 0; done < RAW_FLUSH; done += batch) {
            unsigned n = RAW_FLUSH - done < batch ? RAW_FLUSH - done : batch;
            text_changes(&changes, (window % windows) * RAW_FLUSH + done + 1, n,
                         window / windows + 1);
            run_update(stmt, &changes, n);
        }
        run_text(my, "COMMIT");
        window++;
    } while (bench_more(&b, RAW_FLUSH));
    bench_print(&b);
    free(changes.p);
    mysql_stmt_close(stmt);
    mysql_close(my);
}

/* For scripts/bench/main.lua: how the server is set up. */
static void settings(void) {
    MYSQL *my = mysql_open();
    run_text(
        my,
        "SELECT CONCAT('mysql ', VERSION(), ': innodb_flush_log_at_trx_commit=', "
        "@@innodb_flush_log_at_trx_commit, ' sync_binlog=', @@sync_binlog, ' log_bin=', @@log_bin, "
        "' innodb_doublewrite=', @@innodb_doublewrite)");
    MYSQL_RES *res = mysql_store_result(my);
    if (!res) die("mysql: %s", mysql_error(my));
    puts(mysql_fetch_row(res)[0]);
    mysql_free_result(res);
    mysql_close(my);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "settings")) return settings(), 0;
    if (argc < 5)
        die("usage: raw_mysql get|get_many|fill|insert|update SECONDS ROWS TABLE [BATCH]");
    bench b = bench_start(number_arg(argc, argv, 2, 1));
    uint32_t rows = (uint32_t)number_arg(argc, argv, 3, 0);
    if (!strcmp(argv[1], "get"))
        get(b, rows, argv[4]);
    else if (!strcmp(argv[1], "get_many"))
        get_many(b, rows, argv[4]);
    else if (!strcmp(argv[1], "insert"))
        insert(b, argv[4]);
    else if (!strcmp(argv[1], "fill"))
        fill(rows, argv[4]);
    else if (!strcmp(argv[1], "update"))
        update(b, rows, argv[4], (unsigned)number_arg(argc, argv, 5, 64));
    else
        die("raw_mysql: what is %s?", argv[1]);
    return 0;
}
