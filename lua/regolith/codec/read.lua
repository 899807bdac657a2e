-- SPDX-License-Identifier: MIT
-- Decoders: functions of a type, unrolled over its columns, that make an entity's table with one table
-- constructor and fill it from a packed row. No closures, no pcall: they compile under the JIT.

local native = require "regolith.native"
local record = require "regolith.record"

local has_nkeys, nkeys = pcall(require, "table.nkeys") -- OpenResty's LuaJIT has it
if not has_nkeys then nkeys = nil end

local C, ffi, null = native.C, native.ffi, native.null
local cast, fstr, format, tonumber = ffi.cast, ffi.string, string.format, tonumber
local band = bit.band

local M = {}

-- ---- what the generated code calls --------------------------------------------------------------

local MOST_U, MOST, LEAST = 9007199254740992ULL, 9007199254740992LL, -9007199254740992LL

local function number_u64(v)
  if v <= MOST_U then return tonumber(v) end
  return format("%u", v)
end
local function number_i64(v)
  if v <= MOST and v >= LEAST then return tonumber(v) end
  return format("%d", v)
end
local function text_u64(v) return format("%u", v) end
local function text_i64(v) return format("%d", v) end

--- The values of a set column whose bits are on, in order of declaration.
local function set_list(words, bits)
  local list, n = {}, 0
  for i = 1, #words do
    if band(bits, 1ULL) ~= 0ULL then
      n = n + 1
      list[n] = words[i]
    end
    bits = bit.rshift(bits, 1)
  end
  return list
end

local u64p = ffi.typeof "uint64_t *"

local function refs_list(p, len)
  local list, ids = {}, cast(u64p, p)
  for i = 1, len / 8 do list[i] = number_u64(ids[i - 1]) end
  return list
end

--- Text that cannot be represented (deeper than 100, a number beyond a double) stays text.
local function json_value(is_null, p, len)
  if is_null then return nil end
  local text = fstr(p, len)
  local v = native.json_decode(text)
  if v == nil then return text end
  return v
end

--- The same as an element of a list, where NULL is the placeholder. (false is a value.)
local function json_item(is_null, p, len)
  if is_null then return null end
  return json_value(false, p, len)
end

--- Canonical text of the date kinds, by the engine.
local text_buffer = ffi.new "char[64]"
local function date_text(days) return fstr(text_buffer, C.rg_text_date(days, text_buffer)) end
local function datetime_text(us) return fstr(text_buffer, C.rg_text_datetime(us, text_buffer)) end
local function time_text(us) return fstr(text_buffer, C.rg_text_time(us, text_buffer)) end

-- ---- generating ---------------------------------------------------------------------------------

--- Not const: a 64-bit integer read through a const pointer is of a type that string.format refuses.
local STORES = {
  [tonumber(C.RG_STORE_I8)] = { "i8", "int8_t *", 1 },
  [tonumber(C.RG_STORE_I16)] = { "i16", "int16_t *", 2 },
  [tonumber(C.RG_STORE_I32)] = { "i32", "int32_t *", 4 },
  [tonumber(C.RG_STORE_I64)] = { "i64", "int64_t *", 8 },
  [tonumber(C.RG_STORE_U8)] = { "u8", "uint8_t *", 1 },
  [tonumber(C.RG_STORE_U16)] = { "u16", "uint16_t *", 2 },
  [tonumber(C.RG_STORE_U32)] = { "u32", "uint32_t *", 4 },
  [tonumber(C.RG_STORE_U64)] = { "u64", "uint64_t *", 8 },
  [tonumber(C.RG_STORE_F32)] = { "f32", "float *", 4 },
  [tonumber(C.RG_STORE_F64)] = { "f64", "double *", 8 },
  [tonumber(C.RG_STORE_VAR)] = { "u32", "uint32_t *", 4 },
}

local Gen = {}
Gen.__index = Gen

--- "u32[9]": the fixed cell of a column, i cells further on.
function Gen:cell(info, i)
  local store = STORES[info.store]
  self.pointers[store[1]] = store[2]
  return format("%s[%d]", store[1], info.offset / store[3] + (i or 0))
end

function Gen:bytes(info) return format("d + %s, %s", self:cell(info), self:cell(info, 1)) end

local LONG = {
  int64 = { number = "number_i64(%s)", string = "text_i64(%s)", cdata = "%s" },
  uint64 = { number = "number_u64(%s)", string = "text_u64(%s)", cdata = "%s" },
}
local SECONDS = { date = "%s * 86400", datetime = "tonumber(%s) / 1e6", time = "tonumber(%s) / 1e6" }

--- The value of a column that is not NULL.
function Gen:value(column, info)
  local kind, args = column.kind.name, column.args
  if kind == "bool" then return format("(%s ~= 0)", self:cell(info)) end
  if LONG[kind] then return (LONG[kind][args.int64 or "number"]:gsub("%%s", self:cell(info))) end
  if kind == "ref" then return format("number_u64(%s)", self:cell(info)) end
  if kind == "enum" then return format("words[%d][%s]", column.number, self:cell(info)) end
  if kind == "set" then return format("set_list(words[%d], %s)", column.number, self:cell(info)) end
  if kind == "refs" then return format("refs_list(%s)", self:bytes(info)) end
  if SECONDS[kind] then
    if args.as == "number" then return (SECONDS[kind]:gsub("%%s", self:cell(info))) end
    return format("%s_text(%s)", kind, self:cell(info))
  end
  if info.store == tonumber(C.RG_STORE_VAR) then return format("fstr(%s)", self:bytes(info)) end
  return self:cell(info)
end

--- An expression for a column; in_list: NULL is the placeholder, so that the list has no hole.
function Gen:expression(column, in_list)
  local info = self.info(column.number)
  local absent = info.null_at ~= 0 and format("band(d[%d], %d) ~= 0", info.null_at, info.null_bit) or "false"
  if column.kind.name == "json" then
    return format("%s(%s, %s)", in_list and "json_item" or "json_value", absent, self:bytes(info))
  end
  local value = self:value(column, info)
  if absent == "false" then return value end
  if column.kind.name == "bool" then
    return format("bools[%s and %d or %s]", absent, in_list and 3 or 2, self:cell(info))
  end
  return format("not (%s) and %s or %s", absent, value, in_list and "null" or "nil")
end

function Gen:node(node, in_list)
  if node.shape == "value" then return self:expression(node.column, in_list) end
  local parts = {}
  for i, child in ipairs(node.members or node.items) do
    local text = self:node(child, node.shape == "array")
    parts[i] = node.members and format("[%q] = %s", child.key, text) or text
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

--- Marks the lists of JSON as those are that were read: one that is emptied later is [] then, and not {}.
local function mark(given, read)
  local mt = getmetatable(read)
  if mt and not getmetatable(given) then setmetatable(given, mt) end
  for key, v in pairs(read) do
    if type(v) == "table" then mark(given[key], v) end
  end
end

--- Tables that say the same stay the same tables.
local function set(e, key, v)
  local given = rawget(e, key)
  if not record.same(given, v) then rawset(e, key, v)
  elseif type(v) == "table" then mark(given, v) end
end

local ENVIRONMENT = {
  rawget = rawget, set = set, type = type,
  cast = cast, fstr = fstr, tonumber = tonumber, band = band, null = null,
  number_u64 = number_u64, number_i64 = number_i64, text_u64 = text_u64, text_i64 = text_i64,
  set_list = set_list, refs_list = refs_list, json_value = json_value, json_item = json_item,
  date_text = date_text, datetime_text = datetime_text, time_text = time_text,
  bools = { [0] = false, [1] = true, [3] = null },
}

--- When a value that was written is read back as it was given, by kind; v is the value.
local VERBATIM = {
  string = "type(v) == 'string'", text = "type(v) == 'string'", enum = "type(v) == 'string'",
  bool = "type(v) == 'boolean'", double = "type(v) == 'number'",
  binary = "type(v) == 'string'", blob = "type(v) == 'string'",
  int24 = "type(v) == 'number'", uint24 = "type(v) == 'number'",
  int8 = "type(v) == 'number'", int16 = "type(v) == 'number'", int32 = "type(v) == 'number'",
  uint8 = "type(v) == 'number'", uint16 = "type(v) == 'number'", uint32 = "type(v) == 'number'",
  int64 = "type(v) == 'number' and v < 2^53 and v > -2^53", uint64 = "type(v) == 'number' and v < 2^53",
  ref = "type(v) == 'number' and v < 2^53",
}

--- Whether what is given for a member may say the same as the row in another form than it is read in, which its
--- Lua type does not tell: a text of other digits, a list in another order.
local function has_forms(node)
  for _, child in ipairs(node.members or node.items or {}) do
    if has_forms(child) then return true end
  end
  local column = node.column
  if not column then return false end
  local name, int64 = column.kind.name, column.args.int64
  return SECONDS[name] ~= nil or name == "float" or name == "decimal" or (int64 ~= nil and int64 ~= "number")
end

--- Whether the row's value has to be taken; a cdata may equal a number.
local function differs(node)
  local test = format("rawget(e, %q) ~= v", node.key)
  if not (node.column and node.column.kind.group == "number") then return test end
  return format("%s or type(rawget(e, %q)) ~= type(v)", test, node.key)
end

--- The condition under which a new entity's member needs no look at the row, or nil.
local function verbatim(node)
  if node.shape ~= "value" then return nil end
  local args = node.column.args
  if args.created or args.updated or args.version or (args.int64 and args.int64 ~= "number") then return nil end
  return VERBATIM[node.column.kind.name]
end

--- Whether the member's value decides where a trace goes on: each outcome is compiled by itself. Such
--- members come last, so that what follows is short.
local function branches(node, info)
  if node.shape ~= "value" then return true end
  return node.column.kind.name == "bool" or info(node.column.number).null_at ~= 0
end

--- Source of the decoder; its arguments are the names of ENVIRONMENT and words.
local function source(entity, info, names)
  local gen = setmetatable({ info = info, pointers = {} }, Gen)
  local blanks, members, branching = { "['id'] = false" }, { "['id'] = tonumber(" .. gen:cell(info(0)) .. ")" }, {}
  local settled, formed = {}, {}
  local refreshed = { "  set(e, 'id', tonumber(" .. gen:cell(info(0)) .. "))" }
  for _, node in ipairs(entity.nodes) do
    local value = gen:node(node)
    local to = branches(node, info) and branching or members
    to[#to + 1] = format("[%q] = %s", node.key, value)
    blanks[#blanks + 1] = format("[%q] = false", node.key)
    refreshed[#refreshed + 1] = format("  v = %s", value)
    refreshed[#refreshed + 1] = format("  if %s then set(e, %q, v) end", differs(node), node.key)
    local same = verbatim(node)
    if same then settled[#settled + 1] = format("  v = rawget(e, %q)\n  if not (%s) then", node.key, same) end
    settled[#settled + 1] = refreshed[#refreshed - 1]
    settled[#settled + 1] = refreshed[#refreshed]
    if same then settled[#settled + 1] = "  end" end
    if has_forms(node) then
      formed[#formed + 1] = refreshed[#refreshed - 1]
      formed[#formed + 1] = refreshed[#refreshed]
    end
  end
  for _, member in ipairs(branching) do members[#members + 1] = member end
  local lines = { "local " .. table.concat(names, ", ") .. " = ..." }
  local locals = {}
  for name, ctype in pairs(gen.pointers) do
    lines[#lines + 1] = format("local %sp = typeof %q", name, ctype)
    locals[#locals + 1] = format("  local %s = cast(%sp, d)", name, name)
  end
  local pointers_of_row = table.concat(locals, "\n")
  lines[#lines + 1] = "local function decode(d)"
  lines[#lines + 1] = pointers_of_row
  lines[#lines + 1] = "  return {\n    " .. table.concat(members, ",\n    ") .. "\n  }\nend"
  lines[#lines + 1] = "local function blank() return { " .. table.concat(blanks, ", ") .. " } end"
  lines[#lines + 1] = "local function fill(e, d)"
  lines[#lines + 1] = pointers_of_row
  for _, member in ipairs(members) do lines[#lines + 1] = "  e" .. member end
  lines[#lines + 1] = "  return e\nend"
  lines[#lines + 1] = "local function refresh(e, d)"
  lines[#lines + 1] = pointers_of_row
  lines[#lines + 1] = "  local v"
  for _, line in ipairs(refreshed) do lines[#lines + 1] = line end
  lines[#lines + 1] = "end\nlocal function settle(e, d)"
  lines[#lines + 1] = pointers_of_row
  lines[#lines + 1] = "  local v\n" .. refreshed[1]
  for _, line in ipairs(settled) do lines[#lines + 1] = line end
  lines[#lines + 1] = "end\nlocal function form(e, d)"
  lines[#lines + 1] = pointers_of_row
  lines[#lines + 1] = "  local v"
  for _, line in ipairs(formed) do lines[#lines + 1] = line end
  lines[#lines + 1] = format("end\nreturn decode, refresh, settle, blank, fill, %s", #formed > 0 and "form" or "nil")
  return table.concat(lines, "\n")
end

--- What generated code knows: names, and what they stand for.
local function environment(entity)
  local words = {}
  for _, column in ipairs(entity.columns) do words[column.number] = column.words end
  local names, values = {}, {}
  for name, value in pairs(ENVIRONMENT) do
    names[#names + 1], values[#values + 1] = name, value
  end
  names[#names + 1], values[#values + 1] = "words", words
  names[#names + 1], values[#values + 1] = "typeof", ffi.typeof
  return names, values
end

--- Functions for a type: decode(const uint8_t *row) -> table; refresh(entity, row), which gives an entity
--- the values of a row; settle(entity, row), which does so for a new entity that the row was made of; and
--- the two steps of decode: blank() -> table, with room for all members, and fill(blank, row) -> the same;
--- form(entity, row), for an entity that says the same as the row, maybe in other words: it takes the row's.
---@param entity regolith.Entity
---@param info fun(column: integer): table what rg_type_column_info says, as a Lua table
---@return fun(row: ffi.cdata*): table decode
---@return fun(e: table, row: ffi.cdata*) refresh
---@return fun(e: table, row: ffi.cdata*) settle
---@return fun(): table blank
---@return fun(blank: table, row: ffi.cdata*): table fill
---@return fun(e: table, row: ffi.cdata*)? form nil when there is but one form of each value
function M.decoder(entity, info)
  local names, values = environment(entity)
  local text = source(entity, info, names)
  local chunk = assert(loadstring(text, "=decoder of " .. entity.name))
  return chunk(unpack(values, 1, #names))
end

--- A function that reads one column of a row.
---@param entity regolith.Entity
---@param info fun(column: integer): table
---@param column regolith.Column
---@return fun(row: ffi.cdata*): any
function M.reader(entity, info, column)
  local names, values = environment(entity)
  local gen = setmetatable({ info = info, pointers = {} }, Gen)
  local value = gen:expression(column)
  local lines = { "local " .. table.concat(names, ", ") .. " = ..." }
  for name, pointer in pairs(gen.pointers) do lines[#lines + 1] = format("local %sp = typeof %q", name, pointer) end
  lines[#lines + 1] = "return function(d)"
  for name in pairs(gen.pointers) do lines[#lines + 1] = format("  local %s = cast(%sp, d)", name, name) end
  lines[#lines + 1] = "  local v = " .. value .. "\n  return v\nend"
  local chunk = assert(loadstring(table.concat(lines, "\n"), "=reader of " .. entity.name .. "." .. column.path))
  return chunk(unpack(values, 1, #names))
end

--- A function that makes an entity's table of the values in another table that have the names of its
--- members; it tells whether there are no others.
---@param entity regolith.Entity
---@return fun(values: table): table, boolean
function M.maker(entity)
  local members = { "id = rawget(values, 'id')" }
  local counts = { "if rawget(e, 'id') ~= nil then n = n + 1 end" }
  for _, node in ipairs(entity.nodes) do
    members[#members + 1] = format("[%q] = rawget(values, %q)", node.key, node.key)
    counts[#counts + 1] = format("if rawget(e, %q) ~= nil then n = n + 1 end", node.key)
  end
  -- Under the JIT the count of what was taken is known beforehand: what it was compiled for has those types.
  local text = format([[
    local keys, rawget, pairs, nkeys = ...
    return function(values)
      local e, n = { %s }, 0
      if nkeys then
        %s
        if n == nkeys(values) then return e, true end
      end
      for name in pairs(values) do
        if not keys[name] then return e, false end
      end
      return e, true
    end]], table.concat(members, ", "), table.concat(counts, "\n        "))
  local keys = { id = true }
  for name in pairs(entity.keys) do keys[name] = true end
  return assert(loadstring(text, "=maker of " .. entity.name))(keys, rawget, pairs, nkeys)
end

--- For tests and the curious: the source alone.
function M.source(entity, info)
  local names = { "words" }
  return source(entity, info, names)
end

return M
