/* SPDX-License-Identifier: MIT */
/* The consumer: applies a batch in one transaction with the ledger, tells the caches, trims
 * (consistency.md 1). */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/outbox.h"
#include "queue/standing.h"

enum {
    MAX_BATCH = 256,
    SMALLEST_BATCH = 16,
    MAX_HOLD_MS = 50,
    MAX_TRIES = 5,
    ENTRY_BYTES_GUESS = 64 << 10,
    PACKET_GUESS = 1 << 20,    /* until a connection has told */
    TRIM_EVERY = 8,            /* batches */
    ANSWER_MS = 150,           /* left of the deadline: Redis is not exact when it waits */
    MOVES = 3,                 /* times that a rival may be quicker before a step ends */
    PARENT_MS = 3000,          /* how long a foreign key may wait for another partition's row */
    PAUSED_MS = 200,           /* between two looks at a queue that is paused */
    PARENT_PAUSE_MS = 20       /* between two tries of that */
};

/* What a try came to, besides errors. */
enum { DONE = 0, MOVED, AGAIN, FENCED, HELD, PAUSED, RETHINK };

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

int rg__consumer_letters(rg__consumer *c, int (*take)(void *arg, uint64_t number), void *arg) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < c->n_letters; i++) rc = take(arg, c->letters[i]);
    c->n_letters = 0;
    return rc;
}

rg__consumer_totals rg__consumer_totals_get(const rg__consumer *c) { return c->totals; }

static void distrust(rg__consumer *c) {
    c->trusted = false;
    c->deaths_known = false;
    rg__window_clear(&c->window);
}

void rg__consumer_distrust(rg__consumer *c) { distrust(c); }
bool rg__consumer_lost(const rg__consumer *c) { return c->lost; }
int64_t rg__consumer_held_until(const rg__consumer *c) { return c->held_until_ms; }

void rg__consumer_on_connection(rg__consumer *c, void (*fn)(void *arg, unsigned long id), void *arg) {
    c->on_connection = fn;
    c->on_connection_arg = arg;
}

bool rg__consumer_at(const rg__consumer *c, uint64_t *ms, uint64_t *seq) {
    *ms = c->at.ms;
    *seq = c->at.seq;
    return c->trusted;
}

static void note_connection(rg__consumer *c, const rg__mysql *m) {
    unsigned long id = rg__mysql_thread_id(m);
    if (id == c->connection) return;
    c->connection = id;
    if (c->on_connection) c->on_connection(c->on_connection_arg, id);
}

int rg__consumer_fence(rg__consumer *c, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *m = NULL;
    uint64_t fence = 0;
    distrust(c);
    int rc = rg__mysql_acquire(c->q->mysql, ctx, &m, err);
    if (rc < 0) return rc;
    note_connection(c, m);
    rc = rg__ledger_fence(c->q, m, ctx, &fence, err);
    if (rc < 0 && err->cls == RG_CLASS_AMBIGUOUS) {
        rg__mysql_poison(m);
        err->cls = RG_CLASS_RECONNECT; /* another fence is as good */
    }
    rg__mysql_release(m);
    if (rc < 0) return rc;
    c->fence = fence;
    c->lost = false;
    return RG_OK;
}

/* ---- one try at a batch ---- */

/* The row that a foreign key asks for may be queued in another partition. */
static bool may_wait_for_parent(rg__consumer *c) {
    if (c->q->n_parts <= 1) return false;
    int64_t now = rg__now_ms();
    if (!c->held_since_ms) c->held_since_ms = now;
    c->held_until_ms = now + PARENT_PAUSE_MS;
    return now - c->held_since_ms < PARENT_MS;
}

static int apply(rg__consumer *c, rg__batch *b, rg__mysql *m, const rg__ctx *ctx, rg_err *err) {
    if (b->singly) {
        rg__kill_point(RG__KILL_SINGLY);
        int rc = rg__batch_apply_singly(b, m, ctx, err);
        return rc == 1 ? AGAIN : rc;
    }
    int rc = rg__apply_waves(m, ctx, b->tasks, b->n, err);
    if (rc >= 0) return DONE;
    if (!rg__is_permanent(err)) return rc;
    if (err->code == RG_EFOREIGN_KEY && may_wait_for_parent(c)) return HELD;
    b->singly = true;
    return AGAIN;
}

static int transact(rg__consumer *c, rg__mysql *m, const rg__ctx *ctx, rg__batch *b, rg_err *err) {
    int64_t started_us = rg__now_us();
    int rc = rg__batch_park(b, &c->dead, c->q, m, ctx, err);
    if (rc >= 0) rc = apply(c, b, m, ctx, err);
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
    int rc = rg__shared_confirm(c->q->shared, ctx, c->window_epoch, &same, err);
    return rc < 0 ? rc : same ? DONE : MOVED;
}

/* Once three have died of a batch, or so: its entries one by one; then what the last one died of. The
 * count is read under the ledger's lock, when nobody else can be in the middle of these entries. */
static bool is_suspect(rg__consumer *c, const rg__ctx *ctx, const rg__batch *b) {
    if (c->cfg.max_deaths == 0) return false;
    if (!c->deaths_known) rg__deaths_load(&c->deaths, c->q, ctx);
    c->deaths_known = true;
    return rg__deaths_at(&c->deaths, c->at) + 1 >= c->cfg.max_deaths && !b->careful;
}

static int transact_noted(rg__consumer *c, rg__mysql *m, const rg__ctx *ctx, rg__batch *b,
                          bool *unknown, rg_err *err) {
    bool noted = c->cfg.max_deaths != 0;
    if (noted) rg__deaths_note(&c->deaths, c->q, ctx, c->at, b->last);
    int rc = transact(c, m, ctx, b, err);
    if (rc == DONE) rc = rg__batch_mark(b, c->q, ctx, err);
    if (rc == DONE) rc = confirm(c, ctx, err);
    if (rc == DONE) rc = commit(m, ctx, unknown, err);
    if (noted) rg__deaths_settle(&c->deaths, c->q, ctx, rc == DONE);
    return rc;
}

static int try_on(rg__consumer *c, rg__mysql *m, const rg__ctx *ctx, rg__batch *b, bool *unknown,
                  rg_err *err) {
    rg__ledger row = {0};
    int rc = rg__ledger_lock(c->q, m, ctx, &row, err);
    if (rc < 0) return rc;
    int64_t started_us = rg__now_us();
    rg__kill_point(RG__KILL_BEGUN);
    if (c->fence && row.fence > c->fence) rc = FENCED;
    else if (row.paused) rc = PAUSED;
    else if (rg__pos_compare(row.at, c->at) != 0) rc = MOVED;
    else if (is_suspect(c, ctx, b)) rc = RETHINK;
    else rc = transact_noted(c, m, ctx, b, unknown, err);
    if (rc != DONE) rg__mysql_rollback(m, ctx);
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
    note_connection(c, m);
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
    if (rc >= 0 && c->again) rc = rg__batch_forget(b, c->q, ctx, &ignored);
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

/* An entry that keeps ending processes is none that may be applied. */
static int condemn_killer(rg__consumer *c, rg__batch *b, uint32_t deaths, rg_err *err) {
    rg_err why;
    rg__fail(&why, RG_EINTERNAL, "%u consumers ended while they applied it", deaths);
    why.cls = RG_CLASS_PERMANENT;
    c->killer = true;
    return rg__batch_condemn(b, &why, err);
}

static int make_batch(rg__consumer *c, rg__batch *b, rg_err *err) {
    uint32_t deaths = c->cfg.max_deaths ? rg__deaths_at(&c->deaths, c->at) : 0;
    bool careful = deaths && deaths + 1 >= c->cfg.max_deaths;
    c->killer = false;
    int rc = rg__batch_make(b, c->q, &c->window, careful ? 1 : c->limit, c->max_bytes, err);
    b->careful = careful;
    return rc >= 0 && careful && deaths >= c->cfg.max_deaths ? condemn_killer(c, b, deaths, err) : rc;
}

static void finish_batch(rg__consumer *c, const rg__ctx *ctx, const rg__batch *b, uint64_t *done) {
    c->at = b->last;
    c->window.at += b->n_entries;
    c->held_since_ms = c->held_until_ms = 0;
    c->paused = false;
    if (c->killer) rg__deaths_forget(&c->deaths, c->q, ctx);
    account(c, ctx, b);
    if (b->resolved) distrust(c);
    else tidy(c, ctx, b);
    *done = b->n;
}

static int run_batch(rg__consumer *c, const rg__ctx *ctx, uint64_t *done, rg_err *err) {
    int rc;
    do {
        rg__batch b = {0};
        rg__kill_point(RG__KILL_FETCHED);
        uint64_t epoch = c->window.entries[c->window.at].epoch;
        if (epoch > c->epoch) {
            int turned = rg__consumer_turn(c, ctx, epoch, err);
            return turned < 0 ? turned : MOVED;
        }
        rc = make_batch(c, &b, err);
        if (rc >= 0) rc = apply_batch(c, ctx, &b, err);
        if (rc == DONE) finish_batch(c, ctx, &b, done);
        rg__batch_deinit(&b);
    } while (rc == RETHINK);
    return rc;
}

/* ---- the step ---- */

static int step(rg__consumer *c, const rg__ctx *ctx, int64_t until_ms, uint64_t *done,
                rg_err *err) {
    for (int moves = 0;; moves++) {
        int rc = rg__consumer_is_trusted(c) ? RG_OK : rg__consumer_find_out(c, ctx, err);
        if (rc >= 0) rc = rg__consumer_wait_for_entries(c, ctx, until_ms, err);
        if (rc >= 0 && !rg__consumer_is_trusted(c) && moves++ < MOVES) {
            distrust(c); /* it was another Redis that answered */
            continue;
        }
        if (rc >= 0 && c->window.n == 0) c->totals.lag = 0;
        if (rc < 0 || c->window.n == 0) return rc;
        rc = run_batch(c, ctx, done, err);
        if (rc == FENCED) c->lost = true;
        if (rc == FENCED) distrust(c);
        if (rc == PAUSED) {
            c->held_until_ms = rg__now_ms() + PAUSED_MS;
            c->paused = true;
            return RG_OK;
        }
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

static bool is_resting(const rg__consumer *c) {
    return c->paused && c->held_until_ms > rg__now_ms();
}

/* A paused queue is looked at now and then. */
static void rest(const rg__consumer *c, int64_t until_ms) {
    int64_t ms = c->held_until_ms - rg__now_ms();
    int left = rg__left_ms(until_ms);
    if (is_resting(c) && left > 0) rg__sleep_ms(ms < left ? ms : left);
}

int rg__consumer_step(rg__consumer *c, const rg__ctx *ctx, uint32_t max_wait_ms, uint64_t *done,
                      rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    *done = 0;
    if (c->lost) return RG_OK;
    int64_t until_ms = rg__now_ms() + max_wait_ms;
    if (until_ms > ctx->deadline_ms - ANSWER_MS) until_ms = ctx->deadline_ms - ANSWER_MS;
    rest(c, until_ms);
    int rc = is_resting(c) ? RG_OK : step(c, ctx, until_ms, done, &fault);
    if (rc >= 0) return RG_OK;
    distrust(c);
    if (is_temporary(&fault)) fault.retriable = 1;
    rg__err_prefix(&fault, "queue %s: ", c->q->name);
    if (err) *err = fault;
    return rc;
}
