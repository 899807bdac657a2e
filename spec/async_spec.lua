-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

--- Cached, and not cached.
local Category = regolith.entity("category", {
  field.string "name" { required = true, length = 100, unique = true },
  field.uint32 "n",
  field.ref "parent" { "category" },
  index = { by_parent = { "parent", cached = true } },
  cache = { process = true, redis = true, all = true },
})
local Event = regolith.entity("event", {
  field.string "name" { required = true, unique = true },
  field.string "secret" { sensitive = true, nullable = true },
})
local Row = regolith.entity("row", { field.uint32 "n" { unique = true } })

describe("flush_async", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Category, Event, Row }
  end)
  teardown(function() world:close() end)

  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    for _, entity in ipairs { Category, Event, Row } do
      must(admin:execute("DELETE FROM `" .. entity.name .. "`"))
      must(orm:invalidate(entity))
    end
    admin:close()
  end)

  it("queues, and a consumer applies", function()
    local cars = db:new(Category, { name = "cars" })
    local ok, changes = db:flush_async()
    assert.is_true(ok)
    assert.equal(1, changes)
    assert.matches("^%d+%-%d+$", db:stream_id())
    local other = orm:session()
    assert.equal(0, #other:query "SELECT id FROM category")
    assert.equal(1, support.drain(orm))
    assert.equal(cars.id, other:query("SELECT id FROM category")[1].id)
    assert.same({ true, 0 }, { db:flush() })
  end)

  it("shows a queued write to cached reads at once, without SQL", function()
    local cars = db:new(Category, { name = "cars" })
    local big = db:new(Category, { name = "big", parent = cars })
    must(db:flush_async())
    local other = orm:session()
    support.as_redis_answers(orm, function()
      other:clear()
      local counts = support.count(orm, function()
        assert.equal("cars", other:get(Category, cars.id).name)
        assert.equal("big", other:get_many(Category, { cars.id, big.id })[2].name)
        assert.equal(big, db:get(Category, big.id))
      end)
      assert.equal(0, counts.mysql)
      assert.equal(cars.id, other:by(Category, "name", "cars").id)
    end)
    assert.is_nil(other:search(Category, "name = ?", "cars"):one())
    support.drain(orm)
    assert.is_table(other:search(Category, "name = ?", "cars"):one())
  end)

  it("does not show an entity without caches by id, but by its unique index", function()
    local event = db:new(Event, { name = "tom" })
    must(db:flush_async())
    local other = orm:session()
    assert.is_nil((other:search(Event, "name = 'tom'"):one()))
    support.drain(orm)
    assert.equal(event.id, other:by(Event, "name", "tom").id)
  end)

  it("applies updates and deletes in order", function()
    local cars = db:new(Category, { name = "cars" })
    must(db:flush_async())
    cars.n = 1
    must(db:flush_async())
    cars.n = 2
    must(db:flush_async())
    local gone = db:new(Category, { name = "gone" })
    must(db:flush_async())
    db:delete(gone)
    must(db:flush_async())
    assert.equal(5, support.drain(orm))
    local rows = orm:session():query "SELECT name, n FROM category"
    assert.same({ { name = "cars", n = 2 } }, rows)
  end)

  it("queues on top of rows that were cached in an epoch that is over", function()
    local cars = db:new(Category, { name = "cars", n = 1 })
    must(db:flush())
    support.redis("DEL", "{" .. world.name .. "}:ep")
    cars.n = 2
    must(db:flush_async())
    support.as_redis_answers(orm, function() assert.equal(2, orm:session():get(Category, cars.id).n) end)
  end)

  it("queues nothing when nothing changed", function()
    must(db:new(Category, { name = "cars" }))
    must(db:flush_async())
    assert.same({ true, 0 }, { db:flush_async() })
    assert.equal(1, support.drain(orm))
  end)

  it("refuses a bad value before it is queued", function()
    db:new(Category, { name = "" })
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.same({ "INVALID", "name" }, { err.code, err.field })
    for _, way in ipairs { "flush", "flush_async" } do -- what assert raises is the error itself
      local _, raised = pcall(function() _G.assert(db[way](db)) end)
      assert.equal("INVALID", type(raised) == "table" and raised.code)
    end
    assert.equal(0, support.drain(orm))
  end)

  it("makes a dead letter of what MySQL refuses, and goes on", function()
    must(orm:session():execute("INSERT INTO event (id, name) VALUES (999001, 'taken')"))
    local bad = db:new(Event, { name = "taken", secret = "hush" })
    must(db:flush_async())
    local good = db:new(Event, { name = "free" })
    must(db:flush_async())
    local told = 0
    assert.equal(2, support.drain(orm, { on_dead = function(n) told = told + n end }))
    assert.equal(1, told)
    assert.is_table(orm:session():get(Event, good.id))
    local letters = must(orm:dead_letters())
    assert.equal(1, #letters)
    local found = letters[1]
    assert.same({ "event", bad.id, 1062 }, { found.entity, tonumber(found.entity_id), tonumber(found.errno) })
    local letter = must(orm:dead_letter(letters[1].number))
    assert.equal("taken", letter.values.name)
    assert.is_not.equal("hush", letter.values.secret)
    assert.equal(0, must(orm:queues())[1].length)
  end)

  it("applies a dead letter again once its cause is mended", function()
    local admin = orm:session()
    must(admin:execute("INSERT INTO event (id, name) VALUES (999002, 'taken')"))
    local bad = db:new(Event, { name = "taken" })
    must(db:flush_async())
    support.drain(orm)
    local number = must(orm:dead_letters())[1].number
    assert.equal(1, must(orm:retry(number)))
    must(admin:execute "DELETE FROM event WHERE id = 999002")
    assert.equal(0, must(orm:retry(number)))
    assert.same({}, must(orm:dead_letters()))
    assert.equal("taken", orm:session():get(Event, bad.id).name)
  end)

  it("drops dead letters", function()
    for i = 1, 3 do
      must(orm:session():execute("INSERT INTO event (id, name) VALUES (?, ?)", 999002 + i, "taken" .. i))
      db:new(Event, { name = "taken" .. i })
      must(db:flush_async())
    end
    support.drain(orm)
    local letters = must(orm:dead_letters())
    assert.equal(3, #letters)
    assert.equal(1, #must(orm:dead_letters("default", 1)))
    assert.equal(2, must(orm:drop(letters[1].number)))
    assert.equal(0, must(orm:drop "all"))
    assert.is_nil((orm:dead_letter(letters[2].number)))
  end)

  it("applies many in order, exactly once", function()
    for i = 1, 300 do
      db:new(Row, { n = i })
      if i % 3 == 0 then must(db:flush_async()) end
    end
    support.drain(orm, { max_batch = 64 })
    local rows = orm:session():query "SELECT COUNT(*) AS n, SUM(n) AS s FROM `row`"
    assert.equal(300, rows[1].n)
    assert.equal("45150", tostring(rows[1].s))
  end)

  it("tells the state of a queue, and when it is drained", function()
    db:new(Row, { n = 1 })
    must(db:flush_async())
    local queue = must(orm:queues())[1]
    assert.equal("default", queue.queue)
    assert.equal(1, queue.length)
    local ok, err = orm:drained(200)
    assert.is_nil(ok)
    assert.equal("TIMEOUT", err.code)
    support.drain(orm)
    assert.is_true(orm:drained(2000))
    assert.equal(0, must(orm:queues())[1].length)
  end)

  it("raises for wrong numbers of dead letters", function()
    assert.matches("number of a dead letter", select(2, pcall(orm.retry, orm, "x")))
    assert.matches("number of a dead letter", select(2, pcall(orm.dead_letter, orm, 0)))
  end)

  it("needs Redis", function()
    local own = world:open({ regolith.entity("row", { field.uint32 "n" { unique = true } }) }, { redis = false })
    local session = own:session()
    session:new(own._by_name.row, { n = 5 })
    local ok, err = session:flush_async()
    assert.is_nil(ok)
    assert.is_string(err.code)
    session:close()
    world:shut(own)
  end)
end)

describe("consumer", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Row }
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  it("runs until it is stopped", function()
    local consumer = must(orm:consumer { max_batch = 10 })
    for i = 1, 25 do
      db:new(Row, { n = i })
      must(db:flush_async())
    end
    local steps = 0
    assert.is_true(consumer:run {
      max_wait_s = 0.05,
      on_step = function(applied)
        steps = steps + 1
        assert.is_true(consumer:running())
        if applied == 0 then consumer:stop() end
      end,
    })
    assert.is_true(steps >= 4)
    assert.is_false(consumer:running())
    local stats = consumer:stats()
    assert.same({ 25, 0, 0 }, { stats.applied, stats.dead, stats.lag })
    consumer:close()
  end)

  it("returns 0 when there is nothing to do", function()
    local consumer = must(orm:consumer())
    assert.equal(0, must(consumer:step(0.01)))
    consumer:close()
  end)

  it("waits out a temporary error, and reports it", function()
    local own = world:open({ Row }, { timeout_ms = 1500, schema = false })
    db:new(Row, { n = 100 })
    must(db:flush_async())
    must(db:connection(function(conn)
      local reports = {}
      local consumer = must(own:consumer { max_backoff_ms = 50, on_error_report = function(err)
        reports[#reports + 1] = err
        must(conn:execute "ROLLBACK")
      end })
      must(conn:execute "START TRANSACTION")
      must(conn:query "SELECT * FROM _regolith_ledger FOR UPDATE")
      must(consumer:run { max_wait_s = 0.05, on_step = function(applied)
        if applied > 0 then consumer:stop() end
      end })
      assert.is_true(#reports >= 1)
      assert.is_true(reports[1].retriable)
      consumer:close()
      return true
    end))
    assert.equal(1, #orm:session():query "SELECT n FROM `row` WHERE n = 100")
    world:shut(own)
  end)

  it("ends at the first error when told to", function()
    local own = world:open({ Row }, { timeout_ms = 1500, schema = false })
    db:new(Row, { n = 101 })
    must(db:flush_async())
    must(db:connection(function(conn)
      local consumer = must(own:consumer { on_error = "stop" })
      must(conn:execute "START TRANSACTION")
      must(conn:query "SELECT * FROM _regolith_ledger FOR UPDATE")
      local ok, err = consumer:run { max_wait_s = 0.05 }
      assert.is_nil(ok)
      assert.is_true(err.retriable)
      consumer:close()
      return true
    end))
    world:shut(own)
    assert.equal(1, support.drain(orm))
  end)

  it("checks its options", function()
    assert.matches("unknown option 'quue'", select(2, pcall(orm.consumer, orm, { quue = "x" })))
    local consumer, err = orm:consumer { queue = "nowhere" }
    assert.is_nil(consumer)
    assert.is_string(err.message)
  end)
end)
