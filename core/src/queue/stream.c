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

static rg__slice find_payload(const redisReply *fields) {
    if (fields->type != REDIS_REPLY_ARRAY) return (rg__slice){NULL, 0}; /* deleted meanwhile */
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        if (rg__slice_eq(text_of(fields->element[i]), rg__slice_of("d")))
            return text_of(fields->element[i + 1]);
    return (rg__slice){NULL, 0};
}

static bool read_entry(const redisReply *r, rg__stream_entry *out) {
    if (!is_array(r, 2) || !rg__pos_parse(text_of(r->element[0]), &out->id)) return false;
    out->payload = find_payload(r->element[1]);
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

static int trim_and_count(rg__redis *c, const rg__queue *q, const rg__ctx *ctx, rg__pos upto,
                          uint64_t *len, rg_err *err) {
    char below[RG__POS_TEXT];
    rg__pos_format((rg__pos){upto.ms, upto.seq + 1}, below);
    const char *trim[] = {"XTRIM", q->stream, "MINID", below};
    const char *count[] = {"XLEN", q->stream};
    uint64_t trimmed = 0;
    bool wanted = upto.ms || upto.seq;
    int rc = wanted ? rg__redis_append(c, 4, trim, NULL, err) : RG_OK;
    if (rc >= 0) rc = rg__redis_append(c, 2, count, NULL, err);
    if (rc >= 0 && wanted) rc = read_integer(c, ctx, &trimmed, err);
    int last = rc == RG_OK || wanted ? read_integer(c, ctx, len, rc < 0 ? NULL : err) : rc;
    return rc < 0 ? rc : last;
}

int rg__stream_trim(const rg__queue *q, const rg__ctx *ctx, rg__pos upto, uint64_t *len,
                    rg_err *err) {
    rg__redis *c = NULL;
    int rc = rg__shared_acquire(q->shared, ctx, &c, err);
    if (rc < 0) return rc;
    rc = trim_and_count(c, q, ctx, upto, len, err);
    rg__redis_release(c);
    if (rc < 0) rg__err_prefix(err, "trimming stream %s: ", q->stream);
    return rc;
}

int rg__stream_last(const rg__queue *q, const rg__ctx *ctx, rg__pos *last, rg_err *err) {
    const char *argv[] = {"XREVRANGE", q->stream, "+", "-", "COUNT", "1"};
    redisReply *r = NULL;
    rg__stream_entry entry = {{0, 0}, {NULL, 0}};
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
