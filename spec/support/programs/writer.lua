-- SPDX-License-Identifier: MIT
-- Another process: does what its standard input cannot say, so its words do. Writes a line for each
-- thing done.
--   writer.lua get ID | set ID N | queue ID N | watch ID LAST

require "support.programs.follow"
local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local orm = assert(regolith.open { entities = { shared.Counter } })
local act, id, n = arg[1], tonumber(arg[2]), tonumber(arg[3])

local ACTS = {}

function ACTS.get() io.write("n ", orm:session():get(shared.Counter, id).n, "\n") end

function ACTS.set()
  local db = orm:session()
  local counter = db:get(shared.Counter, id)
  counter.n = n
  assert(db:flush())
  io.write("set ", n, "\n")
end

--- Reads again and again, through the process cache, until it sees the last value; the values must rise.
function ACTS.watch()
  local db, before, seen = orm:session(), -1, 0
  io.write "watching\n"
  io.flush()
  faults.await("the last value", function()
    db:clear()
    local now = assert(db:get(shared.Counter, id)).n
    if now < before then error(string.format("went back from %d to %d", before, now)) end
    if now ~= before then seen = seen + 1 end
    before = now
    return now == n
  end)
  io.write("saw ", seen, " coherent ", tostring(orm:stats().coherent), " hits ",
    orm:counter "regolith_process_cache_hits_total", "\n")
end

assert(ACTS[act], "what?")()
orm:close()
