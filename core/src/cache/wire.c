/* SPDX-License-Identifier: MIT */
/* Plain reads over a wire: what cache/shared.c does in one exchange, in parts that do not wait. The rules are the
 * same; whatever is not plain here (a life to be asked, an epoch to agree on) is left to an ordinary read. */
#include "base/err.h"
#include "cache/shared.h"

int rg__wire_greet(rg__shared *s, rg__redis *c, rg_err *err) { return rg__life_append(s, c, err); }

/* Another epoch, or one that this process has not agreed on: the next ordinary read asks. */
bool rg__wire_greeted(rg__shared *s, rg__redis *c, const redisReply *r) {
    if (r->type != REDIS_REPLY_STRING || r->len != 8) return false;
    uint64_t epoch = rg__epoch_of(r->str);
    if (epoch != rg__shared_epoch(s)) rg__shared_learn(s, epoch);
    else if (atomic_load(&s->agreed) == epoch) *rg__redis_note(c) = true;
    return *rg__redis_note(c);
}

bool rg__wire_ready(rg__shared *s, rg__redis *c) {
    return !atomic_load_explicit(&s->away_until_ms, memory_order_relaxed) && !rg__life_due(s, c);
}

bool rg__wire_worthwhile(const rg__shared *s) {
    int64_t at = atomic_load(&s->epoch_at_ms);
    return at && rg__now_ms() - at <= RG__EPOCH_AGE_MS && !atomic_load(&s->away_until_ms);
}

void rg__wire_lost(rg__shared *s) { atomic_store(&s->epoch_at_ms, 0); }

int rg__wire_ask(rg__shared *s, rg__redis *c, const rg__wire_key *keys, size_t n, rg__buf *room, rg_err *err) {
    rg__args a;
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += rg__key_row_room(s, keys[i].type);
    rg__buf_clear(room);
    char *p = rg__buf_reserve(room, bytes);
    if (!p) return rg__fail_memory(err);
    rg__args_init(&a);
    rg__args_add(&a, "MGET", 4);
    for (size_t i = 0; i < n; i++) {
        rg__key key;
        rg__key_row_in(s, keys[i].type, keys[i].id, p, &key);
        rg__args_add(&a, key.text, key.len);
        p += rg__key_row_room(s, keys[i].type);
    }
    int rc = a.failed ? rg__fail_memory(err) : rg__redis_append(c, a.n, a.argv, a.lens, err);
    rg__args_deinit(&a);
    return rc;
}

rg__found rg__wire_read(rg__shared *s, const rg__wire_key *k, rg__slice bytes, rg_block **row) {
    const rg__key key = {.space = k->type->space, .hash = k->id};
    uint64_t epoch = atomic_load_explicit(&s->epoch, memory_order_relaxed);
    rg__entry e = {0};
    bool sound = rg__entry_read(k->type, true, &key, bytes, epoch, &e);
    bool clean = sound && !e.suspect && (e.found == RG__VALUE || e.found == RG__ABSENT);
    *row = clean ? e.block : NULL;
    if (clean) e.block = NULL;
    rg__entry_deinit(&e);
    return clean ? e.found : RG__MISS;
}

void rg__wire_answered(rg__shared *s, size_t hits) {
    if (hits) rg__count(s->metrics, RG__C_REDIS_HIT, hits);
    rg__breaker_note(s, false);
}

void rg__wire_late(rg__shared *s) { rg__breaker_note(s, true); }
