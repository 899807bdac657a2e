/* SPDX-License-Identifier: MIT */
/* What the files of the Lua module tell each other. */
#ifndef RG_BINDINGS_H
#define RG_BINDINGS_H

#include <lauxlib.h>
#include <lua.h>

/* Pushes json_encode and json_decode into the table on top of the stack, with the array marker and
 * the int64 maker as upvalues. array_mt: absolute index of the marker's metatable. */
void rg__json_register(lua_State *L, int array_mt);
/* Pushes signal_watch, signal_taken and signal_unwatch into the table on top of the stack. */
void rg__signal_register(lua_State *L);

/* The longest nesting of JSON values that is read or written. */
enum { RG_JSON_MAX_DEPTH = 100 };

#endif
