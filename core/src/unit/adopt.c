/* SPDX-License-Identifier: MIT */
/* Entries of queued writes that a server with older data brought back: the ledger says which of them
 * are still to be applied (cache/adopt.c). */
#include "base/alloc.h"
#include "base/err.h"
#include "unit/load.h"

/* The epoch is the one that was known before the ledger was read: with a newer one nothing is done. */
static int adopt(rg__store *s, const rg__ctx *ctx, const rg_type *t, const rg__key *keys, size_t n,
                 rg_err *err) {
    rg__shared *shared = rg__store_shared(s, t);
    uint64_t epoch = rg__shared_epoch(shared);
    const rg__queue *q = &s->queues[t->mysql_pool];
    char (*ledgers)[48] = rg__calloc(q->n_parts, sizeof *ledgers);
    int rc = ledgers ? RG_OK : rg__fail_memory(err);
    for (uint32_t p = 0; rc >= 0 && p < q->n_parts; p++)
        rc = rg__ledger_position(&s->parts[t->mysql_pool][p], ctx, ledgers[p], err);
    if (rc >= 0)
        rc = rg__shared_adopt(shared, ctx, keys, n, epoch, (const char (*)[48])ledgers, q->n_parts, err);
    rg__free(ledgers);
    return rc;
}

/* What is suspect still was written meanwhile, or the ledger cannot be read. */
static void bypass_suspects(rg__entry *entries, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!entries[i].suspect) continue;
        rg__entry_deinit(&entries[i]);
        entries[i].found = RG__BYPASS;
        entries[i].suspect = false;
    }
}

static bool any_suspect(const rg__entry *entries, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (entries[i].suspect) return true;
    return false;
}

static void get_again(rg__shared *shared, const rg__ctx *ctx, const rg_type *t, bool is_row,
                      const rg__key *keys, size_t n, rg__entry *entries) {
    for (size_t i = 0; i < n; i++) {
        if (!entries[i].suspect) continue;
        rg__entry_deinit(&entries[i]);
        rg__shared_get(shared, ctx, t, is_row, &keys[i], 1, &entries[i]);
    }
}

void rg__load_entries(rg__store *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                      const rg__key *keys, size_t n, bool lease, rg__redis *asked, rg__entry *entries) {
    rg__shared *shared = rg__store_shared(s, t);
    rg__shared_get_asked(shared, ctx, t, is_row, keys, n, entries, asked);
    if (any_suspect(entries, n) && adopt(s, ctx, t, keys, n, NULL) >= 0)
        get_again(shared, ctx, t, is_row, keys, n, entries);
    bool missing = false;
    for (size_t i = 0; i < n; i++) missing |= entries[i].found == RG__MISS;
    if (lease && missing) rg__shared_lease(shared, ctx, t, is_row, keys, n, entries);
    bypass_suspects(entries, n);
}

int rg__adopt_changes(rg__store *s, const rg__ctx *ctx, const rg__changes *c, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < c->n; i++)
        rc = adopt(s, ctx, c->items[i].type, &c->items[i].key, 1, err);
    return rc;
}
