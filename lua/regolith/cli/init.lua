-- SPDX-License-Identifier: MIT
-- The command line: what there is to say, and which file does it. Exit codes: 0 done, 1 failed,
-- 2 wrong usage.

local out = require "regolith.cli.out"

local M = {}

local OK, FAILED, USAGE = 0, 1, 2

local function add_app(command)
  command:argument("app", "a Lua file that returns the orm, its configuration, or a function giving either")
end

local function add_queue_option(command)
  command:option("-q --queue", "queue (MySQL pool)"):target "queue_name":default "default"
end

local function to_number(text)
  local n = tonumber(text)
  if n then return n end
  return nil, string.format("'%s' is not a number", text)
end

--- The parser of the innermost command that the words name, whose usage is what helps.
local function innermost(parser, words)
  for _, word in ipairs(words) do
    for _, command in ipairs(parser._commands) do
      if command._name == word then
        parser = command
        break
      end
    end
  end
  return parser
end

local function schema_commands(parser)
  local schema = parser:command("schema", "compare the databases with the entities")
  schema:command_target "action"
  local diff = schema:command("diff", "show the statements that are needed")
  diff:flag("--check", "exit with 1 when there are any")
  add_app(diff)
  local apply = schema:command("apply", "run the statements that lose nothing")
  apply:flag("--destructive", "run the others as well")
  add_app(apply)
end

local function queue_commands(parser)
  local queue = parser:command("queue", "look after queued writes")
  queue:command_target "action"
  local function action(name, text, number)
    local command = queue:command(name, text)
    add_app(command)
    if number then command:argument("number", number) end
    if name ~= "status" then add_queue_option(command) end
    return command
  end
  action("status", "length, age and position of each queue")
  action("pause", "have all consumers leave a queue alone")
  action("resume", "let them go on")
  action("replay", "apply again what was queued since then"):argument("from", "seconds since 1970, or a stream id")
  action("errors", "list dead letters"):option("-n --limit", "at most so many"):default "100":convert(to_number)
  action("show", "show a dead letter with its values", "number of the dead letter")
  action("retry", "apply a dead letter again", "number of the dead letter, or 'all'")
  local edit = action("edit", "change a dead letter before it is applied again", "number of the dead letter")
  edit:option("--set", "a field's new value, as field=text (field= for NULL)"):count "*":args(1)
  edit:option("--operation", "insert, update or delete"):choices { "insert", "update", "delete" }
  edit:flag("--force", "whatever version the row has now")
  action("drop", "give a dead letter up", "number of the dead letter, or 'all'")
  local delayed = queue:command("delayed", "look after flushes that wait for their time")
  delayed:command_target "what"
  local list = delayed:command("list", "list them, the next one first")
  local cancel = delayed:command("cancel", "give one up before its time")
  for _, command in ipairs { list, cancel } do
    add_app(command)
    add_queue_option(command)
  end
  list:option("-n --limit", "at most so many"):default "100":convert(to_number)
  cancel:argument("id", "id of the delayed flush, or 'all'")
end

local function callback_commands(parser)
  local callbacks = parser:command("callbacks", "look after durable callbacks")
  callbacks:command_target "action"
  local function action(name, text, number)
    local command = callbacks:command(name, text)
    add_app(command)
    if number then command:argument("number", number) end
    command:option("--pool", "MySQL pool"):default "default"
    return command
  end
  action("status", "how many wait and are dead")
  for name, text in pairs { list = "list them, oldest first", errors = "list the dead ones" } do
    action(name, text):option("-n --limit", "at most so many"):default "100":convert(to_number)
  end
  action("show", "show one with its payload", "number of the callback")
  action("retry", "have a dead one run again", "number of the callback, or 'all'")
  action("drop", "give a dead one up", "number of the callback, or 'all'")
end

local function event_commands(parser)
  local events = parser:command("events", "look after streams of events")
  events:command_target "action"
  local function action(name, text, more)
    local command = events:command(name, text)
    add_app(command)
    command:argument("stream", "name of the stream")
    for _, argument in ipairs(more or {}) do command:argument(argument[1], argument[2]) end
    add_queue_option(command)
    return command
  end
  local group, letter = { "group", "group of subscribers" }, { "letter", "name of the letter, or 'all'" }
  action("status", "length, and each group: pending, lag, letters")
  action("errors", "list what a group could not handle", { group }):option("-n --limit", "at most so many")
    :default "100":convert(to_number)
  action("retry", "have a letter handled again", { group, letter })
  action("drop", "give a letter up", { group, letter })
  action("forget", "owe a group nothing any more, with its letters", { group })
  action("trim", "remove what every group has done with"):option("--keep", "seconds to keep"):default "0"
    :convert(to_number)
end

local function build_parser()
  local argparse = require "argparse"
  local parser = argparse("regolith", "An ORM for Lua on MySQL and Redis.")
  parser:command_target "command"
  parser:flag("--version", "print the version"):action(function()
    io.stdout:write("regolith ", require("regolith")._VERSION, "\n")
    os.exit(OK, true)
  end)
  schema_commands(parser)
  local consume = parser:command("consume",
    "apply queued writes, run subscribers and callbacks until SIGINT or SIGTERM")
  add_app(consume)
  add_queue_option(consume)
  consume:option("--only", "one kind of work: queue, events or callbacks"):choices {
    "queue", "events", "callbacks",
  }
  consume:option("--max-batch", "operations in one transaction"):convert(to_number)
  consume:option("--parallel", "partitions of the queue applied at the same time"):convert(to_number)
  consume:flag("--stop-on-error", "end at the first temporary error")
  consume:flag("--until-empty", "end when nothing is queued")
  queue_commands(parser)
  callback_commands(parser)
  event_commands(parser)
  local stats = parser:command("stats", "health of the servers and queues")
  stats:flag("--metrics", "Prometheus text instead")
  add_app(stats)
  local invalidate = parser:command("invalidate", "drop cached rows and lookups")
  add_app(invalidate)
  invalidate:argument("entity", "name of the entity")
  invalidate:argument("ids", "ids; none: all of the entity"):args "*":convert(to_number)
  local audit = parser:command("audit", "compare what caches say with what MySQL holds")
  add_app(audit)
  audit:argument("entities", "names of entities; none: all"):args "*"
  audit:flag("--all", "every row, instead of a sample")
  audit:option("--sample", "about so many rows of each entity [1000]"):convert(to_number)
  audit:option("--older-than", "report what differs for so many ms [2000]"):target "older_than":convert(to_number)
  local dev = parser:command("dev", "run a command with private MariaDB and Redis under .regolith/")
  dev:argument("words", "command and its arguments (after --); none: wait for Ctrl-C"):args "*"
  return parser
end

--- Runs the command line and gives the exit code.
---@param argv string[]
---@return integer
function M.main(argv)
  local parser = build_parser()
  local ok, args = parser:pparse(argv)
  if not ok then
    out.error(args)
    local command = innermost(parser, argv)
    local lost = args:find("command is required", 1, true) -- which ones there are is what helps
    io.stderr:write(lost and command:get_help() or command:get_usage(), "\n")
    return USAGE
  end
  local called, code, fault = pcall(function() return require("regolith.cli." .. args.command).run(args) end)
  if not called then
    out.error(tostring(code))
    return FAILED
  end
  if fault then out.error(tostring(fault)) end
  local written, why = out.flush()
  if written then return code end
  out.error("the output cannot be written: " .. why)
  return code == OK and FAILED or code
end

M.OK, M.FAILED, M.USAGE = OK, FAILED, USAGE
return M
