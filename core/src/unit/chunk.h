/* SPDX-License-Identifier: MIT */
/* What the two halves of one chunk share: how it is written (chunk.c), and what became of rows that did not
 * match or whose outcome is open (verdict.c). */
#ifndef RG_UNIT_CHUNK_H
#define RG_UNIT_CHUNK_H

#include "unit/cas.h"

/* A chunk under way. */
typedef struct rg__chunk {
    rg__each_run *e;
    const uint32_t *items;
    size_t n;
    const rg_type *type;
    int write;
    rg__cas cas;
    uint64_t ids[RG__CAS_ROWS];
    const void *rows[RG__CAS_ROWS], *expected[RG__CAS_ROWS];
    uint64_t marks;      /* bit i: item i was written */
    uint64_t pending;    /* bit i: its row waits for the queue */
    bool begun, marked;
    rg__changes changes;
    rg__txid tx;
} rg__chunk;

static inline rg__item *rg__chunk_item(const rg__chunk *k, size_t i) {
    return &k->e->items->items[k->items[i]];
}
static inline bool rg__chunk_marked(uint64_t bits, size_t i) { return bits >> i & 1; }
static inline uint64_t rg__chunk_all(size_t n) { return n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1; }
static inline bool rg__chunk_shared(const rg__chunk *k) {
    return rg__type_shared(k->type) && rg__store_shared(k->e->store, k->type);
}

void rg__chunk_init(rg__chunk *k, rg__each_run *e, const uint32_t *items, size_t n);
/* Sees to it that the call has a connection to the type's pool. */
int rg__each_connect(rg__each_run *e, const rg_type *t, rg_err *err);
/* Is it one statement in autocommit, and nothing around it? */
bool rg__chunk_is_plain(const rg__chunk *k);
/* Gives the items of a chunk that has run their outcome; RG_OK and codes as rg__chunk_run. */
int rg__chunk_end(rg__chunk *k, bool last, rg_err *err);
/* Gives each item that was not written its outcome, but those for which it is worth to try again (not when
 * `last`). RG_EPENDING: some wait for the queue. */
int rg__chunk_explain(rg__chunk *k, bool last, rg_err *err);

#endif
