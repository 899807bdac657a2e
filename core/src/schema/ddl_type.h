/* SPDX-License-Identifier: MIT */
/* SQL types and defaults in a form that compares, however a server spells them. Pure. */
#ifndef RG_SCHEMA_DDL_TYPE_H
#define RG_SCHEMA_DDL_TYPE_H

#include "schema/entity.h"

/* Display widths, ZEROFILL and what a server adds in comments are not part of it. */
typedef struct rg__sql_type {
    char base[32];      /* lower case, aliases resolved; "bool" for tinyint(1), "json" also for
                           MariaDB's longtext with a json_valid check */
    bool is_unsigned;
    uint32_t length;    /* characters, bytes, digits of a decimal or decimals of a second */
    uint32_t scale;     /* decimals of a decimal */
    rg__buf values;     /* ENUM, SET: u32 length and bytes of each, so that more values appended
                           to a list leave its bytes a prefix; see rg__sql_text_shown */
    char collation[65]; /* "" when the type has none */
} rg__sql_type;

/* Reads a type as a server or rg__column_sql_type writes it. Types not known here keep their name
 * and differ from all that an entity can have. collation: as information_schema tells it, or NULL
 * (taken from the text then). RG_ENO_MEMORY or 0. */
int rg__sql_type_parse(rg__sql_type *out, const char *text, const char *collation, bool json_check);
void rg__sql_type_deinit(rg__sql_type *t);

/* What becomes of the values when a live type is changed into the wanted one. */
typedef enum rg__type_step {
    RG__TYPE_SAME = 0,
    RG__TYPE_WIDER,     /* every value stays as it is */
    RG__TYPE_NARROWER,  /* same family; some values may not fit */
    RG__TYPE_VALUES,    /* values of an enum or set removed or reordered */
    RG__TYPE_COLLATION, /* only the collation differs */
    RG__TYPE_OTHER      /* values are converted */
} rg__type_step;
rg__type_step rg__sql_type_step(const rg__sql_type *live, const rg__sql_type *wanted);

/* A default. Absent and NULL are the same. */
typedef struct rg__sql_default {
    bool present;
    bool expression; /* text is an expression, as the server shows it */
    rg__buf text;    /* the value without quotes or escapes */
} rg__sql_default;

/* The default that a column of an entity has in SQL: none for the id, for required columns and for
 * TEXT, BLOB and JSON; else its own, else NULL, else zero, empty or the first value. */
void rg__sql_default_wanted(const rg_type *t, uint32_t column, rg__sql_default *out);
/* Reads SQL text; NULL: none. */
void rg__sql_default_parse(const char *sql, const rg__sql_type *type, rg__sql_default *out);
void rg__sql_default_deinit(rg__sql_default *d);
/* 1, 0 or RG_ENO_MEMORY. */
int rg__sql_default_equal(const rg__sql_type *type, const rg__sql_default *live,
                          const rg__sql_default *wanted);
/* Appends it as SQL: NULL, a literal in quotes, X'..' for bytes. Memory that ran out while a
 * default was read shows in out->failed. */
void rg__sql_default_write(const rg__sql_default *d, const rg__sql_type *type, rg__buf *out);

/* ---- texts of values ---- */
/* Unquotes the literal 'text' at *at of sql (doubled quotes, backslashes), which is moved behind
 * it; false when it does not end. */
bool rg__sql_unquote(const char *sql, size_t *at, rg__buf *out);
/* The one form of a value: equal values of a type have equal texts. What is no value of the type is
 * left as it is. */
void rg__sql_write_canonical(rg__buf *out, const rg__sql_type *type, const char *text);
/* Digits without an exponent or needless zeros, rounded to so many decimals. */
void rg__sql_write_number(rg__buf *out, const char *text, uint32_t decimals);
/* "2026-01-31 12:00:00.5" of any datetime that an entity takes; of a time, "01:02:00". */
void rg__sql_write_moment(rg__buf *out, const char *text, bool is_time);
bool rg__sql_is_number(const rg__sql_type *t);
bool rg__sql_is_real(const rg__sql_type *t);
bool rg__sql_is_bytes(const rg__sql_type *t);
/* Appends text as information_schema is able to show it: servers keep that in three-byte UTF-8, so
 * that a character beyond U+FFFF, or a byte that is no character, is shown as "?". */
void rg__sql_text_shown(rg__buf *out, const char *p, size_t len);

#endif
