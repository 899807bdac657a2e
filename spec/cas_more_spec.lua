-- SPDX-License-Identifier: MIT
-- What stands on writes on condition: updates of what changed, loops, expressions, upserts, and flushes
-- that hold expectations.

local regolith = require "regolith"
local support = require "support.init"

local field, must, null = regolith.field, support.must, regolith.null

local Team = regolith.entity("team", { field.string "name" { length = 40 } })
local Page = regolith.entity("page", {
  field.string "url" { length = 60 },
  field.int32 "n" { nullable = true }, field.uint16 "small", field.uint64 "big",
  field.decimal "money" { precision = 20, scale = 4 }, field.double "d", field.datetime "ts" { nullable = true },
  field.json "tags" { nullable = true }, field.binary "buf" { length = 20, nullable = true },
  field.refs "teams" { Team },
  field.ref "team" { Team, foreign_key = true }, field.date "day" { nullable = true },
  unique = { url = { "url" }, pair = { "n", "small" } },
  hooks = { before_update = function(page, session) session.asked = (session.asked or 0) + 1 page.d = page.d end },
})
local Doc = regolith.entity("doc", {
  field.string "code" { length = 20, unique = true }, field.int32 "n", field.uint32 "v" { version = true },
  index = { by_n = { "n", cached = true } }, cache = true,
})

describe("cas: on top of it", function()
  local world, orm, db, other
  local counter = 0

  setup(function()
    world = support.world()
    orm = world:open { Team, Page, Doc }
  end)
  teardown(function() world:close() end)
  before_each(function() db, other = orm:session(), orm:session() end)
  after_each(function()
    db:close()
    other:close()
  end)

  local function page(values)
    counter = counter + 1
    values = values or {}
    values.url = values.url or "u" .. counter
    if values.n == nil then values.n = counter end
    local e = must(db:new(Page, values))
    must(db:flush())
    return e
  end
  local function doc(values)
    counter = counter + 1
    local e = must(db:new(Doc, { code = "d" .. counter, n = values and values.n }))
    must(db:flush())
    return e
  end
  local function as_stored(e, entity) return must(orm:session():get(entity or Page, e.id)) end

  describe("update_changed", function()
    it("sends nothing when nothing differs", function()
      local e = page { url = "john" .. counter, buf = "\1\2", tags = { a = { 1 } },
        ts = "2026-01-01 00:00:00.5", d = 0.1 }
      local counts = support.count(orm, function()
        assert.is_nil((db:update_changed(e, { url = e.url })))
        assert.is_nil((db:update_changed(e, { url = e.url }, { cas = { "n" } })))
        assert.is_nil((db:update_changed(e, { buf = "\1\2", tags = { a = { 1 } }, d = 0.1 })))
        assert.is_nil((db:update_changed(e, { ts = "2026-01-01 00:00:00.500000" })))
        assert.is_nil((db:update_changed(e, {})))
      end)
      assert.equal(0, counts.mysql)
      assert.is_nil(db.asked)
    end)

    it("names what it wrote, in the order of the definition", function()
      local e = page { small = 1 }
      assert.same({ "small", "money" }, must(db:update_changed(e, { money = 5, url = e.url, small = 2 })))
      assert.same({ 2, "5.0000" }, { as_stored(e).small, as_stored(e).money })
      assert.same({ "n" }, must(db:update_changed(e, { n = null })))
      assert.is_nil(as_stored(e).n)
      assert.same({ "big" }, must(db:update_changed(e, { big = regolith.increment() })))
    end)

    it("is false when the row is gone or not as expected", function()
      local e = page {}
      must(other:execute("UPDATE page SET small = 9 WHERE id = ?", e.id))
      assert.is_false((db:update_changed(e, { url = "x" .. e.id }, { cas = { "small" } })))
      assert.is_false((db:update_changed(e, { small = 3 }, { cas = "changes" })))
      assert.same({ "url" }, must(db:update_changed(e, { url = "x" .. e.id, d = 0 }, { cas = "changes" })))
      must(other:execute("DELETE FROM page WHERE id = ?", e.id))
      assert.is_false((db:update_changed(e, { small = 3 })))
    end)
  end)

  describe("read_modify_write", function()
    it("repeats until it is made", function()
      local e, calls = doc { n = 1 }, 0
      local answer = must(db:read_modify_write(e, function(it)
        calls = calls + 1
        if calls < 4 then must(other:execute("UPDATE doc SET n = n + 10, v = v + 1 WHERE id = ?", it.id)) end
        return { n = it.n + 1 }
      end))
      assert.same({ true, 4, 4 }, { answer.applied, answer.tries, calls })
      assert.same({ 32, 32 }, { e.n, must(db:query("SELECT n FROM doc WHERE id = ?", e.id))[1].n })
    end)

    it("minds the whole row where there is no version", function()
      local e, calls = page { small = 1 }, 0
      must(db:read_modify_write(Page, e.id, function(it)
        calls = calls + 1
        if calls == 1 then must(other:execute("UPDATE page SET big = 77 WHERE id = ?", it.id)) end
        return { small = it.big }
      end))
      assert.same({ 2, 77 }, { calls, as_stored(e).small })
    end)

    it("gives up with the last conflict", function()
      local e = doc { n = 1 }
      local function lose(it)
        must(other:execute("UPDATE doc SET v = v + 1 WHERE id = ?", it.id))
        return { n = 0 }
      end
      local answer = must(db:read_modify_write(e, lose, { tries = 3 }))
      assert.same({ "conflict", 3, 4 }, { answer.outcome, answer.tries, answer.row.v })
      assert.is_true(must(db:read_modify_write(e, lose, { tries = 100000, deadline_ms = 30 })).conflict)
    end)

    it("tells what is not there, and leaves alone what is fine", function()
      local e = doc { n = 1 }
      assert.is_true(must(db:read_modify_write(Doc, 999999999, error)).missing)
      assert.is_true(must(db:read_modify_write(e, function() end)).unchanged)
      must(other:execute("DELETE FROM doc WHERE id = ?", e.id))
      assert.is_true(must(db:read_modify_write(e, error)).missing)
      assert.has_error(function() db:read_modify_write(e, 5) end)
      assert.has_error(function() db:read_modify_write(e, print, { trys = 1 }) end)
    end)
  end)

  describe("expressions", function()
    it("are computed by the server", function()
      local e = page { n = 5, small = 10, money = "1.0000" }
      must(other:execute("UPDATE page SET n = 100, small = 200 WHERE id = ?", e.id))
      local answer = must(db:update(e, {
        n = regolith.literal("n + ?", 5), small = regolith.increment(-3), money = regolith.increment "0.0001",
        big = regolith.greatest "18446744073709551615", d = regolith.least(-2.5),
        ts = regolith.greatest "2026-05-05 00:00:00.000001",
      }))
      assert.is_true(answer.applied)
      assert.same({ 105, 197, "1.0001", -2.5 }, { e.n, e.small, e.money, e.d })
      assert.equal("18446744073709551615", tostring(e.big))
      assert.equal(as_stored(e).ts, e.ts)
      must(db:update(e, { ts = regolith.greatest "2020-01-01" }))
      assert.equal("2026-05-05 00:00:00.000001", e.ts)
    end)

    it("go with what is expected, and with plain values", function()
      local e = page { n = 5 }
      must(other:execute("UPDATE page SET small = 1 WHERE id = ?", e.id))
      assert.is_true(must(db:update(e, { n = regolith.literal "n + 1" }, { cas = { "small" } })).conflict)
      assert.equal(5, as_stored(e).n)
      assert.is_true(must(db:update(e, { n = regolith.literal "n + 1", d = 3 }, { cas = { n = 5 } })).applied)
      assert.same({ 6, 3 }, { as_stored(e).n, e.d })
    end)

    it("keep within bounds, or stop at them", function()
      local e = page { n = 5, small = 1 }
      local answer = must(db:update(e, { small = regolith.increment(-2, { min = 0 }) }))
      assert.same({ "conflict", 1 }, { answer.outcome, answer.row.small })
      assert.same({ "small" }, answer.differs)
      assert.is_true(must(db:update(e, { n = regolith.increment(5, { min = 0, max = 10 }) })).applied)
      assert.is_true(must(db:update(e, { n = regolith.increment(1, { max = 10 }) })).conflict)
      must(db:update(e, {
        n = regolith.increment(100, { max = 50, clamp = true }),
        small = regolith.increment(-9, { min = 0, clamp = true }),
      }))
      assert.same({ 50, 0 }, { e.n, e.small })
      assert.equal("CONSTRAINT", select(2, db:update(e, { small = regolith.increment(-1) })).code)
      must(db:update(e, { n = null }))
      must(db:update(e, { n = regolith.increment(2) }))
      assert.equal(2, e.n)
    end)

    it("append to and remove from JSON arrays", function()
      local e = page {}
      must(db:update(e, { tags = regolith.append "a" }))
      must(db:update(e, { tags = regolith.append { x = { 1 } } }))
      must(db:update(e, { tags = regolith.append(9007199254740993LL) }))
      must(db:update(e, { tags = regolith.append("a", { unique = true }) }))
      must(db:update(e, { tags = regolith.append("b", { unique = true }) }))
      assert.same({ "a", { x = { 1 } }, 9007199254740993LL, "b" }, as_stored(e).tags)
      must(db:update(e, { tags = regolith.remove "a" }))
      must(db:update(e, { tags = regolith.remove "zz" }))
      assert.same({ { x = { 1 } }, 9007199254740993LL, "b" }, e.tags)
      must(db:update(e, { tags = { k = 1 } }))
      assert.is_true(must(db:update(e, { tags = regolith.append(1) })).conflict)
      must(db:update(e, { teams = regolith.append(7) }))
      must(db:update(e, { teams = regolith.append(7, { unique = true }) }))
      assert.same({ 7 }, as_stored(e).teams)
    end)

    it("are refused where they mean nothing", function()
      local e = page {}
      for _, changes in ipairs {
        { url = regolith.increment(1) }, { n = regolith.append(1) }, { tags = regolith.least(1) },
        { zz = regolith.increment(1) },
      } do
        assert.has_error(function() db:update(e, changes) end)
      end
      assert.has_error(function() regolith.literal("n + ?") end)
      assert.has_error(function() regolith.literal(5) end)
      assert.has_error(function() regolith.increment {} end)
      assert.has_error(function() regolith.increment(1, { mini = 1 }) end)
      assert.has_error(function() regolith.remove {} end)
      assert.equal("INVALID", select(2, db:update(e, { n = regolith.literal "1; DROP TABLE page" })).code)
      assert.equal("INVALID", select(2, db:update(e, { n = regolith.literal "n) WHERE (1" })).code)
      assert.equal("INVALID", select(2, db:update(e, { n = regolith.literal "1 ORDER BY n" })).code)
      assert.is_table(as_stored(e))
    end)

    it("are refused by new rows and by flushes, queued or not", function()
      local item = page { tags = { "a" } }
      local was = item.n
      local values = { n = regolith.increment(1), tags = regolith.append("b"), url = regolith.literal("UPPER(url)"),
        teams = regolith.append(1) }
      for _, flush in ipairs { "flush", "flush_async" } do
        for name, v in pairs(values) do
          item[name] = v
          local ok, err = db[flush](db)
          assert.same({ nil, "INVALID", name }, { ok, err.code, err.field })
          assert.matches("in update, update_all and upsert", err.message)
          db:discard()
          must(db:new(Page, { [name] = v }))
          assert.equal("INVALID", select(2, db[flush](db)).code)
          db:discard()
        end
        item.tags = { deep = { regolith.append("b") } } -- not as a part of a value, either
        assert.equal("INVALID", select(2, db[flush](db)).code)
        db:discard()
      end
      local now = as_stored(item)
      assert.same({ was, { "a" } }, { now.n, now.tags })
    end)

    it("count the version up and tell the caches", function()
      local e = doc { n = 1 }
      as_stored(e, Doc)
      must(orm:session():all_by(Doc, "by_n", 1))
      must(orm:session():all_by(Doc, "by_n", 2))
      must(other:execute("UPDATE doc SET v = v + 1 WHERE id = ?", e.id))
      must(db:update(e, { n = regolith.increment(1) }))
      assert.same({ 2, 3 }, { e.n, e.v })
      assert.same({ 2, 3 }, { as_stored(e, Doc).n, as_stored(e, Doc).v })
      local found = false
      for _, it in ipairs(must(orm:session():all_by(Doc, "by_n", 2))) do found = found or it.id == e.id end
      assert.is_true(found)
    end)
  end)

  describe("upsert", function()
    it("makes what is missing, and changes what is there", function()
      local answer = must(db:upsert(Page, { url = "up", n = 500, small = 1 }, { by = "url" }))
      assert.same({ true, true, 500 }, { answer.inserted, answer.applied, answer.entity.n })
      local again = must(other:upsert(Page, { url = "up", n = 501, small = 1, d = regolith.increment(2) },
        { by = "url" }))
      assert.same({ nil, true, answer.entity.id, 501, 2 },
        { again.inserted, again.applied, again.entity.id, again.entity.n, again.entity.d })
      local some = must(db:upsert(Page, { url = "up", n = 9, small = 5 }, { by = "url", update = { "small" } }))
      assert.same({ 501, 5 }, { as_stored(some.entity).n, as_stored(some.entity).small })
      must(db:upsert(Page, { url = "up2" }, { insert = { n = 502 }, update = { n = 1 } }))
      assert.equal(502, must(db:by(Page, "url", "up2")).n)
    end)

    it("on condition", function()
      local first = must(db:upsert(Doc, { code = "cond", n = 1 })).entity
      assert.is_true(must(other:upsert(Doc, { code = "cond", n = 2 }, { cas = { n = 1 } })).applied)
      local answer = must(other:upsert(Doc, { code = "cond", n = 3 }, { cas = { n = 1 } }))
      assert.same({ "conflict", 2 }, { answer.outcome, answer.row.n })
      assert.equal(2, as_stored(first, Doc).n)
    end)

    it("leaves alone with insert_if_missing", function()
      local e, made = db:insert_if_missing(Doc, { code = "once", n = 1 })
      assert.is_true(made)
      local same, again = other:insert_if_missing(Doc, { code = "once", n = 2 })
      assert.same({ false, e.id, 1 }, { again, same.id, same.n })
      local one, two = must(db:insert_if_missing(Page, { url = "nul1", n = null, small = 1 }, { by = "pair" })),
        must(db:insert_if_missing(Page, { url = "nul2", n = null, small = 1 }, { by = "pair" }))
      assert.not_equal(one.id, two.id)
    end)

    it("wants to know which index", function()
      assert.has_error(function() db:upsert(Page, { url = "x", n = 1, small = 1 }) end)
      assert.has_error(function() db:upsert(Page, { d = 1 }) end)
      assert.has_error(function() db:upsert(Page, { url = "x" }, { by = "ulr" }) end)
      local e, err = db:upsert(Page, { url = "fk", team = 999999999 })
      assert.is_nil(e)
      assert.equal("FOREIGN_KEY", err.code)
      assert.same({ true, 0 }, { db:flush() })
    end)
  end)

  describe("a flush", function()
    it("fails as a whole when one is not as expected, and tells which", function()
      local one, two, three = page {}, page {}, page {}
      must(other:execute("UPDATE page SET small = 9 WHERE id = ?", two.id))
      one.d, two.d = 5, 6
      db:expect(two, { "small" })
      db:expect(three, { small = 0 })
      local ok, err = db:flush()
      assert.is_nil(ok)
      assert.same({ "CONFLICT", two, 9 }, { err.code, err.row, err.current.small })
      assert.same({ "small" }, err.differs)
      assert.equal(0, as_stored(one).d)
      must(db:reload(two))
      two.d = 6
      assert.same({ true, 2 }, { db:flush() })
      assert.same({ 5, 6 }, { as_stored(one).d, as_stored(two).d })
    end)

    it("compares rows that it does not change", function()
      local one, two = page {}, page {}
      one.d = 1
      db:expect(two, { "small" })
      must(other:execute("UPDATE page SET small = 3 WHERE id = ?", two.id))
      assert.equal(two, select(2, db:flush()).row)
      must(other:execute("DELETE FROM page WHERE id = ?", two.id))
      assert.matches("vanished", select(2, db:flush()).message)
      db:discard(two)
      assert.same({ true, 1 }, { db:flush() })
    end)

    it("minds the version on top of what is named, which an update does not", function()
      local changed, named = doc { n = 1 }, doc { n = 1 }
      for _, e in ipairs { changed, named } do
        must(other:execute("UPDATE doc SET code = CONCAT(code, 'x'), v = v + 1 WHERE id = ?", e.id))
      end
      must(orm:invalidate(Doc))
      changed.n = 2
      db:expect(changed, { "n" })
      local _, err = db:flush()
      assert.same({ "CONFLICT", changed, { "v" } }, { err.code, err.row, err.differs })
      db:discard(changed)
      db:expect(named, { "n" })
      _, err = db:flush()
      assert.same({ "CONFLICT", named, { "v" } }, { err.code, err.row, err.differs })
      db:discard(named)
      assert.is_true(db:update(changed, { n = 3 }, { cas = { "n" } }).applied)
      assert.equal(3, as_stored(changed, Doc).n)
    end)

    it("minds what it changes with the shorthand, deletes on expectation", function()
      local list = {}
      for i = 1, 70 do list[i] = page {} end
      for i = 1, 70 do list[i].d = i end
      must(other:execute("UPDATE page SET big = 3 WHERE id = ?", list[66].id))
      must(db:flush { cas = "changes" })
      for i = 1, 70 do list[i].d = 0 end
      must(other:execute("UPDATE page SET d = 1000 WHERE id = ?", list[66].id))
      local _, err = db:flush { cas = "changes" }
      assert.same({ "CONFLICT", list[66], 1000 }, { err.code, err.row, err.current.d })
      assert.equal(1, as_stored(list[1]).d)
      db:discard()
      db:delete(list[1])
      db:expect(list[1], { d = 2 })
      assert.equal("CONFLICT", select(2, db:flush()).code)
      db:expect(list[1], { d = 1 })
      assert.same({ true, 1 }, { db:flush() })
      assert.has_error(function() db:flush { cas = "version" } end)
    end)
  end)
end)
