-- SPDX-License-Identifier: MIT
-- What the benchmarks work on: one entity of ten fields, the values of row i, walks over ids. The raw
-- sides (raw.h) have the same table, the same values and the same walks.

local clock = require "clock"
local regolith = require "regolith"

local field = regolith.field
local format = string.format

local M = {}

M.ROWS = 20000  -- rows 1..ROWS of "bench_user"
M.MANY = 100    -- ids in a get_many, ids that one session asks for
M.FLUSH = 1000  -- rows in a flush

--- The entity, on a table and with a cache of the benchmark's choice.
---@param table_name string
---@param cache table|boolean
---@param queue? table what decides the partition
function M.entity(table_name, cache, queue)
  return regolith.entity(table_name, {
    field.string "email" { length = 190, required = true },
    field.string "name" { length = 80 },
    field.string "city" { length = 60 },
    field.enum "state" { "new", "active", "banned" },
    field.uint32 "visits",
    field.uint64 "points",
    field.double "score",
    field.bool "active",
    field.decimal "credit" { precision = 12, scale = 2 },
    field.datetime "seen" { nullable = true },
    cache = cache, queue = queue,
  })
end

local CITIES = { [0] = "Aachen", "Bremen", "Chemnitz", "Dresden", "Essen", "Freiburg", "Göttingen", "Hannover" }
local STATES = { [0] = "new", "active", "banned" }

function M.city(i) return CITIES[i % 8] end

--- The values of row i.
function M.row(i)
  return {
    email = "user" .. i .. "@example.org",
    name = "Name Surname " .. i,
    city = CITIES[i % 8],
    state = STATES[i % 3],
    visits = i % 1000,
    points = i * 7,
    score = i * 0.25,
    active = i % 2 == 0,
    credit = format("%d.%02d", i % 100000, i % 100),
    seen = format("2026-01-%02d %02d:%02d:%02d", i % 28 + 1, i % 24, i % 60, i % 59),
  }
end

--- An ORM on the servers of this run.
---@param entities regolith.Entity[]
---@param opts? table further options of regolith.open
function M.open(entities, opts)
  local config = {
    mysql = { socket = os.getenv "REGOLITH_MYSQL_SOCKET", user = "root", db = os.getenv "REGOLITH_MYSQL_DB" },
    redis = { socket = os.getenv "REGOLITH_REDIS_SOCKET" },
    entities = entities,
  }
  for name, value in pairs(opts or {}) do config[name] = value end
  return assert(regolith.open(config))
end

--- Reads all rows, MANY at a time, which puts them into the caches that the entity has.
---@param orm regolith.Orm
---@param User regolith.Entity
function M.read_all(orm, User)
  for first = 1, M.ROWS, M.MANY do
    local ids = {}
    for i = 1, M.MANY do ids[i] = first + i - 1 end
    local db = orm:session()
    assert(db:get_many(User, ids))
    db:close()
  end
end

--- Until the process cache is in use: it is off before invalidations are known to arrive.
---@param orm regolith.Orm
---@param User regolith.Entity
function M.await_coherence(orm, User)
  local deadline = clock.now() + 5
  repeat
    local db = orm:session()
    assert(db:get_many(User, { 1, 2 }))
    db:close()
    assert(clock.now() < deadline, "the process cache is not in use")
  until orm:stats().coherent
end

--- A walk over ids: each call fills `ids` with MANY distinct ones, in steps of 37 from a random one.
---@param rows integer
---@return fun(): number[] the same table each time
function M.walk(rows)
  local ids = {}
  return function()
    local at = math.random(0, rows - 1)
    for i = 1, M.MANY do ids[i] = (at + (i - 1) * 37) % rows + 1 end
    return ids
  end
end

return M
