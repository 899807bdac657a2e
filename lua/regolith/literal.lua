-- SPDX-License-Identifier: MIT
-- Values that the server computes: what db:update takes instead of a value, for changes that need not
-- know what is there.

local native = require "regolith.native"
local options = require "regolith.options"
local expand, quoted = require("regolith.sql").expand, require("regolith.sql").quoted

---@class regolith.Expression
---@field what string
---@field sql string? of a literal
---@field value any
---@field params table
---@field opts table
---@field make function its SQL for a column; a function is no JSON either, in whose values no expression may hide
local Expression = { __name = "regolith.Expression" }
Expression.__index = Expression

function Expression:__tostring() return "regolith." .. self.what end

local M = {}

local WHOLE = "^u?int%d+$"
local TIMES = { date = "DATE", datetime = "DATETIME(6)", time = "TIME(6)" }

local MAKERS = {}

local function new(what, value, opts)
  return setmetatable({ what = what, value = value, opts = opts or {}, make = MAKERS[what] }, Expression)
end

---@return boolean
function M.is(v) return getmetatable(v) == Expression end

-- ---- for the application ------------------------------------------------------------------------

--- Any SQL expression with ? parameters; columns go by their SQL names.
---@param sql string
---@param ... any
---@return regolith.Expression
function M.literal(sql, ...)
  if type(sql) ~= "string" then error("literal takes an SQL expression", 2) end
  local e = new("literal")
  e.sql, e.params, e.n = expand(2, sql, ...)
  e.params.n = e.n
  return e
end

local function number(v) return type(v) == "number" or type(v) == "cdata" or (type(v) == "string" and tonumber(v)) end
local function figure(v) if not number(v) then return "must be a number" end end
local BOUNDS = { min = figure, max = figure, clamp = options.boolean }

--- Adds to a number; NULL counts as 0. A result beyond `min` or `max` is a conflict and nothing is
--- written, or with `clamp` becomes that bound.
---@param by? number|string default 1
---@param opts? { min: number|string|nil, max: number|string|nil, clamp: boolean? }
---@return regolith.Expression
function M.increment(by, opts)
  if by == nil then by = 1 end
  if not number(by) then error("increment takes a number", 2) end
  return new("increment", by, options.require("increment", opts, BOUNDS))
end

--- The smaller (larger) of what is there and the value; NULL gives way.
---@param v any
---@return regolith.Expression
function M.least(v) return new("least", v) end
---@param v any
---@return regolith.Expression
function M.greatest(v) return new("greatest", v) end

local SCALARS = { string = true, number = true, boolean = true, cdata = true }
local function scalar(v) return SCALARS[type(v)] end

--- Appends to the array of a JSON field (NULL is an empty one); with `unique` only what is not there.
---@param v any
---@param opts? { unique: boolean? }
---@return regolith.Expression
function M.append(v, opts)
  opts = options.require("append", opts, { unique = options.boolean })
  if v == nil then error("append takes a value (regolith.null for null)", 2) end
  if opts.unique and not scalar(v) then error("append with 'unique' takes a string, number or boolean", 2) end
  return new("append", v, opts)
end

--- Removes every element of the array of a JSON field that equals the value.
---@param v string|number|boolean
---@return regolith.Expression
function M.remove(v)
  if not scalar(v) then error("remove takes a string, number or boolean", 2) end
  return new("remove", v)
end

-- ---- as SQL -------------------------------------------------------------------------------------

local function unfit(self, column, wanted)
  return nil, string.format("%s: %s is for %s, not for a %s field", column.path, self.what, wanted, column.kind.name)
end

--- How a number or time of this column is written so that nothing is rounded.
local function exact(column)
  local name = column.kind.name
  if name:match(WHOLE) then return "CAST(%s AS DECIMAL(65,0))" end
  if name == "decimal" then return string.format("CAST(%%s AS DECIMAL(65,%d))", column.args.scale or 2) end
  if name == "float" or name == "double" then return "(%s+0e0)" end
end

local function add_bound(self, sql, params, bound, sign)
  local guard, all = string.format("%s %s %%s", sql, sign), {}
  for i, v in ipairs(params) do all[i] = v end
  all[#all + 1] = self.opts[bound]
  return guard, all
end

local function increment(self, column, name)
  local form = exact(column)
  if not form then return unfit(self, column, "numbers") end
  local value = string.format(form, "?")
  local sum = string.format("(%s+%s)", string.format(form, "COALESCE(" .. name .. ",0)"), value)
  local params, guards, guard_params = { self.value }, {}, {}
  local result = sum
  for _, bound in ipairs { { "min", ">=", "GREATEST" }, { "max", "<=", "LEAST" } } do
    local limit = self.opts[bound[1]]
    if limit ~= nil and self.opts.clamp then
      result = string.format("%s(%s,%s)", bound[3], result, value)
      params[#params + 1] = limit
    elseif limit ~= nil then
      local guard, all = add_bound(self, sum, { self.value }, bound[1], bound[2])
      guards[#guards + 1] = string.format(guard, value)
      for _, v in ipairs(all) do guard_params[#guard_params + 1] = v end
    end
  end
  return result, params, table.concat(guards, " AND "), guard_params
end

local function extreme(self, column, name)
  local form = exact(column)
  if not form and TIMES[column.kind.name] then form = "CAST(%s AS " .. TIMES[column.kind.name] .. ")" end
  if not form then return unfit(self, column, "numbers and times") end
  local value = string.format(form, "?")
  local sql = string.format("%s(COALESCE(%s,%s),%s)", self.what:upper(), name, value, value)
  return sql, { self.value, self.value }, "", {}
end

--- The array; what is neither an array nor empty is left alone by the guard.
local ARRAY = "IF(COALESCE(JSON_TYPE(%s),'NULL')='NULL','[]',%s)"
local IS_ARRAY = "COALESCE(JSON_TYPE(%s),'NULL') IN ('NULL','ARRAY')"
local IS_IT = "JSON_CONTAINS(k.v,?) AND JSON_CONTAINS(?,k.v)"
local REST = "(SELECT COALESCE(JSON_ARRAYAGG(JSON_EXTRACT(k.v,'$')),'[]') FROM %s WHERE NOT (%s))"
local ELEMENTS = "JSON_TABLE(%s,'$[*]' COLUMNS(v JSON PATH '$')) k"

local function json_array(self, column, name)
  local group = column.kind.group
  if group ~= "json" and group ~= "refs" then return unfit(self, column, "JSON arrays") end
  local text, why = native.json_encode(self.value)
  if not text then return nil, column.path .. ": " .. tostring(why) end
  local array = string.format(ARRAY, name, name)
  local elements, guard = string.format(ELEMENTS, array), string.format(IS_ARRAY, name)
  if self.what == "remove" then
    return string.format(REST, elements, IS_IT), { text, text }, guard, {}
  end
  local appended = string.format("JSON_ARRAY_APPEND(%s,'$',JSON_EXTRACT(?,'$'))", array)
  if not self.opts.unique then return appended, { text }, guard, {} end
  return string.format("IF(EXISTS(SELECT 1 FROM %s WHERE %s),%s,%s)", elements, IS_IT, array, appended),
    { text, text, text }, guard, {}
end

local function literal(self) return self.sql, self.params, "", {} end

MAKERS.literal, MAKERS.increment, MAKERS.least, MAKERS.greatest = literal, increment, extreme, extreme
MAKERS.append, MAKERS.remove = json_array, json_array

--- The expression for a column: SQL and its parameters, a condition and its parameters. nil and why
--- not, when the column is not of a kind for it.
---@param self regolith.Expression
---@param column regolith.Column
---@return string? sql
---@return table|string params
---@return string? guard
---@return table? guard_params
function M.sql(self, column)
  return self.make(self, column, quoted(column.column))
end

return M
