/* SPDX-License-Identifier: MIT */
/* Writing although Redis cannot be told (outage = available), without anybody reading what was replaced.
 *
 * Two tables in the database that is written:
 *   _regolith_outage(redis PK, open, number)  one row a Redis pool: is an outage open, and which one
 *   _regolith_inval(number PK, redis, name)   keys of what was committed without telling, in order
 *
 * Who reads trusts Redis and the process cache for RG__TRUST_MS from the beginning of a look that found
 * no open outage (checked every half of it, by one of the readers). Who cannot mark opens an outage, and
 * waits until no such trust can be left; only then it commits, with the keys in the same transaction and
 * the outage's row locked (shared) until then. The first one who finds an outage open and Redis there
 * heals: it locks the row, so that no such transaction is under way, drops what the keys name, and closes
 * it, in one transaction. Until it has, nobody trusts Redis, those who never noticed the outage included;
 * and who trusts again sees by the number that there was one, and empties the process cache.
 *
 * Time is each process' own monotonic clock; it counts spans only. */
#ifndef RG_UNIT_OUTAGE_H
#define RG_UNIT_OUTAGE_H

#include "unit/store.h"

enum {
    RG__TRUST_MS = 1000,
    RG__TRUST_MARGIN_MS = 100, /* clocks run at about the same speed */
};

/* Of one MySQL pool with one Redis pool. */
struct rg__outage {
    bool watched;           /* some type is written although Redis is away; constant */
    pthread_mutex_t lock;   /* one looks at a time; guards what follows, but for seen_ms */
    atomic_llong seen_ms;   /* when the last look began that found none open; 0: never */
    atomic_llong tried_ms;  /* healing was tried last */
    uint64_t number;        /* of outages, as last seen */
    bool known;
    uint64_t waited;        /* the outage whose wait is over in this process */
    atomic_ullong server;   /* that the Redis pool was told the MySQL pool is connected to */
};

int rg__outages_new(rg__store *s, rg_err *err);
void rg__outages_free(rg__store *s);

/* May what caches say of this type be believed? Without asking anybody. */
bool rg__trusted(const rg__store *s, const rg_type *t);
/* The same; asks the database when that was too long ago, and heals. */
bool rg__trust(rg__store *s, const rg__ctx *ctx, const rg_type *t);

/* After MARK failed with `why`, which becomes the error when some change is of a type that is strict:
 * has the changes of one Redis pool told later, as part of the transaction open on conn, which belongs to
 * the MySQL pool. Those of other MySQL pools are left out. */
int rg__outage_cover(rg__store *s, const rg__ctx *ctx, int mysql_pool, int redis_pool,
                     rg__mysql *conn, const rg__changes *c, rg_err *err);
/* May these be covered at all: is Redis away, and no type of theirs strict? */
bool rg__outage_may_cover(const rg__changes *c, int rc);

/* Tells Redis when the MySQL pool of a type is connected to another server than before, which may lack what
 * was committed last. After a read from it, before that fills anything; costs nothing as a rule. */
void rg__witness(rg__store *s, const rg__ctx *ctx, const rg_type *t);

/* ---- outage_table.c ---- */
typedef struct rg__outage_row {
    bool open;
    uint64_t number;
} rg__outage_row;
/* tail: " FOR UPDATE" and the like. Without a row, or its table: closed, number 0. */
int rg__outage_read(rg__mysql *c, const rg__ctx *ctx, const char *redis, const char *tail,
                    rg__outage_row *out, rg_err *err);
/* Outside of a transaction: makes the tables, opens the outage when it is not. */
int rg__outage_open(rg__mysql *c, const rg__ctx *ctx, const char *redis, rg_err *err);
int rg__outage_close(rg__mysql *c, const rg__ctx *ctx, const char *redis, rg_err *err);
int rg__inval_add(rg__mysql *c, const rg__ctx *ctx, const char *redis, const rg__changes *changes,
                  int mysql_pool, rg_err *err);
/* The next keys after *number (moved on); the result's only column holds them. */
int rg__inval_next(rg__mysql *c, const rg__ctx *ctx, const char *redis, uint64_t *number,
                   rg__result **out, rg_err *err);
int rg__inval_clear(rg__mysql *c, const rg__ctx *ctx, const char *redis, rg_err *err);

#endif
