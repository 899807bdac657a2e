/* SPDX-License-Identifier: MIT */
/* Completions of one Lua state: a list and one coalesced byte on one descriptor. */
#ifndef RG_RUN_NOTIFIER_H
#define RG_RUN_NOTIFIER_H

#include "run/op.h"

/* An operation is about to be submitted with this notifier / was not after all. */
void rg__notifier_expect(rg_notifier *n, rg_op *op);
void rg__notifier_unexpect(rg_op *op);
/* On the worker: phase DONE, onto the list, wake. */
bool rg__notifier_complete(rg_op *op); /* false: it was abandoned */
/* Its notifier tells of what completes from here on when it is let go, once. For moments: no waiting between. */
rg_notifier *rg__notifier_hold(rg_op *op);
void rg__notifier_let_go(rg_notifier *n);
/* The same for who drains it right afterwards: no byte is written meanwhile. */
void rg__notifier_hush(rg_notifier *n);
void rg__notifier_unhush(rg_notifier *n);
/* Its completion is nobody's any more. True when it is done already. */
bool rg__notifier_forget(rg_op *op);
/* News that are no operation's. The reference is for as long as `ready` may be posted. */
rg_notifier *rg__notifier_ref(rg_notifier *n);
void rg__notifier_post(rg_notifier *n, rg__ready *ready);
void rg__notifier_withdraw(rg_notifier *n, rg__ready *ready); /* and gives the reference back */
void rg__notifier_unref(rg_notifier *n);
/* The operation is being freed: its reference to the notifier. */
void rg__notifier_release(rg_op *op);

#endif
