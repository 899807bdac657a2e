-- SPDX-License-Identifier: MIT
-- Regolith: an ORM for Lua on MySQL and Redis.
--
--   local regolith = require "regolith"

local caches = require "regolith.cache.define"
local entities = require "regolith.entity"
local errors = require "regolith.err"
local fields = require "regolith.field"
local literal = require "regolith.literal"
local native = require "regolith.native"
local orm = require "regolith.orm"
local transaction = require "regolith.transaction"

---@class regolith
---@field field regolith.FieldModule constructors of fields
---@field entity fun(name: string, definition: table): regolith.Entity
---@field cache fun(name: string, options: table?): regolith.Cache a cache of the application's values
---@field open fun(config?: table|string, overrides?: table): regolith.Orm?, regolith.Err?, integer?, string?
---@field transactional fun(options: table|function, fn?: function): function runs fn in a transaction
---@field literal fun(sql: string, ...: any): regolith.Expression SQL in the place of a value
---@field increment fun(by?: number|string, opts?: table): regolith.Expression
---@field least fun(value: any): regolith.Expression
---@field greatest fun(value: any): regolith.Expression
---@field append fun(value: any, opts?: { unique: boolean? }): regolith.Expression
---@field remove fun(value: string|number|boolean): regolith.Expression
---@field null lightuserdata stands for NULL where a table needs a value; equals ngx.null and cjson.null
---@field _VERSION string
local M = {
  _VERSION = native.version,
  field = fields.field,
  entity = entities.entity,
  cache = caches.cache,
  open = orm.open,
  transactional = transaction.transactional,
  null = native.null,
  literal = literal.literal,
  increment = literal.increment,
  least = literal.least,
  greatest = literal.greatest,
  append = literal.append,
  remove = literal.remove,
}

--- Marks a table as a JSON array, so that an empty one is written as [] and not as {}.
---@generic T
---@param list? T[]
---@return T[]
function M.array(list)
  if list ~= nil and type(list) ~= "table" then error("array takes a list", 2) end
  return setmetatable(list or {}, native.array_mt)
end

--- Canonical JSON text of a value: sorted names, exact numbers.
---@param value any
---@return string? text
---@return string? why
function M.json_encode(value) return native.json_encode(value) end

--- The value of a JSON text; integers beyond 2^53 are int64_t or uint64_t.
---@param text string
---@return any value
---@return string? why
---@return integer? offset
function M.json_decode(text) return native.json_decode(text) end

--- Is it an error object of this library?
---@param value any
---@return boolean
function M.is_error(value) return errors.is(value) end

return M
