/* SPDX-License-Identifier: MIT */
/* A small schema with its tables and a queue, for the units of the queue: servers come by
 * REGOLITH_MYSQL_SOCKET, REGOLITH_MYSQL_DB and REGOLITH_REDIS_SOCKET. DATABASE and PREFIX are a
 * program's own: the engine's tables in the one and the keys of the other are dropped. */
#ifndef RG_SPEC_QUEUE_SUPPORT_H
#define RG_SPEC_QUEUE_SUPPORT_H

#include "queue/batch.h"
#include "queue/payload.h"
#include "base/alloc.h"
#include "base/err.h"
#include "row/row.h"
#include "unit.h"

#include <unistd.h>

#define UNUSED __attribute__((unused))

/* ---- types ---- */

typedef struct field {
    const char *name;
    int kind;
    uint32_t flags, length, precision, scale;
    const char *values[4];
    const char *target, *def, *collation;
} field;

typedef struct index_def {
    const char *name, *columns[3];
    uint32_t flags;
} index_def;

static UNUSED rg_type *new_type(const char *name, const char *table, const field *fields, size_t n,
                         const index_def *indexes, size_t n_indexes, int cached) {
    rg_err err;
    rg_type_opts o = {.size = sizeof o, .name = name, .table = table, .ids = RG_IDS_APPLICATION,
                      .cache_redis = cached, .mysql = "queue_test"};
    rg_type *t = rg_type_new(&o, &err);
    for (size_t i = 0; t && i < n; i++) {
        const field *f = &fields[i];
        rg_column_opts c = {.size = sizeof c, .name = f->name, .kind = f->kind, .flags = f->flags,
                            .length = f->length, .precision = f->precision, .scale = f->scale,
                            .values = f->values, .target = f->target, .def = f->def,
                            .collation = f->collation};
        while (c.n_values < 4 && f->values[c.n_values]) c.n_values++;
        if (rg_type_column(t, &c, &err) < 0) {
            printf("# %s\n", err.message);
            abort();
        }
    }
    for (size_t i = 0; t && i < n_indexes; i++) {
        rg_index_opts x = {.size = sizeof x, .name = indexes[i].name, .columns = indexes[i].columns,
                           .flags = indexes[i].flags};
        while (x.n_columns < 3 && indexes[i].columns[x.n_columns]) x.n_columns++;
        if (rg_type_index(t, &x, &err) < 0) {
            printf("# %s\n", err.message);
            abort();
        }
    }
    if (!t || rg_type_freeze(t, &err) < 0) {
        printf("# %s\n", err.message);
        abort();
    }
    t->redis_pool = 0;
    return t;
}

static UNUSED void add_type(rg__schema *s, rg_type *t) {
    rg_err err;
    if (rg__schema_add(s, t, &err) < 0) abort();
}

static UNUSED void resolve(rg__schema *s) {
    rg_err err;
    if (rg__schema_resolve(s, &err) < 0) {
        printf("# %s\n", err.message);
        abort();
    }
}

static UNUSED rg_block *finish(rg_builder *b) {
    rg_err err;
    rg_block *row = rg__builder_finish(b, true, 0, &err);
    if (!row) printf("# %s\n", err.message);
    rg_builder_free(b);
    return row;
}

static UNUSED rg__slice slice_of(const rg__buf *b) { return (rg__slice){b->p, b->len}; }

static UNUSED uint64_t seed = 88172645463325252u;
static UNUSED uint64_t random_u64(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static UNUSED void free_blocks(rg_block **blocks, size_t n) {
    for (size_t i = 0; i < n; i++) rg_block_unref(blocks[i]);
}

/* ---- with servers ---- */

/* What a process that consumes or produces stands on. */
typedef struct world {
    rg__mysql_pool *mysql;
    rg__redis_pool *redis;
    rg__shared *shared;
    rg__schema schema;
    rg__queue queue;
    rg__ctx ctx;
    uint64_t seq;
} world;

static UNUSED const field account_fields[] = {
    {.name = "version", .kind = RG_U64, .flags = RG_COL_VERSION},
    {.name = "n", .kind = RG_I64},
    {.name = "code", .kind = RG_STRING, .length = 40},
};
static UNUSED const index_def account_indexes[] = {{"code", {"code"}, RG_INDEX_UNIQUE}};
static UNUSED const field log_fields[] = {
    {.name = "account", .kind = RG_U64},
    {.name = "number", .kind = RG_U64},
    {.name = "secret", .kind = RG_STRING, .length = 40, .flags = RG_COL_NULLABLE | RG_COL_SENSITIVE},
};
static UNUSED const field doc_fields[] = {
    {.name = "name", .kind = RG_STRING, .length = 40},
    {.name = "grp", .kind = RG_I32, .flags = RG_COL_NULLABLE},
    {.name = "body", .kind = RG_TEXT, .flags = RG_COL_NULLABLE},
};
static UNUSED const index_def doc_indexes[] = {{"name", {"name"}, RG_INDEX_UNIQUE},
                                        {"grp", {"grp"}, RG_INDEX_CACHED},
                                        {"all", {NULL}, RG_INDEX_VIRTUAL}};
static UNUSED const field child_fields[] = {{.name = "doc", .kind = RG_REF, .target = "doc"}};
enum { ACCOUNT, LOG, DOC, CHILD };

static UNUSED const char *const tables[] = {
    "CREATE TABLE qt_account (id BIGINT UNSIGNED PRIMARY KEY, version BIGINT UNSIGNED NOT NULL,"
    " n BIGINT NOT NULL, code VARCHAR(40) COLLATE utf8mb4_bin NOT NULL, UNIQUE KEY code (code))",
    "CREATE TABLE qt_log (id BIGINT UNSIGNED PRIMARY KEY, account BIGINT UNSIGNED NOT NULL,"
    " number BIGINT UNSIGNED NOT NULL, secret VARCHAR(40) NULL, UNIQUE KEY once (account, number))",
    "CREATE TABLE qt_doc (id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(40) COLLATE utf8mb4_bin NOT NULL,"
    " grp INT NULL, body TEXT NULL, UNIQUE KEY name (name), KEY grp (grp))",
    "CREATE TABLE qt_child (id BIGINT UNSIGNED PRIMARY KEY, doc BIGINT UNSIGNED NOT NULL,"
    " CONSTRAINT qt_fk FOREIGN KEY (doc) REFERENCES qt_doc (id))"};
static UNUSED bool have_servers(void) {
    return getenv("REGOLITH_MYSQL_SOCKET") && getenv("REGOLITH_MYSQL_DB") &&
           getenv("REGOLITH_REDIS_SOCKET");
}

static UNUSED void must(int rc, const rg_err *err, const char *what) {
    if (rc >= 0) return;
    printf("# %s: %s\n", what, err->message);
    fflush(stdout);
    abort();
}

/* A database and keys of its own: the engine's tables in it are dropped and looked into. */
static UNUSED char stream_name[] = "{" PREFIX "}:q:queue_test";
static UNUSED char ledger_name[] = "queue_test";

static UNUSED void open_world_at(world *w, const char *mysql_socket) {
    rg_err err = {0};
    *w = (world){.ctx = {.deadline_ms = RG__NO_DEADLINE}};
    rg_pool_opts my = {.size = sizeof my, .name = "queue_test", .user = "root",
                       .unix_path = mysql_socket, .database = DATABASE};
    rg_pool_opts re = {.size = sizeof re, .name = "queue_test",
                       .unix_path = getenv("REGOLITH_REDIS_SOCKET"), .db = 9};
    must(rg__mysql_library(&err), &err, "library");
    w->mysql = rg__mysql_pool_new(&my, &err);
    w->redis = rg__redis_pool_new(&re, &err);
    if (!w->mysql || !w->redis) must(-1, &err, "pools");
    add_type(&w->schema, new_type("account", "qt_account", account_fields, 3, account_indexes, 1, 0));
    add_type(&w->schema, new_type("log", "qt_log", log_fields, 3, NULL, 0, 0));
    add_type(&w->schema, new_type("doc", "qt_doc", doc_fields, 3, doc_indexes, 3, 1));
    add_type(&w->schema, new_type("child", "qt_child", child_fields, 1, NULL, 0, 0));
    resolve(&w->schema);
    w->shared = rg__shared_new(w->redis, NULL, &w->schema, PREFIX, NULL, &err);
    if (!w->shared) must(-1, &err, "shared");
    w->queue = (rg__queue){.name = "queue_test", .stream = stream_name, .ledger = ledger_name, .n_parts = 1,
                           .mysql = w->mysql, .shared = w->shared, .schema = &w->schema};
}

static UNUSED void open_world(world *w) { open_world_at(w, getenv("REGOLITH_MYSQL_SOCKET")); }

static UNUSED void close_world(world *w) {
    rg__shared_free(w->shared);
    rg__redis_pool_free(w->redis);
    rg__mysql_pool_free(w->mysql);
    rg__schema_deinit(&w->schema);
}

static UNUSED int try_sql(world *w, const char *text, rg__result **out) {
    rg_err err;
    rg__mysql *c;
    rg__err_clear(&err);
    must(rg__mysql_acquire(w->mysql, &w->ctx, &c, &err), &err, "connection");
    int rc = rg__mysql_query(c, &w->ctx, text, strlen(text), NULL, 0, false, out, &err);
    rg__mysql_release(c);
    return rc;
}

/* Runs SQL; the first cell as a number. */
static UNUSED uint64_t sql(world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static UNUSED uint64_t sql(world *w, const char *fmt, ...) {
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    rg__result *r = NULL;
    if (try_sql(w, text, &r) < 0) {
        printf("# failed: %s\n", text);
        abort();
    }
    uint64_t v = r && r->n_rows ? rg__cell_u64(r, 0, 0) : 0;
    rg__result_free(r);
    return v;
}

static UNUSED redisReply *redis(world *w, int argc, const char *const *argv) {
    rg_err err;
    rg__redis *c;
    redisReply *r = NULL;
    rg__err_clear(&err);
    must(rg__redis_acquire(w->redis, &w->ctx, &c, &err), &err, "connection");
    must(rg__redis_command(c, &w->ctx, &r, &err, argc, argv, NULL), &err, "redis");
    rg__redis_release(c);
    return r;
}

/* Calls fn for each key of the test's prefix. */
static UNUSED void each_key(world *w, void (*fn)(world *, redisReply *key, void *), void *arg) {
    redisReply *r = redis(w, 2, (const char *[]){"KEYS", "{" PREFIX "}*"});
    for (size_t i = 0; i < r->elements; i++) fn(w, r->element[i], arg);
    freeReplyObject(r);
}

static UNUSED redisReply *on_key(world *w, const char *what, const redisReply *key) {
    rg_err err;
    rg__redis *c;
    redisReply *r = NULL;
    rg__err_clear(&err);
    must(rg__redis_acquire(w->redis, &w->ctx, &c, &err), &err, "connection");
    must(rg__redis_command(c, &w->ctx, &r, &err, 2, (const char *[]){what, key->str},
                           (const size_t[]){strlen(what), (size_t)key->len}), &err, what);
    rg__redis_release(c);
    return r;
}

static UNUSED void delete_key(world *w, redisReply *key, void *arg) {
    (void)arg;
    freeReplyObject(on_key(w, "DEL", key));
}

/* Counts entries that still wait for a queued write. */
static UNUSED void count_pending(world *w, redisReply *key, void *arg) {
    if (!strstr(key->str, "}:e:") && !strstr(key->str, "}:l:")) return;
    redisReply *r = on_key(w, "GET", key);
    if (r->type == REDIS_REPLY_STRING && strchr("PQD", r->str[0])) ++*(long *)arg;
    freeReplyObject(r);
}

static UNUSED long pending(world *w) {
    long n = 0;
    each_key(w, count_pending, &n);
    return n;
}

static UNUSED void in_server(const char *text) {
    rg_err err = {0};
    rg__mysql *c;
    rg__ctx ctx = {.deadline_ms = RG__NO_DEADLINE};
    rg_pool_opts o = {.size = sizeof o, .user = "root", .database = getenv("REGOLITH_MYSQL_DB"),
                      .unix_path = getenv("REGOLITH_MYSQL_SOCKET")};
    must(rg__mysql_library(&err), &err, "library");
    rg__mysql_pool *pool = rg__mysql_pool_new(&o, &err);
    if (!pool) must(-1, &err, "pool");
    must(rg__mysql_acquire(pool, &ctx, &c, &err), &err, "connection");
    must(rg__mysql_exec(c, &ctx, text, strlen(text), NULL, &err), &err, text);
    rg__mysql_release(c);
    rg__mysql_pool_free(pool);
}

static UNUSED void begin_world(world *w) {
    in_server("DROP DATABASE IF EXISTS " DATABASE);
    in_server("CREATE DATABASE " DATABASE " CHARACTER SET utf8mb4");
    open_world(w);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) sql(w, "%s", tables[i]);
    each_key(w, delete_key, NULL);
}

static UNUSED void end_world(world *w) {
    each_key(w, delete_key, NULL);
    in_server("DROP DATABASE " DATABASE);
    close_world(w);
}

/* ---- producing ---- */

static UNUSED rg_block *row_of(const rg_type *t, uint64_t id, const char *const *values) {
    rg_err err;
    rg_builder *b = rg_builder_new(t, &err);
    rg_builder_u64(b, 0, id, &err);
    for (uint32_t i = 1; i < t->n_columns; i++)
        if (values[i - 1]) must(rg_builder_string(b, i, values[i - 1], strlen(values[i - 1]), &err), &err, "value");
    return finish(b);
}

static UNUSED rg_block *account(const world *w, uint64_t id, uint64_t version, const char *code) {
    char v[24];
    snprintf(v, sizeof v, "%llu", (unsigned long long)version);
    return row_of(w->schema.types[ACCOUNT], id, (const char *[]){v, v, code});
}

static UNUSED rg_block *log_row(const world *w, uint64_t id, uint64_t acct, uint64_t number) {
    char a[24], n[24];
    snprintf(a, sizeof a, "%llu", (unsigned long long)acct);
    snprintf(n, sizeof n, "%llu", (unsigned long long)number);
    return row_of(w->schema.types[LOG], id, (const char *[]){a, n, "hush"});
}

static UNUSED rg_block *doc(const world *w, uint64_t id, const char *name, const char *grp,
                     const char *body) {
    return row_of(w->schema.types[DOC], id, (const char *[]){name, grp, body});
}

/* A flush being put together. */
typedef struct producing {
    rg__qop ops[600];
    rg_block *rows[1200];
    uint8_t masks[600][8];
    size_t n, n_rows;
    char id[48];
} producing;

static UNUSED rg_block *keep(producing *p, rg_block *row) { return row ? p->rows[p->n_rows++] = row :
                                                    NULL; }

/* Takes the rows. */
static UNUSED void put(producing *p, const world *w, int type, int write, rg_block *row,
                rg_block *before) {
    const rg_type *t = w->schema.types[type];
    rg__qop *op = &p->ops[p->n];
    *op = (rg__qop){.write = (uint8_t)write, .type = t, .mask = p->masks[p->n]};
    memset(p->masks[p->n], 0, 8);
    keep(p, row);
    keep(p, before);
    if (write == RG_UPDATE) rg__row_diff(t, before->data, row->data, p->masks[p->n]);
    if (row) op->row = row->data;
    if (before) op->before = before->data;
    op->id = rg__row_id(t, row ? row->data : before->data);
    if (before && t->version_column) op->expected = rg__row_value(t, before->data,
                                                                  t->version_column).u;
    p->n++;
}

static UNUSED int try_enqueue(world *w, producing *p, rg_err *err) {
    rg__buf payload = {0};
    rg__changes changes = {0};
    must(rg__qop_encode(p->ops, p->n, &payload, err), err, "encode");
    for (size_t i = 0; i < p->n; i++) {
        rg_block *after = NULL;
        for (size_t k = 0; k < p->n_rows; k++)
            if (p->rows[k]->data == p->ops[i].row && p->ops[i].write != RG_DELETE) after =
                p->rows[k];
        must(rg__changes_add(&changes, w->shared, p->ops[i].type, p->ops[i].before, after, err), err, "changes");
    }
    uint8_t *stale = calloc(changes.n + 1, 1);
    rg_block **current = calloc(changes.n + 1, sizeof *current);
    char producer[32];
    snprintf(producer, sizeof producer, "p%d", (int)getpid());
    rg__enqueue q = {.stream = w->queue.stream, .part = w->queue.part, .n_parts = w->queue.n_parts,
                     .queue = w->queue.name, .payload = slice_of(&payload), .max_len = 1000000,
                     .producer = producer, .seq = ++w->seq, .changes = changes.items,
                     .n_changes = changes.n};
    int rc = rg__shared_enqueue(w->shared, &w->ctx, &q, stale, current, p->id, err);
    for (size_t i = 0; i < changes.n; i++) rg_block_unref(current[i]);
    free(stale);
    free(current);
    rg__changes_deinit(&changes);
    rg__buf_deinit(&payload);
    return rc;
}

static UNUSED void clear(producing *p) {
    free_blocks(p->rows, p->n_rows);
    p->n = p->n_rows = 0;
}

static UNUSED void enqueue(world *w, producing *p) {
    rg_err err = {0};
    must(try_enqueue(w, p, &err), &err, "enqueue");
    clear(p);
}

static UNUSED void enqueue_bytes(world *w, const char *bytes) {
    freeReplyObject(redis(w, 5, (const char *[]){"XADD", stream_name, "*", "d", bytes}));
}

static UNUSED rg__consumer *consumer(world *w, uint32_t max_batch) {
    rg_err err;
    rg__consumer_config cfg = {.max_batch = max_batch};
    rg__consumer *c = rg__consumer_new(&w->queue, &cfg, &err);
    if (!c) must(-1, &err, "consumer");
    return c;
}

/* Steps until nothing comes; operations done. */
static UNUSED uint64_t drain(world *w, rg__consumer *c) {
    uint64_t all = 0, done = 0;
    do {
        rg_err err = {0};
        must(rg__consumer_step(c, &w->ctx, 0, &done, &err), &err, "step");
        all += done;
    } while (done);
    return all;
}

static UNUSED uint64_t drain_once(world *w) {
    rg__consumer *c = consumer(w, 256);
    uint64_t n = drain(w, c);
    rg__consumer_free(c);
    return n;
}

static UNUSED bool cell_is(const rg__result *r, uint32_t i, const char *want) {
    return rg__slice_eq(r->cells[i], rg__slice_of(want));
}

#define WITH_SERVERS if (!have_servers()) return

#endif
