# SPDX-License-Identifier: MIT
# Makes the text for ffi.cdef out of the public headers. Run with cmake -P:
#   CC       the C compiler, as preprocessor
#   HEADERS  folder of the public headers
#   TEXT     file to write the text to
#   OUT      path of the .c and .h that hold it, without the suffix
# Under __RG_CDEF__ the headers leave out their #includes and RG_API is empty, so what is left is
# declarations over the types that LuaJIT knows. Their order comes from the #includes.
cmake_minimum_required(VERSION 3.22)
file(GLOB pending RELATIVE "${HEADERS}" "${HEADERS}/*.h")
list(SORT pending)

# Depth first: a header's own #includes go before it.
set(ordered "")
set(visiting "")
macro(visit header)
  if(NOT "${header}" IN_LIST ordered AND NOT "${header}" IN_LIST visiting)
    list(APPEND visiting "${header}")
    file(STRINGS "${HEADERS}/${header}" includes_of_${header} REGEX "^#[ ]*include[ ]+<regolith/[^>]+>")
    foreach(include_line IN LISTS includes_of_${header})
      string(REGEX REPLACE "^.*<regolith/([^>]+)>.*$" "\\1" included "${include_line}")
      if(NOT EXISTS "${HEADERS}/${included}")
        message(FATAL_ERROR "${header} includes <regolith/${included}>, which is not there")
      endif()
      visit("${included}")
    endforeach()
    list(APPEND ordered "${header}")
  endif()
endmacro()
foreach(header IN LISTS pending)
  visit("${header}")
endforeach()

set(all "")
foreach(header IN LISTS ordered)
  if(NOT header STREQUAL "regolith.h") # the umbrella declares nothing
    string(APPEND all "#include \"${HEADERS}/${header}\"\n")
  endif()
endforeach()
file(WRITE "${OUT}_input.c" "${all}")

execute_process(
  COMMAND "${CC}" -E -P -D__RG_CDEF__ -x c "${OUT}_input.c"
  OUTPUT_VARIABLE text ERROR_VARIABLE complaint RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "the public headers do not preprocess:\n${complaint}")
endif()
string(STRIP "${text}" text)
foreach(refused "__attribute__" "__extension__" "__asm__" "#" "static ")
  string(FIND "${text}" "${refused}" at)
  if(NOT at EQUAL -1)
    string(SUBSTRING "${text}" ${at} 120 excerpt)
    message(FATAL_ERROR "ffi.cdef does not take this (keep it under #ifndef __RG_CDEF__): ${excerpt}")
  endif()
endforeach()
file(WRITE "${TEXT}" "${text}\n")

set(INPUTS "${TEXT}")
set(SYMBOL rg__cdef_text)
include("${CMAKE_CURRENT_LIST_DIR}/embed.cmake")
