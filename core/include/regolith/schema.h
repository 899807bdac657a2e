/* SPDX-License-Identifier: MIT */
/* Entity types: columns, indexes, where they live. Built once, frozen when the engine opens. */
#ifndef REGOLITH_SCHEMA_H
#define REGOLITH_SCHEMA_H

#ifndef __RG_CDEF__
#include <regolith/err.h>
#endif

/* Kind of a column: what it holds, how the packed row stores it, which SQL type it has. */
typedef enum rg_kind {
    RG_BOOL = 1, /* TINYINT(1); stored u8 */
    RG_I8,
    RG_I16,
    RG_I24,
    RG_I32,
    RG_I64, /* TINYINT..BIGINT; stored i8, i16, i32, i32, i64 */
    RG_U8,
    RG_U16,
    RG_U24,
    RG_U32,
    RG_U64,      /* the same UNSIGNED; stored u8, u16, u32, u32, u64 */
    RG_FLOAT,    /* FLOAT; stored f32 */
    RG_DOUBLE,   /* DOUBLE; stored f64 */
    RG_DECIMAL,  /* DECIMAL(p,s); stored as canonical text with exactly s decimals */
    RG_STRING,   /* VARCHAR(length in characters); stored as UTF-8 bytes */
    RG_TEXT,     /* TEXT, MEDIUMTEXT or LONGTEXT by length (bytes); UTF-8 bytes */
    RG_BINARY,   /* VARBINARY(length in bytes) */
    RG_BLOB,     /* BLOB, MEDIUMBLOB or LONGBLOB by length (bytes) */
    RG_ENUM,     /* ENUM; stored u16, index of the value from 1 */
    RG_SET,      /* SET; stored u64, bit i is value i */
    RG_DATE,     /* DATE; stored i32, days since 1970-01-01 */
    RG_DATETIME, /* DATETIME(6); stored i64, microseconds since 1970-01-01 UTC */
    RG_TIME,     /* TIME(6); stored i64, signed microseconds */
    RG_JSON,     /* JSON; stored as its text */
    RG_REF,      /* BIGINT UNSIGNED id of another entity; stored u64 */
    RG_REFS,     /* JSON array of ids; stored as u64 little-endian each, in order */
    RG_KIND_END
} rg_kind;

/* How a column lies in the packed row; what a decoder needs. */
typedef enum rg_store {
    RG_STORE_I8 = 1,
    RG_STORE_I16,
    RG_STORE_I32,
    RG_STORE_I64,
    RG_STORE_U8,
    RG_STORE_U16,
    RG_STORE_U32,
    RG_STORE_U64,
    RG_STORE_F32,
    RG_STORE_F64,
    RG_STORE_VAR /* two u32 at the offset: position from the row's start, length in bytes */
} rg_store;

/* Column flags. Implied: NULLABLE for REF and JSON that are not REQUIRED; REQUIRED for DATE and
 * DATETIME that are neither NULLABLE, CREATED nor UPDATED and have no default. */
enum {
    RG_COL_NULLABLE = 1,  /* NULL allowed; the default of an absent value is NULL */
    RG_COL_REQUIRED = 2,  /* an absent, NULL or empty value (0 for a reference) is refused */
    RG_COL_CREATED = 4,   /* set at insert when absent (date, datetime) */
    RG_COL_UPDATED = 8,   /* set at insert and at each update that changes another column */
    RG_COL_VERSION = 16,  /* counts updates; update and delete are refused when it moved */
    RG_COL_SENSITIVE = 32 /* its values never reach a log, an error or a dead letter's listing */
};

typedef struct rg_column_opts {
    uint32_t size;         /* sizeof(rg_column_opts) */
    const char *name;      /* field path, e.g. "address.city" or "score[1]"; borrowed until return */
    const char *column;    /* SQL column; NULL: the name with [ ] . turned into _ */
    int32_t kind;          /* rg_kind */
    uint32_t flags;        /* RG_COL_* */
    uint32_t length;       /* characters (STRING) or bytes (TEXT, BINARY, BLOB); 0: the kind's default */
    uint32_t precision;    /* DECIMAL digits, default 10 */
    uint32_t scale;        /* DECIMAL decimals, default 2 */
    const char *const *values; /* ENUM, SET: allowed values, in order */
    uint32_t n_values;
    const char *target;    /* REF, REFS: name of the entity referred to */
    const char *collation; /* STRING, TEXT, ENUM, SET: NULL for utf8mb4_bin */
    const char *def;       /* default as text, applied when the value is absent; NULL: none */
    int32_t foreign_key;   /* REF: 1 to make a FOREIGN KEY constraint */
} rg_column_opts;

/* Index flags. */
enum {
    RG_INDEX_UNIQUE = 1,
    RG_INDEX_CACHED = 2,  /* its lookups are cached in Redis; unique ones always are */
    RG_INDEX_VIRTUAL = 4  /* no SQL index: the cached list of all ids (no columns) */
};

typedef struct rg_index_opts {
    uint32_t size;
    const char *name;
    const char *const *columns; /* field paths */
    uint32_t n_columns;
    uint32_t flags;
} rg_index_opts;

/* What writes a feed tells of; 0: all. */
enum { RG_FEED_INSERT = 1, RG_FEED_UPDATE = 2, RG_FEED_DELETE = 4 };

/* A stream of events that changes of an entity are told on, published with the change. */
typedef struct rg_feed_opts {
    uint32_t size;
    const char *stream;         /* 1 to 128 letters, digits, '.', '-' and '_' */
    uint32_t kinds;             /* RG_FEED_* */
    const char *const *fields;  /* updates: field paths one of which must change */
    uint32_t n_fields;          /* 0: any */
} rg_feed_opts;

/* How ids come about. */
typedef enum rg_ids {
    RG_IDS_BLOCK = 0,   /* from blocks of a durable MySQL row; no round trip per entity */
    RG_IDS_APPLICATION, /* the application sets id before flush */
    RG_IDS_DATABASE,    /* AUTO_INCREMENT; id is known after flush; not for flush_async */
    RG_IDS_SNOWFLAKE    /* 41 bits ms, 6 bits node, 6 bits sequence: below 2^53 */
} rg_ids;

/* What a write does when Redis cannot be told that it replaces what is cached. */
typedef enum rg_outage {
    RG_OUTAGE_STRICT = 1, /* it is refused, UNAVAILABLE */
    RG_OUTAGE_AVAILABLE   /* it is done; no cache is believed until what it replaced is dropped */
} rg_outage;

typedef struct rg_type_opts {
    uint32_t size;
    const char *name;       /* entity name, unique per engine */
    const char *table;      /* SQL table; NULL: the name */
    const char *mysql;      /* pool names; NULL: "default" */
    const char *redis;
    const char *id_column;  /* SQL column of the id; NULL: "id" */
    int32_t ids;            /* rg_ids */
    int32_t cache_process;  /* 1: rows are kept in the process cache */
    int32_t cache_redis;    /* 1: rows are kept in Redis */
    int32_t cache_queries;  /* 1: searches of its table may be cached: writes tell of them */
    uint32_t ttl_s;         /* life of a cached row or lookup in Redis; 0: 3600 */
    uint32_t absent_ttl_s;  /* life of a cached absence; 0: 10 */
    int32_t outage;         /* rg_outage; 0: as the engine's */
    /* A shard: one of several types with the same columns and table, each on a pool of its own. */
    int32_t sharded;        /* 1: it is one */
    int32_t shard_in_id;    /* 1: its ids are those from shard << 43 on, so that an id tells the shard */
    uint32_t shard;         /* its number, 0 to 1023 */
    /* Which partition of its queue an operation goes to; see rg_queue_opts. */
    const char *queue_group; /* NULL: the entity's name; entities of one group share a partition */
    const char *queue_by;    /* field whose value decides instead (NULL there: the group); NULL: none */
} rg_type_opts;

typedef struct rg_type rg_type;

/* New type, caller's until rg_config_type takes it. NULL and *err on failure. Confined. Its first
 * column is always the id (kind U64, path "id"), made here. */
RG_API rg_type *rg_type_new(const rg_type_opts *opts, rg_err *err);
RG_API void rg_type_free(rg_type *type);
/* Adds a column / an index. EINVALID names the field in err->field and says what is wrong. */
RG_API int rg_type_column(rg_type *type, const rg_column_opts *opts, rg_err *err);
RG_API int rg_type_index(rg_type *type, const rg_index_opts *opts, rg_err *err);
/* Adds a feed; after the columns. */
RG_API int rg_type_feed(rg_type *type, const rg_feed_opts *opts, rg_err *err);

/* What a decoder generator asks about column i (0 is the id) of a frozen type. Pure. */
typedef struct rg_column_info {
    const char *name; /* borrowed while the type lives */
    const char *column;
    int32_t kind;
    int32_t store;    /* rg_store */
    uint32_t flags;
    uint32_t offset;  /* from the row's start */
    uint32_t null_at; /* byte of the null bit from the row's start; 0 when never NULL */
    uint32_t null_bit; /* mask within that byte */
} rg_column_info;

/* Lays the row out and computes the fingerprint; done by rg_config_type as well. Idempotent. */
RG_API int rg_type_freeze(rg_type *type, rg_err *err);
RG_API uint32_t rg_type_columns(const rg_type *type);
RG_API int rg_type_column_info(const rg_type *type, uint32_t i, rg_column_info *out);
/* Number of the index of that name, or -1. Indexes are numbered in order of addition. */
RG_API int rg_type_index_find(const rg_type *type, const char *name);

#endif
