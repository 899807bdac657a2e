-- SPDX-License-Identifier: MIT
-- The consumer process: applies what is queued until it is told to stop.

local model = require "model"

local orm = model.open()
local consumer = assert(orm:consumer {
  on_error_report = function(err) io.stderr:write("consumer: ", tostring(err), "\n") end,
})
assert(consumer:run { signals = true, max_wait_s = 0.2 })
local stats = consumer:stats()
print(string.format("applied %.0f operations in %.0f transactions", stats.applied, stats.batches))
consumer:close()
orm:close()
