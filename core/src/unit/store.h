/* SPDX-License-Identifier: MIT */
/* What the unit of work stands on: schema, pools, caches, queues. Owned by the engine; shared. */
#ifndef RG_UNIT_STORE_H
#define RG_UNIT_STORE_H

#include <pthread.h>
#include "cache/cache.h"
#include "cache/value.h"
#include "mysql/mysql.h"
#include "queue/queue.h"

/* Ids in memory of one type: [next, end). */
typedef struct rg__id_block {
    pthread_mutex_t lock;
    uint64_t next, end;
    int64_t reserved_ms; /* when the last block came */
    uint32_t factor;     /* of the block's size: grows while blocks are used up quickly */
    uint64_t last_ms; /* snowflake */
    uint32_t sequence;
} rg__id_block;

typedef struct rg__flights rg__flights; /* loads in flight (unit/flight.c) */
typedef struct rg__outage rg__outage;   /* unit/outage.h */

/* Producers of queued flushes. The enqueue script drops what has a sequence number at or below the
 * producer's last one (a retry), so a producer sends one at a time: concurrent flushes of a process
 * take different ones. */
enum { RG__PRODUCERS = 64 };
typedef struct rg__producer {
    atomic_bool busy;
    char name[40];
    uint64_t seq; /* only the holder touches it */
} rg__producer;

typedef struct rg__store {
    rg__schema schema;
    rg__mysql_pool **mysql; /* by type->mysql_pool */
    rg__queue *queues;      /* one a MySQL pool, same numbering; shared == NULL: no queue */
    rg__queue **parts;      /* by MySQL pool: the n_parts partitions of its queue */
    rg__queue_gauge **gauges; /* theirs */
    uint32_t n_mysql;
    rg__shared **shared;    /* by type->redis_pool */
    rg__coherence **coherence;
    uint32_t n_redis;
    rg__outage *outages;    /* by MySQL pool, then by Redis pool */
    rg__process *process;
    rg__values **caches;    /* the application's, by number */
    uint32_t n_caches;
    rg__values *searches;   /* two a Redis pool: not kept in the process, kept there */
    rg__flights *flights;
    rg__id_block *ids;      /* by type->number */
    rg__metrics metrics;
    rg__producer producers[RG__PRODUCERS];
    uint32_t id_block, node;
    int opener;               /* the process that opened the engine */
    atomic_int owner;         /* the one that producers and ids at hand are of */
    pthread_mutex_t own_lock; /* of changing that */
} rg__store;

/* The Redis tier of a type, NULL when it has none. */
static inline rg__shared *rg__store_shared(const rg__store *s, const rg_type *t) {
    return t->redis_pool >= 0 ? s->shared[t->redis_pool] : NULL;
}
static inline rg__mysql_pool *rg__store_mysql(const rg__store *s, const rg_type *t) {
    return s->mysql[t->mysql_pool];
}
/* ---- own.c: what each process has for itself, with `ids` allocated ---- */
void rg__store_open(rg__store *s);
void rg__store_close(rg__store *s);
/* Before producers and ids at hand are used: in a forked child they become its own. */
void rg__store_own(rg__store *s);

/* Starts the coherence channel of a type's Redis pool when its process tier needs it. */
void rg__store_cohere(rg__store *s, const rg_type *t);

#endif
