/* SPDX-License-Identifier: MIT */
/* The transactions that a session is in, one a MySQL pool, as operations see them. */
#ifndef RG_RUN_TX_H
#define RG_RUN_TX_H

#include <regolith/tx.h>
#include "run/engine.h"
#include "run/request.h"
#include "tx/tx.h"

/* Its request may end while an operation runs on it, on another thread: whoever is the last at it ends it.
 * `claims` counts operations that run; SEALED in it: the request has ended it, and none runs any more. */
struct rg_tx {
    rg_engine *engine; /* a reference */
    atomic_uint refs;  /* the handle, sessions that are in it, operations on it, inner ones */
    atomic_uint claims;
    atomic_bool orphan; /* its request has ended */
    rg__tenant tenant;  /* of that request, if any */
    int pool;
    rg__tx *tx;
    rg_tx *outer;      /* a reference */
};

rg_tx *rg__tx_ref(rg_tx *tx);
void rg__tx_unref(rg_tx *tx);
rg__tenant *rg__tx_tenant(rg_tx *tx);
/* Around what runs on it and those it suspends. ECLOSED once its request has ended; then nothing is claimed. */
int rg__tx_claim(rg_tx *tx, rg_err *err);
void rg__tx_unclaim(rg_tx *tx);
/* By itself or by an outer one. Not claimed by the caller, need not be. */
bool rg__tx_has_connection(rg_tx *tx);

typedef struct rg__txs {
    rg_tx **handles; /* by pool, then those suspended by pool; references */
    rg__tx **txs;    /* the same, as contexts want them */
    uint32_t n;      /* pools */
    uint32_t used, suspended;
} rg__txs;

int rg__txs_set(rg__txs *s, uint32_t n_pools, int pool, rg_tx *tx, rg_tx *suspended);
int rg__txs_copy(rg__txs *to, const rg__txs *from);
void rg__txs_deinit(rg__txs *s);
/* All of them, or none. */
int rg__txs_claim(const rg__txs *s, rg_err *err);
void rg__txs_unclaim(const rg__txs *s);
/* Has a context be within them: their deadlines, too. They are claimed, or cannot end meanwhile. */
void rg__txs_bound(const rg__txs *s, rg__ctx *ctx);
static inline rg__tx *rg__txs_at(const rg__txs *s, int pool) {
    return s->used && pool >= 0 ? s->txs[pool] : NULL;
}

/* The connection for an operation's statements on a pool: of its transaction, or one of the pool's. */
int rg__op_connect(rg_engine *e, const rg__ctx *ctx, int pool, rg__tx_need need, rg__mysql **c,
                   rg_err *err);
/* Gives it back. Returns rc. */
int rg__op_disconnect(const rg__ctx *ctx, int pool, rg__mysql *c, int rc, const rg_err *err);

#endif
