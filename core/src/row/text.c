/* SPDX-License-Identifier: MIT */
/* Stored values as text. */
#include "row/listed.h"
#include "row/pack.h"
#include "row/scalar.h"

#include <limits.h>

/* Where text goes: counts all of it, keeps what fits. */
typedef struct sink {
    char *out;
    size_t cap, len;
} sink;

static void add(sink *s, const char *p, size_t n) {
    if (s->len < s->cap && n) memcpy(s->out + s->len, p, n < s->cap - s->len ? n : s->cap - s->len);
    s->len += n;
}

static void add_u64(sink *s, uint64_t v) {
    char digits[20];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    add(s, digits + at, sizeof digits - at);
}

static void add_i64(sink *s, int64_t v) {
    if (v < 0) add(s, "-", 1);
    add_u64(s, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

static void add_set(sink *s, const rg__column *c, uint64_t bits) {
    rg__slice word;
    bool first = true;
    for (uint32_t i = 0; rg__listed_next(c, bits, &i, &word); first = false) {
        if (!first) add(s, ",", 1);
        add(s, word.p, word.len);
    }
}

static void add_enum(sink *s, const rg__column *c, uint64_t number) {
    rg__slice word = rg__listed_word(c, number);
    add(s, word.p, word.len);
}

static void add_refs(sink *s, rg__slice ids) {
    add(s, "[", 1);
    for (size_t at = 0; at + 8 <= ids.len; at += 8) {
        if (at) add(s, ",", 1);
        add_u64(s, rg__load64((const uint8_t *)ids.p + at));
    }
    add(s, "]", 1);
}

static void add_float(sink *s, const rg__column *c, double d) {
    char text[RG__NUMBER_MAX];
    add(s, text, rg__number_format(d, c->store == RG_STORE_F32, text));
}

static void add_moment(sink *s, const rg__column *c, int64_t v) {
    char text[32];
    size_t n = c->kind == RG_DATE   ? rg__date_format((int32_t)v, text)
               : c->kind == RG_TIME ? rg__time_format(v, text)
                                    : rg__datetime_format(v, text);
    add(s, text, n);
}

static void add_value(sink *s, const rg__column *c, const rg__value *v) {
    switch (c->kind) {
    case RG_ENUM: add_enum(s, c, v->u); break;
    case RG_SET: add_set(s, c, v->u); break;
    case RG_REFS: add_refs(s, v->s); break;
    case RG_FLOAT:
    case RG_DOUBLE: add_float(s, c, v->d); break;
    case RG_DATE:
    case RG_DATETIME:
    case RG_TIME: add_moment(s, c, v->i); break;
    default:
        if (v->store == RG_STORE_VAR) add(s, v->s.p, v->s.len);
        else if (v->store <= RG_STORE_I64) add_i64(s, v->i);
        else add_u64(s, v->u);
    }
}

int rg_row_text(const rg_type *t, const uint8_t *row, uint32_t col, char *out, size_t cap) {
    if (!t->frozen || col >= t->n_columns) return RG_EMISUSE;
    rg__value v = rg__row_value(t, row, col);
    if (v.is_null) return RG_EINVALID;
    sink s = {out, cap, 0};
    add_value(&s, &t->columns[col], &v);
    return s.len <= INT_MAX ? (int)s.len : RG_ELIMIT;
}
