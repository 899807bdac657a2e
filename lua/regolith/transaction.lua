-- SPDX-License-Identifier: MIT
-- Transactions as an application sees them: db:transaction(options, fn), db:begin(options), functions
-- made transactional, and what a scope's handle can do. How scopes work is in scope.
--
-- While a session is in a transaction its metatable is Inside: the same methods, each of which first
-- looks whether the right coroutine calls.

local callbacks = require "regolith.callbacks"
local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local scopes = require "regolith.scope"
local suggest = require "regolith.suggest"

local C, err = native.C, native.err
local running = coroutine.running
local Scope = scopes.Scope
--- Where coroutine.running says nothing.
local MAIN = "the main coroutine"
local PAUSE_MS = 20

---@class regolith.TransactionOptions
---@field propagation? "REQUIRED"|"SUPPORTS"|"MANDATORY"|"REQUIRES_NEW"|"NOT_SUPPORTED"|"NEVER"|"NESTED"
---@field isolation? "DEFAULT"|"READ_UNCOMMITTED"|"READ_COMMITTED"|"REPEATABLE_READ"|"SERIALIZABLE"|"SNAPSHOT"
---@field read_only? boolean
---@field timeout_ms? integer for all of it, COMMIT included
---@field retry? integer how often the body is run again after a deadlock or a conflict of snapshots
---@field lenient? boolean joins a transaction of another isolation, deadline or access all the same
---@field mark_on_failure? boolean false: a failure of this scope leaves the one it joined as it is
---@field resolve? boolean leaves evidence of the commit [when there are callbacks]
---@field pool? string

--- Keeps a call from being a tail call, so that errors blame the caller.
local function given_back(...) return ... end

local function keys(t)
  local list = {}
  for name in pairs(t) do list[#list + 1] = name end
  table.sort(list)
  return unpack(list)
end

local OPTIONS = {
  propagation = options.one_of(keys(scopes.PROPAGATIONS)),
  isolation = options.one_of(keys(scopes.ISOLATIONS)),
  read_only = options.boolean, timeout_ms = options.integer(1, 4294967295), retry = options.integer(0, 1000),
  lenient = options.boolean, mark_on_failure = options.boolean, resolve = options.boolean, pool = options.string,
}

-- ---- the session inside -----------------------------------------------------------------------------

local Inside = { __name = "regolith.Session" }

--- Has the coroutine whose transaction it is ended without ending that?
local function is_orphan(session)
  return type(session._owner) == "thread" and coroutine.status(session._owner) == "dead"
end

local function check_owner(session, level)
  if session._owner ~= (running() or MAIN) then
    if is_orphan(session) then
      error("the session is in a transaction of a coroutine that has ended; tx:adopt() goes on with it, "
        .. "db:close() drops it", level + 1)
    end
    error("the session is in a transaction of another coroutine; give each its own session, or hand the "
      .. "transaction over with tx:adopt()", level + 1)
  end
end

local function guarded(method)
  return function(self, ...)
    if self._owner ~= (running() or MAIN) then check_owner(self, 2) end
    return method(self, ...)
  end
end

--- Methods by name, made when they are first called. Fields that are nil are asked for at any time: that
--- has to be quick, and closures are made elsewhere, or nothing here would be compiled.
local function guard(methods, Session)
  return setmetatable(methods, { __index = function(t, name)
    local method = Session[name]
    if method == nil then return nil end
    if type(method) == "function" and name:sub(1, 1) ~= "_" then method = guarded(method) end
    t[name] = method
    return method
  end })
end

local function define_inside(Session)
  local methods = guard({}, Session)
  Inside.__index = methods

  --- Operations are part of the transactions that the session is in.
  function methods:_run(op, level)
    if C.rg_op_within(op, self._c, err) < 0 then return nil, errors.from_c(err) end
    return Session._run(self, op, (level or 2) + 1)
  end

  function methods:flush_async(opts)
    check_owner(self, 2)
    if not self._scope then return given_back(Session.flush_async(self, opts)) end
    error("flush_async has no part in a transaction: what it queues could not be rolled back; "
      .. "call it in a callback: tx:commit(function() db:flush_async() end)", 2)
  end

  function methods:clear()
    check_owner(self, 2)
    Session.clear(self)
    for _, scope in ipairs(self._scopes) do
      if scope._frame and scope._frame.saved and scope._state == "active" then scope._frame.saved.cleared = true end
    end
  end

  function methods:close()
    if is_orphan(self) then return self:_abandon() end
    error("the session is in a transaction; end that first, by tx:commit() or tx:rollback()", 2)
  end
end

-- ---- handles ----------------------------------------------------------------------------------------

--- Raises unless the handle may be used here and now.
local function check(scope, level)
  if getmetatable(scope) ~= Scope then error("call it with a colon: tx:commit(...)", level + 1) end
  if scope._state == "done" then error("the transaction's scope has ended", level + 1) end
  check_owner(scope._session, level + 1)
  if scope._state == "suspended" then
    error("the scope is suspended: another transaction runs within it", level + 1)
  end
end

local function check_callback(fn, level)
  if type(fn) ~= "function" then error("a callback is a function", level + 1) end
end

--- Writes a durable callback in the transaction; in autocommit when there is none.
local function durable(session, scope, name, payload, opts)
  local given = opts
  if opts == nil or type(opts) == "table" then
    given = { pool = scope and scope._pool }
    for option, v in pairs(opts or {}) do given[option] = v end
  end
  local number, fault = callbacks.add(session, nil, name, payload, given, 5) -- no tail call, as below
  return number, fault
end

local CALLBACK = { only_in_transaction = options.boolean }

--- Registers fn for the commit of the transaction around; without one it runs now.
local function on_commit(session, scope, fn, opts, ...)
  if type(fn) == "string" then
    local number, fault = durable(session, scope, fn, opts, ...)
    return number, fault
  end
  check_callback(fn, 3)
  opts = options.require("commit", opts, CALLBACK, 4)
  if scope and scope._tx then
    scopes.register(scope._frame, "commits", fn)
    return true
  end
  if opts.only_in_transaction then return false end
  fn()
  return true
end

local function on_rollback(scope, fn)
  check_callback(fn, 3)
  if not (scope and scope._tx) then return false end
  scopes.register(scope._frame, "compensates", fn)
  return true
end

local function check_manual(scope, level)
  if not scope._manual then error("this scope ends with its function", level + 1) end
  if scope._children > 0 then
    error("a scope that was begun within this one has not ended", level + 1)
  end
  if scope._home and scope._home ~= scope._session._c then
    error("a transaction that has suspended another since this one began has not ended", level + 1)
  end
end

--- With a function: has it run after the commit of the transaction (at once when the scope has none).
--- With a name: the durable callback of that name. Without arguments: ends a scope that was begun by
--- db:begin; true (and the failures of callbacks), or nil and the error after a rollback.
---@param fn? function|string
---@param ... any payload and options of a durable callback; options of any other
---@return boolean|number|nil ok number of the durable callback
---@return regolith.Err|regolith.Err[]|nil err
function Scope:commit(fn, ...)
  check(self, 2)
  if fn ~= nil then
    return given_back(on_commit(self._session, self, fn, ...))
  end
  check_manual(self, 2)
  local ok, fault = scopes.commit(self)
  if not ok then return errors.results(fault) end
  return true, fault
end

--- Has fn run when the transaction, or the savepoint of the scope, is rolled back. False when there is no
--- transaction: it will never run.
---@param fn function
---@return boolean
function Scope:compensate(fn)
  check(self, 2)
  local registered = on_rollback(self, fn)
  return registered
end

--- Ends a scope that was begun by db:begin, in failure.
---@param cause? any
---@return true
function Scope:rollback(cause)
  check(self, 2)
  check_manual(self, 2)
  scopes.rollback(self, cause)
  return true
end

--- Has the scope's transaction end in a rollback: quietly when it is the scope's own, as a failure of
--- this scope when it has joined one.
---@param cause? any
function Scope:rollback_only(cause)
  check(self, 2)
  if not self._tx then return end
  if self._frame.owner == self then return scopes.mark(self._frame, scopes.QUIET) end
  if cause == nil then cause = errors.new("MISUSE", "a scope within asked for a rollback") end
  scopes.mark(self._frame, cause)
end

--- Is there a transaction?
---@return boolean
function Scope:in_transaction() return self._tx ~= nil end

--- Can it only be rolled back?
---@return boolean
function Scope:is_rollback_only()
  return self._tx ~= nil and self._state ~= "done" and scopes.is_marked(self._tx, self._frame)
end

--- Has the running coroutine go on with the transaction, instead of the one that had it.
---@return regolith.Transaction self
function Scope:adopt()
  if self._state == "done" then error("the transaction's scope has ended", 2) end
  if self._session._busy then error("the session is in use by another coroutine", 2) end
  self._session._owner = running() or MAIN
  scopes.adopt(self._session)
  return self
end

--- For other parts of the library: fn runs after COMMIT, when the caches say what was committed and
--- before the application's callbacks; dropped by a rollback.
function Scope:_after_commit(fn)
  scopes.register(self._frame, "after_commit", fn)
end

--- The same after a rollback, last registered first; dropped by a commit.
function Scope:_after_rollback(fn)
  scopes.register(self._frame, "after_rollback", fn)
end

-- ---- running bodies ---------------------------------------------------------------------------------

local RETRIED = { DEADLOCK = true, PENDING = true }

--- May the body run again after that?
local function is_retried(cause)
  if not errors.is(cause) then return false end
  if cause.code == "UNEXPECTED_ROLLBACK" then return is_retried(cause.cause) end
  return RETRIED[cause.code] == true
end

local function pack(...) return { n = select("#", ...), ... } end

--- What a body failed with: it raised, or returned nil (or false) and an error.
local function failure_of(answer)
  if not answer[1] then return true, answer[2] end
  if not answer[2] and answer[3] ~= nil then return true, answer[3] end
  return false
end

local LEFT_OPEN = "a scope that was begun within the transaction has not ended when it ends"

--- Ends a body's scope: true, or false and the cause.
local function finish(scope, answer)
  if scope._state == "done" then return true end
  local failed, cause = failure_of(answer)
  if scopes.has_later(scope) then
    if not failed then
      failed, cause = true, errors.new("MISUSE", LEFT_OPEN)
      answer[1], answer[2], answer.n = false, cause, 2
    end
    scopes.abandon_later(scope, cause)
  end
  if failed then
    scopes.rollback(scope, cause)
    return false, cause
  end
  local ok, fault = scopes.commit(scope)
  if ok then return true end
  local results = pack(true, errors.results(fault))
  for i = 2, math.max(answer.n, results.n) do answer[i] = results[i] end
  answer.n = results.n
  return false, fault
end

local function pause(session, tries)
  local op = session:_own(C.rg_op_pause(session._orm._engine, math.random(1, PAUSE_MS * tries), err))
  if op then session:_run(op, 3) end
end

--- Runs fn(...) in a scope; its answer, packed as pcall's. Also, whether it worked, why not, and whether the
--- transaction was the scope's own.
local function run_once(session, opts, fn, pass_scope, ...)
  local scope, fault = session:_enter_scope(opts)
  if not scope then return pack(true, errors.results(fault)), true end
  local answer = pass_scope and pack(pcall(fn, scope, ...)) or pack(pcall(fn, ...))
  local ok, cause = finish(scope, answer)
  return answer, ok, cause, scopes.is_root(scope)
end

--- The same, again where that is asked for and sensible. The loop is apart from the first time: what has no
--- loop in it is compiled as a whole.
local function run_again(session, opts, cause, ...)
  local answer, ok, fresh
  for tries = 1, opts.retry do
    if not is_retried(cause) then break end
    pause(session, tries)
    answer, ok, cause, fresh = run_once(session, opts, ...)
    if ok or not fresh then break end
  end
  return answer
end

local function run_body(session, opts, fn, pass_scope, ...)
  local answer, ok, cause, fresh = run_once(session, opts, fn, pass_scope, ...)
  if ok or not fresh or not opts.retry then return answer end
  return run_again(session, opts, cause, fn, pass_scope, ...) or answer
end

--- Returns or raises what a body did.
local function deliver(answer)
  if not answer[1] then error(answer[2], 0) end
  return unpack(answer, 2, answer.n)
end

--- Checks options once; those of a wrapped function are checked when it is made.
local function check_options(what, opts, level)
  opts = options.require(what, opts, OPTIONS, level + 2)
  return opts
end

--- Nobody writes to options.
local NO_OPTIONS = {}

local M = {}

--- Has fn run in a transaction of the session that is its first argument, or that its first argument has
--- as `db`.
---@generic F: function
---@param opts regolith.TransactionOptions|F
---@param fn? F
---@return F
function M.transactional(opts, fn)
  if fn == nil then opts, fn = {}, opts end
  if type(fn) ~= "function" then error("transactional takes options (or none), then a function", 2) end
  opts = check_options("transactional", opts, 2)
  return function(first, ...)
    local session = first
    if type(first) == "table" and not first._enter_scope then session = first.db end
    if type(session) ~= "table" or not session._enter_scope then
      error("a transactional function is called with a session, or with what has one as 'db'", 2)
    end
    return deliver(run_body(session, opts, fn, false, first, ...))
  end
end

--- A handle is often taken for the session.
local function define_strangers(Session)
  setmetatable(Scope, { __index = function(_, name)
    if type(name) ~= "string" or name:sub(1, 1) == "_" then return nil end
    if type(Session[name]) == "function" then
      error(string.format("tx has no '%s': the session is in the transaction, db:%s(...) is part of it", name, name), 2)
    end
    error(string.format("tx has no '%s'%s", name, suggest.hint(name, Scope)), 2)
  end })
end

---@param Session table
function M.install(Session)
  define_inside(Session)
  define_strangers(Session)

  --- Enters a scope and has the session know of it.
  function Session:_enter_scope(opts)
    if self._flushing then error("a transaction does not begin within a hook of a flush", 4) end
    local number = C.rg_engine_pool(self._orm._engine, opts.pool, err)
    if number < 0 then error(errors.from_c(err).message .. suggest.hint(opts.pool, self._orm._pools), 4) end
    if getmetatable(self) == Inside then
      check_owner(self, 4)
    else
      self._scopes, self._pools = self._spare_scopes or {}, self._spare_pools or {}
      self._spare_scopes, self._spare_pools = nil, nil
      self._n_suspended, self._owner = 0, running() or MAIN
      setmetatable(self, Inside)
    end
    local called, scope, fault = pcall(scopes.enter, self, opts, number)
    if not called or not scope then self:_leave_scopes() end
    if not called then error(scope, 0) end
    return scope, fault
  end

  --- Outside of everything it is a plain session again.
  function Session:_leave_scopes()
    if not self._scopes or #self._scopes > 0 then return end
    self._spare_scopes, self._spare_pools = self._scopes, self._pools
    self._scopes, self._pools, self._owner, self._scope = nil, nil, nil, nil
    setmetatable(self, Session)
  end

  --- An operation that is no part of a transaction, but ends one.
  function Session:_run_alone(op, level) return Session._run(self, op, (level or 2) + 1) end

  --- Ends a session whose coroutine will never go on: what it has left open is closed, not waited for.
  function Session:_abandon()
    for _, scope in ipairs(self._scopes or {}) do
      scope._state = "done"
      if scopes.is_root(scope) and scope._tx.c ~= nil then C.rg_tx_free(native.ffi.gc(scope._tx.c, nil)) end
      if scope._context then C.rg_session_free(native.ffi.gc(scope._context._c, nil)) end
    end
    self._scopes, self._pools, self._owner, self._scope = nil, nil, nil, nil
    setmetatable(self, Session)
    self:close()
  end

  function Session:_flush_now() return Session.flush(self) end

  function Session:_forget_all() Session.clear(self) end

  --- Runs fn(tx) in a transaction. It is committed when fn returns, with what is pending flushed before;
  --- rolled back when fn raises, or returns nil (or false) and an error. Either is passed on as it is.
  ---@param opts regolith.TransactionOptions|fun(tx: regolith.Transaction): any
  ---@param fn? fun(tx: regolith.Transaction): any
  ---@return any ... what fn returned, or nil and the error when the transaction could not be committed
  function Session:transaction(opts, fn)
    if fn == nil then opts, fn = nil, opts end
    if type(fn) ~= "function" then error("transaction takes options (or none), then a function", 2) end
    opts = opts and check_options("transaction", opts, 2) or NO_OPTIONS
    return deliver(run_body(self, opts, fn, true))
  end

  --- Begins a transaction that is ended by hand: tx:commit() or tx:rollback().
  ---@param opts? regolith.TransactionOptions
  ---@return regolith.Transaction? tx
  ---@return regolith.Err? err
  function Session:begin(opts)
    if type(opts) == "function" then error("begin takes no function: transaction does, and ends with it", 2) end
    opts = check_options("begin", opts, 2)
    if opts.retry then error("begin: only a function can be run again; use transaction with 'retry'", 2) end
    local scope, fault = self:_enter_scope(opts)
    if not scope then return errors.results(fault) end
    scope._manual = true
    return scope
  end

  --- The innermost scope with a transaction, or nil.
  ---@return regolith.Transaction?
  function Session:current() return self._scope end

  ---@return boolean
  function Session:in_transaction() return self._scope ~= nil end

  --- Has fn run after the commit of the transaction around; at once when there is none, or not at all
  --- with only_in_transaction (then false).
  ---@param fn function|string
  ---@param ... any
  ---@return boolean
  function Session:commit(fn, ...)
    if fn == nil then
      error("db:commit takes a callback; what ends a transaction is the handle that db:begin gave: tx:commit()", 2)
    end
    return given_back(on_commit(self, self._scope, fn, ...))
  end

  --- Has fn run when the transaction around is rolled back. False when there is none.
  ---@param fn function
  ---@return boolean
  function Session:compensate(fn)
    local registered = on_rollback(self._scope, fn)
    return registered
  end

  --- How the session's last transaction, or savepoint, ended: "committed", "rolled_back" or "unknown"; why;
  --- and what callbacks failed with.
  ---@return { state: string, cause: any, failures: regolith.Err[]? }?
  function Session:outcome() return self._outcome end
end

return M
