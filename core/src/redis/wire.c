/* SPDX-License-Identifier: MIT */
/* Wires: the protocol of a connection without its socket. */
#include <arpa/inet.h>

#include "base/err.h"
#include "redis/conn.h"

static bool is_address(const char *host) {
    struct in_addr a;
    return host && inet_pton(AF_INET, host, &a) == 1;
}

bool rg__redis_wirable(const rg__redis_pool *pool) {
    const rg_pool_opts *o = &pool->opts;
    if (o->tls != RG_TLS_OFF) return false;
    return o->unix_path ? o->unix_path[0] == '/' : is_address(o->host);
}

rg__redis *rg__redis_wire(rg__redis_pool *pool, uint32_t *replies, rg_err *err) {
    rg__redis *c = rg__redis_make(pool, NULL);
    if (!c) {
        rg__fail_memory(err);
        return NULL;
    }
    c->dedicated = true;
    if (rg__redis_say_hello(c, err) < 0) {
        rg__redis_release(c);
        return NULL;
    }
    *replies = c->pending;
    return c;
}

rg__slice rg__redis_outgoing(rg__redis *c) {
    if (c->started_us == 0) c->started_us = rg__now_us();
    return (rg__slice){c->out.p, c->out.len};
}

/* The introduction may hold a password. */
void rg__redis_carried(rg__redis *c) {
    if (c->out.p && !c->note) explicit_bzero(c->out.p, c->out.len);
    rg__buf_clear(&c->out);
}

int rg__redis_incoming(rg__redis *c, const char *p, size_t n, rg_err *err) {
    if (c->broken) return rg__redis_lost(c, err, "the connection is broken", 0);
    return rg__redis_digest(c, p, n, err);
}

int rg__redis_take(rg__redis *c, const rg__redis_sink *sink, redisReply **reply, rg_err *err) {
    *reply = NULL;
    c->sink = sink;
    int rc = rg__redis_parse(c, reply, err);
    c->sink = NULL;
    if (rc <= 0) return rc;
    if (c->pending == 0) {
        freeReplyObject(*reply);
        *reply = NULL;
        return rg__redis_lost(c, err, "Redis said what nobody asked for", 0);
    }
    c->pending--;
    return rc;
}

void rg__redis_answered(rg__redis *c, const rg__ctx *ctx, const char *error) {
    rg__redis_observe(c, ctx, error);
}
