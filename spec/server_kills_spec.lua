-- SPDX-License-Identifier: MIT
-- MariaDB and Redis killed under a queue at work, of several partitions with several consumers: what was
-- acknowledged is applied, once and in order. REGOLITH_LONG=1: 500 kills and more, with each transaction and each
-- write of Redis on the disk before it is acknowledged.

local faults = require "support.faults"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local LONG = os.getenv "REGOLITH_LONG" ~= nil
local ROUNDS, PARTITIONS = LONG and 420 or 5, 4

describe("servers that are killed under a queue", function()
  local servers
  setup(function() servers = faults.servers("kills", nil, LONG) end)
  teardown(function() servers:remove() end)

  --- The last step of each row that was acknowledged, and the last that was tried.
  local function read(process, said)
    local last
    for word, id, step in process:output():gmatch "(%a+) (%d+) (%d)[^\n]*\n" do
      id, step = tonumber(id), tonumber(step)
      local row = said[id] or { ok = 0, tried = 0 }
      said[id] = row
      if word == "ok" then row.ok, said.acknowledged = step, said.acknowledged + 1 end
      row.tried, last = step, id
    end
    said[last].tried = 3 -- it was killed while it tried the next step, or the next row
    said[last + 1] = { ok = 0, tried = 1 }
  end

  local function acknowledged(process) return select(2, process:output():gsub("ok ", "")) end

  local function goes_on(process)
    local before = acknowledged(process)
    faults.await("further acknowledgements", function() return acknowledged(process) > before + 5 end)
  end

  local function check(orm, said, applied_before)
    local rows, sum, in_doubt = {}, 0, 0
    for _, row in ipairs(must(orm:session():query "SELECT id, n, version FROM member")) do
      rows[row.id], sum = row, sum + row.n
    end
    for id, row in pairs(said) do
      if type(id) == "number" then
        local n = rows[id] and rows[id].n or 0
        if n < row.ok or n > row.tried or (n > 0 and rows[id].version ~= n) then
          error(string.format("row %d was acknowledged up to %d, tried up to %d, is at %d", id, row.ok, row.tried, n))
        end
        in_doubt = in_doubt + (row.tried - row.ok)
        rows[id] = nil
      end
    end
    assert.is_nil(next(rows))
    local applied = 0
    for _, queue in ipairs(must(orm:queues())) do
      applied = applied + queue.applied
      assert.equal(0, queue.length)
    end
    assert.same({}, must(orm:dead_letters()))
    assert.equal(sum, applied - applied_before)
    return sum, in_doubt
  end

  it("have applied what was acknowledged, once and in order", function()
    local orm = servers:open({ shared.Club, shared.Member }, { queues = PARTITIONS })
    local durability, said = LONG and "fsync" or "fast", { acknowledged = 0 }
    local consumers, first_id, killed = {}, 1, { mysql = 0, redis = 0 }
    for i = 1, 2 do consumers[i] = faults.spawn("consumer", servers:env(), 64, 1000, 2) end
    local writer = faults.spawn("steps", servers:env(), durability, first_id, PARTITIONS)
    for i = 1, ROUNDS do
      goes_on(writer)
      faults.pause(math.random(0, 80))
      for k, which in ipairs { "redis", "mysql" } do
        if i % 2 == k - 1 or i % 5 == 0 then -- now and then both
          servers:kill(which)
          killed[which] = killed[which] + 1
        end
      end
      servers:start()
      if i % 50 == 0 then -- its output is read from the beginning each time
        writer:kill_and(function() read(writer, said) end)
        first_id = first_id + 10000000
        writer = faults.spawn("steps", servers:env(), durability, first_id, PARTITIONS)
      end
    end
    goes_on(writer)
    writer:kill_and(function() read(writer, said) end)
    faults.await("the queue to be empty", function() return orm:drained(20000, "all") end, 120)
    for _, consumer in ipairs(consumers) do consumer:kill() end
    support.drain(orm)
    local sum, in_doubt = check(orm, said, 0)
    assert.is_true(said.acknowledged > ROUNDS * 5)
    if LONG then
      io.write(string.format("\n# %d kills of MariaDB, %d of Redis: %d acknowledged, %d applied, %d not answered\n",
        killed.mysql, killed.redis, said.acknowledged, sum, in_doubt))
    end
    orm:close()
  end)
end)
