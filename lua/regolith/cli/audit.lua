-- SPDX-License-Identifier: MIT
-- regolith audit

local app = require "regolith.cli.app"
local out = require "regolith.cli.out"
local suggest = require "regolith.suggest"

local M = {}

local function check(orm, names)
  for _, name in ipairs(names) do
    if not orm._by_name[name] then
      return string.format("there is no entity '%s'%s", name, suggest.hint(name, orm._by_name))
    end
  end
end

local function audit(orm, args)
  local wrong = check(orm, args.entities)
  if wrong then return 1, wrong end
  local total = { rows = 0, compared = 0, mismatches = {} }
  local names = #args.entities > 0 and args.entities or { false }
  for _, name in ipairs(names) do
    local result, fault = orm:audit {
      entity = name or nil, all = args.all or nil, sample = args.sample, older_than_ms = args.older_than,
      progress = function(now)
        out.tick(string.format("%.0f rows, %d differ", total.rows + now.rows, #total.mismatches + #now.mismatches))
      end,
    }
    if not result then return nil, fault end
    total.rows, total.compared = total.rows + result.rows, total.compared + result.compared
    for _, row in ipairs(result.mismatches) do table.insert(total.mismatches, row) end
  end
  out.finish()
  if #total.mismatches > 0 then out.table({ "entity", "id", "tier", "what", "problem" }, total.mismatches) end
  out.line("%.0f rows, %.0f answers of caches compared, %d differ", total.rows, total.compared, #total.mismatches)
  return #total.mismatches > 0 and 1 or 0
end

function M.run(args)
  return app.with(args.app, function(orm) return audit(orm, args) end)
end

return M
