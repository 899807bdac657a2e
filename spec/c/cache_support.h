/* SPDX-License-Identifier: MIT */
/* A small schema with its caches, for the specs of the Redis tier. */
#ifndef RG_SPEC_CACHE_SUPPORT_H
#define RG_SPEC_CACHE_SUPPORT_H

#include "redis_support.h"

#include "base/alloc.h"
#include "cache/cache.h"
#include "row/row.h"

typedef struct fixture {
    rg__schema schema;
    rg_type *both;   /* process and Redis */
    rg_type *local;  /* process only */
    rg_type *none;   /* rows nowhere, lookups in Redis */
    rg__redis_pool *pool;
    rg__process *process;
    rg__shared *shared;
    char prefix[48];
    char stream[64];
} fixture;

static UNUSED rg_type *make_type(const char *name, int process, int redis) {
    rg_err err = {0};
    const rg_type_opts t = {.size = sizeof t, .name = name, .cache_process = process,
                            .cache_redis = redis, .ttl_s = 600, .absent_ttl_s = 20};
    const rg_column_opts text = {
        .size = sizeof text, .name = "name", .kind = RG_STRING, .length = 200};
    const rg_column_opts large = {.size = sizeof large, .name = "big", .kind = RG_TEXT};
    const rg_column_opts number = {.size = sizeof number, .name = "n", .kind = RG_U64};
    const char *columns[][1] = {{"name"}, {"n"}};
    const rg_index_opts by_name = {.size = sizeof by_name, .name = "name", .columns = columns[0],
                                   .n_columns = 1, .flags = RG_INDEX_UNIQUE};
    const rg_index_opts by_n = {.size = sizeof by_n, .name = "by:n", .columns = columns[1],
                                .n_columns = 1, .flags = RG_INDEX_CACHED};
    rg_type *type = rg_type_new(&t, &err);
    if (!type || rg_type_column(type, &text, &err) || rg_type_column(type, &number, &err) ||
        rg_type_column(type, &large, &err) || rg_type_index(type, &by_name, &err) ||
        rg_type_index(type, &by_n, &err) || rg_type_freeze(type, &err)) {
        printf("# %s\n", err.message);
        abort();
    }
    return type;
}

/* The epoch began long ago, on this server: what is missing was never marked. */
static UNUSED void make_old(fixture *f) {
    static const char script[] =
        "local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication') "
        "redis.call('SET', KEYS[1], struct.pack('<I8', 1000000)) "
        "redis.call('SET', KEYS[2], string.match(info, 'run_id:(%x+)') .. ':' .. "
        "string.match(info, 'master_replid:(%x+)')) return 1";
    char epoch[64], life[64];
    snprintf(epoch, sizeof epoch, "{%s}:ep", f->prefix);
    snprintf(life, sizeof life, "{%s}:life", f->prefix);
    ASK(f->pool, "EVAL", script, "2", epoch, life);
}

static UNUSED void fixture_init(fixture *f, const char *path) {
    static atomic_int count;
    rg_err err = {0};
    *f = (fixture){.both = make_type("both", 1, 1), .local = make_type("local", 1, 0)};
    f->none = make_type("none", 0, 0);
    rg__schema_add(&f->schema, f->both, &err);
    rg__schema_add(&f->schema, f->local, &err);
    rg__schema_add(&f->schema, f->none, &err);
    if (rg__schema_resolve(&f->schema, &err) < 0) abort();
    f->pool = pool_on(path);
    f->process = rg__process_new(1 << 20, &metrics);
    snprintf(f->prefix, sizeof f->prefix, "spec%d.%d", (int)getpid(), atomic_fetch_add(&count, 1));
    snprintf(f->stream, sizeof f->stream, "{%s}:q:default", f->prefix);
    f->shared = rg__shared_new(f->pool, f->process, &f->schema, f->prefix, &metrics, &err);
    if (!f->shared) abort();
    make_old(f);
}

static UNUSED void fixture_deinit(fixture *f) {
    static const char remove_all[] =
        "for _, k in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', k) end return 1";
    char pattern[64];
    snprintf(pattern, sizeof pattern, "{%s}:*", f->prefix);
    ASK(f->pool, "EVAL", remove_all, "0", pattern);
    rg__shared_free(f->shared);
    rg__process_free(f->process);
    rg__redis_pool_free(f->pool);
    rg__schema_deinit(&f->schema);
}

/* ---- rows and keys ---- */

static UNUSED size_t big_len; /* bytes of the field `big` of rows made from now on */

static UNUSED rg_block *make_row(const rg_type *t, uint64_t id, const char *name, uint64_t n) {
    rg_err err = {0};
    char big[1000];
    memset(big, 'b', sizeof big);
    rg_builder *b = rg_builder_new(t, &err);
    if (!b || rg_builder_u64(b, 0, id, &err) || rg_builder_string(b, 1, name, strlen(name), &err) ||
        rg_builder_u64(b, 2, n, &err) || rg_builder_string(b, 3, big, big_len, &err)) {
        printf("# %s\n", err.message);
        abort();
    }
    rg_block *row = rg__builder_finish(b, true, 0, &err);
    rg_builder_free(b);
    return row;
}

static UNUSED uint64_t n_of(const rg_type *t, const rg_block *row) {
    return row ? rg__row_value(t, row->data, 2).u : UINT64_MAX;
}

static UNUSED rg__key row_key(const fixture *f, const rg_type *t, uint64_t id) {
    rg__key k;
    rg__key_row(f->shared, t, id, &k);
    return k;
}

static UNUSED rg__key lookup_key(const fixture *f, const rg_type *t, uint32_t index,
                                 const char *value) {
    rg__key k;
    rg__key_lookup(f->shared, t, index, rg__slice_of(value), &k);
    return k;
}

static UNUSED rg_block *make_ids(size_t n, const uint64_t *ids) {
    return rg__block_dup(ids, (uint32_t)(n * 8));
}

/* ---- raw entries ---- */

static UNUSED size_t raw_get(const fixture *f, const rg__key *k, char *out, size_t cap) {
    rg__ctx ctx = ctx_ms(1000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    const char *argv[] = {"GET", k->text};
    const size_t lens[] = {3, k->len};
    size_t n = 0;
    if (rg__redis_acquire(f->pool, &ctx, &c, NULL) == RG_OK &&
        rg__redis_command(c, &ctx, &r, NULL, 2, argv, lens) == RG_OK &&
        r->type == REDIS_REPLY_STRING && (size_t)r->len <= cap)
        memcpy(out, r->str, n = (size_t)r->len);
    freeReplyObject(r);
    rg__redis_release(c);
    return n;
}

static UNUSED void raw_set(const fixture *f, const rg__key *k, const char *p, size_t n) {
    rg__ctx ctx = ctx_ms(1000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    const char *argv[] = {"SET", k->text, p};
    const size_t lens[] = {3, k->len, n};
    for (int tries = 0; !r && tries < 2; tries++) { /* the first one may be of before a restart */
        if (rg__redis_acquire(f->pool, &ctx, &c, NULL) == RG_OK)
            rg__redis_command(c, &ctx, &r, NULL, 3, argv, lens);
        rg__redis_release(c);
    }
    CHECK(r);
    freeReplyObject(r);
}

/* The entry's state; '-' when there is none. */
static UNUSED char state_of(const fixture *f, const rg__key *k) {
    static char bytes[1 << 16];
    return raw_get(f, k, bytes, sizeof bytes) ? bytes[0] : '-';
}

static UNUSED long long ttl_of(const fixture *f, const rg__key *k) {
    rg__ctx ctx = ctx_ms(1000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    const char *argv[] = {"PTTL", k->text};
    const size_t lens[] = {4, k->len};
    long long ms = -3;
    if (rg__redis_acquire(f->pool, &ctx, &c, NULL) == RG_OK &&
        rg__redis_command(c, &ctx, &r, NULL, 2, argv, lens) == RG_OK)
        ms = r->integer;
    freeReplyObject(r);
    rg__redis_release(c);
    return ms;
}

static UNUSED void raw_del(const fixture *f, const rg__key *k) {
    rg__ctx ctx = ctx_ms(1000);
    rg__redis *c = NULL;
    redisReply *r = NULL;
    const char *argv[] = {"DEL", k->text};
    const size_t lens[] = {3, k->len};
    if (rg__redis_acquire(f->pool, &ctx, &c, NULL) == RG_OK)
        rg__redis_command(c, &ctx, &r, NULL, 2, argv, lens);
    freeReplyObject(r);
    rg__redis_release(c);
}

/* ---- one key at a time ---- */

static UNUSED rg__entry get_entry(const fixture *f, const rg_type *t, bool is_row,
                                  const rg__key *k) {
    rg__ctx ctx = ctx_ms(2000);
    rg__entry e;
    rg__shared_get(f->shared, &ctx, t, is_row, k, 1, &e);
    return e;
}

static UNUSED rg__entry lease_entry(const fixture *f, const rg_type *t, bool is_row,
                                    const rg__key *k) {
    rg__ctx ctx = ctx_ms(2000);
    rg__entry e = {0};
    rg__shared_lease(f->shared, &ctx, t, is_row, k, 1, &e);
    return e;
}

static UNUSED void fill_entry(const fixture *f, const rg_type *t, bool is_row, const rg__key *k,
                              rg_block *value, const rg__entry *lease, bool locking) {
    rg__ctx ctx = ctx_ms(2000);
    rg__shared_fill(f->shared, &ctx, t, is_row, k, 1, &value, lease, locking);
}

/* What a plain read finds; n of the row when it is one. */
static UNUSED rg__found found_of(const fixture *f, const rg_type *t, const rg__key *k,
                                 uint64_t *n) {
    rg__entry e = get_entry(f, t, true, k);
    if (n) *n = n_of(t, e.block);
    rg__found found = e.found;
    rg__entry_deinit(&e);
    return found;
}

/* Leases and fills, as a reader would. */
static UNUSED void cache_row(const fixture *f, const rg_type *t, const rg__key *k, rg_block *row) {
    rg__entry e = lease_entry(f, t, true, k);
    CHECK(e.lease.held);
    fill_entry(f, t, true, k, row, &e, true);
    rg__entry_deinit(&e);
}

static UNUSED void cache_ids(const fixture *f, const rg_type *t, const rg__key *k, rg_block *ids) {
    rg__entry e = lease_entry(f, t, false, k);
    CHECK(e.lease.held);
    fill_entry(f, t, false, k, ids, &e, true);
    rg__entry_deinit(&e);
}

static UNUSED rg__txid new_tx(void) {
    rg__txid tx;
    rg__random(tx.bytes, sizeof tx.bytes);
    return tx;
}

static UNUSED rg__change row_change(const rg_type *t, rg__key k, const rg_block *before,
                                    rg_block *after) {
    return (rg__change){.key = k, .type = t, .is_row = true, .after = after,
                        .before = before ? before->data : NULL};
}

static UNUSED rg__change lookup_change(const rg_type *t, rg__key k, uint64_t id, bool add) {
    return (rg__change){.key = k, .type = t, .id = id, .add = add};
}

static UNUSED int mark_changes(const fixture *f, rg__txid tx, rg__change *c, size_t n,
                               char pending[48]) {
    rg__ctx ctx = ctx_ms(2000);
    rg_err err = {0};
    int rc = rg__shared_mark(f->shared, &ctx, tx, c, n, pending, &err);
    if (rc < 0 && rc != RG_EPENDING) printf("# %s\n", err.message);
    return rc;
}

static UNUSED void publish_changes(const fixture *f, rg__txid tx, const rg__change *c, size_t n) {
    rg__ctx ctx = ctx_ms(2000);
    rg__shared_publish(f->shared, &ctx, tx, c, n);
}

static UNUSED void unmark_changes(const fixture *f, rg__txid tx, const rg__change *c, size_t n) {
    rg__ctx ctx = ctx_ms(2000);
    rg__shared_unmark(f->shared, &ctx, tx, c, n);
}

#endif
