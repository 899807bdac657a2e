-- SPDX-License-Identifier: MIT
-- Many writes on condition in one call, in a process of its own whose connection can be cut.
--   many_cas.lua ENTITY COUNT
-- Adds one to n of rows 1..COUNT, expecting what it has read. Says the outcomes, a letter each (applied, unknown,
-- failed, conflict, missing).

require "support.programs.follow"
local regolith = require "regolith"
local shared = require "support.programs.guarded"

local orm = assert(regolith.open { entities = shared.list, timeout_ms = 20000 })
local db = orm:session()
local E, ids, list, letters = shared[arg[1]], {}, {}, {}
for id = 1, tonumber(arg[2]) do ids[id] = id end
for i, e in ipairs(assert(db:get_many(E, ids))) do
  list[i] = { e, { n = e.n + 1 }, cas = E == shared.Versioned and "version" or { n = e.n } }
end
local answers = assert(db:update_all(list))
for i, answer in ipairs(answers) do letters[i] = answer.outcome:sub(1, 1) end
print("outcomes " .. table.concat(letters))
