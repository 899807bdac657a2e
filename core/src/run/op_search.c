/* SPDX-License-Identifier: MIT */
/* Searches that are answered by the cache. */
#include <regolith/cache.h>

#include "base/alloc.h"
#include "run/op.h"
#include "unit/search.h"

/* Ids count as rows without any. */
static int count_ids(rg_op *op) {
    if (op->mode != RG__SEARCH_IDS) return RG_OK;
    op->rows.items = rg__calloc(op->n_ids + 1, sizeof *op->rows.items);
    if (!op->rows.items) return RG_ENO_MEMORY;
    op->rows.n = op->rows.cap = op->n_ids;
    return RG_OK;
}

/* From the cache, or into it. */
static int run_cached_search(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__op_place_params(op);
    rg__searching s = {.type = op->type, .where = {op->text.p, op->text.len}, .mode = op->mode,
                       .params = op->params, .n_params = op->n_params, .offset = op->offset,
                       .limit = op->limit, .ttl_ms = (uint64_t)op->number_in, .tables = op->own,
                       .n_tables = op->index};
    rg__found_rows found = {0};
    int rc = rg__search_cached(&op->engine->store, ctx, &s, &found, err);
    op->rows = found.rows;
    op->ids = found.ids;
    op->n_ids = found.n_ids;
    op->number = (double)found.count;
    if (rc >= 0 && count_ids(op) < 0) rc = rg__fail_memory(err);
    if (rc < 0) rg__err_about(err, "searching", op->type->name);
    return rc;
}

static void free_tables(rg_op *op) { rg__free(op->own); }

int rg_op_search_reads(rg_op *op, uint32_t type, rg_err *err) {
    const rg_type *t = rg__engine_type(op->engine, type, err);
    if (!t) return RG_EINVALID;
    if (!t->cache_queries || t->redis_pool != op->type->redis_pool)
        return rg__fail(err, RG_EINVALID, "searches of %s are not cached%s", t->name,
                        t->cache_queries ? " in the same Redis" : "");
    const rg_type **list = rg__reallocarray(op->own, op->index + 1, sizeof *list);
    if (!list) return rg__fail_memory(err);
    op->own = list;
    op->cleanup = free_tables;
    list[op->index++] = t;
    return RG_OK;
}

int rg_op_search_cached(rg_op *op, double ttl_ms, rg_err *err) {
    if (!(ttl_ms >= 1 && ttl_ms <= 1e14))
        return rg__fail_field(err, "ttl_s", "the life of a cached search is over a millisecond");
    op->number_in = ttl_ms;
    op->run = run_cached_search;
    return rg_op_search_reads(op, op->type->number, err);
}
