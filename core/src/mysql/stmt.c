/* SPDX-License-Identifier: MIT */
/* Prepared statements, kept per connection by key, the one used longest ago dropped first. */
#include "mysql/conn.h"
#include "mysql/due.h"

#include "base/alloc.h"

static rg__stmt *of_lru(rg__node *n) {
    return rg__container(n, rg__stmt, lru);
}

/* ---- the end of a statement ---- */

static void free_stmt(rg__stmt *s) {
    if (s->st) mysql_stmt_close(s->st);
    if (s->extra) s->extra_free(s->extra);
    rg__free(s->params);
    rg__free(s->lengths);
    rg__free(s->nulls);
    rg__free(s->key);
    rg__free(s->sql);
    rg__free(s);
}

void rg__stmt_drop(rg__mysql *c, rg__stmt *s) {
    rg__map_take(c->stmts, s->key, s->key_len);
    rg__list_remove(&s->lru);
    free_stmt(s);
}

void rg__stmt_clear(rg__mysql *c) {
    while (!rg__list_empty(&c->stmt_lru))
        rg__stmt_drop(c, of_lru(c->stmt_lru.next));
}

static void evict(rg__mysql *c, size_t keep) {
    while (rg__map_count(c->stmts) > keep)
        rg__stmt_drop(c, of_lru(c->stmt_lru.prev));
}

/* ---- preparing ---- */

/* Types live longer than the connections of the pools that serve them, so an address says which;
 * the rest is for a program that makes types again and again in the same place. */
rg__buf *rg__stmt_key(rg__mysql *c, const rg_type *t, char what, uint32_t number,
                      const uint8_t *mask) {
    rg__buf_clear(&c->key);
    rg__buf_add(&c->key, &t, sizeof t);
    rg__buf_add(&c->key, &t->fingerprint, sizeof t->fingerprint);
    rg__buf_add(&c->key, &number, sizeof number);
    rg__buf_char(&c->key, what);
    if (mask) rg__buf_add(&c->key, mask, t->n_columns);
    rg__buf_str(&c->key, t->quoted);
    return &c->key;
}

rg__stmt *rg__stmt_find(rg__mysql *c, const void *key, size_t len) {
    rg__stmt *s = rg__map_get(c->stmts, key, len);
    if (!s || c->stmt_lru.next == &s->lru) return s;
    rg__list_remove(&s->lru);
    rg__list_add_head(&c->stmt_lru, &s->lru);
    return s;
}

static bool too_many_statements(MYSQL_STMT *st) {
    return mysql_stmt_errno(st) == 1461;
}

/* The server's bound is over all connections: ours are given up before the caller is told. */
static int prepare(rg__mysql *c, const rg__call *call, rg__stmt *s, rg_err *err) {
    int code = rg__due_settle(c, call, err);
    if (code) return code;
    for (int tries = 0;; tries++) {
        s->st = mysql_stmt_init(c->my);
        if (!s->st) return rg__fail_memory(err);
        if (mysql_stmt_prepare(s->st, s->sql, s->sql_len) == 0) return 0;
        if (tries > 0 || !too_many_statements(s->st)) break;
        mysql_stmt_close(s->st);
        s->st = NULL;
        rg__stmt_clear(c);
    }
    code = rg__call_fail(c, call, s->st, err);
    mysql_stmt_close(s->st);
    s->st = NULL;
    return code;
}

static int make_params(rg__stmt *s, rg_err *err) {
    size_t n = s->n_params = (unsigned)mysql_stmt_param_count(s->st);
    s->n_columns = mysql_stmt_field_count(s->st);
    if (n == 0) return 0;
    s->params = rg__calloc(n, sizeof *s->params);
    s->lengths = rg__calloc(n, sizeof *s->lengths);
    s->nulls = rg__calloc(n, sizeof *s->nulls);
    if (!s->params || !s->lengths || !s->nulls) return rg__fail_memory(err);
    for (size_t i = 0; i < n; i++) {
        s->params[i].length = &s->lengths[i];
        s->params[i].is_null = &s->nulls[i];
    }
    return 0;
}

int rg__stmt_new(rg__mysql *c, const rg__call *call, const void *key, size_t key_len,
                 const char *sql, size_t len, rg__stmt **out, rg_err *err) {
    int code = 0;
    rg__stmt *s = rg__calloc(1, sizeof *s);
    if (!s) return rg__fail_memory(err);
    rg__list_init(&s->lru);
    s->key = rg__memdup0(key, key_len);
    s->key_len = key_len;
    s->sql = rg__memdup0(sql, len);
    s->sql_len = len;
    if (!s->key || !s->sql) code = rg__fail_memory(err);
    if (code == 0) code = rg__call_fits(c, len, call->what, err);
    if (code == 0) code = prepare(c, call, s, err);
    if (code == 0) code = make_params(s, err);
    if (code == 0) evict(c, rg__pool_opts(c->pool)->max_statements - 1);
    if (code == 0 && rg__map_put(c->stmts, key, key_len, s, NULL)) code = rg__fail_memory(err);
    if (code) {
        free_stmt(s);
        return code;
    }
    rg__list_add_head(&c->stmt_lru, &s->lru);
    *out = s;
    return 0;
}

/* ---- running ---- */

/* mysql_stmt_bind_result copies the array; what the binds point to is the user's and stays. */
int rg__stmt_bind_results(rg__mysql *c, const rg__call *call, rg__stmt *s, rg_err *err) {
    if (!s->results) return 0;
    return mysql_stmt_bind_result(s->st, s->results) ? rg__call_fail(c, call, s->st, err) : 0;
}

static int bind(rg__mysql *c, const rg__call *call, rg__stmt *s, rg_err *err) {
    if (s->params_bound || s->n_params == 0) return 0;
    if (mysql_stmt_bind_param(s->st, s->params)) return rg__call_fail(c, call, s->st, err);
    s->params_bound = true;
    return 0;
}

bool rg__stmt_forgotten(MYSQL_STMT *st) {
    switch (mysql_stmt_errno(st)) {
    case 1243:
    case 1615:
    case 2030:
    case 2056:
    case 2057:
        return true;
    default:
        return false;
    }
}

static int prepare_again(rg__mysql *c, const rg__call *call, rg__stmt *s, rg_err *err) {
    mysql_stmt_close(s->st);
    s->st = NULL;
    s->params_bound = false;
    /* Eviction would free the statement in hand: it is out of the list meanwhile. */
    rg__list_remove(&s->lru);
    rg__map_take(c->stmts, s->key, s->key_len);
    int code = prepare(c, call, s, err);
    if (rg__map_put(c->stmts, s->key, s->key_len, s, NULL) && code == 0)
        code = rg__fail_memory(err);
    rg__list_add_head(&c->stmt_lru, &s->lru);
    if (code == 0 && mysql_stmt_param_count(s->st) != s->n_params)
        code = rg__fail(err, RG_EINTERNAL, "%s: another number of parameters", call->what);
    if (code == 0) code = rg__stmt_bind_results(c, call, s, err);
    return code ? code : bind(c, call, s, err);
}

int rg__stmt_run(rg__mysql *c, const rg__call *call, rg__stmt *s, rg_err *err) {
    int failed = 0;
    int code = s->st ? bind(c, call, s, err) : prepare_again(c, call, s, err);
    if (code == 0) code = rg__due_execute(c, call, s->st, &failed, err);
    if (code || !failed) return code;
    if (!rg__stmt_forgotten(s->st)) return rg__call_fail(c, call, s->st, err);
    code = prepare_again(c, call, s, err);
    if (code) return code;
    return mysql_stmt_execute(s->st) ? rg__call_fail(c, call, s->st, err) : 0;
}

void rg__stmt_drain(rg__mysql *c, rg__stmt *s) {
    if (!s->st || s->n_columns == 0) return;
    if (mysql_stmt_free_result(s->st)) c->broken = true;
}
