/* SPDX-License-Identifier: MIT */
/* The cache that processes share: what it keeps, who listens for all, and that neither a kill nor a stop of
 * any process at any moment makes another one read what was dropped, or wait. */
#include "unit.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/block.h"
#include "base/clock.h"
#include "cache/arena_inside.h"

enum { MB = 1 << 20, SPACE = 3 };

static char place[64];
static rg__metrics metrics;
static const rg__slice key = {"the same", 8};

static rg__arena *attach(uint64_t bytes) {
    rg_err err = {0};
    rg__arena *a = rg__arena_open(place, key, bytes, &err);
    if (!a) printf("# %s\n", err.message);
    return a;
}

/* Somebody listens, for longer than a test takes. */
static void listen(rg__arena *a) {
    uint64_t word = 0;
    rg__arena_need(a, 0);
    CHECK(rg__arena_claim(a, 0, 1, &word));
    CHECK(rg__arena_beat(a, 0, &word, rg__now_ms() + 600000));
}

static void begin(void) {
    snprintf(place, sizeof place, "/tmp/rgarena-XXXXXX");
    REQUIRE(mkdtemp(place));
}

static void end(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", place);
    CHECK(system(command) == 0);
}

static bool put_at(rg__arena *a, uint64_t k, uint32_t len, uint64_t stamp) {
    rg_block *b = rg__block_new(len);
    memset(b->data, (int)(k & 255), len);
    bool ok = rg__arena_put(a, SPACE, k, b, 0, stamp, &metrics);
    rg_block_unref(b);
    return ok;
}

static bool put(rg__arena *a, uint64_t k, uint32_t len) {
    return put_at(a, k, len, rg__arena_stamp(a, SPACE, k));
}

/* Length of what is there; -1: nothing. */
static int64_t length(rg__arena *a, uint64_t k) {
    rg_block *b = rg__arena_get(a, SPACE, k);
    if (!b) return -1;
    int64_t len = b->len;
    for (uint32_t i = 0; i < b->len; i++)
        if (b->data[i] != (k & 255)) len = -2;
    rg_block_unref(b);
    return len;
}

/* ---- one process ---- */

TEST(keeps_gives_and_drops) {
    begin();
    rg__arena *a = attach(4 * MB);
    REQUIRE(a);
    CHECK(!put(a, 1, 100)); /* nobody listens */
    listen(a);
    for (uint32_t len = 0; len < 200; len++) {
        CHECK(put(a, 1000 + len, len));
        CHECK_EQ_INT(length(a, 1000 + len), len);
    }
    CHECK(put(a, 7, 100));
    CHECK(put(a, 7, 33));
    CHECK_EQ_INT(length(a, 7), 33);
    uint64_t bytes, entries;
    rg__arena_stats(a, &bytes, &entries);
    CHECK_EQ_INT(entries, 201);
    uint64_t before = rg__arena_stamp(a, SPACE, 7);
    CHECK(rg__arena_drop(a, SPACE, 7));
    CHECK_EQ_INT(length(a, 7), -1);
    CHECK(!put_at(a, 7, 10, before));
    CHECK(put(a, 7, 10));
    before = rg__arena_stamp(a, SPACE, 8);
    rg__arena_clear(a);
    CHECK_EQ_INT(length(a, 7), -1);
    CHECK(!put_at(a, 8, 10, before));
    CHECK(!put(a, 9, 3 * MB)); /* larger than what a ring takes */
    rg__arena_close(a);
    end();
}

TEST(expires) {
    begin();
    rg__arena *a = attach(4 * MB);
    REQUIRE(a);
    listen(a);
    rg_block *b = rg__block_new(8);
    memset(b->data, 5, 8);
    CHECK(rg__arena_put(a, SPACE, 5, b, 1, rg__arena_stamp(a, SPACE, 5), &metrics));
    int64_t until = rg__now_ms() + 3000 + BUSY_MS;
    while (length(a, 5) == 8 && rg__now_ms() < until) rg__sleep_ms(20);
    CHECK_EQ_INT(length(a, 5), -1);
    rg_block_unref(b);
    rg__arena_close(a);
    end();
}

TEST(is_bounded_and_a_scan_leaves_what_is_asked_for) {
    begin();
    rg__arena *a = attach(4 * MB);
    REQUIRE(a);
    listen(a);
    int kept = 0;
    for (uint64_t k = 1; k <= 1000; k++) put(a, k, 200);
    for (int round = 0; round < 2; round++)
        for (uint64_t k = 1; k <= 1000; k++) length(a, k);
    for (uint64_t k = 100000; k < 200000; k++) { /* 25 MB pass through */
        put(a, k, 200);
        if (k % 10 == 0) length(a, k / 10 % 1000 + 1);
    }
    for (uint64_t k = 1; k <= 1000; k++) kept += length(a, k) == 200;
    CHECK(kept > 900);
    uint64_t bytes, entries;
    rg__arena_stats(a, &bytes, &entries);
    CHECK(bytes <= 4 * MB);
    CHECK(entries > 8000);
    rg__arena_close(a);
    end();
}

/* ---- who attaches ---- */

TEST(is_one_for_who_says_the_same_and_nobody_elses) {
    begin();
    rg__arena *a = attach(4 * MB), *b = attach(4 * MB), *larger = attach(8 * MB);
    REQUIRE(a && b && larger);
    listen(a);
    CHECK(put(a, 1, 50));
    CHECK_EQ_INT(length(b, 1), 50);
    rg__arena_drop(b, SPACE, 1);
    CHECK_EQ_INT(length(a, 1), -1);
    listen(larger);
    CHECK_EQ_INT(length(larger, 1), -1);
    rg_err err = {0};
    rg__arena *other = rg__arena_open(place, (rg__slice){"different", 9}, 4 * MB, &err);
    REQUIRE(other);
    listen(other);
    CHECK(put(a, 2, 50));
    CHECK_EQ_INT(length(other, 2), -1);
    struct stat st;
    CHECK(fstat(a->fd, &st) == 0 && (st.st_mode & 0777) == 0600);
    rg__arena_close(other);
    rg__arena_close(larger);
    rg__arena_close(a);
    CHECK_EQ_INT(length(b, 2), 50);
    rg__arena_close(b);
    a = attach(4 * MB); /* the last one is gone: all is new */
    REQUIRE(a);
    listen(a);
    CHECK_EQ_INT(length(a, 2), -1);
    rg__arena_close(a);
    end();
}

TEST(wants_a_folder_that_is_its_own) {
    begin();
    rg_err err = {0};
    CHECK(chmod(place, 0755) == 0);
    CHECK(!rg__arena_open(place, key, 4 * MB, &err));
    CHECK_EQ_INT(err.code, RG_ECONFIG);
    CHECK(strstr(err.message, "0700"));
    CHECK(chmod(place, 0700) == 0);
    end();
    CHECK(!rg__arena_open("/nowhere/at/all", key, 4 * MB, &err));
    CHECK_EQ_INT(err.code, RG_ECONFIG);
}

/* ---- who listens for all ---- */

TEST(is_off_when_nobody_listens_any_more) {
    begin();
    rg__arena *a = attach(4 * MB);
    REQUIRE(a);
    uint64_t first = 0, second = 0;
    rg__arena_need(a, 0);
    CHECK(!rg__arena_alive(a));
    CHECK(rg__arena_claim(a, 0, 1, &first));
    CHECK(!rg__arena_alive(a)); /* he does not hear Redis yet */
    CHECK(!rg__arena_claim(a, 0, 2, &second));
    CHECK(rg__arena_beat(a, 0, &first, rg__now_ms() + 60000));
    CHECK(rg__arena_alive(a));
    CHECK(put(a, 1, 10));
    CHECK(rg__arena_beat(a, 0, &first, rg__now_ms() + 10));
    rg__sleep_ms(60); /* he was stopped, say */
    CHECK(!rg__arena_alive(a));
    CHECK_EQ_INT(length(a, 1), -1);
    CHECK(rg__arena_claim(a, 0, 2, &second));
    CHECK(rg__arena_beat(a, 0, &second, rg__now_ms() + 60000));
    CHECK_EQ_INT(length(a, 1), -1); /* what was told meanwhile, nobody heard */
    CHECK(put(a, 1, 20));
    CHECK(!rg__arena_beat(a, 0, &first, rg__now_ms() + 60000)); /* he goes on, and is no longer the owner */
    rg__arena_resign(a, 0, &first);
    CHECK(rg__arena_alive(a));
    CHECK_EQ_INT(length(a, 1), 20);
    rg__arena_need(a, 2); /* a second channel, which nobody hears */
    CHECK_EQ_INT(length(a, 1), -1);
    uint64_t third = 0;
    CHECK(rg__arena_claim(a, 2, 3, &third));
    CHECK(rg__arena_beat(a, 2, &third, rg__now_ms() + 60000));
    CHECK(rg__arena_alive(a));
    rg__arena_resign(a, 0, &second);
    CHECK(!rg__arena_alive(a));
    CHECK(rg__arena_claim(a, 0, 4, &first)); /* at once */
    rg__arena_close(a);
    end();
}

/* ---- processes that end or stop at the worst moment ---- */

/* A child that holds all locks; it ends, or waits to be killed. */
static pid_t hold_locks(rg__arena *a, bool stay) {
    int ready[2];
    char byte;
    if (pipe(ready) < 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        for (uint32_t i = 0; i <= a->shard_mask; i++) (void)rg__arena_lock(a, &a->head->pens[i]);
        (void)!write(ready[1], "!", 1);
        while (stay) pause();
        _exit(0);
    }
    (void)!read(ready[0], &byte, 1);
    close(ready[0]);
    close(ready[1]);
    if (!stay) waitpid(pid, NULL, 0);
    return pid;
}

TEST(a_shard_whose_writer_died_is_emptied_and_goes_on) {
    begin();
    rg__arena *a = attach(4 * MB);
    REQUIRE(a);
    listen(a);
    for (uint64_t k = 0; k < 100; k++) put(a, k, 10);
    hold_locks(a, false);
    for (uint64_t k = 0; k < 100; k++) CHECK_EQ_INT(length(a, k), 10); /* readers do not care */
    for (uint64_t k = 200; k < 400; k++) CHECK(put(a, k, 10));
    for (uint64_t k = 200; k < 400; k++) CHECK_EQ_INT(length(a, k), 10);
    rg__arena_close(a);
    end();
}

TEST(a_stopped_writer_keeps_nobody_waiting) {
    begin();
    rg__arena *a = attach(4 * MB);
    REQUIRE(a);
    listen(a);
    for (uint64_t k = 0; k < 100; k++) put(a, k, 10);
    pid_t pid = hold_locks(a, true);
    int64_t started = rg__now_ms();
    for (uint64_t k = 0; k < 100; k++) CHECK_EQ_INT(length(a, k), 10);
    for (uint64_t k = 0; k < 50; k++) rg__arena_drop(a, SPACE, k);
    for (uint64_t k = 0; k < 50; k++) CHECK_EQ_INT(length(a, k), -1);
    CHECK(!put(a, 1, 10)); /* left out */
    CHECK(rg__now_ms() - started < 1000 + BUSY_MS);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK(put(a, 1, 10));
    CHECK_EQ_INT(length(a, 1), 10);
    rg__arena_close(a);
    end();
}

/* What the processes agree on: versions as they were written, and those whose drop is over. */
enum { KEYS = 64, CHILDREN = 4 };
typedef struct truth {
    atomic_ullong written[KEYS], dropped[KEYS];
    atomic_ullong hits, stale, torn, rounds;
} truth;

/* The block says its version again and again; its length depends on it, too. */
static rg_block *block_of(uint64_t version) {
    rg_block *b = rg__block_new(8 * (uint32_t)(4 + version % 90));
    for (uint32_t i = 0; b && i < b->len; i += 8) memcpy(b->data + i, &version, 8);
    return b;
}

static bool whole(const rg_block *b, uint64_t *version) {
    memcpy(version, b->data, 8);
    bool ok = b->len == 8 * (4 + *version % 90);
    for (uint32_t i = 0; ok && i < b->len; i += 8) ok = memcmp(b->data + i, version, 8) == 0;
    return ok;
}

static void look(rg__arena *a, truth *t, uint64_t k) {
    uint64_t least = atomic_load(&t->dropped[k]);
    rg_block *b = rg__arena_get(a, SPACE, k);
    uint64_t version = 0;
    if (!b) {
        uint64_t stamp = rg__arena_stamp(a, SPACE, k);
        b = block_of(atomic_load(&t->written[k]));
        rg__arena_put(a, SPACE, k, b, 0, stamp, &metrics);
    } else if (!whole(b, &version)) {
        atomic_fetch_add(&t->torn, 1);
    } else {
        atomic_fetch_add(&t->hits, 1);
        if (version < least) atomic_fetch_add(&t->stale, 1);
    }
    rg_block_unref(b);
}

static void change(rg__arena *a, truth *t, uint64_t k) {
    unsigned long long version = atomic_fetch_add(&t->written[k], 1) + 1;
    rg__arena_drop(a, SPACE, k);
    unsigned long long old = atomic_load(&t->dropped[k]);
    while (old < version && !atomic_compare_exchange_weak(&t->dropped[k], &old, version)) {}
}

static void live(rg__arena *a, truth *t, unsigned seed) {
    for (;;) {
        unsigned r = (unsigned)rand_r(&seed);
        uint64_t k = r % KEYS;
        if ((r >> 8) % 16 == 0) change(a, t, k);
        else look(a, t, k);
        if ((r >> 12) % 8 == 0) put(a, 1000 + (r >> 16), 2000); /* so that the rings go round */
        if ((r >> 8) % 4096 == 77) rg__arena_clear(a);
        atomic_fetch_add(&t->rounds, 1);
    }
}

static pid_t bear(rg__arena *a, truth *t, unsigned seed) {
    pid_t pid = fork();
    if (pid == 0) live(a, t, seed);
    return pid;
}

TEST(nothing_dropped_or_torn_is_read_while_processes_are_killed_and_stopped) {
    begin();
    rg__arena *a = attach(4 * MB);
    truth *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(a && t != MAP_FAILED);
    listen(a);
    bool longer = getenv("REGOLITH_LONG") != NULL;
    unsigned seed = 7, kills = 0;
    pid_t child[CHILDREN];
    for (unsigned i = 0; i < CHILDREN; i++) child[i] = bear(a, t, i + 1);
    for (int64_t until = rg__now_ms() + (longer ? 60000 : 1500); rg__now_ms() < until; kills++) {
        pid_t *one = &child[(unsigned)rand_r(&seed) % CHILDREN];
        rg__sleep_ms(rand_r(&seed) % 8);
        if (rand_r(&seed) % 3 == 0) {
            kill(*one, SIGSTOP);
            rg__sleep_ms(rand_r(&seed) % 20);
            kill(*one, SIGCONT);
        } else {
            kill(*one, SIGKILL);
            waitpid(*one, NULL, 0);
            *one = bear(a, t, kills + 100);
        }
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        kill(child[i], SIGKILL);
        waitpid(child[i], NULL, 0);
    }
    printf("# %llu rounds, %llu hits, %u kills and stops\n", atomic_load(&t->rounds), atomic_load(&t->hits), kills);
    CHECK_EQ_INT(atomic_load(&t->stale), 0);
    CHECK_EQ_INT(atomic_load(&t->torn), 0);
    CHECK(atomic_load(&t->hits) > 1000);
    for (uint64_t k = 5000; k < 5100; k++) CHECK(put(a, k, 10)); /* all shards are well */
    munmap(t, sizeof *t);
    rg__arena_close(a);
    end();
}

UNIT_MAIN
