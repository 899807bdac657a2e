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
}
