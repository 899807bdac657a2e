-- SPDX-License-Identifier: MIT
-- Strings, numbers and booleans of a cache that a Lua state keeps as it has made them: as long as nobody has
-- changed, dropped or outlived them.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must

describe("a value that was just read", function()
  local world, here, there, redis
  local Text = regolith.cache("text", { value = "string" })
  local Short = regolith.cache("short", { value = "number", ttl_s = 0.3 })
  local Own = regolith.cache("own", { value = "boolean", redis = false })
  local caches = { Text, Short, Own }

  setup(function()
    world = support.world()
    here, there = world:open({}, { caches = caches }), world:open({}, { caches = caches, schema = false })
    redis = faults.redis()
    for _, orm in ipairs { here, there } do
      faults.await("coherence", function()
        orm:cache(Text):get "x"
        return orm:stats().coherent
      end)
    end
  end)
  teardown(function()
    redis:close()
    world:close()
  end)

  --- Read until it is kept: answered twice without a look at the process cache's entries. Set anew when it is gone:
  --- a process cache is emptied when its channel was late, and it is all that some caches have.
  local function keep(orm, cache, key, v)
    faults.await(string.format("%s of cache %s to be kept", key, cache.name), function()
      local memo = orm:cache(cache)._memo
      if orm:cache(cache):get(key) == nil then must(orm:cache(cache):set(key, v)) end
      return orm:cache(cache):get(key) == v and orm:cache(cache):get(key) == v and memo.values[key] == v
        and require("regolith.native").C.rg_cache_holds(orm._engine, memo.holds[key]) ~= 0
    end)
  end

  --- Who has set it finds it at once.
  local function finds(orm, v)
    support.as_redis_answers(orm, function() assert.equal(v, (orm:cache(Text):get "a")) end)
  end

  it("is the one that was set since, here at once and elsewhere soon", function()
    for i = 1, 30 do
      must(here:cache(Text):set("a", "v" .. i))
      finds(here, "v" .. i)
      keep(here, Text, "a", "v" .. i)
      keep(there, Text, "a", "v" .. i)
      must(there:cache(Text):set("a", "w" .. i))
      finds(there, "w" .. i)
      faults.await("the news", function() return here:cache(Text):get "a" == "w" .. i end, 3.5)
    end
  end)

  it("is gone with its key, its tag, and its time", function()
    must(here:cache(Text):set("a", "1"))
    keep(here, Text, "a", "1")
    must(here:cache(Text):delete "a")
    assert.is_nil((here:cache(Text):get "a"))
    assert.equal("2", (here:cache(Text):get_or_load("a", function() return "2" end)))
    must(here:cache(Text):set("b", "1", { tags = { "t" } }))
    keep(here, Text, "b", "1")
    must(here:cache(Text):delete_tag "t")
    assert.is_nil((here:cache(Text):get "b"))
    faults.await("it within its time", function()
      must(here:cache(Short):set("c", 7))
      return here:cache(Short):get "c" == 7
    end)
    faults.await("its end", function() return here:cache(Short):get "c" == nil end)
    must(here:cache(Own):set("d", false))
    keep(here, Own, "d", false)
    must(there:cache(Own):set("d", true))
    faults.await("the news", function() return here:cache(Own):get "d" == nil end, 3.5)
  end)

  it("is counted as a hit, and never more than bounded", function()
    must(here:cache(Text):set("a", "1"))
    faults.await("ten hits", function() -- news of what was set may come among them
      keep(here, Text, "a", "1")
      local before = here:counter "regolith_values_process_hits_total"
      for _ = 1, 10 do finds(here, "1") end
      return here:counter "regolith_values_process_hits_total" == before + 10
    end)
    local large = ("x"):rep(10000)
    faults.await("three reads of a large one", function() -- what was set may be forgotten, if Redis was emptied before
      must(here:cache(Text):set("large", large))
      for _ = 1, 3 do
        if here:cache(Text):get "large" ~= large then return false end
      end
      return true
    end)
    assert.is_nil(here:cache(Text)._memo.values.large)
  end)

  it("is not believed once the channel is lost, nor after Redis was emptied", function()
    must(here:cache(Text):set("a", "1"))
    keep(here, Text, "a", "1")
    redis:call("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
    must(there:cache(Text):set("a", "2"))
    faults.await("the news", function() return here:cache(Text):get "a" == "2" end, 3.5)
    keep(here, Text, "a", "2")
    redis:call "FLUSHALL"
    faults.await("nothing", function() return here:cache(Text):get "a" == nil end, 3.5)
  end)
end)
