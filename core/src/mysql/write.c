/* SPDX-License-Identifier: MIT */
/* Statements that write one row, by parameters; and what statements of many rows share with them.
 */
#include "mysql/write.h"

#include "base/alloc.h"

/* What is kept with such a statement. */
typedef struct writing {
    rg__buf scratch;
    rg__bound bounds[];
} writing;

static void free_writing(void *p) {
    writing *w = p;
    rg__buf_deinit(&w->scratch);
    rg__free(w);
}

static writing *make_writing(rg__stmt *s) {
    s->extra = rg__calloc(1, sizeof(writing) + (s->n_params + 1) * sizeof(rg__bound));
    s->extra_free = free_writing;
    return s->extra;
}

/* ---- one row ---- */

/* All at once, because binds point into it. */
static bool make_room(writing *x, const rg__row_write *w) {
    size_t room = 0;
    for (uint32_t i = 0; i < w->t->n_columns; i++) {
        if (!rg__param_is_made(&w->t->columns[i]) || !rg__row_writes(w, i)) continue;
        rg__value v = rg__row_value(w->t, w->row, i);
        room += rg__param_scratch(&w->t->columns[i], &v);
    }
    rg__buf_clear(&x->scratch);
    return room == 0 || rg__buf_reserve(&x->scratch, room) != NULL;
}

static size_t bind_row(rg__stmt *s, writing *x, const rg__row_write *w) {
    unsigned at = 0;
    size_t bytes = 64;
    for (uint32_t i = 0; i < w->t->n_columns; i++) {
        if (!rg__row_writes(w, i)) continue;
        rg__value v = rg__row_value(w->t, w->row, i);
        bytes +=
            rg__param_bind(&w->t->columns[i], &v, &s->params[at], &x->bounds[at], &x->scratch) + 3;
        at++;
    }
    for (unsigned i = 0; i < w->n_more; i++, at++) {
        x->bounds[at].u = w->more[i];
        rg__param_bind_u64(&s->params[at], &x->bounds[at].u);
    }
    s->params_bound = false;
    return bytes;
}

int rg__row_write_run(rg__mysql *c, rg__call *call, rg__stmt *s, const rg__row_write *w,
                      rg_err *err) {
    writing *x = s->extra ? s->extra : make_writing(s);
    if (!x || !make_room(x, w)) return rg__fail_memory(err);
    call->bytes = bind_row(s, x, w);
    int code = rg__call_fits(c, call->bytes, call->what, err);
    if (code == 0) code = rg__stmt_run(c, call, s, err);
    if (code == 0) call->rows = (int64_t)mysql_stmt_affected_rows(s->st);
    if (x->scratch.cap > 65536) rg__buf_deinit(&x->scratch);
    return code;
}

/* ---- cached statements ---- */

int rg__write_prepare(rg__mysql *c, const rg__call *call, const rg__buf *key,
                      const rg__row_write *w,
                      void (*text)(rg__mysql *c, rg__buf *sql, const rg__row_write *w),
                      rg__stmt **out, rg_err *err) {
    if (key->failed) return rg__fail_memory(err);
    *out = rg__stmt_find(c, key->p, key->len);
    if (*out) return 0;
    rg__buf sql = {0};
    text(c, &sql, w);
    int code = sql.failed ? rg__fail_memory(err) : 0;
    if (code == 0) code = rg__stmt_new(c, call, key->p, key->len, sql.p, sql.len, out, err);
    rg__buf_deinit(&sql);
    return code;
}

int rg__write_end(rg__mysql *c, rg__call *call, int code, const rg_type *t, rg__slice shown,
                  rg_err *err) {
    call->type = t;
    code = rg__call_end(c, call, code, shown.p, shown.len, err);
    if (code && err && err->domain == RG_DOMAIN_MYSQL) rg__sql_fail_entity(err, t);
    return code;
}
