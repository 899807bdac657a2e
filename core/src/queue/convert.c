/* SPDX-License-Identifier: MIT */
/* Values on their way from the sender's kind of column to this process' own: what still fits is
 * converted, everything else is refused. */
#include <math.h>

#include "queue/payload.h"

#include "base/err.h"
#include "row/listed.h"
#include "schema/type.h"

/* Families of kinds whose values travel alike. */
typedef enum family { SIGNED = 1, UNSIGNED, REAL, DECIMAL, TEXT, BYTES, DATE, DATETIME, TIME,
                     REFS } family;

#define DAY_US INT64_C(86400000000)
enum { FIRST_DAY = -719528, LAST_DAY = 2932896 }; /* 0000-01-01, 9999-12-31 */
#define LONGEST_TIME_US INT64_C(3020399999999)    /* 838:59:59.999999 */

static family family_of(int kind) {
    switch (kind) {
    case RG_I8: case RG_I16: case RG_I24: case RG_I32: case RG_I64: return SIGNED;
    case RG_FLOAT: case RG_DOUBLE: return REAL;
    case RG_DECIMAL: return DECIMAL;
    case RG_STRING: case RG_TEXT: case RG_JSON: case RG_ENUM: case RG_SET: return TEXT;
    case RG_BINARY: case RG_BLOB: return BYTES;
    case RG_DATE: return DATE;
    case RG_DATETIME: return DATETIME;
    case RG_TIME: return TIME;
    case RG_REFS: return REFS;
    default: return UNSIGNED;
    }
}

static int refuse(const rg__column *c, rg_err *err, const char *why) {
    return rg__fail_field(err, c->name, "the queued value of \"%s\" %s", c->name, why);
}

static int other_kind(const rg__column *c, rg_err *err) {
    return refuse(c, err, "is of a kind that the column does not take any more");
}

/* ---- numbers ---- */

static int to_integer(const rg__column *c, family from, rg__value *v, rg_err *err) {
    const rg__kind_info *k = rg__kind(c->kind);
    if (from != SIGNED && from != UNSIGNED) return other_kind(c, err);
    bool negative = from == SIGNED && v->i < 0;
    uint64_t magnitude = from == SIGNED ? (uint64_t)v->i : v->u;
    uint64_t max = c->kind == RG_BOOL ? 1 : c->kind == RG_REF ? UINT64_MAX : k->max;
    if (negative ? v->i < k->min : magnitude > max) return refuse(c, err, "is out of range");
    v->i = (int64_t)magnitude;
    v->u = magnitude;
    v->is_null = c->kind == RG_REF && magnitude == 0 && (c->flags & RG_COL_NULLABLE);
    return RG_OK;
}

static int to_real(const rg__column *c, family from, rg__value *v, rg_err *err) {
    if (from == SIGNED) v->d = (double)v->i;
    else if (from == UNSIGNED) v->d = (double)v->u;
    else if (from != REAL) return other_kind(c, err);
    if (!isfinite(v->d)) return refuse(c, err, "is not finite");
    if (c->kind == RG_FLOAT && !isfinite((float)v->d)) return refuse(c, err, "is out of range");
    if (c->kind == RG_FLOAT) v->d = (float)v->d;
    if (v->d == 0) v->d = 0; /* rows know one zero */
    return RG_OK;
}

static int to_decimal(const rg__column *c, family from, rg__value *v, rg__buf *scratch,
                      rg_err *err) {
    size_t start = scratch->len;
    if (from == SIGNED) rg__buf_i64(scratch, v->i);
    else if (from == UNSIGNED) rg__buf_u64(scratch, v->u);
    else if (from != DECIMAL) return other_kind(c, err);
    rg__slice text = from == DECIMAL ? v->s : (rg__slice){scratch->p + start, scratch->len - start};
    start = scratch->len;
    if (rg__decimal_canonical(text.p, text.len, c->precision, c->scale, scratch) < 0)
        return refuse(c, err, "does not fit the decimal");
    v->s = (rg__slice){scratch->p + start, scratch->len - start};
    return RG_OK;
}

/* ---- text ---- */

static int to_enum(const rg__column *c, rg__value *v, rg_err *err) {
    v->u = rg__listed_number(c, v->s);
    return v->u ? RG_OK : refuse(c, err, "is not among the allowed ones any more");
}

static int to_set(const rg__column *c, rg__value *v, rg_err *err) {
    rg__slice at;
    return rg__listed_bits(c, v->s, &v->u, &at) ? RG_OK : refuse(c, err, "has a member that is not allowed any more");
}

static int to_text(const rg__column *c, family from, rg__value *v, rg_err *err) {
    size_t n_chars = 0;
    if (from != TEXT) return other_kind(c, err);
    if (!rg__utf8_valid(v->s.p, v->s.len, &n_chars)) return refuse(c, err, "is not UTF-8");
    if (c->kind == RG_ENUM) return to_enum(c, v, err);
    if (c->kind == RG_SET) return to_set(c, v, err);
    size_t n = c->kind == RG_STRING ? n_chars : v->s.len;
    if (c->length && n > c->length) return refuse(c, err, "is too long");
    return RG_OK;
}

static int to_bytes(const rg__column *c, family from, const rg__value *v, rg_err *err) {
    if (from != BYTES && from != TEXT) return other_kind(c, err);
    if (c->length && v->s.len > c->length) return refuse(c, err, "is too long");
    return RG_OK;
}

static int to_refs(const rg__column *c, family from, const rg__value *v, rg_err *err) {
    if (from != REFS) return other_kind(c, err);
    return v->s.len % 8 ? refuse(c, err, "is no list of references") : RG_OK;
}

/* ---- time ---- */

static int to_time(const rg__column *c, family from, rg__value *v, rg_err *err) {
    if (family_of(c->kind) == DATETIME && from == DATE) {
        if (v->i < FIRST_DAY || v->i > LAST_DAY) return refuse(c, err, "is out of range");
        v->i *= DAY_US;
        from = DATETIME;
    }
    if (family_of(c->kind) != from) return other_kind(c, err);
    int64_t first = from == DATE ? FIRST_DAY : from == DATETIME ? FIRST_DAY * DAY_US :
        -LONGEST_TIME_US;
    int64_t last = from == DATE       ? LAST_DAY
                   : from == DATETIME ? (LAST_DAY + 1) * DAY_US - 1
                                      : LONGEST_TIME_US;
    return v->i < first || v->i > last ? refuse(c, err, "is out of range") : RG_OK;
}

int rg__value_convert(const rg__column *c, int kind, rg__value *v, rg__buf *scratch, rg_err *err) {
    family from = family_of(kind);
    v->store = c->store;
    if (v->is_null)
        return c->flags & RG_COL_NULLABLE ? RG_OK : refuse(c, err, "is NULL, which it may not be");
    switch (family_of(c->kind)) {
    case SIGNED: case UNSIGNED: return to_integer(c, from, v, err);
    case REAL: return to_real(c, from, v, err);
    case DECIMAL: return to_decimal(c, from, v, scratch, err);
    case TEXT: return to_text(c, from, v, err);
    case BYTES: return to_bytes(c, from, v, err);
    case REFS: return to_refs(c, from, v, err);
    case DATE: case DATETIME: case TIME: return to_time(c, from, v, err);
    }
    return other_kind(c, err);
}
