-- SPDX-License-Identifier: MIT
-- Several processes write the same rows on condition: what was acknowledged is what is there in the end.
-- REGOLITH_LONG=1 makes it a million in each of the three forms.

local faults = require "support.faults"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local Tally, Board, Counter = shared.Tally, shared.Board, shared.Counter
local ROWS, PROCESSES = 10, 4
local IS_LONG = os.getenv "REGOLITH_LONG" ~= nil
local TIMES = IS_LONG and 250000 or 250

describe("cas: in several processes", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open(shared.list())
    db = orm:session()
    for id = 1, ROWS do
      must(db:new(Tally, { id = id, n = 0 }))
      must(db:new(Board, { id = id }))
    end
    must(db:flush())
  end)
  teardown(function()
    db:close()
    world:close()
  end)
  before_each(function() must(db:execute "UPDATE tally SET n = 0, version = version + 1") orm:invalidate(Tally) end)

  --- Acknowledged and lost, over all processes.
  local function run(act, times, ...)
    local processes, made, lost, since = {}, 0, 0, os.time()
    for i = 1, PROCESSES do
      processes[i] = faults.spawn("setter", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, act, i, times, ...)
    end
    for _, process in ipairs(processes) do
      local ok, text = process:wait(IS_LONG and 7200 or 90)
      assert.is_true(ok, text)
      local a, b = text:match "done%s+(%d+)%s+(%d+)"
      made, lost = made + tonumber(a or error(text)), lost + tonumber(b)
    end
    if IS_LONG then
      io.stderr:write(string.format("%s: %d acknowledged, %d refused, %d s\n", act, made, lost, os.time() - since))
    end
    return made, lost
  end

  local function sum(text) return tonumber((must(db:query(text))[1].n)) end

  local function agree(E, of)
    local total, fresh = 0, orm:session()
    for id = 1, ROWS do total = total + of(must(fresh:get(E, id))) end
    fresh:close()
    return total
  end

  it("loses none of those that are repeated until made", function()
    local before = sum "SELECT SUM(of_1) AS n FROM board"
    local made = run("single", TIMES)
    assert.equal(PROCESSES * TIMES, made)
    local counted = sum "SELECT SUM(n) AS n FROM tally"
    local boards = sum "SELECT SUM(of_1) AS n FROM board" - before
    assert.equal(made, counted + boards)
    assert.equal(counted, agree(Tally, function(it) return it.n end))
    assert.equal(boards, agree(Board, function(it) return it.of[1] end))
  end)

  it("counts as many as were answered, many at once", function()
    local made = run("batch", TIMES)
    assert.equal(made, sum "SELECT SUM(n) AS n FROM tally")
    assert.equal(made, agree(Tally, function(it) return it.n end))
  end)

  it("stops increments at their bound", function()
    local counter = must(db:new(Counter, { n = 0 }))
    must(db:flush())
    local bound = PROCESSES * TIMES * 4 / 5
    local made, lost = run("bound", TIMES, counter.id, bound)
    assert.equal(bound, made)
    assert.equal(PROCESSES * TIMES - bound, lost)
    assert.equal(bound, must(db:query("SELECT n FROM counter WHERE id = ?", counter.id))[1].n)
    assert.equal(bound, must(orm:session():get(Counter, counter.id)).n)
  end)
end)
