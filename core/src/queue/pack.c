/* SPDX-License-Identifier: MIT */
/* Rows that stand for some of their columns only, packed straight from values. */
#include "queue/payload.h"

#include "row/pack.h"

static uint64_t bits_of(const rg__column *c, const rg__value *v) {
    uint64_t bits = 0;
    float single = (float)v->d;
    if (c->store == RG_STORE_F32) memcpy(&bits, &single, sizeof single);
    else if (c->store == RG_STORE_F64) memcpy(&bits, &v->d, sizeof bits);
    else if (c->store <= RG_STORE_I64) bits = (uint64_t)v->i;
    else bits = v->u;
    return bits;
}

static size_t measure(const rg_type *t, const rg__value *values, const uint8_t *given) {
    size_t len = t->fixed_end;
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (t->columns[i].store == RG_STORE_VAR && given[i] && !values[i].is_null)
            len += values[i].s.len;
    return len;
}

/* Returns where the variable area ends now. */
static uint32_t put(const rg__column *c, uint8_t *row, const rg__value *v, uint32_t end) {
    bool nullable = c->flags & RG_COL_NULLABLE;
    if ((!v || v->is_null) && nullable) {
        rg__cell_put_null(c, row);
    } else if (c->store == RG_STORE_VAR) {
        size_t len = v && !v->is_null ? v->s.len : 0;
        if (len) memcpy(row + end, v->s.p, len);
        rg__var_put(c, row, end, (uint32_t)len);
        end += (uint32_t)len;
    } else {
        rg__cell_put(c, row, v && !v->is_null ? bits_of(c, v) : 0);
    }
    return end;
}

rg_block *rg__row_partial(const rg_type *t, const rg__value *values, const uint8_t *given) {
    size_t len = measure(t, values, given);
    rg_block *block = len <= RG__ROW_MAX ? rg__block_new((uint32_t)len) : NULL;
    if (!block) return NULL;
    uint8_t *row = block->data;
    memset(row, 0, t->fixed_end);
    memcpy(row, &(uint16_t){RG_ROW_MAGIC}, 2);
    row[2] = RG_ROW_FORMAT;
    memcpy(row + 8, &t->fingerprint, 8);
    uint32_t end = t->fixed_end;
    for (uint32_t i = 0; i < t->n_columns; i++)
        end = put(&t->columns[i], row, given[i] ? &values[i] : NULL, end);
    rg__row_seal(row, (uint32_t)len);
    return block;
}
