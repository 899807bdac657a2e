/* SPDX-License-Identifier: MIT */
/* The operation object: inputs, outputs, phase. What it does is a function over itself.
 *
 * Ownership: the handle owns it until rg_op_free. From QUEUED to DONE the worker owns it too; if the
 * handle goes first (abandoned), the worker frees it. `owners` counts both. */
#ifndef RG_RUN_OP_H
#define RG_RUN_OP_H

#include <regolith/op.h>
#include <regolith/lock.h>
#include "base/slab.h"
#include "run/engine.h"
#include "run/tx.h"
#include "run/request.h"
#include "unit/flush.h"
#include "unit/load.h"

/* Not negative: done; or a negative code, or RG__PARK. */
typedef int (*rg__op_fn)(rg_op *op, const rg__ctx *ctx, rg_err *err);

/* A run that waits for something that needs no thread returns this; it is run again when rg__op_resume
 * was called. Then park() has been called, which sees to that: once, from any thread, maybe before it
 * returns. */
enum { RG__PARK = INT32_MAX };

/* What a notifier's list holds. */
typedef struct rg__ready {
    rg__node node;
    uint32_t tag;
} rg__ready;

struct rg_op {
    rg_engine *engine;   /* a reference */
    rg__op_fn run;
    void (*cleanup)(rg_op *op); /* of `own`, may be NULL */
    void *own;           /* what the kind of operation keeps for itself */
    void (*park)(rg_op *op);   /* for those whose run may return RG__PARK */
    void (*unpark)(rg_op *op); /* the handle went: resume it soon if it is parked */
    bool holds;          /* what others may wait for: goes before those that may */
    bool inline_run;     /* by rg_op_run */
    bool resumed;        /* inline_run: under a lock of op.c */
    atomic_bool parked;
    atomic_uint owners;
    atomic_int phase;    /* rg_op_phase */
    rg_err err;
    rg__trace trace;
    rg__timeline *timeline; /* of the session that it is of; NULL: none, or no replicas */

    /* evented hosts */
    rg__job job;
    rg_notifier *notifier; /* a reference once submitted */
    atomic_bool abandoned; /* nobody wants its results; set under the notifier's lock */
    rg__tenant tenant;     /* of the request it belongs to, if any */
    rg__ready done;        /* in the notifier's list of completions */
    int64_t deadline_ms;

    /* inputs */
    rg__txs txs;         /* that it is part of */
    const rg_type *type;
    uint32_t index;
    int mode;
    int pool;            /* MySQL pool number */
    rg__lock lock;       /* reads */
    uint64_t offset, limit;
    double number_in;
    rg__buf text;        /* WHERE or SQL */
    rg__buf param_bytes; /* strings of the parameters */
    rg__param *params;
    size_t n_params, params_cap;
    bool placed;         /* strings point into param_bytes; else they are offsets */
    uint64_t *ids;       /* input ids, or the ids found */
    size_t n_ids, ids_cap;
    rg_builder *key;     /* lookup */
    rg__load *asked;     /* get: the servers were asked already; owned */
    struct rg__spread *spread; /* further shards to ask; NULL: only `type` (spread.c) */

    /* outputs */
    rg__rows rows;
    rg__result *result;
    double number;
    char stream_id[48];
    rg__later later;     /* async flush: when, if not now */
    rg__items items;     /* flush */
    int64_t *slots;      /* flush: session slot of each item, -1 none */
    size_t slots_cap;
    int flush_mode;      /* rg_flush_mode */
    rg__terms *terms;    /* flush: of the item that is added next; owned, NULL: none */
    rg__slab slab;       /* RG_FLUSH_EACH: terms, what they expect, masks of updates */
    uint8_t *assigned;   /* flush: columns that the item that is added next writes in any case; owned */
    bool expects_changes; /* RG_EXPECT_CHANGES was among their flags */
    rg__async_how how;   /* flush_async */
};

/* How an operation that gets rows of a type loads them. */
int rg__op_load_flags(const rg_op *op, const rg__ctx *ctx, const rg_type *t);
rg_op *rg__op_new(rg_engine *engine, rg__op_fn run, rg_err *err);
rg__tenant *rg__lease_tenant(rg_lease *l);
rg__tenant *rg__lock_tenant(rg_lock *l);
/* Ends the wait of a parked operation. */
void rg__op_resume(rg_op *op);
int rg__op_add_u64(rg_op *op, uint64_t v);
/* ---- reads of one type, or of one of several shards (op_read.c) ---- */
/* What one shard answers. */
typedef struct rg__answer {
    rg__rows rows;
    uint64_t *ids;
    size_t n_ids;
    double number;
} rg__answer;
void rg__answer_deinit(rg__answer *a);
int rg__read_search(const rg_op *op, const rg_type *t, const rg__ctx *ctx, uint64_t offset,
                    uint64_t limit, int mode, rg__answer *out, rg_err *err);
/* Over all shards that the operation was told of, side by side on the workers, merged. */
int rg__spread_search(rg_op *op, const rg__ctx *ctx, rg_err *err);
int rg__spread_lookup(rg_op *op, const rg__ctx *ctx, rg_err *err);
int rg__spread_get(rg_op *op, const rg__ctx *ctx, rg_err *err);
/* Was the row written by one of the transactions, in any of the shards? */
bool rg__spread_wrote(const struct rg__spread *s, const rg__txs *txs, uint64_t id);
void rg__spread_free(struct rg__spread *s);
rg_builder *rg__key_copy(const rg_type *t, uint32_t index, rg_builder *key, rg_err *err);

/* On a worker: runs it, with its own deadline; tells its host, and lets go of it. */
int rg__op_execute(rg_op *op, uint32_t timeout_ms);
void rg__op_finish(rg_op *op);
/* rg_op_submit in two steps, with whatever comes between: from QUEUED on it ends in rg__op_finish. */
int rg__op_expect(rg_op *op, rg_notifier *n, uint32_t tag, uint32_t timeout_ms, rg_err *err);
int rg__op_hand_over(rg_op *op, rg_err *err);
bool rg__job_is_op(const rg__job *job);
bool rg__op_is_get(const rg_op *op);    /* by id, by way of the caches */
bool rg__op_is_lookup(const rg_op *op); /* by the values of an index */
bool rg__op_is_search(const rg_op *op); /* by a condition, not by way of the caches */
/* Before the parameters are used: strings point into the buffer from then on. */
void rg__op_place_params(rg_op *op);


/* ---- op_terms.c: the terms of an update or delete, once what it changes is known ---- */
/* Takes those given for this item; changed: columns that the caller changes, NULL for a delete. */
int rg__op_take_terms(rg_op *op, rg__item *it, const uint8_t *changed, rg_err *err);
/* Adds the columns that are written in any case; how many the mask then has. */
uint32_t rg__op_take_assigned(rg_op *op, const rg_type *t, uint8_t *mask);
/* n_columns zero bytes for the mask of the update that is added next; NULL when out of memory. */
uint8_t *rg__op_take_mask(rg_op *op, const rg_type *t, rg_err *err);
/* Is there anything to do for an update that changes no column itself? */
bool rg__op_has_terms(const rg_op *op, const rg_type *t);

#endif
