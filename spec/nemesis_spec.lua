-- SPDX-License-Identifier: MIT
-- Processes that read and write the same rows while everything is killed, cut and delayed; what they saw is
-- checked afterwards. REGOLITH_LONG=1: some minutes of it, until 100,000 writes were acknowledged (or
-- REGOLITH_WRITES of them):
--   REGOLITH_LONG=1 scripts/test specs -- spec/nemesis_spec.lua
-- Builds for tests (scripts/build debug, or REGOLITH_BREAKABLE) have rules broken as well, which has to show.

local histories = require "support.history"
local list_histories = require "support.list_history"
local nemesis = require "support.nemesis"

local EVENTS = {
  "kill_process", "cut_redis", "squeeze", "delay_redis", "kill_process", "cut_mysql", "kill_redis", "delay_mysql",
  "kill_process", "empty", "kill_mysql",
}

local is_long = os.getenv "REGOLITH_LONG" == "1"

--- Tests may break rules of a build for tests.
local function is_breakable()
  local file = io.open((os.getenv "REGOLITH_BUILD_DIR" or "build") .. "/CMakeCache.txt", "r")
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return text:find("CMAKE_BUILD_TYPE:STRING=Debug", 1, true) or text:find("REGOLITH_BREAKABLE:BOOL=ON", 1, true)
end

local function run(opts)
  opts.processes, opts.rows, opts.seconds = opts.processes or 6, 200, opts.seconds or 4
  return nemesis.run(opts)
end

local function assert_clean(history) assert.equal("", table.concat(history.violations, "\n")) end

local function copy(opts)
  local mine = {}
  for name, v in pairs(opts) do mine[name] = v end
  return mine
end

--- Nothing is wrong in runs of so much together: on a busy machine one may have done little in its seconds.
---@param of fun(history: History): table what is counted of one
local function assert_clean_runs(opts, least, of)
  local writes, reads = 0, 0
  for _ = 1, 5 do
    local history = run(copy(opts))
    assert_clean(history)
    local done = of(history)
    writes, reads = writes + done.n_writes, reads + done.n_reads
    if writes > least and reads > least then return end
  end
  error(string.format("only %d writes and %d reads", writes, reads))
end

describe("the checker of histories", function()
  local START = { { version = 1, value = 0 }, { version = 1, value = 0 } }

  --- What is wrong with these lines of one process, or of several.
  local function judge(final, ...)
    local history = histories.new()
    for i = 1, select("#", ...) do history:take((select(i, ...)), "shared") end
    history:check(START, { final, START[2] })
    return table.concat(history.violations, "; ")
  end

  local WRITTEN = "B 1 11 1.0\nW 1 2 11 1.0 1.1 ok flush\n"
  local ENDS = { version = 2, value = 11 }

  it("finds nothing in what is right", function()
    assert.equal("", judge(ENDS, WRITTEN .. "R 1 2 11 1.2 1.3\n", "R 1 1 0 1.05 1.08\nR 1 2 11 1.08 1.2\n"))
    assert.equal("", judge(ENDS, "B 1 11 1.0\nW 1 0 11 1.0 1.1 info flush\n"))
    assert.equal("", judge(START[1], "B 1 11 1.0\n"))
  end)

  it("finds stale, dirty and backward reads", function()
    assert.matches("^stale: row 1", judge(ENDS, WRITTEN, "R 1 1 0 1.2 1.3\n"))
    assert.matches("stale: row 1", judge(ENDS, "B 1 11 1.0\n", "R 1 2 11 1.2 1.3\n", "R 1 1 0 1.4 1.5\n"))
    assert.matches("^dirty: row 1.*nobody wrote", judge(START[1], "R 1 2 99 1.2 1.3\n"))
    local undone = "B 1 11 1.0\nW 1 0 11 1.0 1.1 fail flush\n"
    assert.matches("^dirty: row 1.*undone", judge(START[1], undone .. "R 1 2 11 1.2 1.3\n"))
    assert.matches("dirty: row 2.*of row 1", judge(ENDS, WRITTEN .. "R 2 2 11 1.2 1.3\n"))
    assert.matches("back: row 1", judge(ENDS, "R 1 2 11 1.05 1.06\nR 1 1 0 1.055 1.07\n", WRITTEN))
  end)

  it("finds lost writes and lost updates", function()
    assert.matches("lost write: version 2 of row 1", judge(START[1], WRITTEN))
    local twice = "B 1 12 1.0\nW 1 2 12 1.0 1.1 ok flush\n"
    assert.matches("lost update: row 1 got version 2 twice", judge(ENDS, WRITTEN, twice))
    assert.matches("row 1 took 2 steps; 1 writes", judge({ version = 3, value = 11 }, WRITTEN))
    assert.matches("row 1 ends with value 5", judge({ version = 2, value = 5 }, WRITTEN))
  end)
end)

describe("the checker of lists", function()
  local function judge(...)
    local lists = list_histories.new()
    for i = 1, select("#", ...) do assert.is_true(lists:take((select(i, ...)), "shared")) end
    lists:check { shared = 0 }
    return table.concat(lists.violations, "; ")
  end

  -- row 5 comes to box 1, and goes to box 2
  local CAME, WENT = { "O 1 5 I 0 1 3 1.0", "P 1 1 1.1 ok flush" }, { "O 2 5 U 1 2 0 2.0", "P 2 2 2.1 ok flush" }

  it("finds nothing in what is right", function()
    assert.equal("", judge(CAME[1], CAME[2], WENT[1], WENT[2], "L box 1 0.5 0.6 ", "L box 1 1.05 1.2 ",
      "L box 1 1.2 1.3 5:1", "L slot 3 1.2 1.3 5:1", "L box 1 1.2 2.05 ", "L all 0 2.2 2.3 5:2", "L box 2 2.2 2.3 5:2"))
    assert.equal("", judge(CAME[1], "P 1 0 1.1 info flush", "L all 0 3.0 3.1 ", "L all 0 3.0 3.1 5:1"))
    assert.equal("", judge(CAME[1], "P 1 0 1.1 fail flush", "L all 0 3.0 3.1 "))
  end)

  it("finds rows that are missing, or there no longer, or never were", function()
    assert.matches("^list: box 1.*lacks row 5", judge(CAME[1], CAME[2], "L box 1 1.2 1.3 "))
    assert.matches("^list: slot 3.*lacks row 5", judge(CAME[1], CAME[2], "L slot 3 1.2 1.3 "))
    assert.matches("^list: box 1.*has row 5, which was not in it",
      judge(CAME[1], CAME[2], WENT[1], WENT[2], "L box 1 2.2 2.3 5:1"))
    assert.matches("^list: all 0.*row 5 as version 1, 2 was there",
      judge(CAME[1], CAME[2], WENT[1], WENT[2], "L all 0 2.2 2.3 5:1"))
    assert.matches("^list: all 0.*has row 5", judge(CAME[1], "P 1 0 1.1 fail flush", "L all 0 3.0 3.1 5:1"))
    assert.matches("^list: all 0.*has row 9, which nobody wrote", judge "L all 0 3.0 3.1 9:1")
  end)
end)

--- What is wrong in the first run that shows it: what a reader has to meet, it meets in most of them.
local function caught(opts, sign)
  local text
  for _ = 1, 5 do
    text = table.concat(run(copy(opts)).violations, "\n")
    if text:find(sign) then break end
  end
  return text
end

describe("a nemesis run", function()
  it("shows nothing wrong, flushed and queued, whatever is killed", function()
    assert_clean_runs({ async = true, kills = true, mark_ms = 60, events = EVENTS }, 100,
      function(history) return history end)
  end)

  it("shows no list that a killed writer or an expired mark has left behind", function()
    assert_clean_runs({
      seconds = 2, async = true, kills = true, mark_ms = 60, events = { "kill_process", "cut_mysql" },
    }, 0, function(history) return history.lists end)
  end)

  it("catches values that are put back", function()
    assert.matches("stale: row", caught({ seconds = 2, events = { "old_values" } }, "stale: row"))
  end)

  if is_breakable() then
    it("catches a build without marks", function()
      local sign = "differs in value version"
      assert.matches(sign, caught({ seconds = 3, kills = true, points = { 14 }, broken = "mark", events = {} }, sign))
    end)

    it("catches a build that marks no lists", function()
      local sign = "list[^\n]* lacks [^\n]*row" -- seen by a reader, or by the audit at the end
      assert.matches(sign, caught({ seconds = 2, broken = "lists", events = {} }, sign))
    end)
  end

  if is_long then
    it("shows nothing wrong in 100,000 acknowledged writes", function()
      local writes, reads, acknowledged, processes = 0, 0, 0, 0
      local ways = {
        { async = true, mark_ms = 60 }, {}, { async = true, outage = "available" },
        { mark_ms = 60, outage = "available" },
      }
      local i = 0
      while acknowledged < (tonumber(os.getenv "REGOLITH_WRITES") or 100000) do
        i = i % #ways + 1
        local way = ways[i]
        math.randomseed(writes + i)
        local history = run {
          seconds = 45, kills = true, events = EVENTS, every_s = 0.5, async = way.async, mark_ms = way.mark_ms,
          outage = way.outage,
        }
        writes, reads, processes = writes + history.n_writes, reads + history.n_reads, processes + #history.processes
        for _, list in pairs(history.writes) do
          for _, w in ipairs(list) do acknowledged = acknowledged + (w.outcome == "ok" and 1 or 0) end
        end
        for _, op in pairs(history.lists.ops) do acknowledged = acknowledged + (op.outcome == "ok" and 1 or 0) end
        writes, reads = writes + history.lists.n_writes, reads + history.lists.n_reads
        io.stderr:write(string.format("nemesis: %d writes (%d acknowledged), %d reads, %d processes, %d violations\n",
          writes, acknowledged, reads, processes, #history.violations))
        assert_clean(history)
      end
    end)
  end
end)
