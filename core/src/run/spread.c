/* SPDX-License-Identifier: MIT */
/* Reads over several shards. Each shard is a part; parts are offered to the workers, and the thread
 * that waits for them runs whatever nobody has begun, so that no thread ever waits for a free one. */
#include "run/op.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/thread.h"

typedef struct order {
    uint32_t column;
    bool desc;
} order;

/* What an operation was told of further shards. */
typedef struct rg__spread {
    const rg_type **types; /* all, the operation's own first */
    size_t n;
    rg_builder **keys;     /* lookup: of all but the first */
    order *orders;
    size_t n_orders;
    uint32_t *of;          /* get: number in types, by id */
    size_t n_of;
} rg__spread;

typedef struct run run;
typedef int (*part_fn)(run *r, size_t i, const rg__ctx *ctx, rg_err *err);

/* One shard's part of one run. */
typedef struct part {
    rg__job job;
    run *all;
    atomic_bool claimed;
    rg__answer answer;
    uint64_t *ids;     /* get: what is asked of this shard, and where it goes */
    size_t *places;
    size_t n_ids;
    rg__trace trace;
    rg_err err;
    int rc;
} part;

/* Kept by who waits for it, and by every job that a worker has not come by yet. */
struct run {
    atomic_uint refs;
    pthread_mutex_t lock;
    pthread_cond_t done;
    size_t n_done;     /* under the lock */
    rg_op *op;         /* outlives every part that is claimed */
    const rg__ctx *ctx;
    part_fn fn;
    part *parts;
    size_t n;
};

/* ---- what is told before ---- */

static rg__spread *spread_of(rg_op *op, rg_err *err) {
    if (op->spread) return op->spread;
    rg__spread *s = rg__calloc(1, sizeof *s);
    if (s) s->types = rg__calloc(RG__SHARDS, sizeof *s->types);
    if (s) s->keys = rg__calloc(RG__SHARDS, sizeof(rg_builder *));
    op->spread = s;
    if (!s || !s->types || !s->keys) {
        rg__fail_memory(err);
        return NULL;
    }
    s->types[s->n++] = op->type;
    return s;
}

bool rg__spread_wrote(const rg__spread *s, const rg__txs *txs, uint64_t id) {
    for (size_t i = 0; s && i < s->n; i++) {
        const rg__tx *tx = rg__txs_at(txs, s->types[i]->mysql_pool);
        if (tx && rg__tx_wrote(tx, s->types[i], id)) return true;
    }
    return false;
}

void rg__spread_free(rg__spread *s) {
    if (!s) return;
    for (size_t i = 0; s->keys && i < s->n; i++) rg_builder_free(s->keys[i]);
    rg__free(s->keys);
    rg__free(s->types);
    rg__free(s->orders);
    rg__free(s->of);
    rg__free(s);
}

int rg_op_also(rg_op *op, uint32_t type, rg_err *err) {
    const rg_type *t = rg__engine_type(op->engine, type, err);
    rg__spread *s = t ? spread_of(op, err) : NULL;
    if (!s) return err ? err->code : RG_EINVALID;
    if (s->n == RG__SHARDS || t->fingerprint != op->type->fingerprint)
        return rg__fail(err, RG_EINVALID, "%s is no other shard of %s", t->name, op->type->name);
    if (op->key && !(s->keys[s->n] = rg__key_copy(t, op->index, op->key, err))) return RG_ENO_MEMORY;
    s->types[s->n++] = t;
    return RG_OK;
}

int rg_op_order(rg_op *op, uint32_t column, int desc, rg_err *err) {
    rg__spread *s = spread_of(op, err);
    if (!s) return RG_ENO_MEMORY;
    if (column >= op->type->n_columns) return rg__fail(err, RG_EINVALID, "there is no column %u", column);
    order *p = rg__reallocarray(s->orders, s->n_orders + 1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    s->orders = p;
    p[s->n_orders++] = (order){column, desc != 0};
    return RG_OK;
}

int rg_op_add_id_of(rg_op *op, uint32_t type, double id, rg_err *err) {
    rg__spread *s = spread_of(op, err);
    const rg_type *t = rg__engine_type(op->engine, type, err);
    if (!s || !t) return RG_EINVALID;
    size_t i = 0;
    while (i < s->n && s->types[i] != t) i++;
    int rc = i == s->n ? rg_op_also(op, type, err) : RG_OK;
    if (rc >= 0) rc = rg_op_add_id(op, id, err);
    if (rc < 0) return rc;
    uint32_t *p = rg__reallocarray(s->of, op->ids_cap, sizeof *p);
    if (!p) return rg__fail_memory(err);
    s->of = p;
    p[op->n_ids - 1] = (uint32_t)i;
    return RG_OK;
}

/* ---- running side by side ---- */

static void run_unref(run *r) {
    if (atomic_fetch_sub(&r->refs, 1) != 1) return;
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->done);
    for (size_t i = 0; i < r->n; i++) {
        rg__answer_deinit(&r->parts[i].answer);
        rg__trace_deinit(&r->parts[i].trace);
        rg__free(r->parts[i].ids);
        rg__free(r->parts[i].places);
    }
    rg__free(r->parts);
    rg__free(r);
}

static run *run_new(rg_op *op, const rg__ctx *ctx, part_fn fn, rg_err *err) {
    run *r = rg__calloc(1, sizeof *r);
    if (r) r->parts = rg__calloc(op->spread->n, sizeof *r->parts);
    if (!r || !r->parts) {
        rg__free(r);
        rg__fail_memory(err);
        return NULL;
    }
    atomic_init(&r->refs, 1);
    pthread_mutex_init(&r->lock, NULL);
    rg__cond_init(&r->done);
    r->op = op;
    r->ctx = ctx;
    r->fn = fn;
    r->n = op->spread->n;
    for (size_t i = 0; i < r->n; i++) r->parts[i].all = r;
    return r;
}

/* Once, by whoever comes first. */
static void do_part(part *p) {
    run *r = p->all;
    if (atomic_exchange(&p->claimed, true)) return;
    rg__ctx ctx = *r->ctx;
    if (ctx.trace) {
        p->trace.mask = ctx.trace->mask;
        p->trace.values = ctx.trace->values;
        ctx.trace = &p->trace;
    }
    p->rc = r->fn(r, (size_t)(p - r->parts), &ctx, &p->err);
    pthread_mutex_lock(&r->lock);
    r->n_done++;
    pthread_cond_signal(&r->done);
    pthread_mutex_unlock(&r->lock);
}

static void run_job(rg__job *job) {
    part *p = rg__container(job, part, job);
    run *r = p->all;
    do_part(p);
    run_unref(r);
}

/* A transaction has one connection: shards on its pool are read one after the other. */
static void offer(run *r) {
    for (size_t i = 1; !r->ctx->txs && i < r->n; i++) {
        part *p = &r->parts[i];
        p->job = (rg__job){.run = run_job};
        rg__list_init(&p->job.node);
        atomic_fetch_add(&r->refs, 1);
        if (rg__workers_submit(r->op->engine->workers, &p->job, NULL) < 0) {
            atomic_fetch_sub(&r->refs, 1); /* no room: this thread runs it */
            return;
        }
    }
}

static void take_traces(run *r) {
    rg__trace *to = r->ctx->trace;
    for (size_t i = 0; to && i < r->n; i++) {
        rg__trace *from = &r->parts[i].trace;
        rg__event *p = rg__reallocarray(to->events, to->n + from->n + 1, sizeof *p);
        if (!p) continue;
        to->events = p;
        memcpy(p + to->n, from->events, from->n * sizeof *p);
        to->n += from->n;
        to->cap = to->n + 1;
        from->n = 0;
    }
}

static int run_all(run *r, rg_err *err) {
    offer(r);
    for (size_t i = 0; i < r->n; i++) do_part(&r->parts[i]);
    pthread_mutex_lock(&r->lock);
    while (r->n_done < r->n) rg__cond_wait(&r->done, &r->lock, RG__NO_DEADLINE);
    pthread_mutex_unlock(&r->lock);
    take_traces(r);
    for (size_t i = 0; i < r->n; i++) {
        if (r->parts[i].rc >= 0) continue;
        if (err) *err = r->parts[i].err;
        return r->parts[i].rc;
    }
    return RG_OK;
}

/* ---- order ---- */

static int sign(int64_t a, int64_t b) { return (a > b) - (a < b); }

static int compare_bytes(rg__slice a, rg__slice b) {
    size_t n = a.len < b.len ? a.len : b.len;
    int d = n ? memcmp(a.p, b.p, n) : 0;
    return d ? d : (a.len > b.len) - (a.len < b.len);
}

/* Canonical: as many decimals on both sides, no leading zeros. */
static int compare_decimals(rg__slice a, rg__slice b) {
    bool minus_a = a.len && a.p[0] == '-';
    bool minus_b = b.len && b.p[0] == '-';
    if (minus_a != minus_b) return minus_a ? -1 : 1;
    int d = a.len != b.len ? (a.len > b.len ? 1 : -1) : compare_bytes(a, b);
    return minus_a ? -d : d;
}

/* The server pads the shorter one with spaces, as most collations have it. */
static int compare_padded(rg__slice a, rg__slice b) {
    size_t n = a.len > b.len ? a.len : b.len;
    for (size_t i = 0; i < n; i++) {
        unsigned char x = i < a.len ? (unsigned char)a.p[i] : ' ';
        unsigned char y = i < b.len ? (unsigned char)b.p[i] : ' ';
        if (x != y) return x > y ? 1 : -1;
    }
    return 0;
}

static int compare_text(const rg__column *c, rg__slice a, rg__slice b) {
    if (c->kind == RG_DECIMAL) return compare_decimals(a, b);
    bool text = c->kind == RG_STRING || c->kind == RG_TEXT;
    bool nopad = c->collation && (strstr(c->collation, "nopad") || strstr(c->collation, "_0900_"));
    return text && !nopad ? compare_padded(a, b) : compare_bytes(a, b);
}

static int compare_values(const rg_type *t, uint32_t col, const void *a, const void *b) {
    rg__value x = rg__row_value(t, a, col);
    rg__value y = rg__row_value(t, b, col);
    if (x.is_null || y.is_null) return (int)y.is_null - (int)x.is_null;
    if (x.store <= RG_STORE_I64) return sign(x.i, y.i);
    if (x.store <= RG_STORE_U64) return (x.u > y.u) - (x.u < y.u);
    if (x.store <= RG_STORE_F64) return (x.d > y.d) - (x.d < y.d);
    return compare_text(&t->columns[col], x.s, y.s);
}

static int compare_rows(const void *a, const void *b, void *arg) {
    const rg_op *op = arg;
    const rg__spread *s = op->spread;
    const void *x = rg_block_data(*(rg_block *const *)a);
    const void *y = rg_block_data(*(rg_block *const *)b);
    for (size_t i = 0; i < s->n_orders; i++) {
        int d = compare_values(op->type, s->orders[i].column, x, y);
        if (d) return s->orders[i].desc ? -d : d;
    }
    return compare_values(op->type, 0, x, y); /* ties by id, so that pages fit together */
}

/* All rows of all parts, in the order of the parts. */
static int gather(run *r, rg__rows *out) {
    for (size_t i = 0; i < r->n; i++) {
        rg__rows *from = &r->parts[i].answer.rows;
        for (size_t k = 0; k < from->n; k++) {
            rg_block *row = from->items[k];
            from->items[k] = NULL;
            if (rg__rows_add(out, row) < 0) return RG_ENO_MEMORY;
        }
    }
    return RG_OK;
}

/* Leaves what limit and offset ask for. */
static void cut(rg__rows *rows, uint64_t offset, uint64_t limit) {
    size_t from = offset < rows->n ? (size_t)offset : rows->n;
    size_t to = limit && limit < rows->n - from ? from + (size_t)limit : rows->n;
    for (size_t i = 0; i < rows->n; i++)
        if (i < from || i >= to) rg_block_unref(rows->items[i]);
    if (from) memmove(rows->items, rows->items + from, (to - from) * sizeof *rows->items);
    rows->n = to - from;
}

/* ---- search ---- */

/* Ids in an order are read with the rows that tell it. */
static int part_mode(const rg_op *op) { return op->mode == 1 && op->spread->n_orders ? 0 : op->mode; }

static int search_part(run *r, size_t i, const rg__ctx *ctx, rg_err *err) {
    const rg_op *op = r->op;
    uint64_t limit = op->limit ? op->offset + op->limit : 0;
    return rg__read_search(op, op->spread->types[i], ctx, 0, limit, part_mode(op),
                           &r->parts[i].answer, err);
}

static int ids_of_rows(rg_op *op) {
    for (size_t i = 0; i < op->rows.n; i++)
        if (rg__op_add_u64(op, rg__row_id(op->type, rg_block_data(op->rows.items[i]))) < 0)
            return RG_ENO_MEMORY;
    rg__rows_deinit(&op->rows);
    return RG_OK;
}

static int gather_ids(run *r, rg_op *op) {
    uint64_t passed = 0;
    for (size_t i = 0; i < r->n; i++) {
        const rg__answer *a = &r->parts[i].answer;
        for (size_t k = 0; k < a->n_ids; k++, passed++) {
            bool wanted = passed >= op->offset && (!op->limit || passed < op->offset + op->limit);
            if (wanted && rg__op_add_u64(op, a->ids[k]) < 0) return RG_ENO_MEMORY;
        }
    }
    return RG_OK;
}

static int merge(run *r, rg_op *op) {
    for (size_t i = 0; i < r->n; i++) op->number += r->parts[i].answer.number;
    if (part_mode(op) == 1) return gather_ids(r, op);
    int rc = gather(r, &op->rows);
    if (rc < 0) return rc;
    if (op->spread->n_orders && op->rows.n)
        qsort_r(op->rows.items, op->rows.n, sizeof *op->rows.items, compare_rows, op);
    cut(&op->rows, op->offset, op->limit);
    return op->mode == 1 ? ids_of_rows(op) : RG_OK;
}

int rg__spread_search(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    run *r = run_new(op, ctx, search_part, err);
    if (!r) return RG_ENO_MEMORY;
    int rc = run_all(r, err);
    if (rc >= 0 && merge(r, op) < 0) rc = rg__fail_memory(err);
    run_unref(r);
    return rc;
}

/* ---- lookup ---- */

static int lookup_part(run *r, size_t i, const rg__ctx *ctx, rg_err *err) {
    const rg_op *op = r->op;
    rg_builder *key = i ? op->spread->keys[i] : op->key;
    return rg__load_lookup(&op->engine->store, ctx, op->spread->types[i], op->index, key,
                           op->lock, &r->parts[i].answer.rows, err);
}

int rg__spread_lookup(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    run *r = run_new(op, ctx, lookup_part, err);
    if (!r) return RG_ENO_MEMORY;
    int rc = run_all(r, err);
    if (rc >= 0 && gather(r, &op->rows) < 0) rc = rg__fail_memory(err);
    if (rc >= 0 && op->rows.n)
        qsort_r(op->rows.items, op->rows.n, sizeof *op->rows.items, compare_rows, op);
    run_unref(r);
    return rc;
}

/* ---- get ---- */

static int get_part(run *r, size_t i, const rg__ctx *ctx, rg_err *err) {
    part *p = &r->parts[i];
    p->answer.rows.items = rg__calloc(p->n_ids + 1, sizeof *p->answer.rows.items);
    if (!p->answer.rows.items) return rg__fail_memory(err);
    p->answer.rows.n = p->answer.rows.cap = p->n_ids;
    return rg__load_rows(&r->op->engine->store, ctx, r->op->spread->types[i], p->ids, p->n_ids,
                         rg__op_load_flags(r->op, ctx, r->op->spread->types[i]),
                         p->answer.rows.items, err);
}

static int share_ids(run *r, const rg_op *op) {
    for (size_t i = 0; i < r->n; i++) {
        r->parts[i].ids = rg__reallocarray(NULL, op->n_ids + 1, sizeof *r->parts[i].ids);
        r->parts[i].places = rg__reallocarray(NULL, op->n_ids + 1, sizeof *r->parts[i].places);
        if (!r->parts[i].ids || !r->parts[i].places) return RG_ENO_MEMORY;
    }
    for (size_t k = 0; k < op->n_ids; k++) {
        part *p = &r->parts[op->spread->of ? op->spread->of[k] : 0];
        p->ids[p->n_ids] = op->ids[k];
        p->places[p->n_ids++] = k;
    }
    return RG_OK;
}

int rg__spread_get(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    run *r = run_new(op, ctx, get_part, err);
    if (!r) return RG_ENO_MEMORY;
    int rc = share_ids(r, op) < 0 ? rg__fail_memory(err) : run_all(r, err);
    for (size_t i = 0; rc >= 0 && i < r->n; i++) {
        part *p = &r->parts[i];
        for (size_t k = 0; k < p->n_ids; k++) {
            op->rows.items[p->places[k]] = p->answer.rows.items[k];
            p->answer.rows.items[k] = NULL;
        }
    }
    run_unref(r);
    return rc;
}
