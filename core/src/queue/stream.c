/* SPDX-License-Identifier: MIT */
/* Reading, trimming and measuring the stream of a queue. */
#include "queue/stream.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"

enum { GRACE_MS = 2000 }; /* for the answer to a command that waits by itself */

/* ---- commands ---- */

static int command(const rg__queue *q, const rg__ctx *ctx, redisReply **reply, rg_err *err,
                   int argc,
                   const char *const *argv) {
    rg__redis *c = NULL;
    *reply = NULL;
    if (!q->shared) return rg__fail(err, RG_EMISUSE, "queue %s has no Redis pool", q->name);
    int rc = rg__shared_acquire(q->shared, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__redis_command(c, ctx, reply, err, argc, argv, NULL);
    rg__redis_release(c);
    return rc;
}

static int unexpected(const rg__queue *q, rg_err *err) {
    return rg__fail(err, RG_ECORRUPT, "Redis answered something else than entries of stream %s",
                    q->stream);
}

static rg__slice text_of(const redisReply *r) {
    bool text = r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS;
    return text ? (rg__slice){r->str, (size_t)r->len} : (rg__slice){NULL, 0};
}

static bool is_array(const redisReply *r, size_t at_least) {
    return r->type == REDIS_REPLY_ARRAY && r->elements >= at_least;
}

/* ---- the window ---- */

void rg__window_clear(rg__window *w) {
    if (w->reply) freeReplyObject(w->reply);
    rg__free(w->entries);
    *w = (rg__window){0};
}

static rg__slice find_field(const redisReply *fields, const char *name) {
    if (fields->type != REDIS_REPLY_ARRAY) return (rg__slice){NULL, 0}; /* deleted meanwhile */
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        if (rg__slice_eq(text_of(fields->element[i]), rg__slice_of(name)))
            return text_of(fields->element[i + 1]);
    return (rg__slice){NULL, 0};
}

static bool read_entry(const redisReply *r, rg__stream_entry *out) {
    if (!is_array(r, 2) || !rg__pos_parse(text_of(r->element[0]), &out->id)) return false;
    out->payload = find_field(r->element[1], "d");
    out->names = find_field(r->element[1], "k");
    rg__slice epoch = find_field(r->element[1], "e");
    out->epoch = 0;
    if (epoch.len == sizeof out->epoch) memcpy(&out->epoch, epoch.p, sizeof out->epoch);
    return true;
}

static int take_entries(rg__window *w, const rg__queue *q, const redisReply *list, rg_err *err) {
    if (!is_array(list, 0)) return unexpected(q, err);
    w->entries = rg__calloc(list->elements + 1, sizeof *w->entries);
    if (!w->entries) return rg__fail_memory(err);
    for (; w->n < list->elements; w->n++)
        if (!read_entry(list->element[w->n], &w->entries[w->n])) return unexpected(q, err);
    return RG_OK;
}

int rg__window_fetch_first(rg__window *w, const rg__queue *q, const rg__ctx *ctx, rg__pos upto,
                           uint32_t count, rg_err *err) {
    char end[RG__POS_TEXT], n[16];
    rg__pos_format(upto, end);
    snprintf(n, sizeof n, "%u", count);
    const char *argv[] = {"XRANGE", q->stream, "-", end, "COUNT", n};
    rg__window_clear(w);
    int rc = command(q, ctx, &w->reply, err, 6, argv);
    if (rc >= 0) rc = take_entries(w, q, w->reply, err);
    if (rc < 0) rg__window_clear(w);
    return rc;
}

/* The waiting command needs a deadline of its own: a pool's longest call may be shorter. */
static rg__ctx waiting(const rg__ctx *ctx, int wait_ms) {
    rg__ctx longer = *ctx;
    longer.waits = true;
    if (ctx->deadline_ms == RG__NO_DEADLINE && wait_ms > 0)
        longer.deadline_ms = rg__now_ms() + wait_ms + GRACE_MS;
    return longer;
}

int rg__window_fetch(rg__window *w, const rg__queue *q, const rg__ctx *ctx, rg__pos after,
                     uint32_t count, int wait_ms, rg_err *err) {
    char start[RG__POS_TEXT], n[16], block[16];
    rg__pos_format(after, start);
    snprintf(n, sizeof n, "%u", count);
    snprintf(block, sizeof block, "%d", wait_ms);
    const char *blocking[] = {"XREAD", "COUNT", n, "BLOCK", block, "STREAMS", q->stream, start};
    const char *plain[] = {"XREAD", "COUNT", n, "STREAMS", q->stream, start};
    rg__ctx longer = waiting(ctx, wait_ms);
    rg__window_clear(w);
    int rc = wait_ms > 0 ? command(q, &longer, &w->reply, err, 8, blocking)
                         : command(q, ctx, &w->reply, err, 6, plain);
    if (rc < 0 || w->reply->type == REDIS_REPLY_NIL) return rc;
    bool one = is_array(w->reply, 1) && is_array(w->reply->element[0], 2);
    rc = one ? take_entries(w, q, w->reply->element[0]->element[1], err) : unexpected(q, err);
    if (rc < 0) rg__window_clear(w);
    return rc;
}

int rg__streams_wait(const rg__queue *const *queues, const rg__pos *after, uint32_t n,
                     const rg__ctx *ctx, int wait_ms, rg_err *err) {
    char block[16], ids[RG__PARTS][RG__POS_TEXT];
    const char *argv[6 + 2 * RG__PARTS] = {"XREAD", "COUNT", "1", "BLOCK", block, "STREAMS"};
    redisReply *r = NULL;
    snprintf(block, sizeof block, "%d", wait_ms > 0 ? wait_ms : 1);
    for (uint32_t i = 0; i < n; i++) {
        rg__pos_format(after[i], ids[i]);
        argv[6 + i] = queues[i]->stream;
        argv[6 + n + i] = ids[i];
    }
    rg__ctx longer = waiting(ctx, wait_ms);
    int rc = command(queues[0], &longer, &r, err, (int)(6 + 2 * n), argv);
    freeReplyObject(r);
    return rc;
}

/* ---- the ends ---- */

static int read_integer(rg__redis *c, const rg__ctx *ctx, uint64_t *out, rg_err *err) {
    redisReply *r = NULL;
    int rc = rg__redis_reply(c, ctx, &r, err);
    if (rc < 0) return rc;
    if (r->type == REDIS_REPLY_ERROR) rc = rg__redis_error(r, err);
    else if (r->type == REDIS_REPLY_INTEGER) *out = (uint64_t)r->integer;
    freeReplyObject(r);
    return rc;
}

static int read_status(rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    redisReply *r = NULL;
    int rc = rg__redis_reply(c, ctx, &r, err);
    if (rc >= 0 && r->type == REDIS_REPLY_ERROR) rc = rg__redis_error(r, err);
    freeReplyObject(r);
    return rc;
}

static const char *name_of_trimmed(const rg__queue *q, char name[320]) {
    snprintf(name, 320, "%s:trimmed", q->stream);
    return name;
}

static int trim_and_count(rg__redis *c, const rg__queue *q, const rg__ctx *ctx, rg__pos upto,
                          uint64_t *len, rg_err *err) {
    char below[RG__POS_TEXT];
    rg__pos_format((rg__pos){upto.ms, upto.seq + 1}, below);
    const char *trim[] = {"XTRIM", q->stream, "MINID", below};
    const char *count[] = {"XLEN", q->stream};
    char key[320], at[RG__POS_TEXT];
    rg__pos_format(upto, at);
    const char *note[] = {"SET", name_of_trimmed(q, key), at}; /* first: no entry goes unnoticed */
    uint64_t trimmed = 0;
    bool wanted = upto.ms || upto.seq;
    int rc = wanted ? rg__redis_append(c, 3, note, NULL, err) : RG_OK;
    if (rc >= 0 && wanted) rc = rg__redis_append(c, 4, trim, NULL, err);
    if (rc >= 0) rc = rg__redis_append(c, 2, count, NULL, err);
    if (rc >= 0 && wanted) rc = read_status(c, ctx, err);
    if (rc >= 0 && wanted) rc = read_integer(c, ctx, &trimmed, err);
    int last = rc == RG_OK || wanted ? read_integer(c, ctx, len, rc < 0 ? NULL : err) : rc;
    return rc < 0 ? rc : last;
}

/* ---- what is kept ---- */

static const char retire_text[] =
    "local t = redis.call('TYPE', KEYS[2]).ok\n"
    "if t ~= 'none' and t ~= 'stream' then return redis.error_reply('WRONGTYPE ' .. KEYS[2]) end\n"
    "for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', ARGV[1])) do\n"
    "  redis.pcall('XADD', KEYS[2], e[1], unpack(e[2]))\n"
    "end\n"
    "redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])\n"
    "local now = redis.call('TIME')\n"
    "local oldest = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(ARGV[3])\n"
    "local gone = redis.call('XREVRANGE', KEYS[2], string.format('%.0f', oldest - 1), '-', 'COUNT', 1)[1]\n"
    "if gone then\n"
    "  redis.call('SET', KEYS[3], gone[1])\n"
    "  redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', oldest))\n"
    "end\n"
    "return redis.call('XLEN', KEYS[1])\n";
static const char *const retire_parts[] = {retire_text, NULL};
static rg__script retire_script = {.name = "retire", .parts = retire_parts};

const char *rg__stream_kept(const rg__queue *q, char name[320]) {
    snprintf(name, 320, "%s:applied", q->stream);
    return name;
}

static int retire(rg__redis *c, const rg__queue *q, const rg__ctx *ctx, rg__pos upto, uint64_t *len,
                  rg_err *err) {
    char kept[320], trimmed[320], at[RG__POS_TEXT], below[RG__POS_TEXT], retain[24];
    redisReply *r = NULL;
    rg__pos_format(upto, at);
    rg__pos_format((rg__pos){upto.ms, upto.seq + 1}, below);
    snprintf(retain, sizeof retain, "%llu", (unsigned long long)q->rules.retain_ms);
    const char *argv[] = {q->stream, rg__stream_kept(q, kept), name_of_trimmed(q, trimmed), at, below,
                          retain};
    int rc = rg__script_call(c, ctx, &retire_script, 3, 6, argv, NULL, &r, err);
    if (rc >= 0) *len = (uint64_t)r->integer;
    freeReplyObject(r);
    return rc;
}

int rg__stream_trim(const rg__queue *q, const rg__ctx *ctx, rg__pos upto, uint64_t *len,
                    rg_err *err) {
    rg__redis *c = NULL;
    int rc = rg__shared_acquire(q->shared, ctx, &c, err);
    if (rc < 0) return rc;
    bool keep = q->rules.retain_ms && (upto.ms || upto.seq);
    rc = keep ? retire(c, q, ctx, upto, len, err) : trim_and_count(c, q, ctx, upto, len, err);
    rg__redis_release(c);
    if (rc < 0) rg__err_prefix(err, "trimming stream %s: ", q->stream);
    return rc;
}

int rg__stream_trimmed(const rg__queue *q, const rg__ctx *ctx, rg__pos *upto, rg_err *err) {
    char key[320];
    const char *argv[] = {"GET", name_of_trimmed(q, key)};
    redisReply *r = NULL;
    *upto = (rg__pos){0, 0};
    int rc = command(q, ctx, &r, err, 2, argv);
    if (rc >= 0) rg__pos_parse(text_of(r), upto);
    freeReplyObject(r);
    return rc;
}

int rg__stream_bytes(const rg__queue *q, const rg__ctx *ctx, uint64_t *bytes, rg_err *err) {
    const char *argv[] = {"MEMORY", "USAGE", q->stream};
    redisReply *r = NULL;
    int rc = command(q, ctx, &r, err, 3, argv);
    *bytes = rc >= 0 && r->type == REDIS_REPLY_INTEGER ? (uint64_t)r->integer : 0;
    freeReplyObject(r);
    return rc;
}

enum { LOOK_BACK = 100 };

/* Backwards, as only the newest can be meant. */
int rg__stream_first_later(const rg__queue *q, const rg__ctx *ctx, rg__pos upto, uint64_t epoch,
                           rg__pos *first, rg_err *err) {
    char end[RG__POS_TEXT], count[16];
    snprintf(count, sizeof count, "%d", LOOK_BACK);
    *first = (rg__pos){0, 0};
    for (bool more = true; more;) {
        redisReply *r = NULL;
        rg__pos_format(upto, end);
        const char *argv[] = {"XREVRANGE", q->stream, end, "-", "COUNT", count};
        int rc = command(q, ctx, &r, err, 6, argv);
        if (rc < 0) return rc;
        more = is_array(r, LOOK_BACK);
        for (size_t i = 0; is_array(r, 0) && i < r->elements; i++) {
            rg__stream_entry e;
            bool read = read_entry(r->element[i], &e); /* what has no epoch is nobody's, and tells nothing */
            more = more && read && (e.epoch == 0 || e.epoch > epoch);
            if (!read || (e.epoch && e.epoch <= epoch)) break;
            if (e.epoch) *first = e.id;
            upto = e.id.seq ? (rg__pos){e.id.ms, e.id.seq - 1} : (rg__pos){e.id.ms - 1, UINT64_MAX};
        }
        freeReplyObject(r);
    }
    return RG_OK;
}

int rg__stream_last(const rg__queue *q, const rg__ctx *ctx, rg__pos *last, rg_err *err) {
    const char *argv[] = {"XREVRANGE", q->stream, "+", "-", "COUNT", "1"};
    redisReply *r = NULL;
    rg__stream_entry entry = {0};
    int rc = command(q, ctx, &r, err, 6, argv);
    if (rc < 0) return rc;
    if (!is_array(r, 0) || (r->elements && !read_entry(r->element[0], &entry)))
        rc = unexpected(q, err);
    *last = entry.id;
    freeReplyObject(r);
    return rc;
}

static int server_time(const rg__queue *q, const rg__ctx *ctx, uint64_t *ms, rg_err *err) {
    const char *argv[] = {"TIME"};
    redisReply *r = NULL;
    int rc = command(q, ctx, &r, err, 1, argv);
    if (rc < 0) return rc;
    char text[RG__POS_TEXT];
    rg__pos now = {0, 0};
    if (is_array(r, 2)) {
        rg__slice s = text_of(r->element[0]), us = text_of(r->element[1]);
        int n = snprintf(text, sizeof text, "%.*s-%.*s", (int)s.len, s.p, (int)us.len, us.p);
        rg__pos_parse((rg__slice){text, (size_t)n}, &now);
    }
    *ms = now.ms * 1000 + now.seq / 1000;
    freeReplyObject(r);
    return RG_OK;
}

int rg__stream_age(const rg__queue *q, const rg__ctx *ctx, rg__pos after, uint64_t *len,
                   uint64_t *age_ms, rg_err *err) {
    rg__window w = {0};
    uint64_t now = 0;
    *age_ms = 0;
    int rc = rg__stream_trim(q, ctx, (rg__pos){0, 0}, len, err);
    if (rc >= 0) rc = rg__window_fetch(&w, q, ctx, after, 1, 0, err);
    if (rc >= 0 && w.n) rc = server_time(q, ctx, &now, err);
    if (rc >= 0 && w.n && now > w.entries[0].id.ms) *age_ms = now - w.entries[0].id.ms;
    rg__window_clear(&w);
    return rc;
}

/* ---- ids never go back ---- */

/* The last id that the stream gave out; 0-0 when there is no stream. */
static int last_generated(const rg__queue *q, const rg__ctx *ctx, rg__pos *last, rg_err *err) {
    const char *exists[] = {"EXISTS", q->stream};
    const char *info[] = {"XINFO", "STREAM", q->stream};
    redisReply *r = NULL;
    *last = (rg__pos){0, 0};
    int rc = command(q, ctx, &r, err, 2, exists);
    if (rc < 0) return rc;
    bool there = r->type == REDIS_REPLY_INTEGER && r->integer > 0;
    freeReplyObject(r);
    if (!there) return RG_OK;
    rc = command(q, ctx, &r, err, 3, info);
    if (rc < 0) return rc;
    for (size_t i = 0; is_array(r, 0) && i + 1 < r->elements; i += 2)
        if (rg__slice_eq(text_of(r->element[i]), rg__slice_of("last-generated-id")))
            rg__pos_parse(text_of(r->element[i + 1]), last);
    freeReplyObject(r);
    return RG_OK;
}

/* An entry with the ledger's own id counts as applied, so it may stay behind when the next command
 * is lost. */
static int make_stream(const rg__queue *q, const rg__ctx *ctx, const char *id, rg_err *err) {
    const char *add[] = {"XADD", q->stream, id, "d", ""};
    const char *del[] = {"XDEL", q->stream, id};
    redisReply *r = NULL;
    int rc = command(q, ctx, &r, err, 5, add);
    if (r) freeReplyObject(r);
    if (rc < 0) return rc;
    rc = command(q, ctx, &r, err, 3, del);
    if (r) freeReplyObject(r);
    return rc;
}

int rg__stream_raise(const rg__queue *q, const rg__ctx *ctx, rg__pos ledger, rg_err *err) {
    rg__pos last;
    char id[RG__POS_TEXT];
    int rc = last_generated(q, ctx, &last, err);
    if (rc < 0 || rg__pos_compare(last, ledger) >= 0) return rc;
    rg__pos_format(ledger, id);
    if (last.ms == 0 && last.seq == 0) return make_stream(q, ctx, id, err);
    const char *set[] = {"XSETID", q->stream, id};
    redisReply *r = NULL;
    rc = command(q, ctx, &r, err, 3, set);
    if (r) freeReplyObject(r);
    return rc;
}
