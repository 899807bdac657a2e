/* SPDX-License-Identifier: MIT */
/* The auditor. What a cache says is read before and after the row: when it said the same both times and
 * the row says something else, it either served what the database had replaced, or is about to be told;
 * so what is found is looked at again until it has stood for long enough. */
#include "unit/audit.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "unit/load.h"
#include "unit/outage.h"

enum { AGAIN_MS = 100 };

const char *const rg__audit_columns[5] = {"entity", "id", "tier", "what", "problem"};

/* What a tier says of one key. */
typedef enum says { SAYS_NOTHING = 0, SAYS_VALUE, SAYS_ABSENT } says;
typedef struct answer {
    says says;
    rg_block *block; /* of VALUE */
} answer;

/* One key: of the row, or of a list that it must be in. */
typedef struct probe {
    int32_t index;        /* -1: the row itself */
    rg__key key;
    answer process, redis;
    bool process_bad, redis_bad;
} probe;

/* The keys of one row. */
typedef struct subject {
    uint64_t id;
    rg_block *row;        /* as MySQL has it; NULL: none */
    probe *probes;
    size_t n;
} subject;

typedef struct page {
    rg__store *store;
    const rg__ctx *ctx;
    const rg_type *type;
    subject *subjects;
    size_t n;
    uint8_t *mask;        /* of columns that differ */
    rg__audit *audit;
} page;

static void answer_deinit(answer *a) {
    rg_block_unref(a->block);
    *a = (answer){SAYS_NOTHING, NULL};
}

static bool same(const answer *a, const answer *b) {
    if (a->says != b->says || a->says == SAYS_NOTHING) return false;
    if (a->says == SAYS_ABSENT) return true;
    return rg_block_len(a->block) == rg_block_len(b->block) &&
           memcmp(rg_block_data(a->block), rg_block_data(b->block), rg_block_len(a->block)) == 0;
}

/* ---- what the tiers say ---- */

static answer ask_process(const page *p, const probe *x) {
    if (!p->type->cache_process) return (answer){SAYS_NOTHING, NULL};
    rg_block *b = rg__process_get(p->store->process, x->key.space, x->key.hash);
    if (!b) return (answer){SAYS_NOTHING, NULL};
    if (rg_block_len(b) > 0) return (answer){SAYS_VALUE, b};
    rg_block_unref(b);
    return (answer){SAYS_ABSENT, NULL};
}

/* *queued: a queued write stands there, which neither tier's answer can be told from the row of. */
static answer ask_redis(const page *p, const probe *x, bool *queued) {
    rg__shared *shared = rg__store_shared(p->store, p->type);
    answer a = {SAYS_NOTHING, NULL};
    rg__entry e;
    *queued = false;
    if (!shared) return a;
    rg__shared_get(shared, p->ctx, p->type, x->index < 0, &x->key, 1, &e);
    *queued = e.pending || e.suspect || e.found == RG__DELTAS;
    if (!*queued && e.found == RG__VALUE && rg_block_len(e.block) > 0) {
        a = (answer){SAYS_VALUE, e.block};
        e.block = NULL;
    } else if (!*queued && (e.found == RG__ABSENT || e.found == RG__VALUE)) {
        a.says = SAYS_ABSENT;
    }
    rg__entry_deinit(&e);
    return a;
}

static void ask(const page *p, bool first) {
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->subjects[i].n; k++) {
            probe *x = &p->subjects[i].probes[k];
            bool queued = false;
            answer process = ask_process(p, x), redis = ask_redis(p, x, &queued);
            if (queued) answer_deinit(&process);
            if (first) {
                answer_deinit(&x->process);
                answer_deinit(&x->redis);
                x->process = process;
                x->redis = redis;
                continue;
            }
            if (!same(&x->process, &process)) answer_deinit(&x->process);
            if (!same(&x->redis, &redis)) answer_deinit(&x->redis);
            answer_deinit(&process);
            answer_deinit(&redis);
        }
}

/* ---- what MySQL holds ---- */

static int take_row(void *arg, rg_block *row) {
    page *p = arg;
    uint64_t id = rg__row_id(p->type, rg_block_data(row));
    for (size_t i = 0; i < p->n; i++) {
        if (p->subjects[i].id != id) continue;
        rg_block_unref(p->subjects[i].row);
        p->subjects[i].row = rg_block_ref(row);
    }
    rg_block_unref(row);
    return RG_OK;
}

static int read_rows(page *p, rg_err *err) {
    uint64_t *ids = rg__reallocarray(NULL, p->n + 1, sizeof *ids);
    rg__mysql *c = NULL;
    if (!ids) return rg__fail_memory(err);
    for (size_t i = 0; i < p->n; i++) {
        ids[i] = p->subjects[i].id;
        rg_block_unref(p->subjects[i].row);
        p->subjects[i].row = NULL;
    }
    int rc = rg__mysql_acquire(rg__store_mysql(p->store, p->type), p->ctx, &c, err);
    if (rc >= 0)
        rc = rg__sql_select_ids(c, p->ctx, p->type, ids, p->n, RG__LOCK_NONE, take_row, p, err);
    rg__mysql_release(c);
    rg__free(ids);
    return rc;
}

/* ---- probes ---- */

static int add_probe(subject *s, int32_t index, rg__key key) {
    probe *p = rg__reallocarray(s->probes, s->n + 1, sizeof *p);
    if (!p) {
        rg__key_deinit(&key);
        return RG_ENO_MEMORY;
    }
    s->probes = p;
    p[s->n++] = (probe){.index = index, .key = key};
    return RG_OK;
}

static bool is_listed(const rg_type *t, const rg__index *x) {
    return rg__index_cached(x) && x->exact && t->redis_pool >= 0;
}

static int add_lists(const page *p, subject *s) {
    rg__shared *shared = rg__store_shared(p->store, p->type);
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && s->row && i < p->type->n_indexes; i++) {
        const rg__index *x = &p->type->indexes[i];
        rg__buf encoded = {0};
        if (!shared || !is_listed(p->type, x)) continue;
        bool whole = rg__key_encode(p->type, x, rg_block_data(s->row), &encoded);
        if (whole || !(x->flags & RG_INDEX_UNIQUE)) {
            rg__key key;
            rg__key_lookup(shared, p->type, i, (rg__slice){encoded.p, encoded.len}, &key);
            rc = add_probe(s, (int32_t)i, key);
        }
        rg__buf_deinit(&encoded);
    }
    return rc;
}

static int make_probes(page *p, rg_err *err) {
    rg__shared *shared = rg__store_shared(p->store, p->type);
    int rc = shared ? read_rows(p, err) : RG_OK;
    for (size_t i = 0; rc >= 0 && shared && i < p->n; i++) {
        rg__key key;
        rg__key_row(shared, p->type, p->subjects[i].id, &key);
        rc = add_probe(&p->subjects[i], -1, key);
        if (rc >= 0) rc = add_lists(p, &p->subjects[i]);
    }
    return rc;
}

/* ---- judging ---- */

static bool holds_id(const rg_block *list, uint64_t id) {
    const uint8_t *p = rg_block_data(list);
    for (size_t i = 0; i + 8 <= rg_block_len(list); i += 8) {
        uint64_t at;
        memcpy(&at, p + i, 8);
        if (at == id) return true;
    }
    return false;
}

/* Is the row still one of the list that was named after it? */
static bool belongs(const page *p, const subject *s, const probe *x) {
    if (!s->row) return false;
    rg__buf encoded = {0};
    rg__key key = {0};
    rg__key_encode(p->type, &p->type->indexes[x->index], rg_block_data(s->row), &encoded);
    rg__key_lookup(rg__store_shared(p->store, p->type), p->type, (uint32_t)x->index,
                   (rg__slice){encoded.p, encoded.len}, &key);
    bool is = key.text && key.len == x->key.len && memcmp(key.text, x->key.text, key.len) == 0;
    rg__key_deinit(&key);
    rg__buf_deinit(&encoded);
    return is;
}

static bool differs(const page *p, const subject *s, const probe *x, const answer *a) {
    if (a->says == SAYS_NOTHING) return false;
    if (x->index >= 0)
        return belongs(p, s, x) && (a->says == SAYS_ABSENT || !holds_id(a->block, s->id));
    if (a->says == SAYS_ABSENT) return s->row != NULL;
    if (!s->row) return true;
    return rg__row_diff(p->type, rg_block_data(a->block), rg_block_data(s->row), p->mask) > 0;
}

/* True when something is wrong still. */
static bool judge(page *p, bool first) {
    bool any = false;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->subjects[i].n; k++) {
            const subject *s = &p->subjects[i];
            probe *x = &s->probes[k];
            if (first)
                p->audit->compared += (uint64_t)(x->process.says != 0) + (uint64_t)(x->redis.says != 0);
            x->process_bad = (first || x->process_bad) && differs(p, s, x, &x->process);
            x->redis_bad = (first || x->redis_bad) && differs(p, s, x, &x->redis);
            any |= x->process_bad || x->redis_bad;
        }
    return any;
}

/* ---- telling ---- */

static void put_difference(const page *p, const subject *s, const answer *a, rg__buf *out) {
    if (a->says == SAYS_ABSENT) rg__buf_str(out, "cached as absent");
    else if (!s->row) rg__buf_str(out, "cached, but there is no such row");
    if (a->says == SAYS_ABSENT || !s->row) return;
    rg__row_diff(p->type, rg_block_data(a->block), rg_block_data(s->row), p->mask);
    rg__buf_str(out, "differs in");
    for (uint32_t i = 0; i < p->type->n_columns; i++)
        if (p->mask[i]) rg__buf_fmt(out, " %s", p->type->columns[i].name);
}

static int tell(const page *p, const subject *s, const probe *x, const char *tier, const answer *a) {
    char id[24];
    rg__buf problem = {0};
    snprintf(id, sizeof id, "%llu", (unsigned long long)s->id);
    if (x->index >= 0) rg__buf_str(&problem, "the list lacks the row");
    else put_difference(p, s, a, &problem);
    const char *what = x->index < 0 ? "row" : p->type->indexes[x->index].name;
    const char *cells[] = {p->type->name, id, tier, what, rg__buf_cstr(&problem)};
    int rc = rg__result_add_strings(p->audit->out, cells);
    rg__buf_deinit(&problem);
    return rc;
}

static int tell_all(const page *p) {
    int rc = RG_OK;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; rc >= 0 && k < p->subjects[i].n; k++) {
            const subject *s = &p->subjects[i];
            const probe *x = &s->probes[k];
            if (x->process_bad) rc = tell(p, s, x, "process", &x->process);
            if (rc >= 0 && x->redis_bad) rc = tell(p, s, x, "redis", &x->redis);
        }
    return rc;
}

/* ---- a page ---- */

static int look(page *p, rg_err *err) {
    ask(p, true);
    int rc = read_rows(p, err);
    if (rc >= 0) ask(p, false);
    return rc;
}

static int audit(page *p, rg_err *err) {
    int rc = make_probes(p, err);
    if (rc >= 0) rc = look(p, err);
    if (rc < 0 || !judge(p, true)) return rc;
    int64_t until_ms = rg__now_ms() + p->audit->older_ms;
    do {
        if (rg__left_ms(p->ctx->deadline_ms) == 0)
            return rg__fail(err, RG_ETIMEOUT, "the deadline is nearer than what is to be waited for");
        rg__sleep_ms(AGAIN_MS);
        if (!rg__trust(p->store, p->ctx, p->type))
            return rg__fail(err, RG_EUNAVAILABLE, "an outage of Redis is not healed: caches are not read");
        rc = look(p, err);
        if (rc < 0 || !judge(p, false)) return rc;
    } while (rg__left_ms(until_ms) > 0);
    return tell_all(p) < 0 ? rg__fail_memory(err) : RG_OK;
}

static void page_deinit(page *p) {
    for (size_t i = 0; p->subjects && i < p->n; i++) {
        subject *s = &p->subjects[i];
        for (size_t k = 0; k < s->n; k++) {
            rg__key_deinit(&s->probes[k].key);
            answer_deinit(&s->probes[k].process);
            answer_deinit(&s->probes[k].redis);
        }
        rg__free(s->probes);
        rg_block_unref(s->row);
    }
    rg__free(p->subjects);
    rg__free(p->mask);
}

int rg__audit_rows(rg__store *s, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids, size_t n,
                   rg__audit *a, rg_err *err) {
    page p = {.store = s, .ctx = ctx, .type = t, .n = n, .audit = a};
    if (n > RG__AUDIT_PAGE) return rg__fail(err, RG_ELIMIT, "an audit takes %d ids at a time", RG__AUDIT_PAGE);
    if (!rg__trust(s, ctx, t))
        return rg__fail(err, RG_EUNAVAILABLE, "an outage of Redis is not healed: caches are not read");
    p.subjects = rg__calloc(n + 1, sizeof *p.subjects);
    p.mask = rg__calloc(t->n_columns + 1, 1);
    if (!p.subjects || !p.mask) {
        page_deinit(&p);
        return rg__fail_memory(err);
    }
    for (size_t i = 0; i < n; i++) p.subjects[i].id = ids[i];
    int rc = audit(&p, err);
    page_deinit(&p);
    return rc < 0 ? rc : RG_OK;
}

int rg__audit_scan(rg__store *s, const rg__ctx *ctx, const rg_type *t, char cursor[24],
                   uint64_t **ids, size_t *n, rg_err *err) {
    rg__shared *shared = rg__store_shared(s, t);
    *ids = NULL;
    *n = 0;
    if (shared) return rg__shared_scan_rows(shared, ctx, t, cursor, ids, n, err);
    memcpy(cursor, "0", 2);
    return RG_OK;
}
