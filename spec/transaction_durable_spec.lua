-- SPDX-License-Identifier: MIT
-- Durable callbacks of transactions: written with them, run when they have committed, and only then.

local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must

local Note = regolith.entity("note", {
  field.string "title" { length = 80 },
  cache = { process = true, redis = true },
})

describe("a durable callback", function()
  local world, orm, db, worker, ran

  setup(function()
    world = support.world()
    orm = world:open({ Note }, { callbacks = {
      told = function(payload) ran[#ran + 1] = payload.n end,
    } })
    worker = orm:callback_worker()
  end)
  teardown(function()
    worker:close()
    world:close()
  end)
  before_each(function()
    db, ran = orm:session(), {}
  end)
  after_each(function() db:close() end)

  local function work()
    repeat until must(worker:step()) == 0
    return table.concat(ran, " ")
  end

  it("runs after the commit of its transaction, and not after a rollback", function()
    must(db:transaction(function(tx)
      must(db:new(Note, { title = "a" }))
      assert.is_number(must(tx:commit("told", { n = 1 }, { key = "k" })))
      assert.equal("", work())
      pcall(db.transaction, db, { propagation = "NESTED" }, function(inner)
        must(inner:commit("told", { n = 2 }, { key = "k" }))
        error "no"
      end)
      db:transaction(function(joined) must(joined:commit("told", { n = 3 }, { key = "k" })) end)
      return true
    end))
    assert.equal("1 3", work())
    pcall(db.transaction, db, function()
      must(db:commit("told", { n = 4 }))
      error "no"
    end)
    assert.equal("1 3", work())
  end)

  it("is no raw SQL to the caches", function()
    local note = must(db:new(Note, { title = "cached" }))
    must(db:flush())
    local other = orm:session()
    must(other:get(Note, note.id))
    other:close()
    db:clear()
    must(db:transaction(function(tx)
      must(tx:commit("told", { n = 6 }))
      local counts = support.count(orm, function() must(db:get(Note, note.id)) end)
      assert.equal(0, counts.mysql)
      must(db:execute "UPDATE note SET title = 'raw'")
      db:clear()
      counts = support.count(orm, function() assert.equal("raw", must(db:get(Note, note.id)).title) end)
      assert.equal(1, counts.mysql)
      return true
    end))
    assert.equal("6", work())
    must(orm:invalidate(Note))
  end)

  it("outside a transaction is durable at once; an unknown name raises where it is written", function()
    must(db:commit("told", { n = 5 }))
    assert.equal("5", work())
    local text = "^.*transaction_durable_spec.lua:%d+: there is no callback 'tolled'"
    assert.matches(text, select(2, pcall(function() db:commit("tolled", {}) end)))
    db:transaction(function(tx)
      assert.matches(text, select(2, pcall(function() tx:commit("tolled", {}) end)))
      assert.matches(text, select(2, pcall(function() db:commit("tolled", {}) end)))
    end)
  end)
end)
