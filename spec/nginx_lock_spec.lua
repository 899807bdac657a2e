-- SPDX-License-Identifier: MIT
-- Locks under nginx: waiting for one holds neither the event loop nor a worker thread.

local faults = require "support.faults"
local nginx = require "support.nginx"
local support = require "support.init"

local must = support.must

local APP = [[
local regolith = require "regolith"
local orm = assert(regolith.open(@orm))
local pages, lost, had = {}, "nothing", 0
local function number(name) return tonumber(ngx.var["arg_" .. name]) end

-- nginx misses a client that went before its request was read: who is to be missed waits for a word first.
local function begin(when)
  if ngx.var.arg_when ~= when then return end
  ngx.say "begun"
  ngx.flush(true)
end

-- Takes the lock, keeps it for a while, gives it back.
function pages.hold()
  begin "first"
  local lock, err = orm:lock("page", { wait_ms = number "wait" or 0 })
  if not lock then return tostring(lock) .. " " .. tostring(err) end
  begin "held"
  if number "s" > 0 then ngx.sleep(number "s") end
  assert(lock:release())
  return string.format("%.0f", lock.token)
end
function pages.query() return orm:session():query("SELECT 1 AS n")[1].n end
function pages.advisory()
  local lock = orm:advisory_lock("@name.page", { timeout_ms = number "wait" })
  if not lock then return "false" end
  had = had + 1
  begin "held"
  if number "s" > 0 then ngx.sleep(number "s") end
  assert(lock:release())
  return "had"
end
-- A lease that ends: word comes without being asked for.
local kept
function pages.lose()
  kept = assert(orm:lock("lose", { ttl_ms = 1000, renew = false, keep = true, on_lost = function(lock)
    ngx.sleep(0.001) -- it may wait
    lost = lock.name
  end }))
  return "ok"
end
function pages.lost() return lost end
function pages.had() return had end
return { serve = function() ngx.say(pages[ngx.var.uri:sub(2)]()) end }
]]

local run = nginx.available() and describe or pending

run("locks under nginx", function()
  local world, web

  setup(function()
    world = support.world()
    web = nginx.start {
      app = APP:gsub("@name", world.name),
      orm = string.format("{ mysql = %q, redis = %q, prefix = %q, entities = {}, workers = 2 }",
        world.mysql_url(world.name), world.redis_url(), world.name),
    }
  end)
  teardown(function()
    web:stop()
    world:close()
  end)

  local function await_lock()
    local key = "{" .. world.name .. "}:lock:page"
    faults.await("the lock", function() return support.redis("EXISTS", key)[1] == "1" end)
  end

  it("are waited for by more requests than there are threads, while others are served", function()
    web:begin("hold?s=3", "first")
    await_lock()
    assert.equal("false nil", (web:get "hold?s=0"))
    for i = 1, 6 do web:begin("hold?s=0.01&wait=15000", "out" .. i) end
    local _, best = nil, math.huge
    for _ = 1, 3 do
      local body, ms = web:get "query"
      assert.equal("1", body)
      best = math.min(best, ms)
    end
    assert.equal("", web:read "first")
    assert.is_true(best < 1500, best) -- the lock is held for three seconds
    local last = tonumber(faults.await("the first", function()
      return web:read("first"):match "%d+"
    end))
    for i = 1, 6 do
      local token = faults.await("the others", function() return web:read("out" .. i):match "%d+" end)
      assert.is_true(tonumber(token) > last)
    end
  end)

  it("tell of their loss", function()
    assert.equal("ok", (web:get "lose"))
    faults.await("word", function() return web:get "lost" == "lose" end)
  end)

  it("are not taken by requests that were aborted while they waited", function()
    web:begin("hold?s=0.5", "first")
    await_lock()
    for _ = 1, 3 do web:abort("hold?s=10&wait=15000&begin=1&when=first", 20) end
    local body = must((web:get "hold?s=0&wait=15000"))
    assert.matches("^%d+$", body)
  end)

  it("are given back when the request that has one is aborted", function()
    web:abort("hold?s=10&wait=15000&begin=1&when=held", 20)
    assert.matches("^%d+$", (web:get "hold?s=0&wait=5000"))
    web:abort("advisory?s=10&wait=15000&begin=1&when=held", 20)
    assert.equal("had", (web:get "advisory?s=0&wait=5000"))
  end)

  it("of MySQL are waited for without blocking the loop", function()
    local had = tonumber((web:get "had"))
    web:begin("advisory?s=2&wait=0", "first")
    faults.await("the first", function() return tonumber((web:get "had")) == had + 1 end)
    web:begin("advisory?s=0&wait=9000", "second")
    assert.equal("pong", (web:get "ping"))
    assert.equal("", web:read "second")
    faults.await("both", function() return web:read "first" == "had\n" and web:read "second" == "had\n" end)
  end)
end)
