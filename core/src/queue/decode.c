/* SPDX-License-Identifier: MIT */
/* Reads payloads, which are untrusted: every length is checked before it is used, and the names in
 * the dictionary are looked up in this process' own schema. */
#include "queue/payload.h"

#include "base/alloc.h"
#include "base/err.h"

enum {
    SCRATCH_PER_COLUMN = 128, /* a decimal of 65 digits, and what it is made from */
    NAME_MAX_BYTES = 256      /* 64 characters */
};

/* One column of the dictionary. */
typedef struct column {
    int kind;
    rg__slice name;
    int64_t local; /* number in the type, -1 unknown */
} column;

/* One table of the dictionary. */
typedef struct table {
    const rg_type *type;
    rg__slice entity, bytes;
    const char *name; /* entity with a NUL, in the arena */
    column *columns;
    uint32_t n_columns;
} table;

/* What the decoding of one payload works with. */
typedef struct decoder {
    const rg__schema *schema;
    rg__reader r;
    table *tables;
    uint32_t n_tables, n_ops;
    rg__payload *out;
    rg__value *values; /* scratch: values of one operation, by local column */
    uint8_t *given;    /* scratch: which of them came */
    rg__buf text;      /* scratch: text made by conversions; never grows within an operation */
    rg_builder *builder; /* of builder_type, for rows with columns that the sender did not know */
    const rg_type *builder_type;
} decoder;

static int corrupt(rg_err *err, const char *what) {
    return rg__fail(err, RG_ECORRUPT, "not a payload: %s", what);
}

static size_t left(const rg__reader *r) { return r->len - r->at; }

/* ---- the dictionary ---- */

/* Names end up in messages and in SQL, so they are text. */
static rg__slice read_name(rg__reader *r) {
    rg__slice name = rg__read_bytes(r, rg__read_le16(r));
    if (name.len > NAME_MAX_BYTES || !rg__utf8_valid(name.p, name.len, NULL)) r->bad = true;
    return name;
}

static rg__slice since(const rg__reader *r, size_t start) {
    return (rg__slice){(const char *)r->p + start, r->at - start};
}

/* Names mostly come in the order of the type, so the search begins where the last one ended. */
static int64_t find_column(const rg_type *t, rg__slice name, uint32_t *hint) {
    for (uint32_t i = 0; i < t->n_columns; i++) {
        uint32_t at = (*hint + i) % t->n_columns;
        if (!rg__slice_eq(rg__slice_of(t->columns[at].column), name)) continue;
        *hint = at + 1;
        return at;
    }
    return -1;
}

static int read_columns(decoder *d, table *e, rg_err *err) {
    e->n_columns = rg__read_le16(&d->r);
    if (d->r.bad || left(&d->r) < (size_t)e->n_columns * 3)
        return corrupt(err, "columns are cut off");
    e->columns = rg__reallocarray(NULL, (size_t)e->n_columns + 1, sizeof *e->columns);
    if (!e->columns) return rg__fail_memory(err);
    uint32_t hint = 1;
    for (uint32_t i = 0; i < e->n_columns; i++) {
        column *c = &e->columns[i];
        c->kind = rg__read_u8(&d->r);
        c->name = read_name(&d->r);
        c->local = e->type ? find_column(e->type, c->name, &hint) : -1;
    }
    return d->r.bad ? corrupt(err, "columns are cut off") : RG_OK;
}

static int read_table(decoder *d, table *e, rg_err *err) {
    size_t start = d->r.at;
    e->entity = read_name(&d->r);
    rg__slice sql = read_name(&d->r);
    if (d->r.bad) return corrupt(err, "a table is cut off");
    e->type = rg__schema_find(d->schema, e->entity.p, e->entity.len);
    if (!e->type) e->type = rg__schema_find_table(d->schema, sql.p, sql.len);
    int rc = read_columns(d, e, err);
    e->bytes = since(&d->r, start);
    return rc;
}

static int read_header(decoder *d, rg_err *err) {
    uint16_t magic = rg__read_le16(&d->r);
    uint8_t version = rg__read_u8(&d->r);
    rg__read_u8(&d->r);
    uint64_t sum = rg__read_le64(&d->r);
    d->n_ops = rg__read_le32(&d->r);
    d->n_tables = rg__read_le16(&d->r);
    if (d->r.bad || magic != RG__PAYLOAD_MAGIC) return corrupt(err, "no header");
    if (version != RG__PAYLOAD_VERSION)
        return rg__fail(err, RG_ECORRUPT, "a payload of version %u, unknown here", version);
    if (sum != rg__payload_sum(d->r.p, d->r.len))
        return corrupt(err, "its checksum does not match");
    if ((size_t)d->n_tables * 6 > left(&d->r)) return corrupt(err, "tables are cut off");
    return RG_OK;
}

static int read_dictionary(decoder *d, rg_err *err) {
    d->tables = rg__calloc((size_t)d->n_tables + 1, sizeof *d->tables);
    if (!d->tables) return rg__fail_memory(err);
    int rc = RG_OK;
    for (uint32_t i = 0; rc == RG_OK && i < d->n_tables; i++) rc = read_table(d, &d->tables[i],
                                                                              err);
    return rc;
}

/* ---- room for all of it, so that nothing moves while it is filled ---- */

/* Walks over the operations without reading them: checks their lengths, adds their masks up. */
static int measure(const decoder *d, size_t *bytes, rg_err *err) {
    rg__reader r = d->r;
    if (d->n_ops > left(&r) / RG__OP_SMALLEST) return corrupt(err, "operations are cut off");
    for (uint32_t i = 0; i < d->n_ops; i++) {
        uint32_t len = rg__read_le32(&r);
        rg__reader op = {(const uint8_t *)rg__read_bytes(&r, len).p, len, 0, false};
        if (r.bad || len < RG__OP_HEADER) return corrupt(err, "an operation is cut off");
        uint16_t number = rg__read_le16(&op);
        if (number >= d->n_tables) return corrupt(err, "an operation on no table");
        const rg_type *t = d->tables[number].type;
        if (rg__read_u8(&op) == RG_UPDATE && t) *bytes += t->n_columns;
        if (rg__read_u8(&op) & RG__OP_COMPARED && t) *bytes += t->n_columns;
    }
    return left(&r) ? corrupt(err, "bytes after the end") : RG_OK;
}

static char *arena_take(rg__buf *arena, size_t n) {
    char *p = arena->p + arena->len;
    arena->len += n;
    return p;
}

static void copy_names(decoder *d) {
    for (uint32_t i = 0; i < d->n_tables; i++) {
        table *e = &d->tables[i];
        char *p = arena_take(&d->out->arena, e->entity.len + 1);
        if (e->entity.len) memcpy(p, e->entity.p, e->entity.len);
        p[e->entity.len] = '\0';
        e->name = p;
    }
}

static int make_room(decoder *d, rg_err *err) {
    size_t bytes = 1;
    size_t widest = 1;
    for (uint32_t i = 0; i < d->n_tables; i++) {
        bytes += d->tables[i].entity.len + 1;
        const rg_type *t = d->tables[i].type;
        if (t && t->n_columns > widest) widest = t->n_columns;
    }
    int rc = measure(d, &bytes, err);
    if (rc < 0) return rc;
    d->values = rg__reallocarray(NULL, widest, sizeof *d->values);
    d->given = rg__malloc(widest);
    d->out->ops = rg__calloc((size_t)d->n_ops + 1, sizeof *d->out->ops);
    if (!d->values || !d->given || !d->out->ops || !rg__buf_reserve(&d->out->arena, bytes) ||
        !rg__buf_reserve(&d->text, widest * SCRATCH_PER_COLUMN))
        return rg__fail_memory(err);
    copy_names(d);
    return RG_OK;
}

/* ---- values ---- */

static uint64_t read_varint(rg__reader *r) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint8_t byte = rg__read_u8(r);
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return v;
    }
    r->bad = true;
    return 0;
}

static double read_double(rg__reader *r) {
    uint64_t bits = rg__read_le64(r);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static double read_float(rg__reader *r) {
    uint32_t bits = rg__read_le32(r);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static rg__value read_value(rg__reader *r, int kind) {
    rg__value v = {0};
    switch (kind) {
    case RG_BOOL: case RG_U8: v.u = rg__read_u8(r); break;
    case RG_U16: v.u = rg__read_le16(r); break;
    case RG_U24: case RG_U32: v.u = rg__read_le32(r); break;
    case RG_U64: case RG_REF: v.u = rg__read_le64(r); break;
    case RG_I8: v.i = (int8_t)rg__read_u8(r); break;
    case RG_I16: v.i = (int16_t)rg__read_le16(r); break;
    case RG_I24: case RG_I32: case RG_DATE: v.i = (int32_t)rg__read_le32(r); break;
    case RG_I64: case RG_DATETIME: case RG_TIME: v.i = (int64_t)rg__read_le64(r); break;
    case RG_FLOAT: v.d = read_float(r); break;
    case RG_DOUBLE: v.d = read_double(r); break;
    default: v.s = rg__read_bytes(r, read_varint(r));
    }
    return v;
}

static bool bit(rg__slice bits, uint32_t i) { return (uint8_t)bits.p[i / 8] >> i % 8 & 1; }

static void unknown_column(const table *e, const column *c, rg_err *fault) {
    rg__fail(fault, RG_ESCHEMA, "%s has no column \"%.*s\" here", e->type->name, (int)c->name.len,
             c->name.p);
}

/* Reads the values of an operation into d->values. fault gets the first value that cannot be taken;
 * false when the bytes end or cannot be told apart. */
static bool read_values(decoder *d, rg__reader *r, const table *e, rg_err *fault) {
    rg__slice present = rg__read_bytes(r, (e->n_columns + 7) / 8);
    rg__slice null = rg__read_bytes(r, (e->n_columns + 7) / 8);
    if (r->bad) return false;
    rg__buf_clear(&d->text);
    if (e->type) memset(d->given, 0, e->type->n_columns);
    for (uint32_t i = 0; i < e->n_columns; i++) {
        const column *c = &e->columns[i];
        if (!bit(present, i)) continue;
        rg__value v = {.is_null = bit(null, i)};
        if (!v.is_null && rg__payload_width(c->kind) < 0) return false;
        if (!v.is_null) v = read_value(r, c->kind);
        if (r->bad) return false;
        if (!e->type || fault->code < 0) continue;
        if (c->local <= 0) {
            unknown_column(e, c, fault);
        } else if (rg__value_convert(&e->type->columns[c->local], c->kind, &v, &d->text, fault) ==
                   0) {
            d->values[c->local] = v;
            d->given[c->local] = 1;
        }
    }
    return true;
}

/* ---- rows out of values ---- */

/* An insert from a sender that lacked some columns: they take their defaults. */
static rg_block *build_row(decoder *d, const rg_type *t, rg_err *err) {
    if (d->builder_type != t) {
        rg_builder_free(d->builder);
        d->builder = rg_builder_new(t, err);
        d->builder_type = d->builder ? t : NULL;
    }
    if (!d->builder) return NULL;
    rg_builder_reset(d->builder);
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (d->given[i]) rg__builder_put(d->builder, i, &d->values[i]);
    return rg__builder_finish(d->builder, true, 0, err);
}

static rg_block *make_row(decoder *d, const rg_type *t, const rg__qdecoded *op, bool whole,
                          rg_err *err) {
    d->given[0] = 1;
    d->values[0] = (rg__value){.store = RG_STORE_U64, .u = op->id};
    if (whole && memchr(d->given, 0, t->n_columns)) return build_row(d, t, err);
    rg_block *row = rg__row_partial(t, d->values, d->given);
    if (!row) rg__fail_memory(err);
    return row;
}

static bool take_values(decoder *d, rg__reader *r, const table *e, rg__qdecoded *op,
                        rg_err *fault) {
    if (!read_values(d, r, e, fault)) return false;
    if (!e->type || fault->code < 0) return true;
    if (op->write == RG_UPDATE) {
        op->mask = (uint8_t *)arena_take(&d->out->arena, e->type->n_columns);
        memcpy(op->mask, d->given, e->type->n_columns);
        op->mask[0] = 0;
    }
    op->row = make_row(d, e->type, op, op->write == RG_INSERT, fault);
    return true;
}

/* Former values only name lookups: one that does not fit here names none. */
static bool take_before(decoder *d, rg__reader *r, const table *e, rg__qdecoded *op,
                        rg_err *fault) {
    rg_err ignored = {0};
    if (!read_values(d, r, e, &ignored)) return false;
    if (e->type && ignored.code == 0) op->before = make_row(d, e->type, op, false, fault);
    return true;
}

static bool take_expected(decoder *d, rg__reader *r, const table *e, rg__qdecoded *op,
                          rg_err *fault) {
    if (!read_values(d, r, e, fault)) return false;
    if (!e->type || fault->code < 0) return true;
    op->expect = (uint8_t *)arena_take(&d->out->arena, e->type->n_columns);
    memcpy(op->expect, d->given, e->type->n_columns);
    op->expect[0] = 0;
    op->expected_row = make_row(d, e->type, op, false, fault);
    return true;
}

/* For a person to read: what does not fit here is left out. */
static bool take_current(decoder *d, rg__reader *r, const table *e, rg__qdecoded *op,
                         rg_err *fault) {
    rg_err ignored = {0};
    if (!read_values(d, r, e, &ignored)) return false;
    if (e->type && ignored.code == 0) op->current = make_row(d, e->type, op, false, fault);
    return true;
}

/* ---- operations ---- */

static void check_type(const table *e, const rg__qdecoded *op, rg_err *fault) {
    if (!e->type)
        rg__fail(fault, RG_ESCHEMA, "there is no entity \"%s\" here", e->name);
    else if (op->has_expected && !e->type->version_column)
        rg__fail(fault, RG_ESCHEMA, "%s has no version column here", e->type->name);
}

static bool known(const rg__qdecoded *op, uint8_t flags) {
    if (op->write != RG_INSERT && op->write != RG_UPDATE && op->write != RG_DELETE) return false;
    if (op->write == RG_INSERT && flags & RG__OP_COMPARED) return false;
    return !(flags & ~RG__OP_FLAGS) && !(flags & RG__OP_VALUES) == (op->write == RG_DELETE);
}

static int keep_fault(rg__qdecoded *op, const rg_err *fault, rg_err *err) {
    if (fault->code == 0) return RG_OK;
    if (fault->code == RG_ENO_MEMORY) return rg__fail_memory(err);
    op->error = rg__malloc(sizeof *op->error);
    if (!op->error) return rg__fail_memory(err);
    *op->error = *fault;
    op->error->cls = RG_CLASS_PERMANENT;
    op->error->retriable = 0;
    rg__err_set_entity(op->error, op->entity);
    return RG_OK;
}

static int read_op(decoder *d, rg__qdecoded *op, rg_err *err) {
    rg__reader r = {.len = rg__read_le32(&d->r)};
    r.p = (const uint8_t *)rg__read_bytes(&d->r, r.len).p;
    const table *e = &d->tables[rg__read_le16(&r)];
    op->raw = (rg__slice){(const char *)r.p + r.at, r.len - r.at};
    op->write = rg__read_u8(&r);
    uint8_t flags = rg__read_u8(&r);
    op->id = rg__read_le64(&r);
    op->type = e->type;
    op->entity = e->name;
    op->table = e->bytes;
    op->has_expected = flags & RG__OP_EXPECTED;
    if (op->has_expected) op->expected = rg__read_le64(&r);
    if (!known(op, flags)) return corrupt(err, "an operation of no known kind");
    rg_err fault;
    rg__err_clear(&fault);
    check_type(e, op, &fault);
    bool good = !(flags & RG__OP_VALUES) || take_values(d, &r, e, op, &fault);
    good = good && (!(flags & RG__OP_BEFORE) || take_before(d, &r, e, op, &fault));
    good = good && (!(flags & RG__OP_COMPARED) || take_expected(d, &r, e, op, &fault));
    good = good && (!(flags & RG__OP_CURRENT) || take_current(d, &r, e, op, &fault));
    if (!good || r.bad || left(&r)) return corrupt(err, "an operation's values do not add up");
    return keep_fault(op, &fault, err);
}

static int decode(decoder *d, rg_err *err) {
    int rc = read_header(d, err);
    if (rc == RG_OK) rc = read_dictionary(d, err);
    if (rc == RG_OK) rc = make_room(d, err);
    for (uint32_t i = 0; rc == RG_OK && i < d->n_ops; i++) {
        d->out->n = i + 1;
        rc = read_op(d, &d->out->ops[i], err);
    }
    return rc;
}

int rg__payload_decode(const rg__schema *schema, rg__slice bytes, rg__payload *out, rg_err *err) {
    *out = (rg__payload){0};
    decoder d = {.schema = schema, .r = {.p = (const uint8_t *)bytes.p, .len = bytes.len}, .out =
                 out};
    int rc = decode(&d, err);
    if (rc < 0) rg__payload_deinit(out);
    for (uint32_t i = 0; d.tables && i < d.n_tables; i++) rg__free(d.tables[i].columns);
    rg__free(d.tables);
    rg__free(d.values);
    rg__free(d.given);
    rg__buf_deinit(&d.text);
    rg_builder_free(d.builder);
    return rc;
}

void rg__payload_deinit(rg__payload *p) {
    for (size_t i = 0; i < p->n; i++) {
        rg_block_unref(p->ops[i].row);
        rg_block_unref(p->ops[i].before);
        rg_block_unref(p->ops[i].expected_row);
        rg_block_unref(p->ops[i].current);
        rg__free(p->ops[i].error);
    }
    rg__free(p->ops);
    rg__buf_deinit(&p->arena);
    *p = (rg__payload){0};
}

uint32_t rg__payload_count(rg__slice bytes) {
    rg__reader r = {(const uint8_t *)bytes.p, bytes.len, RG__PAYLOAD_SUMMED, false};
    return bytes.len < RG__PAYLOAD_HEADER ? 0 : rg__read_le32(&r);
}

void rg__payload_alone(const rg__payload *p, size_t i, rg__buf *out) {
    const rg__qdecoded *op = &p->ops[i];
    size_t start = out->len;
    rg__payload_header(out, 1, 1);
    rg__buf_add(out, op->table.p, op->table.len);
    rg__buf_le32(out, (uint32_t)(op->raw.len + 2));
    rg__buf_le16(out, 0);
    rg__buf_add(out, op->raw.p, op->raw.len);
    rg__payload_seal(out, start);
}
