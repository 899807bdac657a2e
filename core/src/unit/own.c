/* SPDX-License-Identifier: MIT */
/* What each process has for itself: names of producers and ids at hand. An engine that was opened before a fork
 * (in nginx' master, say) has them anew in each child. With the parent's, two processes would send under one name,
 * where the second's writes count as the first's sent again, and would give the same ids to different rows. */
#include <stdio.h>

#include "base/thread.h"
#include "unit/store.h"

static void name_producers(rg__store *s) {
    uint8_t bytes[12];
    rg__random(bytes, sizeof bytes);
    char name[25];
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(name + 2 * i, 3, "%02x", bytes[i]);
    for (int i = 0; i < RG__PRODUCERS; i++) {
        rg__producer *p = &s->producers[i];
        snprintf(p->name, sizeof p->name, "%s.%d", name, i);
        p->seq = 0;
        atomic_store(&p->busy, false); /* who was at it is in the parent */
    }
}

/* A lock may have been held by a thread of the parent. */
static void drop_ids(rg__store *s) {
    for (uint32_t i = 0; i < s->schema.n; i++) {
        rg__id_block *b = &s->ids[i];
        pthread_mutex_init(&b->lock, NULL);
        b->next = b->end = 0;
        b->reserved_ms = 0;
        b->factor = 0;
    }
}

void rg__store_open(rg__store *s) {
    pthread_mutex_init(&s->own_lock, NULL);
    for (uint32_t i = 0; i < s->schema.n; i++) pthread_mutex_init(&s->ids[i].lock, NULL);
    name_producers(s);
    s->opener = rg__pid();
    atomic_store(&s->owner, s->opener);
}

void rg__store_close(rg__store *s) {
    for (uint32_t i = 0; s->ids && i < s->schema.n; i++) pthread_mutex_destroy(&s->ids[i].lock);
    pthread_mutex_destroy(&s->own_lock);
}

void rg__store_own(rg__store *s) {
    int mine = rg__pid();
    if (atomic_load_explicit(&s->owner, memory_order_acquire) == mine) return;
    pthread_mutex_lock(&s->own_lock);
    if (atomic_load(&s->owner) != mine) {
        name_producers(s);
        drop_ids(s);
        atomic_store_explicit(&s->owner, mine, memory_order_release);
    }
    pthread_mutex_unlock(&s->own_lock);
}
