/* SPDX-License-Identifier: MIT */
/* Single-flight within the process: who loads a row, and who waits for that answer. */
#include "unit/load.h"

#include "base/alloc.h"
#include "base/list.h"
#include "base/thread.h"

enum { SLOTS = 256 };

struct rg__flight {
    rg__node node;
    uint64_t key, stamp;
    uint32_t space;
    uint32_t refs;  /* leader and waiters */
    bool landed, ok;
    rg_block *row;  /* when landed and ok */
};

/* Lock: one for all slots; held for pointer work only. */
struct rg__flights {
    pthread_mutex_t lock;
    pthread_cond_t landed;
    rg__node slots[SLOTS];
};

rg__flights *rg__flights_new(void) {
    rg__flights *f = rg__calloc(1, sizeof *f);
    if (!f) return NULL;
    pthread_mutex_init(&f->lock, NULL);
    rg__cond_init(&f->landed);
    for (int i = 0; i < SLOTS; i++) rg__list_init(&f->slots[i]);
    return f;
}

void rg__flights_free(rg__flights *f) {
    if (!f) return;
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->landed);
    rg__free(f);
}

static rg__node *slot_of(rg__flights *f, uint32_t space, uint64_t key) {
    return &f->slots[(key * 0x9E3779B97F4A7C15ULL + space) >> 56];
}

static void drop(rg__flight *flight) {
    if (--flight->refs > 0) return;
    rg_block_unref(flight->row);
    rg__free(flight);
}

static rg__flight *find(rg__node *slot, uint32_t space, uint64_t key, uint64_t stamp) {
    for (rg__node *n = slot->next; n != slot; n = n->next) {
        rg__flight *it = rg__container(n, rg__flight, node);
        if (it->key == key && it->space == space && it->stamp == stamp) return it;
    }
    return NULL;
}

/* NULL when out of memory: the caller then loads alone. */
rg__flight *rg__flight_join(rg__flights *f, uint32_t space, uint64_t key, uint64_t stamp,
                            bool *mine) {
    rg__node *slot = slot_of(f, space, key);
    *mine = true;
    pthread_mutex_lock(&f->lock);
    rg__flight *flight = find(slot, space, key, stamp);
    if (flight) {
        *mine = false;
        flight->refs++;
    } else if ((flight = rg__calloc(1, sizeof *flight)) != NULL) {
        *flight = (rg__flight){.key = key, .space = space, .stamp = stamp, .refs = 1};
        rg__list_add_tail(slot, &flight->node);
    }
    pthread_mutex_unlock(&f->lock);
    return flight;
}

void rg__flight_land(rg__flights *f, rg__flight *flight, bool ok, rg_block *row) {
    if (!flight) return;
    pthread_mutex_lock(&f->lock);
    rg__list_remove(&flight->node);
    flight->landed = true;
    flight->ok = ok;
    if (ok && row) flight->row = rg_block_ref(row);
    if (flight->refs > 1) pthread_cond_broadcast(&f->landed);
    drop(flight);
    pthread_mutex_unlock(&f->lock);
}

bool rg__flight_wait(rg__flights *f, rg__flight *flight, int64_t deadline_ms, rg_block **row) {
    pthread_mutex_lock(&f->lock);
    while (!flight->landed && rg__cond_wait(&f->landed, &f->lock, deadline_ms)) {}
    bool ok = flight->landed && flight->ok;
    if (ok) *row = flight->row ? rg_block_ref(flight->row) : NULL;
    drop(flight);
    pthread_mutex_unlock(&f->lock);
    return ok;
}
