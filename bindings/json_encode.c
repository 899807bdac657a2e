/* SPDX-License-Identifier: MIT */
/* JSON text of Lua values: keys sorted by bytes, shortest digits, so that equal values give equal
 * text. The output lives in a userdata on the stack: whatever throws leaves nothing behind. */
#include "json.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_CDATA = 10 }; /* LuaJIT's lua_type of an FFI object */

typedef struct writer {
    lua_State *L;
    int slot;         /* stack index of the userdata behind p */
    int marker;       /* index of the array marker's metatable */
    char *p;
    size_t len, cap;
    int depth;
    char error[160];
} writer;

typedef struct key {
    const char *p; /* borrowed from the string in the table */
    size_t len;
} key;

static int refuse(writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int refuse(writer *w, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(w->error, sizeof w->error, fmt, args);
    va_end(args);
    return -1;
}

static char *reserve(writer *w, size_t n) {
    if (w->cap - w->len < n) {
        size_t cap = w->cap;
        while (cap - w->len < n) {
            if (cap > SIZE_MAX / 4) luaL_error(w->L, "JSON text too long");
            cap *= 2;
        }
        char *p = lua_newuserdata(w->L, cap);
        memcpy(p, w->p, w->len);
        lua_replace(w->L, w->slot);
        w->p = p;
        w->cap = cap;
    }
    return w->p + w->len;
}

static void add(writer *w, const char *p, size_t n) {
    memcpy(reserve(w, n), p, n);
    w->len += n;
}

static void add_char(writer *w, char c) { add(w, &c, 1); }

/* Digits of a double: integers in full up to 2^53, else the shortest that read back the same. */
static int add_number(writer *w, double v) {
    char text[40];
    if (!isfinite(v)) return refuse(w, "%s has no JSON form", isnan(v) ? "NaN" : "an infinite number");
    if (v == 0) v = 0; /* no -0 */
    int n = 0;
    if (fabs(v) <= 9007199254740992.0 && v == floor(v)) {
        n = snprintf(text, sizeof text, "%.0f", v);
        add(w, text, (size_t)n);
        return 0;
    }
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    size_t len = 0;
    for (int i = 0; i < n; i++) { /* the decimal point of the process' locale may have several bytes */
        if (strchr("0123456789+-e", text[i])) text[len++] = text[i];
        else if (len && text[len - 1] != '.') text[len++] = '.';
    }
    add(w, text, len);
    return 0;
}

static int add_string(writer *w, const char *p, size_t n) {
    static const char hex[] = "0123456789abcdef";
    if (!rg__json_utf8(p, n)) return refuse(w, "a string is not UTF-8");
    add_char(w, '"');
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        add(w, p + from, i - from);
        from = i + 1;
        const char *at = c == 0 ? NULL : strchr("\"\"\\\\\bb\ff\nn\rr\tt", c);
        char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        if (at) escape[1] = at[1];
        add(w, escape, at ? 2 : 6);
    }
    add(w, p + from, n - from);
    add_char(w, '"');
    return 0;
}

/* int64_t and uint64_t print as "123LL" and "123ULL". */
static int add_cdata(writer *w, int at) {
    size_t n = 0;
    const char *text = luaL_callmeta(w->L, at, "__tostring") ? lua_tolstring(w->L, -1, &n) : NULL;
    size_t digits = text ? strspn(text, "-0123456789") : 0;
    if (digits == 0 || (strcmp(text + digits, "LL") != 0 && strcmp(text + digits, "ULL") != 0))
        return refuse(w, "a cdata that is no 64-bit integer has no JSON form");
    add(w, text, digits);
    lua_pop(w->L, 1);
    return 0;
}

static int add_value(writer *w, int at);

static int add_array(writer *w, int at, size_t n) {
    add_char(w, '[');
    for (size_t i = 1; i <= n; i++) {
        if (i > 1) add_char(w, ',');
        lua_rawgeti(w->L, at, (int)i);
        if (add_value(w, lua_gettop(w->L)) != 0) return -1;
        lua_pop(w->L, 1);
    }
    add_char(w, ']');
    return 0;
}

static int compare_keys(const void *a, const void *b) {
    const key *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->len < y->len ? x->len : y->len);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static int add_object(writer *w, int at, size_t n) {
    lua_State *L = w->L;
    key *keys = lua_newuserdata(L, (n + 1) * sizeof *keys);
    size_t i = 0;
    for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
        keys[i].p = lua_tolstring(L, -2, &keys[i].len);
        i++;
    }
    qsort(keys, n, sizeof *keys, compare_keys);
    add_char(w, '{');
    for (i = 0; i < n; i++) {
        if (i > 0) add_char(w, ',');
        if (add_string(w, keys[i].p, keys[i].len) != 0) return -1;
        add_char(w, ':');
        lua_pushlstring(L, keys[i].p, keys[i].len);
        lua_rawget(L, at);
        if (add_value(w, lua_gettop(L)) != 0) return -1;
        lua_pop(L, 1);
    }
    add_char(w, '}');
    lua_pop(L, 1);
    return 0;
}

static int is_marked(writer *w, int at) {
    if (!lua_getmetatable(w->L, at)) return 0;
    int same = lua_rawequal(w->L, -1, w->marker);
    lua_pop(w->L, 1);
    return same;
}

/* Counts the keys and tells arrays from objects: *array 1 or 0. */
static int look_at_keys(writer *w, int at, size_t *n, int *array) {
    lua_State *L = w->L;
    size_t names = 0, numbers = 0;
    double last = 0;
    for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            names++;
            continue;
        }
        double i = lua_type(L, -2) == LUA_TNUMBER ? lua_tonumber(L, -2) : 0;
        if (i < 1 || i != floor(i)) return refuse(w, "a table key is neither a string nor a position");
        numbers++;
        if (i > last) last = i;
    }
    *array = is_marked(w, at) || numbers > 0;
    if (*array && names > 0) return refuse(w, "a table mixes positions and names");
    if (last != (double)numbers) return refuse(w, "an array has holes (use regolith.null)");
    *n = names + numbers;
    return 0;
}

static int add_table(writer *w, int at) {
    size_t n = 0;
    int array = 0;
    if (++w->depth > RG_JSON_MAX_DEPTH)
        return refuse(w, "nested deeper than %d (or within itself)", RG_JSON_MAX_DEPTH);
    luaL_checkstack(w->L, 8, "JSON");
    if (look_at_keys(w, at, &n, &array) != 0) return -1;
    int rc = array ? add_array(w, at, n) : add_object(w, at, n);
    w->depth--;
    return rc;
}

static int add_value(writer *w, int at) {
    lua_State *L = w->L;
    size_t n;
    const char *p;
    switch (lua_type(L, at)) {
    case LUA_TNIL: add(w, "null", 4); return 0;
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, at)) add(w, "true", 4);
        else add(w, "false", 5);
        return 0;
    case LUA_TNUMBER: return add_number(w, lua_tonumber(L, at));
    case LUA_TSTRING: p = lua_tolstring(L, at, &n); return add_string(w, p, n);
    case LUA_TTABLE: return add_table(w, at);
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, at)) break;
        add(w, "null", 4);
        return 0;
    case TYPE_CDATA: return add_cdata(w, at);
    default: break;
    }
    return refuse(w, "a %s has no JSON form", luaL_typename(L, at));
}

int rg__json_encode(lua_State *L) {
    writer w;
    memset(&w, 0, offsetof(writer, error));
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    w.L = L;
    w.cap = 256;
    w.p = lua_newuserdata(L, w.cap);
    w.slot = 2;
    lua_pushvalue(L, lua_upvalueindex(1));
    w.marker = 3;
    if (add_value(&w, 1) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, w.error);
        return 2;
    }
    lua_pushlstring(L, w.p, w.len);
    return 1;
}
