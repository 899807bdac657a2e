/* SPDX-License-Identifier: MIT */
/* Housekeeping of the Redis tier: marks whose writers died, and what silent producers left. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/shared.h"

RG__SCRIPT(sweep, sweep);

enum { SCANNED = 64, SILENT_MS = 24 * 60 * 60 * 1000 };

/* ---- marks ---- */

/* [member, score, ...] by score; how many of them are due. */
static size_t count_due(const redisReply *r, int64_t now_ms) {
    size_t n = 0;
    while (2 * n + 1 < r->elements && strtod(r->element[2 * n + 1]->str, NULL) <= (double)now_ms)
        n++;
    return n;
}

static int sweep_keys(rg__shared *s, const rg__ctx *ctx, const redisReply *due, size_t n,
                      rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_keys(&a, s, NULL, 0);
    for (size_t i = 0; i < n; i++)
        rg__args_add(&a, due->element[2 * i]->str, due->element[2 * i]->len);
    redisReply *r = NULL;
    int rc = rg__shared_run(s, ctx, &sweep, (int)n + 2, &a, &r, err);
    if (rc == RG_OK) rc = (int)r->integer;
    freeReplyObject(r);
    rg__args_deinit(&a);
    return rc;
}

/* The earliest marks and Redis' clock, in one exchange. */
static int ask(rg__shared *s, rg__redis *c, const rg__ctx *ctx, uint32_t max, redisReply **marked,
               int64_t *now_ms, rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_add(&a, "ZRANGE", 6);
    rg__args_name(&a, &s->marked_key);
    rg__args_u64(&a, 0);
    rg__args_u64(&a, max - 1);
    rg__args_add(&a, "WITHSCORES", 10);
    const char *time[] = {"TIME"};
    redisReply *r = NULL;
    int rc = rg__redis_append(c, a.n, a.argv, a.lens, err);
    if (rc == RG_OK) rc = rg__redis_append(c, 1, time, NULL, err);
    if (rc == RG_OK) rc = rg__redis_reply(c, ctx, marked, err);
    if (rc == RG_OK) rc = rg__redis_reply(c, ctx, &r, err);
    if (rc == RG_OK && (*marked)->type == REDIS_REPLY_ERROR) rc = rg__redis_error(*marked, err);
    if (rc == RG_OK && ((*marked)->type != REDIS_REPLY_ARRAY || r->type != REDIS_REPLY_ARRAY))
        rc = rg__fail(err, RG_ECORRUPT, "Redis did not answer with arrays");
    if (rc == RG_OK)
        *now_ms = strtoll(r->element[0]->str, NULL, 10) * 1000 +
                  strtoll(r->element[1]->str, NULL, 10) / 1000;
    freeReplyObject(r);
    return rc;
}

/* ---- producers: "<producer>:<seq>" -> stream id, whose first half is a time ---- */

static int forget_silent(rg__shared *s, rg__redis *c, const rg__ctx *ctx, int64_t now_ms,
                         const redisReply *pairs, rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_add(&a, "HDEL", 4);
    rg__args_name(&a, &s->producers_key);
    for (size_t i = 0; i + 1 < pairs->elements; i += 2)
        if (pairs->element[i]->str[0] != '#' && /* partitions of a queue */
            strtoll(pairs->element[i + 1]->str, NULL, 10) < now_ms - SILENT_MS)
            rg__args_add(&a, pairs->element[i]->str, pairs->element[i]->len);
    redisReply *r = NULL;
    int rc = a.failed ? rg__fail_memory(err) : RG_OK;
    if (rc == RG_OK && a.n > 2) rc = rg__redis_command(c, ctx, &r, err, a.n, a.argv, a.lens);
    freeReplyObject(r);
    rg__args_deinit(&a);
    return rc;
}

static int scan_producers(rg__shared *s, rg__redis *c, const rg__ctx *ctx, int64_t now_ms,
                          rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_add(&a, "HSCAN", 5);
    rg__args_name(&a, &s->producers_key);
    rg__args_u64(&a, s->sweep_cursor);
    rg__args_add(&a, "COUNT", 5);
    rg__args_u64(&a, SCANNED);
    redisReply *r = NULL;
    int rc = rg__redis_command(c, ctx, &r, err, a.n, a.argv, a.lens);
    if (rc == RG_OK && r->type == REDIS_REPLY_ARRAY && r->elements == 2) {
        s->sweep_cursor = strtoull(r->element[0]->str, NULL, 10);
        rc = forget_silent(s, c, ctx, now_ms, r->element[1], err);
    }
    freeReplyObject(r);
    return rc;
}

int rg__shared_sweep(rg__shared *s, const rg__ctx *ctx, uint32_t max, rg_err *err) {
    rg__redis *c = NULL;
    redisReply *marked = NULL;
    int64_t now_ms = 0;
    if (max == 0 || max > RG__WRITE_CHUNK) max = RG__WRITE_CHUNK;
    int rc = rg__shared_acquire(s, ctx, &c, err);
    if (rc < 0) return rc;
    rc = ask(s, c, ctx, max, &marked, &now_ms, err);
    if (rc == RG_OK) rc = scan_producers(s, c, ctx, now_ms, err);
    rg__redis_release(c);
    size_t due = rc == RG_OK ? count_due(marked, now_ms) : 0;
    if (due) rc = sweep_keys(s, ctx, marked, due, err);
    freeReplyObject(marked);
    return rc;
}
