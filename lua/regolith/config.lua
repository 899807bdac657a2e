-- SPDX-License-Identifier: MIT
-- What regolith.open is given - a table, a file, the environment - as one checked configuration.
-- A table in code goes before the environment, the environment before a file.

local caches = require "regolith.cache.define"
local entities = require "regolith.entity"
local log = require "regolith.log"
local native = require "regolith.native"
local options = require "regolith.options"
local url = require "regolith.url"

local M = {}

local count = options.integer(1, 4294967295)
local function url_or_table(v)
  if type(v) ~= "string" and type(v) ~= "table" then return "must be a URL, or a table of pools" end
end

--- Functions by name; true for a name whose handler runs elsewhere.
local function handlers(v)
  if type(v) ~= "table" then return "must be a table of functions by name" end
  for name, handler in pairs(v) do
    if type(name) ~= "string" or (type(handler) ~= "function" and handler ~= true) then
      return string.format("must hold functions by name (or true), but '%s' is a %s", tostring(name), type(handler))
    end
  end
end

--- How large the process cache is, and who shares it.
local PROCESS_CACHE = {
  mb = options.integer(0, 16777216), apart = options.boolean,
  shared = function(v)
    if type(v) ~= "string" or not (v:find "^/" or v:find "^[%w_-][%w_.-]*$") then
      return "must be a name (letters, digits, _ - .), or the absolute path of a folder"
    end
  end,
}

local function count_or_table(v)
  if type(v) ~= "number" and type(v) ~= "table" then return "must be a number of partitions, or a table of queues" end
end

--- Functions by group, by stream.
local function subscribers(v)
  if type(v) ~= "table" then return "must be a table of streams" end
  for stream, groups in pairs(v) do
    if type(stream) ~= "string" or type(groups) ~= "table" then
      return "must hold groups by stream, as in { orders = { mailer = function(event) end } }"
    end
    for group, handler in pairs(groups) do
      local fn = type(handler) == "table" and handler.handler or handler
      if type(group) ~= "string" or type(fn) ~= "function" then
        local text = "must hold functions (or options with a handler) by group, but '%s' of '%s' is a %s"
        return string.format(text, tostring(group), stream, type(handler))
      end
    end
  end
end

local OPTIONS = {
  queues = count_or_table,
  mysql = url_or_table, redis = url_or_table, entities = options.table, caches = options.table,
  prefix = options.string, process_cache_mb = options.integer(0, 16777216), process_cache = options.table,
  timeout_ms = count, id_block = count, node = options.integer(0, 63),
  queue_max_len = count, backpressure_wait_ms = options.integer(0, 4294967295),
  workers = options.integer(1, 64), max_workers = options.integer(1, 256), max_queued = count,
  outage = options.one_of("strict", "available"), mark_ms = options.integer(10, 3600000),
  host = options.one_of("nginx", "cqueues", "luv", "blocking"),
  slow_ms = options.integer(0, 4294967),
  lazy = options.boolean, log = options.table, on_error = options.func, on_warning = options.func,
  on_dead_letter = options.func, callbacks = handlers, subscribers = subscribers,
}

local function table_or_list(v)
  if type(v) ~= "table" then return "must be a table of URLs or tables by name" end
end

local POOL = { replicas = table_or_list, url = options.string, host = options.string, port = options.integer(1, 65535),
  password = options.string, database = options.string }

-- ---- passwords ----------------------------------------------------------------------------------

local function read_first_line(path)
  local file, why = io.open(path, "r")
  if not file then return nil, why end
  local line
  line, why = file:read "*l"
  file:close()
  if not line and why then return nil, path .. ": " .. why end -- a folder
  return ((line or ""):gsub("\r$", ""))
end

--- The password of a pool: given, from a file, from the environment. Never in a message.
local function find_password(pool, env_base, complain)
  local file = pool.password_file or os.getenv(env_base .. "_PASSWORD_FILE")
  if pool.password then return pool.password end
  if pool.password_env then
    local value = os.getenv(pool.password_env)
    if not value then complain(string.format("the environment has no '%s' (password_env)", pool.password_env)) end
    return value
  end
  if file then
    local line, why = read_first_line(file)
    if not line then complain("its password file cannot be read: " .. why) end
    return line
  end
  return os.getenv(env_base .. "_PASSWORD")
end

-- ---- pools --------------------------------------------------------------------------------------

--- REGOLITH_MYSQL for the default pool, REGOLITH_MYSQL_LOGS for the pool "logs".
local function env_base(server, name)
  local base = "REGOLITH_" .. server:upper()
  return name == "default" and base or base .. "_" .. name:upper()
end

local function check_pool(server, pool, complain)
  if not pool.host and not pool.socket then complain "has neither a host nor a socket" end
  if server == "mysql" and not pool.db then complain "names no database" end
end

--- Its replicas, by name or in a list, else as the environment has them: URLs with spaces between. What a
--- replica does not say itself is as on its primary.
local INHERITED = { "db", "user", "tls", "ca", "cert", "key", "pool", "timeout_ms", "idle_timeout_ms",
  "max_statements" }

local function read_replicas(pool, given, env, complain, read_pool)
  if given == nil then
    given = {}
    for address in (os.getenv(env .. "_REPLICAS") or ""):gmatch "%S+" do given[#given + 1] = address end
  end
  local names, list = {}, {}
  for name in pairs(given) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local wrong = type(name) ~= "number" and options.name(name)
    local full = string.format("%s/%s", pool.name, tostring(name))
    if wrong then complain(string.format("mysql replica '%s': its name %s", full, wrong)) end
    local replica = read_pool("mysql", full, given[name], complain, pool)
    if replica then list[#list + 1] = replica end
  end
  return list
end

local function inherit(pool, primary)
  for _, option in ipairs(INHERITED) do
    if pool[option] == nil then pool[option] = primary[option] end
  end
  if pool.password == nil and pool.user == primary.user then pool.password = primary.password end
end

--- One pool as plain members: a URL, or a table with members of its own. nil when it has faults.
local read_pool
function read_pool(server, name, given, complain, primary)
  local kind = primary and "replica" or "pool"
  local fault = function(text) complain(string.format("%s %s '%s': %s", server, kind, name, text)) end
  local pool = {}
  local before = #complain.faults
  if type(given) == "string" then given = { url = given } end
  if type(given) ~= "table" then
    fault "must be a URL or a table"
    return nil
  end
  local known = {}
  for option, check in pairs(url.SERVERS[server]) do known[option] = check end
  for option, check in pairs(POOL) do known[option] = check end
  if server ~= "mysql" or primary then known.replicas, known.max_replica_lag_ms = nil, nil end
  options.check(given, known, fault)
  if type(given.url) == "string" then pool = url.parse(server, given.url, fault) end
  for option, value in pairs(given) do
    if option == "database" then pool.db = value
    elseif option ~= "url" and option ~= "replicas" then pool[option] = value end
  end
  pool.name = name
  pool.password = find_password(pool, env_base(server, primary and primary.name or name), fault)
  if primary then inherit(pool, primary) end
  if #complain.faults == before then check_pool(server, pool, fault) end
  if server == "mysql" and not primary and (given.replicas == nil or type(given.replicas) == "table") then
    pool.replicas = read_replicas(pool, given.replicas, env_base(server, name), complain, read_pool)
  end
  return #complain.faults == before and pool or nil
end

--- One pool (a URL, or a table that says where) or several by name.
local function is_single(given)
  return type(given) == "string" or given.url or given.host or given.socket
end

local function names_of(given)
  local names = {}
  for name in pairs(given) do names[#names + 1] = tostring(name) end
  table.sort(names)
  return names
end

local function read_pools(server, given, wanted, complain)
  local named, pools = {}, {}
  if type(given) == "string" or type(given) == "table" then
    named = is_single(given) and { default = given } or given
  end
  local all = {}
  for name, pool in pairs(named) do all[name] = pool end
  for name in pairs(wanted) do
    if all[name] == nil then all[name] = os.getenv(env_base(server, name) .. "_URL") end
  end
  for _, name in ipairs(names_of(all)) do
    local wrong = options.name(name)
    if wrong then complain(string.format("%s pool '%s': its name %s", server, name, wrong)) end
    pools[#pools + 1] = read_pool(server, name, all[name], complain)
  end
  return pools
end

-- ---- sources ------------------------------------------------------------------------------------

--- A configuration file: Lua that returns a table, or JSON.
---@param path string
---@return table? config
---@return string? why
function M.read_file(path)
  if path:match "%.json$" then
    local file, why = io.open(path, "r")
    if not file then return nil, why end
    local text = file:read "*a"
    file:close()
    local value, fault = native.json_decode(text)
    if value == nil then return nil, path .. ": " .. fault end
    if type(value) ~= "table" then return nil, path .. ": must hold an object" end
    return value
  end
  local chunk, why = loadfile(path)
  if not chunk then return nil, why end
  local ok, value = pcall(chunk)
  if not ok then return nil, tostring(value) end
  if type(value) ~= "table" then return nil, path .. ": must return a table" end
  return value
end

local function environment()
  return {
    mysql = os.getenv "REGOLITH_MYSQL_URL",
    redis = os.getenv "REGOLITH_REDIS_URL",
    prefix = os.getenv "REGOLITH_PREFIX",
  }
end

local function merge(...)
  local merged = {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...))) do
      if merged[name] == nil then merged[name] = value end
    end
  end
  return merged
end

--- Pools that the entities name; "default" besides.
local function wanted_pools(list, member)
  local wanted = { default = true }
  for _, entity in ipairs(list) do
    local spread = entities.is(entity) and member == "mysql" and entity.shards
    for k = 0, spread and spread.n - 1 or -1 do wanted[spread.pools[k]] = true end
    if entities.is(entity) and not spread then wanted[entity[member] or "default"] = true end
  end
  return wanted
end

--- What is wrong with a list of entities as a list: one that a name or a nil in it would cut short.
local function no_list(given)
  if type(given) ~= "table" or entities.is(given) then
    return "entities: a list of entities is needed, as in entities = { User, Team }"
  end
  local last = 0
  for key in pairs(given) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
      return string.format("entities: a list of entities is needed, without the name '%s'", tostring(key))
    end
    last = math.max(last, key)
  end
  for i = 1, last do
    if given[i] == nil then return string.format("entities: entry %d is nil", i) end
  end
end

local function take_entities(given, complain)
  local list, seen = {}, {}
  local wrong = no_list(given)
  if wrong then
    complain(wrong)
    return list
  end
  for i, entity in ipairs(given) do
    if not entities.is(entity) then
      complain(string.format("entities: entry %d is not an entity", i))
    else
      if seen[entity.name] then complain(string.format("%s: two entities have this name", entity.name)) end
      seen[entity.name] = true
      for _, fault in ipairs(entity.faults) do complain(fault) end
      list[#list + 1] = entity
    end
  end
  return list
end

--- Two shards in one database would be one table.
local function check_shards(config, complain)
  local at = {}
  for _, pool in ipairs(config.mysql) do
    at[pool.name] = string.format("%s:%s/%s", pool.socket or pool.host, pool.port or 3306, pool.db)
  end
  for _, entity in ipairs(config.entities) do
    local seen = {}
    for k = 0, entity.shards and entity.shards.n - 1 or -1 do
      local name = entity.shards.pools[k]
      local place = at[name]
      if place and seen[place] then
        complain(string.format("%s: shards: the pools '%s' and '%s' are one database", entity.name, seen[place], name))
      end
      if place then seen[place] = name end
    end
  end
end

local function take_log(given, complain)
  local before = #complain.faults
  if type(given) ~= "table" then return nil end
  options.check(given, log.OPTIONS, function(text) complain("log: " .. text) end)
  if given.handler == nil then complain "log: needs a 'handler', which is given each event" end
  return #complain.faults == before and given or nil
end

--- Settings of a queue.
local QUEUE = {
  partitions = options.integer(1, 256), on_split = options.one_of("refuse", "sync"),
  durability = options.one_of("fast", "replica", "fsync", "sync"),
  when_full = options.one_of("refuse", "wait", "sync"),
  max_len = count, max_age_ms = count, max_mb = options.integer(1, 16777216),
  wait_ms = options.integer(0, 4294967295), replica_ms = count, retain_s = count,
  events_max_len = count, events_keep_s = count,
  persistence = options.one_of("refuse", "warn"),
}

--- `queues = 4` is that of the default pool's; else by pool a number of partitions, or settings.
local function read_queues(given, complain)
  local list = {}
  if type(given) == "number" then given = { default = given } end
  if type(given) ~= "table" then return list end
  for _, name in ipairs(names_of(given)) do
    local queue = given[name]
    if type(queue) == "number" then queue = { partitions = queue } end
    if type(name) ~= "string" or type(queue) ~= "table" then
      complain(string.format("queues: '%s' must be a number of partitions, or a table of settings", tostring(name)))
    else
      options.check(queue, QUEUE, function(text) complain(string.format("queue '%s': %s", name, text)) end)
      list[#list + 1] = { name = name, opts = queue }
    end
  end
  return list
end

---@class regolith.Config
---@field queues { name: string, opts: table }[]
---@field mysql table[] pools
---@field redis table[] pools
---@field entities regolith.Entity[]
---@field caches regolith.Cache[]
---@field faults string[] everything that is wrong

--- Reads and checks everything; the result's `faults` is empty when all is well.
---@param given table|string|nil table, path of a file, or nil for the environment alone
---@param overrides table? with a path: what code adds to the file
---@return regolith.Config
function M.read(given, overrides)
  local faults = {}
  local complain = setmetatable({ faults = faults }, {
    __call = function(_, text) faults[#faults + 1] = text end,
  })
  local code, file = overrides or {}, {}
  if type(given) == "table" then code = given end
  if type(given) == "string" then
    local read, why = M.read_file(given)
    if not read then complain(why) end
    file = read or {}
  end
  local config = merge(code, environment(), file)
  options.check(config, OPTIONS, complain)
  for option, check in pairs(OPTIONS) do -- what is wrong goes no further
    if config[option] ~= nil and check(config[option]) then config[option] = nil end
  end
  if config.process_cache then
    options.check(config.process_cache, PROCESS_CACHE, function(text) complain("process_cache: " .. text) end)
    if config.process_cache.apart and config.process_cache.shared then
      complain "process_cache: what is 'shared' is not 'apart'"
    end
  end
  config.log = take_log(config.log, complain)
  config.faults = faults
  config.entities = take_entities(config.entities, complain)
  config.caches = caches.take(config.caches, complain)
  config.mysql = read_pools("mysql", config.mysql, wanted_pools(config.entities, "mysql"), complain)
  config.redis = read_pools("redis", config.redis, wanted_pools(config.entities, "redis"), complain)
  check_shards(config, complain)
  config.queues = read_queues(config.queues, complain)
  if #config.mysql == 0 and #faults == 0 then
    complain "mysql: no server is given, as in mysql = \"mysql://app@localhost/app\""
  end
  return config
end

return M
