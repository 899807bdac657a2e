-- SPDX-License-Identifier: MIT
-- Writes on condition, each with an outcome of its own: compare-and-set updates and deletes, alone and
-- many at once. What is repeated until it works is in retry.

local allot = require "regolith.allot"
local assign = require "regolith.assign"
local errors = require "regolith.err"
local expect = require "regolith.expect"
local flush = require "regolith.flush"
local hooks = require "regolith.hooks"
local inverse = require "regolith.inverse"
local literal = require "regolith.literal"
local native = require "regolith.native"
local options = require "regolith.options"
local record = require "regolith.record"
local shards = require "regolith.shards"
local sql = require "regolith.sql"
local write = require "regolith.codec.write"

local C, ffi, err = native.C, native.ffi, native.err
local INSERT, UPDATE, DELETE = tonumber(C.RG_INSERT), tonumber(C.RG_UPDATE), tonumber(C.RG_DELETE)
local EACH = tonumber(C.RG_FLUSH_EACH)
local new_table = require "table.new"
local UNCHANGED = -1000
local OUTCOMES = {
  [tonumber(C.RG_OUTCOME_APPLIED)] = "applied", [tonumber(C.RG_OUTCOME_UNCHANGED)] = "unchanged",
  [tonumber(C.RG_OUTCOME_CONFLICT)] = "conflict", [tonumber(C.RG_OUTCOME_MISSING)] = "missing",
  [tonumber(C.RG_OUTCOME_UNKNOWN)] = "unknown", [tonumber(C.RG_OUTCOME_FAILED)] = "failed",
}
local MAX_COLUMNS = 4096
local numbers = ffi.new("uint32_t[?]", MAX_COLUMNS)

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

---@class regolith.CasJob one write on its way
---@field S regolith.SessionType
---@field e table
---@field place integer
---@field write integer
---@field changes table values by name, as they were given
---@field shadow table? an update's new values, when hooks see them
---@field exprs table<regolith.Column, regolith.Expression>
---@field expect table? what has to hold
---@field item integer? its number in the operation
---@field adopt boolean? the entity takes over the row that a conflict meets
---@field answer regolith.Answer?

local M = {}

-- ---- jobs ---------------------------------------------------------------------------------------

--- Does a table of changes hold an expression?
function M.has_expression(changes)
  if type(changes) ~= "table" then return false end
  for _, v in pairs(changes) do
    if type(v) == "table" and literal.is(v) then return true end
  end
  return false
end

local function take_expression(T, exprs, name, v, level)
  local columns = assign.columns(T, name, level + 1)
  if #columns ~= 1 then error(string.format("'%s' is several columns; an expression is for one", name), level + 1) end
  local made, why = literal.sql(v, columns[1])
  if not made then error(why, level + 1) end
  exprs[columns[1]] = v
end

local CAS = { cas = options.any }

local NONE = {}

--- Can the value go straight into a row, next to what is there?
local function is_single(T, name, level)
  if name == "id" then return false end
  local columns = assign.columns(T, name, level + 1)
  return #columns == 1 and #columns[1].access == 1
end

--- The entity as it will be, for hooks to see, and where values are parts of a field.
local function new_shadow(self, S, place, changes, level)
  local plain = {}
  for name, v in pairs(changes) do
    if not literal.is(v) then plain[name] = v end
  end
  C.rg_session_row(self._c, place - 1, self._view)
  local shadow = setmetatable(S.decode(self._view.data), S.mt)
  assign.all(S.T, shadow, plain, level + 1)
  return shadow
end

--- An update to be: its new values, and what has to hold.
---@return regolith.CasJob
local function new_update(self, S, e, place, changes, cas, level)
  if type(changes) ~= "table" then error("the values are a table by field", level + 1) end
  local T, exprs = S.T, NONE
  local direct = not (S.shards or hooks.has_before(T, "update"))
  for name, v in pairs(changes) do
    if type(v) == "table" and literal.is(v) then
      exprs = exprs == NONE and {} or exprs
      take_expression(T, exprs, name, v, level + 1)
    elseif direct and not is_single(T, name, level + 1) then
      direct = false
    end
  end
  return {
    S = S, e = e, place = place, write = UPDATE, changes = changes, exprs = exprs,
    shadow = not direct and new_shadow(self, S, place, changes, level + 1) or nil,
    expect = cas ~= nil and expect.resolve(T, cas, changes, level + 1) or nil,
  }
end

local function new_delete(_, S, e, place, cas, level)
  if cas == "changes" then error("cas = \"changes\" is for updates: a delete changes no field", level + 1) end
  return {
    S = S, e = e, place = place, write = DELETE, changes = NONE, exprs = NONE,
    expect = cas ~= nil and expect.resolve(S.T, cas, NONE, level + 1) or nil,
  }
end

local NAMES = { [INSERT] = "insert", [UPDATE] = "update", [DELETE] = "delete" }

local function ask_hooks(self, job)
  return hooks.before(job.S.T, NAMES[job.write], job.shadow or job.e, self)
end

-- ---- the operation ------------------------------------------------------------------------------

local function entity_error(job)
  local fault = errors.from_c(err)
  fault.entity, fault.row = job.S.T.name, job.e
  return fault
end

local function add_expressions(op, job)
  for column, v in pairs(job.exprs) do
    local text, params, guard, guard_params = literal.sql(v, column)
    local rc = sql.bind(op, params, params.n or #params)
    if rc >= 0 then rc = sql.bind(op, guard_params, #guard_params) end
    if rc >= 0 then
      rc = C.rg_op_flush_express(op, job.number, column.number, text, #text, guard, #guard, err)
    end
    if rc < 0 then return rc end
  end
  return 0
end

local function add_insert(op, job)
  local S, builder = job.S, job.S.T.builder
  C.rg_builder_reset(builder)
  local rc = S.T.encode(builder, job.e, nil)
  if rc >= 0 then rc = C.rg_op_flush_add(op, INSERT, job.number, builder, -1, err) end
  if rc < 0 then return nil, entity_error(job) end
  job.item = rc
  return true
end

--- Fills the type's builder with an update's new row; view: the row as it was read.
---@return integer rc
function M.fill(job, view)
  local T = job.S.T
  local builder = T.builder
  if job.shadow then
    C.rg_builder_reset(builder)
    return T.encode(builder, job.shadow, view.data)
  end
  local rc = C.rg_builder_load(builder, view.data, view.len, err)
  for name, v in pairs(job.changes) do
    if rc < 0 then return rc end
    if type(v) ~= "table" or not literal.is(v) then
      local column = assign.columns(T, name, 1)[1]
      if T.entity.refs[name] and type(v) == "table" then v = record.reference(T.target[name], v, 1) end
      rc = write.put(builder, column, v, T, view.data)
    end
  end
  return rc
end

--- Adds a job to the operation: true, or nil and why it cannot be.
local function add(self, op, job)
  local S, fault = job.S, nil
  job.number = S.number
  if not job.number then job.number, fault = shards.of_entity(S, job.e, job.shadow or job.e, job.exprs) end
  if not job.number then return nil, fault end
  if job.write == INSERT then return add_insert(op, job) end
  C.rg_session_row(self._c, job.place - 1, self._view)
  local row, rc = self._view.data, 0
  if job.expect then rc = expect.stage(op, S, job.expect, row) end
  if rc >= 0 then rc = add_expressions(op, job) end
  if rc >= 0 and job.again then
    rc = C.rg_op_flush_assign(op, job.number, numbers, expect.fill(numbers, expect.columns(S.T, job.plain, 1)), err)
  end
  local builder
  if rc >= 0 and job.write == UPDATE then
    builder = S.T.builder
    rc = M.fill(job, self._view)
  end
  if rc >= 0 then rc = C.rg_op_flush_add(op, job.write, job.number, builder, job.place - 1, err) end
  if rc < 0 and rc ~= UNCHANGED then return nil, entity_error(job) end
  job.item = rc >= 0 and rc or nil
  return true
end

-- ---- answers ------------------------------------------------------------------------------------

local function new_answer(outcome)
  return { outcome = outcome, [outcome] = true, changed = outcome == "applied" }
end

local function names_of(T, n)
  local names = {}
  for i = 0, math.min(n, MAX_COLUMNS) - 1 do names[i + 1] = T.columns[numbers[i]].path end
  return names
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

--- Brings the entity up to date with its row, but for what it holds of its own.
local function settle_update(self, op, job)
  local S, e, view, written = job.S, job.e, self._view, new_table(4, 0)
  local n = math.min(C.rg_op_flush_changed(op, job.item, numbers, MAX_COLUMNS), MAX_COLUMNS)
  for i = 1, n do written[i] = numbers[i - 1] end
  local computed = C.rg_op_item_computed(op, job.item) == 1
  local old
  if computed then
    C.rg_session_row(self._c, job.place - 1, view)
    old = S.decode(view.data)
  end
  C.rg_op_flush_row(op, job.item, self._c, view)
  local now
  if computed then
    now = S.decode(view.data)
    local set = {}
    for _, number in ipairs(written) do set[number] = true end
    for column in pairs(job.exprs) do set[column.number] = true end
    return settle_computed(S, e, old, now, set)
  end
  local columns, readers = S.T.columns, S.T.readers
  for i = 1, n do
    local column = columns[written[i]]
    local access = column.access
    if #access == 1 then
      rawset(e, access[1], (readers[column](view.data)))
    else
      now = now or S.decode(view.data)
      record.write(e, access, record.read(now, access))
    end
  end
end

--- The names that an entity's own tables go by, of a row that nobody manages.
local function plain_row(S, data)
  local row = S.decode(data)
  return setmetatable(row, nil)
end

local function take_answer(self, op, job)
  local S = job.S
  local answer = new_answer(OUTCOMES[C.rg_op_outcome(op, job.item)])
  job.answer = answer
  if answer.applied and job.write == UPDATE then settle_update(self, op, job) end
  if answer.applied and job.write == INSERT then flush.settle_insert(self, op, job.item, S, job.e) end
  if answer.applied and job.write == DELETE then
    flush.forget(self, S, job.e, job.place)
    self._doomed[job.e] = nil
  end
  if answer.conflict then
    if C.rg_op_item_current(op, job.item, self._view) == 1 then answer.row = plain_row(S, self._view.data) end
    if job.adopt and C.rg_op_item_adopt(op, job.item, self._c) == 1 then flush.reset(S, job.e, self._view.data) end
    answer.differs = names_of(S.T, C.rg_op_item_differs(op, job.item, numbers, MAX_COLUMNS))
  end
  local fault = C.rg_op_item_error(op, job.item)
  if fault ~= nil then
    answer.err = errors.from_c(fault)
    answer.err.entity, answer.err.row = S.T.name, job.e
  end
end

local function tell_hooks(self, job)
  local T, answer = job.S.T, job.answer
  local name = answer.applied and "after_" .. NAMES[job.write]
    or (answer.conflict or answer.missing) and "on_conflict"
  if not name then return end
  local ok, fault = hooks.run(T, name, job.e, self, answer)
  if ok then return end
  answer.failures = { fault }
  if self._orm._on_error then self._orm._on_error(fault) end
end

local function failed(fault)
  local answer = new_answer("failed")
  answer.err = fault
  return answer
end

--- The jobs as items of a flush.
local function items_of(jobs)
  local items = { n = 0, S = {}, e = {}, write = {}, values = {} }
  for _, job in ipairs(jobs) do
    if job.item then
      local n = items.n + 1
      items.n, items.S[n], items.e[n], items.write[n] = n, job.S, job.e, job.write
      items.values[n] = job.shadow or job.e
    end
  end
  return items
end

--- Runs jobs in one operation: each gets its answer. nil and the error when nothing could be tried.
---@param jobs regolith.CasJob[]
function M.run(self, jobs)
  for _, job in ipairs(jobs) do
    local ok, fault = ask_hooks(self, job)
    if not ok then job.answer = failed(fault) end
  end
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, EACH, err))
  if not op then return nil, fault end
  local any = false
  for _, job in ipairs(jobs) do
    local ok
    if not job.answer then
      ok, fault = add(self, op, job)
      if not ok then job.answer = failed(fault) end
      any = any or job.item ~= nil
      if ok and not job.item then job.answer = new_answer "unchanged" end
    end
  end
  if any then
    local ok
    ok, fault = inverse.note(self, items_of(jobs), DELETE)
    if ok then ok, fault = self:_run(op, 5) end
    if not ok then return nil, fault end
  end
  for _, job in ipairs(jobs) do
    if job.item then take_answer(self, op, job) end
  end
  native.done(op)
  for _, job in ipairs(jobs) do tell_hooks(self, job) end
  return true
end

local function run_one(self, job)
  local ok, fault = M.run(self, { job })
  if not ok then return errors.results(fault) end
  if job.answer.failed then return errors.results(job.answer.err) end
  return job.answer
end

function M.update(self, S, e, place, changes, opts, level)
  opts = options.require("update", opts, CAS, level + 2)
  return run_one(self, new_update(self, S, e, place, changes, opts.cas, level + 1))
end

function M.delete(self, S, e, place, opts, level)
  opts = options.require("delete", opts, CAS, level + 2)
  return run_one(self, new_delete(self, S, e, place, opts.cas, level + 1))
end

-- ---- many at once -------------------------------------------------------------------------------

local JOB = { cas = options.any, delete = options.boolean }

local function new_job(self, given, i, level)
  if type(given) ~= "table" or record.type_of(given) then
    error(string.format("update_all: entry %d is a table as in { user, { visits = 1 } }", i), level + 1)
  end
  options.check(given, JOB, function(text)
    error(string.format("update_all: entry %d: %s", i, text), level + 3)
  end, true)
  local S, place = self:_need(given[1], level + 1)
  if place < 0 then error(string.format("update_all: entry %d: a new entity is flushed first", i), level + 1) end
  if given.delete then return new_delete(self, S, given[1], place, given.cas, level + 1) end
  return new_update(self, S, given[1], place, given[2], given.cas, level + 1)
end

--- A later update of the same row writes all that it is given: what it would be compared with is what
--- an earlier one leaves.
local function note_repeats(jobs)
  local seen = {}
  for _, job in ipairs(jobs) do
    if seen[job.e] and job.write == UPDATE then
      job.again, job.plain = true, {}
      for name in pairs(job.changes) do job.plain[#job.plain + 1] = name end
    end
    seen[job.e] = true
  end
end

--- New entities that were not written are the session's no longer.
local function forget_inserts(self, jobs, fault)
  for _, job in ipairs(jobs) do
    if self:_care(job.e) then self:delete(job.e) end
  end
  return errors.results(fault)
end

---@param Session table
function M.install(Session)
  --- Updates and deletes of many entities in few statements, apart from each other: a list of
  --- { entity, changes, cas = ... } or { entity, delete = true, cas = ... }. An answer for each, in
  --- order; what fails does not touch the others. Writes of one row keep their order.
  ---@param list table[]
  ---@return regolith.Answer[]? answers
  ---@return regolith.Err? err when nothing could be tried
  ---@return integer? errno
  ---@return string? sqlstate
  function Session:update_all(list)
    if type(list) ~= "table" then error("update_all takes a list of { entity, changes }", 2) end
    local jobs, answers = {}, {}
    for i = 1, #list do jobs[i] = new_job(self, list[i], i, 2) end
    note_repeats(jobs)
    local ok, fault = M.run(self, jobs)
    if not ok then return errors.results(fault) end
    for i, job in ipairs(jobs) do answers[i] = job.answer end
    return answers
  end

  --- Inserts many rows in few statements, apart from each other: an answer for each, in order, with its
  --- `entity`. What fails (a duplicate, a foreign key) does not touch the others.
  ---@param entity regolith.Entity
  ---@param list table[] of values by field
  ---@return regolith.Answer[]? answers
  ---@return regolith.Err? err when nothing could be tried
  function Session:insert_all(entity, list)
    local S = self:_type(entity, 2)
    if type(list) ~= "table" then error("insert_all takes a list of values by field", 2) end
    local jobs, answers = {}, {}
    for i = 1, #list do
      if type(list[i]) ~= "table" then error(string.format("insert_all: entry %d is a table by field", i), 2) end
    end
    for i = 1, #list do
      jobs[i] = { S = S, e = self:new(entity, list[i]), write = INSERT, changes = NONE, exprs = NONE }
    end
    local ok, fault = allot.all(self)
    if ok then ok, fault = M.run(self, jobs) end
    if not ok then return forget_inserts(self, jobs, fault) end
    for i, job in ipairs(jobs) do
      answers[i] = job.answer
      if job.answer.applied then job.answer.entity = job.e else self:delete(job.e) end
    end
    return answers
  end

  --- Deletes rows by id in few statements, with an answer for each: "missing" where there is none.
  ---@param entity regolith.Entity
  ---@param ids (number|string)[]
  ---@return regolith.Answer[]? answers
  ---@return regolith.Err? err
  function Session:delete_all(entity, ids)
    if type(ids) ~= "table" then error("delete_all takes a list of ids", 2) end
    local wanted = { n = ids.n or #ids }
    for i = 1, wanted.n do wanted[i] = ids[i] == native.null and 0 or ids[i] end
    local found, fault = self:get_many(entity, wanted)
    if not found then return errors.results(fault) end
    local jobs, answers, seen = {}, {}, {}
    for i = 1, found.n do
      local e = found[i]
      if e and not seen[e] then
        local S, place = self:_need(e, 2)
        if place > 0 then jobs[#jobs + 1] = new_delete(self, S, e, place, nil, 2) end
        if place > 0 then seen[e] = jobs[#jobs] end
      end
    end
    local ok
    ok, fault = M.run(self, jobs)
    if not ok then return errors.results(fault) end
    for i = 1, found.n do
      local job = found[i] and seen[found[i]]
      answers[i] = job and job.answer or new_answer "missing"
    end
    return answers
  end

  --- An update on condition as a question: true when it was made (or nothing was to be changed and all
  --- is as expected), false when the row is not as expected or gone.
  ---@param e table
  ---@param changes table
  ---@param cas table|string
  ---@return boolean? made
  ---@return regolith.Answer|regolith.Err|nil
  function Session:compare_and_set(e, changes, cas)
    local S, place = self:_need(e, 2)
    if place < 0 then error("a new entity is flushed before it is updated", 2) end
    if cas == nil then error("compare_and_set takes what is expected", 2) end
    local job = new_update(self, S, e, place, changes, cas, 2)
    local ok, fault = M.run(self, { job })
    if not ok then return errors.results(fault) end
    local answer = job.answer
    if answer.err then return errors.results(answer.err) end
    return answer.applied or answer.unchanged or false, answer
  end
end

M.new_update = new_update

return M
