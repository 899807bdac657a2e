/* SPDX-License-Identifier: MIT */
/* Feeds: the streams that an entity's changes are told on, by kind of write and by field. */
#include "base/alloc.h"
#include "base/err.h"
#include "schema/define.h"

enum { MAX_FEEDS = 16, NAME_MAX = 128, ALL_KINDS = RG_FEED_INSERT | RG_FEED_UPDATE | RG_FEED_DELETE };

bool rg__feed_name_valid(const char *name, size_t len) {
    if (len == 0 || len > NAME_MAX) return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '_' && c != '-' && c != '.') return false;
    }
    return true;
}

void rg__feed_deinit(rg__feed *f) {
    rg__free(f->stream);
    rg__free(f->mask);
}

static int check(const rg_type *t, const rg_feed_opts *o, rg_err *err) {
    const char *name = o->stream ? o->stream : "";
    if (t->frozen) return rg__fail(err, RG_EMISUSE, "%s: the type is frozen", t->name);
    if (!rg__feed_name_valid(name, strlen(name)))
        return rg__type_fail(t, NULL, err, "a stream's name is 1 to %d letters, digits, . - and _",
                             NAME_MAX);
    if (o->kinds & ~(uint32_t)ALL_KINDS)
        return rg__type_fail(t, NULL, err, "stream %s: unknown kind of write", name);
    if (t->n_feeds == MAX_FEEDS)
        return rg__type_fail(t, NULL, err, "more than %d streams", MAX_FEEDS);
    for (uint32_t i = 0; i < t->n_feeds; i++)
        if (strcmp(t->feeds[i].stream, name) == 0)
            return rg__type_fail(t, NULL, err, "stream %s is there twice", name);
    return RG_OK;
}

static int take_fields(const rg_type *t, rg__feed *f, const rg_feed_opts *o, rg_err *err) {
    if (o->n_fields == 0) return RG_OK;
    f->mask = rg__calloc(t->n_columns, 1);
    if (!f->mask) return rg__fail_memory(err);
    for (uint32_t i = 0; i < o->n_fields; i++) {
        int col = rg__type_column_find(t, o->fields[i], strlen(o->fields[i]));
        if (col < 1)
            return rg__type_fail(t, NULL, err, "stream %s: there is no field \"%s\"", o->stream,
                                 o->fields[i]);
        f->mask[col] = 1;
    }
    return RG_OK;
}

int rg_type_feed(rg_type *t, const rg_feed_opts *opts, rg_err *err) {
    rg_feed_opts o = {0};
    int rc = rg__opts_take(&o, sizeof o, opts, "rg_feed_opts", err);
    if (rc >= 0) rc = check(t, &o, err);
    if (rc < 0) return rc;
    rg__feed f = {.stream = rg__strdup(o.stream), .kinds = o.kinds ? o.kinds : ALL_KINDS};
    rg__feed *grown = f.stream ? rg__array_grow(t->feeds, t->n_feeds, sizeof f) : NULL;
    rc = grown ? take_fields(t, &f, &o, err) : rg__fail_memory(err);
    if (grown) t->feeds = grown;
    if (rc < 0) rg__feed_deinit(&f);
    else t->feeds[t->n_feeds++] = f;
    return rc;
}

bool rg__feed_wants(const rg_type *t, const rg__feed *f, int write, const uint8_t *mask) {
    static const uint32_t kinds[] = {[RG__FEED_WRITE_INSERT] = RG_FEED_INSERT,
                                     [RG__FEED_WRITE_UPDATE] = RG_FEED_UPDATE,
                                     [RG__FEED_WRITE_DELETE] = RG_FEED_DELETE};
    if (!(f->kinds & kinds[write])) return false;
    if (write != RG__FEED_WRITE_UPDATE || !f->mask || !mask) return true;
    for (uint32_t i = 1; i < t->n_columns; i++)
        if (f->mask[i] && mask[i]) return true;
    return false;
}

bool rg__type_tells(const rg_type *t, int write, const uint8_t *mask) {
    for (uint32_t i = 0; i < t->n_feeds; i++)
        if (rg__feed_wants(t, &t->feeds[i], write, mask)) return true;
    return false;
}
