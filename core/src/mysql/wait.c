/* SPDX-License-Identifier: MIT */
/* How long a call of the client library may wait: by its own hook where it has one, else (and under
 * TLS, which reads past the hook) by the watchdog. */
#include "mysql/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* ---- the watchdog ---- */

static void watch(rg__mysql *c, int fd) {
    c->watched = true;
    rg__watch_arm(&c->watch, fd, c->deadline_ms, c->cancelled);
}

static bool unwatch(rg__mysql *c) {
    bool fired = c->watched && rg__watch_disarm(&c->watch);
    if (c->watch_fd >= 0) close(c->watch_fd);
    c->watch_fd = -1;
    c->watched = false;
    return fired;
}

static bool watch_fired(const rg__mysql *c) {
    return c->watched && rg__now_ms() >= c->deadline_ms;
}

#if RG__WAIT_HOOK

/* ---- the hook ---- */

/* The call that this thread is in: the client library hands its hook no argument of ours. */
static __thread struct {
    rg__mysql *c;
    bool fired;
} waiting;

/* Before the handshake reads past the hook. The library closes sockets by itself until it has one
 * that works: the watchdog needs a descriptor of its own, of the socket tried last. */
static void watch_handshake(rg__mysql *c, int fd) {
    if (!c->tls || c->fd >= 0) return;
    unwatch(c);
    c->watch_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (c->watch_fd >= 0) watch(c, c->watch_fd);
}

enum { CANCEL_SLICE_MS = 50 }; /* how long a cancelled read may go on */

static bool is_cancelled(const rg__mysql *c) {
    return c && c->cancelled && atomic_load_explicit(c->cancelled, memory_order_relaxed);
}

/* The time of one poll; the deadline's is over at once when nobody waits. */
static int slice_ms(const rg__mysql *c, int timeout_ms) {
    if (!c) return timeout_ms;
    int left = is_cancelled(c) ? 0 : rg__left_ms(c->deadline_ms);
    return c->cancelled && left > CANCEL_SLICE_MS ? CANCEL_SLICE_MS : left;
}

static int wait_socket(my_socket fd, my_bool is_read, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = is_read ? POLLIN : POLLOUT};
    rg__mysql *c = waiting.c;
    int rc, ms;
    if (c) watch_handshake(c, fd);
    do {
        ms = slice_ms(c, timeout_ms);
        rc = poll(&p, 1, ms);
    } while ((rc < 0 && errno == EINTR) || (rc == 0 && c && c->cancelled && ms > 0));
    if (rc == 0) {
        waiting.fired = true;
        errno = ETIMEDOUT;
    }
    return rc;
}

void rg__wait_begin(rg__mysql *c, int64_t deadline_ms) {
    c->deadline_ms = deadline_ms;
    waiting.c = c;
    waiting.fired = false;
    if (c->tls && c->fd >= 0) watch(c, c->fd);
}

bool rg__wait_end(rg__mysql *c) {
    c->cancelled = NULL; /* the operation's: it ends before the connection does */
    waiting.c = NULL;
    return unwatch(c) || waiting.fired;
}

bool rg__wait_fired(const rg__mysql *c) {
    return waiting.fired || watch_fired(c);
}

void rg__wait_install(MYSQL *my) {
    mysql_optionsv(my, MARIADB_OPT_IO_WAIT, (void *)wait_socket);
}

#else

void rg__wait_begin(rg__mysql *c, int64_t deadline_ms) {
    c->deadline_ms = deadline_ms;
    if (c->fd >= 0) watch(c, c->fd);
}

bool rg__wait_end(rg__mysql *c) {
    c->cancelled = NULL; /* the operation's: it ends before the connection does */
    return unwatch(c);
}
bool rg__wait_fired(const rg__mysql *c) {
    return watch_fired(c);
}
void rg__wait_install(MYSQL *my) {
    (void)my;
}

#endif
