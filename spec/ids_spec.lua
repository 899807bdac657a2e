-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function define(name, ids)
  return regolith.entity(name, { field.string "name", field.ref "other" { name }, ids = ids, id_column = "number" })
end

local Block, Snow = define("block"), define("snow", "snowflake")
local Own, Auto = define("own", "application"), define("auto", "database")
local Versioned = regolith.entity("versioned", {
  field.string "name", field.uint32 "version" { version = true },
  field.datetime "made" { created = true }, field.datetime "changed" { updated = true },
})

describe("ids", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open({ Block, Snow, Own, Auto, Versioned }, { id_block = 10 })
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function() db:close() end)

  it("come from blocks, without a round trip each", function()
    must(db:new(Block, { name = "first" }))
    local counts = support.count(orm, function()
      for _ = 1, 9 do must(db:new(Block)) end
    end)
    assert.equal(0, counts.mysql)
    local seen, last = {}, 0
    for _ = 1, 25 do
      local id = must(db:new(Block)).id
      assert.is_nil(seen[id])
      assert.is_true(id > last)
      seen[id], last = true, id
    end
    assert.equal(35, select(2, db:flush()))
  end)

  it("of the database cannot be queued, and the error says of which row", function()
    local auto = db:new(Auto, { name = "x" })
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.same({ "INVALID", "auto", "id" }, { err.code, err.entity, err.field })
    assert.equal(auto, err.row)
  end)

  it("start after those of rows that are there already", function()
    local other = world:open({ define("old") })
    local Old = other._by_name.old
    local session = other:session()
    must(session:execute "INSERT INTO old (number, name) VALUES (5000, 'x')")
    assert.is_true(must(session:new(Old)).id > 5000)
    session:close()
    world:shut(other)
  end)

  it("are allotted by the flush where none could be had before", function()
    local late = regolith.entity("late", {
      field.string "name" { unique = true }, field.ref "other" { "late" }, id_column = "number",
    })
    local other = world:open({ late }, { schema = false })
    local session = other:session()
    local parent = session:new(late, { name = "parent" })
    local child = session:new(late, { name = "child" })
    assert.error_matches(function() child.other = parent end, "flush it first: late: .*late' doesn't exist")
    session:new(late, { name = "dropped" }) -- nobody holds it
    assert.is_nil(parent.id)
    for _ = 1, 2 do
      local ok, fault = session:flush()
      assert.is_nil(ok)
      assert.equal("SCHEMA", fault.code)
      assert.matches("late", fault.message)
    end
    must(session:flush_async() == nil)
    assert.is_nil((session:insert_all(late, { { name = "at once" } })))
    assert.is_nil((session:upsert(late, { name = "x" }, { by = "name" })))
    must(other:schema_apply())
    assert.equal(3, select(2, assert(session:flush())))
    assert.is_true(parent.id > 0 and child.id > 0)
    assert.equal(parent, session:get(late, parent.id))
    child.other = parent
    must(session:flush())
    session:clear()
    assert.equal(parent.id, session:get(late, child.id).other.id)
    session:close()
    world:shut(other)
  end)

  it("are unique between processes", function()
    local other = world:open({ Block }, { schema = false, id_block = 10 })
    local session, seen = other:session(), {}
    for _ = 1, 30 do
      for _, id in ipairs { must(db:new(Block)).id, must(session:new(Block)).id } do
        assert.is_nil(seen[id])
        seen[id] = true
      end
    end
    session:close()
    world:shut(other)
  end)

  it("may be snowflakes below 2^53", function()
    local a, b = must(db:new(Snow)), must(db:new(Snow))
    assert.is_true(b.id > a.id and b.id < 2 ^ 53)
    must(db:flush())
    db:clear()
    assert.equal(a.id, db:get(Snow, a.id).id)
  end)

  it("may be the application's", function()
    local e = db:new(Own, { id = 77, name = "own" })
    assert.equal(e, db:get(Own, 77))
    must(db:flush())
    assert.equal("own", orm:session():get(Own, 77).name)
    local without = db:new(Own, { name = "none" })
    local ok, err = db:flush()
    assert.is_nil(ok)
    assert.same({ "INVALID", "id" }, { err.code, err.field })
    without.id = 78
    must(db:flush())
    assert.equal(without, db:get(Own, 78))
  end)

  it("may be the database's, known after the flush", function()
    local a, b = db:new(Auto, { name = "a" }), db:new(Auto, { name = "b" })
    assert.is_nil(a.id)
    assert.matches("has no id before it is flushed", select(2, pcall(function() a.other = b end)))
    must(db:flush())
    assert.is_true(a.id > 0 and b.id > 0 and a.id ~= b.id)
    assert.equal(a, db:get(Auto, a.id))
    a.other = b
    must(db:flush())
    assert.equal("b", orm:session():get(Auto, a.id).other.name)
    db:new(Auto, { name = "c" })
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.is_string(err.code)
  end)

  it("do not change", function()
    local e = must(db:new(Block))
    must(db:flush())
    e.id = e.id + 1
    local ok, err = db:flush()
    assert.is_nil(ok)
    assert.same({ "INVALID", "id" }, { err.code, err.field })
    db:discard()
    assert.same({ true, 0 }, { db:flush() })
  end)
end)

describe("versions and stamps", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Versioned }
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  it("refuse a change of a row that has changed meanwhile", function()
    local e = db:new(Versioned, { name = "a" })
    must(db:flush())
    assert.equal(1, e.version)
    local other = orm:session()
    local same = other:get(Versioned, e.id)
    same.name = "b"
    must(other:flush())
    assert.equal(2, same.version)
    other:close()
    e.name = "c"
    local ok, err = db:flush()
    assert.is_nil(ok)
    assert.equal("CONFLICT", err.code)
    assert.equal(e, err.row)
    must(db:reload(e))
    assert.same({ "b", 2 }, { e.name, e.version })
    e.name = "c"
    must(db:flush())
    assert.equal(3, e.version)
  end)

  it("set times of creation and change", function()
    local e = db:new(Versioned, { name = "a" })
    must(db:flush())
    assert.matches("^%d%d%d%d%-%d%d%-%d%d ", e.made)
    assert.equal(e.made, e.changed)
    local made = e.made
    e.name = "b"
    must(db:flush())
    assert.equal(made, e.made)
    assert.is_true(e.changed > made)
    must(db:flush())
    local own = db:new(Versioned, { name = "x", made = "2001-02-03 04:05:06" })
    must(db:flush())
    assert.equal("2001-02-03 04:05:06", own.made)
  end)
end)
