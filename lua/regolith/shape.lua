-- SPDX-License-Identifier: MIT
-- From fields to columns: structs and arrays are flattened, references get their "_id".
--
-- A node says where a value is in the entity's table, a column where it is in SQL:
--   value   key, column (a regolith.Column)
--   struct  key, members (nodes)
--   array   key, items (nodes; their keys are 1..n)

local fields = require "regolith.field"
local native = require "regolith.native"
local options = require "regolith.options"

local C, ffi = native.C, native.ffi
local KINDS = fields.KINDS
local LONGEST_PATH = 64

---@class regolith.Column
---@field number integer in the type; 0 is the id
---@field path string "address.city", "score[1]", "team"
---@field column string SQL name
---@field kind regolith.Kind
---@field args table options
---@field words string[]? of enum and set
---@field target string|table|nil entity or name, of ref and refs
---@field default string? as text
---@field access (string|integer)[] keys from the entity's table to the value

---@class regolith.Node
---@field shape "value"|"struct"|"array"
---@field key string|integer
---@field column regolith.Column?
---@field members regolith.Node[]?
---@field items regolith.Node[]?

local M = {}

--- "a,b" of a list of words, "[1,2]" of a list of ids; nil when it is no such list.
local function list_text(kind, list)
  local texts = {}
  for i, v in ipairs(list) do
    local is_word, is_id = type(v) == "string", type(v) == "number" and v % 1 == 0
    if kind.group == "set" and is_word then texts[i] = v end
    if kind.group == "refs" and is_id then texts[i] = string.format("%.0f", v) end
    if not texts[i] then return nil end
  end
  for key in pairs(list) do
    if not texts[key] then return nil end
  end
  local text = table.concat(texts, ",")
  return kind.group == "refs" and "[" .. text .. "]" or text
end

local LAST_S = 253402300800 -- the year 10000
local text_buffer = ffi.new "char[64]"

--- The text of seconds since 1970, or of a length of time.
local function seconds_text(kind, v)
  if not (v > -LAST_S and v < LAST_S) then return nil end
  local us = math.floor(v * 1e6 + 0.5)
  local n
  if kind.name == "date" then
    if v % 86400 ~= 0 then return nil end
    n = C.rg_text_date(v / 86400, text_buffer)
  elseif kind.name == "datetime" then
    n = C.rg_text_datetime(us, text_buffer)
  else
    n = C.rg_text_time(us, text_buffer)
  end
  return ffi.string(text_buffer, n)
end

local MOMENTS = { date = true, datetime = true, time = true }

--- A value as the text that a column's default is given in.
local function default_text(kind, v)
  if kind.group == "json" then return native.json_encode(v) end
  if type(v) == "boolean" then return v and "1" or "0" end
  if type(v) == "table" and (kind.group == "set" or kind.group == "refs") then return list_text(kind, v) end
  if type(v) == "number" and MOMENTS[kind.name] then return seconds_text(kind, v) end
  if type(v) == "number" then return (native.json_encode(v)) end
  if type(v) == "cdata" then return (native.json_encode(v)) end
  return type(v) == "string" and v or nil
end

local function list_of(args)
  local list = {}
  for i = 1, #args do list[i] = args[i] end
  return list
end

local function take_words(column, complain)
  local words, seen = list_of(column.args), {}
  if #words == 0 then complain("has no values, as in { \"new\", \"done\" }") end
  for i, word in ipairs(words) do
    if type(word) ~= "string" or word == "" then
      complain(string.format("value %d must be a string that is not empty", i))
    elseif word:find("\0", 1, true) then
      complain(string.format("value %d holds a NUL byte", i))
    elseif seen[word] then
      complain(string.format("value '%s' is there twice", word))
    end
    seen[word] = true
  end
  column.words = words
end

--- The target may be given as the entity or by its name (for types that refer to each other).
local function take_target(column, complain)
  local target = column.args[1]
  local known = type(target) == "string" or (type(target) == "table" and type(target.name) == "string")
  if not known or #column.args ~= 1 then
    complain("refers to one entity, as in { Team } or { \"team\" }")
  end
  column.target = known and target or nil
end

local function take_default(column, complain)
  local default = column.args.default
  if default == nil or (default == native.null and column.kind.group == "json") then return end
  column.default = default_text(column.kind, default)
  if not column.default then return complain("option 'default' must be a value of the field") end
  if column.default:find("\0", 1, true) then complain("option 'default' must not hold a NUL byte") end
end

local function check_flags(column, complain)
  local args = column.args
  if args.created and args.updated then complain("cannot be both 'created' and 'updated'") end
  if args.version and args.nullable then complain("a version cannot be nullable") end
  if args.cached and not (args.index or args.unique) then
    complain("option 'cached' needs 'index = true'")
  end
  if args.index and args.unique then complain("'unique' is an index already; leave 'index' out") end
end

---@class regolith.Flattener
---@field columns regolith.Column[]
---@field complain fun(path: string, text: string)
local Flattener = {}
Flattener.__index = Flattener

function Flattener:value(kind, args, path, name)
  local complain = function(text) self.complain(path, text) end
  options.check(args, kind.opts, complain, kind.list ~= nil)
  if #path > LONGEST_PATH and name ~= path then complain "its path is longer than 64 characters" end
  local column = {
    number = #self.columns + 1,
    path = path,
    column = type(args.column) == "string" and args.column or name,
    kind = kind,
    args = args,
  }
  if kind.list == "words" then take_words(column, complain) end
  if kind.list == "target" then take_target(column, complain) end
  take_default(column, complain)
  check_flags(column, complain)
  self.columns[column.number] = column
  return { shape = "value", column = column }
end

function Flattener:struct(list, path, name)
  local node, seen = { shape = "struct", members = {} }, {}
  if #list == 0 then self.complain(path, "has no fields") end
  for i, f in ipairs(list) do
    if not fields.is(f) then
      self.complain(path, string.format("entry %d is not a field", i))
    else
      local member = self:field(f, path .. ".", name .. "_")
      if seen[member.key] then self.complain(path .. "." .. f.name, "is there twice") end
      seen[member.key] = true
      node.members[#node.members + 1] = member
    end
  end
  return node
end

--- Elements are of one kind, whose options stand beside `of` and `n`, or structs (a list of fields).
function Flattener:array(args, path, name)
  local node = { shape = "array", items = {} }
  local of, n = args.of, args.n
  local kind = fields.kind_of(of) and KINDS[fields.kind_of(of)]
  local element = {}
  for option, v in pairs(args) do
    if option ~= "of" and option ~= "n" and option ~= "column" then element[option] = v end
  end
  if options.integer(1, 1000)(n) then
    self.complain(path, "needs its number of elements, as in n = 5 (1 to 1000)")
    return node
  end
  if not (kind and kind.c) and type(of) ~= "table" then
    self.complain(path, "needs the kind of its elements, as in of = field.uint32 or of = { fields }")
    return node
  end
  if element.unique or element.index then
    self.complain(path, "elements are indexed by the entity's 'index', as in { \"" .. path .. "[1]\" }")
    element.unique, element.index, element.cached = nil, nil, nil
  end
  if not kind then options.check(element, {}, function(text) self.complain(path, text) end) end
  local complain = self.complain
  for i = 1, n do
    local at, column = string.format("%s[%d]", path, i), name .. "_" .. i
    local item = kind and self:value(kind, element, at, column) or self:struct(of, at, column)
    item.key = i
    node.items[i] = item
    self.complain = function() end -- what is wrong with one is wrong with all
  end
  self.complain = complain
  return node
end

--- One field at a place: its node, columns added.
---@param f regolith.Field
---@param path_prefix string
---@param column_prefix string
---@return regolith.Node
function Flattener:field(f, path_prefix, column_prefix)
  local kind, path = KINDS[f.kind], path_prefix .. f.name
  local wrong = options.name(f.name)
  if wrong then self.complain(path, "its name " .. wrong) end
  local name = column_prefix .. f.name
  if type(f.args.column) == "string" then name = f.args.column end
  local node
  if f.kind == "struct" then
    options.check(f.args, kind.opts, function(text) self.complain(path, text) end, true)
    node = self:struct(list_of(f.args), path, name)
  elseif f.kind == "array" then
    node = self:array(f.args, path, name)
  else
    node = self:value(kind, f.args, path, f.kind == "ref" and name .. "_id" or name)
  end
  node.name = f.name
  node.key = f.kind == "ref" and f.name .. "_id" or f.name
  return node
end

--- Tells each column under a node how to get there.
local function take_access(node, keys)
  local own = {}
  for i, key in ipairs(keys) do own[i] = key end
  own[#own + 1] = node.key
  if node.column then node.column.access = own end
  for _, child in ipairs(node.members or node.items or {}) do take_access(child, own) end
end

--- Nodes and columns of a list of fields. Column 0, the id, is not among them.
---@param list regolith.Field[]
---@param complain fun(path: string, text: string)
---@return regolith.Node[] nodes
---@return regolith.Column[] columns
function M.flatten(list, complain)
  local self = setmetatable({ columns = {}, complain = complain }, Flattener)
  local nodes = {}
  for i, f in ipairs(list) do
    if fields.is(f) then
      nodes[#nodes + 1] = self:field(f, "", "")
    else
      complain("", string.format("entry %d is not a field, as field.string \"name\" is", i))
    end
  end
  for _, node in ipairs(nodes) do take_access(node, {}) end
  return nodes, self.columns
end

return M
