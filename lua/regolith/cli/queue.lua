-- SPDX-License-Identifier: MIT
-- regolith queue status|pause|resume|replay|errors|show|edit|retry|drop|delayed

local app = require "regolith.cli.app"
local native = require "regolith.native"
local out = require "regolith.cli.out"

local M = {}

local ACTIONS = {}
local MEMBERS = {
  "number", "id", "entity", "entity_id", "operation", "errno", "sqlstate", "error", "tries", "at", "state",
}

function ACTIONS.status(orm)
  local queues, fault = orm:queues()
  if not queues then return nil, fault end
  for _, queue in ipairs(queues) do queue.state = queue.paused and "paused" or "runs" end
  out.table({ "queue", "length", "oldest_ms", "applied", "dead", "state", "ledger" }, queues)
  return 0
end

function ACTIONS.pause(orm, args)
  local ok, fault = orm:pause(args.queue_name)
  if not ok then return nil, fault end
  out.line("the queue '%s' is paused", args.queue_name)
  return 0
end

function ACTIONS.resume(orm, args)
  local ok, fault = orm:resume(args.queue_name)
  if not ok then return nil, fault end
  out.line("the queue '%s' goes on", args.queue_name)
  return 0
end

function ACTIONS.replay(orm, args)
  local n, fault = orm:replay(tonumber(args.from) or args.from, args.queue_name)
  if not n then return nil, fault end
  out.line("%.0f partitions go back and are applied again", n)
  return 0
end

function ACTIONS.errors(orm, args)
  local letters, fault = orm:dead_letters(args.queue_name, args.limit)
  if not letters then return nil, fault end
  if #letters == 0 then
    out.line "no dead letters"
  else
    out.table({ "number", "at", "operation", "entity", "entity_id", "errno", "tries", "error" }, letters)
  end
  return 0
end

local function show_values(values)
  local names = {}
  for name in pairs(values) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do out.line("  %s = %s", name, tostring(values[name])) end
end

function ACTIONS.show(orm, args)
  local letter, fault = orm:dead_letter(args.number, args.queue_name)
  if fault then return nil, fault end
  if not letter then
    return 1, string.format("there is no dead letter %d in the queue '%s'", args.number, args.queue_name)
  end
  for _, name in ipairs(MEMBERS) do
    if letter[name] ~= nil then out.line("%-10s %s", name, tostring(letter[name])) end
  end
  show_values(letter.values)
  if letter.current then
    out.line "the row as it was met:"
    show_values(letter.current)
  end
  return 0
end

local function tell_left(left) out.line("%.0f dead letter%s left", left, left == 1 and "" or "s") end

function ACTIONS.retry(orm, args)
  local left, fault = orm:retry(args.number, args.queue_name)
  if not left then return nil, fault end
  tell_left(left)
  if args.number == "all" then return left > 0 and 1 or 0 end
  local letter = left > 0 and orm:dead_letter(args.number, args.queue_name)
  if not letter then return 0 end
  return 1, string.format("dead letter %d failed again: %s", args.number, letter.error)
end

--- "field=text" options as values; nil and the word that is none.
local function read_values(list)
  local values
  for _, given in ipairs(list or {}) do
    local word = type(given) == "table" and given[1] or given
    local path, text = word:match "^([^=]+)=(.*)$"
    if not path then return nil, word end
    values = values or {}
    values[path] = text == "" and native.null or text
  end
  return values
end

function ACTIONS.edit(orm, args)
  local values, word = read_values(args.set)
  if word then return 2, string.format("'%s' is not field=text", word) end
  if not (values or args.operation or args.force) then
    return 2, "nothing is to be changed: give --set, --operation or --force"
  end
  local ok, fault = orm:edit(args.number, { values = values, operation = args.operation, force = args.force },
    args.queue_name)
  if not ok then return nil, fault end
  out.line "changed; retry applies it"
  return 0
end

function ACTIONS.drop(orm, args)
  local left, fault = orm:drop(args.number, args.queue_name)
  if not left then return nil, fault end
  tell_left(left)
  return 0
end

local DELAYED = {}

function DELAYED.list(orm, args)
  local flushes, fault = orm:delayed(args.queue_name, args.limit)
  if not flushes then return nil, fault end
  if #flushes == 0 then
    out.line "nothing waits for its time"
    return 0
  end
  local rows = {}
  for _, flush in ipairs(flushes) do
    for i, op in ipairs(flush.operations) do
      rows[#rows + 1] = { id = i == 1 and flush.id or "", operation = op.operation, entity = op.entity,
        due = i == 1 and os.date("!%Y-%m-%d %H:%M:%SZ", math.floor(flush.due)) or "", entity_id = op.entity_id }
    end
  end
  out.table({ "id", "due", "operation", "entity", "entity_id" }, rows)
  return 0
end

function DELAYED.cancel(orm, args)
  if args.id ~= "all" and not args.id:match "^%x+$" then
    return 2, string.format("'%s' is no id of a delayed flush", args.id)
  end
  local n, fault = orm:cancel_delayed(args.id, args.queue_name)
  if not n then return nil, fault end
  out.line("%.0f cancelled", n)
  return 0
end

function ACTIONS.delayed(orm, args) return DELAYED[args.what](orm, args) end

function M.run(args)
  local all = args.action ~= "show" and args.action ~= "edit"
  if not app.read_number(args, all) then
    return 2, string.format("'%s' is no number of a dead letter", args.number)
  end
  return app.with(args.app, function(orm)
    local unknown = args.queue_name and app.no_queue(orm, args.queue_name)
    if unknown then return 2, unknown end
    return ACTIONS[args.action](orm, args)
  end)
end

return M
