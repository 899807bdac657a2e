/* SPDX-License-Identifier: MIT */
/* Scripts by digest. */
#include <openssl/sha.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/err.h"
#include "redis/conn.h"

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

static char *join(const char *const *parts) {
    size_t len = 0;
    for (size_t i = 0; parts[i]; i++) len += strlen(parts[i]);
    char *text = rg__malloc(len + 1);
    if (!text) return NULL;
    char *p = text;
    for (size_t i = 0; parts[i]; i++) p = stpcpy(p, parts[i]);
    return text;
}

static void digest(const char *text, char hex[41]) {
    unsigned char sum[SHA_DIGEST_LENGTH];
    SHA1((const unsigned char *)text, strlen(text), sum);
    for (size_t i = 0; i < sizeof sum; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
}

/* `text` is set last: whoever sees it sees the digest. */
int rg__script_init(rg__script *s, rg_err *err) {
    if (__atomic_load_n(&s->text, __ATOMIC_ACQUIRE)) return RG_OK;
    pthread_mutex_lock(&init_lock);
    char *text = s->text ? NULL : join(s->parts);
    if (text) {
        digest(text, s->sha);
        __atomic_store_n(&s->text, text, __ATOMIC_RELEASE);
    }
    bool ready = s->text != NULL;
    pthread_mutex_unlock(&init_lock);
    return ready ? RG_OK : rg__fail_memory(err);
}

static bool is_missing(const redisReply *r) {
    return r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", 8) == 0;
}

static atomic_ullong misses;

uint64_t rg__script_misses(void) { return atomic_load_explicit(&misses, memory_order_relaxed); }

static int run(rg__redis *c, const rg__ctx *ctx, rg__script *s, bool whole, int nkeys,
               const rg__redis_args *args, redisReply **reply, rg_err *err) {
    char count[16];
    snprintf(count, sizeof count, "%d", nkeys);
    const char *argv[] = {whole ? "EVAL" : "EVALSHA", whole ? s->text : s->sha, count};
    const rg__redis_args head = {.n = 3, .argv = argv};
    c->op = s->name;
    return rg__redis_exchange(c, ctx, &head, args, reply, err);
}

int rg__script_call(rg__redis *c, const rg__ctx *ctx, rg__script *s, int nkeys, int argc,
                    const char *const *argv, const size_t *lens, redisReply **reply, rg_err *err) {
    *reply = NULL;
    const rg__redis_args args = {argc, argv, lens};
    redisReply *r = NULL;
    int rc = rg__script_init(s, err);
    if (rc == RG_OK) rc = run(c, ctx, s, false, nkeys, &args, &r, err);
    if (rc == RG_OK && is_missing(r)) {
        freeReplyObject(r);
        atomic_fetch_add(&misses, 1);
        rc = run(c, ctx, s, true, nkeys, &args, &r, err);
    }
    if (rc == RG_OK && r->type == REDIS_REPLY_ERROR) {
        rc = rg__redis_error(r, err);
        rg__err_prefix(err, "script %s: ", s->name);
        freeReplyObject(r);
        r = NULL;
    }
    *reply = r;
    return rc;
}

int rg__script_leave(rg__redis *c, const rg__ctx *ctx, rg__script *s, int nkeys, int argc,
                     const char *const *argv, const size_t *lens, rg_err *err) {
    char count[16];
    int rc = rg__script_init(s, err);
    if (rc < 0) return rc;
    snprintf(count, sizeof count, "%d", nkeys);
    const char *first[] = {"EVALSHA", s->sha, count};
    const rg__redis_args head = {.n = 3, .argv = first};
    const rg__redis_args args = {argc, argv, lens};
    c->op = s->name;
    rc = rg__redis_append_args(c, &head, &args, err);
    return rc < 0 ? rc : rg__redis_leave(c, ctx, err);
}
