-- SPDX-License-Identifier: MIT
-- What the demo prints: steps, a progress bar (plain lines where there is no terminal), the table at the
-- end.

local ffi = require "ffi"

ffi.cdef [[
typedef struct demo_timespec { long s, ns; } demo_timespec;
int clock_gettime(int clock, demo_timespec *t);
int isatty(int fd);
]]

local MONOTONIC, STDOUT = 1, 1
local BAR = 30
local TERMINAL_EVERY_S, PLAIN_EVERY_S = 0.1, 2

local M = {}

local time = ffi.new "demo_timespec"
function M.now()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end

local terminal = ffi.C.isatty(STDOUT) == 1

--- 1234567 as "1,234,567".
function M.number(n)
  local text = string.format("%.0f", n)
  local head = #text % 3 == 0 and text:sub(1, 3) or text:sub(1, #text % 3)
  return head .. text:sub(#head + 1):gsub("(%d%d%d)", ",%1")
end

function M.say(fmt, ...)
  print(string.format(fmt, ...))
  io.stdout:flush()
end

function M.title(text) M.say("\n== %s", text) end

-- ---- progress -----------------------------------------------------------------------------------

---@class demo.Progress
local Progress = {}
Progress.__index = Progress

---@param what string
---@param total number
function M.progress(what, total)
  return setmetatable({ what = what, total = total, started = M.now(), shown = M.now() }, Progress)
end

local function line(self, done, note)
  local share = self.total > 0 and math.min(done / self.total, 1) or 1
  local filled = math.floor(share * BAR)
  if terminal then
    return string.format("%s [%s%s] %3.0f %%  %s", self.what, string.rep("#", filled), string.rep(".", BAR - filled),
      share * 100, note)
  end
  return string.format("%s %3.0f %%  %s", self.what, share * 100, note)
end

--- Shows how far things are, now and then; note is called only when something is shown.
---@param done number
---@param note fun(): string
function Progress:at(done, note)
  local now = M.now()
  if now - self.shown < (terminal and TERMINAL_EVERY_S or PLAIN_EVERY_S) then return end
  self.shown = now
  io.stdout:write(terminal and "\r\27[K" or "", line(self, done, note()), terminal and "" or "\n")
  io.stdout:flush()
end

--- The last word; the seconds that it took.
function Progress:done(note)
  io.stdout:write(terminal and "\r\27[K" or "", line(self, self.total, note), "\n")
  io.stdout:flush()
  return M.now() - self.started
end

-- ---- the table at the end -----------------------------------------------------------------------

local rows = {}

--- Notes one line of the table.
function M.done(what, n, unit, seconds)
  rows[#rows + 1] = { what = what, n = n, unit = unit, seconds = seconds }
end

--- Runs fn and notes it; n is what it answers.
function M.timed(what, unit, fn)
  local started = M.now()
  local n = fn()
  M.done(what, n, unit, M.now() - started)
  return n
end

function M.table()
  M.title "what was done"
  M.say("%-46s %12s %-12s %8s %14s", "", "count", "", "seconds", "a second")
  for _, row in ipairs(rows) do
    M.say("%-46s %12s %-12s %8.2f %14s", row.what, M.number(row.n), row.unit, row.seconds,
      row.seconds > 0 and M.number(row.n / row.seconds) or "-")
  end
end

-- ---- checks -------------------------------------------------------------------------------------

local failures = 0

--- Compares what there is with what there must be; says so.
function M.check(what, got, want)
  local ok = got == want
  if not ok then failures = failures + 1 end
  local note = ok and "" or ", but it must be " .. tostring(want)
  M.say("  %-4s %s: %s%s", ok and "ok" or "FAIL", what, tostring(got), note)
  return ok
end

function M.failures() return failures end

return M
