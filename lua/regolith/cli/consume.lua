-- SPDX-License-Identifier: MIT
-- regolith consume: queued writes, and the application's subscribers and durable callbacks, taking turns.

local app = require "regolith.cli.app"
local events = require "regolith.events"
local loop = require "regolith.loop"
local out = require "regolith.cli.out"

local M = {}

--- Seconds between two plain lines.
local PLAIN_EVERY_S = 10
--- Longest wait for the first of something to do: alone, beside others, and when the end is awaited.
local ALONE_S, TOGETHER_S, DRAIN_S = 1, 0.2, 0.1

--- A part of the loop, and what it says of itself.
---@class regolith.cli.Part : regolith.LoopPart
---@field summary fun(): string
---@field close fun()
---@field busy? fun(): boolean something waits for its next try

local function queue_part(orm, args)
  local lease
  if args.until_empty then lease = false end -- it is emptied, whoever holds what
  local consumer, fault = orm:consumer {
    queue = args.queue_name, max_batch = args.max_batch, parallel = args.parallel,
    lease = lease,
    on_dead = function(n)
      out.error(string.format("%.0f operation%s became %s", n, n == 1 and "" or "s",
        n == 1 and "a dead letter" or "dead letters"))
    end,
  }
  if not consumer then return nil, fault end
  return {
    name = "queue", waits = true,
    step = function(wait_s) return consumer:step(wait_s) end,
    close = function() consumer:close() end,
    summary = function()
      local stats = consumer:stats()
      return string.format("%.0f applied, %.0f dead letters, %.0f waiting", stats.applied, stats.dead, stats.lag)
    end,
  }
end

local function callbacks_part(orm)
  local worker = orm:callback_worker {
    on_dead = function(callback)
      out.error(string.format("callback %.0f (%s) is dead", callback.number, callback.name))
    end,
    on_error_report = function(err) out.error(tostring(err)) end,
  }
  return {
    name = "callbacks",
    step = function() return worker:step() end,
    close = function() worker:close() end,
    summary = function()
      local stats = worker:stats()
      return string.format("%.0f callbacks, %.0f of them dead", stats.done + stats.dead, stats.dead)
    end,
  }
end

local function subscriber_parts(orm, parts)
  local list = events.configured(orm, {
    on_dead = function(event)
      out.error(string.format("event %s of %s is a letter of %s: %s", event.id, event.stream, event.group, event.error))
    end,
    on_error_report = function(err) out.error(tostring(err)) end,
  })
  for _, subscriber in ipairs(list) do
    parts[#parts + 1] = {
      name = "events",
      step = function() return subscriber:step() end,
      busy = function() return subscriber:busy() end,
      close = function() subscriber:close() end,
      summary = function()
        local stats = subscriber:stats()
        return string.format("%s: %.0f events, %.0f dead", subscriber:name(), stats.handled + stats.dead, stats.dead)
      end,
    }
  end
end

--- Which parts there are: what the command was told, else what the application has.
local function parts_of(orm, args)
  local parts = {}
  local function wanted(name, there) return args.only == name or (not args.only and there) end
  if wanted("queue", orm:has_redis()) then
    local part, fault = queue_part(orm, args)
    if not part then return nil, fault end
    parts[#parts + 1] = part
  end
  if wanted("events", true) then subscriber_parts(orm, parts) end
  if wanted("callbacks", orm:has_callbacks()) then parts[#parts + 1] = callbacks_part(orm) end
  if #parts == 0 then
    return nil, "nothing to do: " .. (args.only and "the application has no subscribers"
      or "neither a queue (no Redis), nor subscribers, nor callbacks")
  end
  return parts
end

local function is_busy(parts)
  for _, part in ipairs(parts) do
    if part.busy and part.busy() then return true end
  end
  return false
end

local function summary(parts)
  local texts = {}
  for i, part in ipairs(parts) do texts[i] = part.summary() end
  return table.concat(texts, "; ")
end

--- Tells how far it is: a moving line on a terminal, now and then a plain one elsewhere.
local function reporter(parts)
  local last_time, last_text = os.time(), ""
  return function(done)
    local text = summary(parts)
    out.tick(text)
    if done > 0 and text ~= last_text and os.difftime(os.time(), last_time) >= PLAIN_EVERY_S then
      out.progress(text)
      last_time, last_text = os.time(), text
    end
  end
end

--- A paused queue looks like an empty one to who waits: what to say of it, and how much is in it.
local function paused(orm, args)
  local waiting, text = 0, nil
  for _, queue in ipairs(orm:has_redis() and orm:queues() or {}) do
    if queue.queue == args.queue_name and queue.paused then
      waiting = waiting + queue.length
      text = string.format("the queue '%s' is paused, and %.0f wait in it: 'regolith queue resume' has it go on",
        queue.queue, waiting)
    end
  end
  return text, waiting
end

--- Has what was applied left events that the consumer is still to move to their streams?
local function has_events(orm, args)
  if not orm:has_redis() or (args.only or "queue") ~= "queue" then return false end
  local session, found = orm:session(), false
  for _, pool in ipairs(args.queue_name == "all" and orm._pools or { args.queue_name }) do
    local rows = session:query { "SELECT `number` FROM `_regolith_outbox` LIMIT 1", pool = pool }
    found = found or (rows ~= nil and #rows > 0) -- without the table there are none
  end
  session:close()
  return found
end

local function consume(orm, args)
  local parts, fault = parts_of(orm, args)
  if not parts then return nil, fault end
  local stands, waiting = paused(orm, args)
  if stands and args.until_empty and waiting > 0 then return nil, stands end
  if stands then out.error(stands) end
  local self, failed, report = {}, false, reporter(parts)
  local ok
  ok, fault = loop.run(self, parts, {
    signals = true, idle_s = args.until_empty and DRAIN_S or #parts > 1 and TOGETHER_S or ALONE_S,
    on_step = function(done, idle)
      report(done)
      local empty = args.until_empty and done == 0 and idle and not is_busy(parts)
      if empty and not has_events(orm, args) then self._stopped = true end
    end,
  }, function(err)
    out.error(tostring(err))
    if args.stop_on_error then failed, self._stopped = true, true end
  end)
  out.finish()
  out.line("%s", summary(parts))
  for _, part in ipairs(parts) do part.close() end
  if failed then return 1 end -- reported already
  return ok and 0 or nil, fault
end

function M.run(args)
  return app.with(args.app, function(orm)
    local wanted = orm:has_redis() and (args.only or "queue") == "queue"
    local unknown = wanted and app.no_queue(orm, args.queue_name)
    if unknown then return 2, unknown end
    return consume(orm, args)
  end)
end

return M
