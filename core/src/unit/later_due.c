/* SPDX-License-Identifier: MIT */
/* Queueing delayed flushes when their time has come (later.h). */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "queue/letters.h"
#include "unit/later.h"
#include "unit/load.h"

enum { AT_ONCE = 16, LEASE_MS = 1000 };

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
    "  local sent = redis.call('HGET', KEYS[4], id .. ':1')\n"
    "  out[#out + 1] = sent and string.sub(sent, -5) ~= '" RG__LATER_DEAD "' and 1 or 0\n"
    "end\n"
    "return out\n";

static const char done_text[] =
    "redis.call('ZREM', KEYS[1], ARGV[1])\n"
    "local id = string.sub(ARGV[1], 18)\n"
    "redis.call('HDEL', KEYS[2], id, '#' .. id)\n"
    "return 1\n";

/* From here on it is nobody's to be queued; 0 when it was, or was cancelled. */
static const char claim_text[] =
    "local sent = redis.call('HGET', KEYS[1], ARGV[1] .. ':1')\n"
    "if sent then return string.sub(sent, -5) == '" RG__LATER_DEAD "' and 1 or 0 end\n"
    "local t = redis.call('TIME')\n"
    "local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))\n"
    "redis.call('HSET', KEYS[1], ARGV[1] .. ':1', now .. '" RG__LATER_DEAD "')\n"
    "return 1\n";

static const char *const due_parts[] = {due_text, NULL};
static const char *const done_parts[] = {done_text, NULL};
static const char *const claim_parts[] = {claim_text, NULL};
static rg__script due_script = {.name = "due", .parts = due_parts};
static rg__script done_script = {.name = "moved", .parts = done_parts};
static rg__script claim_script = {.name = "claim", .parts = claim_parts};

/* ---- one that is due ---- */

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
    return op->has_expected && rg__row_version(op->type, row->data) != op->expected;
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

/* Queues it: *dead when somebody has begun to write its letters meanwhile. */
static int queue_it(moving *m, bool *dead, rg_err *err) {
    char id[48] = "";
    rg__async_how how = {.producer = strchr(m->member, ':') + 1};
    int rc = rg__payload_decode(m->q->schema, m->bytes, &m->payload, err);
    for (size_t i = 0; rc >= 0 && i < m->payload.n; i++) rc = add_item(m, &m->payload.ops[i], err);
    if (rc < 0 || m->items.n == 0) return rc;
    rc = rg__flush_async(m->s, m->ctx, &m->items, &how, id, err);
    *dead = rc >= 0 && strstr(id, RG__LATER_DEAD);
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

/* Whether its letters are ours to write: nobody has queued or cancelled it. */
static int claim(moving *m, bool *ours, rg_err *err) {
    rg__later_keys k = rg__later_keys_of(m->q, "ll");
    const char *argv[] = {k.sent, strchr(m->member, ':') + 1};
    redisReply *r = NULL;
    int rc = rg__later_call(m->q, m->ctx, &claim_script, 1, 2, argv, NULL, &r, err);
    *ours = rc >= 0 && r->integer == 1;
    freeReplyObject(r);
    rg__kill_point(RG__KILL_LATER_CLAIMED);
    return rc < 0 ? rc : RG_OK;
}

/* What can never be queued becomes dead letters; doing it twice makes them once. */
static int give_up(moving *m, const rg_err *why, rg_err *err) {
    rg__mysql *c = NULL;
    rg__pos at;
    bool ours = false;
    int rc = claim(m, &ours, err);
    if (rc < 0 || !ours) return rc;
    rc = rg__mysql_acquire(m->q->mysql, m->ctx, &c, err);
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
    rg__later_keys k = rg__later_keys_of(q, "ll");
    const char *argv[] = {k.set, k.payloads, member};
    redisReply *r = NULL;
    int rc = rg__later_call(q, ctx, &done_script, 2, 3, argv, NULL, &r, err);
    freeReplyObject(r);
    return rc < 0 ? rc : RG_OK;
}

static int move_one(moving *m, rg_err *err) {
    rg_err why;
    rg__err_clear(&why);
    bool dead = false;
    int rc = queue_it(m, &dead, &why);
    if (dead) rg__fail(&why, RG_ECONFLICT, "the delayed flush could not be queued when it was due");
    if (dead || (rc < 0 && is_final(rc, &why))) rc = give_up(m, &why, err);
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
    rg__later_keys k = rg__later_keys_of(q, "ll");
    char count[16], lease[16];
    redisReply *r = NULL;
    snprintf(count, sizeof count, "%d", AT_ONCE);
    snprintf(lease, sizeof lease, "%d", LEASE_MS);
    const char *argv[] = {k.set, k.payloads, k.third, k.sent, owner, count, lease};
    *moved = 0;
    int rc = rg__later_call(q, ctx, &due_script, 4, 7, argv, NULL, &r, err);
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
