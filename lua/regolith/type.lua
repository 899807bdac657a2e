-- SPDX-License-Identifier: MIT
-- An entity at run time: what the engine knows of it, with the functions that read and write it.

local entities = require "regolith.entity"
local fields = require "regolith.field"
local native = require "regolith.native"
local read = require "regolith.codec.read"
local shards = require "regolith.shards"
local record = require "regolith.record"
local suggest = require "regolith.suggest"
local write = require "regolith.codec.write"

local C, ffi, err = native.C, native.ffi, native.err

---@class regolith.Type
---@field entity regolith.Entity
---@field name string
---@field number integer in the engine
---@field c ffi.cdata* rg_type, borrowed from the engine
---@field columns table<integer, regolith.Column> by number; 0 is the id
---@field target table<string, string> entity name by path, of references
---@field word_numbers table<regolith.Column, table<string, integer>> which word of a set it is
---@field info fun(column: integer): table
---@field builder ffi.cdata* reused by everything that writes this type
---@field decode fun(row: ffi.cdata*): table
---@field refresh fun(e: table, row: ffi.cdata*)
---@field settle fun(e: table, row: ffi.cdata*)
---@field blank fun(): table
---@field fill fun(blank: table, row: ffi.cdata*): table
---@field form (fun(e: table, row: ffi.cdata*))?
---@field encode fun(b: ffi.cdata*, e: table, base: ffi.cdata*?): integer
---@field make fun(values: table): table, boolean an entity's table, and whether it has all the values
---@field index function of its entities' metatables
---@field newindex function
---@field readers table<regolith.Column, fun(row: ffi.cdata*): any> made on first use
---@field hooks table<string, function>
---@field cached boolean the process cache may have it

local M = {
  --- What a write does when Redis is away, as the engine has it.
  OUTAGE = { strict = C.RG_OUTAGE_STRICT, available = C.RG_OUTAGE_AVAILABLE },
}

-- ---- towards the engine -------------------------------------------------------------------------

local function name_of(target)
  if type(target) == "table" then return target.name end
  return target
end

local function numbered(words)
  local numbers = {}
  for i, word in ipairs(words) do numbers[word] = i end
  return numbers
end

local function flags_of(column)
  local args, flags = column.args, 0
  if args.nullable then flags = flags + C.RG_COL_NULLABLE end
  if args.required then flags = flags + C.RG_COL_REQUIRED end
  if args.created then flags = flags + C.RG_COL_CREATED end
  if args.updated then flags = flags + C.RG_COL_UPDATED end
  if args.version then flags = flags + C.RG_COL_VERSION end
  if args.sensitive then flags = flags + C.RG_COL_SENSITIVE end
  return flags
end

--- A C array of strings; keep `list` as long as it is used.
local function strings(list)
  local array = ffi.new("const char *[?]", #list)
  for i, s in ipairs(list) do array[i - 1] = s end
  return array
end

--- Name of the type that a reference's target has for the engine. A shard refers to the shard of the
--- same number where that is on the same pool, so that foreign keys can be.
local function target_name(column, by_name, entity, k)
  local name = name_of(column.target)
  local target = name and by_name[name]
  if not target or not target.shards then return name end
  local same = k and target.shards.pools[k] == entity.shards.pools[k] and column == entity.shards.column
  return shards.type_name(target, same and k or 0)
end

local function add_column(c, column, target)
  local args, words = column.args, column.words or {}
  local values = strings(words)
  local opts = ffi.new("rg_column_opts", {
    size = ffi.sizeof "rg_column_opts",
    name = column.path, column = column.column,
    kind = C[column.kind.c], flags = flags_of(column),
    length = args.length or 0, precision = args.precision or 10, scale = args.scale or 2,
    values = #words > 0 and values or nil, n_values = #words,
    target = target, collation = args.collation,
    def = column.default, foreign_key = args.foreign_key and 1 or 0,
  })
  return C.rg_type_column(c, opts, err)
end

local function add_index(c, index)
  local paths = index.virtual and {} or index.paths
  local columns, flags = strings(paths), 0
  if index.unique then flags = flags + C.RG_INDEX_UNIQUE end
  if index.cached then flags = flags + C.RG_INDEX_CACHED end
  if index.virtual then flags = flags + C.RG_INDEX_VIRTUAL end
  local opts = ffi.new("rg_index_opts", {
    size = ffi.sizeof "rg_index_opts", name = index.name,
    columns = #paths > 0 and columns or nil, n_columns = #paths, flags = flags,
  })
  return C.rg_type_index(c, opts, err)
end

local FEED = { insert = C.RG_FEED_INSERT, update = C.RG_FEED_UPDATE, delete = C.RG_FEED_DELETE }

local function add_feed(c, feed)
  local kinds, fields_of_feed = 0, strings(feed.fields)
  for kind in pairs(feed.kinds) do kinds = kinds + FEED[kind] end
  return C.rg_type_feed(c, ffi.new("rg_feed_opts", {
    size = ffi.sizeof "rg_feed_opts", stream = feed.stream, kinds = kinds,
    fields = #feed.fields > 0 and fields_of_feed or nil, n_fields = #feed.fields,
  }), err)
end

local function new_type(entity, k)
  local cache, spread = entity.cache, entity.shards
  local name = k and shards.type_name(entity, k) or entity.name
  local opts = ffi.new("rg_type_opts", {
    size = ffi.sizeof "rg_type_opts", name = name, table = entity.table or entity.name,
    sharded = k and 1 or 0, shard_in_id = k and not spread.by_id and 1 or 0, shard = k or 0,
    mysql = k and spread.pools[k] or entity.mysql, redis = entity.redis, id_column = entity.id_column,
    ids = entities.ids(entity.ids),
    cache_process = cache.process and 1 or 0, cache_redis = cache.redis and 1 or 0,
    ttl_s = cache.ttl_s or 0, absent_ttl_s = cache.absent_ttl_s or 0,
    cache_queries = cache.queries and 1 or 0, outage = M.OUTAGE[cache.outage] or 0,
    queue_group = entity.queue.group, queue_by = entity.queue.by,
  })
  return C.rg_type_new(opts, err)
end

--- Fields that refer to an entity that there is not.
local function check_targets(entity, complain, by_name)
  for _, column in ipairs(entity.columns) do
    local name = name_of(column.target)
    if name and not by_name[name] then
      complain(string.format("%s.%s: refers to entity \"%s\", which is not registered%s", entity.name, column.path,
        name, suggest.hint(name, by_name)))
    end
  end
end

--- Is the index of one of those fields?
local function is_of(index, paths)
  for _, path in ipairs(index.virtual and {} or index.paths) do
    if paths[path] then return true end
  end
  return false
end

--- A type of the entity's name that has nothing else yet, or nil: the name is at fault.
local function bare_type(entity)
  local c = C.rg_type_new(ffi.new("rg_type_opts", {
    size = ffi.sizeof "rg_type_opts", name = entity.name, table = entity.name, mysql = "default",
  }), err)
  return c ~= nil and ffi.gc(c, C.rg_type_free) or nil
end

--- What is wrong with the defaults of all fields: the engine tells of the first one.
---@param entity regolith.Entity
---@param complain fun(text: string)
function M.check_defaults(entity, complain)
  for _, column in ipairs(entity.columns) do
    local c = column.default and not entity.faulty[column.path] and bare_type(entity)
    local known = c and add_column(c, column, name_of(column.target)) >= 0
    if known and C.rg_type_freeze(c, err) < 0 then complain(ffi.string(err.message)) end
  end
end

--- What the engine finds wrong with those fields of an entity with faults that have none themselves.
---@param entity regolith.Entity
---@param complain fun(text: string)
---@param by_name table<string, regolith.Entity> all entities
function M.check_rest(entity, complain, by_name)
  check_targets(entity, complain, by_name)
  local c, wrong = bare_type(entity), {}
  for _, column in ipairs(c and entity.columns or {}) do
    wrong[column.path] = entity.faulty[column.path]
    if not wrong[column.path] and add_column(c, column, name_of(column.target)) < 0 then
      complain(ffi.string(err.message))
      wrong[column.path] = true
    end
  end
  for _, index in ipairs(c and entity.indexes or {}) do
    if not entity.faulty["index " .. index.name] and not is_of(index, wrong) and add_index(c, index) < 0 then
      complain(ffi.string(err.message))
    end
  end
  M.check_defaults(entity, complain)
end

--- The engine's description of an entity, or nil when it has faults (all told to complain).
---@param entity regolith.Entity
---@param complain fun(text: string)
---@param by_name table<string, regolith.Entity> all entities
---@param k? integer which shard of it
---@return ffi.cdata*? rg_type, the caller's
function M.describe(entity, complain, by_name, k)
  local function fault()
    local text = ffi.string(err.message)
    complain(text:find(entity.name, 1, true) == 1 and text or entity.name .. ": " .. text)
  end
  local c = new_type(entity, k)
  if c == nil then return fault() end
  local faults = 0
  check_targets(entity, function(text)
    complain(text)
    faults = faults + 1
  end, by_name)
  local wrong = {}
  for _, column in ipairs(entity.columns) do
    if add_column(c, column, target_name(column, by_name, entity, k)) < 0 then
      fault()
      faults, wrong[column.path] = faults + 1, true
    end
  end
  for _, index in ipairs(entity.indexes) do
    if not is_of(index, wrong) and add_index(c, index) < 0 then fault() faults = faults + 1 end
  end
  for _, feed in ipairs(faults == 0 and entity.feeds or {}) do
    if add_feed(c, feed) < 0 then fault() faults = faults + 1 end
  end
  if faults == 0 then return c end
  C.rg_type_free(c)
  M.check_defaults(entity, complain)
end

-- ---- from the engine ----------------------------------------------------------------------------

local function info_reader(c)
  local out, known = ffi.new "rg_column_info", {}
  return function(number)
    local info = known[number]
    if not info then
      assert(C.rg_type_column_info(c, number, out) >= 0)
      info = {
        store = tonumber(out.store), offset = tonumber(out.offset),
        null_at = tonumber(out.null_at), null_bit = tonumber(out.null_bit),
      }
      known[number] = info
    end
    return info
  end
end

--- The run-time side of an entity whose type the engine has taken.
---@param entity regolith.Entity
---@param c ffi.cdata* frozen rg_type
---@param number integer
---@return regolith.Type? type
---@return table? err rg_err
function M.new(entity, c, number)
  local T = {
    entity = entity, name = entity.name, number = number, c = c,
    hooks = entity.hooks, columns = {}, target = {}, word_numbers = {},
    cached = entity.cache.process == true,
    spare = {}, -- what closed sessions knew of it, see Session:_type
    info = info_reader(c),
  }
  T.columns[0] = { number = 0, path = "id", column = entity.id_column or "id", kind = fields.KINDS.uint64, args = {},
    access = { "id" } }
  for _, column in ipairs(entity.columns) do
    T.columns[column.number] = column
    if column.target then T.target[column.path] = name_of(column.target) end
    if column.words then T.word_numbers[column] = numbered(column.words) end
  end
  local builder = C.rg_builder_new(c, err)
  if builder == nil then return nil, err end
  T.builder = ffi.gc(builder, C.rg_builder_free)
  T.decode, T.refresh, T.settle, T.blank, T.fill, T.form = read.decoder(entity, T.info)
  T.make = read.maker(entity)
  T.encode = write.encoder(T)
  T.index, T.newindex = record.accessors(T)
  T.readers = setmetatable({}, { __index = function(readers, column)
    local reader = read.reader(entity, T.info, column)
    readers[column] = reader
    return reader
  end })
  return T
end

return M
