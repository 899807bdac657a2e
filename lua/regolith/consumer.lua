-- SPDX-License-Identifier: MIT
-- The consumer of queued flushes: one batch a step, again and again. What is temporary is waited for,
-- what is permanent becomes a dead letter; neither loses an operation.

local consumers = require "regolith.consumers"
local errors = require "regolith.err"
local hosts = require "regolith.hosts.init"
local native = require "regolith.native"
local options = require "regolith.options"

local C, ffi, err = native.C, native.ffi, native.err


---@class regolith.Consumer
---@field _orm regolith.Orm
---@field _c ffi.cdata* rg_consumer
---@field _opts table
---@field _running boolean
---@field _stopped boolean
---@field _dead number dead letters seen so far
local Consumer = { __name = "regolith.Consumer" }
Consumer.__index = Consumer

local count = options.integer(1, 4294967295)
local OPTIONS = {
  queue = options.name, max_batch = count, max_hold_ms = count, max_backoff_ms = count, max_tries = count,
  lease = options.boolean, lease_ms = options.integer(100, 4294967295), parallel = options.integer(1, 64),
  on_error = options.one_of("wait", "stop"), on_dead = options.func,
  max_deaths = options.integer(0, 1000000), on_dead_letter = options.func, on_error_report = options.func,
}
local RUN = { signals = options.boolean, on_step = options.func, max_wait_s = options.seconds(3600) }

--- Least time between two tries after a temporary error.
local FIRST_BACKOFF_S = 0.05
--- Of one step: who waits longer steps again.
local LONGEST_WAIT_S = 3600

local M = {}

--- One of every MySQL pool's queue.
local function new_of_all(orm, opts)
  return consumers.new(function(queue)
    local own = {}
    for name, v in pairs(opts) do own[name] = v end
    own.queue = queue
    return M.new(orm, own)
  end, orm._pools, opts, Consumer)
end

--- `queue` is a MySQL pool's name ["default"], or "all".
---@param orm regolith.Orm
---@param given table?
---@return regolith.Consumer? consumer
---@return regolith.Err? err
function M.new(orm, given)
  local opts = options.require("consumer", given, OPTIONS)
  if opts.queue == "all" then return new_of_all(orm, opts) end
  local stop = opts.on_error == "stop"
  local c = C.rg_consumer_new(orm._engine, ffi.new("rg_consumer_opts", {
    size = ffi.sizeof "rg_consumer_opts", queue = opts.queue,
    max_batch = opts.max_batch or 0, max_hold_ms = opts.max_hold_ms or 0,
    on_error = stop and C.RG_ON_ERROR_STOP or C.RG_ON_ERROR_WAIT,
    max_backoff_ms = opts.max_backoff_ms or 0, max_tries = opts.max_tries or 0,
    lease = opts.lease == nil and C.RG_LEASE_SEVERAL or (opts.lease and C.RG_LEASE_ALWAYS or C.RG_LEASE_NEVER),
    max_deaths = opts.max_deaths == 0 and -1 or opts.max_deaths or 0,
    lease_ms = opts.lease_ms or 0, parallel = opts.parallel or 0,
  }), err)
  if c == nil then return errors.fail(err) end
  return setmetatable({
    _orm = orm, _c = ffi.gc(c, C.rg_consumer_free), _opts = opts, _stopped = false, _running = false, _dead = 0,
  }, Consumer)
end

local function check_open(self)
  if not self._c then error("the consumer is closed", 3) end
end

local stats_out

--- Totals since the consumer was made.
---@return { applied: number, dead: number, batches: number, retries: number, lag: number, held: number,
---  partitions: number } held: partitions that it works on
function Consumer:stats()
  check_open(self)
  stats_out = stats_out or ffi.new "rg_consumer_stats"
  C.rg_consumer_stats_get(self._c, stats_out)
  return {
    applied = stats_out.applied, dead = stats_out.dead, batches = stats_out.batches,
    retries = stats_out.retries, lag = stats_out.lag,
    held = stats_out.held, partitions = stats_out.partitions,
  }
end

--- Tells on_dead how many operations have become dead letters since the last time.
local function tell_dead(self)
  local dead = self:stats().dead
  local more = dead - self._dead
  self._dead = dead
  if more > 0 then errors.tell(self._orm._on_error, "on_dead", self._opts.on_dead, more) end
end

--- Hands the letters of a step to the hook; one that was resolved meanwhile is not told.
local function tell_letters(self, numbers)
  local hook = self._opts.on_dead_letter or self._orm._on_dead_letter
  for _, number in ipairs(hook and numbers or {}) do
    local letter = self._orm:dead_letter(number, self._opts.queue)
    if letter then errors.tell(self._orm._on_error, "on_dead_letter", hook, letter) end
  end
end

local function letters_of(op)
  local numbers = {}
  for i = 1, C.rg_op_letters(op) do numbers[i] = C.rg_op_id(op, i - 1) end
  return numbers
end

--- One batch: waits for operations, applies them. A temporary error is returned; nothing is lost, step
--- again later.
---@param max_wait_s? number how long to wait for the first operation [1]
---@return number? applied operations applied or dead-lettered
---@return regolith.Err? err
---@return integer? errno
---@return string? sqlstate
function Consumer:step(max_wait_s)
  options.argument("step: max_wait_s", max_wait_s, options.wait)
  check_open(self)
  local wait_ms = math.floor(math.min(max_wait_s or 1, LONGEST_WAIT_S) * 1000)
  local op, fault = self._orm:_do(C.rg_op_consume(self._c, wait_ms, err))
  if not op then return errors.results(fault) end
  local n, letters = C.rg_op_number(op), letters_of(op)
  native.done(op)
  tell_dead(self)
  tell_letters(self, letters)
  return n
end

local function stop_asked(self, signals)
  return self._stopped or (signals and native.signal_taken() ~= nil)
end

--- Waits a little longer after each temporary error in a row; looks up at signals meanwhile.
local function back_off(self, failures, signals)
  local most = (self._opts.max_backoff_ms or 5000) / 1000
  local left = math.min(FIRST_BACKOFF_S * 2 ^ math.min(failures - 1, 20), most)
  while left > 0 and not stop_asked(self, signals) do
    hosts.pause(math.min(left, 0.2))
    left = left - 0.2
  end
end

local function loop(self, opts)
  local failures = 0
  while not stop_asked(self, opts.signals) do
    local applied, fault = self:step(opts.max_wait_s)
    if applied then
      failures = 0
      if opts.on_step then opts.on_step(applied) end
    else
      failures = failures + 1
      if self._opts.on_error_report then self._opts.on_error_report(fault, failures) end
      if self._opts.on_error == "stop" or fault.code == "CLOSED" or fault.code == "MISUSE" then
        return nil, fault
      end
      back_off(self, failures, opts.signals)
    end
  end
  return true
end

--- Consumes until stop() is called; with `signals`, until SIGINT or SIGTERM too (the batch under way is
--- finished). With on_error = "stop" the first error ends it.
---@param opts? { signals: boolean?, max_wait_s: number?, on_step: fun(applied: number)? }
---@return true? ok
---@return regolith.Err? err
function Consumer:run(opts)
  opts = options.require("run", opts, RUN)
  if self._running then error("the consumer is running already", 2) end
  if not self._c and not self._all then error("the consumer is closed", 2) end
  self._running, self._stopped = true, false
  if opts.signals then native.signal_watch() end
  local called, ok, fault = pcall(loop, self, opts)
  if opts.signals then native.signal_unwatch() end
  self._running = false
  self:leave()
  if not called then error(ok, 0) end
  if not ok then return errors.results(fault) end
  return true
end

--- Ends run() after the batch under way.
function Consumer:stop() self._stopped = true end

--- Is run() under way?
---@return boolean
function Consumer:running() return self._running end

--- Gives the partitions that it holds back at once; the next step takes some again.
---@return true? ok
---@return regolith.Err? err
function Consumer:leave()
  if not self._c or not getmetatable(self._orm).__name then return true end
  local op, fault = self._orm:_do(C.rg_op_consumer_leave(self._c, err))
  if not op then return errors.results(fault) end
  return true
end

--- Leaves and frees it; an operation under way keeps what it needs.
function Consumer:close()
  self:leave()
  if self._c then C.rg_consumer_free(ffi.gc(self._c, nil)) end
  self._c = nil
end

return M
