/* SPDX-License-Identifier: MIT */
/* What operations need of a session. */
#ifndef RG_RUN_SESSION_H
#define RG_RUN_SESSION_H

#include <regolith/session.h>
#include "run/tx.h"

/* The row in a slot, borrowed; NULL when there is none. */
rg_block *rg__session_block(const rg_session *s, int64_t slot);
const rg__txs *rg__session_txs(const rg_session *s);
/* The row pinned last is one of a transaction's own: a restore empties its slot. */
void rg__session_own(rg_session *s, int64_t slot);

#endif
