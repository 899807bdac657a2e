-- SPDX-License-Identifier: MIT
-- Redis cannot be reached: reads go past it after a bounded time, writes follow their policy, and nobody
-- reads what was replaced meanwhile.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local function shelf(outage)
  return regolith.entity("shelf", {
    field.string "name" { unique = true }, field.uint32 "n", field.uint32 "place" { index = true, cached = true },
    cache = { process = true, redis = true, ttl_s = 600, outage = outage },
  })
end

describe("a Redis that one process cannot reach", function()
  local world, link
  local function socket() return must(os.getenv "REGOLITH_REDIS_SOCKET") end
  local function cut() os.remove(link) end
  local function mend() support.link(socket(), link) end

  setup(function()
    world = support.world()
    link = os.tmpname()
    cut()
  end)
  teardown(function()
    cut()
    world:close()
  end)

  --- An orm that has never reached Redis, and one that always did. What was agreed on before is forgotten:
  --- no other program is there.
  local function two(outage)
    local Shelf = shelf(outage)
    support.redis("DEL", "{" .. world.name .. "}:out")
    local near = world:open { Shelf }
    local far = world:open({ Shelf }, { redis = "redis+unix://" .. link, lazy = true, schema = false })
    return Shelf, near, far
  end

  local function shut(near, far)
    must(near:session():execute "DELETE FROM shelf")
    must(near:invalidate "shelf")
    world:shut(near)
    world:shut(far)
  end

  it("refuses its writes when the policy is strict", function()
    local Shelf, near, far = two "strict"
    local db = near:session()
    local a = db:new(Shelf, { name = "a", n = 1 })
    must(db:flush())
    local there = far:session()
    local mine = must(there:get(Shelf, a.id))
    assert.equal(1, mine.n)
    mine.n = 2
    local ok, err = there:flush()
    assert.is_nil(ok)
    assert.equal("UNAVAILABLE", err.code)
    assert.matches("cannot be told, so that nothing is written", err.message)
    assert.equal(1, db:query("SELECT n FROM shelf WHERE id = ?", a.id)[1].n)
    there:discard()
    shut(near, far)
  end)

  it("writes on condition by the same policies", function()
    for _, policy in ipairs { "strict", "available" } do
      local Shelf, near, far = two(policy)
      local db, there = near:session(), far:session()
      local a, b = db:new(Shelf, { name = "a", n = 1 }), db:new(Shelf, { name = "b", n = 1 })
      must(db:flush())
      local mine, other = must(there:get(Shelf, a.id)), must(there:get(Shelf, b.id))
      local answer, err = there:update(mine, { n = 2 }, { cas = { n = 1 } })
      local answers = must(there:update_all {
        { other, { n = 2 }, cas = { n = 5 } }, { other, { n = 3 }, cas = { n = 1 } },
      })
      if policy == "strict" then
        assert.equal("UNAVAILABLE", err.code)
        assert.same({ "conflict", "failed" }, { answers[1].outcome, answers[2].outcome })
      else
        assert.is_true(answer.applied)
        assert.same({ "conflict", "applied" }, { answers[1].outcome, answers[2].outcome })
        assert.equal(2, near:session():get(Shelf, a.id).n)
        assert.equal(3, near:session():get(Shelf, b.id).n)
      end
      there:close()
      shut(near, far)
    end
  end)

  it("is used by nobody under two policies", function()
    local Shelf, near, far = two "available"
    local Strict = shelf "strict"
    local db = near:session()
    local a = must(db:new(Shelf, { name = "a", n = 1 }))
    must(db:flush())
    must(near:session():get(Shelf, a.id))
    local other = world:open({ Strict }, { lazy = true, schema = false })
    local there = other:session()
    local mine = must(there:get(Strict, a.id)) -- past Redis, and what it holds
    for i = 2, 4 do
      a.n = i
      must(db:flush())
      assert.equal(i, there:reload(mine).n)
      assert.equal(i, must(other:session():get(Strict, a.id)).n)
    end
    mine.n = 9
    local ok, err = there:flush()
    assert.is_nil(ok)
    assert.matches("have outage = 'available' for table shelf; all have to be given the same", err.message)
    assert.equal(4, must(near:session():get(Shelf, a.id)).n)
    there:discard()
    there:close()
    world:shut(other)
    shut(near, far)
  end)

  it("has its writes seen at once by a process that never noticed", function()
    local Shelf, near, far = two "available"
    local db = near:session()
    local a = db:new(Shelf, { name = "a", n = 1, place = 1 })
    local b = db:new(Shelf, { name = "b", n = 1, place = 1 })
    must(db:flush())
    local function warm(name)
      faults.await("answers from the process cache", function()
        local counts = support.count(near, function()
          near:session():get(Shelf, a.id)
          near:session():get(Shelf, b.id)
        end)
        return counts.redis + counts.mysql == 0
      end)
      local reader = near:session()
      assert.equal(#name == 1 and 2 or 1, #must(reader:all_by(Shelf, "place", 1)))
      assert.equal(a.id, must(reader:by(Shelf, "name", name)).id)
    end
    for round = 2, 3 do
      warm "a"
      local there = far:session()
      local mine, other = must(there:get(Shelf, a.id)), must(there:get(Shelf, b.id))
      mine.n, mine.place, mine.name = round, round, "a" .. round
      must(there:flush())
      local reader = near:session()
      assert.equal(round, reader:get(Shelf, a.id).n)
      assert.equal(1, #must(reader:all_by(Shelf, "place", 1)))
      assert.equal(1, #must(reader:all_by(Shelf, "place", round)))
      assert.equal(a.id, must(reader:by(Shelf, "name", "a" .. round)).id)
      other.n = round
      must(there:flush())
      assert.equal(round, near:session():get(Shelf, b.id).n)
      -- reads of the near one heal, as it reaches Redis
      warm("a" .. round)
      assert.equal(round, near:session():get(Shelf, a.id).n)
      local row = must(db:query "SELECT open, number FROM _regolith_outage")[1]
      assert.equal(0, row.open)
      assert.is_true(row.number >= round - 1)
      assert.equal(0, must(db:query "SELECT COUNT(*) AS n FROM _regolith_inval")[1].n)
      mine.name, mine.place = "a", 1
      must(there:flush())
      faults.await("healing", function()
        near:session():get(Shelf, a.id)
        return must(db:query "SELECT open FROM _regolith_outage")[1].open == 0
      end)
    end
    mend()
    local there = far:session()
    faults.await("Redis to be used again", function()
      local mine = must(there:get(Shelf, a.id))
      mine.n = mine.n + 1
      must(there:flush())
      return must(db:query "SELECT open FROM _regolith_outage")[1].open == 0 and there
    end)
    assert.equal(there:get(Shelf, a.id).n, near:session():get(Shelf, a.id).n)
    cut()
    shut(near, far)
  end)

  it("voids queued writes that a write went past", function()
    local Shelf, near, far = two "available"
    local db = near:session()
    local a = db:new(Shelf, { name = "a", n = 1, place = 1 })
    must(db:flush())
    a.n = 5
    must(db:flush_async())
    assert.equal(5, near:session():get(Shelf, a.id).n)
    local there = far:session()
    local mine = must(there:get(Shelf, a.id))
    mine.place = 9
    must(there:flush())
    faults.await("healing", function()
      local now = near:session():get(Shelf, a.id)
      return now.place == 9
    end)
    -- what is queued shows when it is applied, on top of what was committed past it
    support.drain(near)
    local now = near:session():get(Shelf, a.id)
    assert.same({ 5, 9 }, { now.n, now.place })
    shut(near, far)
  end)
end)

describe("a Redis of its own", function()
  local servers, orm, Shelf

  setup(function()
    servers = faults.servers "hang"
    Shelf = shelf "strict"
    orm = servers:open { Shelf }
  end)
  teardown(function() servers:remove() end)

  it("hangs, and is read past after a bounded time, then at once, until it answers", function()
    local db = orm:session()
    local a = db:new(Shelf, { name = "a", n = 1 })
    must(db:flush())
    servers:stop "redis"
    local began = faults.now()
    assert.equal(1, must(orm:session():get(Shelf, a.id)).n)
    local first = faults.now() - began
    assert.is_true(first < 5, "the first read took " .. first)
    local waits = 0
    for _ = 1, 20 do
      began = faults.now()
      assert.equal(1, must(orm:session():get(Shelf, a.id)).n)
      if faults.now() - began > 0.2 then waits = waits + 1 end
    end
    assert.is_true(waits <= 6, waits .. " of 20 reads waited")
    a.n = 2
    began = faults.now()
    local ok, err = db:flush()
    assert.is_nil(ok)
    assert.is_true(err.code == "UNAVAILABLE" or err.code == "TIMEOUT", err.code)
    assert.is_true(faults.now() - began < 8)
    servers:continue "redis"
    faults.await("Redis to be used again", function()
      return support.count(orm, function() orm:session():get(Shelf, a.id) end).mysql == 0
    end)
    must(db:flush())
    assert.equal(2, orm:session():get(Shelf, a.id).n)
    db:close()
  end)

  it("comes back with older data, of which nothing counts", function()
    local db = orm:session()
    local a = db:new(Shelf, { name = "old", n = 1, place = 1 })
    local b = db:new(Shelf, { name = "queued", n = 1, place = 1 })
    must(db:flush())
    must(orm:session():by(Shelf, "name", "old"))
    assert.equal(2, #must(orm:session():all_by(Shelf, "place", 1)))
    b.n = 2
    must(db:flush_async())
    assert.equal(2, orm:session():get(Shelf, b.id).n)
    local redis = faults.redis(servers.redis_socket)
    redis:call("CONFIG", "SET", "appendonly", "no") -- what follows is lost
    redis:close()
    support.drain(orm)
    a.n, a.name, a.place = 5, "new", 2
    b.n = 6
    must(db:flush())
    servers:kill "redis"
    servers:start()
    redis = faults.redis(servers.redis_socket)
    assert.equal("V", redis:call("GET", "{rg}:e:shelf:" .. a.id):sub(1, 1))
    assert.equal("P", redis:call("GET", "{rg}:e:shelf:" .. b.id):sub(1, 1))
    redis:close()
    local reader = orm:session()
    assert.equal(5, reader:get(Shelf, a.id).n)
    assert.equal(6, reader:get(Shelf, b.id).n)
    assert.is_nil(reader:by(Shelf, "name", "old"))
    assert.equal(a.id, reader:by(Shelf, "name", "new").id)
    assert.equal(1, #must(reader:all_by(Shelf, "place", 1)))
    -- a write of what came back as queued has nothing to wait for
    b.n = 7
    must(db:flush())
    support.drain(orm)
    assert.equal(7, orm:session():get(Shelf, b.id).n)
    reader:close()
    db:close()
  end)

  it("shows what was queued before it restarted", function()
    local db = orm:session()
    local a = db:new(Shelf, { name = "waits", n = 1 })
    must(db:flush())
    a.n = 2
    must(db:flush_async())
    servers:kill "redis"
    servers:start()
    assert.equal(2, orm:session():get(Shelf, a.id).n)
    a.n = 3
    must(db:flush_async())
    assert.equal(3, orm:session():get(Shelf, a.id).n)
    support.drain(orm)
    assert.equal(3, orm:session():query("SELECT n FROM shelf WHERE id = ?", a.id)[1].n)
    db:close()
  end)

  it("is made a replica under its clients: writes are refused until it is a primary again", function()
    local redis, db = faults.redis(servers.redis_socket), orm:session()
    local row = db:new(Shelf, { name = "demoted", n = 1 })
    must(db:flush())
    assert.equal(1, orm:session():get(Shelf, row.id).n)
    redis:call("REPLICAOF", "127.0.0.1", "1")
    row.n = 2
    local done, err = db:flush()
    assert.is_nil(done)
    assert.same({ "READ_ONLY", true }, { err.code, err.retriable })
    assert.equal(1, must(db:query("SELECT n FROM shelf WHERE id = ?", row.id))[1].n)
    assert.equal(1, orm:session():get(Shelf, row.id).n)
    redis:call("REPLICAOF", "NO", "ONE")
    redis:close()
    faults.await("the flush", function() return db:flush() end)
    assert.equal(2, orm:session():get(Shelf, row.id).n)
    db:close()
  end)

  it("is refused when it evicts marks", function()
    local redis = faults.redis(servers.redis_socket)
    redis:call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    local options = { mysql = servers:mysql_url(), redis = servers:redis_url(), entities = { Shelf } }
    local refused, err = regolith.open(options)
    assert.is_nil(refused)
    assert.equal("CONFIG", err.code)
    assert.matches("maxmemory%-policy allkeys%-lru evicts marks", err.message)
    redis:call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis:close()
  end)

  it("counts for nothing once MySQL is another server, which lacks what was committed last", function()
    local world, link = support.world(), os.tmpname()
    local function point_to(socket) support.link(socket, link) end
    local function url() return "mysql+unix://" .. link .. "?user=root&db=" .. world.name end
    local function administer(text)
      must(orm:session():connection(function(conn) return conn:execute(text) end))
    end
    administer("CREATE DATABASE " .. world.name)
    point_to(servers.mysql_socket)
    local options = { mysql = url(), redis = servers:redis_url(), prefix = world.name, entities = { Shelf } }
    local here = must(regolith.open(options))
    must(here:schema_apply())
    local db = here:session()
    local a = db:new(Shelf, { name = "a", n = 7 })
    must(db:flush())
    assert.equal(7, here:session():get(Shelf, a.id).n)
    -- the other server has an older row
    local there = world:open { Shelf }
    must(there:session():execute("INSERT INTO shelf (id, name, n, place) VALUES (?, 'a', 6, 0)", a.id))
    point_to(must(os.getenv "REGOLITH_MYSQL_SOCKET"))
    administer("DROP DATABASE " .. world.name)
    here:close()
    here = must(regolith.open(options))
    db = here:session()
    assert.equal(7, db:get(Shelf, a.id).n) -- nobody was told
    db:get(Shelf, a.id + 1000)             -- the first load
    assert.equal(6, here:session():get(Shelf, a.id).n)
    db:close()
    here:close()
    os.remove(link)
    world:close()
  end)
end)
