/* SPDX-License-Identifier: MIT */
/* Reading entities by a user's condition: rows, ids, or how many. */
#include "mysql/select.h"
#include "mysql/sql.h"

#include "base/alloc.h"

/* What is asked, checked. */
typedef struct search {
    const rg_type *t;
    rg__where where;
    const rg__param *params;
    size_t n_params; /* that the statement takes */
    uint64_t offset, limit;
    rg__lock lock;
} search;

static int check(search *q, const char *text, size_t len, size_t n_params, rg_err *err) {
    int code = rg__sql_check_where(text, len, n_params, &q->where, err);
    if (code == 0 && q->where.has_limit && (q->limit || q->offset))
        code = rg__fail(err, RG_EINVALID, "the condition has a LIMIT of its own");
    if (code) rg__err_set_entity(err, q->t->name);
    if (code) rg__err_prefix(err, "%s: ", q->t->name);
    return code;
}

/* ---- text ---- */

/* A line of its own: a comment at the end of the user's text must not swallow what follows. */
static void add_where(rg__buf *sql, const rg__where *w, bool with_tail) {
    if (w->condition.len) {
        rg__buf_str(sql, " WHERE (");
        rg__buf_add(sql, w->condition.p, w->condition.len);
        rg__buf_str(sql, "\n)");
    }
    if (!with_tail || !w->tail.len) return;
    rg__buf_char(sql, ' ');
    rg__buf_add(sql, w->tail.p, w->tail.len);
    rg__buf_char(sql, '\n');
}

static void add_page(rg__buf *sql, const search *q) {
    if (q->offset)
        rg__buf_str(sql, " LIMIT ?,?");
    else if (q->limit)
        rg__buf_str(sql, " LIMIT ?");
}

/* ---- parameters ---- */

static size_t page_params(const search *q) {
    return q->offset ? 2 : q->limit ? 1 : 0;
}

/* The user's parameters, then those of the page; *out is to be freed. */
static int list_params(const search *q, rg__param **out, rg_err *err) {
    size_t n = q->n_params, pages = page_params(q);
    rg__param *list = rg__calloc(n + pages + 1, sizeof *list);
    if (!list) return rg__fail_memory(err);
    if (n) memcpy(list, q->params, n * sizeof *list);
    if (pages == 2) list[n] = (rg__param){.kind = RG__P_U64, .u = q->offset};
    if (pages)
        list[n + pages - 1] = (rg__param){.kind = RG__P_U64, .u = q->limit ? q->limit : UINT64_MAX};
    *out = list;
    return 0;
}

static size_t bind_params(rg__stmt *s, const rg__param *params) {
    rg__selection *x = s->extra;
    size_t bytes = 0;
    for (unsigned i = 0; i < s->n_params; i++)
        bytes += rg__param_bind_value(&params[i], &s->params[i], &x->bounds[i]);
    s->params_bound = false;
    return bytes;
}

/* ---- rows ---- */

static int find_statement(rg__mysql *c, const rg__call *call, const search *q, rg__stmt **out,
                          rg_err *err) {
    rg__buf *sql = rg__conn_text(c);
    rg__select_begin(sql, q->t);
    add_where(sql, &q->where, true);
    add_page(sql, q);
    rg__select_lock(c, sql, q->lock);
    if (sql->failed) return rg__fail_memory(err);
    *out = rg__stmt_find(c, sql->p, sql->len);
    return *out ? 0 : rg__select_prepare(c, call, q->t, sql, sql, out, err);
}

static int run_search(rg__mysql *c, rg__call *call, const search *q, rg__stmt **s, rg__row_fn fn,
                      void *arg, rg_err *err) {
    rg__param *params = NULL;
    int code = find_statement(c, call, q, s, err);
    if (code) return code;
    if ((*s)->n_params != q->n_params + page_params(q))
        return rg__fail(err, RG_EINVALID, "the server counts other placeholders than the text has");
    code = list_params(q, &params, err);
    if (code) return code;
    call->bytes = bind_params(*s, params);
    code = rg__call_fits(c, call->bytes, call->what, err);
    if (code == 0) code = rg__select_run(c, call, *s, fn, arg, err);
    rg__free(params);
    return code;
}

int rg__sql_search_locked(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where,
                          size_t len, const rg__param *params, size_t n_params, uint64_t offset,
                          uint64_t limit, rg__lock lock, rg__row_fn fn, void *arg, rg_err *err) {
    rg__call call = {.ctx = ctx, .what = "searching", .op = "SELECT"};
    search q = {.t = t, .params = params, .n_params = n_params, .offset = offset, .limit = limit};
    q.lock = lock;
    rg__stmt *s = NULL;
    int code = check(&q, where, len, n_params, err);
    if (code == 0) code = rg__call_begin(c, &call, err);
    if (code) return code;
    code = run_search(c, &call, &q, &s, fn, arg, err);
    return rg__select_end(c, &call, code, code ? NULL : s, t, err);
}

int rg__sql_search(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where,
                   size_t len, const rg__param *params, size_t n_params, uint64_t offset,
                   uint64_t limit, rg__row_fn fn, void *arg, rg_err *err) {
    return rg__sql_search_locked(c, ctx, t, where, len, params, n_params, offset, limit,
                                 RG__LOCK_NONE, fn, arg, err);
}

/* ---- numbers only ---- */

/* The cells of a result's only column, which are digits. */
static uint64_t number_at(const rg__result *r, size_t row) {
    rg__slice cell = r->cells[row];
    uint64_t v = 0;
    for (size_t i = 0; i < cell.len; i++)
        v = v * 10 + (uint64_t)(cell.p[i] - '0');
    return v;
}

static int query_numbers(rg__mysql *c, const rg__ctx *ctx, const search *q, const rg__buf *sql,
                         rg__result **out, rg_err *err) {
    rg__param *params = NULL;
    int code = sql->failed ? rg__fail_memory(err) : list_params(q, &params, err);
    if (code) return code;
    code = rg__mysql_query(c, ctx, sql->p, sql->len, params, q->n_params + page_params(q), false,
                           out, err);
    rg__free(params);
    if (code && err && err->domain == RG_DOMAIN_MYSQL) rg__sql_fail_entity(err, q->t);
    return code;
}

int rg__sql_search_ids(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where,
                       size_t len, const rg__param *params, size_t n_params, uint64_t offset,
                       uint64_t limit, uint64_t **ids, size_t *n, rg_err *err) {
    search q = {.t = t, .params = params, .n_params = n_params, .offset = offset, .limit = limit};
    rg__result *r = NULL;
    int code = check(&q, where, len, n_params, err);
    if (code) return code;
    rg__buf *sql = rg__conn_text(c);
    rg__buf_fmt(sql, "SELECT %s FROM %s", t->columns[0].quoted, t->quoted);
    add_where(sql, &q.where, true);
    add_page(sql, &q);
    code = query_numbers(c, ctx, &q, sql, &r, err);
    if (code) return code;
    *n = r->n_rows;
    *ids = rg__reallocarray(NULL, r->n_rows ? r->n_rows : 1, sizeof **ids);
    for (size_t i = 0; *ids && i < r->n_rows; i++)
        (*ids)[i] = number_at(r, i);
    rg__result_free(r);
    return *ids ? 0 : rg__fail_memory(err);
}

int rg__sql_count(rg__mysql *c, const rg__ctx *ctx, const rg_type *t, const char *where, size_t len,
                  const rg__param *params, size_t n_params, uint64_t *count, rg_err *err) {
    search q = {.t = t, .params = params};
    rg__result *r = NULL;
    int code = check(&q, where, len, n_params, err);
    if (code == 0 && q.where.has_limit)
        code = rg__fail(err, RG_EINVALID, "%s: a LIMIT has no meaning in a count", t->name);
    if (code) return code;
    q.n_params = q.where.n_condition;
    rg__buf *sql = rg__conn_text(c);
    rg__buf_fmt(sql, "SELECT COUNT(*) FROM %s", t->quoted);
    add_where(sql, &q.where, false);
    code = query_numbers(c, ctx, &q, sql, &r, err);
    if (code) return code;
    *count = r->n_rows ? number_at(r, 0) : 0;
    rg__result_free(r);
    return 0;
}
