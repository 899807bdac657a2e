/* SPDX-License-Identifier: MIT */
/* The life of an operation: made, run here or on a worker, its results, freed. */
#include "run/op.h"

#include <pthread.h>

#include "base/alloc.h"
#include "mysql/timeline.h"
#include "run/gather.h"
#include "run/notifier.h"

static void end_op(rg__tenant *t);

rg_op *rg__op_new(rg_engine *engine, rg__op_fn run, rg_err *err) {
    if (atomic_load(&engine->closed)) {
        rg__fail(err, RG_ECLOSED, "the engine is closed");
        return NULL;
    }
    rg_op *op = rg__calloc(1, sizeof *op);
    if (!op) {
        rg__fail_memory(err);
        return NULL;
    }
    op->engine = rg_engine_ref(engine);
    op->run = run;
    op->err.item = -1;
    atomic_init(&op->owners, 1);
    atomic_init(&op->phase, RG_OP_NEW);
    rg__list_init(&op->done.node);
    rg__tenant_init(&op->tenant, end_op);
    return op;
}

static void destroy(rg_op *op) {
    if (op->cleanup) op->cleanup(op);
    rg__buf_deinit(&op->text);
    rg__buf_deinit(&op->param_bytes);
    rg__free(op->params);
    rg__free(op->ids);
    rg_builder_free(op->key);
    rg__spread_free(op->spread);
    rg__rows_deinit(&op->rows);
    rg__result_free(op->result);
    rg__items_deinit(&op->items);
    rg__free(op->slots);
    rg__terms_free(op->terms);
    rg__slab_deinit(&op->slab);
    rg__free(op->assigned);
    rg__trace_deinit(&op->trace);
    rg__timeline_unref(op->timeline);
    rg__txs_deinit(&op->txs);
    rg__notifier_release(op);
    rg_engine_unref(op->engine);
    rg__free(op);
}

/* Handles and workers both end here; the last one frees. */
static void drop(rg_op *op) {
    if (atomic_fetch_sub(&op->owners, 1) == 1) destroy(op);
}

void rg_op_free(rg_op *op) {
    if (!op || rg_engine_orphan(op->engine)) return;
    rg__tenant_leave(&op->tenant);
    rg__notifier_forget(op);
    if (atomic_load(&op->parked)) op->unpark(op);
    drop(op);
}

/* What came of an operation that nobody wants any more: a connection, a lock. */
static void discard(rg_op *op) {
    if (op->cleanup) op->cleanup(op);
    op->cleanup = NULL;
    op->own = NULL;
}

/* Its coroutine is gone: its handle will be collected, some time. */
static void end_op(rg__tenant *t) {
    rg_op *op = rg__container(t, rg_op, tenant);
    if (!op->notifier) return;
    if (rg__notifier_forget(op)) discard(op);
    else if (atomic_load(&op->parked)) op->unpark(op);
}

int rg__op_execute(rg_op *op, uint32_t timeout_ms) {
    rg__ctx ctx = rg__engine_ctx(op->engine, &op->trace, timeout_ms);
    if (op->deadline_ms && op->deadline_ms < ctx.deadline_ms) ctx.deadline_ms = op->deadline_ms;
    ctx.timeline = op->timeline;
    if (!op->inline_run) ctx.cancelled = &op->abandoned;
    atomic_store(&op->phase, RG_OP_RUNNING);
    int rc = rg__txs_claim(&op->txs, &op->err);
    if (rc >= 0) {
        rg__txs_bound(&op->txs, &ctx);
        rc = op->run(op, &ctx, &op->err);
        rg__txs_unclaim(&op->txs);
    }
    if (rc < 0 && op->err.code == 0) rg__fail(&op->err, rc, "%s", rg_code_name(rc));
    if (rc >= 0) op->err.code = 0;
    atomic_store(&op->parked, rc == RG__PARK);
    return rc > 0 && rc != RG__PARK ? RG_OK : rc;
}

/* ---- parking ---- */

/* Of operations that run inline, which wait for one another seldom enough to share them. */
static pthread_mutex_t park_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t park_cond = PTHREAD_COND_INITIALIZER;

static void wait_inline(rg_op *op) {
    op->park(op);
    pthread_mutex_lock(&park_lock);
    while (!op->resumed) pthread_cond_wait(&park_cond, &park_lock);
    op->resumed = false;
    pthread_mutex_unlock(&park_lock);
}

static void resume_inline(rg_op *op) {
    pthread_mutex_lock(&park_lock);
    op->resumed = true;
    pthread_cond_broadcast(&park_cond);
    pthread_mutex_unlock(&park_lock);
}

void rg__op_resume(rg_op *op) {
    if (op->inline_run) {
        resume_inline(op);
    } else if (rg__workers_resume(op->engine->workers, &op->job, &op->err) < 0) {
        rg__notifier_complete(op);
        drop(op);
    }
}

int rg_op_run(rg_op *op, uint32_t timeout_ms) {
    if (atomic_load(&op->phase) != RG_OP_NEW)
        return rg__fail(&op->err, RG_EMISUSE, "the operation has run already");
    if (rg_engine_orphan(op->engine)) return rg__engine_fail_orphan(&op->err);
    op->inline_run = true;
    if (!op->deadline_ms)
        op->deadline_ms = rg__now_ms() + (timeout_ms ? timeout_ms : op->engine->timeout_ms);
    int rc = rg__op_execute(op, timeout_ms);
    for (; rc == RG__PARK; rc = rg__op_execute(op, timeout_ms)) wait_inline(op);
    rg__txs_deinit(&op->txs);
    atomic_store(&op->phase, RG_OP_DONE);
    return rc < 0 ? rc : RG_OK;
}

/* Its handle may stay for long; the transactions that it was part of must not. */
void rg__op_finish(rg_op *op) {
    rg__txs_deinit(&op->txs);
    if (!rg__notifier_complete(op)) discard(op);
    drop(op);
}

/* Is it part of a transaction that has a connection? Others wait for that one to come back. */
static bool holds(const rg_op *op) {
    if (op->holds) return true;
    for (uint32_t i = 0; i < op->txs.n && op->txs.used; i++)
        if (op->txs.handles[i] && rg__tx_has_connection(op->txs.handles[i])) return true;
    return false;
}

static void run_job(rg__job *job) {
    rg_op *op = rg__container(job, rg_op, job);
    bool abandoned = atomic_load(&op->abandoned); /* while it was queued */
    if (!abandoned && rg__gather(op)) return;
    /* A parked one may be gone already. */
    if (!abandoned && rg__op_execute(op, 0) == RG__PARK) {
        op->park(op);
        return;
    }
    rg__op_finish(op);
}

bool rg__job_is_op(const rg__job *job) { return job->run == run_job; }

int rg__op_expect(rg_op *op, rg_notifier *n, uint32_t tag, uint32_t timeout_ms, rg_err *err) {
    if (atomic_load(&op->phase) != RG_OP_NEW)
        return rg__fail(err, RG_EMISUSE, "the operation has run already");
    if (rg_engine_orphan(op->engine)) return rg__engine_fail_orphan(err);
    op->done.tag = tag;
    op->deadline_ms = rg__now_ms() + (timeout_ms ? timeout_ms : op->engine->timeout_ms);
    op->job = (rg__job){.run = run_job, .holds = holds(op)};
    rg__list_init(&op->job.node);
    atomic_store(&op->phase, RG_OP_QUEUED);
    atomic_fetch_add(&op->owners, 1);
    rg__notifier_expect(n, op);
    return RG_OK;
}

int rg__op_hand_over(rg_op *op, rg_err *err) {
    return rg__workers_submit(op->engine->workers, &op->job, err);
}

int rg_op_submit(rg_op *op, rg_notifier *n, uint32_t tag, uint32_t timeout_ms, rg_err *err) {
    int rc = rg__op_expect(op, n, tag, timeout_ms, err);
    if (rc < 0) return rc;
    rc = rg__op_hand_over(op, err);
    if (rc < 0) {
        rg__notifier_unexpect(op);
        atomic_store(&op->phase, RG_OP_NEW);
        drop(op);
    }
    return rc;
}

int rg_op_phase_of(const rg_op *op) { return atomic_load(&op->phase); }
int rg_op_code(const rg_op *op) { return op->err.code; }
const rg_err *rg_op_error(const rg_op *op) { return &op->err; }

/* ---- inputs ---- */

int rg__op_add_u64(rg_op *op, uint64_t v) {
    if (op->n_ids == op->ids_cap) {
        size_t cap = op->ids_cap ? op->ids_cap * 2 : 16;
        uint64_t *p = rg__reallocarray(op->ids, cap, sizeof *p);
        if (!p) return RG_ENO_MEMORY;
        op->ids = p;
        op->ids_cap = cap;
    }
    op->ids[op->n_ids++] = v;
    return RG_OK;
}

static rg__param *add_param(rg_op *op, rg_err *err) {
    if (op->n_params == op->params_cap) {
        size_t cap = op->params_cap ? op->params_cap * 2 : 8;
        rg__param *p = rg__reallocarray(op->params, cap, sizeof *p);
        if (!p) {
            rg__fail_memory(err);
            return NULL;
        }
        op->params = p;
        op->params_cap = cap;
    }
    return &op->params[op->n_params++];
}

int rg_op_param_null(rg_op *op, rg_err *err) {
    rg__param *p = add_param(op, err);
    if (!p) return RG_ENO_MEMORY;
    *p = (rg__param){.kind = RG__P_NULL};
    return RG_OK;
}

int rg_op_param_i64(rg_op *op, int64_t v, rg_err *err) {
    rg__param *p = add_param(op, err);
    if (!p) return RG_ENO_MEMORY;
    *p = (rg__param){.kind = RG__P_I64, .i = v};
    return RG_OK;
}

int rg_op_param_u64(rg_op *op, uint64_t v, rg_err *err) {
    rg__param *p = add_param(op, err);
    if (!p) return RG_ENO_MEMORY;
    *p = (rg__param){.kind = RG__P_U64, .u = v};
    return RG_OK;
}

int rg_op_param_number(rg_op *op, double v, rg_err *err) {
    if (v != v || v - v != 0)
        return rg__fail(err, RG_EINVALID, "parameter %zu is not a finite number", op->n_params + 1);
    if (v == (double)(int64_t)v && v >= -9007199254740992.0 && v <= 9007199254740992.0)
        return rg_op_param_i64(op, (int64_t)v, err);
    rg__param *p = add_param(op, err);
    if (!p) return RG_ENO_MEMORY;
    *p = (rg__param){.kind = RG__P_DOUBLE, .d = v};
    return RG_OK;
}

/* The bytes' place is kept as an offset until the operation runs: the buffer may move. */
int rg_op_param_string(rg_op *op, const char *s, size_t len, rg_err *err) {
    rg__param *p = add_param(op, err);
    if (!p) return RG_ENO_MEMORY;
    *p = (rg__param){.kind = rg__utf8_valid(s, len, NULL) ? RG__P_STRING : RG__P_BYTES,
                     .s = {(const char *)(uintptr_t)op->param_bytes.len, len}};
    rg__buf_add(&op->param_bytes, s, len);
    rg__buf_char(&op->param_bytes, 0);
    return op->param_bytes.failed ? rg__fail_memory(err) : RG_OK;
}

void rg__op_place_params(rg_op *op) {
    for (size_t i = 0; i < op->n_params && !op->placed; i++)
        if (op->params[i].kind == RG__P_STRING || op->params[i].kind == RG__P_BYTES)
            op->params[i].s.p = op->param_bytes.p + (uintptr_t)op->params[i].s.p;
    op->placed = true;
}

/* ---- query log ---- */

int rg_op_event(const rg_op *op, uint32_t i, rg_log_event *out) {
    if (i >= op->trace.n) return 0;
    const rg__event *e = &op->trace.events[i];
    *out = (rg_log_event){.source = e->source,
                          .op = e->op,
                          .pool = e->pool,
                          .text = e->text ? e->text : "",
                          .started = (double)e->started_us / 1e6,
                          .duration = (double)e->duration_us / 1e6,
                          .rows = (double)e->rows,
                          .error = e->error};
    return 1;
}
