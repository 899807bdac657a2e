/* SPDX-License-Identifier: MIT */
/* Homes: the registry, how one is made and how it ends. */
#include "cache/home.h"

#include <openssl/sha.h>
#include <pthread.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"
#include "cache/arena.h"
#include "cache/shared.h"

/* One Redis pool as the channel knows it. */
typedef struct rg__room {
    rg__redis_pool *pool;   /* its own connections */
    rg__shared *shared;     /* its names */
    rg__told *told;         /* own_told, or in the arena */
    rg__coherence *channel;
} rg__room;

struct rg__home {
    atomic_uint refs;
    uint32_t users;         /* engines that are open; under the registry's lock, as settled and next */
    bool settled, listed;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    rg__home *next;
    rg__process *process;
    rg__metrics metrics;
    uint64_t seed;
    uint32_t n;
    rg__room *rooms;
};

/* ---- the registry ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static rg__home *homes;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
static void watch_forks(void) { pthread_atfork(before_fork, after_fork, after_fork); }

static void digest_of(const rg__home_opts *o, uint8_t out[SHA256_DIGEST_LENGTH]) {
    struct {
        uint8_t meaning[SHA256_DIGEST_LENGTH], secrets[SHA256_DIGEST_LENGTH], place[SHA256_DIGEST_LENGTH];
        uint64_t bytes;
    } all = {.bytes = o->place ? o->max_bytes : 0};
    const char *place = o->place ? o->place : "";
    SHA256((const unsigned char *)o->meaning.p, o->meaning.len, all.meaning);
    SHA256((const unsigned char *)o->secrets.p, o->secrets.len, all.secrets);
    SHA256((const unsigned char *)place, strlen(place), all.place);
    SHA256((const unsigned char *)&all, sizeof all, out);
}

static rg__home *find(const uint8_t *digest) {
    for (rg__home *h = homes; h; h = h->next)
        if (memcmp(h->digest, digest, sizeof h->digest) == 0) return h;
    return NULL;
}

static void delist(rg__home *h) {
    for (rg__home **p = &homes; *p; p = &(*p)->next)
        if (*p == h) {
            *p = h->next;
            break;
        }
    h->listed = false;
}

/* ---- making ---- */

static int make_process(rg__home *h, const rg__home_opts *o, rg_err *err) {
    rg__arena *arena = NULL;
    rg__random(&h->seed, sizeof h->seed);
    if (o->place && o->n_redis > RG__ARENA_CHANNELS)
        return rg__fail(err, RG_ECONFIG, "a shared cache has at most %d Redis pools", RG__ARENA_CHANNELS);
    if (o->place && !(arena = rg__arena_open(o->place, o->meaning, o->max_bytes, err)))
        return err && err->code ? err->code : RG_ENO_MEMORY;
    if (arena) h->seed = rg__arena_seed(arena);
    h->process = arena ? rg__process_over(arena, &h->metrics) : rg__process_new(o->max_bytes, &h->metrics);
    if (h->process) return rg__process_channels(h->process, o->n_redis) < 0 ? rg__fail_memory(err) : RG_OK;
    rg__arena_close(arena);
    return rg__fail_memory(err);
}

static int make_room(rg__home *h, uint32_t i, const rg__home_opts *o, rg_err *err) {
    rg__room *r = &h->rooms[i];
    rg__arena *arena = rg__process_arena(h->process);
    r->pool = rg__redis_pool_new(rg__redis_pool_opts(o->redis[i]), err);
    if (!r->pool) return RG_ENO_MEMORY;
    r->shared = rg__shared_new(r->pool, h->process, o->schema, o->prefix, &h->metrics, err);
    if (!r->shared) return RG_ENO_MEMORY;
    r->told = arena ? rg__arena_told(arena, i) : &r->shared->own_told;
    rg__shared_join(r->shared, h->seed, r->told);
    r->channel = rg__coherence_new(r->shared, h->process, err);
    if (!r->channel) return RG_ENO_MEMORY;
    r->shared->schema = NULL; /* its engine's, which may end first */
    rg__coherence_number(r->channel, i);
    return RG_OK;
}

static void destroy(rg__home *h) {
    for (uint32_t i = 0; h->rooms && i < h->n; i++) {
        rg__room *r = &h->rooms[i];
        rg__coherence_free(r->channel);
        if (r->shared) rg__values_echo_free(r->shared);
        rg__shared_free(r->shared);
        rg__redis_pool_free(r->pool);
    }
    rg__free(h->rooms);
    rg__process_free(h->process);
    rg__free(h);
}

static rg__home *make(const rg__home_opts *o, const uint8_t *digest, rg_err *err) {
    rg__home *h = rg__calloc(1, sizeof *h);
    if (h) h->rooms = rg__calloc(o->n_redis + 1, sizeof *h->rooms);
    if (!h || !h->rooms) {
        rg__free(h);
        rg__fail_memory(err);
        return NULL;
    }
    memcpy(h->digest, digest, sizeof h->digest);
    h->n = o->n_redis;
    int rc = make_process(h, o, err);
    for (uint32_t i = 0; rc >= 0 && i < h->n; i++) rc = make_room(h, i, o, err);
    if (rc >= 0) return h;
    destroy(h);
    return NULL;
}

rg__home *rg__home_join(const rg__home_opts *o, rg_err *err) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    pthread_once(&once, watch_forks);
    digest_of(o, digest);
    pthread_mutex_lock(&lock);
    rg__home *h = o->apart ? NULL : find(digest);
    if (h) {
        rg__process_grow(h->process, o->max_bytes);
        if (o->place) rg__arena_tidy(o->place);
    } else if ((h = make(o, digest, err)) != NULL && !o->apart) {
        h->next = homes;
        homes = h;
        h->listed = true;
    }
    if (h) {
        h->users++;
        atomic_fetch_add(&h->refs, 1);
    }
    pthread_mutex_unlock(&lock);
    return h;
}

/* ---- taking part ---- */

static int echo_values(const rg__home *h, uint32_t i, const rg__shared *s) {
    int rc = RG_OK;
    for (uint32_t k = 0; rc >= 0 && k < s->n_values; k++)
        rc = rg__values_echo(h->rooms[i].shared, s->values[k], h->process);
    return rc;
}

int rg__home_settle(rg__home *h, rg__shared *const *shared, rg_err *err) {
    int rc = RG_OK;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < h->n; i++) {
        rg__shared_join(shared[i], h->seed, h->rooms[i].told);
        if (rc >= 0 && !h->settled) rc = echo_values(h, i, shared[i]);
    }
    h->settled = rc >= 0;
    pthread_mutex_unlock(&lock);
    return rc < 0 ? rg__fail_memory(err) : RG_OK;
}

/* ---- the end ---- */

void rg__home_retire(rg__home *h) {
    pthread_mutex_lock(&lock);
    bool last = --h->users == 0;
    if (last && h->listed) delist(h); /* who comes now makes another one */
    pthread_mutex_unlock(&lock);
    for (uint32_t i = 0; last && i < h->n; i++) {
        rg__redis_pool_shutdown(h->rooms[i].pool);
        rg__coherence_stop(h->rooms[i].channel);
    }
}

void rg__home_unref(rg__home *h) {
    if (h && atomic_fetch_sub(&h->refs, 1) == 1) destroy(h);
}

rg__process *rg__home_process(const rg__home *h) { return h->process; }
rg__metrics *rg__home_metrics(rg__home *h) { return &h->metrics; }
rg__coherence *rg__home_channel(const rg__home *h, uint32_t redis) { return h->rooms[redis].channel; }
