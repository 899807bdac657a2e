/* SPDX-License-Identifier: MIT */
/* The text that says what cached bytes mean. */
#include "run/meaning.h"

#include <regolith/regolith.h>

#include "mysql/conn.h"

/* With its length, so that no two lists of texts are written alike. */
static void put(rg__buf *out, const char *text) {
    if (text) rg__buf_fmt(out, "%zu:%s,", strlen(text), text);
    else rg__buf_str(out, "-,");
}

static void put_server(rg__buf *out, const rg_pool_opts *o) {
    put(out, o->name);
    put(out, o->host);
    put(out, o->unix_path);
    put(out, o->user);
    put(out, o->database);
    rg__buf_fmt(out, "%u|%u|%d\n", (unsigned)o->port, (unsigned)o->db, (int)o->tls);
}

static void put_column(rg__buf *out, const rg__column *c) {
    put(out, c->name);
    put(out, c->column);
    put(out, c->collation);
    put(out, c->target);
    rg__buf_fmt(out, "%d|%d|%u|%u|%u|%u|%d;", (int)c->kind, (int)c->store, c->flags, c->length, c->precision,
                c->scale, c->exact);
    for (uint32_t i = 0; i < c->n_values; i++) put(out, c->values[i].p);
}

static void put_index(rg__buf *out, const rg__index *x) {
    put(out, x->name);
    rg__buf_fmt(out, "%u|%d", x->flags, x->exact);
    for (uint32_t i = 0; i < x->n_columns; i++) rg__buf_fmt(out, ",%u", x->columns[i]);
    rg__buf_char(out, ';');
}

static void put_type(rg__buf *out, const rg_type *t) {
    put(out, t->name);
    put(out, t->table);
    put(out, t->mysql);
    put(out, t->redis);
    rg__buf_fmt(out, "%016llx|%u|", (unsigned long long)t->fingerprint, t->space);
    rg__buf_fmt(out, "%llu|%llu|%d|", (unsigned long long)t->id_base, (unsigned long long)t->id_last, t->sharded);
    rg__buf_fmt(out, "%d%d%d|%u|%u|%d|%u\n", t->cache_process, t->cache_redis, t->cache_queries, t->ttl_s,
                t->absent_ttl_s, (int)t->outage, t->version_column);
    for (uint32_t i = 0; i < t->n_columns; i++) put_column(out, &t->columns[i]);
    for (uint32_t i = 0; i < t->n_indexes; i++) put_index(out, &t->indexes[i]);
    rg__buf_char(out, '\n');
}

static void put_cache(rg__buf *out, const rg__values *v) {
    put(out, v->name);
    put(out, v->redis);
    rg__buf_fmt(out, "%d%d%d|%llu|%llu|", v->in_process, v->in_redis, v->sliding, (unsigned long long)v->ttl_ms,
                (unsigned long long)v->absent_ttl_ms);
    rg__buf_fmt(out, "%llu|%u|%u\n", (unsigned long long)v->stale_ms, v->lease_ms, v->max_bytes);
}

void rg__meaning_write(const rg__store *s, rg__redis_pool *const *redis, const char *prefix, rg__buf *out) {
    rg__buf_fmt(out, "regolith %s\n", RG_VERSION);
    put(out, prefix);
    for (uint32_t i = 0; i < s->n_mysql; i++) put_server(out, rg__pool_opts(s->mysql[i]));
    rg__buf_str(out, "redis\n");
    for (uint32_t i = 0; i < s->n_redis; i++) put_server(out, rg__redis_pool_opts(redis[i]));
    rg__buf_str(out, "entities\n");
    for (uint32_t i = 0; i < s->schema.n; i++) put_type(out, s->schema.types[i]);
    rg__buf_str(out, "caches\n");
    for (uint32_t i = 0; i < s->n_caches; i++) put_cache(out, s->caches[i]);
}

void rg__secrets_write(rg__redis_pool *const *redis, uint32_t n, rg__buf *out) {
    for (uint32_t i = 0; i < n; i++) {
        const rg_pool_opts *o = rg__redis_pool_opts(redis[i]);
        put(out, o->password);
        put(out, o->tls_ca);
        put(out, o->tls_cert);
        put(out, o->tls_key);
    }
}
