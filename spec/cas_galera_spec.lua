-- SPDX-License-Identifier: MIT
-- Writes on condition on all nodes of a Galera cluster at once: what was acknowledged anywhere is there
-- everywhere: a thousand of them, with REGOLITH_LONG=1 a hundred thousand.

local faults = require "support.faults"
local galera = require "support.galera"
local regolith = require "regolith"
local shared = require "support.programs.shared"
local support = require "support.init"

local must = support.must
local NODES, ROWS = 3, 10
local TIMES = os.getenv "REGOLITH_LONG" and 33334 or 400

describe("cas: on three nodes", function()
  local why_not, cluster = galera.missing(), nil

  setup(function()
    if not why_not then cluster = galera.cluster("galera", NODES) end
  end)
  teardown(function()
    if cluster then cluster:remove() end
  end)

  it("loses nothing that was acknowledged on any of them", function()
    if why_not then return pending(why_not) end
    local orm = must(regolith.open { mysql = cluster.nodes[1]:mysql_url(), entities = { shared.Vote } })
    must(orm:schema_apply { destructive = true })
    local db, processes, made, lost = orm:session(), {}, 0, 0
    for id = 1, ROWS do must(db:new(shared.Vote, { id = id, n = 0 })) end
    must(db:flush())
    local function total(i) return tonumber(must(cluster.sql[i]:query "SELECT SUM(n) AS n FROM vote")[1].n) end
    --- What each node says of itself, for a failure.
    local function state()
      local words = {}
      for i = 1, NODES do
        words[#words + 1] = string.format("node %d: %d there", i, total(i))
        for _, name in ipairs { "local_state_comment", "last_committed", "local_recv_queue", "cluster_size" } do
          local rows = cluster.sql[i]:query("SHOW GLOBAL STATUS LIKE 'wsrep_" .. name .. "'")
          words[#words + 1] = name .. " " .. tostring(rows and rows[1] and rows[1].Value)
        end
      end
      return table.concat(words, ", ")
    end
    for i = 1, NODES do
      faults.await("the table on every node", function()
        local rows = cluster.sql[i]:query "SELECT COUNT(*) AS n FROM vote"
        return rows and tonumber(rows[1].n) == ROWS
      end)
    end
    for i = 1, NODES do
      processes[i] = faults.spawn("node", { REGOLITH_MYSQL_URL = cluster.nodes[i]:mysql_url() }, i, TIMES)
    end
    for _, process in ipairs(processes) do
      local ok, text = process:wait(7200)
      assert.is_true(ok, text)
      local a, b = text:match "done%s+(%d+)%s+(%d+)"
      made, lost = made + tonumber(a or error(text)), lost + tonumber(b)
    end
    assert.is_true(made >= NODES * TIMES)
    for i = 1, NODES do
      local all = pcall(faults.await, "the last writes", function() return total(i) >= made end)
      assert.is_true(all, all or made .. " were acknowledged. " .. state())
      assert.equal(made, total(i))
      assert.equal(made, tonumber(must(cluster.sql[i]:query "SELECT SUM(version - 1) AS n FROM vote")[1].n))
    end
    if os.getenv "REGOLITH_LONG" then io.stderr:write(made, " acknowledged, ", lost, " lost the race\n") end
    db:close()
    orm:close()
  end)
end)
