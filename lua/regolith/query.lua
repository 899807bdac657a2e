-- SPDX-License-Identifier: MIT
-- Searches: an SQL condition that is run when its result is asked for. Answered by MySQL, or by the
-- cache with what MySQL would say; the entities found are those of the session.

local entities = require "regolith.entity"
local errors = require "regolith.err"
local locking = require "regolith.locking"
local native = require "regolith.native"
local options = require "regolith.options"
local route = require "regolith.route"
local shards = require "regolith.shards"
local sql = require "regolith.sql"

local C, err = native.C, native.err
local ROWS, IDS, COUNT = 0, 1, 2

---@class regolith.Query
---@field _session regolith.Session
---@field _type regolith.SessionType
---@field _ttl_ms number? of the cached answer
---@field _tables regolith.SessionType[]? that it reads besides its own
---@field _where string
---@field _params any[]
---@field _n integer
---@field _offset integer
---@field _limit integer 0: all
---@field _plan regolith.Plan? of an entity with shards
---@field _drained integer? ms to wait for the queue first
---@field _lock integer? of its rows
local Query = { __name = "regolith.Query" }
Query.__index = Query

--- Has the operation ask further shards and put their rows in order.
local function spread(op, numbers, plan)
  for i = 2, #numbers do
    if C.rg_op_also(op, numbers[i], err) < 0 then return false end
  end
  for _, by in ipairs(plan.order or {}) do
    if C.rg_op_order(op, by[1], by[2] and 1 or 0, err) < 0 then return false end
  end
  return true
end

--- Waits until what is queued for the entity's pools is applied.
local function await_queues(self)
  local orm, entity = self._session._orm, self._type.T.entity
  if not entity.shards then return orm:drained(self._drained, entity.mysql) end
  for k = 0, entity.shards.n - 1 do
    local ok, fault = orm:drained(self._drained, entity.shards.pools[k])
    if not ok then return nil, fault end
  end
  return true
end

--- A DONE operation, or nil and the error.
local function run(self, mode, offset, limit)
  local session, where = self._session, self._where
  local fault
  if self._drained then
    local ok
    ok, fault = await_queues(self)
    if not ok then return nil, fault end
  end
  local number, numbers = self._type.number, nil
  if not number then
    numbers, fault = route.numbers(session._orm, self._type, self._plan)
    if not numbers then return nil, fault end
    number = numbers[1]
  end
  local op
  op, fault = session:_own(
    C.rg_op_search(session._orm._engine, number, where, #where, mode, offset, limit, err))
  if not op then return nil, fault end
  if numbers and #numbers > 1 and not spread(op, numbers, self._plan) then return nil, errors.from_c(err) end
  if sql.bind(op, self._params, self._n) < 0 then return nil, errors.from_c(err) end
  if self._ttl_ms and not session._scope then
    local rc = C.rg_op_search_cached(op, self._ttl_ms, err)
    for _, S in ipairs(self._tables) do
      if rc >= 0 then rc = C.rg_op_search_reads(op, S.number, err) end
    end
    if rc < 0 then return nil, errors.from_c(err) end
  end
  local ok
  ok, fault = locking.apply(op, mode == ROWS and self._lock or 0)
  if ok then ok, fault = session:_run(op, 3) end
  if not ok then return nil, fault end
  return op
end

local function take_rows(self, op)
  local last = C.rg_op_rows(op) - 1
  if self._lock then return locking.rows(self._session, self._type, op, 0, last) end
  return self._session:_rows(self._type, op, 0, last)
end

local function fetch(self, offset, limit)
  local op, fault = run(self, ROWS, offset, limit)
  if not op then return nil, fault end
  local list
  list, fault = take_rows(self, op)
  native.done(op)
  return list, fault
end

--- Asks only the shard of a value of the field that rows are spread by (an entity or its id, for a
--- reference), when the condition does not tell it itself.
---@param value any
---@return regolith.Query self
function Query:at(value)
  local S = self._type
  if not S.shards then error(string.format("%s has no shards", S.T.name), 2) end
  if not shards.of_value(S.shards, value) then error(string.format("the value tells no shard of %s", S.T.name), 2) end
  self._plan.values, self._plan.by_id = { value }, false
  return self
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

--- Waits first until what was queued so far is applied, so that it is found; TIMEOUT when that takes
--- longer.
---@param timeout_ms? integer [30000]
---@return regolith.Query self
function Query:drained(timeout_ms)
  if timeout_ms ~= nil and options.integer(1)(timeout_ms) then error("drained takes milliseconds", 2) end
  self._drained = timeout_ms or 30000
  return self
end

--- Locks the rows found until the end of the transaction that the session is in.
---@param mode "share"|"update"
---@param opts? { nowait: boolean?, skip_locked: boolean? }
---@return regolith.Query self
function Query:lock(mode, opts)
  local given = { lock = mode }
  for name, v in pairs(options.require("lock", opts, locking.OPTIONS)) do given[name] = v end
  options.require("lock", given, locking.OPTIONS)
  self._lock = locking.number(self._session, self._type.T, given, "lock", 2)
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
  local list
  list, fault = take_rows(self, op)
  if not list then return errors.results(fault) end
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

--- Does the text hold a word that may name further tables?
local function reads_more(text)
  local bare = text:gsub("'[^']*'", ""):gsub('"[^"]*"', ""):gsub("`[^`]*`", ""):lower()
  return bare:find "%f[%w_]select%f[^%w_]" ~= nil
end

--- Has the answer come from the cache, when nothing of the tables read was written since it was filled. Of
--- an entity with `cache = { queries = true }`; what sub-queries read besides is to be named.
---@param ttl_s number
---@param tables? regolith.Entity[] further entities whose tables are read
---@return regolith.Query self
function Query:cached(ttl_s, tables)
  if type(ttl_s) ~= "number" or not (ttl_s >= 0.001 and ttl_s <= 1e9) then
    error("cached takes a number of seconds", 2)
  end
  if tables == nil and reads_more(self._where) then
    error("cached: the search has a sub-query; name the entities that it reads, as in cached(60, { Team })", 2)
  end
  if tables ~= nil and type(tables) ~= "table" then error("cached takes a list of entities", 2) end
  local list = {}
  for i, entity in ipairs(tables and (entities.is(tables) and { tables } or tables) or {}) do
    list[i] = self._session:_type(entity, 2)
  end
  for _, S in ipairs { self._type, unpack(list) } do
    if not S.T.entity.cache.queries then
      error(string.format("searches of '%s' are not cached: it needs cache = { queries = true }", S.T.name), 2)
    end
  end
  if self._type.T.entity.shards then error("cached: searches over shards are not cached", 2) end
  self._ttl_ms, self._tables = ttl_s * 1000, list
  return self
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
  local plan = S.shards and route.plan(S, where, ...)
  if plan and plan.wrong and not route.is_single(S, plan) then
    error(string.format("a search of several shards of %s %s", S.T.name, plan.wrong), 3)
  end
  return setmetatable({
    _session = session, _type = S, _where = text, _params = params, _n = n, _offset = 0, _limit = 0, _plan = plan,
  }, Query)
end

return M
