/* SPDX-License-Identifier: MIT */
/* How queues are doing, and waiting for one to be empty. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"
#include "queue/letters.h"
#include "queue/stream.h"

enum { COLUMNS = 9, POLL_MIN_MS = 2, POLL_MAX_MS = 50 };

static const char *const columns[COLUMNS] = {"queue",  "stream",  "length", "oldest_ms",
                                             "ledger", "applied", "dead",
                                             "partition", "paused"};

/* ---- status ---- */

typedef struct status {
    uint64_t length, oldest_ms, dead;
    rg__ledger ledger;
} status;

static int ask_mysql(const rg__queue *q, const rg__ctx *ctx, status *s, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__ledger_look(q, c, ctx, &s->ledger, err);
    if (rc >= 0) rc = rg__letters_count_part(q, c, ctx, &s->dead, err);
    rg__mysql_release(c);
    return rc;
}

static int add_status(const rg__queue *q, const status *s, rg__result *out, rg_err *err) {
    char ledger[RG__POS_TEXT], length[24], oldest[24], applied[24], dead[24], part[16];
    rg__pos_format(s->ledger.at, ledger);
    snprintf(length, sizeof length, "%llu", (unsigned long long)s->length);
    snprintf(oldest, sizeof oldest, "%llu", (unsigned long long)s->oldest_ms);
    snprintf(applied, sizeof applied, "%llu", (unsigned long long)s->ledger.applied);
    snprintf(dead, sizeof dead, "%llu", (unsigned long long)s->dead);
    snprintf(part, sizeof part, "%u", q->part);
    const char *cells[COLUMNS] = {q->name, q->stream, length, oldest, ledger, applied, dead, part,
                                  s->ledger.paused ? "1" : "0"};
    return rg__result_add_strings(out, cells) < 0 ? rg__fail_memory(err) : RG_OK;
}

static int ask(const rg__queue *q, const rg__ctx *ctx, void *out, rg_err *err) {
    status s = {0};
    int rc = ask_mysql(q, ctx, &s, err);
    if (rc >= 0 && q->shared) rc = rg__stream_age(q, ctx, s.ledger.at, &s.length, &s.oldest_ms, err);
    if (rc < 0) {
        rg__err_prefix(err, "queue %s: ", q->name);
        return rc;
    }
    return add_status(q, &s, out, err);
}

/* How many partitions there are: with Redis away, as many as are configured. */
static uint32_t count_parts(const rg__queue *q, const rg__ctx *ctx) {
    uint32_t n = q->n_parts;
    if (q->shared) (void)rg__shared_parts(q->shared, ctx, q->name, q->n_parts, &n, NULL);
    return n;
}

int rg__queue_status(const rg__queue *queues, size_t n, const rg__ctx *ctx, rg__result **out,
                     rg_err *err) {
    int rc = RG_OK;
    *out = rg__result_new(columns, COLUMNS);
    if (!*out) return rg__fail_memory(err);
    for (uint32_t i = 2; i < COLUMNS; i++)
        if (i != 4) (*out)->kinds[i] = RG__CELL_U64;
    for (size_t i = 0; rc >= 0 && i < n; i++) rc = rg__each_part(&queues[i], count_parts(&queues[i], ctx), ctx, ask, *out, err);
    if (rc >= 0) return rc;
    rg__result_free(*out);
    *out = NULL;
    return rc;
}

static int pause_one(const rg__queue *part, const rg__ctx *ctx, void *paused, rg_err *err) {
    return rg__ledger_pause(part, ctx, *(const bool *)paused, err);
}

int rg__queue_pause(const rg__queue *q, const rg__ctx *ctx, bool paused, rg_err *err) {
    return rg__each_part(q, count_parts(q, ctx), ctx, pause_one, &paused, err);
}

/* ---- waiting ---- */

static int late(const rg__queue *q, rg__pos at, rg__pos end, rg_err *err) {
    char here[RG__POS_TEXT], there[RG__POS_TEXT];
    rg__pos_format(at, here);
    rg__pos_format(end, there);
    return rg__fail(err, RG_ETIMEOUT, "queue %s has been applied up to %s, not yet up to %s",
                    q->name, here, there);
}

static int read_position(const rg__queue *q, const rg__ctx *ctx, rg__pos *at, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rg__pos now;
    rc = rg__ledger_read(q, c, ctx, &now, NULL, err);
    if (rc >= 0) *at = now;
    rg__mysql_release(c);
    return rc;
}

static int wait_until(const rg__queue *q, const rg__ctx *ctx, rg__pos end, rg_err *err) {
    rg__pos at = {0, 0};
    int rc = RG_OK;
    for (int64_t pause_ms = POLL_MIN_MS; rc >= 0;) {
        rc = read_position(q, ctx, &at, err);
        if (rc == RG_ETIMEOUT) return late(q, at, end, err);
        if (rc < 0 || rg__pos_compare(at, end) >= 0) break;
        int left = rg__left_ms(ctx->deadline_ms);
        if (left <= POLL_MIN_MS) return late(q, at, end, err);
        rg__sleep_ms(pause_ms < left ? pause_ms : left - 1);
        pause_ms = pause_ms * 2 < POLL_MAX_MS ? pause_ms * 2 : POLL_MAX_MS;
    }
    return rc;
}

int rg__queue_drained(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    rg__pos end = {0, 0};
    if (!q->shared) return RG_OK; /* nothing was ever queued here */
    int rc = rg__stream_last(q, ctx, &end, err);
    return rc < 0 ? rc : wait_until(q, ctx, end, err);
}

int rg__queue_drained_all(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    uint32_t n = q->n_parts;
    if (!q->shared) return RG_OK;
    int rc = rg__shared_parts(q->shared, ctx, q->name, q->n_parts, &n, err);
    if (rc < 0) return rc;
    rg__queue *parts = rg__calloc(n, sizeof *parts);
    rg__pos *ends = rg__calloc(n, sizeof *ends);
    if (!parts || !ends) rc = rg__fail_memory(err);
    for (uint32_t p = 0; rc >= 0 && p < n; p++) {
        rc = rg__queue_part(q, p, &parts[p], err);
        if (rc >= 0) rc = rg__stream_last(&parts[p], ctx, &ends[p], err);
    }
    for (uint32_t p = 0; rc >= 0 && p < n; p++)
        if (ends[p].ms || ends[p].seq) rc = wait_until(&parts[p], ctx, ends[p], err);
    for (uint32_t p = 0; parts && p < n; p++) rg__queue_deinit(&parts[p]);
    rg__free(parts);
    rg__free(ends);
    return rc;
}
