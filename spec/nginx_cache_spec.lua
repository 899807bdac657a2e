-- SPDX-License-Identifier: MIT
-- User caches under nginx: coroutines of a worker, and workers, load a value once; loading anew beside a
-- request that is answered.

local faults = require "support.faults"
local nginx = require "support.nginx"
local support = require "support.init"

local APP = [[
local regolith = require "regolith"
local Cache = regolith.cache("cache", { ttl_s = 600, lease_s = 20 })
local Alone = regolith.cache("alone", { redis = false })
local Left = regolith.cache("left", { process = false, lease_s = 0.3, wait_s = 20 })
local Brief = regolith.cache("brief", { ttl_s = 0.2, stale_s = 600, background = true })
local config = @orm
config.caches = { Cache, Alone, Brief, Left }
local orm = assert(regolith.open(config))
local pages = {}
local function number(name) return tonumber(ngx.var["arg_" .. name]) end

local function note(text)
  local file = assert(io.open("@name", "a"))
  file:write(text, "\n")
  file:close()
end

-- Many light threads ask for one key; the loader takes a while. Then what all of them got.
function pages.crowd()
  local threads, got = {}, {}
  local cache, key = orm:cache(ngx.var.arg_cache), ngx.var.arg_key
  for i = 1, number "n" do
    threads[i] = ngx.thread.spawn(function()
      return cache:get_or_load(key, function(k)
        note("loading " .. k)
        ngx.sleep(number "s" or 0.3)
        if ngx.var.arg_fails and #got == 0 then return nil, "no luck" end
        return "value of " .. k
      end)
    end)
  end
  for i = 1, #threads do
    local _, v, fault = ngx.thread.wait(threads[i])
    got[i] = tostring(v or fault)
  end
  return table.concat(got, ",")
end
function pages.brief()
  return orm:cache(Brief):get_or_load("k", function()
    ngx.sleep(1)
    note "refreshed"
    return "at " .. ngx.now()
  end)
end
-- A light thread that is killed while it loads.
function pages.kill()
  local thread = ngx.thread.spawn(function() orm:cache(Left):get_or_load("key", function() ngx.sleep(60) end) end)
  ngx.sleep(0.05)
  return tostring(ngx.thread.kill(thread))
end
function pages.left()
  return (orm:cache(Left):get_or_load("key", function() return "loaded" end))
end
function pages.query() return orm:session():query("SELECT 1 AS n")[1].n end
return { serve = function() ngx.say(pages[ngx.var.uri:sub(2)]()) end }
]]

local run = nginx.available() and describe or pending

run("user caches under nginx", function()
  local world, web, notes

  setup(function()
    world = support.world()
    notes = os.tmpname()
    web = nginx.start {
      app = APP:gsub("@name", notes), workers = 2,
      orm = string.format("{ mysql = %q, redis = %q, prefix = %q, entities = {}, workers = 2 }",
        world.mysql_url(world.name), world.redis_url(), world.name),
    }
  end)
  teardown(function()
    web:stop()
    os.remove(notes)
    world:close()
  end)

  local function noted(word)
    local file = io.open(notes)
    local text = file:read "*a"
    file:close()
    return select(2, text:gsub(word, ""))
  end

  it("load a value once for all coroutines of a worker, and once for all workers", function()
    local answer = web:get "crowd?cache=cache&key=one&n=50"
    assert.equal(50, select(2, answer:gsub("value of one", "")))
    assert.equal(1, noted "loading one")
    for i = 1, 8 do web:begin("crowd?cache=cache&key=two&n=5", "two" .. i) end
    for i = 1, 8 do
      faults.await("an answer", function()
        local text = web:read("two" .. i)
        return select(2, text:gsub("value of two", "")) == 5
      end)
    end
    assert.equal(1, noted "loading two")
    answer = web:get "crowd?cache=alone&key=three&n=20"
    assert.equal(20, select(2, answer:gsub("value of three", "")))
    assert.equal(1, noted "loading three")
  end)

  it("hold neither the event loop nor threads while somebody loads", function()
    web:begin("crowd?cache=cache&key=four&n=30&s=3", "four")
    faults.await("the load", function() return noted "loading four" == 1 end)
    for _ = 1, 3 do assert.equal("1", (web:get "query")) end
    assert.equal("", web:read "four") -- still loading
    faults.await("the crowd's answer", function() return web:read("four"):find "value of four" end)
  end)

  it("serve what they have while it is loaded anew beside the request", function()
    local first = web:get "brief"
    faults.pause(300)
    local best = math.huge
    for _ = 1, 3 do
      local body, ms = web:get "brief"
      best = math.min(best, ms)
      if noted "refreshed" == 1 then assert.equal(first, body) end
    end
    assert.is_true(best < 900, best) -- who waited for the load takes a second
    faults.await("the value to be loaded anew", function()
      return noted "refreshed" > 1 and web:get "brief" ~= first
    end)
  end)

  it("go on without a loader that was killed", function()
    assert.equal("1", (web:get "kill"))
    local began = faults.now()
    for _ = 1, 4 do -- of both workers
      assert.equal("loaded", (web:get "left"))
    end
    assert.is_true(faults.now() - began < 10)
  end)
end)
