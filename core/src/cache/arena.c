/* SPDX-License-Identifier: MIT */
/* The shared cache's file: found or made, mapped, laid out; the names of its spaces; its channels. */
#include <dirent.h>
#include <stdlib.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <openssl/sha.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cache/arena_inside.h"

enum {
    MIN_BYTES = 4 << 20,
    MIN_PEN_BYTES = 512 * 1024,
    PER_ENTRY = 96,   /* bytes of ring for each slot there is */
    PATIENCE_MS = 5000, /* for who makes the file */
    PATH = 512,
};
#define MAGIC UINT64_C(0x656e6572616c6752)

/* ---- layout ---- */

static uint64_t align(uint64_t n) { return (n + 63) & ~(uint64_t)63; }

static uint32_t shards_for(uint64_t bytes) {
    uint32_t n = 1;
    while (n < RG__ARENA_SHARDS && bytes / (n * 2) >= MIN_PEN_BYTES) n *= 2;
    return n;
}

static uint64_t buckets_for(uint64_t pen_bytes) {
    uint64_t n = 1;
    while (n * RG__ARENA_SLOTS * PER_ENTRY < pen_bytes) n *= 2;
    return n;
}

static int make_mutex(pthread_mutex_t *m) {
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);
    if (rc == 0) rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (rc == 0) rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (rc == 0) rc = pthread_mutex_init(m, &attr);
    pthread_mutexattr_destroy(&attr);
    return rc;
}

/* Where the next part begins. */
static uint64_t lay_pen(rg__pen *p, uint64_t at, uint64_t end) {
    uint64_t buckets = buckets_for(end - at);
    p->mask = buckets - 1;
    p->slots_at = at;
    at += buckets * RG__ARENA_SLOTS * sizeof(uint64_t);
    p->ghosts_at = at;
    at = align(at + buckets * RG__ARENA_GHOSTS * sizeof(uint16_t));
    uint64_t units = (end - at) / RG__ARENA_UNIT;
    p->ring[RG__SMALL].at = at;
    p->ring[RG__SMALL].units = units / 10;
    p->ring[RG__MAIN].at = at + units / 10 * RG__ARENA_UNIT;
    p->ring[RG__MAIN].units = units - units / 10;
    return end;
}

static int lay_out(rg__arena *a, rg_err *err) {
    rg__arena_head *h = a->head;
    uint64_t at = align(sizeof *h);
    h->layout = RG__ARENA_LAYOUT;
    h->bytes = a->bytes;
    h->n_shards = shards_for(a->bytes);
    rg__random(&h->seed, sizeof h->seed);
    rg__random(&h->key_seed, sizeof h->key_seed);
    int rc = 0;
    uint64_t each = (a->bytes - at) / h->n_shards & ~(uint64_t)63;
    for (uint32_t i = 0; i < h->n_shards; i++) {
        at = lay_pen(&h->pens[i], at, at + each);
        if (rc == 0) rc = make_mutex(&h->pens[i].lock);
    }
    if (rc) return rg__fail(err, RG_ELIMIT, "shared cache: no lock that survives its holder: %s", strerror(rc));
    __atomic_store_n(&h->magic, MAGIC, __ATOMIC_RELEASE);
    return RG_OK;
}

/* ---- the file ---- */

static int fail_file(rg_err *err, const char *what, const char *path) {
    return rg__fail(err, RG_ECONFIG, "shared cache: %s %s: %s", path, what, strerror(errno));
}

/* A folder that is ours alone. */
static int make_folder(const char *place, char path[PATH], rg_err *err) {
    struct stat st;
    int n = place[0] == '/' ? snprintf(path, PATH, "%s", place)
                            : snprintf(path, PATH, "/dev/shm/regolith-%u", (unsigned)geteuid());
    if (n < 0 || n >= PATH / 2) return rg__fail(err, RG_ECONFIG, "shared cache: the place's name is too long");
    bool named = place[0] != '/';
    if (mkdir(path, 0700) < 0 && errno != EEXIST) return fail_file(err, "cannot be made", path);
    if (lstat(path, &st) < 0) return fail_file(err, "cannot be looked at", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
        return rg__fail(err, RG_ECONFIG, "shared cache: %s must be a folder that is its user's alone (mode 0700)",
                        path);
    if (!named) return RG_OK;
    snprintf(path + n, (size_t)(PATH - n), "/%s", place);
    if (mkdir(path, 0700) < 0 && errno != EEXIST) return fail_file(err, "cannot be made", path);
    return RG_OK;
}

/* One process at a time looks for files and makes them. */
static int lock_folder(const char *folder, rg_err *err) {
    char path[PATH];
    snprintf(path, sizeof path, "%.*s/lock", PATH - 8, folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return fail_file(err, "cannot be opened", path);
    int64_t until = rg__now_ms() + PATIENCE_MS;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (rg__left_ms(until) == 0) {
            close(fd);
            return rg__fail(err, RG_ELIMIT, "shared cache: another process holds %s for too long", path);
        }
        rg__sleep_ms(5);
    }
    return fd;
}

static int is_cache(const struct dirent *e) {
    size_t len = strlen(e->d_name);
    return len >= 6 && strcmp(e->d_name + len - 6, ".cache") == 0;
}

/* Removes files that nobody uses: of other sizes, schemas, versions. Under the folder's lock. */
static void remove_unused(const char *folder, const char *but) {
    struct dirent **list = NULL;
    int n = scandir(folder, &list, is_cache, alphasort);
    for (int i = 0; i < n; i++) {
        char path[PATH + 256];
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        int fd = strcmp(list[i]->d_name, but) != 0 ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) unlink(path);
        if (fd >= 0) close(fd);
        free(list[i]);
    }
    free(list);
}

static void name_file(char name[80], rg__slice key, uint64_t bytes) {
    unsigned char sum[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)key.p, key.len, sum);
    int n = snprintf(name, 80, "%d-%zx-%llu-", RG__ARENA_LAYOUT, sizeof(rg__arena_head), (unsigned long long)bytes);
    for (int i = 0; i < 12; i++) n += snprintf(name + n, (size_t)(80 - n), "%02x", sum[i]);
    snprintf(name + n, (size_t)(80 - n), ".cache");
}

/* All of it is there from the beginning: what is missing later would be a signal. */
static int make_room(rg__arena *a, const char *path, rg_err *err) {
    if (ftruncate(a->fd, 0) < 0) return fail_file(err, "cannot be emptied", path);
    errno = posix_fallocate(a->fd, 0, (off_t)a->bytes);
    return errno ? fail_file(err, "cannot be given its size", path) : RG_OK;
}

/* Under the folder's lock: who finds the file used by nobody makes it anew. */
static int attach(rg__arena *a, const char *path, rg_err *err) {
    a->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->fd < 0) return fail_file(err, "cannot be opened", path);
    bool fresh = flock(a->fd, LOCK_EX | LOCK_NB) == 0;
    int rc = fresh ? make_room(a, path, err) : RG_OK;
    if (rc >= 0 && flock(a->fd, LOCK_SH | LOCK_NB) < 0) rc = fail_file(err, "cannot be locked", path);
    if (rc < 0) return rc;
    void *p = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
    if (p == MAP_FAILED) return fail_file(err, "cannot be mapped", path);
    a->base = p;
    a->head = p;
    rc = fresh ? lay_out(a, err) : RG_OK;
    if (rc >= 0 && (a->head->magic != MAGIC || a->head->bytes != a->bytes))
        rc = rg__fail(err, RG_ECONFIG, "shared cache: %s is not one, or was not finished by who made it", path);
    return rc;
}

rg__arena *rg__arena_open(const char *place, rg__slice key, uint64_t max_bytes, rg_err *err) {
    char folder[PATH];
    char name[80];
    char path[PATH + 96];
    int rc = make_folder(place, folder, err);
    int lock = rc < 0 ? rc : lock_folder(folder, err);
    rg__arena *a = lock < 0 ? NULL : rg__calloc(1, sizeof *a);
    if (lock >= 0 && !a) rg__fail_memory(err);
    if (a) {
        a->bytes = (size_t)(max_bytes < MIN_BYTES ? MIN_BYTES : (max_bytes + 4095) & ~(uint64_t)4095);
        name_file(name, key, a->bytes);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        remove_unused(folder, name);
        rc = attach(a, path, err);
        if (rc < 0) {
            rg__arena_close(a);
            a = NULL;
        }
    }
    if (lock >= 0) close(lock);
    if (!a) return NULL;
    a->seed = a->head->seed;
    a->shard_mask = a->head->n_shards - 1;
    return a;
}

void rg__arena_tidy(const char *place) {
    char folder[PATH];
    int lock = make_folder(place, folder, NULL) < 0 ? -1 : lock_folder(folder, NULL);
    if (lock < 0) return;
    remove_unused(folder, "");
    close(lock);
}

void rg__arena_close(rg__arena *a) {
    if (!a) return;
    if (a->base) munmap(a->base, a->bytes);
    if (a->fd >= 0) close(a->fd);
    rg__free(a);
}

uint64_t rg__arena_seed(const rg__arena *a) { return a->head->key_seed; }

/* ---- channels ---- */

enum { CLAIM_MS = 1500, CLAIMED = 1, ALIVE = 2 };

static uint64_t word_of(uint64_t owner, uint64_t state, int64_t until_ms) {
    return owner << 48 | state << 46 | ((uint64_t)until_ms & ((UINT64_C(1) << 46) - 1));
}
static uint64_t owner_of(uint64_t word) { return word >> 48; }
static uint64_t state_of(uint64_t word) { return word >> 46 & 3; }
static int64_t until_of(uint64_t word) { return (int64_t)(word & ((UINT64_C(1) << 46) - 1)); }

/* As cheap as can be; some milliseconds behind. */
static int64_t about_now_ms(void) {
    struct timespec t;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool rg__arena_alive(const rg__arena *a) {
    uint32_t needed = atomic_load_explicit(&a->head->needed, memory_order_relaxed);
    if (!needed) return false;
    int64_t now = about_now_ms();
    for (uint32_t i = 0; needed >> i; i++) {
        uint64_t word = atomic_load_explicit(&a->head->channel[i], memory_order_acquire);
        if (needed >> i & 1 && (state_of(word) != ALIVE || until_of(word) <= now)) return false;
    }
    return true;
}

rg__told *rg__arena_told(const rg__arena *a, uint32_t channel) { return &a->head->told[channel]; }

void rg__arena_need(rg__arena *a, uint32_t channel) { atomic_fetch_or(&a->head->needed, 1u << channel); }

bool rg__arena_claim(rg__arena *a, uint32_t channel, uint16_t owner, uint64_t *mine) {
    unsigned long long word = atomic_load(&a->head->channel[channel]);
    int64_t now = rg__now_ms();
    if (word != *mine && until_of(word) > now) return false;
    uint64_t next = word_of(owner, CLAIMED, now + CLAIM_MS);
    if (!atomic_compare_exchange_strong(&a->head->channel[channel], &word, next)) return false;
    *mine = next;
    return true;
}

bool rg__arena_beat(rg__arena *a, uint32_t channel, uint64_t *mine, int64_t until_ms) {
    uint64_t next = word_of(owner_of(*mine), ALIVE, until_ms);
    unsigned long long word = *mine;
    if (next == word) return atomic_load(&a->head->channel[channel]) == word;
    if (state_of(word) != ALIVE) rg__arena_clear(a);
    if (!atomic_compare_exchange_strong(&a->head->channel[channel], &word, next)) return false;
    *mine = next;
    return true;
}

void rg__arena_resign(rg__arena *a, uint32_t channel, uint64_t *mine) {
    unsigned long long word = *mine;
    if (word) atomic_compare_exchange_strong(&a->head->channel[channel], &word, 0);
    *mine = 0;
}
