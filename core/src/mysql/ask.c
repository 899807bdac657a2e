/* SPDX-License-Identifier: MIT */
/* Reading by ids in two steps: the statement is sent, and its rows are taken later. Between the two the
 * connection is lent, with an answer under way, and this thread may do other calls. */
#include "base/alloc.h"
#include "mysql/due.h"
#include "mysql/select.h"

struct rg__asked {
    rg__mysql *c;
    rg__stmt *stmt;
    rg__call call;
    const rg_type *type;
};

static rg__stmt *find(rg__mysql *c, const rg_type *t, size_t n) {
    if (!c->pipelines || c->n_due) return NULL;
    const rg__buf *key = rg__select_ids_key(c, t, n, RG__LOCK_NONE);
    rg__stmt *s = rg__stmt_find(c, key->p, key->len);
    return s && s->st && s->params_bound ? s : NULL;
}

static bool send(rg__asked *a, const uint64_t *ids, size_t n) {
    if (rg__call_begin(a->c, &a->call, NULL)) return false;
    rg__select_set_ids(a->stmt, ids, n);
    int code = rg__due_send(a->c, a->stmt->st) ? rg__call_fail(a->c, &a->call, a->stmt->st, NULL) : 0;
    if (rg__wait_end(a->c) || code) a->c->broken = true;
    return !a->c->broken;
}

rg__asked *rg__sql_ask_ids(rg__mysql_pool *pool, const rg__ctx *ctx, const rg_type *t, const uint64_t *ids,
                           size_t n) {
    rg__mysql *c = n > 0 && n <= RG__ASK_ROWS ? rg__mysql_acquire_idle(pool) : NULL;
    rg__stmt *s = c ? find(c, t, n) : NULL;
    rg__asked *a = s ? rg__calloc(1, sizeof *a) : NULL;
    if (a) {
        *a = (rg__asked){c, s, {.ctx = ctx, .what = "loading", .op = "SELECT"}, t};
        if (send(a, ids, n)) return a;
    }
    rg__free(a);
    if (c) rg__mysql_release(c);
    return NULL;
}

int rg__sql_take_ids(rg__asked *a, const rg__ctx *ctx, rg__row_fn fn, void *arg) {
    rg__mysql *c = a->c;
    a->call.ctx = ctx;
    rg__wait_begin(c, rg__call_deadline(c, &a->call, rg__now_ms()));
    int code = rg__due_receive(c, a->stmt->st) ? rg__call_fail(c, &a->call, a->stmt->st, NULL)
                                            : rg__select_rows(c, &a->call, a->stmt, fn, arg, NULL);
    code = rg__select_end(c, &a->call, code, a->stmt, a->type, NULL);
    rg__free(a);
    rg__mysql_release(c);
    return code;
}

void rg__sql_drop_ids(rg__asked *a) {
    a->c->broken = true;
    rg__mysql_release(a->c);
    rg__free(a);
}
