-- SPDX-License-Identifier: MIT
-- Reads a row from its process cache without a pause, until it has read 2; says when it began to read, and what it
-- read, of the last read and of those before which it was kept from reading for a while.

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
local last, before = faults.now(), 0
repeat
  local now, over = faults.now(), before == 2
  before = read()
  if over or now - last > 0.5 then print(string.format("%.6f %d", now, before)) end
  last = now
until over
orm:close()
