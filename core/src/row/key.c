/* SPDX-License-Identifier: MIT */
/* Keys of lookups: the values of an index's columns as bytes that are equal when the server holds
 * the values equal. Per value: a tag, the length as a varint, the bytes; for NULL the tag alone. */
#include "base/err.h"
#include "row/builder.h"

enum { NULL_TAG = 'n', SIGNED_TAG = 'i', UNSIGNED_TAG = 'u', FLOAT_TAG = 'f', BYTES_TAG = 's' };

/* ---- collations ---- */

/* Collations that fold ASCII letters one by one, without contractions or exceptions of a language:
 * "cH" is not "ch" in Czech, nor "I" "i" in Turkish. Values of others keep their letters, so that
 * equal keys stay a proof of equality. */
static bool folds_ascii(const char *collation) {
    static const char *const folding[] = {
        "general_ci",         "general_nopad_ci",     "unicode_ci",
        "unicode_nopad_ci",   "unicode_520_ci",       "unicode_520_nopad_ci",
        "0900_ai_ci",         "0900_as_ci",           "uca1400_ai_ci",
        "uca1400_as_ci",      "uca1400_nopad_ai_ci",  "uca1400_nopad_as_ci",
    };
    if (!collation || strncmp(collation, "utf8mb4_", 8) != 0) return false;
    for (size_t i = 0; i < sizeof folding / sizeof *folding; i++)
        if (strcmp(collation + 8, folding[i]) == 0) return true;
    return false;
}

/* The comparison pads the shorter value with spaces: all older collations do. */
static bool pads_space(const char *collation) {
    return !collation || (!strstr(collation, "_0900_") && !strstr(collation, "_nopad_"));
}

/* ---- encoding ---- */

static void add_head(rg__buf *out, char tag, size_t len) {
    rg__buf_char(out, tag);
    for (; len >= 0x80; len >>= 7) rg__buf_char(out, (char)(len | 0x80));
    rg__buf_char(out, (char)len);
}

/* The low bytes that matter: small numbers make short keys. */
static void add_number(rg__buf *out, char tag, uint64_t v) {
    char bytes[8];
    size_t n = 0;
    for (; v; v >>= 8) bytes[n++] = (char)v;
    add_head(out, tag, n);
    rg__buf_add(out, bytes, n);
}

/* Small magnitudes of either sign make small numbers. */
static uint64_t zigzag(int64_t v) {
    return v < 0 ? ~((uint64_t)v << 1) : (uint64_t)v << 1;
}

static void add_double(rg__buf *out, double d) {
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    add_number(out, FLOAT_TAG, bits);
}

static void add_folded(rg__buf *out, rg__slice s) {
    char *to = rg__buf_reserve(out, s.len);
    if (!to) return;
    for (size_t i = 0; i < s.len; i++)
        to[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
    out->len += s.len;
}

static void add_bytes(rg__buf *out, const rg__column *c, rg__slice s) {
    bool text = c->kind == RG_STRING;
    while (text && s.len && s.p[s.len - 1] == ' ' && pads_space(c->collation)) s.len--;
    add_head(out, BYTES_TAG, s.len);
    if (text && folds_ascii(c->collation)) add_folded(out, s);
    else rg__buf_add(out, s.p, s.len);
}

static void add_value(rg__buf *out, const rg__column *c, const rg__value *v) {
    if (v->is_null) rg__buf_char(out, NULL_TAG);
    else if (v->store == RG_STORE_VAR) add_bytes(out, c, v->s);
    else if (v->store == RG_STORE_F32 || v->store == RG_STORE_F64) add_double(out, v->d);
    else if (v->store <= RG_STORE_I64) add_number(out, SIGNED_TAG, zigzag(v->i));
    else add_number(out, UNSIGNED_TAG, v->u);
}

bool rg__key_encode(const rg_type *t, const rg__index *x, const void *row, rg__buf *out) {
    bool whole = true;
    for (uint32_t i = 0; i < x->n_columns; i++) {
        rg__value v = rg__row_value(t, row, x->columns[i]);
        add_value(out, &t->columns[x->columns[i]], &v);
        whole = whole && !v.is_null;
    }
    return whole;
}

/* A value as the builder holds it, whose VAR bytes lie aside. */
static rg__value builder_value(const rg_builder *b, uint32_t col) {
    const rg__column *c = &b->type->columns[col];
    bool is_null = b->state[col] == RG__NULLED || rg__cell_null(c, b->image);
    rg__value v = {.is_null = is_null, .store = c->store};
    if (is_null) return v;
    if (c->store != RG_STORE_VAR) return rg__row_value(b->type, b->image, col);
    uint32_t len = rg__var_len(c, b->image);
    v.s = (rg__slice){len ? b->bytes.p + rg__builder_var_at(b, c) : "", len};
    return v;
}

int rg__key_encode_builder(const rg_type *t, const rg__index *x, rg_builder *b, rg__buf *out,
                           bool *has_null, rg_err *err) {
    *has_null = false;
    for (uint32_t i = 0; i < x->n_columns; i++) {
        const rg__column *c = &t->columns[x->columns[i]];
        if (!rg__builder_has(b, x->columns[i]))
            return rg__type_fail(t, c->name, err, "index \"%s\" needs a value", x->name);
        rg__value v = builder_value(b, x->columns[i]);
        add_value(out, c, &v);
        *has_null = *has_null || v.is_null;
    }
    return out->failed ? rg__fail_memory(err) : RG_OK;
}

bool rg__key_matches(const rg_type *t, const rg__index *x, const void *row, rg__slice key) {
    rg__buf own = {0};
    rg__key_encode(t, x, row, &own);
    bool eq = !own.failed && rg__slice_eq((rg__slice){own.p, own.len}, key);
    rg__buf_deinit(&own);
    return eq;
}
