-- SPDX-License-Identifier: MIT
-- regolith callbacks status|list|errors|show|retry|drop

local app = require "regolith.cli.app"
local out = require "regolith.cli.out"

local M = {}

local ACTIONS = {}
local MEMBERS = { "number", "id", "name", "key", "state", "tries", "at", "due", "error", "payload" }

function ACTIONS.status(orm, args)
  local stats, fault = orm:callback_stats { pool = args.pool }
  if not stats then return nil, fault end
  out.line("%.0f waiting (oldest %.0f s), %.0f dead", stats.waiting, stats.oldest_s, stats.dead)
  return 0
end

local function list(orm, args, state)
  local rows, fault = orm:callbacks { state = state, limit = args.limit, pool = args.pool }
  if not rows then return nil, fault end
  if #rows == 0 then
    out.line "no callbacks"
  else
    out.table({ "number", "at", "name", "key", "state", "tries", "due", "error" }, rows)
  end
  return 0
end

function ACTIONS.list(orm, args) return list(orm, args, nil) end
function ACTIONS.errors(orm, args) return list(orm, args, "dead") end

function ACTIONS.show(orm, args)
  local row, fault = orm:callback_show(args.number, { pool = args.pool })
  if fault then return nil, fault end
  if not row then return 1, string.format("there is no callback %d", args.number) end
  for _, name in ipairs(MEMBERS) do
    if row[name] ~= nil then out.line("%-8s %s", name, tostring(row[name])) end
  end
  return 0
end

local function done(n, fault, what, number)
  if not n then return nil, fault end
  out.line("%.0f %s", n, what)
  return (n > 0 or number == "all") and 0 or 1 -- none is all that there were
end

function ACTIONS.retry(orm, args)
  local n, fault = orm:callback_retry(args.number, { pool = args.pool })
  return done(n, fault, "will run again", args.number)
end

function ACTIONS.drop(orm, args)
  local n, fault = orm:callback_drop(args.number, { pool = args.pool })
  return done(n, fault, "dropped", args.number)
end

function M.run(args)
  if not app.read_number(args, args.action ~= "show") then
    return 2, string.format("'%s' is no number of a callback", args.number)
  end
  return app.with(args.app, function(orm) return ACTIONS[args.action](orm, args) end)
end

return M
