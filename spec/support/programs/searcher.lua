-- SPDX-License-Identifier: MIT
-- Processes that write scores, and that search them through the cache.
--   searcher.lua write ID N    counts a score up N times; after each COMMIT it says so in Redis
--   searcher.lua read N        searches N times: no score may be lower than what was said before
--   searcher.lua consume       applies the queue, until it is killed

require "support.programs.follow"
local faults = require "support.faults"
local regolith = require "regolith"
local field = regolith.field

local Score = regolith.entity("score", { field.uint32 "n", cache = { queries = true } })
local M = { Score = Score }
if ... == "support.programs.searcher" then return M end

io.stdout:setvbuf "no"
local act = arg[1]
local orm = assert(regolith.open { entities = { Score }, timeout_ms = 20000, lazy = act == "consume" })
local redis = faults.redis(os.getenv("REGOLITH_REDIS_URL"):match "unix://([^?]+)")
local floor = "{" .. os.getenv "REGOLITH_PREFIX" .. "}:floor"
print "ready"

local ACTS = {}

function ACTS.write()
  local id, n = tonumber(arg[2]), tonumber(arg[3])
  local db = orm:session()
  local score = assert(db:get(Score, id))
  for _ = 1, n do
    score.n = score.n + 1
    assert(db:flush())
    redis:call("HSET", floor, id, score.n)
  end
end

function ACTS.read()
  for _ = 1, tonumber(arg[2]) do
    local said, least = redis:call("HGETALL", floor), {}
    for i = 1, #said, 2 do least[tonumber(said[i])] = tonumber(said[i + 1]) end
    local db = orm:session()
    for _, score in ipairs(assert(db:search(Score, "n >= ? ORDER BY id", 0):cached(60):all())) do
      if score.n < (least[score.id] or 0) then
        error(string.format("score %d is %d, after %d was committed", score.id, score.n, least[score.id]))
      end
    end
    db:close()
  end
  print("hits " .. orm:counter "regolith_values_redis_hits_total")
end

function ACTS.consume()
  local consumer = assert(orm:consumer { max_backoff_ms = 50 })
  assert(consumer:run { max_wait_s = 0.5 })
end

ACTS[act]()
print "done"
orm:close()
