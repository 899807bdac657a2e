/* SPDX-License-Identifier: MIT */
/* Layout of a type's rows, and their checksum. */
#include "base/alloc.h"
#include "base/err.h"
#include "row/listed.h"
#include "row/pack.h"
#include "schema/type.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are little-endian in memory");

/* ---- checksum ---- */

enum { SUM_AT = 16, SMALL = 512 };

uint64_t rg__row_hash_own(uint8_t *row, uint32_t len) {
    uint64_t sum = rg__load64(row + SUM_AT);
    rg__store64(row + SUM_AT, 0);
    uint64_t hash = XXH3_64bits(row, len);
    rg__store64(row + SUM_AT, sum);
    return hash;
}

uint64_t rg__row_hash(const uint8_t *row, uint32_t len) {
    if (len < SMALL) {
        uint8_t copy[SMALL];
        memcpy(copy, row, len);
        return rg__row_hash_own(copy, len);
    }
    static const uint8_t zero[8];
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, row, SUM_AT);
    XXH3_64bits_update(&state, zero, sizeof zero);
    XXH3_64bits_update(&state, row + RG_ROW_HEADER, len - RG_ROW_HEADER);
    return XXH3_64bits_digest(&state);
}

void rg__row_seal(uint8_t *row, uint32_t len) {
    rg__store32(row + 4, len);
    rg__store64(row + SUM_AT, 0);
    rg__store64(row + SUM_AT, XXH3_64bits(row, len));
}

/* ---- layout ---- */

static void place_null_bits(rg_type *t) {
    for (uint32_t i = 0; i < t->n_columns; i++) {
        t->columns[i].null_at = RG_ROW_HEADER + i / 8;
        t->columns[i].null_bit = (uint8_t)(1u << (i % 8));
    }
}

static uint32_t place_width(rg_type *t, uint32_t at, uint8_t width) {
    for (uint32_t i = 0; i < t->n_columns; i++) {
        if (rg__widths[t->columns[i].store] != width) continue;
        t->columns[i].offset = at;
        at += width;
    }
    return at;
}

/* Widest first, so that every value is aligned without gaps. */
static void place_columns(rg_type *t) {
    uint32_t at = RG_ROW_HEADER + (t->n_columns + 63) / 64 * 8;
    for (uint8_t width = 8; width > 0; width /= 2) at = place_width(t, at, width);
    t->fixed_end = at;
}

static void measure_listed(rg_type *t) {
    t->listed_max = 0;
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (rg__is_listed(&t->columns[i])) t->listed_max += rg__listed_max(&t->columns[i]);
}

static int list_guarded(rg_type *t, rg_err *err) {
    uint32_t *list = rg__reallocarray(t->guarded, t->n_columns, sizeof *list);
    if (!list) return rg__fail_memory(err);
    t->guarded = list;
    t->n_guarded = 0;
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (rg__column_guarded(&t->columns[i])) list[t->n_guarded++] = i;
    return RG_OK;
}

static int list_columns(rg_type *t, rg_err *err) {
    rg__buf list = {0};
    for (uint32_t i = 0; i < t->n_columns; i++) {
        if (i) rg__buf_char(&list, ',');
        rg__buf_str(&list, t->columns[i].quoted);
    }
    rg__buf_cstr(&list);
    rg__free(t->select_list);
    t->select_list = list.failed ? NULL : list.p;
    if (t->select_list) return RG_OK;
    rg__buf_deinit(&list);
    return rg__fail_memory(err);
}

/* A builder sets every default, so making one is the check of them all. */
static int check_defaults(const rg_type *t, rg_err *err) {
    rg_err fault = {0};
    rg_builder *b = rg_builder_new(t, &fault);
    rg_builder_free(b);
    if (b) return RG_OK;
    if (fault.code == RG_EINVALID) rg__err_prefix(&fault, "default of ");
    if (err) *err = fault;
    return fault.code;
}

/* The field that decides the partition: one whose value can name an aggregate. */
static int find_queue_column(rg_type *t, rg_err *err) {
    if (!t->queue_by) return RG_OK;
    int at = rg__type_column_find(t, t->queue_by, strlen(t->queue_by));
    if (at < 0)
        return rg__type_fail(t, NULL, err, "queue: there is no field '%s'", t->queue_by);
    switch (t->columns[at].kind) {
    case RG_FLOAT: case RG_DOUBLE: case RG_TEXT: case RG_BLOB: case RG_JSON: case RG_REFS: case RG_SET:
        return rg__type_fail(t, NULL, err, "queue: field '%s' is of a kind that names no aggregate",
                             t->queue_by);
    default: break;
    }
    t->queue_column = at;
    return RG_OK;
}

int rg_type_freeze(rg_type *t, rg_err *err) {
    if (t->frozen) return RG_OK;
    place_null_bits(t);
    place_columns(t);
    measure_listed(t);
    int rc = list_columns(t, err);
    if (rc >= 0) rc = list_guarded(t, err);
    if (rc >= 0) rc = find_queue_column(t, err);
    if (rc < 0) return rc;
    rc = rg__type_fingerprint(t, &t->fingerprint);
    for (uint32_t i = 0; rc >= 0 && i < t->n_indexes; i++)
        rc = rg__index_digest(t, &t->indexes[i], &t->indexes[i].digest);
    if (rc < 0) return rg__fail_memory(err);
    t->frozen = true;
    rc = check_defaults(t, err);
    t->frozen = rc == RG_OK;
    return rc;
}
