/* SPDX-License-Identifier: MIT */
/* SQL types: read into one form however a server spells them, and compared. */
#include "schema/ddl_type.h"

#include <regolith/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* ---- what is known of base types ---- */

typedef enum growth {
    GROWS_NOT = 0,
    GROWS_RANK,   /* to the larger types of its family */
    GROWS_LENGTH, /* varchar, varbinary, decimals of a second */
    GROWS_PARTS,  /* digits before and after the point */
    GROWS_VALUES  /* values added at the end */
} growth;

typedef struct base_type {
    const char *name;
    growth growth;
    char family;  /* GROWS_RANK: types that hold the same kind of value */
    uint8_t rank;
    bool text;    /* has a collation */
    bool sized;   /* its length means something; the rest show display widths at most */
} base_type;

/* clang-format off */
static const base_type bases[] = {
    {"bool",       GROWS_RANK,   'i', 0, false, false},
    {"tinyint",    GROWS_RANK,   'i', 1, false, false},
    {"smallint",   GROWS_RANK,   'i', 2, false, false},
    {"mediumint",  GROWS_RANK,   'i', 3, false, false},
    {"int",        GROWS_RANK,   'i', 4, false, false},
    {"bigint",     GROWS_RANK,   'i', 5, false, false},
    {"decimal",    GROWS_PARTS,  0,   0, false, true},
    {"float",      GROWS_NOT,    0,   0, false, true},
    {"double",     GROWS_NOT,    0,   0, false, true},
    {"char",       GROWS_LENGTH, 0,   0, true,  true},
    {"varchar",    GROWS_LENGTH, 0,   0, true,  true},
    {"tinytext",   GROWS_RANK,   't', 1, true,  false},
    {"text",       GROWS_RANK,   't', 2, true,  false},
    {"mediumtext", GROWS_RANK,   't', 3, true,  false},
    {"longtext",   GROWS_RANK,   't', 4, true,  false},
    {"binary",     GROWS_NOT,    0,   0, false, true},
    {"varbinary",  GROWS_LENGTH, 0,   0, false, true},
    {"tinyblob",   GROWS_RANK,   'b', 1, false, false},
    {"blob",       GROWS_RANK,   'b', 2, false, false},
    {"mediumblob", GROWS_RANK,   'b', 3, false, false},
    {"longblob",   GROWS_RANK,   'b', 4, false, false},
    {"enum",       GROWS_VALUES, 0,   0, true,  false},
    {"set",        GROWS_VALUES, 0,   0, true,  false},
    {"date",       GROWS_NOT,    0,   0, false, false},
    {"datetime",   GROWS_LENGTH, 0,   0, false, true},
    {"timestamp",  GROWS_LENGTH, 0,   0, false, true},
    {"time",       GROWS_LENGTH, 0,   0, false, true},
    {"json",       GROWS_NOT,    0,   0, false, false},
};
/* Of a type that is not known, everything counts. */
static const base_type unknown = {"", GROWS_NOT, 0, 0, true, true};

static const struct { const char *alias, *name; } aliases[] = {
    {"boolean", "bool"}, {"integer", "int"}, {"numeric", "decimal"}, {"dec", "decimal"},
    {"fixed", "decimal"}, {"real", "double"},
};
/* clang-format on */

#define N(array) (sizeof(array) / sizeof *(array))

static const base_type *base_of(const char *name) {
    for (size_t i = 0; i < N(bases); i++)
        if (strcmp(bases[i].name, name) == 0) return &bases[i];
    return &unknown;
}

/* ---- reading ---- */

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void skip_spaces(const char *s, size_t *at) {
    while (s[*at] == ' ') (*at)++;
}

/* The next word in lower case, cut to cap; "" when there is none. */
static void read_word(const char *s, size_t *at, char *out, size_t cap) {
    size_t n = 0;
    skip_spaces(s, at);
    for (; is_word(s[*at]); (*at)++) {
        char c = s[*at];
        if (n + 1 < cap) out[n++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    out[n] = '\0';
}

static void resolve_alias(char *base, size_t cap) {
    for (size_t i = 0; i < N(aliases); i++)
        if (strcmp(aliases[i].alias, base) == 0) strncpy(base, aliases[i].name, cap - 1);
}

static char escaped(char c) {
    switch (c) {
    case '0': return '\0';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'b': return '\b';
    case 'Z': return 26;
    default: return c;
    }
}

bool rg__sql_unquote(const char *sql, size_t *at, rg__buf *out) {
    if (sql[*at] != '\'') return false;
    for (size_t i = *at + 1; sql[i]; i++) {
        if (sql[i] == '\\' && sql[i + 1]) {
            rg__buf_char(out, escaped(sql[++i]));
        } else if (sql[i] != '\'') {
            rg__buf_char(out, sql[i]);
        } else if (sql[i + 1] == '\'') {
            rg__buf_char(out, sql[++i]);
        } else {
            *at = i + 1;
            return true;
        }
    }
    return false;
}

static bool add_value(rg__sql_type *t, const rg__buf *plain) {
    rg__buf shown = {0};
    rg__sql_text_shown(&shown, plain->p, plain->len);
    rg__buf_le32(&t->values, (uint32_t)shown.len);
    rg__buf_add(&t->values, shown.p, shown.len);
    bool ok = !plain->failed && !shown.failed && !t->values.failed;
    rg__buf_deinit(&shown);
    return ok;
}

/* Values in quotes up to the closing parenthesis; what does not look so ends the list. */
static bool read_values(rg__sql_type *t, const char *s, size_t *at) {
    bool ok = true;
    while (ok && s[*at] == '\'') {
        rg__buf plain = {0};
        if (!rg__sql_unquote(s, at, &plain)) *at += strlen(s + *at);
        ok = add_value(t, &plain);
        rg__buf_deinit(&plain);
        while (s[*at] == ',' || s[*at] == ' ') (*at)++;
    }
    return ok;
}

static uint32_t read_number(const char *s, size_t *at) {
    char *end;
    unsigned long v = strtoul(s + *at, &end, 10);
    *at = (size_t)(end - s);
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

/* "(80)", "(12,2)" or "('a','b')". */
static bool read_parentheses(rg__sql_type *t, const char *s, size_t *at) {
    bool ok = true;
    skip_spaces(s, at);
    if (s[*at] != '(') return true;
    (*at)++;
    if (s[*at] == '\'') ok = read_values(t, s, at);
    else t->length = read_number(s, at);
    skip_spaces(s, at);
    if (s[*at] == ',') {
        (*at)++;
        t->scale = read_number(s, at);
    }
    if (s[*at] == ')') (*at)++;
    return ok;
}

/* "unsigned zerofill", "CHARACTER SET x COLLATE y"; stops at anything else, as at a comment. */
static void read_attributes(rg__sql_type *t, const char *s, size_t *at) {
    char word[65];
    for (read_word(s, at, word, sizeof word); word[0]; read_word(s, at, word, sizeof word)) {
        if (strcmp(word, "unsigned") == 0 || strcmp(word, "zerofill") == 0) t->is_unsigned = true;
        if (strcmp(word, "collate") == 0) read_word(s, at, t->collation, sizeof t->collation);
    }
}

/* ---- one form ---- */

/* utf8 and utf8mb3 are names of one character set; case is the server's choice. */
static void set_collation(rg__sql_type *t, const char *collation) {
    char word[sizeof t->collation - 8]; /* room for the longer prefix */
    size_t at = 0;
    read_word(collation, &at, word, sizeof word);
    bool old = strncmp(word, "utf8_", 5) == 0;
    snprintf(t->collation, sizeof t->collation, "%s%s", old ? "utf8mb3_" : "",
             old ? word + 5 : word);
}

static void drop_what_says_nothing(rg__sql_type *t, const base_type *b) {
    if (!b->sized) t->length = t->scale = 0;
    if (!b->text) t->collation[0] = '\0';
    if (b->growth == GROWS_PARTS && t->length == 0) t->length = 10;
    if (strcmp(t->base, "char") == 0 && t->length == 0) t->length = 1;
}

int rg__sql_type_parse(rg__sql_type *out, const char *text, const char *collation,
                       bool json_check) {
    size_t at = 0;
    *out = (rg__sql_type){0};
    read_word(text, &at, out->base, sizeof out->base);
    resolve_alias(out->base, sizeof out->base);
    if (!read_parentheses(out, text, &at)) return RG_ENO_MEMORY;
    read_attributes(out, text, &at);
    bool one = strcmp(out->base, "tinyint") == 0 && out->length == 1 && !out->is_unsigned;
    if (one) strcpy(out->base, "bool");
    if (json_check && strcmp(out->base, "longtext") == 0) strcpy(out->base, "json");
    set_collation(out, collation ? collation : out->collation);
    drop_what_says_nothing(out, base_of(out->base));
    return RG_OK;
}

void rg__sql_type_deinit(rg__sql_type *t) {
    rg__buf_deinit(&t->values);
    *t = (rg__sql_type){0};
}

/* ---- comparing ---- */

static rg__type_step step_of(bool same, bool wider) {
    return same ? RG__TYPE_SAME : wider ? RG__TYPE_WIDER : RG__TYPE_NARROWER;
}

static rg__type_step step_of_ranks(const base_type *a, const base_type *b) {
    return a->family == b->family ? step_of(a->rank == b->rank, a->rank < b->rank) : RG__TYPE_OTHER;
}

static rg__type_step step_of_parts(const rg__sql_type *a, const rg__sql_type *b) {
    bool same = a->length == b->length && a->scale == b->scale;
    int64_t before = (int64_t)a->length - a->scale, after = (int64_t)b->length - b->scale;
    return step_of(same, after >= before && b->scale >= a->scale);
}

static rg__type_step step_of_values(const rg__sql_type *a, const rg__sql_type *b) {
    size_t n = a->values.len;
    if (n > b->values.len) return RG__TYPE_VALUES;
    if (n && memcmp(a->values.p, b->values.p, n) != 0) return RG__TYPE_VALUES;
    return n == b->values.len ? RG__TYPE_SAME : RG__TYPE_WIDER;
}

static rg__type_step step_of_size(const rg__sql_type *a, const rg__sql_type *b) {
    const base_type *from = base_of(a->base), *to = base_of(b->base);
    if (from->growth != to->growth || a->is_unsigned != b->is_unsigned) return RG__TYPE_OTHER;
    if (from->growth == GROWS_RANK) return step_of_ranks(from, to);
    if (strcmp(a->base, b->base) != 0) return RG__TYPE_OTHER;
    switch (from->growth) {
    case GROWS_LENGTH: return step_of(a->length == b->length, a->length < b->length);
    case GROWS_PARTS: return step_of_parts(a, b);
    case GROWS_VALUES: return step_of_values(a, b);
    default: return a->length == b->length && a->scale == b->scale ? RG__TYPE_SAME : RG__TYPE_OTHER;
    }
}

rg__type_step rg__sql_type_step(const rg__sql_type *live, const rg__sql_type *wanted) {
    rg__type_step size = step_of_size(live, wanted);
    if (size > RG__TYPE_WIDER || strcmp(live->collation, wanted->collation) == 0) return size;
    return RG__TYPE_COLLATION;
}
