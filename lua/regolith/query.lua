-- SPDX-License-Identifier: MIT
-- Searches: an SQL condition that is run when its result is asked for. Always answered by MySQL;
-- the entities found are those of the session.

local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local sql = require "regolith.sql"

local C, err = native.C, native.err
local ROWS, IDS, COUNT = 0, 1, 2

---@class regolith.Query
---@field _session regolith.Session
---@field _type regolith.SessionType
---@field _where string
---@field _params any[]
---@field _n integer
---@field _offset integer
---@field _limit integer 0: all
local Query = { __name = "regolith.Query" }
Query.__index = Query

--- A DONE operation, or nil and the error.
local function run(self, mode, offset, limit)
  local session, where = self._session, self._where
  local op, fault = session:_own(
    C.rg_op_search(session._orm._engine, self._type.number, where, #where, mode, offset, limit, err))
  if not op then return nil, fault end
  if sql.bind(op, self._params, self._n) < 0 then return nil, errors.from_c(err) end
  local ok
  ok, fault = session:_run(op, 3)
  if not ok then return nil, fault end
  return op
end

local function fetch(self, offset, limit)
  local op, fault = run(self, ROWS, offset, limit)
  if not op then return nil, fault end
  local list = self._session:_rows(self._type, op, 0, C.rg_op_rows(op) - 1)
  native.done(op)
  return list
end

--- At most n entities, after skipping some.
---@param n integer
---@param offset? integer
---@return regolith.Query self
function Query:limit(n, offset)
  if options.integer(1)(n) then error("limit takes a number of rows, at least 1", 2) end
  if offset ~= nil and options.integer(0)(offset) then error("an offset is a whole number", 2) end
  self._limit, self._offset = n, offset or 0
  return self
end

--- The entities found.
---@return table[]? list
---@return regolith.Err? err
---@return integer? errno
---@return string? sqlstate
function Query:all()
  local list, fault = fetch(self, self._offset, self._limit)
  if not list then return errors.results(fault) end
  return list
end

--- The first entity found, or nil.
---@return table? entity
---@return regolith.Err? err
function Query:one()
  local list, fault = fetch(self, self._offset, 1)
  if not list then return errors.results(fault) end
  return list[1]
end

local function check_page(n, size)
  if options.integer(1)(n) then error("a page is a whole number from 1 on", 3) end
  if options.integer(1)(size) then error("a page's size is a whole number from 1 on", 3) end
end

--- Page n (from 1) of `size` entities.
---@param n integer
---@param size integer
---@return table[]? list
---@return regolith.Err? err
function Query:page(n, size)
  check_page(n, size)
  local list, fault = fetch(self, (n - 1) * size, size)
  if not list then return errors.results(fault) end
  return list
end

--- The same with the number of all that match; counted only when the page cannot tell.
---@param n integer
---@param size integer
---@return table[]? list
---@return integer|regolith.Err total
function Query:page_with_count(n, size)
  check_page(n, size)
  local op, fault = run(self, ROWS, (n - 1) * size, size)
  if not op then return errors.results(fault) end
  local found = C.rg_op_rows(op)
  local list = self._session:_rows(self._type, op, 0, found - 1)
  if found < size and (found > 0 or n == 1) then return list, (n - 1) * size + found end
  local total
  total, fault = self:count()
  if not total then return errors.results(fault) end
  return list, total
end

--- How many match.
---@return integer? count
---@return regolith.Err? err
function Query:count()
  local op, fault = run(self, COUNT, 0, 0)
  if not op then return errors.results(fault) end
  return C.rg_op_number(op)
end

--- The ids of those that match; no entity is loaded.
---@return number[]? ids
---@return regolith.Err? err
function Query:ids()
  local op, fault = run(self, IDS, self._offset, self._limit)
  if not op then return errors.results(fault) end
  local ids = {}
  for i = 0, C.rg_op_rows(op) - 1 do ids[i + 1] = C.rg_op_id(op, i) end
  return ids
end

local M = {}

--- Raises at the caller's caller when the parameters do not fit the text.
---@param session regolith.Session
---@param S regolith.SessionType
---@param where string
---@param ... any
---@return regolith.Query
function M.new(session, S, where, ...)
  local text, params, n = sql.expand(3, where, ...)
  return setmetatable({
    _session = session, _type = S, _where = text, _params = params, _n = n, _offset = 0, _limit = 0,
  }, Query)
end

return M
