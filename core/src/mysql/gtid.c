/* SPDX-License-Identifier: MIT */
/* Reading positions of both flavours. */
#include "mysql/gtid.h"

/* Called for each run of transactions; false stops. */
typedef bool (*run_fn)(void *arg, rg__slice source, uint64_t from, uint64_t to);

/* ---- words ---- */

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static rg__slice trim(rg__slice s) {
    while (s.len && is_space(s.p[0])) s = (rg__slice){s.p + 1, s.len - 1};
    while (s.len && is_space(s.p[s.len - 1])) s.len--;
    return s;
}

/* What stands before the mark, trimmed; *rest is what follows it (p NULL: nothing does). */
static rg__slice cut(rg__slice s, char mark, rg__slice *rest) {
    const char *at = s.len ? memchr(s.p, mark, s.len) : NULL;
    *rest = at ? (rg__slice){at + 1, (size_t)(s.p + s.len - at - 1)} : (rg__slice){NULL, 0};
    return trim((rg__slice){s.p, at ? (size_t)(at - s.p) : s.len});
}

static bool number(rg__slice s, uint64_t *out) {
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (!is_digit(s.p[i]) || v > (UINT64_MAX - digit) / 10) return false;
        v = v * 10 + digit;
    }
    *out = v;
    return s.len > 0;
}

/* ---- the two flavours ---- */

static bool read_mariadb(rg__slice element, run_fn fn, void *arg) {
    rg__slice rest;
    rg__slice domain = cut(element, '-', &rest);
    rg__slice server = cut(rest, '-', &rest);
    uint64_t n = 0;
    uint64_t ignored = 0;
    if (!number(domain, &ignored) || !number(server, &ignored) || !number(trim(rest), &n))
        return false;
    return fn(arg, domain, 0, n);
}

static bool read_interval(rg__slice text, rg__slice source, run_fn fn, void *arg) {
    rg__slice rest;
    uint64_t from = 0;
    uint64_t to = 0;
    if (!number(cut(text, '-', &rest), &from)) return false;
    to = from;
    if (rest.p && !number(trim(rest), &to)) return false;
    return fn(arg, source, from, to);
}

static bool read_mysql(rg__slice element, run_fn fn, void *arg) {
    char source[RG__GTID_SOURCE];
    rg__slice rest;
    rg__slice uuid = cut(element, ':', &rest);
    size_t len = uuid.len;
    if (len == 0 || len >= sizeof source) return false;
    memcpy(source, uuid.p, len);
    while (rest.p) {
        rg__slice word = cut(rest, ':', &rest);
        if (word.len == 0) return false;
        if (is_digit(word.p[0])) {
            if (!read_interval(word, (rg__slice){source, len}, fn, arg)) return false;
        } else {
            if (uuid.len + 1 + word.len >= sizeof source) return false;
            source[uuid.len] = ':';
            memcpy(source + uuid.len + 1, word.p, word.len);
            len = uuid.len + 1 + word.len;
        }
    }
    return true;
}

/* False when the text is no position, or fn said so. */
static bool each(rg__slice position, run_fn fn, void *arg) {
    bool ok = true;
    for (rg__slice rest = position; ok && rest.p;) {
        rg__slice element = cut(rest, ',', &rest);
        if (element.len == 0) continue;
        ok = memchr(element.p, ':', element.len) ? read_mysql(element, fn, arg)
                                                 : read_mariadb(element, fn, arg);
    }
    return ok;
}

/* ---- questions ---- */

typedef struct last {
    rg__gtid *out;
    int n, cap;
} last;

static bool take_last(void *arg, rg__slice source, uint64_t from, uint64_t to) {
    last *l = arg;
    (void)from;
    for (int i = 0; i < l->n; i++) {
        if (!rg__slice_eq(rg__slice_of(l->out[i].source), source)) continue;
        if (to > l->out[i].n) l->out[i].n = to;
        return true;
    }
    if (!l->out || l->n == l->cap || !source.p || source.len >= RG__GTID_SOURCE) return false;
    rg__gtid *g = &l->out[l->n++];
    memcpy(g->source, source.p, source.len);
    g->source[source.len] = '\0';
    g->n = to;
    return true;
}

int rg__gtid_read(rg__slice position, rg__gtid *out, int cap) {
    last l = {out, 0, cap};
    return each(position, take_last, &l) ? l.n : -1;
}

typedef struct search {
    const rg__gtid *wanted;
    bool found;
} search;

static bool compare(void *arg, rg__slice source, uint64_t from, uint64_t to) {
    search *s = arg;
    if (from <= s->wanted->n && s->wanted->n <= to &&
        rg__slice_eq(rg__slice_of(s->wanted->source), source))
        s->found = true;
    return true;
}

bool rg__gtid_reached(rg__slice position, const rg__gtid *g) {
    search s = {g, false};
    return each(position, compare, &s) && s.found;
}
