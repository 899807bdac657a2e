/* SPDX-License-Identifier: MIT */
/* Where a consumer stands: the ledger, what of the stream is behind it, and what is read ahead. */
#include "queue/standing.h"

#include "base/err.h"
#include "queue/batch.h"

enum {
    WINDOW_BYTES = 4 << 20, /* read ahead, about */
    SETTLE_AT_ONCE = 64,    /* entries */
    WAIT_SLICE_MS = 1000
};

/* ---- where things stand: at the start, after errors, and when a rival was at work ---- */

static int read_ledger(rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *m = NULL;
    rg__ledger row = {0};
    int rc = rg__mysql_acquire(c->q->mysql, ctx, &m, err);
    if (rc < 0) return rc;
    c->max_bytes = rg__mysql_max_packet(m) / 2;
    rc = rg__ledger_look(c->q, m, ctx, &row, err);
    c->at = row.at;
    c->epoch = row.epoch;
    if (rc >= 0) rc = rg__dead_load(&c->dead, c->q, m, ctx, err);
    if (rc < 0 && rg__is_missing_table(err)) rc = RG_OK;
    rg__mysql_release(m);
    return rc;
}

/* MySQL may have gone back, with its ledger, to before what has been removed from the stream. */
static int check_gap(const rg__consumer *c, const rg__ctx *ctx, rg__pos trimmed, rg_err *err) {
    char at[RG__POS_TEXT], gone[RG__POS_TEXT];
    if (!c->at.ms && !c->at.seq) return RG_OK; /* a ledger that was just made */
    if (rg__pos_compare(c->at, trimmed) >= 0) return RG_OK;
    rg__count(ctx->metrics, RG__C_QUEUE_GAPS, 1);
    rg__pos_format(c->at, at);
    rg__pos_format(trimmed, gone);
    int rc = rg__fail(err, RG_EGAP, "MySQL has applied entries up to %s, but those up to %s are gone from "
                                "stream %s: was an older state of the database restored?",
                  at, gone, c->q->stream);
    err->cls = RG_CLASS_WAIT;
    return rc;
}

/* Entries up to the ledger that are still there were applied by a run that may not have told the
 * caches. Whoever applied them may be about to; both may do it. */
static int settle_some(rg__consumer *c, const rg__ctx *ctx, bool *more, rg_err *err) {
    rg__batch b = {0};
    int rc = rg__window_fetch_first(&c->window, c->q, ctx, c->at, SETTLE_AT_ONCE, err);
    *more = rc >= 0 && c->window.n > 0;
    if (!*more) return rc;
    rc = rg__batch_make(&b, c->q, &c->window, SIZE_MAX, SIZE_MAX, err);
    rg__kill_point(RG__KILL_SETTLING);
    if (rc >= 0) rc = rg__batch_tell(&b, true, c->q, ctx, err);
    if (rc >= 0) rc = rg__stream_trim(c->q, ctx, b.last, &c->totals.lag, err);
    rg__batch_deinit(&b);
    return rc;
}

static rg__pos before(rg__pos p) {
    return p.seq ? (rg__pos){p.ms, p.seq - 1} : (rg__pos){p.ms - 1, UINT64_MAX};
}

/* The ledger goes on to a later epoch of Redis. Entries of that up to the ledger were queued on a Redis
 * that had lost the tail, and the time, of the one before it: they are not applied, so the ledger goes
 * back to before them. Entries of earlier epochs come before them, as ids rise. */
static int turn_on(rg__consumer *c, rg__mysql *m, const rg__ctx *ctx, uint64_t epoch, rg_err *err) {
    rg__ledger row;
    rg__pos first = {0, 0};
    int rc = rg__ledger_lock(c->q, m, ctx, &row, err);
    if (rc < 0) return rc;
    if (row.epoch && row.epoch < epoch)
        rc = rg__stream_first_later(c->q, ctx, row.at, row.epoch, &first, err);
    bool skipped = first.ms || first.seq;
    if (rc >= 0 && row.epoch < epoch)
        rc = rg__ledger_turn(c->q, m, ctx, epoch, skipped ? before(first) : row.at, err);
    if (rc >= 0) rc = rg__mysql_commit(m, ctx, err);
    else rg__mysql_rollback(m, ctx);
    if (rc >= 0 && skipped) rg__count(ctx->metrics, RG__C_QUEUE_SKIPPED, 1);
    return rc;
}

int rg__consumer_turn(rg__consumer *c, const rg__ctx *ctx, uint64_t epoch, rg_err *err) {
    rg__mysql *m = NULL;
    int rc = rg__mysql_acquire(c->q->mysql, ctx, &m, err);
    if (rc < 0) return rc;
    rc = turn_on(c, m, ctx, epoch, err);
    if (rc < 0 && err->cls == RG_CLASS_AMBIGUOUS) rg__mysql_poison(m);
    rg__mysql_release(m);
    return rc;
}

/* Before anything up to the ledger counts as applied. */
static int check_skipped(rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    rg__pos first;
    if (!c->epoch) return RG_OK;
    int rc = rg__stream_first_later(c->q, ctx, c->at, c->epoch, &first, err);
    if (rc < 0 || (!first.ms && !first.seq)) return rc;
    rc = rg__window_fetch(&c->window, c->q, ctx, before(first), 1, 0, err);
    uint64_t epoch = rc >= 0 && c->window.n ? c->window.entries[0].epoch : 0;
    rg__window_clear(&c->window);
    if (rc >= 0 && epoch > c->epoch) rc = rg__consumer_turn(c, ctx, epoch, err);
    return rc < 0 ? rc : read_ledger(c, ctx, err);
}

/* Entries that were applied once and are kept come before those that were not. */
static int look_for_kept(rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    char name[320];
    rg__pos last = {0, 0};
    rg__queue kept = *c->q;
    kept.stream = (char *)(uintptr_t)rg__stream_kept(c->q, name);
    c->again = false;
    if (!c->q->rules.retain_ms || (!c->at.ms && !c->at.seq)) return RG_OK;
    int rc = rg__stream_last(&kept, ctx, &last, err);
    c->again = rc >= 0 && rg__pos_compare(last, c->at) > 0;
    return rc;
}

int rg__consumer_find_out(rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    bool more = true;
    rg__pos trimmed;
    int rc = rg__stream_trimmed(c->q, ctx, &trimmed, err); /* first: rivals move both */
    c->redis_epoch = rg__shared_epoch(c->q->shared);
    if (rc >= 0) rc = read_ledger(c, ctx, err);
    if (rc >= 0) rc = check_gap(c, ctx, trimmed, err);
    if (rc >= 0) rc = look_for_kept(c, ctx, err);
    if (rc >= 0) rc = rg__stream_raise(c->q, ctx, c->at, err);
    if (rc >= 0) rc = check_skipped(c, ctx, err);
    while (rc >= 0 && more) rc = settle_some(c, ctx, &more, err);
    rg__window_clear(&c->window);
    c->trusted = rc >= 0;
    return rc;
}

bool rg__consumer_is_trusted(const rg__consumer *c) {
    return c->trusted && c->redis_epoch == rg__shared_epoch(c->q->shared);
}

/* ---- reading ahead ---- */

static uint32_t window_size(const rg__consumer *c) {
    size_t n = WINDOW_BYTES / (c->entry_bytes + 1);
    if (n > c->cfg.max_batch) n = c->cfg.max_batch;
    return n ? (uint32_t)n : 1;
}

static void measure_window(rg__consumer *c) {
    size_t bytes = 0;
    for (size_t i = 0; i < c->window.n; i++) bytes += c->window.entries[i].payload.len;
    if (c->window.n) c->entry_bytes = (c->entry_bytes + bytes / c->window.n) / 2;
}

static int fetch_kept(rg__consumer *c, const rg__ctx *ctx, uint32_t n, rg_err *err) {
    char name[320];
    rg__queue kept = *c->q;
    kept.stream = (char *)(uintptr_t)rg__stream_kept(c->q, name);
    return rg__window_fetch(&c->window, &kept, ctx, c->at, n, 0, err);
}

/* Reading twice is harmless, so a connection that turns out to be dead is not worth an error. */
static int fetch(rg__consumer *c, const rg__ctx *ctx, int wait_ms, rg_err *err) {
    uint32_t n = window_size(c);
    if (c->again) {
        int kept = fetch_kept(c, ctx, n, err);
        c->window_epoch = rg__shared_epoch(c->q->shared);
        if (kept < 0 || c->window.n) return kept;
        c->again = false;
    }
    int rc = rg__window_fetch(&c->window, c->q, ctx, c->at, n, wait_ms, err);
    if (rc < 0 && err->cls == RG_CLASS_RECONNECT && rc != RG_ETIMEOUT)
        rc = rg__window_fetch(&c->window, c->q, ctx, c->at, n, wait_ms, err);
    if (rc >= 0) measure_window(c);
    c->window_epoch = rg__shared_epoch(c->q->shared);
    return rc;
}

int rg__consumer_wait_for_entries(rg__consumer *c, const rg__ctx *ctx, int64_t until_ms,
                                  rg_err *err) {
    if (c->window.at < c->window.n) return RG_OK;
    for (;;) {
        int left = rg__left_ms(until_ms);
        int rc = fetch(c, ctx, left > WAIT_SLICE_MS ? WAIT_SLICE_MS : left, err);
        if (rc < 0 || c->window.n || !rg__consumer_is_trusted(c) || rg__left_ms(until_ms) == 0) return rc;
    }
}
