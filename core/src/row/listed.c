/* SPDX-License-Identifier: MIT */
/* Words of enums and sets. */
#include "row/listed.h"

#include <string.h>

uint32_t rg__listed_number(const rg__column *c, rg__slice word) {
    for (uint32_t i = 0; i < c->n_values; i++)
        if (rg__slice_eq(c->values[i], word)) return i + 1;
    return 0;
}

bool rg__listed_bits(const rg__column *c, rg__slice text, uint64_t *bits, rg__slice *at) {
    const char *p = text.p, *end = p + text.len;
    *bits = 0;
    while (text.len && p <= end) {
        const char *comma = p < end ? memchr(p, ',', (size_t)(end - p)) : NULL;
        *at = (rg__slice){p, (size_t)((comma ? comma : end) - p)};
        uint32_t number = rg__listed_number(c, *at);
        if (number == 0) return false;
        *bits |= UINT64_C(1) << (number - 1);
        p += at->len + 1;
    }
    return true;
}

bool rg__listed_next(const rg__column *c, uint64_t bits, uint32_t *i, rg__slice *word) {
    while (*i < c->n_values && *i < 64 && !(bits >> *i & 1)) ++*i;
    if (*i >= c->n_values || *i >= 64) return false;
    *word = c->values[(*i)++];
    return true;
}

size_t rg__listed_len(const rg__column *c, uint64_t v) {
    if (c->kind == RG_ENUM) return rg__listed_word(c, v).len;
    rg__slice word;
    size_t len = 0;
    for (uint32_t i = 0; rg__listed_next(c, v, &i, &word);) len += word.len + (len > 0);
    return len;
}

static char *put(char *out, rg__slice word) {
    memcpy(out, word.p, word.len);
    return out + word.len;
}

char *rg__listed_put(const rg__column *c, uint64_t v, char *out) {
    if (c->kind == RG_ENUM) return put(out, rg__listed_word(c, v));
    rg__slice word;
    const char *start = out;
    for (uint32_t i = 0; rg__listed_next(c, v, &i, &word); out = put(out, word))
        if (out > start) *out++ = ',';
    return out;
}

size_t rg__listed_max(const rg__column *c) {
    size_t sum = 0, most = 0;
    for (uint32_t i = 0; i < c->n_values; i++) {
        sum += c->values[i].len + 1;
        if (c->values[i].len > most) most = c->values[i].len;
    }
    return c->kind == RG_ENUM ? most : sum;
}
