-- SPDX-License-Identifier: MIT
-- Holds a lock: `hold NAME MS` gives it back after that long, `keep NAME` when it is lost, `turns NAME N`
-- takes it N times and counts in Redis what it does alone; `advisory NAME` holds one in MySQL.
require "support.programs.follow"
local regolith = require "regolith"
local support = require "support.init"
local faults = require "support.faults"

local act, name, ms = ...
local orm = support.must(regolith.open { entities = {}, timeout_ms = 10000, lazy = true })
local function say(...)
  print(string.format(...))
  io.flush()
end

if act == "advisory" then
  local lock = support.must(orm:advisory_lock(name))
  say("held %s", tostring(lock:held()))
  while true do faults.pause(20) end
end

if act == "turns" then
  local redis = faults.redis()
  local at = os.getenv "REGOLITH_PREFIX" .. ":turns:"
  for _ = 1, tonumber(ms) do
    local lock = support.must(orm:lock(name, { wait_ms = 50000 }))
    if redis:call("SETNX", at .. "alone", "1") ~= 1 then say "overlap" end
    local n = tonumber(redis:call("GET", at .. "n") or 0)
    redis:call("SET", at .. "n", n + 1)
    redis:call("DEL", at .. "alone")
    say("held %.0f", lock.token)
    support.must(lock:release())
  end
  return orm:close()
end

local lock = support.must(orm:lock(name, { ttl_ms = tonumber(ms) and 10000 or 1200, wait_ms = 20000 }))
say("held %.0f", lock.token)
if act == "hold" then
  faults.pause(tonumber(ms))
  faults.await("Redis to take the lock back", function()
    local ok, err = lock:release()
    assert(ok or err.retriable, tostring(err))
    return ok
  end)
else
  while lock:held() do faults.pause(20) end
  local ok, err = lock:release()
  say("lost %s %s", tostring(ok), err and err.code)
end
orm:close()
