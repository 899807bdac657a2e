/* SPDX-License-Identifier: MIT */
/* Worker threads for evented hosts: started on first use, per process id.
 *
 * The regular ones run jobs in the order in which they came. Two things must not wait behind others:
 * jobs that hold what others wait for (a statement on a borrowed connection, its return: behind jobs that
 * wait for a connection they would wait for ever), and quick jobs behind slow ones. So devoted threads take the
 * former, as many as there are of them, and further threads, up to a bound, any job that has waited for a
 * while. */
#ifndef RG_RUN_WORKER_H
#define RG_RUN_WORKER_H

#include "base/err.h"
#include "base/list.h"

/* One job: the caller's storage, embedded in the operation. run is called on a worker. */
typedef struct rg__job {
    rg__node node;
    void (*run)(struct rg__job *job);
    bool holds;        /* something that others may wait for */
    int64_t queued_ms; /* monotonic */
} rg__job;

typedef struct rg__workers rg__workers; /* shared */

/* threads: regular ones; most: with the further ones. */
rg__workers *rg__workers_new(uint32_t threads, uint32_t most, uint32_t max_queued);
/* ELIMIT when max_queued wait; ECLOSED after stop. Jobs that hold something are always taken. */
int rg__workers_submit(rg__workers *w, rg__job *job, rg_err *err);
/* One that ran before and goes on: not counted against max_queued. ECLOSED. */
int rg__workers_resume(rg__workers *w, rg__job *job, rg_err *err);
/* Threads there are, and jobs that wait. */
void rg__workers_stats(rg__workers *w, uint32_t *threads, uint32_t *queued);
/* Takes out those of the waiting jobs that hold nothing and that fn wants, first one first. fn runs under the queue's lock:
 * it must not wait. */
void rg__workers_take(rg__workers *w, bool (*fn)(rg__job *job, void *arg), void *arg);
/* No more jobs; those waiting are run (they fail fast, as the pools are shut down); joins. */
void rg__workers_stop(rg__workers *w);
void rg__workers_free(rg__workers *w);

#endif
