/* SPDX-License-Identifier: MIT */
/* Tokens of SQL text, as the servers cut them, and what follows from the first words. */
#include "mysql/sql.h"

#include <strings.h>

/* ---- characters ---- */

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}
static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' ||
           c == '$' || (unsigned char)c >= 0x80;
}

/* ---- comments ---- */

static const char *skip_line(const char *p, const char *end) {
    while (p < end && *p != '\n')
        p++;
    return p;
}

static bool starts(const char *p, const char *end, const char *with) {
    size_t len = strlen(with);
    return (size_t)(end - p) >= len && memcmp(p, with, len) == 0;
}

/* Two dashes begin a comment only before a space or the end. */
static bool at_dashes(const char *p, const char *end) {
    return starts(p, end, "--") && (p + 2 == end || (unsigned char)p[2] <= ' ');
}

static bool at_code_comment(const char *p, const char *end) {
    return starts(p, end, "/*!") || starts(p, end, "/*M!");
}

/* Past spaces and comments; NULL when a comment does not end. */
static const char *skip_blank(const char *p, const char *end) {
    while (p < end) {
        if (is_space(*p)) {
            p++;
        } else if (*p == '#' || at_dashes(p, end)) {
            p = skip_line(p, end);
        } else if (starts(p, end, "/*") && !at_code_comment(p, end)) {
            p = memmem(p + 2, (size_t)(end - p - 2), "*/", 2);
            if (!p) return NULL;
            p += 2;
        } else {
            break;
        }
    }
    return p;
}

/* ---- tokens ---- */

/* Behind the closing quote, NULL when there is none. Doubled quotes and, but in names, backslashes
 * keep it open. */
static const char *skip_quoted(const char *p, const char *end) {
    char quote = *p++;
    for (; p < end; p++) {
        if (*p == '\\' && quote != '`')
            p++;
        else if (*p == quote && (p + 1 == end || p[1] != quote))
            return p + 1;
        else if (*p == quote)
            p++;
    }
    return NULL;
}

static const char *skip_names(const char *p, const char *end) {
    while (p < end && is_name(*p))
        p++;
    return p;
}

/* 12, 0x1F, 1.5e-10; a name that begins with digits is taken for a number, too. */
static const char *skip_number(const char *p, const char *end) {
    while (p < end && (is_name(*p) || *p == '.')) {
        bool exponent = *p == 'e' || *p == 'E';
        p++;
        if (exponent && p + 1 < end && (*p == '-' || *p == '+') && is_digit(p[1])) p++;
    }
    return p;
}

static const char *skip_variable(const char *p, const char *end) {
    while (p < end && *p == '@')
        p++;
    if (p < end && (*p == '`' || *p == '\'' || *p == '"')) return skip_quoted(p, end);
    while (p < end && (is_name(*p) || *p == '.'))
        p++;
    return p;
}

static const char *skip_code_start(const char *p, const char *end) {
    p += p[2] == '!' ? 3 : 4;
    while (p < end && is_digit(*p))
        p++;
    return p;
}

static rg__token_kind kind_at(const char *p, const char *end) {
    if (at_code_comment(p, end)) return RG__T_CODE_COMMENT;
    if (*p == '\'' || *p == '"') return RG__T_STRING;
    if (*p == '`') return RG__T_IDENT;
    if (*p == '@') return RG__T_VARIABLE;
    if (*p == '?') return RG__T_PARAM;
    if (is_digit(*p) || (*p == '.' && p + 1 < end && is_digit(p[1]))) return RG__T_NUMBER;
    return is_name(*p) ? RG__T_WORD : RG__T_SIGN;
}

static const char *skip_token(rg__token_kind kind, const char *p, const char *end) {
    switch (kind) {
    case RG__T_STRING:
    case RG__T_IDENT:
        return skip_quoted(p, end);
    case RG__T_VARIABLE:
        return skip_variable(p, end);
    case RG__T_NUMBER:
        return skip_number(p, end);
    case RG__T_WORD:
        return skip_names(p, end);
    case RG__T_CODE_COMMENT:
        return skip_code_start(p, end);
    default:
        return p + 1;
    }
}

rg__token rg__sql_token(const char **p, const char *end) {
    const char *start = skip_blank(*p, end);
    rg__token t = {.kind = RG__T_BAD, .p = *p, .len = (size_t)(end - *p)};
    *p = end;
    if (!start) return t;
    if (start == end) return (rg__token){.kind = RG__T_END, .p = end};
    rg__token_kind kind = kind_at(start, end);
    const char *after = skip_token(kind, start, end);
    if (!after) return t;
    *p = after;
    return (rg__token){.kind = kind, .p = start, .len = (size_t)(after - start)};
}

bool rg__token_is(rg__token t, const char *word) {
    return t.kind == RG__T_WORD && t.len == strlen(word) && strncasecmp(t.p, word, t.len) == 0;
}

/* ---- kinds of statements ---- */

/* clang-format off */
static const struct { const char *word; rg__sql_kind kind; } first_words[] = {
    {"SELECT", RG__SQL_READ}, {"SHOW", RG__SQL_READ}, {"EXPLAIN", RG__SQL_READ},
    {"DESCRIBE", RG__SQL_READ}, {"DESC", RG__SQL_READ}, {"VALUES", RG__SQL_READ},
    {"TABLE", RG__SQL_READ}, {"HELP", RG__SQL_READ}, {"CHECKSUM", RG__SQL_READ},
    {"INSERT", RG__SQL_WRITE}, {"UPDATE", RG__SQL_WRITE}, {"DELETE", RG__SQL_WRITE},
    {"REPLACE", RG__SQL_WRITE}, {"LOAD", RG__SQL_WRITE}, {"IMPORT", RG__SQL_DDL},
    {"CREATE", RG__SQL_DDL}, {"ALTER", RG__SQL_DDL}, {"DROP", RG__SQL_DDL},
    {"TRUNCATE", RG__SQL_DDL}, {"RENAME", RG__SQL_DDL}, {"GRANT", RG__SQL_DDL},
    {"REVOKE", RG__SQL_DDL}, {"ANALYZE", RG__SQL_DDL}, {"OPTIMIZE", RG__SQL_DDL},
    {"REPAIR", RG__SQL_DDL}, {"CHECK", RG__SQL_DDL}, {"FLUSH", RG__SQL_DDL}, {"CACHE", RG__SQL_DDL},
    {"INSTALL", RG__SQL_DDL}, {"UNINSTALL", RG__SQL_DDL}, {"RESET", RG__SQL_DDL},
    {"BEGIN", RG__SQL_TX}, {"START", RG__SQL_TX}, {"COMMIT", RG__SQL_TX}, {"ROLLBACK", RG__SQL_TX},
    {"SAVEPOINT", RG__SQL_TX}, {"RELEASE", RG__SQL_TX}, {"XA", RG__SQL_TX}, {"LOCK", RG__SQL_TX},
    {"UNLOCK", RG__SQL_TX}, {"SET", RG__SQL_SET}, {"CALL", RG__SQL_CALL},
};
/* clang-format on */

static rg__sql_kind kind_of_word(rg__token t) {
    for (size_t i = 0; i < sizeof first_words / sizeof *first_words; i++)
        if (rg__token_is(t, first_words[i].word)) return first_words[i].kind;
    return RG__SQL_OTHER;
}

/* WITH a AS (...), b AS (...) SELECT | UPDATE | DELETE: the verb is outside of all parentheses. */
static rg__sql_kind kind_after_with(const char *p, const char *end) {
    int depth = 0;
    for (rg__token t = rg__sql_token(&p, end); t.kind != RG__T_END; t = rg__sql_token(&p, end)) {
        if (t.kind == RG__T_BAD) break;
        if (t.kind == RG__T_SIGN && *t.p == '(') depth++;
        if (t.kind == RG__T_SIGN && *t.p == ')') depth--;
        rg__sql_kind kind = depth == 0 ? kind_of_word(t) : RG__SQL_OTHER;
        if (kind == RG__SQL_READ || kind == RG__SQL_WRITE) return kind;
    }
    return RG__SQL_OTHER;
}

rg__sql_kind rg__sql_statement_kind(const char *sql, size_t len) {
    const char *p = sql, *end = sql + len;
    rg__token t = rg__sql_token(&p, end);
    while (t.kind == RG__T_CODE_COMMENT || (t.kind == RG__T_SIGN && *t.p == '('))
        t = rg__sql_token(&p, end);
    if (rg__token_is(t, "WITH")) return kind_after_with(p, end);
    rg__token next = rg__sql_token(&p, end);
    /* MariaDB: BEGIN NOT ATOMIC is a block, ANALYZE SELECT explains, START SLAVE is no transaction.
     */
    if (rg__token_is(t, "BEGIN") && rg__token_is(next, "NOT")) return RG__SQL_OTHER;
    if (rg__token_is(t, "START") && !rg__token_is(next, "TRANSACTION")) return RG__SQL_OTHER;
    return kind_of_word(t);
}
