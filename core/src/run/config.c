/* SPDX-License-Identifier: MIT */
/* The configuration of an engine: options, pools, types, checked as they come. */
#include <ctype.h>

#include "base/alloc.h"
#include "run/engine.h"

static const rg_engine_opts defaults = {
    .size = sizeof(rg_engine_opts),
    .prefix = "rg",
    .process_cache_bytes = 64ULL << 20,
    .operation_timeout_ms = 30000,
    .id_block = 1000,
    .queue_max_len = 1000000,
    .workers = 4,
    .max_workers = 64,
    .max_queued = 10000,
    .outage = RG_OUTAGE_STRICT,
};

#define TAKE_DEFAULT(o, member) \
    if (!(o)->member) (o)->member = defaults.member

static void apply_defaults(rg_engine_opts *o) {
    TAKE_DEFAULT(o, prefix);
    TAKE_DEFAULT(o, process_cache_bytes);
    TAKE_DEFAULT(o, operation_timeout_ms);
    TAKE_DEFAULT(o, id_block);
    TAKE_DEFAULT(o, queue_max_len);
    TAKE_DEFAULT(o, workers);
    TAKE_DEFAULT(o, max_workers);
    TAKE_DEFAULT(o, max_queued);
    TAKE_DEFAULT(o, outage);
}

static bool valid_place(const char *p) {
    size_t n = 0;
    if (p[0] == '/') return strlen(p) < 200;
    for (; p[n]; n++)
        if (!isalnum((unsigned char)p[n]) && !strchr("_-.", p[n])) return false;
    return n > 0 && n <= 64 && p[0] != '.';
}

static int check_prefix(const char *p, rg_err *err) {
    size_t n = 0;
    for (; p[n]; n++)
        if (!isalnum((unsigned char)p[n]) && !strchr("_-.", p[n])) break;
    if (n == 0 || n > 64 || p[n])
        return rg__fail_field(err, "prefix", "prefix: 1 to 64 letters, digits, _ - or . are allowed");
    return RG_OK;
}

static int check_opts(const rg_engine_opts *o, rg_err *err) {
    if (o->node > 63) return rg__fail_field(err, "node", "node: %u is over 63", o->node);
    if (o->outage < RG_OUTAGE_STRICT || o->outage > RG_OUTAGE_AVAILABLE)
        return rg__fail_field(err, "outage", "outage: not a policy");
    if (o->process_cache_place && !valid_place(o->process_cache_place))
        return rg__fail_field(err, "process_cache_place",
                              "process_cache: shared is a name of 1 to 64 letters, digits, _ - or ., or the absolute "
                              "path of a folder");
    if (o->workers > 64) return rg__fail_field(err, "workers", "workers: %u is over 64", o->workers);
    if (o->max_workers > 256)
        return rg__fail_field(err, "max_workers", "max_workers: %u is over 256", o->max_workers);
    return check_prefix(o->prefix, err);
}

rg_config *rg_config_new(const rg_engine_opts *opts, rg_err *err) {
    rg_engine_opts o = {0};
    if (opts) memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    apply_defaults(&o);
    if (check_opts(&o, err) < 0) return NULL;
    rg_config *c = rg__calloc(1, sizeof *c);
    if (c) c->prefix = rg__strdup(o.prefix);
    if (c) c->place = rg__strdup(o.process_cache_place);
    if (!c || !c->prefix || (o.process_cache_place && !c->place)) {
        if (c) rg__free(c->prefix);
        rg__free(c);
        rg__fail_memory(err);
        return NULL;
    }
    c->opts = o;
    c->opts.prefix = c->prefix;
    c->opts.process_cache_place = c->place;
    return c;
}

void rg_config_free(rg_config *c) {
    if (!c) return;
    for (uint32_t i = 0; i < c->n_mysql; i++) rg__mysql_pool_free(c->mysql[i]);
    for (uint32_t i = 0; i < c->n_redis; i++) rg__redis_pool_free(c->redis[i]);
    rg__caches_free(c->caches, c->n_caches);
    rg__schema_deinit(&c->schema);
    for (uint32_t i = 0; i < c->n_queues; i++) rg__free((char *)(uintptr_t)c->queues[i].queue);
    rg__free(c->queues);
    rg__free(c->mysql);
    rg__free(c->redis);
    rg__free(c->prefix);
    rg__free(c->place);
    rg__free(c);
}

int rg_config_mysql(rg_config *c, const rg_pool_opts *opts, rg_err *err) {
    for (uint32_t i = 0; i < c->n_mysql; i++)
        if (opts->name && !strcmp(rg__mysql_pool_name(c->mysql[i]), opts->name))
            return rg__fail_field(err, "mysql", "MySQL pool %s is defined twice", opts->name);
    rg__mysql_pool **p = rg__reallocarray(c->mysql, c->n_mysql + 1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    c->mysql = p;
    p[c->n_mysql] = rg__mysql_pool_new(opts, err);
    if (!p[c->n_mysql]) return err && err->code ? err->code : RG_EINVALID;
    c->n_mysql++;
    return RG_OK;
}

int rg_config_replica(rg_config *c, const char *pool, const rg_pool_opts *opts, rg_err *err) {
    for (uint32_t i = 0; i < c->n_mysql; i++)
        if (!strcmp(rg__mysql_pool_name(c->mysql[i]), pool))
            return rg__mysql_pool_replica(c->mysql[i], opts, err);
    return rg__fail_field(err, "mysql", "there is no MySQL pool %s to have a replica", pool);
}

int rg_config_redis(rg_config *c, const rg_pool_opts *opts, rg_err *err) {
    for (uint32_t i = 0; i < c->n_redis; i++)
        if (opts->name && !strcmp(rg__redis_pool_name(c->redis[i]), opts->name))
            return rg__fail_field(err, "redis", "Redis pool %s is defined twice", opts->name);
    rg__redis_pool **p = rg__reallocarray(c->redis, c->n_redis + 1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    c->redis = p;
    p[c->n_redis] = rg__redis_pool_new(opts, err);
    if (!p[c->n_redis]) return err && err->code ? err->code : RG_EINVALID;
    c->n_redis++;
    return RG_OK;
}

static int check_queue(const rg_config *c, const rg_queue_opts *o, rg_err *err) {
    for (uint32_t i = 0; i < c->n_queues; i++)
        if (!strcmp(c->queues[i].queue, o->queue))
            return rg__fail_field(err, "queues", "queue %s is configured twice", o->queue);
    if (o->partitions > RG__PARTS)
        return rg__fail_field(err, "partitions", "queue %s: %u partitions are over %d", o->queue,
                              o->partitions, RG__PARTS);
    if (o->on_split < RG_SPLIT_DEFAULT || o->on_split > RG_SPLIT_SYNC)
        return rg__fail_field(err, "on_split", "queue %s: unknown on_split", o->queue);
    if (o->durability < RG_DURABLE_DEFAULT || o->durability > RG_DURABLE_SYNC)
        return rg__fail_field(err, "durability", "queue %s: unknown durability", o->queue);
    if (o->when_full < RG_FULL_DEFAULT || o->when_full > RG_FULL_SYNC)
        return rg__fail_field(err, "when_full", "queue %s: unknown when_full", o->queue);
    if (o->persistence < RG_UNFIT_DEFAULT || o->persistence > RG_UNFIT_WARN)
        return rg__fail_field(err, "persistence", "queue %s: unknown persistence", o->queue);
    return RG_OK;
}

int rg_config_queue(rg_config *c, const rg_queue_opts *opts, rg_err *err) {
    rg_queue_opts o = {0};
    memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    if (!o.queue) o.queue = "default";
    int rc = check_queue(c, &o, err);
    if (rc < 0) return rc;
    rg_queue_opts *p = rg__reallocarray(c->queues, c->n_queues + 1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    c->queues = p;
    o.queue = rg__strdup(o.queue);
    if (!o.queue) return rg__fail_memory(err);
    p[c->n_queues++] = o;
    return RG_OK;
}

int rg_config_type(rg_config *c, rg_type *type, rg_err *err) {
    int rc = rg_type_freeze(type, err);
    if (rc >= 0) rc = rg__schema_add(&c->schema, type, err);
    if (rc < 0) rg_type_free(type);
    return rc;
}
