/* SPDX-License-Identifier: MIT */
/* Results of prepared statements as rows: bound once, decoded straight into a builder. */
#include "mysql/columns.h"

#include "base/alloc.h"
#include "row/listed.h"
#include "schema/type.h"

#include <math.h>

enum {
    TEXT_MIN = 256,
    TEXT_MAX = 65536, /* a buffer that is kept; longer values are fetched into one that is not */
    SCRATCH_KEEP = 65536
};

/* Where the client library puts one column of a row. */
struct rg__reader_column {
    rg__bound v;
    unsigned long len;
    rg__flag null, error;
    char *text;
    unsigned long cap;
    uint64_t word; /* ENUM: number of the word before, 0: none */
};

/* ---- the statement's side ---- */

static unsigned long text_size(const rg__column *c) {
    unsigned long size = c->kind == RG_STRING ? c->length * 4UL : c->length;
    if (c->kind == RG_DECIMAL) size = c->precision + 3;
    return size >= 32 && size < TEXT_MIN ? size : TEXT_MIN;
}

static bool bind_text(MYSQL_BIND *b, rg__reader_column *r, unsigned long cap, bool binary) {
    char *text = rg__realloc(r->text, cap);
    if (!text) return false;
    r->text = text;
    r->cap = cap;
    b->buffer = text;
    b->buffer_length = cap;
    b->buffer_type = binary ? MYSQL_TYPE_BLOB : MYSQL_TYPE_STRING;
    return true;
}

static enum enum_field_types type_of(const rg__column *c) {
    switch (c->kind) {
    case RG_FLOAT:
        return MYSQL_TYPE_FLOAT;
    case RG_DOUBLE:
        return MYSQL_TYPE_DOUBLE;
    case RG_DATE:
        return MYSQL_TYPE_DATE;
    case RG_DATETIME:
        return MYSQL_TYPE_DATETIME;
    case RG_TIME:
        return MYSQL_TYPE_TIME;
    default:
        return MYSQL_TYPE_LONGLONG;
    }
}

static bool bind_column(const rg__column *c, MYSQL_BIND *b, rg__reader_column *r) {
    b->length = &r->len;
    b->is_null = &r->null;
    b->error = &r->error;
    if (c->store == RG_STORE_VAR || rg__is_listed(c))
        return bind_text(b, r, text_size(c), c->kind == RG_BINARY || c->kind == RG_BLOB);
    b->buffer = &r->v;
    b->buffer_length = sizeof r->v;
    b->buffer_type = type_of(c);
    b->is_unsigned = c->store >= RG_STORE_U8 && c->store <= RG_STORE_U64 && c->kind != RG_BOOL;
    return true;
}

int rg__row_reader_init(rg__row_reader *r, const rg_type *t, rg_err *err) {
    *r = (rg__row_reader){.t = t, .n_columns = t->n_columns};
    r->b = rg_builder_new(t, err);
    if (!r->b) return err ? err->code : RG_ENO_MEMORY;
    r->binds = rg__calloc(t->n_columns, sizeof *r->binds);
    r->columns = rg__calloc(t->n_columns, sizeof *r->columns);
    bool ok = r->binds && r->columns;
    for (uint32_t i = 0; ok && i < t->n_columns; i++)
        ok = bind_column(&t->columns[i], &r->binds[i], &r->columns[i]);
    return ok ? 0 : rg__fail_memory(err);
}

void rg__row_reader_deinit(rg__row_reader *r) {
    for (uint32_t i = 0; r->columns && i < r->n_columns; i++)
        rg__free(r->columns[i].text);
    rg__free(r->columns);
    rg__free(r->binds);
    rg_builder_free(r->b);
    rg__buf_deinit(&r->large);
    rg__buf_deinit(&r->scratch);
}

/* ---- faults ---- */

static int fail_column(const rg__row_reader *r, uint32_t i, rg_err *err, const char *why) {
    const rg__column *c = &r->t->columns[i];
    rg__fail_field(err, c->name, "%s.%s: the table's column %s %s", r->t->name, c->name, c->quoted,
                   why);
    if (!err) return RG_ESCHEMA;
    err->code = RG_ESCHEMA;
    err->cls = RG_CLASS_PERMANENT;
    rg__err_set_entity(err, r->t->name);
    return RG_ESCHEMA;
}

static int fail_range(const rg__row_reader *r, uint32_t i, rg_err *err) {
    return fail_column(r, i, err, "holds a value beyond the field's type");
}

/* ---- fixed values ---- */

#define MAX_ID (UINT64_C(1) << 53)

static bool beyond(const rg__row_reader *r, const rg__reader_column *from) {
    return r->truncated && from->error;
}

static int read_signed(const rg__row_reader *r, uint32_t i, rg__value *v, rg_err *err) {
    const rg__kind_info *k = rg__kind(r->t->columns[i].kind);
    const rg__reader_column *from = &r->columns[i];
    v->i = from->v.i;
    if (beyond(r, from) || v->i < k->min || (v->i > 0 && (uint64_t)v->i > k->max))
        return fail_range(r, i, err);
    return 0;
}

static int read_unsigned(const rg__row_reader *r, uint32_t i, rg__value *v, rg_err *err) {
    const rg__column *c = &r->t->columns[i];
    const rg__kind_info *k = rg__kind(c->kind);
    const rg__reader_column *from = &r->columns[i];
    v->u = from->v.u;
    if (beyond(r, from) || (k->is_integer && v->u > k->max)) return fail_range(r, i, err);
    if (i == 0 && v->u > MAX_ID)
        return fail_column(r, i, err, "holds an id beyond 2^53, which Lua cannot tell from others");
    return 0;
}

static int64_t clock_us(const MYSQL_TIME *t) {
    return ((int64_t)t->hour * 3600 + t->minute * 60 + t->second) * 1000000 +
           (int64_t)t->second_part;
}

/* Dates with a zero year, month or day: what strict mode refuses, but old tables hold. */
static bool is_zero_date(const MYSQL_TIME *t) {
    return t->month == 0 || t->day == 0;
}

static void read_date(const rg__column *c, const MYSQL_TIME *t, rg__value *v) {
    const int64_t day_us = INT64_C(86400000000);
    bool zero = is_zero_date(t), nullable = c->flags & RG_COL_NULLABLE;
    int64_t days =
        zero ? rg__days_from_civil(1000, 1, 1) : rg__days_from_civil(t->year, t->month, t->day);
    v->is_null = zero && nullable;
    v->i = c->kind == RG_DATE ? days : days * day_us + (zero ? 0 : clock_us(t));
}

static void read_time(const MYSQL_TIME *t, rg__value *v) {
    int64_t us = clock_us(t) + (int64_t)t->day * 86400000000;
    v->i = t->neg ? -us : us;
}

/* ---- variable values ---- */

/* Grows the bound buffer, so that the next value of that length needs no second call; beyond its
 * bound the value goes elsewhere. */
static int fetch_long(rg__row_reader *r, MYSQL_STMT *st, uint32_t i, rg__slice *out, rg_err *err) {
    rg__reader_column *col = &r->columns[i];
    MYSQL_BIND b = r->binds[i];
    unsigned long cap = col->len;
    bool keep = cap <= TEXT_MAX;
    char *to = keep ? NULL : rg__buf_reserve(&r->large, cap);
    if (keep && bind_text(&r->binds[i], col, cap, b.buffer_type == MYSQL_TYPE_BLOB)) to = col->text;
    if (!to) return rg__fail_memory(err);
    b.buffer = to;
    b.buffer_length = cap;
    if (mysql_stmt_fetch_column(st, &b, i, 0))
        return rg__fail(err, RG_EINTERNAL, "a long value was lost");
    r->rebind |= keep; /* after the row: it makes the library forget where its values are */
    *out = (rg__slice){to, cap};
    return 0;
}

/* 12, -0.50: digits without leading zeros and exactly `scale` decimals. */
static bool is_canonical(rg__slice s, uint32_t scale) {
    size_t sign = s.len && *s.p == '-', point = scale ? s.len - scale - 1 : s.len;
    if (s.len < sign + 1 + (scale ? scale + 1 : 0) || point > s.len) return false;
    if (s.p[sign] == '0' && point > sign + 1) return false;
    for (size_t i = sign; i < s.len; i++)
        if (scale && i == point ? s.p[i] != '.' : s.p[i] < '0' || s.p[i] > '9') return false;
    return true;
}

static int read_decimal(rg__row_reader *r, uint32_t i, rg__value *v, rg_err *err) {
    const rg__column *c = &r->t->columns[i];
    if (is_canonical(v->s, c->scale)) return 0;
    size_t from = r->scratch.len;
    if (rg__decimal_canonical(v->s.p, v->s.len, c->precision, c->scale, &r->scratch))
        return fail_range(r, i, err);
    v->s = (rg__slice){r->scratch.p + from, r->scratch.len - from};
    return 0;
}

/* The next id of [1, 2]; 0 at the end, -1 when it is something else. */
static int next_id(const char **p, const char *end, uint64_t *id) {
    while (*p < end && (**p == ' ' || **p == ',' || **p == '"'))
        ++*p;
    if (*p < end && **p == ']') return 0;
    const char *start = *p;
    for (*id = 0; *p < end && **p >= '0' && **p <= '9'; ++*p)
        *id = *id * 10 + (uint64_t)(**p - '0');
    return *p > start && *p - start < 20 ? 1 : -1;
}

static int read_refs(rg__row_reader *r, uint32_t i, rg__value *v, rg_err *err) {
    const char *p = v->s.p, *end = p + v->s.len;
    size_t from = r->scratch.len;
    uint64_t id;
    int more = p < end && *p++ == '[' ? 1 : -1;
    while (more > 0 && (more = next_id(&p, end, &id)) > 0)
        rg__buf_le64(&r->scratch, id);
    if (more < 0) return fail_column(r, i, err, "holds no list of ids");
    if (r->scratch.failed) return rg__fail_memory(err);
    v->s = (rg__slice){r->scratch.p ? r->scratch.p + from : "", r->scratch.len - from};
    return 0;
}

static int fetch_text(rg__row_reader *r, MYSQL_STMT *st, uint32_t i, rg__slice *out, rg_err *err) {
    const rg__reader_column *col = &r->columns[i];
    *out = (rg__slice){col->text, col->len};
    return col->len > col->cap ? fetch_long(r, st, i, out, err) : 0;
}

/* Most rows have the word of the row before. */
static int read_enum(rg__row_reader *r, MYSQL_STMT *st, uint32_t i, rg__value *v, rg_err *err) {
    const rg__column *c = &r->t->columns[i];
    rg__slice word;
    int code = fetch_text(r, st, i, &word, err);
    if (code) return code;
    v->u = r->columns[i].word;
    if (rg__slice_eq(rg__listed_word(c, v->u), word) && v->u) return 0;
    r->columns[i].word = v->u = rg__listed_number(c, word);
    return v->u ? 0 : fail_column(r, i, err, "holds a value that the field does not list");
}

static int read_set(rg__row_reader *r, MYSQL_STMT *st, uint32_t i, rg__value *v, rg_err *err) {
    rg__slice text, at;
    int code = fetch_text(r, st, i, &text, err);
    if (code) return code;
    if (rg__listed_bits(&r->t->columns[i], text, &v->u, &at)) return 0;
    return fail_column(r, i, err, "holds values that the field does not list");
}

static int read_var(rg__row_reader *r, MYSQL_STMT *st, uint32_t i, rg__value *v, rg_err *err) {
    int code = fetch_text(r, st, i, &v->s, err);
    if (code) return code;
    if (r->t->columns[i].kind == RG_DECIMAL) return read_decimal(r, i, v, err);
    return r->t->columns[i].kind == RG_REFS ? read_refs(r, i, v, err) : 0;
}

/* ---- rows ---- */

static int read_value(rg__row_reader *r, MYSQL_STMT *st, uint32_t i, rg__value *v, rg_err *err) {
    const rg__column *c = &r->t->columns[i];
    const rg__reader_column *from = &r->columns[i];
    switch (c->kind) {
    case RG_BOOL:
        v->u = from->v.i != 0;
        return 0;
    case RG_FLOAT:
        v->d = from->v.f;
        return isfinite(v->d) ? 0 : fail_range(r, i, err); /* of a column that is a DOUBLE */
    case RG_DOUBLE:
        v->d = from->v.d;
        return 0;
    case RG_DATE:
    case RG_DATETIME:
        read_date(c, &from->v.time, v);
        return 0;
    case RG_TIME:
        read_time(&from->v.time, v);
        return 0;
    case RG_ENUM:
        return read_enum(r, st, i, v, err);
    case RG_SET:
        return read_set(r, st, i, v, err);
    default:
        break;
    }
    if (c->store == RG_STORE_VAR) return read_var(r, st, i, v, err);
    return c->store <= RG_STORE_I64 ? read_signed(r, i, v, err) : read_unsigned(r, i, v, err);
}

static int read_column(rg__row_reader *r, MYSQL_STMT *st, uint32_t i, rg_err *err) {
    const rg__column *c = &r->t->columns[i];
    rg__value v = {.store = c->store, .is_null = r->columns[i].null};
    if (v.is_null && !(c->flags & RG_COL_NULLABLE) && c->kind != RG_REF)
        return fail_column(r, i, err, "holds NULL, but the field is not nullable");
    int code = v.is_null ? 0 : read_value(r, st, i, &v, err);
    /* Scratch moves when it grows, so each value is put before the next is read. */
    if (code == 0) rg__builder_put(r->b, i, &v);
    r->scratch.len = 0;
    return code;
}

rg_block *rg__row_read(rg__row_reader *r, MYSQL_STMT *st, int rc, rg_err *err) {
    int code = 0;
    r->truncated = rc == MYSQL_DATA_TRUNCATED;
    rg_builder_reset(r->b);
    for (uint32_t i = 0; code == 0 && i < r->n_columns; i++)
        code = read_column(r, st, i, err);
    rg_block *row = code ? NULL : rg__builder_finish(r->b, false, 0, err);
    if (r->large.cap) rg__buf_deinit(&r->large);
    if (r->rebind && mysql_stmt_bind_result(st, r->binds) && row) {
        rg_block_unref(row);
        rg__fail_memory(err);
        row = NULL;
    }
    r->rebind = false;
    if (r->scratch.cap > SCRATCH_KEEP) rg__buf_deinit(&r->scratch);
    return row;
}
