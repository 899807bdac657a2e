-- SPDX-License-Identifier: MIT
-- Both sides of a transaction with one insert, in short turns: a disk that is slow for a while is so for
-- both. The ratio is the median of those of neighbouring turns; who begins changes from pair to pair.

local clock = require "clock"
local model = require "model"

local ffi = require "ffi"

ffi.cdef [[
void raw_turns_open(const char *table);
void raw_turns_run(const char *table, unsigned n);
void raw_turns_sql(const char *statement);
void raw_turns_close(void);
]]

local TURN = 20      -- transactions
local WARM_PAIRS = 50 -- that do not count

local M = {}

local function median(list)
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

--- Our turn: one new row a transaction, with nothing else around it. Its values are at hand.
local function our_turn(db, User)
  local i, rows = 0, {}
  return function()
    for k = 1, TURN do
      i = i + 1
      rows[k] = model.row(i)
    end
    local started = clock.now()
    for k = 1, TURN do
      local row = rows[k]
      assert(db:transaction(function() return db:new(User, row) end))
      db:clear()
    end
    return clock.now() - started
  end
end

local function their_turn(raw)
  return function()
    local started = clock.now()
    raw.raw_turns_run("bench_raw", TURN)
    return clock.now() - started
  end
end

local function take_turns(seconds, ours, theirs)
  local a, b, ratios, spent, pair = {}, {}, {}, 0, 0
  while spent < 2 * seconds do
    pair = pair + 1
    local x, y
    if pair % 2 == 0 then
      x = ours()
      y = theirs()
    else
      y = theirs()
      x = ours()
    end
    if pair > WARM_PAIRS then
      a[#a + 1], b[#b + 1], ratios[#ratios + 1] = x, y, y / x
      spent = spent + x + y
    end
  end
  io.write(string.format("ours=%.3f raw=%.3f ratio=%.4f\n", TURN / median(a), TURN / median(b), median(ratios)))
end

local function transactions(durable)
  return function(seconds)
    local raw = ffi.load(os.getenv "REGOLITH_BUILD_DIR" .. "/bench/raw_turns.so")
    local User = model.entity("bench_new", false)
    local orm = model.open { User }
    local db = orm:session()
    raw.raw_turns_open "bench_raw"
    raw.raw_turns_sql("SET GLOBAL innodb_flush_log_at_trx_commit=" .. (durable and 1 or 2))
    take_turns(seconds, our_turn(db, User), their_turn(raw))
    raw.raw_turns_sql "SET GLOBAL innodb_flush_log_at_trx_commit=1"
    raw.raw_turns_close()
    db:close()
    orm:close()
  end
end

M.transaction = transactions(true)
M.transaction_relaxed = transactions(false)

return M
