-- SPDX-License-Identifier: MIT
-- Reading by the values of an index, reading all, and searching.

local errors = require "regolith.err"
local locking = require "regolith.locking"
local native = require "regolith.native"
local options = require "regolith.options"
local query = require "regolith.query"
local record = require "regolith.record"
local route = require "regolith.route"
local sql = require "regolith.sql"
local suggest = require "regolith.suggest"
local write = require "regolith.codec.write"

local C, err = native.C, native.err

local function index_of(S, name, level)
  local entity = S.T.entity
  local index = entity.by_index[name]
  if index then return index end
  error(string.format("%s has no index '%s'%s", entity.name, tostring(name), suggest.hint(name, entity.by_index)),
    level + 1)
end

--- Its fields as a table of their values is written.
local function fields_of(index)
  local paths = {}
  for i, column in ipairs(index.columns) do paths[i] = column.path end
  return "{ " .. table.concat(paths, ", ") .. " }"
end

--- The values of an index's columns: one value, a list in the index's order, or a table by field.
local function key_values(index, given, level)
  local columns, values = index.columns, {}
  local listed = type(given) == "table" and not record.type_of(given)
  if not listed then
    if #columns ~= 1 then
      error(string.format("the index '%s' takes %d values, as %s", index.name, #columns, fields_of(index)), level + 1)
    end
    given = { given }
  end
  for i, column in ipairs(columns) do
    local v = given[i]
    if v == nil then v = given[column.path] end
    if v == nil then v = given[column.access[#column.access]] end
    if v == nil then
      error(string.format("the index '%s' needs a value for '%s' (regolith.null for NULL)", index.name, column.path),
        level + 1)
    end
    values[i] = v
  end
  return values
end

--- What stands where options belong may be one more value of the index.
local function check_options(what, index, opts)
  if opts == nil or type(opts) == "table" and not record.type_of(opts) then return end
  error(string.format("%s: options must be a table; the values of an index come as one, here %s", what,
    fields_of(index)), 3)
end

--- Looks an index up: a DONE operation with the rows, or nil and the error.
local function look_up(self, S, index, given, level, locks)
  local T = S.T
  local builder, values = T.builder, {}
  C.rg_builder_reset(builder)
  if not index.virtual then
    values = key_values(index, given, level + 1)
    for i, column in ipairs(index.columns) do
      if write.put(builder, column, values[i], T, nil) < 0 then
        local e = errors.from_c(err)
        e.entity = T.name
        return nil, e
      end
    end
  end
  local fault
  local number, numbers = S.number, nil
  if not number then
    numbers, fault = route.numbers(self._orm, S, route.index_plan(S, index, values))
    if not numbers then return nil, fault end
    number = numbers[1]
    C.rg_builder_reset(builder) -- the question for the shards may have let another coroutine in
    for i, column in ipairs(index.columns) do write.put(builder, column, values[i], T, nil) end
  end
  local op
  op, fault = self:_own(C.rg_op_lookup(self._orm._engine, number, index.number, builder, err))
  if not op then return nil, fault end
  for i = 2, numbers and #numbers or 1 do
    if C.rg_op_also(op, numbers[i], err) < 0 then return nil, errors.from_c(err) end
  end
  local ok
  ok, fault = locking.apply(op, locks)
  if ok then ok, fault = self:_run(op, level + 1) end
  if not ok then return nil, fault end
  return op
end

local PAGE = { page = options.integer(1), size = options.integer(1) }
local ALL_BY = { page = PAGE.page, size = PAGE.size }
for name, check in pairs(locking.OPTIONS) do ALL_BY[name] = check end

local M = {}

---@param Session table
function M.install(Session)
  --- The one entity with those values of a unique index, or nil. Looks at what is stored: changes of
  --- this session that are not flushed yet are not seen.
  ---@param entity regolith.Entity
  ---@param index string name of a unique index
  ---@param value any its value, or a table of its values
  ---@param opts? { lock: "share"|"update"?, nowait: boolean?, skip_locked: boolean? } inside a transaction
  ---@return table? entity
  ---@return regolith.Err? err
  ---@return integer? errno
  ---@return string? sqlstate
  function Session:by(entity, index, value, opts)
    local S = self:_type(entity, 2)
    local def = index_of(S, index, 2)
    if not def.unique then error(string.format("the index '%s' is not unique; use all_by", index), 2) end
    check_options("by", def, opts)
    opts = options.require("by", opts, locking.OPTIONS)
    local locks = locking.number(self, S.T, opts, "by", 2)
    local op, fault = look_up(self, S, def, value, 2, locks)
    if not op then return errors.results(fault) end
    local e
    if C.rg_op_rows(op) > 0 then
      if locks > 0 then e, fault = locking.row(self, S, op, 0) else e = self:_row(S, op, 0) end
    end
    native.done(op)
    if fault then return errors.results(fault) end
    return e
  end

  --- The same, never from a replica: for who writes by what is found.
  function Session:_by_primary(entity, index, value)
    self._from_primary = true
    local called, e, fault = pcall(self.by, self, entity, index, value)
    self._from_primary = nil
    if not called then error(e, 0) end
    return e, fault
  end

  --- The entities with those values of an index, ordered by id.
  ---@param entity regolith.Entity
  ---@param index string
  ---@param value any
  ---@param opts? { page: integer?, size: integer?, lock: string?, nowait: boolean?, skip_locked: boolean? }
  ---@return table[]? list
  ---@return integer|regolith.Err total number of all of them, or the error
  function Session:all_by(entity, index, value, opts)
    local S = self:_type(entity, 2)
    local def = index_of(S, index, 2)
    check_options("all_by", def, opts)
    opts = options.require("all_by", opts, ALL_BY)
    local locks = locking.number(self, S.T, opts, "all_by", 2)
    if opts.page and not opts.size then error("all_by: 'page' needs 'size'", 2) end
    local op, fault = look_up(self, S, def, value, 2, locks)
    if not op then return errors.results(fault) end
    local total = C.rg_op_rows(op)
    local first = opts.size and ((opts.page or 1) - 1) * opts.size or 0
    local last = opts.size and math.min(first + opts.size, total) or total
    local list
    if locks > 0 then
      list, fault = locking.rows(self, S, op, first, last - 1)
    else
      list = self:_rows(S, op, first, last - 1)
    end
    native.done(op)
    if not list then return errors.results(fault) end
    return list, total
  end

  --- All entities of a type, ordered by id; from the cache when the entity has `cache = { all = true }`.
  ---@param entity regolith.Entity
  ---@param opts? { page: integer?, size: integer? }
  ---@return table[]? list
  ---@return integer|regolith.Err total
  function Session:all(entity, opts)
    local S = self:_type(entity, 2)
    if S.T.entity.by_index.all and S.T.entity.by_index.all.virtual then
      return self:all_by(entity, "all", nil, opts)
    end
    opts = options.require("all", opts, PAGE)
    local found = query.new(self, S, "1 = 1 ORDER BY " .. sql.quoted(S.T.columns[0].column))
    if opts.size then return found:page_with_count(opts.page or 1, opts.size) end
    local list, fault = found:all()
    if not list then return errors.results(fault) end
    return list, #list
  end

  --- A search by an SQL condition with ? parameters; nothing runs before one of its methods is called.
  --- A list as parameter expands: `id IN ?`.
  ---@param entity regolith.Entity
  ---@param where string
  ---@param ... any
  ---@return regolith.Query
  function Session:search(entity, where, ...)
    local S = self:_type(entity, 2)
    if type(where) ~= "string" then error("search takes an SQL condition", 2) end
    local found = query.new(self, S, where, ...) -- no tail call: an error blames the caller
    return found
  end
end

return M
