-- SPDX-License-Identifier: MIT
-- Locks between processes: leases in Redis with a fencing token, and MySQL's own locks on a connection
-- that is theirs alone.

local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local sql = require "regolith.sql"

local C, ffi, err, done = native.C, native.ffi, native.err, native.done

local TTL_MS, ADVISORY_GRACE_MS = 10000, 5000
local ttl = options.integer(50, 86400000)
local wait = options.integer(0, 2147483647)
---@class regolith.LockOptions
---@field ttl_ms integer? [10000]
---@field wait_ms integer? [0]
---@field renew boolean? [true]
---@field max_ms integer?
---@field redis string? name of the pool
---@field keep boolean? nginx: beyond the request that took it [false]
---@field on_lost fun(lock: regolith.Lock)?
local LOCK = {
  ttl_ms = ttl, wait_ms = wait, renew = options.boolean, max_ms = options.integer(1, 4294967295),
  redis = options.string, keep = options.boolean, on_lost = options.func,
}
local ADVISORY = { timeout_ms = wait, pool = options.string, keep = options.boolean }

--- What was given after the name: options, a function, both or neither.
local function arguments(what, name, opts, fn, schema)
  if type(name) ~= "string" or name == "" or #name > 512 then
    error(what .. ": a lock's name is a string of 1 to 512 bytes", 3)
  end
  if type(opts) == "function" and fn == nil then opts, fn = nil, opts end
  if fn ~= nil and type(fn) ~= "function" then error(what .. " takes a name, options and a function", 3) end
  return options.require(what, opts, schema, 4), fn
end

--- Gives the lock back whatever happened, then returns or raises what the function did.
local function finish(lock, ok, ...)
  if lock:_open() then lock:release() end
  if not ok then error((...), 0) end
  return ...
end

-- ---- in Redis -----------------------------------------------------------------------------------

--- A lock in Redis.
---@class regolith.Lock
---@field name string
---@field token number grows with every lock of the prefix that is taken
---@field _orm regolith.Orm
---@field _c ffi.cdata*? rg_lock; nil once it was given back
---@field _on_lost fun(lock: regolith.Lock)? until it was called
local Lock = { __name = "regolith.Lock" }
Lock.__index = Lock

function Lock:_open() return self._c ~= nil end

local function handle(self)
  return self._c or error("the lock has been given back", 3)
end

local function tell(self)
  local fn = self._on_lost
  self._on_lost = nil
  if fn then fn(self) end
end

--- Is it surely held, now? Asks nobody. Once false, for ever.
---@return boolean
function Lock:held()
  if not self._c then return false end
  local held = C.rg_lock_left_ms(self._c) > 0
  if not held then tell(self) end
  return held
end

--- How long it is surely held, if it is not renewed; 0 when it is not.
---@return number
function Lock:left_ms() return self._c and C.rg_lock_left_ms(self._c) or 0 end

--- Renews the lease now, with another ttl if one is given.
---@param ttl_ms? integer
---@return true? ok
---@return regolith.Err? err LOCK_LOST
function Lock:extend(ttl_ms)
  local c = handle(self)
  local wrong = ttl_ms ~= nil and ttl(ttl_ms)
  if wrong then error("extend: ttl_ms " .. wrong, 2) end
  local op, fault = self._orm:_do(C.rg_op_lock_extend(c, ttl_ms or 0, err))
  if op then return true end
  if fault.code == "LOCK_LOST" then tell(self) end
  return errors.results(fault)
end

--- From here on nobody is told of its loss.
local function unwatch(self)
  local watched = self._watch
  self._on_lost, self._watch = nil, nil
  if watched and watched.cancel then watched.cancel() end
end

--- Gives it back. A retriable error says that Redis has not answered: the engine goes on telling it, and
--- another `release` is true as soon as it has.
---@return true? ok
---@return regolith.Err? err LOCK_LOST when it was not held any more
function Lock:release()
  local c = handle(self)
  local op, fault = self._orm:_do(C.rg_op_lock_release(c, err))
  if not op and fault.code == "MISUSE" then return errors.results(fault) end -- a phase that cannot wait
  if not op and fault.code == "LOCK_LOST" then tell(self) end
  if not op and fault.retriable then unwatch(self) else self:drop() end
  if not op then return errors.results(fault) end
  return true
end

--- Leaves giving it back to the engine: never waits, and tells nothing.
function Lock:drop()
  unwatch(self)
  local c = self._c
  self._c = nil
  if c then C.rg_lock_free(ffi.gc(c, nil)) end
end

local lock_opts = ffi.typeof "rg_lock_opts"

local function watch(self)
  local host = self._orm._host
  if not self._on_lost or not host.watch then return end
  local c = self._c
  self._watch = host:watch(function(notifier, tag) return C.rg_lock_tell(c, notifier, tag) == 1 end,
    function() tell(self) end)
end

local function take(orm, name, opts)
  local wait_ms = opts.wait_ms or 0
  local c_opts = lock_opts {
    size = ffi.sizeof(lock_opts), redis = opts.redis, ttl_ms = opts.ttl_ms or TTL_MS, wait_ms = wait_ms,
    renew = opts.renew == false and 0 or 1, max_ms = opts.max_ms or 0,
  }
  local op, fault = orm:_do(C.rg_op_lock(orm._engine, name, #name, c_opts, err), wait_ms + 60000)
  if not op then return nil, fault end
  local c = C.rg_op_lock_take(op)
  done(op)
  if c == nil then return false end
  c = ffi.gc(c, C.rg_lock_free)
  if orm._host.adopt and opts.keep ~= true then orm._host:adopt("lock", c) end
  local self = setmetatable({
    name = name, token = C.rg_lock_token(c), _orm = orm, _c = c, _on_lost = opts.on_lost,
  }, Lock)
  watch(self)
  return self
end

-- ---- in MySQL -----------------------------------------------------------------------------------

--- A lock in MySQL, for as long as its connection lives.
---@class regolith.AdvisoryLock
---@field name string
---@field _orm regolith.Orm
---@field _sql_name string
---@field _lease ffi.cdata*? nil once it was given back
local Advisory = { __name = "regolith.AdvisoryLock" }
Advisory.__index = Advisory

function Advisory:_open() return self._lease ~= nil end

--- The one value of a statement on a borrowed connection; nil and the error.
local function ask(orm, lease, timeout_ms, text, ...)
  local op = C.rg_op_lease_query(lease, text, #text, err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  if sql.bind(op, { ... }, select("#", ...)) < 0 then return nil, errors.from_c(err) end
  local ok, fault = orm:_run(op, timeout_ms)
  if not ok then return nil, fault end
  local row = sql.rows(op, 0)[1]
  done(op)
  return row.answer or false
end

--- The connection goes back to its pool, which ends every lock on it; a lost one is closed.
local function give_back(orm, lease)
  orm:_do(C.rg_op_lease_return(lease, err))
  C.rg_lease_free(ffi.gc(lease, nil))
end

local function lost(self, why)
  return errors.new("LOCK_LOST", string.format("the lock '%s' is not held any more: %s", self.name, why))
end

--- Is it held, as far as its connection tells? Asks nobody.
---@return boolean
function Advisory:held() return self._lease ~= nil and C.rg_lease_alive(self._lease) == 1 end

--- Asks the server whether it is held.
---@return boolean? held
---@return regolith.Err? err when the server did not answer; then it is not
function Advisory:check()
  local lease = self._lease or error("the lock has been given back", 2)
  local answer, fault = ask(self._orm, lease, nil, "SELECT IS_USED_LOCK(?) = CONNECTION_ID() AS answer", self._sql_name)
  if answer == nil then return errors.results(fault) end
  return answer == 1
end

--- Gives it back, and its connection.
---@return true? ok
---@return regolith.Err? err LOCK_LOST when it was not held any more
function Advisory:release()
  local lease = self._lease or error("the lock has been given back", 2)
  local answer, fault = ask(self._orm, lease, nil, "SELECT RELEASE_LOCK(?) AS answer", self._sql_name)
  if fault and fault.code == "MISUSE" then return errors.results(fault) end -- a phase that cannot wait
  self._lease = nil
  give_back(self._orm, lease)
  if answer == 1 then return true end
  return errors.results(lost(self, fault and fault.message or "another session ended it"))
end

--- Closes the connection, which ends the lock: never waits.
function Advisory:drop()
  local lease = self._lease
  self._lease = nil
  if lease then C.rg_lease_free(ffi.gc(lease, nil)) end
end

--- MariaDB takes parts of a second, MySQL whole ones.
local GET_LOCK = "SELECT GET_LOCK(?, IF(VERSION() LIKE '%MariaDB%', ?, CEIL(?))) AS answer"

local function take_advisory(orm, name, opts)
  local buffer = ffi.new "char[65]"
  C.rg_lock_sql_name(name, #name, buffer)
  local sql_name, timeout_ms = ffi.string(buffer), opts.timeout_ms or 0
  local op, fault = orm:_do(C.rg_op_borrow(orm._engine, opts.pool or "default", err))
  if not op then return nil, fault end
  local lease = ffi.gc(C.rg_op_lease(op), C.rg_lease_free)
  done(op)
  if orm._host.adopt and opts.keep ~= true then orm._host:adopt("lease", lease) end
  local seconds = timeout_ms / 1000
  local answer
  answer, fault = ask(orm, lease, timeout_ms + ADVISORY_GRACE_MS, GET_LOCK, sql_name, seconds, seconds)
  if answer == 1 then
    return setmetatable({ name = name, _sql_name = sql_name, _orm = orm, _lease = lease }, Advisory)
  end
  give_back(orm, lease)
  if answer == 0 then return false end
  return nil, fault or errors.new("SQL", string.format("GET_LOCK('%s') failed on the server", sql_name))
end

-- ---- on an orm ----------------------------------------------------------------------------------

local M = {}

---@param Orm table
function M.install(Orm)
  --- Takes the lock of that name in Redis; false when somebody else has it. With a function: runs it with
  --- the lock, gives the lock back, and returns what the function does.
  ---@param name string
  ---@param opts? regolith.LockOptions
  ---@param fn? fun(lock: regolith.Lock): any
  ---@return regolith.Lock|false|nil lock
  ---@return regolith.Err? err
  function Orm:lock(name, opts, fn)
    opts, fn = arguments("lock", name, opts, fn, LOCK)
    local lock, fault = take(self, name, opts)
    if lock == nil then return errors.results(fault) end
    if not lock or not fn then return lock end
    return finish(lock, pcall(fn, lock))
  end

  --- Takes the lock of that name in MySQL, on a connection that it keeps; false when somebody else has it.
  --- With a function: as above.
  ---@param name string
  ---@param opts? { timeout_ms: integer?, pool: string?, keep: boolean? }
  ---@param fn? fun(lock: regolith.AdvisoryLock): any
  ---@return regolith.AdvisoryLock|false|nil lock
  ---@return regolith.Err? err
  function Orm:advisory_lock(name, opts, fn)
    opts, fn = arguments("advisory_lock", name, opts, fn, ADVISORY)
    local lock, fault = take_advisory(self, name, opts)
    if lock == nil then return errors.results(fault) end
    if not lock or not fn then return lock end
    return finish(lock, pcall(fn, lock))
  end
end

return M
