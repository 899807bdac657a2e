-- SPDX-License-Identifier: MIT
-- Reads a row from its process cache without a pause, until it reads 2; says when, and what it reads, after it
-- was kept from it for a while.

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
  local n = read()
  if now - last > 0.5 then print(string.format("%.6f %d", now, n)) end
  last = now
until n == 2
orm:close()
