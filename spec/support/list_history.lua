-- SPDX-License-Identifier: MIT
-- Checks what a nemesis run saw of lists (support/list_acts): a row that was in a list when the read of it
-- began, and left it no sooner than the read ended, is in it; one that was not, and did not come, is not.

local M = {}

--- A row is added up to so long after it is known to be gone, s.
local AFTERLIFE_S = 10

---@class ListHistory
---@field violations string[]
local Lists = {}
Lists.__index = Lists

function M.new()
  return setmetatable({ rows = {}, ops = {}, reads = {}, violations = {}, outages = {}, n_reads = 0, n_writes = 0 },
    Lists)
end

function Lists:complain(...)
  if #self.violations < 200 then self.violations[#self.violations + 1] = "list: " .. string.format(...) end
end

local PARSE = {}

function PARSE.O(self, line)
  local n, id, kind, base, box, slot, t = line:match "^O (%d+) (%d+) (%a) (%d+) (%d+) (%d+) (%S+)$"
  if not n then return end
  local op = { id = tonumber(id), kind = kind, base = tonumber(base), began = tonumber(t), ended = math.huge,
    outcome = "info", box = tonumber(box), slot = tonumber(slot) }
  op.order = op.base + 1
  self.ops[n] = op
  self.rows[op.id] = self.rows[op.id] or {}
  table.insert(self.rows[op.id], op)
  self.n_writes = self.n_writes + 1
end

--- Where what a queued write was built on is not known to be what it was applied to, neither is its order.
function PARSE.P(self, line)
  local n, version, t, outcome, way = line:match "^P (%d+) (%d+) (%S+) (%a+) (%S+)$"
  local op = n and self.ops[n]
  if not op then return end
  op.ended, op.outcome, op.way = tonumber(t), outcome, way
  if outcome == "ok" and op.kind == "U" and tonumber(version) == op.base then
    op.outcome = "fail" -- nothing changed, so that nothing was written
  elseif outcome == "ok" and op.kind ~= "D" then op.order = tonumber(version)
  elseif way == "flush_async" then op.order = outcome == "ok" and math.huge or nil end
end

function PARSE.L(self, line, tier)
  local kind, key, t0, t1, words = line:match "^L (%a+) (%d+) (%S+) (%S+) ?(.*)$"
  if not kind then return end
  local read = { kind = kind, key = tonumber(key), began = tonumber(t0), ended = tonumber(t1), tier = tier, has = {} }
  for id, version in words:gmatch "(%d+):(%d+)" do read.has[tonumber(id)] = tonumber(version) end
  self.reads[#self.reads + 1] = read
  self.n_reads = self.n_reads + 1
end

--- Takes a line of one process; false when it tells nothing of lists.
function Lists:take(line, tier)
  local parse = PARSE[line:sub(1, 1)]
  if parse then parse(self, line, tier) end
  return parse ~= nil
end

-- ---- the check ----------------------------------------------------------------------------------

local function order_of(op) return op and op.order or 0 end

--- The last write of a row that a read from t on has to see.
local function needed(ops, t, away)
  local last
  for _, op in ipairs(ops) do
    local told = op.outcome == "ok" and op.ended < t and not (away and op.way ~= "flush")
    if told and order_of(op) > order_of(last) then last = op end
  end
  return last
end

local function is_in(op, kind, key)
  if not op or op.kind == "D" then return false end
  return kind == "all" or (kind == "box" and op.box == key) or (kind == "slot" and op.slot == key)
end

--- Could the row be in the list, and could it not be?
local function possible(ops, read, bound)
  local last = needed(ops, read.began - bound, read.away)
  local inside = is_in(last, read.kind, read.key)
  local may, need_not = inside, not inside
  for _, op in ipairs(ops) do
    local later = op ~= last and op.outcome ~= "fail" and op.began < read.ended
      and not (op.order and op.order < order_of(last))
    if later then
      if is_in(op, read.kind, read.key) then may = true else need_not = true end
    end
  end
  return may, need_not, last
end

local function describe(read)
  return string.format("%s %d read (%s) at %.6f", read.kind, read.key, read.tier, read.began)
end

local function check_member(self, read, id, version, bound)
  local ops = self.rows[id]
  if not ops then return self:complain("%s has row %d, which nobody wrote", describe(read), id) end
  local may, _, last = possible(ops, read, bound)
  if not may then
    self:complain("%s has row %d, which was not in it: last %s of %.6f", describe(read), id, last and last.kind or "-",
      last and last.ended or 0)
  elseif last and last.order < math.huge and version < last.order then
    self:complain("%s has row %d as version %d, %d was there at %.6f", describe(read), id, version, last.order,
      last.ended)
  end
end

local function check_missing(self, read, id, ops, bound)
  local _, need_not, last = possible(ops, read, bound)
  if need_not then return end
  self:complain("%s lacks row %d, which was in it as version %s from %.6f on (%s)", describe(read), id,
    tostring(last.order), last.ended, last.way)
end

--- Rows by the time they came, with the time they were last heard of.
local function by_time(self)
  local list = {}
  for id, ops in pairs(self.rows) do
    local life = { id = id, ops = ops, from = math.huge, to = 0 }
    local is_known = false -- else nothing has to be in any list
    for _, op in ipairs(ops) do
      life.from = math.min(life.from, op.began)
      is_known = is_known or op.outcome == "ok"
      if op.kind == "D" and op.outcome == "ok" then life.to = op.ended + AFTERLIFE_S end
    end
    if life.to == 0 then life.to = math.huge end
    if is_known then list[#list + 1] = life end
  end
  table.sort(list, function(a, b) return a.from < b.from end)
  return list
end

local function is_away(self, read)
  for _, window in ipairs(self.outages) do
    if read.ended >= window[1] and read.began <= window[2] then return true end
  end
  return false
end

--- Checks all reads. bounds: by tier, how old what is read may be, s.
function Lists:check(bounds)
  table.sort(self.reads, function(a, b) return a.began < b.began end)
  local lives, alive, next_life = by_time(self), {}, 1
  for _, read in ipairs(self.reads) do
    read.away = is_away(self, read)
    while lives[next_life] and lives[next_life].from < read.ended do
      alive[#alive + 1] = lives[next_life]
      next_life = next_life + 1
    end
    for i = #alive, 1, -1 do
      local life = alive[i]
      if life.to < read.began then
        alive[i] = alive[#alive]
        alive[#alive] = nil
      elseif not read.has[life.id] then
        check_missing(self, read, life.id, life.ops, bounds[read.tier])
      end
    end
    for id, version in pairs(read.has) do check_member(self, read, id, version, bounds[read.tier]) end
  end
end

--- Checks how rows end. final: by id, { box, slot, version }.
function Lists:check_end(final)
  local function as(kind, key)
    return { kind = kind, key = key, began = 1e15, ended = 1e16, tier = "end" }
  end
  for id, ops in pairs(self.rows) do
    local row = final[id]
    if row then
      check_member(self, as("box", row.box), id, row.version, 0)
      if row.slot > 0 then check_member(self, as("slot", row.slot), id, row.version, 0) end
    else
      check_missing(self, as("all", 0), id, ops, 0)
    end
  end
  for id in pairs(final) do
    if not self.rows[id] then self:complain("row %d is there, which nobody wrote", id) end
  end
end

return M
