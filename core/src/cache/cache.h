/* SPDX-License-Identifier: MIT */
/* The caches: process tier, Redis tier, their coherence. consistency.md 2.2 is the protocol.
 *
 * Keys. A row: "{P}:e:<table>:<id>"; a lookup: "{P}:l:<table>:<index>.<d>:<k>" where <d> is the
 * digest of the index' definition, 8 hex digits, and <k> the encoded key itself when it has at most 40
 * bytes ('r' + bytes), else 'h' + the first 16 bytes of its SHA-256; P is the engine's prefix. In
 * <table> and <index> ':' and '%' are written %3a and %25; a table of another MySQL pool than
 * "default" is "<pool>/<table>". Besides: "{P}:ep" the epoch (8 bytes: Redis' clock in us when it
 * began), "{P}:life" the server that it belongs to, "{P}:out" a hash of tables with their policies,
 * "{P}:mz" a sorted set of marked keys by deadline, "{P}:ps" a hash of what producers sent. One
 * partition, one tag: a script over all of them is legal in a cluster.
 *
 * Entry: one Redis string. Numbers are little-endian; a stream id is 32 hex digits (ms, sequence).
 *
 *   byte 0     state
 *   bytes 1-8  epoch when it was written; of another epoch V, N and L count as none
 *   then by state, from byte 9 on; of a stream id's second half the first 4 digits are its partition
 *   V  valid:    the packed row, or a lookup's ids (u64 each, ascending)
 *   N  absent:   nothing (rows only; a lookup without ids is V with no ids)
 *   P  pending:  9 stream id of the entry that will write it; 41 '1' verified: may become V, '0' not,
 *                '2' void: something was committed past it, only the database knows; 42 as V
 *   Q  pending delete: 9 and 41 as P
 *   D  pending changes of a lookup whose ids are not known: 9 '1' when it was X, else '0'; 10 changes
 *                of 41 bytes: '+' or '-', id (u64), stream id
 *   L  leased:   9 token (16 bytes); 25 deadline (u64, ms of Redis' clock); 33 '0' any read may fill,
 *                '1' only a locking one, as it was exposed, '2' only a locking one, as the epoch is young
 *   M  marked:   9 flags: 1 poison (a commit happened meanwhile), 2 a mark expired, 4 more than one
 *                transaction met here; 10 number of marks (u16); 12 marks of 24 bytes: txid (16),
 *                deadline (u64 ms); then the V or N entry that a rollback restores, whole, or nothing
 *   X  exposed:  nothing; a mark expired, its writer may still commit: only a locking read may fill
 *   T  told:     nothing; written to announce a change of what only processes cache; reads as none.
 *                MARK leaves it for as long as marks last, so that its expiry announces the commit of
 *                a writer that died; PUBLISH for a second
 *
 * V, N, P, Q answer a plain GET without a script; everything else is decided by a script, on Redis'
 * own clock. P, Q, D, M, X and an L that was exposed have no TTL; the rest have. X is dropped a day after
 * its mark expired: no COMMIT is under way for that long. P, Q and D of an earlier epoch may have been
 * applied before Redis lost that: the ledger tells. What every command makes of every state is the table
 * of cache/states.txt.
 */
#ifndef RG_CACHE_CACHE_H
#define RG_CACHE_CACHE_H

#include "base/block.h"
#include "base/ctx.h"
#include "redis/redis.h"
#include "schema/entity.h"

/* ---- process tier (cache/process.c): bounded in bytes, S3-FIFO, sharded locks; shared ---- */
typedef struct rg__process rg__process;

rg__process *rg__process_new(size_t max_bytes, rg__metrics *m); /* 0 bytes: caches nothing */
void rg__process_free(rg__process *p);
/* A new reference, or NULL. A block with len 0 is a known absence (spaces of rows) or an empty
 * list. Counts hits and misses. */
rg_block *rg__process_get(rg__process *p, uint32_t space, uint64_t key);
/* The same for who has it looked for again when it is not there: that counts the miss. */
rg_block *rg__process_try(rg__process *p, uint32_t space, uint64_t key);
/* It was not there, and was found elsewhere without being looked for again. */
void rg__process_missed(rg__process *p);
/* Before looking further, take the stamp; put refuses when the key was dropped (or everything was)
 * since. Concurrent invalidations are thus never overtaken by an older value. */
uint64_t rg__process_stamp(rg__process *p, uint32_t space, uint64_t key);
/* The second in which a life of ttl_s ends; 0, of no ttl: never. */
static inline uint32_t rg__end_of_life(uint32_t now_s, uint32_t ttl_s) {
    if (ttl_s == 0) return 0;
    return ttl_s < UINT32_MAX - now_s ? now_s + ttl_s : UINT32_MAX;
}
/* Takes a reference of its own; an entry of the same key is replaced. ttl_s 0: none. A block that
 * another cache slot holds already is copied. False when refused. */
bool rg__process_put(rg__process *p, uint32_t space, uint64_t key, rg_block *b, uint32_t ttl_s,
                     uint64_t stamp);
void rg__process_drop(rg__process *p, uint32_t space, uint64_t key);
void rg__process_clear(rg__process *p);
/* While off, get answers NULL and put refuses; switching clears. Starts on. Calls nest: each false
 * is taken back by one true, as several channels of coherence may serve one cache. */
void rg__process_enable(rg__process *p, bool on);
bool rg__process_is_on(rg__process *p);
/* Channels that tell what has changed vouch for the cache: nothing is answered past the earliest time that
 * any of them has given, by rg__now_ms, whoever was kept from working meanwhile - the channel's thread, or
 * the whole process. One that has not vouched yet counts for nothing. n: how many there are, before use. */
int rg__process_channels(rg__process *p, uint32_t n);
void rg__process_vouch(rg__process *p, uint32_t channel, int64_t until_ms);
void rg__process_stats(rg__process *p, uint64_t *bytes, uint64_t *entries);
/* In a forked child, before anything else: forgets the content and the locks of lost threads. */
void rg__process_abandon(rg__process *p);

/* Is it one memory of several processes (cache/arena.h)? */
struct rg__arena *rg__process_arena(const rg__process *p); /* or NULL */
rg__process *rg__process_over(struct rg__arena *arena, rg__metrics *m); /* takes the arena */
/* Makes the bound larger, never smaller. */
void rg__process_grow(rg__process *p, size_t max_bytes);

/* What a channel of coherence was told, for all who share a process tier. These rise only. */
typedef struct rg__told {
    atomic_ullong deps;   /* generations to forget; rises first */
    atomic_ullong values; /* values to forget; rises last */
    atomic_ullong epochs; /* that Redis told of another epoch */
} rg__told;

/* ---- names ---- */
typedef struct rg__key {
    uint32_t space;   /* type->space, or + 1 + index number */
    uint64_t hash;    /* id of a row; per-process keyed hash of a lookup */
    char *text;       /* Redis key, owned */
    uint32_t len;
} rg__key;

typedef struct rg__shared rg__shared; /* the Redis tier of one pool; shared */

void rg__key_row(const rg__shared *s, const rg_type *t, uint64_t id, rg__key *out);
/* The same with its text in the caller's room, of so many bytes: not to be deinitialised. */
size_t rg__key_row_room(const rg__shared *s, const rg_type *t);
void rg__key_row_in(const rg__shared *s, const rg_type *t, uint64_t id, char *room, rg__key *out);
/* Appends "e:<table>:<id>", as it follows "{P}:", of a table that may be none of this process' types. */
void rg__key_name_row(const char *mysql_pool, const char *table, uint64_t id, rg__buf *out);
/* encoded: from rg__key_encode. */
void rg__key_lookup(const rg__shared *s, const rg_type *t, uint32_t index, rg__slice encoded,
                    rg__key *out);
void rg__key_deinit(rg__key *k);

/* ---- Redis tier (cache/shared.c) ---- */
/* pool is borrowed; prefix e.g. "rg". process may be NULL. */
rg__shared *rg__shared_new(rg__redis_pool *pool, rg__process *process, const rg__schema *schema,
                           const char *prefix, rg__metrics *m, rg_err *err);
void rg__shared_free(rg__shared *s);
rg__redis_pool *rg__shared_pool(const rg__shared *s);
const char *rg__shared_prefix(const rg__shared *s);
/* A connection of the pool; one that is new is asked first whose data its server has (cache/life.c). */
int rg__shared_acquire(rg__shared *s, const rg__ctx *ctx, rg__redis **out, rg_err *err);
/* How long leases and marks last, ms; 0: the default (3000, 30000). Before first use. */
void rg__shared_timing(rg__shared *s, uint32_t lease_ms, uint32_t mark_ms);

typedef enum rg__found {
    RG__MISS = 0,    /* read the database; fill when lease.held */
    RG__VALUE,       /* block holds it (rows: checked against the type) */
    RG__ABSENT,      /* known absent */
    RG__BYPASS,      /* read the database, fill nothing (marked, leased elsewhere, unreachable) */
    RG__DELTAS       /* lookups: read the ids from the database, then apply deltas */
} rg__found;

typedef struct rg__delta {
    uint64_t id;
    bool add;
} rg__delta;

typedef struct rg__lease {
    bool held;
    bool heal;         /* the fill must come from a locking read */
    uint8_t token[16];
} rg__lease;

typedef struct rg__entry {
    rg__found found;
    bool pending;      /* value comes from a queued write */
    bool suspect;      /* of an earlier epoch: adopt it (rg__shared_adopt), then ask again */
    rg_block *block;   /* VALUE: one reference, the caller's */
    rg__delta *deltas; /* DELTAS: owned */
    uint32_t n_deltas;
    rg__lease lease;
} rg__entry;
void rg__entry_deinit(rg__entry *e);

/* Plain reads: one GET or MGET for all. type is for checking rows (is_row), else lookups. Entries
 * that a plain read cannot answer come back as MISS without lease. Never fails: when Redis cannot
 * answer within the bound, everything is BYPASS (and counted). */
void rg__shared_get(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                    const rg__key *keys, size_t n, rg__entry *out);
/* The same in two steps, for who has something to do while Redis answers: asks, when that needs neither
 * waiting nor a second question (else NULL), and takes the answers later. n up to RG__ASK_MOST; keys
 * live until then. Who does not want them any more drops them. */
enum { RG__ASK_MOST = 512 };
rg__redis *rg__shared_ask(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n);
void rg__shared_get_asked(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                          const rg__key *keys, size_t n, rg__entry *out, rg__redis *asked);
void rg__shared_leave(rg__redis *asked, const rg__ctx *ctx);
/* For those that are MISS in out: one script call: answers by now, or grants leases, or says who
 * holds one. With leases held elsewhere and none granted it waits (short sleeps, at most 100 ms and the
 * deadline), asking again, then BYPASS; who got one leads a load anyway and does not wait, so that
 * nobody holds a lease while waiting for another. */
void rg__shared_lease(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                      const rg__key *keys, size_t n, rg__entry *out);
/* Fills under the leases: values[i] NULL: absent (rows) ; for lookups blocks of ids. Entries whose
 * lease is not held are skipped, as are leases that heal when the values do not come from a locking
 * read (locking). */
void rg__shared_fill(rg__shared *s, const rg__ctx *ctx, const rg_type *t, bool is_row,
                     const rg__key *keys, size_t n, rg_block *const *values,
                     const rg__entry *leases, bool locking);
/* Gives leases back without a value (the load failed). */
void rg__shared_unlease(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                        const rg__entry *leases);
/* Drops entries whatever they hold, pending ones excepted (regolith invalidate; corrupt ones); how
 * many values went, or negative. */
int rg__shared_drop(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n, rg_err *err);
/* The same of keys of which only the text is known: process tiers hear of it from Redis. */
int rg__shared_drop_names(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                          rg_err *err);
/* Ids of the rows of a type that there are entries of: a page of a SCAN (*ids: rg__free). cursor is "0"
 * at first, and again when it is over. */
int rg__shared_scan_rows(rg__shared *s, const rg__ctx *ctx, const rg_type *t, char cursor[24],
                         uint64_t **ids, size_t *n, rg_err *err);
/* One exchange, to see whether it is there. */
int rg__shared_ping(rg__shared *s, const rg__ctx *ctx, rg_err *err);
/* Did it keep a read waiting in vain a moment ago? Then reads go past it (cache/breaker.c). */
bool rg__shared_away(const rg__shared *s);
/* Begins a new epoch: every entry but pending and marked ones counts as none. For failovers of
 * MySQL or Redis after which committed or acknowledged data may be gone. */
int rg__shared_renew(rg__shared *s, const rg__ctx *ctx, rg_err *err);
/* For keys whose entries are suspect: ledgers are the positions ("ms-seq") of the queue's partitions,
 * read after the entries were. Queued writes up to them are forgotten, the others belong to this epoch
 * from now on. */
int rg__shared_adopt(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                     uint64_t epoch, const char (*ledgers)[48], uint32_t n_ledgers, rg_err *err);
uint64_t rg__shared_epoch(const rg__shared *s); /* as far as it is known */
/* Before first use: as others have them who share the process tier. */
void rg__shared_join(rg__shared *s, uint64_t seed, rg__told *told);
/* Is it the epoch still? Asks Redis. */
int rg__shared_confirm(rg__shared *s, const rg__ctx *ctx, uint64_t epoch, bool *same, rg_err *err);
/* Tells which server a MySQL pool is connected to; a new epoch begins when it was another one. */
int rg__shared_witness(rg__shared *s, const rg__ctx *ctx, const char *mysql_pool, uint64_t identity,
                       rg_err *err);
/* Housekeeping, from time to time by anybody: turns marks past their deadline to X even if nobody
 * reads them, drops X entries after a day and what producers silent for a day left. At most max
 * keys; how many marked entries expired, or negative. */
int rg__shared_sweep(rg__shared *s, const rg__ctx *ctx, uint32_t max, rg_err *err);
/* Drops every row and lookup of a type by SCAN, pending ones excepted; *dropped counts. */
int rg__shared_drop_type(rg__shared *s, const rg__ctx *ctx, const rg_type *t, uint64_t *dropped,
                         rg_err *err);

/* ---- plain reads over a wire (cache/wire.c), by who must not wait: rows that are there ----
 * Nothing is taken before the connection was asked whose data its server has, and while the epoch is known, as
 * by rg__shared_get. What is not a clean answer is to be asked for by that. */
enum { RG__WIRE_KEYS = 512, RG__WIRE_BOUND_MS = 250 }; /* of one question */
typedef struct rg__wire_key {
    const rg_type *type;
    uint64_t id;
} rg__wire_key;
/* Appends the question whose data it is, and hears the answer: may the wire be used? */
int rg__wire_greet(rg__shared *s, rg__redis *c, rg_err *err);
bool rg__wire_greeted(rg__shared *s, rg__redis *c, const redisReply *r);
/* May rows be asked for now? False when an ordinary read has to go first. Never waits. */
bool rg__wire_ready(rg__shared *s, rg__redis *c);
/* Has Redis answered an ordinary read lately? Else a wire is not worth trying. */
bool rg__wire_worthwhile(const rg__shared *s);
/* The server may be gone, or another one: it is asked again before anything is read. */
void rg__wire_lost(rg__shared *s);
/* Appends an MGET. room: for the keys' names. */
int rg__wire_ask(rg__shared *s, rg__redis *c, const rg__wire_key *keys, size_t n, rg__buf *room, rg_err *err);
/* What stands there: VALUE (*row has a reference), ABSENT, or MISS for everything else. */
rg__found rg__wire_read(rg__shared *s, const rg__wire_key *k, rg__slice bytes, rg_block **row);
/* All of a question's answers came, so many of which were used; or none within the bound. */
void rg__wire_answered(rg__shared *s, size_t hits);
void rg__wire_late(rg__shared *s);

/* ---- write side ---- */
/* What a transaction does to one key. */
typedef struct rg__change {
    rg__key key;
    const rg_type *type;
    bool is_row;
    /* rows: the row as it will be (NULL: deleted) and as it was believed to be (NULL: insert) */
    rg_block *after;        /* borrowed */
    const void *before;     /* borrowed packed row */
    /* lookups: the id that enters or leaves */
    uint64_t id;
    bool add;
    bool generation;        /* of the table (value.h), for cached searches; not for the queue */
    /* set by rg__shared_mark: the entry held exactly `before` (rows): `after` may be published */
    bool verified;
    uint32_t left_ms; /* of the life of what it held, 0 unknown: `after` gets no longer one */
} rg__change;

typedef struct rg__txid { uint8_t bytes[16]; } rg__txid;

/* MARK: after the SQL, before COMMIT. Process-tier entries are dropped. EPENDING when a key has
 * queued writes (err->message tells; *pending gets the stream id as text "ms-seq", may be NULL, with a
 * ? after it when one of them is suspect). */
int rg__shared_mark(rg__shared *s, const rg__ctx *ctx, rg__txid tx, rg__change *changes, size_t n,
                    char pending[48], rg_err *err);
/* After COMMIT; never fails the caller: what cannot be told is healed when the marks expire.
 * Rows: V(after) when verified or inserted, N when deleted, else dropped. Lookups: dropped. */
void rg__shared_publish(rg__shared *s, const rg__ctx *ctx, rg__txid tx, const rg__change *changes,
                        size_t n);
/* After ROLLBACK: restores what MARK saved. */
void rg__shared_unmark(rg__shared *s, const rg__ctx *ctx, rg__txid tx, const rg__change *changes,
                       size_t n);

/* ---- what a write touches (cache/changes.c) ---- */
/* Keys (rows and cached lookups) touched by one operation, appended to a growing array; the caller
 * frees the keys. Used by flushes, transactions, the consumer and the dead letters. */
typedef struct rg__changes {
    rg__change *items;
    size_t n, cap;
    const rg_type *told;  /* the last type whose generation was added */
} rg__changes;
/* The generation of a type's table, when searches of it may be cached; most repetitions are left out. */
int rg__changes_add_generation(rg__changes *c, const rg__shared *s, const rg_type *t, rg_err *err);
/* before/after: packed rows or NULL. Lookups that do not change are left out, and those of unique
 * indexes with NULL in them. A type that Redis need not hear of (rg__type_shared), or no Redis
 * pool, adds nothing; any other adds the row's key at least. */
int rg__changes_add(rg__changes *c, const rg__shared *s, const rg_type *t, const void *before,
                    rg_block *after, rg_err *err);
/* Leaves one change of each lookup, however many ids enter and leave it: for who only tells that it
 * changes. A list of all ids would else be told of as often as rows are written. */
int rg__changes_once(rg__changes *c, rg_err *err);
void rg__changes_deinit(rg__changes *c);

/* ---- queue side: one atomic script for the stream entry and the cache (cache/overlay.c) ---- */
typedef struct rg__enqueue {
    const char *stream;    /* Redis key of the queue's stream, same tag */
    rg__slice payload;     /* the stream entry, one field "d"; none: nothing is queued, *id is no stream's */
    uint64_t max_len;      /* entries in the stream: EBACKPRESSURE at or above */
    const char *producer;  /* id of this process' producer */
    bool keep;             /* remember it for a day, even when its answer came */
    uint64_t seq;          /* of this producer, rising: the same seq is not queued twice */
    uint32_t part;         /* of the queue: which of its partitions the stream is, */
    uint32_t n_parts;      /* and how many this process takes it to have; 0 as 1 */
    const char *queue;     /* its name; may be NULL when it has one partition */
    uint32_t replica_ms;   /* not 0: wait so long for one replica to have it, */
    bool fsync;            /* or for the server's disk (needs WAITAOF) */
    rg__change *changes;
    size_t n_changes;
} rg__enqueue;
enum {
    RG__STALE_OTHER = 1,  /* the entry holds another row (current[i] gets it, one reference) */
    RG__STALE_ABSENT = 2, /* there is no entry: load it, try again */
    RG__STALE_MARKED = 3, /* an open transaction has marked it, or it waits for what is queued: try again */
};
/* All checks before the first write. Rows with `before`: the entry must hold exactly that row (V or
 * P); else nothing is queued, RG_ECONFLICT, and *stale (n_changes bytes, RG__STALE_* or 0) tells which.
 * Types that Redis does not cache get an unverified pending entry, and their rows are compared only with what
 * is queued of them already.
 * *id gets "ms-seq" (48 bytes). A lost connection is retried with the same seq until the deadline,
 * then EUNAVAILABLE with err->cls RG_CLASS_AMBIGUOUS. EDURABILITY: it is queued and has its id, but
 * what was waited for did not come. EPENDING: entries of unique values are suspect, adopt them first.
 * EDUPLICATE_KEY: *stale is 1 for the change that takes a unique
 * value of another row, applied or queued. Calls of one producer may overtake each
 * other: each (producer, seq) is remembered by itself, until a later call of this process says that
 * its answer came, or for a day. */
int rg__shared_enqueue(rg__shared *s, const rg__ctx *ctx, rg__enqueue *q, uint8_t *stale,
                       rg_block **current, char id[48], rg_err *err);

/* After the consumer's COMMIT. For each key: when its pending id is `id`, it becomes valid with a
 * TTL again (verified ones) or is dropped (uncached types, dead letters: drop = true). Deltas with
 * that id leave the list. Earlier ids count as settled too; a later write of the same key stays
 * pending, but after a dead one it will be dropped when it is applied. May be repeated. */
typedef struct rg__applied {
    rg__key key;
    const rg_type *type;
    bool is_row;
    uint32_t part; /* of the queue, whose ids these are: those of others say nothing about it */
    char id[48];  /* stream id of the last operation on this key in the batch */
    bool drop;
} rg__applied;
int rg__shared_applied(rg__shared *s, const rg__ctx *ctx, const rg__applied *keys, size_t n,
                       rg_err *err);

/* ---- whether a server can be trusted with a queue (cache/fitness.c) ---- */
typedef struct rg__fitness {
    bool known;       /* it was told; else all is false */
    bool appends;     /* has an append-only file */
    bool syncs;       /* which is synced before each answer */
    bool waitaof;     /* one can wait until it is synced */
} rg__fitness;
int rg__shared_fitness(rg__shared *s, const rg__ctx *ctx, rg__fitness *out, rg_err *err);

/* ---- leases of a queue's partitions (cache/share.c) ---- */
enum { RG__SHARE_PARTS = 256 };
typedef struct rg__share {
    uint32_t n_parts;                           /* of the queue by now */
    bool held[RG__SHARE_PARTS];                 /* ours for lease_ms from now on */
    bool fresh[RG__SHARE_PARTS];                /* since just now; it was nobody's */
    unsigned long connection[RG__SHARE_PARTS];  /* fresh: to MySQL, of who held it before; 0 none */
} rg__share;
/* Renews what `owner` holds, gives back what is over its part, takes what is free. lease_ms 0: gives
 * everything back. connections: the one to MySQL that works on each partition (0 none), or NULL. */
int rg__shared_share(rg__shared *s, const rg__ctx *ctx, const char *queue, const char *owner,
                     uint32_t lease_ms, uint32_t n_parts, const unsigned long *connections,
                     rg__share *out, rg_err *err);
/* How many partitions the queue has: as its producers see it, but not less than configured. */
int rg__shared_parts(rg__shared *s, const rg__ctx *ctx, const char *queue, uint32_t configured,
                     uint32_t *n_parts, rg_err *err);

/* ---- coherence of the process tier (cache/coherence.c) ---- */
/* A thread with two dedicated connections: CLIENT TRACKING ON BCAST REDIRECT, prefixes of rows and
 * lookups, and __redis__:invalidate. Pings each second (time-out 500 ms). While it is not known to
 * work the process tier is off. Started on first use, per process id. */
typedef struct rg__coherence rg__coherence;
rg__coherence *rg__coherence_new(rg__shared *s, rg__process *p, rg_err *err);
/* Before it starts: its number among the channels of a process tier that is one memory of several processes. */
void rg__coherence_number(rg__coherence *c, uint32_t number);
int rg__coherence_start(rg__coherence *c, rg_err *err); /* idempotent; fast when it runs already */
void rg__coherence_stop(rg__coherence *c);              /* stops and joins; idempotent */
void rg__coherence_free(rg__coherence *c);              /* stops, joins, frees */
bool rg__coherence_ok(const rg__coherence *c);

#endif
