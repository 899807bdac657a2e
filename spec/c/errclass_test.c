/* SPDX-License-Identifier: MIT */
/* Units of error classes: every number that the design lists, for both flavours; names and values
 * in the servers' messages. */
#include "unit.h"

#include "mysql/conn.h"

/* ---- the table ---- */

typedef struct row {
    unsigned number;
    int cls, code, tx;
} row;

/* What the same list of numbers has in common; ends with number 0. */
static void check_all(rg__flavour f, const row *rows) {
    for (; rows->number; rows++) {
        const rg__sql_class *k = rg__sql_classify(f, rows->number, "HY000");
        char what[64];
        snprintf(what, sizeof what, "%u of flavour %d", rows->number, (int)f);
        unit_int(k->number, rows->number, __FILE__, __LINE__, what);
        unit_int(k->cls, rows->cls, __FILE__, __LINE__, what);
        if (rows->code) unit_int(k->code, rows->code, __FILE__, __LINE__, what);
        if (rows->tx >= 0) unit_int(k->tx, rows->tx, __FILE__, __LINE__, what);
    }
}

static void check_numbers(rg__flavour f, int cls, int code, int tx, const unsigned *numbers) {
    for (; *numbers; numbers++)
        check_all(f, (row[]){{*numbers, cls, code, tx}, {0}});
}

#define BOTH(cls, code, tx, ...)                                                                   \
    check_numbers(RG__MARIADB, cls, code, tx, (const unsigned[]){__VA_ARGS__, 0});                 \
    check_numbers(RG__MYSQL, cls, code, tx, (const unsigned[]){__VA_ARGS__, 0})
#define ONE(flavour, cls, code, tx, ...)                                                           \
    check_numbers(flavour, cls, code, tx, (const unsigned[]){__VA_ARGS__, 0})

TEST(retry_now) {
    BOTH(RG_CLASS_RETRY, RG_EDEADLOCK, RG__TX_GONE, 1213, 1020);
    BOTH(RG_CLASS_RETRY, RG_EDEADLOCK, RG__TX_OPEN_ROLLBACK, 1205);
    BOTH(RG_CLASS_RETRY, RG_EDEADLOCK, -1, 1412, 1615, 1689, 1614, 1613);
    ONE(RG__MARIADB, RG_CLASS_RETRY, RG_EDEADLOCK, RG__TX_GONE, 1964);
    ONE(RG__MYSQL, RG_CLASS_RETRY, RG_EDEADLOCK, -1, 3101, 3572, 3058, 3132, 3133, 3197);
}

TEST(retry_after_reconnect) {
    BOTH(RG_CLASS_RECONNECT, RG_EUNAVAILABLE, RG__TX_LOST, 2006, 2013, 2002, 2003, 2005, 2012, 2055,
         2011, 2001, 2004, 5013, 5014, 5015);
    BOTH(RG_CLASS_RECONNECT, RG_EUNAVAILABLE, RG__TX_LOST, 1053, 1077, 1078, 1079, 1080, 1152, 1184,
         1158, 1159, 1160, 1161, 1156, 1157, 1835);
    ONE(RG__MARIADB, RG_CLASS_RECONNECT, RG_EUNAVAILABLE, RG__TX_LOST, 1927);
    ONE(RG__MYSQL, RG_CLASS_RECONNECT, RG_EUNAVAILABLE, RG__TX_LOST, 3169, 4031, 3032, 3168);
    BOTH(RG_CLASS_RECONNECT, RG_EUNAVAILABLE, RG__TX_KEPT, 1243, 2030, 2056);
    BOTH(RG_CLASS_RECONNECT, RG_EUNAVAILABLE, RG__TX_LOST, 2014, 2027, 2000, 2036, 5008);
}

TEST(wait_and_tell) {
    BOTH(RG_CLASS_WAIT, RG_EUNAVAILABLE, -1, 1040, 1203, 1226, 1461, 1135, 1041, 1037, 1038, 1206,
         1637);
    BOTH(RG_CLASS_WAIT, RG_EUNAVAILABLE, RG__TX_OPEN_ROLLBACK, 1114, 1021, 1026, 1878);
    BOTH(RG_CLASS_WAIT, RG_EREAD_ONLY, -1, 1290, 1836, 1792, 1874, 1223);
    BOTH(RG_CLASS_WAIT, RG_EUNAVAILABLE, RG__TX_LOST, 1047);
    BOTH(RG_CLASS_WAIT, RG_EACCESS, -1, 1045, 1044, 1142, 1143, 1227, 1698, 1820, 1862, 1873, 1129,
         1130, 2026, 2059, 2061, 1251);
    BOTH(RG_CLASS_WAIT, 0, -1, 1317, 1028, 1194, 1195, 1712, 1877, 1817, 1030, 1032, 1034, 1815);
    ONE(RG__MARIADB, RG_CLASS_WAIT, RG_EACCESS, -1, 4150, 4151);
    ONE(RG__MARIADB, RG_CLASS_WAIT, RG_ETIMEOUT, RG__TX_OPEN_ROLLBACK, 1969);
    ONE(RG__MYSQL, RG_CLASS_WAIT, RG_EUNAVAILABLE, -1, 3015, 3044, 3019, 3675, 3796, 3797, 3798,
        3799, 3781, 3782, 3783);
    ONE(RG__MYSQL, RG_CLASS_WAIT, RG_EREAD_ONLY, -1, 3989);
    ONE(RG__MYSQL, RG_CLASS_WAIT, RG_EACCESS, -1, 3118, 3955, 3159);
    ONE(RG__MYSQL, RG_CLASS_WAIT, RG_ETIMEOUT, RG__TX_OPEN_ROLLBACK, 3024);
}

TEST(permanent) {
    BOTH(RG_CLASS_PERMANENT, RG_EDUPLICATE_KEY, RG__TX_KEPT, 1062, 1022, 1586, 1569, 1169, 1761,
         1762);
    BOTH(RG_CLASS_PERMANENT, RG_EFOREIGN_KEY, RG__TX_KEPT, 1216, 1217, 1451, 1452);
    BOTH(RG_CLASS_PERMANENT, RG_ESCHEMA, RG__TX_KEPT, 1054, 1146, 1049, 1051);
    BOTH(RG_CLASS_PERMANENT, RG_ECONSTRAINT, RG__TX_KEPT, 1048, 1364, 1263, 1264, 1265, 1292, 1365,
         1366, 1367, 1406, 1411, 1416, 1441, 1526, 1690, 1369, 1348, 1644);
    BOTH(RG_CLASS_PERMANENT, RG_ESQL, RG__TX_KEPT, 1064, 1052, 1058, 1110, 1136, 1149, 1103, 1059,
         1102, 1031, 1442, 1305, 1397, 1099, 1100, 1210, 1231, 1193);
    BOTH(RG_CLASS_PERMANENT, RG_ELIMIT, -1, 1153, 2020, 1301, 1118, 1390, 1197, 1705);
    BOTH(RG_CLASS_PERMANENT, RG_ESQL, RG__TX_OPEN_ROLLBACK, 1402);
    ONE(RG__MARIADB, RG_CLASS_PERMANENT, RG_ECONSTRAINT, RG__TX_KEPT, 4025);
    ONE(RG__MYSQL, RG_CLASS_PERMANENT, RG_ECONSTRAINT, RG__TX_KEPT, 3819);
    for (unsigned n = 3140; n <= 3158; n++)
        ONE(RG__MYSQL, RG_CLASS_PERMANENT, RG_ECONSTRAINT, RG__TX_KEPT, n);
    ONE(RG__MYSQL, RG_CLASS_PERMANENT, RG_ELIMIT, -1, 3231);
}

TEST(ambiguous) {
    BOTH(RG_CLASS_AMBIGUOUS, RG_ECOMMIT_UNKNOWN, RG__TX_LOST, 1180, 1181, 1598);
    ONE(RG__MYSQL, RG_CLASS_AMBIGUOUS, RG_ECOMMIT_UNKNOWN, RG__TX_LOST, 3100);
}

/* The same number is another error on the other flavour, or none at all. */
TEST(flavours_differ) {
    static const unsigned mysql_only[] = {3024, 3100, 3101, 3169, 3572, 3819, 4031};
    static const unsigned mariadb_only[] = {1927, 1964, 1969, 4025, 4151};
    for (size_t i = 0; i < sizeof mysql_only / sizeof *mysql_only; i++)
        CHECK_EQ_INT(rg__sql_classify(RG__MARIADB, mysql_only[i], "HY000")->number, 0);
    for (size_t i = 0; i < sizeof mariadb_only / sizeof *mariadb_only; i++)
        CHECK_EQ_INT(rg__sql_classify(RG__MYSQL, mariadb_only[i], "HY000")->number, 0);
}

TEST(unknown_numbers_go_by_their_sqlstate) {
    static const struct {
        const char *state;
        int cls, code;
    } rows[] = {
        {"08S01", RG_CLASS_RECONNECT, RG_EUNAVAILABLE},
        {"23000", RG_CLASS_PERMANENT, RG_ECONSTRAINT},
        {"22003", RG_CLASS_PERMANENT, RG_ECONSTRAINT},
        {"42000", RG_CLASS_PERMANENT, RG_ESQL},
        {"40001", RG_CLASS_RETRY, RG_EDEADLOCK},
        {"28000", RG_CLASS_WAIT, RG_EACCESS},
        {"HY000", RG_CLASS_WAIT, RG_ESQL},
        {"", RG_CLASS_WAIT, RG_ESQL},
        {NULL, RG_CLASS_WAIT, RG_ESQL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const rg__sql_class *k = rg__sql_classify(RG__MARIADB, 59999, rows[i].state);
        CHECK_EQ_INT(k->cls, rows[i].cls);
        CHECK_EQ_INT(k->code, rows[i].code);
    }
}

/* The table is searched by halves. */
TEST(every_number_is_found_by_both_flavours_or_one) {
    int found = 0;
    for (unsigned n = 1000; n < 6000; n++)
        found += rg__sql_classify(RG__MARIADB, n, NULL)->number == n ||
                 rg__sql_classify(RG__MYSQL, n, NULL)->number == n;
    CHECK(found >= 180);
}

/* ---- messages ---- */

static rg_err made(rg__flavour f, unsigned number, const char *text) {
    rg_err err = {0};
    rg__sql_fail(f, number, "HY000", text, "inserting", &err);
    return err;
}

TEST(duplicate_key_names_its_index) {
    static const struct {
        rg__flavour f;
        const char *text, *index;
    } rows[] = {
        {RG__MARIADB, "Duplicate entry 'ann@example.org' for key 'email'", "email"},
        {RG__MARIADB, "Duplicate entry '1' for key 'PRIMARY'", "PRIMARY"},
        {RG__MARIADB, "Duplicate entry 'it's for key 'x'' for key 'real'", "real"},
        {RG__MYSQL, "Duplicate entry 'ann@example.org' for key 'user.email'", "email"},
        {RG__MYSQL, "Duplicate entry '1' for key 'user.PRIMARY'", "PRIMARY"},
        {RG__MYSQL, "Duplicate entry '1' for key 'email'", "email"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rg_err e = made(rows[i].f, 1062, rows[i].text);
        CHECK_STR(e.index, rows[i].index);
        CHECK_EQ_INT(e.code, RG_EDUPLICATE_KEY);
        CHECK(!strstr(e.message, "ann@example.org") && strstr(e.message, rows[i].index));
        CHECK_EQ_INT(e.retriable, 0);
    }
}

TEST(columns_are_named) {
    static const struct {
        unsigned number;
        const char *text, *field;
    } rows[] = {
        {1054, "Unknown column 'zz' in 'field list'", "zz"},
        {1054, "Unknown column 'user.zz' in 'WHERE'", "zz"},
        {1048, "Column 'name' cannot be null", "name"},
        {1364, "Field 'x' doesn't have a default value", "x"},
        {1264, "Out of range value for column 'age' at row 1", "age"},
        {1406, "Data too long for column 'name' at row 7", "name"},
        {1265, "Data truncated for column 'state' at row 1", "state"},
        {1366, "Incorrect integer value: 'se'cret' for column `app`.`user`.`age` at row 1", "age"},
        {1366, "Incorrect integer value: 'se'cret' for column 'age' at row 1", "age"},
        {1292, "Incorrect date value: 'secret' for column ``.`(temporary)`.`born` at row 1",
         "born"},
        {1452,
         "Cannot add or update a child row: a foreign key constraint fails (`app`.`user`, "
         "CONSTRAINT "
         "`user_team` FOREIGN KEY (`team`) REFERENCES `team` (`id`))",
         "team"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rg_err e = made(RG__MARIADB, rows[i].number, rows[i].text);
        CHECK_STR(e.field, rows[i].field);
        CHECK(strstr(e.message, rows[i].field) != NULL);
        CHECK(!strstr(e.message, "secret") && !strstr(e.message, "cret"));
        CHECK_EQ_INT(e.sql_errno, rows[i].number);
    }
    CHECK_STR(
        made(RG__MARIADB, 1452, "(`a`.`u`, CONSTRAINT `user_team` FOREIGN KEY (`team`)").index,
        "user_team");
    CHECK_STR(made(RG__MARIADB, 4025, "CONSTRAINT `ck` failed for `app`.`user`").index, "ck");
    CHECK_STR(made(RG__MYSQL, 3819, "Check constraint 'ck' is violated.").index, "ck");
    CHECK_STR(made(RG__MARIADB, 1146, "Table 'app.user' doesn't exist").entity, "user");
}

TEST(values_stay_out_of_messages) {
    static const struct {
        unsigned number;
        const char *text;
    } rows[] = {
        {1064,
         "You have an error in your SQL syntax; check the manual for the right syntax to use near "
         "'password='secret' WHERE x=\"secret\"' at line 1"},
        {1690, "BIGINT UNSIGNED value is out of range in '`t`.`a` - 'secret''"},
        {1292, "Truncated incorrect DOUBLE value: 'secret'"},
        {1411, "Incorrect datetime value: \"secret\" for function str_to_date"},
        {3141, "Invalid JSON text in argument 1 to function cast_as_json: 'secret"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rg_err e = made(RG__MARIADB, rows[i].number, rows[i].text);
        if (!CHECK(!strstr(e.message, "secret"))) printf("# %s\n", e.message);
        CHECK(strncmp(e.message, "inserting: ", 11) == 0);
    }
    rg_err e =
        made(RG__MARIADB, 1045, "Access denied for user 'app'@'localhost' (using password: YES)");
    CHECK(strstr(e.message, "'app'@'localhost'") != NULL);
}

TEST(what_may_be_tried_again) {
    CHECK_EQ_INT(made(RG__MARIADB, 1213, "").retriable, 1);
    CHECK_EQ_INT(made(RG__MARIADB, 2013, "").retriable, 1);
    CHECK_EQ_INT(made(RG__MARIADB, 1040, "").retriable, 1);
    CHECK_EQ_INT(made(RG__MARIADB, 1045, "").retriable, 0);
    CHECK_EQ_INT(made(RG__MARIADB, 2027, "").retriable, 0);
    CHECK_EQ_INT(made(RG__MARIADB, 1064, "").retriable, 0);
    CHECK_EQ_INT(made(RG__MARIADB, 1180, "").retriable, 0);
    CHECK_STR(made(RG__MARIADB, 1213, "x").sqlstate, "HY000");
    CHECK_EQ_INT(rg__sql_fail(RG__MYSQL, 1213, "40001", "x", "y", NULL), RG_EDEADLOCK);
}

UNIT_MAIN
