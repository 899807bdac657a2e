-- SPDX-License-Identifier: MIT
-- A consumer that goes on until it is killed, or its parent is gone.

require "support.programs.follow"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local orm = assert(regolith.open { entities = shared.list(), timeout_ms = 5000, lazy = true })
local lease_ms, parallel = tonumber(arg[2]), tonumber(arg[3])
local lease = lease_ms and lease_ms > 0 -- 0: a rival that asks nobody; none given: as it comes
if not lease_ms then lease = nil end
local consumer = assert(orm:consumer { max_backoff_ms = 50, max_deaths = tonumber(os.getenv "MAX_DEATHS") or 0,
  max_batch = tonumber(arg[1]) or 256, lease = lease,
  lease_ms = lease and lease_ms or nil, parallel = parallel })
io.write "consuming\n"
io.flush()
local said = 0
assert(consumer:run { max_wait_s = 0.5, signals = true, on_step = function()
  local held = consumer:stats().held
  if held == said then return end
  said = held
  io.write(string.format("holds %.0f\n", held))
  io.flush()
end })
