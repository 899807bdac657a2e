/* SPDX-License-Identifier: MIT */
/* MARK for a transaction of several operations, by the policies of what it has written. */
#ifndef RG_UNIT_MARKER_H
#define RG_UNIT_MARKER_H

#include "tx/tx.h"
#include "unit/store.h"

typedef struct rg__marker {
    rg__store *store;
    int mysql_pool; /* that the transaction is on */
} rg__marker;
/* An rg__tx_mark_fn over an rg__marker. */
int rg__mark_for_tx(void *marker, const rg__ctx *ctx, rg__shared *shared, rg__txid tx,
                    rg__changes *changes, rg__mysql *conn, bool *marked, rg_err *err);

#endif
