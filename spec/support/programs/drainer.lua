-- SPDX-License-Identifier: MIT
-- Applies what the rows of the failover spec queue, until it is killed.

require "support.programs.follow"
local regolith = require "regolith"

local field = regolith.field
local Row = regolith.entity("frow", {
  field.uint32 "n", field.string "name" { length = 2000 }, ids = "application", cache = { redis = true },
})
local orm = assert(regolith.open { entities = { Row }, timeout_ms = 5000, lazy = true })
local consumer = assert(orm:consumer { max_backoff_ms = 50, lease = false })
assert(consumer:run { max_wait_s = 0.5 })
