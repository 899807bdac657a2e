-- SPDX-License-Identifier: MIT
-- Inverses: on which shards a parent's children are. One row for each parent and shard, beside the
-- parent, written before the first child there is. It may name a shard that has no child (any more),
-- which costs a question; it never lacks one that has.

local errors = require "regolith.err"
local native = require "regolith.native"
local record = require "regolith.record"
local shards = require "regolith.shards"
local sql = require "regolith.sql"

local C, err = native.C, native.err

local M = {}

local NO_SUCH_TABLE = 1146
--- Rows that are known to be there are not written again; forgotten when there are many.
local MOST_KNOWN = 100000

local MAKE = [[CREATE TABLE IF NOT EXISTS `_regolith_inverses` (
  `entity` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `field` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `parent` BIGINT UNSIGNED NOT NULL,
  `shard` SMALLINT UNSIGNED NOT NULL,
  PRIMARY KEY (`entity`, `field`, `parent`, `shard`)) ENGINE=InnoDB]]

--- Pool that a parent is on.
local function pool_of(orm, T, column, parent)
  local target = orm._by_name[T.target[column.path]]
  local spread = orm._types[target].shards
  if not spread then return target.mysql or "default" end
  local k = shards.of_id(spread, parent)
  return k and spread.pools[k]
end

--- Runs a statement on a pool, outside of any session: an inverse stays whatever becomes of the flush.
local function run(orm, pool, text, params)
  for attempt = 1, 2 do
    local op = C.rg_op_query(orm._engine, pool, text, #text, err)
    if op ~= nil and sql.bind(op, params, #params) < 0 then
      C.rg_op_free(op)
      op = nil
    end
    local done, fault = orm:_do(op)
    if done then return done end
    if fault.errno ~= NO_SUCH_TABLE or attempt == 2 then return nil, fault end
    done, fault = orm:_do(C.rg_op_schema_apply(orm._engine, pool, MAKE, #MAKE, err))
    if not done then return nil, fault end
  end
end

-- ---- writing ------------------------------------------------------------------------------------

local function is_id(v) return v ~= nil and v ~= native.null and v ~= 0 end

--- Adds what an entity's references need, by pool.
local function collect(orm, S, e, values, by_pool)
  local spread = S.shards
  for column in pairs(spread.inverse) do
    local parent, id = record.read(values, column.access), rawget(e, "id")
    local k = is_id(parent) and id and shards.of_id(spread, id)
    local pool = k and pool_of(orm, S.T, column, tonumber(parent))
    local name = pool and string.format("%s.%s.%.0f.%d", S.T.name, column.path, tonumber(parent), k)
    if name and not orm._inverses[name] then
      by_pool[pool] = by_pool[pool] or { names = {} }
      local list = by_pool[pool]
      list[#list + 1] = { S.T.name, column.path, tonumber(parent), k }
      list.names[#list.names + 1] = name
    end
  end
end

local function insert(orm, pool, list)
  local params, marks = {}, {}
  for i, row in ipairs(list) do
    marks[i] = "(?,?,?,?)"
    for _, v in ipairs(row) do params[#params + 1] = v end
  end
  local text = "INSERT IGNORE INTO `_regolith_inverses` VALUES " .. table.concat(marks, ",")
  local ok, fault = run(orm, pool, text, params)
  if not ok then return nil, fault end
  for _, name in ipairs(list.names) do
    if orm._n_inverses >= MOST_KNOWN then orm._inverses, orm._n_inverses = {}, 0 end
    orm._inverses[name], orm._n_inverses = true, orm._n_inverses + 1
  end
  return true
end

--- Writes down the shards of what is about to be inserted or updated, before it is.
---@param items regolith.Items
---@param deletes integer how a deletion is called in it
---@return true? ok
---@return regolith.Err? err
function M.note(self, items, deletes)
  local orm, by_pool = self._orm, nil
  for i = 1, items.n do
    local S = items.S[i]
    if S.shards and items.write[i] ~= deletes and next(S.shards.inverse) then
      by_pool = by_pool or {}
      collect(orm, S, items.e[i], items.values and items.values[i] or items.e[i], by_pool)
    end
  end
  if not by_pool then return true end
  for pool, list in pairs(by_pool) do
    local ok, fault = insert(orm, pool, list)
    if not ok then return nil, fault end
  end
  return true
end

-- ---- reading ------------------------------------------------------------------------------------

--- Shards of a parent's children.
---@return integer[]? shards
---@return regolith.Err? err
function M.shards_of(orm, S, column, parent)
  local pool = pool_of(orm, S.T, column, parent)
  if not pool then return {} end
  local op, fault = run(orm, pool,
    "SELECT `shard` FROM `_regolith_inverses` WHERE `entity`=? AND `field`=? AND `parent`=? ORDER BY `shard`",
    { S.T.name, column.path, parent })
  if not op then return nil, fault end
  local found = {}
  for _, row in ipairs(sql.rows(op, 0)) do
    if row.shard < S.shards.n then found[#found + 1] = row.shard end
  end
  return found
end

local BATCH = 500

--- Writes down what is there: for rows that are older than the option `inverse`, or were written by
--- other programs.
---@param entity regolith.Entity
---@param progress? fun(shard: integer, n: integer, written: integer)
---@return integer? written rows looked at
---@return regolith.Err? err
function M.rebuild(orm, entity, progress)
  local T, total = orm._types[entity], 0
  local spread = T.shards
  for k = 0, spread.n - 1 do
    for column in pairs(spread.inverse) do
      local from = 0
      repeat
        local name = sql.quoted(column.column)
        local text = string.format("SELECT DISTINCT %s AS parent FROM %s WHERE %s > ? ORDER BY 1 LIMIT %d",
          name, sql.quoted(entity.table or entity.name), name, BATCH)
        local op, fault = run(orm, spread.pools[k], text, { from })
        if not op then return errors.results(fault) end
        local rows, by_pool = sql.rows(op, 0), {}
        for _, row in ipairs(rows) do
          from = tonumber(row.parent)
          local pool = pool_of(orm, T, column, from)
          if pool then
            by_pool[pool] = by_pool[pool] or { names = {} }
            table.insert(by_pool[pool], { T.name, column.path, from, k })
          end
        end
        for pool, list in pairs(by_pool) do
          local ok
          ok, fault = insert(orm, pool, list)
          if not ok then return errors.results(fault) end
        end
        total = total + #rows
      until #rows < BATCH
    end
    if progress then progress(k, spread.n, total) end
  end
  return total
end

return M
