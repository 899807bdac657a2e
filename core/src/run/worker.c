/* SPDX-License-Identifier: MIT */
/* Worker threads: a bounded queue of jobs, threads that start when a job comes and finds none idle. */
#include "run/worker.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/thread.h"
#include "mysql/mysql.h"

enum {
    MAX_THREADS = 320,
    MAX_DEVOTED = 64, /* beyond what was asked for */
    PATIENCE_MS = 20 /* a job that waited so long is taken by a further thread */
};

/* Regular threads take any job; further ones what waited too long; devoted ones only what holds something:
 * all others may be waiting for just that. */
typedef struct gang {
    pthread_cond_t work;
    uint32_t started, idle, most;
} gang;

/* Lock: guards everything below it. */
struct rg__workers {
    pthread_mutex_t lock;
    rg__node jobs;    /* first come first */
    rg__node holding; /* jobs that hold something */
    uint32_t queued, max_queued; /* in jobs */
    uint32_t n_holding;
    gang regular, further, devoted;
    bool called;       /* a regular thread is on its way: it sees whatever comes until then */
    uint32_t watching; /* further threads that know until when */
    int pid;          /* whose threads these are */
    bool stopping;
    uint32_t n_threads;
    pthread_t threads[MAX_THREADS];
};

static void gang_init(gang *g, uint32_t most) {
    *g = (gang){.most = most};
    rg__cond_init(&g->work);
}

rg__workers *rg__workers_new(uint32_t threads, uint32_t most, uint32_t max_queued) {
    rg__workers *w = rg__calloc(1, sizeof *w);
    if (!w) return NULL;
    if (most > MAX_THREADS - MAX_DEVOTED) most = MAX_THREADS - MAX_DEVOTED;
    if (threads > most) threads = most;
    pthread_mutex_init(&w->lock, NULL);
    gang_init(&w->regular, threads);
    gang_init(&w->further, most - threads);
    gang_init(&w->devoted, MAX_DEVOTED);
    rg__list_init(&w->jobs);
    rg__list_init(&w->holding);
    w->max_queued = max_queued;
    w->pid = rg__pid();
    return w;
}

/* ---- threads; under the lock ---- */

static void *work_regular(void *arg);
static void *work_further(void *arg);
static void *work_devoted(void *arg);

static bool start_one(rg__workers *w, gang *g) {
    if (w->stopping || g->started >= g->most || w->n_threads >= MAX_THREADS) return false;
    void *(*work)(void *) = g == &w->regular   ? work_regular
                            : g == &w->further ? work_further
                                               : work_devoted;
    if (rg__thread_start(&w->threads[w->n_threads], "regolith-work", work, w) != 0) return false;
    g->started++;
    w->n_threads++;
    return true;
}

/* One at a time: who comes calls the next when there is more than it takes. What comes in a burst is so
 * gathered by few, and costs few calls of the system. */
static void call_regular(rg__workers *w) {
    if (w->called || w->regular.idle == 0) return;
    w->called = true;
    pthread_cond_signal(&w->regular.work);
}

/* Where the regular threads are busy, further ones watch how long it takes. */
static void call_somebody(rg__workers *w) {
    uint32_t pending = w->queued + w->n_holding;
    if (pending > w->regular.idle && start_one(w, &w->regular)) return;
    call_regular(w);
    if (pending <= w->regular.idle) return;
    if (w->n_holding > w->devoted.idle) start_one(w, &w->devoted);
    if (w->n_holding > 0) pthread_cond_signal(&w->devoted.work);
    if (w->queued > 0 && w->further.idle == 0) start_one(w, &w->further);
    if (w->n_holding > 0 || w->watching == 0) pthread_cond_signal(&w->further.work);
}

/* ---- taking; under the lock ---- */

static rg__job *first(rg__node *list) {
    return rg__list_empty(list) ? NULL : rg__container(list->next, rg__job, node);
}

static rg__job *take_holding(rg__workers *w) {
    rg__job *job = first(&w->holding);
    if (!job) return NULL;
    rg__list_remove(&job->node);
    w->n_holding--;
    return job;
}

static rg__job *take_any(rg__workers *w) {
    rg__job *job = take_holding(w);
    if (job) return job;
    job = first(&w->jobs);
    if (!job) return NULL;
    rg__list_remove(&job->node);
    w->queued--;
    return job;
}

/* *until: when the oldest job will have waited too long. */
static rg__job *take_further(rg__workers *w, int64_t *until) {
    rg__job *oldest = first(&w->jobs);
    *until = oldest ? oldest->queued_ms + PATIENCE_MS : RG__NO_DEADLINE;
    bool late = oldest && rg__now_ms() >= *until;
    return late ? take_any(w) : take_holding(w);
}

static rg__job *take_for(rg__workers *w, const gang *g, int64_t *until) {
    if (g == &w->regular || w->stopping) return take_any(w);
    return g == &w->further ? take_further(w, until) : take_holding(w);
}

/* One of the further threads leaves: another goes on watching. */
static void watch_on(rg__workers *w) {
    if (w->queued == 0 || w->watching > 0) return;
    if (w->further.idle == 0) start_one(w, &w->further);
    else pthread_cond_signal(&w->further.work);
}

/* NULL: the end. */
static rg__job *take(rg__workers *w, gang *g) {
    for (;;) {
        int64_t until = RG__NO_DEADLINE;
        rg__job *job = take_for(w, g, &until);
        if (job && g == &w->further) watch_on(w);
        if (job || w->stopping) return job;
        bool watches = until != RG__NO_DEADLINE;
        g->idle++;
        w->watching += watches;
        rg__cond_wait(&g->work, &w->lock, until);
        w->watching -= watches;
        g->idle--;
        if (g == &w->regular) w->called = false;
    }
}

static void serve(rg__workers *w, gang *g) {
    rg__mysql_thread_begin();
    pthread_mutex_lock(&w->lock);
    for (rg__job *job = take(w, g); job; job = take(w, g)) {
        if (w->queued + w->n_holding > 0) call_regular(w);
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    rg__mysql_thread_end();
}

static void *work_regular(void *arg) {
    rg__workers *w = arg;
    serve(w, &w->regular);
    return NULL;
}

static void *work_further(void *arg) {
    rg__workers *w = arg;
    serve(w, &w->further);
    return NULL;
}

static void *work_devoted(void *arg) {
    rg__workers *w = arg;
    serve(w, &w->devoted);
    return NULL;
}

/* ---- giving; under the lock ---- */

/* A forked child has none of the parent's threads, and its jobs are the parent's. */
static void check_process(rg__workers *w) {
    if (w->pid == rg__pid()) return;
    w->pid = rg__pid();
    w->n_threads = w->queued = w->n_holding = w->watching = 0;
    w->called = false;
    gang_init(&w->regular, w->regular.most);
    gang_init(&w->further, w->further.most);
    gang_init(&w->devoted, w->devoted.most);
    rg__list_init(&w->jobs);
    rg__list_init(&w->holding);
}

static int enqueue(rg__workers *w, rg__job *job, rg_err *err) {
    job->queued_ms = rg__now_ms();
    rg__list_add_tail(job->holds ? &w->holding : &w->jobs, &job->node);
    uint32_t *count = job->holds ? &w->n_holding : &w->queued;
    ++*count;
    call_somebody(w);
    if (w->n_threads > 0) return RG_OK;
    rg__list_remove(&job->node);
    --*count;
    return rg__fail(err, RG_ELIMIT, "a worker thread cannot be started");
}

static int submit(rg__workers *w, rg__job *job, bool bounded, rg_err *err) {
    int rc = RG_OK;
    pthread_mutex_lock(&w->lock);
    check_process(w);
    if (w->stopping) rc = rg__fail(err, RG_ECLOSED, "the engine is closed");
    else if (bounded && !job->holds && w->queued >= w->max_queued)
        rc = rg__fail(err, RG_ELIMIT,
                      "%u operations wait for a worker already (max_queued): the servers are slower "
                      "than what is asked of them",
                      w->queued);
    else rc = enqueue(w, job, err);
    pthread_mutex_unlock(&w->lock);
    if (rc == RG_ELIMIT && err) err->retriable = 1;
    return rc;
}

int rg__workers_submit(rg__workers *w, rg__job *job, rg_err *err) {
    return submit(w, job, true, err);
}

int rg__workers_resume(rg__workers *w, rg__job *job, rg_err *err) {
    return submit(w, job, false, err);
}

void rg__workers_stats(rg__workers *w, uint32_t *threads, uint32_t *queued) {
    pthread_mutex_lock(&w->lock);
    check_process(w);
    *threads = w->n_threads;
    *queued = w->queued;
    pthread_mutex_unlock(&w->lock);
}

void rg__workers_take(rg__workers *w, bool (*fn)(rg__job *job, void *arg), void *arg) {
    pthread_mutex_lock(&w->lock);
    for (rg__node *n = w->jobs.next, *next; n != &w->jobs; n = next) {
        next = n->next;
        if (!fn(rg__container(n, rg__job, node), arg)) continue;
        rg__list_remove(n);
        w->queued--;
    }
    pthread_mutex_unlock(&w->lock);
}

void rg__workers_stop(rg__workers *w) {
    pthread_mutex_lock(&w->lock);
    check_process(w);
    w->stopping = true;
    uint32_t n = w->n_threads;
    w->n_threads = 0;
    pthread_cond_broadcast(&w->regular.work);
    pthread_cond_broadcast(&w->further.work);
    pthread_cond_broadcast(&w->devoted.work);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < n; i++) pthread_join(w->threads[i], NULL);
}

void rg__workers_free(rg__workers *w) {
    if (!w) return;
    rg__workers_stop(w);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->regular.work);
    pthread_cond_destroy(&w->further.work);
    pthread_cond_destroy(&w->devoted.work);
    rg__free(w);
}
