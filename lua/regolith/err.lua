-- SPDX-License-Identifier: MIT
-- Errors of the outside world: one object with a stable code. Misuse is raised instead.

local native = require "regolith.native"

local C, ffi = native.C, native.ffi
local fstr = ffi.string

---@class regolith.Err
---@field code string stable name, e.g. "DUPLICATE_KEY"
---@field message string what happened, for a person
---@field errno integer? the server's error number
---@field sqlstate string? the server's five characters
---@field retriable boolean the same call may succeed later, unchanged
---@field field string? the field named by INVALID
---@field index string? the index named by DUPLICATE_KEY
---@field entity string? name of the entity type concerned
---@field shard integer? of an entity with shards: which one
---@field row table? the entity concerned (flush)
---@field hook string? the hook named by HOOK
local Err = { __name = "regolith.Err" }
Err.__index = Err

--- The text without the code: what concerns which entity.
local function where(e)
  local place = e.entity
  if e.field and not e.message:find(e.field, 1, true) then
    place = place and place .. "." .. e.field or e.field
  end
  if not place or e.message:find(place, 1, true) then return e.message end
  return place .. ": " .. e.message
end

function Err:__tostring() return self.code .. ": " .. where(self) end
function Err.__concat(a, b) return tostring(a) .. tostring(b) end

local M = {}

---@param code string
---@param message string
---@param extra? table further members
---@return regolith.Err
function M.new(code, message, extra)
  local e = extra or {}
  e.code, e.message = code, message
  if e.retriable == nil then e.retriable = false end
  return setmetatable(e, Err)
end

local function text(chars)
  local s = fstr(chars)
  return s ~= "" and s or nil
end

--- Names of the engine's types that are shards -> their entities'.
local of_shards = {}

--- The name of the engine's type that is shard k of an entity.
---@param name string
---@param k integer
---@return string
function M.shard_name(name, k)
  local full = string.format("%s@%d", name, k)
  of_shards[full] = name
  return full
end

--- The entity's name of the name of an engine's type.
---@param name string?
---@return string?
function M.entity_name(name) return name and (name:gsub("@%d+$", "")) end

--- A text of the engine that speaks of entities, not of their shards.
---@param message string?
---@return string?
function M.plain(message)
  if not message then return nil end
  return (message:gsub("[%w_]+@%d+", of_shards))
end

--- Which shard the name of a type tells; nil: none.
local function shard_of(name) return name and tonumber(name:match "@(%d+)$") end

--- A Lua error object of what the engine reported.
---@param c ffi.cdata* rg_err, or pointer to one
---@return regolith.Err
function M.from_c(c)
  local name = text(c.entity)
  return setmetatable({
    code = fstr(C.rg_code_name(c.code)),
    message = M.plain(fstr(c.message)),
    errno = c.sql_errno ~= 0 and c.sql_errno or nil,
    sqlstate = text(c.sqlstate),
    retriable = c.retriable ~= 0,
    field = text(c.field),
    index = text(c.index),
    entity = M.entity_name(name),
    shard = shard_of(name),
  }, Err)
end

--- What a failing function returns. LuaJIT's `assert` raises its last argument when the second is no
--- string: the error itself comes last too, so that assert(db:flush()) raises it.
---@param e regolith.Err
---@return nil, regolith.Err, integer?, string?, regolith.Err?
function M.results(e)
  if not e.errno and not e.sqlstate then return nil, e end
  return nil, e, e.errno, e.sqlstate, e
end

--- For `return errors.pass(f(...))`: no tail call of f, so that what it raises blames the caller, and no value
--- more than f returned.
function M.pass(...) return ... end

--- The same as results for an rg_err.
function M.fail(c) return M.results(M.from_c(c)) end

---@param value any
---@return boolean
function M.is(value) return getmetatable(value) == Err end

--- What anything that was raised says of itself, if it does.
---@param v any
---@return string
function M.text(v)
  local ok, said = pcall(tostring, v)
  return ok and type(said) == "string" and said or "a " .. type(v) .. " that has no text"
end

--- Tells somebody of an error; what comes of that changes nothing any more.
---@param told fun(fault: regolith.Err)?
---@param fault regolith.Err
function M.report(told, fault)
  if told then pcall(told, fault) end
end

--- Tells a function of the application of what has happened; what it raises changes nothing of that, and is
--- reported.
---@param on_error fun(fault: regolith.Err)? who is told of that
---@param name string the function's, as an option
---@param told function?
---@param ... any what it is told
function M.tell(on_error, name, told, ...)
  if not told then return end
  local ok, raised = pcall(told, ...)
  if ok then return end
  M.report(on_error, M.new("HOOK", name .. ": " .. M.text(raised), { hook = name, cause = raised }))
end

return M
