/* SPDX-License-Identifier: MIT */
/* Writes operations as a payload: a dictionary of the tables and columns used, then the values. */
#include "queue/payload.h"

#include <xxhash.h>

#include "base/alloc.h"
#include "base/err.h"
#include "row/listed.h"

enum { VARINT_MAX = 10, VALUE_MAX = 8 + VARINT_MAX, NO_TABLE = -1 };

/* A column that is used. */
typedef struct used_column {
    const rg__column *column;
    uint32_t number;
    int width; /* rg__payload_width */
} used_column;

/* One table of the dictionary. */
typedef struct table {
    const rg_type *type;
    uint8_t *used;      /* by column number */
    uint8_t *before;    /* scratch: columns whose former values travel */
    used_column *columns; /* by number, ascending */
    uint32_t n_columns;
    size_t text_max;    /* longest text of all its ENUM and SET values together */
    bool all;           /* every column is used */
} table;

typedef struct dictionary {
    table *tables;
    size_t n, cap;
    size_t last; /* the table met last: payloads are mostly of few types */
} dictionary;

int rg__payload_width(int kind) {
    static const int8_t widths[RG_KIND_END] = {
        [RG_BOOL] = 1,   [RG_I8] = 1,  [RG_I16] = 2,   [RG_I24] = 4,    [RG_I32] = 4,
        [RG_I64] = 8,    [RG_U8] = 1,  [RG_U16] = 2,   [RG_U24] = 4,    [RG_U32] = 4,
        [RG_U64] = 8,    [RG_REF] = 8, [RG_FLOAT] = 4, [RG_DOUBLE] = 8, [RG_DATE] = 4,
        [RG_DATETIME] = 8, [RG_TIME] = 8};
    return kind > 0 && kind < RG_KIND_END ? widths[kind] : -1;
}

/* ---- the header ---- */

void rg__payload_header(rg__buf *out, uint32_t n_ops, uint16_t n_tables) {
    rg__buf_le16(out, RG__PAYLOAD_MAGIC);
    rg__buf_char(out, RG__PAYLOAD_VERSION);
    rg__buf_char(out, 0);
    rg__buf_le64(out, 0);
    rg__buf_le32(out, n_ops);
    rg__buf_le16(out, n_tables);
}

uint64_t rg__payload_sum(const void *payload, size_t len) {
    return XXH3_64bits((const char *)payload + RG__PAYLOAD_SUMMED, len - RG__PAYLOAD_SUMMED);
}

void rg__payload_seal(rg__buf *out, size_t start) {
    if (out->failed) return;
    uint64_t sum = rg__payload_sum(out->p + start, out->len - start);
    memcpy(out->p + start + RG__PAYLOAD_SUM, &sum, sizeof sum);
}

/* ---- the dictionary ---- */

static void dictionary_deinit(dictionary *d) {
    for (size_t i = 0; i < d->n; i++) {
        rg__free(d->tables[i].used);
        rg__free(d->tables[i].columns);
    }
    rg__free(d->tables);
}

static table *add_table(dictionary *d, const rg_type *t) {
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        table *p = rg__reallocarray(d->tables, cap, sizeof *p);
        if (!p) return NULL;
        d->tables = p;
        d->cap = cap;
    }
    table *added = &d->tables[d->n];
    *added = (table){.type = t, .used = rg__calloc(t->n_columns, 2)};
    if (!added->used) return NULL;
    added->before = added->used + t->n_columns;
    d->last = d->n++;
    return added;
}

static table *find_table(dictionary *d, const rg_type *t) {
    if (d->n && d->tables[d->last].type == t) return &d->tables[d->last];
    for (size_t i = 0; i < d->n; i++)
        if (d->tables[i].type == t) {
            d->last = i;
            return &d->tables[i];
        }
    return NULL;
}

static bool touches(const rg__index *x, const uint8_t *mask) {
    for (uint32_t i = 0; i < x->n_columns; i++)
        if (mask[x->columns[i]]) return true;
    return false;
}

/* Columns whose former values the consumer needs to name the lookups that the operation leaves. */
static bool find_before(const rg__qop *op, uint8_t *out) {
    const rg_type *t = op->type;
    bool any = false;
    if (!op->before || op->write == RG_INSERT) return false;
    memset(out, 0, t->n_columns);
    for (uint32_t i = 0; i < t->n_indexes; i++) {
        const rg__index *x = &t->indexes[i];
        if (!rg__index_cached(x) || (op->write == RG_UPDATE && !touches(x, op->mask))) continue;
        for (uint32_t k = 0; k < x->n_columns; k++) out[x->columns[k]] = 1;
        any |= x->n_columns > 0;
    }
    return any;
}

static void use(table *e, const uint8_t *mask) {
    for (uint32_t i = 1; i < e->type->n_columns; i++) e->used[i] |= mask[i] != 0;
}

static int check(const rg__qop *op, rg_err *err) {
    bool known = op->write == RG_INSERT || op->write == RG_UPDATE || op->write == RG_DELETE;
    if (!known || !op->type || (op->write != RG_DELETE && !op->row) ||
        (op->write == RG_UPDATE && !op->mask))
        return rg__fail(err, RG_EINTERNAL, "an operation without type, row or mask");
    return RG_OK;
}

static int note(dictionary *d, const rg__qop *op, rg_err *err) {
    int rc = check(op, err);
    if (rc < 0) return rc;
    table *e = find_table(d, op->type);
    if (!e) e = add_table(d, op->type);
    if (!e) return rg__fail_memory(err);
    if (op->write == RG_INSERT || op->current) e->all = true;
    if (e->all) return RG_OK;
    if (op->write == RG_UPDATE) use(e, op->mask);
    if (find_before(op, e->before)) use(e, e->before);
    if (op->expect) use(e, op->expect);
    return RG_OK;
}

static int number_columns(table *e) {
    const rg_type *t = e->type;
    e->columns = rg__reallocarray(NULL, t->n_columns, sizeof *e->columns);
    if (!e->columns) return RG_ENO_MEMORY;
    for (uint32_t i = 1; i < t->n_columns; i++) {
        if (!e->all && !e->used[i]) continue;
        const rg__column *c = &t->columns[i];
        int width = rg__payload_width(c->kind);
        e->columns[e->n_columns++] = (used_column){.column = c, .number = i, .width = width};
        if (width == 0) e->text_max += rg__listed_max(c);
    }
    return RG_OK;
}

static int make_dictionary(dictionary *d, const rg__qop *ops, size_t n, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc == RG_OK && i < n; i++) rc = note(d, &ops[i], err);
    for (size_t i = 0; rc == RG_OK && i < d->n; i++)
        if (number_columns(&d->tables[i]) < 0) rc = rg__fail_memory(err);
    if (rc == RG_OK && d->n > UINT16_MAX)
        rc = rg__fail(err, RG_ELIMIT, "a flush of more than 65535 entity types cannot be queued");
    return rc;
}

static void write_name(rg__buf *out, const char *name) {
    size_t len = strlen(name);
    rg__buf_le16(out, (uint16_t)len);
    rg__buf_add(out, name, len);
}

static void write_dictionary(const dictionary *d, size_t n, rg__buf *out) {
    rg__payload_header(out, (uint32_t)n, (uint16_t)d->n);
    for (size_t i = 0; i < d->n; i++) {
        const table *e = &d->tables[i];
        write_name(out, e->type->name);
        write_name(out, e->type->table);
        rg__buf_le16(out, (uint16_t)e->n_columns);
        for (uint32_t k = 0; k < e->n_columns; k++) {
            const rg__column *c = e->columns[k].column;
            rg__buf_char(out, (char)c->kind);
            write_name(out, c->column);
        }
    }
}

/* ---- operations, written into room that was reserved for the longest they can become ---- */

static inline uint8_t *put(uint8_t *p, const void *from, size_t n) {
    memcpy(p, from, n);
    return p + n;
}

static uint8_t *put_varint(uint8_t *p, size_t v) {
    for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static uint8_t *put_text(uint8_t *p, const void *text, size_t len) {
    return put(put_varint(p, len), text, len);
}

static uint8_t *put_enum(uint8_t *p, const rg__column *c, const uint8_t *at) {
    uint16_t number;
    memcpy(&number, at, sizeof number);
    rg__slice word = rg__listed_word(c, number);
    return put_text(p, word.p, word.len);
}

static uint8_t *put_set(uint8_t *p, const rg__column *c, const uint8_t *at) {
    uint64_t bits;
    memcpy(&bits, at, sizeof bits);
    p = put_varint(p, rg__listed_len(c, bits));
    return (uint8_t *)rg__listed_put(c, bits, (char *)p);
}

/* Lengths that are known make no calls. */
static uint8_t *put_value(uint8_t *p, const used_column *u, const uint8_t *row) {
    const rg__column *c = u->column;
    const uint8_t *at = row + c->offset;
    switch (u->width) {
    case 1: return put(p, at, 1);
    case 4: return put(p, at, 4);
    case 8: return put(p, at, 8);
    case 0: break;
    default: return put(p, at, (size_t)u->width);
    }
    if (c->kind == RG_ENUM) return put_enum(p, c, at);
    if (c->kind == RG_SET) return put_set(p, c, at);
    uint32_t var[2];
    memcpy(var, at, sizeof var);
    return put_text(p, row + var[0], var[1]);
}

static bool is_null(const rg__column *c, const uint8_t *row) {
    return (c->flags & RG_COL_NULLABLE) && (row[c->null_at] & c->null_bit);
}

/* mask NULL: every column of the table. */
static uint8_t *put_values(uint8_t *p, const table *e, const uint8_t *mask, const uint8_t *row) {
    size_t bytes = (e->n_columns + 7) / 8;
    uint8_t *present = p;
    uint8_t *null = p + bytes;
    memset(p, 0, 2 * bytes);
    p += 2 * bytes;
    for (uint32_t k = 0; k < e->n_columns; k++) {
        const used_column *u = &e->columns[k];
        uint8_t bit = (uint8_t)(1 << k % 8);
        if (mask && !mask[u->number]) continue;
        present[k / 8] |= bit;
        if (is_null(u->column, row)) null[k / 8] |= bit;
        else p = put_value(p, u, row);
    }
    return p;
}

static uint32_t row_length(const void *row) {
    uint32_t len;
    memcpy(&len, (const char *)row + 4, sizeof len);
    return len;
}

/* Longest that the operation can become. */
static size_t room(const table *e, const rg__qop *op) {
    size_t fixed = 2 * ((e->n_columns + 7) / 8) + (size_t)e->n_columns * VALUE_MAX + e->text_max;
    size_t n = RG__OP_SMALLEST + 8;
    if (op->row) n += fixed + row_length(op->row);
    if (op->before) n += fixed + row_length(op->before);
    if (op->expect) n += fixed + row_length(op->expected_row);
    if (op->current) n += fixed + row_length(op->current);
    return n;
}

static uint8_t *put_op(uint8_t *p, table *e, size_t number, const rg__qop *op) {
    bool before = find_before(op, e->before);
    bool values = op->write != RG_DELETE;
    bool expected = op->write != RG_INSERT && op->type->version_column != 0;
    uint16_t at = (uint16_t)number;
    uint8_t kind[2] = {op->write, (uint8_t)((expected ? RG__OP_EXPECTED : 0) |
                                            (values ? RG__OP_VALUES : 0) |
                                            (before ? RG__OP_BEFORE : 0) |
                                            (op->expect ? RG__OP_COMPARED : 0) |
                                            (op->current ? RG__OP_CURRENT : 0))};
    p = put(p, &at, sizeof at);
    p = put(p, kind, sizeof kind);
    p = put(p, &op->id, sizeof op->id);
    if (expected) p = put(p, &op->expected, sizeof op->expected);
    if (values) p = put_values(p, e, op->write == RG_UPDATE ? op->mask : NULL, op->row);
    if (before) p = put_values(p, e, e->before, op->before);
    if (op->expect) p = put_values(p, e, op->expect, op->expected_row);
    if (op->current) p = put_values(p, e, NULL, op->current);
    return p;
}

static int write_op(dictionary *d, const rg__qop *op, rg__buf *out, rg_err *err) {
    table *e = find_table(d, op->type);
    char *start = rg__buf_reserve(out, room(e, op));
    if (!start) return rg__fail_memory(err);
    uint8_t *end = put_op((uint8_t *)start + 4, e, d->last, op);
    size_t len = (size_t)((char *)end - start);
    if (len - 4 > UINT32_MAX) return rg__fail(err, RG_ELIMIT, "the row is too long to be queued");
    uint32_t rest = (uint32_t)(len - 4);
    memcpy(start, &rest, sizeof rest);
    out->len += len;
    return RG_OK;
}

int rg__qop_encode(const rg__qop *ops, size_t n, rg__buf *out, rg_err *err) {
    dictionary d = {0};
    size_t start = out->len;
    if (n > UINT32_MAX) return rg__fail(err, RG_ELIMIT, "too many operations to be queued at once");
    int rc = make_dictionary(&d, ops, n, err);
    if (rc == RG_OK) write_dictionary(&d, n, out);
    for (size_t i = 0; rc == RG_OK && i < n; i++) rc = write_op(&d, &ops[i], out, err);
    if (rc == RG_OK && out->failed) rc = rg__fail_memory(err);
    if (rc == RG_OK) rg__payload_seal(out, start);
    dictionary_deinit(&d);
    return rc;
}
