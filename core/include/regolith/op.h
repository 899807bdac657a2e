/* SPDX-License-Identifier: MIT */
/* Operations: straight-line work over own inputs and outputs, run on the caller's thread or on one
 * of the engine's workers.
 *
 * Life: NEW (inputs are filled in) -> QUEUED -> RUNNING -> DONE (results are taken) -> freed.
 * rg_op_free may be called in any state: a queued or running one is abandoned and freed by the
 * worker. Results are borrowed from the operation until it is freed, unless stated. Confined to one
 * thread but for the hand-over to the worker. */
#ifndef REGOLITH_OP_H
#define REGOLITH_OP_H

#ifndef __RG_CDEF__
#include <regolith/session.h>
#endif

typedef struct rg_op rg_op;

typedef enum rg_op_phase { RG_OP_NEW = 0, RG_OP_QUEUED, RG_OP_RUNNING, RG_OP_DONE } rg_op_phase;

/* ---- running ---- */
/* Runs it here and now; 0 or a negative code (details in rg_op_error). timeout_ms 0: the engine's
 * default, bounded by the pools'. */
RG_API int rg_op_run(rg_op *op, uint32_t timeout_ms);
RG_API int rg_op_phase_of(const rg_op *op);
RG_API int rg_op_code(const rg_op *op); /* of a DONE operation: 0 or negative */
RG_API const rg_err *rg_op_error(const rg_op *op);
RG_API void rg_op_free(rg_op *op);

/* The operation is one of this session's: replicas may answer it, and what it writes is known to the
 * session afterwards. Before it runs. */
RG_API void rg_op_of_session(rg_op *op, rg_session *s);

/* A notifier belongs to one Lua state. Completions go to its list; one byte is written to its
 * descriptor when the list was empty. path: an abstract unix socket that one client connects to
 * (nginx cosockets: "unix:" .. path cannot be abstract, so it is a path in a private folder); fd: for
 * hosts that poll descriptors themselves. */
typedef struct rg_notifier rg_notifier;
RG_API rg_notifier *rg_notifier_new(rg_engine *engine, int listen_socket, rg_err *err);
RG_API void rg_notifier_close(rg_notifier *n); /* nothing comes any more; who reads sees the end */
RG_API void rg_notifier_free(rg_notifier *n); /* operations in flight are abandoned */
RG_API const char *rg_notifier_path(const rg_notifier *n); /* when listening */
RG_API int rg_notifier_fd(const rg_notifier *n);           /* read end, when not listening */
/* Hands the operation to a worker; ELIMIT when too many wait. tag comes back with the completion. */
RG_API int rg_op_submit(rg_op *op, rg_notifier *n, uint32_t tag, uint32_t timeout_ms, rg_err *err);
/* Tags of completed operations, oldest first: how many were written (at most cap). Call until 0. */
RG_API int rg_notifier_drain(rg_notifier *n, uint32_t *tags, uint32_t cap);
RG_API uint32_t rg_notifier_in_flight(const rg_notifier *n);

/* ---- values for parameters ---- */
RG_API int rg_op_param_null(rg_op *op, rg_err *err);
RG_API int rg_op_param_number(rg_op *op, double v, rg_err *err); /* integral ones travel as integers */
RG_API int rg_op_param_i64(rg_op *op, int64_t v, rg_err *err);
RG_API int rg_op_param_u64(rg_op *op, uint64_t v, rg_err *err);
RG_API int rg_op_param_string(rg_op *op, const char *p, size_t len, rg_err *err);

/* ---- reading entities ---- */
/* Whom a read by id asks. */
enum {
    RG_OP_GET_CACHED = 0, /* process cache, Redis, MySQL */
    RG_OP_GET_FRESH,      /* MySQL */
    RG_OP_GET_STRICT      /* Redis, MySQL: never anything that a commit has replaced */
};
/* Rows by id, in order of rg_op_add_id; duplicates are fine. */
RG_API rg_op *rg_op_get(rg_engine *engine, uint32_t type, int whom, rg_err *err);
RG_API int rg_op_add_id(rg_op *op, double id, rg_err *err);
/* Asks the servers now for what a get wants, for a caller that has something else to do until rg_op_run, which
 * takes the answers and does what is left; with nothing after it but that, or rg_op_free. Never waits. 1, or 0
 * when nothing was asked: rg_op_run does everything then. */
RG_API int rg_op_ask(rg_op *op, uint32_t timeout_ms);
/* Rows by the values of an index: key holds the index's columns (copied). Unique ones give at most
 * one row; ordered by id. Answers from caches where the index is cached. */
RG_API rg_op *rg_op_lookup(rg_engine *engine, uint32_t type, uint32_t index, rg_builder *key,
                           rg_err *err);
/* Rows by a WHERE text with ? parameters; never from a cache. mode 0 rows, 1 ids, 2 count.
 * limit 0: all. */
RG_API rg_op *rg_op_search(rg_engine *engine, uint32_t type, const char *where, size_t len, int mode,
                           double offset, double limit, rg_err *err);
/* Shards: the same operation also on another type of the same columns, side by side. A search's rows
 * are put in order by rg_op_order; rows of a lookup are ordered by id. Before it runs. */
RG_API int rg_op_also(rg_op *op, uint32_t type, rg_err *err);
/* The next column that merged rows are ordered by; within it NULL comes first, or last with desc. */
RG_API int rg_op_order(rg_op *op, uint32_t column, int desc, rg_err *err);
/* rg_op_get: an id of one of the shards (type, or one that was added). */
RG_API int rg_op_add_id_of(rg_op *op, uint32_t type, double id, rg_err *err);
/* Has a get, a lookup or a search of rows lock what it reads, inside a transaction: 1 for share, 2 for
 * update; + 4 fails instead of waiting, + 8 leaves out what others have locked. */
RG_API int rg_op_lock_rows(rg_op *op, int lock, rg_err *err);
/* Results: number of rows; row i pinned in the session (RG_GET_HIT or RG_GET_ABSENT). */
RG_API uint32_t rg_op_rows(const rg_op *op);
RG_API int rg_op_row(rg_op *op, uint32_t i, rg_session *s, rg_view *out);
RG_API double rg_op_id(const rg_op *op, uint32_t i);    /* id i of an ids search */
RG_API double rg_op_number(const rg_op *op);            /* count, affected rows, ... by operation */

/* ---- writing entities ---- */
typedef enum rg_flush_mode {
    RG_FLUSH_ALL = 0, /* all or nothing, in one transaction per MySQL pool */
    RG_FLUSH_ASYNC,   /* one entry in the queue of each pool */
    RG_FLUSH_EACH     /* each item has its own outcome */
} rg_flush_mode;
/* A flush of what the items say. Items keep their order of addition as their number. */
RG_API rg_op *rg_op_flush(rg_engine *engine, rg_session *s, int mode, rg_err *err);
/* How an async flush is queued: rg_durability, rg_on_split; 0: as the queue is configured. */
/* The async flush is queued at a time (ms since 1970), or, when that is 0, after a delay. */
RG_API void rg_op_flush_later(rg_op *op, double at_ms, double delay_ms);
RG_API void rg_op_flush_how(rg_op *op, int durability, int on_split);
/* Adds an item; the builder's values are taken as the new row (insert, update; checked now), the
 * session's row in slot is what it was (update, delete). The number of the item, -1000 when an
 * update changes nothing (no item), or a negative code. */
RG_API int rg_op_flush_add(rg_op *op, int write, uint32_t type, rg_builder *b, int64_t slot,
                           rg_err *err);
/* Adds an update that sets one column to a whole number if another one (or the same) holds what it did, which is
 * `expected`; for RG_FLUSH_EACH. The number of the item; -1001, and nothing is added, where there is more to it:
 * columns of other kinds, NULL, a value that the column does not take, the value that it has, types with a version
 * or with times of updates. */
RG_API int rg_op_flush_swap(rg_op *op, uint32_t type, int64_t slot, uint32_t col, double v, uint32_t expect,
                            double expected, rg_err *err);
/* What has to hold for the item that is added next: the values set in `expected` (taken now); the
 * values of the session's row in the given columns; with RG_EXPECT_CHANGES also those of the columns
 * that it changes, as they were read. Such an update is an item even when it changes nothing: then
 * the row is compared only. */
enum { RG_EXPECT_CHANGES = 1 };
RG_API int rg_op_flush_expect(rg_op *op, uint32_t type, rg_builder *expected, const uint32_t *cols,
                              uint32_t n, int flags, rg_err *err);
/* EACH: the update that is added next makes the column what an SQL expression says, and is done only
 * where guard (len 0: none) holds. The parameters added since the last call are theirs. */
RG_API int rg_op_flush_express(rg_op *op, uint32_t type, uint32_t col, const char *sql, size_t len,
                               const char *guard, size_t guard_len, rg_err *err);
/* Columns that the update that is added next writes even when they keep their values: it comes after
 * another one of the same row in the same operation. */
RG_API int rg_op_flush_assign(rg_op *op, uint32_t type, const uint32_t *cols, uint32_t n, rg_err *err);
typedef enum rg_outcome {
    RG_OUTCOME_NONE = 0,
    RG_OUTCOME_APPLIED,
    RG_OUTCOME_UNCHANGED, /* all as expected, and nothing to change */
    RG_OUTCOME_CONFLICT,  /* the row is not as expected; nothing was written */
    RG_OUTCOME_MISSING,   /* there is no such row */
    RG_OUTCOME_UNKNOWN,   /* the connection was lost; it may have been done */
    RG_OUTCOME_FAILED     /* rg_op_item_error says why */
} rg_outcome;
RG_API int rg_op_outcome(const rg_op *op, uint32_t item);
/* 1 when the server has made the row, which was then read: other columns may have changed as well. */
RG_API int rg_op_item_computed(const rg_op *op, uint32_t item);
/* What most updates come to, in one call: after APPLIED with the values of the item, rg_op_flush_row and
 * rg_op_flush_changed. Negative for anything else, of which nothing is taken. */
RG_API int rg_op_take_update(rg_op *op, uint32_t item, rg_session *s, rg_view *out, uint32_t *cols,
                             uint32_t cap);
/* CONFLICT: the row as it is (borrowed from the operation), 1, or 0 when it is not known; and where
 * it is not as expected. */
RG_API int rg_op_item_current(const rg_op *op, uint32_t item, rg_view *out);
/* Makes that row the one that the session holds for the item: 1, or 0 when there is none. */
RG_API int rg_op_item_adopt(rg_op *op, uint32_t item, rg_session *s);
RG_API int rg_op_item_differs(const rg_op *op, uint32_t item, uint32_t *cols, uint32_t cap);
RG_API const rg_err *rg_op_item_error(const rg_op *op, uint32_t item);
/* After success: the row as it is now, pinned (inserts: a new slot, updates: the same slot). */
RG_API int rg_op_flush_row(rg_op *op, uint32_t item, rg_session *s, rg_view *out);
/* Names of the columns that an update item changes: column numbers into cols, how many. */
RG_API int rg_op_flush_changed(const rg_op *op, uint32_t item, uint32_t *cols, uint32_t cap);
/* The stream id given to the queued flush ("ms-seq"), NULL when none. */
RG_API const char *rg_op_stream_id(const rg_op *op);
/* A clock that only goes forward, and letting time pass. */
RG_API double rg_monotonic_ms(void);
RG_API rg_op *rg_op_pause(rg_engine *engine, double ms, rg_err *err);
/* Reserves n ids (0: a block) so that rg_engine_next_id has some. */
RG_API rg_op *rg_op_reserve(rg_engine *engine, uint32_t type, double n, rg_err *err);

/* ---- raw SQL ---- */
/* A statement or CALL with ? parameters (rg_op_param_*) on a pool's connection. */
RG_API rg_op *rg_op_query(rg_engine *engine, const char *pool, const char *sql, size_t len,
                          rg_err *err);
/* It writes tables of the binding's own, which are no entity's: no cache need mind it. */
RG_API void rg_op_query_beside(rg_op *op);
/* Borrows a connection (number of the lease in rg_op_number); queries on it; gives it back. */
typedef struct rg_lease rg_lease;
RG_API rg_op *rg_op_borrow(rg_engine *engine, const char *pool, rg_err *err);
RG_API rg_lease *rg_op_lease(rg_op *op); /* takes it from a DONE borrow; once */
RG_API rg_op *rg_op_lease_query(rg_lease *lease, const char *sql, size_t len, rg_err *err);
/* Rolls back what is open, resets the session state and gives the connection back to its pool. */
RG_API rg_op *rg_op_lease_return(rg_lease *lease, rg_err *err);
/* 0 when the connection is lost, as far as can be seen without asking the server; 1 otherwise, also
 * while a statement runs. Never waits. */
RG_API int rg_lease_alive(rg_lease *lease);
/* Drops the handle; never waits: a connection that was not returned is closed (collector's path). */
RG_API void rg_lease_free(rg_lease *lease);

/* ---- tables: results of raw SQL and of administration ---- */
typedef enum rg_cell { RG_CELL_NULL = 0, RG_CELL_I64, RG_CELL_U64, RG_CELL_DOUBLE, RG_CELL_TEXT,
                       RG_CELL_BYTES, RG_CELL_DECIMAL, RG_CELL_JSON, RG_CELL_TIME } rg_cell;
/* Result sets in order; sets without columns (plain statements) count too. */
RG_API uint32_t rg_op_sets(const rg_op *op);
RG_API uint32_t rg_op_set_rows(const rg_op *op, uint32_t set);
RG_API uint32_t rg_op_set_columns(const rg_op *op, uint32_t set);
RG_API const char *rg_op_column_name(const rg_op *op, uint32_t set, uint32_t col);
/* Kind of the cell; numbers as their text; *p is borrowed. */
RG_API int rg_op_cell(const rg_op *op, uint32_t set, uint32_t row, uint32_t col, const char **p,
                      size_t *len);
RG_API double rg_op_affected(const rg_op *op, uint32_t set);
RG_API double rg_op_insert_id(const rg_op *op, uint32_t set);

/* ---- administration ---- */
/* Connects every pool once (health check). Fails with the first fault, naming the pool. */
RG_API rg_op *rg_op_connect(rg_engine *engine, rg_err *err);
/* Health of each pool, one row: kind, name, ok (0/1), busy, idle, error. Never fails as a whole. */
RG_API rg_op *rg_op_health(rg_engine *engine, rg_err *err);
/* Differences between the types and the live databases, one row each: pool, table, kind, safe
 * (0/1), sql, reason. */
RG_API rg_op *rg_op_schema_diff(rg_engine *engine, rg_err *err);
/* The same of one pool. */
RG_API rg_op *rg_op_schema_diff_of(rg_engine *engine, const char *pool, rg_err *err);
/* Runs one statement of a diff on its pool. */
RG_API rg_op *rg_op_schema_apply(rg_engine *engine, const char *pool, const char *sql, size_t len,
                                 rg_err *err);
/* Drops cached rows and lookups: of ids (rg_op_add_id), or of the whole type when none was added.
 * rg_op_number: keys dropped. */
RG_API rg_op *rg_op_invalidate(rg_engine *engine, uint32_t type, rg_err *err);

/* Compares what the process cache and Redis say of rows (rg_op_add_id, at most 256) and of the cached
 * lists they are in with what MySQL holds. One row of result for each difference that stood for older_ms:
 * entity, id, tier (process, redis), what (row, or an index), problem. rg_op_number: answers compared. */
RG_API rg_op *rg_op_audit(rg_engine *engine, uint32_t type, uint32_t older_ms, rg_err *err);
/* Ids of rows that Redis holds entries of, a page of a scan: rg_op_id, rg_op_number of them, and the next
 * cursor as the only cell of the result; "0" begins and ends. */
RG_API rg_op *rg_op_audit_scan(rg_engine *engine, uint32_t type, const char *cursor, rg_err *err);

/* ---- query log ---- */
typedef struct rg_log_event {
    int32_t source;      /* 1 mysql, 2 redis, 4 process cache */
    const char *op;      /* borrowed from the operation */
    const char *pool;
    const char *text;
    double started;      /* seconds since 1970 */
    double duration;     /* seconds */
    double rows;         /* -1: not known */
    const char *error;   /* or NULL */
} rg_log_event;
/* Event i of the operation, 1, or 0 at the end. Only collected when the engine's log_mask asks. */
RG_API int rg_op_event(const rg_op *op, uint32_t i, rg_log_event *out);
RG_API void rg_engine_set_log(rg_engine *engine, int mask, int values);
/* Events of rg_session_get and rg_session_peek since the last call, moved into a DONE operation
 * (free it), or NULL. */
RG_API rg_op *rg_session_events(rg_session *s);

#endif
