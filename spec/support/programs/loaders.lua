-- SPDX-License-Identifier: MIT
-- One program for luv and cqueues: `loaders luv|cqueues`. Many coroutines ask user caches for what is not
-- there, and sessions for a row; says how often it was loaded, what they got, and that a clock went on ticking.

require "support.programs.follow"
local which = ...
local regolith = require "regolith"

local go, sleep, run
if which == "luv" then
  local uv = require "luv"
  function go(fn) coroutine.wrap(fn)() end
  function sleep(seconds)
    local co, timer = coroutine.running(), uv.new_timer()
    uv.timer_start(timer, seconds * 1000, 0, function()
      uv.close(timer)
      assert(coroutine.resume(co))
    end)
    coroutine.yield()
  end
  function run() uv.run() end
else
  local cqueues = require "cqueues"
  local controller = cqueues.new()
  function go(fn) controller:wrap(fn) end
  sleep = cqueues.sleep
  function run() assert(controller:loop()) end
end

local Shared = regolith.cache("shared", { value = "string" })
local Alone = regolith.cache("alone", { value = "string", redis = false })
-- one worker: who waits must not have it while the loader needs it
local Row = regolith.entity("row", { regolith.field.string "name", cache = { redis = true } })
local orm = assert(regolith.open { entities = { Row }, caches = { Shared, Alone }, workers = 1 })
local rows = assert(regolith.open { entities = { Row }, workers = 8 })
assert(rows:schema_apply())
local db = rows:session()
db:new(Row, { name = "row" })
assert(db:flush())
assert(rows:invalidate(Row))
local selects, same = 0, 0
rows:log(function(event) selects = selects + (event.source == "mysql" and 1 or 0) end, { mysql = true })

local N = 20
local loads, got, left, ticks = { shared = 0, alone = 0 }, 0, 2 * N, 0
for name in pairs(loads) do
  for _ = 1, N do
    go(function()
      local v = orm:cache(name):get_or_load("key", function()
        loads[name] = loads[name] + 1
        sleep(0.2)
        return (assert(orm:session():query "SELECT 'value' AS v"))[1].v
      end)
      if v == "value" then got = got + 1 end
      left = left - 1
    end)
  end
end
for _ = 1, N do
  go(function()
    local own = rows:session()
    if assert(own:get(Row, 1)).name == "row" then same = same + 1 end
    own:close()
  end)
end
go(function()
  while left > 0 do
    sleep(0.01)
    ticks = ticks + 1
  end
end)
run()
print(string.format("loaded %d %d, got %d, ticking %s; %d rows together %s", loads.shared, loads.alone, got,
  tostring(ticks > 1), same, tostring(selects < 5)))
db:close()
rows:close()
orm:close()
