/* SPDX-License-Identifier: MIT */
/* Defaults: what a column's is, what a server shows of one, and when the two are the same. */
#include "schema/ddl_type.h"

#include <regolith/err.h>
#include <strings.h>

/* ---- of an entity's column ---- */

/* What an absent value becomes when the column says nothing of it; NULL: no default in SQL. */
static const char *implied_text(const rg__column *c) {
    switch (c->kind) {
    case RG_STRING:
    case RG_BINARY:
    case RG_SET: return "";
    case RG_ENUM: return c->n_values ? c->values[0].p : NULL;
    case RG_DATE: return "1970-01-01";
    case RG_DATETIME: return "1970-01-01 00:00:00";
    case RG_TIME: return "00:00:00";
    case RG_REF: return c->foreign_key ? NULL : "0"; /* no row has the id 0 */
    default: return "0";
    }
}

static bool may_have_default(const rg__column *c) {
    return c->kind != RG_TEXT && c->kind != RG_BLOB && c->kind != RG_JSON && c->kind != RG_REFS;
}

static bool is_exact_number(int kind) {
    return (kind >= RG_I8 && kind <= RG_U64) || kind == RG_DECIMAL || kind == RG_REF;
}

/* What an entity takes as text may be more than what a server does: words, exponents, ISO 8601. */
static void write_wanted(rg__buf *out, const rg__column *c, const char *text) {
    bool is_time = c->kind == RG_TIME;
    if (c->kind == RG_BOOL && strcasecmp(text, "true") == 0) rg__buf_char(out, '1');
    else if (c->kind == RG_BOOL && strcasecmp(text, "false") == 0) rg__buf_char(out, '0');
    else if (is_exact_number(c->kind)) rg__sql_write_number(out, text, c->scale);
    else if (is_time || c->kind == RG_DATETIME) rg__sql_write_moment(out, text, is_time);
    else rg__buf_str(out, text);
}

void rg__sql_default_wanted(const rg_type *t, uint32_t column, rg__sql_default *out) {
    const rg__column *c = &t->columns[column];
    *out = (rg__sql_default){0};
    if (column == 0 || (c->flags & RG_COL_REQUIRED) || !may_have_default(c)) return;
    const char *text = c->def;
    if (!text && !(c->flags & RG_COL_NULLABLE)) text = implied_text(c);
    if (!text) return;
    out->present = true;
    write_wanted(&out->text, c, text);
}

/* ---- of a live column ---- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void add_hex(rg__buf *out, const char *p) {
    for (; hex_digit(p[0]) >= 0 && hex_digit(p[1]) >= 0; p += 2)
        rg__buf_char(out, (char)(hex_digit(p[0]) << 4 | hex_digit(p[1])));
}

/* x'6162' and 0x6162, the literals of bytes. */
static bool parse_hex(const char *sql, rg__buf *out) {
    bool quoted = (sql[0] | 0x20) == 'x' && sql[1] == '\'';
    bool prefixed = sql[0] == '0' && sql[1] == 'x';
    if (quoted || prefixed) add_hex(out, sql + 2);
    return quoted || prefixed;
}

static bool looks_like_number(const char *s) {
    s += *s == '-' || *s == '+';
    return (*s >= '0' && *s <= '9') || (*s == '.' && s[1] >= '0' && s[1] <= '9');
}

/* A literal in quotes that ends where the text does. */
static bool parse_quoted(const char *sql, rg__buf *out) {
    size_t at = 0;
    return rg__sql_unquote(sql, &at, out) && sql[at] == '\0';
}

static bool parse_literal(const char *sql, const rg__sql_type *type, rg__buf *out) {
    if (parse_quoted(sql, out)) return true;
    rg__buf_clear(out);
    if (rg__sql_is_bytes(type) && parse_hex(sql, out)) return true;
    if (!rg__sql_is_number(type) || !looks_like_number(sql)) return false;
    rg__buf_str(out, sql);
    return true;
}

void rg__sql_default_parse(const char *sql, const rg__sql_type *type, rg__sql_default *out) {
    *out = (rg__sql_default){0};
    if (!sql || strcasecmp(sql, "NULL") == 0) return;
    out->present = true;
    out->expression = !parse_literal(sql, type, &out->text);
    if (out->expression) rg__buf_str(&out->text, sql);
}

void rg__sql_default_deinit(rg__sql_default *d) {
    rg__buf_deinit(&d->text);
    *d = (rg__sql_default){0};
}

/* ---- comparing and writing ---- */

static void add_canonical(const rg__sql_type *type, const rg__sql_default *d, bool shown,
                          rg__buf *out) {
    rg__buf text = {0};
    if (shown) rg__sql_text_shown(&text, d->text.p, d->text.len);
    else rg__buf_add(&text, d->text.p, d->text.len);
    rg__buf_cstr(&text);
    if (d->expression || rg__sql_is_bytes(type)) rg__buf_add(out, text.p, text.len);
    else if (!text.failed) rg__sql_write_canonical(out, type, text.p);
    out->failed |= text.failed;
    rg__buf_deinit(&text);
}

/* shown: the wanted one as a server would show it. */
static int same_value(const rg__sql_type *type, const rg__sql_default *live,
                      const rg__sql_default *wanted, bool shown) {
    rg__buf a = {0}, b = {0};
    add_canonical(type, live, false, &a);
    add_canonical(type, wanted, shown, &b);
    bool failed = a.failed || b.failed;
    int equal = a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
    rg__buf_deinit(&a);
    rg__buf_deinit(&b);
    return failed ? RG_ENO_MEMORY : equal;
}

int rg__sql_default_equal(const rg__sql_type *type, const rg__sql_default *live,
                          const rg__sql_default *wanted) {
    if (live->text.failed || wanted->text.failed) return RG_ENO_MEMORY;
    if (live->present != wanted->present || live->expression != wanted->expression) return 0;
    if (!live->present) return 1;
    int equal = same_value(type, live, wanted, false);
    return equal ? equal : same_value(type, live, wanted, true);
}

static void write_hex(rg__buf *out, const rg__buf *bytes) {
    rg__buf_str(out, "X'");
    for (size_t i = 0; i < bytes->len; i++) rg__buf_fmt(out, "%02X", (unsigned char)bytes->p[i]);
    rg__buf_char(out, '\'');
}

static void write_quoted(rg__buf *out, const rg__buf *text) {
    rg__buf_char(out, '\'');
    for (size_t i = 0; i < text->len; i++) {
        char c = text->p[i];
        if (c == '\'' || c == '\\') rg__buf_char(out, c);
        rg__buf_char(out, c);
    }
    rg__buf_char(out, '\'');
}

void rg__sql_default_write(const rg__sql_default *d, const rg__sql_type *type, rg__buf *out) {
    out->failed |= d->text.failed;
    if (!d->present) rg__buf_str(out, "NULL");
    else if (d->expression) rg__buf_add(out, d->text.p, d->text.len);
    else if (rg__sql_is_bytes(type) && d->text.len) write_hex(out, &d->text);
    else write_quoted(out, &d->text);
}
