/* SPDX-License-Identifier: MIT */
/* Setters of numbers, booleans, references and times. */
#include "base/err.h"
#include "row/builder.h"
#include "row/scalar.h"
#include "schema/type.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define MAX_EXACT 9007199254740992.0 /* 2^53: beyond it a double no longer tells integers apart */
#define MAX_TIME_US (INT64_C(3020399) * 1000000 + 999999)   /* 838:59:59.999999 */
#define MIN_DATETIME_S (INT64_C(-30610224000))              /* 1000-01-01 00:00:00 */
#define MAX_DATETIME_S INT64_C(253402300799)                /* 9999-12-31 23:59:59 */

/* An integer of any kind: sign and magnitude. */
typedef struct whole {
    bool negative;
    uint64_t size;
} whole;

static whole whole_of(int64_t v) {
    return (whole){v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v};
}

enum { WHOLE_MAX = 24 };

static size_t format_whole(whole v, char text[WHOLE_MAX]) {
    return (size_t)snprintf(text, WHOLE_MAX, "%s%" PRIu64, v.negative ? "-" : "", v.size);
}

static const rg__column *column_of(const rg_builder *b, uint32_t col) {
    return &b->type->columns[col];
}

static int fail_number(const rg_builder *b, const rg__column *c, rg_err *err, const char *text,
                       double v) {
    char shown[RG__NUMBER_MAX];
    size_t n = rg__number_format(v, false, shown);
    return rg__builder_fail_value(b, c, err, text, shown, n);
}

static int fail_kind(const rg_builder *b, const rg__column *c, rg_err *err, const char *given) {
    return rg__builder_fail(b, c, err, "%s expected, got %s", rg__kind(c->kind)->name, given);
}

static int fail_col(const rg_builder *b, uint32_t col, rg_err *err) {
    return rg__type_fail(b->type, NULL, err, "there is no column %u", col);
}

/* ---- integers ---- */

static uint64_t max_of(const rg__kind_info *kind, uint32_t col) {
    return col == 0 ? UINT64_C(1) << 53 : kind->max;
}

static int refuse_range(const rg_builder *b, uint32_t col, whole v, rg_err *err) {
    const rg__column *c = column_of(b, col);
    const rg__kind_info *kind = rg__kind(c->kind);
    char value[WHOLE_MAX] = "***";
    if (!(c->flags & RG_COL_SENSITIVE)) format_whole(v, value);
    if (v.negative && kind->is_unsigned)
        return rg__builder_fail(b, c, err, "negative number %s not allowed", value);
    if (v.negative)
        return rg__builder_fail(b, c, err, "value %s is below min %" PRId64, value, kind->min);
    return rg__builder_fail(b, c, err, "value %s exceeds max %" PRIu64, value, max_of(kind, col));
}

static int set_integer(rg_builder *b, uint32_t col, whole v, rg_err *err) {
    const rg__kind_info *kind = rg__kind(column_of(b, col)->kind);
    uint64_t limit = v.negative ? 0 - (uint64_t)kind->min : max_of(kind, col);
    if (v.size > limit) return refuse_range(b, col, v, err);
    rg__builder_fixed(b, col, v.negative ? 0 - v.size : v.size, RG__SET);
    return RG_OK;
}

/* 0 is "refers to nothing", for which there is one encoding: NULL. */
static int set_reference(rg_builder *b, uint32_t col, whole v, rg_err *err) {
    bool nullable = column_of(b, col)->flags & RG_COL_NULLABLE;
    if (v.size == 0 && nullable) return rg_builder_null(b, col, err);
    return set_integer(b, col, v, err);
}

static int set_bool(rg_builder *b, uint32_t col, whole v, rg_err *err) {
    if (v.size > 1 || v.negative) {
        char text[WHOLE_MAX];
        size_t n = format_whole(v, text);
        return rg__builder_fail_value(b, column_of(b, col), err, "invalid value: ", text, n);
    }
    rg__builder_fixed(b, col, v.size, RG__SET);
    return RG_OK;
}

/* ---- floats and decimals ---- */

static int set_float(rg_builder *b, uint32_t col, double v, rg_err *err) {
    const rg__column *c = column_of(b, col);
    bool single = c->kind == RG_FLOAT;
    if (!isfinite(v)) return rg__builder_fail(b, c, err, "not a finite number");
    if (single && isinf((float)v)) return fail_number(b, c, err, "out of range for a float: ", v);
    rg__value value = {.store = c->store, .d = v};
    rg__builder_put(b, col, &value);
    b->state[col] = RG__SET;
    return RG_OK;
}

static int set_digits(rg_builder *b, uint32_t col, const rg__digits *x, rg_err *err) {
    const rg__column *c = column_of(b, col);
    char text[RG__DECIMAL_MAX];
    size_t n = rg__digits_format(x, c->precision, c->scale, text);
    if (n) return rg__builder_var(b, col, text, n, RG__SET, err);
    return rg__builder_fail(b, c, err, "decimal has too many digits, max (%u,%u)", c->precision,
                            c->scale);
}

/* A double rarely has the decimals that were meant: 0.1 + 0.2 is stored as 0.30. */
static int set_decimal_number(rg_builder *b, uint32_t col, double v, rg_err *err) {
    const rg__column *c = column_of(b, col);
    if (!isfinite(v)) return rg__builder_fail(b, c, err, "not a finite number");
    rg__digits x;
    rg__digits_of(&x, v, false);
    rg__digits_round(&x, c->scale);
    return set_digits(b, col, &x, err);
}

static int set_decimal_whole(rg_builder *b, uint32_t col, whole v, rg_err *err) {
    char text[WHOLE_MAX];
    return rg__builder_figures(b, col, text, format_whole(v, text), err);
}

static int set_float_whole(rg_builder *b, uint32_t col, whole v, rg_err *err) {
    double d = (double)v.size;
    if (d >= 18446744073709551616.0 || (uint64_t)d != v.size)
        return rg__builder_fail(b, column_of(b, col), err, "integer too large to be exact");
    return set_float(b, col, v.negative ? -d : d, err);
}

/* ---- times as numbers: seconds since 1970 UTC, or of a span ---- */

static int refuse_time(const rg_builder *b, const rg__column *c, rg_err *err) {
    return rg__builder_fail(b, c, err, "%s out of range", c->kind == RG_TIME ? "time" : "date");
}

static int set_time_us(rg_builder *b, uint32_t col, int64_t us, rg_err *err) {
    if (us > MAX_TIME_US || us < -MAX_TIME_US) return refuse_time(b, column_of(b, col), err);
    rg__builder_fixed(b, col, (uint64_t)us, RG__SET);
    return RG_OK;
}

/* Whole seconds (floored) and the microseconds after them. */
static int set_moment(rg_builder *b, uint32_t col, int64_t s, int64_t us, rg_err *err) {
    const rg__column *c = column_of(b, col);
    if (c->kind == RG_TIME && s >= -3020400 && s <= 3020399)
        return set_time_us(b, col, s * 1000000 + us, err);
    bool outside = s < MIN_DATETIME_S || s > MAX_DATETIME_S;
    if (c->kind == RG_TIME || outside) return refuse_time(b, c, err);
    int64_t days = s / 86400 - (s % 86400 < 0);
    rg__builder_fixed(b, col, (uint64_t)(c->kind == RG_DATE ? days : s * 1000000 + us), RG__SET);
    return RG_OK;
}

static int set_moment_whole(rg_builder *b, uint32_t col, whole v, rg_err *err) {
    if (v.size > (uint64_t)MAX_DATETIME_S) return refuse_time(b, column_of(b, col), err);
    return set_moment(b, col, v.negative ? -(int64_t)v.size : (int64_t)v.size, 0, err);
}

static int set_moment_number(rg_builder *b, uint32_t col, double v, rg_err *err) {
    const rg__column *c = column_of(b, col);
    if (!isfinite(v)) return rg__builder_fail(b, c, err, "not a finite number");
    if (fabs(v) > (double)MAX_DATETIME_S + 1) return refuse_time(b, c, err);
    double s = floor(v);
    int64_t us = llround((v - s) * 1e6);
    if (us == 1000000) return set_moment(b, col, (int64_t)s + 1, 0, err);
    return set_moment(b, col, (int64_t)s, us, err);
}

/* ---- from integers and doubles, by kind ---- */

static int set_whole(rg_builder *b, uint32_t col, whole v, rg_err *err) {
    if (col >= b->type->n_columns) return fail_col(b, col, err);
    switch (column_of(b, col)->kind) {
    case RG_BOOL: return set_bool(b, col, v, err);
    case RG_REF: return set_reference(b, col, v, err);
    case RG_FLOAT:
    case RG_DOUBLE: return set_float_whole(b, col, v, err);
    case RG_DECIMAL: return set_decimal_whole(b, col, v, err);
    case RG_DATE:
    case RG_DATETIME:
    case RG_TIME: return set_moment_whole(b, col, v, err);
    default:
        if (rg__kind(column_of(b, col)->kind)->is_integer) return set_integer(b, col, v, err);
        return fail_kind(b, column_of(b, col), err, "a number");
    }
}

int rg_builder_i64(rg_builder *b, uint32_t col, int64_t v, rg_err *err) {
    return set_whole(b, col, whole_of(v), err);
}

int rg_builder_u64(rg_builder *b, uint32_t col, uint64_t v, rg_err *err) {
    return set_whole(b, col, (whole){false, v}, err);
}

int rg_builder_bool(rg_builder *b, uint32_t col, int v, rg_err *err) {
    if (col >= b->type->n_columns) return fail_col(b, col, err);
    const rg__column *c = column_of(b, col);
    if (c->kind != RG_BOOL) return fail_kind(b, c, err, "a boolean");
    rg__builder_fixed(b, col, v != 0, RG__SET);
    return RG_OK;
}

static int set_whole_number(rg_builder *b, uint32_t col, double v, rg_err *err) {
    const rg__column *c = column_of(b, col);
    if (fabs(v) <= MAX_EXACT && v == (double)(int64_t)v)
        return set_whole(b, col, whole_of((int64_t)v), err);
    bool takes = c->kind == RG_BOOL || rg__kind(c->kind)->is_integer;
    if (!takes) return fail_kind(b, c, err, "a number");
    if (!isfinite(v)) return rg__builder_fail(b, c, err, "not a finite number");
    if (v != floor(v)) return fail_number(b, c, err, "not a whole number: ", v);
    if (c->kind != RG_I64 && c->kind != RG_U64) return fail_number(b, c, err, "out of range: ", v);
    return fail_number(b, c, err, "too large to be exact as a number, pass text or 64 bits: ", v);
}

int rg_builder_number(rg_builder *b, uint32_t col, double v, rg_err *err) {
    if (col >= b->type->n_columns) return fail_col(b, col, err);
    switch (column_of(b, col)->kind) {
    case RG_FLOAT:
    case RG_DOUBLE: return set_float(b, col, v, err);
    case RG_DECIMAL: return set_decimal_number(b, col, v, err);
    case RG_DATE:
    case RG_DATETIME:
    case RG_TIME: return set_moment_number(b, col, v, err);
    default: return set_whole_number(b, col, v, err);
    }
}

/* ---- from text, by kind ---- */

/* [+-]digits. False when malformed; *huge when it is one, beyond 64 bits. */
static bool parse_whole(const char *p, size_t len, whole *v, bool *huge) {
    *v = (whole){.negative = len && *p == '-'};
    *huge = false;
    if (len && (*p == '-' || *p == '+')) p++, len--;
    for (size_t i = 0; i < len; i++) {
        unsigned digit = (unsigned)(unsigned char)p[i] - '0';
        if (digit > 9) return false;
        if (__builtin_mul_overflow(v->size, 10, &v->size) ||
            __builtin_add_overflow(v->size, digit, &v->size))
            *huge = true;
    }
    if (v->size == 0 && !*huge) v->negative = false;
    return len > 0;
}

static int set_whole_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    whole v;
    bool huge;
    if (!parse_whole(p, len, &v, &huge))
        return rg__builder_fail_value(b, column_of(b, col), err, "invalid number ", p, len);
    if (huge) return rg__builder_fail_value(b, column_of(b, col), err, "out of range: ", p, len);
    return set_whole(b, col, v, err);
}

static int set_bool_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    rg__slice s = {p, len};
    bool on = rg__slice_eq(s, rg__slice_of("1")) || rg__slice_eq(s, rg__slice_of("true"));
    if (!on && !rg__slice_eq(s, rg__slice_of("0")) && !rg__slice_eq(s, rg__slice_of("false")))
        return rg__builder_fail_value(b, column_of(b, col), err, "invalid value: ", p, len);
    rg__builder_fixed(b, col, on, RG__SET);
    return RG_OK;
}

static int set_float_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    const rg__column *c = column_of(b, col);
    double v;
    if (!rg__number_parse(p, len, &v))
        return rg__builder_fail_value(b, c, err, "invalid number ", p, len);
    if (isinf(v)) return rg__builder_fail_value(b, c, err, "out of range: ", p, len);
    return set_float(b, col, v, err);
}

static int set_decimal_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    rg__digits x;
    if (rg__digits_parse(&x, p, len)) return set_digits(b, col, &x, err);
    return rg__builder_fail_value(b, column_of(b, col), err, "invalid number ", p, len);
}

static int set_date_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    int32_t days;
    if (rg__date_parse(p, len, &days) < 0)
        return rg__builder_fail_value(b, column_of(b, col), err, "invalid date ", p, len);
    rg__builder_fixed(b, col, (uint64_t)(int64_t)days, RG__SET);
    return RG_OK;
}

static int set_datetime_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    int64_t us;
    const char *why;
    if (rg__datetime_parse(p, len, &us, &why) < 0) {
        char text[48];
        snprintf(text, sizeof text, "%s%s", why, strncmp(why, "invalid", 7) == 0 ? " " : ": ");
        return rg__builder_fail_value(b, column_of(b, col), err, text, p, len);
    }
    rg__builder_fixed(b, col, (uint64_t)us, RG__SET);
    return RG_OK;
}

static int set_time_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    int64_t us;
    if (rg__time_parse(p, len, &us) < 0)
        return rg__builder_fail_value(b, column_of(b, col), err, "invalid time ", p, len);
    rg__builder_fixed(b, col, (uint64_t)us, RG__SET);
    return RG_OK;
}

int rg__builder_figures(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    switch (column_of(b, col)->kind) {
    case RG_BOOL: return set_bool_text(b, col, p, len, err);
    case RG_FLOAT:
    case RG_DOUBLE: return set_float_text(b, col, p, len, err);
    case RG_DECIMAL: return set_decimal_text(b, col, p, len, err);
    case RG_DATE: return set_date_text(b, col, p, len, err);
    case RG_DATETIME: return set_datetime_text(b, col, p, len, err);
    case RG_TIME: return set_time_text(b, col, p, len, err);
    default: return set_whole_text(b, col, p, len, err);
    }
}
