/* SPDX-License-Identifier: MIT */
/* Raw sides of compare-and-set: batches of N rows whose counter goes up when it is what was read.
 *   raw_cas single SECONDS ROWS TABLE N   N executions of one prepared UPDATE
 *   raw_cas json SECONDS ROWS TABLE N     one UPDATE ... JSON_TABLE for up to 64 rows, which tells by a bit
 *                                         for each row whether it matched */
#include "raw.h"

enum { ROWS_AT_ONCE = 64 };

static uint32_t *read_visits(MYSQL *my, uint32_t rows, const char *table) {
    char sql[128];
    uint32_t *visits = calloc(rows + 1, sizeof *visits);
    snprintf(sql, sizeof sql, "SELECT id, visits FROM %s WHERE id <= %u", table, rows);
    run_text(my, sql);
    MYSQL_RES *res = mysql_use_result(my);
    if (!res || !visits) die("mysql: %s", mysql_error(my));
    for (MYSQL_ROW row = mysql_fetch_row(res); row; row = mysql_fetch_row(res))
        visits[strtoul(row[0], NULL, 10)] = (uint32_t)strtoul(row[1], NULL, 10);
    mysql_free_result(res);
    return visits;
}

static MYSQL_STMT *prepare(MYSQL *my, const char *sql) {
    MYSQL_STMT *stmt = mysql_stmt_init(my);
    if (!stmt || mysql_stmt_prepare(stmt, sql, strlen(sql))) die("mysql: %s", mysql_error(my));
    return stmt;
}

static MYSQL_STMT *prepare_single(MYSQL *my, const char *table) {
    char sql[256];
    snprintf(sql, sizeof sql, "UPDATE %s SET visits=? WHERE id=? AND visits<=>?", table);
    return prepare(my, sql);
}

static MYSQL_STMT *prepare_json(MYSQL *my, const char *table) {
    char sql[768];
    snprintf(sql, sizeof sql,
             "UPDATE (SELECT LAST_INSERT_ID(0) i) z STRAIGHT_JOIN JSON_TABLE(?,'$[*]' COLUMNS("
             "k FOR ORDINALITY, id BIGINT UNSIGNED PATH '$[0]', v BIGINT UNSIGNED PATH '$[1]',"
             "e BIGINT UNSIGNED PATH '$[2]')) r STRAIGHT_JOIN %s t ON t.id=r.id AND t.visits<=>r.e "
             "SET t.visits=IF(LAST_INSERT_ID(LAST_INSERT_ID()|(1<<(r.k-1)))=0,NULL,r.v)",
             table);
    return prepare(my, sql);
}

static void run_single(MYSQL_STMT *stmt, uint32_t *visits, uint32_t first, unsigned n) {
    uint64_t now, id, before;
    MYSQL_BIND in[3] = {{.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &now, .is_unsigned = 1},
                        {.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &id, .is_unsigned = 1},
                        {.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &before, .is_unsigned = 1}};
    if (mysql_stmt_bind_param(stmt, in)) die("mysql: %s", mysql_stmt_error(stmt));
    for (unsigned i = 0; i < n; i++) {
        id = first + i;
        before = visits[id];
        now = before + 1;
        if (mysql_stmt_execute(stmt)) die("mysql: %s", mysql_stmt_error(stmt));
        if (mysql_stmt_affected_rows(stmt) == 1) visits[id]++;
    }
}

static void run_json(MYSQL_STMT *stmt, text *t, uint32_t *visits, uint32_t first, unsigned n) {
    t->len = 0;
    for (unsigned i = 0; i < n; i++)
        text_add(t, "%c[%u,%u,%u]", i ? ',' : '[', first + i, visits[first + i] + 1,
                 visits[first + i]);
    text_add(t, "]");
    unsigned long len = t->len;
    MYSQL_BIND in = {.buffer_type = MYSQL_TYPE_STRING,
                     .buffer = t->p,
                     .buffer_length = t->len,
                     .length = &len};
    if (mysql_stmt_bind_param(stmt, &in) || mysql_stmt_execute(stmt))
        die("mysql: %s", mysql_stmt_error(stmt));
    uint64_t marks = mysql_stmt_affected_rows(stmt) == n ? UINT64_MAX : mysql_stmt_insert_id(stmt);
    for (unsigned i = 0; i < n; i++)
        visits[first + i] += (uint32_t)(marks >> i & 1);
}

int main(int argc, char **argv) {
    if (argc < 6) die("usage: raw_cas single|json SECONDS ROWS TABLE N");
    uint32_t rows = (uint32_t)number_arg(argc, argv, 3, 0);
    unsigned n = (unsigned)number_arg(argc, argv, 5, 1);
    int single = !strcmp(argv[1], "single");
    MYSQL *my = mysql_open();
    uint32_t *visits = read_visits(my, rows, argv[4]);
    MYSQL_STMT *stmt = single ? prepare_single(my, argv[4]) : prepare_json(my, argv[4]);
    text t = {0};
    uint32_t at = 0;
    bench b = bench_start(number_arg(argc, argv, 2, 1));
    do {
        uint32_t first = at % (rows / n) * n + 1;
        for (unsigned done = 0, k; done < n; done += k) {
            k = n - done < ROWS_AT_ONCE ? n - done : ROWS_AT_ONCE;
            if (single)
                run_single(stmt, visits, first + done, k);
            else
                run_json(stmt, &t, visits, first + done, k);
        }
        at++;
    } while (bench_more(&b, n));
    bench_print(&b);
    mysql_stmt_close(stmt);
    mysql_close(my);
    free(visits);
    free(t.p);
    return 0;
}
