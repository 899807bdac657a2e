/* SPDX-License-Identifier: MIT */
/* What the raw sides of the benchmarks share: arguments, connections, clock, rows, the answer.
 *
 * A raw side is a plain C loop on a client library, as a person would write it by hand for exactly
 * this job. It runs for the seconds asked for and prints "ops=<n> seconds=<s>". */
#ifndef BENCH_RAW_H
#define BENCH_RAW_H

#include <errno.h>
#include <hiredis/hiredis.h>
#include <mysql.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RAW_MANY = 100, RAW_FLUSH = 1000 };

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static inline double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline const char *env(const char *name) {
    const char *value = getenv(name);
    if (!value) die("%s is not set: start this with scripts/bench/run", name);
    return value;
}

/* Argument i, or the default when there are fewer. */
static inline double number_arg(int argc, char **argv, int i, double def) {
    return i < argc ? atof(argv[i]) : def;
}

/* ---- the clock of a side: a tenth of the time warms up and does not count ---- */
typedef struct bench {
    double seconds, started;
    uint64_t ops;
    int warm;
} bench;

static inline bench bench_start(double seconds) {
    return (bench){.seconds = seconds, .started = now_s()};
}

/* Short turns with the other side, as clock.lua has them. */
static inline double bench_await_turn(const char **turns, double *turn_began) {
    char byte;
    double began = now_s();
    if (read(8, &byte, 1) != 1) *turns = NULL;
    *turn_began = now_s();
    return *turn_began - began;
}

/* Seconds that went to the other side. */
static inline double bench_take_turns(void) {
    static const char *turns;
    static double turn_began;
    static int asked;
    if (!asked++) turns = getenv("BENCH_TURN");
    if (!turns) return 0;
    if (turn_began == 0) {
        if (*turns == '2') return bench_await_turn(&turns, &turn_began);
        turn_began = now_s();
    }
    if (now_s() - turn_began < 0.1) return 0;
    if (write(9, "", 1) != 1) turns = NULL;
    return turns ? bench_await_turn(&turns, &turn_began) : 0;
}

/* Counts n operations; false when the time is over. */
static inline int bench_more(bench *b, uint64_t n) {
    b->started += bench_take_turns();
    double elapsed = now_s() - b->started;
    b->ops += n;
    if (!b->warm && elapsed >= b->seconds / 10) {
        b->warm = 1;
        b->ops = 0;
        b->started = now_s();
        return 1;
    }
    return !b->warm || elapsed < b->seconds;
}

static inline void bench_print(const bench *b) {
    printf("ops=%llu seconds=%.6f\n", (unsigned long long)b->ops, now_s() - b->started);
}

/* ---- connections ---- */
static inline redisContext *redis_open(void) {
    redisContext *c = redisConnectUnix(env("REGOLITH_REDIS_SOCKET"));
    if (!c || c->err) die("redis: %s", c ? c->errstr : "out of memory");
    return c;
}

/* The next reply, which must be of that type. */
static inline redisReply *redis_reply(redisContext *c, int type) {
    redisReply *r;
    if (redisGetReply(c, (void **)&r) != REDIS_OK) die("redis: %s", c->errstr);
    if (r->type != type)
        die("redis: unexpected reply of type %d: %s", r->type, r->str ? r->str : "");
    return r;
}

static inline MYSQL *mysql_open(void) {
    MYSQL *my = mysql_init(NULL);
    if (!my) die("mysql: out of memory");
    if (!mysql_real_connect(my, NULL, "root", NULL, env("REGOLITH_MYSQL_DB"), 0,
                            env("REGOLITH_MYSQL_SOCKET"), CLIENT_FOUND_ROWS))
        die("mysql: %s", mysql_error(my));
    if (mysql_set_character_set(my, "utf8mb4")) die("mysql: %s", mysql_error(my));
    return my;
}

static inline void run_sql(MYSQL *my, const char *sql, size_t len) {
    if (mysql_real_query(my, sql, len)) die("mysql: %s", mysql_error(my));
}

static inline void run_text(MYSQL *my, const char *sql) {
    run_sql(my, sql, strlen(sql));
}

/* ---- ids: the same walk on both sides; see scripts/bench/model.lua ---- */
static inline uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* RAW_MANY distinct ids: steps of 37, which is prime to the number of rows. */
static inline void many_ids(uint32_t *state, uint32_t rows, uint32_t ids[RAW_MANY]) {
    uint32_t at = next_random(state) % rows;
    for (int i = 0; i < RAW_MANY; i++)
        ids[i] = (at + (uint32_t)i * 37) % rows + 1;
}

/* ---- rows: the values of scripts/bench/model.lua ---- */
#define RAW_COLUMNS "id, email, name, city, state, visits, points, score, active, credit, seen"

typedef struct text {
    char *p;
    size_t len, cap;
} text;

static inline void text_room(text *t, size_t more) {
    if (t->cap - t->len >= more) return;
    t->cap = (t->len + more) * 2;
    t->p = realloc(t->p, t->cap);
    if (!t->p) die("out of memory");
}

__attribute__((format(printf, 2, 3))) static inline void text_add(text *t, const char *fmt, ...) {
    va_list args;
    text_room(t, 512);
    va_start(args, fmt);
    t->len += (size_t)vsnprintf(t->p + t->len, 512, fmt, args);
    va_end(args);
}

/* A quoted SQL string, escaped as values from outside must be. */
static inline void text_quote(text *t, MYSQL *my, const char *value) {
    size_t len = strlen(value);
    text_room(t, 2 * len + 3);
    t->p[t->len++] = '\'';
    t->len += mysql_real_escape_string(my, t->p + t->len, value, (unsigned long)len);
    t->p[t->len++] = '\'';
}

static inline const char *city_of(uint64_t i) {
    static const char *const cities[] = {"Aachen", "Bremen",   "Chemnitz",  "Dresden",
                                         "Essen",  "Freiburg", "Göttingen", "Hannover"};
    return cities[i % 8];
}

/* "(1,'user1@example.org',...)" */
static inline void text_row(text *t, MYSQL *my, uint64_t i) {
    static const char *const states[] = {"new", "active", "banned"};
    char value[64];
    text_add(t, "(%llu,", (unsigned long long)i);
    snprintf(value, sizeof value, "user%llu@example.org", (unsigned long long)i);
    text_quote(t, my, value);
    text_add(t, ",");
    snprintf(value, sizeof value, "Name Surname %llu", (unsigned long long)i);
    text_quote(t, my, value);
    text_add(t, ",");
    text_quote(t, my, city_of(i));
    text_add(t, ",");
    text_quote(t, my, states[i % 3]);
    text_add(t, ",%u,%llu,%.2f,%d,%u.%02u,", (unsigned)(i % 1000), (unsigned long long)i * 7,
             (double)i * 0.25, i % 2 == 0, (unsigned)(i % 100000), (unsigned)(i % 100));
    snprintf(value, sizeof value, "2026-01-%02u %02u:%02u:%02u", (unsigned)(i % 28 + 1),
             (unsigned)(i % 24), (unsigned)(i % 60), (unsigned)(i % 59));
    text_quote(t, my, value);
    text_add(t, ")");
}

/* "INSERT INTO <table> (...) VALUES (...),(...)" of the n rows that begin with id first. */
static inline void text_insert(text *t, MYSQL *my, const char *table, uint64_t first, unsigned n) {
    t->len = 0;
    text_add(t, "INSERT INTO %s (" RAW_COLUMNS ") VALUES ", table);
    for (unsigned i = 0; i < n; i++) {
        if (i) text_add(t, ",");
        text_row(t, my, first + i);
    }
}

/* "[[1,2,\"Bremen\"],...]": what the update changes in the n rows that begin with id first. */
static inline void text_changes(text *t, uint64_t first, unsigned n, unsigned turn) {
    t->len = 0;
    text_add(t, "[");
    for (unsigned i = 0; i < n; i++)
        text_add(t, "%s[%llu,%u,\"%s\"]", i ? "," : "", (unsigned long long)(first + i),
                 (unsigned)((first + i) % 1000) + turn, city_of(first + i + turn));
    text_add(t, "]");
}

/* The best batched form for updates: prepared once, the changes of a batch as one JSON parameter.
 */
static inline MYSQL_STMT *prepare_update(MYSQL *my, const char *table) {
    char sql[512];
    int len = snprintf(sql, sizeof sql,
                       "UPDATE JSON_TABLE(?, '$[*]' COLUMNS(id BIGINT UNSIGNED PATH '$[0]', "
                       "visits INT UNSIGNED PATH '$[1]', city VARCHAR(60) PATH '$[2]')) r "
                       "STRAIGHT_JOIN %s t ON t.id = r.id SET t.visits = r.visits, t.city = r.city",
                       table);
    MYSQL_STMT *stmt = mysql_stmt_init(my);
    if (!stmt || mysql_stmt_prepare(stmt, sql, (unsigned long)len))
        die("mysql: %s", mysql_error(my));
    return stmt;
}

static inline void run_update(MYSQL_STMT *stmt, const text *changes, unsigned n) {
    unsigned long len = changes->len;
    MYSQL_BIND bind = {.buffer_type = MYSQL_TYPE_STRING,
                       .buffer = changes->p,
                       .buffer_length = changes->len,
                       .length = &len};
    if (mysql_stmt_bind_param(stmt, &bind) || mysql_stmt_execute(stmt))
        die("mysql: %s", mysql_stmt_error(stmt));
    if (mysql_stmt_affected_rows(stmt) != n)
        die("mysql: %llu rows of %u were there", (unsigned long long)mysql_stmt_affected_rows(stmt),
            n);
}

#endif
