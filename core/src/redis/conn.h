/* SPDX-License-Identifier: MIT */
/* The inside of connections and pools; for the files of redis/ only. */
#ifndef RG_REDIS_CONN_H
#define RG_REDIS_CONN_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/types.h>
#include "base/list.h"
#include "redis/redis.h"

enum {
    RG__REDIS_CHUNK = 64 * 1024,               /* bytes asked of the socket at a time */
    RG__REDIS_PATIENCE_MS = 100,               /* a blocking read returns after so long */
    RG__REDIS_MAX_REPLY = 512 * 1024 * 1024,   /* bytes of one reply */
    RG__REDIS_MAX_ELEMENTS = 4 * 1024 * 1024,  /* elements of one array */
    RG__REDIS_MAX_DEPTH = 8,                   /* arrays in one another */
};

struct rg__redis {
    rg__node node;          /* in one list of its pool; under the pool's lock */
    rg__redis_pool *pool;
    int fd;                 /* -1: closed; written under the pool's lock, as shutdown reads it */
    SSL *tls;               /* NULL: plain */
    redisReader *reader;
    rg__buf out;            /* commands not sent yet, from `sent` on */
    size_t sent;
    uint32_t appended;      /* commands of the current exchange */
    uint32_t pending;       /* replies not read yet */
    uint32_t left;          /* replies before them that nobody wants */
    bool broken;            /* never used again */
    bool dedicated;
    bool subscribed;        /* messages come unasked */
    bool patient;           /* the socket is made for blocking reads; all else says MSG_DONTWAIT */
    bool more;              /* the last read filled the buffer: there may be more to read at once */
    pid_t pid;              /* who connected */
    uint64_t id;
    bool note;              /* rg__redis_note */
    int64_t idle_since_ms;
    int64_t started_us;     /* monotonic: first byte of the current exchange */
    int64_t started_wall_us; /* only when traced */
    const char *op;         /* query log: what the current exchange is called, static */
    char first[16];         /* the first command's name, for exchanges that turn out to be slow */
    rg__buf label;          /* query log: its text */
    const atomic_bool *stop; /* borrowed; NULL: nothing interrupts */
    const rg__redis_sink *sink; /* borrowed: who is told elements as they are parsed; mostly NULL */
};

struct rg__redis_pool {
    rg_pool_opts opts;      /* strings owned */
    char *where;            /* for messages: "unix:/run/redis.sock", "db1:6379" */
    pthread_mutex_t lock;   /* guards all that follows; nothing else is locked under it */
    rg__node idle;          /* last used first */
    rg__node busy;          /* acquired, dedicated and connecting ones */
    rg__node waiters;       /* first come first */
    uint32_t n_idle;
    uint32_t n_counted;     /* idle, acquired and connecting; dedicated ones are not counted */
    atomic_uint n_aside;    /* see rg__redis_aside */
    atomic_bool closing;
    pid_t pid;              /* who uses the pool; another one abandons what it inherited */
    int64_t suspect_ms;     /* a server went away: idle ones last used before this are probed */
    int64_t retry_at_ms;    /* circuit breaker: no connect before; 0 closed */
    uint32_t backoff_ms;
    rg_err failure;         /* why the last connect failed */
    SSL_CTX *tls;           /* made on first use */
    atomic_ullong errors;   /* see rg__pool_figures */
};

/* ---- dial.c ---- */
/* Connects c->fd (non-blocking, close-on-exec) until the deadline. */
int rg__redis_dial(rg__redis *c, int64_t deadline_ms, rg_err *err);
/* Sets c->fd under the pool's lock; closes the former one. */
void rg__redis_set_fd(rg__redis *c, int fd);

/* ---- tls.c ---- */
int rg__redis_tls_start(rg__redis *c, int64_t deadline_ms, rg_err *err);
void rg__redis_tls_free(rg__redis *c);        /* sends nothing */
void rg__redis_tls_pool_free(rg__redis_pool *pool);
/* As recv and send: bytes, 0 at the end, -1 with errno (EAGAIN: *events says what to wait for). */
ssize_t rg__redis_tls_recv(rg__redis *c, void *p, size_t n, short *events);
ssize_t rg__redis_tls_send(rg__redis *c, const void *p, size_t n, short *events);

/* ---- io.c ---- */
/* Waits for the socket: 1 ready, 0 time-out, negative: stopped or failed. */
int rg__redis_wait(rg__redis *c, short events, int64_t deadline_ms, rg_err *err);
/* Sends all of c->out. */
int rg__redis_flush(rg__redis *c, int64_t deadline_ms, rg_err *err);
/* Reads what there is, at least one byte: 1, 0 time-out, negative. */
int rg__redis_feed(rg__redis *c, int64_t deadline_ms, rg_err *err);
/* The connection is lost: marks it broken, RG_EUNAVAILABLE of class RECONNECT. */
int rg__redis_lost(rg__redis *c, rg_err *err, const char *what, int error);
int rg__redis_timed_out(rg__redis *c, rg_err *err);

/* ---- conn.c ---- */
/* One that is not connected, in no list; stop: NULL, or it is a dedicated one. */
rg__redis *rg__redis_make(rg__redis_pool *pool, const atomic_bool *stop);
/* Appends the introduction: AUTH, SELECT, last CLIENT SETNAME. */
int rg__redis_say_hello(rg__redis *c, rg_err *err);
/* A connection in its pool's busy list, connected, authenticated; counts nothing. */
int rg__redis_open(rg__redis_pool *pool, const rg__ctx *ctx, const atomic_bool *stop,
                   rg__redis **out, rg_err *err);
/* Takes it out of its list, closes and frees it. */
void rg__redis_close(rg__redis *c);
/* Looks without asking the server: false when it hung up or sent what nobody asked for. */
bool rg__redis_alive(rg__redis *c);
/* The deadline of one call: the operation's, or the pool's time-out from now. */
int64_t rg__redis_deadline(const rg__redis_pool *pool, const rg__ctx *ctx);

/* Hands bytes to the reader (io.c). */
int rg__redis_digest(rg__redis *c, const char *p, size_t n, rg_err *err);

/* ---- pipeline.c ---- */
/* A reply from the bytes that are there: 1, 0 more are needed, negative. */
int rg__redis_parse(rg__redis *c, redisReply **reply, rg_err *err);
/* One command of two lists of arguments, one after the other. */
typedef struct rg__redis_args {
    int n;
    const char *const *argv;
    const size_t *lens; /* NULL: strings */
} rg__redis_args;
int rg__redis_append_args(rg__redis *c, const rg__redis_args *head, const rg__redis_args *tail,
                          rg_err *err);
/* Appends, sends, reads one reply (error replies included), for a connection with none pending. */
int rg__redis_exchange(rg__redis *c, const rg__ctx *ctx, const rg__redis_args *head,
                       const rg__redis_args *tail, redisReply **reply, rg_err *err);

/* ---- describe.c ---- */
/* Query log: op and label of what is in c->out. */
void rg__redis_describe(rg__redis *c, bool values);
/* Time and log of an exchange whose last reply came (or never will). */
void rg__redis_observe(rg__redis *c, const rg__ctx *ctx, const char *error);

#endif
