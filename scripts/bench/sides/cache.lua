-- SPDX-License-Identifier: MIT
-- Our sides of the caches for values and searches, and what they are compared with: lua-resty-lrucache,
-- which hands out what it was given, and tells no other process.

local regolith = require "regolith"
local clock = require "clock"
local model = require "model"

local KEYS, BATCH = 10000, 1000 -- values in a cache, gets between two looks at the clock
local FOUND = 10                -- rows that the search finds

local M = {}

local function value(i)
  return string.format("the value of key %d, about a hundred bytes long: %s", i, ("."):rep(50))
end

local function keys()
  local list = {}
  for i = 1, KEYS do list[i] = "key:" .. i end
  return list
end

local function lrucache(n)
  _G.ngx = { now = os.time }
  return assert(require("resty.lrucache").new(n))
end

local function await_process(orm, fn)
  local deadline = clock.now() + 10
  repeat
    fn()
    assert(clock.now() < deadline, "the process cache is not in use")
  until orm:stats().coherent
end

--- Gets, all of them answered by the process.
function M.user_hit(seconds)
  local Cache = regolith.cache("bench", { value = "string" })
  local orm = model.open({}, { caches = { Cache } })
  local cache, list, at = orm:cache(Cache), keys(), 0
  await_process(orm, function() cache:get "key:0" end)
  for i = 1, KEYS do cache:get_or_load(list[i], function() return value(i) end) end
  for _ = 1, 3 do -- announcements of the fills drop some
    for i = 1, KEYS do assert(cache:get(list[i])) end
  end
  clock.measure(seconds, function()
    local bytes = 0
    for _ = 1, BATCH do
      at = at % KEYS + 1
      bytes = bytes + #cache:get(list[at])
    end
    assert(bytes > 0)
    return BATCH
  end)
  orm:close()
end

function M.lrucache_get(seconds)
  local cache, list, at = lrucache(KEYS), keys(), 0
  for i = 1, KEYS do cache:set(list[i], value(i)) end
  clock.measure(seconds, function()
    local bytes = 0
    for _ = 1, BATCH do
      at = at % KEYS + 1
      bytes = bytes + #cache:get(list[at])
    end
    assert(bytes > 0)
    return BATCH
  end)
end

local function searches(seconds, cached)
  local User = model.entity("bench_user", { process = true, redis = true, queries = true })
  local orm = model.open { User }
  local function search()
    local db = orm:session()
    local query = db:search(User, "id <= ? ORDER BY id", FOUND)
    if cached then query:cached(600) end
    local list = assert(query:all())
    assert(#list == FOUND)
    db:close()
  end
  await_process(orm, function()
    local db = orm:session()
    db:get(User, 1)
    db:close()
    search()
  end)
  clock.measure(seconds, function()
    for _ = 1, FOUND do search() end
    return FOUND
  end)
  orm:close()
end

function M.query_hit(seconds) searches(seconds, true) end
function M.query_uncached(seconds) searches(seconds, false) end

return M
