/* SPDX-License-Identifier: MIT */
/* What `require "regolith.core"` loads: the cdef for the FFI, the values that only the C API can
 * make (null, the array marker) and JSON. Everything else goes through the FFI. */
#include "bindings.h"

#include <regolith/regolith.h>

extern const char rg__cdef_text[];

/* The metatable that marks a table as a JSON array. One per Lua state, whoever loads the module how
 * often: it lives in the registry. */
static void push_array_marker(lua_State *L) {
    if (luaL_newmetatable(L, "regolith.array")) {
        lua_pushliteral(L, "regolith.array");
        lua_setfield(L, -2, "__name");
    }
}

/* May the caller yield here? ngx_lua's coroutine library has no isyieldable. */
static int is_yieldable(lua_State *L) {
    lua_pushboolean(L, lua_isyieldable(L));
    return 1;
}

__attribute__((visibility("default"))) int luaopen_regolith_core(lua_State *L);

int luaopen_regolith_core(lua_State *L) {
    lua_settop(L, 0);
    push_array_marker(L);
    lua_createtable(L, 0, 12);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "array_mt");
    lua_pushstring(L, rg__cdef_text);
    lua_setfield(L, -2, "cdef");
    lua_pushinteger(L, RG_ABI);
    lua_setfield(L, -2, "abi");
    lua_pushstring(L, RG_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushcfunction(L, is_yieldable);
    lua_setfield(L, -2, "is_yieldable");
    rg__json_register(L, 1);
    rg__signal_register(L);
    return 1;
}
