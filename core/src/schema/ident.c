/* SPDX-License-Identifier: MIT */
/* Names: SQL identifiers and their quoting, entity and field names. */
#include "base/alloc.h"
#include "base/err.h"
#include "schema/define.h"

enum { MAX_CHARS = 64 };

static bool has_control(const char *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7F) return true;
    return false;
}

/* MySQL keeps identifiers in three-byte UTF-8. */
static bool has_supplementary(const char *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)p[i] >= 0xF0) return true;
    return false;
}

/* What is wrong with a name, or NULL. */
static const char *fault_of_name(const char *name, size_t len) {
    size_t chars;
    if (len == 0) return "is empty";
    if (memchr(name, 0, len)) return "holds a NUL byte";
    if (!rg__utf8_valid(name, len, &chars)) return "is not valid UTF-8";
    if (chars > MAX_CHARS) return "is longer than 64 characters";
    if (has_control(name, len)) return "holds a control character";
    return NULL;
}

static const char *fault_of_ident(const char *name, size_t len) {
    const char *fault = fault_of_name(name, len);
    if (fault) return fault;
    if (has_supplementary(name, len)) return "holds a character beyond U+FFFF";
    if (name[len - 1] == ' ') return "ends with a space";
    return NULL;
}

int rg__ident_quote(rg__buf *out, const char *name, size_t len, rg_err *err) {
    const char *fault = fault_of_ident(name, len);
    if (fault) return rg__fail(err, RG_EINVALID, "identifier %s", fault);
    rg__buf_char(out, '`');
    for (size_t i = 0; i < len; i++) {
        if (name[i] == '`') rg__buf_char(out, '`');
        rg__buf_char(out, name[i]);
    }
    rg__buf_char(out, '`');
    return RG_OK;
}

int rg__ident_dup_quoted(const rg_type *t, const char *field, const char *name, char **out,
                         rg_err *err) {
    size_t len = strlen(name);
    const char *fault = fault_of_ident(name, len);
    if (fault) return rg__type_fail(t, field, err, "SQL name \"%s\" %s", name, fault);
    rg__buf quoted = {0};
    rg__ident_quote(&quoted, name, len, err);
    rg__buf_cstr(&quoted);
    *out = quoted.p;
    if (!quoted.failed) return RG_OK;
    rg__buf_deinit(&quoted);
    *out = NULL;
    return rg__fail_memory(err);
}

int rg__name_check(const rg_type *t, const char *field, const char *what, const char *name,
                   rg_err *err) {
    const char *fault = fault_of_name(name ? name : "", name ? strlen(name) : 0);
    if (!fault) return RG_OK;
    return rg__type_fail(t, field, err, "%s name %s", what, fault);
}
