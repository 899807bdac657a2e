-- SPDX-License-Identifier: MIT
-- Partitions of a queue: which operation goes where, what is one unit and what cannot be, consumers that
-- share them and die, and changing how many there are. Nothing is lost and nothing is done twice.

local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local field = regolith.field
local Club, Member = shared.Club, shared.Member
local LONG = os.getenv "REGOLITH_LONG" ~= nil
local PARTITIONS = 4

local function lengths(orm)
  local list = {}
  for i, queue in ipairs(must(orm:queues())) do list[i] = queue.length end
  return list
end

local function total(list)
  local sum = 0
  for _, n in ipairs(list) do sum = sum + n end
  return sum
end

describe("a queue in partitions", function()
  local world, orm, db
  local Loose = regolith.entity("loose", { field.uint32 "n" })
  local Other = regolith.entity("other", { field.uint32 "n" })
  local Pair = regolith.entity("pair", { field.uint32 "n", queue = { group = "loose" } })

  setup(function()
    world = support.world()
    orm = world:open({ Club, Member, Loose, Other, Pair }, { queues = PARTITIONS })
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    for _, name in ipairs { "club", "member", "loose", "other", "pair" } do
      must(admin:execute("DELETE FROM " .. name))
    end
    for _, entity in ipairs { Club, Member } do must(orm:invalidate(entity)) end
    admin:close()
  end)

  it("keeps what belongs to one aggregate in one of them, in order", function()
    for id = 1, 40 do
      local club = db:new(Club, { id = id, name = "c" .. id })
      db:new(Member, { id = id, club = club, n = 1 })
      must(db:flush_async())
    end
    local before = lengths(orm)
    assert.equal(PARTITIONS, #before)
    assert.equal(40, total(before))
    for _, n in ipairs(before) do assert.is_true(n > 0) end
    local one = db:get(Member, 1)
    one.n = 2
    must(db:flush_async())
    assert.equal(80 + 1, support.drain(orm))
    assert.same({}, must(orm:dead_letters()))
    assert.equal(2, orm:session():query("SELECT n FROM member WHERE id = 1")[1].n)
  end)

  it("goes by the entity where nothing else is said, and by its group", function()
    for _ = 1, 3 do
      db:new(Loose, { n = 1 })
      db:new(Pair, { n = 1 }) -- of the same group: one unit
      must(db:flush_async())
    end
    local counts = lengths(orm)
    table.sort(counts)
    assert.same({ 0, 0, 0, 3 }, counts)
  end)

  it("refuses a flush that is of several, and leaves the session as it was", function()
    for id = 1, 20 do db:new(Club, { id = id, name = "c" }) end
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.equal("SPLIT", err.code)
    assert.matches("partitions of queue default", err.message)
    assert.equal(0, total(lengths(orm)))
    assert.same({ true, 20 }, { must(db:flush()) })
  end)

  it("writes such a flush at once when told so, after what is queued there", function()
    local clubs = {}
    for id = 1, 20 do
      clubs[id] = must(db:new(Club, { id = id, name = "queued" }))
      must(db:flush_async())
    end
    for _, club in ipairs(clubs) do club.name = "sync" end
    local consumer = faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name })
    must(db:flush_async { on_split = "sync" })
    assert.equal(20, orm:session():query("SELECT COUNT(*) AS n FROM club WHERE name = 'sync'")[1].n)
    consumer:kill()
    assert.is_nil(db:stream_id())
  end)

  it("takes a change of aggregate for a write of two partitions", function()
    local from = must(db:new(Member, { id = 7, club = 1, n = 1 }))
    must(db:flush_async())
    local moved
    for club = 2, 40 do -- to a club of another partition, and to one of the same
      from.club = club
      local ok, err = db:flush_async()
      if not ok then
        assert.equal("SPLIT", err.code)
        moved = club
        break
      end
    end
    assert.is_number(moved)
    support.drain(orm)
    must(db:flush_async { on_split = "sync" })
    local row = must(orm:session():query "SELECT * FROM member WHERE id = 7")[1]
    assert.equal(moved, row.club_id or row.club)
  end)

  it("waits for a foreign key's row in another partition", function()
    local Parent = regolith.entity("parent", { field.string "name", ids = "application" })
    local Child = regolith.entity("child", { field.ref "of" { Parent, foreign_key = true }, ids = "application" })
    local two = world:open({ Parent, Child }, { queues = PARTITIONS, prefix = world.name .. "fk" })
    local s = two:session()
    s:new(Child, { id = 1, of = 9 }) -- queued before its parent
    must(s:flush_async())
    s:new(Parent, { id = 9, name = "late" })
    must(s:flush_async())
    local consumer = must(two:consumer())
    local applied = 0
    faults.await("both", function()
      applied = applied + must(consumer:step(0.1))
      return applied >= 2
    end)
    consumer:close()
    assert.same({}, must(two:dead_letters()))
    assert.equal(1, two:session():query("SELECT COUNT(*) AS n FROM child")[1].n)
    s:close()
    world:shut(two)
  end)

  it("changes their number only when all is applied", function()
    must(db:new(Club, { id = 1, name = "four" }))
    must(db:flush_async())
    local two = world:open({ Club, Member, Loose, Other, Pair }, { queues = 2 })
    local s = two:session()
    s:new(Club, { id = 2, name = "two" })
    local ok, err = s:flush_async()
    assert.is_nil(ok)
    assert.equal("CONFIG", err.code)
    assert.is_truthy(err.retriable)
    assert.matches("4 partitions, not 2", err.message)
    assert.equal(1, support.drain(two)) -- works on all there are
    must(s:flush_async())
    local _, back = db:flush_async()
    assert.equal(0, back) -- nothing to flush
    must(db:new(Club, { id = 3, name = "four again" }))
    local _, refused = db:flush_async()
    assert.equal("CONFIG", refused.code)
    support.drain(orm)
    must(db:flush_async())
    support.drain(orm)
    assert.equal(3, s:query("SELECT COUNT(*) AS n FROM club")[1].n)
    s:close()
    world:shut(two)
  end)

  it("tells what is wrong with its settings", function()
    local Bad = regolith.entity("bad", { field.uint32 "n", queue = { by = "m" } })
    local Float = regolith.entity("float", { field.double "n", queue = { by = "n" } })
    local queues = { default = { partitions = 300, on_split = "sinc" }, logs = 2 }
    local _, err = regolith.open(world:config({ Bad, Float }, { queues = queues }))
    local text = tostring(err)
    assert.matches("bad.*there is no field 'm'", text)
    assert.matches("queue 'default': option 'on_split' must be", text)
    assert.matches("queue 'default': option 'partitions' must be at most 256", text)
    _, err = regolith.open(world:config({ Loose }, { queues = { logs = 2 } }))
    assert.matches("queues: there is no MySQL pool \"logs\"", tostring(err))
    _, err = regolith.open(world:config({ Float }, { queues = 2 }))
    assert.matches("kind that names no aggregate", tostring(err))
  end)
end)

describe("consumers of several partitions", function()
  local world, orm, db
  local members, ops
  local CLUBS = 12

  setup(function() world = support.world() end)
  teardown(function() world:close() end)
  before_each(function()
    orm = world:open({ Club, Member }, { queues = PARTITIONS })
    db = orm:session()
    members, ops = {}, 0
    for id = 1, CLUBS do
      members[id] = must(db:new(Member, { id = id, club = id, n = 0 }))
      must(db:flush_async())
      ops = ops + 1
    end
  end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    must(admin:execute "DELETE FROM member")
    must(orm:invalidate(Member))
    admin:close()
    world:shut(orm)
  end)

  local function spawn(...)
    return faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, ...)
  end
  local function spawn_to_die(step, count, ...)
    return faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name,
      REGOLITH_KILL_POINT = step .. ":" .. count }, ...)
  end

  --- Increments, each of which needs the one before it.
  local function count_up(n)
    for i = 1, n do
      local member = members[(i * 7) % CLUBS + 1]
      member.n = member.n + 1
      must(db:flush_async())
      ops = ops + 1
    end
  end

  local function applied()
    local sum = 0
    for _, queue in ipairs(must(orm:queues())) do sum = sum + queue.applied end
    return sum
  end

  local function check(before)
    local rows = must(orm:session():query "SELECT id, n, version FROM member ORDER BY id")
    assert.equal(CLUBS, #rows)
    for _, row in ipairs(rows) do
      assert.same({ members[row.id].n, members[row.id].n + 1 }, { row.n, row.version })
    end
    assert.same({}, must(orm:dead_letters()))
    assert.same({ ops, 0 }, { applied() - before, total(lengths(orm)) })
  end

  it("share them evenly, and one that stops hands over at once", function()
    local before = applied() -- what was queued is not applied yet
    local one = spawn(256, 60000)
    one:await "holds 4"
    local two = spawn(256, 60000)
    two:await "holds 2"
    one:await "holds 2"
    count_up(50)
    one:signal "TERM"
    two:await "holds 4" -- long before the lease ends
    assert.is_true((one:wait()))
    count_up(50)
    must(orm:drained(20000))
    two:signal "TERM"
    two:wait()
    support.drain(orm)
    check(before)
  end)

  it("replace one that was killed or stands still, which then does nothing more", function()
    local before = applied()
    local dead = spawn(4, 1000)
    dead:await "holds 4"
    dead:kill()
    local still = spawn(4, 1000)
    still:await "holds 4"
    count_up(20)
    still:signal "STOP"
    local heir = spawn(4, 1000)
    heir:await "holds 4"
    count_up(40)
    must(orm:drained(20000))
    still:signal "CONT" -- believes for a moment that all is its
    count_up(40)
    must(orm:drained(20000))
    heir:await "holds 2"
    still:kill()
    heir:kill()
    support.drain(orm)
    check(before)
  end)

  it("end the transaction of one that stands still in the middle of it", function()
    support.drain(orm)
    ops = 0
    local before = applied()
    local admin, still = orm:session(), nil
    must(admin:connection(function(conn)
      must(conn:execute "START TRANSACTION")
      must(conn:query "SELECT * FROM member FOR UPDATE")
      count_up(CLUBS)
      still = spawn(256, 1000)
      faults.await("its transaction to wait", function()
        faults.pause(150) -- who asks more often is told the same again
        return must(db:query [[SELECT COUNT(*) AS n FROM information_schema.innodb_trx
          WHERE trx_state = 'LOCK WAIT']])[1].n > 0
      end)
      still:signal "STOP"
      return conn:execute "ROLLBACK"
    end))
    local heir = spawn(256, 1000)
    heir:await "holds 4"
    must(orm:drained(20000))
    heir:kill()
    still:signal "CONT"
    still:kill()
    admin:close()
    support.drain(orm)
    for _, member in ipairs(members) do assert.equal(1, member.n) end
    assert.same({ ops, 0 }, { applied() - before, total(lengths(orm)) })
    assert.equal(CLUBS, must(db:query "SELECT SUM(n) AS n FROM member")[1].n + 0)
  end)

  it("may be killed at every step, with rivals that ask nobody", function()
    local before = applied()
    local killed, rounds = {}, LONG and 60 or 2
    local steps = { 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 20, 21 }
    local parallel = { 1, 4 }
    local rival = spawn(16, 0)
    for round = 1, rounds do
      for i, step in ipairs(steps) do
        local count = step >= 11 and 1 or (round - 1) % 5 + 1
        local alone = i % 2 == 0 -- so that it gets as far as it is to
        if alone then rival:kill() else rival:signal "STOP" end -- while the other one starts
        local consumer = spawn_to_die(step, count, 1 + (i * round) % 9, i % 3 == 0 and 0 or 300, parallel[i % 2 + 1])
        consumer:await "consuming"
        count_up(14)
        if not alone then rival:signal "CONT" end
        faults.await("its end or that of its work", function()
          return not consumer:running() or total(lengths(orm)) == 0
        end)
        if not consumer:running() then killed[step] = (killed[step] or 0) + 1 end
        consumer:kill()
        if alone then rival = spawn(1 + i, 0) end
      end
    end
    rival:kill()
    support.drain(orm)
    local kinds, sum = 0, 0
    for _, n in pairs(killed) do kinds, sum = kinds + 1, sum + n end
    if LONG then io.write(string.format("\n# %d kills at %d steps, %d operations\n", sum, kinds, ops)) end
    assert.is_true(kinds >= 4, "consumers died at " .. kinds .. " steps only")
    check(before)
  end)

  it("apply several at the same time within one process", function()
    local before = applied()
    count_up(200)
    local consumer = must(orm:consumer { parallel = 4, max_batch = 16 })
    local n = 0
    faults.await("all of it", function()
      n = n + must(consumer:step(0.1))
      return n >= ops
    end)
    assert.same({ 4, 4 }, { consumer:stats().held, consumer:stats().partitions })
    consumer:close()
    check(before)
  end)
end)
