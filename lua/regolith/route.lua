-- SPDX-License-Identifier: MIT
-- Which shards a read has to ask: told by its condition when that is a plain conjunction, else all of
-- them; and how what they answer is to be ordered.

local inverse = require "regolith.inverse"
local native = require "regolith.native"
local record = require "regolith.record"
local shards = require "regolith.shards"
local sql = require "regolith.sql"

local M = {}

-- ---- words of a condition -----------------------------------------------------------------------

local OPERATORS = { "<=>", "<=", ">=", "<>", "!=", "||", "&&", ":=" }

local function operator_at(text, i)
  for _, word in ipairs(OPERATORS) do
    if text:sub(i, i + #word - 1) == word then return word end
  end
  return text:sub(i, i)
end

--- Words in order: { text, depth, mark = number of a placeholder, name = a name as it is written }.
local function words_of(text)
  local words, i, depth, marks = {}, 1, 0, 0
  local function add(word) word.depth = depth words[#words + 1] = word end
  while i <= #text do
    local c = text:sub(i, i)
    local last = sql.skip(text, i)
    if last then
      if c == "`" then add { text = "`", name = text:sub(i + 1, last - 1) }
      elseif c == "'" or c == '"' then add { text = "'" } end
      i = last + 1
    elseif c:match "%s" then
      i = i + 1
    elseif c:match "[%w_$\128-\255]" then
      local word = text:match("^[%w_$.\128-\255]+", i)
      add { text = word:upper(), name = word }
      i = i + #word
    else
      local word = operator_at(text, i)
      if word == ")" then depth = depth - 1 end
      if word == "?" then marks = marks + 1 end
      add { text = word, mark = word == "?" and marks or nil }
      if word == "(" then depth = depth + 1 end
      i = i + #word
    end
  end
  return words
end

--- Where a clause begins at the top, or the end.
local function find_clause(words, first, second, from)
  for i = from or 1, #words do
    local w = words[i]
    local fits = not second or (words[i + 1] and words[i + 1].text == second)
    if w.depth == 0 and w.text == first and fits then return i end
  end
  return #words + 1
end

-- ---- the condition ------------------------------------------------------------------------------

local BREAKS = { OR = true, XOR = true, NOT = true, CASE = true, ["||"] = true, ["!"] = true, [":="] = true }

--- A conjunct `name = ?` or `name IN (?, ...)`: the name and its placeholders.
local function equality(words, from, to)
  local name, op = words[from], words[from + 1]
  if to < from + 2 or not name.name then return nil end
  if to == from + 2 and (op.text == "=" or op.text == "<=>" or op.text == "IN") and words[to].mark then
    return name.name, { words[to].mark }
  end
  if op.text ~= "IN" or words[from + 2].text ~= "(" or words[to].text ~= ")" then return nil end
  local marks = {}
  for i = from + 3, to - 1 do
    local w = words[i]
    if (i - from) % 2 == 1 and w.mark then marks[#marks + 1] = w.mark
    elseif (i - from) % 2 == 1 or w.text ~= "," then return nil end
  end
  return name.name, #marks > 0 and marks or nil
end

--- Equalities that every row found fulfils: placeholders by name in lower case. None when the condition
--- is anything but a conjunction at its top.
local function equalities(words, stop)
  local found, from, between = {}, 1, false
  for i = 1, stop - 1 do
    if words[i].depth == 0 and BREAKS[words[i].text] then return {} end
  end
  for i = 1, stop do
    local word = i < stop and words[i].depth == 0 and words[i].text
    if word == "BETWEEN" then
      between = true
    elseif word == "AND" and between then
      between = false
    elseif i == stop or word == "AND" or word == "&&" then
      local name, marks = equality(words, from, i - 1)
      if name and marks and not found[name:lower()] then found[name:lower()] = marks end
      from = i + 1
    end
  end
  return found
end

--- The values of placeholders: a list stands for its members.
local function values_of(marks, params)
  local values = {}
  for _, mark in ipairs(marks) do
    local v = params[mark]
    if type(v) == "table" and not record.type_of(v) and v ~= native.null then
      for _, inner in ipairs(v) do values[#values + 1] = inner end
    else
      values[#values + 1] = v
    end
  end
  return values
end

-- ---- the order ----------------------------------------------------------------------------------

local UNORDERED = { json = true, refs = true }

--- Columns of ORDER BY as { number, desc }, or nil and why rows of several shards cannot be put in it.
local function order_of(T, words, from, to)
  local order, i = {}, from
  while i <= to do
    local name = words[i].name
    local column = name and M.column_named(T, name)
    if not column then return nil, "columns alone" end
    if UNORDERED[column.kind.name] or (column.kind.name ~= "enum" and not shards.exact(column)) then
      return nil, string.format("no column whose order is the server's own ('%s')", column.path)
    end
    local way = words[i + 1] and i < to and words[i + 1].text
    local desc = way == "DESC"
    if way == "DESC" or way == "ASC" then i = i + 1 end
    order[#order + 1] = { column.number, desc }
    i = i + 1
    if i <= to and words[i].text ~= "," then return nil, "columns alone" end
    i = i + 1
  end
  return order
end

--- A column by its SQL name.
function M.column_named(T, name)
  name = name:lower()
  for number = 0, #T.columns do
    if T.columns[number].column:lower() == name then return T.columns[number] end
  end
end

-- ---- plans --------------------------------------------------------------------------------------

---@class regolith.Plan
---@field values any[]? of the field that rows are spread by, or ids
---@field by_id boolean
---@field inverse { column: regolith.Column, parents: any[] }?
---@field order table?
---@field wrong string? why several shards cannot be asked

--- What the condition of a search tells. Params as they were given.
function M.plan(S, where, ...)
  local T, spread = S.T, S.shards
  local words, params = words_of(where), { ... }
  local order_at = find_clause(words, "ORDER", "BY")
  local limit_at = find_clause(words, "LIMIT")
  local plan, found = {}, equalities(words, math.min(order_at, limit_at))
  local id = found[T.columns[0].column:lower()]
  local key = spread.column and found[spread.column.column:lower()]
  if id or key then
    plan.values, plan.by_id = values_of(id or key, params), id ~= nil
  end
  for column in pairs(spread.inverse) do
    local marks = found[column.column:lower()]
    if marks then plan.inverse = { column = column, parents = values_of(marks, params) } end
  end
  if limit_at <= #words then plan.wrong = "takes its limit from :limit()" end
  if order_at <= #words then
    local why
    plan.order, why = order_of(T, words, order_at + 2, limit_at - 1)
    if why then plan.wrong = "orders by " .. why end
  end
  return plan
end

local function numbers_of(spread, set)
  local numbers = {}
  for k = 0, spread.n - 1 do
    if set[k] then numbers[#numbers + 1] = spread.numbers[k] end
  end
  if #numbers == 0 then numbers[1] = spread.numbers[0] end -- nothing will be found there
  return numbers
end

--- Shards of values; nil when one of them tells none.
local function of_values(spread, values, by_id)
  local set = {}
  for _, v in ipairs(values) do
    local k
    if not by_id then k = shards.of_value(spread, v)
    elseif type(v) == "number" and v % 1 == 0 then k = shards.of_id(spread, v) or false end
    if k == nil then return nil end
    if k then set[k] = true end
  end
  return set
end

--- The engine's types to ask, of a plan.
---@return integer[]? numbers
---@return regolith.Err? err
function M.numbers(orm, S, plan)
  local spread = S.shards
  local set = plan.values and of_values(spread, plan.values, plan.by_id)
  if set then return numbers_of(spread, set) end
  if not plan.inverse then return shards.all(spread) end
  set = {}
  for _, parent in ipairs(plan.inverse.parents) do
    if record.type_of(parent) then parent = parent.id end
    local id = tonumber(parent)
    if not id or id % 1 ~= 0 or type(parent) == "cdata" then return shards.all(spread) end
    local list, fault = inverse.shards_of(orm, S, plan.inverse.column, id)
    if not list then return nil, fault end
    for _, k in ipairs(list) do set[k] = true end
  end
  return numbers_of(spread, set)
end

--- Does the plan by itself name one shard?
function M.is_single(S, plan)
  local set = plan.values and of_values(S.shards, plan.values, plan.by_id)
  return set ~= nil and next(set) ~= nil and next(set, (next(set))) == nil
end

--- The plan of a lookup: values of an index's columns.
function M.index_plan(S, index, values)
  local plan = {}
  for i, column in ipairs(index.columns) do
    if column == S.shards.column then plan.values = { values[i] } end
    if S.shards.inverse[column] then plan.inverse = { column = column, parents = { values[i] } } end
  end
  return plan
end

return M
