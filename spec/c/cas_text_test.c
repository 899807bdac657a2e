/* SPDX-License-Identifier: MIT */
/* The SQL of conditional writes in both dialects: how columns of each kind are compared and assigned. */
#include "mysql/castext.h"
#include "mysql/conn.h"
#include "unit.h"

static rg_type *type;
static rg__mysql mariadb = {.flavour = RG__MARIADB, .json_table = true};
static rg__mysql oracle = {.flavour = RG__MYSQL, .json_table = true};

static const char *const words[] = {"new", "done"};
static const struct {
    const char *name;
    int kind;
} columns[] = {{"s", RG_STRING}, {"n", RG_I32},   {"f", RG_FLOAT},  {"m", RG_DECIMAL}, {"d", RG_DATE},
               {"t", RG_TIME},   {"ts", RG_DATETIME}, {"j", RG_JSON}, {"b", RG_BINARY}, {"e", RG_ENUM},
               {"v", RG_U32}};
enum { S = 1, N, F, M, D, T, TS, J, B, E, V, COLUMNS };

static void make_type(void) {
    rg_type_opts o = {.size = sizeof o, .name = "thing"};
    type = rg_type_new(&o, NULL);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        rg_column_opts c = {.size = sizeof c, .name = columns[i].name, .kind = columns[i].kind,
                            .precision = 12, .scale = 2, .length = 20};
        if (columns[i].kind != RG_DECIMAL) c.precision = c.scale = 0;
        if (columns[i].kind != RG_STRING && columns[i].kind != RG_BINARY) c.length = 0;
        if (columns[i].kind == RG_ENUM) {
            c.values = words;
            c.n_values = 2;
        }
        if (i + 1 == V) c.flags = RG_COL_VERSION;
        CHECK(rg_type_column(type, &c, NULL) == RG_OK);
    }
    CHECK(rg_type_freeze(type, NULL) == RG_OK);
}

static const char *condition(const rg__mysql *c, uint32_t column, const char *prefix, const char *value) {
    static rg__buf sql;
    rg__buf_clear(&sql);
    rg__cas_condition(&sql, c, &type->columns[column], prefix, value);
    rg__buf_char(&sql, '\0');
    return sql.p;
}

static const char *text(rg__cas_text_fn fn, const rg__mysql *c, const rg__cas *cas) {
    static rg__buf sql;
    rg__buf_clear(&sql);
    fn(&sql, c, cas);
    rg__buf_char(&sql, '\0');
    return sql.p;
}

TEST(text_is_compared_by_its_bytes) {
    make_type();
    const char *want = "CAST(CONVERT(`s` USING utf8mb4) AS BINARY)<=>CAST(? AS BINARY)";
    CHECK_STR(condition(&mariadb, S, "", "?"), want);
    CHECK_STR(condition(&oracle, S, "", "?"), want);
}

TEST(numbers_and_times_are_compared_as_what_they_are) {
    const rg__mysql *both[] = {&mariadb, &oracle};
    for (size_t i = 0; i < 2; i++) {
        CHECK_STR(condition(both[i], N, "", "?"), "`n`<=>?");
        CHECK_STR(condition(both[i], M, "t.", "r.e4"), "t.`m`<=>CAST(r.e4 AS DECIMAL(12,2))");
        CHECK_STR(condition(both[i], D, "", "?"), "`d`<=>CAST(? AS DATE)");
        CHECK_STR(condition(both[i], T, "", "?"), "`t`<=>CAST(? AS TIME(6))");
        CHECK_STR(condition(both[i], TS, "", "?"), "`ts`<=>CAST(? AS DATETIME(6))");
        CHECK_STR(condition(both[i], B, "", "?"), "`b`<=>?");
    }
}

TEST(json_is_a_type_in_one_dialect_and_text_in_the_other) {
    CHECK_STR(condition(&oracle, J, "t.", "r.e8"), "t.`j`<=>CAST(r.e8 AS JSON)");
    CHECK_STR(condition(&mariadb, J, "", "?"),
              "CAST(COALESCE(JSON_COMPACT(`j`),`j`) AS BINARY)<=>CAST(JSON_COMPACT(?) AS BINARY)");
}

TEST(one_row_is_a_plain_update) {
    uint8_t mask[COLUMNS] = {[N] = 1}, expect[COLUMNS] = {[N] = 1};
    const rg__cas cas = {.t = type, .write = RG_UPDATE, .mask = mask, .expect = expect};
    const char *want = "UPDATE `thing` SET `n`=? WHERE `id`=? AND `n`<=>?";
    CHECK_STR(text(rg__cas_text, &mariadb, &cas), want);
    CHECK_STR(text(rg__cas_text, &oracle, &cas), want);
    const rg__cas gone = {.t = type, .write = RG_DELETE, .expect = expect};
    CHECK_STR(text(rg__cas_text, &oracle, &gone), "DELETE FROM `thing` WHERE `id`=? AND `n`<=>?");
}

TEST(many_rows_mark_those_that_matched) {
    uint8_t mask[COLUMNS] = {[N] = 1}, expect[COLUMNS] = {[N] = 1};
    const rg__cas cas = {.t = type, .write = RG_UPDATE, .mask = mask, .expect = expect};
    const char *want = "UPDATE (SELECT LAST_INSERT_ID(0) i) z STRAIGHT_JOIN JSON_TABLE(?,'$[*]' COLUMNS("
                       "k FOR ORDINALITY,id BIGINT UNSIGNED PATH '$[0]' ERROR ON ERROR,"
                       "c2 BIGINT PATH '$[1]' ERROR ON ERROR,e2 BIGINT PATH '$[2]' ERROR ON ERROR)) r "
                       "STRAIGHT_JOIN `thing` t ON t.`id`=r.id AND t.`n`<=>r.e2 "
                       "SET t.`n`=IF(LAST_INSERT_ID(LAST_INSERT_ID()|(1<<(r.k-1)))=0,NULL,r.c2)";
    CHECK_STR(text(rg__cas_text_many, &mariadb, &cas), want);
    CHECK_STR(text(rg__cas_text_many, &oracle, &cas), want);
}

TEST(many_rows_wait_for_locks_no_longer_than_they_may) {
    uint8_t mask[COLUMNS] = {[N] = 1}, expect[COLUMNS] = {[N] = 1};
    const rg__cas cas = {.t = type, .write = RG_UPDATE, .mask = mask, .expect = expect, .brief = true};
    const char *brief = "SET STATEMENT innodb_lock_wait_timeout=1 FOR UPDATE (SELECT ";
    CHECK(strncmp(text(rg__cas_text_many, &mariadb, &cas), brief, strlen(brief)) == 0);
    CHECK(strncmp(text(rg__cas_text_many, &oracle, &cas), "UPDATE (SELECT ", 15) == 0);
}

TEST(many_rows_of_json_and_bytes_are_converted_by_dialect) {
    uint8_t mask[COLUMNS] = {[J] = 1, [B] = 1}, expect[COLUMNS] = {[J] = 1, [B] = 1};
    const rg__cas cas = {.t = type, .write = RG_UPDATE, .mask = mask, .expect = expect, .bump = true};
    const char *sql = text(rg__cas_text_many, &oracle, &cas);
    CHECK(strstr(sql, " AND t.`j`<=>CAST(r.e8 AS JSON) AND t.`b`<=>UNHEX(r.e9)") != NULL);
    CHECK(strstr(sql, " SET t.`v`=t.`v`+(LAST_INSERT_ID(LAST_INSERT_ID()|(1<<(r.k-1)))<>0),"
                      "t.`j`=CAST(r.c8 AS JSON),t.`b`=UNHEX(r.c9)") != NULL);
    sql = text(rg__cas_text_many, &mariadb, &cas);
    CHECK(strstr(sql, "CAST(COALESCE(JSON_COMPACT(t.`j`),t.`j`) AS BINARY)<=>"
                      "CAST(JSON_COMPACT(r.e8) AS BINARY)") != NULL);
    CHECK(strstr(sql, ",t.`j`=r.c8,t.`b`=UNHEX(r.c9)") != NULL);
    CHECK(strstr(sql, "JSON)") == NULL);
}

UNIT_MAIN
