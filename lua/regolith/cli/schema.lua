-- SPDX-License-Identifier: MIT
-- regolith schema diff|apply

local app = require "regolith.cli.app"
local out = require "regolith.cli.out"

local M = {}

local function show(change)
  out.line("-- %s: %s%s", change.pool, change.reason or change.kind, change.safe and "" or " (destructive)")
  out.line("%s;", change.sql)
end

local function diff(orm, args)
  local changes, fault = orm:schema_diff()
  if not changes then return nil, fault end
  for _, change in ipairs(changes) do show(change) end
  if #changes == 0 then out.line "-- the databases are as the entities say" end
  return args.check and #changes > 0 and 1 or 0
end

local function apply(orm, args)
  local result, fault = orm:schema_apply {
    destructive = args.destructive or false,
    progress = function(change, err, i, n)
      out.progress(string.format("%s %d of %d: %s %s on %s", err and "failed" or "applied", i, n, change.kind,
        change.table, change.pool))
    end,
  }
  out.finish()
  if not result then return nil, fault end
  for _, change in ipairs(result.skipped) do show(change) end
  out.line("%d applied, %d left out%s", #result.applied, #result.skipped,
    #result.skipped > 0 and " (destructive; see --destructive)" or "")
  return 0
end

function M.run(args)
  local action = args.action == "diff" and diff or apply
  return app.with(args.app, function(orm) return action(orm, args) end)
end

return M
