/* SPDX-License-Identifier: MIT */
/* Partitions of a queue: their names, and which row belongs to which. */
#include <stdio.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/err.h"
#include "queue/queue.h"
#include "row/row.h"

/* ---- names ---- */

static char *name_of(const char *base, uint32_t part) {
    rg__buf b = {0};
    rg__buf_str(&b, base);
    if (part) rg__buf_fmt(&b, ":%u", part);
    rg__buf_cstr(&b);
    if (!b.failed) return b.p;
    rg__buf_deinit(&b);
    return NULL;
}

static char *stream_of(const rg__queue *q, uint32_t part) {
    size_t len = strlen(q->stream);
    char suffix[16];
    if (q->part) len -= (size_t)snprintf(suffix, sizeof suffix, ":%u", q->part);
    char *base = rg__memdup0(q->stream, len);
    char *name = base ? name_of(base, part) : NULL;
    rg__free(base);
    return name;
}

int rg__queue_part(const rg__queue *q, uint32_t part, rg__queue *out, rg_err *err) {
    *out = *q;
    out->part = part;
    out->stream = stream_of(q, part);
    out->ledger = name_of(q->name, part);
    if (out->stream && out->ledger) return RG_OK;
    rg__queue_deinit(out);
    return rg__fail_memory(err);
}

void rg__queue_deinit(rg__queue *q) {
    rg__free(q->stream);
    rg__free(q->ledger);
    q->stream = q->ledger = NULL;
}

int rg__each_part(const rg__queue *q, uint32_t n, const rg__ctx *ctx, rg__part_fn fn, void *arg,
                  rg_err *err) {
    int rc = RG_OK;
    for (uint32_t p = 0; rc >= 0 && p < n; p++) {
        rg__queue part;
        rc = rg__queue_part(q, p, &part, err);
        if (rc < 0) break;
        rc = fn(&part, ctx, arg, err);
        rg__queue_deinit(&part);
    }
    return rc;
}

/* ---- rows ---- */

/* The same for a number in any integer column, so that an id and references to it agree. */
static uint64_t hash_of(const rg__value *v) {
    if (v->store == RG_STORE_VAR) return XXH3_64bits(v->s.p, v->s.len);
    uint64_t number = v->store <= RG_STORE_I64 ? (uint64_t)v->i : v->u;
    return XXH3_64bits(&number, sizeof number);
}

uint32_t rg__part_of(const rg_type *t, const void *row, uint32_t n_parts) {
    if (n_parts <= 1) return 0;
    if (t->queue_column >= 0) {
        rg__value v = rg__row_value(t, row, (uint32_t)t->queue_column);
        if (!v.is_null) return (uint32_t)(hash_of(&v) % n_parts);
    }
    return (uint32_t)(XXH3_64bits(t->queue_group, strlen(t->queue_group)) % n_parts);
}
