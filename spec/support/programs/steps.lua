-- SPDX-License-Identifier: MIT
-- Queues rows without end, each in three steps, and says what was acknowledged; ends when it is killed, or
-- its parent is gone.
--   steps.lua DURABILITY FIRST_ID PARTITIONS
-- Lines: "ok ID STEP" acknowledged, "maybe ID STEP CODE" not.

require "support.programs.follow"
local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local durability, id, partitions = arg[1], tonumber(arg[2]), tonumber(arg[3])
local orm = assert(regolith.open { entities = { shared.Club, shared.Member }, timeout_ms = 3000, lazy = true,
  queues = partitions })
local db = orm:session()
io.stdout:setvbuf "line"

while true do
  local member = db:new(shared.Member, { id = id, club = id % 16 + 1, n = 1 })
  for step = 1, 3 do
    member.n = step
    local ok, err = db:flush_async { durability = durability }
    io.write(ok and "ok " or "maybe ", id, " ", step, ok and "" or " " .. err.code, "\n")
    if not ok then
      db:discard()
      faults.pause(5)
      break
    end
  end
  id = id + 1
end
