/* SPDX-License-Identifier: MIT */
/* Flushes that are to be queued at a later time. Until then they are bytes that nobody reads: no cached
 * read shows them, no unique value is taken. When their time has come they are queued like any flush,
 * laid over what their rows are by then.
 *
 * Redis: "{P}:lz:<pool>" a sorted set of members by time in ms, "{P}:lp:<pool>" their payloads by id,
 * "{P}:lc:<pool>" counts them, "{P}:ll:<pool>" who moves them, for a second. A member is
 * "<count>:<id>", so that those of one time keep their order. The id is the producer under which the
 * queue remembers the flush, so that moving it twice queues it once. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "queue/letters.h"
#include "unit/flush.h"
#include "unit/load.h"

enum { ID = 32, AT_ONCE = 16, LEASE_MS = 1000 };

static const char store_text[] =
    "for i, kind in ipairs({'zset', 'hash', 'string'}) do\n"
    "  local t = redis.call('TYPE', KEYS[i]).ok\n"
    "  if t ~= 'none' and t ~= kind then return redis.error_reply('WRONGTYPE ' .. KEYS[i]) end\n"
    "end\n"
    "if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end\n"
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local due = ARGV[2] ~= '0' and tonumber(ARGV[2]) or now + ARGV[3]\n"
    "local n = redis.call('INCR', KEYS[3])\n"
    "redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])\n"
    "redis.call('ZADD', KEYS[1], string.format('%.0f', due), string.format('%016.0f:', n) .. ARGV[1])\n"
    "return 1\n";

static const char due_text[] =
    "local owner = redis.call('GET', KEYS[3])\n"
    "if owner and owner ~= ARGV[1] then return {} end\n"
    "local t = redis.call('TIME')\n"
    "local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))\n"
    "local list = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])\n"
    "if #list > 0 then redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3]) end\n"
    "local out = {}\n"
    "for _, member in ipairs(list) do\n"
    "  out[#out + 1] = member\n"
    "  local id = string.sub(member, 18)\n"
    "  out[#out + 1] = redis.call('HGET', KEYS[2], id) or ''\n"
    "  out[#out + 1] = redis.call('HEXISTS', KEYS[4], id .. ':1')\n"
    "end\n"
    "return out\n";

static const char done_text[] =
    "redis.call('ZREM', KEYS[1], ARGV[1])\n"
    "redis.call('HDEL', KEYS[2], string.sub(ARGV[1], 18))\n"
    "return 1\n";

static const char *const store_parts[] = {store_text, NULL};
static const char *const due_parts[] = {due_text, NULL};
static const char *const done_parts[] = {done_text, NULL};
static rg__script store_script = {.name = "later", .parts = store_parts};
static rg__script due_script = {.name = "due", .parts = due_parts};
static rg__script done_script = {.name = "moved", .parts = done_parts};

typedef struct keys {
    char set[192], payloads[192], third[192];
} keys;

static keys keys_of(const rg__queue *q, const char *third) {
    keys k;
    const char *p = rg__shared_prefix(q->shared);
    snprintf(k.set, sizeof k.set, "{%s}:lz:%s", p, q->name);
    snprintf(k.payloads, sizeof k.payloads, "{%s}:lp:%s", p, q->name);
    snprintf(k.third, sizeof k.third, "{%s}:%s:%s", p, third, q->name);
    return k;
}

static int call(const rg__queue *q, const rg__ctx *ctx, rg__script *s, int nkeys, int argc,
                const char **argv, const size_t *lens, redisReply **reply, rg_err *err) {
    rg__redis *c = NULL;
    *reply = NULL;
    int rc = rg__redis_acquire(rg__shared_pool(q->shared), ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__script_call(c, ctx, s, nkeys, argc, argv, lens, reply, err);
    rg__redis_release(c);
    return rc;
}

/* ---- putting aside ---- */

static void new_id(char id[ID + 1]) {
    uint8_t bytes[ID / 2];
    rg__random(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

/* The same id is stored once, so an answer that got lost is asked for again. */
static int store(const rg__queue *q, const rg__ctx *ctx, const rg__later *when, rg__slice payload,
                 const char *id, rg_err *err) {
    char at[24], delay[24];
    keys k = keys_of(q, "lc");
    snprintf(at, sizeof at, "%llu", (unsigned long long)when->at_ms);
    snprintf(delay, sizeof delay, "%llu", (unsigned long long)when->delay_ms);
    const char *argv[] = {k.set, k.payloads, k.third, id, at, delay, payload.p};
    size_t lens[7];
    for (int i = 0; i < 6; i++) lens[i] = strlen(argv[i]);
    lens[6] = payload.len;
    int rc = RG_OK;
    for (int tries = 0; tries < 2; tries++) {
        redisReply *r = NULL;
        rc = call(q, ctx, &store_script, 3, 7, argv, lens, &r, err);
        freeReplyObject(r);
        if (rc >= 0 || err->cls != RG_CLASS_RECONNECT) break;
    }
    return rc < 0 ? rc : RG_OK;
}

static rg__qop op_of(const rg__item *it) {
    rg__qop op = {.write = (uint8_t)it->write, .type = it->type, .id = it->id, .mask = it->mask};
    if (it->after) op.row = rg_block_data(it->after);
    if (it->before) op.before = rg_block_data(it->before);
    if (it->before && it->type->version_column) {
        rg__value v = rg__row_value(it->type, op.before, it->type->version_column);
        op.expected = v.store <= RG_STORE_I64 ? (uint64_t)v.i : v.u;
    }
    return op;
}

static int encode(const rg__items *items, const rg__plan *plan, rg__buf *out, rg_err *err) {
    size_t n = 0, at = 0;
    for (size_t i = 0; i < plan->n; i++) n += plan->steps[i].n;
    rg__qop *ops = rg__reallocarray(NULL, n, sizeof *ops);
    if (!ops) return rg__fail_memory(err);
    for (size_t i = 0; i < plan->n; i++)
        for (size_t k = 0; k < plan->steps[i].n; k++)
            ops[at++] = op_of(&items->items[plan->steps[i].items[k]]);
    int rc = rg__qop_encode(ops, n, out, err);
    rg__free(ops);
    return rc;
}

static int check(const rg__queue *q, const rg__items *items, int pool, rg_err *err) {
    if (!q->shared)
        return rg__fail(err, RG_EMISUSE, "flush_async needs a Redis pool for MySQL pool %s", q->name);
    for (size_t i = 0; i < items->n; i++)
        if (items->items[i].terms)
            return rg__fail(err, RG_EMISUSE, "%s: a write on a condition, or one that the server computes, "
                                             "cannot be delayed", items->items[i].type->name);
    for (size_t i = 0; i < items->n; i++)
        if (items->items[i].type->mysql_pool == pool && items->items[i].id == 0)
            return rg__fail_field(err, "id", "%s: a delayed flush needs ids that are known before the "
                                             "INSERT", items->items[i].type->name);
    return RG_OK;
}

int rg__flush_later(rg__store *s, const rg__ctx *ctx, rg__items *items, const rg__later *when,
                    char *id_out, rg_err *err) {
    int rc = RG_OK;
    if (err) err->item = -1;
    for (uint32_t i = 0; rc >= 0 && i < s->n_mysql; i++) {
        const rg__queue *q = &s->queues[i];
        char id[ID + 1];
        rg__plan plan = {0};
        rg__buf payload = {0};
        rc = rg__plan_make(items, (int)i, &plan, err);
        if (rc >= 0 && plan.n) {
            rc = check(q, items, (int)i, err);
            if (rc >= 0) rc = encode(items, &plan, &payload, err);
            new_id(id);
            if (rc >= 0) rc = store(q, ctx, when, (rg__slice){payload.p, payload.len}, id, err);
            if (rc >= 0) memcpy(id_out, id, sizeof id);
        }
        rg__plan_deinit(&plan);
        rg__buf_deinit(&payload);
    }
    return rc;
}

/* ---- when the time has come ---- */

typedef struct moving {
    rg__store *s;
    const rg__ctx *ctx;
    const rg__queue *q;
    const char *member; /* "<count>:<id>" */
    rg__slice bytes;
    rg__payload payload;
    rg__items items;
} moving;

static int gone(const rg__qdecoded *op, const char *what, rg_err *err) {
    int rc = rg__fail(err, RG_ECONFLICT, "%s %llu %s before the delayed %s was due", op->type->name,
                      (unsigned long long)op->id, what, rg__write_name(op->write));
    if (err) err->cls = RG_CLASS_PERMANENT;
    rg__err_set_entity(err, op->type->name);
    return rc;
}

static bool other_version(const rg__qdecoded *op, const rg_block *row) {
    if (!op->has_expected) return false;
    rg__value v = rg__row_value(op->type, row->data, op->type->version_column);
    return (v.store <= RG_STORE_I64 ? (uint64_t)v.i : v.u) != op->expected;
}

/* Lays an update over the row as it is now. */
static int lay_over(moving *m, const rg__qdecoded *op, rg__item *it, rg_err *err) {
    int rc = rg__load_rows(m->s, m->ctx, op->type, &op->id, 1, RG__LOAD_FILL_ONLY, &it->before, err);
    if (rc < 0) return rc;
    if (!it->before) return op->write == RG_DELETE ? RG_OK : gone(op, "vanished", err);
    if (other_version(op, it->before)) return gone(op, "changed", err);
    if (op->write == RG_DELETE) return RG_OK;
    it->mask = rg__malloc(op->type->n_columns);
    if (!it->mask) return rg__fail_memory(err);
    memcpy(it->mask, op->mask, op->type->n_columns);
    it->after = rg__row_merge(op->type, it->before->data, op->row->data, op->mask, err);
    return it->after ? RG_OK : RG_ENO_MEMORY;
}

static int add_item(moving *m, const rg__qdecoded *op, rg_err *err) {
    int rc = rg__qop_check(m->q, op, err);
    if (rc < 0) return rc;
    rg__item *it = rg__items_add(&m->items);
    if (!it) return rg__fail_memory(err);
    it->write = op->write;
    it->type = op->type;
    it->id = op->id;
    if (op->write == RG_INSERT) it->after = rg_block_ref(op->row);
    else rc = lay_over(m, op, it, err);
    if (rc >= 0 && op->write == RG_DELETE && !it->before) m->items.n--; /* there is nothing to delete */
    return rc;
}

static int queue_it(moving *m, rg_err *err) {
    char id[48];
    rg__async_how how = {.producer = strchr(m->member, ':') + 1};
    int rc = rg__payload_decode(m->q->schema, m->bytes, &m->payload, err);
    for (size_t i = 0; rc >= 0 && i < m->payload.n; i++) rc = add_item(m, &m->payload.ops[i], err);
    if (rc < 0 || m->items.n == 0) return rc;
    rc = rg__flush_async(m->s, m->ctx, &m->items, &how, id, err);
    return rc == RG_EDURABILITY ? RG_OK : rc; /* it is queued */
}

/* A letter's place in the stream is made of the member's count and id, and is one that no entry has. */
static rg__pos place_of(const moving *m) {
    char *colon, id[13] = "";
    unsigned long long count = strtoull(m->member, &colon, 10);
    if (*colon == ':') snprintf(id, sizeof id, "%s", colon + 1);
    return (rg__pos){count, strtoull(id, NULL, 16)};
}

static int write_letters(moving *m, rg__mysql *c, const rg_err *why, rg_err *err) {
    int rc = RG_OK;
    uint64_t number;
    size_t n = m->payload.n ? m->payload.n : 1;
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        const rg__qdecoded *op = i < m->payload.n ? &m->payload.ops[i] : NULL;
        rg__buf alone = {0};
        if (op) rg__payload_alone(&m->payload, i, &alone);
        rg__letter l = {.id = place_of(m), .index = (uint32_t)i, .error = why,
                        .entity = op ? rg__qop_entity(op) : "", .entity_id = op ? op->id : 0,
                        .operation = op ? rg__write_name(op->write) : "entry",
                        .payload = op ? (rg__slice){alone.p, alone.len} : m->bytes};
        rc = rg__letter_add(m->q, c, m->ctx, &l, &number, err);
        rg__buf_deinit(&alone);
    }
    return rc;
}

/* What can never be queued becomes dead letters; doing it twice makes them once. */
static int give_up(moving *m, const rg_err *why, rg_err *err) {
    rg__mysql *c = NULL;
    rg__pos at;
    int rc = rg__mysql_acquire(m->q->mysql, m->ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__ledger_begin(m->q, c, m->ctx, &at, err);
    if (rc >= 0) rc = write_letters(m, c, why, err);
    if (rc >= 0) rc = rg__mysql_commit(c, m->ctx, err);
    rg__mysql_release(c);
    return rc;
}

static bool is_final(int rc, const rg_err *why) {
    if (rc == RG_EBACKPRESSURE || rc == RG_ETIMEOUT || rc == RG_ENO_MEMORY) return false;
    if (rc == RG_ECONFLICT || rc == RG_EINVALID || rc == RG_ESPLIT || rc == RG_ECORRUPT) return true;
    return why->cls == RG_CLASS_PERMANENT || rc == RG_EDUPLICATE_KEY || rc == RG_ELIMIT;
}

static int forget(const rg__queue *q, const rg__ctx *ctx, const char *member, rg_err *err) {
    keys k = keys_of(q, "ll");
    const char *argv[] = {k.set, k.payloads, member};
    redisReply *r = NULL;
    int rc = call(q, ctx, &done_script, 2, 3, argv, NULL, &r, err);
    freeReplyObject(r);
    return rc < 0 ? rc : RG_OK;
}

static int move_one(moving *m, rg_err *err) {
    rg_err why;
    rg__err_clear(&why);
    int rc = queue_it(m, &why);
    if (rc < 0 && is_final(rc, &why)) rc = give_up(m, &why, err);
    else if (rc < 0 && err) *err = why;
    rg__kill_point(RG__KILL_LATER_QUEUED);
    if (rc >= 0) rc = forget(m->q, m->ctx, m->member, err);
    rg__items_deinit(&m->items);
    rg__payload_deinit(&m->payload);
    return rc;
}

int rg__later_step(rg__store *s, uint32_t pool, const char *owner, const rg__ctx *ctx,
                   uint64_t *moved, rg_err *err) {
    const rg__queue *q = &s->queues[pool];
    keys k = keys_of(q, "ll");
    char count[16], lease[16];
    redisReply *r = NULL;
    snprintf(count, sizeof count, "%d", AT_ONCE);
    snprintf(lease, sizeof lease, "%d", LEASE_MS);
    char sent[192]; /* what producers sent (cache.h) */
    snprintf(sent, sizeof sent, "{%s}:ps", rg__shared_prefix(q->shared));
    const char *argv[] = {k.set, k.payloads, k.third, sent, owner, count, lease};
    *moved = 0;
    int rc = call(q, ctx, &due_script, 4, 7, argv, NULL, &r, err);
    for (size_t i = 0; rc >= 0 && r->type == REDIS_REPLY_ARRAY && i + 2 < r->elements; i += 3) {
        const redisReply *member = r->element[i], *bytes = r->element[i + 1];
        moving m = {.s = s, .ctx = ctx, .q = q, .member = member->str,
                    .bytes = {bytes->str, (size_t)bytes->len}};
        bool queued = r->element[i + 2]->integer == 1 || !strchr(member->str, ':');
        rc = queued ? forget(q, ctx, member->str, err) : move_one(&m, err);
        if (rc >= 0) ++*moved;
    }
    freeReplyObject(r);
    if (rc < 0) rg__err_prefix(err, "queueing what is due in %s: ", q->name);
    return rc < 0 ? rc : RG_OK;
}
