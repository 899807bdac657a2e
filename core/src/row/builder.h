/* SPDX-License-Identifier: MIT */
/* The builder's inside. It holds an image of the row's header, null bitmap and fixed area, and the
 * bytes of VAR columns aside: a setter writes its value in place, finishing is two copies. */
#ifndef RG_ROW_BUILDER_H
#define RG_ROW_BUILDER_H

#include "row/pack.h"

/* What is known of a column since reset. */
typedef enum rg__state {
    RG__ABSENT = 0, /* the image holds the default */
    RG__NULLED,     /* NULL was given: the image holds it, or the default when not nullable */
    RG__SET,        /* checked by a setter, except for REQUIRED */
    RG__TRUSTED,    /* put */
    RG__LOADED      /* as in the row that was loaded; trusted, too */
} rg__state;

struct rg_builder {
    const rg_type *type;
    uint8_t *image;      /* fixed_end bytes; a VAR pair is (position in `bytes`, length) */
    uint8_t *defaults;   /* the image when nothing is set */
    uint8_t *state;      /* rg__state, by column */
    uint32_t *vars;      /* VAR columns in order */
    uint32_t *required;  /* REQUIRED columns */
    uint32_t *stamps;    /* CREATED and UPDATED columns */
    uint32_t n_vars, n_required, n_stamps;
    rg__buf bytes;       /* VAR values; `failed` is kept until reset */
    size_t default_bytes; /* how many of them belong to defaults, at the start */
    uint64_t loaded;      /* checksum of the row that was loaded; 0: none since reset */
    bool vars_loaded;     /* VAR values lie one behind the other, as in that row: their positions are those there */
};

/* Where in `bytes` the value of a VAR column is. */
static inline size_t rg__builder_var_at(const rg_builder *b, const rg__column *c) {
    uint32_t at = rg__var_at(c, b->image);
    return b->vars_loaded ? at - b->type->fixed_end + b->default_bytes : at;
}

/* EINVALID with entity, field and text. */
int rg__builder_fail(const rg_builder *b, const rg__column *c, rg_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with text that ends in the value at fault: "***" for SENSITIVE columns, else shortened
 * and printable. */
int rg__builder_fail_value(const rg_builder *b, const rg__column *c, rg_err *err, const char *text,
                           const char *p, size_t len);
/* Writes a fixed value. */
void rg__builder_fixed(rg_builder *b, uint32_t col, uint64_t bits, rg__state state);
/* Writes a VAR value. */
int rg__builder_var(rg_builder *b, uint32_t col, const void *p, size_t len, rg__state state,
                    rg_err *err);
/* Adds bytes to a VAR value that is not NULL. */
int rg__builder_var_add(rg_builder *b, uint32_t col, const void *p, size_t len, rg_err *err);
/* The setters of text kinds (row/words.c), of numbers and of times (row/figures.c), from text. */
int rg__builder_words(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err);
int rg__builder_figures(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err);

#endif
