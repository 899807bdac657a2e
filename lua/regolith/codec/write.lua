-- SPDX-License-Identifier: MIT
-- Encoders: one function per type, unrolled over its columns, that fills the engine's builder from
-- an entity's table. Values go by their Lua type; the engine checks them against the column.
--
-- In an encoder `base` is the row the entity came from (updates), or nil (inserts): an absent value
-- of an insert takes the column's default, of an update it is NULL.

local literal = require "regolith.literal"
local native = require "regolith.native"
local record = require "regolith.record"

local has_nkeys, nkeys = pcall(require, "table.nkeys") -- OpenResty's LuaJIT has it
if not has_nkeys then nkeys = nil end

local C, ffi, null, err = native.C, native.ffi, native.null, native.err
local fstr, format, rawget, type = ffi.string, string.format, rawget, type
local INVALID = tonumber(C.RG_EINVALID)

local M = {
  --- Set when a value was given in another form than it is read in, nil for a column's default too; not for what
  --- the decoder's `form` looks at.
  loose = false,
}

-- ---- slow paths: values by their Lua type -------------------------------------------------------

--- Fills the rg_err as the engine would.
---@param path string
---@param message string
---@return integer
local function refuse(path, message)
  ffi.fill(err, ffi.sizeof(err))
  err.code, err.item = INVALID, -1
  err.domain, err.cls = C.RG_DOMAIN_ENGINE, C.RG_CLASS_PERMANENT
  ffi.copy(err.field, path:sub(1, 71))
  ffi.copy(err.message, (path .. ": " .. message):sub(1, 767))
  return INVALID
end
M.refuse = refuse

local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

local function put_cdata(b, column, v)
  if ffi.istype(int64, v) then return C.rg_builder_i64(b, column.number, v, err) end
  if ffi.istype(uint64, v) then return C.rg_builder_u64(b, column.number, v, err) end
  return refuse(column.path, "a cdata must be an int64_t or uint64_t")
end

--- Where a VAR column lies in a row: pointer and length. nil when the row has NULL there.
local function var_of(T, column, row)
  local info = T.info(column.number)
  if info.null_at ~= 0 and bit.band(row[info.null_at], info.null_bit) ~= 0 then return nil end
  local at = ffi.cast("const uint32_t *", row + info.offset)
  return row + at[0], at[1]
end

--- The text of a JSON column in the base row, when it says the same as v: then nothing changes,
--- however the server has formatted it.
local function same_json(T, column, v, text, base)
  local p, len = var_of(T, column, base)
  if not p then return nil end
  local old = fstr(p, len)
  if old == text or old == v then return old end
  local decoded = native.json_decode(old)
  if decoded == null then decoded = nil end
  return native.json_encode(decoded) == text and old or nil
end

local function put_json(b, column, v, T, base)
  local text, fault = native.json_encode(v)
  if not text then return refuse(column.path, fault) end
  local old = base ~= nil and same_json(T, column, v, text, base)
  if v == null then M.loose = true end
  if not old and v == null then return C.rg_builder_null(b, column.number, err) end
  text = old or text
  return C.rg_builder_string(b, column.number, text, #text, err)
end

--- Whether v holds anything beyond 1 to n: names (`{ reader = true }`), or what comes after a hole. A list that
--- tells its length, as get_many's does, may.
local function is_more_than_list(v, n)
  if nkeys and nkeys(v) == n then return false end
  for key, inner in pairs(v) do
    local at = type(key) == "number" and key >= 1 and key <= n and key % 1 == 0
    if not at and not (key == "n" and inner == n) then return true end
    if not at then M.loose = true end
  end
  return false
end

local function put_set(b, column, v, T)
  local rc, numbers, last = C.rg_builder_set_begin(b, column.number, err), T.word_numbers[column], 0
  if is_more_than_list(v, #v) then return refuse(column.path, "a set is a list of strings, without holes") end
  for i = 1, #v do
    if rc < 0 then return rc end
    if type(v[i]) ~= "string" then return refuse(column.path, "a set is a list of strings") end
    local number = numbers[v[i]] or 0
    if number <= last then M.loose = true end -- it is read in order of declaration
    last = number
    rc = C.rg_builder_set_add(b, column.number, v[i], #v[i], err)
  end
  return rc
end

--- Any form of an id as a number, or nil.
local function id_number(target, v)
  if type(v) == "table" then
    local T = record.type_of(v)
    if not T or T.name ~= target then return nil end
    v = v.id
  end
  if type(v) == "cdata" or (type(v) == "string" and v:find "^%d+$") then v = tonumber(v) end
  return type(v) == "number" and v or nil
end

local function put_refs(b, column, v, T)
  local rc = C.rg_builder_refs_begin(b, column.number, err)
  if is_more_than_list(v, #v) then
    return refuse(column.path, "a list of references is a list of ids or entities, without holes")
  end
  for i = 1, #v do
    if rc < 0 then return rc end
    local id = id_number(T.target[column.path], v[i])
    if not id then return refuse(column.path, "a list of references holds ids or entities of that type") end
    if type(v[i]) ~= "number" then M.loose = true end
    rc = C.rg_builder_refs_add(b, column.number, id, err)
  end
  return rc
end

local function put_table(b, column, v, T)
  local group = column.kind.group
  if group == "set" then return put_set(b, column, v, T) end
  if group == "refs" then return put_refs(b, column, v, T) end
  if column.kind.name == "ref" then
    local id = id_number(T.target[column.path], v)
    if id then return C.rg_builder_number(b, column.number, id, err) end
  end
  return refuse(column.path, format("a %s field does not take a table", column.kind.name))
end

local function refuse_expression(column, v)
  return refuse(column.path, format("%s stands for a field, by its own name ('%s'), in update, update_all and upsert; "
    .. "a new row, and a flush (queued or not), take values", v.what, column.path))
end

--- Puts any value into a column.
---@return integer rc
function M.put(b, column, v, T, base)
  local kind = type(v)
  if kind == "nil" then
    if base == nil then return 0 end
    if T.info(column.number).null_at == 0 then M.loose = true end
    return C.rg_builder_null(b, column.number, err)
  end
  if kind == "table" and literal.is(v) then return refuse_expression(column, v) end
  if column.kind.group == "json" then return put_json(b, column, v, T, base) end
  if kind ~= "table" and not (kind == "cdata" and column.args.int64 == "cdata") then M.loose = true end
  if v == null then return C.rg_builder_null(b, column.number, err) end
  if kind == "string" then return C.rg_builder_string(b, column.number, v, #v, err) end
  if kind == "number" then return C.rg_builder_number(b, column.number, v, err) end
  if kind == "boolean" then return C.rg_builder_bool(b, column.number, v and 1 or 0, err) end
  if kind == "cdata" then return put_cdata(b, column, v) end
  if kind == "table" then return put_table(b, column, v, T) end
  return refuse(column.path, format("a %s is no value for a field", kind))
end

--- After a value was refused: in an update it stands all the same when it is what the row holds, written by others or
--- before the field became what it is. Nobody changes it.
---@return integer rc
local function keep(b, column, v, T, base, rc)
  if base == nil or v == nil or column.number == 0 or not record.same(T.readers[column](base), v) then return rc end
  return C.rg_builder_keep(b, column.number, base, err)
end

--- The table that holds a struct or array; an empty one when it is absent.
local EMPTY = {}
local function inner(v)
  if v == nil or v == null then return EMPTY end
  return type(v) == "table" and v or nil
end

--- Refuses names that a struct does not have, positions that an array does not have.
local function check_keys(t, known, path)
  for key in pairs(t) do
    if not known[key] then
      local by_id = type(key) == "string" and known[key .. "_id"]
      return refuse(path, format("it has no '%s'%s", tostring(key), by_id and
        format("; references within it go by their ids: '%s_id'", key) or require("regolith.suggest").hint(key, known)))
    end
  end
  return 0
end

-- ---- generating ---------------------------------------------------------------------------------

local FAST = {
  number = { "number", "C.rg_builder_number(b, %d, v, err)" },
  text = { "string", "C.rg_builder_string(b, %d, v, #v, err)" },
  bool = { "boolean", "C.rg_builder_bool(b, %d, v and 1 or 0, err)" },
}

local function value_lines(lines, node, holder, indent)
  local column = node.column
  local fast = FAST[column.kind.group]
  local slow = format("put(b, columns[%d], v, T, base)", column.number)
  lines[#lines + 1] = format("%sv = rawget(%s, %s)", indent, holder,
    type(node.key) == "number" and node.key or format("%q", node.key))
  if fast then
    lines[#lines + 1] = format("%sif type(v) == %q then rc = %s", indent, fast[1], format(fast[2], column.number))
    lines[#lines + 1] = format("%selse rc = %s end", indent, slow)
  else
    lines[#lines + 1] = format("%src = %s", indent, slow)
  end
  lines[#lines + 1] = format("%sif rc < 0 then rc = keep(b, columns[%d], v, T, base, rc)", indent, column.number)
  lines[#lines + 1] = indent .. "if rc < 0 then return rc end end"
end

local function node_lines(gen, node, holder, indent, path)
  local lines = gen.lines
  if node.shape == "value" then return value_lines(lines, node, holder, indent) end
  local own, known = "t" .. #indent, {}
  for _, child in ipairs(node.members or node.items) do known[child.key] = true end
  gen.known[#gen.known + 1] = known
  lines[#lines + 1] = indent .. "do"
  lines[#lines + 1] = format("%s  local %s = inner(rawget(%s, %s))", indent, own, holder,
    type(node.key) == "number" and node.key or format("%q", node.key))
  lines[#lines + 1] = format("%s  if not %s then return refuse(%q, 'must be a table') end", indent, own, path)
  lines[#lines + 1] = format("%s  rc = check_keys(%s, known[%d], %q)", indent, own, #gen.known, path)
  lines[#lines + 1] = indent .. "  if rc < 0 then return rc end"
  for _, child in ipairs(node.members or node.items) do
    local child_path = node.members and path .. "." .. child.key or format("%s[%d]", path, child.key)
    node_lines(gen, child, own, indent .. "  ", child_path)
  end
  lines[#lines + 1] = indent .. "end"
end

--- A function(builder, entity, base row or nil) -> 0 or a negative code with the rg_err filled.
---@param T regolith.Type
---@return fun(b: ffi.cdata*, e: table, base: ffi.cdata*?): integer
function M.encoder(T)
  local gen = {
    known = {},
    lines = {
      "local C, err, type, rawget, put, keep, inner, check_keys, refuse, columns, known, T = ...",
      "return function(b, e, base)",
      "  local v, rc",
      "  v = rawget(e, 'id')",
      "  if type(v) == 'number' then rc = C.rg_builder_number(b, 0, v, err)",
      "  else rc = put(b, columns[0], v, T, base) end",
      "  if rc < 0 then return rc end",
    },
  }
  for _, node in ipairs(T.entity.nodes) do node_lines(gen, node, "e", "  ", node.name) end
  gen.lines[#gen.lines + 1] = "  return 0\nend"
  local chunk = assert(loadstring(table.concat(gen.lines, "\n"), "=encoder of " .. T.name))
  return chunk(C, err, type, rawget, M.put, keep, inner, check_keys, refuse, T.columns, gen.known, T)
end

return M
