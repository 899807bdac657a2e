-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local Line, Counter, Ping = shared.Line, shared.Counter, shared.Ping

describe("a flush that is delayed", function()
  local world, orm, db, redis

  setup(function()
    world = support.world()
    orm = world:open(shared.list())
    redis = faults.redis()
  end)
  teardown(function()
    redis:close()
    world:close()
  end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    redis:call("DEL", "{" .. world.name .. "}:lz:default", "{" .. world.name .. "}:lp:default")
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    for _, entity in ipairs { Line, Counter, Ping } do
      must(admin:execute("DELETE FROM `" .. entity.name .. "`"))
      must(orm:invalidate(entity))
    end
    admin:close()
  end)

  local function waiting() return redis:call("ZCARD", "{" .. world.name .. "}:lz:default") end

  --- Works until nothing is put aside and nothing is queued.
  local function work()
    local consumer = must(orm:consumer())
    faults.await("all that is due", function()
      must(consumer:step(0.05))
      return waiting() == 0 and must(orm:queues())[1].length == 0
    end)
    consumer:close()
  end

  it("is nowhere to be seen before its time, and queued and applied then", function()
    local e = must(db:new(Line, { id = 1, n = 5 }))
    local ok, n = db:flush_async { delay_ms = 2000 }
    assert.same({ true, 1 }, { ok, n })
    assert.matches("^%x+$", db:stream_id())
    assert.equal(1, waiting())
    assert.equal(0, support.drain(orm))
    assert.is_nil((orm:session():get(Line, e.id)))
    work()
    assert.equal(5, orm:session():get(Line, e.id).n)
    assert.equal(5, db:query("SELECT n FROM line")[1].n)
  end)

  it("may have a time, that of the past too", function()
    must(db:new(Line, { id = 1, n = 1 }))
    must(db:flush_async { at = os.time() + 3 }) -- in two to three seconds
    assert.equal(0, support.drain(orm))
    must(db:new(Line, { id = 2, n = 2 }))
    must(db:flush_async { at = 1000 })
    work()
    assert.equal(2, #db:query "SELECT id FROM line")
  end)

  it("is laid over what its rows are by then: of later writes, those of other fields stay", function()
    local e = must(db:new(Counter, { n = 1, tag = "a" }))
    must(db:flush())
    e.n = 10
    must(db:flush_async { delay_ms = 150 })
    local other = orm:session()
    local mine = other:get(Counter, e.id)
    assert.equal(1, mine.n)
    mine.tag, mine.n = "b", 3
    must(other:flush())
    work()
    local now = orm:session():get(Counter, e.id)
    assert.same({ 10, "b" }, { now.n, now.tag })
    assert.same({ n = 10, tag = "b" }, db:query("SELECT n, tag FROM counter")[1])
    assert.equal(e.id, orm:session():by(Counter, "tag", "b").id)
    other:close()
  end)

  it("keeps its order among those of the same time", function()
    local e = must(db:new(Ping, { id = 1, n = 0 }))
    must(db:flush())
    local at = os.time() + 1
    for n = 1, 5 do
      e.n = n
      must(db:flush_async { at = at })
    end
    work()
    assert.equal(5, db:query("SELECT n FROM ping")[1].n)
  end)

  it("is a dead letter when its rows are gone or changed by then; deletions of nothing are done", function()
    local versioned = must(db:new(Line, { id = 1, n = 1 }))
    local lost = must(db:new(Counter, { n = 1, tag = "x" }))
    local doomed = must(db:new(Counter, { n = 2, tag = "y" }))
    must(db:flush())
    versioned.n = 2
    must(db:flush_async { delay_ms = 100 })
    lost.n = 5
    must(db:flush_async { delay_ms = 100 })
    db:delete(doomed)
    must(db:flush_async { delay_ms = 100 })
    local other = orm:session()
    local mine = other:get(Line, 1)
    mine.n = 7
    other:delete(other:get(Counter, lost.id))
    other:delete(other:get(Counter, doomed.id))
    must(other:flush())
    work()
    local letters = must(orm:dead_letters())
    assert.equal(2, #letters)
    assert.same({ "line", "update", "counter", "update" }, { letters[1].entity, letters[1].operation,
      letters[2].entity, letters[2].operation })
    assert.matches("changed before the delayed update", letters[1].error)
    assert.matches("vanished before the delayed update", letters[2].error)
    must(orm:edit(letters[1].number, { force = true }))
    assert.equal(1, must(orm:retry "all"))
    assert.equal(2, orm:session():get(Line, 1).n)
    other:close()
  end)

  it("is queued once, whoever dies while queueing it", function()
    local e = must(db:new(Line, { id = 1, n = 0 }))
    must(db:flush())
    for n = 1, 2 do
      e.n = n
      must(db:flush_async { delay_ms = 1 })
      local one = faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name, REGOLITH_KILL_POINT = "33:1" })
      faults.await("its end", function() return not one:running() end)
      one:kill()
      assert.equal(1, waiting())
      work()
    end
    assert.same({}, must(orm:dead_letters()))
    assert.same({ 2, 3 }, { db:query("SELECT n FROM line")[1].n, db:query("SELECT version FROM line")[1].version })
  end)

  it("is listed with what it does and when, the next one first", function()
    local at = os.time() + 3600
    local e = must(db:new(Line, { id = 7, n = 1 }))
    must(db:flush_async { at = at + 1 })
    local second = db:stream_id()
    must(db:new(Counter, { n = 1, tag = "one" }))
    must(db:new(Counter, { n = 2, tag = "two" }))
    must(db:flush_async { at = at })
    local first = db:stream_id()
    local list = must(orm:delayed())
    assert.same({ first, second, at, at + 1 }, { list[1].id, list[2].id, list[1].due, list[2].due })
    assert.same({ { operation = "insert", entity = "line", entity_id = e.id } }, list[2].operations)
    assert.same({ 2, "counter" }, { #list[1].operations, list[1].operations[2].entity })
    assert.same({ first }, { must(orm:delayed("default", 1))[1].id })
    assert.equal(1, #must(orm:delayed("default", 1)))
    assert.equal(2, must(orm:cancel_delayed "all"))
    assert.same({}, must(orm:delayed()))
  end)

  it("that is cancelled is never applied, and leaves nothing behind", function()
    local kept = must(db:new(Counter, { n = 1, tag = "kept" }))
    must(db:flush())
    local e = must(db:new(Counter, { n = 2, tag = "free" }))
    must(db:flush_async { delay_ms = 1 })
    local id = db:stream_id()
    kept.n = 5
    must(db:flush_async { delay_ms = 2 })
    assert.equal(1, must(orm:cancel_delayed(id)))
    local _, err = orm:cancel_delayed(id)
    assert.same({ "INVALID", false }, { err.code, err.retriable })
    work()
    assert.is_nil((orm:session():get(Counter, e.id)))
    assert.is_nil((orm:session():by(Counter, "tag", "free")))
    assert.equal(5, orm:session():get(Counter, kept.id).n) -- the other one was due all the same
    assert.equal(1, #db:query "SELECT id FROM counter")
    local other = orm:session()
    other:new(Counter, { n = 3, tag = "free" })
    must(other:flush_async())
    work()
    assert.equal(3, orm:session():by(Counter, "tag", "free").n)
    assert.same({}, must(orm:dead_letters()))
    assert.equal(0, redis:call("HLEN", "{" .. world.name .. "}:lp:default"))
    other:close()
  end)

  it("cannot be cancelled once it is queued, or is a dead letter", function()
    must(db:new(Line, { id = 1, n = 1 }))
    must(db:flush_async { delay_ms = 1 })
    local id = db:stream_id()
    local one = faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name, REGOLITH_KILL_POINT = "33:1" })
    faults.await("its end", function() return not one:running() end)
    one:kill()
    assert.equal(1, #must(orm:delayed())) -- it is queued, and was still put aside when that one died
    assert.equal("INVALID", select(2, orm:cancel_delayed(id)).code)
    assert.equal(0, must(orm:cancel_delayed "all"))
    work()
    assert.equal(1, #db:query "SELECT id FROM line")
  end)

  it("is among the dead letters once, whoever dies while writing them", function()
    local lost = must(db:new(Counter, { n = 1, tag = "x" }))
    must(db:flush())
    lost.n = 5
    must(db:flush_async { delay_ms = 1 })
    local id = db:stream_id()
    must(db:execute("DELETE FROM counter"))
    must(orm:invalidate(Counter))
    local one = faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name, REGOLITH_KILL_POINT = "36:1" })
    faults.await("its end", function() return not one:running() end)
    one:kill()
    assert.same({}, must(orm:dead_letters()))
    assert.equal("INVALID", select(2, orm:cancel_delayed(id)).code)
    must(db:execute("INSERT INTO counter (id, n, tag) VALUES (?, 1, 'x')", lost.id)) -- by now it could be done
    must(orm:invalidate(Counter))
    work()
    assert.equal(1, #must(orm:dead_letters()))
    assert.equal(0, waiting())
    assert.equal(0, must(orm:retry "all"))
    assert.equal(5, db:query("SELECT n FROM counter")[1].n)
  end)

  it("refuses what names none", function()
    assert.has_error(function() orm:cancel_delayed(5) end)
    assert.has_error(function() orm:cancel_delayed "yesterday" end)
    assert.has_error(function() orm:delayed("default", 0) end)
    assert.equal("INVALID", select(2, orm:cancel_delayed "abc").code)
    assert.equal("INVALID", select(2, orm:delayed "no such queue").code)
  end)

  it("checks what it is given", function()
    local function refused(pattern, opts)
      local ok, fault = pcall(db.flush_async, db, opts)
      assert.is_false(ok)
      assert.matches(pattern, fault)
    end
    refused("option 'delay_ms'", { delay_ms = 0 })
    refused("option 'at'", { at = "tomorrow" })
    refused("either", { at = 5, delay_ms = 5 })
    refused("cannot be delayed", { delay_ms = 5, durability = "sync" })
    refused("did you mean 'delay_ms'", { delay_m = 5 })
  end)
end)
