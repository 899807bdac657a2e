-- SPDX-License-Identifier: MIT
-- The write path, case by case (1 to 20 of the cases), and what is to beat (48).

local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field, null = regolith.field, regolith.null

local CACHES = { none = false, process = { process = true }, redis = { redis = true }, both = true }

--- The statements that write or read rows: transactions begin and end around them.
local function statements(counts)
  local list = {}
  for _, text in ipairs(counts.texts) do
    if text ~= "BEGIN" and text ~= "COMMIT" then list[#list + 1] = text end
  end
  return list
end

describe("case 1: an entity with its required fields alone", function()
  local world, orm
  local kinds = {}

  setup(function()
    world = support.world()
    local entities = {}
    for name, cache in pairs(CACHES) do
      kinds[name] = regolith.entity("thing_" .. name, {
        field.string "name" { required = true }, field.enum "must" { "new", "done", required = true },
        field.bool "flag", field.int64 "n", field.double "x", field.decimal "price", field.string "text",
        field.blob "bytes", field.enum "state" { "first", "second" }, field.set "roles" { "a", "b" },
        field.time "at", field.string "maybe" { nullable = true }, field.datetime "seen" { nullable = true },
        field.enum "mood" { "good", "bad", nullable = true },
        cache = cache,
      })
      entities[#entities + 1] = kinds[name]
    end
    orm = world:open(entities)
  end)
  teardown(function() world:close() end)

  for name in pairs(CACHES) do
    it("holds zeros, nothing and first values, caches: " .. name, function()
      local db, E = orm:session(), kinds[name]
      local id = db:new(E, { name = "x", must = "new" }).id
      must(db:flush())
      for round = 1, 3 do -- from what the flush left, from MySQL, from what a read left
        if round == 2 then must(orm:invalidate(E)) end
        local other = orm:session()
        local e = other:get(E, id)
        local fields = {}
        for key, v in pairs(e) do fields[key] = v end
        assert.same({
          id = id, name = "x", must = "new", flag = false, n = 0, x = 0, price = "0.00", text = "", bytes = "",
          state = "first", roles = {}, at = "00:00:00",
        }, fields)
        assert.is_nil(e.maybe)
        assert.is_nil(e.seen)
        assert.is_nil(e.mood)
        other:close()
      end
      db:close()
    end)
  end
end)

local Town = regolith.entity("town", {
  field.string "name" { required = true, unique = true, length = 255 },
  field.string "code" { nullable = true, length = 10 },
  field.uint16 "size",
  field.int32 "zone",
  field.double "area",
  field.decimal "tax",
  field.date "founded" { nullable = true },
  field.datetime "seen" { nullable = true },
  field.time "opens" { nullable = true },
  field.enum "kind" { "village", "city" },
  field.enum "rank" { "low", "high", required = true, default = "low" },
  field.set "tags" { "old", "new", "sea" },
  field.json "notes",
  field.ref "twin" { "town" },
  field.refs "near" { "town" },
  field.struct "at" { field.double "lat", field.double "lon" },
  field.array "score" { of = field.uint8, n = 3 },
  field.array "stop" { of = { field.string "line", field.uint16 "count" }, n = 2 },
  unique = { place = { "zone", "code" } },
})
--- Neither caches nor unique indexes: nobody has to be told of a change.
local Plain = regolith.entity("plain", { field.string "name" { required = true }, field.uint32 "n" })
local Other = regolith.entity("other", { field.string "name" { required = true }, field.ref "plain" { Plain } })

describe("the write path", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Town, Plain, Other }
  end)
  teardown(function() world:close() end)

  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    local admin = orm:session()
    for _, entity in ipairs { Town, Plain, Other } do
      must(admin:execute("DELETE FROM `" .. entity.name .. "`"))
      must(orm:invalidate(entity))
    end
    admin:close()
  end)

  local function fresh()
    must(db:flush())
    db:close()
    db = orm:session()
  end

  local n = 0
  local function town(values)
    n = n + 1
    values = values or {}
    values.name = values.name or "town " .. n
    values.zone = values.zone or n
    return must(db:new(Town, values))
  end

  it("sends nothing for what is still the same, however it is said (4)", function()
    local id = town {
      area = 0.1, tax = "2.50", founded = "1900-01-02", seen = "2026-01-31 12:00:00.5", opens = "07:05:00",
      tags = { "old", "sea" }, notes = { a = 1, b = { true, null } }, near = { 5, 4 }, at = { lat = 1.5 },
    }.id
    fresh()
    local e = db:get(Town, id)
    e.area, e.tax, e.founded = "0.1", 2.5, "1900-01-02"
    e.seen, e.opens = "2026-01-31T12:00:00.500Z", "7:05:00"
    e.tags, e.notes, e.near = { "sea", "old", "sea" }, { b = { true, null }, a = 1 }, { 5, 4 }
    e.at, e.score, e.size, e.kind = { lat = 1.5, lon = 0 }, { 0 }, "0", "village"
    e.name = e.name .. ""
    e.stop = {}
    local counts = support.count(orm, function() assert.same({ true, 0 }, { db:flush() }) end)
    assert.same({ 0, 0 }, { counts.mysql, counts.redis })
    assert.is_nil(db:dirty(e))
  end)

  it("refuses an empty required string until it is mended or discarded (6)", function()
    local e = town { name = "" }
    for _ = 1, 2 do
      local ok, err = db:flush()
      assert.is_nil(ok)
      assert.same({ "INVALID", "name", "town" }, { err.code, err.field, err.entity })
      assert.matches("empty string not allowed", err.message)
      assert.equal(e, err.row)
    end
    db:discard()
    assert.same({ true, 0 }, { db:flush() })
  end)

  it("refuses text that is too long, and takes it mended (7)", function()
    local e = town { name = ("x"):rep(256) }
    local ok, err = db:flush()
    assert.is_nil(ok)
    assert.same({ "INVALID", "name" }, { err.code, err.field })
    assert.matches("text too long, max 255 allowed", err.message)
    e.name = ("ü"):rep(255) -- characters, not bytes
    fresh()
    assert.equal(("ü"):rep(255), db:get(Town, e.id).name)
  end)

  it("refuses values that an enum or a set does not have (9)", function()
    local wrong = {
      { "kind", { kind = "town" }, "invalid value" }, { "kind", { kind = "" }, "empty value not allowed" },
      { "kind", { kind = "CITY" }, "invalid value" }, { "kind", { kind = "city " }, "invalid value" },
      { "tags", { tags = { "old", "red" } }, "invalid value" }, { "tags", { tags = "old,,new" }, "" },
    }
    for _, case in ipairs(wrong) do
      local e = town(case[2])
      local ok, err = db:flush()
      assert.is_nil(ok)
      assert.same({ "INVALID", case[1] }, { err.code, err.field })
      assert.matches(case[3], err.message)
      db:discard(e)
    end
    local Strict = regolith.entity("strict", {
      field.enum "one" { "a", "b", required = true }, field.set "some" { "a", "b", required = true },
    })
    local own = world:open { Strict }
    local session = own:session()
    for _, case in ipairs {
      { "one", { some = { "a" } } }, { "one", { one = null, some = { "a" } } }, { "one", { one = "", some = { "a" } } },
      { "some", { one = "a" } }, { "some", { one = "a", some = {} } }, { "some", { one = "a", some = "" } },
    } do
      session:new(Strict, case[2])
      local ok, err = session:flush()
      assert.is_nil(ok)
      assert.same({ "INVALID", case[1] }, { err.code, err.field })
      session:discard()
    end
    session:close()
    world:shut(own)
  end)

  it("refuses what is no list where a set or references are, which would be stored as less than it says", function()
    for name, lists in pairs {
      tags = { { old = true }, { "old", new = true }, { [2] = "old" }, { "old", [3] = "new" } },
      near = { { a = 1 }, { 1, b = 2 }, { [2] = 1 }, { "0x10" }, { "1e3" }, { 1, [3] = 3 } },
    } do
      for _, list in ipairs(lists) do
        local e = town { [name] = list }
        local ok, err = db:flush()
        assert.is_nil(ok)
        assert.same({ "INVALID", name }, { err.code, err.field })
        assert.matches("list", err.message)
        db:discard(e)
      end
    end
    local a, b = town(), town()
    must(db:flush())
    local e = town { near = db:get_many(Town, { a.id, b.id }), tags = { "old", n = 1 } } -- lists that tell their length
    must(db:flush())
    assert.same({ a.id, b.id }, e.near)
    assert.same({ "old" }, e.tags)
  end)

  it("refuses times that are not UTC (10)", function()
    for _, text in ipairs { "2026-01-31T12:00:00+02:00", "2026-01-31T12:00:00-00:30", "2026-01-31 12:00:00 CET" } do
      local e = town { seen = text }
      local ok, err = db:flush()
      assert.is_nil(ok)
      assert.same({ "INVALID", "seen" }, { err.code, err.field })
      db:discard(e)
    end
    local id = town { seen = "2026-01-31T12:00:00+00:00" }.id
    fresh()
    assert.equal("2026-01-31 12:00:00", db:get(Town, id).seen)
  end)

  it("names the index of a duplicate, whatever Redis knows (11)", function()
    town { name = "Name" }
    local second = town { name = "Second" }
    must(db:flush())
    for _, empty in ipairs { false, true } do
      if empty then support.redis "FLUSHALL" end
      local twin = town { name = "Name" }
      local ok, err, errno = db:flush()
      assert.is_nil(ok)
      assert.same({ "DUPLICATE_KEY", "name", 1062, "town" }, { err.code, err.index, errno, err.entity })
      db:discard(twin)
      second.name = "Name"
      ok, err = db:flush()
      assert.is_nil(ok)
      assert.same({ "DUPLICATE_KEY", "name" }, { err.code, err.index })
      assert.equal("Name", second.name) -- mend it, or
      db:discard(second)
      assert.equal("Second", second.name)
    end
  end)

  it("gives a unique value free with its row, and with its name (12)", function()
    local a = town { name = "A" }
    local b = town { name = "B" }
    must(db:flush())
    db:delete(a)
    must(db:flush())
    local c = town { name = "A" }
    must(db:flush())
    assert.equal(c.id, orm:session():by(Town, "name", "A").id)
    b.name = "C"
    must(db:flush())
    local d = town { name = "B" }
    must(db:flush())
    assert.same({ b.id, d.id }, { orm:session():by(Town, "name", "C").id, orm:session():by(Town, "name", "B").id })
  end)

  it("gives a unique value free for others of the same flush (12)", function()
    local a, b, c = town { name = "A" }, town { name = "B" }, town { name = "C" }
    must(db:flush())
    a.name, b.name, c.name = "B", "C", "D" -- a chain
    local new = town { name = "A" }
    must(db:flush())
    for name, e in pairs { A = new, B = a, C = b, D = c } do
      assert.equal(e.id, orm:session():by(Town, "name", name).id)
    end
    db:delete(c)
    b.name = "D"
    must(db:flush())
    assert.equal(b.id, orm:session():by(Town, "name", "D").id)
  end)

  it("inserts in as few statements as there are entities, without a needless transaction (13)", function()
    db:new(Plain, { name = "ids of" })
    db:new(Other, { name = "both kinds" })
    must(db:flush())
    db:new(Plain, { name = "one" })
    local counts = support.count(orm, function() must(db:flush()) end)
    assert.equal(1, counts.mysql)
    assert.matches("^INSERT INTO `plain`", counts.texts[1])
    db:new(Plain, { name = "two" })
    db:new(Plain, { name = "three" })
    assert.equal(1, support.count(orm, function() must(db:flush()) end).mysql)
    local plain = db:new(Plain, { name = "four" })
    db:new(Other, { name = "five", plain = plain })
    counts = support.count(orm, function() must(db:flush()) end)
    assert.equal(4, counts.mysql)
    assert.equal("BEGIN", counts.texts[1])
    assert.matches("^INSERT INTO `plain`", counts.texts[2]) -- referenced first
    assert.matches("^INSERT INTO `other`", counts.texts[3])
    assert.equal("COMMIT", counts.texts[4])
    assert.equal(5, #orm:session():query "SELECT id FROM plain")
  end)

  it("copies all but the id, as an insert (14)", function()
    local e = town { name = "first", notes = { 1 }, at = { lat = 3 }, tags = { "sea" } }
    must(db:flush())
    local copy = must(db:copy(e))
    copy.name, copy.zone = "second", e.zone + 1000
    local counts = support.count(orm, function() must(db:flush()) end)
    assert.matches("^INSERT INTO `town`", statements(counts)[1])
    assert.is_not.equal(e.id, copy.id)
    fresh()
    local read = db:get(Town, copy.id)
    assert.same({ { 1 }, 3, { "sea" } }, { read.notes, read.at.lat, read.tags })
    read.notes[1] = 2
    assert.equal(1, orm:session():get(Town, e.id).notes[1])
  end)

  it("follows lists of references with holes (16)", function()
    local a, b = town(), town()
    local e = town { near = { 1e9 + 1, 1e9 + 2, a, b } }
    fresh()
    e = db:get(Town, e.id)
    assert.equal(4, #e.near)
    local near = must(db:refs(e, "near"))
    assert.same({ 4, false, false }, { near.n, near[1], near[2] })
    assert.same({ a.id, b.id }, { near[3].id, near[4].id })
    assert.equal(4, must(db:get_many(Town, e.near)).n)
    e.near = nil
    fresh()
    assert.same({}, db:get(Town, e.id).near)
  end)

  it("takes integers in any exact form (17)", function()
    local e = town()
    must(db:flush())
    for _, v in ipairs { "5", 5.0, 5LL, 5ULL } do
      must(db:update(e, { size = 0 }))
      assert.is_true(must(db:update(e, { size = v })).applied)
      assert.equal(5, e.size)
      assert.equal(5, orm:session():get(Town, e.id).size)
    end
    local wrong = {
      size = { -14, 65536, "invalid", 2.5, "2.5", "", true, -1LL, 70000ULL, {}, 0 / 0 },
      zone = { 2147483648, "9999999999", "0x10", 1e300, 1 / 0 },
      ["score[2]"] = { 256, -1, "x" },
      ["stop[2].count"] = { 65536, "many" },
      ["at.lat"] = { "north", 0 / 0, {} },
    }
    for name, values in pairs(wrong) do
      for _, v in ipairs(values) do
        local answer, err = db:update(e, { [name] = v })
        assert.is_nil(answer, name .. " took " .. tostring(v))
        assert.same({ "INVALID", name }, { err.code, err.field })
      end
    end
    assert.equal(5, e.size)
    assert.same({ true, 0 }, { db:flush() })
  end)

  it("names columns of arrays and structs by their SQL names too (17)", function()
    local e = town()
    must(db:flush())
    must(db:update(e, { score_2 = 9, at_lat = 48.4, stop_2_count = 7, ["stop[1].line"] = "U1" }))
    fresh()
    e = db:get(Town, e.id)
    assert.same({ { 0, 9, 0 }, { lat = 48.4, lon = 0 }, { { line = "U1", count = 0 }, { line = "", count = 7 } } },
      { e.score, e.at, e.stop })
    assert.matches("town has no field 'score_4'", select(2, pcall(db.update, db, e, { score_4 = 1 })))
    assert.matches("did you mean 'size'", select(2, pcall(db.update, db, e, { siez = 1 })))
  end)

  it("updates some fields in one statement and shows them only then (19)", function()
    local e = town { size = 1 }
    must(db:flush())
    local counts = support.count(orm, function() must(db:update(e, { size = 2, tax = "7" })) end)
    local texts = statements(counts)
    assert.equal(1, #texts)
    assert.matches("^UPDATE `town` SET `size`=%?,`tax`=%? WHERE `id`=%?$", texts[1])
    assert.same({ 2, "7.00" }, { e.size, e.tax })
    must(db:execute("DELETE FROM town WHERE id = ?", e.id))
    local answer, err = db:update(e, { size = 3, tax = "8" })
    assert.is_nil(answer)
    assert.equal("CONFLICT", err.code)
    assert.same({ 2, "7.00" }, { e.size, e.tax }) -- as it was
  end)

  it("says DUPLICATE_KEY of an update, takes another value, finds it then (20)", function()
    town { name = "A", zone = 1, code = "x" }
    local b = town { name = "B", zone = 1, code = "y" }
    must(db:flush())
    local answer, err = db:update(b, { name = "A" })
    assert.is_nil(answer)
    assert.same({ "DUPLICATE_KEY", "name" }, { err.code, err.index })
    assert.equal("B", b.name)
    assert.equal(b.id, orm:session():by(Town, "name", "B").id)
    must(db:update(b, { name = "C" }))
    assert.equal(b.id, orm:session():by(Town, "name", "C").id)
    assert.is_nil((orm:session():by(Town, "name", "B")))
    answer, err = db:update(b, { code = "x" })
    assert.is_nil(answer)
    assert.same({ "DUPLICATE_KEY", "place" }, { err.code, err.index })
    must(db:update(b, { code = "z" }))
    assert.equal(b.id, orm:session():by(Town, "place", { 1, "z" }).id)
    assert.is_nil((orm:session():by(Town, "place", { 1, "y" })))
    assert.same({ true, 0 }, { db:flush() })
  end)

  it("writes all of several or none (48)", function()
    town { name = "taken" }
    must(db:flush())
    local fine, twin = town { name = "fine" }, town { name = "taken" }
    assert.is_nil((db:flush()))
    assert.equal(1, #orm:session():query "SELECT id FROM town")
    assert.is_nil((orm:session():by(Town, "name", "fine")))
    twin.name = "free"
    assert.same({ true, 2 }, { db:flush() })
    assert.same({ true, 0 }, { db:flush() }) -- once
    assert.equal(fine.id, orm:session():by(Town, "name", "fine").id)
  end)

  it("deletes once, and nothing that was never written (48)", function()
    local e = town()
    db:delete(e)
    assert.same({ true, 0 }, { db:flush() })
    assert.matches("not in this session", select(2, pcall(db.delete, db, e)))
    e = town()
    must(db:flush())
    db:delete(e)
    db:delete(e)
    local counts = support.count(orm, function() assert.equal(1, select(2, db:flush())) end)
    assert.equal(1, #statements(counts))
    assert.same({ true, 0 }, { db:flush() })
    assert.matches("not in this session", select(2, pcall(db.update, db, e, { size = 1 })))
  end)
end)

describe("case 5: an edit of 94 columns", function()
  local world, orm
  local Wide = { plain = nil, cached = nil }

  setup(function()
    world = support.world()
    for _, name in ipairs { "plain", "cached" } do
      local fields = { cache = name == "cached" }
      for i = 1, 94 do
        local kinds = { field.uint32, field.string, field.double, field.bool, field.decimal }
        fields[i] = kinds[i % 5 + 1]("f" .. i)
      end
      Wide[name] = regolith.entity("wide_" .. name, fields)
    end
    orm = world:open { Wide.plain, Wide.cached }
  end)
  teardown(function() world:close() end)

  local NEW = { 7, "text", 0.5, true, "1.25" }

  for _, name in ipairs { "plain", "cached" } do
    it("is one statement, and none to read it again: " .. name, function()
      local db, E = orm:session(), Wide[name]
      local e = db:new(E)
      must(db:flush())
      for i = 1, 94 do e["f" .. i] = NEW[i % 5 + 1] end
      local old, new = db:dirty(e)
      local olds, news = 0, 0
      for _ in pairs(old) do olds = olds + 1 end
      for _ in pairs(new) do news = news + 1 end
      assert.same({ 94, 94 }, { olds, news })
      local counts = support.count(orm, function() must(db:flush()) end)
      assert.equal(1, #statements(counts))
      if name == "plain" then assert.equal(1, counts.mysql) end
      local other = orm:session()
      counts = support.count(orm, function()
        local read = other:get(E, e.id)
        for i = 1, 94 do assert.equal(NEW[i % 5 + 1], read["f" .. i]) end
      end)
      assert.equal(name == "plain" and 1 or 0, counts.mysql)
      other:close()
      db:close()
    end)
  end
end)
