-- SPDX-License-Identifier: MIT
-- Pools that are as small as can be: whoever holds a connection does not wait for another one of the same pool
-- that nobody can give back.

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Item = regolith.entity("item", {
  field.string "name" { unique = true, length = 20 }, field.uint32 "shelf", field.uint32 "n",
  cache = true, events = { items = true }, queue = { by = "shelf" },
})

describe("a pool of few connections", function()
  local world

  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  local function open(mysql, redis, more)
    local options = {
      mysql = world.mysql_url(world.name, "&pool=" .. mysql), redis = world.redis_url("?pool=" .. redis),
      timeout_ms = 8000,
    }
    for name, v in pairs(more or {}) do options[name] = v end
    return world:open({ Item }, options)
  end

  it("is enough when it has one", function()
    local orm = open(1, 1)
    local db = orm:session()
    local e = db:new(Item, { name = "a", shelf = 1 })
    must(db:flush())
    e.n = 1
    must(db:flush_async())
    db:new(Item, { name = "b", shelf = 1 })
    must(db:flush_async { delay_ms = 1 })
    local consumer, applied = must(orm:consumer()), 0
    must(support.eventually(function()
      applied = applied + must(consumer:step(0.05))
      return applied == 2
    end))
    assert.equal(1, orm:session():get(Item, e.id).n)
    assert.is_table(orm:session():by(Item, "name", "b"))
    must(db:transaction(function()
      e.n = 2
      return true
    end))
    assert.equal(2, #must(orm:session():get_many(Item, { e.id, e.id })))
    assert.equal(2, #must(orm:session():all(Item)))
    must(orm:audit { all = true, older_than_ms = 1 })
    for _, pool in ipairs(must(orm:health())) do assert.same({ true, 0 }, { pool.ok, pool.busy }) end
    consumer:close()
    db:close()
    world:shut(orm)
  end)

  it("is enough for more consumers than it has", function()
    local orm = open(4, 2, { queues = 4, prefix = world.name .. "p" })
    local db = orm:session()
    for i = 1, 400 do
      db:new(Item, { name = "p" .. i, shelf = i % 16 })
      must(db:flush_async())
    end
    assert.equal(400, support.drain(orm, { parallel = 4, max_batch = 5 }))
    assert.equal(400, db:search(Item, "name LIKE 'p%'"):count())
    db:close()
    world:shut(orm)
  end)
end)
