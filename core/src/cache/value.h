/* SPDX-License-Identifier: MIT */
/* Value caches: named caches of bytes, for the application's own values and for cached searches.
 *
 * Redis keys: "{P}:u:<cache>:<k>", <k> being the key itself, or byte 4 and its SHA-256 when it is longer
 * than 200 bytes (the application's keys never begin with byte 4); "{P}:s:<k>" of searches; "{P}:d:<id>"
 * the generation of a tag or a table, <id> 16 bytes of a SHA-256; "{P}:uc" a counter that orders
 * leases and deletions of tags.
 *
 * Entry: one Redis string, little-endian, as entries of rows are (cache/cache.h).
 *
 *   byte 0     state: V value, N known absence, L leased, M marked
 *   bytes 1-8  epoch; of another epoch all count as none
 *   M          marked by transactions, as rows are (cache.h); what is saved begins with its end, ms (u64)
 *   L          9 token (16), 25 deadline (u64, ms of Redis' clock), 33 counter (u64)
 *   V, N       9 end of its life (u64, ms of Redis' clock), 17 ms that loading took (u32), 21 lease of
 *              who loads it anew: token, deadline, counter as in L, or zeros; 53 number of what it
 *              depends on (u8), each 16 bytes of id and 8 of generation; then the value: 8 bytes
 *              XXH3 of the rest, seeded by the key, and the rest
 *
 * It is good as long as all that it depends on has these generations. A generation is a V entry of 17
 * bytes. Those of tables are marked by transactions like lookups: while M stands nothing is served or
 * filled; X (a mark expired, its writer may still commit) is a generation of its own, under which only
 * a locking read may fill.
 *
 * The process tier keeps values with the generations they depend on, and the generations: an entry
 * there is good while all its generations are there and equal. A change of one drops it there. */
#ifndef RG_CACHE_VALUE_H
#define RG_CACHE_VALUE_H

#include <regolith/cache.h>
#include "cache/cache.h"

enum {
    RG__DEP_ID = 16,
    RG__DEP_BYTES = 24,
    RG__DEPS_MAX = 255,
    RG__SPACE_DEPS = 0xffffff,  /* in the process tier; value caches are numbered down from it */
    RG__VALUE_PLAIN_MAX = 200,
};

/* One cache; its options never change. */
typedef struct rg__values {
    char *name;
    char *redis;            /* pool name */
    int redis_pool;         /* resolved by the engine */
    rg__shared *shared;     /* NULL: values live in the process alone, nobody is told */
    rg__process *process;   /* NULL: not kept in the process */
    char *prefix;           /* of its Redis keys */
    uint32_t prefix_len;
    uint32_t space;
    bool in_process, in_redis, sliding;
    uint64_t ttl_ms, absent_ttl_ms, stale_ms;
    uint32_t lease_ms, max_bytes;
} rg__values;

/* One key of a call. Zeroed, then key is set; the rest is the calls'. */
typedef struct rg__value_item {
    rg__slice key;          /* borrowed */
    char *text;             /* Redis key, owned */
    uint32_t len;
    uint64_t hash, stamp;
    int found;              /* rg_cached */
    bool absent;
    rg_block *block;        /* as the process tier keeps it; a reference */
} rg__value_item;

/* What fills a key. */
typedef struct rg__value_fill {
    const uint8_t *token;   /* 16 bytes */
    bool absent;
    rg__slice value;
    uint64_t ttl_ms, stale_ms;
    uint32_t took_ms;
    rg__slice tags;         /* ids, or */
    rg__slice deps;         /* ids with generations */
} rg__value_fill;

/* Names the cache's keys and registers it with the coherence of its Redis; after that it stays where it
 * is. number: unique in the process tier. key: "u:<name>:" or "s:". */
int rg__values_init(rg__values *v, rg__shared *shared, rg__process *process, uint32_t number,
                    const char *key, rg_err *err);
void rg__values_deinit(rg__values *v);
/* What a channel of coherence must know of a cache: names and place. The other: frees them all. */
int rg__values_echo(rg__shared *channel, const rg__values *v, rg__process *p);
void rg__values_echo_free(rg__shared *channel);
/* The id of a tag or a table. */
void rg__dep_id(const char *kind, rg__slice name, uint8_t id[RG__DEP_ID]);
uint64_t rg__dep_hash(const uint8_t *id);

/* Also takes the stamp, so call it before anything is read. */
int rg__value_name(const rg__values *v, rg__value_item *it);
void rg__value_item_deinit(rg__value_item *it);
/* The value of an item's block; absent ones have none. */
rg__slice rg__value_of(const rg_block *b);

/* VALUE or ABSENT with a reference in *out, or NONE. */
int rg__value_peek(const rg__values *v, rg__slice key, double early, rg__metrics *m,
                   rg_block **out);

/* The same without early. What was found stays what a peek would find for as long as the hold is good: the
 * stamp says that nobody dropped the key, nor everything, and deps that no generation was dropped. */
int rg__value_peek_hold(const rg__values *v, rg__slice key, rg__metrics *m, rg_block **out,
                        rg_cache_hold *hold);
bool rg__value_holds(const rg__values *v, const rg_cache_hold *hold);

/* How keys are taken. */
typedef struct rg__value_take {
    bool lease;
    uint8_t token[16];
    double early;
    rg__slice ids;          /* of what the fill will depend on */
    uint8_t *generations;   /* 9 bytes each: v, x or m, and the generation */
} rg__value_take;
/* One script for all that are NONE; fills the process tier with what it finds. Never fails: BYPASS.
 * Waits for others' loads, when asked to, up to wait_ms. */
void rg__value_ask(const rg__values *v, const rg__ctx *ctx, rg__value_take *t, rg__value_item *items,
                   size_t n, uint32_t wait_ms);
/* 1 when it was filled, 0 when it was refused, negative when Redis cannot be reached. */
int rg__value_put(const rg__values *v, const rg__ctx *ctx, rg__value_item *it,
                  const rg__value_fill *f, rg_err *err);
void rg__value_unlease(const rg__values *v, const rg__ctx *ctx, const uint8_t *token,
                       rg__value_item *items, size_t n);
/* values: one an item. */
int rg__value_set(const rg__values *v, const rg__ctx *ctx, rg__value_item *items, const rg__slice *values,
                  size_t n, uint64_t ttl_ms, rg__slice tags, rg_err *err);
/* How many there were, or negative. */
int rg__value_delete(const rg__values *v, const rg__ctx *ctx, rg__value_item *items, size_t n,
                     rg_err *err);
int rg__value_delete_tags(const rg__values *v, const rg__ctx *ctx, rg__slice tags, rg_err *err);

/* ---- transactions (cache/value_tx.c) ----
 * What a transaction sets and deletes is marked before its COMMIT, as rows are: the entry is M (cache.h),
 * saving what it held with the time until which it would have stayed, and nobody is served or fills it;
 * after the COMMIT it becomes what the transaction says, or nothing when it was not alone; after a
 * ROLLBACK what it was. Marks of who died expire to nothing, and not to X: a loader is no locking read. So
 * they stand for longer than a COMMIT takes whose client is gone. */
typedef enum rg__value_do { RG__VALUE_SET, RG__VALUE_DELETE, RG__VALUE_DELETE_TAG } rg__value_do;

typedef struct rg__value_change {
    const rg__values *v;
    rg__value_do what;
    rg__value_item item;    /* its text is the entry's key, or the generation's */
    rg__buf key, value, tags; /* tags: ids */
    uint64_t ttl_ms;
    bool marked;
} rg__value_change;

/* Each key once. Zeroed: empty. */
typedef struct rg__value_changes {
    rg__value_change *items;
    size_t n, cap;
} rg__value_changes;
/* A copy of everything is taken; NULL when out of memory. */
rg__value_change *rg__value_change_add(rg__value_changes *c, const rg__values *v, rg__value_do what,
                                       rg__slice key_or_tag);
void rg__value_changes_deinit(rg__value_changes *c);
/* EUNAVAILABLE and the like: what was marked is so no longer, and nothing may be committed. */
int rg__value_changes_mark(rg__value_changes *c, const rg__ctx *ctx, rg__txid tx, rg_err *err);
/* Never fail: what cannot be told expires with its marks. */
void rg__value_changes_publish(rg__value_changes *c, const rg__ctx *ctx, rg__txid tx);
void rg__value_changes_unmark(rg__value_changes *c, const rg__ctx *ctx, rg__txid tx);
/* How long marks of values stand. */
uint64_t rg__value_mark_ms(const rg__shared *s);

/* ---- for the coherence channel ---- */
/* Drops a value or generation that a Redis key names; false when it names neither. */
bool rg__values_invalidate(rg__shared *s, rg__process *p, rg__slice key);

/* Puts a generation's name into a change's key: what a write of the type's table does to cached
 * searches. */
int rg__key_generation(const rg__shared *s, const rg_type *t, rg__key *out);
void rg__table_id(const rg_type *t, uint8_t id[RG__DEP_ID]);

#endif
