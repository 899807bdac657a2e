-- SPDX-License-Identifier: MIT
-- One of several processes at work on the same rows.
--   crowd.lua ACT SEED TIMES [WAY]
-- Says what it has done in a line "done ...", or fails.

require "support.programs.follow"
local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local orm = assert(regolith.open { entities = shared.list(), timeout_ms = 20000, lazy = true })

local act, seed, times, way = arg[1], tonumber(arg[2]), tonumber(arg[3]), arg[4]
local ROWS = 5
math.randomseed(seed)

--- "flush", "flush_async", or each in turn.
local function flush(db, i)
  local how = way
  if way == "mixed" then how = i % 2 == 0 and "flush" or "flush_async" end
  return db[how](db)
end

--- Versions that one process sees of a row never go back.
local seen = {}
local function note(e, version)
  local before = seen[e.id] or -1
  if version < before then error(string.format("row %d went back from %d to %d", e.id, before, version)) end
  seen[e.id] = version
end

local ACTS = {}

--- Counts rows up, one at a time; a conflict is somebody else's step.
function ACTS.count()
  local conflicts = 0
  for i = 1, times do
    local db = orm:session()
    local done
    repeat
      db:clear()
      local tally = assert(db:get(shared.Tally, math.random(ROWS)))
      note(tally, tally.version)
      tally.n = tally.n + 1
      local ok, err = flush(db, i)
      done = ok
      if not ok then
        if err.code ~= "CONFLICT" and err.code ~= "DEADLOCK" then error(tostring(err)) end
        conflicts = conflicts + 1
      else
        note(tally, tally.version)
      end
    until done
    db:close()
  end
  return times .. " conflicts " .. conflicts
end

--- Counts several rows up in one flush, in any order.
function ACTS.many()
  local conflicts = 0
  for i = 1, times do
    local done
    local first = math.random(ROWS)
    repeat
      local db = orm:session()
      for k = 0, 2 do
        local tally = assert(db:get(shared.Tally, (first + k) % ROWS + 1))
        tally.n = tally.n + 1
      end
      local ok, err = flush(db, i)
      done = ok
      if not ok and err.code ~= "CONFLICT" then error(tostring(err)) end
      if not ok then conflicts = conflicts + 1 end
      db:close()
    until done
  end
  return 3 * times .. " conflicts " .. conflicts
end

--- Locks rows by hand in the other order, so that somebody has to give way.
function ACTS.lock()
  local given_way = 0
  for i = 1, times do
    local db = orm:session()
    db:connection(function(conn)
      assert(conn:execute "BEGIN")
      for k = ROWS, 1, -1 do
        local ok, err = conn:query("SELECT id FROM tally WHERE id = ? FOR UPDATE", k)
        if not ok then
          assert(err.code == "DEADLOCK", tostring(err))
          given_way = given_way + 1
          break
        end
        if i % 4 == 0 then faults.pause(1) end
      end
      return conn:execute "ROLLBACK"
    end)
    db:close()
  end
  return times .. " gave way " .. given_way
end

--- Writes its own column and leaves those of the others.
function ACTS.board()
  local own = seed
  for i = 1, times do
    local db = orm:session()
    local board = assert(db:get(shared.Board, i % ROWS + 1))
    for k = 1, 4 do note({ id = board.id * 10 + k }, board.of[k]) end
    board.of[own] = i
    assert(flush(db, i))
    db:close()
  end
  return times
end

--- Moves books that nobody else moves; reads everybody's.
function ACTS.shelve()
  for i = 1, times do
    local db = orm:session()
    local book = assert(db:get(shared.Book, seed * 10 + i % 3))
    book.shelf = (book.shelf + 1) % 4
    book.title = string.format("%d/%d/%d", seed, book.id, i)
    assert(flush(db, i))
    local list = assert(orm:session():all_by(shared.Book, "shelf", book.shelf))
    local found = false
    for _, other in ipairs(list) do
      if other.shelf ~= book.shelf then error("a book of another shelf") end
      found = found or other.id == book.id
    end
    if not found then error("its own book is not on the shelf") end
    local same = assert(orm:session():by(shared.Book, "title", book.title))
    if same.id ~= book.id then error("another book of that title") end
    db:close()
  end
  return times
end

--- Reads until it is told to stop by the row 100 of the tallies; what it sees never goes back.
function ACTS.read()
  local reads = 0
  io.write "reading\n"
  io.flush()
  repeat
    local db = orm:session()
    for id = 1, ROWS do
      local tally = assert(db:get(shared.Tally, id))
      note(tally, tally.version)
      if tally.n ~= tally.version - 1 then error("n and version of a row are not of one time") end
      reads = reads + 1
    end
    local stop = db:get(shared.Tally, 100)
    db:close()
  until stop and stop.n == 1
  return reads .. " hits " .. orm:counter "regolith_process_cache_hits_total"
end

io.write("done ", act, " ", ACTS[act](), "\n")
orm:close()
