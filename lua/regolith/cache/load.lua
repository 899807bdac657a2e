-- SPDX-License-Identifier: MIT
-- Loading what a cache does not have, once for all who ask: of this Lua state by a flight that others
-- wait for, of other processes by a lease in Redis. Who has waited asks again rather than takes over what
-- the other one got: a deletion may have come between.

local errors = require "regolith.err"
local native = require "regolith.native"
local values = require "regolith.cache.value"

local C, ffi, err, done = native.C, native.ffi, native.err, native.done
local log, random, max, min = math.log, math.random, math.max, math.min
local VALUE, ABSENT, STALE = tonumber(C.RG_CACHED_VALUE), tonumber(C.RG_CACHED_ABSENT), tonumber(C.RG_CACHED_STALE)
local REFRESH, LEASED, WAIT = tonumber(C.RG_CACHED_REFRESH), tonumber(C.RG_CACHED_LEASED), tonumber(C.RG_CACHED_WAIT)

local M = {}

local LEASE_S = 10

local view = ffi.new "rg_cache_view"

-- ---- time ---------------------------------------------------------------------------------------

--- Seconds of a clock that only goes forward.
local function now() return tonumber(C.rg_clock_ms()) / 1000 end

-- ---- flights of this Lua state ------------------------------------------------------------------

--- Nobody joins the flight of a key any more: what it brings may be older than what was just written.
function M.detach(self, k) self._flights[k] = nil end

function M.detach_all(self)
  for k in pairs(self._flights) do self._flights[k] = nil end
end

--- Ends a flight: those who wait for it go on.
local function land(self, k, flight)
  if self._flights[k] == flight then self._flights[k] = nil end
  flight.landed = true
  if flight.sema and flight.n > 0 then flight.sema:post(flight.n) end
end

--- Whose coroutine was ended in the middle never lands: past its lease it is nobody's.
local function board(self, k)
  local flight = { n = 0, owner = coroutine.running() or "main", over = now() + (self._cache.args.lease_s or LEASE_S) }
  self._flights[k] = flight
  return flight
end

local function flight_of(self, k)
  local flight = self._flights[k]
  return flight and flight.over > now() and flight or nil
end

local function wait_in_nginx(flight, seconds)
  if not flight.sema then flight.sema = require("ngx.semaphore").new(0) end
  flight.n = flight.n + 1
  flight.sema:wait(seconds)
  if not flight.landed then flight.n = flight.n - 1 end
end

--- Waits for the flight of another coroutine; false where nobody can wait.
local function wait_for(self, flight, seconds)
  if flight.owner == (coroutine.running() or "main") then
    error(string.format("cache %s: the loader asks for the key that it loads", self._cache.name), 4)
  end
  if self._orm._host.blocking or not self._orm._host:may_wait() then return false end
  if rawget(_G, "ngx") then
    wait_in_nginx(flight, seconds)
    return true
  end
  local deadline, pause = now() + seconds, 0.002
  while not flight.landed and now() < deadline do
    if not self._orm._host:rest(pause) then return false end
    pause = min(pause * 2, 0.02)
  end
  return true
end

-- ---- one load -----------------------------------------------------------------------------------

local function tags_of(self, opts, v)
  local tags = opts.tags
  if type(tags) == "function" then tags = v ~= nil and tags(v) or nil end
  return self._check_tags(self, tags, 4)
end

--- Writes what was loaded under the lease of `take`; that it could not be written is no failure.
local function fill(self, take, v, opts, took_s)
  local ttl_s = v ~= nil and opts.ttl_s or v == nil and opts.absent_ttl_s or 0
  local op = C.rg_op_cache_fill(take, 0, ttl_s * 1000, took_s * 1000, err)
  if op == nil then return false end
  op = ffi.gc(op, C.rg_op_free)
  if v ~= nil then
    local bytes = values.encode(self._cache, v, -1) -- no caller's fault that is on the stack
    if C.rg_op_cache_value(op, bytes, #bytes, err) < 0 then return false end
  end
  if not self:_tag_all(op, tags_of(self, opts, v)) then return false end
  local ran = self:_do(ffi.gc(op, nil))
  if not ran then return false end
  done(ran)
  return true
end

local function unlease(self, take)
  local ran = self:_do(C.rg_op_cache_unlease(take, err))
  if ran then done(ran) end
end

--- Loads, and fills when there is a lease; when nothing is filled the lease is given back.
---@return any value
---@return any fault
local function load(self, take, key, loader, opts)
  if not take then return loader(key) end
  local started = now()
  local ok, v, fault = pcall(loader, key)
  local called, filled = true, false
  if ok and (v or fault == nil) then
    called, filled = pcall(fill, self, take, v, opts, now() - started)
  end
  if not called or not filled then unlease(self, take) end
  if not ok then error(v, 0) end
  if not called then error(filled, 0) end
  done(take)
  return v, fault
end

-- ---- taking -------------------------------------------------------------------------------------

--- How many load times before its end a value counts as stale for this call: rarely many, so that one of
--- many askers loads it anew before all have to wait.
local function draw_early(self)
  local beta = self._cache.args.early
  if not beta or beta == 0 then return 0 end
  return -beta * log(max(random(), 1e-12))
end

local function ask(self, k, early, wait_ms)
  local op = C.rg_op_cache_take(self._engine, self._number, 1, early, wait_ms, err)
  if op == nil then return nil end
  op = ffi.gc(op, C.rg_op_free)
  if C.rg_op_cache_key(op, k, #k, err) < 0 then return nil, errors.from_c(err) end
  return self:_do(ffi.gc(op, nil))
end

--- The value that a take has found.
---@return boolean ok
---@return any value
local function value_of(self, take)
  C.rg_op_cache_found(take, 0, view)
  if view.absent ~= 0 then return true, nil end
  return self:_decode(view.data, view.len)
end

--- Asks until there is an answer, somebody to load, or the wait is over.
---@return ffi.cdata*? take
---@return integer state
local function take_of(self, k, early, wait_s)
  local aside = not self._orm._host.blocking -- or a worker waits
  local deadline, pause = now() + wait_s, 0.002
  while true do
    local left = deadline - now()
    local wait_ms = aside and 0 or max(0, min(left, 5) * 1000)
    local take = ask(self, k, early, wait_ms)
    if not take then return nil end
    local state = C.rg_op_cache_found(take, 0, view)
    if state ~= WAIT or left <= 0 then return take, state end
    done(take)
    aside = aside and self._orm._host:rest(min(pause, max(left, 0.001)))
    pause = min(pause * 2, 0.05)
  end
end

--- The same in a light thread, where the host has them: true when one was started.
local function refresh_aside(self, take, key, loader, opts)
  local nginx = rawget(_G, "ngx")
  if not self._cache.args.background or self._orm._host.blocking or not nginx then return false end
  local own = setmetatable({ _session = false }, { __index = self }) -- the session ends with its request
  return nginx.timer.at(0, function(premature)
    if premature then return unlease(own, take) end
    local loaded, why = pcall(load, own, take, key, loader, opts)
    if not loaded and own._orm._on_error then own._orm._on_error(why) end
  end)
end

--- A value past its life is served to all others while one asker loads it anew; when that fails it is
--- served to him as well.
local function refresh(self, take, key, loader, opts)
  local ok, old = value_of(self, take)
  if ok and refresh_aside(self, take, key, loader, opts) then return old end
  if not ok then return load(self, take, key, loader, opts) end
  local loaded, v, fault = pcall(load, self, take, key, loader, opts)
  if loaded and (v or fault == nil) then return v end
  return old
end

local function peek(self, k, early)
  local memo = early == 0 and self._memo
  if memo then
    local hold = memo.holds[k]
    if hold and C.rg_cache_holds(self._engine, hold) ~= 0 then return true, memo.values[k] end
  end
  local state = C.rg_cache_peek(self._engine, self._number, k, #k, early, view)
  if state == ABSENT then return true, nil end
  if state ~= VALUE then return false end
  local block = view.block
  local ok, v, fault = self:_decode(view.data, view.len)
  C.rg_block_unref(block)
  return ok, v, fault
end

--- Takes the key, and loads it where that is this call's to do.
---@return any value
---@return any fault
---@return boolean? alone nobody else could be told of the value
local function take_or_load(self, k, key, loader, opts, early, wait_s)
  local take, state = take_of(self, k, early, wait_s)
  if state == VALUE or state == STALE then
    local ok, v, fault = value_of(self, take)
    done(take)
    if ok then return v, fault end
    self:_delete_now { k } -- only its codec sees that it is damaged
  elseif state == ABSENT then
    done(take)
    return nil
  elseif state == REFRESH then
    return refresh(self, take, key, loader, opts)
  end
  if state == LEASED then return load(self, take, key, loader, opts) end
  local v, fault = loader(key)
  return v, fault, true
end

--- The same under a flight, which other coroutines wait for.
local function fly(self, k, ...)
  local flight = board(self, k)
  local ok, v, fault, alone = pcall(take_or_load, self, k, ...)
  alone = alone or self._cache.args.redis == false
  if ok and alone and fault == nil then flight.shared, flight.value = true, v end
  land(self, k, flight)
  if not ok then error(v, 0) end
  return v, fault
end

--- The value of a key, loaded when it is not there.
---@return any value
---@return any fault
function M.run(self, k, key, loader, opts)
  local early = draw_early(self)
  local known, v, fault = peek(self, k, early)
  if known then return v, fault end
  local args = self._cache.args
  local wait_s = opts.wait_s or args.wait_s or args.lease_s or LEASE_S
  local deadline = now() + wait_s
  repeat
    local flight = flight_of(self, k)
    if not flight then return fly(self, k, key, loader, opts, early, wait_s) end
    if not wait_for(self, flight, max(0, min(deadline, flight.over) - now())) then return loader(key) end
    if flight.shared then return flight.value end
    known, v, fault = peek(self, k, early)
    if known then return v, fault end
  until flight.landed or now() >= deadline
  -- all who have waited ask at once, and not one after the other
  v, fault = take_or_load(self, k, key, loader, opts, early, wait_s)
  return v, fault
end

return M
