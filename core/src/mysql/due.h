/* SPDX-License-Identifier: MIT */
/* Statements that open a transaction and wait for the first one in it (due.c). */
#ifndef RG_MYSQL_DUE_H
#define RG_MYSQL_DUE_H

#include "mysql/conn.h"

#if RG__CLIENT_MARIADB && MARIADB_PACKAGE_VERSION_ID >= 30300
#define RG__PIPELINES 1
#else
#define RG__PIPELINES 0
#endif

/* Can the client library that is there send a prepared statement without reading its answer? */
bool rg__due_possible(rg__mysql *c);

/* The connection is in the transaction that these open; first may be NULL. Static texts. */
static inline void rg__due_open(rg__mysql *c, const char *first, const char *begin) {
    c->n_due = 0;
    if (first) c->due[c->n_due++] = first;
    c->due[c->n_due++] = begin;
    c->tx = RG__TXS_OPEN;
}

/* Nothing was sent: there is no transaction to end. False: there may be one. */
static inline bool rg__due_forget(rg__mysql *c) {
    if (c->n_due == 0) return false;
    c->n_due = 0;
    c->tx = RG__TXS_NONE;
    return true;
}

/* All three within a call. An opening that fails closes the connection. */
int rg__due_settle(rg__mysql *c, const rg__call *call, rg_err *err);
/* A statement in text, with what is due before it. */
int rg__due_query(rg__mysql *c, const rg__call *call, const char *sql, size_t len, rg_err *err);
/* A prepared one: *failed is what mysql_stmt_execute has returned, for the caller to look into; the code
 * is that of what was due. */
int rg__due_execute(rg__mysql *c, const rg__call *call, MYSQL_STMT *st, int *failed, rg_err *err);

/* Sends a prepared statement; reads the answer to the one that was sent first. Nonzero: it failed, as
 * mysql_stmt_execute would have. Where the connection `pipelines`. */
int rg__due_send(const rg__mysql *c, MYSQL_STMT *st);
int rg__due_receive(const rg__mysql *c, MYSQL_STMT *st);

#endif
