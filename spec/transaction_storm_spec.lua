-- SPDX-License-Identifier: MIT
-- Processes whose transactions deadlock with one another all the time: each is made once, or not at all;
-- exactly one list of callbacks runs for each try. REGOLITH_LONG=1 has them do so for longer.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must

local Account = regolith.entity("account", {
  field.int64 "balance",
  ids = "application",
  cache = { process = true, redis = true },
})
local Entry = regolith.entity("entry", { field.int64 "amount", cache = { redis = true, queries = true } })
local ACCOUNTS, START = 4, 1000
local TIMES, PROCESSES = os.getenv "REGOLITH_LONG" and 2000 or 40, 3

describe("transactions that deadlock", function()
  local world, orm

  setup(function()
    world = support.world()
    orm = world:open { Account, Entry }
  end)
  teardown(function() world:close() end)

  it("are tried again until they are made, once", function()
    local db = orm:session()
    for id = 1, ACCOUNTS do must(db:new(Account, { id = id, balance = START })) end
    must(db:flush())
    local processes, tries, deadlocks = {}, 0, 0
    for i = 1, PROCESSES do
      processes[i] = faults.spawn("transfers", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, i, TIMES, ACCOUNTS)
    end
    for _, process in ipairs(processes) do process:await "ready" end
    support.redis("SET", "{" .. world.name .. "}:go", "1")
    for _, process in ipairs(processes) do
      local ok, text = process:wait(600)
      assert.is_true(ok, text)
      local made, tried, callbacks, compensations = text:match "done%s+(%d+)%s+(%d+)%s+(%d+)%s+(%d+)"
      assert.equal(TIMES, tonumber(made))
      assert.equal(TIMES, tonumber(callbacks))
      assert.equal(tonumber(tried) - TIMES, tonumber(compensations))
      tries, deadlocks = tries + tried, deadlocks + compensations
    end
    if TIMES > 1000 then assert.is_true(deadlocks > 0, "nothing has deadlocked") end
    local sum = 0
    for id = 1, ACCOUNTS do
      local cached, stored = must(orm:session():get(Account, id)), must(db:reload(must(db:get(Account, id))))
      assert.equal(stored.balance, cached.balance)
      sum = sum + stored.balance
    end
    assert.equal(ACCOUNTS * START, sum)
    assert.equal(PROCESSES * TIMES, must(db:search(Entry, "1 = 1"):count()))
    db:close()
    support.no_transactions(world)
  end)
end)

for _, which in ipairs { "luv", "cqueues" } do
  local run = pcall(require, which) and describe or pending
  package.loaded[which] = nil

  run("transactions of coroutines in " .. which, function()
    local world

    setup(function() world = support.world() end)
    teardown(function() world:close() end)

    it("are each made once, or not at all, with their own callbacks (46)", function()
      local rounds = os.getenv "REGOLITH_LONG" and 200 or 8
      local ok, text = faults.spawn("coroutines", {
        REGOLITH_MYSQL_URL = world.mysql_url(world.name, "&pool=20"), REGOLITH_REDIS_URL = world.redis_url(),
        REGOLITH_PREFIX = world.name,
      }, which, rounds):wait(600)
      assert.is_true(ok, text)
      assert.matches(string.format("sum 600 made %d failed %d faults 0", 7.5 * rounds, 2.5 * rounds), text)
      assert.matches("callbacks true tried true moved true", text)
      support.no_transactions(world)
    end)
  end)
end
