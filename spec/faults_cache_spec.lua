-- SPDX-License-Identifier: MIT
-- Caches that lie, lose everything or cannot be heard: reads are right all the same.

local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"
local support = require "support.init"

local bit = require "bit"
local must = support.must
local field = regolith.field

local Item = regolith.entity("item", {
  field.string "name" { unique = true }, field.uint32 "shelf" { index = true, cached = true },
  field.string "text" { nullable = true }, field.double "x", field.json "more",
  cache = { redis = true, all = true },
})

describe("the Redis tier", function()
  local world, orm, redis
  local names, items = { "a", "b", "c", "d" }, {}
  local prefix

  setup(function()
    world = support.world()
    orm = world:open { Item }
    redis = faults.redis()
    prefix = "{" .. world.name .. "}:"
    local db = orm:session()
    for i, name in ipairs(names) do
      items[i] = db:new(Item, { name = name, shelf = i < 4 and 1 or 2, text = i > 1 and ("t"):rep(i) or nil, x = i / 3,
        more = { name, i } })
    end
    must(db:flush())
  end)
  teardown(function()
    redis:close()
    world:close()
  end)

  --- Everything that is cached, read, is as MySQL has it.
  local function check(what)
    local db = orm:session()
    local function same(i, e)
      local ok = e and e.id == items[i].id and e.name == names[i] and e.shelf == (i < 4 and 1 or 2)
        and e.x == i / 3 and e.more[2] == i and #(e.text or "") == (i > 1 and i or 0)
      if not ok then error(what .. ": item " .. i .. " is read as " .. regolith.json_encode(e or "nothing"), 2) end
    end
    for i in ipairs(names) do same(i, must(db:get(Item, items[i].id))) end
    db:clear()
    same(2, db:by(Item, "name", "b"))
    db:clear()
    local list = must(db:all_by(Item, "shelf", 1))
    if #list ~= 3 then error(what .. ": a list of " .. #list, 2) end
    for i = 1, 3 do same(i, list[i]) end
    db:clear()
    list = must(db:all(Item))
    if #list ~= 4 then error(what .. ": all are " .. #list, 2) end
    for i = 1, 4 do same(i, list[i]) end
    if db:by(Item, "name", "z") then error(what .. ": something for nothing", 2) end
    db:close()
  end

  local function keys()
    check "warming"
    check "warm"
    return redis:call("KEYS", prefix .. "[el]:*")
  end

  --- Reads item 2 by the way that a key serves.
  local function read_through(key)
    local db = orm:session()
    local e
    if key:find(":l:item:shelf", 1, true) then
      local list = must(db:all_by(Item, "shelf", 1))
      assert.same({ 3, 1, 2, 3 }, { #list, list[1].more[2], list[2].more[2], list[3].more[2] })
      e = list[2]
    elseif key:find(":l:item:all", 1, true) then
      local list = must(db:all(Item))
      assert.equal(4, #list)
      e = list[2]
    elseif key:find(":l:", 1, true) then e = must(db:by(Item, "name", "b"))
    else e = must(db:get(Item, items[2].id)) end
    assert.same({ items[2].id, "b", 1, "tt", 2 / 3, "b" }, { e.id, e.name, e.shelf, e.text, e.x, e.more[1] })
    db:close()
  end

  local function targets()
    return faults.await("a row and three lists in Redis", function() -- which keeps nothing when it is late
      local wanted = {}
      for _, key in ipairs(keys()) do
        local serves = key:find(":e:item:" .. items[2].id .. "$") or key:find ":l:item:shelf%."
          or key:find ":l:item:all%." or key:find ":l:item:name%.%x+:rsb" or key:find ":l:item:name%.%x+:r.*b$"
        if serves then wanted[#wanted + 1] = key end
      end
      return #wanted == 4 and wanted
    end)
  end

  it("never believes an entry with a bit turned", function()
    local before = orm:counter "regolith_cache_corrupt_total"
    local turned = 0
    for _, key in ipairs(targets()) do
      local sound = redis:call("GET", key)
      for at = 1, #sound do
        for b = 0, 7 do
          local byte = string.char(bit.bxor(sound:byte(at), bit.lshift(1, b)))
          redis:call("SET", key, sound:sub(1, at - 1) .. byte .. sound:sub(at + 1))
          local ok, fault = pcall(read_through, key)
          if not ok then
            error(string.format("%s, byte %d (%s), bit %d: %s", key, at, sound:sub(1, 1), b, tostring(fault)))
          end
          turned = turned + 1
        end
      end
      redis:call("DEL", key)
    end
    assert.is_true(turned > 1000)
    assert.is_true(orm:counter "regolith_cache_corrupt_total" > before)
    check "afterwards"
  end)

  it("never believes an entry that was cut or prolonged", function()
    for _, key in ipairs(targets()) do
      local sound = redis:call("GET", key)
      local is_list = key:find(":l:", 1, true)
      for len = 0, #sound - 1 do
        -- a list of fewer ids is a list: only Redis itself can lose an id
        if not (is_list and len >= 9 and (len - 9) % 8 == 0) then
          redis:call("SET", key, sound:sub(1, len))
          read_through(key)
        end
      end
      for _, tail in ipairs { "\0", "x", ("\255"):rep(7), ("y"):rep(100) } do
        redis:call("SET", key, sound .. tail)
        read_through(key)
      end
      redis:call("DEL", key)
    end
    check "afterwards"
  end)

  it("never believes garbage, whatever it looks like", function()
    math.randomseed(7)
    local function noise(n)
      local bytes = {}
      for i = 1, n do bytes[i] = string.char(math.random(0, 255)) end
      return table.concat(bytes)
    end
    local epoch = redis:call("GET", prefix .. "ep")
    for _, key in ipairs(targets()) do
      for _, letter in ipairs { "V", "P", "Q", "D", "L", "M", "X", "T", "N", "?", "\0" } do
        for _, n in ipairs { 0, 1, 8, 9, 24, 33, 41, 42, 90 } do
          redis:call("SET", key, letter .. noise(n))
          read_through(key)
        end
        if letter ~= "N" then
          redis:call("SET", key, letter .. epoch .. noise(60))
          read_through(key)
        end
      end
      redis:call("SET", key, ("0"):rep(2 ^ 20))
      read_through(key)
      redis:call("DEL", key)
    end
    check "afterwards"
  end)

  it("serves the right row of a key that holds another's", function()
    targets()
    local row = function(i) return prefix .. "e:item:" .. items[i].id end
    redis:call("SET", row(2), (redis:call("GET", row(3))))
    check "a row of another"
    local lists = {}
    for _, key in ipairs(keys()) do
      local holds_ids = key:find ":l:item:name" and #redis:call("GET", key) > 9
      if holds_ids then lists[#lists + 1] = key end
    end
    local first = redis:call("GET", lists[1])
    for i = 2, #lists do redis:call("SET", lists[i - 1], (redis:call("GET", lists[i]))) end
    redis:call("SET", lists[#lists], first)
    check "lookups of others"
  end)

  it("reads past keys of other types, and writes over or refuses them", function()
    local function fill(key)
      redis:call("DEL", key)
      redis:call("LPUSH", key, "x")
    end
    for _, key in ipairs(keys()) do fill(key) end
    check "lists in place of strings"
    for _, key in ipairs { "ep", "mz", "ps" } do fill(prefix .. key) end
    check "lists in place of what the caches stand on"
    local db = orm:session()
    local e = db:get(Item, items[1].id)
    e.shelf = 1
    e.text = "t"
    local ok, err = db:flush()
    if ok then
      assert.equal("t", orm:session():get(Item, e.id).text)
    else
      assert.is_string(err.code)
      db:discard()
    end
    for _, key in ipairs { "ep", "mz", "ps" } do redis:call("DEL", prefix .. key) end
    must(db:execute("UPDATE item SET text = NULL WHERE id = ?", e.id))
    must(orm:invalidate(Item))
    check "mended"
    db:close()
  end)

  it("writes over entries that are damaged", function()
    for i, way in ipairs { "flush", "flush_async", "flush", "flush_async" } do
      local key = targets()[1]:gsub(":[el]:.*", ":e:item:" .. items[2].id)
      local db = orm:session()
      local e = db:get(Item, items[2].id)
      local sound = redis:call("GET", key)
      redis:call("SET", key, i < 3 and sound:sub(1, -2) .. "\1" or "garbage")
      e.x = 10 + i
      must(db[way](db))
      support.as_redis_answers(orm, function() assert.equal(10 + i, orm:session():get(Item, e.id).x) end)
      support.drain(orm)
      assert.equal(10 + i, orm:session():get(Item, e.id).x)
      assert.equal(10 + i, orm:session():query("SELECT x FROM item WHERE id = ?", e.id)[1].x)
      e.x = 2 / 3
      must(db:flush())
      db:close()
    end
    check "afterwards"
  end)

  it("loses everything in the middle", function()
    local db = orm:session()
    local e = db:get(Item, items[2].id)
    for i, way in ipairs { "flush", "flush_async" } do
      redis:call "FLUSHALL"
      e.x = 20 + i
      must(db[way](db))
      support.as_redis_answers(orm, function() assert.equal(20 + i, orm:session():get(Item, e.id).x) end)
      support.drain(orm)
      redis:call "FLUSHALL"
      assert.equal(20 + i, orm:session():get(Item, e.id).x)
    end
    e.x = 2 / 3
    must(db:flush())
    redis:call "FLUSHALL"
    check "nothing left"
    redis:call("SCRIPT", "FLUSH")
    check "no scripts left"
    redis:call("SCRIPT", "FLUSH")
    e.x = 5
    must(db:flush())
    redis:call("SCRIPT", "FLUSH")
    e.x = 2 / 3
    must(db:flush_async())
    redis:call("SCRIPT", "FLUSH")
    assert.equal(1, support.drain(orm))
    check "afterwards"
    db:close()
  end)

  it("is emptied of an entity although its connections were lost while idle", function()
    for _ = 1, 3 do
      must(orm:session():get(Item, items[1].id))
      redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      assert.is_true(must(orm:invalidate(Item)) >= 0)
    end
  end)

  it("loses its connections in the middle", function()
    for _ = 1, 5 do
      redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      check "connections cut"
      local db = orm:session()
      local e = db:get(Item, items[3].id)
      redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      e.x = e.x + 1
      must(db:flush())
      redis:call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      e.x = 1
      must(db:flush_async())
      support.drain(orm)
      db:close()
    end
  end)
end)

describe("the process tier", function()
  local world, orm, redis, db
  local Counter = shared.Counter

  setup(function()
    world = support.world()
    orm = world:open { Counter }
    redis = faults.redis()
    db = orm:session()
  end)
  teardown(function()
    db:close()
    redis:close()
    world:close()
  end)

  local function env()
    return { REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name }
  end

  local function coherent() return orm:stats().coherent end

  --- What a get asks, once the cache has settled.
  local function asks(id)
    local counts = support.count(orm, function() orm:session():get(Counter, id) end)
    return counts.redis + counts.mysql
  end

  local function warm(id)
    faults.await("answers from the process cache", function() return asks(id) == 0 and coherent() end)
  end

  it("hears soon what another process writes", function()
    local counter = db:new(Counter, { n = 0 })
    must(db:flush())
    for i = 1, 5 do
      warm(counter.id)
      local ok, text = faults.spawn("writer", env(), "set", counter.id, i):wait()
      assert.is_true(ok, text)
      -- a ping's interval and time-out at most, and two seconds for a machine that is busy
      faults.await("the news", function() return orm:session():get(Counter, counter.id).n == i end, 3.5)
    end
  end)

  it("is heard by another process, in order", function()
    local counter = db:new(Counter, { n = 0 })
    must(db:flush())
    local reader = faults.spawn("writer", env(), "watch", counter.id, 300)
    reader:await "watching"
    local consumer = must(orm:consumer())
    for i = 1, 300 do
      counter.n = i
      must(i % 3 == 0 and db:flush_async() or db:flush())
      if i % 3 == 0 then assert.equal(1, must(consumer:step(5))) end
    end
    consumer:close()
    local ok, text = reader:wait()
    assert.is_true(ok, text)
    assert.matches("coherent true", text)
  end)

  it("is bypassed when its channel is cut, and comes back empty", function()
    local counter = db:new(Counter, { n = 1 })
    must(db:flush())
    warm(counter.id)
    local clears = orm:counter "regolith_process_cache_clears_total"
    for _ = 1, 3 do
      for _, kind in ipairs { "pubsub", "normal" } do
        redis:call("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        -- what changes now must be seen: never from what the process still holds
        counter.n = counter.n + 1
        local ok, text = faults.spawn("writer", env(), "set", counter.id, counter.n):wait()
        assert.is_true(ok, text)
        db:reload(counter)
        faults.await("the news after the channel was cut", function()
          return orm:session():get(Counter, counter.id).n == counter.n
        end, 3.5)
        warm(counter.id)
        assert.equal(counter.n, orm:session():get(Counter, counter.id).n)
      end
    end
    assert.is_true(orm:counter "regolith_process_cache_clears_total" >= clears + 3)
  end)

  it("forgets when Redis loses everything", function()
    local counter = db:new(Counter, { n = 1 })
    must(db:flush())
    warm(counter.id)
    must(db:execute("UPDATE counter SET n = 99 WHERE id = ?", counter.id))
    redis:call "FLUSHALL"
    faults.await("the process cache to be emptied", function()
      return orm:session():get(Counter, counter.id).n == 99
    end, 3.5)
    warm(counter.id)
  end)
end)
