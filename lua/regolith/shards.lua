-- SPDX-License-Identifier: MIT
-- Entities spread over pools: which shard a row is on. The engine sees one type a shard, with the same
-- columns and table, each on a pool of its own; an id tells its shard (id / 2^43, rounded down).

local bit = require "bit"
local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local record = require "regolith.record"
local suggest = require "regolith.suggest"

local floor = math.floor

local M = {}

--- Ids of one shard: 0 has those below 2^43, so that what was there before it was spread is shard 0.
local SIZE = 2 ^ 43
local MOST = 1024

local OPTIONS = {
  by = options.string, place = options.func, inverse = options.table, unique_per_shard = options.boolean,
}

--- Kinds that tell a shard: their values have one text.
local SPREADS = {
  int8 = true, int16 = true, int24 = true, int32 = true, int64 = true, uint8 = true, uint16 = true,
  uint24 = true, uint32 = true, uint64 = true, string = true, enum = true, ref = true,
}

---@class regolith.Shards
---@field n integer
---@field pools string[] from 0
---@field numbers integer[] the engine's types, from 0
---@field column regolith.Column? by whose value rows are placed
---@field by_id boolean ids do not tell the shard: their hash does
---@field place fun(value: any, n: integer): integer?
---@field inverse table<regolith.Column, true> references whose shards are written down
---@field target regolith.Shards? of the entity that `column` refers to
---@field turn integer

-- ---- definition ---------------------------------------------------------------------------------

local function take_pools(given, complain)
  local pools, seen, n = {}, {}, 0
  for i = 1, #given do
    local name = given[i]
    local wrong = options.name(name)
    if wrong then complain(string.format("pool %d %s", i, wrong))
    elseif seen[name] then complain(string.format("pool '%s' is there twice", name)) end
    seen[name] = true
    pools[n] = name
    n = n + 1
  end
  if n == 0 then complain 'names no pools, as in shards = { "east", "west", by = "team" }' end
  if n > MOST then complain(string.format("has %d pools; %d is the most", n, MOST)) end
  return pools, n
end

local function column_named(entity, name, complain)
  local node = entity.keys[name]
  local column = entity.by_path[name] or (node and node.column)
  if not column then complain(string.format("there is no field '%s'%s", name, suggest.hint(name, entity.by_path))) end
  return column
end

--- Is the column compared byte by byte? Then equal values are on one shard, and order can be merged.
function M.exact(column)
  local collation = column.args.collation
  return collation == nil or collation == "binary" or collation:match "_bin$" ~= nil
end

local function take_by(entity, by, complain)
  if by == nil or by == "id" then return nil end
  local column = column_named(entity, by, complain)
  if not column then return nil end
  if not SPREADS[column.kind.name] then
    complain(string.format("a %s tells no shard; a reference, an integer, a string or an enum does", column.kind.name))
  elseif not M.exact(column) then
    complain(string.format("'%s' has equal values of different bytes (collation %s)", by, column.args.collation))
  end
  return column
end

local function check_ids(entity, by_id, complain)
  local ids = entity.ids
  if by_id and ids ~= "application" and ids ~= "snowflake" then
    complain "by = \"id\" is for ids = \"application\" or \"snowflake\"; other ids tell their shard themselves"
  elseif not by_id and ids ~= "application" and ids ~= "block" then
    complain(string.format("ids = \"%s\" do not tell the shard; by = \"id\" or ids = \"block\" would", ids))
  end
end

--- A unique index holds within a shard only, unless equal values cannot be on two.
local function check_unique(entity, self, complain)
  for _, index in ipairs(entity.indexes) do
    local safe = not index.unique
    for _, column in ipairs(index.columns) do safe = safe or column == self.column end
    if not safe then
      complain(string.format("the unique index '%s' would be unique within a shard only; put the field that rows are "
        .. "spread by into it, or say unique_per_shard = true", index.name))
    end
  end
end

local function take_inverses(entity, self, given, complain)
  for _, name in ipairs(given or {}) do
    local column = type(name) == "string" and column_named(entity, name, complain)
    if not column then
      if type(name) ~= "string" then complain "inverse is a list of references" end
    elseif column.kind.name ~= "ref" then
      complain(string.format("inverse: '%s' is no reference", name))
    elseif column == self.column then
      complain(string.format("inverse: '%s' tells the shard already", name))
    else
      self.inverse[column] = true
    end
  end
end

--- The `shards` option of an entity, checked; faults go to complain.
---@return regolith.Shards
function M.define(entity, given, complain)
  options.check(given, OPTIONS, complain, true)
  local pools, n = take_pools(given, complain)
  local by = type(given.by) == "string" and given.by or nil
  local self = {
    n = n, pools = pools, by_id = by == "id", inverse = {}, turn = 0,
    place = type(given.place) == "function" and given.place or nil,
    column = take_by(entity, by, complain),
  }
  if self.place and not by then complain "'place' needs 'by', whose value it is given" end
  check_ids(entity, self.by_id, complain)
  if not given.unique_per_shard then check_unique(entity, self, complain) end
  take_inverses(entity, self, type(given.inverse) == "table" and given.inverse or nil, complain)
  return self
end

--- Name of the engine's type that is shard k.
function M.type_name(entity, k) return errors.shard_name(entity.name, k) end

-- ---- placing ------------------------------------------------------------------------------------

--- FNV-1a of 32 bits.
local function hash(text)
  local h = 2166136261
  for i = 1, #text do
    h = bit.bxor(h, text:byte(i)) % 4294967296
    h = (h * 403 + h % 256 * 16777216) % 4294967296
  end
  return h
end

--- The one text of a value, or nil when it has none that the server would agree to.
local function text_of(column, v)
  local kind = column and column.kind.name or "uint64"
  if v == nil or v == native.null then return nil end
  if kind == "string" then return type(v) == "string" and (v:gsub(" +$", "")) or nil end
  if kind == "enum" then
    for _, word in ipairs(column.words) do
      if word == v then return v end
    end
    return nil
  end
  if type(v) == "cdata" then v = tostring(v):match "^%-?%d+" end
  if type(v) == "string" then return v:match "^%-?[1-9]%d*$" or v:match "^0$" end
  return type(v) == "number" and v % 1 == 0 and string.format("%.0f", v) or nil
end

local function checked(self, k)
  if type(k) == "number" and k % 1 == 0 and k >= 0 and k < self.n then return k end
end

--- Shard of a value of the field that rows are spread by (of an id, where ids are hashed); nil when the
--- value tells none.
function M.of_value(self, v)
  if record.type_of(v) then v = v.id end
  local text = text_of(self.column, v)
  if not text then return nil end
  if self.place then return checked(self, self.place(self.column and v or tonumber(text), self.n)) end
  local target = self.target
  if target and not target.by_id then return checked(self, floor(tonumber(text) / SIZE)) end
  return hash(text) % self.n
end

--- Shard of an id, or nil when there is none.
function M.of_id(self, id)
  if self.by_id then return M.of_value(self, id) end
  return checked(self, floor(id / SIZE))
end

--- The engine's type that a row with this id is of, or nil when it can be of none.
function M.number(self, id)
  local k = M.of_id(self, id)
  return k and self.numbers[k]
end

local u64p = native.ffi.typeof "const uint64_t *"

--- The engine's type that a row in memory is of.
function M.of_row(S, row)
  return S.number or M.number(S.shards, tonumber(native.ffi.cast(u64p, row + S.id_at)[0]))
end

local function fault(S, e, field, text)
  return errors.new("INVALID", text, { entity = S.T.name, field = field, row = e })
end

--- The engine's type that an entity is written to; `values` are those to be written, `exprs` columns that
--- the database computes. A row does not move: nil and the error when its field has another shard's value.
---@return integer? number
---@return regolith.Err? err
function M.of_entity(S, e, values, exprs)
  local self = S.shards
  for column in pairs(exprs or {}) do
    if column == self.column or self.inverse[column] then
      return nil, fault(S, e, column.path, string.format("%s.%s tells shards: it takes values, no expressions",
        S.T.name, column.path))
    end
  end
  local id = rawget(e, "id")
  if id == nil or id == native.null then return self.numbers[0] end -- the engine says that it is missing
  local k = M.of_id(self, id)
  if not k then return nil, fault(S, e, "id", string.format("%s %s is an id of no shard", S.T.name, tostring(id))) end
  local v = self.column and record.read(values, self.column.access)
  if v == nil or v == native.null then return self.numbers[k] end
  local wanted = M.of_value(self, v)
  if wanted == k then return self.numbers[k] end
  return nil, fault(S, e, self.column.path, string.format("%s.%s belongs to %s, %s %.0f is on shard %d: a row does "
    .. "not move", S.T.name, self.column.path, wanted and "shard " .. wanted or "no shard", S.T.name, id, k))
end

--- Shard of a new entity whose id is still to be allotted. Raises when nothing tells it.
---@param given? integer what the caller asks for
function M.choose(S, e, given, level)
  local self = S.shards
  if given ~= nil then
    if not checked(self, given) then
      error(string.format("%s has shards 0 to %d", S.T.name, self.n - 1), level + 1)
    end
    return given
  end
  if not self.column then
    self.turn = self.turn + 1
    return (self.turn + S.T.shard_start) % self.n
  end
  local v = record.read(e, self.column.access)
  local k = M.of_value(self, v)
  if k then return k end
  error(string.format("a new %s needs a '%s' that tells its shard (or { shard = n })", S.T.name, self.column.path),
    level + 1)
end

--- Numbers of all shards' types.
function M.all(self)
  local numbers = {}
  for k = 0, self.n - 1 do numbers[k + 1] = self.numbers[k] end
  return numbers
end

--- The engine's types of an entity: one, or one a shard.
---@param T regolith.Type
---@return integer[]
function M.numbers(T) return T.shards and M.all(T.shards) or { T.number } end

--- Ids by the engine's type that they are of; those of none are left out.
---@param T regolith.Type
---@param ids number[]
---@return table<integer, number[]>
function M.group(T, ids)
  if not T.shards then return { [T.number] = ids } end
  local groups = {}
  for _, id in ipairs(ids) do
    local number = M.number(T.shards, id)
    if number then
      groups[number] = groups[number] or {}
      table.insert(groups[number], id)
    end
  end
  return groups
end

return M
