/* SPDX-License-Identifier: MIT */
/* Writers, readers, a consumer and a nemesis around the real scripts and a database of a few rows.
 *
 * The database is an array: each row has a lock (its row lock, held from the SQL to the end of the
 * transaction) and a version that each commit raises. A row's field n is its version, so a reader
 * can tell what it was given: whatever the cache says must have been committed at a moment between
 * its question and the answer. Writers stop at random steps of the protocol, and some leave a
 * COMMIT behind that lands later. */
#include "cache_support.h"

enum {
    ROWS = 12,
    VERSIONS = 200000,
    LEASE_MS = 40,
    MARK_MS = 30,
    LIMIT_MS = 1700, /* T of the process tier: ping interval, pong time-out, slack */
};

typedef struct db_row {
    pthread_mutex_t lock;        /* the row lock */
    atomic_uint version;
    atomic_uchar present[VERSIONS];
    atomic_llong since_ms[VERSIONS];
} db_row;

static db_row *db;
static fixture f;
static rg__coherence *channel;
static rg__key keys[ROWS];

/* One run. */
static struct plan {
    int transactions;
    bool kills;    /* writers die */
    bool strict;   /* readers check every answer */
    bool async;    /* some writes are queued */
    bool chaos;    /* Redis loses everything now and then */
} plan;

static atomic_int to_do, writing;
static atomic_bool over, no_more_writes;
static atomic_ulong n_commits, n_killed, n_hits, n_l1_hits, n_stale, n_l1_stale, n_fills, n_heals,
    n_bypasses, n_queued, n_applied, n_dead, n_refused, n_pending_seen;

static bool chance(unsigned *seed, int percent) {
    return (int)((unsigned)rand_r(seed) % 100) < percent;
}
static unsigned pick(unsigned *seed, unsigned n) { return (unsigned)rand_r(seed) % n; }
static void count(atomic_ulong *what) { atomic_fetch_add(what, 1); }

/* ---- the database ---- */

static unsigned version_of(int i) { return atomic_load(&db[i].version); }
static bool present_at(int i, unsigned v) { return atomic_load(&db[i].present[v]) == 1; }

/* Under the row lock. */
static void commit(int i, bool present) {
    unsigned v = version_of(i) + 1;
    if (v >= VERSIONS) abort();
    atomic_store(&db[i].present[v], present ? 1 : 0);
    atomic_store(&db[i].since_ms[v], rg__now_ms());
    atomic_store(&db[i].version, v);
    count(&n_commits);
}

static rg_block *row_at(int i, unsigned v) {
    return present_at(i, v) ? make_row(f.both, (uint64_t)i + 1, "r", v) : NULL;
}

/* ---- readers ---- */

static void complain(const char *where, int i, unsigned low, unsigned high, const char *what,
                     uint64_t n) {
    count(&n_stale);
    if (atomic_load(&n_stale) > 5) return;
    char bytes[256];
    size_t len = raw_get(&f, &keys[i], bytes, sizeof bytes);
    printf("# %s: row %d is %s %llu, committed %u to %u; entry %c now\n", where, i, what,
           (unsigned long long)n, low, high, len ? bytes[0] : '-');
}

/* A value must have been the committed one, or ahead of it when it is queued. */
static void judge(const char *where, int i, const rg__entry *e, unsigned low) {
    unsigned high = version_of(i);
    count(&n_hits);
    if (e->pending) count(&n_pending_seen);
    if (!plan.strict) return;
    if (e->found == RG__VALUE) {
        uint64_t n = n_of(f.both, e->block);
        bool right =
            n >= low && (n <= high || e->pending) && (e->pending || present_at(i, (unsigned)n));
        if (!right) complain(where, i, low, high, e->pending ? "pending" : "value", n);
        return;
    }
    bool right = e->pending;
    for (unsigned v = low; v <= high; v++) right |= !present_at(i, v);
    if (!right) complain(where, i, low, high, "absent", 0);
}

static bool lock_for_a_while(int i) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 150 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return pthread_mutex_timedlock(&db[i].lock, &t) == 0;
}

/* Loads under a lease and fills, unless it dies. */
static void load(int i, rg__entry *e, unsigned *seed) {
    rg__ctx ctx = ctx_ms(2000);
    if (e->lease.heal && !lock_for_a_while(i)) {
        rg__shared_unlease(f.shared, &ctx, &keys[i], 1, e);
        return;
    }
    rg_block *row = row_at(i, version_of(i));
    if (e->lease.heal) pthread_mutex_unlock(&db[i].lock);
    if (chance(seed, 10)) rg__sleep_ms(pick(seed, 2 * MARK_MS));
    if (!plan.kills || !chance(seed, 3))
        rg__shared_fill(f.shared, &ctx, f.both, true, &keys[i], 1, &row, e, e->lease.heal);
    count(e->lease.heal ? &n_heals : &n_fills);
    rg_block_unref(row);
}

static void keep(int i, const rg__entry *e, uint64_t stamp) {
    if (e->pending) return;
    rg_block *b = e->block ? rg_block_ref(e->block) : rg__block_new(0);
    rg__process_put(f.process, keys[i].space, keys[i].hash, b, 0, stamp);
    rg_block_unref(b);
}

/* How long ago the version was replaced; 0: it is the one, or there was no such. */
static int64_t outdated_for(int i, const rg_block *b, int64_t now) {
    unsigned v = rg_block_len(b) ? (unsigned)n_of(f.both, b) : UINT32_MAX;
    unsigned last = version_of(i);
    if (v == UINT32_MAX) /* absent: since the last time it was not */
        for (v = last; v > 0 && present_at(i, v); v--) {}
    return v < last ? now - atomic_load(&db[i].since_ms[v + 1]) : 0;
}

static bool look_in_process(int i) {
    rg_block *b = rg__process_get(f.process, keys[i].space, keys[i].hash);
    if (!b) return false;
    int64_t late = outdated_for(i, b, rg__now_ms());
    if (late > LIMIT_MS && plan.strict) {
        count(&n_l1_stale);
        printf("# process tier: row %d is %lld ms late\n", i, (long long)late);
    }
    count(&n_l1_hits);
    rg_block_unref(b);
    return true;
}

static void read_one(int i, unsigned *seed) {
    if (look_in_process(i)) return;
    rg__ctx ctx = ctx_ms(2000);
    rg__entry e;
    uint64_t stamp = rg__process_stamp(f.process, keys[i].space, keys[i].hash);
    unsigned low = version_of(i);
    rg__shared_get(f.shared, &ctx, f.both, true, &keys[i], 1, &e);
    const char *where = "get";
    if (e.found == RG__MISS) {
        low = version_of(i);
        rg__shared_lease(f.shared, &ctx, f.both, true, &keys[i], 1, &e);
        where = "lease";
    }
    if (e.found == RG__VALUE || e.found == RG__ABSENT) {
        judge(where, i, &e, low);
        keep(i, &e, stamp);
    }
    if (e.found == RG__MISS && e.lease.held) load(i, &e, seed);
    if (e.found == RG__BYPASS) count(&n_bypasses);
    rg__entry_deinit(&e);
}

static void *read_on(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg * 7919;
    while (!atomic_load(&over)) {
        read_one((int)pick(&seed, ROWS), &seed);
        if (chance(&seed, 5)) rg__sleep_ms(1);
    }
    return NULL;
}

/* ---- writers ---- */

/* One transaction on one or two rows. */
typedef struct transaction {
    rg__txid id;
    int rows[2], n;
    bool present[2]; /* as it will be */
    rg__change changes[2];
    rg_block *before[2], *after[2];
} transaction;

/* What the writer believes is now and then older than what the row lock protects. */
static unsigned believed(int i, unsigned *seed) {
    unsigned v = version_of(i);
    if (!chance(seed, 8)) return v;
    for (unsigned back = 1; back < 5 && back < v; back++)
        if (present_at(i, v - back)) return v - back;
    return v;
}

static void plan_row(transaction *t, int at, unsigned *seed) {
    int i = t->rows[at];
    bool exists = present_at(i, version_of(i));
    unsigned from = exists ? believed(i, seed) : version_of(i);
    t->present[at] = !exists || !chance(seed, 20);
    t->before[at] = exists ? make_row(f.both, (uint64_t)i + 1, "r", from) : NULL;
    t->after[at] = t->present[at] ? make_row(f.both, (uint64_t)i + 1, "r", from + 1) : NULL;
    t->changes[at] = row_change(f.both, keys[i], t->before[at], t->after[at]);
}

static void begin(transaction *t, unsigned *seed) {
    *t = (transaction){.id = new_tx(), .n = 1 + chance(seed, 30)};
    t->rows[0] = (int)pick(seed, ROWS);
    t->rows[1] = (int)pick(seed, ROWS);
    if (t->rows[0] == t->rows[1]) t->n = 1;
    if (t->n == 2 && t->rows[0] > t->rows[1]) { /* locks in order */
        int swap = t->rows[0];
        t->rows[0] = t->rows[1];
        t->rows[1] = swap;
    }
    for (int at = 0; at < t->n; at++) pthread_mutex_lock(&db[t->rows[at]].lock);
    for (int at = 0; at < t->n; at++) plan_row(t, at, seed);
}

static void end_sql(transaction *t, bool commits) {
    for (int at = 0; commits && at < t->n; at++) commit(t->rows[at], t->present[at]);
    for (int at = 0; at < t->n; at++) pthread_mutex_unlock(&db[t->rows[at]].lock);
}

static void free_rows(transaction *t) {
    for (int at = 0; at < t->n; at++) {
        rg_block_unref(t->before[at]);
        rg_block_unref(t->after[at]);
    }
}

/* A COMMIT that was sent by a writer that is no more. Locks are let go by the thread that took
 * them, so the writer's thread itself plays its own ghost; other writers go on meanwhile. */
static void haunt(transaction *t, unsigned *seed) {
    count(&n_killed);
    rg__sleep_ms(pick(seed, 3 * MARK_MS));
    end_sql(t, chance(seed, 50));
}

static void finish(transaction *t, unsigned *seed) {
    rg__ctx ctx = ctx_ms(2000);
    int fate = (int)pick(seed, 100);
    if (chance(seed, 2)) rg__sleep_ms(pick(seed, 3 * MARK_MS)); /* slower than its marks last */
    if (plan.kills && fate < 3) return haunt(t, seed);
    bool commits = fate < 85;
    end_sql(t, commits);
    if (plan.kills && chance(seed, 5)) {
        count(&n_killed);
        return;
    }
    if (chance(seed, 3)) rg__sleep_ms(pick(seed, 2 * MARK_MS));
    if (commits) rg__shared_publish(f.shared, &ctx, t->id, t->changes, (size_t)t->n);
    else rg__shared_unmark(f.shared, &ctx, t->id, t->changes, (size_t)t->n);
}

static void write_one(unsigned *seed) {
    transaction t;
    begin(&t, seed);
    rg__ctx ctx = ctx_ms(2000);
    rg_err err = {0};
    int rc = plan.kills && chance(seed, 2)
                 ? RG_ECANCELLED
                 : rg__shared_mark(f.shared, &ctx, t.id, t.changes, (size_t)t.n, NULL, &err);
    if (rc == RG_OK) {
        finish(&t, seed);
    } else {
        count(&n_refused);
        end_sql(&t, false);
        if (plan.chaos) rg__sleep_ms(1);
    }
    free_rows(&t);
}

/* ---- queued writes ---- */

typedef struct op {
    int32_t row;
    uint32_t from; /* version it was built on */
    int32_t insert, present;
} op;

static atomic_ullong sequence;

/* What is there now, as a writer of the application sees it: cached, or loaded and filled. */
static bool current_row(int i, unsigned *seed, rg_block **row, unsigned *version) {
    rg__ctx ctx = ctx_ms(2000);
    rg__entry e;
    rg__shared_get(f.shared, &ctx, f.both, true, &keys[i], 1, &e);
    if (e.found == RG__MISS) rg__shared_lease(f.shared, &ctx, f.both, true, &keys[i], 1, &e);
    if (e.found == RG__MISS && e.lease.held) load(i, &e, seed);
    *row = e.found == RG__VALUE ? e.block : NULL;
    *version = *row ? (unsigned)n_of(f.both, *row) : 0;
    return *row != NULL;
}

static void queue_one(unsigned *seed) {
    int i = (int)pick(seed, ROWS);
    rg_block *before = NULL;
    unsigned from = 0;
    if (!current_row(i, seed, &before, &from)) return;
    op o = {.row = i, .from = from, .present = 1};
    rg_block *after = make_row(f.both, (uint64_t)i + 1, "r", from + 1);
    rg__change c = row_change(f.both, keys[i], before, after);
    rg__enqueue q = {.stream = f.stream,
                     .payload = {(const char *)&o, sizeof o},
                     .max_len = 1000000,
                     .producer = "race",
                     .seq = atomic_fetch_add(&sequence, 1) + 1,
                     .changes = &c,
                     .n_changes = 1};
    uint8_t stale[1];
    rg_block *current[1];
    char id[48];
    rg__ctx ctx = ctx_ms(2000);
    rg_err err = {0};
    int rc = rg__shared_enqueue(f.shared, &ctx, &q, stale, current, id, &err);
    if (rc == RG_OK) count(&n_queued);
    rg_block_unref(current[0]);
    rg_block_unref(before);
    rg_block_unref(after);
}

static void *write_on(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg * 104729;
    while (atomic_fetch_sub(&to_do, 1) > 0) {
        if (plan.async && chance(&seed, 50)) queue_one(&seed);
        else write_one(&seed);
        if (chance(&seed, 20)) rg__sleep_ms(1);
    }
    atomic_fetch_sub(&writing, 1);
    return NULL;
}

/* ---- the consumer ---- */

static bool apply(const op *o) {
    int i = o->row;
    pthread_mutex_lock(&db[i].lock);
    bool good = version_of(i) == o->from && present_at(i, o->from);
    if (good) commit(i, true);
    pthread_mutex_unlock(&db[i].lock);
    count(good ? &n_applied : &n_dead);
    return good;
}

static void settle(const op *o, const char *id, bool good) {
    rg__ctx ctx = ctx_ms(2000);
    rg__applied a = {.key = keys[o->row], .type = f.both, .is_row = true, .drop = !good};
    snprintf(a.id, sizeof a.id, "%s", id);
    rg__shared_applied(f.shared, &ctx, &a, 1, NULL);
}

/* Takes what comes after *last; false when there was nothing. */
static bool consume(char last[48], unsigned *seed) {
    rg__ctx ctx = ctx_ms(2000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    char from[50];
    snprintf(from, sizeof from, "(%s", last);
    const char *argv[] = {"XRANGE", f.stream, from, "+", "COUNT", "10"};
    if (rg__redis_acquire(f.pool, &ctx, &c, NULL) == RG_OK)
        rg__redis_command(c, &ctx, &r, NULL, 6, argv, NULL);
    rg__redis_release(c);
    size_t n = r ? r->elements : 0;
    for (size_t i = 0; i < n; i++) {
        const redisReply *entry = r->element[i];
        op o;
        memcpy(&o, entry->element[1]->element[1]->str, sizeof o);
        bool good = apply(&o);
        if (chance(seed, 10)) rg__sleep_ms(pick(seed, 5));
        settle(&o, entry->element[0]->str, good);
        if (chance(seed, 10)) settle(&o, entry->element[0]->str, good); /* again, after a crash */
        snprintf(last, 48, "%s", entry->element[0]->str);
    }
    freeReplyObject(r);
    return n > 0;
}

static void *consume_on(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg;
    char last[48] = "0-0";
    for (;;) {
        bool last_round = atomic_load(&no_more_writes);
        bool some = consume(last, &seed);
        if (!some && last_round) return NULL;
        if (!some) rg__sleep_ms(1);
    }
}

/* ---- the nemesis ---- */

static int scale(int n) {
    const char *percent = getenv("REGOLITH_SPEC_PERCENT");
    return percent ? n * atoi(percent) / 100 : n;
}

static void *disturb(void *arg) {
    server *s = arg;
    unsigned seed = 99;
    for (int round = 0; round < scale(40); round++) {
        rg__sleep_ms(50 + pick(&seed, 200));
        switch (pick(&seed, 6)) {
        case 0: ASK(f.pool, "FLUSHALL"); break;
        case 1: ASK(f.pool, "SCRIPT", "FLUSH"); break;
        case 2: ASK(f.pool, "CLIENT", "KILL", "TYPE", "pubsub"); break;
        case 3: ASK(f.pool, "CLIENT", "KILL", "TYPE", "normal"); break;
        case 4: {
            rg__ctx ctx = ctx_ms(1000);
            rg__shared_renew(f.shared, &ctx, NULL);
            break;
        }
        default:
            server_kill(s);
            rg__sleep_ms(pick(&seed, 20));
            if (!server_run(s)) abort();
        }
    }
    atomic_store(&to_do, 0);
    return NULL;
}

static void *sweep_on(void *arg) {
    (void)arg;
    while (!atomic_load(&over)) {
        rg__ctx ctx = ctx_ms(1000);
        rg__shared_sweep(f.shared, &ctx, 100, NULL);
        rg__sleep_ms(25);
    }
    return NULL;
}

/* ---- a run ---- */

/* When all is quiet and marks have expired, every tier holds what the database holds, or nothing.
 */
static void check_quiet(void) {
    unsigned seed = 1;
    rg__sleep_ms(4 * MARK_MS + 50);
    struct plan calm = plan;
    plan.kills = false;
    plan.strict = true;
    for (int i = 0; i < ROWS; i++) {
        unsigned v = version_of(i);
        for (int times = 0; times < 3; times++) {
            rg__entry e = get_entry(&f, f.both, true, &keys[i]);
            if (e.found == RG__VALUE || e.found == RG__ABSENT) judge("quiet", i, &e, v);
            CHECK(!e.pending);
            rg__entry_deinit(&e);
            rg_block *b = rg__process_get(f.process, keys[i].space, keys[i].hash);
            if (b) CHECK_EQ_INT(outdated_for(i, b, rg__now_ms()), 0);
            rg_block_unref(b);
            read_one(i, &seed); /* fills what was empty */
        }
        rg__entry e = get_entry(&f, f.both, true, &keys[i]);
        CHECK(e.found == RG__VALUE || e.found == RG__ABSENT); /* nothing stays blocked */
        rg__entry_deinit(&e);
    }
    plan = calm;
}

static void reset(void) {
    atomic_ulong *counters[] = {&n_commits,  &n_killed, &n_hits,    &n_l1_hits,     &n_stale,
                                &n_l1_stale, &n_fills,  &n_heals,   &n_bypasses,    &n_queued,
                                &n_applied,  &n_dead,   &n_refused, &n_pending_seen};
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) atomic_store(counters[i], 0);
    atomic_store(&over, false);
    atomic_store(&no_more_writes, false);
    db = calloc(ROWS, sizeof *db);
    for (int i = 0; i < ROWS; i++) {
        pthread_mutex_init(&db[i].lock, NULL);
        keys[i] = row_key(&f, f.both, (uint64_t)i + 1);
    }
}

enum { WRITERS = 6, READERS = 4 };

static void run(struct plan p, server *s) {
    plan = p;
    fixture_init(&f, s ? s->path : given_socket());
    rg__shared_timing(f.shared, LEASE_MS, MARK_MS);
    reset();
    channel = rg__coherence_new(f.shared, f.process, NULL);
    rg__coherence_start(channel, NULL);
    atomic_store(&to_do, p.transactions);
    atomic_store(&writing, WRITERS);
    pthread_t w[WRITERS], r[READERS], sweeper, consumer, nemesis;
    for (uintptr_t i = 0; i < WRITERS; i++) pthread_create(&w[i], NULL, write_on, (void *)(i + 1));
    for (uintptr_t i = 0; i < READERS; i++) pthread_create(&r[i], NULL, read_on, (void *)(i + 11));
    pthread_create(&sweeper, NULL, sweep_on, NULL);
    if (p.async) pthread_create(&consumer, NULL, consume_on, (void *)1);
    if (p.chaos) pthread_create(&nemesis, NULL, disturb, s);
    for (int i = 0; i < WRITERS; i++) pthread_join(w[i], NULL);
    atomic_store(&no_more_writes, true);
    if (p.async) pthread_join(consumer, NULL);
    if (p.chaos) pthread_join(nemesis, NULL);
    rg__sleep_ms(50);
    atomic_store(&over, true);
    for (int i = 0; i < READERS; i++) pthread_join(r[i], NULL);
    pthread_join(sweeper, NULL);
    if (p.chaos) rg__sleep_ms(2500); /* the breaker closes, the channel is back */
    check_quiet();
    CHECK_EQ_INT(atomic_load(&n_stale), 0);
    CHECK_EQ_INT(atomic_load(&n_l1_stale), 0);
    printf(
        "# %lu commits, %lu killed, %lu refused, %lu read of Redis (%lu pending), %lu of the "
        "process, "
        "%lu fills, %lu heals, %lu bypasses, queued %lu = %lu + %lu dead\n",
        n_commits, n_killed, n_refused, n_hits, n_pending_seen, n_l1_hits, n_fills, n_heals,
        n_bypasses, n_queued, n_applied, n_dead);
    rg__coherence_free(channel);
    for (int i = 0; i < ROWS; i++) {
        rg__key_deinit(&keys[i]);
        pthread_mutex_destroy(&db[i].lock);
    }
    free(db);
    fixture_deinit(&f);
}

TEST(crashes_leave_nothing_stale) {
    run((struct plan){.transactions = scale(20000), .kills = true, .strict = true}, NULL);
    CHECK(n_killed > 0 && n_heals > 0);
}

TEST(queued_and_synchronous_writes_agree) {
    run((struct plan){.transactions = scale(8000), .strict = true, .async = true}, NULL);
    CHECK_EQ_INT(n_applied + n_dead, n_queued);
    CHECK(n_applied > 0 && n_pending_seen > 0);
}

TEST(queued_and_synchronous_writes_and_crashes) {
    run((struct plan){.transactions = scale(8000), .strict = true, .async = true, .kills = true},
        NULL);
    CHECK_EQ_INT(n_applied + n_dead, n_queued);
}

TEST(losing_redis_heals) {
    server s = {0};
    if (!server_start(&s)) return;
    run((struct plan){.transactions = 1000000, .chaos = true}, &s);
    server_remove(&s);
}

REDIS_MAIN
