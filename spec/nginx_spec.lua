-- SPDX-License-Identifier: MIT
local faults = require "support.faults"
local regolith = require "regolith"
local nginx_support = require "support.nginx"
local support = require "support.init"

local must = support.must
local field = regolith.field

local CONFIG = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user root;
daemon on;
worker_processes 1;
pid @folder/nginx.pid;
error_log @folder/error.log notice;
env REGOLITH_BUILD_DIR;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path @folder/t1; proxy_temp_path @folder/t2; fastcgi_temp_path @folder/t3;
  uwsgi_temp_path @folder/t4; scgi_temp_path @folder/t5;
  lua_package_path "@folder/?.lua;@lua_path";
  lua_package_cpath "@lua_cpath";
  lua_check_client_abort on;
  init_by_lua_block { app = require "app" }
  server {
    listen unix:@folder/web.sock;
    default_type text/plain;
    location = /ping { content_by_lua_block { ngx.say "pong" } }
    location = /pid { content_by_lua_block { ngx.say(ngx.worker.pid()) } }
    location / { content_by_lua_block { app.serve() } }
    location = /phase {
      content_by_lua_block { ngx.say "sent" }
      log_by_lua_block { app.in_log() }
    }
  }
}
]]

local APP = [[
local regolith = require "regolith"
local orm = assert(regolith.open(@config))
local Item = require "entities" [1]
local pages, M = {}, {}

-- One entity through all tiers.
function pages.read(db)
  local item, err = db:get(Item, tonumber(ngx.var.arg_id))
  return item and item.name or "nil " .. tostring(err)
end
function pages.slow(db) return assert(db:query("SELECT SLEEP(?) AS s", tonumber(ngx.var.arg_s)))[1].s end
function pages.write(db)
  local item = assert(db:new(Item, { name = ngx.var.arg_name }))
  assert(db:flush())
  return string.format("%.0f", item.id)
end
function pages.follow(db)
  local item = assert(db:get(Item, tonumber(ngx.var.arg_id)))
  return item.parent.name -- waits within an __index
end
function pages.fail(db)
  local rows, err = db:query "SELEKT"
  return tostring(rows) .. " " .. err.code
end
function pages.borrow(db)
  return db:connection(function(conn)
    assert(conn:execute "SET @x = 7")
    ngx.sleep(0.01)
    return conn:query("SELECT @x AS x")[1].x
  end)
end
-- Waits within a transaction, and fails on demand.
function pages.transaction(db)
  local ran = {}
  local ok, answer = pcall(db.transaction, db, function(tx)
    tx:commit(function() ran[#ran + 1] = "commit" end)
    tx:compensate(function() ran[#ran + 1] = "compensate" end)
    local item = assert(db:new(Item, { name = "outer " .. ngx.var.arg_name }))
    assert(db:flush())
    ngx.sleep(0.02)
    db:transaction({ propagation = "REQUIRES_NEW" }, function()
      assert(db:new(Item, { name = "inner " .. ngx.var.arg_name }))
    end)
    assert(db:get(Item, item.id, { lock = "update" }) == item)
    if ngx.var.arg_fail then error("on demand", 0) end
    return item.name
  end)
  return string.format("%s %s %s", tostring(ok), tostring(answer), table.concat(ran, ","))
end
-- Two light threads, each with a transaction of its own; one session for both is refused.
function pages.two(db)
  local function body(session, name, fails)
    return pcall(session.transaction, session, function()
      assert(session:new(Item, { name = name }))
      assert(session:flush())
      ngx.sleep(0.02)
      if fails then error("fails", 0) end
      return name
    end)
  end
  local other = orm:session()
  local a = ngx.thread.spawn(body, db, "two a", true)
  local b = ngx.thread.spawn(body, other, "two b")
  local same = ngx.thread.spawn(function() return pcall(db.get, db, Item, 1) end)
  local _, _, a_says = ngx.thread.wait(a)
  local _, _, b_says = ngx.thread.wait(b)
  local _, _, same_says = ngx.thread.wait(same)
  other:close()
  return string.format("%s|%s|%s", tostring(a_says), tostring(b_says), tostring(same_says))
end
-- Its client goes away while it waits.
function pages.abandoned(db)
  db:transaction(function()
    assert(db:new(Item, { name = "abandoned" }))
    assert(db:flush())
    ngx.say "begun"
    ngx.flush(true)
    ngx.sleep(30)
  end)
end
function pages.count(db)
  return assert(db:query("SELECT COUNT(*) AS n FROM item WHERE name = ?", ngx.unescape_uri(ngx.var.arg_name)))[1].n
end
function pages.busy()
  local busy = 0
  for _, pool in ipairs(assert(orm:health())) do
    if pool.kind == "mysql" then busy = busy + pool.busy end
  end
  return busy
end
-- A timer goes on with its transaction, or finds it ended.
local handed = "none"
function pages.hand(db)
  local tx = assert(db:begin())
  assert(db:new(Item, { name = "handed " .. ngx.var.arg_to }))
  assert(db:flush())
  local to, adopted = ngx.var.arg_to, require "ngx.semaphore".new(0)
  handed = "none"
  ngx.timer.at(0, function()
    if to == "timer" then
      tx:adopt()
      adopted:post(1)
      ngx.sleep(0.05)
    else
      ngx.sleep(0.05)
      tx:adopt()
    end
    local ok, fault = tx:commit()
    handed = tostring(ok) .. " " .. tostring(fault)
  end)
  if to == "timer" then adopted:wait(5) end
  return "begun"
end
function pages.handed() return handed end
-- Two light threads on one session.
function pages.shared(db)
  local thread = ngx.thread.spawn(function() return db:query "SELECT SLEEP(0.1)" end)
  local ok, message = pcall(db.query, db, "SELECT 1")
  ngx.thread.wait(thread)
  return tostring(ok) .. " " .. message
end
-- Many at once, from one request.
function pages.many()
  local threads, sum = {}, 0
  for i = 1, 40 do
    threads[i] = ngx.thread.spawn(function()
      local own = orm:session()
      local n = assert(own:query("SELECT ? AS n", i))[1].n
      own:close()
      return n
    end)
  end
  for i = 1, 40 do sum = sum + select(2, ngx.thread.wait(threads[i])) end
  return sum
end
-- Reads over two shards, more of them than there are workers.
function pages.spread(db)
  local Part = require "entities" [2]
  for k = 0, 1 do assert(db:new(Part, { n = k }, { shard = k })) end
  assert(db:flush())
  local threads, found = {}, {}
  for i = 1, 20 do
    threads[i] = ngx.thread.spawn(function()
      local own = orm:session()
      local list = assert(own:search(Part, "1 = 1 ORDER BY n DESC"):all())
      own:close()
      return list[1].n .. list[2].n
    end)
  end
  for i = 1, 20 do found[i] = select(2, ngx.thread.wait(threads[i])) end
  return table.concat(found, " ")
end
-- Forks while other requests wait.
function pages.fork(db)
  local ffi = require "ffi"
  if not pcall(function() return ffi.C.fork end) then
    ffi.cdef "int fork(void); int waitpid(int pid, int *status, int options); void _exit(int status);"
  end
  assert(db:query "SELECT 1")
  local path = ngx.config.prefix() .. "/forked"
  local pid = ffi.C.fork()
  if pid == 0 then
    local rows, err = db:query "SELECT 1"
    collectgarbage()
    collectgarbage()
    orm:close()
    local file = io.open(path, "w")
    file:write(rows and "well" or tostring(err))
    file:close()
    ffi.C._exit(0)
  end
  ffi.C.waitpid(pid, nil, 0)
  return io.open(path):read "*a" .. " " .. assert(db:query "SELECT 8 AS n")[1].n
end
function pages.stats() return orm:metrics() end
local logged = "none"
function pages.logged() return logged end
function M.in_log()
  local db = orm:session()
  local rows, err = db:query "SELECT 1"
  logged = tostring(rows) .. " " .. tostring(err)
  db:close()
end
function M.serve()
  local db = orm:session()
  ngx.say(pages[ngx.var.uri:sub(2)](db))
  if ngx.var.uri ~= "/hand" then db:close() end
end
return M
]]

local function have_nginx()
  return support.shell [[
    test -e /usr/lib/nginx/modules/ngx_http_lua_module.so && command -v curl >/dev/null && command -v /usr/sbin/nginx
  ]] ~= ""
end

local run = have_nginx() and describe or pending

run("nginx", function()
  local world, other, folder, parent, child

  local function write(name, text)
    local file = must(io.open(folder .. "/" .. name, "w"))
    file:write(text)
    file:close()
  end

  --- Body of a page, and how long it took in milliseconds.
  local function get(path)
    local text = support.shell(string.format(
      "curl -s -m 20 --unix-socket %s/web.sock -w '\\n%%{time_total}' 'http://x/%s'", folder, path))
    local body, seconds = text:match "^(.*)\n([%d.]+)$"
    return body and (body:gsub("\n$", "")), tonumber(seconds) and tonumber(seconds) * 1000
  end

  local function read_of(file) return support.shell("cat " .. folder .. "/" .. file) end

  --- Begins a request of that many seconds, whose body goes to a file: the server is at it.
  local function start_slow(seconds, file)
    support.shell(string.format("curl -s --unix-socket %s/web.sock 'http://x/slow?s=%g' >%s/%s 2>&1 &",
      folder, seconds, folder, file))
    faults.await("a slow request", function()
      return read_of(file) ~= "" or must(world.sql:query("SELECT COUNT(*) AS n FROM information_schema.processlist "
        .. "WHERE db = ? AND info LIKE '%SLEEP(%'", world.name))[1].n > 0
    end)
  end

  --- What such a request has brought, once it has ended.
  local function end_of(file)
    return faults.await("the end of a slow request", function()
      local text = read_of(file)
      return text ~= "" and text
    end)
  end

  local function nginx(arguments)
    local command = string.format("/usr/sbin/nginx -p %s -c %s/nginx.conf %s", folder, folder, arguments or "")
    return support.shell(command, true)
  end

  local function worker_gone(pid)
    return support.eventually(function() return support.shell("kill -0 " .. pid .. " 2>&1") ~= "" end, 20)
  end

  setup(function()
    world, other = support.world(), support.world()
    local Part = regolith.entity("part", { field.uint32 "n", shards = { "default", "s1" } })
    local pools = { default = world.mysql_url(world.name), s1 = world.mysql_url(other.name) }
    world:shut(world:open({ Part }, { mysql = pools }))
    local Item = regolith.entity("item", {
      field.string "name", field.ref "parent" { "item" }, cache = { redis = true },
    })
    local orm = world:open { Item }
    local db = orm:session()
    parent = must(db:new(Item, { name = "parent" }))
    child = must(db:new(Item, { name = "child", parent = parent }))
    must(db:flush())
    parent, child = string.format("%.0f", parent.id), string.format("%.0f", child.id)
    db:close()
    folder = support.shell("mktemp -d"):gsub("\n", "")
    write("entities.lua", [[
      local regolith = require "regolith"
      local field = regolith.field
      return { regolith.entity("item", {
        field.string "name", field.ref "parent" { "item" }, cache = { redis = true },
      }), regolith.entity("part", { field.uint32 "n", shards = { "default", "s1" } }) }
    ]])
    local config = string.format("{ mysql = { default = %q, s1 = %q }, redis = %q, prefix = %q, "
      .. "entities = require 'entities' }", world.mysql_url(world.name, "&pool=8"), pools.s1, world.redis_url(),
      world.name)
    local values = {
      folder = folder, config = config, lua_path = package.path:gsub("\n", ""), lua_cpath = package.cpath,
    }
    local function fill(text) return (text:gsub("@([%a_]+)", function(name) return values[name] end)) end
    write("nginx.conf", fill(CONFIG))
    write("app.lua", fill(APP))
    local out = nginx()
    must(support.eventually(function() return get "ping" == "pong" end, 20), out)
  end)

  teardown(function()
    nginx "-s quit"
    support.eventually(function() return support.shell("test -e " .. folder .. "/nginx.pid || echo gone") ~= "" end, 10)
    local log = support.shell("grep -E '\\[(error|crit|alert|emerg|warn)\\]|signal 11' " .. folder .. "/error.log")
    world:close()
    other:close()
    support.shell("rm -rf '" .. folder .. "'")
    assert.equal("", log)
  end)

  it("reads, writes and follows references", function()
    assert.equal("parent", (get("read?id=" .. parent)))
    assert.equal("nil nil", (get "read?id=999999"))
    assert.equal("parent", (get("follow?id=" .. child)))
    local id = get "write?name=new"
    assert.matches("^%d+$", id)
    assert.equal("new", (get("read?id=" .. id)))
  end)

  it("reads over shards from many requests at once", function()
    assert.equal(("10 "):rep(19) .. "10", (get "spread"))
  end)

  it("answers other requests of the same worker meanwhile", function()
    start_slow(4, "slow.out")
    local ping_ms, read_ms = math.huge, math.huge
    local is_quick, meanwhile
    repeat -- as often as there is time: it is the quickest that counts
      local body, ms = get "ping"
      assert.equal("pong", body)
      ping_ms = math.min(ping_ms, ms)
      body, ms = get("read?id=" .. child)
      assert.equal("child", body)
      read_ms = math.min(read_ms, ms)
      is_quick, meanwhile = ping_ms < 50 and read_ms < 100, read_of "slow.out" == ""
    until is_quick or not meanwhile
    assert.is_true(meanwhile, string.format("ping %.1f ms, read %.1f ms", ping_ms, read_ms))
    assert.equal("0\n", end_of "slow.out")
  end)

  it("runs slow operations side by side", function()
    local started = faults.now()
    local text = support.shell(string.format([[
      for i in 1 2 3 4; do curl -s --unix-socket %s/web.sock 'http://x/slow?s=1' & done; wait]], folder))
    assert.equal("0\n0\n0\n0\n", text)
    assert.is_true(faults.now() - started < 3.9) -- one after the other: 4
  end)

  it("returns the server's errors", function()
    assert.equal("nil SQL", (get "fail"))
  end)

  it("lends connections", function()
    assert.equal("7", (get "borrow"))
  end)

  it("serves many operations of one request", function()
    assert.equal("820", (get "many"))
  end)

  it("raises when two coroutines use one session", function()
    assert.matches("^false .*in use by another coroutine", (get "shared"))
  end)

  it("runs transactions that wait", function()
    assert.equal("true outer one commit", (get "transaction?name=one"))
    assert.equal("false on demand compensate", (get "transaction?name=two&fail=1"))
    for name, n in pairs {
      ["outer%20one"] = "1", ["inner%20one"] = "1", ["outer%20two"] = "0", ["inner%20two"] = "1",
    } do
      assert.equal(n, (get("count?name=" .. name)), name)
    end
  end)

  it("gives each light thread a transaction of its own", function()
    assert.matches("^fails|two b|.*transaction of another coroutine", (get "two"))
    assert.equal("0", (get "count?name=two%20a"))
    assert.equal("1", (get "count?name=two%20b"))
  end)

  it("rolls back at once what a killed request has left open", function()
    nginx_support.abort(folder, "abandoned?begin=1", 100)
    local busy
    local ok = support.eventually(function()
      busy = get "busy"
      return busy == "0"
    end, 15)
    assert.is_truthy(ok, "busy connections: " .. tostring(busy))
    support.no_transactions(world)
    assert.equal("0", (get "count?name=abandoned"))
  end)

  it("ends transactions with their request, or with what has adopted them", function()
    local function handed()
      return support.eventually(function()
        local said = get "handed"
        return said ~= "none" and said
      end)
    end
    assert.equal("begun", (get "hand?to=timer"))
    assert.equal("true nil", handed())
    assert.equal("1", (get "count?name=handed%20timer"))
    assert.equal("begun", (get "hand?to=nobody"))
    assert.matches("^nil .*request that the transaction was of has ended", handed())
    assert.equal("0", (get "count?name=handed%20nobody"))
    assert.is_true(support.eventually(function() return get "busy" == "0" end, 15))
    support.no_transactions(world)
  end)

  if not support.is_under_asan() then -- whose allocator has locks that a child inherits as they are
    it("tells a forked child that the orm is the worker's, which goes on", function()
      start_slow(1, "beside.out")
      for _ = 1, 3 do
        assert.matches("^MISUSE: this process was forked off .* 8$", (get "fork"))
      end
      assert.equal("0\n", end_of "beside.out")
    end)
  end

  it("says what to do in phases that cannot wait", function()
    assert.equal("sent", (get "phase"))
    local text = support.eventually(function()
      local logged = get "logged"
      return logged ~= "none" and logged
    end)
    assert.matches("^nil MISUSE: .*phase 'log'.*ngx.timer.at", text)
  end)

  it("survives clients that go away", function()
    for _ = 1, 10 do
      support.shell(string.format("curl -s -m 0.05 --unix-socket %s/web.sock 'http://x/slow?s=0.3'", folder))
    end
    assert.equal("parent", (get("read?id=" .. parent)))
    assert.equal("820", (get "many"))
  end)

  it("lets a worker go at reload, after its requests", function()
    local old = get "pid"
    start_slow(1, "last.out")
    nginx "-s reload"
    assert.is_truthy(worker_gone(old))
    assert.equal("0\n", end_of "last.out")
    local new = get "pid"
    assert.is_not.equal(old, new)
    assert.equal("child", (get("read?id=" .. child)))
    nginx "-s reload"
    assert.is_truthy(worker_gone(new))
  end)
end)
