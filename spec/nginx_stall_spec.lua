-- SPDX-License-Identifier: MIT
-- MySQL and Redis stand still: an nginx goes on with what needs neither, what needs them ends by its deadline with
-- an error that says so, and all is well again when they go on. scripts/bench/stall measures it.

local faults = require "support.faults"
local nginx = require "support.nginx"
local stall = require "support.stall"
local support = require "support.init"

local run = nginx.available() and describe or pending

run("nginx whose servers stand still", function()
  local servers, web
  setup(function()
    servers = faults.servers "stall"
    web = nginx.start { app = stall.APP:gsub("@ids", tostring(stall.IDS)), orm = stall.prepare(servers) }
  end)
  after_each(function()
    servers:continue "mysql"
    servers:continue "redis"
  end)
  teardown(function()
    web:stop()
    servers:remove()
  end)

  local PAGES = { "redis", "mysql", "search", "write", "queue" }
  local N = 40

  --- That many requests at once, whose answers go to files.
  local function ask()
    for i = 1, N do web:begin(PAGES[i % #PAGES + 1] .. "?i=" .. i, "answer" .. i) end
  end
  local function answers()
    return faults.await("the end of all requests", function()
      local list = {}
      for i = 1, N do
        local text = web:read("answer" .. i)
        if text == "" then return false end
        list[i] = text
      end
      return list
    end)
  end
  local function forget() support.shell("rm -f " .. web.folder .. "/answer*") end

  local function await_fine()
    faults.await("all pages to be fine", function()
      for _, page in ipairs(PAGES) do
        local _, _, status = web:get(page)
        if status ~= 200 then return false end
      end
      return true
    end)
    faults.await("idle pools", function() return web:get "busy" == "0" end)
  end

  local function with_stopped(which)
    await_fine()
    local pid = web:get "pid"
    for _, server in ipairs(which) do servers:stop(server) end
    forget()
    ask()
    local best = math.huge
    for _ = 1, 10 do
      local body, ms = web:get "ping"
      assert.equal("pong", body)
      best = math.min(best, ms)
    end
    assert.is_true(best < stall.TIMEOUT_MS / 2, best .. " ms") -- it waits for nobody
    local list = answers()
    for _, server in ipairs(which) do servers:continue(server) end
    await_fine()
    assert.equal(pid, (web:get "pid"))
    return list
  end

  it("ends all that is under way with an error, and recovers", function()
    for _, text in ipairs(with_stopped { "mysql", "redis" }) do
      assert.is_truthy(text:match "^TIMEOUT" or text:match "^UNAVAILABLE" or text:match "^LIMIT", text)
    end
  end)

  it("does not fill the backlog of a server that answers nobody", function()
    await_fine()
    local before = tonumber((web:get "connects"))
    servers:stop "mysql"
    support.shell(string.format("seq 150 | xargs -P 150 -I{} curl -s -m 20 -o /dev/null --unix-socket %s/web.sock "
      .. "http://x/mysql", web.folder))
    local tried = tonumber((web:get "connects")) - before
    servers:continue "mysql"
    assert.is_true(tried < 60, tried .. " connections for 150 requests")
    await_fine()
  end)

  it("reads past a Redis that stands still", function()
    for i, text in ipairs(with_stopped { "redis" }) do
      local page = PAGES[i % #PAGES + 1]
      if page == "redis" or page == "mysql" or page == "search" then assert.equal("fine\n", text) end
    end
  end)

  it("reads from Redis while MySQL stands still", function()
    await_fine()
    for id = 1, 60, 20 do
      faults.await("Redis to have it", function() return web:get("cached?id=" .. id) == "true" end)
    end
    servers:stop "mysql"
    for id = 1, 60, 20 do assert.equal("fine", (web:get("redis?id=" .. id))) end
    local body, _, status = web:get "mysql"
    assert.equal(503, status)
    assert.matches("^TIMEOUT ", body)
    servers:continue "mysql"
    await_fine()
  end)

  it("serves what is quick beside statements that take long", function()
    await_fine()
    for i = 1, 6 do web:begin("slow?s=30", "slow" .. i) end
    for _ = 1, 5 do
      local _, _, status = web:get "redis"
      assert.equal(200, status)
    end
    for i = 1, 6 do
      local text = faults.await("the end of a slow one", function()
        local said = web:read("slow" .. i)
        return said ~= "" and said
      end)
      assert.matches("^TIMEOUT ", text)
    end
    await_fine()
  end)
end)
