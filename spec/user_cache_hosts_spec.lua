-- SPDX-License-Identifier: MIT
-- Loading once for all coroutines that ask, in programs with a loop of their own; and loaders whose
-- coroutine is never gone on with.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must

for _, which in ipairs { "luv", "cqueues" } do
  local run = pcall(require, which) and it or pending
  package.loaded[which] = nil

  describe("caches in " .. which, function()
    local world

    setup(function() world = support.world() end)
    teardown(function()
      faults.kill_connections(world)
      world:close()
    end)

    run("load a value once for all coroutines, which keep no worker waiting", function()
      local process = faults.spawn("loaders", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, which)
      local ok, text = process:wait(30)
      assert.is_true(ok, text)
      assert.equal("loaded 1 1, got 40, ticking true; 20 rows together true\n", text)
    end)
  end)
end

describe("a loader whose coroutine was left", function()
  it("keeps the others from caching for as long as its lease, and no longer", function()
    local world = support.world()
    local Cache = regolith.cache("left", { value = "number", process = false, lease_s = 0.3, wait_s = 0.05 })
    local orm = must(regolith.open { mysql = world.mysql_url(world.name), redis = world.redis_url(),
      prefix = world.name, entities = {}, caches = { Cache } })
    local cache, loads = orm:cache(Cache), 0
    local function load()
      loads = loads + 1
      return loads
    end
    coroutine.wrap(function() cache:get_or_load("key", coroutine.yield) end)()
    assert.equal(1, cache:get_or_load("key", load))
    faults.await("the end of the lease", function()
      cache:get_or_load("key", load)
      return cache:get "key"
    end)
    local before = loads
    assert.equal(before, cache:get_or_load("key", load))
    assert.equal(before, loads)
    orm:close()
    world:close()
  end)
end)
