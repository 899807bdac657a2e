/* SPDX-License-Identifier: MIT */
/* A session's pinned rows, and the reads that go without an operation. */
#include "base/alloc.h"
#include "mysql/timeline.h"
#include "run/op.h"
#include "run/save.h"
#include "run/session.h"

struct rg_session {
    rg_engine *engine; /* a reference */
    rg_block **slots;
    uint32_t n, cap;
    rg__txs txs;       /* that it is in */
    rg__saves saves;
    rg__trace trace;   /* of reads without an operation */
    rg__timeline *timeline; /* NULL when no pool has replicas */
    rg__buf token;     /* the last one written */
};

rg_session *rg_session_new(rg_engine *engine, rg_err *err) {
    if (atomic_load(&engine->closed)) {
        rg__fail(err, RG_ECLOSED, "the engine is closed");
        return NULL;
    }
    rg_session *s = rg__calloc(1, sizeof *s);
    if (!s) {
        rg__fail_memory(err);
        return NULL;
    }
    s->engine = rg_engine_ref(engine);
    if (!engine->has_replicas || (s->timeline = rg__timeline_new()) != NULL) return s;
    rg__fail_memory(err);
    rg_session_free(s);
    return NULL;
}

void rg_session_clear(rg_session *s) {
    for (uint32_t i = 0; i < s->n; i++) rg_block_unref(s->slots[i]);
    s->n = 0;
    rg__saves_clear(&s->saves);
}

void rg_session_free(rg_session *s) {
    if (!s) return;
    rg_session_clear(s);
    rg__free(s->slots);
    rg__saves_deinit(&s->saves);
    rg__txs_deinit(&s->txs);
    rg__trace_deinit(&s->trace);
    rg__timeline_unref(s->timeline);
    rg__buf_deinit(&s->token);
    rg_engine_unref(s->engine);
    rg__free(s);
}

/* Takes the reference, also when it fails. */
static int64_t pin_taken(rg_session *s, rg_block *row) {
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 64;
        rg_block **p = rg__reallocarray(s->slots, cap, sizeof *p);
        if (!p) {
            rg_block_unref(row);
            return RG_ENO_MEMORY;
        }
        s->slots = p;
        s->cap = cap;
    }
    if (rg__saves_first(&s->saves, s->n, row) < 0) {
        rg_block_unref(row);
        return RG_ENO_MEMORY;
    }
    s->slots[s->n] = row;
    return s->n++;
}

static int show(rg_session *s, int64_t slot, rg_view *out) {
    if (slot < 0) return (int)slot;
    *out = (rg_view){rg_block_data(s->slots[slot]), rg_block_len(s->slots[slot]), (uint32_t)slot};
    return RG_GET_HIT;
}

int64_t rg_session_pin(rg_session *s, rg_block *row) { return pin_taken(s, rg_block_ref(row)); }

int rg_session_repin(rg_session *s, uint32_t slot, rg_block *row) {
    if (slot >= s->n) return RG_EMISUSE;
    if (row) rg_block_ref(row);
    rg_block_unref(s->slots[slot]);
    s->slots[slot] = row;
    return RG_OK;
}

int rg_session_row(rg_session *s, uint32_t slot, rg_view *out) {
    return slot < s->n && s->slots[slot] ? show(s, slot, out) : 0;
}

static bool valid_id(double id) { return id >= 1 && id <= 9007199254740992.0 && id == (double)(uint64_t)id; }

int rg_session_peek(rg_session *s, uint32_t type, double id, rg_view *out) {
    rg_engine *e = s->engine;
    if (type >= e->store.schema.n || !valid_id(id)) return RG_GET_MISS;
    const rg_type *t = e->store.schema.types[type];
    if (!t->cache_process) return RG_GET_MISS;
    const rg__tx *tx = rg__txs_at(&s->txs, t->mysql_pool);
    if (tx && rg__tx_past_caches(tx, t, (uint64_t)id)) return RG_GET_MISS;
    rg_block *row = NULL;
    int found;
    if (atomic_load_explicit(&e->log_mask, memory_order_relaxed)) {
        rg__ctx ctx = rg__engine_ctx(e, &s->trace, 0);
        found = rg__load_try(&e->store, &ctx, t, (uint64_t)id, &row);
    } else {
        found = rg__load_try(&e->store, NULL, t, (uint64_t)id, &row);
    }
    return found == RG_GET_HIT ? show(s, pin_taken(s, row), out) : found;
}

int rg_session_get(rg_session *s, uint32_t type, double id, rg_view *out, rg_err *err) {
    const rg_type *t = rg__engine_type(s->engine, type, err);
    if (!t) return RG_EINVALID;
    if (!valid_id(id)) return RG_GET_ABSENT;
    if (atomic_load_explicit(&s->engine->closed, memory_order_relaxed))
        return rg__fail(err, RG_ECLOSED, "the engine is closed");
    rg__ctx ctx = rg__engine_ctx(s->engine, &s->trace, 0);
    ctx.timeline = s->timeline;
    rg__txs_bound(&s->txs, &ctx);
    rg_block *row = NULL;
    int rc = rg__load_one(&s->engine->store, &ctx, t, (uint64_t)id, &row, err);
    if (rc < 0) return rc;
    if (!row) return RG_GET_ABSENT;
    int64_t slot = pin_taken(s, row);
    const rg__tx *tx = rg__txs_at(&s->txs, t->mysql_pool);
    if (tx && rg__tx_wrote(tx, t, (uint64_t)id)) rg__session_own(s, slot);
    return show(s, slot, out);
}

int rg_session_differs(rg_session *s, uint32_t slot, rg_builder *b, rg_err *err) {
    if (slot >= s->n || !s->slots[slot]) return rg__fail(err, RG_EMISUSE, "no row in that slot");
    const rg_block *old = s->slots[slot];
    rg__builder_keep_empty(b, rg_block_data(old));
    rg_block *row = rg__builder_finish(b, false, 0, err);
    if (!row) return err && err->code ? err->code : RG_ENO_MEMORY;
    int differs = rg_block_len(row) != rg_block_len(old) ||
                  memcmp(rg_block_data(row), rg_block_data(old), rg_block_len(row)) != 0;
    rg_block_unref(row);
    return differs;
}

int rg_session_same(const rg_session *s, uint32_t a, uint32_t b) {
    if (a >= s->n || b >= s->n || !s->slots[a] || !s->slots[b]) return 0;
    const rg_block *x = s->slots[a], *y = s->slots[b];
    return rg_block_len(x) == rg_block_len(y) &&
           memcmp(rg_block_data(x), rg_block_data(y), rg_block_len(x)) == 0;
}

/* The row itself, for operations of this room. */
rg_block *rg__session_block(const rg_session *s, int64_t slot) {
    return slot >= 0 && slot < s->n ? s->slots[slot] : NULL;
}

/* ---- transactions ---- */

const rg__txs *rg__session_txs(const rg_session *s) { return &s->txs; }

rg_session *rg_session_beside(rg_session *s, rg_err *err) {
    rg_session *beside = rg_session_new(s->engine, err);
    if (!beside) return NULL;
    rg__timeline_unref(beside->timeline);
    beside->timeline = s->timeline ? rg__timeline_ref(s->timeline) : NULL;
    return beside;
}

int rg_session_enter(rg_session *s, int pool, rg_tx *tx, rg_tx *suspended, rg_err *err) {
    if (pool < 0 || (uint32_t)pool >= s->engine->store.n_mysql)
        return rg__fail(err, RG_EINVALID, "no MySQL pool has that number");
    if (rg__txs_set(&s->txs, s->engine->store.n_mysql, pool, tx, suspended) < 0)
        return rg__fail_memory(err);
    return RG_OK;
}

void rg__session_own(rg_session *s, int64_t slot) {
    if (slot >= 0) rg__saves_own(&s->saves, (uint32_t)slot);
}

int rg_session_save(rg_session *s, rg_err *err) {
    int number = rg__saves_push(&s->saves, s->slots, s->n);
    return number < 0 ? rg__fail_memory(err) : number;
}

void rg_session_unsave(rg_session *s, int save) { rg__saves_drop(&s->saves, save); }

int rg_session_keep(rg_session *s, int save, uint32_t slot, rg_err *err) {
    if (slot >= s->n) return rg__fail(err, RG_EMISUSE, "no such slot");
    return rg__saves_keep(&s->saves, save, slot, s->slots[slot]) < 0 ? rg__fail_memory(err) : RG_OK;
}

void rg_session_restore(rg_session *s, int save) {
    rg__saves_restore(&s->saves, save, s->slots, s->n);
}

rg_op *rg_session_events(rg_session *s) {
    if (s->trace.n == 0) return NULL;
    rg_op *op = rg__op_new(s->engine, NULL, NULL);
    if (!op) return NULL;
    op->trace = s->trace;
    s->trace = (rg__trace){0};
    atomic_store(&op->phase, RG_OP_DONE);
    return op;
}

/* ---- what was written, for replicas ---- */

void rg_op_of_session(rg_op *op, rg_session *s) {
    if (!op->timeline) op->timeline = rg__timeline_ref(s->timeline);
}

void rg_session_primary(rg_session *s) {
    if (s->timeline) rg__timeline_distrust(s->timeline);
}

const char *rg_session_token(rg_session *s, size_t *len) {
    rg__buf_clear(&s->token);
    if (s->timeline) rg__timeline_write(s->timeline, &s->token);
    const char *text = rg__buf_cstr(&s->token);
    *len = strlen(text);
    return text;
}

static const rg__mysql_pool *pool_named(void *arg, rg__slice name) {
    const rg__store *store = arg;
    for (uint32_t i = 0; i < store->n_mysql; i++)
        if (rg__slice_eq(rg__slice_of(rg__mysql_pool_name(store->mysql[i])), name))
            return store->mysql[i];
    return NULL;
}

static const rg_type *type_named(void *arg, rg__slice name) {
    const rg__store *store = arg;
    return rg__schema_find(&store->schema, name.p, name.len);
}

int rg_session_follow(rg_session *s, const char *token, size_t len) {
    if (!s->timeline) return 1;
    rg__timeline_names names = {pool_named, type_named, &s->engine->store};
    if (rg__timeline_read(s->timeline, (rg__slice){token, len}, &names)) return 1;
    rg__count(&s->engine->store.metrics, RG__C_TOKENS_REFUSED, 1);
    rg__timeline_distrust(s->timeline);
    return 0;
}
