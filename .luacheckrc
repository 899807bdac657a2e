-- SPDX-License-Identifier: MIT
std = "luajit+ngx_lua"
max_line_length = 120
exclude_files = { "build*", ".regolith" }
-- JavaScript and CSS in long strings
files["lua/regolith/console/s*.lua"] = { max_string_line_length = 150 }
files["spec"] = { std = "+busted" }
files[".luacheckrc"] = { std = "luacheckrc" }
files["*.rockspec"] = { std = "rockspec" }

-- The engine's Redis scripts: the text of prelude.lua, and of marks.lua and value.lua where a script wants it, goes
-- before each of them, so what these declare is global to the others.
local given = { "redis", "KEYS", "ARGV", "cjson", "cmsgpack", "struct", "bit" }
for _, shared in ipairs { "prelude", "marks", "value" } do
   local file = io.open("core/src/cache/scripts/" .. shared .. ".lua")
   for line in file and file:lines() or function() end do
      local names = line:match "^local function ([%w_]+)" or line:match "^local ([%w_, ]+)"
      for name in (names or ""):gmatch "[%w_]+" do given[#given + 1] = name end
   end
   if file then file:close() end
   files["core/src/cache/scripts/" .. shared .. ".lua"] = { ignore = { "211", "411" } }
end
files["core/src/cache/scripts"] = { std = "lua51", globals = given }
files["core/src/lock/scripts"] = { std = "lua51", globals = { "redis", "KEYS", "ARGV" } }
