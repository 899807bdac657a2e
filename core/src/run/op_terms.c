/* SPDX-License-Identifier: MIT */
/* Conditions of a flush's items, and what became of them. */
#include "base/alloc.h"
#include "mysql/sql.h"
#include "run/op.h"

/* ---- given, before the item is added ---- */

/* What stands apart has terms for each item: they are taken out of few allocations, masks with them. */
static rg__terms *terms_of(rg_op *op, const rg_type *t, rg_err *err) {
    if (op->terms) return op->terms;
    bool lent = op->flush_mode == RG_FLUSH_EACH;
    size_t size = sizeof *op->terms + (lent ? 2 : 1) * (size_t)t->n_columns;
    op->terms = lent ? rg__slab_take(&op->slab, size) : rg__malloc(size);
    if (!op->terms) {
        rg__fail_memory(err);
        return NULL;
    }
    memset(op->terms, 0, size);
    op->terms->lent = lent;
    return op->terms;
}

uint8_t *rg__op_take_mask(rg_op *op, const rg_type *t, rg_err *err) {
    if (op->flush_mode == RG_FLUSH_EACH) {
        rg__terms *terms = terms_of(op, t, err);
        return terms ? terms->columns + t->n_columns : NULL;
    }
    uint8_t *mask = rg__calloc(t->n_columns + 1, 1);
    if (!mask) rg__fail_memory(err);
    return mask;
}

/* A reference is never given back: the block is not freed by itself. */
static rg_block *lend_values(rg_op *op, const rg_builder *b) {
    size_t len = rg__builder_size(b);
    rg_block *row = len ? rg__slab_take(&op->slab, sizeof *row + len) : NULL;
    if (!row) return NULL;
    memset(row, 0, sizeof *row);
    atomic_init(&row->refs, 2);
    row->len = (uint32_t)len;
    rg__builder_values(b, len, row->data);
    return row;
}

int rg_op_flush_expect(rg_op *op, uint32_t type, rg_builder *expected, const uint32_t *cols,
                       uint32_t n, int flags, rg_err *err) {
    const rg_type *t = rg__engine_type(op->engine, type, err);
    rg__terms *terms = t ? terms_of(op, t, err) : NULL;
    if (!terms) return t ? RG_ENO_MEMORY : RG_EINVALID;
    terms->expect = terms->columns;
    op->expects_changes = (flags & RG_EXPECT_CHANGES) != 0;
    for (uint32_t i = 0; i < n; i++) {
        if (cols[i] >= t->n_columns) return rg__fail(err, RG_EINVALID, "no such column");
        terms->expect[cols[i]] = 1;
    }
    if (!expected) return RG_OK;
    terms->expected = terms->lent ? lend_values(op, expected) : rg__builder_partial(expected);
    if (!terms->expected) return rg__fail_memory(err);
    rg__builder_given(expected, terms->expect);
    return RG_OK;
}

static int add_expr(rg__terms *terms, rg__expr e, rg_err *err) {
    rg__expr *p = rg__reallocarray(terms->exprs, terms->n_exprs + 1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    terms->exprs = p;
    p[terms->n_exprs++] = e;
    return RG_OK;
}

/* Texts lie in `bytes`, which moves as it grows: until the item is added they are offsets. */
static rg__slice keep_text(rg__terms *terms, const char *p, size_t len) {
    rg__slice at = {(const char *)(uintptr_t)terms->bytes.len, len};
    rg__buf_add(&terms->bytes, p, len);
    return at;
}

static int keep_params(rg_op *op, rg__terms *terms, rg_err *err) {
    size_t had = 0;
    for (size_t i = 0; i < terms->n_exprs; i++) had += terms->exprs[i].n_sql + terms->exprs[i].n_guard;
    rg__param *p = rg__reallocarray(terms->params, had + op->n_params + 1, sizeof *p);
    if (!p) return rg__fail_memory(err);
    terms->params = p;
    rg__op_place_params(op);
    for (size_t i = 0; i < op->n_params; i++) {
        p[had + i] = op->params[i];
        if (p[had + i].kind == RG__P_STRING || p[had + i].kind == RG__P_BYTES)
            p[had + i].s = keep_text(terms, op->params[i].s.p, op->params[i].s.len);
    }
    return terms->bytes.failed ? rg__fail_memory(err) : RG_OK;
}

int rg_op_flush_express(rg_op *op, uint32_t type, uint32_t col, const char *sql, size_t len,
                        const char *guard, size_t guard_len, rg_err *err) {
    const rg_type *t = rg__engine_type(op->engine, type, err);
    rg__where w;
    if (!t || col == 0 || col >= t->n_columns) return rg__fail(err, RG_EINVALID, "no such column");
    size_t n_guard = 0;
    for (size_t i = 0; i < guard_len; i++) n_guard += guard[i] == '?';
    size_t n_sql = op->n_params - (n_guard < op->n_params ? n_guard : op->n_params);
    int rc = rg__sql_check_where(sql, len, n_sql, &w, err);
    if (rc >= 0 && (w.tail.len || !w.condition.len))
        rc = rg__fail(err, RG_EINVALID, "an expression is wanted, without ORDER BY or LIMIT");
    rg__terms *terms = rc >= 0 ? terms_of(op, t, err) : NULL;
    if (!terms) return rc < 0 ? rc : RG_ENO_MEMORY;
    rc = keep_params(op, terms, err);
    rg__expr e = {.column = col, .n_sql = n_sql, .n_guard = n_guard};
    e.sql = keep_text(terms, sql, len);
    e.guard = keep_text(terms, guard, guard_len);
    if (rc >= 0) rc = terms->bytes.failed ? rg__fail_memory(err) : add_expr(terms, e, err);
    op->n_params = 0;
    op->placed = false;
    rg__buf_clear(&op->param_bytes);
    return rc;
}

int rg_op_flush_assign(rg_op *op, uint32_t type, const uint32_t *cols, uint32_t n, rg_err *err) {
    const rg_type *t = rg__engine_type(op->engine, type, err);
    if (!t) return RG_EINVALID;
    rg__free(op->assigned);
    op->assigned = rg__calloc(t->n_columns, 1);
    if (!op->assigned) return rg__fail_memory(err);
    for (uint32_t i = 0; i < n; i++)
        if (cols[i] < t->n_columns) op->assigned[cols[i]] = 1;
    return RG_OK;
}

uint32_t rg__op_take_assigned(rg_op *op, const rg_type *t, uint8_t *mask) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_columns; i++) n += mask[i] |= op->assigned[i];
    rg__free(op->assigned);
    op->assigned = NULL;
    return n;
}

/* ---- settled, when the item is added ---- */

static const char *place(const rg__terms *t, const char *offset) {
    return t->bytes.p + (uintptr_t)offset;
}

static void place_texts(rg__terms *t) {
    size_t at = 0;
    for (size_t i = 0; i < t->n_exprs; i++) {
        rg__expr *e = &t->exprs[i];
        e->sql.p = place(t, e->sql.p);
        e->guard.p = place(t, e->guard.p);
        e->params = t->params + at;
        for (size_t k = 0; k < e->n_sql + e->n_guard; k++, at++)
            if (t->params[at].kind == RG__P_STRING || t->params[at].kind == RG__P_BYTES)
                t->params[at].s.p = place(t, t->params[at].s.p);
    }
}

/* A whole row: the values given over those that were read, where more than those given may be compared. */
static int complete(const rg_op *op, rg__item *it, rg_err *err) {
    rg__terms *t = it->terms;
    rg_block *given = t->expected;
    if (!given) {
        t->expected = rg_block_ref(it->before);
        return RG_OK;
    }
    if (op->flush_mode == RG_FLUSH_EACH) return RG_OK;
    t->expected = rg__row_merge(it->type, rg_block_data(it->before), rg_block_data(given), t->expect, err);
    rg_block_unref(given);
    return t->expected ? RG_OK : RG_ENO_MEMORY;
}

static bool writes(const rg__item *it, const uint8_t *changed) {
    return it->write == RG_DELETE || it->terms->n_exprs ||
           (changed && memchr(changed, 1, it->type->n_columns));
}

/* The version is compared by itself where nothing else is, and in a flush always; else it is counted
 * up, whatever it is: who expects some columns does not mind the others. */
static void add_version(const rg_op *op, rg__item *it) {
    rg__terms *t = it->terms;
    uint32_t v = it->type->version_column;
    bool by_wish = t->expect || (t->n_exprs && !memchr(it->mask, 1, it->type->n_columns));
    if (!v || (t->expect && t->expect[v])) return;
    if (by_wish && op->flush_mode == RG_FLUSH_EACH) {
        t->bump = it->write == RG_UPDATE && !t->check;
        return;
    }
    t->expect = t->columns;
    t->expect[v] = 1;
    t->own_version = true;
}

bool rg__op_has_terms(const rg_op *op, const rg_type *t) {
    if (!op->terms) return false;
    return op->terms->n_exprs || (op->terms->expect && memchr(op->terms->expect, 1, t->n_columns));
}

int rg__op_take_terms(rg_op *op, rg__item *it, const uint8_t *changed, rg_err *err) {
    if (!op->terms && op->flush_mode != RG_FLUSH_EACH) return RG_OK;
    if (!terms_of(op, it->type, err)) return RG_ENO_MEMORY;
    rg__terms *t = it->terms = op->terms;
    op->terms = NULL;
    place_texts(t);
    if (it->write == RG_INSERT) return RG_OK;
    for (uint32_t i = 0; op->expects_changes && changed && i < it->type->n_columns; i++)
        t->expect[i] |= changed[i];
    op->expects_changes = false;
    t->check = !writes(it, changed);
    int rc = complete(op, it, err);
    if (rc >= 0) add_version(op, it);
    return rc;
}

/* ---- told, when it has run ---- */

static const rg__terms *terms_at(const rg_op *op, uint32_t item) {
    return item < op->items.n ? op->items.items[item].terms : NULL;
}

int rg_op_outcome(const rg_op *op, uint32_t item) {
    const rg__terms *t = terms_at(op, item);
    return t ? t->outcome : RG_OUTCOME_NONE;
}

int rg_op_item_computed(const rg_op *op, uint32_t item) {
    const rg__terms *t = terms_at(op, item);
    return t && op->items.items[item].write == RG_UPDATE && (t->bump || t->n_exprs || t->rebased);
}

int rg_op_take_update(rg_op *op, uint32_t item, rg_session *s, rg_view *out, uint32_t *cols, uint32_t cap) {
    if (rg_op_outcome(op, item) != RG_OUTCOME_APPLIED || op->items.items[item].write != RG_UPDATE ||
        rg_op_item_computed(op, item))
        return -1;
    int rc = rg_op_flush_row(op, item, s, out);
    return rc < 0 ? rc : rg_op_flush_changed(op, item, cols, cap);
}

int rg_op_item_current(const rg_op *op, uint32_t item, rg_view *out) {
    const rg__terms *t = terms_at(op, item);
    if (!t || !t->current) return 0;
    *out = (rg_view){rg_block_data(t->current), rg_block_len(t->current), 0};
    return 1;
}

int rg_op_item_adopt(rg_op *op, uint32_t item, rg_session *s) {
    const rg__terms *t = terms_at(op, item);
    if (!t || !t->current || op->slots[item] < 0) return 0;
    return rg_session_repin(s, (uint32_t)op->slots[item], t->current) < 0 ? 0 : 1;
}

int rg_op_item_differs(const rg_op *op, uint32_t item, uint32_t *cols, uint32_t cap) {
    const rg__terms *t = terms_at(op, item);
    int n = 0;
    for (uint32_t c = 0; t && t->differs && c < op->items.items[item].type->n_columns; c++) {
        if (!t->differs[c]) continue;
        if ((uint32_t)n < cap) cols[n] = c;
        n++;
    }
    return n;
}

const rg_err *rg_op_item_error(const rg_op *op, uint32_t item) {
    static const rg_err no_memory = {.code = RG_ENO_MEMORY, .item = -1, .message = "out of memory"};
    const rg__terms *t = terms_at(op, item);
    if (!t || (t->outcome != RG_OUTCOME_FAILED && t->outcome != RG_OUTCOME_UNKNOWN)) return NULL;
    return t->fault ? t->fault : &no_memory;
}
