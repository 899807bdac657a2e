/* SPDX-License-Identifier: MIT */
/* Bytes to and from the socket, never longer than the deadline. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/err.h"
#include "redis/conn.h"

enum { SLICE_MS = 50 }; /* how long a stop may go unseen */

static int fail(rg__redis *c, rg_err *err, int code, const char *what, int error) {
    c->broken = true;
    errno = error;
    rg__fail(err, code, error ? "%s: %m" : "%s", what);
    if (!err) return code;
    err->domain = RG_DOMAIN_REDIS;
    err->cls = RG_CLASS_RECONNECT;
    err->retriable = 1;
    return code;
}

int rg__redis_lost(rg__redis *c, rg_err *err, const char *what, int error) {
    if (!atomic_load_explicit(&c->pool->closing, memory_order_relaxed))
        return fail(c, err, RG_EUNAVAILABLE, what, error);
    c->broken = true;
    return rg__fail(err, RG_ECLOSED, "the engine is closing");
}

int rg__redis_timed_out(rg__redis *c, rg_err *err) {
    return fail(c, err, RG_ETIMEOUT, "no answer in time", 0);
}

static bool stopped(const rg__redis *c) {
    return c->stop && atomic_load_explicit(c->stop, memory_order_relaxed);
}

static int slice(const rg__redis *c, int64_t deadline_ms) {
    int left = rg__left_ms(deadline_ms);
    return c->stop && left > SLICE_MS ? SLICE_MS : left;
}

int rg__redis_wait(rg__redis *c, short events, int64_t deadline_ms, rg_err *err) {
    for (;;) {
        if (stopped(c)) {
            c->broken = true;
            return rg__fail(err, RG_ECANCELLED, "stopped");
        }
        struct pollfd p = {.fd = c->fd, .events = events};
        int ms = slice(c, deadline_ms);
        int n = poll(&p, 1, ms);
        if (n > 0) return 1;
        if (n < 0 && errno != EINTR) return rg__redis_lost(c, err, "poll", errno);
        if (rg__left_ms(deadline_ms) == 0) return 0;
    }
}

static ssize_t receive(rg__redis *c, void *p, size_t n, short *events) {
    if (c->tls) return rg__redis_tls_recv(c, p, n, events);
    *events = POLLIN;
    return recv(c->fd, p, n, MSG_DONTWAIT);
}

static ssize_t transmit(rg__redis *c, const void *p, size_t n, short *events) {
    if (c->tls) return rg__redis_tls_send(c, p, n, events);
    *events = POLLOUT;
    return send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Hands bytes to the reader; what it holds unparsed is bounded. */
int rg__redis_digest(rg__redis *c, const char *p, size_t n, rg_err *err) {
    if (c->reader->len > RG__REDIS_MAX_REPLY)
        return fail(c, err, RG_ELIMIT, "a reply of Redis is over 512 MiB", 0);
    if (redisReaderFeed(c->reader, p, n) == REDIS_OK) return RG_OK;
    c->broken = true;
    return rg__fail_memory(err);
}

/* What a read of a whole chunk has said: 1 got bytes, 0 none there now, negative. */
static int took(rg__redis *c, const char *chunk, ssize_t n, rg_err *err) {
    c->more = n == RG__REDIS_CHUNK || (n > 0 && c->tls);
    if (n > 0) return rg__redis_digest(c, chunk, (size_t)n, err) < 0 ? RG_ENO_MEMORY : 1;
    if (n == 0) return rg__redis_lost(c, err, "Redis closed the connection", 0);
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return 0;
    return rg__redis_lost(c, err, "reading from Redis", errno);
}

static int read_some(rg__redis *c, short *events, rg_err *err) {
    char chunk[RG__REDIS_CHUNK];
    return took(c, chunk, receive(c, chunk, sizeof chunk, events), err);
}

/* Waits in recv itself, one call instead of two: 1 got bytes, 0 not within RG__REDIS_PATIENCE_MS or
 * the deadline is too near for that, negative. */
static int read_patiently(rg__redis *c, int64_t deadline_ms, rg_err *err) {
    if (!c->patient || c->stop || c->more || rg__left_ms(deadline_ms) <= RG__REDIS_PATIENCE_MS)
        return 0;
    char chunk[RG__REDIS_CHUNK];
    return took(c, chunk, recv(c->fd, chunk, sizeof chunk, 0), err);
}

/* Waiting first is as fast as reading first where the answer is not there yet, and costs one call
 * less than finding nothing. */
int rg__redis_feed(rg__redis *c, int64_t deadline_ms, rg_err *err) {
    short events = POLLIN;
    int rc = read_patiently(c, deadline_ms, err);
    while (rc == 0) {
        if (!c->more && (rc = rg__redis_wait(c, events, deadline_ms, err)) <= 0) return rc;
        rc = read_some(c, &events, err);
    }
    return rc;
}

/* The peer takes no more for now. It may be waiting for us to read. */
static int make_room(rg__redis *c, short events, int64_t deadline_ms, rg_err *err) {
    int rc = rg__redis_wait(c, (short)(events | POLLIN), deadline_ms, err);
    if (rc == 0) return rg__redis_timed_out(c, err);
    if (rc < 0 || c->tls) return rc;
    short ignored;
    rc = read_some(c, &ignored, err);
    return rc < 0 ? rc : RG_OK;
}

int rg__redis_flush(rg__redis *c, int64_t deadline_ms, rg_err *err) {
    while (c->sent < c->out.len) {
        short events = POLLOUT;
        ssize_t n = transmit(c, c->out.p + c->sent, c->out.len - c->sent, &events);
        if (n > 0) {
            c->sent += (size_t)n;
            continue;
        }
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return rg__redis_lost(c, err, "writing to Redis", errno);
        int rc = make_room(c, events, deadline_ms, err);
        if (rc < 0) return rc;
    }
    c->sent = 0;
    rg__buf_clear(&c->out);
    return RG_OK;
}
