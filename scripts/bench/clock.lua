-- SPDX-License-Identifier: MIT
-- The clock of our sides; the same rules as the raw ones (raw.h): a tenth of the time warms up and
-- does not count.

local ffi = require "ffi"

ffi.cdef [[
typedef struct bench_timespec { long s, ns; } bench_timespec;
int clock_gettime(int clock, bench_timespec *t);
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

--- Runs fn again and again; each call answers how many operations it did, and by a second value
--- how many of its seconds do not count.
---@param seconds number
---@param fn fun(): number, number?
function M.measure(seconds, fn)
  local ops, idle, warm = 0, 0, false
  local started = now()
  while true do
    local n, apart = fn()
    ops, idle = ops + n, idle + (apart or 0)
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
