-- SPDX-License-Identifier: MIT
-- Entities that specs and their further processes have in common.

local regolith = require "regolith"
local field = regolith.field

return {
  --- Kept everywhere.
  Counter = regolith.entity("counter", {
    field.uint32 "n", field.string "tag" { unique = true, nullable = true },
    cache = { process = true, redis = true },
  }),
  --- Kept in Redis; ids are given by who writes, so that doing it twice shows.
  Line = regolith.entity("line", {
    field.uint64 "n", field.uint32 "version" { version = true },
    ids = "application", cache = { redis = true, ttl_s = 60 },
  }),
  --- Counted up by many, each step seen: its version allows no lost one.
  Tally = regolith.entity("tally", {
    field.uint32 "n", field.uint32 "version" { version = true },
    ids = "application", cache = { process = true, redis = true },
  }),
  --- A column for each writer: who writes one leaves the others alone.
  Board = regolith.entity("board", {
    field.array "of" { of = field.uint32, n = 4 },
    ids = "application", cache = { process = true, redis = true },
  }),
  --- Moved from shelf to shelf.
  Book = regolith.entity("book", {
    field.string "title" { required = true, unique = true }, field.uint32 "shelf" { index = true, cached = true },
    ids = "application", cache = { process = true, redis = true, all = true },
  }),
}
