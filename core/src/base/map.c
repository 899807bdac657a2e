/* SPDX-License-Identifier: MIT */
/* The hash map: linear probing, removal by shifting back, so that there are no tombstones. */
#include "base/map.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"

#include <pthread.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* A free slot has key == NULL. */
typedef struct slot {
    uint64_t hash;
    char *key;
    size_t len;
    void *value;
} slot;

struct rg__map {
    slot *slots;
    size_t mask;  /* slots - 1; a power of two minus one */
    size_t count; /* below 3/4 of the slots */
};

/* Unknown to whoever chooses the keys: without it they cannot aim for one bucket. */
static uint8_t secret[XXH3_SECRET_SIZE_MIN + 56];
static pthread_once_t seeded = PTHREAD_ONCE_INIT;

static void seed(void) { rg__random(secret, sizeof secret); }

static uint64_t hash_key(const void *key, size_t len) {
    return XXH3_64bits_withSecret(key, len, secret, sizeof secret);
}

rg__map *rg__map_new(void) {
    pthread_once(&seeded, seed);
    rg__map *m = rg__calloc(1, sizeof *m);
    if (!m) return NULL;
    m->mask = 15;
    m->slots = rg__calloc(m->mask + 1, sizeof *m->slots);
    if (m->slots) return m;
    rg__free(m);
    return NULL;
}

void rg__map_free(rg__map *m) {
    if (!m) return;
    for (size_t i = 0; i <= m->mask; i++) rg__free(m->slots[i].key);
    rg__free(m->slots);
    rg__free(m);
}

/* The key's slot, or the free one where it would go. */
static slot *probe(const rg__map *m, uint64_t hash, const void *key, size_t len) {
    for (size_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        slot *s = &m->slots[i];
        if (!s->key) return s;
        if (s->hash == hash && s->len == len && (len == 0 || memcmp(s->key, key, len) == 0))
            return s;
    }
}

static bool resize(rg__map *m) {
    rg__map bigger = {.mask = m->mask * 2 + 1, .count = m->count};
    bigger.slots = rg__calloc(bigger.mask + 1, sizeof *bigger.slots);
    if (!bigger.slots) return false;
    for (size_t i = 0; i <= m->mask; i++) {
        slot *s = &m->slots[i];
        if (s->key) *probe(&bigger, s->hash, s->key, s->len) = *s;
    }
    rg__free(m->slots);
    *m = bigger;
    return true;
}

static int insert(rg__map *m, slot *at, slot fresh) {
    if ((m->count + 1) * 4 > (m->mask + 1) * 3) {
        if (!resize(m)) return RG_ENO_MEMORY;
        at = probe(m, fresh.hash, fresh.key, fresh.len);
    }
    char *copy = rg__memdup0(fresh.key, fresh.len);
    if (!copy) return RG_ENO_MEMORY;
    *at = fresh;
    at->key = copy;
    m->count++;
    return RG_OK;
}

int rg__map_put(rg__map *m, const void *key, size_t len, void *value, void **old) {
    uint64_t hash = hash_key(key, len);
    slot *s = probe(m, hash, key, len);
    if (old) *old = s->key ? s->value : NULL;
    if (!s->key) return insert(m, s, (slot){hash, (char *)(uintptr_t)key, len, value});
    s->value = value;
    return RG_OK;
}

void *rg__map_get(const rg__map *m, const void *key, size_t len) {
    const slot *s = probe(m, hash_key(key, len), key, len);
    return s->key ? s->value : NULL;
}

/* Closes the hole at i: a later member of the run moves in when its home is not after the hole. */
static void close_hole(rg__map *m, size_t hole) {
    for (size_t i = (hole + 1) & m->mask; m->slots[i].key; i = (i + 1) & m->mask) {
        size_t home = m->slots[i].hash & m->mask;
        if (((i - home) & m->mask) < ((i - hole) & m->mask)) continue;
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (slot){0};
}

void *rg__map_take(rg__map *m, const void *key, size_t len) {
    slot *s = probe(m, hash_key(key, len), key, len);
    if (!s->key) return NULL;
    void *value = s->value;
    rg__free(s->key);
    m->count--;
    close_hole(m, (size_t)(s - m->slots));
    return value;
}

size_t rg__map_count(const rg__map *m) { return m->count; }

bool rg__map_next(const rg__map *m, size_t *at, rg__slice *key, void **value) {
    while (*at <= m->mask) {
        const slot *s = &m->slots[(*at)++];
        if (!s->key) continue;
        if (key) *key = (rg__slice){s->key, s->len};
        if (value) *value = s->value;
        return true;
    }
    return false;
}
