/* SPDX-License-Identifier: MIT */
/* MySQL/MariaDB connections, pool, statements, batches and error classes. */
#ifndef RG_MYSQL_MYSQL_H
#define RG_MYSQL_MYSQL_H

#include <regolith/pool.h>
#include "base/block.h"
#include "base/ctx.h"
#include "row/row.h"
#include "schema/entity.h"

typedef struct rg__mysql_pool rg__mysql_pool; /* shared */
typedef struct rg__mysql rg__mysql;           /* one connection; confined while acquired */

typedef enum rg__flavour { RG__MARIADB = 1, RG__MYSQL = 2 } rg__flavour;

/* mysql_library_init once per process, before any engine thread exists. */
int rg__mysql_library(rg_err *err);
/* Per thread; safe to call often. */
void rg__mysql_thread_begin(void);
void rg__mysql_thread_end(void);

rg__mysql_pool *rg__mysql_pool_new(const rg_pool_opts *opts, rg_err *err);
void rg__mysql_pool_free(rg__mysql_pool *pool);
void rg__mysql_pool_abandon(rg__mysql_pool *pool);  /* after fork */
void rg__mysql_pool_shutdown(rg__mysql_pool *pool); /* as rg__redis_pool_shutdown */
const char *rg__mysql_pool_name(const rg__mysql_pool *pool);
/* The server's max_allowed_packet; the usual one until a connection has told. */
size_t rg__mysql_pool_max_packet(const rg__mysql_pool *pool);
const char *rg__mysql_pool_database(const rg__mysql_pool *pool);
void rg__mysql_pool_stats(rg__mysql_pool *pool, uint32_t *busy, uint32_t *idle);
void rg__mysql_pool_figures(rg__mysql_pool *pool, rg__pool_figures *out);

/* Of the server that was connected to last, as a number; 0: not known. Another one after a failover. */
uint64_t rg__mysql_identity(const rg__mysql_pool *pool);

/* ---- replicas (replica.c, position.c, track.c, timeline.c) ---- */
/* Adds one; before the pool is shared. */
int rg__mysql_pool_replica(rg__mysql_pool *pool, const rg_pool_opts *opts, rg_err *err);
uint32_t rg__mysql_pool_replicas(const rg__mysql_pool *pool);
/* lagging: passed over because it is too far behind. */
rg__mysql_pool *rg__mysql_pool_replica_at(const rg__mysql_pool *pool, uint32_t i, bool *lagging);
/* Runs fn, which only reads rows of a table, on a connection. may_lag: on a replica that has reached
 * what the timeline of ctx needs, when there is one; never when the answer fills a shared cache, nor
 * for a read that locks or is part of a write. When the replica fails, fn is called again with the
 * primary: it forgets first what it had got. type NULL: the text names other tables too. */
typedef int (*rg__read_fn)(rg__mysql *c, const rg__ctx *ctx, void *arg, rg_err *err);
int rg__mysql_read(rg__mysql_pool *pool, const rg__ctx *ctx, const rg_type *type, bool may_lag,
                   rg__read_fn fn, void *arg, rg_err *err);

/* A healthy connection with pinned session state: utf8mb4, sql_mode
 * 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,
 * NO_ENGINE_SUBSTITUTION' exactly, time_zone '+00:00', LOCAL INFILE off, CLIENT_FOUND_ROWS, no
 * multi-statements, autocommit on. Idle connections are probed when idle longer than a second. */
int rg__mysql_acquire(rg__mysql_pool *pool, const rg__ctx *ctx, rg__mysql **out, rg_err *err);
/* The connection used last, if it is idle and needs no look at the server: never waits. Else NULL. */
rg__mysql *rg__mysql_acquire_idle(rg__mysql_pool *pool);
/* Back to the pool: an open transaction is rolled back; a broken or tainted connection is closed. */
void rg__mysql_release(rg__mysql *c);
/* Marks session state as unknown (raw SQL ran): reset (mysql_reset_connection + pins) on release. */
void rg__mysql_taint(rg__mysql *c);
/* Never returned to the pool. */
void rg__mysql_poison(rg__mysql *c);
/* Ends the conversation at once, so that the server lets go what was left open; for release only then. */
void rg__mysql_hang_up(rg__mysql *c);
rg__flavour rg__mysql_flavour(const rg__mysql *c);
unsigned rg__mysql_version(const rg__mysql *c); /* 101119, 80036 */
unsigned long rg__mysql_thread_id(const rg__mysql *c);
size_t rg__mysql_max_packet(const rg__mysql *c);
bool rg__mysql_in_transaction(const rg__mysql *c);
/* The server rolled the open transaction back by itself (deadlock, snapshot conflict): everything but
 * rg__mysql_rollback is refused with EDEADLOCK, because it would be autocommitted. */
bool rg__mysql_doomed(const rg__mysql *c);
unsigned rg__mysql_warnings(const rg__mysql *c); /* warning count of the last statement */
bool rg__mysql_broken(const rg__mysql *c);
/* Not broken, of this process, and nothing waits on the socket of an idle connection: not its end. */
bool rg__mysql_alive(const rg__mysql *c);
/* KILL HARD/KILL CONNECTION by another connection of the pool: settles what an old one was doing. */
int rg__mysql_kill(rg__mysql_pool *pool, const rg__ctx *ctx, unsigned long thread_id, rg_err *err);

/* ---- errors (mysql/errclass.c): one table keyed by flavour and code ---- */
typedef struct rg__sql_class {
    unsigned number;
    uint8_t flavours; /* bits of rg__flavour */
    uint8_t cls;      /* rg_class */
    int8_t code;      /* rg_code, negative */
    uint8_t tx;       /* rg__tx_effect */
} rg__sql_class;
typedef enum rg__tx_effect { RG__TX_KEPT = 0, RG__TX_OPEN_ROLLBACK, RG__TX_GONE, RG__TX_LOST } rg__tx_effect;
const rg__sql_class *rg__sql_classify(rg__flavour f, unsigned number, const char *sqlstate);
/* Fills err from the connection's last error: code, class, errno, sqlstate, field/index parsed from
 * the server's message (1062 key name without the table; 1054, 1146, 1406, 1264, 1366, 1048 column).
 * what: a few words of context. Values in server messages are kept out (redacted). */
int rg__mysql_error(rg__mysql *c, rg_err *err, const char *what);

/* ---- transactions ---- */
int rg__mysql_begin(rg__mysql *c, const rg__ctx *ctx, rg_err *err);
typedef enum rg__isolation {
    RG__ISOLATION_DEFAULT = 0, /* the server's; nothing is sent */
    RG__READ_UNCOMMITTED,
    RG__READ_COMMITTED,
    RG__REPEATABLE_READ,
    RG__SERIALIZABLE,
    RG__SNAPSHOT /* repeatable read as of now, in which a write of what others changed fails */
} rg__isolation;
/* The same with an isolation for this transaction only; where the server allows, nothing is sent before the
 * first statement, and that in one round trip with it. EINVALID when the server lacks SNAPSHOT. When it
 * fails after something was set, the connection is tainted. */
int rg__mysql_start(rg__mysql *c, const rg__ctx *ctx, rg__isolation level, bool read_only,
                    rg_err *err);
/* name: a word of the caller's own; a savepoint of the same name is replaced. */
int rg__mysql_savepoint(rg__mysql *c, const rg__ctx *ctx, const char *name, rg_err *err);
int rg__mysql_rollback_to(rg__mysql *c, const rg__ctx *ctx, const char *name, rg_err *err);
int rg__mysql_commit(rg__mysql *c, const rg__ctx *ctx, rg_err *err); /* may be ECOMMIT_UNKNOWN */
void rg__mysql_rollback(rg__mysql *c, const rg__ctx *ctx); /* best effort; poisons when it fails */

/* ---- looking at SQL text ---- */
typedef enum rg__sql_kind {
    RG__SQL_READ = 1, /* SELECT, SHOW, EXPLAIN, ... */
    RG__SQL_WRITE,    /* INSERT, UPDATE, DELETE, REPLACE, LOAD */
    RG__SQL_DDL,      /* commits an open transaction, also when it fails */
    RG__SQL_TX,       /* BEGIN, COMMIT, SAVEPOINT, LOCK TABLES, XA, ... */
    RG__SQL_SET,
    RG__SQL_CALL,
    RG__SQL_OTHER
} rg__sql_kind;
/* By the first words, past comments and parentheses. Pure. */
rg__sql_kind rg__sql_statement_kind(const char *sql, size_t len);

/* ---- parameters and generic results ---- */
typedef enum rg__param_kind {
    RG__P_NULL, RG__P_I64, RG__P_U64, RG__P_DOUBLE, RG__P_STRING, RG__P_BYTES
} rg__param_kind;
typedef struct rg__param {
    int kind;
    union { int64_t i; uint64_t u; double d; rg__slice s; };
} rg__param;

/* How a result column is to be seen by a user; from the wire's metadata. */
typedef enum rg__cell_kind {
    RG__CELL_I64 = 1, RG__CELL_U64, RG__CELL_DOUBLE, RG__CELL_TEXT, RG__CELL_BYTES,
    RG__CELL_DECIMAL, RG__CELL_JSON, RG__CELL_TIME /* date and time text */
} rg__cell_kind;

/* A result set held in memory (owned): names, kinds, cells as text/bytes with lengths. */
typedef struct rg__result {
    uint32_t n_columns;
    char **names;
    int *kinds;          /* rg__cell_kind */
    size_t n_rows;
    rg__slice *cells;    /* n_rows * n_columns; p == NULL is SQL NULL; borrowed from the arena */
    size_t cells_cap;    /* rows that fit */
    uint64_t affected, insert_id;
    char *info;          /* "Rows matched: ..." or NULL */
    uint32_t warnings;
    struct rg__result *next; /* further sets of a procedure */
    void *arena;
} rg__result;
void rg__result_free(rg__result *r); /* the chain */
/* mysql/result.c (written by the lead; used by query.c, queue/ and run/): an empty result with those
 * columns (names copied, kinds TEXT); memory that lives as long as the result; a row appended (cells
 * copied, NULL p stays NULL), a row of C strings. NULL / RG_ENO_MEMORY when out of memory. */
rg__result *rg__result_new(const char *const *names, uint32_t n_columns);
void *rg__result_alloc(rg__result *r, size_t len);
int rg__result_add(rg__result *r, const rg__slice *cells);
int rg__result_add_strings(rg__result *r, const char *const *cells);

/* Raw SQL with ? parameters. With parameters: the binary protocol, numbers as decimal text in
 * cells. Without: text protocol. *out may be NULL when no rows are wanted. max_rows/max_bytes bound
 * the result (0: 1,000,000 rows, 256 MiB): ELIMIT. Statements that would break pins (SET NAMES,
 * sql_mode, LOAD DATA LOCAL), transactions and DDL are refused when `guarded`; what is neither a read
 * nor a write taints the connection then. */
int rg__mysql_query(rg__mysql *c, const rg__ctx *ctx, const char *sql, size_t len,
                    const rg__param *params, size_t n_params, bool guarded, rg__result **out,
                    rg_err *err);
/* A statement of the engine's own without parameters; no rows. affected may be NULL. */
int rg__mysql_exec(rg__mysql *c, const rg__ctx *ctx, const char *sql, size_t len,
                   uint64_t *affected, rg_err *err);

/* ---- rows of entities ---- */
/* Receives each row as a new block (taken by the callee). Non-zero stops with that code. */
typedef int (*rg__row_fn)(void *arg, rg_block *row);

/* SELECT all columns WHERE id IN (ids), by prepared statement (n padded to powers of two with NULL,
 * chunks of 1024), in any order; lock: adds LOCK IN SHARE MODE (heal reads) or FOR UPDATE. */
typedef enum rg__lock {
    RG__LOCK_NONE = 0,
    RG__LOCK_SHARE = 1,
    RG__LOCK_UPDATE = 2,
    RG__LOCK_NOWAIT = 4, /* with one of them: EDEADLOCK at once where it would wait */
    RG__LOCK_SKIP = 8,   /* leaves out what others have locked */
    RG__LOCK_TRY = RG__LOCK_SHARE | RG__LOCK_NOWAIT
} rg__lock;
int rg__sql_select_ids(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids,
                       size_t n, rg__lock lock, rg__row_fn fn, void *arg, rg_err *err);
/* The same in two steps, for who has something to do while the server answers (ask.c). The first sends, on an
 * idle connection whose statement is prepared, when that needs no waiting, else NULL; up to RG__ASK_ROWS ids.
 * The second takes the rows; when it fails the caller asks anew, as nothing of the first was sure. Who does
 * not want the answer any more drops it. Both end what the first has begun. */
enum { RG__ASK_ROWS = 1024 };
typedef struct rg__asked rg__asked;
rg__asked *rg__sql_ask_ids(rg__mysql_pool *pool, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids,
                           size_t n);
int rg__sql_take_ids(rg__asked *asked, const rg__ctx *ctx, rg__row_fn fn, void *arg);
void rg__sql_drop_ids(rg__asked *asked);
/* SELECT all columns (or only ids) WHERE the index's columns <=> those of the key row (a row or a
 * partial one built for the index), ordered by id; limit 0: none. Prepared. */
int rg__sql_select_index(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const rg__index *x,
                         const void *key_row, rg__lock lock, uint64_t limit, rg__row_fn fn,
                         void *arg, rg_err *err);
/* The same of up to 64 keys of a unique index, in any order. */
int rg__sql_select_keys(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const rg__index *x,
                        const void *const *key_rows, size_t n, rg__lock lock, rg__row_fn fn, void *arg,
                        rg_err *err);
/* SELECT all columns FROM table [WHERE] where (user's text with ? parameters, may hold ORDER BY; a
 * LIMIT of its own only when limit and offset are 0; GROUP BY, UNION and the like are refused with
 * EINVALID) LIMIT offset, limit (limit 0: none). */
int rg__sql_search(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where,
                   size_t len, const rg__param *params, size_t n_params, uint64_t offset,
                   uint64_t limit, rg__row_fn fn, void *arg, rg_err *err);
/* The same, and locks them. */
int rg__sql_search_locked(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where,
                          size_t len, const rg__param *params, size_t n_params, uint64_t offset,
                          uint64_t limit, rg__lock lock, rg__row_fn fn, void *arg, rg_err *err);
/* The same, ids only (*ids: rg__free) / COUNT(*) only (ORDER BY is left out, LIMIT refused). */
int rg__sql_search_ids(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where,
                       size_t len, const rg__param *params, size_t n_params, uint64_t offset,
                       uint64_t limit, uint64_t **ids, size_t *n, rg_err *err);
int rg__sql_count(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where, size_t len,
                  const rg__param *params, size_t n_params, uint64_t *count, rg_err *err);

/* ---- writing: one call, as few statements as possible; rows are packed rows of type t ---- */
/* How many statements these rows take; a single one may do without BEGIN. */
size_t rg__sql_insert_statements(const rg__mysql *c, const rg_type *t, const void *const *rows,
                                 size_t n);
size_t rg__sql_update_statements(const rg__mysql *c, const rg_type *t, const uint8_t *mask,
                                 const void *const *rows, size_t n);
size_t rg__sql_delete_statements(size_t n);
/* Multi-row INSERT (prepared for one row, literal text beyond, chunked below half of
 * max_allowed_packet and 1,000 rows). insert_ids (n entries, or NULL) gets each row's id: its own, or
 * for a row with id 0 the AUTO_INCREMENT value that the database gave. */
int rg__sql_insert(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const void *const *rows,
                   size_t n, uint64_t *insert_ids, rg_err *err);
/* UPDATE of the columns in mask (n_columns bytes, never the id) for all rows; with expected != NULL
 * each update requires the version column to equal expected[i]. One prepared UPDATE for n == 1, the
 * JSON_TABLE form of cas.md for more (chunks of up to 1,000 rows or a quarter of the packet).
 * *matched counts rows found (CLIENT_FOUND_ROWS). Rows must have distinct ids. */
int rg__sql_update(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const uint8_t *mask,
                   const void *const *rows, const uint64_t *expected, size_t n, uint64_t *matched,
                   rg_err *err);
/* DELETE ... WHERE id IN (...), or (id, version) pairs with expected. */
int rg__sql_delete(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids,
                   const uint64_t *expected, size_t n, uint64_t *matched, rg_err *err);
/* Appends a literal of a column's value, by type: digits, 'escaped text' (single quotes only),
 * X'hex' for bytes, NULL. Used for statement text; never with values from elsewhere. */
void rg__sql_literal(rg__mysql *c, rg__buf *out, const rg_type *t, const void *row, uint32_t col);

/* ---- housekeeping tables of the engine, made on first use in the pool's database ---- */
/* _regolith_ids(name PK, next) - hands out blocks: reserves n ids for `name`, first in *first. When
 * the row is new, starts after MAX(id) of the table. Own short transaction: EMISUSE inside one. ELIMIT
 * when ids would pass 2^53. */
int rg__sql_reserve_ids(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, uint64_t n,
                        uint64_t *first, rg_err *err);

#endif
