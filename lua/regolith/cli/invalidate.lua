-- SPDX-License-Identifier: MIT
-- regolith invalidate

local app = require "regolith.cli.app"
local out = require "regolith.cli.out"
local suggest = require "regolith.suggest"

local M = {}

local function invalidate(orm, args)
  if not orm._by_name[args.entity] then
    return 1, string.format("there is no entity '%s'%s", args.entity, suggest.hint(args.entity, orm._by_name))
  end
  local dropped, fault = orm:invalidate(args.entity, #args.ids > 0 and args.ids or nil)
  if not dropped then return nil, fault end
  out.line("%.0f keys dropped", dropped)
  return 0
end

function M.run(args)
  return app.with(args.app, function(orm) return invalidate(orm, args) end)
end

return M
