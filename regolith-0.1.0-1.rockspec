-- SPDX-License-Identifier: MIT
rockspec_format = "3.0"
package = "regolith"
version = "0.1.0-1"
source = {
   url = "file://regolith-0.1.0.tar.gz",
   dir = "regolith-0.1.0",
}
description = {
   summary = "ORM for LuaJIT and OpenResty on MySQL/MariaDB and Redis",
   detailed = [[
      Entities, unit of work, process and Redis cache, asynchronous flush, compare-and-set updates
      and transaction propagation, on a C engine. Calls yield in OpenResty and nginx-lua: the event
      loop never blocks. In plain luajit they run on the caller's thread.
   ]],
   license = "MIT",
   labels = { "orm", "database", "mysql", "mariadb", "redis", "cache", "openresty", "luajit" },
}
supported_platforms = { "linux" }
-- LuaJIT answers for Lua 5.1. lua-cjson, and argparse and term for the command line, are left to the
-- system's packages: OpenResty brings its own lua-cjson, which a rock would shadow.
dependencies = {
   "lua ~> 5.1",
}
-- The MySQL client library, MariaDB's or Oracle's, is found by CMake: their headers lie in different places.
external_dependencies = {
   HIREDIS = { header = "hiredis/hiredis.h" },
   XXHASH = { header = "xxhash.h" },
}
build = {
   type = "cmake",
   variables = {
      CMAKE_BUILD_TYPE = "Release",
      CMAKE_INSTALL_PREFIX = "$(PREFIX)",
      LUADIR = "$(LUADIR)",
      LIBDIR = "$(LIBDIR)",
      REGOLITH_SHARED = "OFF",
      REGOLITH_WERROR = "OFF",
   },
}
-- bin/regolith is a LuaJIT script; a wrapper would run it under the Lua that LuaRocks itself uses.
deploy = {
   wrap_bin_scripts = false,
}
