/* SPDX-License-Identifier: MIT */
/* Making batches of entries, and what becomes of their bad operations. */
#include "queue/batch.h"

#include "base/alloc.h"
#include "base/err.h"
#include "queue/payload.h"

/* ---- making ---- */

static int condemn(rg__batch *b, rg__task *t, rg__fate fate, const rg_err *why, rg_err *err) {
    t->error = rg__malloc(sizeof *t->error);
    if (!t->error) return rg__fail_memory(err);
    *t->error = *why;
    t->fate = fate;
    b->n_dead++;
    return RG_OK;
}

static rg__task *add_task(rg__batch *b, rg_err *err) {
    if (b->n == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 64;
        rg__task *p = rg__reallocarray(b->tasks, cap, sizeof *p);
        if (!p) {
            rg__fail_memory(err);
            return NULL;
        }
        b->tasks = p;
        b->cap = cap;
    }
    b->tasks[b->n] = (rg__task){0};
    return &b->tasks[b->n++];
}

static int add_unreadable(rg__batch *b, const rg__stream_entry *e, const rg_err *why, rg_err *err) {
    rg__task *t = add_task(b, err);
    if (!t) return RG_ENO_MEMORY;
    t->id = e->id;
    t->bytes = e->payload;
    return condemn(b, t, RG__FATE_DEAD, why, err);
}

static int add_op(rg__batch *b, const rg__queue *q, const rg__stream_entry *e, rg__payload *p,
                  uint32_t index, rg_err *err) {
    rg_err fault;
    rg__task *t = add_task(b, err);
    if (!t) return RG_ENO_MEMORY;
    *t = (rg__task){.op = &p->ops[index], .payload = p, .bytes = e->payload, .id = e->id, .index =
                    index};
    return rg__qop_check(q, t->op, &fault) < 0 ? condemn(b, t, RG__FATE_DEAD, &fault, err) : RG_OK;
}

static int add_entry(rg__batch *b, const rg__queue *q, const rg__stream_entry *e, rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    b->waiting[b->n_entries] = (rg__waiting){e->id, e->names};
    rg__payload *p = &b->payloads[b->n_entries++];
    int rc = rg__payload_decode(q->schema, e->payload, p, &fault);
    b->last = e->id;
    if (rc == RG_ECORRUPT) return add_unreadable(b, e, &fault, err);
    if (rc < 0) return rg__fail_memory(err);
    for (uint32_t i = 0; rc >= 0 && i < p->n; i++) rc = add_op(b, q, e, p, i, err);
    return rc;
}

/* How many entries go together. */
static size_t count_entries(const rg__window *w, size_t max_ops, size_t max_bytes) {
    size_t ops = 0;
    size_t bytes = 0;
    size_t n = 0;
    uint64_t epoch = 0;
    for (; w->at + n < w->n; n++) {
        const rg__stream_entry *e = &w->entries[w->at + n];
        ops += rg__payload_count(e->payload);
        bytes += e->payload.len;
        if (n > 0 && (ops > max_ops || bytes > max_bytes)) break;
        if (e->epoch && epoch && e->epoch != epoch) break; /* the ledger turns in between */
        if (e->epoch) epoch = e->epoch;
    }
    return n;
}

int rg__batch_make(rg__batch *b, const rg__queue *q, const rg__window *w, size_t max_ops,
                   size_t max_bytes, rg_err *err) {
    *b = (rg__batch){0};
    size_t n = count_entries(w, max_ops, max_bytes);
    b->payloads = rg__calloc(n + 1, sizeof *b->payloads);
    b->waiting = rg__calloc(n + 1, sizeof *b->waiting);
    int rc = b->payloads && b->waiting ? RG_OK : rg__fail_memory(err);
    for (size_t i = 0; rc >= 0 && i < n; i++) rc = add_entry(b, q, &w->entries[w->at + i], err);
    if (rc < 0) rg__batch_deinit(b);
    return rc;
}

void rg__batch_deinit(rg__batch *b) {
    for (size_t i = 0; i < b->n; i++) rg__free(b->tasks[i].error);
    for (size_t i = 0; i < b->n_entries; i++) rg__payload_deinit(&b->payloads[i]);
    rg__changes_deinit(&b->tables);
    rg__free(b->tasks);
    rg__free(b->payloads);
    rg__free(b->waiting);
    *b = (rg__batch){0};
}

int rg__batch_condemn(rg__batch *b, const rg_err *why, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < b->n; i++)
        if (b->tasks[i].fate == RG__FATE_GOOD) rc = condemn(b, &b->tasks[i], RG__FATE_DEAD, why, err);
    return rc;
}

/* ---- order behind dead letters ---- */

static bool same_row(const rg__task *a, const rg__task *b) {
    if (!a->op || !b->op || a->op->id != b->op->id) return false;
    return strcmp(rg__qop_entity(a->op), rg__qop_entity(b->op)) == 0;
}

/* An earlier operation of the row, in this batch, is not applied. */
static bool is_blocked(const rg__batch *b, const rg__task *t) {
    if (b->n_dead == 0) return false;
    for (const rg__task *u = b->tasks; u < t; u++)
        if (u->fate != RG__FATE_GOOD && same_row(u, t)) return true;
    return false;
}

static int park(rg__batch *b, rg__task *t, rg_err *err) {
    rg_err why;
    rg__fail(&why, RG_ECONFLICT, "waits for an earlier dead letter of the same row");
    rg__err_set_entity(&why, rg__qop_entity(t->op));
    return condemn(b, t, RG__FATE_PARKED, &why, err);
}

static void unpark(rg__batch *b) {
    for (size_t i = 0; b->n_dead && i < b->n; i++) {
        if (b->tasks[i].fate != RG__FATE_PARKED) continue;
        rg__free(b->tasks[i].error);
        b->tasks[i].error = NULL;
        b->tasks[i].fate = RG__FATE_GOOD;
        b->n_dead--;
    }
}

int rg__batch_park(rg__batch *b, rg__dead *dead, const rg__queue *q, rg__mysql *c,
                   const rg__ctx *ctx, rg_err *err) {
    unpark(b);
    for (size_t i = 0; i < b->n; i++) {
        rg__task *t = &b->tasks[i];
        if (t->fate != RG__FATE_GOOD) continue;
        int blocked = is_blocked(b, t);
        const char *entity = rg__qop_entity(t->op);
        if (!blocked && rg__dead_has(dead, entity, t->op->id))
            blocked = rg__dead_check(dead, q, c, ctx, entity, t->op->id, err);
        if (blocked > 0) blocked = park(b, t, err);
        if (blocked < 0) return blocked;
    }
    return RG_OK;
}

/* ---- one by one ---- */

int rg__batch_apply_singly(rg__batch *b, rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    for (size_t i = 0; i < b->n; i++) {
        rg__task *t = &b->tasks[i];
        rg_err fault;
        rg__err_clear(&fault);
        if (t->fate != RG__FATE_GOOD) continue;
        int rc = is_blocked(b, t) ? park(b, t, err) : rg__apply_one(c, ctx, t->op, &fault);
        if (rc >= 0) continue;
        if (!rg__is_permanent(&fault)) {
            if (fault.code) *err = fault;
            return rc;
        }
        if (condemn(b, t, RG__FATE_DEAD, &fault, err) < 0) return RG_ENO_MEMORY;
        if (!rg__mysql_in_transaction(c) || rg__mysql_broken(c)) return 1;
    }
    return RG_OK;
}

/* With the row that was met, when there is one. */
static int letter_payload(const rg__task *t, rg__buf *out, rg_err *err) {
    const rg__qdecoded *op = t->op;
    if (!op->current || op->error) {
        rg__payload_alone(t->payload, t->index, out);
        return RG_OK;
    }
    const rg__qop with = {.write = op->write, .type = op->type, .id = op->id, .mask = op->mask,
                          .row = op->row ? op->row->data : NULL,
                          .before = op->before ? op->before->data : NULL,
                          .expected = op->expected, .expect = op->expect,
                          .expected_row = op->expected_row ? op->expected_row->data : NULL,
                          .current = op->current->data};
    return rg__qop_encode(&with, 1, out, err);
}

static int write_letter(rg__task *t, const rg__queue *q, rg__mysql *c, const rg__ctx *ctx,
                        rg_err *err) {
    rg__buf alone = {0};
    rg__letter l = {.id = t->id, .index = t->index, .error = t->error, .entity = "",
                    .operation = "entry", .payload = t->bytes,
                    .parked = t->fate == RG__FATE_PARKED};
    int rc = RG_OK;
    if (t->op) {
        rc = letter_payload(t, &alone, err);
        l.entity = rg__qop_entity(t->op);
        l.entity_id = t->op->id;
        l.operation = rg__write_name(t->op->write);
        l.payload = (rg__slice){alone.p, alone.len};
    }
    if (rc >= 0) rc = alone.failed ? rg__fail_memory(err) : rg__letter_add(q, c, ctx, &l, &t->letter, err);
    rg__buf_deinit(&alone);
    return rc;
}

int rg__batch_write_letters(const rg__batch *b, const rg__queue *q, rg__mysql *c,
                            const rg__ctx *ctx, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && b->n_dead && i < b->n; i++)
        if (b->tasks[i].fate != RG__FATE_GOOD) rc = write_letter(&b->tasks[i], q, c, ctx, err);
    return rc;
}

int rg__batch_note(const rg__batch *b, rg__dead *dead, rg_err *err) {
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && b->n_dead && i < b->n; i++)
        if (b->tasks[i].fate != RG__FATE_GOOD && b->tasks[i].op)
            rc = rg__dead_note(dead, rg__qop_entity(b->tasks[i].op), b->tasks[i].op->id, err);
    return rc;
}
