-- SPDX-License-Identifier: MIT
-- One write on condition, in a process of its own whose connection can be cut.
--   one_cas.lua ENTITY ID [increment]
-- Says "ready", waits for a line of input, then says how it went.

require "support.programs.follow"
local regolith = require "regolith"
local shared = require "support.programs.guarded"

local orm = assert(regolith.open { entities = shared.list, timeout_ms = 20000 })
local db = orm:session()
local E = shared[arg[1]]
local e = assert(db:get(E, tonumber(arg[2])))
local changes, opts = { n = e.n + 1 }, { cas = E == shared.Versioned and "version" or { n = e.n } }
if arg[3] == "increment" then changes, opts = { n = regolith.increment(1) }, nil end
local answer, err = db:update(e, changes, opts)
print("outcome " .. (answer and answer.outcome or tostring(err)))
if answer and answer.err then print("because " .. tostring(answer.err)) end
