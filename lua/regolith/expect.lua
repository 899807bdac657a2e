-- SPDX-License-Identifier: MIT
-- What has to hold of a row for a write to be made: the forms that the option `cas` takes, as columns and
-- values.

local assign = require "regolith.assign"
local literal = require "regolith.literal"
local native = require "regolith.native"
local record = require "regolith.record"
local shards = require "regolith.shards"
local suggest = require "regolith.suggest"
local write = require "regolith.codec.write"

local C, ffi, err, null = native.C, native.ffi, native.err, native.null
local CHANGES = tonumber(C.RG_EXPECT_CHANGES)
local numbers = ffi.new "uint32_t[4096]"

local M = {}

local function add_columns(list, seen, columns)
  for _, column in ipairs(columns) do
    if not seen[column] then list[#list + 1] = column end
    seen[column] = true
  end
end

--- The columns that names stand for, each once.
function M.columns(T, names, level)
  local list, seen = {}, {}
  for _, name in ipairs(names) do add_columns(list, seen, assign.columns(T, name, level + 1)) end
  return list
end

local function version_of(T, level)
  for _, column in ipairs(T.entity.columns) do
    if column.args.version then return column end
  end
  error(string.format("cas = \"version\": %s has no field with version = true", T.name), level + 1)
end

--- The value of one column in what is expected of a field; NULL stands as null.
local function inner_value(column, v)
  for i = 2, #column.access do
    if type(v) ~= "table" then return null end
    v = v[column.access[i]]
  end
  if v == nil then return null end
  return v
end

local function may_be_null(column)
  return column.args.nullable or column.kind.group == "json" or column.kind.name == "ref"
end

local EITHER = "cas is either a list of fields or a table of expected values by field"
local FORMS = "is \"changes\", \"version\", a list of fields or a table of expected values"

--- The value of one column of what is expected of a field: NULL stands as null.
local function value_of(T, column, name, v, level)
  if v == null then return v end
  if T.entity.refs[name] and type(v) == "table" then v = record.reference(T.target[name], v, level + 1) end
  if #column.access == 1 or column.path == name or column.column == name then return v end
  return inner_value(column, v)
end

--- Raises unless the table can be what is expected.
local function take_map(T, map, level)
  for name, v in pairs(map) do
    if type(name) ~= "string" then error(EITHER, level + 1) end
    if type(v) == "table" and literal.is(v) then
      error(string.format("cas: what is expected of '%s' is a value", name), level + 1)
    end
    for _, column in ipairs(assign.columns(T, name, level + 1)) do
      if value_of(T, column, name, v, level + 1) == null and not may_be_null(column) then
        error(string.format("cas: %s.%s is never NULL", T.name, column.path), level + 1)
      end
    end
  end
  return { map = map }
end

--- Turns the option into columns and values; raises unless something is left to compare.
---@param changes table the fields that are changed, by name
function M.resolve(T, cas, changes, level)
  if cas == "version" then return { columns = { version_of(T, level + 1) } } end
  if cas == "changes" then
    if next(changes) == nil then
      error("cas = \"changes\": nothing is changed, so nothing would be compared", level + 1)
    end
    local names = {}
    for name in pairs(changes) do names[#names + 1] = name end
    return { columns = M.columns(T, names, level + 1), flags = CHANGES }
  end
  if type(cas) == "string" then
    error(string.format("cas = \"%s\": it %s%s", cas, FORMS, suggest.hint(cas, { "changes", "version" })), level + 1)
  end
  if type(cas) ~= "table" then error("cas " .. FORMS, level + 1) end
  if next(cas) == nil then error("cas is empty: nothing would be compared", level + 1) end
  if cas[1] == nil then
    local map = take_map(T, cas, level + 1) -- no tail call: an error blames the caller
    return map
  end
  for name in pairs(cas) do
    if type(name) ~= "number" or type(cas[name]) ~= "string" then
      error(EITHER, level + 1)
    end
  end
  return { columns = M.columns(T, cas, level + 1) }
end
--- Writes the numbers of columns into a C array; how many.
function M.fill(array, columns)
  for i, column in ipairs(columns) do array[i - 1] = column.number end
  return #columns
end

--- Tells the operation what has to hold for the item that comes next; row: as it was read.
---@return integer rc
function M.stage(op, S, expect, row)
  local T = S.T
  local number = shards.of_row(S, row)
  if not expect.map then
    local n = M.fill(numbers, expect.columns)
    return C.rg_op_flush_expect(op, number, nil, numbers, n, expect.flags or 0, err)
  end
  local builder = T.builder
  C.rg_builder_reset(builder)
  for name, v in pairs(expect.map) do
    for _, column in ipairs(assign.columns(T, name, 1)) do
      local rc = write.put(builder, column, value_of(T, column, name, v, 1), T, row)
      if rc < 0 then return rc end
    end
  end
  return C.rg_op_flush_expect(op, number, builder, numbers, 0, 0, err)
end

--- What a flush with cas = "changes" expects of each row that it changes.
M.changes = { columns = {}, flags = CHANGES }

return M
