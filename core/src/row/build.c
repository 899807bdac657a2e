/* SPDX-License-Identifier: MIT */
/* The builder: its life, NULL, trusted values, and the finished row. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"
#include "row/builder.h"

#include <stdio.h>

/* ---- faults ---- */

int rg__builder_fail(const rg_builder *b, const rg__column *c, rg_err *err, const char *fmt, ...) {
    if (!err) return RG_EINVALID;
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return rg__type_fail(b->type, c->name, err, "%s", text);
}

/* At most `cap` bytes of the value, cut between characters, control characters shown as "?". */
static void show(char *out, size_t cap, const char *p, size_t len) {
    size_t n = len < cap - 4 ? len : cap - 4;
    while (n < len && n > 0 && ((unsigned char)p[n] & 0xC0) == 0x80) n--;
    bool valid = rg__utf8_valid(p, n, NULL);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        out[i] = c < 0x20 || c == 0x7F || (c >= 0x80 && !valid) ? '?' : (char)c;
    }
    memcpy(out + n, n < len ? "..." : "", n < len ? 4 : 1);
}

int rg__builder_fail_value(const rg_builder *b, const rg__column *c, rg_err *err, const char *text,
                           const char *p, size_t len) {
    if (c->flags & RG_COL_SENSITIVE) return rg__builder_fail(b, c, err, "%s***", text);
    char shown[68];
    show(shown, sizeof shown, p, len);
    return rg__builder_fail(b, c, err, "%s%s", text, shown);
}

static int fail_column(const rg_builder *b, uint32_t col, rg_err *err) {
    return rg__type_fail(b->type, NULL, err, "there is no column %u", col);
}

/* ---- cells ---- */

static const rg__column *column_of(const rg_builder *b, uint32_t col) {
    return &b->type->columns[col];
}

void rg__builder_fixed(rg_builder *b, uint32_t col, uint64_t bits, rg__state state) {
    rg__cell_put(column_of(b, col), b->image, bits);
    b->state[col] = (uint8_t)state;
}

static int refuse_room(rg_builder *b, const rg__column *c, rg_err *err) {
    if (b->bytes.failed) return rg__fail_memory(err);
    return rg__builder_fail(b, c, err, "row too large, max %d bytes allowed", RG__ROW_MAX);
}

/* Adds to the position of each VAR value. */
static void move_vars(const rg_builder *b, uint8_t *image, uint32_t by) {
    for (uint32_t i = 0; i < b->n_vars; i++) {
        const rg__column *c = column_of(b, b->vars[i]);
        if (!rg__cell_null(c, image)) rg__store32(image + c->offset, rg__var_at(c, image) + by);
    }
}

/* Before a VAR value changes: from now on positions are in `bytes`. */
static void part_vars(rg_builder *b) {
    if (!b->vars_loaded) return;
    b->vars_loaded = false;
    move_vars(b, b->image, (uint32_t)b->default_bytes - b->type->fixed_end);
}

/* Forgets the column's bytes when they are the last ones; others stay as a gap until reset. */
static void drop_last(rg_builder *b, const rg__column *c) {
    size_t at = rg__var_at(c, b->image), len = rg__var_len(c, b->image);
    if (len && at >= b->default_bytes && at + len == b->bytes.len) b->bytes.len = at;
}

/* Room at the end for a value of len bytes; NULL when there is none. */
static char *room(rg_builder *b, size_t len) {
    if (len > RG__ROW_MAX || b->bytes.len + len > RG__ROW_MAX) return NULL;
    return rg__buf_reserve(&b->bytes, len);
}

int rg__builder_var(rg_builder *b, uint32_t col, const void *p, size_t len, rg__state state,
                    rg_err *err) {
    const rg__column *c = column_of(b, col);
    size_t before = b->bytes.len;
    part_vars(b);
    drop_last(b, c);
    char *to = room(b, len);
    if (!to) {
        b->bytes.len = before;
        return refuse_room(b, c, err);
    }
    if (len) memcpy(to, p, len);
    rg__var_put(c, b->image, (uint32_t)b->bytes.len, (uint32_t)len);
    b->bytes.len += len;
    b->state[col] = (uint8_t)state;
    return RG_OK;
}

int rg__builder_var_add(rg_builder *b, uint32_t col, const void *p, size_t len, rg_err *err) {
    const rg__column *c = column_of(b, col);
    part_vars(b);
    uint32_t at = rg__var_at(c, b->image), had = rg__var_len(c, b->image);
    bool last = had && at + had == b->bytes.len && at >= b->default_bytes;
    size_t move = last ? 0 : had;
    char *to = room(b, move + len);
    if (!to) return refuse_room(b, c, err);
    if (move) memcpy(to, b->bytes.p + at, move);
    memcpy(to + move, p, len);
    rg__var_put(c, b->image, last ? at : (uint32_t)b->bytes.len, had + (uint32_t)len);
    b->bytes.len += move + len;
    b->state[col] = RG__SET;
    return RG_OK;
}

static void put_null(rg_builder *b, uint32_t col, rg__state state) {
    const rg__column *c = column_of(b, col);
    if (c->store == RG_STORE_VAR) part_vars(b);
    if (c->flags & RG_COL_NULLABLE) rg__cell_put_null(c, b->image);
    else rg__cell_put(c, b->image, rg__cell_bits(c, b->defaults));
    b->state[col] = (uint8_t)state;
}

int rg_builder_null(rg_builder *b, uint32_t col, rg_err *err) {
    if (col >= b->type->n_columns) return fail_column(b, col, err);
    put_null(b, col, RG__NULLED);
    return RG_OK;
}

/* What REQUIRED refuses besides NULL. */
static bool empty(const rg__column *c, const uint8_t *image) {
    if (rg__cell_null(c, image)) return true;
    if (c->store == RG_STORE_VAR) return rg__var_len(c, image) == 0;
    bool is_id = c->null_at == RG_ROW_HEADER && c->null_bit == 1;
    if (is_id || c->kind == RG_REF || c->kind == RG_SET) return rg__cell_bits(c, image) == 0;
    return false;
}

/* ---- life ---- */

static bool stamped(const rg__column *c) { return c->flags & (RG_COL_CREATED | RG_COL_UPDATED); }

/* What a column holds when neither a value nor a default is given. */
static void put_zero(rg_builder *b, uint32_t col) {
    const rg__column *c = column_of(b, col);
    if (c->flags & RG_COL_NULLABLE) rg__cell_put_null(c, b->image);
    else if (c->kind == RG_ENUM) rg__cell_put(c, b->image, 1);
    else if (c->kind == RG_DECIMAL) rg_builder_string(b, col, "0", 1, NULL);
    else if (c->kind == RG_JSON) rg_builder_string(b, col, "null", 4, NULL);
}

static int put_default(rg_builder *b, uint32_t col, rg_err *err) {
    const rg__column *c = column_of(b, col);
    put_zero(b, col);
    if (!c->def) return RG_OK;
    int rc = rg_builder_string(b, col, c->def, strlen(c->def), err);
    if (rc == RG_OK && (c->flags & RG_COL_REQUIRED) && empty(c, b->image))
        rc = rg__builder_fail(b, c, err, "empty value not allowed");
    return rc;
}

static int put_defaults(rg_builder *b, rg_err *err) {
    const rg_type *t = b->type;
    uint16_t magic = RG_ROW_MAGIC;
    memcpy(b->image, &magic, 2);
    b->image[2] = RG_ROW_FORMAT;
    rg__store64(b->image + 8, t->fingerprint);
    for (uint32_t i = 0; i < t->n_columns; i++) {
        int rc = put_default(b, i, err);
        if (rc < 0) return rc;
    }
    if (b->bytes.failed) return rg__fail_memory(err);
    memcpy(b->defaults, b->image, t->fixed_end);
    b->default_bytes = b->bytes.len;
    return RG_OK;
}

static void list_columns(rg_builder *b) {
    for (uint32_t i = 0; i < b->type->n_columns; i++) {
        const rg__column *c = column_of(b, i);
        bool required = (c->flags & RG_COL_REQUIRED) && (i || b->type->ids != RG_IDS_DATABASE);
        if (c->store == RG_STORE_VAR) b->vars[b->n_vars++] = i;
        if (required) b->required[b->n_required++] = i;
        if (stamped(c)) b->stamps[b->n_stamps++] = i;
    }
}

/* One allocation: the struct, the three lists of columns, the two images, the states. */
static rg_builder *allocate(const rg_type *t) {
    size_t n = t->n_columns, image = (t->fixed_end + 7u) & ~7u;
    rg_builder *b = rg__calloc(1, sizeof *b + 3 * n * sizeof(uint32_t) + 8 + 2 * image + n);
    if (!b) return NULL;
    b->type = t;
    b->vars = (uint32_t *)(b + 1);
    b->required = b->vars + n;
    b->stamps = b->required + n;
    b->image = (uint8_t *)(((uintptr_t)(b->stamps + n) + 7) & ~(uintptr_t)7);
    b->defaults = b->image + image;
    b->state = b->defaults + image;
    return b;
}

rg_builder *rg_builder_new(const rg_type *t, rg_err *err) {
    if (!t->frozen) {
        rg__fail(err, RG_EMISUSE, "%s: the type is not frozen", t->name);
        return NULL;
    }
    rg_builder *b = allocate(t);
    if (!b) {
        rg__fail_memory(err);
        return NULL;
    }
    list_columns(b);
    if (put_defaults(b, err) == RG_OK) {
        rg_builder_reset(b);
        return b;
    }
    rg_builder_free(b);
    return NULL;
}

void rg_builder_free(rg_builder *b) {
    if (!b) return;
    rg__buf_deinit(&b->bytes);
    rg__free(b);
}

void rg_builder_reset(rg_builder *b) {
    memcpy(b->image, b->defaults, b->type->fixed_end);
    memset(b->state, RG__ABSENT, b->type->n_columns);
    b->bytes.len = b->default_bytes;
    b->bytes.failed = false;
    b->loaded = 0;
    b->vars_loaded = false;
}

/* How many bytes the VAR values of a row have. */
static uint64_t var_bytes(const rg_builder *b, const uint8_t *row) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < b->n_vars; i++) bytes += rg__var_len(column_of(b, b->vars[i]), row);
    return bytes;
}

int rg_builder_load(rg_builder *b, const uint8_t *row, uint32_t len, rg_err *err) {
    const rg_type *t = b->type;
    if (len < t->fixed_end) return rg__fail(err, RG_ECORRUPT, "%s: row too short", t->name);
    rg_builder_reset(b);
    char *to = room(b, len - t->fixed_end);
    if (!to && b->bytes.failed) return rg__fail_memory(err);
    if (!to) return rg__fail(err, RG_ECORRUPT, "%s: row too large", t->name);
    memcpy(to, row + t->fixed_end, len - t->fixed_end);
    memcpy(b->image, row, t->fixed_end);
    b->bytes.len += len - t->fixed_end;
    b->vars_loaded = true;
    if (var_bytes(b, row) != len - t->fixed_end) part_vars(b);
    memset(b->state, RG__LOADED, t->n_columns);
    b->loaded = rg__row_sum(row);
    return RG_OK;
}

const rg_type *rg__builder_type(const rg_builder *b) { return b->type; }

bool rg__builder_has(const rg_builder *b, uint32_t col) { return b->state[col] != RG__ABSENT; }

/* ---- trusted values ---- */

/* -0.0 and 0.0 are one value, and have one encoding. */
static uint64_t bits_of_double(double d) {
    uint64_t bits;
    if (d == 0) d = 0;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static uint64_t bits_of_float(float f) {
    uint32_t bits;
    if (f == 0) f = 0;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static uint64_t bits_of(const rg__column *c, const rg__value *v) {
    switch (c->store) {
    case RG_STORE_I8:
    case RG_STORE_I16:
    case RG_STORE_I32:
    case RG_STORE_I64: return (uint64_t)v->i;
    case RG_STORE_F32: return bits_of_float((float)v->d);
    case RG_STORE_F64: return bits_of_double(v->d);
    default: return v->u;
    }
}

void rg__builder_put(rg_builder *b, uint32_t col, const rg__value *v) {
    const rg__column *c = column_of(b, col);
    if (v->is_null || (c->kind == RG_REF && v->u == 0)) {
        put_null(b, col, RG__TRUSTED);
        return;
    }
    if (c->store != RG_STORE_VAR) {
        rg__builder_fixed(b, col, bits_of(c, v), RG__TRUSTED);
        return;
    }
    int rc = rg__builder_var(b, col, v->s.p, v->s.len, RG__TRUSTED, NULL);
    if (rc < 0) b->bytes.failed = true; /* told when the row is finished */
}

int rg_builder_keep(rg_builder *b, uint32_t col, const uint8_t *row, rg_err *err) {
    if (col >= b->type->n_columns) return fail_column(b, col, err);
    rg__value v = rg__row_value(b->type, row, col);
    rg__builder_put(b, col, &v);
    b->state[col] = RG__LOADED;
    return RG_OK;
}

/* ---- the finished row ---- */

static bool will_stamp(const rg__column *c, bool insert, int64_t now_us) {
    return now_us && ((c->flags & RG_COL_UPDATED) || (insert && (c->flags & RG_COL_CREATED)));
}

static int check_required(const rg_builder *b, uint32_t col, bool insert, int64_t now_us,
                          rg_err *err) {
    const rg__column *c = column_of(b, col);
    int state = b->state[col];
    if (state >= RG__TRUSTED || (state == RG__ABSENT && c->def)) return RG_OK;
    if (state != RG__SET && will_stamp(c, insert, now_us)) return RG_OK;
    if (state == RG__SET && !empty(c, b->image)) return RG_OK;
    bool text = state == RG__SET && (c->kind == RG_STRING || c->kind == RG_TEXT);
    return rg__builder_fail(b, c, err, "empty %s not allowed", text ? "string" : "value");
}

/* NULL is the same as before only where it was NULL, or no reference. */
static bool stays_empty(const rg_builder *b, uint32_t col, const void *before) {
    const rg__column *c = column_of(b, col);
    if (!empty(c, before) || !empty(c, b->image)) return false;
    return b->state[col] == RG__SET ||
           (b->state[col] == RG__NULLED && (c->kind == RG_REF || rg__cell_null(c, before)));
}

void rg__builder_keep_empty(rg_builder *b, const void *before) {
    for (uint32_t i = 0; i < b->n_required; i++)
        if (stays_empty(b, b->required[i], before)) b->state[b->required[i]] = RG__TRUSTED;
}

static uint64_t row_length(const rg_builder *b) {
    uint64_t len = b->type->fixed_end;
    if (b->vars_loaded) return len + b->bytes.len - b->default_bytes;
    return len + var_bytes(b, b->image);
}

static void copy_vars(const rg_builder *b, uint8_t *row, uint64_t len) {
    uint32_t at = b->type->fixed_end;
    if (b->vars_loaded) {
        if (len > at) memcpy(row + at, b->bytes.p + b->default_bytes, len - at);
        return;
    }
    for (uint32_t i = 0; i < b->n_vars; i++) {
        const rg__column *c = column_of(b, b->vars[i]);
        if (rg__cell_null(c, row)) continue;
        uint32_t from = rg__var_at(c, row), len = rg__var_len(c, row);
        if (len) memcpy(row + at, b->bytes.p + from, len);
        rg__var_put(c, row, at, len);
        at += len;
    }
}

void rg__builder_keep_stamps(rg_builder *b, const uint8_t *changed) {
    for (uint32_t i = 0; i < b->n_stamps; i++) {
        uint32_t col = b->stamps[i];
        if (changed[col] && b->state[col] == RG__SET) b->state[col] = RG__TRUSTED;
    }
}

/* A value that was given stands: at insert any, at update another one than the row had. */
static void stamp(const rg_builder *b, uint8_t *row, bool insert, int64_t now_us) {
    int64_t days = now_us / 86400000000 - (now_us % 86400000000 < 0);
    for (uint32_t i = 0; i < b->n_stamps; i++) {
        const rg__column *c = column_of(b, b->stamps[i]);
        int state = b->state[b->stamps[i]];
        bool given = state >= RG__SET ||
                     (state == RG__NULLED && (c->flags & RG_COL_NULLABLE));
        bool stands = insert ? given : state == RG__TRUSTED;
        if (!will_stamp(c, insert, now_us) || stands) continue;
        rg__cell_put(c, row, (uint64_t)(c->kind == RG_DATE ? days : now_us));
    }
}

static bool fits(const rg_builder *b, uint64_t len, rg_err *err) {
    if (len > RG__ROW_MAX)
        rg__type_fail(b->type, NULL, err, "row too large, max %d bytes allowed", RG__ROW_MAX);
    return len <= RG__ROW_MAX;
}

static rg_block *make_row(const rg_builder *b, bool insert, int64_t now_us, rg_err *err) {
    uint64_t len = row_length(b);
    if (!fits(b, len, err)) return NULL;
    rg_block *row = b->bytes.failed ? NULL : rg__block_new((uint32_t)len);
    if (!row) {
        rg__fail_memory(err);
        return NULL;
    }
    memcpy(row->data, b->image, b->type->fixed_end);
    if (now_us) stamp(b, row->data, insert, now_us);
    copy_vars(b, row->data, len);
    rg__row_seal(row->data, (uint32_t)len);
    return row;
}

rg_block *rg__builder_finish(rg_builder *b, bool insert, int64_t now_us, rg_err *err) {
    for (uint32_t i = 0; i < b->n_required; i++)
        if (check_required(b, b->required[i], insert, now_us, err) < 0) return NULL;
    return make_row(b, insert, now_us, err);
}

int rg__builder_check_given(const rg_builder *b, rg_err *err) {
    int rc = RG_OK;
    for (uint32_t i = 0; rc == RG_OK && i < b->n_required; i++)
        if (b->state[b->required[i]] != RG__ABSENT)
            rc = check_required(b, b->required[i], false, 0, err);
    return rc;
}

rg_block *rg__builder_partial(rg_builder *b) { return make_row(b, false, 0, NULL); }

size_t rg__builder_size(const rg_builder *b) {
    uint64_t len = (uint64_t)b->type->fixed_end + b->bytes.len;
    return b->bytes.failed || !fits(b, len, NULL) ? 0 : (size_t)len;
}

void rg__builder_values(const rg_builder *b, size_t len, uint8_t *row) {
    uint32_t fixed = b->type->fixed_end;
    memcpy(row, b->image, fixed);
    if (len > fixed) memcpy(row + fixed, b->bytes.p, len - fixed);
    move_vars(b, row, b->vars_loaded ? (uint32_t)b->default_bytes : fixed);
    rg__store32(row + 4, (uint32_t)len);
}

void rg__builder_given(const rg_builder *b, uint8_t *mask) {
    const uint8_t *state = b->state;
    for (uint32_t i = 0, n = b->type->n_columns; i < n; i++) mask[i] |= state[i] != RG__ABSENT;
}

uint32_t rg__builder_diff(const rg_builder *b, const void *before, const void *after, uint8_t *mask) {
    const rg_type *t = b->type;
    uint32_t found = 0;
    if (!b->loaded || b->loaded != rg__row_sum(before)) return rg__row_diff(t, before, after, mask);
    const uint8_t *state = b->state;
    for (uint32_t i = 0, n = t->n_columns; i < n; i++) {
        mask[i] = state[i] != RG__LOADED && !rg__row_column_eq(t, before, after, i);
        found += mask[i];
    }
    return found;
}

rg_block *rg_builder_row(rg_builder *b, rg_err *err) {
    return rg__builder_finish(b, true, rg__wall_us(), err);
}
