-- SPDX-License-Identifier: MIT
-- Calls with what they do not take, on handles that are open or closed: the caller is told, in the library's
-- words. Nothing of it reaches C.

local ffi = require "ffi"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Thing = regolith.entity("thing", {
  field.string "name" { length = 20, unique = true }, field.string "kind" { index = true },
  cache = true, events = { things = true },
})
local Memo = regolith.cache("memo", { value = "string", ttl_s = 5 })

local function nop() end

--- What no call takes, or only some.
local ODD = {
  ["nothing"] = function() end, ["a table"] = function() return {} end, ["a number below 0"] = function() return -1 end,
  ["not a number"] = function() return 0 / 0 end, ["a function"] = function() return nop end,
  ["true"] = function() return true end, ["cdata"] = function() return ffi.new "int[2]" end,
  ["text with NUL"] = function() return "a\0b" end, ["no name"] = function() return "no such thing" end,
  ["null"] = function() return regolith.null end, ["names"] = function() return { a = 1 } end,
}
--- These end what the others need, or wait.
local NOT = { begin = true, close = true, release = true, run = true, stop = true, leave = true }

local function methods_of(handle, kind)
  local names, seen = {}, {}
  local mt = debug.getmetatable(handle)
  while mt and type(mt.__index) == "table" do
    for name, v in pairs(mt.__index) do
      local public = type(name) == "string" and not name:find "^_" and type(v) == "function"
      local ends = NOT[name] or (name == "drop" and kind ~= "orm")
      if public and not ends and not seen[name] then seen[name], names[#names + 1] = true, name end
    end
    mt = debug.getmetatable(mt.__index)
  end
  table.sort(names)
  return names
end

describe("misuse", function()
  local world, orm, db

  local function new_handles()
    return {
      orm = orm, session = db, query = db:search(Thing, "1 = 1"), consumer = must(orm:consumer()),
      cache = orm:cache(Memo), subscriber = orm:subscriber("things", { group = "g", handler = nop }),
      lock = must(orm:lock("l", { ttl_ms = 60000 })), advisory = must(orm:advisory_lock("a", { timeout_ms = 1000 })),
    }
  end

  setup(function()
    world = support.world()
    orm = world:open({ Thing }, { caches = { Memo } })
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  --- What the call raises, when it is not in words for the caller.
  local function raised(fn)
    local ok, why = pcall(fn)
    if ok or regolith.is_error(why) then return nil end
    why = tostring(why)
    local inner = why:find("cannot convert", 1, true) or why:find("bad argument", 1, true)
      or why:find("attempt to", 1, true)
    return inner and why
  end

  local function abuse(handles, found)
    for kind, handle in pairs(handles) do
      for _, name in ipairs(methods_of(handle, kind)) do
        for what, make in pairs(ODD) do
          local v = make()
          local why = raised(function() return handle[name](handle, v) end)
            or raised(function() return handle[name](handle, Thing, v) end)
            or raised(function() return handle[name](handle, 0, v) end)
          if why then found[#found + 1] = string.format("%s:%s with %s: %s", kind, name, what, why) end
          if kind == "session" then pcall(db.discard, db) end
        end
      end
    end
  end

  it("of an open handle is told in the library's words", function()
    local handles, found = new_handles(), {}
    abuse(handles, found)
    assert.same({}, found)
    handles.consumer:close()
    handles.lock:release()
    handles.advisory:release()
  end)

  it("of a closed consumer is told", function()
    for _, queue in ipairs { "default", "all" } do
      local consumer = must(orm:consumer { queue = queue })
      consumer:close()
      consumer:close()
      for _, name in ipairs { "step", "stats", "run" } do
        local ok, why = pcall(consumer[name], consumer)
        assert.is_false(ok)
        assert.matches("the consumer is closed", why)
      end
      assert.is_true(consumer:leave())
    end
  end)

  it("of a list with a nil in it is told: nothing of it goes unseen", function()
    local function fails(pattern, fn)
      local ok, why = pcall(fn)
      assert.is_false(ok, pattern)
      assert.matches(pattern, tostring(why))
      assert.matches("misuse_spec", tostring(why)) -- it blames the caller
    end
    local holes = { 1, 2, 3 }
    holes[2] = nil
    holes[5] = 5
    fails("get_many: entry 2", function() return (db:get_many(Thing, holes)) end)
    fails("delete_all: entry 2", function() return (db:delete_all(Thing, holes)) end)
    fails("invalidate: entry 2", function() return (orm:invalidate(Thing, holes)) end)
    fails("parameter 1: entry 2", function() return (db:search(Thing, "id in (?)", holes)) end)
    fails("parameter 2: entry 2", function() return (db:query("select ?, 1 in (?)", 1, holes)) end)
    fails("insert_all takes a list", function() return (db:insert_all(Thing, { name = "a" })) end)
    fails("get_many takes a list", function() return (db:get_many(Thing, { id = 1 })) end)
    assert.same({ n = 0 }, db:get_many(Thing, {}))
    assert.same({ n = 2 }, db:get_many(Thing, { 7, 8, n = 2 }))
  end)

  it("of an index says how its values are given", function()
    local ok, why = pcall(db.by, db, Thing, "name", "a", "b")
    assert.is_false(ok)
    assert.matches("the values of an index come as one, here { name }", why, 1, true)
  end)
end)
