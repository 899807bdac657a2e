-- SPDX-License-Identifier: MIT
-- Rows by the values of a unique index: made when they are missing, else changed or left alone. Each
-- step is an ordinary read or write, so that ids, hooks, versions and caches are what they always are;
-- whoever loses a race looks again.

local cas = require "regolith.cas"
local errors = require "regolith.err"
local flush = require "regolith.flush"
local hooks = require "regolith.hooks"
local native = require "regolith.native"
local options = require "regolith.options"
local record = require "regolith.record"
local suggest = require "regolith.suggest"

local null = native.null
local TRIES = 20

local M = {}

--- The value of a column among values by field, under whichever of its names.
local function value_of(values, column)
  local v = values[column.path]
  if v == nil then v = values[column.column] end
  if v == nil then v = values[column.access[1]] end
  for i = 2, #column.access do
    if type(v) ~= "table" or values[column.path] ~= nil then break end
    v = v[column.access[i]]
  end
  if v == nil and column.kind.name == "ref" then v = values[column.path:gsub("_id$", "")] end
  if record.type_of(v) then v = v.id end
  return v
end

local function key_of(index, values)
  local key = {}
  for i, column in ipairs(index.columns) do
    key[i] = value_of(values, column)
    if key[i] == nil then return nil end
  end
  return key
end

--- The unique index to go by: the one named, or the only one whose values are all given.
local function choose(T, values, name, level)
  local found, names = nil, {}
  for _, index in ipairs(T.entity.indexes) do
    if index.unique then names[index.name] = true end
    if index.unique and (name == nil or index.name == name) and key_of(index, values) then
      if found then
        error(string.format("%s: 'by' has to say which unique index is meant", T.name), level + 1)
      end
      found = index
    end
  end
  if found then return found end
  if name ~= nil and not names[name] then
    error(string.format("%s has no unique index '%s'%s", T.name, tostring(name), suggest.hint(name, names)), level + 1)
  end
  error(string.format("%s: the values of a unique index are needed", T.name), level + 1)
end

local function has_null(key)
  for _, v in ipairs(key) do
    if v == null then return true end
  end
  return false
end

--- Those of the values that are not the key's.
local function rest_of(T, index, values, level)
  local assign = require "regolith.assign"
  local rest, keys = {}, {}
  for _, column in ipairs(index.columns) do keys[column] = true end
  for name, v in pairs(values) do
    local columns = name ~= "id" and assign.columns(T, name, level + 1) or {}
    local all = true
    for _, column in ipairs(columns) do all = all and keys[column] end
    if not all then rest[name] = v end
  end
  return rest
end

--- One new entity, written by itself: it, or nil and the error (then the session has forgotten it).
local function insert(self, entity, values)
  local e = self:new(entity, values)
  local S = self._types[entity]
  local ok, fault = hooks.before(S.T, "insert", e, self)
  if ok then ok, fault = hooks.place_after(S.T, "insert", e, self) end
  if ok then ok, fault = flush.insert(self, S, e) end
  if ok then return e end
  if self._fresh[e] then self:delete(e) end
  return nil, fault
end

--- Finds or makes: the entity and whether it was made.
local function find_or_make(self, entity, values, index, key, make)
  local distinct = has_null(key)
  for _ = 1, TRIES do
    local e, fault
    if not distinct then e, fault = self:_by_primary(entity, index.name, key) end
    if fault then return nil, fault end
    if e then return e, false end
    e, fault = insert(self, entity, make or values)
    if e then return e, true end
    if fault.code ~= "DUPLICATE_KEY" or (fault.index and fault.index ~= index.name) then return nil, fault end
  end
  return nil, errors.new("CONFLICT", string.format("rows of %s come and go all the time", entity.name),
    { entity = entity.name, retriable = true })
end

local function plain_values(values, level)
  if type(values) ~= "table" then error("the values are a table by field", level + 1) end
  local plain = {}
  local literal = require "regolith.literal"
  for name, v in pairs(values) do
    if not literal.is(v) then plain[name] = v end
  end
  return plain
end

local BY = { by = options.string }
local UPSERT = { by = options.string, update = options.table, insert = options.table, cas = options.any }

--- What an upsert writes to a row that is there.
local function changes_of(S, index, values, opts, level)
  if opts.update == nil then return rest_of(S.T, index, values, level + 1) end
  if opts.update[1] == nil then return opts.update end
  local changes = {}
  for _, name in ipairs(opts.update) do changes[name] = values[name] end
  return changes
end

local function insert_values(values, opts, level)
  local all = plain_values(values, level + 1)
  for name, v in pairs(opts.insert or {}) do all[name] = v end
  return all
end

---@param Session table
function M.install(Session)
  --- The entity with those values of a unique index; made from the values when there is none.
  ---@param entity regolith.Entity
  ---@param values table by field
  ---@param opts? { by: string? } name of the unique index, when the values hold several
  ---@return table? entity
  ---@return boolean|regolith.Err made
  ---@return integer? errno
  ---@return string? sqlstate
  function Session:insert_if_missing(entity, values, opts)
    local S = self:_type(entity, 2)
    opts = options.require("insert_if_missing", opts, BY)
    local plain = plain_values(values, 2)
    local index = choose(S.T, plain, opts.by, 2)
    local e, made = find_or_make(self, entity, plain, index, key_of(index, plain))
    if not e then return errors.results(made) end
    return e, made
  end

  --- Makes the row, or changes the one that has those values of a unique index: all values but the
  --- index's, or `update` (names, or values). `insert` adds values for a new row; `cas` says what has to
  --- hold of one that is there.
  ---@param entity regolith.Entity
  ---@param values table by field
  ---@param opts? { by: string?, update: table?, insert: table?, cas: table|string|nil }
  ---@return regolith.Answer? answer with `entity`, and `inserted` when it was made
  ---@return regolith.Err? err
  function Session:upsert(entity, values, opts)
    local S = self:_type(entity, 2)
    opts = options.require("upsert", opts, UPSERT)
    local plain = insert_values(values, opts, 2)
    local index = choose(S.T, plain, opts.by, 2)
    local changes = changes_of(S, index, values, opts, 2)
    for _ = 1, TRIES do
      local e, made = find_or_make(self, entity, plain, index, key_of(index, plain))
      if not e then return errors.results(made) end
      if made then
        return { outcome = "applied", applied = true, changed = true, inserted = true, entity = e }
      end
      local _, place = self:_need(e, 2)
      local answer, fault = cas.update(self, S, e, place, changes, { cas = opts.cas }, 2)
      if not answer then return errors.results(fault) end
      answer.entity = e
      if not answer.missing then return answer end
      self:discard(e)
      flush.forget(self, S, e, place) -- somebody has deleted it: look again
    end
    return errors.results(errors.new("CONFLICT", string.format("rows of %s come and go all the time", entity.name)))
  end
end

return M
