/* SPDX-License-Identifier: MIT */
/* Reading entries: untrusted bytes to answers. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "cache/shared.h"
#include "row/row.h"

void rg__entry_deinit(rg__entry *e) {
    rg_block_unref(e->block);
    rg__free(e->deltas);
    e->block = NULL;
    e->deltas = NULL;
    e->n_deltas = 0;
}

uint64_t rg__epoch_of(const char *bytes) {
    uint64_t v;
    memcpy(&v, bytes, sizeof v);
    return v;
}

/* ---- stream ids ---- */

static bool parse_hex(const char *p, uint64_t *v) {
    *v = 0;
    for (int i = 0; i < 16; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return false;
        *v = *v << 4 | (uint64_t)digit;
    }
    return true;
}

bool rg__id_from_hex(const char *hex, char id[48]) {
    uint64_t ms, seq;
    if (!parse_hex(hex, &ms) || !parse_hex(hex + 16, &seq)) return false;
    seq &= (UINT64_C(1) << 48) - 1; /* without the partition */
    snprintf(id, 48, "%llu-%llu", (unsigned long long)ms, (unsigned long long)seq);
    return true;
}

bool rg__id_to_hex(const char *id, uint32_t part, char hex[RG__ID_HEX]) {
    char *end, text[RG__ID_HEX + 1];
    unsigned long long ms = strtoull(id, &end, 10);
    if (end == id || *end != '-') return false;
    unsigned long long seq = strtoull(end + 1, &end, 10);
    if (*end || seq >> 48) return false;
    snprintf(text, sizeof text, "%016llx%04x%012llx", ms, part & 0xffff, seq);
    memcpy(hex, text, RG__ID_HEX);
    return true;
}

/* ---- values ---- */

/* A row that is sound and of the id that the key names. */
static rg_block *take_row(const rg_type *t, uint64_t id, rg__slice v) {
    if (v.len < RG_ROW_HEADER || v.len > UINT32_MAX) return NULL;
    rg_block *b = rg__block_dup(v.p, (uint32_t)v.len);
    if (b && rg__row_check_own(t, b->data, b->len, NULL) == RG_OK && rg__row_id(t, b->data) == id)
        return b;
    rg_block_unref(b);
    return NULL;
}

static bool ascending(const uint8_t *p, size_t n) {
    uint64_t before = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t id;
        memcpy(&id, p + i * 8, 8);
        if (i > 0 && id <= before) return false;
        before = id;
    }
    return true;
}

static rg_block *take_ids(rg__slice v) {
    if (v.len % 8 != 0 || v.len > UINT32_MAX) return NULL;
    rg_block *b = rg__block_dup(v.p, (uint32_t)v.len);
    if (b && ascending(b->data, b->len / 8)) return b;
    rg_block_unref(b);
    return NULL;
}

static rg__slice after(rg__slice s, size_t at) { return (rg__slice){s.p + at, s.len - at}; }

/* Offset of the value in V or P; 0 when it holds none. */
static size_t value_at(rg__slice e) {
    if (e.len >= RG__AT_VALUE && e.p[0] == 'V') return RG__AT_VALUE;
    if (e.len >= RG__AT_PENDING && e.p[0] == 'P') return RG__AT_PENDING;
    return 0;
}

rg_block *rg__entry_row(const rg_type *t, uint64_t id, rg__slice e) {
    size_t at = value_at(e);
    return at ? take_row(t, id, after(e, at)) : NULL;
}

static bool read_value(const rg_type *t, bool is_row, const rg__key *key, rg__slice e,
                       rg__entry *out) {
    rg__slice v = after(e, value_at(e));
    out->block = is_row ? take_row(t, key->hash, v) : take_ids(v);
    if (out->block) out->found = RG__VALUE;
    return out->block != NULL;
}

static bool read_deltas(rg__slice e, rg__entry *out) {
    if (e.len < RG__AT_DELTAS || (e.len - RG__AT_DELTAS) % RG__DELTA_BYTES != 0) return false;
    uint32_t n = (uint32_t)((e.len - RG__AT_DELTAS) / RG__DELTA_BYTES);
    out->deltas = rg__calloc(n, sizeof *out->deltas);
    if (!out->deltas) return false;
    for (uint32_t i = 0; i < n; i++) {
        const char *p = e.p + RG__AT_DELTAS + (size_t)i * RG__DELTA_BYTES;
        memcpy(&out->deltas[i].id, p + 1, 8);
        out->deltas[i].add = *p == '+';
    }
    out->n_deltas = n;
    out->found = RG__DELTAS;
    return true;
}

static bool is_void(rg__slice e) {
    return e.p[0] != 'D' && e.p[RG__AT_FLAG] == '2';
}

/* A pending entry that cannot be read, or is void, hides what the queue holds: the database is all that
 * is left. */
static bool read_pending(const rg_type *t, bool is_row, const rg__key *key, rg__slice e,
                         rg__entry *out) {
    char id[48];
    bool sound = e.p[0] == 'D' || (e.len >= RG__AT_PENDING && rg__id_from_hex(e.p + RG__AT_ID, id));
    if (sound && is_void(e)) {
        out->found = RG__BYPASS;
        out->pending = true;
        return true;
    }
    if (sound && e.p[0] == 'P') sound = read_value(t, is_row, key, e, out);
    else if (sound && e.p[0] == 'D') sound = !is_row && read_deltas(e, out);
    else if (sound) out->found = RG__ABSENT;
    out->pending = sound;
    if (!sound) out->found = RG__BYPASS;
    return sound;
}

bool rg__entry_read(const rg_type *t, bool is_row, const rg__key *key, rg__slice e, uint64_t epoch,
                    rg__entry *out) {
    out->found = RG__MISS;
    if (e.len < RG__AT_VALUE) return false;
    switch (e.p[0]) {
    case 'P':
    case 'Q':
    case 'D':
        if (!read_pending(t, is_row, key, e, out)) return false;
        out->suspect = rg__epoch_of(e.p + RG__AT_EPOCH) != epoch;
        return true;
    case 'V':
        if (rg__epoch_of(e.p + RG__AT_EPOCH) != epoch) return true;
        return read_value(t, is_row, key, e, out);
    case 'N':
        if (is_row && rg__epoch_of(e.p + RG__AT_EPOCH) == epoch) out->found = RG__ABSENT;
        return true;
    default: return strchr("LMXT", e.p[0]) != NULL && e.p[0];
    }
}
