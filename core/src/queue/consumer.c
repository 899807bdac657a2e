/* SPDX-License-Identifier: MIT */
/* The consumer: reads the stream, applies a batch in one transaction with the ledger, tells the
 * caches, trims (consistency.md 1). */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/batch.h"
#include "queue/outbox.h"

enum {
    MAX_BATCH = 256,
    SMALLEST_BATCH = 16,
    MAX_HOLD_MS = 50,
    MAX_TRIES = 5,
    WINDOW_BYTES = 4 << 20,    /* read ahead, about */
    ENTRY_BYTES_GUESS = 64 << 10,
    PACKET_GUESS = 1 << 20,    /* until a connection has told */
    TRIM_EVERY = 8,            /* batches */
    SETTLE_AT_ONCE = 64,       /* entries */
    WAIT_SLICE_MS = 1000,
    ANSWER_MS = 150,           /* left of the deadline: Redis is not exact when it waits */
    MOVES = 3                  /* times that a rival may be quicker before a step ends */
};

/* What a try came to, besides errors. */
enum { DONE = 0, MOVED, AGAIN };

struct rg__consumer {
    const rg__queue *q;
    rg__consumer_config cfg;
    rg__window window;
    rg__dead dead;
    rg__pos at;           /* the ledger, as far as it is known; everything up to it has been told */
    uint64_t epoch;       /* of Redis, when the window was read */
    bool trusted;         /* nothing has happened since that may have moved the ledger */
    size_t limit;         /* operations aimed at in one transaction */
    int64_t applying_us;  /* time of the last batch's statements */
    size_t max_bytes;     /* payload bytes in one transaction: half of a packet */
    size_t entry_bytes;   /* running mean */
    unsigned untrimmed;   /* batches */
    rg__consumer_totals totals;
    uint64_t *letters;    /* that the step has written */
    size_t n_letters, letters_cap;
};

rg__consumer *rg__consumer_new(const rg__queue *q, const rg__consumer_config *cfg, rg_err *err) {
    if (!q->shared) {
        rg__fail(err, RG_EMISUSE, "queue %s has no Redis pool, so nothing is ever queued in it",
                 q->name);
        return NULL;
    }
    rg__consumer *c = rg__calloc(1, sizeof *c);
    if (!c || rg__dead_init(&c->dead, err) < 0) {
        rg__consumer_free(c);
        rg__fail_memory(err);
        return NULL;
    }
    c->q = q;
    if (cfg) c->cfg = *cfg;
    if (!c->cfg.max_batch) c->cfg.max_batch = MAX_BATCH;
    if (!c->cfg.max_hold_ms) c->cfg.max_hold_ms = MAX_HOLD_MS;
    if (!c->cfg.max_tries) c->cfg.max_tries = MAX_TRIES;
    c->limit = c->cfg.max_batch;
    c->max_bytes = PACKET_GUESS;
    c->entry_bytes = ENTRY_BYTES_GUESS;
    return c;
}

void rg__consumer_free(rg__consumer *c) {
    if (!c) return;
    rg__window_clear(&c->window);
    rg__dead_deinit(&c->dead);
    rg__free(c->letters);
    rg__free(c);
}

const uint64_t *rg__consumer_letters(const rg__consumer *c, size_t *n) {
    *n = c->n_letters;
    return c->letters;
}

rg__consumer_totals rg__consumer_totals_get(const rg__consumer *c) { return c->totals; }

static void distrust(rg__consumer *c) {
    c->trusted = false;
    rg__window_clear(&c->window);
}

/* ---- where things stand: at the start, after errors, and when a rival was at work ---- */

static int read_ledger(rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *m = NULL;
    int rc = rg__mysql_acquire(c->q->mysql, ctx, &m, err);
    if (rc < 0) return rc;
    c->max_bytes = rg__mysql_max_packet(m) / 2;
    rc = rg__ledger_read(c->q, m, ctx, &c->at, NULL, err);
    if (rc >= 0) rc = rg__dead_load(&c->dead, c->q, m, ctx, err);
    if (rc < 0 && rg__is_missing_table(err)) rc = RG_OK;
    rg__mysql_release(m);
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

static int find_out(rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    bool more = true;
    int rc = read_ledger(c, ctx, err);
    if (rc >= 0) rc = rg__stream_raise(c->q, ctx, c->at, err);
    while (rc >= 0 && more) rc = settle_some(c, ctx, &more, err);
    rg__window_clear(&c->window);
    c->trusted = rc >= 0;
    return rc;
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

/* Reading twice is harmless, so a connection that turns out to be dead is not worth an error. */
static int fetch(rg__consumer *c, const rg__ctx *ctx, int wait_ms, rg_err *err) {
    uint32_t n = window_size(c);
    int rc = rg__window_fetch(&c->window, c->q, ctx, c->at, n, wait_ms, err);
    if (rc < 0 && err->cls == RG_CLASS_RECONNECT && rc != RG_ETIMEOUT)
        rc = rg__window_fetch(&c->window, c->q, ctx, c->at, n, wait_ms, err);
    if (rc >= 0) measure_window(c);
    c->epoch = rg__shared_epoch(c->q->shared);
    return rc;
}

static int wait_for_entries(rg__consumer *c, const rg__ctx *ctx, int64_t until_ms, rg_err *err) {
    if (c->window.at < c->window.n) return RG_OK;
    for (;;) {
        int left = rg__left_ms(until_ms);
        int rc = fetch(c, ctx, left > WAIT_SLICE_MS ? WAIT_SLICE_MS : left, err);
        if (rc < 0 || c->window.n || rg__left_ms(until_ms) == 0) return rc;
    }
}

/* ---- one try at a batch ---- */

static int apply(rg__batch *b, rg__mysql *m, const rg__ctx *ctx, rg_err *err) {
    if (b->singly) {
        rg__kill_point(RG__KILL_SINGLY);
        int rc = rg__batch_apply_singly(b, m, ctx, err);
        return rc == 1 ? AGAIN : rc;
    }
    int rc = rg__apply_waves(m, ctx, b->tasks, b->n, err);
    if (rc >= 0) return DONE;
    if (!rg__is_permanent(err)) return rc;
    b->singly = true;
    return AGAIN;
}

static int transact(rg__consumer *c, rg__mysql *m, const rg__ctx *ctx, rg__batch *b, rg_err *err) {
    int64_t started_us = rg__now_us();
    int rc = rg__batch_park(b, &c->dead, c->q, m, ctx, err);
    if (rc >= 0) rc = apply(b, m, ctx, err);
    c->applying_us = rg__now_us() - started_us;
    if (rc != DONE) return rc;
    rg__kill_point(RG__KILL_APPLIED);
    rc = rg__batch_write_letters(b, c->q, m, ctx, err);
    if (rc >= 0) rc = rg__batch_write_events(b, c->q, m, ctx, err);
    rg__kill_point(RG__KILL_LETTERS);
    if (rc >= 0) rc = rg__ledger_advance(c->q, m, ctx, b->last, b->n - b->n_dead, err);
    rg__kill_point(RG__KILL_ADVANCED);
    return rc;
}

/* The connection died with COMMIT in flight. Killing what is left of it and locking the ledger
 * settles what became of that: *known then. */
static int resolve(rg__consumer *c, const rg__ctx *ctx, const rg__batch *b, unsigned long old,
                   bool *known, rg_err *err) {
    rg__mysql *m = NULL;
    rg__pos at = {0, 0};
    rg__mysql_kill(c->q->mysql, ctx, old, NULL);
    int rc = rg__mysql_acquire(c->q->mysql, ctx, &m, err);
    if (rc >= 0) rc = rg__ledger_begin(c->q, m, ctx, &at, err);
    if (m) rg__mysql_release(m);
    *known = rc >= 0;
    if (rc < 0) rg__err_prefix(err, "finding out what became of a COMMIT: ");
    if (rc < 0) return rc;
    if (rg__pos_compare(at, b->last) >= 0) return DONE;
    if (rg__pos_compare(at, c->at) != 0) return MOVED;
    rg__fail(err, RG_EUNAVAILABLE, "the connection was lost at COMMIT, and nothing was applied");
    err->cls = RG_CLASS_RECONNECT;
    return RG_EUNAVAILABLE;
}

static int commit(rg__mysql *m, const rg__ctx *ctx, bool *unknown, rg_err *err) {
    int rc = rg__mysql_commit(m, ctx, err);
    *unknown = rc < 0 && err->cls == RG_CLASS_AMBIGUOUS;
    if (*unknown) rg__mysql_poison(m);
    if (rc >= 0) rg__kill_point(RG__KILL_COMMITTED);
    return rc;
}

/* Aims the size of batches at the longest transaction wished for. The time of the COMMIT does not
 * count, and there is an end to it: smaller batches make neither disks nor networks faster. */
static void adapt(rg__consumer *c, const rg__batch *b) {
    int64_t most = (int64_t)c->cfg.max_hold_ms * 1000;
    if (c->applying_us > most && b->n > SMALLEST_BATCH) c->limit = c->limit / 2;
    else if (c->applying_us < most / 2 && b->n * 2 > c->limit) c->limit *= 2;
    if (c->limit < SMALLEST_BATCH) c->limit = SMALLEST_BATCH;
    if (c->limit > c->cfg.max_batch) c->limit = c->cfg.max_batch;
}

/* The rows are locked now. If Redis has lost its data since the queue was read, nothing there tells readers
 * that they are about to change: then nothing is changed, and the queue is read again. */
static int confirm(const rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    bool same = false;
    int rc = rg__shared_confirm(c->q->shared, ctx, c->epoch, &same, err);
    return rc < 0 ? rc : same ? DONE : MOVED;
}

static int try_on(rg__consumer *c, rg__mysql *m, const rg__ctx *ctx, rg__batch *b, bool *unknown,
                  rg_err *err) {
    rg__pos at = {0, 0};
    int rc = rg__ledger_begin(c->q, m, ctx, &at, err);
    if (rc < 0) return rc;
    int64_t started_us = rg__now_us();
    rg__kill_point(RG__KILL_BEGUN);
    rc = rg__pos_compare(at, c->at) == 0 ? transact(c, m, ctx, b, err) : MOVED;
    if (rc == DONE) rc = rg__batch_mark(b, c->q, ctx, err);
    if (rc == DONE) rc = confirm(c, ctx, err);
    if (rc == DONE) rc = commit(m, ctx, unknown, err);
    else rg__mysql_rollback(m, ctx);
    if (rc != DONE) return rc;
    rg__observe(ctx->metrics, RG__H_BATCH_SECONDS, rg__now_us() - started_us);
    adapt(c, b);
    return rc;
}

static int try_batch(rg__consumer *c, const rg__ctx *ctx, rg__batch *b, rg_err *err) {
    rg__mysql *m = NULL;
    bool unknown = false;
    int rc = rg__outbox_ready(c->q, ctx, err);
    if (rc >= 0) rc = rg__mysql_acquire(c->q->mysql, ctx, &m, err);
    if (rc < 0) return rc;
    unsigned long id = rg__mysql_thread_id(m);
    rc = try_on(c, m, ctx, b, &unknown, err);
    rg__mysql_release(m);
    bool known = !unknown; /* the marks of what stays unknown expire, and are healed */
    b->resolved = unknown;
    if (unknown) rc = resolve(c, ctx, b, id, &known, err);
    if (known) rg__batch_unmark(b, c->q, ctx, rc == DONE);
    return rc;
}

/* ---- tries ---- */

/* Deadlocks are tried again at once, lost connections after a moment, with jitter. Statements
 * outside of a transaction that may have been done are all ones that may be done twice. */
static bool may_try_again(const rg__consumer *c, const rg__ctx *ctx, const rg_err *err,
                          uint32_t tries) {
    bool lost = err->cls == RG_CLASS_RECONNECT || err->cls == RG_CLASS_AMBIGUOUS;
    if ((!lost && err->cls != RG_CLASS_RETRY) || tries > c->cfg.max_tries) return false;
    uint32_t jitter = 0;
    rg__random(&jitter, sizeof jitter);
    rg__sleep_ms((int64_t)(jitter % ((lost ? 16u : 2u) << (tries > 8 ? 8 : tries))));
    return rg__left_ms(ctx->deadline_ms) > 0;
}

static int apply_batch(rg__consumer *c, const rg__ctx *ctx, rg__batch *b, rg_err *err) {
    uint32_t tries = 0;
    for (;;) {
        rg__err_clear(err);
        b->resolved = false;
        int rc = try_batch(c, ctx, b, err);
        if (rc == AGAIN) continue;
        if (rc >= 0 || !may_try_again(c, ctx, err, ++tries)) return rc;
        c->totals.retries++;
    }
}

/* ---- after the COMMIT ---- */

/* Failing here costs no operation: the next step finds out where things stand and tells again. */
static void tidy(rg__consumer *c, const rg__ctx *ctx, const rg__batch *b) {
    rg_err ignored;
    rg__err_clear(&ignored);
    int rc = rg__batch_note(b, &c->dead, &ignored);
    if (rc >= 0) rc = rg__batch_tell(b, false, c->q, ctx, &ignored);
    rg__kill_point(RG__KILL_TOLD);
    c->untrimmed++;
    c->totals.lag -= c->totals.lag < b->n_entries ? c->totals.lag : b->n_entries;
    if (rc >= 0 && (c->untrimmed >= TRIM_EVERY || c->window.at == c->window.n)) {
        rc = rg__stream_trim(c->q, ctx, c->at, &c->totals.lag, &ignored);
        c->untrimmed = 0;
        rg__kill_point(RG__KILL_TRIMMED);
    }
    if (rc < 0) distrust(c);
}

/* For who wants to be told; without memory the count tells at least how many there are. */
static void keep_letters(rg__consumer *c, const rg__batch *b) {
    size_t n = c->n_letters + b->n_dead;
    if (b->n_dead && n > c->letters_cap) {
        uint64_t *p = rg__reallocarray(c->letters, n * 2, sizeof *p);
        if (!p) return;
        c->letters = p;
        c->letters_cap = n * 2;
    }
    for (size_t i = 0; b->n_dead && i < b->n; i++)
        if (b->tasks[i].letter) c->letters[c->n_letters++] = b->tasks[i].letter;
}

static void account(rg__consumer *c, const rg__ctx *ctx, const rg__batch *b) {
    size_t applied = b->n - b->n_dead;
    c->totals.applied += applied;
    c->totals.dead += b->n_dead;
    c->totals.batches++;
    keep_letters(c, b);
    rg__count(ctx->metrics, RG__C_APPLIED_OPS, applied);
    rg__count(ctx->metrics, RG__C_DEAD_OPS, b->n_dead);
}

static int run_batch(rg__consumer *c, const rg__ctx *ctx, uint64_t *done, rg_err *err) {
    rg__batch b = {0};
    rg__kill_point(RG__KILL_FETCHED);
    int rc = rg__batch_make(&b, c->q, &c->window, c->limit, c->max_bytes, err);
    if (rc >= 0) rc = apply_batch(c, ctx, &b, err);
    if (rc == DONE) {
        c->at = b.last;
        c->window.at += b.n_entries;
        account(c, ctx, &b);
        if (b.resolved) distrust(c);
        else tidy(c, ctx, &b);
        *done = b.n;
    }
    rg__batch_deinit(&b);
    return rc;
}

/* ---- the step ---- */

static int step(rg__consumer *c, const rg__ctx *ctx, int64_t until_ms, uint64_t *done,
                rg_err *err) {
    for (int moves = 0;; moves++) {
        int rc = c->trusted ? RG_OK : find_out(c, ctx, err);
        if (rc >= 0) rc = wait_for_entries(c, ctx, until_ms, err);
        if (rc >= 0 && c->window.n == 0) c->totals.lag = 0;
        if (rc < 0 || c->window.n == 0) return rc;
        rc = run_batch(c, ctx, done, err);
        if (rc != MOVED) return rc;
        distrust(c);
        if (moves >= MOVES && rg__left_ms(until_ms) == 0) return RG_OK;
    }
}

static bool is_temporary(const rg_err *err) {
    return err->cls == RG_CLASS_RETRY || err->cls == RG_CLASS_RECONNECT ||
           err->cls == RG_CLASS_WAIT || err->cls == RG_CLASS_AMBIGUOUS ||
           err->code == RG_ETIMEOUT;
}

int rg__consumer_step(rg__consumer *c, const rg__ctx *ctx, uint32_t max_wait_ms, uint64_t *done,
                      rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    *done = 0;
    c->n_letters = 0;
    int64_t until_ms = rg__now_ms() + max_wait_ms;
    if (until_ms > ctx->deadline_ms - ANSWER_MS) until_ms = ctx->deadline_ms - ANSWER_MS;
    int rc = step(c, ctx, until_ms, done, &fault);
    if (rc >= 0) return RG_OK;
    distrust(c);
    if (is_temporary(&fault)) fault.retriable = 1;
    rg__err_prefix(&fault, "queue %s: ", c->q->name);
    if (err) *err = fault;
    return rc;
}
