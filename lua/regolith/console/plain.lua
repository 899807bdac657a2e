-- SPDX-License-Identifier: MIT
-- What the console may tell: text that JSON can hold, and errors without the values that servers put in them.

local native = require "regolith.native"

local M = {}

local HIDDEN = "…"

--- Bytes that are no UTF-8 as question marks; numbers that JSON lacks as null.
local function clean(v)
  if type(v) == "string" then return native.json_encode(v) and v or (v:gsub("[\128-\255]", "?")) end
  if type(v) == "number" and (v ~= v or v == math.huge or v == -math.huge) then return native.null end
  if type(v) ~= "table" then return v end
  local copy = setmetatable({}, getmetatable(v))
  for name, inner in pairs(v) do copy[clean(name)] = clean(inner) end
  return copy
end

---@param v any
---@return string
function M.encode(v)
  return native.json_encode(v) or assert(native.json_encode(clean(v)))
end

--- A list as JSON has it, also when it is empty.
function M.list(list) return setmetatable(list or {}, native.array_mt) end

--- Words before a quoted name, which is no value.
local NAMES = {}
for word in ([[key column field table constraint index pool queue entity type stream group callback database view
    function procedure trigger file host user option mean]]):gmatch "%S+" do
  NAMES[word] = true
end

--- Ends of a message that hold no value: where one was to go, and the server's number.
local ENDS = { "( %(MySQL error %d+%))$", "( for key '[^']*'[^']*)$", "( for column '[^']*'[^']*)$", "( at row %d+)$" }

local function split_ends(text)
  local behind = ""
  for _, pattern in ipairs(ENDS) do
    local at, _, tail = text:find(pattern)
    if at then text, behind = text:sub(1, at - 1), tail .. behind end
  end
  return text, behind
end

--- Where the first quote stands that does not open a name; nil: nowhere.
local function first_value(text)
  local at = 1
  while true do
    local quote = text:find("['\"]", at)
    if not quote then return nil end
    local word = text:sub(1, quote - 1):match "(%a+) $"
    local close = word and NAMES[word:lower()] and text:find(text:sub(quote, quote), quote + 1, true)
    if not close then return quote end
    at = close + 1
  end
end

--- A message of a server without the values in it: from the first quote that opens no name on nothing is
--- told, since a value may hold quotes itself. The words of a trigger are no better than values.
---@param text string?
---@param errno number?
---@return string?
function M.redact(text, errno)
  if type(text) ~= "string" then return nil end
  if errno == 1644 then return "a trigger refused it: its words are values" end
  local head, behind = split_ends(text)
  local from = first_value(head)
  if not from then return text end
  return head:sub(1, from) .. HIDDEN .. head:sub(from, from) .. behind
end

return M
