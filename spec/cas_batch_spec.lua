-- SPDX-License-Identifier: MIT
-- Many writes on condition at once: few statements, an answer for each, order within a row, and one bad
-- one that does not touch the others.

local regolith = require "regolith"
local faults = require "support.faults"
local support = require "support.init"

local field, must = regolith.field, support.must

local Team = regolith.entity("team", { field.string "name" { length = 40 } })
local Part = regolith.entity("part", {
  field.string "name" { length = 20 },
  field.int32 "a", field.int32 "b", field.json "list" { nullable = true },
  field.ref "team" { Team, foreign_key = true },
})
local Cached = regolith.entity("cached", {
  field.string "code" { length = 20, unique = true }, field.int32 "n", field.uint32 "v" { version = true },
  cache = true,
})

local Numbers = regolith.entity("numbers", {
  field.int8 "tiny", field.uint8 "small", field.int64 "big", field.uint64 "huge", field.double "real",
  field.bool "flag", field.int32 "maybe" { nullable = true }, field.uint32 "stock" { nullable = true },
})

describe("cas: many at once", function()
  local world, orm, db, other

  setup(function()
    world = support.world()
    orm = world:open { Team, Part, Cached, Numbers }
  end)
  teardown(function() world:close() end)
  before_each(function() db, other = orm:session(), orm:session() end)
  after_each(function()
    db:close()
    other:close()
  end)

  local n = 0
  local function stored(count, entity)
    local list = {}
    for i = 1, count do
      n = n + 1
      list[i] = must(db:new(entity or Part, entity == Cached and { code = "c" .. n } or { name = "p" .. n }))
    end
    must(db:flush())
    return list
  end

  local function outcomes(answers)
    local list = {}
    for i, answer in ipairs(answers) do list[i] = answer.outcome end
    return list
  end

  --- Is there a statement that waits for a lock?
  local function find_waiting()
    return must(world.sql:connection(function(c)
      return c:query "SELECT trx_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    end))[1]
  end

  local function as_stored(e, entity) return must(orm:session():get(entity or Part, e.id)) end

  --- Statements that write.
  local function writes(counts, verb)
    local found = 0
    for _, text in ipairs(counts.texts) do
      if text:gsub("^SET STATEMENT %S+ FOR ", ""):sub(1, #verb) == verb then found = found + 1 end
    end
    return found
  end

  it("are one statement", function()
    local parts, list, answers = stored(50), {}, nil
    for i, part in ipairs(parts) do list[i] = { part, { a = i }, cas = { "a", "name" } } end
    local counts = support.count(orm, function() answers = must(db:update_all(list)) end)
    assert.equal(1, counts.mysql)
    for i, part in ipairs(parts) do
      assert.is_true(answers[i].applied)
      assert.equal(i, part.a)
    end
    assert.equal(50, as_stored(parts[50]).a)
  end)

  it("tell those that did not match from those that did", function()
    local parts, list = stored(64), {}
    for i = 1, 64, 7 do must(other:update(must(other:get(Part, parts[i].id)), { a = -1 })) end
    must(other:execute("DELETE FROM part WHERE id = ?", parts[3].id))
    for i, part in ipairs(parts) do list[i] = { part, { b = i }, cas = { "a" } } end
    local answers = must(db:update_all(list))
    for i = 1, 64 do
      local expected = i == 3 and "missing" or i % 7 == 1 and "conflict" or "applied"
      assert.equal(expected, answers[i].outcome, i)
      if expected == "conflict" then
        assert.same({ -1, 0 }, { answers[i].row.a, answers[i].row.b })
        assert.same({ "a" }, answers[i].differs)
      end
    end
    local sum = must(db:query "SELECT SUM(b) AS n FROM part WHERE a = 0")[1].n
    assert.equal(64 * 65 / 2, tonumber(sum) + 3 + (1 + 8 + 15 + 22 + 29 + 36 + 43 + 50 + 57 + 64))
    must(db:execute "UPDATE part SET a = 0, b = 0")
  end)

  it("are cut into chunks, however many", function()
    local parts, list, answers = stored(300), {}, nil
    for i, part in ipairs(parts) do list[301 - i] = { part, { a = i }, cas = "changes" } end
    local counts = support.count(orm, function() answers = must(db:update_all(list)) end)
    assert.equal(5, counts.mysql)
    for i = 1, 300 do assert.is_true(answers[i].applied) end
    assert.equal(300 * 301 / 2, tonumber(must(db:query "SELECT SUM(a) AS n FROM part")[1].n))
    must(db:execute "UPDATE part SET a = 0, b = 0")
  end)

  it("keep their order on one row, each judged by the database", function()
    local part = stored(1)[1]
    local answers = must(db:update_all {
      { part, { a = 1 }, cas = { a = 0 } }, { part, { a = 2 }, cas = { a = 0 } }, { part, { b = 5 }, cas = { a = 1 } },
    })
    assert.same({ "applied", "conflict", "applied" }, outcomes(answers))
    assert.same({ 1, 5, 1, 5 }, { as_stored(part).a, as_stored(part).b, part.a, part.b })
    assert.equal(1, answers[2].row.a)
  end)

  it("lets the last one of a row win when nothing is expected", function()
    local part = stored(1)[1]
    assert.same({ "applied", "applied", "applied" },
      outcomes(must(db:update_all { { part, { a = 7 } }, { part, { a = 8, b = 1 } }, { part, { a = 0 } } })))
    assert.same({ 0, 1, 0, 1 }, { as_stored(part).a, as_stored(part).b, part.a, part.b })
  end)

  it("follow the version within a call, unless it is asked for", function()
    local doc = stored(1, Cached)[1]
    assert.same({ "applied", "applied" }, outcomes(must(db:update_all { { doc, { n = 1 } }, { doc, { code = "x" } } })))
    assert.same({ 1, "x", 3 }, { as_stored(doc, Cached).n, as_stored(doc, Cached).code, as_stored(doc, Cached).v })
    assert.same({ 1, "x", 3 }, { doc.n, doc.code, doc.v })
    assert.same({ "applied", "conflict" }, outcomes(must(db:update_all {
      { doc, { n = 2 }, cas = "version" }, { doc, { n = 3 }, cas = "version" },
    })))
  end)

  it("isolate a bad one", function()
    local parts, list = stored(40), {}
    local team = must(db:new(Team, { name = "t" }))
    must(db:flush())
    for i, part in ipairs(parts) do list[i] = { part, { team = i == 23 and 999999999 or team.id }, cas = { "a" } } end
    local answers
    local counts = support.count(orm, function() answers = must(db:update_all(list)) end)
    assert.equal("FOREIGN_KEY", answers[23].err.code)
    assert.equal(parts[23], answers[23].err.row)
    for i = 1, 40 do assert.equal(i == 23 and "failed" or "applied", answers[i].outcome) end
    assert.is_true(counts.mysql <= 14, counts.mysql)
    local invalid = must(db:update_all { { parts[1], { a = "many" } }, { parts[2], { a = 3 }, cas = { a = 0 } } })
    assert.same({ "failed", "applied" }, outcomes(invalid))
    assert.equal("INVALID", invalid[1].err.code)
    must(db:execute "UPDATE part SET a = 0, b = 0")
  end)

  it("mix shapes, types and deletes", function()
    local parts, docs = stored(4), stored(2, Cached)
    local answers = must(db:update_all {
      { parts[1], { a = 1 }, cas = "changes" }, { docs[1], { n = 9 }, cas = "version" },
      { parts[2], delete = true, cas = { a = 0 } }, { parts[3], delete = true, cas = { a = 1 } },
      { docs[2], delete = true }, { parts[4], { a = regolith.increment(3) } }, { parts[1], { b = 2 } },
    })
    assert.same({ "applied", "applied", "applied", "conflict", "applied", "applied", "applied" }, outcomes(answers))
    assert.same({ 1, 2, 3 }, { parts[1].a, parts[1].b, parts[4].a })
    assert.is_nil((orm:session():get(Part, parts[2].id)))
    assert.is_nil((orm:session():get(Cached, docs[2].id)))
    assert.equal(9, as_stored(docs[1], Cached).n)
    local again = must(db:update_all { { parts[1], { a = 1 } }, { parts[3], {} } })
    assert.same({ "unchanged", "unchanged" }, outcomes(again))
  end)

  it("tell the caches", function()
    local docs, list = stored(100, Cached), {}
    for i, doc in ipairs(docs) do
      as_stored(doc, Cached)
      list[i] = { doc, { n = i }, cas = i % 10 == 0 and { n = 5 } or "version" }
    end
    local answers = must(db:update_all(list))
    for i, doc in ipairs(docs) do
      assert.equal(i % 10 == 0 and "conflict" or "applied", answers[i].outcome)
      assert.equal(i % 10 == 0 and 0 or i, as_stored(doc, Cached).n)
    end
    local counts = support.count(orm, function()
      for _, doc in ipairs(docs) do as_stored(doc, Cached) end
    end)
    assert.equal(0, counts.mysql)
  end)

  it("wait for what is queued of their rows", function()
    local doc = stored(1, Cached)[1]
    local same = must(other:get(Cached, doc.id))
    same.n = 5
    must(other:flush_async())
    local late = world:open({ Team, Part, Cached }, { schema = false })
    local slow = late:session { timeout_ms = 1000 }
    local seen = must(slow:get(Cached, doc.id))
    assert.equal(5, seen.n)
    local answers = must(slow:update_all { { seen, { n = 6 }, cas = { n = 5 } } })
    assert.equal("PENDING", answers[1].err.code)
    local free = stored(80, Cached)
    local list = { { seen, { n = 6 }, cas = { n = 5 } } }
    for i, e in ipairs(free) do list[i + 1] = { must(slow:get(Cached, e.id)), { n = i }, cas = "version" } end
    answers = must(slow:update_all(list))
    assert.equal("PENDING", answers[1].err.code)
    for i = 2, #answers do assert.is_true(answers[i].applied) end -- nobody waits with it
    support.drain(orm)
    assert.is_true(must(slow:update(seen, { n = 6 }, { cas = { n = 5 } })).applied)
    assert.equal(6, as_stored(doc, Cached).n)
    slow:close()
    world:shut(late)
  end)

  it("do not hold up their neighbours when somebody has locked a row", function()
    local parts, ids, list = stored(20), {}, {}
    for i, part in ipairs(parts) do ids[i] = part.id end
    local own = orm
    local maria = support.is_mariadb()
    if not maria then -- a statement cannot say how long it waits there: connections do
      must(world.sql:connection(function(c) return c:execute "SET GLOBAL innodb_lock_wait_timeout = 1" end))
      own = world:open { Team, Part, Cached }
    end
    local impatient = own:session { timeout_ms = 4000 }
    local mine = must(impatient:get_many(Part, ids))
    for i = 1, 20 do list[i] = { mine[i], { a = 1 }, cas = { a = 0 } } end
    local answers = must(other:transaction(function()
      must(other:execute("UPDATE part SET b = b + 1 WHERE id = ?", parts[7].id))
      local all = must(impatient:update_all(list))
      -- what nobody waits for any more is stopped; until then the lock stays, or it would be made after all
      faults.await("the end of the statement", function()
        faults.pause(150) -- who asks more often is told the same again
        return not find_waiting()
      end)
      return all
    end))
    for i = 1, 20 do
      if i == 7 then
        assert.is_nil(answers[i].applied)
        assert.is_table(answers[i].err)
      else
        assert.is_true(answers[i].applied, answers[i].outcome)
        assert.equal(1, as_stored(parts[i]).a)
      end
    end
    local seventh = as_stored(parts[7])
    assert.equal(1, seventh.b)
    -- the deadline may pass under the statement: then it says so, and may be stopped after the lock was free
    if answers[7].outcome ~= "unknown" then assert.same({ "failed", 0 }, { answers[7].outcome, seventh.a }) end
    impatient:close()
    if not maria then
      must(world.sql:connection(function(c) return c:execute "SET GLOBAL innodb_lock_wait_timeout = 50" end))
    end
  end)

  it("know a row that was written before in the same call, and in no other", function()
    local parts, list = stored(600), {}
    for i, part in ipairs(parts) do list[i] = { part, { a = 1 }, cas = { a = 0 } } end
    for _, answer in ipairs(must(db:update_all(list))) do assert.is_true(answer.applied) end
    for _, part in ipairs { parts[600], parts[1], parts[300] } do
      local again = must(db:update_all { { part, { a = 1 } } })
      assert.equal("unchanged", again[1].outcome)
      must(db:update_all { { part, { a = 2 } }, { part, { a = 1 } } })
      assert.equal(1, as_stored(part).a)
      assert.equal(1, part.a)
    end
  end)

  it("expect a value by what it is, be it the one that was read or another", function()
    local part = stored(1)[1]
    must(other:execute("UPDATE part SET a = 7, name = 'other' WHERE id = ?", part.id))
    local function ask(cas) return must(db:update_all { { part, { b = part.b + 1 }, cas = cas } })[1].outcome end
    assert.equal("conflict", ask { a = 0 })
    assert.equal("conflict", ask { name = part.name })
    assert.equal("conflict", ask { a = 7, name = part.name })
    assert.equal("conflict", ask { a = 0, name = "other" })
    assert.equal("applied", ask { a = 7, name = "other" })
    assert.equal("conflict", ask { a = 7, b = 0 })
    assert.equal("applied", ask { name = "other", b = 1 })
  end)

  it("come to the same as one by one, whatever the values are", function()
    local values = { 0, 5, -1, 128, 256, 2.5, 2 ^ 53, 2 ^ 53 + 2, 0 / 0, "7", true, regolith.null }
    local columns = { "tiny", "small", "big", "huge", "real", "flag", "maybe", "stock" }
    local spare = {}
    for i = 1, 2 * 2 * #columns * #values do spare[i] = db:new(Numbers, { big = 5, huge = 5, stock = 5 }) end
    must(db:flush())
    local function fresh() return table.remove(spare) end
    local function told(e, answer, fault)
      local row = must(db:query("SELECT * FROM numbers WHERE id = ?", e.id))[1]
      row.id = nil
      local now = {}
      for _, column in ipairs(columns) do now[column] = tostring(e[column]) end
      fault = fault or answer and answer.err
      return { answer and answer.outcome or "failed", fault and fault.message or "", row, now }
    end
    for _, column in ipairs(columns) do
      for _, v in ipairs(values) do
        for _, expected in ipairs { 5, v == 5 and regolith.null or 0 } do
          local one, many = fresh(), fresh()
          local what = column .. " " .. tostring(v) .. " " .. tostring(expected)
          local ok, answer, fault = pcall(db.update, db, one, { [column] = v }, { cas = { stock = expected } })
          local also, answers = pcall(db.update_all, db, { { many, { [column] = v }, cas = { stock = expected } } })
          assert.equal(ok, also, what)
          if ok then
            local a, b = told(one, answer, fault), told(many, must(answers)[1])
            assert.same(a, b, what)
          end
        end
      end
    end
    must(db:execute "DELETE FROM numbers")
  end)

  it("do not deadlock, however they are given", function()
    local parts, list, back = stored(60), {}, {}
    for i, part in ipairs(parts) do
      list[i], back[61 - i] = { part, { a = 1 } }, { must(other:get(Part, part.id)), { b = 1 } }
    end
    local counts = support.count(orm, function()
      must(db:update_all(list))
      must(other:update_all(back))
    end)
    assert.equal(2, writes(counts, "UPDATE"))
    must(db:execute "UPDATE part SET a = 0, b = 0")
  end)

  it("inserts stand apart from each other", function()
    local team = must(db:new(Team, { name = "t" }))
    must(db:flush())
    local list = {}
    for i = 1, 30 do list[i] = { name = "i" .. i, team = i == 7 and 999999999 or team.id } end
    list[9].name = ("x"):rep(50)
    local answers
    local counts = support.count(orm, function() answers = must(db:insert_all(Part, list)) end)
    for i = 1, 30 do
      assert.equal((i == 7 or i == 9) and "failed" or "applied", answers[i].outcome)
      if i ~= 7 and i ~= 9 then assert.equal("i" .. i, as_stored(answers[i].entity).name) end
    end
    assert.same({ "FOREIGN_KEY", "INVALID" }, { answers[7].err.code, answers[9].err.code })
    assert.is_true(writes(counts, "INSERT") <= 12)
    assert.same({ true, 0 }, { db:flush() })
    local twins = must(db:insert_all(Cached, { { code = "twin" }, { code = "twin" }, { code = "other" } }))
    assert.same({ "applied", "failed", "applied" }, outcomes(twins))
    assert.same({ "DUPLICATE_KEY", "code" }, { twins[2].err.code, twins[2].err.index })
    assert.equal(twins[1].entity.id, must(db:by(Cached, "code", "twin")).id)
  end)

  it("deletes by id tell which were there", function()
    local parts = stored(3)
    local fresh = orm:session()
    local answers = must(fresh:delete_all(Part, { parts[1].id, parts[2].id, 424242424242, regolith.null, parts[1].id }))
    assert.same({ "applied", "applied", "missing", "missing", "applied" }, outcomes(answers))
    assert.is_nil((orm:session():get(Part, parts[1].id)))
    assert.is_table(as_stored(parts[3]))
    fresh:close()
  end)

  it("are checked before any is run", function()
    local part = stored(1)[1]
    assert.has_error(function() db:update_all { { part, { a = 1 } }, { part, { zz = 1 } } } end)
    assert.has_error(function() db:update_all { { part, { a = 1 }, cas = {} } } end)
    assert.has_error(function() db:update_all { part } end)
    assert.has_error(function() db:update_all { { part, { a = 1 }, csa = {} } } end)
    assert.equal(0, as_stored(part).a)
    assert.same({}, must(db:update_all {}))
  end)
end)
