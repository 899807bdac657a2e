/* SPDX-License-Identifier: MIT */
/* Reading checked rows: values, comparisons, merges. */
#include "base/err.h"
#include "row/pack.h"

/* ---- values ---- */

static double double_of(const rg__column *c, uint64_t bits) {
    float f;
    double d;
    memcpy(&f, &bits, sizeof f);
    memcpy(&d, &bits, sizeof d);
    return c->store == RG_STORE_F32 ? (double)f : d;
}

static int64_t signed_of(const rg__column *c, uint64_t bits) {
    unsigned unused = 64 - 8u * rg__widths[c->store];
    return (int64_t)(bits << unused) >> unused;
}

rg__value rg__row_value(const rg_type *t, const void *row, uint32_t col) {
    const rg__column *c = &t->columns[col];
    rg__value v = {.store = c->store, .is_null = rg__cell_null(c, row)};
    if (v.is_null) return v;
    switch (c->store) {
    case RG_STORE_VAR:
        v.s = (rg__slice){(const char *)row + rg__var_at(c, row), rg__var_len(c, row)};
        break;
    case RG_STORE_F32:
    case RG_STORE_F64: v.d = double_of(c, rg__cell_bits(c, row)); break;
    case RG_STORE_U8:
    case RG_STORE_U16:
    case RG_STORE_U32:
    case RG_STORE_U64: v.u = rg__cell_bits(c, row); break;
    default: v.i = signed_of(c, rg__cell_bits(c, row));
    }
    return v;
}

uint64_t rg__row_version(const rg_type *t, const void *row) {
    rg__value v = rg__row_value(t, row, t->version_column);
    return v.store <= RG_STORE_I64 ? (uint64_t)v.i : v.u;
}

/* ---- comparing ---- */

static inline bool same(const void *a, const void *b, size_t width) {
    return memcmp(a, b, width) == 0;
}

static bool var_eq(const rg__column *c, const uint8_t *a, const uint8_t *b) {
    uint32_t len = rg__var_len(c, a);
    if (len != rg__var_len(c, b)) return false;
    return same(a + rg__var_at(c, a), b + rg__var_at(c, b), len);
}

/* NULL cells are zero, so that cells are equal when NULL in both rows. */
static inline bool cell_eq(const rg__column *c, const uint8_t *a, const uint8_t *b) {
    if ((a[c->null_at] ^ b[c->null_at]) & c->null_bit) return false;
    a += c->offset;
    b += c->offset;
    switch (rg__widths[c->store]) {
    case 1: return *a == *b;
    case 2: return same(a, b, 2);
    case 4: return same(a, b, 4);
    default: return same(a, b, 8);
    }
}

static inline bool column_eq(const rg__column *c, const uint8_t *a, const uint8_t *b) {
    if (c->store != RG_STORE_VAR) return cell_eq(c, a, b);
    return !((a[c->null_at] ^ b[c->null_at]) & c->null_bit) && var_eq(c, a, b);
}

bool rg__row_column_eq(const rg_type *t, const void *a, const void *b, uint32_t col) {
    return column_eq(&t->columns[col], a, b);
}

uint32_t rg__row_diff(const rg_type *t, const void *a, const void *b, uint8_t *mask) {
    uint32_t n = 0;
    memset(mask, 0, t->n_columns);
    uint32_t len = rg__load32((const uint8_t *)a + 4);
    if (len == rg__load32((const uint8_t *)b + 4) && same(a, b, len)) return 0;
    for (uint32_t i = 0; i < t->n_columns; i++) n += mask[i] = !column_eq(&t->columns[i], a, b);
    return n;
}

/* ---- merging ---- */

static uint64_t merged_length(const rg_type *t, const uint8_t *base, const uint8_t *changes,
                              const uint8_t *mask) {
    uint64_t len = t->fixed_end;
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (t->columns[i].store == RG_STORE_VAR)
            len += rg__var_len(&t->columns[i], mask[i] ? changes : base);
    return len;
}

static void merge_fixed(const rg__column *c, uint8_t *row, const uint8_t *from) {
    if (rg__cell_null(c, from)) rg__cell_put_null(c, row);
    else rg__cell_put(c, row, rg__cell_bits(c, from));
}

/* Returns where the variable area ends now. */
static uint32_t merge_var(const rg__column *c, uint8_t *row, const uint8_t *from, uint32_t end) {
    if (rg__cell_null(c, from)) {
        rg__cell_put_null(c, row);
        return end;
    }
    uint32_t len = rg__var_len(c, from);
    memcpy(row + end, from + rg__var_at(c, from), len);
    rg__var_put(c, row, end, len);
    return end + len;
}

rg_block *rg__row_merge(const rg_type *t, const void *base, const void *changes,
                        const uint8_t *mask, rg_err *err) {
    uint64_t len = merged_length(t, base, changes, mask);
    rg_block *block = len <= RG__ROW_MAX ? rg__block_new((uint32_t)len) : NULL;
    if (!block) {
        if (len <= RG__ROW_MAX) rg__fail_memory(err);
        else rg__type_fail(t, NULL, err, "row too large, max %d bytes allowed", RG__ROW_MAX);
        return NULL;
    }
    uint8_t *row = memcpy(block->data, base, t->fixed_end);
    uint32_t end = t->fixed_end;
    for (uint32_t i = 0; i < t->n_columns; i++) {
        const rg__column *c = &t->columns[i];
        const uint8_t *from = mask[i] ? changes : base;
        if (c->store == RG_STORE_VAR) end = merge_var(c, row, from, end);
        else if (mask[i]) merge_fixed(c, row, from);
    }
    rg__row_seal(row, end);
    return block;
}
