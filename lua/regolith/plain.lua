-- SPDX-License-Identifier: MIT
-- Lists of updates as most are: of entities without hooks and shards, by values that go straight into a row, each
-- expecting nothing or what was read. They are staged as they are looked at, and need no jobs. Whatever else is
-- in a list is for batch, which begins anew: nothing has happened then.

local batch = require "regolith.batch"
local expect = require "regolith.expect"
local jobs = require "regolith.job"
local native = require "regolith.native"
local write = require "regolith.codec.write"

local new_table = require "table.new"

local C, ffi, err = native.C, native.ffi, native.err
local UPDATE, EACH = tonumber(C.RG_UPDATE), tonumber(C.RG_FLUSH_EACH)
local MAX_COLUMNS = 4096
local numbers = ffi.new("uint32_t[?]", MAX_COLUMNS)
local getmetatable, next, type = getmetatable, next, type
local done, know, note_written, put = native.done, jobs.know, batch.note_written, write.put
local stage, stage_held, take_job, take_update = expect.stage, expect.stage_held, jobs.take, jobs.take_update

local M = {}

local function is_usual_name(name) return name == 1 or name == 2 or name == "cas" end

--- Has an entry no names but the usual ones? (Without a loop, so that the one over the list can be compiled.)
local function is_usual(given)
  local first = next(given)
  if not is_usual_name(first) then return first == nil end
  local second = next(given, first)
  if not is_usual_name(second) then return second == nil end
  local third = next(given, second)
  if not is_usual_name(third) then return third == nil end
  return next(given, third) == nil
end
M.is_usual = is_usual

--- Fills the type's builder with the new row; negative when a value does not go straight into it. (The loop
--- comes behind the first one, so that calls with one can be compiled in one piece.)
local function fill(S, changes, view)
  local T, direct, base = S.T, S.direct, view.data
  local builder = T.builder
  local name, v = next(changes)
  local column = direct[name]
  if not column or type(v) == "table" then return -1 end
  local rc = C.rg_builder_load(builder, base, view.len, err)
  if rc >= 0 then rc = put(builder, column, v, T, base) end
  name, v = next(changes, name)
  while name ~= nil and rc >= 0 do
    column = direct[name]
    if not column or type(v) == "table" then return -1 end
    rc = put(builder, column, v, T, base)
    name, v = next(changes, name)
  end
  return rc
end

--- Stages one whole number for another, as most conditions are about; nil when it is something else.
local function swap(op, S, place, changes, cas)
  local direct = S.direct
  local name, v = next(changes)
  local expected_name, expected = next(cas)
  local column, expected_column = direct[name], direct[expected_name]
  if type(v) ~= "number" or type(expected) ~= "number" or not column or not expected_column then return nil end
  if next(changes, name) ~= nil or next(cas, expected_name) ~= nil then return nil end
  return C.rg_op_flush_swap(op, S.number, place - 1, column.number, v, expected_column.number, expected, err) >= 0
end

--- Stages one entry: its entity, or nil when it is none for here.
local function add(self, op, b, given)
  if type(given) ~= "table" or getmetatable(given) ~= nil or not is_usual(given) then return nil end
  local e, changes, cas, view = given[1], given[2], given.cas, self._view
  local S, place = self:_care(e)
  if not S or place < 0 or type(changes) ~= "table" then return nil end
  if S.hooked == nil then know(S) end
  if S.hooked or not S.plain or note_written(b, place) then return nil end
  local by_value = type(cas) == "table"
  if by_value and swap(op, S, place, changes, cas) then return e end
  C.rg_session_row(self._c, place - 1, view)
  if fill(S, changes, view) < 0 then return nil end
  if cas ~= nil then
    local rc
    if by_value then rc = stage_held(op, S, cas, view.data)
    elseif cas == "changes" then rc = stage(op, S, expect.changes, false, changes, view.data) end
    if not rc or rc < 0 then return nil end
  end
  if C.rg_op_flush_add(op, UPDATE, S.number, S.T.builder, place - 1, err) < 0 then return nil end
  return e
end

--- An answer of any kind.
local function take(self, op, item, e)
  local job = jobs.new()
  job.S, job.place = self:_care(e)
  job.e, job.write, job.item = e, UPDATE, item
  take_job(self, op, job)
  return job.answer
end

--- The answers; nil and the error when nothing could be tried; false when the list is for batch.
---@param list table[]
---@param level integer
---@return regolith.Answer[]|false|nil answers
---@return regolith.Err? err
function M.run(self, list, level)
  local n = #list
  if n == 0 then return false end
  local op, fault = self:_own(C.rg_op_flush(self._orm._engine, self._c, EACH, err))
  if not op then return nil, fault end
  local b, answers = batch.take(self), new_table(n, 0)
  local staged = 0
  for i = 1, n do
    local e = add(self, op, b, list[i])
    if not e then break end
    answers[i], staged = e, i
  end
  batch.give(self, b)
  if staged < n then
    done(op)
    return false
  end
  local ok
  ok, fault = self:_run(op, level + 1)
  if not ok then return nil, fault end
  local c, view, types = self._c, self._view, self._types
  for i = 1, n do
    local e = answers[i]
    local columns = C.rg_op_take_update(op, i - 1, c, view, numbers, MAX_COLUMNS)
    if columns >= 0 then
      answers[i] = take_update(types[getmetatable(e).rg_type.entity], e, view, numbers, columns)
    else
      answers[i] = take(self, op, i - 1, e)
    end
  end
  done(op)
  return answers
end

return M
