-- SPDX-License-Identifier: MIT
-- What the console draws over time: one point a slot of `interval_s` seconds, taken when somebody asks (or a
-- timer does), at most once a slot. Figures of the engine are of this process, those of queues are of all.

local figures = require "regolith.console.figures"
local store = require "regolith.console.store"

local M = {}

local TIMEOUT_MS, WARNINGS_S, SLOW_TOLD = 2000, 60, 40

---@class regolith.ConsoleHistory
local History = {}
History.__index = History

--- Partitions of a queue as one.
local function add_partition(queue, row)
  for _, name in ipairs { "length", "applied", "dead" } do queue[name] = queue[name] + row[name] end
  queue.oldest_ms = math.max(queue.oldest_ms, row.oldest_ms)
  queue.paused = queue.paused or row.paused
  queue.partitions[#queue.partitions + 1] = {
    number = row.partition, length = row.length, oldest_ms = row.oldest_ms, applied = row.applied, dead = row.dead,
    ledger = row.ledger, paused = row.paused,
  }
end

local function by_queue(rows)
  local list, by = {}, {}
  for _, row in ipairs(rows) do
    local queue = by[row.queue]
    if not queue then
      queue = { queue = row.queue, length = 0, oldest_ms = 0, applied = 0, dead = 0, paused = false, partitions = {} }
      by[row.queue], list[#list + 1] = queue, queue
    end
    add_partition(queue, row)
  end
  return list
end

--- How many operations a second were applied since the last time.
local function rate(queue, before, seconds)
  for _, old in ipairs(before or {}) do
    if old.queue == queue.queue and seconds > 0 then return math.max(queue.applied - old.applied, 0) / seconds end
  end
  return 0
end

local function add_delayed(orm, list)
  if not orm:has_redis() then return end
  for _, queue in ipairs(list) do
    local delayed = orm:delayed_count(queue.queue)
    queue.delayed, queue.next_at = delayed and delayed.count or 0, delayed and delayed.next_at
  end
end

--- What is unfit about the servers of the queues changes seldom.
local function warnings(self, now)
  if self.warned_at and now - self.warned_at < WARNINGS_S then return self.warnings end
  self.warned_at = now
  self.warnings = self.orm:queue_warnings() or self.warnings
  return self.warnings
end

local function sample_queues(self, slot)
  local before = self.store:last_queues()
  local rows, fault = self.orm:queues(TIMEOUT_MS)
  local clock = self.clock()
  if not rows then
    self.store:set_last_queues { error = tostring(fault), at = os.time(), list = before and before.list or {},
      clock = before and before.clock }
    return
  end
  local list, point = by_queue(rows), {}
  add_delayed(self.orm, list)
  for _, queue in ipairs(list) do
    queue.rate = rate(queue, before and before.list, before and before.clock and clock - before.clock or 0)
    point[queue.queue] = { length = queue.length, oldest_ms = queue.oldest_ms, dead = queue.dead, rate = queue.rate }
  end
  self.store:set_last_queues { list = list, at = os.time(), clock = clock, warnings = warnings(self, clock) }
  self.store:put_queues(slot, { queues = point })
end

local function slow_of(orm)
  local list = orm:slow { limit = SLOW_TOLD }
  return #list > 0 and list or nil
end

--- What this process says of itself, for all to read.
local function tell(self, look)
  self.store:put_state {
    at = look.at, pid = self.pid, values = look.values, pools = look.pools, coherent = look.coherent,
    slow = self.store.shared and slow_of(self.orm) or nil,
  }
end

--- Takes a point when it is time.
function History:sample()
  local slot = math.floor(os.time() / self.interval_s)
  if self.slot ~= slot then
    local look, before = figures.look(self.orm), self.before
    self.slot, self.before = slot, look
    local point = figures.point(before, look)
    if point then self.store:put_point(slot, point) end
    tell(self, look)
  end
  if self.store:claim(slot) then sample_queues(self, slot) end
end

--- All processes that are known of, as one; how many they are.
function History:now()
  tell(self, figures.look(self.orm))
  local states = self.store:states()
  return figures.sum(states, self.orm._cache_shared), #states
end

--- Points after a time.
---@param since number seconds since 1970
function History:since(since)
  local slot = math.floor(since / self.interval_s)
  return self.store:points(slot), self.store:queue_points(slot)
end

function History:queues() return self.store:last_queues() or { list = {} } end

--- What took long in the processes that are known of, each with its process.
function History:slow()
  local all = {}
  local function take(list, pid)
    for _, event in ipairs(list or {}) do
      event.process = pid
      all[#all + 1] = event
    end
  end
  for _, state in ipairs(self.store.shared and self.store:states() or {}) do
    if state.pid ~= self.pid then take(state.slow, state.pid) end
  end
  take(self.orm:slow(), self.pid)
  table.sort(all, function(a, b) return a.started > b.started end)
  return all
end

---@param orm regolith.Orm
---@param opts { interval_s: integer, keep: integer, dict: table?, pid: integer }
function M.new(orm, opts)
  local self = setmetatable({
    orm = orm, interval_s = opts.interval_s, pid = opts.pid,
    store = store.new(opts.interval_s, opts.keep, opts.dict), clock = figures.clock,
  }, History)
  self.before = figures.look(orm)
  return self
end

return M
