/* SPDX-License-Identifier: MIT */
/* Bytes of packed rows, for the files of this folder: cells, null bits, the checksum. */
#ifndef RG_ROW_PACK_H
#define RG_ROW_PACK_H

#include "row/row.h"

enum { RG__ROW_MAX = 1 << 30 }; /* bytes of a row: what a packet of the server may hold */

static const uint8_t rg__widths[] = {
    [RG_STORE_I8] = 1,  [RG_STORE_I16] = 2, [RG_STORE_I32] = 4, [RG_STORE_I64] = 8,
    [RG_STORE_U8] = 1,  [RG_STORE_U16] = 2, [RG_STORE_U32] = 4, [RG_STORE_U64] = 8,
    [RG_STORE_F32] = 4, [RG_STORE_F64] = 8, [RG_STORE_VAR] = 8,
};

static inline uint32_t rg__load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t rg__load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void rg__store32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void rg__store64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }

static inline bool rg__cell_null(const rg__column *c, const uint8_t *row) {
    return (row[c->null_at] & c->null_bit) != 0;
}
/* The bits of a fixed value, zero-extended. */
static inline uint64_t rg__cell_bits(const rg__column *c, const uint8_t *row) {
    uint64_t v = 0;
    const uint8_t *from = row + c->offset;
    switch (rg__widths[c->store]) { /* lengths that are known make no calls */
    case 1: v = *from; break;
    case 2: memcpy(&v, from, 2); break;
    case 4: memcpy(&v, from, 4); break;
    default: memcpy(&v, from, 8);
    }
    return v;
}
/* Writes a value that is not NULL, truncated to the column's width. */
static inline void rg__cell_put(const rg__column *c, uint8_t *row, uint64_t bits) {
    uint8_t *to = row + c->offset;
    switch (rg__widths[c->store]) {
    case 1: *to = (uint8_t)bits; break;
    case 2: memcpy(to, &bits, 2); break;
    case 4: memcpy(to, &bits, 4); break;
    default: memcpy(to, &bits, 8);
    }
    row[c->null_at] &= (uint8_t)~c->null_bit;
}
static inline void rg__cell_put_null(const rg__column *c, uint8_t *row) {
    memset(row + c->offset, 0, rg__widths[c->store]);
    row[c->null_at] |= c->null_bit;
}
/* VAR: where its bytes are and how many. */
static inline uint32_t rg__var_at(const rg__column *c, const uint8_t *row) {
    return rg__load32(row + c->offset);
}
static inline uint32_t rg__var_len(const rg__column *c, const uint8_t *row) {
    return rg__load32(row + c->offset + 4);
}
static inline void rg__var_put(const rg__column *c, uint8_t *row, uint32_t at, uint32_t len) {
    rg__store32(row + c->offset, at);
    rg__store32(row + c->offset + 4, len);
    row[c->null_at] &= (uint8_t)~c->null_bit;
}

/* The checksum that the row should have. */
uint64_t rg__row_hash(const uint8_t *row, uint32_t len);
uint64_t rg__row_hash_own(uint8_t *row, uint32_t len); /* of bytes that nobody else sees: without a copy */
/* Which columns have bytes that are no value of theirs. */
bool rg__column_guarded(const rg__column *c);
/* Writes length and checksum: the last step of making a row. */
void rg__row_seal(uint8_t *row, uint32_t len);

#endif
