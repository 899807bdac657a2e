-- SPDX-License-Identifier: MIT
-- SQL text with ? parameters on the way to the engine, and result sets on the way back.

local native = require "regolith.native"
local options = require "regolith.options"
local record = require "regolith.record"

local C, ffi, null, err = native.C, native.ffi, native.null, native.err
local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

local M = {}

-- ---- placeholders -------------------------------------------------------------------------------

--- Where a quoted string, an identifier or a comment that starts at i ends; nil when none starts.
local function skip(text, i)
  local c = text:sub(i, i)
  if c == "'" or c == '"' then
    local at = i + 1
    while at <= #text do
      local d = text:sub(at, at)
      if d == "\\" then at = at + 1
      elseif d == c then return at end
      at = at + 1
    end
    return #text
  end
  if c == "`" then return text:find("`", i + 1, true) or #text end
  if c == "#" or text:find("^%-%-%s", i) then return text:find("\n", i, true) or #text end
  if text:sub(i, i + 1) == "/*" then
    local _, last = text:find("*/", i + 2, true)
    return last or #text
  end
end

M.skip = skip

--- A name as an identifier of SQL.
---@param name string
---@return string
function M.quoted(name) return "`" .. name:gsub("`", "``") .. "`" end

--- Positions of the placeholders of a text.
local function placeholders(text)
  local found, i = {}, 1
  while true do
    i = text:find("[?'\"`#/%-]", i)
    if not i then return found end
    if text:byte(i) == 63 then found[#found + 1] = i else i = skip(text, i) or i end
    i = i + 1
  end
end

--- What a parameter is sent as: an entity stands for its id.
local function is_list(v)
  return type(v) == "table" and not record.type_of(v)
end

--- What a list becomes: text in place of the placeholder, how many characters after it are replaced
--- too. An empty list is no SQL: `IN` it is false, `NOT IN` it is true, for NULL as well.
---@return string text
---@return integer more
local function list_text(text, at, n, level)
  local before, after = text:sub(1, at - 1), text:sub(at + 1)
  local inside = before:match "%(%s*$" and after:match "^%s*%)"
  if n > 0 then
    local marks = string.rep("?", n, ", ")
    return inside and marks or "(" .. marks .. ")", 0
  end
  local word = before:upper():gsub("%s*%(?%s*$", "")
  if not word:match "%f[%w]IN$" then error("an empty list stands only after IN or NOT IN", level + 1) end
  local answer = word:match "%f[%w]NOT%s+IN$" and "IS NOT TRUE" or "IS TRUE"
  if inside then return "NULL) " .. answer, #inside end
  return "(NULL) " .. answer, 0
end

--- Raises for what cannot be a parameter.
local function check_param(v, i, level)
  local kind = type(v)
  if kind == "nil" or kind == "number" or kind == "string" or kind == "boolean" then return end
  if kind == "cdata" and (ffi.istype(int64, v) or ffi.istype(uint64, v)) then return end
  if v == null or record.type_of(v) then return end
  error(string.format("parameter %d is a %s, which SQL does not know", i, kind), level + 1)
end

--- Expands list parameters. Raises (at `level`) when the number or the kind of parameters does not fit.
---@param level integer of the caller to blame
---@param text string
---@return string text
---@return any[] params flat
---@return integer n
function M.expand(level, text, ...)
  local n = select("#", ...)
  local at = placeholders(text)
  if #at ~= n then
    error(string.format("the SQL has %d placeholders, %d parameters were given", #at, n), level + 1)
  end
  local given, flat, count = { ... }, {}, 0
  local parts, from = {}, 1
  for i = 1, n do
    local v = given[i]
    if is_list(v) then
      parts[#parts + 1] = text:sub(from, at[i] - 1)
      if next(v, #v > 0 and #v or nil) ~= nil then options.length("parameter " .. i, v, level + 2) end
      local marks, more = list_text(text, at[i], #v, level + 1)
      parts[#parts + 1] = marks
      from = at[i] + 1 + more
      for _, item in ipairs(v) do
        check_param(item, i, level + 1)
        count = count + 1
        flat[count] = item
      end
    else
      check_param(v, i, level + 1)
      count = count + 1
      flat[count] = v
    end
  end
  if from > 1 then text = table.concat(parts) .. text:sub(from) end
  return text, flat, count
end

local function add_param(op, v)
  local kind = type(v)
  if kind == "number" then return C.rg_op_param_number(op, v, err) end
  if kind == "string" then return C.rg_op_param_string(op, v, #v, err) end
  if kind == "boolean" then return C.rg_op_param_number(op, v and 1 or 0, err) end
  if kind == "table" then return add_param(op, v.id) end
  if kind ~= "cdata" then return C.rg_op_param_null(op, err) end
  if ffi.istype(int64, v) then return C.rg_op_param_i64(op, v, err) end
  return C.rg_op_param_u64(op, v, err)
end

--- Adds the parameters that expand has found to be fine; 0 or a negative code.
function M.bind(op, params, n)
  for i = 1, n do
    local rc = add_param(op, params[i])
    if rc < 0 then return rc end
  end
  return 0
end

-- ---- results ------------------------------------------------------------------------------------

local cell, cell_len = ffi.new "const char *[1]", ffi.new "size_t[1]"
local NULL_CELL, DOUBLE = tonumber(C.RG_CELL_NULL), tonumber(C.RG_CELL_DOUBLE)
local I64, U64 = tonumber(C.RG_CELL_I64), tonumber(C.RG_CELL_U64)

--- An integer's digits as a number when that is exact, else as they are.
local function integer(text)
  local v = tonumber(text)
  if v <= 9007199254740991 and v >= -9007199254740991 then return v end
  return text
end

local function read_cell(op, set, row, col)
  local kind = C.rg_op_cell(op, set, row, col, cell, cell_len)
  if kind == NULL_CELL then return nil end
  local text = ffi.string(cell[0], cell_len[0])
  if kind == I64 or kind == U64 then return integer(text) end
  if kind == DOUBLE then return tonumber(text) end
  return text
end

--- One result set as an array of rows by column name.
---@param op ffi.cdata*
---@param set integer from 0
---@return table[]
function M.rows(op, set)
  local names, rows = {}, {}
  for col = 0, C.rg_op_set_columns(op, set) - 1 do
    names[col] = ffi.string(C.rg_op_column_name(op, set, col))
  end
  for i = 0, C.rg_op_set_rows(op, set) - 1 do
    local row = {}
    for col = 0, #names do
      if names[col] then row[names[col]] = read_cell(op, set, i, col) end
    end
    rows[i + 1] = row
  end
  return rows
end

--- All result sets of an operation.
---@return table[][]
function M.sets(op)
  local sets = {}
  for set = 0, C.rg_op_sets(op) - 1 do sets[set + 1] = M.rows(op, set) end
  return sets
end

return M
