/* SPDX-License-Identifier: MIT */
/* A timeline: what one user has written, table by table, as positions that a replica must have
 * reached before it may answer that user. A session has one, an operation of the session holds it
 * too; a token carries it to the next request. Locked inside; reference-counted. */
#ifndef RG_MYSQL_TIMELINE_H
#define RG_MYSQL_TIMELINE_H

#include "mysql/gtid.h"
#include "mysql/mysql.h"

enum { RG__NEED_GTIDS = 4 };

/* What must have been reached. */
typedef struct rg__need {
    rg__gtid gtids[RG__NEED_GTIDS];
    int n;
    bool lost;  /* the primary alone may answer: an outcome is unknown */
    bool vague; /* something was written whose position nobody told */
    uint64_t queued_ms, queued_seq; /* entry of the pool's queue that must have been applied; 0 */
} rg__need;

static inline bool rg__need_none(const rg__need *n) {
    return n->n == 0 && !n->lost && !n->vague && n->queued_ms == 0;
}

rg__timeline *rg__timeline_new(void);
rg__timeline *rg__timeline_ref(rg__timeline *t);
void rg__timeline_unref(rg__timeline *t); /* NULL is fine */
/* From now on the primary alone. */
void rg__timeline_distrust(rg__timeline *t);

/* Adds to what tables of a pool need (type NULL: all of them). Without memory the timeline trusts
 * the primary alone. */
void rg__timeline_add(rg__timeline *t, const rg__mysql_pool *pool, const rg_type *type,
                      const rg__need *more);
/* What a read of the table needs (type NULL: of any table). */
void rg__timeline_need(rg__timeline *t, const rg__mysql_pool *pool, const rg_type *type,
                       rg__need *out);
/* Puts a position in the place of what is vague. */
void rg__timeline_clarify(rg__timeline *t, const rg__mysql_pool *pool, rg__slice position);

/* ---- as text (timeline_text.c) ---- */
/* Names of a token as this process knows them; a pool that it does not know is no matter. */
typedef struct rg__timeline_names {
    const rg__mysql_pool *(*pool)(void *arg, rg__slice name);
    const rg_type *(*type)(void *arg, rg__slice name);
    void *arg;
} rg__timeline_names;
/* Appends nothing when nothing was written. */
void rg__timeline_write(rg__timeline *t, rg__buf *out);
/* Adds what a token says; false when it is none (then nothing was added). */
bool rg__timeline_read(rg__timeline *t, rg__slice token, const rg__timeline_names *names);

/* For timeline_text.c: calls fn for each entry, under the lock. */
typedef void (*rg__timeline_fn)(void *arg, const rg__mysql_pool *pool, const rg_type *type,
                                const rg__need *need);
bool rg__timeline_each(rg__timeline *t, rg__timeline_fn fn, void *arg); /* false: distrusts */

#endif
