-- SPDX-License-Identifier: MIT
-- Fields of an entity: `field.string "email" { length = 190 }`. A field is a plain description; the
-- entity checks it, so that all faults of a definition are reported together.

local options = require "regolith.options"

---@class regolith.Field
---@field name string
---@field kind string name of the constructor
---@field args table options, and in the list part values, targets or fields
local Field = { __name = "regolith.Field" }
Field.__index = Field

--- What each kind allows besides the options of every kind. `list` says what the list part holds.
local INTEGER = { version = options.boolean }
local LONG = { version = options.boolean, int64 = options.one_of("number", "string", "cdata") }
local TEXT = { length = options.integer(1, 4294967295), collation = options.string }
local BYTES = { length = options.integer(1, 4294967295) }
local WORDS = { collation = options.string }
local MOMENT = {
  created = options.boolean,
  updated = options.boolean,
  as = options.one_of("string", "number"),
}

---@class regolith.Kind
---@field c string enumerator of rg_kind
---@field opts table<string, regolith.OptionCheck>
---@field list string? "words", "target" or "fields"
---@field group string how values are read and written
local KINDS = {
  bool = { c = "RG_BOOL", group = "bool" },
  int8 = { c = "RG_I8", group = "number", opts = INTEGER },
  int16 = { c = "RG_I16", group = "number", opts = INTEGER },
  int24 = { c = "RG_I24", group = "number", opts = INTEGER },
  int32 = { c = "RG_I32", group = "number", opts = INTEGER },
  int64 = { c = "RG_I64", group = "number", opts = LONG },
  uint8 = { c = "RG_U8", group = "number", opts = INTEGER },
  uint16 = { c = "RG_U16", group = "number", opts = INTEGER },
  uint24 = { c = "RG_U24", group = "number", opts = INTEGER },
  uint32 = { c = "RG_U32", group = "number", opts = INTEGER },
  uint64 = { c = "RG_U64", group = "number", opts = LONG },
  float = { c = "RG_FLOAT", group = "number" },
  double = { c = "RG_DOUBLE", group = "number" },
  decimal = {
    c = "RG_DECIMAL", group = "text",
    opts = { precision = options.integer(1, 65), scale = options.integer(0, 38) },
  },
  string = { c = "RG_STRING", group = "text", opts = TEXT },
  text = { c = "RG_TEXT", group = "text", opts = TEXT },
  binary = { c = "RG_BINARY", group = "text", opts = BYTES },
  blob = { c = "RG_BLOB", group = "text", opts = BYTES },
  enum = { c = "RG_ENUM", group = "text", opts = WORDS, list = "words" },
  set = { c = "RG_SET", group = "set", opts = WORDS, list = "words" },
  date = { c = "RG_DATE", group = "text", opts = MOMENT },
  datetime = { c = "RG_DATETIME", group = "text", opts = MOMENT },
  time = { c = "RG_TIME", group = "text", opts = { as = MOMENT.as } },
  json = { c = "RG_JSON", group = "json" },
  ref = { c = "RG_REF", group = "number", opts = { foreign_key = options.boolean }, list = "target" },
  refs = { c = "RG_REFS", group = "refs", list = "target" },
  struct = { opts = {}, list = "fields" },
  array = { opts = { of = options.any, n = options.integer(1, 1000) } },
}

--- Options of every kind that is a column.
local COMMON = {
  nullable = options.boolean,
  required = options.boolean,
  default = options.any,
  column = options.string,
  sensitive = options.boolean,
  unique = options.boolean,
  index = options.boolean,
  cached = options.boolean,
}
for name, kind in pairs(KINDS) do
  kind.name = name
  local all = { column = options.string }
  if kind.c then for option, check in pairs(COMMON) do all[option] = check end end
  for option, check in pairs(kind.opts or {}) do all[option] = check end
  kind.opts = all
end

local by_constructor = {}

--- `field.string "email"` may be called once more with its options.
function Field:__call(args)
  if type(args) ~= "table" then
    error(string.format("field.%s %q takes a table of options", self.kind, self.name), 2)
  end
  return setmetatable({ kind = self.kind, name = self.name, args = args }, Field)
end

function Field:__tostring() return string.format("field.%s %q", self.kind, self.name) end

---@param kind string
---@return fun(name: string, args?: table): regolith.Field
local function constructor(kind)
  local function make(name, args)
    if type(name) ~= "string" then
      error(string.format('field.%s takes a name, as in field.%s "title"', kind, kind), 2)
    end
    if args ~= nil and type(args) ~= "table" then
      error(string.format("field.%s %q takes a table of options", kind, name), 2)
    end
    return setmetatable({ kind = kind, name = name, args = args or {} }, Field)
  end
  by_constructor[make] = kind
  return make
end

---@class regolith.FieldModule
---@field bool fun(name: string, args?: table): regolith.Field
---@field int8 fun(name: string, args?: table): regolith.Field
---@field int16 fun(name: string, args?: table): regolith.Field
---@field int24 fun(name: string, args?: table): regolith.Field
---@field int32 fun(name: string, args?: table): regolith.Field
---@field int64 fun(name: string, args?: table): regolith.Field
---@field uint8 fun(name: string, args?: table): regolith.Field
---@field uint16 fun(name: string, args?: table): regolith.Field
---@field uint24 fun(name: string, args?: table): regolith.Field
---@field uint32 fun(name: string, args?: table): regolith.Field
---@field uint64 fun(name: string, args?: table): regolith.Field
---@field float fun(name: string, args?: table): regolith.Field
---@field double fun(name: string, args?: table): regolith.Field
---@field decimal fun(name: string, args?: table): regolith.Field
---@field string fun(name: string, args?: table): regolith.Field
---@field text fun(name: string, args?: table): regolith.Field
---@field binary fun(name: string, args?: table): regolith.Field
---@field blob fun(name: string, args?: table): regolith.Field
---@field enum fun(name: string, args?: table): regolith.Field
---@field set fun(name: string, args?: table): regolith.Field
---@field date fun(name: string, args?: table): regolith.Field
---@field datetime fun(name: string, args?: table): regolith.Field
---@field time fun(name: string, args?: table): regolith.Field
---@field json fun(name: string, args?: table): regolith.Field
---@field ref fun(name: string, args?: table): regolith.Field
---@field refs fun(name: string, args?: table): regolith.Field
---@field struct fun(name: string, args?: table): regolith.Field
---@field array fun(name: string, args?: table): regolith.Field
local field = {}
for kind in pairs(KINDS) do field[kind] = constructor(kind) end

setmetatable(field, {
  __index = function(_, kind)
    error("there is no field." .. tostring(kind) .. require("regolith.suggest").hint(kind, KINDS), 2)
  end,
})

return {
  field = field,
  KINDS = KINDS,
  --- Is it a field?
  is = function(v) return getmetatable(v) == Field end,
  --- Kind that a constructor makes ("uint32" of field.uint32), or nil.
  kind_of = function(v) return by_constructor[v] end,
}
