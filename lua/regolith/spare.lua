-- SPDX-License-Identifier: MIT
-- Tables of closed sessions, emptied and used again: a session per request would else grow its maps
-- from nothing each time, and leave them to the collector.

local clear = require "table.clear"

local M = {
  --- What stands for a table until there is something to put into it; nothing ever is.
  NONE = {},
  --- A larger session's tables are not worth keeping.
  MOST_ENTRIES = 1024,
}

local MOST_TABLES = 64 -- of one kind that are kept

--- The one that was kept last, or nil.
---@param stack table[]
---@return table?
function M.pop(stack)
  local n = #stack
  if n == 0 then return nil end
  local t = stack[n]
  stack[n] = nil
  return t
end

--- Keeps a table that nobody looks at any more, as it is.
---@param stack table[]
---@param t table
function M.push(stack, t)
  local n = #stack
  if n < MOST_TABLES then stack[n + 1] = t end
end

--- An empty table.
---@param stack table[]
---@return table
function M.take(stack) return M.pop(stack) or {} end

--- Takes a table that nobody looks at any more, whatever is in it.
---@param stack table[]
---@param t table
function M.give(stack, t)
  clear(t)
  M.push(stack, t)
end

return M
