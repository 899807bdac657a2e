-- SPDX-License-Identifier: MIT
-- Administration: schema, caches, queues and their dead letters, health.

local entities = require "regolith.entity"
local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local sql = require "regolith.sql"

local C, err = native.C, native.err

local M = {}

--- The rows of an operation's first result set, or what a failing function returns.
local function rows_of(self, op, timeout_ms)
  local fault
  op, fault = self:_do(op, timeout_ms)
  if not op then return errors.results(fault) end
  return sql.rows(op, 0)
end

local function number_of(self, op, timeout_ms)
  local fault
  op, fault = self:_do(op, timeout_ms)
  if not op then return errors.results(fault) end
  return C.rg_op_number(op)
end

local function check_number(what, number, level)
  if options.integer(1)(number) then error(what .. " takes the number of a dead letter", level + 1) end
end

--- Has somebody else made the change meanwhile? Several processes may apply a schema as they start.
local function is_made(self, change)
  local changes = self:schema_diff()
  for _, other in ipairs(changes or {}) do
    if other.pool == change.pool and other.sql == change.sql then return false end
  end
  return changes ~= nil
end

--- Applies one change; tells progress.
local function apply(self, change, progress)
  local op, fault = self:_do(C.rg_op_schema_apply(self._engine, change.pool, change.sql, #change.sql, err))
  if not op and is_made(self, change) then fault = nil end
  if progress then progress(change, fault) end
  return fault == nil, fault
end

local APPLY = { destructive = options.boolean, progress = options.func }

---@param Orm table
function M.install(Orm)
  -- ---- schema ----

  --- What the live databases lack, or have too much, to be as the entities say.
  ---@return { pool: string, table: string, kind: string, safe: boolean, sql: string, reason: string }[]? changes
  ---@return regolith.Err? err
  function Orm:schema_diff()
    local changes, fault = rows_of(self, C.rg_op_schema_diff(self._engine, err))
    if not changes then return errors.results(fault) end
    for _, change in ipairs(changes) do change.safe = change.safe == 1 end
    return changes
  end

  --- Applies the differences, the destructive ones only when asked to. Stops at the first failure.
  ---@param opts? { destructive: boolean?, progress: fun(change: table, err: regolith.Err?)? }
  ---@return { applied: table[], skipped: table[] }? result
  ---@return regolith.Err? err
  function Orm:schema_apply(opts)
    opts = options.require("schema_apply", opts, APPLY)
    local changes, fault = self:schema_diff()
    if not changes then return errors.results(fault) end
    local result = { applied = {}, skipped = {} }
    for _, change in ipairs(changes) do
      if not change.safe and not opts.destructive then
        result.skipped[#result.skipped + 1] = change
      else
        local ok
        ok, fault = apply(self, change, opts.progress)
        if not ok then return errors.results(fault) end
        result.applied[#result.applied + 1] = change
      end
    end
    return result
  end

  -- ---- caches and servers ----

  --- Drops cached rows and lookups of an entity: of some ids, or all. The number of keys dropped.
  ---@param entity regolith.Entity|string
  ---@param ids? number[]
  ---@return number? dropped
  ---@return regolith.Err? err
  function Orm:invalidate(entity, ids)
    if type(entity) == "string" then entity = self._by_name[entity] end
    local T = self._types[entity]
    if not T then
      error(entities.is(entity) and "that entity is not among those of this orm" or "an entity is expected", 2)
    end
    local op = C.rg_op_invalidate(self._engine, T.number, err)
    if op == nil then return errors.fail(err) end
    op = native.ffi.gc(op, C.rg_op_free)
    for _, id in ipairs(ids or {}) do
      if type(id) ~= "number" then error("ids are numbers", 2) end
      if C.rg_op_add_id(op, id, err) < 0 then return errors.fail(err) end
    end
    local ok, fault = self:_run(op)
    if not ok then return errors.results(fault) end
    return C.rg_op_number(op)
  end

  --- Health of each pool.
  ---@return { kind: string, name: string, ok: boolean, busy: number, idle: number, error: string? }[]? pools
  ---@return regolith.Err? err
  function Orm:health()
    local pools, fault = rows_of(self, C.rg_op_health(self._engine, err))
    if not pools then return errors.results(fault) end
    for _, pool in ipairs(pools) do pool.ok = pool.ok == 1 end
    return pools
  end

  -- ---- queues ----

  --- One row a queue: queue, stream, length, oldest_ms, ledger, applied, dead.
  ---@return table[]? queues
  ---@return regolith.Err? err
  function Orm:queues() return rows_of(self, C.rg_op_queue_status(self._engine, err)) end

  --- Dead letters of a queue, oldest first.
  ---@param queue? string ["default"]
  ---@param limit? integer [100]
  ---@return table[]? letters
  ---@return regolith.Err? err
  function Orm:dead_letters(queue, limit)
    if limit ~= nil and options.integer(1)(limit) then error("a limit is a whole number from 1 on", 2) end
    return rows_of(self, C.rg_op_dead_list(self._engine, queue or "default", limit or 0, err))
  end

  --- One dead letter with its values (member `values`: column -> value), or nil.
  ---@param number integer
  ---@param queue? string
  ---@return table? letter
  ---@return regolith.Err? err
  function Orm:dead_letter(number, queue)
    check_number("dead_letter", number, 2)
    local op, fault = self:_do(C.rg_op_dead_show(self._engine, queue or "default", number, err))
    if not op then return errors.results(fault) end
    local letter = sql.rows(op, 0)[1]
    if not letter then return nil end
    letter.values = {}
    for _, row in ipairs(C.rg_op_sets(op) > 1 and sql.rows(op, 1) or {}) do
      letter.values[row.column] = row.value
    end
    return letter
  end

  --- Applies a dead letter again, or all of them in order. The number of those that are left.
  ---@param number integer|"all"
  ---@param queue? string
  ---@return number? left
  ---@return regolith.Err? err
  function Orm:retry(number, queue)
    if number ~= "all" then check_number("retry", number, 2) end
    return number_of(self, C.rg_op_dead_retry(self._engine, queue or "default", number == "all" and 0 or number, err))
  end

  --- Drops a dead letter, or all of them, and mends the cache. The number of those that are left.
  ---@param number integer|"all"
  ---@param queue? string
  ---@return number? left
  ---@return regolith.Err? err
  function Orm:drop(number, queue)
    if number ~= "all" then check_number("drop", number, 2) end
    return number_of(self, C.rg_op_dead_drop(self._engine, queue or "default", number == "all" and 0 or number, err))
  end

  --- Waits until everything queued before this call has been applied.
  ---@param timeout_ms? integer
  ---@param queue? string
  ---@return true? ok
  ---@return regolith.Err? err TIMEOUT
  function Orm:drained(timeout_ms, queue)
    local op, fault = self:_do(C.rg_op_drained(self._engine, queue or "default", err), timeout_ms)
    if not op then return errors.results(fault) end
    return true
  end
end

return M
