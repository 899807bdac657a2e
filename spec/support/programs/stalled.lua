-- SPDX-License-Identifier: MIT
-- Reads a row from its process cache without a pause; says what it reads first after it was kept from it for a
-- while, and ends.

require "support.programs.follow"
local faults = require "support.faults"
local regolith = require "regolith"
local field = regolith.field

local Thing = regolith.entity("thing", { field.uint32 "n", cache = true, ids = "application" })
local orm = assert(regolith.open { entities = { Thing } })

local function read()
  local db = orm:session()
  local n = assert(db:get(Thing, 1)).n
  db:close()
  return n
end

faults.await("the process cache", function()
  read()
  return orm:stats().coherent
end)
print "ready"
io.flush()
local last = faults.now()
repeat
  local now = faults.now()
  local n, gap = read(), now - last
  last = now
  if gap > 1 then print("read " .. n) end
until gap > 1
orm:close()
