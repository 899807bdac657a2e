/* SPDX-License-Identifier: MIT */
/* What operations need of a session. */
#ifndef RG_RUN_SESSION_H
#define RG_RUN_SESSION_H

#include <regolith/session.h>

/* The row in a slot, borrowed; NULL when there is none. */
rg_block *rg__session_block(const rg_session *s, int64_t slot);

#endif
