/* SPDX-License-Identifier: MIT */
/* Checks of users' SQL before it is sent, and its text for logs. */
#include "mysql/sql.h"

#include <strings.h>
#include "base/err.h"

/* ---- what would break a connection's state ---- */

/* A variable or name, without @@, scope and backticks. */
static rg__slice bare_name(rg__token t) {
    rg__slice s = {t.p, t.len};
    while (s.len && (*s.p == '@' || *s.p == '`'))
        s.p++, s.len--;
    while (s.len && s.p[s.len - 1] == '`')
        s.len--;
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] == '.') return (rg__slice){s.p + i + 1, s.len - i - 1};
    return s;
}

static bool begins(rg__slice s, const char *with) {
    size_t len = strlen(with);
    return s.len >= len && strncasecmp(s.p, with, len) == 0;
}

/* Names that the session is pinned to. NAMES and CHARACTER SET come as words of their own. */
static bool is_pinned(rg__token t) {
    static const char *const pinned[] = {"sql_mode",  "character_set_", "collation_",
                                         "time_zone", "autocommit",     "lc_messages"};
    if (rg__token_is(t, "NAMES") || rg__token_is(t, "CHARACTER") || rg__token_is(t, "CHARSET"))
        return true;
    if (t.kind != RG__T_WORD && t.kind != RG__T_IDENT && t.kind != RG__T_VARIABLE) return false;
    rg__slice name = bare_name(t);
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++)
        if (begins(name, pinned[i])) return true;
    return false;
}

static int check_set(const char *p, const char *end, rg_err *err) {
    for (rg__token t = rg__sql_token(&p, end); t.kind != RG__T_END && t.kind != RG__T_BAD;
         t = rg__sql_token(&p, end))
        if (is_pinned(t))
            return rg__fail(err, RG_EINVALID,
                            "SET %.*s is refused: the library relies on this setting",
                            (int)(t.len < 64 ? t.len : 64), t.p);
    return 0;
}

static int check_load(const char *p, const char *end, rg_err *err) {
    for (rg__token t = rg__sql_token(&p, end); t.kind == RG__T_WORD; t = rg__sql_token(&p, end))
        if (rg__token_is(t, "LOCAL"))
            return rg__fail(err, RG_EINVALID, "LOAD DATA LOCAL is refused");
    return 0;
}

int rg__sql_check_guarded(const char *sql, size_t len, rg_err *err) {
    const char *p = sql, *end = sql + len;
    rg__token t = rg__sql_token(&p, end);
    while (t.kind == RG__T_CODE_COMMENT)
        t = rg__sql_token(&p, end);
    if (rg__token_is(t, "SET")) return check_set(p, end, err);
    if (rg__token_is(t, "LOAD")) return check_load(p, end, err);
    if (rg__token_is(t, "USE"))
        return rg__fail(err, RG_EINVALID,
                        "USE is refused: a pool's connections stay in its database");
    rg__sql_kind kind = rg__sql_statement_kind(sql, len);
    if (kind == RG__SQL_TX)
        return rg__fail(err, RG_EINVALID,
                        "%.*s needs a connection borrowed for it; a session's transactions are begun "
                        "and ended by its own calls",
                        (int)t.len, t.p);
    if (kind == RG__SQL_DDL)
        return rg__fail(err, RG_EINVALID, "%.*s needs a connection borrowed for it", (int)t.len,
                        t.p);
    return 0;
}

/* ---- logs ---- */

void rg__sql_redact(const char *sql, size_t len, rg__buf *out) {
    const char *p = sql, *end = sql + len, *shown = sql;
    for (rg__token t = rg__sql_token(&p, end); t.kind != RG__T_END; t = rg__sql_token(&p, end)) {
        if (t.kind != RG__T_STRING && t.kind != RG__T_NUMBER && t.kind != RG__T_BAD) continue;
        rg__buf_add(out, shown, (size_t)(t.p - shown));
        rg__buf_char(out, '?');
        shown = t.p + t.len;
    }
    rg__buf_add(out, shown, (size_t)(end - shown));
}

/* ---- conditions ---- */

typedef struct scan {
    const char *p, *end;
    rg__where *out;
    int depth;
    bool after_dot;   /* t.order is a column */
    const char *tail; /* first top-level ORDER BY or LIMIT */
} scan;

static const char *const refused_words[] = {"GROUP", "HAVING",    "UNION", "EXCEPT", "INTERSECT",
                                            "INTO",  "PROCEDURE", "FOR",   "LOCK",   "SELECT"};

static int check_word(scan *s, rg__token t, rg_err *err) {
    bool limit = rg__token_is(t, "LIMIT");
    if (limit) s->out->has_limit = true;
    if ((limit || rg__token_is(t, "ORDER")) && !s->tail) s->tail = t.p;
    for (size_t i = 0; i < sizeof refused_words / sizeof *refused_words; i++)
        if (rg__token_is(t, refused_words[i]))
            return rg__fail(err, RG_EINVALID, "a condition cannot hold %s; use a query",
                            refused_words[i]);
    return 0;
}

static int check_sign(scan *s, char c, rg_err *err) {
    if (c == ';') return rg__fail(err, RG_EINVALID, "a condition cannot hold ';'");
    if (c == '(') s->depth++;
    if (c == ')' && --s->depth < 0) return rg__fail(err, RG_EINVALID, "a ')' without its '('");
    return 0;
}

static int check_token(scan *s, rg__token t, rg_err *err) {
    switch (t.kind) {
    case RG__T_BAD:
        return rg__fail(err, RG_EINVALID, "a quote or comment without its end");
    case RG__T_CODE_COMMENT:
        return rg__fail(err, RG_EINVALID, "a condition cannot hold /*! comments");
    case RG__T_SIGN:
        return check_sign(s, *t.p, err);
    case RG__T_WORD:
        return s->depth == 0 && !s->after_dot ? check_word(s, t, err) : 0;
    case RG__T_PARAM:
        s->out->n_params++;
        if (!s->tail) s->out->n_condition++;
        return 0;
    default:
        return 0;
    }
}

static int check_count(size_t placeholders, size_t values, rg_err *err) {
    if (placeholders == values) return 0;
    return rg__fail(err, RG_EINVALID, "%zu placeholder%s, %zu value%s", placeholders,
                    placeholders == 1 ? "" : "s", values, values == 1 ? "" : "s");
}

int rg__sql_check_where(const char *text, size_t len, size_t n_params, rg__where *out,
                        rg_err *err) {
    scan s = {.p = text, .end = text + len, .out = out};
    *out = (rg__where){.n_params = 0};
    for (rg__token t = rg__sql_token(&s.p, s.end); t.kind != RG__T_END;
         t = rg__sql_token(&s.p, s.end)) {
        int code = check_token(&s, t, err);
        if (code) return code;
        s.after_dot = t.kind == RG__T_SIGN && *t.p == '.';
    }
    if (s.depth > 0) return rg__fail(err, RG_EINVALID, "a '(' without its ')'");
    const char *cut = s.tail ? s.tail : s.end, *first = text;
    rg__token head = rg__sql_token(&first, cut);
    out->condition = (rg__slice){text, head.kind == RG__T_END ? 0 : (size_t)(cut - text)};
    out->tail = (rg__slice){cut, (size_t)(s.end - cut)};
    return check_count(out->n_params, n_params, err);
}
