/* SPDX-License-Identifier: MIT */
/* The inside of a pool and of a connection, for the files of this folder only: state, calls with a
 * deadline, cached statements. */
#ifndef RG_MYSQL_CONN_H
#define RG_MYSQL_CONN_H

#include <mysql.h>
#include <stdatomic.h>
#include <sys/types.h>
#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/thread.h"
#include "mysql/cas.h"
#include "mysql/mysql.h"

/* MariaDB's client library calls a function of ours wherever it would wait for a plain socket, so a
 * deadline needs no second thread (wait.c). Oracle's has nothing like it: there the watchdog shuts
 * the socket down. RG_MYSQL_WATCHDOG tries that way with MariaDB's library, too. */
#ifdef MARIADB_PACKAGE_VERSION
#define RG__CLIENT_MARIADB 1
typedef my_bool rg__flag;
#define RG__SOCKET_OF(my) ((my)->net.pvio) /* NULL: closed */
#else
#define RG__CLIENT_MARIADB 0
typedef bool rg__flag;
#define RG__SOCKET_OF(my) ((my)->net.vio)
#endif
#if RG__CLIENT_MARIADB && !defined(RG_MYSQL_WATCHDOG)
#define RG__WAIT_HOOK 1
#else
#define RG__WAIT_HOOK 0
#endif

/* Numbers of the client library that are acted on by name. */
enum { RG__CR_GONE = 2006, RG__CR_LOST = 2013, RG__CR_TOO_LARGE = 2020 };

/* What the connection knows of its transaction; changed by rg__call_end, and where one is due (due.h). */
typedef enum rg__tx_state {
    RG__TXS_NONE = 0,      /* autocommit */
    RG__TXS_OPEN,          /* BEGIN was answered, or is due */
    RG__TXS_MUST_ROLLBACK, /* the server undid a statement only; ROLLBACK before any retry */
    RG__TXS_DOOMED         /* the server rolled all back and would autocommit what follows */
} rg__tx_state;

typedef struct rg__stmt rg__stmt;

/* Tables written since the server last told a position (track.c). */
enum { RG__WROTE = 8 };
typedef struct rg__wrote {
    const rg_type *types[RG__WROTE];
    uint32_t n;
    bool any; /* others too */
} rg__wrote;

/* One exchange with the server, which may be several calls of the client library. */
typedef struct rg__call {
    const rg__ctx *ctx;
    const char *what;   /* "inserting": a few words for messages; static */
    const char *op;     /* "INSERT": for the query log; static */
    const rg_type *type; /* written by it; NULL: not known */
    bool write;         /* changes data: lost in autocommit means outcome unknown */
    bool commit;        /* COMMIT itself */
    bool rollback;      /* allowed in a doomed transaction */
    size_t bytes;       /* sent, about: tells a packet too large from a server gone */
    int64_t started_us; /* set by rg__call_begin */
    int64_t rows;       /* for the query log; -1 unknown */
    bool autocommit;    /* set by rg__call_begin: no transaction was open */
} rg__call;

/* One whose answer is not read yet. */
typedef struct rg__ahead {
    rg__call call;
    rg__stmt *s;
    const rg_type *type;
} rg__ahead;

struct rg__mysql {
    MYSQL *my; /* NULL before connect */
    rg__mysql_pool *pool;
    rg__node node; /* in pool->idle or pool->busy, under its lock */
    int fd;        /* of the socket; -1: none */
    pid_t pid;     /* process that connected */
    rg__flavour flavour;
    unsigned version;
    size_t max_packet; /* @@max_allowed_packet */
    uint64_t id_step;  /* @@auto_increment_increment */
    char home[260];    /* its database, as the server spells it */
    bool json_table;   /* the server knows JSON_TABLE */
    bool pipelines;    /* a statement may be sent before the answer to another one is read */
    rg__tx_state tx;
    const char *due[2]; /* what has to be sent before that statement */
    unsigned n_due;
    bool broken;       /* nothing more may be sent */
    bool tainted;      /* session state unknown */
    bool poisoned;     /* to be closed on release */
    bool extra;        /* not of the pool's count */
    bool reserved;     /* extra, and of the pool's count of reserved ones */
    unsigned warnings; /* of the last statement */
    int64_t idle_since_ms;
    int64_t deadline_ms; /* of the call in progress */
    bool late;           /* rg__call_overdue cut it */
    const atomic_bool *cancelled; /* of the call in progress: a read that nobody waits for; or NULL */
    bool tls;            /* asked for, or there */
    bool watched;        /* the watchdog has it */
    int watch_fd;        /* by this descriptor of its own; -1: by fd */
    rg__watch watch;
    rg__map *stmts;    /* key -> rg__stmt */
    rg__node stmt_lru; /* head: used last */
    bool tracks;       /* a primary's: answers tell the position of what was written */
    rg__wrote wrote;   /* a primary's with replicas */
    rg__buf position;  /* a replica's: where it was last known to be */
    uint64_t ledger_ms, ledger_seq; /* and up to where the queue had been applied there */
    rg__ahead ahead[RG__CAS_AHEAD]; /* whose answers are not read yet, in order (cas_ahead.c) */
    unsigned n_ahead;
    int64_t answered_us; /* when the last answer to one of them was read */
    rg__buf text;      /* scratch of statement text; confined like the connection */
    rg__buf key;       /* scratch of statement keys */
};

/* ---- calls ---- */

/* When a call ends at the latest that begins now: its context's deadline, or the pool's time-out. */
int64_t rg__call_deadline(const rg__mysql *c, const rg__call *call, int64_t now_ms);
/* Arms the deadline. Refuses on a broken connection, in a doomed transaction, past the deadline. */
int rg__call_begin(rg__mysql *c, rg__call *call, rg_err *err);
/* Ends what begin began: disarms, notes the transaction state, counts, traces. code is what the
 * work between returned, with *err filled by rg__call_fail; text is the statement as it may be
 * shown. */
int rg__call_end(rg__mysql *c, rg__call *call, int code, const char *text, size_t len, rg_err *err);
/* Counts and logs an exchange that has ended; part of rg__call_end. */
void rg__call_tell(const rg__mysql *c, const rg__call *call, int code, const char *text, size_t len,
                   const rg_err *err);
/* Turns the last error of the connection (st NULL) or of a statement into *err. Between begin and
 * end. Returns the code. */
int rg__call_fail(rg__mysql *c, const rg__call *call, MYSQL_STMT *st, rg_err *err);
/* True when the deadline of the call in progress has passed (checked where data comes without a
 * wait); makes later calls of the client library fail. */
bool rg__call_overdue(rg__mysql *c);
/* RG_ELIMIT when bytes cannot fit the server's packet; nothing was sent then. */
int rg__call_fits(const rg__mysql *c, size_t bytes, const char *what, rg_err *err);

/* Around client library calls outside of an rg__call: the deadline of the calls until end, and
 * whether it passed. One call a thread at a time. */
void rg__wait_begin(rg__mysql *c, int64_t deadline_ms);
bool rg__wait_end(rg__mysql *c);
bool rg__wait_fired(const rg__mysql *c); /* before end, after a call has failed */
void rg__wait_install(MYSQL *my);        /* before connect */

/* ---- connections (conn.c) ---- */
rg__mysql *rg__conn_open(rg__mysql_pool *pool, const rg__ctx *ctx, rg_err *err);
/* Closes and frees; a connection of another process loses its descriptor without a word. */
void rg__conn_close(rg__mysql *c);
/* The socket has neither data nor an end waiting; costs one poll. */
bool rg__conn_quiet(const rg__mysql *c);
int rg__conn_ping(rg__mysql *c, const rg__ctx *ctx);
/* On the connection's thread, after a failure: the library may have closed the socket by itself. */
void rg__conn_forget_closed(rg__mysql *c);
/* Shuts the socket down: whoever waits on it returns. */
void rg__conn_cut(rg__mysql *c);
/* Session state as after connect. */
int rg__conn_reset(rg__mysql *c, const rg__ctx *ctx, rg_err *err);
/* Replaces the inherited descriptor by one that leads nowhere. */
void rg__conn_abandon(rg__mysql *c);
/* Stops what the thread of the server does, by an idle connection or a new one; does not wait long.
 */
void rg__pool_stop_statement(rg__mysql_pool *pool, unsigned long thread_id);
/* What the pool's options say, owned by the pool. */
const rg_pool_opts *rg__pool_opts(const rg__mysql_pool *pool);

/* ---- positions of what is written (track.c) ---- */
/* Learns which server it is; without an answer nothing changes. Within a wait. */
void rg__conn_identify(rg__mysql *c);
/* Has the server tell them, when the pool has replicas. */
void rg__track_start(rg__mysql *c);
/* After each call, when the transaction's state is known. */
void rg__track_end(rg__mysql *c, const rg__call *call, int code);

/* ---- errors (error.c) ---- */
/* Builds *err from a server's or client library's error. sqlstate and text may be NULL. */
int rg__sql_fail(rg__flavour f, unsigned number, const char *sqlstate, const char *text,
                 const char *what, rg_err *err);
/* Names the entity, and its field instead of the SQL column. Returns err->code. */
int rg__sql_fail_entity(rg_err *err, const rg_type *t);

/* ---- cached prepared statements (stmt.c) ---- */
struct rg__stmt {
    rg__node lru;
    MYSQL_STMT *st;
    char *key;
    size_t key_len;
    char *sql;
    size_t sql_len;
    unsigned n_params, n_columns;
    MYSQL_BIND *params;     /* n_params; zeroed at first */
    unsigned long *lengths; /* n_params; params[i].length points here */
    rg__flag *nulls;        /* n_params; params[i].is_null points here */
    bool params_bound;      /* set false when a pointer or type in params changed */
    MYSQL_BIND *results;    /* the user's, or NULL; bound again after each prepare */
    void *extra;            /* the user's: buffers behind params and results */
    void (*extra_free)(void *);
};
/* The key of a statement of ours about a type, in the connection's key buffer: finds it again
 * without writing its text. what: which statement; number: whatever else its text depends on; mask
 * (NULL: none): the columns it names. */
rg__buf *rg__stmt_key(rg__mysql *c, const rg_type *t, char what, uint32_t number,
                      const uint8_t *mask);
/* The cached statement of that key, or NULL. */
rg__stmt *rg__stmt_find(rg__mysql *c, const void *key, size_t len);
/* Prepares and caches; within a call. Evicts the one used longest ago beyond the pool's bound. */
int rg__stmt_new(rg__mysql *c, const rg__call *call, const void *key, size_t key_len,
                 const char *sql, size_t len, rg__stmt **out, rg_err *err);
/* Binds what is not bound and executes; prepares once more when the server forgot the statement. */
int rg__stmt_run(rg__mysql *c, const rg__call *call, rg__stmt *s, rg_err *err);
/* After a failure: the server does not know the statement, or not as it was; nothing was executed. */
bool rg__stmt_forgotten(MYSQL_STMT *st);
int rg__stmt_bind_results(rg__mysql *c, const rg__call *call, rg__stmt *s, rg_err *err);
/* Reads the result to its end, so that the connection can be used again. */
void rg__stmt_drain(rg__mysql *c, rg__stmt *s);
void rg__stmt_drop(rg__mysql *c, rg__stmt *s);
void rg__stmt_clear(rg__mysql *c);

/* ---- scratch ---- */
/* The connection's text buffer, empty. */
rg__buf *rg__conn_text(rg__mysql *c);
/* Gives the memory of large statements back. */
void rg__conn_text_done(rg__mysql *c);

#endif
