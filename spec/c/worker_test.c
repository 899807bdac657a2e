/* SPDX-License-Identifier: MIT */
/* Worker threads: order, what need not wait, bounds, the end. */
#include "unit.h"

#include <stdatomic.h>

#include "base/clock.h"
#include "base/thread.h"
#include "run/worker.h"

static atomic_int ran, begun, gate_open;

typedef struct job {
    rg__job job;
    bool blocks; /* until the gate is open */
    atomic_bool done;
} job;

static void run(rg__job *j) {
    job *own = rg__container(j, job, job);
    atomic_fetch_add(&begun, 1);
    while (own->blocks && !atomic_load(&gate_open)) rg__sleep_ms(1);
    atomic_fetch_add(&ran, 1);
    atomic_store(&own->done, true);
}

static void prepare(job *jobs, int n, bool blocks, bool holds) {
    for (int i = 0; i < n; i++) {
        memset(&jobs[i], 0, sizeof jobs[i]);
        jobs[i].job = (rg__job){.run = run, .holds = holds};
        jobs[i].blocks = blocks;
        rg__list_init(&jobs[i].job.node);
    }
}

static bool await(atomic_bool *done) {
    int64_t until = rg__now_ms() + 20000;
    while (!atomic_load(done) && rg__now_ms() < until) rg__sleep_ms(1);
    return atomic_load(done);
}

static void begin(void) {
    atomic_store(&ran, 0);
    atomic_store(&begun, 0);
    atomic_store(&gate_open, 0);
}

static bool await_begun(int n) {
    int64_t until = rg__now_ms() + 20000;
    while (atomic_load(&begun) < n && rg__now_ms() < until) rg__sleep_ms(1);
    return atomic_load(&begun) == n;
}

/* Idle threads are called by one another: none of a burst stays behind one that takes long, be it a regular
 * thread's or one that waited for a further thread. */
TEST(begins_a_whole_burst_while_all_of_it_blocks) {
    enum { JOBS = 8 };
    job jobs[JOBS];
    rg_err err = {0};
    for (uint32_t regular = JOBS; regular >= 1; regular /= 2) {
        rg__workers *w = rg__workers_new(regular, JOBS, 100);
        for (int round = 0; round < 20; round++) { /* from the second one on the threads are there, idle */
            begin();
            prepare(jobs, JOBS, true, false);
            for (int i = 0; i < JOBS; i++) CHECK_EQ_INT(rg__workers_submit(w, &jobs[i].job, &err), 0);
            CHECK(await_begun(JOBS));
            atomic_store(&gate_open, 1);
            for (int i = 0; i < JOBS; i++) CHECK(await(&jobs[i].done));
        }
        rg__workers_free(w);
    }
}

TEST(runs_what_holds_something_while_all_threads_wait) {
    job slow[6], holding[3];
    rg_err err = {0};
    begin();
    prepare(slow, 6, true, false);
    prepare(holding, 3, false, true);
    rg__workers *w = rg__workers_new(2, 4, 100);
    for (int i = 0; i < 6; i++) CHECK_EQ_INT(rg__workers_submit(w, &slow[i].job, &err), 0);
    rg__sleep_ms(100); /* regular and further threads are all at it */
    for (int i = 0; i < 3; i++) CHECK_EQ_INT(rg__workers_submit(w, &holding[i].job, &err), 0);
    for (int i = 0; i < 3; i++) CHECK(await(&holding[i].done));
    CHECK_EQ_INT(atomic_load(&ran), 3);
    atomic_store(&gate_open, 1);
    for (int i = 0; i < 6; i++) CHECK(await(&slow[i].done));
    rg__workers_free(w);
}

TEST(runs_quick_ones_while_slow_ones_have_the_regular_threads) {
    job slow[2], quick[20];
    rg_err err = {0};
    begin();
    prepare(slow, 2, true, false);
    prepare(quick, 20, false, false);
    rg__workers *w = rg__workers_new(2, 8, 100);
    for (int i = 0; i < 2; i++) CHECK_EQ_INT(rg__workers_submit(w, &slow[i].job, &err), 0);
    for (int i = 0; i < 20; i++) CHECK_EQ_INT(rg__workers_submit(w, &quick[i].job, &err), 0);
    for (int i = 0; i < 20; i++) CHECK(await(&quick[i].done));
    CHECK_EQ_INT(atomic_load(&ran), 20);
    atomic_store(&gate_open, 1);
    rg__workers_free(w);
    CHECK_EQ_INT(atomic_load(&ran), 22);
}

TEST(refuses_what_is_beyond_the_bound_but_not_what_goes_on) {
    job slow[2], waiting[3];
    rg_err err = {0};
    begin();
    prepare(slow, 2, true, false);
    prepare(waiting, 3, false, false);
    rg__workers *w = rg__workers_new(1, 1, 2);
    CHECK_EQ_INT(rg__workers_submit(w, &slow[0].job, &err), 0);
    while (rg__sleep_ms(1), true) {
        uint32_t threads = 0, queued = 0;
        rg__workers_stats(w, &threads, &queued);
        if (queued == 0) break;
    }
    CHECK_EQ_INT(rg__workers_submit(w, &waiting[0].job, &err), 0);
    CHECK_EQ_INT(rg__workers_submit(w, &waiting[1].job, &err), 0);
    CHECK_EQ_INT(rg__workers_submit(w, &waiting[2].job, &err), RG_ELIMIT);
    CHECK(err.retriable && strstr(err.message, "max_queued") != NULL);
    CHECK_EQ_INT(rg__workers_resume(w, &waiting[2].job, &err), 0);
    atomic_store(&gate_open, 1);
    for (int i = 0; i < 3; i++) CHECK(await(&waiting[i].done));
    rg__workers_free(w);
}

TEST(runs_what_waits_when_it_stops_and_takes_no_more) {
    job jobs[50], late;
    rg_err err = {0};
    begin();
    prepare(jobs, 50, false, false);
    prepare(&late, 1, false, false);
    rg__workers *w = rg__workers_new(3, 6, 100);
    for (int i = 0; i < 50; i++) CHECK_EQ_INT(rg__workers_submit(w, &jobs[i].job, &err), 0);
    rg__workers_stop(w);
    CHECK_EQ_INT(atomic_load(&ran), 50);
    CHECK_EQ_INT(rg__workers_submit(w, &late.job, &err), RG_ECLOSED);
    rg__workers_free(w);
}

UNIT_MAIN
