-- SPDX-License-Identifier: MIT
-- Our side of compare-and-set: batches of N rows whose counter goes up when it is what was read. Loading
-- the entities is not timed; saying what is to change and what is expected is, as bringing the entities up
-- to date afterwards.

local clock = require "clock"
local model = require "model"
local turns = require "turns"

local ffi = require "ffi"

ffi.cdef [[
void raw_cas_open(const char *table, uint32_t rows, int single);
void raw_cas_run(unsigned n, unsigned batches);
void raw_cas_close(void);
]]

local TURN = 40 -- rows

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

--- What updates the next batch of n rows.
local function updater(db, User, n)
  local windows, at = load_windows(db, User, n), 0
  return function()
    local users = windows[at % #windows + 1]
    if n == 1 then update_one(db, users[1]) else update_many(db, users, n) end
    at = at + 1
    return n
  end
end

local function open_session()
  local User = model.entity("bench_changed", false)
  local orm = model.open { User }
  return orm, orm:session(), User
end

local function batches(n)
  return function(seconds)
    local orm, db, User = open_session()
    clock.measure(seconds, updater(db, User, n))
    db:close()
    orm:close()
  end
end

-- ---- both sides ---------------------------------------------------------------------------------

local function our_turn(update, count)
  return function()
    local started = clock.now()
    for _ = 1, count do update() end
    return clock.now() - started
  end
end

local function their_turn(raw, n, count)
  return function()
    local started = clock.now()
    raw.raw_cas_run(n, count)
    return clock.now() - started
  end
end

--- In turns of TURN rows, or one batch; `single`: theirs is a statement for each row.
local function both(n, single)
  return function(seconds)
    local raw = ffi.load(os.getenv "REGOLITH_BUILD_DIR" .. "/bench/raw_turns.so")
    local orm, db, User = open_session()
    local count = math.ceil(TURN / n)
    raw.raw_cas_open("bench_raw", model.ROWS, single)
    turns.take(seconds, n * count, our_turn(updater(db, User, n), count), their_turn(raw, n, count))
    raw.raw_cas_close()
    db:close()
    orm:close()
  end
end

-- ---- loads --------------------------------------------------------------------------------------

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

for _, n in ipairs { 1, 10, 50, 100, 1000 } do
  M["rows_" .. n], M["load_" .. n] = batches(n), loads(n)
  M["both_" .. n], M["both_" .. n .. "_single"] = both(n, 0), both(n, 1)
end

return M
