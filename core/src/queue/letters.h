/* SPDX-License-Identifier: MIT */
/* Dead letters in _regolith_dead, and what a consumer remembers of the unresolved ones. */
#ifndef RG_QUEUE_LETTERS_H
#define RG_QUEUE_LETTERS_H

#include "base/map.h"
#include "queue/ledger.h"

/* One letter to be written. */
typedef struct rg__letter {
    rg__pos id;          /* of the stream entry */
    uint32_t index;      /* of the operation in it */
    const char *entity;  /* "" for a whole entry */
    uint64_t entity_id;
    const char *operation; /* "insert", "update", "delete", "entry" */
    rg__slice payload;
    const rg_err *error;
    bool parked;         /* waits only for an earlier letter of the same row */
} rg__letter;

const char *rg__write_name(int write);
/* The name that an operation's letters go by: that of the type here, else the sender's. */
const char *rg__qop_entity(const rg__qdecoded *op);
/* Whether the operation can be applied here at all: it was read, and its entity lives in the
 * queue's database. A permanent error when not. */
int rg__qop_check(const rg__queue *q, const rg__qdecoded *op, rg_err *err);
/* BEGIN and the ledger of the partition that the letter is of, which *part becomes (deinit it). */
int rg__letter_begin(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t number,
                     rg__queue *part, rg_err *err);
/* Writes the letter in the open transaction; *number is the one it is given. One that a replay of
 * the stream makes again replaces the former. */
int rg__letter_add(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, const rg__letter *l,
                   uint64_t *number, rg_err *err);

/* Appends " FROM the letters' table WHERE they are this queue's". */
void rg__letters_from(rg__buf *sql, const rg__queue *q);
/* How many there are; 0 when there is no table yet. */
int rg__letters_count(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t *n,
                      rg_err *err);
/* Those of this partition alone. */
int rg__letters_count_part(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t *n,
                           rg_err *err);
/* "there is no dead letter 7": RG_EINVALID. */
int rg__letter_missing(uint64_t number, rg_err *err);

/* Appends the cache keys that an operation touches: its row, and the lookups that it enters and
 * leaves. Only the keys: `before` and `after` stay NULL. */
int rg__qop_keys(const rg__queue *q, const rg__qdecoded *op, rg__changes *out, rg_err *err);

/* Rows that have letters, whose later operations must wait for them. That a row's letters were
 * resolved elsewhere is found out when the row is met (rg__dead_check). */
typedef struct rg__dead {
    rg__map *rows;     /* entity, NUL, id */
    uint64_t last;     /* highest letter number that was read */
} rg__dead;

int rg__dead_init(rg__dead *d, rg_err *err);
void rg__dead_deinit(rg__dead *d);
/* Reads the letters that are newer than the last one read. */
int rg__dead_load(rg__dead *d, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg_err *err);
/* Takes note of a letter that was written just now. */
int rg__dead_note(rg__dead *d, const char *entity, uint64_t id, rg_err *err);
/* The row has letters, as far as is known here. */
bool rg__dead_has(const rg__dead *d, const char *entity, uint64_t id);
/* Asks the database whether it still has: 1 or 0, and forgets it then. */
int rg__dead_check(rg__dead *d, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx,
                   const char *entity, uint64_t id, rg_err *err);

#endif
