/* SPDX-License-Identifier: MIT */
/* Arguments of a command, gathered one by one. */
#include <stdio.h>

#include "base/alloc.h"
#include "cache/shared.h"

enum { FEW = sizeof((rg__args){0}.few_lens) / sizeof(size_t) };

void rg__args_init(rg__args *a) {
    a->argv = a->few_argv;
    a->lens = a->few_lens;
    a->cap = FEW;
    a->n = a->n_numbers = 0;
    a->bytes = 0;
    a->failed = false;
}

void rg__args_deinit(rg__args *a) {
    if (a->argv == a->few_argv) return;
    rg__free(a->argv);
    rg__free(a->lens);
}

static void grow(rg__args *a) {
    int cap = a->cap * 4;
    const char **argv = rg__reallocarray(NULL, (size_t)cap, sizeof *argv);
    size_t *lens = rg__reallocarray(NULL, (size_t)cap, sizeof *lens);
    a->failed |= !argv || !lens;
    if (argv && lens) {
        memcpy(argv, a->argv, (size_t)a->n * sizeof *argv);
        memcpy(lens, a->lens, (size_t)a->n * sizeof *lens);
        rg__args_deinit(a);
        a->argv = argv;
        a->lens = lens;
        a->cap = cap;
        return;
    }
    rg__free(argv);
    rg__free(lens);
}

void rg__args_add(rg__args *a, const void *p, size_t len) {
    if (a->n == a->cap) grow(a);
    if (a->failed) return;
    a->argv[a->n] = p;
    a->lens[a->n++] = len;
    a->bytes += len;
}

void rg__args_name(rg__args *a, const rg__name *name) { rg__args_add(a, name->text, name->len); }

void rg__args_buf(rg__args *a, const rg__buf *b) {
    a->failed |= b->failed;
    rg__args_add(a, b->p ? b->p : "", b->len);
}

void rg__args_u64(rg__args *a, uint64_t v) {
    char *at = a->numbers[a->n_numbers++];
    rg__args_add(a, at, (size_t)snprintf(at, sizeof a->numbers[0], "%llu", (unsigned long long)v));
}
