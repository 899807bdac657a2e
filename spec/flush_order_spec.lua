-- SPDX-License-Identifier: MIT
-- The order of the rows of one flush: foreign keys within a type and in circles of types, unique values that move
-- on from row to row, ids that are taken again.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"
local field, must = regolith.field, support.must

local Node = regolith.entity("node", {
  field.string "name",
  field.ref "parent" { "node", nullable = true, foreign_key = true },
})
local Dept = regolith.entity("dept", {
  field.string "name" { unique = true },
  field.ref "boss" { "person", nullable = true, foreign_key = true },
})
local Person = regolith.entity("person", {
  field.string "name",
  field.ref "dept" { "dept", nullable = true, foreign_key = true },
})
local Item = regolith.entity("item", {
  field.uint32 "list", field.uint32 "place", unique = { place = { "list", "place" } },
})
local Coin = regolith.entity("coin", {
  field.string "name" { unique = true }, field.uint32 "year",
  ids = "application", cache = { process = true, redis = true },
})

describe("the rows of a flush", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Node, Dept, Person, Item, Coin }
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function() db:close() end)

  local function dead_letters()
    local rows = must(world.sql:query("SELECT COUNT(*) AS n FROM information_schema.tables WHERE table_schema = ? "
      .. "AND table_name = '_regolith_dead'", world.name))
    if rows[1].n == 0 then return 0 end
    return must(world.sql:query("SELECT COUNT(*) AS n FROM `" .. world.name .. "`.`_regolith_dead`"))[1].n
  end

  local ways = {
    ["written at once"] = function() must(db:flush()) end,
    ["queued and applied"] = function()
      must(db:flush_async())
      support.drain(orm)
      assert.equal(0, dead_letters())
    end,
  }
  for way, flush in pairs(ways) do
    describe(way, function()
      it("go parents first and are deleted children first, whatever their ids", function()
        local nodes = {}
        for i = 1, 20 do nodes[i] = db:new(Node, { name = "n" .. i }) end
        for i = 1, 19 do nodes[i].parent = nodes[i + 1] end
        flush()
        local found = must(orm:session():get_many(Node, { nodes[1].id, nodes[20].id }))
        assert.equal(nodes[2].id, found[1].parent_id)
        assert.is_nil(found[2].parent)
        for i = 20, 1, -1 do db:delete(nodes[i]) end
        flush()
        assert.equal(0, must(orm:session():search(Node, "1 = 1"):count()))
      end)

      it("are in order where types refer to each other", function()
        local boss = db:new(Person, { name = "boss" })
        local dept = db:new(Dept, { name = way, boss = boss })
        local clerk = db:new(Person, { name = "clerk", dept = dept })
        flush()
        assert.equal("boss", orm:session():get(Person, clerk.id).dept.boss.name)
        db:delete(boss)
        db:delete(dept)
        db:delete(clerk)
        flush()
        assert.equal(0, must(orm:session():search(Person, "1 = 1"):count()))
      end)

      for _, step in ipairs { 1, -1 } do
        it("pass on unique values, however many of them: by " .. step, function()
          local items = {}
          for i = 1, 40 do items[i] = db:new(Item, { list = 1, place = 100 + i }) end
          flush()
          for _, item in ipairs(items) do item.place = item.place + step end
          flush()
          local found = must(orm:session():search(Item, "list = 1 ORDER BY id"):all())
          for i, item in ipairs(found) do assert.equal(100 + i + step, item.place) end
          for _, item in ipairs(items) do db:delete(item) end
          flush()
        end)
      end
    end)
  end

  it("are one INSERT still, and as many DELETEs as there are generations", function()
    local child, other = db:new(Node, { name = "child" }), db:new(Node, { name = "other" })
    local parent = db:new(Node, { name = "parent" })
    child.parent, other.parent = parent, parent
    assert.equal("INSERT", support.statements(orm, function() must(db:flush()) end))
    db:delete(parent)
    db:delete(child)
    db:delete(other)
    assert.equal("BEGIN DELETE DELETE COMMIT", support.statements(orm, function() must(db:flush()) end))
  end)

  it("delete what refers to a row before that row makes way for another one", function()
    local dept = db:new(Dept, { name = "old" })
    local person = db:new(Person, { name = "of it", dept = dept })
    must(db:flush())
    db:delete(dept)
    db:delete(person)
    local new = db:new(Dept, { name = "old" })
    must(db:flush())
    assert.equal(new.id, orm:session():by(Dept, "name", "old").id)
  end)

  it("leave a row before it makes way for another one, for which others may be new", function()
    local old, other = db:new(Dept, { name = "leaving" }), db:new(Dept, { name = "other" })
    local one, two = db:new(Person, { name = "one", dept = old }), db:new(Person, { name = "two", dept = old })
    must(db:flush())
    local third = db:new(Dept, { name = "third" })
    one.dept, two.dept = other, third
    db:delete(old)
    local new = db:new(Dept, { name = "leaving" })
    local child = db:new(Person, { name = "child", dept = new })
    must(db:flush())
    local session = orm:session()
    assert.equal(new.id, session:by(Dept, "name", "leaving").id)
    assert.equal("other", session:get(Person, one.id).dept.name)
    assert.equal("third", session:get(Person, two.id).dept.name)
    assert.equal("leaving", session:get(Person, child.id).dept.name)
  end)

  it("cannot exchange unique values, or refer to each other in a circle, and say so before any SQL", function()
    local a, b = db:new(Item, { list = 2, place = 1 }), db:new(Item, { list = 2, place = 2 })
    must(db:flush())
    a.place, b.place = 2, 1
    for _, flush in ipairs { "flush", "flush_async" } do
      local err
      assert.equal("", support.statements(orm, function() err = select(2, db[flush](db)) end))
      assert.same({ "DUPLICATE_KEY", "place", "item" }, { err.code, err.index, err.entity })
      assert.is_true(err.row == a or err.row == b)
    end
    b.place = 3
    must(db:flush())

    local one, two = db:new(Node, { name = "one" }), db:new(Node, { name = "two" })
    one.parent, two.parent = two, one
    for _, flush in ipairs { "flush", "flush_async" } do
      local err
      assert.equal("", support.statements(orm, function() err = select(2, db[flush](db)) end))
      assert.same({ "FOREIGN_KEY", "node" }, { err.code, err.entity })
    end
    two.parent = nil
    must(db:flush())
    two.parent = one
    must(db:flush())
  end)

  it("may refer to themselves", function()
    local node = db:new(Node, { name = "self" })
    node.parent = node
    must(db:flush())
    assert.equal(node.id, orm:session():get(Node, node.id).parent_id)
  end)

  for _, flush in ipairs { "flush", "flush_async" } do
    it("do not take the id of one that goes, but after it: " .. flush, function()
      local id = flush == "flush" and 5 or 6
      local old = db:new(Coin, { id = id, name = "old" .. id })
      must(db:flush())
      db:delete(old)
      local new = db:new(Coin, { id = id, name = "new" .. id })
      assert.equal(new, db:get(Coin, id))
      local ok, err = db[flush](db)
      assert.is_nil(ok)
      assert.same({ "MISUSE", "coin", new }, { err.code, err.entity, err.row })
      assert.matches("flush the deletion first", err.message)

      db:discard(new)
      assert.is_nil(db:get(Coin, id))
      must(db[flush](db))
      support.drain(orm)
      new = db:new(Coin, { id = id, name = "new" .. id })
      must(db[flush](db))
      support.drain(orm)
      assert.equal(new, db:get(Coin, id))
      assert.equal("new" .. id, orm:session():get(Coin, id).name)
    end)
  end

  it("give an id back to who has it when its deletion is called off", function()
    local old = db:new(Coin, { id = 7, name = "seven" })
    must(db:flush())
    db:delete(old)
    local new = db:new(Coin, { id = 7, name = "also" })
    db:discard(old)
    assert.equal(old, db:get(Coin, 7))
    db:discard(new)
    assert.equal(old, db:get(Coin, 7))
    old.year = 1900
    assert.same({ true, 1 }, { db:flush() })
  end)

  it("are refused at enqueue when a cached row, or a queued one, has their id", function()
    for id, before in ipairs { "flush", "flush_async" } do
      db:new(Coin, { id = 10 + id, name = "first" .. id })
      must(db[before](db))
      faults.await("the row in Redis", function()
        return support.count(orm, function()
          assert.equal("first" .. id, orm:session():get(Coin, 10 + id).name)
        end).mysql == 0
      end)
      local other = orm:session()
      local second = other:new(Coin, { id = 10 + id, name = "second" .. id })
      local ok, err = other:flush_async()
      assert.is_nil(ok)
      assert.same({ "DUPLICATE_KEY", "PRIMARY", "coin", second }, { err.code, err.index, err.entity, err.row })
      assert.equal("first" .. id, orm:session():get(Coin, 10 + id).name)
      support.drain(orm)
      assert.equal(0, dead_letters())
    end
  end)
end)
