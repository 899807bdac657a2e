-- SPDX-License-Identifier: MIT
-- Flushing: hooks, rows for the engine, and bringing the entities up to date with what was written.

local allot = require "regolith.allot"
local errors = require "regolith.err"
local expect = require "regolith.expect"
local hooks = require "regolith.hooks"
local inverse = require "regolith.inverse"
local native = require "regolith.native"
local options = require "regolith.options"
local record = require "regolith.record"
local shards = require "regolith.shards"
local undo = require "regolith.undo"
local write_rows = require "regolith.codec.write"
local new_table = require "table.new"

local C, ffi, err = native.C, native.ffi, native.err
local INSERT, UPDATE, DELETE = tonumber(C.RG_INSERT), tonumber(C.RG_UPDATE), tonumber(C.RG_DELETE)
--- A row that is only compared.
local COMPARE = 0
local NAMES = { [INSERT] = "insert", [UPDATE] = "update", [DELETE] = "delete" }
--- What rg_op_flush_add says of an update that changes nothing.
local UNCHANGED = -1000
local MAX_ROUNDS = 100

local M = {}

local function type_of(self, e) return self._types[record.type_of(e).entity] end

--- The error of a builder or of adding an item, with the entity concerned.
local function entity_error(S, e)
  local fault = errors.from_c(err)
  fault.entity, fault.row = S.T.name, e
  return fault
end

--- Values of all columns by path.
function M.values(S, e)
  local values = {}
  for _, column in ipairs(S.T.entity.columns) do values[column.path] = record.read(e, column.access) end
  return values
end

-- ---- entities and rows --------------------------------------------------------------------------

--- Gives the entity exactly the values of a row.
function M.reset(S, e, row)
  local now = S.decode(row)
  for _, node in ipairs(S.T.entity.nodes) do rawset(e, node.key, now[node.key]) end
  rawset(e, "id", now.id)
end

--- Moves a managed entity to the place of a row just pinned.
function M.move(self, S, e, place, view)
  C.rg_session_repin(self._c, place - 1, nil)
  self._at[place] = nil
  place = view.slot + 1
  self._at[place] = e
  S.places[e.id] = place
  if place > self._top then self._top = place end
end

--- Where an entity with that id is that waits to be deleted, or nil: a new one may have had its id.
local function doomed_place(self, S, id)
  for place, e in pairs(self._at) do
    if self._doomed[e] and rawget(e, "id") == id and record.type_of(e) == S.T then return place end
  end
end

--- Drops an entity from the session.
function M.forget(self, S, e, place)
  if place < 0 then
    self._new[-place], self._fresh[e] = false, nil
  else
    self._at[place] = nil
    C.rg_session_repin(self._c, place - 1, nil)
  end
  local id = rawget(e, "id")
  if id ~= nil and S.places[id] == place then
    S.places[id] = place < 0 and self._n_doomed > 0 and doomed_place(self, S, id) or nil
  end
end

function M.discard(self, S, e, place)
  if place < 0 then return M.forget(self, S, e, place) end
  C.rg_session_row(self._c, place - 1, self._view)
  M.reset(S, e, self._view.data)
  self._doomed[e] = nil
  S.places[e.id] = place
end

--- Fills the type's builder from an entity; base is its row, or nil for an insert.
local function encode(S, e, base)
  local builder = S.T.builder
  C.rg_builder_reset(builder)
  if S.T.encode(builder, e, base) < 0 then return nil, entity_error(S, e) end
  return builder
end

local function encode_managed(self, S, e, place)
  C.rg_session_row(self._c, place - 1, self._view)
  return encode(S, e, self._view.data)
end

--- Would an update of the entity change its row?
local function differs(self, S, e, place)
  local builder, fault = encode_managed(self, S, e, place)
  if not builder then return nil, fault end
  local rc = C.rg_session_differs(self._c, place - 1, builder, err)
  if rc < 0 then return nil, entity_error(S, e) end
  return rc == 1
end

local columns_out = ffi.new "uint32_t[4096]"

local function item_columns(op, item, T)
  local columns = {}
  for i = 0, math.min(C.rg_op_flush_changed(op, item, columns_out, 4096), 4096) - 1 do
    columns[i + 1] = T.columns[columns_out[i]]
  end
  return columns
end

--- Tells the operation what has to hold of the row that comes next: what was asked for the entity, else
--- for all.
local function add_expectation(self, op, S, e, place)
  local wanted = self._expected[e] or self._expected_of_all
  if not wanted then return 0 end
  C.rg_session_row(self._c, place - 1, self._view)
  return expect.stage(op, S, wanted.what, wanted.by_value, nil, self._view.data)
end

--- Adds an update to an operation: its number, UNCHANGED, or nil and the error.
local function add_update(self, op, S, e, place, values)
  local builder, fault = encode_managed(self, S, values, place)
  if not builder then
    fault.row = e
    return nil, fault
  end
  local number = S.number
  if not number then number, fault = shards.of_entity(S, e, values) end
  if not number then return nil, fault end
  local item = C.rg_op_flush_add(op, UPDATE, number, builder, place - 1, err)
  if item < 0 and item ~= UNCHANGED then return nil, entity_error(S, e) end
  return item
end

--- Columns in which a managed entity differs from its row.
function M.changed_columns(self, S, e, place)
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, 0, err))
  if not op then return nil, fault end
  local item
  item, fault = add_update(self, op, S, e, place, e)
  if not item then return nil, fault end
  if item == UNCHANGED then return {} end
  return item_columns(op, item, S.T)
end

-- ---- hooks --------------------------------------------------------------------------------------

--- Entities in deletion order.
local function doomed_list(self)
  local list = {}
  for e in pairs(self._doomed) do list[#list + 1] = e end
  table.sort(list, function(a, b) return self._doomed[a] < self._doomed[b] end)
  return list
end

--- One pass over what is pending; asks the hooks that were not asked yet. How many were asked.
local function ask_round(self, asked)
  local n = 0
  local function ask(S, write, e)
    if not self._undo then
      local fault
      self._undo, fault = undo.note(self)
      if fault then return nil, fault end
    end
    asked[e] = true
    n = n + 1
    return hooks.before(S.T, write, e, self)
  end
  for k = 1, self._n_fresh do
    local e = self._new[k]
    if e and not asked[e] and hooks.has_before(type_of(self, e).T, "insert") then
      local ok, fault = ask(type_of(self, e), "insert", e)
      if not ok then return nil, fault end
    end
  end
  for place = 1, self._top do
    local e = self._at[place]
    local S = e and not asked[e] and not self._doomed[e] and type_of(self, e)
    if S and hooks.has_before(S.T, "update") then
      local changed, fault = differs(self, S, e, place)
      if changed then changed, fault = ask(S, "update", e) end
      if changed == nil then return nil, fault end
    end
  end
  for _, e in ipairs(doomed_list(self)) do
    if not asked[e] and hooks.has_before(type_of(self, e).T, "delete") then
      local ok, fault = ask(type_of(self, e), "delete", e)
      if not ok then return nil, fault end
    end
  end
  return n
end

--- Asks all hooks, those of entities that hooks have made or changed too.
local function ask_hooks(self)
  if not self._hooked then return true end
  local asked = {}
  for _ = 1, MAX_ROUNDS do
    local n, fault = ask_round(self, asked)
    if not n then return nil, fault end
    if n == 0 then return true end
  end
  return nil, errors.new("HOOK", "hooks make new entities without end")
end

-- ---- the operation ------------------------------------------------------------------------------

--- What the items of an operation stand for, by number from 1 (the engine counts from 0).
---@class regolith.Items
---@field n integer
---@field S regolith.SessionType[]
---@field e table[]
---@field write integer[]
---@field place integer[]
---@param n integer how many there will be, at least
local function new_items(n)
  return {
    n = 0, S = new_table(n, 0), e = new_table(n, 0), write = new_table(n, 0), place = new_table(n, 0), values = nil,
  }
end

local function add_item(items, S, e, write, place)
  local n = items.n + 1
  items.n, items.S[n], items.e[n], items.write[n], items.place[n] = n, S, e, write, place
end

local function add_inserts(self, op, items)
  local new = self._new
  for k = 1, self._n_fresh do
    local e = new[k]
    if e then
      local S = type_of(self, e)
      local builder, fault = encode(S, e, nil)
      local number = S.number
      if builder and not number then number, fault = shards.of_entity(S, e, e) end
      if not builder or not number then return nil, fault end
      if C.rg_op_flush_add(op, INSERT, number, builder, -1, err) < 0 then return nil, entity_error(S, e) end
      add_item(items, S, e, INSERT, -k)
    end
  end
  return true
end

--- What says the same as the row, in other words, takes the row's.
local function take_forms(self, S, e, place)
  local take = write_rows.loose and S.refresh or S.T.form
  if not take then return end
  C.rg_session_row(self._c, place - 1, self._view)
  take(e, self._view.data)
end

local function add_updates(self, op, items)
  for place = 1, self._top do
    local e = self._at[place]
    if e and not self._doomed[e] then
      local S = type_of(self, e)
      if self._expected and add_expectation(self, op, S, e, place) < 0 then return nil, entity_error(S, e) end
      write_rows.loose = false
      local item, fault = add_update(self, op, S, e, place, e)
      if not item then return nil, fault end
      if item == UNCHANGED then
        take_forms(self, S, e, place)
      else
        local write = self._expected and C.rg_op_flush_changed(op, item, columns_out, 0) == 0 and COMPARE or UPDATE
        add_item(items, S, e, write, place)
      end
    end
  end
  return true
end

local function add_deletes(self, op, items)
  for _, e in ipairs(doomed_list(self)) do
    local S, place = self:_need(e, 4)
    if self._expected and self._expected[e] and add_expectation(self, op, S, e, place) < 0 then
      return nil, entity_error(S, e)
    end
    local number = S.number or shards.number(S.shards, e.id)
    if C.rg_op_flush_add(op, DELETE, number, nil, place - 1, err) < 0 then return nil, entity_error(S, e) end
    add_item(items, S, e, DELETE, place)
  end
  return true
end

--- Everything pending as one operation; items by number, from 0.
local function build(self, async)
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, async and 1 or 0, err))
  if not op then return nil, fault end
  local items = new_items(self._n_fresh + self._n_doomed)
  local ok
  ok, fault = add_inserts(self, op, items)
  if ok then ok, fault = add_updates(self, op, items) end
  if ok and self._n_doomed > 0 then ok, fault = add_deletes(self, op, items) end
  if not ok then return nil, fault end
  return op, items
end

-- ---- afterwards ---------------------------------------------------------------------------------

--- Drops what the session had of a row that others have deleted since, now that there is another one.
local function drop_ghost(self, place)
  self._at[place] = nil
  C.rg_session_repin(self._c, place - 1, nil)
end

local function settle_insert(self, op, i, S, e, was)
  local old_id, view = rawget(e, "id"), self._view
  C.rg_op_flush_row(op, i - 1, self._c, view)
  if old_id ~= nil and S.places[old_id] == was then S.places[old_id] = nil end
  self._fresh[e] = nil
  S.T.settle(e, view.data)
  local place, known = view.slot + 1, S.places[e.id]
  if known and known > 0 and known ~= place then drop_ghost(self, known) end
  self._at[place], S.places[e.id] = e, place
  if place > self._top then self._top = place end
end

--- Takes over what the operation has written.
local function settle(self, op, items)
  for i = 1, items.n do
    local S, e, write, place = items.S[i], items.e[i], items.write[i], items.place[i]
    if write == INSERT then
      settle_insert(self, op, i, S, e, place)
    elseif write == UPDATE then
      C.rg_op_flush_row(op, i - 1, self._c, self._view)
      S.refresh(e, self._view.data)
    elseif write == DELETE then
      M.forget(self, S, e, place)
      self._doomed[e] = nil
    end
  end
  self:_forget_new()
  self._n_doomed = 0
end

--- after_* hooks; what they raise is reported, not returned as a failure: the rows are written.
local function tell_hooks(self, items)
  local failures
  for i = 1, items.n do
    local T = items.S[i].T
    local ok, fault = true, nil
    if self._hooked and next(T.hooks) and items.write[i] ~= COMPARE then
      ok, fault = hooks.run(T, "after_" .. NAMES[items.write[i]], items.e[i], self)
    end
    if not ok then
      failures = failures or {}
      failures[#failures + 1] = fault
      errors.report(self._orm._on_error, fault)
    end
  end
  return failures
end

local view = ffi.new "rg_view"

--- What an expectation has met: the row as it is, and where it differs.
local function tell_conflict(op, fault, at, S)
  if C.rg_op_item_current(op, at - 1, view) ~= 1 then return end
  fault.current, fault.differs = setmetatable(S.decode(view.data), nil), {}
  for i = 0, math.min(C.rg_op_item_differs(op, at - 1, columns_out, 4096), 4096) - 1 do
    fault.differs[i + 1] = S.T.columns[columns_out[i]].path
  end
end

--- The error of a failed flush, naming the entity of the item at fault.
local function flush_error(op, fault, items)
  local at = C.rg_op_error(op).item + 1
  if items.e[at] then
    fault.row = items.e[at]
    fault.entity = fault.entity or items.S[at].T.name
    tell_conflict(op, fault, at, items.S[at])
  end
  return fault
end

local OPTIONS = { cas = options.one_of "changes" }
local ASYNC = { cas = OPTIONS.cas, durability = options.one_of("fast", "replica", "fsync", "sync"),
  on_split = options.one_of("refuse", "sync"), delay_ms = options.integer(1, 4294967295), at = function(v)
    if type(v) ~= "number" or v <= 0 or v >= 1e11 then return "must be a time in seconds since 1970" end
  end }
local DURABLE = { fast = C.RG_DURABLE_FAST, replica = C.RG_DURABLE_REPLICA, fsync = C.RG_DURABLE_FSYNC,
  sync = C.RG_DURABLE_SYNC }
local SPLIT = { refuse = C.RG_SPLIT_REFUSE, sync = C.RG_SPLIT_SYNC }

local OF_ALL = { what = expect.changes, by_value = false }

--- What is delayed is compared with nothing but the version of its rows, and is not written at once.
local function check_delay(opts)
  if opts.at and opts.delay_ms then error("flush_async: either 'at' or 'delay_ms'", 5) end
  if (opts.at or opts.delay_ms) and (opts.durability == "sync" or opts.cas) then
    error("flush_async: a flush with cas, or with durability 'sync', cannot be delayed", 5)
  end
end

local function take_options(self, async, opts)
  options.require(async and "flush_async" or "flush", opts, async and ASYNC or OPTIONS, 5)
  if async then check_delay(opts) end
  if not opts.cas then return end
  self._expected, self._expected_of_all = self._expected or {}, OF_ALL
end

--- What hooks have done stands, or is put back for the next flush to ask them again.
local function end_hooks(self, written)
  local noted = self._undo
  if not noted then return end
  self._undo = nil
  if written then undo.drop(self, noted) else undo.back(self, noted, M) end
end

local function run_flush(self, async, how)
  local ok, fault = allot.all(self)
  if ok then ok, fault = ask_hooks(self) end
  if ok then ok, fault = allot.all(self) end -- of those that hooks have made
  if not ok then return errors.results(fault) end
  local op, items = build(self, async)
  if not op then return errors.results(items) end
  local n = items.n
  if n == 0 then
    self:_forget_new()
    return true, 0
  end
  ok, fault = inverse.note(self, items, DELETE)
  if not ok then return errors.results(fault) end
  if async and how and (how.at or how.delay_ms) then
    C.rg_op_flush_later(op, how.at and math.floor(how.at * 1000) or 0, how.delay_ms or 0)
  end
  if async and how then C.rg_op_flush_how(op, DURABLE[how.durability] or 0, SPLIT[how.on_split] or 0) end
  ok, fault = self:_run(op, 4)
  local queued = ok or fault.code == "DURABILITY" -- it is, though not as safely as was asked for
  if not queued then return errors.results(flush_error(op, fault, items)) end
  end_hooks(self, true)
  settle(self, op, items)
  if async then self._stream_id = C.rg_op_stream_id(op) ~= nil and ffi.string(C.rg_op_stream_id(op)) or nil end
  native.done(op)
  for i = 1, self._expected and n or 0 do
    if items.write[i] == COMPARE then n = n - 1 end
  end
  if not ok then
    fault.queued, fault.stream_id = true, self._stream_id
    return errors.results(fault)
  end
  return true, n, items
end

--- db:flush() and db:flush_async().
function M.run(self, async, opts)
  if self._flushing then error("flush is called within a hook of a flush", 3) end
  if self._busy then error("the session is in use by another coroutine", 3) end
  if opts then take_options(self, async, opts) end
  self._flushing = true
  local called, ok, n, items = pcall(run_flush, self, async, opts)
  self._flushing, self._expected_of_all = false, nil
  end_hooks(self, called and ok)
  if not called then error(ok, 0) end
  if not ok then return errors.results(n) end
  self._expected = nil
  return true, n, items and tell_hooks(self, items)
end

--- A new entity was written as an item of an operation.
function M.settle_insert(self, op, item, S, e)
  local number = self._fresh[e]
  settle_insert(self, op, item + 1, S, e, -number)
  self._new[number] = false
end

--- Writes one new entity by itself.
---@return true? ok
---@return regolith.Err? err
function M.insert(self, S, e)
  local allotted, why = allot.all(self)
  if not allotted then return nil, why end
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, 0, err))
  if not op then return nil, fault end
  local builder
  builder, fault = encode(S, e, nil)
  if not builder then return nil, fault end
  local to = S.number
  if not to then to, fault = shards.of_entity(S, e, e) end
  if not to then return nil, fault end
  if C.rg_op_flush_add(op, INSERT, to, builder, -1, err) < 0 then return nil, entity_error(S, e) end
  local items, number = new_items(1), self._fresh[e]
  add_item(items, S, e, INSERT, -number)
  local ok
  ok, fault = inverse.note(self, items, DELETE)
  if not ok then return nil, fault end
  ok, fault = self:_run(op, 4)
  if not ok then return nil, flush_error(op, fault, items) end
  M.settle_insert(self, op, 0, S, e)
  tell_hooks(self, items)
  return true
end

--- db:update(): writes one entity from a shadow that has the new values. true when something changed,
--- false when not, nil and the error.
function M.update(self, S, e, place, shadow)
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, 0, err))
  if not op then return nil, fault end
  local item
  item, fault = add_update(self, op, S, e, place, shadow)
  if not item then return nil, fault end
  if item == UNCHANGED then return false end
  local columns = item_columns(op, item, S.T)
  local items = new_items(1)
  add_item(items, S, e, UPDATE, place)
  items.values = { shadow }
  local ok
  ok, fault = inverse.note(self, items, DELETE)
  if not ok then return nil, fault end
  ok, fault = self:_run(op, 4)
  if not ok then return nil, flush_error(op, fault, items) end
  C.rg_op_flush_row(op, item, self._c, self._view)
  local now = S.decode(self._view.data)
  for _, column in ipairs(columns) do record.write(e, column.access, record.read(now, column.access)) end
  tell_hooks(self, items)
  return true
end

return M
