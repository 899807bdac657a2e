-- SPDX-License-Identifier: MIT
-- The consumers of several queues as one: each has its turn, none waits for another that fails.

local errors = require "regolith.err"
local options = require "regolith.options"

---@class regolith.Consumers
---@field _all regolith.Consumer[]
local Consumers = {}

local M = {}

--- One step of each; the first that has an error tells it when nothing else was done.
local function step_each(self, wait_s)
  local total, fault = 0, nil
  for _, consumer in ipairs(self._all) do
    local n, e = consumer:step(wait_s)
    if n then total = total + n else fault = fault or e end
  end
  if not fault then return total end
  if total == 0 then return errors.results(fault) end
  if self._opts.on_error_report then self._opts.on_error_report(fault, 1) end
  return total
end

--- As Consumer:step(): looks at every queue first, then waits at each in turn.
---@param max_wait_s? number
---@return number? applied
---@return regolith.Err? err
function Consumers:step(max_wait_s)
  options.argument("step: max_wait_s", max_wait_s, options.wait)
  local n, fault = step_each(self, 0)
  if not n then return errors.results(fault) end
  local wait_s = (max_wait_s or 1) / #self._all
  if n > 0 or wait_s == 0 then return n end
  return step_each(self, wait_s)
end

--- Totals of all.
function Consumers:stats()
  local sum = {}
  for _, consumer in ipairs(self._all) do
    for name, v in pairs(consumer:stats()) do sum[name] = (sum[name] or 0) + v end
  end
  return sum
end

function Consumers:close()
  for _, consumer in ipairs(self._all) do consumer:close() end
end

--- Makes one of the queues; what it does not do itself (run, stop) is a consumer's.
---@param new fun(queue: string): regolith.Consumer?, regolith.Err?
---@param queues string[]
---@param Consumer table
---@return regolith.Consumers? consumers
---@return regolith.Err? err
function M.new(new, queues, opts, Consumer)
  local self = { _all = {}, _opts = opts, _running = false, _stopped = false }
  for i, queue in ipairs(queues) do
    local consumer, fault = new(queue)
    if not consumer then
      Consumers.close(self)
      return errors.results(fault)
    end
    self._all[i] = consumer
  end
  return setmetatable(self, { __index = function(_, name) return Consumers[name] or Consumer[name] end })
end

return M
