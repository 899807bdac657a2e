/* SPDX-License-Identifier: MIT */
/* Operations that write entities: flush, queued flush, reservation of ids. */
#include "base/alloc.h"
#include "run/op.h"
#include "run/session.h"

enum { UNCHANGED = -1000, NOT_PLAIN = -1001 };

static int run_flush(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__flush(&op->engine->store, ctx, &op->items, err);
}

static int run_async(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    if (op->later.at_ms || op->later.delay_ms)
        return rg__flush_later(&op->engine->store, ctx, &op->items, &op->later, op->stream_id, err);
    return rg__flush_async(&op->engine->store, ctx, &op->items, &op->how, op->stream_id, err);
}

static int run_each(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__each(&op->engine->store, ctx, &op->items, err);
}

rg_op *rg_op_flush(rg_engine *engine, rg_session *s, int mode, rg_err *err) {
    static const rg__op_fn runs[] = {
        [RG_FLUSH_ALL] = run_flush, [RG_FLUSH_ASYNC] = run_async, [RG_FLUSH_EACH] = run_each};
    rg_op *op = rg__op_new(engine, runs[mode], err);
    if (!op) return NULL;
    op->own = s; /* borrowed: used by flush_add only, before the operation runs */
    op->flush_mode = mode;
    return op;
}

void rg_op_flush_how(rg_op *op, int durability, int on_split) {
    op->how = (rg__async_how){.durability = durability, .on_split = on_split};
}

void rg_op_flush_later(rg_op *op, double at_ms, double delay_ms) {
    op->later = (rg__later){.at_ms = at_ms > 0 ? (uint64_t)at_ms : 0,
                            .delay_ms = delay_ms > 0 ? (uint64_t)delay_ms : 0};
}

/* ---- items ---- */


static bool is_zero(const rg_type *t, const rg_block *row, uint32_t col) {
    rg__value v = rg__row_value(t, rg_block_data(row), col);
    return v.is_null || (v.store <= RG_STORE_I64 ? v.i == 0 : v.u == 0);
}

static int finish_insert(rg__item *it, rg_builder *b, rg_err *err) {
    const rg_type *t = it->type;
    it->after = rg__builder_finish(b, true, rg__wall_us(), err);
    if (!it->after) return err && err->code ? err->code : RG_ENO_MEMORY;
    if (t->version_column && is_zero(t, it->after, t->version_column)) {
        if (rg_builder_u64(b, t->version_column, 1, err) < 0) return err ? err->code : RG_EINVALID;
        rg_block_unref(it->after);
        it->after = rg__builder_finish(b, true, rg__wall_us(), err);
        if (!it->after) return RG_ENO_MEMORY;
    }
    it->id = rg__row_id(t, rg_block_data(it->after));
    if (it->id == 0 && t->ids != RG_IDS_DATABASE)
        return rg__fail_field(err, "id", "%s.id: no id was given", t->name);
    return RG_OK;
}

static bool has_updated(const rg_type *t) {
    for (uint32_t i = 1; i < t->n_columns; i++)
        if (t->columns[i].flags & RG_COL_UPDATED) return true;
    return false;
}

/* Counts the version up and stamps the update, once it is known that something else changed. */
static int stamp_update(rg__item *it, rg_builder *b, rg_err *err) {
    const rg_type *t = it->type;
    uint32_t v = it->terms && it->terms->bump ? 0 : t->version_column;
    if (!v && !has_updated(t)) return RG_OK;
    if (v) {
        uint64_t now = rg__row_version(t, rg_block_data(it->before)) + 1;
        if (rg_builder_u64(b, v, now, err) < 0) return err ? err->code : RG_EINVALID;
    }
    rg__builder_keep_stamps(b, it->mask);
    rg_block_unref(it->after);
    it->after = rg__builder_finish(b, false, rg__wall_us(), err);
    if (!it->after) return err && err->code ? err->code : RG_ENO_MEMORY;
    for (uint32_t i = 1; i < t->n_columns; i++)
        it->mask[i] |= !rg__row_column_eq(t, rg_block_data(it->before), rg_block_data(it->after), i);
    return RG_OK;
}

static int finish_update(rg_op *op, rg__item *it, rg_builder *b, rg_err *err) {
    const rg_type *t = it->type;
    rg__builder_keep_empty(b, rg_block_data(it->before));
    it->after = rg__builder_finish(b, false, 0, err);
    if (!it->after) return err && err->code ? err->code : RG_ENO_MEMORY;
    it->mask = rg__op_take_mask(op, t, err);
    it->mask_lent = op->flush_mode == RG_FLUSH_EACH;
    if (!it->mask) return RG_ENO_MEMORY;
    uint32_t n = rg__builder_diff(b, rg_block_data(it->before), rg_block_data(it->after), it->mask);
    if (op->assigned) n = rg__op_take_assigned(op, t, it->mask);
    if (n == 0 && !rg__op_has_terms(op, t)) return UNCHANGED;
    it->id = rg__row_id(t, rg_block_data(it->before));
    if (it->mask[0]) return rg__fail_field(err, "id", "%s.id: an id does not change", t->name);
    int rc = rg__op_take_terms(op, it, it->mask, err);
    if (rc < 0) return rc;
    return it->terms && it->terms->check ? RG_OK : stamp_update(it, b, err);
}

static int finish_item(rg_op *op, rg__item *it, rg_builder *b, rg_err *err) {
    if (it->write != RG_INSERT && !it->before)
        return rg__fail(err, RG_EMISUSE, "%s: the session does not hold that row", it->type->name);
    if (it->write == RG_UPDATE) return finish_update(op, it, b, err);
    if (it->write == RG_DELETE) it->id = rg__row_id(it->type, rg_block_data(it->before));
    int rc = it->write == RG_INSERT ? finish_insert(it, b, err) : RG_OK;
    return rc < 0 ? rc : rg__op_take_terms(op, it, NULL, err);
}

static void remove_last(rg_op *op) {
    rg__item_deinit(&op->items.items[--op->items.n]);
    rg__terms_free(op->terms);
    op->terms = NULL;
    op->expects_changes = false;
}

static int remember_slot(rg_op *op, int64_t slot) {
    if (op->items.n > op->slots_cap) {
        int64_t *p = rg__reallocarray(op->slots, op->items.cap, sizeof *p);
        if (!p) return RG_ENO_MEMORY;
        op->slots = p;
        op->slots_cap = op->items.cap;
    }
    op->slots[op->items.n - 1] = slot;
    return RG_OK;
}

int rg_op_flush_add(rg_op *op, int write, uint32_t type, rg_builder *b, int64_t slot, rg_err *err) {
    const rg_type *t = rg__engine_type(op->engine, type, err);
    if (!t) return RG_EINVALID;
    rg__item *it = rg__items_add(&op->items);
    if (!it || remember_slot(op, slot) < 0) return rg__fail_memory(err);
    it->write = write;
    it->type = t;
    rg_block *before = write == RG_INSERT ? NULL : rg__session_block(op->own, slot);
    if (before) it->before = rg_block_ref(before);
    int rc = finish_item(op, it, b, err);
    if (rc >= 0 && it->id && !rg__type_has_id(t, it->id))
        rc = rg__fail_field(err, "id", "%s: %llu is an id of another shard", t->name,
                            (unsigned long long)it->id);
    if (rc >= 0) return (int)op->items.n - 1;
    remove_last(op);
    if (rc != UNCHANGED) rg__err_set_entity(err, t->name);
    return rc;
}

/* ---- one whole number for another ---- */

static bool is_plain(const rg_op *op, const rg_type *t, const rg_block *before) {
    return before && op->flush_mode == RG_FLUSH_EACH && !t->version_column && !has_updated(t) && !op->terms &&
           !op->assigned;
}

static int finish_swap(rg_op *op, rg__item *it, uint32_t col, double v, uint32_t expect, rg_err *err) {
    it->after = rg__row_with_whole(it->type, it->before, col, v);
    int rc = it->after ? rg_op_flush_expect(op, it->type->number, NULL, &expect, 1, 0, err) : RG_ENO_MEMORY;
    if (rc < 0) return rc;
    it->mask = rg__op_take_mask(op, it->type, err);
    it->mask_lent = true;
    if (!it->mask) return RG_ENO_MEMORY;
    it->mask[col] = 1;
    return rg__op_take_terms(op, it, it->mask, err);
}

int rg_op_flush_swap(rg_op *op, uint32_t type, int64_t slot, uint32_t col, double v, uint32_t expect,
                     double expected, rg_err *err) {
    const rg_type *t = rg__engine_type(op->engine, type, err);
    if (!t || col >= t->n_columns || expect >= t->n_columns) return RG_EINVALID;
    rg_block *before = rg__session_block(op->own, slot);
    const void *row = before ? rg_block_data(before) : NULL;
    if (!is_plain(op, t, before) || !rg__row_is_whole(t, row, expect, expected) ||
        !rg__row_takes_whole(t, row, col, v) || rg__row_is_whole(t, row, col, v) ||
        !rg__type_has_id(t, rg__row_id(t, row)))
        return NOT_PLAIN;
    rg__item *it = rg__items_add(&op->items);
    if (!it || remember_slot(op, slot) < 0) return rg__fail_memory(err);
    *it = (rg__item){.write = RG_UPDATE, .type = t, .id = rg__row_id(t, row), .before = rg_block_ref(before)};
    int rc = finish_swap(op, it, col, v, expect, err);
    if (rc >= 0) return (int)op->items.n - 1;
    remove_last(op);
    return rc;
}

int rg_op_flush_row(rg_op *op, uint32_t item, rg_session *s, rg_view *out) {
    if (item >= op->items.n || !op->items.items[item].after) return RG_EMISUSE;
    rg_block *row = op->items.items[item].after;
    int64_t slot = op->slots[item];
    if (op->items.items[item].write == RG_UPDATE) {
        int rc = rg_session_repin(s, (uint32_t)slot, row);
        if (rc < 0) return rc;
    } else {
        slot = rg_session_pin(s, row);
        if (slot < 0) return (int)slot;
        rg__session_own(s, slot);
    }
    *out = (rg_view){rg_block_data(row), rg_block_len(row), (uint32_t)slot};
    return RG_GET_HIT;
}

int rg_op_flush_changed(const rg_op *op, uint32_t item, uint32_t *cols, uint32_t cap) {
    if (item >= op->items.n) return RG_EMISUSE;
    const rg__item *it = &op->items.items[item];
    const uint8_t *mask = it->mask, *end = mask ? mask + it->type->n_columns : NULL;
    int n = 0;
    for (const uint8_t *at = mask; at && at < end && (at = memchr(at, 1, (size_t)(end - at))); at++) {
        if ((uint32_t)n < cap) cols[n] = (uint32_t)(at - mask);
        n++;
    }
    return n;
}

const char *rg_op_stream_id(const rg_op *op) { return op->stream_id[0] ? op->stream_id : NULL; }

/* ---- ids ---- */

static int run_reserve(rg_op *op, const rg__ctx *ctx, rg_err *err) {
    return rg__ids_reserve(&op->engine->store, ctx, op->type, (uint64_t)op->number_in, err);
}

rg_op *rg_op_reserve(rg_engine *engine, uint32_t type, double n, rg_err *err) {
    const rg_type *t = rg__engine_type(engine, type, err);
    if (!t) return NULL;
    if (!(n >= 0 && n <= 1e9)) {
        rg__fail(err, RG_EINVALID, "at most 1,000,000,000 ids are reserved at a time");
        return NULL;
    }
    rg_op *op = rg__op_new(engine, run_reserve, err);
    if (!op) return NULL;
    op->type = t;
    op->number_in = n;
    return op;
}
