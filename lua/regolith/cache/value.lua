-- SPDX-License-Identifier: MIT
-- Kinds of cached values, and keys. A value is stored with a byte in front that says its kind: what
-- was stored by a program with another definition of the cache reads as damaged, which is a miss.

local entities = require "regolith.entity"
local native = require "regolith.native"
local record = require "regolith.record"
local suggest = require "regolith.suggest"
local types = require "regolith.type"

local C, ffi, err = native.C, native.ffi, native.err
local byte, char, format, fstr, tonumber, type = string.byte, string.char, string.format, ffi.string, tonumber, type

---@class regolith.ValueKind
---@field tag integer first byte
---@field encode fun(v: any): string?, string? the payload; nil and why it does not fit
---@field decode fun(payload: string, session: regolith.Session?): any, any nil and a fault when damaged
---@field needs_session boolean?

local M = {}

-- ---- keys ---------------------------------------------------------------------------------------

local function number_text(k)
  if k ~= k or k == 1 / 0 or k == -1 / 0 then return nil end
  k = k + 0 -- no minus zero
  if k % 1 == 0 and k > -1e14 and k < 1e14 then return k .. "" end
  return format("%.17g", k)
end

local key_text

--- Parts with their lengths, so that no two lists give the same bytes.
local function list_text(list, level)
  local parts = { "\3" }
  if #list == 0 then error("a key's list has no parts", level + 1) end
  for _, part in ipairs(list) do
    if type(part) == "table" then error("a part of a key is a string or a number", level + 1) end
    local text = key_text(part, level + 1)
    parts[#parts + 1] = #text .. ":" .. text
  end
  return table.concat(parts)
end

--- The bytes of a key: strings as they are, unless they begin with one of the bytes that tell the
--- others apart; numbers; lists of them.
---@param key string|number|(string|number)[]
---@param level integer
---@return string
function key_text(key, level)
  local kind = type(key)
  if kind == "string" then
    local first = byte(key, 1)
    if first and first > 4 then return key end
    return "\1" .. key
  end
  local text = kind == "number" and number_text(key)
  if text then return "\2" .. text end
  if kind == "table" and not record.type_of(key) then return list_text(key, level + 1) end
  if kind == "cdata" and tostring(key):find "^%-?%d+U?LL$" then return "\2" .. tostring(key):match "^%-?%d+" end
  error("a key is a string, a number, or a list of them", level + 1)
end

M.key = key_text

-- ---- kinds --------------------------------------------------------------------------------------

local function plain(tag, lua_type, encode, decode)
  return {
    tag = byte(tag),
    encode = function(v)
      if type(v) ~= lua_type then return nil, format("must be a %s, not a %s", lua_type, type(v)) end
      return encode(v)
    end,
    decode = decode,
  }
end

local double = ffi.new "double[1]"

local KINDS = {
  string = plain("s", "string", function(v) return v end, function(p) return p end),
  number = plain("n", "number", function(v)
    double[0] = v
    return fstr(double, 8)
  end, function(p)
    if #p ~= 8 then return nil, "length" end
    ffi.copy(double, p, 8)
    return double[0]
  end),
  boolean = plain("b", "boolean", function(v) return v and "1" or "0" end, function(p) return p == "1" end),
  json = {
    tag = byte "j",
    encode = function(v)
      local text, why = native.json_encode(v)
      if not text then return nil, "cannot be JSON: " .. tostring(why) end
      return text
    end,
    decode = function(p) return native.json_decode(p) end,
  },
}

--- The application's own: functions from value to string and back.
local function custom(given, fault)
  for name in pairs(given) do
    if name ~= "encode" and name ~= "decode" then
      fault(format("a codec has no '%s'%s", tostring(name), suggest.hint(name, { encode = 1, decode = 1 })))
    end
  end
  if type(given.encode) ~= "function" or type(given.decode) ~= "function" then
    fault "a codec has two functions, encode and decode"
    return nil
  end
  return {
    tag = byte "c",
    encode = function(v)
      local text = given.encode(v)
      if type(text) ~= "string" then return nil, "encode must give a string" end
      return text
    end,
    decode = function(p)
      local ok, v = pcall(given.decode, p)
      if not ok or v == nil then return nil, "decode" end
      return v
    end,
  }
end

--- Rows of fields: a type of its own, that no table has.
local function row(cache, fields, fault)
  local args = { ids = "application" }
  for i, field in ipairs(fields) do args[i] = field end
  local entity = entities.entity("cache_" .. cache.name, args)
  for _, text in ipairs(entity.faults) do fault(text) end
  local c = #entity.faults == 0 and types.describe(entity, fault)
  if not c then return nil end
  c = ffi.gc(c, C.rg_type_free)
  if C.rg_type_freeze(c, err) < 0 then return fault(fstr(err.message)) end
  local T = types.new(entity, c, 0)
  local bytes = ffi.typeof "const uint8_t *"
  return {
    tag = byte "r",
    encode = function(v)
      if type(v) ~= "table" then return nil, "must be a table by field" end
      for name in pairs(v) do
        if not entity.keys[name] then
          return nil, format("has no field '%s'%s", tostring(name), suggest.hint(name, entity.keys))
        end
      end
      C.rg_builder_reset(T.builder)
      rawset(v, "id", 1)
      local rc = T.encode(T.builder, v, nil)
      rawset(v, "id", nil)
      local block = rc >= 0 and C.rg_builder_row(T.builder, err) or nil
      if block == nil then return nil, fstr(err.message) end
      local text = fstr(C.rg_block_data(block), C.rg_block_len(block))
      C.rg_block_unref(block)
      return text
    end,
    decode = function(p)
      local d = ffi.cast(bytes, p)
      if C.rg_row_sound(c, d, #p) ~= 1 then return nil, "row" end
      local v = T.decode(d)
      v.id = nil
      return v
    end,
  }
end

-- ---- entities: their ids ------------------------------------------------------------------------

local function id_of(entity, v)
  local T = record.type_of(v)
  if T and T.entity ~= entity then return nil, format("must be a %s, not a %s", entity.name, T.name) end
  local id = T and rawget(v, "id") or v
  if type(id) ~= "number" or id % 1 ~= 0 or id < 1 then
    return nil, format("must be a %s that has an id, or an id", entity.name)
  end
  return id
end

local function one(entity)
  return {
    tag = byte "e", needs_session = true,
    encode = function(v)
      local id, why = id_of(entity, v)
      if not id then return nil, why end
      return format("%.0f", id)
    end,
    decode = function(p, session)
      local id = tonumber(p)
      if not id then return nil, "id" end
      return session:get(entity, id)
    end,
  }
end

local function many(entity)
  return {
    tag = byte "i", needs_session = true,
    encode = function(v)
      if type(v) ~= "table" or record.type_of(v) then return nil, "must be a list of entities or ids" end
      local ids = {}
      for i, each in ipairs(v) do
        local id, why = id_of(entity, each)
        if not id then return nil, format("entry %d %s", i, why) end
        ids[i] = format("%.0f", id)
      end
      return table.concat(ids, ",")
    end,
    --- Those that are gone are left out.
    decode = function(p, session)
      local ids, list = {}, {}
      for text in p:gmatch "[^,]+" do ids[#ids + 1] = tonumber(text) end
      local found, fault = session:get_many(entity, ids)
      if not found then return nil, fault end
      for i = 1, found.n do list[#list + 1] = found[i] end
      return list
    end,
  }
end

--- The kind of a cache's values, or nil when that has faults.
---@param cache regolith.Cache
---@param fault fun(text: string)
---@return regolith.ValueKind?
function M.kind_of(cache, fault)
  local args = cache.args
  local given = 0
  for _, option in ipairs { "value", "entity", "entities" } do
    if args[option] ~= nil then given = given + 1 end
  end
  if given > 1 then return fault "takes one of 'value', 'entity' and 'entities'" end
  for option, kind in pairs { entity = one, entities = many } do
    if args[option] ~= nil then
      if not entities.is(args[option]) then return fault(format("option '%s' must be an entity", option)) end
      return kind(args[option])
    end
  end
  local value = args.value == nil and "json" or args.value
  if type(value) == "string" then
    if KINDS[value] then return KINDS[value] end
    return fault(format("there is no kind of value '%s'%s", value, suggest.hint(value, KINDS)))
  end
  if type(value) ~= "table" then return fault "option 'value' must be a kind, a list of fields, or a codec" end
  if value[1] ~= nil then return row(cache, value, fault) end
  return custom(value, fault)
end

-- ---- payloads -----------------------------------------------------------------------------------

--- The bytes of a value; raises when it is not of the cache's kind.
function M.encode(cache, v, level)
  local payload, why = cache.kind.encode(v)
  if not payload then error(format("cache %s: the value %s", cache.name, why), level + 1) end
  return char(cache.kind.tag) .. payload
end

return M
