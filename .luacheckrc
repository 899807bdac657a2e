-- SPDX-License-Identifier: MIT
std = "luajit+ngx_lua"
max_line_length = 120
exclude_files = { "build*", ".regolith" }
files["spec"] = { std = "+busted" }
files[".luacheckrc"] = { std = "luacheckrc" }
files["*.rockspec"] = { std = "rockspec" }
-- The engine's Redis scripts: Redis gives them these.
files["core/src/cache/scripts"] = {
   std = "lua51",
   read_globals = { "redis", "KEYS", "ARGV", "cjson", "cmsgpack", "struct", "bit" },
}
