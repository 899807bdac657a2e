/* SPDX-License-Identifier: MIT */
/* Filling and prefixing rg_err. */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    "OK",
#define X(number, name, text) [number] = #name,
    RG_ERROR_MAP(X)
#undef X
};

#define X(number, name, text) _Static_assert(RG_E##name == -(number), "enum and map disagree");
RG_ERROR_MAP(X)
#undef X

const char *rg_code_name(int code) {
    int n = (int)(sizeof names / sizeof *names);
    return code > 0 || code <= -n ? "UNKNOWN" : names[-code];
}

static int usual_class(int code) {
    switch (code) {
    case RG_EDEADLOCK: return RG_CLASS_RETRY;
    case RG_EUNAVAILABLE:
    case RG_EACCESS:
    case RG_EREAD_ONLY: return RG_CLASS_WAIT;
    case RG_ECOMMIT_UNKNOWN: return RG_CLASS_AMBIGUOUS;
    case RG_EINVALID:
    case RG_EDUPLICATE_KEY:
    case RG_EFOREIGN_KEY:
    case RG_ECONSTRAINT:
    case RG_ECONFLICT:
    case RG_ECORRUPT:
    case RG_ESCHEMA: return RG_CLASS_PERMANENT;
    default: return RG_CLASS_NONE;
    }
}

static int usually_retriable(int code) {
    return code == RG_ENO_MEMORY || code == RG_ETIMEOUT || code == RG_EUNAVAILABLE ||
           code == RG_EDEADLOCK || code == RG_EBACKPRESSURE || code == RG_EPENDING ||
           code == RG_EREAD_ONLY;
}

/* Ends a text that was cut at len before the character that the cut went through. */
static void trim_cut(char *text, size_t len) {
    size_t at = len;
    while (at > 0 && len - at < 3 && ((unsigned char)text[at - 1] & 0xC0) == 0x80) at--;
    if (at == 0) return;
    unsigned char lead = (unsigned char)text[at - 1];
    size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (want > len - at + 1) text[at - 1] = '\0';
}

static void copy_text(char *to, size_t cap, const char *from) {
    size_t len = from ? strlen(from) : 0;
    bool cut = len >= cap;
    if (cut) len = cap - 1;
    if (len) memcpy(to, from, len);
    to[len] = '\0';
    if (cut) trim_cut(to, len);
}

static void format_text(char *to, size_t cap, const char *fmt, va_list args) {
    int n = vsnprintf(to, cap, fmt, args);
    if (n < 0) to[0] = '\0';
    else if ((size_t)n >= cap) trim_cut(to, cap - 1);
}

/* The new error is made aside, because the arguments may point into the old one. */
static int fill(rg_err *err, int code, const char *field, const char *fmt, va_list args) {
    if (!err) return code;
    rg_err e = {.code = code, .domain = RG_DOMAIN_ENGINE, .item = -1};
    e.cls = usual_class(code);
    e.retriable = usually_retriable(code);
    copy_text(e.field, sizeof e.field, field);
    format_text(e.message, sizeof e.message, fmt, args);
    *err = e;
    return code;
}

int rg__fail(rg_err *err, int code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, code, NULL, fmt, args);
    va_end(args);
    return code;
}

int rg__fail_field(rg_err *err, const char *field, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, RG_EINVALID, field, fmt, args);
    va_end(args);
    return RG_EINVALID;
}

int rg__fail_memory(rg_err *err) { return rg__fail(err, RG_ENO_MEMORY, "out of memory"); }

int rg__err_prefix(rg_err *err, const char *fmt, ...) {
    if (!err) return RG_OK;
    char text[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    format_text(text, sizeof text, fmt, args);
    va_end(args);
    size_t used = strlen(text);
    copy_text(text + used, sizeof text - used, err->message);
    memcpy(err->message, text, strlen(text) + 1);
    return err->code;
}

void rg__err_about(rg_err *err, const char *doing, const char *entity) {
    if (err && !err->entity[0]) rg__err_prefix(err, "%s %s: ", doing, entity);
}

void rg__err_clear(rg_err *err) {
    if (!err) return;
    *err = (rg_err){.item = -1};
}

void rg__err_set_entity(rg_err *err, const char *entity) {
    if (err) copy_text(err->entity, sizeof err->entity, entity);
}
