-- SPDX-License-Identifier: MIT
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field
local root = os.getenv "REGOLITH_ROOT" or "."

describe("command line", function()
  local world, folder, app, orm, db
  local Note = regolith.entity("note", {
    field.string "title" { required = true, unique = true }, cache = { redis = true },
  })

  local function write(name, text)
    local file = must(io.open(folder .. "/" .. name, "w"))
    file:write(text)
    file:close()
    return folder .. "/" .. name
  end

  --- Runs it as a program: output (both streams) and exit code.
  local function run(...)
    local words = {}
    for i = 1, select("#", ...) do words[i] = "'" .. tostring((select(i, ...))) .. "'" end
    local command = string.format("'%s/bin/regolith' %s; echo \"exit $?\"", root, table.concat(words, " "))
    local text = support.shell(command, true)
    local out, code = text:match "^(.-)exit (%d+)\n$"
    return out, tonumber(code)
  end

  setup(function()
    world = support.world()
    folder = support.shell("mktemp -d"):gsub("\n", "")
    write("entities.lua", [[
      local regolith = require "regolith"
      local field = regolith.field
      return { regolith.entity("note", {
        field.string "title" { required = true, unique = true }, cache = { redis = true },
      }) }
    ]])
    local config = string.format("{ mysql = %q, redis = %q, prefix = %q, entities = require 'entities' }",
      world.mysql_url(world.name), world.redis_url(), world.name)
    app = write("app.lua", "return " .. config)
    write("orm.lua", "return assert(require('regolith').open(" .. config .. "))")
    write("fn.lua", "return function() return " .. config .. " end")
    write("calls.lua", "local config = " .. config .. [[
      config.callbacks = {
        greet = function(payload) io.stdout:write("hello ", payload, "\n") end,
        moan = function() return nil, "never" end,
      }
      config.subscribers = { orders = { printer = { max_tries = 2, handler = function(event)
        if event.body.n == 2 then return nil, "no paper" end
        io.stdout:write("order ", event.body.n, "\n")
      end } } }
      return config
    ]])
    write("bad.lua", "return 5")
    write("broken.lua", "error 'on purpose'")
    write("down.lua", [[
      return { mysql = "mysql+unix:///nowhere.sock?user=u&db=d", redis = "redis+unix:///nowhere.sock",
        entities = require "entities" }
    ]])
  end)

  teardown(function()
    if db then db:close() end
    world:close()
    support.shell("rm -rf '" .. folder .. "'")
  end)

  it("shows and applies the schema", function()
    local out, code = run("schema", "diff", app)
    assert.equal(0, code, out)
    assert.matches("CREATE TABLE `note`", out)
    assert.equal(1, select(2, run("schema", "diff", "--check", app)))
    out, code = run("schema", "apply", folder .. "/fn.lua")
    assert.equal(0, code, out)
    assert.matches("applied 1 of 1: create table note", out)
    assert.matches("1 applied, 0 left out", out)
    out, code = run("schema", "diff", "--check", folder .. "/orm.lua")
    assert.equal(0, code, out)
    assert.matches("as the entities say", out)
    orm = world:open { Note }
    db = orm:session()
  end)

  it("consumes until nothing is left", function()
    for i = 1, 5 do
      db:new(Note, { title = "t" .. i })
      must(db:flush_async())
    end
    local out, code = run("queue", "status", app)
    assert.equal(0, code, out)
    assert.matches("default +5 ", out)
    out, code = run("consume", "--until-empty", app)
    assert.equal(0, code, out)
    assert.matches("5 applied, 0 dead letters, 0 waiting", out)
    assert.equal(5, #db:query "SELECT id FROM note")
  end)

  it("consumes until a signal", function()
    local text = support.shell(string.format(
      [['%s/bin/regolith' consume '%s' & pid=$!
        until grep -q '^SigCgt:.*[4-7c-f]...$' /proc/$pid/status; do kill -0 $pid || break; sleep 0.05; done
        kill -TERM $pid; wait $pid; echo "exit $?"]], root, app), true) -- once it catches signal 15
    assert.matches("0 applied, 0 dead letters, 0 waiting\nexit 0\n$", text)
  end)

  it("looks after dead letters", function()
    for i = 1, 2 do
      must(db:execute("INSERT INTO note (id, title) VALUES (?, ?)", 900000 + i, "taken" .. i))
      db:new(Note, { title = "taken" .. i })
      must(db:flush_async())
    end
    local out, code = run("consume", "--until-empty", app)
    assert.equal(0, code, out)
    assert.matches("became dead letters", out)
    out, code = run("queue", "errors", app)
    assert.equal(0, code, out)
    assert.matches("number +at +operation", out)
    assert.matches("1062", out)
    local number = must(orm:dead_letters())[1].number
    out, code = run("queue", "show", app, number)
    assert.equal(0, code, out)
    assert.matches("title = taken", out)
    out, code = run("queue", "retry", app, "all")
    assert.equal(1, code, out)
    assert.matches("2 dead letters left", out)
    out, code = run("queue", "edit", app, number, "--set", "title=")
    assert.equal(1, code, out)
    assert.matches("INVALID", out)
    assert.equal(2, select(2, run("queue", "edit", app, number, "--set", "title")))
    out, code = run("queue", "edit", app, number, "--set", "title=other", "--operation", "update")
    assert.equal(0, code, out)
    assert.matches("title = other", (run("queue", "show", app, number)))
    out, code = run("queue", "drop", app, number)
    assert.equal(0, code, out)
    assert.matches("1 dead letter left", out)
    assert.equal(0, select(2, run("queue", "drop", app, "all")))
    assert.matches("no dead letters", (run("queue", "errors", app)))
    assert.equal(1, select(2, run("queue", "show", app, number)))
    assert.equal(2, select(2, run("queue", "show", app, "all")))
  end)

  it("tells typical mistakes in words, with the usage of the command that was meant", function()
    for _, case in ipairs {
      { 2, "there is no queue 'defalt' %(did you mean 'default'%?%); there is one: default", "queue", "errors", app,
        "-q", "defalt" },
      { 2, "there is no queue 'nope'", "consume", "--until-empty", "-q", "nope", app },
      { 2, "^regolith: consumer: option 'max_batch' must be at least 1\n$", "consume", "--max-batch", "0", app },
      { 2, "'x' is not a number\nUsage: regolith consume ", "consume", "--max-batch", "x", app },
      { 2, "missing argument 'number'\nUsage: regolith queue drop ", "queue", "drop", app },
      { 2, "a command is required\nUsage: regolith queue delayed .*Commands:.*cancel ", "queue", "delayed" },
      { 2, "nothing is to be changed", "queue", "edit", app, "1" },
      { 2, "^regolith: replay takes a time", "queue", "replay", app, "yesterday" },
      { 2, "'zz' is no id of a delayed flush", "queue", "delayed", "cancel", app, "zz" },
      { 1, "no delayed flush ab waits", "queue", "delayed", "cancel", app, "ab" },
      { 1, "cannot open /nowhere.lua", "consume", "/nowhere.lua" },
      { 1, "nothing to do: the application has no subscribers\n", "consume", "--only", "events", app },
    } do
      local out, code = run(unpack(case, 3))
      assert.equal(case[1], code, out)
      assert.matches(case[2], out)
    end
  end)

  it("lists and cancels delayed flushes", function()
    assert.matches("nothing waits for its time", (run("queue", "delayed", "list", app)))
    for i = 1, 2 do
      db:new(Note, { title = "late " .. i })
      must(db:flush_async { delay_ms = 3600000 })
    end
    local id = db:stream_id()
    local out, code = run("queue", "delayed", "list", app)
    assert.equal(0, code, out)
    assert.matches(id .. "  %d+%-%d+%-%d+ %d+:%d+:%d+Z +insert +note +%d+", out)
    assert.matches("1 cancelled", (run("queue", "delayed", "cancel", app, id)))
    out, code = run("queue", "delayed", "cancel", app, id)
    assert.equal(1, code, out)
    assert.matches("1 cancelled", (run("queue", "delayed", "cancel", app, "all")))
    assert.equal(0, select(2, run("consume", "--until-empty", app)))
    assert.same({}, must(db:query "SELECT id FROM note WHERE title LIKE 'late %'"))
  end)

  it("says that a queue is paused to who waits for it to be empty", function()
    assert.equal(0, select(2, run("queue", "pause", app)))
    db:new(Note, { title = "patient" })
    must(db:flush_async())
    local out, code = run("consume", "--until-empty", app)
    assert.equal(1, code, out)
    assert.matches("the queue 'default' is paused, and 1 wait in it", out)
    assert.equal(0, select(2, run("queue", "resume", app)))
    assert.equal(0, select(2, run("consume", "--until-empty", app)))
    assert.equal(1, #db:query "SELECT id FROM note WHERE title = 'patient'")
  end)

  it("says why a letter that was tried again failed once more", function()
    must(db:execute "INSERT INTO note (id, title) VALUES (900009, 'theirs')")
    db:new(Note, { title = "theirs" })
    must(db:flush_async())
    assert.matches("1 operation became a dead letter", (run("consume", "--until-empty", app)))
    local number = must(orm:dead_letters())[1].number
    local out, code = run("queue", "retry", app, number)
    assert.equal(1, code, out)
    assert.matches("dead letter " .. number .. " failed again: .*duplicate key", out)
    must(orm:drop "all")
  end)

  it("runs callbacks beside the queue, and looks after them", function()
    local calls = folder .. "/calls.lua"
    local own = world:open({}, { callbacks = { greet = true, moan = true } })
    must(own:callback("greet", "ann"))
    local number = must(own:callback("moan", "bob"))
    db:new(Note, { title = "beside" })
    must(db:flush_async())
    local out, code = run("consume", "--until-empty", calls)
    assert.equal(0, code, out)
    assert.matches("hello ann\n", out)
    assert.matches("1 applied, 0 dead letters, 0 waiting;.* 1 callbacks, 0 of them dead", out)
    assert.matches("1 waiting", (run("callbacks", "status", calls)))
    must(db:execute("UPDATE _regolith_callbacks SET tries = 9, due = UTC_TIMESTAMP(6) WHERE number = ?", number))
    out, code = run("consume", "--until-empty", "--only", "callbacks", calls)
    assert.equal(0, code, out)
    assert.matches("callback %d+ %(moan%) is dead", out)
    assert.matches("moan .*never", (run("callbacks", "errors", calls)))
    assert.matches('payload +"bob"', (run("callbacks", "show", calls, number)))
    assert.matches("1 will run again", (run("callbacks", "retry", calls, number)))
    assert.matches("waiting", (run("callbacks", "list", calls)))
    must(db:execute("UPDATE _regolith_callbacks SET state = 'dead' WHERE number = ?", number))
    assert.matches("1 dropped", (run("callbacks", "drop", calls, "all")))
    assert.same({ "0 dropped\n", 0 }, { run("callbacks", "drop", calls, "all") })
    assert.same({ "0 will run again\n", 0 }, { run("callbacks", "retry", calls, "all") })
    assert.same({ 1, 2 }, { select(2, run("callbacks", "show", calls, number)),
      select(2, run("callbacks", "drop", calls, "x")) })
    world:shut(own)
  end)

  it("runs subscribers, and looks after streams", function()
    local calls = folder .. "/calls.lua"
    must(orm:publish("orders", { n = 1 }))
    must(orm:publish("orders", { n = 2 }))
    must(orm:publish("orders", { n = 3 }))
    local out, code = run("consume", "--until-empty", "--only", "events", calls)
    assert.equal(0, code, out)
    assert.matches("order 1\n", out)
    assert.matches("order 3\n", out)
    assert.matches("orders/printer: 3 events, 1 dead", out)
    assert.matches("3 events.*printer +0 +0 +0 +1\n", (run("events", "status", calls, "orders")))
    out = run("events", "errors", calls, "orders", "printer")
    assert.matches("no paper +{\"n\":2}", out)
    assert.matches("1 will be handled again", (run("events", "retry", calls, "orders", "printer", "all")))
    assert.matches("0 dropped", (run("events", "drop", calls, "orders", "printer", "all")))
    assert.matches("3 removed", (run("events", "trim", calls, "orders")))
    assert.equal(2, select(2, run("events", "drop", calls, "orders", "printer", "some")))
    assert.matches("owes the group 'printer' nothing any more", (run("events", "forget", calls, "orders", "printer")))
    assert.equal(1, select(2, run("events", "forget", calls, "orders", "printer")))
  end)

  it("consumes until the events of what it has applied are handled, too", function()
    local told = write("told.lua", string.format([[
      local regolith = require "regolith"
      local Told = regolith.entity("told", { regolith.field.string "text", events = { tellings = true } })
      return { mysql = %q, redis = %q, prefix = %q, entities = { Told }, subscribers = { tellings = { printer = {
        handler = function(event) io.stdout:write("told of ", event.body.id, "\n") end,
      } } } }]], world.mysql_url(world.name), world.redis_url(), world.name))
    local config = must(loadfile(told))()
    local Told = config.entities[1]
    local own = world:open({ Told }, { subscribers = config.subscribers })
    local session = own:session()
    for _ = 1, 2 do -- the first time there is no outbox yet
      local e = session:new(Told, { text = "a" })
      must(session:flush_async())
      local out, code = run("consume", "--until-empty", told)
      assert.equal(0, code, out)
      assert.matches("told of " .. e.id .. "\n", out)
      assert.matches("1 applied.*tellings/printer: 1 events, 0 dead", out)
    end
    session:close()
    world:shut(own)
  end)

  it("tells how the servers are", function()
    local out, code = run("stats", app)
    assert.equal(0, code, out)
    assert.matches("mysql +default +ok", out)
    assert.matches("redis +default +ok", out)
    assert.matches("# TYPE regolith_", (run("stats", "--metrics", app)))
    out, code = run("stats", folder .. "/down.lua")
    assert.equal(1, code, out)
    assert.matches("DOWN", out)
  end)

  it("fails when what it says cannot be written", function()
    for _, words in ipairs { "stats --metrics", "schema diff", "queue status" } do
      local command = string.format("'%s/bin/regolith' %s '%s' >/dev/full; echo \"exit $?\"", root, words, app)
      local text = support.shell(command, true)
      assert.matches("^regolith: the output cannot be written: No space left on device\nexit 1\n$", text)
    end
  end)

  it("drops cached entries", function()
    local notes = { db:new(Note, { title = "one" }), db:new(Note, { title = "two" }) }
    must(db:flush())
    local function is_now(title, note)
      local session = orm:session()
      must(support.eventually(function() -- it is cached once Redis has heard of the flush
        return support.count(orm, function() orm:session():get(Note, note.id) end).mysql == 0
      end))
      must(session:execute("UPDATE note SET title = ? WHERE id = ?", title, note.id))
      local before = session:get(Note, note.id).title
      session:close()
      return function()
        assert.not_equal(title, before)
        assert.equal(title, orm:session():get(Note, note.id).title)
      end
    end
    local first, second = is_now("1", notes[1]), is_now("2", notes[2])
    local out, code = run("invalidate", app, "note", notes[1].id)
    assert.equal(0, code, out)
    assert.matches("^1 keys dropped", out)
    first()
    out, code = run("invalidate", app, "note") -- all of them
    assert.equal(0, code, out)
    assert.is_true(tonumber((out:match "^(%d+) keys dropped")) >= 2, out)
    second()
    for _, note in ipairs(notes) do
      db:reload(note)
      db:delete(note)
    end
    must(db:flush())
    out, code = run("invalidate", app, "noet")
    assert.equal(1, code, out)
    assert.matches("there is no entity 'noet' %(did you mean 'note'%?%)", out)
  end)

  it("runs a command with private servers, and with the modules it has found itself", function()
    write("connects.lua", "print(assert(require('regolith').open { entities = {} }):health()[1].ok)")
    local out, code = support.shell(string.format([[
      cd '%s'; unset LUA_PATH LUA_CPATH
      REGOLITH_DEV_DIR='a dév' '%s/bin/regolith' dev -- sh -c 'echo "$REGOLITH_MYSQL_URL $REGOLITH_REDIS_URL"
        LD_PRELOAD="%s" luajit connects.lua; exit 3'
      echo "exit $?"]], folder, root, os.getenv "LD_PRELOAD" or ""))
    assert.is_truthy(code)
    assert.matches("mysql%+unix://[^ ]*/mysql.sock%?user=root&db=app redis%+unix://[^ ]*/redis.sock\ntrue\nexit 3\n$",
      out)
    assert.equal("", support.shell("pgrep -f '^[^ ]*(mariadbd|mysqld|redis-server) .*" .. folder .. "/a'"))
    support.shell("rm -rf \"$(cat '" .. folder .. "/a dév/sockets')\"")
  end)

  it("ends private servers, and what runs with them, at a signal", function()
    local out = support.shell(string.format([[
      cd '%s'; regolith='%s/bin/regolith'; export REGOLITH_DEV_DIR=dev
      printf 'through stdin' | "$regolith" dev -- cat
      for words in '' '-- sleep 600'; do
        timeout --foreground -s KILL 60 "$regolith" dev $words >dev.out 2>&1 & pid=$!
        until redis-cli -s dev/redis.sock ping && [ -S dev/mysql.sock ] || ! kill -0 $pid; do sleep 0.1; done
        kill -TERM $pid; wait $pid; echo "exit $?"
      done
      echo 5 >file
      REGOLITH_DEV_DIR=file/x "$regolith" dev -- true; echo "exit $?"]], folder, root))
    assert.matches("through stdin", out)
    assert.equal(2, select(2, out:gsub("exit 143\n", "")), out)
    assert.matches("regolith: the servers need a folder: file/x cannot be made .*exit 1\n$", out)
    assert.equal("", support.shell("pgrep -f '^[^ ]*(mariadbd|mysqld|redis-server) .*" .. folder .. "/dev'"))
  end)

  it("says what is missing where it was not built, or runs in another Lua", function()
    local program = "'" .. root .. "/bin/regolith' stats"
    local text = support.shell("unset LUA_CPATH; REGOLITH_BUILD_DIR=/nowhere " .. program .. " '" .. app .. "'")
    assert.matches("^regolith: the C half of regolith, regolith/core.so, cannot be loaded; is it built", text)
    for other in support.shell("for v in 1 2 3 4; do command -v lua5.$v; done"):gmatch "[^\n]+" do
      assert.matches("regolith runs in LuaJIT, and this is Lua 5", (support.shell(other .. " " .. program)))
    end
  end)

  it("explains wrong usage with exit code 2", function()
    for _, words in ipairs {
      {}, { "schema" }, { "schem", "diff" }, { "schema", "diff" }, { "consume", "--bad", app },
    } do
      local out, code = run(unpack(words))
      assert.equal(2, code, out)
      assert.matches("Usage: regolith", out)
    end
    assert.equal(0, select(2, run "--help"))
    assert.matches("^regolith %d+%.%d+%.%d+\n$", (run "--version"))
  end)

  it("explains failures with exit code 1", function()
    local cases = {
      { "/nowhere.lua", "No such file" }, { "/bad.lua", "must return an orm" }, { "/broken.lua", "on purpose" },
      { "/down.lua", "UNAVAILABLE" },
    }
    for _, case in ipairs(cases) do
      local out, code = run("schema", "diff", folder .. case[1])
      assert.equal(1, code, out)
      assert.matches("regolith: ", out)
      assert.matches(case[2], out)
    end
  end)
end)
