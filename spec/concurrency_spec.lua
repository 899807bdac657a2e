-- SPDX-License-Identifier: MIT
-- Several processes at the same rows, at once and through the queue: no step is lost, none is seen that
-- was undone, nothing that was seen goes back, and in the end all say the same.

local faults = require "support.faults"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local Tally, Board, Book = shared.Tally, shared.Board, shared.Book
local ROWS = 5

describe("processes", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open(shared.list())
  end)
  teardown(function() world:close() end)

  before_each(function()
    db = orm:session()
    for id = 1, ROWS do
      must(db:new(Tally, { id = id, n = 0 }))
      must(db:new(Board, { id = id }))
    end
    must(db:new(Tally, { id = 100, n = 0 }))
    for seed = 1, 4 do
      for i = 0, 2 do must(db:new(Book, { id = seed * 10 + i, title = "new " .. seed .. i, shelf = 0 })) end
    end
    must(db:flush())
  end)
  after_each(function()
    db:clear()
    must(orm:drop "all")
    for _, E in ipairs { Tally, Board, Book } do
      for _, e in ipairs(must(db:all(E))) do db:delete(e) end
    end
    must(db:flush())
    db:close()
  end)

  local function spawn(act, seed, times, way)
    return faults.spawn("crowd", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, act, seed, times, way)
  end

  local function consumer()
    return faults.spawn("consumer", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
      REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name })
  end

  --- Waits for all; what they said they did.
  local function finish(processes)
    local steps = 0
    for _, process in ipairs(processes) do
      local ok, text = process:wait(60)
      assert.is_true(ok, text)
      steps = steps + tonumber(must(text:match "done %a+ (%d+)"))
    end
    return steps
  end

  --- MySQL and every cache say the same.
  local function agree(E)
    local truth = {}
    for _, e in ipairs(must(orm:session():search(E, "1 = 1"):all())) do truth[e.id] = e end
    local reader = orm:session()
    for id, e in pairs(truth) do
      local cached = must(reader:get(E, id))
      for key, v in pairs(e) do assert.same(v, cached[key]) end
    end
    reader:close()
    return truth
  end

  --- Every step went through: the sum of all rows, and each one's version.
  local function check_sum(steps)
    local sum = 0
    for id, tally in pairs(agree(Tally)) do
      if id <= ROWS then sum = sum + tally.n end
      assert.equal(tally.n + 1, tally.version)
    end
    assert.equal(steps, sum)
  end

  for _, way in ipairs { "flush", "flush_async", "mixed" } do
    it("lose no step of each other, and see nothing go back: " .. way, function()
      local background = consumer()
      local readers, writers = {}, {}
      for i = 1, 2 do readers[i] = spawn("read", i, 0) end
      for _, reader in ipairs(readers) do reader:await "reading" end
      for i = 1, 3 do writers[i] = spawn("count", i, 150, way) end
      writers[4] = spawn("many", 4, 40, way)
      local steps = finish(writers)
      must(orm:drained(20000))
      check_sum(steps)
      assert.equal(3 * 150 + 3 * 40, steps)
      local stop = must(db:get(Tally, 100))
      stop.n = 1
      must(db:flush())
      assert.is_true(finish(readers) > ROWS)
      background:kill()
      assert.same({}, must(orm:dead_letters()))
    end)

    it("leave each other's columns alone: " .. way, function()
      local background, writers = consumer(), {}
      for i = 1, 4 do writers[i] = spawn("board", i, 150, way) end
      assert.equal(600, finish(writers))
      must(orm:drained(20000))
      background:kill()
      for id, board in pairs(agree(Board)) do
        local last = 150 - (150 - (id - 1)) % ROWS -- the last i with i % 5 + 1 == id
        assert.same({ last, last, last, last }, board.of)
      end
    end)

    it("find their own and no wrong rows by index: " .. way, function()
      local background, writers = consumer(), {}
      for i = 1, 4 do writers[i] = spawn("shelve", i, 100, way) end
      assert.equal(400, finish(writers))
      must(orm:drained(20000))
      background:kill()
      local books, shelves = agree(Book), {}
      for _, book in pairs(books) do shelves[book.shelf] = (shelves[book.shelf] or 0) + 1 end
      for shelf = 0, 3 do
        assert.equal(shelves[shelf] or 0, #must(orm:session():all_by(Book, "shelf", shelf)))
      end
      for _, book in pairs(books) do
        assert.equal(book.id, must(orm:session():by(Book, "title", book.title)).id)
      end
      assert.equal(12, #must(orm:session():all(Book)))
    end)
  end

  it("that are killed at work leave nothing behind that is older than the row", function()
    local Strict = shared.strict()
    local strict = world:open({ Strict }, { schema = false })
    --- What Redis has is never older than what was committed before; a process cache hears of it.
    local function check()
      local truth = must(orm:session():search(Tally, "id <= ?", ROWS):all())
      local reader = strict:session()
      for _, e in ipairs(truth) do
        local cached = must(reader:get(Strict, e.id))
        if cached.version < e.version then
          error(string.format("row %d is read as of version %d after %d", e.id, cached.version, e.version))
        end
        assert.equal(cached.version, cached.n + 1)
      end
      reader:close()
      for _, e in ipairs(truth) do
        faults.await("the news of a row", function()
          return must(orm:session():get(Tally, e.id)).version >= e.version
        end, 4) -- a second and a half, and what this machine is late
      end
    end
    local background, writers = consumer(), {}
    for round = 1, 30 do
      for i = 1, 2 do
        writers[i] = writers[i] or spawn("count", round * 10 + i, 100000, round % 3 == 0 and "mixed" or "flush")
      end
      local before = must(db:query "SELECT SUM(n) AS n FROM tally")[1].n
      faults.await("work to be done", function()
        check()
        return must(db:query "SELECT SUM(n) AS n FROM tally")[1].n ~= before
      end)
      writers[round % 2 + 1]:kill()
      writers[round % 2 + 1] = nil
      for _ = 1, 5 do check() end
    end
    for _, writer in pairs(writers) do writer:kill() end
    must(orm:drained(20000))
    background:kill()
    faults.await("the end of their connections", function()
      local rows = must(world.sql:query("SELECT id FROM information_schema.processlist WHERE db = ?", world.name))
      return #rows <= 2 -- ours
    end)
    check()
    agree(Tally)
    world:shut(strict)
  end)

  it("that deadlock each other come through", function()
    local crowd = { spawn("many", 1, 40, "flush"), spawn("many", 2, 40, "flush") }
    local lockers = { spawn("lock", 3, 60), spawn("lock", 4, 60) }
    local steps = finish(crowd)
    finish(lockers)
    check_sum(steps)
  end)

  it("take ids that nobody else has", function()
    local programs = {}
    for i = 1, 4 do
      programs[i] = faults.spawn("ids", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, i)
    end
    local seen, n = { block = {}, snowflake = {} }, 0
    for _, process in ipairs(programs) do
      local ok, text = process:wait()
      assert.is_true(ok, text)
      for kind, id in text:gmatch "(%a+) (%d+)" do
        assert.is_nil(seen[kind][id], kind .. " " .. id .. " was given twice")
        seen[kind][id] = true
        n = n + 1
      end
    end
    assert.equal(4 * 2 * 300, n)
  end)
end)
