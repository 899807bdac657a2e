/* SPDX-License-Identifier: MIT */
/* The check of JSON text: RFC 8259, with the server's limit of depth. */
#include "base/slice.h"
#include "row/scalar.h"

enum { MAX_DEPTH = 100 };

/* A false return leaves `at` on the byte at fault. */
typedef struct scan {
    const char *p;
    size_t len, at;
    int depth;
} scan;

static bool scan_value(scan *s);

static int peek(const scan *s) { return s->at < s->len ? (unsigned char)s->p[s->at] : -1; }

static bool expect(scan *s, char c) {
    if (peek(s) != c) return false;
    s->at++;
    return true;
}

static void skip_space(scan *s) {
    while (s->at < s->len && s->p[s->at] && strchr(" \t\r\n", s->p[s->at])) s->at++;
}

static bool scan_word(scan *s, const char *word) {
    for (; *word; word++)
        if (!expect(s, *word)) return false;
    return true;
}

/* ---- numbers ---- */

static bool is_digit(int c) { return c >= '0' && c <= '9'; }

static bool scan_digits(scan *s) {
    if (!is_digit(peek(s))) return false;
    while (is_digit(peek(s))) s->at++;
    return true;
}

static bool scan_number(scan *s) {
    expect(s, '-');
    if (!expect(s, '0') && !scan_digits(s)) return false;
    if (expect(s, '.') && !scan_digits(s)) return false;
    if (!expect(s, 'e') && !expect(s, 'E')) return true;
    if (!expect(s, '+')) expect(s, '-');
    return scan_digits(s);
}

/* ---- strings ---- */

static int hex_value(int c) {
    if (is_digit(c)) return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits after \u; -1 on a fault. */
static int scan_hex(scan *s) {
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int digit = peek(s) < 0 ? -1 : hex_value(peek(s));
        if (digit < 0) return -1;
        v = v * 16 + digit;
        s->at++;
    }
    return v;
}

/* The server refuses half a surrogate pair. */
static bool scan_unicode(scan *s) {
    size_t start = s->at;
    int v = scan_hex(s);
    if (v < 0) return false;
    if (v < 0xD800 || v > 0xDFFF) return true;
    if (v <= 0xDBFF && expect(s, '\\') && expect(s, 'u')) {
        int low = scan_hex(s);
        if (low >= 0xDC00 && low <= 0xDFFF) return true;
    }
    s->at = start;
    return false;
}

static bool scan_escape(scan *s) {
    int c = peek(s);
    if (c <= 0 || !strchr("\"\\/bfnrtu", c)) return false;
    s->at++;
    return c != 'u' || scan_unicode(s);
}

static bool scan_wide(scan *s) {
    size_t start = s->at;
    while (peek(s) >= 0x80) s->at++;
    if (rg__utf8_valid(s->p + start, s->at - start, NULL)) return true;
    s->at = start;
    return false;
}

static bool scan_string(scan *s) {
    if (!expect(s, '"')) return false;
    for (int c; (c = peek(s)) != '"';) {
        if (c < 0x20) return false; /* the end as well */
        if (c >= 0x80) {
            if (!scan_wide(s)) return false;
            continue;
        }
        s->at++;
        if (c == '\\' && !scan_escape(s)) return false;
    }
    s->at++;
    return true;
}

/* ---- structure ---- */

static bool scan_member(scan *s) {
    skip_space(s);
    if (!scan_string(s)) return false;
    skip_space(s);
    return expect(s, ':') && scan_value(s);
}

static bool scan_list(scan *s, char close, bool (*scan_item)(scan *)) {
    s->at++;
    if (++s->depth > MAX_DEPTH) {
        s->at--;
        return false;
    }
    skip_space(s);
    if (!expect(s, close)) {
        do
            if (!scan_item(s)) return false;
        while (expect(s, ','));
        if (!expect(s, close)) return false;
    }
    s->depth--;
    return true;
}

static bool scan_plain(scan *s) {
    switch (peek(s)) {
    case '{': return scan_list(s, '}', scan_member);
    case '[': return scan_list(s, ']', scan_value);
    case '"': return scan_string(s);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    default: return scan_number(s);
    }
}

static bool scan_value(scan *s) {
    skip_space(s);
    if (!scan_plain(s)) return false;
    skip_space(s);
    return true;
}

size_t rg__json_fault(const char *p, size_t len) {
    scan s = {.p = p, .len = len};
    return scan_value(&s) && s.at == s.len ? 0 : s.at + 1;
}
