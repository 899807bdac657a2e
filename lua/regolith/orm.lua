-- SPDX-License-Identifier: MIT
-- The ORM of one process: opens the engine from a configuration and hands out sessions. Safe to keep
-- at module level and to share between requests.

local admin = require "regolith.admin"
local audit = require "regolith.audit"
local callbacks = require "regolith.callbacks"
local caches = require "regolith.cache.handle"
local config = require "regolith.config"
local consumer = require "regolith.consumer"
local delayed = require "regolith.delayed"
local errors = require "regolith.err"
local events = require "regolith.events"
local hosts = require "regolith.hosts.init"
local lock = require "regolith.lock"
local log = require "regolith.log"
local native = require "regolith.native"
local outside = require "regolith.outside"
local session = require "regolith.session"
local shards = require "regolith.shards"
local types = require "regolith.type"

local C, ffi, err = native.C, native.ffi, native.err

---@class regolith.Orm
---@field _engine ffi.cdata* rg_engine
---@field _host regolith.Host
---@field _types table<regolith.Entity, regolith.Type>
---@field _by_name table<string, regolith.Entity>
---@field _caches table<regolith.Cache|string, table> by definition and by name
---@field _log fun(event: regolith.LogEvent)?
---@field _on_error fun(err: regolith.Err)?
local Orm = { __name = "regolith.Orm" }
Orm.__index = Orm

--- Closing is done once, and may be asked for again.
local Closed = {
  __index = function(_, name)
    if name == "close" then return function() end end
    local public = type(name) == "string" and not name:find "^_"
    error("the orm is closed" .. (public and " (" .. name .. ")" or ""), outside())
  end,
}

-- ---- opening ------------------------------------------------------------------------------------

local TLS = { off = "RG_TLS_OFF", verify = "RG_TLS_VERIFY", encrypt = "RG_TLS_ENCRYPT" }

local function pool_opts(server, pool)
  return ffi.new("rg_pool_opts", {
    size = ffi.sizeof "rg_pool_opts",
    name = pool.name, host = pool.host, port = pool.port or 0, unix_path = pool.socket,
    user = pool.user, password = pool.password,
    database = server == "mysql" and pool.db or nil,
    db = server == "redis" and pool.db or 0,
    tls = C[TLS[pool.tls or "off"]], tls_ca = pool.ca, tls_cert = pool.cert, tls_key = pool.key,
    max_connections = pool.pool or 0, connect_timeout_ms = pool.connect_timeout_ms or 0,
    timeout_ms = pool.timeout_ms or 0, idle_timeout_ms = pool.idle_timeout_ms or 0,
    max_statements = pool.max_statements or 0, max_replica_lag_ms = pool.max_replica_lag_ms or 0,
  })
end

local function engine_opts(settings)
  local mask, values = 0, 0
  if settings.log then
    local given = {}
    for name, v in pairs(settings.log) do
      if name ~= "handler" then given[name] = v end
    end
    mask, values = log.mask(given)
  end
  local cache = settings.process_cache or {}
  local mb = cache.mb or settings.process_cache_mb
  return ffi.new("rg_engine_opts", {
    size = ffi.sizeof "rg_engine_opts", prefix = settings.prefix,
    process_cache_bytes = mb == 0 and 1 or (mb or 0) * 1048576,
    operation_timeout_ms = settings.timeout_ms or 0, id_block = settings.id_block or 0,
    node = settings.node or 0, queue_max_len = settings.queue_max_len or 0,
    backpressure_wait_ms = settings.backpressure_wait_ms or 0,
    outage = types.OUTAGE[settings.outage] or 0, mark_ms = settings.mark_ms or 0,
    workers = settings.workers or 0, max_workers = settings.max_workers or 0, max_queued = settings.max_queued or 0,
    log_mask = mask, log_values = values,
    process_cache_apart = cache.apart and 1 or 0, process_cache_place = cache.shared,
  })
end

local SPLIT = { refuse = "RG_SPLIT_REFUSE", sync = "RG_SPLIT_SYNC" }
local DURABLE = { fast = "RG_DURABLE_FAST", replica = "RG_DURABLE_REPLICA", fsync = "RG_DURABLE_FSYNC",
  sync = "RG_DURABLE_SYNC" }
local UNFIT = { refuse = "RG_UNFIT_REFUSE", warn = "RG_UNFIT_WARN" }
local FULL = { refuse = "RG_FULL_REFUSE", wait = "RG_FULL_WAIT", sync = "RG_FULL_SYNC" }

local function queue_opts(queue)
  local given = queue.opts
  return ffi.new("rg_queue_opts", {
    size = ffi.sizeof "rg_queue_opts", queue = queue.name, partitions = given.partitions or 0,
    on_split = given.on_split and C[SPLIT[given.on_split]] or 0,
    durability = given.durability and C[DURABLE[given.durability]] or 0,
    when_full = given.when_full and C[FULL[given.when_full]] or 0,
    max_len = given.max_len or 0, max_age_ms = given.max_age_ms or 0, max_bytes = (given.max_mb or 0) * 1048576,
    wait_ms = given.wait_ms or 0, replica_ms = given.replica_ms or 0,
    retain_ms = (given.retain_s or 0) * 1000,
    events_max_len = given.events_max_len or 0, events_keep_ms = (given.events_keep_s or 0) * 1000,
    persistence = given.persistence and C[UNFIT[given.persistence]] or 0,
  })
end

--- Adds a pool or a type; a failure becomes a fault.
local function add(faults, rc, prefix)
  if rc < 0 then faults[#faults + 1] = prefix .. ffi.string(err.message) end
end

--- Adds the pools, and the types that have no faults of their own; what the engine finds is appended, of the
--- others too.
local function configure(settings, faults)
  local c = C.rg_config_new(engine_opts(settings), err)
  if c == nil then
    add(faults, -1, "")
    return nil
  end
  c = ffi.gc(c, C.rg_config_free)
  for server, add_pool in pairs { mysql = C.rg_config_mysql, redis = C.rg_config_redis } do
    for _, pool in ipairs(settings[server]) do
      local prefix = string.format("%s pool '%s': ", server, pool.name)
      add(faults, add_pool(c, pool_opts(server, pool), err), prefix)
      for _, replica in ipairs(pool.replicas or {}) do
        add(faults, C.rg_config_replica(c, pool.name, pool_opts(server, replica), err), prefix)
      end
    end
  end
  for _, queue in ipairs(#faults == 0 and settings.queues or {}) do
    add(faults, C.rg_config_queue(c, queue_opts(queue), err), "")
  end
  local by_name = {}
  for _, entity in ipairs(settings.entities) do by_name[entity.name] = entity end
  local function complain(text) faults[#faults + 1] = text end
  for _, entity in ipairs(settings.entities) do
    local spread = entity.shards
    if #entity.faults > 0 then types.check_rest(entity, complain, by_name) end
    for k = 0, spread and spread.n - 1 or 0 do
      local described = #entity.faults == 0 and types.describe(entity, complain, by_name, spread and k)
      if described and C.rg_config_type(c, described, err) < 0 then
        complain(ffi.string(err.message))
        types.check_defaults(entity, complain)
      end
    end
  end
  for _, cache in ipairs(settings.caches) do
    if #cache.faults == 0 then add(faults, caches.describe(c, cache), "") end
  end
  return c
end

local function config_error(faults)
  local seen, lines = {}, {}
  for _, fault in ipairs(faults) do
    if not seen[fault] then lines[#lines + 1] = fault end
    seen[fault] = true
  end
  local text = #lines == 1 and lines[1] or "\n  " .. table.concat(lines, "\n  ")
  return errors.new("CONFIG", text, { faults = lines })
end

local function new_engine(settings)
  local faults = settings.faults
  local c = configure(settings, faults)
  if #faults > 0 then return nil, config_error(faults) end
  local engine = C.rg_engine_new(ffi.gc(c, nil), err)
  if engine ~= nil then return ffi.gc(engine, C.rg_engine_unref) end
  local fault = errors.from_c(err)
  if fault.code ~= "CONFIG" then return nil, fault end
  for line in fault.message:gmatch "[^\n]+" do faults[#faults + 1] = line end
  return nil, config_error(faults)
end

--- What this orm knows of an entity's shards.
local function take_shards(self, T, entity)
  local numbers = {}
  for k = 0, entity.shards.n - 1 do
    numbers[k] = C.rg_engine_type_find(self._engine, shards.type_name(entity, k))
  end
  T.shards = setmetatable({ numbers = numbers }, { __index = entity.shards })
  T.shard_start = tonumber(tostring({}):match "%x+$":sub(-6), 16) -- processes begin on different ones
  T.number = nil -- whoever does not ask for the shard is told at once
end

--- A field that refers to an entity whose ids tell their shard puts its rows beside it.
local function link_shards(self)
  for _, T in pairs(self._types) do
    local column = T.shards and T.shards.column
    local target = column and T.target[column.path] and self._by_name[T.target[column.path]]
    if target then T.shards.target = target.shards end
  end
end

local function take_types(self, list)
  for _, entity in ipairs(list) do
    local name = entity.shards and shards.type_name(entity, 0) or entity.name
    local number = C.rg_engine_type_find(self._engine, name)
    local T, fault = types.new(entity, C.rg_engine_type(self._engine, number), number)
    if not T then return nil, errors.from_c(fault) end
    if entity.shards then take_shards(self, T, entity) end
    T.pool = not entity.shards and C.rg_engine_type_pool(self._engine, number) or nil
    self._types[entity], self._by_name[entity.name] = T, entity
  end
  link_shards(self)
  return true
end

--- At the start: a Redis that is unfit for the queues that are configured refuses, or is told of.
local function check_queues(self, settings)
  if #settings.queues == 0 and not settings.on_warning then return true end
  local warnings, fault = self:queue_warnings()
  if not warnings then return nil, fault end
  local refuses = {}
  for _, queue in ipairs(settings.queues) do
    refuses[queue.name] = { persistence = queue.opts.persistence == "refuse" }
  end
  for _, warning in ipairs(warnings) do
    local rule = refuses[warning.queue]
    if rule and rule[warning.fault] then return nil, config_error { warning.text } end
    if settings.on_warning then settings.on_warning(warning.text, warning) end
  end
  return true
end

local M = {}

--- What open returns when it fails. Where nginx starts only text is shown of what is raised, so that assert
--- raises text there.
local function fail(fault)
  local nginx = rawget(_G, "ngx")
  local phase = nginx and nginx.get_phase and nginx.get_phase()
  if phase ~= "init" and phase ~= "init_worker" then return errors.results(fault) end
  return nil, fault, fault.errno, fault.sqlstate, tostring(fault)
end

--- Opens an ORM. Everything that is wrong with the configuration and the entities is reported at once.
--- Every pool is connected once, unless `lazy = true` (or in an nginx phase where nothing may wait).
---@param given table|string|nil a table, the path of a .lua or .json file, or nil for the environment
---@param overrides? table with a path: what is added to the file, e.g. { entities = { User } }
---@return regolith.Orm? orm
---@return regolith.Err? err
---@return integer? errno
---@return string? sqlstate
function M.open(given, overrides)
  if given ~= nil and type(given) ~= "table" and type(given) ~= "string" then
    error("regolith.open takes a table, or the path of a file", 2)
  end
  if overrides ~= nil and (type(overrides) ~= "table" or type(given) == "table") then
    error("regolith.open takes, after the path of a file, a table of what goes before it", 2)
  end
  local settings = config.read(given, overrides)
  local engine, fault = new_engine(settings)
  if not engine then return fail(fault) end
  local self = setmetatable({
    _engine = engine, _replicas = C.rg_engine_has_replicas(engine) == 1,
    _types = {}, _by_name = {}, _on_error = settings.on_error,
    _spare_at = {}, _spare_types = {}, _spare_new = {},
    _on_dead_letter = settings.on_dead_letter,
    _log = settings.log and settings.log.handler, _callbacks = settings.callbacks or {}, _callback_tables = {},
    _has_redis = #settings.redis > 0, _inverses = {}, _n_inverses = 0, _pools = {},
    _subscribers = settings.subscribers or {}, _prefix = settings.prefix or "rg",
    _cache_shared = settings.process_cache ~= nil and settings.process_cache.shared ~= nil,
    _event_bounds = events.bounds(settings.queues),
  }, Orm)
  if settings.slow_ms then C.rg_engine_set_slow(engine, settings.slow_ms) end
  for i, pool in ipairs(settings.mysql) do self._pools[i] = pool.name end
  self._host, fault = hosts.new(settings.host, engine)
  if not self._host then return fail(fault) end
  local ok
  ok, fault = take_types(self, settings.entities)
  self._caches, self._cache_names = caches.register(settings.caches)
  if ok and not settings.lazy and self._host:may_wait() then
    ok, fault = self:connect()
    if ok then ok, fault = check_queues(self, settings) end
  end
  if not ok then self:close() end
  if not ok then return fail(fault) end
  return self
end

---@param v any
---@return boolean
function M.is(v) return getmetatable(v) == Orm end

-- ---- running ------------------------------------------------------------------------------------

--- Runs an operation as the host does, then hands out its log.
---@return true? ok
---@return regolith.Err? err
function Orm:_run(op, timeout_ms)
  local ok, fault = self._host:run(op, timeout_ms)
  if rawget(self, "_log") then log.drain(self, op) end -- it may have been closed meanwhile
  return ok, fault
end

--- The same for an operation just made; nil when it could not be made.
---@return ffi.cdata*? op DONE
---@return regolith.Err? err
function Orm:_do(op, timeout_ms)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  local ok, fault = self:_run(op, timeout_ms)
  if not ok then return nil, fault end
  return op
end

-- ---- for the application ------------------------------------------------------------------------

--- A new session: one per request or unit of work. `token` is what an earlier session of the same user
--- gave (session:token()): replicas are read only where they have what that one wrote. `primary`: no
--- replica is read at all.
---@param opts? { timeout_ms: integer?, token: string?, primary: boolean? }
---@return regolith.Session
function Orm:session(opts) return session.new(self, opts) end

--- A cache of the application's values, by its definition or its name.
---@param which regolith.Cache|string
---@return regolith.CacheHandle
function Orm:cache(which) return (caches.of(self, nil, which, 2)) end

--- Connects to every server once.
---@return true? ok
---@return regolith.Err? err
function Orm:connect()
  local op, fault = self:_do(C.rg_op_connect(self._engine, err))
  if not op then return errors.results(fault) end
  return true
end

--- Sends every event of the query log to fn, after the operation it belongs to. nil ends that.
---@param fn fun(event: regolith.LogEvent)|nil
---@param opts? { mysql: boolean?, redis: boolean?, process: boolean?, values: boolean? }
function Orm:log(fn, opts)
  if fn ~= nil and type(fn) ~= "function" then error("log takes a function", 2) end
  local mask, values = log.mask(opts)
  if not fn then mask = 0 end
  self._log = fn
  C.rg_engine_set_log(self._engine, mask, values)
end

--- Counters, histograms and gauges in Prometheus' text format.
---@return string
function Orm:metrics()
  local len = ffi.new "size_t[1]"
  local p = C.rg_engine_metrics(self._engine, len)
  if p == nil then error("out of memory", 2) end
  local text = ffi.string(p, len[0])
  C.rg_free(p)
  return text
end

--- A counter by its Prometheus name, or nil.
---@param name string
---@return number?
function Orm:counter(name)
  if type(name) ~= "string" then error("counter takes a name", 2) end
  local v = C.rg_engine_counter(self._engine, name)
  return v >= 0 and v or nil
end

--- The numbers that are looked at first.
---@return { cache_bytes: number, cache_entries: number, coherent: boolean }
function Orm:stats()
  local bytes, entries = ffi.new "double[1]", ffi.new "double[1]"
  C.rg_engine_cache_stats(self._engine, bytes, entries)
  return { cache_bytes = bytes[0], cache_entries = entries[0], coherent = C.rg_engine_coherent(self._engine) == 1 }
end

--- Is there a Redis, without which there are neither queues nor events?
---@return boolean
function Orm:has_redis() return self._has_redis end

--- Do handlers of durable callbacks run here?
---@return boolean
function Orm:has_callbacks()
  for _, handler in pairs(self._callbacks) do
    if type(handler) == "function" then return true end
  end
  return false
end

--- A consumer of a queue of flushes.
---@param opts? table
---@return regolith.Consumer
function Orm:consumer(opts) return consumer.new(self, opts) end

--- Ends everything: connections are shut, threads stopped. Sessions fail from now on with CLOSED.
function Orm:close()
  self._host:close()
  local engine = self._engine
  for name in pairs(self) do self[name] = nil end
  setmetatable(self, Closed)
  C.rg_engine_close(engine)
  C.rg_engine_unref(ffi.gc(engine, nil)) -- sessions and operations hold references of their own
end

admin.install(Orm)
audit.install(Orm)
callbacks.install(Orm)
delayed.install(Orm)
events.install(Orm)
lock.install(Orm)

return M
