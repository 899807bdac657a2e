-- SPDX-License-Identifier: MIT
-- Connections to Redis and to MySQL that are cut at every byte, of what is asked and of what is answered:
-- by MARK, COMMIT, PUBLISH, a fill and an enqueue. Who is told that it was done has it done, who is told
-- that it was not has not, and nobody reads anything else than what became of it.
-- In the ordinary tests one byte in some is taken; REGOLITH_LONG=1 takes each.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field
local IS_LONG = os.getenv "REGOLITH_LONG" == "1"
local STEP = { redis = IS_LONG and 1 or 61, mysql = IS_LONG and 1 or 29 }
local MARK_MS = 150

local Piece = regolith.entity("piece", {
  field.uint64 "n", field.uint32 "shelf" { index = true, cached = true }, field.string "code" { unique = true },
  cache = { redis = true, all = true },
})

describe("a connection that is cut at some byte", function()
  local world, near, far, cutters
  local paths, names = {}, 0

  local function cutter(which, target)
    local path = os.tmpname()
    os.remove(path)
    paths[#paths + 1] = path
    local process = faults.spawn("cutter", nil, path, target, path .. ".do")
    process:await "ready"
    cutters[which] = { process = process, path = path, file = path .. ".do" }
    return path
  end

  setup(function()
    world, cutters = support.world(), {}
    local redis = cutter("redis", os.getenv "REGOLITH_REDIS_SOCKET")
    local mysql = cutter("mysql", os.getenv "REGOLITH_MYSQL_SOCKET")
    near = world:open({ Piece }, { mark_ms = MARK_MS })
    far = world:open({ Piece }, {
      schema = false, mark_ms = MARK_MS, redis = "redis+unix://" .. redis,
      mysql = string.format("mysql+unix://%s?user=root&db=%s", mysql, world.name),
    })
  end)
  teardown(function()
    world:close()
    for _, each in pairs(cutters) do
      each.process:kill()
      os.remove(each.path)
      os.remove(each.file)
      os.remove(each.file .. ".cut")
    end
  end)

  -- ---- cutting ----------------------------------------------------------------------------------

  local function order(which, way, k)
    names = names + 1
    local each = cutters[which]
    faults.write_file(each.file .. ".next", string.format("%d %s %d\n", names, way, k))
    os.rename(each.file .. ".next", each.file)
    return names
  end

  --- Both can be reached: who could not connect does not try again at once.
  local function reach()
    faults.await("connections", function()
      local session = far:session()
      local ok = session:query "SELECT 1" and far:invalidate(Piece, { 999999999 })
      session:close()
      return ok
    end)
  end

  --- Runs fn with the next connection that has taken k bytes cut: was it, and what fn gave.
  local function cutting(which, way, k, fn)
    reach()
    local name = order(which, way, k)
    local ok, err = fn()
    local function was_cut()
      local file = io.open(cutters[which].file .. ".cut")
      local text = file and file:read "*a"
      if file then file:close() end
      return text == tostring(name)
    end
    -- PUBLISH is not waited for; something is sent in any case, so that the first byte is cut
    local was = pcall(faults.await, "a cut", was_cut, k == 0 and 10 or 0.2)
    order(which, way, 2 ^ 50)
    return was, ok, err
  end

  --- The same for bytes further and further on, until there are no more; how often something was cut.
  local function at_each_byte(which, way, round)
    local k, n = 0, 0
    while round(which, way, k, string.format("%s, %s, byte %d", which, way, k)) do
      n = n + 1
      k = k + STEP[which]
    end
    if IS_LONG then io.stderr:write(string.format("%d bytes of %s, %s\n", n, which, way)) end
    return n
  end

  -- ---- what became of it --------------------------------------------------------------------------

  local function stored(id)
    -- waits for a transaction whose connection is gone
    local session = near:session()
    local row = must(session:query("SELECT n, shelf FROM piece WHERE id = ? LOCK IN SHARE MODE", id))[1]
    session:close()
    return row and { n = tonumber(row.n), shelf = row.shelf } or nil
  end

  local function has(list, id)
    for _, e in ipairs(must(list)) do
      if e.id == id then return true end
    end
    return false
  end

  --- Caches say what the database does, asked twice.
  local function check_reads(id, row, label)
    for _ = 1, 2 do
      local db = near:session()
      local e, err = db:get(Piece, id)
      must(e or not err, err)
      assert.same(row, e and { n = tonumber(e.n), shelf = e.shelf } or nil, label)
      assert.equal(row ~= nil, has(db:all(Piece), id), label)
      for shelf = 1, 2 do
        assert.equal(row ~= nil and row.shelf == shelf, has(db:all_by(Piece, "shelf", shelf), id), label)
      end
      db:close()
    end
  end

  local ONLY_UNKNOWN = "neither done nor undone, and known: "

  --- before and after: the row as it was, and as it was to be.
  local function check(id, before, after, ok, err, label)
    local row = stored(id)
    if ok then
      assert.same(after, row, label)
    elseif err.code ~= "COMMIT_UNKNOWN" then
      assert.same(before, row, label .. ": " .. tostring(err))
    else
      local n = row and row.n
      assert.is_true(n == (before and before.n) or n == (after and after.n), ONLY_UNKNOWN .. label)
    end
    check_reads(id, row, label)
  end

  local function new_piece()
    local db = near:session()
    local e = must(db:new(Piece, { n = 1, shelf = 1, code = "p" .. names .. "." .. math.random(1e9) }))
    must(db:flush())
    db:close()
    return e.id
  end

  local function every_way(round)
    for _, which in ipairs { "redis", "mysql" } do
      for _, way in ipairs { "up", "down" } do assert.is_true(at_each_byte(which, way, round) >= 1, which .. way) end
    end
  end

  -- ---- what is cut --------------------------------------------------------------------------------

  it("has an update done or not, and nothing stale", function()
    local id = new_piece()
    every_way(function(which, way, k, label)
      local before = stored(id)
      local db = far:session()
      local e = must(db:get(Piece, id))
      e.n, e.shelf = before.n + 1, 3 - before.shelf
      local was, ok, err = cutting(which, way, k, function() return db:flush() end)
      check(id, before, { n = before.n + 1, shelf = 3 - before.shelf }, ok, err, label)
      if not ok then db:discard() end
      db:close()
      return was
    end)
  end)

  it("has an insertion and a deletion done or not, and nothing stale", function()
    every_way(function(which, way, k, label)
      local db = far:session()
      local e = must(db:new(Piece, { n = 5, shelf = 2, code = "i" .. names }))
      check_reads(e.id, nil, label)
      local was, ok, err = cutting(which, way, k, function() return db:flush() end)
      check(e.id, nil, { n = 5, shelf = 2 }, ok, err, label)
      db:discard()
      db:close()
      local id = new_piece()
      check_reads(id, { n = 1, shelf = 1 }, label)
      db = far:session()
      db:delete(must(db:get(Piece, id)))
      local was_too
      was_too, ok, err = cutting(which, way, k, function() return db:flush() end)
      check(id, { n = 1, shelf = 1 }, nil, ok, err, label)
      if not ok then db:discard() end
      db:close()
      must(near:session():execute("DELETE FROM piece WHERE id IN (?, ?)", e.id, id))
      must(near:invalidate(Piece, { e.id, id }))
      must(near:invalidate(Piece))
      return was or was_too
    end)
  end)

  it("has a read answered right, and fills nothing stale", function()
    local id = new_piece()
    every_way(function(which, way, k, label)
      must(near:invalidate(Piece))
      local before = stored(id)
      local db = far:session()
      local was, e, err = cutting(which, way, k, function() return db:get(Piece, id) end)
      assert.is_true(e ~= nil or which == "mysql", label .. tostring(err))
      if e then assert.equal(before.n, tonumber(e.n), label) end
      db:close()
      db = near:session()
      e = must(db:get(Piece, id))
      e.n = before.n + 1
      must(db:flush())
      db:close()
      check_reads(id, { n = before.n + 1, shelf = before.shelf }, label)
      return was
    end)
  end)

  it("has a write queued once or not at all, and nothing stale", function()
    local id = new_piece()
    for _, way in ipairs { "up", "down" } do
      local n = at_each_byte("redis", way, function(which, _, k, label)
        local before = stored(id)
        local after = { n = before.n + 1, shelf = 3 - before.shelf }
        local db = far:session()
        local e = must(db:get(Piece, id))
        e.n, e.shelf = after.n, after.shelf
        local was, ok, err = cutting(which, way, k, function() return db:flush_async() end)
        if ok then
          support.as_redis_answers(near, function() check_reads(id, after, label) end)
        else
          db:discard()
        end
        db:close()
        support.drain(near)
        local row = stored(id)
        if ok then assert.same(after, row, label) end
        assert.is_true(row.n == before.n or row.n == after.n, label .. ": " .. tostring(err))
        check_reads(id, row, label)
        return was
      end)
      assert.is_true(n >= 1)
    end
    assert.same({}, must(near:dead_letters()))
  end)

  it("leaves nothing behind that an audit would find", function()
    faults.pause(MARK_MS * 2)
    local result = must(near:audit { all = true, older_than_ms = 100 })
    assert.same({}, result.mismatches)
  end)
end)
