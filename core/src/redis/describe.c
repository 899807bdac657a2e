/* SPDX-License-Identifier: MIT */
/* The query log's view of an exchange: made from the commands as they stand in the buffer, and only
 * when somebody looks. */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "redis/conn.h"

enum { SHOWN_ARGS = 16, SHOWN_BYTES = 200 };

/* Commands whose arguments are all keys. */
static const char *const of_keys[] = {"MGET", "DEL", "UNLINK", "EXISTS", "TOUCH"};
/* Commands of which nothing may be shown. */
static const char *const secret[] = {"AUTH", "HELLO", "ACL", "CONFIG"};
/* Names that the log uses; an event's name is static. */
static const char *const names[] = {
    "GET",    "SET",    "MGET",   "MSET",   "DEL",   "EVAL",  "EVALSHA",   "XADD",  "XRANGE",
    "XLEN",   "XTRIM",  "XREAD",  "XINFO",  "HGET",  "HSET",  "HDEL",      "HSCAN", "TIME",
    "ZRANGE", "PING",   "INFO",   "CLIENT", "SCRIPT", "TTL",  "PTTL",      "SCAN",  "UNLINK",
    "EXISTS", "PEXPIRE", "EXPIRE", "TYPE",  "INCR",  "WAIT",  "SUBSCRIBE", "EXEC",  "MULTI"};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *find(const char *const *list, size_t n, rg__slice word) {
    for (size_t i = 0; i < n; i++)
        if (strlen(list[i]) == word.len && strncasecmp(list[i], word.p, word.len) == 0)
            return list[i];
    return NULL;
}

static bool printable(rg__slice s) {
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.p[i] < 0x20 || (unsigned char)s.p[i] > 0x7e) return false;
    return true;
}

/* Keys of lookups end in encoded values, which begin with a byte below a space. */
static void put_key(rg__buf *out, rg__slice s) {
    size_t n = 0;
    while (n < s.len && n < SHOWN_BYTES && s.p[n] >= 0x20 && s.p[n] <= 0x7e) n++;
    rg__buf_add(out, s.p, n);
    if (n < s.len) rg__buf_char(out, '?');
}

static void put_value(rg__buf *out, rg__slice s, bool values) {
    if (!values) rg__buf_char(out, '?');
    else if (s.len <= SHOWN_BYTES && printable(s)) rg__buf_add(out, s.p, s.len);
    else rg__buf_fmt(out, "<%zu bytes>", s.len);
}

/* Our own bytes: always well-formed. */
static size_t number(const char **p) {
    char *end;
    size_t n = strtoul(*p + 1, &end, 10);
    *p = end + 2;
    return n;
}

static rg__slice next_arg(const char **p) {
    size_t len = number(p);
    rg__slice s = {*p, len};
    *p += len + 2;
    return s;
}

typedef struct shape {
    size_t keys_from, keys_to; /* arguments that are keys: [from, to) */
    bool hidden;
} shape;

static shape shape_of(rg__slice name, size_t n) {
    if (find(secret, COUNT(secret), name)) return (shape){.hidden = true};
    if (find(of_keys, COUNT(of_keys), name)) return (shape){1, n, false};
    return (shape){1, 2, false};
}

static bool is_script(rg__slice name) {
    return name.len >= 4 && strncasecmp(name.p, "EVAL", 4) == 0;
}

/* EVALSHA sha numkeys keys... values...: the script's name stands for the digest. */
static const char *skip_script(rg__redis *c, const char *p, shape *s) {
    next_arg(&p);
    rg__slice n = next_arg(&p);
    *s = (shape){3, 3 + strtoul(n.p, NULL, 10), false};
    if (c->op) rg__buf_str(&c->label, c->op);
    return p;
}

static void put_args(rg__redis *c, const char *p, size_t from, size_t n, shape s, bool values) {
    for (size_t i = from; i < n; i++) {
        rg__slice arg = next_arg(&p);
        rg__buf_char(&c->label, ' ');
        if (i - from >= SHOWN_ARGS) {
            rg__buf_fmt(&c->label, "... %zu more", n - i);
            return;
        }
        if (i >= s.keys_from && i < s.keys_to) put_key(&c->label, arg);
        else put_value(&c->label, arg, values);
    }
}

void rg__redis_describe(rg__redis *c, bool values) {
    const char *p = rg__buf_cstr(&c->out);
    if (!*p || c->out.failed) return;
    rg__buf_clear(&c->label);
    size_t n = number(&p);
    rg__slice name = next_arg(&p);
    shape s = shape_of(name, n);
    size_t from = 1;
    if (is_script(name) && n >= 3) {
        p = skip_script(c, p, &s);
        from = 3;
    } else {
        rg__buf_add(&c->label, name.p, name.len);
    }
    if (!c->op) c->op = find(names, COUNT(names), name);
    if (!s.hidden) put_args(c, p, from, n, s, values);
    if (c->appended > 1) rg__buf_fmt(&c->label, " (+%u commands)", c->appended - 1);
}

static void log_exchange(rg__redis *c, const rg__ctx *ctx, int64_t us, const char *error) {
    const char *text = rg__buf_cstr(&c->label);
    rg__trace_add(ctx, RG__SOURCE_REDIS, c->op ? c->op : "command", c->pool->opts.name, text,
                  c->label.len, c->started_wall_us, us, (int64_t)c->appended, error);
    rg__buf_clear(&c->label);
}

/* The commands themselves are gone; their values would not be shown anyway. */
static void remember(const rg__redis *c, const rg__ctx *ctx, int64_t us, const char *error) {
    char text[64];
    snprintf(text, sizeof text, "%u command%s", c->appended, c->appended == 1 ? "" : "s");
    rg_slow_event e = {.started = (double)(rg__wall_us() - us) / 1e6, .duration = (double)us / 1e6,
                       .rows = (double)c->appended, .source = RG__SOURCE_REDIS,
                       .code = error ? RG_EREDIS : RG_OK};
    rg__slow_add(ctx->metrics->slow, &e, c->op ? c->op : c->first, c->pool->opts.name,
                 rg__slice_of(text));
}

static void note_failure(const rg__redis *c, const rg__ctx *ctx) {
    rg__count(ctx->metrics, RG__C_REDIS_ERRORS, 1);
    atomic_fetch_add_explicit(&c->pool->errors, 1, memory_order_relaxed);
}

void rg__redis_observe(rg__redis *c, const rg__ctx *ctx, const char *error) {
    int64_t us = rg__now_us() - c->started_us;
    rg__count(ctx->metrics, RG__C_REDIS_COMMANDS, c->appended);
    if (error) note_failure(c, ctx);
    if (!ctx->waits) rg__observe(ctx->metrics, RG__H_REDIS_SECONDS, us);
    if (!ctx->waits && rg__is_slow(ctx->metrics, us)) remember(c, ctx, us, error);
    if (rg__traced(ctx, RG__SOURCE_REDIS) && c->label.len) log_exchange(c, ctx, us, error);
    c->appended = 0;
    c->started_us = 0;
    c->op = NULL;
}
