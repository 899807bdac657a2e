-- SPDX-License-Identifier: MIT
-- Engines of one process that say the same share one process cache, in whatever Lua state; others never.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must, field = support.must, regolith.field

describe("a process cache of several orms", function()
  local world
  before_each(function() world = support.world() end)
  after_each(function() world:close() end)

  local function item(more)
    local columns = { field.string "name" { unique = true, length = 40 }, cache = true }
    for k, v in pairs(more or {}) do columns[k] = v end
    return regolith.entity("item", columns)
  end
  local function open(entity, more)
    local config = { process_cache = {} }
    for k, v in pairs(more or {}) do config[k] = v end
    return world:open({ entity }, config)
  end

  local function add(orm, entity, name)
    local db = orm:session()
    local one = must(db:new(entity, { name = name }))
    must(db:flush())
    db:close()
    return one.id
  end

  --- Reads it by way of the cache until that answers.
  local function warm(orm, entity, id)
    faults.await("a hit", function()
      return support.count(orm, function()
        local db = orm:session()
        must(db:get(entity, id))
        db:close()
      end).redis == 0
    end)
  end

  --- What reading it in a new session costs.
  local function cost(orm, entity, id)
    local got
    local counts = support.count(orm, function()
      local db = orm:session()
      got = must(db:get(entity, id)).name
      db:close()
    end)
    return counts.redis + counts.mysql, got
  end

  it("is one for all Lua states of the process", function()
    local ffi = require "ffi"
    ffi.cdef [[
      typedef struct lua_State lua_State;
      lua_State *luaL_newstate(void); void luaL_openlibs(lua_State *); void lua_close(lua_State *);
      int luaL_loadstring(lua_State *, const char *); int lua_pcall(lua_State *, int, int, int);
      const char *lua_tolstring(lua_State *, int, size_t *);
    ]]
    local Item = item()
    local orm = open(Item)
    local id = add(orm, Item, "of another state")
    local program = string.format([=[
      package.path, package.cpath = %q, %q
      local support, regolith = require "support.init", require "regolith"
      local field = regolith.field
      local Item = regolith.entity("item", { field.string "name" { unique = true, length = 40 }, cache = true })
      local orm = support.must(regolith.open { mysql = %q, redis = %q, prefix = %q, entities = { Item },
        timeout_ms = 10000, process_cache = {} })
      require("support.faults").await("a hit", function()
        return support.count(orm, function()
          local db = orm:session()
          support.must(db:get(Item, %d))
          db:close()
        end).redis == 0
      end)
      return function() orm:close() end]=], package.path, package.cpath, world.mysql_url(world.name),
      world.redis_url(), world.name, id)
    support.in_peace({ orm }, function()
      local L = ffi.C.luaL_newstate()
      ffi.C.luaL_openlibs(L)
      assert(ffi.C.luaL_loadstring(L, program) == 0, "it does not compile")
      local rc = ffi.C.lua_pcall(L, 0, 1, 0)
      assert.equal(0, rc, rc ~= 0 and ffi.string(ffi.C.lua_tolstring(L, -1, nil)) or nil)
      -- this state has not read it
      local trips, name = cost(orm, Item, id)
      assert.equal(0, ffi.C.lua_pcall(L, 0, 0, 0))
      ffi.C.lua_close(L)
      return trips, name
    end, function(trips, name) assert.same({ 0, "of another state" }, { trips, name }) end)
  end)

  it("is one, whoever has read", function()
    local Item = item()
    local a, b = open(Item), open(Item)
    local id = add(a, Item, "one")
    support.in_peace({ a, b }, function()
      warm(a, Item, id)
      return cost(b, Item, id)
    end, function(trips, name)
      assert.equal(0, trips)
      assert.equal("one", name)
    end)
    assert.same(a:stats().process_cache, b:stats().process_cache)
    assert.equal("one", b:session():by(Item, "name", "one").name)
  end)

  it("shows what one writes to the other at once", function()
    local Item = item()
    local a, b = open(Item), open(Item)
    local id = add(a, Item, "one")
    for i = 1, 20 do
      warm(b, Item, id)
      local db = a:session()
      must(db:get(Item, id)).name = "name " .. i
      must(db:flush())
      db:close()
      local _, name = cost(b, Item, id)
      assert.equal("name " .. i, name)
    end
  end)

  it("outlives the orm that came first", function()
    local Item = item()
    local a, b = open(Item), open(Item)
    local id = add(a, Item, "one")
    support.in_peace({ b }, function()
      local first = a or open(Item, { schema = false })
      warm(first, Item, id)
      world:shut(first)
      a = nil
      collectgarbage()
      collectgarbage()
      return cost(b, Item, id)
    end, function(trips) assert.equal(0, trips) end)
    local outside = world:open({ Item }) -- apart, as specs are
    local db = outside:session()
    must(db:get(Item, id)).name = "two"
    must(db:flush())
    db:close()
    faults.await("the new name", function()
      local _, name = cost(b, Item, id)
      return name == "two"
    end)
    local c = open(Item)
    support.in_peace({ b, c }, function()
      warm(c, Item, id)
      return cost(b, Item, id)
    end, function(trips) assert.equal(0, trips) end)
  end)

  it("is not shared by what is defined otherwise, or wants its own", function()
    local Item = item()
    local a = open(Item)
    local id = add(a, Item, "one")
    warm(a, Item, id)
    local others = {
      open(item { [2] = field.uint32 "n" { default = 0 } }),
      open(item { cache = { process = true, redis = true, ttl_s = 5 } }, { schema = false }),
      open(Item, { prefix = world.name .. ".b", schema = false }),
      open(Item, { process_cache = { apart = true }, schema = false }),
    }
    for i, orm in ipairs(others) do
      local entity = orm._by_name.item
      local trips, name = cost(orm, entity, id)
      assert.is_true(trips > 0, "number " .. i)
      assert.equal("one", name)
    end
    warm(a, Item, id)
    assert.equal("one", select(2, cost(a, Item, id)))
  end)

  it("keeps what one loads for the other's values, too", function()
    local Cache = regolith.cache("words", { ttl_s = 60 })
    local a = world:open({}, { caches = { Cache }, process_cache = {} })
    local b = world:open({}, { caches = { Cache }, process_cache = {} })
    must(a:cache(Cache):set("k", "v"))
    faults.await("a hit", function()
      must(a:cache(Cache):get "k")
      local counts = support.count(b, function() assert.equal("v", b:cache(Cache):get "k") end)
      return counts.redis == 0
    end)
    must(b:cache(Cache):set("k", "w"))
    faults.await("the new value", function() return a:cache(Cache):get "k" == "w" end)
  end)

  it("is told of what is wrong with how it is asked for", function()
    for _, case in ipairs {
      { { mbs = 3 }, "process_cache: unknown option 'mbs' %(did you mean 'mb'%?%)" },
      { { mb = -1 }, "process_cache: option 'mb' must be at least 0" },
      { { shared = "../x" }, "process_cache: option 'shared' must be a name" },
      { { shared = "x", apart = true }, "what is 'shared' is not 'apart'" },
    } do
      local orm, err = regolith.open(world:config({}, { process_cache = case[1] }))
      assert.is_nil(orm)
      assert.matches(case[2], tostring(err))
    end
    local orm, err = regolith.open(world:config({}, { process_cache = { shared = "/nowhere/at/all" } }))
    assert.is_nil(orm)
    assert.equal("CONFIG", err.code)
    assert.matches("/nowhere/at/all cannot be made", tostring(err))
  end)
end)
