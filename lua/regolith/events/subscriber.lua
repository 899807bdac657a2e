-- SPDX-License-Identifier: MIT
-- Subscribers: each is of a group, and handles the events that it gets of a stream. What one leaves behind when
-- it dies is taken over by another; what fails for good becomes a letter of the group.

local errors = require "regolith.err"
local hosts = require "regolith.hosts.init"
local loop = require "regolith.loop"
local native = require "regolith.native"
local options = require "regolith.options"
local streams = require "regolith.events.stream"

local C = native.C

local M = {}

-- ---- scripts: all that must not be half done ------------------------------------------------------

--- KEYS stream, letters. ARGV group, entry, error, tries, keep (1: the stream's entry stays).
local BURY = [[
local e = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
if e then
  local f = e[2]
  f[#f + 1] = 'error' f[#f + 1] = ARGV[3] f[#f + 1] = 'tries' f[#f + 1] = ARGV[4]
  f[#f + 1] = 'entry' f[#f + 1] = ARGV[2]
  redis.call('XADD', KEYS[2], '*', unpack(f))
  if ARGV[5] ~= '1' then redis.call('XDEL', KEYS[1], ARGV[2]) end
end
return 1]]

--- KEYS stream. ARGV group, ms, name. Forgets subscribers that owe nothing: those that are silent for so
--- long, and the one of that name.
local TIDY = [[
local n = 0
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local v = {}
  for i = 1, #c, 2 do v[c[i] ] = c[i + 1] end
  if v.pending == 0 and (v.idle >= tonumber(ARGV[2]) or v.name == ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], v.name)
    n = n + 1
  end
end
return n]]

-- ---- events -------------------------------------------------------------------------------------

local function from_hex(text)
  return (text:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

--- Gives binary values of an entity's event their bytes back.
local function restore(orm, body)
  local entity = type(body) == "table" and type(body.values) == "table" and orm._by_name[body.entity]
  if not entity then return body end
  for path, v in pairs(body.values) do
    local column = entity.by_path[path]
    local kind = column and column.kind.name
    if (kind == "binary" or kind == "blob") and type(v) == "string" then body.values[path] = from_hex(v) end
  end
  return body
end

--- An event as handlers get it; nil and why when its body cannot be read.
local function event_of(self, key, entry)
  local fields = streams.fields(entry[2] or {})
  local event = { stream = self._stream, group = self._opts.group, entry = entry[1], id = fields.id or entry[1],
    retried = key == self._keys[2] or nil }
  local body, why = native.json_decode(fields.body or "null")
  if body == nil then return event, why end
  if body ~= native.null then event.body = restore(self._orm, body) end
  return event
end

-- ---- the subscriber -----------------------------------------------------------------------------

---@class regolith.Event
---@field stream string
---@field group string
---@field id string the same however often it is handled, and by whomever
---@field entry string id in its stream
---@field tries integer this one counted
---@field body any what was published; of entities { entity, id, kind, changed, values }

---@class regolith.Subscriber
local Subscriber = { __name = "regolith.Subscriber" }
Subscriber.__index = Subscriber

local count = options.integer(1, 4294967295)
local OPTIONS = {
  group = options.string, handler = options.func, queue = options.name, batch = options.integer(1, 10000),
  from = options.one_of("first", "now"), max_tries = count, first_backoff_ms = count, max_backoff_ms = count,
  claim_after_s = options.seconds(86400 * 365), keep_s = options.not_negative,
  on_dead = options.func, on_error_report = options.func,
}
local DEFAULTS = { queue = "default", batch = 32, from = "first", max_tries = 10, first_backoff_ms = 100,
  max_backoff_ms = 60000, claim_after_s = 60, keep_s = 3600 }

--- Subscribers with nothing to do for so long are forgotten; and how often the house is kept.
local FORGET_MS, HOUSE_S = 3600000, 5

---@param orm regolith.Orm
---@param stream string
---@param given table
---@return regolith.Subscriber
function M.new(orm, stream, given, level)
  level = level or 2
  streams.check_stream(stream, level)
  given = options.require("subscriber", given, OPTIONS, level + 1)
  streams.check_group(given.group, level)
  if not given.handler then error("a subscriber needs a handler", level) end
  local opts = {}
  for name, v in pairs(DEFAULTS) do opts[name] = v end
  for name, v in pairs(given) do opts[name] = v end
  return setmetatable({
    _orm = orm, _stream = stream, _opts = opts, _totals = { handled = 0, failed = 0, dead = 0, claimed = 0 },
    _keys = { streams.key(orm, stream), streams.group_key(orm, "er", stream, opts.group) },
    _letters = streams.group_key(orm, "ed", stream, opts.group), _house = 0, _claim = { "0-0", "0-0" },
  }, Subscriber)
end

local function call(self, ...) return streams.redis(self._orm, self._opts.queue, ...) end

local function make_group(self, key, start)
  local ok, fault = call(self, "XGROUP", "CREATE", key, self._opts.group, start, "MKSTREAM")
  if ok or streams.is_error(fault, "BUSYGROUP") then return true end
  return nil, fault
end

--- Makes the groups and a name of its own.
local function join(self)
  if self._name then return true end
  local ok, fault = make_group(self, self._keys[1], self._opts.from == "now" and "$" or "0")
  if ok then ok, fault = make_group(self, self._keys[2], "0") end
  if not ok then return nil, fault end
  local number
  number, fault = call(self, "INCR", "{" .. self._orm._prefix .. "}:ec")
  if not number then return nil, fault end
  self._name = string.format("s%.0f", number)
  return true
end

--- A stream that was deleted meanwhile is begun anew.
local function lost(self, fault)
  if streams.is_error(fault, "NOGROUP") then self._name = nil end
  return nil, fault
end

--- Ends an event: acknowledged; what was tried again is not needed any more.
local function acknowledge(self, held)
  local ok, fault = call(self, "XACK", held.key, self._opts.group, held.entry[1])
  if ok and held.key == self._keys[2] then ok, fault = call(self, "XDEL", held.key, held.entry[1]) end
  return ok, fault
end

local function error_text(fault)
  local text = tostring(fault):sub(1, 1000)
  return native.json_encode(text) and text or text:gsub("[\128-\255]", "?")
end

local function bury(self, held, why)
  local text = error_text(why)
  local n, fault = call(self, "EVAL", BURY, 2, held.key, self._letters, self._opts.group, held.entry[1], text,
    held.tries, held.key == self._keys[1] and "1" or "0")
  if not n then return nil, fault end
  if n == 1 then
    self._totals.dead = self._totals.dead + 1
    held.event.error = text
    errors.tell(self._orm._on_error, "on_dead", self._opts.on_dead, held.event)
  end
  return true
end

--- Runs the handler: true, or nil and why not.
local function handle(self, held)
  if held.unreadable then return nil, held.unreadable end
  held.event.tries = held.tries
  local ok, answer, message = pcall(self._opts.handler, held.event)
  if not ok then return nil, answer end
  if answer == false or (answer == nil and message ~= nil) then return nil, message or "the handler returned false" end
  return true
end

--- One try at an event: true when it is done with; false when it is to be tried again later.
local function try(self, held)
  local opts, totals = self._opts, self._totals
  held.tries = held.tries + 1
  local ok, why = handle(self, held)
  local fault
  if ok then
    totals.handled = totals.handled + 1
    ok, fault = acknowledge(self, held)
    return ok and true, fault
  end
  totals.failed = totals.failed + 1
  if held.tries >= opts.max_tries or held.unreadable then return bury(self, held, why) end
  if opts.on_error_report then
    opts.on_error_report(errors.new("EVENT", string.format("stream %s, group %s: %s", self._stream, opts.group,
      tostring(why))), held.tries)
  end
  local ms = math.min(opts.first_backoff_ms * 2 ^ math.min(held.tries - 1, 40), opts.max_backoff_ms)
  held.again_at = C.rg_clock_s() + ms / 1000
  return false
end

local function hold(self, key, entry, tries)
  local event, why = event_of(self, key, entry)
  return { key = key, entry = entry, event = event, unreadable = why, tries = tries }
end

--- What is read waits in memory; it is claimed again before somebody else takes it for abandoned.
local function keep_alive(self)
  if #self._waiting == 0 or C.rg_clock_s() - self._read_at < self._opts.claim_after_s / 3 then return true end
  for _, held in ipairs(self._waiting) do
    local ok, fault = call(self, "XCLAIM", held.key, self._opts.group, self._name, 0, held.entry[1], "JUSTID")
    if not ok then return nil, fault end
  end
  self._read_at = C.rg_clock_s()
  return true
end

--- Works off what was read: how many events are done with, or nil and an error of Redis.
local function work_off(self)
  local done = 0
  while self._waiting[1] do
    local held = self._waiting[1]
    if held.again_at and held.again_at > C.rg_clock_s() then break end
    local over, fault = try(self, held)
    if over == nil then
      self._waiting = {} -- still owed, and taken up again when they are claimed
      return lost(self, fault)
    end
    if not over then break end
    table.remove(self._waiting, 1)
    done = done + 1
    local ok
    ok, fault = keep_alive(self)
    if not ok then return nil, fault end
  end
  if self._waiting[1] then
    local ok, fault = keep_alive(self)
    if not ok then return nil, fault end
  end
  return done
end

--- How often an entry was delivered, by whomever.
local function deliveries(self, key, id)
  local list, fault = call(self, "XPENDING", key, self._opts.group, id, id, 1)
  if not list then return nil, fault end
  return list[1] and list[1][4] or 1
end

--- Takes over one event that its subscriber left behind. One at a time: it may be what that died of.
local function claim(self, i)
  local key = self._keys[i]
  local reply, fault = call(self, "XAUTOCLAIM", key, self._opts.group, self._name,
    math.floor(self._opts.claim_after_s * 1000), self._claim[i], "COUNT", 1)
  if not reply then return lost(self, fault) end
  self._claim[i] = reply[1]
  local entry = reply[2][1]
  if not entry then return 0 end
  local n
  n, fault = deliveries(self, key, entry[1])
  if not n then return nil, fault end
  self._totals.claimed = self._totals.claimed + 1
  local held = hold(self, key, entry, n - 1)
  self._read_at = C.rg_clock_s()
  if n > self._opts.max_tries then
    local ok
    ok, fault = bury(self, held, "every subscriber that handled it ended before it did")
    return ok and 1, fault
  end
  self._waiting[1] = held
  return work_off(self)
end

--- Now and then: what was left behind, who is gone, what nobody needs any more.
local function keep_house(self)
  local total = 0
  for i = 1, 2 do
    repeat
      local n, fault = claim(self, i)
      if not n then return nil, fault end
      total = total + n
    until n == 0 or self._waiting[1]
    if self._waiting[1] then return total end
  end
  if C.rg_clock_s() < self._house then return total end
  self._house = C.rg_clock_s() + HOUSE_S
  local ok, fault = call(self, "EVAL", TIDY, 1, self._keys[1], self._opts.group, FORGET_MS, "")
  if ok then ok, fault = streams.trim(self._orm, self._opts.queue, self._keys[1], self._opts.keep_s) end
  if not ok then return lost(self, fault) end
  return total
end

local function read(self, wait_s)
  local words = { "XREADGROUP", "GROUP", self._opts.group, self._name, "COUNT", self._opts.batch }
  if wait_s > 0 then
    words[#words + 1], words[#words + 2] = "BLOCK", math.max(1, math.min(math.floor(wait_s * 1000), 1000))
  end
  for _, word in ipairs { "STREAMS", self._keys[1], self._keys[2], ">", ">" } do words[#words + 1] = word end
  local reply, fault = call(self, unpack(words))
  if reply == nil then return lost(self, fault) end
  self._read_at = C.rg_clock_s()
  for _, part in ipairs(reply or {}) do
    for _, entry in ipairs(part[2]) do
      self._waiting[#self._waiting + 1] = hold(self, part[1], entry, 0)
    end
  end
  return true
end

--- Handles what there is, a batch at most; waits for the first of it. How many events are done with:
--- handled, or dead. Errors of handlers are held up and tried again; an error of Redis is returned.
---@param wait_s? number [0]
---@return number? done
---@return regolith.Err? err
function Subscriber:step(wait_s)
  options.argument("step: wait_s", wait_s, options.wait)
  local ok, fault = join(self)
  self._waiting = self._waiting or {}
  local done, held = 0, self._waiting[1]
  if held and held.again_at and wait_s and wait_s > 0 then
    hosts.pause(math.max(0, math.min(wait_s, held.again_at - C.rg_clock_s())))
  end
  if ok and not self._waiting[1] then
    done, fault = keep_house(self)
    ok = done
    if ok and done == 0 and not self._waiting[1] then ok, fault = read(self, wait_s or 0) end
  end
  if ok and self._waiting[1] then
    local n
    n, fault = work_off(self)
    ok, done = n, done + (n or 0)
  end
  if not ok then return errors.results(fault) end
  return done
end

--- Is there an event that has failed and is to be tried again, or one behind it?
---@return boolean
function Subscriber:busy() return self._waiting ~= nil and self._waiting[1] ~= nil end

--- Stream and group, for a person.
---@return string
function Subscriber:name() return self._stream .. "/" .. self._opts.group end

--- Totals since it was made.
---@return { handled: number, failed: number, dead: number, claimed: number }
function Subscriber:stats()
  local totals = {}
  for name, n in pairs(self._totals) do totals[name] = n end
  return totals
end

--- Handles events until stop() is called; with `signals` until SIGINT or SIGTERM too: the event under way
--- comes to its end.
---@param opts? { signals: boolean?, idle_s: number?, on_step: fun(done: number)? }
---@return true? ok
---@return regolith.Err? err
function Subscriber:run(opts)
  local part = { name = self._stream, waits = true, step = function(wait_s) return self:step(wait_s) end }
  return loop.run(self, { part }, opts, self._opts.on_error_report)
end

--- Ends run() after the events under way.
function Subscriber:stop() self._stopped = true end

--- Leaves the group when it owes nothing; what it owes, others take over.
function Subscriber:close()
  if self._name and not (self._waiting and self._waiting[1]) then
    for _, key in ipairs(self._keys) do call(self, "EVAL", TIDY, 1, key, self._opts.group, FORGET_MS, self._name) end
  end
  self._name, self._waiting = nil, nil
end

return M
