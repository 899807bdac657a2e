/* SPDX-License-Identifier: MIT */
/* Operations of the auditor. */
#include <stdio.h>

#include "base/alloc.h"
#include "run/op.h"
#include "unit/audit.h"

static int run_audit(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    rg__audit a = {.older_ms = (uint32_t)op->number_in};
    op->result = a.out = rg__result_new(rg__audit_columns, 5);
    if (!a.out) return rg__fail_memory(err);
    int rc = rg__audit_rows(&op->engine->store, ctx, op->type, op->ids, op->n_ids, &a, err);
    op->number = (double)a.compared;
    return rc;
}

rg_op *rg_op_audit(rg_engine *engine, uint32_t type, uint32_t older_ms, rg_err *err) {
    const rg_type *t = rg__engine_type(engine, type, err);
    rg_op *op = t ? rg__op_new(engine, run_audit, err) : NULL;
    if (!op) return NULL;
    op->type = t;
    op->number_in = older_ms;
    return op;
}

static int run_scan(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    static const char *const columns[] = {"cursor"};
    const char *cells[] = {op->stream_id};
    char cursor[24];
    snprintf(cursor, sizeof cursor, "%.23s", op->stream_id);
    op->result = rg__result_new(columns, 1);
    if (!op->result) return rg__fail_memory(err);
    int rc = rg__audit_scan(&op->engine->store, ctx, op->type, cursor, &op->ids, &op->n_ids, err);
    if (rc < 0) return rc;
    op->number = (double)op->n_ids;
    cells[0] = cursor;
    return rg__result_add_strings(op->result, cells) < 0 ? rg__fail_memory(err) : RG_OK;
}

rg_op *rg_op_audit_scan(rg_engine *engine, uint32_t type, const char *cursor, rg_err *err) {
    const rg_type *t = rg__engine_type(engine, type, err);
    rg_op *op = t ? rg__op_new(engine, run_scan, err) : NULL;
    if (!op) return NULL;
    op->type = t;
    snprintf(op->stream_id, sizeof op->stream_id, "%.23s", cursor); /* no stream's here */
    return op;
}
