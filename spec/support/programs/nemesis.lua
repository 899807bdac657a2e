-- SPDX-License-Identifier: MIT
-- One process of the nemesis run: reads and writes rows in any way until it is killed or its time is over,
-- and writes down what it did, a line at a time, before and after.
--   nemesis.lua SECONDS SEED FIRST LAST HISTORY process|shared sync|mixed
-- NEMESIS_BOXES: ids of boxes; then it reads and writes lists as well (support/list_acts).
-- Lines: "B id value t" a write begins; "W id version value t0 t1 ok|fail|info way" it ended (info:
-- nobody knows); "R id version value t0 t1" a read; "A t0 t1" Redis failed it or did not answer in time: reads go
-- past it then, on a machine that is slow too. Times in seconds of the machine's monotonic clock.

local faults = require "support.faults"
local list_acts = require "support.list_acts"
local regolith = require "regolith"
local field = regolith.field

local seconds, seed, first, last = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])
local path, tier, how = arg[5], arg[6], arg[7]

local function cache()
  return { process = tier == "process", redis = true, ttl_s = 60, outage = os.getenv "NEMESIS_OUTAGE" }
end

local Thing = regolith.entity("thing", {
  field.string "code" { unique = true }, field.uint64 "value", field.uint32 "shelf" { index = true, cached = true },
  field.uint32 "version" { version = true },
  cache = cache(),
})
local Box, Item = list_acts.entities(cache())

math.randomseed(seed)
local orm
repeat
  orm = regolith.open {
    entities = { Thing, Box, Item }, timeout_ms = 3000, lazy = true, mark_ms = tonumber(os.getenv "NEMESIS_MARK_MS"),
  }
until orm
local consumer = how == "mixed" and assert(orm:consumer { max_batch = 16 })
local history = assert(io.open(path, "a"))
history:setvbuf "no"

local counter = 0
local now = faults.now

local function note_read(e, began)
  history:write(string.format("R %d %d %d %.6f %.6f\n", e.id, e.version, e.value, began, now()))
end

--- Errors after which it is certain that nothing was written.
local CERTAIN = { CONFLICT = true, DUPLICATE_KEY = true, DEADLOCK = true, PENDING = true }

local function write(db, e, async)
  counter = counter + 1
  local value = seed * 1000000 + counter
  e.value = value
  if math.random(4) == 1 then e.shelf = math.random(0, 9) end
  local other
  if math.random(8) == 1 then -- refused as a whole: a code that another row has
    other = db:get(Thing, e.id == first and first + 1 or first)
    if other then e.code = other.code end
  end
  local began = now()
  history:write(string.format("B %d %d %.6f\n", e.id, value, began))
  local ok, err
  local way = async and not other and "flush_async" or "flush"
  ok, err = db[way](db)
  local outcome = ok and "ok" or CERTAIN[err.code] and "fail" or "info"
  local version = ok and e.version or 0
  history:write(string.format("W %d %d %d %.6f %.6f %s %s\n", e.id, version, value, began, now(), outcome, way))
end

local ACTS = {
  function(db, id)
    local began = now()
    local e = db:get(Thing, id)
    if e then note_read(e, began) end
  end,
  function(db, id)
    local began = now()
    local e = db:by(Thing, "code", "c" .. id)
    if e then note_read(e, began) end
  end,
  function(db)
    local shelf, began = math.random(0, 9), now()
    local list = db:all_by(Thing, "shelf", shelf)
    for _, e in ipairs(list or {}) do
      if e.shelf ~= shelf then error("a row of another shelf") end
      note_read(e, began)
    end
  end,
  function(db, id)
    local e = db:get(Thing, id)
    if e then write(db, e, how == "mixed" and math.random(3) == 1) end
  end,
}

local boxes = {}
for id in (os.getenv "NEMESIS_BOXES" or ""):gmatch "%d+" do boxes[#boxes + 1] = tonumber(id) end
local lists = list_acts.new(Item, history, boxes, seed, how == "mixed")

local till = now() + seconds
local failed = 0
while now() < till do
  local began = now()
  local db = orm:session { timeout_ms = 3000 }
  local act = #boxes > 0 and math.random(16) or math.random(10)
  if act > 13 then lists:read(db)
  elseif act > 10 then lists:write(db)
  else ACTS[act <= 4 and 1 or act == 5 and 2 or act == 6 and 3 or 4](db, math.random(first, last)) end
  db:close()
  if consumer and math.random(12) == 1 then consumer:step(0) end
  local failures = orm:counter "regolith_redis_errors_total"
  if failures > failed then history:write(string.format("A %.6f %.6f\n", began, now())) end
  failed = failures
end
if consumer then consumer:close() end
orm:close()
