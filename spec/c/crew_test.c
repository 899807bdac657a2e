/* SPDX-License-Identifier: MIT */
/* Consumers of a queue of several partitions: in threads of one process, as rivals, with leases, killed.
 * Servers come by REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB and REGOLITH_REDIS_SOCKET; without them
 * nothing is tested. REGOLITH_LONG=1: 10,000 kills. */
#define DATABASE "regolith_crew_test"
#define PREFIX "crewtest"
#include "queue_support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { PARTS = 8, ACCOUNTS = 6 * PARTS };

/* ---- flushes, each of one partition ---- */

/* What has been queued, and what must come of it. */
typedef struct ledgers {
    uint64_t version[ACCOUNTS + 1]; /* of each account; 0: not there */
    uint64_t logs, ops, dead;
} ledgers;

#define STREAM "{" PREFIX "}:q:queue_test"
static char streams[PARTS][64] = {STREAM, STREAM ":1", STREAM ":2", STREAM ":3",
                                  STREAM ":4", STREAM ":5", STREAM ":6", STREAM ":7"};

static void use_partition(world *w, uint32_t part) {
    w->queue.stream = streams[part];
    w->queue.part = part;
    w->queue.n_parts = PARTS;
}

static void use_queue(world *w) { use_partition(w, 0); }

static void open_parts(world *w) {
    open_world(w);
    use_queue(w);
}

static void begin_parts(world *w) {
    begin_world(w);
    use_queue(w);
}

static rg_block *account_now(const world *w, uint64_t id, uint64_t version) {
    char code[40];
    snprintf(code, sizeof code, "a%d.%llu", (int)id, (unsigned long long)version);
    return account(w, id, version, code);
}

static void put_account(producing *p, const world *w, ledgers *x, uint64_t id) {
    uint64_t *v = &x->version[id];
    if (*v == 0) put(p, w, ACCOUNT, RG_INSERT, account_now(w, id, 1), NULL);
    else if (random_u64() % 16 == 0) put(p, w, ACCOUNT, RG_DELETE, NULL, account_now(w, id, *v));
    else put(p, w, ACCOUNT, RG_UPDATE, account_now(w, id, *v + 1), account_now(w, id, *v));
    *v = p->ops[p->n - 1].write == RG_DELETE ? 0 : *v + 1;
    x->logs++;
    put(p, w, LOG, RG_INSERT, log_row(w, x->logs, id, x->logs), NULL);
    x->ops += 2;
}

/* Some accounts of one partition move on by one version, a log line for each; now and then one twice,
 * which cannot be. */
static void produce(world *w, ledgers *x) {
    producing *p = calloc(1, sizeof *p);
    uint64_t part = random_u64() % PARTS, first = random_u64() % 6, n = 1 + random_u64() % 3;
    for (uint64_t i = 0; i < n; i++) {
        put_account(p, w, x, 1 + part + PARTS * ((first + i) % 6));
        if (random_u64() % 16) continue;
        put(p, w, LOG, RG_INSERT, log_row(w, x->logs, 1, x->logs), NULL);
        x->dead++;
    }
    use_partition(w, (uint32_t)part);
    enqueue(w, p);
    use_queue(w);
    free(p);
}

static uint64_t queued(world *w) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < PARTS; i++) {
        use_partition(w, i);
        redisReply *r = redis(w, 2, (const char *[]){"XLEN", w->queue.stream});
        sum += (uint64_t)r->integer;
        freeReplyObject(r);
    }
    use_queue(w);
    return sum;
}

static void check(world *w, const ledgers *x) {
    uint64_t wrong = 0, there = 0;
    for (uint64_t id = 1; id <= ACCOUNTS; id++) {
        unsigned long long v = x->version[id];
        there += v > 0;
        if (v)
            wrong += sql(w, "SELECT COUNT(*) FROM qt_account WHERE id=%llu AND version=%llu AND n=%llu AND "
                            "code='a%d.%llu'", (unsigned long long)id, v, v, (int)id, v) != 1;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(sql(w, "SELECT COUNT(*) FROM qt_account"), there);
    CHECK_EQ_INT(sql(w, "SELECT COUNT(*) FROM qt_log"), x->logs);
    CHECK_EQ_INT(sql(w, "SELECT COUNT(*) FROM _regolith_dead WHERE errno=1062 AND state='dead'"), x->dead);
    CHECK_EQ_INT(sql(w, "SELECT COUNT(*) FROM _regolith_dead"), x->dead);
    CHECK_EQ_INT(sql(w, "SELECT SUM(applied_ops) FROM _regolith_ledger"), x->ops);
    CHECK_EQ_INT(pending(w), 0);
    CHECK_EQ_INT(queued(w), 0);
}

/* ---- crews ---- */

static rg__crew *new_crew(world *w, uint32_t parallel, rg__leasing leasing, uint32_t lease_ms) {
    rg_err err = {0};
    rg__crew_config cfg = {.consumer = {.max_batch = 10}, .leasing = leasing, .lease_ms = lease_ms,
                           .parallel = parallel};
    rg__crew *c = rg__crew_new(&w->queue, &cfg, &err);
    if (!c) must(-1, &err, "crew");
    return c;
}

static uint64_t step(world *w, rg__crew *c, uint32_t wait_ms) {
    rg_err err = {0};
    uint64_t done = 0;
    int rc = rg__crew_step(c, &w->ctx, wait_ms, &done, &err);
    if (rc < 0 && !err.retriable) must(rc, &err, "step"); /* rivals may deadlock more often than it tries */
    return done;
}

static int count_letter(void *arg, uint64_t number) {
    (void)number;
    ++*(uint64_t *)arg;
    return RG_OK;
}

static void drain_parts(world *w) {
    rg__crew *c = new_crew(w, 1, RG__LEASE_NEVER, 0);
    while (step(w, c, 0)) {}
    rg__crew_free(c);
}

static uint32_t held(rg__crew *c) {
    uint32_t n;
    return rg__crew_held(c, &n);
}

TEST(crew_in_threads_applies_each_partition_in_order) {
    if (!have_servers()) return;
    world w;
    static ledgers x;
    uint64_t letters = 0, all = 0;
    begin_parts(&w);
    rg__crew *c = new_crew(&w, 4, RG__LEASE_SEVERAL, 60000);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 40; i++) produce(&w, &x);
        while (all < x.ops + x.dead) all += step(&w, c, 1000);
        CHECK_EQ_INT(rg__crew_letters(c, count_letter, &letters), RG_OK);
    }
    CHECK_EQ_INT(held(c), PARTS);
    CHECK_EQ_INT(all, x.ops + x.dead);
    CHECK_EQ_INT(letters, x.dead);
    rg__consumer_totals t = rg__crew_totals_get(c);
    CHECK_EQ_INT(t.applied, x.ops);
    CHECK_EQ_INT(t.dead, x.dead);
    CHECK_EQ_INT(t.lag, 0);
    check(&w, &x);
    rg__crew_free(c);
    end_world(&w);
}

/* ---- several at once ---- */

typedef struct worker {
    world w;
    pthread_t thread;
    atomic_bool *stop;
    bool leased, leaves;
} worker;

static void *work(void *arg) {
    worker *k = arg;
    rg__mysql_thread_begin();
    rg__crew *c = new_crew(&k->w, 3, k->leased ? RG__LEASE_SEVERAL : RG__LEASE_NEVER, 300);
    for (int i = 1; !atomic_load(k->stop); i++) {
        step(&k->w, c, 20);
        if (k->leaves && i % 8 == 0) rg__crew_leave(c, &k->w.ctx, NULL);
    }
    rg__crew_leave(c, &k->w.ctx, NULL);
    rg__crew_free(c);
    rg__mysql_thread_end();
    return NULL;
}

TEST(crews_that_come_and_go_among_rivals_apply_everything_once) {
    if (!have_servers()) return;
    world w;
    static ledgers x;
    static worker workers[3];
    atomic_bool stop = false;
    begin_parts(&w);
    produce(&w, &x);
    drain_parts(&w); /* the tables are there */
    for (int i = 0; i < 3; i++) {
        workers[i] = (worker){.stop = &stop, .leased = i < 2, .leaves = i == 1};
        open_parts(&workers[i].w);
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (int i = 0; i < 400; i++) produce(&w, &x);
    while (queued(&w)) usleep(2000);
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(workers[i].thread, NULL);
        close_world(&workers[i].w);
    }
    drain_parts(&w);
    check(&w, &x);
    end_world(&w);
}

TEST(crew_shares_and_hands_over) {
    if (!have_servers()) return;
    world w;
    static ledgers x;
    begin_parts(&w);
    rg__crew *a = new_crew(&w, 2, RG__LEASE_SEVERAL, 60000), *b = new_crew(&w, 2, RG__LEASE_SEVERAL, 60000);
    step(&w, a, 0);
    CHECK_EQ_INT(held(a), PARTS);
    while (held(b) < PARTS / 2) {
        step(&w, a, 10);
        step(&w, b, 10);
    }
    CHECK_EQ_INT(held(a), PARTS / 2);
    CHECK_EQ_INT(rg__crew_leave(a, &w.ctx, NULL), RG_OK);
    CHECK_EQ_INT(held(a), 0);
    while (held(b) < PARTS) step(&w, b, 10); /* long before the leases end */
    for (int i = 0; i < 30; i++) produce(&w, &x);
    while (queued(&w)) step(&w, b, 100);
    check(&w, &x);
    rg__crew_free(a);
    rg__crew_free(b);
    end_world(&w);
}

/* A partition that fails is tried again later; the others go on. */
TEST(crew_goes_on_beside_a_partition_that_fails) {
    if (!have_servers()) return;
    world w;
    static ledgers x;
    begin_parts(&w);
    rg__crew *c = new_crew(&w, 4, RG__LEASE_NEVER, 0);
    for (int i = 0; i < 60; i++) produce(&w, &x);
    use_partition(&w, 3);
    const char *name = w.queue.stream, *aside = "{" PREFIX "}:aside";
    freeReplyObject(redis(&w, 3, (const char *[]){"RENAME", name, aside}));
    freeReplyObject(redis(&w, 3, (const char *[]){"SET", name, "no stream"}));
    use_queue(&w);
    uint64_t failures = 0, all = 0;
    for (int quiet = 0; quiet < 5;) {
        rg_err err = {0};
        uint64_t done = 0;
        failures += rg__crew_step(c, &w.ctx, 20, &done, &err) < 0;
        all += done;
        quiet = done ? 0 : quiet + 1;
    }
    CHECK(failures > 0);
    CHECK(all > 0 && all < x.ops + x.dead);
    freeReplyObject(redis(&w, 3, (const char *[]){"RENAME", aside, name}));
    while (all < x.ops + x.dead) all += step(&w, c, 100);
    check(&w, &x);
    rg__crew_free(c);
    end_world(&w);
}

/* ---- crashes ---- */

/* A process that consumes until it has nothing to do, or its kill point comes. */
static int consume(uint32_t parallel, bool leased) {
    world w;
    int idle = 0;
    open_parts(&w);
    rg__crew *c = new_crew(&w, parallel, leased ? RG__LEASE_SEVERAL : RG__LEASE_NEVER, 90);
    while (idle < 3) {
        rg_err err = {0};
        uint64_t done = 0;
        int rc = rg__crew_step(c, &w.ctx, leased ? 40 : 0, &done, &err);
        if (rc < 0 && !err.retriable) { /* its connection may be ended by who takes over from it */
            fprintf(stderr, "# consumer: %s\n", err.message);
            return 1;
        }
        idle = done ? 0 : idle + 1;
    }
    rg__crew_free(c);
    close_world(&w);
    return 0;
}

static const int steps[] = {RG__KILL_FETCHED, RG__KILL_BEGUN, RG__KILL_STATEMENT, RG__KILL_SINGLY,
                            RG__KILL_APPLIED, RG__KILL_LETTERS, RG__KILL_ADVANCED, RG__KILL_COMMITTED,
                            RG__KILL_TOLD, RG__KILL_TRIMMED, RG__KILL_SETTLING, RG__KILL_CLAIMED,
                            RG__KILL_SHARED};
enum { STEPS = sizeof steps / sizeof *steps, MOST = 3 };

typedef struct crashes {
    ledgers x;
    long kills, kills_at[STEPS];
} crashes;

static pid_t spawn(int step_index, bool leased) {
    char point[32], parallel[8];
    int count = 1 + (int)(random_u64() % (steps[step_index] == RG__KILL_STATEMENT ? 12 : 4));
    if (steps[step_index] == RG__KILL_CLAIMED || steps[step_index] == RG__KILL_SHARED) count = 1 + count % 2;
    snprintf(point, sizeof point, "%d:%d", steps[step_index], count);
    snprintf(parallel, sizeof parallel, "%d", 1 + (int)(random_u64() % 4));
    pid_t pid = fork();
    if (pid) return pid;
    setenv("REGOLITH_KILL_POINT", point, 1);
    execl("/proc/self/exe", "crew_test", "consume", parallel, leased ? "leased" : "rival", (char *)NULL);
    _exit(127);
}

static void crash_round(world *w, crashes *x) {
    int at[MOST], status;
    pid_t pids[MOST];
    int n = 1 + (int)(random_u64() % MOST);
    for (uint64_t i = 5 + random_u64() % 20; i; i--) produce(w, &x->x);
    for (int i = 0; i < n; i++) {
        at[i] = (int)(random_u64() % STEPS);
        pids[i] = spawn(at[i], steps[at[i]] >= RG__KILL_CLAIMED || random_u64() % 3 == 0);
    }
    for (int i = 0; i < n; i++) {
        waitpid(pids[i], &status, 0);
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        CHECK(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
        x->kills += killed;
        x->kills_at[at[i]] += killed;
    }
}

TEST(crashes_among_several_partitions_and_consumers_lose_and_repeat_nothing) {
    if (!have_servers()) return;
    world w;
    static crashes x;
    long wanted = getenv("REGOLITH_LONG") ? 10000 : 60;
    begin_parts(&w);
    for (long rounds = 0; x.kills < wanted && rounds < wanted * 4; rounds++) {
        crash_round(&w, &x);
        if (rounds % 100 == 99) drain_parts(&w); /* else a backlog may build up */
    }
    CHECK(x.kills >= wanted);
    drain_parts(&w);
    check(&w, &x.x);
    printf("# %d partitions, up to %d consumers: %ld kills, %llu operations, %llu dead; by step:", PARTS, MOST,
           x.kills, (unsigned long long)x.x.ops, (unsigned long long)x.x.dead);
    for (int i = 0; i < STEPS; i++) printf(" %d:%ld", steps[i], x.kills_at[i]);
    printf("\n");
    end_world(&w);
}

int main(int argc, char **argv) {
    if (argc > 3 && strcmp(argv[1], "consume") == 0)
        return consume((uint32_t)atoi(argv[2]), strcmp(argv[3], "leased") == 0);
    return unit_main(argc, argv);
}
