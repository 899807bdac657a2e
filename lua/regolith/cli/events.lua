-- SPDX-License-Identifier: MIT
-- regolith events status|errors|retry|drop|trim|forget

local app = require "regolith.cli.app"
local native = require "regolith.native"
local out = require "regolith.cli.out"

local M = {}

local ACTIONS = {}

function ACTIONS.status(orm, args)
  local stats, fault = orm:stream_stats(args.stream, { queue = args.queue_name })
  if not stats then return nil, fault end
  out.line("%.0f events, the oldest %.0f ms old", stats.length, stats.oldest_ms)
  if #stats.groups > 0 then out.table({ "name", "subscribers", "pending", "lag", "dead" }, stats.groups) end
  return 0
end

function ACTIONS.errors(orm, args)
  local letters, fault = orm:event_letters(args.stream, args.group, { queue = args.queue_name, limit = args.limit })
  if not letters then return nil, fault end
  if #letters == 0 then
    out.line "no letters"
  else
    for _, letter in ipairs(letters) do letter.body = native.json_encode(letter.body) end
    out.table({ "letter", "id", "tries", "error", "body" }, letters)
  end
  return 0
end

local function done(n, fault, what)
  if not n then return nil, fault end
  out.line("%.0f %s", n, what)
  return 0
end

function ACTIONS.retry(orm, args)
  local n, fault = orm:event_retry(args.stream, args.group, args.letter, { queue = args.queue_name })
  return done(n, fault, "will be handled again")
end

function ACTIONS.drop(orm, args)
  local n, fault = orm:event_drop(args.stream, args.group, args.letter, { queue = args.queue_name })
  return done(n, fault, "dropped")
end

function ACTIONS.trim(orm, args)
  local n, fault = orm:trim_stream(args.stream, { queue = args.queue_name, keep_s = args.keep })
  return done(n, fault, "removed")
end

function ACTIONS.forget(orm, args)
  local there, fault = orm:forget_group(args.stream, args.group, { queue = args.queue_name })
  if there == nil then return nil, fault end
  if not there then return 1, string.format("the stream '%s' has no group '%s'", args.stream, args.group) end
  out.line("the stream '%s' owes the group '%s' nothing any more", args.stream, args.group)
  return 0
end

function M.run(args)
  return app.with(args.app, function(orm) return ACTIONS[args.action](orm, args) end)
end

return M
