/* SPDX-License-Identifier: MIT */
/* Worker threads for evented hosts: started on first use, per process id. */
#ifndef RG_RUN_WORKER_H
#define RG_RUN_WORKER_H

#include "base/err.h"
#include "base/list.h"

/* One job: the caller's storage, embedded in the operation. run is called on a worker. */
typedef struct rg__job {
    rg__node node;
    void (*run)(struct rg__job *job);
} rg__job;

typedef struct rg__workers rg__workers; /* shared */

rg__workers *rg__workers_new(uint32_t threads, uint32_t max_queued);
/* First in, first out. ELIMIT when max_queued wait; ECLOSED after stop. */
int rg__workers_submit(rg__workers *w, rg__job *job, rg_err *err);
/* One that ran before and goes on: not counted against max_queued. ECLOSED. */
int rg__workers_resume(rg__workers *w, rg__job *job, rg_err *err);
/* No more jobs; those waiting are run (they fail fast, as the pools are shut down); joins. */
void rg__workers_stop(rg__workers *w);
void rg__workers_free(rg__workers *w);

#endif
