/* SPDX-License-Identifier: MIT */
/* Blocks of ids, handed out by one row a table. */
#include "mysql/conn.h"

/* The last id that a Lua number holds exactly. */
#define LAST_ID (UINT64_C(1) << 53)

static const char make_table[] =
    "CREATE TABLE IF NOT EXISTS `_regolith_ids` ("
    "`name` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,"
    "`next` BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB";

/* Table names are at most 64 characters of anything. */
static void add_name(rg__buf *sql, const char *name) {
    rg__buf_str(sql, "_utf8mb4 X'");
    for (const char *p = name; *p; p++)
        rg__buf_fmt(sql, "%02X", (unsigned char)*p);
    rg__buf_char(sql, '\'');
}

static int run(rg__mysql *c, const rg__ctx *ctx, const rg__buf *sql, rg__result **out,
               rg_err *err) {
    if (sql->failed) return rg__fail_memory(err);
    return rg__mysql_query(c, ctx, sql->p, sql->len, NULL, 0, false, out, err);
}

/* The old value of `next` comes back with the answer. *taken false: no such row, or no ids left. */
static int take(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, uint64_t n, uint64_t *first,
                bool *taken, rg_err *err) {
    rg__result *r = NULL;
    rg__buf *sql = rg__conn_text(c);
    rg__buf_str(sql, "UPDATE `_regolith_ids` SET `next`=LAST_INSERT_ID(`next`)+");
    rg__buf_u64(sql, n);
    rg__buf_str(sql, " WHERE `name`=");
    add_name(sql, t->table);
    rg__buf_str(sql, " AND `next`<=");
    rg__buf_u64(sql, (t->id_last ? t->id_last : LAST_ID) - n + 1);
    int code = run(c, ctx, sql, &r, err);
    *taken = code == 0 && r->affected == 1;
    if (*taken) *first = r->insert_id;
    rg__result_free(r);
    return code;
}

static int seed(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, rg_err *err) {
    rg__buf *sql = rg__conn_text(c);
    rg__buf_str(sql, "INSERT IGNORE INTO `_regolith_ids` (`name`,`next`) SELECT ");
    add_name(sql, t->table);
    rg__buf_fmt(sql, ",GREATEST(COALESCE(MAX(%s),0),%llu)+1 FROM %s", t->columns[0].quoted,
                (unsigned long long)t->id_base, t->quoted);
    return run(c, ctx, sql, NULL, err);
}

/* An answer lost here loses ids and nothing else, so it is no open question. */
static int settle(int code, rg_err *err) {
    if (code != RG_ECOMMIT_UNKNOWN) return code;
    if (err) {
        err->code = RG_EUNAVAILABLE;
        err->cls = RG_CLASS_RECONNECT;
        err->retriable = 1;
    }
    return RG_EUNAVAILABLE;
}

static int reserve(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, uint64_t n, uint64_t *first,
                   bool *taken, rg_err *err) {
    rg_err why = {0};
    int code = take(c, ctx, t, n, first, taken, &why);
    if (why.sql_errno == 1146)
        code = rg__mysql_exec(c, ctx, make_table, sizeof make_table - 1, NULL, &why);
    if (code && err) *err = why;
    if (code || *taken) return code;
    code = seed(c, ctx, t, err);
    return code ? code : take(c, ctx, t, n, first, taken, err);
}

int rg__sql_reserve_ids(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, uint64_t n,
                        uint64_t *first, rg_err *err) {
    bool taken = false;
    if (n == 0 || n > LAST_ID)
        return rg__fail(err, RG_EINVALID, "%s: a block of no or too many ids", t->name);
    if (c->tx != RG__TXS_NONE)
        return rg__fail(err, RG_EMISUSE, "%s: ids are not reserved inside a transaction", t->name);
    int code = settle(reserve(c, ctx, t, n, first, &taken, err), err);
    if (code && err && err->domain == RG_DOMAIN_MYSQL) rg__sql_fail_entity(err, t);
    if (code || taken) return code;
    return rg__fail(err, RG_ELIMIT, "%s: ids beyond %s would be needed", t->name,
                    t->id_last ? "those of its shard" : "2^53");
}
