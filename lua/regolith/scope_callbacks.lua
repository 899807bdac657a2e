-- SPDX-License-Identifier: MIT
-- Running what was registered for the end of a transaction: each by itself, so that one that fails
-- keeps no other from running.

local errors = require "regolith.err"

local M = {}

--- One callback; its failure is collected, and told to the orm's on_error.
local function run(scope, fn, failures)
  local ok, fault = pcall(fn)
  if ok then return failures end
  if not errors.is(fault) then
    fault = errors.new("HOOK", "a callback of a transaction failed: " .. errors.text(fault), { cause = fault })
  end
  failures = failures or {}
  failures[#failures + 1] = fault
  errors.report(scope._session._orm._on_error, fault)
  return failures
end

--- First in, first out. What failed, or nil.
---@return regolith.Err[]?
function M.run_in_order(scope, list)
  local failures
  for i = 1, #list do failures = run(scope, list[i], failures) end
  return failures
end

--- Last in, first out.
---@return regolith.Err[]?
function M.run_last_first(scope, list)
  local failures
  for i = #list, 1, -1 do failures = run(scope, list[i], failures) end
  return failures
end

return M
