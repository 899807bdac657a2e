/* SPDX-License-Identifier: MIT */
/* Entity descriptors as the engine sees them: columns, layout, indexes, fingerprints. Frozen ones
 * are immutable and shared. Index in `columns` = index in the null bitmap; column 0 is the id. */
#ifndef RG_SCHEMA_ENTITY_H
#define RG_SCHEMA_ENTITY_H

#include <regolith/schema.h>
#include "base/slice.h"

typedef struct rg__column {
    char *name;       /* field path */
    char *column;     /* SQL name, unquoted */
    char *quoted;     /* SQL name in backticks */
    int32_t kind;     /* rg_kind */
    int32_t store;    /* rg_store */
    uint32_t flags;
    uint32_t length, precision, scale;
    rg__slice *values; /* ENUM, SET: words, each with a NUL behind it; owned */
    uint32_t n_values;
    char *target;     /* REF, REFS: entity name */
    int32_t target_space; /* resolved by the schema: number of the type in it, -1 */
    char *collation;  /* NULL: utf8mb4_bin */
    bool exact;       /* comparisons by bytes are those of the server (see rg__key_encode) */
    char *def;
    int foreign_key;
    uint32_t offset;  /* in the row */
    uint32_t null_at; /* byte from the row's start */
    uint8_t null_bit;
} rg__column;

typedef struct rg__index {
    char *name;
    uint32_t *columns; /* column numbers */
    uint32_t n_columns;
    uint32_t flags;
    bool exact; /* all columns exact: absence and lists may be cached */
    uint32_t digest; /* of what its keys mean (rg__index_digest); once the type is frozen */
} rg__index;

/* A stream that changes of the type are told on. */
typedef struct rg__feed {
    char *stream;
    uint32_t kinds; /* RG_FEED_* */
    uint8_t *mask;  /* updates: columns one of which must change; NULL: any */
} rg__feed;

struct rg_type {
    char *name, *table, *quoted; /* quoted: table in backticks */
    char *mysql, *redis;         /* pool names */
    int mysql_pool, redis_pool;  /* resolved by the engine; redis_pool -1: none */
    int32_t ids;
    bool sharded;                /* another type may have this table, on another pool */
    uint64_t id_base, id_last;   /* its ids are within; id_last 0: any */
    bool cache_process, cache_redis;
    bool cache_queries;
    uint32_t ttl_s, absent_ttl_s;
    int32_t outage;              /* rg_outage; the engine resolves 0 */
    char *queue_group;           /* owned; partitions of queues (queue/parts.h) */
    char *queue_by;              /* owned; NULL: none */
    int32_t queue_column;        /* resolved when frozen; -1: the group decides */
    rg__column *columns;
    uint32_t n_columns;
    uint32_t *guarded;    /* numbers of the columns some of whose bytes are no values, in order (row/check.c) */
    uint32_t n_guarded;
    rg__index *indexes;
    uint32_t n_indexes;
    rg__feed *feeds;
    uint32_t n_feeds;
    uint32_t version_column; /* 0: none */
    bool frozen;
    size_t listed_max;    /* bytes of the longest text of all its enums and sets */
    uint32_t fixed_end;   /* end of the fixed area = start of the variable area */
    uint64_t fingerprint;
    uint32_t number;      /* position in the schema */
    uint32_t space;       /* process cache space of its rows; index i has space + 1 + i */
    int rank;             /* referenced types have lower ranks; cycles share one */
    uint32_t cycle;       /* least number of those on its cycle of references; or its own */
    bool cyclic;          /* it is on such a cycle, if only by itself, and a foreign key is in it */
    bool has_foreign;     /* some reference of it is a foreign key */
    char *select_list;    /* "`id`,`a`,`b`": all columns in order, for SELECT */
};

enum { RG__SHARD_BITS = 43, RG__SHARDS = 1024 };

/* May a row with this id be of the type? */
static inline bool rg__type_has_id(const rg_type *t, uint64_t id) {
    return t->id_last == 0 || (id >= t->id_base && id <= t->id_last);
}

/* Shards of an entity are types of their own, named "entity@number": the length of the entity's name. */
static inline size_t rg__entity_len(const char *type_name) { return strcspn(type_name, "@"); }

/* All types of an engine. */
typedef struct rg__schema {
    rg_type **types;
    uint32_t n;
} rg__schema;

int rg__schema_add(rg__schema *s, rg_type *type, rg_err *err); /* takes; duplicate names refused */
/* Resolves references (EINVALID naming entity.field), numbers types and spaces, ranks them. */
int rg__schema_resolve(rg__schema *s, rg_err *err);
rg_type *rg__schema_find(const rg__schema *s, const char *name, size_t len);
rg_type *rg__schema_find_table(const rg__schema *s, const char *table, size_t len);
void rg__schema_deinit(rg__schema *s);

/* EINVALID with entity, field (NULL: none) and "entity.field: ..." as the message. */
int rg__type_fail(const rg_type *t, const char *field, rg_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What tells apart rows of different column lists; RG_ENO_MEMORY or 0. */
int rg__type_fingerprint(const rg_type *t, uint64_t *out);
/* Which values of which columns an index' keys are made of, and whose rows its lists name: what has another
 * digest is another index, whatever its name. */
int rg__index_digest(const rg_type *t, const rg__index *x, uint32_t *out);
/* Column by field path or SQL name; -1. */
int rg__type_column_find(const rg_type *t, const char *name, size_t len);
static inline bool rg__index_cached(const rg__index *x) {
    return (x->flags & (RG_INDEX_UNIQUE | RG_INDEX_CACHED)) != 0;
}
/* True when a write of this type must tell Redis (rows or lookups are cached there). */
bool rg__type_shared(const rg_type *t);
/* What rg_write (row.h, a floor above) says. */
enum { RG__FEED_WRITE_INSERT = 1, RG__FEED_WRITE_UPDATE, RG__FEED_WRITE_DELETE };
/* Whether a write is told on a feed, or on any of the type's. mask: columns that an update changes. */
bool rg__feed_wants(const rg_type *t, const rg__feed *f, int write, const uint8_t *mask);
bool rg__type_tells(const rg_type *t, int write, const uint8_t *mask);
/* 1 to 128 letters, digits, '.', '-' and '_'. */
bool rg__feed_name_valid(const char *name, size_t len);
void rg__feed_deinit(rg__feed *f);
/* Appends a quoted identifier; EINVALID when empty, over 64 characters, not UTF-8, or with NUL. */
int rg__ident_quote(rg__buf *out, const char *name, size_t len, rg_err *err);

#endif
