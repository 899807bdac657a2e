/* SPDX-License-Identifier: MIT */
/* Value caches: names, the form that the process tier keeps, and looking there. */
#include "cache/value.h"

#include <math.h>
#include <openssl/sha.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cache/value_block.h"

/* ---- names ---- */

static int name_prefix(rg__values *v, const rg__shared *s, const char *key) {
    rg__buf b = {0};
    rg__buf_fmt(&b, "{%s}:%s", s ? rg__shared_prefix(s) : "", key);
    rg__buf_cstr(&b);
    if (b.failed) return RG_ENO_MEMORY;
    v->prefix = b.p;
    v->prefix_len = (uint32_t)b.len;
    return RG_OK;
}

static int enlist(rg__shared *s, rg__values *v) {
    rg__values **list = rg__reallocarray(s->values, s->n_values + 1, sizeof(rg__values *));
    if (!list) return RG_ENO_MEMORY;
    s->values = list;
    s->values[s->n_values++] = v;
    return RG_OK;
}

int rg__values_init(rg__values *v, rg__shared *shared, rg__process *process, uint32_t number,
                    const char *key, rg_err *err) {
    v->shared = shared;
    v->process = v->in_process ? process : NULL;
    v->space = RG__SPACE_DEPS - 1 - number;
    int rc = name_prefix(v, shared, key);
    if (rc == RG_OK && shared) rc = enlist(shared, v);
    return rc < 0 ? rg__fail_memory(err) : RG_OK;
}

int rg__values_echo(rg__shared *channel, const rg__values *v, rg__process *p) {
    rg__values *echo = rg__calloc(1, sizeof *echo);
    if (!echo) return RG_ENO_MEMORY;
    *echo = (rg__values){.shared = channel, .process = v->process ? p : NULL, .space = v->space,
                         .prefix = rg__strdup(v->prefix), .prefix_len = v->prefix_len};
    int rc = echo->prefix ? enlist(channel, echo) : RG_ENO_MEMORY;
    if (rc >= 0) return rc;
    rg__free(echo->prefix);
    rg__free(echo);
    return rc;
}

void rg__values_echo_free(rg__shared *channel) {
    for (uint32_t i = 0; i < channel->n_values; i++) {
        rg__values_deinit(channel->values[i]);
        rg__free(channel->values[i]);
    }
    channel->n_values = 0;
}

void rg__values_deinit(rg__values *v) {
    rg__free(v->name);
    rg__free(v->redis);
    rg__free(v->prefix);
}

/* Long keys go by their digest. */
enum { DIGEST = 4 };

typedef struct tail {
    rg__slice s;
    char digest[1 + SHA256_DIGEST_LENGTH];
} tail;

static void tail_of(rg__slice key, tail *out) {
    out->s = key;
    if (key.len <= RG__VALUE_PLAIN_MAX) return;
    out->digest[0] = DIGEST;
    SHA256((const unsigned char *)key.p, key.len, (unsigned char *)out->digest + 1);
    out->s = (rg__slice){out->digest, sizeof out->digest};
}

int rg__value_name(const rg__values *v, rg__value_item *it) {
    tail t;
    tail_of(it->key, &t);
    size_t len = v->prefix_len + t.s.len;
    it->text = rg__malloc(len + 1);
    if (!it->text) return RG_ENO_MEMORY;
    memcpy(it->text, v->prefix, v->prefix_len);
    memcpy(it->text + v->prefix_len, t.s.p, t.s.len);
    it->len = (uint32_t)len;
    it->hash = rg__value_hash(v, t.s);
    if (v->process) it->stamp = rg__process_stamp(v->process, v->space, it->hash);
    return RG_OK;
}

rg__slice rg__value_tail(const rg__values *v, const rg__value_item *it) {
    return (rg__slice){it->text + v->prefix_len, it->len - v->prefix_len};
}

void rg__value_item_deinit(rg__value_item *it) {
    rg__free(it->text);
    rg_block_unref(it->block);
}

/* Without memory the id is one that nothing has. */
void rg__dep_id(const char *kind, rg__slice name, uint8_t id[RG__DEP_ID]) {
    unsigned char sum[SHA256_DIGEST_LENGTH];
    rg__buf b = {0};
    rg__buf_add(&b, kind, strlen(kind) + 1);
    rg__buf_add(&b, name.p, name.len);
    if (b.failed) rg__random(sum, sizeof sum);
    else SHA256((const unsigned char *)b.p, b.len, sum);
    memcpy(id, sum, RG__DEP_ID);
    rg__buf_deinit(&b);
}

uint64_t rg__dep_hash(const uint8_t *id) {
    uint64_t v;
    memcpy(&v, id, sizeof v);
    return v;
}

void rg__table_id(const rg_type *t, uint8_t id[RG__DEP_ID]) {
    rg__buf name = {0};
    rg__key_table(t, &name);
    rg__dep_id("table", (rg__slice){name.p ? name.p : "", name.len}, id);
    rg__buf_deinit(&name);
}

int rg__key_generation(const rg__shared *s, const rg_type *t, rg__key *out) {
    uint8_t id[RG__DEP_ID];
    rg__table_id(t, id);
    *out = (rg__key){.space = RG__SPACE_DEPS, .hash = rg__dep_hash(id)};
    out->text = rg__malloc(s->deps.len + sizeof id + 1);
    if (!out->text) return RG_ENO_MEMORY;
    memcpy(out->text, s->deps.text, s->deps.len);
    memcpy(out->text + s->deps.len, id, sizeof id);
    out->len = s->deps.len + RG__DEP_ID;
    return RG_OK;
}

/* ---- the process tier ---- */

uint64_t rg__value_hash(const rg__values *v, rg__slice tail) {
    return XXH3_64bits_withSeed(tail.p, tail.len, v->shared ? v->shared->seed : 0);
}

rg__value_head rg__value_head_of(const rg_block *b) {
    rg__value_head h;
    memcpy(&h, b->data, sizeof h);
    return h;
}

rg__slice rg__value_of(const rg_block *b) {
    rg__value_head h = rg__value_head_of(b);
    size_t at = sizeof h + (size_t)h.n_deps * RG__DEP_BYTES + h.key_len;
    return (rg__slice){(const char *)b->data + at, b->len - at};
}

static bool dep_holds(rg__process *p, const uint8_t *dep) {
    rg_block *b = rg__process_get(p, RG__SPACE_DEPS, rg__dep_hash(dep));
    bool same = b && b->len == 8 && memcmp(b->data, dep + RG__DEP_ID, 8) == 0;
    rg_block_unref(b);
    return same;
}

static bool deps_hold(rg__process *p, const rg_block *b, const rg__value_head *h) {
    const uint8_t *dep = b->data + sizeof *h;
    for (uint32_t i = 0; i < h->n_deps; i++, dep += RG__DEP_BYTES)
        if (!dep_holds(p, dep)) return false;
    return true;
}

/* Hashes may collide, keys do not. */
static bool is_of(const rg_block *b, const rg__value_head *h, rg__slice key) {
    const uint8_t *at = b->data + sizeof *h + (size_t)h->n_deps * RG__DEP_BYTES;
    return h->key_len == key.len && memcmp(at, key.p, key.len) == 0;
}

static bool is_good(rg__process *p, const rg_block *b, rg__slice key, double early) {
    if (b->len < sizeof(rg__value_head)) return false;
    rg__value_head h = rg__value_head_of(b);
    int64_t margin = early > 0 ? (int64_t)fmin(h.took_ms * early, 1e12) : 0;
    return is_of(b, &h, key) && rg__now_ms() + margin < h.expires_ms && deps_hold(p, b, &h);
}

int rg__value_peek(const rg__values *v, rg__slice key, double early, rg__metrics *m,
                   rg_block **out) {
    tail t;
    *out = NULL;
    if (!v->process) return RG_CACHED_NONE;
    tail_of(key, &t);
    rg_block *b = rg__process_get(v->process, v->space, rg__value_hash(v, t.s));
    if (!b || !is_good(v->process, b, t.s, early)) {
        rg_block_unref(b);
        return RG_CACHED_NONE;
    }
    rg__count(m, RG__C_VALUE_PROCESS_HIT, 1);
    *out = b;
    return rg__value_head_of(b).absent ? RG_CACHED_ABSENT : RG_CACHED_VALUE;
}

/* Ticks of the clock that is cheap to ask: nothing is served for that long after its end. */
enum { TICK_MS = 10 };
static const uint64_t no_deps = UINT64_MAX;

int rg__value_peek_hold(const rg__values *v, rg__slice key, rg__metrics *m, rg_block **out,
                        rg_cache_hold *hold) {
    tail t;
    if (!v->process) return rg__value_peek(v, key, 0, m, out);
    tail_of(key, &t);
    hold->hash = rg__value_hash(v, t.s);
    hold->stamp = rg__process_stamp(v->process, v->space, hold->hash);
    hold->deps = rg__value_dropped(v);
    int found = rg__value_peek(v, key, 0, m, out);
    if (found != RG_CACHED_VALUE) return found;
    rg__value_head h = rg__value_head_of(*out);
    hold->until_ms = h.expires_ms - TICK_MS;
    if (h.n_deps == 0) hold->deps = no_deps;
    return found;
}

bool rg__value_holds(const rg__values *v, const rg_cache_hold *hold) {
    return v->process && rg__process_is_on(v->process) &&
           rg__process_stamp(v->process, v->space, hold->hash) == hold->stamp &&
           (hold->deps == no_deps || rg__value_dropped(v) == hold->deps) && rg__coarse_ms() < hold->until_ms;
}

int64_t rg__value_life(const rg__values *v, int64_t left_ms) {
    int64_t most = v->sliding ? (int64_t)(v->ttl_ms / 10) : INT64_MAX / 2;
    return left_ms < most ? left_ms : most;
}

rg_block *rg__value_block(const rg__value_head *h, const uint8_t *deps, rg__slice key,
                          rg__slice value) {
    size_t n_deps = (size_t)h->n_deps * RG__DEP_BYTES;
    size_t size = sizeof *h + n_deps + key.len + value.len;
    rg_block *b = size <= UINT32_MAX ? rg__block_new((uint32_t)size) : NULL;
    if (!b) return NULL;
    uint8_t *at = b->data;
    memcpy(at, h, sizeof *h);
    if (n_deps) memcpy(at += sizeof *h, deps, n_deps);
    else at += sizeof *h;
    memcpy(at + n_deps, key.p, key.len);
    if (value.len) memcpy(at + n_deps + key.len, value.p, value.len);
    return b;
}

/* Seconds that a block may stay, so that the expired make room; what counts is in its head. */
static uint32_t seconds(const rg__value_head *h) {
    int64_t left = (h->expires_ms - rg__now_ms()) / 1000 + 1;
    return left < 1 ? 1 : left > UINT32_MAX ? 0 : (uint32_t)left;
}

uint64_t rg__value_dropped(const rg__values *v) {
    return v->shared ? atomic_load(&v->shared->told->deps) : 0;
}

/* The stamp is taken before it is asked whether any generation was dropped: what drops one from now on
 * moves the stamp. When everything went, the item's stamp has another upper half. */
static bool keep_dep(const rg__values *v, const rg__value_item *it, const uint8_t *dep,
                     uint64_t dropped) {
    uint64_t hash = rg__dep_hash(dep);
    if (dep_holds(v->process, dep)) return true;
    uint64_t stamp = rg__process_stamp(v->process, RG__SPACE_DEPS, hash);
    if (stamp >> 32 != it->stamp >> 32 || rg__value_dropped(v) != dropped) return false;
    rg_block *g = rg__block_dup(dep + RG__DEP_ID, 8);
    bool kept = g && rg__process_put(v->process, RG__SPACE_DEPS, hash, g, 0, stamp);
    rg_block_unref(g);
    return kept;
}

void rg__value_keep(const rg__values *v, const rg__value_item *it, rg_block *b, uint64_t dropped) {
    if (!v->process || !b) return;
    rg__value_head h = rg__value_head_of(b);
    const uint8_t *dep = b->data + sizeof h;
    for (uint32_t i = 0; i < h.n_deps; i++)
        if (!keep_dep(v, it, dep + (size_t)i * RG__DEP_BYTES, dropped)) return;
    rg__process_put(v->process, v->space, it->hash, b, seconds(&h), it->stamp);
}

static bool begins(rg__slice s, const char *with, size_t len) {
    return s.len >= len && memcmp(s.p, with, len) == 0;
}

bool rg__values_invalidate(rg__shared *s, rg__process *p, rg__slice key) {
    if (begins(key, s->deps.text, s->deps.len)) {
        const uint8_t *id = (const uint8_t *)key.p + s->deps.len;
        if (key.len != s->deps.len + RG__DEP_ID) return true;
        atomic_fetch_add(&s->told->deps, 1);
        rg__process_drop(p, RG__SPACE_DEPS, rg__dep_hash(id));
        return true;
    }
    for (uint32_t i = 0; i < s->n_values; i++) {
        const rg__values *v = s->values[i];
        if (!begins(key, v->prefix, v->prefix_len)) continue;
        rg__slice tail = {key.p + v->prefix_len, key.len - v->prefix_len};
        rg__process_drop(p, v->space, rg__value_hash(v, tail));
        atomic_fetch_add(&s->told->values, 1);
        return true;
    }
    return false;
}
