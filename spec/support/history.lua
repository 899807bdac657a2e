-- SPDX-License-Identifier: MIT
-- Checks the histories of a nemesis run (support/programs/nemesis.lua): versions of a row count up by one
-- with each write, and each write has a value of its own, so that what was read tells what it saw.

local list_histories = require "support.list_history"

local M = {}

--- A read may miss what was committed so long before it began.
local BOUND = { shared = 0, process = 2.0 }

--- Reads go past Redis for so long after it has not answered.
M.BREAKER_S = 2.5

---@class History
---@field processes table[] { tier, events }
---@field violations string[]
local History = {}
History.__index = History

function M.new()
  return setmetatable({
    processes = {}, outages = {}, writes = {}, by_value = {}, violations = {}, n_writes = 0, n_reads = 0,
    lists = list_histories.new(),
  }, History)
end

function History:complain(...)
  if #self.violations < 1000 then self.violations[#self.violations + 1] = string.format(...) end
  self.failed = true
end

local function write_of(self, id, value)
  local w = self.by_value[value]
  if not w then
    w = { id = id, value = value, outcome = "info" }
    self.by_value[value] = w
    self.writes[id] = self.writes[id] or {}
    table.insert(self.writes[id], w)
    self.n_writes = self.n_writes + 1
  end
  return w
end

--- Takes what one process wrote down; its last line may be cut.
---@param text string
---@param tier "shared"|"process"
function History:take(text, tier)
  local events = {}
  for line in text:gmatch "([^\n]*)\n" do
    local kind = line:sub(1, 1)
    if kind == "B" then
      local id, value, t = line:match "^B (%d+) (%d+) (%S+)$"
      write_of(self, tonumber(id), tonumber(value)).began = tonumber(t)
    elseif kind == "W" then
      local pattern = "^W (%d+) (%d+) (%d+) (%S+) (%S+) (%a+) (%S+)$"
      local id, version, value, t0, t1, outcome, way = line:match(pattern)
      local w = write_of(self, tonumber(id), tonumber(value))
      w.version, w.began, w.ended, w.outcome, w.way = tonumber(version), tonumber(t0), tonumber(t1), outcome, way
      if outcome == "ok" then
        events[#events + 1] = { id = w.id, version = w.version, began = w.ended, own = true }
      end
    elseif kind == "R" then
      local id, version, value, t0, t1 = line:match "^R (%d+) (%d+) (%d+) (%S+) (%S+)$"
      events[#events + 1] = {
        id = tonumber(id), version = tonumber(version), value = tonumber(value), began = tonumber(t0),
        ended = tonumber(t1),
      }
      self.n_reads = self.n_reads + 1
    elseif kind == "A" then
      local t0, t1 = line:match "^A (%S+) (%S+)$"
      table.insert(self.outages, { tonumber(t0), tonumber(t1) + M.BREAKER_S })
    else
      self.lists:take(line, tier)
    end
  end
  self.processes[#self.processes + 1] = { tier = tier, events = events }
end

--- Of what was queued for a row nobody knows whether it was applied.
function History:disown(entity, id)
  self.disowned = self.disowned or {}
  table.insert(self.disowned, { entity, id })
end

local function disown_all(self)
  for _, row in ipairs(self.disowned or {}) do
    local writes = row[1] == "item" and self.lists.rows[row[2]] or self.writes[row[2]]
    for _, w in ipairs(writes or {}) do
      if w.way == "flush_async" and w.outcome == "ok" then w.outcome, w.order = "info", nil end
    end
  end
end

-- ---- the checks ---------------------------------------------------------------------------------

--- By row: acknowledged writes, and reads, as what was read was there. Nobody is told of a write that a crash
--- kept from being acknowledged, but for who has read it.
local function observations(self)
  local lists = {}
  for id, writes in pairs(self.writes) do
    lists[id] = {}
    for _, w in ipairs(writes) do
      if w.outcome == "ok" then table.insert(lists[id], w) end
    end
  end
  for _, process in ipairs(self.processes) do
    for _, r in ipairs(process.events) do
      local w = not r.own and self.by_value[r.value]
      if w and lists[r.id] then
        table.insert(lists[r.id], { version = r.version, ended = r.ended, way = w.way or "flush_async" })
      end
    end
  end
  return lists
end

--- Observations of a row by time, with the highest version so far, and the
--- highest that was not only queued.
local function in_order(list)
  table.sort(list, function(a, b) return a.ended < b.ended end)
  local high, flushed
  for _, w in ipairs(list) do
    if not high or w.version > high.version then high = w end
    if w.way == "flush" and (not flushed or w.version > flushed.version) then flushed = w end
    w.high, w.flushed = high, flushed
  end
  return list
end

local NONE = { version = 0 }

--- The write that a read which began then must not be below.
local function least(list, t, away)
  local low, high = 1, #list + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if list[middle].ended < t then low = middle + 1 else high = middle end
  end
  local last = list[low - 1]
  return last and (away and last.flushed or not away and last.high) or NONE
end

--- While Redis is away, nobody can know what it holds queued.
local function is_away(self, t0, t1)
  for _, window in ipairs(self.outages) do
    if t1 >= window[1] and t0 <= window[2] then return true end
  end
  return false
end

local function check_read(self, r, tier, acks, start)
  local w = self.by_value[r.value]
  if not w then
    if r.value ~= start[r.id].value or r.version ~= start[r.id].version then
      self:complain("dirty: row %d was read with value %d, which nobody wrote", r.id, r.value)
    end
  elseif w.id ~= r.id then
    self:complain("dirty: row %d was read with the value of row %d", r.id, w.id)
  elseif w.outcome == "fail" then
    self:complain("dirty: row %d was read with value %d of a write that was undone", r.id, r.value)
  elseif w.outcome == "ok" and w.version ~= r.version then
    self:complain("row %d was read with value %d as version %d, written as %d", r.id, r.value, r.version, w.version)
  end
  local needed = least(acks[r.id] or {}, r.began - BOUND[tier], r.away)
  if r.version < needed.version then
    self:complain("stale: row %d was read (%s) as version %d at %.6f, version %d was there at %.6f (%s)", r.id, tier,
      r.version, r.began, needed.version, needed.ended, needed.way)
  end
end

local function check_process(self, process, acks, start)
  local seen = {}
  for _, e in ipairs(process.events) do
    e.away = not e.own and is_away(self, e.began, e.ended)
    if not e.own then check_read(self, e, process.tier, acks, start) end
    if e.version < (seen[e.id] or 0) and not e.away then
      self:complain("back: row %d went from version %d to %d in one process (%s) at %.6f", e.id, seen[e.id], e.version,
        process.tier, e.began)
    end
    seen[e.id] = math.max(seen[e.id] or 0, e.version)
  end
end

--- No version was written twice, and the row ends where its writes led.
local function check_row(self, id, final, start)
  local ok, unknown, versions = 0, 0, {}
  for _, w in ipairs(self.writes[id] or {}) do
    if w.outcome == "info" then unknown = unknown + 1 end
    if w.outcome == "ok" then
      ok = ok + 1
      if versions[w.version] then
        self:complain("lost update: row %d got version %d twice (%d, %d)", id, w.version, versions[w.version], w.value)
      end
      versions[w.version] = w.value
      if w.version > final.version then
        self:complain("lost write: version %d of row %d, which ends as %d", w.version, id, final.version)
      end
    end
  end
  local steps = final.version - start.version
  if steps < ok or steps > ok + unknown then
    self:complain("row %d took %d steps; %d writes were acknowledged, of %d nobody knows", id, steps, ok, unknown)
  end
  if versions[final.version] and versions[final.version] ~= final.value then
    self:complain("row %d ends with value %d, not %d", id, final.value, versions[final.version])
  end
end

--- Checks everything; what is wrong is in self.violations.
---@param start table<integer, { version: integer, value: integer }> rows before
---@param final table<integer, { version: integer, value: integer }> rows after everything was applied
function History:check(start, final)
  disown_all(self)
  local acks = {}
  for id, list in pairs(observations(self)) do acks[id] = in_order(list) end
  for _, process in ipairs(self.processes) do check_process(self, process, acks, start) end
  for id, row in pairs(final) do check_row(self, id, row, start[id]) end
  self.lists.outages = self.outages
  self.lists:check(BOUND)
  for _, text in ipairs(self.lists.violations) do self:complain("%s", text) end
  return not self.failed
end

return M
