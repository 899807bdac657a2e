-- SPDX-License-Identifier: MIT
-- What an entity's table is: a plain table whose metatable belongs to one type of one session.
--
-- The metatable's own members (rg_type, rg_session) are how the rest of the library knows it.

local suggest = require "regolith.suggest"

local getmetatable, rawset, type = getmetatable, rawset, type

local M = {}

--- The runtime type of an entity, or nil when v is none.
---@param v any
---@return regolith.Type?
function M.type_of(v)
  if type(v) ~= "table" then return nil end
  local mt = getmetatable(v)
  return type(mt) == "table" and mt.rg_type or nil
end

--- The session an entity belongs to, or nil.
function M.session_of(v)
  local mt = type(v) == "table" and getmetatable(v)
  return type(mt) == "table" and mt.rg_session or nil
end

--- All names that may be read or assigned, for suggestions.
local function names_of(entity)
  local names = { id = true }
  for key in pairs(entity.keys) do names[key] = true end
  for name in pairs(entity.refs) do names[name] = true end
  for name in pairs(entity.methods) do names[name] = true end
  return names
end

--- Raises for a name the entity does not have.
---@param entity regolith.Entity
---@param name any
---@param level integer
function M.unknown(entity, name, level)
  if entity.methods[name] then error(string.format("'%s' is a method of %s", name, entity.name), level + 1) end
  error(string.format("%s has no field '%s'%s", entity.name, tostring(name), suggest.hint(name, names_of(entity))),
    level + 1)
end

--- The id a value stands for where a reference is expected: an entity's own, or the value.
---@param target string name of the entity referred to
---@param v any
---@param level integer
function M.reference(target, v, level)
  local T = M.type_of(v)
  if not T then
    if type(v) == "table" then error("a reference is an entity or an id, not a table", level + 1) end
    return v
  end
  if T.name ~= target then
    error(string.format("a reference to %s cannot be a %s", target, T.name), level + 1)
  end
  if v.id == nil then
    local session = M.session_of(v)
    local waiting = session and rawget(session, "_waiting")
    local why = waiting and waiting[v] and ": " .. waiting[v].why.message or ""
    error(string.format("the %s has no id before it is flushed; flush it first%s", target, why), level + 1)
  end
  return v.id
end

--- Assigns one member of an entity by the names that code uses: a raw name, or a reference's.
---@param T regolith.Type
---@param e table
---@param name any
---@param v any
---@param level integer
function M.assign(T, e, name, v, level)
  local entity = T.entity
  if entity.keys[name] then
    rawset(e, name, v)
  elseif entity.refs[name] then
    if v ~= nil then v = M.reference(T.target[name], v, level + 1) end
    rawset(e, name .. "_id", v)
  elseif name == "id" then
    rawset(e, "id", v)
  else
    M.unknown(entity, name, level + 1)
  end
end

--- What reads and assigns names that an entity's table does not hold.
---@param T regolith.Type
---@return fun(e: table, name: any): any index
---@return fun(e: table, name: any, v: any) newindex
function M.accessors(T)
  local entity, methods = T.entity, T.entity.methods
  local keys, refs = entity.keys, entity.refs
  local function index(e, name)
    local method = methods[name]
    if method then return method end
    if keys[name] then return nil end
    if refs[name] then return getmetatable(e).rg_session:_follow(e, T, name) end
    if name == "id" then return nil end
    M.unknown(entity, name, 2)
  end
  local function newindex(e, name, v) M.assign(T, e, name, v, 2) end
  return index, newindex
end

--- The metatable of one type's entities in one session. Made for every session: no closures.
---@param session regolith.Session
---@param T regolith.Type
function M.metatable(session, T)
  return {
    rg_type = T, rg_session = session, __name = T.name, __index = T.index, __newindex = T.newindex,
  }
end

--- Reads along a column's access path; nil where a table on the way is missing.
---@param e table
---@param access (string|integer)[]
function M.read(e, access)
  local v = rawget(e, access[1])
  for i = 2, #access do
    if type(v) ~= "table" then return nil end
    v = v[access[i]]
  end
  return v
end

--- Writes along a column's access path, making tables on the way.
function M.write(e, access, v)
  local t = e
  for i = 1, #access - 1 do
    local inner = rawget(t, access[i])
    if type(inner) ~= "table" then
      inner = {}
      rawset(t, access[i], inner)
    end
    t = inner
  end
  rawset(t, access[#access], v)
end

--- A deep copy of a field's value (plain tables; array markers are kept).
function M.copy(v)
  if type(v) ~= "table" then return v end
  local copy = setmetatable({}, getmetatable(v))
  for key, inner in pairs(v) do copy[key] = M.copy(inner) end
  return copy
end

--- Deep equality of two values of a field. A cdata is not the same as the number that it equals.
function M.same(a, b)
  if a == b then return type(a) == type(b) end
  if type(a) ~= "table" or type(b) ~= "table" or M.type_of(a) or M.type_of(b) then return false end
  for key, v in pairs(a) do
    if not M.same(v, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

return M
