/* SPDX-License-Identifier: MIT */
/* Names of rows and lookups: as Redis keys and as keys of the process tier. */
#include <openssl/sha.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"
#include "cache/shared.h"

enum { PLAIN_MAX = 40, DIGEST_LEN = 16 };

void rg__key_escape(const char *name, rg__buf *out) {
    for (; *name; name++) {
        if (*name == ':') rg__buf_str(out, "%3a");
        else if (*name == '%') rg__buf_str(out, "%25");
        else rg__buf_char(out, *name);
    }
}

static void put_table(const char *mysql_pool, const char *table, rg__buf *out) {
    if (mysql_pool && strcmp(mysql_pool, "default") != 0) {
        rg__key_escape(mysql_pool, out);
        rg__buf_char(out, '/');
    }
    rg__key_escape(table, out);
}

void rg__key_table(const rg_type *t, rg__buf *out) { put_table(t->mysql, t->table, out); }

uint64_t rg__key_hash(const rg__shared *s, rg__slice k) {
    return XXH3_64bits_withSeed(k.p, k.len, s->seed);
}

/* Takes the buffer's bytes; without memory the key has no text, and reading it is a miss. */
static void take_text(rg__buf *b, rg__key *out) {
    rg__buf_cstr(b);
    if (b->failed) {
        rg__buf_deinit(b);
        return;
    }
    out->text = b->p;
    out->len = (uint32_t)b->len;
}

/* ---- rows ---- */

static rg__name row_prefix(const rg__shared *s, const rg_type *t) {
    rg__buf b = {0};
    rg__buf_add(&b, s->rows.text, s->rows.len);
    rg__key_table(t, &b);
    rg__buf_char(&b, ':');
    rg__buf_cstr(&b);
    if (b.failed) rg__buf_deinit(&b);
    return (rg__name){b.p, (uint32_t)b.len};
}

int rg__key_prefixes(rg__shared *s) {
    s->row_prefixes = rg__calloc(s->schema->n + 1, sizeof *s->row_prefixes);
    if (!s->row_prefixes) return RG_ENO_MEMORY;
    for (; s->n_types < s->schema->n; s->n_types++) {
        rg__name prefix = row_prefix(s, s->schema->types[s->n_types]);
        if (!prefix.text) return RG_ENO_MEMORY;
        s->row_prefixes[s->n_types] = prefix;
    }
    return RG_OK;
}

static size_t put_digits(char *to, uint64_t v) {
    char digits[20];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    memcpy(to, digits + at, sizeof digits - at);
    to[sizeof digits - at] = '\0';
    return sizeof digits - at;
}

size_t rg__key_row_room(const rg__shared *s, const rg_type *t) {
    return s->row_prefixes[t->number].len + 21;
}

void rg__key_row_in(const rg__shared *s, const rg_type *t, uint64_t id, char *room, rg__key *out) {
    const rg__name *prefix = &s->row_prefixes[t->number];
    *out = (rg__key){.space = t->space, .hash = id, .text = room};
    memcpy(room, prefix->text, prefix->len);
    out->len = prefix->len + (uint32_t)put_digits(room + prefix->len, id);
}

void rg__key_name_row(const char *mysql_pool, const char *table, uint64_t id, rg__buf *out) {
    rg__buf_str(out, "e:");
    put_table(mysql_pool, table, out);
    rg__buf_char(out, ':');
    rg__buf_u64(out, id);
}

void rg__key_row(const rg__shared *s, const rg_type *t, uint64_t id, rg__key *out) {
    char *room = rg__malloc(rg__key_row_room(s, t));
    if (room) rg__key_row_in(s, t, id, room, out);
    else *out = (rg__key){.space = t->space, .hash = id};
}

/* ---- lookups ---- */

void rg__key_index(const rg__index *x, rg__buf *out) {
    rg__key_escape(x->name, out);
    rg__buf_fmt(out, ".%08x:", x->digest);
}

static void put_encoded(rg__buf *out, rg__slice encoded) {
    if (encoded.len <= PLAIN_MAX) {
        rg__buf_char(out, 'r');
        rg__buf_add(out, encoded.p, encoded.len);
        return;
    }
    unsigned char sum[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)encoded.p, encoded.len, sum);
    rg__buf_char(out, 'h');
    rg__buf_add(out, sum, DIGEST_LEN);
}

void rg__key_lookup(const rg__shared *s, const rg_type *t, uint32_t index, rg__slice encoded,
                    rg__key *out) {
    *out = (rg__key){.space = t->space + 1 + index};
    rg__buf b = {0};
    rg__buf_reserve(&b, s->lookups.len + 128);
    rg__buf_add(&b, s->lookups.text, s->lookups.len);
    rg__key_table(t, &b);
    rg__buf_char(&b, ':');
    rg__key_index(&t->indexes[index], &b);
    size_t at = b.len;
    put_encoded(&b, encoded);
    take_text(&b, out);
    if (out->text) out->hash = rg__key_hash(s, (rg__slice){out->text + at, out->len - at});
}

void rg__key_deinit(rg__key *k) {
    rg__free(k->text);
    k->text = NULL;
    k->len = 0;
}
