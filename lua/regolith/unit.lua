-- SPDX-License-Identifier: MIT
-- The unit of work: new entities, changes, deletions, and what there is to say about them before they
-- are flushed. Writing itself is in flush.

local allot = require "regolith.allot"
local assign = require "regolith.assign"
local cas = require "regolith.cas"
local errors = require "regolith.err"
local expect = require "regolith.expect"
local flush = require "regolith.flush"
local hooks = require "regolith.hooks"
local jobs = require "regolith.job"
local native = require "regolith.native"
local options = require "regolith.options"
local record = require "regolith.record"
local retry = require "regolith.retry"
local shards = require "regolith.shards"
local spare = require "regolith.spare"
local upsert = require "regolith.upsert"

local C, err = native.C, native.err

local rawget, rawset, setmetatable = rawget, rawset, setmetatable
local cas_update, has_expression, pass = cas.update, cas.has_expression, errors.pass
local NONE = {}

local NEW = { shard = options.integer(0) }

local M = {}

--- A new entity goes by its id from now on, unless the session has that row and keeps it: then the flush will
--- say that there is one.
local function claim(self, S, id, k)
  local place = S.places[id]
  local known = place and place > 0 and self._at[place]
  if not known or self._doomed[known] then S.places[id] = -k end
end

---@param Session table
function M.install(Session)
  local need = Session._need
  cas.install(Session)
  retry.install(Session)
  upsert.install(Session)

  --- A new entity, written by the next flush. Its id is allotted at once (unless ids are the
  --- database's or the application's); when none can be had now, as the server is down, the flush allots
  --- it or says why it cannot.
  ---@param entity regolith.Entity
  ---@param values? table by field
  ---@param opts? { shard: integer? } of an entity with shards: which one
  ---@return table entity
  function Session:new(entity, values, opts)
    local S = self:_type(entity, 2)
    local shard = opts and options.require("new", opts, NEW).shard
    if shard and not S.shards then error(string.format("%s has no shards", S.T.name), 2) end
    if values ~= nil and type(values) ~= "table" then error("the values are a table by field", 2) end
    local e, all = S.make(values or NONE)
    setmetatable(e, S.mt)
    if not all then assign.others(S.T, e, values, 2) end
    local id = rawget(e, "id")
    if id == nil and allot.KINDS[entity.ids] then
      local number = S.number or S.shards.numbers[S.shards.by_id and 0 or shards.choose(S, e, shard, 2)]
      local why
      id, why = allot.next_id(self, number)
      if id then rawset(e, "id", id) else allot.later(self, e, number, why) end
    end
    local k = self._n_fresh + 1
    if self._new == spare.NONE then
      self._new, self._fresh = spare.take(self._orm._spare_new), spare.take(self._orm._spare_new)
    end
    self._n_fresh, self._fresh[e], self._new[k] = k, k, e
    if id ~= nil then claim(self, S, id, k) end
    return e
  end

  --- A new entity with the same values, but its own id.
  ---@param e table
  ---@return table copy
  function Session:copy(e)
    local T = record.type_of(e)
    if not T then error("an entity is expected", 2) end
    local values = {}
    for _, node in ipairs(T.entity.nodes) do
      local args = node.column and node.column.args or {}
      if not (args.created or args.updated or args.version) then
        values[node.key] = record.copy(rawget(e, node.key))
      end
    end
    return self:new(T.entity, values)
  end

  --- Assigns several fields; besides their names, paths ("address.city") and SQL names will do.
  ---@param e table
  ---@param values table
  ---@return table e
  function Session:set(e, values)
    local S = self:_need(e, 2)
    assign.all(S.T, e, values, 2)
    return e
  end

  --- Has the next flush delete the entity; a new one is just forgotten. With options it is deleted
  --- now, on condition, and the answer is typed.
  ---@param e table
  ---@param opts? { cas: table|string|nil }
  ---@return true|regolith.Answer|nil
  ---@return regolith.Err? err
  function Session:delete(e, opts)
    local S, place = self:_need(e, 2)
    if opts ~= nil then
      if place < 0 then error("a new entity is not deleted on condition", 2) end
      return errors.pass(cas.delete(self, S, e, place, opts, 2))
    end
    if place < 0 then
      flush.forget(self, S, e, place)
    elseif not self._doomed[e] then
      if self._doomed == spare.NONE then self._doomed = {} end
      self._n_doomed = self._n_doomed + 1
      self._doomed[e] = self._n_doomed
    end
    return true
  end

  --- Is it waiting to be inserted?
  ---@param e table
  ---@return boolean
  function Session:is_new(e)
    local _, place = self:_need(e, 2)
    return place < 0
  end

  --- Changes some fields of one entity now, in one statement, apart from what else is pending. The
  --- entity keeps its values until that has worked. Values may be expressions (regolith.increment and
  --- the like). Without options a row that is gone, or has another version, is an error.
  ---@param e table
  ---@param changes table
  ---@param opts? { cas: table|string|nil } what has to hold for the change to be made
  ---@return regolith.Answer? answer
  ---@return regolith.Err? err
  ---@return integer? errno
  ---@return string? sqlstate
  function Session:update(e, changes, opts)
    local S, place = need(self, e, 2)
    if place < 0 then error("a new entity is flushed before it is updated", 2) end
    if opts ~= nil or has_expression(changes) then
      return pass(cas_update(self, S, e, place, changes, opts, 2))
    end
    local shadow = jobs.new_shadow(self, S, place, changes, 2)
    local ok, fault = hooks.before(S.T, "update", shadow, self)
    if ok then place, fault = hooks.place_after(S.T, "update", e, self) end
    if fault then return errors.results(fault) end
    ok, fault = flush.update(self, S, e, place, shadow)
    if ok == nil then return errors.results(fault) end
    return jobs.answer(ok and "applied" or "unchanged")
  end

  --- Reads the entity anew from MySQL, past all caches; pending changes of it are lost.
  ---@param e table
  ---@return table? e nil and CONFLICT when it is gone
  ---@return regolith.Err? err
  function Session:reload(e)
    local S, place = self:_need(e, 2)
    if place < 0 then error("a new entity is flushed before it is reloaded", 2) end
    local number = S.number or shards.number(S.shards, e.id)
    local op, fault = self:_own(C.rg_op_get(self._orm._engine, number, 1, err))
    if not op then return errors.results(fault) end
    if C.rg_op_add_id(op, e.id, err) < 0 then return errors.fail(err) end
    local ok
    ok, fault = self:_run(op, 3)
    if not ok then return errors.results(fault) end
    if C.rg_op_row(op, 0, self._c, self._view) ~= C.RG_GET_HIT then
      return errors.results(errors.new("CONFLICT", string.format("%s %.0f is no longer there", S.T.name, e.id),
        { entity = S.T.name, row = e }))
    end
    flush.move(self, S, e, place, self._view)
    flush.reset(S, e, self._view.data)
    return e
  end

  --- Forgets what is pending: all of it, or of one entity. New entities are dropped, changed ones get
  --- the values of their row back, deletions are called off.
  ---@param e? table
  function Session:discard(e)
    if e ~= nil then
      local S, place = self:_find(e)
      if not S then S, place = self:_need(e, 2) end
      if self._expected then self._expected[e] = nil end
      return flush.discard(self, S, e, place)
    end
    self._expected = nil
    for k = self._n_fresh, 1, -1 do
      local new = self._new[k]
      if new then flush.discard(self, self:_need(new, 2), new, -k) end
    end
    for place = 1, self._top do
      local known = self._at[place]
      if known then flush.discard(self, self._types[record.type_of(known).entity], known, place) end
    end
    self:_forget_new()
    self._doomed, self._n_doomed = spare.NONE, 0
  end

  --- What a flush would change in the entity, or in a hook what is being changed: the old and the new values
  --- by path ("address.city"). A new entity has no old values, one to be deleted no new ones. nil when nothing
  --- would change.
  ---@param e table
  ---@return table? old
  ---@return table|regolith.Err|nil new
  function Session:dirty(e)
    local S
    local place = jobs.place_of(self, e) -- of an update, as its hooks see it
    if place then S = self._types[record.type_of(e).entity] else S, place = self:_need(e, 2) end
    if place < 0 then return {}, flush.values(S, e) end
    C.rg_session_row(self._c, place - 1, self._view)
    local row = S.decode(self._view.data)
    if self._doomed[e] then return flush.values(S, row), {} end
    local columns, fault = flush.changed_columns(self, S, e, place)
    if not columns then return errors.results(fault) end
    if #columns == 0 then return nil end
    local old, new = {}, {}
    for _, column in ipairs(columns) do
      old[column.path], new[column.path] = record.read(row, column.access), record.read(e, column.access)
    end
    return old, new
  end

  --- Writes all that is pending, in one transaction per MySQL pool. When it fails nothing has been
  --- written and the session is as before: try again, or discard.
  ---@return true? ok
  ---@param opts? { cas: "changes"? } fails when a field that is changed was changed by others, too
  ---@return integer|regolith.Err changes number of rows written, or the error
  ---@return integer|regolith.Err[]|nil failures of after_* hooks (the flush stands), or errno
  ---@return string? sqlstate
  function Session:flush(opts)
    return errors.pass(flush.run(self, false, opts))
  end

  --- Has the next flush fail as a whole unless the entity's row is as expected, whether the flush changes
  --- it or not. The error names the row, what is there now (`current`) and what is not as expected
  --- (`differs`). It comes on top of what a flush compares: the version, where the entity has one.
  ---@param e table
  ---@param what table|string as `cas` of update; for "changes" there is db:flush { cas = "changes" }
  ---@return table e
  function Session:expect(e, what)
    local S, place = self:_need(e, 2)
    if place < 0 then error("a new entity has no row to be expected", 2) end
    self._expected = self._expected or {}
    local parsed, by_value = expect.parse(S.T, what, {}, 2)
    self._expected[e] = { what = parsed, by_value = by_value }
    return e
  end

  --- Queues all that is pending; a consumer writes it to MySQL. Cached reads see it at once.
  ---@return true? ok
  ---@return integer|regolith.Err changes
  ---@return integer|regolith.Err[]|nil failures
  ---@return string? sqlstate
  ---@param opts? { durability: "fast"|"replica"|"fsync"|"sync"|nil, on_split: "refuse"|"sync"|nil,
  ---  delay_ms: integer?, at: number? } delay_ms, at (seconds since 1970): when it is queued, if not now
  function Session:flush_async(opts)
    return errors.pass(flush.run(self, true, opts))
  end

  --- Stream id of the last queued flush ("ms-seq"), or nil.
  ---@return string?
  function Session:stream_id() return self._stream_id end
end

return M
