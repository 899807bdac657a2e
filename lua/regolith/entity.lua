-- SPDX-License-Identifier: MIT
-- Entity definitions. A definition collects its faults; regolith.open reports those of all entities
-- together. It holds no connection and may be used with several ORMs.

local native = require "regolith.native"
local options = require "regolith.options"
local shape = require "regolith.shape"
local shards = require "regolith.shards"
local suggest = require "regolith.suggest"

local C = native.C

---@class regolith.IndexDef
---@field name string
---@field paths string[] field paths
---@field columns regolith.Column[]
---@field unique boolean
---@field cached boolean
---@field virtual boolean the cached list of all ids

---@class regolith.Entity
---@field name string
---@field table string? SQL table, when not the name
---@field nodes regolith.Node[] top-level fields
---@field columns regolith.Column[]
---@field by_path table<string, regolith.Column>
---@field keys table<string, regolith.Node> names of the entity's table
---@field refs table<string, regolith.Node> reference fields by name
---@field indexes regolith.IndexDef[]
---@field by_index table<string, regolith.IndexDef>
---@field hooks table<string, function>
---@field methods table<string, function>
---@field cache table
---@field queue { group: string?, by: string? } partition of its queue
---@field feeds { stream: string, kinds: table<string, boolean>, fields: string[] }[] streams of its events
---@field mysql string pool
---@field redis string pool
---@field shards regolith.Shards? when its rows are spread over pools
---@field ids string
---@field id_column string?
---@field faults string[]
---@field faulty table<string, boolean> paths of fields that have some
local Entity = { __name = "regolith.Entity" }
Entity.__index = Entity

function Entity:__tostring() return "entity " .. self.name end

local HOOKS = {
  before_insert = options.func, after_insert = options.func,
  before_update = options.func, after_update = options.func,
  before_delete = options.func, after_delete = options.func,
  after_load = options.func, validate = options.func, on_conflict = options.func,
}
local CACHE = {
  process = options.boolean,
  redis = options.boolean,
  all = options.boolean,
  queries = options.boolean,
  ttl_s = options.integer(1, 4294967295),
  absent_ttl_s = options.integer(1, 4294967295),
  outage = options.one_of("strict", "available"),
}
local function bool_or_table(v)
  if type(v) ~= "boolean" and type(v) ~= "table" then return "must be a table of options, true or false" end
end
local OPTIONS = {
  table = options.string, mysql = options.name, redis = options.name,
  ids = options.one_of("block", "application", "database", "snowflake"),
  id_column = options.string, unique = options.table, index = options.table,
  shards = options.table, cache = bool_or_table, hooks = options.table, methods = options.table,
  queue = options.table, events = options.table,
}
local QUEUE = { group = options.string, by = options.string }
local RESERVED = { id = true }

local function sorted_names(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  return names
end

function Entity:complain(path, text)
  local place = path == "" and self.name or self.name .. "." .. path
  self.faults[#self.faults + 1], self.faulty[path] = place .. ": " .. text, true
end

-- ---- names -------------------------------------------------------------------------------------

local function claim(self, key, node)
  local other = self.keys[key]
  if RESERVED[key] or RESERVED[node.name] then
    self:complain(node.name, "the name is taken by the entity's own id")
  elseif other and other.name == node.name then
    self:complain(key, "is there twice")
  elseif other then
    self:complain(node.name, string.format("'%s' and '%s' would both be kept as '%s'", other.name, node.name, key))
  end
  self.keys[key] = node
end

local function take_names(self)
  for _, node in ipairs(self.nodes) do
    claim(self, node.key, node)
    if node.column and node.column.kind.name == "ref" then self.refs[node.name] = node end
  end
  for _, node in ipairs(self.nodes) do
    if self.refs[node.name] and self.keys[node.name] then self:complain(node.name, "is there twice") end
  end
end

local function take_columns(self)
  local seen = { [(self.id_column or "id"):lower()] = "id" }
  for _, column in ipairs(self.columns) do
    local sql = column.column:lower()
    if seen[sql] and not self.by_path[column.path] then
      self:complain(column.path, string.format("its SQL column '%s' is that of '%s'", column.column, seen[sql]))
    end
    seen[sql] = seen[sql] or column.path
    self.by_path[column.path] = self.by_path[column.path] or column
  end
end

-- ---- indexes -----------------------------------------------------------------------------------

--- The column that a name of an index means: a field path, or "team_id" for the reference "team".
local function index_column(self, path)
  local column = self.by_path[path]
  local node = not column and self.keys[path]
  return column or (node and node.column)
end

local function add_index(self, index)
  local fault = function(text) self:complain("index " .. index.name, text) end
  local wrong = options.name(index.name)
  if wrong then fault("its name " .. wrong) end
  if self.by_index[index.name] then fault("is there twice") end
  if #index.paths == 0 and not index.virtual then fault("has no fields") end
  local seen = {}
  for i, path in ipairs(index.paths) do
    local column = index_column(self, path)
    if not column then
      fault(string.format("there is no field '%s'%s", tostring(path), suggest.hint(path, self.by_path)))
    elseif seen[column] then
      fault(string.format("field '%s' is there twice", column.path))
    else
      seen[column] = true
      index.columns[#index.columns + 1] = column
      index.paths[i] = column.path
    end
  end
  index.number = #self.indexes
  self.indexes[#self.indexes + 1] = index
  self.by_index[index.name] = index
end

local function new_index(name, paths, unique, cached)
  return { name = name, paths = paths, columns = {}, unique = unique, cached = cached, virtual = false }
end

local function take_index_option(self, given, unique)
  for _, name in ipairs(sorted_names(given or {})) do
    local list = given[name]
    if type(list) == "string" then list = { list } end
    if type(name) ~= "string" or type(list) ~= "table" then
      self:complain(unique and "unique" or "index", "holds lists of fields by name, as in by_team = { \"team\" }")
    else
      options.check(list, { cached = options.boolean }, function(text) self:complain("index " .. name, text) end, true)
      local paths = {}
      for i = 1, #list do paths[i] = list[i] end
      add_index(self, new_index(name, paths, unique, list.cached == true))
    end
  end
end

local function take_indexes(self, args)
  for _, column in ipairs(self.columns) do
    local own = column.args
    if own.unique == true or own.index == true then
      local name = column.path:gsub("[%.%[]", "_"):gsub("%]", "")
      add_index(self, new_index(name, { column.path }, own.unique == true, own.cached == true))
    end
  end
  take_index_option(self, type(args.unique) == "table" and args.unique, true)
  take_index_option(self, type(args.index) == "table" and args.index, false)
  if self.cache.all then
    local all = new_index("all", {}, false, true)
    all.virtual = true
    add_index(self, all)
  end
end

local function text_or_nil(v) return type(v) == "string" and v or nil end

-- ---- the rest ----------------------------------------------------------------------------------

local function take_cache(self, cache)
  if cache == true then cache = { process = true, redis = true } end
  if type(cache) ~= "table" then return {} end
  options.check(cache, CACHE, function(text) self:complain("cache", text) end)
  return cache
end

--- What decides the partition: the entity, a group of entities, or the value of a field.
local function take_queue(self, given)
  if type(given) ~= "table" then return {} end
  options.check(given, QUEUE, function(text) self:complain("queue", text) end)
  local queue = { group = text_or_nil(given.group), by = text_or_nil(given.by) }
  if queue.by and queue.by ~= "id" then
    local column = index_column(self, queue.by)
    if not column then
      self:complain("queue", string.format("there is no field '%s'%s", queue.by, suggest.hint(queue.by, self.by_path)))
      queue.by = nil
    else
      queue.by = column.path
    end
  end
  return queue
end

local function take_functions(self, what, given, schema)
  local taken = {}
  if type(given) ~= "table" then return taken end
  if schema then options.check(given, schema, function(text) self:complain(what, text) end) end
  for _, name in ipairs(sorted_names(given)) do
    if type(given[name]) ~= "function" or type(name) ~= "string" then
      if not schema then self:complain(what, string.format("'%s' must be a function", tostring(name))) end
    elseif what == "methods" and (self.keys[name] or self.refs[name] or RESERVED[name]) then
      self:complain(what, string.format("'%s' is a field already", name))
    else
      taken[name] = given[name]
    end
  end
  return taken
end

local KINDS = options.one_of("insert", "update", "delete")

--- One stream that changes are told on: true, or a list of kinds, and fields of which updates must
--- change one.
local function take_feed(self, stream, given, complain)
  if given == true then given = {} end
  if type(stream) ~= "string" or type(given) ~= "table" then
    return complain 'must hold true or a table by stream, as in { users = { "insert", fields = { "name" } } }'
  end
  options.check(given, { fields = options.table }, function(text) complain(stream .. ": " .. text) end, true)
  local feed = { stream = stream, kinds = {}, fields = {} }
  for i = 1, #given do
    local wrong = KINDS(given[i])
    if wrong then complain(stream .. ": a kind of write " .. wrong) end
    feed.kinds[given[i]] = true
  end
  for i, path in ipairs(type(given.fields) == "table" and given.fields or {}) do
    local column = index_column(self, path)
    if not column then
      complain(string.format("%s: there is no field '%s'%s", stream, tostring(path), suggest.hint(path, self.by_path)))
    end
    feed.fields[i] = column and column.path or ""
  end
  self.feeds[#self.feeds + 1] = feed
end

local function take_feeds(self, given)
  if type(given) ~= "table" then return end
  for _, stream in ipairs(sorted_names(given)) do
    take_feed(self, stream, given[stream], function(text) self:complain("events", text) end)
  end
end

--- Defines an entity: its fields in the list part, then its options. Faults are reported by
--- regolith.open, all at once.
---@param name string
---@param args table
---@return regolith.Entity
local function entity(name, args)
  if type(name) ~= "string" then error('regolith.entity takes a name, as in regolith.entity("user", { ... })', 2) end
  if type(args) ~= "table" then
    error(string.format("regolith.entity(%q) takes a table of fields and options", name), 2)
  end
  local self = setmetatable({
    name = name, faults = {}, faulty = {}, keys = {}, refs = {}, by_path = {}, indexes = {}, by_index = {}, feeds = {},
    table = text_or_nil(args.table), id_column = text_or_nil(args.id_column),
    mysql = text_or_nil(args.mysql), redis = text_or_nil(args.redis),
    ids = text_or_nil(args.ids) or "block",
  }, Entity)
  local wrong = options.name(name)
  if wrong then self:complain("", "its name " .. wrong) end
  options.check(args, OPTIONS, function(text) self:complain("", text) end, true)
  if (self.table or name):lower():find "^_regolith_" then
    self:complain("", "tables whose names start with '_regolith_' are the engine's own")
  end
  local list = {}
  for i = 1, #args do list[i] = args[i] end
  self.nodes, self.columns = shape.flatten(list, function(path, text) self:complain(path, text) end)
  take_names(self)
  take_columns(self)
  self.cache = take_cache(self, args.cache)
  self.queue = take_queue(self, args.queue)
  take_indexes(self, args)
  if type(args.shards) == "table" then
    self.shards = shards.define(self, args.shards, function(text) self:complain("shards", text) end)
    if self.mysql then self:complain("mysql", "an entity with shards names its pools there") end
  end
  take_feeds(self, args.events)
  self.hooks = take_functions(self, "hooks", args.hooks, HOOKS)
  self.methods = take_functions(self, "methods", args.methods)
  return self
end

local IDS = { block = "RG_IDS_BLOCK", application = "RG_IDS_APPLICATION", database = "RG_IDS_DATABASE",
  snowflake = "RG_IDS_SNOWFLAKE" }

return {
  entity = entity,
  is = function(v) return getmetatable(v) == Entity end,
  ids = function(name) return C[IDS[name] or "RG_IDS_BLOCK"] end,
}
