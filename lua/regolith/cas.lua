-- SPDX-License-Identifier: MIT
-- Writes on condition, each with an outcome of its own: compare-and-set updates and deletes, alone and
-- many at once. How they are carried out is in batch, what is repeated until it works in retry.

local allot = require "regolith.allot"
local batch = require "regolith.batch"
local errors = require "regolith.err"
local jobs = require "regolith.job"
local literal = require "regolith.literal"
local native = require "regolith.native"
local options = require "regolith.options"
local plain = require "regolith.plain"
local record = require "regolith.record"

local new_table = require "table.new"
local getmetatable, next, pairs, type = getmetatable, next, pairs, type
local as_results, check_options, is_literal, update_one = errors.results, options.require, literal.is, batch.update
local add_update = batch.add_update

local M = {}

--- Does a table of changes hold an expression?
function M.has_expression(changes)
  if type(changes) ~= "table" then return false end
  for _, v in pairs(changes) do
    if type(v) == "table" and is_literal(v) then return true end
  end
  return false
end

-- ---- one ----------------------------------------------------------------------------------------

local CAS = { cas = options.any }

local function results(answer, fault)
  if not answer then return as_results(fault) end
  if answer.failed then return as_results(answer.err) end
  return answer
end

--- Is it { cas = ... } and nothing else?
local function is_cas(opts)
  return type(opts) == "table" and next(opts) == "cas" and next(opts, "cas") == nil
end

function M.update(self, S, e, place, changes, opts, level)
  if not is_cas(opts) then opts = check_options("update", opts, CAS, level + 2) end
  return results(update_one(self, S, e, place, changes, opts.cas, false, level + 1))
end

function M.delete(self, S, e, place, opts, level)
  opts = check_options("delete", opts, CAS, level + 2)
  local job = jobs.new()
  jobs.delete(job, S, e, place, opts.cas, level + 1)
  return results(batch.run_one(self, job, level + 1))
end

-- ---- many at once -------------------------------------------------------------------------------

local ENTRY = { cas = options.any, delete = options.boolean }

--- Raises for what an entry of update_all cannot have.
local function check_names(given, i, level)
  options.check(given, ENTRY, function(text)
    error(string.format("update_all: entry %d: %s", i, text), level + 3)
  end, true)
end

local function add_entry(self, b, given, i, level)
  if type(given) ~= "table" or (getmetatable(given) and record.type_of(given)) then
    error(string.format("update_all: entry %d is a table as in { user, { visits = 1 } }", i), level + 1)
  end
  if not plain.is_usual(given) then check_names(given, i, level + 1) end
  local S, place = self:_need(given[1], level + 1)
  if place < 0 then error(string.format("update_all: entry %d: a new entity is flushed first", i), level + 1) end
  if given.delete then
    batch.add_delete(b, S, given[1], place, given.cas, level + 1)
  else
    add_update(self, b, S, given[1], place, given[2], given.cas, level + 1)
  end
end

--- Takes the answers out of the batch and gives it back.
local function take_answers(self, b)
  local n = b.n
  local answers = new_table(n, 0)
  for i = 1, n do answers[i] = b[i].answer end
  batch.give(self, b)
  return answers
end

--- New entities that were not written are the session's no longer.
local function forget_inserts(self, b, fault)
  for i = 1, b.n do
    if self._fresh[b[i].e] then self:delete(b[i].e) end
  end
  batch.give(self, b)
  return as_results(fault)
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
    options.length("update_all", list)
    local answers, fault = plain.run(self, list, 2)
    if answers then return answers end
    if fault then return as_results(fault) end
    local b = batch.take(self)
    for i = 1, #list do add_entry(self, b, list[i], i, 2) end
    local ok, why = batch.run(self, b, 2)
    answers = take_answers(self, b)
    if not ok then return as_results(why) end
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
    options.length("insert_all", list)
    for i = 1, #list do
      if type(list[i]) ~= "table" then error(string.format("insert_all: entry %d is a table by field", i), 2) end
    end
    local b = batch.take(self)
    for i = 1, #list do batch.add_insert(b, S, self:new(entity, list[i])) end
    local ok, fault = allot.all(self)
    if ok then ok, fault = batch.run(self, b, 2) end
    if not ok then return forget_inserts(self, b, fault) end
    for i = 1, b.n do
      local answer, e = b[i].answer, b[i].e
      if answer.applied then answer.entity = e elseif self._fresh[e] then self:delete(e) end
    end
    return take_answers(self, b)
  end

  --- Deletes rows by id in few statements, with an answer for each: "missing" where there is none.
  ---@param entity regolith.Entity
  ---@param ids (number|string)[]
  ---@return regolith.Answer[]? answers
  ---@return regolith.Err? err
  function Session:delete_all(entity, ids)
    if type(ids) ~= "table" then error("delete_all takes a list of ids", 2) end
    self:_type(entity, 2)
    local wanted = { n = options.length("delete_all", ids) }
    for i = 1, wanted.n do wanted[i] = ids[i] == native.null and 0 or ids[i] end
    local found, fault = self:get_many(entity, wanted)
    if not found then return as_results(fault) end
    local b, numbers, answers = batch.take(self), {}, {}
    for i = 1, found.n do
      local e = found[i]
      local S, place
      if e and not numbers[e] then S, place = self:_need(e, 2) end
      if place and place > 0 then
        batch.add_delete(b, S, e, place, nil, 2)
        numbers[e] = b.n
      end
    end
    local ok
    ok, fault = batch.run(self, b, 2)
    for i = 1, found.n do
      local number = found[i] and numbers[found[i]]
      answers[i] = number and b[number].answer or jobs.answer "missing"
    end
    batch.give(self, b)
    if not ok then return as_results(fault) end
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
    local answer, fault = update_one(self, S, e, place, changes, cas, false, 2)
    if not answer then return as_results(fault) end
    if answer.err then return as_results(answer.err) end
    return answer.applied or answer.unchanged or false, answer
  end
end

return M
