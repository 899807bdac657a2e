/* SPDX-License-Identifier: MIT */
/* Growable buffers, the checked reader, UTF-8. */
#include "base/slice.h"

#include "base/alloc.h"

#include <stdio.h>

/* ---- buffers ---- */

void rg__buf_deinit(rg__buf *b) {
    rg__free(b->p);
    *b = (rg__buf){0};
}

void rg__buf_clear(rg__buf *b) {
    b->len = 0;
    b->failed = false;
}

static bool grow(rg__buf *b, size_t need) {
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) {
        if (cap > SIZE_MAX / 2) return false;
        cap *= 2;
    }
    char *p = rg__realloc(b->p, cap);
    if (!p) return false;
    b->p = p;
    b->cap = cap;
    return true;
}

char *rg__buf_grow(rg__buf *b, size_t n) {
    if (b->failed) return NULL;
    if (n <= b->cap - b->len && b->p) return b->p + b->len;
    if (n > SIZE_MAX - b->len || !grow(b, b->len + n)) {
        b->failed = true;
        return NULL;
    }
    return b->p + b->len;
}

void rg__buf_fmt(rg__buf *b, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *to = n < 0 ? NULL : rg__buf_reserve(b, (size_t)n + 1);
    if (!to) {
        b->failed = true;
        return;
    }
    va_start(args, fmt);
    vsnprintf(to, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
}

/* The locale's point may have several bytes. */
void rg__buf_real(rg__buf *b, double v, int digits) {
    char text[64];
    int n = snprintf(text, sizeof text, "%.*g", digits, v);
    bool pointed = false;
    for (int i = 0; i < n && i < (int)sizeof text; i++) {
        bool plain = (text[i] >= '0' && text[i] <= '9') || strchr("+-einfa", text[i]);
        if (plain) rg__buf_char(b, text[i]);
        else if (!pointed) rg__buf_char(b, '.');
        pointed |= !plain;
    }
}

static const char pairs[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940"
                            "414243444546474849505152535455565758596061626364656667686970717273747576777879"
                            "8081828384858687888990919293949596979899";

enum { MOST_DIGITS = 20 };

static size_t count_digits(uint64_t v) {
    size_t n = 1;
    for (uint64_t bound = 10; n < MOST_DIGITS && v >= bound; bound *= 10) n++;
    return n;
}

void rg__buf_u64(rg__buf *b, uint64_t v) {
    char *to = rg__buf_reserve(b, MOST_DIGITS);
    if (!to) return;
    size_t n = count_digits(v);
    char *at = to + n;
    for (; v >= 100; v /= 100) memcpy(at -= 2, &pairs[v % 100 * 2], 2);
    if (v >= 10) memcpy(to, &pairs[v * 2], 2);
    else *to = (char)('0' + v);
    b->len += n;
}

void rg__buf_i64(rg__buf *b, int64_t v) {
    if (v < 0) rg__buf_char(b, '-');
    rg__buf_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

static void add_le(rg__buf *b, uint64_t v, size_t n) {
    char bytes[8];
    for (size_t i = 0; i < n; i++) bytes[i] = (char)(v >> (8 * i));
    rg__buf_add(b, bytes, n);
}

void rg__buf_le16(rg__buf *b, uint16_t v) { add_le(b, v, 2); }
void rg__buf_le32(rg__buf *b, uint32_t v) { add_le(b, v, 4); }
void rg__buf_le64(rg__buf *b, uint64_t v) { add_le(b, v, 8); }

const char *rg__buf_cstr(rg__buf *b) {
    char *end = rg__buf_reserve(b, 1);
    if (!end) return "";
    *end = '\0';
    return b->p;
}

/* ---- reader ---- */

rg__slice rg__read_bytes(rg__reader *r, size_t n) {
    if (r->bad || n > r->len - r->at) {
        r->bad = true;
        return (rg__slice){NULL, 0};
    }
    rg__slice s = {(const char *)r->p + r->at, n};
    r->at += n;
    return s;
}

static uint64_t read_le(rg__reader *r, size_t n) {
    rg__slice s = rg__read_bytes(r, n);
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) v |= (uint64_t)(uint8_t)s.p[i] << (8 * i);
    return v;
}

uint8_t rg__read_u8(rg__reader *r) { return (uint8_t)read_le(r, 1); }
uint16_t rg__read_le16(rg__reader *r) { return (uint16_t)read_le(r, 2); }
uint32_t rg__read_le32(rg__reader *r) { return (uint32_t)read_le(r, 4); }
uint64_t rg__read_le64(rg__reader *r) { return read_le(r, 8); }

/* ---- UTF-8 ---- */

/* Length of the well-formed multi-byte sequence at p, 0 when it is not one. */
static size_t sequence(const unsigned char *p, size_t left) {
    unsigned char c = p[0];
    size_t n = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    if (c < 0xC2 || c > 0xF4 || n > left) return 0;
    /* Below: overlong forms; above: surrogates, and what is beyond U+10FFFF. */
    unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return n;
}

static bool ascii8(const unsigned char *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return (word & 0x8080808080808080u) == 0;
}

/* ASCII bytes from s[at], which is one: 8 or 1, or all that is left, looked at with what is before it. */
static size_t ascii_run(const unsigned char *s, size_t at, size_t len) {
    if (len - at >= 8) return ascii8(s + at) ? 8 : 1;
    return len >= 8 && ascii8(s + len - 8) ? len - at : 1;
}

bool rg__utf8_valid(const char *p, size_t len, size_t *n_chars) {
    const unsigned char *s = (const unsigned char *)p;
    size_t at = 0, chars = 0;
    while (at < len) {
        if (s[at] < 0x80) {
            size_t step = ascii_run(s, at, len);
            at += step;
            chars += step;
            continue;
        }
        size_t n = sequence(s + at, len - at);
        if (n == 0) return false;
        at += n;
        chars++;
    }
    if (n_chars) *n_chars = chars;
    return true;
}
