/* SPDX-License-Identifier: MIT */
/* The check of bytes that claim to be a row. What passes can be read by every accessor. */
#include "base/err.h"
#include "row/pack.h"
#include "schema/type.h"

#define FIRST_DAY (-719528) /* 0000-01-01 */
#define LAST_DAY 2932896    /* 9999-12-31 */
#define DAY_US INT64_C(86400000000)
#define MAX_TIME_US (INT64_C(3020399) * 1000000 + 999999)

/* ---- header ---- */

/* What is wrong, but for the checksum. */
static const char *fault_of_header(const uint8_t *row, size_t len) {
    uint16_t magic = 0;
    if (len < RG_ROW_HEADER) return "shorter than a header";
    memcpy(&magic, row, sizeof magic);
    if (magic != RG_ROW_MAGIC) return "not a row";
    if (row[2] != RG_ROW_FORMAT || row[3] != 0) return "unknown format";
    if (len > RG__ROW_MAX || rg__load32(row + 4) != len) return "wrong length";
    return NULL;
}

/* ---- null bitmap ---- */

/* The padding after the last column's bit is zero. */
static bool padding_clear(const rg_type *t, const uint8_t *row) {
    uint32_t end = RG_ROW_HEADER + (t->n_columns + 63) / 64 * 8;
    uint32_t at = RG_ROW_HEADER + t->n_columns / 8;
    if (at < end && row[at] >> (t->n_columns % 8)) return false;
    while (++at < end)
        if (row[at]) return false;
    return true;
}

static bool any_null(const rg_type *t, const uint8_t *row) {
    uint64_t bits = 0;
    for (uint32_t i = 0; i < (t->n_columns + 63) / 64; i++) bits |= rg__load64(row + RG_ROW_HEADER + (size_t)8 * i);
    return bits != 0;
}

static bool null_valid(const rg__column *c, const uint8_t *row) {
    return (c->flags & RG_COL_NULLABLE) && rg__cell_bits(c, row) == 0;
}

/* ---- values ---- */

static bool within(int64_t v, int64_t low, int64_t high) { return v >= low && v <= high; }

static bool medium_valid(const rg__column *c, uint64_t bits) {
    const rg__kind_info *kind = rg__kind(c->kind);
    return kind->is_unsigned ? bits <= kind->max
                             : within((int32_t)bits, kind->min, (int64_t)kind->max);
}

static bool float_canonical(const rg__column *c, uint64_t bits) {
    return bits != (c->store == RG_STORE_F32 ? UINT64_C(1) << 31 : UINT64_C(1) << 63);
}

static bool value_valid(const rg__column *c, const uint8_t *row) {
    uint64_t bits = rg__cell_bits(c, row);
    switch (c->kind) {
    case RG_BOOL: return bits <= 1;
    case RG_I24:
    case RG_U24: return medium_valid(c, bits);
    case RG_FLOAT:
    case RG_DOUBLE: return float_canonical(c, bits);
    case RG_ENUM: return bits >= 1 && bits <= c->n_values;
    case RG_SET: return c->n_values == 64 || bits >> c->n_values == 0;
    case RG_DATE: return within((int32_t)bits, FIRST_DAY, LAST_DAY);
    case RG_DATETIME: return within((int64_t)bits, FIRST_DAY * DAY_US, (LAST_DAY + 1) * DAY_US - 1);
    case RG_TIME: return within((int64_t)bits, -MAX_TIME_US, MAX_TIME_US);
    case RG_REF: return bits != 0 || !(c->flags & RG_COL_NULLABLE);
    default: return true;
    }
}

static const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end) {
    while (p < end && (uint8_t)(*p - '0') <= 9) p++;
    return p;
}

/* [-]digits[.digits]: it may go into a statement as it is. */
static bool decimal_shaped(const uint8_t *p, uint32_t len) {
    const uint8_t *end = p + len, *start = p + (len && *p == '-');
    const uint8_t *point = skip_digits(start, end);
    if (point == start || point == end) return point != start;
    return *point == '.' && point + 1 < end && skip_digits(point + 1, end) == end;
}

static inline bool bytes_valid(const rg__column *c, const uint8_t *p, uint32_t len) {
    if (c->kind == RG_REFS) return len % 8 == 0;
    return c->kind != RG_DECIMAL || decimal_shaped(p, len);
}

/* Each VAR begins where the one before ended. */
static inline bool var_valid(const rg__column *c, const uint8_t *row, uint32_t *end, uint32_t len) {
    uint32_t n = rg__var_len(c, row);
    if (rg__var_at(c, row) != *end || n > len - *end) return false;
    *end += n;
    return bytes_valid(c, row + *end - n, n);
}

bool rg__column_guarded(const rg__column *c) {
    switch (c->kind) {
    case RG_I8: case RG_I16: case RG_I32: case RG_I64:
    case RG_U8: case RG_U16: case RG_U32: case RG_U64: return false;
    case RG_REF: return (c->flags & RG_COL_NULLABLE) != 0;
    default: return true;
    }
}

/* Without NULLs only the guarded ones can be wrong. */
static const rg__column *fault_of_values(const rg_type *t, const uint8_t *row, uint32_t *end,
                                         uint32_t len) {
    for (const uint32_t *i = t->guarded; i < t->guarded + t->n_guarded; i++) {
        const rg__column *c = &t->columns[*i];
        bool ok = c->store == RG_STORE_VAR ? var_valid(c, row, end, len) : value_valid(c, row);
        if (!ok) return c;
    }
    return NULL;
}

static const rg__column *fault_of_columns(const rg_type *t, const uint8_t *row, uint32_t *end,
                                          uint32_t len) {
    if (!any_null(t, row)) return fault_of_values(t, row, end, len);
    for (uint32_t i = 0; i < t->n_columns; i++) {
        const rg__column *c = &t->columns[i];
        bool ok = rg__cell_null(c, row) ? null_valid(c, row)
                  : c->store == RG_STORE_VAR ? var_valid(c, row, end, len)
                                             : value_valid(c, row);
        if (!ok) return c;
    }
    return NULL;
}

static int fail(const rg_type *t, int code, rg_err *err, const char *why) {
    rg__fail(err, code, "row of %s: %s", t->name, why);
    rg__err_set_entity(err, t->name);
    return code;
}

static int check_body(const rg_type *t, const uint8_t *row, uint32_t len, rg_err *err) {
    uint32_t end = t->fixed_end;
    if (len < end) return fail(t, RG_ECORRUPT, err, "shorter than its columns");
    if (!padding_clear(t, row)) return fail(t, RG_ECORRUPT, err, "null bits beyond the columns");
    const rg__column *c = fault_of_columns(t, row, &end, len);
    if (c) {
        rg__fail(err, RG_ECORRUPT, "row of %s: column %s holds what it cannot", t->name, c->name);
        rg__err_set_entity(err, t->name);
        return RG_ECORRUPT;
    }
    return end == len ? RG_OK : fail(t, RG_ECORRUPT, err, "longer than its columns");
}

static int check(const rg_type *t, const uint8_t *row, uint32_t len, uint64_t hash, rg_err *err) {
    if (hash != rg__row_sum(row)) return fail(t, RG_ECORRUPT, err, "wrong checksum");
    if (rg__load64(row + 8) != t->fingerprint)
        return fail(t, RG_ESCHEMA, err, "packed for other columns");
    return check_body(t, row, len, err);
}

int rg__row_check(const rg_type *t, const void *p, size_t len, rg_err *err) {
    const char *fault = fault_of_header(p, len);
    if (fault) return fail(t, RG_ECORRUPT, err, fault);
    return check(t, p, (uint32_t)len, rg__row_hash(p, (uint32_t)len), err);
}

int rg__row_check_own(const rg_type *t, void *p, size_t len, rg_err *err) {
    const char *fault = fault_of_header(p, len);
    if (fault) return fail(t, RG_ECORRUPT, err, fault);
    return check(t, p, (uint32_t)len, rg__row_hash_own(p, (uint32_t)len), err);
}

int rg_row_sound(const rg_type *type, const uint8_t *row, uint32_t len) {
    return rg__row_check(type, row, len, NULL) == RG_OK;
}
