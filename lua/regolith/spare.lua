-- SPDX-License-Identifier: MIT
-- Tables of closed sessions, emptied and used again: a session per request would else grow its maps
-- from nothing each time, and leave them to the collector.

local clear = require "table.clear"

local M = {
  --- What stands for a table until there is something to put into it; nothing ever is.
  NONE = {},
  --- A larger session's tables are not worth keeping.
  MOST_ENTRIES = 1024,
  --- Of one kind that are kept.
  MOST_TABLES = 64,
}

local MOST_TABLES = M.MOST_TABLES

--- An empty table.
---@param stack table[]
---@return table
function M.take(stack)
  local n = #stack
  if n == 0 then return {} end
  local t = stack[n]
  stack[n] = nil
  return t
end

--- Takes a table that nobody looks at any more.
---@param stack table[]
---@param t table
function M.give(stack, t)
  local n = #stack
  if n >= MOST_TABLES then return end
  clear(t)
  stack[n + 1] = t
end

return M
