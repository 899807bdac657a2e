/* SPDX-License-Identifier: MIT */
/* Lua values of JSON text. Strict: nothing is read that the standard does not allow. */
#include "json.h"

#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    lua_State *L;
    const char *start, *p, *end;
    char *scratch;       /* room for an unescaped string, anchored in stack slot 2; or NULL */
    const char *error;   /* static text */
    const char *error_at;
    int depth;
} reader;

static int refuse(reader *r, const char *at, const char *why) {
    r->error = why;
    r->error_at = at;
    return -1;
}

static int unexpected(reader *r, const char *why) {
    return refuse(r, r->p, r->p == r->end ? "the text ends too early" : why);
}

bool rg__json_utf8(const char *p, size_t len) {
    const unsigned char *s = (const unsigned char *)p, *end = s + len;
    while (s < end) {
        if (*s < 0x80) {
            s++;
            continue;
        }
        int more = *s >= 0xf0 ? 3 : *s >= 0xe0 ? 2 : 1;
        if (*s < 0xc2 || *s > 0xf4 || end - s <= more) return false;
        unsigned second = s[1];
        if ((*s == 0xe0 && second < 0xa0) || (*s == 0xed && second > 0x9f) ||
            (*s == 0xf0 && second < 0x90) || (*s == 0xf4 && second > 0x8f))
            return false;
        for (int i = 1; i <= more; i++)
            if ((s[i] & 0xc0) != 0x80) return false;
        s += more + 1;
    }
    return true;
}

static void skip_space(reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\t' || *r->p == '\r')) r->p++;
}

static bool take(reader *r, char c) {
    skip_space(r);
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

/* ---- strings ---- */

static int read_hex4(reader *r, unsigned *out) {
    *out = 0;
    for (int i = 0; i < 4; i++, r->p++) {
        char c = r->p < r->end ? *r->p : '\0';
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return unexpected(r, "four hexadecimal digits expected");
        *out = *out * 16 + digit;
    }
    return 0;
}

static char *put_utf8(char *out, unsigned c) {
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 63));
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    }
    return out;
}

/* After \u: one code point, of a surrogate pair too. */
static int read_code_point(reader *r, char **out) {
    const char *at = r->p - 2;
    unsigned c, low;
    if (read_hex4(r, &c) != 0) return -1;
    if (c >= 0xd800 && c < 0xe000) {
        if (c >= 0xdc00 || r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != 'u')
            return refuse(r, at, "half of a surrogate pair");
        r->p += 2;
        if (read_hex4(r, &low) != 0) return -1;
        if (low < 0xdc00 || low >= 0xe000) return refuse(r, at, "half of a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    *out = put_utf8(*out, c);
    return 0;
}

static int read_escape(reader *r, char **out) {
    static const char names[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    char c = ++r->p < r->end ? *r->p : '\0';
    if (c == 'u') {
        r->p++;
        return read_code_point(r, out);
    }
    for (const char *n = names; *n; n += 2) {
        if (*n == c) {
            *(*out)++ = n[1];
            r->p++;
            return 0;
        }
    }
    return unexpected(r, "an unknown escape");
}

/* From the first escape on: into the scratch, which is as long as the whole text. */
static int read_escaped(reader *r, const char *from) {
    if (!r->scratch) {
        r->scratch = lua_newuserdata(r->L, (size_t)(r->end - r->start) + 4);
        lua_replace(r->L, 2);
    }
    char *out = r->scratch;
    memcpy(out, from, (size_t)(r->p - from));
    out += r->p - from;
    while (r->p < r->end && *r->p != '"') {
        if (*r->p == '\\') {
            if (read_escape(r, &out) != 0) return -1;
        } else if ((unsigned char)*r->p < 0x20) {
            return refuse(r, r->p, "a control character in a string");
        } else {
            *out++ = *r->p++;
        }
    }
    if (r->p == r->end) return unexpected(r, "");
    size_t len = (size_t)(out - r->scratch);
    if (!rg__json_utf8(r->scratch, len)) return refuse(r, from, "a string is not UTF-8");
    lua_pushlstring(r->L, r->scratch, len);
    r->p++;
    return 0;
}

/* At the opening quote. Pushes the string. */
static int read_string(reader *r) {
    const char *from = ++r->p;
    while (r->p < r->end && *r->p != '"' && *r->p != '\\') {
        if ((unsigned char)*r->p < 0x20) return refuse(r, r->p, "a control character in a string");
        r->p++;
    }
    if (r->p == r->end) return unexpected(r, "");
    if (*r->p == '\\') return read_escaped(r, from);
    size_t len = (size_t)(r->p - from);
    if (!rg__json_utf8(from, len)) return refuse(r, from, "a string is not UTF-8");
    lua_pushlstring(r->L, from, len);
    r->p++;
    return 0;
}

/* ---- numbers ---- */

static const char *skip_digits(const char *p, const char *end) {
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

/* The end of the number at p, or NULL when it is none; *integral when it has digits only. */
static const char *number_end(const char *p, const char *end, bool *integral) {
    const char *from;
    if (p < end && *p == '-') p++;
    from = p;
    p = skip_digits(p, end);
    if (p == from || (*from == '0' && p - from > 1)) return NULL;
    *integral = true;
    if (p < end && *p == '.') {
        *integral = false;
        from = ++p;
        p = skip_digits(p, end);
        if (p == from) return NULL;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        *integral = false;
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        from = p;
        p = skip_digits(p, end);
        if (p == from) return NULL;
    }
    return p;
}

/* Pushes an integer of any size, exactly. */
static void push_integer(reader *r, const char *p, const char *end) {
    lua_State *L = r->L;
    bool negative = *p == '-', fits = true;
    uint64_t v = 0;
    for (const char *d = p + negative; d < end; d++) {
        unsigned digit = (unsigned)(*d - '0');
        if (v > (UINT64_MAX - digit) / 10) fits = false;
        v = v * 10 + digit;
    }
    if (negative && v > (uint64_t)1 << 63) fits = false;
    if (!fits) {
        lua_pushlstring(L, p, (size_t)(end - p));
    } else if (v <= (uint64_t)1 << 53) {
        lua_pushnumber(L, negative && v ? -(double)v : (double)v);
    } else {
        lua_pushvalue(L, lua_upvalueindex(2));
        lua_pushnumber(L, (double)(v >> 32));
        lua_pushnumber(L, (double)(v & 0xffffffffu));
        lua_pushboolean(L, negative);
        lua_call(L, 3, 1);
    }
}

static int push_double(reader *r, const char *p, const char *end) {
    static locale_t plain; /* made once, kept for the life of the process */
    char text[64];
    size_t len = (size_t)(end - p);
    char *copy = len < sizeof text ? text : lua_newuserdata(r->L, len + 1);
    memcpy(copy, p, len);
    copy[len] = '\0';
    if (!plain) plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double v = plain ? strtod_l(copy, NULL, plain) : strtod(copy, NULL);
    if (copy != text) lua_pop(r->L, 1);
    if (!isfinite(v)) return refuse(r, p, "a number too large for a double");
    lua_pushnumber(r->L, v);
    return 0;
}

static int read_number(reader *r) {
    bool integral = false;
    const char *from = r->p, *end = number_end(r->p, r->end, &integral);
    if (!end) return refuse(r, from, "not a number");
    r->p = end;
    if (!integral) return push_double(r, from, end);
    push_integer(r, from, end);
    return 0;
}

/* ---- values ---- */

static int read_value(reader *r);

static int read_array(reader *r) {
    lua_State *L = r->L;
    lua_newtable(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_setmetatable(L, -2);
    r->p++;
    if (take(r, ']')) return 0;
    for (int i = 1;; i++) {
        if (read_value(r) != 0) return -1;
        lua_rawseti(L, -2, i);
        if (take(r, ']')) return 0;
        if (!take(r, ',')) return unexpected(r, "',' or ']' expected");
    }
}

static int read_object(reader *r) {
    lua_State *L = r->L;
    lua_newtable(L);
    r->p++;
    if (take(r, '}')) return 0;
    for (;;) {
        skip_space(r);
        if (r->p == r->end || *r->p != '"') return unexpected(r, "a name in quotes expected");
        if (read_string(r) != 0) return -1;
        if (!take(r, ':')) return unexpected(r, "':' expected");
        if (read_value(r) != 0) return -1;
        lua_rawset(L, -3);
        if (take(r, '}')) return 0;
        if (!take(r, ',')) return unexpected(r, "',' or '}' expected");
    }
}

static int read_nested(reader *r) {
    if (++r->depth > RG_JSON_MAX_DEPTH) return refuse(r, r->p, "nested deeper than 100");
    luaL_checkstack(r->L, 8, "JSON");
    int rc = *r->p == '[' ? read_array(r) : read_object(r);
    r->depth--;
    return rc;
}

static int read_word(reader *r, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(r->end - r->p) < len || memcmp(r->p, word, len) != 0)
        return refuse(r, r->p, "not a JSON value");
    r->p += len;
    if (*word == 'n') lua_pushlightuserdata(r->L, NULL);
    else lua_pushboolean(r->L, *word == 't');
    return 0;
}

static int read_value(reader *r) {
    skip_space(r);
    if (r->p == r->end) return unexpected(r, "");
    switch (*r->p) {
    case '{':
    case '[': return read_nested(r);
    case '"': return read_string(r);
    case 't': return read_word(r, "true");
    case 'f': return read_word(r, "false");
    case 'n': return read_word(r, "null");
    default: break;
    }
    if (*r->p == '-' || (*r->p >= '0' && *r->p <= '9')) return read_number(r);
    return refuse(r, r->p, "not a JSON value");
}

int rg__json_decode(lua_State *L) {
    reader r;
    size_t len = 0;
    memset(&r, 0, sizeof r);
    luaL_checktype(L, 1, LUA_TSTRING);
    lua_settop(L, 2); /* slot 2 anchors the scratch */
    r.L = L;
    r.start = r.p = lua_tolstring(L, 1, &len);
    r.end = r.start + len;
    int rc = read_value(&r);
    if (rc == 0) {
        skip_space(&r);
        if (r.p < r.end) rc = refuse(&r, r.p, "text after the value");
    }
    if (rc == 0) return 1;
    lua_pushnil(L);
    lua_pushfstring(L, "%s at byte %d", r.error, (int)(r.error_at - r.start) + 1);
    lua_pushinteger(L, (lua_Integer)(r.error_at - r.start) + 1);
    return 3;
}

/* Makes int64_t and uint64_t objects: no C API does. */
static const char maker[] =
    "local ffi = require('ffi')\n"
    "local i64, u64 = ffi.typeof('int64_t'), ffi.typeof('uint64_t')\n"
    "return function(high, low, negative)\n"
    "  local v = u64(high) * 4294967296ULL + u64(low)\n"
    "  if negative then return -i64(v) end\n"
    "  return v <= 9223372036854775807ULL and i64(v) or v\n"
    "end\n";

void rg__json_register(lua_State *L, int array_mt) {
    lua_pushvalue(L, array_mt);
    lua_pushcclosure(L, rg__json_encode, 1);
    lua_setfield(L, -2, "json_encode");
    lua_pushvalue(L, array_mt);
    if (luaL_loadstring(L, maker) != 0) lua_error(L);
    lua_call(L, 0, 1);
    lua_pushcclosure(L, rg__json_decode, 2);
    lua_setfield(L, -2, "json_decode");
}
