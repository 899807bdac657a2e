-- SPDX-License-Identifier: MIT
-- Transactions of many coroutines of one process, which wait for one another's rows: `coroutines luv|cqueues
-- ROUNDS`. Each moves amounts between accounts, notes it in a transaction of its own (that stays) and under a
-- savepoint (that does not, now and then), and fails now and then. Says what came of it.

require "support.programs.follow"
local regolith = require "regolith"

local which, rounds = arg[1], tonumber(arg[2])
local go, run
if which == "luv" then
  local uv = require "luv"
  go, run = function(fn) coroutine.wrap(fn)() end, uv.run
else
  local controller = require("cqueues").new()
  go, run = function(fn) controller:wrap(fn) end, function() assert(controller:loop()) end
end

local field = regolith.field
local Account = regolith.entity("account", { field.int64 "balance", ids = "application", cache = true })
local Entry = regolith.entity("entry", { field.int64 "amount", field.string "kind" { length = 20 } })
local ACCOUNTS, COROUTINES = 6, 10

local orm = assert(regolith.open { entities = { Account, Entry }, timeout_ms = 20000 })
assert(orm:schema_apply())
local setup = orm:session()
for id = 1, ACCOUNTS do assert(setup:new(Account, { id = id, balance = 100 })) end
assert(setup:flush())

local made, failed, tries, committed, undone, noted, kept, faults = 0, 0, 0, 0, 0, 0, 0, 0

local function move(db, from, to, fails)
  return db:transaction({ retry = 1000 }, function(tx)
    tries = tries + 1
    tx:commit(function() committed = committed + 1 end)
    tx:compensate(function() undone = undone + 1 end)
    assert(db:transaction({ propagation = "REQUIRES_NEW" }, function()
      assert(db:new(Entry, { amount = 0, kind = "tried" }))
      return true
    end))
    for _, step in ipairs { { from, -1 }, { to, 1 } } do
      local account, err = db:get(Account, step[1], { lock = "update" })
      if not account then return nil, err end
      account.balance = account.balance + step[2]
      assert(db:flush())
    end
    local stays = math.random(2) == 1
    db:transaction({ propagation = "NESTED" }, function(inner)
      assert(db:new(Entry, { amount = 1, kind = "moved" }))
      assert(db:flush())
      inner:commit(function() kept = kept + 1 end)
      return stays or nil, "rather not"
    end)
    if fails then error("on purpose", 0) end
    if stays then noted = noted + 1 end
    return true
  end)
end

local left = COROUTINES
for i = 1, COROUTINES do
  go(function()
    local ok, why = xpcall(function()
      for round = 1, rounds do
        local db = orm:session()
        local from = math.random(ACCOUNTS)
        local fails = (i + round) % 4 == 0
        local called, done = pcall(move, db, from, from % ACCOUNTS + 1, fails)
        if fails and not called and done == "on purpose" then failed = failed + 1
        elseif called and done and not fails then made = made + 1
        else error(tostring(done), 0) end
        db:close()
      end
    end, debug.traceback)
    if not ok then
      faults = faults + 1
      print(why)
    end
    left = left - 1
    if left > 0 then return end
    local db, sum = orm:session(), 0
    for id = 1, ACCOUNTS do
      local cached = assert(db:get(Account, id)).balance
      sum = sum + assert(db:reload(db:get(Account, id))).balance
      if cached ~= db:get(Account, id).balance then faults = faults + 1 end
    end
    local tried = assert(db:search(Entry, "kind = 'tried'"):count())
    local moved = assert(db:search(Entry, "kind = 'moved'"):count())
    print(string.format("sum %d made %d failed %d faults %d", sum, made, failed, faults))
    print(string.format("callbacks %s tried %s moved %s", tostring(committed == made and undone == tries - made),
      tostring(tried == tries), tostring(moved == noted and kept == noted)))
    print("deadlocks " .. tostring(tries > made + failed))
    db:close()
  end)
end
run()
orm:close()
