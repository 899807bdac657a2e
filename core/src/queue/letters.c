/* SPDX-License-Identifier: MIT */
/* Writing dead letters, and the memory of those that are unresolved. */
#include "queue/letters.h"

#include "base/alloc.h"
#include "base/err.h"
#include "queue/payload.h"

enum { LOAD_AT_ONCE = 500, ENTITY_MAX = 256 };

const char *rg__write_name(int write) {
    return write == RG_INSERT ? "insert" : write == RG_UPDATE ? "update" : "delete";
}

const char *rg__qop_entity(const rg__qdecoded *op) {
    return op->type ? op->type->name : op->entity;
}

int rg__qop_check(const rg__queue *q, const rg__qdecoded *op, rg_err *err) {
    if (op->error) {
        *err = *op->error;
        return err->code;
    }
    if (strcmp(op->type->mysql, q->name) == 0) return RG_OK;
    return rg__fail(err, RG_ESCHEMA, "entity %s is in MySQL pool %s here, not in %s",
                    op->type->name, op->type->mysql, q->name);
}

/* ---- writing ---- */

static rg__param number(uint64_t v) { return (rg__param){.kind = RG__P_U64, .u = v}; }

static rg__param text(const char *s) {
    return (rg__param){.kind = RG__P_STRING, .s = rg__slice_of(s)};
}

int rg__letter_add(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, const rg__letter *l,
                   uint64_t *number_out, rg_err *err) {
    static const char sql[] =
        "INSERT INTO `_regolith_dead` (`queue`,`part`,`id_ms`,`id_seq`,`op_index`,`entity`,"
        "`entity_id`,`operation`,`payload`,`errno`,`sqlstate`,`error`,`tries`,`at`,`state`) "
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,0,UTC_TIMESTAMP(6),?) ON DUPLICATE KEY UPDATE "
        "`number`=LAST_INSERT_ID(`number`),`payload`=VALUES(`payload`),`errno`=VALUES(`errno`),"
        "`sqlstate`=VALUES(`sqlstate`),`error`=VALUES(`error`),`at`=VALUES(`at`),"
        "`state`=VALUES(`state`)";
    rg__param params[] = {text(q->name), number(q->part), number(l->id.ms), number(l->id.seq), number(l->index),
                          text(l->entity), number(l->entity_id), text(l->operation),
                          {.kind = RG__P_BYTES, .s = l->payload}, number(l->error->sql_errno),
                          text(l->error->sqlstate), text(l->error->message),
                          text(l->parked ? "parked" : "dead")};
    rg__result *r = NULL;
    int rc = rg__mysql_query(c, ctx, sql, sizeof sql - 1, params, sizeof params / sizeof *params,
                             false, &r, err);
    if (rc < 0) rg__err_prefix(err, "writing a dead letter: ");
    else *number_out = r->insert_id;
    rg__result_free(r);
    return rc;
}

/* ---- asking ---- */

void rg__letters_from(rg__buf *sql, const rg__queue *q) {
    rg__buf_str(sql, " FROM `_regolith_dead` WHERE `queue`=");
    rg__sql_text(sql, q->name, strlen(q->name));
}

/* The number that a query of letters gives; 0 when there is no row, or no table yet. */
static int ask_number(rg__mysql *c, const rg__ctx *ctx, rg__buf *sql, uint64_t *n, rg_err *err) {
    rg_err fault;
    rg__result *r = NULL;
    rg__err_clear(&fault);
    int rc = rg__queue_query(c, ctx, sql, &r, &fault);
    rg__buf_deinit(sql);
    *n = rc >= 0 && r->n_rows ? rg__cell_u64(r, 0, 0) : 0;
    rg__result_free(r);
    if (rc >= 0 || rg__is_missing_table(&fault)) return RG_OK;
    if (err) *err = fault;
    return rc;
}

static int count_letters(const rg__queue *q, bool part, rg__mysql *c, const rg__ctx *ctx,
                         uint64_t *n, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "SELECT COUNT(*)");
    rg__letters_from(&sql, q);
    if (part) rg__buf_fmt(&sql, " AND `part`=%u", q->part);
    return ask_number(c, ctx, &sql, n, err);
}

int rg__letters_count(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t *n,
                      rg_err *err) {
    return count_letters(q, false, c, ctx, n, err);
}

int rg__letters_count_part(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t *n,
                           rg_err *err) {
    return count_letters(q, true, c, ctx, n, err);
}

/* A letter that is not there is nobody's: any ledger will do. */
static int find_part(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t number,
                     uint32_t *part, rg_err *err) {
    rg__buf sql = {0};
    uint64_t found = 0;
    rg__buf_str(&sql, "SELECT `part`");
    rg__letters_from(&sql, q);
    rg__buf_fmt(&sql, " AND `number`=%llu", (unsigned long long)number);
    int rc = ask_number(c, ctx, &sql, &found, err);
    *part = (uint32_t)found;
    return rc;
}

int rg__letter_begin(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t number,
                     rg__queue *part, rg_err *err) {
    uint32_t at = 0;
    rg__pos pos;
    *part = (rg__queue){0};
    int rc = find_part(q, c, ctx, number, &at, err);
    if (rc >= 0) rc = rg__queue_part(q, at, part, err);
    return rc < 0 ? rc : rg__ledger_begin(part, c, ctx, &pos, err);
}

/* ---- keys ---- */

/* Only the keys outlive the call, so the rows they were made of are not kept. */
static int add_keys(const rg__queue *q, const rg_type *t, const void *before, rg_block *after,
                    rg__changes *out, rg_err *err) {
    size_t from = out->n;
    int rc = rg__changes_add(out, q->shared, t, before, after, err);
    for (size_t i = from; i < out->n; i++) {
        out->items[i].before = NULL;
        out->items[i].after = NULL;
    }
    return rc;
}

/* An update's row holds its masked columns only, so its keys are those of what it was, with these
 * columns laid over it. */
static int update_keys(const rg__queue *q, const rg__qdecoded *op, rg__changes *out, rg_err *err) {
    if (!op->before) return add_keys(q, op->type, op->row->data, op->row, out, err);
    rg_block *after = rg__row_merge(op->type, op->before->data, op->row->data, op->mask, err);
    if (!after) return RG_ENO_MEMORY;
    int rc = add_keys(q, op->type, op->before->data, after, out, err);
    rg_block_unref(after);
    return rc;
}

/* Of an operation that could not be read, or left no lookup. */
static int row_key(const rg__queue *q, const rg__qdecoded *op, rg__changes *out, rg_err *err) {
    const rg_type *t = op->type;
    rg__value *values = rg__calloc(t->n_columns, sizeof *values);
    uint8_t *given = rg__calloc(t->n_columns, 1);
    rg_block *row = NULL;
    if (values && given) {
        values[0].u = op->id;
        given[0] = 1;
        row = rg__row_partial(t, values, given);
    }
    rg__free(values);
    rg__free(given);
    int rc = row ? add_keys(q, t, row->data, row, out, err) : rg__fail_memory(err);
    rg_block_unref(row);
    return rc;
}

int rg__qop_keys(const rg__queue *q, const rg__qdecoded *op, rg__changes *out, rg_err *err) {
    if (!op->type || !q->shared || !rg__type_shared(op->type)) return RG_OK;
    if (op->row && op->write == RG_UPDATE) return update_keys(q, op, out, err);
    if (op->row) return add_keys(q, op->type, NULL, op->row, out, err);
    if (op->before && op->write == RG_DELETE)
        return add_keys(q, op->type, op->before->data, NULL, out, err);
    return row_key(q, op, out, err);
}

/* ---- memory ---- */

static char present; /* what the map points to */

int rg__dead_init(rg__dead *d, rg_err *err) {
    *d = (rg__dead){.rows = rg__map_new()};
    return d->rows ? RG_OK : rg__fail_memory(err);
}

void rg__dead_deinit(rg__dead *d) {
    if (d->rows) rg__map_free(d->rows);
    *d = (rg__dead){0};
}

/* The map's key of a row. */
static size_t row_name(rg__slice entity, uint64_t id, char out[ENTITY_MAX + 16]) {
    size_t len = entity.len < ENTITY_MAX ? entity.len : ENTITY_MAX;
    if (len) memcpy(out, entity.p, len);
    out[len] = '\0';
    memcpy(out + len + 1, &id, sizeof id);
    return len + 1 + sizeof id;
}

static int note_row(rg__dead *d, rg__slice entity, uint64_t id, rg_err *err) {
    char name[ENTITY_MAX + 16];
    size_t len = row_name(entity, id, name);
    return rg__map_put(d->rows, name, len, &present, NULL) < 0 ? rg__fail_memory(err) : RG_OK;
}

int rg__dead_note(rg__dead *d, const char *entity, uint64_t id, rg_err *err) {
    return note_row(d, rg__slice_of(entity), id, err);
}

static int load_some(rg__dead *d, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, size_t *n,
                     rg_err *err) {
    rg__buf sql = {0};
    rg__result *r = NULL;
    rg__buf_str(&sql, "SELECT `number`,`entity`,`entity_id`");
    rg__letters_from(&sql, q);
    rg__buf_fmt(&sql, " AND `number`>%llu AND `operation`<>'entry' ORDER BY `number` LIMIT %d",
                (unsigned long long)d->last, LOAD_AT_ONCE);
    int rc = rg__queue_query(c, ctx, &sql, &r, err);
    rg__buf_deinit(&sql);
    *n = rc < 0 ? 0 : r->n_rows;
    for (size_t i = 0; rc >= 0 && i < *n; i++) {
        rc = note_row(d, r->cells[i * r->n_columns + 1], rg__cell_u64(r, i, 2), err);
        if (rc >= 0) d->last = rg__cell_u64(r, i, 0);
    }
    rg__result_free(r);
    return rc;
}

int rg__dead_load(rg__dead *d, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    size_t n = LOAD_AT_ONCE;
    int rc = RG_OK;
    while (rc >= 0 && n == LOAD_AT_ONCE) rc = load_some(d, q, c, ctx, &n, err);
    return rc;
}

bool rg__dead_has(const rg__dead *d, const char *entity, uint64_t id) {
    char name[ENTITY_MAX + 16];
    if (rg__map_count(d->rows) == 0) return false;
    size_t len = row_name(rg__slice_of(entity), id, name);
    return rg__map_get(d->rows, name, len) != NULL;
}

int rg__dead_check(rg__dead *d, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx,
                   const char *entity, uint64_t id, rg_err *err) {
    rg__buf sql = {0};
    rg__result *r = NULL;
    rg__buf_str(&sql, "SELECT 1");
    rg__letters_from(&sql, q);
    rg__buf_str(&sql, " AND `entity`=");
    rg__sql_text(&sql, entity, strlen(entity));
    rg__buf_fmt(&sql, " AND `entity_id`=%llu LIMIT 1", (unsigned long long)id);
    int rc = rg__queue_query(c, ctx, &sql, &r, err);
    rg__buf_deinit(&sql);
    if (rc < 0) return rc;
    bool there = r->n_rows > 0;
    rg__result_free(r);
    char name[ENTITY_MAX + 16];
    if (!there) rg__map_take(d->rows, name, row_name(rg__slice_of(entity), id, name));
    return there;
}
