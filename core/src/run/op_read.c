/* SPDX-License-Identifier: MIT */
/* Operations that read entities: by id, by index, by WHERE. */
#include <strings.h>

#include "base/alloc.h"
#include "run/op.h"
#include "run/session.h"

static rg_op *typed(rg_engine *engine, uint32_t type, rg__op_fn run, rg_err *err) {
    const rg_type *t = rg__engine_type(engine, type, err);
    rg_op *op = t ? rg__op_new(engine, run, err) : NULL;
    if (op) op->type = t;
    return op;
}

/* A lock that ends with its statement would be none. */
static int unlocked(const rg_op *op, const rg__ctx *ctx, rg_err *err) {
    if (!op->lock || rg__tx_of(ctx, op->type->mysql_pool)) return RG_OK;
    return rg__fail(err, RG_EMISUSE, "rows are locked inside a transaction only");
}

/* In a transaction the caches are left out anyway. */
int rg__op_load_flags(const rg_op *op, const rg__ctx *ctx, const rg_type *t) {
    bool strict = op->mode == RG_OP_GET_STRICT && !rg__tx_of(ctx, t->mysql_pool);
    int flags = op->mode == RG_OP_GET_CACHED ? 0 : strict ? RG__LOAD_STRICT : RG__LOAD_FRESH;
    return flags | RG__LOAD_LOCK * (int)op->lock;
}

static int run_get(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    if (unlocked(op, ctx, err) < 0) return RG_EMISUSE;
    op->rows.items = rg__calloc(op->n_ids + 1, sizeof *op->rows.items);
    if (!op->rows.items) return rg__fail_memory(err);
    op->rows.n = op->rows.cap = op->n_ids;
    if (op->spread) return rg__spread_get(op, ctx, err);
    if (op->asked) {
        rg__load *l = op->asked;
        op->asked = NULL;
        return rg__load_take(l, ctx, op->ids, op->n_ids, op->rows.items, err);
    }
    return rg__load_rows(&op->engine->store, ctx, op->type, op->ids, op->n_ids,
                         rg__op_load_flags(op, ctx, op->type), op->rows.items, err);
}

rg_op *rg_op_get(rg_engine *engine, uint32_t type, int whom, rg_err *err) {
    rg_op *op = typed(engine, type, run_get, err);
    if (op) op->mode = whom;
    return op;
}

static void drop_asked(rg_op *op) {
    if (!op->asked) return;
    rg__ctx ctx = rg__engine_ctx(op->engine, &op->trace, 0);
    rg__load_drop(op->asked, &ctx);
    op->asked = NULL;
}

int rg_op_ask(rg_op *op, uint32_t timeout_ms) {
    if (atomic_load(&op->phase) != RG_OP_NEW || rg_engine_orphan(op->engine)) return 0;
    if (!rg__op_is_get(op) || op->asked || op->spread || op->lock || op->txs.used) return 0;
    rg__ctx ctx = rg__engine_ctx(op->engine, &op->trace, timeout_ms);
    op->asked = rg__load_ask(&op->engine->store, &ctx, op->type, op->ids, op->n_ids);
    if (!op->asked) return 0;
    op->deadline_ms = ctx.deadline_ms;
    op->cleanup = drop_asked;
    return 1;
}

int rg_op_add_id(rg_op *op, double id, rg_err *err) {
    if (!(id >= 1 && id <= 9007199254740992.0 && id == (double)(uint64_t)id))
        return rg__fail_field(err, "id", "%s: an id is a whole number from 1 to 2^53",
                              op->type ? op->type->name : "id");
    return rg__op_add_u64(op, (uint64_t)id) < 0 ? rg__fail_memory(err) : RG_OK;
}

static int run_lookup(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    if (unlocked(op, ctx, err) < 0) return RG_EMISUSE;
    if (op->spread) return rg__spread_lookup(op, ctx, err);
    return rg__load_lookup(&op->engine->store, ctx, op->type, op->index, op->key, op->lock,
                           &op->rows, err);
}

bool rg__op_is_get(const rg_op *op) { return op->run == run_get && op->mode == 0; }
bool rg__op_is_lookup(const rg_op *op) { return op->run == run_lookup; }

/* A builder of the operation's own: the caller's may be used again at once. */
rg_builder *rg__key_copy(const rg_type *t, uint32_t index, rg_builder *key, rg_err *err) {
    rg_block *partial = rg__builder_partial(key);
    rg_builder *own = partial ? rg_builder_new(t, err) : NULL;
    const rg__index *x = &t->indexes[index];
    for (uint32_t i = 0; own && i < x->n_columns; i++) {
        if (!rg__builder_has(key, x->columns[i])) continue;
        rg__value v = rg__row_value(t, rg_block_data(partial), x->columns[i]);
        rg__builder_put(own, x->columns[i], &v);
    }
    rg_block_unref(partial);
    return own;
}

rg_op *rg_op_lookup(rg_engine *engine, uint32_t type, uint32_t index, rg_builder *key, rg_err *err) {
    const rg_type *t = rg__engine_type(engine, type, err);
    if (t && index >= t->n_indexes) {
        rg__fail(err, RG_EINVALID, "%s has no index number %u", t->name, index);
        return NULL;
    }
    rg_op *op = t ? typed(engine, type, run_lookup, err) : NULL;
    if (!op) return NULL;
    op->index = index;
    op->key = rg__key_copy(t, index, key, err);
    if (op->key) return op;
    rg_op_free(op);
    return NULL;
}

/* One search of one shard. */
typedef struct search {
    const rg_op *op;
    const rg_type *type;
    uint64_t offset, limit;
    int mode;
    rg__answer *out;
} search;

void rg__answer_deinit(rg__answer *a) {
    rg__rows_deinit(&a->rows);
    rg__free(a->ids);
    *a = (rg__answer){0};
}

static int search_rows(const search *s, const rg__ctx *ctx, rg__mysql *c, rg_err *err) {
    const rg_op *op = s->op;
    return rg__sql_search_locked(c, ctx, s->type, op->text.p, op->text.len, op->params, op->n_params,
                                 s->offset, s->limit, op->lock, rg__rows_add, &s->out->rows, err);
}

static int search_ids(const search *s, const rg__ctx *ctx, rg__mysql *c, rg_err *err) {
    const rg_op *op = s->op;
    return rg__sql_search_ids(c, ctx, s->type, op->text.p, op->text.len, op->params, op->n_params,
                              s->offset, s->limit, &s->out->ids, &s->out->n_ids, err);
}

static int search_count(const search *s, const rg__ctx *ctx, rg__mysql *c, rg_err *err) {
    uint64_t n = 0;
    const rg_op *op = s->op;
    int rc = rg__sql_count(c, ctx, s->type, op->text.p, op->text.len, op->params, op->n_params, &n,
                           err);
    s->out->number = (double)n;
    return rc;
}

static int search_here(rg__mysql *c, const rg__ctx *ctx, void *arg, rg_err *err) {
    const search *s = arg;
    rg__answer_deinit(s->out);
    return s->mode == 0   ? search_rows(s, ctx, c, err)
           : s->mode == 1 ? search_ids(s, ctx, c, err)
                          : search_count(s, ctx, c, err);
}

/* A condition with a SELECT in it reads other tables. */
static bool names_tables(const rg__buf *where) {
    static const char word[] = "select";
    for (size_t i = 0; i + sizeof word - 1 <= where->len; i++)
        if (strncasecmp(where->p + i, word, sizeof word - 1) == 0) return true;
    return false;
}

static int search_inside(search *s, const rg__ctx *ctx, rg_err *err) {
    rg__mysql *c = NULL;
    int pool = s->type->mysql_pool;
    int rc = rg__op_connect(s->op->engine, ctx, pool, RG__TX_READS, &c, err);
    return rc < 0 ? rc : rg__op_disconnect(ctx, pool, c, search_here(c, ctx, s, err), err);
}

int rg__read_search(const rg_op *op, const rg_type *t, const rg__ctx *ctx, uint64_t offset,
                    uint64_t limit, int mode, rg__answer *out, rg_err *err) {
    search s = {op, t, offset, limit, mode, out};
    int rc = rg__tx_of(ctx, t->mysql_pool)
                 ? search_inside(&s, ctx, err)
                 : rg__mysql_read(rg__store_mysql(&op->engine->store, t), ctx,
                                  names_tables(&op->text) ? NULL : t, true, search_here, &s, err);
    if (rc < 0) rg__err_about(err, "searching", t->name);
    return rc;
}

static int run_search(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__answer a = {0};
    if (unlocked(op, ctx, err) < 0) return RG_EMISUSE;
    rg__op_place_params(op);
    if (op->spread) return rg__spread_search(op, ctx, err);
    int rc = rg__read_search(op, op->type, ctx, op->offset, op->limit, op->mode, &a, err);
    op->rows = a.rows;
    op->ids = a.ids;
    op->n_ids = a.n_ids;
    op->number = a.number;
    return rc;
}

bool rg__op_is_search(const rg_op *op) { return op->run == run_search; }

static bool whole(double v) { return v >= 0 && v <= 9007199254740992.0 && v == (double)(uint64_t)v; }

rg_op *rg_op_search(rg_engine *engine, uint32_t type, const char *where, size_t len, int mode,
                    double offset, double limit, rg_err *err) {
    if (!whole(offset) || !whole(limit) || mode < 0 || mode > 2) {
        rg__fail(err, RG_EINVALID, "offset and limit are whole numbers");
        return NULL;
    }
    rg_op *op = typed(engine, type, run_search, err);
    if (!op) return NULL;
    op->mode = mode;
    op->offset = (uint64_t)offset;
    op->limit = (uint64_t)limit;
    rg__buf_add(&op->text, where, len);
    rg__buf_cstr(&op->text);
    if (!op->text.failed) return op;
    rg__fail_memory(err);
    rg_op_free(op);
    return NULL;
}

int rg_op_lock_rows(rg_op *op, int lock, rg_err *err) {
    int mode = lock & (RG__LOCK_SHARE | RG__LOCK_UPDATE);
    int wait = lock & ~mode;
    if ((mode != RG__LOCK_SHARE && mode != RG__LOCK_UPDATE) ||
        (wait && wait != RG__LOCK_NOWAIT && wait != RG__LOCK_SKIP))
        return rg__fail(err, RG_EINVALID, "unknown lock %d", lock);
    op->lock = (rg__lock)lock;
    return RG_OK;
}

/* ---- results ---- */

uint32_t rg_op_rows(const rg_op *op) {
    return (uint32_t)(op->mode == 1 && op->run == run_search ? op->n_ids : op->rows.n);
}

int rg_op_row(rg_op *op, uint32_t i, rg_session *s, rg_view *out) {
    if (i >= op->rows.n) return RG_EMISUSE;
    rg_block *row = op->rows.items[i];
    if (!row) return RG_GET_ABSENT;
    int64_t slot = rg_session_pin(s, row);
    if (slot < 0) return (int)slot;
    const rg__txs *txs = rg__session_txs(s);
    const rg__tx *tx = rg__txs_at(txs, op->type->mysql_pool);
    uint64_t id = rg__row_id(op->type, rg_block_data(row));
    if ((tx && rg__tx_wrote(tx, op->type, id)) || (txs->used && rg__spread_wrote(op->spread, txs, id)))
        rg__session_own(s, slot);
    *out = (rg_view){rg_block_data(row), rg_block_len(row), (uint32_t)slot};
    return RG_GET_HIT;
}

double rg_op_id(const rg_op *op, uint32_t i) { return i < op->n_ids ? (double)op->ids[i] : -1; }
double rg_op_number(const rg_op *op) { return op->number; }
