-- SPDX-License-Identifier: MIT
-- Reads, case by case (21 to 30), and the schema (45).

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field, null = regolith.field, regolith.null

local function item(name, cache)
  return regolith.entity(name, {
    field.string "name" { required = true, unique = true },
    field.uint32 "shelf" { nullable = true, index = true, cached = true },
    field.string "side" { index = true },
    cache = cache,
  })
end

local Items = {
  none = item("item_none", false),
  process = item("item_process", { process = true, all = true }),
  redis = item("item_redis", { redis = true, all = true }),
  both = item("item_both", { process = true, redis = true, all = true }),
}
local Table = regolith.entity("table", { -- a word of SQL
  field.string "order" { required = true }, field.uint32 "select" { nullable = true },
  index = { by_order = { "order" }, by_select = { "select" } },
})

local function sql(orm, fn) return support.count(orm, fn).mysql end

local bypassed -- how many reads had gone past Redis when the test began

--- Without Redis' copy a row comes from MySQL until the news of its last change, which Redis sends, have
--- passed: then it is no longer asked for. Nor is what Redis was too late to keep, or to give, kept at once.
local function no_sql(orm, name, fn)
  local n = sql(orm, fn)
  if n == 0 then return end
  if name ~= "process" and support.bypasses(orm) == bypassed then return assert.equal(0, n) end
  assert.is_true(support.eventually(function() return sql(orm, fn) == 0 end))
end

describe("reads", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Items.none, Items.process, Items.redis, Items.both, Table }
    -- the process cache answers once it is known to hear of changes
    orm:session():get(Items.both, 1)
    assert.is_true(support.eventually(function() return orm:stats().coherent end))
  end)
  teardown(function() world:close() end)

  before_each(function()
    db = orm:session()
    bypassed = support.bypasses(orm)
  end)
  after_each(function()
    db:close()
    local admin = orm:session()
    for _, E in pairs(Items) do
      must(admin:execute("DELETE FROM `" .. E.name .. "`"))
      must(orm:invalidate(E))
    end
    must(admin:execute "DELETE FROM `table`")
    admin:close()
  end)

  local n = 0
  local function new(E, values)
    n = n + 1
    values = values or {}
    values.name = values.name or "item " .. n
    return must(db:new(E, values))
  end

  local function ids_of(list)
    local ids = {}
    for i, e in ipairs(list) do ids[i] = e.id end
    return ids
  end

  for _, name in ipairs { "process", "redis", "both" } do
    local E = Items[name]

    it("ask for a cached row once, and for an absent one once (21), caches: " .. name, function()
      local id = new(E).id
      must(db:flush())
      for _ = 1, 3 do
        no_sql(orm, name, function() assert.equal(id, orm:session():get(E, id).id) end)
      end
      assert.equal(1, sql(orm, function() assert.is_nil((orm:session():get(E, 987654321))) end))
      for _ = 1, 3 do
        no_sql(orm, name, function() assert.is_nil((orm:session():get(E, 987654321))) end)
      end
      no_sql(orm, name, function() assert.is_nil(orm:session():get_many(E, { 987654321, id })[1]) end)
    end)

    it("go back to MySQL when the caches are empty, and fill them (23), caches: " .. name, function()
      local id = new(E, { shelf = 3 }).id
      must(db:flush())
      for _, empty in ipairs {
        function() must(orm:invalidate(E)) end,
        function() support.redis "FLUSHALL" end,
        function() must(orm:invalidate(E, { id })) end,
      } do
        orm:session():get(E, id)
        empty()
        support.eventually(function() return orm:stats().coherent end)
        local function get() assert.equal(id, orm:session():get(E, id).id) end
        assert.equal(1, support.eventually(function()
          local count = sql(orm, get)
          return count > 0 and count
        end))
        assert.is_true(support.eventually(function() return sql(orm, get) == 0 end))
      end
    end)

    it("keep the lists of a cached index right (25), caches: " .. name, function()
      local function shelf(v)
        return ids_of((orm:session():all_by(E, "shelf", v)))
      end
      local function check(...)
        for i, wanted in ipairs { ... } do
          assert.is_true(sql(orm, function() assert.same(wanted, shelf(i)) end) <= 1)
          no_sql(orm, name, function() assert.same(wanted, shelf(i)) end)
        end
      end
      check({}, {})
      local a, b = new(E, { shelf = 1 }), new(E, { shelf = 1 })
      must(db:flush())
      check({ a.id, b.id }, {})
      a.shelf = 2
      must(db:flush())
      check({ b.id }, { a.id })
      must(db:update(b, { shelf = 2 }))
      check({}, { a.id, b.id })
      db:delete(a)
      must(db:flush())
      check({}, { b.id })
      b.name = "renamed " .. b.id
      must(db:flush())
      check({}, { b.id })
    end)

    it("keep the list of all (27), caches: " .. name, function()
      local wanted = {}
      local function all() assert.same(wanted, ids_of((orm:session():all(E)))) end
      assert.equal(1, sql(orm, all))
      no_sql(orm, name, all)
      local made = {}
      for i = 1, 10 do made[i] = new(E) end
      must(db:flush())
      db:delete(made[4])
      must(db:flush())
      for i, e in ipairs(made) do if i ~= 4 then wanted[#wanted + 1] = e.id end end
      all()
      no_sql(orm, name, all)
      local page, total = orm:session():all(E, { page = 3, size = 4 })
      assert.same({ wanted[9] }, ids_of(page))
      assert.equal(9, total)
    end)
  end

  it("ask each time when nothing is cached (21, 27)", function()
    local id = new(Items.none).id
    must(db:flush())
    for _ = 1, 2 do
      assert.equal(1, sql(orm, function() orm:session():get(Items.none, id) end))
      assert.equal(1, sql(orm, function() assert.same({ id }, ids_of((orm:session():all(Items.none)))) end))
      assert.equal(1, sql(orm, function() orm:session():get(Items.none, 987654321) end))
    end
    assert.equal(0, sql(orm, function() db:get(Items.none, id) end)) -- this session has it
  end)

  it("find NULL, page, and find nothing past the end (26)", function()
    local a, b, c = new(Items.both), new(Items.both), new(Items.both, { shelf = 0 })
    must(db:flush())
    assert.same({ a.id, b.id }, ids_of((orm:session():all_by(Items.both, "shelf", null))))
    assert.same({ c.id }, ids_of((orm:session():all_by(Items.both, "shelf", 0))))
    local list, total = orm:session():all_by(Items.both, "shelf", null, { page = 2, size = 1 })
    assert.same({ { b.id }, 2 }, { ids_of(list), total })
    list, total = orm:session():all_by(Items.both, "shelf", null, { page = 3, size = 1 })
    assert.same({ {}, 2 }, { list, total })
    local first, second = db:new(Table, { order = "x" }), db:new(Table, { order = "y" })
    must(db:flush())
    assert.same({ first.id, second.id }, ids_of((orm:session():all_by(Table, "by_select", null))))
    assert.same({ second.id }, ids_of((orm:session():all_by(Table, "by_order", "y"))))
  end)

  it("count what a search would find (29)", function()
    for i = 1, 5 do new(Items.none, { shelf = i }) end
    must(db:flush())
    local query = db:search(Items.none, "shelf > ? ORDER BY shelf DESC", 2)
    assert.same({ 3, 3 }, { #query:all(), query:count() })
    local list, total = query:page_with_count(1, 100)
    assert.same({ 3, 3 }, { #list, total })
    list, total = query:page_with_count(7, 2)
    assert.same({ {}, 3 }, { list, total })
    list, total = query:page_with_count(2, 2)
    assert.same({ 1, 3, 3 }, { #list, list[1].shelf, total })
    list, total = db:search(Items.none, "shelf > ?", 99):page_with_count(1, 10)
    assert.same({ {}, 0 }, { list, total })
  end)

  it("tell how many keys went (30)", function()
    local E = Items.redis
    new(E)
    new(E)
    must(db:flush())
    support.as_redis_answers(orm, function()
      must(orm:invalidate(E))
      orm:session():all(E)
      orm:session():search(E, "1 = 1"):all() -- fills nothing
      assert.equal(1, orm:invalidate(E)) -- the list
      local ids = ids_of((orm:session():all(E)))
      orm:session():get_many(E, ids)
      assert.equal(3, orm:invalidate(E))
      assert.equal(0, orm:invalidate(E))
    end)
  end)
end)

describe("case 45: the schema", function()
  local world
  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  it("has nothing left after it was applied, and lets tables of others alone", function()
    local admin = world.sql
    must(admin:connection(function(conn)
      must(conn:execute("CREATE TABLE `" .. world.name .. "`.foreign_one (id INT PRIMARY KEY, note TEXT)"))
      return conn:execute("INSERT INTO `" .. world.name .. "`.foreign_one VALUES (1, 'keep')")
    end))
    local orm = world:open { Items.both, Table }
    assert.same({}, must(orm:schema_diff()))
    assert.same({ applied = {}, skipped = {} }, must(orm:schema_apply { destructive = true }))
    assert.equal("keep", orm:session():query("SELECT note FROM foreign_one")[1].note)
    local fewer = world:open { Table } -- a table whose entity is gone is somebody else's
    assert.same({}, must(fewer:schema_diff()))
  end)
end)
