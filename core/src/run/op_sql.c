/* SPDX-License-Identifier: MIT */
/* Operations with the user's own SQL: on a connection of the pool, or on a borrowed one. */
#include "base/alloc.h"
#include "run/op.h"

/* A borrowed connection. Queries on it hold it too, so that a handle may go at any time. */
struct rg_lease {
    rg_engine *engine; /* a reference */
    atomic_uint refs;  /* the handle, and each operation on it */
    rg__mysql *conn;   /* NULL once returned */
    atomic_bool busy;  /* an operation is running on it */
    atomic_bool orphan; /* its request has ended */
    rg__tenant tenant;
};

static rg_op *with_text(rg_engine *engine, rg__op_fn run, const char *sql, size_t len, rg_err *err) {
    rg_op *op = rg__op_new(engine, run, err);
    if (!op) return NULL;
    rg__buf_add(&op->text, sql, len);
    rg__buf_cstr(&op->text);
    if (!op->text.failed) return op;
    rg__fail_memory(err);
    rg_op_free(op);
    return NULL;
}

enum { BESIDE = 1 }; /* mode of a query */

static int run_query(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__op_place_params(op);
    rg__mysql *c = NULL;
    rg__tx *tx = rg__tx_of(ctx, op->pool);
    bool reads = tx && rg__sql_statement_kind(op->text.p, op->text.len) == RG__SQL_READ;
    int rc = rg__op_connect(op->engine, ctx, op->pool, reads ? RG__TX_READS : RG__TX_WRITES, &c, err);
    if (rc < 0) return rc;
    if (tx && !reads && op->mode == BESIDE) rg__tx_note_beside(tx);
    if (tx && !reads && op->mode != BESIDE) rg__tx_note_raw(tx);
    rc = rg__mysql_query(c, ctx, op->text.p, op->text.len, op->params, op->n_params, true,
                         &op->result, err);
    return rg__op_disconnect(ctx, op->pool, c, rc, err);
}

rg_op *rg_op_query(rg_engine *engine, const char *pool, const char *sql, size_t len, rg_err *err) {
    int number = rg__engine_mysql(engine, pool, err);
    if (number < 0) return NULL;
    rg_op *op = with_text(engine, run_query, sql, len, err);
    if (op) op->pool = number;
    return op;
}

void rg_op_query_beside(rg_op *op) {
    if (op->run == run_query) op->mode = BESIDE;
}

/* ---- borrowed connections ---- */

/* The connection of one whose request has ended is closed, by whoever is the last at it. */
static void close_orphan(rg_lease *l) {
    if (!atomic_load(&l->orphan) || atomic_exchange(&l->busy, true)) return;
    rg__mysql *c = l->conn;
    l->conn = NULL;
    atomic_store(&l->busy, false);
    if (!c) return;
    rg__mysql_poison(c);
    rg__mysql_release(c);
}

static void end_lease(rg__tenant *t) {
    rg_lease *l = rg__container(t, rg_lease, tenant);
    atomic_store(&l->orphan, true);
    close_orphan(l);
}

rg__tenant *rg__lease_tenant(rg_lease *l) { return &l->tenant; }

static void lease_unref(rg_lease *l) {
    if (!l || atomic_fetch_sub(&l->refs, 1) != 1) return;
    if (l->conn) {
        rg__count(&l->engine->store.metrics, RG__C_LEAKED, 1);
        rg__mysql_poison(l->conn);
        rg__mysql_release(l->conn);
    }
    rg_engine_unref(l->engine);
    rg__free(l);
}

static void drop_lease(rg_op *op) { lease_unref(op->own); }

static int run_borrow(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_lease *l = op->own;
    return rg__mysql_acquire(op->engine->store.mysql[op->pool], ctx, &l->conn, err);
}

rg_op *rg_op_borrow(rg_engine *engine, const char *pool, rg_err *err) {
    int number = rg__engine_mysql(engine, pool, err);
    rg_op *op = number < 0 ? NULL : rg__op_new(engine, run_borrow, err);
    if (!op) return NULL;
    rg_lease *l = rg__calloc(1, sizeof *l);
    if (!l) {
        rg__fail_memory(err);
        rg_op_free(op);
        return NULL;
    }
    l->engine = rg_engine_ref(engine);
    atomic_init(&l->refs, 1);
    rg__tenant_init(&l->tenant, end_lease);
    op->own = l;
    op->cleanup = drop_lease;
    op->pool = number;
    return op;
}

rg_lease *rg_op_lease(rg_op *op) {
    rg_lease *l = op->run == run_borrow && rg_op_phase_of(op) == RG_OP_DONE ? op->own : NULL;
    if (!l || !l->conn) return NULL;
    op->own = NULL;
    return l;
}

static int claim(rg_lease *l, rg_err *err) {
    if (atomic_exchange(&l->busy, true))
        return rg__fail(err, RG_EMISUSE, "the borrowed connection is running another statement");
    if (l->conn) return RG_OK;
    atomic_store(&l->busy, false);
    return rg__fail(err, RG_ECLOSED, "the borrowed connection was given back already");
}

static int run_lease_query(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg_lease *l = op->own;
    int rc = claim(l, err);
    if (rc < 0) return rc;
    rg__op_place_params(op);
    rg__mysql_taint(l->conn);
    rc = rg__mysql_query(l->conn, ctx, op->text.p, op->text.len, op->params, op->n_params, false,
                         &op->result, err);
    atomic_store(&l->busy, false);
    close_orphan(l);
    return rc;
}

static int run_lease_return(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    (void)ctx;
    rg_lease *l = op->own;
    int rc = claim(l, err);
    if (rc < 0) return rc;
    rg__mysql_release(l->conn);
    l->conn = NULL;
    atomic_store(&l->busy, false);
    return RG_OK;
}

static rg_op *on_lease(rg_op *op, rg_lease *l) {
    if (!op) return NULL;
    atomic_fetch_add(&l->refs, 1);
    op->own = l;
    op->holds = true;
    op->cleanup = drop_lease;
    return op;
}

rg_op *rg_op_lease_query(rg_lease *l, const char *sql, size_t len, rg_err *err) {
    return on_lease(with_text(l->engine, run_lease_query, sql, len, err), l);
}

rg_op *rg_op_lease_return(rg_lease *l, rg_err *err) {
    return on_lease(rg__op_new(l->engine, run_lease_return, err), l);
}

int rg_lease_alive(rg_lease *l) {
    if (atomic_exchange(&l->busy, true)) return 1;
    int alive = l->conn && rg__mysql_alive(l->conn);
    atomic_store(&l->busy, false);
    return alive;
}

void rg_lease_free(rg_lease *l) {
    if (l) rg__tenant_leave(&l->tenant);
    lease_unref(l);
}

/* ---- tables ---- */

static const rg__result *set_at(const rg_op *op, uint32_t set) {
    const rg__result *r = op->result;
    while (r && set-- > 0) r = r->next;
    return r;
}

uint32_t rg_op_sets(const rg_op *op) {
    uint32_t n = 0;
    for (const rg__result *r = op->result; r; r = r->next) n++;
    return n;
}

uint32_t rg_op_set_rows(const rg_op *op, uint32_t set) {
    const rg__result *r = set_at(op, set);
    return r ? (uint32_t)r->n_rows : 0;
}

uint32_t rg_op_set_columns(const rg_op *op, uint32_t set) {
    const rg__result *r = set_at(op, set);
    return r ? r->n_columns : 0;
}

const char *rg_op_column_name(const rg_op *op, uint32_t set, uint32_t col) {
    const rg__result *r = set_at(op, set);
    return r && col < r->n_columns ? r->names[col] : NULL;
}

int rg_op_cell(const rg_op *op, uint32_t set, uint32_t row, uint32_t col, const char **p, size_t *len) {
    const rg__result *r = set_at(op, set);
    if (!r || row >= r->n_rows || col >= r->n_columns) return RG_EMISUSE;
    const rg__slice *cell = &r->cells[(size_t)row * r->n_columns + col];
    *p = cell->p;
    *len = cell->len;
    return cell->p ? r->kinds[col] : RG_CELL_NULL;
}

double rg_op_affected(const rg_op *op, uint32_t set) {
    const rg__result *r = set_at(op, set);
    return r ? (double)r->affected : 0;
}

double rg_op_insert_id(const rg_op *op, uint32_t set) {
    const rg__result *r = set_at(op, set);
    return r ? (double)r->insert_id : 0;
}
