/* SPDX-License-Identifier: MIT */
/* The relay: events from the outbox to their streams, each once (outbox.h says how). */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/err.h"
#include "queue/outbox.h"

enum {
    AT_ONCE = 100,       /* rows a step */
    HELD_MS = 1000,      /* how long one that says nothing is left alone */
    RENEW_MS = 300,
    LOOK_MS = 100,       /* how often others look whether rows wait for nobody */
    NO_TABLE_MS = 1000,
    HEAD = 5,            /* arguments of the script besides those of each event */
    FENCED = -1          /* what the script answers to one that was replaced */
};

/* Streams that no group reads are kept within bounds, or they would grow for ever. */
static const char publish_text[] =
    "local f = tonumber(redis.call('GET', KEYS[1]) or '0')\n"
    "if f > tonumber(ARGV[1]) then return -1 end\n"
    "for i = 3, #KEYS do\n"
    "  local t = redis.call('TYPE', KEYS[i]).ok\n"
    "  if t ~= 'none' and t ~= 'stream' then\n"
    "    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is no stream')\n"
    "  end\n"
    "end\n"
    "redis.call('SET', KEYS[1], ARGV[1])\n"
    "local n, grown = 0, {}\n"
    "for i = 3, #KEYS do\n"
    "  local uid = ARGV[i * 2 - 2]\n"
    "  if redis.call('SADD', KEYS[2], uid) == 1 then\n"
    "    redis.call('XADD', KEYS[i], '*', 'id', uid, 'body', ARGV[i * 2 - 1])\n"
    "    n, grown[KEYS[i]] = n + 1, true\n"
    "  end\n"
    "end\n"
    "local t = redis.call('TIME')\n"
    "local oldest = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[3])))\n"
    "for key in pairs(grown) do\n"
    "  if #redis.call('XINFO', 'GROUPS', key) == 0 then\n"
    "    redis.call('XTRIM', key, 'MAXLEN', '~', ARGV[2])\n"
    "    redis.call('XTRIM', key, 'MINID', '~', oldest)\n"
    "  end\n"
    "end\n"
    "return n\n";

static const char forget_text[] =
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end\n"
    "for i = 2, #ARGV do redis.call('SREM', KEYS[2], ARGV[i]) end\n"
    "return 0\n";

static const char *const publish_parts[] = {publish_text, NULL};
static const char *const forget_parts[] = {forget_text, NULL};
static rg__script publish_script = {.name = "relay", .parts = publish_parts};
static rg__script forget_script = {.name = "forget", .parts = forget_parts};

struct rg__relay {
    const rg__queue *q;
    char *fence_key, *seen_key, *prefix; /* prefix: of streams */
    char holder[33];   /* who this is, in hex */
    bool held;
    uint64_t fence;    /* while held */
    int64_t renew_ms;  /* when to say again that it is there */
    int64_t look_ms;   /* not held: when to look again */
};

/* Rows read from the outbox. */
typedef struct rows {
    rg__result *r; /* number, uid, stream, body */
    rg__buf keys;  /* their stream keys, each with its NUL */
} rows;

static char *name(const rg__queue *q, const char *fmt, const char *more) {
    rg__buf b = {0};
    rg__buf_fmt(&b, "{%s}", rg__shared_prefix(q->shared));
    rg__buf_fmt(&b, fmt, more);
    char *s = b.failed ? NULL : rg__strdup(rg__buf_cstr(&b));
    rg__buf_deinit(&b);
    return s;
}

rg__relay *rg__relay_new(const rg__queue *q, rg_err *err) {
    rg__relay *r = rg__calloc(1, sizeof *r);
    if (r) {
        uint8_t id[16];
        rg__random(id, sizeof id);
        for (size_t i = 0; i < sizeof id; i++) snprintf(r->holder + 2 * i, 3, "%02x", id[i]);
        r->q = q;
        r->fence_key = name(q, ":rf:%s", q->name);
        r->seen_key = name(q, ":rs:%s", q->name);
        r->prefix = name(q, ":ev:%s", "");
        if (r->fence_key && r->seen_key && r->prefix) return r;
    }
    rg__relay_free(r);
    rg__fail_memory(err);
    return NULL;
}

void rg__relay_free(rg__relay *r) {
    if (!r) return;
    rg__free(r->fence_key);
    rg__free(r->seen_key);
    rg__free(r->prefix);
    rg__free(r);
}

/* ---- Redis ---- */

static int call(rg__relay *r, const rg__ctx *ctx, rg__script *s, int nkeys, size_t n,
                const char **argv, const size_t *lens, long long *answer, rg_err *err) {
    rg__redis *c = NULL;
    redisReply *reply = NULL;
    int rc = rg__redis_acquire(rg__shared_pool(r->q->shared), ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__script_call(c, ctx, s, nkeys, (int)n, argv, lens, &reply, err);
    rg__redis_release(c);
    if (rc >= 0) *answer = reply->integer;
    if (reply) freeReplyObject(reply);
    return rc < 0 ? rc : RG_OK;
}

/* The highest fence that Redis has seen, and the uids. */
static int ask_redis(rg__relay *r, const rg__ctx *ctx, uint64_t *fence, redisReply **uids,
                     rg_err *err) {
    const char *get[] = {"GET", r->fence_key}, *members[] = {"SMEMBERS", r->seen_key};
    rg__redis *c = NULL;
    redisReply *reply = NULL;
    *uids = NULL;
    int rc = rg__redis_acquire(rg__shared_pool(r->q->shared), ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__redis_command(c, ctx, &reply, err, 2, get, NULL);
    if (rc >= 0) *fence = reply->type == REDIS_REPLY_STRING ? strtoull(reply->str, NULL, 10) : 0;
    if (rc >= 0) rc = rg__redis_command(c, ctx, uids, err, 2, members, NULL);
    if (reply) freeReplyObject(reply);
    rg__redis_release(c);
    return rc;
}

/* Forgets uids whose rows are gone. */
static int forget(rg__relay *r, const rg__ctx *ctx, const rg__slice *uids, size_t n, rg_err *err) {
    char fence[24];
    long long answer = 0;
    if (n == 0) return RG_OK;
    const char **argv = rg__calloc(n + 3, sizeof *argv);
    size_t *lens = rg__calloc(n + 3, sizeof *lens);
    int rc = argv && lens ? RG_OK : rg__fail_memory(err);
    if (rc >= 0) {
        snprintf(fence, sizeof fence, "%llu", (unsigned long long)r->fence);
        const char *head[] = {r->fence_key, r->seen_key, fence};
        for (size_t i = 0; i < n + 3; i++) {
            argv[i] = i < 3 ? head[i] : uids[i - 3].p;
            lens[i] = i < 3 ? strlen(head[i]) : uids[i - 3].len;
        }
        rc = call(r, ctx, &forget_script, 2, n + 3, argv, lens, &answer, err);
    }
    rg__free(argv);
    rg__free(lens);
    return rc;
}

static int make_keys(rg__relay *r, rows *w, rg_err *err) {
    for (size_t i = 0; i < w->r->n_rows; i++) {
        rg__slice stream = w->r->cells[i * w->r->n_columns + 2];
        rg__buf_str(&w->keys, r->prefix);
        rg__buf_add(&w->keys, stream.p, stream.len);
        rg__buf_char(&w->keys, '\0');
    }
    return w->keys.failed ? rg__fail_memory(err) : RG_OK;
}

/* *answer: how many were new, or FENCED. */
static int publish(rg__relay *r, const rg__ctx *ctx, rows *w, long long *answer, rg_err *err) {
    size_t n = w->r ? w->r->n_rows : 0, at = 0;
    char fence[24], most[24], keep_ms[24];
    const char **argv = rg__calloc(3 * n + HEAD, sizeof *argv);
    size_t *lens = rg__calloc(3 * n + HEAD, sizeof *lens);
    int rc = argv && lens ? RG_OK : rg__fail_memory(err);
    if (rc >= 0 && n) rc = make_keys(r, w, err);
    if (rc >= 0) {
        snprintf(fence, sizeof fence, "%llu", (unsigned long long)r->fence);
        snprintf(most, sizeof most, "%llu", (unsigned long long)r->q->rules.events_max_len);
        snprintf(keep_ms, sizeof keep_ms, "%llu", (unsigned long long)r->q->rules.events_keep_ms);
        argv[0] = r->fence_key;
        argv[1] = r->seen_key;
        const char *key = w->keys.p;
        for (size_t i = 0; i < n; i++, key += strlen(key) + 1) argv[2 + i] = key;
        argv[2 + n] = fence;
        argv[3 + n] = most;
        argv[4 + n] = keep_ms;
        for (at = 0; at < HEAD + n; at++) lens[at] = strlen(argv[at]);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 1; k <= 3; k += 2, at++) { /* uid, body */
                rg__slice cell = w->r->cells[i * w->r->n_columns + k];
                argv[at] = cell.p;
                lens[at] = cell.len;
            }
        rc = call(r, ctx, &publish_script, (int)n + 2, at, argv, lens, answer, err);
    }
    rg__free(argv);
    rg__free(lens);
    return rc;
}

/* ---- MySQL ---- */

static int query(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, rg__buf *sql, rg__result **out,
                 uint64_t *affected, rg_err *err) {
    (void)r;
    if (sql->failed) return rg__fail_memory(err);
    int rc = out ? rg__queue_query(c, ctx, sql, out, err)
                 : rg__mysql_exec(c, ctx, sql->p, sql->len, affected, err);
    rg__buf_clear(sql);
    return rc < 0 ? rc : RG_OK;
}

static int say_held(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    rg__buf sql = {0};
    uint64_t affected = 0;
    r->renew_ms = rg__now_ms() + RENEW_MS;
    rg__buf_fmt(&sql, "UPDATE `_regolith_relay` SET `held_until`=UTC_TIMESTAMP(6)+INTERVAL %d000 "
                      "MICROSECOND WHERE `name`='outbox' AND `fence`=%llu",
                HELD_MS, (unsigned long long)r->fence);
    int rc = query(r, c, ctx, &sql, NULL, &affected, err);
    rg__buf_deinit(&sql);
    if (rc >= 0 && affected == 0) r->held = false;
    return rc;
}

/* Does a row wait while nobody says that it is there? *fence: the one in force. */
static int is_needed(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, bool *needed,
                     uint64_t *fence, rg_err *err) {
    static const char text[] =
        "SELECT `fence`,`held_until`<UTC_TIMESTAMP(6) AND EXISTS (SELECT 1 FROM `_regolith_outbox`)"
        " FROM `_regolith_relay` WHERE `name`='outbox'";
    rg_err fault;
    rg__buf sql = {0};
    rg__result *out = NULL;
    rg__err_clear(&fault);
    *needed = false;
    r->look_ms = rg__now_ms() + LOOK_MS;
    rg__buf_str(&sql, text);
    int rc = query(r, c, ctx, &sql, &out, NULL, &fault);
    rg__buf_deinit(&sql);
    if (rc < 0 && rg__is_missing_table(&fault)) {
        r->look_ms = rg__now_ms() + NO_TABLE_MS;
        return RG_OK;
    }
    if (rc < 0 && err) *err = fault;
    if (rc >= 0 && out->n_rows) {
        *fence = rg__cell_u64(out, 0, 0);
        *needed = rg__cell_u64(out, 0, 1) == 1;
    }
    rg__result_free(out);
    return rc;
}

static int take_fence(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, uint64_t was, uint64_t at_least,
                      rg_err *err) {
    rg__buf sql = {0};
    uint64_t affected = 0;
    r->fence = (was > at_least ? was : at_least) + 1;
    rg__buf_fmt(&sql, "UPDATE `_regolith_relay` SET `fence`=%llu,`holder`=X'%s',"
                      "`held_until`=UTC_TIMESTAMP(6)+INTERVAL %d000 MICROSECOND"
                      " WHERE `name`='outbox' AND `fence`=%llu",
                (unsigned long long)r->fence, r->holder, HELD_MS, (unsigned long long)was);
    int rc = query(r, c, ctx, &sql, NULL, &affected, err);
    rg__buf_deinit(&sql);
    r->held = rc >= 0 && affected == 1;
    r->renew_ms = rg__now_ms() + RENEW_MS;
    return rc;
}

/* Drops those of the uids that have no row any more: of these a crash kept others from doing it. */
static int forget_gone(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, const redisReply *uids,
                       rg_err *err) {
    rg__buf sql = {0};
    rg__result *out = NULL;
    size_t n = uids->type == REDIS_REPLY_ARRAY ? uids->elements : 0, gone = 0;
    if (n == 0) return RG_OK;
    rg__slice *list = rg__calloc(n, sizeof *list);
    rg__buf_str(&sql, "SELECT LOWER(HEX(`uid`)) FROM `_regolith_outbox` WHERE LOWER(HEX(`uid`)) IN (");
    for (size_t i = 0; i < n; i++) {
        if (i) rg__buf_char(&sql, ',');
        rg__sql_text(&sql, uids->element[i]->str, uids->element[i]->len);
    }
    rg__buf_char(&sql, ')');
    int rc = list ? query(r, c, ctx, &sql, &out, NULL, err) : rg__fail_memory(err);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        rg__slice uid = {uids->element[i]->str, uids->element[i]->len};
        bool there = false;
        for (size_t k = 0; k < out->n_rows; k++) there |= rg__slice_eq(out->cells[k], uid);
        if (!there) list[gone++] = uid;
    }
    if (rc >= 0) rc = forget(r, ctx, list, gone, err);
    rg__result_free(out);
    rg__buf_deinit(&sql);
    rg__free(list);
    return rc;
}

/* Becomes the one that moves events, if nobody else is. The fence is known in Redis before the first
 * row is read: whoever held it before publishes nothing from then on. */
static int take(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    bool needed = false;
    uint64_t was = 0, seen = 0;
    redisReply *uids = NULL;
    rows none = {0};
    long long answer = 0;
    if (rg__now_ms() < r->look_ms) return RG_OK;
    int rc = is_needed(r, c, ctx, &needed, &was, err);
    if (rc < 0 || !needed) return rc;
    rc = ask_redis(r, ctx, &seen, &uids, err);
    if (rc >= 0) rc = take_fence(r, c, ctx, was, seen, err);
    if (rc >= 0 && r->held) rc = publish(r, ctx, &none, &answer, err);
    if (rc < 0 || answer == FENCED) r->held = false;
    if (rc >= 0 && r->held) rc = forget_gone(r, c, ctx, uids, err);
    if (uids) freeReplyObject(uids);
    return rc;
}

static int read_rows(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, rows *w, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql, "SELECT `number`,LOWER(HEX(`uid`)),`stream`,`body` FROM `_regolith_outbox` "
                      "ORDER BY `number` LIMIT %d", AT_ONCE);
    int rc = query(r, c, ctx, &sql, &w->r, NULL, err);
    rg__buf_deinit(&sql);
    return rc;
}

static int delete_rows(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, const rows *w, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "DELETE FROM `_regolith_outbox` WHERE `number` IN (");
    for (size_t i = 0; i < w->r->n_rows; i++)
        rg__buf_fmt(&sql, i ? ",%llu" : "%llu", (unsigned long long)rg__cell_u64(w->r, i, 0));
    rg__buf_char(&sql, ')');
    int rc = query(r, c, ctx, &sql, NULL, NULL, err);
    rg__buf_deinit(&sql);
    return rc;
}

/* ---- the step ---- */

static int forget_rows(rg__relay *r, const rg__ctx *ctx, const rows *w, rg_err *err) {
    rg__slice uids[AT_ONCE];
    for (size_t i = 0; i < w->r->n_rows; i++) uids[i] = w->r->cells[i * w->r->n_columns + 1];
    return forget(r, ctx, uids, w->r->n_rows, err);
}

static int move_rows(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, rows *w, uint64_t *moved,
                     rg_err *err) {
    long long answer = 0;
    rg__kill_point(RG__KILL_RELAY_READ);
    int rc = publish(r, ctx, w, &answer, err);
    if (rc >= 0 && answer == FENCED) {
        r->held = false;
        return RG_OK;
    }
    rg__kill_point(RG__KILL_RELAY_PUBLISHED);
    if (rc >= 0) rc = delete_rows(r, c, ctx, w, err);
    rg__kill_point(RG__KILL_RELAY_DELETED);
    if (rc >= 0) rc = forget_rows(r, ctx, w, err);
    if (rc >= 0) *moved = w->r->n_rows;
    return rc;
}

static int step_on(rg__relay *r, rg__mysql *c, const rg__ctx *ctx, uint64_t *moved, rg_err *err) {
    rows w = {0};
    int rc = r->held ? RG_OK : take(r, c, ctx, err);
    if (rc < 0 || !r->held) return rc;
    rc = read_rows(r, c, ctx, &w, err);
    if (rc >= 0 && w.r->n_rows) rc = move_rows(r, c, ctx, &w, moved, err);
    if (rc >= 0 && r->held && rg__now_ms() >= r->renew_ms) rc = say_held(r, c, ctx, err);
    rg__result_free(w.r);
    rg__buf_deinit(&w.keys);
    return rc;
}

int rg__relay_step(rg__relay *r, const rg__ctx *ctx, uint64_t *moved, rg_err *err) {
    rg__mysql *c = NULL;
    *moved = 0;
    if (!r->held && rg__now_ms() < r->look_ms) return RG_OK;
    int rc = rg__mysql_acquire(r->q->mysql, ctx, &c, err);
    if (rc >= 0) rc = step_on(r, c, ctx, moved, err);
    if (c) rg__mysql_release(c);
    if (rc >= 0) return RG_OK;
    r->held = false; /* what is known may be wrong: begin anew */
    r->look_ms = rg__now_ms() + LOOK_MS;
    rg__err_prefix(err, "moving events of pool %s: ", r->q->name);
    return rc;
}
