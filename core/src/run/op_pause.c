/* SPDX-License-Identifier: MIT */
/* An operation that only lets time pass, without holding the host's thread. */
#include "run/op.h"

static int run_pause(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    int64_t ms = (int64_t)op->number_in;
    if (rg__left_ms(ctx->deadline_ms) <= ms) return rg__fail(err, RG_ETIMEOUT, "the deadline passed");
    rg__sleep_ms(ms);
    return RG_OK;
}

rg_op *rg_op_pause(rg_engine *engine, double ms, rg_err *err) {
    if (!(ms >= 0 && ms <= 1e6)) {
        rg__fail(err, RG_EINVALID, "a pause lasts at most 1,000,000 ms");
        return NULL;
    }
    rg_op *op = rg__op_new(engine, run_pause, err);
    if (op) op->number_in = ms;
    return op;
}

double rg_monotonic_ms(void) { return (double)rg__now_ms(); }
