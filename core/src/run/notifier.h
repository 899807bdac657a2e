/* SPDX-License-Identifier: MIT */
/* Completions of one Lua state: a list and one coalesced byte on one descriptor. */
#ifndef RG_RUN_NOTIFIER_H
#define RG_RUN_NOTIFIER_H

#include "run/op.h"

/* An operation is about to be submitted with this notifier / was not after all. */
void rg__notifier_expect(rg_notifier *n, rg_op *op);
void rg__notifier_unexpect(rg_op *op);
/* On the worker: phase DONE, onto the list, wake. */
void rg__notifier_complete(rg_op *op);
/* The handle goes: its completion is nobody's any more. */
void rg__notifier_forget(rg_op *op);
/* The operation is being freed: its reference to the notifier. */
void rg__notifier_release(rg_op *op);

#endif
