/* SPDX-License-Identifier: MIT */
/* Dead letters for a person to read: the list, and one with its values. */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/letters.h"

enum { LIST_DEFAULT = 100, COLUMNS = 11, BINARY_SHOWN = 64 };

static const char *const columns[COLUMNS] = {"number", "id", "entity", "entity_id", "operation",
                                             "errno", "sqlstate", "error", "tries", "at", "state"};

#define SELECT_COLUMNS                                                                             \
    "SELECT `number`,CONCAT(`id_ms`,'-',`id_seq`) AS `id`,`entity`,`entity_id`,`operation`,"      \
    "`errno`,`sqlstate`,`error`,`tries`,`at`,`state`"

/* A missing table is an empty one. */
static int select_letters(rg__mysql *c, const rg__ctx *ctx, rg__buf *sql, rg__result **out,
                          rg_err *err) {
    rg_err fault;
    rg__err_clear(&fault);
    int rc = rg__queue_query(c, ctx, sql, out, &fault);
    if (rc < 0 && rg__is_missing_table(&fault)) {
        *out = rg__result_new(columns, COLUMNS);
        return *out ? RG_OK : rg__fail_memory(err);
    }
    if (rc < 0 && err) *err = fault;
    return rc;
}

/* ---- listing ---- */

int rg__dead_list(const rg__queue *q, const rg__ctx *ctx, uint32_t limit, rg__result **out,
                  rg_err *err) {
    rg__mysql *c = NULL;
    rg__buf sql = {0};
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rg__buf_str(&sql, SELECT_COLUMNS);
    rg__letters_from(&sql, q);
    rg__buf_fmt(&sql, " ORDER BY `number` LIMIT %u", limit ? limit : LIST_DEFAULT);
    rc = select_letters(c, ctx, &sql, out, err);
    rg__buf_deinit(&sql);
    rg__mysql_release(c);
    return rc;
}

/* ---- showing ---- */

static void add_hex(rg__buf *out, rg__slice s) {
    static const char hex[] = "0123456789abcdef";
    rg__buf_str(out, "0x");
    for (size_t i = 0; i < s.len && i < BINARY_SHOWN; i++) {
        rg__buf_char(out, hex[(uint8_t)s.p[i] >> 4]);
        rg__buf_char(out, hex[(uint8_t)s.p[i] & 15]);
    }
    if (s.len > BINARY_SHOWN) rg__buf_fmt(out, "... (%zu bytes)", s.len);
}

static void add_text(rg__buf *out, const rg_type *t, const uint8_t *row, uint32_t col) {
    int n = rg_row_text(t, row, col, NULL, 0);
    char *to = n > 0 ? rg__buf_reserve(out, (size_t)n) : NULL;
    if (to && rg_row_text(t, row, col, to, (size_t)n) == n) out->len += (size_t)n;
}

static int show_column(rg__result *r, const rg_type *t, const uint8_t *row, uint32_t col) {
    const rg__column *c = &t->columns[col];
    rg__value v = rg__row_value(t, row, col);
    rg__buf text = {0};
    rg__buf_cstr(&text); /* an empty value is not NULL */
    if (c->flags & RG_COL_SENSITIVE) rg__buf_str(&text, "(hidden)");
    else if (!v.is_null && (c->kind == RG_BINARY || c->kind == RG_BLOB)) add_hex(&text, v.s);
    else if (!v.is_null) add_text(&text, t, row, col);
    bool null = v.is_null && !(c->flags & RG_COL_SENSITIVE);
    rg__slice cells[] = {rg__slice_of(c->name), {null ? NULL : text.p, text.len}};
    int rc = text.failed ? RG_ENO_MEMORY : rg__result_add(r, cells);
    rg__buf_deinit(&text);
    return rc;
}

static int show_values(rg__result *r, const rg__qdecoded *op) {
    int rc = RG_OK;
    if (!op->row) return RG_OK;
    for (uint32_t i = 0; rc >= 0 && i < op->type->n_columns; i++)
        if (i == 0 || !op->mask || op->mask[i]) rc = show_column(r, op->type, op->row->data, i);
    return rc;
}

static int show_current(rg__result *r, const rg__qdecoded *op) {
    int rc = RG_OK;
    for (uint32_t i = 0; rc >= 0 && op->current && i < op->type->n_columns; i++)
        rc = show_column(r, op->type, op->current->data, i);
    return rc;
}

/* The values of all operations of a letter, as far as they can be read here; then the rows that were
 * met instead. */
static int show_payload(const rg__queue *q, rg__slice bytes, rg__result **out, rg_err *err) {
    static const char *const names[] = {"column", "value"};
    rg__payload p;
    int rc = RG_OK;
    *out = rg__result_new(names, 2);
    if (*out) (*out)->next = rg__result_new(names, 2);
    if (!*out || !(*out)->next) return rg__fail_memory(err);
    if (rg__payload_decode(q->schema, bytes, &p, NULL) < 0) return RG_OK;
    for (size_t i = 0; rc >= 0 && i < p.n; i++) rc = show_values(*out, &p.ops[i]);
    for (size_t i = 0; rc >= 0 && i < p.n; i++) rc = show_current((*out)->next, &p.ops[i]);
    rg__payload_deinit(&p);
    return rc < 0 ? rg__fail_memory(err) : rc;
}

/* Only the row of the letter's columns, without the payload that was selected behind them. */
static int first_columns(const rg__result *from, rg__result **out, rg_err *err) {
    *out = rg__result_new(columns, COLUMNS);
    if (!*out || rg__result_add(*out, from->cells) < 0) return rg__fail_memory(err);
    memcpy((*out)->kinds, from->kinds, COLUMNS * sizeof *from->kinds);
    return RG_OK;
}

int rg__letter_missing(uint64_t number, rg_err *err) {
    return rg__fail_field(err, "number", "there is no dead letter %llu",
                          (unsigned long long)number);
}

static int show(const rg__queue *q, rg__mysql *c, const rg__ctx *ctx, uint64_t number,
                rg__result **out, rg_err *err) {
    rg__buf sql = {0};
    rg__result *r = NULL;
    rg__buf_str(&sql, SELECT_COLUMNS ",`payload`");
    rg__letters_from(&sql, q);
    rg__buf_fmt(&sql, " AND `number`=%llu", (unsigned long long)number);
    int rc = select_letters(c, ctx, &sql, &r, err);
    rg__buf_deinit(&sql);
    if (rc >= 0 && r->n_rows == 0) rc = rg__letter_missing(number, err);
    if (rc >= 0) rc = first_columns(r, out, err);
    if (rc >= 0) rc = show_payload(q, r->cells[COLUMNS], &(*out)->next, err);
    rg__result_free(r);
    return rc;
}

int rg__dead_show(const rg__queue *q, const rg__ctx *ctx, uint64_t number, rg__result **out,
                  rg_err *err) {
    rg__mysql *c = NULL;
    *out = NULL;
    int rc = rg__mysql_acquire(q->mysql, ctx, &c, err);
    if (rc < 0) return rc;
    rc = show(q, c, ctx, number, out, err);
    rg__mysql_release(c);
    if (rc >= 0) return rc;
    rg__result_free(*out);
    *out = NULL;
    return rc;
}
