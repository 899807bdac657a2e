-- SPDX-License-Identifier: MIT
-- One process cache for all workers of an nginx: what one has read all have, what one writes none reads any more,
-- and workers that are killed or stopped at any moment take nothing away from that. REGOLITH_LONG=1: for longer.

local faults = require "support.faults"
local nginx = require "support.nginx"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local LONG = os.getenv "REGOLITH_LONG" ~= nil
local WORKERS = 4
--- How long the cache may be older than what is committed elsewhere: the ping interval and its time-out; and
--- what a busy machine adds.
local STALE_S = 1.5 + 2

local APP = [[
local regolith = require "regolith"
local field = regolith.field
local Item = regolith.entity("item", {
  field.string "name" { unique = true, length = 40 }, field.uint32 "n" { default = 0 }, cache = true,
})
local orm = assert(regolith.open(@orm))
local pages = {}
local function number(name) return tonumber(ngx.var["arg_" .. name]) end

-- The worker, the number, and whether the cache in memory had it.
function pages.read(db)
  local before = orm:counter "regolith_process_cache_hits_total"
  local item = assert(db:get(Item, number "id"))
  local hit = orm:counter "regolith_process_cache_hits_total" > before
  while ngx.now() < ngx.req.start_time() + (number "wait" or 0) do ngx.update_time() end -- others serve meanwhile
  return string.format("%d %d %s", ngx.worker.pid(), item.n, tostring(hit))
end
function pages.find(db) return tostring((assert(db:by(Item, "name", ngx.var.arg_name))).n) end
function pages.write(db)
  local item = assert(db:get(Item, number "id"))
  item.n = item.n + 1
  assert(db:flush())
  return tostring(item.n)
end
-- So many others, that push each other out.
function pages.crowd(db)
  for i = 1, number "to" do assert(db:get(Item, number "id" + i)) end
  return "read"
end
return { serve = function()
  local db = orm:session()
  local ok, said = pcall(pages[ngx.var.uri:sub(2)], db)
  db:close()
  if not ok then ngx.status = 500 end
  ngx.say(tostring(said))
end }
]]

local run = nginx.available() and describe or pending

run("a process cache that all workers share", function()
  local world, web, id, place, outside, Item

  local function config(mb)
    return string.format("{ mysql = %q, redis = %q, prefix = %q, entities = { Item }, timeout_ms = 20000, "
      .. "process_cache = { shared = %q, mb = %d } }", world.mysql_url(world.name, "&pool=4"), world.redis_url(),
      world.name, place, mb)
  end

  setup(function()
    world = support.world()
    Item = regolith.entity("item", {
      regolith.field.string "name" { unique = true, length = 40 }, regolith.field.uint32 "n" { default = 0 },
      cache = true,
    })
    outside = world:open { Item } -- another machine, say
    local db = outside:session()
    local one = db:new(Item, { name = "one" })
    for i = 1, 300 do db:new(Item, { name = "other " .. i }) end
    must(db:flush())
    id = one.id
    db:close()
    place = support.shell("mktemp -d"):gsub("\n", "")
    web = nginx.start { app = APP, orm = config(8), workers = WORKERS }
  end)
  teardown(function()
    web:stop "exited on signal 9"
    world:close()
    support.shell("rm -rf '" .. place .. "'")
  end)

  local function read()
    local body, _, status = web:get(string.format("read?id=%.0f", id))
    if status ~= 200 then return nil, body end
    local pid, n, hit = body:match "^(%d+) (%d+) (%a+)$"
    return { pid = tonumber(pid), n = tonumber(n), hit = hit == "true" }
  end

  --- Until the cache answers: who listens hears Redis.
  local function await_hit()
    return faults.await("a hit", function()
      local answer = read()
      return answer and answer.hit and answer
    end)
  end

  --- Each worker's answer to one request, by process: of so many at a time that all of them are busy.
  local function from_all(wanted)
    local by, n = {}, 0
    local crowd = string.format("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do curl -s -m 20 --unix-socket %s/web.sock "
      .. "'http://x/read?wait=0.02&id=%.0f' & done; wait", web.folder, id)
    faults.await("an answer of each worker", function()
      for pid, number, hit in support.shell(crowd):gmatch "(%d+) (%d+) (%a+)" do
        if not by[pid] then n = n + 1 end
        by[pid] = by[pid] or { n = tonumber(number), hit = hit == "true" }
      end
      return n == wanted
    end)
    return by
  end

  local function write_outside()
    local db = outside:session()
    local item = must(db:get(Item, id))
    item.n = item.n + 1
    must(db:flush())
    db:close()
    return item.n
  end

  local function files()
    local list = {}
    for name in support.shell("ls " .. place):gmatch "[^\n]+" do
      if name:find "%.cache$" then list[#list + 1] = name end
    end
    return list
  end

  it("gives what one worker has read to all of them, from one memory", function()
    await_hit()
    for _, answer in pairs(from_all(WORKERS)) do assert.is_true(answer.hit) end
    assert.equal(1, #files())
    assert.equal(tostring(8 * 1048576), (support.shell("stat -c %s " .. place .. "/" .. files()[1]):gsub("\n", "")))
    assert.equal("600", (support.shell("stat -c %a " .. place .. "/" .. files()[1]):gsub("\n", "")))
  end)

  it("shows what one of them writes to all of them, at once", function()
    for _ = 1, LONG and 150 or 8 do
      await_hit()
      local n = tonumber((web:get(string.format("write?id=%.0f", id))))
      for _ = 1, 4 do assert.equal(n, must(read()).n) end
      assert.equal(tostring(n), (web:get "find?name=one"))
    end
  end)

  it("shows what is written elsewhere within the ping interval and its time-out", function()
    for _ = 1, LONG and 40 or 4 do
      await_hit()
      local n = write_outside()
      faults.await("the new value", function() return must(read()).n == n end, STALE_S)
      for _, answer in pairs(from_all(WORKERS)) do assert.equal(n, answer.n) end
    end
  end)

  it("goes on when the worker that listens for all is stopped, and when it goes on itself", function()
    await_hit()
    local pids = web:workers()
    for i = 1, WORKERS - 1 do support.shell("kill -STOP " .. pids[i]) end -- one of them may be it
    local n = write_outside()
    -- A request may wait at a stopped worker: then it is asked for again.
    local function ask()
      local body = web:get(string.format("read?id=%.0f", id), "-m 1")
      return body and tonumber(body:match "^%d+ (%d+)"), body and body:match "true$"
    end
    local deadline = faults.now() + STALE_S
    faults.await("the new value", function()
      local began = faults.now()
      local got = ask()
      if got and began > deadline then assert.equal(n, got) end
      return got == n
    end)
    faults.await("a hit without the stopped ones", function()
      local got, hit = ask()
      return got and hit
    end)
    local m = write_outside()
    faults.await("the next value", function() return ask() == m end)
    for i = 1, WORKERS - 1 do support.shell("kill -CONT " .. pids[i]) end
    for _, answer in pairs(from_all(WORKERS)) do assert.equal(m, answer.n) end
    await_hit()
  end)

  it("never answers with what was replaced, while workers are killed at random", function()
    math.randomseed(11)
    local n, hits, kills = must(read()).n, 0, 0
    for i = 1, LONG and 1000 or 60 do
      if i % 6 == 0 then
        local pids = web:workers()
        support.shell("kill -9 " .. pids[math.random(#pids)])
        kills = kills + 1
      end
      if i % 3 == 0 then
        local written = tonumber((web:get(string.format("write?id=%.0f", id))))
        if written then n = written end
      end
      if i % 5 == 0 then web:get(string.format("crowd?id=%.0f&to=100", id)) end
      local answer = read()
      if answer then
        assert.is_true(answer.n >= n, string.format("%d, after %d was written", answer.n, n))
        n = answer.n
        if answer.hit then hits = hits + 1 end
      end
    end
    assert.is_true(kills >= 10)
    faults.await("all workers", function() return #web:workers() == WORKERS end)
    await_hit()
    for _, answer in pairs(from_all(WORKERS)) do assert.equal(n, answer.n) end
  end)

  it("is another one after a reload with another size, and the old one goes", function()
    await_hit()
    local old = files()[1]
    local before = web:workers()
    web:write("app.lua", (APP:gsub("@orm", function() return config(16) end)))
    web:command "-s reload"
    faults.await("new workers", function()
      for _, pid in ipairs(web:workers()) do
        for _, gone in ipairs(before) do if pid == gone then return false end end
      end
      return #web:workers() == WORKERS
    end)
    await_hit()
    local n = tonumber((web:get(string.format("write?id=%.0f", id))))
    for _, answer in pairs(from_all(WORKERS)) do assert.equal(n, answer.n) end
    faults.await("the end of the old memory", function()
      web:command "-s reload" -- who comes clears up
      faults.pause(100)
      for _, name in ipairs(files()) do if name == old then return false end end
      return true
    end)
    await_hit()
  end)
end)
