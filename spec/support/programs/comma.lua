-- SPDX-License-Identifier: MIT
-- Writes and reads numbers with decimals in every way, in a process whose locale writes them with a comma.

local regolith = require "regolith"
local field = regolith.field

assert(os.setlocale "", "the locale of the environment is not there")
assert(os.setlocale(nil):find "de_DE", "another locale: " .. os.setlocale(nil))

local Measure = regolith.entity("measure", {
  field.double "v" { default = 1.5 },
  field.float "f" { default = 0.25 },
  field.decimal "d" { precision = 8, scale = 2, default = "2.25" },
  field.json "j" { nullable = true },
  cache = { process = true, redis = true },
})
local Values = regolith.cache("values", { ttl_s = 60, early = 0.5 })
local orm = assert(regolith.open { entities = { Measure }, caches = { Values } })
local third = 1 / 3

assert(orm:schema_apply())
local diff = assert(orm:schema_diff())
assert(#diff == 0, diff[1] and diff[1].sql)

local ids = {}
local function check(what, i, v)
  local db = orm:session()
  local e = assert(db:get(Measure, ids[i]))
  assert(e.v == v and e.f == i + 0.25 and e.d == "1.25" and e.j.x == 1.5 and e.j.y == third, what)
  db:close()
end

local function new(db, i)
  return assert(db:new(Measure, { v = i + third, f = i + 0.25, d = "1.25", j = { x = 1.5, y = third } }))
end

local db = orm:session()
local one = new(db, 1)
assert(db:flush())
local list = { one }
for i = 2, 5 do list[i] = new(db, i) end
assert(db:flush())
for i, e in ipairs(list) do
  ids[i] = e.id
  check("flush", i, i + third)
end

local default = assert(db:new(Measure, {}))
assert(db:flush())
assert(default.v == 1.5 and default.f == 0.25 and default.d == "2.25")
assert(db:delete(default))
assert(db:flush())

local updates = {}
for i, e in ipairs(list) do updates[i] = { e, { v = e.v + 0.5 }, cas = { v = e.v, f = e.f } } end
for i, answer in ipairs(assert(db:update_all(updates))) do assert(answer.applied, "update_all " .. i) end
for i = 1, 5 do check("update_all", i, i + third + 0.5) end
assert(assert(db:update(one, { v = 1.125 }, { cas = { "v", "f" } })).applied)
check("update", 1, 1.125)
for i, e in ipairs(list) do e.v = i + 0.75 end
assert(db:flush())
for i = 1, 5 do check("a flush of changes", i, i + 0.75) end

assert(#assert(db:search(Measure, "v > ? AND f < ?", 0.25, 3.5):all()) == 3)
local row = assert(db:query("SELECT v, CAST(f AS DOUBLE) AS f, d, ? AS p FROM measure WHERE id = ?", 2.125, ids[2]))[1]
assert(row.v == 2.75 and row.f == 2.25 and row.d == "1.25" and tonumber(row.p) == 2.125, "query")

for i, e in ipairs(list) do e.v = i + third end
assert(db:flush_async())
local consumer = assert(orm:consumer())
while assert(consumer:step(0)) > 0 do end
local found = assert(db:query("SELECT id, v FROM measure ORDER BY id"))
for i = 1, 5 do assert(found[i].v == i + third, "the queue") end

local values = orm:cache(Values)
for _ = 1, 3 do assert(assert(values:get_or_load("a", function() return { x = 1.5, y = third } end)).y == third) end
assert(not regolith.json_encode { 1.5, third }:find(",5", 1, true))
assert(regolith.json_decode(regolith.json_encode { 1.5, third })[2] == third)
print "all as it should be"
