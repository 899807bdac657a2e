/* SPDX-License-Identifier: MIT */
/* Timelines as tokens: rg1;pool|table|source=n,source=n,q<ms>-<seq>,!,?;pool|*|...
 * "!": the primary alone, "?": vague, "q": an entry of the queue. Comes back from outside: whatever
 * is not understood makes the whole of it none. */

#include "mysql/timeline.h"

enum { MOST_BYTES = 2048, MOST_READ = 16384 };

static const char version[] = "rg1";

/* ---- writing ---- */

typedef struct writer {
    rg__buf *out;
    const rg__mysql_pool *only; /* when entries are drawn together: the pool whose turn it is */
} writer;

static void put_need(rg__buf *out, const rg__need *n) {
    const char *comma = "";
    for (int i = 0; i < n->n; i++, comma = ",")
        rg__buf_fmt(out, "%s%s=%llu", comma, n->gtids[i].source, (unsigned long long)n->gtids[i].n);
    if (n->queued_ms) {
        rg__buf_fmt(out, "%sq%llu-%llu", comma, (unsigned long long)n->queued_ms,
                    (unsigned long long)n->queued_seq);
        comma = ",";
    }
    if (n->lost) rg__buf_fmt(out, "%s!", comma);
    if (n->vague) rg__buf_fmt(out, "%s?", n->lost ? "," : comma);
}

static void put_entry(void *arg, const rg__mysql_pool *pool, const rg_type *type,
                      const rg__need *need) {
    writer *w = arg;
    if (w->out->len == 0) rg__buf_str(w->out, version);
    rg__buf_fmt(w->out, ";%s|%s|", rg__mysql_pool_name(pool), type ? type->name : "*");
    put_need(w->out, need);
}

/* All tables of a pool as one entry: what a token too long for a cookie becomes. */
static void draw_together(void *arg, const rg__mysql_pool *pool, const rg_type *type,
                          const rg__need *need) {
    (void)type;
    rg__timeline_add(arg, pool, NULL, need);
}

void rg__timeline_write(rg__timeline *t, rg__buf *out) {
    writer w = {.out = out};
    bool trusts = rg__timeline_each(t, put_entry, &w);
    if (out->len > MOST_BYTES) {
        rg__timeline *short_one = rg__timeline_new();
        rg__buf_clear(out);
        if (short_one) rg__timeline_each(t, draw_together, short_one);
        if (short_one) rg__timeline_each(short_one, put_entry, &w);
        trusts = trusts && short_one && out->len <= MOST_BYTES;
        rg__timeline_unref(short_one);
    }
    if (trusts) return;
    rg__buf_clear(out);
    rg__buf_fmt(out, "%s;!", version);
}

/* ---- reading ---- */

static rg__slice cut(rg__slice *rest, char mark) {
    const char *at = rest->len ? memchr(rest->p, mark, rest->len) : NULL;
    rg__slice word = {rest->p, at ? (size_t)(at - rest->p) : rest->len};
    *rest = at ? (rg__slice){at + 1, rest->len - word.len - 1} : (rg__slice){NULL, 0};
    return word;
}

static bool number(rg__slice s, uint64_t *out) {
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || v > UINT64_MAX / 10 - 1) return false;
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    *out = v;
    return s.len > 0;
}

static bool source_is_plain(rg__slice s) {
    if (s.len == 0 || s.len >= RG__GTID_SOURCE) return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     c == '-' || c == ':' || c == '_';
        if (!plain) return false;
    }
    return true;
}

static bool take_item(rg__slice item, rg__need *need) {
    if (rg__slice_eq(item, rg__slice_of("!"))) return need->lost = true;
    if (rg__slice_eq(item, rg__slice_of("?"))) return need->vague = true;
    if (item.len && item.p[0] == 'q' && !memchr(item.p, '=', item.len)) {
        rg__slice rest = {item.p + 1, item.len - 1};
        rg__slice ms = cut(&rest, '-');
        return number(ms, &need->queued_ms) && number(rest, &need->queued_seq);
    }
    rg__slice rest = item;
    rg__slice source = cut(&rest, '=');
    uint64_t n = 0;
    if (!source_is_plain(source) || !number(rest, &n) || need->n == RG__NEED_GTIDS) return false;
    rg__gtid *g = &need->gtids[need->n++];
    memcpy(g->source, source.p, source.len);
    g->source[source.len] = '\0';
    g->n = n;
    return true;
}

static bool take_entry(rg__timeline *t, rg__slice entry, const rg__timeline_names *names) {
    rg__need need = {0};
    if (rg__slice_eq(entry, rg__slice_of("!"))) {
        if (t) rg__timeline_distrust(t);
        return true;
    }
    rg__slice pool_name = cut(&entry, '|');
    rg__slice type_name = cut(&entry, '|');
    if (pool_name.len == 0 || type_name.len == 0 || !entry.p) return false;
    while (entry.p)
        if (!take_item(cut(&entry, ','), &need)) return false;
    const rg__mysql_pool *pool = t ? names->pool(names->arg, pool_name) : NULL;
    if (!pool) return true;
    /* a table that this process does not know: any table, to be safe */
    rg__timeline_add(t, pool, names->type(names->arg, type_name), &need);
    return true;
}

/* t NULL: only looks whether it is a token. */
static bool take(rg__timeline *t, rg__slice token, const rg__timeline_names *names) {
    bool ok = rg__slice_eq(cut(&token, ';'), rg__slice_of(version)) && token.p;
    while (ok && token.p) ok = take_entry(t, cut(&token, ';'), names);
    return ok;
}

bool rg__timeline_read(rg__timeline *t, rg__slice token, const rg__timeline_names *names) {
    return token.len <= MOST_READ && take(NULL, token, names) && take(t, token, names);
}
