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
local put, direct_of, of_row = write.put, assign.direct, shards.of_row
local CHANGES = tonumber(C.RG_EXPECT_CHANGES)
local numbers = ffi.new "uint32_t[4096]"
local next, pairs, type = next, pairs, type

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

--- Raises unless a value of that name can be expected.
local function check_value(T, name, v, level)
  if type(name) ~= "string" then error(EITHER, level + 1) end
  if type(v) == "table" and literal.is(v) then
    error(string.format("cas: what is expected of '%s' is a value", name), level + 1)
  end
  assign.is_direct(T, name, level + 1) -- so that it is known from now on
  for _, column in ipairs(assign.columns(T, name, level + 1)) do
    if value_of(T, column, name, v, level + 1) == null and not may_be_null(column) then
      error(string.format("cas: %s.%s is never NULL", T.name, column.path), level + 1)
    end
  end
end

local PLAIN = { string = true, number = true, boolean = true }

--- Raises unless the table can be what is expected. (The loop comes behind the first name, so that calls with
--- one can be compiled in one piece; so elsewhere.)
local function check_map(T, map, level)
  local direct = direct_of(T)
  local name, v = next(map)
  if not (direct[name] and PLAIN[type(v)]) then check_value(T, name, v, level + 1) end
  name, v = next(map, name)
  while name ~= nil do
    if not (direct[name] and PLAIN[type(v)]) then check_value(T, name, v, level + 1) end
    name, v = next(map, name)
  end
end

--- What a flush with cas = "changes" expects of each row that it changes, and an update besides the fields
--- that it names.
M.changes = { columns = {}, flags = CHANGES }

local function take_word(T, cas, changes, level)
  if cas == "version" then return { columns = { version_of(T, level + 1) } } end
  if cas ~= "changes" then
    error(string.format("cas = \"%s\": it %s%s", cas, FORMS, suggest.hint(cas, { "changes", "version" })), level + 1)
  end
  if next(changes) == nil then
    error("cas = \"changes\": nothing is changed, so nothing would be compared", level + 1)
  end
  for name in pairs(changes) do assign.columns(T, name, level + 1) end
  return M.changes
end

local function take_names(T, cas, level)
  for name in pairs(cas) do
    if type(name) ~= "number" or type(cas[name]) ~= "string" then
      error(EITHER, level + 1)
    end
  end
  return { columns = M.columns(T, cas, level + 1) }
end

--- Checks the option; raises unless something is left to compare.
---@param changes table the fields that are changed, by name
---@return table what for stage
---@return boolean by_value it is a table of expected values by name, the caller's
function M.parse(T, cas, changes, level)
  if type(cas) == "string" then
    local what = take_word(T, cas, changes, level + 1)
    return what, false
  end
  if type(cas) ~= "table" then error("cas " .. FORMS, level + 1) end
  if next(cas) == nil then error("cas is empty: nothing would be compared", level + 1) end
  if cas[1] == nil then
    check_map(T, cas, level + 1)
    return cas, true
  end
  local what = take_names(T, cas, level + 1)
  return what, false
end

--- Writes the numbers of columns into a C array; how many.
function M.fill(array, columns)
  for i, column in ipairs(columns) do array[i - 1] = column.number end
  return #columns
end

local function put_other(T, name, v, row)
  local rc = 0
  for _, column in ipairs(assign.columns(T, name, 1)) do
    if rc >= 0 then rc = put(T.builder, column, value_of(T, column, name, v, 1), T, row) end
  end
  return rc
end

local function put_value(T, direct, name, v, row)
  local column = direct[name]
  if column and PLAIN[type(v)] then return put(T.builder, column, v, T, row) end
  return put_other(T, name, v, row)
end

--- Is a value what the row holds? (A document's text may differ from that of its value.)
local function is_held(T, column, v, row)
  return column and PLAIN[type(v)] and column.kind.group ~= "json" and T.readers[column](row) == v
end

--- The columns of what is expected, when that is what was read: how many, else nil. The row tells their values.
local function fill_held(T, direct, map, row)
  local name, v = next(map)
  if not is_held(T, direct[name], v, row) then return nil end
  numbers[0] = direct[name].number
  local n = 1
  name, v = next(map, name)
  while name ~= nil do
    if not is_held(T, direct[name], v, row) then return nil end
    numbers[n] = direct[name].number
    n = n + 1
    name, v = next(map, name)
  end
  return n
end

--- Stages what is expected of a row when that is what was read; nil when it is not, or is more than plain values.
function M.stage_held(op, S, map, row)
  local n = fill_held(S.T, direct_of(S.T), map, row)
  return n and C.rg_op_flush_expect(op, S.number, nil, numbers, n, 0, err)
end

local function stage_values(op, S, number, map, row)
  local T, direct = S.T, direct_of(S.T)
  local builder, n = T.builder, fill_held(T, direct, map, row)
  if n then return C.rg_op_flush_expect(op, number, nil, numbers, n, 0, err) end
  C.rg_builder_reset(builder)
  local name, v = next(map)
  local rc = put_value(T, direct, name, v, row)
  name, v = next(map, name)
  while name ~= nil and rc >= 0 do
    rc = put_value(T, direct, name, v, row)
    name, v = next(map, name)
  end
  if rc < 0 then return rc end
  return C.rg_op_flush_expect(op, number, builder, numbers, 0, 0, err)
end

--- The columns of what is changed, for the shorthand: how many.
local function fill_changes(T, changes)
  local n = 0
  for name in pairs(changes) do
    local columns = assign.columns(T, name, 1)
    for i = 1, #columns do
      numbers[n] = columns[i].number
      n = n + 1
    end
  end
  return n
end

--- Tells the operation what has to hold for the item that comes next.
---@param what table from parse
---@param by_value boolean
---@param changes table? the values of the update, by name
---@param row ffi.cdata* as it was read
---@return integer rc
function M.stage(op, S, what, by_value, changes, row)
  local number = of_row(S, row)
  if by_value then return stage_values(op, S, number, what, row) end
  local n
  if what.flags and changes then n = fill_changes(S.T, changes) else n = M.fill(numbers, what.columns) end
  return C.rg_op_flush_expect(op, number, nil, numbers, n, what.flags or 0, err)
end

return M
