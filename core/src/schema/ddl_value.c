/* SPDX-License-Identifier: MIT */
/* One form for each value that a default can have: numbers, dates and times, sets, text. Nothing
 * here depends on the locale. */
#include "schema/ddl_type.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- numbers ---- */

enum { MAX_DIGITS = 512, MAX_EXPONENT = 5000 };

/* 0.d1d2d3... times ten to the power of point. */
typedef struct figures {
    bool negative;
    int n, point;
    char d[MAX_DIGITS];
} figures;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Digits before (step 1) or behind (step 0) the point; leading zeros are none of the number's. */
static const char *take_digits(figures *f, const char *s, int step) {
    for (; is_digit(*s) && f->n < MAX_DIGITS; s++) {
        bool leading = f->n == 0 && *s == '0';
        if (leading) {
            f->point -= !step;
            continue;
        }
        f->d[f->n++] = *s;
        f->point += step;
    }
    return s;
}

static void trim_zeros(figures *f) {
    while (f->n > 0 && f->d[f->n - 1] == '0') f->n--;
    if (f->n == 0) *f = (figures){0};
}

static bool read_figures(figures *f, const char *s) {
    *f = (figures){.negative = *s == '-'};
    s += *s == '-' || *s == '+';
    if (!is_digit(*s) && !(*s == '.' && is_digit(s[1]))) return false;
    s = take_digits(f, s, 1);
    if (*s == '.') s = take_digits(f, s + 1, 0);
    if (*s == 'e' || *s == 'E') {
        char *end;
        long e = strtol(s + 1, &end, 10);
        if (end == s + 1 || e > MAX_EXPONENT || e < -MAX_EXPONENT) return false;
        f->point += (int)e;
        s = end;
    }
    trim_zeros(f);
    return *s == '\0';
}

/* Half away from zero, as servers do. */
static void round_figures(figures *f, int decimals) {
    int keep = f->point + decimals;
    if (keep >= f->n) return;
    bool up = keep >= 0 && f->d[keep] >= '5';
    f->n = keep > 0 ? keep : 0;
    while (up && f->n > 0 && f->d[f->n - 1] == '9') f->n--;
    if (up && f->n > 0) {
        f->d[f->n - 1]++;
    } else if (up) {
        f->d[f->n++] = '1';
        f->point++;
    }
    trim_zeros(f);
}

static void add_zeros(rg__buf *out, int n) {
    while (n-- > 0) rg__buf_char(out, '0');
}

void rg__sql_write_number(rg__buf *out, const char *text, uint32_t decimals) {
    figures f;
    if (!read_figures(&f, text)) {
        rg__buf_str(out, text);
        return;
    }
    round_figures(&f, (int)decimals);
    int whole = f.point < 0 ? 0 : f.point < f.n ? f.point : f.n;
    if (f.negative) rg__buf_char(out, '-');
    if (f.point <= 0) rg__buf_char(out, '0');
    rg__buf_add(out, f.d, (size_t)whole);
    add_zeros(out, f.point - f.n);
    if (whole == f.n) return;
    rg__buf_char(out, '.');
    add_zeros(out, -f.point);
    rg__buf_add(out, f.d + whole, (size_t)(f.n - whole));
}

/* A server shows a FLOAT with six digits, a DOUBLE with as many as bring it back. */
static void write_real(rg__buf *out, const char *text, bool single) {
    figures f;
    char exact[MAX_DIGITS + 32];
    if (!read_figures(&f, text)) {
        rg__buf_str(out, text);
        return;
    }
    snprintf(exact, sizeof exact, "%s%.*s%se%d", f.negative ? "-" : "", f.n, f.d, f.n ? "" : "0",
             f.point - f.n);
    double v = strtod(exact, NULL);
    if (single) rg__buf_real(out, (double)(float)v, 6);
    else rg__buf_real(out, v, 17);
}

/* ---- dates and times ---- */

/* "1:02" is "01:02:00", "01:02:03.50" is "01:02:03.5". */
static void write_clock(rg__buf *out, const char *p, size_t len) {
    const char *colon = memchr(p, ':', len), *point = memchr(p, '.', len);
    size_t hours = colon ? (size_t)(colon - p) : len, plain = point ? (size_t)(point - p) : len;
    for (; hours > 2 && *p == '0'; p++, hours--, plain--, len--) {}
    if (hours == 1) rg__buf_char(out, '0');
    rg__buf_add(out, p, plain);
    size_t colons = 0;
    for (size_t i = 0; i < plain; i++) colons += p[i] == ':';
    if (colons == 1) rg__buf_str(out, ":00");
    while (len > plain && (p[len - 1] == '0' || len == plain + 1)) len--;
    rg__buf_add(out, p + plain, len - plain);
}

static void write_time(rg__buf *out, const char *text) {
    bool zero = strspn(text, "-0:.") == strlen(text);
    size_t sign = *text == '-';
    if (sign && !zero) rg__buf_char(out, '-');
    write_clock(out, text + sign, strlen(text + sign));
}

/* A day alone is its midnight; T, Z and the offset of UTC are ISO 8601's, not a server's. */
static void write_datetime(rg__buf *out, const char *text) {
    enum { DAY = 10 };
    size_t len = strlen(text);
    if (len < DAY) {
        rg__buf_str(out, text);
        return;
    }
    rg__buf_add(out, text, DAY);
    rg__buf_char(out, ' ');
    if (len == DAY) rg__buf_str(out, "00:00:00");
    else write_clock(out, text + DAY + 1, strcspn(text + DAY + 1, "Zz+-"));
}

void rg__sql_write_moment(rg__buf *out, const char *text, bool is_time) {
    if (is_time) write_time(out, text);
    else write_datetime(out, text);
}

/* ---- sets ---- */

static bool list_has(const char *list, rg__slice value) {
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        if (n && rg__slice_eq((rg__slice){p, n}, value)) return true;
        p += n;
        if (!*p) return false;
    }
}

/* The values of a list in the type's order. */
static void write_set(rg__buf *out, const rg__sql_type *type, const char *list) {
    rg__reader r = {(const uint8_t *)type->values.p, type->values.len, 0, false};
    while (r.at < r.len) {
        rg__slice value = rg__read_bytes(&r, rg__read_le32(&r));
        if (r.bad) return;
        if (!list_has(list, value)) continue;
        rg__buf_add(out, value.p, value.len);
        rg__buf_char(out, ',');
    }
}

/* ---- all ---- */

static bool is(const rg__sql_type *t, const char *base) { return strcmp(t->base, base) == 0; }

bool rg__sql_is_real(const rg__sql_type *t) { return is(t, "float") || is(t, "double"); }

bool rg__sql_is_number(const rg__sql_type *t) {
    return rg__sql_is_real(t) || is(t, "bool") || is(t, "tinyint") || is(t, "smallint") ||
           is(t, "mediumint") || is(t, "int") || is(t, "bigint") || is(t, "decimal");
}

bool rg__sql_is_bytes(const rg__sql_type *t) { return is(t, "varbinary") || is(t, "binary"); }

void rg__sql_write_canonical(rg__buf *out, const rg__sql_type *type, const char *text) {
    if (rg__sql_is_real(type)) write_real(out, text, is(type, "float"));
    else if (rg__sql_is_number(type)) rg__sql_write_number(out, text, type->scale);
    else if (is(type, "time")) rg__sql_write_moment(out, text, true);
    else if (is(type, "datetime") || is(type, "timestamp")) rg__sql_write_moment(out, text, false);
    else if (is(type, "set")) write_set(out, type, text);
    else rg__buf_str(out, text);
}

void rg__sql_text_shown(rg__buf *out, const char *p, size_t len) {
    for (size_t i = 0; i < len;) {
        size_t n = 1;
        while (n < 4 && n < len - i && !rg__utf8_valid(p + i, n, NULL)) n++;
        bool valid = rg__utf8_valid(p + i, n, NULL);
        if (valid && n < 4) rg__buf_add(out, p + i, n);
        else rg__buf_char(out, '?');
        i += valid ? n : 1;
    }
}
