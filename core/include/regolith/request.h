/* SPDX-License-Identifier: MIT */
/* What belongs to one request of a server and ends with it, however it ends: operations under way are
 * abandoned (a read that runs is stopped on the server), transactions that are open are rolled back by closing their
 * connections, borrowed connections are closed, locks given back.
 * For servers that kill a coroutine without running any of its code: the collector would do the same, but
 * later. Everything here is confined to the thread of the request. */
#ifndef REGOLITH_REQUEST_H
#define REGOLITH_REQUEST_H

#ifndef __RG_CDEF__
#include <regolith/lock.h>
#include <regolith/tx.h>
#endif

typedef struct rg_request rg_request;

/* With two references: the handle's, and that of whoever will call rg_request_end. */
RG_API rg_request *rg_request_new(void);
/* Ends it and gives one reference back; an argument and result that servers' clean-up lists take. */
RG_API void rg_request_end(void *request);
RG_API void rg_request_free(rg_request *request); /* the handle's reference */
RG_API int rg_request_ended(const rg_request *request);
/* Belongs to it from now on, until it is freed or left. */
RG_API void rg_request_add_op(rg_request *request, rg_op *op);
RG_API void rg_request_add_lease(rg_request *request, rg_lease *lease);
RG_API void rg_request_add_tx(rg_request *request, rg_tx *tx);
RG_API void rg_request_add_lock(rg_request *request, rg_lock *lock);
RG_API void rg_op_leave(rg_op *op);

#endif
