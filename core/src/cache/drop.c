/* SPDX-License-Identifier: MIT */
/* Dropping entries on demand: by name, or all of a type. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/err.h"
#include "cache/shared.h"

RG__SCRIPT(drop, drop);

enum { SCANNED = 1000 };

/* ---- by name ---- */

static int drop_chunk(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                      rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_keys(&a, s, keys, n);
    redisReply *r = NULL;
    int rc = rg__shared_run(s, ctx, &drop, (int)n + 2, &a, &r, err);
    int dropped = rc == RG_OK ? (int)r->integer : rc;
    freeReplyObject(r);
    rg__args_deinit(&a);
    return dropped;
}

int rg__shared_drop(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n, rg_err *err) {
    for (size_t i = 0; i < n; i++) rg__shared_drop_process(s, &keys[i]);
    return rg__shared_drop_names(s, ctx, keys, n, err);
}

int rg__shared_drop_names(rg__shared *s, const rg__ctx *ctx, const rg__key *keys, size_t n,
                          rg_err *err) {
    int dropped = 0;
    for (size_t at = 0; at < n; at += RG__WRITE_CHUNK) {
        size_t some = n - at < RG__WRITE_CHUNK ? n - at : RG__WRITE_CHUNK;
        int rc = drop_chunk(s, ctx, keys + at, some, err);
        if (rc < 0) return rc;
        dropped += rc;
    }
    return dropped;
}

/* ---- by type ---- */

/* What SCAN shall match: a name, its special characters escaped, and anything after it. */
static void put_pattern(rg__buf *out, const rg__name *prefix, const rg_type *t) {
    rg__buf name = {0};
    rg__buf_add(&name, prefix->text, prefix->len);
    rg__key_table(t, &name);
    rg__buf_char(&name, ':');
    for (size_t i = 0; i < name.len; i++) {
        if (strchr("*?[]^\\-", name.p[i])) rg__buf_char(out, '\\');
        rg__buf_char(out, name.p[i]);
    }
    rg__buf_char(out, '*');
    out->failed |= name.failed;
    rg__buf_deinit(&name);
}

static int drop_found(rg__shared *s, const rg__ctx *ctx, const redisReply *found, rg_err *err) {
    if (found->elements == 0) return 0;
    rg__args a;
    rg__args_init(&a);
    rg__args_keys(&a, s, NULL, 0);
    for (size_t i = 0; i < found->elements; i++)
        rg__args_add(&a, found->element[i]->str, (size_t)found->element[i]->len);
    redisReply *r = NULL;
    int rc = rg__shared_run(s, ctx, &drop, a.n, &a, &r, err);
    int dropped = rc == RG_OK ? (int)r->integer : rc;
    freeReplyObject(r);
    rg__args_deinit(&a);
    return dropped;
}

static int scan(rg__shared *s, const rg__ctx *ctx, const rg__buf *pattern, const char *cursor,
                redisReply **reply, rg_err *err) {
    rg__args a;
    rg__args_init(&a);
    rg__args_add(&a, "SCAN", 4);
    rg__args_add(&a, cursor, strlen(cursor));
    rg__args_add(&a, "MATCH", 5);
    rg__args_buf(&a, pattern);
    rg__args_add(&a, "COUNT", 5);
    rg__args_u64(&a, SCANNED);
    int rc = rg__shared_command(s, ctx, &a, reply, err);
    rg__args_deinit(&a);
    if (rc == RG_OK && (!*reply || (*reply)->type != REDIS_REPLY_ARRAY || (*reply)->elements != 2))
        rc = rg__fail(err, RG_ECORRUPT, "SCAN answered something else");
    return rc;
}

static int drop_matching(rg__shared *s, const rg__ctx *ctx, const rg__buf *pattern,
                         uint64_t *dropped, rg_err *err) {
    char cursor[24] = "0";
    do {
        redisReply *r = NULL;
        int rc = scan(s, ctx, pattern, cursor, &r, err);
        if (rc == RG_OK) rc = drop_found(s, ctx, r->element[1], err);
        if (rc >= 0 && r) {
            *dropped += (uint64_t)rc;
            strncpy(cursor, r->element[0]->str, sizeof cursor - 1);
        }
        freeReplyObject(r);
        if (rc < 0) return rc;
    } while (strcmp(cursor, "0") != 0);
    return RG_OK;
}

/* Rows that only processes keep have no entries that could be found. */
static int announce(rg__shared *s, const rg__ctx *ctx, const rg_type *t, rg_err *err) {
    rg__buf name = {0};
    rg__buf_add(&name, s->row_prefixes[t->number].text, s->row_prefixes[t->number].len);
    rg__buf_str(&name, RG__ALL_ROWS);
    rg__key key = {.text = name.p, .len = (uint32_t)name.len};
    int rc = name.failed ? rg__fail_memory(err) : rg__shared_drop_names(s, ctx, &key, 1, err);
    rg__buf_deinit(&name);
    return rc < 0 ? rc : RG_OK;
}

int rg__shared_drop_type(rg__shared *s, const rg__ctx *ctx, const rg_type *t, uint64_t *dropped,
                         rg_err *err) {
    const rg__name *const prefixes[] = {&s->rows, &s->lookups};
    *dropped = 0;
    int rc = t->cache_redis ? RG_OK : announce(s, ctx, t, err);
    for (int i = 0; rc == RG_OK && i < 2; i++) {
        rg__buf pattern = {0};
        put_pattern(&pattern, prefixes[i], t);
        rc = drop_matching(s, ctx, &pattern, dropped, err);
        rg__buf_deinit(&pattern);
    }
    if (s->process) rg__process_clear(s->process);
    return rc;
}

/* ---- what there is ---- */

/* The number after a row's name; false for what is no row of ours. */
static bool parse_id(const redisReply *r, size_t prefix_len, uint64_t *id) {
    char *end = NULL;
    if (r->type != REDIS_REPLY_STRING || (size_t)r->len <= prefix_len) return false;
    *id = strtoull(r->str + prefix_len, &end, 10);
    return *id > 0 && end == r->str + r->len;
}

static int take_rows(const rg__shared *s, const rg_type *t, const redisReply *found, uint64_t **ids,
                     size_t *n, rg_err *err) {
    *ids = rg__reallocarray(NULL, found->elements + 1, sizeof **ids);
    if (!*ids) return rg__fail_memory(err);
    size_t prefix_len = s->row_prefixes[t->number].len;
    for (size_t i = 0; i < found->elements; i++)
        *n += parse_id(found->element[i], prefix_len, &(*ids)[*n]);
    return RG_OK;
}

int rg__shared_scan_rows(rg__shared *s, const rg__ctx *ctx, const rg_type *t, char cursor[24],
                         uint64_t **ids, size_t *n, rg_err *err) {
    rg__buf pattern = {0};
    redisReply *r = NULL;
    *ids = NULL;
    *n = 0;
    put_pattern(&pattern, &s->rows, t);
    int rc = scan(s, ctx, &pattern, cursor, &r, err);
    if (rc == RG_OK) rc = take_rows(s, t, r->element[1], ids, n, err);
    if (rc == RG_OK) snprintf(cursor, 24, "%s", r->element[0]->str);
    freeReplyObject(r);
    rg__buf_deinit(&pattern);
    return rc;
}
