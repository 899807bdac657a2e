-- SPDX-License-Identifier: MIT
-- A consumer of the queue of notes, until it is killed or its parent is gone.

require "support.programs.follow"
local regolith = require "regolith"

local Note = regolith.entity("note", {
  regolith.field.string "name" { required = true, unique = true, length = 50 },
  regolith.field.uint32 "n" { index = true, cached = true },
  cache = { process = true, redis = true },
})
local orm = assert(regolith.open { entities = { Note } })
assert(assert(orm:consumer()):run())
