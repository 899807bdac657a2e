-- SPDX-License-Identifier: MIT
-- The clock of our sides; the same rules as the raw ones (raw.h): a tenth of the time warms up and
-- does not count. With BENCH_TURN in the environment the two sides run in short turns, so that what else the
-- machine does hits both: 1 begins, 2 waits; a byte from descriptor 8 gives the turn, one to 9 hands it on.

local ffi = require "ffi"

ffi.cdef [[
typedef struct bench_timespec { long s, ns; } bench_timespec;
int clock_gettime(int clock, bench_timespec *t);
long read(int fd, void *p, unsigned long n);
long write(int fd, const void *p, unsigned long n);
]]

local C = ffi.C
local MONOTONIC = 1
local time = ffi.new "bench_timespec"

local M = {}

---@return number seconds
local function now()
  C.clock_gettime(MONOTONIC, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end
M.now = now

-- Long enough for the caches of the processor to be the side's own for most of it.
local TURN_S, GIVEN, HAND_ON = 0.1, 8, 9
local byte = ffi.new "char[1]"
local turns = os.getenv "BENCH_TURN"
local turn_began

--- Waits for the turn; without another side any more there are no turns.
---@return number seconds that it took
local function await_turn()
  local began = now()
  if C.read(GIVEN, byte, 1) ~= 1 then turns = nil end
  turn_began = now()
  return turn_began - began
end

--- Seconds that went to the other side.
local function take_turns()
  if not turns then return 0 end
  if not turn_began then
    if turns == "2" then return await_turn() end
    turn_began = now()
  end
  if now() - turn_began < TURN_S then return 0 end
  C.write(HAND_ON, byte, 1)
  return await_turn()
end

--- Runs fn again and again; each call answers how many operations it did, and by a second value
--- how many of its seconds do not count.
---@param seconds number
---@param fn fun(): number, number?
function M.measure(seconds, fn)
  local ops, idle, warm = 0, 0, false
  local started = now()
  while true do
    local others = take_turns()
    local n, apart = fn()
    ops, idle = ops + n, idle + (apart or 0) + others
    local elapsed = now() - started - idle
    if not warm and elapsed >= seconds / 10 then
      ops, idle, warm, started = 0, 0, true, now()
    elseif warm and elapsed >= seconds then
      return M.answer(ops, elapsed)
    end
  end
end

--- What a side prints.
function M.answer(ops, seconds)
  io.write(string.format("ops=%.0f seconds=%.6f\n", ops, seconds))
end

return M
