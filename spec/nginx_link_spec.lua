-- SPDX-License-Identifier: MIT
-- nginx' own way to Redis: reads by id of one turn of the event loop are one question of the worker itself; what
-- is not simply there, and whatever happens to the connection, goes by the engine's threads as if it were not.

local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local IDS, PASSWORD = 40, "of its own"

local APP = [[
local regolith = require "regolith"
local field = regolith.field
local Item = regolith.entity("item", {
  field.string "name", field.uint32 "n" { default = 0 }, cache = { redis = true },
})
local orm = assert(regolith.open(@orm))
local pages = {}
local function number(name) return tonumber(ngx.var["arg_" .. name]) end

local function read(id)
  local db = orm:session()
  local item, err = db:get(Item, id)
  db:close()
  if err then error(tostring(err)) end
  return item
end
-- That many rows at once, and as many questions to Redis.
function pages.many()
  local threads, wrong, before = {}, 0, orm:counter "regolith_redis_commands_total"
  for i = 1, @ids do threads[i] = ngx.thread.spawn(read, i) end
  for i = 1, @ids do
    local _, item = ngx.thread.wait(threads[i])
    if not item or item.name ~= "item " .. i then wrong = wrong + 1 end
  end
  return wrong .. " " .. orm:counter "regolith_redis_commands_total" - before
end
function pages.name()
  local item = read(number "id")
  return item and item.name or "none"
end
-- What its only writer wrote is what is read from then on, by anybody.
function pages.write()
  local id, wrong = number "id", 0
  for _ = 1, 40 do
    local db = orm:session()
    local item = assert(db:get(Item, id))
    item.n = item.n + 1
    local n, ok = item.n, db:flush()
    db:close()
    local threads = {}
    for i = 1, 3 do threads[i] = ngx.thread.spawn(read, id) end
    for i = 1, 3 do
      local _, seen = ngx.thread.wait(threads[i])
      if ok and seen.n < n then wrong = wrong + 1 end
    end
  end
  return wrong
end
function pages.timers() return ngx.timer.running_count() end
return { serve = function()
  local ok, said = pcall(pages[ngx.var.uri:sub(2)])
  if not ok then ngx.status = 500 end
  ngx.say(tostring(said))
end }
]]

local run = nginx.available() and describe or pending

run("nginx' own way to Redis", function()
  local servers, web

  local function redis(command)
    local call = "redis-cli --no-auth-warning -s '%s' -a '%s' -n 2 %s 2>&1"
    return (support.shell(string.format(call, servers.redis_socket, PASSWORD, command)))
  end

  setup(function()
    servers = faults.servers "link"
    local Item = regolith.entity("item", {
      regolith.field.string "name", regolith.field.uint32 "n" { default = 0 }, cache = { redis = true },
    })
    redis("CONFIG SET requirepass '" .. PASSWORD .. "'")
    local url = string.format("redis+unix://:%s@%s?db=2", (PASSWORD:gsub(" ", "%%20")), servers.redis_socket)
    local orm = servers:open({ Item }, { redis = url })
    local db = orm:session()
    for i = 1, IDS do db:new(Item, { name = "item " .. i }) end
    must(db:flush())
    db:close()
    web = nginx.start {
      app = APP:gsub("@ids", tostring(IDS)),
      orm = string.format("{ mysql = %q, redis = %q, entities = { Item } }", servers:mysql_url(), url),
    }
  end)
  teardown(function()
    web:stop "connect%(%) to unix:%S+redis%.sock failed" -- a spec kills it
    servers:remove()
  end)

  --- Reads go by it: its light thread runs beside the pump, and forty are one question.
  local function await_link()
    local said, timers
    local ok = pcall(faults.await, "reads to go together", function()
      said, timers = web:get "many", web:get "timers"
      local wrong, asked = said:match "^(%d+) (%d+)$"
      assert.equal("0", wrong, said)
      return asked == "1" and timers == "2"
    end)
    assert.is_true(ok, said .. ", timers " .. timers)
  end

  it("asks once for what many requests want at a time, past a password and in a database of its own", await_link)

  it("leaves what Redis has not to the threads", function()
    await_link()
    redis "DEL '{rg}:e:item:7' '{rg}:e:item:8'"
    redis "SET '{rg}:e:item:9' nonsense"
    assert.equal("item 7", (web:get "name?id=7"))
    assert.matches("^0 ", (web:get "many"))
    assert.equal("none", (web:get "name?id=1000"))
    assert.equal("none", (web:get "name?id=1000")) -- from Redis by now
    await_link()
  end)

  it("never reads what was replaced", function()
    await_link()
    for i = 1, 4 do web:begin("write?id=" .. i, "written" .. i) end
    for i = 1, 4 do
      local text = faults.await("the end of the writers", function()
        local said = web:read("written" .. i)
        return said ~= "" and said
      end, 60)
      assert.equal("0\n", text)
    end
  end)

  it("is made anew when its connection is lost, and nobody notices", function()
    for _ = 1, 3 do
      await_link()
      redis "CLIENT KILL TYPE normal"
      assert.matches("^0 ", (web:get "many"))
    end
    await_link()
  end)

  it("goes on with a server that has lost everything", function()
    await_link()
    redis "FLUSHALL"
    assert.matches("^0 ", (web:get "many"))
    await_link()
    servers:kill "redis"
    for i = 1, 5 do assert.equal("item " .. i, (web:get("name?id=" .. i))) end
    servers:start()
    redis("CONFIG SET requirepass '" .. PASSWORD .. "'")
    await_link()
  end)

  it("is nobody's when requests are killed", function()
    await_link()
    servers:stop "redis"
    for i = 1, 20 do web:abort("name?id=" .. i, 5) end
    servers:continue "redis"
    await_link()
    assert.equal("item 3", (web:get "name?id=3"))
  end)

  if os.getenv "REGOLITH_LONG" then
    it("gives a connection up that does not answer for seconds", function()
      await_link()
      servers:stop "redis"
      for i = 1, 70 do
        assert.equal("item " .. i % 8 + 1, (web:get("name?id=" .. i % 8 + 1)))
        faults.pause(100)
      end
      assert.equal("1", (web:get "timers"))
      servers:continue "redis"
      await_link()
    end)
  end

  it("does not keep its worker", function()
    for _ = 1, 3 do
      await_link()
      local old = web:workers()[1]
      web:command "-s reload"
      faults.await("the end of the old worker", function()
        local workers = web:workers()
        return #workers == 1 and workers[1] ~= old
      end)
    end
    await_link()
  end)
end)
