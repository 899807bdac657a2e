/* SPDX-License-Identifier: MIT */
/* A session pins the rows that a unit of work has read, so that changes are found against them.
 * The identity map itself (entities as the host language sees them) is the host's. Confined. */
#ifndef REGOLITH_SESSION_H
#define REGOLITH_SESSION_H

#ifndef __RG_CDEF__
#include <regolith/engine.h>
#endif

typedef struct rg_session rg_session;

/* Holds a reference to the engine. */
RG_API rg_session *rg_session_new(rg_engine *engine, rg_err *err);
RG_API void rg_session_free(rg_session *s);
/* Lets go of all rows; views become invalid. */
RG_API void rg_session_clear(rg_session *s);
/* What the process cache knows; never waits. RG_GET_HIT pins the row and fills out. */
RG_API int rg_session_peek(rg_session *s, uint32_t type, double id, rg_view *out);
/* The whole way down (process cache, Redis, MySQL), blocking the caller: for blocking hosts.
 * RG_GET_HIT, RG_GET_ABSENT, or a negative code. */
RG_API int rg_session_get(rg_session *s, uint32_t type, double id, rg_view *out, rg_err *err);
/* What this session has written, as text for another session of the same user, here or in another
 * process: that one reads from a replica only what has reached it. Empty when nothing was written or
 * no pool has replicas. Borrowed until the next call. */
RG_API const char *rg_session_token(rg_session *s, size_t *len);
/* Adds what a token says: 1. A text that is none: 0, and only primaries answer from now on. */
RG_API int rg_session_follow(rg_session *s, const char *token, size_t len);
/* From now on only primaries answer. */
RG_API void rg_session_primary(rg_session *s);
/* Pins one more row (a reference of its own); the slot, or negative. */
RG_API int64_t rg_session_pin(rg_session *s, rg_block *row);
/* Replaces the row in a slot (after a flush or reload); NULL empties it. */
RG_API int rg_session_repin(rg_session *s, uint32_t slot, rg_block *row);
/* The row in a slot; 1, or 0 when empty. */
RG_API int rg_session_row(rg_session *s, uint32_t slot, rg_view *out);
/* Do two slots hold the same values? */
RG_API int rg_session_same(const rg_session *s, uint32_t a, uint32_t b);
/* Does the builder hold other values than the row in the slot? 1 yes, 0 no, negative EINVALID. */
RG_API int rg_session_differs(rg_session *s, uint32_t slot, rg_builder *b, rg_err *err);

#endif
