/* SPDX-License-Identifier: MIT */
/* Queued writes that an earlier epoch left: they belong to this one, or were applied long ago. */
#include "base/err.h"
#include "cache/shared.h"

RG__SCRIPT(adopt, adopt);

uint64_t rg__shared_epoch(const rg__shared *s) {
    return atomic_load_explicit(&s->epoch, memory_order_relaxed);
}

static int adopt_chunk(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                       uint64_t epoch, const rg__buf *ledgers, rg_err *err) {
    rg__args a;
    redisReply *r = NULL;
    rg__args_init(&a);
    rg__args_keys(&a, s, keys, n);
    rg__args_add(&a, &epoch, sizeof epoch);
    rg__args_buf(&a, ledgers);
    int rc = rg__shared_run(s, ctx, &adopt, (int)n + 2, &a, &r, err);
    freeReplyObject(r);
    rg__args_deinit(&a);
    return rc;
}

int rg__shared_adopt(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                     uint64_t epoch, const char (*ledgers)[48], uint32_t n_ledgers, rg_err *err) {
    rg__buf hexes = {0};
    int rc = RG_OK;
    for (uint32_t part = 0; rc == RG_OK && part < n_ledgers; part++) {
        char hex[RG__ID_HEX];
        if (!rg__id_to_hex(ledgers[part], part, hex))
            rc = rg__fail(err, RG_EINVALID, "no stream id: %s", ledgers[part]);
        else rg__buf_add(&hexes, hex, sizeof hex);
    }
    for (size_t at = 0; rc == RG_OK && at < n; at += RG__WRITE_CHUNK) {
        size_t some = n - at < RG__WRITE_CHUNK ? n - at : RG__WRITE_CHUNK;
        rc = adopt_chunk(s, ctx, keys + at, some, epoch, &hexes, err);
    }
    rg__buf_deinit(&hexes);
    return rc;
}
