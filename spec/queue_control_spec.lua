-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local Line = shared.Line

describe("a queue", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open(shared.list())
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function()
    must(orm:resume())
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    must(admin:execute "DELETE FROM line")
    must(orm:invalidate(Line))
    admin:close()
  end)

  local function env(more)
    local words = { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name }
    for name, v in pairs(more or {}) do words[name] = v end
    return words
  end

  local function add(id)
    local e = must(db:new(Line, { id = id, n = id }))
    must(db:flush_async())
    return e
  end

  local function ids()
    local list = {}
    for i, row in ipairs(must(db:query "SELECT id FROM line ORDER BY id")) do list[i] = row.id end
    return table.concat(list, " ")
  end

  describe("that is paused", function()
    it("is left alone by every consumer, those that run and those that start, until it is resumed", function()
      local running = faults.spawn("consumer", env())
      add(1)
      must(orm:drained(20000))
      must(orm:pause())
      assert.is_true(must(orm:queues())[1].paused)
      add(2)
      add(3)
      local starting = faults.spawn("consumer", env())
      starting:await "consuming"
      local own = must(orm:consumer())
      assert.equal(0, must(own:step(0.3)))
      assert.equal("1", ids())
      support.as_redis_answers(orm, function() -- flushes go on, and cached reads see them
        assert.equal(3, orm:session():get(Line, 3).n)
      end)
      local ok, err = orm:drained(100)
      assert.is_nil(ok)
      assert.equal("TIMEOUT", err.code)
      must(orm:resume())
      assert.is_false(must(orm:queues())[1].paused)
      must(orm:drained(20000))
      assert.equal("1 2 3", ids())
      own:close()
      running:kill()
      starting:kill()
    end)

    it("has no batch under way once pause() has returned", function()
      local running = faults.spawn("consumer", env(), 8)
      for id = 1, 60 do add(id) end
      must(orm:pause())
      local before = must(orm:queues())[1]
      local rows = ids()
      faults.pause(50)
      assert.equal(rows, ids())
      assert.equal(before.applied, must(orm:queues())[1].applied)
      must(orm:resume())
      must(orm:drained(20000))
      assert.equal(60, must(db:query "SELECT COUNT(*) AS n FROM line")[1].n)
      running:kill()
    end)

    it("stays so for an orm that is opened later, with other partitions too", function()
      must(orm:pause())
      local later = world:open({ Line }, { queues = 3 })
      for i, queue in ipairs(must(later:queues())) do assert.is_true(queue.paused or i > 1) end
      add(7)
      local consumer = must(later:consumer())
      assert.equal(0, must(consumer:step(0.1)))
      consumer:close()
      must(later:resume())
      world:shut(later)
    end)
  end)

  describe("with an entry that kills its consumer", function()
    --- Starts consumers until the queue is empty: how many have died.
    local function deaths(more, ...)
      local words, n = env(more), 0
      repeat
        local consumer = faults.spawn("consumer", words, ...)
        faults.await("its end or that of its work", function()
          return not consumer:running() or must(orm:queues())[1].length == 0
        end)
        if not consumer:running() then n = n + 1 end
        consumer:kill()
        assert.is_true(n < 10, "it dies for ever")
      until must(orm:queues())[1].length == 0
      return n
    end

    it("has it as a dead letter after three deaths, and all others applied", function()
      for id = 1, 10 do add(id) end
      assert.equal(3, deaths { REGOLITH_KILL_ROW = 6, MAX_DEATHS = 3 })
      assert.equal("1 2 3 4 5 7 8 9 10", ids())
      local letters = must(orm:dead_letters())
      assert.equal(1, #letters)
      assert.same({ "line", 6, "insert" }, { letters[1].entity, letters[1].entity_id, letters[1].operation })
      assert.matches("3 consumers ended", letters[1].error)
      assert.is_nil((orm:session():get(Line, 6))) -- the caches show what is true
      assert.equal(0, must(orm:retry(letters[1].number))) -- here nothing is wrong with it
      assert.equal(6, orm:session():get(Line, 6).n)
    end)

    it("finds the next one too, and keeps what comes behind each in order", function()
      local e
      for id = 1, 6 do
        local made = add(id)
        if id == 2 then e = made end
      end
      e.n = 50
      must(db:flush_async())
      assert.equal(3, deaths { REGOLITH_KILL_ROW = 2, MAX_DEATHS = 3 })
      local letters = must(orm:dead_letters())
      assert.same({ "dead", "parked" }, { letters[1].state, letters[2].state })
      assert.equal("1 3 4 5 6", ids())
      assert.equal(0, must(orm:retry "all"))
      assert.equal(50, db:query("SELECT n FROM line WHERE id = 2")[1].n)
      add(11)
      add(12)
      assert.equal(2, deaths { REGOLITH_KILL_ROW = 12, MAX_DEATHS = 2 })
      assert.equal(12, must(orm:dead_letters())[1].entity_id)
      assert.equal("1 2 3 4 5 6 11", ids())
    end)

    it("counts no failure, and no end that had other causes", function()
      add(1)
      local own = world:open(shared.list(), { timeout_ms = 300, lazy = true, schema = false })
      must(db:connection(function(conn) -- the ledger is held by somebody
        must(conn:execute "START TRANSACTION")
        must(conn:query "SELECT * FROM _regolith_ledger FOR UPDATE")
        for _ = 1, 4 do
          local consumer = must(own:consumer { max_deaths = 1 })
          assert.is_nil((consumer:step(0.05)))
          consumer:close()
        end
        return true
      end))
      must(db:execute "INSERT INTO line (id, n, version) VALUES (2, 1, 1)")
      for _ = 1, 4 do -- killed before they have begun anything
        local consumer = faults.spawn("consumer", env { REGOLITH_KILL_POINT = "1:1", MAX_DEATHS = 3 })
        faults.await("its end", function() return not consumer:running() end)
        consumer:kill()
      end
      assert.equal(1, support.drain(orm))
      assert.same({}, must(orm:dead_letters()))
      world:shut(own)
    end)
  end)
end)
