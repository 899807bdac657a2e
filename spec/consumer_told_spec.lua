-- SPDX-License-Identifier: MIT
-- Functions of the application that are told of dead letters, dead events and dead callbacks, and raise: what has
-- happened stands, the others are told, and whoever called goes on.

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Item = regolith.entity("item", { field.string "name" { unique = true, length = 20 } })

describe("what is told of the dead, and raises,", function()
  local world, orm, db, reported

  setup(function()
    world = support.world()
    orm = world:open({ Item }, {
      on_error = function(fault) reported[#reported + 1] = fault end,
      callbacks = { moan = function() return nil, "never" end },
    })
    db = orm:session()
    must(db:execute "INSERT INTO item (id, name) VALUES (900001, 'a'), (900002, 'b'), (900003, 'c')")
  end)
  before_each(function() reported = {} end)
  teardown(function()
    db:close()
    world:close()
  end)

  local function queue(name)
    db:new(Item, { name = name })
    must(db:flush_async())
  end

  --- What was reported: hooks and what they raised.
  local function reports()
    local list = {}
    for i, fault in ipairs(reported) do
      assert.equal("HOOK", fault.code)
      list[i] = fault.hook .. ": " .. tostring(fault.cause):match "[^ ]+$"
    end
    table.sort(list)
    return list
  end

  it("does not end a consumer, whose other letters are told", function()
    local told = {}
    local consumer = must(orm:consumer {
      on_dead = function() error "count" end,
      on_dead_letter = function(letter)
        told[#told + 1] = letter.entity_id
        error "letter"
      end,
    })
    queue "a"
    queue "b"
    assert.equal(2, must(consumer:step(5)))
    assert.equal(2, #told)
    assert.same({ "on_dead: count", "on_dead_letter: letter", "on_dead_letter: letter" }, reports())
    assert.equal(0, must(consumer:step(0)))
    assert.equal(3, #reported)
    queue "c"
    queue "free"
    local applied = 0
    must(consumer:run { max_wait_s = 1, on_step = function(n)
      applied = applied + n
      if applied == 2 then consumer:stop() end
    end })
    assert.equal(3, #told)
    assert.is_table(db:by(Item, "name", "free"))
    assert.equal(3, #must(orm:dead_letters()))
    consumer:close()
    must(orm:drop "all")
  end)

  it("does not end a subscriber", function()
    local subscriber = orm:subscriber("news", {
      group = "g", handler = function(event) if event.body == 1 then return nil, "no" end end, max_tries = 1,
      on_dead = function() error "event" end,
    })
    must(orm:publish("news", 1))
    must(orm:publish("news", 2))
    local total = 0
    support.eventually(function()
      total = total + must(subscriber:step(0.1))
      return total >= 2
    end, 30)
    assert.same({ "on_dead: event" }, reports())
    assert.equal(1, subscriber:stats().dead)
  end)

  it("does not end a worker of callbacks", function()
    must(db:transaction(function(tx)
      tx:commit("moan", { 1 })
      return true
    end))
    local worker = must(orm:callback_worker { max_tries = 1, on_dead = function() error "callback" end })
    support.eventually(function()
      must(worker:step())
      return #reported > 0
    end, 30)
    assert.same({ "on_dead: callback" }, reports())
  end)
end)
