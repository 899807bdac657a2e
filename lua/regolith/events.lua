-- SPDX-License-Identifier: MIT
-- Events on named streams of Redis: changes of entities, which come through the outbox of the transaction
-- that made them, and whatever the application publishes. Groups of subscribers share a stream: each group
-- gets every event at least once. What a subscriber leaves behind when it dies is taken over by another
-- one; what fails for good becomes a letter of its group.
--
-- Keys, P the prefix: "{P}:ev:<stream>" the stream, "{P}:er:<stream>:<group>" letters that are tried again,
-- "{P}:ed:<stream>:<group>" letters, "{P}:ec" counts subscribers.

local errors = require "regolith.err"
local hosts = require "regolith.hosts.init"
local loop = require "regolith.loop"
local native = require "regolith.native"
local options = require "regolith.options"

local C, ffi, err = native.C, native.ffi, native.err

local M = {}

-- ---- Redis --------------------------------------------------------------------------------------

local cell, cell_len = ffi.new "const char *[1]", ffi.new "size_t[1]"

local function text_at(op, row, col)
  if C.rg_op_cell(op, 0, row, col, cell, cell_len) == C.RG_CELL_NULL then return nil end
  return ffi.string(cell[0], cell_len[0])
end

--- The part of a reply at a row, and the row behind it. Absent values are false.
local function parse(op, row)
  local kind, value = text_at(op, row, 0), text_at(op, row, 1)
  if kind == "i" then return tonumber(value), row + 1 end
  if kind == "n" then return false, row + 1 end
  if kind ~= "a" then return value or "", row + 1 end
  local list, at = {}, row + 1
  for i = 1, tonumber(value) do list[i], at = parse(op, at) end
  return list, at
end

--- One command: its reply, or nil and the error.
local function redis(orm, queue, ...)
  local op = C.rg_op_redis(orm._engine, queue or "default", err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  for i = 1, select("#", ...) do
    local word = tostring((select(i, ...)))
    if C.rg_op_param_string(op, word, #word, err) < 0 then return nil, errors.from_c(err) end
  end
  local ok, fault = orm:_run(op)
  if not ok then return nil, fault end
  local reply = parse(op, 0)
  native.done(op)
  return reply
end

local function is_error(fault, word) return fault.message:find(word, 1, true) ~= nil end

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

--- KEYS letters, retried. ARGV letter. A letter goes back to its group's own stream.
local RETRY = [[
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not e then return 0 end
local v = {}
for i = 1, #e[2], 2 do v[e[2][i] ] = e[2][i + 1] end
redis.call('XADD', KEYS[2], '*', 'id', v.id or v.entry, 'body', v.body or 'null')
redis.call('XDEL', KEYS[1], ARGV[1])
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

--- KEYS stream. ARGV ms to keep. Removes what every group has done with and is older.
local TRIM = [[
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local ms, seq
for _, g in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local v = {}
  for i = 1, #g, 2 do v[g[i] ] = g[i + 1] end
  local a, b
  if v.pending > 0 then a, b = parse(redis.call('XPENDING', KEYS[1], v.name)[2])
  else
    a, b = parse(v['last-delivered-id'])
    b = b + 1
  end
  if not ms or a < ms or (a == ms and b < seq) then ms, seq = a, b end
end
if not ms then return 0 end
local t = redis.call('TIME')
local oldest = t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(ARGV[1])
if oldest < ms then ms, seq = oldest, 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-%.0f', ms, seq))]]

-- ---- names --------------------------------------------------------------------------------------

local function check_stream(name, level)
  if type(name) ~= "string" or not name:match "^[%w_.-]+$" or #name > 128 then
    error("a stream's name is 1 to 128 letters, digits, '.', '-' and '_'", level + 1)
  end
end

local function check_group(name, level)
  if type(name) ~= "string" or not name:match "^[%w_.-]+$" or #name > 128 then
    error("a group's name is 1 to 128 letters, digits, '.', '-' and '_'", level + 1)
  end
end

local function stream_key(orm, stream) return "{" .. orm._prefix .. "}:ev:" .. stream end
local function group_key(orm, what, stream, group)
  return "{" .. orm._prefix .. "}:" .. what .. ":" .. stream .. ":" .. group
end

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

local function fields_of(list)
  local fields = {}
  for i = 1, #(list or {}), 2 do fields[list[i]] = list[i + 1] end
  return fields
end

--- An event as handlers get it; nil and why when its body cannot be read.
local function event_of(self, key, entry)
  local fields = fields_of(entry[2] or {})
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

local function positive(v)
  if type(v) ~= "number" or v <= 0 or v > 86400 * 365 then return "must be a number above zero" end
end
local function not_negative(v)
  if type(v) ~= "number" or v < 0 then return "must be a number, 0 or more" end
end
local count = options.integer(1, 4294967295)
local OPTIONS = {
  group = options.string, handler = options.func, queue = options.name, batch = options.integer(1, 10000),
  from = options.one_of("first", "now"), max_tries = count, first_backoff_ms = count, max_backoff_ms = count,
  claim_after_s = positive, keep_s = not_negative, on_dead = options.func, on_error_report = options.func,
}
local DEFAULTS = { queue = "default", batch = 32, from = "first", max_tries = 10, first_backoff_ms = 100,
  max_backoff_ms = 60000, claim_after_s = 60, keep_s = 3600 }

--- Subscribers with nothing to do for so long are forgotten; and how often the house is kept.
local FORGET_MS, HOUSE_S = 3600000, 5

---@param orm regolith.Orm
---@param stream string
---@param given table
---@return regolith.Subscriber
function M.subscriber(orm, stream, given, level)
  level = level or 2
  check_stream(stream, level)
  given = options.require("subscriber", given, OPTIONS, level + 1)
  check_group(given.group, level)
  if not given.handler then error("a subscriber needs a handler", level) end
  local opts = {}
  for name, v in pairs(DEFAULTS) do opts[name] = v end
  for name, v in pairs(given) do opts[name] = v end
  return setmetatable({
    _orm = orm, _stream = stream, _opts = opts, _totals = { handled = 0, failed = 0, dead = 0, claimed = 0 },
    _keys = { stream_key(orm, stream), group_key(orm, "er", stream, opts.group) },
    _letters = group_key(orm, "ed", stream, opts.group), _house = 0, _claim = { "0-0", "0-0" },
  }, Subscriber)
end

local function call(self, ...) return redis(self._orm, self._opts.queue, ...) end

local function make_group(self, key, start)
  local ok, fault = call(self, "XGROUP", "CREATE", key, self._opts.group, start, "MKSTREAM")
  if ok or is_error(fault, "BUSYGROUP") then return true end
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
  if is_error(fault, "NOGROUP") then self._name = nil end
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
    if self._opts.on_dead then self._opts.on_dead(held.event) end
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
  if ok then ok, fault = call(self, "EVAL", TRIM, 1, self._keys[1], math.floor(self._opts.keep_s * 1000)) end
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

-- ---- publishing and administration --------------------------------------------------------------

local PUBLISH = { queue = options.name }
local LIST = { queue = options.name, limit = options.integer(1, 1000000) }
local TRIMMING = { queue = options.name, keep_s = not_negative }

--- "name" -> value of a reply that is a flat list.
local function named(list)
  local t = {}
  for i = 1, #list, 2 do t[list[i]] = list[i + 1] end
  return t
end

local function group_stats(orm, queue, stream, list)
  local groups = {}
  for i, entry in ipairs(list) do
    local v = named(entry)
    local dead, fault = redis(orm, queue, "XLEN", group_key(orm, "ed", stream, v.name))
    if not dead then return nil, fault end
    groups[i] = { name = v.name, subscribers = v.consumers, pending = v.pending, lag = v.lag or nil, dead = dead }
  end
  return groups
end

--- The age in ms of a stream's oldest entry.
local function age_of(orm, queue, key)
  local first, fault = redis(orm, queue, "XRANGE", key, "-", "+", "COUNT", 1)
  if not first then return nil, fault end
  if not first[1] then return 0 end
  local time
  time, fault = redis(orm, queue, "TIME")
  if not time then return nil, fault end
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  return math.max(0, now - tonumber(first[1][1]:match "^%d+"))
end

local function letter_of(entry)
  local fields = fields_of(entry[2])
  local body = native.json_decode(fields.body or "null")
  if body == native.null then body = nil end
  return { letter = entry[1], id = fields.id or fields.entry, entry = fields.entry, error = fields.error,
    tries = tonumber(fields.tries), body = body }
end

--- Does something to one letter, or to all there are: to how many.
local function each_letter(orm, stream, group, letter, queue, fn)
  local ids = { letter }
  if letter == "all" then
    local list, fault = redis(orm, queue, "XRANGE", group_key(orm, "ed", stream, group), "-", "+")
    if not list then return nil, fault end
    for i, entry in ipairs(list) do ids[i] = entry[1] end
    if #list == 0 then ids = {} end
  end
  local n = 0
  for _, id in ipairs(ids) do
    local done, fault = fn(id)
    if not done then return nil, fault end
    n = n + done
  end
  return n
end

local function check_letter(what, letter, level)
  if type(letter) ~= "string" or not (letter == "all" or letter:match "^%d+%-%d+$") then
    error(what .. " takes the name of a letter, or \"all\"", level + 1)
  end
end

--- Adds the subscribers' handlers that regolith.open was given: parts for a loop.
---@param orm regolith.Orm
---@param more? table options for all of them
---@return regolith.Subscriber[]
function M.configured(orm, more)
  local list = {}
  for stream, groups in pairs(orm._subscribers) do
    for group, handler in pairs(groups) do
      local opts = { group = group }
      for name, v in pairs(more or {}) do opts[name] = v end
      for name, v in pairs(type(handler) == "table" and handler or { handler = handler }) do opts[name] = v end
      list[#list + 1] = M.subscriber(orm, stream, opts)
    end
  end
  table.sort(list, function(a, b) return a._stream .. " " .. a._opts.group < b._stream .. " " .. b._opts.group end)
  return list
end

---@param Orm table
function M.install(Orm)
  --- Publishes an event of the application's own: the id of its entry.
  ---@param stream string
  ---@param body any what JSON can hold
  ---@param opts? { queue: string? } the queue whose Redis has the stream ["default"]
  ---@return string? entry
  ---@return regolith.Err? err
  function Orm:publish(stream, body, opts)
    check_stream(stream, 2)
    opts = options.require("publish", opts, PUBLISH)
    local text, why = native.json_encode(body == nil and native.null or body)
    if not text then error("the body of an event is no JSON: " .. why, 2) end
    local id, fault = redis(self, opts.queue, "XADD", stream_key(self, stream), "*", "body", text)
    if not id then return errors.results(fault) end
    return id
  end

  --- One of a group that handles a stream's events.
  ---@param stream string
  ---@param opts { group: string, handler: fun(event: regolith.Event) }
  ---@return regolith.Subscriber
  function Orm:subscriber(stream, opts) return (M.subscriber(self, stream, opts, 3)) end

  --- Moves events that wait in the outbox to their streams, as every consumer does: how many.
  ---@param queue? string ["default"]
  ---@return number? moved
  ---@return regolith.Err? err
  function Orm:relay(queue)
    local op, fault = self:_do(C.rg_op_relay(self._engine, queue or "default", err))
    if not op then return errors.results(fault) end
    return C.rg_op_number(op)
  end

  --- The stream on which a queue's dead letters are announced: { queue, number, id, operation, state,
  --- entity, entity_id, errno, sqlstate, error }.
  ---@param queue? string ["default"]
  ---@return string
  function Orm.dead_letter_stream(_, queue) return "dead-letters." .. (queue or "default") end

  --- Flushes that wait for their time (`delay_ms`, `at`): how many, and the time of the first in seconds
  --- since 1970.
  ---@param queue? string ["default"]
  ---@return { count: number, next_at: number? }? delayed
  ---@return regolith.Err? err
  function Orm:delayed(queue)
    local key = string.format("{%s}:lz:%s", self._prefix, queue or "default")
    local waiting, fault = redis(self, queue, "ZCARD", key)
    local first
    if waiting then first, fault = redis(self, queue, "ZRANGE", key, 0, 0, "WITHSCORES") end
    if not first then return errors.results(fault) end
    return { count = waiting, next_at = first[2] and tonumber(first[2]) / 1000 or nil }
  end

  --- The Redis key of a stream, for who reads it with other means: fields `id` and `body` (JSON).
  ---@param stream string
  ---@return string
  function Orm:stream_key(stream)
    check_stream(stream, 2)
    return stream_key(self, stream)
  end

  --- length, oldest_ms, and groups: name, subscribers, pending, lag, dead.
  ---@param stream string
  ---@param opts? { queue: string? }
  ---@return table? stats
  ---@return regolith.Err? err
  function Orm:stream_stats(stream, opts)
    check_stream(stream, 2)
    local queue = options.require("stream_stats", opts, PUBLISH).queue
    local key = stream_key(self, stream)
    local stats = { length = 0, oldest_ms = 0, groups = {} }
    local fault
    stats.length, fault = redis(self, queue, "XLEN", key)
    local list
    if stats.length then
      list, fault = redis(self, queue, "XINFO", "GROUPS", key)
      if not list and is_error(fault, "no such key") then return stats end
    end
    if list then stats.groups, fault = group_stats(self, queue, stream, list) end
    if list and stats.groups then stats.oldest_ms, fault = age_of(self, queue, key) end
    if not stats.oldest_ms or not list or not stats.groups then return errors.results(fault) end
    return stats
  end

  --- Events that a group could not handle, oldest first: letter, id, entry, error, tries, body.
  ---@param stream string
  ---@param group string
  ---@param opts? { queue: string?, limit: integer? }
  ---@return table[]? letters
  ---@return regolith.Err? err
  function Orm:event_letters(stream, group, opts)
    check_stream(stream, 2)
    check_group(group, 2)
    opts = options.require("event_letters", opts, LIST)
    local list, fault = redis(self, opts.queue, "XRANGE", group_key(self, "ed", stream, group), "-", "+", "COUNT",
      opts.limit or 100)
    if not list then return errors.results(fault) end
    for i, entry in ipairs(list) do list[i] = letter_of(entry) end
    return list
  end

  --- Has a group handle a letter (or all of them) again: how many.
  ---@param stream string
  ---@param group string
  ---@param letter string|"all"
  ---@param opts? { queue: string? }
  ---@return number? retried
  ---@return regolith.Err? err
  function Orm:event_retry(stream, group, letter, opts)
    check_stream(stream, 2)
    check_group(group, 2)
    check_letter("event_retry", letter, 2)
    local queue = options.require("event_retry", opts, PUBLISH).queue
    local n, fault = each_letter(self, stream, group, letter, queue, function(id)
      return redis(self, queue, "EVAL", RETRY, 2, group_key(self, "ed", stream, group),
        group_key(self, "er", stream, group), id)
    end)
    if not n then return errors.results(fault) end
    return n
  end

  --- Gives a letter (or all of them) up: how many.
  ---@param stream string
  ---@param group string
  ---@param letter string|"all"
  ---@param opts? { queue: string? }
  ---@return number? dropped
  ---@return regolith.Err? err
  function Orm:event_drop(stream, group, letter, opts)
    check_stream(stream, 2)
    check_group(group, 2)
    check_letter("event_drop", letter, 2)
    local queue = options.require("event_drop", opts, PUBLISH).queue
    local n, fault = each_letter(self, stream, group, letter, queue, function(id)
      return redis(self, queue, "XDEL", group_key(self, "ed", stream, group), id)
    end)
    if not n then return errors.results(fault) end
    return n
  end

  --- Removes events that every group has done with and that are older than keep_s; subscribers do so by
  --- themselves. A stream without a group is left alone. How many went.
  ---@param stream string
  ---@param opts? { queue: string?, keep_s: number? }
  ---@return number? removed
  ---@return regolith.Err? err
  function Orm:trim_stream(stream, opts)
    check_stream(stream, 2)
    opts = options.require("trim_stream", opts, TRIMMING)
    local n, fault = redis(self, opts.queue, "EVAL", TRIM, 1, stream_key(self, stream),
      math.floor((opts.keep_s or 0) * 1000))
    if not n then return errors.results(fault) end
    return n
  end
end

return M
