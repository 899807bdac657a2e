-- SPDX-License-Identifier: MIT
-- Our side of compare-and-set: batches of N rows whose counter goes up when it is what was read. Loading
-- the entities is not timed; saying what is to change and what is expected is, as bringing the entities up
-- to date afterwards.

local clock = require "clock"
local model = require "model"

local M = {}

--- The entities of each batch. They are loaded before the clock starts, as the raw side reads its counters.
local function load_windows(db, User, n)
  local windows, ids = {}, {}
  for w = 1, math.floor(model.ROWS / n) do
    for i = 1, n do ids[i] = (w - 1) * n + i end
    windows[w] = assert(db:get_many(User, ids))
  end
  return windows
end

local function update_one(db, user)
  assert(assert(db:update(user, { visits = user.visits + 1 }, { cas = { visits = user.visits } })).applied)
end

local function update_many(db, users, n)
  local list = {}
  for i = 1, n do
    local user = users[i]
    list[i] = { user, { visits = user.visits + 1 }, cas = { visits = user.visits } }
  end
  local answers = assert(db:update_all(list))
  for i = 1, n do assert(answers[i].applied) end
end

local function batches(n)
  return function(seconds)
    local User = model.entity("bench_changed", false)
    local orm = model.open { User }
    local db, at = orm:session(), 0
    local windows = load_windows(db, User, n)
    clock.measure(seconds, function()
      local users = windows[at % #windows + 1]
      if n == 1 then update_one(db, users[1]) else update_many(db, users, n) end
      at = at + 1
      return n
    end)
    db:close()
    orm:close()
  end
end

--- Loads by id, each batch in a session of its own, from no cache.
local function loads(n)
  return function(seconds)
    local User = model.entity("bench_changed", false)
    local orm = model.open { User }
    local at, ids = 0, {}
    clock.measure(seconds, function()
      for i = 1, n do ids[i] = at % math.floor(model.ROWS / n) * n + i end
      local db = orm:session()
      if n == 1 then
        assert(db:get(User, ids[1]))
      else
        assert(assert(db:get_many(User, ids)).n == n)
      end
      db:close()
      at = at + 1
      return n
    end)
    orm:close()
  end
end

for _, n in ipairs { 1, 10, 50, 100, 1000 } do M["rows_" .. n], M["load_" .. n] = batches(n), loads(n) end

return M
