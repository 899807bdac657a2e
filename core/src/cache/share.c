/* SPDX-License-Identifier: MIT */
/* Leases of a queue's partitions: who of its consumers works on which. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/shared.h"

RG__SCRIPT(share, share);

static bool make_key(rg__buf *out, const rg__shared *s, const char *what, const char *queue) {
    rg__buf_fmt(out, "{%s}:%s:%s", s->prefix, what, queue);
    rg__buf_cstr(out);
    return !out->failed;
}

static bool is_integer(const redisReply *r) { return r->type == REDIS_REPLY_INTEGER; }

static int take(const redisReply *r, rg__share *out, rg_err *err) {
    bool sound = r->type == REDIS_REPLY_ARRAY && r->elements % 3 == 1 && is_integer(r->element[0]);
    *out = (rg__share){0};
    if (sound) out->n_parts = (uint32_t)r->element[0]->integer;
    for (size_t i = 1; sound && i < r->elements; i += 3) {
        const redisReply *part = r->element[i];
        sound = is_integer(part) && is_integer(r->element[i + 1]) && is_integer(r->element[i + 2]) &&
                part->integer >= 0 && part->integer < RG__SHARE_PARTS;
        if (!sound) break;
        out->held[part->integer] = true;
        out->fresh[part->integer] = r->element[i + 1]->integer == 1;
        out->connection[part->integer] = (unsigned long)r->element[i + 2]->integer;
    }
    if (!sound || out->n_parts == 0 || out->n_parts > RG__SHARE_PARTS)
        return rg__fail(err, RG_ECORRUPT, "SHARE answered something else");
    return RG_OK;
}

static void add_connection(rg__args *a, char text[2][24], int part, unsigned long connection) {
    rg__args_add(a, text[0], (size_t)snprintf(text[0], sizeof text[0], "%d", part));
    rg__args_add(a, text[1], (size_t)snprintf(text[1], sizeof text[1], "%lu", connection));
}

int rg__shared_share(rg__shared *s, const rg__ctx *ctx, const char *queue, const char *owner,
                     uint32_t lease_ms, uint32_t n_parts, const unsigned long *connections,
                     rg__share *out, rg_err *err) {
    rg__args a;
    rg__buf leases = {0}, members = {0}, field = {0};
    char numbers[RG__SHARE_PARTS][2][24];
    redisReply *r = NULL;
    rg__args_init(&a);
    rg__buf_fmt(&field, "#%s", queue);
    bool ok = make_key(&leases, s, "ql", queue) && make_key(&members, s, "qm", queue);
    rg__args_name(&a, &s->epoch_key);
    rg__args_name(&a, &s->producers_key);
    rg__args_buf(&a, &leases);
    rg__args_buf(&a, &members);
    rg__args_add(&a, owner, strlen(owner));
    rg__args_u64(&a, lease_ms);
    rg__args_buf(&a, &field);
    rg__args_u64(&a, n_parts);
    for (int i = 0; connections && i < RG__SHARE_PARTS; i++)
        if (connections[i]) add_connection(&a, numbers[i], i, connections[i]);
    int rc = ok ? rg__shared_run(s, ctx, &share, 4, &a, &r, err) : rg__fail_memory(err);
    if (rc == RG_OK) rc = take(r, out, err);
    freeReplyObject(r);
    rg__args_deinit(&a);
    rg__buf_deinit(&leases);
    rg__buf_deinit(&members);
    rg__buf_deinit(&field);
    return rc;
}

int rg__shared_parts(rg__shared *s, const rg__ctx *ctx, const char *queue, uint32_t configured,
                     uint32_t *n_parts, rg_err *err) {
    rg__buf field = {0};
    rg__redis *c = NULL;
    redisReply *r = NULL;
    rg__buf_fmt(&field, "#%s", queue);
    int rc = rg__shared_acquire(s, ctx, &c, err);
    if (rc == RG_OK) {
        const char *argv[] = {"HGET", s->producers_key.text, rg__buf_cstr(&field)};
        rc = rg__redis_command(c, ctx, &r, err, 3, argv, NULL);
        rg__redis_release(c);
    }
    if (rc == RG_OK) {
        uint32_t recorded = r->type == REDIS_REPLY_STRING ? (uint32_t)strtoul(r->str, NULL, 10) : 1;
        *n_parts = recorded > configured ? recorded : configured;
        if (*n_parts > RG__SHARE_PARTS) *n_parts = RG__SHARE_PARTS;
    }
    freeReplyObject(r);
    rg__buf_deinit(&field);
    return rc;
}
