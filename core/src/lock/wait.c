/* SPDX-License-Identifier: MIT */
/* Waiting for locks of others: one subscription a keeper, one topic a lock that is waited for. */
#include <strings.h>

#include "base/alloc.h"
#include "lock/keeper.h"

/* A word that was never heard costs no more than this. */
enum { LONGEST_WAIT_MS = 5000 };

static rg__topic *topic_of(rg__node *n) { return rg__container(n, rg__topic, node); }
static rg__dlock_waiter *waiter_of(rg__node *n) { return rg__container(n, rg__dlock_waiter, node); }

static rg__topic *find(rg__keeper *k, const char *channel, size_t len) {
    for (rg__node *n = k->topics.next; n != &k->topics; n = n->next) {
        rg__topic *t = topic_of(n);
        if (t->len == len && memcmp(t->channel, channel, len) == 0) return t;
    }
    return NULL;
}

static rg__topic *add(rg__keeper *k, const rg__dlock *l) {
    rg__topic *t = rg__calloc(1, sizeof *t);
    char *channel = rg__memdup0(l->key, l->key_len);
    if (!t || !channel) {
        rg__free(t);
        rg__free(channel);
        return NULL;
    }
    *t = (rg__topic){.channel = channel, .len = l->key_len};
    rg__list_init(&t->waiters);
    rg__list_add_tail(&k->topics, &t->node);
    return t;
}

void rg__topic_free(rg__topic *t) {
    rg__list_remove(&t->node);
    rg__free(t->channel);
    rg__free(t);
}

/* ---- those who wait ---- */

int rg__dlock_listen(rg__dlock *l, rg__dlock_waiter *w, rg_err *err) {
    rg__keeper *k = l->keeper;
    rg__list_init(&w->node);
    pthread_mutex_lock(&k->lock);
    w->topic = find(k, l->key, l->key_len);
    if (!w->topic) w->topic = add(k, l);
    if (w->topic) {
        w->topic->refs++;
        w->seen = w->topic->news;
        rg__keeper_wake(k);
    }
    pthread_mutex_unlock(&k->lock);
    return w->topic ? RG_OK : rg__fail_memory(err);
}

void rg__dlock_seen(rg__dlock *l, rg__dlock_waiter *w) {
    pthread_mutex_lock(&l->keeper->lock);
    w->seen = w->topic->news;
    pthread_mutex_unlock(&l->keeper->lock);
}

void rg__dlock_wait(rg__dlock *l, rg__dlock_waiter *w) {
    rg__keeper *k = l->keeper;
    int64_t latest = rg__now_ms() + LONGEST_WAIT_MS;
    if (w->deadline_ms > latest) w->deadline_ms = latest;
    pthread_mutex_lock(&k->lock);
    bool wait = w->seen == w->topic->news && !k->closed;
    if (wait) {
        rg__list_add_tail(&w->topic->waiters, &w->node);
        rg__keeper_wake(k);
    }
    pthread_mutex_unlock(&k->lock);
    if (!wait) w->fire(w);
}

void rg__dlock_wake(rg__dlock *l, rg__dlock_waiter *w) {
    rg__keeper *k = l->keeper;
    pthread_mutex_lock(&k->lock);
    bool waits = !rg__list_empty(&w->node);
    rg__list_remove(&w->node);
    pthread_mutex_unlock(&k->lock);
    if (waits) w->fire(w);
}

/* ---- firing: out of the lists under the lock, called without it ---- */

static void move(rg__dlock_waiter *w, rg__node *to) {
    rg__list_remove(&w->node);
    rg__list_add_tail(to, &w->node);
}

static rg__dlock_waiter *pop(rg__keeper *k, rg__node *list) {
    rg__dlock_waiter *w = NULL;
    pthread_mutex_lock(&k->lock);
    if (!rg__list_empty(list)) {
        w = waiter_of(list->next);
        rg__list_remove(&w->node);
    }
    pthread_mutex_unlock(&k->lock);
    return w;
}

static void fire(rg__keeper *k, rg__node *list) {
    for (rg__dlock_waiter *w = pop(k, list); w; w = pop(k, list)) w->fire(w);
}

/* Under the lock. Something is new: one waiter tries, those that come before their turn see it. */
static void tell(rg__topic *t, bool all, rg__node *out) {
    t->news++;
    while (!rg__list_empty(&t->waiters)) {
        move(waiter_of(t->waiters.next), out);
        if (!all) return;
    }
}

static void tell_all(rg__keeper *k, rg__node *out) {
    for (rg__node *n = k->topics.next; n != &k->topics; n = n->next) tell(topic_of(n), true, out);
}

/* The keeper ends the subscription. Who was told and did not try leaves it to the next. */
void rg__dlock_unlisten(rg__dlock *l, rg__dlock_waiter *w) {
    rg__keeper *k = l->keeper;
    rg__topic *t = w->topic;
    rg__node out;
    if (!t) return;
    rg__list_init(&out);
    pthread_mutex_lock(&k->lock);
    if (w->seen != t->news && !rg__list_empty(&t->waiters)) move(waiter_of(t->waiters.next), &out);
    t->refs--;
    w->topic = NULL;
    rg__keeper_wake(k);
    pthread_mutex_unlock(&k->lock);
    fire(k, &out);
}

void rg__ears_fire_all(rg__keeper *k) {
    rg__node out;
    rg__list_init(&out);
    pthread_mutex_lock(&k->lock);
    tell_all(k, &out);
    pthread_mutex_unlock(&k->lock);
    fire(k, &out);
}

static int64_t take_due(rg__topic *t, int64_t now, rg__node *out) {
    int64_t next_at = INT64_MAX;
    for (rg__node *n = t->waiters.next, *next; n != &t->waiters; n = next) {
        next = n->next;
        rg__dlock_waiter *w = waiter_of(n);
        if (w->deadline_ms <= now) move(w, out);
        else if (w->deadline_ms < next_at) next_at = w->deadline_ms;
    }
    return next_at;
}

int64_t rg__ears_fire_due(rg__keeper *k) {
    int64_t at = INT64_MAX;
    int64_t now = rg__now_ms();
    rg__node out;
    rg__list_init(&out);
    pthread_mutex_lock(&k->lock);
    for (rg__node *n = k->topics.next; n != &k->topics; n = n->next) {
        int64_t next = take_due(topic_of(n), now, &out);
        if (next < at) at = next;
    }
    pthread_mutex_unlock(&k->lock);
    fire(k, &out);
    return at;
}

/* ---- the subscription ---- */

/* Nothing was heard for a while: everybody looks for himself. */
static void deafen(rg__keeper *k) {
    rg__redis_release(k->ears);
    k->ears = NULL;
    k->ears_at = rg__now_ms() + RG__KEEPER_RETRY_MS;
    pthread_mutex_lock(&k->lock);
    for (rg__node *n = k->topics.next; n != &k->topics; n = n->next) topic_of(n)->state = RG__TOPIC_NEW;
    pthread_mutex_unlock(&k->lock);
}

static int ask(rg__keeper *k, const char *verb, const rg__topic *t) {
    const char *argv[] = {verb, t->channel};
    const size_t lens[] = {strlen(verb), t->len};
    return rg__redis_append(k->ears, 2, argv, lens, NULL);
}

/* Under the lock: what has changed since the last time. Appends only. */
static int adjust(rg__keeper *k) {
    int rc = RG_OK;
    for (rg__node *n = k->topics.next, *next; rc == RG_OK && n != &k->topics; n = next) {
        next = n->next;
        rg__topic *t = topic_of(n);
        if (t->refs == 0) {
            if (k->ears && t->state != RG__TOPIC_NEW) rc = ask(k, "UNSUBSCRIBE", t);
            rg__topic_free(t);
        } else if (k->ears && t->state == RG__TOPIC_NEW) {
            rc = ask(k, "SUBSCRIBE", t);
            t->state = RG__TOPIC_ASKED;
        }
    }
    return rc;
}

static void connect_ears(rg__keeper *k, const rg__ctx *ctx) {
    pthread_mutex_lock(&k->lock);
    bool needed = false;
    for (rg__node *n = k->topics.next; n != &k->topics; n = n->next) needed |= topic_of(n)->refs > 0;
    pthread_mutex_unlock(&k->lock);
    if (k->ears || !needed || rg__now_ms() < k->ears_at) return;
    if (rg__redis_dedicated(k->pool, ctx, &k->ears, NULL) == RG_OK) return;
    k->ears = NULL;
    k->ears_at = rg__now_ms() + RG__KEEPER_RETRY_MS;
}

void rg__ears_tend(rg__keeper *k) {
    const rg__ctx ctx = {.deadline_ms = rg__now_ms() + RG__KEEPER_CALL_MS, .metrics = k->metrics};
    connect_ears(k, &ctx);
    pthread_mutex_lock(&k->lock);
    int rc = adjust(k);
    pthread_mutex_unlock(&k->lock);
    if (k->ears && rc == RG_OK) rc = rg__redis_send(k->ears, &ctx, NULL);
    if (rc < 0) deafen(k);
}

/* ["message", channel, word], or ["subscribe", channel, n]: what was freed before that went unheard. */
static void take_message(rg__keeper *k, const redisReply *r, rg__node *out) {
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 3) return;
    const redisReply *kind = r->element[0];
    const redisReply *channel = r->element[1];
    if (kind->type != REDIS_REPLY_STRING || channel->type != REDIS_REPLY_STRING) return;
    rg__topic *t = find(k, channel->str, (size_t)channel->len);
    if (!t) return;
    if (strcasecmp(kind->str, "message") == 0) {
        tell(t, false, out);
    } else if (strcasecmp(kind->str, "subscribe") == 0 && t->state == RG__TOPIC_ASKED) {
        t->state = RG__TOPIC_ON;
        tell(t, true, out);
    }
}

void rg__ears_hear(rg__keeper *k) {
    rg__node out;
    rg__list_init(&out);
    int rc = 1;
    while (rc > 0) {
        redisReply *r = NULL;
        rc = rg__redis_poll(k->ears, 0, &r, NULL);
        if (rc <= 0) break;
        pthread_mutex_lock(&k->lock);
        take_message(k, r, &out);
        pthread_mutex_unlock(&k->lock);
        freeReplyObject(r);
    }
    if (rc < 0) deafen(k);
    fire(k, &out);
}
