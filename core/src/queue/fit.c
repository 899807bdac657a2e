/* SPDX-License-Identifier: MIT */
/* Whether a queue may be used: what its Redis is, and whether there is room. */
#include "base/err.h"
#include "queue/stream.h"

enum { MEASURE_MS = 100, COLUMNS = 3, TEXT_MAX = 256 };

/* ---- Redis ---- */

static int judge_persistence(const rg__queue *q, const rg__fitness *f, rg_err *err) {
    if (!f->known || f->appends) return RG_OK;
    return rg__fail(err, RG_ECONFIG, "the Redis of queue %s has no append-only file: what is queued is "
                                     "lost when it restarts", q->name);
}

int rg__queue_fit(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    rg__fitness f;
    if (!q->shared || q->rules.persistence != RG_UNFIT_REFUSE) return RG_OK;
    int rc = rg__shared_fitness(q->shared, ctx, &f, err);
    return rc < 0 ? rc : judge_persistence(q, &f, err);
}

static int add_warning(rg__result *out, const rg__queue *q, const char *fault, const rg_err *why,
                       rg_err *err) {
    const char *cells[COLUMNS] = {q->name, fault, why->message};
    return rg__result_add_strings(out, cells) < 0 ? rg__fail_memory(err) : RG_OK;
}

static int warn(const rg__queue *q, const rg__ctx *ctx, rg__result *out, rg_err *err) {
    rg__fitness f;
    rg_err why = {0};
    int rc = rg__shared_fitness(q->shared, ctx, &f, err);
    if (rc >= 0 && judge_persistence(q, &f, &why) < 0)
        rc = add_warning(out, q, "persistence", &why, err);
    return rc;
}

static int warn_of_lost(const rg__queue *parts, uint32_t n, rg__result *out, rg_err *err) {
    int rc = RG_OK;
    for (uint32_t p = 0; rc >= 0 && p < n; p++) {
        char id[48];
        rg_err why = {0};
        if (!rg__queue_lost(&parts[p], id)) continue;
        rg__fail(&why, RG_EGAP, "Redis came back without entry %s of stream %s, which it had acknowledged and MySQL "
                                "has not had; others before it may be gone as well", id, parts[p].stream);
        rc = add_warning(out, &parts[p], "lost", &why, err);
    }
    return rc;
}

int rg__queue_warnings(const rg__queue *queues, rg__queue *const *parts, size_t n, const rg__ctx *ctx,
                       rg__result **out, rg_err *err) {
    static const char *const columns[COLUMNS] = {"queue", "fault", "text"};
    int rc = RG_OK;
    *out = rg__result_new(columns, COLUMNS);
    if (!*out) return rg__fail_memory(err);
    for (size_t i = 0; rc >= 0 && i < n; i++)
        if (queues[i].shared) {
            rc = warn(&queues[i], ctx, *out, err);
            if (rc >= 0) rc = warn_of_lost(parts[i], queues[i].n_parts, *out, err);
        }
    if (rc >= 0) return rc;
    rg__result_free(*out);
    *out = NULL;
    return rc;
}

/* ---- room ---- */

static int measure(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    rg__queue_gauge *g = q->gauge;
    int64_t now = rg__now_ms();
    long long last = atomic_load(&g->measured_ms);
    if (last && now - last < MEASURE_MS) return RG_OK;
    if (!atomic_compare_exchange_strong(&g->measured_ms, &last, now) && last) return RG_OK;
    uint64_t len = 0, age_ms = 0, bytes = 0;
    rg__pos trimmed = {0, 0};
    int rc = rg__stream_trimmed(q, ctx, &trimmed, err);
    if (rc >= 0) rc = rg__stream_age(q, ctx, trimmed, &len, &age_ms, err);
    if (rc >= 0 && q->rules.max_bytes) rc = rg__stream_bytes(q, ctx, &bytes, err);
    if (rc < 0) return rc;
    atomic_store(&g->age_ms, age_ms);
    atomic_store(&g->bytes, len ? bytes : 0);
    return RG_OK;
}

int rg__queue_room(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    if ((!q->rules.max_age_ms && !q->rules.max_bytes) || !q->gauge) return RG_OK;
    int rc = measure(q, ctx, err);
    if (rc < 0) return rc;
    unsigned long long age = atomic_load(&q->gauge->age_ms), bytes = atomic_load(&q->gauge->bytes);
    if (q->rules.max_age_ms && age >= q->rules.max_age_ms)
        return rg__fail(err, RG_EBACKPRESSURE, "the oldest entry of queue %s waits for %llu ms, over the "
                                               "bound of %llu", q->name, age,
                        (unsigned long long)q->rules.max_age_ms);
    if (q->rules.max_bytes && bytes >= q->rules.max_bytes)
        return rg__fail(err, RG_EBACKPRESSURE, "queue %s takes %llu bytes, over the bound of %llu",
                        q->name, bytes, (unsigned long long)q->rules.max_bytes);
    return RG_OK;
}

/* ---- gaps ---- */

/* What is to be done to each partition. */
typedef struct going {
    rg__pos to;  /* where it goes back to */
    uint64_t *n; /* how many went */
} going;

static int accept_one(const rg__queue *q, const rg__ctx *ctx, void *arg, rg_err *err) {
    const going *g = arg;
    rg__mysql *c = NULL;
    rg__ledger row;
    rg__pos trimmed;
    int rc = rg__stream_trimmed(q, ctx, &trimmed, err);
    if (rc >= 0) rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__ledger_lock(q, c, ctx, &row, err);
    bool gap = rc >= 0 && rg__pos_compare(row.at, trimmed) < 0;
    if (gap) rc = rg__ledger_turn(q, c, ctx, row.epoch, trimmed, err);
    if (rc >= 0) rc = rg__mysql_commit(c, ctx, err);
    else rg__mysql_rollback(c, ctx);
    rg__mysql_release(c);
    if (rc >= 0) *g->n += gap;
    return rc;
}

static int go(const rg__queue *q, const rg__ctx *ctx, rg__part_fn fn, rg__pos to, uint64_t *n,
              rg_err *err) {
    uint32_t parts = q->n_parts;
    going g = {to, n};
    *n = 0;
    int rc = rg__shared_parts(q->shared, ctx, q->name, q->n_parts, &parts, err);
    return rc < 0 ? rc : rg__each_part(q, parts, ctx, fn, &g, err);
}

int rg__queue_accept_gap(const rg__queue *q, const rg__ctx *ctx, uint64_t *n, rg_err *err) {
    return go(q, ctx, accept_one, (rg__pos){0, 0}, n, err);
}

/* ---- applying again ---- */

static int refuse_replay(const rg__queue *q, rg__pos trimmed, rg_err *err) {
    char gone[RG__POS_TEXT];
    rg__pos_format(trimmed, gone);
    return rg__fail(err, RG_EGAP, "entries up to %s are gone from stream %s: retain_s says how long they "
                                  "are kept", gone, q->stream);
}

static int replay_one(const rg__queue *q, const rg__ctx *ctx, void *arg, rg_err *err) {
    const going *g = arg;
    rg__pos at = g->to;
    rg__mysql *c = NULL;
    rg__ledger row;
    rg__pos trimmed;
    int rc = rg__stream_trimmed(q, ctx, &trimmed, err);
    if (rc >= 0 && rg__pos_compare(at, trimmed) < 0) rc = refuse_replay(q, trimmed, err);
    if (rc >= 0) rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__ledger_lock(q, c, ctx, &row, err);
    bool back = rc >= 0 && rg__pos_compare(at, row.at) < 0;
    if (back) rc = rg__ledger_turn(q, c, ctx, row.epoch, at, err);
    if (rc >= 0) rc = rg__mysql_commit(c, ctx, err);
    else rg__mysql_rollback(c, ctx);
    rg__mysql_release(c);
    if (rc >= 0) *g->n += back;
    return rc;
}

int rg__queue_replay(const rg__queue *q, const rg__ctx *ctx, const char *from, uint64_t *n,
                     rg_err *err) {
    rg__pos at;
    if (!rg__pos_parse(rg__slice_of(from), &at) || (!at.ms && !at.seq))
        return rg__fail_field(err, "from", "\"%s\" is not the id of an entry", from);
    at = at.seq ? (rg__pos){at.ms, at.seq - 1} : (rg__pos){at.ms - 1, UINT64_MAX >> 1};
    return go(q, ctx, replay_one, at, n, err);
}
