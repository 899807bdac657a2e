-- SPDX-License-Identifier: MIT
-- Scopes of transactions: how one is entered and how it ends, and its callbacks. A scope belongs to one
-- session and one coroutine; several scopes may share a physical transaction.
--
-- A physical transaction has frames, one for itself and one for each savepoint: what was registered
-- there, and the snapshot that a rollback to it restores. Its end is told in this order: the caches (the
-- engine's), what other parts of the library registered, the application's callbacks.

local callbacks = require "regolith.scope_callbacks"
local errors = require "regolith.err"
local native = require "regolith.native"
local overlay = require "regolith.cache.overlay"
local snapshot = require "regolith.snapshot"

local new_table = require "table.new"

local C, ffi, err = native.C, native.ffi, native.err
local CREATE, JOIN, SAVEPOINT = tonumber(C.RG_TX_CREATE), tonumber(C.RG_TX_JOIN), tonumber(C.RG_TX_SAVEPOINT)
local SUSPEND_AND_CREATE, SUSPEND = tonumber(C.RG_TX_SUSPEND_AND_CREATE), tonumber(C.RG_TX_SUSPEND)
local RUN_WITHOUT, REFUSE = tonumber(C.RG_TX_RUN_WITHOUT), tonumber(C.RG_TX_REFUSE)
local IDLE, DOOMED = tonumber(C.RG_TX_IDLE), tonumber(C.RG_TX_DOOMED)
local COMMITTED, UNKNOWN = tonumber(C.RG_TX_COMMITTED), tonumber(C.RG_TX_UNKNOWN)

local PROPAGATIONS = {
  REQUIRED = C.RG_PROPAGATION_REQUIRED, SUPPORTS = C.RG_PROPAGATION_SUPPORTS,
  MANDATORY = C.RG_PROPAGATION_MANDATORY, REQUIRES_NEW = C.RG_PROPAGATION_REQUIRES_NEW,
  NOT_SUPPORTED = C.RG_PROPAGATION_NOT_SUPPORTED, NEVER = C.RG_PROPAGATION_NEVER,
  NESTED = C.RG_PROPAGATION_NESTED,
}
local ISOLATIONS = {
  DEFAULT = 0, READ_UNCOMMITTED = 1, READ_COMMITTED = 2, REPEATABLE_READ = 3, SERIALIZABLE = 4, SNAPSHOT = 5,
}

---@class regolith.Frame what was registered since a transaction or a savepoint began
---@field commits function[] first in, first out
---@field compensates function[] last in, first out
---@field after_commit function[] of the library's own
---@field after_rollback function[]
---@field saved regolith.Snapshot?
---@field owner regolith.Transaction the scope that ends it
---@field marked boolean it can only be rolled back
---@field cause any why

---@class regolith.Physical a physical transaction
---@field c ffi.cdata* rg_tx
---@field pool integer number
---@field options regolith.TransactionOptions
---@field frames regolith.Frame[]
---@field outer regolith.Physical? suspended for it

---@class regolith.Transaction a scope
---@field _session regolith.Session
---@field _pool string? name of its pool; nil: the default one
---@field _number integer of its pool
---@field _action integer
---@field _tx regolith.Physical? nil: it runs without one
---@field _frame regolith.Frame?
---@field _parent regolith.Transaction? the scope on the same pool around it
---@field _context table? what the session knew when it suspended another
---@field _suspended regolith.Transaction[]? that wait for its end
---@field _children integer scopes within it, on its pool, that have not ended
---@field _home ffi.cdata*? the rg_session that its snapshot is of
---@field _state "active"|"suspended"|"done"
---@field _manual boolean ended by hand
local Scope = { __name = "regolith.Transaction" }
Scope.__index = Scope

local M = { Scope = Scope, PROPAGATIONS = PROPAGATIONS, ISOLATIONS = ISOLATIONS }

-- ---- where a session stands -------------------------------------------------------------------------

--- An empty list of a frame: most stay so.
local NOTHING = {}

local function new_frame(scope, saved)
  return {
    commits = NOTHING, compensates = NOTHING, after_commit = NOTHING, after_rollback = NOTHING,
    saved = saved, owner = scope, marked = false, cause = nil,
  }
end

--- Adds to a list of a frame.
---@param which "commits"|"compensates"|"after_commit"|"after_rollback"
function M.register(frame, which, fn)
  local list = frame[which]
  if list == NOTHING then
    list = {}
    frame[which] = list
  end
  list[#list + 1] = fn
end

--- The scope that registrations of other parts of the library belong to.
local function innermost(session)
  local n = #session._scopes
  local last = session._scopes[n]
  if not last or (last._tx and last._state == "active") then return last end
  for i = n - 1, 1, -1 do
    local scope = session._scopes[i]
    if scope._tx and scope._state == "active" then return scope end
  end
end

--- The transaction of a pool that is suspended meanwhile, if any.
---@return regolith.Physical?
local function suspended_on(session, number)
  if session._n_suspended == 0 then return nil end
  for i = #session._scopes, 1, -1 do
    local scope = session._scopes[i]
    if scope._number == number and scope._tx and scope._state == "suspended" then return scope._tx end
  end
end

--- Tells the engine which transaction of a pool the session is in.
local function bind(session, number)
  local scope, outer = session._pools[number], suspended_on(session, number)
  local tx = scope and scope._tx
  if C.rg_session_enter(session._c, number, tx and tx.c or nil, outer and outer.c or nil, err) < 0 then
    error(errors.from_c(err), 0)
  end
  session._scope = innermost(session)
end

--- The same for all pools: another rg_session stands for the session.
local function bind_all(session)
  for number in pairs(session._pools) do bind(session, number) end
end

local function push(session, scope, number)
  session._scopes[#session._scopes + 1] = scope
  session._pools[number] = scope
  if scope._parent then scope._parent._children = scope._parent._children + 1 end
  if scope._context then bind_all(session) else bind(session, number) end
end

local function remove(session, scope, number)
  local scopes = session._scopes
  local i = #scopes
  while i > 0 and scopes[i] ~= scope do i = i - 1 end
  if i > 0 then table.remove(scopes, i) end
  session._pools[number] = false
  scope._state = "done"
  if scope._parent then scope._parent._children = scope._parent._children - 1 end
end

-- ---- entering ---------------------------------------------------------------------------------------

local function refusal(message, cause)
  return errors.new("MISUSE", message, { cause = cause })
end

--- Why a scope may not join a transaction, or nil.
local function mismatch(tx, opts)
  local open = tx.options
  if opts.isolation and opts.isolation ~= "DEFAULT" and opts.isolation ~= (open.isolation or "DEFAULT") then
    return string.format("the isolation %s", opts.isolation), open.isolation or "DEFAULT"
  end
  if opts.read_only == false and open.read_only then return "writing", "read-only" end
  if opts.timeout_ms and opts.timeout_ms ~= open.timeout_ms then
    return string.format("a deadline of %.0f ms", opts.timeout_ms),
      open.timeout_ms and string.format("%.0f ms", open.timeout_ms) or "none"
  end
end

--- Refused joins count as failures of a scope within.
local function check_join(tx, opts)
  if opts.lenient then return end
  local wants, has = mismatch(tx, opts)
  if not wants then return end
  local fault = refusal(string.format(
    "the scope asks for %s, the transaction that it would join has %s; lenient = true joins all the same", wants, has))
  M.mark(tx.frames[#tx.frames], fault)
  error(fault, 0)
end

local tx_opts = ffi.new("rg_tx_opts", { size = ffi.sizeof "rg_tx_opts" })

local function physical(session, opts, number, outer)
  tx_opts.pool, tx_opts.isolation = opts.pool, ISOLATIONS[opts.isolation or "DEFAULT"]
  tx_opts.read_only, tx_opts.timeout_ms = opts.read_only and 1 or 0, opts.timeout_ms or 0
  local c = C.rg_tx_new(session._orm._engine, tx_opts, outer and outer.c or nil, err)
  if c == nil then return nil, errors.from_c(err) end
  local host = session._orm._host
  if host.adopt then host:adopt("tx", c) end
  return { c = ffi.gc(c, C.rg_tx_free), pool = number, options = opts, frames = new_table(1, 0), outer = outer }
end

--- Opens a frame with a snapshot to go back to.
local function open_frame(scope, tx)
  local saved, fault = snapshot.save(scope._session)
  if not saved then return nil, fault end
  local frame = new_frame(scope, saved)
  scope._home = scope._session._c
  tx.frames[#tx.frames + 1] = frame
  scope._tx, scope._frame = tx, frame
  return true
end

local ENTER = {}

function ENTER.create(scope, opts, number)
  local tx, fault = physical(scope._session, opts, number, suspended_on(scope._session, number))
  if not tx then return nil, fault end
  return open_frame(scope, tx)
end

function ENTER.join(scope, opts, _, current)
  check_join(current, opts)
  scope._tx, scope._frame = current, current.frames[#current.frames]
  return true
end

function ENTER.savepoint(scope, opts, _, current)
  check_join(current, opts)
  local frame = current.frames[#current.frames]
  if M.is_marked(current, frame) then
    return nil, refusal("no savepoint is set in a transaction that can only be rolled back", M.cause(current, frame))
  end
  if C.rg_tx_push(current.c, err) < 0 then return nil, errors.from_c(err) end
  return open_frame(scope, current)
end

--- Has the session know nothing of what the suspended transaction does, and its scopes wait.
function ENTER.suspend(scope)
  local fault
  scope._context, fault = snapshot.suspend(scope._session)
  if not scope._context then return nil, fault end
  scope._suspended = {}
  for _, other in ipairs(scope._session._scopes) do
    if other._number == scope._number and other._state == "active" then
      other._state = "suspended"
      table.insert(scope._suspended, other)
    end
  end
  scope._session._n_suspended = scope._session._n_suspended + #scope._suspended
  return true
end

--- Takes that back.
local function unsuspend(scope)
  if not scope._context then return end
  snapshot.resume(scope._session, scope._context)
  for _, other in ipairs(scope._suspended) do other._state = "active" end
  scope._session._n_suspended = scope._session._n_suspended - #scope._suspended
  scope._context = nil
end

function ENTER.suspend_and_create(scope, opts, number)
  local ok, fault = ENTER.suspend(scope)
  if ok then ok, fault = ENTER.create(scope, opts, number) end
  if not ok then unsuspend(scope) end
  return ok, fault
end

local STEPS = {
  [CREATE] = ENTER.create, [JOIN] = ENTER.join, [SAVEPOINT] = ENTER.savepoint, [SUSPEND] = ENTER.suspend,
  [SUSPEND_AND_CREATE] = ENTER.suspend_and_create, [RUN_WITHOUT] = function() return true end,
}

--- A snapshot is of when it was asked for, and servers without any say so at once.
local function begin_now(session, scope)
  local op, fault = session:_own(C.rg_op_tx_begin(scope._tx.c, err))
  local ok
  if op then ok, fault = session:_run(op, 3) end
  if ok then return scope end
  M.rollback(scope)
  return nil, fault
end

--- Enters a scope. Raises an error object where propagation refuses it.
---@param session regolith.Session
---@param opts regolith.TransactionOptions
---@param number integer of its pool
---@return regolith.Transaction? scope
---@return regolith.Err? err
function M.enter(session, opts, number)
  local parent = session._pools[number] or nil
  local current = parent and parent._tx
  local mode = opts.propagation or "REQUIRED"
  local action = C.rg_tx_action_of(PROPAGATIONS[mode], current and 1 or 0)
  if action == REFUSE then
    error(refusal(string.format(current and "%s: there is a transaction" or "%s: there is no transaction", mode)), 0)
  end
  local scope = setmetatable({ -- with all of its fields, or it would grow when they are set
    _session = session, _number = number, _action = action, _parent = parent, _children = 0, _state = "active",
    _pool = opts.pool, _manual = false, _keep = opts.mark_on_failure == false, _resolve = opts.resolve,
    _tx = nil, _frame = nil, _home = nil, _context = nil, _suspended = nil,
  }, Scope)
  local ok, fault = STEPS[action](scope, opts, number, current)
  if not ok then return nil, fault end
  push(session, scope, number)
  local fresh = action == CREATE or action == SUSPEND_AND_CREATE
  if fresh and opts.isolation == "SNAPSHOT" then return begin_now(session, scope) end
  return scope
end

-- ---- marks ------------------------------------------------------------------------------------------

--- Has a frame end in a rollback; the first cause stays.
function M.mark(frame, cause)
  if frame.marked then return end
  frame.marked, frame.cause = true, cause
end

function M.is_marked(tx, frame) return frame.marked or C.rg_tx_phase_of(tx.c) == DOOMED end

function M.cause(tx, frame)
  if frame.marked then return frame.cause end
  local c = C.rg_tx_cause(tx.c)
  return c.code ~= 0 and errors.from_c(c) or nil
end

--- Ended by the application on purpose: no error.
local QUIET = {}

local function unexpected(tx, frame)
  local cause = M.cause(tx, frame)
  return errors.new("UNEXPECTED_ROLLBACK",
    "the transaction could only be rolled back: " .. tostring(cause), { cause = cause })
end

-- ---- ends -------------------------------------------------------------------------------------------

--- Is the physical transaction its own?
local function is_root(scope) return scope._action == CREATE or scope._action == SUSPEND_AND_CREATE end

--- The scope is no longer there; what it suspended still is not.
local function detach(scope)
  local session = scope._session
  remove(session, scope, scope._number)
  local around = scope._parent
  if around and around._state ~= "suspended" then session._pools[scope._number] = around end
  bind(session, scope._number)
end

--- Transactions end with the request at hand from now on, where there are requests.
function M.adopt(session)
  local host = session._orm._host
  if not host.adopt then return end
  for _, scope in ipairs(session._scopes) do
    local tx = scope._tx
    if tx and tx.c ~= nil and is_root(scope) then host:adopt("tx", tx.c) end
  end
end

--- The engine's half of a transaction that has ended; the collector would be late.
local function free(scope)
  local tx = scope._tx
  if not is_root(scope) or not tx or tx.c == nil then return end
  C.rg_tx_free(ffi.gc(tx.c, nil))
  tx.c = nil
end

--- Goes back to what it suspended, if it did.
local function resume(scope)
  local session, parent = scope._session, scope._parent
  free(scope)
  if scope._context then
    unsuspend(scope)
    session._pools[scope._number] = parent
    bind_all(session)
  end
  session:_leave_scopes()
end

--- Runs an operation on the transaction itself.
local function run(scope, op)
  local session = scope._session
  local fault
  op, fault = session:_own(op)
  if not op then return nil, fault end
  local ok
  ok, fault = session:_run_alone(op, 4)
  native.done(op)
  return ok, fault
end

--- Writes what is pending.
local function flush(session)
  if session._top == 0 and session._n_fresh == 0 and session._n_doomed == 0 then return true end
  local ok, fault = session:_flush_now()
  if not ok then return nil, fault end
  return true
end

local function pop_frame(scope)
  local frames = scope._tx.frames
  local frame = frames[#frames]
  frames[#frames] = nil
  return frame
end

local function tell(scope, state, cause, failures)
  scope._session._outcome = { state = state, cause = cause, failures = failures }
  return failures
end

local LEFT_OPEN = "a scope that a callback of a transaction has begun has not ended"

--- What callbacks have left open is not there when a suspended transaction goes on.
local function end_left_open(scope, n)
  local scopes = scope._session._scopes
  if not scope._context then return end
  for i = #scopes, n + 1, -1 do M.rollback(scopes[i], refusal(LEFT_OPEN)) end
end

--- After a rollback, of all of it or to a savepoint.
local function after_rollback(scope, frame, cause)
  snapshot.restore(scope._session, frame.saved, scope._tx.pool)
  detach(scope)
  local n = #scope._session._scopes
  callbacks.run_last_first(scope, frame.after_rollback)
  local failures = callbacks.run_last_first(scope, frame.compensates)
  end_left_open(scope, n)
  resume(scope)
  tell(scope, "rolled_back", cause, failures)
end

local function after_commit(scope, frame)
  snapshot.drop(scope._session, frame.saved)
  detach(scope)
  local n = #scope._session._scopes
  callbacks.run_in_order(scope, frame.after_commit)
  local failures = callbacks.run_in_order(scope, frame.commits)
  end_left_open(scope, n)
  resume(scope)
  return tell(scope, "committed", nil, failures)
end

--- Nobody knows: no callback is run, and what is known may be wrong.
local function after_unknown(scope, frame, cause)
  snapshot.drop(scope._session, frame.saved)
  scope._session:_forget_all()
  detach(scope)
  resume(scope)
  tell(scope, "unknown", cause)
end

local function rollback_root(scope, cause)
  local tx = scope._tx
  if C.rg_tx_phase_of(tx.c) ~= IDLE then run(scope, C.rg_op_tx_rollback(tx.c, err)) end
  after_rollback(scope, pop_frame(scope), cause)
end

--- The frame is gone whatever happens; when the server cannot do it, all of the transaction is doomed.
local function rollback_savepoint(scope, cause)
  run(scope, C.rg_op_tx_undo(scope._tx.c, err))
  after_rollback(scope, pop_frame(scope), cause)
end

local function leave(scope)
  detach(scope)
  resume(scope)
end

--- Ends the scope in failure; cause is what the application will see.
---@param scope regolith.Transaction
---@param cause any
function M.rollback(scope, cause)
  if is_root(scope) then return rollback_root(scope, cause) end
  if scope._action == SAVEPOINT then return rollback_savepoint(scope, cause) end
  if scope._action == JOIN and not scope._keep then
    M.mark(scope._frame, cause == nil and refusal "a scope within was rolled back" or cause)
  end
  leave(scope)
end

local function commit_root(scope)
  local tx, frame = scope._tx, scope._frame
  if C.rg_tx_phase_of(tx.c) == IDLE and not tx.cache_log then return true, after_commit(scope, pop_frame(scope)) end
  local resolve = scope._resolve
  if resolve == nil then resolve = #frame.commits + #frame.compensates > 0 end
  local op, fault = overlay.carry(tx, C.rg_op_tx_commit(tx.c, resolve and 1 or 0, err))
  local ok
  if op or not fault then ok, fault = run(scope, op) end
  local phase = C.rg_tx_phase_of(tx.c)
  if ok and phase == COMMITTED then return true, after_commit(scope, pop_frame(scope)) end
  if phase == UNKNOWN then
    after_unknown(scope, pop_frame(scope), fault)
  else
    rollback_root(scope, fault)
  end
  return nil, fault
end

local LISTS = { "commits", "compensates", "after_commit", "after_rollback" }

--- The savepoint's frame becomes part of the one around it.
local function merge_savepoint(scope)
  local tx = scope._tx
  local frame, around = pop_frame(scope), tx.frames[#tx.frames]
  C.rg_tx_merge(tx.c, err)
  snapshot.drop(scope._session, frame.saved)
  for _, which in ipairs(LISTS) do
    for _, fn in ipairs(frame[which]) do M.register(around, which, fn) end
  end
  leave(scope)
  return true
end

--- What is marked is rolled back instead: quietly when its own scope asked for it.
local function end_marked(scope, frame)
  if frame.cause == QUIET then
    M.rollback(scope)
    return true
  end
  local fault = unexpected(scope._tx, frame)
  M.rollback(scope, fault)
  return nil, fault
end

--- Ends the scope well, if that is still possible: true (and what callbacks failed with), or nil and the
--- error after a rollback.
---@param scope regolith.Transaction
---@return true? ok
---@return regolith.Err[]|regolith.Err|nil failures
function M.commit(scope)
  local tx, frame = scope._tx, scope._frame
  if not tx or scope._action == JOIN then
    leave(scope)
    return true
  end
  if M.is_marked(tx, frame) then return end_marked(scope, frame) end
  local ok, fault = flush(scope._session)
  if ok and M.is_marked(tx, frame) then return end_marked(scope, frame) end
  if not ok then
    M.rollback(scope, fault)
    return nil, fault
  end
  return (scope._action == SAVEPOINT and merge_savepoint or commit_root)(scope)
end

--- Has anything that was begun after it, on any pool, not ended?
---@param scope regolith.Transaction
---@return boolean
function M.has_later(scope)
  local scopes = scope._session._scopes
  return scopes[#scopes] ~= scope
end

--- Ends what was left open within a scope, innermost first.
function M.abandon_later(scope, cause)
  local scopes = scope._session._scopes
  for i = #scopes, 1, -1 do
    if scopes[i] == scope then break end
    M.rollback(scopes[i], cause)
  end
end

M.QUIET, M.is_root = QUIET, is_root

return M
