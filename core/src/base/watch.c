/* SPDX-License-Identifier: MIT */
/* The watchdog: one thread that shuts sockets down when their calls' deadlines pass. */
#include "base/clock.h"
#include "base/thread.h"

#include <sys/socket.h>

enum { CANCEL_SLICE_MS = 50 }; /* how long a cancelled call may go on */

/* Everything below is under the lock, a leaf: nothing is locked while it is held. Sockets are shut
 * down under it too: after disarm the descriptor may be closed and its number used again. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    pthread_once_t once;
    rg__watch *head;
    int64_t wakes_ms; /* when the thread looks next, by itself */
    pthread_t thread;
    bool running;   /* `thread` is to be joined */
    uintptr_t turn; /* the thread that serves; one with another number ends */
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT, .wakes_ms = RG__NO_DEADLINE};

static void unlink_watch(rg__watch *w) {
    if (w->prev) w->prev->next = w->next;
    else dog.head = w->next;
    if (w->next) w->next->prev = w->prev;
    w->prev = w->next = NULL;
    w->armed = false;
}

static bool is_due(const rg__watch *w, int64_t now) {
    return w->deadline_ms <= now || (w->cancelled && atomic_load_explicit(w->cancelled, memory_order_relaxed));
}

static void fire_due(int64_t now) {
    for (rg__watch *w = dog.head, *next; w; w = next) {
        next = w->next;
        if (!is_due(w, now)) continue;
        w->fired = true;
        shutdown(w->fd, SHUT_RDWR);
        unlink_watch(w);
    }
}

static int64_t looks_at(const rg__watch *w, int64_t now) {
    int64_t slice = now + CANCEL_SLICE_MS;
    return w->cancelled && slice < w->deadline_ms ? slice : w->deadline_ms;
}

static int64_t nearest(int64_t now) {
    int64_t at = RG__NO_DEADLINE;
    for (const rg__watch *w = dog.head; w; w = w->next)
        if (looks_at(w, now) < at) at = looks_at(w, now);
    return at;
}

static void *watch(void *turn) {
    pthread_mutex_lock(&dog.lock);
    while (dog.turn == (uintptr_t)turn) {
        int64_t now = rg__now_ms();
        fire_due(now);
        dog.wakes_ms = nearest(now);
        rg__cond_wait(&dog.cond, &dog.lock, dog.wakes_ms);
    }
    pthread_mutex_unlock(&dog.lock);
    return NULL;
}

/* ---- fork: the child has the list and no thread; none of the calls in the list is its own ---- */

static void before_fork(void) { pthread_mutex_lock(&dog.lock); }
static void in_parent(void) { pthread_mutex_unlock(&dog.lock); }

static void in_child(void) {
    while (dog.head) unlink_watch(dog.head);
    dog.running = false;
    dog.wakes_ms = RG__NO_DEADLINE;
    rg__cond_init(&dog.cond);
    pthread_mutex_unlock(&dog.lock);
}

static void prepare(void) {
    rg__cond_init(&dog.cond);
    pthread_atfork(before_fork, in_parent, in_child);
}

/* ---- public ---- */

static void ensure_thread(void) {
    if (dog.running) return;
    dog.wakes_ms = RG__NO_DEADLINE;
    dog.turn++;
    dog.running = rg__thread_start(&dog.thread, "rg-watchdog", watch, (void *)dog.turn) == 0;
}

void rg__watch_arm(rg__watch *w, int fd, int64_t deadline_ms, const atomic_bool *cancelled) {
    *w = (rg__watch){.fd = fd, .deadline_ms = deadline_ms, .cancelled = cancelled};
    if (deadline_ms == RG__NO_DEADLINE && !cancelled) return;
    pthread_once(&dog.once, prepare);
    pthread_mutex_lock(&dog.lock);
    ensure_thread();
    w->armed = true;
    w->next = dog.head;
    if (dog.head) dog.head->prev = w;
    dog.head = w;
    if (looks_at(w, rg__now_ms()) < dog.wakes_ms) pthread_cond_signal(&dog.cond);
    pthread_mutex_unlock(&dog.lock);
}

bool rg__watch_disarm(rg__watch *w) {
    if (w->deadline_ms == RG__NO_DEADLINE && !w->cancelled) return false;
    pthread_mutex_lock(&dog.lock);
    if (w->armed) unlink_watch(w);
    bool fired = w->fired;
    pthread_mutex_unlock(&dog.lock);
    return fired;
}

void rg__watch_stop(void) {
    pthread_mutex_lock(&dog.lock);
    bool mine = dog.running;
    pthread_t thread = dog.thread;
    dog.running = false;
    dog.turn++;
    if (mine) pthread_cond_signal(&dog.cond);
    pthread_mutex_unlock(&dog.lock);
    if (mine) pthread_join(thread, NULL);
}
