/* SPDX-License-Identifier: MIT */
/* Setters of text, bytes, JSON, enums, sets and lists of references. */
#include "base/err.h"
#include "row/builder.h"
#include "row/listed.h"
#include "row/scalar.h"
#include "schema/type.h"

#include <inttypes.h>
#include <math.h>

#define MAX_ID (UINT64_C(1) << 53)

static const rg__column *column_of(const rg_builder *b, uint32_t col) {
    return &b->type->columns[col];
}

/* ---- text, bytes, JSON ---- */

static int set_text(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    const rg__column *c = column_of(b, col);
    size_t chars;
    if (!rg__utf8_valid(p, len, &chars)) return rg__builder_fail(b, c, err, "invalid UTF-8");
    if ((c->kind == RG_STRING ? chars : len) > c->length)
        return rg__builder_fail(b, c, err, "text too long, max %u %sallowed", c->length,
                                c->kind == RG_STRING ? "" : "bytes ");
    return rg__builder_var(b, col, p, len, RG__SET, err);
}

static int set_bytes(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    const rg__column *c = column_of(b, col);
    if (len > c->length)
        return rg__builder_fail(b, c, err, "value too long, max %u bytes allowed", c->length);
    return rg__builder_var(b, col, p, len, RG__SET, err);
}

static int set_json(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    size_t at = rg__json_fault(p, len);
    if (at) return rg__builder_fail(b, column_of(b, col), err, "invalid JSON at byte %zu", at);
    return rg__builder_var(b, col, p, len, RG__SET, err);
}

/* ---- enums and sets ---- */

static int refuse_value(rg_builder *b, const rg__column *c, const char *p, size_t len,
                        rg_err *err) {
    if (len == 0) return rg__builder_fail(b, c, err, "empty value not allowed");
    return rg__builder_fail_value(b, c, err, "invalid value: ", p, len);
}

static int set_enum(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    const rg__column *c = column_of(b, col);
    uint32_t number = rg__listed_number(c, (rg__slice){p, len});
    if (number == 0) return refuse_value(b, c, p, len, err);
    rg__builder_fixed(b, col, number, RG__SET);
    return RG_OK;
}

/* "a,b"; the empty text is the empty set. */
static int set_set(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    const rg__column *c = column_of(b, col);
    rg__slice at;
    uint64_t bits;
    if (!rg__listed_bits(c, (rg__slice){p, len}, &bits, &at)) return refuse_value(b, c, at.p, at.len, err);
    rg__builder_fixed(b, col, bits, RG__SET);
    return RG_OK;
}

static int check_kind(const rg_builder *b, uint32_t col, int kind, rg_err *err) {
    if (col >= b->type->n_columns)
        return rg__type_fail(b->type, NULL, err, "there is no column %u", col);
    const rg__column *c = column_of(b, col);
    if (c->kind == kind) return RG_OK;
    return rg__builder_fail(b, c, err, "%s expected, got a list", rg__kind(c->kind)->name);
}

int rg_builder_set_begin(rg_builder *b, uint32_t col, rg_err *err) {
    int rc = check_kind(b, col, RG_SET, err);
    if (rc == RG_OK) rg__builder_fixed(b, col, 0, RG__SET);
    return rc;
}

int rg_builder_set_add(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    int rc = check_kind(b, col, RG_SET, err);
    if (rc < 0) return rc;
    const rg__column *c = column_of(b, col);
    uint32_t number = rg__listed_number(c, (rg__slice){p, len});
    if (number == 0) return refuse_value(b, c, p, len, err);
    uint64_t had = b->state[col] == RG__SET ? rg__cell_bits(c, b->image) : 0;
    rg__builder_fixed(b, col, had | UINT64_C(1) << (number - 1), RG__SET);
    return RG_OK;
}

/* ---- lists of references ---- */

int rg_builder_refs_begin(rg_builder *b, uint32_t col, rg_err *err) {
    int rc = check_kind(b, col, RG_REFS, err);
    return rc == RG_OK ? rg__builder_var(b, col, "", 0, RG__SET, err) : rc;
}

static int check_id(const rg_builder *b, const rg__column *c, double id, rg_err *err) {
    if (!isfinite(id)) return rg__builder_fail(b, c, err, "not a finite number");
    if (id == 0) return rg__builder_fail(b, c, err, "empty value not allowed");
    char shown[RG__NUMBER_MAX];
    size_t n = rg__number_format(id, false, shown);
    if (id != floor(id)) return rg__builder_fail_value(b, c, err, "not a whole number: ", shown, n);
    if (id < 0 || id > (double)MAX_ID)
        return rg__builder_fail_value(b, c, err, "invalid reference: ", shown, n);
    return RG_OK;
}

static int add_id(rg_builder *b, uint32_t col, uint64_t id, rg_err *err) {
    int rc = RG_OK;
    if (b->state[col] != RG__SET) rc = rg_builder_refs_begin(b, col, err);
    return rc == RG_OK ? rg__builder_var_add(b, col, &id, sizeof id, err) : rc;
}

int rg_builder_refs_add(rg_builder *b, uint32_t col, double id, rg_err *err) {
    int rc = check_kind(b, col, RG_REFS, err);
    bool good = id >= 1 && id <= (double)MAX_ID && id == floor(id);
    if (rc == RG_OK && !good) rc = check_id(b, column_of(b, col), id, err);
    return rc == RG_OK ? add_id(b, col, (uint64_t)id, err) : rc;
}

typedef struct scan {
    const char *p, *end;
} scan;

static void skip_space(scan *s) {
    while (s->p < s->end && *s->p && strchr(" \t\r\n", *s->p)) s->p++;
}

static bool accept(scan *s, char c) {
    skip_space(s);
    if (s->p == s->end || *s->p != c) return false;
    s->p++;
    return true;
}

static bool take_id(scan *s, rg__buf *out) {
    uint64_t id = 0;
    skip_space(s);
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && id <= MAX_ID; s->p++)
        id = id * 10 + (uint64_t)(*s->p - '0');
    if (id == 0 || id > MAX_ID) return false;
    rg__buf_le64(out, id);
    return true;
}

int rg__refs_parse(const char *p, size_t len, rg__buf *out) {
    scan s = {p, p + len};
    bool good = accept(&s, '[');
    if (good && !accept(&s, ']')) {
        do good = take_id(&s, out);
        while (good && accept(&s, ','));
        good = good && accept(&s, ']');
    }
    skip_space(&s);
    return good && s.p == s.end ? RG_OK : RG_EINVALID;
}

static int set_refs(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    rg__buf ids = {0};
    int rc = rg__refs_parse(p, len, &ids);
    if (rc < 0)
        rg__builder_fail_value(b, column_of(b, col), err, "invalid list of ids: ", p, len);
    else
        rc = ids.failed ? rg__fail_memory(err)
                        : rg__builder_var(b, col, ids.p, ids.len, RG__SET, err);
    rg__buf_deinit(&ids);
    return rc;
}

/* ---- by kind ---- */

int rg__builder_words(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    switch (column_of(b, col)->kind) {
    case RG_STRING:
    case RG_TEXT: return set_text(b, col, p, len, err);
    case RG_BINARY:
    case RG_BLOB: return set_bytes(b, col, p, len, err);
    case RG_ENUM: return set_enum(b, col, p, len, err);
    case RG_SET: return set_set(b, col, p, len, err);
    case RG_JSON: return set_json(b, col, p, len, err);
    default: return set_refs(b, col, p, len, err);
    }
}

static bool is_figure(int kind) {
    return kind <= RG_DECIMAL || kind == RG_DATE || kind == RG_DATETIME || kind == RG_TIME ||
           kind == RG_REF;
}

int rg_builder_string(rg_builder *b, uint32_t col, const char *p, size_t len, rg_err *err) {
    if (col >= b->type->n_columns)
        return rg__type_fail(b->type, NULL, err, "there is no column %u", col);
    if (!p) p = "";
    if (is_figure(column_of(b, col)->kind)) return rg__builder_figures(b, col, p, len, err);
    return rg__builder_words(b, col, p, len, err);
}
