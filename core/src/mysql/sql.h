/* SPDX-License-Identifier: MIT */
/* Looking at SQL text without understanding it all: tokens, and the checks of users' SQL. */
#ifndef RG_MYSQL_SQL_H
#define RG_MYSQL_SQL_H

#include "mysql/mysql.h"

typedef enum rg__token_kind {
    RG__T_END = 0,
    RG__T_WORD, /* keyword, name or function */
    RG__T_NUMBER,
    RG__T_STRING,       /* '...' or "..." (ANSI_QUOTES is never on) */
    RG__T_IDENT,        /* `...` */
    RG__T_VARIABLE,     /* @name, @@scope.name */
    RG__T_PARAM,        /* ? */
    RG__T_SIGN,         /* one other character */
    RG__T_CODE_COMMENT, /* the start of a comment that servers execute; its inside follows as tokens
                         */
    RG__T_BAD           /* a quote or comment without an end */
} rg__token_kind;
typedef struct rg__token {
    rg__token_kind kind;
    const char *p;
    size_t len;
} rg__token;

/* The next token; *p moves behind it. Comments are skipped. */
rg__token rg__sql_token(const char **p, const char *end);
bool rg__token_is(rg__token t, const char *word); /* a word, whatever its case; word in capitals */

/* EINVALID for SQL that would change what a connection's users rely on (SET NAMES, sql_mode, time
 * zone and the like, LOAD DATA LOCAL, USE), and for transactions and DDL, which are for whoever
 * holds the connection for longer. */
int rg__sql_check_guarded(const char *sql, size_t len, rg_err *err);
/* The text with ? for each literal: fit for a log. */
void rg__sql_redact(const char *sql, size_t len, rg__buf *out);

/* What a user's WHERE text holds. */
typedef struct rg__where {
    rg__slice condition; /* up to a top-level ORDER BY or LIMIT; len 0: none */
    rg__slice tail;      /* from there on */
    size_t n_condition;  /* parameters in the condition */
    size_t n_params;     /* in all */
    bool has_limit;
} rg__where;
/* EINVALID for what is not one condition with its order: `;`, an unbalanced quote or parenthesis,
 * another number of parameters, GROUP BY, UNION, ... */
int rg__sql_check_where(const char *text, size_t len, size_t n_params, rg__where *out, rg_err *err);

#endif
