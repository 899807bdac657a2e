/* SPDX-License-Identifier: MIT */
/* Error replies by their first word: code and class (one table). */
#include "redis/redis.h"

#include "base/err.h"

typedef struct reply_class {
    const char *word;
    int code, cls;
    bool retriable;
} reply_class;

/* clang-format off */
static const reply_class classes[] = {
    {"NOSCRIPT",   RG_EREDIS,       RG_CLASS_RETRY,     true},
    {"MOVED",      RG_EREDIS,       RG_CLASS_RETRY,     true},
    {"ASK",        RG_EREDIS,       RG_CLASS_RETRY,     true},
    {"TRYAGAIN",   RG_EREDIS,       RG_CLASS_RETRY,     true},
    {"READONLY",   RG_EREAD_ONLY,   RG_CLASS_RECONNECT, true},
    {"UNBLOCKED",  RG_EUNAVAILABLE, RG_CLASS_RECONNECT, true},
    {"LOADING",    RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"MASTERDOWN", RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"CLUSTERDOWN",RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"BUSY",       RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"UNKILLABLE", RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"OOM",        RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"MISCONF",    RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"NOREPLICAS", RG_EUNAVAILABLE, RG_CLASS_WAIT,      true},
    {"EVICTS",     RG_ECONFIG,      RG_CLASS_PERMANENT, false}, /* a script's own: life.lua */
    {"NOAUTH",     RG_EACCESS,      RG_CLASS_WAIT,      false},
    {"WRONGPASS",  RG_EACCESS,      RG_CLASS_WAIT,      false},
    {"NOPERM",     RG_EACCESS,      RG_CLASS_WAIT,      false},
    {"WRONGTYPE",  RG_EREDIS,       RG_CLASS_PERMANENT, false},
    {"CROSSSLOT",  RG_EREDIS,       RG_CLASS_PERMANENT, false},
    {"EXECABORT",  RG_EREDIS,       RG_CLASS_PERMANENT, false},
    {"NOPROTO",    RG_EREDIS,       RG_CLASS_PERMANENT, false},
};

/* Errors that begin with a plain ERR, told apart by what follows. */
static const reply_class texts[] = {
    {"max number of clients",        RG_EUNAVAILABLE, RG_CLASS_RECONNECT, true},
    {"Function not found",           RG_EREDIS,       RG_CLASS_RETRY,     true},
    {"invalid password",             RG_EACCESS,      RG_CLASS_WAIT,      false},
    {"without any password",         RG_EACCESS,      RG_CLASS_WAIT,      false},
    {"operation not permitted",      RG_EACCESS,      RG_CLASS_WAIT,      false},
    {"DB index is out of range",     RG_ECONFIG,      RG_CLASS_PERMANENT, false},
};
/* clang-format on */

static const reply_class other = {"ERR", RG_EREDIS, RG_CLASS_PERMANENT, false};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool has_text(rg__slice s, const char *text) {
    return s.len && memmem(s.p, s.len, text, strlen(text)) != NULL;
}

static rg__slice first_word(rg__slice s) {
    const char *space = s.len ? memchr(s.p, ' ', s.len) : NULL;
    return (rg__slice){s.p, space ? (size_t)(space - s.p) : s.len};
}

static const reply_class *by_word(rg__slice word) {
    for (size_t i = 0; i < COUNT(classes); i++)
        if (rg__slice_eq(word, rg__slice_of(classes[i].word))) return &classes[i];
    return NULL;
}

/* Before version 7 an error raised inside a script is wrapped; its own words come after places:
 * "ERR Error running script (call to f_1): @user_script:12: @user_script: 12: -OOM command ..." */
static rg__slice unwrap(rg__slice s) {
    const char *at = s.len ? memmem(s.p, s.len, "@user_script", 12) : NULL;
    while (at) {
        rg__slice rest = {at, s.len - (size_t)(at - s.p)};
        at = memmem(rest.p, rest.len, ": ", 2);
        if (!at) break;
        at += 2;
        if (*at == '-') at++;
        if (*at >= 'A' && *at <= 'Z') return (rg__slice){at, s.len - (size_t)(at - s.p)};
    }
    return s;
}

static const reply_class *classify(rg__slice s) {
    const reply_class *c = by_word(first_word(s));
    for (size_t i = 0; !c && i < COUNT(texts); i++)
        if (has_text(s, texts[i].word)) c = &texts[i];
    if (!c) c = by_word(first_word(unwrap(s)));
    return c ? c : &other;
}

int rg__redis_error(const redisReply *reply, rg_err *err) {
    rg__slice s = {reply->str, reply->str ? (size_t)reply->len : 0};
    const reply_class *c = classify(s);
    int shown = s.len > 200 ? 200 : (int)s.len;
    rg__fail(err, c->code, "Redis says: %.*s", shown, s.len ? s.p : "");
    if (err) {
        err->domain = RG_DOMAIN_REDIS;
        err->cls = c->cls;
        err->retriable = c->retriable;
    }
    return c->code;
}

bool rg__redis_worth_another(const rg_err *why, int rc, int tries, const rg__ctx *ctx) {
    return rc == RG_EUNAVAILABLE && why->cls == RG_CLASS_RECONNECT && tries < 2 &&
           rg__left_ms(ctx->deadline_ms) > 0;
}
