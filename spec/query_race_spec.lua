-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local support = require "support.init"

local must = support.must
local Score = require("support.programs.searcher").Score
local ROUNDS = os.getenv "REGOLITH_LONG" and 20000 or 400
local COMMITTED = 8 -- the kill point between a consumer's COMMIT and what it tells the caches

describe("cached searches of many processes", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Score }
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  local function env(more)
    local variables = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name }
    for name, v in pairs(more or {}) do variables[name] = v end
    return variables
  end

  it("never show what a committed write has replaced", function()
    local ids, processes = {}, {}
    for i = 1, 3 do ids[i] = must(db:new(Score, { n = 0 })).id end
    must(db:flush())
    for i = 1, 3 do processes[#processes + 1] = faults.spawn("searcher", env(), "write", ids[i], ROUNDS) end
    for _ = 1, 2 do processes[#processes + 1] = faults.spawn("searcher", env(), "read", ROUNDS * 2) end
    for _, process in ipairs(processes) do
      local ok, text = process:wait(300)
      assert.is_true(ok, text)
    end
    faults.await("hits", function() -- in peace they come from the cache, unless Redis is late meanwhile
      local ok, text = faults.spawn("searcher", env(), "read", 20):wait()
      assert.is_true(ok, text)
      return tonumber(text:match "hits (%d+)") >= 15
    end)
  end)

  it("show what a consumer has applied that died before it could tell", function()
    local score = must(db:new(Score, { n = 0 }))
    must(db:flush())
    local function search() return must(orm:session():search(Score, "id = ?", score.id):cached(600):one()).n end
    faults.await("a cached search", function()
      return support.count(orm, function() assert.equal(0, search()) end).mysql == 0
    end)
    score.n = 5
    must(db:flush_async())
    assert.equal(0, search())
    local consumer = faults.spawn("searcher", env { REGOLITH_KILL_POINT = COMMITTED .. ":1" }, "consume")
    faults.await("its death", function() return not consumer:running() end)
    assert.equal(5, search())
    assert.equal(5, search())
    support.drain(orm)
    assert.equal(5, search())
  end)

  it("show the rows of a writer that was killed at work", function()
    for _ = 1, 3 do
      local score = must(db:new(Score, { n = 0 }))
      must(db:flush())
      local ours = world:connections()
      local process = faults.spawn("searcher", env(), "write", score.id, 100000)
      faults.await("work to be done", function()
        local row = must(db:query("SELECT n FROM score WHERE id = ?", score.id))[1]
        return row.n > 20
      end)
      process:kill()
      -- not only of its transactions: what it sent last may not have begun
      faults.await("the end of its connections", function() return world:connections() <= ours end)
      local row = must(db:query("SELECT n FROM score WHERE id = ?", score.id))[1]
      for _ = 1, 3 do
        assert.equal(row.n, must(orm:session():search(Score, "id = ?", score.id):cached(600):one()).n)
      end
    end
  end)
end)
