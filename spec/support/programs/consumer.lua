-- SPDX-License-Identifier: MIT
-- A consumer that goes on until it is killed, or its parent is gone.

require "support.programs.follow"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local orm = assert(regolith.open { entities = shared.list(), timeout_ms = 5000, lazy = true })
local consumer = assert(orm:consumer { max_backoff_ms = 50, max_batch = tonumber(arg[1]) or 256 })
io.write "consuming\n"
io.flush()
assert(consumer:run { max_wait_s = 0.5 })
