/* SPDX-License-Identifier: MIT */
/* The queue's side: enqueue and overlay in one script, and settling what was applied. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/enqueue.h"
#include "row/row.h"

RG__SCRIPT(applied, applied);
RG__SCRIPT(enqueue, enqueue);

enum {
    RETRY_MIN_MS = 5,
    RETRY_MAX_MS = 100,
    WITHOUT_DEADLINE_MS = 30000,
    WITHIN_MS = 500, /* for the answer to a command that waits by itself */
    ANSWER_QUEUED = 0, /* what the script answers first */
    ANSWER_FULL = 1,
    ANSWER_STALE = 2,
    ANSWER_PARTS = 3,
    ANSWER_TAKEN = 4,
    ANSWER_SUSPECT = 5,
};

/* ---- the call ---- */

static bool is_answer(const redisReply *r) {
    return r->type == REDIS_REPLY_ARRAY && r->elements > 0 &&
           r->element[0]->type == REDIS_REPLY_INTEGER;
}

/* WAIT 1 ms, or WAITAOF 1 0 ms: how many have it. */
static void wait_for_others(rg__enqueueing *e, rg__redis *c, const rg__ctx *ctx) {
    char ms[16];
    rg__ctx longer = *ctx;
    redisReply *r = NULL;
    const char *replica[] = {"WAIT", "1", ms};
    const char *disk[] = {"WAITAOF", "1", "0", ms};
    snprintf(ms, sizeof ms, "%u", e->q->replica_ms);
    longer.deadline_ms = rg__now_ms() + e->q->replica_ms + WITHIN_MS;
    int rc = e->q->fsync ? rg__redis_command(c, &longer, &r, &e->unsafe, 4, disk, NULL)
                         : rg__redis_command(c, &longer, &r, &e->unsafe, 3, replica, NULL);
    const redisReply *n = rc == RG_OK && r->type == REDIS_REPLY_ARRAY && r->elements ? r->element[0] : r;
    if (rc == RG_OK && (n->type != REDIS_REPLY_INTEGER || n->integer < 1))
        rg__fail(&e->unsafe, RG_EDURABILITY, "%s has it after %s ms",
                 e->q->fsync ? "no disk" : "no replica", ms);
    freeReplyObject(r);
}

/* *sent: the script may have run although no answer came. */
static int call(rg__enqueueing *e, const rg__ctx *ctx, redisReply **reply, bool *sent, rg_err *err) {
    rg__redis *c = NULL;
    int rc = rg__shared_acquire(e->s, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__script_call(c, ctx, &enqueue, e->nkeys, e->args.n, e->args.argv, e->args.lens, reply,
                         err);
    bool wait = rc == RG_OK && e->q->replica_ms && is_answer(*reply) &&
                (*reply)->element[0]->integer == ANSWER_QUEUED;
    if (wait) wait_for_others(e, c, ctx);
    rg__redis_release(c);
    if (rc == RG_OK && !is_answer(*reply))
        rc = rg__fail(err, RG_ECORRUPT, "ENQUEUE did not answer");
    if (rc == RG_EUNAVAILABLE && err->cls == RG_CLASS_WAIT && strstr(err->message, "OOM")) {
        rg__err_prefix(err, "Redis has no memory for the queue: ");
        err->code = rc = RG_EBACKPRESSURE;
    }
    bool lost = rc == RG_EUNAVAILABLE || rc == RG_ETIMEOUT || rc == RG_ECLOSED || rc == RG_ECORRUPT;
    *sent |= lost && err->cls != RG_CLASS_WAIT && e->q->payload.len;
    return rc;
}

static int ambiguous(rg_err *err) {
    rg__err_prefix(err, "whether the operations were queued is not known: ");
    err->code = RG_EUNAVAILABLE;
    err->cls = RG_CLASS_AMBIGUOUS;
    err->retriable = 0;
    return RG_EUNAVAILABLE;
}

/* A call whose answer got lost is sent again until it is known: the script remembers it. */
static int call_until(rg__enqueueing *e, const rg__ctx *ctx, redisReply **reply, bool *sent,
                      rg_err *err) {
    int64_t pause = RETRY_MIN_MS;
    for (;;) {
        rg_err why = {0};
        int rc = call(e, ctx, reply, sent, &why);
        if (rc == RG_OK) return RG_OK;
        bool over = rg__left_ms(ctx->deadline_ms) == 0 || rc == RG_ECLOSED || rc == RG_ENO_MEMORY;
        if (!*sent || over) {
            rc = *sent ? ambiguous(&why) : rc;
            if (err) *err = why;
            return rc;
        }
        rg__sleep_ms(pause < rg__left_ms(ctx->deadline_ms) ? pause : rg__left_ms(ctx->deadline_ms));
        pause = pause * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : pause * 2;
    }
}

/* ---- the answer ---- */

/* Only when the first call was answered: of one that was sent twice a copy may still be under way.
 */
static void remember_to_forget(rg__enqueueing *e) {
    rg__shared *s = e->s;
    rg__name name = {rg__memdup0(e->field.p, e->field.len), (uint32_t)e->field.len};
    pthread_mutex_lock(&s->forget_lock);
    bool kept = name.text && s->n_forget < RG__FORGET;
    if (kept) s->forget[s->n_forget++] = name;
    pthread_mutex_unlock(&s->forget_lock);
    if (!kept) rg__free(name.text);
}

static int queued(rg__enqueueing *e, const redisReply *r, bool once, char id[48], rg_err *err) {
    if (r->elements < 4 || r->element[1]->type != REDIS_REPLY_STRING || r->element[1]->len >= 48)
        return rg__fail(err, RG_ECORRUPT, "ENQUEUE told no id");
    memcpy(id, r->element[1]->str, (size_t)r->element[1]->len + 1);
    if (e->q->payload.len == 0) return RG_OK;
    rg__stream_id_learn(e->s, id, r->element[2]->integer);
    if (r->element[3]->len == 8) rg__shared_learn(e->s, rg__epoch_of(r->element[3]->str));
    if (once && !e->q->keep) remember_to_forget(e);
    if (!e->unsafe.code) return RG_OK;
    if (err) *err = e->unsafe;
    rg__err_prefix(err, "the operations are queued, but not as safely as was asked for: ");
    if (!err) return RG_EDURABILITY;
    err->code = RG_EDURABILITY;
    err->cls = RG_CLASS_NONE;
    err->retriable = 0;
    return RG_EDURABILITY;
}

/* A row that cannot be read is to be loaded, which replaces it; one that is queued, by a program with other
 * columns, is to be waited for. */
static void take_current(const rg__change *c, const redisReply *r, uint8_t *stale,
                         rg_block **current) {
    rg__slice bytes = {r->str, r->type == REDIS_REPLY_STRING ? (size_t)r->len : 0};
    *current = rg__entry_row(c->type, c->key.hash, bytes);
    if (*current || bytes.len == 0) return;
    if (bytes.p[0] == 'V') *stale = RG__STALE_ABSENT;
    if (bytes.p[0] == 'P') *stale = RG__STALE_MARKED;
}

static int conflict(rg__enqueueing *e, const redisReply *r, uint8_t *stale, rg_block **current,
                    rg_err *err) {
    if (r->elements < 2 || r->element[1]->type != REDIS_REPLY_STRING ||
        (size_t)r->element[1]->len != e->n)
        return rg__fail(err, RG_ECORRUPT, "ENQUEUE did not judge each key");
    size_t at = 2;
    for (size_t i = 0; i < e->n; i++) {
        int32_t first = e->groups[i].first;
        stale[first] = (uint8_t)(r->element[1]->str[i] - '0');
        if (stale[first] == RG__STALE_OTHER && at < r->elements)
            take_current(&e->q->changes[first], r->element[at++], &stale[first], &current[first]);
        /* what was read as valid may be of an epoch that is over */
        if (stale[first] == RG__STALE_ABSENT) atomic_store(&e->s->epoch_at_ms, 0);
    }
    return rg__fail(err, RG_ECONFLICT, "rows changed since they were read");
}

static int other_parts(const rg__enqueueing *e, const redisReply *r, rg_err *err) {
    long long n = r->elements > 1 ? r->element[1]->integer : 0;
    rg__fail(err, RG_ECONFIG, "queue %s has %lld partitions, not %u, until all that was queued is "
                              "applied", e->q->queue ? e->q->queue : "", n, e->q->n_parts);
    if (err) err->retriable = 1;
    return RG_ECONFIG;
}

/* Change i takes a unique value that is not to be had. */
static int refuse(const rg__enqueueing *e, int32_t i, const char *why, uint8_t *stale, rg_err *err) {
    const rg__change *c = &e->q->changes[i];
    stale[i] = 1;
    rg__fail(err, RG_EDUPLICATE_KEY, "%s: unique index %s: %s", c->type->name, rg__change_index(c)->name, why);
    rg__err_set_entity(err, c->type->name);
    if (!err) return RG_EDUPLICATE_KEY;
    snprintf(err->index, sizeof err->index, "%s", rg__change_index(c)->name);
    err->cls = RG_CLASS_PERMANENT;
    return RG_EDUPLICATE_KEY;
}

/* Another row has the value, or is queued to get it. */
static int taken(const rg__enqueueing *e, const redisReply *r, uint8_t *stale, rg_err *err) {
    long long at = r->elements > 1 ? r->element[1]->integer : 0;
    if (at < 1 || (size_t)at > e->n) return rg__fail(err, RG_ECORRUPT, "ENQUEUE told no key");
    int32_t i = e->groups[at - 1].first;
    while (!e->q->changes[i].add && e->next[i] != RG__NONE) i = e->next[i];
    return refuse(e, i, "another row has this value, or is queued to get it", stale, err);
}

/* ---- what the flush itself cannot be ---- */

static bool gives_up_later(const rg__enqueueing *e, int32_t i) {
    uint64_t id = e->q->changes[i].id;
    for (int32_t k = e->next[i]; k != RG__NONE; k = e->next[k])
        if (!e->q->changes[k].add && e->q->changes[k].id == id) return true;
    return false;
}

/* The change by which a second row gets what an earlier one of the group gets, or RG__NONE. */
static int32_t second_taker(const rg__enqueueing *e, const rg__key_group *g) {
    int32_t first = RG__NONE;
    for (int32_t i = g->first; i != RG__NONE; i = e->next[i]) {
        if (!e->q->changes[i].add || gives_up_later(e, i)) continue;
        if (first != RG__NONE && e->q->changes[i].id != e->q->changes[first].id) return i;
        first = i;
    }
    return RG__NONE;
}

/* The script compares with what others did; MySQL would refuse this long after the caller has gone. */
static int check_within(const rg__enqueueing *e, uint8_t *stale, rg_err *err) {
    for (size_t i = 0; i < e->n; i++) {
        if (e->kinds.p[i] != 'k' || e->groups[i].n < 2) continue;
        int32_t second = second_taker(e, &e->groups[i]);
        if (second != RG__NONE) return refuse(e, second, "two rows of the flush have this value", stale, err);
    }
    return RG_OK;
}

static int conclude(rg__enqueueing *e, const redisReply *r, bool once, uint8_t *stale,
                    rg_block **current, char id[48], rg_err *err) {
    switch (r->element[0]->integer) {
    case ANSWER_QUEUED: return queued(e, r, once, id, err);
    case ANSWER_FULL:
        return rg__fail(err, RG_EBACKPRESSURE, "the queue holds %llu entries, its bound",
                        (unsigned long long)e->q->max_len);
    case ANSWER_STALE: return conflict(e, r, stale, current, err);
    case ANSWER_PARTS: return other_parts(e, r, err);
    case ANSWER_TAKEN: return taken(e, r, stale, err);
    case ANSWER_SUSPECT: return rg__fail(err, RG_EPENDING, "unique values of an earlier epoch");
    default: return rg__fail(err, RG_ECORRUPT, "ENQUEUE answered something else");
    }
}

int rg__shared_enqueue(rg__shared *s, const rg__ctx *ctx, rg__enqueue *q, uint8_t *stale,
                       rg_block **current, char id[48], rg_err *err) {
    rg__enqueueing e = {.s = s, .q = q};
    rg__ctx within = *ctx;
    redisReply *r = NULL;
    bool sent = false;
    if (ctx->deadline_ms == RG__NO_DEADLINE) within = rg__ctx_within(ctx, WITHOUT_DEADLINE_MS);
    memset(stale, 0, q->n_changes);
    memset(current, 0, q->n_changes * sizeof *current);
    int rc = rg__enqueueing_describe(&e);
    if (rc == RG_OK) rc = check_within(&e, stale, err);
    if (rc == RG_OK) rc = rg__enqueueing_prepare(&e);
    if (rc == RG_ENO_MEMORY) rg__fail_memory(err);
    if (rc == RG_OK) rc = call_until(&e, &within, &r, &sent, err);
    if (rc == RG_OK) rc = conclude(&e, r, !sent, stale, current, id, err);
    bool as_before = rc == RG_OK && q->payload.len == 0;
    for (size_t i = 0; i < q->n_changes && !as_before; i++)
        rg__shared_drop_process(s, &q->changes[i].key);
    freeReplyObject(r);
    rg__enqueueing_deinit(&e);
    return rc;
}

/* ---- applied ---- */

static bool add_applied(const rg__applied *k, rg__args *a, rg__buf *ids, rg__buf *kinds,
                        rg__buf *ttls) {
    char hex[RG__ID_HEX];
    if (!k->key.text || !rg__id_to_hex(k->id, k->part, hex)) return false;
    rg__args_add(a, k->key.text, k->key.len);
    rg__buf_add(ids, hex, sizeof hex);
    rg__buf_char(kinds, k->drop ? 'd' : 'a');
    rg__buf_le32(ttls, k->type ? k->type->ttl_s : 0);
    rg__buf_le32(ttls, k->type ? k->type->absent_ttl_s : 0);
    return true;
}

static int applied_chunk(rg__shared *s, const rg__ctx *ctx, const rg__applied *keys, size_t n,
                         rg_err *err) {
    rg__args a;
    rg__buf ids = {0}, kinds = {0}, ttls = {0};
    bool ok = true;
    rg__args_init(&a);
    rg__args_keys(&a, s, NULL, 0);
    for (size_t i = 0; i < n; i++) ok &= add_applied(&keys[i], &a, &ids, &kinds, &ttls);
    rg__args_buf(&a, &ids);
    rg__args_buf(&a, &kinds);
    rg__args_buf(&a, &ttls);
    redisReply *r = NULL;
    int rc = ok ? rg__shared_run(s, ctx, &applied, (int)n + 2, &a, &r, err)
                : rg__fail(err, RG_EINVALID, "an applied key needs a name and a stream id");
    freeReplyObject(r);
    rg__args_deinit(&a);
    rg__buf_deinit(&ids);
    rg__buf_deinit(&kinds);
    rg__buf_deinit(&ttls);
    return rc;
}

int rg__shared_applied(rg__shared *s, const rg__ctx *ctx, const rg__applied *keys, size_t n,
                       rg_err *err) {
    int rc = RG_OK;
    for (size_t at = 0; rc == RG_OK && at < n; at += RG__WRITE_CHUNK) {
        size_t some = n - at < RG__WRITE_CHUNK ? n - at : RG__WRITE_CHUNK;
        rc = applied_chunk(s, ctx, keys + at, some, err);
    }
    for (size_t i = 0; i < n; i++)
        if (keys[i].type) rg__shared_drop_process(s, &keys[i].key);
    return rc;
}
