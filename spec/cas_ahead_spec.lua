-- SPDX-License-Identifier: MIT
-- Writes on condition in more than one statement, of which the next is sent while the server works on the one
-- before: what goes wrong in one of them does not touch the others, and nothing is made twice.

local faults = require "support.faults"
local regolith = require "regolith"
local shared = require "support.programs.guarded"
local support = require "support.init"

local field, must = regolith.field, support.must

local Team = regolith.entity("team", { field.string "name" { length = 40 } })
local Part = regolith.entity("part", {
  field.int32 "a", field.int32 "b", field.ref "team" { Team, foreign_key = true }, ids = "application",
})

describe("cas: statements sent ahead", function()
  local world, orm, db, other

  setup(function()
    world = support.world()
    orm = world:open { Team, Part, shared.Plain, shared.Versioned }
  end)
  teardown(function() world:close() end)
  before_each(function() db, other = orm:session(), orm:session() end)
  after_each(function()
    db:close()
    other:close()
  end)

  --- The entities of rows 1..count, as they were made.
  local function stored(count)
    local list = {}
    must(db:execute "DELETE FROM part")
    for i = 1, count do list[i] = must(db:new(Part, { id = i })) end
    must(db:flush())
    return list
  end

  local function raised(parts)
    local list = {}
    for i, part in ipairs(parts) do list[i] = { part, { b = i }, cas = { "a" } } end
    return list
  end

  local function sum_b() return tonumber(must(db:query "SELECT SUM(b) AS n FROM part")[1].n) end

  it("are as many as without", function()
    local parts, answers = stored(400), nil
    local counts = support.count(orm, function() answers = must(db:update_all(raised(parts))) end)
    assert.equal(7, counts.mysql)
    for i = 1, 400 do
      assert.is_true(answers[i].applied)
      assert.equal(i, parts[i].b)
    end
    assert.equal(400 * 401 / 2, sum_b())
  end)

  it("tell which rows did not match, and why", function()
    local parts, missing = stored(300), { [64] = true, [65] = true, [299] = true }
    for id in pairs(missing) do must(other:execute("DELETE FROM part WHERE id = ?", id)) end
    local changed = "id % 50 = 7 OR id BETWEEN 129 AND 192" -- some of each statement, and all of one
    must(other:execute("UPDATE part SET a = 9 WHERE " .. changed))
    local answers, sum = must(db:update_all(raised(parts))), 0
    for i = 1, 300 do
      local conflicts = i % 50 == 7 or (i >= 129 and i <= 192)
      local expected = missing[i] and "missing" or conflicts and "conflict" or "applied"
      assert.equal(expected, answers[i].outcome, i)
      if expected == "applied" then sum = sum + i end
      if expected == "conflict" then
        assert.same({ i, 9, 0 }, { answers[i].row.id, answers[i].row.a, answers[i].row.b })
        assert.same({ "a" }, answers[i].differs)
      end
    end
    assert.equal(sum, sum_b())
  end)

  it("fail by themselves", function()
    local parts, list, sum = stored(300), {}, 0
    local team = must(db:new(Team, { name = "t" }))
    must(db:flush())
    for i, part in ipairs(parts) do
      list[i] = { part, { b = i, team = (i == 70 or i == 290) and 999999999 or team.id }, cas = { "a" } }
    end
    local answers = must(db:update_all(list))
    for i = 1, 300 do
      local bad = i == 70 or i == 290
      assert.equal(bad and "failed" or "applied", answers[i].outcome, i)
      if bad then assert.equal("FOREIGN_KEY", answers[i].err.code) else sum = sum + i end
    end
    assert.equal(sum, sum_b())
  end)

  it("come before those that wait for a lock", function()
    local parts = stored(300)
    local impatient = support.is_mariadb() and orm:session { timeout_ms = 4000 } or nil
    if not impatient then return end -- there a statement cannot say how long it waits
    local ids = {}
    for i = 1, 300 do ids[i] = i end
    local mine = must(impatient:get_many(Part, ids))
    local answers = must(other:transaction(function()
      must(other:execute "UPDATE part SET a = 0 WHERE id = 70")
      return must(impatient:update_all(raised(mine)))
    end))
    for i = 1, 300 do
      if i ~= 70 then assert.is_true(answers[i].applied, i .. answers[i].outcome) end
    end
    assert.is_truthy(answers[70].failed or answers[70].unknown)
    assert.equal(#parts, #answers)
    impatient:close()
  end)

  -- ---- a connection that is cut ----

  --- Cuts the connection of a process under its first statement, which waits for row 5: the letters of its
  --- outcomes, and n by id.
  local function cut(E, count)
    local process
    for i = 1, count do must(db:new(E, { id = i, n = 5 })) end
    must(db:flush())
    must(db:connection(function(held)
      must(held:execute "BEGIN")
      must(held:execute("UPDATE " .. E.name .. " SET n = n WHERE id = 5"))
      process = faults.spawn("many_cas", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name },
        E == shared.Plain and "Plain" or "Versioned", count)
      local waiting = faults.await("a statement that waits", function()
        local rows = must(db:query([[SELECT ID AS id FROM information_schema.processlist
          WHERE db = ? AND command = 'Execute' AND info LIKE ? AND id <> CONNECTION_ID()]], -- which is such a text too
          world.name, "%LAST_INSERT_ID%" .. E.name .. "%"))
        return rows[1] and rows[1].id
      end)
      must(world.sql:connection(function(c) return c:execute("KILL CONNECTION " .. waiting) end))
      must(held:execute "COMMIT")
      return true
    end))
    local ok, text = process:wait(60)
    assert.is_true(ok, text)
    local n = {}
    for _, row in ipairs(must(db:query("SELECT id, n FROM " .. E.name))) do n[row.id] = row.n end
    return text:match "outcomes (%a+)", n
  end

  it("are unknown with it when only values are compared; the others go on", function()
    local letters, n = cut(shared.Plain, 200)
    assert.equal(("u"):rep(64), letters:sub(1, 64))
    local second = letters:sub(65, 65) -- it had been sent, but where statements do not wait at the server
    assert.is_truthy(second == "u" or second == "a", letters)
    assert.equal(second:rep(64) .. ("a"):rep(72), letters:sub(65))
    for i = 1, 200 do assert.equal(letters:sub(i, i) == "u" and 5 or 6, n[i], i) end
  end)

  it("are settled by the version, and made once", function()
    local letters, n = cut(shared.Versioned, 200)
    assert.equal(("a"):rep(200), letters)
    for i = 1, 200 do assert.equal(6, n[i]) end
  end)
end)
