/* SPDX-License-Identifier: MIT */
/* Locks between processes: leases in Redis with fencing tokens, and names for MySQL's own.
 *
 * A lock in Redis ends by itself ttl_ms after it was taken or renewed last; a thread of the engine renews
 * it while the handle lives. It can be lost: when this process stands still for longer than the ttl, when
 * Redis cannot be reached for so long, when Redis loses its data. Then somebody else may have it while its
 * former owner still works: what must not suffer from that compares tokens. A later owner's token is
 * greater than every token before it, of all locks of the prefix, as long as Redis keeps its data or its
 * clock does not go back. */
#ifndef REGOLITH_LOCK_H
#define REGOLITH_LOCK_H

#ifndef __RG_CDEF__
#include <regolith/op.h>
#endif

typedef struct rg_lock rg_lock; /* shared; owned by its handle */

typedef struct rg_lock_opts {
    uint32_t size;     /* sizeof(rg_lock_opts) */
    const char *redis; /* name of the Redis pool, NULL: "default"; borrowed until return */
    uint32_t ttl_ms;   /* of the lease, 50 to 86,400,000 */
    uint32_t wait_ms;  /* how long to wait for it; 0: not at all */
    int32_t renew;     /* 1: renewed every third of the ttl while the handle lives */
    uint32_t max_ms;   /* renewed no longer than this after it was taken; 0: no such bound */
} rg_lock_opts;

/* Takes a lock. rg_op_number: 1 taken, 0 somebody else has it. The operation holds no worker while it
 * waits; its time-out should be beyond wait_ms. */
RG_API rg_op *rg_op_lock(rg_engine *engine, const char *name, size_t len, const rg_lock_opts *opts,
                         rg_err *err);
RG_API rg_lock *rg_op_lock_take(rg_op *op); /* from a DONE one that was taken; once. Or NULL */
/* The fencing token, an integer below 2^53. */
RG_API double rg_lock_token(const rg_lock *lock);
/* How long it is surely held still, from here on; 0: lost or given back, for good. Never waits. */
RG_API double rg_lock_left_ms(rg_lock *lock);
RG_API int rg_lock_lost(rg_lock *lock); /* 1: lost, not given back */
/* Renews it now, with another ttl when ttl_ms is not 0. LOCK_LOST. */
RG_API rg_op *rg_op_lock_extend(rg_lock *lock, uint32_t ttl_ms, rg_err *err);
/* Gives it back. LOCK_LOST when it was not held any more. It is not held from here on; when Redis did not answer
 * the engine goes on telling it, and another release is done as soon as one answer came. */
RG_API rg_op *rg_op_lock_release(rg_lock *lock, rg_err *err);
/* The tag comes out of the notifier when the lock is lost. 0: it is lost already. Once. */
RG_API int rg_lock_tell(rg_lock *lock, rg_notifier *n, uint32_t tag);
/* The handle goes: what is held is given back by the engine's thread. Never waits. */
RG_API void rg_lock_free(rg_lock *lock);

/* A name for GET_LOCK, which takes 64 characters: a longer one becomes its beginning and a digest. Pure. */
RG_API void rg_lock_sql_name(const char *name, size_t len, char out[65]);

#endif
