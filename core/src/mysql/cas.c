/* SPDX-License-Identifier: MIT */
/* Conditional writes of one row: its statement, and how columns are compared. */
#include "mysql/cas.h"

#include "base/alloc.h"
#include "mysql/castext.h"

/* ---- comparing ---- */

bool rg__cas_holds(const rg_type *t, const uint8_t *expect, const void *expected, const void *row,
                   uint8_t *differs) {
    bool holds = true;
    for (uint32_t i = 0; i < t->n_columns; i++) {
        bool other = expect && expect[i] && !rg__row_column_eq(t, expected, row, i);
        if (differs) differs[i] = other;
        holds = holds && !other;
    }
    return holds;
}

/* Exact by type: a column's own collation would take "a" for "A" and "a ", and a comparison of two
 * types goes by way of doubles. JSON of MariaDB is text; there, white space is no difference. */
void rg__cas_condition(rg__buf *sql, const rg__mysql *c, const rg__column *col, const char *prefix,
                       const char *value) {
    const char *name = col->quoted;
    switch (col->kind) {
    case RG_STRING:
    case RG_TEXT:
    case RG_ENUM:
    case RG_SET:
        rg__buf_fmt(sql, "CAST(CONVERT(%s%s USING utf8mb4) AS BINARY)<=>CAST(%s AS BINARY)", prefix,
                    name, value);
        break;
    case RG_JSON:
    case RG_REFS:
        if (rg__mysql_flavour(c) == RG__MYSQL)
            rg__buf_fmt(sql, "%s%s<=>CAST(%s AS JSON)", prefix, name, value);
        else
            rg__buf_fmt(sql,
                        "CAST(COALESCE(JSON_COMPACT(%s%s),%s%s) AS BINARY)<=>"
                        "CAST(JSON_COMPACT(%s) AS BINARY)",
                        prefix, name, prefix, name, value);
        break;
    case RG_DECIMAL:
        rg__buf_fmt(sql, "%s%s<=>CAST(%s AS DECIMAL(%u,%u))", prefix, name, value, col->precision,
                    col->scale);
        break;
    case RG_DATE:
        rg__buf_fmt(sql, "%s%s<=>CAST(%s AS DATE)", prefix, name, value);
        break;
    case RG_DATETIME:
        rg__buf_fmt(sql, "%s%s<=>CAST(%s AS DATETIME(6))", prefix, name, value);
        break;
    case RG_TIME:
        rg__buf_fmt(sql, "%s%s<=>CAST(%s AS TIME(6))", prefix, name, value);
        break;
    default:
        rg__buf_fmt(sql, "%s%s<=>%s", prefix, name, value);
    }
}

/* ---- the statement ---- */

/* Expressions come first: what they read is the row as it was. */
static void add_assignments(rg__buf *sql, const rg__cas *cas) {
    const rg_type *t = cas->t;
    const char *separator = " SET ";
    for (size_t i = 0; i < cas->n_exprs; i++, separator = ",")
        rg__buf_fmt(sql, "%s%s=%.*s", separator, t->columns[cas->exprs[i].column].quoted,
                    (int)cas->exprs[i].sql.len, cas->exprs[i].sql.p);
    for (uint32_t i = 0; cas->mask && i < t->n_columns; i++) {
        if (!cas->mask[i]) continue;
        rg__buf_fmt(sql, "%s%s=?", separator, t->columns[i].quoted);
        separator = ",";
    }
    const char *version = t->columns[t->version_column].quoted;
    if (cas->bump) rg__buf_fmt(sql, "%s%s=%s+1", separator, version, version);
}

void rg__cas_text(rg__buf *sql, const rg__mysql *c, const rg__cas *cas) {
    const rg_type *t = cas->t;
    rg__buf_fmt(sql, cas->write == RG_DELETE ? "DELETE FROM %s" : "UPDATE %s", t->quoted);
    if (cas->write == RG_UPDATE) add_assignments(sql, cas);
    rg__buf_fmt(sql, " WHERE %s=?", t->columns[0].quoted);
    for (uint32_t i = 0; cas->expect && i < t->n_columns; i++) {
        if (!cas->expect[i]) continue;
        rg__buf_str(sql, " AND ");
        rg__cas_condition(sql, c, &t->columns[i], "", "?");
    }
    for (size_t i = 0; i < cas->n_exprs; i++)
        if (cas->exprs[i].guard.len)
            rg__buf_fmt(sql, " AND (%.*s)", (int)cas->exprs[i].guard.len, cas->exprs[i].guard.p);
}

/* ---- keys ---- */

rg__buf *rg__cas_key(rg__mysql *c, const rg__cas *cas, char what) {
    uint32_t flags = (uint32_t)cas->brief << 1 | cas->bump;
    rg__buf *key = rg__stmt_key(c, cas->t, what, (uint32_t)cas->write << 2 | flags, NULL);
    uint32_t n = cas->t->n_columns;
    char *to = rg__buf_reserve(key, n);
    for (uint32_t i = 0; to && i < n; i++)
        to[i] = (char)('0' + (cas->mask && cas->mask[i]) + 2 * (cas->expect && cas->expect[i]));
    if (to) key->len += n;
    for (size_t i = 0; i < cas->n_exprs; i++) {
        rg__buf_le32(key, cas->exprs[i].column);
        rg__buf_add(key, cas->exprs[i].sql.p, cas->exprs[i].sql.len);
        rg__buf_char(key, '\0');
        rg__buf_add(key, cas->exprs[i].guard.p, cas->exprs[i].guard.len);
        rg__buf_char(key, '\0');
    }
    return key;
}

/* ---- parameters ---- */

/* What is kept with such a statement. */
typedef struct kept {
    rg__buf scratch;
    rg__bound bounds[];
} kept;

static void free_kept(void *p) {
    kept *k = p;
    rg__buf_deinit(&k->scratch);
    rg__free(k);
}

typedef struct binding {
    rg__stmt *s;
    kept *k;
    unsigned at;
    size_t bytes;
} binding;

/* The next column from i on that is in the set; n_columns: none. */
static uint32_t next_column(const rg_type *t, const uint8_t *set, uint32_t i) {
    const uint8_t *at = set && i < t->n_columns ? memchr(set + i, 1, t->n_columns - i) : NULL;
    return at ? (uint32_t)(at - set) : t->n_columns;
}

static size_t room_of(const rg_type *t, const uint8_t *columns, const void *row) {
    size_t room = 0;
    for (uint32_t i = next_column(t, columns, 0); i < t->n_columns; i = next_column(t, columns, i + 1)) {
        if (!rg__param_is_made(&t->columns[i])) continue;
        rg__value v = rg__row_value(t, row, i);
        room += rg__param_scratch(&t->columns[i], &v);
    }
    return room;
}

static void bind_columns(binding *b, const rg_type *t, const uint8_t *columns, const void *row) {
    for (uint32_t i = next_column(t, columns, 0); i < t->n_columns; i = next_column(t, columns, i + 1)) {
        rg__value v = rg__row_value(t, row, i);
        b->bytes += 3 + rg__param_bind(&t->columns[i], &v, &b->s->params[b->at],
                                       &b->k->bounds[b->at], &b->k->scratch);
        b->at++;
    }
}

static void bind_params(binding *b, const rg__param *params, size_t n) {
    for (size_t i = 0; i < n; i++, b->at++)
        b->bytes +=
            3 + rg__param_bind_value(&params[i], &b->s->params[b->at], &b->k->bounds[b->at]);
}

static size_t count_params(const rg__cas *cas) {
    const rg_type *t = cas->t;
    size_t n = 1;
    for (uint32_t i = next_column(t, cas->mask, 0); i < t->n_columns; i = next_column(t, cas->mask, i + 1)) n++;
    for (uint32_t i = next_column(t, cas->expect, 0); i < t->n_columns; i = next_column(t, cas->expect, i + 1)) n++;
    for (size_t i = 0; i < cas->n_exprs; i++) n += cas->exprs[i].n_sql + cas->exprs[i].n_guard;
    return n;
}

/* All room at once, because binds point into it. */
static int bind(rg__stmt *s, const rg__cas *cas, uint64_t id, const void *row, const void *expected,
                size_t *bytes, rg_err *err) {
    if (s->n_params != count_params(cas))
        return rg__fail(err, RG_EINVALID, "%s: another number of ? than of values", cas->t->name);
    if (!s->extra) {
        s->extra = rg__calloc(1, sizeof(kept) + s->n_params * sizeof(rg__bound));
        s->extra_free = free_kept;
    }
    binding b = {.s = s, .k = s->extra, .bytes = 64};
    if (!b.k) return rg__fail_memory(err);
    size_t room = room_of(cas->t, cas->mask, row) + room_of(cas->t, cas->expect, expected);
    rg__buf_clear(&b.k->scratch);
    if (room && !rg__buf_reserve(&b.k->scratch, room)) return rg__fail_memory(err);
    for (size_t i = 0; i < cas->n_exprs; i++)
        bind_params(&b, cas->exprs[i].params, cas->exprs[i].n_sql);
    bind_columns(&b, cas->t, cas->mask, row);
    b.k->bounds[b.at].u = id;
    rg__param_bind_u64(&s->params[b.at], &b.k->bounds[b.at].u);
    s->nulls[b.at++] = 0;
    bind_columns(&b, cas->t, cas->expect, expected);
    for (size_t i = 0; i < cas->n_exprs; i++)
        bind_params(&b, cas->exprs[i].params + cas->exprs[i].n_sql, cas->exprs[i].n_guard);
    s->params_bound = false;
    *bytes = b.bytes;
    return RG_OK;
}

/* ---- running ---- */

int rg__cas_prepare(rg__mysql *c, const rg__call *call, const rg__cas *cas, char what,
                    rg__cas_text_fn text, rg__stmt **out, rg_err *err) {
    const rg__buf *key = rg__cas_key(c, cas, what);
    if (key->failed) return rg__fail_memory(err);
    *out = rg__stmt_find(c, key->p, key->len);
    if (*out) return RG_OK;
    rg__buf sql = {0};
    text(&sql, c, cas);
    int code = sql.failed ? rg__fail_memory(err) : RG_OK;
    if (code == 0) code = rg__stmt_new(c, call, key->p, key->len, sql.p, sql.len, out, err);
    rg__buf_deinit(&sql);
    return code;
}

int rg__cas_one(rg__mysql *c, const rg__ctx *ctx, const rg__cas *cas, uint64_t id, const void *row,
                const void *expected, uint64_t *marks, rg_err *err) {
    bool delete = cas->write == RG_DELETE;
    rg__call call = {.ctx = ctx, .what = delete ? "deleting" : "updating", .write = true};
    rg__stmt *s = NULL;
    call.op = delete ? "DELETE" : "UPDATE";
    int code = rg__call_begin(c, &call, err);
    if (code) return code;
    code = rg__cas_prepare(c, &call, cas, 'c', rg__cas_text, &s, err);
    if (code == 0) code = bind(s, cas, id, row, expected, &call.bytes, err);
    if (code == 0) code = rg__call_fits(c, call.bytes, call.what, err);
    if (code == 0) code = rg__stmt_run(c, &call, s, err);
    if (code == 0) call.rows = (int64_t)mysql_stmt_affected_rows(s->st);
    if (code == 0) *marks = call.rows > 0;
    return rg__write_end(c, &call, code, cas->t,
                         s ? (rg__slice){s->sql, s->sql_len} : rg__slice_of(call.op), err);
}
