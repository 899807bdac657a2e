-- SPDX-License-Identifier: MIT
-- The consumer within nginx: one owner among the workers, another when that one is killed, and every queued write
-- applied once. REGOLITH_LONG=1: for longer.

local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local KILLS = os.getenv "REGOLITH_LONG" and 60 or 3
local LEASE_MS = 1500
--- What a busy machine adds to it.
local BUSY_S = 10

local APP = [[
local regolith = require "regolith"
local web = require "regolith.nginx"
local field = regolith.field
local Item = regolith.entity("item", { field.string "name" { length = 40, unique = true }, cache = true })
local orm = assert(regolith.open(@orm))
local M, pages = {}, {}

-- Who consumes, and since when, for the spec; the library does not tell.
local real = orm.consumer
orm.consumer = function(self, opts)
  ngx.shared.spec:set("owner", ngx.worker.pid())
  return real(self, opts)
end
function M.start() web.consume(orm, { lease_ms = @lease, retry_s = 1 }) end

function pages.owner() return ngx.shared.spec:get "owner" end
function pages.put(db)
  assert(db:new(Item, { name = ngx.var.arg_name }))
  local ok, err = db:flush_async()
  return ok and "queued" or tostring(err)
end
return { start = M.start, serve = function()
  local db = orm:session()
  ngx.say(tostring(pages[ngx.var.uri:sub(2)](db)))
  db:close()
end }
]]

local run = nginx.available() and describe or pending

run("the consumer of an nginx", function()
  local world, web, sql, queued

  setup(function()
    world = support.world()
    local Item = regolith.entity("item", {
      regolith.field.string "name" { length = 40, unique = true }, cache = true,
    })
    local orm = world:open { Item }
    sql = orm:session()
    must(sql:connection(function(conn)
      must(conn:execute "CREATE TABLE applied (n INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL)")
      return conn:execute("CREATE TRIGGER each_time BEFORE INSERT ON item FOR EACH ROW "
        .. "INSERT INTO applied (name) VALUES (NEW.name)")
    end))
    web = nginx.start {
      app = APP:gsub("@lease", tostring(LEASE_MS)), workers = 3,
      orm = string.format("{ mysql = %q, redis = %q, prefix = %q, entities = { Item } }",
        world.mysql_url(world.name), world.redis_url(), world.name),
      http = "lua_shared_dict spec 1m; init_worker_by_lua_block { app.start() }",
    }
    queued = 0
  end)
  teardown(function()
    sql:close()
    web:stop "exited on signal 9"
    world:close()
  end)

  --- Queues so many; a request that dies with its worker has no answer, and its write is not counted on.
  local function put(n)
    local names = {}
    for _ = 1, n do
      queued = queued + 1
      names[#names + 1] = web:get("put?name=w" .. queued) == "queued" and "w" .. queued or nil
    end
    return names
  end

  local function times(name)
    return tonumber(must(sql:query("SELECT COUNT(*) AS n FROM applied WHERE name = ?", name))[1].n)
  end

  local function await_applied(names, seconds)
    faults.await("the writes", function() return times(names[#names]) > 0 end, seconds)
    for _, name in ipairs(names) do
      assert.equal(1, times(name), name)
    end
  end

  local function owner() return tonumber((web:get "owner")) end

  it("is in one worker", function()
    await_applied(put(20), 20)
    local among = false
    for _, pid in ipairs(web:workers()) do among = among or pid == owner() end
    assert.is_true(among)
  end)

  it("is taken over within its lease when that worker is killed, and applies everything once", function()
    for kill = 1, KILLS do
      local killed = owner()
      local before = put(5) -- some of them are just being applied
      support.shell("kill -9 " .. killed)
      local died = faults.now()
      local after = put(5)
      faults.await("another consumer", function() return owner() ~= killed end, LEASE_MS / 1000 + BUSY_S)
      if #after > 0 then await_applied(after, BUSY_S) end
      if #before > 0 then await_applied(before, BUSY_S) end
      local took = faults.now() - died
      if KILLS > 3 then print(string.format("kill %d: applied after %.2f s", kill, took)) end
    end
    local twice = must(sql:query "SELECT name FROM applied GROUP BY name HAVING COUNT(*) > 1")
    assert.equal(0, #twice)
    local lost = must(sql:query "SELECT a.name FROM applied a LEFT JOIN item i ON i.name = a.name WHERE i.id IS NULL")
    assert.equal(0, #lost)
  end)

  it("goes on at once in another worker when the workers are replaced", function()
    local before = owner()
    web:command "-s reload"
    await_applied(put(5), 20)
    faults.await("another consumer", function() return owner() ~= before end, 20)
  end)
end)
