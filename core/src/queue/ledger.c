/* SPDX-License-Identifier: MIT */
/* The ledger: its tables, its lock, its position. */
#include "queue/ledger.h"

#include <stdio.h>

#include "base/err.h"

static const char make_ledger[] =
    "CREATE TABLE IF NOT EXISTS `_regolith_ledger` ("
    "`queue` VARCHAR(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,"
    "`id_ms` BIGINT UNSIGNED NOT NULL,"
    "`id_seq` BIGINT UNSIGNED NOT NULL,"
    "`applied_ops` BIGINT UNSIGNED NOT NULL,"
    "`fence` BIGINT UNSIGNED NOT NULL DEFAULT 0,"
    "`epoch` BIGINT UNSIGNED NOT NULL DEFAULT 0,"
    "`paused` TINYINT NOT NULL DEFAULT 0,"
    "`updated_at` DATETIME(6) NOT NULL) ENGINE=InnoDB";

static const char make_dead[] =
    "CREATE TABLE IF NOT EXISTS `_regolith_dead` ("
    "`number` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
    "`queue` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "`part` SMALLINT UNSIGNED NOT NULL DEFAULT 0,"
    "`id_ms` BIGINT UNSIGNED NOT NULL,"
    "`id_seq` BIGINT UNSIGNED NOT NULL,"
    "`op_index` INT UNSIGNED NOT NULL,"
    "`entity` VARCHAR(256) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "`entity_id` BIGINT UNSIGNED NOT NULL,"
    "`operation` VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "`payload` LONGBLOB NOT NULL,"
    "`errno` INT UNSIGNED NOT NULL,"
    "`sqlstate` VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "`error` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "`tries` INT UNSIGNED NOT NULL,"
    "`at` DATETIME(6) NOT NULL,"
    "`state` VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "UNIQUE KEY `entry` (`queue`,`part`,`id_ms`,`id_seq`,`op_index`),"
    "KEY `row` (`queue`,`entity`,`entity_id`)) ENGINE=InnoDB";

/* What tables of earlier versions lack. */
static const char *const upgrades[] = {
    "ALTER TABLE `_regolith_ledger` MODIFY `queue` VARCHAR(80) CHARACTER SET utf8mb4"
    " COLLATE utf8mb4_bin NOT NULL, ADD COLUMN `fence` BIGINT UNSIGNED NOT NULL DEFAULT 0",
    "ALTER TABLE `_regolith_ledger` ADD COLUMN `epoch` BIGINT UNSIGNED NOT NULL DEFAULT 0",
    "ALTER TABLE `_regolith_ledger` ADD COLUMN `paused` TINYINT NOT NULL DEFAULT 0",
    "ALTER TABLE `_regolith_dead` ADD COLUMN `part` SMALLINT UNSIGNED NOT NULL DEFAULT 0,"
    " DROP KEY `entry`, ADD UNIQUE KEY `entry` (`queue`,`part`,`id_ms`,`id_seq`,`op_index`)",
};
enum { NO_SUCH_COLUMN = 1054, COLUMN_IS_THERE = 1060 };

/* ---- positions ---- */

static bool parse_digits(const char **p, const char *end, uint64_t *out) {
    const char *start = *p;
    uint64_t v = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p) {
        uint64_t digit = (uint64_t)(**p - '0');
        if (v > (UINT64_MAX - digit) / 10) return false;
        v = v * 10 + digit;
    }
    *out = v;
    return *p > start;
}

bool rg__pos_parse(rg__slice text, rg__pos *out) {
    if (!text.p) return false;
    const char *p = text.p;
    const char *end = p + text.len;
    if (!parse_digits(&p, end, &out->ms) || p == end || *p++ != '-') return false;
    return parse_digits(&p, end, &out->seq) && p == end;
}

void rg__pos_format(rg__pos p, char out[RG__POS_TEXT]) {
    snprintf(out, RG__POS_TEXT, "%llu-%llu", (unsigned long long)p.ms, (unsigned long long)p.seq);
}

/* ---- statements ---- */

void rg__sql_text(rg__buf *out, const char *s, size_t len) {
    static const char hex[] = "0123456789abcdef";
    rg__buf_str(out, "_utf8mb4 X'");
    char *to = rg__buf_reserve(out, 2 * len);
    for (size_t i = 0; to && i < len; i++) {
        *to++ = hex[(uint8_t)s[i] >> 4];
        *to++ = hex[(uint8_t)s[i] & 15];
    }
    if (to) out->len += 2 * len;
    rg__buf_char(out, '\'');
}

int rg__queue_query(rg__mysql *c, const rg__ctx *ctx, rg__buf *sql, rg__result **out, rg_err *err) {
    if (sql->failed) return rg__fail_memory(err);
    if (!out) return rg__mysql_exec(c, ctx, sql->p, sql->len, NULL, err);
    return rg__mysql_query(c, ctx, sql->p, sql->len, NULL, 0, false, out, err);
}

uint64_t rg__cell_u64(const rg__result *r, size_t row, uint32_t col) {
    rg__slice cell = r->cells[row * r->n_columns + col];
    const char *p = cell.p;
    uint64_t v = 0;
    return p && parse_digits(&p, p + cell.len, &v) ? v : 0;
}

enum { ROW_TRIES = 20 };

static int make_row(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "INSERT IGNORE INTO `_regolith_ledger`"
                      " (`queue`,`id_ms`,`id_seq`,`applied_ops`,`updated_at`,`paused`) SELECT ");
    rg__sql_text(&sql, q->ledger, strlen(q->ledger));
    rg__buf_str(&sql, ",0,0,0,UTC_TIMESTAMP(6),COALESCE(MAX(`l`.`paused`),0)"
                      " FROM `_regolith_ledger` `l` WHERE `l`.`queue`=");
    rg__sql_text(&sql, q->name, strlen(q->name)); /* a new partition of a paused queue is paused */
    int rc = rg__queue_query(c, ctx, &sql, NULL, err);
    rg__buf_deinit(&sql);
    return rc;
}

/* Rivals that start at once read and insert the same rows: one of them is told to try again. */
static int insist_on_row(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg_err why = {0};
    int rc = make_row(q, c, ctx, &why);
    for (int tries = 1; rc < 0 && why.cls == RG_CLASS_RETRY && tries < ROW_TRIES; tries++) {
        rg__sleep_ms(tries);
        rg__err_clear(&why);
        rc = make_row(q, c, ctx, &why);
    }
    if (rc < 0 && err) *err = why;
    return rc;
}

/* Outside of any transaction: a CREATE TABLE commits. */
static int make(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    int rc = rg__mysql_exec(c, ctx, make_ledger, sizeof make_ledger - 1, NULL, err);
    if (rc >= 0) rc = rg__mysql_exec(c, ctx, make_dead, sizeof make_dead - 1, NULL, err);
    if (rc >= 0) rc = insist_on_row(q, c, ctx, err);
    if (rc < 0) rg__err_prefix(err, "making the queue's tables: ");
    return rc;
}

static int upgrade(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg_err fault;
    for (size_t i = 0; i < sizeof upgrades / sizeof *upgrades; i++) {
        rg__err_clear(&fault);
        int rc = rg__mysql_exec(c, ctx, upgrades[i], strlen(upgrades[i]), NULL, &fault);
        if (rc >= 0 || fault.sql_errno == COLUMN_IS_THERE) continue;
        *err = fault;
        rg__err_prefix(err, "upgrading the queue's tables: ");
        return rc;
    }
    return RG_OK;
}

/* 1: found, 0: there is no such row. */
static int select_row(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, const char *tail,
                      rg__ledger *row, rg_err *err) {
    rg__buf sql = {0};
    rg__result *r = NULL;
    rg__buf_str(&sql, "SELECT `id_ms`,`id_seq`,`applied_ops`,`fence`,`epoch`,`paused`"
                      " FROM `_regolith_ledger`"
                      " WHERE `queue`=");
    rg__sql_text(&sql, q->ledger, strlen(q->ledger));
    rg__buf_str(&sql, tail);
    int rc = rg__queue_query(c, ctx, &sql, &r, err);
    rg__buf_deinit(&sql);
    if (rc < 0) return rc;
    bool found = r->n_rows == 1;
    if (found)
        *row = (rg__ledger){.at = {rg__cell_u64(r, 0, 0), rg__cell_u64(r, 0, 1)},
                            .applied = rg__cell_u64(r, 0, 2),
                            .fence = rg__cell_u64(r, 0, 3),
                            .epoch = rg__cell_u64(r, 0, 4),
                            .paused = rg__cell_u64(r, 0, 5) != 0};
    rg__result_free(r);
    return found;
}

static int try_lock(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__ledger *row,
                    rg_err *err) {
    int rc = rg__mysql_begin(c, ctx, err);
    if (rc < 0) return rc;
    rc = select_row(q, c, ctx, " FOR UPDATE", row, err);
    if (rc != 1) rg__mysql_rollback(c, ctx);
    return rc;
}

int rg__ledger_lock(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__ledger *row,
                    rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    int rc = try_lock(q, c, ctx, row, &fault);
    if (rc < 0 && fault.sql_errno == NO_SUCH_COLUMN) {
        rg__err_clear(&fault);
        rc = upgrade(c, ctx, &fault);
        if (rc >= 0) rc = try_lock(q, c, ctx, row, &fault);
    }
    if (rc == 0 || (rc < 0 && rg__is_missing_table(&fault))) {
        rg__err_clear(&fault);
        rc = make(q, c, ctx, &fault);
        if (rc >= 0) rc = try_lock(q, c, ctx, row, &fault);
        if (rc == 0) rc = rg__fail(&fault, RG_EINTERNAL, "the ledger of %s vanished", q->ledger);
    }
    if (rc < 0 && err) *err = fault;
    return rc < 0 ? rc : RG_OK;
}

int rg__ledger_begin(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__pos *at,
                     rg_err *err) {
    rg__ledger row = {0};
    int rc = rg__ledger_lock(q, c, ctx, &row, err);
    *at = row.at;
    return rc;
}

enum { LOCK_WAIT = 1205, LOCK_NOWAIT = 3572 };

int rg__ledger_is_locked(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, bool *locked,
                         rg_err *err) {
    rg__ledger row;
    rg_err fault;
    rg__err_clear(&fault);
    int rc = rg__mysql_begin(c, ctx, err);
    if (rc < 0) return rc;
    rc = select_row(q, c, ctx, " FOR UPDATE NOWAIT", &row, &fault);
    rg__mysql_rollback(c, ctx);
    *locked = rc < 0 && (fault.sql_errno == LOCK_WAIT || fault.sql_errno == LOCK_NOWAIT);
    if (rc >= 0 || *locked || rg__is_missing_table(&fault)) return RG_OK;
    if (err) *err = fault;
    return rc;
}

static int raise_fence(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t fence,
                       rg_err *err) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql, "UPDATE `_regolith_ledger` SET `fence`=%llu WHERE `queue`=",
                (unsigned long long)fence);
    rg__sql_text(&sql, q->ledger, strlen(q->ledger));
    int rc = rg__queue_query(c, ctx, &sql, NULL, err);
    rg__buf_deinit(&sql);
    return rc;
}

/* A COMMIT of unknown outcome is a failure: the next try gets a higher fence. */
int rg__ledger_fence(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t *fence,
                     rg_err *err) {
    rg__ledger row = {0};
    int rc = rg__ledger_lock(q, c, ctx, &row, err);
    if (rc < 0) return rc;
    rc = raise_fence(q, c, ctx, row.fence + 1, err);
    rg__kill_point(RG__KILL_CLAIMED);
    if (rc >= 0) rc = rg__mysql_commit(c, ctx, err);
    else rg__mysql_rollback(c, ctx);
    *fence = row.fence + 1;
    return rc;
}

static int write_paused(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, bool paused,
                        rg_err *err) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql, "UPDATE `_regolith_ledger` SET `paused`=%d WHERE `queue`=", paused);
    rg__sql_text(&sql, q->ledger, strlen(q->ledger));
    int rc = rg__queue_query(c, ctx, &sql, NULL, err);
    rg__buf_deinit(&sql);
    return rc;
}

int rg__ledger_pause(const rg__queue *q, const rg__ctx *ctx, bool paused, rg_err *err) {
    rg__mysql *c = NULL;
    rg__ledger row = {0};
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__ledger_lock(q, c, ctx, &row, err);
    if (rc >= 0) rc = write_paused(q, c, ctx, paused, err);
    if (rc >= 0) rc = rg__mysql_commit(c, ctx, err);
    rg__mysql_release(c);
    return rc;
}

int rg__ledger_look(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__ledger *row,
                    rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    *row = (rg__ledger){0};
    int rc = select_row(q, c, ctx, "", row, &fault);
    if (rc < 0 && fault.sql_errno == NO_SUCH_COLUMN) {
        rg__err_clear(&fault);
        rc = upgrade(c, ctx, &fault);
        if (rc >= 0) rc = select_row(q, c, ctx, "", row, &fault);
    }
    if (rc >= 0 || rg__is_missing_table(&fault)) return RG_OK;
    if (err) *err = fault;
    return rc;
}

int rg__ledger_read(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__pos *at,
                    uint64_t *applied, rg_err *err) {
    rg__ledger row;
    int rc = rg__ledger_look(q, c, ctx, &row, err);
    *at = row.at;
    if (applied) *applied = row.applied;
    return rc;
}

int rg__ledger_turn(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t epoch, rg__pos to,
                    rg_err *err) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql, "UPDATE `_regolith_ledger` SET `id_ms`=%llu,`id_seq`=%llu,`epoch`=%llu"
                      " WHERE `queue`=",
                (unsigned long long)to.ms, (unsigned long long)to.seq, (unsigned long long)epoch);
    rg__sql_text(&sql, q->ledger, strlen(q->ledger));
    int rc = rg__queue_query(c, ctx, &sql, NULL, err);
    rg__buf_deinit(&sql);
    return rc;
}

int rg__ledger_advance(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg__pos to,
                       uint64_t applied, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql,
                "UPDATE `_regolith_ledger` SET `id_ms`=%llu,`id_seq`=%llu,"
                "`applied_ops`=`applied_ops`+%llu,`updated_at`=UTC_TIMESTAMP(6) WHERE `queue`=",
                (unsigned long long)to.ms, (unsigned long long)to.seq, (unsigned long long)applied);
    rg__sql_text(&sql, q->ledger, strlen(q->ledger));
    int rc = rg__queue_query(c, ctx, &sql, NULL, err);
    rg__buf_deinit(&sql);
    if (rc < 0) rg__err_prefix(err, "advancing the ledger: ");
    return rc;
}

int rg__ledger_position(const rg__queue *q, const rg__ctx *ctx, char id[48], rg_err *err) {
    rg__mysql *c = NULL;
    rg__pos at = {0, 0};
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__ledger_read(q, c, ctx, &at, NULL, err);
    rg__mysql_release(c);
    rg__pos_format(at, id);
    return rc;
}
