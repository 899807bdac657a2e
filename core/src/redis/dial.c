/* SPDX-License-Identifier: MIT */
/* Connecting a socket: unix, or TCP with a name looked up within the deadline. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/err.h"
#include "base/thread.h"
#include "redis/conn.h"

void rg__redis_set_fd(rg__redis *c, int fd) {
    pthread_mutex_lock(&c->pool->lock);
    int old = c->fd;
    c->fd = fd;
    if (fd >= 0 && atomic_load(&c->pool->closing)) shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&c->pool->lock);
    if (old >= 0) close(old);
}

static bool interrupted(const rg__redis *c) {
    return atomic_load_explicit(&c->pool->closing, memory_order_relaxed) ||
           (c->stop && atomic_load_explicit(c->stop, memory_order_relaxed));
}

static int fail(rg_err *err, const char *what, int error) {
    errno = error;
    rg__fail(err, RG_EUNAVAILABLE, "%s: %m", what);
    if (err) {
        err->domain = RG_DOMAIN_REDIS;
        err->cls = RG_CLASS_RECONNECT;
    }
    return RG_EUNAVAILABLE;
}

/* ---- names ----
 * getaddrinfo cannot be bounded, so a detached thread does it; who waits may leave before. */

typedef struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int refs;     /* the thread and the one who waits */
    bool done;
    int rc;
    struct addrinfo *found;
    char port[8];
    char host[];
} lookup;

static void lookup_unref(lookup *l) {
    pthread_mutex_lock(&l->lock);
    int left = --l->refs;
    pthread_mutex_unlock(&l->lock);
    if (left > 0) return;
    if (l->found) freeaddrinfo(l->found);
    pthread_cond_destroy(&l->cond);
    pthread_mutex_destroy(&l->lock);
    rg__free(l);
}

static void *run_lookup(void *arg) {
    lookup *l = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(l->host, l->port, &hints, &found);
    pthread_mutex_lock(&l->lock);
    l->rc = rc;
    l->found = rc == 0 ? found : NULL;
    l->done = true;
    pthread_cond_signal(&l->cond);
    pthread_mutex_unlock(&l->lock);
    lookup_unref(l);
    return NULL;
}

static lookup *lookup_new(const rg_pool_opts *o) {
    size_t len = strlen(o->host) + 1;
    lookup *l = rg__calloc(1, sizeof *l + len);
    if (!l) return NULL;
    memcpy(l->host, o->host, len);
    snprintf(l->port, sizeof l->port, "%u", o->port);
    pthread_mutex_init(&l->lock, NULL);
    rg__cond_init(&l->cond);
    l->refs = 1;
    return l;
}

static int lookup_start(lookup *l, rg_err *err) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    if (getaddrinfo(l->host, l->port, &hints, &l->found) == 0) {
        l->done = true;
        return RG_OK;
    }
    pthread_t t;
    l->refs = 2;
    int rc = rg__thread_start(&t, "rg-resolve", run_lookup, l);
    if (rc == RG_OK) pthread_detach(t);
    else l->refs = 1;
    return rc < 0 ? rg__fail(err, rc, "no thread for looking up the host") : RG_OK;
}

static int lookup_wait(const rg__redis *c, lookup *l, int64_t deadline_ms, rg_err *err) {
    pthread_mutex_lock(&l->lock);
    while (!l->done && rg__left_ms(deadline_ms) > 0 && !interrupted(c))
        rg__cond_wait(&l->cond, &l->lock, rg__deadline_within(deadline_ms, 50));
    bool done = l->done;
    int rc = l->rc;
    pthread_mutex_unlock(&l->lock);
    if (!done) return fail(err, "looking up the host", ETIMEDOUT);
    if (rc == 0) return RG_OK;
    rg__fail(err, RG_EUNAVAILABLE, "looking up the host: %s", gai_strerror(rc));
    if (err) err->domain = RG_DOMAIN_REDIS;
    return RG_EUNAVAILABLE;
}

/* ---- sockets ---- */

static void set_options(int fd) {
    int on = 1, idle = 30, interval = 10, count = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
#ifdef TCP_KEEPIDLE
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
#else
    (void)idle, (void)interval, (void)count;
#endif
}

/* The outcome of a connect under way: 0, or its errno. */
static int await(rg__redis *c, int64_t deadline_ms) {
    int ready = rg__redis_wait(c, POLLOUT, deadline_ms, NULL);
    if (ready == 0) return ETIMEDOUT;
    if (ready < 0) return ECANCELED;
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}

/* A full backlog makes a unix connect answer EAGAIN, and nothing tells when to try again. */
static int connect_until(rg__redis *c, const struct sockaddr *a, socklen_t len,
                         int64_t deadline_ms) {
    for (;;) {
        if (connect(c->fd, a, len) == 0) return 0;
        if (errno == EINPROGRESS || errno == EINTR) return await(c, deadline_ms);
        if (errno != EAGAIN) return errno;
        if (rg__left_ms(deadline_ms) == 0 || interrupted(c)) return ETIMEDOUT;
        rg__sleep_ms(5);
    }
}

/* A shutdown meanwhile found nothing to shut. */
static int try_connect(rg__redis *c, const struct sockaddr *a, socklen_t len, int64_t deadline_ms) {
    int error = connect_until(c, a, len, deadline_ms);
    return error == 0 && interrupted(c) ? ECANCELED : error;
}

static int connect_to(rg__redis *c, const struct sockaddr *a, socklen_t len, int64_t deadline_ms) {
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    if (a->sa_family != AF_UNIX) set_options(fd);
    rg__redis_set_fd(c, fd);
    c->broken = false;
    return try_connect(c, a, len, deadline_ms);
}

static int dial_unix(rg__redis *c, const char *path, int64_t deadline_ms, rg_err *err) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return rg__fail(err, RG_ECONFIG, "unix_path is too long");
    memcpy(a.sun_path, path, strlen(path) + 1);
    int error = connect_to(c, (const struct sockaddr *)&a, sizeof a, deadline_ms);
    return error ? fail(err, "connecting", error) : RG_OK;
}

static size_t count(const struct addrinfo *a) {
    size_t n = 0;
    for (; a; a = a->ai_next) n++;
    return n;
}

/* Each address gets its share of the time that is left. */
static int dial_each(rg__redis *c, const struct addrinfo *a, int64_t deadline_ms, rg_err *err) {
    int error = EADDRNOTAVAIL;
    for (; a; a = a->ai_next) {
        int share = rg__left_ms(deadline_ms) / (int)count(a);
        error = connect_to(c, a->ai_addr, a->ai_addrlen,
                           rg__deadline_within(deadline_ms, share > 0 ? share : 1));
        if (error == 0) return RG_OK;
        if (interrupted(c)) break;
    }
    return fail(err, "connecting", error);
}

static int dial_tcp(rg__redis *c, int64_t deadline_ms, rg_err *err) {
    lookup *l = lookup_new(&c->pool->opts);
    if (!l) return rg__fail_memory(err);
    int rc = lookup_start(l, err);
    if (rc == RG_OK) rc = lookup_wait(c, l, deadline_ms, err);
    if (rc == RG_OK) rc = dial_each(c, l->found, deadline_ms, err);
    lookup_unref(l);
    return rc;
}

int rg__redis_dial(rg__redis *c, int64_t deadline_ms, rg_err *err) {
    const rg_pool_opts *o = &c->pool->opts;
    int rc =
        o->unix_path ? dial_unix(c, o->unix_path, deadline_ms, err) : dial_tcp(c, deadline_ms, err);
    if (rc < 0 && interrupted(c)) return rg__fail(err, RG_ECLOSED, "closing");
    return rc;
}
