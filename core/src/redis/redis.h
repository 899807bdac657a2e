/* SPDX-License-Identifier: MIT */
/* Redis connections, pool, pipelines and scripts. RESP2 on own sockets (plain or TLS); hiredis'
 * formatter and reader do the protocol, so every wait has a deadline. */
#ifndef RG_REDIS_REDIS_H
#define RG_REDIS_REDIS_H

#include <hiredis/hiredis.h>
#include <regolith/pool.h>
#include <stdatomic.h>
#include "base/ctx.h"

typedef struct rg__redis_pool rg__redis_pool; /* shared */
typedef struct rg__redis rg__redis;           /* one connection; confined while acquired */

/* Copies opts; connects nothing. */
rg__redis_pool *rg__redis_pool_new(const rg_pool_opts *opts, rg_err *err);
void rg__redis_pool_free(rg__redis_pool *pool); /* closes idle connections; none may be acquired */
const char *rg__redis_pool_name(const rg__redis_pool *pool);
const rg_pool_opts *rg__redis_pool_opts(const rg__redis_pool *pool); /* with the defaults in */
/* After fork: forgets inherited connections (closes descriptors, sends nothing). Checked on acquire
 * by process id as well. */
void rg__redis_pool_abandon(rg__redis_pool *pool);
/* Shuts all sockets down so that blocked callers return; later acquires fail with RG_ECLOSED. */
void rg__redis_pool_shutdown(rg__redis_pool *pool);
/* Idle and busy connections now. */
void rg__redis_pool_stats(rg__redis_pool *pool, uint32_t *busy, uint32_t *idle);
void rg__redis_pool_figures(rg__redis_pool *pool, rg__pool_figures *out);

/* A healthy connection: an idle one (probed when idle long), or a new one (AUTH, SELECT, CLIENT
 * SETNAME), or waits for one until the deadline. ETIMEOUT, EUNAVAILABLE, EACCESS. After a failed
 * connect, further tries within a short back-off (100 ms doubling to 2 s) fail at once with the
 * same error (circuit breaker), so that reads bypass quickly. */
int rg__redis_acquire(rg__redis_pool *pool, const rg__ctx *ctx, rg__redis **out, rg_err *err);
/* One that is idle, if there is any and it looks sound: never waits, never connects. Else NULL. */
rg__redis *rg__redis_acquire_idle(rg__redis_pool *pool);
/* For who holds a connection while it waits for another one: whether it may, as one is left that goes from
 * hand to hand. Else all of the pool's could be held by such, each waiting for the others. Given back by
 * rg__redis_aside_end. */
bool rg__redis_aside(rg__redis_pool *pool);
void rg__redis_aside_end(rg__redis_pool *pool);
/* Back to the pool; a connection with an I/O error or unread replies is closed instead. */
void rg__redis_release(rg__redis *c);
/* A connection outside the pool's count, e.g. for a subscription; rg__redis_release closes it. */
int rg__redis_dedicated(rg__redis_pool *pool, const rg__ctx *ctx, rg__redis **out, rg_err *err);
/* The same; while connecting and in every later wait it gives up within 50 ms (ECANCELLED) once
 * *stop is true. stop is borrowed while the connection lives. */
int rg__redis_dedicated_until(rg__redis_pool *pool, const rg__ctx *ctx, const atomic_bool *stop,
                              rg__redis **out, rg_err *err);

/* One command and its reply. A -ERR reply is turned into an error by class (failures.md 1.3).
 * *reply is the caller's (freeReplyObject). lens NULL: strings. */
int rg__redis_command(rg__redis *c, const rg__ctx *ctx, redisReply **reply, rg_err *err, int argc,
                      const char *const *argv, const size_t *lens);
/* Who is told the elements of an array of strings where they stand, before they are copied. */
typedef struct rg__redis_sink {
    void (*take)(void *arg, size_t i, const char *p, size_t len); /* p NULL: nil */
    void *arg;
} rg__redis_sink;
/* One command that is answered by n strings or nils (MGET); each is told to the sink, in order, and is
 * valid in that call only. When it fails some may have been told. */
int rg__redis_gather(rg__redis *c, const rg__ctx *ctx, const rg__redis_sink *sink, size_t n,
                     rg_err *err, int argc, const char *const *argv, const size_t *lens);
/* The same in two steps: the command is sent, and its answer taken later, on the same connection, on which
 * nothing else may be said meanwhile. Who does not want the answer any more calls rg__redis_leave. */
int rg__redis_ask(rg__redis *c, const rg__ctx *ctx, rg_err *err, int argc, const char *const *argv,
                  const size_t *lens);
int rg__redis_gather_asked(rg__redis *c, const rg__ctx *ctx, const rg__redis_sink *sink, size_t n,
                           rg_err *err);
/* Pipeline: append n commands, then read n replies (the first read sends). */
int rg__redis_append(rg__redis *c, int argc, const char *const *argv, const size_t *lens,
                     rg_err *err);
/* The next reply; server errors are returned as REDIS_REPLY_ERROR replies, not as failures. */
int rg__redis_reply(rg__redis *c, const rg__ctx *ctx, redisReply **reply, rg_err *err);
/* Sends what was appended, for which nobody waits: the answers are skipped by who uses the connection next,
 * which may be another borrower. */
int rg__redis_leave(rg__redis *c, const rg__ctx *ctx, rg_err *err);
/* Sends what was appended, reads nothing. */
int rg__redis_send(rg__redis *c, const rg__ctx *ctx, rg_err *err);
/* Waits for a message (subscriptions): 1 reply, 0 time-out, negative error. */
int rg__redis_poll(rg__redis *c, int64_t deadline_ms, redisReply **reply, rg_err *err);
/* Fills err from an error reply's text: code, class, retriable. Returns the code. */
int rg__redis_error(const redisReply *reply, rg_err *err);
/* After a call failed with rc and `why`, for what may be done twice: is another try, on another connection, worth
 * it? tries: how many were made before this one. A connection that broke may have been a left-over of a server
 * that is back already. */
bool rg__redis_worth_another(const rg_err *why, int rc, int tries, const rg__ctx *ctx);
int rg__redis_fd(const rg__redis *c);
uint64_t rg__redis_connection_id(const rg__redis *c); /* counts connects of the process */
/* A word of who uses the pool, false on a new connection. */
bool *rg__redis_note(rg__redis *c);

/* ---- wires (wire.c): connections whose bytes somebody else carries, and for which nobody waits ----
 * Confined to one thread. Outside the pool's count; rg__redis_release forgets one. */
/* Can it be done without what only the pool's own connections know: TLS, looking up a host's name? */
bool rg__redis_wirable(const rg__redis_pool *pool);
/* A new one. *replies: how many the introduction, which is appended already, will have. */
rg__redis *rg__redis_wire(rg__redis_pool *pool, uint32_t *replies, rg_err *err);
/* Appended and not handed out yet; valid until rg__redis_carried, which comes before the next append. */
rg__slice rg__redis_outgoing(rg__redis *c);
void rg__redis_carried(rg__redis *c);
/* Bytes that came. */
int rg__redis_incoming(rg__redis *c, const char *p, size_t n, rg_err *err);
/* The next reply: 1, 0 it has not come yet, negative. Elements of arrays go to the sink, unless it is NULL. */
int rg__redis_take(rg__redis *c, const rg__redis_sink *sink, redisReply **reply, rg_err *err);
/* Counts and times what was answered, or failed. */
void rg__redis_answered(rg__redis *c, const rg__ctx *ctx, const char *error);
/* What a reply to the introduction says; required: not the last one. */
int rg__redis_judge_hello(const redisReply *r, bool required, rg_err *err);

/* ---- scripts ---- */
/* A script: text assembled once (prelude + body), called by digest, loaded again on NOSCRIPT. */
typedef struct rg__script {
    const char *name;
    const char *const *parts; /* NULL-terminated list of texts, concatenated */
    char sha[41];             /* filled by rg__script_init */
    char *text;
} rg__script;

/* Idempotent and thread-safe. */
int rg__script_init(rg__script *s, rg_err *err);
/* EVALSHA with nkeys keys first in argv; loads the script when the server lacks it. Safe to retry
 * because NOSCRIPT means that nothing ran. */
int rg__script_call(rg__redis *c, const rg__ctx *ctx, rg__script *s, int nkeys, int argc,
                    const char *const *argv, const size_t *lens, redisReply **reply, rg_err *err);

/* The same without an answer (rg__redis_leave), for a script that the server has. */
int rg__script_leave(rg__redis *c, const rg__ctx *ctx, rg__script *s, int nkeys, int argc,
                     const char *const *argv, const size_t *lens, rg_err *err);
/* How often a server lacked a script, in this process. */
uint64_t rg__script_misses(void);

#endif
