-- SPDX-License-Identifier: MIT
-- One write with an outcome of its own: what is to be written, as an item of an operation, and its answer. In
-- what order such writes are run is in batch.

local assign = require "regolith.assign"
local errors = require "regolith.err"
local expect = require "regolith.expect"
local flush = require "regolith.flush"
local hooks = require "regolith.hooks"
local literal = require "regolith.literal"
local native = require "regolith.native"
local record = require "regolith.record"
local shards = require "regolith.shards"
local sql = require "regolith.sql"
local write = require "regolith.codec.write"

local C, ffi, err = native.C, native.ffi, native.err
local INSERT, UPDATE, DELETE = tonumber(C.RG_INSERT), tonumber(C.RG_UPDATE), tonumber(C.RG_DELETE)
local EACH, APPLIED = tonumber(C.RG_FLUSH_EACH), tonumber(C.RG_OUTCOME_APPLIED)
local put, next, rawset, setmetatable, type = write.put, next, rawset, setmetatable, type
local parse, stage, is_literal = expect.parse, expect.stage, literal.is
--- What rg_op_flush_add says of an update that changes nothing.
local UNCHANGED = -1000
local OUTCOMES = {
  [tonumber(C.RG_OUTCOME_APPLIED)] = "applied", [tonumber(C.RG_OUTCOME_UNCHANGED)] = "unchanged",
  [tonumber(C.RG_OUTCOME_CONFLICT)] = "conflict", [tonumber(C.RG_OUTCOME_MISSING)] = "missing",
  [tonumber(C.RG_OUTCOME_UNKNOWN)] = "unknown", [tonumber(C.RG_OUTCOME_FAILED)] = "failed",
}
local MAX_COLUMNS = 4096
local numbers = ffi.new("uint32_t[?]", MAX_COLUMNS)
local NONE = {}
--- Places of the rows that entities as they will be were made from.
local shadows = setmetatable({}, { __mode = "k" })

---@class regolith.Answer
---@field outcome "applied"|"unchanged"|"conflict"|"missing"|"unknown"|"failed"
---@field applied boolean? the row was written
---@field unchanged boolean? all was as expected, and there was nothing to change
---@field conflict boolean? the row is not as expected; nothing was written
---@field missing boolean? there is no such row
---@field unknown boolean? the connection was lost and it may have been done; `err` says more
---@field failed boolean? (of many at once) `err` says why
---@field changed boolean something was written
---@field row table? conflict: the values of the row as it is now
---@field differs string[]? conflict: the fields that are not as expected
---@field err regolith.Err? unknown, failed
---@field failures regolith.Err[]? of the hooks that ran afterwards

---@class regolith.Job
---@field S regolith.SessionType
---@field e table
---@field place integer
---@field write integer
---@field changes table of an update: values by name, as they were given
---@field expect table|false what has to hold
---@field by_value boolean `expect` is a table of values by name
---@field more regolith.JobMore|false
---@field item integer its number in the operation; -1: none
---@field answer regolith.Answer|false

---@class regolith.JobMore what few writes have
---@field shadow table? an update's new values, when hooks see them
---@field exprs table<regolith.Column, regolith.Expression>?
---@field again string[]? names that are written even when they keep their values: not the row's first write
---@field adopt boolean? the entity takes over the row that a conflict meets

local M = { UNCHANGED = UNCHANGED, NONE = NONE }

-- ---- what is to be written ----------------------------------------------------------------------

--- An empty job. They are used again and again: a row costs no tables but the caller's and its answer.
---@return regolith.Job
function M.new()
  return {
    S = false, e = false, place = 0, write = 0, changes = NONE, expect = false, by_value = false, more = false,
    item = -1, answer = false,
  }
end

--- Holds on to nothing any more.
function M.clear(job)
  job.S, job.e, job.changes, job.expect, job.more, job.answer = false, false, NONE, false, false, false
end

--- What is looked up once for each type of a session.
local function know(S)
  local T = S.T
  S.hooked = next(T.hooks) ~= nil
  S.plain = not (S.shards or hooks.has_before(T, "update"))
  S.direct = assign.direct(T)
end

M.know = know

local function set(job, S, e, place, what)
  if S.hooked == nil then know(S) end
  job.S, job.e, job.place, job.write, job.by_value, job.item = S, e, place, what, false, -1
end

local function take_expression(T, exprs, name, v, level)
  local columns = assign.columns(T, name, level + 1)
  if #columns ~= 1 then error(string.format("'%s' is several columns; an expression is for one", name), level + 1) end
  local made, why = literal.sql(v, columns[1])
  if not made then error(why, level + 1) end
  exprs[columns[1]] = v
end

--- The place of the row that is being changed, of an entity that a hook of the session got.
---@return integer? place
function M.place_of(self, shadow)
  local place = shadows[shadow]
  if not place or record.session_of(shadow) ~= self then return nil end
  local S = self._types[record.type_of(shadow).entity]
  return S and S.places[shadow.id] == place and place or nil
end

--- The entity as it will be, for hooks to see, and where values are parts of a field.
function M.new_shadow(self, S, place, changes, level)
  local plain = {}
  for name, v in pairs(changes) do
    if not is_literal(v) then plain[name] = v end
  end
  C.rg_session_row(self._c, place - 1, self._view)
  local shadow = setmetatable(S.decode(self._view.data), S.mt)
  assign.all(S.T, shadow, plain, level + 1)
  shadows[shadow] = place
  return shadow
end

--- Raises unless all names are fields: what there is besides values that go straight into a row.
local function examine(self, S, place, changes, level)
  local exprs, plain = nil, S.plain
  for name, v in pairs(changes) do
    if type(v) == "table" and is_literal(v) then
      exprs = exprs or {}
      take_expression(S.T, exprs, name, v, level + 1)
    elseif not assign.is_direct(S.T, name, level + 1) then
      plain = false
    end
  end
  local shadow = not plain and M.new_shadow(self, S, place, changes, level + 1) or nil
  return (exprs or shadow) and { exprs = exprs, shadow = shadow } or false
end

--- Do all values go straight into a row? (The loop comes behind the first one, so that a call with one can be
--- compiled in one piece; so elsewhere.)
local function is_plain(S, changes)
  local direct = S.direct
  local name, v = next(changes)
  if name == nil then return S.plain end
  if not direct[name] or type(v) == "table" then return false end
  name, v = next(changes, name)
  while name ~= nil do
    if not direct[name] or type(v) == "table" then return false end
    name, v = next(changes, name)
  end
  return S.plain
end

--- Makes the job an update. Raises for what cannot be meant.
---@param changes table
---@param cas any what has to hold
function M.update(self, job, S, e, place, changes, cas, level)
  if type(changes) ~= "table" then error("the values are a table by field", level + 1) end
  set(job, S, e, place, UPDATE)
  job.changes = changes
  if not is_plain(S, changes) then job.more = examine(self, S, place, changes, level + 1) end
  if cas ~= nil then job.expect, job.by_value = parse(S.T, cas, changes, level + 1) end
end

function M.delete(job, S, e, place, cas, level)
  if cas == "changes" then error("cas = \"changes\" is for updates: a delete changes no field", level + 1) end
  set(job, S, e, place, DELETE)
  if cas ~= nil then job.expect, job.by_value = parse(S.T, cas, NONE, level + 1) end
end

function M.insert(job, S, e) set(job, S, e, 0, INSERT) end

--- The job's rarer members, to be filled in.
---@return regolith.JobMore
function M.more(job)
  if not job.more then job.more = {} end
  return job.more
end

--- What hooks see: an update's new values where there are such hooks, else the entity.
function M.seen(job) return job.more and job.more.shadow or job.e end

-- ---- the item -----------------------------------------------------------------------------------

local function entity_error(job)
  local fault = errors.from_c(err)
  fault.entity, fault.row = job.S.T.name, job.e
  return fault
end

local function add_expressions(op, number, exprs)
  for column, v in pairs(exprs) do
    local text, params, guard, guard_params = literal.sql(v, column)
    local rc = sql.bind(op, params, params.n or #params)
    if rc >= 0 then rc = sql.bind(op, guard_params, #guard_params) end
    if rc >= 0 then
      rc = C.rg_op_flush_express(op, number, column.number, text, #text, guard, #guard, err)
    end
    if rc < 0 then return rc end
  end
  return 0
end

local function put_value(T, direct, name, v, base)
  local column = direct[name]
  if type(v) == "table" then
    if is_literal(v) then return 0 end
    if T.entity.refs[name] then v = record.reference(T.target[name], v, 1) end
  end
  return put(T.builder, column or assign.columns(T, name, 1)[1], v, T, base)
end

--- Fills the type's builder with an update's new row; view: the row as it was read.
---@return integer rc
local function fill(job, view)
  local S, more = job.S, job.more
  local T, base = S.T, view.data
  local builder = T.builder
  if more and more.shadow then
    C.rg_builder_reset(builder)
    return T.encode(builder, more.shadow, base)
  end
  local changes, direct = job.changes, S.direct
  local rc = C.rg_builder_load(builder, base, view.len, err)
  local name, v = next(changes)
  if name == nil or rc < 0 then return rc end
  rc = put_value(T, direct, name, v, base)
  name, v = next(changes, name)
  while name ~= nil and rc >= 0 do
    rc = put_value(T, direct, name, v, base)
    name, v = next(changes, name)
  end
  return rc
end

local function add_insert(op, number, job)
  local T = job.S.T
  C.rg_builder_reset(T.builder)
  local rc = T.encode(T.builder, job.e, nil)
  if rc >= 0 then rc = C.rg_op_flush_add(op, INSERT, number, T.builder, -1, err) end
  if rc >= 0 then return rc end
  return nil, entity_error(job)
end

--- What few updates have.
local function add_more(op, number, job)
  local more = job.more
  local rc = more.exprs and add_expressions(op, number, more.exprs) or 0
  if rc < 0 or not more.again then return rc end
  local n = expect.fill(numbers, expect.columns(job.S.T, more.again, 1))
  return C.rg_op_flush_assign(op, number, numbers, n, err)
end

local function number_of(job)
  local S, more = job.S, job.more
  if S.number then return S.number end
  return shards.of_entity(S, job.e, M.seen(job), more and more.exprs)
end

--- Adds the job to an operation: its number there, or UNCHANGED; nil and why it cannot be.
---@return integer? item
---@return regolith.Err? err
function M.add(self, op, job)
  local number, fault = number_of(job)
  if not number then return nil, fault end
  local S, what = job.S, job.write
  if what == INSERT then return add_insert(op, number, job) end
  local slot, view, rc = job.place - 1, self._view, 0
  C.rg_session_row(self._c, slot, view)
  if job.expect then rc = stage(op, S, job.expect, job.by_value, job.changes, view.data) end
  if rc >= 0 and job.more then rc = add_more(op, number, job) end
  local builder
  if rc >= 0 and what == UPDATE then
    builder = S.T.builder
    rc = fill(job, view)
  end
  if rc >= 0 then rc = C.rg_op_flush_add(op, what, number, builder, slot, err) end
  if rc >= 0 or rc == UNCHANGED then return rc end
  return nil, entity_error(job)
end

--- The columns that an update would change, by number; nil and an error when it cannot be.
---@return table<integer, true>? changed
---@return regolith.Err? err
function M.changed(self, job)
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, EACH, err))
  if not op then return nil, fault end
  local slot, S, changed = job.place - 1, job.S, {}
  C.rg_session_row(self._c, slot, self._view)
  local number, item = S.number or shards.number(S.shards, job.e.id), fill(job, self._view)
  if item >= 0 then item = C.rg_op_flush_add(op, UPDATE, number, S.T.builder, slot, err) end
  if item < 0 and item ~= UNCHANGED then return nil, entity_error(job) end
  local n = item >= 0 and math.min(C.rg_op_flush_changed(op, item, numbers, MAX_COLUMNS), MAX_COLUMNS) or 0
  for k = 0, n - 1 do changed[numbers[k]] = true end
  native.done(op)
  for column in pairs(job.more and job.more.exprs or NONE) do changed[column.number] = true end
  return changed
end

-- ---- answers ------------------------------------------------------------------------------------

--- An answer that says no more than its outcome.
---@return regolith.Answer
function M.answer(outcome)
  return { outcome = outcome, [outcome] = true, changed = outcome == "applied" }
end
local new_answer = M.answer

function M.failed(fault)
  local answer = new_answer "failed"
  answer.err = fault
  return answer
end

--- What the server has made of a row is known from the row alone: other columns may be others', too.
local function settle_computed(S, e, old, now, written)
  for _, column in ipairs(S.T.entity.columns) do
    local before, after = record.read(old, column.access), record.read(now, column.access)
    local own = not record.same(record.read(e, column.access), before)
    if written[column.number] or (not own and not record.same(before, after)) then
      record.write(e, column.access, after)
    end
  end
end

local function take_computed(self, op, job)
  local S, view, wanted = job.S, self._view, {}
  local n = math.min(C.rg_op_flush_changed(op, job.item, numbers, MAX_COLUMNS), MAX_COLUMNS)
  for k = 0, n - 1 do wanted[numbers[k]] = true end
  for column in pairs(job.more and job.more.exprs or NONE) do wanted[column.number] = true end
  C.rg_session_row(self._c, job.place - 1, view)
  local old = S.decode(view.data)
  C.rg_op_flush_row(op, job.item, self._c, view)
  settle_computed(S, job.e, old, S.decode(view.data), wanted)
end

--- Brings the entity up to date with its row, the view's, but for what it holds of its own; n: columns, in `list`.
local function take_update(S, e, view, list, n)
  local columns, readers, now = S.T.columns, S.T.readers, nil
  for k = 0, n - 1 do
    local column = columns[list[k]]
    local access = column.access
    if #access == 1 then
      rawset(e, access[1], (readers[column](view.data)))
    else
      now = now or S.decode(view.data)
      record.write(e, access, record.read(now, access))
    end
  end
  return { outcome = "applied", applied = true, changed = true }
end
M.take_update = take_update

local function take_applied(self, op, job)
  local what, S, e = job.write, job.S, job.e
  job.answer = new_answer "applied"
  if what == UPDATE then return take_computed(self, op, job) end
  if what == INSERT then return flush.settle_insert(self, op, job.item, S, e) end
  flush.forget(self, S, e, job.place)
  self._doomed[e] = nil
end

local function names_of(T, n)
  local names = {}
  for i = 0, math.min(n, MAX_COLUMNS) - 1 do names[i + 1] = T.columns[numbers[i]].path end
  return names
end

--- The names that an entity's own tables go by, of a row that nobody manages.
local function plain_row(S, data)
  local row = S.decode(data)
  return setmetatable(row, nil)
end

local function take_conflict(self, op, job, answer)
  local S, item = job.S, job.item
  if C.rg_op_item_current(op, item, self._view) == 1 then answer.row = plain_row(S, self._view.data) end
  if job.more and job.more.adopt and C.rg_op_item_adopt(op, item, self._c) == 1 then
    flush.reset(S, job.e, self._view.data)
  end
  answer.differs = names_of(S.T, C.rg_op_item_differs(op, item, numbers, MAX_COLUMNS))
end

--- Takes the answer over from an operation that has run.
function M.take(self, op, job)
  local item = job.item
  local n = C.rg_op_take_update(op, item, self._c, self._view, numbers, MAX_COLUMNS)
  if n >= 0 then
    job.answer = take_update(job.S, job.e, self._view, numbers, n)
    return
  end
  local outcome = C.rg_op_outcome(op, item)
  if outcome == APPLIED then return take_applied(self, op, job) end
  local answer = new_answer(OUTCOMES[outcome])
  job.answer = answer
  if answer.conflict then take_conflict(self, op, job, answer) end
  local fault = C.rg_op_item_error(op, item)
  if fault ~= nil then
    answer.err = errors.from_c(fault)
    answer.err.entity, answer.err.row = job.S.T.name, job.e
  end
end

return M
