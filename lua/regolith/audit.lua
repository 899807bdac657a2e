-- SPDX-License-Identifier: MIT
-- The auditor: do the process cache and Redis say what MySQL holds? Asked while everything runs.

local entities = require "regolith.entity"
local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local shards = require "regolith.shards"
local sql = require "regolith.sql"

local C, ffi, err = native.C, native.ffi, native.err

local M = {}

local PAGE = 256
local RUN = 16 -- rows side by side in a sample

local OPTIONS = {
  entity = options.any, all = options.boolean, sample = options.integer(1, 1000000000),
  older_than_ms = options.integer(0, 60000), progress = options.func,
}

--- One run of the auditor over one entity.
local Run = {}
Run.__index = Run

--- Compares ids of one of the engine's types.
function Run:compare_of(number, ids)
  local op = C.rg_op_audit(self.orm._engine, number, self.older_ms, err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  for _, id in ipairs(ids) do
    if C.rg_op_add_id(op, id, err) < 0 then return nil, errors.from_c(err) end
  end
  local ok, fault = self.orm:_run(op)
  if not ok then return nil, fault end
  local result = self.result
  result.rows, result.compared = result.rows + #ids, result.compared + C.rg_op_number(op)
  for _, row in ipairs(sql.rows(op, 0)) do
    row.id = tonumber(row.id)
    result.mismatches[#result.mismatches + 1] = row
  end
  return true
end

--- Compares the ids that were gathered.
function Run:compare()
  if #self.ids == 0 then return true end
  for number, ids in pairs(shards.group(self.T, self.ids)) do
    local ok, fault = self:compare_of(number, ids)
    if not ok then return nil, fault end
  end
  self.ids = {}
  if self.progress then self.progress(self.result) end
  return true
end

--- Takes ids, each once, and compares whenever there is a page of them.
function Run:take(ids)
  for _, id in ipairs(ids) do
    if not self.seen[id] then
      self.seen[id] = true
      self.ids[#self.ids + 1] = id
      self.n = self.n + 1
      if #self.ids == PAGE then
        local ok, fault = self:compare()
        if not ok then return nil, fault end
      end
    end
  end
  return true
end

--- Rows that Redis has, those that MySQL lacks included; at most so many.
function Run:cached(most)
  for _, number in ipairs(shards.numbers(self.T)) do
    local ok, fault = self:cached_of(number, most)
    if not ok then return nil, fault end
  end
  return true
end

function Run:cached_of(number, most)
  local cursor = "0"
  repeat
    local op, fault = self.orm:_do(C.rg_op_audit_scan(self.orm._engine, number, cursor, err))
    if not op then return nil, fault end
    local ids = {}
    for i = 0, C.rg_op_number(op) - 1 do ids[i + 1] = C.rg_op_id(op, i) end
    cursor = tostring(sql.rows(op, 0)[1].cursor)
    local ok
    ok, fault = self:take(ids)
    if not ok then return nil, fault end
  until cursor == "0" or (most and self.n >= most)
  return true
end

function Run:stored(from, n)
  return self.db:search(self.entity, self.id .. " >= ? ORDER BY " .. self.id, from):limit(n):ids()
end

function Run:all()
  local ok, fault = self:cached()
  local from = 0
  while ok do
    local ids
    ids, fault = self:stored(from, PAGE)
    if not ids then return nil, fault end
    if #ids == 0 then break end
    ok, fault = self:take(ids)
    from = ids[#ids] + 1
  end
  return ok, fault
end

--- Half of them out of Redis, half from anywhere in the table.
function Run:sample(n)
  local ok, fault = self:cached(math.ceil(n / 2))
  if not ok then return nil, fault end
  local last
  last, fault = self.db:search(self.entity, self.id .. " > 0 ORDER BY " .. self.id .. " DESC"):limit(1):ids()
  if not last then return nil, fault end
  for _ = 1, last[1] and math.ceil(n / 2 / RUN) or 0 do
    local ids
    ids, fault = self:stored(math.random(1, last[1]), RUN)
    if not ids then return nil, fault end
    ok, fault = self:take(ids)
    if not ok then return nil, fault end
  end
  return true
end

local function audit_one(orm, entity, opts, result)
  local self = setmetatable({
    orm = orm, entity = entity, T = orm._types[entity], db = orm:session { primary = true }, ids = {}, seen = {}, n = 0,
    id = sql.quoted(entity.id_column or "id"), older_ms = opts.older_than_ms or 2000,
    result = result, progress = opts.progress,
  }, Run)
  local ok, fault
  if opts.all then ok, fault = self:all() else ok, fault = self:sample(opts.sample or 1000) end
  if ok then ok, fault = self:compare() end
  self.db:close()
  return ok, fault
end

--- Entities of which something is cached.
local function chosen(orm, entity)
  if entity ~= nil then
    if type(entity) == "string" then entity = orm._by_name[entity] end
    if not entities.is(entity) or not orm._types[entity] then error("that entity is not among those of this orm", 3) end
    return { entity }
  end
  local list = {}
  for one in pairs(orm._types) do list[#list + 1] = one end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

---@param Orm table
function M.install(Orm)
  --- Compares what caches say with what MySQL holds: of a sample of the rows, or of all of them and all that
  --- Redis has. Differences are reported when they have stood for older_than_ms; entries that are marked,
  --- leased or pending are none.
  ---@param opts? { entity: any, all: boolean?, sample: integer?, older_than_ms: integer?, progress: function? }
  ---@return { rows: number, compared: number, mismatches: table[] }? result
  ---@return regolith.Err? err
  function Orm:audit(opts)
    opts = options.require("audit", opts, OPTIONS)
    local result = { rows = 0, compared = 0, mismatches = {} }
    for _, entity in ipairs(chosen(self, opts.entity)) do
      local ok, fault = audit_one(self, entity, opts, result)
      if not ok then return errors.results(fault) end
    end
    return result
  end
end

return M
