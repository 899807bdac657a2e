-- SPDX-License-Identifier: MIT
-- What other libraries' caches get wrong, and no other file here asks for.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

describe("the caches of entities", function()
  local world

  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  local function session_get(orm, entity, id)
    local db = orm:session()
    local e = must(db:get(entity, id))
    db:close()
    return e
  end

  --- With the process cache in use.
  local function open(entity, more)
    local orm = world:open({ entity }, more)
    faults.await("the process cache", function()
      local db = orm:session()
      db:get(entity, 1)
      db:close()
      return orm:stats().coherent
    end)
    return orm
  end

  it("hold what others write past the library no longer than their TTL, however often it is read", function()
    local types, orms, rows = {}, {}, {}
    for i, cache in ipairs { { process = true, redis = true }, { process = true }, { redis = true } } do
      cache.ttl_s, cache.absent_ttl_s = 1, 1
      types[i] = regolith.entity("hot" .. i, { field.uint32 "n", field.string "code" { unique = true },
        index = { n = { "n", cached = true } }, cache = cache, ids = "application" })
      orms[i] = cache.process and open(types[i]) or world:open { types[i] }
      local db = orms[i]:session()
      db:new(types[i], { id = 1, n = 1, code = "a" })
      must(db:flush())
      db:close()
    end
    --- What a session sees, in a word.
    local function look(i)
      local db = orms[i]:session()
      local there, made = must(db:get(types[i], 1)), db:get(types[i], 2)
      local word = string.format("%d %s %s %d", there.n, tostring(made ~= nil),
        tostring(db:by(types[i], "code", "b") ~= nil), #must(db:all_by(types[i], "n", 2)))
      db:close()
      return word
    end
    for i = 1, 3 do
      support.redis("DEL", "{" .. world.name .. "}:e:hot" .. i .. ":1") -- what the flush has left, which is announced
      faults.pause(50)
      assert.equal("1 false false 0", look(i))
      rows[i] = orms[i]:session()
      must(rows[i]:execute("UPDATE hot" .. i .. " SET n = 2"))
      must(rows[i]:execute("INSERT INTO hot" .. i .. " (id, n, code) VALUES (2, 2, 'b')"))
    end
    for i = 1, 3 do -- a list would show that a row is old
      faults.await("the end of row hot" .. i, function() return session_get(orms[i], types[i], 1).n == 2 end)
      faults.await("the end of hot" .. i, function() return look(i) == "2 true true 2" end)
    end
    for i = 1, 3 do rows[i]:close() end
  end)

  it("hold that there is nothing for a shorter time, also of a unique value", function()
    local Rare = regolith.entity("rare", { field.string "code" { unique = true }, ids = "application",
      cache = { process = true, redis = true, ttl_s = 600, absent_ttl_s = 1 } })
    local orm = open(Rare)
    local db = orm:session()
    local function find() return (db:get(Rare, 1) and 1 or 0) + (db:by(Rare, "code", "a") and 1 or 0) end
    assert.equal(0, find())
    must(db:execute "INSERT INTO rare (id, code) VALUES (1, 'a')")
    faults.await("the end of the absences", function() return find() == 2 end)
    db:close()
  end)

  it("are not kept from it by writes of the row's other fields, nor by those that are rolled back", function()
    local Busy = regolith.entity("busy", {
      field.uint32 "n", field.uint32 "hits", cache = { redis = true, ttl_s = 1 }, ids = "application",
    })
    local orm = world:open { Busy }
    local db = orm:session()
    for id = 1, 2 do db:new(Busy, { id = id, n = 1 }) end
    must(db:flush())
    for id = 1, 2 do session_get(orm, Busy, id) end
    must(db:execute "UPDATE busy SET n = 2")
    local function is_seen(id, commits)
      local own = orm:session()
      local e = must(own:get(Busy, id))
      local seen = e.n == 2
      e.hits = e.hits + 1
      own:transaction(function() return commits or nil, not commits and "rolled back" or nil end)
      own:close()
      return seen
    end
    for id = 1, 2 do faults.await("the end of row " .. id, function() return is_seen(id, id == 1) end) end
    db:close()
  end)

  it("keep rows, not the objects that were made of them", function()
    local Box = regolith.entity("box", { field.string "name", field.json "tags", cache = true, ids = "application" })
    local orm = open(Box)
    local db = orm:session()
    local box = db:new(Box, { id = 1, name = "a", tags = { "x" } })
    must(db:flush())
    for _ = 1, 3 do -- from MySQL, Redis, the process
      local e = session_get(orm, Box, 1)
      e.name = "changed"
      e.tags[1], e.tags[2] = "changed", "more"
    end
    box.tags[1] = "never flushed"
    local e = session_get(orm, Box, 1)
    assert.same({ "a", { "x" } }, { e.name, e.tags })
    db:close()
  end)

  it("are one for a table, whatever programs call the entity", function()
    local function define(name)
      return regolith.entity(name, { field.string "code" { unique = true }, field.uint32 "n", table = "goods",
        index = { n = { "n", cached = true } }, cache = { redis = true, all = true }, ids = "application" })
    end
    local Good, Ware = define "good", define "ware"
    local one, two = world:open { Good }, world:open({ Ware }, { schema = false })
    local db = one:session()
    local good = db:new(Good, { id = 1, code = "a", n = 1 })
    must(db:flush())
    for n = 2, 4 do
      assert.equal(n - 1, session_get(two, Ware, 1).n)
      assert.equal(1, #must(two:session():all_by(Ware, "n", n - 1)))
      good.n, good.code = n, "a" .. n
      must(db:flush())
      assert.equal(n, session_get(two, Ware, 1).n)
      assert.equal(0, #must(two:session():all_by(Ware, "n", n - 1)))
      assert.equal(1, two:session():by(Ware, "code", "a" .. n).id)
    end
    db:close()
  end)

  it("find by what the server holds equal, and lose what was renamed in any spelling", function()
    local Name = regolith.entity("name", {
      field.string "s" { length = 30, collation = "utf8mb4_general_ci", unique = true }, ids = "application",
      field.string "t" { length = 30, collation = "utf8mb4_unicode_ci" }, index = { t = { "t", cached = true } },
      cache = true,
    })
    local one, two = open(Name), open(Name, { schema = false })
    local db = one:session()
    local function found(orm, s)
      local own = orm:session()
      local e, list = own:by(Name, "s", s), must(own:all_by(Name, "t", s))
      own:close()
      return (e and e.id or 0) * 10 + #list
    end
    local OLD, NEW = { "Name", "NAME", "name ", "nämé" }, { "Straße", "STRASSE", "strasse" }
    for _, s in ipairs(OLD) do assert.equal(0, found(one, s) + found(two, s)) end
    local e = db:new(Name, { id = 1, s = "Name", t = "Name" })
    must(db:flush())
    for _, s in ipairs(OLD) do
      faults.await(s, function() return found(one, s) == 11 and found(two, s) == 11 end)
    end
    e.s, e.t = "Other", "Straße"
    must(db:flush())
    for _, s in ipairs(OLD) do
      faults.await(s, function() return found(one, s) == 0 and found(two, s) == 0 end)
    end
    for _, s in ipairs(NEW) do assert.equal(1, found(one, s)) end
    faults.await("the news of the row", function() return found(two, "öTHER") == 10 end)
    db:close()
  end)

  it("take ids and values in every form that is the same number", function()
    local Item = regolith.entity("item", { field.uint32 "u" { unique = true },
      field.decimal "d" { precision = 10, scale = 2 }, index = { d = { "d", cached = true } },
      cache = { redis = true }, ids = "application" })
    local orm = world:open { Item }
    local db = orm:session()
    db:new(Item, { id = 7, u = 5, d = "1.50" })
    for _, u in ipairs { 5, "5", 5LL } do assert.is_nil((db:by(Item, "u", u))) end
    must(db:flush())
    for _, u in ipairs { 5, "5", 5LL, 5ULL } do assert.equal(7, orm:session():by(Item, "u", u).id) end
    for _, d in ipairs { "1.50", "1.5", 1.5, "01.500" } do
      assert.equal(1, #must(orm:session():all_by(Item, "d", d)))
    end
    for _, id in ipairs { 7, "7", 7LL } do assert.equal(5, orm:session():get(Item, id).u) end
    db:close()
  end)
end)
