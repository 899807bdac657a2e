-- SPDX-License-Identifier: MIT
-- Both sides of a transaction with one insert, in short turns.

local clock = require "clock"
local model = require "model"
local turns = require "turns"

local ffi = require "ffi"

ffi.cdef [[
void raw_turns_open(const char *table);
void raw_turns_run(const char *table, unsigned n);
void raw_turns_sql(const char *statement);
void raw_turns_close(void);
]]

local TURN = 20      -- transactions

local M = {}

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

local function transactions(durable)
  return function(seconds)
    local raw = ffi.load(os.getenv "REGOLITH_BUILD_DIR" .. "/bench/raw_turns.so")
    local User = model.entity("bench_new", false)
    local orm = model.open { User }
    local db = orm:session()
    raw.raw_turns_open "bench_raw"
    raw.raw_turns_sql("SET GLOBAL innodb_flush_log_at_trx_commit=" .. (durable and 1 or 2))
    turns.take(seconds, TURN, our_turn(db, User), their_turn(raw))
    raw.raw_turns_sql "SET GLOBAL innodb_flush_log_at_trx_commit=1"
    raw.raw_turns_close()
    db:close()
    orm:close()
  end
end

M.transaction = transactions(true)
M.transaction_relaxed = transactions(false)

return M
