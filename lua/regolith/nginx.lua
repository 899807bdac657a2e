-- SPDX-License-Identifier: MIT
-- What servers on nginx want besides: the session of a request, pages for readiness and metrics, a consumer
-- in one of the workers.
--
--   local web = require "regolith.nginx"

local consumer_options = require "regolith.options"
local errors = require "regolith.err"
local native = require "regolith.native"
local orms = require "regolith.orm"
local sql = require "regolith.sql"
local suggest = require "regolith.suggest"

local C, ffi, err = native.C, native.ffi, native.err

local M = {}

local KEY = "regolith_sessions" -- in ngx.ctx: by orm

-- ---- misuse -------------------------------------------------------------------------------------

--- Phases in which a worker begins, and those that belong to no request.
local STARTS = { init_worker = true, timer = true }
local BETWEEN = { init = true, init_worker = true, timer = true, exit_worker = true }

--- Raises outside of nginx, and in a phase that a function is not for.
local function check(what, phases, wanted, otherwise)
  if not rawget(_G, "ngx") or not ngx.get_phase then error(what .. " works inside of nginx only", 3) end
  local phase = ngx.get_phase()
  if phases and (phases[phase] == true) ~= wanted then
    error(string.format("%s cannot be used in %s: %s", what, phase, otherwise), 3)
  end
end

local function check_orm(what, orm)
  if not orms.is(orm) then error(what .. " takes what regolith.open gives", 3) end
end

local function check_console(what, console)
  if type(console) ~= "table" or not console.handle or not console.sample then
    error(what .. " takes what require(\"regolith.console\").new gives", 3)
  end
end

-- ---- requests -----------------------------------------------------------------------------------

--- The session of the request at hand, made when it is first asked for. M.close() ends it.
---@param orm regolith.Orm
---@param opts? { timeout_ms: integer? } for the first call
---@return regolith.Session
function M.session(orm, opts)
  check("session", BETWEEN, false, "it is for requests; use orm:session() and close it")
  check_orm("session", orm)
  local ctx = ngx.ctx
  local sessions = ctx[KEY]
  if not sessions then
    sessions = {}
    ctx[KEY] = sessions
  end
  local session = sessions[orm]
  if not session then
    session = assert(orm:session(opts))
    sessions[orm] = session
  end
  return session
end

--- Ends the sessions of the request; for log_by_lua. What was not flushed is lost.
function M.close()
  local sessions = ngx.ctx[KEY]
  if not sessions then return end
  ngx.ctx[KEY] = nil
  for _, session in pairs(sessions) do
    if not session._busy then session:_abandon() end -- else its coroutine was killed: the collector does it
  end
end

local function send(status, kind, text)
  ngx.status = status
  ngx.header["Content-Type"] = kind
  ngx.header["Cache-Control"] = "no-store"
  ngx.print(text)
  return ngx.exit(ngx.OK)
end

--- A page: 200 when every server answers, 503 and which do not otherwise, as JSON.
---@param orm regolith.Orm
---@param timeout_ms? integer [1000]
function M.ready(orm, timeout_ms)
  check "ready"
  check_orm("ready", orm)
  if timeout_ms ~= nil and consumer_options.integer(1)(timeout_ms) then
    error("ready takes a time in milliseconds", 2)
  end
  local op = C.rg_op_health(orm._engine, err)
  if op == nil then return send(503, "application/json", native.json_encode { ready = false, error = "no memory" }) end
  op = ffi.gc(op, C.rg_op_free)
  local ok, fault = orm:_run(op, timeout_ms or 1000)
  local answer = { ready = ok == true, pools = setmetatable({}, native.array_mt), error = fault and tostring(fault) }
  for i, pool in ipairs(ok and sql.rows(op, 0) or {}) do
    answer.pools[i] = { kind = pool.kind, name = pool.name, ok = pool.ok == 1, error = pool.error }
    answer.ready = answer.ready and pool.ok == 1
  end
  return send(answer.ready and 200 or 503, "application/json", native.json_encode(answer) .. "\n")
end

--- A page: counters, histograms and gauges of this worker process, for Prometheus.
---@param orm regolith.Orm
function M.metrics(orm)
  check "metrics"
  check_orm("metrics", orm)
  return send(200, "text/plain; version=0.0.4", orm:metrics())
end

-- ---- the console ----

--- The body of a request, as far as it is in memory; nil when it is larger than client_body_buffer_size.
local function read_body()
  ngx.req.read_body()
  local text = ngx.req.get_body_data()
  if text or not ngx.req.get_body_file() then return text or "" end
end

--- A page: the console of this location. `console` is what regolith.console's new() gives.
---@param console regolith.Console
function M.console(console)
  check "console"
  check_console("console", console)
  local method, body = ngx.req.get_method(), nil
  if method == "POST" then
    body = read_body()
    if not body then return send(413, "application/json", '{"error":{"code":"LARGE"}}') end
  end
  local answer = console:handle {
    method = method, path = ngx.var.uri, query = ngx.req.get_uri_args(), headers = ngx.req.get_headers(),
    body = body, remote = ngx.var.remote_addr,
  }
  ngx.status = answer.status
  for name, v in pairs(answer.headers) do ngx.header[name] = v end
  ngx.print(answer.body)
  return ngx.exit(ngx.OK)
end

--- Has the console's charts know of times when nobody looks; for init_worker_by_lua. Of any use only with a
--- dictionary that the workers share (its option `dict`).
---@param console regolith.Console
---@param on_error? fun(err: any)
function M.sample(console, on_error)
  check("sample", STARTS, true, "call it once a worker, in init_worker_by_lua")
  check_console("sample", console)
  local function sample(premature)
    if premature then return end
    local ok, fault = pcall(console.sample, console)
    if not ok and on_error then on_error(fault) end
  end
  assert(ngx.timer.at(0, sample))
  assert(ngx.timer.every(console:interval(), sample))
end

-- ---- the consumer ----

local CONSUME = {
  queue = consumer_options.string, retry_s = consumer_options.integer(1, 3600), on_error = consumer_options.func,
  lease_ms = consumer_options.integer(500, 3600000),
}

--- Steps of the consumer while the lock is held and the worker lives.
local function consume_steps(consumer, opts, lock)
  while lock:held() and not ngx.worker.exiting() do
    local applied, fault = consumer:step(0.5)
    if not applied then
      if opts.on_error then opts.on_error(fault) end
      if fault.code == "CLOSED" or fault.code == "MISUSE" then break end
      ngx.sleep(0.5)
    end
  end
end

local function consume_while_owner(orm, opts, lock)
  local consumer, fault = orm:consumer { queue = opts.queue, lease_ms = opts.lease_ms }
  if not consumer then return nil, fault end
  local called, why = pcall(consume_steps, consumer, opts, lock)
  consumer:close()
  if not called then error(why, 0) end
  return true
end

local function consume(premature, orm, opts)
  if premature then return end
  local again_s = opts.retry_s or 2
  local name = "consumer:" .. (opts.queue or "default")
  -- what an application's function raises in here must not be the end of the consumer
  local lease = { ttl_ms = opts.lease_ms or 10000, wait_ms = 1000 }
  local called, ok, fault = pcall(orm.lock, orm, name, lease, function(lock)
    return consume_while_owner(orm, opts, lock)
  end)
  if not called then fault = errors.is(ok) and ok or errors.new("INTERNAL", tostring(ok)) end
  if (not called or ok == nil) and opts.on_error and errors.is(fault) then opts.on_error(fault) end
  if called and ok == false then again_s = 0 end -- another worker's: that is waited for
  if not ngx.worker.exiting() then ngx.timer.at(again_s, consume, orm, opts) end
end

--- Has one of all workers of all machines consume the queue (or "all"); for init_worker_by_lua. Another one
--- takes over at once when that one ends, and within lease_ms [10000] when it dies.
---@param orm regolith.Orm
---@param opts? { queue: string?, retry_s: integer?, lease_ms: integer?, on_error: fun(err: regolith.Err)? }
---  on_error: of regolith.open, unless it is given here
function M.consume(orm, opts)
  check("consume", STARTS, true, "call it once a worker, in init_worker_by_lua")
  check_orm("consume", orm)
  local given = consumer_options.require("consume", opts, CONSUME)
  local known = { all = true }
  for _, pool in ipairs(orm._pools) do known[pool] = true end
  if given.queue and not known[given.queue] then
    error(string.format("consume: there is no queue '%s'%s", given.queue, suggest.hint(given.queue, known)), 2)
  end
  local own = { on_error = orm._on_error }
  for name, v in pairs(given) do own[name] = v end
  assert(ngx.timer.at(0, consume, orm, own))
end

return M
