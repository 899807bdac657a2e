-- SPDX-License-Identifier: MIT
-- User caches: what a loader may do, keys of any bytes, tags in any number.

local regolith = require "regolith"
local support = require "support.init"

local must = support.must

describe("a user cache", function()
  local world, orm, other
  local Any = regolith.cache("any", {})
  local Text = regolith.cache("text", { value = "string" })
  local Flag = regolith.cache("flag", { value = "boolean" })
  local Stale = regolith.cache("stale", { ttl_s = 0.05, stale_s = 100 })

  setup(function()
    world = support.world()
    orm = world:open({}, { caches = { Any, Text, Flag, Stale } })
    other = world:open({}, { caches = { Any, Text, Flag, Stale } })
  end)
  teardown(function() world:close() end)

  it("remembers false, and neither failures nor what cannot be kept", function()
    local loads = 0
    local function loader(...)
      local results, n = { ... }, select("#", ...)
      return function()
        loads = loads + 1
        return unpack(results, 1, n)
      end
    end
    for _, cache in ipairs { orm:cache(Any), orm:cache(Flag) } do
      loads = 0
      assert.same({ false, "no luck" }, { cache:get_or_load("f", loader(false, "no luck")) })
      assert.same({ false }, { cache:get_or_load("f", loader(false)) })
      assert.is_false(cache:get_or_load("f", loader(true)))
      assert.is_false(cache:get "f")
      assert.equal(2, loads)
    end
    local cache = orm:cache(Text)
    for _, bad in ipairs { function() error("broken", 0) end, loader(7) } do
      local ok, why = pcall(cache.get_or_load, cache, "t", bad)
      assert.is_false(ok)
      assert.matches("^broken$", (why:gsub("^cache text: the value must be a string, not a number$", "broken")))
    end
    assert.equal(2 ^ 21, #cache:get_or_load("t", loader(("x"):rep(2 ^ 21)))) -- more than max_bytes
    assert.equal("small", cache:get_or_load("t", loader "small"))
    assert.equal("small", other:cache(Text):get "t")
  end)

  it("keeps what a loader sets, and tells one that asks for its own key", function()
    local cache = orm:cache(Any)
    assert.equal("loaded", cache:get_or_load("own", function(key)
      must(cache:set(key, "set"))
      return "loaded"
    end))
    assert.equal("set", cache:get "own")
    assert.error_matches(function()
      cache:get_or_load("again", function(key) return cache:get_or_load(key, function() return 1 end) end)
    end, "the loader asks for the key that it loads")
    assert.equal(2, cache:get_or_load("again", function() return 2 end))
    assert.same({ 1, 2 }, cache:get_or_load("outer", function()
      return { cache:get_or_load("inner", function() return 1 end), 2 }
    end))
  end)

  it("serves a value past its life when the loader raises, and its absence once there is none", function()
    local cache = orm:cache(Stale)
    must(cache:set("k", "old"))
    support.eventually(function() return cache:get "k" == nil end)
    assert.equal("old", cache:get_or_load("k", function() error "broken" end))
    assert.equal("old", cache:get_or_load("k", function() return false, "broken" end))
    assert.is_nil(cache:get_or_load("k", function() return nil end))
    assert.is_nil(other:cache(Stale):get_or_load("k", function() return "late" end))
  end)

  it("keeps keys apart that look alike, whatever their bytes", function()
    local bytes = {}
    for i = 0, 255 do bytes[i + 1] = string.char(i) end
    local all = table.concat(bytes)
    local keys = {
      "", "\0", "\0\0", "a", "a\0", "a\0b", "\1", "\1\1", "\2" .. "1", 1, "1", -1, 1.5, 0, "0", 2 ^ 53, 1e300, 0.1,
      "\255\254", all, all .. "x", ("k"):rep(200), ("k"):rep(201), "a:b", "a%3ab", "\3" .. "1:a", "\4",
      { 1 }, { "1" }, { 1, 2 }, { "1", "2" }, { "12" }, { "a", "b" }, { "ab" }, { "a\0", "b" }, { "a", "\0b" },
    }
    for i, key in ipairs(keys) do must(orm:cache(Text):set(key, "v" .. i)) end
    local many = must(other:cache(Text):get_many(keys))
    for i, key in ipairs(keys) do
      assert.equal("v" .. i, other:cache(Text):get(key))
      assert.equal("v" .. i, many[key])
    end
  end)

  it("takes one tag as a string, as many as it can hold, and deletes any number", function()
    local cache, tags = orm:cache(Text), {}
    for i = 1, 40 do tags[i] = "tag" .. i end
    for i = 1, 40 do must(cache:set(i, "v", { tags = tags[i] })) end
    must(cache:delete_tag(tags))
    for i = 1, 40 do assert.is_nil(cache:get(i)) end
    for _, fn in ipairs { function() cache:set("k", "v", { tags = tags }) end,
      function() cache:get_or_load("k", function() return "v" end, { tags = tags }) end } do
      assert.error_matches(fn, "a value has 16 tags at most, not 40")
    end
  end)

  it("checks the options of each call", function()
    local cache = orm:cache(Any)
    local function load() return 1 end
    for _, bad in ipairs { 0, -1, 0 / 0, 1 / 0, "1", true } do
      assert.error_matches(function() cache:set("o", 1, { ttl_s = bad }) end, "set: option 'ttl_s' must be a number")
      for _, option in ipairs { "ttl_s", "absent_ttl_s", bad ~= 0 and "wait_s" or nil } do
        assert.error_matches(function() cache:get_or_load("o", load, { [option] = bad }) end,
          "get_or_load: option '" .. option .. "' must be a number")
      end
    end
    assert.error_matches(function() cache:set("o", 1, { ttl_ss = 1 }) end, "did you mean 'ttl_s'")
    assert.is_nil(cache:get "o")
    assert.equal(1, cache:get_or_load("o", load, { wait_s = 0, ttl_s = 0.001 }))
  end)
end)
