/* SPDX-License-Identifier: MIT */
/* Decimal digits of numbers: parsed, made from doubles, rounded, printed. No call here depends on
 * the locale: what strtod and printf are given or asked for has no decimal point to disagree on. */
#include "row/row.h"
#include "row/scalar.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_TEXT = 500,   /* longer ones are not numbers that anybody wrote */
    MAX_EXPONENT = 5000
};

/* ---- text to digits ---- */

typedef struct scan {
    const char *p, *end;
} scan;

static bool digit_next(const scan *s) { return s->p < s->end && *s->p >= '0' && *s->p <= '9'; }

static bool accept(scan *s, const char *set) {
    if (s->p == s->end || !*s->p || !strchr(set, *s->p)) return false;
    s->p++;
    return true;
}

static void push(rg__digits *x, char digit) {
    if (x->n < (int)sizeof x->d) x->d[x->n++] = digit;
    else if (digit != '0') x->cut = true;
}

static size_t take_whole(rg__digits *x, scan *s) {
    size_t taken = 0;
    for (; digit_next(s); s->p++, taken++) {
        if (x->n == 0 && *s->p == '0') continue;
        push(x, *s->p);
        x->point++;
    }
    return taken;
}

static size_t take_decimals(rg__digits *x, scan *s) {
    size_t taken = 0;
    for (; digit_next(s); s->p++, taken++) {
        if (x->n == 0 && *s->p == '0') x->point--;
        else push(x, *s->p);
    }
    return taken;
}

static bool take_exponent(rg__digits *x, scan *s) {
    if (!accept(s, "eE")) return true;
    bool negative = accept(s, "+-") && s->p[-1] == '-';
    if (!digit_next(s)) return false;
    int e = 0;
    for (; digit_next(s); s->p++)
        if (e < MAX_EXPONENT) e = e * 10 + (*s->p - '0');
    x->point += negative ? -e : e;
    return true;
}

static void normalise(rg__digits *x) {
    while (x->n > 0 && x->d[x->n - 1] == '0') x->n--;
    if (x->n > 0) return;
    x->point = 0;
    x->negative = false;
}

bool rg__digits_parse(rg__digits *x, const char *p, size_t len) {
    *x = (rg__digits){0};
    if (len > MAX_TEXT) return false;
    scan s = {p, p + len};
    x->negative = accept(&s, "+-") && s.p[-1] == '-';
    size_t taken = take_whole(x, &s);
    if (accept(&s, ".")) taken += take_decimals(x, &s);
    if (taken == 0 || !take_exponent(x, &s) || s.p != s.end) return false;
    normalise(x);
    return true;
}

/* ---- doubles ---- */

enum { PRINTED = 64 };

/* The digits of v, so many, as printf rounds them. */
static void print_digits(char text[PRINTED], int digits, double v) {
    snprintf(text, PRINTED, "%.*e", digits - 1, v);
}

/* Do so many digits give v back? */
static bool print_exact(char text[PRINTED], int digits, double v, bool single) {
    print_digits(text, digits, v);
    return single ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v;
}

/* The text is d<point>ddde+xx, in which the point may be any character. */
static void read_printed(rg__digits *x, const char *text) {
    const char *e = strchr(text, 'e');
    for (const char *p = text; p < e; p++)
        if (*p >= '0' && *p <= '9') push(x, *p);
    x->point = (int)strtol(e + 1, NULL, 10) + 1;
}

void rg__digits_of(rg__digits *x, double v, bool single) {
    *x = (rg__digits){.negative = v < 0};
    if (v == 0) return;
    char text[PRINTED];
    /* So many decimal digits survive a trip through v's type, so that fewer need no try; but for
     * subnormal values, which hold fewer. */
    bool full = fabs(v) >= (single ? FLT_MIN : DBL_MIN);
    int digits = !full ? 1 : single ? FLT_DIG : DBL_DIG;
    int most = single ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG;
    while (!print_exact(text, digits, v, single) && digits < most) digits++;
    read_printed(x, text);
    normalise(x);
}

bool rg__number_parse(const char *p, size_t len, double *out) {
    rg__digits x;
    if (!rg__digits_parse(&x, p, len)) return false;
    char text[sizeof x.d + 32];
    snprintf(text, sizeof text, "%s%.*s%se%d", x.negative ? "-" : "", x.n, x.d,
             x.n == 0 ? "0" : x.cut ? "1" : "", x.point - x.n - x.cut);
    *out = strtod(text, NULL);
    return true;
}

/* ---- rounding and printing ---- */

/* Adds one to the last digit kept. */
static void round_up(rg__digits *x) {
    while (x->n > 0 && x->d[x->n - 1] == '9') x->n--;
    if (x->n > 0) {
        x->d[x->n - 1]++;
        return;
    }
    x->d[0] = '1';
    x->n = 1;
    x->point++;
}

void rg__digits_round(rg__digits *x, uint32_t scale) {
    int keep = x->point + (int)scale;
    if (keep >= x->n) return;
    bool up = keep >= 0 && x->d[keep] >= '5';
    x->n = keep > 0 ? keep : 0;
    if (up) round_up(x);
    normalise(x);
}

static char digit_at(const rg__digits *x, int i) { return i >= 0 && i < x->n ? x->d[i] : '0'; }

static size_t print_plain(const rg__digits *x, uint32_t scale, char *out) {
    size_t n = 0;
    if (x->negative) out[n++] = '-';
    if (x->point <= 0) out[n++] = '0';
    for (int i = 0; i < x->point; i++) out[n++] = digit_at(x, i);
    if (scale) out[n++] = '.';
    for (int i = 0; i < (int)scale; i++) out[n++] = digit_at(x, x->point + i);
    return n;
}

size_t rg__digits_format(const rg__digits *x, uint32_t precision, uint32_t scale, char *out) {
    if (x->cut || x->point > (int)(precision - scale) || x->n - x->point > (int)scale) return 0;
    return print_plain(x, scale, out);
}

static size_t print_number(const rg__digits *x, char out[RG__NUMBER_MAX]) {
    if (x->point <= -5 || x->point > 17)
        return (size_t)snprintf(out, RG__NUMBER_MAX, "%s%c%s%.*se%+d", x->negative ? "-" : "", x->d[0],
                                x->n > 1 ? "." : "", x->n - 1, x->d + 1, x->point - 1);
    size_t n = print_plain(x, x->n > x->point ? (uint32_t)(x->n - x->point) : 0, out);
    out[n] = '\0';
    return n;
}

static size_t print_infinite(double v, char out[RG__NUMBER_MAX]) {
    return (size_t)snprintf(out, RG__NUMBER_MAX, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
}

static size_t print_whole(uint64_t v, char *out) {
    char reversed[24];
    size_t n = 0;
    do reversed[n++] = (char)('0' + v % 10);
    while (v /= 10);
    for (size_t i = 0; i < n; i++) out[i] = reversed[n - 1 - i];
    return n;
}

/* Most numbers that people write have few decimals. Such a one is the quotient of two whole numbers, which is
 * rounded just as the text is when it is read: nothing has to be tried. 0: it is not one of them. */
static size_t print_few_decimals(double v, char out[RG__NUMBER_MAX]) {
    enum { SCALE = 10000 };
    double scaled = fabs(v) * SCALE;
    if (!(scaled < 1e15)) return 0;
    uint64_t whole = (uint64_t)(scaled + 0.5);
    if ((double)whole / SCALE != fabs(v)) return 0;
    char *p = out;
    if (v < 0) *p++ = '-';
    p += print_whole(whole / SCALE, p);
    unsigned rest = (unsigned)(whole % SCALE);
    if (rest) *p++ = '.';
    for (unsigned unit = SCALE / 10; rest; rest %= unit, unit /= 10) *p++ = (char)('0' + rest / unit);
    *p = '\0';
    return (size_t)(p - out);
}

size_t rg__number_format(double v, bool single, char out[RG__NUMBER_MAX]) {
    if (!isfinite(v)) return print_infinite(v, out);
    size_t n = print_few_decimals(v, out);
    if (n) return n;
    rg__digits x;
    rg__digits_of(&x, v, single);
    return print_number(&x, out);
}

size_t rg__number_digits(double v, int digits, char out[RG__NUMBER_MAX]) {
    if (!isfinite(v)) return print_infinite(v, out);
    size_t n = print_few_decimals(v, out);
    if (n) return n;
    char text[PRINTED];
    rg__digits x = {.negative = v < 0};
    print_digits(text, digits, v);
    read_printed(&x, text);
    normalise(&x);
    return print_number(&x, out);
}

/* ---- DECIMAL ---- */

int rg__decimal_canonical(const char *p, size_t len, uint32_t precision, uint32_t scale,
                          rg__buf *out) {
    rg__digits x;
    char text[RG__DECIMAL_MAX];
    size_t n = rg__digits_parse(&x, p, len) ? rg__digits_format(&x, precision, scale, text) : 0;
    if (n == 0) return RG_EINVALID;
    rg__buf_add(out, text, n);
    return RG_OK;
}
