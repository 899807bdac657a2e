# SPDX-License-Identifier: MIT
# Sources made at build time: the Redis scripts and the FFI cdef, as C text.
set(REGOLITH_GENERATED_DIR "${CMAKE_CURRENT_BINARY_DIR}/gen")
set(REGOLITH_CDEF_TEXT "${REGOLITH_GENERATED_DIR}/regolith.cdef")
file(MAKE_DIRECTORY "${REGOLITH_GENERATED_DIR}")

# rg_scripts.c and rg_scripts.h: `const char rg__script_text_<name>[]` for each <name>.lua of the folder.
function(regolith_generate_scripts out folder)
  file(GLOB scripts CONFIGURE_DEPENDS "${folder}/*.lua")
  set(base "${REGOLITH_GENERATED_DIR}/rg_scripts")
  string(JOIN "|" inputs ${scripts})
  # The list itself is an input: a script that comes or goes makes the files anew.
  file(CONFIGURE OUTPUT "${base}.list" CONTENT "${inputs}\n")
  add_custom_command(
    OUTPUT "${base}.c" "${base}.h"
    COMMAND "${CMAKE_COMMAND}" "-DINPUTS=${inputs}" "-DOUT=${base}" -DPREFIX=rg__script_text_
            -P "${PROJECT_SOURCE_DIR}/cmake/embed.cmake"
    DEPENDS ${scripts} "${base}.list" "${PROJECT_SOURCE_DIR}/cmake/embed.cmake"
    COMMENT "Embedding the Redis scripts"
    VERBATIM)
  set(${out} "${base}.c" "${base}.h" PARENT_SCOPE)
endfunction()

# rg_cdef.c and rg_cdef.h: `const char rg__cdef_text[]`, what ffi.cdef takes, made of the public headers.
function(regolith_generate_cdef out folder)
  file(GLOB headers CONFIGURE_DEPENDS "${folder}/*.h")
  set(base "${REGOLITH_GENERATED_DIR}/rg_cdef")
  file(CONFIGURE OUTPUT "${base}.list" CONTENT "${headers}\n")
  add_custom_command(
    OUTPUT "${base}.c" "${base}.h" "${REGOLITH_CDEF_TEXT}"
    COMMAND "${CMAKE_COMMAND}" "-DCC=${CMAKE_C_COMPILER}" "-DHEADERS=${PROJECT_SOURCE_DIR}/${folder}"
            "-DTEXT=${REGOLITH_CDEF_TEXT}" "-DOUT=${base}" -P "${PROJECT_SOURCE_DIR}/cmake/cdef.cmake"
    DEPENDS ${headers} "${base}.list" "${PROJECT_SOURCE_DIR}/cmake/cdef.cmake"
            "${PROJECT_SOURCE_DIR}/cmake/embed.cmake"
    COMMENT "Making the FFI cdef of the public headers"
    VERBATIM)
  set(${out} "${base}.c" "${base}.h" PARENT_SCOPE)
endfunction()
