-- SPDX-License-Identifier: MIT
-- A flush that fails leaves the session as it was before, what its hooks have changed included: they are asked
-- again by the next one.

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Note = regolith.entity("note", { field.string "text" })
local Order = regolith.entity("order", { field.uint32 "total", field.json "log" { nullable = true } })
local behave = {}
local Line = regolith.entity("line", {
  field.string "code" { length = 10, required = true, unique = true },
  field.ref "order" { Order }, field.uint32 "price",
  hooks = {
    before_insert = function(line, session)
      line.code = line.code .. "+"
      if line.order then
        line.order.total = line.order.total + line.price
        line.order.log = line.order.log or {}
        table.insert(line.order.log, line.code)
      end
      session:new(Note, { text = line.code })
      if behave.insert then behave.insert(line, session) end
    end,
    before_update = function(line) line.price = line.price + 1 end,
    validate = function(line) if line.price == 13 then return false, "unlucky" end end,
  },
})

describe("hooks of a flush that fails", function()
  local world, orm, db, order

  setup(function()
    world = support.world()
    orm = world:open { Note, Order, Line }
  end)
  teardown(function() world:close() end)

  before_each(function()
    behave.insert = nil
    db = orm:session()
    for _, name in ipairs { "note", "order", "line" } do must(db:execute("DELETE FROM `" .. name .. "`")) end
    order = db:new(Order, { total = 0 })
    must(db:flush())
  end)
  after_each(function() db:close() end)

  local function notes()
    return must(orm:session():query "SELECT COUNT(*) AS n FROM note")[1].n
  end

  --- Flushes, which fails with that code, mends it and flushes again.
  local function fail_and_mend(line, code, mend)
    local _, err = db:flush()
    assert.equal(code, err.code)
    assert.equal(line, err.row)
    mend()
    return must(db:flush())
  end

  it("are asked again about entities as they were: refused by a hook", function()
    local line = db:new(Line, { code = "a", order = order, price = 13 })
    fail_and_mend(line, "HOOK", function()
      assert.same({ "a", 0 }, { line.code, order.total })
      assert.is_nil(order.log)
      assert.is_nil((db:dirty(order)))
      line.price = 4
    end)
    assert.same({ "a+", 4, 1 }, { line.code, order.total, notes() })
    assert.same({ "a+" }, orm:session():get(Order, order.id).log)
  end)

  it("are asked again about entities as they were: refused by the server", function()
    local first = db:new(Line, { code = "a", order = order, price = 4 })
    must(db:flush())
    local line = db:new(Line, { code = "a", order = order, price = 5 })
    fail_and_mend(line, "DUPLICATE_KEY", function()
      assert.same({ "a", 4 }, { line.code, order.total })
      line.code = "b"
    end)
    assert.same({ "b+", 9, 2 }, { line.code, order.total, notes() })
    assert.same({ "a+", 4 }, { first.code, first.price })
  end)

  it("are asked again about entities as they were: not valid", function()
    local line = db:new(Line, { code = "a", order = order, price = 4 })
    must(db:flush())
    line.price, line.code = 20, ("x"):rep(11)
    fail_and_mend(line, "INVALID", function()
      assert.equal(20, line.price)
      line.code = "b"
    end)
    assert.equal(21, orm:session():get(Line, line.id).price)
  end)

  it("are asked again about entities as they were: not queued", function()
    local line = db:new(Line, { code = "a", price = -1 })
    local _, err = db:flush_async()
    assert.same({ "INVALID", "price" }, { err.code, err.field })
    assert.equal("a", line.code)
    line.price = 1
    must(db:flush_async())
    support.drain(orm)
    assert.same({ "a+", 1 }, { orm:session():get(Line, line.id).code, notes() })
  end)

  it("have deleted nothing, nor loaded what they changed", function()
    local reader = orm:session()
    local other = reader:new(Order, { total = 7 })
    must(reader:flush())
    behave.insert = function(_, session)
      session:delete(order)
      session:get(Order, other.id).total = 8
    end
    local line = db:new(Line, { code = "a", price = 13 })
    local _, err = db:flush()
    assert.equal("HOOK", err.code)
    behave.insert = nil
    assert.equal(order, db:get(Order, order.id))
    assert.equal(7, db:get(Order, other.id).total)
    line.price = 1
    local _, n = must(db:flush())
    assert.equal(2, n) -- the line and its note
    assert.is_table(orm:session():get(Order, order.id))
  end)

  it("that empty the session have it empty", function()
    behave.insert = function(_, session)
      session:clear()
      error "stop"
    end
    db:new(Line, { code = "a", price = 1 })
    local _, err = db:flush()
    assert.equal("HOOK", err.code)
    behave.insert = nil
    assert.same({ true, 0 }, { db:flush() })
    assert.equal(0, must(db:get(Order, order.id)).total)
  end)

  it("are asked again in a transaction, too", function()
    must(db:transaction(function()
      order.total = 100
      must(db:flush())
      local line = db:new(Line, { code = "a", order = order, price = 13 })
      fail_and_mend(line, "HOOK", function()
        assert.same({ "a", 100 }, { line.code, order.total })
        line.price = 4
      end)
      return true
    end))
    assert.same({ 104, 1 }, { orm:session():get(Order, order.id).total, notes() })
    assert.is_false((pcall(db.transaction, db, function()
      local line = db:new(Line, { code = "b", order = order, price = 13 })
      assert.is_nil((db:flush()))
      line.price = 5
      must(db:flush())
      error "back"
    end)))
    assert.same({ 104, 1 }, { order.total, notes() })
  end)
end)
