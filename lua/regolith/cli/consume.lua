-- SPDX-License-Identifier: MIT
-- regolith consume

local app = require "regolith.cli.app"
local out = require "regolith.cli.out"

local M = {}

--- Seconds between two plain lines.
local PLAIN_EVERY_S = 10

local function summary(stats)
  return string.format("%.0f applied, %.0f dead letters, %.0f waiting", stats.applied, stats.dead, stats.lag)
end

--- Tells how far it is: a moving line on a terminal, now and then a plain one elsewhere.
local function reporter(consumer)
  local last_time, last_text = os.time(), ""
  return function(applied)
    local text = summary(consumer:stats())
    out.tick(text)
    if applied > 0 and text ~= last_text and os.difftime(os.time(), last_time) >= PLAIN_EVERY_S then
      out.progress(text)
      last_time, last_text = os.time(), text
    end
  end
end

local function consume(orm, args)
  local consumer, fault = orm:consumer {
    queue = args.queue_name, max_batch = args.max_batch,
    on_error = args.stop_on_error and "stop" or "wait",
    on_dead = function(n) out.error(string.format("%.0f operations became dead letters", n)) end,
    on_error_report = function(err) out.error(tostring(err)) end,
  }
  if not consumer then return nil, fault end
  local report = reporter(consumer)
  local ok
  ok, fault = consumer:run {
    signals = true,
    max_wait_s = args.until_empty and 0.1 or 1,
    on_step = function(applied)
      report(applied)
      if args.until_empty and applied == 0 then consumer:stop() end
    end,
  }
  out.finish()
  out.line("%s", summary(consumer:stats()))
  consumer:close()
  if not ok and args.stop_on_error then return 1 end -- reported already
  return ok and 0 or nil, fault
end

function M.run(args)
  return app.with(args.app, function(orm) return consume(orm, args) end)
end

return M
