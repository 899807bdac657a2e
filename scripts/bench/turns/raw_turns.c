/* SPDX-License-Identifier: MIT */
/* A raw side that our side calls, so that the two can take short turns in one process and a noisy disk
 * hits both: transactions of one INSERT, as a person would write them by hand. */
#include "raw.h"

#define EXPORT __attribute__((visibility("default")))

static MYSQL *my;
static text sql;
static uint64_t next_id = 1;

EXPORT void raw_turns_open(const char *table);
EXPORT void raw_turns_run(const char *table, unsigned n);
EXPORT void raw_turns_sql(const char *statement);
EXPORT void raw_turns_close(void);

/* The table is emptied. */
void raw_turns_open(const char *table) {
    my = mysql_open();
    text_add(&sql, "TRUNCATE TABLE %s", table);
    run_sql(my, sql.p, sql.len);
}

/* n transactions. */
void raw_turns_run(const char *table, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        run_text(my, "BEGIN");
        text_insert(&sql, my, table, next_id++, 1);
        run_sql(my, sql.p, sql.len);
        run_text(my, "COMMIT");
    }
}

void raw_turns_sql(const char *statement) { run_text(my, statement); }

void raw_turns_close(void) {
    free(sql.p);
    sql = (text){0};
    mysql_close(my);
}
