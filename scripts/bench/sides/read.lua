-- SPDX-License-Identifier: MIT
-- Our sides of the reads: each is a loop as an application would write it, a fresh session for each
-- MANY ids, so that the identity map answers nothing.

local clock = require "clock"
local model = require "model"

local M = {}

--- Gets by id, three fields read of each.
local function read_three(orm, User, walk)
  local ids, sum = walk(), 0
  local db = orm:session()
  for i = 1, model.MANY do
    local user = db:get(User, ids[i])
    sum = sum + user.visits + #user.email + #user.name
  end
  db:close()
  return model.MANY, sum
end

local function gets(cache)
  return function(seconds)
    local User = model.entity("bench_user", cache)
    local orm = model.open { User }
    local walk = model.walk(model.ROWS)
    clock.measure(seconds, function() return (read_three(orm, User, walk)) end)
    orm:close()
  end
end

local function gets_many(cache)
  return function(seconds)
    local User = model.entity("bench_user", cache)
    local orm = model.open { User }
    local walk = model.walk(model.ROWS)
    clock.measure(seconds, function()
      local db = orm:session()
      local users = assert(db:get_many(User, walk()))
      assert(users[model.MANY].visits)
      db:close()
      return model.MANY
    end)
    orm:close()
  end
end

M.mysql_get = gets(false)
M.mysql_get_many = gets_many(false)
M.redis_get = gets { redis = true }
M.redis_get_many = gets_many { redis = true }

--- Fills Redis, for the sides that read from there.
function M.redis_fill()
  local User = model.entity("bench_user", { redis = true })
  local orm = model.open { User }
  model.read_all(orm, User)
  clock.answer(model.ROWS, 1)
  orm:close()
end

local function process_hit(seconds, process_cache)
  local User = model.entity("bench_user", { process = true, redis = true })
  local orm = model.open({ User }, { process_cache = process_cache })
  local walk = model.walk(model.ROWS)
  model.await_coherence(orm, User)
  model.read_all(orm, User)
  local misses = orm:counter "regolith_process_cache_misses_total"
  clock.measure(seconds, function() return (read_three(orm, User, walk)) end)
  assert(orm:counter "regolith_process_cache_misses_total" == misses, "the process cache did not answer everything")
  orm:close()
end

--- All rows are in the process cache; what it did not answer is counted, and must be nothing.
function M.process_hit(seconds) process_hit(seconds, { mb = 256 }) end

--- The same from memory that processes share.
function M.process_hit_shared(seconds)
  local place = os.tmpname()
  os.remove(place)
  process_hit(seconds, { mb = 64, shared = place })
  os.execute("rm -rf '" .. place .. "'")
end

--- A hit of lua-resty-lrucache, whose table is copied, so that the caller may change it as it may
--- change an entity. Entries have no life span (a clock would cost more), and the copy is one table
--- constructor, the fastest there is. A request holds its copies as a session holds its entities: the
--- JIT would not make them at all if nobody did.
function M.lrucache_hit(seconds)
  _G.ngx = { now = os.time }
  local lrucache = require "resty.lrucache"
  local cache = assert(lrucache.new(model.ROWS))
  for id = 1, model.ROWS do
    local row = model.row(id)
    row.id = id
    cache:set(id, row)
  end
  local walk = model.walk(model.ROWS)
  clock.measure(seconds, function()
    local ids, held, sum = walk(), {}, 0
    for i = 1, model.MANY do
      local u = cache:get(ids[i])
      local user = {
        id = u.id, email = u.email, name = u.name, city = u.city, state = u.state, visits = u.visits,
        points = u.points, score = u.score, active = u.active, credit = u.credit, seen = u.seen,
      }
      held[i] = user
      sum = sum + user.visits + #user.email + #user.name
    end
    assert(sum > 0 and held[model.MANY])
    return model.MANY
  end)
end

return M
