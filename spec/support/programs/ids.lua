-- SPDX-License-Identifier: MIT
-- Takes ids of each kind that the library allots, and says which.
--   ids.lua NODE

require "support.programs.follow"
local regolith = require "regolith"

local Block = regolith.entity("block", { regolith.field.bool "a" })
local Snowflake = regolith.entity("snowflake", { regolith.field.bool "a", ids = "snowflake" })
local orm = assert(regolith.open { entities = { Block, Snowflake }, node = tonumber(arg[1]), id_block = 7 })
assert(orm:schema_apply())
local db = orm:session()
for i = 1, 300 do
  for _, E in ipairs { Block, Snowflake } do
    io.write(E.name, string.format(" %.0f\n", assert(db:new(E)).id))
  end
  if i % 50 == 0 then assert(db:flush()) end
end
orm:close()
