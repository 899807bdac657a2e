/* SPDX-License-Identifier: MIT */
/* The consumer of queued flushes and the administration of queues. A queue belongs to a MySQL pool
 * and bears its name. */
#ifndef REGOLITH_QUEUE_H
#define REGOLITH_QUEUE_H

#ifndef __RG_CDEF__
#include <regolith/op.h>
#endif

typedef struct rg_consumer rg_consumer;

/* What a consumer does when a temporary error stops a batch. */
typedef enum rg_on_error { RG_ON_ERROR_WAIT = 0, RG_ON_ERROR_STOP } rg_on_error;

typedef struct rg_consumer_opts {
    uint32_t size;          /* sizeof(rg_consumer_opts) */
    const char *queue;      /* MySQL pool name; NULL: "default" */
    uint32_t max_batch;     /* operations in one transaction [256] */
    uint32_t max_hold_ms;   /* longest transaction aimed at [50] */
    int32_t on_error;       /* rg_on_error: STOP returns the error, WAIT backs off and retries */
    uint32_t max_backoff_ms; /* [5000] */
    uint32_t max_tries;     /* retries of deadlocks and the like in one step [5] */
    int32_t lease;          /* rg_lease_use */
    uint32_t lease_ms;      /* after so long without a sign of life others take over [4000] */
    uint32_t parallel;      /* partitions applied at the same time, by threads of the step [1] */
    int32_t max_deaths;     /* of processes that apply an entry, until it is a dead letter [3];
                             * negative: any number */
} rg_consumer_opts;

/* Whether consumers share a queue's partitions by leases. Without, each works on all of them, which
 * is as right: the ledger lets one at a time. */
typedef enum rg_lease_use {
    RG_LEASE_SEVERAL = 0, /* when there are several partitions */
    RG_LEASE_ALWAYS,
    RG_LEASE_NEVER
} rg_lease_use;

RG_API rg_consumer *rg_consumer_new(rg_engine *engine, const rg_consumer_opts *opts, rg_err *err);
RG_API void rg_consumer_free(rg_consumer *c);
/* One batch: waits up to max_wait_ms for entries, applies them in one transaction with the ledger,
 * tells the caches, trims. rg_op_number: operations applied or dead-lettered. Temporary errors are
 * returned as errors (the caller waits and steps again); nothing is lost by that. A bad operation
 * becomes a dead letter, and the step goes on. */
RG_API rg_op *rg_op_consume(rg_consumer *c, uint32_t max_wait_ms, rg_err *err);
/* Gives its leases back at once, so that other consumers need not wait for their end. */
RG_API rg_op *rg_op_consumer_leave(rg_consumer *c, rg_err *err);
/* Numbers of the dead letters that a DONE consume has written, as rg_op_id gives them; how many. */
RG_API uint32_t rg_op_letters(const rg_op *op);
/* Totals since rg_consumer_new. */
typedef struct rg_consumer_stats {
    double applied, dead, batches, retries;
    double lag; /* entries still in the stream after the last step */
    double held, partitions; /* partitions worked on, of how many */
} rg_consumer_stats;
RG_API void rg_consumer_stats_get(const rg_consumer *c, rg_consumer_stats *out);

/* One row a queue: queue, stream, length, oldest_ms (age of the oldest entry), ledger (position),
 * applied (operations ever), dead. */
RG_API rg_op *rg_op_queue_status(rg_engine *engine, rg_err *err);
/* What is unfit about the Redis of each queue, one row each: queue, fault (persistence, or lost: Redis came
 * back without flushes that it had acknowledged to this process), text. */
RG_API rg_op *rg_op_queue_warnings(rg_engine *engine, rg_err *err);
/* Accepts that entries which MySQL has not seen are gone (GAP): the ledger goes on behind them.
 * rg_op_number: partitions concerned. */
RG_API rg_op *rg_op_accept_gap(rg_engine *engine, const char *queue, rg_err *err);
/* Has everything from an entry ("ms-seq") on applied again, as far as it is kept (rg_queue_opts.
 * retain_ms): for a database that was restored. GAP when it is not. rg_op_number: partitions
 * concerned. */
RG_API rg_op *rg_op_queue_replay(rg_engine *engine, const char *queue, const char *from, rg_err *err);
/* Delayed flushes that wait for their time, the next first, one row an operation: id (of the flush),
 * due_ms (since 1970), index, operation, entity, entity_id. limit: flushes, 0: all. */
RG_API rg_op *rg_op_later_list(rg_engine *engine, const char *queue, uint32_t limit, rg_err *err);
/* Has a delayed flush never be queued ("": all of them); rg_op_number: how many. EINVALID when no such
 * one waits. */
RG_API rg_op *rg_op_later_cancel(rg_engine *engine, const char *queue, const char *id, rg_err *err);
/* Pauses a queue for all its consumers, now and later, or resumes it. */
RG_API rg_op *rg_op_queue_pause(rg_engine *engine, const char *queue, int paused, rg_err *err);
/* Dead letters, oldest first: number, id, entity, entity_id, operation, errno, sqlstate, error, tries, at,
 * state. limit 0: 100. */
RG_API rg_op *rg_op_dead_list(rg_engine *engine, const char *queue, uint32_t limit, rg_err *err);
/* One dead letter with its values: the columns of dead_list in one row, then a second set: column,
 * value (sensitive values are not shown). */
RG_API rg_op *rg_op_dead_show(rg_engine *engine, const char *queue, double number, rg_err *err);
/* Applies it again now (0: all of them, in order); what fails stays. ECONFLICT when an earlier letter
 * of the same row waits. rg_op_number: how many left. */
RG_API rg_op *rg_op_dead_retry(rg_engine *engine, const char *queue, double number, rg_err *err);
/* Changes it before it is applied again: write RG_INSERT, RG_UPDATE, RG_DELETE, or 0 for as it is; b:
 * holds the new values (taken; the others stay), or NULL; force: an update or deletion applies to
 * whatever version the row has now. EINVALID names the field. */
RG_API rg_op *rg_op_dead_edit(rg_engine *engine, const char *queue, double number, int write,
                              rg_builder *b, int force, rg_err *err);
/* Drops it (0: all) and mends the cache. */
RG_API rg_op *rg_op_dead_drop(rg_engine *engine, const char *queue, double number, rg_err *err);
/* DONE when everything queued before this call has been applied, or ETIMEOUT. */
RG_API rg_op *rg_op_drained(rg_engine *engine, const char *queue, rg_err *err);

/* ---- events ---- */
/* Moves events from the outbox of a MySQL pool to their streams; every consume does it too.
 * rg_op_number: how many. */
RG_API rg_op *rg_op_relay(rg_engine *engine, const char *queue, rg_err *err);
/* Seconds of a clock that only goes forward. Pure. */
RG_API double rg_clock_s(void);
/* One command on the Redis pool of a queue: its words are the operation's string parameters. The
 * result is a table of kind (a array: value is the number of parts that follow, s text, i integer, n
 * nil, e error) and value, depth first. */
RG_API rg_op *rg_op_redis(rg_engine *engine, const char *queue, rg_err *err);

#endif
