/* SPDX-License-Identifier: MIT */
/* One chunk of writes with outcomes of their own: its statement, the caches, and why some rows did
 * not match. */
#include "base/alloc.h"
#include "queue/outbox.h"
#include "unit/cas.h"
#include "unit/outage.h"

/* A chunk under way. */
typedef struct chunk {
    rg__each_run *e;
    const uint32_t *items;
    size_t n;
    const rg_type *type;
    int write;
    rg__cas cas;
    uint64_t ids[RG__CAS_ROWS];
    const void *rows[RG__CAS_ROWS], *expected[RG__CAS_ROWS];
    uint64_t marks;      /* bit i: item i was written */
    uint64_t pending;    /* bit i: its row waits for the queue */
    bool begun, marked;
    rg__changes changes;
    rg__txid tx;
} chunk;

static rg__item *item_of(const chunk *k, size_t i) { return &k->e->items->items[k->items[i]]; }

static bool is_set(uint64_t bits, size_t i) { return bits >> i & 1; }

static void chunk_init(chunk *k, rg__each_run *e, const uint32_t *items, size_t n) {
    const rg__item *first = &e->items->items[items[0]];
    const rg__terms *t = first->terms;
    *k = (chunk){.e = e, .items = items, .n = n, .type = first->type, .write = first->write};
    k->cas = (rg__cas){.t = first->type, .write = first->write, .expect = t->expect,
                       .bump = t->bump, .exprs = t->exprs, .n_exprs = t->n_exprs};
    if (first->write == RG_UPDATE) k->cas.mask = first->mask;
    for (size_t i = 0; i < n && i < RG__CAS_ROWS; i++) {
        const rg__item *it = item_of(k, i);
        k->ids[i] = it->id;
        k->rows[i] = it->after ? rg_block_data(it->after) : NULL;
        k->expected[i] = it->terms->expected ? rg_block_data(it->terms->expected) : NULL;
    }
}

/* Only the server knows the row that it makes. */
static bool is_blind(const chunk *k) {
    return k->write == RG_UPDATE && (k->cas.bump || k->cas.n_exprs);
}

static bool tells_redis(const chunk *k) {
    return rg__type_shared(k->type) && rg__store_shared(k->e->store, k->type);
}

/* ---- the connection ---- */

void rg__each_let_go(rg__each_run *e) {
    if (e->conn && !e->lent) rg__mysql_release(e->conn);
    e->conn = NULL;
    e->pool = -1;
    e->lent = false;
}

static int take_connection(rg__each_run *e, const rg_type *t, rg_err *err) {
    if (e->conn && e->pool == t->mysql_pool && !rg__mysql_broken(e->conn)) return RG_OK;
    rg__each_let_go(e);
    rg__tx *tx = rg__tx_of(e->ctx, t->mysql_pool);
    int rc = tx ? rg__tx_use(tx, e->ctx, RG__TX_WRITES, &e->conn, err)
                : rg__mysql_acquire(rg__store_mysql(e->store, t), e->ctx, &e->conn, err);
    if (rc < 0) return rc;
    e->pool = t->mysql_pool;
    e->lent = tx != NULL;
    return rc;
}

size_t rg__chunk_fits(const rg__each_run *e, const uint32_t *items, size_t n) {
    chunk k;
    size_t most = n < RG__CAS_ROWS ? n : RG__CAS_ROWS;
    if (most == 1) return 1;
    chunk_init(&k, (rg__each_run *)e, items, most);
    if (k.write != RG_UPDATE || item_of(&k, 0)->terms->check) return most;
    /* without a connection the first chunk is a guess, as good as the server's packet is large */
    if (!e->conn && take_connection((rg__each_run *)e, k.type, NULL) < 0) return most;
    return rg__sql_cas_fits(e->conn, &k.cas, k.rows, k.expected, most);
}

/* ---- statements ---- */

static int adopt_id(rg__item *it, uint64_t id, rg_err *err) {
    if (it->id) return RG_OK;
    rg_block *row = rg__row_with_id(it->type, it->after, id, err);
    if (!row) return RG_ENO_MEMORY;
    rg_block_unref(it->after);
    it->after = row;
    it->id = id;
    return RG_OK;
}

static int insert(chunk *k, rg_err *err) {
    uint64_t *ids = k->type->ids == RG_IDS_DATABASE ? k->ids : NULL;
    int rc = rg__sql_insert(k->e->conn, k->e->ctx, k->type, k->rows, k->n, ids, err);
    for (size_t i = 0; rc >= 0 && ids && i < k->n; i++) rc = adopt_id(item_of(k, i), ids[i], err);
    k->marks = k->n == 64 ? UINT64_MAX : (UINT64_C(1) << k->n) - 1;
    return rc;
}

static int take_row(void *arg, rg_block *row) {
    chunk *k = arg;
    for (size_t i = 0; i < k->n; i++) {
        rg__item *it = item_of(k, i);
        if (!is_set(k->marks, i) || it->id != rg__row_id(k->type, rg_block_data(row))) continue;
        rg_block_unref(it->after);
        it->after = rg_block_ref(row);
    }
    rg_block_unref(row);
    return RG_OK;
}

/* Under the rows' locks, so that it is what this write has made. */
static int read_back(chunk *k, rg_err *err) {
    uint64_t ids[RG__CAS_ROWS];
    size_t n = 0;
    for (size_t i = 0; i < k->n; i++)
        if (is_set(k->marks, i)) ids[n++] = k->ids[i];
    if (n == 0) return RG_OK;
    return rg__sql_select_ids(k->e->conn, k->e->ctx, k->type, ids, n, RG__LOCK_UPDATE, take_row, k,
                              err);
}

static int run_statement(chunk *k, rg_err *err) {
    if (k->write == RG_INSERT) return insert(k, err);
    int rc = rg__sql_cas(k->e->conn, k->e->ctx, &k->cas, k->ids, k->rows, k->expected, k->n,
                         &k->marks, err);
    return rc >= 0 && is_blind(k) ? read_back(k, err) : rc;
}

/* ---- the cache protocol around it ---- */

static int collect(chunk *k, rg_err *err) {
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    for (size_t i = 0; i < k->n; i++) {
        const rg__item *it = item_of(k, i);
        if (!is_set(k->marks, i)) continue;
        int rc = rg__changes_add(&k->changes, shared, k->type,
                                 it->write == RG_INSERT ? NULL : rg_block_data(it->before),
                                 it->write == RG_DELETE ? NULL : it->after, err);
        if (rc < 0) return rc;
    }
    return rg__changes_once(&k->changes, err);
}

/* Redis is away: the changes are told later, if their policy has it so. */
static int cover(chunk *k, int rc, rg_err *err) {
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    if (!rg__outage_may_cover(&k->changes, rc)) {
        rg__err_prefix(err, "the caches in Redis pool %s cannot be told, so that nothing is written: ",
                       rg__redis_pool_name(rg__shared_pool(shared)));
        return rc;
    }
    k->marked = false;
    return rg__outage_cover(k->e->store, k->e->ctx, k->type->mysql_pool, k->type->redis_pool,
                            k->e->conn, &k->changes, err);
}

static int mark(chunk *k, rg_err *err) {
    if (!tells_redis(k) || !k->marks) return RG_OK;
    char pending[48];
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    int rc = collect(k, err);
    if (rc < 0) return rc;
    if (rg__shared_away(shared) && rg__outage_may_cover(&k->changes, RG_EUNAVAILABLE))
        return cover(k, RG_EUNAVAILABLE, err);
    rg__random(k->tx.bytes, sizeof k->tx.bytes);
    k->marked = true;
    rc = rg__shared_mark(shared, k->e->ctx, k->tx, k->changes.items, k->changes.n, pending, err);
    return rc < 0 && rc != RG_EPENDING ? cover(k, rc, err) : rc;
}

static void end_marks(chunk *k, bool published) {
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    if (k->marked && published)
        rg__shared_publish(shared, k->e->ctx, k->tx, k->changes.items, k->changes.n);
    else if (k->marked)
        rg__shared_unmark(shared, k->e->ctx, k->tx, k->changes.items, k->changes.n);
    k->marked = false;
}

/* ---- events ---- */

static bool tells_events(const chunk *k) {
    for (size_t i = 0; k->type->n_feeds && i < k->n; i++)
        if (rg__item_tells(item_of(k, i))) return true;
    return false;
}

static int publish_events(chunk *k, rg_err *err) {
    const rg__queue *q = &k->e->store->queues[k->type->mysql_pool];
    rg__outbox o = {.q = q, .c = k->e->conn};
    int rc = RG_OK;
    for (size_t i = 0; k->type->n_feeds && rc >= 0 && i < k->n; i++)
        if (is_set(k->marks, i)) rc = rg__item_publish(item_of(k, i), &o, k->e->ctx, err);
    if (rc >= 0) rc = rg__outbox_write(&o, k->e->ctx, err);
    rg__outbox_deinit(&o);
    return rc;
}

static bool needs_transaction(const chunk *k) {
    if (tells_events(k) || tells_redis(k) || is_blind(k)) return true;
    if (k->write != RG_INSERT) return rg__sql_cas_needs_transaction(&k->cas, k->n);
    return k->n > 1 && rg__sql_insert_statements(k->e->conn, k->type, k->rows, k->n) > 1;
}

/* ---- as a step of the caller's transaction, whose end tells the caches ---- */

static int refuse_own_locks(const chunk *k, rg_err *err) {
    for (size_t i = 0; i < k->n; i++)
        if (rg__tx_suspended_wrote(k->e->ctx, k->type, k->ids[i]))
            return rg__fail(err, RG_ESELF_DEADLOCK,
                            "%s %llu was written by the transaction that is suspended for this one",
                            k->type->name, (unsigned long long)k->ids[i]);
    return RG_OK;
}

static int note_writes(const chunk *k, rg__tx *tx, rg_err *err) {
    rg__shared *shared = tells_redis(k) ? rg__store_shared(k->e->store, k->type) : NULL;
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < k->n; i++) {
        const rg__item *it = item_of(k, i);
        if (!is_set(k->marks, i)) continue;
        rc = rg__tx_note(tx, k->type, shared, it->id, it->write == RG_INSERT ? NULL : it->before,
                         it->write == RG_DELETE ? NULL : it->after, err);
    }
    return rc;
}

static bool is_one_step(const chunk *k) {
    if (is_blind(k)) return false;
    if (k->write != RG_INSERT) return !rg__sql_cas_needs_transaction(&k->cas, k->n);
    return k->n == 1 || rg__sql_insert_statements(k->e->conn, k->type, k->rows, k->n) == 1;
}

static int write_inside(chunk *k, rg__tx *tx, rg_err *err) {
    size_t noted = rg__tx_noted(tx);
    bool guarded = !is_one_step(k) || tells_events(k);
    int rc = guarded ? rg__tx_guard(tx, k->e->ctx, err) : RG_OK;
    if (rc >= 0) rc = run_statement(k, err);
    if (rc >= 0) rc = publish_events(k, err);
    bool ran = rc >= 0;
    if (ran) rc = note_writes(k, tx, err);
    if (ran && rc < 0 && !guarded) rg__tx_give_up(tx, err);
    rc = rg__tx_after(tx, rc, err);
    if (rc < 0 && guarded) {
        rg__tx_unguard(tx, k->e->ctx);
        rg__tx_forget(tx, noted);
    }
    if (rc < 0) k->marks = 0;
    return rc;
}

/* ---- as a transaction of its own ---- */

/* On failure nothing was done, unless the outcome is unknown: then the marks stay until they expire
 * and are healed by a locking read. */
static int write(chunk *k, rg_err *err) {
    rg__mysql *c = k->e->conn;
    int rc = k->e->ctx->nested ? refuse_own_locks(k, err) : RG_OK;
    if (rc < 0) return rc;
    if (k->e->lent) return write_inside(k, rg__tx_of(k->e->ctx, k->type->mysql_pool), err);
    if (needs_transaction(k)) {
        rc = rg__mysql_begin(c, k->e->ctx, err);
        k->begun = rc >= 0;
    }
    if (rc >= 0) rc = run_statement(k, err);
    if (rc >= 0) rc = publish_events(k, err);
    if (rc >= 0) rc = mark(k, err);
    if (rc >= 0 && k->begun) rc = rg__mysql_commit(c, k->e->ctx, err);
    bool unknown = rc < 0 && err->cls == RG_CLASS_AMBIGUOUS;
    if (rc < 0 && k->begun) rg__mysql_rollback(c, k->e->ctx);
    if (!unknown) end_marks(k, rc >= 0);
    return rc;
}

/* ---- why a row did not match ---- */

/* Rows with queued writes are not in MySQL yet as the caches show them. */
static int find_pending(chunk *k, rg_err *err) {
    rg__key keys[RG__CAS_ROWS];
    rg__entry entries[RG__CAS_ROWS];
    size_t at[RG__CAS_ROWS];
    size_t n = 0;
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    for (size_t i = 0; tells_redis(k) && i < k->n; i++) {
        if (is_set(k->marks, i)) continue;
        rg__key_row(shared, k->type, k->ids[i], &keys[n]);
        entries[n] = (rg__entry){0};
        at[n++] = i;
    }
    if (n == 0) return RG_OK;
    rg__shared_get(shared, k->e->ctx, k->type, true, keys, n, entries);
    for (size_t i = 0; i < n; i++) {
        if (entries[i].pending) k->pending |= UINT64_C(1) << at[i];
        rg__key_deinit(&keys[i]);
        rg__entry_deinit(&entries[i]);
    }
    if (!k->pending) return RG_OK;
    rg__fail(err, RG_EPENDING, "queued writes of the same rows are not applied yet");
    if (err) err->retriable = 1;
    return RG_EPENDING;
}

size_t rg__chunk_part_pending(rg__each_run *e, uint32_t *items, size_t n) {
    chunk k;
    uint32_t later[RG__CAS_ROWS] = {0};
    size_t some = 0, rest = 0;
    chunk_init(&k, e, items, n);
    find_pending(&k, NULL);
    for (size_t i = 0; i < n; i++) {
        if (is_set(k.pending, i)) later[rest++] = items[i];
        else items[some++] = items[i];
    }
    memcpy(items + some, later, rest * sizeof *items);
    return some;
}

typedef struct looking {
    chunk *k;
    rg_block *rows[RG__CAS_ROWS];
} looking;

static int look(void *arg, rg_block *row) {
    looking *l = arg;
    for (size_t i = 0; i < l->k->n; i++)
        if (l->k->ids[i] == rg__row_id(l->k->type, rg_block_data(row)) && !l->rows[i])
            l->rows[i] = rg_block_ref(row);
    rg_block_unref(row);
    return RG_OK;
}

static int conflict(rg__item *it, rg_block *row, rg_err *err) {
    rg__terms *t = it->terms;
    uint32_t n = it->type->n_columns;
    rg__free(t->differs);
    t->differs = rg__calloc(n, 1);
    if (!t->differs) return rg__fail_memory(err);
    if (rg__cas_holds(it->type, t->expect, rg_block_data(t->expected), rg_block_data(row), t->differs))
        memcpy(t->differs, t->expect, n);
    rg_block_unref(t->current);
    t->current = rg_block_ref(row);
    t->outcome = RG_OUTCOME_CONFLICT;
    return RG_OK;
}

/* A bound that an expression would pass: the row is there and as expected. */
static int beyond_bounds(rg__item *it, rg_block *row, rg_err *err) {
    rg__terms *t = it->terms;
    rg__free(t->differs);
    t->differs = rg__calloc(it->type->n_columns, 1);
    if (!t->differs) return rg__fail_memory(err);
    for (size_t i = 0; i < t->n_exprs; i++)
        if (t->exprs[i].guard.len) t->differs[t->exprs[i].column] = 1;
    rg_block_unref(t->current);
    t->current = rg_block_ref(row);
    t->outcome = RG_OUTCOME_CONFLICT;
    return RG_OK;
}

static bool has_guard(const rg__terms *t) {
    for (size_t i = 0; i < t->n_exprs; i++)
        if (t->exprs[i].guard.len) return true;
    return false;
}

/* A row that is as expected after all has changed twice meanwhile: it is tried again. */
static int judge(rg__item *it, rg_block *row, bool last, rg_err *err) {
    rg__terms *t = it->terms;
    if (!row) {
        t->outcome = RG_OUTCOME_MISSING;
        return RG_OK;
    }
    bool holds = !t->expect || rg__cas_holds(it->type, t->expect, rg_block_data(t->expected),
                                             rg_block_data(row), NULL);
    if (!holds) return conflict(it, row, err);
    if (t->check) t->outcome = RG_OUTCOME_UNCHANGED;
    else if (has_guard(t)) return beyond_bounds(it, row, err);
    else if (last && t->expect) return conflict(it, row, err);
    else if (last) t->outcome = RG_OUTCOME_MISSING;
    return RG_OK;
}

static int explain(chunk *k, bool last, rg_err *err) {
    uint64_t ids[RG__CAS_ROWS];
    looking l = {.k = k};
    size_t n = 0;
    int pending = find_pending(k, err);
    uint64_t known = k->marks | k->pending;
    for (size_t i = 0; i < k->n; i++)
        if (!is_set(known, i)) ids[n++] = k->ids[i];
    /* inside a transaction what the write met, not what was there when the transaction looked first */
    rg__lock lock = k->e->lent ? RG__LOCK_SHARE : RG__LOCK_NONE;
    int rc = n ? rg__sql_select_ids(k->e->conn, k->e->ctx, k->type, ids, n, lock, look, &l, err) : RG_OK;
    for (size_t i = 0; i < k->n; i++) {
        if (rc >= 0 && !is_set(known, i)) rc = judge(item_of(k, i), l.rows[i], last, err);
        rg_block_unref(l.rows[i]);
    }
    return rc < 0 ? rc : pending;
}

/* ---- once ---- */

int rg__chunk_run(rg__each_run *e, const uint32_t *items, size_t n, bool last, rg_err *err) {
    chunk k;
    chunk_init(&k, e, items, n);
    int rc = tells_events(&k) ? rg__outbox_ready(&e->store->queues[k.type->mysql_pool], e->ctx, err)
                              : RG_OK;
    if (rc >= 0) rc = take_connection(e, k.type, err);
    if (rc >= 0 && !item_of(&k, 0)->terms->check) rc = write(&k, err);
    for (size_t i = 0; rc >= 0 && i < n; i++)
        if (is_set(k.marks, i)) item_of(&k, i)->terms->outcome = RG_OUTCOME_APPLIED;
    rg__changes_deinit(&k.changes);
    uint64_t all = n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
    return rc >= 0 && k.marks != all ? explain(&k, last, err) : rc;
}

/* ---- an unknown outcome ---- */

/* An id that the engine has allotted is nobody else's, and a version is passed once: these two tell
 * for certain. */
static bool may_settle(const chunk *k) {
    if (k->write == RG_INSERT)
        return k->type->ids == RG_IDS_BLOCK || k->type->ids == RG_IDS_SNOWFLAKE;
    return k->type->version_column && k->cas.expect && k->cas.expect[k->type->version_column];
}

static bool settle_item(const chunk *k, size_t i, const rg_block *row, const rg_err *fault) {
    const rg__item *it = item_of(k, i);
    uint32_t v = k->type->version_column;
    if (k->write == RG_INSERT) {
        if (row) it->terms->outcome = RG_OUTCOME_APPLIED;
        return !row;
    }
    if (row && rg__row_column_eq(k->type, rg_block_data(row), k->expected[i], v)) return true;
    it->terms->outcome = RG_OUTCOME_UNKNOWN;
    rg__terms_blame(it->terms, fault, it->type->name);
    return false;
}

bool rg__chunk_settle(rg__each_run *e, const uint32_t *items, size_t n, const rg_err *fault) {
    chunk k;
    looking l = {.k = &k};
    bool left = false;
    chunk_init(&k, e, items, n);
    unsigned long id = e->conn ? rg__mysql_thread_id(e->conn) : 0;
    rg__each_let_go(e);
    if (!id || !may_settle(&k)) return false;
    if (rg__mysql_kill(rg__store_mysql(e->store, k.type), e->ctx, id, NULL) < 0) return false;
    if (take_connection(e, k.type, NULL) < 0) return false;
    int rc = rg__sql_select_ids(e->conn, e->ctx, k.type, k.ids, n, RG__LOCK_SHARE, look, &l, NULL);
    for (size_t i = 0; i < n; i++) {
        if (rc >= 0) left |= settle_item(&k, i, l.rows[i], fault);
        rg_block_unref(l.rows[i]);
    }
    return left || rc >= 0;
}
