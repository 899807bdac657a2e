-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Item = regolith.entity("item", {
  field.string "name" { required = true, unique = true, length = 20 },
  field.uint32 "n",
  field.enum "state" { "new", "old" },
  field.int32 "shelf" { index = true, cached = true },
  cache = { process = true, redis = true },
})
local Tag = regolith.entity("tag", {
  field.string "name" { required = true, unique = true },
  field.uint32 "n",
  field.uint32 "version" { version = true },
  cache = { redis = true },
})

describe("dead letters that are edited", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Item, Tag }
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    for _, entity in ipairs { Item, Tag } do
      must(admin:execute("DELETE FROM `" .. entity.name .. "`"))
      must(orm:invalidate(entity))
    end
    admin:close()
  end)

  --- A queued insert of a name that is taken: its entity and the number of its letter.
  local function duplicate(n)
    must(db:execute "INSERT INTO item (id, name, n, state, shelf) VALUES (900001, 'taken', 5, 'old', 1)")
    must(orm:invalidate(Item))
    local twin = must(db:new(Item, { name = "taken", n = 7, shelf = 3 }))
    must(db:flush_async())
    if n then -- waits behind it
      twin.n = n
      must(db:flush_async())
    end
    support.drain(orm)
    return twin, must(orm:dead_letters())[1].number
  end

  it("are applied with their new values, and the caches show them", function()
    local twin, number = duplicate(8)
    assert.same({}, (orm:session():all_by(Item, "shelf", 4)))
    must(orm:edit(number, { values = { name = "free", shelf = 4, state = "old" } }))
    local letter = must(orm:dead_letter(number))
    assert.same({ "free", "4", "old", "7", "edited", "insert" }, { letter.values.name, letter.values.shelf,
      letter.values.state, letter.values.n, letter.state, letter.operation })
    assert.equal(0, must(orm:retry "all"))
    local other = orm:session()
    local item = other:by(Item, "name", "free")
    assert.same({ twin.id, 8, "old", 4 }, { item.id, item.n, item.state, item.shelf })
    assert.equal(twin.id, other:all_by(Item, "shelf", 4)[1].id)
    assert.equal("free", db:query("SELECT name FROM item WHERE id = ?", twin.id)[1].name)
    other:close()
  end)

  it("are checked by the entity's types", function()
    local _, number = duplicate()
    local function refused(field_name, values)
      local ok, err = orm:edit(number, { values = values })
      assert.is_nil(ok)
      assert.same({ "INVALID", field_name }, { err.code, err.field })
    end
    refused("name", { name = string.rep("x", 21) })
    refused("name", { name = "" })
    refused("name", { name = regolith.null })
    refused("n", { n = -1 })
    refused("state", { state = "oldish" })
    assert.matches("did you mean 'shelf'", select(2, pcall(orm.edit, orm, number, { values = { shef = 1 } })))
    assert.matches("unknown option", select(2, pcall(orm.edit, orm, number, { value = {} })))
    assert.matches("must be 'insert'", select(2, pcall(orm.edit, orm, number, { operation = "upsert" })))
    assert.equal("INVALID", select(2, orm:edit(123456, { operation = "delete" })).code)
    assert.same({ "taken", "dead" }, { must(orm:dead_letter(number)).values.name, must(orm:dead_letter(number)).state })
  end)

  it("may become another operation", function()
    local twin, number = duplicate()
    -- the row is there meanwhile: update it instead
    must(db:execute("INSERT INTO item (id, name, n, state, shelf) VALUES (?, 'mine', 1, 'new', 1)", twin.id))
    must(orm:invalidate(Item))
    assert.equal("mine", orm:session():get(Item, twin.id).name)
    assert.equal(1, #orm:session():all_by(Item, "shelf", 1) - 1)
    must(orm:edit(number, { operation = "update", values = { name = "mine too" } }))
    assert.equal("update", must(orm:dead_letter(number)).operation)
    assert.equal(0, must(orm:retry(number)))
    local item = orm:session():get(Item, twin.id)
    assert.same({ "mine too", 7, 3 }, { item.name, item.n, item.shelf })
    assert.equal(1, #orm:session():all_by(Item, "shelf", 1))
    assert.equal(twin.id, orm:session():all_by(Item, "shelf", 3)[1].id)
  end)

  it("that update a row which is gone may insert it, with what is required, or give in", function()
    local item = must(db:new(Item, { name = "a", n = 1, shelf = 1 }))
    must(db:flush())
    item.n = 2
    must(db:flush_async())
    must(orm:session():execute "DELETE FROM item")
    support.drain(orm)
    local number = must(orm:dead_letters())[1].number
    local ok, err = orm:edit(number, { operation = "insert" })
    assert.is_nil(ok)
    assert.same({ "INVALID", "name" }, { err.code, err.field })
    must(orm:edit(number, { operation = "insert", values = { name = "again" } }))
    assert.equal(0, must(orm:retry(number)))
    assert.same({ "again", 2 }, { orm:session():get(Item, item.id).name, orm:session():get(Item, item.id).n })
    -- a deletion needs no values
    local second = orm:session():get(Item, item.id)
    assert.is_table(second)
    local other = orm:session()
    local mine = other:get(Item, item.id)
    must(db:execute "INSERT INTO item (id, name, n, state, shelf) VALUES (900001, 'taken', 5, 'old', 1)")
    mine.name = "taken"
    must(other:flush_async())
    support.drain(orm)
    number = must(orm:dead_letters())[1].number
    must(orm:edit(number, { operation = "delete" }))
    assert.same({}, must(orm:dead_letter(number)).values)
    assert.equal(0, must(orm:retry(number)))
    assert.is_nil((orm:session():get(Item, item.id)))
    other:close()
  end)

  it("may be forced onto whatever version the row has", function()
    local tag = must(db:new(Tag, { name = "a", n = 1 }))
    must(db:flush())
    tag.n = 2
    must(db:flush_async())
    must(orm:session():execute("UPDATE tag SET version = 9, n = 5 WHERE id = ?", tag.id))
    support.drain(orm)
    local number = must(orm:dead_letters())[1].number
    assert.equal(1, must(orm:retry(number)))
    must(orm:edit(number, { force = true }))
    assert.equal(0, must(orm:retry(number)))
    local row = db:query("SELECT n, version FROM tag WHERE id = ?", tag.id)[1]
    assert.same({ 2, 10 }, { row.n, row.version })
    assert.equal(10, orm:session():get(Tag, tag.id).version)
  end)

  it("that cannot be read cannot be edited", function()
    local redis = require("support.faults").redis()
    must(redis:call("XADD", must(orm:queues())[1].stream, "*", "d", "garbage"))
    redis:close()
    support.drain(orm)
    local number = must(orm:dead_letters())[1].number
    local ok, err = orm:edit(number, { operation = "delete" })
    assert.is_nil(ok)
    assert.is_string(err.message)
  end)
end)
