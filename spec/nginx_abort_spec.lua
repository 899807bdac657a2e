-- SPDX-License-Identifier: MIT
-- nginx kills requests and restarts its workers: no connection comes back dirty, nothing is left behind.
-- With REGOLITH_LONG=1 ten thousand aborts and reloads.

local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local LONG = os.getenv "REGOLITH_LONG" ~= nil
--- They come while operations wait, up to max_workers; those that give borrowed connections back, nginx' own and
--- the listener besides.
local MOST_THREADS = 64 + 16
--- A sanitizer keeps what was freed.
local SLACK_KIB = (os.getenv "LD_PRELOAD" or ""):find "asan" and 262144 or 8192

local APP = [[
local regolith = require "regolith"
local field = regolith.field
local Item = regolith.entity("item", { field.string "name", field.uint32 "n" { default = 0 }, cache = true })
local Note = regolith.entity("note", { field.string "text", cache = { redis = true } }) -- by the worker's own link
local orm = assert(regolith.open(@orm))
local pages = {}
local function number(name) return tonumber(ngx.var["arg_" .. name]) end

-- nginx misses a client that went before its request was read: who is to be missed waits for a word first.
local function begin()
  if not ngx.var.arg_begin then return end
  ngx.say "begun"
  ngx.flush(true)
end

function pages.note(db)
  begin()
  for i = 1, 40 do assert(db:get(Note, number "id" + i)) end
  return "noted"
end
function pages.read(db) return assert(db:get(Item, number "id")).name end
function pages.slow(db)
  begin()
  return assert(db:query("SELECT SLEEP(?) AS s", number "s"))[1].s
end
function pages.write(db)
  local item = assert(db:get(Item, number "id"))
  item.n = item.n + 1
  assert(db:flush())
  return item.n
end
-- An open transaction on a borrowed connection, with a row locked, while the request waits for something else.
function pages.dirty(db)
  return db:connection(function(conn)
    assert(conn:execute "BEGIN")
    assert(conn:execute("UPDATE item SET n = n + 1000 WHERE id = ?", number "id"))
    assert(conn:execute "SET @left = 'behind'")
    begin()
    ngx.sleep(number "s")
    return "slept"
  end)
end
function pages.lock()
  local lock = assert(orm:lock("abort", { wait_ms = 5000 }))
  if number "s" > 0 then ngx.sleep(number "s") end
  lock:release()
  return "had"
end
-- Light threads that are killed while they wait.
function pages.kill()
  for _ = 1, 4 do
    local thread = ngx.thread.spawn(function() return orm:session():query "SELECT SLEEP(30)" end)
    ngx.thread.kill(thread)
  end
  return "killed"
end
function pages.exit()
  ngx.thread.spawn(function() return orm:session():query "SELECT SLEEP(30)" end)
  ngx.exit(204)
end
function pages.state(db)
  local busy = 0
  for _, pool in ipairs(assert(orm:health())) do busy = busy + pool.busy end
  local left = assert(db:query("SELECT @left AS x, (SELECT COUNT(*) FROM information_schema.innodb_trx "
    .. "WHERE trx_mysql_thread_id = CONNECTION_ID() AND trx_rows_modified > 0) AS open"))[1]
  return string.format("%d %s %d", busy, tostring(left.x), left.open or 0)
end
return { serve = function()
  local db = orm:session()
  local ok, said, why = pcall(pages[ngx.var.uri:sub(2)], db)
  if not ok or said == nil then ngx.log(ngx.NOTICE, "page: ", tostring(why or said)) end
  ngx.say(tostring(said))
  db:close()
end }
]]

local run = nginx.available() and describe or pending

run("requests that nginx kills", function()
  local world, web, id, note_id

  setup(function()
    world = support.world()
    local Item = regolith.entity("item", {
      regolith.field.string "name", regolith.field.uint32 "n" { default = 0 }, cache = true,
    })
    local Note = regolith.entity("note", { regolith.field.string "text", cache = { redis = true } })
    local orm = world:open { Item, Note }
    local db = orm:session()
    local item, notes = db:new(Item, { name = "one" }), {}
    for i = 0, 40 do notes[i] = db:new(Note, { text = "note " .. i }) end
    must(db:flush())
    id, note_id = string.format("%.0f", item.id), string.format("%.0f", notes[0].id)
    db:close()
    world:shut(orm)
    web = nginx.start {
      app = APP, orm = string.format("{ mysql = %q, redis = %q, prefix = %q, entities = { Item, Note } }",
        world.mysql_url(world.name, "&pool=4"), world.redis_url(), world.name),
    }
  end)
  teardown(function()
    local said = support.shell("grep 'page: ' " .. web.folder .. "/error.log")
    web:stop()
    world:close()
    assert.equal("", said) -- what is aborted harms nobody else
  end)

  --- Statements under way on the world's database, and connections to it.
  local function on_server()
    local rows = must(world.sql:query("SELECT COUNT(*) AS n, SUM(command <> 'Sleep') AS busy FROM "
      .. "information_schema.processlist WHERE db = ?", world.name))
    return tonumber(rows[1].busy or 0), rows[1].n
  end

  local function quiet()
    faults.await("a quiet server", function() return on_server() == 0 end)
    local text, status
    local ok = pcall(faults.await, "idle pools", function()
      local state
      state, text, status = web:get "state"
      text = tostring(state) .. " (status " .. tostring(status) .. ")"
      if state == "0 nil 0" then return true end
      faults.pause(150) -- the server looks at its transactions anew when nobody has asked for 100 ms
    end)
    assert.equal("0 nil 0 (status 200)", text, not ok and web:read "error.log" or nil)
  end

  --- In a long run, what nginx and the servers have of it.
  local function note(when)
    if not LONG then return end
    local function text(name, pid)
      local usage = nginx.usage(pid)
      return string.format("%s %d KiB, %d descriptors, %d threads", name, usage.kib, usage.fds, usage.threads)
    end
    print(string.format("%-14s %s; %s; %d connections of MySQL, %s of Redis", when, text("master", web:master()),
      text("worker", web:workers()[1]), select(2, on_server()),
      table.concat(support.redis("INFO", "clients"), "\n"):match "connected_clients:(%d+)"))
  end

  it("stop their statements on the server, and leave the pool clean", function()
    for _ = 1, 6 do web:abort("slow?s=60&begin=1", 30) end
    quiet()
    assert.equal("killed", (web:get "kill"))
    web:get "exit"
    quiet()
  end)

  it("leave no transaction open and no row locked", function()
    for _ = 1, 6 do web:abort("dirty?s=60&begin=1&id=" .. id, 10) end
    assert.equal("1", (web:get("write?id=" .. id)))
    quiet()
    assert.equal("1", tostring(must(world.sql:query("SELECT n FROM `" .. world.name .. "`.item"))[1].n))
  end)

  it("come by the thousand, with reloads among them, and leave nothing behind", function()
    local total, every = LONG and 10000 or 250, LONG and 200 or 60
    local pages = {
      "slow?s=0.2", "dirty?s=0.2&id=" .. id, "read?id=" .. id, "lock?s=0.2", "write?id=" .. id, "slow?s=1",
      "note?id=" .. note_id, "note?begin=1&id=" .. note_id,
    }
    local master, before = web:master(), nil
    note("at the start")
    for i = 1, total do
      web:abort(pages[i % #pages + 1], i % 7)
      if i % 10 == 0 then assert.equal("one", (web:get("read?id=" .. id))) end
      if i % 10 == 5 then assert.equal("noted", (web:get("note?id=" .. note_id))) end
      if i % every == 0 then
        web:command "-s reload"
        faults.await("one worker", function() return #web:workers() == 1 end, 60)
        if i % (every * 10) == 0 then
          web:get("read?id=" .. id)
          note("after " .. i)
        end
      end
      if i == every * 2 then before = nginx.usage(master) end
    end
    assert.equal("had", (web:get "lock?s=0"))
    quiet()
    faults.await("one worker", function() return #web:workers() == 1 end, 60)
    faults.await("the end of the last worker's connections", function() return select(2, on_server()) <= 4 + 1 end)
    local worker, usage = nginx.usage(web:workers()[1]), nginx.usage(master)
    assert.is_true(usage.fds <= before.fds + 2, usage.fds .. " descriptors of the master, before " .. before.fds)
    assert.is_true(usage.threads == before.threads, usage.threads .. " threads of the master")
    assert.is_true(usage.kib < before.kib + SLACK_KIB, usage.kib .. " KiB of the master, before " .. before.kib)
    assert.is_true(worker.threads <= MOST_THREADS, worker.threads)
  end)

  it("do not make a worker grow", function()
    local function storm(n)
      for i = 1, n do
        web:abort(i % 2 == 0 and "slow?s=0.05" or "dirty?s=0.05&id=" .. id, i % 5)
        if i % 3 == 0 then web:abort("note?begin=1&id=" .. note_id, i % 2) end
        if i % 20 == 0 then web:get("read?id=" .. id) end
        if i % 1000 == 0 then note("after " .. i .. " more") end
      end
      quiet()
      return nginx.usage(web:workers()[1])
    end
    local pid = web:workers()[1]
    storm(LONG and 2000 or 60)
    local before = storm(LONG and 2000 or 60)
    local after = storm(LONG and 6000 or 120)
    assert.equal(pid, web:workers()[1])
    assert.is_true(after.fds <= before.fds + 6, after.fds .. " descriptors, before " .. before.fds)
    assert.is_true(after.threads <= MOST_THREADS, after.threads .. " threads, before " .. before.threads)
    assert.is_true(after.kib < before.kib + SLACK_KIB, after.kib .. " KiB, before " .. before.kib)
  end)
end)
