/* SPDX-License-Identifier: MIT */
/* Regolith: an ORM engine on MySQL and Redis. This header includes all of the public C API.
 *
 * Caveats first:
 *  - Open the engine after fork, or in the process that uses it: a forked child abandons inherited
 *    connections and must not use the parent's sessions.
 *  - Thread classes are said at each call: confined (one thread at a time), shared (locked inside),
 *    pure. Nothing here ever prints, exits or touches a lua_State.
 *  - Failing calls return a negative rg_code and fill rg_err; nothing is logged and returned both. */
#ifndef REGOLITH_H
#define REGOLITH_H

#include <regolith/api.h>
#include <regolith/cache.h>
#include <regolith/engine.h>
#include <regolith/err.h>
#include <regolith/link.h>
#include <regolith/lock.h>
#include <regolith/op.h>
#include <regolith/pool.h>
#include <regolith/queue.h>
#include <regolith/request.h>
#include <regolith/row.h>
#include <regolith/schema.h>
#include <regolith/session.h>
#include <regolith/slow.h>
#include <regolith/tx.h>

#endif
