-- SPDX-License-Identifier: MIT
-- One program for luv and cqueues: `evented luv|cqueues`. Coroutines that overlap, a clock that goes on
-- ticking, and everything that an orm does in them.

require "support.programs.follow"
local which = ...
local loop = {}

if which == "luv" then
  local uv = require "luv"
  function loop.go(fn) coroutine.wrap(fn)() end
  function loop.tick(ms, fn)
    local timer = uv.new_timer()
    uv.timer_start(timer, ms, ms, function() if fn() == false then uv.close(timer) end end)
  end
  function loop.run() uv.run() end
else
  local cqueues = require "cqueues"
  local controller = cqueues.new()
  function loop.go(fn) controller:wrap(fn) end
  function loop.tick(ms, fn)
    controller:wrap(function()
      repeat cqueues.sleep(ms / 1000) until fn() == false
    end)
  end
  function loop.run() assert(controller:loop()) end
end

local regolith = require "regolith"
local field = regolith.field
local Item = regolith.entity("item", {
  field.string "name" { length = 50, unique = true }, field.ref "parent" { "item" }, cache = true,
})
local orm = assert(regolith.open { entities = { Item } }) -- before the loop: here a call blocks
assert(orm:schema_apply())

local function say(...)
  print(string.format(...))
  io.flush()
end

local open, ticks = 0, 0
--- Runs fn in a coroutine of its own; says what went wrong.
local function go(name, fn)
  open = open + 1
  loop.go(function()
    local ok, why = xpcall(fn, debug.traceback)
    open = open - 1
    say("%s: %s", name, ok and "ok" or tostring(why))
  end)
end

loop.tick(10, function()
  ticks = ticks + 1
  return open > 0
end)

-- All have begun before the first one ends, and the clock ticks meanwhile, however busy the machine.
local begun, over = 0, 0
for _ = 1, 4 do
  go("slow", function()
    local db = orm:session()
    begun = begun + 1
    assert(db:query("SELECT SLEEP(0.5) AS s")[1].s == 0)
    db:close()
    over = over + 1
    if over == 1 then
      say("overlap %s", tostring(begun == 4))
      say("ticking %s", tostring(ticks > 2))
    end
  end)
end

go("unit of work", function()
  local db = orm:session()
  local parent = assert(db:new(Item, { name = "parent" }))
  local child = assert(db:new(Item, { name = "child", parent = parent }))
  assert(db:flush())
  local other = orm:session()
  assert(other:get(Item, child.id).parent.name == "parent") -- waits within an __index
  assert(other:by(Item, "name", "child").id == child.id)
  child.name = "changed"
  assert(db:flush())
  assert(other:reload(other:get(Item, child.id)).name == "changed")
  local twin = db:new(Item, { name = "parent" })
  local ok, err = db:flush()
  assert(not ok and err.code == "DUPLICATE_KEY")
  db:discard()
  assert(twin)
  assert(db:connection(function(conn)
    conn:execute "SET @x = 7"
    return conn:query("SELECT @x AS x")[1].x
  end) == 7)
end)

go("errors", function()
  local db = orm:session { timeout_ms = 100 }
  local rows, err = db:query "SELECT SLEEP(5)"
  assert(rows == nil and err.code == "TIMEOUT", tostring(err))
  rows, err = orm:session():query "SELEKT"
  assert(rows == nil and err.code == "SQL", tostring(err))
end)

go("two in one session", function()
  local db, said = orm:session(), {}
  for i = 1, 2 do
    loop.go(function()
      local ok, why = pcall(db.query, db, "SELECT SLEEP(0.1)")
      said[#said + 1] = ok and "done" or tostring(why):match "in use by another coroutine"
      if #said == 2 then say("sharing %s, %s", said[1], said[2]) end
      assert(i)
    end)
  end
end)

go("locks", function()
  local lock = assert(orm:lock "evented")
  local mine = 0
  for i = 1, 3 do
    go("waiter", function()
      local own = assert(orm:lock("evented", { wait_ms = 10000 }))
      mine = mine + 1
      assert(mine == 1, "waiter " .. i)
      assert(orm:session():query "SELECT SLEEP(0.02)")
      mine = mine - 1
      assert(own:release())
    end)
  end
  assert(orm:session():query "SELECT SLEEP(0.1)")
  assert(lock:release())
  local told = false
  local lost = orm:lock("lost", { ttl_ms = 100, renew = false, on_lost = function()
    told = true
    say "told of the loss"
  end })
  while not told do assert(orm:session():query "SELECT SLEEP(0.05)") end -- one that is dropped is told of no more
  assert(lost:left_ms() == 0)
  lost:drop()
end)

go("below a C function", function()
  local db = orm:session()
  local err
  ("x"):gsub("x", function() -- luacheck: ignore
    local _
    _, err = db:query "SELECT 1"
  end)
  assert(err.code == "MISUSE" and tostring(err):find "C function", tostring(err))
end)

go("many", function()
  local sum, left = 0, 40
  for i = 1, 40 do
    go("one of many", function()
      local db = orm:session()
      local n = assert(db:query("SELECT ? AS n", i))[1].n
      sum = sum + n
      db:close()
      left = left - 1
      if left == 0 then say("sum %d", sum) end
    end)
  end
end)

go("a consumer", function()
  local db = orm:session()
  db:new(Item, { name = "queued" })
  assert(db:flush_async())
  local consumer = orm:consumer()
  repeat until assert(consumer:step(0.05)) > 0
  consumer:close()
  assert(orm:session():by(Item, "name", "queued"))
end)

loop.run()
say("left the loop")
assert(orm:session():query("SELECT 1 AS n")[1].n == 1) -- after the loop it blocks again
orm:close()
say("closed")
