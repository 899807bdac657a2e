/* SPDX-License-Identifier: MIT */
/* Values of rows as text: SQL literals and elements of JSON arrays. Whatever the row holds, nothing
 * but digits and what is quoted or hex reaches the text. */
#include "mysql/write.h"

#include <math.h>

#include "row/listed.h"
#include "row/scalar.h"

/* ---- numbers ---- */

static void add_double(rg__buf *out, double v, int digits) {
    char text[RG__NUMBER_MAX];
    size_t len = rg__number_digits(v, digits, text);
    rg__buf_add(out, text, len);
    /* With an exponent it is a double from the start, not a decimal to be rounded. */
    if (isfinite(v) && !memchr(text, 'e', len)) rg__buf_str(out, "e0");
}

static void add_float(rg__buf *out, const rg__column *col, double v) {
    /* Nine digits tell floats apart, but round the largest one up, which is then out of range. */
    bool few = col->kind == RG_FLOAT && fabs(v) < 3.4e38;
    add_double(out, v, few ? 9 : 17);
}

static void add_quoted_float(rg__buf *out, const rg__column *col, double v, char quote) {
    rg__buf_char(out, quote);
    add_float(out, col, v);
    rg__buf_char(out, quote);
}

static void add_integer(rg__buf *out, const rg__value *v) {
    if (v->store <= RG_STORE_I64)
        rg__buf_i64(out, v->i);
    else
        rg__buf_u64(out, v->u);
}

static void add_time(rg__buf *out, const rg__column *col, int64_t v, char quote) {
    char *p = rg__buf_reserve(out, 40);
    if (!p) return;
    size_t len = 1;
    *p = quote;
    if (col->kind == RG_DATE)
        len += rg__date_format((int32_t)v, p + 1);
    else if (col->kind == RG_DATETIME)
        len += rg__datetime_format6(v, p + 1);
    else
        len += rg__time_format(v, p + 1);
    p[len++] = quote;
    out->len += len;
}

static void add_hex(rg__buf *out, rg__slice s) {
    static const char digits[] = "0123456789ABCDEF";
    char *p = rg__buf_reserve(out, 2 * s.len);
    if (!p) return;
    for (size_t i = 0; i < s.len; i++) {
        *p++ = digits[(uint8_t)s.p[i] >> 4];
        *p++ = digits[(uint8_t)s.p[i] & 15];
    }
    out->len += 2 * s.len;
}

static void add_refs(rg__buf *out, rg__slice ids) {
    rg__buf_char(out, '[');
    for (size_t i = 0; i + 8 <= ids.len; i += 8) {
        uint64_t id;
        memcpy(&id, ids.p + i, 8);
        if (i) rg__buf_char(out, ',');
        rg__buf_u64(out, id);
    }
    rg__buf_char(out, ']');
}

/* ---- SQL text ---- */

/* The byte behind the backslash; 0: none is needed. Only single quotes are ever around. */
static const char sql_escapes[256] = {
    ['\0'] = '0', ['\n'] = 'n', ['\r'] = 'r', ['\x1a'] = 'Z', ['\''] = '\'', ['\\'] = '\\'};

static char *escape_sql(char *p, rg__slice s) {
    for (size_t i = 0; i < s.len; i++) {
        char escape = sql_escapes[(uint8_t)s.p[i]];
        if (escape) *p++ = '\\';
        *p++ = escape ? escape : s.p[i];
    }
    return p;
}

static void add_sql_text(rg__buf *out, rg__slice s) {
    char *start = rg__buf_reserve(out, 2 * s.len + 2), *p = start;
    if (!p) return;
    *p++ = '\'';
    p = escape_sql(p, s);
    *p++ = '\'';
    out->len += (size_t)(p - start);
}

/* Of an enum or a set; escape: makes at most six bytes of one, and leaves commas. */
static void add_words(rg__buf *out, const rg__column *col, uint64_t v, char quote,
                      char *(*escape)(char *p, rg__slice s)) {
    char *start = rg__buf_reserve(out, 6 * rg__listed_len(col, v) + 2), *p = start;
    if (!p) return;
    *p++ = quote;
    rg__slice word = rg__listed_word(col, v);
    if (col->kind == RG_ENUM) p = escape(p, word);
    else
        for (uint32_t i = 0; rg__listed_next(col, v, &i, &word); p = escape(p, word))
            if (p > start + 1) *p++ = ',';
    *p++ = quote;
    out->len += (size_t)(p - start);
}

static void add_literal(rg__buf *out, const rg__column *col, const rg__value *v) {
    if (v->is_null) {
        rg__buf_str(out, "NULL");
        return;
    }
    switch (col->kind) {
    /* No setter lets NaN or infinity into a row; unquoted they would be names. */
    case RG_FLOAT:
    case RG_DOUBLE:
        if (isfinite(v->d))
            add_float(out, col, v->d);
        else
            add_quoted_float(out, col, v->d, '\'');
        break;
    case RG_DATE:
    case RG_DATETIME:
    case RG_TIME:
        add_time(out, col, v->i, '\'');
        break;
    case RG_DECIMAL:
    case RG_STRING:
    case RG_TEXT:
    case RG_JSON:
        add_sql_text(out, v->s);
        break;
    case RG_BINARY:
    case RG_BLOB:
        rg__buf_str(out, "X'");
        add_hex(out, v->s);
        rg__buf_char(out, '\'');
        break;
    case RG_REFS:
        rg__buf_char(out, '\'');
        add_refs(out, v->s);
        rg__buf_char(out, '\'');
        break;
    case RG_ENUM:
    case RG_SET:
        add_words(out, col, v->u, '\'', escape_sql);
        break;
    default:
        add_integer(out, v);
    }
}

void rg__sql_literal(rg__mysql *c, rg__buf *out, const rg_type *t, const void *row, uint32_t col) {
    (void)c;
    rg__value v = rg__row_value(t, row, col);
    add_literal(out, &t->columns[col], &v);
}

/* ---- JSON ---- */

/* The byte behind the backslash; 1: as \u00XX. */
static const char json_escapes[256] = {
    [0 ... 7] = 1, ['\b'] = 'b', ['\t'] = 't',    ['\n'] = 'n', [11] = 1,
    ['\f'] = 'f',  ['\r'] = 'r', [14 ... 31] = 1, ['"'] = '"',  ['\\'] = '\\'};

static char *escape_json(char *p, rg__slice s) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < s.len; i++) {
        uint8_t byte = (uint8_t)s.p[i];
        char escape = json_escapes[byte];
        if (escape) *p++ = '\\';
        if (escape == 1) {
            memcpy(p, "u00", 3);
            p[3] = digits[byte >> 4];
            p[4] = digits[byte & 15];
            p += 5;
        } else {
            *p++ = escape ? escape : (char)byte;
        }
    }
    return p;
}

static void add_json_text(rg__buf *out, rg__slice s) {
    char *start = rg__buf_reserve(out, 6 * s.len + 2), *p = start;
    if (!p) return;
    *p++ = '"';
    p = escape_json(p, s);
    *p++ = '"';
    out->len += (size_t)(p - start);
}

static void add_quoted(rg__buf *out, rg__slice s, void (*add)(rg__buf *, rg__slice)) {
    rg__buf_char(out, '"');
    add(out, s);
    rg__buf_char(out, '"');
}

void rg__json_element(rg__buf *out, const rg__column *col, const rg__value *v) {
    if (v->is_null) {
        rg__buf_str(out, "null");
        return;
    }
    switch (col->kind) {
    case RG_FLOAT:
    case RG_DOUBLE:
        add_quoted_float(out, col, v->d, '"');
        break;
    case RG_DATE:
    case RG_DATETIME:
    case RG_TIME:
        add_time(out, col, v->i, '"');
        break;
    case RG_DECIMAL:
    case RG_STRING:
    case RG_TEXT:
    case RG_JSON:
        add_json_text(out, v->s);
        break;
    case RG_BINARY:
    case RG_BLOB:
        add_quoted(out, v->s, add_hex);
        break;
    case RG_REFS:
        add_quoted(out, v->s, add_refs);
        break;
    case RG_ENUM:
    case RG_SET:
        add_words(out, col, v->u, '"', escape_json);
        break;
    default:
        add_integer(out, v);
    }
}

/* ---- bounds ---- */

static size_t row_len(const void *row) {
    uint32_t len;
    memcpy(&len, (const char *)row + 4, 4);
    return len;
}

/* Escaping at most doubles a byte (in JSON: makes six of it), an id of eight bytes has at most 21 with its comma. */
size_t rg__row_sql_bound(const rg_type *t, const void *row) {
    return 3 * row_len(row) + 40 * (size_t)t->n_columns + 2 * t->listed_max;
}

size_t rg__row_json_bound(const rg_type *t, const void *row) {
    return 6 * row_len(row) + 40 * (size_t)t->n_columns + 6 * t->listed_max;
}
