/* SPDX-License-Identifier: MIT */
/* The raw side of the consumer:
 * raw_consumer insert|update SECONDS ROWS TABLE ENTRIES OPS BYTES [PROCESSES].
 *
 * Reads ENTRIES stream entries of OPS operations (BYTES an entry) at a time and applies them in one
 * durable transaction that locks the ledger row first, writes all rows with one statement and moves
 * the ledger; the stream is trimmed now and then. It checks and decodes nothing of what it reads:
 * the values are made up. PROCESSES of it work side by side, each on a stream, a ledger row and rows of
 * its own (insert only). */
#include "raw.h"

#include <sys/wait.h>

enum { TRIM_EVERY = 16, MOST_PROCESSES = 16 };
static const uint64_t APART = 100000000; /* ids between those of two processes */

typedef struct consumer {
    MYSQL *my;
    MYSQL_STMT *update;
    redisContext *redis;
    const char *table;
    char stream[32], ledger[32];
    char position[64];
    text sql;
    uint64_t next; /* insert: the next id; update: operations so far */
    uint32_t rows;
    unsigned entries, ops, batches;
    size_t bytes;
} consumer;

static void make_ledger(consumer *c) {
    run_text(c->my,
             "CREATE TABLE IF NOT EXISTS raw_ledger (queue VARCHAR(64) PRIMARY KEY, "
             "id_ms BIGINT UNSIGNED NOT NULL, id_seq BIGINT UNSIGNED NOT NULL, "
             "applied_ops BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB");
    c->sql.len = 0;
    text_add(&c->sql, "REPLACE INTO raw_ledger VALUES ('%s', 0, 0, 0)", c->ledger);
    run_sql(c->my, c->sql.p, c->sql.len);
}

static void empty_table(consumer *c) {
    c->sql.len = 0;
    text_add(&c->sql, "TRUNCATE TABLE %s", c->table);
    run_sql(c->my, c->sql.p, c->sql.len);
}

/* Enough entries for `ops` operations, pipelined. */
static void fill(consumer *c, uint64_t ops) {
    char *payload = calloc(1, c->bytes + 1);
    if (!payload) die("out of memory");
    const char *argv[] = {"XADD", c->stream, "*", "d", payload};
    const size_t lens[] = {4, strlen(c->stream), 1, 1, c->bytes};
    freeReplyObject(redisCommand(c->redis, "DEL %s", c->stream));
    uint64_t n = ops / c->ops + 1;
    for (uint64_t i = 0; i < n; i += RAW_MANY) {
        for (int k = 0; k < RAW_MANY; k++)
            redisAppendCommandArgv(c->redis, 5, argv, lens);
        for (int k = 0; k < RAW_MANY; k++)
            freeReplyObject(redis_reply(c->redis, REDIS_REPLY_STRING));
    }
    free(payload);
}

/* Reads one batch and moves the position in memory; entries read, 0 at the end of the stream. */
static unsigned read_entries(consumer *c) {
    redisReply *r =
        redisCommand(c->redis, "XRANGE %s (%s + COUNT %u", c->stream, c->position, c->entries);
    if (!r) die("redis: %s", c->redis->errstr);
    if (r->type == REDIS_REPLY_ERROR) die("redis: %s", r->str);
    unsigned n = (unsigned)r->elements;
    if (n) snprintf(c->position, sizeof c->position, "%s", r->element[n - 1]->element[0]->str);
    freeReplyObject(r);
    return n;
}

static void lock_ledger(consumer *c) {
    c->sql.len = 0;
    text_add(&c->sql, "SELECT id_ms, id_seq FROM raw_ledger WHERE queue = '%s' FOR UPDATE", c->ledger);
    run_sql(c->my, c->sql.p, c->sql.len);
    MYSQL_RES *res = mysql_store_result(c->my);
    if (!res || !mysql_fetch_row(res)) die("mysql: no ledger");
    mysql_free_result(res);
}

static void move_ledger(consumer *c, unsigned ops) {
    unsigned long long ms = 0, seq = 0;
    sscanf(c->position, "%llu-%llu", &ms, &seq);
    c->sql.len = 0;
    text_add(&c->sql,
             "UPDATE raw_ledger SET id_ms = %llu, id_seq = %llu, applied_ops = applied_ops + %u "
             "WHERE queue = '%s'",
             ms, seq, ops, c->ledger);
    run_sql(c->my, c->sql.p, c->sql.len);
}

static void apply(consumer *c, unsigned ops) {
    if (c->update) {
        uint64_t first = c->next % (c->rows - ops) + 1;
        text_changes(&c->sql, first, ops, (unsigned)(c->batches % 1000) + 1);
        run_update(c->update, &c->sql, ops);
    } else {
        text_insert(&c->sql, c->my, c->table, c->next + 1, ops);
        run_sql(c->my, c->sql.p, c->sql.len);
    }
    c->next += ops;
}

static void trim(consumer *c) {
    redisReply *r = redisCommand(c->redis, "XTRIM %s MINID ~ %s", c->stream, c->position);
    if (!r || r->type == REDIS_REPLY_ERROR) die("redis: cannot trim");
    freeReplyObject(r);
}

/* Operations applied. */
static unsigned step(consumer *c) {
    run_text(c->my, "START TRANSACTION");
    lock_ledger(c);
    unsigned ops = read_entries(c) * c->ops;
    if (!ops) die("raw_consumer: the stream was too short");
    apply(c, ops);
    move_ledger(c, ops);
    run_text(c->my, "COMMIT");
    if (++c->batches % TRIM_EVERY == 0) trim(c);
    return ops;
}

/* Consumer `number` of `processes`; its figures. It waits for `go` (a byte) when it is not alone. */
static bench consume(char **argv, int number, int processes, int go) {
    consumer c = {.my = mysql_open(),
                  .redis = redis_open(),
                  .table = argv[4],
                  .position = "0-0",
                  .next = (uint64_t)number * APART,
                  .rows = (uint32_t)atoi(argv[3]),
                  .entries = (unsigned)atoi(argv[5]),
                  .ops = (unsigned)atoi(argv[6]),
                  .bytes = (size_t)atol(argv[7])};
    double seconds = atof(argv[2]);
    char byte;
    snprintf(c.stream, sizeof c.stream, "{rg}:q:raw%d", number);
    snprintf(c.ledger, sizeof c.ledger, "default%d", number);
    make_ledger(&c);
    if (!strcmp(argv[1], "insert")) {
        if (number == 0) empty_table(&c);
    } else {
        c.update = prepare_update(c.my, c.table);
    }
    fill(&c, (uint64_t)(seconds * 1.2 * 300000) / (uint64_t)processes);
    if (go >= 0 && read(go, &byte, 1) != 1) die("raw_consumer: nobody said go");
    bench b = bench_start(seconds);
    while (bench_more(&b, step(&c)))
        continue;
    b.seconds = now_s() - b.started;
    freeReplyObject(redisCommand(c.redis, "DEL %s", c.stream));
    free(c.sql.p);
    if (c.update) mysql_stmt_close(c.update);
    mysql_close(c.my);
    redisFree(c.redis);
    return b;
}

/* The sum of what the processes do in a second. */
static void consume_together(char **argv, int processes) {
    int go[2], told[2];
    double rate = 0;
    if (pipe(go) || pipe(told)) die("raw_consumer: no pipe");
    for (int i = 0; i < processes; i++) {
        if (i == 1) sleep(1); /* the first one empties the table */
        if (fork() != 0) continue;
        bench b = consume(argv, i, processes, go[0]);
        double own = (double)b.ops / b.seconds;
        if (write(told[1], &own, sizeof own) != sizeof own) die("raw_consumer: cannot tell");
        _exit(0);
    }
    sleep(3); /* for the streams to be filled */
    for (int i = 0; i < processes; i++)
        if (write(go[1], "g", 1) != 1) die("raw_consumer: cannot say go");
    for (int i = 0; i < processes; i++) {
        double own;
        if (read(told[0], &own, sizeof own) != sizeof own) die("raw_consumer: a process failed");
        rate += own;
    }
    while (wait(NULL) > 0) continue;
    printf("ops=%.0f seconds=1.0\n", rate);
}

int main(int argc, char **argv) {
    if (argc < 8)
        die("usage: raw_consumer insert|update SECONDS ROWS TABLE ENTRIES OPS BYTES [PROCESSES]");
    int processes = argc > 8 ? atoi(argv[8]) : 1;
    if (processes > MOST_PROCESSES) die("raw_consumer: too many processes");
    if (processes > 1) {
        consume_together(argv, processes);
        return 0;
    }
    bench b = consume(argv, 0, 1, -1);
    printf("ops=%llu seconds=%.6f\n", (unsigned long long)b.ops, b.seconds);
    return 0;
}
