/* SPDX-License-Identifier: MIT */
/* What the enqueue script is told: keys, each once, and entries made ready. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "cache/enqueue.h"
#include "row/row.h"

enum {
    DELTA = 9,   /* + or -, id */
    LARGE = 500, /* bytes of a row from which reading its head alone is faster */
};

/* ---- grouping ---- */

static bool same_key(const rg__key *a, const rg__key *b) {
    return a->hash == b->hash && a->space == b->space && a->len == b->len &&
           memcmp(a->text, b->text, a->len) == 0;
}

static size_t slot_of(const rg__enqueueing *e, const uint32_t *table, size_t mask, const rg__key *key) {
    size_t at = ((key->hash ^ ((uint64_t)key->space << 40)) * 0x9e3779b97f4a7c15u >> 20) & mask;
    while (table[at] && !same_key(&e->q->changes[e->groups[table[at] - 1].first].key, key))
        at = (at + 1) & mask;
    return at;
}

static void join(rg__enqueueing *e, uint32_t *slot, int32_t i) {
    e->next[i] = RG__NONE;
    if (*slot == 0) {
        e->groups[e->n++] = (rg__key_group){.first = i, .last = i, .n = 1};
        *slot = (uint32_t)e->n;
        return;
    }
    rg__key_group *g = &e->groups[*slot - 1];
    e->next[g->last] = i;
    g->last = i;
    g->n++;
}

static bool have_text(const rg__enqueue *q) {
    for (size_t i = 0; i < q->n_changes; i++)
        if (!q->changes[i].key.text) return false;
    return true;
}

static int group_changes(rg__enqueueing *e) {
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

const rg__index *rg__change_index(const rg__change *c) {
    return &c->type->indexes[c->key.space - c->type->space - 1];
}

static char kind_of(const rg__change *first, const rg__change *last) {
    if (!first->is_row) return rg__change_index(first)->flags & RG_INDEX_UNIQUE ? 'k' : 'l';
    bool checked = first->type->cache_redis && (first->before || last->after);
    if (!checked) return last->after ? 'U' : 'X';
    if (!first->before) return 'i';
    return last->after ? 'u' : 'x';
}

/* Without the prefix, "{P}:". */
static void add_name(rg__enqueueing *e, const rg__key *key) {
    size_t skip = e->s->epoch_key.len - strlen("ep");
    rg__buf_le16(&e->names, (uint16_t)(key->len - skip));
    rg__buf_add(&e->names, key->text + skip, key->len - skip);
}

static void describe_group(rg__enqueueing *e, const rg__key_group *g) {
    const rg__change *first = &e->q->changes[g->first], *last = &e->q->changes[g->last];
    if (!first->is_row) add_name(e, &first->key);
    rg__buf_char(&e->kinds, kind_of(first, last));
    rg__buf_le64(&e->sums, first->is_row && first->before ? rg__row_sum(first->before) : 0);
}

static void put_deltas(rg__enqueueing *e, const rg__key_group *g) {
    for (int32_t i = g->first; i != RG__NONE; i = e->next[i]) {
        rg__buf_char(&e->values, e->q->changes[i].add ? '+' : '-');
        rg__buf_le64(&e->values, e->q->changes[i].id);
    }
}

static void put_entry(rg__enqueueing *e, const rg_block *after, char kind) {
    e->head[0] = after ? 'P' : 'Q';
    e->head[RG__AT_PENDING - 1] = kind == 'U' || kind == 'X' ? '0' : '1';
    rg__buf_add(&e->values, e->head, sizeof e->head);
    if (after) rg__buf_add(&e->values, after->data, after->len);
}

static void add_value(rg__enqueueing *e, size_t i) {
    const rg__key_group *g = &e->groups[i];
    size_t from = e->values.len;
    if (!e->q->changes[g->first].is_row) put_deltas(e, g);
    else put_entry(e, e->q->changes[g->last].after, e->kinds.p[i]);
    rg__args_add(&e->args, e->values.p + from, e->values.len - from);
}

/* ---- stream ids ----
 * Entries of rows hold the stream id. Made here for an id that is likely to be accepted, they need
 * not be put together by the script, whose strings are slow. Ids follow Redis' clock, known from
 * earlier answers, as ms and us within it. */

static void wish_for_id(rg__enqueueing *e) {
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

void rg__stream_id_learn(rg__shared *s, const char *id, int64_t redis_us) {
    char *end;
    uint64_t ms = strtoull(id, &end, 10), seq = *end == '-' ? strtoull(end + 1, NULL, 10) : 0;
    uint64_t us = ms * 1000 + (seq < 1000 ? seq : 999), last = atomic_load(&s->last_id_us);
    while (us > last && !atomic_compare_exchange_weak(&s->last_id_us, &last, us)) {}
    if (redis_us) atomic_store(&s->clock_offset_us, redis_us - rg__now_us());
}

static void add_keys(rg__enqueueing *e) {
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
static void take_forget(rg__enqueueing *e) {
    pthread_mutex_lock(&e->s->forget_lock);
    e->n_forget = e->s->n_forget;
    memcpy(e->forget, e->s->forget, e->n_forget * sizeof *e->forget);
    e->s->n_forget = 0;
    pthread_mutex_unlock(&e->s->forget_lock);
}

static size_t values_size(const rg__enqueueing *e) {
    size_t size = 1;
    for (size_t i = 0; i < e->q->n_changes; i++) {
        const rg__change *c = &e->q->changes[i];
        if (c->generation) continue;
        size += c->is_row ? RG__AT_PENDING + (c->after ? c->after->len : 0) : DELTA;
    }
    return size;
}

static void add_header(rg__enqueueing *e) {
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

int rg__enqueueing_describe(rg__enqueueing *e) {
    rg__args_init(&e->args);
    if (group_changes(e) < 0) return RG_ENO_MEMORY;
    for (size_t i = 0; i < e->n; i++) describe_group(e, &e->groups[i]);
    return e->kinds.failed || e->sums.failed || e->names.failed ? RG_ENO_MEMORY : RG_OK;
}

int rg__enqueueing_prepare(rg__enqueueing *e) {
    rg__buf_reserve(&e->values, values_size(e));
    if (e->q->payload.len) take_forget(e); /* else nobody would */
    wish_for_id(e);
    add_keys(e);
    add_header(e);
    if (e->values.failed) return RG_ENO_MEMORY;
    for (size_t i = 0; i < e->n; i++) add_value(e, i);
    return e->args.failed ? RG_ENO_MEMORY : RG_OK;
}

void rg__enqueueing_deinit(rg__enqueueing *e) {
    for (uint32_t i = 0; i < e->n_forget; i++) rg__free(e->forget[i].text);
    rg__args_deinit(&e->args);
    rg__buf *const bufs[] = {&e->field, &e->seq, &e->kinds, &e->sums, &e->values,
                            &e->count, &e->names};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) rg__buf_deinit(bufs[i]);
    rg__free(e->groups);
    rg__free(e->next);
}
