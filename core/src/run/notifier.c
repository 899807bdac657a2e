/* SPDX-License-Identifier: MIT */
/* The notifier: completions on a list, one byte written when the list was empty. */
#include "run/notifier.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/thread.h"

/* Lock: guards the list, the descriptors and in_flight. References: the handle and each operation
 * that was submitted with it. */
struct rg_notifier {
    rg_engine *engine; /* a reference */
    atomic_uint refs;
    pthread_mutex_t lock;
    rg__node done;
    uint32_t in_flight;
    bool closed;
    bool waiting_byte; /* a byte is on its way; cleared by drain */
    uint32_t held;     /* several complete together: the byte waits for the last one */
    bool owed;         /* a byte, when it is held no more */
    int listen_fd, write_fd, read_fd;
    char folder[64], path[96];
};

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void unref(rg_notifier *n) {
    if (atomic_fetch_sub(&n->refs, 1) != 1) return;
    close_fd(&n->listen_fd);
    close_fd(&n->write_fd);
    close_fd(&n->read_fd);
    pthread_mutex_destroy(&n->lock);
    rg_engine_unref(n->engine);
    rg__free(n);
}

static int make_pair(rg_notifier *n, rg_err *err) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return rg__fail(err, RG_ELIMIT, "a pipe cannot be made: %s", strerror(errno));
    n->read_fd = fds[0];
    n->write_fd = fds[1];
    return RG_OK;
}

/* A socket in a folder of its own (mode 0700), gone as soon as the one client has connected. */
static int make_listener(rg_notifier *n, rg_err *err) {
    snprintf(n->folder, sizeof n->folder, "/tmp/regolith-XXXXXX");
    if (!mkdtemp(n->folder)) {
        n->folder[0] = 0;
        return rg__fail(err, RG_ELIMIT, "a folder in /tmp cannot be made: %s", strerror(errno));
    }
    snprintf(n->path, sizeof n->path, "%s/notify", n->folder);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", n->path);
    n->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (n->listen_fd < 0 || bind(n->listen_fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(n->listen_fd, 1) < 0)
        return rg__fail(err, RG_ELIMIT, "a notification socket cannot be made: %s", strerror(errno));
    return RG_OK;
}

static void remove_path(rg_notifier *n) {
    if (!n->folder[0]) return;
    unlink(n->path);
    rmdir(n->folder);
    n->folder[0] = 0;
}

rg_notifier *rg_notifier_new(rg_engine *engine, int listen_socket, rg_err *err) {
    int nobody = 0;
    atomic_compare_exchange_strong(&engine->loop_pid, &nobody, rg__pid());
    if (rg_engine_orphan(engine)) {
        rg__engine_fail_orphan(err);
        return NULL;
    }
    rg_notifier *n = rg__calloc(1, sizeof *n);
    if (!n) {
        rg__fail_memory(err);
        return NULL;
    }
    n->engine = rg_engine_ref(engine);
    atomic_init(&n->refs, 1);
    pthread_mutex_init(&n->lock, NULL);
    rg__list_init(&n->done);
    n->listen_fd = n->write_fd = n->read_fd = -1;
    if ((listen_socket ? make_listener(n, err) : make_pair(n, err)) < 0) {
        remove_path(n);
        unref(n);
        return NULL;
    }
    return n;
}

/* The client connects soon after it was told the path, and drains as soon as it has: completions before
 * that need no byte. Waiting for it here, under the lock, would keep the very thread that connects. */
static bool connected(rg_notifier *n) {
    if (n->write_fd >= 0) return true;
    struct pollfd p = {.fd = n->listen_fd, .events = POLLIN};
    if (poll(&p, 1, 0) != 1) return false;
    n->write_fd = accept4(n->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (n->write_fd < 0) return false;
    close_fd(&n->listen_fd);
    remove_path(n);
    return true;
}

void rg_notifier_close(rg_notifier *n) {
    if (rg_engine_orphan(n->engine)) return;
    pthread_mutex_lock(&n->lock);
    n->closed = true;
    while (!rg__list_empty(&n->done)) rg__list_remove(n->done.next);
    if (n->read_fd < 0) { /* the client hears of it, also one that was not accepted yet */
        if (connected(n)) shutdown(n->write_fd, SHUT_RDWR);
        close_fd(&n->listen_fd);
    }
    remove_path(n);
    pthread_mutex_unlock(&n->lock);
}

void rg_notifier_free(rg_notifier *n) {
    if (!n || rg_engine_orphan(n->engine)) return;
    rg_notifier_close(n);
    unref(n);
}

const char *rg_notifier_path(const rg_notifier *n) { return n->path; }
int rg_notifier_fd(const rg_notifier *n) { return n->read_fd; }

uint32_t rg_notifier_in_flight(const rg_notifier *cn) {
    rg_notifier *n = (rg_notifier *)(uintptr_t)cn;
    if (rg_engine_orphan(n->engine)) return 0;
    pthread_mutex_lock(&n->lock);
    uint32_t v = n->in_flight;
    pthread_mutex_unlock(&n->lock);
    return v;
}

void rg__notifier_expect(rg_notifier *n, rg_op *op) {
    atomic_fetch_add(&n->refs, 1);
    pthread_mutex_lock(&n->lock);
    op->notifier = n;
    n->in_flight++;
    pthread_mutex_unlock(&n->lock);
}

void rg__notifier_unexpect(rg_op *op) {
    rg_notifier *n = op->notifier;
    pthread_mutex_lock(&n->lock);
    op->notifier = NULL;
    n->in_flight--;
    pthread_mutex_unlock(&n->lock);
    unref(n);
}

/* Under the lock. A full pipe needs no further byte. */
static void wake(rg_notifier *n) {
    if (n->held) {
        n->owed = true;
        return;
    }
    if (n->waiting_byte || n->closed || !connected(n)) return;
    n->waiting_byte = true;
    ssize_t sent = n->read_fd >= 0 ? write(n->write_fd, "!", 1)
                                   : send(n->write_fd, "!", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
}

bool rg__notifier_complete(rg_op *op) {
    rg_notifier *n = op->notifier;
    pthread_mutex_lock(&n->lock);
    n->in_flight--;
    atomic_store(&op->phase, RG_OP_DONE);
    bool wanted = !atomic_load(&op->abandoned);
    if (!n->closed && wanted) rg__list_add_tail(&n->done, &op->done.node);
    if (wanted || n->in_flight == 0) wake(n); /* the last one: who waits for the end looks */
    pthread_mutex_unlock(&n->lock);
    return wanted;
}

rg_notifier *rg__notifier_ref(rg_notifier *n) {
    atomic_fetch_add(&n->refs, 1);
    return n;
}

rg_notifier *rg__notifier_hold(rg_op *op) {
    rg_notifier *n = rg__notifier_ref(op->notifier);
    pthread_mutex_lock(&n->lock);
    n->held++;
    pthread_mutex_unlock(&n->lock);
    return n;
}

void rg__notifier_let_go(rg_notifier *n) {
    pthread_mutex_lock(&n->lock);
    if (--n->held == 0 && n->owed) {
        n->owed = false;
        wake(n);
    }
    pthread_mutex_unlock(&n->lock);
    unref(n);
}

void rg__notifier_hush(rg_notifier *n) {
    pthread_mutex_lock(&n->lock);
    n->held++;
    pthread_mutex_unlock(&n->lock);
}

void rg__notifier_unhush(rg_notifier *n) {
    pthread_mutex_lock(&n->lock);
    if (--n->held == 0) n->owed = false;
    pthread_mutex_unlock(&n->lock);
}

void rg__notifier_unref(rg_notifier *n) { unref(n); }

void rg__notifier_post(rg_notifier *n, rg__ready *ready) {
    pthread_mutex_lock(&n->lock);
    if (!n->closed) {
        rg__list_add_tail(&n->done, &ready->node);
        wake(n);
    }
    pthread_mutex_unlock(&n->lock);
}

void rg__notifier_withdraw(rg_notifier *n, rg__ready *ready) {
    pthread_mutex_lock(&n->lock);
    rg__list_remove(&ready->node);
    pthread_mutex_unlock(&n->lock);
    unref(n);
}

bool rg__notifier_forget(rg_op *op) {
    rg_notifier *n = op->notifier;
    if (!n) return true;
    pthread_mutex_lock(&n->lock);
    atomic_store(&op->abandoned, true);
    bool done = atomic_load(&op->phase) == RG_OP_DONE;
    rg__list_remove(&op->done.node);
    pthread_mutex_unlock(&n->lock);
    return done;
}

void rg__notifier_release(rg_op *op) {
    if (op->notifier) unref(op->notifier);
    op->notifier = NULL;
}

static void swallow(rg_notifier *n) {
    char bytes[64];
    while (n->read_fd >= 0 && read(n->read_fd, bytes, sizeof bytes) > 0) {}
}

int rg_notifier_drain(rg_notifier *n, uint32_t *tags, uint32_t cap) {
    uint32_t got = 0;
    if (rg_engine_orphan(n->engine)) return 0; /* the bytes are its parent's */
    pthread_mutex_lock(&n->lock);
    swallow(n);
    if (n->read_fd < 0 && !n->closed) connected(n); /* at once: who is killed then leaves no folder behind */
    while (got < cap && !rg__list_empty(&n->done)) {
        rg__ready *ready = rg__container(n->done.next, rg__ready, node);
        rg__list_remove(&ready->node);
        tags[got++] = ready->tag;
    }
    if (rg__list_empty(&n->done)) n->waiting_byte = false;
    pthread_mutex_unlock(&n->lock);
    return (int)got;
}
