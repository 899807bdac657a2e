/* SPDX-License-Identifier: MIT */
/* Overflow-checked allocation, and the switch that makes it fail in tests. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Allocations until the one that fails; only looked at while `armed`. */
static atomic_long left;
static atomic_int armed; /* 0 off, 1 once, 2 from then on */

static bool injected(void) {
    int mode = atomic_load_explicit(&armed, memory_order_relaxed);
    if (__builtin_expect(mode == 0, 1)) return false;
    long now = atomic_fetch_sub(&left, 1);
    return now == 1 || (mode == 2 && now < 1);
}

void rg__alloc_fail_at(long n, int forever) {
    atomic_store(&armed, 0);
    atomic_store(&left, n);
    if (n > 0) atomic_store(&armed, forever ? 2 : 1);
}

bool rg__alloc_may_fail(void) { return atomic_load_explicit(&armed, memory_order_relaxed) != 0; }

/* Nothing is as large as half the address space; a size there is a wrapped one. */
static bool refused(size_t size) { return size > PTRDIFF_MAX || injected(); }

void *rg__malloc(size_t size) {
    if (refused(size)) return NULL;
    return malloc(size ? size : 1);
}

void *rg__calloc(size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || refused(bytes)) return NULL;
    return calloc(bytes ? bytes : 1, 1);
}

void *rg__realloc(void *p, size_t size) {
    if (refused(size)) return NULL;
    return realloc(p, size ? size : 1);
}

void *rg__reallocarray(void *p, size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
    return rg__realloc(p, bytes);
}

char *rg__strdup(const char *s) { return s ? rg__memdup0(s, strlen(s)) : NULL; }

char *rg__memdup0(const void *p, size_t len) {
    if (len >= PTRDIFF_MAX) return NULL;
    char *copy = rg__malloc(len + 1);
    if (!copy) return NULL;
    if (len) memcpy(copy, p, len);
    copy[len] = '\0';
    return copy;
}

void rg__free(void *p) { free(p); }
