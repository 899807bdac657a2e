/* SPDX-License-Identifier: MIT */
/* What this process was told to be queued, and whether a Redis that came back still has it. One that was
 * killed, or replaced by a replica, may lack the tail of what it acknowledged; nobody but who queued that
 * can tell. */
#include "base/err.h"
#include "queue/stream.h"

static bool is_set(rg__pos p) { return p.ms || p.seq; }

/* Takes note of an entry: *before is the last one of an earlier epoch that was not looked for yet. */
static void note(rg__queue_gauge *g, rg__pos at, uint64_t epoch, rg__pos *before) {
    pthread_mutex_lock(&g->lock);
    rg__pos told = {g->told_ms, g->told_seq}, owed = {g->owed_ms, g->owed_seq};
    if (g->told_epoch && epoch > g->told_epoch && is_set(told)) owed = told;
    if (epoch > g->told_epoch || rg__pos_compare(at, told) > 0) told = at;
    if (epoch > g->told_epoch) g->told_epoch = epoch;
    g->told_ms = told.ms;
    g->told_seq = told.seq;
    g->owed_ms = owed.ms;
    g->owed_seq = owed.seq;
    *before = owed;
    pthread_mutex_unlock(&g->lock);
}

static void settle(rg__queue_gauge *g, rg__pos at, bool lost) {
    pthread_mutex_lock(&g->lock);
    if (g->owed_ms == at.ms && g->owed_seq == at.seq) g->owed_ms = g->owed_seq = 0;
    if (lost) {
        g->lost_ms = at.ms;
        g->lost_seq = at.seq;
    }
    pthread_mutex_unlock(&g->lock);
}

/* Is the entry in the stream, or in what is kept of it? */
static int look_for(const rg__queue *q, const rg__ctx *ctx, const char *stream, rg__pos at, bool *there,
                    rg_err *err) {
    rg__window w = {0};
    rg__queue in = *q;
    rg__pos before = at.seq ? (rg__pos){at.ms, at.seq - 1} : (rg__pos){at.ms - 1, UINT64_MAX};
    in.stream = (char *)(uintptr_t)stream;
    int rc = rg__window_fetch(&w, &in, ctx, before, 1, 0, err);
    *there = rc >= 0 && w.n && rg__pos_compare(w.entries[0].id, at) == 0;
    rg__window_clear(&w);
    return rc;
}

static int is_applied(const rg__queue *q, const rg__ctx *ctx, rg__pos at, bool *applied, rg_err *err) {
    rg__mysql *c = NULL;
    rg__pos now = {0, 0};
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__ledger_read(q, c, ctx, &now, NULL, err);
    rg__mysql_release(c);
    *applied = rc >= 0 && rg__pos_compare(now, at) >= 0;
    return rc;
}

/* The stream first: what leaves it meanwhile is in the ledger then. */
static int find(const rg__queue *q, const rg__ctx *ctx, rg__pos at, bool *found, rg_err *err) {
    char kept[320];
    int rc = look_for(q, ctx, q->stream, at, found, err);
    if (rc >= 0 && !*found) rc = is_applied(q, ctx, at, found, err);
    if (rc >= 0 && !*found && q->rules.retain_ms)
        rc = look_for(q, ctx, rg__stream_kept(q, kept), at, found, err);
    return rc;
}

void rg__queue_told(const rg__queue *q, const rg__ctx *ctx, const char *id) {
    rg__pos at, before = {0, 0};
    bool found = true;
    if (!q->gauge || !rg__pos_parse(rg__slice_of(id), &at)) return;
    note(q->gauge, at, rg__shared_epoch(q->shared), &before);
    if (!is_set(before)) return;
    if (find(q, ctx, before, &found, NULL) < 0) return; /* the next flush looks again */
    settle(q->gauge, before, !found);
    if (!found) rg__count(ctx->metrics, RG__C_QUEUE_LOST, 1);
}

bool rg__queue_lost(const rg__queue *q, char id[48]) {
    rg__pos lost = {0, 0};
    if (!q->gauge) return false;
    pthread_mutex_lock(&q->gauge->lock);
    lost = (rg__pos){q->gauge->lost_ms, q->gauge->lost_seq};
    pthread_mutex_unlock(&q->gauge->lock);
    rg__pos_format(lost, id);
    return is_set(lost);
}
