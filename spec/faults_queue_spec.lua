-- SPDX-License-Identifier: MIT
-- The queue under fire: consumers killed at every step, rivals, damaged entries, a full stream, dead
-- letters and what becomes of the caches. Nothing is lost and nothing is done twice.

local bit = require "bit"
local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local field = regolith.field
local Line, Counter = shared.Line, shared.Counter

--- Kill points of a consumer, in the order of its work; what one that died after its COMMIT has left is
--- settled by the next one.
local STEPS = {
  { 1, "fetched" }, { 2, "begun" }, { 3, "statement" }, { 4, "singly" }, { 5, "applied" }, { 6, "letters" },
  { 7, "advanced" }, { 8, "committed" }, { 11, "settling" }, { 9, "told" }, { 10, "trimmed" },
}

describe("a consumer", function()
  local world, orm, db
  local model, next_id, ops, duplicates

  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  before_each(function()
    orm = world:open { Line, Counter }
    db = orm:session()
    model, next_id, ops, duplicates = {}, 1, 0, 0
  end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    must(admin:execute "DELETE FROM line")
    must(admin:execute "DELETE FROM counter")
    must(orm:invalidate(Line))
    must(orm:invalidate(Counter))
    admin:close()
    world:shut(orm)
  end)

  local function env(kill_point)
    return { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name, REGOLITH_KILL_POINT = kill_point or "" }
  end

  --- Queues an insert, an update and a deletion or so, and writes down what comes of them.
  local function queue_some(n)
    for _ = 1, n do
      local made = must(db:new(Line, { id = next_id, n = 1 }))
      must(db:flush_async())
      ops, model[next_id] = ops + 1, { e = made, n = 1, version = 1 }
      local before = model[next_id - 3]
      if before then
        before.e.n, before.n, before.version = next_id, next_id, before.version + 1
        must(db:flush_async())
        ops = ops + 1
      end
      if next_id % 7 == 0 and model[next_id - 5] then
        db:delete(model[next_id - 5].e)
        must(db:flush_async())
        ops, model[next_id - 5] = ops + 1, nil
      end
      if next_id % 10 == 0 then -- never can be: somebody else's row has the tag
        local tag = "taken" .. next_id
        must(db:execute("INSERT INTO counter (id, tag) VALUES (?, ?)", 900000 + next_id, tag))
        db:new(Counter, { tag = tag })
        must(db:flush_async())
        ops, duplicates = ops + 1, duplicates + 1
      end
      next_id = next_id + 1
    end
  end

  local function check(applied_before)
    local rows = {}
    for _, row in ipairs(must(orm:session():query "SELECT id, n, version FROM line")) do rows[row.id] = row end
    local reader = orm:session()
    for id = 1, next_id - 1 do
      local wanted, row, cached = model[id], rows[id], reader:get(Line, id)
      if wanted then
        assert.same({ id = id, n = wanted.n, version = wanted.version }, row)
        assert.same({ wanted.n, wanted.version }, { cached.n, cached.version })
      else
        assert.is_nil(row)
        assert.is_nil(cached)
      end
    end
    reader:close()
    local letters = must(orm:dead_letters("default", 1000))
    local dead = duplicates
    assert.equal(dead, #letters)
    for _, letter in ipairs(letters) do assert.equal(1062, letter.errno) end
    local status = must(orm:queues())[1]
    assert.same({ ops - dead, 0 }, { status.applied - applied_before, status.length })
  end

  it("may be killed at every step", function()
    local applied_before, killed = must(orm:queues())[1].applied, {}
    for round = 1, 3 do
      for _, step in ipairs(STEPS) do
        local number, name = step[1], step[2]
        local count = name == "settling" and 1 or round
        queue_some(12)
        local consumer = faults.spawn("consumer", env(number .. ":" .. count), round == 1 and 4 or 256)
        faults.await("the consumer's end or that of its work", function()
          return not consumer:running() or must(orm:queues())[1].length == 0
        end)
        if not consumer:running() then killed[name] = (killed[name] or 0) + 1 end
        consumer:kill()
      end
    end
    for _, step in ipairs(STEPS) do
      assert.is_number(killed[step[2]], "no consumer died when it had " .. step[2])
    end
    support.drain(orm)
    check(applied_before)
  end)

  it("may be killed at any moment, with rivals at work", function()
    local applied_before = must(orm:queues())[1].applied
    local consumers = {}
    for i = 1, 12 do
      for k = 1, 2 do
        if not consumers[k] then consumers[k] = faults.spawn("consumer", env(), 1 + i * k) end
      end
      queue_some(25)
      local k = i % 2 + 1
      if i > 1 then consumers[k]:await "consuming" end
      faults.pause(i % 5)
      consumers[k]:kill()
      consumers[k] = nil
    end
    queue_some(10)
    local rest = faults.spawn("consumer", env())
    must(orm:drained(20000))
    rest:kill()
    for _, consumer in pairs(consumers) do consumer:kill() end
    support.drain(orm)
    check(applied_before)
  end)

  it("survives its connections being cut", function()
    local applied_before = must(orm:queues())[1].applied
    local redis = faults.redis()
    local consumer = must(orm:consumer { max_backoff_ms = 10 })
    for i = 1, 10 do
      queue_some(10)
      if i % 2 == 0 then redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") end
      if i % 3 == 0 then faults.kill_connections(world) end
      faults.await("a step", function() return consumer:step(0) end)
    end
    consumer:close()
    redis:close()
    support.drain(orm)
    check(applied_before)
  end)
end)

describe("the stream", function()
  local world, orm, db, redis, stream
  local Note = regolith.entity("note", {
    field.string "name" { required = true, unique = true, length = 50 },
    field.uint32 "n" { index = true, cached = true },
    cache = { process = true, redis = true },
  })

  setup(function()
    world = support.world()
    orm = world:open { Note }
    redis = faults.redis()
    stream = must(orm:queues())[1].stream
  end)
  teardown(function()
    redis:close()
    world:close()
  end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    must(world.sql:connection(function(conn) return conn:execute("DELETE FROM `" .. world.name .. "`.note") end))
    must(orm:invalidate(Note))
  end)

  it("may hold anything: the consumer goes on behind it", function()
    for i = 1, 3 do db:new(Note, { name = "sound " .. i, n = i }) end
    must(db:flush_async())
    local payload = redis:call("XRANGE", stream, "-", "+")[1][2][2]
    assert.is_string(payload)
    support.drain(orm)
    must(db:execute "DELETE FROM note")
    math.randomseed(11)
    local put = 0
    local function add(bytes)
      must(redis:call("XADD", stream, "*", "d", bytes))
      put = put + 1
    end
    for at = 1, #payload do
      local turned = string.char(bit.bxor(payload:byte(at), bit.lshift(1, at % 8)))
      add(payload:sub(1, at - 1) .. turned .. payload:sub(at + 1))
      add(payload:sub(1, at - 1))
    end
    for _ = 1, 100 do
      local bytes = {}
      for i = 1, math.random(0, 60) do bytes[i] = string.char(math.random(0, 255)) end
      add(payload:sub(1, math.random(0, 12)) .. table.concat(bytes))
    end
    local last = must(db:new(Note, { name = "last" }))
    must(db:flush_async())
    local settled = support.drain(orm)
    assert.is_true(settled >= put)
    assert.equal(0, redis:call("XLEN", stream))
    assert.equal("last", must(db:query("SELECT name FROM note WHERE id = ?", last.id))[1].name)
    local status = must(orm:queues())[1]
    assert.is_true(status.dead > put / 2)
    for _, letter in ipairs(must(orm:dead_letters("default", 1000))) do
      assert.is_string(letter.error)
      must(orm:dead_letter(letter.number))
    end
    must(orm:retry "all") -- what cannot be read cannot be retried either, and harms nobody
    assert.equal(0, must(orm:drop "all"))
  end)

  it("is full at its bound, and the flush says so and stays as it was", function()
    local small = must(regolith.open(world:config({ Note }, { queue_max_len = 5 })))
    local session = small:session()
    for i = 1, 5 do
      session:new(Note, { name = "n" .. i })
      must(session:flush_async())
    end
    local e = session:new(Note, { name = "n6" })
    for _ = 1, 2 do
      local ok, err = session:flush_async()
      assert.is_nil(ok)
      assert.equal("BACKPRESSURE", err.code)
      assert.is_true(err.retriable)
      assert.is_true(session:is_new(e))
      assert.equal(5, redis:call("XLEN", stream))
      assert.is_nil((orm:session():by(Note, "name", "n6")))
    end
    assert.is_true(small:counter "regolith_backpressure_total" >= 2)
    assert.equal(5, support.drain(orm))
    must(session:flush_async())
    assert.equal(1, support.drain(orm))
    assert.equal(6, session:search(Note, "1 = 1"):count())
    session:close()
    small:close()
  end)

  it("that is full is waited for when that is wanted", function()
    local patient = must(regolith.open(world:config({ Note }, { queue_max_len = 1, backpressure_wait_ms = 20000 })))
    local hasty = must(regolith.open(world:config({ Note }, { queue_max_len = 1, backpressure_wait_ms = 50 })))
    local a, b = patient:session(), hasty:session()
    a:new(Note, { name = "first" })
    must(a:flush_async())
    b:new(Note, { name = "hasty" })
    local started = faults.now()
    assert.equal("BACKPRESSURE", select(2, b:flush_async()).code)
    assert.is_true(faults.now() - started >= 0.049) -- deadlines are whole milliseconds
    local consumer = faults.spawn("notes", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name })
    a:new(Note, { name = "second" })
    must(a:flush_async())
    must(a:new(Note, { name = "third" }))
    must(a:flush_async())
    must(patient:drained(10000))
    consumer:kill()
    assert.equal(3, a:search(Note, "1 = 1"):count())
    for _, session in ipairs { a, b } do session:close() end
    patient:close()
    hasty:close()
  end)

  it("that was lost does not swallow what is queued afterwards", function()
    for round = 1, 3 do
      db:new(Note, { name = "before " .. round })
      must(db:flush_async())
      assert.equal(1, support.drain(orm))
      redis:call "FLUSHALL"
      if round > 1 then -- a clock that was set back
        redis:call("XADD", stream, "1-1", "d", "x")
        redis:call("XTRIM", stream, "MAXLEN", 0)
      end
      local late = must(db:new(Note, { name = "after " .. round }))
      must(db:flush_async())
      support.drain(orm)
      assert.equal(late.name, must(db:query("SELECT name FROM note WHERE id = ?", late.id))[1].name)
    end
  end)

  it("holds up a flush of the same rows until it is applied, or says PENDING", function()
    local hasty = orm:session()
    local e = must(db:new(Note, { name = "a", n = 1 }))
    local function refused()
      hasty._timeout_ms = 500 -- it is hasty only where it waits in vain
      local ok, err = hasty:flush()
      hasty._timeout_ms = nil
      assert.is_nil(ok)
      assert.same({ "PENDING", true }, { err.code, err.retriable })
    end
    must(db:flush_async()) -- an INSERT is queued
    local same = must(hasty:get(Note, e.id))
    same.n = 3
    refused()
    assert.equal(3, same.n)
    support.drain(orm)
    must(hasty:flush())
    db:clear()
    e = must(db:get(Note, e.id))
    e.name = "b"
    must(db:flush_async()) -- an UPDATE is: its old name is free when it is applied
    must(hasty:new(Note, { name = "a" }))
    refused()
    support.drain(orm)
    must(hasty:flush())
    db:delete(e)
    must(db:flush_async()) -- a DELETE is
    same.n = 4
    refused()
    hasty:discard()
    must(hasty:new(Note, { name = "b" }))
    refused()
    support.drain(orm)
    must(hasty:flush())
    assert.equal(2, hasty:search(Note, "1 = 1"):count())
    hasty:close()
  end)

  -- ---- dead letters ----

  --- A row that is taken, and a queued one that wants the same name.
  local function duplicate()
    must(db:execute "INSERT INTO note (id, name, n) VALUES (900001, 'taken', 5)")
    must(orm:invalidate(Note))
    local twin = must(db:new(Note, { name = "taken", n = 7 }))
    must(db:flush_async())
    support.as_redis_answers(orm, function() -- as queued
      assert.equal(twin.id, orm:session():by(Note, "name", "taken").id)
    end)
    assert.equal(1, support.drain(orm))
    return twin
  end

  it("turns what is refused into a letter, and the caches back to what is true", function()
    local twin = duplicate()
    local other = orm:session()
    assert.is_nil((other:get(Note, twin.id)))
    assert.equal(900001, other:by(Note, "name", "taken").id)
    assert.same({}, (other:all_by(Note, "n", 7)))
    assert.equal(900001, other:all_by(Note, "n", 5)[1].id)
    local letters = must(orm:dead_letters())
    assert.equal(1, #letters)
    local letter = must(orm:dead_letter(letters[1].number))
    assert.same({ "note", twin.id, "insert", 1062, "23000", "dead", "taken", "7" }, { letter.entity, letter.entity_id,
      letter.operation, letter.errno, letter.sqlstate, letter.state, letter.values.name, letter.values.n })
    assert.equal(1, must(orm:queues())[1].dead)
    other:close()
  end)

  it("applies a letter again when its cause is gone, and the caches show it", function()
    local twin = duplicate()
    local number = must(orm:dead_letters())[1].number
    orm:session():by(Note, "name", "taken") -- cached: the other one
    orm:session():all_by(Note, "n", 7) -- cached: nobody
    assert.equal(1, must(orm:retry(number))) -- still there
    assert.is_true(must(orm:dead_letter(number)).tries > 0)
    must(db:execute "DELETE FROM note WHERE id = 900001")
    must(orm:invalidate(Note, { 900001 }))
    assert.equal(0, must(orm:retry(number)))
    local other = orm:session()
    assert.equal(7, other:get(Note, twin.id).n)
    assert.equal(twin.id, other:by(Note, "name", "taken").id)
    assert.equal(twin.id, other:all_by(Note, "n", 7)[1].id)
    assert.equal("INVALID", select(2, orm:retry(number)).code)
    other:close()
  end)

  it("keeps later operations of the row behind its letter, in order", function()
    must(db:execute "INSERT INTO note (id, name, n) VALUES (900001, 'taken', 5)")
    local twin = must(db:new(Note, { name = "taken", n = 7 }))
    must(db:flush_async())
    twin.n = 8
    must(db:flush_async())
    twin.n = 9
    must(db:flush_async())
    support.drain(orm, { max_batch = 1 })
    local letters = must(orm:dead_letters())
    assert.same({ "dead", "parked", "parked" }, { letters[1].state, letters[2].state, letters[3].state })
    local _, err = orm:retry(letters[2].number)
    assert.equal("CONFLICT", err.code)
    must(db:execute "DELETE FROM note WHERE id = 900001")
    must(orm:invalidate(Note))
    assert.equal(0, must(orm:retry "all"))
    assert.equal(9, orm:session():get(Note, twin.id).n)
    assert.equal(9, db:query("SELECT n FROM note WHERE id = ?", twin.id)[1].n)
  end)

  it("gives letters up, and the row is free again", function()
    local twin = duplicate()
    assert.equal(0, must(orm:drop(must(orm:dead_letters())[1].number)))
    assert.is_nil((orm:session():get(Note, twin.id)))
    assert.equal(900001, orm:session():by(Note, "name", "taken").id)
    local again = must(db:new(Note, { id = twin.id, name = "free", n = 1 }))
    must(db:flush_async())
    support.drain(orm)
    assert.equal("free", orm:session():get(Note, again.id).name)
    assert.same({}, must(orm:dead_letters()))
    assert.equal("INVALID", select(2, orm:drop(123456)).code)
  end)
end)
