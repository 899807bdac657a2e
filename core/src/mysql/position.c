/* SPDX-License-Identifier: MIT */
/* Where servers are in the history of the primary, and who lags behind it. */
#include "mysql/replica.h"

#include <unistd.h>

enum {
    CHECK_MIN_MS = 50,
    CHECK_MAX_MS = 1000,
    ASK_MS = 1000, /* for the questions of a check, which no reader should wait for long */
    MOST_SOURCES = 32
};

/* ---- asking ---- */

static void add_cells(const rg__result *r, rg__buf *out) {
    for (uint32_t i = 0; r->n_rows && i < r->n_columns; i++) {
        if (!r->cells[i].len) continue;
        if (out->len) rg__buf_char(out, ',');
        rg__buf_add(out, r->cells[i].p, r->cells[i].len);
    }
}

static const char *question(const rg__mysql *c, bool replica) {
    if (c->flavour == RG__MYSQL) return "SELECT @@global.gtid_executed";
    return replica ? "SELECT @@global.gtid_slave_pos, @@global.gtid_current_pos"
                   : "SELECT @@global.gtid_binlog_pos";
}

int rg__position_ask(rg__mysql *c, const rg__ctx *ctx, bool replica, rg__buf *out, rg_err *err) {
    rg__result *r = NULL;
    const char *sql = question(c, replica);
    int rc = rg__mysql_query(c, ctx, sql, strlen(sql), NULL, 0, false, &r, err);
    rg__buf_clear(out);
    if (rc >= 0 && r) add_cells(r, out);
    if (out->failed) rc = rg__fail_memory(err);
    rg__result_free(r);
    return rc;
}

static uint64_t digits(rg__slice s) {
    uint64_t v = 0;
    for (size_t i = 0; i < s.len && s.p[i] >= '0' && s.p[i] <= '9'; i++)
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    return v;
}

/* The ledger is replicated like any table: it tells what of the queue this server has. */
static int ask_ledger(rg__mysql *c, const rg__ctx *ctx, const char *queue) {
    rg__result *r = NULL;
    rg__buf sql = {0};
    rg__buf_str(&sql, "SELECT `id_ms`,`id_seq` FROM `_regolith_ledger` WHERE `queue`='");
    rg__buf_str(&sql, queue); /* the name of a pool: letters, digits and underscores */
    rg__buf_char(&sql, '\'');
    int rc = sql.failed ? RG_ENO_MEMORY
                        : rg__mysql_query(c, ctx, sql.p, sql.len, NULL, 0, false, &r, NULL);
    if (rc >= 0 && r && r->n_rows) {
        c->ledger_ms = digits(r->cells[0]);
        c->ledger_seq = digits(r->cells[1]);
    }
    rg__result_free(r);
    rg__buf_deinit(&sql);
    return rc;
}

/* ---- is it there? ---- */

static bool has_gtids(const rg__mysql *c, const rg__need *need) {
    rg__slice at = {c->position.p, c->position.len};
    for (int i = 0; i < need->n; i++)
        if (!rg__gtid_reached(at, &need->gtids[i])) return false;
    return true;
}

static bool has_queued(const rg__mysql *c, const rg__need *need) {
    if (need->queued_ms != c->ledger_ms) return need->queued_ms < c->ledger_ms;
    return need->queued_seq <= c->ledger_seq;
}

bool rg__position_covers(rg__mysql *c, const rg__ctx *ctx, const char *queue, const rg__need *need,
                         bool ask) {
    if (need->lost || need->vague) return false;
    if (ask && !has_gtids(c, need) && rg__position_ask(c, ctx, true, &c->position, NULL) < 0)
        return false;
    if (ask && !has_queued(c, need) && ask_ledger(c, ctx, queue) < 0) return false;
    return has_gtids(c, need) && has_queued(c, need);
}

/* ---- lag ---- */

static bool take_sample(rg__mysql_pool *primary, rg__replicas *rs, const rg__ctx *ctx) {
    rg__mysql *c = NULL;
    rg__sample *s = &rs->samples[rs->n_samples % RG__SAMPLES];
    if (rg__mysql_acquire(primary, ctx, &c, NULL) < 0) return false;
    int rc = rg__position_ask(c, ctx, false, &s->position, NULL);
    rg__mysql_release(c);
    s->at_ms = rg__now_ms();
    if (rc >= 0) rs->n_samples++;
    return rc >= 0;
}

/* The newest sample that is older than a lag allowed; as long as there is none, the oldest. */
static const rg__sample *yardstick(const rg__replicas *rs, int64_t max_lag_ms) {
    const rg__sample *found = NULL;
    uint32_t kept = rs->n_samples < RG__SAMPLES ? rs->n_samples : RG__SAMPLES;
    for (uint32_t back = 1; back <= kept; back++) {
        found = &rs->samples[(rs->n_samples - back) % RG__SAMPLES];
        if (rg__now_ms() - found->at_ms >= max_lag_ms) break;
    }
    return found;
}

static void check_one(rg__replica *r, const rg__sample *s, const rg__ctx *ctx) {
    rg__gtid must[MOST_SOURCES];
    rg__mysql *c = NULL;
    int n = rg__gtid_read((rg__slice){s->position.p, s->position.len}, must, MOST_SOURCES);
    if (rg__now_ms() < atomic_load(&r->down_until_ms)) return;
    int rc = rg__mysql_acquire(r->pool, ctx, &c, NULL);
    if (rc >= 0) rc = rg__position_ask(c, ctx, true, &c->position, NULL);
    bool lags = n < 0;
    for (int i = 0; rc >= 0 && i < n; i++)
        lags |= !rg__gtid_reached((rg__slice){c->position.p, c->position.len}, &must[i]);
    if (c) rg__mysql_release(c);
    if (rc < 0)
        rg__replica_failed(r);
    else
        atomic_store(&r->lagging, lags);
}

static int64_t check_every_ms(const rg__mysql_pool *primary) {
    int64_t every = rg__pool_opts(primary)->max_replica_lag_ms / (RG__SAMPLES - 2);
    if (every < CHECK_MIN_MS) every = CHECK_MIN_MS;
    return every > CHECK_MAX_MS ? CHECK_MAX_MS : every;
}

static bool my_turn(rg__replicas *rs) {
    int mine = (int)getpid();
    int holder = atomic_load(&rs->checker);
    if (rg__now_ms() < atomic_load(&rs->check_at_ms)) return false;
    /* a holder of another process was a thread that a fork left behind */
    return holder != mine && atomic_compare_exchange_strong(&rs->checker, &holder, mine);
}

void rg__replicas_check(rg__mysql_pool *primary, rg__replicas *rs, const rg__ctx *ctx) {
    if (!my_turn(rs)) return;
    rg__ctx within = {.deadline_ms = rg__deadline_within(ctx->deadline_ms, ASK_MS),
                      .metrics = ctx->metrics};
    /* without a primary nobody can tell who lags: replicas go on as they are */
    if (take_sample(primary, rs, &within)) {
        const rg__sample *s = yardstick(rs, rg__pool_opts(primary)->max_replica_lag_ms);
        for (uint32_t i = 0; i < rs->n; i++) check_one(&rs->items[i], s, &within);
    }
    atomic_store(&rs->check_at_ms, rg__now_ms() + check_every_ms(primary));
    atomic_store(&rs->checker, 0);
}
