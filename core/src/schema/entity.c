/* SPDX-License-Identifier: MIT */
/* Entity types: birth, death, and what is asked about them. */
#include "schema/entity.h"

#include "base/alloc.h"
#include "base/err.h"
#include "schema/define.h"

#include <stdio.h>

enum { DEFAULT_TTL_S = 3600, DEFAULT_ABSENT_TTL_S = 10 };

int rg__opts_take(void *to, size_t size, const void *from, const char *what, rg_err *err) {
    uint32_t given = 0;
    if (from) memcpy(&given, from, sizeof given);
    if (given == 0) return rg__fail(err, RG_EMISUSE, "%s: size is not set", what);
    memcpy(to, from, given < size ? given : size);
    return RG_OK;
}

void *rg__array_grow(void *array, size_t n, size_t size) {
    if (n & (n - 1)) return array;
    return rg__reallocarray(array, n ? 2 * n : 1, size);
}

int rg__type_fail(const rg_type *t, const char *field, rg_err *err, const char *fmt, ...) {
    if (!err) return RG_EINVALID;
    char text[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    rg__fail_field(err, field, "%s%s%s: %s", t->name, field ? "." : "", field ? field : "", text);
    rg__err_set_entity(err, t->name);
    return RG_EINVALID;
}

/* ---- birth and death ---- */

static int check_opts(const rg_type *t, const rg_type_opts *o, rg_err *err) {
    int rc = rg__name_check(t, NULL, "entity", o->name, err);
    if (rc < 0) return rc;
    if (o->ids < RG_IDS_BLOCK || o->ids > RG_IDS_SNOWFLAKE)
        return rg__type_fail(t, NULL, err, "unknown way to make ids: %d", o->ids);
    if (o->shard >= RG__SHARDS)
        return rg__type_fail(t, NULL, err, "shard %u is over %d", o->shard, RG__SHARDS - 1);
    if (o->sharded && (o->ids == RG_IDS_DATABASE || (o->ids == RG_IDS_SNOWFLAKE && o->shard_in_id)))
        return rg__type_fail(t, NULL, err, "ids that tell the shard are allotted in blocks, or the "
                                           "application's");
    return RG_OK;
}

static int copy_names(rg_type *t, const rg_type_opts *o, rg_err *err) {
    t->table = rg__strdup(o->table ? o->table : o->name);
    t->mysql = rg__strdup(o->mysql ? o->mysql : "default");
    t->redis = rg__strdup(o->redis ? o->redis : "default");
    t->queue_group = rg__strdup(o->queue_group ? o->queue_group : o->name);
    if (!t->table || !t->mysql || !t->redis || !t->queue_group) return rg__fail_memory(err);
    if (o->queue_by && !(t->queue_by = rg__strdup(o->queue_by))) return rg__fail_memory(err);
    return rg__ident_dup_quoted(t, NULL, t->table, &t->quoted, err);
}

static int add_id(rg_type *t, const rg_type_opts *o, rg_err *err) {
    rg_column_opts id = {.size = sizeof id, .name = "id", .kind = RG_U64, .flags = RG_COL_REQUIRED};
    id.column = o->id_column;
    return rg__column_add(t, &id, err);
}

static void copy_plain(rg_type *t, const rg_type_opts *o) {
    t->ids = o->ids;
    t->cache_process = o->cache_process != 0;
    t->cache_redis = o->cache_redis != 0;
    t->cache_queries = o->cache_queries != 0;
    t->ttl_s = o->ttl_s ? o->ttl_s : DEFAULT_TTL_S;
    t->absent_ttl_s = o->absent_ttl_s ? o->absent_ttl_s : DEFAULT_ABSENT_TTL_S;
    t->outage = o->outage;
    t->mysql_pool = t->redis_pool = -1;
    t->queue_column = -1;
    t->sharded = o->sharded != 0;
    if (!o->shard_in_id) return;
    t->id_base = (uint64_t)o->shard << RG__SHARD_BITS;
    t->id_last = t->id_base + (UINT64_C(1) << RG__SHARD_BITS) - 1;
}

rg_type *rg_type_new(const rg_type_opts *opts, rg_err *err) {
    rg_type_opts o = {0};
    if (rg__opts_take(&o, sizeof o, opts, "rg_type_opts", err) < 0) return NULL;
    rg_type *t = rg__calloc(1, sizeof *t);
    if (t) t->name = rg__strdup(o.name ? o.name : "");
    if (!t || !t->name) {
        rg__fail_memory(err);
        goto fail;
    }
    copy_plain(t, &o);
    if (check_opts(t, &o, err) < 0 || copy_names(t, &o, err) < 0 || add_id(t, &o, err) < 0)
        goto fail;
    return t;
fail:
    rg_type_free(t);
    return NULL;
}

void rg_type_free(rg_type *t) {
    if (!t) return;
    for (uint32_t i = 0; i < t->n_columns; i++) rg__column_deinit(&t->columns[i]);
    for (uint32_t i = 0; i < t->n_indexes; i++) {
        rg__free(t->indexes[i].name);
        rg__free(t->indexes[i].columns);
    }
    for (uint32_t i = 0; i < t->n_feeds; i++) rg__feed_deinit(&t->feeds[i]);
    rg__free(t->feeds);
    rg__free(t->columns);
    rg__free(t->guarded);
    rg__free(t->indexes);
    rg__free(t->name);
    rg__free(t->table);
    rg__free(t->quoted);
    rg__free(t->mysql);
    rg__free(t->redis);
    rg__free(t->select_list);
    rg__free(t->queue_group);
    rg__free(t->queue_by);
    rg__free(t);
}

/* ---- questions ---- */

uint32_t rg_type_columns(const rg_type *t) { return t->n_columns; }

int rg_type_column_info(const rg_type *t, uint32_t i, rg_column_info *out) {
    if (!t->frozen) return RG_EMISUSE;
    if (i >= t->n_columns) return RG_EINVALID;
    const rg__column *c = &t->columns[i];
    *out = (rg_column_info){c->name, c->column, c->kind, c->store, c->flags, c->offset, 0, 0};
    if (!(c->flags & RG_COL_NULLABLE)) return RG_OK;
    out->null_at = c->null_at;
    out->null_bit = c->null_bit;
    return RG_OK;
}

int rg_type_index_find(const rg_type *t, const char *name) {
    for (uint32_t i = 0; i < t->n_indexes; i++)
        if (strcmp(t->indexes[i].name, name) == 0) return (int)i;
    return -1;
}

/* A path wins over another column's SQL name. */
int rg__type_column_find(const rg_type *t, const char *name, size_t len) {
    rg__slice wanted = {name, len};
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (rg__slice_eq(rg__slice_of(t->columns[i].name), wanted)) return (int)i;
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (rg__slice_eq(rg__slice_of(t->columns[i].column), wanted)) return (int)i;
    return -1;
}

/* Rows kept in processes count: Redis is what tells the other processes about a write. */
bool rg__type_shared(const rg_type *t) {
    if (t->redis_pool < 0) return false;
    if (t->cache_redis || t->cache_process || t->cache_queries) return true;
    for (uint32_t i = 0; i < t->n_indexes; i++)
        if (rg__index_cached(&t->indexes[i])) return true;
    return false;
}
