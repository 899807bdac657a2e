-- SPDX-License-Identifier: MIT
-- Administration: schema, caches, queues and their dead letters, health.

local entities = require "regolith.entity"
local errors = require "regolith.err"
local inverse = require "regolith.inverse"
local native = require "regolith.native"
local options = require "regolith.options"
local shards = require "regolith.shards"
local sql = require "regolith.sql"
local suggest = require "regolith.suggest"
local write = require "regolith.codec.write"

local C, ffi, err = native.C, native.ffi, native.err
local queue_name = options.queue

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
local function apply(self, change, progress, i, n)
  local op, fault = self:_do(C.rg_op_schema_apply(self._engine, change.pool, change.sql, #change.sql, err))
  if not op and is_made(self, change) then fault = nil end
  if fault then fault.message = string.format("table '%s' (%s): %s", change.table, change.kind, fault.message) end
  if progress then progress(change, fault, i, n) end
  return fault == nil, fault
end

local function invalidate(self, number, ids)
  if ids and #ids == 0 then return 0 end
  local op = C.rg_op_invalidate(self._engine, number, err)
  if op == nil then return nil, errors.from_c(err) end
  op = native.ffi.gc(op, C.rg_op_free)
  for _, id in ipairs(ids or {}) do
    if C.rg_op_add_id(op, id, err) < 0 then return nil, errors.from_c(err) end
  end
  local ok, fault = self:_run(op)
  if not ok then return nil, fault end
  return C.rg_op_number(op)
end

local SLOW = { limit = options.integer(1, 128) }
local DIFF = { progress = options.func }
local APPLY = { destructive = options.boolean, progress = options.func }

local function set_paused(self, queue, paused)
  local op, fault = self:_do(C.rg_op_queue_pause(self._engine, queue, paused, err))
  if not op then return errors.results(fault) end
  return true
end

local WRITES = { insert = C.RG_INSERT, update = C.RG_UPDATE, delete = C.RG_DELETE }
local EDIT = { values = options.table, operation = options.one_of("insert", "update", "delete"),
  force = options.boolean }

--- Letters name entities, not their shards.
local function plain_letter(letter)
  letter.entity, letter.error = errors.entity_name(letter.entity), errors.plain(letter.error)
  return letter
end

--- Fills the builder of a letter's entity with new values; raises for fields that it does not have.
local function fill(self, letter, values)
  local entity = self._by_name[letter.entity]
  if not entity then return nil, errors.new("INVALID", "the letter's entity is not among those of this orm") end
  local T = self._types[entity]
  C.rg_builder_reset(T.builder)
  for path, v in pairs(values) do
    local column = entity.by_path[path]
    if not column then
      error(string.format("edit: %s has no field '%s'%s", entity.name, tostring(path),
        suggest.hint(path, entity.by_path)), 3)
    end
    if write.put(T.builder, column, v, T, nil) < 0 then return nil, errors.from_c(err) end
  end
  return T.builder
end

---@param Orm table
function M.install(Orm)
  -- ---- schema ----

  --- What the live databases lack, or have too much, to be as the entities say.
  ---@return { pool: string, table: string, kind: string, safe: boolean, sql: string, reason: string }[]? changes
  --- With `progress` pool by pool, telling it which comes next.
  ---@param opts? { progress: fun(pool: string, i: integer, n: integer)? }
  ---@return regolith.Err? err
  function Orm:schema_diff(opts)
    local progress, all = options.require("schema_diff", opts, DIFF).progress, {}
    for i, pool in ipairs(progress and self._pools or { false }) do
      if progress then progress(pool, i, #self._pools) end
      local op = pool and C.rg_op_schema_diff_of(self._engine, pool, err) or C.rg_op_schema_diff(self._engine, err)
      local changes, fault = rows_of(self, op)
      if not changes then return errors.results(fault) end
      for _, change in ipairs(changes) do
        change.safe = change.safe == 1
        all[#all + 1] = change
      end
    end
    return all
  end

  --- Applies the differences, the destructive ones only when asked to. Stops at the first failure.
  ---@param opts? { destructive: boolean?, progress: fun(change: table, err: regolith.Err?, i: integer, n: integer)? }
  ---@return { applied: table[], skipped: table[] }? result
  ---@return regolith.Err? err
  function Orm:schema_apply(opts)
    opts = options.require("schema_apply", opts, APPLY)
    local changes, fault = self:schema_diff()
    if not changes then return errors.results(fault) end
    local result, chosen = { applied = {}, skipped = {} }, {}
    for _, change in ipairs(changes) do
      local list = (change.safe or opts.destructive) and chosen or result.skipped
      list[#list + 1] = change
    end
    for i, change in ipairs(chosen) do
      local ok
      ok, fault = apply(self, change, opts.progress, i, #chosen)
      if not ok then return errors.results(fault) end
      result.applied[i] = change
    end
    return result
  end

  -- ---- shards ----

  --- Which shard a row with this id is on: its number and its pool, or nil when on none.
  ---@param entity regolith.Entity
  ---@param id number
  ---@return integer? shard
  ---@return string? pool
  function Orm:shard_of(entity, id)
    local T = self._types[entity]
    if not T or not T.shards then error("an entity of this orm that has shards is expected", 2) end
    if type(id) ~= "number" then error("an id is a number", 2) end
    local k = shards.of_id(T.shards, id)
    if k then return k, T.shards.pools[k] end
  end

  --- Writes the inverses of rows down that are older than the option, or that other programs wrote. Safe
  --- to run at any time, and again.
  ---@param entity regolith.Entity
  ---@param progress? fun(shard: integer, n: integer, looked_at: integer)
  ---@return integer? looked_at
  ---@return regolith.Err? err
  function Orm:rebuild_inverses(entity, progress)
    local T = self._types[entity]
    if not T or not T.shards then error("an entity of this orm that has shards is expected", 2) end
    return inverse.rebuild(self, entity, progress)
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
    if ids ~= nil and type(ids) ~= "table" then error("invalidate takes a list of ids", 2) end
    if ids then options.length("invalidate", ids) end
    for _, id in ipairs(ids or {}) do
      if type(id) ~= "number" or id < 1 or id % 1 ~= 0 then error("ids are whole numbers from 1 on", 2) end
    end
    local dropped, groups = 0, ids and shards.group(T, ids)
    for _, number in ipairs(shards.numbers(T)) do
      local n, fault = 0, nil
      if not groups or groups[number] then n, fault = invalidate(self, number, groups and groups[number]) end
      if not n then return errors.results(fault) end
      dropped = dropped + n
    end
    return dropped
  end

  --- What took longer than `slow_ms` (100; see regolith.open), the latest first: number, started (seconds
  --- since 1970), duration (seconds), source ("mysql", "redis"), pool, op, text (values are never shown), rows,
  --- code of its error. The last 128 of this process are kept.
  ---@param opts? { limit: integer? }
  ---@return table[] slow
  function Orm:slow(opts)
    local limit = options.require("slow", opts, SLOW).limit or 128
    local list, before = {}, 0
    local slot = ffi.new "rg_slow_event"
    while #list < limit and C.rg_engine_slow(self._engine, before, slot) == 1 do
      before = slot.number
      list[#list + 1] = {
        number = slot.number, started = slot.started, duration = slot.duration,
        source = slot.source == 1 and "mysql" or "redis", pool = ffi.string(slot.pool), op = ffi.string(slot.op),
        text = ffi.string(slot.text), rows = slot.rows >= 0 and slot.rows or nil,
        code = slot.code < 0 and ffi.string(C.rg_code_name(slot.code)) or nil,
      }
    end
    return list
  end

  --- Health of each pool: each is asked.
  ---@param timeout_ms? integer
  ---@return { kind: string, name: string, ok: boolean, busy: number, idle: number, error: string? }[]? pools
  ---@return regolith.Err? err
  function Orm:health(timeout_ms)
    options.argument("health: timeout_ms", timeout_ms, options.timeout_ms)
    local pools, fault = rows_of(self, C.rg_op_health(self._engine, err), timeout_ms)
    if not pools then return errors.results(fault) end
    for _, pool in ipairs(pools) do pool.ok = pool.ok == 1 end
    return pools
  end

  -- ---- queues ----

  --- One row a queue: queue, stream, length, oldest_ms, ledger, applied, dead.
  ---@param timeout_ms? integer
  ---@return table[]? queues
  ---@return regolith.Err? err
  function Orm:queues(timeout_ms)
    options.argument("queues: timeout_ms", timeout_ms, options.timeout_ms)
    local queues, fault = rows_of(self, C.rg_op_queue_status(self._engine, err), timeout_ms)
    if not queues then return errors.results(fault) end
    for _, queue in ipairs(queues) do queue.paused = queue.paused == 1 end
    return queues
  end

  --- Has consumers apply again what was queued from a time (seconds since 1970) or a stream id on: for a
  --- database that was restored without its ledger. It has to be kept (retain_s of the queue). How many
  --- partitions go back.
  ---@param from number|string
  ---@param queue? string ["default"]
  ---@return number? partitions
  ---@return regolith.Err? err GAP when entries since then are gone
  function Orm:replay(from, queue)
    queue = queue_name("replay", queue)
    local id = from
    if type(from) == "number" and from > 0 then id = string.format("%.0f-0", math.floor(from * 1000)) end
    if type(id) ~= "string" or not id:match "^%d+%-%d+$" then
      error("replay takes a time in seconds since 1970, or the id of an entry", 2)
    end
    return number_of(self, C.rg_op_queue_replay(self._engine, queue, id, err))
  end

  --- Has every consumer leave a queue alone until resume(): when this returns, none is in the middle of a
  --- batch. Flushes go on queueing.
  ---@param queue? string ["default"]
  ---@return true? ok
  ---@return regolith.Err? err
  function Orm:pause(queue) return set_paused(self, queue_name("pause", queue), 1) end

  --- Lets the consumers of a queue go on.
  ---@param queue? string ["default"]
  ---@return true? ok
  ---@return regolith.Err? err
  function Orm:resume(queue) return set_paused(self, queue_name("resume", queue), 0) end

  --- What is unfit about the Redis of each queue: queue, fault ("persistence", or "lost": it came back without
  --- flushes that it had acknowledged to this process), text.
  ---@return { queue: string, fault: string, text: string }[]? warnings
  ---@return regolith.Err? err
  function Orm:queue_warnings() return rows_of(self, C.rg_op_queue_warnings(self._engine, err)) end

  --- Accepts that entries are gone which MySQL has not seen (GAP): goes on behind them.
  ---@param queue? string ["default"]
  ---@return number? partitions that had a gap
  ---@return regolith.Err? err
  function Orm:accept_gap(queue)
    queue = queue_name("accept_gap", queue)
    return number_of(self, C.rg_op_accept_gap(self._engine, queue, err))
  end

  --- Dead letters of a queue, oldest first.
  ---@param queue? string ["default"]
  ---@param limit? integer [100]
  ---@return table[]? letters
  ---@return regolith.Err? err
  function Orm:dead_letters(queue, limit)
    queue = queue_name("dead_letters", queue)
    if limit ~= nil and options.integer(1)(limit) then error("a limit is a whole number from 1 on", 2) end
    local letters, fault, errno, sqlstate = rows_of(self, C.rg_op_dead_list(self._engine, queue,
      limit or 0, err))
    for _, letter in ipairs(letters or {}) do plain_letter(letter) end
    return letters, fault, errno, sqlstate
  end

  --- One dead letter with its values (member `values`: column -> value; `columns`: their names, those of NULLs
  --- too), or nil. One that has met
  --- another row than was expected has that row in `current`.
  ---@param number integer
  ---@param queue? string
  ---@return table? letter
  ---@return regolith.Err? err
  function Orm:dead_letter(number, queue)
    queue = queue_name("dead_letter", queue)
    check_number("dead_letter", number, 2)
    local op, fault = self:_do(C.rg_op_dead_show(self._engine, queue, number, err))
    if not op then return errors.results(fault) end
    local letter = sql.rows(op, 0)[1]
    if not letter then return nil end
    plain_letter(letter)
    letter.values, letter.columns = {}, {}
    for i, row in ipairs(C.rg_op_sets(op) > 1 and sql.rows(op, 1) or {}) do
      letter.values[row.column], letter.columns[i] = row.value, row.column
    end
    for _, row in ipairs(C.rg_op_sets(op) > 2 and sql.rows(op, 2) or {}) do
      letter.current = letter.current or {}
      letter.current[row.column] = row.value
    end
    return letter
  end

  --- Applies a dead letter again, or all of them in order. The number of those that are left.
  ---@param number integer|"all"
  ---@param queue? string
  ---@return number? left
  ---@return regolith.Err? err
  function Orm:retry(number, queue)
    queue = queue_name("retry", queue)
    if number ~= "all" then check_number("retry", number, 2) end
    return number_of(self, C.rg_op_dead_retry(self._engine, queue, number == "all" and 0 or number, err))
  end

  --- Changes a dead letter before it is applied again: its values (by field path; the others stay), its
  --- operation, or with `force` the version that its row must have. What it needs is checked by the
  --- entity's types, and wrong values are an error (INVALID, with the field).
  ---@param number integer
  ---@param change { values: table<string, any>?, operation: "insert"|"update"|"delete"|nil, force: boolean? }
  ---@param queue? string
  ---@return true? ok
  ---@return regolith.Err? err
  function Orm:edit(number, change, queue)
    queue = queue_name("edit", queue)
    check_number("edit", number, 2)
    change = options.require("edit", change, EDIT)
    local builder
    if change.values then
      local letter, fault = self:dead_letter(number, queue)
      if not letter then return errors.results(fault) end
      builder, fault = fill(self, letter, change.values)
      if not builder then return errors.results(fault) end
    end
    local op, fault = self:_do(C.rg_op_dead_edit(self._engine, queue, number,
      WRITES[change.operation] or 0, builder, change.force and 1 or 0, err))
    if not op then return errors.results(fault) end
    return true
  end

  --- Drops a dead letter, or all of them, and mends the cache. The number of those that are left.
  ---@param number integer|"all"
  ---@param queue? string
  ---@return number? left
  ---@return regolith.Err? err
  function Orm:drop(number, queue)
    queue = queue_name("drop", queue)
    if number ~= "all" then check_number("drop", number, 2) end
    return number_of(self, C.rg_op_dead_drop(self._engine, queue, number == "all" and 0 or number, err))
  end

  --- Waits until everything queued before this call has been applied: in a queue, or in "all".
  ---@param timeout_ms? integer for each
  ---@param queue? string ["default"]
  ---@return true? ok
  ---@return regolith.Err? err TIMEOUT
  function Orm:drained(timeout_ms, queue)
    options.argument("drained: timeout_ms", timeout_ms, options.timeout_ms)
    queue = queue_name("drained", queue)
    for _, name in ipairs(queue == "all" and self._pools or { queue }) do
      local op, fault = self:_do(C.rg_op_drained(self._engine, name, err), timeout_ms)
      if not op then return errors.results(fault) end
    end
    return true
  end
end

return M
