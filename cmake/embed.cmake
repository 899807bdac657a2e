# SPDX-License-Identifier: MIT
# Turns files into C text. Run with cmake -P:
#   INPUTS  files, separated by |
#   OUT     path of the .c and .h without the suffix
#   PREFIX  of each symbol; the file's name without its suffix follows
#   SYMBOL  instead of PREFIX: the whole symbol, for a single file
cmake_minimum_required(VERSION 3.22)
foreach(needed INPUTS OUT)
  if(NOT DEFINED ${needed})
    message(FATAL_ERROR "embed.cmake needs -D${needed}=")
  endif()
endforeach()
get_filename_component(header "${OUT}.h" NAME)
string(TOUPPER "${header}" guard)
string(MAKE_C_IDENTIFIER "${guard}" guard)
set(h "/* SPDX-License-Identifier: MIT */\n/* Generated. NUL-terminated text. */\n#ifndef ${guard}\n#define ${guard}\n\n")
set(c "/* SPDX-License-Identifier: MIT */\n/* Generated. */\n#include \"${header}\"\n")

string(REPLACE "|" ";" inputs "${INPUTS}")
foreach(file IN LISTS inputs)
  if(DEFINED SYMBOL)
    set(symbol "${SYMBOL}")
  else()
    get_filename_component(name "${file}" NAME_WE)
    string(MAKE_C_IDENTIFIER "${PREFIX}${name}" symbol)
  endif()
  # Every byte as \xNN, 32 a line: no quoting rule to get wrong, and no digit can follow an escape.
  file(READ "${file}" hex HEX)
  string(REGEX REPLACE "(..)" "\\\\x\\1" bytes "${hex}")
  string(REPEAT "...." 32 line)
  string(REGEX REPLACE "(${line})" "\\1\"\n    \"" bytes "${bytes}")
  string(APPEND h "extern const char ${symbol}[];\n")
  string(APPEND c "\nconst char ${symbol}[] =\n    \"${bytes}\";\n")
endforeach()

file(WRITE "${OUT}.h" "${h}\n#endif\n")
file(WRITE "${OUT}.c" "${c}")
