/* SPDX-License-Identifier: MIT */
/* The list of query log events that an operation collects. */
#include "base/alloc.h"
#include "base/ctx.h"

static rg__event *room(rg__trace *t) {
    if (t->n < t->cap) return &t->events[t->n];
    size_t cap = t->cap ? t->cap * 2 : 8;
    rg__event *events = rg__reallocarray(t->events, cap, sizeof *events);
    if (!events) return NULL;
    t->events = events;
    t->cap = cap;
    return &events[t->n];
}

void rg__trace_add(const rg__ctx *ctx, rg__source s, const char *op, const char *pool,
                   const char *text, size_t text_len, int64_t started_wall_us, int64_t duration_us,
                   int64_t rows, const char *error) {
    if (!rg__traced(ctx, s)) return;
    rg__event *e = room(ctx->trace);
    if (!e) return;
    *e = (rg__event){.source = s, .op = op, .pool = pool, .started_us = started_wall_us,
                     .duration_us = duration_us, .rows = rows};
    e->text = rg__memdup0(text, text ? text_len : 0);
    e->error = rg__strdup(error);
    if (e->text && (e->error || !error)) {
        ctx->trace->n++;
        return;
    }
    rg__free(e->text);
    rg__free(e->error);
}

void rg__trace_deinit(rg__trace *t) {
    for (size_t i = 0; i < t->n; i++) {
        rg__free(t->events[i].text);
        rg__free(t->events[i].error);
    }
    rg__free(t->events);
    t->events = NULL;
    t->n = t->cap = 0;
}
