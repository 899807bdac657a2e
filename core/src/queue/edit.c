/* SPDX-License-Identifier: MIT */
/* Editing a dead letter: other values, or another kind of write, before it is tried again. */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/letters.h"

typedef struct edit {
    const rg__queue *q;
    const rg__ctx *ctx;
    rg__mysql *c;
    uint64_t number;
    const rg__edit *wish;
    rg__result *letter;    /* its payload */
    rg__payload payload;   /* of which op is the only operation */
    const rg__qdecoded *op;
    rg_block *current;     /* the row as it is in the database; NULL: there is none */
    rg_block *row;         /* of the letter as it will be */
    uint8_t *mask;         /* update: columns that will change */
} edit;

static void edit_deinit(edit *e) {
    rg_block_unref(e->current);
    rg_block_unref(e->row);
    rg__free(e->mask);
    rg__payload_deinit(&e->payload);
    rg__result_free(e->letter);
}

/* ---- what there is ---- */

static int find(edit *e, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_str(&sql, "SELECT `payload`");
    rg__letters_from(&sql, e->q);
    rg__buf_fmt(&sql, " AND `number`=%llu FOR UPDATE", (unsigned long long)e->number);
    int rc = rg__queue_query(e->c, e->ctx, &sql, &e->letter, err);
    rg__buf_deinit(&sql);
    if (rc < 0) return rc;
    return e->letter->n_rows ? RG_OK : rg__letter_missing(e->number, err);
}

/* Shards of an entity have the same columns. */
static bool same_entity(const rg_type *a, const rg_type *b) {
    return a == b || (rg__slice_eq((rg__slice){a->name, rg__entity_len(a->name)},
                                   (rg__slice){b->name, rg__entity_len(b->name)}) &&
                      a->n_columns == b->n_columns);
}

static int read(edit *e, rg_err *err) {
    int rc = rg__payload_decode(e->q->schema, e->letter->cells[0], &e->payload, err);
    if (rc < 0) return rc;
    e->op = e->payload.n == 1 ? &e->payload.ops[0] : NULL;
    if (e->op && e->op->error) {
        *err = *e->op->error;
        rg__err_prefix(err, "it cannot be read here: ");
        return err->code;
    }
    if (!e->op || !e->op->type)
        return rg__fail(err, RG_EINVALID, "dead letter %llu cannot be edited: it is no operation that "
                        "can be read here", (unsigned long long)e->number);
    if (e->wish->type && !same_entity(e->wish->type, e->op->type))
        return rg__fail(err, RG_EINVALID, "dead letter %llu is about %s, not %s",
                        (unsigned long long)e->number, e->op->type->name, e->wish->type->name);
    return RG_OK;
}

static int note_row(void *arg, rg_block *row) {
    edit *e = arg;
    rg_block_unref(e->current);
    e->current = row;
    return RG_OK;
}

/* ---- what it becomes ---- */

static int write_of(const edit *e) { return e->wish->write ? e->wish->write : e->op->write; }

/* The row that a column's value comes from, or NULL when none was ever given. */
static const rg_block *source(const edit *e, uint32_t col) {
    if (e->wish->mask && e->wish->mask[col]) return e->wish->values;
    bool had = e->op->row && (e->op->write == RG_INSERT || e->op->mask[col]);
    return had ? e->op->row : NULL;
}

static uint64_t version_of(const edit *e) {
    const rg_type *t = e->op->type;
    if (!t->version_column || !e->current) return 0;
    return rg__row_version(t, e->current->data);
}

/* The version that the row must have, as it was or as it is now. */
static uint64_t expected_of(const edit *e) {
    return e->op->has_expected && !e->wish->force ? e->op->expected : version_of(e);
}

static void put_version(const edit *e, rg_builder *b) {
    uint32_t col = e->op->type->version_column;
    if (write_of(e) != RG_UPDATE || !col) return;
    rg__value v = {.store = e->op->type->columns[col].store, .u = expected_of(e) + 1};
    rg__builder_put(b, col, &v);
    e->mask[col] = 1;
}

static int put_values(edit *e, rg_builder *b, rg_err *err) {
    const rg_type *t = e->op->type;
    rg__builder_put(b, 0, &(rg__value){.store = RG_STORE_U64, .u = e->op->id});
    size_t n = 0;
    for (uint32_t i = 1; i < t->n_columns; i++) {
        const rg_block *from = source(e, i);
        if (!from) continue;
        rg__value v = rg__row_value(t, from->data, i);
        rg__builder_put(b, i, &v);
        e->mask[i] = 1;
        n++;
    }
    if (n == 0 && write_of(e) == RG_UPDATE)
        return rg__fail(err, RG_EINVALID, "an update of %s changes nothing without values", t->name);
    put_version(e, b);
    return RG_OK;
}

static int make_row(edit *e, rg_err *err) {
    const rg_type *t = e->op->type;
    if (write_of(e) == RG_DELETE) return RG_OK;
    rg_builder *b = rg_builder_new(t, err);
    e->mask = b ? rg__calloc(t->n_columns, 1) : NULL;
    int rc = e->mask ? put_values(e, b, err) : rg__fail_memory(err);
    if (rc >= 0) {
        e->row = write_of(e) == RG_INSERT ? rg__builder_finish(b, true, rg__wall_us(), err)
                                          : rg__builder_partial(b);
        if (!e->row) rc = err && err->code ? err->code : rg__fail_memory(err);
    }
    rg_builder_free(b);
    return rc;
}

/* ---- writing it down ---- */

static int save(edit *e, rg_err *err) {
    static const char sql[] =
        "UPDATE `_regolith_dead` SET `payload`=?,`operation`=?,"
        "`state`=IF(`state`='parked','parked','edited') WHERE `number`=?";
    rg__buf bytes = {0};
    rg__qop op = {.write = (uint8_t)write_of(e), .type = e->op->type, .id = e->op->id,
                  .mask = e->mask, .expected = expected_of(e),
                  .row = e->row ? e->row->data : NULL,
                  .before = e->current ? e->current->data : NULL};
    int rc = rg__qop_encode(&op, 1, &bytes, err);
    rg__param params[] = {{.kind = RG__P_BYTES, .s = {bytes.p, bytes.len}},
                          {.kind = RG__P_STRING, .s = rg__slice_of(rg__write_name(write_of(e)))},
                          {.kind = RG__P_U64, .u = e->number}};
    if (rc >= 0)
        rc = rg__mysql_query(e->c, e->ctx, sql, sizeof sql - 1, params, 3, false, NULL, err);
    rg__buf_deinit(&bytes);
    return rc;
}

static int run(edit *e, rg_err *err) {
    int rc = find(e, err);
    if (rc >= 0) rc = read(e, err);
    if (rc >= 0)
        rc = rg__sql_select_ids(e->c, e->ctx, e->op->type, &e->op->id, 1, RG__LOCK_NONE, note_row, e,
                                err);
    if (rc >= 0) rc = make_row(e, err);
    return rc < 0 ? rc : save(e, err);
}

int rg__dead_edit(const rg__queue *q, const rg__ctx *ctx, uint64_t number, const rg__edit *wish,
                  rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    edit e = {.q = q, .ctx = ctx, .number = number, .wish = wish};
    int rc = rg__mysql_acquire(q->mysql, ctx, &e.c, err);
    if (rc < 0) return rc;
    rc = rg__mysql_begin(e.c, ctx, &fault);
    if (rc >= 0) rc = run(&e, &fault);
    if (rc >= 0) rc = rg__mysql_commit(e.c, ctx, &fault);
    else rg__mysql_rollback(e.c, ctx);
    rg__mysql_release(e.c);
    edit_deinit(&e);
    if (rc < 0 && err) *err = fault;
    return rc < 0 ? rc : RG_OK;
}
