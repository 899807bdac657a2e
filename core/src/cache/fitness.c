/* SPDX-License-Identifier: MIT */
/* Whether a server can be trusted with a queue. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/shared.h"

enum { RECHECK_MS = 10000, AOF_WAIT_MAJOR = 7, AOF_WAIT_MINOR = 2 };

/* ---- INFO ---- */

/* The value of a line "name:value"; empty when there is none. */
static rg__slice info_value(const redisReply *r, const char *name) {
    size_t len = strlen(name);
    const char *at = r && r->type == REDIS_REPLY_STRING ? r->str : NULL;
    const char *end = at ? at + r->len : NULL;
    while (at && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        size_t line = (size_t)(stop - at);
        if (line > len && !memcmp(at, name, len) && at[len] == ':') {
            const char *value = at + len + 1;
            while (stop > value && (stop[-1] == '\r' || stop[-1] == ' ')) stop--;
            return (rg__slice){value, (size_t)(stop - value)};
        }
        at = stop + 1;
    }
    return (rg__slice){"", 0};
}

static redisReply *ask(rg__redis *c, const rg__ctx *ctx, const char *what, const char *more,
                       const char *last) {
    const char *argv[] = {what, more, last};
    redisReply *r = NULL;
    rg_err ignored = {0};
    if (rg__redis_command(c, ctx, &r, &ignored, last ? 3 : 2, argv, NULL) == RG_OK) return r;
    freeReplyObject(r);
    return NULL;
}

/* ---- fit for a queue ---- */

static bool config_is(rg__redis *c, const rg__ctx *ctx, const char *name, const char *value) {
    redisReply *r = ask(c, ctx, "CONFIG", "GET", name);
    bool is = r && r->type == REDIS_REPLY_ARRAY && r->elements == 2 &&
              r->element[1]->type == REDIS_REPLY_STRING && !strcmp(r->element[1]->str, value);
    freeReplyObject(r);
    return is;
}

static bool knows_waitaof(const redisReply *server) {
    rg__slice version = info_value(server, "redis_version");
    char *end = NULL;
    long major = version.len ? strtol(version.p, &end, 10) : 0;
    long minor = end && *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return major > AOF_WAIT_MAJOR || (major == AOF_WAIT_MAJOR && minor >= AOF_WAIT_MINOR);
}

static void look(rg__redis *c, const rg__ctx *ctx, rg__fitness *out) {
    redisReply *disk = ask(c, ctx, "INFO", "persistence", NULL);
    redisReply *server = ask(c, ctx, "INFO", "server", NULL);
    *out = (rg__fitness){.known = disk != NULL};
    out->appends = rg__slice_eq(info_value(disk, "aof_enabled"), rg__slice_of("1"));
    out->waitaof = out->appends && knows_waitaof(server);
    out->syncs = out->appends && config_is(c, ctx, "appendfsync", "always");
    freeReplyObject(disk);
    freeReplyObject(server);
}

/* Looked at again after a while, and in another epoch. */
int rg__shared_fitness(rg__shared *s, const rg__ctx *ctx, rg__fitness *out, rg_err *err) {
    int64_t now = rg__now_ms();
    uint64_t epoch = atomic_load(&s->epoch);
    pthread_mutex_lock(&s->forget_lock);
    bool fresh = s->fitness_at_ms && now - s->fitness_at_ms < RECHECK_MS &&
                 s->fitness_epoch == epoch;
    *out = s->fitness;
    pthread_mutex_unlock(&s->forget_lock);
    if (fresh) return RG_OK;
    rg__redis *c = NULL;
    rg__ctx quiet = *ctx;
    quiet.trace = NULL;
    quiet.metrics = NULL;
    int rc = rg__shared_acquire(s, ctx, &c, err);
    if (rc < 0) return rc;
    look(c, &quiet, out);
    rg__redis_release(c);
    pthread_mutex_lock(&s->forget_lock);
    s->fitness = *out;
    s->fitness_at_ms = now;
    s->fitness_epoch = epoch;
    pthread_mutex_unlock(&s->forget_lock);
    return RG_OK;
}
