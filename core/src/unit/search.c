/* SPDX-License-Identifier: MIT */
/* Searches by a condition whose answers are cached (consistency.md 2.2: the key of a query carries
 * the generation of each table that it reads; here the entry does, and is good as long as they are).
 *
 * The generations are read before MySQL is asked. A writer marks them after its SQL and before its
 * COMMIT: an answer that lacks the write was asked for before the COMMIT, under a generation that the
 * mark has ended. While the mark stands nothing is served or filled; when it expires without an
 * outcome the table is exposed, and only a locking read may fill, which that writer keeps out. */
#include "unit/search.h"

#include "base/alloc.h"
#include "base/err.h"
#include "unit/outage.h"

enum { MAX_TABLES = 32, WAIT_MS = 250, GENERATION = 9 };

static void found_deinit(rg__found_rows *f) {
    rg__rows_deinit(&f->rows);
    rg__free(f->ids);
    *f = (rg__found_rows){0};
}

/* ---- from MySQL ---- */

static int ask(rg__mysql *c, const rg__ctx *ctx, const rg__searching *q, rg__found_rows *out,
               rg_err *err) {
    if (q->mode == RG__SEARCH_ROWS)
        return rg__sql_search(c, ctx, q->type, q->where.p, q->where.len, q->params, q->n_params,
                              q->offset, q->limit, rg__rows_add, &out->rows, err);
    if (q->mode == RG__SEARCH_IDS)
        return rg__sql_search_ids(c, ctx, q->type, q->where.p, q->where.len, q->params,
                                  q->n_params, q->offset, q->limit, &out->ids, &out->n_ids, err);
    return rg__sql_count(c, ctx, q->type, q->where.p, q->where.len, q->params, q->n_params,
                         &out->count, err);
}

/* A transaction may be under way for long: a second, or no time at all, where the server knows that. */
static int lose_patience(rg__mysql *c, const rg__ctx *ctx, rg_err *err) {
    static const char none[] = "SET SESSION innodb_lock_wait_timeout=0";
    static const char one[] = "SET SESSION innodb_lock_wait_timeout=1";
    bool mariadb = rg__mysql_flavour(c) == RG__MARIADB;
    rg__mysql_taint(c);
    return rg__mysql_exec(c, ctx, mariadb ? none : one, sizeof none - 1, NULL, err);
}

/* Locks all that it reads: EDEADLOCK while a write of it is under way. */
static int ask_serially(rg__mysql *c, const rg__ctx *ctx, const rg__searching *q,
                        rg__found_rows *out, rg_err *err) {
    static const char serial[] = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE";
    int rc = lose_patience(c, ctx, err);
    if (rc >= 0) rc = rg__mysql_exec(c, ctx, serial, sizeof serial - 1, NULL, err);
    if (rc >= 0) rc = rg__mysql_begin(c, ctx, err);
    if (rc < 0) return rc;
    rc = ask(c, ctx, q, out, err);
    rg__mysql_rollback(c, ctx);
    return rc;
}

static int search(rg__store *s, const rg__ctx *ctx, const rg__searching *q, bool serial,
                  rg__found_rows *out, rg_err *err) {
    rg__mysql *c = NULL;
    int rc = rg__mysql_acquire(rg__store_mysql(s, q->type), ctx, &c, err);
    if (rc < 0) return rc;
    rc = serial ? ask_serially(c, ctx, q, out, err) : ask(c, ctx, q, out, err);
    rg__mysql_release(c);
    return rc;
}

/* ---- what names a search ---- */

static void put_param(rg__buf *b, const rg__param *p) {
    rg__buf_char(b, (char)p->kind);
    switch (p->kind) {
    case RG__P_NULL: return;
    case RG__P_I64: rg__buf_le64(b, (uint64_t)p->i); return;
    case RG__P_U64: rg__buf_le64(b, p->u); return;
    case RG__P_DOUBLE: rg__buf_add(b, &p->d, sizeof p->d); return;
    default: rg__buf_le32(b, (uint32_t)p->s.len); rg__buf_add(b, p->s.p, p->s.len);
    }
}

/* Everything that decides what the answer is, and what it depends on. */
static void put_key(rg__buf *b, const rg__searching *q, const uint8_t *ids) {
    rg__buf_char(b, (char)(q->mode + 1));
    rg__buf_add(b, ids, (size_t)q->n_tables * RG__DEP_ID);
    rg__buf_le64(b, q->type->fingerprint);
    rg__buf_le64(b, q->offset);
    rg__buf_le64(b, q->limit);
    rg__buf_le32(b, (uint32_t)q->n_params);
    for (size_t i = 0; i < q->n_params; i++) put_param(b, &q->params[i]);
    rg__buf_add(b, q->where.p, q->where.len);
}

/* ---- answers as bytes ---- */

static void put_answer(rg__buf *b, const rg__searching *q, const rg__found_rows *f) {
    if (q->mode == RG__SEARCH_COUNT) rg__buf_le64(b, f->count);
    for (size_t i = 0; q->mode == RG__SEARCH_IDS && i < f->n_ids; i++) rg__buf_le64(b, f->ids[i]);
    for (size_t i = 0; q->mode == RG__SEARCH_ROWS && i < f->rows.n; i++) {
        const rg_block *row = f->rows.items[i];
        rg__buf_le32(b, rg_block_len(row));
        rg__buf_add(b, rg_block_data(row), rg_block_len(row));
    }
}

static bool read_rows(const rg__searching *q, rg__reader *r, rg__found_rows *out) {
    while (r->at < r->len) {
        uint32_t len = rg__read_le32(r);
        rg__slice bytes = rg__read_bytes(r, len);
        rg_block *row = r->bad ? NULL : rg__block_dup(bytes.p, len);
        if (!row || rg__row_check(q->type, rg_block_data(row), len, NULL) < 0) {
            rg_block_unref(row);
            return false;
        }
        if (rg__rows_add(&out->rows, row) < 0) return false;
    }
    return true;
}

static bool read_ids(rg__slice v, rg__found_rows *out) {
    if (v.len % 8) return false;
    out->ids = rg__malloc(v.len + 8);
    if (!out->ids) return false;
    memcpy(out->ids, v.p, v.len);
    out->n_ids = v.len / 8;
    return true;
}

static bool read_answer(const rg__searching *q, const rg_block *b, rg__found_rows *out) {
    rg__slice v = rg__value_of(b);
    rg__reader r = {.p = (const uint8_t *)v.p, .len = v.len};
    if (q->mode == RG__SEARCH_ROWS) return read_rows(q, &r, out);
    if (q->mode == RG__SEARCH_IDS) return read_ids(v, out);
    out->count = rg__read_le64(&r);
    return !r.bad && r.at == r.len;
}

/* ---- the cache around it ---- */

typedef struct cached {
    rg__store *store;
    const rg__ctx *ctx;
    const rg__searching *q;
    const rg__values *v;
    uint8_t ids[MAX_TABLES * RG__DEP_ID];
    uint8_t generations[MAX_TABLES * GENERATION];
    uint8_t deps[MAX_TABLES * RG__DEP_BYTES];
    rg__buf key;
    rg__value_item item;
    rg__value_take take;
} cached;

/* Processes keep it when they keep the rows of all its tables: who leaves `process` out wants nothing
 * that is as old as that may be. */
static const rg__values *values_of(const rg__store *s, const rg__searching *q) {
    bool process = true;
    for (uint32_t i = 0; i < q->n_tables; i++) process &= q->tables[i]->cache_process;
    return &s->searches[2 * (size_t)q->type->redis_pool + process];
}

static bool known(cached *k, rg__found_rows *out) {
    rg_block *b = NULL;
    int found = rg__value_peek(k->v, k->item.key, 0, k->ctx->metrics, &b);
    bool ok = found == RG_CACHED_VALUE && read_answer(k->q, b, out);
    rg_block_unref(b);
    if (!ok) found_deinit(out);
    return ok;
}

/* True when Redis had the answer. */
static bool ask_redis(cached *k, rg__found_rows *out) {
    k->take.lease = true;
    k->take.ids = (rg__slice){(const char *)k->ids, (size_t)k->q->n_tables * RG__DEP_ID};
    k->take.generations = k->generations;
    rg__random(k->take.token, sizeof k->take.token);
    rg__value_ask(k->v, k->ctx, &k->take, &k->item, 1, WAIT_MS);
    if (k->item.found != RG_CACHED_VALUE) return false;
    if (read_answer(k->q, k->item.block, out)) return true;
    found_deinit(out);
    rg__count(k->ctx->metrics, RG__C_CORRUPT_ENTRY, 1);
    rg__value_delete(k->v, k->ctx, &k->item, 1, NULL);
    return false;
}

/* Gathers the generations; whether any of the tables is exposed. */
static bool exposed(cached *k) {
    bool any = false;
    for (uint32_t i = 0; i < k->q->n_tables; i++) {
        const uint8_t *g = k->generations + (size_t)i * GENERATION;
        uint8_t *dep = k->deps + (size_t)i * RG__DEP_BYTES;
        memcpy(dep, k->ids + (size_t)i * RG__DEP_ID, RG__DEP_ID);
        memcpy(dep + RG__DEP_ID, g + 1, 8);
        any |= *g == 'x';
    }
    return any;
}

static void fill(cached *k, const rg__found_rows *found) {
    rg__buf answer = {0};
    put_answer(&answer, k->q, found);
    bool fits = !answer.failed && answer.len <= k->v->max_bytes;
    rg__value_fill f = {.token = k->take.token,
                        .value = {answer.p ? answer.p : "", answer.len},
                        .ttl_ms = k->q->ttl_ms,
                        .deps = {(const char *)k->deps, (size_t)k->q->n_tables * RG__DEP_BYTES}};
    if (fits) rg__value_put(k->v, k->ctx, &k->item, &f, NULL);
    else rg__value_unlease(k->v, k->ctx, k->take.token, &k->item, 1);
    rg__buf_deinit(&answer);
}

/* When a transaction holds what it reads, what is committed answers at once, and fills nothing. */
static int heal(cached *k, bool *leased, rg__found_rows *out, rg_err *err) {
    rg_err why = {0};
    int rc = search(k->store, k->ctx, k->q, true, out, &why);
    if (rc != RG_EDEADLOCK) {
        if (rc < 0 && err) *err = why;
        return rc;
    }
    found_deinit(out);
    rg__value_unlease(k->v, k->ctx, k->take.token, &k->item, 1);
    *leased = false;
    return search(k->store, k->ctx, k->q, false, out, err);
}

static int lead(cached *k, rg__found_rows *out, rg_err *err) {
    bool leased = k->item.found == RG_CACHED_LEASED;
    int rc = leased && exposed(k) ? heal(k, &leased, out, err)
                                  : search(k->store, k->ctx, k->q, false, out, err);
    if (!leased) return rc;
    if (rc >= 0) fill(k, out);
    else rg__value_unlease(k->v, k->ctx, k->take.token, &k->item, 1);
    return rc;
}

/* One table named twice is one: marks and generations are by table. */
static bool name(cached *k) {
    for (uint32_t i = 0; i < k->q->n_tables; i++)
        rg__table_id(k->q->tables[i], k->ids + (size_t)i * RG__DEP_ID);
    put_key(&k->key, k->q, k->ids);
    k->item.key = (rg__slice){k->key.p, k->key.len};
    return !k->key.failed && rg__value_name(k->v, &k->item) == RG_OK;
}

/* Writes may have gone past Redis while it was away. */
static bool trusts(rg__store *s, const rg__ctx *ctx, const rg__searching *q) {
    for (uint32_t i = 0; i < q->n_tables; i++)
        if (!rg__trust(s, ctx, q->tables[i])) return false;
    return true;
}

int rg__search_cached(rg__store *s, const rg__ctx *ctx, const rg__searching *q,
                      rg__found_rows *out, rg_err *err) {
    if (q->n_tables > MAX_TABLES)
        return rg__fail(err, RG_ELIMIT, "a cached search reads at most %d tables", MAX_TABLES);
    if (!trusts(s, ctx, q)) return search(s, ctx, q, false, out, err);
    cached *k = rg__calloc(1, sizeof *k);
    if (!k) return rg__fail_memory(err);
    *k = (cached){.store = s, .ctx = ctx, .q = q, .v = values_of(s, q)};
    if (k->v->process) rg__store_cohere(s, q->type);
    int rc = name(k) ? RG_OK : rg__fail_memory(err);
    if (rc >= 0 && !known(k, out) && !ask_redis(k, out)) rc = lead(k, out, err);
    rg__value_item_deinit(&k->item);
    rg__buf_deinit(&k->key);
    rg__free(k);
    return rc;
}
