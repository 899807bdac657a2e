/* SPDX-License-Identifier: MIT */
/* Coherence of the process tier: Redis tells which keys changed.
 *
 * Two connections, as RESP2 has no pushes: one is subscribed to the invalidation channel, the other
 * asks for tracking and has its messages sent there. Both are pinged: an answer means that every
 * invalidation sent before it has been read. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/err.h"
#include "base/thread.h"
#include "cache/arena.h"
#include "cache/shared.h"
#include "cache/value.h"

enum {
    PING_MS = 1000,
    PONG_MS = 500,
    BACKOFF_MIN_MS = 50,
    BACKOFF_MAX_MS = 1000,
    STANDBY_MS = 100, /* another process listens for all: how often it is looked whether it does */
};

struct rg__coherence {
    rg__shared *shared;
    rg__process *process;
    rg__arena *arena;      /* of the process tier: one of all processes listens for all; or NULL */
    uint32_t number;       /* among its channels */
    rg__map *spaces;       /* "<table>:" and "<table>:<index>:" -> targets; read only */
    pthread_mutex_t lock;  /* guards the four that follow; start and stop take it */
    pthread_t thread;
    int wake;              /* eventfd that ends waits; -1: none */
    bool closed;           /* stopped for good */
    bool held;             /* the process tier was held off by the first start */
    atomic_uint home;      /* the fork generation whose thread runs; 0: none does */
    atomic_bool stop;
    atomic_bool ok;
    /* the thread's own */
    rg__redis *listener, *tracker;
    int64_t ping_at_ms;    /* when to ping next */
    int64_t pong_until_ms; /* 0: no ping is out */
    int pongs;             /* that are still to come */
    int64_t vouched_ms;    /* the ping_at_ms that the process tier was vouched for with */
    uint64_t word;         /* what says in the arena that it listens; 0: another one may */
};

/* ---- names of keys back to places in the process tier ---- */

/* Several types may live in one table. */
typedef struct target {
    uint32_t space;
    struct target *next;
} target;

static int add_target(rg__map *m, const rg__buf *name, uint32_t space) {
    target *t = rg__malloc(sizeof *t);
    if (!t || name->failed) {
        rg__free(t);
        return RG_ENO_MEMORY;
    }
    *t = (target){space, rg__map_get(m, name->p, name->len)};
    int rc = rg__map_put(m, name->p, name->len, t, NULL);
    if (rc < 0) rg__free(t);
    return rc;
}

static int add_type(rg__map *m, const rg_type *t) {
    rg__buf name = {0};
    rg__key_table(t, &name);
    rg__buf_char(&name, ':');
    size_t table_len = name.len;
    int rc = add_target(m, &name, t->space);
    for (uint32_t i = 0; rc == RG_OK && i < t->n_indexes; i++) {
        name.len = table_len;
        rg__key_index(&t->indexes[i], &name);
        rc = add_target(m, &name, t->space + 1 + i);
    }
    rg__buf_deinit(&name);
    return rc;
}

static rg__map *map_spaces(const rg__schema *schema) {
    rg__map *m = rg__map_new();
    int rc = m ? RG_OK : RG_ENO_MEMORY;
    for (uint32_t i = 0; rc == RG_OK && i < schema->n; i++) rc = add_type(m, schema->types[i]);
    if (rc == RG_OK || !m) return m;
    rg__map_free(m); /* out of memory at start-up: the few targets made are lost */
    return NULL;
}

static void free_spaces(rg__map *m) {
    size_t at = 0;
    rg__slice name;
    void *value;
    while (m && rg__map_next(m, &at, &name, &value))
        for (target *t = value, *next; t; t = next) {
            next = t->next;
            rg__free(t);
        }
    rg__map_free(m);
}

/* Length of the first n parts, their colons included; 0 when there are fewer. */
static size_t parts_len(rg__slice s, int n) {
    const char *p = s.p;
    while (n-- > 0) {
        p = memchr(p, ':', s.len - (size_t)(p - s.p));
        if (!p) return 0;
        p++;
    }
    return (size_t)(p - s.p);
}

static bool parse_id(rg__slice s, uint64_t *id) {
    if (s.len == 0 || s.len > 20) return false;
    *id = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        *id = *id * 10 + (uint64_t)(s.p[i] - '0');
    }
    return true;
}

static void drop_key(rg__coherence *c, rg__slice rest, bool is_row) {
    size_t name_len = parts_len(rest, is_row ? 1 : 2);
    const target *t = name_len ? rg__map_get(c->spaces, rest.p, name_len) : NULL;
    if (!t) return;
    rg__slice k = {rest.p + name_len, rest.len - name_len};
    uint64_t key;
    if (rg__slice_eq(k, rg__slice_of(RG__ALL_ROWS))) {
        rg__process_clear(c->process);
        return;
    }
    if (!is_row) key = rg__key_hash(c->shared, k);
    else if (!parse_id(k, &key)) return;
    for (; t; t = t->next) rg__process_drop(c->process, t->space, key);
}

static bool begins(rg__slice s, const rg__name *with) {
    return s.len >= with->len && memcmp(s.p, with->text, with->len) == 0;
}

/* With another epoch everything that was read before counts for nothing. */
static void forget_epoch(rg__coherence *c) {
    atomic_fetch_add(&c->shared->told->epochs, 1);
    rg__process_clear(c->process);
}

static void invalidate(rg__coherence *c, rg__slice key) {
    const rg__shared *s = c->shared;
    if (begins(key, &s->rows))
        drop_key(c, (rg__slice){key.p + s->rows.len, key.len - s->rows.len}, true);
    else if (begins(key, &s->lookups))
        drop_key(c, (rg__slice){key.p + s->lookups.len, key.len - s->lookups.len}, false);
    else if (key.len == s->epoch_key.len && begins(key, &s->epoch_key))
        forget_epoch(c);
    else
        rg__values_invalidate(c->shared, c->process, key);
}

/* ---- messages ---- */

static bool is_text(const redisReply *r, const char *text) {
    return (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS) &&
           strcasecmp(r->str, text) == 0;
}

/* A list of keys, or nil: everything. */
static void take_keys(rg__coherence *c, const redisReply *keys) {
    if (keys->type != REDIS_REPLY_ARRAY) {
        forget_epoch(c);
        return;
    }
    for (size_t i = 0; i < keys->elements; i++) {
        const redisReply *k = keys->element[i];
        if (k->type == REDIS_REPLY_STRING) invalidate(c, (rg__slice){k->str, (size_t)k->len});
    }
}

/* ["message", channel, keys], ["pong", ""], or +PONG before the subscription. */
static void take_message(rg__coherence *c, const redisReply *r) {
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 2) return;
    if (is_text(r->element[0], "message") && r->elements == 3) take_keys(c, r->element[2]);
    else if (is_text(r->element[0], "pong") && c->pongs > 0) c->pongs--;
}

static int drain_listener(rg__coherence *c) {
    for (;;) {
        redisReply *r = NULL;
        int rc = rg__redis_poll(c->listener, 0, &r, NULL);
        if (rc <= 0) return rc;
        take_message(c, r);
        freeReplyObject(r);
    }
}

/* The tracker hears nothing but the answers to its pings. */
static int drain_tracker(rg__coherence *c) {
    for (;;) {
        redisReply *r = NULL;
        int rc = rg__redis_poll(c->tracker, 0, &r, NULL);
        if (rc <= 0) return rc;
        bool pong = is_text(r, "PONG");
        freeReplyObject(r);
        if (!pong) return RG_EREDIS;
        if (c->pongs > 0) c->pongs--;
    }
}

/* ---- connecting ---- */

static int command(rg__redis *r, const rg__ctx *ctx, redisReply **reply, int argc,
                   const char *const *argv) {
    return rg__redis_command(r, ctx, reply, NULL, argc, argv, NULL);
}

static int listen(rg__coherence *c, const rg__ctx *ctx, long long *id) {
    const char *who[] = {"CLIENT", "ID"};
    const char *subscribe[] = {"SUBSCRIBE", "__redis__:invalidate"};
    redisReply *r = NULL;
    int rc = rg__redis_dedicated_until(c->shared->pool, ctx, &c->stop, &c->listener, NULL);
    if (rc == RG_OK) rc = rg__life_ask(c->shared, c->listener, ctx, NULL);
    if (rc == RG_OK) rc = command(c->listener, ctx, &r, 2, who);
    if (rc == RG_OK) *id = r->integer;
    freeReplyObject(r);
    r = NULL;
    if (rc == RG_OK) rc = command(c->listener, ctx, &r, 2, subscribe);
    freeReplyObject(r);
    return rc;
}

static void add_prefix(rg__args *a, const char *text, size_t len) {
    rg__args_add(a, "PREFIX", 6);
    rg__args_add(a, text, len);
}

/* Value caches that no process keeps are not announced. */
static void add_prefixes(rg__args *a, const rg__shared *s) {
    const rg__name *const names[] = {&s->rows, &s->lookups, &s->epoch_key};
    bool any = false;
    for (int i = 0; i < 3; i++) add_prefix(a, names[i]->text, names[i]->len);
    for (uint32_t i = 0; i < s->n_values; i++) {
        if (!s->values[i]->process) continue;
        any = true;
        add_prefix(a, s->values[i]->prefix, s->values[i]->prefix_len);
    }
    if (any) add_prefix(a, s->deps.text, s->deps.len);
}

static int track(rg__coherence *c, const rg__ctx *ctx, long long listener_id) {
    static const char *const words[] = {"CLIENT", "TRACKING", "ON", "REDIRECT"};
    char id[24];
    rg__args a;
    redisReply *r = NULL;
    rg__args_init(&a);
    for (int i = 0; i < 4; i++) rg__args_add(&a, words[i], strlen(words[i]));
    rg__args_add(&a, id, (size_t)snprintf(id, sizeof id, "%lld", listener_id));
    rg__args_add(&a, "BCAST", 5);
    add_prefixes(&a, c->shared);
    int rc = a.failed ? RG_ENO_MEMORY : RG_OK;
    if (rc == RG_OK)
        rc = rg__redis_dedicated_until(c->shared->pool, ctx, &c->stop, &c->tracker, NULL);
    if (rc == RG_OK) rc = rg__redis_command(c->tracker, ctx, &r, NULL, a.n, a.argv, a.lens);
    freeReplyObject(r);
    rg__args_deinit(&a);
    return rc;
}

static int connect_both(rg__coherence *c) {
    const rg__ctx ctx = {.deadline_ms = rg__now_ms() + PING_MS};
    long long id = 0;
    int rc = listen(c, &ctx, &id);
    return rc == RG_OK ? track(c, &ctx, id) : rc;
}

/* By the channel's thread alone. Who sees the change sees the cache follow it: held off once while not ok. */
static void set_ok(rg__coherence *c, bool ok) {
    bool changes = atomic_load(&c->ok) != ok;
    if (changes && !c->arena) rg__process_enable(c->process, ok);
    if (changes && !ok) rg__count(c->shared->metrics, RG__C_PROCESS_CLEARED, 1);
    atomic_store(&c->ok, ok);
}

/* Both pings were answered: what was told before they were sent is dropped. */
static int keep_alive(rg__coherence *c) {
    bool mine = !c->arena || rg__arena_beat(c->arena, c->number, &c->word, c->ping_at_ms + PONG_MS);
    if (!c->arena && c->vouched_ms != c->ping_at_ms) {
        c->vouched_ms = c->ping_at_ms;
        rg__process_vouch(c->process, c->number, c->ping_at_ms + PONG_MS);
    }
    if (mine) set_ok(c, true);
    return mine ? RG_OK : RG_ECANCELLED;
}

static void disconnect(rg__coherence *c) {
    set_ok(c, false);
    if (c->arena) rg__arena_resign(c->arena, c->number, &c->word);
    rg__redis_release(c->listener);
    rg__redis_release(c->tracker);
    c->listener = c->tracker = NULL;
    c->pongs = 0;
    c->pong_until_ms = 0;
}

/* ---- the thread ---- */

static bool stopping(const rg__coherence *c) { return atomic_load(&c->stop); }

static int ping(rg__redis *r) {
    const char *argv[] = {"PING"};
    const rg__ctx ctx = {.deadline_ms = rg__now_ms() + PONG_MS};
    int rc = rg__redis_append(r, 1, argv, NULL, NULL);
    return rc == RG_OK ? rg__redis_send(r, &ctx, NULL) : rc;
}

static int ping_both(rg__coherence *c, int64_t now) {
    c->pongs = 2;
    c->pong_until_ms = now + PONG_MS;
    c->ping_at_ms = now + PING_MS;
    int rc = ping(c->listener);
    return rc == RG_OK ? ping(c->tracker) : rc;
}

static int keep_time(rg__coherence *c) {
    int64_t now = rg__now_ms();
    if (c->pongs == 0) c->pong_until_ms = 0;
    if (c->pong_until_ms && now >= c->pong_until_ms) return RG_ETIMEOUT;
    return !c->pong_until_ms && now >= c->ping_at_ms ? ping_both(c, now) : RG_OK;
}

/* Waits for either connection, the next thing to do, or the end. */
static int wait_some(rg__coherence *c) {
    struct pollfd p[] = {{.fd = rg__redis_fd(c->listener), .events = POLLIN},
                         {.fd = rg__redis_fd(c->tracker), .events = POLLIN},
                         {.fd = c->wake, .events = POLLIN}};
    int64_t next = c->pong_until_ms ? c->pong_until_ms : c->ping_at_ms;
    if (poll(p, 3, rg__left_ms(next)) < 0 && errno != EINTR) return RG_EUNAVAILABLE;
    int rc = p[0].revents ? drain_listener(c) : RG_OK;
    if (rc >= 0 && p[1].revents) rc = drain_tracker(c);
    return rc;
}

/* The first ping's answers open the cache; an overdue one closes it. */
static void follow(rg__coherence *c) {
    int rc = ping_both(c, rg__now_ms());
    while (rc >= 0 && !stopping(c)) {
        rc = wait_some(c);
        if (rc >= 0 && c->pongs == 0) rc = keep_alive(c);
        if (rc >= 0) rc = keep_time(c);
    }
}

static void pause_for(const rg__coherence *c, int ms) {
    struct pollfd p = {.fd = c->wake, .events = POLLIN};
    if (!stopping(c)) poll(&p, 1, ms);
}

/* False: another process does. */
static bool may_listen(rg__coherence *c, uint16_t id) {
    if (!c->arena || rg__arena_claim(c->arena, c->number, id, &c->word)) return true;
    pause_for(c, STANDBY_MS);
    return false;
}

static void *run(void *arg) {
    rg__coherence *c = arg;
    int backoff = BACKOFF_MIN_MS;
    uint16_t id = 0;
    while (id == 0) rg__random(&id, sizeof id);
    while (!stopping(c)) {
        if (!may_listen(c, id)) continue;
        if (connect_both(c) == RG_OK) {
            backoff = BACKOFF_MIN_MS;
            follow(c);
        }
        disconnect(c);
        pause_for(c, backoff);
        backoff = backoff * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoff * 2;
    }
    return NULL;
}

/* ---- forks ---- */

/* Counts the forks that led to this process, from 1: cheaper to ask than the process id. */
static atomic_uint generation = 1;
static pthread_once_t generation_once = PTHREAD_ONCE_INIT;

static void count_fork(void) { atomic_fetch_add(&generation, 1); }
static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

static bool at_home(const rg__coherence *c) {
    return atomic_load_explicit(&c->home, memory_order_acquire) ==
           atomic_load_explicit(&generation, memory_order_relaxed);
}

/* In a child: the thread and its connections stayed with the parent. */
static void forget_fork(rg__coherence *c) {
    pthread_mutex_init(&c->lock, NULL);
    rg__redis_pool_abandon(c->shared->pool);
    rg__process_abandon(c->process);
    c->word = 0; /* the parent's */
    set_ok(c, false);
    if (c->wake >= 0) close(c->wake);
    c->wake = -1;
    c->listener = c->tracker = NULL;
    atomic_store(&c->home, 0);
}

/* ---- life ---- */

rg__coherence *rg__coherence_new(rg__shared *s, rg__process *p, rg_err *err) {
    rg__coherence *c = rg__calloc(1, sizeof *c);
    if (c) c->spaces = map_spaces(s->schema);
    if (!c || !c->spaces) {
        rg__free(c);
        rg__fail_memory(err);
        return NULL;
    }
    pthread_once(&generation_once, watch_forks);
    c->shared = s;
    c->process = p;
    c->arena = p ? rg__process_arena(p) : NULL;
    c->wake = -1;
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void rg__coherence_number(rg__coherence *c, uint32_t number) { c->number = number; }

bool rg__coherence_ok(const rg__coherence *c) {
    return at_home(c) && (c->arena ? rg__process_is_on(c->process) : atomic_load(&c->ok));
}

/* Under the lock. The first start holds the cache off until the channel is known to work. */
static int start(rg__coherence *c, rg_err *err) {
    if (c->closed) return rg__fail(err, RG_ECLOSED, "the engine is closing");
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake < 0) return rg__fail(err, RG_ELIMIT, "eventfd: %m");
    if (c->arena) rg__arena_need(c->arena, c->number);
    else if (!c->held) rg__process_enable(c->process, false);
    c->held = true;
    int rc = rg__thread_start(&c->thread, "rg-coherence", run, c);
    if (rc == RG_OK) {
        atomic_store_explicit(&c->home, atomic_load(&generation), memory_order_release);
        return RG_OK;
    }
    close(c->wake);
    c->wake = -1;
    return rg__fail(err, rc, "no thread for the coherence of the process cache");
}

int rg__coherence_start(rg__coherence *c, rg_err *err) {
    if (at_home(c)) return RG_OK;
    if (atomic_load(&c->home)) forget_fork(c);
    pthread_mutex_lock(&c->lock);
    int rc = at_home(c) ? RG_OK : start(c, err);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* Under the lock. */
static void stop(rg__coherence *c) {
    uint64_t one = 1;
    atomic_store(&c->stop, true);
    if (write(c->wake, &one, sizeof one) < 0) return; /* never: its counter is far from full */
    pthread_join(c->thread, NULL);
    close(c->wake);
    c->wake = -1;
    atomic_store(&c->home, 0);
}

void rg__coherence_stop(rg__coherence *c) {
    if (!c) return;
    if (atomic_load(&c->home) && !at_home(c)) forget_fork(c);
    pthread_mutex_lock(&c->lock);
    c->closed = true;
    if (at_home(c)) stop(c);
    pthread_mutex_unlock(&c->lock);
}

void rg__coherence_free(rg__coherence *c) {
    if (!c) return;
    rg__coherence_stop(c);
    free_spaces(c->spaces);
    pthread_mutex_destroy(&c->lock);
    rg__free(c);
}
