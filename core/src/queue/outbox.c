/* SPDX-License-Identifier: MIT */
/* Writing events into the outbox, in the transaction that they belong to. */
#include "queue/outbox.h"

#include "base/err.h"

static const char make_outbox[] =
    "CREATE TABLE IF NOT EXISTS `_regolith_outbox` ("
    "`number` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
    "`uid` BINARY(16) NOT NULL,"
    "`stream` VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,"
    "`body` LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    "`at` DATETIME(6) NOT NULL) ENGINE=InnoDB";

static const char make_relay[] =
    "CREATE TABLE IF NOT EXISTS `_regolith_relay` ("
    "`name` VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,"
    "`fence` BIGINT UNSIGNED NOT NULL,"
    "`holder` BINARY(16) NOT NULL,"
    "`held_until` DATETIME(6) NOT NULL) ENGINE=InnoDB";

static const char make_row[] =
    "INSERT IGNORE INTO `_regolith_relay` VALUES ('outbox',0,REPEAT('\\0',16),'1970-01-02')";

/* ---- the tables ---- */

/* The only member of a queue that changes. */
static atomic_bool *known(const rg__queue *q) { return (atomic_bool *)(uintptr_t)&q->outbox; }

static int make(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__mysql_exec(c, ctx, make_outbox, sizeof make_outbox - 1, NULL, err);
    if (rc >= 0) rc = rg__mysql_exec(c, ctx, make_relay, sizeof make_relay - 1, NULL, err);
    if (rc >= 0) rc = rg__mysql_exec(c, ctx, make_row, sizeof make_row - 1, NULL, err);
    rg__mysql_release(c);
    if (rc < 0) rg__err_prefix(err, "making the outbox: ");
    return rc;
}

int rg__outbox_ready(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    if (atomic_load(known(q))) return RG_OK;
    int rc = make(q, ctx, err);
    if (rc >= 0) atomic_store(known(q), true);
    return rc < 0 ? rc : RG_OK;
}

/* ---- rows ---- */

void rg__dead_stream(const rg__queue *q, rg__buf *out) {
    rg__buf_fmt(out, "dead-letters.%s", q->name);
}

void rg__outbox_deinit(rg__outbox *o) {
    rg__buf_deinit(&o->sql);
    rg__buf_deinit(&o->body);
    *o = (rg__outbox){0};
}

/* Tables that were dropped meanwhile are made again by the next try of the whole transaction. */
int rg__outbox_write(rg__outbox *o, const rg__ctx *ctx, rg_err *err) {
    if (o->n == 0) return RG_OK;
    if (o->sql.failed) return rg__fail_memory(err);
    int rc = rg__mysql_exec(o->c, ctx, o->sql.p, o->sql.len, NULL, err);
    o->n = 0;
    rg__buf_clear(&o->sql);
    if (rc >= 0) return RG_OK;
    if (rg__is_missing_table(err)) {
        atomic_store(known(o->q), false);
        err->cls = RG_CLASS_RETRY;
        err->retriable = 1;
    }
    rg__err_prefix(err, "writing events: ");
    return rc;
}

int rg__outbox_add(rg__outbox *o, const rg__ctx *ctx, rg__slice stream, rg__slice body,
                   rg_err *err) {
    static const char hex[] = "0123456789abcdef";
    uint8_t uid[16];
    rg__random(uid, sizeof uid);
    rg__buf_str(&o->sql, o->n ? "," : "INSERT INTO `_regolith_outbox` (`uid`,`stream`,`body`,`at`) VALUES ");
    rg__buf_str(&o->sql, "(X'");
    for (size_t i = 0; i < sizeof uid; i++) {
        rg__buf_char(&o->sql, hex[uid[i] >> 4]);
        rg__buf_char(&o->sql, hex[uid[i] & 15]);
    }
    rg__buf_str(&o->sql, "',");
    rg__sql_text(&o->sql, stream.p, stream.len);
    rg__buf_char(&o->sql, ',');
    rg__sql_text(&o->sql, body.p, body.len);
    rg__buf_str(&o->sql, ",UTC_TIMESTAMP(6))");
    o->n++;
    bool large = o->sql.len > rg__mysql_max_packet(o->c) / 4;
    return large ? rg__outbox_write(o, ctx, err) : RG_OK;
}

int rg__outbox_tell(rg__outbox *o, const rg__ctx *ctx, const rg_type *t, int write, uint64_t id,
                    const void *row, const uint8_t *mask, rg_err *err) {
    int rc = RG_OK;
    bool made = false;
    for (uint32_t i = 0; rc >= 0 && i < t->n_feeds; i++) {
        if (!rg__feed_wants(t, &t->feeds[i], write, mask)) continue;
        if (!made) {
            rg__buf_clear(&o->body);
            rg__event_text(t, write, id, row, mask, &o->body);
            made = true;
        }
        if (o->body.failed) return rg__fail_memory(err);
        rc = rg__outbox_add(o, ctx, rg__slice_of(t->feeds[i].stream),
                            (rg__slice){o->body.p, o->body.len}, err);
    }
    return rc;
}
