/* SPDX-License-Identifier: MIT */
/* JSON in and out of Lua values; internal to the bindings.
 *
 *   text = json_encode(value)             or nil, message
 *   value = json_decode(text)             or nil, message, offset of the fault (bytes from 1)
 *
 * null is lightuserdata(NULL). A table is an array when it has the array marker as metatable or only
 * the keys 1..n; an empty table without the marker is an object. Decoding marks every array. Integers
 * beyond 2^53 are int64_t or uint64_t, beyond 64 bits their digits as a string. */
#ifndef RG_BINDINGS_JSON_H
#define RG_BINDINGS_JSON_H

#include "bindings.h"

#include <stdbool.h>
#include <stddef.h>

int rg__json_encode(lua_State *L); /* upvalue 1: the marker */
int rg__json_decode(lua_State *L); /* upvalue 1: the marker, 2: maker of 64-bit integers */
/* Well-formed UTF-8: no overlong forms, no surrogates, at most U+10FFFF. Pure. */
bool rg__json_utf8(const char *p, size_t len);

#endif
