/* SPDX-License-Identifier: MIT */
/* One chunk of writes with outcomes of their own: its statement, and the caches. */
#include "base/alloc.h"
#include "queue/outbox.h"
#include "unit/chunk.h"
#include "unit/outage.h"

void rg__chunk_init(rg__chunk *k, rg__each_run *e, const uint32_t *items, size_t n) {
    const rg__item *first = &e->items->items[items[0]];
    const rg__terms *t = first->terms;
    k->e = e;
    k->items = items;
    k->n = n;
    k->type = first->type;
    k->write = first->write;
    k->marks = k->pending = 0;
    k->begun = k->marked = false;
    k->changes = (rg__changes){0};
    k->cas = (rg__cas){.t = first->type, .write = first->write, .expect = t->expect,
                       .bump = t->bump, .exprs = t->exprs, .n_exprs = t->n_exprs};
    if (first->write == RG_UPDATE) k->cas.mask = first->mask;
    for (size_t i = 0; i < n && i < RG__CAS_ROWS; i++) {
        const rg__item *it = rg__chunk_item(k, i);
        k->ids[i] = it->id;
        k->rows[i] = it->after ? rg_block_data(it->after) : NULL;
        k->expected[i] = it->terms->expected ? rg_block_data(it->terms->expected) : NULL;
    }
}

/* Only the server knows the row that it makes. */
static bool is_blind(const rg__chunk *k) {
    return k->write == RG_UPDATE && (k->cas.bump || k->cas.n_exprs);
}

/* ---- the connection ---- */

void rg__each_let_go(rg__each_run *e) {
    if (e->conn && !e->lent) rg__mysql_release(e->conn);
    e->conn = NULL;
    e->pool = -1;
    e->lent = false;
}

int rg__each_connect(rg__each_run *e, const rg_type *t, rg_err *err) {
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
    rg__chunk k;
    size_t most = n < RG__CAS_ROWS ? n : RG__CAS_ROWS;
    if (most == 1) return 1;
    rg__chunk_init(&k, (rg__each_run *)e, items, most);
    if (k.write != RG_UPDATE || rg__chunk_item(&k, 0)->terms->check) return most;
    /* without a connection the first chunk is a guess, as good as the server's packet is large */
    if (!e->conn && rg__each_connect((rg__each_run *)e, k.type, NULL) < 0) return most;
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

static int insert(rg__chunk *k, rg_err *err) {
    uint64_t *ids = k->type->ids == RG_IDS_DATABASE ? k->ids : NULL;
    int rc = rg__sql_insert(k->e->conn, k->e->ctx, k->type, k->rows, k->n, ids, err);
    for (size_t i = 0; rc >= 0 && ids && i < k->n; i++) rc = adopt_id(rg__chunk_item(k, i), ids[i], err);
    k->marks = rg__chunk_all(k->n);
    return rc;
}

static int take_row(void *arg, rg_block *row) {
    rg__chunk *k = arg;
    for (size_t i = 0; i < k->n; i++) {
        rg__item *it = rg__chunk_item(k, i);
        if (!rg__chunk_marked(k->marks, i) || it->id != rg__row_id(k->type, rg_block_data(row))) continue;
        rg_block_unref(it->after);
        it->after = rg_block_ref(row);
    }
    rg_block_unref(row);
    return RG_OK;
}

/* Under the rows' locks, so that it is what this write has made. */
static int read_back(rg__chunk *k, rg_err *err) {
    uint64_t ids[RG__CAS_ROWS];
    size_t n = 0;
    for (size_t i = 0; i < k->n; i++)
        if (rg__chunk_marked(k->marks, i)) ids[n++] = k->ids[i];
    if (n == 0) return RG_OK;
    return rg__sql_select_ids(k->e->conn, k->e->ctx, k->type, ids, n, RG__LOCK_UPDATE, take_row, k,
                              err);
}

static int run_statement(rg__chunk *k, rg_err *err) {
    if (k->write == RG_INSERT) return insert(k, err);
    k->cas.brief = k->n > 1 && k->e->defer && !k->e->lent; /* what others have locked can be put off */
    int rc = rg__sql_cas(k->e->conn, k->e->ctx, &k->cas, k->ids, k->rows, k->expected, k->n,
                         &k->marks, err);
    return rc >= 0 && is_blind(k) ? read_back(k, err) : rc;
}

/* ---- the cache protocol around it ---- */

static int collect(rg__chunk *k, rg_err *err) {
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    for (size_t i = 0; i < k->n; i++) {
        const rg__item *it = rg__chunk_item(k, i);
        if (!rg__chunk_marked(k->marks, i)) continue;
        int rc = rg__changes_add(&k->changes, shared, k->type,
                                 it->write == RG_INSERT ? NULL : rg_block_data(it->before),
                                 it->write == RG_DELETE ? NULL : it->after, err);
        if (rc < 0) return rc;
    }
    return rg__changes_once(&k->changes, err);
}

/* Redis is away: the changes are told later, if their policy has it so. */
static int cover(rg__chunk *k, int rc, rg_err *err) {
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

static int mark(rg__chunk *k, rg_err *err) {
    if (!rg__chunk_shared(k) || !k->marks) return RG_OK;
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

static void end_marks(rg__chunk *k, bool published) {
    rg__shared *shared = rg__store_shared(k->e->store, k->type);
    if (k->marked && published)
        rg__shared_publish(shared, k->e->ctx, k->tx, k->changes.items, k->changes.n);
    else if (k->marked)
        rg__shared_unmark(shared, k->e->ctx, k->tx, k->changes.items, k->changes.n);
    k->marked = false;
}

/* ---- events ---- */

static bool tells_events(const rg__chunk *k) {
    for (size_t i = 0; k->type->n_feeds && i < k->n; i++)
        if (rg__item_tells(rg__chunk_item(k, i))) return true;
    return false;
}

static int publish_events(rg__chunk *k, rg_err *err) {
    const rg__queue *q = &k->e->store->queues[k->type->mysql_pool];
    rg__outbox o = {.q = q, .c = k->e->conn};
    int rc = RG_OK;
    for (size_t i = 0; k->type->n_feeds && rc >= 0 && i < k->n; i++)
        if (rg__chunk_marked(k->marks, i)) rc = rg__item_publish(rg__chunk_item(k, i), &o, k->e->ctx, err);
    if (rc >= 0) rc = rg__outbox_write(&o, k->e->ctx, err);
    rg__outbox_deinit(&o);
    return rc;
}

static bool needs_transaction(const rg__chunk *k) {
    if (tells_events(k) || rg__chunk_shared(k) || is_blind(k)) return true;
    if (k->write != RG_INSERT) return rg__sql_cas_needs_transaction(&k->cas, k->n);
    return k->n > 1 && rg__sql_insert_statements(k->e->conn, k->type, k->rows, k->n) > 1;
}

/* ---- as a step of the caller's transaction, whose end tells the caches ---- */

static int refuse_own_locks(const rg__chunk *k, rg_err *err) {
    for (size_t i = 0; i < k->n; i++)
        if (rg__tx_suspended_wrote(k->e->ctx, k->type, k->ids[i]))
            return rg__fail(err, RG_ESELF_DEADLOCK,
                            "%s %llu was written by the transaction that is suspended for this one",
                            k->type->name, (unsigned long long)k->ids[i]);
    return RG_OK;
}

static int note_writes(const rg__chunk *k, rg__tx *tx, rg_err *err) {
    rg__shared *shared = rg__chunk_shared(k) ? rg__store_shared(k->e->store, k->type) : NULL;
    int rc = RG_OK;
    for (size_t i = 0; rc >= 0 && i < k->n; i++) {
        const rg__item *it = rg__chunk_item(k, i);
        if (!rg__chunk_marked(k->marks, i)) continue;
        rc = rg__tx_note(tx, k->type, shared, it->id, it->write == RG_INSERT ? NULL : it->before,
                         it->write == RG_DELETE ? NULL : it->after, err);
    }
    return rc;
}

static bool is_one_step(const rg__chunk *k) {
    if (is_blind(k)) return false;
    if (k->write != RG_INSERT) return !rg__sql_cas_needs_transaction(&k->cas, k->n);
    return k->n == 1 || rg__sql_insert_statements(k->e->conn, k->type, k->rows, k->n) == 1;
}

static int write_inside(rg__chunk *k, rg__tx *tx, rg_err *err) {
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
static int write(rg__chunk *k, rg_err *err) {
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

/* ---- once ---- */

bool rg__chunk_is_plain(const rg__chunk *k) {
    const rg__item *first = rg__chunk_item(k, 0);
    return k->write == RG_UPDATE && !first->terms->check && !k->e->lent && !k->e->ctx->nested && !needs_transaction(k);
}

int rg__chunk_end(rg__chunk *k, bool last, rg_err *err) {
    for (size_t i = 0; i < k->n; i++)
        if (rg__chunk_marked(k->marks, i)) rg__chunk_item(k, i)->terms->outcome = RG_OUTCOME_APPLIED;
    return k->marks != rg__chunk_all(k->n) ? rg__chunk_explain(k, last, err) : RG_OK;
}

int rg__chunk_run(rg__each_run *e, const uint32_t *items, size_t n, bool last, rg_err *err) {
    rg__chunk k;
    rg__chunk_init(&k, e, items, n);
    int rc = tells_events(&k) ? rg__outbox_ready(&e->store->queues[k.type->mysql_pool], e->ctx, err)
                              : RG_OK;
    if (rc >= 0) rc = rg__each_connect(e, k.type, err);
    if (rc >= 0 && !rg__chunk_item(&k, 0)->terms->check) rc = write(&k, err);
    rg__changes_deinit(&k.changes);
    return rc >= 0 ? rg__chunk_end(&k, last, err) : rc;
}
