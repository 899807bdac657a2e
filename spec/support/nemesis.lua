-- SPDX-License-Identifier: MIT
-- A nemesis run: processes that read and write the same rows on servers of their own, while processes and
-- servers are killed, connections cut and delayed, memory is taken away, and marks expire early.

local faults = require "support.faults"
local histories = require "support.history"
local list_acts = require "support.list_acts"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field
local M = {}

--- Steps of a flush, a read and a consumer at which a process ends itself (core/src/queue/queue.h).
local KILL_POINTS = { 12, 13, 14, 15, 16, 18, 2, 7, 8, 9, 10, 11 }

local Run = {}
Run.__index = Run

local function entity(outage)
  return regolith.entity("thing", {
    field.string "code" { unique = true }, field.uint64 "value", field.uint32 "shelf" { index = true, cached = true },
    field.uint32 "version" { version = true }, cache = { redis = true, ttl_s = 60, outage = outage },
  })
end

-- ---- processes ----------------------------------------------------------------------------------

function Run:spawn(i)
  self.n = self.n + 1
  local env = self.servers:env()
  env.NEMESIS_MARK_MS = self.opts.mark_ms
  env.NEMESIS_OUTAGE = self.opts.outage
  env.NEMESIS_BOXES = table.concat(self.boxes, ",")
  env.REGOLITH_BREAK = self.opts.broken
  if self.opts.kills and math.random(2) == 1 then
    local points = self.opts.points or KILL_POINTS
    local point = points[math.random((self.opts.async or self.opts.points) and #points or 6)]
    env.REGOLITH_KILL_POINT = point .. ":" .. math.random(1, 40)
  end
  local tier = self.opts.tier or (i % 2 == 0 and "process" or "shared")
  local path = os.tmpname()
  self.files[#self.files + 1] = { path = path, tier = tier }
  local seconds = math.max(0.2, self.till - faults.now())
  self.processes[i] = faults.spawn("nemesis", env, seconds, self.n, self.first, self.last, path, tier,
    self.opts.async and "mixed" or "sync")
end

--- Those that ended before their time are made again; who says something has failed.
function Run:tend()
  for i, process in ipairs(self.processes) do
    if not process:running() then
      local text = process:output()
      os.remove(process.path)
      if text ~= "" then self.history:complain("a process failed: %s", text) end
      if faults.now() < self.till - 0.3 then self:spawn(i) end
    end
  end
end

-- ---- what befalls them --------------------------------------------------------------------------

local EVENTS = {}

function EVENTS.kill_process(self) self.processes[math.random(#self.processes)]:signal "KILL" end

function EVENTS.cut_redis(self)
  local ok, redis = pcall(faults.redis, self.servers.redis_socket)
  if not ok then return end
  redis:call("CLIENT", "KILL", "TYPE", math.random(2) == 1 and "normal" or "pubsub", "SKIPME", "yes")
  redis:close()
end

function EVENTS.delay_redis(self)
  self.servers:stop "redis"
  faults.pause(math.random(20, 400))
  self.servers:continue "redis"
end

function EVENTS.delay_mysql(self)
  self.servers:stop "mysql"
  faults.pause(math.random(20, 300))
  self.servers:continue "mysql"
end

function EVENTS.cut_mysql(self)
  local rows = self.db:query [[
    SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db IS NOT NULL
  ]]
  local row = rows and rows[math.random(math.max(1, #rows))]
  if row then self.db:execute("KILL " .. row.id) end
end

function EVENTS.kill_redis(self)
  self.servers:kill "redis"
  faults.pause(math.random(0, 300))
  self.servers:start()
end

function EVENTS.kill_mysql(self)
  self.servers:kill "mysql"
  self.servers:start()
end

--- Values go, then what has no TTL is refused.
function EVENTS.squeeze(self)
  local ok, redis = pcall(faults.redis, self.servers.redis_socket)
  if not ok then return end
  local used = tonumber((redis:call("INFO", "memory") or ""):match "used_memory:(%d+)")
  redis:call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
  if used then redis:call("CONFIG", "SET", "maxmemory", used - math.random(1, 100) * 1000) end
  faults.pause(math.random(50, 200))
  redis:call("CONFIG", "SET", "maxmemory", "0")
  redis:close()
end

--- Everything goes; with queued writes that would lose them, as it should.
function EVENTS.empty(self)
  if self.opts.async then return end
  local ok, redis = pcall(faults.redis, self.servers.redis_socket)
  if not ok then return end
  redis:call "FLUSHALL"
  redis:close()
end

--- Values are put back that were replaced, as by a fill without a lease: not to be survived.
function EVENTS.old_values(self)
  local redis, held = faults.redis(self.servers.redis_socket), {}
  for id = self.first, self.last do held[id] = redis:call("GET", "{rg}:e:thing:" .. id) end
  faults.pause(300)
  for id, bytes in pairs(held) do
    if bytes:sub(1, 1) == "V" then redis:call("SET", "{rg}:e:thing:" .. id, bytes) end
  end
  redis:close()
end

-- ---- the run ------------------------------------------------------------------------------------

local function rows(self)
  local list, by_id = must(self.db:query "SELECT id, version, value FROM thing ORDER BY id"), {}
  for _, row in ipairs(list) do by_id[row.id] = { version = row.version, value = tonumber(row.value) } end
  return by_id, list
end

function Run:open()
  self.Thing = entity(self.opts.outage)
  self.Box, self.Item = list_acts.entities { redis = true, ttl_s = 60, outage = self.opts.outage }
  self.orm = self.servers:open({ self.Thing, self.Box, self.Item }, { timeout_ms = 10000, outage = self.opts.outage })
  self.db = self.orm:session()
  for i = 1, self.opts.rows do self.db:new(self.Thing, { code = "c" .. i, value = 0, shelf = i % 10 }) end
  self.boxes = {}
  for i = 1, list_acts.BOXES do self.boxes[i] = self.db:new(self.Box, { name = "b" .. i }).id end
  must(self.db:flush())
  local list
  self.start, list = rows(self)
  self.first, self.last = list[1].id, list[#list].id
  must(self.db:execute "UPDATE thing SET code = CONCAT('c', id)")
  must(self.orm:invalidate(self.Thing))
end

function Run:play()
  self.till = faults.now() + self.opts.seconds
  for i = 1, self.opts.processes do self:spawn(i) end
  local next_at, at = faults.now() + 0.5, 1
  while faults.now() < self.till do
    self:tend()
    if faults.now() >= next_at and #self.opts.events > 0 then
      local name, began = self.opts.events[at], faults.now()
      EVENTS[name](self)
      if name:find "redis" or name == "squeeze" then
        table.insert(self.history.outages, { began, faults.now() + histories.BREAKER_S })
      end
      at = at % #self.opts.events + 1
      next_at = faults.now() + (self.opts.every_s or 0.2)
    end
    faults.pause(20)
  end
  for _, process in ipairs(self.processes) do
    faults.await("the end of a process", function() return not process:running() end, 60)
    local text = process:output()
    os.remove(process.path)
    if text ~= "" then self.history:complain("a process failed: %s", text) end
  end
end

--- Applies what is queued, once the servers are there again.
function Run:settle()
  self.servers:start()
  if not self.opts.async then return end
  faults.await("the queue to be applied", function()
    local consumer = self.orm:consumer()
    local n = consumer and consumer:step(0.1)
    if consumer then consumer:close() end
    return n == 0 and self.orm:drained(100)
  end, 120)
  -- a flush that Redis could not be told of may have gone past what was queued: that is a letter then
  local letters = must(self.orm:dead_letters())
  for _, letter in ipairs(letters) do
    if self.opts.outage == "available" then
      self.history:disown(letter.entity, letter.entity_id)
    else
      self.history:complain("dead letter: %s %s: %s", letter.entity, tostring(letter.entity_id), tostring(letter.error))
    end
  end
end

--- At rest every list is what the database holds.
local function judge_lists(self)
  local final, want = {}, {}
  local function add(kind, key, id)
    local name = kind .. " " .. key
    want[name] = (want[name] or "") .. " " .. id
  end
  for _, row in ipairs(must(self.db:query "SELECT id, box_id AS box, slot, version FROM item ORDER BY id")) do
    local slot = tonumber(row.slot) or 0
    final[row.id] = { box = row.box, slot = slot, version = row.version }
    add("all", 0, row.id)
    add("box", row.box, row.id)
    if slot > 0 then add("slot", slot, row.id) end
  end
  local function compare(kind, key, read)
    for _ = 1, 2 do -- the second from the cache
      local db, ids = self.orm:session(), ""
      for _, e in ipairs(must(read(db))) do ids = ids .. " " .. e.id end
      db:close()
      local name = kind .. " " .. key
      if ids ~= (want[name] or "") then
        self.history:complain("at the end %s is%s, not%s", name, ids, want[name] or " empty")
      end
    end
  end
  compare("all", 0, function(db) return db:all(self.Item) end)
  for _, box in ipairs(self.boxes) do compare("box", box, function(db) return db:all_by(self.Item, "box", box) end) end
  for slot = 1, list_acts.SLOTS do
    compare("slot", slot, function(db)
      local e, err = db:by(self.Item, "slot", slot)
      must(e or not err, err)
      return { e }
    end)
  end
  self.history.lists:check_end(final)
end

--- The end: caches are compared with the database, then the histories are checked.
function Run:judge()
  local result, err = self.orm:audit { all = true, older_than_ms = 1000 }
  if not result then self.history:complain("the audit failed: %s", tostring(err)) end
  for _, m in ipairs(result and result.mismatches or {}) do
    self.history:complain("audit: %s %s %s %s: %s", m.entity, tostring(m.id), m.tier, m.what, m.problem)
  end
  for _, file in ipairs(self.files) do
    local f = io.open(file.path, "r")
    if f then
      self.history:take(f:read "*a", file.tier)
      f:close()
      os.remove(file.path)
    end
  end
  judge_lists(self)
  local final = rows(self)
  self.history:check(self.start, final)
end

--- Runs it, and gives the checked history.
---@param opts { seconds: number, processes: integer, rows: integer, events: string[], async: boolean?,
---  kills: boolean?, tier: string?, mark_ms: integer?, outage: string?, broken: string?, every_s: number?,
---  points: integer[]? }
---@return History
function M.run(opts)
  local self = setmetatable({
    opts = opts, servers = faults.servers "nemesis", history = histories.new(), processes = {}, files = {}, n = 0,
  }, Run)
  local ok, fault = xpcall(function()
    self:open()
    self:play()
    self:settle()
    self:judge()
  end, debug.traceback)
  for _, process in ipairs(self.processes) do
    if process:running() then process:kill() end
  end
  if self.db then self.db:close() end
  self.servers:remove()
  if not ok then error(fault, 0) end
  return self.history
end

return M
