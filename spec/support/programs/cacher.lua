-- SPDX-License-Identifier: MIT
-- A further process that uses a cache.
--   cacher.lua load KEY MS     once all are ready, asks for the key; its loader takes that long

local faults = require "support.faults"
local regolith = require "regolith"

local what, key, ms = arg[1], arg[2], tonumber(arg[3])
assert(what == "load")
io.stdout:setvbuf "no"

local name = key == "orphan" and "dying" or "slow"
local cache = regolith.cache(name, { lease_s = name == "dying" and 0.5 or 20 })
local orm = assert(regolith.open { entities = {}, caches = { cache } })
local redis = faults.redis(os.getenv("REGOLITH_REDIS_URL"):match "unix://([^?]+)")
print "ready"
faults.await("the start", function() return redis:call("GET", "{" .. os.getenv "REGOLITH_PREFIX" .. "}:go") end)
local v = orm:cache(cache):get_or_load(key, function(k)
  print "loading"
  faults.pause(ms)
  return "the value of " .. k
end)
print("value " .. tostring(v))
orm:close()
