# SPDX-License-Identifier: MIT
# Finds what the core is built on. Defines the targets regolith_deps (client libraries) and
# regolith_luajit (headers only), and RG_CLIENT (MARIADB or MYSQL).
include(CheckCSourceCompiles)
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

if(NOT REGOLITH_CLIENT MATCHES "^(auto|mariadb|mysql)$")
  message(FATAL_ERROR "REGOLITH_CLIENT is '${REGOLITH_CLIENT}'; it may be auto, mariadb or mysql")
endif()
# Each library keeps its own cache entries: a second configuration looks at both again.
set(client "")
if(NOT REGOLITH_CLIENT STREQUAL "mysql")
  pkg_check_modules(LIBMARIADB IMPORTED_TARGET libmariadb)
  if(LIBMARIADB_FOUND)
    set(client LIBMARIADB)
  endif()
endif()
if(NOT client AND NOT REGOLITH_CLIENT STREQUAL "mariadb")
  pkg_check_modules(LIBMYSQLCLIENT IMPORTED_TARGET mysqlclient)
  if(LIBMYSQLCLIENT_FOUND)
    set(client LIBMYSQLCLIENT)
  endif()
endif()
if(NOT client)
  message(FATAL_ERROR "no MySQL client library: install libmariadb-dev (or libmysqlclient-dev, with -DREGOLITH_CLIENT=mysql)")
endif()

pkg_check_modules(HIREDIS REQUIRED IMPORTED_TARGET hiredis)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl)

# Compatibility packages hand out MariaDB's library under MySQL's name, so the header decides.
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::${client})
check_c_source_compiles("
  #include <mysql.h>
  #ifndef MARIADB_PACKAGE_VERSION
  #error MySQL
  #endif
  int main(void) { return 0; }" RG_${client}_IS_MARIADB)
unset(CMAKE_REQUIRED_LIBRARIES)
if(RG_${client}_IS_MARIADB)
  set(RG_CLIENT MARIADB)
else()
  set(RG_CLIENT MYSQL)
endif()
message(STATUS "MySQL client: ${RG_CLIENT} ${${client}_VERSION}, hiredis ${HIREDIS_VERSION}")

add_library(regolith_deps INTERFACE)
target_link_libraries(regolith_deps INTERFACE
  PkgConfig::${client} PkgConfig::HIREDIS PkgConfig::XXHASH PkgConfig::OPENSSL Threads::Threads m)
# <hiredis/hiredis.h>, whose folder's parent pkg-config does not always give.
target_include_directories(regolith_deps SYSTEM INTERFACE ${HIREDIS_INCLUDEDIR})

if(REGOLITH_LUA)
  # Headers only: a Lua C module must not bring a LuaJIT of its own into the process.
  pkg_check_modules(LUAJIT REQUIRED luajit)
  add_library(regolith_luajit INTERFACE)
  target_include_directories(regolith_luajit SYSTEM INTERFACE ${LUAJIT_INCLUDE_DIRS})
endif()
