/* SPDX-License-Identifier: MIT */
/* The JSON text of an event: what was written to which row. Values are as Lua sees them; binary ones
 * are hex, integers beyond 2^53 and decimals text, sensitive ones left out. */
#include <stdio.h>

#include "queue/outbox.h"

static const uint64_t exact = 9007199254740992u; /* integers up to it are exact as doubles */

void rg__json_text(rg__buf *out, const char *p, size_t len) {
    rg__buf_char(out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\') rg__buf_fmt(out, "\\%c", c);
        else if (c < 0x20) rg__buf_fmt(out, "\\u%04x", c);
        else rg__buf_char(out, (char)c);
    }
    rg__buf_char(out, '"');
}

static void add_hex(rg__buf *out, rg__slice s) {
    static const char hex[] = "0123456789abcdef";
    rg__buf_char(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        rg__buf_char(out, hex[(uint8_t)s.p[i] >> 4]);
        rg__buf_char(out, hex[(uint8_t)s.p[i] & 15]);
    }
    rg__buf_char(out, '"');
}

static void add_refs(rg__buf *out, rg__slice s) {
    rg__buf_char(out, '[');
    for (size_t at = 0; at + 8 <= s.len; at += 8) {
        uint64_t id;
        memcpy(&id, s.p + at, sizeof id);
        if (at) rg__buf_char(out, ',');
        rg__buf_u64(out, id);
    }
    rg__buf_char(out, ']');
}

/* "a,b" as a list of texts. */
static void add_words(rg__buf *out, const char *p, size_t len) {
    rg__buf_char(out, '[');
    for (size_t at = 0; at < len;) {
        const char *comma = memchr(p + at, ',', len - at);
        size_t n = comma ? (size_t)(comma - p) - at : len - at;
        if (at) rg__buf_char(out, ',');
        rg__json_text(out, p + at, n);
        at += n + 1;
    }
    rg__buf_char(out, ']');
}

static bool is_plain(const rg__column *c, const rg__value *v) {
    if (c->kind == RG_FLOAT || c->kind == RG_DOUBLE || c->kind == RG_JSON) return true;
    if (c->store == RG_STORE_U64 && c->kind != RG_SET) return v->u <= exact;
    if (c->kind == RG_I64) return v->i <= (int64_t)exact && v->i >= -(int64_t)exact;
    return (c->kind >= RG_I8 && c->kind <= RG_I32) || (c->kind >= RG_U8 && c->kind <= RG_U32);
}

/* Numbers and JSON stand as their text, all else in quotes. */
static void add_text(rg__buf *out, const rg_type *t, const uint8_t *row, uint32_t col,
                     const rg__value *v) {
    const rg__column *c = &t->columns[col];
    rg__buf text = {0};
    int n = rg_row_text(t, row, col, NULL, 0);
    char *to = n > 0 ? rg__buf_reserve(&text, (size_t)n) : NULL;
    if (to) rg_row_text(t, row, col, to, (size_t)n);
    size_t len = to ? (size_t)n : 0;
    if (text.failed) out->failed = true;
    else if (is_plain(c, v)) rg__buf_add(out, to, len);
    else if (c->kind == RG_SET) add_words(out, to, len);
    else rg__json_text(out, to ? to : "", len);
    rg__buf_deinit(&text);
}

static void add_value(rg__buf *out, const rg_type *t, const uint8_t *row, uint32_t col) {
    const rg__column *c = &t->columns[col];
    rg__value v = rg__row_value(t, row, col);
    if (v.is_null) rg__buf_str(out, "null");
    else if (c->kind == RG_BOOL) rg__buf_str(out, v.u ? "true" : "false");
    else if (c->kind == RG_BINARY || c->kind == RG_BLOB) add_hex(out, v.s);
    else if (c->kind == RG_REFS) add_refs(out, v.s);
    else add_text(out, t, row, col, &v);
}

static void add_values(rg__buf *out, const rg_type *t, const uint8_t *row, const uint8_t *mask) {
    const char *separator = "";
    rg__buf_str(out, ",\"values\":{");
    for (uint32_t i = 1; i < t->n_columns; i++) {
        if ((mask && !mask[i]) || (t->columns[i].flags & RG_COL_SENSITIVE)) continue;
        rg__buf_str(out, separator);
        rg__json_text(out, t->columns[i].name, strlen(t->columns[i].name));
        rg__buf_char(out, ':');
        add_value(out, t, row, i);
        separator = ",";
    }
    rg__buf_char(out, '}');
}

static void add_changed(rg__buf *out, const rg_type *t, const uint8_t *mask) {
    const char *separator = "";
    rg__buf_str(out, ",\"changed\":[");
    for (uint32_t i = 1; i < t->n_columns; i++) {
        if (!mask[i]) continue;
        rg__buf_str(out, separator);
        rg__json_text(out, t->columns[i].name, strlen(t->columns[i].name));
        separator = ",";
    }
    rg__buf_char(out, ']');
}

void rg__event_text(const rg_type *t, int write, uint64_t id, const void *row, const uint8_t *mask,
                    rg__buf *out) {
    static const char *const kinds[] = {"", "insert", "update", "delete"};
    const uint8_t *changed = write == RG_UPDATE ? mask : NULL;
    rg__buf_str(out, "{\"entity\":");
    rg__json_text(out, t->name, rg__entity_len(t->name));
    rg__buf_fmt(out, id <= exact ? ",\"id\":%llu,\"kind\":\"%s\"" : ",\"id\":\"%llu\",\"kind\":\"%s\"",
                (unsigned long long)id, kinds[write]);
    if (changed) add_changed(out, t, changed);
    if (row && write != RG_DELETE) add_values(out, t, row, changed);
    rg__buf_char(out, '}');
}
