/* SPDX-License-Identifier: MIT */
/* The raw side of compare-and-set, which our side calls (see raw_turns.c): batches of rows whose counter goes up
 * when it is what was read. Either an execution of one prepared UPDATE for each row, or one UPDATE ... JSON_TABLE
 * for up to 64 rows, which tells by a bit for each row whether it matched. What a session is set to once (its mode,
 * its time zone) is left out: it costs nothing later. */
#include "raw.h"

#define EXPORT __attribute__((visibility("default")))

enum { ROWS_AT_ONCE = 64 };

static struct side {
    MYSQL *my;
    MYSQL_STMT *stmt;
    uint32_t *visits; /* by id */
    uint32_t rows, at;
    int single;
    text json;
} side;

EXPORT void raw_cas_open(const char *table, uint32_t rows, int single);
EXPORT void raw_cas_run(unsigned n, unsigned batches);
EXPORT void raw_cas_close(void);

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

/* As ours, it does not hold up 63 rows for the server's 50 seconds because somebody has locked another one. */
static MYSQL_STMT *prepare_json(MYSQL *my, const char *table) {
    int mariadb = strstr(mysql_get_server_info(my), "MariaDB") != NULL;
    char sql[768];
    snprintf(sql, sizeof sql,
             "%sUPDATE (SELECT LAST_INSERT_ID(0) i) z STRAIGHT_JOIN JSON_TABLE(?,'$[*]' COLUMNS("
             "k FOR ORDINALITY, id BIGINT UNSIGNED PATH '$[0]', v BIGINT UNSIGNED PATH '$[1]',"
             "e BIGINT UNSIGNED PATH '$[2]')) r STRAIGHT_JOIN %s t ON t.id=r.id AND t.visits<=>r.e "
             "SET t.visits=IF(LAST_INSERT_ID(LAST_INSERT_ID()|(1<<(r.k-1)))=0,NULL,r.v)",
             mariadb ? "SET STATEMENT innodb_lock_wait_timeout=1 FOR " : "", table);
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

/* Rows 1..rows of the table are taken one after the other, again and again. */
void raw_cas_open(const char *table, uint32_t rows, int single) {
    MYSQL *my = mysql_open();
    side = (struct side){.my = my, .rows = rows, .single = single};
    side.visits = read_visits(my, rows, table);
    side.stmt = single ? prepare_single(my, table) : prepare_json(my, table);
}

/* Batches of n rows. */
void raw_cas_run(unsigned n, unsigned batches) {
    for (unsigned i = 0; i < batches; i++, side.at++) {
        uint32_t first = side.at % (side.rows / n) * n + 1;
        for (unsigned done = 0, k; done < n; done += k) {
            k = n - done < ROWS_AT_ONCE ? n - done : ROWS_AT_ONCE;
            if (side.single)
                run_single(side.stmt, side.visits, first + done, k);
            else
                run_json(side.stmt, &side.json, side.visits, first + done, k);
        }
    }
}

void raw_cas_close(void) {
    mysql_stmt_close(side.stmt);
    mysql_close(side.my);
    free(side.visits);
    free(side.json.p);
    side = (struct side){0};
}
