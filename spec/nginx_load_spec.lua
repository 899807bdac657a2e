-- SPDX-License-Identifier: MIT
-- Under nginx: phases that may wait and those that may not, slow operations beside quick ones, waiting for
-- connections, the bound of the queue, and equal reads at once.

local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must

local APP = [[
local regolith = require "regolith"
local field = regolith.field
local Item = regolith.entity("item", { field.string "name", cache = true })
local orm = assert(regolith.open(@orm))
local narrow = assert(regolith.open(@narrow)) -- two connections, three threads at most
local short = assert(regolith.open(@short)) -- and a queue of four
local pages, M, said = {}, {}, {}
local function number(name) return tonumber(ngx.var["arg_" .. name]) end

local function try()
  local rows, err = orm:session():query "SELECT 1 AS n"
  return rows and "waited" or tostring(err)
end
--- Tries in a phase; page "said" tells what came of it.
function M.try(name) said[name] = try() end
function M.tried() return try() end
function pages.said() return said[ngx.var.arg_phase] or "" end

-- Until it is ended at the server.
function pages.slow() return orm:session():query("SELECT SLEEP(?) AS s", number "s") and "slept" or "ended" end
function pages.quick() return orm:session():query("SELECT 1 AS n")[1].n end
-- Two connections, for more requests than that, each of which goes on with the one it has.
function pages.borrow()
  return narrow:session():connection(function(conn)
    ngx.sleep(0.05)
    return conn:query("SELECT 7 AS n")[1].n
  end)
end
-- The same in a transaction.
function pages.transact()
  local db = narrow:session()
  local said = db:transaction(function()
    assert(db:query("SELECT 1 FROM item LIMIT 1 FOR UPDATE"))
    ngx.sleep(0.05)
    return assert(db:query("SELECT 8 AS n"))[1].n
  end)
  db:close()
  return said
end
function pages.crowd()
  local threads, full = {}, 0
  for i = 1, 12 do
    threads[i] = ngx.thread.spawn(function()
      local rows, err = short:session():query "SELECT SLEEP(0.5)"
      return rows and "" or err.code .. " " .. tostring(err.retriable)
    end)
  end
  for i = 1, 12 do
    local _, code = ngx.thread.wait(threads[i])
    if code == "LIMIT true" then full = full + 1 elseif code ~= "" then return code end
  end
  return full
end
function pages.together()
  local id, before, threads = number "id", orm:counter "regolith_mysql_rows_read_total", {}
  for i = 1, 20 do
    threads[i] = ngx.thread.spawn(function()
      local own = orm:session()
      local name = assert(own:get(Item, id)).name
      own:close()
      return name
    end)
  end
  for i = 1, 20 do assert(select(2, ngx.thread.wait(threads[i])) == "one") end
  return orm:counter "regolith_mysql_rows_read_total" - before
end
-- Numbers of types are given out one after the other.
function pages.types() return tonumber(require("ffi").typeof "struct { int number; }") end
function pages.below()
  local said
  table.sort({ 1, 2 }, function(a, b)
    said = said or try()
    return a < b
  end)
  package.loaded.late = nil
  local late = require "late" -- opens an orm: it connects later
  return said .. "\n" .. late:session():query("SELECT 5 AS n")[1].n
end
M.orm = orm
M.try "init" -- as a module that init_by_lua loads
function M.serve() ngx.say(pages[ngx.var.uri:sub(2)]()) end
return M
]]

local SERVER = [[
  location = /waits {
    rewrite_by_lua_block { app.try "rewrite" }
    access_by_lua_block { app.try "access" }
    content_by_lua_block { app.try "content"; ngx.say "sent" }
  }
  location = /refuses {
    set_by_lua_block $ignored { app.try "set" }
    content_by_lua_block { ngx.say "sent" }
    header_filter_by_lua_block { app.try "header_filter" }
    body_filter_by_lua_block { app.try "body_filter" }
    log_by_lua_block { app.try "log" }
  }
]]

--- A certificate of its own, and its key.
local key
local function certificate()
  local text = support.shell "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout - 2>/dev/null"
  key = text:match "%-%-%-%-%-BEGIN [%u ]*PRIVATE KEY.-END [%u ]*PRIVATE KEY%-%-%-%-%-\n"
  return (text:match "%-%-%-%-%-BEGIN CERTIFICATE.-END CERTIFICATE%-%-%-%-%-\n")
end

local run = nginx.available() and describe or pending

run("nginx", function()
  local world, web, id

  setup(function()
    world = support.world()
    local Item = regolith.entity("item", { regolith.field.string "name", cache = true })
    local orm = world:open { Item }
    local db = orm:session()
    local one = db:new(Item, { name = "one" })
    must(db:flush())
    id = one.id
    db:close()
    must(orm:invalidate(Item))
    local function config(pool, more)
      return string.format("{ mysql = %q, redis = %q, prefix = %q, %s }", world.mysql_url(world.name, "&pool=" .. pool),
        world.redis_url(), world.name, more)
    end
    web = nginx.start {
      app = APP:gsub("@(%l+)", {
        narrow = config(2, "entities = {}, workers = 2, max_workers = 3"),
        short = config(2, "entities = {}, workers = 2, max_workers = 3, max_queued = 4"),
      }),
      orm = config(32, "entities = { Item }, workers = 2"), server = SERVER,
      http = [[
        server {
          listen unix:@folder/tls.sock ssl;
          ssl_certificate @folder/cert.pem;
          ssl_certificate_key @folder/key.pem;
          ssl_certificate_by_lua_block { app.try "ssl_cert" }
          location / { content_by_lua_block { ngx.say "pong" } }
        }
        init_worker_by_lua_block {
          app.try "init_worker"
          ngx.timer.at(0, function() app.try "timer" end)
        }]],
      files = { ["cert.pem"] = certificate(), ["key.pem"] = key,
        ["late.lua"] = "return assert(require('regolith').open(" .. config(2, "entities = {}") .. "))" },
    }
  end)
  teardown(function()
    web:stop()
    world:close()
  end)

  local function said(phase)
    return faults.await("word of the phase " .. phase, function()
      local text = web:get("said?phase=" .. phase)
      return text ~= "" and text
    end)
  end

  it("waits in rewrite, access, content and timers", function()
    assert.equal("sent", (web:get "waits"))
    for _, phase in ipairs { "rewrite", "access", "content", "timer" } do assert.equal("waited", said(phase)) end
  end)

  it("waits before the handshake of TLS is over, where a certificate is chosen", function()
    local text = support.shell(string.format("curl -s -k -m 20 --unix-socket %s/tls.sock https://x/", web.folder))
    assert.equal("pong\n", text)
    assert.equal("waited", said "ssl_cert")
  end)

  it("says what to do in the phases that cannot wait", function()
    assert.equal("sent", (web:get "refuses"))
    local instead = {
      init = "init_worker_by_lua", init_worker = "ngx.timer.at", set = "rewrite_by_lua", header_filter = "ngx.ctx",
      body_filter = "ngx.ctx", log = "ngx.timer.at",
    }
    for phase, advice in pairs(instead) do
      local text = said(phase)
      assert.matches("^MISUSE: a database operation cannot wait in the phase '" .. phase .. "'", text)
      assert.is_truthy(text:find(advice, 1, true), text)
    end
  end)

  it("makes no types while it serves", function()
    for _ = 1, 3 do web:get "quick" end
    local before = tonumber((web:get "types"))
    for _ = 1, 30 do assert.equal("1", (web:get "quick")) end
    local made = tonumber((web:get "types")) - before
    assert.is_true(made < 8, made .. " types for 30 requests")
  end)

  it("says so below a C function, where an orm is opened without connecting", function()
    local text = web:get "below"
    assert.matches("^MISUSE: a database operation cannot wait below a C function", text)
    assert.matches("\n5$", text)
  end)

  it("serves quick operations while more slow ones run than there are regular threads", function()
    local function slow_ones()
      return must(world.sql:query("SELECT ID AS id FROM information_schema.processlist "
        .. "WHERE db = ? AND info LIKE '%SLEEP%' AND info NOT LIKE '%processlist%'", world.name))
    end
    for i = 1, 6 do web:begin("slow?s=18", "slow" .. i) end
    faults.await("the slow ones", function() return #slow_ones() >= 6 end, 15)
    local _, ms = web:get "quick"
    assert.is_true(ms < 2000, ms)
    assert.equal(6, #slow_ones())
    for i = 1, 6 do assert.equal("", web:read("slow" .. i)) end
    for _, row in ipairs(slow_ones()) do
      must(world.sql:connection(function(conn) return conn:execute("KILL QUERY " .. row.id) end))
    end
    for i = 1, 6 do faults.await("the end of a slow one", function() return web:read("slow" .. i) ~= "" end) end
  end)

  it("lets those that have a connection go on before those that wait for one", function()
    local started = faults.now()
    for i = 1, 12 do web:begin("borrow", "borrow" .. i) end
    for i = 1, 12 do
      faults.await("number " .. i, function() return web:read("borrow" .. i) == "7\n" end)
    end
    assert.is_true(faults.now() - started < 20)
  end)

  it("lets transactions that have begun go on before those that wait to begin", function()
    for i = 1, 12 do web:begin("transact", "transact" .. i) end
    for i = 1, 12 do
      faults.await("number " .. i, function() return web:read("transact" .. i) == "8\n" end, 20)
    end
  end)

  it("refuses what is beyond the queue's bound, with a clear error", function()
    local full = tonumber((web:get "crowd"))
    assert.is_true(full >= 1 and full <= 10, full)
    assert.equal("0", (web:get "crowd") and (web:get "quick") == "1" and "0")
  end)

  it("loads a row once for all who want it at once", function()
    assert.equal("1", (web:get(string.format("together?id=%.0f", id))))
  end)
end)
