-- SPDX-License-Identifier: MIT
-- regolith.nginx: the session of a request, pages for readiness and metrics, a consumer in one worker; and
-- what it says to who uses it in the wrong place.

local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local run = nginx.available() and describe or pending

local ENTITIES = [[
  local regolith = require "regolith"
  local field = regolith.field
  return { regolith.entity("item", { field.string "name" { required = true, unique = true }, cache = true }) }
]]

local APP = [[
  local regolith = require "regolith"
  local web = require "regolith.nginx"
  local Item = require("entities")[1]
  local told = {}
  local orm = assert(regolith.open(@orm))
  local lost = assert(regolith.open { mysql = "mysql+unix:///nowhere.sock?user=root&db=x",
    redis = "redis+unix:///nowhere.sock", entities = { Item }, lazy = true })
  local pages, M = {}, {}

  -- raises once: that must not be the end of it
  local real = orm.consumer
  orm.consumer = function(self, opts)
    orm.consumer = real
    error("raised by the application", 0)
  end

  local function try(fn, ...) return tostring(select(2, pcall(fn, ...))) end

  local early = {}
  function M.start()
    early.session = try(web.session, orm)
    early.sample = try(web.sample, orm)
    early.queue = try(web.consume, orm, { queue = "defalt" })
    early.option = try(web.consume, orm, { on_eror = print })
    web.consume(orm, { retry_s = 1, on_error = function(err) told[#told + 1] = tostring(err) end })
  end

  function pages.session()
    local db = web.session(orm)
    assert(db == web.session(orm))
    M.last = db
    return tostring(db:query("SELECT 7 AS n")[1].n)
  end
  function pages.last() return M.last and try(function() return M.last:query "SELECT 1" end) or "none" end
  function pages.put()
    local db = web.session(orm)
    assert(db:new(Item, { name = ngx.var.arg_name }))
    assert(db:flush_async())
    return "queued"
  end
  function pages.mistakes()
    return table.concat({
      "session: " .. try(web.session, {}), "ready: " .. try(web.ready, nil), "time: " .. try(web.ready, orm, "1s"),
      "consume: " .. try(web.consume, orm), "sample: " .. try(web.sample, {}), "console: " .. try(web.console, orm),
      "early session: " .. early.session, "early sample: " .. early.sample, "queue: " .. early.queue,
      "option: " .. early.option,
    }, "\n")
  end
  function pages.told() return table.concat(told, "\n") end
  function pages.ready() return web.ready(orm) end
  function pages.lost() return web.ready(lost, 500) end
  function pages.metrics() return web.metrics(orm) end

  function M.serve() ngx.say(pages[ngx.var.uri:sub(2)]()) end
  return M
]]

run("regolith.nginx", function()
  local world, orm, db, web

  setup(function()
    world = support.world()
    orm = world:open { must(loadstring(ENTITIES))()[1] }
    db = orm:session()
    web = nginx.start {
      app = APP, workers = 2, files = { ["entities.lua"] = ENTITIES },
      orm = string.format("{ mysql = %q, redis = %q, prefix = %q, entities = { Item } }",
        world.mysql_url(world.name), world.redis_url(), world.name),
      http = "init_worker_by_lua_block { app.start() } log_by_lua_block { require('regolith.nginx').close() }",
    }
  end)
  teardown(function()
    db:close()
    web:stop()
    world:close()
  end)

  local function applied(name) return #must(db:query("SELECT id FROM item WHERE name = ?", name)) == 1 end

  it("gives a request one session, and ends it", function()
    assert.equal("7", (web:get "session"))
    faults.await("the worker that had the session", function()
      web:get "session"
      return web:get "last":find "closed"
    end)
  end)

  it("tells whether every server answers", function()
    local text, _, status = web:get "ready"
    assert.equal(200, status)
    assert.is_true(regolith.json_decode(text).ready)
    text, _, status = web:get "lost"
    assert.equal(503, status)
    local answer = regolith.json_decode(text)
    assert.is_false(answer.ready)
    assert.equal("mysql", answer.pools[1].kind)
    assert.is_false(answer.pools[1].ok)
    text = web:get "metrics"
    assert.matches('regolith_pool_waiting{kind="mysql",pool="default"} 0', text)
    assert.matches('regolith_pool_errors_total{kind="redis",pool="default"} %d', text)
  end)

  it("consumes in a worker, whatever the application raises and when the workers change", function()
    web:get "put?name=first"
    faults.await("the first write", function() return applied "first" end)
    faults.await("word of what was raised", function() return (web:get "told" or ""):find "raised by the app" end)
    web:command "-s reload"
    web:get "put?name=second"
    faults.await("the second write", function() return applied "second" end, 60)
  end)

  it("shows why an orm cannot be opened in init_by_lua", function()
    web:write("bad.lua", 'assert(require("regolith").open { mysql = "mysql://x@localhost", entities = {} })')
    local conf = web:read("nginx.conf"):gsub('require "app"', 'require "bad"'):gsub("web%.sock", "bad.sock")
    web:write("bad.conf", (conf:gsub("error%.log", "bad.log"):gsub("nginx%.pid", "bad.pid")))
    local out = support.shell(string.format("/usr/sbin/nginx -p %s -c %s/bad.conf", web.folder, web.folder), true)
    assert.equal("", web:read "bad.pid")
    assert.matches("CONFIG: mysql pool 'default': names no database", out .. web:read "bad.log")
  end)

  it("says what is wrong where it is used wrongly", function()
    local text = web:get "mistakes"
    local function said(name, pattern) assert.matches(pattern, text:match(name .. ": ([^\n]*)")) end
    said("session", "session takes what regolith.open gives")
    said("ready", "ready takes what regolith.open gives")
    said("time", "ready takes a time in milliseconds")
    said("consume", "consume cannot be used in content: call it once a worker, in init_worker_by_lua")
    said("sample", "sample cannot be used in content: call it once a worker")
    said("console", "console takes what require%(\"regolith.console\"%).new gives")
    said("early session", "session cannot be used in init_worker: it is for requests; use orm:session%(%)")
    said("early sample", "sample takes what require")
    said("queue", "consume: there is no queue 'defalt' %(did you mean 'default'%?%)")
    said("option", "unknown option 'on_eror' %(did you mean 'on_error'%?%)")
    local _, message = pcall(require("regolith.nginx").session, orm)
    assert.matches("session works inside of nginx only", message)
  end)
end)
