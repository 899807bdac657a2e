-- SPDX-License-Identifier: MIT
-- Writes on condition: what is compared, and how exactly; the outcomes; what is refused.

local regolith = require "regolith"
local support = require "support.init"

local field, must, null = regolith.field, support.must, regolith.null

local seen = {}

local Team = regolith.entity("team", { field.string "name" { length = 40 } })
local Item = regolith.entity("item", {
  field.string "name" { length = 60, nullable = true, collation = "utf8mb4_general_ci" },
  field.text "story" { nullable = true },
  field.int32 "n",
  field.uint64 "big" { nullable = true },
  field.bool "on",
  field.float "f" { nullable = true },
  field.double "d" { nullable = true },
  field.decimal "money" { precision = 20, scale = 6, nullable = true },
  field.date "day" { nullable = true },
  field.datetime "ts" { nullable = true },
  field.time "span" { nullable = true },
  field.json "tags" { nullable = true },
  field.binary "buf" { length = 40, nullable = true },
  field.enum "state" { "new", "open", "done" },
  field.set "flags" { "a", "b", "c" },
  field.ref "team" { Team },
  field.refs "teams" { Team },
  field.struct "place" { field.string "city" { nullable = true }, field.int32 "floor" },
  field.datetime "touched" { updated = true },
  hooks = {
    before_update = function(item)
      seen[#seen + 1] = "before"
      if item.state == "done" then item.on = true end
    end,
    after_update = function() seen[#seen + 1] = "after" end,
    on_conflict = function(_, _, answer) seen[#seen + 1] = answer.outcome end,
  },
})
local Doc = regolith.entity("doc", {
  field.string "title", field.int32 "n", field.uint32 "v" { version = true },
  cache = true,
})

describe("cas:", function()
  local world, orm, db, other

  setup(function()
    world = support.world()
    orm = world:open { Team, Item, Doc }
  end)
  teardown(function() world:close() end)
  before_each(function()
    db, other, seen = orm:session(), orm:session(), {}
  end)
  after_each(function()
    db:close()
    other:close()
  end)

  --- A stored entity of the first session.
  local function stored(values, entity)
    local e = must(db:new(entity or Item, values))
    must(db:flush())
    return e
  end

  --- What somebody else does to it.
  local function meanwhile(e, changes, entity)
    local same = must(other:get(entity or Item, e.id))
    must(other:update(same, changes))
    return same
  end

  local function as_stored(e, entity) return must(orm:session():get(entity or Item, e.id)) end

  describe("an update", function()
    it("is made when the expected values are there", function()
      local item = stored { name = "a", ts = "2026-01-02 03:04:05.000001" }
      local answer = must(db:update(item, { name = "a2", ts = null }, { cas = { name = "a", ts = item.ts } }))
      assert.same({ "applied", true, true }, { answer.outcome, answer.applied, answer.changed })
      assert.same({ "a2" }, { item.name, item.ts })
      assert.equal("a2", as_stored(item).name)
      assert.same({ "before", "after" }, seen)
    end)

    it("is not made when they are not, and tells what is there", function()
      local item = stored { name = "a", n = 1 }
      meanwhile(item, { name = "b", n = 7 })
      seen = {}
      local answer = must(db:update(item, { name = "c" }, { cas = { name = "a" } }))
      assert.same({ "conflict", true, false }, { answer.outcome, answer.conflict, answer.changed })
      assert.same({ "name" }, answer.differs)
      assert.same({ "b", 7, item.id }, { answer.row.name, answer.row.n, answer.row.id })
      assert.is_nil(getmetatable(answer.row))
      assert.equal("a", item.name)
      assert.same({ "b", 7 }, { as_stored(item).name, as_stored(item).n })
      assert.same({ "before", "conflict" }, seen)
    end)

    it("compares what was read when it is given names", function()
      local item = stored { name = "a", n = 1 }
      item.name = "changed here, and not flushed"
      assert.is_true(must(db:update(item, { n = 2 }, { cas = { "name", "n" } })).applied)
      meanwhile(item, { n = 3 })
      assert.same({ "n" }, must(db:update(item, { on = true }, { cas = { "name", "n" } })).differs)
      must(db:reload(item))
      assert.is_true(must(db:update(item, { on = true }, { cas = { "name", "n" } })).applied)
      db:discard()
    end)

    it("minds only what it changes with the shorthand, hooks included", function()
      local item = stored { name = "a", n = 1 }
      meanwhile(item, { n = 2, story = "x" })
      assert.is_true(must(db:update(item, { name = "b" }, { cas = "changes" })).applied)
      assert.same({ "b", 2 }, { as_stored(item).name, as_stored(item).n })
      meanwhile(item, { on = true })
      assert.same({ "on" }, must(db:update(item, { state = "done" }, { cas = "changes" })).differs)
    end)

    it("asks the database although nothing would change", function()
      local item = stored { name = "a" }
      assert.same("unchanged", must(db:update(item, { name = "a" }, { cas = "changes" })).outcome)
      meanwhile(item, { name = "b" })
      assert.same("conflict", must(db:update(item, { name = "a" }, { cas = "changes" })).outcome)
      assert.same("conflict", must(db:update(item, {}, { cas = { "name" } })).outcome)
    end)

    it("tells a row that is gone", function()
      local item = stored { name = "a" }
      must(other:execute("DELETE FROM item WHERE id = ?", item.id))
      seen = {}
      assert.same("missing", must(db:update(item, { name = "b" }, { cas = { "name" } })).outcome)
      assert.same("missing", must(db:update(item, { name = "a" }, { cas = { "name" } })).outcome)
      assert.same({ "before", "missing", "before", "missing" }, seen)
    end)

    it("is true or false as a question", function()
      local item = stored { n = 1 }
      assert.is_true((db:compare_and_set(item, { n = 2 }, { n = 1 })))
      local made, answer = db:compare_and_set(item, { n = 3 }, { n = 1 })
      assert.is_false(made)
      assert.equal(2, answer.row.n)
    end)

    it("refuses what would compare nothing", function()
      local item = stored { name = "a" }
      local function refused(why, changes, cas)
        local ok, text = pcall(function() must(db:update(item, changes, { cas = cas })) end)
        assert.is_false(ok)
        assert.matches(why, text)
        assert.matches("cas_spec", text)
      end
      refused("empty", { n = 1 }, {})
      refused("no field 'nam' %(did you mean 'name'%?%)", { n = 1 }, { "nam" })
      refused("no field 'nam'", { n = 1 }, { nam = 1 })
      refused("nothing is changed", {}, "changes")
      refused("did you mean 'changes'", { n = 1 }, "change")
      refused("version = true", { n = 1 }, "version")
      refused("either a list", { n = 1 }, { "name", n = 1 })
      refused("never NULL", { n = 1 }, { n = null })
      refused("cas is", { n = 1 }, true)
      assert.has_error(function() db:update(item, { n = 1 }, { csa = {} }) end)
      assert.equal("INVALID", select(2, db:update(item, { n = 1 }, { cas = { n = "many" } })).code)
      assert.equal(0, as_stored(item).n)
      local new = db:new(Item, {})
      assert.has_error(function() db:update(new, { n = 1 }, { cas = { "n" } }) end)
      db:discard()
    end)
  end)

  -- ---- exactness --------------------------------------------------------------------------------

  local BYTES, OTHER = "\1\2\3", "\4\5\6"
  local KINDS = { -- field, its value, one that is almost the same
    { "name", "Abc", "abc" }, { "name", "Abc", "Abc " }, { "name", "A\204\136", "\195\132" }, { "name", "", null },
    { "story", "long", "Long" }, { "story", "\240\159\152\128", "?" },
    { "n", -2147483648, -2147483647 }, { "big", "18446744073709551615", "18446744073709551614" },
    { "big", "9007199254740993", "9007199254740992" }, { "big", 0, null }, { "on", true, false },
    { "f", 0.1, 0.10001 }, { "f", 16777216, 16777218 }, { "d", 0.1, 0.1 + 2 ^ -55 },
    { "d", 1e308, 1.0000000000000002e308 },
    { "money", "12345678901234.000001", "12345678901234.000002" }, { "money", "0.000000", null },
    { "day", "2026-02-28", "2026-03-01" }, { "ts", "2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000002" },
    { "ts", "2026-01-01 00:00:00.123456", "2026-01-01 00:00:00.123000" },
    { "span", "-01:00:00.000001", "-01:00:00" },
    { "tags", { a = { 1, "x" }, b = true }, { a = { 1, "y" }, b = true } }, { "tags", { 1, 2 }, { 2, 1 } },
    { "buf", BYTES, OTHER }, { "buf", "a", "A" }, { "buf", "a\0", "a" }, { "state", "open", "done" },
    { "flags", { "a", "c" }, { "a" } }, { "teams", { 1, 2 }, { 2, 1 } },
    { "place", { city = "Ulm", floor = 3 }, { city = "ulm", floor = 3 } },
  }

  local function exact(name, value, near, write)
    local item, twin = stored { [name] = value }, stored { [name] = value }
    local label = string.format("%s: %s", name, tostring(value))
    assert.same("applied", write(item, twin, { [name] = value }), label)
    assert.same("conflict", write(item, twin, { [name] = near }), label .. " and almost")
    assert.same("applied", write(item, twin, { name }), label .. " as read")
  end

  it("compares exactly by type, one row", function()
    for _, kind in ipairs(KINDS) do
      local n = 0
      exact(kind[1], kind[2], kind[3], function(item, _, cas)
        n = n + 1
        return must(db:update(item, { [kind[1] == "n" and "d" or "n"] = n }, { cas = cas })).outcome
      end)
    end
  end)

  it("compares exactly by type, many rows", function()
    for _, kind in ipairs(KINDS) do
      local n = 0
      exact(kind[1], kind[2], kind[3], function(item, twin, cas)
        n = n + 1
        local changes = { [kind[1] == "n" and "d" or "n"] = n }
        local answers = must(db:update_all { { item, changes, cas = cas }, { twin, changes, cas = cas } })
        assert.same(answers[1].outcome, answers[2].outcome, kind[1])
        return answers[1].outcome
      end)
    end
  end)

  it("takes NULL for an expected value", function()
    local item = stored { name = null, ts = null }
    assert.is_true(must(db:update(item, { name = "b" }, { cas = { name = null, ts = null } })).applied)
    assert.same({ "name" }, must(db:update(item, { name = "c" }, { cas = { name = null, ts = null } })).differs)
  end)

  it("minds no white space in JSON", function()
    local item = stored { tags = { a = 1 } }
    must(other:execute("UPDATE item SET tags = '{ \"a\" : 1 }' WHERE id = ?", item.id))
    assert.is_true(must(db:update(item, { n = 1 }, { cas = { "tags" } })).applied)
  end)

  -- ---- deletes, versions ------------------------------------------------------------------------

  it("deletes on condition", function()
    local item, gone = stored { n = 1 }, stored { n = 1 }
    meanwhile(item, { n = 2 })
    local answer = must(db:delete(item, { cas = { "n" } }))
    assert.same({ "conflict", 2 }, { answer.outcome, answer.row.n })
    assert.equal(2, as_stored(item).n)
    assert.is_true(must(db:delete(gone, { cas = { n = 1 } })).applied)
    assert.is_nil((orm:session():get(Item, gone.id)))
    assert.has_error(function() db:reload(gone) end)
    assert.has_error(function() db:delete(item, { cas = "changes" }) end)
  end)

  it("compares the version by wish, or by itself", function()
    local doc = stored({ title = "a", n = 1 }, Doc)
    meanwhile(doc, { n = 2 }, Doc)
    assert.same({ "v" }, must(db:update(doc, { title = "b" }, { cas = "version" })).differs)
    assert.same({ "v" }, must(db:update(doc, { title = "b" }, {})).differs)
    assert.is_true(must(db:update(doc, { title = "b" }, { cas = "changes" })).applied)
    assert.same({ "b", 2, 3 }, { doc.title, doc.n, doc.v })
    assert.same({ "b", 2, 3 }, { as_stored(doc, Doc).title, as_stored(doc, Doc).n, as_stored(doc, Doc).v })
    assert.is_true(must(db:update(doc, { title = "c" }, { cas = "version" })).applied)
    assert.equal(4, as_stored(doc, Doc).v)
  end)

  it("leaves the caches as the database is", function()
    local doc = stored({ title = "a", n = 1 }, Doc)
    as_stored(doc, Doc)
    for i = 1, 20 do
      must(db:update(doc, { n = i }, { cas = i % 2 == 0 and "version" or { "title" } }))
      assert.equal(i, as_stored(doc, Doc).n)
      must(db:update(doc, { n = 99 }, { cas = { n = 0 } }))
      assert.equal(i, as_stored(doc, Doc).n)
    end
    must(db:update(doc, { n = regolith.increment(5) }))
    assert.same({ 25, 25 }, { doc.n, as_stored(doc, Doc).n })
    must(db:delete(doc, { cas = "version" }))
    assert.is_nil((orm:session():get(Doc, doc.id)))
  end)
end)
