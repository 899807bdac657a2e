-- SPDX-License-Identifier: MIT
-- Long-running work: parts that each do a little at a time, one after the other, again and again, until
-- they are told to stop. A part that fails waits longer each time before its next turn; the others go on.

local errors = require "regolith.err"
local hosts = require "regolith.hosts.init"
local native = require "regolith.native"
local options = require "regolith.options"


local M = {}

--- Least and most time between two turns of a part that fails.
local FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.05, 5
--- How long everything rests when nothing was to be done; a signal is seen within that.
local IDLE_S = 0.1

local RUN = { signals = options.boolean, on_step = options.func, idle_s = options.seconds(3600) }

---@class regolith.LoopPart
---@field name string
---@field step fun(wait_s: number): number?, regolith.Err? how much was done
---@field waits boolean? its step waits for work by itself, wait_s at most

--- One turn of a part: how much it has done, or nil and an error that ends everything.
local function turn(part, wait_s, on_error)
  local n, fault = part.step(wait_s)
  if n then
    part.failures = 0
    return n
  end
  part.failures = (part.failures or 0) + 1
  part.rest_s = math.min(FIRST_BACKOFF_S * 2 ^ math.min(part.failures - 1, 20), MAX_BACKOFF_S)
  if on_error then on_error(fault, part.failures) end
  if fault.code == "CLOSED" or fault.code == "MISUSE" then return nil, fault end
  return 0
end

--- One round: how much was done in all. What waits by itself waits only when there was nothing to do.
local function round(parts, wait_s, rested_s, on_error)
  local done = 0
  for _, part in ipairs(parts) do
    part.rest_s = math.max((part.rest_s or 0) - rested_s, 0)
    if part.rest_s == 0 then
      local n, fault = turn(part, part.waits and wait_s or 0, on_error)
      if not n then return nil, fault end
      done = done + n
    end
  end
  return done
end

local function waiter(parts)
  for _, part in ipairs(parts) do
    if part.waits and (part.rest_s or 0) == 0 then return part end
  end
end

--- Does any part wait for its next try?
local function resting(parts)
  for _, part in ipairs(parts) do
    if (part.rest_s or 0) > 0 then return true end
  end
  return false
end

local function turns(self, parts, opts, on_error)
  local idle_s, idle, rested_s = opts.idle_s or IDLE_S, false, 0
  while not (self._stopped or (opts.signals and native.signal_taken() ~= nil)) do
    local waits = idle and waiter(parts)
    if idle and not waits then hosts.pause(idle_s) end
    local done, fault = round(parts, waits and idle_s or 0, rested_s, on_error)
    if not done then return nil, fault end
    if opts.on_step then opts.on_step(done, idle and not resting(parts)) end
    idle, rested_s = done == 0, idle and idle_s or 0
  end
  return true
end

--- Takes turns until self._stopped is set, or a signal comes.
---@param self { _stopped: boolean?, _running: boolean? } the object that run() was called on
---@param parts regolith.LoopPart[]
---@param opts? { signals: boolean?, idle_s: number?, on_step: fun(done: number, idle: boolean)? } idle: the round
--- waited for something to do, and no part rests after a failure
---@param on_error? fun(err: regolith.Err, failures: integer)
---@return true? ok
---@return regolith.Err? err
function M.run(self, parts, opts, on_error)
  opts = options.require("run", opts, RUN, 4)
  if self._running then error("it is running already", 3) end
  self._running, self._stopped = true, false
  if opts.signals then native.signal_watch() end
  local called, ok, fault = pcall(turns, self, parts, opts, on_error)
  if opts.signals then native.signal_unwatch() end
  self._running = false
  if not called then error(ok, 0) end
  if not ok then return errors.results(fault) end
  return true
end

return M
