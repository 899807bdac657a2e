/* SPDX-License-Identifier: MIT */
/* A Redis that accepts connections and does not answer: after one read has waited in vain, the others
 * read past it at once, and one tries again from time to time. (Servers that refuse connections are the
 * pool's matter.) */
#include "base/err.h"
#include "cache/shared.h"

enum { BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 2000 };

bool rg__shared_away(const rg__shared *s) {
    int64_t until = atomic_load_explicit(&s->away_until_ms, memory_order_relaxed);
    return until && rg__now_ms() < until;
}

/* Past its time one caller may try: the others go on as before meanwhile. */
bool rg__breaker_open(rg__shared *s) {
    long long until = atomic_load_explicit(&s->away_until_ms, memory_order_relaxed);
    if (!until) return false;
    int64_t now = rg__now_ms();
    if (now < until) return true;
    return !atomic_compare_exchange_strong(&s->away_until_ms, &until, now + RG__READ_BOUND_MS);
}

void rg__breaker_note(rg__shared *s, bool timed_out) {
    if (!timed_out) {
        if (atomic_load_explicit(&s->away_until_ms, memory_order_relaxed))
            atomic_store(&s->away_until_ms, 0);
        atomic_store_explicit(&s->away_ms, 0, memory_order_relaxed);
        return;
    }
    int ms = atomic_load(&s->away_ms) * 2;
    ms = ms < BACKOFF_MIN_MS ? BACKOFF_MIN_MS : ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms;
    atomic_store(&s->away_ms, ms);
    atomic_store(&s->away_until_ms, rg__now_ms() + ms);
}

int rg__shared_ping(rg__shared *s, const rg__ctx *ctx, rg_err *err) {
    const char *argv[] = {"PING"};
    rg__redis *c = NULL;
    redisReply *r = NULL;
    int rc = rg__shared_acquire(s, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__redis_command(c, ctx, &r, err, 1, argv, NULL);
    freeReplyObject(r);
    rg__redis_release(c);
    return rc;
}
