/* SPDX-License-Identifier: MIT */
/* Ids: from blocks of a durable MySQL row, or snowflakes; no round trip per entity. */
#include "base/thread.h"
#include "unit/load.h"

#include <stdlib.h>

enum { NODE_BITS = 6, SEQUENCE_BITS = 6, QUICK_MS = 1000, MAX_FACTOR = 64 };
#define SNOWFLAKE_EPOCH_MS 1704067200000ULL /* 2024-01-01 UTC: 41 bits last until 2093 */

static int compare_ids(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* They often come in order. */
void rg__ids_sort(uint64_t *ids, size_t n) {
    size_t i = 1;
    while (i < n && ids[i - 1] <= ids[i]) i++;
    if (i < n) qsort(ids, n, sizeof *ids, compare_ids);
}

static int from_block(rg__id_block *b, uint64_t *id) {
    int found = 0;
    pthread_mutex_lock(&b->lock);
    if (b->next < b->end) {
        *id = b->next++;
        found = 1;
    }
    pthread_mutex_unlock(&b->lock);
    return found;
}

/* Never goes back with the clock: a millisecond once used is counted on. */
static int snowflake(rg__id_block *b, uint32_t node, uint64_t *id) {
    uint64_t now = (uint64_t)(rg__wall_us() / 1000) - SNOWFLAKE_EPOCH_MS;
    pthread_mutex_lock(&b->lock);
    if (now > b->last_ms) {
        b->last_ms = now;
        b->sequence = 0;
    } else if (++b->sequence >= 1U << SEQUENCE_BITS) {
        b->last_ms++;
        b->sequence = 0;
    }
    *id = b->last_ms << (NODE_BITS + SEQUENCE_BITS) | (uint64_t)node << SEQUENCE_BITS | b->sequence;
    pthread_mutex_unlock(&b->lock);
    return 1;
}

int rg__ids_next(rg__store *s, const rg_type *t, uint64_t *id, rg_err *err) {
    rg__store_own(s);
    rg__id_block *b = &s->ids[t->number];
    if (t->ids == RG_IDS_BLOCK) return from_block(b, id);
    if (t->ids == RG_IDS_SNOWFLAKE && s->opener != rg__pid())
        return rg__fail(err, RG_EMISUSE, "%s: snowflake ids of processes differ by the option 'node' of regolith.open, "
                                         "and this process was forked off after that, with its parent's: open the orm "
                                         "in the process itself (nginx: in init_worker_by_lua)", t->name);
    if (t->ids == RG_IDS_SNOWFLAKE) return snowflake(b, s->node, id);
    return rg__fail_field(err, "id", "%s: ids come from the %s; none is allotted before the flush",
                          t->name, t->ids == RG_IDS_DATABASE ? "database" : "application");
}

static void adopt(rg__id_block *b, uint64_t first, uint64_t n) {
    pthread_mutex_lock(&b->lock);
    if (b->next >= b->end) {
        b->next = first;
        b->end = first + n;
    } else if (b->end == first) {
        b->end = first + n;
    } else if (b->end - b->next < n) { /* another thread was here: keep the larger block */
        b->next = first;
        b->end = first + n;
    }
    pthread_mutex_unlock(&b->lock);
}

/* A reservation is a durable commit: who uses blocks up within a second gets larger ones. */
static uint64_t block_size(rg__id_block *b, uint32_t size) {
    int64_t now = rg__now_ms();
    pthread_mutex_lock(&b->lock);
    bool quick = b->reserved_ms && now - b->reserved_ms < QUICK_MS;
    b->factor = !quick || !b->factor ? 1 : b->factor < MAX_FACTOR ? b->factor * 2 : MAX_FACTOR;
    b->reserved_ms = now;
    uint64_t n = (uint64_t)size * b->factor;
    pthread_mutex_unlock(&b->lock);
    return n;
}

int rg__ids_reserve(rg__store *s, const rg__ctx *ctx, const rg_type *t, uint64_t n, rg_err *err) {
    if (t->ids != RG_IDS_BLOCK) return RG_OK;
    rg__store_own(s);
    uint64_t block = block_size(&s->ids[t->number], s->id_block);
    if (n < block) n = block;
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(rg__store_mysql(s, t), ctx, &c, err);
    if (rc < 0) return rc;
    uint64_t first = 0;
    rg__ctx quiet = *ctx; /* no user waits to read this on a replica */
    quiet.timeline = NULL;
    rc = rg__sql_reserve_ids(c, &quiet, t, n, &first, err);
    rg__mysql_release(c);
    if (rc < 0) rg__err_about(err, "reserving ids of", t->name);
    if (rc < 0) return rc;
    adopt(&s->ids[t->number], first, n);
    return RG_OK;
}
