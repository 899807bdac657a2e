/* SPDX-License-Identifier: MIT */
/* The unit of work's write side: a plan of few statements, run in one transaction per MySQL pool
 * with the cache protocol around it; or encoded and queued. */
#ifndef RG_UNIT_FLUSH_H
#define RG_UNIT_FLUSH_H

#include <regolith/op.h>

#include "mysql/cas.h"
#include "tx/tx.h"
#include "unit/store.h"

/* Under which conditions a row is written, and what became of that. */
typedef struct rg__terms {
    rg_block *expected;  /* the row with the values that are expected (owned reference; when `lent` it may lie
                          * in the slab: never to be kept) */
    uint8_t *expect;     /* which of its columns are compared: NULL, or columns[] */
    rg__expr *exprs;     /* columns that the server computes (owned; they point into `bytes`) */
    size_t n_exprs;
    rg__param *params;   /* owned */
    rg__buf bytes;
    bool own_version;    /* the version is compared because the type has one, not by wish */
    bool bump;           /* the server counts the version up */
    bool rebased;        /* what it found was another row of the same call's making */
    bool check;          /* nothing is written: the row is only compared */
    bool lent;           /* it lies in its operation's slab, as `expected` does */
    /* answers */
    int outcome;         /* rg_outcome */
    rg_block *current;   /* CONFLICT: the row as it is (owned reference) */
    uint8_t *differs;    /* CONFLICT: where it is not as expected (owned, n_columns bytes) */
    rg_err *fault;       /* FAILED, UNKNOWN (owned; NULL: there was no memory for it) */
    uint8_t columns[];
} rg__terms;
void rg__terms_free(rg__terms *t);
/* Its fault, with the entity's name in it. */
void rg__terms_blame(rg__terms *t, const rg_err *fault, const char *entity);

/* What a flush does to one row. */
typedef struct rg__item {
    int write;           /* rg_write */
    const rg_type *type;
    uint64_t id;
    rg_block *before;    /* update, delete: the row as it was read (owned reference) */
    rg_block *after;     /* insert, update: the row as it will be (owned reference) */
    uint8_t *mask;       /* update: columns that change (n_columns bytes; owned, unless it is lent) */
    uint32_t round;      /* plan: after inserts, updates and deletes of lower ones (order.c) */
    uint32_t level;      /* plan: and among its like after those of lower ones */
    bool mask_lent;      /* the mask lies in the operation's slab */
    rg__terms *terms;    /* owned; NULL: none, but that of a version */
} rg__item;

typedef struct rg__items {
    rg__item *items;
    size_t n, cap;
} rg__items;
void rg__items_deinit(rg__items *items);
void rg__item_deinit(rg__item *it);
/* New empty item at the end, NULL when out of memory. */
rg__item *rg__items_add(rg__items *items);

/* As it is queued, with the version that its row must have; borrows from the item. */
rg__qop rg__item_op(const rg__item *it);

/* One statement's worth: items of one type, kind and (updates) set of columns, sorted by id. */
typedef struct rg__step {
    int write;
    const rg_type *type;
    const uint8_t *mask; /* borrowed from the first item */
    uint32_t *items;     /* numbers of items */
    size_t n;
} rg__step;
typedef struct rg__plan {
    rg__step *steps;
    size_t n, cap;
    uint32_t *order; /* arena of item numbers */
} rg__plan;
/* Order: inserts, referenced types first; updates; deletes, referencing types first; then those that
 * had to wait for one of these, in the same order (order.c). Only items whose type is on the pool. A row
 * that is written twice is refused (RG_EMISUSE), as are unique values and foreign keys that go in a
 * circle. */
int rg__plan_make(const rg__items *items, int mysql_pool, rg__plan *plan, rg_err *err);
void rg__plan_deinit(rg__plan *plan);
/* Sets rounds and levels of items: for rg__plan_make. */
int rg__items_order(const rg__items *items, rg_err *err);
int rg__item_refuse_twin(const rg__item *it, rg_err *err);
/* The row with another id; NULL when out of memory. */
rg_block *rg__row_with_id(const rg_type *t, const rg_block *row, uint64_t id, rg_err *err);
/* Runs a step's statements. RG_ECONFLICT: rows were not as they were read; then the transaction is
 * to be rolled back, and of several rows it has been, to find out which. */
int rg__step_run(const rg__items *items, const rg__ctx *ctx, rg__mysql *conn, const rg__step *step,
                 rg_err *err);
/* The same for updates and deletes with terms; the item at fault tells what was met. */
int rg__step_run_expecting(const rg__items *items, const rg__ctx *ctx, rg__mysql *conn,
                           const rg__step *step, rg_err *err);
/* Is it one statement that does all or nothing? An UPDATE of many that meets too few rows is not:
 * it has to be undone. */
bool rg__step_is_atomic(const rg__items *items, const rg__mysql *conn, const rg__step *step);

/* One item: whether it has to be told, and its event (rg__outbox_write comes later). */
struct rg__outbox;
bool rg__item_tells(const rg__item *it);
int rg__item_publish(const rg__item *it, struct rg__outbox *o, const rg__ctx *ctx, rg_err *err);
/* Does any item on the pool have to be told on a stream of events? (tell.c) */
bool rg__items_tell(const rg__items *items, int pool);
/* Writes their events in the open transaction, after their statements. rg__outbox_ready comes before
 * the transaction. */
int rg__items_publish(const rg__items *items, int pool, const rg__queue *q, rg__mysql *c,
                      const rg__ctx *ctx, rg_err *err);

/* Runs the items. On failure nothing was applied (but see ECOMMIT_UNKNOWN and, over several pools,
 * the message) and err->item names the item when it is known. On success inserted rows with
 * database ids have new `after` blocks. */
int rg__flush(rg__store *s, const rg__ctx *ctx, rg__items *items, rg_err *err);
/* Runs the items apart from each other, in few statements: each has terms, which get its outcome.
 * Items of one row keep their order, and a later one sees what an earlier one of them wrote. Fails
 * only when out of memory. After RG_OUTCOME_APPLIED `after` is the row as it was written. */
int rg__each(rg__store *s, const rg__ctx *ctx, rg__items *items, rg_err *err);
typedef struct rg__async_how {
    int durability, on_split; /* 0: as the queue is configured */
    const char *producer;     /* NULL: one of the process; else the flush is queued once under it */
} rg__async_how;
/* ---- later.c, later_due.c ---- */
/* When a flush is to be queued: at a time, or after a delay when that is 0. */
typedef struct rg__later {
    uint64_t at_ms;    /* since 1970 */
    uint64_t delay_ms;
} rg__later;
/* Puts the items aside; id (48 bytes) gets what the flush is known by. */
int rg__flush_later(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__later *when,
                    char *id, rg_err *err);
/* Those that wait, the next first: id, due_ms, index, operation, entity, entity_id, one row an
 * operation; limit 0: of all. */
int rg__later_list(const rg__queue *q, const rg__ctx *ctx, uint32_t limit, rg__result **out,
                   rg_err *err);
/* Has one never be queued ("": all of them): EINVALID when none of that id waits. *n: how many. */
int rg__later_cancel(const rg__queue *q, const rg__ctx *ctx, const char *id, uint64_t *n,
                     rg_err *err);
/* Queues what is due, in its order; what cannot be queued becomes dead letters. Others with another
 * owner are left to it for a few seconds. */
int rg__later_step(rg__store *s, uint32_t pool, const char *owner, const rg__ctx *ctx,
                   uint64_t *moved, rg_err *err);

/* Queues the items; stream_id (48 bytes) gets the id of the last entry made. `after` and `before`
 * are rebased on what the cache holds when somebody else wrote other columns meanwhile. */
int rg__flush_async(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__async_how *how,
                    char *stream_id, rg_err *err);

#endif
