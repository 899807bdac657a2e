/* SPDX-License-Identifier: MIT */
/* Worker threads: a bounded queue of jobs, threads that start when the first job comes. */
#include "run/worker.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/thread.h"
#include "mysql/mysql.h"

enum { MAX_THREADS = 64 };

/* Lock: guards everything below it. */
struct rg__workers {
    pthread_mutex_t lock;
    pthread_cond_t work;
    rg__node jobs;
    uint32_t queued, max_queued;
    uint32_t wanted, started;
    pid_t pid;      /* whose threads these are */
    bool stopping;
    pthread_t threads[MAX_THREADS];
};

rg__workers *rg__workers_new(uint32_t threads, uint32_t max_queued) {
    rg__workers *w = rg__calloc(1, sizeof *w);
    if (!w) return NULL;
    pthread_mutex_init(&w->lock, NULL);
    rg__cond_init(&w->work);
    rg__list_init(&w->jobs);
    w->wanted = threads > MAX_THREADS ? MAX_THREADS : threads;
    w->max_queued = max_queued;
    w->pid = getpid();
    return w;
}

static rg__job *take_job(rg__workers *w) {
    while (rg__list_empty(&w->jobs)) {
        if (w->stopping) return NULL;
        pthread_cond_wait(&w->work, &w->lock);
    }
    rg__job *job = rg__container(w->jobs.next, rg__job, node);
    rg__list_remove(&job->node);
    w->queued--;
    return job;
}

static void *work(void *arg) {
    rg__workers *w = arg;
    rg__mysql_thread_begin();
    pthread_mutex_lock(&w->lock);
    for (rg__job *job = take_job(w); job; job = take_job(w)) {
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    rg__mysql_thread_end();
    return NULL;
}

/* A forked child has none of the parent's threads, and its jobs are the parent's. */
static void check_process(rg__workers *w) {
    if (w->pid == getpid()) return;
    w->pid = getpid();
    w->started = 0;
    w->queued = 0;
    rg__list_init(&w->jobs);
}

static int start_one(rg__workers *w) {
    if (w->started >= w->wanted) return RG_OK;
    if (rg__thread_start(&w->threads[w->started], "regolith-work", work, w) != 0)
        return w->started ? RG_OK : RG_ENO_MEMORY;
    w->started++;
    return RG_OK;
}

static int submit(rg__workers *w, rg__job *job, bool bounded, rg_err *err) {
    int rc = RG_OK;
    pthread_mutex_lock(&w->lock);
    check_process(w);
    if (w->stopping) rc = rg__fail(err, RG_ECLOSED, "the engine is closed");
    else if (bounded && w->queued >= w->max_queued)
        rc = rg__fail(err, RG_ELIMIT, "%u operations wait for a worker already", w->queued);
    else if (start_one(w) < 0)
        rc = rg__fail(err, RG_ELIMIT, "a worker thread cannot be started");
    if (rc == RG_OK) {
        rg__list_add_tail(&w->jobs, &job->node);
        w->queued++;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

int rg__workers_submit(rg__workers *w, rg__job *job, rg_err *err) {
    return submit(w, job, true, err);
}

int rg__workers_resume(rg__workers *w, rg__job *job, rg_err *err) {
    return submit(w, job, false, err);
}

void rg__workers_stop(rg__workers *w) {
    pthread_mutex_lock(&w->lock);
    check_process(w);
    w->stopping = true;
    uint32_t n = w->started;
    w->started = 0;
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < n; i++) pthread_join(w->threads[i], NULL);
}

void rg__workers_free(rg__workers *w) {
    if (!w) return;
    rg__workers_stop(w);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->work);
    rg__free(w);
}
