-- SPDX-License-Identifier: MIT
-- Writes rows for some seconds, in any way: flushed, queued and applied, rolled back, deleted and made
-- again. Words: seconds, first and last id, seed.

local regolith = require "regolith"
local faults = require "support.faults"
local field = regolith.field

local Part = regolith.entity("part", {
  field.string "name" { unique = true }, field.uint32 "n", field.uint32 "bin" { index = true, cached = true },
  cache = { process = true, redis = true, ttl_s = 600 },
})

local seconds, first, last = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
math.randomseed(tonumber(arg[4]))
local orm = assert(regolith.open { entities = { Part } })
local consumer = assert(orm:consumer())
local till = faults.now() + seconds
while faults.now() < till do
  local db = orm:session { timeout_ms = 5000 }
  local part = db:get(Part, math.random(first, last))
  if part then
    local way = math.random(4)
    part.n, part.bin = math.random(1e6), math.random(0, 3)
    if way == 1 then db:flush_async()
    elseif way == 2 then
      local other = db:get(Part, math.random(first, last))
      if other and other ~= part then other.name = part.name end -- refused: rolled back
      db:flush()
    else db:flush() end
  end
  db:close()
  if math.random(5) == 1 then consumer:step(0) end
end
consumer:close()
orm:close()
