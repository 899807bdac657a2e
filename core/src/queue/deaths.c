/* SPDX-License-Identifier: MIT */
/* Counting deaths at a place of a stream. */
#include "queue/deaths.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEY = 192, VALUE = 2 * RG__POS_TEXT + 16 };

static void name(const rg__queue *q, char key[KEY]) { snprintf(key, KEY, "%s:deaths", q->stream); }

/* Only a hint: what Redis does not say now is not waited for, nor an error. */
static redisReply *command(const rg__queue *q, const rg__ctx *ctx, int argc, const char *const *argv) {
    rg__redis *c = NULL;
    redisReply *r = NULL;
    rg_err ignored;
    if (rg__redis_acquire(rg__shared_pool(q->shared), ctx, &c, &ignored) < 0) return NULL;
    if (rg__redis_command(c, ctx, &r, &ignored, argc, argv, NULL) < 0) r = NULL;
    rg__redis_release(c);
    return r;
}

static bool read_words(const char *text, rg__deaths *d) {
    const char *first = strchr(text, ' ');
    const char *second = first ? strchr(first + 1, ' ') : NULL;
    if (!second) return false;
    d->n = (uint32_t)strtoul(first + 1, NULL, 10);
    return rg__pos_parse((rg__slice){text, (size_t)(first - text)}, &d->at) &&
           rg__pos_parse(rg__slice_of(second + 1), &d->upto);
}

void rg__deaths_load(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx) {
    char key[KEY];
    name(q, key);
    const char *argv[] = {"GET", key};
    redisReply *r = command(q, ctx, 2, argv);
    rg__deaths read = {0};
    if (r && r->type == REDIS_REPLY_STRING && !read_words(r->str, &read)) read.n = 0;
    freeReplyObject(r);
    read.wire = d->wire;
    *d = read;
}

uint32_t rg__deaths_at(const rg__deaths *d, rg__pos at) {
    bool among = rg__pos_compare(at, d->at) >= 0 && rg__pos_compare(at, d->upto) < 0;
    return among ? d->n : 0;
}

static int write_words(const rg__deaths *d, char value[VALUE]) {
    char at[RG__POS_TEXT], upto[RG__POS_TEXT];
    rg__pos_format(d->at, at);
    rg__pos_format(d->upto, upto);
    return snprintf(value, VALUE, "%s %u %s", at, d->n, upto);
}

static void let_go(rg__deaths *d, const rg__queue *q) {
    rg__redis_release(d->wire);
    d->wire = NULL;
    rg__redis_aside_end(rg__shared_pool(q->shared));
}

/* Its reply comes while the batch is applied, over other connections. false: there are too few for that. */
static bool send_note(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx, const char *const argv[3]) {
    rg__redis_pool *pool = rg__shared_pool(q->shared);
    rg_err ignored;
    if (!rg__redis_aside(pool)) return false;
    if (rg__redis_acquire(pool, ctx, &d->wire, &ignored) < 0) {
        rg__redis_aside_end(pool);
        return true;
    }
    if (rg__redis_append(d->wire, 3, argv, NULL, &ignored) < 0 ||
        rg__redis_send(d->wire, ctx, &ignored) < 0)
        let_go(d, q);
    return true;
}

/* Entries that were applied one by one keep the count of those among which they were. */
void rg__deaths_note(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx, rg__pos at, rg__pos upto) {
    char key[KEY], value[VALUE];
    bool among = rg__deaths_at(d, at) > 0;
    d->n = rg__deaths_at(d, at) + 1;
    if (!among || rg__pos_compare(upto, d->upto) > 0) d->upto = upto;
    d->at = at;
    name(q, key);
    write_words(d, value);
    const char *argv[] = {"SET", key, value};
    if (d->wire) return;
    if (!send_note(d, q, ctx, argv)) freeReplyObject(command(q, ctx, 3, argv));
}

static void land(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx) {
    redisReply *r = NULL;
    rg_err ignored;
    if (!d->wire) return;
    if (rg__redis_reply(d->wire, ctx, &r, &ignored) >= 0) freeReplyObject(r);
    let_go(d, q);
}

void rg__deaths_settle(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx, bool applied) {
    char key[KEY], value[VALUE];
    land(d, q, ctx);
    if (d->n > 0) d->n--;
    if (applied) return; /* the ledger has moved on: the note says nothing any more */
    name(q, key);
    write_words(d, value);
    const char *argv[] = {"SET", key, value};
    freeReplyObject(command(q, ctx, 3, argv));
}

void rg__deaths_forget(rg__deaths *d, const rg__queue *q, const rg__ctx *ctx) {
    char key[KEY];
    name(q, key);
    const char *argv[] = {"DEL", key};
    freeReplyObject(command(q, ctx, 2, argv));
    *d = (rg__deaths){.wire = d->wire};
}
