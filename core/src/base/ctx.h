/* SPDX-License-Identifier: MIT */
/* What travels down with every operation: the deadline, where to count, where to log. */
#ifndef RG_BASE_CTX_H
#define RG_BASE_CTX_H

#include "base/clock.h"
#include "base/err.h"
#include "base/metrics.h"
#include "base/slice.h"

/* Sources of query log events. */
typedef enum rg__source { RG__SOURCE_MYSQL = 1, RG__SOURCE_REDIS = 2, RG__SOURCE_PROCESS = 4 } rg__source;

/* One event of the query log; owns its strings. */
typedef struct rg__event {
    int source;        /* rg__source */
    const char *op;    /* static: "SELECT", "GET", "hit", ... */
    const char *pool;  /* borrowed: lives as long as the engine */
    char *text;        /* statement or command; values are redacted unless trace->values */
    int64_t started_us; /* wall clock */
    int64_t duration_us;
    int64_t rows;      /* rows or keys concerned, -1 unknown */
    char *error;       /* NULL when it worked */
} rg__event;

/* A growing list of events, owned by one operation (confined); NULL in the context: log off. */
typedef struct rg__trace {
    int mask;    /* which sources are wanted */
    bool values; /* show values instead of ? */
    rg__event *events;
    size_t n, cap;
} rg__trace;

typedef struct rg__timeline rg__timeline; /* mysql/timeline.h */
struct rg__tx; /* tx/tx.h */

typedef struct rg__ctx {
    int64_t deadline_ms; /* monotonic */
    rg__timeline *timeline; /* what the user has written; NULL: only the primary answers */
    rg__metrics *metrics;
    rg__trace *trace;
    struct rg__tx *const *txs; /* open transactions by MySQL pool, NULL where none is; NULL: none at all */
    struct rg__tx *const *outers; /* by MySQL pool: suspended by the caller meanwhile; NULL: none at all */
    bool nested; /* the caller holds a connection already: it must not wait for another one */
    bool waits;  /* its commands wait for something to come: their time tells nothing */
    const atomic_bool *cancelled; /* NULL, or: reads may stop once it is true */
} rg__ctx;

static inline bool rg__traced(const rg__ctx *ctx, rg__source s) {
    return ctx->trace && (ctx->trace->mask & (int)s);
}
/* Adds an event (text and error are copied; text_len bytes). Out of memory drops it. */
void rg__trace_add(const rg__ctx *ctx, rg__source s, const char *op, const char *pool,
                   const char *text, size_t text_len, int64_t started_wall_us, int64_t duration_us,
                   int64_t rows, const char *error);
void rg__trace_deinit(rg__trace *t);

#endif
