-- SPDX-License-Identifier: MIT
-- Entities that specs and their further processes have in common.

local regolith = require "regolith"
local field = regolith.field

local M = {
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
  --- A column for each writer: who writes one leaves the others alone.
  Board = regolith.entity("board", {
    field.array "of" { of = field.uint32, n = 4 },
    ids = "application", cache = { process = true, redis = true },
  }),
  --- Each change is told on a stream.
  Ping = regolith.entity("ping", {
    field.uint32 "n", ids = "application", cache = { redis = true }, events = { pings = true },
  }),
  --- Moved from shelf to shelf.
  Book = regolith.entity("book", {
    field.string "title" { required = true, unique = true }, field.uint32 "shelf" { index = true, cached = true },
    ids = "application", cache = { process = true, redis = true, all = true },
  }),
}

--- Kept nowhere; for servers that are several.
M.Vote = regolith.entity("vote", {
  field.uint64 "n", field.uint32 "version" { version = true }, ids = "application",
})

--- A team and its members: one partition of a queue each team.
M.Club = regolith.entity("club", {
  field.string "name" { length = 50 }, ids = "application", cache = { redis = true }, queue = { by = "id" },
})
M.Member = regolith.entity("member", {
  field.ref "club" { M.Club }, field.uint64 "n", field.uint32 "version" { version = true },
  ids = "application", cache = { redis = true }, queue = { by = "club" },
})

--- Counted up by many, each step seen: its version allows no lost one.
local function tally(cache)
  return regolith.entity("tally", {
    field.uint32 "n", field.uint32 "version" { version = true }, ids = "application", cache = cache,
  })
end
M.Tally = tally { process = true, redis = true }

--- The entities as a list.
function M.list()
  local list = {}
  for _, entity in pairs(M) do
    if type(entity) == "table" then list[#list + 1] = entity end
  end
  return list
end

--- The tally of who keeps nothing in the process: never older than what is committed.
M.strict = function() return tally { redis = true } end

return M
