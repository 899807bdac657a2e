-- SPDX-License-Identifier: MIT
-- References: following one, many of one entity, and one of many entities in a single step.

local errors = require "regolith.err"
local native = require "regolith.native"
local record = require "regolith.record"
local suggest = require "regolith.suggest"

local function target_type(self, T, name)
  return self:_type(self._orm._by_name[T.target[name]], 3)
end

--- Ids that a list of entities refers to by one reference field.
local function referred(list, name)
  local ids, key = {}, name .. "_id"
  for _, e in ipairs(list) do
    local id = rawget(e, key)
    if id ~= nil and id ~= native.null then ids[#ids + 1] = id end
  end
  return ids
end

-- ---- the members of one collection --------------------------------------------------------------

--- Lists that the session has handed out lately, as long as anybody holds them. They are looked at only
--- when a reference is not there yet.
local KEPT_LISTS = 16
local weak = { __mode = "v" }

local function position_in(list, e)
  for i = 1, list.n or #list do
    if list[i] == e then return i end
  end
end

--- The list that the entity came in, the latest first.
local function list_of(self, e)
  local lists = self._lists
  if not lists then return nil end
  for k = lists.last, lists.last - KEPT_LISTS + 1, -1 do
    local list = lists[(k - 1) % KEPT_LISTS + 1]
    if list and position_in(list, e) then return list end
  end
end

--- What the members of a list refer to by one field, that list's entities of the type only.
local function referred_by_all(list, T, name)
  local ids, key = {}, name .. "_id"
  for i = 1, list.n or #list do
    local e = list[i]
    local id = e and record.type_of(e) == T and rawget(e, key)
    if type(id) == "number" and id % 1 == 0 then ids[#ids + 1] = id end
  end
  return ids
end

local M = {}

---@param Session table
function M.install(Session)
  --- Remembers a list of entities: following a reference of one of them loads it for all of them.
  function Session:_remember(list)
    local lists = self._lists
    if not lists then
      lists = setmetatable({ last = 0 }, weak)
      self._lists = lists
    end
    lists.last = lists.last + 1
    lists[(lists.last - 1) % KEPT_LISTS + 1] = list
  end

  --- What `entity.team` reads: raises when the read fails, because an expression has one value.
  function Session:_follow(e, T, name)
    local id = rawget(e, name .. "_id")
    if id == nil or id == native.null then return nil end
    local S = target_type(self, T, name)
    local list = type(id) == "number" and not S.places[id] and list_of(self, e)
    if list then
      local some, fault = self:get_many(S.T.entity, referred_by_all(list, T, name))
      if not some then error(fault, 0) end
    end
    local found, fault = self:get(S.T.entity, id)
    if fault then error(fault, 0) end
    return found
  end

  --- The entities of a `refs` field, in order; missing ones are false.
  ---@param e table
  ---@param name string
  ---@return table[]? list
  ---@return regolith.Err? err
  function Session:refs(e, name)
    local T = record.type_of(e)
    local node = T and T.entity.keys[name]
    if not node or not node.column or node.column.kind.name ~= "refs" then
      error(string.format("'%s' is not a field of references", tostring(name)), 2)
    end
    local target = target_type(self, T, name).T.entity
    local found, fault = self:get_many(target, rawget(e, name) or {})
    if not found then return errors.results(fault) end
    for i = 1, found.n do found[i] = found[i] or false end
    return found
  end

  --- Loads what a reference field refers to: of one entity (returns it), or of a list of entities of one
  --- type in one step (returns the list), so that reading the field afterwards waits for nothing.
  ---@param what table entity, or list of entities
  ---@param name string a `ref` field; of one entity also a `refs` field
  ---@return table? loaded
  ---@return regolith.Err? err
  function Session:load(what, name)
    local T = record.type_of(what)
    if T and T.entity.keys[name] then return self:refs(what, name) end
    local list = T and { what } or what
    if type(list) ~= "table" then error("load takes an entity or a list of entities", 2) end
    T = T or record.type_of(list[1])
    if not T then return list end
    if not T.entity.refs[name] then
      error(string.format("'%s' is not a reference of %s%s", tostring(name), T.name,
        suggest.hint(name, T.entity.refs)), 2)
    end
    local S = target_type(self, T, name)
    local found, fault = self:get_many(S.T.entity, referred(list, name))
    if not found then return errors.results(fault) end
    if list ~= what then return self:_follow(what, T, name) end
    return what
  end
end

return M
