/* SPDX-License-Identifier: MIT */
/* Links: an event loop's own way to Redis for reads by id.
 *
 * An operation costs a hand-over to a worker and back, which is more than a plain read of Redis does. So a loop
 * may carry such reads itself, over one connection that it makes: all that come in a turn go as one question, and
 * what is answered by a clean hit is done. Everything else (misses, entries that are marked or of another epoch,
 * a lost or slow server) goes on to a worker, as if it had been submitted there at first.
 *
 * The engine says what to send and reads what came; it neither owns the socket nor waits. Confined to the
 * thread of the loop, which is that of the notifier. */
#ifndef REGOLITH_LINK_H
#define REGOLITH_LINK_H

#ifndef __RG_CDEF__
#include <regolith/op.h>
#endif

typedef struct rg_link rg_link;

/* Of a Redis pool, by number. NULL with ECONFIG when a plain socket would not do (TLS, a host's name). */
RG_API rg_link *rg_link_new(rg_engine *engine, rg_notifier *n, uint32_t pool, rg_err *err);
/* What it has goes on to the workers. */
RG_API void rg_link_free(rg_link *link);
/* The path of a socket, or an address and its port. */
RG_API const char *rg_link_place(const rg_link *link, uint32_t *port);
/* Has Redis answered lately, by whichever way? */
RG_API int rg_link_worthwhile(const rg_link *link);
/* The pool's number of a read by id that a link may carry; -1: none may. */
RG_API int rg_op_link(const rg_op *op);

/* A connection was made; rg_link_out has the introduction. */
RG_API int rg_link_begin(rg_link *link, rg_err *err);
/* It is over, or is to be: what was asked goes on to the workers. */
RG_API void rg_link_lost(rg_link *link);
/* Takes an operation, as rg_op_submit: milliseconds after which it is to be given up (rg_link_leave). 0: not
 * now, submit it. Negative as there. */
RG_API int rg_link_submit(rg_link *link, rg_op *op, uint32_t tag, uint32_t timeout_ms, rg_err *err);
/* Not answered in time: it goes on to the workers. */
RG_API void rg_link_leave(rg_link *link, rg_op *op);
/* What to send now, valid until the next call. NULL: nothing, and *len tells whether an answer is to come (not 0),
 * after which there may be something. */
RG_API const char *rg_link_out(rg_link *link, size_t *len);
/* Bytes that came. 1: ask for rg_link_out; 0: more is to come; negative: close the connection. Drain the
 * notifier next: no byte tells of what is done by this. */
RG_API int rg_link_in(rg_link *link, const char *p, size_t n);
/* For how long it has waited in vain, ms; 0: it does not. */
RG_API uint32_t rg_link_late(const rg_link *link);

#endif
