-- SPDX-License-Identifier: MIT
-- Writes a row in a transaction and stands still before it is committed.

local faults = require "support.faults"
local regolith = require "regolith"

local field = regolith.field

local Note = regolith.entity("note", {
  field.string "title" { length = 80 },
  field.int32 "n",
  cache = { process = true, redis = true },
})
local orm = assert(regolith.open(nil, { entities = { Note } }))
local db = orm:session()
assert(db:begin())
assert(db:new(Note, { title = "never" }))
assert(db:flush())
print "flushed"
io.stdout:flush()
faults.pause(60000)
