/* SPDX-License-Identifier: MIT */
/* Savepoints, and the log of what was written under each. */
#include <stdio.h>

#include "base/alloc.h"
#include "tx/scope.h"

/* ---- savepoints ---- */

int rg__tx_push(rg__tx *tx, rg_err *err) {
    if (tx->depth == tx->frames_cap) {
        uint32_t cap = tx->frames_cap ? tx->frames_cap * 2 : 4;
        rg__tx_frame *p = rg__reallocarray(tx->frames, cap, sizeof *p);
        if (!p) return rg__fail_memory(err);
        tx->frames = p;
        tx->frames_cap = cap;
    }
    tx->frames[tx->depth++] = (rg__tx_frame){.start = tx->n_writes};
    return (int)tx->depth;
}

static void name_of(uint32_t number, char name[24]) { snprintf(name, 24, "rg_%u", number); }

/* Frames without a statement between them share one savepoint. Names are taken again by later
 * frames of the same depth, so that none has to be released. */
int rg__tx_send_savepoints(rg__tx *tx, const rg__ctx *ctx, rg_err *err) {
    uint32_t first = tx->depth;
    while (first > 0 && tx->frames[first - 1].name == 0) first--;
    if (first == tx->depth) return RG_OK;
    char name[24];
    name_of(first + 1, name);
    int rc = rg__tx_after(tx, rg__mysql_savepoint(tx->conn, ctx, name, err), err);
    if (rc < 0) return rc;
    for (uint32_t i = first; i < tx->depth; i++) tx->frames[i].name = first + 1;
    return RG_OK;
}

int rg__tx_merge(rg__tx *tx, rg_err *err) {
    if (tx->depth == 0) return rg__fail(err, RG_EMISUSE, "the transaction has no savepoint");
    tx->depth--;
    return RG_OK;
}

int rg__tx_undo(rg__tx *tx, const rg__ctx *ctx, rg_err *err) {
    if (tx->depth == 0) return rg__fail(err, RG_EMISUSE, "the transaction has no savepoint");
    rg__tx_frame f = tx->frames[--tx->depth];
    rg__tx_forget(tx, f.start);
    if (f.name == 0 || tx->phase != RG__TX_OPEN) return RG_OK;
    char name[24];
    rg_err why = {0};
    name_of(f.name, name);
    rg__ctx own = *ctx;
    if (rg__left_ms(own.deadline_ms) < 1000) own.deadline_ms = rg__now_ms() + 1000;
    int rc = rg__mysql_rollback_to(tx->conn, &own, name, &why);
    if (rc < 0) rg__tx_doom(tx, &why);
    if (rc < 0 && err) *err = why;
    return rc;
}

/* ---- the log ---- */

size_t rg__tx_noted(const rg__tx *tx) { return tx->n_writes; }

void rg__tx_forget(rg__tx *tx, size_t from) {
    for (size_t i = from; i < tx->n_writes; i++) {
        rg_block_unref(tx->writes[i].before);
        rg_block_unref(tx->writes[i].after);
    }
    if (from < tx->n_writes) tx->n_writes = from;
}

/* A row's key in the map of what was touched; of its type alone with id 0. */
typedef struct row_key {
    uint32_t type, zero;
    uint64_t id;
} row_key;

static int touch(rg__tx *tx, const rg_type *t, uint64_t id) {
    static char there;
    if (!tx->touched) tx->touched = rg__map_new();
    if (!tx->touched) return RG_ENO_MEMORY;
    row_key key = {t->number, 0, id};
    row_key any = {t->number, 0, 0};
    int rc = rg__map_put(tx->touched, &key, sizeof key, &there, NULL);
    return rc < 0 ? rc : rg__map_put(tx->touched, &any, sizeof any, &there, NULL);
}

int rg__tx_note(rg__tx *tx, const rg_type *t, rg__shared *shared, uint64_t id, rg_block *before,
                rg_block *after, rg_err *err) {
    if (tx->n_writes == tx->writes_cap) {
        size_t cap = tx->writes_cap ? tx->writes_cap * 2 : 8;
        rg__tx_write *p = rg__reallocarray(tx->writes, cap, sizeof *p);
        if (!p) return rg__fail_memory(err);
        tx->writes = p;
        tx->writes_cap = cap;
    }
    if (touch(tx, t, id) < 0) return rg__fail_memory(err);
    tx->writes[tx->n_writes] = (rg__tx_write){.type = t,
                                              .shared = shared,
                                              .id = id,
                                              .n = (uint32_t)tx->n_writes,
                                              .before = before ? rg_block_ref(before) : NULL,
                                              .after = after ? rg_block_ref(after) : NULL};
    tx->n_writes++;
    return RG_OK;
}

void rg__tx_note_raw(rg__tx *tx) { tx->raw = true; }
void rg__tx_note_beside(rg__tx *tx) { tx->beside = true; }

/* ---- what reads must know ---- */

bool rg__tx_wrote(const rg__tx *tx, const rg_type *t, uint64_t id) {
    row_key key = {t->number, 0, id};
    return tx->touched && rg__map_get(tx->touched, &key, sizeof key);
}

bool rg__tx_suspended_wrote(const rg__ctx *ctx, const rg_type *t, uint64_t id) {
    const rg__tx *tx = rg__tx_of(ctx, t->mysql_pool);
    const rg__tx *outer = tx ? tx->outer : ctx->outers ? ctx->outers[t->mysql_pool] : NULL;
    for (; outer; outer = outer->outer)
        if (outer->conn && rg__tx_wrote(outer, t, id)) return true;
    return false;
}

/* A transaction that asks for more than committed rows has a view that no cache has. */
bool rg__tx_past_caches(const rg__tx *tx, const rg_type *t, uint64_t id) {
    return tx->raw || tx->opts.isolation >= RG__REPEATABLE_READ || rg__tx_wrote(tx, t, id);
}
