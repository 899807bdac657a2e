/* SPDX-License-Identifier: MIT */
/* The two tables of outages. */
#include "queue/ledger.h"
#include "unit/outage.h"

enum { PAGE = 1000 };

static const char make_outage[] =
    "CREATE TABLE IF NOT EXISTS `_regolith_outage` ("
    "`redis` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,"
    "`open` TINYINT UNSIGNED NOT NULL,"
    "`number` BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB";

static const char make_inval[] =
    "CREATE TABLE IF NOT EXISTS `_regolith_inval` ("
    "`number` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
    "`redis` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "`name` VARBINARY(1024) NOT NULL,"
    "KEY `redis` (`redis`,`number`)) ENGINE=InnoDB";

static int run(rg__mysql *c, const rg__ctx *ctx, rg__buf *sql, rg__result **out, rg_err *err) {
    int rc = rg__queue_query(c, ctx, sql, out, err);
    rg__buf_deinit(sql);
    return rc;
}

static void put_bytes(rg__buf *sql, const char *p, size_t len) {
    static const char hex[] = "0123456789abcdef";
    rg__buf_str(sql, "X'");
    for (size_t i = 0; i < len; i++) {
        rg__buf_char(sql, hex[(uint8_t)p[i] >> 4]);
        rg__buf_char(sql, hex[(uint8_t)p[i] & 15]);
    }
    rg__buf_char(sql, '\'');
}

static void where_redis(rg__buf *sql, const char *redis) {
    rg__buf_str(sql, " WHERE `redis`=");
    rg__sql_text(sql, redis, strlen(redis));
}

int rg__outage_read(rg__mysql *c, const rg__ctx *ctx, const char *redis, const char *tail,
                    rg__outage_row *out, rg_err *err) {
    rg__buf sql = {0};
    rg__result *r = NULL;
    rg_err why = {0};
    *out = (rg__outage_row){0};
    rg__buf_str(&sql, "SELECT `open`,`number` FROM `_regolith_outage`");
    where_redis(&sql, redis);
    rg__buf_str(&sql, tail);
    int rc = run(c, ctx, &sql, &r, &why);
    if (rc < 0 && rg__is_missing_table(&why)) return RG_OK;
    if (rc < 0 && err) *err = why;
    if (rc < 0) return rc;
    if (r->n_rows == 1)
        *out = (rg__outage_row){rg__cell_u64(r, 0, 0) != 0, rg__cell_u64(r, 0, 1)};
    rg__result_free(r);
    return RG_OK;
}

int rg__outage_open(rg__mysql *c, const rg__ctx *ctx, const char *redis, rg_err *err) {
    rg__buf sql = {0};
    int rc = rg__mysql_exec(c, ctx, make_outage, sizeof make_outage - 1, NULL, err);
    if (rc >= 0) rc = rg__mysql_exec(c, ctx, make_inval, sizeof make_inval - 1, NULL, err);
    if (rc < 0) return rc;
    rg__buf_str(&sql, "INSERT INTO `_regolith_outage` VALUES (");
    rg__sql_text(&sql, redis, strlen(redis));
    rg__buf_str(&sql, ",1,1) ON DUPLICATE KEY UPDATE `number`=`number`+(`open`=0),`open`=1");
    return run(c, ctx, &sql, NULL, err);
}

int rg__outage_close(rg__mysql *c, const rg__ctx *ctx, const char *redis, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "UPDATE `_regolith_outage` SET `open`=0");
    where_redis(&sql, redis);
    return run(c, ctx, &sql, NULL, err);
}

int rg__inval_add(rg__mysql *c, const rg__ctx *ctx, const char *redis, const rg__changes *changes,
                  int mysql_pool, rg_err *err) {
    int rc = RG_OK;
    for (size_t at = 0; rc >= 0 && at < changes->n;) {
        rg__buf sql = {0};
        size_t n = 0;
        rg__buf_str(&sql, "INSERT INTO `_regolith_inval` (`redis`,`name`) VALUES ");
        for (; at < changes->n && n < PAGE; at++) {
            const rg__change *change = &changes->items[at];
            if (change->type->mysql_pool != mysql_pool || !change->key.text) continue;
            rg__buf_str(&sql, n++ ? ",(" : "(");
            rg__sql_text(&sql, redis, strlen(redis));
            rg__buf_char(&sql, ',');
            put_bytes(&sql, change->key.text, change->key.len);
            rg__buf_char(&sql, ')');
        }
        if (n) rc = run(c, ctx, &sql, NULL, err);
        else rg__buf_deinit(&sql);
    }
    return rc;
}

int rg__inval_next(rg__mysql *c, const rg__ctx *ctx, const char *redis, uint64_t *number,
                   rg__result **out, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "SELECT `name`,`number` FROM `_regolith_inval`");
    where_redis(&sql, redis);
    rg__buf_fmt(&sql, " AND `number`>%llu ORDER BY `number` LIMIT %d", (unsigned long long)*number,
                PAGE);
    int rc = run(c, ctx, &sql, out, err);
    if (rc >= 0 && (*out)->n_rows) *number = rg__cell_u64(*out, (*out)->n_rows - 1, 1);
    return rc;
}

int rg__inval_clear(rg__mysql *c, const rg__ctx *ctx, const char *redis, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "DELETE FROM `_regolith_inval`");
    where_redis(&sql, redis);
    return run(c, ctx, &sql, NULL, err);
}
