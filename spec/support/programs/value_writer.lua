-- SPDX-License-Identifier: MIT
-- Processes whose transactions write rows, and what is cached of them as values.
--   value_writer.lua once          sets, deletes and deletes by tag in one transaction; as a rule to die in it
--   value_writer.lua write ID N    counts a score up N times and sets, or deletes, its cached copy; after each
--                                  COMMIT it says so in Redis
--   value_writer.lua read ID N     reads the copy N times, loading it when it is not there: never lower

require "support.programs.follow"
local faults = require "support.faults"
local regolith = require "regolith"
local field = regolith.field

local M = {
  Score = regolith.entity("score", { field.uint32 "n" }),
  Shared = regolith.cache("shared", { process = false }),
  Both = regolith.cache("both", {}),
  Own = regolith.cache("own", { redis = false }),
}
M.caches = { M.Shared, M.Both, M.Own }
if ... == "support.programs.value_writer" then return M end

io.stdout:setvbuf "no"
local what, id, n = arg[1], tonumber(arg[2]), tonumber(arg[3])
local orm = assert(regolith.open {
  entities = { M.Score }, caches = M.caches, timeout_ms = 20000, lazy = true, mark_ms = tonumber(os.getenv "MARK_MS"),
})
local redis = faults.redis(os.getenv("REGOLITH_REDIS_URL"):match "unix://([^?]+)")
local floor = "{" .. os.getenv "REGOLITH_PREFIX" .. "}:floor:" .. (id or 0)
math.randomseed(tonumber(os.getenv "SEED") or 1)

local NEWS_S = 3.5 -- the process cache may be behind for so long, when news of a write are late
local ACTS = {}

function ACTS.once()
  local db = orm:session()
  assert(db:transaction(function()
    assert(db:new(M.Score, { n = 1 }))
    assert(db:flush())
    for _, cache in ipairs(M.caches) do
      assert(db:cache(cache):set("a", "new"))
      assert(db:cache(cache):delete "b")
    end
    assert(db:cache(M.Both):delete_tag "t")
    return true
  end))
end

function ACTS.write()
  local db = orm:session()
  local cache = db:cache(os.getenv "CACHE" or "both")
  for i = 1, n do
    local now
    assert(db:transaction(function()
      local score = assert(db:get(M.Score, id, { lock = "update" }))
      now = score.n + 1
      score.n = now
      assert(db:flush())
      if i % 3 == 0 then assert(cache:delete "copy") else assert(cache:set("copy", now)) end
      return true
    end))
    redis:call("SET", floor, now)
  end
end

function ACTS.read()
  local loads = 0
  for _ = 1, n do
    local least = tonumber(redis:call("GET", floor) or 0)
    local which = os.getenv "CACHE" or "both"
    local function read()
      local db = orm:session()
      local v = assert(db:cache(which):get_or_load("copy", function()
        loads = loads + 1
        return assert(db:query("SELECT n FROM score WHERE id = ?", id))[1].n
      end))
      db:close()
      return v
    end
    local v, began = read(), faults.now()
    -- what Redis tells this process may be on its way yet
    while v < least and which == "both" and faults.now() - began < NEWS_S do v = read() end
    if v < least then error(string.format("%s: the copy is %d, after %d was committed", which, v, least)) end
  end
  print("loads " .. loads)
end

ACTS[what]()
print "done"
orm:close()
