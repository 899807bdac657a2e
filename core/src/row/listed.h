/* SPDX-License-Identifier: MIT */
/* Words of enums and sets. A row holds their numbers among the words of its own type (an enum's from 1, a set's as
 * bits), which are nobody else's: a table or another version of a type may list them in another order. So they leave
 * this process as words: to MySQL, into queues, in events. */
#ifndef RG_ROW_LISTED_H
#define RG_ROW_LISTED_H

#include "schema/entity.h"

static inline bool rg__is_listed(const rg__column *c) { return c->kind == RG_ENUM || c->kind == RG_SET; }

/* Number of a word, from 1; 0 when it is not listed. */
uint32_t rg__listed_number(const rg__column *c, rg__slice word);
/* An enum's word by its number; empty when there is none. */
static inline rg__slice rg__listed_word(const rg__column *c, uint64_t number) {
    return number >= 1 && number <= c->n_values ? c->values[number - 1] : (rg__slice){"", 0};
}
/* "a,b", in any order, as bits; the empty text is none. False when one is not listed: *at is that one. */
bool rg__listed_bits(const rg__column *c, rg__slice text, uint64_t *bits, rg__slice *at);
/* Words of a set's bits in the type's order: the next one from *i on; false at the end. */
bool rg__listed_next(const rg__column *c, uint64_t bits, uint32_t *i, rg__slice *word);
/* Of an enum's number, or a set's bits, as text: its length; writes it, without a NUL, and returns the end. */
size_t rg__listed_len(const rg__column *c, uint64_t v);
char *rg__listed_put(const rg__column *c, uint64_t v, char *out);
/* The longest such text. */
size_t rg__listed_max(const rg__column *c);

#endif
