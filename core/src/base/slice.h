/* SPDX-License-Identifier: MIT */
/* Bytes: borrowed slices and growable buffers. */
#ifndef RG_BASE_SLICE_H
#define RG_BASE_SLICE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct rg__slice {
    const char *p;
    size_t len;
} rg__slice;

static inline rg__slice rg__slice_of(const char *s) {
    return (rg__slice){s, s ? strlen(s) : 0};
}
static inline bool rg__slice_eq(rg__slice a, rg__slice b) {
    return a.len == b.len && (a.len == 0 || (a.p && b.p && memcmp(a.p, b.p, a.len) == 0));
}

/* A growable buffer. Zero-initialised is empty. An allocation failure sets `failed` and later
 * appends do nothing, so that a builder checks once at the end. */
typedef struct rg__buf {
    char *p;
    size_t len;
    size_t cap;
    bool failed;
} rg__buf;

void rg__buf_deinit(rg__buf *b);
void rg__buf_clear(rg__buf *b); /* keeps the memory, clears failed */
/* The same when there is none. */
char *rg__buf_grow(rg__buf *b, size_t n);
/* Room for n more bytes: pointer to them (len not moved), NULL on failure. */
static inline char *rg__buf_reserve(rg__buf *b, size_t n) {
    return n < b->cap - b->len && !b->failed ? b->p + b->len : rg__buf_grow(b, n);
}
static inline void rg__buf_add(rg__buf *b, const void *p, size_t n) {
    char *to = n ? rg__buf_reserve(b, n) : NULL;
    if (!to) return;
    memcpy(to, p, n);
    b->len += n;
}
static inline void rg__buf_str(rg__buf *b, const char *s) { rg__buf_add(b, s, strlen(s)); }
static inline void rg__buf_char(rg__buf *b, char c) {
    char *to = rg__buf_reserve(b, 1);
    if (!to) return;
    *to = c;
    b->len++;
}
void rg__buf_fmt(rg__buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "%.*g" with a point in any locale. */
void rg__buf_real(rg__buf *b, double v, int digits);
void rg__buf_u64(rg__buf *b, uint64_t v); /* decimal digits */
void rg__buf_i64(rg__buf *b, int64_t v);
/* Little-endian binary. */
void rg__buf_le16(rg__buf *b, uint16_t v);
void rg__buf_le32(rg__buf *b, uint32_t v);
void rg__buf_le64(rg__buf *b, uint64_t v);
/* NUL-terminates without counting it; "" on failure. */
const char *rg__buf_cstr(rg__buf *b);

/* A checked reader over untrusted bytes: a read past the end sets `bad` and yields zero. */
typedef struct rg__reader {
    const uint8_t *p;
    size_t len;
    size_t at;
    bool bad;
} rg__reader;

uint8_t rg__read_u8(rg__reader *r);
uint16_t rg__read_le16(rg__reader *r);
uint32_t rg__read_le32(rg__reader *r);
uint64_t rg__read_le64(rg__reader *r);
rg__slice rg__read_bytes(rg__reader *r, size_t n);

/* True when the bytes are well-formed UTF-8 (no surrogates, no overlong forms, <= U+10FFFF); counts
 * the characters when n_chars is given. */
bool rg__utf8_valid(const char *p, size_t len, size_t *n_chars);

#endif
