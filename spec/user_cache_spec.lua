-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local User = regolith.entity("user", {
  field.string "name" { required = true }, cache = { process = true, redis = true },
})

local VARIANTS = {
  ["process and Redis"] = {},
  ["Redis alone"] = { process = false },
  ["process alone"] = { redis = false },
}

local function copy(t, more)
  local c = {}
  for k, v in pairs(t) do c[k] = v end
  for k, v in pairs(more or {}) do c[k] = v end
  return c
end

--- All the caches that these specs use, in one ORM a variant.
local function define(variant)
  local codec = { encode = function(v) return v.x .. "," .. v.y end, decode = function(text)
    local x, y = text:match "^(%d+),(%d+)$"
    return x and { x = tonumber(x), y = tonumber(y) } or nil
  end }
  local function cache(name, args) return regolith.cache(name, copy(variant, args)) end
  return {
    any = cache("any"),
    bytes = cache("bytes", { value = "string" }),
    number = cache("number", { value = "number" }),
    flag = cache("flag", { value = "boolean" }),
    row = cache("row", { value = {
      field.string "name" { required = true }, field.uint32 "n", field.json "tags" { nullable = true },
    } }),
    own = cache("own", { value = codec }),
    brief = cache("brief", { ttl_s = 0.3, absent_ttl_s = 0.3 }),
    small = cache("small", { value = "string", max_bytes = 100 }),
    user = cache("user", { entity = User }),
    users = cache("users", { entities = User }),
  }
end

for label, variant in pairs(VARIANTS) do
  describe("a user cache in " .. label, function()
    local world, orm, c, caches

    setup(function()
      world = support.world()
      c = define(variant)
      caches = {}
      for _, cache in pairs(c) do caches[#caches + 1] = cache end
      orm = world:open({ User }, { caches = caches })
      faults.await("coherence", function()
        orm:cache(c.any):get "x"
        orm:session():get(User, 1)
        return orm:stats().coherent
      end)
    end)
    teardown(function() world:close() end)

    it("gives back what was set, of every kind", function()
      local function round(cache, key, v)
        must(orm:cache(cache):set(key, v))
        assert.same(v, must(orm:cache(cache):get(key)))
      end
      round(c.any, "table", { a = 1, b = { "x", true, 2.5 } })
      round(c.any, "text", "plain")
      round(c.any, "number", 0.1)
      round(c.any, "empty", {})
      round(c.bytes, "nothing", "")
      round(c.bytes, "bytes", ("\0\1\255'\n"):rep(1000))
      round(c.number, "tenth", 0.1)
      round(c.number, "large", 2 ^ 53)
      round(c.flag, "yes", true)
      round(c.row, "row", { name = "ann", n = 7, tags = { "x" } })
      round(c.own, "own", { x = 1, y = 2 })
      must(orm:cache(c.flag):set("no", false))
      assert.is_false((orm:cache(c.flag):get "no"))
    end)

    it("keeps keys of any bytes apart, and caches from each other", function()
      local any, bytes = orm:cache(c.any), orm:cache(c.bytes)
      local keys = {
        "", "1", 1, { 1 }, { "1" }, { "1", "2" }, { "1:2" }, { "12" }, { "1", 2 }, "a", "A", "a:", ":a",
        "\0", "\1", "\2", "\0021", "\3" .. "2:\0021", "\4", ("k"):rep(200), ("k"):rep(201), ("k"):rep(5000),
        ("k"):rep(4999) .. "l", "{a}", "*",
        -1, 1.5, 2 ^ 53, "any:1", "\255\254",
      }
      for i, key in ipairs(keys) do must(any:set(key, i)) end
      for i, key in ipairs(keys) do must(bytes:set(key, "other " .. i)) end
      for i, key in ipairs(keys) do
        assert.equal(i, (any:get(key)), "key " .. i)
        assert.equal("other " .. i, (bytes:get(key)))
      end
      must(any:delete(keys[3]))
      assert.is_nil((any:get(1)))
      assert.equal(2, (any:get "1"))
    end)

    it("sets, gets and deletes many in a step", function()
      local any = orm:cache(c.any)
      must(any:set_many { one = 1, two = 2 })
      must(any:set_many { { 3, "three" }, { { "a", 4 }, "four" } })
      local four = { "a", 4 }
      assert.same({ one = 1, two = 2, [3] = "three", [four] = "four" },
        must(any:get_many { "one", "two", 3, four, "none" }))
      must(any:delete_many { "one", 3, "never" })
      assert.same({ two = 2 }, must(any:get_many { "one", "two", 3 }))
      assert.same({}, must(any:get_many {}))
      must(any:set_many {})
      must(any:delete_many {})
      local list = {}
      for i = 1, 1500 do list[i] = { i, i * 2 } end
      must(any:set_many(list))
      local keys = {}
      for i = 1, 1500 do keys[i] = i end
      local found = must(any:get_many(keys))
      for i = 1, 1500 do assert.equal(i * 2, found[i]) end
    end)

    it("loads what is not there, once", function()
      local any, loads = orm:cache(c.any), 0
      local function load(key)
        loads = loads + 1
        return { of = key }
      end
      assert.same({ of = "load" }, (any:get_or_load("load", load)))
      assert.same({ of = "load" }, (any:get_or_load("load", load)))
      assert.same({ of = "load" }, (any:get "load"))
      assert.equal(1, loads)
      must(any:delete "load")
      any:get_or_load("load", load)
      assert.equal(2, loads)
    end)

    it("remembers that there is nothing", function()
      local any, loads = orm:cache(c.any), 0
      local function load()
        loads = loads + 1
        return nil
      end
      assert.is_nil((any:get_or_load("void", load)))
      assert.is_nil((any:get_or_load("void", load)))
      assert.is_nil((any:get "void"))
      assert.equal(1, loads)
      must(any:set("void", "no longer"))
      assert.equal("no longer", (any:get_or_load("void", load)))
    end)

    it("remembers no failure of a loader", function()
      local any = orm:cache(c.any)
      local v, fault = any:get_or_load("fails", function() return nil, "no luck" end)
      assert.is_nil(v)
      assert.equal("no luck", fault)
      local ok, why = pcall(any.get_or_load, any, "fails", function() error({ mine = true }) end)
      assert.is_false(ok)
      assert.is_true(why.mine)
      assert.equal(3, (any:get_or_load("fails", function() return 3 end)))
    end)

    it("lets a set or a deletion during a load win", function()
      local any = orm:cache(c.any)
      assert.equal("old", (any:get_or_load("raced", function()
        must(any:delete "raced")
        return "old"
      end)))
      assert.is_nil((any:get "raced"))
      any:get_or_load("raced", function()
        must(any:set("raced", "new"))
        return "old"
      end)
      if variant.redis ~= false then assert.equal("new", (any:get "raced")) end
      assert.not_equal("old", (any:get "raced"))
    end)

    it("ends the life of a value, whether it is asked for or not", function()
      local brief = orm:cache(c.brief)
      local set_at = faults.now()
      must(brief:set("life", 1))
      must(brief:set("long", 1, { ttl_s = 60 }))
      while true do
        local before = faults.now()
        local v = brief:get "life"
        if v == nil then break end
        assert.is_true(before - set_at < 0.3 + 1)
        faults.pause(20)
      end
      if variant.redis == false then return end -- the process alone may forget before
      assert.is_true(faults.now() - set_at > 0.25)
      assert.equal(1, (brief:get "long"))
    end)

    it("refuses what is not of its kind, and what is too large", function()
      local function refuses(pattern, fn, ...)
        local arguments, n = { ... }, select("#", ...)
        local ok, why = pcall(function()
          local v = fn(unpack(arguments, 1, n))
          return v
        end)
        assert.is_false(ok)
        assert.matches(pattern, tostring(why))
        assert.matches("user_cache_spec", tostring(why))
      end
      local number, row, any = orm:cache(c.number), orm:cache(c.row), orm:cache(c.any)
      refuses("must be a number, not a string", number.set, number, "k", "1")
      refuses("has no field 'nme' %(did you mean 'name'%?%)", row.set, row, "k", { nme = "x" })
      refuses("n: ", row.set, row, "k", { name = "x", n = -1 })
      refuses("a key is a string", any.set, any, true, 1)
      refuses("a key is a string", any.get, any, nil)
      refuses("set takes a value", any.set, any, "k", nil)
      refuses("unknown option 'tll_s' %(did you mean 'ttl_s'%?%)", any.set, any, "k", 1, { tll_s = 1 })
      refuses("a function that loads", any.get_or_load, any, "k", 1)
      refuses("there is no cache 'anny' %(did you mean 'any'%?%)", orm.cache, orm, "anny")
      refuses("holds entities: take it from a session", orm.cache, orm, c.user)
      refuses("asks for the key that it loads", any.get_or_load, any, "self", function(k)
        local v = any:get_or_load(k, function() return 1 end)
        return v
      end)
      local ok, fault = orm:cache(c.small):set("k", ("x"):rep(101))
      assert.is_nil(ok)
      assert.equal("INVALID", fault.code)
      assert.matches("exceeds max_bytes, 100", fault.message)
      assert.equal(200, #(orm:cache(c.small):get_or_load("large", function() return ("x"):rep(200) end)))
      assert.is_nil((orm:cache(c.small):get "large"))
      must(orm:cache(c.small):set("fits", ("x"):rep(99)))
    end)

    it("holds entities by their ids", function()
      local db = orm:session()
      local ann, bob = db:new(User, { name = "ann" }), db:new(User, { name = "bob" })
      must(db:flush())
      local other = orm:session()
      must(db:cache(c.user):set("first", ann))
      must(db:cache "users":set("all", { ann, bob }))
      assert.equal("ann", must(other:cache(c.user):get "first").name)
      ann.name = "anna"
      db:delete(bob)
      must(db:flush())
      other:clear()
      assert.equal("anna", must(other:cache(c.user):get "first").name)
      local list = must(other:cache(c.users):get "all")
      assert.equal(1, #list)
      assert.equal(list[1], other:get(User, ann.id))
      other:close()
      db:close()
    end)

    it("tells other ORMs", function()
      local other = world:open({ User }, { caches = caches, schema = false })
      local mine, theirs = orm:cache(c.any), other:cache(c.any)
      faults.await("coherence", function()
        other:session():get(User, 1)
        theirs:get "told"
        return other:stats().coherent
      end)
      theirs:get_or_load("told", function() return 1 end)
      if variant.redis ~= false then must(mine:set("told", 2)) else must(mine:delete "told") end
      faults.await("the news", function()
        return theirs:get_or_load("told", function() return 2 end) == 2
      end)
      world:shut(other)
    end)
  end)
end

describe("a user cache", function()
  local world, orm, raw
  local Tagged = regolith.cache("tagged", { ttl_s = 600 })
  local Stale = regolith.cache("stale", { ttl_s = 1.5, stale_s = 60, lease_s = 20 })
  local Sliding = regolith.cache("sliding", { ttl_s = 0.6, sliding = true })
  local Early = regolith.cache("early", { ttl_s = 60, early = 1000 })
  local Slow = regolith.cache("slow", { lease_s = 20 })
  local Dying = regolith.cache("dying", { lease_s = 0.5 })
  local list = { Tagged, Stale, Sliding, Early, Slow, Dying }

  setup(function()
    world = support.world()
    orm = world:open({ User }, { caches = list })
    raw = faults.redis()
    faults.await("coherence", function()
      orm:cache(Tagged):get "x"
      return orm:stats().coherent
    end)
  end)
  teardown(function()
    raw:close()
    world:close()
  end)

  local function redis_key(cache, key) return "{" .. world.name .. "}:u:" .. cache.name .. ":" .. key end

  it("deletes by tag, wherever the values are", function()
    local other = world:open({ User }, { caches = list, schema = false })
    local mine, theirs = orm:cache(Tagged), other:cache(Tagged)
    faults.await("coherence", function()
      theirs:get "x"
      return other:stats().coherent
    end)
    must(mine:set("a", 1, { tags = { "red", "round" } }))
    must(mine:set("b", 2, { tags = { "red" } }))
    must(mine:set("c", 3, { tags = { "blue" } }))
    must(mine:set("d", 4))
    mine:get_or_load("e", function() return 5 end, { tags = function(v) return { "n" .. v } end })
    for _, cache in ipairs { mine, theirs, mine, theirs } do
      assert.same({ a = 1, b = 2, c = 3, d = 4, e = 5 }, must(cache:get_many { "a", "b", "c", "d", "e" }))
    end
    must(mine:delete_tag "red")
    assert.same({ c = 3, d = 4, e = 5 }, must(mine:get_many { "a", "b", "c", "d", "e" }))
    faults.await("the news of a tag", function() return theirs:get "a" == nil and theirs:get "b" == nil end)
    assert.equal(3, (theirs:get "c"))
    must(theirs:delete_tag { "blue", "n5" })
    faults.await("the news of tags", function() return mine:get "c" == nil and mine:get "e" == nil end)
    assert.equal(4, (mine:get "d"))
    must(mine:set("a", 6, { tags = { "red" } }))
    assert.equal(6, (mine:get "a"))
    world:shut(other)
  end)

  it("fills nothing whose tag was deleted while it was loaded", function()
    local cache = orm:cache(Tagged)
    must(cache:set("other", 1, { tags = { "raced" } }))
    assert.equal("old", (cache:get_or_load("raced", function()
      must(cache:delete_tag "raced")
      return "old"
    end, { tags = { "raced" } })))
    assert.is_nil((cache:get "raced"))
    assert.equal("new", (cache:get_or_load("raced", function() return "new" end, { tags = { "raced" } })))
    assert.equal("new", (cache:get "raced"))
  end)

  it("answers from the process without asking Redis, tags and all", function()
    local cache = orm:cache(Tagged)
    must(cache:set("hot", 1, { tags = { "warm", "hot" } }))
    faults.await("a hit of the process", function()
      cache:get "hot"
      return support.count(orm, function() assert.equal(1, (cache:get "hot")) end).redis == 0
    end)
    must(cache:delete_tag "warm")
    assert.is_nil((cache:get "hot"))
  end)

  it("serves a value past its life to all but the one who loads it anew", function()
    local cache, loads = orm:cache(Stale), 0
    must(cache:set("k", "old"))
    faults.await("the end of its life", function() return cache:get "k" == nil end)
    local inner
    assert.equal("new", (cache:get_or_load("k", function()
      loads = loads + 1
      local other = world:open({ User }, { caches = list, schema = false, process_cache_mb = 0 })
      inner = other:cache(Stale):get_or_load("k", function() loads = loads + 1 end)
      world:shut(other)
      return "new"
    end)))
    assert.equal("old", inner)
    assert.equal(1, loads)
    assert.equal("new", (cache:get_or_load("k", function() return "newer" end)))
  end)

  it("serves it as well when it cannot be loaded anew", function()
    local cache = orm:cache(Stale)
    must(cache:set("down", "old"))
    faults.await("the end of its life", function() return cache:get "down" == nil end)
    assert.equal("old", (cache:get_or_load("down", function() return nil, "down" end)))
    assert.equal("old", (cache:get_or_load("down", function() error "down" end)))
    assert.equal("up", (cache:get_or_load("down", function() return "up" end)))
  end)

  it("loads anew before the end when loading takes long enough", function()
    local cache, loads = orm:cache(Early), 0
    local function load()
      loads = loads + 1
      faults.pause(30)
      return loads
    end
    for _ = 1, 400 do cache:get_or_load("k", load) end
    assert.is_true(loads > 1 and loads < 400, loads .. " loads")
  end)

  it("keeps a sliding value alive as long as it is asked for", function()
    local cache = orm:cache(Sliding)
    local last, until_s = faults.now(), faults.now() + 1.5
    must(cache:set("asked", 1))
    must(cache:set("alone", 1))
    while faults.now() < until_s do
      local began, v = faults.now(), cache:get "asked"
      if faults.now() - last < 0.5 then assert.equal(1, v) end -- else this machine was too busy to ask in time
      last = began -- it was prolonged some time after that
      if v == nil then must(cache:set("asked", 1)) end
      faults.pause(50)
    end
    assert.is_nil((cache:get "alone"))
    faults.await("its end", function()
      faults.pause(900)
      return cache:get "asked" == nil
    end)
  end)

  it("is loaded by one process at a time", function()
    local env = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name }
    local processes = {}
    for i = 1, 4 do processes[i] = faults.spawn("cacher", env, "load", "shared", 300) end
    for _, process in ipairs(processes) do process:await "ready" end
    raw:call("SET", "{" .. world.name .. "}:go", "1")
    local loads = 0
    for _, process in ipairs(processes) do
      local ok, text = process:wait()
      assert.is_true(ok, text)
      assert.matches("value the value of shared", text)
      loads = loads + select(2, text:gsub("loading", ""))
    end
    assert.equal(1, loads)
  end)

  it("is loaded by another process when the first one dies", function()
    local env = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name }
    local process = faults.spawn("cacher", env, "load", "orphan", 60000)
    process:await "ready"
    raw:call("SET", "{" .. world.name .. "}:go", "1")
    process:await "loading"
    process:kill()
    assert.equal("mine", (orm:cache(Dying):get_or_load("orphan", function() return "mine" end)))
    assert.equal("mine", (orm:cache(Dying):get "orphan"))
  end)

  it("counts damaged values as misses", function()
    local cache = orm:cache(Slow)
    local function damaged() return orm:counter "regolith_cache_corrupt_total" end
    must(cache:set("k", { deep = "value" }))
    local key = redis_key(Slow, "k")
    local entry = must(raw:call("GET", key))
    local variants = {
      "", "V", entry:sub(1, -2), entry .. "x", entry:sub(1, 60), ("V"):rep(500), "\0", "L" .. entry:sub(2),
    }
    for at = 55, #entry do
      variants[#variants + 1] = entry:sub(1, at - 1) .. string.char(bit.bxor(entry:byte(at), 1)) .. entry:sub(at + 1)
    end
    local before = damaged()
    for _, variant in ipairs(variants) do
      raw:call("SET", key, variant)
      faults.await("the process to forget", function()
        local value
        return support.count(orm, function() value = cache:get "k" end).redis > 0 and value == nil
      end)
    end
    assert.is_true(damaged() - before > 20)
    raw:call("SET", key, variants[#variants])
    assert.equal("loaded", (cache:get_or_load("k", function() return "loaded" end)))
    assert.equal("loaded", (cache:get "k"))
    raw:call("DEL", key)
    raw:call("RPUSH", key, "of another type")
    faults.await("the process to forget", function() return cache:get "k" == nil end)
    assert.equal("loaded", (cache:get_or_load("k", function() return "loaded" end)))
  end)

  it("does not take a value that stands under another key", function()
    local cache = orm:cache(Slow)
    must(cache:set("mine", "mine"))
    raw:call("SET", redis_key(Slow, "yours"), must(raw:call("GET", redis_key(Slow, "mine"))))
    assert.is_nil((cache:get "yours"))
  end)

  it("forgets everything with the epoch, as when Redis was emptied", function()
    local cache = orm:cache(Slow)
    must(cache:set("old", 1))
    raw:call("SET", "{" .. world.name .. "}:ep", "12345678")
    faults.await("the process to forget", function() return cache:get "old" == nil end)
  end)

  it("says what is wrong with its definition", function()
    local ok, fault = regolith.open { mysql = world.mysql_url(world.name), entities = {}, caches = {
      regolith.cache("bad name", { tll_s = 1 }), regolith.cache("none", { process = false, redis = false }),
      regolith.cache("kinds", { value = "strng" }), regolith.cache("both", { value = "json", entity = User }), {},
      regolith.cache("lonely", { redis = "elsewhere" }),
    } }
    assert.is_nil(ok)
    for _, text in ipairs { "unknown option 'tll_s' %(did you mean 'ttl_s'%?%)", "must be letters",
      "neither in the process nor in Redis", "did you mean 'string'", "takes one of", "entry 5 is not a cache" } do
      assert.matches(text, tostring(fault))
    end
  end)
end)

describe("a user cache without its Redis", function()
  local servers
  setup(function() servers = faults.servers "usercache" end)
  teardown(function() servers:remove() end)

  local Cache = regolith.cache("cache", { ttl_s = 600 })

  it("loads within a bounded time, and is coherent when Redis is back", function()
    local orm = servers:open({ User }, { caches = { Cache } })
    local cache = orm:cache(Cache)
    must(cache:set("k", "before"))
    servers:stop "redis"
    faults.await("the process cache to be closed", function() return not orm:stats().coherent end)
    for i = 1, 5 do
      local started = faults.now()
      assert.equal("loaded " .. i, (cache:get_or_load("k", function() return "loaded " .. i end)))
      assert.is_true(faults.now() - started < 5)
    end
    local v, fault = cache:get "k"
    assert.is_nil(v)
    assert.equal("UNAVAILABLE", fault.code)
    servers:continue "redis"
    faults.await("Redis to be asked again", function() return cache:get "k" == "before" end)
    servers:kill "redis"
    faults.await("the process cache to be closed", function() return not orm:stats().coherent end)
    assert.equal("loaded", (cache:get_or_load("k", function() return "loaded" end)))
    local ok
    ok, fault = cache:delete "k"
    assert.is_nil(ok)
    assert.is_true(fault.retriable)
    servers:start()
    faults.await("Redis to be asked again", function() return cache:delete "k" end)
    assert.equal("after", (cache:get_or_load("k", function() return "after" end)))
  end)
end)
