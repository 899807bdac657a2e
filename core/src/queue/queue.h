/* SPDX-License-Identifier: MIT */
/* The write-behind queue: operations as bytes, enqueue, the consumer with its ledger, dead letters.
 * consistency.md 1 is the protocol; one partition a queue, a queue per MySQL pool.
 *
 * Redis: stream "{P}:q:<pool>", one entry a flush, field d = payload (queue/payload.h).
 * MySQL (made on first use, in the pool's database):
 *   _regolith_ledger(queue PK, id_ms, id_seq, applied_ops, updated_at)
 *   _regolith_dead(number AUTO_INCREMENT PK, queue, id_ms, id_seq, op_index, entity, entity_id,
 *                  operation, payload, errno, sqlstate, error, tries, at, state; UNIQUE per queue+id+op)
 * Invariants: an entry with id <= ledger has been applied or is in _regolith_dead, in the same
 * transaction that moved the ledger; the ledger row is locked first in each transaction, which
 * serialises rival consumers and resolves unknown commits. */
#ifndef RG_QUEUE_QUEUE_H
#define RG_QUEUE_QUEUE_H

#include <regolith/op.h>

#include <pthread.h>
#include <stdatomic.h>

#include "base/kill.h"
#include "cache/cache.h"
#include "mysql/mysql.h"

/* One structured operation. */
typedef struct rg__qop {
    uint8_t write;        /* rg_write: insert, update, delete */
    const rg_type *type;
    uint64_t id;
    const uint8_t *mask;  /* update: columns that change (n_columns bytes) */
    const void *row;      /* insert, update: packed row that holds the values; borrowed */
    const void *before;   /* update, delete: the row as it was believed to be; borrowed */
    uint64_t expected;    /* version column's value required, when the type has one */
    const uint8_t *expect;     /* update, delete: columns that are compared; NULL: none */
    const void *expected_row;  /* with their values; borrowed */
    const void *current;       /* of a dead letter: the row that was met; borrowed, may be NULL */
} rg__qop;

/* ---- op.c: payload bytes. Self-describing, so that producers and consumers of different schema
 * versions understand each other: per payload a dictionary of the tables used with names and kinds
 * of their columns, then the operations with values by column. Checked like any untrusted input. */
int rg__qop_encode(const rg__qop *ops, size_t n, rg__buf *out, rg_err *err);

/* A decoded payload. Each operation is either good, or carries why it cannot be applied (unknown
 * table or column, value that no longer fits): a permanent error for a dead letter. */
typedef struct rg__qdecoded {
    uint8_t write;
    const rg_type *type;  /* NULL when the table is unknown */
    const char *entity;   /* name as in the payload; borrowed from the arena */
    uint64_t id;
    rg_block *row;        /* insert: the row; update: a row holding the masked columns; owned */
    uint8_t *mask;        /* update; borrowed from the arena */
    bool has_expected;
    uint64_t expected;
    uint8_t *expect;      /* columns that are compared, NULL: none; borrowed from the arena */
    rg_block *expected_row; /* with their values; owned */
    rg_block *current;    /* the row that was met instead, as far as it fits here; owned */
    rg_block *before;     /* only the values of columns that are in cached indexes; may be NULL */
    rg_err *error;        /* NULL when good; owned */
    rg__slice table, raw; /* its table's part of the dictionary and its own bytes (payload.h) */
} rg__qdecoded;
typedef struct rg__payload {
    rg__qdecoded *ops;
    size_t n;
    rg__buf arena;
} rg__payload;
/* ECORRUPT when the bytes are not a payload at all. The bytes are borrowed until deinit. */
int rg__payload_decode(const rg__schema *schema, rg__slice bytes, rg__payload *out, rg_err *err);
void rg__payload_deinit(rg__payload *p);
/* Appends operation i as a payload of its own (for its dead letter). */
void rg__payload_alone(const rg__payload *p, size_t i, rg__buf *out);

/* ---- what a queue stands on ---- */
enum { RG__PARTS = 256 }; /* partitions of a queue, at most */

/* How a queue is configured; see rg_queue_opts. */
typedef struct rg__queue_rules {
    int on_split, durability, when_full;
    uint64_t max_len, max_age_ms, max_bytes;
    uint64_t retain_ms;
    uint64_t events_max_len, events_keep_ms; /* of streams that no group reads */
    uint32_t wait_ms, replica_ms;
    int persistence; /* rg_unfit */
} rg__queue_rules;

/* What is known of a stream: measured, and told to this process (tail.c). */
typedef struct rg__queue_gauge {
    atomic_llong measured_ms; /* 0: never */
    atomic_ullong age_ms, bytes;
    pthread_mutex_t lock;     /* of what follows */
    uint64_t told_ms, told_seq, told_epoch; /* the last entry that was acknowledged, and Redis' epoch then */
    uint64_t owed_ms, owed_seq; /* the last one of an earlier epoch: is it still there? */
    uint64_t lost_ms, lost_seq; /* it was not, and MySQL has not had it */
} rg__queue_gauge;

/* One partition of a queue, by which everything below works; partition 0 stands for the queue where
 * there is only one. Letters and settings are the whole queue's. */
typedef struct rg__queue {
    const char *name;              /* MySQL pool name; of all partitions */
    char *stream;                  /* Redis key */
    char *ledger;                  /* name of its row in _regolith_ledger */
    uint32_t part;                 /* its number */
    uint32_t n_parts;              /* of the queue, as this process is configured */
    rg__queue_rules rules;
    struct rg__queue_gauge *gauge; /* of this partition; borrowed; NULL: none */
    rg__mysql_pool *mysql;         /* borrowed */
    rg__shared *shared;            /* borrowed: the Redis pool whose cache overlays these entries */
    const rg__schema *schema;      /* borrowed */
    atomic_bool outbox;            /* its tables were seen by this process */
} rg__queue;

/* ---- fit.c: whether a queue may be used ---- */
/* ECONFIG when its Redis is unfit and that is to be refused. */
int rg__queue_fit(const rg__queue *q, const rg__ctx *ctx, rg_err *err);
/* parts: the partitions of each. */
int rg__queue_warnings(const rg__queue *queues, rg__queue *const *parts, size_t n, const rg__ctx *ctx,
                       rg__result **out, rg_err *err);
/* Age and memory against their bounds, as they were a moment ago: EBACKPRESSURE. */
int rg__queue_room(const rg__queue *q, const rg__ctx *ctx, rg_err *err);
/* Has everything from an entry on applied again, as far as it is kept: EGAP when it is not. *n:
 * partitions that went back. (fit.c) */
int rg__queue_replay(const rg__queue *q, const rg__ctx *ctx, const char *from, uint64_t *n,
                     rg_err *err);
/* Goes on behind what is gone: *n partitions had a gap. */
int rg__queue_accept_gap(const rg__queue *q, const rg__ctx *ctx, uint64_t *n, rg_err *err);

/* ---- tail.c: what was acknowledged and is gone ---- */
/* An entry was acknowledged. The first time in another epoch of Redis it looks for the last one of before:
 * where neither the stream nor the ledger has it, regolith_queue_lost_total counts. */
void rg__queue_told(const rg__queue *q, const rg__ctx *ctx, const char *id);
/* Whether that was so, and of which entry. */
bool rg__queue_lost(const rg__queue *q, char id[48]);

/* ---- parts.c: partitions ----
 * Partition 0 has the queue's own name, others "<name>:<number>". */
/* Another partition of the same queue; the caller frees its names with rg__queue_deinit. */
int rg__queue_part(const rg__queue *q, uint32_t part, rg__queue *out, rg_err *err);
void rg__queue_deinit(rg__queue *q);
/* Calls fn for the first n partitions, until one fails. */
typedef int (*rg__part_fn)(const rg__queue *part, const rg__ctx *ctx, void *arg, rg_err *err);
int rg__each_part(const rg__queue *q, uint32_t n, const rg__ctx *ctx, rg__part_fn fn, void *arg,
                  rg_err *err);
/* The partition of a row: by the value that its type's queue_by names (before for deletes), else by
 * its group. Values count, not entities: a team and the users in it go together. */
uint32_t rg__part_of(const rg_type *t, const void *row, uint32_t n_parts);

/* ---- consumer.c ---- */
typedef struct rg__consumer rg__consumer;
typedef struct rg__consumer_config {
    uint32_t max_batch, max_hold_ms, max_tries;
    uint32_t max_deaths; /* of processes until an entry is a dead letter; 0: any number */
} rg__consumer_config;
rg__consumer *rg__consumer_new(const rg__queue *q, const rg__consumer_config *cfg, rg_err *err);
void rg__consumer_free(rg__consumer *c);
/* One batch; see rg_op_consume. *done: operations settled. Any failure leaves the entries where
 * they are; err->retriable tells whether the next step may do better. */
int rg__consumer_step(rg__consumer *c, const rg__ctx *ctx, uint32_t max_wait_ms, uint64_t *done,
                      rg_err *err);
/* Says that its partition is leased from now on, under a fence of its own: counts that up in the
 * ledger first. Once a later fence is met there it is lost, and its steps do nothing. */
int rg__consumer_fence(rg__consumer *c, const rg__ctx *ctx, rg_err *err);
bool rg__consumer_lost(const rg__consumer *c);
/* Forgets what it has read ahead: somebody else may have been at work. */
void rg__consumer_distrust(rg__consumer *c);
/* Called before the first transaction on another connection to MySQL than the last one's. */
void rg__consumer_on_connection(rg__consumer *c, void (*fn)(void *arg, unsigned long id), void *arg);
/* Up to where it knows the stream to be applied; false: it does not know. */
bool rg__consumer_at(const rg__consumer *c, uint64_t *ms, uint64_t *seq);
/* Monotonic ms until which it had better be left alone, as it waits for another partition; 0. */
int64_t rg__consumer_held_until(const rg__consumer *c);
typedef struct rg__consumer_totals {
    uint64_t applied, dead, batches, retries, lag;
} rg__consumer_totals;
rg__consumer_totals rg__consumer_totals_get(const rg__consumer *c);
/* Hands out the numbers of the dead letters that it has written since the last time. */
int rg__consumer_letters(rg__consumer *c, int (*take)(void *arg, uint64_t number), void *arg);

/* ---- crew.c: a consumer of a whole queue ----
 * It works on the partitions that it holds, by leases when there are several of them or it is told
 * to; without, on all of them. Leases only spare work: who owns a partition is told by the ledger. */
typedef enum rg__leasing { RG__LEASE_SEVERAL = 0, RG__LEASE_ALWAYS, RG__LEASE_NEVER } rg__leasing;
typedef struct rg__crew_config {
    rg__consumer_config consumer;
    rg__leasing leasing;
    uint32_t lease_ms;  /* after so long without a sign of life others take over */
    uint32_t parallel;  /* partitions worked on at the same time, at most */
} rg__crew_config;
typedef struct rg__crew rg__crew;
rg__crew *rg__crew_new(const rg__queue *q, const rg__crew_config *cfg, rg_err *err);
void rg__crew_free(rg__crew *c); /* leases that were not given back expire */
/* As rg__consumer_step; several batches when several partitions have some. */
int rg__crew_step(rg__crew *c, const rg__ctx *ctx, uint32_t max_wait_ms, uint64_t *done,
                  rg_err *err);
/* Gives its leases back, so that others need not wait for their end. */
int rg__crew_leave(rg__crew *c, const rg__ctx *ctx, rg_err *err);
rg__consumer_totals rg__crew_totals_get(rg__crew *c);
int rg__crew_letters(rg__crew *c, int (*take)(void *arg, uint64_t number), void *arg);
/* Partitions held now, and how many there are. */
uint32_t rg__crew_held(rg__crew *c, uint32_t *n_parts);

/* ---- admin ---- */
/* Results as rg__result with the columns that regolith/queue.h names. */
int rg__queue_status(const rg__queue *queues, size_t n, const rg__ctx *ctx, rg__result **out,
                     rg_err *err);
int rg__dead_list(const rg__queue *q, const rg__ctx *ctx, uint32_t limit, rg__result **out,
                  rg_err *err);
int rg__dead_show(const rg__queue *q, const rg__ctx *ctx, uint64_t number, rg__result **out,
                  rg_err *err);
/* number 0: all, in order. One that follows an earlier letter of the same row has to wait for it:
 * ECONFLICT when it was asked for by number. *left: how many there are afterwards. */
int rg__dead_retry(const rg__queue *q, const rg__ctx *ctx, uint64_t number, uint64_t *left,
                   rg_err *err);
int rg__dead_drop(const rg__queue *q, const rg__ctx *ctx, uint64_t number, uint64_t *left,
                  rg_err *err);
/* What a letter is to become. */
typedef struct rg__edit {
    int write;              /* 0: as it is */
    const rg_type *type;    /* of the values; NULL: none are given */
    const rg_block *values; /* holds those of the mask */
    const uint8_t *mask;
    bool force;             /* update, delete: whatever version the row has now */
} rg__edit;
/* Changes a letter. EINVALID when it cannot be read, or lacks what the write needs. (edit.c) */
int rg__dead_edit(const rg__queue *q, const rg__ctx *ctx, uint64_t number, const rg__edit *wish,
                  rg_err *err);

/* Pauses or resumes all partitions: their consumers apply nothing while they are paused. */
int rg__queue_pause(const rg__queue *q, const rg__ctx *ctx, bool paused, rg_err *err);
/* Until the ledger has reached what is the stream's end now; ETIMEOUT tells how far it is. Of one
 * partition, or of all that the queue has. */
int rg__queue_drained(const rg__queue *q, const rg__ctx *ctx, rg_err *err);
int rg__queue_drained_all(const rg__queue *q, const rg__ctx *ctx, rg_err *err);
/* Position of the ledger as "ms-seq" (48 bytes). */
int rg__ledger_position(const rg__queue *q, const rg__ctx *ctx, char id[48], rg_err *err);

#endif
