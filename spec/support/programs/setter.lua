-- SPDX-License-Identifier: MIT
-- One of several processes that write on condition what all of them write.
--   setter.lua ACT SEED TIMES
-- Says in a line "done ..." what was acknowledged.

require "support.programs.follow"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local orm = assert(regolith.open { entities = shared.list(), timeout_ms = 30000, lazy = true })

local act, seed, times = arg[1], tonumber(arg[2]), tonumber(arg[3])
local ROWS = 10
math.randomseed(seed)

local ACTS = {}

--- Was it not made, for certain? Somebody else was faster, or a server did not answer in time.
local function lost_to(answer, err)
  err = err or answer.err
  return answer and answer.conflict or err and err.retriable
end

--- A row's next value by compare_and_set until it is made, with what the conflict has met: how often it was not.
local function count_up(db, id)
  local tally = assert(db:get(shared.Tally, id))
  local now, lost = tally.n, 0
  while true do
    local made, answer = db:compare_and_set(tally, { n = now + 1 }, { n = now })
    if made then return lost end
    if made == false then
      assert(answer.conflict, answer.outcome)
      now = answer.row.n
    else
      assert(answer.retriable, answer)
    end
    lost = lost + 1
  end
end

local function repeated(db, E, id, fn, opts)
  local lost = 0
  while true do
    local answer, err = db:read_modify_write(E, id, fn, opts)
    if answer and answer.applied then return lost + answer.tries - 1 end
    assert(lost_to(answer, err), err or answer.outcome)
    lost = lost + 1
  end
end

--- Counts up one row of some kind until it is made: how often it was not.
local SINGLE = {
  [0] = count_up,
  [1] = function(db, id)
    return repeated(db, shared.Tally, id, function(it) return { n = it.n + 1 } end, { tries = 1000 })
  end,
  [2] = function(db, id)
    return repeated(db, shared.Board, id, function(it)
      return { of = { it.of[1] + 1, it.of[2], it.of[3], it.of[4] } }
    end, { tries = 1000, cas = { "of[1]" } })
  end,
}

--- Single ones, by value and without a version (Board), by version or by value with one (Tally).
function ACTS.single()
  local lost = 0
  local db = orm:session()
  for i = 1, times do
    lost = lost + SINGLE[i % 3](db, math.random(ROWS))
    if i % 50 == 0 then db:clear() end
  end
  return times, lost
end

--- Many at once, in any order; who loses counts nothing.
function ACTS.batch()
  local made, lost = 0, 0
  while made < times do
    local db = orm:session()
    local list, ids = {}, {}
    for i = 1, ROWS do ids[i] = i end
    for i = ROWS, 2, -1 do
      local k = math.random(i)
      ids[i], ids[k] = ids[k], ids[i]
    end
    for _, e in ipairs(assert(db:get_many(shared.Tally, ids))) do
      list[#list + 1] = { e, { n = e.n + 1 }, cas = math.random(2) == 1 and "version" or { n = e.n } }
    end
    for _, answer in ipairs(assert(db:update_all(list))) do
      assert(answer.applied or lost_to(answer), answer.err)
      if answer.applied then made = made + 1 else lost = lost + 1 end
    end
    db:close()
  end
  return made, lost
end

--- Increments need no condition; with a bound they stop there.
function ACTS.bound()
  local made, lost = 0, 0
  local db = orm:session()
  local counter = assert(db:get(shared.Counter, seed >= 0 and tonumber(arg[4])))
  while made + lost < times do
    local answer, err = db:update(counter, { n = regolith.increment(1, { max = tonumber(arg[5]) }) })
    assert(answer and (answer.applied or answer.conflict) or err and err.retriable, err or answer.outcome)
    if answer then
      if answer.applied then made = made + 1 else lost = lost + 1 end
    end
  end
  return made, lost
end

--- Counts up what has a unique value, made by whoever comes first.
function ACTS.upsert()
  local made, lost = 0, 0
  for i = 1, times do
    local db = orm:session()
    local answer, err = db:upsert(shared.Counter, { tag = "t" .. i % 5, n = regolith.increment(1) },
      { insert = { n = 1 } })
    assert(answer and answer.applied or lost_to(answer, err), err or answer.outcome)
    if answer and answer.applied then made = made + 1 else lost = lost + 1 end
    db:close()
  end
  return made, lost
end

local made, lost = ACTS[act]()
orm:close()
print("done", made, lost)
