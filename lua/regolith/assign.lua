-- SPDX-License-Identifier: MIT
-- The names that fields go by when several are assigned or named at once.

local record = require "regolith.record"

local M = {}

--- The column that a name means besides an entity's own names: a path, or an SQL name.
local function column_named(T, name)
  local column = T.entity.by_path[name]
  if column then return column end
  for _, c in ipairs(T.entity.columns) do
    if c.column == name then return c end
  end
end

--- Assigns by any name a field goes by: "team", "team_id", "address.city", "score_2".
local function one(T, e, name, v, level)
  local entity = T.entity
  if entity.keys[name] or entity.refs[name] or name == "id" then
    return record.assign(T, e, name, v, level + 1)
  end
  local column = column_named(T, name)
  if not column then record.unknown(entity, name, level + 1) end
  record.write(e, column.access, v)
end

function M.all(T, e, values, level)
  if type(values) ~= "table" then error("the values are a table by field", level + 1) end
  for name, v in pairs(values) do one(T, e, name, v, level + 1) end
end

--- Assigns what is not kept under its own name.
function M.others(T, e, values, level)
  local keys = T.entity.keys
  for name, v in pairs(values) do
    if not keys[name] then one(T, e, name, v, level + 1) end
  end
end

local function collect(node, list)
  if node.column then list[#list + 1] = node.column end
  for _, child in ipairs(node.members or node.items or {}) do collect(child, list) end
end

--- Columns by name, for each type: all that a name stands for, and those whose value has one key of its own
--- in the entity's table.
local known, simple = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })

local function memo(all, T)
  local names = all[T]
  if not names then
    names = {}
    all[T] = names
  end
  return names
end

--- The columns that a name stands for: those of a struct or an array are several. Not to be changed.
---@param T regolith.Type
---@param name any
---@param level integer
---@return regolith.Column[]
function M.columns(T, name, level)
  local names = memo(known, T)
  if names[name] then return names[name] end
  local entity, list = T.entity, {}
  local node = entity.keys[name] or entity.refs[name]
  if node then collect(node, list) end
  if not node then list[1] = column_named(T, name) end
  if #list == 0 then record.unknown(entity, name, level + 1) end
  names[name] = list
  return list
end

--- The columns of a type that stand for themselves, by those names that were asked for so far (is_direct).
---@param T regolith.Type
---@return table<string, regolith.Column>
function M.direct(T) return memo(simple, T) end

--- Does a value of that name go into one column, and lie in the entity's own table?
function M.is_direct(T, name, level)
  if name == "id" then return false end
  local columns = M.columns(T, name, level + 1)
  local is = #columns == 1 and #columns[1].access == 1
  if is then memo(simple, T)[name] = columns[1] end
  return is
end

return M
