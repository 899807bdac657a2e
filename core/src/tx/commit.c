/* SPDX-License-Identifier: MIT */
/* The end of a transaction: MARK, COMMIT, PUBLISH, or ROLLBACK. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/kill.h"
#include "tx/scope.h"

/* What one Redis pool is told of. */
typedef struct told {
    rg__shared *shared;
    rg__changes changes;
    bool marked;
} told;

typedef struct telling {
    told *items; /* one a Redis pool */
    size_t n;
    rg__value_changes *values; /* or NULL */
    rg__tx_mark_fn mark;
    void *arg;
} telling;

/* ---- from writes to changes ---- */

static int by_row(const void *a, const void *b) {
    const rg__tx_write *x = a, *y = b;
    if (x->type->number != y->type->number) return x->type->number < y->type->number ? -1 : 1;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->n < y->n ? -1 : x->n > y->n;
}

static bool same_row(const rg__tx_write *a, const rg__tx_write *b) {
    return a->type == b->type && a->id == b->id;
}

static told *told_of(telling *t, rg__shared *shared) {
    for (size_t i = 0; i < t->n; i++)
        if (t->items[i].shared == shared) return &t->items[i];
    told *p = rg__reallocarray(t->items, t->n + 1, sizeof *p);
    if (!p) return NULL;
    t->items = p;
    t->items[t->n] = (told){.shared = shared};
    return &t->items[t->n++];
}

/* Outside, a row goes at once from what it was to what it will be; what it was in between nobody has
 * seen. first and last: of the writes of one row. */
static int add_row(telling *t, const rg__tx_write *first, const rg__tx_write *last, rg_err *err) {
    if (!first->shared || (!first->before && !last->after)) return RG_OK;
    told *to = told_of(t, first->shared);
    if (!to) return rg__fail_memory(err);
    return rg__changes_add(&to->changes, first->shared, first->type,
                           first->before ? rg_block_data(first->before) : NULL, last->after, err);
}

static int collect(rg__tx *tx, telling *t, rg_err *err) {
    if (tx->n_writes > 1) qsort(tx->writes, tx->n_writes, sizeof *tx->writes, by_row);
    int rc = RG_OK;
    for (size_t i = 0, to; rc >= 0 && i < tx->n_writes; i = to) {
        for (to = i + 1; to < tx->n_writes && same_row(&tx->writes[i], &tx->writes[to]);) to++;
        rc = add_row(t, &tx->writes[i], &tx->writes[to - 1], err);
    }
    for (size_t i = 0; rc >= 0 && i < t->n; i++) rc = rg__changes_once(&t->items[i].changes, err);
    return rc;
}

/* ---- the caches ---- */

static int mark_all(const rg__tx *tx, const rg__ctx *ctx, telling *t, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < t->n; i++) {
        told *to = &t->items[i];
        if (!to->changes.n) continue;
        to->marked = true;
        rc = t->mark(t->arg, ctx, to->shared, tx->id, &to->changes, tx->conn, &to->marked, err);
    }
    return rc < 0 ? rc : rg__value_changes_mark(t->values, ctx, tx->id, err);
}

static void unmark(const rg__tx *tx, const rg__ctx *ctx, telling *t) {
    for (size_t i = 0; i < t->n; i++)
        if (t->items[i].marked)
            rg__shared_unmark(t->items[i].shared, ctx, tx->id, t->items[i].changes.items,
                              t->items[i].changes.n);
    rg__value_changes_unmark(t->values, ctx, tx->id);
}

static void publish(const rg__tx *tx, const rg__ctx *ctx, telling *t) {
    for (size_t i = 0; i < t->n; i++)
        if (t->items[i].marked)
            rg__shared_publish(t->items[i].shared, ctx, tx->id, t->items[i].changes.items,
                               t->items[i].changes.n);
    rg__value_changes_publish(t->values, ctx, tx->id);
}

static void telling_deinit(telling *t) {
    for (size_t i = 0; i < t->n; i++) rg__changes_deinit(&t->items[i].changes);
    rg__free(t->items);
}

/* ---- ends ---- */

static void end(rg__tx *tx, rg__tx_phase phase) {
    if (tx->conn) rg__mysql_release(tx->conn);
    tx->conn = NULL;
    tx->depth = 0;
    rg__tx_move(tx, phase);
    rg__tx_forget(tx, 0);
}

void rg__tx_rollback(rg__tx *tx, const rg__ctx *ctx) {
    if (tx->phase > RG__TX_DOOMED) return;
    if (tx->conn && !rg__mysql_broken(tx->conn)) rg__mysql_rollback(tx->conn, ctx);
    end(tx, RG__TX_ROLLED_BACK);
}

void rg__tx_abandon(rg__tx *tx) {
    if (tx->phase > RG__TX_DOOMED) return;
    if (tx->conn) rg__mysql_poison(tx->conn);
    end(tx, RG__TX_ROLLED_BACK);
}

/* Marks of two transactions that were one would be taken for each other's. */
static void name(rg__tx *tx, bool resolve, const telling *t) {
    if (resolve || t->n > 0 || (t->values && t->values->n > 0)) rg__random(tx->id.bytes, sizeof tx->id.bytes);
}

/* Evidence first, then marks as late as can be: readers go past the caches while they stand. */
static int prepare(rg__tx *tx, const rg__ctx *ctx, bool resolve, telling *t, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__tx_use(tx, ctx, RG__TX_READS, &c, err);
    if (rc >= 0) rc = collect(tx, t, err);
    if (rc >= 0) name(tx, resolve, t);
    if (rc >= 0 && resolve) rc = rg__tx_after(tx, rg__tx_leave_evidence(tx, ctx, err), err);
    return rc < 0 ? rc : mark_all(tx, ctx, t, err);
}

static int finish_unknown(rg__tx *tx, const rg__ctx *ctx, bool resolve, telling *t, rg_err *err) {
    rg__mysql_hang_up(tx->conn); /* should the server still hold it open */
    rg__tx_phase phase = resolve ? rg__tx_resolve(tx, ctx) : RG__TX_UNKNOWN;
    if (phase == RG__TX_COMMITTED) publish(tx, ctx, t);
    if (phase == RG__TX_ROLLED_BACK) {
        unmark(tx, ctx, t);
        rg__fail(err, RG_EUNAVAILABLE, "committing: the connection was lost, nothing was committed");
        if (err) err->cls = RG_CLASS_RECONNECT;
    }
    if (err && phase != RG__TX_COMMITTED) tx->cause = *err;
    end(tx, phase);
    return phase == RG__TX_COMMITTED    ? RG_OK
           : phase == RG__TX_ROLLED_BACK ? RG_EUNAVAILABLE
                                         : RG_ECOMMIT_UNKNOWN;
}

static int finish_rolled_back(rg__tx *tx, const rg__ctx *ctx, telling *t, int rc, const rg_err *err) {
    if (err && !tx->cause.code) tx->cause = *err;
    rg__tx_rollback(tx, ctx);
    unmark(tx, ctx, t);
    return rc;
}

int rg__tx_commit(rg__tx *tx, const rg__ctx *ctx, bool resolve, rg__value_changes *values,
                  rg__tx_mark_fn mark, void *arg, rg_err *err) {
    telling t = {.values = values, .mark = mark, .arg = arg};
    if (tx->phase == RG__TX_IDLE) {
        name(tx, false, &t);
        int told = rg__value_changes_mark(values, ctx, tx->id, err);
        if (told < 0) {
            tx->cause = *err;
            end(tx, RG__TX_ROLLED_BACK);
            return told;
        }
        rg__value_changes_publish(values, ctx, tx->id);
        end(tx, RG__TX_COMMITTED);
        return RG_OK;
    }
    if (tx->phase > RG__TX_DOOMED) return rg__fail(err, RG_ECLOSED, "the transaction has ended");
    resolve = resolve && (tx->n_writes > 0 || tx->raw || tx->beside);
    int rc = prepare(tx, ctx, resolve, &t, err);
    if (rc >= 0) {
        rg__kill_point(RG__KILL_TX_MARKED);
        rc = rg__mysql_commit(tx->conn, ctx, err);
        if (rc == RG_ECOMMIT_UNKNOWN) {
            rc = finish_unknown(tx, ctx, resolve, &t, err);
            telling_deinit(&t);
            return rc;
        }
    }
    if (rc < 0) {
        rc = finish_rolled_back(tx, ctx, &t, rc, err);
    } else {
        rg__kill_point(RG__KILL_TX_COMMITTED);
        publish(tx, ctx, &t);
        if (resolve) rg__tx_tidy(tx, ctx);
        end(tx, RG__TX_COMMITTED);
    }
    telling_deinit(&t);
    return rc;
}
