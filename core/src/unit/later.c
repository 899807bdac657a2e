/* SPDX-License-Identifier: MIT */
/* Putting flushes aside, listing and cancelling them; later_due.c queues them when it is time. */
#include "unit/later.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "queue/letters.h"

enum { ID = 32 };

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
    "local member = string.format('%016.0f:', n) .. ARGV[1]\n"
    "redis.call('HSET', KEYS[2], ARGV[1], ARGV[4], '#' .. ARGV[1], member)\n"
    "redis.call('ZADD', KEYS[1], string.format('%.0f', due), member)\n"
    "return 1\n";

static const char list_text[] =
    "local out = redis.call('ZRANGE', KEYS[1], 0, ARGV[1], 'WITHSCORES')\n"
    "local all = {}\n"
    "for i = 1, #out, 2 do\n"
    "  local id = string.sub(out[i], 18)\n"
    "  local payload = redis.call('HGET', KEYS[2], id)\n"
    "  if payload then\n"
    "    local n = #all\n"
    "    all[n + 1], all[n + 2], all[n + 3] = id, string.format('%.0f', out[i + 1]), payload\n"
    "  end\n"
    "end\n"
    "return all\n";

/* Whoever is about to queue it does that under its id, which is taken from here on. */
static const char cancel_text[] =
    "local member = redis.call('HGET', KEYS[2], '#' .. ARGV[1])\n"
    "if not member or redis.call('HEXISTS', KEYS[3], ARGV[1] .. ':1') == 1 then return 0 end\n"
    "local t = redis.call('TIME')\n"
    "local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))\n"
    "redis.call('HSET', KEYS[3], ARGV[1] .. ':1', now .. '" RG__LATER_CANCELLED "')\n"
    "redis.call('ZREM', KEYS[1], member)\n"
    "redis.call('HDEL', KEYS[2], ARGV[1], '#' .. ARGV[1])\n"
    "return 1\n";

static const char *const store_parts[] = {store_text, NULL};
static const char *const list_parts[] = {list_text, NULL};
static const char *const cancel_parts[] = {cancel_text, NULL};
static rg__script store_script = {.name = "later", .parts = store_parts};
static rg__script list_script = {.name = "delayed", .parts = list_parts};
static rg__script cancel_script = {.name = "cancel", .parts = cancel_parts};

rg__later_keys rg__later_keys_of(const rg__queue *q, const char *third) {
    rg__later_keys k;
    const char *p = rg__shared_prefix(q->shared);
    snprintf(k.set, sizeof k.set, "{%s}:lz:%s", p, q->name);
    snprintf(k.payloads, sizeof k.payloads, "{%s}:lp:%s", p, q->name);
    snprintf(k.third, sizeof k.third, "{%s}:%s:%s", p, third, q->name);
    snprintf(k.sent, sizeof k.sent, "{%s}:ps", p);
    return k;
}

int rg__later_call(const rg__queue *q, const rg__ctx *ctx, rg__script *s, int nkeys, int argc,
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
    rg__later_keys k = rg__later_keys_of(q, "lc");
    snprintf(at, sizeof at, "%llu", (unsigned long long)when->at_ms);
    snprintf(delay, sizeof delay, "%llu", (unsigned long long)when->delay_ms);
    const char *argv[] = {k.set, k.payloads, k.third, id, at, delay, payload.p};
    size_t lens[7];
    for (int i = 0; i < 6; i++) lens[i] = strlen(argv[i]);
    lens[6] = payload.len;
    int rc = RG_OK;
    for (int tries = 0; tries < 2; tries++) {
        redisReply *r = NULL;
        rc = rg__later_call(q, ctx, &store_script, 3, 7, argv, lens, &r, err);
        freeReplyObject(r);
        if (rc >= 0 || err->cls != RG_CLASS_RECONNECT) break;
    }
    return rc < 0 ? rc : RG_OK;
}

static int encode(const rg__items *items, const rg__plan *plan, rg__buf *out, rg_err *err) {
    size_t n = 0, at = 0;
    for (size_t i = 0; i < plan->n; i++) n += plan->steps[i].n;
    rg__qop *ops = rg__reallocarray(NULL, n, sizeof *ops);
    if (!ops) return rg__fail_memory(err);
    for (size_t i = 0; i < plan->n; i++)
        for (size_t k = 0; k < plan->steps[i].n; k++)
            ops[at++] = rg__item_op(&items->items[plan->steps[i].items[k]]);
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

/* ---- looking at them ---- */

enum { COLUMNS = 6 };
static const char *const columns[COLUMNS] = {"id", "due_ms", "index", "operation", "entity",
                                             "entity_id"};

static int add_row(rg__result *out, const char *id, const char *due, size_t i,
                   const rg__qdecoded *op, rg_err *err) {
    char index[24], entity_id[24];
    snprintf(index, sizeof index, "%zu", i);
    snprintf(entity_id, sizeof entity_id, "%llu", op ? (unsigned long long)op->id : 0);
    const char *cells[COLUMNS] = {id, due, index, op ? rg__write_name(op->write) : "entry",
                                  op ? rg__qop_entity(op) : "", entity_id};
    return rg__result_add_strings(out, cells) < 0 ? rg__fail_memory(err) : RG_OK;
}

/* One row for each operation; what cannot be read is one. */
static int add_flush(const rg__queue *q, rg__result *out, redisReply *const *r, rg_err *err) {
    rg__payload p = {0};
    int rc = RG_OK;
    if (rg__payload_decode(q->schema, (rg__slice){r[2]->str, (size_t)r[2]->len}, &p, NULL) < 0)
        rc = add_row(out, r[0]->str, r[1]->str, 0, NULL, err);
    for (size_t i = 0; rc >= 0 && i < p.n; i++)
        rc = add_row(out, r[0]->str, r[1]->str, i, &p.ops[i], err);
    rg__payload_deinit(&p);
    return rc;
}

static int ask_list(const rg__queue *q, const rg__ctx *ctx, uint32_t limit, redisReply **r,
                    rg_err *err) {
    char last[16];
    rg__later_keys k = rg__later_keys_of(q, "lc");
    snprintf(last, sizeof last, "%lld", (long long)limit - 1);
    const char *argv[] = {k.set, k.payloads, last};
    int rc = rg__later_call(q, ctx, &list_script, 2, 3, argv, NULL, r, err);
    if (rc >= 0 && ((*r)->type != REDIS_REPLY_ARRAY || (*r)->elements % 3))
        rc = rg__fail(err, RG_ECORRUPT, "Redis did not list what is delayed");
    return rc;
}

int rg__later_list(const rg__queue *q, const rg__ctx *ctx, uint32_t limit, rg__result **out,
                   rg_err *err) {
    redisReply *r = NULL;
    *out = rg__result_new(columns, COLUMNS);
    if (!*out) return rg__fail_memory(err);
    (*out)->kinds[1] = (*out)->kinds[2] = (*out)->kinds[5] = RG__CELL_U64;
    int rc = ask_list(q, ctx, limit, &r, err);
    for (size_t i = 0; rc >= 0 && i + 2 < r->elements; i += 3)
        rc = add_flush(q, *out, &r->element[i], err);
    freeReplyObject(r);
    if (rc >= 0) return RG_OK;
    rg__result_free(*out);
    *out = NULL;
    return rc;
}

/* ---- cancelling ---- */

static int cancel_one(const rg__queue *q, const rg__ctx *ctx, const char *id, uint64_t *n,
                      rg_err *err) {
    rg__later_keys k = rg__later_keys_of(q, "lc");
    const char *argv[] = {k.set, k.payloads, k.sent, id};
    redisReply *r = NULL;
    int rc = rg__later_call(q, ctx, &cancel_script, 3, 4, argv, NULL, &r, err);
    if (rc >= 0 && r->type == REDIS_REPLY_INTEGER) *n += (uint64_t)r->integer;
    freeReplyObject(r);
    return rc < 0 ? rc : RG_OK;
}

static int cancel_all(const rg__queue *q, const rg__ctx *ctx, uint64_t *n, rg_err *err) {
    redisReply *r = NULL;
    int rc = ask_list(q, ctx, 0, &r, err);
    for (size_t i = 0; rc >= 0 && i + 2 < r->elements; i += 3)
        rc = cancel_one(q, ctx, r->element[i]->str, n, err);
    freeReplyObject(r);
    return rc;
}

int rg__later_cancel(const rg__queue *q, const rg__ctx *ctx, const char *id, uint64_t *n,
                     rg_err *err) {
    *n = 0;
    if (!*id) return cancel_all(q, ctx, n, err);
    int rc = cancel_one(q, ctx, id, n, err);
    if (rc < 0 || *n) return rc;
    return rg__fail(err, RG_EINVALID, "no delayed flush %s waits in queue %s: it was queued, given up as dead "
                                      "letters, or cancelled", id, q->name);
}
