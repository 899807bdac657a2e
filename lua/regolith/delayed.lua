-- SPDX-License-Identifier: MIT
-- Delayed flushes that wait for their time: which there are, and giving one up.

local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local sql = require "regolith.sql"
local streams = require "regolith.events.stream"

local C, err = native.C, native.err

local M = {}

--- Rows, one an operation, as flushes.
local function flushes_of(rows)
  local list = {}
  for _, row in ipairs(rows) do
    local flush = list[#list]
    if not flush or flush.id ~= row.id then
      flush = { id = row.id, due = row.due_ms / 1000, operations = {} }
      list[#list + 1] = flush
    end
    flush.operations[row.index + 1] = { operation = row.operation, entity = errors.entity_name(row.entity),
      entity_id = row.entity_id }
  end
  return list
end

---@param Orm table
function M.install(Orm)
  --- Delayed flushes of a queue, the next one first. `id` is what db:stream_id() gave who made it, `due` seconds
  --- since 1970. What cannot be read has one operation, "entry".
  ---@param queue? string ["default"]
  ---@param limit? integer [100]
  ---@return { id: string, due: number, operations: { operation: string, entity: string, entity_id: number }[] }[]?
  ---@return regolith.Err? err
  function Orm:delayed(queue, limit)
    if limit ~= nil and options.integer(1, 4294967295)(limit) then error("a limit is a whole number from 1 on", 2) end
    local op, fault = self:_do(C.rg_op_later_list(self._engine, options.queue("delayed", queue), limit or 100, err))
    if not op then return errors.results(fault) end
    return flushes_of(sql.rows(op, 0))
  end

  --- How many flushes of a queue are delayed, and when the next one is due, in seconds since 1970.
  ---@param queue? string ["default"]
  ---@return { count: number, next_at: number? }? delayed
  ---@return regolith.Err? err
  function Orm:delayed_count(queue)
    local key = string.format("{%s}:lz:%s", self._prefix, options.queue("delayed_count", queue))
    local waiting, fault = streams.redis(self, queue, "ZCARD", key)
    local first
    if waiting then first, fault = streams.redis(self, queue, "ZRANGE", key, 0, 0, "WITHSCORES") end
    if not first then return errors.results(fault) end
    return { count = waiting, next_at = first[2] and tonumber(first[2]) / 1000 or nil }
  end

  --- Gives a delayed flush up, or all of them: it will not be queued. How many there were. One that is no longer
  --- waiting is an error (INVALID): it was queued, given up as dead letters, or cancelled before.
  ---@param id string|"all"
  ---@param queue? string ["default"]
  ---@return number? cancelled
  ---@return regolith.Err? err
  function Orm:cancel_delayed(id, queue)
    if type(id) ~= "string" or not (id == "all" or id:match "^%x+$") then
      error("cancel_delayed takes the id of a delayed flush, or 'all'", 2)
    end
    local op, fault = self:_do(C.rg_op_later_cancel(self._engine, options.queue("cancel_delayed", queue),
      id == "all" and "" or id, err))
    if not op then return errors.results(fault) end
    return C.rg_op_number(op)
  end
end

return M
