-- SPDX-License-Identifier: MIT
-- A consumer that moves events, until it is killed.

require "support.programs.follow"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local orm = assert(regolith.open { entities = shared.list(), timeout_ms = 5000, lazy = true })
local consumer = assert(orm:consumer { max_backoff_ms = 50 })
io.write "relaying\n"
io.flush()
assert(consumer:run { max_wait_s = 0.1 })
