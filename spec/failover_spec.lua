-- SPDX-License-Identifier: MIT
-- What is acknowledged, how safely, and what becomes of it when a replica of Redis takes over without
-- the tail, or MySQL goes back to an older state.

local failover = require "support.failover"
local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Row = regolith.entity("frow", {
  field.uint32 "n", field.string "name" { length = 2000 }, ids = "application", cache = { redis = true },
})

describe("a replica of Redis", function()
  local world, pair, orm, db

  setup(function() world = support.world() end)
  teardown(function() world:close() end)
  before_each(function() pair = failover.pair() end)
  after_each(function()
    if db then db:close() end
    if orm then
      orm:session():execute "DELETE FROM frow"
      orm:session():execute "DELETE FROM _regolith_ledger"
      world:shut(orm)
    end
    orm, db = nil, nil
    pair:remove()
  end)

  local function open(more)
    local options = { redis = "redis+unix://" .. pair.path }
    for name, v in pairs(more or {}) do options[name] = v end
    orm = world:open({ Row }, options)
    db = orm:session()
  end

  local function queue(first, last)
    for id = first, last do
      db:new(Row, { id = id, n = 1 })
      must(db:flush_async())
    end
  end

  --- Steps until nothing comes any more, whatever fails meanwhile.
  local function consume(consumer, wanted)
    local n = 0
    faults.await(wanted .. " operations", function()
      n = n + (consumer:step(0.05) or 0)
      return n >= wanted
    end)
    return n
  end

  local function ids()
    local list = {}
    for i, row in ipairs(must(orm:session():query "SELECT id FROM frow ORDER BY id")) do list[i] = row.id end
    return list
  end

  local function range(...)
    local list, given = {}, { ... }
    for i = 1, #given, 2 do
      for id = given[i], given[i + 1] do list[#list + 1] = id end
    end
    return list
  end

  it("that takes over without the tail loses what it has not, and nothing of what comes", function()
    open()
    local consumer = must(orm:consumer())
    queue(1, 10)
    assert.equal(10, consume(consumer, 10))
    assert.equal(1, orm:session():get(Row, 1).n)
    pair:caught_up()
    pair:part()
    -- the first one's time is an hour ahead: what the second gives out looks applied
    local stream = string.format("{%s}:q:default", world.name)
    must(pair:call(1, "XSETID", stream, string.format("%.0f-0", (os.time() + 3600) * 1000)))
    queue(11, 20)
    local one = db:get(Row, 1)
    one.n = 2
    must(db:flush_async())
    assert.equal(11, consume(consumer, 11))
    queue(21, 25) -- acknowledged, and lost: of class fast
    assert.equal(2, orm:session():get(Row, 1).n)
    pair:fail_over()
    db:close()
    db = orm:session()
    faults.await("the second Redis", function() return orm:connect() end)
    assert.equal(2, orm:session():get(Row, 1).n) -- the replica's cache has 1
    queue(31, 40)
    assert.equal(10, consume(consumer, 10))
    assert.same(range(1, 20, 31, 40), ids())
    assert.equal(1, orm:counter "regolith_queue_skipped_total")
    queue(41, 45)
    local fresh = must(orm:consumer())
    assert.equal(5, consume(fresh, 5))
    assert.same(range(1, 20, 31, 45), ids())
    assert.same({}, must(orm:dead_letters()))
    assert.equal(0, must(orm:queues())[1].length)
    fresh:close()
    consumer:close()
  end)

  it("is waited for by class replica, which loses nothing", function()
    open { queues = { default = { durability = "replica", replica_ms = 5000 } } }
    queue(1, 10)
    pair:part()
    db:new(Row, { id = 11, n = 1 })
    must(db:flush_async { durability = "fast" })
    pair:fail_over()
    faults.await("the second Redis", function() return orm:connect() end)
    local consumer = must(orm:consumer())
    assert.equal(10, consume(consumer, 10))
    assert.same(range(1, 10), ids())
    consumer:close()
  end)

  it("that does not answer in time is told of, with the flush queued", function()
    open { queues = { default = { replica_ms = 50 } } }
    pair:part()
    db:new(Row, { id = 1, n = 1 })
    local ok, err = db:flush_async { durability = "replica" }
    assert.is_nil(ok)
    assert.same({ "DURABILITY", true, db:stream_id() }, { err.code, err.queued, err.stream_id })
    assert.is_string(err.stream_id)
    assert.same({ true, 0 }, { db:flush_async() }) -- nothing is left to be flushed
    assert.equal(1, support.drain(orm))
    assert.same({ 1 }, ids())
  end)

  it("is not asked by classes fsync and sync", function()
    open()
    db:new(Row, { id = 1, n = 1 })
    local ok, err = db:flush_async { durability = "fsync" }
    assert.is_nil(ok)
    assert.equal("CONFIG", err.code)
    assert.matches("appendfsync always", err.message)
    must(db:flush_async { durability = "sync" })
    assert.same({ 1 }, ids())
    assert.is_nil(db:stream_id())
    must(pair:call(1, "CONFIG", "SET", "appendonly", "yes"))
    must(pair:call(1, "CONFIG", "SET", "appendfsync", "always"))
    local other = world:open({ Row }, { redis = "redis+unix://" .. pair.path,
      queues = { default = { durability = "fsync" } } })
    local s = other:session()
    s:new(Row, { id = 2, n = 1 })
    must(s:flush_async())
    assert.is_string(s:stream_id())
    s:close()
    world:shut(other)
    assert.equal(1, support.drain(orm))
    assert.has_error(function() db:flush_async { durability = "fsink" } end)
  end)

  it("that knows WAITAOF is asked whether its disk has it", function()
    must(pair:call(1, "CONFIG", "SET", "appendonly", "yes")) -- appendfsync is everysec
    local file, listen_at = pair.folder .. "/disks", pair.folder .. "/newer.sock"
    faults.write_file(file, "1")
    local proxy = faults.spawn("proxy", {}, listen_at, pair.path, file, "redis")
    proxy:await "ready"
    open { redis = "redis+unix://" .. listen_at, queues = { default = { durability = "fsync", replica_ms = 5000 } } }
    queue(1, 3)
    faults.write_file(file, "0") -- the disk stands still
    db:new(Row, { id = 4, n = 1 })
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.same({ "DURABILITY", true }, { err.code, err.queued })
    assert.matches("no disk has it", err.message)
    must(db:flush_async { durability = "fast" })
    assert.equal(4, support.drain(orm))
    assert.same(range(1, 4), ids())
    db:close()
    orm:session():execute "DELETE FROM frow"
    orm:session():execute "DELETE FROM _regolith_ledger"
    world:shut(orm)
    orm, db = nil, nil
    proxy:kill()
  end)

  it("is refused when it may evict the queue, and its lack of a file told", function()
    local redis, told = "redis+unix://" .. pair.path, {}
    open { on_warning = function(text, warning) told[warning.fault] = text end }
    assert.matches("no append%-only file", told.persistence)
    assert.same({ "default", "persistence" }, { orm:queue_warnings()[1].queue, orm:queue_warnings()[1].fault })
    local strict = { default = { persistence = "refuse" } }
    local _, err = regolith.open(world:config({ Row }, { redis = redis, queues = strict }))
    assert.equal("CONFIG", err.code)
    local late = world:open({ Row }, { redis = redis, queues = strict, lazy = true })
    local s = late:session()
    s:new(Row, { id = 2, n = 1 })
    local ok
    ok, err = s:flush_async()
    assert.is_nil(ok)
    assert.equal("CONFIG", err.code)
    must(pair:call(1, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru"))
    _, err = regolith.open(world:config({ Row }, { redis = redis, queues = 1 }))
    assert.equal("CONFIG", err.code)
    assert.matches("allkeys%-lru", err.message)
    must(pair:call(1, "CONFIG", "SET", "maxmemory-policy", "noeviction"))
    s:close()
    world:shut(late)
  end)

  it("without memory is as good as full", function()
    open()
    queue(1, 1)
    must(pair:call(1, "CONFIG", "SET", "maxmemory", "1mb"))
    db:new(Row, { id = 2, n = 1 })
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.equal("BACKPRESSURE", err.code)
    must(pair:call(1, "CONFIG", "SET", "maxmemory", "0"))
    must(db:flush_async())
    assert.equal(2, support.drain(orm))
  end)
end)

describe("a MySQL that went back", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open({ Row }, { queues = 2 })
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  it("is told of when entries are gone that it has not seen, until that is accepted", function()
    for id = 1, 20 do
      db:new(Row, { id = id, n = 1 })
      must(db:flush_async())
    end
    assert.equal(20, support.drain(orm))
    must(db:execute "DELETE FROM frow WHERE id > 10")
    must(db:execute "UPDATE _regolith_ledger SET id_ms = id_ms - 60000 WHERE id_ms > 0")
    db:new(Row, { id = 21, n = 1 })
    must(db:flush_async())
    local consumer = must(orm:consumer { lease = false })
    local n, err = consumer:step(0)
    assert.is_nil(n)
    assert.equal("GAP", err.code)
    assert.matches("are gone from stream", err.message)
    assert.is_true(orm:counter "regolith_queue_gaps_total" >= 1)
    assert.equal(1, must(orm:accept_gap()))
    assert.equal(0, must(orm:accept_gap()))
    faults.await("the rest", function() return must(consumer:step(0.05)) == 1 end)
    consumer:close()
    assert.equal(11, orm:session():query("SELECT COUNT(*) AS n FROM frow")[1].n)
  end)
end)

describe("a queue's bounds", function()
  local world
  setup(function() world = support.world() end)
  teardown(function() world:close() end)

  local function with(queue, fn)
    local orm = world:open({ Row }, { queues = { default = queue } })
    local db = orm:session()
    fn(orm, db)
    support.drain(orm)
    must(db:execute "DELETE FROM frow")
    must(orm:invalidate(Row))
    db:close()
    world:shut(orm)
  end

  local id = 0
  local function add(db, size)
    id = id + 1
    db:new(Row, { id = id, n = 1, name = size and ("x"):rep(size) or "" })
    return db:flush_async()
  end

  it("are its length", function()
    with({ max_len = 3 }, function(orm, db)
      for _ = 1, 3 do must(add(db)) end
      local ok, err = add(db)
      assert.is_nil(ok)
      assert.equal("BACKPRESSURE", err.code)
      assert.equal(3, support.drain(orm))
      must(db:flush_async()) -- the session was as before
    end)
  end)

  it("are its age", function()
    with({ max_age_ms = 150 }, function(orm, db)
      must(add(db))
      local err
      faults.await("back-pressure", function()
        local ok
        ok, err = add(db)
        if ok then faults.pause(20) end
        return not ok
      end)
      assert.equal("BACKPRESSURE", err.code)
      assert.matches("oldest entry of queue default", err.message)
      support.drain(orm)
      faults.await("room", function() return (db:flush_async()) end)
    end)
  end)

  it("are its memory", function()
    with({ max_mb = 1 }, function(orm, db)
      local err
      for _ = 1, 5000 do
        local ok
        ok, err = add(db, 2000)
        if not ok then break end
      end
      assert.equal("BACKPRESSURE", err.code)
      assert.matches("bytes, over the bound", err.message)
      support.drain(orm)
      faults.await("room", function() return (db:flush_async()) end)
    end)
  end)

  it("make a flush wait, or go to MySQL at once", function()
    with({ max_len = 1, when_full = "sync" }, function(orm, db)
      must(add(db))
      must(add(db))
      assert.is_nil(db:stream_id())
      assert.equal(1, orm:session():query("SELECT COUNT(*) AS n FROM frow")[1].n)
      assert.equal(1, support.drain(orm))
      assert.equal(2, orm:session():query("SELECT COUNT(*) AS n FROM frow")[1].n)
    end)
    with({ max_len = 1, when_full = "wait", wait_ms = 20000 }, function(orm, db)
      must(add(db))
      local consumer = faults.spawn("drainer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name })
      must(add(db))
      must(orm:drained(20000))
      assert.equal(2, must(orm:session():search(Row, "n = 1"):drained(5000):count()))
      consumer:kill()
    end)
  end)

  it("do not keep who searches from waiting for what is queued", function()
    with({}, function(orm, db)
      must(add(db))
      local found, err = orm:session():search(Row, "n = 1"):drained(50):all()
      assert.is_nil(found)
      assert.equal("TIMEOUT", err.code)
      support.drain(orm)
      assert.equal(1, #must(orm:session():search(Row, "n = 1"):drained():all()))
    end)
  end)
end)
