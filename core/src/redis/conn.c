/* SPDX-License-Identifier: MIT */
/* One connection: made, introduced to the server, looked at, closed. */
#include "base/thread.h"
#include "redis/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/err.h"
#include "base/thread.h"

int64_t rg__redis_deadline(const rg__redis_pool *pool, const rg__ctx *ctx) {
    if (ctx->deadline_ms != RG__NO_DEADLINE) return ctx->deadline_ms;
    return rg__deadline_within(RG__NO_DEADLINE, pool->opts.timeout_ms);
}

int rg__redis_fd(const rg__redis *c) { return c->fd; }
uint64_t rg__redis_connection_id(const rg__redis *c) { return c->id; }
bool *rg__redis_note(rg__redis *c) { return &c->note; }

/* ---- the reader, with bounds on what an array's header may claim and on how deep arrays nest ----
 */

#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

static redisReplyObjectFunctions functions;
static void *(*create_any_array)(const redisReadTask *, element_count);
static void *(*create_any_string)(const redisReadTask *, char *, size_t);
static void *(*create_any_nil)(const redisReadTask *);
static char told; /* what stands for an element that the sink was told: the reader wants an object */
static pthread_once_t functions_once = PTHREAD_ONCE_INIT;

/* hiredis 1 has no bound of its own, and frees replies by recursion. */
static bool too_deep(const redisReadTask *task) {
    int depth = 1;
    while ((task = task->parent) != NULL)
        if (++depth > RG__REDIS_MAX_DEPTH) return true;
    return false;
}

static void *create_array(const redisReadTask *task, element_count n) {
    return n <= RG__REDIS_MAX_ELEMENTS && !too_deep(task) ? create_any_array(task, n) : NULL;
}

/* The sink of an array's element; NULL: an object is to be made. */
static const rg__redis_sink *sink_of(const redisReadTask *task) {
    const rg__redis *c = task->privdata;
    bool element = task->parent && !task->parent->parent;
    return c && c->sink && element ? c->sink : NULL;
}

static void *create_string(const redisReadTask *task, char *p, size_t len) {
    const rg__redis_sink *sink = task->type == REDIS_REPLY_STRING ? sink_of(task) : NULL;
    if (!sink) return create_any_string(task, p, len);
    sink->take(sink->arg, (size_t)task->idx, p, len);
    return &told;
}

static void *create_nil(const redisReadTask *task) {
    const rg__redis_sink *sink = sink_of(task);
    if (!sink) return create_any_nil(task);
    sink->take(sink->arg, (size_t)task->idx, NULL, 0);
    return &told;
}

static void init_functions(void) {
    redisReader *r = redisReaderCreate();
    if (!r) return;
    functions = *r->fn;
    create_any_array = functions.createArray;
    create_any_string = functions.createString;
    create_any_nil = functions.createNil;
    functions.createArray = create_array;
    functions.createString = create_string;
    functions.createNil = create_nil;
    redisReaderFree(r);
}

static redisReader *new_reader(rg__redis *c) {
    pthread_once(&functions_once, init_functions);
    redisReader *r = create_any_array ? redisReaderCreateWithFunctions(&functions) : NULL;
    if (!r) return NULL;
    r->maxbuf = RG__REDIS_CHUNK;
    r->privdata = c;
    return r;
}

/* Blocking, for reads that wait without a poll before. */
static bool make_patient(int fd) {
    const struct timeval bound = {.tv_usec = RG__REDIS_PATIENCE_MS * 1000};
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound) == 0 &&
           fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0;
}

/* ---- introduction: AUTH, SELECT, CLIENT SETNAME in one exchange ---- */

static int say(rg__redis *c, rg_err *err, int n, const char *const *argv) {
    const rg__redis_args args = {.n = n, .argv = argv};
    return rg__redis_append_args(c, &args, NULL, err);
}

static int say_auth(rg__redis *c, const rg_pool_opts *o, rg_err *err) {
    if (!o->password) return RG_OK;
    const char *both[] = {"AUTH", o->user, o->password};
    const char *only[] = {"AUTH", o->password};
    return o->user && *o->user ? say(c, err, 3, both) : say(c, err, 2, only);
}

int rg__redis_say_hello(rg__redis *c, rg_err *err) {
    const rg_pool_opts *o = &c->pool->opts;
    char db[16];
    snprintf(db, sizeof db, "%u", o->db);
    const char *select[] = {"SELECT", db};
    const char *name[] = {"CLIENT", "SETNAME", "regolith"};
    int rc = say_auth(c, o, err);
    if (rc == RG_OK && o->db) rc = say(c, err, 2, select);
    return rc == RG_OK ? say(c, err, 3, name) : rc;
}

/* What may go wrong with an optional command without anybody minding. */
static bool harmless(const redisReply *r, const rg_err *why) {
    return why->code == RG_EREDIS || (why->code == RG_EACCESS && strncmp(r->str, "NOAUTH", 6) != 0);
}

int rg__redis_judge_hello(const redisReply *r, bool required, rg_err *err) {
    rg_err why = {0};
    if (r->type != REDIS_REPLY_ERROR) return RG_OK;
    int rc = rg__redis_error(r, &why);
    if (!required && harmless(r, &why)) return RG_OK;
    if (err) *err = why;
    return rc;
}

static int hear(rg__redis *c, const rg__ctx *ctx, bool required, rg_err *err) {
    redisReply *r = NULL;
    int rc = rg__redis_reply(c, ctx, &r, err);
    if (rc == RG_OK) rc = rg__redis_judge_hello(r, required, err);
    freeReplyObject(r);
    return rc;
}

/* The name of a connection is for people; a server that forbids it by ACL serves all the same. */
static int introduce(rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    const rg_pool_opts *o = &c->pool->opts;
    size_t room = 256 + (o->password ? strlen(o->password) : 0) + (o->user ? strlen(o->user) : 0);
    if (!rg__buf_reserve(&c->out, room)) return rg__fail_memory(err); /* one buffer to wipe */
    int rc = rg__redis_say_hello(c, err);
    if (rc == RG_OK) rc = rg__redis_flush(c, rg__redis_deadline(c->pool, ctx), err);
    explicit_bzero(c->out.p, c->out.cap);
    while (rc == RG_OK && c->pending > 0) rc = hear(c, ctx, c->pending > 1, err);
    return rc;
}

/* ---- life ---- */

rg__redis *rg__redis_make(rg__redis_pool *pool, const atomic_bool *stop) {
    static atomic_ullong ids;
    rg__redis *c = rg__calloc(1, sizeof *c);
    if (!c) return NULL;
    c->pool = pool;
    c->fd = -1;
    c->stop = stop;
    c->dedicated = stop != NULL;
    c->pid = rg__pid();
    c->id = atomic_fetch_add(&ids, 1) + 1;
    c->reader = new_reader(c);
    rg__list_init(&c->node);
    if (c->reader) return c;
    rg__free(c);
    return NULL;
}

/* False when the pool has been shut down: nobody would shut this connection. */
static bool enlist(rg__redis *c) {
    pthread_mutex_lock(&c->pool->lock);
    bool closing = atomic_load(&c->pool->closing);
    if (!closing) rg__list_add_tail(&c->pool->busy, &c->node);
    pthread_mutex_unlock(&c->pool->lock);
    return !closing;
}

static int establish(rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    int rc = rg__redis_dial(c, ctx->deadline_ms, err);
    if (rc == RG_OK && !c->pool->opts.tls) c->patient = make_patient(c->fd);
    if (rc == RG_OK && c->pool->opts.tls) rc = rg__redis_tls_start(c, ctx->deadline_ms, err);
    if (rc == RG_OK) rc = introduce(c, ctx, err);
    return rc;
}

int rg__redis_open(rg__redis_pool *pool, const rg__ctx *ctx, const atomic_bool *stop,
                   rg__redis **out, rg_err *err) {
    rg__redis *c = rg__redis_make(pool, stop);
    if (!c) return rg__fail_memory(err);
    rg__ctx within = *ctx;
    within.deadline_ms = rg__deadline_within(ctx->deadline_ms, pool->opts.connect_timeout_ms);
    within.metrics = NULL; /* the introduction is no command of the user's */
    within.trace = NULL;
    int rc =
        enlist(c) ? establish(c, &within, err) : rg__fail(err, RG_ECLOSED, "the engine is closing");
    if (rc < 0) {
        rg__redis_close(c);
        rg__err_prefix(err, "Redis pool %s (%s): ", pool->opts.name, pool->where);
        return rc;
    }
    rg__count(ctx->metrics, RG__C_REDIS_CONNECTS, 1);
    *out = c;
    return RG_OK;
}

void rg__redis_close(rg__redis *c) {
    pthread_mutex_lock(&c->pool->lock);
    rg__list_remove(&c->node);
    pthread_mutex_unlock(&c->pool->lock);
    rg__redis_tls_free(c);
    if (c->fd >= 0) close(c->fd);
    redisReaderFree(c->reader);
    rg__buf_deinit(&c->out);
    rg__buf_deinit(&c->label);
    rg__free(c);
}

/* Over TLS the server may have sent session tickets, so only the end tells. */
bool rg__redis_alive(rg__redis *c) {
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n > 0 && !c->tls && c->left == 0)) return false;
    return n > 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}
