-- SPDX-License-Identifier: MIT
-- A process that changes the lists of support/list_acts once, as a rule to die at it.
--   lister.lua insert BOX SLOT | move ID BOX SLOT | delete ID [async|rollback]
--   lister.lua consume   applies what is queued

local list_acts = require "support.list_acts"
local regolith = require "regolith"

local Box, Item = list_acts.entities { redis = true }
local orm = assert(regolith.open { entities = { Box, Item }, lazy = true, mark_ms = tonumber(os.getenv "MARK_MS") })
local db = orm:session()
local what, how = arg[1], arg[#arg]
local function number(i) return tonumber(arg[i]) end

if what == "consume" then
  local consumer = assert(orm:consumer { max_backoff_ms = 50 })
  assert(consumer:run { max_wait_s = 0.1 })
elseif what == "insert" then
  assert(db:new(Item, { box = number(2), slot = number(3) }))
else
  local e = assert(db:get(Item, number(2)))
  if what == "delete" then db:delete(e) else e.box, e.slot = number(3), number(4) end
end
if how == "async" then
  assert(db:flush_async())
elseif how == "rollback" then
  assert(not db:flush())
else
  assert(db:flush())
end
print "done"
orm:close()
