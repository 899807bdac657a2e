-- SPDX-License-Identifier: MIT
-- Writes with outcomes of their own, one or many, in one operation, with the hooks around them. What the
-- calls look like is in cas; what is repeated until it works, in retry.

local errors = require "regolith.err"
local hooks = require "regolith.hooks"
local inverse = require "regolith.inverse"
local jobs = require "regolith.job"
local native = require "regolith.native"

local C, ffi, err = native.C, native.ffi, native.err
local turns = ffi.typeof "double[?]"
local NO_PLACES = turns(1)
local EACH = tonumber(C.RG_FLUSH_EACH)
local INSERT, UPDATE, DELETE = tonumber(C.RG_INSERT), tonumber(C.RG_UPDATE), tonumber(C.RG_DELETE)
local NAMES = { [INSERT] = "insert", [UPDATE] = "update", [DELETE] = "delete" }
local UNCHANGED = jobs.UNCHANGED
-- Functions as locals: where a module's table is looked into, LuaJIT has more to keep in mind than fits one trace.
local add_job, clear_job, new_job, new_answer, take_job = jobs.add, jobs.clear, jobs.new, jobs.answer, jobs.take
local job_update, job_delete, done = jobs.update, jobs.delete, native.done
--- Jobs of its batches that a session keeps for the next one.
local MOST_KEPT = 4096

---@class regolith.Batch jobs, by position
---@field n integer
---@field turn integer how many batches it has been
---@field written ffi.cdata* by place: the turn in which it was written last
---@field places integer how many it has room for
---@field hooked boolean some of the types have hooks
---@field spread boolean some of the types have shards

local M = {}

-- ---- hooks --------------------------------------------------------------------------------------

local function ask_hook(self, job)
  local ok, fault = hooks.before(job.S.T, NAMES[job.write], jobs.seen(job), self)
  if not ok then job.answer = jobs.failed(fault) end
end

--- What hooks were asked about may be elsewhere in the session now, or gone.
local function find_again(self, job)
  if job.answer then return end
  local place, fault = hooks.place_after(job.S.T, NAMES[job.write], job.e, self)
  if not place then
    job.answer = jobs.failed(fault)
  elseif place > 0 then
    job.place = place
  end
end

local function tell_hook(self, job)
  local answer = job.answer
  local name = answer.applied and "after_" .. NAMES[job.write]
    or (answer.conflict or answer.missing) and "on_conflict"
  if not name then return end
  local ok, fault = hooks.run(job.S.T, name, job.e, self, answer)
  if ok then return end
  answer.failures = { fault }
  errors.report(self._orm._on_error, fault)
end

-- ---- running ------------------------------------------------------------------------------------

--- The jobs that are staged as items of a flush, for the inverses.
local function items_of(list, n)
  local items = { n = 0, S = {}, e = {}, write = {}, values = {} }
  for i = 1, n do
    local job = list[i]
    if job.item >= 0 then
      local k = items.n + 1
      items.n, items.S[k], items.e[k], items.write[k] = k, job.S, job.e, job.write
      items.values[k] = jobs.seen(job)
    end
  end
  return items
end

--- Adds a job to the operation, unless a hook has refused it: does it have to be run?
local function stage(self, op, job)
  if job.answer then return false end
  local item, fault = add_job(self, op, job)
  if not item then
    job.answer = jobs.failed(fault)
  elseif item == UNCHANGED then
    job.answer = new_answer "unchanged"
  else
    job.item = item
    return true
  end
  return false
end

--- Runs one job: its answer, also when it failed; nil and the error when it could not be tried.
---@param job regolith.Job
---@param level integer
---@return regolith.Answer? answer
---@return regolith.Err? err
function M.run_one(self, job, level)
  local S = job.S
  if S.hooked then
    ask_hook(self, job)
    find_again(self, job)
  end
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, EACH, err))
  if not op then return nil, fault end
  if stage(self, op, job) then
    local ok = true
    if S.shards then ok, fault = inverse.note(self, items_of({ job }, 1), DELETE) end
    if ok then ok, fault = self:_run(op, level + 1) end
    if not ok then return nil, fault end
    take_job(self, op, job)
  end
  done(op)
  if S.hooked then tell_hook(self, job) end
  return job.answer
end

--- Runs a batch: each job gets its answer. nil and the error when nothing could be tried.
---@param b regolith.Batch
---@param level integer
---@return true? ok
---@return regolith.Err? err
function M.run(self, b, level)
  local n, staged = b.n, 0
  for i = 1, b.hooked and n or 0 do ask_hook(self, b[i]) end
  for i = 1, b.hooked and n or 0 do find_again(self, b[i]) end
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, EACH, err))
  if not op then return nil, fault end
  for i = 1, n do
    if stage(self, op, b[i]) then staged = staged + 1 end
  end
  if staged > 0 then
    local ok = true
    if b.spread then ok, fault = inverse.note(self, items_of(b, n), DELETE) end
    if ok then ok, fault = self:_run(op, level + 1) end
    if not ok then return nil, fault end
  end
  for i = 1, n do
    if b[i].item >= 0 then take_job(self, op, b[i]) end
  end
  done(op)
  for i = 1, b.hooked and n or 0 do tell_hook(self, b[i]) end
  return true
end

-- ---- one update ---------------------------------------------------------------------------------

--- Runs one update. A job that is in use is not the session's, in case a hook writes.
---@param adopt boolean? the entity takes over the row that a conflict meets
---@return regolith.Answer? answer as run_one
---@return regolith.Err? err
function M.update(self, S, e, place, changes, cas, adopt, level)
  local job = self._job or new_job()
  self._job = false
  job_update(self, job, S, e, place, changes, cas, level + 1)
  if adopt then jobs.more(job).adopt = true end
  local answer, fault = M.run_one(self, job, level + 1)
  clear_job(job)
  self._job = job
  return answer, fault
end

-- ---- many ---------------------------------------------------------------------------------------

--- An empty batch; the session has but one to lend.
---@return regolith.Batch
function M.take(self)
  local b = self._batch or { n = 0, turn = 0, written = NO_PLACES, places = 0, hooked = false, spread = false }
  self._batch = false
  b.turn = b.turn + 1
  return b
end

--- Room for more places than there are.
local function make_room(b, place)
  local places = math.max(256, 2 * b.places, place + 1)
  local written = turns(places)
  ffi.copy(written, b.written, b.places * ffi.sizeof "double")
  b.written, b.places = written, places
end

--- Notes that a row is written; was it before, in this batch?
local function note_written(b, place)
  if place >= b.places then make_room(b, place) end
  local before = b.written[place] == b.turn
  b.written[place] = b.turn
  return before
end

M.note_written = note_written

--- The session has it back, holding on to nothing.
function M.give(self, b)
  for i = 1, b.n do
    if i <= MOST_KEPT then clear_job(b[i]) else b[i] = nil end
  end
  b.n, b.hooked, b.spread = 0, false, false
  self._batch = b
end

local function next_job(b, S)
  local n = b.n + 1
  local job = b[n]
  if not job then
    job = new_job()
    b[n] = job
  end
  b.n = n
  if S.shards then b.spread = true end
  return job
end

--- A later update of the same row writes all that it is given: what it would be compared with is what an
--- earlier one leaves.
local function note_repeat(job)
  local names = {}
  for name in pairs(job.changes) do names[#names + 1] = name end
  jobs.more(job).again = names
end

--- Adds an update. Raises for what cannot be meant.
function M.add_update(self, b, S, e, place, changes, cas, level)
  local job = next_job(b, S)
  job_update(self, job, S, e, place, changes, cas, level + 1)
  if note_written(b, place) then note_repeat(job) end
  if S.hooked then b.hooked = true end
end

function M.add_delete(b, S, e, place, cas, level)
  local job = next_job(b, S)
  job_delete(job, S, e, place, cas, level + 1)
  note_written(b, place)
  if S.hooked then b.hooked = true end
end

function M.add_insert(b, S, e)
  jobs.insert(next_job(b, S), S, e)
  if S.hooked then b.hooked = true end
end

return M
