/* SPDX-License-Identifier: MIT */
/* Dead letters dealt with: tried again in order, or dropped, and the caches mended. */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/apply.h"
#include "queue/letters.h"
#include "queue/outbox.h"

enum { AT_ONCE = 100, MAX_TRIES = 5 };

/* ---- one letter in an open transaction ---- */

typedef struct letter {
    uint64_t number;
    rg__pos id;
    rg__result *row;     /* owns payload and entity */
    rg__slice payload, entity;
    uint64_t entity_id;
    rg__payload ops;
    rg__changes changes; /* of the caches */
} letter;

static void letter_deinit(letter *l) {
    rg__changes_deinit(&l->changes);
    rg__payload_deinit(&l->ops);
    rg__result_free(l->row);
    *l = (letter){0};
}

/* 1: it is there, 0: it is not. */
static int find_letter(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t number,
                       letter *l,
                       rg_err *err) {
    rg__buf sql = {0};
    *l = (letter){.number = number};
    rg__buf_str(&sql, "SELECT `id_ms`,`id_seq`,`payload`,`entity`,`entity_id`");
    rg__letters_from(&sql, q);
    rg__buf_fmt(&sql, " AND `number`=%llu FOR UPDATE", (unsigned long long)number);
    int rc = rg__queue_query(c, ctx, &sql, &l->row, err);
    rg__buf_deinit(&sql);
    if (rc < 0 || l->row->n_rows == 0) return rc < 0 ? rc : 0;
    l->id = (rg__pos){rg__cell_u64(l->row, 0, 0), rg__cell_u64(l->row, 0, 1)};
    l->payload = l->row->cells[2];
    l->entity = l->row->cells[3];
    l->entity_id = rg__cell_u64(l->row, 0, 4);
    return 1;
}

/* The number of an earlier letter of the same row, 0 when there is none. */
static int find_earlier(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, const letter *l,
                        uint64_t *number, rg_err *err) {
    rg__buf sql = {0};
    rg__result *r = NULL;
    *number = 0;
    if (l->entity.len == 0) return RG_OK;
    rg__buf_str(&sql, "SELECT MIN(`number`)");
    rg__letters_from(&sql, q);
    rg__buf_str(&sql, " AND `entity`=");
    rg__sql_text(&sql, l->entity.p, l->entity.len);
    rg__buf_fmt(&sql, " AND `entity_id`=%llu AND `number`<%llu", (unsigned long long)l->entity_id,
                (unsigned long long)l->number);
    int rc = rg__queue_query(c, ctx, &sql, &r, err);
    rg__buf_deinit(&sql);
    if (rc >= 0 && r->n_rows) *number = rg__cell_u64(r, 0, 0);
    rg__result_free(r);
    return rc;
}

static int delete_letter(rg__mysql *c, const rg__ctx *ctx, uint64_t number, rg_err *err) {
    rg__buf sql = {0};
    rg__buf_fmt(&sql, "DELETE FROM `_regolith_dead` WHERE `number`=%llu",
                (unsigned long long)number);
    int rc = rg__queue_query(c, ctx, &sql, NULL, err);
    rg__buf_deinit(&sql);
    return rc;
}

/* ---- the caches ---- */

/* Keys of all operations that can be read here. */
static int collect(const rg__queue *q, letter *l, rg_err *err) {
    int rc = RG_OK;
    if (!l->ops.ops && rg__payload_decode(q->schema, l->payload, &l->ops, NULL) < 0) return RG_OK;
    for (size_t i = 0; rc >= 0 && i < l->ops.n; i++) {
        const rg__qdecoded *op = &l->ops.ops[i];
        size_t from = l->changes.n;
        rc = rg__qop_keys(q, op, &l->changes, err);
        for (size_t k = from; k < l->changes.n; k++) {
            if (!l->changes.items[k].is_row || !op->row) continue;
            l->changes.items[k].after = op->row;
            if (op->write == RG_UPDATE) l->changes.items[k].before = op->row->data;
        }
    }
    return rc;
}

/* Drops what the caches hold of the letter's keys: a pending entry that is the letter's own, and
 * whatever else is not pending. */
static int mend(const rg__queue *q, const rg__ctx *ctx, const letter *l, rg_err *err) {
    size_t n = l->changes.n;
    if (n == 0 || !q->shared) return RG_OK;
    rg__applied *applied = rg__calloc(n, sizeof *applied);
    rg__key *keys = rg__calloc(n, sizeof *keys);
    int rc = applied && keys ? RG_OK : rg__fail_memory(err);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        const rg__change *ch = &l->changes.items[i];
        keys[i] = ch->key;
        applied[i] = (rg__applied){.key = ch->key, .type = ch->type, .is_row = ch->is_row, .drop =
                                   true, .part = q->part};
        rg__pos_format(l->id, applied[i].id);
    }
    if (rc >= 0) rc = rg__shared_applied(q->shared, ctx, applied, n, err);
    if (rc >= 0) rc = rg__shared_drop(q->shared, ctx, keys, n, err);
    rg__free(applied);
    rg__free(keys);
    return rc < 0 ? rc : RG_OK;
}

/* ---- trying again ---- */

/* What became of one letter. */
typedef enum answer { APPLIED = 0, ABSENT, BLOCKED, REFUSED } answer;

typedef struct retrial {
    const rg__queue *q;
    const rg__ctx *ctx;
    rg__mysql *c;
    rg__queue part;     /* partition of the letter at hand */
    uint64_t earlier;   /* BLOCKED: the letter that comes first */
    rg_err fault;       /* REFUSED: why */
    rg__txid tx;
    bool marked;
} retrial;

static int take_row(void *arg, rg_block *row) {
    rg__qdecoded *op = arg;
    rg_block_unref(op->before);
    op->before = row;
    return RG_OK;
}

/* The row may have changed since the letter was written: the lookups that it leaves are those of what
 * it is now. */
static int read_before(retrial *r, rg__qdecoded *op, rg_err *err) {
    bool needed = op->type && !op->error && op->write != RG_INSERT && rg__type_shared(op->type);
    if (!needed) return RG_OK;
    return rg__sql_select_ids(r->c, r->ctx, op->type, &op->id, 1, RG__LOCK_UPDATE, take_row, op, err);
}

static int apply_ops(retrial *r, letter *l, rg_err *err) {
    int rc = rg__payload_decode(r->q->schema, l->payload, &l->ops, err);
    for (size_t i = 0; rc >= 0 && i < l->ops.n; i++) rc = read_before(r, &l->ops.ops[i], err);
    for (size_t i = 0; rc >= 0 && i < l->ops.n; i++) {
        rg__qdecoded *op = &l->ops.ops[i];
        rc = rg__qop_check(r->q, op, err);
        if (rc >= 0) rc = rg__apply_one(r->c, r->ctx, op, err);
    }
    return rc;
}

/* The row may be in the caches as it was before the letter, so the caches are told as by any other
 * transaction. Keys with queued writes show those, and are told when these are applied. */
static int mark(retrial *r, letter *l, rg_err *err) {
    char pending[RG__POS_TEXT];
    int rc = collect(r->q, l, err);
    if (rc < 0 || l->changes.n == 0) return rc;
    rg__random(r->tx.bytes, sizeof r->tx.bytes);
    rc = rg__shared_mark(r->q->shared, r->ctx, r->tx, l->changes.items, l->changes.n, pending, err);
    r->marked = rc >= 0;
    return rc == RG_EPENDING ? RG_OK : rc;
}

static int tell_events(retrial *r, const letter *l, rg_err *err) {
    rg__outbox o = {.q = r->q, .c = r->c};
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < l->ops.n; i++)
        rc = rg__qop_tell(&o, r->ctx, &l->ops.ops[i], err);
    if (rc >= 0) rc = rg__outbox_write(&o, r->ctx, err);
    rg__outbox_deinit(&o);
    return rc;
}

static int finish(retrial *r, letter *l, rg_err *err) {
    int rc = tell_events(r, l, err);
    if (rc >= 0) rc = mark(r, l, err);
    if (rc >= 0) rc = delete_letter(r->c, r->ctx, l->number, err);
    if (rc >= 0) rc = rg__mysql_commit(r->c, r->ctx, err);
    bool unknown = rc < 0 && err->cls == RG_CLASS_AMBIGUOUS;
    if (rc >= 0 && r->marked)
        rg__shared_publish(r->q->shared, r->ctx, r->tx, l->changes.items, l->changes.n);
    if (rc < 0 && r->marked && !unknown) {
        rg__mysql_rollback(r->c, r->ctx);
        rg__shared_unmark(r->q->shared, r->ctx, r->tx, l->changes.items, l->changes.n);
    }
    return rc < 0 ? rc : mend(&r->part, r->ctx, l, err);
}

static int retry_locked(retrial *r, letter *l, uint64_t number, rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    int rc = find_letter(r->q, r->c, r->ctx, number, l, err);
    if (rc <= 0) return rc < 0 ? rc : ABSENT;
    rc = find_earlier(r->q, r->c, r->ctx, l, &r->earlier, err);
    if (rc < 0 || r->earlier) return rc < 0 ? rc : BLOCKED;
    rc = apply_ops(r, l, &fault);
    if (rc < 0 && fault.cls == RG_CLASS_PERMANENT) {
        r->fault = fault;
        return REFUSED;
    }
    if (rc < 0) *err = fault;
    return rc < 0 ? rc : finish(r, l, err);
}

static int retry_once(retrial *r, uint64_t number, rg_err *err) {
    letter l = {0};
    r->marked = false;
    int rc = rg__outbox_ready(r->q, r->ctx, err);
    if (rc >= 0) rc = rg__mysql_acquire(r->q->mysql, r->ctx, &r->c, err);
    if (rc < 0) return rc;
    unsigned long id = rg__mysql_thread_id(r->c);
    rc = rg__letter_begin(r->q, r->c, r->ctx, number, &r->part, err);
    if (rc >= 0) rc = retry_locked(r, &l, number, err);
    if (rc != APPLIED) rg__mysql_rollback(r->c, r->ctx);
    rg__mysql_release(r->c);
    letter_deinit(&l);
    rg__queue_deinit(&r->part);
    if (rc < 0 && err->cls == RG_CLASS_AMBIGUOUS) rg__mysql_kill(r->q->mysql, r->ctx, id, NULL);
    return rc;
}

/* Whether a lost COMMIT happened shows in the letter's being there, so trying again is safe. */
static int retry_letter(retrial *r, uint64_t number, rg_err *err) {
    for (int tries = 0;; tries++) {
        rg__err_clear(err);
        int rc = retry_once(r, number, err);
        if (rc >= 0 || tries >= MAX_TRIES || err->cls == RG_CLASS_WAIT ||
            err->cls == RG_CLASS_PERMANENT || err->cls == RG_CLASS_NONE)
            return rc;
        rg__sleep_ms(2 << tries);
    }
}

static int record(retrial *r, uint64_t number, rg_err *err) {
    static const char sql[] =
        "UPDATE `_regolith_dead` SET `tries`=`tries`+1,`errno`=?,`sqlstate`=?,`error`=?,"
        "`state`='dead' WHERE `number`=?";
    rg__param params[] = {{.kind = RG__P_U64, .u = r->fault.sql_errno},
                          {.kind = RG__P_STRING, .s = rg__slice_of(r->fault.sqlstate)},
                          {.kind = RG__P_STRING, .s = rg__slice_of(r->fault.message)},
                          {.kind = RG__P_U64, .u = number}};
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(r->q->mysql, r->ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__mysql_query(c, r->ctx, sql, sizeof sql - 1, params, 4, false, NULL, err);
    rg__mysql_release(c);
    return rc;
}

static int retry_any(retrial *r, uint64_t number, rg_err *err) {
    int rc = retry_letter(r, number, err);
    return rc == REFUSED ? record(r, number, err) : rc;
}

static int retry_one(retrial *r, uint64_t number, rg_err *err) {
    int rc = retry_any(r, number, err);
    if (rc == ABSENT) return rg__letter_missing(number, err);
    if (rc == BLOCKED)
        return rg__fail(err, RG_ECONFLICT, "dead letter %llu of the same row comes first",
                        (unsigned long long)r->earlier);
    return rc;
}

/* ---- many ---- */

/* Numbers of the next letters after `after`, in order. */
static int next_numbers(const rg__queue *q, const rg__ctx *ctx, uint64_t after, uint64_t *numbers,
                        size_t *n, rg_err *err) {
    rg__mysql *c = NULL;
    rg__buf sql = {0};
    rg__result *r = NULL;
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rg__buf_str(&sql, "SELECT `number`");
    rg__letters_from(&sql, q);
    rg__buf_fmt(&sql, " AND `number`>%llu ORDER BY `number` LIMIT %d",
                (unsigned long long)after, AT_ONCE);
    rc = rg__queue_query(c, ctx, &sql, &r, err);
    rg__mysql_release(c);
    rg__buf_deinit(&sql);
    *n = rc < 0 ? 0 : r->n_rows;
    for (size_t i = 0; i < *n; i++) numbers[i] = rg__cell_u64(r, i, 0);
    rg__result_free(r);
    return rc < 0 && rg__is_missing_table(err) ? RG_OK : rc;
}

static int count_left(const rg__queue *q, const rg__ctx *ctx, uint64_t *left, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = rg__letters_count(q, c, ctx, left, err);
    rg__mysql_release(c);
    return rc;
}

static int retry_all(retrial *r, rg_err *err) {
    uint64_t numbers[AT_ONCE];
    uint64_t after = 0;
    size_t n = 1;
    int rc = RG_OK;
    while (rc >= 0 && n > 0) {
        rc = next_numbers(r->q, r->ctx, after, numbers, &n, err);
        for (size_t i = 0; rc >= 0 && i < n; i++) {
            rc = retry_any(r, numbers[i], err);
            after = numbers[i];
        }
    }
    return rc;
}

int rg__dead_retry(const rg__queue *q, const rg__ctx *ctx, uint64_t number, uint64_t *left,
                   rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    retrial r = {.q = q, .ctx = ctx};
    int rc = number ? retry_one(&r, number, &fault) : retry_all(&r, &fault);
    if (rc >= 0) rc = count_left(q, ctx, left, &fault);
    if (rc < 0 && err) *err = fault;
    return rc < 0 ? rc : RG_OK;
}

/* ---- dropping ---- */

static int drop_letter(const rg__queue *q, const rg__ctx *ctx, rg__mysql *c, uint64_t number,
                       bool *there, rg_err *err) {
    letter l = {0};
    rg__queue part;
    int rc = rg__letter_begin(q, c, ctx, number, &part, err);
    if (rc < 0) goto out;
    rc = find_letter(q, c, ctx, number, &l, err);
    *there = rc > 0;
    if (rc > 0) rc = delete_letter(c, ctx, number, err);
    if (rc >= 0) rc = rg__mysql_commit(c, ctx, err);
    else rg__mysql_rollback(c, ctx);
    if (rc >= 0 && *there) rc = collect(q, &l, err);
    if (rc >= 0) rc = mend(&part, ctx, &l, err);
out:
    letter_deinit(&l);
    rg__queue_deinit(&part);
    return rc;
}

static int drop_number(const rg__queue *q, const rg__ctx *ctx, uint64_t number, bool *there,
                       rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = drop_letter(q, ctx, c, number, there, err);
    rg__mysql_release(c);
    return rc;
}

static int drop_all(const rg__queue *q, const rg__ctx *ctx, rg_err *err) {
    uint64_t numbers[AT_ONCE];
    size_t n = 1;
    bool there;
    int rc = RG_OK;
    while (rc >= 0 && n > 0) {
        rc = next_numbers(q, ctx, 0, numbers, &n, err);
        for (size_t i = 0; rc >= 0 && i < n; i++) rc = drop_number(q, ctx, numbers[i], &there, err);
    }
    return rc;
}

int rg__dead_drop(const rg__queue *q, const rg__ctx *ctx, uint64_t number, uint64_t *left,
                  rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    bool there = true;
    int rc = number ? drop_number(q, ctx, number, &there, &fault) : drop_all(q, ctx, &fault);
    if (rc >= 0 && !there) rc = rg__letter_missing(number, &fault);
    if (rc >= 0) rc = count_left(q, ctx, left, &fault);
    if (rc < 0 && err) *err = fault;
    return rc < 0 ? rc : RG_OK;
}
