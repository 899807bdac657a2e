-- SPDX-License-Identifier: MIT
-- Raw SQL: statements of the application's own, on any connection of a pool or on one held for a
-- while. Results keep their types: decimals and integers beyond 2^53 are strings, NULL is nil.

local errors = require "regolith.err"
local native = require "regolith.native"
local sql = require "regolith.sql"

local C, ffi, err = native.C, native.ffi, native.err

--- A statement is its text, or { text, pool = "logs" }.
local function statement(given, level)
  if type(given) == "string" then return given, "default" end
  if type(given) == "table" and type(rawget(given, 1)) == "string" then
    local pool = rawget(given, "pool")
    if pool ~= nil and type(pool) ~= "string" then error("a statement's pool is its name", level + 1) end
    return given[1], pool or "default"
  end
  error("a statement is SQL text, or { text, pool = name }", level + 1)
end

--- Makes, binds and runs one statement: a DONE operation, or nil and the error.
---@param make fun(text: string): ffi.cdata*
local function run(session, make, level, text, ...)
  local full, params, n = sql.expand(level + 1, text, ...)
  local op, fault = session:_own(make(full))
  if not op then return nil, fault end
  if sql.bind(op, params, n) < 0 then return nil, errors.from_c(err) end
  local ok
  ok, fault = session:_run(op, level + 1)
  if not ok then return nil, fault end
  return op
end

--- The three forms of an answer.
local ANSWERS = {}

function ANSWERS.query(op) return C.rg_op_sets(op) > 0 and sql.rows(op, 0) or {} end
function ANSWERS.call(op) return sql.sets(op) end
function ANSWERS.execute(op)
  local id = C.rg_op_insert_id(op, 0)
  return { affected = C.rg_op_affected(op, 0), insert_id = id > 0 and id or nil }
end

---@alias regolith.Statement string|{ [1]: string, pool: string? } SQL text, or with the pool it is for

---@alias regolith.Executed { affected: number, insert_id: number? }

--- Rows of the first result set; all result sets; what a statement did. Or nil, err, errno, sqlstate.
---@class regolith.Session
---@field query fun(self: regolith.Session, sql: regolith.Statement, ...: any): table[]?, regolith.Err?
---@field call fun(self: regolith.Session, sql: regolith.Statement, ...: any): table[][]?, regolith.Err?
---@field execute fun(self: regolith.Session, sql: regolith.Statement, ...: any): regolith.Executed?, regolith.Err?

--- One connection, for as long as the function runs.
---@class regolith.Connection
---@field query fun(self: regolith.Connection, sql: string, ...: any): table[]?, regolith.Err?
---@field call fun(self: regolith.Connection, sql: string, ...: any): table[][]?, regolith.Err?
---@field execute fun(self: regolith.Connection, sql: string, ...: any): regolith.Executed?, regolith.Err?
---@field _session regolith.Session
---@field _lease ffi.cdata*?
local Connection = { __name = "regolith.Connection" }
Connection.__index = Connection

for name, answer in pairs(ANSWERS) do
  Connection[name] = function(self, text, ...)
    local lease = self._lease
    if not lease then error("the connection has been given back", 2) end
    if type(text) ~= "string" then error("a statement is SQL text", 2) end
    local op, fault = run(self._session, function(full)
      return C.rg_op_lease_query(lease, full, #full, err)
    end, 2, text, ...)
    if not op then return errors.results(fault) end
    return answer(op)
  end
end

local function borrow(session, pool)
  local op, fault = session:_own(C.rg_op_borrow(session._orm._engine, pool, err))
  if not op then return nil, fault end
  local ok
  ok, fault = session:_run(op, 3)
  if not ok then return nil, fault end
  local lease = ffi.gc(C.rg_op_lease(op), C.rg_lease_free)
  local host = session._orm._host
  if host.adopt then host:adopt("lease", lease) end
  return lease
end

--- Back into the pool, rolled back and reset. A connection that cannot be given back is closed by the
--- engine: nobody else ever gets it.
local function give_back(connection)
  local session, lease = connection._session, connection._lease
  connection._lease = nil
  local op = session:_own(C.rg_op_lease_return(lease, err))
  if op then session:_run(op, 3) end
  C.rg_lease_free(ffi.gc(lease, nil))
end

--- Gives the connection back whatever happened, then returns or raises what the function did.
local function finish(connection, ok, ...)
  give_back(connection)
  if not ok then error((...), 0) end
  return ...
end

local M = {}

---@param Session table
function M.install(Session)
  for name, answer in pairs(ANSWERS) do
    Session[name] = function(self, given, ...)
      local text, pool = statement(given, 2)
      local op, fault = run(self, function(full)
        return C.rg_op_query(self._orm._engine, pool, full, #full, err)
      end, 2, text, ...)
      if not op then return errors.results(fault) end
      local result = answer(op)
      native.done(op)
      return result
    end
  end

  --- For other parts of the library: a statement on a table that is no entity's, which caches need not
  --- mind.
  function Session:_execute_beside(pool, text, ...)
    local op, fault = run(self, function(full)
      local made = C.rg_op_query(self._orm._engine, pool, full, #full, err)
      if made ~= nil then C.rg_op_query_beside(made) end
      return made
    end, 2, text, ...)
    if not op then return nil, fault end
    return ANSWERS.execute(op)
  end

  --- Runs fn(connection) with one connection of a pool held; it goes back clean in any case.
  ---@param pool string|fun(connection: regolith.Connection): any
  ---@param fn? fun(connection: regolith.Connection): any
  ---@return any ... what the function returns, or nil and the error when no connection is to be had
  function Session:connection(pool, fn)
    if fn == nil then pool, fn = "default", pool end
    if type(pool) ~= "string" or type(fn) ~= "function" then
      error("connection takes a pool's name and a function", 2)
    end
    local lease, fault = borrow(self, pool)
    if not lease then return errors.results(fault) end
    local connection = setmetatable({ _session = self, _lease = lease }, Connection)
    return finish(connection, pcall(fn, connection))
  end
end

return M
