-- SPDX-License-Identifier: MIT
-- Events on named streams of Redis: changes of entities, which come through the outbox of the transaction
-- that made them, and whatever the application publishes. Groups of subscribers share a stream: each group
-- gets every event at least once. Here: publishing, and looking after streams and letters.

local errors = require "regolith.err"
local native = require "regolith.native"
local options = require "regolith.options"
local streams = require "regolith.events.stream"
local subscribers = require "regolith.events.subscriber"

local C, err = native.C, native.err

local M = {}

--- KEYS stream. ARGV body, entries and seconds that are kept when no group reads it.
local PUBLISH_SCRIPT = [[
local id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
if #redis.call('XINFO', 'GROUPS', KEYS[1]) == 0 then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
  local oldest = math.max(0, redis.call('TIME')[1] - ARGV[3])
  redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', oldest * 1000))
end
return id]]

--- KEYS letters, retried. ARGV letter. A letter goes back to its group's own stream.
local RETRY = [[
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not e then return 0 end
local v = {}
for i = 1, #e[2], 2 do v[e[2][i] ] = e[2][i + 1] end
redis.call('XADD', KEYS[2], '*', 'id', v.id or v.entry, 'body', v.body or 'null')
redis.call('XDEL', KEYS[1], ARGV[1])
return 1]]

--- KEYS stream, retried, letters. ARGV group.
local FORGET = [[
redis.call('DEL', KEYS[2], KEYS[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])]]

--- How much a stream that no group reads keeps, where its queue's settings do not say (the engine's own).
local BOUNDS = { max_len = 1000000, keep_s = 7 * 86400 }

--- What the settings of queues say of it, by queue.
---@param queues { name: string, opts: table }[]
---@return table<string, { max_len: integer, keep_s: integer }>
function M.bounds(queues)
  local bounds = {}
  for _, queue in ipairs(queues) do
    bounds[queue.name] = { max_len = queue.opts.events_max_len or BOUNDS.max_len,
      keep_s = queue.opts.events_keep_s or BOUNDS.keep_s }
  end
  return bounds
end

local PUBLISH = { queue = options.name }
local LIST = { queue = options.name, limit = options.integer(1, 1000000) }
local TRIMMING = { queue = options.name, keep_s = options.not_negative }

local function group_stats(orm, queue, stream, list)
  local groups = {}
  for i, entry in ipairs(list) do
    local v = streams.fields(entry)
    local dead, fault = streams.redis(orm, queue, "XLEN", streams.group_key(orm, "ed", stream, v.name))
    if not dead then return nil, fault end
    groups[i] = { name = v.name, subscribers = v.consumers, pending = v.pending, lag = v.lag or nil, dead = dead }
  end
  return groups
end

--- The age in ms of a stream's oldest entry.
local function age_of(orm, queue, key)
  local first, fault = streams.redis(orm, queue, "XRANGE", key, "-", "+", "COUNT", 1)
  if not first then return nil, fault end
  if not first[1] then return 0 end
  local time
  time, fault = streams.redis(orm, queue, "TIME")
  if not time then return nil, fault end
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  return math.max(0, now - tonumber(first[1][1]:match "^%d+"))
end

local function letter_of(entry)
  local fields = streams.fields(entry[2])
  local body = native.json_decode(fields.body or "null")
  if body == native.null then body = nil end
  return { letter = entry[1], id = fields.id or fields.entry, entry = fields.entry, error = fields.error,
    tries = tonumber(fields.tries), body = body }
end

local function check_letter(what, letter, level)
  if type(letter) ~= "string" or not (letter == "all" or letter:match "^%d+%-%d+$") then
    error(what .. " takes the name of a letter, or \"all\"", level + 1)
  end
end

--- The names of a letter, or of all there are.
local function names_of(orm, queue, key, letter)
  if letter ~= "all" then return { letter } end
  local list, fault = streams.redis(orm, queue, "XRANGE", key, "-", "+")
  if not list then return nil, fault end
  for i, entry in ipairs(list) do list[i] = entry[1] end
  return list
end

--- Does something to a letter of a group, or to all of them, as `what` is to: to how many. fn gets the queue,
--- the key of the letters and the name of one. Called last, so that who is to blame is its caller's caller.
local function each_letter(orm, what, stream, group, letter, opts, fn)
  streams.check_stream(stream, 2)
  streams.check_group(group, 2)
  check_letter(what, letter, 2)
  local queue = options.require(what, opts, PUBLISH).queue
  local key, n = streams.group_key(orm, "ed", stream, group), 0
  local names, fault = names_of(orm, queue, key, letter)
  if not names then return errors.results(fault) end
  for _, name in ipairs(names) do
    local done
    done, fault = fn(queue, key, name)
    if not done then return errors.results(fault) end
    n = n + done
  end
  return n
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
      list[#list + 1] = subscribers.new(orm, stream, opts)
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
    streams.check_stream(stream, 2)
    opts = options.require("publish", opts, PUBLISH)
    local text, why = native.json_encode(body == nil and native.null or body)
    if not text then error("the body of an event is no JSON: " .. why, 2) end
    local bounds = self._event_bounds[opts.queue or "default"] or BOUNDS
    local id, fault = streams.redis(self, opts.queue, "EVAL", PUBLISH_SCRIPT, 1, streams.key(self, stream), text,
      bounds.max_len, bounds.keep_s)
    if not id then return errors.results(fault) end
    return id
  end

  --- One of a group that handles a stream's events.
  ---@param stream string
  ---@param opts { group: string, handler: fun(event: regolith.Event) }
  ---@return regolith.Subscriber
  function Orm:subscriber(stream, opts) return (subscribers.new(self, stream, opts, 3)) end

  --- Moves events that wait in the outbox to their streams, as every consumer does: how many.
  ---@param queue? string ["default"]
  ---@return number? moved
  ---@return regolith.Err? err
  function Orm:relay(queue)
    local op, fault = self:_do(C.rg_op_relay(self._engine, options.queue("relay", queue), err))
    if not op then return errors.results(fault) end
    return C.rg_op_number(op)
  end

  --- The stream on which a queue's dead letters are announced: { queue, number, id, operation, state,
  --- entity, entity_id, errno, sqlstate, error }.
  ---@param queue? string ["default"]
  ---@return string
  function Orm.dead_letter_stream(_, queue) return "dead-letters." .. options.queue("dead_letter_stream", queue) end

  --- The Redis key of a stream, for who reads it with other means: fields `id` and `body` (JSON).
  ---@param stream string
  ---@return string
  function Orm:stream_key(stream)
    streams.check_stream(stream, 2)
    return streams.key(self, stream)
  end

  --- length, oldest_ms, and groups: name, subscribers, pending, lag, dead.
  ---@param stream string
  ---@param opts? { queue: string? }
  ---@return table? stats
  ---@return regolith.Err? err
  function Orm:stream_stats(stream, opts)
    streams.check_stream(stream, 2)
    local queue = options.require("stream_stats", opts, PUBLISH).queue
    local key = streams.key(self, stream)
    local stats = { length = 0, oldest_ms = 0, groups = {} }
    local fault
    stats.length, fault = streams.redis(self, queue, "XLEN", key)
    local list
    if stats.length then
      list, fault = streams.redis(self, queue, "XINFO", "GROUPS", key)
      if not list and streams.is_error(fault, "no such key") then return stats end
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
    streams.check_stream(stream, 2)
    streams.check_group(group, 2)
    opts = options.require("event_letters", opts, LIST)
    local list, fault = streams.redis(self, opts.queue, "XRANGE", streams.group_key(self, "ed", stream, group), "-",
      "+", "COUNT", opts.limit or 100)
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
    return each_letter(self, "event_retry", stream, group, letter, opts, function(queue, key, name)
      return streams.redis(self, queue, "EVAL", RETRY, 2, key, streams.group_key(self, "er", stream, group), name)
    end)
  end

  --- Gives a letter (or all of them) up: how many.
  ---@param stream string
  ---@param group string
  ---@param letter string|"all"
  ---@param opts? { queue: string? }
  ---@return number? dropped
  ---@return regolith.Err? err
  function Orm:event_drop(stream, group, letter, opts)
    return each_letter(self, "event_drop", stream, group, letter, opts, function(queue, key, name)
      return streams.redis(self, queue, "XDEL", key, name)
    end)
  end

  --- Has a stream owe a group nothing any more, for good: what it has not handled, its letters, and how far it is.
  --- A stream keeps what a group has not had, so one that nobody is of any longer has it grow for ever. When a
  --- subscriber of the group comes after all, it begins anew.
  ---@param stream string
  ---@param group string
  ---@param opts? { queue: string? }
  ---@return boolean? there was such a group
  ---@return regolith.Err? err
  function Orm:forget_group(stream, group, opts)
    streams.check_stream(stream, 2)
    streams.check_group(group, 2)
    local queue = options.require("forget_group", opts, PUBLISH).queue
    local n, fault = streams.redis(self, queue, "EVAL", FORGET, 3, streams.key(self, stream),
      streams.group_key(self, "er", stream, group), streams.group_key(self, "ed", stream, group), group)
    if not n then return errors.results(fault) end
    return n == 1
  end

  --- Removes events that every group has done with and that are older than keep_s; subscribers do so by
  --- themselves. A stream without a group is left alone. How many went.
  ---@param stream string
  ---@param opts? { queue: string?, keep_s: number? }
  ---@return number? removed
  ---@return regolith.Err? err
  function Orm:trim_stream(stream, opts)
    streams.check_stream(stream, 2)
    opts = options.require("trim_stream", opts, TRIMMING)
    local n, fault = streams.trim(self, opts.queue, streams.key(self, stream), opts.keep_s or 0)
    if not n then return errors.results(fault) end
    return n
  end
end

return M
