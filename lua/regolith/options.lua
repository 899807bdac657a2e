-- SPDX-License-Identifier: MIT
-- Checks a table of options against a declarative schema, finding every fault at once.

local suggest = require "regolith.suggest"

local M = {}

--- A predicate of a schema: nil when the value is fine, else what was expected.
---@alias regolith.OptionCheck fun(value: any): string?

local function of_type(name)
  local expected = "must be a " .. name
  return function(v) if type(v) ~= name then return expected end end
end

M.boolean = of_type "boolean"
M.table = of_type "table"
M.func = of_type "function"

function M.any() end

--- Text that C can take: it ends at a NUL byte.
function M.string(v)
  if type(v) ~= "string" then return "must be a string" end
  if v:find("\0", 1, true) then return "must not hold a NUL byte" end
end

--- A name that SQL, Redis keys and Lua all take.
function M.name(v)
  if type(v) ~= "string" then return "must be a string" end
  if not v:match "^[%a_][%w_]*$" or #v > 64 then
    return "must be letters, digits and underscores, at most 64"
  end
end

--- An integer within bounds.
function M.integer(least, most)
  return function(v)
    if type(v) ~= "number" or v ~= math.floor(v) then return "must be an integer" end
    if v < least then return string.format("must be at least %.0f", least) end
    if most and v > most then return string.format("must be at most %.0f", most) end
  end
end

--- A length of time above zero.
---@param most number seconds
function M.seconds(most)
  local expected = string.format("must be a number of seconds above 0, at most %.0f", most)
  return function(v)
    if type(v) ~= "number" or not (v > 0 and v <= most) then return expected end
  end
end

function M.not_negative(v)
  if type(v) ~= "number" or not (v >= 0 and v <= 2 ^ 53) then return "must be a number, 0 or more" end
end

--- How long to wait, in seconds.
function M.wait(v)
  if type(v) ~= "number" or v ~= v or v < 0 then return "must be a number of seconds, 0 or more" end
end

--- How long an operation may take.
M.timeout_ms = M.integer(1, 4294967295)

--- One of some words.
function M.one_of(...)
  local words, expected = {}, {}
  for i = 1, select("#", ...) do
    local word = select(i, ...)
    words[word], expected[i] = true, "'" .. word .. "'"
  end
  local text = "must be " .. table.concat(expected, ", ")
  return function(v)
    if type(v) ~= "string" or not words[v] then return text .. suggest.hint(v, words) end
  end
end

--- Adds a fault for each unknown or wrong option.
---@param given table
---@param schema table<string, regolith.OptionCheck>
---@param complain fun(text: string)
---@param positional? boolean the list part belongs to somebody else
function M.check(given, schema, complain, positional)
  local names = {}
  for name in pairs(given) do
    if not (positional and type(name) == "number") then names[#names + 1] = name end
  end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local check = schema[name]
    if not check then
      complain(string.format("unknown option '%s'%s", tostring(name), suggest.hint(name, schema)))
    else
      local expected = check(given[name])
      if expected then complain(string.format("option '%s' %s", name, expected)) end
    end
  end
end

--- Nothing to complain of from that name on? Calls that are made often come here: no closure, and no loop for
--- a single option, so that they can be compiled in one piece.
local function is_right(given, schema, name, v)
  while name ~= nil do
    local check = schema[name]
    if not check or check(v) then return false end
    name, v = next(given, name)
  end
  return true
end

local function complain(what, given, schema, level)
  local fault
  M.check(given, schema, function(text) fault = fault or text end)
  if fault then error(what .. ": " .. fault, level + 1) end
  return given
end

--- For calls: raises at the caller's caller (or further up) on the first fault.
---@param what string name of the call
---@param given table?
---@param schema table<string, regolith.OptionCheck>
---@param level? integer [3]
---@return table
function M.require(what, given, schema, level)
  if given == nil then return {} end
  level = level or 3
  if type(given) ~= "table" then error(what .. ": options must be a table", level) end
  local name, v = next(given)
  local check = schema[name]
  if check and not check(v) then
    name, v = next(given, name)
    if name == nil or is_right(given, schema, name, v) then return given end
  end
  local checked = complain(what, given, schema, level) -- no tail call: an error blames the caller
  return checked
end

--- An argument that may be left out; raises at the caller's caller.
---@param what string the call and the argument
---@param v any
---@param check regolith.OptionCheck
---@return any v
function M.argument(what, v, check)
  local expected = v ~= nil and check(v)
  if expected then error(string.format("%s %s", what, expected), 3) end
  return v
end

--- A queue's name.
---@param what string the call
---@param v any
---@return string
function M.queue(what, v)
  if v == nil then return "default" end
  local expected = M.string(v)
  if expected then error(string.format("%s: a queue's name %s", what, expected), 3) end
  return v
end

--- The length of a list; raises where something in it would go unseen: behind a nil, or by a name.
---@param what string the call
---@param list table
---@param level? integer [3]
---@return integer
function M.length(what, list, level)
  if list.n then return list.n end
  local n = #list
  local key = next(list, n > 0 and n or nil)
  if key == nil or (n > 0 and (type(key) ~= "number" or key <= n)) then return n end
  error(string.format(type(key) == "number" and "%s: entry %d of the list is nil" or "%s takes a list, this has names",
    what, n + 1), level or 3)
end

return M
