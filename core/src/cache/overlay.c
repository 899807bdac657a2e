/* SPDX-License-Identifier: MIT */
/* The queue's side: enqueue and overlay in one script, and settling what was applied. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/shared.h"
#include "row/row.h"

RG__SCRIPT(applied, applied);
RG__SCRIPT(enqueue, enqueue);

enum {
    DELTA = 9,              /* + or -, id */
    LARGE = 500,            /* bytes of a row from which reading its head alone is faster */
    RETRY_MIN_MS = 5,
    RETRY_MAX_MS = 100,
    WITHOUT_DEADLINE_MS = 30000,
    WITHIN_MS = 500, /* for the answer to a command that waits by itself */
    NONE = -1,
    ANSWER_QUEUED = 0, /* what the script answers first */
    ANSWER_FULL = 1,
    ANSWER_STALE = 2,
    ANSWER_PARTS = 3,
    ANSWER_TAKEN = 4,
    ANSWER_SUSPECT = 5,
    STALE_ROW = 1, /* why an entry forbids a change */
    STALE_NONE = 2,
    STALE_WAIT = 3,
};

/* All changes of one key: the script sees each key once. */
typedef struct group {
    int32_t first, last;
    uint32_t n;
} group;

/* One rg__shared_enqueue. */
typedef struct enqueueing {
    rg__shared *s;
    rg__enqueue *q;
    group *groups;
    size_t n;
    int32_t *next;  /* by change: the next one of the same key, or NONE */
    rg__args args;
    rg__buf field, seq, kinds, sums, count;
    rg__buf names;   /* of the lookups, for a consumer that does not know them (stream.h) */
    char part[8];    /* four hex digits */
    rg__buf values;  /* entries and changes; arguments point into it, so it never grows */
    rg_err unsafe;   /* code is not 0: queued, but what was waited for did not come */
    char wish[48];   /* the stream id that entries are made for; "" none */
    char head[RG__AT_PENDING]; /* of these entries */
    rg__name forget[RG__FORGET];
    uint32_t n_forget;
    int nkeys;
} enqueueing;

/* ---- grouping ---- */

static bool same_key(const rg__key *a, const rg__key *b) {
    return a->hash == b->hash && a->space == b->space && a->len == b->len &&
           memcmp(a->text, b->text, a->len) == 0;
}

static size_t slot_of(const enqueueing *e, const uint32_t *table, size_t mask, const rg__key *key) {
    size_t at = ((key->hash ^ ((uint64_t)key->space << 40)) * 0x9e3779b97f4a7c15u >> 20) & mask;
    while (table[at] && !same_key(&e->q->changes[e->groups[table[at] - 1].first].key, key))
        at = (at + 1) & mask;
    return at;
}

static void join(enqueueing *e, uint32_t *slot, int32_t i) {
    e->next[i] = NONE;
    if (*slot == 0) {
        e->groups[e->n++] = (group){.first = i, .last = i, .n = 1};
        *slot = (uint32_t)e->n;
        return;
    }
    group *g = &e->groups[*slot - 1];
    e->next[g->last] = i;
    g->last = i;
    g->n++;
}

static bool have_text(const rg__enqueue *q) {
    for (size_t i = 0; i < q->n_changes; i++)
        if (!q->changes[i].key.text) return false;
    return true;
}

static int group_changes(enqueueing *e) {
    size_t n = e->q->n_changes, size = 16;
    while (size < n * 2) size *= 2;
    uint32_t *table = rg__calloc(size, sizeof *table);
    e->groups = rg__reallocarray(NULL, n + 1, sizeof *e->groups);
    e->next = rg__reallocarray(NULL, n + 1, sizeof *e->next);
    bool ok = table && e->groups && e->next && have_text(e->q);
    for (size_t i = 0; ok && i < n; i++) {
        const rg__change *c = &e->q->changes[i];
        if (!c->generation) join(e, &table[slot_of(e, table, size - 1, &c->key)], (int32_t)i);
    }
    rg__free(table);
    return ok ? RG_OK : RG_ENO_MEMORY;
}

/* ---- arguments ---- */

static const rg__index *index_of(const rg__change *c) {
    return &c->type->indexes[c->key.space - c->type->space - 1];
}

static char kind_of(const rg__change *first, const rg__change *last) {
    if (!first->is_row) return index_of(first)->flags & RG_INDEX_UNIQUE ? 'k' : 'l';
    bool checked = first->type->cache_redis && (first->before || last->after);
    if (!checked) return last->after ? 'U' : 'X';
    if (!first->before) return 'i';
    return last->after ? 'u' : 'x';
}

/* Without the prefix, "{P}:". */
static void add_name(enqueueing *e, const rg__key *key) {
    size_t skip = e->s->epoch_key.len - strlen("ep");
    rg__buf_le16(&e->names, (uint16_t)(key->len - skip));
    rg__buf_add(&e->names, key->text + skip, key->len - skip);
}

static void describe_group(enqueueing *e, const group *g) {
    const rg__change *first = &e->q->changes[g->first], *last = &e->q->changes[g->last];
    if (!first->is_row) add_name(e, &first->key);
    rg__buf_char(&e->kinds, kind_of(first, last));
    rg__buf_le64(&e->sums, first->is_row && first->before ? rg__row_sum(first->before) : 0);
}

static void put_deltas(enqueueing *e, const group *g) {
    for (int32_t i = g->first; i != NONE; i = e->next[i]) {
        rg__buf_char(&e->values, e->q->changes[i].add ? '+' : '-');
        rg__buf_le64(&e->values, e->q->changes[i].id);
    }
}

static void put_entry(enqueueing *e, const rg_block *after, char kind) {
    e->head[0] = after ? 'P' : 'Q';
    e->head[RG__AT_PENDING - 1] = kind == 'U' || kind == 'X' ? '0' : '1';
    rg__buf_add(&e->values, e->head, sizeof e->head);
    if (after) rg__buf_add(&e->values, after->data, after->len);
}

static void add_value(enqueueing *e, size_t i) {
    const group *g = &e->groups[i];
    size_t from = e->values.len;
    if (!e->q->changes[g->first].is_row) put_deltas(e, g);
    else put_entry(e, e->q->changes[g->last].after, e->kinds.p[i]);
    rg__args_add(&e->args, e->values.p + from, e->values.len - from);
}

/* ---- stream ids ----
 * Entries of rows hold the stream id. Made here for an id that is likely to be accepted, they need
 * not be put together by the script, whose strings are slow. Ids follow Redis' clock, known from
 * earlier answers, as ms and us within it. */

static void wish_for_id(enqueueing *e) {
    rg__shared *s = e->s;
    char hex[RG__ID_HEX];
    uint64_t epoch = atomic_load_explicit(&s->epoch, memory_order_relaxed);
    int64_t offset = atomic_load_explicit(&s->clock_offset_us, memory_order_relaxed);
    if (offset) {
        uint64_t us = (uint64_t)(rg__now_us() + offset), last = atomic_load(&s->last_id_us);
        do {
            if (us <= last) us = last + 1;
        } while (!atomic_compare_exchange_weak(&s->last_id_us, &last, us));
        snprintf(e->wish, sizeof e->wish, "%llu-%llu", (unsigned long long)us / 1000,
                 (unsigned long long)us % 1000);
    }
    memset(e->head, '0', sizeof e->head);
    memcpy(e->head + RG__AT_EPOCH, &epoch, sizeof epoch);
    if (*e->wish && rg__id_to_hex(e->wish, e->q->part, hex)) memcpy(e->head + RG__AT_ID, hex, sizeof hex);
}

/* The next wish comes after this id. */
static void learn_id(rg__shared *s, const char *id, int64_t redis_us) {
    char *end;
    uint64_t ms = strtoull(id, &end, 10), seq = *end == '-' ? strtoull(end + 1, NULL, 10) : 0;
    uint64_t us = ms * 1000 + (seq < 1000 ? seq : 999), last = atomic_load(&s->last_id_us);
    while (us > last && !atomic_compare_exchange_weak(&s->last_id_us, &last, us)) {}
    if (redis_us) atomic_store(&s->clock_offset_us, redis_us - rg__now_us());
}

static void add_keys(enqueueing *e) {
    rg__args *a = &e->args;
    rg__args_name(a, &e->s->epoch_key);
    rg__args_name(a, &e->s->producers_key);
    rg__args_add(a, e->q->stream, strlen(e->q->stream));
    for (size_t i = 0; i < e->n; i++) {
        const rg__key *key = &e->q->changes[e->groups[i].first].key;
        rg__args_add(a, key->text, key->len);
    }
    e->nkeys = a->n;
}

/* Earlier calls whose answers came: nobody will send them again. */
static void take_forget(enqueueing *e) {
    pthread_mutex_lock(&e->s->forget_lock);
    e->n_forget = e->s->n_forget;
    memcpy(e->forget, e->s->forget, e->n_forget * sizeof *e->forget);
    e->s->n_forget = 0;
    pthread_mutex_unlock(&e->s->forget_lock);
}

static size_t values_size(const enqueueing *e) {
    size_t size = 1;
    for (size_t i = 0; i < e->q->n_changes; i++) {
        const rg__change *c = &e->q->changes[i];
        if (c->generation) continue;
        size += c->is_row ? RG__AT_PENDING + (c->after ? c->after->len : 0) : DELTA;
    }
    return size;
}

static void add_header(enqueueing *e) {
    rg__args *a = &e->args;
    rg__buf_fmt(&e->field, "%s:%llu", e->q->producer, (unsigned long long)e->q->seq);
    rg__buf_u64(&e->seq, e->q->seq);
    rg__args_buf(a, &e->field);
    rg__args_add(a, e->q->producer, strlen(e->q->producer));
    rg__args_buf(a, &e->seq);
    rg__args_u64(a, e->q->max_len);
    rg__args_add(a, e->q->payload.p, e->q->payload.len);
    rg__args_buf(a, &e->kinds);
    rg__args_buf(a, &e->sums);
    rg__args_add(a, e->wish, strlen(e->wish));
    rg__args_add(a, e->head + RG__AT_EPOCH, 8);
    rg__args_u64(a, e->n_forget);
    rg__args_add(a, e->n && values_size(e) / e->n > LARGE ? "1" : "0", 1);
    rg__buf_fmt(&e->count, "#%s", e->q->queue ? e->q->queue : "");
    rg__args_buf(a, &e->count);
    rg__args_u64(a, e->q->n_parts ? e->q->n_parts : 1);
    snprintf(e->part, sizeof e->part, "%04x", e->q->part & 0xffff);
    rg__args_add(a, e->part, 4);
    rg__args_buf(a, &e->names);
    for (uint32_t i = 0; i < e->n_forget; i++) rg__args_name(a, &e->forget[i]);
}

static int describe(enqueueing *e) {
    rg__args_init(&e->args);
    if (group_changes(e) < 0) return RG_ENO_MEMORY;
    for (size_t i = 0; i < e->n; i++) describe_group(e, &e->groups[i]);
    return e->kinds.failed || e->sums.failed || e->names.failed ? RG_ENO_MEMORY : RG_OK;
}

static int prepare(enqueueing *e) {
    rg__buf_reserve(&e->values, values_size(e));
    if (e->q->payload.len) take_forget(e); /* else nobody would */
    wish_for_id(e);
    add_keys(e);
    add_header(e);
    if (e->values.failed) return RG_ENO_MEMORY;
    for (size_t i = 0; i < e->n; i++) add_value(e, i);
    return e->args.failed ? RG_ENO_MEMORY : RG_OK;
}

static void finish(enqueueing *e) {
    for (uint32_t i = 0; i < e->n_forget; i++) rg__free(e->forget[i].text);
    rg__args_deinit(&e->args);
    rg__buf *const bufs[] = {&e->field, &e->seq, &e->kinds, &e->sums, &e->values,
                            &e->count, &e->names};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) rg__buf_deinit(bufs[i]);
    rg__free(e->groups);
    rg__free(e->next);
}

/* ---- the call ---- */

static bool is_answer(const redisReply *r) {
    return r->type == REDIS_REPLY_ARRAY && r->elements > 0 &&
           r->element[0]->type == REDIS_REPLY_INTEGER;
}

/* WAIT 1 ms, or WAITAOF 1 0 ms: how many have it. */
static void wait_for_others(enqueueing *e, rg__redis *c, const rg__ctx *ctx) {
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
static int call(enqueueing *e, const rg__ctx *ctx, redisReply **reply, bool *sent, rg_err *err) {
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
static int call_until(enqueueing *e, const rg__ctx *ctx, redisReply **reply, bool *sent,
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
static void remember_to_forget(enqueueing *e) {
    rg__shared *s = e->s;
    rg__name name = {rg__memdup0(e->field.p, e->field.len), (uint32_t)e->field.len};
    pthread_mutex_lock(&s->forget_lock);
    bool kept = name.text && s->n_forget < RG__FORGET;
    if (kept) s->forget[s->n_forget++] = name;
    pthread_mutex_unlock(&s->forget_lock);
    if (!kept) rg__free(name.text);
}

static int queued(enqueueing *e, const redisReply *r, bool once, char id[48], rg_err *err) {
    if (r->elements < 4 || r->element[1]->type != REDIS_REPLY_STRING || r->element[1]->len >= 48)
        return rg__fail(err, RG_ECORRUPT, "ENQUEUE told no id");
    memcpy(id, r->element[1]->str, (size_t)r->element[1]->len + 1);
    if (e->q->payload.len == 0) return RG_OK;
    learn_id(e->s, id, r->element[2]->integer);
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
    if (bytes.p[0] == 'V') *stale = STALE_NONE;
    if (bytes.p[0] == 'P') *stale = STALE_WAIT;
}

static int conflict(enqueueing *e, const redisReply *r, uint8_t *stale, rg_block **current,
                    rg_err *err) {
    if (r->elements < 2 || r->element[1]->type != REDIS_REPLY_STRING ||
        (size_t)r->element[1]->len != e->n)
        return rg__fail(err, RG_ECORRUPT, "ENQUEUE did not judge each key");
    size_t at = 2;
    for (size_t i = 0; i < e->n; i++) {
        int32_t first = e->groups[i].first;
        stale[first] = (uint8_t)(r->element[1]->str[i] - '0');
        if (stale[first] == STALE_ROW && at < r->elements)
            take_current(&e->q->changes[first], r->element[at++], &stale[first], &current[first]);
        /* what was read as valid may be of an epoch that is over */
        if (stale[first] == STALE_NONE) atomic_store(&e->s->epoch_at_ms, 0);
    }
    return rg__fail(err, RG_ECONFLICT, "rows changed since they were read");
}

static int other_parts(const enqueueing *e, const redisReply *r, rg_err *err) {
    long long n = r->elements > 1 ? r->element[1]->integer : 0;
    rg__fail(err, RG_ECONFIG, "queue %s has %lld partitions, not %u, until all that was queued is "
                              "applied", e->q->queue ? e->q->queue : "", n, e->q->n_parts);
    if (err) err->retriable = 1;
    return RG_ECONFIG;
}

/* Change i takes a unique value that is not to be had. */
static int refuse(const enqueueing *e, int32_t i, const char *why, uint8_t *stale, rg_err *err) {
    const rg__change *c = &e->q->changes[i];
    stale[i] = 1;
    rg__fail(err, RG_EDUPLICATE_KEY, "%s: unique index %s: %s", c->type->name, index_of(c)->name, why);
    rg__err_set_entity(err, c->type->name);
    if (!err) return RG_EDUPLICATE_KEY;
    snprintf(err->index, sizeof err->index, "%s", index_of(c)->name);
    err->cls = RG_CLASS_PERMANENT;
    return RG_EDUPLICATE_KEY;
}

/* Another row has the value, or is queued to get it. */
static int taken(const enqueueing *e, const redisReply *r, uint8_t *stale, rg_err *err) {
    long long at = r->elements > 1 ? r->element[1]->integer : 0;
    if (at < 1 || (size_t)at > e->n) return rg__fail(err, RG_ECORRUPT, "ENQUEUE told no key");
    int32_t i = e->groups[at - 1].first;
    while (!e->q->changes[i].add && e->next[i] != NONE) i = e->next[i];
    return refuse(e, i, "another row has this value, or is queued to get it", stale, err);
}

/* ---- what the flush itself cannot be ---- */

static bool gives_up_later(const enqueueing *e, int32_t i) {
    uint64_t id = e->q->changes[i].id;
    for (int32_t k = e->next[i]; k != NONE; k = e->next[k])
        if (!e->q->changes[k].add && e->q->changes[k].id == id) return true;
    return false;
}

/* The change by which a second row gets what an earlier one of the group gets, or NONE. */
static int32_t second_taker(const enqueueing *e, const group *g) {
    int32_t first = NONE;
    for (int32_t i = g->first; i != NONE; i = e->next[i]) {
        if (!e->q->changes[i].add || gives_up_later(e, i)) continue;
        if (first != NONE && e->q->changes[i].id != e->q->changes[first].id) return i;
        first = i;
    }
    return NONE;
}

/* The script compares with what others did; MySQL would refuse this long after the caller has gone. */
static int check_within(const enqueueing *e, uint8_t *stale, rg_err *err) {
    for (size_t i = 0; i < e->n; i++) {
        if (e->kinds.p[i] != 'k' || e->groups[i].n < 2) continue;
        int32_t second = second_taker(e, &e->groups[i]);
        if (second != NONE) return refuse(e, second, "two rows of the flush have this value", stale, err);
    }
    return RG_OK;
}

static int conclude(enqueueing *e, const redisReply *r, bool once, uint8_t *stale,
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
    enqueueing e = {.s = s, .q = q};
    rg__ctx within = *ctx;
    redisReply *r = NULL;
    bool sent = false;
    if (ctx->deadline_ms == RG__NO_DEADLINE) within = rg__ctx_within(ctx, WITHOUT_DEADLINE_MS);
    memset(stale, 0, q->n_changes);
    memset(current, 0, q->n_changes * sizeof *current);
    int rc = describe(&e);
    if (rc == RG_OK) rc = check_within(&e, stale, err);
    if (rc == RG_OK) rc = prepare(&e);
    if (rc == RG_ENO_MEMORY) rg__fail_memory(err);
    if (rc == RG_OK) rc = call_until(&e, &within, &r, &sent, err);
    if (rc == RG_OK) rc = conclude(&e, r, !sent, stale, current, id, err);
    bool as_before = rc == RG_OK && q->payload.len == 0;
    for (size_t i = 0; i < q->n_changes && !as_before; i++)
        rg__shared_drop_process(s, &q->changes[i].key);
    freeReplyObject(r);
    finish(&e);
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
