-- SPDX-License-Identifier: MIT
-- A further process that reads and writes notes.
--   noter.lua read KIND ID   once told to, reads what it never read before ("row" ID, the "list" of n = 1,
--                            the title "kept" as "unique"), twice: "first ANSWER", "second ANSWER"
--   noter.lua commit ID      sets n of a note to 2 in a transaction with callbacks of both kinds

local faults = require "support.faults"
local regolith = require "regolith"

local field = regolith.field
local what = arg[1]
io.stdout:setvbuf "no"

local Note = regolith.entity("note", {
  field.string "title" { length = 80 },
  field.int32 "n",
  unique = { title = { "title" } },
  index = { by_n = { "n", cached = true } },
  cache = { process = true, redis = true, queries = true },
})
local orm = assert(regolith.open { entities = { Note }, lazy = true, timeout_ms = 30000,
  callbacks = { told = function() end } })

local READ = {
  row = function(db, id)
    local note = db:get(Note, id)
    return note and note.n
  end,
  list = function(db) return #assert(db:all_by(Note, "by_n", 1)) end,
  unique = function(db)
    local note = db:by(Note, "title", "kept")
    return note and note.id
  end,
}

if what == "commit" then
  local db = orm:session()
  local done, err = db:transaction(function(tx)
    local note = assert(db:get(Note, tonumber(arg[2])))
    note.n = 2
    assert(tx:commit("told", { n = note.n }))
    tx:commit(function() print "callback" end)
    tx:compensate(function() print "compensation" end)
    assert(db:flush())
    print "flushed"
    return true
  end)
  print(done and "committed" or err)
else
  local read, id = READ[arg[2]], tonumber(arg[3])
  assert(orm:connect())
  print "ready"
  local redis = faults.redis(os.getenv("REGOLITH_REDIS_URL"):match "unix://([^?]+)")
  faults.await("the start", function() return redis:call("GET", "{" .. os.getenv "REGOLITH_PREFIX" .. "}:go") end)
  print("first " .. tostring(read(orm:session(), id)))
  print("second " .. tostring(read(orm:session(), id)))
end
orm:close()
