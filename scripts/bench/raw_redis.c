/* SPDX-License-Identifier: MIT */
/* Raw sides on Redis with hiredis: raw_redis get|get_many|mget SECONDS ROWS TABLE, on the very keys
 * that the engine has filled, and raw_redis xadd|scripts|script SECONDS BYTES, BYTES an operation. What
 * the harness needs besides: raw_redis settings, empty, entry STREAM. */
#include "raw.h"

static int key_of(char key[96], const char *table, uint32_t id) {
    return snprintf(key, 96, "{rg}:e:%s:%u", table, id);
}

/* One GET at a time. */
static void get(bench b, uint32_t rows, const char *table) {
    redisContext *c = redis_open();
    uint32_t state = 1, ids[RAW_MANY];
    char key[96];
    do {
        many_ids(&state, rows, ids);
        for (int i = 0; i < RAW_MANY; i++) {
            const char *argv[] = {"GET", key};
            const size_t lens[] = {3, (size_t)key_of(key, table, ids[i])};
            redisAppendCommandArgv(c, 2, argv, lens);
            freeReplyObject(redis_reply(c, REDIS_REPLY_STRING));
        }
    } while (bench_more(&b, RAW_MANY));
    bench_print(&b);
    redisFree(c);
}

/* A pipeline of RAW_MANY GETs at a time. */
static void get_many(bench b, uint32_t rows, const char *table) {
    redisContext *c = redis_open();
    uint32_t state = 1, ids[RAW_MANY];
    char key[96];
    do {
        many_ids(&state, rows, ids);
        for (int i = 0; i < RAW_MANY; i++) {
            const char *argv[] = {"GET", key};
            const size_t lens[] = {3, (size_t)key_of(key, table, ids[i])};
            redisAppendCommandArgv(c, 2, argv, lens);
        }
        for (int i = 0; i < RAW_MANY; i++)
            freeReplyObject(redis_reply(c, REDIS_REPLY_STRING));
    } while (bench_more(&b, RAW_MANY));
    bench_print(&b);
    redisFree(c);
}

/* One MGET of RAW_MANY keys at a time. */
static void mget(bench b, uint32_t rows, const char *table) {
    redisContext *c = redis_open();
    uint32_t state = 1, ids[RAW_MANY];
    static char keys[RAW_MANY][96];
    const char *argv[RAW_MANY + 1] = {"MGET"};
    size_t lens[RAW_MANY + 1] = {4};
    do {
        many_ids(&state, rows, ids);
        for (int i = 0; i < RAW_MANY; i++) {
            argv[i + 1] = keys[i];
            lens[i + 1] = (size_t)key_of(keys[i], table, ids[i]);
        }
        redisAppendCommandArgv(c, RAW_MANY + 1, argv, lens);
        redisReply *r = redis_reply(c, REDIS_REPLY_ARRAY);
        for (size_t i = 0; i < r->elements; i++)
            if (r->element[i]->type != REDIS_REPLY_STRING) die("redis: a key is missing");
        freeReplyObject(r);
    } while (bench_more(&b, RAW_MANY));
    bench_print(&b);
    redisFree(c);
}

/* Pipelines of RAW_MANY XADDs of one operation each; every byte of a payload is there. */
static void xadd(bench b, size_t bytes) {
    redisContext *c = redis_open();
    char *payload = malloc(bytes + 1);
    if (!payload) die("out of memory");
    for (size_t i = 0; i < bytes; i++)
        payload[i] = (char)(i * 131);
    const char *argv[] = {"XADD", "{rg}:q:raw", "*", "d", payload};
    const size_t lens[] = {4, strlen(argv[1]), 1, 1, bytes};
    freeReplyObject(redisCommand(c, "DEL %s", argv[1]));
    b = bench_start(b.seconds);
    do {
        for (int i = 0; i < RAW_MANY; i++)
            redisAppendCommandArgv(c, 5, argv, lens);
        for (int i = 0; i < RAW_MANY; i++)
            freeReplyObject(redis_reply(c, REDIS_REPLY_STRING));
    } while (bench_more(&b, RAW_MANY));
    bench_print(&b);
    freeReplyObject(redisCommand(c, "DEL %s", argv[1]));
    free(payload);
    redisFree(c);
}

/* The least that queues once and only once: a producer's number that was there before is not queued
 * again, and the stream has a bound. */
static const char enqueue_text[] =
    "local last = redis.call('HGET', KEYS[2], ARGV[1])\n"
    "if last and tonumber(last) >= tonumber(ARGV[2]) then return redis.status_reply('DUP') end\n"
    "if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[3]) then return redis.status_reply('FULL') end\n"
    "local id = redis.call('XADD', KEYS[1], '*', 'd', ARGV[4], 'p', ARGV[1], 's', ARGV[2])\n"
    "redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])\n"
    "return id\n";

/* Pipelines of `pipe` such scripts, of `many` operations each. */
static void scripts(bench b, size_t bytes, int pipe, int many) {
    redisContext *c = redis_open();
    unsigned long long number = 0;
    char *payload = malloc(bytes * (size_t)many + 1), seq[24];
    if (!payload) die("out of memory");
    for (size_t i = 0; i < bytes * (size_t)many; i++)
        payload[i] = (char)(i * 131);
    freeReplyObject(redisCommand(c, "DEL {rg}:q:raw {rg}:producers:raw"));
    redisReply *sha = redisCommand(c, "SCRIPT LOAD %s", enqueue_text);
    if (!sha || sha->type != REDIS_REPLY_STRING) die("redis: no script");
    const char *argv[] = {"EVALSHA", sha->str, "2", "{rg}:q:raw", "{rg}:producers:raw",
                          "0123456789abcdef", seq, "10000000", payload};
    size_t lens[9];
    for (int i = 0; i < 8; i++)
        lens[i] = strlen(argv[i]);
    lens[8] = bytes * (size_t)many;
    b = bench_start(b.seconds);
    do {
        for (int i = 0; i < pipe; i++) {
            lens[6] = (size_t)snprintf(seq, sizeof seq, "%llu", ++number);
            redisAppendCommandArgv(c, 9, argv, lens);
        }
        for (int i = 0; i < pipe; i++)
            freeReplyObject(redis_reply(c, REDIS_REPLY_STRING));
    } while (bench_more(&b, (uint64_t)pipe * (uint64_t)many));
    bench_print(&b);
    freeReplyObject(redisCommand(c, "DEL %s %s", argv[3], argv[4]));
    freeReplyObject(sha);
    free(payload);
    redisFree(c);
}

/* For scripts/bench/main.lua: how the server is set up; a clean slate; bytes of a stream's first
 * entry. */
static void settings(void) {
    redisContext *c = redis_open();
    redisReply *info = redisCommand(c, "INFO server");
    redisReply *on = redisCommand(c, "CONFIG GET appendonly");
    redisReply *sync = redisCommand(c, "CONFIG GET appendfsync");
    char *version = strstr(info->str, "redis_version:");
    printf("redis %.*s: appendonly=%s appendfsync=%s\n", (int)strcspn(version + 14, "\r\n"),
           version + 14, on->element[1]->str, sync->element[1]->str);
    freeReplyObject(info);
    freeReplyObject(on);
    freeReplyObject(sync);
    redisFree(c);
}

static void empty(void) {
    redisContext *c = redis_open();
    freeReplyObject(redisCommand(c, "FLUSHALL SYNC"));
    puts("done=1");
    redisFree(c);
}

static void entry(const char *stream) {
    redisContext *c = redis_open();
    redisReply *r = redisCommand(c, "XRANGE %s - + COUNT 1", stream);
    if (r->type != REDIS_REPLY_ARRAY || r->elements == 0) die("redis: %s is empty", stream);
    redisReply *fields = r->element[0]->element[1];
    size_t bytes = 0;
    for (size_t i = 1; i < fields->elements; i += 2)
        bytes += fields->element[i]->len;
    printf("bytes=%zu\n", bytes);
    freeReplyObject(r);
    redisFree(c);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "settings")) return settings(), 0;
    if (!strcmp(what, "empty")) return empty(), 0;
    if (!strcmp(what, "entry") && argc == 3) return entry(argv[2]), 0;
    if (argc < 4) die("usage: raw_redis get|get_many|mget SECONDS ROWS TABLE | xadd|scripts|script SECONDS BYTES");
    bench b = bench_start(number_arg(argc, argv, 2, 1));
    double n = number_arg(argc, argv, 3, 0);
    const char *table = argc > 4 ? argv[4] : "";
    if (!strcmp(what, "get"))
        get(b, (uint32_t)n, table);
    else if (!strcmp(what, "get_many"))
        get_many(b, (uint32_t)n, table);
    else if (!strcmp(what, "mget"))
        mget(b, (uint32_t)n, table);
    else if (!strcmp(what, "xadd"))
        xadd(b, (size_t)n);
    else if (!strcmp(what, "scripts"))
        scripts(b, (size_t)n, RAW_MANY, 1);
    else if (!strcmp(what, "script"))
        scripts(b, (size_t)n, 1, RAW_MANY);
    else
        die("raw_redis: what is %s?", what);
    return 0;
}
