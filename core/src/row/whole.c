/* SPDX-License-Identifier: MIT */
/* Whole numbers in rows: read and replaced as they lie there, without a builder. */
#include "row/pack.h"
#include "schema/type.h"

#define MAX_EXACT INT64_C(9007199254740992) /* 2^53: beyond it a double no longer tells integers apart */

static bool is_whole(const rg__column *c, const uint8_t *row) {
    return c->kind >= RG_I8 && c->kind <= RG_U64 && !rg__cell_null(c, row);
}

static bool fits(const rg__column *c, double v) {
    const rg__kind_info *kind = rg__kind(c->kind);
    return v >= -(double)MAX_EXACT && v <= (double)MAX_EXACT && v == (double)(int64_t)v && v >= (double)kind->min &&
           v <= (double)kind->max;
}

bool rg__row_is_whole(const rg_type *t, const void *row, uint32_t col, double v) {
    if (!is_whole(&t->columns[col], row)) return false;
    rg__value now = rg__row_value(t, row, col);
    if (now.store <= RG_STORE_I64)
        return now.i >= -MAX_EXACT && now.i <= MAX_EXACT && (double)now.i == v;
    return now.u <= (uint64_t)MAX_EXACT && (double)now.u == v;
}

bool rg__row_takes_whole(const rg_type *t, const void *row, uint32_t col, double v) {
    const rg__column *c = &t->columns[col];
    return col > 0 && is_whole(c, row) && fits(c, v);
}

rg_block *rg__row_with_whole(const rg_type *t, const rg_block *row, uint32_t col, double v) {
    rg_block *block = rg__block_dup(rg_block_data(row), rg_block_len(row));
    if (!block) return NULL;
    rg__cell_put(&t->columns[col], block->data, (uint64_t)(int64_t)v);
    rg__row_seal(block->data, block->len);
    return block;
}
