/* SPDX-License-Identifier: MIT */
/* Commands and replies. The formatter writes straight into the connection's buffer, so that a large
 * argument is copied once; hiredis' reader parses what comes back. */
#include "base/err.h"
#include "redis/conn.h"

static int digits(char *out, size_t n) {
    char reversed[24];
    int len = 0;
    do reversed[len++] = (char)('0' + n % 10);
    while (n /= 10);
    for (int i = 0; i < len; i++) out[i] = reversed[len - 1 - i];
    return len;
}

static char *put_header(char *p, char kind, size_t n) {
    *p++ = kind;
    p += digits(p, n);
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

static size_t len_of(const rg__redis_args *a, int i) {
    return a->lens ? a->lens[i] : strlen(a->argv[i]);
}

static size_t size_of(const rg__redis_args *a) {
    size_t size = 0;
    for (int i = 0; a && i < a->n; i++) size += len_of(a, i) + 32;
    return size;
}

static char *put_args(char *p, const rg__redis_args *a) {
    for (int i = 0; a && i < a->n; i++) {
        size_t len = len_of(a, i);
        p = put_header(p, '$', len);
        if (len) memcpy(p, a->argv[i], len);
        p += len;
        *p++ = '\r';
        *p++ = '\n';
    }
    return p;
}

static void note_first(rg__redis *c, const rg__redis_args *a) {
    size_t len = a->n > 0 ? len_of(a, 0) : 0;
    if (len >= sizeof c->first) len = sizeof c->first - 1;
    if (len) memcpy(c->first, a->argv[0], len);
    c->first[len] = '\0';
}

int rg__redis_append_args(rg__redis *c, const rg__redis_args *head, const rg__redis_args *tail,
                          rg_err *err) {
    char *start = rg__buf_reserve(&c->out, 32 + size_of(head) + size_of(tail));
    if (!start) {
        rg__buf_clear(&c->out);
        c->broken = true; /* what was appended before is gone as well */
        return rg__fail_memory(err);
    }
    char *p = put_header(start, '*', (size_t)head->n + (tail ? (size_t)tail->n : 0));
    p = put_args(p, head);
    p = put_args(p, tail);
    c->out.len += (size_t)(p - start);
    if (c->appended == 0) note_first(c, head);
    c->pending++;
    c->appended++;
    return RG_OK;
}

int rg__redis_append(rg__redis *c, int argc, const char *const *argv, const size_t *lens,
                     rg_err *err) {
    const rg__redis_args args = {argc, argv, lens};
    return rg__redis_append_args(c, &args, NULL, err);
}

int rg__redis_send(rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    if (c->broken) return rg__redis_lost(c, err, "the connection is broken", 0);
    if (c->out.len == 0) return RG_OK;
    if (c->started_us == 0) c->started_us = rg__now_us();
    if (rg__traced(ctx, RG__SOURCE_REDIS)) {
        c->started_wall_us = rg__wall_us();
        rg__redis_describe(c, ctx->trace->values);
    }
    int rc = rg__redis_flush(c, rg__redis_deadline(c->pool, ctx), err);
    if (rc < 0) rg__redis_observe(c, ctx, err ? err->message : "failed");
    return rc;
}

/* 1 a reply, 0 more bytes are needed, negative. */
int rg__redis_parse(rg__redis *c, redisReply **reply, rg_err *err) {
    void *r = NULL;
    if (redisReaderGetReply(c->reader, &r) != REDIS_OK) {
        c->broken = true;
        rg__fail(err, RG_ECORRUPT, "Redis' answer makes no sense: %s", c->reader->errstr);
        if (err) err->domain = RG_DOMAIN_REDIS;
        return RG_ECORRUPT;
    }
    *reply = r;
    return r != NULL;
}

static int next_reply(rg__redis *c, int64_t deadline_ms, redisReply **reply, rg_err *err) {
    for (;;) {
        int rc = rg__redis_parse(c, reply, err);
        if (rc != 0) return rc;
        rc = rg__redis_feed(c, deadline_ms, err);
        if (rc <= 0) return rc;
    }
}

/* A script that the server lacks is sent whole next: nothing failed. */
static const char *error_text(const redisReply *r) {
    bool failed = r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", 8) != 0;
    return failed ? r->str : NULL;
}

int rg__redis_leave(rg__redis *c, const rg__ctx *ctx, rg_err *err) {
    int rc = rg__redis_send(c, ctx, err);
    if (rc < 0) return rc;
    c->left += c->pending;
    c->pending = 0;
    rg__redis_observe(c, ctx, NULL);
    return RG_OK;
}

/* 1, 0 time-out, negative. */
static int skip_left(rg__redis *c, int64_t deadline_ms, rg_err *err) {
    const rg__redis_sink *sink = c->sink;
    int rc = 1;
    c->sink = NULL; /* these are not what it waits for */
    for (; rc > 0 && c->left > 0; c->left--) {
        redisReply *r = NULL;
        rc = next_reply(c, deadline_ms, &r, err);
        if (rc <= 0) break;
        freeReplyObject(r);
    }
    c->sink = sink;
    return rc;
}

int rg__redis_reply(rg__redis *c, const rg__ctx *ctx, redisReply **reply, rg_err *err) {
    *reply = NULL;
    if (c->pending == 0) return rg__fail(err, RG_EINTERNAL, "no reply is to come");
    int rc = rg__redis_send(c, ctx, err);
    if (rc < 0) return rc;
    rc = skip_left(c, rg__redis_deadline(c->pool, ctx), err);
    if (rc > 0) rc = next_reply(c, rg__redis_deadline(c->pool, ctx), reply, err);
    if (rc == 0) rc = rg__redis_timed_out(c, err);
    if (rc < 0 || !*reply) {
        rg__redis_observe(c, ctx, err ? err->message : "failed");
        return rc < 0 ? rc : RG_EINTERNAL;
    }
    /* READONLY: no longer the primary; the next connect may find it */
    if ((*reply)->type == REDIS_REPLY_ERROR && strncmp((*reply)->str, "READONLY", 8) == 0)
        c->broken = true;
    if (--c->pending == 0) rg__redis_observe(c, ctx, error_text(*reply));
    return RG_OK;
}

int rg__redis_exchange(rg__redis *c, const rg__ctx *ctx, const rg__redis_args *head,
                       const rg__redis_args *tail, redisReply **reply, rg_err *err) {
    if (c->pending > 0) return rg__fail(err, RG_EINTERNAL, "replies are to come still");
    int rc = rg__redis_append_args(c, head, tail, err);
    return rc < 0 ? rc : rg__redis_reply(c, ctx, reply, err);
}

/* A server error becomes a failure. */
static int judge(int rc, redisReply **reply, rg_err *err) {
    if (rc < 0 || (*reply)->type != REDIS_REPLY_ERROR) return rc;
    rc = rg__redis_error(*reply, err);
    freeReplyObject(*reply);
    *reply = NULL;
    return rc;
}

int rg__redis_command(rg__redis *c, const rg__ctx *ctx, redisReply **reply, rg_err *err, int argc,
                      const char *const *argv, const size_t *lens) {
    *reply = NULL;
    const rg__redis_args args = {argc, argv, lens};
    return judge(rg__redis_exchange(c, ctx, &args, NULL, reply, err), reply, err);
}

int rg__redis_ask(rg__redis *c, const rg__ctx *ctx, rg_err *err, int argc, const char *const *argv,
                  const size_t *lens) {
    int rc = rg__redis_append(c, argc, argv, lens, err);
    return rc < 0 ? rc : rg__redis_send(c, ctx, err);
}

int rg__redis_gather_asked(rg__redis *c, const rg__ctx *ctx, const rg__redis_sink *sink, size_t n,
                           rg_err *err) {
    redisReply *r = NULL;
    c->sink = sink;
    int rc = judge(rg__redis_reply(c, ctx, &r, err), &r, err);
    c->sink = NULL;
    bool all = rc < 0 || (r && r->type == REDIS_REPLY_ARRAY && r->elements == n);
    for (size_t i = 0; rc == RG_OK && r && all && i < n; i++) all = r->element[i] == NULL; /* told */
    if (!all) rc = rg__fail(err, RG_ECORRUPT, "%s did not answer each key by a string", c->first);
    freeReplyObject(r);
    return rc;
}

int rg__redis_gather(rg__redis *c, const rg__ctx *ctx, const rg__redis_sink *sink, size_t n,
                     rg_err *err, int argc, const char *const *argv, const size_t *lens) {
    if (c->pending > 0) return rg__fail(err, RG_EINTERNAL, "replies are to come still");
    int rc = rg__redis_append(c, argc, argv, lens, err);
    return rc < 0 ? rc : rg__redis_gather_asked(c, ctx, sink, n, err);
}

int rg__redis_poll(rg__redis *c, int64_t deadline_ms, redisReply **reply, rg_err *err) {
    *reply = NULL;
    c->subscribed = true;
    int rc = next_reply(c, deadline_ms, reply, err);
    if (rc == 1 && c->pending > 0) c->pending--;
    return rc;
}
