-- SPDX-License-Identifier: MIT
-- What the engine of this process says of itself, and what happened between two such looks.

local native = require "regolith.native"

local C = native.C
local M = {}

--- Rates of a point, by the counter that each is of.
local RATES = {
  mysql = "regolith_mysql_queries_total", mysql_errors = "regolith_mysql_errors_total",
  redis = "regolith_redis_commands_total", redis_errors = "regolith_redis_errors_total",
  flushed = "regolith_flushed_operations_total", queued = "regolith_enqueued_operations_total",
  process_hits = "regolith_process_cache_hits_total", process_misses = "regolith_process_cache_misses_total",
  redis_hits = "regolith_redis_cache_hits_total", redis_misses = "regolith_redis_cache_misses_total",
  mysql_s = "regolith_mysql_seconds_sum", redis_s = "regolith_redis_seconds_sum",
  mysql_n = "regolith_mysql_seconds_count", redis_n = "regolith_redis_seconds_count",
}

local function read_labels(text)
  local labels = {}
  for name, v in text:gmatch '([%w_]+)="([^"]*)"' do labels[name] = v end
  return labels
end

local POOL = { regolith_pool_waiting = "waiting", regolith_pool_limit = "limit", regolith_pool_errors_total = "errors" }

local function take_pool(pools, name, labels, v)
  local key = labels.kind .. " " .. labels.pool
  local pool = pools[key]
  if not pool then
    pool = { kind = labels.kind, name = labels.pool, busy = 0, idle = 0, waiting = 0, limit = 0, errors = 0 }
    pools[key], pools[#pools + 1] = pool, pool
  end
  pool[POOL[name] or labels.state] = v
end

--- Counters and gauges by name, pools as a list, buckets by histogram: out of Prometheus' text.
---@param text string
---@return { values: table<string, number>, pools: table[], buckets: table<string, table[]> }
function M.parse(text)
  local found = { values = {}, pools = {}, buckets = {} }
  for line in text:gmatch "[^\n]+" do
    local name, labels, v = line:match "^([%w_]+)(%b{}) (%S+)$"
    if not name then name, v = line:match "^([%w_]+) (%S+)$" end
    v = tonumber(v)
    if v and not labels then
      found.values[name] = v
    elseif v and name:find("^regolith_pool_") then
      take_pool(found.pools, name, read_labels(labels), v)
    elseif v and name:find "_bucket$" then
      local list = found.buckets[name] or {}
      list[#list + 1] = { le = tonumber((labels:match 'le="([^"]+)"')) or math.huge, n = v }
      found.buckets[name] = list
    end
  end
  for key in pairs(found.pools) do
    if type(key) == "string" then found.pools[key] = nil end
  end
  return found
end

--- Seconds of a clock that all processes of a machine share.
function M.clock() return C.rg_clock_s() end

--- One look.
---@param orm regolith.Orm
function M.look(orm)
  local found = M.parse(orm:metrics())
  found.clock, found.at = C.rg_clock_s(), os.time()
  found.coherent = orm:stats().coherent
  return found
end

--- In how much time, in ms, 95 of 100 of the calls between two looks were done: the bound of a bucket.
local function p95(before, after)
  local total = after and after[#after].n - (before and before[#before].n or 0) or 0
  if total <= 0 then return 0 end
  for i, bucket in ipairs(after) do
    local n = bucket.n - (before and before[i].n or 0)
    if n >= total * 0.95 then return bucket.le < math.huge and bucket.le * 1000 or after[i - 1].le * 2000 end
  end
end

local function rounded(v) return math.floor(v * 1000 + 0.5) / 1000 end

--- What happened between two looks, a second.
function M.point(before, after)
  local seconds = after.clock - before.clock
  if seconds <= 0 then return nil end
  local point = { busy = 0, waiting = 0, workers = 1 }
  for name, counter in pairs(RATES) do
    local change = (after.values[counter] or 0) - (before.values[counter] or 0)
    point[name] = rounded(math.max(change, 0) / seconds)
  end
  for _, pool in ipairs(after.pools) do
    point.busy, point.waiting = point.busy + pool.busy, point.waiting + pool.waiting
  end
  local name = "regolith_mysql_seconds_bucket"
  point.mysql_p95 = rounded(p95(before.buckets[name], after.buckets[name]) or 0)
  return point
end

--- Adds what another process did in the same time.
function M.add_point(to, point)
  for name, v in pairs(point) do
    if name == "mysql_p95" then to[name] = math.max(to[name] or 0, v)
    elseif name ~= "t" and type(v) == "number" then to[name] = (to[name] or 0) + v end
  end
end

local function pool_in(list, like)
  for _, pool in ipairs(list) do
    if pool.kind == like.kind and pool.name == like.name then return pool end
  end
  local pool = { kind = like.kind, name = like.name, busy = 0, idle = 0, waiting = 0, limit = 0, errors = 0 }
  list[#list + 1] = pool
  return pool
end

--- Of a process cache that all processes share, each tells the whole.
local OF_CACHE = { "regolith_process_cache_bytes", "regolith_process_cache_entries" }

--- What several processes say, as one.
---@param states table[] as M.look gives them
---@param shared boolean? they share the process cache
function M.sum(states, shared)
  local all = { values = {}, pools = {}, coherent = true }
  for _, state in ipairs(states) do
    for name, v in pairs(state.values) do all.values[name] = (all.values[name] or 0) + v end
    for _, one in ipairs(state.pools) do
      local pool = pool_in(all.pools, one)
      for _, name in ipairs { "busy", "idle", "waiting", "limit", "errors" } do pool[name] = pool[name] + one[name] end
    end
    -- whoever has not used its cache yet does not listen for changes either
    local used = (state.values.regolith_process_cache_entries or 0) > 0
    all.coherent = all.coherent and (state.coherent or not used)
  end
  for _, name in ipairs(shared and OF_CACHE or {}) do
    all.values[name] = 0
    for _, state in ipairs(states) do all.values[name] = math.max(all.values[name], state.values[name] or 0) end
  end
  return all
end

return M
