-- SPDX-License-Identifier: MIT
-- regolith stats

local app = require "regolith.cli.app"
local out = require "regolith.cli.out"

local M = {}

local function stats(orm, args)
  local pools, fault = orm:health()
  if not pools then return nil, fault end
  if args.metrics then
    out.write(orm:metrics())
    return 0
  end
  local well = true
  for _, pool in ipairs(pools) do
    well = well and pool.ok
    pool.state = pool.ok and "ok" or "DOWN"
  end
  out.table({ "kind", "name", "state", "busy", "idle", "error" }, pools)
  local queues
  queues, fault = orm:queues()
  if not queues then return 1, fault end
  out.line ""
  out.table({ "queue", "length", "oldest_ms", "applied", "dead" }, queues)
  return well and 0 or 1
end

function M.run(args)
  return app.with(args.app, function(orm) return stats(orm, args) end)
end

return M
