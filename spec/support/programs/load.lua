-- SPDX-License-Identifier: MIT
-- Writes without end and says what was acknowledged; ends when it is killed, or its parent is gone.
--   load.lua flush|flush_async FIRST_ID
-- Lines: "ok ID" written, "no ID CODE" refused for certain, "maybe ID" outcome unknown.

require "support.programs.follow"
local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local orm = assert(regolith.open { entities = { shared.Line }, timeout_ms = 3000, lazy = true })
local way, id = arg[1], tonumber(arg[2])
local db = orm:session()
io.stdout:setvbuf "line"

while true do
  db:new(shared.Line, { id = id, n = id * 3 })
  local ok, err = db[way](db)
  if ok then
    io.write("ok ", id, "\n")
  else
    db:discard()
    local unknown = err.code == "COMMIT_UNKNOWN" or err.code == "TIMEOUT" or (way == "flush_async")
    io.write(unknown and "maybe " or "no ", id, " ", err.code, "\n")
    faults.pause(5)
  end
  id = id + 1
end
