-- SPDX-License-Identifier: MIT
-- Values that transactions set and delete: whoever dies at a COMMIT, and wherever, nobody is served what it
-- has replaced.

local faults = require "support.faults"
local support = require "support.init"
local writer = require "support.programs.value_writer"

local must = support.must
local Score, Shared, Both, Own = writer.Score, writer.Shared, writer.Both, writer.Own
local MARKED, COMMITTED = 34, 35 -- kill points
local MARK_MS = 300              -- those of values stand twice as long; for who dies, not for who is to have the time
local ROUNDS = os.getenv "REGOLITH_LONG" == "1" and 20000 or 150

describe("values that a transaction sets and deletes", function()
  local world, orm, db, patient, unhurried

  setup(function()
    world = support.world()
    orm = world:open({ Score }, { caches = writer.caches, mark_ms = MARK_MS })
    patient = world:open({ Score }, { caches = writer.caches, schema = false })
    db, unhurried = orm:session(), patient:session()
  end)
  teardown(function()
    db:close()
    unhurried:close()
    world:close()
  end)

  local function env(more)
    local variables = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name, MARK_MS = MARK_MS }
    for name, v in pairs(more or {}) do variables[name] = v end
    return variables
  end

  local function rows() return must(db:query "SELECT COUNT(*) AS n FROM score")[1].n end

  --- Old values everywhere, in the process as well: once what the last test has left marked can be set.
  local function fill()
    faults.await("old values in the process", function()
      for _, cache in ipairs(writer.caches) do
        must(orm:cache(cache):set("a", "old"))
        must(orm:cache(cache):set("b", "old"))
      end
      must(orm:cache(Both):set("c", "old", { tags = { "t" } }))
      local function are_old()
        return orm:cache(Shared):get "a" == "old" and orm:cache(Shared):get "b" == "old"
          and orm:cache(Own):get "a" == "old" and orm:cache(Own):get "b" == "old"
          and orm:cache(Both):get "a" == "old" and orm:cache(Both):get "b" == "old" and orm:cache(Both):get "c" == "old"
      end
      return are_old() and support.count(orm, function() return orm:cache(Both):get "c" end).redis == 0
    end)
  end

  local function die_at(point)
    local process = faults.spawn("value_writer", env { REGOLITH_KILL_POINT = point .. ":1" }, "once")
    faults.await("the death of a writer", function() return not process:running() end)
    assert.equal("", process:output())
    os.remove(process.path)
  end

  --- Loads something, which may be kept from the moment the marks are gone.
  local function loaded(cache, key)
    return faults.await("a value to be kept again", function()
      local first = orm:cache(cache):get_or_load(key, function() return "loaded" end)
      return orm:cache(cache):get(key) == first and first
    end)
  end

  it("are gone when the writer died after its COMMIT, and never come back", function()
    fill()
    local before = rows()
    die_at(COMMITTED)
    assert.equal(before + 1, rows())
    for _, cache in ipairs { Shared, Both } do
      for _, key in ipairs { "a", "b" } do assert.is_nil((orm:cache(cache):get(key))) end
    end
    assert.is_nil((orm:cache(Both):get "c"))
    -- of values that only processes keep, these hear
    faults.await("the news", function() return orm:cache(Own):get "a" == nil and orm:cache(Own):get "b" == nil end, 3)
    for _, key in ipairs { "a", "b" } do
      assert.equal("loaded", loaded(Shared, key))
      assert.equal("loaded", loaded(Both, key))
    end
    must(orm:cache(Both):set("c", "again", { tags = { "t" } }))
    faults.await("a tag that can be given again", function()
      must(orm:cache(Both):set("c", "again", { tags = { "t" } }))
      return orm:cache(Both):get "c" == "again"
    end)
  end)

  it("are never those of a writer that died before its COMMIT", function()
    fill()
    local before = rows()
    die_at(MARKED)
    assert.equal(before, rows())
    for _, cache in ipairs { Shared, Both } do
      for _, key in ipairs { "a", "b" } do
        local v = orm:cache(cache):get(key)
        assert.is_true(v == nil or v == "old", tostring(v))
        assert.are_not.equal("new", loaded(cache, key))
      end
    end
  end)

  it("are not filled by who has loaded before the COMMIT", function()
    must(orm:cache(Both):delete "b")
    local v = orm:cache(Both):get_or_load("b", function()
      die_at(COMMITTED)
      return "old"
    end)
    assert.equal("old", v)
    assert.is_nil((orm:cache(Both):get "b"))
  end)

  it("are as before when it was the COMMIT that failed", function()
    fill()
    local before = rows()
    local ok = unhurried:transaction({ resolve = true }, function()
      must(unhurried:new(Score, { n = 1 }))
      must(unhurried:flush())
      for _, cache in ipairs(writer.caches) do
        must(unhurried:cache(cache):set("a", "new"))
        must(unhurried:cache(cache):delete "b")
      end
      faults.kill_connections(world)
      return true
    end)
    assert.is_nil(ok)
    assert.equal(before, rows())
    for _, of in ipairs { patient, orm } do
      support.as_redis_answers(of, function()
        for _, cache in ipairs { Shared, Both } do
          assert.equal("old", (of:cache(cache):get "a"))
          assert.equal("old", (of:cache(cache):get "b"))
        end
      end)
    end
  end)

  it("are set and deleted by what a transaction said last", function()
    fill()
    must(unhurried:transaction(function()
      local c = unhurried:cache(Both)
      must(c:set("a", 1, { tags = { "t" } }))
      must(c:set("a", 2))
      must(c:delete "b")
      must(c:set("b", 3, { tags = { "t" } }))
      must(c:delete_tag "t")
      must(c:set("d", 4, { tags = { "t" }, ttl_s = 100 }))
      return true
    end))
    local function found()
      return support.as_redis_answers(patient, function()
        return must(patient:cache(Both):get_many { "a", "b", "c", "d" })
      end)
    end
    assert.same({ a = 2, d = 4 }, found())
    must(patient:cache(Both):delete_tag "t")
    assert.same({ a = 2 }, found())
  end)

  it("refuse the COMMIT while Redis cannot be told", function()
    local far = world:open({ Score }, {
      caches = writer.caches, redis = "redis+unix:///nowhere.sock", lazy = true, schema = false,
    })
    local there = far:session()
    local before = rows()
    local ok, err = there:transaction(function()
      must(there:new(Score, { n = 1 }))
      must(there:flush())
      must(there:cache(Shared):delete "a")
      return true
    end)
    assert.is_nil(ok)
    assert.equal("UNAVAILABLE", err.code)
    assert.matches("cannot be told, so that nothing is written", err.message)
    assert.equal(before, rows())
    there:close()
  end)

  it("are never older than what was committed, of many processes some of which are killed", function()
    for _, cache in ipairs { "shared", "both" } do
      local score = must(db:new(Score, { n = 0 }))
      must(db:flush())
      local processes = {}
      for i = 1, 2 do
        processes[i] = faults.spawn("value_writer", env { CACHE = cache }, "write", score.id, ROUNDS)
        processes[2 + i] = faults.spawn("value_writer", env { CACHE = cache }, "read", score.id, ROUNDS * 3)
      end
      for i = 1, 2 do
        local doomed = env { CACHE = cache, REGOLITH_KILL_POINT = (33 + i) .. ":" .. 5 * i }
        local process = faults.spawn("value_writer", doomed, "write", score.id, ROUNDS)
        faults.await("the death of a writer", function() return not process:running() end)
        assert.equal("", process:output())
        os.remove(process.path)
      end
      for _, process in ipairs(processes) do
        local ok, text = process:wait(300)
        assert.is_true(ok, text)
      end
    end
  end)
end)
