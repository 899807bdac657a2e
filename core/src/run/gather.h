/* SPDX-License-Identifier: MIT */
/* Reads of several operations in one. */
#ifndef RG_RUN_GATHER_H
#define RG_RUN_GATHER_H

#include "run/op.h"

/* On a worker: runs the operation together with others that wait for a worker and read alike, and
 * finishes them all. False when there are none: nothing was done. */
bool rg__gather(rg_op *op);

#endif
